//! What other nodes do again and again, and what the log says of it: at once when it is seen, and then rarely, with how often it was since.
//!
//! ```text
//!   a node of another cluster says hello     -> a warning with both clusters: a lost disk that began a cluster of its own looks so
//!   a node refuses this one's connection     -> a warning with its sentence; that the node was removed is one sentence, whoever says it
//!   a node connects anew, and again, while
//!   its connection before stands             -> a warning that two processes may run as that node
//! ```
//! Invariants: as many things are remembered as there are nodes with a number below 2^32 that dial this one, at most [`REMEMBERED_MAX`].
//!
//! Not here: what is done about any of it (`pipelines.rs`).

use super::shard::Shard;
use crate::effects::Now;
use crate::ids::{NodeId, ReplicaId, hex};
use std::collections::BTreeMap;
use tramline_wire::node::{Hello, Refusal, Refused};

/// Between two lines of the same thing.
const MINUTE_US: u64 = 60_000_000;
/// The same of what does not change by itself.
const RARELY_US: u64 = 600_000_000;
/// Whoever dials names its own number: a stranger could name many.
const REMEMBERED_MAX: usize = 256;
/// So many new connections of a node in a minute, each while the one before stood, are no accident. One that dials again after a silence needs more than a
/// second for each; of these most end before the next one comes.
const REPLACED_MAX: u32 = 10;
/// Processes of a node that are remembered.
const BOOTS: usize = 4;

/// Something that happens again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A hello of another cluster.
    Foreign,
    /// This node's hello was refused with this code.
    Refused(u16),
    /// Two processes run as one node.
    Twice,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    /// When it was said last.
    at_us: u64,
    /// How often it was not said since.
    unsaid: u64,
}

/// The processes of one node, as their connections tell.
#[derive(Clone, Debug, Default)]
struct Boots {
    /// The newest last.
    known: Vec<u64>,
    /// Since when replacements are counted, and how many there were.
    since_us: u64,
    replaced: u32,
}

/// See the file's page.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    said: BTreeMap<(What, NodeId), Said>,
    boots: BTreeMap<ReplicaId, Boots>,
}

impl Seldom {
    /// Whether it is to be said now: then how often it was not said since it was said last.
    fn is_due(&mut self, now_us: u64, what: What, node: NodeId, every_us: u64) -> Option<u64> {
        if self.said.len() >= REMEMBERED_MAX && !self.said.contains_key(&(what, node)) {
            return None;
        }
        let before = self.said.get(&(what, node)).copied();
        let is_early = |said: &Said| now_us < said.at_us.saturating_add(every_us);
        if let Some(Said { at_us, unsaid }) = before.filter(is_early) {
            self.said.insert((what, node), Said { at_us, unsaid: unsaid + 1 });
            return None;
        }
        self.said.insert((what, node), Said { at_us: now_us, unsaid: 0 });
        Some(before.map_or(0, |said| said.unsaid))
    }

    /// A node has connected. Whether that tells of a second process: one that was there before comes again after another one, or connections replace each
    /// other all the time.
    fn is_twice(&mut self, now_us: u64, from: ReplicaId, boot: u64, is_replacing: bool) -> bool {
        if self.boots.len() >= REMEMBERED_MAX && !self.boots.contains_key(&from) {
            return false;
        }
        let boots = self.boots.entry(from).or_default();
        let is_back = boots.known.contains(&boot) && boots.known.last() != Some(&boot);
        boots.known.retain(|known| *known != boot);
        if boots.known.len() == BOOTS {
            boots.known.remove(0);
        }
        boots.known.push(boot);
        if now_us >= boots.since_us.saturating_add(MINUTE_US) {
            (boots.since_us, boots.replaced) = (now_us, 0);
        }
        boots.replaced += u32::from(is_replacing);
        is_back || boots.replaced >= REPLACED_MAX
    }
}

fn again(unsaid: u64) -> String {
    if unsaid == 0 { String::new() } else { format!(" ({unsaid} times since this was said last)") }
}

impl Shard {
    /// A node of another cluster dials this one.
    pub(super) fn meet_foreigner(&mut self, now: Now, hello: &Hello<'_>) {
        let node = NodeId(hello.from_node);
        let Some(unsaid) = self.pipelines.seldom.is_due(now.mono_us, What::Foreign, node, MINUTE_US) else { return };
        tracing::warn!(
            shard = self.id.0,
            "node {node} of cluster {} dials this node {} of cluster {}, and is refused: if this node's disk was lost, stop it and start it with --join on an empty --data-dir; else an address is wrong{}",
            hex(&hello.cluster_id),
            self.node,
            hex(&self.info.cluster_id),
            again(unsaid)
        );
    }

    /// A node refuses this one's connection. That this node was removed every one says, and it is said once.
    pub(super) fn note_refusal(&mut self, now: Now, from: NodeId, refused: &Refused<'_>) {
        let (of, every_us) = match refused.refusal() {
            Some(Refusal::Removed) => (NodeId(0), RARELY_US),
            _ => (from, MINUTE_US),
        };
        let Some(unsaid) = self.pipelines.seldom.is_due(now.mono_us, What::Refused(refused.code), of, every_us) else { return };
        let what = match refused.refusal() {
            Some(Refusal::OtherCluster) => format!(
                "it is of another cluster than this node, whose cluster is {}: if its disk was lost, stop it and start it with --join on an empty --data-dir; else the address has changed hands",
                hex(&self.info.cluster_id)
            ),
            _ => refused.message.to_owned(),
        };
        tracing::warn!(shard = self.id.0, node = from.0, "node {from} does not take this one's connection: {what}{}", again(unsaid));
    }

    /// A node has connected, perhaps while its connection before stands.
    pub(super) fn note_connection(&mut self, now: Now, from: ReplicaId, boot: u64, is_replacing: bool) {
        if !self.pipelines.seldom.is_twice(now.mono_us, from, boot, is_replacing) {
            return;
        }
        let Some(unsaid) = self.pipelines.seldom.is_due(now.mono_us, What::Twice, from.node(), MINUTE_US) else { return };
        tracing::warn!(
            shard = self.id.0,
            node = from.node().0,
            "two processes may run as node {}, on copies of one data directory: their connections end each other's; stop one of them and give it an empty --data-dir and a --node-id of its own{}",
            from.node(),
            again(unsaid)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(3);

    #[test]
    fn the_same_is_said_at_once_and_then_rarely_with_how_often_it_was() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.is_due(5, What::Foreign, NODE, MINUTE_US), Some(0));
        assert_eq!((1..=10).filter_map(|at| seldom.is_due(at * 1_000_000, What::Foreign, NODE, MINUTE_US)).count(), 0);
        assert_eq!(seldom.is_due(5, What::Foreign, NodeId(4), MINUTE_US), Some(0), "another node");
        assert_eq!(seldom.is_due(5, What::Refused(4), NODE, MINUTE_US), Some(0), "another thing");
        assert_eq!(seldom.is_due(MINUTE_US + 5, What::Foreign, NODE, MINUTE_US), Some(10));
        assert_eq!(seldom.is_due(2 * MINUTE_US + 5, What::Foreign, NODE, MINUTE_US), Some(0));
        for node in 10..1_000 {
            let _ = seldom.is_due(0, What::Foreign, NodeId(node), MINUTE_US);
        }
        assert_eq!(seldom.said.len(), REMEMBERED_MAX);
    }

    #[test]
    fn a_process_that_is_back_after_another_one_means_two_of_them() {
        let from = ReplicaId::of(0, NODE);
        let mut seldom = Seldom::default();
        // A node that starts again and again, and one that dials again.
        for boot in [1, 2, 2, 3, 4, 5, 6] {
            assert!(!seldom.is_twice(0, from, boot, true), "{boot}");
        }
        assert!(seldom.is_twice(0, from, 5, true));
        assert!(seldom.is_twice(0, from, 6, true));
    }

    #[test]
    fn connections_that_replace_each_other_all_the_time_mean_it_too() {
        let from = ReplicaId::of(0, NODE);
        let mut seldom = Seldom::default();
        // A start of the copy has the same number as one of the original.
        let told = (0..u64::from(REPLACED_MAX)).filter(|at| seldom.is_twice(1 + at * 1_000_000, from, 7, true)).count();
        assert_eq!(told, 1);
        let mut calm = Seldom::default();
        assert!((0..100).all(|at| !calm.is_twice(at * 10_000_000, from, 7, true)), "six in a minute");
        assert!((0..100).all(|at| !calm.is_twice(at, from, 7, false)), "the one before had ended");
    }
}
