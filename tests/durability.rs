//! The first promise, on one node: what was acknowledged at level `durable` is there after SIGKILL, once, in order.
//!
//! One round: producers fill several partitions on two shards with a window of requests each; at a random number of
//! acknowledgements the node is killed without warning, while writes are in flight; it is started again at once on the same
//! directory; everything is read back and compared. The data stays from round to round, so each round also checks what the
//! rounds before it left, and that no acknowledged offset is ever used for something else.
//!
//! When does a round count? Producers know which of their requests had gone out whole and were not answered when the
//! connection broke: with none of those, nothing was in flight, the round proves nothing, and it is repeated (up to a bound).
//!
//! What this does not prove: that syncs happen (SIGKILL loses nothing the kernel has); `log/`'s simulated disk is for that.

mod common;

use common::layout::{self, Rec, code, level};
use common::peer::{Refusal, read_produced};
use common::{Dice, Node, Options, Peer};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;

const PARTITIONS: usize = 4;
/// Requests of one producer that may be unanswered.
const WINDOW: u64 = 16;
/// Rounds that may be repeated because nothing was in flight, as a share of all.
const REPEATS_PER_ROUND: u64 = 2;

/// What one producer knows after the connection broke.
struct Account {
    /// Batches whose frames went out whole.
    sent: u64,
    /// Acknowledged: first offset, number of records, and the first record's number.
    acked: Vec<(u64, u64, u64)>,
}

/// Everything that was ever acknowledged in one partition: offset to record number.
#[derive(Default)]
struct Ledger {
    acked: HashMap<u64, u64>,
    /// Record numbers given out so far; numbers rise over all rounds.
    next_number: u64,
}

/// The value of a record: what it is, and enough bytes that blocks are of different sizes.
fn value(partition: usize, number: u64) -> Vec<u8> {
    let mut value = format!("partition {partition} record {number} ").into_bytes();
    let len = value.len() + (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
    value.resize(len, b'.');
    value
}

/// The number in a value, if the value is whole and of this partition.
fn number_of(partition: usize, bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = text.strip_prefix(&format!("partition {partition} record "))?.split(' ').next()?.parse().ok()?;
    (value(partition, number) == bytes).then_some(number)
}

/// Number of records in a batch, from the number of its first record: 1 to 8.
fn batch_len(first: u64) -> u64 {
    1 + (first.wrapping_mul(0xD134_2543_DE82_EF95) >> 61)
}

/// Produces until the connection breaks. `on_ack` is told of each acknowledged batch.
fn produce_until_broken(peer: Peer, partition: usize, uid: u64, first_number: u64, on_ack: impl Fn()) -> Account {
    let mut reader = peer.split();
    let (window, slots) = std::sync::mpsc::sync_channel::<(u64, u64, u64)>(WINDOW as usize);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut peer = peer;
            let mut number = first_number;
            let mut sent = 0;
            loop {
                let count = batch_len(number);
                let records: Vec<Rec> = (number..number + count).map(|n| Rec::value(value(partition, n))).collect();
                let batch = layout::batch(layout::TIME_US, &records);
                let (meta, payload) = common::peer::produce_parts(level::DURABLE, &[(uid, &batch)]);
                let frame = layout::FrameToSend::new(layout::kind::PRODUCE, 1000 + sent, meta, payload).bytes();
                if window.send((1000 + sent, number, count)).is_err() || peer.send_bytes(&frame).is_err() {
                    return sent;
                }
                sent += 1;
                number += count;
            }
        });
        let mut acked = Vec::new();
        let mut announced = HashMap::new();
        // Answers that were on their way when the node died still count: they are read until the end of the stream.
        while let Ok(reply) = reader.receive() {
            assert_eq!(reply.refusal(), None::<Refusal>);
            while !announced.contains_key(&reply.correlation) {
                let (correlation, number, count) = slots.recv().expect("the writer announced it before it sent it");
                announced.insert(correlation, (number, count));
            }
            let (number, count) = announced.remove(&reply.correlation).expect("just looked up");
            let results = read_produced(&reply.meta);
            assert_eq!((results.len(), results[0].error, results[0].partition_uid), (1, code::OK, uid));
            assert!(results[0].level_reached >= level::LEADER_DURABLE, "{results:?}");
            assert!(results[0].durable_end >= results[0].base_offset + count, "an ack at level durable: {results:?}");
            acked.push((results[0].base_offset, count, number));
            on_ack();
        }
        drop(slots);
        let sent = writer.join().expect("the writer");
        Account { sent, acked }
    })
}

/// One round up to the kill. Gives the number of requests that were in flight.
fn run_and_kill(node: &mut Node, uids: &[u64], ledgers: &mut [Ledger], kill_at: u64) -> u64 {
    let address = node.ready.client;
    let acks = AtomicU64::new(0);
    let (tell, reached) = channel();
    let accounts: Vec<Account> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                let (acks, tell) = (&acks, tell.clone());
                let (uid, first) = (uids[partition], ledgers[partition].next_number);
                let peer = Peer::connect(address);
                scope.spawn(move || {
                    produce_until_broken(peer, partition, uid, first, || {
                        if acks.fetch_add(1, Ordering::Relaxed) + 1 == kill_at {
                            let _ = tell.send(());
                        }
                    })
                })
            })
            .collect();
        reached.recv_timeout(common::WAIT).unwrap_or_else(|_| panic!("{kill_at} acknowledgements do not come:\n{}", node.process.stderr()));
        node.process.kill();
        producers.into_iter().map(|p| p.join().expect("a producer")).collect()
    });
    let mut in_flight = 0;
    for (partition, account) in accounts.into_iter().enumerate() {
        let ledger = &mut ledgers[partition];
        in_flight += account.sent - account.acked.len() as u64;
        for (base, count, number) in account.acked {
            for n in 0..count {
                let before = ledger.acked.insert(base + n, number + n);
                assert_eq!(before, None, "partition {partition}: offset {} was acknowledged before, for another record", base + n);
            }
        }
        // Numbers of what was sent, acknowledged or not, are not used again; the writer's last announcement may not have gone out.
        for _ in 0..=account.sent {
            ledger.next_number += batch_len(ledger.next_number);
        }
    }
    in_flight
}

/// Reads a partition whole and compares it with what was acknowledged. Gives the number of records that were not.
fn check(peer: &mut Peer, partition: usize, uid: u64, ledger: &Ledger) -> u64 {
    let mut last = None;
    let mut found = 0;
    let mut unacknowledged = 0;
    // `read_from` asserts that each offset comes once, in order, without holes.
    for record in peer.read_from(uid, 0) {
        let bytes = record.value.as_deref().expect("a value");
        let number =
            number_of(partition, bytes).unwrap_or_else(|| panic!("partition {partition}, offset {}: a foreign value", record.offset));
        assert!(last < Some(number), "partition {partition}, offset {}: record {number} after {last:?}", record.offset);
        last = Some(number);
        match ledger.acked.get(&record.offset) {
            Some(acknowledged) => {
                assert_eq!(
                    number, *acknowledged,
                    "partition {partition}: offset {} holds another record than was acknowledged",
                    record.offset
                );
                found += 1;
            }
            // It was in flight and made it to the disk: allowed, once.
            None => unacknowledged += 1,
        }
    }
    assert_eq!(found, ledger.acked.len(), "partition {partition}: acknowledged records are missing");
    unacknowledged
}

#[test]
fn acknowledged_records_survive_sigkill() {
    let rounds: u64 = std::env::var("TRAMLINE_KILL_ROUNDS").map_or(20, |n| n.parse().expect("TRAMLINE_KILL_ROUNDS is a number"));
    let mut dice = Dice(common::seed());
    let mut node = Node::with(Options::shards(2));
    // One partition on each shard at least, so that both logs are killed in flight.
    let partitions = Peer::connect(node.ready.client).topic("kill", PARTITIONS as u32, &[("retention.ms", "-1")]);
    let uids: Vec<u64> = partitions.iter().map(|p| p.uid).collect();
    let shards: std::collections::BTreeSet<u16> = partitions.iter().map(|p| p.leader_shard).collect();
    assert_eq!(shards.len(), 2, "partitions are spread over shards: {partitions:?}");
    let mut ledgers: Vec<Ledger> = (0..PARTITIONS).map(|_| Ledger::default()).collect();
    let (mut counted, mut repeated, mut survivors) = (0, 0, 0);
    while counted < rounds {
        let kill_at = match dice.in_range(0, 4) {
            0 => dice.in_range(1, 20), // just after the start, with the log's tail young
            _ => dice.in_range(20, 1200),
        };
        let in_flight = run_and_kill(&mut node, &uids, &mut ledgers, kill_at);
        node = node.restart();
        let mut peer = Peer::connect(node.ready.client);
        assert_eq!(peer.partitions("kill").iter().map(|p| p.uid).collect::<Vec<_>>(), uids);
        let unacknowledged: u64 = (0..PARTITIONS).map(|p| check(&mut peer, p, uids[p], &ledgers[p])).sum();
        let acked: usize = ledgers.iter().map(|l| l.acked.len()).sum();
        if in_flight == 0 {
            repeated += 1;
            println!("nothing was in flight: the round does not count");
            assert!(
                repeated <= rounds * REPEATS_PER_ROUND,
                "{repeated} rounds without anything in flight: the window of {WINDOW} is never used"
            );
            continue;
        }
        counted += 1;
        println!(
            "round {counted}/{rounds}: killed after {kill_at} acks with {in_flight} requests in flight; {acked} acknowledged records are there; {} unacknowledged survived",
            unacknowledged - survivors
        );
        survivors = unacknowledged;
    }
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
