//! The load of a round: everything that writes, reads and deletes until the connections break, and what each of them knows then.
//!
//! Answers that were on their way when the node died still count: connections are read until they end. An idempotent producer sends what has no
//! answer once more in the next round, with the same bytes: it has to be there once, whether or not it had been written.

use super::ledger::{Ledger, value};
use common::layout::{self, Put, Rec, code, kind, level};
use common::peer::{NoReply, Refusal, Reply, produce_parts, produce_parts_within, read_fetched, read_produced};
use common::{Dice, Peer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Requests of one producer that may be unanswered.
const WINDOW: usize = 16;
/// The same of an idempotent one: as many batches as a partition can tell from new ones.
const WINDOW_MARKED: usize = 5;
/// How long the node may take: a machine that stands still for a minute has lost nothing (seen: 40 s in which nobody could write a file).
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Records that trims leave in a partition.
const KEPT_BY_TRIMS: u64 = 20_000;

/// What the threads of a round tell each other and the one that kills.
#[derive(Default)]
pub struct Progress {
    pub acks: AtomicU64,
    /// Deletions sent.
    pub deletions: AtomicU64,
}

/// A batch of a request: partition (as a place in its producer's list), number of its first record, number of records.
type Sent = (usize, u64, u64);

/// A request, to be sent once more with these bytes.
pub struct Request {
    meta: Vec<u8>,
    payload: Vec<u8>,
    batches: Vec<Sent>,
}

/// What one producer knows after the connection broke.
#[derive(Default)]
pub struct Account {
    /// Requests whose frames went out whole.
    pub sent: u64,
    pub answered: u64,
    /// Place, first offset, number of the first record, number of records.
    pub acked: Vec<(usize, u64, u64, u64)>,
    /// By place: the number that the next round begins with.
    pub next_numbers: Vec<u64>,
    /// Requests without an answer, in order, whether or not they were sent.
    pub unanswered: Vec<Request>,
}

/// What a producer fills: uids, fillings and next numbers of its partitions, and how many of them one request has.
pub struct Job {
    pub partitions: Vec<(u64, (u64, u64), u64)>,
    pub records_max: u64,
    /// The id of an idempotent producer, for which a record's number is its sequence, and what it sends once more.
    pub marked: Option<(u64, Vec<Request>)>,
}

impl Job {
    pub fn of(ledgers: &[Ledger], filling: (u64, u64), records_max: u64) -> Job {
        let partitions = ledgers.iter().map(|ledger| (ledger.uid, filling, ledger.next_number)).collect();
        Job { partitions, records_max, marked: None }
    }

    /// The next request, and what it takes of the partitions' numbers.
    fn next_request(&self, numbers: &mut [u64]) -> Request {
        let mut batches = Vec::with_capacity(numbers.len());
        let mut announced = Vec::with_capacity(numbers.len());
        for (place, (uid, filling, _)) in self.partitions.iter().enumerate() {
            let first = numbers[place];
            let count = batch_len(first, self.records_max);
            let records: Vec<Rec> = (first..first + count).map(|n| Rec::value(value(*uid, *filling, n))).collect();
            let batch = match &self.marked {
                Some((id, _)) => layout::marked_batch((*id, 0, first as u32), &records),
                None => layout::batch(layout::TIME_US, &records),
            };
            batches.push((*uid, batch));
            announced.push((place, first, count));
            // Numbers of what is sent, acknowledged or not, are not used again.
            numbers[place] += count;
        }
        let list: Vec<(u64, &[u8])> = batches.iter().map(|(uid, batch)| (*uid, batch.as_slice())).collect();
        let (meta, payload) = produce_parts_within(PATIENCE.as_millis() as u32, level::DURABLE, &list);
        Request { meta, payload, batches: announced }
    }
}

/// Number of records in a batch, from the number of its first record.
fn batch_len(first: u64, most: u64) -> u64 {
    1 + first.wrapping_mul(0xD134_2543_DE82_EF95) % most
}

/// Produces, each request with one batch for every partition of the job, until the connection breaks.
pub fn produce(peer: Peer, mut job: Job, progress: &Progress) -> Account {
    let mut reader = peer.split();
    let (window, again) = match &mut job.marked {
        Some((_, again)) => (WINDOW_MARKED, std::mem::take(again)),
        None => (WINDOW, Vec::new()),
    };
    // One more than the channel holds is with each of the two threads.
    let (slots, announcements) = sync_channel::<(u64, Request)>(window - 2);
    let places: Vec<u64> = job.partitions.iter().map(|p| p.0).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let (mut peer, mut numbers) = (peer, job.partitions.iter().map(|p| p.2).collect::<Vec<u64>>());
            let mut again = again.into_iter();
            let mut sent = 0;
            loop {
                let request = again.next().unwrap_or_else(|| job.next_request(&mut numbers));
                let (meta, payload) = (request.meta.clone(), request.payload.clone());
                let frame = layout::FrameToSend::new(kind::PRODUCE, 1000 + sent, meta, payload).bytes();
                slots.send((1000 + sent, request)).expect("announcements are taken until this thread ends");
                if peer.send_bytes(&frame).is_err() {
                    // Others would be sent out of order.
                    let rest = again.collect::<Vec<_>>();
                    return (sent, numbers, rest);
                }
                sent += 1;
            }
        });
        let mut account = Account::default();
        let mut announced: BTreeMap<u64, Request> = BTreeMap::new();
        while let Ok(reply) = reader.receive() {
            assert_eq!(reply.refusal(), None::<Refusal>);
            while !announced.contains_key(&reply.correlation) {
                announced.extend([announcements.recv().expect("the writer announced it before it sent it")]);
            }
            let batches = announced.remove(&reply.correlation).expect("just looked up").batches;
            let results = read_produced(&reply.meta);
            assert_eq!(results.len(), batches.len());
            for (result, (place, first, count)) in results.iter().zip(batches) {
                assert_eq!((result.error, result.partition_uid), (code::OK, places[place]));
                assert!(result.level_reached >= level::LEADER_DURABLE, "{result:?}");
                assert!(result.durable_end >= result.base_offset + count, "an ack at level durable: {result:?}");
                account.acked.push((place, result.base_offset, first, count));
            }
            account.answered += 1;
            progress.acks.fetch_add(1, Ordering::Relaxed);
        }
        announced.extend(announcements.iter());
        let rest;
        (account.sent, account.next_numbers, rest) = writer.join().expect("the writer");
        account.unanswered = announced.into_values().chain(rest).collect();
        account
    })
}

/// One request on a connection that may end: the reply, the refusal, or nothing.
fn ask(peer: &mut Peer, kind: u8, correlation: u64, meta: Vec<u8>, payload: Vec<u8>) -> Option<Result<Reply, Refusal>> {
    let frame = layout::FrameToSend::new(kind, correlation, meta, payload).bytes();
    peer.send_bytes(&frame).ok()?;
    let reply = match peer.receive() {
        Ok(reply) => reply,
        Err(NoReply::Closed) => return None,
        Err(NoReply::Silence) => panic!("no answer to a request of kind {kind}"),
    };
    assert_eq!((reply.kind, reply.correlation), (kind, correlation));
    Some(reply.refusal().map_or(Ok(reply), Err))
}

/// Reads partitions at their tails until the connection breaks: (place, offset, value) of each record.
pub fn consume(mut peer: Peer, partitions: &[(u64, u64)]) -> Vec<(usize, u64, Vec<u8>)> {
    let mut next: Vec<u64> = partitions.iter().map(|(_, from)| *from).collect();
    let mut seen = Vec::new();
    for correlation in 1.. {
        let place = correlation as usize % next.len();
        let meta = common::peer::fetch_meta(0, 5, 1, 64 << 10, &[(partitions[place].0, next[place], 64 << 10)]);
        let Some(reply) = ask(&mut peer, kind::FETCH, correlation, meta, Vec::new()) else { break };
        let reply = reply.unwrap_or_else(|refusal| panic!("a fetch was refused: {refusal:?}"));
        for entry in read_fetched(&reply) {
            if entry.error == code::OFFSET_OUT_OF_RANGE {
                // It was trimmed meanwhile.
                next[place] = entry.log_start;
                continue;
            }
            assert_eq!(entry.error, code::OK, "{entry:?}");
            for record in entry.batches.into_iter().flat_map(|batch| batch.records) {
                if record.offset >= next[place] {
                    assert_eq!(record.offset, next[place], "no hole and no repetition");
                    next[place] += 1;
                    seen.push((place, record.offset, record.value.expect("a value")));
                }
            }
        }
    }
    seen
}

/// Topics that come and go.
#[derive(Default)]
pub struct Topics {
    /// Created and acknowledged, no deletion sent.
    pub there: Vec<String>,
    /// Deleted and acknowledged.
    pub gone: Vec<String>,
    /// Sent and not answered: there or not.
    pub unknown: Vec<String>,
    pub created: u64,
}

/// What churn had under way when the connection broke.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ChurnUnderWay {
    pub creation: bool,
    pub deletion: bool,
}

/// Creates topics, writes into them and deletes them again until the connection breaks.
pub fn churn(mut peer: Peer, topics: &mut Topics, progress: &Progress) -> ChurnUnderWay {
    let bulk = layout::batch(layout::TIME_US, &[Rec::value(vec![b'x'; 100_000])]);
    for correlation in (1..).step_by(10) {
        let name = format!("passing-{}", topics.created);
        topics.created += 1;
        let meta = Put::new().str(&name).u32(3).u16(0).u8(0).pairs(&[("retention.ms", "-1")]).0;
        match ask(&mut peer, kind::CREATE_TOPIC, correlation, meta, Vec::new()) {
            Some(answer) => drop(answer.unwrap_or_else(|refusal| panic!("creating {name} was refused: {refusal:?}"))),
            None => {
                topics.unknown.push(name);
                return ChurnUnderWay { creation: true, deletion: false };
            }
        }
        topics.there.push(name.clone());
        let Some(answer) = ask(&mut peer, kind::METADATA, correlation + 1, Put::new().u32(1).str(&name).0, Vec::new()) else { break };
        let reply = answer.unwrap_or_else(|refusal| panic!("metadata was refused: {refusal:?}"));
        for (at, uid) in common::peer::read_metadata(&reply.meta).1[0].partitions.iter().map(|p| p.uid).enumerate() {
            let (meta, payload) = produce_parts(level::DURABLE, &[(uid, &bulk)]);
            let Some(answer) = ask(&mut peer, kind::PRODUCE, correlation + 2 + at as u64, meta, payload) else {
                return ChurnUnderWay::default();
            };
            answer.unwrap_or_else(|refusal| panic!("produce was refused: {refusal:?}"));
        }
        if topics.there.len() > 2 {
            let name = topics.there.remove(0);
            progress.deletions.fetch_add(1, Ordering::Relaxed);
            match ask(&mut peer, kind::DELETE_TOPIC, correlation + 9, Put::new().str(&name).0, Vec::new()) {
                Some(answer) => drop(answer.unwrap_or_else(|refusal| panic!("deleting {name} was refused: {refusal:?}"))),
                None => {
                    topics.unknown.push(name);
                    return ChurnUnderWay { creation: false, deletion: true };
                }
            }
            topics.gone.push(name);
        }
    }
    ChurnUnderWay::default()
}

/// A partition as the one who trims sees it.
pub struct ToTrim {
    pub uid: u64,
    pub trimmed: u64,
    pub asked: u64,
}

/// Trims partitions to somewhere behind `KEPT_BY_TRIMS` records, or a moment further, until the connection breaks. Whether a trim was under way.
pub fn trim(mut peer: Peer, partitions: &mut [ToTrim], dice: &mut Dice) -> bool {
    for correlation in 1.. {
        let place = correlation as usize % partitions.len();
        let partition = &mut partitions[place];
        let meta = Put::new().u32(1).u64(partition.uid).i64(-1).0;
        let Some(answer) = ask(&mut peer, kind::LIST_OFFSETS, 2 * correlation, meta, Vec::new()) else { return false };
        let reply = answer.unwrap_or_else(|refusal| panic!("list offsets was refused: {refusal:?}"));
        let end = u64::from_le_bytes(reply.meta[reply.meta.len() - 16..reply.meta.len() - 8].try_into().expect("eight bytes"));
        let before = (end.saturating_sub(dice.in_range(KEPT_BY_TRIMS, 2 * KEPT_BY_TRIMS))).max(partition.trimmed + 1).min(end);
        partition.asked = partition.asked.max(before);
        let meta = Put::new().u32(1).u64(partition.uid).u64(before).0;
        let Some(answer) = ask(&mut peer, kind::TRIM_PARTITIONS, 2 * correlation + 1, meta, Vec::new()) else { return true };
        answer.unwrap_or_else(|refusal| panic!("a trim was refused: {refusal:?}"));
        partition.trimmed = partition.trimmed.max(before);
    }
    false
}

/// A connection of the round.
pub fn connect(address: SocketAddr) -> Peer {
    Peer::connect(address)
}
