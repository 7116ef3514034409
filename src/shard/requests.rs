//! Requests: which one goes where, on this shard or over the mesh.
//!
//! Invariants: a frame is answered once (or has no reply by its kind); a request that belongs to another shard of this node goes
//! there in one hop, never further.

use super::mesh::{Forwarded, Message};
use super::shard::{Phase, Shard, Taken};
use crate::api::{self, ApiError};
use crate::effects::{Caller, Effect, Effects, Now};
use crate::ids::{ConnId, GroupId, PartitionUid, ShardId, SubscriptionUid};
use std::collections::BTreeSet;
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchCancelRequest, FetchCreditRequest, FetchMode, FetchRequest};
use tramline_wire::frame::Frame;
use tramline_wire::group::{
    CommitOffsetsRequest, DeleteGroupRequest, DescribeGroupRequest, FetchOffsetsRequest, FindGroupFlags, FindGroupRequest,
    HeartbeatGroupRequest, JoinGroupRequest, LeaveGroupRequest,
};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::offsets::ListOffsetsRequest;
use tramline_wire::produce::ProduceRequest;
use tramline_wire::trim::TrimPartitionsRequest;

/// Who has to answer a request.
enum Owner {
    Here,
    Shard(ShardId),
}

impl Shard {
    pub(super) fn on_frame(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, effects: &mut Effects) -> Taken {
        let (said_hello, received_us) = self.conns.on_frame(now, conn);
        let caller = Caller::of(conn, None, &frame.header, received_us);
        let Some(kind) = self.known_kind(&caller, frame, effects) else { return Taken::Yes };
        if kind == Kind::Hello {
            self.hello(&caller, frame, effects);
            return self.counted(kind, frame, Taken::Yes);
        }
        if !said_hello {
            self.refuse(&caller, &ApiError::of(ErrorCode::HelloRequired), effects);
            effects.push(Effect::Close { conn, reason: "no hello" });
            return Taken::Yes;
        }
        let taken = match self.owner(conn, kind, frame) {
            Owner::Here => self.answer(now, caller, kind, frame, effects),
            Owner::Shard(to) => self.forward(&caller, to, frame, effects),
        };
        if taken == Taken::Blocked {
            self.conns.on_held(conn, received_us);
        }
        self.counted(kind, frame, taken)
    }

    fn counted(&mut self, kind: Kind, frame: &Frame<'_>, taken: Taken) -> Taken {
        match taken {
            Taken::Yes => {
                self.metrics.count_request(kind);
                self.metrics.counters.frames_in += 1;
                self.metrics.counters.network_bytes_in += frame.header.frame_len() as u64;
            }
            Taken::Blocked => {
                self.metrics.counters.blocked_requests += 1;
                self.blocked = true;
            }
        }
        taken
    }

    fn known_kind(&mut self, caller: &Caller, frame: &Frame<'_>, effects: &mut Effects) -> Option<Kind> {
        let header = &frame.header;
        if header.flags != 0 {
            let message = "a request carries none of the reply's flags: fix the client";
            self.refuse(caller, &ApiError::new(ErrorCode::UnknownFlag, message), effects);
            return None;
        }
        let Some(kind) = header.kind() else {
            let message = match tramline_wire::kind::reserved_for(header.kind) {
                Some(what) => format!("request kind {} is reserved for {what}, which this node does not have", header.kind),
                None => format!("request kind {} is unknown: use one that the hello reply lists", header.kind),
            };
            self.refuse(caller, &ApiError::new(ErrorCode::UnknownKind, message), effects);
            return None;
        };
        if !kind.reads(header.version) {
            let (min, max) = kind.versions();
            let message = format!("{kind} is read in versions {min} to {max}, not {}", header.version);
            self.refuse(caller, &ApiError::new(ErrorCode::UnsupportedVersion, message), effects);
            return None;
        }
        Some(kind)
    }

    fn hello(&mut self, caller: &Caller, frame: &Frame<'_>, effects: &mut Effects) {
        match api::hello::check(frame.meta, frame.payload) {
            Ok(protocol) => {
                if let Some(state) = self.conns.get_mut(caller.conn) {
                    state.said_hello = true;
                }
                let (info, settings, view) = (Arc::clone(&self.info), Arc::clone(&self.settings), Arc::clone(&self.view));
                let (nodes, id) = (api::metadata::nodes(&view, &info), self.id);
                effects.reply(caller, 0, &mut Vec::new(), |out| api::hello::reply(out, protocol, &info, &nodes, id, &settings));
            }
            Err(error) => {
                if error.code == ErrorCode::Unauthenticated {
                    self.metrics.counters.connections_refused_unauthenticated += 1;
                }
                self.refuse(caller, &error, effects);
                effects.push(Effect::Close { conn: caller.conn, reason: "hello refused" });
            }
        }
    }

    /// Answers with an error and counts it.
    pub(super) fn refuse(&mut self, caller: &Caller, error: &ApiError, effects: &mut Effects) {
        self.metrics.count_error(error.code);
        effects.refuse(caller, error.code, &error.message, &error.next);
    }

    /// Requests about partitions belong to the shard of the first one that is known; administration and ids to shard 0.
    fn owner(&self, conn: ConnId, kind: Kind, frame: &Frame<'_>) -> Owner {
        let first = match kind {
            Kind::Produce => ProduceRequest::first_partition(frame.meta),
            Kind::Fetch => FetchRequest::first_partition(frame.meta),
            Kind::ListOffsets => ListOffsetsRequest::decode(frame.meta).ok().and_then(|r| r.entries.iter().next()).map(|e| e.partition_uid),
            Kind::TrimPartitions => {
                TrimPartitionsRequest::decode(frame.meta).ok().and_then(|r| r.entries.iter().next()).map(|e| e.partition_uid)
            }
            Kind::CreateTopic
            | Kind::AlterTopic
            | Kind::DeleteTopic
            | Kind::CreateQueue
            | Kind::AlterQueue
            | Kind::DeleteQueue
            | Kind::InitProducer
            | Kind::DescribeCluster
            | Kind::AlterCluster
                if self.id != ShardId(0) =>
            {
                return Owner::Shard(ShardId(0));
            }
            Kind::CommitOffsets => {
                CommitOffsetsRequest::decode(frame.meta).ok().and_then(|r| r.entries.iter().next()).map(|e| e.partition_uid)
            }
            Kind::FetchOffsets => {
                FetchOffsetsRequest::decode(frame.meta).ok().and_then(|r| r.entries.iter().next()).map(|e| e.partition_uid)
            }
            Kind::Receive | Kind::Settle | Kind::Browse | Kind::Purge | Kind::DeleteMessages | Kind::Redrive | Kind::Step => {
                api::queue_messages::first_partition(kind, frame.meta)
            }
            Kind::DeleteGroup if self.id != ShardId(0) => return Owner::Shard(ShardId(0)),
            Kind::FindGroup if self.id != ShardId(0) => return self.owner_of_find(frame),
            Kind::JoinGroup => return self.owner_of_group(JoinGroupRequest::decode(frame.meta).map(|r| r.group_uid).ok()),
            Kind::HeartbeatGroup => return self.owner_of_group(HeartbeatGroupRequest::decode(frame.meta).map(|r| r.group_uid).ok()),
            Kind::LeaveGroup => return self.owner_of_group(LeaveGroupRequest::decode(frame.meta).map(|r| r.group_uid).ok()),
            Kind::DescribeGroup => {
                let name = DescribeGroupRequest::decode(frame.meta).map(|r| r.name).unwrap_or_default();
                return self.owner_of_group(self.view.group(name).map(|group| group.uid.0));
            }
            // A stream lives where its fetch went.
            Kind::FetchCredit => return self.owner_of_stream(conn, FetchCreditRequest::decode(frame.meta).map(|r| r.stream).ok()),
            Kind::FetchCancel => return self.owner_of_stream(conn, FetchCancelRequest::decode(frame.meta).map(|r| r.stream).ok()),
            _ => return Owner::Here,
        };
        let Some(uid) = first.map(PartitionUid) else { return Owner::Here };
        if self.partitions.slot(uid).is_some() {
            return Owner::Here;
        }
        match self.view.find_partition(uid) {
            Some((_, place)) => self.owner_by_group(place.group),
            None => Owner::Here,
        }
    }

    /// A group that is not known here is shard 0's to create.
    fn owner_of_find(&self, frame: &Frame<'_>) -> Owner {
        let is_known =
            FindGroupRequest::decode(frame.meta).is_ok_and(|r| self.view.group(r.name).is_some() || !r.flags.has(FindGroupFlags::CREATE));
        if is_known { Owner::Here } else { Owner::Shard(ShardId(0)) }
    }

    /// What is asked of a group's members is its home's.
    fn owner_of_group(&self, uid: Option<u64>) -> Owner {
        match uid.and_then(|uid| self.view.group_by_uid(SubscriptionUid(uid))) {
            Some(group) => self.owner_by_group(group.home),
            None => Owner::Here,
        }
    }

    /// The shard of this node that has a replica of the group: it leads it, or knows who does.
    fn owner_by_group(&self, group: GroupId) -> Owner {
        self.shard_with(group).filter(|shard| *shard != self.id).map_or(Owner::Here, Owner::Shard)
    }

    fn owner_of_stream(&self, conn: ConnId, stream: Option<u64>) -> Owner {
        stream.and_then(|s| self.conns.stream_owner(conn, s)).map_or(Owner::Here, Owner::Shard)
    }

    fn forward(&mut self, caller: &Caller, to: ShardId, frame: &Frame<'_>, effects: &mut Effects) -> Taken {
        let conn = caller.conn;
        let is_fetch = frame.header.kind == Kind::Fetch.as_u8();
        let opens_stream = is_fetch && FetchRequest::decode(frame.meta).is_ok_and(|r| r.mode == FetchMode::Streaming);
        if opens_stream && !self.conns.has_room_for_stream(conn) {
            let message = "the connection has as many streams on other shards as it may have: open them on the ports of their shards";
            self.refuse(caller, &ApiError::new(ErrorCode::LimitExceeded, message), effects);
            return Taken::Yes;
        }
        if let Ok(cancel) = FetchCancelRequest::decode(frame.meta)
            && frame.header.kind == Kind::FetchCancel.as_u8()
        {
            self.conns.forget_stream(conn, cancel.stream);
        }
        let (meta, payload) = (frame.meta.to_vec(), frame.payload.to_vec());
        let request = Forwarded { conn, header: frame.header, meta, payload, received_us: caller.received_us };
        if !self.forwards.take(to, request.weight()) {
            return Taken::Blocked;
        }
        let opens_stream =
            frame.header.kind == Kind::Fetch.as_u8() && FetchRequest::decode(frame.meta).is_ok_and(|r| r.mode == FetchMode::Streaming);
        self.conns.on_forwarded(conn, opens_stream.then_some((frame.header.correlation, to)));
        self.metrics.counters.mesh_requests += 1;
        self.metrics.counters.mesh_messages_out += 1;
        effects.push(Effect::Mesh { to, message: Message::Request(Box::new(request)) });
        Taken::Yes
    }

    pub(super) fn on_mesh(&mut self, now: Now, from: ShardId, message: Message, effects: &mut Effects) {
        self.metrics.counters.mesh_messages_in += 1;
        match message {
            Message::Request(request) => {
                self.deferred.push_back((from, request));
                self.answer_deferred(now, effects);
            }
            Message::Reply { conn, frame } => {
                if self.conns.is_open(conn) {
                    effects.send(conn, [], |out| out.extend_from_slice(&frame));
                }
            }
            Message::Taken { weight } => {
                self.forwards.give_back(from, weight);
                self.blocked = true;
                self.unblock(effects);
            }
            Message::ConnClosed { conn } => {
                self.sessions.close_conn(conn, Some(from));
                self.close_receivers(conn, Some(from));
                self.half_taken.remove(&(conn, Some(from)));
                self.drop_deferred(from, conn, effects);
                self.answer_deferred(now, effects);
            }
            Message::View(view) => self.adopt_view(now, view, effects),
            Message::Leader { group, node, term } => self.on_leader_told(from, group, node, term),
            Message::Ask(command) => self.on_asked((*command).into(), effects),
            Message::ViewInForce { epoch } => self.on_view_in_force(now, from, epoch, effects),
            Message::StatusAsked { question, uids } => {
                let partitions = self.status_of(&uids);
                effects.push(Effect::Mesh { to: from, message: Message::Status { question, partitions } });
            }
            Message::Status { question, partitions } => self.on_status(question, partitions, effects),
            Message::StorageAsked { question } => {
                let storage = Box::new(self.storage());
                effects.push(Effect::Mesh { to: from, message: Message::Storage { question, storage } });
            }
            Message::Storage { question, storage } => self.on_storage(question, *storage, effects),
            Message::GroupsAsked { question } => {
                let groups = self.groups_status();
                effects.push(Effect::Mesh { to: from, message: Message::Groups { question, groups } });
            }
            Message::Groups { question, groups } => self.on_groups(question, groups, effects),
            Message::GroupProgressAsked { question, uid, owned } => {
                let partitions = self.progress_of(now, uid, &owned);
                effects.push(Effect::Mesh { to: from, message: Message::GroupProgress { question, partitions } });
            }
            Message::QueueAsked { question, uid, partitions } => {
                let partitions = self.queue_status(uid, &partitions);
                effects.push(Effect::Mesh { to: from, message: Message::Queue { question, partitions } });
            }
            Message::Queue { question, partitions } => self.on_queue_status(question, partitions, effects),
            Message::GroupProgress { question, partitions } => self.on_group_progress(question, partitions, effects),
            Message::GroupRetireAsked { uid } => {
                let retired = self.retire_members(now, uid);
                effects.push(Effect::Mesh { to: from, message: Message::GroupRetired { uid, retired } });
            }
            Message::GroupRetired { uid, retired } => self.on_group_retired(now, uid, retired, effects),
            Message::Letters(letters) => self.on_letters(now, Some(from), *letters, effects),
            Message::LettersTaken { question, error } => self.on_letters_answered(now, question, error),
            Message::Stop => self.stop(effects),
        }
    }

    /// Requests of a connection that is gone are not carried out any more.
    fn drop_deferred(&mut self, from: ShardId, conn: ConnId, effects: &mut Effects) {
        self.deferred.retain(|(source, request)| {
            let keep = *source != from || request.conn != conn;
            if !keep {
                effects.push(Effect::Mesh { to: from, message: Message::Taken { weight: request.weight() } });
            }
            keep
        });
    }

    /// Answers forwarded requests in the order of their arrival, as far as there is room. A produce that is slowed down holds up only those of its
    /// connection.
    pub(super) fn answer_deferred(&mut self, now: Now, effects: &mut Effects) {
        let mut held: BTreeSet<(ShardId, ConnId)> = BTreeSet::new();
        let mut at = 0;
        while let Some((from, request)) = self.deferred.get(at) {
            let source = (*from, request.conn);
            let is_produce = match request.header.kind() {
                Some(Kind::Produce) => true,
                Some(Kind::Step) => !request.payload.is_empty(),
                _ => false,
            };
            if held.contains(&source) {
                at += 1;
                continue;
            }
            let is_begun = self.half_taken.contains_key(&(source.1, Some(source.0)));
            let is_refused = !matches!(self.phase, Phase::Serving) || self.log.is_out_of_space(request.payload.len() as u64);
            if is_produce && !is_begun && !is_refused && self.holds_produce(now, true) {
                held.insert(source);
                at += 1;
                continue;
            }
            let (from, request) = self.deferred.remove(at).expect("looked at");
            let frame = Frame { header: request.header, meta: &request.meta, payload: &request.payload };
            let caller = Caller::of(request.conn, Some(from), &frame.header, request.received_us);
            let kind = frame.header.kind().expect("only known kinds are forwarded");
            if self.answer(now, caller, kind, &frame, effects) == Taken::Blocked {
                self.deferred.insert(at, (from, request));
                return;
            }
            effects.push(Effect::Mesh { to: from, message: Message::Taken { weight: request.weight() } });
        }
    }

    /// Answers a request of a known kind here.
    fn answer(&mut self, now: Now, caller: Caller, kind: Kind, frame: &Frame<'_>, effects: &mut Effects) -> Taken {
        // At level `none` nobody waits for an answer, also not for an error.
        let has_reply = || kind.has_reply() && !(kind == Kind::Produce && is_unanswered(frame));
        match &self.phase {
            Phase::Starting if kind != Kind::Ping => {
                if has_reply() {
                    self.refuse(&caller, &ApiError::of(ErrorCode::NotReady), effects);
                }
                return Taken::Yes;
            }
            // A produce of which a part was taken in is carried on: to refuse it now would say that nothing of it is stored.
            Phase::Stopping if kind == Kind::Produce && self.half_taken.contains_key(&(caller.conn, caller.via)) => {}
            Phase::Stopping if !matches!(kind, Kind::Ping | Kind::FetchCredit | Kind::FetchCancel) => {
                if has_reply() {
                    self.refuse(&caller, &ApiError::of(ErrorCode::ShuttingDown), effects);
                }
                return Taken::Yes;
            }
            _ => {}
        }
        let result = match kind {
            Kind::Produce => return self.produce(now, caller, frame, effects),
            Kind::CreateTopic
            | Kind::AlterTopic
            | Kind::DeleteTopic
            | Kind::CreateQueue
            | Kind::AlterQueue
            | Kind::DeleteQueue
            | Kind::AlterCluster => {
                return self.administer(now, caller, kind, frame, effects);
            }
            Kind::TrimPartitions => return self.trim_partitions(now, caller, frame, effects),
            Kind::FindGroup
            | Kind::JoinGroup
            | Kind::HeartbeatGroup
            | Kind::LeaveGroup
            | Kind::CommitOffsets
            | Kind::FetchOffsets
            | Kind::ListGroups
            | Kind::DescribeGroup
            | Kind::DeleteGroup => match self.answer_for_group(now, caller, kind, frame, effects) {
                Ok(taken) => return taken,
                Err(error) => Err(error),
            },
            Kind::InitProducer => match expect_empty(frame).and_then(|()| self.init_producer(now, caller, effects)) {
                Ok(taken) => return taken,
                Err(error) => Err(error),
            },
            Kind::Fetch => self.fetch(now, caller, frame, effects),
            Kind::FetchCredit => self.fetch_credit(&caller, frame),
            Kind::FetchCancel => self.fetch_cancel(&caller, frame, effects),
            Kind::ListOffsets => self.list_offsets(now, caller, frame, effects),
            Kind::Metadata => {
                let mut meta = Vec::new();
                let nodes = api::metadata::nodes(&self.view, &self.info);
                api::metadata::answer(frame.meta, &mut meta, &self.view, &nodes, |place| self.lead_of_partition(place))
                    .map(|()| effects.reply(&caller, 0, &mut Vec::new(), |out| out.extend_from_slice(&meta)))
            }
            Kind::ListTopics => {
                let view = Arc::clone(&self.view);
                expect_empty(frame).map(|()| effects.reply(&caller, 0, &mut Vec::new(), |out| api::topics::list(out, &view)))
            }
            Kind::ListQueues => {
                let mut meta = Vec::new();
                api::queues::list(&mut meta, frame.meta, &self.view)
                    .map(|()| effects.reply(&caller, 0, &mut Vec::new(), |out| out.extend_from_slice(&meta)))
            }
            Kind::FindQueue => self.find_queue(&caller, frame, effects),
            Kind::DescribeTopic | Kind::DescribeStorage if self.gathers_are_full() => return Taken::Blocked,
            Kind::DescribeTopic => self.describe(caller, frame, effects),
            Kind::DescribeStorage => expect_empty(frame).map(|()| self.describe_storage(caller, effects)),
            Kind::DescribeCluster => expect_empty(frame).map(|()| self.describe_cluster(&caller, effects)),
            Kind::DescribeOptions => expect_empty(frame).map(|()| effects.reply(&caller, 0, &mut Vec::new(), api::topics::options)),
            Kind::Ping => expect_empty(frame).map(|()| effects.reply(&caller, 0, &mut Vec::new(), |_| {})),
            Kind::DescribeQueue if self.gathers_are_full() => return Taken::Blocked,
            Kind::DescribeQueue => self.describe_queue(caller, frame, effects),
            Kind::Browse => self.browse_queue(now, &caller, frame, effects),
            Kind::Receive | Kind::Settle | Kind::Purge | Kind::DeleteMessages | Kind::Redrive | Kind::Step => {
                match self.answer_for_queue(now, caller, kind, frame, effects) {
                    Ok(taken) => return taken,
                    Err(error) => Err(error),
                }
            }
            // Said again: harmless, and answered as the first time.
            Kind::Hello => {
                self.hello(&caller, frame, effects);
                Ok(())
            }
        };
        if let Err(error) = result {
            self.refuse(&caller, &error, effects);
        }
        Taken::Yes
    }

    /// Answers a request about consumer groups.
    fn answer_for_group(
        &mut self,
        now: Now,
        caller: Caller,
        kind: Kind,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<Taken, ApiError> {
        match kind {
            Kind::FindGroup => return self.find_group(now, caller, frame, effects),
            Kind::CommitOffsets => return self.commit_offsets(now, caller, frame, effects),
            Kind::FetchOffsets => return self.fetch_offsets(now, caller, frame, effects),
            Kind::JoinGroup => return self.join_group(now, caller, frame),
            Kind::HeartbeatGroup => return self.heartbeat_group(now, caller, frame),
            Kind::LeaveGroup => return self.leave_group(now, caller, frame),
            Kind::DeleteGroup => self.retire_group(now, Some(caller), DeleteGroupRequest::decode(frame.meta)?.name, effects)?,
            _ if self.gathers_are_full() => return Ok(Taken::Blocked),
            Kind::ListGroups => {
                expect_empty(frame)?;
                self.ask_for_groups(Some(caller), effects);
            }
            _ => self.describe_group(now, caller, frame, effects)?,
        }
        Ok(Taken::Yes)
    }

    /// Answers a request about messages of a queue.
    fn answer_for_queue(
        &mut self,
        now: Now,
        caller: Caller,
        kind: Kind,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<Taken, ApiError> {
        match kind {
            Kind::Receive => self.receive(now, caller, frame, effects),
            Kind::Settle => self.settle(now, caller, frame),
            Kind::Purge => self.purge_queue(now, caller, frame),
            Kind::DeleteMessages => self.delete_messages(now, caller, frame),
            Kind::Step => self.step_together(now, caller, frame, effects),
            _ => self.redrive_queue(now, caller, frame),
        }
    }

    /// Why a partition cannot be had here, and where it could.
    pub(super) fn not_here(&self, uid: PartitionUid) -> (ErrorCode, String) {
        match self.view.find_partition(uid) {
            Some((_, place)) => (ErrorCode::NotLeader, self.leader_address(place.group)),
            None => (ErrorCode::UnknownPartition, String::new()),
        }
    }
}

/// Whether a produce asks for no answer.
fn is_unanswered(frame: &Frame<'_>) -> bool {
    ProduceRequest::decode(frame.meta).is_ok_and(|request| request.level == Level::None)
}

fn expect_empty(frame: &Frame<'_>) -> Result<(), ApiError> {
    if frame.meta.is_empty() && frame.payload.is_empty() {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Malformed, "this request has no body"))
}
