//! Trims against a whole shard: when they are answered, what they take, and that no crash brings it back.

use super::queue_messages::{create_queue, receive};
use super::world::{World, produce_results};
use crate::sim::{Dice, TEARS, Tear};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchCreditRequest, FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::offsets::{ListOffsetsReply, ListOffsetsRequest, OffsetQuery};
use tramline_wire::prim::List;
use tramline_wire::queue::{BrowseReply, BrowseRequest, BrowseState, QueueStart};
use tramline_wire::topics::DeleteTopicRequest;
use tramline_wire::trim::{TrimAnswer, TrimEntry, TrimPartitionsReply, TrimPartitionsRequest};

fn ask(world: &mut World, entries: &[(u64, u64)]) -> u64 {
    let entries: Vec<_> =
        entries.iter().map(|(partition_uid, before)| TrimEntry { partition_uid: *partition_uid, before: *before }).collect();
    world.request(Kind::TrimPartitions, &[], |out| TrimPartitionsRequest { entries: List::of(&entries) }.encode(out))
}

fn answers(meta: &[u8]) -> Vec<(ErrorCode, u64, u64)> {
    let told = |answer: TrimAnswer| (answer.error, answer.log_start, answer.committed_end);
    TrimPartitionsReply::decode(meta).unwrap().entries.iter().map(told).collect()
}

fn trim(world: &mut World, entries: &[(u64, u64)]) -> Vec<(ErrorCode, u64, u64)> {
    let correlation = ask(world, entries);
    world.settle();
    let (answered, meta, _) = world.reply_ok();
    assert_eq!(answered, correlation);
    answers(&meta)
}

/// Batches of `count` records each, of some 2000 bytes together.
fn fill(world: &mut World, uid: u64, batches: u64, count: usize) {
    for number in 0..batches {
        let values = vec![vec![number as u8; 2000 / count]; count];
        world.produce(uid, Level::Durable, &values);
        world.settle();
        let (_, meta, _) = world.reply_ok();
        assert_eq!(produce_results(&meta)[0].error, ErrorCode::Ok);
    }
}

fn first_and_end(world: &mut World, uid: u64) -> (u64, u64) {
    let mut ends = [0; 2];
    for (end, at) in ends.iter_mut().zip([-2, -1]) {
        let query = [OffsetQuery { partition_uid: uid, at }];
        world.request(Kind::ListOffsets, &[], |out| ListOffsetsRequest { entries: List::of(&query) }.encode(out));
        world.settle();
        let (_, meta, _) = world.reply_ok();
        *end = ListOffsetsReply::decode(&meta).unwrap().entries.iter().next().unwrap().offset;
    }
    (ends[0], ends[1])
}

#[test]
fn a_trim_is_answered_and_seen_when_it_is_durable_and_not_before() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    fill(&mut world, uid, 3, 4);
    ask(&mut world, &[(uid, 6)]);
    world.turn();
    assert!(world.replies.is_empty() && !world.disk.under_way.is_empty(), "the write is under way, the answer waits");
    world.request(Kind::ListOffsets, &[], |out| {
        ListOffsetsRequest { entries: List::of(&[OffsetQuery { partition_uid: uid, at: -2 }]) }.encode(out)
    });
    world.turn();
    let (_, meta, _) = world.reply_ok();
    assert_eq!(ListOffsetsReply::decode(&meta).unwrap().entries.iter().next().unwrap().offset, 0, "a crash could still take it back");
    world.settle();
    let (_, meta, _) = world.reply_ok();
    assert_eq!(answers(&meta), [(ErrorCode::Ok, 6, 12)]);
    // In the middle of a batch: what is below is told as gone, the rest is there.
    assert_eq!(world.read(uid, 0).0.keys().copied().collect::<Vec<_>>(), (6..12).collect::<Vec<_>>());
    assert_eq!(trim(&mut world, &[(uid, 6), (uid, 0)]), [(ErrorCode::Ok, 6, 12); 2], "below the start there is nothing to do");
    assert!(world.disk.under_way.is_empty());
}

/// The leases of what was trimmed are in the log, and that it is settled is not.
#[test]
fn what_is_trimmed_is_in_no_queue_any_more_also_after_a_crash() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let queue_uid = create_queue(&mut world, "q", "t", QueueStart::Earliest, &[]);
    fill(&mut world, uid, 3, 1);
    assert_eq!(receive(&mut world, queue_uid, &[uid], 10).len(), 3);
    assert_eq!(trim(&mut world, &[(uid, 2)]), [(ErrorCode::Ok, 2, 3)]);
    let seen = |world: &mut World| {
        world.turn();
        let request = BrowseRequest { queue_uid, partition_uid: uid, from: 0, max_messages: 10, state: BrowseState::Any };
        world.request(Kind::Browse, &[], |out| request.encode(out));
        world.settle();
        let (_, meta, _) = world.reply_ok();
        BrowseReply::decode(&meta).unwrap().messages.iter().map(|message| message.offset).collect::<Vec<u64>>()
    };
    assert_eq!(seen(&mut world), [2]);
    let mut world = world.crash(Tear::Nothing, &mut Dice(1));
    world.settle();
    assert_eq!(seen(&mut world), [2]);
}

#[test]
fn each_entry_is_answered_for_itself() {
    let mut world = World::new();
    world.create_topic("t", 3, &[]);
    let uids = world.uids("t");
    fill(&mut world, uids[0], 2, 2);
    fill(&mut world, uids[1], 1, 2);
    let told = trim(&mut world, &[(uids[0], 3), (999, 1), (uids[1], 3), (uids[2], 0), (uids[1], 2)]);
    assert_eq!(
        told,
        [
            (ErrorCode::Ok, 3, 4),
            (ErrorCode::UnknownPartition, 0, 0),
            (ErrorCode::OffsetOutOfRange, 2, 2),
            (ErrorCode::Ok, 0, 0),
            (ErrorCode::Ok, 2, 2)
        ]
    );
    ask(&mut world, &[]);
    assert_eq!(world.reply_error(), ErrorCode::InvalidRequest);
    // A trim whose topic goes away meanwhile is answered all the same.
    ask(&mut world, &[(uids[0], 4)]);
    world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name: "t" }.encode(out));
    world.settle();
    assert!(world.replies.len() == 2);
}

#[test]
fn a_request_that_fills_more_than_a_block_is_answered_once_and_whole() {
    let mut world = World::new();
    world.create_topic("t", 1500, &[]);
    let uids = world.uids("t");
    for uid in &uids {
        world.produce(*uid, Level::Durable, &[vec![7; 10]]);
    }
    world.settle();
    world.replies.clear();
    // 24 KB of trims, and blocks of 16 KiB.
    let entries: Vec<_> = uids.iter().map(|uid| (*uid, 1)).collect();
    let told = trim(&mut world, &entries);
    assert!(told.len() == 1500 && told.iter().all(|told| *told == (ErrorCode::Ok, 1, 1)), "{told:?}");
    assert!(world.replies.is_empty());
    let mut world = World::over(world.disk.snapshot(), world.now);
    for uid in [uids[0], uids[777], uids[1499]] {
        assert_eq!(first_and_end(&mut world, uid), (1, 1));
    }
}

#[test]
fn a_stream_that_is_behind_is_told_where_the_partition_begins_now() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    fill(&mut world, uid, 10, 2);
    let stream = world.request(Kind::Fetch, &[], |out| {
        let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 0, 0, 1);
        writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 1 });
        writer.finish(out);
    });
    world.settle();
    world.reply_ok();
    trim(&mut world, &[(uid, 15)]);
    let credit = FetchCreditRequest { stream, credit_bytes: 1 << 20 };
    world.request(Kind::FetchCredit, &[], |out| credit.encode(out));
    world.settle();
    let (correlation, meta, payload) = world.reply_ok();
    let entry = FetchReply::decode(&meta).unwrap().entries.iter().next().unwrap();
    assert_eq!((correlation, entry.error, entry.next_offset, payload.len()), (stream, ErrorCode::OffsetOutOfRange, 15, 0));
}

#[test]
fn looking_up_a_time_never_answers_a_trimmed_record() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    let first_us = world.now.utc_us;
    fill(&mut world, uid, 1, 5);
    trim(&mut world, &[(uid, 3)]);
    let query = [OffsetQuery { partition_uid: uid, at: first_us }];
    world.request(Kind::ListOffsets, &[], |out| ListOffsetsRequest { entries: List::of(&query) }.encode(out));
    world.settle();
    let (_, meta, _) = world.reply_ok();
    let answer = ListOffsetsReply::decode(&meta).unwrap().entries.iter().next().unwrap();
    assert_eq!((answer.error, answer.offset, answer.timestamp_us), (ErrorCode::Ok, 3, first_us));
}

#[test]
fn segments_below_a_trim_are_freed_and_the_one_that_straddles_it_stays() {
    let mut world = World::new();
    world.create_topic("t", 1, &[("retention.bytes", "-1"), ("retention.ms", "-1")]);
    let uid = world.uids("t")[0];
    // Some 800 KB, with the padding of their blocks twice that, in segments of 128 KiB.
    fill(&mut world, uid, 400, 2);
    let sealed = |world: &World| world.shard.log.segments().filter(|segment| segment.sealed).count();
    let before = sealed(&world);
    assert!(before >= 8, "{before}");
    assert_eq!(trim(&mut world, &[(uid, 301)]), [(ErrorCode::Ok, 301, 800)]);
    for _ in 0..3 {
        world.pass(1_100_000);
        world.settle();
    }
    let freed = before - sealed(&world);
    // More where the sorter has come to what is left, padded as it is.
    assert!(freed >= before * 3 / 8 - 1, "{freed} of {before} for three eighths of the records");
    let check = |world: &mut World| {
        assert_eq!(first_and_end(world, uid), (301, 800), "the start is the offset asked for, in the middle of segment and batch");
        assert_eq!(world.read(uid, 0).0.keys().copied().collect::<Vec<_>>(), (301..800).collect::<Vec<_>>());
    };
    check(&mut world);
    world = World::over(world.disk.snapshot(), world.now);
    check(&mut world);
    // Everything: the full segments are given back, the one that is written to when it is full.
    assert_eq!(trim(&mut world, &[(uid, 800)]), [(ErrorCode::Ok, 800, 800)]);
    for _ in 0..3 {
        world.pass(1_100_000);
        world.settle();
    }
    assert_eq!(sealed(&world), 0);
    world = World::over(world.disk.snapshot(), world.now);
    assert_eq!(first_and_end(&mut world, uid), (800, 800));
    fill(&mut world, uid, 1, 1);
    assert_eq!(world.read(uid, 0).0.keys().copied().collect::<Vec<_>>(), [800], "offsets go on");
}

/// Random loads, trims and crashes: an acknowledged trim holds, and nothing at or above the highest one that was asked for is missing.
fn run(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let mut world = World::new();
    world.create_topic("t", 2, &[("retention.bytes", "-1"), ("retention.ms", "-1")]);
    let uids = world.uids("t");
    // Per partition: acknowledged end, acknowledged start, highest start asked for.
    let mut known = [(0u64, 0u64, 0u64); 2];
    let mut trims = 0;
    for _round in 0..4 {
        for _ in 0..20 + dice.below(40) {
            let at = dice.below(2) as usize;
            if dice.chance(80) {
                fill(&mut world, uids[at], 1 + dice.below(4), 1 + dice.below(4) as usize);
                known[at].0 = first_and_end(&mut world, uids[at]).1;
                continue;
            }
            let before = dice.within(known[at].1..known[at].0 + 1);
            known[at].2 = known[at].2.max(before);
            ask(&mut world, &[(uids[at], before)]);
            for _ in 0..dice.below(4) {
                world.turn();
                if !world.disk.under_way.is_empty() {
                    world.complete(0);
                }
            }
            if dice.chance(10) {
                break;
            }
            world.settle();
            let (_, meta, _) = world.reply_ok();
            assert_eq!(answers(&meta)[0].0, ErrorCode::Ok);
            known[at].1 = known[at].1.max(before);
            trims += 1;
            world.pass(600_000);
        }
        let tear = TEARS[dice.below(TEARS.len() as u64) as usize];
        world = world.crash(tear, &mut dice);
        for (uid, (end, start, asked)) in uids.iter().zip(&mut known) {
            let (first, last) = first_and_end(&mut world, *uid);
            assert!(*start <= first && first <= *asked, "seed {seed}: trimmed to {start}, asked for {asked}, and the start is {first}");
            assert_eq!(last, *end, "seed {seed}");
            assert!(world.read(*uid, 0).0.keys().copied().eq(first..last), "seed {seed}: all from {first} to {last}");
            *start = first;
        }
    }
    trims
}

#[test]
fn an_acknowledged_trim_survives_any_crash() {
    let trims: u64 = (0..60).map(run).sum();
    assert!(trims > 1000, "the seeds prove something only if much was trimmed: {trims}");
}
