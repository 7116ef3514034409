//! Consumer groups that are at home on this shard: requests of their members, from first to last.
//!
//! How a change goes: request (or a session that is over) -> the group decides -> its records wait -> at the end of the turn they go into the log of the
//! group's home, a replica group -> durable and committed -> whoever waits for them is answered. What a member is told is what the group had decided
//! when its answer was made, and is durable when it leaves.
//!
//! A heartbeat that brings no news is held (`parked`) until there is another list for its member, or its time is over.
//!
//! Invariants: no member is told a list that a crash could take back; a member has one heartbeat parked at most; answers of one group leave in the
//! order in which they were made.
//!
//! Not here: who becomes a member and owns what (subscription/membership/), committed offsets (`offsets.rs`).

mod losing;

use super::acks::Acks;
use super::in_order::InOrder;
use super::mesh::GroupStatus;
use super::shard::{Phase, Shard, Taken};
use crate::api::{self, ApiError};
use crate::control::{TopicView, View};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{BlockSeq, GroupId, MemberId, PartitionUid, SubscriptionUid};
use crate::mutants::{Mutant, Mutants};
use crate::subscription::Offsets;
use crate::subscription::membership::{self, Change, Durable, Group, MembershipError, RestoreError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::group::{
    GrantedPartition, HeartbeatFlags, HeartbeatGroupReply, HeartbeatGroupRequest, JoinFlags, JoinGroupReply, JoinGroupRequest, LeaveFlags,
    LeaveGroupReply, LeaveGroupRequest,
};
use tramline_wire::prim::List;

/// Answers that wait for the log: from here on requests have to wait until they are taken in.
const ANSWERS_MAX: usize = 10_000;
/// Members of all groups at home on a shard. Each costs a heartbeat every few seconds, which walks the held ones of its group.
const SHARD_MEMBERS_MAX: usize = 20_000;
/// How long a group that is to be deleted takes no members, in microseconds: far longer than the metadata need for it.
const RETIRED_US: u64 = 30_000_000;

/// Longer than anybody waits.
const NEVER_US: u64 = 1 << 40;

/// An answer that is made and may leave once its group's records are durable.
#[derive(Debug)]
struct Answer {
    caller: Caller,
    meta: Vec<u8>,
}

/// A heartbeat that is held.
#[derive(Debug)]
struct Parked {
    caller: Caller,
    /// The epoch that the member knows.
    epoch: u64,
    until_us: u64,
}

/// A group that is at home here.
#[derive(Debug)]
struct Home {
    replica_group: GroupId,
    group: Group,
    /// Records that are not in the log yet.
    changes: Vec<Change>,
    /// The same, encoded, when there was no room for all of them.
    payloads: VecDeque<Vec<u8>>,
    /// Answers that wait for `changes` and `payloads` to be in the log.
    answers: Vec<Answer>,
    /// The block of its last records.
    last_block: BlockSeq,
    parked: BTreeMap<MemberId, Parked>,
    /// When somebody was a member last, UTC microseconds.
    active_us: i64,
    /// As it stands in `MemberCare::deadlines`.
    deadline_us: u64,
    /// Whether it stands in `MemberCare::dirty`.
    is_dirty: bool,
}

impl Home {
    fn new(replica_group: GroupId, group: Group) -> Home {
        Home {
            replica_group,
            group,
            changes: Vec::new(),
            payloads: VecDeque::new(),
            answers: Vec::new(),
            last_block: BlockSeq(0),
            parked: BTreeMap::new(),
            active_us: 0,
            deadline_us: u64::MAX,
            is_dirty: false,
        }
    }

    fn next_deadline_us(&self) -> u64 {
        let parked_us = self.parked.values().map(|parked| parked.until_us).min();
        parked_us.into_iter().chain(self.group.next_deadline_us()).min().unwrap_or(u64::MAX)
    }

    /// Makes the answers of parked heartbeats that have news or whose time is over.
    fn wake(&mut self, now: Now) {
        let is_due = |(member, parked): &(&MemberId, &Parked)| {
            let has_news = self.group.grant(**member).is_none_or(|grant| grant.epoch != parked.epoch);
            has_news || parked.until_us <= now.mono_us
        };
        let due: Vec<MemberId> = self.parked.iter().filter(is_due).map(|(member, _)| *member).collect();
        for member in due {
            let parked = self.parked.remove(&member).expect("listed above");
            // Dropped meanwhile: its next heartbeat tells it.
            let meta = heartbeat_meta(&self.group, member, parked.epoch);
            self.answers.push(Answer { caller: parked.caller, meta });
        }
    }
}

/// The consumer groups of a shard.
#[derive(Debug, Default)]
pub(super) struct MemberCare {
    homes: BTreeMap<SubscriptionUid, Home>,
    /// Groups that are not at home here: found by a start and not claimed by a view, or of replica groups that another node leads. One whose records make no
    /// sense has to be one that was deleted.
    unclaimed: BTreeMap<SubscriptionUid, Result<Durable, RestoreError>>,
    waiting: InOrder<Answer>,
    /// Groups with something for the log, each once.
    dirty: Vec<SubscriptionUid>,
    /// Answers in all homes that wait for the log, and those in `waiting`.
    answer_count: usize,
    /// When something is to be done for a group without an event, earliest first; each group that has such a time once.
    deadlines: BTreeSet<(u64, SubscriptionUid)>,
    /// Groups that are being deleted: until then nobody joins.
    retired_until_us: BTreeMap<SubscriptionUid, u64>,
}

impl MemberCare {
    pub(super) fn new(found: BTreeMap<SubscriptionUid, Result<Durable, RestoreError>>) -> MemberCare {
        MemberCare { unclaimed: found, ..MemberCare::default() }
    }

    /// What is known of each group here: members of those at home, commits of all.
    pub(super) fn status(&self, offsets: &Offsets) -> Vec<GroupStatus> {
        let mut status: BTreeMap<SubscriptionUid, GroupStatus> = BTreeMap::new();
        for (uid, home) in &self.homes {
            let members = home.group.member_count() as u32;
            status.insert(*uid, GroupStatus { uid: *uid, members, active_us: home.active_us });
        }
        for (uid, committed_us) in offsets.last_commits() {
            let of_group = status.entry(uid).or_insert(GroupStatus { uid, members: 0, active_us: 0 });
            of_group.active_us = of_group.active_us.max(committed_us);
        }
        status.into_values().collect()
    }

    /// The group of this uid, if it is at home here and has ever had a member.
    pub(super) fn of(&self, uid: SubscriptionUid) -> Option<&Group> {
        self.homes.get(&uid).map(|home| &home.group)
    }

    /// Partitions that members of the group may own: also those that they were asked to give up.
    pub(super) fn owned(&self, uid: SubscriptionUid) -> Vec<PartitionUid> {
        self.of(uid).map(|group| group.owned().collect()).unwrap_or_default()
    }

    /// Whether the group has no member; then it takes none for a while.
    pub(super) fn retire(&mut self, now: Now, uid: SubscriptionUid) -> bool {
        let is_empty = self.homes.get(&uid).is_none_or(|home| home.group.is_empty());
        if is_empty {
            self.retired_until_us.insert(uid, now.mono_us + RETIRED_US);
        }
        is_empty
    }

    fn is_retired(&self, now: Now, uid: SubscriptionUid) -> bool {
        self.retired_until_us.get(&uid).is_some_and(|until_us| now.mono_us < *until_us)
    }

    /// Members of all groups at home here.
    pub(super) fn member_count(&self) -> usize {
        self.homes.values().map(|home| home.group.member_count()).sum()
    }

    /// Groups that are at home here.
    pub(super) fn home_count(&self) -> usize {
        self.homes.len()
    }

    /// What a checkpoint keeps of the groups: the records of each, as they go into the log. Those that are in the log and not durable yet are among
    /// them: they are in it behind what the checkpoint covers, and say the same.
    pub(super) fn snapshot(&self) -> Vec<Vec<u8>> {
        let unclaimed = self.unclaimed.iter().filter_map(|(uid, found)| Some((uid, found.as_ref().ok()?)));
        let homes = self.homes.iter().map(|(uid, home)| (uid, home.group.durable())).chain(unclaimed);
        homes.flat_map(|(uid, durable)| membership::encode(*uid, &durable.snapshot())).collect()
    }

    /// The same of groups that are at home in a replica group.
    pub(super) fn snapshot_of(&self, group: GroupId, view: &View) -> Vec<Vec<u8>> {
        let homes = self.homes.iter().filter(|(_, home)| home.replica_group == group).map(|(uid, home)| (uid, home.group.durable()));
        let is_ours = |uid: SubscriptionUid| view.group_by_uid(uid).is_some_and(|place| place.home == group);
        let unclaimed =
            self.unclaimed.iter().filter(|(uid, _)| is_ours(**uid)).filter_map(|(uid, found)| Some((uid, found.as_ref().ok()?)));
        homes.chain(unclaimed).flat_map(|(uid, durable)| membership::encode(*uid, &durable.snapshot())).collect()
    }

    /// The time until which nothing is to be done without an event.
    pub(super) fn next_deadline_us(&self) -> u64 {
        self.deadlines.first().map_or(u64::MAX, |(deadline_us, _)| *deadline_us)
    }

    /// Whether records wait for room in the log.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether nobody waits for an answer that is under way. (A parked heartbeat is none: it ends with the connection.)
    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.dirty.is_empty()
    }

    /// Sends the answers whose records are committed.
    pub(super) fn release(&mut self, acks: &Acks, effects: &mut Effects) {
        while let Some(Answer { caller, meta }) = self.waiting.pop(acks) {
            self.answer_count -= 1;
            effects.reply(&caller, 0, &mut Vec::new(), |out| out.extend_from_slice(&meta));
        }
    }

    /// The log has failed: whether what was decided holds is not known.
    pub(super) fn fail_all(&mut self, effects: &mut Effects, reason: &str) {
        let of_homes = self.homes.values_mut().flat_map(|home| {
            let parked = std::mem::take(&mut home.parked).into_values().map(|parked| parked.caller);
            home.answers.drain(..).map(|answer| answer.caller).chain(parked).collect::<Vec<_>>()
        });
        let callers: Vec<Caller> = of_homes.chain(self.waiting.drain().map(|answer| answer.caller)).collect();
        callers.iter().for_each(|caller| effects.refuse(caller, ErrorCode::StorageFailed, reason, ""));
        self.answer_count = 0;
        self.dirty.clear();
        self.deadlines.clear();
    }

    /// Something of `uid` was decided: its answers and records go on their way with the end of the turn.
    fn touch(&mut self, now: Now, uid: SubscriptionUid) {
        let home = self.homes.get_mut(&uid).expect("a group that was touched is at home");
        let before = home.answers.len();
        home.wake(now);
        self.answer_count += home.answers.len() - before;
        let deadline_us = home.next_deadline_us();
        if deadline_us != home.deadline_us {
            self.deadlines.remove(&(home.deadline_us, uid));
            home.deadline_us = deadline_us;
            if deadline_us != u64::MAX {
                self.deadlines.insert((deadline_us, uid));
            }
        }
        if !std::mem::replace(&mut home.is_dirty, true) {
            self.dirty.push(uid);
        }
    }
}

fn granted(group: &Group, member: MemberId) -> (u64, Vec<GrantedPartition>) {
    let Some(grant) = group.grant(member) else { return (0, Vec::new()) };
    let partitions = grant.partitions().map(|(uid, assignment_epoch)| GrantedPartition { partition_uid: uid.0, assignment_epoch });
    (grant.epoch, partitions.collect())
}

/// The answer to a heartbeat of a member that knows the list of `epoch`. A member that is gone is told that nothing has changed; its next heartbeat
/// is refused.
fn heartbeat_meta(group: &Group, member: MemberId, epoch: u64) -> Vec<u8> {
    let (now_epoch, partitions) = granted(group, member);
    let has_news = now_epoch != 0 && now_epoch != epoch;
    let reply = HeartbeatGroupReply {
        epoch: if has_news { now_epoch } else { epoch },
        partitions: if has_news { List::of(&partitions) } else { List::of(&[]) },
    };
    let mut meta = Vec::new();
    reply.encode(&mut meta);
    meta
}

/// Topics that came, went, or have other partitions than before.
fn changed_topics<'a>(before: &'a View, now: &'a View) -> BTreeSet<&'a str> {
    let is_same = |a: &TopicView, b: &TopicView| a.uid == b.uid && a.partitions.len() == b.partitions.len();
    let differs = |topic: &&TopicView, other: &View| !other.topic(&topic.name).is_some_and(|found| is_same(topic, found));
    let gone = before.topics().iter().filter(|topic| differs(topic, now));
    gone.chain(now.topics().iter().filter(|topic| differs(topic, before))).map(|topic| topic.name.as_str()).collect()
}

/// Whether a topic or a consumer group of `before` is not there any more.
fn is_anything_gone(before: &View, now: &View) -> bool {
    let lacks_topic = |topic: &TopicView| now.topic(&topic.name).is_none_or(|found| found.uid != topic.uid);
    before.topics().iter().any(lacks_topic) || before.groups().iter().any(|group| now.group_by_uid(group.uid).is_none())
}

/// What tells a group the partitions of a topic.
fn partitions_in(view: &View) -> impl Fn(&str, &mut Vec<PartitionUid>) {
    |name, out| {
        if let Some(topic) = view.topic(name) {
            out.extend(topic.partitions.iter().map(|partition| partition.uid));
        }
    }
}

/// An epoch above all that any group had before now: they begin here, and rise by one at a time.
fn epoch_of(now: Now) -> u64 {
    u64::try_from(now.utc_us).unwrap_or(0).max(1)
}

/// From when on a session counts.
fn heard_at(now: Now, mutants: Mutants) -> u64 {
    if mutants.has(Mutant::KeepSilentMembers) { now.mono_us + NEVER_US } else { now.mono_us }
}

fn instance_of(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl Shard {
    /// The home of `uid` on this shard.
    fn check_home(&self, uid: u64) -> Result<SubscriptionUid, ApiError> {
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        let uid = self.known_group(uid)?;
        let place = self.view.group_by_uid(uid).expect("known");
        if !self.has_group(place.home) {
            return Err(ApiError { code: ErrorCode::NotLeader, message: String::new(), next: self.leader_address(place.home) });
        }
        self.check_led(place.home)?;
        // Who was not heard by a majority lately does not know of what another leader may have done.
        if self.groups.leader_term(place.home).is_none() || !self.is_state_ready(place.home) {
            return Err(ApiError::of(ErrorCode::NotReady));
        }
        Ok(uid)
    }

    pub(super) fn join_group(&mut self, now: Now, caller: Caller, frame: &Frame<'_>) -> Result<Taken, ApiError> {
        let request = JoinGroupRequest::decode(frame.meta)?;
        let uid = self.check_home(request.group_uid)?;
        if self.members.answer_count >= ANSWERS_MAX {
            return Ok(Taken::Blocked);
        }
        let place = self.view.group_by_uid(uid).expect("known");
        if self.members.is_retired(now, uid) {
            return Err(ApiError::new(ErrorCode::UnknownGroup, format!("group {:?} is being deleted: find it again", place.name)));
        }
        let topics: Vec<&str> = request.topics.iter().collect();
        api::groups::check_topics(&self.view, &topics)?;
        let comes_back = self.members.of(uid).is_some_and(|group| group.has_instance(request.instance));
        if self.members.member_count() >= SHARD_MEMBERS_MAX && !comes_back {
            let message = format!("shard {} is home to {SHARD_MEMBERS_MAX} members of consumer groups, its limit", self.id);
            return Err(ApiError::new(ErrorCode::LimitExceeded, message));
        }
        let (first_epoch, mutants) = (epoch_of(now), self.log.mutants());
        let home = self.members.homes.entry(uid).or_insert_with(|| Home::new(place.home, Group::new(uid, first_epoch)));
        let join = membership::Join {
            instance: instance_of(request.instance),
            client: request.client,
            topics: &topics,
            session_timeout_ms: request.session_timeout_ms,
            assignor: request.assignor,
            only_if_empty: request.flags.has(JoinFlags::ALONE),
        };
        let partitions_of = partitions_in(&self.view);
        let heard_us = heard_at(now, mutants);
        let joined = home.group.join(heard_us, &join, &partitions_of, &mut home.changes);
        home.active_us = now.utc_us;
        let member = joined.map_err(|error| ApiError::from(&error))?;
        let (epoch, partitions) = granted(&home.group, member);
        let mut meta = Vec::new();
        JoinGroupReply { member_id: member.0, epoch, partitions: List::of(&partitions) }.encode(&mut meta);
        home.answers.push(Answer { caller, meta });
        self.members.answer_count += 1;
        self.metrics.counters.group_joins += 1;
        self.members.touch(now, uid);
        Ok(Taken::Yes)
    }

    pub(super) fn heartbeat_group(&mut self, now: Now, caller: Caller, frame: &Frame<'_>) -> Result<Taken, ApiError> {
        let request = HeartbeatGroupRequest::decode(frame.meta)?;
        let uid = self.check_home(request.group_uid)?;
        if self.members.answer_count >= ANSWERS_MAX {
            return Ok(Taken::Blocked);
        }
        let topics: Vec<&str> = request.topics.iter().collect();
        api::groups::check_topics(&self.view, &topics)?;
        let Some(home) = self.members.homes.get_mut(&uid) else { return Err(ApiError::from(&MembershipError::UnknownMember)) };
        let mutants = self.log.mutants();
        let mut member = MemberId(request.member_id);
        if mutants.has(Mutant::HearReplacedMember)
            && let Some(other) =
                home.group.members().find(|other| other.instance.is_some() && other.instance == instance_of(request.instance))
        {
            member = other.id;
        }
        let timeout_ms = home.group.settings().map_or(0, |settings| settings.session_timeout_ms);
        let heartbeat = membership::Heartbeat {
            instance: instance_of(request.instance),
            acked_epoch: match mutants.has(Mutant::TakeListAsHeard) {
                true => home.group.grant(member).map_or(0, |grant| grant.epoch),
                false => request.epoch,
            },
            // Nothing else may come over the connection meanwhile: it must not be taken for an idle one.
            wait_ms: request.wait_ms.min(timeout_ms / 3).min((self.settings.connection_idle_timeout_us / 2000) as u32),
            topics: request.flags.has(HeartbeatFlags::TOPICS).then_some(topics.as_slice()),
        };
        let partitions_of = partitions_in(&self.view);
        let heard_us = heard_at(now, mutants);
        home.group.heartbeat(heard_us, member, &heartbeat, &partitions_of, &mut home.changes).map_err(|error| ApiError::from(&error))?;
        home.active_us = now.utc_us;
        // The one before, if it is still held, has nothing to wait for any more.
        if let Some(earlier) = home.parked.remove(&member) {
            let meta = heartbeat_meta(&home.group, member, earlier.epoch);
            home.answers.push(Answer { caller: earlier.caller, meta });
            self.members.answer_count += 1;
        }
        let until_us = now.mono_us + u64::from(heartbeat.wait_ms) * 1000;
        home.parked.insert(member, Parked { caller, epoch: request.epoch, until_us });
        self.members.touch(now, uid);
        Ok(Taken::Yes)
    }

    pub(super) fn leave_group(&mut self, now: Now, caller: Caller, frame: &Frame<'_>) -> Result<Taken, ApiError> {
        let request = LeaveGroupRequest::decode(frame.meta)?;
        let uid = self.check_home(request.group_uid)?;
        if self.members.answer_count >= ANSWERS_MAX {
            return Ok(Taken::Blocked);
        }
        let Some(home) = self.members.homes.get_mut(&uid) else { return Err(ApiError::from(&MembershipError::UnknownMember)) };
        let (member, instance) = (MemberId(request.member_id), instance_of(request.instance));
        let partitions_of = partitions_in(&self.view);
        let keep = request.flags.has(LeaveFlags::KEEP);
        home.group.leave(now.mono_us, member, instance, keep, &partitions_of, &mut home.changes).map_err(|error| ApiError::from(&error))?;
        let mut meta = Vec::new();
        LeaveGroupReply {}.encode(&mut meta);
        home.answers.push(Answer { caller, meta });
        self.members.answer_count += 1;
        self.members.touch(now, uid);
        Ok(Taken::Yes)
    }

    /// A new view has taken the place of `before`: groups that are gone are forgotten, found ones begin, and what topics have now changes who owns what.
    pub(super) fn adopt_groups(&mut self, now: Now, before: &View, effects: &mut Effects) {
        let view = Arc::clone(&self.view);
        if is_anything_gone(before, &view) || before.epoch == 0 {
            self.drop_offsets_of_the_gone();
        }
        let is_mine = |uid: SubscriptionUid| view.group_by_uid(uid).filter(|g| self.group_ids.contains(&g.home));
        let mut changed = Vec::new();
        for (uid, found) in std::mem::take(&mut self.members.unclaimed) {
            let is_served = is_mine(uid).is_some_and(|place| self.is_state_ready(place.home));
            if !is_served && !self.pipelines.is_alone() {
                if !self.is_group_gone(uid) {
                    self.members.unclaimed.insert(uid, found);
                }
                continue;
            }
            if let Some(place) = is_mine(uid) {
                let durable = match found {
                    Ok(durable) => durable,
                    Err(error) => {
                        return self.fail(&format!("what is stored of consumer group {:?} cannot be read: {error}", place.name), effects);
                    }
                };
                let mut group = Group::resume(uid, durable, now.mono_us);
                group.raise_epoch(epoch_of(now));
                if self.log.mutants().has(Mutant::DropMembersAtStart) {
                    let _dropped = group.expire(u64::MAX, &partitions_in(&view), &mut Vec::new());
                }
                self.members.homes.insert(uid, Home { active_us: now.utc_us, ..Home::new(place.home, group) });
                changed.push(uid);
            }
        }
        self.members.retired_until_us.retain(|uid, until_us| now.mono_us < *until_us && view.group_by_uid(*uid).is_some());
        let gone: Vec<_> = self.members.homes.keys().copied().filter(|uid| is_mine(*uid).is_none()).collect();
        for uid in gone {
            let home = self.members.homes.remove(&uid).expect("listed above");
            self.members.dirty.retain(|dirty| *dirty != uid);
            self.members.deadlines.remove(&(home.deadline_us, uid));
            self.members.answer_count -= home.answers.len();
            let callers = home.answers.into_iter().map(|answer| answer.caller).chain(home.parked.into_values().map(|parked| parked.caller));
            callers.for_each(|caller| effects.refuse(&caller, ErrorCode::UnknownGroup, "", ""));
        }
        // To compute who is to have what goes over all partitions of a group's topics: for those groups alone that read one of these.
        let topics = changed_topics(before, &view);
        let reads_one = |home: &Home| home.group.members().any(|m| m.topics.iter().any(|topic| topics.contains(topic.as_str())));
        changed.extend(self.members.homes.iter().filter(|(_, home)| !topics.is_empty() && reads_one(home)).map(|(uid, _)| *uid));
        changed.sort_unstable();
        changed.dedup();
        let partitions_of = partitions_in(&view);
        let exists = |uid: PartitionUid| view.find_partition(uid).is_some();
        for uid in changed {
            let home = self.members.homes.get_mut(&uid).expect("at home");
            home.group.on_partitions_changed(&partitions_of, &exists, &mut home.changes);
            self.members.touch(now, uid);
        }
        effects.wake_at(now.mono_us);
    }

    /// Members whose sessions are over are dropped, and heartbeats whose time is over answered.
    pub(super) fn on_group_deadline(&mut self, now: Now) {
        // A node that goes down drops nobody: sessions begin anew with the next start.
        if self.phase != Phase::Serving {
            return;
        }
        let view = Arc::clone(&self.view);
        let partitions_of = partitions_in(&view);
        let due: Vec<_> = self.members.deadlines.iter().take_while(|(at_us, _)| *at_us <= now.mono_us).map(|(_, uid)| *uid).collect();
        for uid in due {
            let home = self.members.homes.get_mut(&uid).expect("who has a deadline is at home");
            let dropped = home.group.expire(now.mono_us, &partitions_of, &mut home.changes);
            if !dropped.is_empty() {
                tracing::info!(shard = self.id.0, group = uid.0, members = ?dropped, "members of a consumer group were not heard of and are dropped");
            }
            self.metrics.counters.group_members_dropped += dropped.len() as u64;
            self.members.touch(now, uid);
        }
    }

    /// What was decided in this turn goes into the log, as far as there is room; answers wait for it.
    pub(super) fn write_groups(&mut self, now: Now, effects: &mut Effects) {
        if self.failure().is_some() {
            return;
        }
        let mut waits = false;
        for uid in std::mem::take(&mut self.members.dirty) {
            waits |= !self.write_group(now, uid, effects);
        }
        if waits {
            // Room comes back with a write that completes, or within this time.
            effects.wake_at(now.mono_us + 1000);
        }
        self.members.release(&self.acks, effects);
    }

    /// Whether all of one group is in the log.
    fn write_group(&mut self, now: Now, uid: SubscriptionUid, effects: &mut Effects) -> bool {
        let home = self.members.homes.get_mut(&uid).expect("a dirty group is at home");
        home.is_dirty = false;
        let changes = std::mem::take(&mut home.changes);
        home.payloads.extend(membership::encode(uid, &changes));
        let replica_group = home.replica_group;
        let mut payloads = std::mem::take(&mut home.payloads);
        let mut last_block = home.last_block;
        let mut is_refused = None;
        while let Some(payload) = payloads.front() {
            match self.append_payload(now, replica_group, payload, effects) {
                Ok(Some(appended)) => last_block = appended.block,
                Ok(None) => break,
                Err(error) => {
                    is_refused = Some(error);
                    break;
                }
            }
            payloads.pop_front();
        }
        let home = self.members.homes.get_mut(&uid).expect("found above");
        (home.payloads, home.last_block) = (payloads, last_block);
        if let Some(error) = is_refused {
            // The log takes nothing any more, and says so by itself: whoever waits is told with the others.
            tracing::warn!(shard = self.id.0, group = uid.0, "members of a consumer group cannot be written: {}", error.message);
        }
        if !home.payloads.is_empty() {
            home.is_dirty = true;
            self.members.dirty.push(uid);
            return false;
        }
        if self.log.mutants().has(Mutant::TellListEarly) {
            self.members.answer_count -= home.answers.len();
            home.answers
                .drain(..)
                .for_each(|told| effects.reply(&told.caller, 0, &mut Vec::new(), |out| out.extend_from_slice(&told.meta)));
        }
        let bit = self.acks.bit_of(replica_group);
        home.answers.drain(..).for_each(|answer| self.members.waiting.push(bit, last_block, answer));
        true
    }

    pub(super) fn count_groups(&mut self) {
        let gauges = &mut self.metrics.gauges;
        gauges.consumer_groups = self.members.home_count() as u64;
        gauges.group_members = self.members.member_count() as u64;
        gauges.committed_offsets = self.offsets.table.len() as u64;
    }
}
