//! What members of consumer groups are answered: whether it may be so, and what they do then.
//!
//! Not here: what is known of groups and of offsets (`groups.rs`, `claims.rs`).

use super::Check;
use super::claims::Before;
use super::clients::Clients;
use super::groups::Owned;
use super::link::{Answer, broken};
use super::members::{Asked, Members, Membership, Part, What};
use super::totals::Event as Counted;
use super::world::World;
use std::collections::BTreeMap;
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::FetchReply;
use tramline_wire::group::{
    CommitOffsetsReply, DescribeGroupReply, FetchOffsetsReply, FindGroupReply, GrantedPartition, HeartbeatGroupReply, JoinGroupReply,
    ListGroupsReply, OFFSET_NONE,
};

/// How long a member that was fenced stays away until somebody starts it again.
const FENCED_US: u64 = 2_000_000;

impl Members {
    pub(super) fn on_frame(&mut self, world: &mut World, clients: &mut Clients, conn: u64, bytes: &[u8]) -> Check {
        let Some(at) = self.by_conn.get(&conn).copied() else { return Ok(()) };
        self.see(world, clients);
        match self.list[at].link.take(bytes)? {
            Answer::Nothing => Ok(()),
            Answer::Good(asked, meta, payload) => self.on_good(world, clients, at, asked, (meta, payload)),
            Answer::Refused(asked, code, message) => {
                world.say(|| format!("member {at} is refused: {code:?}: {message}"));
                self.on_refused(world, clients, at, asked, code).map_err(|error| format!("member {at}: {error}: {message}"))
            }
        }
    }

    fn on_good(&mut self, world: &mut World, clients: &mut Clients, at: usize, asked: Asked, (meta, payload): (&[u8], &[u8])) -> Check {
        let Asked { sent_us, group, what } = asked;
        let now_us = world.now_us;
        if group != 0 && !matches!(what, What::Delete | What::Describe { .. }) {
            self.groups.on_used(group, sent_us)?;
        }
        match what {
            What::Find => {
                let reply = FindGroupReply::decode(meta).map_err(|e| broken(&e))?;
                self.groups.on_found(self.list[at].name, reply.group_uid, reply.created, (sent_us, now_us))?;
                self.list[at].group = Some(reply.group_uid);
                Ok(())
            }
            What::Join { number, top_id, alone } => {
                let reply = JoinGroupReply::decode(meta).map_err(|e| broken(&e))?;
                self.groups.on_join_over(group, number, now_us);
                self.groups.on_joined(group, reply.member_id, (number, top_id), now_us)?;
                world.totals.note(Counted::MembersJoined);
                world.say(|| format!("member {at} joins group {group} as {} (alone: {alone})", reply.member_id));
                let granted: Vec<GrantedPartition> = reply.partitions.iter().collect();
                self.on_joined(world, at, (group, reply.member_id, reply.epoch), alone, &granted)
            }
            What::Heartbeat { id, epoch, topics } => {
                let reply = HeartbeatGroupReply::decode(meta).map_err(|e| broken(&e))?;
                self.groups.on_heard(group, id, sent_us)?;
                self.on_heartbeat(world, at, (group, id, epoch, topics), &reply)
            }
            What::Leave { id, keeps } => {
                world.say(|| format!("member {at}: {id} has left group {group} (kept: {keeps})"));
                // Whose place is kept is a member until its session is over.
                if !keeps {
                    self.groups.on_left(group, id, now_us);
                }
                Ok(())
            }
            What::Commit { entries } => {
                let reply = CommitOffsetsReply::decode(meta).map_err(|e| broken(&e))?;
                if reply.entries.len() != entries.len() {
                    return Err(format!("{} commits, {} answers", entries.len(), reply.entries.len()));
                }
                for ((before, number), told) in entries.into_iter().zip(reply.entries.iter()) {
                    if told.partition_uid != before.place.1 {
                        return Err(format!("committed partition {}, told of {}", before.place.1, told.partition_uid));
                    }
                    self.on_committed(world, clients, at, (&before, number), told.error)?;
                }
                Ok(())
            }
            What::Offsets { entries } => self.on_offsets(world, clients, at, entries, meta),
            What::Fetch { partition, offset, floor } => {
                let reply = FetchReply::decode(meta).map_err(|e| broken(&e))?;
                let (entry, batches) = reply.parts(payload).map_err(|e| broken(&e))?.next().ok_or("a fetch reply without entry")?;
                let (next, _) = clients.check_fetched(world, (partition, offset, floor), &entry, batches)?;
                let part = self.list[at].member.as_mut().and_then(|member| member.parts.get_mut(&partition));
                if let Some(part) = part.filter(|part| part.position == offset) {
                    part.position = next;
                }
                Ok(())
            }
            What::List => {
                let reply = ListGroupsReply::decode(meta).map_err(|e| broken(&e))?;
                world.totals.note(Counted::GroupsDescribed);
                self.groups.on_listed(&reply, (sent_us, now_us))
            }
            What::Describe { entries } => {
                let reply = DescribeGroupReply::decode(meta).map_err(|e| broken(&e))?;
                world.totals.note(Counted::GroupsDescribed);
                self.on_described(world, clients, at, (group, sent_us), &entries, &reply)
            }
            What::Delete => {
                world.totals.note(Counted::GroupsDeleted);
                let name = self.list[at].name;
                self.list[at].group = None;
                self.groups.on_deleted(name, (sent_us, now_us))
            }
        }
    }

    fn on_joined(&mut self, world: &World, at: usize, told: (u64, u64, u64), alone: bool, granted: &[GrantedPartition]) -> Check {
        let (group, id, epoch) = told;
        self.groups.on_list(group, id, epoch, granted, world.now_us)?;
        if self.list[at].group != Some(group) {
            return Ok(());
        }
        let part = |granted: &GrantedPartition| Part { epoch: granted.assignment_epoch, is_claimed: false, position: 0, committed: None };
        let parts: BTreeMap<u64, Part> = granted.iter().map(|granted| (granted.partition_uid, part(granted))).collect();
        if parts.len() != granted.len() {
            return Err(format!("group {group}: member {id} is given a partition twice: {granted:?}"));
        }
        self.list[at].member = Some(Membership { id, epoch, parts, news: None, alone, topics_unsaid: false });
        Ok(())
    }

    fn on_heartbeat(
        &mut self,
        world: &mut World,
        at: usize,
        (group, id, epoch, topics): (u64, u64, u64, Option<u64>),
        reply: &HeartbeatGroupReply<'_>,
    ) -> Check {
        if reply.epoch == epoch && !reply.partitions.is_empty() {
            return Err(format!("group {group}: member {id} knows list {epoch}, and is told it once more"));
        }
        if reply.epoch < epoch && !self.groups.decayed {
            return Err(format!("group {group}: member {id} has list {epoch}, and is told list {}", reply.epoch));
        }
        let granted: Vec<GrantedPartition> = reply.partitions.iter().collect();
        if reply.epoch != epoch {
            self.groups.on_list(group, id, reply.epoch, &granted, world.now_us)?;
        }
        let changes = self.list[at].changes;
        let Some(member) = self.list[at].member.as_mut().filter(|member| member.id == id) else { return Ok(()) };
        member.topics_unsaid &= topics != Some(changes);
        if reply.epoch == epoch {
            return Ok(());
        }
        world.totals.note(Counted::ListsTold);
        let owned: Owned = granted.iter().map(|granted| (granted.partition_uid, granted.assignment_epoch)).collect();
        if owned.len() != granted.len() {
            return Err(format!("group {group}: member {id} is given a partition twice: {granted:?}"));
        }
        if reply.epoch > member.epoch {
            member.news = Some((reply.epoch, owned));
        }
        Ok(())
    }

    fn on_committed(
        &mut self,
        world: &mut World,
        clients: &mut Clients,
        at: usize,
        (before, number): (&Before, usize),
        code: ErrorCode,
    ) -> Check {
        let place = before.place;
        clients.forget_if_lost(world, place.1, code);
        let is_known = clients.uids.contains(&place.1);
        match code {
            ErrorCode::Ok => {
                world.totals.note(Counted::OffsetsCommitted);
                self.claims.on_committed(before, number, world.now_us)?;
            }
            ErrorCode::StaleAssignment => {
                world.totals.note(Counted::StaleRefused);
                self.claims.on_stale(place, before.epoch)?;
                self.claims.on_refused(place, number);
            }
            // Records that were shown early are gone with a crash, and those of damaged blocks with these.
            ErrorCode::OffsetOutOfRange if self.claims.decayed || !is_known || clients.history.shows_early(place.1) => {
                self.claims.on_refused(place, number);
            }
            ErrorCode::UnknownGroup => self.groups.on_unknown(place.0)?,
            code => check_partition_code(place, code, is_known)?,
        }
        let part = self.list[at].member.as_mut().and_then(|member| member.parts.get_mut(&place.1));
        if let Some(part) = part.filter(|part| part.epoch == before.epoch && !code.is_ok()) {
            part.committed = None;
            if code == ErrorCode::OffsetOutOfRange {
                part.position = 0;
            }
        }
        Ok(())
    }

    fn on_offsets(&mut self, world: &mut World, clients: &mut Clients, at: usize, entries: Vec<Before>, meta: &[u8]) -> Check {
        let reply = FetchOffsetsReply::decode(meta).map_err(|e| broken(&e))?;
        if reply.entries.len() != entries.len() {
            return Err(format!("{} questions, {} answers", entries.len(), reply.entries.len()));
        }
        for (before, told) in entries.iter().zip(reply.entries.iter()) {
            let (place, uid) = (before.place, told.partition_uid);
            if uid != place.1 {
                return Err(format!("asked for the offset of partition {}, told of {uid}", place.1));
            }
            clients.forget_if_lost(world, uid, told.error);
            match told.error {
                ErrorCode::Ok => {}
                ErrorCode::StaleAssignment => {
                    world.totals.note(Counted::StaleRefused);
                    self.claims.on_stale(place, before.epoch)?;
                    continue;
                }
                ErrorCode::UnknownGroup => {
                    self.groups.on_unknown(place.0)?;
                    continue;
                }
                code => {
                    check_partition_code(place, code, clients.uids.contains(&uid))?;
                    continue;
                }
            }
            world.totals.note(Counted::OffsetsFetched);
            self.claims.on_fetched(before, told.offset, told.metadata, world.now_us)?;
            let part = self.list[at].member.as_mut().and_then(|member| member.parts.get_mut(&uid));
            if let Some(part) = part.filter(|part| part.epoch == before.epoch && !part.is_claimed) {
                part.is_claimed = true;
                (part.position, part.committed) = match told.offset {
                    OFFSET_NONE => (0, None),
                    offset => (offset, Some(offset)),
                };
            }
        }
        Ok(())
    }

    fn on_described(
        &mut self,
        world: &World,
        clients: &Clients,
        at: usize,
        (group, sent_us): (u64, u64),
        entries: &[Before],
        reply: &DescribeGroupReply<'_>,
    ) -> Check {
        let is_there = |uid: u64| clients.uids.contains(&uid);
        self.groups.on_described(self.list[at].name, reply, (sent_us, world.now_us), is_there)?;
        if reply.group_uid != group {
            return Ok(());
        }
        for before in entries.iter().filter(|before| is_there(before.place.1)) {
            let told = reply.partitions.iter().find(|told| told.uid == before.place.1);
            self.claims.on_described(before, told.map_or(OFFSET_NONE, |told| told.offset))?;
        }
        Ok(())
    }

    fn on_refused(&mut self, world: &mut World, clients: &mut Clients, at: usize, asked: Asked, code: ErrorCode) -> Check {
        let Asked { group, what, .. } = asked;
        let now_us = world.now_us;
        if let What::Join { number, .. } = what {
            self.groups.on_join_over(group, number, now_us);
        }
        if let What::Fetch { partition, .. } = what {
            clients.forget_if_lost(world, partition, code);
        }
        match (&what, code) {
            (_, code) if code.retriable() => Ok(()),
            (What::Heartbeat { id, .. } | What::Leave { id, .. }, ErrorCode::UnknownMember | ErrorCode::MemberFenced) => {
                let is_fenced = code == ErrorCode::MemberFenced;
                world.totals.note(if is_fenced { Counted::MembersFenced } else { Counted::MembersDropped });
                self.groups.on_dropped(group, *id, is_fenced, now_us)?;
                if self.list[at].member.as_ref().is_some_and(|member| member.id == *id) {
                    self.remember_old(at);
                    self.list[at].member = None;
                    if is_fenced {
                        self.list[at].rests_until_us = now_us + FENCED_US;
                        self.list[at].is_dead |= world.quiet;
                    }
                }
                Ok(())
            }
            (What::Join { alone, .. }, ErrorCode::GroupNotEmpty) if *alone || self.groups.may_be_alone(group) => Ok(()),
            (What::Delete, ErrorCode::GroupNotEmpty) => Ok(()),
            // The uid was lost with its group, and is another one's now.
            (What::Join { .. }, ErrorCode::GroupSettingsDiffer) if self.groups.control_lost => {
                self.list[at].group = None;
                Ok(())
            }
            (What::Delete, ErrorCode::UnknownGroup) => {
                self.list[at].group = None;
                Ok(())
            }
            (What::Fetch { partition, .. }, ErrorCode::TopicDeleted) if !clients.uids.contains(partition) => Ok(()),
            (_, ErrorCode::UnknownGroup) if group != 0 => {
                self.groups.on_unknown(group)?;
                if self.list[at].group == Some(group) {
                    self.remember_old(at);
                    (self.list[at].group, self.list[at].member) = (None, None);
                }
                Ok(())
            }
            (_, ErrorCode::UnknownGroup) => Ok(()),
            (what, code) => Err(format!("group {group}: {what:?} is refused: {code:?}")),
        }
    }
}

/// Whether a partition may be refused with this.
fn check_partition_code(place: (u64, u64), code: ErrorCode, is_known: bool) -> Check {
    let is_gone = matches!(code, ErrorCode::TopicDeleted | ErrorCode::UnknownPartition | ErrorCode::OffsetOutOfRange) && !is_known;
    if code.retriable() || is_gone {
        return Ok(());
    }
    Err(format!("{place:?} (known: {is_known}): {code:?}"))
}
