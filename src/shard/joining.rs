//! Nodes that ask to be one of the cluster: what comes on connections for calls (docs/REPLICATION.md, 3.1 and 6.5).
//!
//! A node calls before it has anything of its own but a disk. Whoever leads group 0 takes it into the metadata and tells it group 0 as it is then; its
//! replica of that begins there. To ask again changes nothing: the same answer, but of now. One whose number has another disk takes that one's place (`disks.rs`).
//!
//! Not here: how a node asks (runtime/join.rs), what the metadata say of it (control/), how its replica is brought into the group (`planning.rs`).

use super::pipelines::{NotTaken, speaks_alike, write};
use super::shard::{Phase, Shard, Taken};
use crate::api::ApiError;
use crate::control::{ClusterCommand, Command, Joined, NodeSpec};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{ConnId, GroupId, LogIndex, NodeId, ReplicaId, ShardId};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{
    self, CLUSTER_NONE, Call, CallReply, CallWhat, Class, Frame, Hello, Kind, NODE_ANY, NodeError, Numbers, Refusal, Refused, Side,
};

/// Connections for calls.
const CALLERS_MAX: usize = 64;

/// A connection for calls, accepted.
#[derive(Debug)]
pub(super) struct CallConn {
    pub(super) conn: ConnId,
    /// Of the frames that are sent.
    numbers: Numbers,
}

/// A call that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joiner {
    conn: ConnId,
    call: u64,
}

impl Shard {
    /// The hello of a node that has a call.
    pub(super) fn on_call_hello(&mut self, conn: ConnId, hello: &Hello<'_>, effects: &mut Effects) {
        let is_stranger = hello.cluster_id == CLUSTER_NONE && hello.to_node == NODE_ANY;
        let refusal = if !is_stranger && hello.cluster_id != self.info.cluster_id {
            Some(Refusal::OtherCluster)
        } else if !is_stranger && self.is_gone(ReplicaId::of(hello.from_generation, NodeId(hello.from_node))) {
            Some(Refusal::Removed)
        } else if self.id != ShardId(0) || hello.to_shard != 0 {
            Some(Refusal::NoSuchShard)
        } else if !speaks_alike(hello) {
            Some(Refusal::NoCommonFeature)
        } else if self.phase != Phase::Serving || self.pipelines.callers.len() >= CALLERS_MAX {
            Some(Refusal::NotServing)
        } else {
            None
        };
        if let Some(code) = refusal {
            return refuse_hello(conn, code, effects);
        }
        let mut numbers = Numbers::new();
        self.answer_hello(conn, &mut numbers, &[], effects);
        self.pipelines.callers.push(CallConn { conn, numbers });
    }

    /// A frame on a connection for calls.
    pub(super) fn on_call(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        frame.kind.check(Class::Calls, Side::Dialer)?;
        let call = Call::decode(frame.meta).map_err(NodeError::from)?;
        call.check(frame.payload)?;
        let joiner = Joiner { conn, call: call.call };
        if call.what == CallWhat::Command {
            let done = self.on_word(frame.payload);
            let error = done.as_ref().err().map_or(ErrorBody { code: 0, retriable: false, message: "", next: "" }, |error| {
                ErrorBody::new(error.code, &error.message, "")
            });
            self.answer_call(joiner, CallWhat::Command, error, &[], effects);
            return Ok(());
        }
        if call.what != CallWhat::Join {
            let error = ApiError::new(ErrorCode::UnknownKind, "this node takes no such calls: install the same version on all nodes");
            self.refuse_join(joiner, &error, effects);
            return Ok(());
        }
        match self.join(now, joiner, frame.payload) {
            Ok(Taken::Yes) => {}
            Ok(Taken::Blocked) => return Err(NotTaken::Blocked),
            Err(error) => self.refuse_join(joiner, &error, effects),
        }
        Ok(())
    }

    fn join(&mut self, now: Now, joiner: Joiner, payload: &[u8]) -> Result<Taken, ApiError> {
        let command = Command::decode(payload).map_err(|error| ApiError::new(ErrorCode::Malformed, error.to_string()))?;
        let Command::Cluster(cluster) = command else { return Err(ApiError::of(ErrorCode::Malformed)) };
        let ClusterCommand::AddNode(mut spec) = *cluster else { return Err(ApiError::of(ErrorCode::Malformed)) };
        if self.groups.leader_term(GroupId(0)).is_none() {
            let next = self.leader_cluster_address();
            return Err(ApiError { code: ErrorCode::NotLeader, message: String::new(), next });
        }
        if self.info.cluster.is_none() {
            let what = "this node does not say where it listens for other nodes: start it with --cluster-listen";
            return Err(ApiError::new(ErrorCode::InvalidRequest, what));
        }
        self.check_shards(&spec)?;
        // Whoever asks does not know its generation yet; one that asks again is told the same.
        if self.replace_disk(now, &mut spec)? == Taken::Blocked {
            return Ok(Taken::Blocked);
        }
        let seat = self.seat.as_ref().expect("shard 0 has it");
        let is_replaced = spec.generation > seat.state.generation_of(NodeId(spec.node));
        let command = Command::from(ClusterCommand::AddNode(spec));
        // Behind a replacement that is not applied it is checked when that is.
        if !is_replaced {
            seat.state.check(&command).map_err(|error| ApiError::from(&error))?;
        }
        let taken = self.propose(command, None, false)?;
        if taken == Taken::Yes {
            self.seat.as_mut().expect("shard 0 has it").expect_joiner(joiner);
        }
        Ok(taken)
    }

    /// Shards of a group's replicas have equal numbers, so all nodes have as many: a limit of today.
    fn check_shards(&self, spec: &NodeSpec) -> Result<(), ApiError> {
        if spec.shards == self.settings.shards {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!(
                "node {} has {} shards, the nodes of this cluster have {}: start it with --shards {} on an empty --data-dir",
                spec.node, spec.shards, self.settings.shards, self.settings.shards
            ),
        ))
    }

    fn leader_cluster_address(&self) -> String {
        let Some(node) = self.groups.leader_of(GroupId(0)).map(|replica| replica.node()) else { return String::new() };
        self.view.cluster.node(node).map_or_else(String::new, |found| found.cluster.address())
    }

    /// Answers a node that is in the metadata now, by the entry at `index`.
    pub(super) fn welcome(&mut self, joiner: Joiner, node: NodeId, index: LogIndex, effects: &mut Effects) {
        let group = GroupId(0);
        let seat = self.seat.as_ref().expect("shard 0 has it");
        let members = self.groups.members_of(group).expect("shard 0 has it");
        let joined = Joined {
            cluster_id: self.info.cluster_id,
            generation: seat.state.generation_of(node),
            index,
            term: self.groups.entry_term(group, index),
            voters: members.voters.clone(),
            learners: members.learners.clone(),
            state: seat.state.snapshot(),
        };
        self.answer_call(joiner, CallWhat::Join, ErrorBody { code: 0, retriable: false, message: "", next: "" }, &joined.encode(), effects);
    }

    pub(super) fn refuse_join(&mut self, joiner: Joiner, error: &ApiError, effects: &mut Effects) {
        self.metrics.count_error(error.code);
        self.answer_call(joiner, CallWhat::Join, ErrorBody::new(error.code, &error.message, &error.next), &[], effects);
    }

    fn answer_call(&mut self, joiner: Joiner, what: CallWhat, error: ErrorBody<'_>, payload: &[u8], effects: &mut Effects) {
        let Some(caller) = self.pipelines.callers.iter_mut().find(|caller| caller.conn == joiner.conn) else { return };
        let reply = CallReply { call: joiner.call, what, crc: crc32c::crc32c(payload), error };
        let number = caller.numbers.advance();
        let mut is_whole = true;
        effects.send(joiner.conn, [], |out| {
            let start = node::begin(out, Kind::CallReply, number);
            reply.encode(out);
            match finish_frame(out, start, payload.len()) {
                Ok(_) => out.extend_from_slice(payload),
                Err(_) => is_whole = false,
            }
        });
        if !is_whole {
            effects.push(Effect::Close { conn: joiner.conn, reason: "the metadata are too large for one answer" });
        }
    }
}

/// Says why a hello is not taken, and ends its connection.
pub(super) fn refuse_hello(conn: ConnId, code: Refusal, effects: &mut Effects) {
    let refused = Refused::new(code, code.sentence());
    let number = Numbers::new().advance();
    effects.send(conn, [], |out| write(out, Kind::Refused, number, |out| refused.encode(out)));
    effects.push(Effect::Close { conn, reason: "the hello of a node was refused" });
}
