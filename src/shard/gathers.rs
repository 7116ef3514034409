//! Questions over all shards: asked of each, answered once all have said what they know.
//!
//! Invariants: as many are open as [`GATHERS_MAX`] and a few of the node's own; each ends in one answer. Numbers of a partition are told by who leads it and by
//! nobody else: a replica that follows may be behind, and whoever asked would take its numbers for facts.
//!
//! Not here: changes of the metadata (`admin.rs`, `group_deletion.rs`), how answers are laid out (api/).

use super::mesh::{GroupProgress, GroupStatus, Message, PartitionStatus, QueueStatus};
use super::shard::Shard;
use crate::api::metadata::Lead;
use crate::api::{self, ApiError};
use crate::control::{ControlError, GroupView, PartitionView};
use crate::effects::{Caller, Effect, Effects, Now};
use crate::ids::{NodeId, PartitionUid, ShardId, SubscriptionUid, Term};
use crate::partition::Partition;
use crate::subscription::Progress;
use std::collections::BTreeMap;
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::group::{DescribeGroupRequest, OFFSET_NONE};
use tramline_wire::queue::DescribeQueueRequest;
use tramline_wire::storage::ShardStorage;
use tramline_wire::topics::DescribeTopicRequest;

/// Questions to other shards that are open at once.
const GATHERS_MAX: usize = 64;

/// Questions that other shards have to answer.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    next: u64,
    open: Vec<Gather>,
}

impl Gathers {
    fn next_question(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One more shard has answered. What is known so far, to be added to; nothing when the question is not open.
    fn on_answer(&mut self, question: u64) -> Option<&mut Found> {
        let gather = self.open.iter_mut().find(|gather| gather.question == question)?;
        gather.missing -= 1;
        Some(&mut gather.found)
    }
}

#[derive(Debug)]
struct Gather {
    question: u64,
    /// `None`: the node itself wants to know.
    caller: Option<Caller>,
    missing: usize,
    found: Found,
}

/// What is asked for, and what is known of it so far.
#[derive(Debug)]
enum Found {
    Topic {
        name: String,
        partitions: Vec<PartitionStatus>,
    },
    Storage(Vec<ShardStorage>),
    /// What the shards know of the consumer groups.
    Groups(Vec<GroupStatus>),
    /// How far one group has read.
    Progress {
        name: String,
        /// Only partitions from this topic and number on.
        from: (String, u32),
        partitions: Vec<GroupProgress>,
    },
    /// How one queue stands.
    Queue {
        name: String,
        /// Only partitions from this number on.
        first_partition: u32,
        partitions: Vec<QueueStatus>,
    },
}

impl Shard {
    /// Whether as many questions are open as may be: each holds a list of partitions.
    pub(super) fn gathers_are_full(&self) -> bool {
        self.gathers.open.len() >= GATHERS_MAX
    }

    /// Describes a topic with numbers from every shard that has partitions of it.
    pub(super) fn describe(&mut self, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), ApiError> {
        let request = DescribeTopicRequest::decode(frame.meta)?;
        let view = Arc::clone(&self.view);
        let Some(topic) = view.topic(request.name) else {
            return Err(ApiError::from(&ControlError::UnknownTopic(request.name.to_owned())));
        };
        let question = self.gathers.next_question();
        let mut by_shard = self.by_shard(topic.partitions.iter());
        let here = by_shard.remove(&self.id).unwrap_or_default();
        let found = Found::Topic { name: topic.name.clone(), partitions: self.status_of(&here) };
        let missing = by_shard.len();
        for (to, uids) in by_shard {
            effects.push(Effect::Mesh { to, message: Message::StatusAsked { question, uids } });
        }
        self.gathers.open.push(Gather { question, caller: Some(caller), missing, found });
        self.finish_gathers(effects);
        Ok(())
    }

    /// Those of which this node has replicas, by the shards that have them: of each group one at most.
    fn by_shard<'a>(&self, places: impl Iterator<Item = &'a PartitionView>) -> BTreeMap<ShardId, Vec<PartitionUid>> {
        let mut by_shard: BTreeMap<ShardId, Vec<PartitionUid>> = BTreeMap::new();
        for place in places {
            if let Some(shard) = self.shard_with(place.group) {
                by_shard.entry(shard).or_default().push(place.uid);
            }
        }
        by_shard
    }

    /// Numbers of those that this shard leads.
    pub(super) fn status_of(&self, uids: &[PartitionUid]) -> Vec<PartitionStatus> {
        let of = |p: &Partition| PartitionStatus {
            uid: p.uid,
            log_start: p.log_start(),
            committed_end: p.committed_end(),
            bytes: p.index.bytes(),
            segments: p.index.segment_count(),
        };
        uids.iter().filter_map(|uid| self.led_partition(*uid)).map(of).collect()
    }

    /// A partition that this shard leads, and knows the ends of.
    fn led_partition(&self, uid: PartitionUid) -> Option<&Partition> {
        self.partitions.get(self.readable(uid).ok()?)
    }

    pub(super) fn on_status(&mut self, question: u64, partitions: Vec<PartitionStatus>, effects: &mut Effects) {
        if let Some(Found::Topic { partitions: found, .. }) = self.gathers.on_answer(question) {
            found.extend(partitions);
        }
        self.finish_gathers(effects);
        self.unblock(effects);
    }

    /// Tells where the space of this node's disk went, with numbers from every shard.
    pub(super) fn describe_storage(&mut self, caller: Caller, effects: &mut Effects) {
        let question = self.gathers.next_question();
        for to in (0..self.settings.shards).map(ShardId).filter(|shard| *shard != self.id) {
            effects.push(Effect::Mesh { to, message: Message::StorageAsked { question } });
        }
        let missing = usize::from(self.settings.shards) - 1;
        self.gathers.open.push(Gather { question, caller: Some(caller), missing, found: Found::Storage(vec![self.storage()]) });
        self.finish_gathers(effects);
    }

    pub(super) fn on_storage(&mut self, question: u64, storage: ShardStorage, effects: &mut Effects) {
        if let Some(Found::Storage(found)) = self.gathers.on_answer(question) {
            found.push(storage);
        }
        self.finish_gathers(effects);
        self.unblock(effects);
    }

    /// What this shard knows of the consumer groups.
    pub(super) fn groups_status(&self) -> Vec<GroupStatus> {
        self.members.status(&self.offsets.table)
    }

    /// Asks every shard what it knows of the consumer groups; `None` for the node itself.
    pub(super) fn ask_for_groups(&mut self, caller: Option<Caller>, effects: &mut Effects) {
        let question = self.gathers.next_question();
        for to in (0..self.settings.shards).map(ShardId).filter(|shard| *shard != self.id) {
            effects.push(Effect::Mesh { to, message: Message::GroupsAsked { question } });
        }
        let missing = usize::from(self.settings.shards) - 1;
        self.gathers.open.push(Gather { question, caller, missing, found: Found::Groups(self.groups_status()) });
        self.finish_gathers(effects);
    }

    pub(super) fn on_groups(&mut self, question: u64, groups: Vec<GroupStatus>, effects: &mut Effects) {
        if let Some(Found::Groups(found)) = self.gathers.on_answer(question) {
            found.extend(groups);
        }
        self.finish_gathers(effects);
        self.unblock(effects);
    }

    /// Describes a consumer group, at its home, with numbers from every shard.
    pub(super) fn describe_group(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), ApiError> {
        let request = DescribeGroupRequest::decode(frame.meta)?;
        let view = Arc::clone(&self.view);
        let Some(group) = view.group(request.name) else {
            return Err(ApiError::from(&ControlError::UnknownGroup(request.name.to_owned())));
        };
        if self.groups.leads(group.home) && !self.is_state_ready(group.home) {
            return Err(ApiError::of(ErrorCode::NotReady));
        }
        let owners = self.members.owned(group.uid);
        let question = self.gathers.next_question();
        let mut by_shard = self.by_shard(owners.iter().filter_map(|uid| view.find_partition(*uid)).map(|(_, place)| place));
        for to in (0..self.settings.shards).map(ShardId).filter(|shard| *shard != self.id) {
            let owned = by_shard.remove(&to).unwrap_or_default();
            effects.push(Effect::Mesh { to, message: Message::GroupProgressAsked { question, uid: group.uid, owned } });
        }
        let here = by_shard.remove(&self.id).unwrap_or_default();
        let from = (request.from_topic.to_owned(), request.from_partition);
        let found = Found::Progress { name: group.name.clone(), from, partitions: self.progress_of(now, group.uid, &here) };
        let missing = usize::from(self.settings.shards) - 1;
        self.gathers.open.push(Gather { question, caller: Some(caller), missing, found });
        self.finish_gathers(effects);
        Ok(())
    }

    /// How far `group` has read the partitions led by this shard that it has committed offsets of, and those of `owned`.
    pub(super) fn progress_of(&self, now: Now, group: SubscriptionUid, owned: &[PartitionUid]) -> Vec<GroupProgress> {
        let mut uids: Vec<PartitionUid> = self.offsets.table.partitions_of(group).chain(owned.iter().copied()).collect();
        uids.sort_unstable();
        uids.dedup();
        let of = |uid: PartitionUid| {
            let partition = self.led_partition(uid).filter(|partition| self.is_state_ready(partition.group))?;
            Some(progress(now, partition, self.offsets.table.find(uid, group)))
        };
        uids.into_iter().filter_map(of).collect()
    }

    pub(super) fn on_group_progress(&mut self, question: u64, partitions: Vec<GroupProgress>, effects: &mut Effects) {
        if let Some(Found::Progress { partitions: found, .. }) = self.gathers.on_answer(question) {
            found.extend(partitions);
        }
        self.finish_gathers(effects);
        self.unblock(effects);
    }

    /// Describes a queue with numbers from every shard that has partitions of its topic.
    pub(super) fn describe_queue(&mut self, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), ApiError> {
        let request = DescribeQueueRequest::decode(frame.meta)?;
        let view = Arc::clone(&self.view);
        let Some(queue) = view.queue(request.name) else {
            return Err(ApiError::from(&ControlError::UnknownQueue(request.name.to_owned())));
        };
        let topic = view.topic(&queue.topic_name).expect("a queue's topic exists");
        let question = self.gathers.next_question();
        let first_partition = request.first_partition;
        let (places, _) = api::queues::page(topic, first_partition);
        let mut by_shard = self.by_shard(places.iter());
        let here = by_shard.remove(&self.id).unwrap_or_default();
        let found = Found::Queue { name: queue.name.clone(), first_partition, partitions: self.queue_status(queue.uid, &here) };
        let missing = by_shard.len();
        for (to, partitions) in by_shard {
            effects.push(Effect::Mesh { to, message: Message::QueueAsked { question, uid: queue.uid, partitions } });
        }
        self.gathers.open.push(Gather { question, caller: Some(caller), missing, found });
        self.finish_gathers(effects);
        Ok(())
    }

    pub(super) fn on_queue_status(&mut self, question: u64, partitions: Vec<QueueStatus>, effects: &mut Effects) {
        if let Some(Found::Queue { partitions: found, .. }) = self.gathers.on_answer(question) {
            found.extend(partitions);
        }
        self.finish_gathers(effects);
        self.unblock(effects);
    }

    fn finish_gathers(&mut self, effects: &mut Effects) {
        let (done, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.gathers.open).into_iter().partition(|g| g.missing == 0);
        self.gathers.open = open;
        for gather in done {
            self.finish_gather(gather, effects);
        }
    }

    fn finish_gather(&mut self, gather: Gather, effects: &mut Effects) {
        let Gather { caller, found, .. } = gather;
        let lead = |place: &PartitionView| self.lead_of_partition(place);
        let home = |group: &GroupView| self.home_of(group);
        match (found, &caller) {
            (Found::Topic { name, partitions }, Some(caller)) => match self.view.topic(&name) {
                Some(topic) => effects.reply(caller, 0, &mut Vec::new(), |out| api::topics::describe(out, topic, &partitions, lead)),
                None => effects.refuse(caller, ErrorCode::UnknownTopic, "", ""),
            },
            (Found::Storage(shards), Some(caller)) => {
                effects.reply(caller, 0, &mut Vec::new(), |out| api::storage::describe(out, self.node, &shards));
            }
            (Found::Groups(status), Some(caller)) => {
                let view = &self.view;
                effects.reply(caller, 0, &mut Vec::new(), |out| api::groups::list(out, view, &status, home));
            }
            (Found::Groups(status), None) => self.group_expiry.on_status(status),
            (Found::Progress { name, from, partitions }, Some(caller)) => match self.view.group(&name) {
                Some(group) => {
                    let (view, members) = (&self.view, self.members.of(group.uid));
                    let (from, home) = ((from.0.as_str(), from.1), home(group));
                    let describe = |out: &mut Vec<u8>| api::groups::describe(out, view, (group, home), from, members, &partitions);
                    effects.reply(caller, 0, &mut Vec::new(), describe);
                }
                None => effects.refuse(caller, ErrorCode::UnknownGroup, "", ""),
            },
            (Found::Queue { name, first_partition, partitions }, Some(caller)) => match (self.view.queue(&name), &self.view) {
                (Some(queue), view) => {
                    let topic = view.topic(&queue.topic_name).expect("a queue's topic exists");
                    let describe = |out: &mut Vec<u8>| api::queues::describe(out, queue, topic, first_partition, &partitions, lead);
                    effects.reply(caller, 0, &mut Vec::new(), describe);
                }
                (None, _) => effects.refuse(caller, ErrorCode::UnknownQueue, "", ""),
            },
            (Found::Topic { .. } | Found::Storage(_) | Found::Progress { .. } | Found::Queue { .. }, None) => {
                unreachable!("clients alone ask for these")
            }
        }
    }

    /// Where a group is at home; node 0 where nobody is known to lead that, so that nobody's silence about members is taken for the home's word.
    pub(super) fn home_of(&self, group: &GroupView) -> Lead {
        let lead = self.lead_of_home(group);
        Lead { node: if lead.term > Term(0) { lead.node } else { NodeId(0) }, ..lead }
    }
}

/// How far a group has read a partition, and what is left.
pub(super) fn progress(now: Now, partition: &Partition, known: Option<&Progress>) -> GroupProgress {
    let (log_start, end) = (partition.log_start(), partition.committed_end());
    let offset = known.map_or(OFFSET_NONE, |known| known.offset);
    let from = read_to(offset, log_start, end);
    let lag = end.saturating_sub(from);
    let oldest_us = if lag == 0 { None } else { partition.index.time_at(from) };
    GroupProgress {
        uid: partition.uid,
        offset,
        committed_us: known.map_or(0, |known| known.committed_us),
        log_start,
        committed_end: end,
        lag_bytes: if lag == 0 { 0 } else { partition.index.bytes_from(from) },
        lag_ms: oldest_us.map_or(0, |oldest_us| u64::try_from(now.utc_us.saturating_sub(oldest_us) / 1000).unwrap_or(0)),
        drain_ms: if lag == 0 { Some(0) } else { known.and_then(|known| known.drain_ms(lag)) },
    }
}

/// Where reading goes on.
fn read_to(offset: u64, log_start: u64, end: u64) -> u64 {
    if offset == OFFSET_NONE { log_start } else { offset.clamp(log_start, end.max(log_start)) }
}

/// Records that are not read.
pub(super) fn lag(progress: &GroupProgress) -> u64 {
    progress.committed_end.saturating_sub(read_to(progress.offset, progress.log_start, progress.committed_end))
}
