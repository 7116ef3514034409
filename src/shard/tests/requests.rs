//! Requests against a whole shard: refusals, visibility, retention, failure of the disk.

use super::world::{CLIENT, World, batch, produce_results};
use crate::effects::{Effect, Event};
use crate::ids::ShardId;
use crate::shard::mesh::Message;
use std::collections::BTreeMap;
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::hello::HelloRequest;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::offsets::{ListOffsetsReply, ListOffsetsRequest, OffsetQuery};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};
use tramline_wire::topics::{CreateFlags, CreateTopicRequest, DeleteTopicRequest, Setting};

pub(super) fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(bytes, number as u8);
    value
}

#[test]
fn a_durable_ack_waits_for_the_disk_and_a_leader_ack_does_not() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    world.produce(uid, Level::Durable, &[value(1, 100)]);
    world.turn();
    assert!(world.replies.is_empty() && !world.disk.under_way.is_empty(), "the write is under way, the ack waits");
    world.produce(uid, Level::Leader, &[value(2, 100)]);
    let (_, meta, _) = world.reply_ok();
    assert_eq!((produce_results(&meta)[0].base_offset, produce_results(&meta)[0].durable_end), (1, 0));
    world.produce(uid, Level::None, &[value(3, 100)]);
    world.settle();
    let (_, meta, _) = world.reply_ok();
    assert_eq!((produce_results(&meta)[0].base_offset, produce_results(&meta)[0].durable_end), (0, 1));
    assert!(world.replies.is_empty(), "level none has no reply");
    assert_eq!(world.read(uid, 0).0.len(), 1, "nobody waits for the other two: their block stays open for a moment");
    world.pass(1001);
    world.settle();
    assert_eq!(world.read(uid, 0).0.len(), 3);
}

/// Who waits for no answer would take an error for the answer to something else.
#[test]
fn at_level_none_a_shard_that_stops_says_nothing() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let _ = world.step(Event::Mesh { from: ShardId(0), message: Message::Stop });
    world.produce(uid, Level::None, &[value(1, 100)]);
    world.settle();
    assert!(world.replies.is_empty(), "level none has no reply, also not an error");
    world.produce(uid, Level::Leader, &[value(2, 100)]);
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::ShuttingDown);
}

#[test]
fn acks_leave_in_order_although_writes_end_out_of_order() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let mut sent = Vec::new();
    for number in 0..3 {
        sent.push(world.produce(uid, Level::Durable, &[value(number, 2000)]));
        world.turn();
    }
    let writes = world.disk.under_way.len();
    assert!(writes >= 3, "three writes are under way");
    world.complete(2);
    world.complete(1);
    assert!(world.replies.is_empty(), "nothing is durable before the first write has ended");
    world.complete(0);
    let acked: Vec<_> = (0..3).map(|_| world.reply_ok().0).collect();
    assert_eq!(acked, sent);
}

/// A block of one record would have a write of its own, and be acknowledged behind the one under way all the same.
#[test]
fn a_small_block_takes_in_what_comes_while_another_is_written_and_a_larger_one_does_not_wait() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let is_block = |effect: &Effect| matches!(effect, Effect::Write { token, .. } if token.number() >> 48 == 1);
    let before = world.shard.log.stats().blocks_closed;
    let blocks = |world: &World| (0..world.disk.under_way.len()).filter(|at| is_block(&world.disk.under_way[*at])).collect::<Vec<_>>();
    for number in 0..3 {
        world.produce(uid, Level::Durable, &[value(number, 100)]);
        world.turn();
    }
    assert_eq!(blocks(&world).len(), 1, "two records wait");
    let first = blocks(&world)[0];
    world.complete(first);
    world.turn();
    assert_eq!(blocks(&world).len(), 1, "and share the next block");
    // A sixteenth of 16 KiB is not small.
    world.produce(uid, Level::Durable, &[value(3, 2000)]);
    world.turn();
    assert_eq!(blocks(&world).len(), 2);
    world.settle();
    assert_eq!(world.replies.len(), 4);
    assert_eq!(world.shard.log.stats().blocks_closed, before + 3);
}

#[test]
fn a_small_block_does_not_wait_where_a_topic_shows_records_when_it_is_closed() {
    let mut world = World::new();
    world.create_topic("t", 1, &[("visible.at", "leader")]);
    let uid = world.uids("t")[0];
    let before = world.shard.log.stats().blocks_closed;
    for number in 0..2 {
        world.produce(uid, Level::Durable, &[value(number, 100)]);
        world.turn();
    }
    assert_eq!(world.shard.log.stats().blocks_closed, before + 2, "no write has ended");
}

#[test]
fn consumers_see_committed_records_only_unless_the_topic_says_otherwise() {
    for (setting, visible) in [("replicated", 0), ("leader", 1)] {
        let mut world = World::new();
        world.create_topic("t", 1, &[("visible.at", setting)]);
        let uid = world.uids("t")[0];
        world.request(Kind::Fetch, &[], |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 0, 0, 1 << 20);
            writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 1 << 20 });
            writer.finish(out);
        });
        world.turn();
        world.produce(uid, Level::Leader, &[value(1, 100)]);
        world.reply_ok();
        world.turn();
        assert_eq!(world.replies.len(), visible, "{setting}: before the disk");
        world.settle();
        assert_eq!(world.replies.len(), 1, "{setting}: after the disk");
    }
}

#[test]
fn a_stream_stops_at_its_credit_and_goes_on_with_more() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    for number in 0..20 {
        world.produce(uid, Level::Durable, &[value(number, 1000)]);
    }
    world.settle();
    world.replies.clear();
    let stream = world.request(Kind::Fetch, &[], |out| {
        let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 0, 0, 3000);
        writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 1 << 20 });
        writer.finish(out);
    });
    let mut next = 0;
    let mut drain = |world: &mut World| {
        let mut bytes = 0;
        while let Some((correlation, flags, meta, payload)) = world.reply() {
            assert_eq!((correlation, flags & tramline_wire::frame::FLAG_MORE), (stream, tramline_wire::frame::FLAG_MORE));
            next = FetchReply::decode(&meta).unwrap().entries.iter().next().unwrap().next_offset;
            bytes += payload.len();
        }
        (bytes, next)
    };
    world.settle();
    let (bytes, next) = drain(&mut world);
    assert!((2000..3000 + 1200).contains(&bytes) && next < 20, "{bytes} bytes to offset {next} within a credit of 3000");
    world.settle();
    assert!(world.replies.is_empty(), "no credit, no bytes");
    let credit = tramline_wire::fetch::FetchCreditRequest { stream, credit_bytes: 1 << 20 };
    world.request(Kind::FetchCredit, &[], |out| credit.encode(out));
    world.settle();
    assert_eq!(drain(&mut world).1, 20);
}

#[test]
fn readers_of_old_records_take_turns_while_the_log_writes() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    for number in 0..1200 {
        world.produce(uid, Level::Durable, &[value(number, 3000)]);
        world.settle();
        world.replies.clear();
    }
    // A write that does not end: few reads may be under way.
    world.produce(uid, Level::Durable, &[value(1200, 100)]);
    world.turn();
    let is_read = |effect: &Effect| matches!(effect, Effect::Read { .. });
    assert!(world.disk.under_way.iter().any(|effect| matches!(effect, Effect::Write { .. })));
    let streams: Vec<u64> = (0..4)
        .map(|_| {
            world.request(Kind::Fetch, &[], |out| {
                let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 0, 0, 64 << 20);
                writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 1 << 20 });
                writer.finish(out);
            })
        })
        .collect();
    let mut read = BTreeMap::<u64, usize>::new();
    for _ in 0..40 {
        world.turn();
        let at = world.disk.under_way.iter().position(is_read).expect("somebody reads");
        // Footers are small, and read whenever one is wanted.
        let is_chunk = |effect: &&Effect| matches!(effect, Effect::Read { buf, .. } if buf.len() > 64 << 10);
        let under_way = world.disk.under_way.iter().filter(is_chunk).count();
        assert!(under_way < streams.len(), "{under_way} reads under way: the test shows nothing");
        world.complete(at);
        world.turn();
        while let Some((stream, _, _, payload)) = world.reply() {
            *read.entry(stream).or_default() += payload.len();
        }
    }
    let bytes: Vec<usize> = streams.iter().map(|stream| read.get(stream).copied().unwrap_or(0)).collect();
    let (least, most) = (bytes.iter().min().expect("four"), bytes.iter().max().expect("four"));
    assert!(*least > 0 && 3 * least >= 2 * most, "bytes of each: {bytes:?}");
}

#[test]
fn times_are_looked_up_in_memory_and_on_disk() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let first_us = world.now.utc_us;
    for number in 0..300 {
        world.produce(uid, Level::Durable, &[value(number, 2000), value(number, 10)]);
        world.settle();
        world.pass(1000);
    }
    world.replies.clear();
    let ask = |world: &mut World, at: i64| {
        let query = [OffsetQuery { partition_uid: uid, at }];
        world.request(Kind::ListOffsets, &[], |out| ListOffsetsRequest { entries: List::of(&query) }.encode(out));
        world.settle();
        let (_, meta, _) = world.reply_ok();
        let answer = ListOffsetsReply::decode(&meta).unwrap().entries.iter().next().unwrap();
        (answer.error, answer.offset, answer.timestamp_us)
    };
    assert_eq!(ask(&mut world, -2), (ErrorCode::Ok, 0, -1));
    assert_eq!(ask(&mut world, -1), (ErrorCode::Ok, 600, -1));
    assert_eq!(ask(&mut world, -3).0, ErrorCode::InvalidRequest);
    for number in [0, 1, 17, 150, 299] {
        let at = first_us + number * 1000;
        assert_eq!(ask(&mut world, at), (ErrorCode::Ok, number as u64 * 2, at), "batch {number}");
        assert_eq!(ask(&mut world, at - 999).1, number as u64 * 2);
    }
    assert_eq!(ask(&mut world, first_us + 300_000), (ErrorCode::Ok, 600, -1));
}

#[test]
fn bad_requests_are_refused_by_name_and_the_next_one_works() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let good = batch(&[value(1, 10)], 5);
    let produce = |world: &mut World, uid: u64, batch: &[u8]| {
        world.request(Kind::Produce, batch, |out| {
            let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
            writer.finish(out);
        });
        world.settle();
        produce_results(&world.reply_ok().1)[0].error
    };
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    assert_eq!(produce(&mut world, 999, &good), ErrorCode::UnknownPartition);
    assert_eq!(produce(&mut world, uid, &changed(0, 0)), ErrorCode::BadBatch);
    assert_eq!(produce(&mut world, uid, &changed(5, 9)), ErrorCode::UnknownCodec);
    assert_eq!(produce(&mut world, uid, &changed(9, 0x80)), ErrorCode::UnknownFlag);
    assert_eq!(produce(&mut world, uid, &changed(good.len() - 1, 0xFF)), ErrorCode::ChecksumMismatch);
    assert_eq!(produce(&mut world, uid, &batch(&[value(1, 1_000_001)], 5)), ErrorCode::RecordTooLarge);
    assert_eq!(produce(&mut world, uid, &good), ErrorCode::Ok);
    world.request(Kind::Produce, &[], |out| out.push(77));
    assert_eq!(world.reply_error(), ErrorCode::UnknownLevel);
    world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name: "none" }.encode(out));
    assert_eq!(world.reply_error(), ErrorCode::UnknownTopic);
    for (name, partitions, key, val, code) in [
        ("t", 1, "", "", ErrorCode::TopicExists),
        ("a/b", 1, "", "", ErrorCode::InvalidTopicName),
        ("n", 0, "", "", ErrorCode::InvalidRequest),
        ("n", 1, "retention", "1", ErrorCode::UnknownSetting),
        ("n", 1, "retention.ms", "soon", ErrorCode::InvalidSetting),
    ] {
        let settings: Vec<_> = (!key.is_empty()).then_some(Setting { key, value: val }).into_iter().collect();
        let flags = CreateFlags::default();
        let request = CreateTopicRequest { name, partitions, replication: 0, flags, settings: List::of(&settings) };
        world.request(Kind::CreateTopic, &[], |out| request.encode(out));
        assert_eq!(world.reply_error(), code, "{name} {key}");
    }
    assert!(world.closed.is_empty(), "a refused request does not end the connection");
}

#[test]
fn a_deleted_topic_is_gone_at_once_and_its_name_is_free() {
    let mut world = World::new();
    world.create_topic("t", 2, &[]);
    let uids = world.uids("t");
    world.produce(uids[0], Level::Durable, &[value(1, 10)]);
    world.settle();
    world.reply_ok();
    world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name: "t" }.encode(out));
    world.settle();
    world.reply_ok();
    world.produce(uids[0], Level::Durable, &[value(2, 10)]);
    let (_, meta, _) = world.reply_ok();
    assert_eq!(produce_results(&meta)[0].error, ErrorCode::UnknownPartition);
    world.create_topic("t", 2, &[]);
    assert!(world.uids("t").iter().all(|uid| !uids.contains(uid)), "uids are never used again");
    let new = world.uids("t")[0];
    assert!(world.read(new, 0).0.is_empty());
    let mut world = World::over(world.disk.snapshot(), world.now);
    assert!(world.read(new, 0).0.is_empty());
}

#[test]
fn retention_frees_whole_segments_and_moves_the_start() {
    let mut world = World::new();
    world.create_topic("t", 1, &[("retention.bytes", "100000")]);
    let uid = world.uids("t")[0];
    for number in 0..400 {
        world.produce(uid, Level::Durable, &[value(number, 2000)]);
        world.settle();
    }
    world.replies.clear();
    for _ in 0..10 {
        world.pass(1_100_000);
        world.settle();
    }
    let (found, damaged) = world.read(uid, 0);
    assert!(damaged.is_empty());
    let first = *found.keys().next().unwrap();
    assert!(first > 200 && first < 360, "800 KB were written, 100 KB and at most two segments of 128 KiB more are kept: first {first}");
    assert!(found.keys().copied().eq(first..400));
    let kept = found.clone();
    let mut world = World::over(world.disk.snapshot(), world.now);
    assert_eq!(world.read(uid, 0).0, kept, "and so after a start");
}

#[test]
fn a_hello_with_a_payload_is_refused() {
    let mut world = World::new();
    let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "test", client_version: "", mechanism: "", auth: b"" };
    world.request(Kind::Hello, b"abc", |out| hello.encode(out));
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::InvalidRequest);
}

#[test]
fn a_full_topic_goes_on_in_the_files_it_gives_back() {
    let mut world = World::new();
    world.create_topic("t", 1, &[("retention.bytes", "300000")]);
    let uid = world.uids("t")[0];
    let mut made = Vec::new();
    for number in 0..2000 {
        world.produce(uid, Level::Durable, &[value(number, 2000)]);
        world.turn();
        while !world.disk.under_way.is_empty() {
            world.complete(0);
        }
        world.replies.clear();
        if number % 500 == 499 {
            made.push((world.shard.log.files_created(), world.shard.log.stats().rolls_into_fresh_extents));
        }
    }
    assert!(world.shard.log.stats().rolls >= 30, "4 MB in segments of 128 KiB: {:?}", world.shard.log.stats());
    assert!(made[0].0 > 0, "the first ones had nowhere else to go");
    assert_eq!(made[0], made[3], "from then on written files are used again: {made:?}");
    assert!(world.shard.log.stats().file_bytes <= 12 * (128 << 10), "and no more files than needed are kept");
}

#[test]
fn what_a_neighbour_still_needs_is_sorted_and_the_rest_is_freed() {
    let mut world = World::new();
    world.create_topic("short", 1, &[("retention.ms", "1000")]);
    world.create_topic("long", 1, &[]);
    let (short, long) = (world.uids("short")[0], world.uids("long")[0]);
    for number in 0..200 {
        world.produce(if number % 2 == 0 { short } else { long }, Level::Durable, &[value(number, 2000)]);
        world.settle();
    }
    world.replies.clear();
    let sealed = world.shard.log.stats().segments_sealed;
    assert!(sealed >= 2, "400 KB in segments of 128 KiB");
    for _ in 0..5 {
        world.pass(1_100_000);
        world.settle();
    }
    assert!(world.shard.log.segments().any(|segment| segment.sorted), "half of each was not wanted any more");
    assert!(world.shard.log.stats().segments_sealed < sealed, "so files were won");
    assert!(world.read(short, 0).0.keys().next().is_none_or(|first| *first > 50), "but what has expired is not served");
    assert_eq!(world.read(long, 0).0.len(), 100);
    let mut world = World::over(world.disk.snapshot(), world.now);
    assert_eq!(world.read(long, 0).0.len(), 100, "and so after a start");
    world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name: "long" }.encode(out));
    world.settle();
    world.reply_ok();
    for _ in 0..3 {
        world.pass(1_100_000);
        world.settle();
    }
    assert_eq!(world.shard.log.stats().segments_sealed, 0, "nobody needs them any more");
}

#[test]
fn a_consumer_just_behind_a_seal_is_served_from_memory() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let mut number = 0;
    while world.shard.log.stats().segments_sealed == 0 {
        world.produce(uid, Level::Durable, &[value(number, 2000)]);
        world.settle();
        number += 1;
    }
    world.replies.clear();
    assert!(number < 100, "a segment of 128 KiB is full");
    let reads = world.shard.log.stats().reads;
    let slot = world.shard.partitions.slot(crate::ids::PartitionUid(uid)).unwrap();
    let sealed_end = world.shard.partitions.get(slot).unwrap().index.runs().last().unwrap().end_offset;
    let (found, _) = world.read(uid, sealed_end - 5);
    assert!(found.keys().copied().eq(sealed_end - 5..number), "{:?}", found.keys());
    assert_eq!(world.shard.log.stats().reads, reads, "64 KiB of blocks are cached, some of them of the sealed segment");
    assert_eq!(world.read(uid, 0).0.len() as u64, number);
    assert!(world.shard.log.stats().reads > reads, "what is older comes from the disk");
}

#[test]
fn a_failed_write_is_final_and_reads_go_on() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    world.produce(uid, Level::Durable, &[value(1, 100)]);
    world.settle();
    world.reply_ok();
    world.disk.fail_next_write = Some(5);
    world.produce(uid, Level::Durable, &[value(2, 100)]);
    world.turn();
    while !world.disk.under_way.is_empty() {
        world.complete(0);
    }
    assert_eq!(world.reply_error(), ErrorCode::StorageFailed);
    assert!(world.fatal.as_deref().is_some_and(|reason| reason.contains("5")), "{:?}", world.fatal);
    world.produce(uid, Level::Leader, &[value(3, 100)]);
    assert_eq!(world.reply_error(), ErrorCode::StorageFailed, "never retried and believed");
    assert_eq!(world.read(uid, 0).0.len(), 1);
}

#[test]
fn silence_ends_a_connection() {
    let mut world = World::new();
    let _ = world.step(Event::Partial { conn: CLIENT });
    world.pass(world.settings.partial_frame_timeout_us + 300_000);
    let _ = world.step(Event::Deadline);
    assert_eq!(world.closed, [(CLIENT, "partial frame")]);
    let mut world = World::new();
    world.request(tramline_wire::kind::Kind::Ping, &[], |_| {});
    world.pass(world.settings.connection_idle_timeout_us + 300_000);
    let _ = world.step(Event::Deadline);
    assert_eq!(world.closed, [(CLIENT, "slow reader")], "the reply to the ping was never taken");
    let mut world = World::new();
    let _ = world.step(Event::Sent { conn: CLIENT, queued_bytes: 0 });
    world.pass(world.settings.connection_idle_timeout_us + 300_000);
    let _ = world.step(Event::Deadline);
    assert_eq!(world.closed, [(CLIENT, "idle")]);
}

#[test]
fn a_frame_over_two_blocks_and_groups_is_acknowledged_when_both_are_durable() {
    let mut world = World::new();
    world.create_topic("t", 2, &[]);
    let uids = world.uids("t");
    let batches = [(uids[0], 1), (uids[0], 2), (uids[1], 3)].map(|(uid, number)| (uid, batch(&[value(number, 7000)], 5)));
    let payload: Vec<u8> = batches.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    world.request(Kind::Produce, &payload, |out| {
        let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
        for (uid, bytes) in &batches {
            writer.push(out, &ProduceEntry { partition_uid: *uid, batch_len: bytes.len() as u32 });
        }
        writer.finish(out);
    });
    world.turn();
    let writes = world.disk.under_way.len();
    assert!(writes >= 2, "16 KiB blocks: the third batch is in another block");
    world.settle();
    let (_, meta, _) = world.reply_ok();
    let told: Vec<_> = produce_results(&meta).iter().map(|r| (r.error, r.base_offset, r.durable_end)).collect();
    assert_eq!(told, [(ErrorCode::Ok, 0, 2), (ErrorCode::Ok, 1, 2), (ErrorCode::Ok, 0, 1)]);
}

#[test]
fn cold_reads_give_their_memory_back() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    for number in 0..200 {
        world.produce(uid, Level::Durable, &[value(number, 2000)]);
        world.settle();
    }
    world.replies.clear();
    let mut world = World::over(world.disk.snapshot(), world.now);
    for _ in 0..5 {
        assert_eq!(world.read(uid, 0).0.len(), 200);
        assert_eq!(world.shard.cold_bytes(), 0, "nobody reads any more");
    }
}

#[test]
fn a_one_shot_fetch_reads_for_its_one_reply_only() {
    // The sorter's reads would count as well.
    let unsorted = [("sorter.segments", "0")];
    let mut world = World::with(&unsorted);
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    for number in 0..200 {
        world.produce(uid, Level::Durable, &[value(number, 2000)]);
        world.settle();
    }
    let mut world = World::start(world.disk.snapshot(), world.now, &unsorted);
    world.request(Kind::Fetch, &[], |out| {
        let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 1000, 1, 1 << 20);
        writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 8 << 10 });
        writer.finish(out);
    });
    world.settle();
    let (_, _, payload) = world.reply_ok();
    assert!((8 << 10..16 << 10).contains(&payload.len()), "{} bytes came", payload.len());
    // A footer page and its header, and the pages of five batches: 400 KB are there.
    assert!(world.shard.log.stats().read_bytes <= 48 << 10, "{:?}", world.shard.log.stats());
}

#[test]
fn while_the_log_writes_readers_behind_the_tail_take_turns() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    for number in 0..600 {
        world.produce(uid, Level::Durable, &[value(number, 2000)]);
        world.settle();
    }
    let mut world = World::over(world.disk.snapshot(), world.now);
    world.produce(uid, Level::Durable, &[value(600, 100)]);
    let _ = world.step(Event::EndOfTurn);
    let is_write = |effect: &Effect| matches!(effect, Effect::Write { .. });
    assert!(world.disk.under_way.iter().any(is_write), "the log writes, and goes on writing until the readers are through");
    const READERS: u64 = 15;
    for reader in 0..READERS {
        world.request(Kind::Fetch, &[], |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 0, 1, 1 << 20);
            writer.push(out, &FetchEntry { partition_uid: uid, offset: reader * 40, max_bytes: 1 << 20 });
            writer.finish(out);
        });
    }
    let mut most = 0;
    loop {
        world.turn();
        let reads = world.disk.under_way.iter().map(|effect| if let Effect::Read { buf, .. } = effect { buf.len() } else { 0 });
        most = most.max(reads.sum());
        let Some(at) = world.disk.under_way.iter().position(|effect| matches!(effect, Effect::Read { .. })) else { break };
        world.complete(at);
    }
    assert!(world.disk.under_way.iter().any(is_write), "no reader waited for the write");
    let answered = (0..).take_while(|_| world.reply().is_some()).count() as u64;
    assert_eq!(answered, READERS);
    assert!((256 << 10..768 << 10).contains(&most), "each would read a segment of 128 KiB at once: {most} bytes under way");
}
