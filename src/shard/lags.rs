//! What the metrics tell of consumer groups: how far each is behind in the partitions that this shard leads, looked up when somebody asks.
//!
//! Invariants: a group is told with all its partitions here, or counted as left out; the cost is bounded.
//!
//! Not here: the same for one group on request (`gathers.rs`).

use super::gathers::{lag, progress};
use super::shard::Shard;
use crate::effects::Now;
use crate::ids::{PartitionUid, SubscriptionUid};
use crate::metrics::labelled::{GroupNumbers, NAMES_MAX};
use std::collections::BTreeMap;
use tramline_wire::group::OFFSET_NONE;

/// Partitions of groups that are looked at in one go: about a millisecond.
const LOOKUPS_MAX: usize = 2_000;

impl Shard {
    /// Fills in the lag of all groups.
    pub(super) fn count_lags(&mut self, now: Now) {
        let mut pairs_of: BTreeMap<SubscriptionUid, usize> = BTreeMap::new();
        // A replica that follows may be behind, and whoever leads tells of the partition.
        let is_led = |uid: PartitionUid| {
            let partition = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot));
            partition.is_some_and(|partition| self.groups.is_caught_up(partition.group))
        };
        let committed = || self.offsets.table.unordered().filter(|(uid, known)| known.offset != OFFSET_NONE && is_led(*uid));
        committed().for_each(|(_, known)| *pairs_of.entry(known.subscription).or_default() += 1);
        let mut lookups_left = LOOKUPS_MAX;
        let mut told: BTreeMap<SubscriptionUid, GroupNumbers> = BTreeMap::new();
        let mut left_out = 0;
        for (uid, pairs) in pairs_of {
            let Some(group) = self.view.group_by_uid(uid) else { continue };
            if pairs > lookups_left || told.len() == NAMES_MAX {
                left_out += 1;
                continue;
            }
            lookups_left -= pairs;
            told.insert(uid, GroupNumbers { name: group.name.clone(), drain_us: Some(0), ..GroupNumbers::default() });
        }
        for (partition, known) in committed() {
            let Some(numbers) = told.get_mut(&known.subscription) else { continue };
            let Some(partition) = self.partitions.slot(partition).and_then(|slot| self.partitions.get(slot)) else { continue };
            let progress = progress(now, partition, Some(known));
            numbers.lag_messages += lag(&progress);
            numbers.lag_bytes += progress.lag_bytes;
            numbers.lag_us = numbers.lag_us.max(progress.lag_ms.saturating_mul(1000));
            let drain_us = progress.drain_ms.map(|ms| ms.saturating_mul(1000));
            numbers.drain_us = numbers.drain_us.zip(drain_us).map(|(all, one)| all.max(one));
        }
        self.metrics.labelled.groups = told.into_values().collect();
        self.metrics.gauges.groups_left_out = left_out;
    }
}
