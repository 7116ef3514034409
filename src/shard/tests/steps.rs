//! Atomic steps against a whole shard: all of it or nothing, also over a crash, and once, also when it is sent again.

use super::queue_messages::{Got, create_queue, offsets, pass_ms, receive, send, settle};
use super::world::World;
use crate::config::{DiskLevel, DiskLook};
use crate::effects::{Effect, Token};
use crate::sim::{Dice, TEARS};
use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::group::*;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::produce::ProduceEntry;
use tramline_wire::queue::{QueueStart, SettleAction};
use tramline_wire::step::*;

struct Scene {
    world: World,
    queue: u64,
    group: u64,
    input: u64,
    output: u64,
}

/// A queue on topic `in`, and topic `out` beside it.
fn scene() -> Scene {
    let mut world = World::new();
    world.create_topic("in", 2, &[]);
    world.create_topic("out", 2, &[("co.locate", "in")]);
    let queue = create_queue(&mut world, "q", "in", QueueStart::Latest, &[]);
    world.request(Kind::FindGroup, &[], |out| FindGroupRequest { name: "g", flags: FindGroupFlags::CREATE }.encode(out));
    world.settle();
    let group = FindGroupReply::decode(&world.reply_ok().1).unwrap().group_uid;
    let (input, output) = (world.uids("in")[0], world.uids("out")[0]);
    Scene { world, queue, group, input, output }
}

fn batch(value: &[u8], mark: ProducerMark) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Limits::default());
    builder.push(&NewRecord { value: Some(value), timestamp_us: 1_700_000_000_000_000, ..NewRecord::default() }).unwrap();
    let mut out = Vec::new();
    builder.finish_plain(&mut out, mark);
    out
}

const UNMARKED: ProducerMark = ProducerMark { id: 0, epoch: 0, sequence: 0 };

/// (partition, offset) of a commit; the group's.
type Commit = (u64, u64);

fn ask(scene: &mut Scene, acks: &[&Got], commits: &[Commit], batches: &[(u64, &[u8])]) -> u64 {
    let (queue_uid, group_uid) = (scene.queue, scene.group);
    let acks: Vec<_> =
        acks.iter().map(|got| StepAck { queue_uid, partition_uid: got.partition, offset: got.offset, lease: got.lease }).collect();
    let commits: Vec<_> = commits
        .iter()
        .map(|&(partition_uid, offset)| StepCommit { group_uid, partition_uid, assignment_epoch: 0, offset, metadata: "step" })
        .collect();
    let entries: Vec<_> = batches.iter().map(|(uid, batch)| ProduceEntry { partition_uid: *uid, batch_len: batch.len() as u32 }).collect();
    let payload = batches.iter().map(|(_, batch)| *batch).collect::<Vec<_>>().concat();
    scene.world.request(Kind::Step, &payload, |out| {
        StepRequest { flags: 0, acks: List::of(&acks), commits: List::of(&commits), entries: List::of(&entries) }.encode(out)
    })
}

/// The offsets of a step that was taken.
fn step(scene: &mut Scene, acks: &[&Got], commits: &[Commit], batches: &[(u64, &[u8])]) -> Vec<u64> {
    let asked = ask(scene, acks, commits, batches);
    scene.world.settle();
    let meta = scene.world.reply_to(asked);
    StepReply::decode(&meta).unwrap().results.iter().map(|result| result.base_offset).collect()
}

fn refused(scene: &mut Scene, acks: &[&Got], commits: &[Commit], batches: &[(u64, &[u8])]) -> ErrorCode {
    ask(scene, acks, commits, batches);
    scene.world.settle();
    scene.world.reply_error()
}

fn committed(scene: &mut Scene, uid: u64) -> u64 {
    let ask = [OffsetAsk { partition_uid: uid, assignment_epoch: 0 }];
    let group_uid = scene.group;
    scene.world.request(Kind::FetchOffsets, &[], |out| FetchOffsetsRequest { group_uid, entries: List::of(&ask) }.encode(out));
    scene.world.settle();
    let (_, meta, _) = scene.world.reply_ok();
    FetchOffsetsReply::decode(&meta).unwrap().entries.iter().next().unwrap().offset
}

#[test]
fn a_step_acks_publishes_and_commits() {
    let mut scene = scene();
    let (queue, input, output) = (scene.queue, scene.input, scene.output);
    send(&mut scene.world, input, &[b"a", b"b", b"c"]);
    let got = receive(&mut scene.world, queue, &[input], 2);
    let out = batch(b"A", UNMARKED);
    let published = step(&mut scene, &[&got[0]], &[(input, 1)], &[(output, &out), (output, &out)]);
    assert_eq!(published, [0, 1]);
    assert_eq!(scene.world.shard.metrics.counters.queue_acked, 1);
    assert_eq!(committed(&mut scene, input), 1);
    assert_eq!(scene.world.read(output, 0).0.len(), 2);
    assert_eq!(settle(&mut scene.world, queue, &[(&got[0], SettleAction::Ack, 0)]), [ErrorCode::UnknownLease]);
    assert!(step(&mut scene, &[&got[1]], &[], &[]).is_empty(), "each part of it may be missing");
    assert_eq!(offsets(&receive(&mut scene.world, queue, &[input], 9)), [2]);
}

#[test]
fn of_a_step_that_is_refused_nothing_was_done() {
    let mut scene = scene();
    let (queue, input, output) = (scene.queue, scene.input, scene.output);
    send(&mut scene.world, input, &[b"a", b"b"]);
    let got = receive(&mut scene.world, queue, &[input], 2);
    let out = batch(b"A", UNMARKED);
    let stale = Got { lease: got[0].lease + 9, ..got[0].clone() };
    let elsewhere = scene.world.uids("out")[1];
    let mut broken = out.clone();
    broken[70] ^= 1;
    for (acks, commits, batches, expected) in [
        (vec![&got[0], &stale], vec![], vec![(output, &out)], ErrorCode::UnknownLease),
        (vec![&got[0], &got[0]], vec![], vec![(output, &out)], ErrorCode::InvalidRequest),
        (vec![&got[0]], vec![], vec![(elsewhere, &out)], ErrorCode::NotCoLocated),
        (vec![&got[0]], vec![(elsewhere, 0)], vec![], ErrorCode::NotCoLocated),
        (vec![&got[0]], vec![(input, 99)], vec![(output, &out)], ErrorCode::OffsetOutOfRange),
        (vec![&got[0]], vec![(input, 1)], vec![(output, &out), (output, &broken)], ErrorCode::BadBatch),
        (vec![&got[0]], vec![], vec![(999, &out)], ErrorCode::UnknownPartition),
        (vec![], vec![], vec![], ErrorCode::InvalidRequest),
        (vec![], vec![(input, 1), (input, 2)], vec![(output, &out)], ErrorCode::InvalidRequest),
    ] {
        let batches: Vec<(u64, &[u8])> = batches.iter().map(|(uid, batch)| (*uid, batch.as_slice())).collect();
        assert_eq!(refused(&mut scene, &acks, &commits, &batches), expected);
    }
    assert_eq!(committed(&mut scene, input), OFFSET_NONE);
    assert!(scene.world.read(output, 0).0.is_empty());
    assert_eq!(step(&mut scene, &[&got[0], &got[1]], &[(input, 2)], &[(output, &out)]), [0]);
}

#[test]
fn a_step_that_is_sent_again_is_done_once() {
    let mut scene = scene();
    let (queue, input, output) = (scene.queue, scene.input, scene.output);
    send(&mut scene.world, input, &[b"a", b"b"]);
    let got = receive(&mut scene.world, queue, &[input], 2);
    let mark = |sequence| ProducerMark { id: 77, epoch: 0, sequence };
    let (first, second) = (batch(b"A", mark(0)), batch(b"B", mark(1)));
    assert_eq!(step(&mut scene, &[&got[0]], &[], &[(output, &first)]), [0]);
    assert_eq!(step(&mut scene, &[&got[0]], &[], &[(output, &first)]), [0], "its reply was lost");
    assert_eq!(refused(&mut scene, &[&got[0]], &[], &[(output, &second)]), ErrorCode::UnknownLease);
    assert_eq!(step(&mut scene, &[&got[1]], &[], &[(output, &second)]), [1], "a refused one takes no number");
    assert_eq!(scene.world.read(output, 0).0.len(), 2);
    // One that came before beside one without a mark, in either order.
    let unmarked = batch(b"U", UNMARKED);
    assert_eq!(refused(&mut scene, &[], &[], &[(output, &second), (input, &unmarked)]), ErrorCode::InvalidRequest);
    assert_eq!(refused(&mut scene, &[], &[], &[(input, &unmarked), (output, &second)]), ErrorCode::InvalidRequest);
    assert_eq!(refused(&mut scene, &[], &[], &[(input, &batch(b"N", mark(0))), (output, &second)]), ErrorCode::InvalidRequest);
    assert_eq!(scene.world.read(output, 0).0.len(), 2);
    let third = batch(b"C", mark(2));
    assert_eq!(refused(&mut scene, &[], &[], &[(output, &second), (output, &third)]), ErrorCode::InvalidRequest);
    let ahead = batch(b"D", mark(9));
    assert_eq!(refused(&mut scene, &[], &[], &[(output, &ahead)]), ErrorCode::OutOfSequence);
}

#[test]
fn a_crash_leaves_all_of_a_step_or_nothing() {
    let mut seen = [0, 0];
    for seed in 0..60_u64 {
        let mut dice = Dice(seed);
        let mut scene = scene();
        let (queue, input, output) = (scene.queue, scene.input, scene.output);
        send(&mut scene.world, input, &[b"a", b"b", b"c"]);
        let got = receive(&mut scene.world, queue, &[input], 1);
        // Among other things of the same block.
        let other = scene.world.uids("out")[1];
        let out = batch(&vec![3; 1 + dice.below(5_000) as usize], UNMARKED);
        if dice.below(2) == 0 {
            scene.world.produce(other, tramline_wire::level::Level::Durable, &[vec![1; 3_000]]);
        }
        let asked = ask(&mut scene, &[&got[0]], &[(input, 1)], &[(output, &out)]);
        for _ in 0..dice.below(6) {
            scene.world.turn();
            if !scene.world.disk.under_way.is_empty() && dice.below(2) == 0 {
                scene.world.complete(0);
            }
        }
        let answered = scene.world.replies.iter().any(|(_, bytes)| bytes[8..16] == asked.to_le_bytes());
        scene.world = scene.world.crash(TEARS[dice.below(TEARS.len() as u64) as usize], &mut dice);
        scene.world.settle();
        let published = scene.world.read(output, 0).0.len() == 1;
        let is_acked = settle(&mut scene.world, queue, &[(&got[0], SettleAction::Ack, 0)]) == [ErrorCode::UnknownLease];
        let is_committed = committed(&mut scene, input) == 1;
        assert!(published == is_acked && is_acked == is_committed, "seed {seed}: {published} {is_acked} {is_committed}");
        assert!(published || !answered, "seed {seed}: it was answered");
        seen[usize::from(published)] += 1;
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
}

/// A segment is sealed, and the state of queues kept with it, while the step's block is still being written: what is kept must not know more than the log.
#[test]
fn a_crash_while_a_segment_is_sealed_leaves_all_of_a_step_or_nothing() {
    let mut lost = 0;
    for seed in 0..60_u64 {
        let mut dice = Dice(seed);
        let mut scene = scene();
        let (queue, input, output) = (scene.queue, scene.input, scene.output);
        send(&mut scene.world, input, &[b"a", b"b", b"c"]);
        let got = receive(&mut scene.world, queue, &[input], 1);
        let other = scene.world.uids("out")[1];
        let fill = |world: &mut World| world.produce(other, tramline_wire::level::Level::Durable, &[vec![1; 7_000]]);
        while scene.world.shard.log.seal_ready().is_none() {
            fill(&mut scene.world);
            scene.world.turn();
            while scene.world.disk.under_way.len() > 1 {
                scene.world.complete(0);
            }
        }
        let before: Vec<_> = scene.world.disk.under_way.iter().map(token_of).collect();
        ask(&mut scene, &[&got[0]], &[(input, 1)], &[(output, &batch(b"out", UNMARKED))]);
        scene.world.turn();
        let held: Vec<_> = scene.world.disk.under_way.iter().map(token_of).filter(|token| !before.contains(token)).collect();
        for _ in 0..dice.below(80) {
            scene.world.turn();
            let free: Vec<_> =
                (0..scene.world.disk.under_way.len()).filter(|at| !held.contains(&token_of(&scene.world.disk.under_way[*at]))).collect();
            if !free.is_empty() {
                scene.world.complete(free[dice.below(free.len() as u64) as usize]);
            }
        }
        scene.world = scene.world.crash(TEARS[dice.below(TEARS.len() as u64) as usize], &mut dice);
        scene.world.settle();
        let published = scene.world.read(output, 0).0.len() == 1;
        let is_acked = settle(&mut scene.world, queue, &[(&got[0], SettleAction::Ack, 0)]) == [ErrorCode::UnknownLease];
        let is_committed = committed(&mut scene, input) == 1;
        assert!(published == is_acked && is_acked == is_committed, "seed {seed}: {published} {is_acked} {is_committed}");
        lost += u32::from(!published);
    }
    assert!(lost > 10, "{lost}");
}

fn token_of(effect: &Effect) -> Token {
    match effect {
        Effect::Write { token, .. } | Effect::Read { token, .. } | Effect::File { token, .. } => *token,
        other => panic!("{other:?} is none of the disk's"),
    }
}

#[test]
fn what_steps_publish_is_slowed_down_where_the_disk_runs_full() {
    let mut scene = scene();
    let (input, output) = (scene.input, scene.output);
    let room_bytes = 40 << 20;
    let look = DiskLook { level: DiskLevel::Slow, segments: 320, free_bytes: room_bytes, refuse_bytes: 0, slow_bytes: 0, room_bytes };
    scene.world.shard.set_disk(look);
    pass_ms(&mut scene.world, 60);
    let out = batch(&vec![3; 7_000], UNMARKED);
    scene.world.replies.clear();
    let mut taken = 0;
    // A shard with a held frame does not come to rest.
    for _ in 0..1000 {
        if !scene.world.is_blocked() {
            ask(&mut scene, &[], &[], &[(output, &out)]);
        }
        scene.world.pass(1000);
        scene.world.turn();
        while !scene.world.disk.under_way.is_empty() {
            scene.world.complete(0);
            scene.world.turn();
        }
        taken += scene.world.replies.drain(..).count() * out.len();
    }
    // 40 MiB in a minute, and the floor of 1 MiB.
    assert!((1 << 20..2 << 20).contains(&taken), "{taken} bytes in a second");
    while scene.world.is_blocked() {
        scene.world.pass(1000);
        scene.world.turn();
    }
    let now = scene.world.now;
    assert!(scene.world.shard.must_wait(now), "the last one has used up what there was");
    assert!(step(&mut scene, &[], &[(input, 0)], &[]).is_empty(), "what adds no records is not held up");
}

#[test]
fn a_step_that_no_block_could_hold_is_refused() {
    let mut scene = scene();
    let output = scene.output;
    let out = batch(&vec![3; 7_000], UNMARKED);
    let batches: Vec<(u64, &[u8])> = (0..60).map(|_| (output, out.as_slice())).collect();
    assert_eq!(refused(&mut scene, &[], &[], &batches), ErrorCode::LimitExceeded);
    assert!(scene.world.read(output, 0).0.is_empty());
}
