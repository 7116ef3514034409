//! Three nodes of one cluster, as processes on this machine, each of which is killed in turn: what a consumer group has committed stays, its members go on
//! behind it, and it can be deleted.
//!
//! Not here: members on one node (`group_members.rs`), queues over failovers (src/shard/tests/cluster/queues.rs, scripts/cluster/faults.sh).

use common::{Node, WAIT, nodes as places, temp_dir};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tramline_client::{Client, GroupConfig, NodeState, ProducerConfig, Record};

const NODES: usize = 3;
/// Of addresses: see `places`.
const BLOCK: u8 = 41;
const PARTITIONS: u32 = 6;
/// Records that are sent before each kill.
const RECORDS: u64 = 300;

fn until(what: &str, mut is_there: impl FnMut() -> bool) {
    let end = Instant::now() + 2 * WAIT;
    while !is_there() {
        assert!(Instant::now() < end, "{what} does not come about");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// All nodes take part, and each group that is to have three replicas has them.
fn is_whole(client: &Client) -> bool {
    let Ok(told) = client.describe_cluster() else { return false };
    let active = told.nodes.iter().filter(|node| node.state == NodeState::Active && node.connected).count();
    active == NODES && told.groups.iter().any(|group| group.group == 0 && group.voters.len() == NODES)
}

fn produce(client: &Client) {
    let config = ProducerConfig { delivery_timeout: WAIT, ..ProducerConfig::default() };
    let mut producer = client.producer(config).expect("a producer");
    for number in 0..RECORDS {
        let value = number.to_le_bytes();
        let partition = Some((number % u64::from(PARTITIONS)) as u32);
        producer.send(&Record { topic: "t", partition, value: Some(&value), ..Record::default() }).expect("room");
    }
    producer.flush(WAIT).expect("acknowledged");
}

/// A member reads what there is, from the next offset of each partition on, and commits it.
fn read_on(client: &Client, next: &mut BTreeMap<u32, u64>, sent: u64) {
    let config = GroupConfig { auto_commit_interval: WAIT, ..GroupConfig::new("g", &["t"]) };
    let mut member = client.group_consumer(config).expect("a member");
    let end = Instant::now() + 2 * WAIT;
    while next.values().sum::<u64>() < sent {
        assert!(Instant::now() < end, "{next:?} of {sent} records");
        let each = |record: &tramline_client::RecordView<'_>| {
            let expected = next.entry(record.partition).or_default();
            assert_eq!(
                record.offset, *expected,
                "partition {}: nothing that was committed comes again, and nothing is left out",
                record.partition
            );
            *expected += 1;
        };
        member.poll(Duration::from_millis(20), each).expect("it goes on");
    }
    member.commit_sync().expect("committed");
    member.close(WAIT).expect("left");
}

#[test]
fn what_a_group_has_committed_outlives_each_node() {
    let dirs: Vec<_> = (0..NODES).map(|_| temp_dir("offsets")).collect();
    let start = |at: usize| Node::at(dirs[at].path(), places::options(BLOCK, at, at, if at > 0 { &[0] } else { &[] }));
    let mut nodes: Vec<Option<Node>> = (0..NODES).map(|at| Some(start(at))).collect();
    let client = places::client(BLOCK, NODES);
    until("three active nodes", || is_whole(&client));
    until("a topic", || client.create_topic("t", PARTITIONS, &[], true).is_ok());
    let (mut next, mut sent) = (BTreeMap::new(), 0);
    produce(&client);
    sent += RECORDS;
    read_on(&client, &mut next, sent);
    for (at, node) in nodes.iter_mut().enumerate() {
        node.take().expect("it runs").process.kill();
        produce(&client);
        sent += RECORDS;
        read_on(&client, &mut next, sent);
        *node = Some(start(at));
        until("three active nodes", || is_whole(&client));
    }
    let parts: Vec<u32> = (0..PARTITIONS).collect();
    let committed = client.committed_offsets("g", "t", &parts).expect("told");
    assert_eq!(committed, vec![Some(sent / u64::from(PARTITIONS)); PARTITIONS as usize]);
    client.delete_group("g").expect("its home says that nobody is a member, and whoever leads the metadata forgets it");
    until("its end", || client.committed_offsets("g", "t", &parts).is_err());
}
