//! Dead messages against a whole shard: what arrives in the dead-letter topic, when it has to wait, and that no crash loses one.

use super::queue_messages::{
    Got, PLAIN, a_queue, ack, alter_queue, ask_settle, create_queue, offsets, pass_ms, receive, send, send_with, settle,
};
use super::world::World;
use crate::config::{DiskLevel, DiskLook};
use crate::effects::Event;
use crate::ids::{PartitionUid, ShardId, SubscriptionUid};
use crate::shard::mesh::{Letters, Message, QueueStatus};
use crate::sim::{Dice, TEARS, Tear};
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::batch::{Attributes, BatchBuilder, Batches, Limits, NewRecord, ProducerMark};
use tramline_wire::codec::Codec;
use tramline_wire::compression::{Compressor, Decompressor};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::frame::FLAG_ERROR;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};
use tramline_wire::queue::{DeleteQueueRequest, QueueStart, SettleAction};
use tramline_wire::topics::{AlterTopicRequest, DeleteTopicRequest, Setting};

/// A letter as a consumer of the dead-letter topic sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Letter {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_us: i64,
    id: String,
    headers: Vec<(String, String)>,
}

impl Letter {
    fn header(&self, name: &str) -> &str {
        let name = if name.contains('-') { name.to_owned() } else { format!("tramline-dead-letter-{name}") };
        &self.headers.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no header {name}: {self:?}")).1
    }

    fn attempts(&self) -> Vec<Vec<String>> {
        let lines = self.headers.iter().filter(|(name, _)| name == "tramline-dead-letter-attempt");
        lines.map(|(_, line)| line.split('\t').map(str::to_owned).collect()).collect()
    }
}

fn end_of(world: &World, uid: u64) -> u64 {
    let slot = world.shard.partitions.slot(PartitionUid(uid)).expect("a partition");
    world.shard.partitions.get(slot).expect("a partition").committed_end()
}

/// What is in a partition, which is read as any consumer would.
fn letters(world: &mut World, uid: u64) -> Vec<Letter> {
    let mut found = Vec::new();
    while (found.len() as u64) < end_of(world, uid) {
        let offset = found.len() as u64;
        let asked = world.request(Kind::Fetch, &[], |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 1000, 1, 1 << 20);
            writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes: 1 << 20 });
            writer.finish(out);
        });
        world.settle();
        let (meta, payload) = world.parts_of_reply_to(asked);
        let reply = FetchReply::decode(&meta).unwrap();
        let (entry, bytes) = reply.parts(&payload).unwrap().next().unwrap();
        assert_eq!(entry.error, ErrorCode::Ok);
        for view in Batches::new(bytes) {
            let view = view.unwrap();
            view.verify_body().unwrap();
            for record in view.records(view.stored_values()).map(Result::unwrap).filter(|record| record.offset >= offset) {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                assert_eq!((record.attributes.deliver_at_us, record.attributes.ttl_ms), (None, None));
                found.push(Letter {
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    timestamp_us: record.timestamp_us,
                    id: text(record.attributes.message_id.expect("every letter has one")),
                    headers: record.headers.map(|header| (header.name.to_owned(), text(header.value))).collect(),
                });
            }
        }
    }
    found
}

fn status(world: &World, queue: u64, uid: u64) -> QueueStatus {
    world.shard.queue_status(SubscriptionUid(queue), &[PartitionUid(uid)]).remove(0)
}

fn refuse(world: &mut World, queue: u64, got: &Got, action: SettleAction) {
    assert_eq!(settle(world, queue, &[(got, action, 0)]), [ErrorCode::Ok]);
}

/// Receives one message and gives it up.
fn reject_next(world: &mut World, queue: u64, uid: u64) -> u64 {
    let got = receive(world, queue, &[uid], 1).remove(0);
    refuse(world, queue, &got, SettleAction::Reject);
    got.offset
}

fn alter_topic(world: &mut World, name: &str, key: &str, value: &str) {
    let settings = [Setting { key, value }];
    let asked = world.request(Kind::AlterTopic, &[], |out| {
        AlterTopicRequest { name, partitions: 0, replication: 0, settings: List::of(&settings) }.encode(out)
    });
    world.settle();
    world.reply_to(asked);
}

fn delete_topic(world: &mut World, name: &str) {
    let asked = world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name }.encode(out));
    world.settle();
    world.reply_to(asked);
}

/// A topic `t`, a queue `q` on it, and the topic `dead` for what is dead: uids of the queue and of both partitions.
fn a_queue_with_letters(settings: &[(&str, &str)]) -> (World, u64, u64, u64) {
    let settings: Vec<_> = [("dead.letter.topic", "dead")].iter().chain(settings).copied().collect();
    let (mut world, queue, uid) = a_queue(&settings);
    let dead = world.uids("dead")[0];
    (world, queue, uid, dead)
}

fn produce(world: &mut World, uid: u64, batch: &[u8]) {
    let asked = world.request(Kind::Produce, batch, |out| {
        let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
        writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
        writer.finish(out);
    });
    world.settle();
    let meta = world.reply_to(asked);
    assert_eq!(super::world::produce_results(&meta)[0].error, ErrorCode::Ok);
}

#[test]
fn a_message_that_fails_too_often_goes_to_the_topic_with_its_history() {
    let (mut world, queue, uid, dead) = a_queue_with_letters(&[("max.deliveries", "3"), ("retry.initial.ms", "0")]);
    let sent_us = world.now.utc_us;
    let mut builder = BatchBuilder::new(Limits::default());
    let attributes = Attributes { priority: Some(4), group: Some(b"g"), message_id: Some(b"order-1"), ..PLAIN };
    let headers: &[(&str, &[u8])] = &[("x-trace", b"1")];
    builder.push(&NewRecord { key: Some(b"k"), value: Some(b"bad"), headers, timestamp_us: sent_us, attributes }).unwrap();
    let mut batch = Vec::new();
    builder.finish_plain(&mut batch, ProducerMark::default());
    produce(&mut world, uid, &batch);
    for round in 0..3 {
        assert_eq!(end_of(&world, dead), 0, "round {round}");
        let got = receive(&mut world, queue, &[uid], 9).remove(0);
        world.pass(1_000_000);
        refuse(&mut world, queue, &got, SettleAction::Nack);
    }
    let letters = letters(&mut world, dead);
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.key.as_deref(), letter.value.as_deref(), letter.timestamp_us), (Some(&b"k"[..]), Some(&b"bad"[..]), sent_us));
    assert_eq!(letter.id, format!("{queue}/{uid}/0"));
    let told = ["queue", "topic", "partition", "offset", "deliveries", "reason", "message-id", "x-trace"];
    let told = told.map(|name| letter.header(if name == "message-id" { "tramline-dead-letter-message-id" } else { name }));
    assert_eq!(told, ["q", "t", "0", "0", "3", "nacked", "order-1", "1"]);
    assert_eq!(letter.header("timestamp"), "2023-11-14T22:13:20.000000Z");
    assert_eq!(letter.header("tramline-dead-letter-first-at"), "2023-11-14T22:13:21.000000Z");
    assert_eq!(letter.header("at"), "2023-11-14T22:13:23.000000Z");
    let line = |n: u32| vec![n.to_string(), format!("2023-11-14T22:13:2{n}.000000Z"), "nacked".into(), "w".into(), "because".into()];
    assert_eq!(letter.attempts(), [line(1), line(2), line(3)]);
    let status = status(&world, queue, uid);
    assert_eq!((status.dead, status.settled_to, status.counts.dead_lettered), (0, 1, 1));
    assert_eq!(world.shard.metrics.counters.queue_dead_lettered_nacked, 1);
    assert!(receive(&mut world, queue, &[uid], 9).is_empty());
}

#[test]
fn leases_that_run_out_rejects_and_times_to_live_lead_there_too() {
    let (mut world, queue, uid, dead) = a_queue_with_letters(&[("max.deliveries", "1"), ("visibility.timeout.ms", "1000")]);
    send(&mut world, uid, &[b"forgotten"]);
    assert_eq!(receive(&mut world, queue, &[uid], 1).len(), 1);
    pass_ms(&mut world, 1_010);
    send(&mut world, uid, &[b"refused"]);
    assert_eq!(reject_next(&mut world, queue, uid), 1);
    send_with(&mut world, uid, &[(b"late", Attributes { ttl_ms: Some(500), ..PLAIN })]);
    world.settle();
    world.reply_ok();
    pass_ms(&mut world, 600);
    let letters = letters(&mut world, dead);
    let told: Vec<_> = letters.iter().map(|l| (l.value.as_deref().unwrap(), l.header("reason"), l.header("deliveries"))).collect();
    assert_eq!(told, [(&b"forgotten"[..], "lease expired", "1"), (b"refused", "rejected", "1"), (b"late", "expired", "0")]);
    assert_eq!(letters[1].attempts()[0][2..], ["rejected", "w", "because"]);
    let counters = &world.shard.metrics.counters;
    let counted = [counters.queue_dead_lettered_lease_expired, counters.queue_dead_lettered_rejected, counters.queue_dead_lettered_expired];
    assert_eq!(counted, [1, 1, 1]);
    assert_eq!(status(&world, queue, uid).settled_to, 3);
}

#[test]
fn a_message_is_taken_out_of_a_compressed_batch() {
    for codec in [Codec::Lz4, Codec::Zstd, Codec::Snappy] {
        let (mut world, queue, uid, dead) = a_queue_with_letters(&[]);
        let mut builder = BatchBuilder::new(Limits::default());
        for n in 0..3_u8 {
            let timestamp_us = world.now.utc_us;
            builder
                .push(&NewRecord { value: Some(&[n; 700]), timestamp_us, headers: &[("n", &[b'0' + n])], ..NewRecord::default() })
                .unwrap();
        }
        let mut batch = Vec::new();
        let mut compressor = Compressor::new(codec).unwrap();
        builder.finish(&mut batch, ProducerMark::default(), codec, |values, out| compressor.compress(values, out)).unwrap();
        assert!(batch.len() < 1000, "it is compressed");
        produce(&mut world, uid, &batch);
        let got = receive_compressed(&mut world, queue, uid);
        refuse(&mut world, queue, &got[1], SettleAction::Reject);
        let letters = letters(&mut world, dead);
        assert_eq!(letters.len(), 1, "{codec}");
        assert_eq!((letters[0].value.as_deref(), letters[0].headers[0].1.as_str()), (Some(&[1; 700][..]), "1"));
        assert_eq!(letters[0].header("offset"), "1");
    }
}

/// What `receive` would answer, were the values not compressed.
fn receive_compressed(world: &mut World, queue: u64, uid: u64) -> Vec<Got> {
    use tramline_wire::queue::{ReceiveReply, ReceiveRequest};
    let asked = world.request(Kind::Receive, &[], |out| {
        let partitions = [uid];
        ReceiveRequest {
            queue_uid: queue,
            max_messages: 9,
            max_bytes: 1 << 20,
            wait_ms: 0,
            visibility_ms: 0,
            consumer: "w",
            partitions: List::of(&partitions),
        }
        .encode(out)
    });
    world.settle();
    let (meta, payload) = world.parts_of_reply_to(asked);
    let reply = ReceiveReply::decode(&meta).unwrap();
    let (entry, bytes) = reply.parts(&payload).unwrap().next().unwrap();
    let view = Batches::new(bytes).next().unwrap().unwrap();
    let mut decompressor = Decompressor::new();
    let values = decompressor.decompress(view.codec(), view.stored_values(), view.values_len(), 1 << 20).unwrap();
    assert_ne!(view.codec(), Codec::None);
    let value_at = |offset| view.records(values).map(Result::unwrap).find(|r| r.offset == offset).unwrap().value.unwrap().to_vec();
    let got = |d: tramline_wire::queue::Delivery| Got {
        partition: uid,
        offset: d.offset,
        lease: d.lease,
        deliveries: d.deliveries,
        value: value_at(d.offset),
    };
    entry.deliveries.iter().map(got).collect()
}

#[test]
fn many_arrive_in_order_and_only_once() {
    let (mut world, queue, uid, dead) = a_queue_with_letters(&[]);
    alter_topic(&mut world, "dead", "batch.max.bytes", "4096");
    for n in 0..50_u8 {
        send(&mut world, uid, &[&[n; 100]]);
    }
    let got = receive(&mut world, queue, &[uid], 50);
    assert_eq!(got.len(), 50);
    let entries: Vec<_> = got.iter().map(|got| (got, SettleAction::Reject, 0)).collect();
    settle(&mut world, queue, &entries);
    let letters = letters(&mut world, dead);
    let values: Vec<u8> = letters.iter().map(|letter| letter.value.as_deref().unwrap()[0]).collect();
    assert_eq!(values, (0..50).collect::<Vec<u8>>());
    assert_eq!(status(&world, queue, uid).counts.dead_lettered, 50);
}

#[test]
fn a_letter_that_does_not_fit_stays_until_it_does() {
    let (mut world, queue, uid, dead) = a_queue_with_letters(&[]);
    alter_topic(&mut world, "dead", "record.max.bytes", "1024");
    send(&mut world, uid, &[&[1; 1000], b"small"]);
    let got = receive(&mut world, queue, &[uid], 2);
    let entries: Vec<_> = got.iter().map(|got| (got, SettleAction::Reject, 0)).collect();
    settle(&mut world, queue, &entries);
    let found = letters(&mut world, dead);
    assert_eq!(found.iter().map(|letter| letter.value.as_deref().unwrap()).collect::<Vec<_>>(), [b"small"], "nothing waits behind it");
    let before = world.shard.log.stats().reads + world.shard.log.stats().appends;
    pass_ms(&mut world, 100_000);
    assert_eq!(world.shard.log.stats().reads + world.shard.log.stats().appends, before, "it is not tried again for nothing");
    assert_eq!(status(&world, queue, uid).dead, 1);
    // A later death does not wake it either, but is moved.
    send(&mut world, uid, &[b"next"]);
    reject_next(&mut world, queue, uid);
    assert_eq!((status(&world, queue, uid).dead, end_of(&world, dead)), (1, 2));
    alter_topic(&mut world, "dead", "record.max.bytes", "2048");
    let found = letters(&mut world, dead);
    assert_eq!((status(&world, queue, uid).dead, found.len()), (0, 3));
    assert_eq!(found[2].value.as_deref(), Some(&[1; 1000][..]));
}

#[test]
fn a_topic_that_is_gone_is_waited_for() {
    let (mut world, queue, uid, _) = a_queue_with_letters(&[]);
    delete_topic(&mut world, "dead");
    send(&mut world, uid, &[b"a", b"b"]);
    reject_next(&mut world, queue, uid);
    pass_ms(&mut world, 1_000);
    pass_ms(&mut world, 1_000);
    assert_eq!(status(&world, queue, uid).dead, 1);
    world.create_topic("dead", 3, &[]);
    let dead = world.uids("dead");
    assert_eq!((letters(&mut world, dead[0]).len(), status(&world, queue, uid).dead), (1, 0));
    reject_next(&mut world, queue, uid);
    assert_eq!(letters(&mut world, dead[0]).len(), 2, "partition 0 of the queue's topic");
}

#[test]
fn a_full_disk_is_waited_for() {
    let (mut world, queue, uid, dead) = a_queue_with_letters(&[]);
    send(&mut world, uid, &[b"a"]);
    let look = |level, segments| {
        let room_bytes = u64::from(segments) * (128 << 10);
        DiskLook { level, segments, free_bytes: 1, refuse_bytes: 1, slow_bytes: 0, room_bytes }
    };
    world.shard.set_disk(look(DiskLevel::Refuse, 0));
    let got = receive(&mut world, queue, &[uid], 1);
    let mut taken = 0;
    loop {
        world.produce(uid, Level::Durable, &[vec![0; 4_000]]);
        world.settle();
        let (_, flags, ..) = world.reply().expect("an answer");
        if flags & FLAG_ERROR != 0 {
            break;
        }
        taken += 1;
        assert!(taken < 1000, "the files hold less");
    }
    refuse(&mut world, queue, &got[0], SettleAction::Reject);
    pass_ms(&mut world, 1_000);
    assert_eq!((status(&world, queue, uid).dead, end_of(&world, dead)), (1, 0));
    world.shard.set_disk(look(DiskLevel::Enough, 4));
    world.settle();
    pass_ms(&mut world, 1_000);
    assert_eq!((status(&world, queue, uid).dead, letters(&mut world, dead).len()), (0, 1));
}

#[test]
fn what_was_dead_before_there_was_a_topic_for_it_goes_there() {
    let (mut world, queue, uid) = a_queue(&[]);
    send(&mut world, uid, &[b"a"]);
    reject_next(&mut world, queue, uid);
    assert_eq!(status(&world, queue, uid).dead, 1);
    alter_queue(&mut world, "q", &[("dead.letter.topic", "dead")]);
    let dead = world.uids("dead")[0];
    assert_eq!((letters(&mut world, dead).len(), status(&world, queue, uid).dead), (1, 0));
}

#[test]
fn two_queues_with_one_dead_letter_topic_lose_none_of_their_letters() {
    let (mut world, first, uid, dead) = a_queue_with_letters(&[]);
    let second = create_queue(&mut world, "second", "t", QueueStart::Latest, &[("dead.letter.topic", "dead")]);
    let graveyard = create_queue(&mut world, "graveyard", "dead", QueueStart::Latest, &[]);
    send_with(&mut world, uid, &[(b"a", Attributes { message_id: Some(b"same"), ..PLAIN })]);
    world.settle();
    world.reply_ok();
    for queue in [first, second] {
        reject_next(&mut world, queue, uid);
    }
    let got = receive(&mut world, graveyard, &[dead], 9);
    assert_eq!(offsets(&got), [0, 1], "each queue's letter is one of its own");
}

#[test]
fn a_queue_that_is_deleted_on_the_way_takes_its_dead_messages_along() {
    for steps in 0..12 {
        let (mut world, queue, uid, _) = a_queue_with_letters(&[]);
        send(&mut world, uid, &[b"a"]);
        let got = receive(&mut world, queue, &[uid], 1).remove(0);
        ask_settle(&mut world, queue, &[(&got, SettleAction::Reject, 0)]);
        for _ in 0..steps {
            world.turn();
            if steps % 2 == 0 && !world.disk.under_way.is_empty() {
                world.complete(0);
            }
        }
        world.replies.clear();
        let asked = world.request(Kind::DeleteQueue, &[], |out| DeleteQueueRequest { name: "q" }.encode(out));
        world.settle();
        world.reply_to(asked);
        pass_ms(&mut world, 5_000);
        assert!(world.fatal.is_none());
    }
}

/// Over crashes at any point: a message that was sent and not acked is in the queue, or in the topic, or in both; and letters of one message have one id.
#[test]
fn no_crash_loses_a_dead_message() {
    for seed in 0..24_u64 {
        let mut dice = Dice(seed);
        let settings = [("max.deliveries", "2"), ("retry.initial.ms", "0"), ("visibility.timeout.ms", "2000")];
        let (mut world, queue, uid, dead) = a_queue_with_letters(&settings);
        let (mut sent, mut acked): (BTreeMap<u64, Vec<u8>>, BTreeSet<u64>) = Default::default();
        for round in 0..10_u8 {
            for _ in 0..1 + dice.below(6) {
                let value = vec![round; 1 + dice.below(900) as usize];
                sent.insert(send(&mut world, uid, &[&value]), value);
            }
            for got in receive(&mut world, queue, &[uid], 1 + dice.below(6) as u32) {
                let action = [SettleAction::Nack, SettleAction::Reject, SettleAction::Ack][dice.below(3) as usize];
                if action != SettleAction::Ack {
                    // Some are on their way when the machine dies.
                    ask_settle(&mut world, queue, &[(&got, action, 0)]);
                } else if settle(&mut world, queue, &[(&got, action, 0)])[0].is_ok() {
                    acked.insert(got.offset);
                }
            }
            for _ in 0..dice.below(6) {
                world.turn();
                if dice.below(2) == 0 && !world.disk.under_way.is_empty() {
                    let index = dice.below(world.disk.under_way.len() as u64) as usize;
                    world.complete(index);
                }
            }
            if dice.below(4) > 0 {
                world = world.crash(TEARS[dice.below(TEARS.len() as u64) as usize], &mut dice);
            }
            world.settle();
            world.replies.clear();
            pass_ms(&mut world, 2_100);
        }
        let mut left = BTreeSet::new();
        for _ in 0..100 {
            pass_ms(&mut world, 100);
            let got = receive(&mut world, queue, &[uid], 16);
            left.extend(offsets(&got));
            ack(&mut world, queue, &got);
        }
        let mut moved = BTreeMap::new();
        for letter in letters(&mut world, dead) {
            let offset: u64 = letter.header("offset").parse().unwrap();
            assert_eq!(letter.id, format!("{queue}/{uid}/{offset}"), "seed {seed}");
            assert_eq!(letter.value.as_ref(), sent.get(&offset), "seed {seed}: offset {offset}");
            assert!(!acked.contains(&offset), "seed {seed}: {offset} was acked");
            *moved.entry(offset).or_insert(0) += 1;
        }
        let lost: Vec<_> = sent.keys().filter(|at| !acked.contains(at) && !left.contains(at) && !moved.contains_key(at)).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
        assert!(!moved.is_empty(), "seed {seed}");
        let status = status(&world, queue, uid);
        assert_eq!((status.dead, status.settled_to), (0, status.committed_end), "seed {seed}");
    }
}

/// A shard of two, a queue's partition on it, and a dead message whose letter goes to the other one: the queue, the partition, where the letter goes.
fn a_letter_for_another_shard() -> (World, u64, u64, u64) {
    let mut world = World::with(&[("shards", "2")]);
    world.create_topic("t", 8, &[]);
    world.create_topic("dead", 3, &[]);
    let queue = create_queue(&mut world, "q", "t", QueueStart::Latest, &[("dead.letter.topic", "dead")]);
    let view = std::sync::Arc::clone(&world.shard.view);
    let (from, to) = (view.topic("t").expect("created"), view.topic("dead").expect("created"));
    let crosses = |p: &&crate::control::PartitionView| p.shard == ShardId(0) && to.partitions[p.number as usize % 3].shard == ShardId(1);
    let place = from.partitions.iter().find(crosses).expect("one of eight");
    let (uid, to) = (place.uid.0, to.partitions[place.number as usize % 3].uid.0);
    send(&mut world, uid, &[b"a"]);
    reject_next(&mut world, queue, uid);
    (world, queue, uid, to)
}

/// What the other shard was asked to append.
fn posted(world: &mut World) -> Letters {
    let (to, message) = world.mesh.pop().expect("a letter");
    let Message::Letters(letters) = message else { panic!("{message:?}") };
    assert_eq!((to, world.mesh.len()), (ShardId(1), 0));
    *letters
}

fn answer(world: &mut World, question: u64, error: ErrorCode) {
    let _ = world.step(Event::Mesh { from: ShardId(1), message: Message::LettersTaken { question, error } });
    world.settle();
}

#[test]
fn a_message_is_settled_when_the_other_shard_has_its_letter_and_not_before() {
    let (mut world, queue, uid, to) = a_letter_for_another_shard();
    let first = posted(&mut world);
    assert_eq!(first.to, PartitionUid(to));
    pass_ms(&mut world, 10_000);
    assert!(status(&world, queue, uid).dead == 1 && world.mesh.is_empty(), "one is on its way");
    answer(&mut world, first.question, ErrorCode::DiskFull);
    pass_ms(&mut world, 999);
    assert!(world.mesh.is_empty());
    pass_ms(&mut world, 1);
    let second = posted(&mut world);
    assert!(second.question != first.question && second.batch == first.batch);
    answer(&mut world, first.question, ErrorCode::Ok);
    assert_eq!(status(&world, queue, uid).dead, 1, "nobody waits for this answer any more");
    answer(&mut world, second.question, ErrorCode::Ok);
    assert_eq!(status(&world, queue, uid).dead, 0);
    pass_ms(&mut world, 10_000);
    assert!(world.mesh.is_empty());
}

#[test]
fn a_letter_that_was_on_its_way_in_a_crash_goes_again_under_the_same_id() {
    let (mut world, queue, uid, to) = a_letter_for_another_shard();
    let first = posted(&mut world);
    let World { mut disk, now, .. } = world;
    disk.crash(Tear::Nothing, &mut Dice(1));
    let mut world = World::start(disk, now, &[("shards", "2")]);
    world.settle();
    let second = posted(&mut world);
    assert_eq!((second.to, &second.batch), (PartitionUid(to), &first.batch));
    answer(&mut world, second.question, ErrorCode::Ok);
    assert_eq!(status(&world, queue, uid).dead, 0);
}

#[test]
fn letters_from_another_shard_are_answered_when_they_are_durable() {
    let mut world = World::with(&[("shards", "2")]);
    world.create_topic("dead", 4, &[]);
    let view = std::sync::Arc::clone(&world.shard.view);
    let place = view.topic("dead").expect("created").partitions.iter().find(|p| p.shard == ShardId(0)).expect("one of four");
    let batch = super::world::batch(&[b"a".to_vec()], world.now.utc_us);
    let arrive = |world: &mut World, question, to, batch: &[u8]| {
        let letters = Box::new(Letters { question, to, batch: batch.to_vec() });
        let _ = world.step(Event::Mesh { from: ShardId(1), message: Message::Letters(letters) });
        let _ = world.step(Event::EndOfTurn);
    };
    let taken = |world: &mut World| {
        let all = world.mesh.drain(..).map(|(to, message)| match message {
            Message::LettersTaken { question, error } => (to.0, question, error),
            other => panic!("{other:?}"),
        });
        all.collect::<Vec<_>>()
    };
    arrive(&mut world, 7, place.uid, &batch);
    assert!(!world.disk.under_way.is_empty() && taken(&mut world).is_empty(), "it is being written");
    world.settle();
    assert_eq!(taken(&mut world), [(1, 7, ErrorCode::Ok)]);
    assert_eq!(end_of(&world, place.uid.0), 1);
    arrive(&mut world, 8, PartitionUid(999), &batch);
    arrive(&mut world, 9, place.uid, &batch[..50]);
    assert_eq!(taken(&mut world), [(1, 8, ErrorCode::UnknownPartition), (1, 9, ErrorCode::BadBatch)]);
    // The log fails: whoever waits is told.
    world.disk.fail_next_write = Some(5);
    arrive(&mut world, 10, place.uid, &batch);
    world.settle();
    assert!(world.fatal.is_some());
    assert_eq!(taken(&mut world), [(1, 10, ErrorCode::StorageFailed)]);
}
