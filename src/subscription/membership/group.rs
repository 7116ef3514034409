//! The state machine of one group: who joins, is heard of, leaves or falls silent, and what that does to the grants.
//!
//! Every operation checks first and changes nothing when it refuses. Then it is one `Operation`: the epoch rises, the state changes, and at
//! its end what changed is told once, as it is then. An operation that changed nothing that lasts takes the epoch back.
//!
//! Invariants: after each operation a member's grant is part of its target; a free partition with a target is granted; a member has a
//! session and a deadline. A member that left and keeps its place (`is_away`) owns nothing in fact: what it has to give up is free at once.
//!
//! Not here: what lasts and its invariants (`durable.rs`), targets (`assign.rs`).

use super::assign::assign;
use super::durable::{Durable, Member, Place};
use super::stored::Change;
use super::{
    Assignor, CLIENT_BYTES_MAX, Heartbeat, INSTANCE_BYTES_MAX, Join, MEMBERS_MAX, MembershipError, PartitionsOf, SESSION_TIMEOUT_MS_MAX,
    SESSION_TIMEOUT_MS_MIN, Settings, TOPICS_PER_MEMBER_MAX,
};
use crate::constants::TOPIC_NAME_BYTES_MAX;
use crate::ids::{MemberId, PartitionUid, SubscriptionUid};
use std::collections::{BTreeMap, BTreeSet};

/// What of a member a restart forgets.
#[derive(Debug)]
struct Session {
    /// The newest epoch that the member says it has put in force.
    acked_epoch: u64,
    /// When it is dropped, by the shard's clock.
    deadline_us: u64,
    /// It left, and its place is kept for its next start.
    is_away: bool,
    /// Partitions in its target.
    target_count: usize,
}

/// What one operation changed of what lasts.
#[derive(Default)]
struct Operation {
    epoch_before: u64,
    gone: Vec<MemberId>,
    members: BTreeSet<MemberId>,
    partitions: BTreeSet<PartitionUid>,
}

/// One consumer group.
#[derive(Debug)]
pub struct Group {
    uid: SubscriptionUid,
    durable: Durable,
    /// One per member.
    sessions: BTreeMap<MemberId, Session>,
    /// The sessions by `deadline_us`.
    deadlines: BTreeSet<(u64, MemberId)>,
    /// Who is to have which partition.
    targets: BTreeMap<PartitionUid, MemberId>,
    /// False from a start until targets are computed for the first time.
    has_targets: bool,
    /// The next epoch is above this.
    epoch_floor: u64,
}

/// What a member may own.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The group's epoch at which it last changed: what the member acknowledges.
    pub epoch: u64,
    partitions: &'a BTreeMap<PartitionUid, u64>,
}

impl<'a> Grant<'a> {
    /// Partitions with their assignment epochs, by partition.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = (PartitionUid, u64)> + use<'a> {
        self.partitions.iter().map(|(partition, assignment_epoch)| (*partition, *assignment_epoch))
    }
}

/// A member as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct MemberView<'a> {
    /// Its id.
    pub id: MemberId,
    /// Its instance name, of static members.
    pub instance: Option<&'a str>,
    /// What it says of itself.
    pub client: &'a str,
    /// In order.
    pub topics: &'a [String],
    /// Partitions that it is to have.
    pub target_count: usize,
    /// Partitions that it may own.
    pub grant: Grant<'a>,
    /// Partitions that it has yet to give up.
    pub releasing_count: usize,
    /// The newest epoch that it has put in force; 0 when it did not say yet (since the last start).
    pub acked_epoch: u64,
    /// Whether it left and its place is kept.
    pub is_away: bool,
    /// Whether it is an administrator who has the group for itself.
    pub is_exclusive: bool,
}

impl Group {
    /// A new group without members. `epoch` is above any that an earlier group of the same name had.
    pub fn new(uid: SubscriptionUid, epoch: u64) -> Group {
        Group::resume(uid, Durable::new(epoch), 0)
    }

    /// Goes on after a restart, or elsewhere, from what the log holds. Every member has its session timeout from `now_us` on. To be
    /// followed by `on_partitions_changed`, which computes the targets; it moves nothing when nothing has changed.
    pub fn resume(uid: SubscriptionUid, durable: Durable, now_us: u64) -> Group {
        let mut group = Group {
            uid,
            durable,
            sessions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            targets: BTreeMap::new(),
            has_targets: false,
            epoch_floor: 0,
        };
        let ids: Vec<MemberId> = group.durable.members.keys().copied().collect();
        ids.into_iter().for_each(|id| group.open_session(id, now_us));
        group
    }

    /// The next change has an epoch above `epoch`: where damage took the newest records, or another node has made some that are not known here, theirs must
    /// not be given again. Nothing that lasts changes by this alone: what stands in no record must not stand in a snapshot either, or records of another
    /// node, whose clock is behind, would be taken for known ones.
    pub fn raise_epoch(&mut self, epoch: u64) {
        self.epoch_floor = self.epoch_floor.max(epoch);
    }

    /// Which group.
    pub fn uid(&self) -> SubscriptionUid {
        self.uid
    }

    /// The group's epoch.
    pub fn epoch(&self) -> u64 {
        self.durable.epoch
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.durable.members.is_empty()
    }

    /// How many members it has.
    pub fn member_count(&self) -> usize {
        self.durable.members.len()
    }

    /// Whether a static member of this name is in the group.
    pub fn has_instance(&self, instance: &str) -> bool {
        self.durable.by_instance(instance).is_some()
    }

    /// Those of its members, or of the last one it had; `None` before the first.
    pub fn settings(&self) -> Option<Settings> {
        self.durable.settings
    }

    /// What lasts.
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Whether every member has put in force what it is to have.
    pub fn is_settled(&self) -> bool {
        let settled = |(id, session): (&MemberId, &Session)| {
            let member = self.durable.member(*id);
            let has_all = member.granted.len() == session.target_count && member.releasing.is_empty();
            has_all && session.acked_epoch == member.granted_epoch
        };
        (self.has_targets || self.is_empty()) && self.sessions.iter().all(settled)
    }

    /// What a member may own now; `None` when there is no such member.
    pub fn grant(&self, id: MemberId) -> Option<Grant<'_>> {
        let member = self.durable.members.get(&id)?;
        Some(Grant { epoch: member.granted_epoch, partitions: &member.granted })
    }

    /// Who may own a partition, and the assignment epoch: also while it has to give it up.
    pub fn owner(&self, partition: PartitionUid) -> Option<(MemberId, u64)> {
        match self.durable.place(partition) {
            Place::Free => None,
            Place::Granted { member, assignment_epoch } => Some((member, assignment_epoch)),
            Place::Releasing { member, release } => Some((member, release.assignment_epoch)),
        }
    }

    /// Every partition that a member may own: also while it has to give it up.
    pub fn owned(&self) -> impl Iterator<Item = PartitionUid> + '_ {
        self.durable.held()
    }

    /// All members, by id.
    pub fn members(&self) -> impl Iterator<Item = MemberView<'_>> {
        self.durable.members.iter().map(|(id, member)| {
            let session = &self.sessions[id];
            MemberView {
                id: *id,
                instance: member.instance.as_deref(),
                client: &member.client,
                topics: &member.topics,
                target_count: session.target_count,
                grant: Grant { epoch: member.granted_epoch, partitions: &member.granted },
                releasing_count: member.releasing.len(),
                acked_epoch: session.acked_epoch,
                is_away: session.is_away,
                is_exclusive: member.is_exclusive,
            }
        })
    }

    /// When the next member is dropped unless it is heard of, by the shard's clock.
    pub fn next_deadline_us(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_us, _)| *deadline_us)
    }

    /// A new member. One with an instance name that is present takes the place of the present one: with a new id, the same target, and what
    /// was granted under new assignment epochs, so that the process before is fenced. (If it alone was there, it may also bring other
    /// settings.)
    pub fn join(
        &mut self,
        now_us: u64,
        join: &Join<'_>,
        partitions_of: PartitionsOf<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<MemberId, MembershipError> {
        let topics = sorted_topics(join.topics)?;
        let replaced = self.check_join(join)?;

        let mut operation = self.begin();
        let id = MemberId(self.epoch());
        let settings = Settings { assignor: join.assignor, session_timeout_ms: join.session_timeout_ms };
        let new_settings = self.durable.settings.replace(settings) != Some(settings);
        let before = replaced.map(|old| self.remove(old, &mut operation));
        let same_target = self.has_targets && !new_settings && before.as_ref().is_some_and(|before| before.topics == topics);
        let (instance, client) = (join.instance.map(str::to_owned), join.client.to_owned());
        let fresh = Member { instance, client, topics, is_exclusive: join.only_if_empty, granted_epoch: id.0, ..Member::default() };
        self.durable.set_member(id, fresh);
        operation.members.insert(id);
        self.open_session(id, now_us);
        if let (Some(old), Some(before)) = (replaced, before) {
            self.hand_over(old, id, &before, &mut operation);
        }
        if same_target {
            self.grant_free(&mut operation);
        } else {
            self.retarget(partitions_of, &mut operation);
        }
        self.end(operation, changes);
        Ok(id)
    }

    /// A member is alive, has put something in force, and perhaps has other topics now. Whether there is news for it is seen at `grant`.
    pub fn heartbeat(
        &mut self,
        now_us: u64,
        id: MemberId,
        heartbeat: &Heartbeat<'_>,
        partitions_of: PartitionsOf<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), MembershipError> {
        self.check_member(id, heartbeat.instance)?;
        let member = self.durable.member(id);
        let (acked_epoch, granted_epoch) = (heartbeat.acked_epoch, member.granted_epoch);
        if self.sessions[&id].is_away {
            return Err(MembershipError::UnknownMember);
        }
        if acked_epoch > granted_epoch {
            return Err(MembershipError::EpochAhead { acked_epoch, granted_epoch });
        }
        let topics = heartbeat.topics.map(sorted_topics).transpose()?.filter(|topics| *topics != member.topics);

        let timeout_us = self.session_timeout_us() + u64::from(heartbeat.wait_ms) * 1_000;
        self.set_deadline(id, now_us.saturating_add(timeout_us));
        let session = self.session_mut(id);
        session.acked_epoch = session.acked_epoch.max(acked_epoch);
        let mut operation = self.begin();
        let freed = self.free_released(id, acked_epoch, &mut operation);
        if let Some(topics) = topics {
            let member = self.durable.member(id);
            let (instance, client, is_exclusive) = (member.instance.clone(), member.client.clone(), member.is_exclusive);
            let granted_epoch = member.granted_epoch;
            self.durable.set_member(id, Member { instance, client, topics, is_exclusive, granted_epoch, ..Member::default() });
            operation.members.insert(id);
            self.retarget(partitions_of, &mut operation);
        } else {
            self.grant_to_targets(&freed, &mut operation);
        }
        self.end(operation, changes);
        Ok(())
    }

    /// A member goes. With `keep`, a static member's place is kept until its session times out, so that its restart moves nothing.
    pub fn leave(
        &mut self,
        now_us: u64,
        id: MemberId,
        instance: Option<&str>,
        keep: bool,
        partitions_of: PartitionsOf<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), MembershipError> {
        self.check_member(id, instance)?;

        let mut operation = self.begin();
        if keep && instance.is_some() {
            let granted_epoch = self.durable.member(id).granted_epoch;
            self.set_deadline(id, now_us.saturating_add(self.session_timeout_us()));
            let session = self.session_mut(id);
            (session.is_away, session.acked_epoch) = (true, granted_epoch);
            let freed = self.free_released(id, granted_epoch, &mut operation);
            self.grant_to_targets(&freed, &mut operation);
        } else {
            self.remove(id, &mut operation);
            self.retarget(partitions_of, &mut operation);
        }
        self.end(operation, changes);
        Ok(())
    }

    /// Drops who was silent for too long, and says who that was.
    pub fn expire(&mut self, now_us: u64, partitions_of: PartitionsOf<'_>, changes: &mut Vec<Change>) -> Vec<MemberId> {
        let dropped: Vec<MemberId> =
            self.deadlines.iter().take_while(|(deadline_us, _)| *deadline_us <= now_us).map(|(_, id)| *id).collect();
        if !dropped.is_empty() {
            let mut operation = self.begin();
            for id in &dropped {
                self.remove(*id, &mut operation);
            }
            self.retarget(partitions_of, &mut operation);
            self.end(operation, changes);
        }
        dropped
    }

    /// Topics were created or deleted, or got partitions; or this is a start. `exists` says whether there is such a partition in any topic:
    /// one that is gone needs nobody's word to be free.
    pub fn on_partitions_changed(
        &mut self,
        partitions_of: PartitionsOf<'_>,
        exists: &dyn Fn(PartitionUid) -> bool,
        changes: &mut Vec<Change>,
    ) {
        let mut operation = self.begin();
        let deleted: Vec<PartitionUid> = self.durable.held().filter(|partition| !exists(*partition)).collect();
        for partition in deleted {
            self.durable.free(partition);
            operation.partitions.insert(partition);
        }
        self.retarget(partitions_of, &mut operation);
        self.end(operation, changes);
    }

    /// Who is replaced.
    fn check_join(&self, join: &Join<'_>) -> Result<Option<MemberId>, MembershipError> {
        if let Some(bytes) = join.instance.map(str::len).filter(|bytes| !(1..=INSTANCE_BYTES_MAX).contains(bytes)) {
            return Err(MembershipError::InstanceBytes(bytes));
        }
        if join.client.len() > CLIENT_BYTES_MAX {
            return Err(MembershipError::ClientBytes(join.client.len()));
        }
        if !(SESSION_TIMEOUT_MS_MIN..=SESSION_TIMEOUT_MS_MAX).contains(&join.session_timeout_ms) {
            return Err(MembershipError::SessionTimeout { session_timeout_ms: join.session_timeout_ms });
        }
        let members = &self.durable.members;
        if members.values().any(|member| member.is_exclusive) {
            return Err(MembershipError::Busy);
        }
        if join.only_if_empty && !members.is_empty() {
            return Err(MembershipError::GroupNotEmpty);
        }
        let replaced = join.instance.and_then(|instance| self.durable.by_instance(instance));
        let others = members.len() - usize::from(replaced.is_some());
        let joiner = Settings { assignor: join.assignor, session_timeout_ms: join.session_timeout_ms };
        match self.durable.settings {
            Some(group) if group != joiner && others > 0 => Err(MembershipError::MixedSettings { group, joiner }),
            _ if others >= MEMBERS_MAX => Err(MembershipError::TooManyMembers),
            _ => Ok(replaced),
        }
    }

    fn check_member(&self, id: MemberId, instance: Option<&str>) -> Result<(), MembershipError> {
        if self.durable.members.get(&id).is_some_and(|member| member.instance.as_deref() == instance) {
            return Ok(());
        }
        let now = instance.and_then(|instance| self.durable.by_instance(instance));
        Err(if now.is_some_and(|now| now > id) { MembershipError::Fenced } else { MembershipError::UnknownMember })
    }

    fn begin(&mut self) -> Operation {
        let epoch_before = self.durable.epoch;
        self.durable.epoch = epoch_before.max(self.epoch_floor).checked_add(1).expect("an epoch per operation does not use up 64 bits");
        Operation { epoch_before, ..Operation::default() }
    }

    /// Tells what changed. Who is gone comes first, so that its instance name and partitions are free for others.
    fn end(&mut self, operation: Operation, changes: &mut Vec<Change>) {
        let Operation { epoch_before, gone, members, partitions } = operation;
        if gone.is_empty() && members.is_empty() && partitions.is_empty() {
            self.durable.epoch = epoch_before;
            return;
        }
        changes.push(Change::Group { epoch: self.durable.epoch, settings: self.durable.settings });
        changes.extend(gone.into_iter().map(|member| Change::Gone { member }));
        members.into_iter().for_each(|id| self.durable.tell_member(id, changes));
        partitions.into_iter().for_each(|partition| self.durable.tell_place(partition, changes));
    }

    fn session_timeout_us(&self) -> u64 {
        u64::from(self.durable.settings.expect("a group with members has settings").session_timeout_ms) * 1_000
    }

    fn session_mut(&mut self, id: MemberId) -> &mut Session {
        self.sessions.get_mut(&id).unwrap_or_else(|| panic!("member {id} has a session"))
    }

    fn open_session(&mut self, id: MemberId, now_us: u64) {
        let deadline_us = now_us.saturating_add(self.session_timeout_us());
        let other = self.sessions.insert(id, Session { acked_epoch: 0, deadline_us, is_away: false, target_count: 0 });
        assert!(other.is_none(), "member {id} has one session");
        self.deadlines.insert((deadline_us, id));
    }

    fn set_deadline(&mut self, id: MemberId, deadline_us: u64) {
        let before_us = std::mem::replace(&mut self.session_mut(id).deadline_us, deadline_us);
        assert!(self.deadlines.remove(&(before_us, id)), "member {id} has a deadline");
        self.deadlines.insert((deadline_us, id));
    }

    fn remove(&mut self, id: MemberId, operation: &mut Operation) -> Member {
        let session = self.sessions.remove(&id).unwrap_or_else(|| panic!("member {id} has a session"));
        assert!(self.deadlines.remove(&(session.deadline_us, id)), "member {id} has a deadline");
        operation.gone.push(id);
        self.durable.remove_member(id).unwrap_or_else(|| panic!("member {id} is in the group"))
    }

    /// Grants what a member had to the one that takes its place, and turns its target over to it. What it was giving up is free.
    fn hand_over(&mut self, old: MemberId, id: MemberId, before: &Member, operation: &mut Operation) {
        for partition in before.granted.keys() {
            self.durable.grant(*partition, id, self.durable.epoch);
            operation.partitions.insert(*partition);
        }
        let targets = self.targets.values_mut().filter(|target| **target == old);
        let target_count = targets.map(|target| *target = id).count();
        self.session_mut(id).target_count = target_count;
    }

    /// What the member was giving up at `acked_epoch` or before is free.
    fn free_released(&mut self, id: MemberId, acked_epoch: u64, operation: &mut Operation) -> Vec<PartitionUid> {
        let releasing = self.durable.member(id).releasing.iter();
        let freed: Vec<PartitionUid> = releasing.filter(|(_, release)| release.since <= acked_epoch).map(|(uid, _)| *uid).collect();
        for partition in &freed {
            self.durable.free(*partition);
            operation.partitions.insert(*partition);
        }
        freed
    }

    fn grant_to_targets(&mut self, free: &[PartitionUid], operation: &mut Operation) {
        for partition in free {
            if let Some(id) = self.targets.get(partition) {
                self.durable.grant(*partition, *id, self.durable.epoch);
                operation.partitions.insert(*partition);
            }
        }
    }

    fn grant_free(&mut self, operation: &mut Operation) {
        let free = |partition: &PartitionUid| self.durable.holder(*partition).is_none();
        let free: Vec<PartitionUid> = self.targets.keys().copied().filter(free).collect();
        self.grant_to_targets(&free, operation);
    }

    /// Computes the targets, and brings the grants as near to them as may be.
    fn retarget(&mut self, partitions_of: PartitionsOf<'_>, operation: &mut Operation) {
        let durable = &self.durable;
        // Static members by their names, which are the same after one took over its own place; then the others by their ids.
        let mut members: Vec<(MemberId, &Member)> = durable.members.iter().map(|(id, member)| (*id, member)).collect();
        members.sort_by_key(|(id, member)| (member.instance.is_none(), member.instance.as_deref(), *id));
        let ids: Vec<MemberId> = members.iter().map(|(id, _)| *id).collect();
        let numbers: BTreeMap<MemberId, usize> = ids.iter().enumerate().map(|(number, id)| (*id, number)).collect();
        let topics: Vec<&[String]> = members.iter().map(|(_, member)| member.topics.as_slice()).collect();
        let is_sticky = durable.settings.is_some_and(|settings| settings.assignor == Assignor::Sticky);
        let previous = |partition: PartitionUid| {
            let granted_to = match durable.place(partition) {
                Place::Granted { member, .. } => Some(member),
                Place::Free | Place::Releasing { .. } => None,
            };
            // After a start the grants are all that is known of the targets.
            let owner = self.targets.get(&partition).copied().or(granted_to)?;
            Some((*numbers.get(&owner)?, granted_to == Some(owner)))
        };
        let fresh = assign(&topics, partitions_of, if is_sticky { &previous } else { &|_| None });
        let mut targets: Vec<(PartitionUid, MemberId)> = Vec::with_capacity(fresh.iter().map(Vec::len).sum());
        for (id, partitions) in ids.iter().zip(fresh) {
            self.sessions.get_mut(id).expect("a member has a session").target_count = partitions.len();
            targets.extend(partitions.into_iter().map(|partition| (partition, *id)));
        }
        targets.sort_unstable();
        assert!(targets.windows(2).all(|two| two[0].0 < two[1].0), "a partition is in one topic, once");
        self.targets = targets.into_iter().collect();
        self.has_targets = true;
        for id in ids {
            self.revoke(id, operation);
        }
        self.grant_free(operation);
    }

    /// Takes what is not in a member's target out of its grant.
    fn revoke(&mut self, id: MemberId, operation: &mut Operation) {
        let epoch = self.durable.epoch;
        let granted = self.durable.member(id).granted.iter().map(|(partition, assignment_epoch)| (*partition, *assignment_epoch));
        let revoked: Vec<(PartitionUid, u64)> = granted.filter(|(partition, _)| self.targets.get(partition) != Some(&id)).collect();
        for (partition, assignment_epoch) in revoked {
            // What was handed over to it in this very operation it was never told.
            if self.sessions[&id].is_away || assignment_epoch == epoch {
                self.durable.free(partition);
            } else {
                self.durable.release(partition, id, epoch);
            }
            operation.partitions.insert(partition);
        }
    }
}

/// A member's topics in order, each once.
fn sorted_topics(topics: &[&str]) -> Result<Vec<String>, MembershipError> {
    let names: BTreeSet<&str> = topics.iter().copied().collect();
    if !(1..=TOPICS_PER_MEMBER_MAX).contains(&names.len()) {
        return Err(MembershipError::TopicCount(names.len()));
    }
    match names.iter().find(|name| name.is_empty() || name.len() as u64 > TOPIC_NAME_BYTES_MAX) {
        Some(name) => Err(MembershipError::TopicNameBytes(name.len())),
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}
