//! Topics over the protocol: create, list, describe, alter, add partitions, delete, and the limits and settings of all that.

use common::layout::{Get, Put, Rec, code, kind};
use common::peer::Refusal;
use common::{Node, Options, Peer};
use std::collections::{BTreeMap, BTreeSet};

/// What DescribeTopic answers.
#[derive(Debug)]
struct Description {
    uid: u64,
    name: String,
    /// Key to value and whether it was set explicitly.
    settings: BTreeMap<String, (String, bool)>,
    partitions: Vec<DescribedPartition>,
}

#[derive(Debug, PartialEq)]
struct DescribedPartition {
    index: u32,
    uid: u64,
    shard: u16,
    log_start: u64,
    committed_end: u64,
    bytes: u64,
}

fn describe(peer: &mut Peer, name: &str) -> Result<Description, Refusal> {
    let reply = peer.call(kind::DESCRIBE_TOPIC, Put::new().str(name).0, Vec::new())?;
    let mut get = Get(&reply.meta);
    let (uid, name, created_us, replication) = (get.u64(), get.str(), get.i64(), get.u16());
    assert!(created_us > 1_600_000_000_000_000, "created {created_us} us after 1970");
    assert_eq!(replication, 1, "of one node");
    let settings = (0..get.u32())
        .map(|_| {
            let (key, value, origin) = (get.str(), get.str(), get.u8());
            assert!(origin <= 1);
            (key, (value, origin == 1))
        })
        .collect();
    let partitions = (0..get.u32())
        .map(|_| {
            let (index, uid, _group, node, shard) = (get.u32(), get.u64(), get.u32(), get.u32(), get.u16());
            let (log_start, committed_end, bytes, _segments) = (get.u64(), get.u64(), get.u64(), get.u32());
            assert_eq!(node, 1);
            DescribedPartition { index, uid, shard, log_start, committed_end, bytes }
        })
        .collect();
    get.end();
    Ok(Description { uid, name, settings, partitions })
}

fn list(peer: &mut Peer) -> BTreeMap<String, u32> {
    let reply = peer.call(kind::LIST_TOPICS, Vec::new(), Vec::new()).expect("listing");
    let mut get = Get(&reply.meta);
    let topics = (0..get.u32())
        .map(|_| {
            let (name, _uid, partitions) = (get.str(), get.u64(), get.u32());
            (name, partitions)
        })
        .collect();
    get.end();
    topics
}

#[test]
fn a_topic_is_created_listed_described_altered_and_deleted() {
    let node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    assert!(list(&mut peer).is_empty());
    let uid = peer.create_topic("orders.eu-1_x", 8, &[("retention.ms", "3600000")]).expect("a valid topic");
    assert_eq!(list(&mut peer), BTreeMap::from([("orders.eu-1_x".to_owned(), 8)]));

    let description = describe(&mut peer, "orders.eu-1_x").expect("it exists");
    assert_eq!((description.uid, description.name.as_str()), (uid, "orders.eu-1_x"));
    assert_eq!(description.settings["retention.ms"], ("3600000".to_owned(), true));
    assert!(!description.settings["visible.at"].1, "a default is not an explicit setting");
    assert_eq!(description.partitions.iter().map(|p| p.index).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!(description.partitions.iter().map(|p| p.uid).collect::<BTreeSet<_>>().len(), 8);
    assert_eq!(description.partitions.iter().map(|p| p.shard).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]), "spread over shards");

    let first = description.partitions[0].uid;
    peer.put(first, &[Rec::value("a"), Rec::value("b")]);
    let described = &describe(&mut peer, "orders.eu-1_x").expect("it exists").partitions[0];
    assert_eq!((described.log_start, described.committed_end), (0, 2));
    assert!(described.bytes > 0);

    // Adding partitions keeps the old ones and their records.
    peer.alter_topic("orders.eu-1_x", 12, &[("retention.ms", "7200000"), ("retention.bytes", "1000000")]).expect("altering");
    let altered = describe(&mut peer, "orders.eu-1_x").expect("it exists");
    assert_eq!(altered.partitions.len(), 12);
    for (before, after) in description.partitions.iter().zip(&altered.partitions) {
        assert_eq!((before.index, before.uid, before.shard), (after.index, after.uid, after.shard));
    }
    assert_eq!(altered.settings["retention.ms"], ("7200000".to_owned(), true));
    assert_eq!(peer.read_from(first, 0).len(), 2);
    assert_eq!(peer.put(altered.partitions[11].uid, &[Rec::value("c")]), 0);
    // An empty value goes back to the default.
    peer.alter_topic("orders.eu-1_x", 0, &[("retention.ms", "")]).expect("altering");
    assert!(!describe(&mut peer, "orders.eu-1_x").expect("it exists").settings["retention.ms"].1);

    peer.delete_topic("orders.eu-1_x").expect("deleting");
    assert!(list(&mut peer).is_empty());
    assert_eq!(describe(&mut peer, "orders.eu-1_x").expect_err("it is gone").code, code::UNKNOWN_TOPIC);
    assert_ne!(peer.create_topic("orders.eu-1_x", 1, &[]).expect("the name is free again"), uid);
}

#[test]
fn creating_again_is_refused_unless_asked_for_and_validation_changes_nothing() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.create_topic("t", 2, &[]).expect("a valid topic");
    assert_eq!(peer.create_topic("t", 2, &[]).expect_err("it exists").code, code::TOPIC_EXISTS);
    let create = |peer: &mut Peer, name: &str, flags: u8| {
        let reply = peer.call(kind::CREATE_TOPIC, Put::new().str(name).u32(5).u16(0).u8(flags).pairs(&[]).0, Vec::new())?;
        let mut get = Get(&reply.meta);
        Ok::<_, Refusal>((get.u64(), get.u8(), get.u32()))
    };
    assert_eq!(create(&mut peer, "t", 1), Ok((uid, 0, 2)), "if-not-exists: as it is, not created");
    let (_, created, _) = create(&mut peer, "v", 2).expect("valid");
    assert_eq!(created, 0, "validate only");
    assert_eq!(list(&mut peer).len(), 1);
    assert_eq!(create(&mut peer, "bad name", 2).expect_err("invalid").code, code::INVALID_TOPIC_NAME);
}

#[test]
fn names_counts_and_settings_outside_their_limits_are_refused_with_the_limit() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    for name in ["", " ", "a b", "a/b", "..", ".", "a\0b", "naïve", &"n".repeat(300)] {
        let refusal = peer.create_topic(name, 1, &[]).expect_err(name);
        assert_eq!(refusal.code, code::INVALID_TOPIC_NAME, "{name:?}: {refusal:?}");
    }
    let limit_codes = [code::LIMIT_EXCEEDED, code::INVALID_REQUEST];
    let refusal = peer.create_topic("t", 0, &[]).expect_err("no partitions");
    assert!(limit_codes.contains(&refusal.code), "{refusal:?}");
    let refusal = peer.create_topic("t", 10_001, &[]).expect_err("above the limit of a topic");
    assert!(limit_codes.contains(&refusal.code) && refusal.message.contains("10000"), "{refusal:?}");
    let refusal = peer.create_topic("t", u32::MAX, &[]).expect_err("far above");
    assert!(limit_codes.contains(&refusal.code), "{refusal:?}");
    for (key, value) in
        [("retention.ms", "-2"), ("retention.ms", "1h"), ("retention.bytes", "x"), ("batch.max.bytes", "1"), ("timestamp.type", "never")]
    {
        let refusal = peer.create_topic("t", 1, &[(key, value)]).expect_err(value);
        assert!(refusal.code == code::INVALID_SETTING && refusal.message.contains(key), "{refusal:?}");
    }
    let refusal = peer.create_topic("t", 1, &[("color", "red")]).expect_err("unknown");
    assert!(refusal.code == code::UNKNOWN_SETTING && refusal.message.contains("color"), "{refusal:?}");

    peer.create_topic("t0", 16, &[]).expect("a valid topic");
    let refusal = peer.alter_topic("t0", 8, &[]).expect_err("fewer partitions");
    assert_eq!(refusal.code, code::INVALID_REQUEST, "{refusal:?}");
    let refusal = peer.alter_topic("t0", 10_001, &[]).expect_err("above the limit of a topic");
    assert!(limit_codes.contains(&refusal.code), "{refusal:?}");
    assert_eq!(list(&mut peer), BTreeMap::from([("t0".to_owned(), 16)]), "what was refused left nothing behind");
}

#[test]
fn every_option_is_described_with_range_default_and_meaning() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let reply = peer.call(kind::DESCRIBE_OPTIONS, Vec::new(), Vec::new()).expect("options");
    let mut get = Get(&reply.meta);
    let mut keys = Vec::new();
    for _ in 0..get.u32() {
        let (key, kind, _unit, default, _min, _max, doc) = (get.str(), get.str(), get.str(), get.str(), get.str(), get.str(), get.str());
        assert!(!kind.is_empty() && !doc.is_empty(), "{key}");
        peer_accepts(&node, &key, &default);
        keys.push(key);
    }
    get.end();
    for key in ["retention.ms", "retention.bytes", "record.max.bytes", "batch.max.bytes", "timestamp.type", "visible.at"] {
        assert!(keys.iter().any(|k| k == key), "{key} in {keys:?}");
    }
}

/// The default that is told is a value that is accepted.
fn peer_accepts(node: &Node, key: &str, default: &str) {
    let mut peer = Peer::connect(node.ready.client);
    peer.create_topic("probe", 1, &[(key, default)]).unwrap_or_else(|e| panic!("{key}={default}: {e:?}"));
    peer.delete_topic("probe").expect("it exists");
}

#[test]
fn the_topic_says_which_time_counts() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let (create, append) = (peer.topic("create", 1, &[])[0].uid, peer.topic("append", 1, &[("timestamp.type", "append")])[0].uid);
    let records = [Rec::value("first"), Rec { time_delta_us: 250, ..Rec::value("second") }];
    for uid in [create, append] {
        peer.put(uid, &records);
    }
    let times: Vec<i64> = peer.read_from(create, 0).iter().map(|r| r.timestamp_us).collect();
    assert_eq!(times, [common::layout::TIME_US, common::layout::TIME_US + 250]);
    let appended = peer.read_from(append, 0)[0].timestamp_us;
    assert!(appended > common::layout::TIME_US + 300 * 86_400_000_000, "{appended} is not the broker's time");
    // ListOffsets by time goes by the time that counts.
    assert_eq!(peer.list_offset(create, common::layout::TIME_US).1, 0);
    assert_eq!(peer.list_offset(append, common::layout::TIME_US).1, 0);
    assert_eq!(peer.list_offset(create, common::layout::TIME_US + 1), (0, 1, common::layout::TIME_US + 250));
    assert_eq!(peer.list_offset(create, common::layout::TIME_US + 251), (0, 2, -1), "after the last record: the end");
    assert_eq!(peer.list_offset(append, appended), (0, 0, appended));
}

#[test]
fn records_of_a_topic_visible_at_leader_are_delivered() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("early", 1, &[("visible.at", "leader")])[0].uid;
    for n in 0..20u64 {
        let batch = common::layout::batch(common::layout::TIME_US, &[Rec::value(format!("{n}"))]);
        let results = peer.produce(common::layout::level::LEADER, &[(uid, &batch)]).expect("produce");
        assert_eq!((results[0].error, results[0].base_offset), (0, n));
        // Acknowledged by the leader is visible, at once.
        let got = peer.read_from(uid, n);
        assert_eq!(got.len(), 1, "record {n} is visible when the leader has acknowledged it");
    }
}
