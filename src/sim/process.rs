//! Life of a node's process: its start, which may be interrupted or fail, and its end, by a kill or a power cut, or in order.
//!
//! Invariants: one process at a time, and each has a number of its own; the next one starts when the last write of the one before has landed.
//!
//! Not here: when which fault comes (`run.rs`), what a start does (`node.rs`), what comes before an end in order (`stopping.rs`).

use super::Dice;
use super::disk::{TEARS, Tear};
use super::node::{ShardAt, StartReport, Started};
use super::totals::Event as Counted;
use super::world::{CLIENTS_NODE, Item, World};
use crate::mutants::Mutant;
use crate::shard::Shard;

/// How long after the death of its process a write may land (some 100 ms were seen; more gives a start that does not wait its chance).
const LATE_US: u64 = 700_000;
/// How much longer than usual a node may stay down while others run: several times what they wait for it.
const DOWN_US_MAX: u64 = 10_000_000;

impl World {
    /// Starts the node, maybe interrupted in the middle.
    pub(super) fn start(&mut self, index: usize) {
        let node = &self.nodes[index];
        if self.now_us < node.down_until_us {
            let (after, life) = (node.down_until_us - self.now_us, node.life);
            return self.plan(after, Item::Start { node: index, life });
        }
        self.power_comes_back(index);
        let node = &mut self.nodes[index];
        if self.now_us < node.lock_free_us && !self.mutants.has(Mutant::StartWithoutLock) {
            // The lock is held until the last write of the process before has landed.
            self.totals.note(Counted::StartsWaited);
            let (after, life) = (node.lock_free_us - self.now_us, node.life);
            return self.plan(after, Item::Start { node: index, life });
        }
        if node.is_lost {
            return self.plan_rejoin(index, 1);
        }
        let dice = &mut node.disk_dice;
        let interrupt = !self.quiet && node.life > 0 && self.params.crash_every_us > 0 && dice.chance(15);
        let tear = TEARS[dice.below(TEARS.len() as u64) as usize];
        let interrupt = interrupt.then(|| (dice.below(60), tear, Dice(dice.next())));
        node.clock.on_start(self.now_us);
        let fails = interrupt.is_none() && !self.quiet && self.params.dir_error_in > 0 && node.start_dice.chance(20);
        let fail = fails.then(|| node.start_dice.below(40));
        match node.start(interrupt, fail) {
            Started::Yes(reports) => self.on_started(index, &reports),
            Started::Interrupted => {
                self.totals.note(Counted::StartsInterrupted);
                self.say_of(index, || "a start is interrupted".to_owned());
                self.end_start(index);
            }
            Started::Failed(reason) => {
                self.totals.note(Counted::StartsFailed);
                self.say_of(index, || format!("a start meets an error of the disk: {reason}"));
                self.end_start(index);
            }
            Started::Refused(reason) => {
                self.say_of(index, || format!("a start is refused: {reason}"));
                self.refused = Some(reason);
            }
        }
    }

    /// A node that has lost its disk asks to be taken in.
    pub(super) fn plan_rejoin(&mut self, node: usize, after_us: u64) {
        let life = self.nodes[node].life;
        self.plan(after_us, Item::Rejoin { node, life });
    }

    fn on_started(&mut self, node: usize, reports: &[StartReport]) {
        self.totals.note(Counted::Starts);
        for (shard, report) in reports.iter().enumerate() {
            let recovery = &report.recovery;
            self.say_of(node, || format!("shard {shard} starts: {recovery:?}, {} damaged, {} lost", report.damage, report.lost));
            if self.nodes[node].has_ended_in_order && recovery.cut_from.is_some() {
                self.failed = Some(format!("shard {shard} of node {} stopped in order, and its log ends in what is torn", node + 1));
            }
            self.totals.add(Counted::TailsCut, u64::from(recovery.cut_from.is_some()));
            self.totals.add(Counted::FootersRebuilt, u64::from(recovery.footers_rebuilt));
            self.totals.add(Counted::DamageFound, report.damage as u64);
            self.totals.add(Counted::BlocksLost, report.lost as u64);
            self.control_lost |= shard == 0 && report.lost > 0;
            self.totals.add(Counted::StaleBlocks, u64::from(self.nodes[node].disks[shard].disk.has_reused_files()));
        }
        let suspects: usize = (0..reports.len()).filter_map(|shard| self.shard(ShardAt { node, shard })).map(Shard::suspect_count).sum();
        self.totals.add(Counted::SuspectsFound, suspects as u64);
        for shard in 0..self.nodes[node].seats.len() {
            let at = ShardAt { node, shard };
            self.carry(at);
            self.end_of_turn(at);
        }
        self.tell_space();
    }

    /// A start that did not come through ends as a process does.
    fn end_start(&mut self, node: usize) {
        let power = self.nodes[node].disk_dice.chance(self.params.power_percent);
        let gone = self.end_process(node, power);
        assert!(gone.is_empty(), "nobody connects to a node that is starting");
    }

    /// The process ends, and another is started a while later. Answers the clients' connections that are gone.
    pub(super) fn end_process(&mut self, index: usize, power: bool) -> Vec<u64> {
        self.nodes[index].has_ended_in_order = false;
        if self.nodes[index].is_stopping {
            self.totals.note(Counted::OrderlyStopsCutShort);
        }
        self.totals.note(if power { Counted::PowerCuts } else { Counted::Kills });
        self.end_life(index, power)
    }

    /// The same, however it has come about.
    pub(super) fn end_life(&mut self, index: usize, power: bool) -> Vec<u64> {
        let node = &mut self.nodes[index];
        let tear = TEARS[node.disk_dice.below(TEARS.len() as u64) as usize];
        if index == CLIENTS_NODE {
            self.refused_for_space = false;
        }
        node.clock.on_end(self.now_us);
        node.seats.iter_mut().for_each(|seat| seat.core.count(&mut self.totals));
        self.peers_end(index, power);
        if !power {
            self.put_off_writes(index, tear);
        }
        let node = &mut self.nodes[index];
        node.pause.forget();
        (node.is_stopping, node.has_failing_disk) = (false, false);
        node.has_power = !power;
        node.end(power, tear);
        self.say_of(index, || format!("the process ends: power {power}, what is under way lands: {tear:?}"));
        let several = self.nodes.len() > 1;
        let node = &mut self.nodes[index];
        if self.params.clock_jumps && !self.quiet && node.disk_dice.chance(50) {
            self.totals.note(Counted::ClockJumps);
            node.clock.jump(node.disk_dice.below(200_000_000) as i64 - 100_000_000);
        }
        node.life += 1;
        let mut down_us = node.disk_dice.within(10_000..800_000);
        // The others go on without it, and are far ahead when it comes back.
        if several && !self.quiet && node.down_dice.chance(20) {
            down_us += node.down_dice.below(DOWN_US_MAX);
        }
        // Nor does every machine of a cluster come back when the power does: those that do elect leaders without it.
        if several && self.params.is_cluster && power && !self.quiet && node.down_dice.chance(30) {
            down_us += node.down_dice.within(2_500_000..5_000_000);
        }
        let life = node.life;
        self.plan(down_us, Item::Start { node: index, life });
        let gone: Vec<(u64, u64)> =
            self.conns.iter().filter(|(_, conn)| conn.at.node == index).map(|(conn, state)| (*conn, state.last_to_client_us)).collect();
        self.conns.retain(|_, conn| conn.at.node != index);
        if !self.params.is_cluster {
            return gone.into_iter().map(|(conn, _)| conn).collect();
        }
        // What has left arrives, and then the client learns that there is nobody any more.
        for (conn, last_us) in gone {
            self.plan(last_us.saturating_sub(self.now_us), Item::ServerCloses { conn });
        }
        Vec::new()
    }

    /// What the kernel has of a dying process lands when it likes, some of it after the process is gone.
    fn put_off_writes(&mut self, index: usize, tear: Tear) {
        for shard in 0..self.nodes[index].disks.len() {
            let node = &mut self.nodes[index];
            let numbers = node.disks[shard].disk.put_off_some(self.next_number, tear, &mut node.disk_dice);
            self.next_number = numbers.end;
            for number in numbers {
                let node = &mut self.nodes[index];
                let after = node.disk_dice.within(1000..LATE_US);
                node.lock_free_us = node.lock_free_us.max(self.now_us + after);
                self.plan(after, Item::Late { at: ShardAt { node: index, shard }, number });
            }
        }
    }
}
