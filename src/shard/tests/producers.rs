//! Idempotent producers against a whole shard: what a repeated batch is answered and when, what a start knows, ids, bounds.

use super::world::{World, produce_results};
use crate::effects::{Event, Now};
use crate::sim::{Dice, TEARS};
use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter, ProduceResult};
use tramline_wire::producer::{InitProducerReply, InitProducerRequest};

fn ask_id(world: &mut World) -> u64 {
    world.request(Kind::InitProducer, &[], |out| InitProducerRequest {}.encode(out))
}

pub(super) fn id(world: &mut World) -> u64 {
    ask_id(world);
    world.settle();
    let (_, meta, _) = world.reply_ok();
    InitProducerReply::decode(&meta).unwrap().producer_id
}

pub(super) fn mark(id: u64, epoch: u16, sequence: u32) -> ProducerMark {
    ProducerMark { id, epoch, sequence }
}

/// Sends `count` records of `bytes` each.
fn send_sized(world: &mut World, uid: u64, level: Level, mark: ProducerMark, count: u32, bytes: usize) {
    let mut builder = BatchBuilder::new(Limits::default());
    for number in 0..count {
        let mut value = vec![number as u8; bytes];
        value[..4].copy_from_slice(&(mark.sequence + number).to_le_bytes());
        builder.push(&NewRecord { value: Some(&value), timestamp_us: world.now.utc_us, ..NewRecord::default() }).unwrap();
    }
    let mut batch = Vec::new();
    builder.finish_plain(&mut batch, mark);
    world.request(Kind::Produce, &batch, |out| {
        let mut writer = ProduceRequestWriter::begin(out, level, 0);
        writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
        writer.finish(out);
    });
}

pub(super) fn send(world: &mut World, uid: u64, level: Level, mark: ProducerMark, count: u32) {
    send_sized(world, uid, level, mark, count, 20);
}

pub(super) fn result(world: &mut World) -> ProduceResult {
    let (_, meta, _) = world.reply_ok();
    produce_results(&meta)[0]
}

/// Sends at `durable` and answers (error, base offset).
pub(super) fn produced(world: &mut World, uid: u64, mark: ProducerMark, count: u32) -> (ErrorCode, u64) {
    send(world, uid, Level::Durable, mark, count);
    world.settle();
    let result = result(world);
    (result.error, result.base_offset)
}

pub(super) fn topic(world: &mut World) -> u64 {
    world.create_topic("t", 1, &[]);
    world.uids("t")[0]
}

#[test]
fn a_repeated_batch_is_answered_as_the_first_one_and_stored_once() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let id = id(&mut world);
    send(&mut world, uid, Level::Durable, mark(id, 0, 0), 3);
    world.settle();
    let first = result(&mut world);
    assert_eq!(produced(&mut world, uid, mark(id, 0, 3), 2), (ErrorCode::Ok, 3));
    world.pass(5_000);
    send(&mut world, uid, Level::Durable, mark(id, 0, 0), 3);
    let again = result(&mut world);
    assert_eq!((again.base_offset, again.append_time_us, again.durable_end), (first.base_offset, first.append_time_us, 5), "at once");
    assert_eq!(produced(&mut world, uid, mark(id, 0, 6), 1), (ErrorCode::OutOfSequence, 0));
    assert_eq!(produced(&mut world, uid, mark(id, 1, 0), 1), (ErrorCode::Ok, 5));
    assert_eq!(produced(&mut world, uid, mark(id, 0, 3), 2), (ErrorCode::ProducerFenced, 0));
    for number in 1..7 {
        assert_eq!(produced(&mut world, uid, mark(id, 1, number), 1), (ErrorCode::Ok, 5 + u64::from(number)));
    }
    assert_eq!(produced(&mut world, uid, mark(id, 1, 0), 1), (ErrorCode::DuplicateTooOld, 0));
    assert_eq!(world.read(uid, 0).0.len(), 12);
    assert_eq!(world.shard.metrics_mut().counters.produce_duplicates, 2);
}

#[test]
fn a_repeated_batch_waits_for_the_level_it_asks_for() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let id = id(&mut world);
    send(&mut world, uid, Level::Leader, mark(id, 0, 0), 3);
    let first = result(&mut world);
    send(&mut world, uid, Level::Durable, mark(id, 0, 0), 3);
    send(&mut world, uid, Level::Leader, mark(id, 0, 0), 3);
    assert_eq!(result(&mut world).base_offset, first.base_offset);
    world.turn();
    assert!(world.reply().is_none(), "the first one is not durable yet");
    world.settle();
    let again = result(&mut world);
    assert_eq!((again.base_offset, again.durable_end), (0, 3));
    assert!(world.reply().is_none());
}

#[test]
fn a_start_knows_what_the_log_holds_and_nothing_of_what_it_lost() {
    let mut dice = Dice(3);
    for tear in TEARS {
        let mut world = World::new();
        let uid = topic(&mut world);
        let id = id(&mut world);
        assert_eq!(produced(&mut world, uid, mark(id, 0, 0), 2), (ErrorCode::Ok, 0));
        // Told as accepted, and not written yet.
        send(&mut world, uid, Level::Leader, mark(id, 0, 2), 2);
        assert_eq!(result(&mut world).base_offset, 2);
        let mut world = world.crash(tear, &mut dice);
        assert_eq!(produced(&mut world, uid, mark(id, 0, 0), 2), (ErrorCode::Ok, 0), "{tear:?}");
        assert_eq!(produced(&mut world, uid, mark(id, 0, 4), 1).0, ErrorCode::OutOfSequence, "{tear:?}");
        assert_eq!(produced(&mut world, uid, mark(id, 0, 2), 2), (ErrorCode::Ok, 2), "{tear:?}");
        assert_eq!(world.read(uid, 0).0.len(), 4, "{tear:?}");
    }
}

#[test]
fn a_start_knows_what_only_the_checkpoint_tells_and_what_came_behind_it() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let (quiet, busy) = (id(&mut world), id(&mut world));
    assert_eq!(produced(&mut world, uid, mark(quiet, 2, 0), 4), (ErrorCode::Ok, 0));
    let mut next = 0;
    // Segments of 128 KiB: several are sealed, and a start scans only the last ones.
    while world.disk.names().iter().filter(|name| name.starts_with("seg-")).count() < 5 && next < 400 {
        send_sized(&mut world, uid, Level::Durable, mark(busy, 0, next), 1, 6000);
        next += 1;
        world.settle();
        assert_eq!(result(&mut world).error, ErrorCode::Ok);
    }
    let mut world = world.crash(TEARS[0], &mut Dice(1));
    assert_eq!(produced(&mut world, uid, mark(quiet, 2, 0), 4), (ErrorCode::Ok, 0));
    assert_eq!(produced(&mut world, uid, mark(quiet, 2, 4), 1).0, ErrorCode::Ok);
    send_sized(&mut world, uid, Level::Durable, mark(busy, 0, next - 1), 1, 6000);
    world.settle();
    assert_eq!(result(&mut world).base_offset, u64::from(next) + 3, "the last one");
    assert_eq!(world.read(uid, 0).0.len(), next as usize + 5);
}

#[test]
fn ids_are_given_once_also_over_crashes_and_to_all_who_wait() {
    let mut world = World::new();
    let asked: Vec<u64> = (0..10).map(|_| ask_id(&mut world)).collect();
    assert!(world.reply().is_none(), "the lease is not durable yet");
    world.settle();
    let mut given: Vec<u64> = asked
        .iter()
        .map(|asked| {
            let (answered, meta, _) = world.reply_ok();
            assert_eq!(answered, *asked);
            InitProducerReply::decode(&meta).unwrap().producer_id
        })
        .collect();
    given.extend((0..2100).map(|_| id(&mut world)));
    let mut world = world.crash(TEARS[0], &mut Dice(1));
    given.extend((0..5).map(|_| id(&mut world)));
    let distinct: std::collections::BTreeSet<u64> = given.iter().copied().filter(|id| *id > 0).collect();
    assert_eq!((given.len(), distinct.len()), (2115, 2115));
}

#[test]
fn producers_are_bounded_and_forgotten_only_when_they_were_silent_for_long() {
    let mut world = World::with(&[("producers.max", "3"), ("producer.expiry", "10m")]);
    let uid = topic(&mut world);
    let ids: Vec<u64> = (0..4).map(|_| id(&mut world)).collect();
    let mut world = ids[..3].iter().fold(world, |mut world, id| {
        assert_eq!(produced(&mut world, uid, mark(*id, 0, 0), 1).0, ErrorCode::Ok);
        world
    });
    assert_eq!(produced(&mut world, uid, mark(ids[3], 0, 0), 1).0, ErrorCode::Overloaded);
    assert_eq!(produced(&mut world, uid, mark(0, 0, 0), 1).0, ErrorCode::Ok, "who has no id takes no place");
    let minutes = |world: &mut World, count: u64| {
        for _ in 0..count {
            world.pass(60_000_000);
            let _ = world.step(Event::Deadline);
            world.settle();
        }
    };
    minutes(&mut world, 6);
    assert_eq!(produced(&mut world, uid, mark(ids[0], 0, 1), 1).0, ErrorCode::Ok);
    minutes(&mut world, 3);
    assert_eq!(produced(&mut world, uid, mark(ids[3], 0, 0), 1).0, ErrorCode::Overloaded);
    minutes(&mut world, 3);
    assert_eq!(produced(&mut world, uid, mark(ids[3], 0, 0), 1).0, ErrorCode::Ok);
    assert_eq!(produced(&mut world, uid, mark(ids[1], 0, 1), 1).0, ErrorCode::OutOfSequence, "forgotten");
    assert_eq!(produced(&mut world, uid, mark(ids[0], 0, 1), 1).0, ErrorCode::Ok, "not silent for long enough: a repeated batch");
    assert_eq!(world.read(uid, 0).0.len(), 6);
}

#[test]
fn what_was_not_durable_is_not_told_as_stored_long_ago() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let id = id(&mut world);
    send(&mut world, uid, Level::Durable, mark(id, 0, 0), 1);
    for number in 1..6 {
        send(&mut world, uid, Level::Leader, mark(id, 0, number), 1);
        assert_eq!(result(&mut world).base_offset, u64::from(number));
    }
    assert!(world.reply().is_none(), "the first one waits");
    send(&mut world, uid, Level::Durable, mark(id, 0, 0), 1);
    assert!(world.reply().is_none(), "and so does the same once more");
    let mut world = world.crash(TEARS[0], &mut Dice(5));
    assert_eq!(world.read(uid, 0).0.len(), 0);
}

#[test]
fn a_producer_that_was_forgotten_and_begins_anew_below_its_epoch_is_no_obstacle_to_a_start() {
    let mut world = World::with(&[("producer.expiry", "10m")]);
    let uid = topic(&mut world);
    let id = id(&mut world);
    assert_eq!(produced(&mut world, uid, mark(id, 0, 0), 1).0, ErrorCode::Ok);
    assert_eq!(produced(&mut world, uid, mark(id, 1, 0), 1).0, ErrorCode::Ok);
    for _ in 0..15 {
        world.pass(60_000_000);
        let _ = world.step(Event::Deadline);
        world.settle();
    }
    assert_eq!(produced(&mut world, uid, mark(id, 0, 0), 1).0, ErrorCode::Ok, "forgotten");
    let mut world = world.crash(TEARS[0], &mut Dice(1));
    for _ in 0..60 {
        world.produce(uid, Level::Durable, &[vec![1; 6000]]);
        world.settle();
        world.reply_ok();
    }
    let mut world = world.crash(TEARS[0], &mut Dice(1));
    assert!(world.read(uid, 0).0.len() > 3);
}

/// A disk that lied: whatever was written since `before` is not there.
fn take_back(world: World, before: &[(String, Vec<u8>)]) -> World {
    let World { mut disk, now, .. } = world;
    disk.crash(TEARS[0], &mut Dice(1));
    for (name, old) in before {
        let file = disk.file(name);
        // But for what the start of a segment says of itself.
        for page in 1..old.len().min(file.len()) / 4096 {
            let range = page * 4096..(page + 1) * 4096;
            file[range.clone()].copy_from_slice(&old[range]);
        }
    }
    World::over(disk, Now { mono_us: now.mono_us, utc_us: now.utc_us + 1_000_000 })
}

fn segments(world: &mut World) -> Vec<(String, Vec<u8>)> {
    let names: Vec<String> = world.disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect();
    names.into_iter().map(|name| (name.clone(), world.disk.file(&name).clone())).collect()
}

#[test]
fn an_id_is_not_given_twice_although_the_disk_lost_its_reservation() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let before = segments(&mut world);
    let first = id(&mut world);
    let mut world = take_back(world, &before);
    let second = id(&mut world);
    assert_ne!(first, second);
    assert_eq!(produced(&mut world, uid, mark(second, 0, 0), 1), (ErrorCode::Ok, 0));
}

#[test]
fn an_id_that_a_client_makes_up_is_nobody_elses() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let mine = id(&mut world);
    assert_eq!(produced(&mut world, uid, mark(mine + 1, 0, 0), 1), (ErrorCode::Ok, 0));
    let other = id(&mut world);
    assert_eq!(produced(&mut world, uid, mark(other, 0, 0), 1), (ErrorCode::Ok, 1), "stored as well");
}

#[test]
fn a_request_that_is_half_taken_when_the_node_stops_is_carried_on() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let id = id(&mut world);
    let (mut next, mut sent) = (0u32, 0);
    // Until one finds no room for all of it: the disk stands still.
    while !world.is_blocked() {
        let mut payload = Vec::new();
        let lens = [0, 1, 2].map(|number| {
            let mut builder = BatchBuilder::new(Limits::default());
            let value = [7; 6000];
            builder.push(&NewRecord { value: Some(&value), timestamp_us: world.now.utc_us, ..NewRecord::default() }).unwrap();
            builder.finish_plain(&mut payload, mark(id, 0, next + number)) as u32
        });
        world.request(Kind::Produce, &payload, |out| {
            let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
            lens.iter().for_each(|len| writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: *len }));
            writer.finish(out);
        });
        (next, sent) = (next + 3, sent + 1);
        assert!(sent < 2000, "the log takes all of it");
    }
    let is_begun = !world.shard.half_taken.is_empty();
    world.shard.stop(&mut world.effects);
    world.settle();
    let mut answers = Vec::new();
    while let Some((_, flags, _, _)) = world.reply() {
        answers.push(flags & tramline_wire::frame::FLAG_ERROR == 0);
    }
    assert!(is_begun && world.shard.has_stopped());
    assert_eq!((answers.len(), answers.iter().filter(|good| **good).count()), (sent, sent));
    let mut world = world.crash(TEARS[0], &mut Dice(1));
    assert_eq!(world.read(uid, 0).0.len(), next as usize);
}
