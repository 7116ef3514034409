//! The nodes: who they are, which disk they live on, what they have, and what they may become.
//!
//! ```text
//! registered -> active -> draining -> drained -> active
//!                 |          |           |
//!                 +----------+-----------+--> leaving -> removed      (registered -> removed)
//! ```
//!
//! Invariants: a number and a disk are given once, also after a removal; the generation is the number of disks before this one; what a node has
//! (shards, groups per shard) never changes; every node but removed ones speaks the cluster's feature level. Whether a node can be reached is not here: it
//! is the view of whoever asks.
//!
//! Not here: what a node has to have given away before it goes (`cluster.rs`), where replicas are placed (`placement.rs`).

use super::cluster_command::{Endpoint, NodeSpec};
use super::cluster_error::ClusterError;
use super::groups::Place;
use crate::constants::{
    GROUPS_PER_SHARD_MAX, HOST_BYTES_MAX, NODE_DISKS_MAX, NODE_IDS_MAX, NODES_MAX, RACK_BYTES_MAX, REPLICAS_DEFAULT, SHARDS_MAX,
};
use crate::ids::{NodeId, ShardId};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a node takes part in.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// Known, a learner of group 0; nothing is placed on it.
    Registered,
    /// Takes replicas and leads.
    Active,
    /// Keeps its replicas, gets no more, and gives its leaderships away: somebody wants to stop it.
    Draining,
    /// It leads nothing.
    Drained,
    /// Its replicas are moved away.
    Leaving,
    /// Gone for ever.
    Removed,
}

impl NodeState {
    /// Whether `SetNodeState` may lead from here to `next`. `Removed` is reached by `RemoveNode` only.
    fn may_become(self, next: NodeState) -> bool {
        use NodeState::{Active, Drained, Draining, Leaving, Registered};
        matches!(
            (self, next),
            (Registered | Draining | Drained, Active) | (Active, Draining) | (Draining, Drained) | (Active | Draining | Drained, Leaving)
        )
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Registered => "registered",
            NodeState::Active => "active",
            NodeState::Draining => "draining",
            NodeState::Drained => "drained",
            NodeState::Leaving => "leaving",
            NodeState::Removed => "removed",
        })
    }
}

/// A node, as the metadata know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) state: NodeState,
    /// 0 as long as nobody said: the node was registered by a version that knew no disks.
    pub(super) disk: u64,
    /// Those before it, oldest first; as many as the generation says.
    pub(super) past_disks: Vec<u64>,
    pub(super) shards: u16,
    pub(super) groups_per_shard: u16,
    pub(super) rack: String,
    pub(super) cluster: Endpoint,
    pub(super) client: Endpoint,
    pub(super) feature_min: u32,
    pub(super) feature_max: u32,
}

impl Node {
    /// One of which only the size is known.
    pub(super) fn of_size(shards: u16, groups_per_shard: u16) -> Node {
        Node {
            state: NodeState::Active,
            disk: 0,
            past_disks: Vec::new(),
            shards,
            groups_per_shard,
            rack: String::new(),
            cluster: Endpoint::default(),
            client: Endpoint::default(),
            feature_min: 1,
            feature_max: 1,
        }
    }

    pub(super) fn generation(&self) -> u32 {
        self.past_disks.len() as u32
    }

    fn has_had(&self, disk: u64) -> bool {
        self.disk == disk || self.past_disks.contains(&disk)
    }
}

/// All nodes that there are and were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    by_id: BTreeMap<NodeId, Node>,
    pub(super) feature_level: u32,
}

impl Default for Nodes {
    fn default() -> Nodes {
        Nodes::at_level(1)
    }
}

impl Nodes {
    /// None yet.
    pub(super) fn at_level(feature_level: u32) -> Nodes {
        Nodes { by_id: BTreeMap::new(), feature_level }
    }

    /// A node that was not removed.
    pub(super) fn get(&self, node: NodeId) -> Result<&Node, ClusterError> {
        match self.by_id.get(&node) {
            None => Err(ClusterError::UnknownNode(node)),
            Some(found) if found.state == NodeState::Removed => Err(ClusterError::RemovedNode(node)),
            Some(found) => Ok(found),
        }
    }

    /// A node that is known, for who has asked `get` before.
    pub(super) fn known(&self, node: NodeId) -> &Node {
        self.by_id.get(&node).unwrap_or_else(|| panic!("node {node} is not among {:?}", self.by_id.keys()))
    }

    /// All, removed ones too.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.by_id.iter().map(|(id, node)| (*id, node))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Those that replicas may be placed on.
    pub(super) fn active(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.iter().filter(|(_, node)| node.state == NodeState::Active)
    }

    pub(super) fn is_active(&self, node: NodeId) -> bool {
        self.by_id.get(&node).is_some_and(|found| found.state == NodeState::Active)
    }

    /// How many nodes factors may count on: those that take part, and those that only stand aside, so that a topic that is created during a rolling restart has as
    /// many replicas as any other.
    pub(super) fn staying(&self) -> usize {
        self.iter().filter(|(_, node)| matches!(node.state, NodeState::Active | NodeState::Draining | NodeState::Drained)).count()
    }

    /// Replicas of what nobody gave a number for.
    pub(super) fn default_replicas(&self) -> u8 {
        self.staying().clamp(1, usize::from(REPLICAS_DEFAULT)) as u8
    }

    /// The shard of a node that goes with a group's home: of equal number where it can be, so that shards of a pair of nodes speak to one each.
    pub(super) fn place_on(&self, node: NodeId, home: Place) -> Place {
        Place { node, shard: ShardId(home.shard.0 % self.known(node).shards) }
    }

    /// Whether what a node says can be taken in.
    pub(super) fn check_add(&self, spec: &NodeSpec) -> Result<(), ClusterError> {
        check_spec(spec)?;
        let node = NodeId(spec.node);
        let wrong = |what: String| Err(ClusterError::Spec(node, what));
        if !(spec.feature_min..=spec.feature_max).contains(&self.feature_level) {
            return Err(ClusterError::Feature(format!(
                "node {node} speaks the feature levels {} to {}, the cluster is at {}: install the version of the other nodes on it",
                spec.feature_min, spec.feature_max, self.feature_level
            )));
        }
        match self.get(node) {
            Err(ClusterError::UnknownNode(_)) => {
                if spec.generation != 0 {
                    return wrong(format!("it is new and says it had {} disks before: start on an empty --data-dir", spec.generation));
                }
                self.check_room()?;
                self.check_new_disk(spec.disk)
            }
            Err(removed) => Err(removed),
            Ok(known) if (known.shards, known.groups_per_shard) != (spec.shards, spec.groups_per_shard) => wrong(format!(
                "it registered with {} shards of {} groups, and says {} of {} now: these are fixed for a data directory",
                known.shards, known.groups_per_shard, spec.shards, spec.groups_per_shard
            )),
            Ok(known) if known.past_disks.contains(&spec.disk) => Err(ClusterError::KnownDisk { disk: spec.disk, of: node }),
            Ok(known) if known.disk != 0 && known.disk != spec.disk => Err(ClusterError::OtherDisk(node)),
            Ok(known) if known.generation() != spec.generation => {
                wrong(format!("it says generation {}, and is known under {}", spec.generation, known.generation()))
            }
            Ok(known) if known.disk == 0 => self.check_new_disk(spec.disk),
            Ok(_) => Ok(()),
        }
    }

    /// Whether one more may come.
    pub(super) fn check_room(&self) -> Result<(), ClusterError> {
        let here = self.iter().filter(|(_, node)| node.state != NodeState::Removed).count();
        if here >= NODES_MAX || self.by_id.len() >= NODE_IDS_MAX {
            return Err(ClusterError::Limit(format!(
                "the cluster has {here} nodes and has had {}: {NODES_MAX} at one time and {NODE_IDS_MAX} in all can be",
                self.by_id.len()
            )));
        }
        Ok(())
    }

    fn check_new_disk(&self, disk: u64) -> Result<(), ClusterError> {
        match self.iter().find(|(_, node)| node.has_had(disk)) {
            Some((of, _)) => Err(ClusterError::KnownDisk { disk, of }),
            None => Ok(()),
        }
    }

    /// Takes in what a node says about itself; `check_add` has been asked. The first node is active at once, for somebody has to vote in group 0. Whether it is
    /// new.
    pub(super) fn add(&mut self, spec: &NodeSpec) -> bool {
        let is_first = self.is_empty();
        let is_new = !self.by_id.contains_key(&NodeId(spec.node));
        let node = self.by_id.entry(NodeId(spec.node)).or_insert_with(|| Node {
            state: if is_first { NodeState::Active } else { NodeState::Registered },
            ..Node::of_size(spec.shards, spec.groups_per_shard)
        });
        node.disk = spec.disk;
        node.rack.clone_from(&spec.rack);
        node.cluster = spec.cluster.clone();
        node.client = spec.client.clone();
        (node.feature_min, node.feature_max) = (spec.feature_min, spec.feature_max);
        is_new
    }

    /// Takes one in, as it is.
    pub(super) fn insert(&mut self, id: NodeId, node: Node) {
        assert!(self.by_id.insert(id, node).is_none(), "node {id} was taken in twice");
    }

    pub(super) fn check_replace_disk(&self, node: NodeId, disk: u64) -> Result<(), ClusterError> {
        let known = self.get(node)?;
        if disk == 0 {
            return Err(ClusterError::Spec(node, "disk 0 is none".into()));
        }
        // The disk that is being replaced is one of past_disks then.
        if known.past_disks.len() + 1 >= NODE_DISKS_MAX {
            return Err(ClusterError::Limit(format!("node {node} has had {NODE_DISKS_MAX} disks: join with another --node-id")));
        }
        self.check_new_disk(disk)
    }

    pub(super) fn replace_disk(&mut self, node: NodeId, disk: u64) {
        let known = self.by_id.get_mut(&node).expect("checked");
        known.past_disks.push(std::mem::replace(&mut known.disk, disk));
    }

    pub(super) fn check_state(&self, node: NodeId, next: NodeState) -> Result<(), ClusterError> {
        let is = self.get(node)?.state;
        if is.may_become(next) { Ok(()) } else { Err(ClusterError::State { node, is, wanted: format!("it cannot become {next}") }) }
    }

    pub(super) fn set_state(&mut self, node: NodeId, next: NodeState) {
        self.by_id.get_mut(&node).expect("checked").state = next;
    }

    pub(super) fn check_feature_level(&self, level: u32) -> Result<(), ClusterError> {
        if level <= self.feature_level {
            return Err(ClusterError::Feature(format!(
                "the cluster is at feature level {}: it rises, and {level} is not above",
                self.feature_level
            )));
        }
        let cannot = |node: &Node| node.state != NodeState::Removed && !(node.feature_min..=node.feature_max).contains(&level);
        match self.iter().find(|(_, node)| cannot(node)) {
            Some((id, node)) => Err(ClusterError::Feature(format!(
                "node {id} speaks the feature levels {} to {}, not {level}: update it first",
                node.feature_min, node.feature_max
            ))),
            None => Ok(()),
        }
    }
}

/// What a node may say it has: the limits of the settings, since every group costs memory on each replica.
pub(super) fn check_node(node: u32, shards: u16, groups_per_shard: u16) -> Result<(), ClusterError> {
    let fits = |count: u16, max: u64| (1..=max).contains(&u64::from(count));
    if fits(shards, SHARDS_MAX) && fits(groups_per_shard, GROUPS_PER_SHARD_MAX) {
        return Ok(());
    }
    Err(ClusterError::Limit(format!(
        "node {node} says it has {shards} shards with {groups_per_shard} groups each: 1 to {SHARDS_MAX} with 1 to {GROUPS_PER_SHARD_MAX} can be"
    )))
}

/// What can be said about a node, whatever is known of it.
fn check_spec(spec: &NodeSpec) -> Result<(), ClusterError> {
    check_node(spec.node, spec.shards, spec.groups_per_shard)?;
    let wrong = |what: String| Err(ClusterError::Spec(NodeId(spec.node), what));
    if spec.node == 0 || spec.disk == 0 {
        return wrong("numbers of nodes and disks begin with 1".into());
    }
    if !is_rack(&spec.rack) {
        return wrong(format!("{:?} is not a rack: at most {RACK_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-'", spec.rack));
    }
    if spec.feature_min == 0 || spec.feature_min > spec.feature_max {
        return wrong(format!("feature levels {} to {} are none", spec.feature_min, spec.feature_max));
    }
    for (what, endpoint) in [("other nodes", &spec.cluster), ("clients", &spec.client)] {
        if endpoint.host.is_empty() || !is_endpoint(endpoint, spec.shards) {
            return wrong(format!(
                "its address for {what} needs a host of 1 to {HOST_BYTES_MAX} printable characters, a port, and a port for each of its {} shards",
                spec.shards
            ));
        }
    }
    Ok(())
}

pub(super) fn is_rack(rack: &str) -> bool {
    rack.len() <= RACK_BYTES_MAX && rack.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Whether it is one that was told, or one that was not told yet.
pub(super) fn is_endpoint(endpoint: &Endpoint, shards: u16) -> bool {
    let is_host = endpoint.host.len() <= HOST_BYTES_MAX && endpoint.host.bytes().all(|b| b.is_ascii_graphic());
    let has_ports = endpoint.port != 0 && endpoint.shard_ports.len() == usize::from(shards) && !endpoint.shard_ports.contains(&0);
    *endpoint == Endpoint::default() || (is_host && !endpoint.host.is_empty() && has_ports)
}
