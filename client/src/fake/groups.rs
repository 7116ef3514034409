//! The fake broker's consumer groups: one home, whose lists the test writes by hand; claims and commits as docs/PROTOCOL.md says.
//!
//! Not here: dividing partitions, session timeouts, durability.

use std::collections::BTreeMap;

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{Frame, FrameHeader};
use tramline_wire::group::{
    CommitOffsetsReply, CommitOffsetsRequest, FetchOffsetsReply, FetchOffsetsRequest, FindGroupReply, FindGroupRequest, GrantedPartition,
    HeartbeatGroupReply, HeartbeatGroupRequest, JoinGroupReply, JoinGroupRequest, LeaveGroupReply, LeaveGroupRequest, OFFSET_NONE,
    OffsetCommitted, OffsetFetched,
};
use tramline_wire::prim::List;

use super::FakeBroker;
use super::script::{refusal_of, reply_to};

/// A member as the home knows it.
#[derive(Debug, Default)]
pub(crate) struct FakeMember {
    pub epoch: u64,
    pub list: Vec<(u64, u64)>,
    /// The epoch that it said it has put in force.
    pub in_force: u64,
    pub instance: String,
    pub session_timeout_ms: u32,
    pub topics: Vec<String>,
    /// A heartbeat that is held: connection, header, epoch.
    held: Option<(u32, FrameHeader, u64)>,
}

/// A partition as the group knows it.
#[derive(Debug, Default)]
pub(crate) struct FakeOffset {
    pub claimed: u64,
    pub offset: Option<u64>,
    pub metadata: String,
    pub commits: usize,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct FakeGroup {
    pub uid: u64,
    pub home_shard: u16,
    pub members: BTreeMap<u64, FakeMember>,
    pub offsets: BTreeMap<u64, FakeOffset>,
    /// What the next member that joins may own.
    pub next_list: Vec<(u64, u64)>,
    /// Members that left, and whether they come back.
    pub left: Vec<(u64, bool)>,
    /// A commit of these is refused so, once each.
    pub commit_refusals: Vec<(u64, ErrorCode)>,
    /// A claim of these is refused so, once each.
    pub claim_refusals: Vec<(u64, ErrorCode)>,
    epoch: u64,
    next_member: u64,
}

impl Default for FakeGroup {
    fn default() -> FakeGroup {
        FakeGroup {
            uid: 900,
            home_shard: 0,
            members: BTreeMap::new(),
            offsets: BTreeMap::new(),
            next_list: Vec::new(),
            left: Vec::new(),
            commit_refusals: Vec::new(),
            claim_refusals: Vec::new(),
            epoch: 10,
            next_member: 0,
        }
    }
}

fn granted(list: &[(u64, u64)]) -> Vec<GrantedPartition> {
    list.iter().map(|&(partition_uid, assignment_epoch)| GrantedPartition { partition_uid, assignment_epoch }).collect()
}

fn beaten(header: FrameHeader, member: &FakeMember, asked: u64) -> Vec<u8> {
    let frame = Frame { header, meta: &[], payload: &[] };
    let list = if asked == member.epoch { Vec::new() } else { granted(&member.list) };
    reply_to(&frame, |out| HeartbeatGroupReply { epoch: member.epoch, partitions: List::of(&list) }.encode(out))
}

impl FakeBroker {
    /// Gives a member another list.
    pub(crate) fn set_list(&mut self, member: u64, list: &[(u64, u64)]) {
        self.group.epoch += 1;
        let epoch = self.group.epoch;
        let member = self.group.members.get_mut(&member).expect("a member");
        (member.epoch, member.list) = (epoch, list.to_vec());
    }

    /// Heartbeats whose list has changed meanwhile.
    pub(super) fn answer_held(&mut self, conn: u32) {
        for member in self.group.members.values_mut() {
            if let Some((_, header, asked)) = member.held.take_if(|(held, _, asked)| *held == conn && *asked != member.epoch) {
                self.outboxes.entry(conn).or_default().extend_from_slice(&beaten(header, member, asked));
            }
        }
    }

    /// The connection is gone.
    pub(super) fn forget_held(&mut self, conn: u32) {
        for member in self.group.members.values_mut().filter(|member| member.held.is_some_and(|(held, ..)| held == conn)) {
            member.held = None;
        }
    }

    pub(super) fn find_group(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        FindGroupRequest::decode(frame.meta).expect("decodes");
        let (group_uid, shard) = (self.group.uid, self.group.home_shard);
        reply_to(frame, |out| FindGroupReply { group_uid, node: 1, shard, created: false }.encode(out))
    }

    pub(super) fn join_group(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let request = JoinGroupRequest::decode(frame.meta).expect("decodes");
        let group = &mut self.group;
        if request.group_uid != group.uid {
            return refusal_of(frame, ErrorCode::UnknownGroup);
        }
        group.epoch += 1;
        group.next_member += 1;
        let (member_id, epoch, list) = (group.next_member, group.epoch, std::mem::take(&mut group.next_list));
        let partitions = granted(&list);
        let member = FakeMember {
            epoch,
            list,
            in_force: 0,
            instance: request.instance.to_string(),
            session_timeout_ms: request.session_timeout_ms,
            topics: request.topics.iter().map(str::to_string).collect(),
            held: None,
        };
        group.members.insert(member_id, member);
        reply_to(frame, |out| JoinGroupReply { member_id, epoch, partitions: List::of(&partitions) }.encode(out))
    }

    /// `None`: it is held.
    pub(super) fn heartbeat(&mut self, conn: u32, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let request = HeartbeatGroupRequest::decode(frame.meta).expect("decodes");
        if request.group_uid != self.group.uid {
            return Some(refusal_of(frame, ErrorCode::UnknownGroup));
        }
        let Some(member) = self.group.members.get_mut(&request.member_id) else {
            return Some(refusal_of(frame, ErrorCode::UnknownMember));
        };
        assert_eq!(member.instance, request.instance);
        assert!(request.wait_ms <= member.session_timeout_ms / 3);
        assert!(member.held.is_none(), "one heartbeat at a time");
        member.in_force = request.epoch;
        if request.epoch == member.epoch && request.wait_ms > 0 {
            member.held = Some((conn, frame.header, request.epoch));
            return None;
        }
        Some(beaten(frame.header, member, request.epoch))
    }

    pub(super) fn leave_group(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let request = LeaveGroupRequest::decode(frame.meta).expect("decodes");
        if self.group.members.remove(&request.member_id).is_none() {
            return refusal_of(frame, ErrorCode::UnknownMember);
        }
        self.group.left.push((request.member_id, request.flags.has(tramline_wire::group::LeaveFlags::KEEP)));
        reply_to(frame, |out| LeaveGroupReply {}.encode(out))
    }

    pub(super) fn fetch_offsets(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let request = FetchOffsetsRequest::decode(frame.meta).expect("decodes");
        let asks: Vec<_> = request.entries.iter().collect();
        let mut answers = Vec::new();
        for ask in &asks {
            let refused = self.group.claim_refusals.iter().position(|(uid, _)| *uid == ask.partition_uid);
            if let Some(at) = refused {
                let error = self.group.claim_refusals.remove(at).1;
                answers.push((ask.partition_uid, error, OFFSET_NONE, String::new()));
                continue;
            }
            let of = self.group.offsets.entry(ask.partition_uid).or_default();
            let error =
                if ask.assignment_epoch != 0 && ask.assignment_epoch < of.claimed { ErrorCode::StaleAssignment } else { ErrorCode::Ok };
            of.claimed = of.claimed.max(ask.assignment_epoch);
            answers.push((ask.partition_uid, error, of.offset.unwrap_or(OFFSET_NONE), of.metadata.clone()));
        }
        let entries: Vec<_> = answers
            .iter()
            .map(|(uid, error, offset, metadata)| OffsetFetched {
                partition_uid: *uid,
                error: *error,
                offset: *offset,
                committed_us: 0,
                metadata,
            })
            .collect();
        reply_to(frame, |out| FetchOffsetsReply { entries: List::of(&entries) }.encode(out))
    }

    pub(super) fn commit_offsets(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let request = CommitOffsetsRequest::decode(frame.meta).expect("decodes");
        let mut entries = Vec::new();
        for commit in request.entries.iter() {
            let refused = self.group.commit_refusals.iter().position(|(uid, _)| *uid == commit.partition_uid);
            let of = self.group.offsets.entry(commit.partition_uid).or_default();
            let error = match refused {
                Some(at) => self.group.commit_refusals.remove(at).1,
                None if commit.assignment_epoch < of.claimed => ErrorCode::StaleAssignment,
                None => {
                    (of.offset, of.metadata) = (Some(commit.offset), commit.metadata.to_string());
                    of.commits += 1;
                    ErrorCode::Ok
                }
            };
            entries.push(OffsetCommitted { partition_uid: commit.partition_uid, error });
        }
        reply_to(frame, |out| CommitOffsetsReply { entries: List::of(&entries) }.encode(out))
    }
}
