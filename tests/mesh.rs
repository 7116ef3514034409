//! Two shards, not pinned: a request that arrives at the wrong shard is carried over the mesh (one hop) and counted.

use common::layout::Rec;
use common::peer::Partition;
use common::{Node, Options, Peer, WAIT};
use std::net::SocketAddr;
use std::time::Instant;

/// A node of two shards and a topic with partitions on both; the address of each shard's own port.
fn scene() -> (Node, Vec<Partition>, Vec<SocketAddr>) {
    let node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    let partitions = peer.topic("t", 8, &[]);
    let hello = peer.hello.as_ref().expect("hello was answered");
    let ports = &hello.nodes[0].shard_ports;
    assert_eq!(ports.len(), 2);
    let addresses: Vec<SocketAddr> = ports.iter().map(|port| SocketAddr::new(node.ready.client.ip(), *port)).collect();
    for shard in 0..2 {
        assert!(partitions.iter().any(|p| p.leader_shard == shard), "no partition on shard {shard}: {partitions:?}");
    }
    (node, partitions, addresses)
}

#[test]
fn each_shards_own_port_is_that_shard() {
    let (_node, _, addresses) = scene();
    for (shard, address) in addresses.iter().enumerate() {
        assert_eq!(Peer::connect(*address).hello.as_ref().expect("hello").shard as usize, shard);
    }
}

#[test]
fn produce_fetch_and_offsets_work_through_the_wrong_shards_port_and_are_counted() {
    let (node, partitions, addresses) = scene();
    let hops = |node: &Node| node.metric("tramline_mesh_requests_total");
    let before = hops(&node);
    let mut sent = 0;
    for partition in &partitions {
        let wrong = addresses[1 - partition.leader_shard as usize];
        let right = addresses[partition.leader_shard as usize];
        let mut through_wrong = Peer::connect(wrong);
        for n in 0..10 {
            assert_eq!(through_wrong.put(partition.uid, &[Rec::value(format!("record {n}"))]), n);
        }
        let values = |peer: &mut Peer| peer.read_from(partition.uid, 0).into_iter().map(|r| r.value).collect::<Vec<_>>();
        let expected: Vec<_> = (0..10).map(|n| Some(format!("record {n}").into_bytes())).collect();
        assert_eq!(values(&mut through_wrong), expected, "read through the wrong shard");
        assert_eq!(values(&mut Peer::connect(right)), expected, "read at the owner");
        assert_eq!(through_wrong.list_offset(partition.uid, -1).1, 10);
        assert_eq!(through_wrong.list_offset(partition.uid, -2).1, 0);
        sent += 10;
    }
    let until = Instant::now() + WAIT;
    while hops(&node) - before < f64::from(sent) {
        assert!(Instant::now() < until, "{} hops counted for {sent} requests through the wrong shard", hops(&node) - before);
    }
}

#[test]
fn a_produce_request_for_partitions_of_both_shards_tells_for_each_where_it_belongs() {
    // A produce frame carries batches for partitions of one shard: the shard takes its own and refuses the others by name.
    let (_node, partitions, addresses) = scene();
    let batch = common::layout::batch(common::layout::TIME_US, &[Rec::value("v")]);
    let entries: Vec<(u64, &[u8])> = partitions.iter().map(|p| (p.uid, batch.as_slice())).collect();
    let mut peer = Peer::connect(addresses[0]);
    let results = peer.produce(common::layout::level::DURABLE, &entries).expect("a mixed request is answered");
    assert_eq!(results.len(), partitions.len());
    let (mut taken, mut refused) = (0, 0);
    for (partition, result) in partitions.iter().zip(&results) {
        assert_eq!(partition.uid, result.partition_uid);
        let stored = peer.read_from(partition.uid, 0).len();
        match result.error {
            0 => {
                assert_eq!(stored, 1, "{result:?}");
                taken += 1;
            }
            code => {
                assert_eq!((code, stored), (common::layout::code::NOT_LEADER, 0), "{result:?}");
                refused += 1;
            }
        }
    }
    assert!(taken > 0 && taken + refused == partitions.len(), "{results:?}");
}

#[test]
fn a_waiting_fetch_through_the_wrong_shard_is_woken_by_new_records() {
    let (_node, partitions, addresses) = scene();
    for partition in &partitions[..2] {
        let mut waiting = Peer::connect(addresses[1 - partition.leader_shard as usize]);
        let meta = common::peer::fetch_meta(0, 30_000, 1, 1 << 20, &[(partition.uid, 0, 1 << 20)]);
        let correlation = waiting.send(common::layout::kind::FETCH, meta, Vec::new());
        Peer::connect(addresses[partition.leader_shard as usize]).put(partition.uid, &[Rec::value("news")]);
        let started = Instant::now();
        let reply = waiting.receive().expect("an answer");
        assert_eq!((reply.correlation, reply.refusal()), (correlation, None));
        assert_eq!(common::peer::read_fetched(&reply)[0].batches.len(), 1);
        assert!(started.elapsed().as_secs() < 20, "woken by the record, not by the end of its wait");
    }
}

#[test]
fn each_shard_knows_who_leads_the_groups_of_the_other() {
    let node = Node::with(Options::shards(2));
    let client = tramline_client::Client::connect(tramline_client::Config::new(&node.server())).expect("it is there");
    let end = Instant::now() + WAIT;
    loop {
        let found = client.describe_cluster().expect("told");
        if found.groups.len() > 2 && found.groups.iter().all(|group| group.leader == Some(1) && group.term > 0) {
            break;
        }
        assert!(Instant::now() < end, "nobody leads some groups: {found:?}");
    }
}
