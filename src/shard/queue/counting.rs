//! What the metrics tell of queues: summed up when somebody asks.
//!
//! Invariants: the cost does not grow with messages; the counters never fall, also when a queue is deleted.
//!
//! Not here: what is counted as it happens (`receiving.rs`, `settling.rs`, `burying.rs`).

use super::super::shard::Shard;
use super::care::{PartHere, of_queue};
use crate::effects::Now;
use crate::metrics::labelled::{NAMES_MAX, QueueNumbers};
use crate::partition::Partition;
use crate::subscription::queue::PartCounts;

/// Parts of which the oldest message's age is looked up in one go: about a millisecond.
const LOOKUPS_MAX: usize = 4_000;

/// Adds what one part has counted.
pub(super) fn add(sum: &mut PartCounts, counts: PartCounts) {
    let PartCounts { acked, redelivered, expired, dead_lettered, duplicates, deleted, died, lease_expired } = counts;
    sum.acked += acked;
    sum.redelivered += redelivered;
    sum.expired += expired;
    sum.dead_lettered += dead_lettered;
    sum.duplicates += duplicates;
    sum.deleted += deleted;
    sum.died += died;
    sum.lease_expired += lease_expired;
}

impl Shard {
    /// Fills in the numbers of all queues.
    pub(in crate::shard) fn count_queues(&mut self, now: Now) {
        let (mut told, mut others): (Vec<QueueNumbers>, _) = (Vec::new(), QueueNumbers::default());
        let mut lookups_left = LOOKUPS_MAX;
        let (mut memory_bytes, mut waiting, mut left_out) = (0, 0, 0);
        let mut counts = self.queues.gone;
        for (uid, queue) in &self.queues.queues {
            waiting += queue.waiting.len() as u64;
            let parts = || self.queues.parts.range(of_queue(*uid)).map(|(_, here)| here);
            let is_told = told.len() < NAMES_MAX && parts().nth(lookups_left).is_none();
            let mut numbers = QueueNumbers::default();
            let sum = if is_told { &mut numbers } else { &mut others };
            for here in parts() {
                memory_bytes += here.part.memory_bytes_about();
                add(&mut counts, here.part.counts());
                add_states(sum, here);
                if is_told {
                    lookups_left -= 1;
                    let age_us = self.partitions.get(here.slot).map_or(0, |partition| oldest_age_us(now, here, partition));
                    sum.oldest_age_us = sum.oldest_age_us.max(age_us);
                }
            }
            if is_told {
                numbers.name = queue.view.name.clone();
                told.push(numbers);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            told.push(others);
        }
        self.metrics.labelled.queues = told;
        let gauges = &mut self.metrics.gauges;
        gauges.queues_left_out = left_out;
        gauges.queue_receives_waiting = waiting;
        gauges.memory_queues = memory_bytes;
        let counters = &mut self.metrics.counters;
        counters.queue_redelivered = counts.redelivered;
        counters.queue_lease_expired = counts.lease_expired;
        counters.queue_expired = counts.expired;
        counters.queue_duplicates = counts.duplicates;
    }
}

fn add_states(numbers: &mut QueueNumbers, here: &PartHere) {
    numbers.ready += here.part.ready_count();
    numbers.leased += here.part.leased_count();
    numbers.delayed += here.part.delayed_count();
    numbers.dead += here.part.dead_count();
}

fn oldest_age_us(now: Now, here: &PartHere, partition: &Partition) -> u64 {
    here.oldest_us(partition).map_or(0, |oldest_us| u64::try_from(now.utc_us.saturating_sub(oldest_us)).unwrap_or(0))
}
