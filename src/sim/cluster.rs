//! A run of a whole cluster: its nodes join, clients work under faults, then faults stop, everything comes to rest, and all replicas are compared; then once
//! more after a power cut of all nodes.
//!
//! What is checked all the time: replicas never differ in what is committed, and a term of a group has one leader (`replicas.rs`); whoever cannot hear a
//! majority acknowledges nothing; a level below `durable` is what the replicas have (`cluster/levels.rs`); who leads in the newest term knows every end that was told before it was asked. What clients know: `cluster/truth.rs`.
//!
//! Invariants: the same seed is the same run.
//!
//! Not here: what clients do (`cluster/clients.rs`), nodes and networks (`world.rs`, `peers.rs`), when faults come (`faults.rs`).

mod clients;
mod disks;
mod forming;
mod idempotent;
pub(super) mod latency;
mod levels;
mod operator;
mod rejoining;
mod restarting;
mod spaces;
mod truth;

use self::clients::{Claim, Clients, Reading};
use self::disks::Disks;
use self::restarting::Restarting;
use self::spaces::Spaces;
use super::faults::{Faults, Strike};
use super::node::ShardAt;
use super::replicas::{self, Ledger};
use super::totals::Event as Counted;
use super::world::{Item, Seen, World};
use super::{Check, Params};
use crate::ids::{GroupId, Term};
use crate::log::layout::BlockView;
use crate::mutants::Mutants;
use crate::shard::Shard;
use std::any::Any;
use std::collections::BTreeMap;

/// Events between two looks at who leads, and at what is committed.
const REIGN_EVERY: u64 = 4;
const LOOK_EVERY: u64 = 256;
/// Also the bound that turns a livelock into a failure.
const EVENTS_MAX: u64 = 20_000_000;
/// How long the cluster may take, once faults have stopped, to come to rest, and to answer everything.
const PATIENCE_US: u64 = 60_000_000;
/// Between two looks at whether it has.
const AGAIN_US: u64 = 50_000;
/// An answer is on its way to a client for so long at most.
const WAY_US: u64 = 400_000;
/// A lease ends so long after the last beat that was heard, by a clock that is slow; then the last answers that were given may be on their way.
const LEASE_US: u64 = 901_000 + WAY_US;

pub(super) struct ClusterRun {
    pub(super) world: World,
    faults: Faults,
    clients: Clients,
    disks: Disks,
    restarting: Restarting,
    spaces: Spaces,
    ledger: Ledger,
    /// Per group: the newest term that had a leader, who that was, and since when.
    reigns: BTreeMap<GroupId, (Term, usize, u64)>,
    /// Since when each node cannot exchange anything with any other one: of no group with other voters it can hear a majority then.
    alone_since_us: Vec<Option<u64>>,
    events: u64,
    /// With a log: who votes in each group, as each node was known to think last.
    members: BTreeMap<(usize, GroupId), String>,
}

impl World {
    /// The shard that runs there, if one does.
    pub(super) fn shard(&self, at: ShardAt) -> Option<&Shard> {
        let core: &dyn Any = &*self.nodes[at.node].seats.get(at.shard)?.core;
        core.downcast_ref()
    }

    /// All shards that run.
    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardAt, &Shard)> {
        let seats = self.nodes.iter().enumerate().flat_map(|(node, it)| (0..it.seats.len()).map(move |shard| ShardAt { node, shard }));
        seats.filter_map(|at| Some((at, self.shard(at)?)))
    }

    /// Processes that have ended.
    fn lives(&self) -> u64 {
        self.nodes.iter().map(|node| node.life).sum()
    }

    /// A block as it stands on the disk of a shard.
    fn stored_block(&self, at: ShardAt, shard: &Shard, block: crate::ids::BlockSeq) -> Option<Vec<u8>> {
        let place = shard.place_of(block)?;
        let (from, end) = (place.pos as usize, (place.pos + place.len) as usize);
        let disk = &self.nodes[at.node].disks[at.shard].disk;
        if disk.is_rotten(place.segment, from, end) {
            return None;
        }
        disk.segments().find_map(|bytes| {
            let bytes = bytes.get(from..end)?;
            let view = BlockView::parse(bytes)?;
            (view.header.block_seq == block && view.header.segment_uid == place.segment).then(|| bytes.to_vec())
        })
    }
}

impl ClusterRun {
    pub(super) fn new(seed: u64, params: Params, mutants: Mutants, log: bool) -> ClusterRun {
        let nodes = params.nodes;
        ClusterRun {
            clients: Clients::new(seed, &params),
            world: World::new(seed, params, mutants, log),
            faults: Faults::new(seed, nodes),
            disks: Disks::new(seed, nodes),
            restarting: Restarting::new(seed),
            spaces: Spaces::new(seed),
            ledger: Ledger::default(),
            reigns: BTreeMap::new(),
            alone_since_us: vec![None; nodes],
            events: 0,
            members: BTreeMap::new(),
        }
    }

    pub(super) fn whole(&mut self) -> Check {
        self.form()?;
        self.world.plan(1, Item::Operation);
        self.faults.plan_all(&mut self.world);
        self.plan_round();
        self.plan_fill();
        let begin_us = self.world.now_us;
        while self.world.now_us - begin_us < self.world.params.time_us
            || self.world.totals.get(Counted::Operations) < self.world.params.operations
        {
            self.advance(u64::MAX)?;
        }
        self.calm_down()?;
        self.check_liveness()?;
        self.come_to_rest()?;
        self.check_everything()?;
        // Once more after a power cut of all nodes: what was read is what is stored, and whoever leads next has it.
        (0..self.world.nodes.len()).for_each(|node| self.end_process(node, true));
        self.come_to_rest()?;
        self.check_everything()?;
        self.world.totals.add(Counted::EntriesCompared, self.ledger.compared());
        self.world.totals.add(Counted::LeadersElected, self.ledger.elections() as u64);
        self.world.totals.add(Counted::RecordsChecked, self.clients.truth.promised() as u64);
        Ok(())
    }

    /// One event. `false`: none is planned before `until_us`.
    pub(super) fn advance(&mut self, until_us: u64) -> Result<bool, String> {
        self.events += 1;
        if self.events > EVENTS_MAX {
            return Err(format!("{EVENTS_MAX} events and no end: a livelock\n{}", self.describe()));
        }
        let Some(seen) = self.world.next(until_us) else { return Ok(false) };
        if self.events.is_multiple_of(REIGN_EVERY) {
            self.tell_members();
            self.note_reigns()?;
        }
        match seen {
            Some(Seen::Frame { conn, frame }) if self.disks.rejoining.is_on(conn) => {
                self.on_asked(&frame);
                self.world.give_back(frame);
            }
            Some(Seen::Rejoin { node }) => self.rejoin(node),
            Some(Seen::Frame { conn, frame }) => {
                if let Err(what) = self.clients.on_frame(&mut self.world, conn, &frame) {
                    return Err(format!("{what}\n{}", self.describe()));
                }
                self.world.give_back(frame);
                self.judge_claims()?;
            }
            Some(Seen::Gone { conn }) => {
                self.disks.rejoining.on_gone(conn);
                self.clients.on_gone(&mut self.world, conn);
            }
            Some(Seen::Operation) if !self.world.quiet => {
                self.clients.operate(&mut self.world, self.disks.has_patient());
                let after = self.faults.dice[0].wait_us(self.world.params.operation_every_us);
                self.world.plan(after, Item::Operation);
            }
            Some(Seen::Fault { node, fault }) if !self.world.quiet => match self.faults.strike(&mut self.world, node, fault) {
                Strike::Done => {}
                Strike::Ends(ends) => {
                    // Whoever ends takes with it what was not looked at.
                    self.look()?;
                    ends.into_iter().for_each(|(node, power)| self.end_process(node, power));
                }
                Strike::Gone(conn) => self.clients.on_gone(&mut self.world, conn),
                Strike::Decay => {
                    self.rot();
                    self.faults.plan_next(&mut self.world, node, fault);
                }
                Strike::LoseDisk => self.lose_disk()?,
                Strike::Scene => self.play()?,
                Strike::Restart => self.restart(),
                Strike::Fill => self.fill(),
            },
            Some(Seen::Stopped { node }) => {
                self.look()?;
                self.ledger.forget(node);
                self.world.end_in_order(node);
            }
            Some(Seen::StopOverdue { node }) => {
                let stops = self.world.stop_in_words(node);
                return Err(format!("node {} does not stop: {stops}\n{}", node + 1, self.describe()));
            }
            _ => {}
        }
        if let Some(reason) = self.world.failed.take().or_else(|| self.world.refused.take()) {
            return Err(format!("{reason}\n{}", self.describe()));
        }
        self.end_failed()?;
        if self.events.is_multiple_of(LOOK_EVERY) {
            self.look()?;
        }
        Ok(true)
    }

    fn end_process(&mut self, node: usize, power: bool) {
        self.ledger.forget(node);
        for conn in self.world.end_process(node, power) {
            self.clients.on_gone(&mut self.world, conn);
        }
    }

    /// What is committed by now is compared.
    fn look(&mut self) -> Check {
        for (at, shard) in self.world.shards() {
            self.ledger.look((at.node, at.shard), shard, &|_, _| None).map_err(|what| format!("{what}\n{}", self.describe()))?;
        }
        Ok(())
    }

    /// Who leads what, and who is alone.
    fn note_reigns(&mut self) -> Check {
        let now_us = self.world.now_us;
        let mut new = Vec::new();
        for (at, shard) in self.world.shards() {
            if shard.suspect_count() > 0 && !self.disks.is_patient(at.node) {
                return Err(format!(
                    "node {} has lost what it had acknowledged, and its disk has kept what it was given\n{}",
                    at.node + 1,
                    self.describe()
                ));
            }
            for (group, term) in shard.led() {
                if let Err(what) = self.ledger.note_leader(group, term, at.node) {
                    return Err(format!("{what}\n{}", self.describe()));
                }
                let known = self.reigns.entry(group).or_default();
                if known.0 < term {
                    *known = (term, at.node, now_us);
                    new.push((at.node, group, term, shard.members_in_words(group)));
                }
            }
        }
        for (node, group, term, members) in new {
            self.world.say_of(node, || format!("it leads group {group} in term {term}: {members}"));
            self.faults.meet_leader(&mut self.world, node);
        }
        let count = self.world.nodes.len();
        for node in 0..count {
            let mut others = (0..count).filter(|other| *other != node);
            let reaches_one = others.any(|other| self.world.reaches(node, other) && self.world.reaches(other, node));
            match (reaches_one || count == 1, self.alone_since_us[node]) {
                (true, _) => self.alone_since_us[node] = None,
                (false, None) => self.alone_since_us[node] = Some(now_us),
                _ => {}
            }
        }
        Ok(())
    }

    /// For the log: who votes in each group, as each node knows it, whenever that changes.
    fn tell_members(&mut self) {
        if self.world.log.is_none() {
            return;
        }
        let of_shard = |(at, shard): (ShardAt, &Shard)| -> Vec<_> {
            shard.group_looks().iter().map(|look| (at.node, look.group, shard.members_in_words(look.group))).collect()
        };
        let found: Vec<_> = self.world.shards().flat_map(of_shard).collect();
        for (node, group, words) in found {
            if self.members.get(&(node, group)) != Some(&words) {
                self.world.say_of(node, || format!("group {group}: {words}"));
                self.members.insert((node, group), words);
            }
        }
    }

    /// What nodes have said, against what only the run knows.
    fn judge_claims(&mut self) -> Check {
        let claims = std::mem::take(&mut self.clients.claims);
        if !claims.is_empty() {
            self.note_reigns()?;
        }
        let now_us = self.world.now_us;
        for claim in claims {
            match claim {
                Claim::Took { node, uid } => {
                    let reign = self.group_of(node, uid).and_then(|group| self.reigns.get(&group));
                    if let Some((term, leader, since_us)) =
                        reign.filter(|(_, leader, since_us)| *leader != node && since_us + WAY_US < now_us)
                    {
                        let (node, leader, for_us) = (node + 1, leader + 1, now_us - since_us);
                        let what = format!(
                            "node {node} takes records of partition {uid} in, which node {leader} leads in term {term} for {for_us} us"
                        );
                        return Err(format!("{what}\n{}", self.describe()));
                    }
                    if let Some(since_us) = self.alone_since_us[node].filter(|since_us| since_us + LEASE_US < now_us) {
                        let (node, for_us) = (node + 1, now_us - since_us);
                        return Err(format!("node {node} takes records in, and has heard nobody for {for_us} us\n{}", self.describe()));
                    }
                }
                Claim::Reached(reached) => self.judge_reached(&reached)?,
                Claim::Damaged { node, uid, asked_us } => {
                    if !self.disks.may_tell_damage(node, asked_us) {
                        let node = node + 1;
                        return Err(format!(
                            "node {node} tells damage of partition {uid}, and its disk has kept what it was given\n{}",
                            self.describe()
                        ));
                    }
                }
                Claim::Behind { node, uid, asked_us, what } => {
                    // Who leads in the newest term, and did so when it was asked.
                    let reign = self.group_of(node, uid).and_then(|group| self.reigns.get(&group));
                    if reign.is_some_and(|(_, leader, since_us)| *leader == node && *since_us < asked_us) {
                        return Err(format!("partition {uid} on node {}, which leads: {what}\n{}", node + 1, self.describe()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The group of a partition, as a node knows it.
    fn group_of(&self, node: usize, uid: u64) -> Option<GroupId> {
        let mut shards = self.world.shards().filter(|(at, _)| at.node == node);
        shards.find_map(|(_, shard)| shard.group_of_partition(uid))
    }

    /// Faults stop.
    fn calm_down(&mut self) -> Check {
        self.world.quiet = true;
        self.world.nodes.iter_mut().for_each(|node| node.slow_until_us = 0);
        self.space_comes_back();
        self.world.heal_all();
        self.world.resume_all();
        self.calm_disks();
        self.come_to_rest()
    }

    /// Every replica has what its leader has, and every request is answered.
    fn come_to_rest(&mut self) -> Check {
        let limit = self.world.now_us + PATIENCE_US;
        loop {
            self.end_failed()?;
            // Who stands aside is not counted among those that could vote about the metadata.
            let is_nobody_aside = self.clients.settle_nodes(&mut self.world);
            let shards: Vec<_> = self.world.shards().map(|(at, shard)| (at.node, shard)).collect();
            let wanted = self.world.nodes.len() * usize::from(self.world.params.shards);
            let rest = replicas::is_at_rest(&shards);
            if rest.is_ok() && shards.len() == wanted && is_nobody_aside && self.clients.is_idle() && self.is_made_good() {
                return replicas::check_metadata(&shards);
            }
            if self.world.now_us >= limit {
                let (seconds, open) = (PATIENCE_US / 1_000_000, self.clients.unanswered());
                return Err(format!(
                    "{seconds} s after the last fault there is no rest: {rest:?}; unanswered: {open}; {}\n{}",
                    self.what_ails(),
                    self.describe()
                ));
            }
            self.go_on()?;
        }
    }

    fn go_on(&mut self) -> Check {
        let again = self.world.now_us + AGAIN_US;
        while self.advance(again)? {}
        self.world.now_us = again;
        Ok(())
    }

    /// Everything that is asked for is done: topics are there, what idempotent producers have sent is acknowledged, each partition takes records in.
    fn check_liveness(&mut self) -> Check {
        let limit = self.world.now_us + PATIENCE_US;
        self.clients.acked_by.clear();
        loop {
            let is_settled = self.clients.settle_topics(&mut self.world);
            let is_settled = self.clients.settle_marked(&mut self.world) && is_settled;
            let is_settled = self.clients.settle_nodes(&mut self.world) && self.moves_under_way() == 0 && is_settled;
            if self.clients.settle_partitions(&mut self.world) && is_settled && self.clients.is_idle() {
                return Ok(());
            }
            if self.world.now_us >= limit {
                let (open, moves) = (self.clients.unanswered(), self.moves_under_way());
                let what = format!("no fault is left, and not everything is acknowledged; {moves} moves under way; unanswered: {open}");
                return Err(format!("{what}\n{}", self.describe()));
            }
            self.go_on()?;
        }
    }

    /// Moves that have not ended, as the node knows that knows of most.
    fn moves_under_way(&self) -> usize {
        self.world.shards().map(|(_, shard)| shard.moves_under_way()).max().unwrap_or(0)
    }

    /// Every partition is read from its start to its end, and every replica is compared, with what stands on its disk.
    fn check_everything(&mut self) -> Check {
        for uid in self.clients.uids.clone() {
            let limit = self.world.now_us + PATIENCE_US;
            self.clients.reading = Some(Reading { uid, found: BTreeMap::new(), next: 0, is_end: false, is_asked: false });
            while !self.clients.reading.as_ref().is_some_and(|reading| reading.is_end) {
                if self.world.now_us >= limit {
                    return Err(format!("partition {uid} cannot be read to its end\n{}", self.describe()));
                }
                self.clients.read_on(&mut self.world);
                let again = self.world.now_us + 1000;
                while self.advance(again)? {}
                self.world.now_us = again;
            }
            let found = self.clients.reading.take().expect("read to its end").found;
            self.clients.truth.check_all(uid, &found).map_err(|what| format!("{what}\n{}", self.describe()))?;
        }
        (0..self.world.nodes.len()).for_each(|node| self.ledger.forget(node));
        for (at, shard) in self.world.shards() {
            self.ledger.look((at.node, at.shard), shard, &|shard, block| self.world.stored_block(at, shard, block))?;
        }
        Ok(())
    }

    /// Every shard that runs, in words.
    fn describe(&self) -> String {
        self.world.shards().map(|(_, shard)| shard.in_words()).collect()
    }
}
