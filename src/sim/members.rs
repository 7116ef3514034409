//! Members of consumer groups: they join, take what they are given, read on from the committed offset, commit as they go, and give up what they are
//! told to. Some leave, some restart, some fall silent until they are dropped and go on as if nothing had happened, some share an instance name,
//! some groups are deleted, offsets are sought and forgotten, and commits of earlier owners come late.
//!
//! A member has a connection of its own (`link.rs`), to any shard. It does one thing at a tick, whatever is due or at random.
//!
//! Not here: what answers mean (`member_answers.rs`), what follows from them (`groups.rs`, `claims.rs`), the end of a run (`members_rest.rs`).

use super::claims::{Before, Claims, text_of};
use super::clients::Clients;
use super::groups::{Groups, Name, Owned};
use super::history::Ends;
use super::link::Link;
use super::totals::Event as Counted;
use super::world::World;
use super::{Dice, Params};
use std::collections::BTreeMap;
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchRequestWriter};
use tramline_wire::group::{
    Assignor, CommitOffsetsRequest, DeleteGroupRequest, DescribeGroupRequest, FetchOffsetsRequest, FindGroupFlags, FindGroupRequest,
    HeartbeatFlags, HeartbeatGroupRequest, JoinFlags, JoinGroupRequest, LeaveFlags, LeaveGroupRequest, ListGroupsRequest, OFFSET_NONE,
    OffsetAsk, OffsetCommit,
};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;

/// Requests of one member under way at most.
const WINDOW: usize = 5;
/// Earlier assignments that a member remembers, to commit with them when it must not.
const OLD_MAX: usize = 8;
/// Partitions in one commit or question.
const ENTRIES_MAX: usize = 3;

/// A request, and what was known when it was sent.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) sent_us: u64,
    /// The group that it names, 0 for none.
    pub(super) group: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Find,
    Join {
        number: usize,
        top_id: u64,
        alone: bool,
    },
    /// `topics` counts the changes of the topics that it tells, if it does.
    Heartbeat {
        id: u64,
        epoch: u64,
        topics: Option<u64>,
    },
    Leave {
        id: u64,
        keeps: bool,
    },
    Commit {
        entries: Vec<(Before, usize)>,
    },
    Offsets {
        entries: Vec<Before>,
    },
    Fetch {
        partition: u64,
        offset: u64,
        floor: Ends,
    },
    List,
    Describe {
        entries: Vec<Before>,
    },
    Delete,
}

/// A partition that a member owns.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) epoch: u64,
    pub(super) is_claimed: bool,
    /// The next offset to read.
    pub(super) position: u64,
    /// What it has sent, or found, as committed.
    pub(super) committed: Option<u64>,
}

/// What a client knows of its membership.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) id: u64,
    /// The epoch of the list in force.
    pub(super) epoch: u64,
    pub(super) parts: BTreeMap<u64, Part>,
    /// A newer list, not in force yet.
    pub(super) news: Option<(u64, Owned)>,
    pub(super) alone: bool,
    /// Its topics are others than it has told.
    pub(super) topics_unsaid: bool,
}

/// A client of one group.
#[derive(Default)]
pub(super) struct Consumer {
    pub(super) link: Link<Asked>,
    /// Number of the group's name.
    pub(super) name: usize,
    pub(super) instance: String,
    pub(super) group: Option<u64>,
    pub(super) topics: Vec<String>,
    /// How often they have changed.
    pub(super) changes: u64,
    pub(super) member: Option<Membership>,
    /// Silent, or stopped, until then.
    pub(super) rests_until_us: u64,
    /// It never comes back.
    pub(super) is_dead: bool,
    /// It has left to delete its group.
    deletes: bool,
    /// Assignments that are over: group, partition, epoch and offset.
    pub(super) old: Vec<(u64, u64, u64, u64)>,
}

/// All of them.
pub(super) struct Members {
    pub(super) list: Vec<Consumer>,
    pub(super) by_conn: BTreeMap<u64, usize>,
    pub(super) groups: Groups,
    pub(super) claims: Claims,
    pub(super) dice: Dice,
    /// Whether anything is done at a tick.
    pub(super) is_running: bool,
}

impl Members {
    pub(super) fn new(seed: u64, params: &Params) -> Members {
        let mut dice = Dice::stream(seed, "members");
        let mut groups = Groups::default();
        let mut list = Vec::new();
        // Two to four members in the first group, one or two in the others; names of topics are those that `clients.rs` gives.
        while (list.len() as u64) < params.members {
            let name = groups.names.len();
            let assignor = if dice.chance(60) { Assignor::Sticky } else { Assignor::Uniform };
            let timeout_us = dice.within(10..40) * 100_000;
            let topics = (0..1 + dice.below(3)).map(|number| format!("topic-{number}")).collect();
            groups.names.push(Name { name: format!("group-{name}"), assignor, timeout_us, topics });
            let count = if name == 0 { dice.within(2..5) } else { dice.within(1..3) };
            for number in 0..count.min(params.members - list.len() as u64) {
                // Some are static, and sometimes two processes have one name.
                let instance = if dice.chance(40) { format!("static-{}", number / 2 * 2) } else { String::new() };
                list.push(Consumer { name, instance, ..Consumer::default() });
            }
        }
        let is_running = !list.is_empty();
        Members { list, by_conn: BTreeMap::new(), groups, claims: Claims::default(), dice, is_running }
    }

    pub(super) fn has(&self, conn: u64) -> bool {
        self.by_conn.contains_key(&conn)
    }

    pub(super) fn on_gone(&mut self, world: &mut World, conn: u64) {
        let Some(at) = self.by_conn.remove(&conn) else { return };
        let link = &mut self.list[at].link;
        for asked in link.pending() {
            if let What::Join { number, .. } = asked.what {
                // What was on its way between two shards is there within a moment, or not at all.
                self.groups.on_join_over(asked.group, number, world.now_us + 1000);
            }
        }
        let unknown = link.on_gone();
        world.totals.add(Counted::RequestsUnknown, unknown);
    }

    /// After damage: groups may be unknown, and their uids others'. Who was a member finds its group anew.
    pub(super) fn begin_anew(&mut self) {
        self.list.iter_mut().for_each(|consumer| (consumer.group, consumer.member) = (None, None));
    }

    /// The client closes its connection.
    pub(super) fn hang_up(&mut self, world: &mut World, at: usize) {
        if let Some(conn) = self.list[at].link.conn() {
            world.close(conn);
            self.on_gone(world, conn);
        }
    }

    /// What happened to the node: damage that its disk was made to do, and starts.
    pub(super) fn see(&mut self, world: &World, clients: &Clients) {
        let decayed = clients.history.decayed;
        (self.groups.decayed, self.claims.decayed) = (decayed, decayed);
        (self.groups.control_lost, self.groups.life) = (world.control_lost, world.life());
    }

    // --- what is done at a tick -------------------------------------------------------------------------------------------------

    /// One thing of a random member.
    pub(super) fn tick(&mut self, world: &mut World, clients: &Clients) {
        let at = self.dice.below(self.list.len() as u64) as usize;
        let consumer = &self.list[at];
        if consumer.is_dead || consumer.rests_until_us > world.now_us {
            return;
        }
        if consumer.link.conn().is_none() {
            return self.connect(world, at);
        }
        if !consumer.link.is_open() || consumer.link.pending().count() >= WINDOW {
            return;
        }
        if consumer.rests_until_us > 0 {
            self.list[at].rests_until_us = 0;
            return self.go_on_as_if(world, at);
        }
        world.totals.note(Counted::MemberSteps);
        if !world.quiet && self.stray(world, clients, at) {
            return;
        }
        let is_asked = |what: fn(&What) -> bool| self.list[at].link.pending().any(|asked| what(&asked.what));
        match (&self.list[at].group, &self.list[at].member) {
            (None, _) if !is_asked(|what| matches!(what, What::Find)) => self.find(world, at),
            (Some(_), None) if !is_asked(|what| matches!(what, What::Join { .. } | What::Leave { .. } | What::Delete)) => {
                if self.list[at].deletes && !world.quiet { self.delete_group(world, at) } else { self.join(world, clients, at) }
            }
            (Some(_), Some(_)) => self.be_member(world, clients, at),
            _ => {}
        }
    }

    pub(super) fn connect(&mut self, world: &mut World, at: usize) {
        let shard = self.dice.below(u64::from(world.params.shards)) as usize;
        if let Some(conn) = self.list[at].link.connect(world, shard) {
            self.by_conn.insert(conn, at);
        }
    }

    /// A member that was silent does not know what became of it: it commits what it has read.
    fn go_on_as_if(&mut self, world: &mut World, at: usize) {
        let Some(member) = &self.list[at].member else { return };
        let parts: Vec<u64> = member.parts.iter().filter(|(_, part)| part.is_claimed).map(|(uid, _)| *uid).take(ENTRIES_MAX).collect();
        self.commit_parts(world, at, &parts);
    }

    /// Something that is not on a member's way; whether there was anything.
    fn stray(&mut self, world: &mut World, clients: &Clients, at: usize) -> bool {
        let timeout_us = self.groups.names[self.list[at].name].timeout_us;
        match self.dice.below(1000) {
            0..=4 => {
                // Some come back in time.
                let silent_us = timeout_us * self.dice.within(3..26) / 10;
                self.list[at].rests_until_us = world.now_us + silent_us;
                if self.dice.chance(30) {
                    self.hang_up(world, at);
                }
                world.say(|| format!("member {at} is silent for {silent_us} us"));
            }
            5..=7 => self.leave(world, at),
            8..=9 => {
                // The client ends and is started again: it has forgotten everything.
                self.hang_up(world, at);
                self.remember_old(at);
                (self.list[at].member, self.list[at].group) = (None, None);
            }
            10..=12 => self.delete_group(world, at),
            13..=19 => self.describe(world, clients, at),
            20..=44 => return self.commit_old(world, clients, at),
            45..=49 => self.change_topics(clients, at),
            50..=54 => return self.look(world, clients, at),
            _ => return false,
        }
        true
    }

    fn send(&mut self, world: &mut World, at: usize, kind: Kind, group: u64, what: What, meta: impl FnOnce(&mut Vec<u8>)) {
        let asked = Asked { sent_us: world.now_us, group, what };
        self.list[at].link.send(world, kind, asked, meta);
    }

    fn find(&mut self, world: &mut World, at: usize) {
        let name = self.groups.names[self.list[at].name].name.clone();
        let request = FindGroupRequest { name: &name, flags: FindGroupFlags::CREATE };
        self.send(world, at, Kind::FindGroup, 0, What::Find, |out| request.encode(out));
    }

    fn join(&mut self, world: &mut World, clients: &Clients, at: usize) {
        let Some(group) = self.list[at].group else { return };
        self.choose_topics(clients, at, !world.quiet);
        let is_only_one = self.list.iter().filter(|other| other.name == self.list[at].name).count() == 1;
        let alone = is_only_one && !world.quiet && self.dice.chance(30);
        let name = &self.groups.names[self.list[at].name];
        let (assignor, session_timeout_ms) = (name.assignor, (name.timeout_us / 1000) as u32);
        let (instance, topics) = (self.list[at].instance.clone(), self.list[at].topics.clone());
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let top_id = self.groups.top_id(group);
        let number = self.groups.on_join_sent(group, &instance, alone, world.now_us);
        let client = format!("member {at}");
        let request = JoinGroupRequest {
            group_uid: group,
            flags: if alone { JoinFlags::ALONE } else { JoinFlags::default() },
            assignor,
            session_timeout_ms,
            instance: &instance,
            client: &client,
            topics: List::of(&topics),
        };
        self.send(world, at, Kind::JoinGroup, group, What::Join { number, top_id, alone }, |out| request.encode(out));
    }

    /// Mostly what all of the group read; else some that are there, and one that may come.
    fn choose_topics(&mut self, clients: &Clients, at: usize, is_wild: bool) {
        let mut topics = self.groups.names[self.list[at].name].topics.clone();
        if is_wild && self.dice.chance(30) {
            topics.extend(clients.live_topics().map(|(name, _)| name.to_owned()).filter(|_| self.dice.chance(50)));
            topics.push(format!("topic-{}", self.dice.below(40)));
            topics.sort_unstable();
            topics.dedup();
        }
        (self.list[at].topics, self.list[at].changes) = (topics, self.list[at].changes + 1);
    }

    fn change_topics(&mut self, clients: &Clients, at: usize) {
        if self.list[at].member.is_some() {
            self.choose_topics(clients, at, true);
            self.list[at].member.as_mut().expect("looked at").topics_unsaid = true;
        }
    }

    pub(super) fn leave(&mut self, world: &mut World, at: usize) {
        self.remember_old(at);
        let (Some(group), Some(member)) = (self.list[at].group, self.list[at].member.take()) else { return };
        let instance = self.list[at].instance.clone();
        let keeps = !instance.is_empty() && !world.quiet && self.dice.chance(50);
        let flags = if keeps { LeaveFlags::KEEP } else { LeaveFlags::default() };
        self.groups.on_leave_sent(group, member.id);
        world.totals.note(Counted::MembersLeft);
        let request = LeaveGroupRequest { group_uid: group, member_id: member.id, flags, instance: &instance };
        self.send(world, at, Kind::LeaveGroup, group, What::Leave { id: member.id, keeps }, |out| request.encode(out));
    }

    /// What it owned it owns no more, and may not know it.
    pub(super) fn remember_old(&mut self, at: usize) {
        let consumer = &mut self.list[at];
        let (Some(group), Some(member)) = (consumer.group, &consumer.member) else { return };
        consumer.old.extend(member.parts.iter().map(|(uid, part)| (group, *uid, part.epoch, part.position)));
        let surplus = consumer.old.len().saturating_sub(OLD_MAX);
        consumer.old.drain(..surplus);
    }

    /// A group can be deleted when it has no members, so a member leaves first, and asks with its next step.
    fn delete_group(&mut self, world: &mut World, at: usize) {
        self.list[at].deletes = self.list[at].member.is_some();
        if self.list[at].deletes {
            return self.leave(world, at);
        }
        let Some(group) = self.list[at].group else { return };
        let name = self.list[at].name;
        self.groups.on_delete_sent(name);
        world.say(|| format!("member {at} deletes its group, {group}"));
        let text = self.groups.names[name].name.clone();
        self.send(world, at, Kind::DeleteGroup, group, What::Delete, |out| DeleteGroupRequest { name: &text }.encode(out));
    }

    pub(super) fn describe(&mut self, world: &mut World, clients: &Clients, at: usize) {
        let Some(group) = self.list[at].group else { return };
        if self.dice.chance(40) {
            return self.send(world, at, Kind::ListGroups, 0, What::List, |out| ListGroupsRequest {}.encode(out));
        }
        let of_group = self.claims.places().into_iter().filter(|(of, uid)| *of == group && clients.uids.contains(uid));
        let entries = of_group.collect::<Vec<_>>().into_iter().map(|place| self.claims.before(place, 0)).collect();
        let name = self.groups.names[self.list[at].name].name.clone();
        self.send(world, at, Kind::DescribeGroup, group, What::Describe { entries }, |out| {
            DescribeGroupRequest { name: &name, from_topic: "", from_partition: 0 }.encode(out)
        });
    }

    // --- a member's own -----------------------------------------------------------------------------------------------------------

    fn be_member(&mut self, world: &mut World, clients: &Clients, at: usize) {
        let consumer = &self.list[at];
        let member = consumer.member.as_ref().expect("asked by the caller");
        if member.alone && (world.quiet || self.dice.once_in(30)) {
            return self.leave(world, at);
        }
        let said = |asked: &Asked| matches!(asked.what, What::Heartbeat { epoch, topics, .. } if epoch == member.epoch && (topics == Some(consumer.changes) || !member.topics_unsaid));
        // Until a list is in force it goes on with the one before, for a while.
        let has_news = member.news.is_some();
        if has_news && (world.quiet || self.dice.chance(60)) {
            return self.put_in_force(world, at);
        }
        if !consumer.link.pending().any(said) && (!has_news || self.dice.chance(20)) {
            return self.heartbeat(world, at);
        }
        let count = member.parts.len() as u64;
        if count == 0 {
            return;
        }
        let uid = *member.parts.keys().nth(self.dice.below(count) as usize).expect("counted");
        if !member.parts[&uid].is_claimed {
            return self.claim(world, at);
        }
        match self.dice.below(100) {
            0..=44 => self.fetch(world, clients, at, uid),
            45..=54 => {
                // Its right: it begins again somewhere before.
                let position = self.dice.below(member.parts[&uid].position + 1);
                if !world.quiet {
                    self.part_mut(at, uid).position = position;
                }
            }
            55..=57 if !world.quiet => self.forget(world, at, uid),
            _ => {
                let member = self.list[at].member.as_ref().expect("asked by the caller");
                let is_behind = |part: &Part| part.is_claimed && part.committed != Some(part.position);
                let mut parts: Vec<u64> = member.parts.iter().filter(|(_, part)| is_behind(part)).map(|(uid, _)| *uid).collect();
                let count = if self.dice.chance(50) { 1 } else { ENTRIES_MAX };
                while parts.len() > count {
                    parts.swap_remove(self.dice.below(parts.len() as u64) as usize);
                }
                self.commit_parts(world, at, &parts);
            }
        }
    }

    pub(super) fn part_mut(&mut self, at: usize, uid: u64) -> &mut Part {
        self.list[at].member.as_mut().and_then(|member| member.parts.get_mut(&uid)).expect("a partition of the member")
    }

    pub(super) fn heartbeat(&mut self, world: &mut World, at: usize) {
        let wait_ms = self.dice.below(1500) as u32;
        let consumer = &self.list[at];
        let (Some(group), Some(member)) = (consumer.group, &consumer.member) else { return };
        let (id, epoch, says_topics) = (member.id, member.epoch, member.topics_unsaid);
        let (instance, topics) = (consumer.instance.clone(), consumer.topics.clone());
        let topics: Vec<&str> = topics.iter().map(String::as_str).filter(|_| says_topics).collect();
        let request = HeartbeatGroupRequest {
            group_uid: group,
            member_id: id,
            epoch,
            wait_ms,
            flags: if says_topics { HeartbeatFlags::TOPICS } else { HeartbeatFlags::default() },
            instance: &instance,
            topics: List::of(&topics),
        };
        let what = What::Heartbeat { id, epoch, topics: says_topics.then_some(self.list[at].changes) };
        self.send(world, at, Kind::HeartbeatGroup, group, what, |out| request.encode(out));
    }

    /// The newest list holds from now on; the next heartbeat says so.
    fn put_in_force(&mut self, world: &mut World, at: usize) {
        let consumer = &mut self.list[at];
        let (Some(group), Some(member)) = (consumer.group, consumer.member.as_mut()) else { return };
        let Some((epoch, owned)) = member.news.take() else { return };
        let (parts, old) = (&mut member.parts, &mut consumer.old);
        parts.retain(|uid, part| {
            let stays = owned.get(uid) == Some(&part.epoch);
            if !stays {
                old.push((group, *uid, part.epoch, part.position));
            }
            stays
        });
        for (uid, epoch) in &owned {
            parts.entry(*uid).or_insert(Part { epoch: *epoch, is_claimed: false, position: 0, committed: None });
        }
        let surplus = old.len().saturating_sub(OLD_MAX);
        old.drain(..surplus);
        member.epoch = epoch;
        self.groups.on_in_force(group, member.id, &owned);
        self.heartbeat(world, at);
    }

    /// Asks for the offsets of what is new, and shuts out who had it before.
    fn claim(&mut self, world: &mut World, at: usize) {
        let (Some(group), Some(member)) = (self.list[at].group, &self.list[at].member) else { return };
        let is_asked = |uid: u64| {
            let asks =
                |asked: &Asked| matches!(&asked.what, What::Offsets { entries } if entries.iter().any(|entry| entry.place == (group, uid)));
            self.list[at].link.pending().any(asks)
        };
        let new = member.parts.iter().filter(|(uid, part)| !part.is_claimed && !is_asked(**uid));
        let mut new: Vec<(u64, u64)> = new.map(|(uid, part)| (*uid, part.epoch)).collect();
        let count = if self.dice.chance(50) { 1 } else { ENTRIES_MAX };
        while new.len() > count {
            new.swap_remove(self.dice.below(new.len() as u64) as usize);
        }
        self.ask_offsets(world, at, group, &new);
    }

    pub(super) fn ask_offsets(&mut self, world: &mut World, at: usize, group: u64, asks: &[(u64, u64)]) {
        if asks.is_empty() {
            return;
        }
        let entries = asks.iter().map(|(uid, epoch)| self.claims.before((group, *uid), *epoch)).collect();
        let asks: Vec<_> = asks.iter().map(|(uid, epoch)| OffsetAsk { partition_uid: *uid, assignment_epoch: *epoch }).collect();
        let request = FetchOffsetsRequest { group_uid: group, entries: List::of(&asks) };
        self.send(world, at, Kind::FetchOffsets, group, What::Offsets { entries }, |out| request.encode(out));
    }

    /// Somebody looks, and claims nothing; with something that is claimed, if there is any.
    fn look(&mut self, world: &mut World, clients: &Clients, at: usize) -> bool {
        let (Some(group), false) = (self.list[at].group, clients.uids.is_empty()) else { return false };
        let mut asks = vec![(clients.uids[self.dice.below(clients.uids.len() as u64) as usize], 0)];
        if let Some((uid, part)) = self.list[at].member.as_ref().and_then(|member| member.parts.first_key_value())
            && *uid != asks[0].0
            && self.dice.chance(50)
        {
            asks.push((*uid, part.epoch));
        }
        self.ask_offsets(world, at, group, &asks);
        true
    }

    fn fetch(&mut self, world: &mut World, clients: &Clients, at: usize, uid: u64) {
        let is_fetch = |asked: &Asked| matches!(asked.what, What::Fetch { .. });
        if self.list[at].link.pending().any(is_fetch) || !clients.uids.contains(&uid) {
            return;
        }
        let (offset, floor) = (self.part_mut(at, uid).position, clients.history.ends(uid));
        self.send(world, at, Kind::Fetch, 0, What::Fetch { partition: uid, offset, floor }, |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 0, 1, 32 << 10);
            writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes: 8 << 10 });
            writer.finish(out);
        });
    }

    /// Commits how far these partitions are read.
    pub(super) fn commit_parts(&mut self, world: &mut World, at: usize, uids: &[u64]) {
        let (Some(group), Some(_)) = (self.list[at].group, &self.list[at].member) else { return };
        let mut commits = Vec::with_capacity(uids.len());
        for uid in uids {
            let part = self.part_mut(at, *uid);
            part.committed = Some(part.position);
            commits.push((*uid, part.epoch, part.position));
        }
        self.commit(world, at, group, &commits);
    }

    fn forget(&mut self, world: &mut World, at: usize, uid: u64) {
        let Some(group) = self.list[at].group else { return };
        let part = self.part_mut(at, uid);
        part.committed = None;
        let commit = (uid, part.epoch, OFFSET_NONE);
        self.commit(world, at, group, &[commit]);
    }

    /// A commit with an assignment that is over, or with none. What is wrong with it the node has to know.
    fn commit_old(&mut self, world: &mut World, clients: &Clients, at: usize) -> bool {
        let count = self.list[at].old.len() as u64;
        if count == 0 {
            return false;
        }
        let (group, uid, epoch, offset) = self.list[at].old[self.dice.below(count) as usize];
        if !clients.uids.contains(&uid) || !self.groups.is_live(group) {
            return false;
        }
        let epoch = if self.dice.once_in(10) { 0 } else { epoch };
        self.commit(world, at, group, &[(uid, epoch, offset)]);
        true
    }

    /// Commits partitions, epochs and offsets.
    fn commit(&mut self, world: &mut World, at: usize, group: u64, commits: &[(u64, u64, u64)]) {
        let Some(conn) = self.list[at].link.conn().filter(|_| !commits.is_empty()) else { return };
        let (now_us, life) = (world.now_us, world.life());
        let mut entries = Vec::with_capacity(commits.len());
        for (uid, epoch, offset) in commits {
            let before = self.claims.before((group, *uid), *epoch);
            let number = self.claims.on_sent(((group, *uid), *epoch), *offset, (conn, life), now_us);
            entries.push((before, number));
        }
        let texts: Vec<String> = entries.iter().map(|(_, number)| text_of(*number)).collect();
        let commits = commits.iter().zip(&texts);
        let commits: Vec<_> = commits
            .map(|((uid, epoch, offset), text)| OffsetCommit {
                partition_uid: *uid,
                assignment_epoch: *epoch,
                offset: *offset,
                metadata: text,
            })
            .collect();
        let request = CommitOffsetsRequest { group_uid: group, entries: List::of(&commits) };
        self.send(world, at, Kind::CommitOffsets, group, What::Commit { entries }, |out| request.encode(out));
    }
}
