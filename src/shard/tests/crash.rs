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
