//! Metadata on this shard: shard 0's seat at replica group 0, and the view on every shard.
//!
//! How a change goes: request -> checked against the state -> command into group 0 (the log) -> committed -> applied -> new view ->
//! every shard of every node that is there has it in force -> reply. So a client that got its answer finds the change wherever it goes.
//!
//! Not here: questions over all shards (`gathers.rs`).

use super::cancelling::Away;
use super::joining::Joiner;
use super::mesh::Message;
use super::producers::ProducerIds;
use super::shard::{Phase, Shard, Taken};
use crate::api::cluster::Alteration;
use crate::api::metadata::Lead;
use crate::api::{self, ApiError};
use crate::control::{Applied, ClusterCommand, ClusterError, Command, ControlError, Endpoint, PartitionView, State, TopicView, View};
use crate::effects::{Caller, Effect, Effects, Now};
use crate::ids::{GroupId, LogIndex, NodeId, ShardId, SubscriptionUid, Term};
use crate::log::{AppendRefused, EntryKind, OpenEntry};
use crate::metrics::ShardMetrics;
use crate::mutants::Mutant;
use crate::partition::{Partition, TopicRules};
use std::collections::VecDeque;
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::group::{DeleteGroupReply, FindGroupFlags, FindGroupReply, FindGroupRequest};
use tramline_wire::kind::Kind;
use tramline_wire::queue::{AlterQueueReply, CreateQueueReply, DeleteQueueReply};
use tramline_wire::topics::{AlterTopicReply, CreateTopicReply, DeleteTopicReply};

/// So long an answer waits for other nodes that are there: one that was told of no end of its connection may be gone.
pub(super) const ELSEWHERE_US: u64 = 2_000_000;
/// Commands waiting to be committed, at most.
const PENDING_MAX: usize = 1024;

#[derive(Debug)]
struct PendingCommand {
    /// Known once the block closes.
    index: Option<LogIndex>,
    command: Command,
    /// Nobody for the node's own registration.
    caller: Option<Caller>,
    if_not_exists: bool,
    /// A node that joins by it.
    joiner: Option<Joiner>,
    /// Another node has proposed it: what it gives is that node's.
    is_inherited: bool,
}

#[derive(Debug)]
struct AwaitingView {
    epoch: u64,
    caller: Caller,
    answer: Answer,
    /// In microseconds of the process: from then on nobody waits for other nodes.
    until_us: u64,
}

#[derive(Clone, Debug)]
enum Answer {
    Created {
        uid: u64,
        created: bool,
        partitions: u32,
    },
    Altered,
    Deleted,
    /// Where the group of this name is, looked up in the view that is in force then.
    GroupFound {
        name: String,
        created: bool,
    },
    GroupDeleted,
    QueueCreated {
        uid: u64,
        created: bool,
    },
    QueueAltered,
    QueueDeleted,
}

/// Shard 0's seat at group 0.
#[derive(Debug)]
pub(super) struct ControlSeat {
    pub(super) state: State,
    pending: VecDeque<PendingCommand>,
    awaiting: VecDeque<AwaitingView>,
    /// The epoch each shard has in force.
    in_force: Vec<u64>,
    /// This process has had all that was committed when a leader told it so: what a start finds may be old, and old news are told to nobody.
    pub(super) is_current: bool,
    /// Where nodes listen for others, by all that the log tells of, committed or not: what a start that finds nobody needs.
    pub(super) addresses: Vec<(NodeId, Endpoint)>,
    /// When the cluster is looked at next, and which view was found to need nothing.
    pub(super) next_plan_us: u64,
    pub(super) planned_epoch: u64,
    pub(super) away: Away,
    pub(super) producer_ids: ProducerIds,
}

impl ControlSeat {
    pub(super) fn new(state: State, shards: u16) -> ControlSeat {
        ControlSeat {
            state,
            pending: VecDeque::new(),
            awaiting: VecDeque::new(),
            in_force: vec![0; usize::from(shards)],
            is_current: false,
            addresses: Vec::new(),
            next_plan_us: 0,
            planned_epoch: 0,
            away: Away::new(),
            producer_ids: ProducerIds::default(),
        }
    }

    /// The block closes: commands in it get their index. All commands of a block are one entry.
    pub(super) fn on_close(&mut self, open: &[OpenEntry], positions: &[(Term, LogIndex)]) {
        let ours = |(entry, _): &(&OpenEntry, &(Term, LogIndex))| entry.group == GroupId(0) && entry.kind == EntryKind::Control;
        let Some((_, (_, index))) = open.iter().filter(|e| e.kind.bears_index()).zip(positions).find(ours) else { return };
        for pending in self.pending.iter_mut().filter(|p| p.index.is_none()) {
            pending.index = Some(*index);
        }
    }

    /// The epoch of the view that all shards of this node act on.
    pub(super) fn view_in_force(&self) -> u64 {
        self.in_force.iter().copied().min().unwrap_or(0)
    }

    /// The command that was proposed last takes a node in.
    pub(super) fn expect_joiner(&mut self, joiner: Joiner) {
        self.pending.back_mut().expect("it was proposed").joiner = Some(joiner);
    }

    /// Nodes whose calls were not answered yet, and are not going to be.
    pub(super) fn take_joiners(&mut self) -> Vec<Joiner> {
        self.pending.iter_mut().filter_map(|pending| pending.joiner.take()).collect()
    }

    /// Whether this command waits to be committed.
    pub(super) fn is_waiting_for(&self, command: &Command) -> bool {
        self.pending.iter().any(|pending| pending.command == *command)
    }

    /// Whether a command waits to be committed.
    pub(super) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Another node leads the metadata: what was proposed here is that node's to commit, or was never there.
    pub(super) fn fail_proposed(&mut self, effects: &mut Effects, metrics: &mut ShardMetrics) {
        for caller in self.pending.drain(..).filter_map(|p| p.caller) {
            metrics.count_error(ErrorCode::LeadershipLost);
            effects.refuse(&caller, ErrorCode::LeadershipLost, "", "");
        }
        self.producer_ids.on_refused(effects, metrics, &ApiError::of(ErrorCode::LeadershipLost));
    }

    /// Takes in commands that are committed, on a node that does not lead the metadata.
    pub(super) fn apply(&mut self, index: LogIndex, commands: &[Command]) {
        // What was refused on the leader is refused here, and told there.
        let _results = self.state.apply(index, commands);
    }

    /// Commands that a new leader has inherited and that are not committed yet. Nobody here waits for them.
    pub(super) fn inherit(&mut self, index: LogIndex, commands: Vec<Command>) {
        // A snapshot in a checkpoint may know more than the blocks that the checkpoint covers.
        if index > self.state.applied() {
            let pending = |command| PendingCommand {
                index: Some(index),
                command,
                caller: None,
                if_not_exists: false,
                joiner: None,
                is_inherited: true,
            };
            self.pending.extend(commands.into_iter().map(pending));
        }
    }

    pub(super) fn fail_all(&mut self, effects: &mut Effects, metrics: &mut ShardMetrics, reason: &str) {
        let callers = self.pending.drain(..).filter_map(|p| p.caller).chain(self.awaiting.drain(..).map(|a| a.caller));
        for caller in callers {
            metrics.count_error(ErrorCode::StorageFailed);
            effects.refuse(&caller, ErrorCode::StorageFailed, reason, "");
        }
        self.producer_ids.on_refused(effects, metrics, &ApiError::new(ErrorCode::StorageFailed, reason.to_owned()));
    }
}

impl Shard {
    /// Administration of topics and queues, on shard 0.
    pub(super) fn administer(&mut self, now: Now, caller: Caller, kind: Kind, frame: &Frame<'_>, effects: &mut Effects) -> Taken {
        match self.try_administer(now, caller, kind, frame, effects) {
            Ok(taken) => taken,
            Err(error) => {
                self.refuse(&caller, &error, effects);
                Taken::Yes
            }
        }
    }

    fn try_administer(
        &mut self,
        now: Now,
        caller: Caller,
        kind: Kind,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<Taken, ApiError> {
        let (command, if_not_exists, validate_only) = match kind {
            Kind::CreateTopic => {
                let create = api::topics::create(frame.meta, now.utc_us)?;
                (create.command, create.if_not_exists, create.validate_only)
            }
            Kind::CreateQueue => {
                let create = api::queues::create(frame.meta, now.utc_us)?;
                (create.command, create.if_not_exists, create.validate_only)
            }
            Kind::AlterQueue => (api::queues::alter(frame.meta, now.utc_us)?, false, false),
            Kind::DeleteQueue => (api::queues::delete(frame.meta)?, false, false),
            Kind::AlterTopic => (api::topics::alter(frame.meta)?, false, false),
            Kind::AlterCluster => match api::cluster::alter(frame.meta)? {
                Alteration::Command(command) => (command, false, false),
                Alteration::Balance => return self.balance(caller),
                Alteration::CancelMove(group) => (self.cancelling(group)?.into(), false, false),
                Alteration::UncleanRecover(group) => (self.recovering(now, group)?.into(), false, false),
            },
            _ => (api::topics::delete(frame.meta)?, false, false),
        };
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        self.check_leads_metadata()?;
        let Some(seat) = &mut self.seat else { return Err(ApiError::of(ErrorCode::NotLeader)) };
        if let Err(error) = seat.state.check(&command) {
            if let ControlError::Cluster(ClusterError::NoGroups(replicas)) = error {
                return self.make_groups(replicas, &error);
            }
            // It may have come into being a moment ago, and not be known to every shard yet: then this answer waits as the creator's does.
            let Some(answer) = fine(&error, if_not_exists, &seat.state) else { return Err(ApiError::from(&error)) };
            let epoch = seat.state.view_epoch();
            seat.awaiting.push_back(AwaitingView { epoch, caller, answer, until_us: now.mono_us + ELSEWHERE_US });
            self.answer_awaiting(now, effects);
            return Ok(Taken::Yes);
        }
        if validate_only {
            let valid = match command {
                Command::CreateTopic { partitions, .. } => Answer::Created { uid: 0, created: false, partitions },
                Command::CreateQueue { .. } => Answer::QueueCreated { uid: 0, created: false },
                other => unreachable!("only creation can be validated: {other:?}"),
            };
            self.answer_command(&caller, valid, effects);
            return Ok(Taken::Yes);
        }
        self.propose(command, Some(caller), if_not_exists)
    }

    /// Tells the metadata what this node has.
    pub(super) fn register_node(&mut self) -> Result<Taken, ApiError> {
        let groups_per_shard = self.settings.groups_per_shard as u16;
        self.propose(Command::RegisterNode { node: self.node.0, shards: self.settings.shards, groups_per_shard }, None, false)
    }

    /// Plans whatever evens replicas and leaderships out, as far as it can be under way at one time.
    fn balance(&mut self, caller: Caller) -> Result<Taken, ApiError> {
        self.check_leads_metadata()?;
        let mut plans = self.seat.as_ref().map(|seat| seat.state.proposals()).unwrap_or_default();
        let Some(last) = plans.pop() else {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "replicas and leaderships are even, or on their way: there is nothing to move",
            ));
        };
        for plan in plans {
            // One that finds no room is planned when it is asked for again.
            let _ = self.propose(plan.into(), None, false)?;
        }
        self.propose(last.into(), Some(caller), false)
    }

    /// Nothing has as many replicas yet: groups are made first, and the request is looked at again then.
    fn make_groups(&mut self, replicas: u8, why: &ControlError) -> Result<Taken, ApiError> {
        let command = Command::from(ClusterCommand::CreateGroups { replicas });
        let seat = self.seat.as_ref().expect("asked for by who has it");
        if seat.state.check(&command).is_err() {
            return Err(self.no_groups(why));
        }
        if !seat.is_busy() {
            // Without room for it now it is proposed when the caller is looked at again.
            let _ = self.propose(command, None, false)?;
        }
        Ok(Taken::Blocked)
    }

    /// Whether this shard may change the metadata; what a follower knows of them may be old.
    pub(super) fn check_leads_metadata(&self) -> Result<(), ApiError> {
        if self.groups.leader_term(GroupId(0)).is_some() { Ok(()) } else { Err(self.no_metadata_leader()) }
    }

    /// Puts a command into group 0.
    pub(super) fn propose(&mut self, command: Command, caller: Option<Caller>, if_not_exists: bool) -> Result<Taken, ApiError> {
        let Some(seat) = &mut self.seat else { return Err(ApiError::of(ErrorCode::NotLeader)) };
        if self.groups.leader_term(GroupId(0)).is_none() {
            return Err(self.no_metadata_leader());
        }
        if seat.pending.len() >= PENDING_MAX {
            return Ok(Taken::Blocked);
        }
        match self.log.append_control(&mut self.slab, GroupId(0), EntryKind::Control, &command.encode()) {
            Ok(_) => {
                self.urgent = true;
                seat.pending.push_back(PendingCommand { index: None, command, caller, if_not_exists, joiner: None, is_inherited: false });
                Ok(Taken::Yes)
            }
            Err(AppendRefused::Full) => Ok(Taken::Blocked),
            Err(refused) => Err(ApiError::new(ErrorCode::StorageFailed, refused.to_string())),
        }
    }

    /// Group 0 is committed up to `index`: its commands are applied and the view is published.
    pub(super) fn on_metadata_committed(&mut self, now: Now, index: LogIndex, effects: &mut Effects) {
        let Some(seat) = &mut self.seat else { return };
        seat.is_current |= self.groups.is_caught_up(GroupId(0));
        let epoch_before = seat.state.view_epoch();
        let mut welcome = Vec::new();
        while let Some(at) = seat.pending.front().and_then(|p| p.index).filter(|at| *at <= index) {
            let mut unit = Vec::new();
            while let Some(pending) = seat.pending.front().filter(|p| p.index == Some(at)) {
                debug_assert_eq!(pending.index, Some(at));
                unit.extend(seat.pending.pop_front());
            }
            let commands: Vec<_> = unit.iter().map(|p| p.command.clone()).collect();
            let results = seat.state.apply(at, &commands).expect("an entry is applied once");
            let epoch = seat.state.view_epoch();
            for (pending, result) in unit.into_iter().zip(results) {
                if pending.is_inherited {
                    continue;
                }
                if let Command::ReserveProducerIds { .. } = &pending.command {
                    match result {
                        Ok(Applied::ProducerIds(lease)) => seat.producer_ids.on_leased(lease),
                        Ok(other) => unreachable!("ids were reserved, and this was done: {other:?}"),
                        Err(error) => seat.producer_ids.on_refused(effects, &mut self.metrics, &ApiError::from(&error)),
                    }
                    continue;
                }
                if let Some(joiner) = pending.joiner {
                    welcome.push((joiner, pending.command, result, at));
                    continue;
                }
                let Some(caller) = pending.caller else { continue };
                let answer = match (result, &pending.command) {
                    (Ok(Applied::GroupCreated(_)), Command::CreateGroup { name, .. }) => {
                        Answer::GroupFound { name: name.clone(), created: true }
                    }
                    (Err(ControlError::GroupExists(_)), Command::CreateGroup { name, .. }) => {
                        Answer::GroupFound { name: name.clone(), created: false }
                    }
                    (Ok(Applied::GroupDeleted), _) => Answer::GroupDeleted,
                    (Ok(Applied::Created(uid, partitions)), _) => Answer::Created { uid: uid.0, created: true, partitions },
                    (Ok(Applied::Deleted), _) => Answer::Deleted,
                    (Ok(Applied::QueueCreated(uid)), _) => Answer::QueueCreated { uid: uid.0, created: true },
                    (Ok(Applied::QueueAltered), _) => Answer::QueueAltered,
                    (Ok(Applied::QueueDeleted), _) => Answer::QueueDeleted,
                    (Ok(_), _) => Answer::Altered,
                    (Err(error), _) => match fine(&error, pending.if_not_exists, &seat.state) {
                        Some(answer) => answer,
                        None => {
                            let error = ApiError::from(&error);
                            self.metrics.count_error(error.code);
                            effects.refuse(&caller, error.code, &error.message, "");
                            continue;
                        }
                    },
                };
                seat.awaiting.push_back(AwaitingView { epoch, caller, answer, until_us: now.mono_us + ELSEWHERE_US });
            }
        }
        if seat.state.view_epoch() > epoch_before {
            // With the next beat would do for those who only follow, and be up to 100 ms late for who waits for them.
            self.groups.tell_commit(GroupId(0));
        }
        if seat.is_current && (seat.state.view_epoch() > epoch_before.min(self.view.epoch) || self.view.epoch == 0) {
            self.publish_view(now, effects);
        }
        for (joiner, command, result, at) in welcome {
            match (command.added_node(), result) {
                (Some(node), Ok(_)) => self.welcome(joiner, node, at, effects),
                (_, Err(error)) => self.refuse_join(joiner, &ApiError::from(&error), effects),
                (None, Ok(_)) => unreachable!("nodes join by a command that adds them"),
            }
        }
        self.answer_awaiting(now, effects);
        self.give_producer_ids(now, effects);
    }

    /// Hands the present metadata to every shard.
    pub(super) fn publish_view(&mut self, now: Now, effects: &mut Effects) {
        let Some(seat) = &self.seat else { return };
        let view = seat.state.view();
        for shard in (1..self.settings.shards).map(ShardId) {
            effects.push(Effect::Mesh { to: shard, message: Message::View(Arc::clone(&view)) });
        }
        self.adopt_view(now, view, effects);
    }

    /// Works with a newer view from now on: new partitions appear, deleted ones go, rules change.
    pub(super) fn adopt_view(&mut self, now: Now, view: Arc<View>, effects: &mut Effects) {
        if view.epoch <= self.view.epoch {
            return;
        }
        let first_view = self.view.epoch == 0;
        self.adopt_replicas(now, &view, effects);
        self.adopt_partitions(&view);
        let gone: Vec<_> = self.partitions.iter().filter(|(_, p)| view.find_partition(p.uid).is_none()).map(|(slot, _)| slot).collect();
        for slot in gone {
            let partition = self.partitions.remove(slot).expect("listed above");
            self.retention.on_partition_dropped(&partition);
            self.sessions.wake(slot);
        }
        if first_view && !self.unclaimed.is_empty() {
            tracing::info!(shard = self.id.0, partitions = self.unclaimed.len(), "dropped what is left of deleted topics");
        }
        let known: Vec<_> = self.unclaimed.keys().copied().filter(|uid| view.has_known(*uid)).collect();
        for uid in known {
            let partition = self.unclaimed.remove(&uid).expect("listed above");
            self.retention.on_partition_dropped(&partition);
        }
        let epoch = view.epoch;
        let before = std::mem::replace(&mut self.view, view);
        self.hear_all_told(effects);
        self.meet_others(effects);
        self.adopt_groups(now, &before, effects);
        self.delete_retired(now, effects);
        self.adopt_queues(now, &before, effects);
        if self.seat.is_some() {
            self.on_view_in_force(now, self.id, epoch, effects);
        } else {
            effects.push(Effect::Mesh { to: ShardId(0), message: Message::ViewInForce { epoch } });
        }
        self.maybe_serve(effects);
    }

    pub(super) fn adopt_partitions(&mut self, view: &View) {
        for (topic, place) in view.partitions() {
            if self.has_group(place.group) {
                self.adopt_partition(topic, place);
            }
        }
        self.note_others();
    }

    fn adopt_partition(&mut self, topic: &TopicView, place: &PartitionView) {
        let mut rules = rules_of(topic);
        rules.visible_at_leader |= self.log.mutants().has(Mutant::ServeUncommitted);
        if let Some(slot) = self.partitions.slot(place.uid) {
            self.partitions.get_mut(slot).expect("a uid's slot is filled").rules = rules;
            return;
        }
        let mut partition = match self.unclaimed.remove(&place.uid) {
            Some(found) => found,
            None => Partition::new(place.uid, topic.uid, place.number, place.group, rules),
        };
        partition.topic = topic.uid;
        partition.number = place.number;
        partition.group = place.group;
        partition.rules = rules;
        let group = place.group;
        let slot = self.partitions.insert(partition);
        // Batches that a new leader has inherited before the metadata told of their partition.
        if !self.pipelines.is_alone() {
            self.partitions.touch_tentative(slot, self.acks.committed_through(group));
        }
    }

    pub(super) fn maybe_serve(&mut self, effects: &mut Effects) {
        if self.phase == Phase::Starting && self.view.epoch > 0 && self.groups.all_caught_up() {
            self.phase = Phase::Serving;
            self.metrics.counters.groups_elected += self.group_ids.len() as u64;
            effects.wake_at(0);
        }
    }

    pub(super) fn on_view_in_force(&mut self, now: Now, shard: ShardId, epoch: u64, effects: &mut Effects) {
        let Some(seat) = &mut self.seat else { return };
        let known = &mut seat.in_force[usize::from(shard.0)];
        *known = (*known).max(epoch);
        self.answer_awaiting(now, effects);
    }

    /// Answers whose change is in force on all shards here, and on the other nodes that are there. A node that leads the metadata no more is told of no views,
    /// and does not wait for them.
    pub(super) fn answer_awaiting(&mut self, now: Now, effects: &mut Effects) {
        while let Some(awaiting) = self.seat.as_ref().and_then(|seat| seat.awaiting.front()) {
            let is_here = awaiting.epoch <= self.seat.as_ref().map_or(0, ControlSeat::view_in_force);
            // Whoever leads a group's home hears of all nodes as well.
            let hears_of_all = self.groups.leads(GroupId(0)) || matches!(awaiting.answer, Answer::GroupDeleted);
            let is_late = now.mono_us >= awaiting.until_us || !hears_of_all;
            if !is_here || !is_late && !self.is_in_force_elsewhere(awaiting.epoch) {
                if !is_late {
                    effects.wake_at(awaiting.until_us);
                }
                return;
            }
            let awaiting = self.seat.as_mut().and_then(|seat| seat.awaiting.pop_front()).expect("looked at above");
            self.answer_command(&awaiting.caller, awaiting.answer, effects);
        }
    }

    /// A consumer group is gone from this shard's view: whoever deleted it hears so when all act on that.
    pub(super) fn await_group_deleted(&mut self, now: Now, caller: Caller) {
        let epoch = self.view.epoch;
        let seat = self.seat.as_mut().expect("shard 0 deletes groups");
        seat.awaiting.push_back(AwaitingView { epoch, caller, answer: Answer::GroupDeleted, until_us: now.mono_us + ELSEWHERE_US });
    }

    /// Tells where a group is; creates it on shard 0 where there is none and it is asked for.
    pub(super) fn find_group(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<Taken, ApiError> {
        let request = FindGroupRequest::decode(frame.meta)?;
        if let Some(group) = self.view.group(request.name) {
            tell_group(&caller, group.uid, self.lead_of_home(group), false, effects);
            return Ok(Taken::Yes);
        }
        if !request.flags.has(FindGroupFlags::CREATE) {
            return Err(ApiError::from(&ControlError::UnknownGroup(request.name.to_owned())));
        }
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        let command = Command::CreateGroup { name: request.name.to_owned(), created_us: now.utc_us };
        self.check_leads_metadata()?;
        let Some(seat) = &self.seat else { return Err(ApiError::of(ErrorCode::NotLeader)) };
        match seat.state.check(&command) {
            // A moment old, and not in force here yet: decided again when its turn comes.
            Ok(()) | Err(ControlError::GroupExists(_)) => self.propose(command, Some(caller), false),
            Err(error @ ControlError::Cluster(ClusterError::NoGroups(replicas))) => self.make_groups(replicas, &error),
            Err(error) => Err(ApiError::from(&error)),
        }
    }

    fn answer_command(&self, caller: &Caller, answer: Answer, effects: &mut Effects) {
        let mut tell = |write: &mut dyn FnMut(&mut Vec<u8>)| effects.reply(caller, 0, &mut Vec::new(), write);
        match answer {
            Answer::Created { uid, created, partitions } => {
                tell(&mut |out| CreateTopicReply { topic_uid: uid, created, partitions }.encode(out))
            }
            Answer::Altered => tell(&mut |out| AlterTopicReply {}.encode(out)),
            Answer::Deleted => tell(&mut |out| DeleteTopicReply {}.encode(out)),
            Answer::QueueCreated { uid, created } => tell(&mut |out| CreateQueueReply { queue_uid: uid, created }.encode(out)),
            Answer::QueueAltered => tell(&mut |out| AlterQueueReply {}.encode(out)),
            Answer::QueueDeleted => tell(&mut |out| DeleteQueueReply {}.encode(out)),
            Answer::GroupDeleted => tell(&mut |out| DeleteGroupReply {}.encode(out)),
            Answer::GroupFound { name, created } => match self.view.group(&name) {
                Some(group) => tell_group(caller, group.uid, self.lead_of_home(group), created, effects),
                // Deleted a moment later.
                None => effects.refuse(caller, ErrorCode::UnknownGroup, "", ""),
            },
        }
    }
}

/// The answer to whom it is fine that what was to be created exists.
fn fine(error: &ControlError, if_not_exists: bool, state: &State) -> Option<Answer> {
    match error {
        ControlError::TopicExists(name) if if_not_exists => {
            let (uid, partitions) = state.topic_identity(name).unwrap_or((0, 0));
            Some(Answer::Created { uid, created: false, partitions })
        }
        ControlError::QueueExists(name) if if_not_exists => {
            let uid = state.queue_identity(name).map_or(0, |uid| uid.0);
            Some(Answer::QueueCreated { uid, created: false })
        }
        _ => None,
    }
}

fn tell_group(caller: &Caller, uid: SubscriptionUid, home: Lead, created: bool, effects: &mut Effects) {
    let reply = FindGroupReply { group_uid: uid.0, node: home.node.0, shard: home.shard.0, created };
    effects.reply(caller, 0, &mut Vec::new(), |out| reply.encode(out));
}

/// What a topic's settings mean for its partitions.
pub(super) fn rules_of(topic: &TopicView) -> TopicRules {
    let bytes = |key: &str| topic.settings.integer(key).map_or(u32::MAX, |v| v.min(u64::from(u32::MAX)) as u32);
    TopicRules {
        retention_ms: topic.settings.integer("retention.ms"),
        retention_bytes: topic.settings.integer("retention.bytes"),
        queue_retention_us: topic.settings.integer("queue.retention.ms").map(|ms| ms.saturating_mul(1000)),
        append_time: topic.settings.word("timestamp.type") == "append",
        visible_at_leader: topic.settings.word("visible.at") == "leader",
        record_bytes_max: bytes("record.max.bytes"),
        batch_bytes_max: bytes("batch.max.bytes"),
    }
}
