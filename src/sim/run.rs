//! One run: safety under faults, then liveness once they stop, then everything is read back.
//!
//! Not here: what is checked on the way (`history.rs`).

use super::clients::Clients;
use super::cluster::ClusterRun;
use super::decay::Decay;
use super::faults::{Faults, Strike};
use super::members::Members;
use super::node::Disk;
use super::queue_work::Workers;
use super::totals::{Event as Counted, Totals};
use super::world::{CLIENTS_NODE, Item, Seen, World};
use super::{Check, Params, Profile};
use crate::mutants::Mutants;
use std::collections::BTreeMap;

/// How long a node may take, once faults have stopped, to answer everything, in simulated time.
pub(super) const PATIENCE_US: u64 = 30_000_000;
/// Time until produce is tried again where some was refused.
const AGAIN_US: u64 = 100_000;
/// Events between two looks at whether the run is over; also the bound that turns a livelock into a failure.
const EVENTS_MAX: u64 = 30_000_000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is wrong, if something is.
    pub violation: Option<String>,
    /// What happened.
    pub totals: Totals,
    /// Simulated time, in microseconds.
    pub simulated_us: u64,
    /// What happened when, if it was asked for.
    pub log: Vec<String>,
}

/// Runs a seed.
pub fn run(seed: u64, profile: Profile, log: bool) -> Outcome {
    run_with(seed, Params::draw(seed, profile), Mutants::default(), log)
}

/// Runs a seed with what it drew, or something else in its place, and with a bug switched on.
#[cfg(feature = "sim")]
pub fn run_as(seed: u64, params: Params, named: Option<&super::Named>, log: bool) -> Outcome {
    run_with(seed, params, named.map_or_else(Mutants::default, |named| Mutants::only(named.mutant)), log)
}

fn run_with(seed: u64, params: Params, mutants: Mutants, log: bool) -> Outcome {
    let (mut world, violation) = if params.is_cluster {
        let mut run = ClusterRun::new(seed, params, mutants, log);
        let violation = run.whole().err();
        (run.world, violation)
    } else {
        let mut run = Run::new(seed, params, mutants, log);
        let violation = run.whole().err();
        (run.world, violation)
    };
    let log = world.log.take().unwrap_or_default();
    Outcome { violation, totals: world.totals.clone(), simulated_us: world.now_us, log }
}

pub(super) struct Run {
    pub(super) world: World,
    pub(super) clients: Clients,
    pub(super) members: Members,
    pub(super) workers: Workers,
    faults: Faults,
    events: u64,
}

impl Run {
    pub(super) fn new(seed: u64, params: Params, mutants: Mutants, log: bool) -> Run {
        let (clients, members) = (Clients::new(seed, &params), Members::new(seed, &params));
        let workers = Workers::new(seed, &params);
        let mut world = World::new(seed, params, mutants, log);
        if world.params.decay_every_us > 0 {
            let disks = world.nodes.iter_mut().flat_map(|node| &mut node.disks);
            disks.for_each(|disk| disk.disk.journal = Some(Default::default()));
        }
        let faults = Faults::new(seed, world.nodes.len());
        Run { world, clients, members, workers, faults, events: 0 }
    }

    /// Clients and faults, until time and operations are over, or a start is refused.
    pub(super) fn until_done(&mut self) -> Check {
        (0..self.world.nodes.len()).for_each(|node| self.world.start(node));
        if let Some(reason) = &self.world.refused {
            return Err(format!("the first start is refused: {reason}"));
        }
        self.world.plan(1, Item::Operation);
        self.world.plan(1, Item::MemberStep);
        self.world.plan(1, Item::QueueStep);
        self.faults.plan_all(&mut self.world);
        while self.world.now_us < self.world.params.time_us || self.world.totals.get(Counted::Operations) < self.world.params.operations {
            if !self.advance(u64::MAX)? {
                return Err("nothing is planned any more".to_owned());
            }
            if self.world.refused.is_some() {
                return self.refused();
            }
        }
        Ok(())
    }

    pub(super) fn whole(&mut self) -> Check {
        self.until_done()?;
        if self.world.refused.is_some() {
            return Ok(());
        }
        self.calm_down()?;
        self.check_liveness()?;
        self.check_members()?;
        self.check_queues()?;
        self.check_everything()?;
        // Once more after a power cut of all nodes: what was read is what is stored.
        (0..self.world.nodes.len()).for_each(|node| self.end_process(node, true));
        self.calm_down()?;
        self.check_offsets()?;
        self.check_queues_again()?;
        self.check_everything()?;
        for Disk { disk, .. } in self.world.nodes.iter().flat_map(|node| &node.disks) {
            self.world.totals.add(Counted::FilesReused, disk.reuses);
            self.world.totals.add(Counted::FilesCut, disk.cuts);
            self.world.totals.add(Counted::CutsUndone, disk.cuts_undone);
            self.world.totals.add(Counted::NamesExchanged, disk.exchanges);
        }
        Ok(())
    }

    /// One event. `false`: none is planned before `until_us`.
    pub(super) fn advance(&mut self, until_us: u64) -> Result<bool, String> {
        self.events += 1;
        if self.events > EVENTS_MAX {
            return Err(format!("{EVENTS_MAX} events and no end: a livelock"));
        }
        let read_errors = self.world.totals.get(Counted::ReadErrors);
        let Some(seen) = self.world.next(until_us) else { return Ok(false) };
        self.clients.history.read_failed |= self.world.totals.get(Counted::ReadErrors) > read_errors;
        if self.world.totals.get(Counted::DamageFound) > 0 && !self.clients.history.decayed {
            return Err("a start reports damage, and the disk kept everything".to_owned());
        }
        match seen {
            Some(Seen::Frame { conn, frame }) => {
                if self.members.has(conn) {
                    self.members.on_frame(&mut self.world, &mut self.clients, conn, &frame)?;
                } else if self.workers.has(conn) {
                    self.workers.on_frame(&mut self.world, &self.clients, conn, &frame)?;
                } else {
                    self.clients.on_frame(&mut self.world, conn, &frame)?;
                }
                self.world.give_back(frame);
            }
            Some(Seen::Gone { conn }) => self.on_gone(conn),
            Some(Seen::MemberStep) if self.members.is_running => {
                self.members.tick(&mut self.world, &self.clients);
                let after = self.members.dice.wait_us(self.world.params.member_every_us);
                self.world.plan(after, Item::MemberStep);
            }
            Some(Seen::QueueStep) if self.workers.is_running && !self.workers.is_draining => {
                self.workers.tick(&mut self.world, &self.clients.history);
                let after = self.workers.dice.wait_us(self.world.params.consumer_every_us);
                self.world.plan(after, Item::QueueStep);
            }
            Some(Seen::Operation) if !self.world.quiet => {
                self.clients.operate(&mut self.world);
                let after = self.faults.dice[CLIENTS_NODE].wait_us(self.world.params.operation_every_us);
                self.world.plan(after, Item::Operation);
            }
            Some(Seen::Fault { node, fault }) if !self.world.quiet => self.fault(node, fault),
            _ => {}
        }
        // A shard has stopped after an error, so the node ends and is started again, as an operator would.
        for node in 0..self.world.nodes.len() {
            if self.world.nodes[node].has_failed_shard() && self.faults.dice[node].once_in(50) {
                self.end_process(node, false);
            }
        }
        Ok(true)
    }

    fn fault(&mut self, node: usize, fault: u8) {
        match self.faults.strike(&mut self.world, node, fault) {
            Strike::Done => {}
            Strike::Ends(ends) => ends.into_iter().for_each(|(node, power)| self.end_process(node, power)),
            Strike::Gone(conn) => self.on_gone(conn),
            Strike::LoseDisk | Strike::Scene | Strike::Restart | Strike::Fill => unreachable!("of clusters"),
            Strike::Decay => {
                self.decay(node);
                self.faults.plan_next(&mut self.world, node, fault);
            }
        }
    }

    fn decay(&mut self, node: usize) {
        let dice = &mut self.faults.dice[node];
        let disks = &mut self.world.nodes[node].disks;
        let shard = dice.below(disks.len() as u64) as usize;
        let Some((what, place)) = disks[shard].disk.decay(dice) else { return };
        self.clients.history.decayed = true;
        self.world.say_of(node, || format!("shard {shard}: {what:?} in {place}"));
        self.world.totals.note(match what {
            Decay::Flipped => Counted::BitsFlipped,
            Decay::Lost => Counted::WritesLost,
            Decay::Misplaced => Counted::WritesMisplaced,
            Decay::Unreadable => Counted::PagesUnreadable,
        });
    }

    pub(super) fn end_process(&mut self, node: usize, power: bool) {
        if node == CLIENTS_NODE {
            self.clients.history.on_process_end();
            if self.clients.history.decayed {
                self.clients.begin_producers_anew();
                self.members.begin_anew();
            }
        }
        for conn in self.world.end_process(node, power) {
            self.on_gone(conn);
        }
    }

    /// Ends each process of which a shard has failed, as an operator would.
    pub(super) fn end_failed(&mut self) {
        for node in 0..self.world.nodes.len() {
            if self.world.nodes[node].has_failed_shard() {
                self.end_process(node, false);
            }
        }
    }

    /// A connection is gone: whose it was is told.
    fn on_gone(&mut self, conn: u64) {
        self.clients.on_gone(&mut self.world, conn);
        self.members.on_gone(&mut self.world, conn);
        self.workers.on_gone(&mut self.world, conn);
    }

    /// A start was refused: right only where the disk had decayed.
    fn refused(&mut self) -> Check {
        let reason = self.world.refused.clone().unwrap_or_default();
        if !self.clients.history.decayed {
            return Err(format!("a start is refused and the disk kept everything: {reason}"));
        }
        self.world.totals.note(Counted::StartsRefused);
        Ok(())
    }

    /// Faults stop; everything comes to rest, with all nodes up and every request answered.
    fn calm_down(&mut self) -> Check {
        self.world.quiet = true;
        for node in &mut self.world.nodes {
            (node.slow_until_us, node.space.full_until_us) = (0, 0);
        }
        self.world.heal_all();
        self.world.resume_all();
        self.world.tell_space();
        let limit = self.world.now_us + PATIENCE_US;
        loop {
            if self.world.refused.is_some() {
                return self.refused();
            }
            self.end_failed();
            if self.world.all_serve() && self.clients.is_idle() {
                self.clients.connect_all(&mut self.world);
                if self.clients.is_idle() {
                    return Ok(());
                }
            }
            if !self.advance(limit)? {
                let (up, open) = (self.world.all_serve(), self.clients.unanswered());
                return Err(format!("{} s after the last fault something is unanswered (serving: {up}): {open}", PATIENCE_US / 1_000_000));
            }
        }
    }

    fn check_liveness(&mut self) -> Check {
        if self.world.refused.is_some() {
            return Ok(());
        }
        let limit = self.world.now_us + PATIENCE_US;
        loop {
            // A frame whose rest never came costs its connection seconds later.
            self.clients.connect_all(&mut self.world);
            while !self.clients.is_idle() {
                if !self.advance(limit)? {
                    return Err(format!("no fault is left, and a hello is not answered: {}", self.clients.unanswered()));
                }
            }
            self.clients.durable_acks = 0;
            let wanted = self.clients.produce_to_all(&mut self.world);
            while !self.clients.is_idle() {
                if !self.advance(limit)? {
                    return Err(format!("no fault is left, and a produce is not answered: {}", self.clients.unanswered()));
                }
            }
            let acks = self.clients.durable_acks;
            if acks == wanted {
                self.check_marked()?;
                return self.check_streams();
            }
            // Where the disk was full, the next segment takes a moment to be made.
            let again = self.world.now_us + AGAIN_US;
            if again > limit {
                return Err(format!("no fault is left, and only {acks} of {wanted} produces were acknowledged"));
            }
            while self.advance(again)? {}
        }
    }

    /// Idempotent producers get an answer that counts for everything they have sent.
    fn check_marked(&mut self) -> Check {
        let limit = self.world.now_us + PATIENCE_US;
        while self.clients.settle_marked(&mut self.world) {
            if self.world.now_us >= limit {
                return Err("no fault is left, and idempotent producers do not get what they sent acknowledged".to_owned());
            }
            let again = self.world.now_us + AGAIN_US;
            while self.advance(again)? {}
            self.world.now_us = again;
        }
        Ok(())
    }

    /// Streams that have credit deliver all there is; then they end when they are told to.
    fn check_streams(&mut self) -> Check {
        let limit = self.world.now_us + PATIENCE_US;
        while let Some(behind) = self.clients.stream_behind() {
            if self.world.now_us >= limit {
                return Err(format!("no fault is left, and a stream with credit does not deliver: {behind}"));
            }
            self.clients.feed_streams(&mut self.world);
            let again = self.world.now_us + AGAIN_US;
            while self.advance(again)? {}
            self.world.now_us = again;
        }
        while !self.clients.cancel_streams(&mut self.world) || !self.clients.is_idle() {
            if !self.advance(limit)? {
                return Err(format!("a cancelled stream does not end: {}", self.clients.unanswered()));
            }
        }
        Ok(())
    }

    /// Every partition is read from its start to its end, and compared.
    fn check_everything(&mut self) -> Check {
        if self.world.refused.is_some() {
            return Ok(());
        }
        for uid in self.clients.partitions() {
            let mut found = BTreeMap::new();
            let mut offset = 0;
            loop {
                self.clients.begin_reading(&mut self.world, uid, offset);
                let limit = self.world.now_us + PATIENCE_US;
                let frame = loop {
                    match self.world.next(limit) {
                        None => return Err(format!("reading partition {uid} at {offset} is not answered")),
                        Some(Some(Seen::Frame { frame, .. })) => break frame,
                        Some(_) => {}
                    }
                };
                let (next, is_end) = self.clients.take_fetched(&mut self.world, &frame, &mut found)?;
                if is_end {
                    break;
                }
                self.events += 1;
                if self.events > EVENTS_MAX {
                    return Err(format!("reading partition {uid} makes no progress at {offset}"));
                }
                offset = next;
            }
            let checked = self.clients.history.check_complete(uid, &found)?;
            self.world.totals.add(Counted::RecordsChecked, checked);
        }
        let known = self.clients.history.live_partitions();
        assert_eq!(known.len(), self.clients.partitions().len(), "the history knows the partitions that are there");
        Ok(())
    }
}
