//! Crashes: at every boundary of a scripted run, inside starts, after kills, in long random lives.
//!
//! What is checked after each (in `Harness::restart`): nothing that was reported durable is missing; nothing is there that was never
//! closed; entries, payloads, batches and their bytes are exactly those of the naive model cut at the recovered end.

use super::harness::{Harness, small_config};
use crate::log::*;
use crate::sim::{Dice, TEARS, Tear};

/// One random step of a shard's life.
fn step(h: &mut Harness, dice: &mut Dice) {
    h.now.mono_us += dice.below(3_000);
    h.now.utc_us += 1_000;
    match dice.below(100) {
        0..=34 => {
            let (group, bytes) = (dice.below(3) as u32, [10, 200, 1500, 4000, 7500][dice.below(5) as usize]);
            let uid = u64::from(group) * 10 + dice.below(3);
            h.append(group, uid, bytes, 1 + dice.below(4) as u32, dice.next() as u8);
        }
        35..=39 => {
            let payload = vec![dice.next() as u8; dice.below(600) as usize];
            h.append_control(dice.below(3) as u32, EntryKind::Control, &payload);
        }
        40..=42 => {
            h.append_control(dice.below(3) as u32, EntryKind::Raft, b"");
        }
        43..=44 => {
            let state = HardState {
                group: crate::ids::GroupId(1),
                term: crate::ids::Term(dice.below(9)),
                vote: 1,
                commit: crate::ids::LogIndex(dice.below(99)),
                is_shared: dice.chance(30),
            };
            h.append_control(1, EntryKind::HardState, &state.encode());
        }
        45..=64 => {
            h.close();
        }
        65..=66 => h.rewind(dice.below(3) as u32),
        67 => {
            h.now.mono_us += 1_100_000;
            h.turn();
        }
        68..=76 => h.turn(),
        _ => {
            if !h.disk.under_way.is_empty() {
                let index = dice.below(h.disk.under_way.len() as u64) as usize;
                if dice.chance(5) {
                    h.disk.short_next_write = Some(4096);
                }
                h.complete(index);
            }
        }
    }
}

#[test]
fn a_crash_at_every_step_of_a_scripted_run_loses_nothing_durable() {
    const STEPS: u64 = 700;
    let mut rolls = 0;
    let mut seals = 0;
    let mut cuts = 0;
    for crash_at in 0..STEPS {
        let tear = TEARS[(crash_at % 5) as usize];
        let mut h = Harness::new(small_config());
        h.keep_segments = 2;
        let mut dice = Dice(42);
        for _ in 0..crash_at {
            step(&mut h, &mut dice);
        }
        rolls = rolls.max(h.log.stats().rolls);
        seals = seals.max(h.sealed.len());
        let mut crash_dice = Dice(crash_at);
        h.crash(tear, &mut crash_dice);
        cuts += u64::from(h.restart().cut_from.is_some());
        for _ in 0..15 {
            step(&mut h, &mut dice);
        }
        h.crash(TEARS[(crash_at / 5 % 5) as usize], &mut crash_dice);
        h.restart();
        h.settle();
        h.check_bytes(1);
    }
    assert!(rolls >= 4 && seals >= 2 && cuts >= 20, "the script covers rolls ({rolls}), seals ({seals}) and cuts ({cuts})");
}

#[test]
fn every_tear_of_every_write_under_way_is_cut_or_whole() {
    // Three blocks under way, every order of completion cut short, every tear: the most that recovery has to tell apart.
    for mask in 0..8u32 {
        for tear in TEARS {
            for seed in 0..12 {
                let mut h = Harness::new(small_config());
                let mut dice = Dice(seed);
                h.append(1, 1, 500, 1, 1);
                h.close();
                h.settle();
                for number in 0..3 {
                    h.append(1, 1, 2000 + 3000 * number as usize, 2, number as u8);
                    h.append(2, 7, 100, 1, number as u8);
                    assert!(h.close());
                }
                let writes: Vec<usize> = (0..h.disk.under_way.len()).collect();
                assert_eq!(writes.len(), 3);
                for number in (0..3).rev().filter(|number| mask & (1 << number) != 0) {
                    h.complete(number);
                }
                h.crash(tear, &mut dice);
                let report = h.restart();
                if mask == 7 {
                    assert_eq!(report.blocks, 4);
                }
                // The place of what was cut is written again, shorter and longer: nothing of the old blocks shows through.
                h.append(1, 1, 50, 1, 77);
                h.close();
                h.settle();
                h.crash(Tear::Random, &mut dice);
                h.restart();
                h.append(1, 1, 7000, 1, 78);
                h.close();
                h.crash(Tear::Random, &mut dice);
                h.restart();
                h.check_bytes(1);
            }
        }
    }
}

#[test]
fn a_crash_at_every_operation_of_a_start_is_survived() {
    for (seed, tear) in (0..10u64).zip(TEARS.into_iter().cycle()) {
        let mut h = Harness::new(small_config());
        h.keep_segments = 2;
        let mut dice = Dice(1000 + seed);
        for _ in 0..400 {
            step(&mut h, &mut dice);
        }
        h.crash(tear, &mut dice);
        let mut stops = 0;
        loop {
            h.disk.stop_start_after(stops, tear, Dice(stops));
            let stopped = matches!(recover(&mut h.disk, &h.cfg), Err(RecoverError::Disk(_)));
            h.disk.crash(tear, &mut dice);
            if !stopped {
                break;
            }
            stops += 1;
        }
        assert!(stops > 10, "a start takes some operations");
        h.restart();
        h.settle();
        h.check_bytes(1);
    }
}

#[test]
fn a_crash_at_every_operation_of_the_first_start_is_survived() {
    let cfg = LogConfig { prefill_segments_at_first_start: 2, ..small_config() };
    for tear in TEARS {
        let mut stops = 0;
        loop {
            let mut disk = crate::sim::SimDisk::new();
            disk.stop_start_after(stops, tear, Dice(stops));
            let stopped = recover(&mut disk, &cfg).is_err();
            disk.crash(tear, &mut Dice(stops));
            let again = recover(&mut disk, &cfg).unwrap_or_else(|error| panic!("{tear:?} after {stops}: {error}"));
            assert!(again.damage.is_empty() && again.entries.is_empty(), "{:?}", again.damage);
            if !stopped {
                break;
            }
            stops += 1;
        }
        assert!(stops > 10);
    }
}

#[test]
fn what_a_start_found_after_a_kill_is_stable_before_it_is_believed() {
    for seed in 0..60 {
        let mut h = Harness::new(small_config());
        let mut dice = Dice(7_000 + seed);
        for _ in 0..150 {
            step(&mut h, &mut dice);
        }
        // The process dies, the next start reads what landed and serves it; then the power goes.
        h.disk.kill(TEARS[(seed % 5) as usize], &mut dice);
        h.restart();
        h.crash(Tear::Nothing, &mut dice);
        h.restart();
        h.check_bytes(1);
    }
}

#[test]
fn long_random_lives_with_many_crashes_match_the_model() {
    for seed in 0..6u64 {
        println!("seed {seed}");
        let mut h = Harness::new(small_config());
        h.keep_segments = 2 + seed as usize;
        let mut dice = Dice(90_000 + seed);
        let mut restarts = 0;
        for _ in 0..9_000 {
            step(&mut h, &mut dice);
            if dice.below(250) == 0 {
                let tear = TEARS[dice.below(5) as usize];
                if dice.chance(30) {
                    h.disk.kill(tear, &mut dice)
                } else {
                    h.crash(tear, &mut dice)
                }
                h.restart();
                restarts += 1;
            }
            if dice.below(400) == 0 && h.log.is_sealing_free() {
                h.write_checkpoint();
            }
        }
        h.settle();
        h.check_bytes(1);
        assert!(restarts > 10 && !h.freed.is_empty(), "seed {seed}: {restarts} restarts, freed {:?}", h.freed);
    }
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let run = || {
        let mut h = Harness::new(small_config());
        let mut dice = Dice(5);
        for _ in 0..800 {
            step(&mut h, &mut dice);
        }
        h.settle();
        let names = h.disk.names();
        let bytes: Vec<Vec<u8>> = names.iter().map(|name| h.disk.file(name).clone()).collect();
        (names, bytes)
    };
    assert!(run() == run());
}
