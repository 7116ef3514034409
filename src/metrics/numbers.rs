//! Counters and gauges of a shard: the fields, and for each its name, label and meaning.
//!
//! Invariants: one entry here is one field, one line of /metrics per shard and one line of docs/METRICS.md; counters only grow and their names end
//! in `_total`; names carry their unit; a field in microseconds is shown in seconds (`Scale::Microseconds`).
//!
//! Not here: timings (`stages.rs`), numbers of the whole node (`document.rs` lists them, `admin/` fills them).

/// How a field becomes the number that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As it is.
    One,
    /// Microseconds, shown as seconds.
    Microseconds,
}

/// One field of `T`.
#[derive(Debug)]
pub struct NumberDef<T: 'static> {
    /// Name in /metrics.
    pub name: &'static str,
    /// Fixed label and value that tell fields of one name apart.
    pub label: Option<(&'static str, &'static str)>,
    /// How it is shown.
    pub scale: Scale,
    /// What it counts; of several fields with one name the first one's.
    pub doc: &'static str,
    /// Reads it.
    pub get: fn(&T) -> u64,
}

impl<T> NumberDef<T> {
    /// The number as shown.
    pub fn shown(&self, numbers: &T) -> f64 {
        let number = (self.get)(numbers);
        match self.scale {
            Scale::One => number as f64,
            Scale::Microseconds => number as f64 / 1e6,
        }
    }
}

macro_rules! numbers {
    ($(#[$struct_doc:meta])* $type:ident, $table:ident; $($field:ident $(($scale:ident))?: $name:literal $({$key:literal = $value:literal})?, $doc:literal;)*) => {
        $(#[$struct_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $type { $(#[doc = $doc] pub $field: u64,)* }

        /// The fields with their names.
        pub static $table: &[NumberDef<$type>] = &[$(NumberDef {
            name: $name,
            label: numbers!(@label $($key, $value)?),
            scale: numbers!(@scale $($scale)?),
            doc: $doc,
            get: |numbers| numbers.$field,
        },)*];
    };
    (@label) => { None };
    (@label $key:literal, $value:literal) => { Some(($key, $value)) };
    (@scale) => { Scale::One };
    (@scale us) => { Scale::Microseconds };
}

numbers! {
    /// What has happened on a shard since its start. The shard adds to the fields; nobody else writes them.
    ShardCounters, COUNTERS;
    produce_records: "tramline_produce_records_total", "Records accepted by produce.";
    produce_batches: "tramline_produce_batches_total", "Batches accepted by produce.";
    produce_bytes: "tramline_produce_bytes_total", "Bytes of batches accepted by produce, as stored.";
    produce_duplicates: "tramline_produce_duplicates_total", "Batches answered as repeated by their producer and not stored again.";
    offset_commits: "tramline_offset_commits_total", "Offsets committed by consumer groups, one per partition and commit.";
    group_joins: "tramline_group_joins_total", "Times that somebody became a member of a consumer group that is at home here.";
    group_members_dropped: "tramline_group_members_dropped_total", "Members of consumer groups that were not heard of for their session timeout.";
    groups_expired: "tramline_groups_expired_total", "Consumer groups that nobody used for group.expiry and whose deletion was begun.";
    queue_received: "tramline_queue_received_total", "Messages of queues that were delivered, each time they were.";
    queue_acked: "tramline_queue_acked_total", "Messages of queues that were acked.";
    queue_nacked: "tramline_queue_nacked_total", "Deliveries that a consumer gave back as failed.";
    queue_rejected: "tramline_queue_rejected_total", "Messages that a consumer gave up for good.";
    queue_released: "tramline_queue_released_total", "Deliveries that a consumer gave back untried.";
    queue_extended: "tramline_queue_extended_total", "Leases that were extended.";
    queue_lease_expired: "tramline_queue_lease_expired_total", "Leases that ran out.";
    queue_redelivered: "tramline_queue_redelivered_total", "Leases of messages that had been delivered before.";
    queue_expired: "tramline_queue_expired_total", "Messages that were settled because their time to live passed or their records are gone (those that went to a dead-letter topic are not counted).";
    queue_duplicates: "tramline_queue_duplicates_total", "Messages that were settled because their id had been seen.";
    queue_dead_lettered_nacked: "tramline_queue_dead_lettered_total" {"reason" = "nacked"}, "Dead messages of queues that are durable in their dead-letter topic, by why their last delivery failed: nacked, lease_expired, rejected, expired (their time to live passed), unknown (not remembered any more).";
    queue_dead_lettered_lease_expired: "tramline_queue_dead_lettered_total" {"reason" = "lease_expired"}, "The last lease ran out.";
    queue_dead_lettered_rejected: "tramline_queue_dead_lettered_total" {"reason" = "rejected"}, "Given up by a consumer.";
    queue_dead_lettered_expired: "tramline_queue_dead_lettered_total" {"reason" = "expired"}, "The time to live passed.";
    queue_dead_lettered_unknown: "tramline_queue_dead_lettered_total" {"reason" = "unknown"}, "Not remembered any more.";
    fetch_records: "tramline_fetch_records_total", "Records handed to consumers; a batch that begins before the asked offset counts whole.";
    fetch_batches: "tramline_fetch_batches_total", "Batches handed to consumers.";
    fetch_bytes: "tramline_fetch_bytes_total", "Bytes of batches handed to consumers.";
    fetch_bytes_tail: "tramline_fetch_source_bytes_total" {"source" = "tail"}, "Bytes of batches handed to consumers, by where they came from: the tail cache or the disk.";
    fetch_bytes_disk: "tramline_fetch_source_bytes_total" {"source" = "disk"}, "Bytes read from disk for consumers.";
    mesh_requests: "tramline_mesh_requests_total", "Requests that arrived here and were passed to the shard that owns their partitions (one hop more).";
    mesh_messages_in: "tramline_mesh_messages_total" {"direction" = "in"}, "Messages between the shards of this node.";
    mesh_messages_out: "tramline_mesh_messages_total" {"direction" = "out"}, "Messages sent to other shards of this node.";
    frames_in: "tramline_frames_total" {"direction" = "in"}, "Frames from and to clients.";
    frames_out: "tramline_frames_total" {"direction" = "out"}, "Frames sent to clients.";
    network_bytes_in: "tramline_network_bytes_total" {"direction" = "in"}, "Bytes from and to clients.";
    network_bytes_out: "tramline_network_bytes_total" {"direction" = "out"}, "Bytes sent to clients.";
    connections_opened: "tramline_connections_opened_total", "Connections accepted.";
    connections_refused_limit: "tramline_connections_refused_total" {"reason" = "limit"}, "Connections closed by this node, by reason.";
    connections_refused_malformed: "tramline_connections_refused_total" {"reason" = "malformed"}, "Closed after bytes that are no valid frame.";
    connections_refused_idle: "tramline_connections_refused_total" {"reason" = "idle"}, "Closed after connection.idle.timeout.";
    connections_refused_partial: "tramline_connections_refused_total" {"reason" = "partial_frame"}, "Closed after partial.frame.timeout.";
    connections_refused_slow: "tramline_connections_refused_total" {"reason" = "slow_reader"}, "Closed because replies were not read.";
    connections_refused_unauthenticated: "tramline_connections_refused_total" {"reason" = "unauthenticated"}, "Closed at hello.";
    node_connections_accepted: "tramline_node_connections_opened_total" {"side" = "acceptor"}, "Connections with other nodes that stood, by who listened and who dialed: acceptor (they came), dialer (this shard made them).";
    node_connections_dialed: "tramline_node_connections_opened_total" {"side" = "dialer"}, "Made by this shard.";
    node_dials_failed: "tramline_node_dials_failed_total", "Attempts to connect to another node that came to nothing.";
    node_connections_refused_limit: "tramline_node_connections_refused_total" {"reason" = "limit"}, "Connections with other nodes that were not taken or closed, by reason: limit (cluster.connections.max; also those that were not made), malformed (bytes that are no valid next frame), silent (no frame within 5 s).";
    node_connections_refused_malformed: "tramline_node_connections_refused_total" {"reason" = "malformed"}, "Closed after bytes that are no valid next frame.";
    node_connections_refused_silent: "tramline_node_connections_refused_total" {"reason" = "silent"}, "Closed because nothing came.";
    node_frames_in: "tramline_node_frames_total" {"direction" = "in"}, "Frames from and to other nodes.";
    node_frames_out: "tramline_node_frames_total" {"direction" = "out"}, "Frames sent to other nodes.";
    node_bytes_in: "tramline_node_network_bytes_total" {"direction" = "in"}, "Bytes of frames from and to other nodes.";
    node_bytes_out: "tramline_node_network_bytes_total" {"direction" = "out"}, "Bytes sent to other nodes.";
    snapshots_sent: "tramline_snapshots_total" {"direction" = "sent"}, "Snapshots of groups that followers have taken in, and that this shard has.";
    snapshots_taken: "tramline_snapshots_total" {"direction" = "taken"}, "Snapshots of groups that this shard has taken in.";
    blocked_requests: "tramline_blocked_requests_total", "Requests that had to wait because a budget was used up (memory, send queue, log).";
    throttled_disk_us (us): "tramline_produce_throttled_seconds_total" {"cause" = "disk"}, "Time in which produce was held back, by cause: disk (disk.slow.free), sorter (sorter.debt.bytes), index (index.bytes.max), uncommitted (followers are slower than producers; memory.bytes).";
    throttled_sorter_us (us): "tramline_produce_throttled_seconds_total" {"cause" = "sorter"}, "More is scattered than the sorter keeps up with.";
    throttled_index_us (us): "tramline_produce_throttled_seconds_total" {"cause" = "index"}, "Memory that lists batches becomes scarce.";
    throttled_uncommitted_us (us): "tramline_produce_throttled_seconds_total" {"cause" = "uncommitted"}, "A group has as much as it may have that is not committed.";
    scrub_bytes: "tramline_scrub_bytes_total", "Bytes of stored batches that the scrubber has checked.";
    scrub_passes: "tramline_scrub_passes_total", "Times that the scrubber went over all sealed segments.";
    sorter_segments: "tramline_sorter_segments_total", "Sorted segments written: batches of many segments, partition by partition.";
    sorter_bytes: "tramline_sorter_bytes_total", "Bytes of batches that sorting has moved.";
    retention_bytes: "tramline_retention_bytes_total", "Bytes of segment files given back by retention and topic deletion.";
    retention_batches: "tramline_retention_batches_total", "Batches that retention has dropped one by one, in front of what is kept of a run.";
    retention_lookups: "tramline_retention_lookups_total", "Reads of segment indexes to find such batches.";
    damaged_ranges: "tramline_damaged_ranges_total", "Damaged ranges found in the log, at start or when read; none of them was served.";
    repaired_ranges: "tramline_repaired_ranges_total", "Damaged ranges that were repaired from another replica.";
    repaired_bytes: "tramline_repaired_bytes_total", "Bytes of batches that were repaired from another replica.";
    log_blocks_written: "tramline_log_blocks_written_total", "Log blocks written, mark blocks included.";
    log_marks_written: "tramline_log_marks_written_total", "Empty blocks that an idle log writes to tell what is durable.";
    log_appends: "tramline_log_appends_total", "Batches and control payloads appended to the log.";
    log_write_bytes: "tramline_log_write_bytes_total", "Bytes written to the log, padding included.";
    log_padding_bytes: "tramline_log_padding_bytes_total", "Of the written bytes, those that are padding.";
    log_short_writes: "tramline_log_short_writes_total", "Log writes that came back short and were continued.";
    log_reads: "tramline_log_reads_total", "Reads from segments that were not in the tail cache.";
    log_reads_failed: "tramline_log_reads_failed_total", "Of these, the ones the disk refused.";
    log_read_bytes: "tramline_log_read_bytes_total", "Bytes read from segments, alignment included.";
    segments_begun: "tramline_segments_begun_total", "Segments begun.";
    segments_begun_fresh: "tramline_segments_begun_fresh_total", "Of these, the ones begun in space never written before, which makes each write slower (pool.segments too small?).";
    groups_elected: "tramline_leader_changes_total", "Times a replica group of this shard got a leader.";
    turns: "tramline_background_turns_total", "Turns of background work (pool, sealing, retention, checkpoints).";
    turn_us (us): "tramline_background_seconds_total", "Time spent in background turns.";
    cycles: "tramline_shard_cycles_total", "Cycles of the shard loop that found something to do.";
    parks: "tramline_shard_parks_total", "Times the shard went to sleep.";
    write_naps: "tramline_shard_write_naps_total", "Times the shard let go of its core for 100 us, because no write had completed for 5 ms and the kernel's worker may have waited for the core.";
    busy_us (us): "tramline_shard_busy_seconds_total", "Time spent in cycles that found something to do.";
    stalls: "tramline_shard_stalls_total", "Cycles that took longer than 10 ms.";
}

numbers! {
    /// How things stand on a shard. Set by the shard when it answers a snapshot.
    ShardGauges, GAUGES;
    connections: "tramline_connections", "Open client connections.";
    node_connections: "tramline_node_connections", "Open connections with other nodes, whoever made them.";
    streams: "tramline_streams", "Open fetch streams.";
    topics: "tramline_topics", "Topics of the cluster as this shard knows them.";
    partitions: "tramline_partitions", "Partitions on this shard.";
    producers: "tramline_producers", "Idempotent producers that are remembered, each once per partition it sends to (producers.max).";
    consumer_groups: "tramline_consumer_groups", "Consumer groups that are at home on this shard and have had a member since its start.";
    group_members: "tramline_group_members", "Members of these consumer groups.";
    committed_offsets: "tramline_committed_offsets", "Pairs of a partition and a consumer group of which something is remembered.";
    groups_left_out: "tramline_groups_left_out", "Consumer groups whose lag is not told.";
    queue_receives_waiting: "tramline_queue_receives_waiting", "Receives of queues that wait for messages.";
    queues_left_out: "tramline_queues_left_out", "Queues without lines of their own.";
    groups: "tramline_groups", "Replica groups on this shard.";
    groups_led: "tramline_groups_led", "Of these, the ones this shard leads.";
    unrepaired_ranges: "tramline_unrepaired_ranges", "Damaged ranges that other replicas are asked for, and that are not repaired yet.";
    suspect_replicas: "tramline_suspect_replicas", "Replicas on this shard that may have lost what they had acknowledged, and do not vote until they have it back.";
    metadata_epoch: "tramline_metadata_epoch", "Version of the cluster metadata that this shard works with.";
    log_durable_block: "tramline_log_durable_block", "Sequence number up to which all log blocks are on stable storage.";
    log_open_bytes: "tramline_log_open_bytes", "Bytes in the open log block.";
    log_undurable_bytes: "tramline_log_undurable_bytes", "Bytes in blocks that are closed and not yet durable.";
    uncommitted_bytes: "tramline_uncommitted_bytes", "Bytes that groups led by this shard, with replicas elsewhere, have in closed blocks and not committed. Produce waits above a quarter of memory.bytes, for a group above half of that.";
    log_writes_in_flight: "tramline_log_writes_in_flight", "Log writes under way.";
    log_reads_in_flight: "tramline_log_reads_in_flight", "Segment reads under way.";
    log_file_bytes: "tramline_log_file_bytes", "Bytes of all segment files, the prepared ones included.";
    log_out_of_segments: "tramline_log_out_of_segments", "1 while appends stand still because no segment is ready.";
    segments_open: "tramline_segments" {"state" = "open"}, "Segment files by state: open (being written or not yet sealed), sealed, pool_written (prepared), pool_fresh (allocated, not yet written).";
    segments_sealed: "tramline_segments" {"state" = "sealed"}, "Full, with an index.";
    segments_pool_written: "tramline_segments" {"state" = "pool_written"}, "Prepared.";
    segments_pool_fresh: "tramline_segments" {"state" = "pool_fresh"}, "Allocated only.";
    segments_sorted: "tramline_segments" {"state" = "sorted"}, "Of the sealed ones, those the sorter wrote.";
    space_live: "tramline_space_bytes" {"kind" = "live"}, "Bytes of the segment files, all of them: live (batches that are kept, in segments with an index), dead (batches that such an index lists and nobody wants any more), padding (the rest of these segments: headers, tables, gaps, indexes, unused ends, and batches that nobody wanted any more when the index was made), open (segments without an index, or being given back), free (prepared files).";
    space_dead: "tramline_space_bytes" {"kind" = "dead"}, "What sorting and retention win back.";
    space_padding: "tramline_space_bytes" {"kind" = "padding"}, "Neither live nor dead batches.";
    space_open: "tramline_space_bytes" {"kind" = "open"}, "Segments that are written to, or wait to be sealed.";
    space_free: "tramline_space_bytes" {"kind" = "free"}, "Prepared files.";
    sorter_debt: "tramline_sorter_debt_bytes", "Segments whose partitions lie scattered and that wait for the sorter.";
    tail_cache_bytes: "tramline_tail_cache_bytes", "Memory that keeps the newest blocks.";
    memory_slab: "tramline_memory_bytes" {"use" = "slab"}, "Memory by use: slab (page-aligned buffers in all), slab_lent (of these, held by blocks, reads, sends and the tail cache), receive (unread bytes of clients' connections), receive_nodes (the same of other nodes), send (bytes waiting to be sent), budget (the setting memory.bytes), index (lists of where batches are), queues (what is known of messages of queues, about).";
    memory_slab_lent: "tramline_memory_bytes" {"use" = "slab_lent"}, "Buffers in use.";
    memory_receive: "tramline_memory_bytes" {"use" = "receive"}, "Receive buffers.";
    memory_receive_nodes: "tramline_memory_bytes" {"use" = "receive_nodes"}, "Receive buffers of other nodes.";
    memory_send: "tramline_memory_bytes" {"use" = "send"}, "Send queues.";
    memory_budget: "tramline_memory_bytes" {"use" = "budget"}, "The setting memory.bytes.";
    memory_queues: "tramline_memory_bytes" {"use" = "queues"}, "What is known of messages of queues.";
    memory_index: "tramline_memory_bytes" {"use" = "index"}, "Lists of where batches are, as of the last pass over all partitions.";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound<T>(table: &[NumberDef<T>], total: bool) {
        for (i, def) in table.iter().enumerate() {
            assert!(def.name.starts_with("tramline_"), "{}", def.name);
            assert_eq!(def.name.ends_with("_total"), total, "{}: only counters end in _total", def.name);
            assert!(def.doc.ends_with('.') && !def.doc.contains('|'), "{}", def.name);
            let same = |other: &NumberDef<T>| other.name == def.name && other.label == def.label;
            assert!(!table[i + 1..].iter().any(same), "{} {:?} stands twice", def.name, def.label);
        }
    }

    #[test]
    fn the_tables_are_sound() {
        sound(COUNTERS, true);
        sound(GAUGES, false);
    }

    #[test]
    fn microseconds_are_shown_as_seconds() {
        let counters = ShardCounters { busy_us: 2_500_000, parks: 3, ..ShardCounters::default() };
        let shown = |name: &str| COUNTERS.iter().find(|def| def.name == name).unwrap().shown(&counters);
        assert_eq!((shown("tramline_shard_busy_seconds_total"), shown("tramline_shard_parks_total")), (2.5, 3.0));
    }
}
