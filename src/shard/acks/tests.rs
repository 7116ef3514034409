//! Acks by tables: what each level waits for, what is told, and that no line waits for another one.

use super::*;
use crate::effects::Effect;
use crate::ids::ConnId;
use tramline_wire::error::ErrorBody;
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;
use tramline_wire::produce::ProduceReply;

const A: GroupId = GroupId(3);
const B: GroupId = GroupId(9);

/// How far a group is: its blocks up to here are durable on the leader, received by a majority, committed; and whether the leader may answer for what is not.
#[derive(Clone, Copy)]
struct Far {
    own: u64,
    received: u64,
    committed: u64,
    lease: bool,
}

const NOTHING: Far = Far { own: 0, received: 0, committed: 0, lease: true };

fn at(mono_us: u64) -> Now {
    Now { mono_us, utc_us: 0 }
}

struct Bench {
    acks: Acks,
    effects: Effects,
    metrics: ShardMetrics,
}

impl Bench {
    fn new() -> Bench {
        Bench { acks: Acks::new([A, B]), effects: Effects::new(), metrics: ShardMetrics::new() }
    }

    /// A request that writes to these groups, named by a number.
    fn push(&mut self, number: u64, level: Level, groups: &[GroupId], block: u64) {
        self.push_where(false, number, level, groups, block);
    }

    fn push_where(&mut self, is_alone: bool, number: u64, level: Level, groups: &[GroupId], block: u64) {
        let groups = groups.iter().fold(0, |mask, group| mask | self.acks.bit_of(*group));
        let caller = Caller { conn: ConnId(1), via: None, kind: Kind::Produce.as_u8(), version: 1, correlation: number, received_us: 0 };
        let deadline_us = 1000 * number;
        let waiting = Waiting { caller, level, block: BlockSeq(block), groups, deadline_us, taken_us: 0, payload_bytes: 10 };
        let result = BatchResult { uid: number, slot: None, error: ErrorCode::Ok, base_offset: number, append_time_us: 0 };
        self.acks.push(waiting, is_alone, &[result]);
    }

    /// The groups are so far; who is answered, and how.
    fn release(&mut self, a: Far, b: Far) -> Vec<(u64, Result<Level, ErrorCode>)> {
        for (group, far) in [(A, a), (B, b)] {
            let through = BlockSeq(far.committed).max(self.acks.committed_through(group));
            self.acks.on_commit(group, through);
        }
        let held = |group, block: BlockSeq| {
            let far = if group == A { a } else { b };
            far.lease.then_some(Held { leader_durable: far.own >= block.0, replicated: far.received >= block.0 })
        };
        self.acks.release(Some(&held), &Partitions::default(), &mut self.effects);
        self.answers()
    }

    fn release_alone(&mut self, committed: u64) -> Vec<(u64, Result<Level, ErrorCode>)> {
        [A, B].into_iter().for_each(|group| self.acks.on_commit(group, BlockSeq(committed)));
        self.acks.release(None, &Partitions::default(), &mut self.effects);
        self.answers()
    }

    fn answers(&mut self) -> Vec<(u64, Result<Level, ErrorCode>)> {
        let answers = self.effects.list.iter().map(|effect| {
            let Effect::Send { head, .. } = effect else { panic!("{effect:?}") };
            let bytes = &self.effects.heads[head.start as usize..head.end as usize];
            let Ok(Need::Whole(frame, _)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
            if frame.header.is_error() {
                return (frame.header.correlation, Err(ErrorBody::decode(frame.meta).unwrap().code().unwrap()));
            }
            let reply = ProduceReply::decode(frame.meta).unwrap();
            let offsets: Vec<_> = reply.results.iter().map(|result| result.base_offset).collect();
            assert_eq!(offsets, [frame.header.correlation], "each gets its own results");
            (frame.header.correlation, Ok(reply.level_reached))
        });
        let answers = answers.collect();
        self.effects.clear();
        answers
    }
}

/// A request for block 5 of one group: asked, how far the group is, what is told.
#[test]
fn a_level_is_told_when_it_holds_and_never_below_what_was_asked() {
    use Level::{Durable, Leader, LeaderDurable, Replicated};
    let far = |own, received, committed| Far { own, received, committed, lease: true };
    let table = [
        (Leader, far(0, 0, 0), Some(Leader)),
        (Leader, far(5, 0, 0), Some(LeaderDurable)),
        (Leader, far(0, 5, 0), Some(Replicated)),
        (Leader, far(5, 5, 0), Some(Replicated)),
        (Leader, far(0, 5, 5), Some(Durable)),
        (LeaderDurable, far(4, 4, 4), None),
        (LeaderDurable, far(4, 9, 4), None),
        (LeaderDurable, far(5, 4, 4), Some(LeaderDurable)),
        (LeaderDurable, far(5, 5, 4), Some(Replicated)),
        (LeaderDurable, far(4, 5, 5), Some(Durable)),
        (Replicated, far(9, 4, 4), None),
        (Replicated, far(4, 5, 4), Some(Replicated)),
        (Replicated, far(9, 9, 4), Some(Replicated)),
        (Replicated, far(0, 5, 9), Some(Durable)),
        (Durable, far(9, 9, 4), None),
        (Durable, far(5, 5, 5), Some(Durable)),
        (Durable, far(0, 0, 5), Some(Durable)),
    ];
    for (asked, far, wanted) in table {
        let mut bench = Bench::new();
        bench.push(1, asked, &[A], 5);
        let name = format!("{asked} with {}, {}, {}", far.own, far.received, far.committed);
        let told = bench.release(far, NOTHING);
        assert_eq!(told, wanted.map(|level| (1, Ok(level))).into_iter().collect::<Vec<_>>(), "{name}");
        assert_eq!(bench.acks.is_empty(), wanted.is_some(), "{name}");
        assert!(bench.release(far, NOTHING).is_empty(), "{name}: once");
        // Without a lease only what is committed is told.
        let mut bench = Bench::new();
        bench.push(1, asked, &[A], 5);
        let told = bench.release(Far { lease: false, ..far }, NOTHING);
        assert_eq!(told.len(), usize::from(far.committed >= 5), "{name}, without a lease");
        let is_sooner = bench.acks.reached(asked, bench.acks.bit_of(A), BlockSeq(5), &|_, _| None).is_some();
        assert_eq!(is_sooner, far.committed >= 5, "{name}, looked at when it comes");
    }
}

#[test]
fn of_several_groups_the_least_is_told() {
    let a = Far { own: 5, received: 5, committed: 5, lease: true };
    let b = Far { own: 5, received: 4, committed: 4, lease: true };
    let mut bench = Bench::new();
    bench.push(1, Level::LeaderDurable, &[A, B], 5);
    bench.push(2, Level::Replicated, &[A, B], 5);
    bench.push(3, Level::Durable, &[A, B], 5);
    assert_eq!(bench.release(a, b), [(1, Ok(Level::LeaderDurable))]);
    assert!(bench.release(a, Far { lease: false, received: 5, ..b }).is_empty(), "one of the leases is enough to wait for");
    assert_eq!(bench.release(a, Far { received: 5, ..b }), [(2, Ok(Level::Replicated))]);
    assert_eq!(bench.release(Far { lease: false, ..a }, Far { committed: 5, lease: false, ..b }), [(3, Ok(Level::Durable))]);
    assert!(bench.acks.is_empty());
}

#[test]
fn nobody_waits_for_another_level_or_another_group() {
    let mut bench = Bench::new();
    bench.push(1, Level::Durable, &[A], 5);
    bench.push(2, Level::LeaderDurable, &[A], 5);
    bench.push(3, Level::Replicated, &[A], 6);
    bench.push(4, Level::Durable, &[B], 6);
    bench.push(5, Level::Durable, &[B], 7);
    assert_eq!(bench.release(NOTHING, Far { committed: 6, ..NOTHING }), [(4, Ok(Level::Durable))], "group {A} is slow");
    assert_eq!(bench.release(Far { own: 5, ..NOTHING }, NOTHING), [(2, Ok(Level::LeaderDurable))]);
    assert_eq!(bench.release(Far { received: 6, ..NOTHING }, NOTHING), [(3, Ok(Level::Replicated))]);
    assert_eq!(bench.release(Far { committed: 7, ..NOTHING }, NOTHING), [(1, Ok(Level::Durable))]);
    assert_eq!(bench.release(NOTHING, Far { committed: 7, ..NOTHING }), [(5, Ok(Level::Durable))]);
}

#[test]
fn acks_of_a_line_leave_in_order_of_blocks() {
    let mut bench = Bench::new();
    bench.push(1, Level::Replicated, &[A], 7);
    // It was begun before, and has waited for room.
    bench.push(2, Level::Replicated, &[A], 5);
    assert!(bench.release(Far { received: 6, ..NOTHING }, NOTHING).is_empty());
    assert_eq!(bench.release(Far { received: 7, ..NOTHING }, NOTHING).len(), 2);
}

#[test]
fn whoever_waits_for_a_lost_group_is_told_at_every_level() {
    let mut bench = Bench::new();
    let levels = [Level::Leader, Level::LeaderDurable, Level::Replicated, Level::Durable];
    for (number, level) in (1..).zip(levels) {
        bench.push(number, level, &[A], 5);
        bench.push(10 + number, level, &[A, B], 5);
        bench.push(20 + number, level, &[B], 5);
    }
    let bit = bench.acks.bit_of(A);
    bench.acks.fail_group(bit, &mut bench.effects, &mut bench.metrics);
    let told = bench.answers();
    assert_eq!(told.len(), 8);
    assert!(told.iter().all(|(number, told)| *number < 20 && *told == Err(ErrorCode::LeadershipLost)), "{told:?}");
    let left = bench.release(Far { lease: false, ..NOTHING }, Far { own: 5, received: 5, committed: 5, lease: true });
    assert_eq!(left.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [21, 22, 23, 24], "those of the other group, once");
    assert!(bench.acks.is_empty());
    // Committed and not answered yet: that holds whoever leads.
    bench.push(40, Level::Durable, &[A], 5);
    bench.push(41, Level::Durable, &[A], 6);
    bench.acks.on_commit(A, BlockSeq(5));
    bench.acks.fail_group(bit, &mut bench.effects, &mut bench.metrics);
    assert_eq!(bench.answers(), [(41, Err(ErrorCode::LeadershipLost))]);
    assert_eq!(bench.release(NOTHING, NOTHING), [(40, Ok(Level::Durable))]);
}

#[test]
fn time_runs_out_at_every_level() {
    let mut bench = Bench::new();
    bench.push(3, Level::Durable, &[A], 5);
    bench.push(2, Level::LeaderDurable, &[B], 5);
    bench.push(4, Level::Replicated, &[A, B], 5);
    assert_eq!(bench.acks.next_deadline_us(), 2000);
    bench.acks.on_deadline(at(3000), &mut bench.effects, &mut bench.metrics);
    let mut told = bench.answers();
    told.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(told, [(2, Err(ErrorCode::TimedOut)), (3, Err(ErrorCode::TimedOut))]);
    assert_eq!(bench.acks.next_deadline_us(), 4000);
    let all = Far { own: 5, received: 5, committed: 5, lease: true };
    assert_eq!(bench.release(all, all), [(4, Ok(Level::Durable))], "no second answer");
    assert_eq!((bench.acks.is_empty(), bench.acks.next_deadline_us()), (true, u64::MAX));
}

#[test]
fn alone_all_wait_for_the_disk_in_one_line_and_are_told_what_they_asked_for() {
    let mut bench = Bench::new();
    bench.push_where(true, 1, Level::LeaderDurable, &[A], 5);
    bench.push_where(true, 2, Level::Durable, &[B], 5);
    bench.push_where(true, 3, Level::LeaderDurable, &[A, B], 6);
    assert!(bench.release_alone(4).is_empty());
    assert_eq!(bench.release_alone(5), [(1, Ok(Level::LeaderDurable)), (2, Ok(Level::Durable))]);
    assert_eq!(bench.release_alone(6), [(3, Ok(Level::LeaderDurable))]);
    bench.push_where(true, 4, Level::Durable, &[A], 7);
    bench.acks.fail_all(&mut bench.effects, &mut bench.metrics, "the disk is gone");
    assert_eq!(bench.answers(), [(4, Err(ErrorCode::StorageFailed))]);
    assert!(bench.acks.is_empty() && bench.release_alone(7).is_empty());
}
