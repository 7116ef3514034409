//! Properties: encoding then decoding any value gives the value, and the incremental writers give the same bytes as the
//! structs.

use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Debug;
use tramline_wire::cluster::*;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::*;
use tramline_wire::frame::{self, FrameHeader, Need};
use tramline_wire::group::*;
use tramline_wire::hello::*;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::*;
use tramline_wire::offsets::*;
use tramline_wire::prim::List;
use tramline_wire::produce::*;
use tramline_wire::producer::*;
use tramline_wire::queue::*;
use tramline_wire::step::*;
use tramline_wire::storage::*;
use tramline_wire::topics::*;
use tramline_wire::trim::*;

fn code() -> impl Strategy<Value = ErrorCode> {
    proptest::sample::select(ErrorCode::ALL)
}
fn level() -> impl Strategy<Value = Level> {
    proptest::sample::select(Level::ALL)
}
fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}
type OwnedNode = (u32, String, u16, Vec<u16>);
fn owned_nodes() -> impl Strategy<Value = Vec<OwnedNode>> {
    vec((any::<u32>(), text(), any::<u16>(), vec(any::<u16>(), 0..4)), 0..4)
}
fn nodes(owned: &[OwnedNode]) -> Vec<Node<'_>> {
    owned.iter().map(|(node, host, port, ports)| Node { node: *node, host, port: *port, shard_ports: List::of(ports) }).collect()
}
fn settings(owned: &[(String, String)]) -> Vec<Setting<'_>> {
    owned.iter().map(|(key, value)| Setting { key, value }).collect()
}
fn bytes_of(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    encode(&mut out);
    out.split_off(6)
}
fn same<T: PartialEq + Debug>(decoded: Result<T, tramline_wire::prim::DecodeError>, value: T) -> Result<(), TestCaseError> {
    prop_assert_eq!(decoded, Ok(value));
    Ok(())
}

/// Encodes, decodes, compares, and encodes what was decoded once more.
macro_rules! identity {
    ($type:ident $fields:tt) => {{
        let value = $type $fields;
        let bytes = bytes_of(|out| value.encode(out));
        same($type::decode(&bytes), value)?;
        let again = $type::decode(&bytes).expect("decoded just now");
        prop_assert_eq!(bytes_of(|out| again.encode(out)), bytes.clone());
        let longer = [bytes.as_slice(), &[0]].concat();
        prop_assert!($type::decode(&longer).is_err(), "trailing bytes are refused");
        for cut in 0..bytes.len() {
            prop_assert!($type::decode(&bytes[..cut]).is_err(), "{} of {} bytes are accepted", cut, bytes.len());
        }
    }};
}

proptest! {
    #[test]
    fn frame(kind: u8, version: u8, flags in 0u16..8, correlation: u64, meta in vec(any::<u8>(), 0..200), payload in vec(any::<u8>(), 0..200)) {
        let mut bytes = b"earlier".to_vec();
        let start = frame::begin_frame(&mut bytes, kind, version, flags, correlation);
        bytes.extend_from_slice(&meta);
        let head = frame::finish_frame(&mut bytes, start, payload.len()).expect("small");
        prop_assert_eq!(head, 32 + meta.len());
        let mut bytes = bytes.split_off(7);
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(b"later");
        let Ok(Need::Whole(frame, len)) = frame::peek(&bytes, &frame::Limits::default()) else { panic!("whole frame expected") };
        prop_assert_eq!(len, bytes.len() - 5);
        prop_assert_eq!((frame.meta, frame.payload), (meta.as_slice(), payload.as_slice()));
        let FrameHeader { crc, .. } = frame.header;
        let expected = FrameHeader { kind, version, flags, correlation, meta_len: meta.len() as u32, payload_len: payload.len() as u32, crc };
        prop_assert_eq!(frame.header, expected);
        prop_assert_eq!(&expected.encode()[..], &bytes[..32]);
        for have in 0..len {
            match frame::peek(&bytes[..have], &frame::Limits::default()) {
                Ok(Need::More(total)) => prop_assert!(have < total && total <= len),
                other => prop_assert!(false, "{} of {} bytes: {:?}", have, len, other),
            }
        }
    }

    #[test]
    fn error_body(code: u16, retriable: bool, message in text(), next in text()) {
        identity!(ErrorBody { code, retriable, message: &message, next: &next });
    }

    #[test]
    fn hello(
        numbers: (u16, u16, u16, u32, u32, u16), more: (u32, u32, u32, u32), strings in (text(), text(), text()), auth in vec(any::<u8>(), 0..40),
        cluster_id: [u8; 16], apis in vec(any::<(u8, u8, u8)>(), 0..5), mechanisms in vec(text(), 0..4), owned in owned_nodes(),
    ) {
        let (protocol_min, protocol_max, protocol, feature_level, node, shard) = numbers;
        let (frame_max, fetch_frame, keepalive_ms, idle_timeout_ms) = more;
        identity!(HelloRequest { protocol_min, protocol_max, client_name: &strings.0, client_version: &strings.1, mechanism: &strings.2, auth: &auth });
        let apis: Vec<_> = apis.into_iter().map(|(kind, min, max)| ApiVersions { kind, min, max }).collect();
        let mechanisms: Vec<&str> = mechanisms.iter().map(String::as_str).collect();
        let nodes = nodes(&owned);
        identity!(HelloReply {
            protocol, feature_level, cluster_id, node, shard, frame_max, fetch_frame, keepalive_ms, idle_timeout_ms,
            apis: List::of(&apis), mechanisms: List::of(&mechanisms), challenge: &auth, nodes: List::of(&nodes)
        });
    }

    #[test]
    fn metadata(
        view_epoch: u64, names in vec(text(), 0..4), owned in owned_nodes(),
        topics in vec((code(), text(), any::<u64>(), vec(any::<(u32, u64, u32, u32, u16, u64)>(), 0..4)), 0..4),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        identity!(MetadataRequest { topics: List::of(&names) });
        let partitions: Vec<Vec<PartitionMeta>> = topics.iter().map(|topic| {
            topic.3.iter().map(|&(index, uid, group, leader_node, leader_shard, term)| PartitionMeta { index, uid, group, leader_node, leader_shard, term }).collect()
        }).collect();
        let topics: Vec<TopicMeta> = topics.iter().zip(&partitions).map(|((error, name, topic_uid, _), partitions)| {
            TopicMeta { error: *error, name, topic_uid: *topic_uid, partitions: List::of(partitions) }
        }).collect();
        let nodes = nodes(&owned);
        identity!(MetadataReply { view_epoch, nodes: List::of(&nodes), topics: List::of(&topics) });
    }

    #[test]
    fn produce(
        level in level(), timeout_ms: u32, entries in vec(any::<(u64, u32)>(), 0..6),
        results in vec((any::<u64>(), code(), any::<u64>(), any::<i64>(), any::<u64>()), 0..6),
    ) {
        let entries: Vec<_> = entries.into_iter().map(|(partition_uid, batch_len)| ProduceEntry { partition_uid, batch_len }).collect();
        let request = ProduceRequest { level, timeout_ms, entries: List::of(&entries) };
        identity!(ProduceRequest { level, timeout_ms, entries: List::of(&entries) });
        let written = bytes_of(|out| {
            let mut writer = ProduceRequestWriter::begin(out, level, timeout_ms);
            entries.iter().for_each(|entry| writer.push(out, entry));
            writer.finish(out);
        });
        prop_assert_eq!(ProduceRequest::first_partition(&written), entries.first().map(|entry| entry.partition_uid));
        prop_assert_eq!(ProduceRequest::first_partition(&written[..written.len().min(19)]), None, "cut within the first entry or before it");
        prop_assert_eq!(written, bytes_of(|out| request.encode(out)));

        let results: Vec<_> = results.into_iter().map(|(partition_uid, error, base_offset, append_time_us, durable_end)| {
            ProduceResult { partition_uid, error, base_offset, append_time_us, durable_end }
        }).collect();
        let reply = ProduceReply { level_reached: level, throttle_ms: timeout_ms, results: List::of(&results) };
        identity!(ProduceReply { level_reached: level, throttle_ms: timeout_ms, results: List::of(&results) });
        let written = bytes_of(|out| {
            let mut writer = ProduceReplyWriter::begin(out, level, timeout_ms);
            results.iter().for_each(|result| writer.push(out, result));
            writer.finish(out);
        });
        prop_assert_eq!(written, bytes_of(|out| reply.encode(out)));
    }

    #[test]
    fn produce_payload_is_split_as_declared(lens in vec(0usize..50, 0..6), extra in 0usize..2) {
        let entries: Vec<_> = lens.iter().map(|len| ProduceEntry { partition_uid: *len as u64, batch_len: *len as u32 }).collect();
        let payload: Vec<u8> = lens.iter().enumerate().flat_map(|(number, len)| std::iter::repeat_n(number as u8, *len)).collect();
        let longer = [payload.as_slice(), &[0; 1][..extra]].concat();
        let request = ProduceRequest { level: Level::Durable, timeout_ms: 0, entries: List::of(&entries) };
        match request.batches(&longer) {
            Ok(batches) => {
                let batches: Vec<_> = batches.collect();
                prop_assert_eq!(extra, 0);
                prop_assert_eq!(batches.len(), lens.len());
                for (number, (entry, bytes)) in batches.iter().enumerate() {
                    prop_assert_eq!(entry.batch_len as usize, bytes.len());
                    prop_assert!(bytes.iter().all(|byte| *byte == number as u8));
                }
            }
            Err(_) => prop_assert_eq!(extra, 1),
        }
    }

    #[test]
    fn fetch(
        streaming: bool, numbers: (u32, u32, u32, u64), entries in vec(any::<(u64, u64, u32)>(), 0..6),
        results in vec((any::<u64>(), code(), any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..6),
    ) {
        let (max_wait_ms, min_bytes, credit_bytes, stream) = numbers;
        let mode = if streaming { FetchMode::Streaming } else { FetchMode::OneShot };
        let entries: Vec<_> = entries.into_iter().map(|(partition_uid, offset, max_bytes)| FetchEntry { partition_uid, offset, max_bytes }).collect();
        identity!(FetchRequest { mode, isolation: Isolation::Committed, max_wait_ms, min_bytes, credit_bytes, entries: List::of(&entries) });
        let request = FetchRequest { mode, isolation: Isolation::Committed, max_wait_ms, min_bytes, credit_bytes, entries: List::of(&entries) };
        let written = bytes_of(|out| {
            let mut writer = FetchRequestWriter::begin(out, mode, max_wait_ms, min_bytes, credit_bytes);
            entries.iter().for_each(|entry| writer.push(out, entry));
            writer.finish(out);
        });
        prop_assert_eq!(FetchRequest::first_partition(&written), entries.first().map(|entry| entry.partition_uid));
        prop_assert_eq!(FetchRequest::first_partition(&written[..written.len().min(23)]), None, "cut within the first entry or before it");
        prop_assert_eq!(written, bytes_of(|out| request.encode(out)));

        let results: Vec<_> = results.into_iter().map(|(partition_uid, error, payload_bytes, log_start, committed_end, last_stable, next_offset)| {
            FetchResult { partition_uid, error, flags: FetchFlags(0), payload_bytes, log_start, committed_end, last_stable, next_offset }
        }).collect();
        identity!(FetchReply { throttle_ms: max_wait_ms, entries: List::of(&results) });
        let reply = FetchReply { throttle_ms: max_wait_ms, entries: List::of(&results) };
        let written = bytes_of(|out| {
            let mut writer = FetchReplyWriter::begin(out, max_wait_ms);
            results.iter().for_each(|result| writer.push(out, result));
            assert_eq!(writer.len(), results.len());
            writer.finish(out);
        });
        prop_assert_eq!(written, bytes_of(|out| reply.encode(out)));
        identity!(FetchCreditRequest { stream, credit_bytes });
        identity!(FetchCancelRequest { stream });
        identity!(FetchCancelReply {});
    }

    #[test]
    fn offsets(queries in vec(any::<(u64, i64)>(), 0..6), answers in vec((any::<u64>(), code(), any::<u64>(), any::<i64>()), 0..6)) {
        let queries: Vec<_> = queries.into_iter().map(|(partition_uid, at)| OffsetQuery { partition_uid, at }).collect();
        identity!(ListOffsetsRequest { entries: List::of(&queries) });
        let answers: Vec<_> = answers.into_iter().map(|(partition_uid, error, offset, timestamp_us)| {
            OffsetAnswer { partition_uid, error, offset, timestamp_us }
        }).collect();
        identity!(ListOffsetsReply { entries: List::of(&answers) });
    }

    #[test]
    fn producers(producer_id in any::<u64>(), batches_kept in any::<u16>(), expiry_ms in any::<u32>()) {
        identity!(InitProducerRequest {});
        identity!(InitProducerReply { producer_id, batches_kept, expiry_ms });
    }

    #[test]
    fn members(
        numbers in any::<(u64, u64, u64, u32, u16, bool)>(),
        names in (text(), text(), text()),
        topics in vec(text(), 0..4),
        granted in vec(any::<(u64, u64)>(), 0..6),
    ) {
        let (group_uid, member_id, epoch, wait_ms, shard, created) = numbers;
        let (name, instance, client) = (names.0.as_str(), names.1.as_str(), names.2.as_str());
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let granted: Vec<_> = granted.into_iter().map(|(partition_uid, assignment_epoch)| {
            GrantedPartition { partition_uid, assignment_epoch }
        }).collect();
        let (topics, partitions) = (List::of(&topics), List::of(&granted));
        identity!(FindGroupRequest { name, flags: FindGroupFlags(u8::from(created)) });
        identity!(FindGroupReply { group_uid, node: wait_ms, shard, created });
        identity!(JoinGroupRequest {
            group_uid, flags: JoinFlags(u8::from(created)), assignor: Assignor::Uniform, session_timeout_ms: wait_ms, instance, client, topics
        });
        identity!(JoinGroupReply { member_id, epoch, partitions });
        identity!(HeartbeatGroupRequest {
            group_uid, member_id, epoch, wait_ms, flags: HeartbeatFlags(u8::from(created)), instance, topics
        });
        identity!(HeartbeatGroupReply { epoch, partitions });
        identity!(LeaveGroupRequest { group_uid, member_id, flags: LeaveFlags(u8::from(created)), instance });
        identity!(LeaveGroupReply {});
        identity!(ListGroupsRequest {});
        let groups = [GroupItem { name, group_uid, node: wait_ms, shard, members: 3 }];
        identity!(ListGroupsReply { groups: List::of(&groups[..usize::from(created)]) });
        identity!(DescribeGroupRequest { name, from_topic: client, from_partition: wait_ms });
        identity!(DeleteGroupRequest { name });
        identity!(DeleteGroupReply {});
        let members = [GroupMember { member_id, instance, client, partitions: wait_ms, target: 7, is_settled: created }];
        let of_group = [GroupPartition {
            topic: name, index: wait_ms, uid: epoch, member_id, offset: group_uid, committed_us: -1, log_start: 1, committed_end: 2,
            lag_bytes: 3, lag_ms: 4, drain_ms: 5,
        }];
        identity!(DescribeGroupReply {
            group_uid, name, node: wait_ms, shard, epoch, assignor: Assignor::Sticky, session_timeout_ms: wait_ms,
            members: List::of(&members), more: created, partitions: List::of(&of_group),
        });
    }

    #[test]
    fn committed_offsets(
        group_uid: u64,
        commits in vec((any::<(u64, u64, u64)>(), text()), 0..6),
        fetched in vec((any::<(u64, u64, i64)>(), code(), text()), 0..6),
    ) {
        let entries: Vec<_> = commits.iter().map(|((partition_uid, assignment_epoch, offset), metadata)| {
            OffsetCommit { partition_uid: *partition_uid, assignment_epoch: *assignment_epoch, offset: *offset, metadata }
        }).collect();
        identity!(CommitOffsetsRequest { group_uid, entries: List::of(&entries) });
        let asks: Vec<_> = entries.iter().map(|entry| {
            OffsetAsk { partition_uid: entry.partition_uid, assignment_epoch: entry.assignment_epoch }
        }).collect();
        identity!(FetchOffsetsRequest { group_uid, entries: List::of(&asks) });
        let done: Vec<_> = fetched.iter().map(|((partition_uid, ..), error, _)| {
            OffsetCommitted { partition_uid: *partition_uid, error: *error }
        }).collect();
        identity!(CommitOffsetsReply { entries: List::of(&done) });
        let told: Vec<_> = fetched.iter().map(|((partition_uid, offset, committed_us), error, metadata)| {
            OffsetFetched { partition_uid: *partition_uid, error: *error, offset: *offset, committed_us: *committed_us, metadata }
        }).collect();
        identity!(FetchOffsetsReply { entries: List::of(&told) });
    }

    #[test]
    fn queues(
        numbers in any::<(u64, u64, i64, u32, bool)>(),
        names in (text(), text(), text()),
        owned in vec((text(), text(), any::<bool>()), 0..4),
        error in code(),
    ) {
        let (queue_uid, topic_uid, time_us, number, is_set) = numbers;
        let (name, topic, consumer) = (names.0.as_str(), names.1.as_str(), names.2.as_str());
        let pairs: Vec<_> = owned.iter().map(|(key, value, _)| Setting { key, value }).collect();
        let effective: Vec<_> = owned.iter().map(|(key, value, explicit)| {
            EffectiveSetting { key, value, origin: if *explicit { Origin::Explicit } else { Origin::Default } }
        }).collect();
        let start = *[QueueStart::Latest, QueueStart::Earliest, QueueStart::Time].get(number as usize % 3).expect("three");
        identity!(CreateQueueRequest {
            name, topic, flags: CreateQueueFlags(u8::from(is_set) * 2), start, start_us: time_us, settings: List::of(&pairs)
        });
        identity!(CreateQueueReply { queue_uid, created: is_set });
        identity!(AlterQueueRequest { name, settings: List::of(&pairs) });
        identity!(AlterQueueReply {});
        identity!(DeleteQueueRequest { name });
        identity!(DeleteQueueReply {});
        identity!(ListQueuesRequest { after: name });
        let items = [QueueItem { name, queue_uid, topic }];
        identity!(ListQueuesReply { more: is_set, queues: List::of(&items[..usize::from(is_set)]) });
        identity!(FindQueueRequest { name });
        identity!(FindQueueReply { queue_uid, topic_uid, topic, visibility_timeout_ms: number, flags: QueueFlags(number as u8 % 4) });
        identity!(DescribeQueueRequest { name, first_partition: number });
        let partitions = [QueuePartition {
            partition: number, partition_uid: topic_uid, node: 1, shard: 2, error, settled_to: 3, looked_to: 4, committed_end: 5, ready: 6,
            leased: 7, delayed: 8, dead: 9, oldest_us: time_us, acked: 10, redelivered: 11, expired: 12, dead_lettered: 13, duplicates: 14,
            deleted: 15, waiting: number, active: consumer,
        }];
        identity!(DescribeQueueReply {
            queue_uid, name, topic, created_us: time_us, settings: List::of(&effective), more: is_set,
            partitions: List::of(&partitions)
        });
        let state = BrowseState::ALL[number as usize % BrowseState::ALL.len()];
        identity!(BrowseRequest { queue_uid, partition_uid: topic_uid, from: 7, max_messages: number, state });
        let browsed = [BrowsedMessage {
            offset: queue_uid, state: MessageState::ALL[number as usize % MessageState::ALL.len()], priority: number as u8, deliveries: number,
            lease: topic_uid, until_us: time_us, consumer, reason: topic,
        }];
        identity!(BrowseReply { next: topic_uid, end: is_set, messages: List::of(&browsed[..usize::from(is_set)]) });
    }

    #[test]
    fn queue_messages(
        numbers in any::<(u64, u32, u32, u32, u32)>(),
        consumer in text(),
        received in vec((any::<u64>(), code(), vec(any::<(u64, u64, u32)>(), 0..4), 0u32..100_000), 0..5),
        settles in vec((any::<(u64, u64, u64, u32)>(), 0..SettleAction::ALL.len(), text()), 0..6),
        answers in vec((any::<(u64, u64)>(), code()), 0..6),
    ) {
        let (queue_uid, max_messages, max_bytes, wait_ms, visibility_ms) = numbers;
        let uids: Vec<_> = answers.iter().map(|((uid, _), _)| *uid).collect();
        let partitions = List::of(&uids);
        identity!(ReceiveRequest { queue_uid, max_messages, max_bytes, wait_ms, visibility_ms, consumer: &consumer, partitions });
        let deliveries: Vec<Vec<_>> = received.iter().map(|(_, _, deliveries, _)| {
            deliveries.iter().map(|(offset, lease, deliveries)| Delivery { offset: *offset, lease: *lease, deliveries: *deliveries }).collect()
        }).collect();
        let entries: Vec<_> = received.iter().zip(&deliveries).map(|((partition_uid, error, _, payload_bytes), deliveries)| {
            Received { partition_uid: *partition_uid, error: *error, payload_bytes: *payload_bytes, deliveries: List::of(deliveries) }
        }).collect();
        identity!(ReceiveReply { throttle_ms: wait_ms, entries: List::of(&entries) });
        let reply = ReceiveReply { throttle_ms: wait_ms, entries: List::of(&entries) };
        let written = bytes_of(|out| {
            let mut writer = ReceiveReplyWriter::begin(out, wait_ms);
            for entry in &entries {
                writer.entry(out, entry.partition_uid, entry.error);
                entry.deliveries.iter().for_each(|delivery| writer.delivery(out, &delivery));
                writer.payload(entry.payload_bytes / 3);
                writer.payload(entry.payload_bytes - entry.payload_bytes / 3);
            }
            assert_eq!((writer.len(), writer.is_empty()), (entries.len(), entries.is_empty()));
            writer.finish(out);
        });
        prop_assert_eq!(written, bytes_of(|out| reply.encode(out)));
        let payload = vec![0; entries.iter().map(|entry| entry.payload_bytes as usize).sum()];
        let parts: Vec<_> = reply.parts(&payload).expect("the sizes add up").map(|(entry, bytes)| (entry.payload_bytes, bytes.len())).collect();
        prop_assert!(parts.iter().all(|(declared, len)| *declared as usize == *len) && parts.len() == entries.len());
        prop_assert!(reply.parts(&[payload.as_slice(), &[0]].concat()).is_err());

        let settles: Vec<_> = settles.iter().map(|((partition_uid, offset, lease, delay_ms), action, reason)| {
            let (partition_uid, offset, lease, action) = (*partition_uid, *offset, *lease, SettleAction::ALL[*action]);
            SettleEntry { partition_uid, offset, lease, action, delay_ms: *delay_ms, reason }
        }).collect();
        identity!(SettleRequest { queue_uid, consumer: &consumer, entries: List::of(&settles) });
        let settled: Vec<_> = answers.iter().map(|((partition_uid, offset), error)| {
            SettledMessage { partition_uid: *partition_uid, offset: *offset, error: *error }
        }).collect();
        identity!(SettleReply { throttle_ms: wait_ms, entries: List::of(&settled) });
        identity!(DeleteMessagesReply { entries: List::of(&settled) });
        let messages: Vec<_> = answers.iter().map(|((partition_uid, offset), _)| {
            MessageAt { partition_uid: *partition_uid, offset: *offset }
        }).collect();
        identity!(DeleteMessagesRequest { queue_uid, entries: List::of(&messages) });
        identity!(PurgeRequest { queue_uid, partitions });
        let purged: Vec<_> = settled.iter().map(|done| Purged { partition_uid: done.partition_uid, error: done.error, purged: done.offset }).collect();
        identity!(PurgeReply { entries: List::of(&purged) });
        identity!(RedriveRequest { queue_uid, flags: RedriveFlags(max_bytes as u8 % 2), max_messages, partitions });
        let redriven: Vec<_> = settled.iter().map(|done| {
            Redriven { partition_uid: done.partition_uid, error: done.error, redriven: done.offset }
        }).collect();
        identity!(RedriveReply { entries: List::of(&redriven) });
        let acks: Vec<_> = settles.iter().map(|settle| {
            StepAck { queue_uid, partition_uid: settle.partition_uid, offset: settle.offset, lease: settle.lease }
        }).collect();
        let commits: Vec<_> = settles.iter().map(|settle| {
            let (partition_uid, offset, assignment_epoch) = (settle.partition_uid, settle.offset, settle.lease);
            StepCommit { group_uid: queue_uid, partition_uid, assignment_epoch, offset, metadata: settle.reason }
        }).collect();
        let entries: Vec<_> = settled.iter().map(|done| ProduceEntry { partition_uid: done.partition_uid, batch_len: max_bytes }).collect();
        identity!(StepRequest { flags: 0, acks: List::of(&acks), commits: List::of(&commits), entries: List::of(&entries) });
        let results: Vec<_> = settled.iter().map(|done| {
            StepResult { partition_uid: done.partition_uid, base_offset: done.offset, append_time_us: wait_ms as i64 }
        }).collect();
        identity!(StepReply { level_reached: Level::Durable, throttle_ms: wait_ms, results: List::of(&results) });
    }

    #[test]
    fn trims(entries in vec(any::<(u64, u64)>(), 0..6), answers in vec((any::<u64>(), code(), any::<u64>(), any::<u64>()), 0..6)) {
        let entries: Vec<_> = entries.into_iter().map(|(partition_uid, before)| TrimEntry { partition_uid, before }).collect();
        identity!(TrimPartitionsRequest { entries: List::of(&entries) });
        let answers: Vec<_> = answers.into_iter().map(|(partition_uid, error, log_start, committed_end)| {
            TrimAnswer { partition_uid, error, log_start, committed_end }
        }).collect();
        identity!(TrimPartitionsReply { entries: List::of(&answers) });
    }

    #[test]
    fn storage(node: u32, shards in vec(any::<(u16, u8, (u32, u32, u32, u32, u32), (u64, u64, u64, u64, u64, u64, u64))>(), 0..4)) {
        identity!(DescribeStorageRequest {});
        let shards: Vec<_> = shards.into_iter().map(|(shard, stage, files, bytes)| ShardStorage {
            shard,
            stage: DiskStage(stage),
            segments_open: files.0,
            segments_sealed: files.1,
            segments_sorted: files.2,
            pool_written: files.3,
            pool_fresh: files.4,
            live_bytes: bytes.0,
            dead_bytes: bytes.1,
            padding_bytes: bytes.2,
            open_bytes: bytes.3,
            free_bytes: bytes.4,
            sorter_waiting_bytes: bytes.5,
            disk_free_bytes: bytes.6,
        }).collect();
        identity!(DescribeStorageReply { node, shards: List::of(&shards) });
    }

    #[test]
    fn cluster(
        numbers: (u32, u64, u32), texts in vec(text(), 3), of_node: (u32, u32, u8, u16, u32, u32), state in 0usize..NodeState::ALL.len(),
        of_group: (u32, u8, u32, u64, u32), voters in vec(any::<u32>(), 0..4), learners in vec(any::<u32>(), 0..4), drain: bool,
    ) {
        identity!(DescribeClusterRequest {});
        let nodes = [ClusterNode {
            node: of_node.0,
            generation: of_node.1,
            state: NodeState::ALL[state],
            connected: of_node.2,
            shards: of_node.3,
            leads: of_node.4,
            replicas: of_node.5,
            rack: &texts[0],
            cluster: &texts[1],
            client: &texts[2],
        }];
        let groups = [ClusterGroup {
            group: of_group.0,
            factor: of_group.1,
            leader: of_group.2,
            term: of_group.3,
            partitions: of_group.4,
            unclean_term: of_group.3 / 2,
            voters: List::of(&voters),
            learners: List::of(&learners),
            moving: &texts[0],
        }];
        let (node, view_epoch, feature_level) = numbers;
        identity!(DescribeClusterReply { node, view_epoch, feature_level, nodes: List::of(&nodes), groups: List::of(&groups) });
        let action = if drain { ClusterAction::CancelMove } else { ClusterAction::UncleanRecover };
        identity!(AlterClusterRequest { action, node, group: node / 2, from_node: node / 3 });
        identity!(AlterClusterReply {});
    }

    #[test]
    fn topic_changes(
        name in text(), numbers: (u32, u16, u64), flags in 0u8..4, created: bool, owned in vec((text(), text()), 0..4),
        list in vec((text(), any::<u64>(), any::<u32>()), 0..4),
    ) {
        let (partitions, replication, topic_uid) = numbers;
        let settings = settings(&owned);
        identity!(CreateTopicRequest { name: &name, partitions, replication, flags: CreateFlags(flags), settings: List::of(&settings) });
        identity!(CreateTopicReply { topic_uid, created, partitions });
        identity!(AlterTopicRequest { name: &name, partitions, replication, settings: List::of(&settings) });
        identity!(DeleteTopicRequest { name: &name });
        let topics: Vec<_> = list.iter().map(|(name, topic_uid, partitions)| TopicItem { name, topic_uid: *topic_uid, partitions: *partitions }).collect();
        identity!(ListTopicsReply { topics: List::of(&topics) });
    }

    #[test]
    fn topic_descriptions(
        name in text(), numbers: (u64, i64, u16), owned in vec((text(), text(), any::<bool>()), 0..4),
        partitions in vec(any::<(u32, u64, u32, u32, u16, (u64, u64, u64, u32))>(), 0..4), options in vec((text(), text(), text(), text(), text(), text(), text()), 0..4),
    ) {
        identity!(DescribeTopicRequest { name: &name });
        let settings: Vec<_> = owned.iter().map(|(key, value, explicit)| {
            EffectiveSetting { key, value, origin: if *explicit { Origin::Explicit } else { Origin::Default } }
        }).collect();
        let partitions: Vec<_> = partitions.into_iter().map(|(index, uid, group, node, shard, (log_start, committed_end, bytes, segments))| {
            PartitionInfo { index, uid, group, node, shard, log_start, committed_end, bytes, segments }
        }).collect();
        let (topic_uid, created_us, replication) = numbers;
        let (settings, partitions) = (List::of(&settings), List::of(&partitions));
        identity!(DescribeTopicReply { topic_uid, name: &name, created_us, replication, settings, partitions });
        let options: Vec<_> = options.iter().map(|(key, kind, unit, default, min, max, doc)| OptionItem { key, kind, unit, default, min, max, doc }).collect();
        identity!(DescribeOptionsReply { options: List::of(&options) });
    }
}

#[test]
fn kinds_and_codes_are_found_by_their_numbers() {
    for number in 0..=u8::MAX {
        assert_eq!(Kind::from_u8(number).map(Kind::as_u8), Kind::ALL.iter().map(|kind| kind.as_u8()).find(|known| *known == number));
    }
    for number in 0..=u16::MAX {
        assert_eq!(ErrorCode::from_u16(number).is_some(), ErrorCode::ALL.iter().any(|code| code.as_u16() == number));
    }
    assert!(Kind::ALL.iter().all(|kind| tramline_wire::kind::reserved_for(kind.as_u8()).is_none()));
}

#[test]
fn negotiation_takes_the_highest_common_version() {
    assert_eq!(negotiate((1, 1), (1, 1)), Some(1));
    assert_eq!(negotiate((1, 3), (2, 7)), Some(3));
    assert_eq!(negotiate((1, 3), (4, 7)), None);
    assert_eq!(negotiate((4, 7), (1, 3)), None);
}
