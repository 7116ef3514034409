//! `tramline recover`: the cluster's metadata go on with what one node has of them, when the majority that voted about them is gone for good (decision 0011).
//!
//! Invariants: only on a directory of a node that does not run, and not without the word that the loss is accepted; what is written here is a mark, the start does it.
//!
//! Not here: what the start does (shard/beginnings.rs), recovery of other groups (shard/recovering.rs).

use super::data_dir::DataDir;
use crate::ids::hex;
use std::path::Path;
use std::time::Duration;

/// A node that was just stopped gives its directory up within moments.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Marks the directory; answers what is to be done next, or why it was not done.
pub fn recover(dir: &Path, is_loss_accepted: bool) -> Result<String, String> {
    if !is_loss_accepted {
        return Err(format!(
            "the next start of the node in {} would go on with what it has of the cluster's metadata: topics, groups and moves that only the other voters know are lost, and those voters must never start \
             again with their directories; bring a majority of them back if that can be done; if their disks are gone for good, say --i-accept-loss",
            dir.display()
        ));
    }
    let identity = DataDir::mark_to_recover(dir, LOCK_WAIT).map_err(|error| error.to_string())?;
    Ok(format!(
        "node {} of cluster {} goes on with the metadata alone at its next start. First clear the data directories of all other nodes that `tramctl cluster groups` showed as voters of group 0: they join again \
         (--join) when this node serves. Then see which groups have no leader, and recover them with `tramctl cluster unclean-recover`",
        identity.node,
        hex(&identity.cluster_id)
    ))
}
