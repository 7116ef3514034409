//! The first promise, on one node: what was acknowledged at level `durable` is there after SIGKILL, once, in order.
//!
//! One round: producers fill partitions on two shards, small batches in a few and scattered ones in many, so that segments are sealed and
//! sorted all the time; topics come and go, partitions are trimmed, a consumer reads along. At a random number of acknowledgements, or
//! right behind the beginning of a seal, of a sort or of a topic's deletion, the node is killed without warning; then starts of it are killed as
//! well, and it is started once more on the same directory. What is there is compared. The data stays from round to round, so each round
//! also checks what the rounds before it left, and that no acknowledged offset is ever used for something else.
//!
//! When does a round count? Producers know which of their requests had gone out whole and were not answered when the
//! connection broke: with none of those, nothing was in flight, the round proves nothing, and it is repeated (up to a bound).
//!
//! What this does not prove: that syncs happen (SIGKILL loses nothing the kernel has); the simulator's disk is for that.

mod ledger;
mod load;
mod under_way;

use common::layout::Rec;
use common::{Dice, Node, Options, Peer};
use ledger::{Found, Ledger};
use load::{ChurnUnderWay, Job, Progress, Request, ToTrim, Topics};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use under_way::{Met, Work, begun, under_way};

/// Partitions with small batches, of which all but the first are trimmed.
const SMALL: u32 = 4;
/// Partitions with a larger batch of each request: their batches lie scattered in the segments.
const SCATTERED: u32 = 128;
/// Bytes that each of those keeps.
const SCATTERED_KEEP: u64 = 1 << 20;
/// Filling of the values of both: (least, most) bytes.
const SMALL_BYTES: (u64, u64) = (0, 1024);
const SCATTERED_BYTES: (u64, u64) = (2500, 4500);
/// Rounds that may be repeated because nothing was in flight, as a share of all.
const REPEATS_PER_ROUND: u64 = 2;
/// Every so many rounds everything is read, else what is new, and of the scattered partitions one of so many.
const WHOLE_EVERY: u64 = 25;
const SCATTERED_SHARE: usize = 16;
/// A run of at least this many rounds has to meet each kind of work under way.
const ROUNDS_THAT_MEET_ALL: u64 = 200;
/// How long is waited for the work that is to be met.
const AIM_LIMIT: Duration = Duration::from_secs(5);

/// What the kill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// So many answered requests.
    Acks(u64),
    /// The next beginning of this, and then so many microseconds.
    Work(Work, u64),
    Deletion(u64),
}

impl Aim {
    fn draw(dice: &mut Dice) -> Aim {
        match dice.in_range(0, 10) {
            0 => Aim::Acks(dice.in_range(1, 20)), // just after the start, with the log's tail young
            1 | 2 => Aim::Work(Work::Seal, dice.in_range(0, 15_000)),
            3 => Aim::Work(Work::Sort, dice.in_range(0, 100_000)),
            4 => Aim::Deletion(dice.in_range(0, 2_000)),
            _ => Aim::Acks(dice.in_range(20, 600)),
        }
    }

    /// Waits until it is time to kill. Work that does not come is not waited for long; too few answers are an error.
    fn wait(self, node: &mut Node, progress: &Progress) -> Result<(), String> {
        let limit = if matches!(self, Aim::Acks(_)) { load::PATIENCE } else { AIM_LIMIT };
        let until = Instant::now() + limit;
        let (deletions, stderr) = (progress.deletions.load(Ordering::Relaxed), node.process.stderr());
        let has_come = |node: &Node| match self {
            Aim::Acks(acks) => progress.acks.load(Ordering::Relaxed) >= acks,
            Aim::Work(work, _) => begun(&node.process.stderr(), work) > begun(&stderr, work),
            Aim::Deletion(_) => progress.deletions.load(Ordering::Relaxed) > deletions,
        };
        while !has_come(node) && Instant::now() < until {
            node.process.watch_quietly(Duration::from_micros(300));
        }
        match self {
            Aim::Acks(_) if !has_come(node) => Err(format!("{self:?} do not come:\n{}", node.process.stderr())),
            Aim::Acks(_) => Ok(()),
            Aim::Work(_, after) | Aim::Deletion(after) => {
                node.process.watch_quietly(Duration::from_micros(after));
                Ok(())
            }
        }
    }
}

/// Everything over all rounds.
struct Campaign {
    small: Vec<Ledger>,
    /// Of each of these partitions: the id of its idempotent producer, and what that sends once more.
    producers: Vec<(u64, Vec<Request>)>,
    /// Per shard.
    scattered: Vec<Vec<Ledger>>,
    topics: Topics,
    met: Met,
    /// How long the last start took.
    start_took: Duration,
    /// Which scattered partitions are looked at next.
    share: usize,
}

/// What was under way at a kill.
struct Killed {
    in_flight: u64,
    /// Requests of idempotent producers that this round began with.
    sent_again: u64,
    churn: ChurnUnderWay,
    trim: bool,
}

fn options() -> Options {
    Options::shards(2)
        .set("memory.bytes", "64MiB")
        .set("tail.cache.bytes", "2MiB")
        .set("sorter.segments", "4")
        .set("sorter.bytes.per.second", "64MiB")
        .set("log.level", "debug")
}

impl Campaign {
    fn new(node: &Node) -> Campaign {
        let mut peer = Peer::connect(node.ready.client);
        let small = peer.topic("small", SMALL, &[("retention.ms", "-1")]);
        let shards: std::collections::BTreeSet<u16> = small.iter().map(|p| p.leader_shard).collect();
        assert_eq!(shards.len(), 2, "partitions are spread over shards, so that both logs are killed in flight: {small:?}");
        let keep = SCATTERED_KEEP.to_string();
        let scattered = peer.topic("scattered", SCATTERED, &[("retention.ms", "-1"), ("retention.bytes", keep.as_str())]);
        let of_shard = |shard: u16| {
            let own = scattered.iter().filter(|p| p.leader_shard == shard);
            own.map(|p| Ledger::new(p.uid, SCATTERED_BYTES, Some(SCATTERED_KEEP))).collect()
        };
        Campaign {
            small: small.iter().map(|p| Ledger::new(p.uid, SMALL_BYTES, None)).collect(),
            scattered: vec![of_shard(0), of_shard(1)],
            producers: small.iter().map(|_| (peer.init_producer(), Vec::new())).collect(),
            topics: Topics::default(),
            met: Met::default(),
            start_took: Duration::from_millis(500),
            share: 0,
        }
    }

    /// A round up to the kill.
    fn run_and_kill(&mut self, node: &mut Node, dice: &mut Dice) -> Killed {
        let (address, aim) = (node.ready.client, Aim::draw(dice));
        let progress = &Progress::default();
        let mut to_trim: Vec<ToTrim> =
            self.small[1..].iter().map(|l| ToTrim { uid: l.uid, trimmed: l.trimmed, asked: l.trim_asked }).collect();
        let tails: Vec<(u64, u64)> = self.small.iter().map(|l| (l.uid, l.next_offset())).collect();
        let (topics, trims) = (&mut self.topics, &mut to_trim);
        let mut trim_dice = Dice(dice.roll());
        let sent_again = self.producers.iter().map(|(_, again)| again.len() as u64).sum();
        let producers = self.producers.iter_mut().map(|(id, again)| (*id, std::mem::take(again)));
        let jobs = self
            .small
            .iter()
            .zip(producers)
            .map(|(ledger, producer)| Job { marked: Some(producer), ..Job::of(std::slice::from_ref(ledger), SMALL_BYTES, 8) });
        let jobs: Vec<Job> = jobs.chain(self.scattered.iter().map(|l| Job::of(l, SCATTERED_BYTES, 1))).collect();
        let (mut accounts, seen, churn, trim) = std::thread::scope(|scope| {
            let producers: Vec<_> = jobs
                .into_iter()
                .map(|job| (job, load::connect(address)))
                .map(|(job, peer)| scope.spawn(move || load::produce(peer, job, progress)))
                .collect();
            let peers = [(); 3].map(|()| load::connect(address));
            let [for_reading, for_topics, for_trims] = peers;
            let consumer = scope.spawn(move || load::consume(for_reading, &tails));
            let churn = scope.spawn(move || load::churn(for_topics, topics, progress));
            let trimmer = scope.spawn(move || load::trim(for_trims, trims, &mut trim_dice));
            let waited = aim.wait(node, progress);
            // Before anything may fail: the threads end with their connections.
            node.process.kill();
            waited.unwrap_or_else(|what| panic!("{what}"));
            let accounts: Vec<_> = producers.into_iter().map(|p| p.join().expect("a producer")).collect();
            (accounts, consumer.join().expect("the consumer"), churn.join().expect("the topics"), trimmer.join().expect("the trims"))
        });
        let mut in_flight = 0;
        for (producer, account) in self.producers.iter_mut().zip(&mut accounts) {
            producer.1 = std::mem::take(&mut account.unanswered);
        }
        let (small, scattered) = accounts.split_at(SMALL as usize);
        let lists = self.small.chunks_mut(1).zip(small).chain(self.scattered.iter_mut().map(Vec::as_mut_slice).zip(scattered));
        for (ledgers, account) in lists {
            in_flight += account.sent - account.answered;
            for (place, base, first, count) in &account.acked {
                (0..*count).for_each(|n| ledgers[*place].note(base + n, first + n));
            }
            ledgers.iter_mut().zip(&account.next_numbers).for_each(|(ledger, next)| ledger.next_number = *next);
        }
        seen.iter().for_each(|(place, offset, value)| self.small[*place].note_seen(*offset, value));
        for (ledger, trimmed) in self.small[1..].iter_mut().zip(to_trim) {
            (ledger.trimmed, ledger.trim_asked) = (trimmed.trimmed, trimmed.asked);
        }
        Killed { in_flight, sent_again, churn, trim }
    }

    /// Kills some starts, then lets one come up.
    fn restart(&mut self, node: Node, dice: &mut Dice) -> Node {
        let kills = if dice.in_range(0, 3) == 0 { dice.in_range(1, 4) } else { 0 };
        for _ in 0..kills {
            let time = Duration::from_micros(dice.in_range(0, self.start_took.as_micros() as u64 + 1));
            self.met.starts += u64::from(node.kill_a_start(time));
        }
        let begun = Instant::now();
        let node = node.restart();
        self.start_took = begun.elapsed();
        node
    }

    /// Compares what is there with what has to be.
    fn check(&mut self, node: &Node, whole: bool) -> Found {
        let mut peer = Peer::connect(node.ready.client);
        let mut found = Found::default();
        let mut add = |other: Found| {
            found.known += other.known;
            found.unacknowledged += other.unacknowledged;
        };
        self.small.iter_mut().for_each(|ledger| add(ledger.check(&mut peer, whole)));
        self.share += 1;
        for (place, ledger) in self.scattered.iter_mut().flatten().enumerate() {
            if whole || place % SCATTERED_SHARE == self.share % SCATTERED_SHARE {
                add(ledger.check(&mut peer, true));
            }
        }
        let names: Vec<String> = peer.metadata(&[]).1.into_iter().map(|topic| topic.name).collect();
        let topics = &mut self.topics;
        assert!(topics.there.iter().all(|name| names.contains(name)), "{:?} are not all among {names:?}", topics.there);
        assert!(!topics.gone.iter().any(|name| names.contains(name)), "some of {:?} are among {names:?}", topics.gone);
        // What was in flight is decided now.
        for name in std::mem::take(&mut topics.unknown) {
            if names.contains(&name) { topics.there.push(name) } else { topics.gone.push(name) }
        }
        found
    }
}

#[test]
fn acknowledged_records_survive_sigkill() {
    let rounds: u64 = std::env::var("TRAMLINE_KILL_ROUNDS").map_or(20, |n| n.parse().expect("TRAMLINE_KILL_ROUNDS is a number"));
    let mut dice = Dice(common::seed());
    let mut node = Node::with(options());
    let mut campaign = Campaign::new(&node);
    let (mut counted, mut repeated, mut in_flight_total, mut sent_again, mut compared) = (0, 0, 0, 0, 0);
    while counted < rounds {
        let killed = campaign.run_and_kill(&mut node, &mut dice);
        let work = under_way(&node.process.stderr());
        let starts_before = campaign.met.starts;
        node = campaign.restart(node, &mut dice);
        let found = campaign.check(&node, counted % WHOLE_EVERY == WHOLE_EVERY - 1 || counted + 1 == rounds);
        if killed.in_flight == 0 {
            repeated += 1;
            println!("nothing was in flight: the round does not count");
            assert!(repeated <= rounds * REPEATS_PER_ROUND, "{repeated} rounds without anything in flight: the windows are never used");
            continue;
        }
        counted += 1;
        let met = &mut campaign.met;
        let count = |work_of: Work| work.iter().filter(|(work, _)| *work == work_of).count() as u64;
        let (seals, sorts, starts) = (count(Work::Seal), count(Work::Sort), met.starts - starts_before);
        (met.seals, met.sorts) = (met.seals + seals, met.sorts + sorts);
        met.deletions += u64::from(killed.churn.deletion);
        met.creations += u64::from(killed.churn.creation);
        met.trims += u64::from(killed.trim);
        in_flight_total += killed.in_flight;
        sent_again += killed.sent_again;
        compared += found.known;
        println!(
            "round {counted}/{rounds}: {} requests sent again; killed with {} writes in flight, {seals} seals, {sorts} sorts{}{}{} under way; {starts} starts killed; {} known \
             records compared; {} unacknowledged survived",
            killed.sent_again,
            killed.in_flight,
            if killed.churn.deletion { ", a topic's deletion" } else { "" },
            if killed.churn.creation { ", a topic's creation" } else { "" },
            if killed.trim { ", a trim" } else { "" },
            found.known,
            found.unacknowledged
        );
    }
    println!(
        "{counted} rounds: {in_flight_total} writes in flight at the kills, {sent_again} requests sent again, {compared} records compared; kills that met: {:?}",
        campaign.met
    );
    let missing = campaign.met.missing();
    assert!(rounds < ROUNDS_THAT_MEET_ALL || missing.is_empty(), "no kill met {missing:?}: the rounds prove less than they seem");
}

#[test]
fn a_kill_right_after_the_first_acknowledgement_of_a_new_topic_keeps_both() {
    let mut node = Node::start();
    for round in 0..5 {
        let mut peer = Peer::connect(node.ready.client);
        let uid = peer.topic(&format!("t{round}"), 1, &[])[0].uid;
        peer.put(uid, &[Rec::value(format!("value {round}"))]);
        node.process.kill();
        node = node.restart();
        let mut peer = Peer::connect(node.ready.client);
        for earlier in 0..=round {
            let uid = peer.partitions(&format!("t{earlier}"))[0].uid;
            let values: Vec<_> = peer.read_from(uid, 0).into_iter().map(|r| r.value).collect();
            assert_eq!(values, [Some(format!("value {earlier}").into_bytes())], "round {round}");
        }
    }
}

#[test]
fn topics_deleted_and_altered_before_a_kill_stay_so() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    peer.topic("gone", 3, &[]);
    peer.topic("kept", 1, &[]);
    peer.delete_topic("gone").expect("it exists");
    peer.alter_topic("kept", 5, &[("retention.ms", "60000")]).expect("it exists");
    let uids: Vec<u64> = peer.partitions("kept").iter().map(|p| p.uid).collect();
    node.process.kill();
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    let (_, topics) = peer.metadata(&[]);
    assert_eq!(topics.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(peer.partitions("kept").iter().map(|p| p.uid).collect::<Vec<_>>(), uids);
    assert_eq!(uids.len(), 5);
}
