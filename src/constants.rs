//! Numbers and names that are not settings: each with its reason and with what breaks if it is changed.
//!
//! Invariants: what has to agree between two numbers is asserted at compile time, here.
//!
//! Not here: what a user may change (`config/table.rs`), and the sizes of on-disk and on-wire layouts (`log/layout.rs`, `wire`).

/// The version of this build, as `--version`, the hello reply and `tramline_build_info` tell it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The common client port of a node; shard i also listens on this plus 1 plus i. No well-known broker uses it.
pub const CLIENT_PORT: u16 = 7410;
/// The port of metrics and health, below the client ports so that adding shards never runs into it.
pub const ADMIN_PORT: u16 = 7401;

/// How the name of the file begins by which a start probes the file system of a data directory (`ring/probe.rs`), and that of `tramline doctor`'s self-test
/// (`doctor/self_test.rs`), for the moment that it has one where a file system has no files without names; the process's number follows. A crash may leave them, and the
/// second may run beside a first start: in a directory that is otherwise empty they are nobody's data.
pub const PROBE_FILE: &str = ".tramline-probe-";
/// See [`PROBE_FILE`].
pub const DOCTOR_FILE: &str = ".tramline-doctor-";
/// Both.
pub const TEST_FILES: [&str; 2] = [PROBE_FILE, DOCTOR_FILE];

/// How long connecting to another node may take, in microseconds. The kernel sends a request that was lost again after 1 s and after 3 s (since 6.5
/// after 2 s too), so two may be lost. Less would never see a repeated one; much more would keep a node that has just come back waiting for the end of
/// a dial that it has missed.
pub const NODE_DIAL_US: u64 = 3_000_000;
/// How long who connects to the port for nodes may take for its first frame, in microseconds: strangers must not hold places for longer. A node says hello
/// with its first turn; five seconds are for one that is stalled.
pub const NODE_HELLO_US: u64 = 5_000_000;
/// Largest frame between nodes, in bytes: header, meta and payload of the protocol. Limits of nodes must not depend on settings that may differ.
pub const NODE_FRAME_BYTES_MAX: u64 = 32 + (1 << 20) + (16 << 20);

/// Version of the data directory's layout (the identity file names it). Raised when an older binary could not read what a newer one wrote.
/// 2: the identity has the disk and its generation.
pub const DATA_DIR_VERSION: u32 = 2;
/// Feature level: gates each new record, schema or message between nodes. 1 is the first release's.
pub const FEATURE_LEVEL: u32 = 1;
/// The lowest feature level that this version can still speak.
pub const FEATURE_LEVEL_MIN: u32 = 1;
const _: () = assert!(FEATURE_LEVEL_MIN <= FEATURE_LEVEL);

/// The upper bits of a group's term are its *era*: the index, in group 0's log, of the recovery without a majority by which it goes on; 0 for none. So a replica's own
/// term tells whether it is of those that went on. An era has 2^20 elections: twelve days of one each second.
pub const ERA_BITS: u32 = 20;

/// How long a node that joins a cluster looks for somebody who takes it in, in microseconds. All seeds may be restarting: that takes seconds, and an
/// election two more. A supervisor starts the node again after that, so longer only delays the message.
pub const JOIN_US: u64 = 60_000_000;
/// How long a seed may be silent before another one is asked, in microseconds: joining is a command that a majority has to have on its disks, and its
/// answer is as large as the metadata.
pub const JOIN_SILENCE_US: u64 = 10_000_000;
/// Between two rounds over all seeds, in microseconds: an election takes about so long.
pub const JOIN_PAUSE_US: u64 = 1_000_000;
/// How often in a row a seed may send a node that joins to somebody else: once to the leader, and again when that has just changed.
pub const JOIN_HOPS_MAX: u32 = 4;

/// The protocol's bound on a frame's meta part, in bytes. A reply that lists partitions has to fit into it.
pub const META_BYTES_MAX: u64 = 1 << 20;
/// The most bytes one partition takes in any reply that lists partitions (describe topic: 50).
pub const PARTITION_REPLY_BYTES_MAX: u64 = 50;
/// Topics of a cluster. Limits of the cluster are no settings of a node: every replica of the metadata has to come to the same answer.
pub const TOPICS_MAX: u64 = 10_000;
/// Partitions of one topic: what the engine is measured with, and what one reply can describe.
pub const TOPIC_PARTITIONS_MAX: u64 = 10_000;
/// Partitions of a cluster: some 200 bytes of metadata each, so 20 MB on each node.
pub const PARTITIONS_MAX: u64 = 100_000;
const _: () =
    assert!(TOPIC_PARTITIONS_MAX * PARTITION_REPLY_BYTES_MAX + 4096 <= META_BYTES_MAX, "a topic's description has to fit into one meta");
/// Consumer groups of a cluster: their list (at most 269 bytes each) has to fit into one meta.
pub const GROUPS_MAX: u64 = 3_500;
const _: () = assert!(
    GROUPS_MAX * (TOPIC_NAME_BYTES_MAX + 2 + 8 + 4 + 2 + 4) + 4096 <= META_BYTES_MAX,
    "the list of groups has to fit into one meta"
);
/// Queues of a cluster: as many as topics. Each costs some 300 bytes of metadata on each node, and work on every shard that has a partition of its topic.
pub const QUEUES_MAX: u64 = 10_000;
/// Queues that one reply lists: at most 510 bytes each, two names of 249 among them.
pub const QUEUES_AT_ONCE: usize = 2_000;
/// Partitions that one reply tells of a queue: at most 400 bytes each, with the name of a consumer.
pub const QUEUE_PARTITIONS_AT_ONCE: usize = 2_000;
/// Partitions that one reply tells of a group: at most 330 bytes each, beside 1,000 members of at most 530.
pub const GROUP_PARTITIONS_AT_ONCE: usize = 1_000;
const _: () = assert!(QUEUES_AT_ONCE as u64 * 512 <= META_BYTES_MAX && QUEUE_PARTITIONS_AT_ONCE as u64 * 400 + 65_536 <= META_BYTES_MAX);
const _: () = assert!(GROUP_PARTITIONS_AT_ONCE as u64 * 330 + 1_000 * 530 + 4096 <= META_BYTES_MAX);
/// Ids for producers that are taken from the metadata at once. A crash skips what is left of them: at one start a second 2^64 last for 5 * 10^8 years.
pub const PRODUCER_LEASE_IDS: u32 = 1024;
/// Batches of a producer that a partition can tell from new ones: as many as a client may have under way in one partition. Kafka's number, for its reason:
/// more hide no more latency, and each costs 40 bytes per producer and partition.
pub const PRODUCER_BATCHES_KEPT: usize = 5;
/// Longest name of a topic, in bytes: a file name of 255 with room for an ending.
pub const TOPIC_NAME_BYTES_MAX: u64 = 249;

/// Largest payload of one fetch frame, in bytes: small replies pass between two of them, at 2.5 GB/s this is 50 us of waiting.
pub const FETCH_FRAME_BYTES: u32 = 128 << 10;
/// A background turn takes at most this long, in microseconds: it is added to the latency of whatever arrives meanwhile.
pub const TURN_US: u64 = 50;
/// Bytes of background work per turn.
pub const TURN_BYTES: u64 = 4 << 20;
/// Under load a background turn at least this often, in microseconds.
pub const TURN_EVERY_US: u64 = 1000;
/// Shards of one node: the mesh keeps a queue per pair, and a group's number leaves room for this many.
pub const SHARDS_MAX: u64 = 256;
/// Most replica groups on each shard: each costs a consensus state.
pub const GROUPS_PER_SHARD_MAX: u64 = 31;
/// Most replicas of data groups on each shard, led or followed: with group 0 they are a bit each in a mask of 64.
pub const SHARD_REPLICAS_MAX: u32 = 63;
/// Most replicas of a group: five survive two deaths, and each more costs every batch a write and a way over the network.
pub const REPLICAS_MAX: u8 = 5;
/// Replicas of a topic whose creator does not say, where there are as many nodes: the least that survives a death.
pub const REPLICAS_DEFAULT: u8 = 3;
/// Nodes of a cluster at one time: each holds connections to each other one, and looking for moves goes over all pairs.
pub const NODES_MAX: usize = 64;
/// Nodes that a cluster has ever had: a removed one is remembered, so that it is never taken for a new one. Some 60 bytes each.
pub const NODE_IDS_MAX: usize = 4096;
/// Highest number of a node. Any 32 bits would do; this many can still be read out loud, and a mistyped port or date is noticed.
pub const NODE_ID_MAX: u64 = 1_000_000;
/// Disks that a node has ever had, 8 bytes each: an old one that turns up again is known as such.
pub const NODE_DISKS_MAX: usize = 64;
/// Longest name of a rack, in bytes.
pub const RACK_BYTES_MAX: usize = 64;
/// Longest name of a host, in bytes: what DNS allows.
pub const HOST_BYTES_MAX: usize = 253;
/// Moves at one time that one node takes part in: each copies a group, beside everybody's work.
pub const NODE_MOVES_MAX: u32 = 2;

/// How long a starting node waits for lock and port. After SIGKILL the kernel still carries out writes that were in flight (seen: some
/// 100 ms) and holds the lock until then; ten seconds also covers a supervisor that starts the successor early.
pub const LOCK_WAIT_US: u64 = 10_000_000;
/// A shard that has not answered a request for its numbers in this time is reported as stalled, in milliseconds. A turn of the shard loop is well
/// below one millisecond, so two seconds of silence are a stall and not load.
pub const SNAPSHOT_WAIT_MS: u64 = 2_000;

/// Exit code of an orderly stop.
pub const EXIT_OK: u8 = 0;
/// Exit code when the node could not start, or a command failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of `tramline doctor` where something makes a node slower than it could be.
pub const EXIT_WARNINGS: u8 = 3;
/// Exit code of `tramline doctor` where a node does not run, or what it acknowledges may be lost.
pub const EXIT_FAULTS: u8 = 4;
/// Exit code when a second signal cut the orderly stop short (128 + SIGINT, as shells report it).
pub const EXIT_INTERRUPTED: i32 = 130;
