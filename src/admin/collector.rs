//! Asks the shards for their numbers and adds up what they hand over.
//!
//! Invariants
//! - A shard is asked for its timings again only when it has answered: at most one full request per shard is under way, so a stalled shard
//!   costs one spare interval and no more. An answer that comes late is absorbed by the next collection: nothing is lost or counted twice.
//! - All shards are asked before any is waited for; a collection takes `wait` at most, however many are silent.
//! - A shard that is starting, stopping or failed is not asked: its state says more.
//!
//! Not here: text (`prometheus.rs`), HTTP.

use crate::ids::ShardId;
use crate::metrics::snapshot::PendingSnapshot;
use crate::metrics::{Health, Interval, ShardHealth, ShardSnapshot, SlowRequest, SnapshotSource, snapshot_request};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Slow requests kept per shard.
const SLOW_KEPT: usize = 32;
/// How long a slow request is shown, in microseconds.
const SLOW_AGE_US: i64 = 3_600_000_000;

/// What is known of one shard.
#[derive(Debug)]
pub struct ShardTotals {
    /// Its last answer (its interval was taken out and added to `timings`).
    pub last: Option<ShardSnapshot>,
    /// All timings since the start.
    pub timings: Box<Interval>,
    /// Share of the time between the last two answers spent with work.
    pub busy_ratio: f64,
    /// Whether it answered the last collection in time.
    pub responsive: bool,
    spare: Option<Box<Interval>>,
    pending: Option<PendingSnapshot>,
    pending_numbers: Option<PendingSnapshot>,
    slowest: Vec<SlowRequest>,
}

/// All shards' totals.
pub struct Collector {
    source: Arc<dyn SnapshotSource>,
    health: Arc<Health>,
    wait: Duration,
    shards: Vec<ShardTotals>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("shards", &self.shards.len()).field("wait", &self.wait).finish()
    }
}

impl ShardTotals {
    fn new() -> ShardTotals {
        ShardTotals {
            last: None,
            timings: Box::new(Interval::new()),
            busy_ratio: 0.0,
            responsive: false,
            spare: None,
            pending: None,
            pending_numbers: None,
            slowest: Vec::new(),
        }
    }

    fn absorb(&mut self, mut snapshot: ShardSnapshot) {
        if let Some(last) = &self.last {
            let busy = snapshot.counters.busy_us.saturating_sub(last.counters.busy_us) as f64;
            let passed = (snapshot.utc_us - last.utc_us) as f64;
            if passed > 0.0 {
                self.busy_ratio = (busy / passed).min(1.0);
            }
        }
        if let Some(mut interval) = snapshot.interval.take() {
            self.timings.add(&interval);
            self.slowest.extend(interval.slowest());
            self.slowest.retain(|request| request.utc_us >= snapshot.utc_us - SLOW_AGE_US);
            self.slowest.sort_by_key(|request| std::cmp::Reverse(request.total_ns()));
            self.slowest.truncate(SLOW_KEPT);
            interval.clear();
            self.spare = Some(interval);
        }
        self.last = Some(snapshot);
    }
}

impl Collector {
    /// Nothing known yet.
    pub fn new(source: Arc<dyn SnapshotSource>, health: Arc<Health>, wait: Duration) -> Collector {
        let shards = (0..source.shards()).map(|_| ShardTotals::new()).collect();
        Collector { source, health, wait, shards }
    }

    /// Asks all ready shards for everything and adds up the answers.
    pub async fn collect(&mut self) {
        let deadline = Instant::now() + self.wait;
        let ready = self.ready();
        for (i, totals) in self.shards.iter_mut().enumerate() {
            totals.responsive = false;
            if ready[i] && totals.pending.is_none() {
                let spare = totals.spare.take().unwrap_or_default();
                let (request, pending) = snapshot_request(Some(spare));
                totals.pending = self.source.request(ShardId(i as u16), request).ok().map(|()| pending);
            }
        }
        for totals in &mut self.shards {
            let Some(pending) = &mut totals.pending else { continue };
            match timeout_at(deadline, pending.take()).await {
                Ok(answer) => {
                    totals.pending = None;
                    totals.responsive = answer.is_some();
                    answer.into_iter().for_each(|snapshot| totals.absorb(snapshot));
                }
                Err(_late) => {}
            }
        }
    }

    /// The ready shards that do not answer within `wait`. Moves no timings.
    pub async fn silent_shards(&mut self) -> Vec<ShardId> {
        let deadline = Instant::now() + self.wait;
        let ready = self.ready();
        let mut silent = Vec::new();
        for (i, totals) in self.shards.iter_mut().enumerate() {
            if ready[i] && totals.pending_numbers.is_none() {
                let (request, pending) = snapshot_request(None);
                totals.pending_numbers = self.source.request(ShardId(i as u16), request).ok().map(|()| pending);
            }
        }
        for (i, totals) in self.shards.iter_mut().enumerate() {
            let answered = match &mut totals.pending_numbers {
                None => !ready[i],
                Some(pending) => match timeout_at(deadline, pending.take()).await {
                    Ok(answer) => {
                        totals.pending_numbers = None;
                        answer.is_some()
                    }
                    Err(_late) => false,
                },
            };
            if !answered {
                silent.push(ShardId(i as u16));
            }
        }
        silent
    }

    /// What is known of each shard, in order.
    pub fn shards(&self) -> &[ShardTotals] {
        &self.shards
    }

    /// The slowest requests kept, of all shards.
    pub fn slowest(&self) -> impl Iterator<Item = (ShardId, &SlowRequest)> {
        self.shards.iter().enumerate().flat_map(|(i, totals)| totals.slowest.iter().map(move |request| (ShardId(i as u16), request)))
    }

    fn ready(&self) -> Vec<bool> {
        let mut ready: Vec<bool> = self.health.states().iter().map(|state| *state == ShardHealth::Ready).collect();
        ready.resize(self.shards.len(), false);
        ready
    }
}
