//! Consumer groups, seen from outside: their list, their members and lag, their offsets, and moving or deleting them.
//!
//! Not here: being a member of one (`group_consumer.rs`).

use std::collections::BTreeMap;
use std::time::Instant;

use tramline_wire::error::ErrorCode;
use tramline_wire::group::{
    Assignor, CommitOffsetsReply, CommitOffsetsRequest, DeleteGroupReply, DeleteGroupRequest, DescribeGroupReply, DescribeGroupRequest,
    FetchOffsetsReply, FetchOffsetsRequest, FindGroupFlags, FindGroupReply, FindGroupRequest, GroupMember, GroupPartition, JoinFlags,
    JoinGroupReply, JoinGroupRequest, LeaveFlags, LeaveGroupReply, LeaveGroupRequest, ListGroupsReply, ListGroupsRequest, OFFSET_NONE,
    OffsetAsk, OffsetCommit, TIME_NONE,
};
use tramline_wire::kind::Kind;
use tramline_wire::prim::{DecodeError, List};
use tramline_wire::topics::END_UNKNOWN;

use crate::admin::{Aim, Answerer, Shared};
use crate::client::{Client, check_lengths};
use crate::error::Error;
use crate::everywhere::{Asked, SilentNode};
use crate::link::Effect;
use crate::owners::{Placed, Wanted, aim, answered, refused};
use crate::pages::{self, Page};
use crate::types::told;

/// Partitions of one request for offsets: with the longest texts (4,096 bytes each) the reply still fits.
pub(crate) const OFFSETS_PER_REQUEST_MAX: usize = 200;
/// Who moves a group's offsets holds it for so long at most, in milliseconds, should it die in between.
const SEEK_SESSION_MS: u32 = 10_000;

/// One line of [`Client::list_groups`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// Name.
    pub name: String,
    /// Uid, never reused, also not by a later group of the same name.
    pub uid: u64,
    /// Node of its home; 0 where nobody knows who leads that now.
    pub node: u32,
    /// Shard of that node.
    pub shard: u16,
    /// Members it has now; `None`: its home did not answer.
    pub members: Option<u32>,
}

/// The answer to [`Client::describe_group`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Uid.
    pub uid: u64,
    /// Name.
    pub name: String,
    /// Node of its home, which alone knows its members; 0 where nobody knows who leads that now.
    pub node: u32,
    /// Shard of that node.
    pub shard: u16,
    /// False: its home did not answer, and nothing is known of epoch, assignor, session timeout, members and owners.
    pub is_home_told: bool,
    /// Rises with each change of members or of what they may own.
    pub epoch: u64,
    /// `sticky` or `uniform`.
    pub assignor: &'static str,
    /// A member that is not heard of for so long is dropped, in milliseconds; 0 before anybody has joined.
    pub session_timeout_ms: u32,
    /// Its members, by id.
    pub members: Vec<MemberDescription>,
    /// Partitions that it has committed an offset of or that a member owns, by topic and number.
    pub partitions: Vec<GroupProgress>,
    /// Nodes that did not answer: offsets that the group has committed in partitions that they lead are missing, or not known where a member owns the partition.
    pub silent: Vec<SilentNode>,
}

impl GroupDescription {
    /// Puts together what nodes told of one group. The home alone knows members and owners, and the leader of a partition how far it was read.
    fn of(told: Vec<(u32, GroupDescription)>, silent: Vec<SilentNode>) -> Option<GroupDescription> {
        let home = told.iter().filter(|(node, group)| group.node == *node).max_by_key(|(_, group)| group.epoch);
        let mut whole = home.or(told.first())?.1.clone();
        whole.is_home_told = home.is_some();
        let of_it = |(_, group): &(u32, GroupDescription)| group.uid == whole.uid;
        let mut partitions: BTreeMap<(String, u32), GroupProgress> = BTreeMap::new();
        let owners: BTreeMap<(String, u32), Option<u64>> = whole.partitions.iter().map(|of| (of.place(), of.member)).collect();
        for of in told.into_iter().filter(of_it).flat_map(|(_, group)| group.partitions) {
            let member = owners.get(&of.place()).copied().flatten();
            match partitions.get(&of.place()) {
                Some(known) if known.error.is_ok() || !of.error.is_ok() => {}
                _ => drop(partitions.insert(of.place(), GroupProgress { member, ..of })),
            }
        }
        whole.partitions = partitions.into_values().collect();
        whole.silent = silent;
        Some(whole)
    }
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub id: u64,
    /// Name of a static member; else empty.
    pub instance: String,
    /// Who it says it is.
    pub client: String,
    /// Partitions it may own now.
    pub partitions: u32,
    /// Partitions it is going to have.
    pub target: u32,
    /// Whether it has put in force what it was told last, and has all it is going to have.
    pub is_settled: bool,
}

/// How far a group has read one partition, as its leader tells. All numbers are 0 or `None` where `error` is not `Ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProgress {
    /// Topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: u32,
    /// The member that may own it now.
    pub member: Option<u64>,
    /// `Ok`, or `NotReady`: no node that answered leads it.
    pub error: ErrorCode,
    /// The committed offset: the next one to read.
    pub offset: Option<u64>,
    /// When it was committed, UTC microseconds; 0 where nothing was.
    pub committed_us: i64,
    /// First offset that still exists.
    pub log_start: u64,
    /// One past the last committed record.
    pub committed_end: u64,
    /// Records that are not read: from the committed offset (the log start where nothing was committed) to the end.
    pub lag: u64,
    /// Bytes of their batches, about (see DescribeGroup in docs/PROTOCOL.md).
    pub lag_bytes: u64,
    /// Age of the oldest of them in milliseconds, about; 0 where there is none.
    pub lag_ms: u64,
    /// Milliseconds until nothing is left, if the lag goes on falling as of late; `None` where it does not fall.
    pub drain_ms: Option<u64>,
}

impl GroupProgress {
    fn place(&self) -> (String, u32) {
        (self.topic.clone(), self.partition)
    }
}

impl From<GroupMember<'_>> for MemberDescription {
    fn from(member: GroupMember<'_>) -> MemberDescription {
        MemberDescription {
            id: member.member_id,
            instance: member.instance.to_string(),
            client: member.client.to_string(),
            partitions: member.partitions,
            target: member.target,
            is_settled: member.is_settled,
        }
    }
}

impl From<GroupPartition<'_>> for GroupProgress {
    fn from(of: GroupPartition<'_>) -> GroupProgress {
        let offset = (of.offset != OFFSET_NONE).then_some(of.offset);
        let from = offset.unwrap_or(of.log_start).max(of.log_start);
        let (error, committed_end) = (told(of.committed_end), if of.committed_end == END_UNKNOWN { 0 } else { of.committed_end });
        GroupProgress {
            topic: of.topic.to_string(),
            partition: of.index,
            member: (of.member_id != 0).then_some(of.member_id),
            error,
            offset,
            committed_us: of.committed_us,
            log_start: of.log_start,
            committed_end,
            lag: committed_end.saturating_sub(from),
            lag_bytes: of.lag_bytes,
            lag_ms: of.lag_ms,
            drain_ms: (of.drain_ms != TIME_NONE).then_some(of.drain_ms),
        }
    }
}

impl Client {
    /// All consumer groups, in order of name. Members are asked of the nodes where the groups are at home.
    pub fn list_groups(&self) -> Result<Vec<GroupSummary>, Error> {
        let (what, deadline, shared) = ("list groups", self.shared().deadline(), self.shared());
        let encode = |meta: &mut Vec<u8>| ListGroupsRequest {}.encode(meta);
        let read = |from: Answerer, meta: &[u8]| Ok((summaries(from.node, meta)?, from.node));
        let (mut groups, node) = shared.call_of_cluster(deadline.into(), what, Kind::ListGroups, Effect::Repeatable, &[], encode, read)?;
        let untold = |groups: &Vec<GroupSummary>| groups.iter().filter(|group| group.members.is_none()).map(|group| group.node).collect();
        let ask = |asked: &mut Asked<'_>| {
            let node = asked.node();
            asked.call(Kind::ListGroups, encode, |meta| summaries(node, meta))
        };
        let take_in = |groups: &mut Vec<GroupSummary>, other: Vec<GroupSummary>| {
            let told: BTreeMap<u64, GroupSummary> = other.into_iter().map(|told| (told.uid, told)).collect();
            for group in groups.iter_mut().filter(|group| group.members.is_none()) {
                if let Some(told) = told.get(&group.uid).filter(|told| told.members.is_some()) {
                    *group = told.clone();
                }
            }
        };
        shared.complete(what, (&mut groups, node), deadline, untold, ask, take_in)?;
        Ok(groups)
    }

    /// One consumer group with its members, its offsets and what is left to read: members are asked of its home, offsets of the nodes that lead the partitions.
    /// Above some 1,000 partitions of a node it is asked for in pages, which are not of one moment.
    pub fn describe_group(&self, name: &str) -> Result<GroupDescription, Error> {
        check_lengths(name, &[])?;
        let what = format!("describe group {name:?}");
        let (shared, deadline) = (self.shared(), self.shared().deadline());
        let kind = Kind::DescribeGroup;
        let is_same = |a: &(u32, GroupDescription), b: &(u32, GroupDescription)| (a.0, a.1.uid) == (b.0, b.1.uid);
        let is_before = |a: &GroupProgress, b: &GroupProgress| (&a.topic, a.partition) < (&b.topic, b.partition);
        let mut node = None;
        let ask = |last: Option<&GroupProgress>| {
            let encode = |meta: &mut Vec<u8>| described_from(name, last).encode(meta);
            let read = |from: Answerer, meta: &[u8]| described_page(from.node, meta);
            // Pages of one node: where another one answers, all begins anew.
            let page = shared.call_of_cluster(Aim { deadline, node }, &what, kind, Effect::Repeatable, &[], encode, read)?;
            node = Some(page.head.0);
            Ok(page)
        };
        let ((first, group), partitions) = pages::collect(is_same, is_before, ask)?;
        let mut told = vec![(first, GroupDescription { partitions, ..group })];
        let ask = |asked: &mut Asked<'_>| {
            let node = asked.node();
            let page = |last: Option<&GroupProgress>| {
                asked.call(kind, |meta: &mut Vec<u8>| described_from(name, last).encode(meta), |meta| described_page(node, meta))
            };
            let ((_, group), partitions) = pages::collect(is_same, is_before, page)?;
            Ok(GroupDescription { partitions, ..group })
        };
        // What a group has committed in a partition only the leader of that knows, so all are asked.
        let mut places = shared.places(deadline)?;
        places.retain(|place| place.node != first);
        let (others, silent) = shared.ask_each(&what, &places, deadline, &ask);
        told.extend(others);
        Ok(GroupDescription::of(told, silent).expect("one has answered"))
    }

    /// Deletes a consumer group with its offsets. Refused while it has members.
    pub fn delete_group(&self, name: &str) -> Result<(), Error> {
        check_lengths(name, &[])?;
        let what = format!("delete group {name:?}");
        let encode = |meta: &mut Vec<u8>| DeleteGroupRequest { name }.encode(meta);
        self.shared().call(&what, Kind::DeleteGroup, Effect::Once, encode, |meta| DeleteGroupReply::decode(meta).map(|_| ()))
    }

    /// The committed offset of each of these partitions of a topic, in the order asked; `None` where nothing was committed.
    pub fn committed_offsets(&self, group: &str, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, Error> {
        self.shared().committed_of_group(group, topic, partitions)
    }

    /// Moves a group to these (partition, offset) of a topic, for good; creates the group where there is none. Refused while it has members: nobody
    /// reads while offsets are moved, and nobody who read before can undo it. An error in between may leave some moved; asking again is harmless.
    pub fn seek_group(&self, group: &str, topic: &str, offsets: &[(u32, u64)]) -> Result<(), Error> {
        check_lengths(topic, &[])?;
        let shared = self.shared();
        let group_uid = shared.find_group(group, FindGroupFlags::CREATE)?;
        let what = format!("seek group {group:?}");
        let topics = [topic];
        let join = JoinGroupRequest {
            group_uid,
            flags: JoinFlags::ALONE,
            assignor: Assignor::Sticky,
            session_timeout_ms: SEEK_SESSION_MS,
            instance: "",
            client: "seek",
            topics: List::of(&topics),
        };
        let (member_id, epochs) = shared.call(
            &what,
            Kind::JoinGroup,
            Effect::Once,
            |meta| join.encode(meta),
            |meta| {
                let reply = JoinGroupReply::decode(meta)?;
                let epochs = reply.partitions.iter().map(|granted| (granted.partition_uid, granted.assignment_epoch));
                Ok((reply.member_id, epochs.collect::<BTreeMap<u64, u64>>()))
            },
        )?;
        let moved = shared.move_offsets(&what, group_uid, topic, offsets, &epochs);
        let leave = LeaveGroupRequest { group_uid, member_id, flags: LeaveFlags(0), instance: "" };
        let left = shared.call(
            &what,
            Kind::LeaveGroup,
            Effect::Repeatable,
            |meta| leave.encode(meta),
            |meta| LeaveGroupReply::decode(meta).map(|_| ()),
        );
        match left {
            // A leave that was sent again after its answer was lost.
            Err(error) if error.code() == Some(ErrorCode::UnknownMember) => moved,
            left => moved.and(left),
        }
    }
}

/// What `node` tells of groups; of members where it is a group's home.
fn summaries(node: u32, meta: &[u8]) -> Result<Vec<GroupSummary>, DecodeError> {
    let summary = |group: tramline_wire::group::GroupItem<'_>| GroupSummary {
        name: group.name.to_string(),
        uid: group.group_uid,
        node: group.node,
        shard: group.shard,
        members: (group.node == node).then_some(group.members),
    };
    Ok(ListGroupsReply::decode(meta)?.groups.iter().map(summary).collect())
}

/// Asks for what is behind the last partition.
fn described_from<'a>(name: &'a str, last: Option<&'a GroupProgress>) -> DescribeGroupRequest<'a> {
    let (from_topic, from_partition) = last.map_or(("", 0), |last| (last.topic.as_str(), last.partition.saturating_add(1)));
    DescribeGroupRequest { name, from_topic, from_partition }
}

fn described_page(node: u32, meta: &[u8]) -> Result<Page<(u32, GroupDescription), GroupProgress>, DecodeError> {
    let reply = DescribeGroupReply::decode(meta)?;
    let head = GroupDescription {
        uid: reply.group_uid,
        name: reply.name.to_string(),
        node: reply.node,
        shard: reply.shard,
        is_home_told: reply.node == node,
        epoch: reply.epoch,
        assignor: reply.assignor.name(),
        session_timeout_ms: reply.session_timeout_ms,
        members: reply.members.iter().map(MemberDescription::from).collect(),
        partitions: Vec::new(),
        silent: Vec::new(),
    };
    Ok(Page { head: (node, head), items: reply.partitions.iter().map(GroupProgress::from).collect(), more: reply.more })
}

impl Shared {
    pub(crate) fn committed_of_group(&self, group: &str, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, Error> {
        let group_uid = self.find_group(group, FindGroupFlags(0))?;
        self.committed_offsets(group, group_uid, topic, partitions)
    }

    fn find_group(&self, name: &str, flags: FindGroupFlags) -> Result<u64, Error> {
        check_lengths(name, &[])?;
        let what = format!("find group {name:?}");
        let encode = |meta: &mut Vec<u8>| FindGroupRequest { name, flags }.encode(meta);
        self.call(&what, Kind::FindGroup, Effect::Repeatable, encode, |meta| Ok(FindGroupReply::decode(meta)?.group_uid))
    }

    fn committed_offsets(&self, group: &str, group_uid: u64, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, Error> {
        let what = format!("fetch offsets of group {group:?}");
        let wanted: Vec<_> = partitions.iter().map(|partition| Wanted { partition: *partition, uid: None, asked: () }).collect();
        let mut found = vec![None; partitions.len()];
        let deadline = self.deadline();
        self.by_owner(&what, topic, &wanted, OFFSETS_PER_REQUEST_MAX, deadline, |questions| {
            let asks: Vec<_> = questions.iter().map(|q| OffsetAsk { partition_uid: q.uid, assignment_epoch: 0 }).collect();
            for (place, offset) in self.fetch_offsets(&what, group_uid, questions, &asks, deadline)? {
                found[place] = offset;
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// One request for offsets: by place the offset of each partition.
    fn fetch_offsets<T>(
        &self,
        what: &str,
        group_uid: u64,
        questions: &[Placed<T>],
        asks: &[OffsetAsk],
        deadline: Instant,
    ) -> Result<Vec<(usize, Option<u64>)>, Error> {
        let request = FetchOffsetsRequest { group_uid, entries: List::of(asks) };
        let encode = |meta: &mut Vec<u8>| request.encode(meta);
        let told = self.call_until(aim(questions, deadline), what, Kind::FetchOffsets, Effect::Repeatable, encode, |meta| {
            Ok(FetchOffsetsReply::decode(meta)?.entries.iter().map(|e| (e.partition_uid, e.error, e.offset)).collect::<Vec<_>>())
        })?;
        let mut found = Vec::with_capacity(told.len());
        for (question, (_, error, offset)) in answered(questions, told, |(uid, ..)| *uid)? {
            if !error.is_ok() {
                return Err(refused(what, question.partition, error, String::new()));
            }
            found.push((question.place, (offset != OFFSET_NONE).then_some(offset)));
        }
        Ok(found)
    }

    /// Claims the partitions as their only owner, and commits.
    fn move_offsets(
        &self,
        what: &str,
        group_uid: u64,
        topic: &str,
        offsets: &[(u32, u64)],
        epochs: &BTreeMap<u64, u64>,
    ) -> Result<(), Error> {
        let ask = |uid: u64| match epochs.get(&uid) {
            Some(epoch) => Ok(OffsetAsk { partition_uid: uid, assignment_epoch: *epoch }),
            None => Err(Error::protocol("the broker", format!("it did not grant partition uid {uid} of topic {topic:?}"))),
        };
        let wanted: Vec<_> =
            offsets.iter().map(|(partition, offset)| Wanted { partition: *partition, uid: None, asked: *offset }).collect();
        let deadline = self.deadline();
        self.by_owner(what, topic, &wanted, OFFSETS_PER_REQUEST_MAX, deadline, |questions| {
            let asks = questions.iter().map(|question| ask(question.uid)).collect::<Result<Vec<_>, Error>>()?;
            self.fetch_offsets(what, group_uid, questions, &asks, deadline)?;
            let commit = |(question, ask): (&Placed<u64>, &OffsetAsk)| OffsetCommit {
                partition_uid: ask.partition_uid,
                assignment_epoch: ask.assignment_epoch,
                offset: question.asked,
                metadata: "",
            };
            let commits: Vec<_> = questions.iter().zip(&asks).map(commit).collect();
            let request = CommitOffsetsRequest { group_uid, entries: List::of(&commits) };
            let encode = |meta: &mut Vec<u8>| request.encode(meta);
            let told = self.call_until(aim(questions, deadline), what, Kind::CommitOffsets, Effect::Repeatable, encode, |meta| {
                Ok(CommitOffsetsReply::decode(meta)?.entries.iter().collect::<Vec<_>>())
            })?;
            for (question, committed) in answered(questions, told, |committed| committed.partition_uid)? {
                if !committed.error.is_ok() {
                    return Err(refused(what, question.partition, committed.error, String::new()));
                }
            }
            Ok(())
        })
    }
}
