//! The numbers of a shard, as they are when somebody asks.
//!
//! Not here: what is counted as it happens (the files that do it), how it is written (metrics/).

use super::shard::Shard;
use super::throttle::Scarce;
use crate::effects::Now;
use crate::metrics::SnapshotRequest;

impl Shard {
    /// Answers a request for the numbers.
    pub fn snapshot(&mut self, now: Now, receive_bytes: u64, request: SnapshotRequest) {
        self.fill_gauges(receive_bytes);
        self.count_queues(now);
        self.count_lags(now);
        self.metrics.answer(request, now.utc_us);
    }

    fn fill_gauges(&mut self, receive_bytes: u64) {
        let log = self.log.stats();
        let sorter_debt = self.sorter_debt_bytes();
        let space = self.space(&log);
        self.count_groups();
        let gauges = &mut self.metrics.gauges;
        gauges.connections = self.conns.len() as u64;
        gauges.streams = self.sessions.len() as u64;
        gauges.topics = self.view.topics().len() as u64;
        gauges.partitions = self.partitions.len() as u64;
        gauges.producers = self.partitions.producer_count() as u64;
        gauges.groups = self.group_ids.len() as u64;
        gauges.unrepaired_ranges = self.repairs.count() as u64;
        gauges.suspect_replicas = self.suspects.count() as u64;
        gauges.groups_led = self.group_ids.iter().filter(|g| self.groups.leader_term(**g).is_some()).count() as u64;
        gauges.metadata_epoch = self.view.epoch;
        gauges.log_durable_block = self.log.durable_through().0;
        gauges.log_open_bytes = log.open_bytes;
        gauges.log_undurable_bytes = log.undurable_bytes;
        gauges.uncommitted_bytes = self.groups.uncommitted_led();
        gauges.log_writes_in_flight = u64::from(log.writes_in_flight);
        gauges.log_reads_in_flight = u64::from(log.reads_in_flight);
        gauges.log_file_bytes = log.file_bytes;
        gauges.log_out_of_segments = u64::from(log.out_of_segments);
        gauges.segments_open = u64::from(log.segments_open);
        gauges.segments_sealed = u64::from(log.segments_sealed);
        gauges.segments_sorted = u64::from(log.segments_sorted);
        gauges.space_live = space.live;
        gauges.space_dead = space.dead;
        gauges.space_padding = space.padding;
        gauges.space_open = space.open;
        gauges.space_free = space.free;
        gauges.sorter_debt = sorter_debt;
        gauges.memory_index = self.throttle.index_bytes();
        gauges.segments_pool_written = u64::from(log.pool_filled);
        gauges.segments_pool_fresh = u64::from(log.pool_unfilled);
        gauges.tail_cache_bytes = log.cache_bytes;
        gauges.memory_slab = self.slab.allocated_bytes() as u64;
        gauges.memory_slab_lent = self.slab.lent_bytes() as u64;
        gauges.memory_receive = receive_bytes;
        gauges.memory_send = self.conns.total_queued_bytes();
        gauges.memory_budget = self.slab.budget_bytes() as u64;
        let counters = &mut self.metrics.counters;
        counters.log_blocks_written = log.blocks_closed;
        counters.log_marks_written = log.marks_closed;
        counters.log_appends = log.appends;
        counters.log_write_bytes = log.written_bytes;
        counters.log_padding_bytes = log.padding_bytes;
        counters.log_short_writes = log.short_writes;
        counters.log_reads = log.reads;
        counters.log_reads_failed = log.reads_failed;
        counters.log_read_bytes = log.read_bytes;
        counters.throttled_disk_us = self.throttle.held_us(Scarce::Disk);
        counters.throttled_sorter_us = self.throttle.held_us(Scarce::Sorter);
        counters.throttled_index_us = self.throttle.held_us(Scarce::Index);
        counters.throttled_uncommitted_us = self.uncommitted.held_us();
        counters.segments_begun = log.rolls;
        counters.segments_begun_fresh = log.rolls_into_fresh_extents;
    }
}
