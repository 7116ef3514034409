//! Segments of many small batches are sealed: what is listed for that takes several turns, in which the shard goes on with everything else.

use super::producers::{id, mark, produced, result, send, topic};
use super::world::World;
use crate::ids::PartitionUid;
use crate::sim::{Dice, TEARS};
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::topics::DeleteTopicRequest;

/// Stores a batch of one record; nothing else is waited for.
fn store(world: &mut World, uid: u64, id: u64, number: u32) {
    send(world, uid, Level::Durable, mark(id, 0, number), 1);
    while world.replies.is_empty() {
        world.turn();
        if !world.disk.under_way.is_empty() {
            world.complete(0);
        }
    }
    assert_eq!(result(world).error, ErrorCode::Ok);
}

/// Stores batches until a list is under way; returns how many there are then.
fn until_listing(world: &mut World, uid: u64, id: u64) -> u32 {
    let mut next = 0;
    while !world.shard.listing.is_under_way() {
        assert!(next < 1000, "a segment of 128 KiB has 31 pages for blocks");
        store(world, uid, id, next);
        next += 1;
    }
    next
}

#[test]
fn a_seal_lists_over_several_turns_and_a_start_finds_all_of_it() {
    let mut world = World::new();
    let uid = topic(&mut world);
    let (quiet, busy) = (id(&mut world), id(&mut world));
    assert_eq!(produced(&mut world, uid, mark(quiet, 2, 0), 4), (ErrorCode::Ok, 0));
    let next = until_listing(&mut world, uid, busy);
    // Answered between two parts of it.
    let mut meanwhile = 0;
    while world.shard.listing.is_under_way() {
        store(&mut world, uid, busy, next + meanwhile);
        meanwhile += 1;
    }
    assert!(meanwhile > 0, "{next} batches in parts of 16");
    world.settle();
    assert_eq!(world.shard.log.stats().segments_sealed, 1);
    let mut world = world.crash(TEARS[0], &mut Dice(1));
    assert_eq!(produced(&mut world, uid, mark(quiet, 2, 0), 4), (ErrorCode::Ok, 0), "which only the checkpoint tells");
    let all = next + meanwhile;
    assert_eq!(produced(&mut world, uid, mark(busy, 0, all - 1), 1), (ErrorCode::Ok, u64::from(all) + 3), "the last one is known");
    assert_eq!(world.read(uid, 0).0.len(), all as usize + 4);
}

#[test]
fn a_topic_that_goes_or_comes_meanwhile_makes_the_list_begin_anew() {
    let mut world = World::new();
    // Listed first: by uid.
    world.create_topic("gone", 1, &[]);
    let gone = world.uids("gone")[0];
    let uid = topic(&mut world);
    assert!(gone < uid);
    let producer = id(&mut world);
    assert_eq!(produced(&mut world, gone, mark(producer, 0, 0), 3), (ErrorCode::Ok, 0));
    // A list of some 30 parts, so that there is time for what follows.
    for number in 0..80 {
        send(&mut world, uid, Level::Leader, mark(1_000_000 + number, 0, 0), 1);
        assert_eq!(result(&mut world).error, ErrorCode::Ok);
    }
    world.settle();
    let next = until_listing(&mut world, uid, producer);
    let slot = |world: &World, uid| world.shard.partitions.slot(PartitionUid(uid));
    let asked = world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name: "gone" }.encode(out));
    while slot(&world, gone).is_some() {
        world.turn();
        if !world.disk.under_way.is_empty() {
            world.complete(0);
        }
    }
    assert!(world.shard.listing.is_under_way(), "what has gone is on the list");
    world.create_topic("late", 1, &[]);
    world.reply_to(asked);
    let late = world.uids("late")[0];
    assert_eq!(produced(&mut world, late, mark(producer, 0, 0), 2), (ErrorCode::Ok, 0));
    world.settle();
    assert_eq!(world.shard.log.stats().segments_sealed, 1);
    let mut world = world.crash(TEARS[0], &mut Dice(2));
    assert_eq!(slot(&world, gone), None);
    for (uid, before, count) in [(uid, 80, next), (late, 0, 2)] {
        assert_eq!(world.read(uid, 0).0.len(), (before + count) as usize, "of {uid}");
        assert_eq!(produced(&mut world, uid, mark(producer, 0, count), 1), (ErrorCode::Ok, u64::from(before + count)), "of {uid}");
    }
    assert_eq!(produced(&mut world, uid, mark(1_000_007, 0, 0), 1), (ErrorCode::Ok, 7), "known from the list");
}
