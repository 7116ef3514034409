//! Stage timings: HDR histograms per class of request and stage, and the slowest requests with their breakdown.
//!
//! ```text
//!   received ---parse---> parsed ---append---> appended ---write---> written ---reply---> replied
//!   |<------------------------------------- total ------------------------------------------->|
//! ```
//!
//! Invariants: fixed memory (64 ns to 60 s at three digits is 172 KB per histogram, 17 of them); recording allocates nothing and never fails (what
//! is above 60 s counts as 60 s); times are nanoseconds of one monotonic clock. A stage that a request did not pass (no write for level
//! `leader`) is not recorded; the next stage then counts from the last one passed, so the stages of a request always add up to its total.
//!
//! Not here: when stamps are taken (the shard), quantiles and text (`admin/`).

use hdrhistogram::Histogram;
use tramline_wire::kind::Kind;

/// Shortest time told apart, in nanoseconds; a clock read costs about a third of it.
const NS_MIN: u64 = 64;
/// Longest time told apart, in nanoseconds.
const NS_MAX: u64 = 60_000_000_000;
/// Slow requests kept per interval.
pub const SLOW_KEPT: usize = 16;

/// Requests that are timed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestClass {
    /// Produce.
    Produce,
    /// One-shot fetch, and each frame of a streaming fetch from the arrival of what it carries.
    Fetch,
    /// List offsets.
    ListOffsets,
    /// Hello, metadata, find, list, describe, ping.
    Metadata,
    /// Create, alter, delete, trim, and a producer's id.
    Admin,
    /// Offsets and members of groups, but for the joining, which waits for others.
    Group,
    /// Settle, step, browse, purge, redrive: all of queues but the receiving, which waits for messages.
    Queue,
}

/// Classes of which the total is kept alone.
const TOTALS: usize = RequestClass::ALL.len() - 2;

impl RequestClass {
    /// All of them.
    pub const ALL: [RequestClass; 7] = [
        RequestClass::Produce,
        RequestClass::Fetch,
        RequestClass::ListOffsets,
        RequestClass::Metadata,
        RequestClass::Admin,
        RequestClass::Group,
        RequestClass::Queue,
    ];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            RequestClass::Produce => "produce",
            RequestClass::Fetch => "fetch",
            RequestClass::ListOffsets => "list_offsets",
            RequestClass::Metadata => "metadata",
            RequestClass::Admin => "admin",
            RequestClass::Group => "group",
            RequestClass::Queue => "queue",
        }
    }

    /// Of a request of this kind; `None` where it says nothing about the broker how long it takes.
    pub const fn of(kind: Kind) -> Option<RequestClass> {
        Some(match kind {
            Kind::Produce => RequestClass::Produce,
            Kind::Fetch => RequestClass::Fetch,
            Kind::ListOffsets => RequestClass::ListOffsets,
            Kind::Hello
            | Kind::Metadata
            | Kind::ListTopics
            | Kind::DescribeTopic
            | Kind::DescribeOptions
            | Kind::Ping
            | Kind::DescribeStorage
            | Kind::ListGroups
            | Kind::DescribeGroup
            | Kind::ListQueues
            | Kind::FindQueue
            | Kind::DescribeQueue
            | Kind::DescribeCluster => RequestClass::Metadata,
            Kind::CreateTopic
            | Kind::AlterTopic
            | Kind::DeleteTopic
            | Kind::TrimPartitions
            | Kind::InitProducer
            | Kind::DeleteGroup
            | Kind::CreateQueue
            | Kind::AlterQueue
            | Kind::DeleteQueue
            | Kind::AlterCluster => RequestClass::Admin,
            Kind::FindGroup | Kind::HeartbeatGroup | Kind::LeaveGroup | Kind::CommitOffsets | Kind::FetchOffsets => RequestClass::Group,
            Kind::Settle | Kind::Browse | Kind::Purge | Kind::DeleteMessages | Kind::Redrive | Kind::Step => RequestClass::Queue,
            Kind::JoinGroup | Kind::Receive | Kind::FetchCredit | Kind::FetchCancel => return None,
        })
    }
}

/// A part of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Received to taken in: waiting for room, or while producers are slowed down.
    Parse,
    /// Taken in until its block is closed and handed to the disk (of a fetch: looking up, and the disk read if any).
    Append,
    /// Closed until the level is reached: the synced write, and the other replicas.
    Write,
    /// The last stage passed to the reply.
    Reply,
    /// Received to the reply.
    Total,
}

impl Stage {
    /// All of them, in order of time, the total last.
    pub const ALL: [Stage; 5] = [Stage::Parse, Stage::Append, Stage::Write, Stage::Reply, Stage::Total];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Parse => "parse",
            Stage::Append => "append",
            Stage::Write => "write",
            Stage::Reply => "reply",
            Stage::Total => "total",
        }
    }
}

/// When a request passed each point, in nanoseconds of the shard's monotonic clock; 0 is "did not pass".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// All of its frame was there.
    pub received_ns: u64,
    /// It was taken in.
    pub parsed_ns: u64,
    /// The block with the last of its batches was closed.
    pub appended_ns: u64,
    /// That block has reached the level that was asked for.
    pub written_ns: u64,
    /// The reply was made.
    pub replied_ns: u64,
}

impl Stamps {
    /// The four stages and the total, each `None` where the request did not pass it. A reply that was sent in the step in which the one before it was passed has taken
    /// no time that could be told, and is none.
    #[inline]
    pub fn stages(&self) -> [Option<u64>; 5] {
        let mut last = self.received_ns;
        let mut stage = |at: u64| {
            (at != 0).then(|| {
                let took = at.saturating_sub(last);
                last = at.max(last);
                took
            })
        };
        let parts =
            [stage(self.parsed_ns), stage(self.appended_ns), stage(self.written_ns), stage(self.replied_ns).filter(|took| *took > 0)];
        let total = (self.replied_ns != 0).then(|| self.replied_ns.saturating_sub(self.received_ns));
        [parts[0], parts[1], parts[2], parts[3], total]
    }
}

/// One histogram of times in nanoseconds, with their exact sum.
#[derive(Clone, Debug)]
pub struct Timing {
    histogram: Histogram<u64>,
    sum_ns: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing::new()
    }
}

impl Timing {
    /// Empty.
    pub fn new() -> Timing {
        let histogram = Histogram::new_with_bounds(NS_MIN, NS_MAX, 3).expect("the bounds are constants that a test uses");
        Timing { histogram, sum_ns: 0 }
    }
    /// Adds one time.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }
    /// Adds the same time so often.
    #[inline]
    pub fn record_many(&mut self, ns: u64, count: u64) {
        self.histogram.saturating_record_n(ns, count);
        self.sum_ns += ns * count;
    }
    /// Adds all of `other`.
    pub fn add(&mut self, other: &Timing) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
        self.sum_ns += other.sum_ns;
    }
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.histogram.reset();
        self.sum_ns = 0;
    }
    /// Times recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }
    /// Their sum in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }
    /// The time that `quantile` (0 to 1) of the requests did not pass, in nanoseconds.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }
    /// The histogram itself, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
    /// The longest, in nanoseconds.
    pub fn max_ns(&self) -> u64 {
        self.histogram.max()
    }
    /// How many were at most as long as each of `bounds_ns` (ascending), not cumulated: the last place holds the rest.
    pub fn counts_between(&self, bounds_ns: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds_ns.len() + 1];
        for bin in self.histogram.iter_recorded() {
            let place = bounds_ns.partition_point(|bound| *bound < bin.value_iterated_to());
            counts[place] += bin.count_since_last_iteration();
        }
        counts
    }
}

/// A slow request with its breakdown.
#[derive(Clone, Copy, Debug)]
pub struct SlowRequest {
    /// What it was.
    pub class: RequestClass,
    /// When it ended, UTC microseconds.
    pub utc_us: i64,
    /// Payload bytes, asked or answered.
    pub bytes: u64,
    /// Its stages.
    pub stamps: Stamps,
}

impl SlowRequest {
    /// From received to replied, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.stamps.replied_ns.saturating_sub(self.stamps.received_ns)
    }
}

/// Timings of one shard since the previous full snapshot.
#[derive(Debug)]
pub struct Interval {
    produce: [Timing; 5],
    fetch: [Timing; 5],
    /// Totals of the classes behind fetch: their stages interest nobody.
    others: [Timing; TOTALS],
    /// Synced log writes, from handing to the ring to completion.
    pub log_write: Timing,
    /// Leases of queue messages, until their ack.
    pub queue_ack: Timing,
    /// Unordered; `slow_floor_ns` is the shortest of them once it is full.
    slow: [SlowRequest; SLOW_KEPT],
    slow_len: usize,
    slow_floor_ns: u64,
}

impl Default for Interval {
    fn default() -> Interval {
        Interval::new()
    }
}

impl Interval {
    /// Empty.
    pub fn new() -> Interval {
        let none = SlowRequest { class: RequestClass::Metadata, utc_us: 0, bytes: 0, stamps: Stamps::default() };
        Interval {
            produce: std::array::from_fn(|_| Timing::new()),
            fetch: std::array::from_fn(|_| Timing::new()),
            others: std::array::from_fn(|_| Timing::new()),
            log_write: Timing::new(),
            queue_ack: Timing::new(),
            slow: [none; SLOW_KEPT],
            slow_len: 0,
            slow_floor_ns: 0,
        }
    }

    /// Records so many requests that took the same time; `bytes` are those of one of them, which stands for all among the slowest.
    #[inline]
    pub fn record(&mut self, class: RequestClass, stamps: &Stamps, count: u64, utc_us: i64, bytes: u64) {
        let stages = stamps.stages();
        match class {
            RequestClass::Produce => record_stages(&mut self.produce, stages, count),
            RequestClass::Fetch => record_stages(&mut self.fetch, stages, count),
            other => {
                if let Some(ns) = stages[Stage::Total as usize] {
                    self.others[other as usize - RequestClass::ListOffsets as usize].record_many(ns, count);
                }
            }
        }
        self.keep_if_slow(SlowRequest { class, utc_us, bytes, stamps: *stamps });
    }

    #[inline]
    fn keep_if_slow(&mut self, request: SlowRequest) {
        let total_ns = request.total_ns();
        if self.slow_len < SLOW_KEPT {
            self.slow[self.slow_len] = request;
            self.slow_len += 1;
        } else if total_ns > self.slow_floor_ns {
            let shortest = (0..SLOW_KEPT).min_by_key(|i| self.slow[*i].total_ns()).unwrap_or(0);
            self.slow[shortest] = request;
        } else {
            return;
        }
        if self.slow_len == SLOW_KEPT {
            self.slow_floor_ns = self.slow.iter().map(SlowRequest::total_ns).min().unwrap_or(0);
        }
    }

    /// The timings of a class and stage, where they are kept.
    pub fn timing(&self, class: RequestClass, stage: Stage) -> Option<&Timing> {
        match (class, stage) {
            (RequestClass::Produce, _) => Some(&self.produce[stage as usize]),
            (RequestClass::Fetch, _) => Some(&self.fetch[stage as usize]),
            (_, Stage::Total) => Some(&self.others[class as usize - RequestClass::ListOffsets as usize]),
            _ => None,
        }
    }

    /// Every timing and its name: `produce.total` and so on, `log_write`, `queue_ack`.
    pub fn named(&self) -> impl Iterator<Item = (String, &Timing)> {
        let of_class = |class: RequestClass| Stage::ALL.into_iter().map(move |stage| (class, stage));
        let classes = RequestClass::ALL.into_iter().flat_map(of_class);
        let by_stage =
            classes.filter_map(|(class, stage)| Some((format!("{}.{}", class.name(), stage.name()), self.timing(class, stage)?)));
        by_stage.chain([("log_write".to_owned(), &self.log_write), ("queue_ack".to_owned(), &self.queue_ack)])
    }

    /// The slowest requests, in no order.
    pub fn slowest(&self) -> impl Iterator<Item = &SlowRequest> {
        self.slow[..self.slow_len].iter()
    }

    /// Adds all timings of `other` (not its slowest requests: whoever adds up over time has an own list of those).
    pub fn add(&mut self, other: &Interval) {
        for (mine, theirs) in self.all_mut().zip(other.all()) {
            mine.add(theirs);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.all_mut().for_each(Timing::clear);
        self.slow_len = 0;
        self.slow_floor_ns = 0;
    }

    fn all(&self) -> impl Iterator<Item = &Timing> {
        self.produce.iter().chain(&self.fetch).chain(&self.others).chain([&self.log_write, &self.queue_ack])
    }
    fn all_mut(&mut self) -> impl Iterator<Item = &mut Timing> {
        self.produce.iter_mut().chain(&mut self.fetch).chain(&mut self.others).chain([&mut self.log_write, &mut self.queue_ack])
    }
}

#[inline]
fn record_stages(timings: &mut [Timing; 5], stages: [Option<u64>; 5], count: u64) {
    for (timing, took) in timings.iter_mut().zip(stages) {
        if let Some(ns) = took {
            timing.record_many(ns, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(total_ns: u64) -> Stamps {
        Stamps { received_ns: 1, replied_ns: 1 + total_ns, ..Stamps::default() }
    }

    #[test]
    fn stages_add_up_also_when_one_is_missing() {
        let full = Stamps { received_ns: 100, parsed_ns: 110, appended_ns: 150, written_ns: 1_150, replied_ns: 1_160 };
        assert_eq!(full.stages(), [Some(10), Some(40), Some(1_000), Some(10), Some(1_060)]);
        let weak = Stamps { written_ns: 0, replied_ns: 170, ..full };
        assert_eq!(weak.stages(), [Some(10), Some(40), None, Some(20), Some(70)]);
        let backwards = Stamps { received_ns: 100, parsed_ns: 90, replied_ns: 120, ..Stamps::default() };
        assert_eq!(backwards.stages(), [Some(0), None, None, Some(20), Some(20)]);
    }

    #[test]
    fn quantiles_are_right_to_three_digits_and_the_top_saturates() {
        let mut timing = Timing::new();
        (1..=1000).for_each(|i| timing.record(i * 1_000));
        let p50 = timing.quantile_ns(0.5);
        assert!((499_500..=501_000).contains(&p50), "{p50}");
        timing.record(u64::MAX >> 8);
        assert!(timing.max_ns() >= NS_MAX && timing.max_ns() < 2 * NS_MAX);
        assert_eq!(timing.count(), 1001);
    }

    #[test]
    fn counts_between_bounds_hold_every_record() {
        let mut timing = Timing::new();
        [10_000, 20_000, 300_000, 5_000_000].into_iter().for_each(|ns| timing.record(ns));
        assert_eq!(timing.counts_between(&[50_000, 1_000_000]), [2, 1, 1]);
    }

    #[test]
    fn the_slowest_are_kept() {
        let mut interval = Interval::new();
        for i in 0..1_000u64 {
            interval.record(RequestClass::Fetch, &took((i * 7_919) % 1_000 + 1), 1, i as i64, 0);
        }
        let mut kept: Vec<u64> = interval.slowest().map(SlowRequest::total_ns).collect();
        kept.sort_unstable();
        assert_eq!(kept, (985..=1_000).collect::<Vec<_>>());
        interval.clear();
        assert_eq!(interval.slowest().count(), 0);
        assert_eq!(interval.timing(RequestClass::Fetch, Stage::Total).unwrap().count(), 0);
    }

    #[test]
    fn intervals_add_up() {
        let (mut a, mut b) = (Interval::new(), Interval::new());
        a.record(RequestClass::Admin, &took(500), 1, 0, 0);
        b.record(RequestClass::Admin, &took(1_500), 1, 0, 0);
        b.log_write.record(9_000);
        a.add(&b);
        let total = a.timing(RequestClass::Admin, Stage::Total).unwrap();
        assert_eq!((total.count(), total.sum_ns(), a.log_write.count()), (2, 2_000, 1));
        assert!(a.timing(RequestClass::Admin, Stage::Write).is_none());
    }
}
