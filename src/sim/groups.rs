//! What is known of consumer groups and their members, and what follows from it for what the node says.
//!
//! A member is *sure* as long as its session cannot be over: it joined, a heartbeat of it that was sent less than the session timeout ago was answered, it
//! did not leave, and nobody joined under its instance name since.
//!
//! Checked: a partition is not given to another member while a sure one has it (it has what it was told, until it says that it put in force a
//! list without it); a sure member is not refused; what a member keeps stays under its assignment epoch; epochs of lists do not go back, and ids of
//! members rise; who was replaced by its name is refused; a group that was deleted is not there any more, and one that has a sure member is not
//! deleted; lists and descriptions have who is sure, with what it has, and nobody who is known to be gone.
//!
//! Not here: offsets (`claims.rs`), what members do (`members.rs`).

use super::Check;
use std::collections::BTreeMap;
use tramline_wire::group::{Assignor, DescribeGroupReply, GrantedPartition, ListGroupsReply};

/// A partition with its assignment epoch.
pub(super) type Owned = BTreeMap<u64, u64>;

/// A member as its client sees it.
#[derive(Debug)]
struct Member {
    instance: String,
    /// When it sent what showed last that it is alive: its join, or a heartbeat that was answered.
    alive_us: u64,
    joined_us: u64,
    /// The epoch of the newest list it was told.
    told_epoch: u64,
    /// What it may own, by that list or by the one in force: the epoch, and since when it is known.
    has: BTreeMap<u64, (u64, u64)>,
    leaves: bool,
    /// Somebody has sent a join under its instance name.
    has_rival: bool,
    /// Since when that one is known to have joined.
    replaced_us: Option<u64>,
}

/// One group that a client was told of.
#[derive(Debug, Default)]
struct Group {
    name: usize,
    known_us: u64,
    delete_sent: bool,
    deleted_us: Option<u64>,
    /// Somebody has asked to be its only member.
    may_be_alone: bool,
    members: BTreeMap<u64, Member>,
    /// Members that are known to be gone: since when, and as long as which process lives. A refusal is not durable, as a leave is: a crash may bring
    /// the member back, until its session is over once more.
    gone: BTreeMap<u64, (u64, Option<u64>)>,
    /// The highest id of a member that is known.
    top_id: u64,
    joins: Vec<Joining>,
}

/// A join of a static member.
#[derive(Debug)]
struct Joining {
    instance: String,
    sent_us: u64,
    /// From then on it does nothing any more.
    over_us: Option<u64>,
}

/// What the clients agree on for one name.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) assignor: Assignor,
    pub(super) timeout_us: u64,
    pub(super) topics: Vec<String>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) names: Vec<Name>,
    /// By uid.
    known: BTreeMap<u64, Group>,
    /// The disk has decayed: who was a member may be forgotten.
    pub(super) decayed: bool,
    /// And groups with it.
    pub(super) control_lost: bool,
    /// Number of the process that serves now.
    pub(super) life: u64,
}

impl Groups {
    /// Whether a member is in its group for certain, and was at `since_us`. The node's clock is a thousandth fast at most.
    fn is_sure(&self, group: &Group, member: &Member, since_us: u64, now_us: u64) -> bool {
        let sure_us = self.names[group.name].timeout_us / 1000 * 998;
        let in_time = now_us < member.alive_us + sure_us && member.joined_us <= since_us;
        in_time && !member.leaves && !member.has_rival && group.deleted_us.is_none() && !self.decayed
    }

    /// The members of a group that are sure, and were at `since_us`.
    fn sure(&self, uid: u64, since_us: u64, now_us: u64) -> impl Iterator<Item = (&u64, &Member)> {
        let group = self.known.get(&uid);
        group
            .into_iter()
            .flat_map(|group| &group.members)
            .filter(move |(_, member)| self.is_sure(&self.known[&uid], member, since_us, now_us))
    }

    // --- groups -----------------------------------------------------------------------------------------------------------------

    /// The group of a name was told.
    pub(super) fn on_found(&mut self, name: usize, uid: u64, created: bool, (sent_us, now_us): (u64, u64)) -> Check {
        // A uid that was lost with its group may be given again.
        self.known.retain(|known, group| *known != uid || group.name == name || !self.control_lost);
        if let Some(group) = self.known.get(&uid) {
            let is_back = group.deleted_us.is_some_and(|deleted_us| deleted_us <= sent_us);
            // Who created it may be told so after another one has found it.
            let is_new = created && group.known_us <= sent_us;
            if group.name != name || (is_back || is_new) && !self.control_lost {
                let text = &self.names[name].name;
                return Err(format!("group {text} is {uid} (created: {created}), known as {group:?}"));
            }
            return Ok(());
        }
        let other = self.known.iter().find(|(_, group)| group.name == name && !group.delete_sent);
        if let Some((other, _)) = other.filter(|_| !self.control_lost) {
            let text = &self.names[name].name;
            return Err(format!("group {text} was {other} and is {uid}, and nobody deleted it"));
        }
        self.known.insert(uid, Group { name, known_us: now_us, ..Group::default() });
        Ok(())
    }

    /// A request that named a group was answered well.
    pub(super) fn on_used(&self, uid: u64, sent_us: u64) -> Check {
        match self.known.get(&uid).and_then(|group| group.deleted_us) {
            Some(deleted_us) if deleted_us <= sent_us && !self.control_lost => Err(format!("group {uid} was deleted, and is there")),
            _ => Ok(()),
        }
    }

    /// A request that named a group was told that there is none.
    pub(super) fn on_unknown(&self, uid: u64) -> Check {
        match self.known.get(&uid) {
            Some(group) if !group.delete_sent && !self.control_lost => Err(format!("group {uid} is unknown, and nobody deleted it")),
            _ => Ok(()),
        }
    }

    pub(super) fn on_delete_sent(&mut self, name: usize) {
        self.known.values_mut().filter(|group| group.name == name).for_each(|group| group.delete_sent = true);
    }

    /// All groups of the name that were known when the request was sent are gone.
    pub(super) fn on_deleted(&mut self, name: usize, (sent_us, now_us): (u64, u64)) -> Check {
        let there = |(_, group): &(&u64, &Group)| group.name == name && group.known_us <= sent_us && group.deleted_us.is_none();
        let uids: Vec<u64> = self.known.iter().filter(there).map(|(uid, _)| *uid).collect();
        for uid in uids {
            if let Some((member, _)) = self.sure(uid, sent_us, now_us).next() {
                return Err(format!("group {uid} is deleted, and {member} is a member of it"));
            }
            self.known.get_mut(&uid).expect("listed above").deleted_us = Some(now_us);
        }
        Ok(())
    }

    /// Whether nobody has asked to delete the group.
    pub(super) fn is_live(&self, uid: u64) -> bool {
        self.known.get(&uid).is_some_and(|group| !group.delete_sent)
    }

    // --- members ----------------------------------------------------------------------------------------------------------------

    /// A join is being sent. Answers its number.
    pub(super) fn on_join_sent(&mut self, uid: u64, instance: &str, alone: bool, now_us: u64) -> usize {
        let Some(group) = self.known.get_mut(&uid) else { return 0 };
        group.may_be_alone |= alone;
        let rivals = group.members.values_mut().filter(|member| !instance.is_empty() && member.instance == instance);
        rivals.for_each(|member| member.has_rival = true);
        group.joins.push(Joining { instance: instance.to_owned(), sent_us: now_us, over_us: None });
        group.joins.len() - 1
    }

    /// A join is answered, or its connection is gone.
    pub(super) fn on_join_over(&mut self, uid: u64, number: usize, over_us: u64) {
        if let Some(join) = self.known.get_mut(&uid).and_then(|group| group.joins.get_mut(number)) {
            join.over_us = Some(over_us);
        }
    }

    /// The join `number` made a member; `top_id` is the highest id that was known when it was sent. The list is checked by `on_list`.
    pub(super) fn on_joined(&mut self, uid: u64, id: u64, (number, top_id): (usize, u64), now_us: u64) -> Check {
        let decayed = self.decayed;
        let Some(group) = self.known.get_mut(&uid) else { return Ok(()) };
        let Joining { instance, sent_us, .. } = &group.joins[number];
        let (instance, sent_us) = (instance.clone(), *sent_us);
        if (id <= top_id || group.members.contains_key(&id) || group.gone.contains_key(&id)) && !decayed {
            return Err(format!("group {uid}: a member that joins has the id {id}, and {top_id} was given before"));
        }
        group.top_id = group.top_id.max(id);
        let rivals = group.members.iter_mut().filter(|(other, member)| !instance.is_empty() && member.instance == instance && **other < id);
        rivals.for_each(|(_, member)| member.replaced_us = member.replaced_us.or(Some(now_us)));
        // Of two joins under one name that were under way together either may have come second.
        let may_be_later = |(other, join): (usize, &Joining)| {
            let is_over = join.over_us.is_some_and(|over_us| over_us < sent_us);
            other != number && join.instance == instance && (other > number || !is_over)
        };
        let has_rival = !instance.is_empty() && group.joins.iter().enumerate().any(may_be_later);
        let member = Member {
            instance,
            alive_us: sent_us,
            joined_us: now_us,
            told_epoch: 0,
            has: BTreeMap::new(),
            leaves: false,
            has_rival,
            replaced_us: None,
        };
        group.members.insert(id, member);
        Ok(())
    }

    /// The highest id of a member that is known now.
    pub(super) fn top_id(&self, uid: u64) -> u64 {
        self.known.get(&uid).map_or(0, |group| group.top_id)
    }

    pub(super) fn may_be_alone(&self, uid: u64) -> bool {
        self.known.get(&uid).is_some_and(|group| group.may_be_alone)
    }

    /// A heartbeat was answered well.
    pub(super) fn on_heard(&mut self, uid: u64, id: u64, sent_us: u64) -> Check {
        let decayed = self.decayed;
        let Some(member) = self.known.get_mut(&uid).and_then(|group| group.members.get_mut(&id)) else { return Ok(()) };
        if let Some(replaced_us) = member.replaced_us.filter(|replaced_us| *replaced_us <= sent_us && !decayed) {
            return Err(format!(
                "group {uid}: member {id} is heard at {sent_us}, and {:?} was joined anew by {replaced_us}",
                member.instance
            ));
        }
        member.alive_us = member.alive_us.max(sent_us);
        Ok(())
    }

    /// A member was told a list.
    pub(super) fn on_list(&mut self, uid: u64, id: u64, epoch: u64, list: &[GrantedPartition], now_us: u64) -> Check {
        let Some(group) = self.known.get(&uid) else { return Ok(()) };
        let Some(member) = group.members.get(&id) else { return Ok(()) };
        if !self.decayed {
            if epoch < member.told_epoch {
                return Err(format!("group {uid}: member {id} was told epoch {} and is told {epoch}", member.told_epoch));
            }
            for granted in list {
                self.check_granted(uid, id, epoch, granted, now_us)?;
            }
        }
        let member = self.known.get_mut(&uid).and_then(|group| group.members.get_mut(&id)).expect("found above");
        member.told_epoch = epoch;
        for granted in list {
            let known = member.has.entry(granted.partition_uid).or_insert((granted.assignment_epoch, now_us));
            known.0 = granted.assignment_epoch;
        }
        Ok(())
    }

    fn check_granted(&self, uid: u64, id: u64, epoch: u64, granted: &GrantedPartition, now_us: u64) -> Check {
        let GrantedPartition { partition_uid: partition, assignment_epoch } = *granted;
        let group = &self.known[&uid];
        if assignment_epoch > epoch || assignment_epoch < id {
            return Err(format!("group {uid}: member {id} is given {partition} of epoch {assignment_epoch} in list {epoch}"));
        }
        if let Some((had, _)) = group.members[&id].has.get(&partition).filter(|(had, _)| *had != assignment_epoch) {
            return Err(format!("group {uid}: member {id} keeps {partition}, which had epoch {had} and has {assignment_epoch}"));
        }
        let others = self.sure(uid, now_us, now_us).filter(|(other, _)| **other != id);
        for (other, member) in others {
            let lower = member.has.get(&partition).filter(|(had, _)| *had < assignment_epoch);
            if let Some((had, _)) = lower {
                return Err(format!(
                    "group {uid}: {partition} is given to {id} with epoch {assignment_epoch}, and {other} has it with epoch {had}, did not give it up and was \
                     heard of {} us ago",
                    now_us - member.alive_us
                ));
            }
            if member.has.get(&partition).is_some_and(|(had, _)| *had == assignment_epoch) {
                return Err(format!("group {uid}: {partition} is given to {id} and to {other} with epoch {assignment_epoch}"));
            }
        }
        Ok(())
    }

    /// A member says that it owns these, of `epoch`, and nothing else (but what a newer list has, if it was told one).
    pub(super) fn on_in_force(&mut self, uid: u64, id: u64, owned: &Owned) {
        if let Some(member) = self.known.get_mut(&uid).and_then(|group| group.members.get_mut(&id)) {
            member.has.retain(|partition, _| owned.contains_key(partition));
        }
    }

    pub(super) fn on_leave_sent(&mut self, uid: u64, id: u64) {
        if let Some(member) = self.known.get_mut(&uid).and_then(|group| group.members.get_mut(&id)) {
            member.leaves = true;
        }
    }

    /// A member has left.
    pub(super) fn on_left(&mut self, uid: u64, id: u64, now_us: u64) {
        self.on_gone(uid, id, (now_us, None));
    }

    fn on_gone(&mut self, uid: u64, id: u64, gone: (u64, Option<u64>)) {
        if let Some(group) = self.known.get_mut(&uid) {
            group.members.remove(&id);
            group.gone.insert(id, gone);
        }
    }

    /// A heartbeat or a leave was refused with "unknown" or "fenced".
    pub(super) fn on_dropped(&mut self, uid: u64, id: u64, is_fenced: bool, now_us: u64) -> Check {
        let Some(group) = self.known.get(&uid) else { return Ok(()) };
        let Some(member) = group.members.get(&id) else { return Ok(()) };
        if is_fenced && !member.has_rival && !self.decayed {
            return Err(format!("group {uid}: member {id} is fenced, and nobody joined as {:?}", member.instance));
        }
        if self.is_sure(group, member, now_us, now_us) {
            let silent_us = now_us - member.alive_us;
            return Err(format!("group {uid}: member {id} is dropped {silent_us} us after it was heard of"));
        }
        // Whose place is kept is described still.
        if !member.leaves {
            self.on_gone(uid, id, (now_us, Some(self.life)));
        }
        Ok(())
    }

    // --- lists and descriptions -------------------------------------------------------------------------------------------------

    pub(super) fn on_listed(&self, reply: &ListGroupsReply<'_>, (sent_us, now_us): (u64, u64)) -> Check {
        if self.control_lost {
            return Ok(());
        }
        let listed: BTreeMap<u64, (&str, u32)> = reply.groups.iter().map(|group| (group.group_uid, (group.name, group.members))).collect();
        for (uid, group) in &self.known {
            let name = &self.names[group.name].name;
            let Some((told, members)) = listed.get(uid) else {
                if group.known_us <= sent_us && !group.delete_sent {
                    return Err(format!("group {uid} ({name}) is there, and not listed: {listed:?}"));
                }
                continue;
            };
            let sure = self.sure(*uid, sent_us, now_us).count();
            let is_gone = group.deleted_us.is_some_and(|deleted_us| deleted_us <= sent_us);
            if told != name || is_gone || (*members as usize) < sure {
                return Err(format!("group {uid} ({name}, deleted: {is_gone}, {sure} members) is listed as {told} with {members}"));
            }
        }
        Ok(())
    }

    /// `is_there` says of a partition whether its topic is there for certain.
    pub(super) fn on_described(
        &self,
        name: usize,
        reply: &DescribeGroupReply<'_>,
        (sent_us, now_us): (u64, u64),
        is_there: impl Fn(u64) -> bool,
    ) -> Check {
        let uid = reply.group_uid;
        let Some(group) = self.known.get(&uid) else { return Ok(()) };
        let (known, is_gone) = (&self.names[name], group.deleted_us.is_some_and(|deleted_us| deleted_us <= sent_us));
        let timeout_us = u64::from(reply.session_timeout_ms) * 1000;
        let fits = reply.members.is_empty() || reply.assignor == known.assignor && timeout_us == known.timeout_us;
        if (group.name != name || reply.name != known.name || is_gone || !fits) && !self.control_lost {
            return Err(format!("group {uid} ({known:?}, deleted: {is_gone}) is described as {reply:?}"));
        }
        if self.decayed {
            return Ok(());
        }
        let is_gone_since = |(gone_us, life): &(u64, Option<u64>)| *gone_us <= sent_us && life.is_none_or(|life| life == self.life);
        for told in reply.members.iter() {
            if group.gone.get(&told.member_id).is_some_and(is_gone_since) {
                return Err(format!("group {uid}: member {} is gone, and described", told.member_id));
            }
        }
        for (id, member) in self.sure(uid, sent_us, now_us) {
            if !reply.members.iter().any(|told| told.member_id == *id && told.instance == member.instance) {
                return Err(format!("group {uid}: {id} is a member, and not described: {reply:?}"));
            }
            for (partition, (epoch, _)) in member.has.iter().filter(|(uid, (_, since_us))| *since_us <= sent_us && is_there(**uid)) {
                let owner = reply.partitions.iter().find(|told| told.uid == *partition).map(|told| told.member_id);
                if owner != Some(*id) {
                    return Err(format!("group {uid}: {partition} is owned by {id} (epoch {epoch}), and described as owned by {owner:?}"));
                }
            }
        }
        Ok(())
    }
}
