//! `--join` on a data directory that is in a cluster already: operators keep the flag where they start their nodes, so it is asked whether the seeds are of that
//! cluster, and no more.
//!
//! ```text
//!   for each seed, until one has answered:   connect -> Hello with the own cluster -> HelloReply: the same cluster, go on
//!        refused, of another cluster              -> the start fails: --join and the directory name different clusters
//!        refused, this disk was replaced, or the node removed -> the start fails
//!        silent, closed, anything else            -> said in the log, the next seed
//! ```
//! Invariants: a seed that says nothing keeps no node from starting, and all of them together hold it up for `KNOWN_US` at most: a cluster that was stopped as a
//! whole starts with nobody there.
//!
//! Not here: nodes that are in no cluster yet (`join.rs`).

use super::talk::{self, Outcome};
use super::{Asking, JoinError, Times};
use crate::ids::NodeId;
use std::fmt;
use std::time::{Duration, Instant};
use tramline_wire::node::Refusal;

/// For all seeds together: a start that finds nobody takes so much longer at most.
const KNOWN_US: u64 = 3_000_000;
/// For one of them to accept, and to answer.
const SEED_US: u64 = 1_000_000;

impl Times {
    /// Of a node that needs no answer.
    pub(in crate::runtime) fn of_known() -> Times {
        let seed = Duration::from_micros(SEED_US);
        Times { all: Duration::from_micros(KNOWN_US), connect: seed, silence: seed, pause: seed }
    }
}

/// Why a node that has a cluster does not start with `--join`.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// A seed is of another one.
    OtherCluster {
        /// Which node the directory is.
        node: NodeId,
        /// Of which cluster, as digits.
        cluster: String,
        /// The seed.
        by: String,
    },
    /// The cluster has gone on without this disk.
    Removed {
        /// The node.
        node: NodeId,
        /// How many disks it had before this one.
        generation: u32,
        /// Who says so.
        by: String,
        /// In which words.
        why: String,
    },
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Known::OtherCluster { node, cluster, by } => write!(
                f,
                "the data directory is node {node} of cluster {cluster}, and {by}, which --join names, is of another cluster; start without --join, or on an empty --data-dir"
            ),
            Known::Removed { node, generation, by, why } => {
                write!(
                    f,
                    "the data directory is disk {} of node {node}, and its cluster has no place for that any more; {by} says: {why}",
                    generation + 1
                )
            }
        }
    }
}

/// Asks until one seed has answered, or all were asked.
pub(in crate::runtime) fn check_known(asking: &Asking<'_>) -> Result<(), JoinError> {
    let node = NodeId(asking.spec.node);
    let until = Instant::now() + asking.times.all;
    for seed in asking.seeds {
        if (asking.is_stopped)() || Instant::now() >= until {
            break;
        }
        match talk::greet(asking, seed, until) {
            Ok(_) => {
                tracing::info!("{seed} is of this node's cluster");
                return Ok(());
            }
            Err(Outcome::Refused(Refusal::OtherCluster, _)) => {
                let cluster = crate::ids::hex(&asking.cluster_id);
                return Err(JoinError::Known(Known::OtherCluster { node, cluster, by: seed.clone() }));
            }
            Err(Outcome::Refused(Refusal::Removed, why)) => {
                return Err(JoinError::Known(Known::Removed { node, generation: asking.spec.generation, by: seed.clone(), why }));
            }
            Err(Outcome::Stopped) => break,
            Err(Outcome::Again(why) | Outcome::Never(why) | Outcome::Refused(_, why) | Outcome::Elsewhere(why)) => {
                tracing::info!("{seed} of --join is passed over: {why}");
            }
            Err(Outcome::Told(_)) => unreachable!("nothing was asked"),
        }
    }
    Ok(())
}
