//! A disk that fills up: producers are slowed down, then refused; sorting, deleting and reading go on, and produce resumes by itself.

use super::requests::value;
use super::world::{World, produce_results};
use crate::config::{DiskLevel, DiskLook};
use crate::effects::Event;
use crate::sim::{Dice, Tear};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::FLAG_ERROR;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::topics::DeleteTopicRequest;

const SEGMENT: u64 = 128 << 10;

/// A disk on which so many more segments fit.
fn room(level: DiskLevel, segments: u32) -> DiskLook {
    DiskLook { level, segments, free_bytes: 4321, refuse_bytes: 1234, slow_bytes: 0, room_bytes: u64::from(segments) * SEGMENT }
}

/// Produces one record; `Err` is the refusal's code and sentence.
fn put(world: &mut World, uid: u64, number: u64) -> Result<(), (ErrorCode, String)> {
    world.produce(uid, Level::Durable, &[value(number, 2000)]);
    world.settle();
    let (_, flags, meta, _) = world.reply().expect("an answer");
    if flags & FLAG_ERROR != 0 {
        let error = ErrorBody::decode(&meta).unwrap();
        return Err((error.code().unwrap(), error.message.to_owned()));
    }
    assert!(produce_results(&meta)[0].error.is_ok());
    Ok(())
}

/// Produces to each in turn until it is refused; answers how many each took.
fn fill(world: &mut World, uids: [u64; 2]) -> (u64, String) {
    for number in 0..1000 {
        for uid in uids {
            if let Err((code, message)) = put(world, uid, number) {
                assert_eq!(code, ErrorCode::DiskFull);
                return (number, message);
            }
        }
    }
    panic!("the files hold less");
}

fn delete(world: &mut World, name: &str) {
    world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name }.encode(out));
    world.settle();
    world.reply_ok();
}

#[test]
fn the_refusal_names_the_shard_and_the_free_bytes() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    world.shard.set_disk(room(DiskLevel::Refuse, 0));
    let (_, message) = fill(&mut world, [uid, uid]);
    assert!(message.contains("shard 0") && message.contains("4321 bytes are free") && message.contains("keeps 1234"), "{message}");
}

#[test]
fn without_room_on_the_disk_produce_is_refused_and_the_rest_goes_on() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    world.shard.set_disk(room(DiskLevel::Refuse, 0));
    let files_before = world.shard.log.stats().file_bytes;
    let mut taken = 0;
    while let Ok(()) = put(&mut world, uid, taken) {
        taken += 1;
        assert!(taken < 1000, "three files of 128 KiB hold less");
    }
    assert_eq!(world.shard.log.stats().file_bytes, files_before, "no file was created");
    world.create_topic("other", 1, &[]);
    assert_eq!(world.read(uid, 0).0.len() as u64, taken);
    world.shard.set_disk(room(DiskLevel::Enough, 2));
    world.settle();
    assert_eq!(put(&mut world, uid, taken), Ok(()), "with room again it goes on");
    assert!(world.shard.log.stats().file_bytes > files_before);
}

/// The files of the next segments are there, and a start's first manifest, which would name them, finds no room.
#[test]
fn a_disk_that_is_full_behind_a_start_is_refused_and_not_waited_for() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    world.settle();
    let mut world = world.crash(Tear::Nothing, &mut Dice::stream(1, "full"));
    world.disk.free_bytes = Some(0);
    let (taken, _) = fill(&mut world, [uid, uid]);
    world.disk.free_bytes = None;
    world.pass(2_000_000);
    world.settle();
    assert_eq!(put(&mut world, uid, taken), Ok(()), "with room again it goes on");
}

#[test]
fn a_full_disk_of_half_dead_segments_is_won_back_by_sorting() {
    let mut world = World::new();
    world.create_topic("dead", 1, &[]);
    world.create_topic("kept", 1, &[]);
    let (dead, kept) = (world.uids("dead")[0], world.uids("kept")[0]);
    world.shard.set_disk(room(DiskLevel::Enough, 4));
    let (taken, _) = fill(&mut world, [dead, kept]);
    let files = world.shard.log.stats();
    assert!(taken > 80 && files.segments_sealed >= 4 && files.pool_filled + files.pool_unfilled == 1, "one is kept: {files:?}");
    let bytes = files.file_bytes;
    delete(&mut world, "dead");
    // Each segment has records of the topic that stays: deleting alone frees none.
    for _ in 0..20 {
        world.pass(1_100_000);
        world.settle();
    }
    assert!(world.shard.log.segments().any(|segment| segment.sorted));
    let mut more = 0;
    while put(&mut world, kept, taken + more).is_ok() {
        more += 1;
        assert!(more < 1000, "the files hold less");
    }
    assert!(more >= 50, "a segment of 128 KiB and more came back without any room on the disk: {more}");
    assert!(world.shard.log.stats().file_bytes <= bytes, "and no file was added");
    assert_eq!(world.read(kept, 0).0.len() as u64, taken + more);
    let mut world = World::over(world.disk.snapshot(), world.now);
    assert_eq!(world.read(kept, 0).0.len() as u64, taken + more, "and so after a start");
}

#[test]
fn without_the_sorter_no_file_is_kept_for_it() {
    let mut world = World::with(&[("sorter.segments", "0")]);
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    world.shard.set_disk(room(DiskLevel::Refuse, 0));
    fill(&mut world, [uid, uid]);
    let files = world.shard.log.stats();
    assert_eq!((files.pool_filled, files.pool_unfilled), (0, 0));
}

/// A shard below the slow mark, with one partition. 40 MiB are left: 4 MiB and the floor of 1 MiB in the first second.
fn slowed_down() -> (World, u64) {
    let mut world = World::with(&[("throttle.time", "10s")]);
    world.create_topic("t", 1, &[]);
    let uid = world.uids("t")[0];
    world.shard.set_disk(room(DiskLevel::Slow, 320));
    world.pass(60_000);
    world.turn();
    (world, uid)
}

#[test]
fn below_the_slow_mark_producers_share_what_is_left() {
    let (mut world, uid) = slowed_down();
    let batch = value(1, 6000);
    let mut taken = 0u64;
    world.replies.clear();
    for _ in 0..1000 {
        // One waits at a time, as on one connection.
        for _ in 0..3 {
            if !world.is_blocked() {
                world.produce(uid, Level::Leader, std::slice::from_ref(&batch));
            }
        }
        world.pass(1000);
        world.turn();
        while !world.disk.under_way.is_empty() {
            world.complete(0);
            world.turn();
        }
        taken += world.replies.drain(..).count() as u64 * 6000;
    }
    assert!((4 << 20..6 << 20).contains(&taken), "{taken} bytes in a second");
    assert!(world.shard.throttle.held_us(crate::shard::throttle::Scarce::Disk) > 500_000);
}

#[test]
fn a_frame_that_finds_no_room_counts_once_however_often_it_comes_back() {
    let (mut world, uid) = slowed_down();
    // A tenth of a second's 5 MiB is saved up, more than the blocks under way take in.
    world.pass(1_000_000);
    while !world.is_blocked() {
        world.produce(uid, Level::Leader, &[value(1, 6000)]);
        let _ = world.step(Event::EndOfTurn);
    }
    assert!(!world.disk.under_way.is_empty(), "it waits for a write");
    for _ in 0..500 {
        world.turn();
    }
    assert!(world.is_blocked() && !world.shard.must_wait(world.now), "3 MB were taken in if each try counted");
}
