//! Messages of queues against a whole shard: who gets what and when, and that no crash takes back what anybody was told.

use super::world::{CLIENT, World, produce_results};
use crate::effects::Event;
use crate::sim::{Dice, TEARS, Tear};
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::batch::{Attributes, BatchBuilder, Batches, Limits, NewRecord, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};
use tramline_wire::queue::*;
use tramline_wire::topics::Setting;

pub(super) const PLAIN: Attributes<'static> =
    Attributes { deliver_at_us: None, priority: None, ttl_ms: None, group: None, message_id: None };

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) partition: u64,
    pub(super) offset: u64,
    pub(super) lease: u64,
    pub(super) deliveries: u32,
    pub(super) value: Vec<u8>,
}

pub(super) fn create_queue(world: &mut World, name: &str, topic: &str, start: QueueStart, settings: &[(&str, &str)]) -> u64 {
    let settings: Vec<_> = settings.iter().map(|(key, value)| Setting { key, value }).collect();
    let flags = CreateQueueFlags::default();
    let request = CreateQueueRequest { name, topic, flags, start, start_us: 0, settings: List::of(&settings) };
    let asked = world.request(Kind::CreateQueue, &[], |out| request.encode(out));
    world.settle();
    CreateQueueReply::decode(&world.reply_to(asked)).unwrap().queue_uid
}

pub(super) fn alter_queue(world: &mut World, name: &str, settings: &[(&str, &str)]) {
    let settings: Vec<_> = settings.iter().map(|(key, value)| Setting { key, value }).collect();
    let asked = world.request(Kind::AlterQueue, &[], |out| AlterQueueRequest { name, settings: List::of(&settings) }.encode(out));
    world.settle();
    world.reply_to(asked);
}

pub(super) fn send_with(world: &mut World, uid: u64, records: &[(&[u8], Attributes<'_>)]) -> u64 {
    let mut builder = BatchBuilder::new(Limits::default());
    for (value, attributes) in records {
        let record = NewRecord { value: Some(value), timestamp_us: world.now.utc_us, attributes: *attributes, ..NewRecord::default() };
        builder.push(&record).unwrap();
    }
    let mut batch = Vec::new();
    builder.finish_plain(&mut batch, ProducerMark::default());
    world.request(Kind::Produce, &batch, |out| {
        let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
        writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
        writer.finish(out);
    })
}

/// Sends one batch, and waits until it is durable; the offset of its first record.
pub(super) fn send(world: &mut World, uid: u64, values: &[&[u8]]) -> u64 {
    let records: Vec<_> = values.iter().map(|value| (*value, PLAIN)).collect();
    let asked = send_with(world, uid, &records);
    world.settle();
    let meta = world.reply_to(asked);
    let result = produce_results(&meta)[0];
    assert_eq!(result.error, ErrorCode::Ok);
    result.base_offset
}

pub(super) struct Ask<'a> {
    pub(super) queue: u64,
    pub(super) partitions: &'a [u64],
    pub(super) consumer: &'a str,
    pub(super) max: u32,
    pub(super) wait_ms: u32,
}

pub(super) fn ask_receive(world: &mut World, ask: &Ask<'_>) -> u64 {
    world.request(Kind::Receive, &[], |out| {
        ReceiveRequest {
            queue_uid: ask.queue,
            max_messages: ask.max,
            max_bytes: 1 << 20,
            wait_ms: ask.wait_ms,
            visibility_ms: 0,
            consumer: ask.consumer,
            partitions: List::of(ask.partitions),
        }
        .encode(out)
    })
}

fn received(meta: &[u8], payload: &[u8]) -> Vec<Got> {
    let reply = ReceiveReply::decode(meta).unwrap();
    let mut all = Vec::new();
    for (entry, bytes) in reply.parts(payload).unwrap() {
        assert_eq!(entry.error, ErrorCode::Ok);
        let mut values = BTreeMap::new();
        for view in Batches::new(bytes) {
            let view = view.unwrap();
            view.verify_body().unwrap();
            view.verify_header().unwrap();
            assert_eq!(view.partition_uid(), entry.partition_uid);
            for record in view.records(view.stored_values()) {
                let record = record.unwrap();
                values.insert(record.offset, record.value.unwrap_or_default().to_vec());
            }
        }
        for delivery in entry.deliveries.iter() {
            let value = values.get(&delivery.offset).expect("the batch of each message is there").clone();
            let (offset, lease, deliveries) = (delivery.offset, delivery.lease, delivery.deliveries);
            all.push(Got { partition: entry.partition_uid, offset, lease, deliveries, value });
        }
    }
    all
}

/// The reply to `asked`, if there is one.
pub(super) fn taken(world: &mut World, asked: u64) -> Option<Vec<Got>> {
    let at = world.replies.iter().position(|(_, bytes)| {
        matches!(tramline_wire::frame::peek(bytes, &tramline_wire::frame::Limits::PROTOCOL),
            Ok(tramline_wire::frame::Need::Whole(frame, _)) if frame.header.correlation == asked)
    })?;
    let reply = world.replies.remove(at).unwrap();
    world.replies.push_front(reply);
    let (_, meta, payload) = world.reply_ok();
    Some(received(&meta, &payload))
}

pub(super) fn receive_as(world: &mut World, queue: u64, partitions: &[u64], consumer: &str, max: u32) -> Vec<Got> {
    let asked = ask_receive(world, &Ask { queue, partitions, consumer, max, wait_ms: 0 });
    world.settle();
    let _ = world.step(Event::Deadline);
    world.settle();
    taken(world, asked).expect("a receive that does not wait is answered")
}

pub(super) fn receive(world: &mut World, queue: u64, partitions: &[u64], max: u32) -> Vec<Got> {
    receive_as(world, queue, partitions, "w", max)
}

pub(super) fn ask_settle(world: &mut World, queue: u64, entries: &[(&Got, SettleAction, u32)]) -> u64 {
    let entries: Vec<_> = entries
        .iter()
        .map(|(got, action, delay_ms)| SettleEntry {
            partition_uid: got.partition,
            offset: got.offset,
            lease: got.lease,
            action: *action,
            delay_ms: *delay_ms,
            reason: if matches!(action, SettleAction::Nack | SettleAction::Reject) { "because" } else { "" },
        })
        .collect();
    world.request(Kind::Settle, &[], |out| SettleRequest { queue_uid: queue, consumer: "w", entries: List::of(&entries) }.encode(out))
}

pub(super) fn settle(world: &mut World, queue: u64, entries: &[(&Got, SettleAction, u32)]) -> Vec<ErrorCode> {
    let asked = ask_settle(world, queue, entries);
    world.settle();
    SettleReply::decode(&world.reply_to(asked)).unwrap().entries.iter().map(|entry| entry.error).collect()
}

pub(super) fn ack(world: &mut World, queue: u64, got: &[Got]) {
    if got.is_empty() {
        return;
    }
    let entries: Vec<_> = got.iter().map(|got| (got, SettleAction::Ack, 0)).collect();
    assert!(settle(world, queue, &entries).iter().all(|error| error.is_ok()));
}

pub(super) fn pass_ms(world: &mut World, ms: u64) {
    world.pass(ms * 1000);
    let _ = world.step(Event::Deadline);
    world.settle();
}

pub(super) fn offsets(got: &[Got]) -> Vec<u64> {
    got.iter().map(|got| got.offset).collect()
}

pub(super) fn a_queue(settings: &[(&str, &str)]) -> (World, u64, u64) {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let queue = create_queue(&mut world, "q", "t", QueueStart::Latest, settings);
    let uid = world.uids("t")[0];
    (world, queue, uid)
}

/// Two queues count their leases alike: the first of each is of the same message.
#[test]
fn what_one_queue_leased_no_other_one_takes() {
    let (mut world, queue, uid) = a_queue(&[]);
    let other = create_queue(&mut world, "other", "t", QueueStart::Latest, &[]);
    send(&mut world, uid, &[b"a"]);
    let (mine, theirs) = (receive(&mut world, queue, &[uid], 1), receive(&mut world, other, &[uid], 1));
    assert_eq!((mine[0].offset, theirs[0].offset), (0, 0));
    for action in [SettleAction::Ack, SettleAction::Extend, SettleAction::Release, SettleAction::Nack, SettleAction::Reject] {
        let ms = if action == SettleAction::Extend { 30_000 } else { 0 };
        assert_eq!(settle(&mut world, queue, &[(&theirs[0], action, ms)]), [ErrorCode::UnknownLease], "{action:?}");
        assert_eq!(settle(&mut world, other, &[(&mine[0], action, ms)]), [ErrorCode::UnknownLease], "{action:?}");
    }
    ack(&mut world, queue, &mine);
    ack(&mut world, other, &theirs);
}

#[test]
fn messages_are_received_acked_and_gone() {
    let (mut world, queue, uid) = a_queue(&[]);
    send(&mut world, uid, &[b"a", b"b", b"c"]);
    let got = receive(&mut world, queue, &[uid], 2);
    assert_eq!(
        got.iter().map(|got| (got.offset, got.deliveries, got.value.as_slice())).collect::<Vec<_>>(),
        [(0, 1, &b"a"[..]), (1, 1, b"b")]
    );
    ack(&mut world, queue, &got[..1]);
    assert_eq!(offsets(&receive(&mut world, queue, &[uid], 9)), [2]);
    pass_ms(&mut world, 30_100);
    let again = receive(&mut world, queue, &[uid], 9);
    assert_eq!(again.iter().map(|got| (got.offset, got.deliveries)).collect::<Vec<_>>(), [(1, 2), (2, 2)]);
    assert_eq!(settle(&mut world, queue, &[(&got[1], SettleAction::Ack, 0)]), [ErrorCode::LeaseLost]);
    assert_eq!(settle(&mut world, queue, &[(&got[0], SettleAction::Ack, 0)]), [ErrorCode::UnknownLease]);
    ack(&mut world, queue, &again);
    assert!(receive(&mut world, queue, &[uid], 9).is_empty());
}

#[test]
fn a_message_and_the_lease_of_whoever_waits_for_it_share_a_block() {
    let (mut world, queue, uid) = a_queue(&[]);
    let asked = ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 9, wait_ms: 60_000 });
    world.settle();
    let blocks = world.shard.log.stats().blocks_closed;
    send_with(&mut world, uid, &[(b"a", PLAIN)]);
    let _ = world.step(Event::EndOfTurn);
    assert_eq!((world.shard.log.stats().blocks_closed, world.disk.under_way.len()), (blocks + 1, 1), "one block, one write");
    assert!(taken(&mut world, asked).is_none(), "the lease is not durable");
    world.complete(0);
    let _ = world.step(Event::EndOfTurn);
    assert_eq!(world.shard.log.stats().blocks_closed, blocks + 1);
    assert_eq!(offsets(&taken(&mut world, asked).expect("durable, and in memory")), [0]);
}

#[test]
fn a_wait_ends_with_nothing_and_with_its_queue() {
    let (mut world, queue, uid) = a_queue(&[]);
    let asked = ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 9, wait_ms: 500 });
    pass_ms(&mut world, 499);
    assert!(taken(&mut world, asked).is_none());
    pass_ms(&mut world, 1);
    assert_eq!(taken(&mut world, asked), Some(Vec::new()));
    ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 9, wait_ms: 500_000 });
    world.settle();
    world.request(Kind::DeleteQueue, &[], |out| DeleteQueueRequest { name: "q" }.encode(out));
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::QueueDeleted);
    world.reply_ok();
    ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 9, wait_ms: 0 });
    assert_eq!(world.reply_error(), ErrorCode::UnknownQueue);
}

#[test]
fn a_queue_over_older_records_reads_them() {
    let mut world = World::new();
    world.create_topic("t", 2, &[]);
    let uids = world.uids("t");
    for n in 0..40_u8 {
        send(&mut world, uids[usize::from(n % 2)], &[&[n; 3000], &[n; 10]]);
    }
    let queue = create_queue(&mut world, "q", "t", QueueStart::Earliest, &[]);
    let mut seen = BTreeSet::new();
    loop {
        let got = receive(&mut world, queue, &uids, 7);
        if got.is_empty() {
            break;
        }
        for got in &got {
            assert!(seen.insert((got.partition, got.offset)));
            assert_eq!(u64::from(got.value[0]), got.offset / 2 * 2 + if got.partition == uids[0] { 0 } else { 1 });
        }
        ack(&mut world, queue, &got);
    }
    assert_eq!(seen.len(), 80);
    let latest = create_queue(&mut world, "later", "t", QueueStart::Latest, &[]);
    assert!(receive(&mut world, latest, &uids, 7).is_empty());
    send(&mut world, uids[1], &[b"new"]);
    assert_eq!(receive(&mut world, latest, &uids, 7).len(), 1);
    assert_eq!(receive(&mut world, queue, &uids, 7).len(), 1, "each queue for itself");
}

#[test]
fn what_is_on_its_way_to_a_connection_that_is_gone_goes_to_others() {
    let (mut world, queue, uid) = a_queue(&[]);
    ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 9, wait_ms: 60_000 });
    send_with(&mut world, uid, &[(b"a", PLAIN), (b"b", PLAIN)]);
    let _ = world.step(Event::EndOfTurn);
    let _ = world.step(Event::Closed { conn: CLIENT });
    world.settle();
    world.replies.clear();
    world.connect();
    let got = receive(&mut world, queue, &[uid], 9);
    assert_eq!(
        got.iter().map(|got| (got.offset, got.deliveries)).collect::<Vec<_>>(),
        [(0, 1), (1, 1)],
        "it was not delivered: not counted"
    );
    let _ = world.step(Event::Closed { conn: CLIENT });
    world.connect();
    assert!(receive(&mut world, queue, &[uid], 9).is_empty());
    ack(&mut world, queue, &got);
}

#[test]
fn one_consumer_at_a_time_has_an_exclusive_queue() {
    let (mut world, queue, uid) = a_queue(&[("exclusive", "true"), ("visibility.timeout.ms", "5000")]);
    send(&mut world, uid, &[b"a", b"b", b"c"]);
    let a = receive_as(&mut world, queue, &[uid], "w", 1);
    assert_eq!(offsets(&a), [0]);
    assert!(receive_as(&mut world, queue, &[uid], "other", 1).is_empty());
    ack(&mut world, queue, &a);
    pass_ms(&mut world, 9_000);
    assert!(receive_as(&mut world, queue, &[uid], "other", 1).is_empty(), "it was heard of nine seconds ago");
    let asked = ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "other", max: 1, wait_ms: 60_000 });
    world.settle();
    pass_ms(&mut world, 1_000);
    assert_eq!(offsets(&taken(&mut world, asked).expect("it is silent")), [1]);
    assert!(receive_as(&mut world, queue, &[uid], "w", 1).is_empty());
}

/// Two consumers with as many messages as they may have wait, and there are more: the shard looks at both once, and not for ever.
#[test]
fn those_who_may_have_no_more_wait_until_they_settle_something() {
    let (mut world, queue, uid) = a_queue(&[("max.in.flight.per.consumer", "1")]);
    send(&mut world, uid, &[b"a", b"b", b"c", b"d"]);
    assert_eq!(offsets(&receive_as(&mut world, queue, &[uid], "a", 1)), [0]);
    let b = receive_as(&mut world, queue, &[uid], "b", 1);
    let wait = |world: &mut World, consumer| ask_receive(world, &Ask { queue, partitions: &[uid], consumer, max: 4, wait_ms: 1000 });
    let (first, second) = (wait(&mut world, "a"), wait(&mut world, "b"));
    world.settle();
    assert!(taken(&mut world, first).is_none() && taken(&mut world, second).is_none());
    ack(&mut world, queue, &b);
    world.settle();
    assert!(taken(&mut world, first).is_none(), "that one has settled nothing");
    assert_eq!(offsets(&taken(&mut world, second).expect("a message, and room for it")), [2]);
}

#[test]
fn a_crash_leaves_an_exclusive_queue_to_whoever_has_leases() {
    let (mut world, queue, uid) = a_queue(&[("exclusive", "true"), ("visibility.timeout.ms", "5000")]);
    send(&mut world, uid, &[b"a", b"b", b"c"]);
    let held = receive_as(&mut world, queue, &[uid], "w", 1);
    let mut world = world.crash(Tear::Nothing, &mut Dice(1));
    world.settle();
    let asked = ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "other", max: 1, wait_ms: 60_000 });
    world.settle();
    assert!(taken(&mut world, asked).is_none(), "another has a lease, whom nobody knows as the holder any more");
    ack(&mut world, queue, &held);
    assert_eq!(offsets(&taken(&mut world, asked).expect("nobody has a lease")), [1]);
    assert!(receive_as(&mut world, queue, &[uid], "w", 1).is_empty());
}

#[test]
fn a_pause_holds_everything_and_an_end_of_it_lets_it_go() {
    let (mut world, queue, uid) = a_queue(&[]);
    alter_queue(&mut world, "q", &[("paused", "true")]);
    let asked = ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 9, wait_ms: 60_000 });
    send(&mut world, uid, &[b"a"]);
    assert!(taken(&mut world, asked).is_none());
    alter_queue(&mut world, "q", &[("paused", "false")]);
    assert_eq!(offsets(&taken(&mut world, asked).expect("it goes on")), [0]);
}

#[test]
fn delayed_messages_come_when_they_are_due() {
    let (mut world, queue, uid) = a_queue(&[]);
    let later = Attributes { deliver_at_us: Some(world.now.utc_us + 300_000), ..PLAIN };
    send_with(&mut world, uid, &[(b"later", later), (b"now", PLAIN), (b"never", later)]);
    world.settle();
    world.reply_ok();
    assert_eq!(offsets(&receive(&mut world, queue, &[uid], 9)), [1]);
    let asked = ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 9, wait_ms: 60_000 });
    let entries = [MessageAt { partition_uid: uid, offset: 2 }, MessageAt { partition_uid: uid, offset: 7 }];
    let deleted =
        world.request(Kind::DeleteMessages, &[], |out| DeleteMessagesRequest { queue_uid: queue, entries: List::of(&entries) }.encode(out));
    world.settle();
    let meta = world.reply_to(deleted);
    let errors: Vec<_> = DeleteMessagesReply::decode(&meta).unwrap().entries.iter().map(|entry| entry.error).collect();
    assert_eq!(errors, [ErrorCode::Ok, ErrorCode::UnknownMessage]);
    pass_ms(&mut world, 299);
    assert!(taken(&mut world, asked).is_none());
    pass_ms(&mut world, 1);
    assert_eq!(offsets(&taken(&mut world, asked).expect("due")), [0]);
}

#[test]
fn whoever_asks_for_what_cannot_be_is_told_so() {
    let (mut world, queue, uid) = a_queue(&[]);
    let mut refused = |meta: &dyn Fn(&mut Vec<u8>), kind: Kind| {
        world.request(kind, &[], |out| meta(out));
        world.settle();
        world.reply_error()
    };
    let receive = |partitions: &'static [u64], max_messages, max_bytes, visibility_ms, consumer: &'static str| {
        move |out: &mut Vec<u8>| {
            let partitions = List::of(partitions);
            ReceiveRequest { queue_uid: queue, max_messages, max_bytes, wait_ms: 0, visibility_ms, consumer, partitions }.encode(out)
        }
    };
    const INVALID: ErrorCode = ErrorCode::InvalidRequest;
    let long: &'static str = Box::leak("x".repeat(256).into_boxed_str());
    assert_eq!(refused(&receive(&[], 1, 1, 0, "w"), Kind::Receive), INVALID);
    assert_eq!(refused(&receive(&[1], 0, 1, 0, "w"), Kind::Receive), INVALID);
    assert_eq!(refused(&receive(&[1], 4097, 1, 0, "w"), Kind::Receive), INVALID);
    assert_eq!(refused(&receive(&[1], 1, 0, 0, "w"), Kind::Receive), INVALID);
    assert_eq!(refused(&receive(&[1], 1, 1, 99, "w"), Kind::Receive), INVALID);
    assert_eq!(refused(&receive(&[1], 1, 1, 0, long), Kind::Receive), INVALID);
    let settle = |action, delay_ms, reason: &'static str| {
        move |out: &mut Vec<u8>| {
            let entry = SettleEntry { partition_uid: uid, offset: 0, lease: 1, action, delay_ms, reason };
            SettleRequest { queue_uid: queue, consumer: "w", entries: List::of(&[entry]) }.encode(out)
        }
    };
    assert_eq!(refused(&settle(SettleAction::Ack, 1, ""), Kind::Settle), INVALID);
    assert_eq!(refused(&settle(SettleAction::Ack, 0, "why"), Kind::Settle), INVALID);
    assert_eq!(refused(&settle(SettleAction::Reject, 0, Box::leak("x".repeat(257).into_boxed_str())), Kind::Settle), INVALID);
    let got = Got { partition: uid, offset: 0, lease: 1, deliveries: 1, value: Vec::new() };
    let elsewhere = Got { partition: 999, ..got.clone() };
    let far = [(&got, SettleAction::Nack, 86_400_001), (&got, SettleAction::Extend, 99)];
    assert_eq!(super::queue_messages::settle(&mut world, queue, &far), [ErrorCode::InvalidAttribute; 2]);
    let entries = [(&got, SettleAction::Ack, 0), (&elsewhere, SettleAction::Ack, 0)];
    assert_eq!(super::queue_messages::settle(&mut world, queue, &entries), [ErrorCode::UnknownLease, ErrorCode::UnknownPartition]);
}

/// What the client was told, over crashes at any point of the disk's work: no acked message comes again, none is lost, deliveries are counted on, and
/// a message has one lease.
#[test]
fn no_crash_takes_back_what_anybody_was_told() {
    for seed in 0..24_u64 {
        let mut dice = Dice(seed);
        let (mut world, queue, uid) = a_queue(&[("visibility.timeout.ms", "2000"), ("max.deliveries", "-1"), ("retry.initial.ms", "100")]);
        let (mut sent, mut acked): (BTreeSet<u64>, BTreeSet<u64>) = Default::default();
        let mut deliveries: BTreeMap<u64, u32> = BTreeMap::new();
        let mut held: Vec<Got> = Vec::new();
        for round in 0..12 {
            for _ in 0..dice.below(12) {
                match dice.below(4) {
                    0 => {
                        let value = vec![round as u8; 1 + dice.below(7_000) as usize];
                        sent.insert(send(&mut world, uid, &[&value]));
                    }
                    1 => {
                        for got in receive(&mut world, queue, &[uid], 1 + dice.below(4) as u32) {
                            assert!(!acked.contains(&got.offset), "seed {seed}: {got:?} was acked");
                            let before = deliveries.insert(got.offset, got.deliveries).unwrap_or(0);
                            assert!(got.deliveries > before, "seed {seed}: {got:?} after {before}");
                            held.retain(|other| other.offset != got.offset);
                            held.push(got);
                        }
                    }
                    2 if !held.is_empty() => {
                        let got = held.swap_remove(dice.below(held.len() as u64) as usize);
                        let nacks = dice.below(3) == 0;
                        let action = if nacks { SettleAction::Nack } else { SettleAction::Ack };
                        let error = settle(&mut world, queue, &[(&got, action, 0)])[0];
                        if error.is_ok() && !nacks {
                            acked.insert(got.offset);
                        }
                    }
                    _ => pass_ms(&mut world, dice.below(1_500)),
                }
            }
            // Something is under way when the machine dies.
            match dice.below(3) {
                0 => {
                    send_with(&mut world, uid, &[(b"lost", PLAIN)]);
                }
                1 if !held.is_empty() => {
                    let got = held[0].clone();
                    ask_settle(&mut world, queue, &[(&got, SettleAction::Ack, 0)]);
                }
                _ => {
                    ask_receive(&mut world, &Ask { queue, partitions: &[uid], consumer: "w", max: 2, wait_ms: 0 });
                }
            }
            for _ in 0..dice.below(4) {
                world.turn();
            }
            world = world.crash(TEARS[dice.below(TEARS.len() as u64) as usize], &mut dice);
            world.settle();
            // Whether the last one was acked is not known.
            held.clear();
            pass_ms(&mut world, 2_100);
        }
        let mut unsettled: BTreeSet<u64> = BTreeSet::new();
        for _ in 0..200 {
            pass_ms(&mut world, 100);
            let got = receive(&mut world, queue, &[uid], 16);
            unsettled.extend(got.iter().map(|got| got.offset));
            assert!(got.iter().all(|got| !acked.contains(&got.offset)), "seed {seed}");
            ack(&mut world, queue, &got);
        }
        let lost: Vec<_> = sent.iter().filter(|offset| !acked.contains(offset) && !unsettled.contains(offset)).collect();
        // One per crash: acked in the moment of the crash, without an answer.
        assert!(lost.len() <= 12, "seed {seed}: {lost:?}");
    }
}

#[test]
fn a_state_that_a_checkpoint_covers_is_found_again() {
    let (mut world, queue, uid) = a_queue(&[("visibility.timeout.ms", "600000")]);
    let mut dice = Dice(5);
    let mut held = Vec::new();
    let mut acked = BTreeSet::new();
    // Some segments' worth.
    for n in 0..120_u64 {
        send(&mut world, uid, &[&[n as u8; 7_000], b"small"]);
        let got = receive(&mut world, queue, &[uid], 2);
        assert_eq!(got.len(), 2);
        let (one, other) = (got[0].clone(), got[1].clone());
        if n % 3 == 0 {
            ack(&mut world, queue, std::slice::from_ref(&one));
            acked.insert(one.offset);
            held.push(other);
        } else {
            ack(&mut world, queue, &got);
            acked.extend(offsets(&got));
        }
    }
    assert!(world.shard.log.stats().segments_sealed > 2, "{:?}", world.shard.log.stats());
    let mut world = world.crash(Tear::Nothing, &mut dice);
    world.settle();
    assert!(receive(&mut world, queue, &[uid], 9).is_empty(), "all of it is leased");
    // Tokens outlive the node.
    ack(&mut world, queue, &held[..20]);
    pass_ms(&mut world, 601_000);
    let got = receive(&mut world, queue, &[uid], 100);
    assert_eq!(offsets(&got), offsets(&held[20..]));
    assert!(got.iter().all(|got| got.deliveries == 2));
}

/// What a receiver allows is more than one batch, and less than two; and less than one.
#[test]
fn a_reply_is_within_the_bytes_that_were_asked_for_or_one_batch() {
    let (mut world, queue, uid) = a_queue(&[]);
    let uids = [uid];
    for _ in 0..4 {
        send(&mut world, uid, &[&[7; 500]]);
    }
    for (max_bytes, expected) in [(1, 1), (900, 1), (1 << 20, 2)] {
        let asked = world.request(Kind::Receive, &[], |out| {
            let partitions = List::of(&uids);
            ReceiveRequest { queue_uid: queue, max_messages: 10, max_bytes, wait_ms: 0, visibility_ms: 0, consumer: "w", partitions }
                .encode(out)
        });
        world.settle();
        assert_eq!(taken(&mut world, asked).expect("there is something").len(), expected, "{max_bytes}");
    }
}
