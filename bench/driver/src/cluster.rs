//! Three nodes of one cluster, each a real `tramline serve` process with one shard and a data directory of its own, all on this machine.
//!
//! Invariants: each node's process id stands in a file of its own, for whoever has to clean up after this program; the nodes are killed when this
//! value goes away; a topic is handed out only when the cluster has come to rest: every group has all its replicas, and its preferred leader.
//!
//! The nodes do not spin for longer than 50 us: they stay alive while a single node is measured (halted ones would lose their leaderships), and where there are fewer
//! processors than nodes they share some.
//!
//! Not here: what is measured with them (`replicated.rs`), how a process is started and watched (`broker.rs`).

use crate::batches::BATCH_BYTES;
use crate::broker::Broker;
use crate::error::{BenchError, io_error};
use crate::runs::{OwnBrokers, Place};
use crate::target::{self, Target};
use rustix::thread::CpuSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tramline_client::{Client, ClusterDescription, NodeState};

/// Nodes, and replicas of each topic here.
pub const NODES: usize = 3;
/// Polls for 50 us, then sleeps.
const SPIN: &str = "adaptive";
/// How long nodes may take to know each other, and groups to be led as they shall be: who is to lead waits for 5 s, and hands over one group at a time.
const REST_PATIENCE: Duration = Duration::from_secs(60);
/// How long the slowest replica may be behind the majority that has acknowledged.
const REPLICAS_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// What the nodes have counted so far.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Bytes of frames that nodes sent to nodes, all of them together.
    pub sent_bytes: f64,
    /// Batches and payloads appended to the log of each node.
    appends: Vec<f64>,
    /// Of `EVENTS`, all nodes together.
    events: [f64; EVENTS.len()],
}

/// What makes nodes send again what they had sent: name and label of the metric, and what it is in words.
const EVENTS: [(&str, &str, &str); 3] = [
    ("tramline_node_connections_opened_total", "side=\"dialer\"", "connections made"),
    ("tramline_snapshots_total", "direction=\"taken\"", "snapshots taken"),
    ("tramline_leader_changes_total", "", "changes of leaders"),
];

impl Counted {
    /// What happened since `before` that makes nodes send again; empty where nothing did.
    pub fn events_since(&self, before: &Counted) -> String {
        let rises = self.events.iter().zip(&before.events).map(|(now, before)| now - before);
        let told = EVENTS.iter().zip(rises).filter(|(_, rise)| *rise > 0.0);
        told.map(|((.., words), rise)| format!("; {rise} {words}")).collect()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Broker>,
    client: Client,
}

impl Cluster {
    /// Starts the nodes in empty directories, the first one by itself and the others through it, and waits until all take part and have
    /// `pool_segments` prepared segments.
    pub fn start(own: &OwnBrokers, settings: &[String], client_cpu: usize, pool_segments: u32) -> Result<Cluster, BenchError> {
        eprintln!("tramline-bench:   starting {NODES} nodes");
        let cpus = places(&own.allowed, own.cpu, client_cpu);
        let mut nodes: Vec<Broker> = Vec::new();
        let mut seed = None;
        for (at, cpu) in cpus.into_iter().enumerate() {
            let name = node_name(at);
            let dir = own.dir.join(&name);
            // Another cluster's, of a measure that failed.
            if dir.exists() {
                std::fs::remove_dir_all(&dir).map_err(io_error("cannot empty a node's data directory"))?;
            }
            let arguments = arguments(at, seed.as_deref());
            let place = Place { name: &name, pid_file: pid_file(&own.pid_file, at), cpu, spin: SPIN, arguments: &arguments };
            let node =
                own.start_at(&place, settings).map_err(|error| BenchError::Broker(format!("node {} of {NODES}: {error}", at + 1)))?;
            if at == 0 {
                seed = Some(cluster_address(&target::client(&node.address)?)?);
            }
            nodes.push(node);
        }
        let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
        let client = target::client(&addresses.join(","))?;
        let cluster = Cluster { nodes, client };
        cluster.wait_for_rest()?;
        cluster.wait_for_pools(pool_segments)?;
        Ok(cluster)
    }

    /// Creates a topic of one partition with a replica on each node, and waits until it is led by whom it shall be.
    pub fn topic(&self, name: &str, settings: &[(&str, String)]) -> Result<Target, BenchError> {
        target::create_replicated(self.address(), name, NODES as u8, settings)?;
        self.wait_for_rest()?;
        target::find(self.address(), name, 1)
    }

    /// Deletes a topic.
    pub fn delete(&self, target: &Target) -> Result<(), BenchError> {
        target::delete(self.address(), target)
    }

    /// Waits until each node has its prepared segments, so that none writes them while something else is measured.
    pub fn wait_for_pools(&self, segments: u32) -> Result<(), BenchError> {
        self.nodes.iter().try_for_each(|node| node.wait_for_pool(segments))
    }

    /// Looks at the nodes' numbers.
    pub fn counted(&self) -> Result<Counted, BenchError> {
        let mut counted = Counted { sent_bytes: 0.0, appends: Vec::new(), events: [0.0; EVENTS.len()] };
        for node in &self.nodes {
            counted.sent_bytes += node.metric("tramline_node_network_bytes_total", "direction=\"out\"")?;
            counted.appends.push(node.metric("tramline_log_appends_total", "")?);
            for (count, (name, label, _)) in counted.events.iter_mut().zip(EVENTS) {
                *count += node.metric(name, label)?;
            }
        }
        Ok(counted)
    }

    /// Waits until every node has appended `batches` since `before` and hardly anything is sent any more: two of three are enough for an
    /// acknowledgement, and what the third one still has to get is part of what is sent. (What comes in a snapshot is appended twice, so that the
    /// number alone would be there too soon.) Answers what was counted then.
    pub fn wait_for_replicas(&self, before: &Counted, batches: u64) -> Result<Counted, BenchError> {
        let start = Instant::now();
        let mut sent_bytes = before.sent_bytes;
        loop {
            let counted = self.counted()?;
            let fewest = counted.appends.iter().zip(&before.appends).map(|(now, before)| now - before).fold(f64::INFINITY, f64::min);
            if fewest >= batches as f64 && counted.sent_bytes - sent_bytes < f64::from(BATCH_BYTES) {
                return Ok(counted);
            }
            if start.elapsed() > REPLICAS_PATIENCE {
                return Err(BenchError::Broker(format!(
                    "a node has {fewest} of {batches} batches {} s after",
                    REPLICAS_PATIENCE.as_secs()
                )));
            }
            sent_bytes = counted.sent_bytes;
            std::thread::sleep(POLL);
        }
    }

    fn address(&self) -> &str {
        &self.nodes[0].address
    }

    fn wait_for_rest(&self) -> Result<(), BenchError> {
        let start = Instant::now();
        loop {
            let told = self.client.describe_cluster()?;
            let Some(why) = unrest(&told) else { return Ok(()) };
            if start.elapsed() > REST_PATIENCE {
                return Err(BenchError::Broker(format!("the cluster did not come to rest within {} s: {why}", REST_PATIENCE.as_secs())));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Where the process id of node `at` is written: beside that of brokers that are alone.
pub fn pid_file(own: &Path, at: usize) -> PathBuf {
    own.with_file_name(format!("{}.pid", node_name(at)))
}

fn node_name(at: usize) -> String {
    format!("node-{}", at + 1)
}

/// What makes node `at` one of a cluster: the first begins it, the others join through it.
fn arguments(at: usize, seed: Option<&str>) -> Vec<String> {
    let mut arguments = vec!["--node-id".to_owned(), (at + 1).to_string(), "--cluster-listen".to_owned(), "127.0.0.1:0".to_owned()];
    arguments.extend(seed.into_iter().flat_map(|seed| ["--join".to_owned(), seed.to_owned()]));
    arguments
}

/// Where the node of this client listens for other nodes.
fn cluster_address(client: &Client) -> Result<String, BenchError> {
    let start = Instant::now();
    loop {
        let told = client.describe_cluster()?;
        if let Some(node) = told.nodes.into_iter().find(|node| !node.cluster.is_empty()) {
            return Ok(node.cluster);
        }
        if start.elapsed() > REST_PATIENCE {
            return Err(BenchError::Silent("waiting for the first node to tell where it listens for others"));
        }
        std::thread::sleep(POLL);
    }
}

/// The processors of the nodes' shards, in turn: the one of single nodes first, then those that nobody has. The client keeps its own for itself.
fn places(allowed: &CpuSet, server: usize, client: usize) -> [usize; NODES] {
    let others = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu) && *cpu != server && *cpu != client);
    let cpus: Vec<usize> = std::iter::once(server).chain(others).take(NODES).collect();
    std::array::from_fn(|at| cpus[at % cpus.len()])
}

/// What is still to come before nothing moves by itself any more.
fn unrest(told: &ClusterDescription) -> Option<String> {
    let part = told.nodes.iter().filter(|node| node.state == NodeState::Active && node.connected).count();
    if part < NODES {
        return Some(format!("{part} of {NODES} nodes take part"));
    }
    // Who leads a group of one replica is told to nobody else.
    let mut shared = told.groups.iter().filter(|group| group.group == 0 || group.factor > 1);
    shared.find_map(|group| {
        let why = if group.voters.len() < usize::from(group.factor) || (group.group == 0 && group.voters.len() < NODES) {
            "lacks a replica"
        } else if group.leader.is_none() {
            "has no leader"
        } else if group.group != 0 && group.leader != group.voters.first().copied() {
            // The metadata's go to nobody in particular.
            "is not led by whom it shall be"
        } else if !group.learners.is_empty() || !group.moving.is_empty() {
            "moves"
        } else {
            return None;
        };
        Some(format!("group {} {why}", group.group))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::{ClusterGroup, ClusterNode};

    fn node(node: u32) -> ClusterNode {
        ClusterNode {
            node,
            generation: 0,
            state: NodeState::Active,
            connected: true,
            shards: 1,
            leads: 0,
            replicas: 0,
            rack: String::new(),
            cluster: String::new(),
            client: String::new(),
        }
    }

    fn group(group: u32, voters: &[u32], leader: Option<u32>) -> ClusterGroup {
        ClusterGroup {
            group,
            factor: 3,
            leader,
            term: 1,
            partitions: 0,
            unclean_term: None,
            voters: voters.to_vec(),
            learners: Vec::new(),
            moving: String::new(),
        }
    }

    fn told(nodes: u32, groups: Vec<ClusterGroup>) -> ClusterDescription {
        ClusterDescription { node: 1, view_epoch: 1, feature_level: 1, nodes: (1..=nodes).map(node).collect(), groups }
    }

    #[test]
    fn a_cluster_is_at_rest_when_groups_are_whole_and_led_by_their_first_voter() {
        let alone = ClusterGroup { factor: 1, ..group(4, &[2], None) };
        let whole = || vec![group(0, &[1, 2, 3], Some(2)), alone.clone(), group(5, &[2, 3, 1], Some(2))];
        assert_eq!(unrest(&told(3, whole())), None);
        let cases = [
            (told(2, whole()), "2 of 3 nodes take part"),
            (told(3, vec![group(0, &[1], Some(1))]), "group 0 lacks a replica"),
            (told(3, vec![group(5, &[2, 3], Some(2))]), "group 5 lacks a replica"),
            (told(3, vec![group(5, &[2, 3, 1], None)]), "group 5 has no leader"),
            (told(3, vec![group(5, &[2, 3, 1], Some(1))]), "group 5 is not led by whom it shall be"),
            (told(3, vec![ClusterGroup { learners: vec![1], ..group(5, &[2, 3, 1], Some(2)) }]), "group 5 moves"),
        ];
        for (told, why) in cases {
            assert_eq!(unrest(&told).as_deref(), Some(why));
        }
    }

    #[test]
    fn what_makes_nodes_send_again_is_told() {
        let counted = |events| Counted { sent_bytes: 0.0, appends: Vec::new(), events };
        let before = counted([6.0, 0.0, 13.0]);
        assert_eq!(counted([6.0, 0.0, 13.0]).events_since(&before), "");
        assert_eq!(counted([8.0, 0.0, 14.0]).events_since(&before), "; 2 connections made; 1 changes of leaders");
    }

    #[test]
    fn nodes_share_processors_only_where_there_are_too_few() {
        let allowed = |cpus: &[usize]| {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|cpu| set.set(*cpu));
            set
        };
        assert_eq!(places(&allowed(&[0, 1]), 0, 1), [0, 0, 0]);
        assert_eq!(places(&allowed(&[0, 1, 2]), 0, 1), [0, 2, 0]);
        assert_eq!(places(&allowed(&[0, 1, 2, 3, 4]), 2, 0), [2, 1, 3]);
    }

    #[test]
    fn the_first_node_begins_and_the_others_join() {
        assert_eq!(arguments(0, None), ["--node-id", "1", "--cluster-listen", "127.0.0.1:0"]);
        assert_eq!(arguments(2, Some("127.0.0.1:9"))[4..], ["--join", "127.0.0.1:9"]);
        assert_eq!(pid_file(Path::new("work/own.pid"), 1), Path::new("work/node-2.pid"));
    }
}
