//! Operations of the disks under way: how long they take, which of them fail, and how much space there is.
//!
//! Invariants: an operation of a process that has ended is not told to the next one.
//!
//! Not here: what is stable when (`disk.rs`), writes that land after the death of their process (`process.rs`).

use super::node::ShardAt;
use super::totals::Event as Counted;
use super::world::{Work, World};
use crate::config::DiskSize;
use crate::effects::{Effect, Event, Outcome};

/// How long a node on a full disk serves nobody before somebody gives it space.
const OPERATOR_US: u64 = 5_000_000;

impl World {
    pub(super) fn begin(&mut self, at: ShardAt, operation: Effect) {
        let node = &mut self.nodes[at.node];
        let took_us = match &self.params.ruler {
            Some(ruler) => ruler.disk_us[at.node],
            None => {
                let dice = &mut node.disk_dice;
                let took_us = match &operation {
                    Effect::Write { data, .. } => dice.within(60..200) + data.len() as u64 / 2000,
                    Effect::Read { buf, .. } => dice.within(40..150) + buf.len() as u64 / 2000,
                    _ => dice.within(20..500),
                };
                // Some take their time, so that the order of ends is not that of beginnings.
                if dice.once_in(20) && !self.is_steady { took_us * dice.within(2..20) } else { took_us }
            }
        };
        let took_us = if self.now_us < node.slow_until_us { took_us * node.slow_factor } else { took_us };
        self.next_number += 1;
        let disk = &mut node.disks[at.shard];
        disk.disk.under_way.push(operation);
        disk.numbers.push(self.next_number);
        self.plan_work(took_us, at, Work::DiskDone { number: self.next_number });
    }

    pub(super) fn disk_done(&mut self, at: ShardAt, number: u64) {
        let node = &mut self.nodes[at.node];
        let disk = &mut node.disks[at.shard];
        let Some(index) = disk.numbers.iter().position(|n| *n == number) else { return };
        if !self.quiet {
            let dice = &mut node.disk_dice;
            match &disk.disk.under_way[index] {
                Effect::Write { data, .. } => {
                    if dice.once_in(self.params.short_write_in) && data.len() > 4096 {
                        disk.disk.short_next_write = Some(dice.within(1..data.len() as u64 / 512) as u32 * 512);
                        self.totals.note(Counted::ShortWrites);
                    } else if dice.once_in(self.params.write_error_in) {
                        disk.disk.fail_next_write = Some(super::disk::EIO);
                        node.has_failing_disk = true;
                        self.totals.note(Counted::WriteErrors);
                    }
                }
                Effect::Read { .. } => {
                    self.totals.note(Counted::ColdReads);
                    if dice.once_in(self.params.read_error_in) {
                        disk.disk.fail_next_read = Some(super::disk::EIO);
                        self.totals.note(Counted::ReadErrors);
                    }
                }
                Effect::File { .. } if dice.once_in(self.params.dir_error_in) => {
                    disk.disk.fail_next_file = Some((super::disk::EIO, dice.chance(50)));
                    self.totals.note(Counted::DirErrors);
                }
                _ => {}
            }
        }
        let Some((token, outcome)) = disk.complete(number) else { return };
        if matches!(outcome, Outcome::Read(_, Err(_))) {
            self.say_of(at.node, || format!("shard {}: a read fails", at.shard));
        }
        if let Outcome::Write(Err(errno)) | Outcome::File(Err(errno)) = &outcome {
            let (errno, what) = (*errno, if matches!(outcome, Outcome::Write(_)) { "a write" } else { "an operation on names" });
            self.say_of(at.node, || format!("shard {}: {what} ends with {errno}", at.shard));
        }
        self.step(at, Event::Done { token, outcome });
        self.end_of_turn(at);
    }

    pub(super) fn begin_slow_period(&mut self, node: usize) {
        self.totals.note(Counted::SlowPeriods);
        let node = &mut self.nodes[node];
        node.slow_factor = node.disk_dice.within(10..300);
        node.slow_until_us = self.now_us + node.disk_dice.within(50_000..1_500_000);
    }

    /// Space comes or goes: what the node's housekeeping thread tells its shards, unless they are paused together.
    pub(super) fn tell_space_of(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if node.is_serving() || !node.is_up() {
            node.space.served_us = self.now_us;
        } else if node.space.segments > 0 && self.now_us > node.space.served_us + OPERATOR_US {
            // All that is kept for bookkeeping is used up, by thousands of operations for each segment: what helps then is space.
            node.space.segments += 2 * u64::from(self.params.shards);
            node.space.served_us = self.now_us;
            self.totals.note(Counted::SpaceAdded);
        }
        let used: u64 = node.disks.iter().map(|disk| disk.disk.used_bytes()).sum();
        // Faults are over: somebody has added a disk.
        let total_bytes = match node.space.segments {
            0 => 1 << 40,
            _ if self.quiet => 1 << 40,
            segments => segments * self.params.segment_bytes,
        };
        let others_have_it = self.now_us < node.space.full_until_us;
        let free_bytes = if others_have_it { 0 } else { total_bytes.saturating_sub(used) };
        for disk in &mut node.disks {
            disk.disk.free_bytes = Some(free_bytes);
        }
        if node.pause.is_on() {
            return;
        }
        let look = node.disk_marks().look(DiskSize { total_bytes, free_bytes });
        node.space.level = look.level;
        for seat in &mut node.seats {
            seat.core.set_disk(look);
        }
    }
}
