//! Consumer groups: what is checked of requests, what refusals are called, and how groups are told.

use super::ApiError;
use super::metadata::Lead;
use crate::constants::GROUP_PARTITIONS_AT_ONCE;
use crate::control::{GroupView, View};
use crate::ids::{PartitionUid, SubscriptionUid};
use crate::shard::mesh::{GroupProgress, GroupStatus};
use crate::subscription::membership::{Group, MemberView, MembershipError};
use crate::subscription::{NOTE_BYTES, OffsetRefused};
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::error::ErrorCode;
use tramline_wire::group::{
    CommitOffsetsRequest, DescribeGroupReply, FetchOffsetsRequest, GroupItem, GroupMember, GroupPartition, ListGroupsReply,
    OFFSET_METADATA_BYTES_MAX, OFFSET_NONE, TIME_NONE,
};
use tramline_wire::prim::List;
use tramline_wire::topics::END_UNKNOWN;

/// Bytes of notes that one request may put into the log, so that they fit an empty block of any setting.
const NOTES_BYTES_MAX: usize = 48 << 10;

/// A request of so many partitions, with so many bytes of metadata in all, finds room at once or not at all.
fn check_size(count: usize, metadata_bytes: usize) -> Result<(), ApiError> {
    if count == 0 {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "a request names at least one partition"));
    }
    let bytes = count * NOTE_BYTES + metadata_bytes;
    if bytes > NOTES_BYTES_MAX {
        let message = format!(
            "{count} partitions with {metadata_bytes} bytes of metadata are too much for one request: {NOTE_BYTES} bytes for each and its metadata \
             have to stay within {NOTES_BYTES_MAX}; name fewer at once"
        );
        return Err(ApiError::new(ErrorCode::LimitExceeded, message));
    }
    Ok(())
}

/// Decodes and checks a commit.
pub fn commit(meta: &[u8]) -> Result<CommitOffsetsRequest<'_>, ApiError> {
    let request = CommitOffsetsRequest::decode(meta)?;
    let lengths = || request.entries.iter().map(|entry| entry.metadata.len());
    check_size(request.entries.len(), lengths().sum())?;
    match lengths().max() {
        Some(longest) if longest > OFFSET_METADATA_BYTES_MAX => {
            let message = format!("the metadata of an offset has 0 to {OFFSET_METADATA_BYTES_MAX} bytes, not {longest}");
            Err(ApiError::new(ErrorCode::InvalidRequest, message))
        }
        _ => Ok(request),
    }
}

/// Decodes and checks a question for offsets.
pub fn fetch(meta: &[u8]) -> Result<FetchOffsetsRequest<'_>, ApiError> {
    let request = FetchOffsetsRequest::decode(meta)?;
    check_size(request.entries.len(), 0)?;
    Ok(request)
}

/// Partitions that the list of a member may have, so that it fits one reply.
pub const MEMBER_PARTITIONS_MAX: usize = 60_000;

/// Checks that all partitions of a member's topics could be told to it at once.
pub fn check_topics(view: &View, topics: &[&str]) -> Result<(), ApiError> {
    let count: usize = topics.iter().filter_map(|topic| view.topic(topic)).map(|topic| topic.partitions.len()).sum();
    if count > MEMBER_PARTITIONS_MAX {
        let message = format!("the topics of a member have at most {MEMBER_PARTITIONS_MAX} partitions, not {count}: make more groups");
        return Err(ApiError::new(ErrorCode::LimitExceeded, message));
    }
    Ok(())
}

/// The code of an offset that was refused.
pub fn offset_code(refused: OffsetRefused) -> ErrorCode {
    match refused {
        OffsetRefused::Stale => ErrorCode::StaleAssignment,
        OffsetRefused::Full => ErrorCode::Overloaded,
    }
}

impl From<&MembershipError> for ApiError {
    fn from(error: &MembershipError) -> ApiError {
        let code = match error {
            // The epoch it names was told with records that damage took: it has nothing that the group knows of.
            MembershipError::UnknownMember | MembershipError::EpochAhead { .. } => ErrorCode::UnknownMember,
            MembershipError::Fenced => ErrorCode::MemberFenced,
            MembershipError::MixedSettings { .. } => ErrorCode::GroupSettingsDiffer,
            MembershipError::GroupNotEmpty | MembershipError::Busy => ErrorCode::GroupNotEmpty,
            MembershipError::TooManyMembers => ErrorCode::LimitExceeded,
            MembershipError::TopicCount(_)
            | MembershipError::TopicNameBytes(_)
            | MembershipError::InstanceBytes(_)
            | MembershipError::ClientBytes(_)
            | MembershipError::SessionTimeout { .. } => ErrorCode::InvalidRequest,
        };
        ApiError::new(code, error.to_string())
    }
}

/// Appends the list of all groups; `status` is what the shards know of them, in any order, and `home` tells who leads what keeps a group's members.
pub(crate) fn list(out: &mut Vec<u8>, view: &View, status: &[GroupStatus], home: impl Fn(&GroupView) -> Lead) {
    let members: BTreeMap<SubscriptionUid, u32> =
        status.iter().filter(|known| known.members > 0).map(|known| (known.uid, known.members)).collect();
    let item = |group: &GroupView| {
        let home = home(group);
        (group.uid.0, home.node.0, home.shard.0, members.get(&group.uid).copied().unwrap_or(0))
    };
    let groups: Vec<_> = view
        .groups()
        .iter()
        .map(|group| {
            let (group_uid, node, shard, members) = item(group);
            GroupItem { name: &group.name, group_uid, node, shard, members }
        })
        .collect();
    ListGroupsReply { groups: List::of(&groups) }.encode(out);
}

/// Appends the description of a group with as many partitions from `from` (topic and number) on as one reply holds; `known` is what its home knows of its
/// members, `progress` how far it has read each partition that this node leads, in any order. Of one that another node leads is told who owns it, and no
/// number. A partition whose topic is gone is left out.
pub(crate) fn describe(
    out: &mut Vec<u8>,
    view: &View,
    (group, home): (&GroupView, Lead),
    from: (&str, u32),
    known: Option<&Group>,
    progress: &[GroupProgress],
) {
    let members: Vec<_> = known.into_iter().flat_map(Group::members).map(|member| member_told(&member)).collect();
    let led: BTreeSet<PartitionUid> = progress.iter().map(|of| of.uid).collect();
    let away = known.into_iter().flat_map(Group::owned).filter(|uid| !led.contains(uid));
    let away: BTreeMap<PartitionUid, GroupProgress> = away.map(|uid| (uid, not_told(uid))).collect();
    let mut partitions: Vec<_> = progress.iter().chain(away.values()).filter_map(|of| partition_told(view, known, of)).collect();
    partitions.retain(|partition| (partition.topic, partition.index) >= from);
    partitions.sort_unstable_by_key(|partition| (partition.topic, partition.index));
    let more = partitions.len() > GROUP_PARTITIONS_AT_ONCE;
    partitions.truncate(GROUP_PARTITIONS_AT_ONCE);
    let settings = known.and_then(Group::settings);
    let reply = DescribeGroupReply {
        group_uid: group.uid.0,
        name: &group.name,
        node: home.node.0,
        shard: home.shard.0,
        epoch: known.map_or(0, Group::epoch),
        assignor: settings.map(|settings| settings.assignor).unwrap_or_default(),
        session_timeout_ms: settings.map_or(0, |settings| settings.session_timeout_ms),
        members: List::of(&members),
        more,
        partitions: List::of(&partitions),
    };
    reply.encode(out);
}

fn member_told<'a>(member: &MemberView<'a>) -> GroupMember<'a> {
    let partitions = member.grant.partitions().len();
    let is_settled = member.acked_epoch == member.grant.epoch && member.releasing_count == 0 && partitions == member.target_count;
    GroupMember {
        member_id: member.id.0,
        instance: member.instance.unwrap_or_default(),
        client: member.client,
        partitions: partitions as u32,
        target: member.target_count as u32,
        is_settled,
    }
}

/// What is known of a partition whose leader is elsewhere: nothing.
fn not_told(uid: PartitionUid) -> GroupProgress {
    GroupProgress {
        uid,
        offset: OFFSET_NONE,
        committed_us: 0,
        log_start: 0,
        committed_end: END_UNKNOWN,
        lag_bytes: 0,
        lag_ms: 0,
        drain_ms: None,
    }
}

fn partition_told<'a>(view: &'a View, known: Option<&Group>, of: &GroupProgress) -> Option<GroupPartition<'a>> {
    let (topic, place) = view.find_partition(of.uid)?;
    Some(GroupPartition {
        topic: &topic.name,
        index: place.number,
        uid: of.uid.0,
        member_id: known.and_then(|group| group.owner(of.uid)).map_or(0, |(member, _)| member.0),
        offset: of.offset,
        committed_us: of.committed_us,
        log_start: of.log_start,
        committed_end: of.committed_end,
        lag_bytes: of.lag_bytes,
        lag_ms: of.lag_ms,
        drain_ms: of.drain_ms.unwrap_or(TIME_NONE),
    })
}
