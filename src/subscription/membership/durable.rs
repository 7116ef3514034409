//! What of a group must survive a restart, and the only functions that change it: for operations and for records of the log alike.
//!
//! Because both go through the same functions, a state that is restored is the one that was written. Applying records:
//!
//! - A list opens with `Change::Group`. Records under an epoch below the state's own are known already and passed over; those of the same
//!   epoch are taken in once more, which changes nothing, because each says what something is, not what becomes of it.
//! - `Gone` frees all that the member held. A record that gives a partition to one takes it from another.
//! - A member's `granted_epoch` follows from the records of its partitions: it is the newest epoch at which its grant got or lost one.
//!
//! Invariants: `holders` and `instances` are what the members say, the other way round; ids and epochs of everything are at most the
//! group's epoch.
//!
//! Not here: targets, deadlines, acknowledgements (`group.rs`): they do not last. Bytes of records (`stored.rs`).

use super::Settings;
use super::stored::{Change, topic_records};
use crate::ids::{MemberId, PartitionUid};
use std::collections::BTreeMap;
use std::fmt;

/// A partition that a member has to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Release {
    /// Assignment epoch under which the member had it.
    pub(super) assignment_epoch: u64,
    /// The group's epoch at which it was taken out of the member's grant: once the member acknowledges this or a later one, it is free.
    pub(super) since: u64,
}

/// A member as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Member {
    /// The name that survives the process, of static members.
    pub(super) instance: Option<String>,
    /// What the client says of itself.
    pub(super) client: String,
    /// In order, each once. Empty only where the log ends in the middle of an operation.
    pub(super) topics: Vec<String>,
    /// Whether it is an administrator who has the group for itself.
    pub(super) is_exclusive: bool,
    /// What it may own, with assignment epochs.
    pub(super) granted: BTreeMap<PartitionUid, u64>,
    /// What it has to give up and may own still.
    pub(super) releasing: BTreeMap<PartitionUid, Release>,
    /// The group's epoch at which `granted` last changed.
    pub(super) granted_epoch: u64,
}

/// Where a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    Granted { member: MemberId, assignment_epoch: u64 },
    Releasing { member: MemberId, release: Release },
}

/// The part of a group that lasts. Two groups with equal ones are the same group to whoever comes after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The group's epoch, from 1, strictly rising.
    pub(super) epoch: u64,
    /// `None` before the first member.
    pub(super) settings: Option<Settings>,
    pub(super) members: BTreeMap<MemberId, Member>,
    /// Who has a partition, granted or releasing.
    holders: BTreeMap<PartitionUid, MemberId>,
    instances: BTreeMap<String, MemberId>,
}

/// Records that no group can have written. The state is of no use afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// A list that does not open with the group's epoch, or with one that no group comes to.
    NoEpoch,
    /// The group's settings are missing, and there are members.
    NoSettings,
    /// A record about a member that is not there.
    UnknownMember(MemberId),
    /// A member with the id 0, or with one above the group's epoch.
    MemberId(MemberId),
    /// A second member with an instance name.
    InstanceTwice(MemberId),
    /// Topics of a member of which those before are missing, or more than a member may have.
    Topics(MemberId),
    /// A partition with epochs above the group's, or of which it is given up before it was got.
    PartitionEpoch(PartitionUid),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::NoEpoch => f.write_str("records of a consumer group without an epoch"),
            RestoreError::NoSettings => f.write_str("members of a consumer group without settings"),
            RestoreError::UnknownMember(member) => write!(f, "a record about member {member}, which is not in the group"),
            RestoreError::MemberId(member) => write!(f, "a member {member}, which no epoch of the group can have made"),
            RestoreError::InstanceTwice(member) => write!(f, "member {member} has the instance name of another one"),
            RestoreError::Topics(member) => write!(f, "topics of member {member} are not a list of one"),
            RestoreError::PartitionEpoch(partition) => write!(f, "partition {partition} has an epoch that is not of the group"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Durable {
    /// A group without members. `epoch` is what its creator gave it.
    pub fn new(epoch: u64) -> Durable {
        Durable { epoch, settings: None, members: BTreeMap::new(), holders: BTreeMap::new(), instances: BTreeMap::new() }
    }

    pub(super) fn holder(&self, partition: PartitionUid) -> Option<MemberId> {
        self.holders.get(&partition).copied()
    }

    /// Every partition that somebody has.
    pub(super) fn held(&self) -> impl Iterator<Item = PartitionUid> + '_ {
        self.holders.keys().copied()
    }

    pub(super) fn by_instance(&self, instance: &str) -> Option<MemberId> {
        self.instances.get(instance).copied()
    }

    pub(super) fn member(&self, id: MemberId) -> &Member {
        self.members.get(&id).unwrap_or_else(|| panic!("member {id} is in the group"))
    }

    fn member_mut(&mut self, id: MemberId) -> &mut Member {
        self.members.get_mut(&id).unwrap_or_else(|| panic!("member {id} is in the group"))
    }

    pub(super) fn place(&self, partition: PartitionUid) -> Place {
        let Some(id) = self.holder(partition) else { return Place::Free };
        let member = self.member(id);
        match (member.granted.get(&partition), member.releasing.get(&partition)) {
            (Some(&assignment_epoch), None) => Place::Granted { member: id, assignment_epoch },
            (None, Some(&release)) => Place::Releasing { member: id, release },
            both => panic!("partition {partition} of member {id} is in one place: {both:?}"),
        }
    }

    /// Puts a member in, or sets all of it but its partitions.
    pub(super) fn set_member(&mut self, id: MemberId, member: Member) {
        assert!(id.0 != 0 && member.granted.is_empty() && member.releasing.is_empty(), "member {id} comes without partitions");
        if let Some(before) = self.members.get_mut(&id) {
            let before = std::mem::take(before);
            if let Some(instance) = &before.instance {
                self.instances.remove(instance);
            }
            self.members.insert(id, Member { granted: before.granted, releasing: before.releasing, ..member });
        } else {
            self.members.insert(id, member);
        }
        if let Some(instance) = &self.members[&id].instance {
            let other = self.instances.insert(instance.clone(), id);
            assert!(other.is_none(), "instance {instance} of member {id} is of member {other:?} too");
        }
    }

    /// Takes a member out; what it held is free.
    pub(super) fn remove_member(&mut self, id: MemberId) -> Option<Member> {
        let member = self.members.remove(&id)?;
        for partition in member.granted.keys().chain(member.releasing.keys()) {
            let holder = self.holders.remove(partition);
            assert_eq!(holder, Some(id), "partition {partition} is held by its holder");
        }
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        Some(member)
    }

    /// Gives a free partition to a member.
    pub(super) fn grant(&mut self, partition: PartitionUid, id: MemberId, assignment_epoch: u64) {
        let holder = self.holders.insert(partition, id);
        assert!(holder.is_none(), "partition {partition} is granted to member {id} while member {holder:?} holds it");
        let member = self.member_mut(id);
        member.granted.insert(partition, assignment_epoch);
        member.granted_epoch = member.granted_epoch.max(assignment_epoch);
    }

    /// Takes a partition out of its member's grant; the member holds it until `free`.
    pub(super) fn release(&mut self, partition: PartitionUid, id: MemberId, since: u64) {
        let member = self.member_mut(id);
        let assignment_epoch = member.granted.remove(&partition);
        let assignment_epoch = assignment_epoch.unwrap_or_else(|| panic!("partition {partition} is granted to member {id}"));
        member.releasing.insert(partition, Release { assignment_epoch, since });
        member.granted_epoch = member.granted_epoch.max(since);
    }

    /// Takes a partition from its holder, if it has one. To one that had it granted this is a change of its grant, at the group's epoch.
    pub(super) fn free(&mut self, partition: PartitionUid) {
        let Some(id) = self.holders.remove(&partition) else { return };
        let epoch = self.epoch;
        let member = self.member_mut(id);
        if member.granted.remove(&partition).is_some() {
            member.granted_epoch = epoch;
        } else {
            let was_releasing = member.releasing.remove(&partition).is_some();
            assert!(was_releasing, "partition {partition} is with its holder {id}");
        }
    }

    /// Takes in records of the log, or of a snapshot when nothing was taken in before.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), RestoreError> {
        if !matches!(changes.first(), None | Some(Change::Group { .. })) {
            return Err(RestoreError::NoEpoch);
        }
        let mut is_known = false;
        for change in changes {
            if let Change::Group { epoch, settings } = change {
                // They are microseconds since 1970, and a few more: half of the range leaves room to go on.
                if *epoch > u64::MAX / 2 {
                    return Err(RestoreError::NoEpoch);
                }
                is_known = *epoch < self.epoch;
                if !is_known {
                    (self.epoch, self.settings) = (*epoch, *settings);
                }
            } else if !is_known {
                self.apply_one(change)?;
            }
            if self.settings.is_none() && !self.members.is_empty() {
                return Err(RestoreError::NoSettings);
            }
        }
        Ok(())
    }

    fn apply_one(&mut self, change: &Change) -> Result<(), RestoreError> {
        match change {
            Change::Group { .. } => unreachable!("taken in by the caller"),
            Change::Member { member, granted_epoch, is_exclusive, instance, client } => {
                if member.0 == 0 || member.0 > self.epoch || *granted_epoch > self.epoch {
                    return Err(RestoreError::MemberId(*member));
                }
                if instance.as_ref().and_then(|name| self.by_instance(name)).is_some_and(|other| other != *member) {
                    return Err(RestoreError::InstanceTwice(*member));
                }
                let (instance, client) = (instance.clone(), client.clone());
                let fresh = Member { instance, client, is_exclusive: *is_exclusive, granted_epoch: *granted_epoch, ..Member::default() };
                self.set_member(*member, fresh);
            }
            Change::Topics { member, first, topics } => {
                let stored = &mut self.members.get_mut(member).ok_or(RestoreError::UnknownMember(*member))?.topics;
                let first = usize::from(*first);
                if first > stored.len() || first + topics.len() > super::TOPICS_PER_MEMBER_MAX {
                    return Err(RestoreError::Topics(*member));
                }
                stored.truncate(first);
                stored.extend_from_slice(topics);
            }
            Change::Gone { member } => {
                self.remove_member(*member);
            }
            Change::Granted { partition, member, assignment_epoch } => {
                self.check_held(*partition, *member, *assignment_epoch)?;
                self.take_over(*partition, *member);
                self.grant(*partition, *member, *assignment_epoch);
            }
            Change::Releasing { partition, member, assignment_epoch, since } => {
                self.check_held(*partition, *member, (*since).max(*assignment_epoch))?;
                if assignment_epoch >= since {
                    return Err(RestoreError::PartitionEpoch(*partition));
                }
                self.take_over(*partition, *member);
                self.grant(*partition, *member, *assignment_epoch);
                self.release(*partition, *member, *since);
            }
            Change::Free { partition } => self.free(*partition),
        }
        Ok(())
    }

    fn check_held(&self, partition: PartitionUid, member: MemberId, epoch: u64) -> Result<(), RestoreError> {
        if !self.members.contains_key(&member) {
            return Err(RestoreError::UnknownMember(member));
        }
        if epoch > self.epoch || epoch < member.0 { Err(RestoreError::PartitionEpoch(partition)) } else { Ok(()) }
    }

    /// Before a record gives a partition to `to`: takes it from whoever has it. From `to` itself it is taken without a trace: the record
    /// says what becomes of it there.
    fn take_over(&mut self, partition: PartitionUid, to: MemberId) {
        if self.holder(partition) == Some(to) {
            self.holders.remove(&partition);
            let member = self.member_mut(to);
            member.granted.remove(&partition);
            member.releasing.remove(&partition);
        } else {
            self.free(partition);
        }
    }

    /// The records that describe all of it.
    pub fn snapshot(&self) -> Vec<Change> {
        let mut changes = vec![Change::Group { epoch: self.epoch, settings: self.settings }];
        for id in self.members.keys() {
            self.tell_member(*id, &mut changes);
        }
        for partition in self.held() {
            self.tell_place(partition, &mut changes);
        }
        changes
    }

    /// Adds the records that describe one member without its partitions.
    pub(super) fn tell_member(&self, id: MemberId, changes: &mut Vec<Change>) {
        let member = self.member(id);
        changes.push(Change::Member {
            member: id,
            granted_epoch: member.granted_epoch,
            is_exclusive: member.is_exclusive,
            instance: member.instance.clone(),
            client: member.client.clone(),
        });
        topic_records(id, &member.topics, changes);
    }

    /// Adds the record of where a partition is.
    pub(super) fn tell_place(&self, partition: PartitionUid, changes: &mut Vec<Change>) {
        changes.push(match self.place(partition) {
            Place::Free => Change::Free { partition },
            Place::Granted { member, assignment_epoch } => Change::Granted { partition, member, assignment_epoch },
            Place::Releasing { member, release: Release { assignment_epoch, since } } => {
                Change::Releasing { partition, member, assignment_epoch, since }
            }
        });
    }
}
