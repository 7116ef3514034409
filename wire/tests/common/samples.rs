//! One sample of every body (two where a field has two shapes), and some batches. Golden vectors are made of them, so
//! a change here is a change of `vectors/`: samples of released versions stay as they are.

use std::fmt::Debug;
use tramline_wire::batch::*;
use tramline_wire::cluster::*;
use tramline_wire::codec::Codec;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::*;
use tramline_wire::frame;
use tramline_wire::group::*;
use tramline_wire::hello::*;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::*;
use tramline_wire::offsets::*;
use tramline_wire::prim::List;
use tramline_wire::produce::*;
use tramline_wire::producer::*;
use tramline_wire::storage::*;
use tramline_wire::topics::*;
use tramline_wire::trim::*;

/// 2026-01-02 03:04:05.678901 UTC.
pub const NOW_US: i64 = 1_767_323_045_678_901;

const NODES: &[Node<'static>] = &[
    Node { node: 1, host: "127.0.0.1", port: 7410, shard_ports: List::of(&[7411, 7412]) },
    Node { node: 2, host: "broker-2.example", port: 7410, shard_ports: List::of(&[]) },
];
const APIS: &[ApiVersions] = &[ApiVersions { kind: 1, min: 1, max: 1 }, ApiVersions { kind: 3, min: 1, max: 2 }];
const PARTITIONS: &[PartitionMeta] = &[
    PartitionMeta { index: 0, uid: 0x0102_0304_0506_0708, group: 1, leader_node: 1, leader_shard: 0, term: 7 },
    PartitionMeta { index: 1, uid: 0x0102_0304_0506_0709, group: 5, leader_node: 2, leader_shard: 1, term: 9 },
];
const TOPICS: &[TopicMeta<'static>] = &[
    TopicMeta { error: ErrorCode::Ok, name: "flights", topic_uid: 42, partitions: List::of(PARTITIONS) },
    TopicMeta { error: ErrorCode::UnknownTopic, name: "nowhere", topic_uid: 0, partitions: List::of(&[]) },
];
const SETTINGS: &[Setting<'static>] = &[Setting { key: "retention.ms", value: "604800000" }, Setting { key: "visible.at", value: "" }];
const EFFECTIVE: &[EffectiveSetting<'static>] = &[
    EffectiveSetting { key: "retention.ms", value: "604800000", origin: Origin::Explicit },
    EffectiveSetting { key: "visible.at", value: "committed", origin: Origin::Default },
];
const INFOS: &[PartitionInfo] = &[PartitionInfo {
    index: 0,
    uid: 0x0102_0304_0506_0708,
    group: 1,
    node: 1,
    shard: 0,
    log_start: 10,
    committed_end: 1000,
    bytes: 1 << 33,
    segments: 33,
}];
const STORAGE: &[ShardStorage] = &[
    ShardStorage {
        shard: 0,
        stage: DiskStage::OK,
        segments_open: 2,
        segments_sealed: 30,
        segments_sorted: 12,
        pool_written: 2,
        pool_fresh: 1,
        live_bytes: 6 << 30,
        dead_bytes: 1 << 30,
        padding_bytes: 1 << 29,
        open_bytes: 512 << 20,
        free_bytes: 768 << 20,
        sorter_waiting_bytes: 3 << 30,
        disk_free_bytes: 0x0102_0304_0506_0708,
    },
    ShardStorage {
        shard: 1,
        stage: DiskStage(9),
        segments_open: 0,
        segments_sealed: 0,
        segments_sorted: 0,
        pool_written: 0,
        pool_fresh: 0,
        live_bytes: 0,
        dead_bytes: 0,
        padding_bytes: 0,
        open_bytes: 0,
        free_bytes: 0,
        sorter_waiting_bytes: 0,
        disk_free_bytes: 0,
    },
];
const OPTIONS: &[OptionItem<'static>] = &[OptionItem {
    key: "retention.ms",
    kind: "integer",
    unit: "ms",
    default: "604800000",
    min: "1000",
    max: "",
    doc: "How long records are kept.",
}];

/// Asserts that a meta decodes to the sample's value.
pub type Check = Box<dyn Fn(&[u8])>;

/// A body as its encoder made it, and the check that decoding gives the value back.
pub struct Sample {
    pub name: &'static str,
    pub kind: Kind,
    pub flags: u16,
    pub meta: Vec<u8>,
    pub check: Check,
}

impl Sample {
    /// The sample as a whole frame with its number as correlation.
    pub fn frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let start = frame::begin_frame(&mut out, self.kind.as_u8(), 1, self.flags, 0x1122_3344_5566_7700 + self.kind.as_u8() as u64);
        out.extend_from_slice(&self.meta);
        frame::finish_frame(&mut out, start, 0).expect("samples are small");
        out
    }
}

fn same<T: PartialEq + Debug>(decoded: Result<T, tramline_wire::prim::DecodeError>, value: T) {
    assert_eq!(decoded.expect("a sample decodes"), value);
}

const REQUEST: u16 = 0;
const REPLY: u16 = frame::FLAG_REPLY;

macro_rules! push_sample {
    ($samples:ident, $name:literal, $kind:ident, $flags:expr, $type:ident $fields:tt) => {{
        const VALUE: $type = $type $fields;
        let mut meta = Vec::new();
        VALUE.encode(&mut meta);
        let check = Box::new(|meta: &[u8]| same($type::decode(meta), VALUE));
        $samples.push(Sample { name: $name, kind: Kind::$kind, flags: $flags, meta, check });
    }};
}

mod queues;

/// All samples, requests and replies.
pub fn all() -> Vec<Sample> {
    let mut samples = Vec::new();
    macro_rules! sample {
        ($($sample:tt)*) => { push_sample!(samples, $($sample)*) };
    }
    const MORE: u16 = frame::FLAG_REPLY | frame::FLAG_MORE;

    sample!(
        "hello_request",
        Hello,
        REQUEST,
        HelloRequest {
            protocol_min: 1,
            protocol_max: 3,
            client_name: "loadgen",
            client_version: "0.1.0",
            mechanism: "plain",
            auth: b"\0user\0secret",
        }
    );
    sample!(
        "hello_reply",
        Hello,
        REPLY,
        HelloReply {
            protocol: 1,
            feature_level: 1,
            cluster_id: *b"0123456789abcdef",
            node: 1,
            shard: 1,
            frame_max: 8 << 20,
            fetch_frame: 131_072,
            keepalive_ms: 30_000,
            idle_timeout_ms: 90_000,
            apis: List::of(APIS),
            mechanisms: List::of(&["plain", "scram-sha-256"]),
            challenge: b"nonce",
            nodes: List::of(NODES),
        }
    );
    sample!("metadata_request", Metadata, REQUEST, MetadataRequest { topics: List::of(&["flights", "nowhere", ""]) });
    sample!("metadata_reply", Metadata, REPLY, MetadataReply { view_epoch: 17, nodes: List::of(NODES), topics: List::of(TOPICS) });
    sample!(
        "produce_request",
        Produce,
        REQUEST,
        ProduceRequest {
            level: Level::Durable,
            timeout_ms: 30_000,
            entries: List::of(&[
                ProduceEntry { partition_uid: 0x0102_0304_0506_0708, batch_len: 65_536 },
                ProduceEntry { partition_uid: 0x0102_0304_0506_0709, batch_len: 1_024 },
            ]),
        }
    );
    sample!(
        "produce_reply",
        Produce,
        REPLY,
        ProduceReply {
            level_reached: Level::LeaderDurable,
            throttle_ms: 5,
            results: List::of(&[
                ProduceResult {
                    partition_uid: 0x0102_0304_0506_0708,
                    error: ErrorCode::Ok,
                    base_offset: 1000,
                    append_time_us: NOW_US,
                    durable_end: 1010
                },
                ProduceResult { partition_uid: 3, error: ErrorCode::NotLeader, base_offset: 0, append_time_us: 0, durable_end: 0 },
            ]),
        }
    );
    sample!(
        "fetch_request",
        Fetch,
        REQUEST,
        FetchRequest {
            mode: FetchMode::Streaming,
            isolation: Isolation::Committed,
            max_wait_ms: 500,
            min_bytes: 1,
            credit_bytes: 1 << 20,
            entries: List::of(&[FetchEntry { partition_uid: 0x0102_0304_0506_0708, offset: 1000, max_bytes: 131_072 }]),
        }
    );
    sample!(
        "fetch_reply",
        Fetch,
        MORE,
        FetchReply {
            throttle_ms: 0,
            entries: List::of(&[
                FetchResult {
                    partition_uid: 0x0102_0304_0506_0708,
                    error: ErrorCode::Ok,
                    flags: FetchFlags(0),
                    payload_bytes: 0,
                    log_start: 10,
                    committed_end: 1010,
                    last_stable: 1010,
                    next_offset: 1010,
                },
                FetchResult {
                    partition_uid: 3,
                    error: ErrorCode::OffsetOutOfRange,
                    flags: FetchFlags(0),
                    payload_bytes: 0,
                    log_start: 20,
                    committed_end: 30,
                    last_stable: 30,
                    next_offset: 20,
                },
            ]),
        }
    );
    sample!("fetch_credit_request", FetchCredit, REQUEST, FetchCreditRequest { stream: 0x1122_3344_5566_7704, credit_bytes: 131_072 });
    sample!("fetch_cancel_request", FetchCancel, REQUEST, FetchCancelRequest { stream: 0x1122_3344_5566_7704 });
    sample!("fetch_cancel_reply", FetchCancel, REPLY, FetchCancelReply {});
    sample!(
        "list_offsets_request",
        ListOffsets,
        REQUEST,
        ListOffsetsRequest {
            entries: List::of(&[
                OffsetQuery { partition_uid: 1, at: AT_EARLIEST },
                OffsetQuery { partition_uid: 2, at: AT_LATEST },
                OffsetQuery { partition_uid: 3, at: NOW_US },
            ]),
        }
    );
    sample!(
        "list_offsets_reply",
        ListOffsets,
        REPLY,
        ListOffsetsReply {
            entries: List::of(&[
                OffsetAnswer { partition_uid: 1, error: ErrorCode::Ok, offset: 10, timestamp_us: TIMESTAMP_UNKNOWN },
                OffsetAnswer { partition_uid: 3, error: ErrorCode::NotReady, offset: 0, timestamp_us: NOW_US },
            ]),
        }
    );
    sample!(
        "create_topic_request",
        CreateTopic,
        REQUEST,
        CreateTopicRequest { name: "flights", partitions: 16, replication: 3, flags: CreateFlags(3), settings: List::of(SETTINGS) }
    );
    sample!("create_topic_reply", CreateTopic, REPLY, CreateTopicReply { topic_uid: 42, created: true, partitions: 16 });
    sample!(
        "alter_topic_request",
        AlterTopic,
        REQUEST,
        AlterTopicRequest { name: "flights", partitions: 32, replication: 5, settings: List::of(SETTINGS) }
    );
    sample!("alter_topic_reply", AlterTopic, REPLY, AlterTopicReply {});
    sample!("delete_topic_request", DeleteTopic, REQUEST, DeleteTopicRequest { name: "flights" });
    sample!("delete_topic_reply", DeleteTopic, REPLY, DeleteTopicReply {});
    sample!("list_topics_request", ListTopics, REQUEST, ListTopicsRequest {});
    sample!(
        "list_topics_reply",
        ListTopics,
        REPLY,
        ListTopicsReply {
            topics: List::of(&[
                TopicItem { name: "flights", topic_uid: 42, partitions: 16 },
                TopicItem { name: "žluťoučký", topic_uid: 43, partitions: 1 }
            ]),
        }
    );
    sample!("describe_topic_request", DescribeTopic, REQUEST, DescribeTopicRequest { name: "flights" });
    sample!(
        "describe_topic_reply",
        DescribeTopic,
        REPLY,
        DescribeTopicReply {
            topic_uid: 42,
            name: "flights",
            created_us: NOW_US,
            replication: 3,
            settings: List::of(EFFECTIVE),
            partitions: List::of(INFOS),
        }
    );
    sample!("describe_options_request", DescribeOptions, REQUEST, DescribeOptionsRequest {});
    sample!("describe_options_reply", DescribeOptions, REPLY, DescribeOptionsReply { options: List::of(OPTIONS) });
    sample!(
        "trim_partitions_request",
        TrimPartitions,
        REQUEST,
        TrimPartitionsRequest {
            entries: List::of(&[TrimEntry { partition_uid: 1, before: 1000 }, TrimEntry { partition_uid: 3, before: u64::MAX }]),
        }
    );
    sample!(
        "trim_partitions_reply",
        TrimPartitions,
        REPLY,
        TrimPartitionsReply {
            entries: List::of(&[
                TrimAnswer { partition_uid: 1, error: ErrorCode::Ok, log_start: 1000, committed_end: 1010 },
                TrimAnswer { partition_uid: 3, error: ErrorCode::OffsetOutOfRange, log_start: 20, committed_end: 30 },
            ]),
        }
    );
    sample!("describe_storage_request", DescribeStorage, REQUEST, DescribeStorageRequest {});
    sample!("describe_storage_reply", DescribeStorage, REPLY, DescribeStorageReply { node: 1, shards: List::of(STORAGE) });
    sample!("describe_cluster_request", DescribeCluster, REQUEST, DescribeClusterRequest {});
    sample!(
        "describe_cluster_reply",
        DescribeCluster,
        REPLY,
        DescribeClusterReply {
            node: 1,
            view_epoch: 9,
            feature_level: 1,
            nodes: List::of(&[ClusterNode {
                node: 2,
                generation: 1,
                state: NodeState::Draining,
                connected: 1,
                shards: 3,
                leads: 4,
                replicas: 5,
                rack: "r2",
                cluster: "10.0.0.2:7700",
                client: "10.0.0.2:7410",
            }]),
            groups: List::of(&[ClusterGroup {
                group: 7,
                factor: 3,
                leader: 2,
                term: 6,
                partitions: 8,
                unclean_term: 9 << 20,
                voters: List::of(&[2, 1, 3]),
                learners: List::of(&[4]),
                moving: "adds node 4: learner",
            }]),
        }
    );
    sample!(
        "alter_cluster_request",
        AlterCluster,
        REQUEST,
        AlterClusterRequest { action: ClusterAction::Move, node: 2, group: 9, from_node: 3 }
    );
    sample!("alter_cluster_reply", AlterCluster, REPLY, AlterClusterReply {});
    sample!("init_producer_request", InitProducer, REQUEST, InitProducerRequest {});
    sample!(
        "init_producer_reply",
        InitProducer,
        REPLY,
        InitProducerReply { producer_id: 0x0102_0304_0506, batches_kept: 5, expiry_ms: 3_600_000 }
    );
    groups(&mut samples);
    queues::push(&mut samples);
    sample!("ping_request", Ping, REQUEST, PingRequest {});
    sample!("ping_reply", Ping, REPLY, PingReply {});
    sample!(
        "error_reply",
        Produce,
        frame::FLAG_REPLY | frame::FLAG_ERROR,
        ErrorBody {
            code: ErrorCode::NotLeader.as_u16(),
            retriable: true,
            message: "shard 1 of node 2 leads this partition",
            next: "broker-2.example:7412",
        }
    );
    samples
}

/// Records of the sample batches.
pub fn records() -> Vec<NewRecord<'static>> {
    let headers: &[(&str, &[u8])] = &[("trace", b"abc"), ("", b"")];
    vec![
        NewRecord { value: Some(b"plain"), timestamp_us: NOW_US, ..NewRecord::default() },
        NewRecord { key: Some(b"N14228"), value: Some(b"2013,1,1,517"), timestamp_us: NOW_US + 1_000, ..NewRecord::default() },
        NewRecord { key: Some(b""), value: None, timestamp_us: NOW_US - 1_000, ..NewRecord::default() },
        NewRecord {
            key: Some(b"N24211"),
            value: Some(b""),
            headers,
            timestamp_us: NOW_US + 2_000_000_000,
            attributes: Attributes {
                deliver_at_us: Some(NOW_US + 60_000_000),
                priority: Some(9),
                ttl_ms: Some(3_600_000),
                group: Some(b"lane-7"),
                message_id: Some(b"id-0001"),
            },
        },
    ]
}

/// Batches by name: produced ones and one that the leader stamped.
pub fn batches() -> Vec<(&'static str, Vec<u8>)> {
    let build = |records: &[NewRecord<'_>], producer: ProducerMark, codec: Codec| {
        let mut builder = BatchBuilder::new(Limits::default());
        for record in records {
            builder.push(record).expect("samples fit");
        }
        let mut out = Vec::new();
        // Not real compression: wire never looks inside, and the vector must not depend on a codec's version.
        let compress = |values: &[u8], out: &mut Vec<u8>| {
            out.extend(values.iter().step_by(2));
            Ok::<(), std::convert::Infallible>(())
        };
        builder.finish(&mut out, producer, codec, compress).expect("infallible");
        out
    };
    let mark = ProducerMark { id: 0x00AA_BBCC_DDEE_FF01, epoch: 3, sequence: 1_000_000 };
    let one = build(&records()[..1], ProducerMark::default(), Codec::None);
    let all = build(&records(), mark, Codec::None);
    let packed = build(&records(), mark, Codec::Zstd);
    let mut stamped = all.clone();
    stamp_leader(
        &mut stamped,
        &LeaderStamp { partition_uid: 0x0102_0304_0506_0708, base_offset: 1_000, term: 7, append_time_us: NOW_US + 5 },
    );
    let mut append_time = one.clone();
    mark_append_time(&mut append_time);
    stamp_leader(&mut append_time, &LeaderStamp { partition_uid: 9, base_offset: 0, term: 1, append_time_us: NOW_US + 9 });
    vec![
        ("batch_one_plain_record", one),
        ("batch_all_features", all),
        ("batch_compressed", packed),
        ("batch_stamped", stamped),
        ("batch_append_time", append_time),
    ]
}

const GRANTED: &[GrantedPartition] = &[
    GrantedPartition { partition_uid: 1, assignment_epoch: NOW_US as u64 },
    GrantedPartition { partition_uid: 3, assignment_epoch: NOW_US as u64 + 7 },
];
const MEMBERS: &[GroupMember<'static>] = &[
    GroupMember { member_id: NOW_US as u64, instance: "", client: "biller", partitions: 1, target: 2, is_settled: false },
    GroupMember { member_id: NOW_US as u64 + 1, instance: "rack-2", client: "biller", partitions: 0, target: 0, is_settled: true },
];
const GROUP_PARTITIONS: &[GroupPartition<'static>] = &[GroupPartition {
    topic: "flights",
    index: 3,
    uid: 0x0102_0304_0506_0708,
    member_id: NOW_US as u64,
    offset: 900,
    committed_us: NOW_US,
    log_start: 10,
    committed_end: 1000,
    lag_bytes: 102_400,
    lag_ms: 1500,
    drain_ms: TIME_NONE,
}];

fn groups(samples: &mut Vec<Sample>) {
    macro_rules! sample {
        ($($sample:tt)*) => { push_sample!(samples, $($sample)*) };
    }
    const MEMBER: u64 = NOW_US as u64;
    sample!("find_group_request", FindGroup, REQUEST, FindGroupRequest { name: "billing", flags: FindGroupFlags::CREATE });
    sample!("find_group_reply", FindGroup, REPLY, FindGroupReply { group_uid: 5, node: 1, shard: 2, created: true });
    sample!(
        "join_group_request",
        JoinGroup,
        REQUEST,
        JoinGroupRequest {
            group_uid: 5,
            flags: JoinFlags::ALONE,
            assignor: Assignor::Uniform,
            session_timeout_ms: 45_000,
            instance: "rack-2",
            client: "biller",
            topics: List::of(&["flights", "invoices"]),
        }
    );
    sample!("join_group_reply", JoinGroup, REPLY, JoinGroupReply { member_id: MEMBER, epoch: MEMBER + 7, partitions: List::of(GRANTED) });
    sample!(
        "heartbeat_group_request",
        HeartbeatGroup,
        REQUEST,
        HeartbeatGroupRequest {
            group_uid: 5,
            member_id: MEMBER,
            epoch: MEMBER + 7,
            wait_ms: 5000,
            flags: HeartbeatFlags::TOPICS,
            instance: "",
            topics: List::of(&["flights"]),
        }
    );
    sample!("heartbeat_group_reply", HeartbeatGroup, REPLY, HeartbeatGroupReply { epoch: MEMBER + 9, partitions: List::of(GRANTED) });
    sample!(
        "leave_group_request",
        LeaveGroup,
        REQUEST,
        LeaveGroupRequest { group_uid: 5, member_id: MEMBER, flags: LeaveFlags::KEEP, instance: "rack-2" }
    );
    sample!("leave_group_reply", LeaveGroup, REPLY, LeaveGroupReply {});
    sample!(
        "commit_offsets_request",
        CommitOffsets,
        REQUEST,
        CommitOffsetsRequest {
            group_uid: 5,
            entries: List::of(&[
                OffsetCommit { partition_uid: 1, assignment_epoch: MEMBER, offset: 900, metadata: "line 17" },
                OffsetCommit { partition_uid: 3, assignment_epoch: 0, offset: OFFSET_NONE, metadata: "" },
            ]),
        }
    );
    sample!(
        "commit_offsets_reply",
        CommitOffsets,
        REPLY,
        CommitOffsetsReply {
            entries: List::of(&[
                OffsetCommitted { partition_uid: 1, error: ErrorCode::Ok },
                OffsetCommitted { partition_uid: 3, error: ErrorCode::StaleAssignment },
            ]),
        }
    );
    sample!(
        "fetch_offsets_request",
        FetchOffsets,
        REQUEST,
        FetchOffsetsRequest { group_uid: 5, entries: List::of(&[OffsetAsk { partition_uid: 1, assignment_epoch: MEMBER }]) }
    );
    sample!(
        "fetch_offsets_reply",
        FetchOffsets,
        REPLY,
        FetchOffsetsReply {
            entries: List::of(&[
                OffsetFetched { partition_uid: 1, error: ErrorCode::Ok, offset: 900, committed_us: NOW_US, metadata: "line 17" },
                OffsetFetched { partition_uid: 3, error: ErrorCode::NotLeader, offset: OFFSET_NONE, committed_us: 0, metadata: "" },
            ]),
        }
    );
    sample!("list_groups_request", ListGroups, REQUEST, ListGroupsRequest {});
    sample!(
        "list_groups_reply",
        ListGroups,
        REPLY,
        ListGroupsReply { groups: List::of(&[GroupItem { name: "billing", group_uid: 5, node: 1, shard: 2, members: 2 }]) }
    );
    sample!(
        "describe_group_request",
        DescribeGroup,
        REQUEST,
        DescribeGroupRequest { name: "billing", from_topic: "invoices", from_partition: 3 }
    );
    sample!(
        "describe_group_reply",
        DescribeGroup,
        REPLY,
        DescribeGroupReply {
            group_uid: 5,
            name: "billing",
            node: 1,
            shard: 2,
            epoch: MEMBER + 9,
            assignor: Assignor::Sticky,
            session_timeout_ms: 45_000,
            members: List::of(MEMBERS),
            more: true,
            partitions: List::of(GROUP_PARTITIONS),
        }
    );
    sample!("delete_group_request", DeleteGroup, REQUEST, DeleteGroupRequest { name: "billing" });
    sample!("delete_group_reply", DeleteGroup, REPLY, DeleteGroupReply {});
}
