//! How long requests took, as a shard counts it.

use super::queue_metrics::snapshot;
use super::requests::value;
use super::world::World;
use crate::metrics::{RequestClass, ShardSnapshot, Stage};
use tramline_wire::fetch::{FetchCancelRequest, FetchEntry, FetchMode, FetchRequestWriter};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::offsets::{ListOffsetsRequest, OffsetQuery};
use tramline_wire::prim::List;

fn counts(told: &ShardSnapshot, class: RequestClass, stages: &[Stage]) -> Vec<u64> {
    let interval = told.interval.as_ref().expect("asked for");
    stages.iter().map(|stage| interval.timing(class, *stage).expect("kept").count()).collect()
}

fn longest_us(told: &ShardSnapshot, class: RequestClass, stage: Stage) -> u64 {
    told.interval.as_ref().expect("asked for").timing(class, stage).expect("kept").max_ns() / 1000
}

fn topic() -> (World, u64) {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    snapshot(&mut world);
    (world, uid)
}

#[test]
fn a_produce_is_told_apart_where_its_block_closes() {
    let (mut world, uid) = topic();
    // Three writes may be under way, and were: the fourth block is closed when one of them is through.
    for number in 0..3 {
        world.produce(uid, Level::Durable, &[value(number, 2000)]);
        world.turn();
    }
    world.produce(uid, Level::Durable, &[value(3, 2000)]);
    world.turn();
    world.pass(300);
    world.complete(0);
    world.turn();
    world.pass(500);
    world.settle();
    (0..4).for_each(|_| drop(world.reply_ok()));
    let told = snapshot(&mut world);
    // Only the last one had to wait before its block was closed; nobody waited to be taken in, or after it was durable.
    let stages = [Stage::Parse, Stage::Append, Stage::Write, Stage::Reply, Stage::Total];
    assert_eq!(counts(&told, RequestClass::Produce, &stages), [0, 1, 4, 0, 4]);
    // To three digits.
    assert!(longest_us(&told, RequestClass::Produce, Stage::Append).abs_diff(300) <= 1);
    assert!(longest_us(&told, RequestClass::Produce, Stage::Total).abs_diff(800) <= 1);
    let slowest: Vec<u64> = told.interval.as_ref().expect("asked for").slowest().map(|slow| slow.total_ns() / 1000).collect();
    assert!(slowest.contains(&800) && slowest.contains(&300), "{slowest:?}");
}

#[test]
fn what_is_answered_at_once_counts_too() {
    let (mut world, uid) = topic();
    world.produce(uid, Level::Leader, &[value(1, 100)]);
    world.settle();
    let query = [OffsetQuery { partition_uid: uid, at: -1 }];
    world.request(Kind::ListOffsets, &[], |out| ListOffsetsRequest { entries: List::of(&query) }.encode(out));
    world.request(Kind::Ping, &[], |_| {});
    world.settle();
    world.create_topic("u", 1, &[]);
    let told = snapshot(&mut world);
    for class in [RequestClass::Produce, RequestClass::ListOffsets, RequestClass::Metadata, RequestClass::Admin] {
        assert_eq!(counts(&told, class, &[Stage::Total]), [1], "{class:?}");
    }
}

#[test]
fn a_fetch_that_waits_for_records_has_not_begun() {
    let (mut world, uid) = topic();
    world.request(Kind::Fetch, &[], |out| {
        let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 60_000, 1, 1 << 20);
        writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 1 << 20 });
        writer.finish(out);
    });
    world.settle();
    world.pass(30_000_000);
    world.produce(uid, Level::Durable, &[value(1, 100)]);
    world.turn();
    world.pass(200);
    world.settle();
    let told = snapshot(&mut world);
    assert_eq!(counts(&told, RequestClass::Fetch, &[Stage::Append, Stage::Total]), [1, 1]);
    assert!(longest_us(&told, RequestClass::Fetch, Stage::Total) < 10, "{}", longest_us(&told, RequestClass::Fetch, Stage::Total));
    assert!(longest_us(&told, RequestClass::Produce, Stage::Total).abs_diff(200) <= 1);
}

#[test]
fn a_stream_that_ends_after_long_silence_is_not_late() {
    let (mut world, uid) = topic();
    let stream = world.request(Kind::Fetch, &[], |out| {
        let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 0, 1, 1 << 20);
        writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 1 << 20 });
        writer.finish(out);
    });
    world.produce(uid, Level::Durable, &[value(1, 100)]);
    world.settle();
    world.pass(50_000_000);
    world.request(Kind::FetchCancel, &[], |out| FetchCancelRequest { stream }.encode(out));
    world.settle();
    let told = snapshot(&mut world);
    assert_eq!(counts(&told, RequestClass::Fetch, &[Stage::Total]), [2], "the records, and the end");
    assert!(longest_us(&told, RequestClass::Fetch, Stage::Total) < 10, "{}", longest_us(&told, RequestClass::Fetch, Stage::Total));
}

#[test]
fn a_frame_that_finds_no_room_counts_from_when_it_came() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    snapshot(&mut world);
    let mut sent = 0;
    while !world.is_blocked() {
        world.produce(uid, Level::Durable, &[value(sent, 6_000)]);
        sent += 1;
        assert!(sent < 10_000, "the memory is endless");
    }
    world.pass(7_000);
    world.settle();
    let told = snapshot(&mut world);
    assert_eq!(counts(&told, RequestClass::Produce, &[Stage::Total]), [sent]);
    assert!(
        longest_us(&told, RequestClass::Produce, Stage::Parse).abs_diff(7_000) <= 7,
        "{}",
        longest_us(&told, RequestClass::Produce, Stage::Parse)
    );
}
