//! Three nodes of one cluster, as processes on this machine: they find each other, keep what was acknowledged whichever of them ends, and refuse who does not
//! belong to them.
//!
//! Not here: faults of the network and of disks (`cluster_tools.rs` and scripts/cluster, which need root), what the core does (src/shard/tests/cluster.rs).

use common::node::refused;
use common::{Node, Options, WAIT, copy_dir, nodes, temp_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tramline_client::{Client, ClusterGroup, NodeState, Producer, ProducerConfig, Record, Start};

/// Nodes on addresses of a test.
struct Cluster {
    number: u8,
    dirs: Vec<tempfile::TempDir>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    /// `number` tells tests of one process apart; processes are told apart by their ids.
    fn start(number: u8, nodes: usize) -> Cluster {
        let dirs = (0..nodes).map(|_| temp_dir("cluster")).collect();
        let mut cluster = Cluster { number, dirs, nodes: (0..nodes).map(|_| None).collect() };
        (0..nodes).for_each(|at| cluster.start_node(at));
        cluster
    }

    /// The block of a test: see `nodes`.
    fn block(&self) -> u8 {
        1 + self.number
    }

    fn host(&self, at: usize) -> String {
        nodes::host(self.block(), at)
    }

    fn options(&self, at: usize) -> Options {
        nodes::options(self.block(), at, at, if at > 0 { &[0] } else { &[] })
    }

    fn start_node(&mut self, at: usize) {
        assert!(self.nodes[at].is_none(), "node {} runs", at + 1);
        self.nodes[at] = Some(Node::at(self.dirs[at].path(), self.options(at)));
    }

    /// All of them, which have ended.
    fn start_all(&mut self) {
        let starts: Vec<_> = (0..self.nodes.len()).map(|at| (self.dirs[at].path(), self.options(at))).collect();
        self.nodes = Node::together(&starts).into_iter().map(Some).collect();
    }

    /// Waits until something is there.
    fn until(&mut self, what: &str, mut is_there: impl FnMut(&Cluster) -> bool) {
        let end = Instant::now() + WAIT;
        while !is_there(self) {
            assert!(Instant::now() < end, "{what} does not come about");
            let running = self.nodes.iter_mut().flatten().next();
            running.expect("one runs").process.watch_quietly(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").process.kill();
    }

    /// SIGTERM, and the orderly end.
    fn stop(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").stop();
    }

    /// All nodes take part, the metadata has a voter on each of three, and topic `t` with six partitions has leaders.
    fn with_topic(&mut self, client: &Client) {
        let active = |client: &Client| {
            let told = client.describe_cluster().expect("the cluster");
            let metadata = told.groups.iter().find(|group| group.group == 0).expect("group 0");
            told.nodes.iter().filter(|node| node.state == NodeState::Active && node.connected).count() == 3 && metadata.voters.len() == 3
        };
        self.until("three active nodes", |_| active(client));
        client.create_topic("t", 6, &[], false).expect("a new topic");
        self.until("leaders", |_| groups_led(client, &[1, 2, 3]) == Led::AsPreferred);
    }

    fn client(&self) -> Client {
        nodes::client(self.block(), self.nodes.len())
    }

    /// The node that leads a partition, by what a node tells.
    fn leader(&self, partition: u32) -> Option<usize> {
        let metadata = self.client().metadata(&["t"]).expect("metadata");
        let found = metadata.topics[0].partitions.iter().find(|p| p.index == partition).expect("the partition");
        (found.term > 0).then_some(found.leader_node as usize - 1)
    }
}

/// A producer of numbered records, and which of them were acknowledged where.
struct Work {
    producer: Producer,
    next: u64,
    acked: BTreeMap<(u32, u64), u64>,
    delivered: u64,
}

impl Work {
    fn on(cluster: &Cluster) -> Work {
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(60), ..ProducerConfig::default() };
        let producer = cluster.client().producer(config).expect("a producer");
        Work { producer, next: 0, acked: BTreeMap::new(), delivered: 0 }
    }

    fn send(&mut self, records: u64) {
        for _ in 0..records {
            self.next += 1;
            let value = self.next.to_le_bytes();
            let partition = Some((self.next % 6) as u32);
            let record = Record { topic: "t", partition, value: Some(&value), tag: self.next, ..Record::default() };
            self.producer.send(&record).expect("room");
        }
    }

    /// One more, and what came back so far: for a load that goes on while something else is waited for. Two milliseconds of patience are its rate.
    fn trickle(&mut self) {
        self.send(1);
        self.producer.poll(Duration::from_millis(2)).expect("it goes on");
        self.note();
    }

    /// Everything that was sent is acknowledged.
    fn finish(&mut self) {
        self.producer.flush(WAIT).expect("all is acknowledged");
        self.note();
        assert_eq!(self.delivered, self.next, "each record has one end");
    }

    fn note(&mut self) {
        let (delivered, acked) = (&mut self.delivered, &mut self.acked);
        self.producer.drain(|delivery| {
            assert!(delivery.error.is_none(), "{:?}", delivery.error);
            *delivered += 1;
            // One that was acknowledged late, after a failover, may be known to be stored and not where.
            if let Some(offset) = delivery.offset {
                let place = (delivery.partition, offset);
                assert_eq!(acked.insert(place, delivery.tag), None, "{place:?} was given twice");
            }
        });
    }

    /// What was acknowledged is there, and nothing twice.
    fn check(&self, cluster: &Cluster) {
        let client = cluster.client();
        let mut consumer = client.consumer(Default::default()).expect("a consumer");
        consumer.assign_all("t", Start::Earliest).expect("the topic");
        let mut found = BTreeMap::new();
        consumer
            .read_to_end(WAIT, |record| {
                let value = record.value.expect("a value");
                found.insert((record.partition, record.offset), u64::from_le_bytes(value.try_into().expect("eight bytes")));
            })
            .expect("everything can be read");
        assert_eq!(found.len() as u64, self.next, "each record is there once");
        for (place, number) in &self.acked {
            assert_eq!(found.get(place), Some(number), "{place:?}");
        }
    }
}

#[test]
fn three_nodes_keep_what_was_acknowledged_whichever_ends() {
    let mut cluster = Cluster::start(0, 3);
    let client = cluster.client();
    // A node that joined is active a moment later, and topics have replicas on those that are.
    let mut probes = 0;
    cluster.until("three active nodes", |_| {
        probes += 1;
        let name = format!("probe-{probes}");
        client.create_topic(&name, 6, &[], true).is_ok() && nodes_that_lead(&client, &name) == 3
    });
    // A producer that knows one node alone gets its identity all the same: another one leads the metadata.
    for partition in 0..6 {
        let mut producer = cluster.client().producer(ProducerConfig::default()).expect("a producer");
        let topic = format!("probe-{probes}");
        producer.send(&Record { topic: &topic, partition: Some(partition), value: Some(b"v"), ..Record::default() }).expect("room");
        producer.flush(Duration::from_secs(20)).expect("it is acknowledged");
        producer.drain(|delivery| assert!(delivery.error.is_none(), "{:?}", delivery.error));
    }
    client.create_topic("t", 6, &[], false).expect("a new topic");
    cluster.until("leaders", |cluster| (0..6).all(|partition| cluster.leader(partition).is_some()));
    let mut work = Work::on(&cluster);
    work.send(600);
    work.finish();
    for round in 0..3 {
        let victim = cluster.leader(round).expect("a leader");
        work.send(60);
        cluster.kill(victim);
        work.send(600);
        work.finish();
        cluster.start_node(victim);
        work.send(60);
        work.finish();
    }
    work.check(&cluster);
    // All at once.
    work.send(300);
    work.finish();
    (0..3).for_each(|at| cluster.kill(at));
    cluster.start_all();
    work.send(60);
    work.finish();
    work.check(&cluster);
}

fn nodes_that_lead(client: &Client, topic: &str) -> usize {
    let metadata = client.metadata(&[topic]).expect("metadata");
    let nodes: BTreeSet<_> = metadata.topics[0].partitions.iter().map(|p| p.leader_node).collect();
    nodes.len()
}

/// Who leads the groups with more than one voter.
#[derive(Debug, PartialEq, Eq)]
enum Led {
    /// Each is led by its preferred node, and each of the nodes asked about by at least one.
    AsPreferred,
    /// All have leaders, and none of the nodes asked about is one.
    ByOthers,
    Otherwise,
}

fn groups_led(client: &Client, by: &[u32]) -> Led {
    let told = client.describe_cluster().expect("the cluster");
    // The metadata go to nobody in particular.
    let shared: Vec<_> = told.groups.iter().filter(|group| group.voters.len() > 1).collect();
    let is_preferred = |group: &&&ClusterGroup| group.group == 0 || group.leader == group.voters.first().copied();
    let leads = |node: &u32| shared.iter().any(|group| group.leader == Some(*node));
    match shared.iter().all(|group| group.leader.is_some()) {
        true if shared.iter().filter(is_preferred).count() == shared.len() && by.iter().all(leads) => Led::AsPreferred,
        true if !by.iter().any(leads) => Led::ByOthers,
        _ => Led::Otherwise,
    }
}

fn state_of(client: &Client, node: u32) -> NodeState {
    let told = client.describe_cluster().expect("the cluster");
    told.nodes.iter().find(|told| told.node == node).expect("the node").state
}

#[test]
fn a_drained_node_leads_nothing_until_it_takes_part_again() {
    let mut cluster = Cluster::start(2, 3);
    let client = cluster.client();
    cluster.with_topic(&client);
    let mut work = Work::on(&cluster);
    client.drain_node(2).expect("it drains");
    cluster.until("a drained node", |_| {
        work.trickle();
        state_of(&client, 2) == NodeState::Drained
    });
    assert_eq!(groups_led(&client, &[2]), Led::ByOthers);
    // It stays aside, also when it ends and comes back.
    cluster.stop(1);
    work.send(60);
    work.finish();
    cluster.start_node(1);
    cluster.until("three connected nodes", |_| {
        work.trickle();
        client.describe_cluster().expect("the cluster").nodes.iter().all(|node| node.connected)
    });
    assert_eq!((state_of(&client, 2), groups_led(&client, &[2])), (NodeState::Drained, Led::ByOthers));
    client.undrain_node(2).expect("it takes part again");
    cluster.until("leaderships of node 2", |_| {
        work.trickle();
        groups_led(&client, &[1, 2, 3]) == Led::AsPreferred
    });
    assert_eq!(state_of(&client, 2), NodeState::Active);
    work.finish();
    work.check(&cluster);
}

#[test]
fn an_orderly_stop_under_load_fails_and_loses_nothing() {
    let mut cluster = Cluster::start(3, 3);
    let client = cluster.client();
    cluster.with_topic(&client);
    let mut work = Work::on(&cluster);
    let victim = cluster.leader(0).expect("a leader");
    cluster.until("a load", |_| {
        work.trickle();
        work.acked.len() >= 60
    });
    // Sends go on between the signal and the end: its last moments are what this is about.
    let process = &mut cluster.nodes[victim].as_mut().expect("it runs").process;
    process.signal("TERM");
    let end = Instant::now() + WAIT;
    while !process.has_ended() {
        assert!(Instant::now() < end, "node {} does not end", victim + 1);
        work.trickle();
    }
    assert_eq!(cluster.nodes[victim].take().expect("it ran").process.wait(WAIT).code(), Some(0));
    work.send(60);
    work.finish();
    cluster.start_node(victim);
    cluster.until("leaderships of the node that came back", |_| {
        work.trickle();
        groups_led(&client, &[1, 2, 3]) == Led::AsPreferred
    });
    work.finish();
    work.check(&cluster);
}

#[test]
fn a_rolling_restart_under_load_fails_and_loses_nothing() {
    let mut cluster = Cluster::start(4, 3);
    let client = cluster.client();
    cluster.with_topic(&client);
    let mut work = Work::on(&cluster);
    for at in 0..3 {
        let node = at as u32 + 1;
        client.drain_node(node).expect("it drains");
        cluster.until("a drained node", |_| {
            work.trickle();
            state_of(&client, node) == NodeState::Drained
        });
        let sent = work.next;
        cluster.stop(at);
        work.send(60);
        work.finish();
        cluster.start_node(at);
        client.undrain_node(node).expect("it takes part again");
        cluster.until("its leaderships", |_| {
            work.trickle();
            groups_led(&client, &[1, 2, 3]) == Led::AsPreferred
        });
        assert!(work.next > sent + 60, "nothing was sent meanwhile");
    }
    work.finish();
    work.check(&cluster);
}

#[test]
fn who_does_not_belong_to_the_cluster_is_told_so() {
    let mut cluster = Cluster::start(1, 2);
    let client = cluster.client();
    cluster.until("two active nodes", |_| state_of(&client, 2) == NodeState::Active);
    // More replicas than there are nodes.
    let error = client.create_replicated_topic("t", 1, 3, &[], false).expect_err("it is refused").to_string();
    assert!(error.contains("a topic asks for 3 replicas, and 2 nodes can have one each: add nodes or ask for fewer"), "{error}");
    let places: Vec<_> = (0..3).map(|at| (cluster.host(at), cluster.options(at))).collect();
    let refused_on = |dir: &std::path::Path, options: &Options, wanted: &[&str]| {
        let (code, text) = refused(dir, options);
        assert_eq!(code, 1, "{text}");
        wanted.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in: {text}"));
    };
    let elsewhere = |at: usize, more: &[&str]| {
        let (host, mut options) = places[at].clone();
        let listen = |port: u16| format!("{host}:{port}");
        options.listen = listen(7510);
        let place = options.arguments.iter().position(|argument| argument == "--cluster-listen").expect("given");
        options.arguments[place + 1] = listen(7800);
        options.arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        options
    };
    let empty = temp_dir("stranger");
    // A number that another disk is alive under.
    refused_on(empty.path(), &elsewhere(1, &[]), &["node 2", "disk"]);
    // Another number of shards.
    let more_shards = Options { shards: Some(3), ..elsewhere(2, &[]) };
    refused_on(empty.path(), &more_shards, &["--shards 2"]);
    // A directory of another cluster: nothing of it comes here.
    let stranger = temp_dir("other-cluster");
    let alone =
        Options { arguments: elsewhere(2, &[]).arguments.into_iter().take_while(|word| word != "--join").collect(), ..elsewhere(2, &[]) };
    Node::at(stranger.path(), alone).stop();
    refused_on(
        stranger.path(),
        &elsewhere(2, &[]),
        &["is node 3 of cluster", "is of another cluster; start without --join, or on an empty --data-dir"],
    );
    assert!(client.describe_cluster().expect("the cluster").nodes.iter().all(|node| node.node != 3));
    // Its log under the name of a node of this one.
    cluster.stop(1);
    let copied = temp_dir("mixed");
    copy_dir(cluster.dirs[1].path(), copied.path());
    std::fs::remove_dir_all(copied.path().join("shard-1")).expect("removed");
    copy_dir(&stranger.path().join("shard-1"), &copied.path().join("shard-1"));
    refused_on(copied.path(), &elsewhere(1, &[]), &["belongs to another cluster: point --data-dir to this node's own directory"]);
    // The directory of another node.
    let wanted = "belongs to node 2, this start is to be node 3; start with --node-id 2, or choose another --data-dir";
    refused_on(cluster.dirs[1].path(), &elsewhere(2, &[]), &[wanted]);
}
