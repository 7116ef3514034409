//! What three replicas cost beside one: throughput and round trips of durable produce, and what goes between the nodes for it.
//!
//! Invariants: load, batches and window are those of the single node, which is halted while the cluster is measured. The cluster stands idle, its
//! pools full, while the single node is measured. Bytes between nodes are counted until every replica has all that was produced.
//!
//! Not here: how the nodes are started (`cluster.rs`), the loads themselves (`produce.rs`, `rtt.rs`).

use crate::batches::BATCH_BYTES;
use crate::cluster::{Cluster, NODES};
use crate::error::BenchError;
use crate::many::keeps;
use crate::measures::{Figure, Measure};
use crate::produce::{self, Throughput, Until};
use crate::runs::{Pair, RETENTION_BYTES, Runs, round_trip, write};
use crate::target::{self, Target};
use std::time::Duration;
use tramline_wire::level::Level;

/// Each byte goes to every replica but the leader's; heads, acks and beats may add 3 % (docs/REPLICATION.md, 3.3).
const NETWORK_RATIO: f64 = (NODES - 1) as f64 * 1.03;

impl Runs {
    /// One of the measures with three nodes. They are kept for the next one, unless this one fails.
    pub fn replicated(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let cluster = match self.cluster.take() {
            Some(cluster) => cluster,
            None => Cluster::start(&self.own, &self.settings, self.limits.cpus[1], self.pool_segments)?,
        };
        let name = format!("bench-{}", measure.name());
        let settings = keeps(RETENTION_BYTES, 1);
        let replicated = cluster.topic(&name, &settings)?;
        let pairs = if measure == Measure::ReplicatedNetworkRatio {
            self.network_ratio(measure, &cluster, &replicated)?
        } else {
            let address = self.broker.address.clone();
            let single = self.awake(|runs| {
                runs.broker.wait_for_pool(runs.pool_segments)?;
                target::create(&address, &name, 1, &settings)
            })?;
            let pairs = self.beside_a_single_node(measure, &cluster, &replicated, &single)?;
            self.awake(|_| target::delete(&address, &single))?;
            pairs
        };
        cluster.delete(&replicated)?;
        self.cluster = Some(cluster);
        Ok(pairs)
    }

    fn beside_a_single_node(
        &mut self,
        measure: Measure,
        cluster: &Cluster,
        replicated: &Target,
        single: &Target,
    ) -> Result<Vec<Pair>, BenchError> {
        let (window, time, pool_segments) = (self.window, self.time, self.pool_segments);
        match measure {
            Measure::ReplicatedDurableRtt => self.alternate(
                measure,
                |runs| runs.awake(|_| round_trip(single, Level::Durable, time)),
                |_| round_trip(replicated, Level::Durable, time),
            ),
            _ => self.alternate(
                measure,
                |runs| runs.awake(|_| write(single, window, time)),
                |_| {
                    let (seen, _) = load(cluster, replicated, window, time)?;
                    cluster.wait_for_pools(pool_segments)?;
                    Ok(Figure { value: seen.gbps, p99_us: Some(seen.latency.p99_us) })
                },
            ),
        }
    }

    /// The same load, and the bytes between nodes for each byte of it.
    fn network_ratio(&mut self, measure: Measure, cluster: &Cluster, replicated: &Target) -> Result<Vec<Pair>, BenchError> {
        (0..self.pairs)
            .map(|_| {
                self.beside_a_constant(measure, |runs| {
                    let (_, ratio) = load(cluster, replicated, runs.window, runs.time)?;
                    cluster.wait_for_pools(runs.pool_segments)?;
                    Ok((ratio, NETWORK_RATIO))
                })
            })
            .collect()
    }

    /// Lets the single node run meanwhile.
    fn awake<T>(&mut self, run: impl FnOnce(&mut Runs) -> Result<T, BenchError>) -> Result<T, BenchError> {
        self.broker.resume()?;
        let done = run(self);
        self.broker.pause()?;
        done
    }
}

/// Durable produce in a closed loop; also answers how many bytes went between nodes for each byte produced, what warms up included, until all
/// replicas have it.
fn load(cluster: &Cluster, target: &Target, window: usize, time: Duration) -> Result<(Throughput, f64), BenchError> {
    let before = cluster.counted()?;
    let seen = produce::throughput(target, BATCH_BYTES, window, Until::Time(time))?;
    let after = cluster.wait_for_replicas(&before, seen.batches)?;
    let (sent, produced) = (after.sent_bytes - before.sent_bytes, seen.bytes as f64);
    eprintln!(
        "tramline-bench:   {:.3} GB/s, p99 {:.0} us; {:.1} MB between nodes for {:.1} MB produced: {:.4}{}",
        seen.gbps,
        seen.latency.p99_us,
        sent / 1e6,
        produced / 1e6,
        sent / produced,
        after.events_since(&before)
    );
    Ok((seen, sent / produced))
}
