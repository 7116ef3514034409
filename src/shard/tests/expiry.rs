//! Retention to the batch: what the rules say, no more and no less, in runs that lie together, and what becomes of it over a start.

use super::world::{World, batch, produce_results};
use crate::effects::Event;
use crate::ids::{PartitionUid, ShardId};
use crate::partition::{Partition, Run};
use crate::shard::mesh::Message;
use std::collections::BTreeMap;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::trim::{TrimEntry, TrimPartitionsRequest};

const VALUE_BYTES: usize = 2000;

/// The partitions' batches in turns, of one record each, and time for the sorter to bring the oldest ones together.
fn fill_and_sort(world: &mut World, uids: &[u64], batches: u64, apart_us: u64) {
    for _ in 0..batches {
        for uid in uids {
            world.produce(*uid, Level::Durable, &[vec![7; VALUE_BYTES]]);
            world.settle();
            let (_, meta, _) = world.reply_ok();
            assert_eq!(produce_results(&meta)[0].error, ErrorCode::Ok);
        }
        world.pass(apart_us);
    }
    pass_seconds(world, 20);
}

fn pass_seconds(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 4 {
        world.pass(250_000);
        world.settle();
    }
}

/// At a time of the day, and for some passes more, in which nothing else becomes too old: the clock stands still for whoever asks what time it is.
fn pass_until(world: &mut World, utc_us: i64) {
    world.pass(u64::try_from(utc_us - world.now.utc_us).unwrap());
    for _ in 0..8 {
        world.now.mono_us += 500_000;
        world.settle();
    }
}

fn partition(world: &World, uid: u64) -> &Partition {
    world.shard.partitions.get(world.shard.partitions.slot(PartitionUid(uid)).unwrap()).unwrap()
}

fn oldest_run(world: &World, uid: u64) -> Run {
    *partition(world, uid).index.runs().next().unwrap()
}

fn batch_bytes() -> u64 {
    batch(&[vec![7; VALUE_BYTES]], 0).len() as u64
}

/// What is counted as wanted of each segment is what the runs of all partitions say.
fn check_use(world: &World) {
    let mut wanted: BTreeMap<_, (u32, u64)> = BTreeMap::new();
    for run in world.shard.partitions.iter().flat_map(|(_, partition)| partition.index.runs()) {
        let of = wanted.entry(run.segment).or_default();
        *of = (of.0 + 1, of.1 + run.bytes);
    }
    for segment in world.shard.log.segments().filter(|segment| segment.sealed) {
        let counted = world.shard.retention.use_of(segment.uid).map(|usage| (usage.runs, usage.live_bytes)).unwrap_or_default();
        assert_eq!(counted, wanted.get(&segment.uid).copied().unwrap_or_default(), "{segment:?}");
    }
}

/// The fewest batches that make `keep` bytes.
fn kept_batches(keep: u64) -> u64 {
    keep.div_ceil(batch_bytes())
}

#[test]
fn a_sorted_partition_keeps_the_bytes_of_its_rule_and_not_a_batch_more() {
    let (keep, batches) = (900_000, 600);
    let mut world = World::new();
    world.create_topic("some", 1, &[("retention.bytes", &keep.to_string()), ("retention.ms", "-1")]);
    world.create_topic("all", 1, &[("retention.ms", "-1")]);
    let (some, all) = (world.uids("some")[0], world.uids("all")[0]);
    fill_and_sort(&mut world, &[some, all], batches, 1000);
    let run = oldest_run(&world, some);
    assert!(world.shard.log.is_sorted(run.segment), "{run:?}");
    let start = batches - kept_batches(keep);
    let of = partition(&world, some);
    assert_eq!((of.log_start(), run.first_offset), (start, start));
    assert!(of.index.bytes() >= keep && of.index.bytes() - batch_bytes() < keep, "{}", of.index.bytes());
    assert!(world.shard.metrics.counters.retention_batches > 0, "the rule's offset is in the middle of a run");
    check_use(&world);
    // Nothing is due: nobody looks.
    let lookups = world.shard.metrics.counters.retention_lookups;
    pass_seconds(&mut world, 10);
    assert_eq!(world.shard.metrics.counters.retention_lookups, lookups);
    assert!(world.read(some, 0).0.keys().copied().eq(start..batches));
    assert!(world.read(all, 0).0.keys().copied().eq(0..batches));
    // One more batch, one less.
    for more in 1..5 {
        world.produce(some, Level::Durable, &[vec![7; VALUE_BYTES]]);
        world.settle();
        world.reply_ok();
        pass_seconds(&mut world, 3);
        assert_eq!(partition(&world, some).log_start(), start + more);
    }
    check_use(&world);
    let space = world.shard.storage();
    let kinds = [space.live_bytes, space.dead_bytes, space.padding_bytes, space.open_bytes, space.free_bytes];
    assert_eq!(kinds.iter().sum::<u64>(), world.shard.log.stats().file_bytes, "{space:?}");
    assert!(space.dead_bytes > 0 && space.dead_bytes.is_multiple_of(batch_bytes()), "{space:?}");
    // After a crash the same rule finds the same start.
    let mut world = World::over(world.disk.snapshot(), world.now);
    pass_seconds(&mut world, 3);
    assert_eq!((partition(&world, some).log_start(), partition(&world, all).log_start()), (start + 4, 0));
    check_use(&world);
    let after = world.shard.storage();
    assert_eq!((after.live_bytes, after.dead_bytes, after.padding_bytes), (space.live_bytes, space.dead_bytes, space.padding_bytes));
}

#[test]
fn a_sorted_partition_loses_each_batch_when_its_time_has_come() {
    let (keep_us, apart_us, batches) = (3_600_000_000, 10_000, 600);
    let mut world = World::new();
    world.create_topic("some", 1, &[("retention.ms", &(keep_us / 1000).to_string())]);
    world.create_topic("all", 1, &[("retention.ms", "-1")]);
    let (some, all) = (world.uids("some")[0], world.uids("all")[0]);
    let first_us = world.now.utc_us;
    fill_and_sort(&mut world, &[some, all], batches, apart_us);
    assert!(world.shard.log.is_sorted(oldest_run(&world, some).segment));
    assert_eq!(partition(&world, some).log_start(), 0);
    // To where the first few, a run and a bit, and some more are too old.
    for gone in [3, 4, 70, 71, 190] {
        let then_us = first_us + keep_us + (gone - 1) * apart_us as i64 + 1;
        pass_until(&mut world, then_us);
        assert_eq!(partition(&world, some).log_start(), gone as u64);
        check_use(&world);
    }
    let before = partition(&world, some).log_start();
    assert!(world.read(some, 0).0.keys().copied().eq(before..batches));
    assert_eq!(partition(&world, all).log_start(), 0);
}

#[test]
fn an_orderly_stop_keeps_the_start_and_a_sorted_run_is_copied_without_what_was_cut() {
    let (keep, batches, pairs) = (80 * batch_bytes(), 100, 8);
    let mut world = World::new();
    let (mut some, mut all) = (Vec::new(), Vec::new());
    // In the order of their partitions, as the sorter has them: one that is kept in part, one that will go.
    for pair in 0..pairs {
        world.create_topic(&format!("some-{pair}"), 1, &[("retention.bytes", &keep.to_string()), ("retention.ms", "-1")]);
        world.create_topic(&format!("all-{pair}"), 1, &[("retention.ms", "-1")]);
        some.extend(world.uids(&format!("some-{pair}")));
        all.extend(world.uids(&format!("all-{pair}")));
    }
    let in_turns: Vec<u64> = some.iter().zip(&all).flat_map(|(some, all)| [*some, *all]).collect();
    fill_and_sort(&mut world, &in_turns, batches, 1000);
    let starts = |world: &World| some.iter().map(|uid| partition(world, *uid).log_start()).collect::<Vec<_>>();
    let expected = vec![batches - 80; some.len()];
    assert_eq!(starts(&world), expected);
    let _ = world.step(Event::Mesh { from: ShardId(0), message: Message::Stop });
    world.settle();
    assert!(world.shard.has_stopped());
    let mut world = World::over(world.disk.snapshot(), world.now);
    assert_eq!(starts(&world), expected, "at once, before anybody has looked");
    check_use(&world);
    // The other topics go: what is left is little of its segments, and is brought together without what was cut.
    let before: Vec<Run> = some.iter().map(|uid| oldest_run(&world, *uid)).collect();
    for pair in 0..pairs {
        let name = format!("all-{pair}");
        world.request(Kind::DeleteTopic, &[], |out| tramline_wire::topics::DeleteTopicRequest { name: &name }.encode(out));
        world.settle();
        world.reply_ok();
    }
    pass_seconds(&mut world, 10);
    let moved: Vec<Run> = some
        .iter()
        .map(|uid| oldest_run(&world, *uid))
        .zip(before)
        .filter(|(run, old)| run.segment != old.segment)
        .map(|(run, _)| run)
        .collect();
    assert!(!moved.is_empty() && moved.iter().all(|run| run.first_offset == expected[0]), "{moved:?}");
    for segment in moved.iter().map(|run| run.segment) {
        let runs = world.shard.partitions.iter().flat_map(|(_, partition)| partition.index.runs());
        let listed: u32 = runs.filter(|run| run.segment == segment).map(|run| run.footer_count).sum();
        assert_eq!(world.shard.log.footer_entries(segment), Some(listed), "nothing else was copied");
    }
    check_use(&world);
    for uid in &some {
        assert!(world.read(*uid, 0).0.keys().copied().eq(expected[0]..batches));
    }
}

#[test]
fn what_a_trim_cuts_off_a_scattered_run_is_not_counted_and_not_copied() {
    let mut world = World::new();
    world.create_topic("t", 2, &[("retention.ms", "-1")]);
    let uids = [world.uids("t")[0], world.uids("t")[1]];
    // Two segments: too few to be sorted.
    fill_and_sort(&mut world, &uids, 40, 1000);
    assert_eq!(world.shard.log.stats().segments_sorted, 0);
    let run = oldest_run(&world, uids[0]);
    let before = run.first_offset + 5;
    let entries = [TrimEntry { partition_uid: uids[0], before }];
    world.request(Kind::TrimPartitions, &[], |out| TrimPartitionsRequest { entries: List::of(&entries) }.encode(out));
    world.settle();
    world.reply_ok();
    pass_seconds(&mut world, 3);
    let cut = oldest_run(&world, uids[0]);
    assert_eq!((cut.segment, cut.first_offset, cut.footer_count), (run.segment, before, run.footer_count - 5));
    assert_eq!(cut.bytes, run.bytes - 5 * batch_bytes());
    check_use(&world);
    let lookups = world.shard.metrics.counters.retention_lookups;
    pass_seconds(&mut world, 5);
    assert_eq!(world.shard.metrics.counters.retention_lookups, lookups, "one look was enough");
    fill_and_sort(&mut world, &uids, 300, 1000);
    assert!(world.shard.log.is_sorted(oldest_run(&world, uids[0]).segment));
    assert_eq!(oldest_run(&world, uids[0]).first_offset, before);
    check_use(&world);
    for (uid, first) in uids.into_iter().zip([before, 0]) {
        assert!(world.read(uid, 0).0.keys().copied().eq(first..340));
    }
}

#[test]
fn a_run_whose_index_cannot_be_read_goes_as_a_whole() {
    let (keep_us, apart_us) = (3_600_000_000, 10_000);
    let mut world = World::new();
    world.create_topic("some", 1, &[("retention.ms", &(keep_us / 1000).to_string())]);
    world.create_topic("all", 1, &[("retention.ms", "-1")]);
    let (some, all) = (world.uids("some")[0], world.uids("all")[0]);
    let first_us = world.now.utc_us;
    fill_and_sort(&mut world, &[some, all], 300, apart_us);
    let run = oldest_run(&world, some);
    // The page in front of a file's last one has the entries of a segment with up to 102 batches.
    let files: Vec<String> = world.disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect();
    files.iter().for_each(|name| world.disk.spoil_page(name, (128 << 10) / 4096 - 2));
    pass_until(&mut world, first_us + keep_us + 2 * apart_us as i64 + 1);
    assert_eq!(partition(&world, some).log_start(), 0, "three are too old, and which they are cannot be read");
    let lookups = world.shard.metrics.counters.retention_lookups;
    pass_until(&mut world, run.newest_ts_us + keep_us);
    assert_eq!((partition(&world, some).log_start(), world.shard.metrics.counters.retention_lookups), (0, lookups), "nobody tries again");
    pass_until(&mut world, run.newest_ts_us + keep_us + 1);
    assert_eq!(partition(&world, some).log_start(), run.end_offset);
    check_use(&world);
}
