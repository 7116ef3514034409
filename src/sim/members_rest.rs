//! Members of consumer groups at the end of a run: faults have stopped, some members are silent for good, and nobody comes or goes.
//!
//! Checked: within a time every partition that somebody reads is owned, and claimed, by one member; then nothing moves any more, and it is as even as
//! can be; a member that leaves takes nothing from those who stay, and one that joins gets what it has from the others, who get nothing (sticky); what
//! is described is what the members know. After a power cut every offset is still there.
//!
//! Not here: members before that (`members.rs`).

use super::Check;
use super::clients::Clients;
use super::groups::Owned;
use super::members::{Members, What};
use super::run::{PATIENCE_US, Run};
use super::totals::Event as Counted;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::group::Assignor;

/// How long after the last fault every session that was silent before is over: the longest timeout, and what a heartbeat may wait besides.
const SESSIONS_US: u64 = 6_000_000;
/// For so long nothing may move.
const STILL_US: u64 = 2_000_000;
/// How often is looked.
const LOOK_US: u64 = 100_000;

/// What each member of a group has, by its place in the list of members.
type Shares = BTreeMap<usize, Owned>;

impl Members {
    /// Some never come back; the others go on.
    fn begin_rest(&mut self, world: &mut World) {
        for at in 0..self.list.len() {
            let is_away = self.list[at].rests_until_us > world.now_us;
            self.list[at].is_dead = self.dice.chance(if is_away { 50 } else { 25 });
            self.list[at].rests_until_us = 0;
            // Damage can have taken the word of other topics, and the node goes on with those before.
            if let Some(member) = self.list[at].member.as_mut().filter(|_| self.groups.decayed) {
                member.topics_unsaid = true;
            }
            if self.list[at].is_dead && self.dice.chance(50) {
                self.hang_up(world, at);
            }
        }
    }

    /// Members of a group that are alive.
    fn living(&self, name: usize) -> impl Iterator<Item = usize> {
        (0..self.list.len()).filter(move |at| self.list[*at].name == name && !self.list[*at].is_dead)
    }

    fn shares(&self, name: usize) -> Shares {
        let share = |at: usize| {
            let parts = self.list[at].member.iter().flat_map(|member| &member.parts);
            (at, parts.map(|(uid, part)| (*uid, part.epoch)).collect())
        };
        self.living(name).map(share).collect()
    }

    /// Whose way to a settled state is not over, in words.
    fn unsettled(&self, clients: &Clients) -> Option<String> {
        (0..self.groups.names.len()).find_map(|name| self.unsettled_group(name, clients))
    }

    fn unsettled_group(&self, name: usize, clients: &Clients) -> Option<String> {
        let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
        let mut topics: BTreeSet<&str> = BTreeSet::new();
        for at in self.living(name) {
            let consumer = &self.list[at];
            let Some(member) = &consumer.member else { return Some(format!("{at} is no member of group {name}")) };
            let is_heartbeat = |what: &What| matches!(what, What::Heartbeat { epoch, .. } if *epoch == member.epoch);
            let waits = consumer.link.pending().all(|asked| is_heartbeat(&asked.what)) && consumer.link.pending().next().is_some();
            if member.news.is_some() || member.topics_unsaid || member.alone || !waits || member.parts.values().any(|part| !part.is_claimed)
            {
                return Some(format!(
                    "{at} in group {name} has {member:?}, and open are {:?}",
                    consumer.link.pending().collect::<Vec<_>>()
                ));
            }
            for uid in member.parts.keys() {
                if let Some(other) = owners.insert(*uid, at) {
                    return Some(format!("partition {uid} is owned by {at} and by {other}"));
                }
            }
            topics.extend(consumer.topics.iter().map(String::as_str));
        }
        if topics.is_empty() {
            return None;
        }
        let mut wanted = clients.live_topics().filter(|(topic, _)| topics.contains(topic)).flat_map(|(_, uids)| uids);
        let free = wanted.find(|uid| !owners.contains_key(uid))?;
        Some(format!("partition {free} is owned by nobody in group {name}: {owners:?}"))
    }

    /// Whether all living members of a group read the same topics.
    fn is_even_group(&self, name: usize) -> bool {
        self.living(name).all(|at| self.living(name).all(|other| self.list[at].topics == self.list[other].topics))
    }

    /// Members with the same topics differ by one partition at most.
    fn check_even(&self, name: usize) -> Check {
        let counts: Vec<usize> = self.shares(name).values().map(BTreeMap::len).collect();
        match (counts.iter().max(), counts.iter().min()) {
            (Some(most), Some(least)) if most - least > 1 => {
                Err(format!("group {name} reads the same topics, and has shares of {counts:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is done any more.
    fn stop(&mut self, world: &mut World) {
        self.is_running = false;
        (0..self.list.len()).for_each(|at| self.hang_up(world, at));
    }
}

impl Run {
    /// Members, once faults have stopped.
    pub(super) fn check_members(&mut self) -> Check {
        if self.world.refused.is_some() || self.members.list.is_empty() {
            return Ok(());
        }
        self.members.begin_rest(&mut self.world);
        let over_us = self.world.now_us + SESSIONS_US;
        while self.world.now_us < over_us {
            self.pass()?;
        }
        self.settle()?;
        self.check_still()?;
        for name in 0..self.members.groups.names.len() {
            self.check_moves(name)?;
        }
        self.describe_all()?;
        self.members.stop(&mut self.world);
        Ok(())
    }

    pub(super) fn pass(&mut self) -> Check {
        let again_us = self.world.now_us + LOOK_US;
        while self.advance(again_us)? {}
        self.world.now_us = again_us;
        self.end_failed();
        Ok(())
    }

    fn settle(&mut self) -> Check {
        let limit_us = self.world.now_us + PATIENCE_US;
        while let Some(unsettled) = self.members.unsettled(&self.clients) {
            if self.world.now_us >= limit_us {
                return Err(format!("no fault is left, and members do not get what they read: {unsettled}"));
            }
            self.pass()?;
        }
        Ok(())
    }

    fn check_still(&mut self) -> Check {
        let names = 0..self.members.groups.names.len();
        let before: Vec<Shares> = names.clone().map(|name| self.members.shares(name)).collect();
        let until_us = self.world.now_us + STILL_US;
        while self.world.now_us < until_us {
            self.pass()?;
        }
        self.settle()?;
        for name in names {
            let after = self.members.shares(name);
            if before[name] != after {
                return Err(format!("group {name}: nobody came or went, and {:?} became {after:?}", before[name]));
            }
            // Damage can have taken topics whose partitions are shared out still.
            if self.members.is_even_group(name) && !self.members.groups.decayed {
                self.members.check_even(name)?;
            }
        }
        Ok(())
    }

    /// One leaves, and one joins.
    fn check_moves(&mut self, name: usize) -> Check {
        let living: Vec<usize> = self.members.living(name).collect();
        if living.len() < 2 || !self.members.is_even_group(name) || self.members.groups.decayed {
            return Ok(());
        }
        let is_sticky = self.members.groups.names[name].assignor == Assignor::Sticky;
        let before = self.members.shares(name);
        let who = living[self.members.dice.below(living.len() as u64) as usize];
        self.members.leave(&mut self.world, who);
        self.members.list[who].is_dead = true;
        self.pass()?;
        self.settle()?;
        let without = self.members.shares(name);
        let keeps = |(at, share): (&usize, &Owned)| before[at].iter().all(|(uid, epoch)| share.get(uid) == Some(epoch));
        if is_sticky && !without.iter().all(keeps) {
            return Err(format!("group {name}: {who} left, and {before:?} became {without:?}"));
        }
        self.members.check_even(name)?;
        self.members.list[who].is_dead = false;
        self.pass()?;
        self.settle()?;
        let after = self.members.shares(name);
        let gains_nothing = |(at, share): (&usize, &Owned)| share.iter().all(|(uid, epoch)| without[at].get(uid) == Some(epoch));
        let others = after.iter().filter(|(at, _)| **at != who);
        if is_sticky && self.members.is_even_group(name) && !others.clone().all(gains_nothing) {
            return Err(format!("group {name}: {who} joined, and {without:?} became {after:?}"));
        }
        if self.members.is_even_group(name) { self.members.check_even(name) } else { Ok(()) }
    }

    /// Every living member asks what its group is like.
    fn describe_all(&mut self) -> Check {
        for at in 0..self.members.list.len() {
            if !self.members.list[at].is_dead {
                self.members.describe(&mut self.world, &self.clients, at);
            }
        }
        self.pass()?;
        self.settle()
    }

    /// After a power cut: every offset of every group that is there is asked for once more.
    pub(super) fn check_offsets(&mut self) -> Check {
        if self.world.refused.is_some() {
            return Ok(());
        }
        self.members.see(&self.world, &self.clients);
        let groups = &self.members.groups;
        let places =
            self.members.claims.places().into_iter().filter(|(group, uid)| groups.is_live(*group) && self.clients.uids.contains(uid));
        let places: Vec<_> = places.collect();
        let limit_us = self.world.now_us + PATIENCE_US;
        for (group, uid) in places {
            loop {
                if self.world.now_us >= limit_us {
                    return Err(format!("no fault is left, and the offset of group {group} in partition {uid} is not told"));
                }
                let is_open = self.members.list[0].link.is_open();
                if is_open {
                    let asked = self.world.totals.get(Counted::OffsetsFetched);
                    self.members.ask_offsets(&mut self.world, 0, group, &[(uid, 0)]);
                    self.wait_for_members(limit_us)?;
                    let is_told = self.world.totals.get(Counted::OffsetsFetched) > asked;
                    if is_told || !self.clients.uids.contains(&uid) || self.members.groups.control_lost {
                        break;
                    }
                } else {
                    self.members.connect(&mut self.world, 0);
                    self.wait_for_members(limit_us)?;
                }
                self.pass()?;
            }
        }
        self.members.stop(&mut self.world);
        Ok(())
    }

    /// Until the first member has its answers.
    fn wait_for_members(&mut self, limit_us: u64) -> Check {
        while self.members.list[0].link.is_waiting() && self.advance(limit_us)? {}
        Ok(())
    }
}
