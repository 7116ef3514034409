//! Several nodes: a leader that dies, refusals that name another node, nodes that know less than others, with the real producer core.

use super::*;
use crate::fake::nodes::node_at;

/// Ports of nodes 2 and 3, common and of their only shard.
const COMMON_2: &str = "127.0.0.1:7420";
const SHARD_2: &str = "127.0.0.1:7421";
const COMMON_3: &str = "127.0.0.1:7430";
const SHARD_3: &str = "127.0.0.1:7431";

/// Three nodes, the first of which leads the one partition.
fn three_nodes(config: ProducerConfig) -> (World, u64) {
    let mut world = World::with(config);
    world.broker.nodes.others = vec![node_at(2, 7420, 7421), node_at(3, 7430, 7431)];
    world.broker.nodes.names = true;
    world.broker.view_epoch += 1;
    for (address, node) in [(SERVER, 1), (COMMON, 1), (SHARD, 1), (COMMON_2, 2), (SHARD_2, 2), (COMMON_3, 3), (SHARD_3, 3)] {
        world.set(address, Place::Broker);
        world.node_at.insert(address.to_string(), node);
    }
    let (now, uid) = (world.now(), world.broker.topics[0].partitions[0]);
    Lanes::learn(&mut world.core, &world.broker.view(), now);
    (world, uid)
}

impl World {
    /// Another node leads a partition.
    fn lead(&mut self, uid: u64, node: u32, term: u64) {
        self.broker.nodes.leaders.insert(uid, (node, 0, term));
    }

    /// A node ends, with its connections.
    fn kill(&mut self, addresses: &[&str]) {
        for address in addresses {
            self.set(address, Place::Refuses);
        }
        for (place, (address, _)) in self.sockets.clone() {
            if addresses.contains(&address.as_str()) {
                self.fail(place, std::io::ErrorKind::ConnectionReset);
            }
        }
    }

    /// One batch per record.
    fn send_alone(&mut self, tag: u64) {
        self.send(tag);
        self.turn_once();
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| {
            self.turn_once();
        });
    }

    fn numbers(&self, uid: u64) -> usize {
        self.broker.values(uid).len()
    }

    fn tags(&self) -> Vec<u64> {
        self.told.iter().map(|told| told.0).collect()
    }
}

#[test]
fn after_a_leaders_death_what_was_under_way_goes_to_the_next_one_in_order() {
    let (mut world, uid) = three_nodes(ProducerConfig::default());
    world.send(0);
    world.run(1_000);
    world.broker.holds_acks = true;
    (1..6).for_each(|tag| world.send_alone(tag));
    world.turns(5);
    assert!(world.numbers(uid) > 1, "some are stored, and nobody was told");
    world.kill(&[SERVER, COMMON, SHARD]);
    world.broker.holds_acks = false;
    // The others have not chosen another leader yet.
    world.run(1_500_000);
    assert!(!world.is_done());
    assert!((3..40).contains(&world.asked_metadata()), "asked {} times", world.asked_metadata());
    let died_us = world.now_us;
    world.lead(uid, 2, 2);
    world.run(10_000_000);
    assert!(world.is_done(), "{:?}", world.told);
    assert_eq!(world.tags(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(world.numbers(uid), 6, "each once");
    assert!(world.now_us - died_us <= 1_300_000, "{} us", world.now_us - died_us);
}

#[test]
fn without_idempotence_records_behind_a_leaders_death_have_one_end_each() {
    let (mut world, uid) = three_nodes(ProducerConfig { idempotent: false, ..ProducerConfig::default() });
    world.send(0);
    world.run(1_000);
    world.broker.holds_acks = true;
    world.send(1);
    world.turns(3);
    assert_eq!(world.numbers(uid), 2);
    world.kill(&[SERVER, COMMON, SHARD]);
    world.broker.holds_acks = false;
    world.lead(uid, 3, 2);
    world.send(2);
    world.run(5_000_000);
    assert_eq!(world.tags(), [0, 1, 2]);
    let ends: Vec<Option<bool>> = world.told.iter().map(|(_, error)| error.as_ref().map(Error::outcome_unknown)).collect();
    assert_eq!(ends, [None, Some(true), None], "what was under way may be stored; what was not goes to the next leader");
    assert_eq!(world.numbers(uid), 3);
}

#[test]
fn a_leader_that_a_refusal_names_is_asked_at_once() {
    for idempotent in [true, false] {
        let (mut world, uid) = three_nodes(ProducerConfig { idempotent, ..ProducerConfig::default() });
        world.lead(uid, 2, 2);
        world.send(0);
        // No wait is over by then.
        world.run(400);
        assert!(world.is_done(), "{:?} {:?}", world.told, world.core.trouble());
        assert!(world.dialled.starts_with(&[SHARD.to_string(), SHARD_2.to_string()]), "{:?}", world.dialled);
        assert_eq!(world.numbers(uid), 1);
        world.send(1);
        world.run(400);
        assert!(world.is_done());
        assert_eq!(world.broker.count(Kind::Produce), 3, "it stays there");
    }
}

#[test]
fn two_nodes_that_name_each_other_are_asked_with_waits() {
    let (mut world, uid) = three_nodes(ProducerConfig::default());
    world.broker.nodes.names_wrongly = [(1, 2), (2, 1)].into();
    world.lead(uid, 1, 1);
    world.send(0);
    world.run(10_000_000);
    assert!(!world.is_done());
    let asked = world.broker.count(Kind::Produce);
    assert!((20..250).contains(&asked), "{asked} requests in 10 s");
    assert!((8..40).contains(&world.asked_metadata()), "{} questions in 10 s", world.asked_metadata());
    // At last one of them leads.
    world.broker.nodes.names_wrongly.clear();
    world.lead(uid, 2, 2);
    world.run(1_500_000);
    assert!(world.is_done(), "{:?}", world.told);
}

#[test]
fn a_node_that_hears_nothing_of_its_cluster_does_not_keep_the_others_from_being_asked() {
    let (mut world, uid) = three_nodes(ProducerConfig::default());
    world.broker.nodes.stale = [2].into();
    world.kill(&[SERVER, COMMON, SHARD]);
    world.lead(uid, 3, 2);
    world.send(0);
    world.run(2_000_000);
    assert!(world.is_done(), "{:?}", world.core.trouble());
    assert!(world.asked_metadata() <= 3, "{}", world.asked_metadata());
}

#[test]
fn a_node_that_answers_no_question_for_metadata_is_passed_over() {
    let (mut world, uid) = three_nodes(ProducerConfig::default());
    world.broker.nodes.silent = [(1, Kind::Metadata.as_u8()), (2, Kind::Metadata.as_u8())].into();
    world.broker.nodes.names = false;
    world.lead(uid, 2, 2);
    world.send(0);
    // A second for each of those that say nothing, at each of their addresses.
    world.run(4_500_000);
    assert!(world.is_done(), "{:?}", world.core.trouble());
    assert_eq!(world.numbers(uid), 1);
}

#[test]
fn an_id_is_asked_for_where_a_refusal_says() {
    let (mut world, uid) = three_nodes(ProducerConfig::default());
    world.broker.nodes.only = [(Kind::InitProducer.as_u8(), 3)].into();
    world.send(0);
    world.run(400);
    assert!(world.is_done(), "{:?}", world.core.trouble());
    assert_eq!((world.broker.count(Kind::InitProducer), world.numbers(uid)), (2, 1));
    // The connection served for that alone.
    world.send(1);
    world.run(1_000);
    world.turns(3);
    assert_eq!(world.sockets.values().map(|(address, _)| address.as_str()).collect::<Vec<_>>(), [SHARD]);
}

#[test]
fn an_id_that_the_named_node_cannot_give_is_asked_for_again_after_its_death() {
    let (mut world, uid) = three_nodes(ProducerConfig::default());
    world.broker.nodes.only = [(Kind::InitProducer.as_u8(), 3)].into();
    world.kill(&[COMMON_3, SHARD_3]);
    world.send(0);
    world.run(500_000);
    assert!(!world.is_done());
    let asked = world.broker.count(Kind::InitProducer);
    assert!((2..30).contains(&asked), "{asked} in half a second");
    world.broker.nodes.only = [(Kind::InitProducer.as_u8(), 2)].into();
    world.run(500_000);
    assert!(world.is_done(), "{:?}", world.core.trouble());
    assert_eq!(world.numbers(uid), 1);
}

#[test]
fn the_highest_term_is_believed_whatever_the_epoch_it_comes_with() {
    let (mut world, uid) = three_nodes(ProducerConfig::default());
    let now = world.now();
    let told = |world: &mut World, epoch: u64, node: u32, term: u64| {
        world.lead(uid, node, term);
        let view = crate::types::Metadata { view_epoch: epoch, ..world.broker.view() };
        world.broker.nodes.leaders.clear();
        Lanes::learn(&mut world.core, &view, now);
    };
    let epoch = world.broker.view_epoch;
    for (at, node, term, leads) in [(epoch, 2, 5, 2), (epoch + 3, 3, 4, 2), (epoch + 3, 3, 0, 2), (epoch, 3, 6, 3), (epoch, 2, 6, 3)] {
        told(&mut world, at, node, term);
        assert_eq!(world.core.leader_of("t", 0).map(|owner| owner.node), Some(leads), "epoch {at} node {node} term {term}");
    }
}
