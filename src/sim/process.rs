//! Life of a node's process: its start, which may be interrupted or fail, and its end, by a kill or a power cut.
//!
//! Invariants: one process at a time, and each has a number of its own; the next one starts when the last write of the one before has landed.
//!
//! Not here: when which fault comes (`run.rs`), what a start does (`node.rs`).

use super::disk::{TEARS, Tear};
use super::node::Started;
use super::totals::Event as Counted;
use super::world::{Item, World};
use super::{Dice, UTC_START_US};
use crate::mutants::Mutant;

/// How long after the death of its process a write may land (some 100 ms were seen; more gives a start that does not wait its chance).
const LATE_US: u64 = 700_000;

impl World {
    /// Starts the node, maybe interrupted in the middle.
    pub(super) fn start(&mut self) {
        if self.now_us < self.lock_free_us && !self.mutants.has(Mutant::StartWithoutLock) {
            // The lock is held until the last write of the process before has landed.
            self.totals.note(Counted::StartsWaited);
            return self.plan(self.lock_free_us - self.now_us, Item::Start { life: self.life });
        }
        let dice = &mut self.disk_dice;
        let interrupt = !self.quiet && self.life > 0 && self.params.crash_every_us > 0 && dice.chance(15);
        let tear = TEARS[dice.below(TEARS.len() as u64) as usize];
        let interrupt = interrupt.then(|| (dice.below(60), tear, Dice(dice.next())));
        self.life_began_us = self.now_us;
        self.utc_at_start_us = UTC_START_US + self.now_us as i64 + self.wall_offset_us;
        let fails = interrupt.is_none() && !self.quiet && self.params.dir_error_in > 0 && self.start_dice.chance(20);
        let fail = fails.then(|| self.start_dice.below(40));
        match self.node.start(interrupt, fail) {
            Started::Yes(reports) => {
                self.totals.note(Counted::Starts);
                for (shard, report) in reports.iter().enumerate() {
                    let recovery = &report.recovery;
                    self.say(|| format!("shard {shard} starts: {recovery:?}, {} damaged, {} lost", report.damage, report.lost));
                    self.totals.add(Counted::TailsCut, u64::from(recovery.cut_from.is_some()));
                    self.totals.add(Counted::FootersRebuilt, u64::from(recovery.footers_rebuilt));
                    self.totals.add(Counted::DamageFound, report.damage as u64);
                    self.totals.add(Counted::BlocksLost, report.lost as u64);
                    self.control_lost |= shard == 0 && report.lost > 0;
                    self.totals.add(Counted::StaleBlocks, u64::from(self.node.disks[shard].disk.has_reused_files()));
                }
                for shard in 0..self.node.seats.len() {
                    self.carry(shard);
                    self.end_of_turn(shard);
                }
                self.tell_space();
            }
            Started::Interrupted => {
                self.totals.note(Counted::StartsInterrupted);
                self.say(|| "a start is interrupted".to_owned());
                let power = self.disk_dice.chance(self.params.power_percent);
                self.end_process(power);
            }
            Started::Failed(reason) => {
                self.totals.note(Counted::StartsFailed);
                self.say(|| format!("a start meets an error of the disk: {reason}"));
                let power = self.disk_dice.chance(self.params.power_percent);
                self.end_process(power);
            }
            Started::Refused(reason) => {
                self.say(|| format!("a start is refused: {reason}"));
                self.refused = Some(reason);
            }
        }
    }

    /// The process ends, and another is started a while later. Answers the connections that are gone.
    pub(super) fn end_process(&mut self, power: bool) -> Vec<u64> {
        let dice = &mut self.disk_dice;
        let tear = TEARS[dice.below(TEARS.len() as u64) as usize];
        self.totals.note(if power { Counted::PowerCuts } else { Counted::Kills });
        self.refused_for_space = false;
        self.clock_ends.push((self.now_us, self.utc_us()));
        for seat in &mut self.node.seats {
            self.totals.add(Counted::SortedSegments, seat.shard.metrics_mut().counters.sorter_segments);
            self.totals.add(Counted::BatchesCut, seat.shard.metrics_mut().counters.retention_batches);
            self.totals.add(Counted::DuplicatesFound, seat.shard.metrics_mut().counters.produce_duplicates);
            self.totals.add(Counted::SortsInterrupted, u64::from(seat.shard.is_sorting()));
        }
        if !power {
            self.put_off_writes(tear);
        }
        self.node.end(power, tear, &mut self.disk_dice);
        self.say(|| format!("the process ends: power {power}, what is under way lands: {tear:?}"));
        if self.params.clock_jumps && !self.quiet && self.disk_dice.chance(50) {
            self.totals.note(Counted::ClockJumps);
            self.wall_offset_us += self.disk_dice.below(200_000_000) as i64 - 100_000_000;
        }
        self.life += 1;
        let pause = self.disk_dice.within(10_000..800_000);
        self.plan(pause, Item::Start { life: self.life });
        std::mem::take(&mut self.conns).into_keys().collect()
    }

    /// What the kernel has of a dying process lands when it likes, some of it after the process is gone.
    fn put_off_writes(&mut self, tear: Tear) {
        for shard in 0..self.node.disks.len() {
            let numbers = self.node.disks[shard].disk.put_off_some(self.next_number, tear, &mut self.disk_dice);
            self.next_number = numbers.end;
            for number in numbers {
                let after = self.disk_dice.within(1000..LATE_US);
                self.lock_free_us = self.lock_free_us.max(self.now_us + after);
                self.plan(after, Item::Late { shard, number });
            }
        }
    }

    /// A shard has stopped after an error, so the node ends and is started again, as an operator would.
    pub(super) fn has_failed_shard(&self) -> bool {
        self.node.seats.iter().any(|seat| seat.failed)
    }
}
