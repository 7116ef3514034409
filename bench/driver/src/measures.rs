//! What is measured, against which limit, and what counts as reached.
//!
//! Invariants: the names are those of the project's targets and of `latest.json`; a bound is made only of figures that
//! `tramline-limits` measured in the same pair.
//!
//! Not here: how a measurement is done (`rtt.rs`, `produce.rs`, `fetch.rs`, `replay.rs`) and in which order (`main.rs`).

use clap::ValueEnum;
use std::collections::BTreeMap;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Measure {
    /// 1 KiB record, one in flight, through an idempotent producer that busy-polls, level `leader`.
    ProduceLeaderRtt,
    /// The same over a bare connection of the client, with a request that is made once.
    ProduceLeaderRttBare,
    /// The same at level `durable`.
    ProduceDurableRtt,
    /// 1 KiB records in 64 KiB batches, enough in flight, level `durable`.
    DurableThroughput,
    /// Latency at half of that, open loop: the slowest thousandth, against raw synced writes of the same sizes at the same rate.
    #[value(name = "durable_half_load_p999")]
    DurableHalfLoadP999,
    /// 64 KiB batches, durable, over 1,000 partitions, against itself over one.
    #[value(name = "partitions_1000")]
    Partitions1000,
    /// One stream from the tail cache.
    TailFetchThroughput,
    /// One stream from the disk, checksums checked, data four times the cache.
    ColdFetchThroughput,
    /// 64 KiB batches over 10,000 partitions, against the same over one.
    #[value(name = "partitions_10000_throughput")]
    Partitions10000Throughput,
    /// The same with batches of one record of 1 KiB.
    #[value(name = "partitions_10000_small")]
    Partitions10000Small,
    /// Latency at a third of the throughput, open loop, over 10,000 partitions, against the same over one.
    #[value(name = "partitions_10000_p99")]
    Partitions10000P99,
    /// 64 records sent, received and acknowledged, all durable, against only sending them.
    QueueCycle,
    /// The same over a thousand queues, against itself over one.
    #[value(name = "queues_1000")]
    Queues1000,
    /// From the sending of a record until a queue's waiting consumer has it, against a streaming one.
    QueueReceiveLatency,
    /// Latency at a third of the throughput, open loop, while consumers replay cold data, against raw writes beside raw reads.
    ReplayDisturbanceP99,
    /// The same while the sorter works through a backlog, against the same without.
    SorterDisturbanceP99,
    /// Ten times the pool of segments over 10,000 partitions, sorted, against the same bytes over one.
    #[value(name = "partitions_10000_sustained")]
    Partitions10000Sustained,
    /// Memory of an idle node with 10,000 partitions, against its budgets and 256 MiB.
    MemoryIdleMib,
    /// Growth of memory at half load.
    MemoryGrowthMib,
    /// Start after a kill under load, with 10,000 partitions and 1 GiB of data.
    #[value(name = "startup_10000_1gib_s")]
    Startup1Gib,
    /// The same with 4 GiB.
    #[value(name = "startup_10000_4gib_s")]
    Startup4Gib,
    /// The same with 10 GiB.
    #[value(name = "startup_10000_10gib_s")]
    Startup10Gib,
    /// What an idempotent producer costs per record of 100 bytes, in memory: batching, checksums, completion.
    ClientOverheadNsPerRecord,
    /// Records of 100 bytes from one core into a sink in another process.
    LoadgenNullSink,
    /// 400 connections with a record in flight each, keyed over 100 partitions, durable, against one connection with 400 in flight.
    ManyProducers,
    /// Longest delay of records in partitions that stay with their member while another one joins a group of 100 over 1,000 partitions, against one heartbeat.
    GroupJoinPause,
    /// How late a delayed message comes to a consumer that waits, on an idle broker that spins, against 2 ms.
    QueueDelayLate,
    /// Bytes of memory of each of ten million messages of a queue under lease, also when half of them were acknowledged in random order, against 64.
    QueueHoles,
    /// Latency of durable produce while a million messages of a queue are acknowledged in random order and segments sealed, against the same without.
    QueueStallP99,
    /// `durable_throughput` into a topic of three replicas on three nodes, against one node.
    ReplicatedDurableThroughput,
    /// Bytes between the nodes per byte produced under the same load, against two and 3 %.
    ReplicatedNetworkRatio,
    /// `produce_durable_rtt_p50` into a topic of three replicas on three nodes, against one node.
    #[value(name = "replicated_durable_rtt_p50")]
    ReplicatedDurableRtt,
}

/// What a ratio (broker to limit) has to be.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// No less.
    pub at_least: Option<f64>,
    /// No more.
    pub at_most: Option<f64>,
}

impl Goal {
    /// The words of one that asks for nothing.
    pub const REPORTED: &str = "reported";
    /// It.
    pub const NONE: Goal = Goal { at_least: None, at_most: None };

    /// Whether `ratio` reaches it.
    pub fn reached(&self, ratio: f64) -> bool {
        self.at_least.is_none_or(|least| ratio >= least) && self.at_most.is_none_or(|most| ratio <= most)
    }

    /// In words, for the table.
    pub fn words(&self) -> String {
        match (self.at_least, self.at_most) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            (None, None) => Goal::REPORTED.to_owned(),
        }
    }
}

/// A limit or a result: the figure compared, and the 99th percentile beside it.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Microseconds (a median) or 10^9 bytes per second.
    pub value: f64,
    /// 99th percentile of the latency, microseconds.
    pub p99_us: Option<f64>,
}

impl Measure {
    /// Name of the compared figure.
    pub fn name(self) -> &'static str {
        match self {
            Measure::ProduceLeaderRtt => "produce_leader_rtt_p50",
            Measure::ProduceLeaderRttBare => "produce_leader_rtt_bare_p50",
            Measure::ProduceDurableRtt => "produce_durable_rtt_p50",
            Measure::DurableThroughput => "durable_throughput",
            Measure::DurableHalfLoadP999 => "durable_half_load_p999",
            Measure::ManyProducers => "many_producers",
            Measure::Partitions1000 => "partitions_1000",
            Measure::TailFetchThroughput => "tail_fetch_throughput",
            Measure::ColdFetchThroughput => "cold_fetch_throughput",
            Measure::Partitions10000Throughput => "partitions_10000_throughput",
            Measure::Partitions10000Small => "partitions_10000_small",
            Measure::Partitions10000P99 => "partitions_10000_p99",
            Measure::ReplayDisturbanceP99 => "replay_disturbance_p99",
            Measure::SorterDisturbanceP99 => "sorter_disturbance_p99",
            Measure::Partitions10000Sustained => "partitions_10000_sustained",
            Measure::MemoryIdleMib => "memory_idle_mib",
            Measure::MemoryGrowthMib => "memory_growth_mib",
            Measure::Startup1Gib => "startup_10000_1gib_s",
            Measure::Startup4Gib => "startup_10000_4gib_s",
            Measure::Startup10Gib => "startup_10000_10gib_s",
            Measure::ClientOverheadNsPerRecord => "client_overhead_ns_per_record",
            Measure::LoadgenNullSink => "loadgen_null_sink",
            Measure::GroupJoinPause => "group_join_pause",
            Measure::QueueDelayLate => "queue_delay_late",
            Measure::QueueCycle => "queue_cycle",
            Measure::Queues1000 => "queues_1000",
            Measure::QueueReceiveLatency => "queue_receive_latency_p50",
            Measure::QueueHoles => "queue_holes",
            Measure::QueueStallP99 => "queue_stall_p99",
            Measure::ReplicatedDurableThroughput => "replicated_durable_throughput",
            Measure::ReplicatedNetworkRatio => "replicated_network_ratio",
            Measure::ReplicatedDurableRtt => "replicated_durable_rtt_p50",
        }
    }

    /// Whether a broker of its own is started for it, with settings or an age of its own, or none.
    pub fn has_own_broker(self) -> bool {
        self >= Measure::SorterDisturbanceP99
    }

    /// Whether three nodes are started for it.
    pub fn is_replicated(self) -> bool {
        matches!(self, Measure::ReplicatedDurableThroughput | Measure::ReplicatedNetworkRatio | Measure::ReplicatedDurableRtt)
    }

    /// Whether a high percentile is what is compared.
    pub fn is_p99(self) -> bool {
        matches!(
            self,
            Measure::DurableHalfLoadP999
                | Measure::Partitions10000P99
                | Measure::ReplayDisturbanceP99
                | Measure::SorterDisturbanceP99
                | Measure::QueueStallP99
        )
    }

    /// How long it takes on a machine left alone, in seconds, as far as seen.
    pub fn expected_s(self) -> u64 {
        match self {
            Measure::ProduceLeaderRtt | Measure::ProduceLeaderRttBare => 20,
            Measure::ProduceDurableRtt | Measure::DurableThroughput | Measure::ColdFetchThroughput => 60,
            Measure::Partitions1000 | Measure::TailFetchThroughput => 30,
            Measure::DurableHalfLoadP999 => 60,
            Measure::ManyProducers => 40,
            Measure::Partitions10000Throughput | Measure::Partitions10000Small => 30,
            Measure::Partitions10000P99 => 30,
            Measure::ReplayDisturbanceP99 => 45,
            Measure::SorterDisturbanceP99 => 75,
            Measure::Partitions10000Sustained => 60,
            Measure::MemoryIdleMib => 15,
            Measure::MemoryGrowthMib => 55,
            Measure::Startup1Gib | Measure::Startup4Gib => 20,
            Measure::Startup10Gib => 30,
            Measure::ClientOverheadNsPerRecord => 10,
            Measure::LoadgenNullSink => 30,
            Measure::GroupJoinPause => 45,
            Measure::QueueDelayLate => 20,
            Measure::QueueCycle | Measure::QueueReceiveLatency => 20,
            Measure::Queues1000 => 60,
            Measure::QueueHoles => 120,
            Measure::QueueStallP99 => 100,
            Measure::ReplicatedDurableThroughput => 60,
            Measure::ReplicatedNetworkRatio | Measure::ReplicatedDurableRtt => 30,
        }
    }

    /// Name of the 99th percentile beside it.
    pub fn p99_name(self) -> String {
        match self {
            Measure::ProduceLeaderRtt => "produce_leader_rtt_p99".to_owned(),
            Measure::ProduceLeaderRttBare => "produce_leader_rtt_bare_p99".to_owned(),
            Measure::ProduceDurableRtt => "produce_durable_rtt_p99".to_owned(),
            Measure::QueueReceiveLatency => "queue_receive_latency_p99".to_owned(),
            Measure::QueueStallP99 => "queue_stall_longest".to_owned(),
            Measure::ReplicatedDurableRtt => "replicated_durable_rtt_p99".to_owned(),
            Measure::DurableHalfLoadP999 => "durable_half_load_p99".to_owned(),
            other => format!("{}_latency_p99_us", other.name()),
        }
    }

    /// Unit of the figure.
    pub fn unit(self) -> &'static str {
        match self {
            Measure::ProduceLeaderRtt | Measure::ProduceLeaderRttBare | Measure::ProduceDurableRtt | Measure::ReplicatedDurableRtt => "us",
            Measure::QueueReceiveLatency | Measure::QueueStallP99 => "us",
            Measure::QueueCycle | Measure::Queues1000 | Measure::ManyProducers => "10^3/s",
            Measure::DurableHalfLoadP999 => "us",
            Measure::QueueHoles => "bytes",
            Measure::ReplicatedNetworkRatio => "B/B",
            Measure::Partitions10000P99 | Measure::ReplayDisturbanceP99 | Measure::SorterDisturbanceP99 => "us",
            Measure::MemoryIdleMib | Measure::MemoryGrowthMib => "MiB",
            Measure::Startup1Gib | Measure::Startup4Gib | Measure::Startup10Gib => "s",
            Measure::ClientOverheadNsPerRecord => "ns",
            Measure::LoadgenNullSink => "10^6/s",
            Measure::GroupJoinPause | Measure::QueueDelayLate => "ms",
            _ => "GB/s",
        }
    }

    /// What the ratio has to be.
    pub fn goal(self) -> Goal {
        let (at_least, at_most) = match self {
            Measure::ProduceLeaderRtt => (None, Some(1.25)),
            Measure::ProduceLeaderRttBare => (None, None),
            // Below 0.85 the acknowledgement cannot have waited for the disk.
            Measure::ProduceDurableRtt => (Some(0.85), Some(1.15)),
            Measure::DurableThroughput => (Some(0.7), None),
            Measure::DurableHalfLoadP999 => (None, Some(2.0)),
            Measure::ManyProducers => (Some(0.5), None),
            Measure::Partitions1000 => (Some(0.9), None),
            Measure::TailFetchThroughput => (Some(0.8), None),
            Measure::ColdFetchThroughput => (Some(0.75), None),
            Measure::Partitions10000Throughput => (Some(0.9), None),
            Measure::Partitions10000Small | Measure::Partitions10000P99 | Measure::Partitions10000Sustained => (None, None),
            Measure::ReplayDisturbanceP99 | Measure::SorterDisturbanceP99 => (None, Some(2.0)),
            // Their limits are absolute.
            Measure::MemoryIdleMib | Measure::MemoryGrowthMib | Measure::GroupJoinPause | Measure::QueueDelayLate => (None, Some(1.0)),
            Measure::Startup1Gib | Measure::Startup4Gib | Measure::Startup10Gib => (None, Some(1.0)),
            Measure::ClientOverheadNsPerRecord => (None, None),
            Measure::LoadgenNullSink => (Some(1.0), None),
            Measure::QueueCycle => (Some(0.25), None),
            Measure::Queues1000 => (Some(0.9), None),
            Measure::QueueReceiveLatency => (None, Some(1.3)),
            Measure::QueueHoles => (None, Some(1.0)),
            Measure::QueueStallP99 => (None, Some(2.0)),
            // What one disk for three nodes, and processors that they share, leave of one node's figures says more about the machine than about the broker.
            Measure::ReplicatedDurableThroughput | Measure::ReplicatedDurableRtt => (None, None),
            // The limit has the 3 % already.
            Measure::ReplicatedNetworkRatio => (None, Some(1.0)),
        };
        Goal { at_least, at_most }
    }

    /// What `tramline-limits` has to measure for it; nothing where the broker is compared with itself.
    pub fn limits(self) -> Option<&'static str> {
        match self {
            Measure::ProduceLeaderRtt | Measure::ProduceLeaderRttBare => Some("tcp-rtt"),
            Measure::ProduceDurableRtt => Some("tcp-rtt,write-4k,durable-rtt"),
            Measure::DurableThroughput => Some("tcp-stream,tcp-stream-crc,write-128k,write-1m,durable-stream"),
            Measure::TailFetchThroughput => Some("tcp-stream"),
            Measure::ColdFetchThroughput => Some("tcp-stream,cold-stream,read"),
            Measure::DurableHalfLoadP999 => Some("open-writes"),
            Measure::ReplayDisturbanceP99 => Some("write-beside-reads"),
            _ => None,
        }
    }

    /// The limit made of what was measured; `None` when a figure is missing.
    pub fn bound(self, limits: &BTreeMap<String, f64>) -> Option<Figure> {
        let get = |name: &str| limits.get(name).copied();
        let smaller = |a: f64, b: f64| Some(Figure { value: a.min(b), p99_us: None });
        match self {
            Measure::ProduceLeaderRtt | Measure::ProduceLeaderRttBare => {
                Some(Figure { value: get("tcp_rtt_p50_us")?, p99_us: get("tcp_rtt_p99_us") })
            }
            // Sums of quantiles: exact for medians of near-constant parts, an upper bound in spirit for the p99.
            Measure::ProduceDurableRtt => Some(Figure {
                value: get("tcp_rtt_p50_us")? + get("write_4k_p50_us")?,
                p99_us: Some(get("tcp_rtt_p99_us")? + get("write_4k_p99_us")?),
            }),
            Measure::DurableThroughput => {
                let writes = get("write_128k_gbps")?.max(get("write_1m_gbps")?);
                Some(Figure { p99_us: get("write_1m_p99_us"), ..smaller(get("tcp_stream_in_gbps")?, writes)? })
            }
            Measure::TailFetchThroughput => smaller(get("tcp_stream_out_gbps")?, f64::MAX),
            Measure::ColdFetchThroughput => smaller(get("tcp_stream_out_gbps")?, get("read_gbps")?),
            Measure::DurableHalfLoadP999 => Some(Figure { value: get("open_p999_us")?, p99_us: get("open_p99_us") }),
            Measure::ReplayDisturbanceP99 => Some(Figure { value: get("beside_p99_us")?, p99_us: None }),
            _ => None,
        }
    }

    /// Further figures it is worth being compared with, not gated: name of the comparison, and the figure.
    pub fn cross_checks(self, limits: &BTreeMap<String, f64>) -> Vec<(&'static str, f64)> {
        let get = |name: &str| limits.get(name).copied();
        let found = match self {
            // One request through a ring, a disk and back, with nothing of the broker.
            Measure::ProduceDurableRtt => vec![("produce_durable_rtt_to_raw_chain", get("durable_rtt_p50_us"))],
            Measure::DurableThroughput => vec![
                // The stream when its receiver sums and copies, which a broker has to.
                ("durable_throughput_to_summing_stream", get("tcp_stream_crc_in_gbps")),
                // Receive, sum, copy, write, acknowledge on one core, with nothing else.
                ("durable_throughput_to_raw_chain", get("durable_stream_gbps")),
            ],
            // Read, sum, send on one core, receive, sum, copy on the other, with nothing else.
            Measure::ColdFetchThroughput => vec![("cold_fetch_to_raw_chain", get("cold_stream_gbps"))],
            _ => Vec::new(),
        };
        found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_ack_that_is_too_fast_fails_too() {
        let goal = Measure::ProduceDurableRtt.goal();
        assert!(goal.reached(1.0) && goal.reached(1.15) && goal.reached(0.85));
        assert!(!goal.reached(0.84) && !goal.reached(1.16));
        assert!(Measure::DurableThroughput.goal().reached(0.7) && !Measure::DurableThroughput.goal().reached(0.69));
    }

    #[test]
    fn of_replication_only_the_network_has_a_target() {
        assert!(Measure::ReplicatedNetworkRatio.goal().reached(1.0) && !Measure::ReplicatedNetworkRatio.goal().reached(1.001));
        for reported in [Measure::ReplicatedDurableThroughput, Measure::ReplicatedDurableRtt] {
            assert_eq!(reported.goal().words(), Goal::REPORTED);
        }
        // Whoever shares the nodes follows one another, and halts the broker of the others.
        let with_nodes: Vec<bool> = Measure::value_variants().iter().map(|measure| measure.is_replicated()).collect();
        assert!(with_nodes.is_sorted());
        assert!(Measure::value_variants().iter().all(|measure| measure.has_own_broker() || !measure.is_replicated()));
    }

    #[test]
    fn bounds_take_the_smaller_limit_and_refuse_missing_figures() {
        let limits: BTreeMap<String, f64> =
            [("tcp_stream_in_gbps", 3.0), ("write_128k_gbps", 1.0), ("write_1m_gbps", 2.0)].map(|(k, v)| (k.to_owned(), v)).into();
        assert_eq!(Measure::DurableThroughput.bound(&limits).map(|bound| bound.value), Some(2.0));
        assert!(Measure::ColdFetchThroughput.bound(&limits).is_none());
    }
}
