//! One round of one peer in one class: start it, measure every cell, stop it.
//!
//! Invariants: each cell has a time limit; what fails is told with its reason and does not keep the next cell from being measured, unless the broker is gone; at the end the
//! broker is asked whether it has what it acknowledged. Not here: order of rounds (`campaign.rs`), what a cell does with a producer (`load/`).

use std::time::{Duration, Instant};

use crate::adapters::{kafka::Kafka, nats::Nats, rabbit::Rabbit, redis::Redis, tramline::Tramline};
use crate::fault::{Fallible, Told, fault};
use crate::kinds::{Cell, Class, PeerKind, why_not};
use crate::load::figures::Figures;
use crate::load::flow::{Flow, Load, OPEN_WINDOW};
use crate::load::payload::Payload;
use crate::load::{cycle, ends};
use crate::machine;
use crate::peer::{Consumer, Peer, Purpose};
use crate::servers::{Server, Setup};
use crate::syncs::Counter;

/// Windows that are tried for the highest throughput; the best counts. One that is too small starves the broker, one that is too large fills its buffers.
const WINDOWS: [usize; 3] = [256, 2_048, 16_384];
/// Most bytes that one trial writes, so that a fast peer does not fill the disk.
const TRIAL_BYTES_MAX: u64 = 4 << 30;
/// Records of the count of syncs, and before it.
const SYNC_RECORDS: u64 = 200;
const SYNC_WARM_RECORDS: u64 = 50;
/// What a cell may take beyond its load: making and removing a thousand partitions, and draining.
const CELL_PATIENCE: Duration = Duration::from_secs(120);
/// How long connecting may fail before a broker counts as one that does not start.
const READY_PATIENCE: Duration = Duration::from_secs(90);

/// What is the same for all.
#[derive(Debug, Clone)]
pub struct Options {
    /// Measured time of a trial.
    pub length: Duration,
    /// Before it.
    pub warm_up: Duration,
    /// Of each record.
    pub record_bytes: usize,
    /// Of payloads.
    pub seed: u64,
    /// What is measured.
    pub cells: Vec<Cell>,
}

/// Told of each cell as it ends.
pub type Tell<'a> = &'a mut dyn FnMut(Cell, Fallible<Figures>);

/// Measures one peer; an error when it did not start, or ended before its time.
pub async fn run(kind: PeerKind, class: Class, setup: &Setup, options: &Options, tell: Tell<'_>) -> Fallible<()> {
    match kind {
        PeerKind::Tramline => run_as::<Tramline>(kind, class, setup, options, tell).await,
        PeerKind::Nats => run_as::<Nats>(kind, class, setup, options, tell).await,
        PeerKind::Redis => run_as::<Redis>(kind, class, setup, options, tell).await,
        PeerKind::RabbitStream | PeerKind::RabbitQuorum => run_as::<Rabbit>(kind, class, setup, options, tell).await,
        PeerKind::Kafka => run_as::<Kafka>(kind, class, setup, options, tell).await,
    }
}

async fn run_as<P: Peer>(kind: PeerKind, class: Class, setup: &Setup, options: &Options, tell: Tell<'_>) -> Fallible<()> {
    let mut server = Server::start(kind, class, setup, READY_PATIENCE).await?;
    let peer = connect::<P>(&mut server).await?;
    let mut round = Round { peer, server, setup, options, shared: None, topic_count: 0 };
    for &cell in &options.cells {
        if why_not(kind, class, Some(cell)).is_some() {
            continue;
        }
        let limit = CELL_PATIENCE + (options.warm_up + options.length) * (WINDOWS.len() as u32);
        let measured = match tokio::time::timeout(limit, round.cell(cell)).await {
            Ok(measured) => measured,
            Err(_) => fault(format!("given up after {} s", limit.as_secs())),
        };
        let has_failed = measured.is_err();
        tell(cell, measured);
        round.server.check_alive()?;
        if has_failed {
            // Some clients give a connection up with the request that was refused: the cells behind it are measured over another one.
            round.peer = connect::<P>(&mut round.server).await?;
        }
    }
    let Round { peer, server, .. } = round;
    drop(peer);
    server.stop()
}

/// Tries until the broker answers as a broker.
async fn connect<P: Peer>(server: &mut Server) -> Fallible<P> {
    let since = Instant::now();
    loop {
        let refused = match tokio::time::timeout(Duration::from_secs(10), P::connect(&server.reach)).await {
            Ok(Ok(peer)) => return Ok(peer),
            Ok(Err(refused)) => refused.0,
            Err(_) => "no answer in 10 s".to_owned(),
        };
        server.check_alive()?;
        if since.elapsed() > READY_PATIENCE {
            return fault(format!("not ready after {} s: {refused}; {}", READY_PATIENCE.as_secs(), server.log_tail()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A topic and what went into it.
#[derive(Debug, Clone)]
struct Topic {
    name: String,
    partitions: u32,
    sent: u64,
    acknowledged: u64,
}

struct Round<'a, P> {
    peer: P,
    server: Server,
    setup: &'a Setup,
    options: &'a Options,
    /// Many partitions are made once for all cells that want as many.
    shared: Option<Topic>,
    topic_count: u32,
}

impl<P: Peer> Round<'_, P> {
    async fn cell(&mut self, cell: Cell) -> Fallible<Figures> {
        let (cpu_before, own_before) = (machine::cpu_us(self.server.pid())?, machine::cpu_us(std::process::id())?);
        let mut topic = self.topic(cell.partitions()).await?;
        let mut figures = match cell {
            Cell::OneInFlight => self.flow(&mut topic, self.load(None, 1), Purpose::Latency).await?,
            Cell::Open { rate_per_s, .. } => self.flow(&mut topic, self.load(Some(rate_per_s), OPEN_WINDOW), Purpose::Latency).await?,
            Cell::Max { .. } => self.highest(&mut topic).await?,
            Cell::EndToEnd { rate_per_s } => self.ends(&mut topic, rate_per_s).await?,
            Cell::QueueCycle => self.cycle(&topic).await?,
            Cell::Syncs => self.syncs(&mut topic).await?,
        };
        let per_record = |before: u64, after: u64| (topic.sent > 0).then(|| (after - before) as f64 / topic.sent as f64);
        if matches!(cell, Cell::Max { .. } | Cell::OneInFlight) && topic.partitions == 1 {
            figures.broker_cpu_us_per_record = per_record(cpu_before, machine::cpu_us(self.server.pid())?);
            figures.client_cpu_us_per_record = per_record(own_before, machine::cpu_us(std::process::id())?);
        }
        self.check_stored(&topic).await?;
        self.keep_or_remove(topic).await?;
        Ok(figures)
    }

    fn load(&self, rate_per_s: Option<u32>, window: usize) -> Load {
        Load {
            rate_per_s: rate_per_s.map(f64::from),
            window,
            partitions: 1,
            warm_up: self.options.warm_up,
            length: self.options.length,
            records_max: TRIAL_BYTES_MAX / self.options.record_bytes as u64,
        }
    }

    async fn topic(&mut self, partitions: u32) -> Fallible<Topic> {
        if let Some(shared) = self.shared.take() {
            if shared.partitions == partitions {
                return Ok(shared);
            }
            self.peer.remove(&shared.name, shared.partitions).await?;
        }
        self.topic_count += 1;
        let topic = Topic { name: format!("t{}", self.topic_count), partitions, sent: 0, acknowledged: 0 };
        self.peer.create(&topic.name, partitions).await?;
        Ok(topic)
    }

    async fn keep_or_remove(&mut self, topic: Topic) -> Fallible<()> {
        if topic.partitions > 1 {
            self.shared = Some(topic);
            return Ok(());
        }
        self.peer.remove(&topic.name, topic.partitions).await
    }

    async fn flow(&self, topic: &mut Topic, load: Load, purpose: Purpose) -> Fallible<Figures> {
        let mut producer = self.peer.producer(&topic.name, topic.partitions, purpose).await?;
        self.flow_with(&mut producer, topic, load).await
    }

    async fn flow_with(&self, producer: &mut P::Producer, topic: &mut Topic, load: Load) -> Fallible<Figures> {
        let mut payload = Payload::new(self.options.record_bytes, self.options.seed);
        let load = Load { partitions: topic.partitions, ..load };
        let (figures, sent) = Flow::new(producer, &mut payload, load, Instant::now())?.run().await?;
        topic.sent += sent;
        topic.acknowledged += sent - figures.failed - figures.unfinished;
        Ok(figures)
    }

    /// The best of several windows, each with a producer of its own.
    async fn highest(&self, topic: &mut Topic) -> Fallible<Figures> {
        let mut best: Option<Figures> = None;
        for window in WINDOWS {
            let figures = self.flow(topic, self.load(None, window), Purpose::Throughput).await?;
            if best.as_ref().is_none_or(|best| figures.rate_per_s > best.rate_per_s) {
                best = Some(figures);
            }
        }
        best.map_or_else(|| fault("no window was tried"), Ok)
    }

    async fn ends(&self, topic: &mut Topic, rate_per_s: u32) -> Fallible<Figures> {
        let mut consumer = self.peer.consumer(&topic.name).await?;
        let mut producer = self.peer.producer(&topic.name, 1, Purpose::Latency).await?;
        let load = self.load(Some(rate_per_s), OPEN_WINDOW);
        let figures = ends::run(&mut producer, &mut consumer, load, self.options.record_bytes, self.options.seed).await?;
        consumer.end().await?;
        Ok(figures)
    }

    async fn cycle(&self, topic: &Topic) -> Fallible<Figures> {
        let name = format!("{}q", topic.name);
        let mut queue = self.peer.queue(&name).await?;
        let options = self.options;
        cycle::run(&mut queue, options.record_bytes, options.seed, options.warm_up, options.length).await
    }

    async fn syncs(&self, topic: &mut Topic) -> Fallible<Figures> {
        let some = |records_max| Load { records_max, warm_up: Duration::ZERO, length: CELL_PATIENCE / 4, ..self.load(None, 1) };
        let mut producer = self.peer.producer(&topic.name, 1, Purpose::Latency).await?;
        self.flow_with(&mut producer, topic, some(SYNC_WARM_RECORDS)).await?;
        let output = self.setup.work_dir.join("strace.txt");
        let counter = Counter::begin(&self.server.reach, &self.server, &output)?;
        let flushes_before = machine::device_flushes(self.server.dir());
        let mut figures = self.flow_with(&mut producer, topic, some(SYNC_RECORDS)).await?;
        let flushes_after = machine::device_flushes(self.server.dir());
        let counted = counter.end()?;
        let acknowledged = figures.records.max(1) as f64;
        figures.syncs_per_record = Some(counted.count as f64 / acknowledged);
        figures.counted_by = Some(counted.by);
        let flushes = flushes_before.zip(flushes_after).map(|(before, after)| after.saturating_sub(before));
        figures.device_flushes_per_record = flushes.map(|flushes| flushes as f64 / acknowledged);
        Ok(figures)
    }

    /// What was acknowledged has to be there, and nothing that was never sent.
    async fn check_stored(&self, topic: &Topic) -> Fallible<()> {
        if topic.sent == 0 {
            return Ok(());
        }
        let asked = tokio::time::timeout(CELL_PATIENCE / 4, self.peer.stored(&topic.name, topic.partitions)).await;
        let Some(stored) = asked.told("the broker does not say what it has")?? else { return Ok(()) };
        let (acknowledged, sent) = (topic.acknowledged, topic.sent);
        if (acknowledged..=sent).contains(&stored) {
            return Ok(());
        }
        fault(format!("{sent} records were sent and {acknowledged} acknowledged, but the broker has {stored}"))
    }
}
