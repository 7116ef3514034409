//! DescribeCluster (kind 64) and AlterCluster (kind 65): nodes, replica groups, and standing aside.
//!
//! Not here: where partitions are (`metadata`), what nodes say to each other (`node`).

use crate::prim::{List, choices, layout};

choices! {
    /// What a node takes part in.
    pub enum NodeState("state of a node") {
        /// Known; nothing is placed on it yet.
        Registered = 1, "registered";
        /// Takes replicas and leads.
        Active = 2, "active";
        /// Keeps its replicas and gives its leaderships away.
        Draining = 3, "draining";
        /// It leads nothing that another node could lead.
        Drained = 4, "drained";
        /// Its replicas are moved away.
        Leaving = 5, "leaving";
        /// Gone for ever.
        Removed = 6, "removed";
    }
}

choices! {
    /// What is to become of a node, or of a group's replicas.
    pub enum ClusterAction("action on a node") {
        /// It stands aside: it gives its leaderships away and gets no new replicas, so that it can be stopped.
        Drain = 1, "drain";
        /// It takes part again.
        Undrain = 2, "undrain";
        /// All its replicas are moved away, then it is gone for ever.
        Remove = 3, "remove";
        /// A replica of a group comes to a node, goes from another one, or both.
        Move = 4, "move";
        /// Replicas and leaderships are moved until they are even.
        Balance = 5, "balance";
        /// A group's move that is under way is given up: who came stays away.
        CancelMove = 6, "cancel_move";
        /// A group whose majority is gone for good goes on with what is left of it: what only that majority had is lost.
        UncleanRecover = 7, "unclean_recover";
    }
}

layout! {
    /// Tell of the whole cluster.
    pub struct DescribeClusterRequest {}
}

layout! {
    /// A node.
    pub struct ClusterNode<'a> {
        /// Its number.
        pub node: u32;
        /// How many disks it had before its present one.
        pub generation: u32;
        /// What it takes part in.
        pub state: NodeState;
        /// 1 where the node that is asked has a connection to it, or is it; else 0.
        pub connected: u8;
        /// Its shards.
        pub shards: u16;
        /// Groups that it is known to lead.
        pub leads: u32;
        /// Replicas that it has.
        pub replicas: u32;
        /// What fails together with it; empty where nobody said.
        pub rack: &'a str;
        /// Where it listens for other nodes, as `host:port`; empty as long as it has not told.
        pub cluster: &'a str;
        /// Where it listens for clients, as `host:port`; empty as long as it has not told.
        pub client: &'a str;
    }
}

layout! {
    /// A replica group. Group 0 is the metadata's.
    pub struct ClusterGroup<'a> {
        /// Its number.
        pub group: u32;
        /// Replicas that it is to have.
        pub factor: u8 => zero 3;
        /// Node that leads it, 0 where that is not known to the node asked.
        pub leader: u32;
        /// In this term; 0 where it is not known.
        pub term: u64;
        /// Partitions in it.
        pub partitions: u32;
        /// It went on without a majority with this term: records that were acknowledged before may be missing. 0: never.
        pub unclean_term: u64;
        /// Nodes whose replicas vote, the preferred leader first.
        pub voters: List<'a, u32>;
        /// Nodes that learn it.
        pub learners: List<'a, u32>;
        /// A move that is under way, in words; empty for none.
        pub moving: &'a str;
    }
}

layout! {
    /// The cluster, as the node that is asked knows it.
    pub struct DescribeClusterReply<'a> {
        /// Who answers.
        pub node: u32;
        /// Grows with each change of the metadata.
        pub view_epoch: u64;
        /// What all nodes speak.
        pub feature_level: u32;
        /// All nodes, by number, removed ones too.
        pub nodes: List<'a, ClusterNode<'a>>;
        /// All groups, by number.
        pub groups: List<'a, ClusterGroup<'a>>;
    }
}

layout! {
    /// Change what a node takes part in, or where a group's replicas are. Goes to whoever leads group 0.
    pub struct AlterClusterRequest {
        /// What is to be done.
        pub action: ClusterAction => zero 3;
        /// With which node; of a move the one that gets a replica, 0 for none. 0 where no node is meant.
        pub node: u32;
        /// Of a move, its end, or a recovery: which group. Else 0.
        pub group: u32;
        /// Of a move: the node that gives its replica up, 0 for none. Else 0.
        pub from_node: u32;
    }
}

layout! {
    /// It is in the metadata; what follows from it takes its time.
    pub struct AlterClusterReply {}
}
