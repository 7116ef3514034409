//! Two shards: dead messages whose dead-letter topic is on the other one go there over the mesh, once, also when the node is killed on the way.

use common::layout::{Get, Put, Rec};
use common::{Node, Options, Peer, WAIT};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;
use tramline_wire::batch::Batches;
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};

const FETCH: u8 = 4;
const CREATE_QUEUE: u8 = 48;
const RECEIVE: u8 = 54;
const SETTLE: u8 = 55;
const REJECT: u8 = 5;

fn create_queue(peer: &mut Peer) -> u64 {
    // Name, topic, no flags, from the oldest on, one setting.
    let meta = Put::new().str("q").str("t").u8(0).u8(1).u16(0).u64(0).u32(1).str("dead.letter.topic").str("dead").0;
    let reply = peer.call(CREATE_QUEUE, meta, Vec::new()).unwrap_or_else(|e| panic!("the queue was refused: {e:?}"));
    Get(&reply.meta).u64()
}

/// Receives up to ten messages of a partition: (offset, lease).
fn receive(peer: &mut Peer, queue: u64, partition: u64) -> Vec<(u64, u64)> {
    let meta = Put::new().u64(queue).u32(10).u32(1 << 20).u32(10_000).u32(0).str("w").u32(1).u64(partition).0;
    let reply = peer.call(RECEIVE, meta, Vec::new()).unwrap_or_else(|e| panic!("no messages: {e:?}"));
    let mut meta = Get(&reply.meta);
    let (_throttle, entries) = (meta.u32(), meta.u32());
    let mut found = Vec::new();
    for _ in 0..entries {
        let (uid, error, _reserved, _payload_bytes, deliveries) = (meta.u64(), meta.u16(), meta.u16(), meta.u32(), meta.u32());
        assert_eq!((uid, error), (partition, 0));
        for _ in 0..deliveries {
            let (offset, lease, _deliveries, _reserved) = (meta.u64(), meta.u64(), meta.u32(), meta.u32());
            found.push((offset, lease));
        }
    }
    meta.end();
    found
}

fn reject(peer: &mut Peer, queue: u64, partition: u64, messages: &[(u64, u64)]) {
    let mut meta = Put::new().u64(queue).str("w").u32(messages.len() as u32);
    for (offset, lease) in messages {
        meta = meta.u64(partition).u64(*offset).u64(*lease).u8(REJECT).u8(0).u16(0).u32(0).str("no use");
    }
    let reply = peer.call(SETTLE, meta.0, Vec::new()).unwrap_or_else(|e| panic!("not settled: {e:?}"));
    let mut meta = Get(&reply.meta);
    assert_eq!((meta.u32(), meta.u32() as usize), (0, messages.len()));
    for _ in messages {
        let (_, _, error, _) = (meta.u64(), meta.u64(), meta.u16(), meta.u16());
        assert_eq!(error, 0);
    }
}

fn shard_addresses(node: &Node, peer: &Peer) -> Vec<SocketAddr> {
    let hello = peer.hello.as_ref().expect("hello was answered");
    hello.nodes[0].shard_ports.iter().map(|port| SocketAddr::new(node.ready.client.ip(), *port)).collect()
}

/// Counts the values of a partition. (The reader of `common` knows no attributes.)
fn read(peer: &mut Peer, uid: u64, found: &mut BTreeMap<String, u32>) {
    let mut offset = 0;
    loop {
        let mut meta = Vec::new();
        let mut writer = FetchRequestWriter::begin(&mut meta, FetchMode::OneShot, 0, 0, 1 << 20);
        writer.push(&mut meta, &FetchEntry { partition_uid: uid, offset, max_bytes: 1 << 20 });
        writer.finish(&mut meta);
        let reply = peer.call(FETCH, meta, Vec::new()).unwrap_or_else(|e| panic!("not read: {e:?}"));
        let answer = FetchReply::decode(&reply.meta).expect("a reply");
        let (entry, bytes) = answer.parts(&reply.payload).expect("its parts").next().expect("its entry");
        for batch in Batches::new(bytes).map(|batch| batch.expect("a batch")) {
            for record in batch.records(batch.stored_values()).map(|record| record.expect("a record")) {
                let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
                assert!(record.headers.clone().any(|header| header.name == "tramline-dead-letter-attempt"));
                *found.entry(value).or_insert(0) += 1;
            }
        }
        if entry.next_offset >= entry.committed_end {
            return;
        }
        offset = entry.next_offset;
    }
}

/// How often each value stands in the topic `dead`, once there are `values` of them.
fn wait_for(peer: &mut Peer, dead: &[u64], values: usize) -> BTreeMap<String, u32> {
    let until = Instant::now() + WAIT;
    loop {
        let mut found = BTreeMap::new();
        for uid in dead {
            read(peer, *uid, &mut found);
        }
        if found.len() >= values {
            return found;
        }
        assert!(Instant::now() < until, "{} of {values} letters have come", found.len());
    }
}

#[test]
fn letters_cross_the_mesh() {
    let mut node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    let partitions = peer.topic("t", 8, &[]);
    let dead = peer.topic("dead", 3, &[]);
    let crosses = partitions.iter().filter(|p| p.leader_shard != dead[p.index as usize % 3].leader_shard).count();
    assert!((1..8).contains(&crosses), "some letters stay on their shard, some do not: {partitions:?} {dead:?}");
    let queue = create_queue(&mut peer);
    let send_and_reject = |node: &Node, round: &str| {
        let addresses = shard_addresses(node, &Peer::connect(node.ready.client));
        for partition in &partitions {
            let mut peer = Peer::connect(addresses[usize::from(partition.leader_shard)]);
            for n in 0..3 {
                peer.put(partition.uid, &[Rec::value(format!("{round} {} {n}", partition.index))]);
            }
            let mut got = Vec::new();
            while got.len() < 3 {
                got.extend(receive(&mut peer, queue, partition.uid));
            }
            reject(&mut peer, queue, partition.uid, &got);
        }
    };
    let uids: Vec<u64> = dead.iter().map(|p| p.uid).collect();
    send_and_reject(&node, "first");
    let found = wait_for(&mut peer, &uids, 24);
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    let moved = || node.metric("tramline_queue_dead_lettered_total");
    let until = Instant::now() + WAIT;
    while moved() < 24.0 {
        assert!(Instant::now() < until, "{} counted", moved());
    }
    // Killed while some are on their way: none is lost; who reads the topic himself may see one twice.
    send_and_reject(&node, "second");
    node.process.kill();
    node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    let found = wait_for(&mut peer, &uids, 48);
    assert!(found.len() == 48 && found.values().all(|times| *times <= 2), "{found:?}");
    assert!(found.iter().all(|(value, times)| value.starts_with("second") || *times == 1), "{found:?}");
}
