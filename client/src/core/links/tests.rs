//! Dialling, hello, metadata and redirects, with the real producer core, a broker in memory behind several addresses, and no socket.

mod nodes;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

use super::{Key, Lanes, Links};
use crate::config::{Config, ProducerConfig};
use crate::core::Now;
use crate::core::producer::ProducerCore;
use crate::error::Error;
use crate::fake::{FakeBroker, carry};
use crate::producer::Record;

/// What happens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A broker answers.
    Broker,
    /// Nothing listens.
    Refuses,
    /// Packets go nowhere.
    Hangs,
    /// Connects, and says nothing.
    Mute,
    /// Something else listens.
    Stranger,
}

const SERVER: &str = "server:1";
const COMMON: &str = "127.0.0.1:7410";
const SHARD: &str = "127.0.0.1:7411";

struct World {
    core: ProducerCore,
    links: Links,
    broker: FakeBroker,
    places: BTreeMap<String, Place>,
    /// The node that answers at an address, where it matters.
    node_at: BTreeMap<String, u32>,
    /// Sockets: by key the address and, once connected, the broker's number for it.
    sockets: BTreeMap<usize, (String, Option<u32>)>,
    dialled: Vec<String>,
    now_us: u64,
    next_conn: u32,
    told: Vec<(u64, Option<Error>)>,
}

impl World {
    fn new() -> World {
        World::with(ProducerConfig::default())
    }

    fn with(producer: ProducerConfig) -> World {
        let mut broker = FakeBroker::new();
        broker.create("t", 1);
        let config = Config { connect_timeout: Duration::from_secs(2), request_timeout: Duration::from_secs(1), ..Config::new(SERVER) };
        let mut core = ProducerCore::new(producer, 1_000_000, 16 << 20, 0).expect("a valid configuration");
        Lanes::learn(&mut core, &broker.view(), Now { mono_us: 0, utc_us: 0 });
        let places = [SERVER, COMMON, SHARD].map(|address| (address.to_string(), Place::Broker)).into();
        let links = Links::new(&config);
        let (sockets, dialled, told) = (BTreeMap::new(), Vec::new(), Vec::new());
        World { core, links, broker, places, node_at: BTreeMap::new(), sockets, dialled, now_us: 1, next_conn: 1, told }
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, utc_us: 0 }
    }

    fn set(&mut self, address: &str, place: Place) {
        self.places.insert(address.to_string(), place);
    }

    fn send(&mut self, tag: u64) {
        let now = self.now();
        let topic = self.core.topic("t").expect("known");
        self.core.push(|| now, topic, &Record { topic: "t", value: Some(b"v"), tag, ..Record::default() }).expect("taken");
        self.core.flush();
    }

    fn fail(&mut self, place: usize, kind: std::io::ErrorKind) {
        let now = self.now();
        if let Some((address, conn)) = self.sockets.remove(&place) {
            if let Some(conn) = conn {
                self.broker.disconnect(conn);
            }
            self.links.on_failed(&mut self.core, Key::at(place), Error::io("cannot talk to", &address, kind.into()), now);
        }
    }

    /// One turn of the driver; returns whether anything moved.
    fn turn_once(&mut self) -> bool {
        let now = self.now();
        self.core.step(now);
        self.links.step(&mut self.core, now);
        let mut moved = false;
        while let Some((key, address)) = self.links.next_dial() {
            self.dialled.push(address.clone());
            self.sockets.insert(key.place(), (address, None));
            moved = true;
        }
        for place in self.sockets.keys().copied().collect::<Vec<_>>() {
            let key = Key::at(place);
            if !self.links.is_wanted(key) {
                self.sockets.remove(&place);
                continue;
            }
            let (address, conn) = self.sockets[&place].clone();
            let what = self.places.get(&address).copied().unwrap_or(Place::Refuses);
            match (what, conn) {
                (Place::Refuses, _) => {
                    self.fail(place, std::io::ErrorKind::ConnectionRefused);
                    moved = true;
                    continue;
                }
                (Place::Hangs, _) => continue,
                (_, Some(_)) => {}
                (_, None) => {
                    self.links.on_dialled(&mut self.core, key);
                    self.sockets.insert(place, (address.clone(), Some(self.next_conn)));
                    self.next_conn += 1;
                    moved = true;
                }
            }
            let conn = self.sockets[&place].1.expect("connected");
            self.broker.node = self.node_at.get(&address).copied().unwrap_or(self.broker.node);
            let bytes = self.links.conn(&mut self.core, key);
            match what {
                Place::Mute => {
                    let queued = (bytes.out().queued() - bytes.out().written()) as usize;
                    bytes.out_mut().advance(queued);
                    continue;
                }
                Place::Stranger => {
                    bytes.room()[..16].copy_from_slice(b"HTTP/1.1 400 Bad");
                    bytes.received(16);
                }
                _ => {
                    if !carry(bytes, &mut self.broker, conn) {
                        continue;
                    }
                }
            }
            moved = true;
            let heard = match key {
                Key::Lane(lane) if self.links.is_open(lane) => {
                    self.core.on_written(lane, now);
                    self.core.on_received(lane, now)
                }
                _ => self.links.on_received(&mut self.core, key, now),
            };
            if let Err(error) = heard {
                self.sockets.remove(&place);
                self.broker.disconnect(conn);
                self.links.on_failed(&mut self.core, key, error, now);
            }
        }
        let told = &mut self.told;
        self.core.drain(|delivery| told.push((delivery.tag, delivery.error.cloned())));
        moved
    }

    /// Turns and lets time go on, as a loop that sleeps does, until all is told; at most so long.
    fn run(&mut self, at_most_us: u64) {
        let end_us = self.now_us + at_most_us;
        let mut turns = 0;
        while self.core.records_outstanding() > 0 && self.now_us < end_us {
            turns += 1;
            assert!(turns < 20_000, "it spins: {:?}", self.links);
            if !self.turn_once() {
                let next_us = self.core.next_step_us(self.now()).min(self.links.next_step_us());
                self.now_us = next_us.clamp(self.now_us + 1, end_us);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.core.records_outstanding() == 0 && self.told.iter().all(|(_, error)| error.is_none())
    }

    fn asked_metadata(&self) -> usize {
        self.broker.seen.iter().filter(|seen| seen.1 == Kind::Metadata).count()
    }
}

#[test]
fn the_owners_own_port_is_dialled_first() {
    let mut world = World::new();
    world.send(1);
    world.run(1_000);
    assert!(world.is_done());
    assert_eq!(world.dialled, [SHARD]);
}

#[test]
fn the_common_port_is_taken_where_the_shards_cannot_be_reached() {
    for place in [Place::Refuses, Place::Hangs, Place::Mute, Place::Stranger] {
        let mut world = World::new();
        world.set(SHARD, place);
        world.send(1);
        world.run(2_100_000);
        assert!(world.is_done(), "{place:?}: {:?}", world.told);
        assert_eq!(world.dialled, [SHARD, COMMON], "{place:?}");
    }
}

#[test]
fn where_nobody_answers_metadata_is_asked_for_and_the_lane_tried_again() {
    let mut world = World::new();
    world.set(SHARD, Place::Refuses);
    world.set(COMMON, Place::Refuses);
    world.send(1);
    world.run(1_000_000);
    assert!(!world.is_done());
    assert!(matches!(world.core.trouble(), Some(Error::Io { .. })));
    assert!(world.asked_metadata() > 1 && world.asked_metadata() < 40, "{}", world.asked_metadata());
    // It starts again at another port, which the metadata tells.
    world.broker.shard_ports = vec![7500];
    world.broker.view_epoch += 1;
    world.set("127.0.0.1:7500", Place::Broker);
    world.run(1_000_000);
    assert!(world.is_done());
    assert_eq!(world.dialled.last().map(String::as_str), Some("127.0.0.1:7500"));
}

#[test]
fn a_dead_address_does_not_keep_metadata_from_coming_over_another() {
    let mut world = World::new();
    world.set(SHARD, Place::Hangs);
    world.set(COMMON, Place::Hangs);
    world.send(1);
    // Two seconds for each of the two, then metadata: the common port again, which hangs, then the server that was configured.
    world.run(7_000_000);
    assert_eq!(world.dialled[..3], [SHARD, COMMON, COMMON]);
    assert!(world.dialled.contains(&SERVER.to_string()), "{:?}", world.dialled);
    assert_eq!(world.asked_metadata(), 1);
}

#[test]
fn topics_that_nobody_asked_for_are_not_taken_over() {
    let mut world = World::new();
    world.broker.create("other", 3);
    world.broker.tells_all = true;
    world.broker.refuse_requests.push_back((Kind::Produce, ErrorCode::NotLeader));
    world.send(1);
    world.run(1_000_000);
    assert!(world.is_done(), "{:?}", world.core.trouble());
    // Once more while the record waits, as the first answer brought no other owner.
    assert!((1..=2).contains(&world.asked_metadata()), "{}", world.asked_metadata());
    assert!(world.core.topic("t").is_some() && world.core.topic("other").is_none());
}

#[test]
fn a_refusal_that_names_an_address_is_followed() {
    let mut world = World::new();
    world.set("better:7", Place::Broker);
    world.broker.refuse_requests.push_back((Kind::Produce, ErrorCode::NotLeader));
    world.broker.next_of_refusals = "better:7".to_string();
    world.send(1);
    world.run(100_000);
    assert!(world.is_done());
    assert_eq!(world.dialled, [SHARD, "better:7"], "metadata from where it was sent to");
}

#[test]
fn not_leader_without_end_is_no_storm_of_questions() {
    let mut world = World::new();
    let uid = world.broker.topics[0].partitions[0];
    world.broker.log(uid).refusals.extend([ErrorCode::NotLeader; 2_000]);
    world.send(1);
    world.run(10_000_000);
    // 1.3 s until the wait is a second, then one per second.
    let asked = world.asked_metadata();
    assert!((10..20).contains(&asked), "asked {asked} times in 10 s");
    world.broker.log(uid).refusals.clear();
    world.run(300_000);
    assert!(world.is_done());
}

#[test]
fn another_node_at_the_owners_address_is_not_taken() {
    let mut world = World::new();
    world.broker.node = 2;
    world.send(1);
    world.run(50_000);
    assert!(!world.is_done());
    let error = world.core.trouble().map(ToString::to_string).unwrap_or_default();
    assert!(error.contains("node 2 answers where node 1 was looked for"), "{error}");
}

#[test]
fn a_connection_to_an_owner_without_partitions_is_closed_and_its_place_used_again() {
    let mut world = World::new();
    world.send(1);
    world.run(1_000);
    for (round, node) in (2..20).enumerate() {
        world.broker.node = node;
        let mut view = world.broker.view();
        view.view_epoch += 1 + round as u64;
        view.nodes[0].id = node;
        view.topics[0].partitions[0].leader_node = node;
        let now = world.now();
        Lanes::learn(&mut world.core, &view, now);
        world.send(u64::from(node));
        world.run(1_000_000);
    }
    assert!(world.is_done(), "{:?}", world.told);
    assert_eq!(world.told.len(), 19);
    assert!(world.core.lane_count() <= 2 && world.sockets.len() <= 2, "{} lanes", world.core.lane_count());
}

#[test]
fn a_node_that_was_set_up_anew_is_another_cluster_and_gets_what_comes() {
    let mut world = World::new();
    (0..40).for_each(|_| world.broker.view_epoch += 1);
    world.send(1);
    world.run(1_000);
    assert!(world.is_done());
    // The same topic, with the same uids, in a cluster whose epochs and producer ids begin again; another producer got the first id there.
    let mut anew = FakeBroker::new();
    anew.create("t", 1);
    (anew.cluster_id, anew.producer_id) = ([8; 16], 1);
    world.broker = anew;
    for place in world.sockets.keys().copied().collect::<Vec<_>>() {
        world.fail(place, std::io::ErrorKind::ConnectionReset);
    }
    world.send(2);
    world.turn_once();
    for _ in 0..200 {
        if world.core.trouble().is_some_and(|error| error.to_string().contains("another cluster answers than before")) {
            break;
        }
        if !world.turn_once() {
            world.now_us = world.core.next_step_us(world.now()).min(world.links.next_step_us()).max(world.now_us + 1);
        }
    }
    assert!(world.core.trouble().is_some_and(|error| error.to_string().contains("another cluster")), "{:?}", world.core.trouble());
    world.run(1_000_000);
    assert!(world.is_done() && world.core.trouble().is_none(), "{:?}", world.told);
    let uid = world.broker.topics[0].partitions[0];
    assert_eq!((world.broker.values(uid).len(), world.broker.producer_id), (1, 2), "under an id of that cluster");
}

#[test]
fn an_open_connection_to_the_cluster_that_was_is_not_used_for_the_one_that_is() {
    let mut world = World::new();
    world.send(1);
    world.run(1_000);
    let mut anew = FakeBroker::new();
    anew.create("t", 1);
    (anew.cluster_id, anew.producer_id) = ([8; 16], 1);
    let now = world.now();
    // Told by metadata, while the old connection lives and more is to be sent.
    world.send(2);
    Lanes::learn(&mut world.core, &anew.view(), now);
    assert!(world.core.trouble().is_some_and(|error| error.to_string().contains("another cluster")));
    let old = std::mem::replace(&mut world.broker, anew);
    world.run(1_000_000);
    assert!(world.is_done(), "{:?}", world.told);
    let uid = old.topics[0].partitions[0];
    assert_eq!((old.values(uid).len(), world.broker.values(uid).len(), world.broker.producer_id), (1, 1, 2));
    assert_eq!(world.dialled, [SHARD, SHARD]);
}

#[test]
fn one_view_with_an_epoch_that_nothing_follows_does_not_stop_a_producer_for_good() {
    let mut world = World::new();
    let mut wrong = world.broker.view();
    wrong.view_epoch = u64::MAX;
    wrong.topics[0].partitions[0].uid += 1000;
    let now = world.now();
    Lanes::learn(&mut world.core, &wrong, now);
    world.send(1);
    world.run(20_000_000);
    assert!(world.is_done(), "{:?}", world.told);
}

#[test]
fn a_metadata_request_that_is_not_answered_goes_to_the_next() {
    let mut world = World::new();
    world.send(1);
    world.run(1_000);
    world.now_us += 300_000_000; // its age
    world.set(COMMON, Place::Mute);
    world.dialled.clear();
    world.send(2);
    world.run(1_000);
    for _ in 0..20 {
        if !world.turn_once() {
            world.now_us = world.links.next_step_us().min(world.now_us + 2_000_000);
        }
    }
    assert_eq!(world.dialled, [COMMON, SERVER]);
    assert_eq!(world.asked_metadata(), 1);
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        3 => Just(Place::Broker), 1 => Just(Place::Refuses), 1 => Just(Place::Hangs), 1 => Just(Place::Mute), 1 => Just(Place::Stranger)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the addresses do for a while: afterwards every record is stored once, and nothing spins.
    #[test]
    fn it_comes_back(
        changes in proptest::collection::vec((0usize..3, place(), 1u64..1_500_000, any::<bool>()), 1..12),
    ) {
        let mut world = World::new();
        let mut sent = 0;
        for (address, place, time_us, cut) in changes {
            world.set([SERVER, COMMON, SHARD][address], place);
            world.send(sent);
            sent += 1;
            if cut {
                for place in world.sockets.keys().copied().collect::<Vec<_>>() {
                    world.fail(place, std::io::ErrorKind::ConnectionReset);
                }
            }
            world.run(time_us);
        }
        for address in [SERVER, COMMON, SHARD] {
            world.set(address, Place::Broker);
        }
        for place in world.sockets.keys().copied().collect::<Vec<_>>() {
            world.fail(place, std::io::ErrorKind::ConnectionReset);
        }
        world.run(10_000_000);
        prop_assert!(world.is_done(), "{:?}", world.told);
        let uid = world.broker.topics[0].partitions[0];
        prop_assert_eq!(world.broker.values(uid).len() as u64, sent);
    }
}
