//! What was acknowledged survives: random loads, random crashes, every record checked.

use super::world::{World, produce_results};
use crate::sim::{Dice, TEARS};
use std::collections::BTreeMap;
use tramline_wire::level::Level;

/// What clients know: acknowledged records by (uid, offset), and what was sent.
#[derive(Default)]
struct History {
    acked: BTreeMap<(u64, u64), Vec<u8>>,
    sent: BTreeMap<u64, (u64, Level, Vec<Vec<u8>>)>,
    next_value: u64,
}

impl History {
    fn send(&mut self, world: &mut World, uid: u64, level: Level, dice: &mut Dice) {
        let count = 1 + dice.below(6);
        let values: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                self.next_value += 1;
                let mut value = self.next_value.to_le_bytes().to_vec();
                value.resize(8 + dice.below(1200) as usize, self.next_value as u8);
                value
            })
            .collect();
        let correlation = world.produce(uid, level, &values);
        self.sent.insert(correlation, (uid, level, values));
    }

    fn take_acks(&mut self, world: &mut World) {
        while let Some((correlation, flags, meta, _)) = world.reply() {
            assert_eq!(flags & tramline_wire::frame::FLAG_ERROR, 0, "produce was refused");
            let (uid, level, values) = self.sent.remove(&correlation).expect("an ack answers a request once");
            let result = produce_results(&meta)[0];
            assert!(result.error.is_ok(), "{result:?}");
            if level < Level::LeaderDurable {
                continue;
            }
            assert!(result.durable_end >= result.base_offset + values.len() as u64, "an ack tells that its records are durable");
            for (at, value) in values.into_iter().enumerate() {
                let before = self.acked.insert((uid, result.base_offset + at as u64), value);
                assert!(before.is_none(), "offset {} of {uid} was acknowledged twice", result.base_offset + at as u64);
            }
        }
    }

    fn check(&self, world: &mut World, uids: &[u64]) {
        for uid in uids {
            let (found, damaged) = world.read(*uid, 0);
            assert!(damaged.is_empty(), "a crash damages nothing: {damaged:?}");
            for ((_, offset), value) in self.acked.range((*uid, 0)..=(*uid, u64::MAX)) {
                assert_eq!(found.get(offset), Some(value), "acknowledged offset {offset} of {uid}");
            }
            let values: std::collections::BTreeSet<_> = found.values().collect();
            assert_eq!(values.len(), found.len(), "a record is there once");
            assert!(found.keys().copied().eq(0..found.len() as u64), "offsets have no hole");
        }
    }
}

fn run(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let mut world = World::new();
    world.create_topic("t", 3, &[]);
    let uids = world.uids("t");
    let mut history = History::default();
    for _round in 0..4 {
        for _ in 0..dice.below(220) {
            match dice.below(10) {
                0..=4 => {
                    let level = [Level::Durable, Level::LeaderDurable, Level::Leader, Level::Durable][dice.below(4) as usize];
                    let uid = uids[dice.below(3) as usize];
                    history.send(&mut world, uid, level, &mut dice);
                }
                5..=7 if !world.disk.under_way.is_empty() => {
                    let index = dice.below(world.disk.under_way.len() as u64) as usize;
                    world.complete(index);
                }
                8 if dice.chance(10) => world.pass(1_100_000),
                _ => world.turn(),
            }
            history.take_acks(&mut world);
        }
        if dice.chance(30) {
            world.settle();
            history.take_acks(&mut world);
        }
        let tear = TEARS[dice.below(TEARS.len() as u64) as usize];
        world = world.crash(tear, &mut dice);
        // Who waited for an ack will never get it.
        history.sent.clear();
        history.check(&mut world, &uids);
    }
    history.acked.len() as u64
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    let acked: u64 = (0..120).map(run).sum();
    assert!(acked > 20_000, "the seeds prove something only if much was acknowledged: {acked}");
}

/// Two segments are sorted together.
const SORTING: [(&str, &str); 2] = [("sorter.segments", "2"), ("scrub.bytes.per.second", "0B")];

/// A node with three partitions' records scattered over some segments, all durable, whose sorter has just begun.
fn sorting() -> (World, History, Vec<u64>) {
    let mut dice = Dice(11);
    let mut world = World::with(&SORTING);
    world.create_topic("t", 3, &[]);
    let uids = world.uids("t");
    let mut history = History::default();
    for number in 0..180 {
        history.send(&mut world, uids[number % 3], Level::Durable, &mut dice);
        world.settle();
        history.take_acks(&mut world);
    }
    assert!(!world.shard.is_sorting(), "it looks once a second, and time stands still");
    assert!((0..400).any(|_| sorting_step(&mut world)), "there is something to sort");
    (world, history, uids)
}

/// One operation of the disk ends, or time passes. Answers whether a sort is under way.
fn sorting_step(world: &mut World) -> bool {
    world.turn();
    match world.disk.under_way.is_empty() {
        true => world.pass(100_000),
        false => world.complete(0),
    }
    world.shard.is_sorting()
}

#[test]
fn a_crash_at_every_step_of_the_sorter_loses_nothing() {
    let mut sorts = 0;
    let mut boundaries = 0;
    for crash_at in 0..10_000 {
        for power in [false, true] {
            let (mut world, history, uids) = sorting();
            // The last boundary is that behind a whole sort.
            let is_over = (0..crash_at).any(|_| !sorting_step(&mut world));
            let World { mut disk, now, .. } = world;
            let tear = TEARS[crash_at % TEARS.len()];
            match power {
                true => disk.crash(tear, &mut Dice(crash_at as u64)),
                false => disk.kill(tear, &mut Dice(crash_at as u64)),
            }
            let mut world = World::start(disk, now, &SORTING);
            history.check(&mut world, &uids);
            // What was interrupted is done again, over what it has left.
            assert!(is_over || (0..400).any(|_| sorting_step(&mut world)), "the sort is not taken up again after step {crash_at}");
            while sorting_step(&mut world) {}
            world.settle();
            history.check(&mut world, &uids);
            sorts += world.shard.metrics_mut().counters.sorter_segments;
            boundaries += 1;
            if is_over && power {
                assert!(boundaries > 50 && sorts > boundaries / 2, "{boundaries} boundaries, {sorts} segments sorted afterwards");
                return;
            }
        }
    }
    panic!("the sort does not end");
}

#[test]
fn a_restart_without_a_crash_keeps_everything_and_goes_on() {
    let mut dice = Dice(1);
    let mut world = World::new();
    world.create_topic("t", 1, &[("timestamp.type", "append")]);
    let uid = world.uids("t")[0];
    let mut history = History::default();
    for _ in 0..6 {
        // Some 600 KiB: five segments, sealed with footers and checkpoints, and read back cold.
        for _ in 0..160 {
            history.send(&mut world, uid, Level::Durable, &mut dice);
            world.turn();
        }
        world.settle();
        history.take_acks(&mut world);
        assert!(history.sent.is_empty(), "everything was answered");
        history.check(&mut world, &[uid]);
        world = World::over(world.disk.snapshot(), world.now);
        history.check(&mut world, &[uid]);
    }
    assert_eq!(world.uids("t"), [uid], "the topic is the same one after six starts");
}
