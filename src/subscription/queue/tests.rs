//! Scenarios of one queue in one partition, and a long random run with crashes.

mod keeping;

use super::*;
use crate::effects::Now;
use tramline_wire::batch::{Attributes, BatchBuilder, BatchView, LeaderStamp, Limits, NewRecord, ProducerMark, stamp_leader};

const START_US: i64 = 1_800_000_000_000_000;

/// A partition's batches, a queue on it, and what of it stands in the log.
struct World {
    now: Now,
    rules: QueueRules,
    batches: Vec<Vec<u8>>,
    end: u64,
    part: Part,
    log: Vec<QueueNote>,
    dice: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Got {
    offset: u64,
    deliveries: u16,
    lease: u64,
}

impl World {
    fn new(rules: QueueRules) -> World {
        let mut world = World {
            now: Now { mono_us: 5_000_000, utc_us: START_US },
            rules: QueueRules { retry_jitter_percent: 0, ..rules },
            batches: Vec::new(),
            end: 0,
            part: Part::default(),
            log: Vec::new(),
            dice: 3,
        };
        let begin = QueueNote { at_us: i64::MIN, ..QueueNote::new(Kind::Begin, 0) };
        world.part.apply(Some(world.now), &begin);
        world.log.push(begin);
        world
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    /// Appends a batch and looks at it.
    fn send(&mut self, records: &[Attributes<'_>]) -> u64 {
        let base = self.append(records);
        self.look();
        base
    }

    fn append(&mut self, records: &[Attributes<'_>]) -> u64 {
        let mut builder = BatchBuilder::new(Limits::default());
        for attributes in records {
            let record = NewRecord { value: Some(b"v"), timestamp_us: self.now.utc_us, attributes: *attributes, ..NewRecord::default() };
            builder.push(&record).expect("fits");
        }
        let mut batch = Vec::new();
        builder.finish_plain(&mut batch, ProducerMark::default());
        let base_offset = self.end;
        stamp_leader(&mut batch, &LeaderStamp { partition_uid: 1, base_offset, term: 1, append_time_us: self.now.utc_us });
        self.end += records.len() as u64;
        self.batches.push(batch);
        base_offset
    }

    fn look(&mut self) {
        for batch in &self.batches {
            assert_eq!(self.part.look(self.now, &self.rules, &BatchView::parse(batch).expect("ours")), Looked::Done);
        }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now = Now { mono_us: self.now.mono_us + ms * 1000, utc_us: self.now.utc_us + ms as i64 * 1000 };
        self.part.on_due(self.now, &self.rules, usize::MAX, &mut self.log);
    }

    fn receive_as(&mut self, consumer: &[u8], max: u32) -> Vec<Got> {
        let mut notes = Vec::new();
        let lease_ms = (self.rules.visibility_timeout_us / 1000) as u32;
        self.part.pick(self.now, &self.rules, Wanted { consumer, max, lease_ms }, &mut notes);
        let got = notes
            .iter()
            .filter(|note| note.kind == Kind::Lease)
            .flat_map(|note| (note.offset..note.end()).map(|offset| Got { offset, deliveries: note.deliveries, lease: note.number }));
        let got = got.collect();
        self.log.extend(notes);
        got
    }

    fn receive(&mut self, max: u32) -> Vec<Got> {
        self.receive_as(b"w", max)
    }

    fn offsets(&mut self, max: u32) -> Vec<u64> {
        self.receive(max).iter().map(|got| got.offset).collect()
    }

    fn end_lease(&mut self, got: Got, ending: Ending<'_>) -> Result<(), EndRefused> {
        self.part.end(self.now, &self.rules, got.offset, got.lease, ending, &mut self.log).map(|_| ())
    }

    fn ack(&mut self, got: Got) {
        assert_eq!(self.end_lease(got, Ending::Ack), Ok(()));
    }

    fn nack(&mut self, got: Got) {
        assert_eq!(self.end_lease(got, Ending::Nack { delay_us: None, reason: b"why not" }), Ok(()));
    }

    /// What a start makes of the log: a snapshot (of a moment `since`, when the log had so many notes), what came behind, and the batches again.
    fn restarted(&self, snapshot: &[QueueNote], since: usize) -> Part {
        let mut part = Part::default();
        let mut stored = Vec::new();
        let (partition, queue) = (crate::ids::PartitionUid(1), crate::ids::SubscriptionUid(2));
        encode_queue_notes(partition, queue, snapshot.iter().cloned(), SNAPSHOT_BYTES_MAX, |payload| stored.push(payload));
        encode_queue_notes(partition, queue, self.log[since..].iter().cloned(), PAYLOAD_BYTES_MAX, |payload| stored.push(payload));
        for payload in stored {
            let (.., notes) = decode_queue_notes(&payload).expect("ours");
            notes.iter().for_each(|note| part.apply(None, note));
        }
        for batch in &self.batches {
            assert_eq!(part.look(self.now, &self.rules, &BatchView::parse(batch).expect("ours")), Looked::Done);
        }
        part.resume(self.now);
        let mut notes = Vec::new();
        part.on_due(self.now, &self.rules, usize::MAX, &mut notes);
        assert!(notes.is_empty(), "what was due was due before: {notes:?}");
        part
    }
}

/// All of a part at once.
fn snapshot(part: &Part, end: u64) -> Vec<QueueNote> {
    let mut notes = Vec::new();
    assert!(part.snapshot(&mut SnapshotCursor::default(), end, &mut usize::MAX.clone(), &mut notes));
    notes
}

/// How things stand, message by message, without what only time tells: whether a fresh message has waited once.
fn standing(part: &Part) -> Vec<QueueNote> {
    let mut all = Vec::new();
    for note in snapshot(part, u64::MAX) {
        match (note.kind, note.state) {
            (Kind::Message, Some(state)) => all.extend(note.messages().map(|offset| QueueNote {
                offset,
                count: 1,
                more: Box::default(),
                number: if matches!(state, State::Ready | State::Leased) { 0 } else { note.number },
                ..note.clone()
            })),
            (Kind::Id, _) => {}
            (Kind::Fresh, _) => all.extend(
                (note.offset..note.number).map(|offset| QueueNote { state: Some(State::Ready), ..QueueNote::new(Kind::Message, offset) }),
            ),
            _ => all.push(note),
        }
    }
    all.sort_by_key(|note| note.offset);
    all
}

const PLAIN: Attributes<'static> = Attributes { deliver_at_us: None, priority: None, ttl_ms: None, group: None, message_id: None };

fn priority(priority: u8) -> Attributes<'static> {
    Attributes { priority: Some(priority), ..PLAIN }
}

fn group(name: &'static [u8]) -> Attributes<'static> {
    Attributes { group: Some(name), ..PLAIN }
}

#[test]
fn messages_come_in_order_once_and_stay_away_when_acked() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN; 10]);
    let got = world.receive(4);
    assert_eq!(got.iter().map(|got| (got.offset, got.deliveries)).collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    assert_eq!(world.log.last().map(|note| note.count), Some(4), "one word for all four");
    got[..2].iter().for_each(|got| world.ack(*got));
    assert_eq!((world.part.settled_to(), world.part.leased_count(), world.part.ready_count()), (2, 2, 6));
    assert_eq!(world.offsets(100), [4, 5, 6, 7, 8, 9]);
    assert!(world.offsets(100).is_empty());
    world.pass_ms(30_100);
    assert_eq!(world.offsets(100), [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(world.part.counts().redelivered, 8);
}

#[test]
fn a_token_is_good_for_one_lease() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN; 3]);
    let got = world.receive(3);
    assert_eq!(world.end_lease(Got { lease: 77, ..got[0] }, Ending::Ack), Err(EndRefused::Unknown));
    assert_eq!(world.end_lease(Got { offset: 9, ..got[0] }, Ending::Ack), Err(EndRefused::Unknown));
    world.ack(got[0]);
    assert_eq!(world.end_lease(got[0], Ending::Ack), Err(EndRefused::Unknown), "settled");
    world.nack(got[1]);
    assert_eq!(world.end_lease(got[1], Ending::Ack), Err(EndRefused::Unknown), "given back");
    // Not a moment too late, although nothing has looked at the lease since.
    world.now.mono_us += 30_000_000;
    assert_eq!(world.end_lease(got[2], Ending::Ack), Err(EndRefused::Expired));
    world.pass_ms(10);
    assert_eq!(world.end_lease(got[2], Ending::Extend { ms: 1000 }), Err(EndRefused::Expired));
    let again = world.receive(1);
    assert_eq!(again[0].offset, 2);
    assert_eq!(world.end_lease(got[2], Ending::Ack), Err(EndRefused::Lost));
    world.ack(again[0]);
}

#[test]
fn numbers_of_leases_begin_anew_and_older_ones_are_still_told_apart() {
    let mut world = World::new(QueueRules { retry_initial_us: 0, max_deliveries: None, ..QueueRules::default() });
    world.part.next_lease = u32::MAX - 1;
    world.send(&[PLAIN]);
    let got: Vec<Got> = (0..4)
        .map(|_| {
            let got = world.receive(1)[0];
            world.pass_ms(30_100);
            got
        })
        .collect();
    assert_eq!(got.iter().map(|got| got.lease).collect::<Vec<_>>(), [u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1, 2]);
    let last = world.receive(1)[0];
    for old in &got {
        assert_eq!(world.end_lease(*old, Ending::Ack), Err(EndRefused::Lost), "{old:?}");
    }
    assert_eq!(world.end_lease(Got { lease: 4, ..last }, Ending::Ack), Err(EndRefused::Unknown));
    world.ack(last);
}

#[test]
fn an_extended_lease_lasts_longer() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN; 2]);
    let got = world.receive(2);
    world.pass_ms(20_000);
    assert_eq!(world.end_lease(got[0], Ending::Extend { ms: 25_000 }), Ok(()));
    world.pass_ms(20_000);
    assert_eq!(world.offsets(9), [1]);
    world.pass_ms(5_100);
    assert_eq!(world.offsets(9), [0]);
}

#[test]
fn what_is_released_does_not_count_and_what_fails_waits_longer_each_time() {
    let mut world = World::new(QueueRules { max_deliveries: Some(3), ..QueueRules::default() });
    world.send(&[PLAIN]);
    let got = world.receive(1)[0];
    assert_eq!(world.end_lease(got, Ending::Release), Ok(()));
    let mut waited = Vec::new();
    for deliveries in 1..=3 {
        let got = world.receive(1)[0];
        assert_eq!(got.deliveries, deliveries);
        world.nack(got);
        let mut ms = 0;
        while world.part.ready_count() == 0 && world.part.dead_count() == 0 {
            world.pass_ms(1);
            ms += 1;
        }
        waited.push(ms);
    }
    assert_eq!(waited, [1000, 2000, 0], "never early, and dead at last");
    assert_eq!((world.part.dead_count(), world.part.ready_count()), (1, 0));
    let attempts: Vec<_> =
        world.part.attempts(0).iter().map(|attempt| (attempt.deliveries, attempt.why, attempt.reason.to_vec())).collect();
    assert_eq!(attempts, (1..=3).map(|n| (n, Why::Nacked, b"why not".to_vec())).collect::<Vec<_>>());
    assert_eq!(world.part.redrive(world.now, 10, &mut world.log), 1);
    assert_eq!(world.receive(1).first().map(|got| got.deliveries), Some(1));
    assert!(world.part.attempts(0).is_empty());
}

#[test]
fn a_nack_may_say_how_long_and_a_reject_is_final() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN; 3]);
    let got = world.receive(3);
    assert_eq!(world.end_lease(got[0], Ending::Nack { delay_us: Some(0), reason: b"" }), Ok(()));
    assert_eq!(world.end_lease(got[1], Ending::Nack { delay_us: Some(5_000), reason: b"" }), Ok(()));
    assert_eq!(world.end_lease(got[2], Ending::Reject { reason: b"poison" }), Ok(()));
    assert_eq!(world.offsets(9), [0]);
    world.pass_ms(4);
    assert!(world.offsets(9).is_empty());
    world.pass_ms(1);
    assert_eq!(world.offsets(9), [1]);
    assert_eq!(world.part.dead().collect::<Vec<_>>(), [2]);
    world.part.moved(world.now, 2, &mut world.log);
    assert_eq!((world.part.dead_count(), world.part.counts().dead_lettered), (0, 1));
}

#[test]
fn higher_priorities_come_first_and_within_one_the_older() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN, priority(3), priority(9), PLAIN, priority(0), priority(3), PLAIN]);
    assert_eq!(world.offsets(2), [2, 1]);
    assert_eq!(world.offsets(9), [5, 0, 3, 4, 6]);
    world.send(&[PLAIN, PLAIN]);
    let got = world.receive(1)[0];
    assert_eq!(world.end_lease(got, Ending::Release), Ok(()));
    assert_eq!(world.offsets(9), [7, 8], "one that comes back goes in front of later ones");
}

#[test]
fn delays_and_times_to_live_are_kept() {
    let mut world = World::new(QueueRules::default());
    let at = |world: &World, ms: i64| Attributes { deliver_at_us: Some(world.now.utc_us + ms * 1000), ..PLAIN };
    let ttl = |ttl_ms: u32| Attributes { ttl_ms: Some(ttl_ms), ..PLAIN };
    let records = [at(&world, 500), PLAIN, at(&world, -5), ttl(200), ttl(5_000), at(&world, 100)];
    world.send(&records);
    assert_eq!(world.part.delayed_count(), 2);
    assert!(world.part.delete(world.now, 5, world.part.looked_to(), &mut world.log), "cancelled");
    assert!(!world.part.delete(world.now, 5, world.part.looked_to(), &mut world.log));
    let got = world.receive(3);
    assert_eq!(got.iter().map(|got| got.offset).collect::<Vec<_>>(), [1, 2, 3]);
    world.pass_ms(499);
    // The one that expired is leased: its holder may finish it, but it does not come again.
    assert_eq!(world.offsets(1), [4]);
    world.nack(got[2]);
    assert_eq!(world.part.counts().expired, 1);
    assert!(world.offsets(9).is_empty());
    world.pass_ms(1);
    assert_eq!(world.offsets(9), [0]);
    assert_eq!(world.part.next_due_us(world.now), world.part.next_due_us(world.now).max(world.now.mono_us));
}

#[test]
fn an_expired_message_goes_to_the_dead_letters_if_there_are_any() {
    let mut world = World::new(QueueRules { has_dead_letter: true, ..QueueRules::default() });
    world.send(&[Attributes { ttl_ms: Some(200), ..PLAIN }]);
    world.pass_ms(200);
    assert_eq!(world.part.dead().collect::<Vec<_>>(), [0]);
    assert_eq!(world.part.attempts(0)[0].why, Why::Expired);
}

#[test]
fn of_a_group_one_is_out_and_a_failing_one_holds_up_no_other_group() {
    let mut world = World::new(QueueRules { max_deliveries: Some(2), ..QueueRules::default() });
    world.send(&[group(b"a"), group(b"b"), group(b"a"), group(b"a"), PLAIN, group(b"b")]);
    let got = world.receive(9);
    assert_eq!(got.iter().map(|got| got.offset).collect::<Vec<_>>(), [0, 1, 4]);
    world.nack(got[0]);
    world.ack(got[1]);
    assert_eq!(world.offsets(9), [5]);
    world.pass_ms(1_000);
    let again = world.receive(9);
    assert_eq!(again.iter().map(|got| (got.offset, got.deliveries)).collect::<Vec<_>>(), [(0, 2)]);
    world.nack(again[0]);
    assert_eq!(world.part.dead_count(), 1, "dead: its group goes on");
    assert_eq!(world.offsets(9), [2]);
    world.part.delete(world.now, 3, world.part.looked_to(), &mut world.log);
    assert_eq!(world.part.redrive(world.now, 9, &mut world.log), 1);
    assert_eq!(world.offsets(9), [0], "it has left its group's order");
}

#[test]
fn duplicates_within_the_window_are_not_delivered() {
    let mut world = World::new(QueueRules { dedup_window_us: 1_000_000, ..QueueRules::default() });
    let id = |id: &'static [u8]| Attributes { message_id: Some(id), ..PLAIN };
    world.send(&[id(b"x"), id(b"y"), id(b"x")]);
    world.pass_ms(999);
    world.send(&[id(b"x")]);
    world.pass_ms(1);
    world.send(&[id(b"x"), id(b"x")]);
    assert_eq!(world.offsets(9), [0, 1, 4]);
    assert_eq!(world.part.counts().duplicates, 3);
}

#[test]
fn what_is_committed_can_be_deleted_before_it_was_looked_at() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN]);
    assert!(!world.part.delete(world.now, 0, 0, &mut world.log), "not committed");
    assert!(world.part.delete(world.now, 2, 3, &mut world.log));
    assert!(!world.part.delete(world.now, 2, 3, &mut world.log), "it is gone already");
    world.send(&[PLAIN; 3]);
    assert_eq!(world.offsets(9), [0, 1, 3]);
}

#[test]
fn limits_hold_receivers_back() {
    let mut world = World::new(QueueRules { max_in_flight: 5, max_in_flight_per_consumer: 3, ..QueueRules::default() });
    world.send(&[PLAIN; 10]);
    let a = world.receive_as(b"a", 9);
    assert_eq!(a.len(), 3);
    assert_eq!(world.receive_as(b"a", 9).len(), 0);
    assert_eq!(world.receive_as(b"b", 9).len(), 2);
    assert!(!world.part.has_ready(&world.rules));
    world.ack(a[1]);
    assert_eq!(world.receive_as(b"b", 9).iter().map(|got| got.offset).collect::<Vec<_>>(), [5]);
    let paused = QueueRules { paused: true, max_in_flight: 99, ..world.rules };
    assert!(!world.part.has_ready(&paused));
}

#[test]
fn a_purge_leaves_nothing_but_what_comes_later() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN, priority(4), group(b"a"), group(b"a"), Attributes { message_id: Some(b"x"), ..PLAIN }]);
    let got = world.receive(2);
    assert_eq!(world.part.purge_to(world.now, world.end, &mut world.log), 5);
    assert_eq!(world.end_lease(got[0], Ending::Ack), Err(EndRefused::Unknown));
    assert_eq!((world.part.settled_to(), world.part.open_count(), world.part.leased_count()), (5, 0, 0));
    while world.part.tidy() {}
    world.send(&[group(b"a"), Attributes { message_id: Some(b"x"), ..PLAIN }]);
    assert_eq!(world.offsets(9), [5], "ids are remembered");
    assert!(world.receive(9).is_empty());
    let lease = snapshot(&world.part, u64::MAX).first().map(|note| note.number);
    assert!(lease > Some(got[0].lease), "lease numbers go on");
}

#[test]
fn when_a_message_is_due_that_waits_for_its_group_is_not_told() {
    let mut world = World::new(QueueRules::default());
    let due_us = world.now.utc_us + 9_000_000;
    world.send(&[group(b"a"), Attributes { deliver_at_us: Some(due_us), ..group(b"a") }]);
    let got = world.receive(1);
    let until_us = |world: &World| {
        let mut seen = Vec::new();
        world.part.browse(1, 9, |_| true, |message| seen.push((message.state, message.until_us)));
        seen
    };
    assert_eq!(until_us(&world), [(State::Delayed, 0)], "its own delay may be over long before");
    world.ack(got[0]);
    assert_eq!(until_us(&world), [(State::Delayed, due_us as u64)]);
}

#[test]
fn browsing_shows_every_state_and_takes_nothing() {
    let mut world = World::new(QueueRules { max_deliveries: Some(1), ..QueueRules::default() });
    let later = Attributes { deliver_at_us: Some(world.now.utc_us + 9_000_000), ..PLAIN };
    world.send(&[PLAIN, PLAIN, later, PLAIN, priority(2), PLAIN, PLAIN]);
    let got = world.receive(2);
    assert_eq!(got.iter().map(|got| got.offset).collect::<Vec<_>>(), [4, 0]);
    world.nack(got[0]);
    let browse = |from: u64, max: usize, wanted: &[State]| {
        let mut seen = Vec::new();
        let (next, is_end) = world.part.browse(from, max, |state| wanted.contains(&state), |message| seen.push(message));
        (seen.iter().map(|seen| (seen.offset, seen.state)).collect::<Vec<_>>(), next, is_end)
    };
    let all = [State::Ready, State::Leased, State::Delayed, State::Dead];
    let expected = [
        (0, State::Leased),
        (1, State::Ready),
        (2, State::Delayed),
        (3, State::Ready),
        (4, State::Dead),
        (5, State::Ready),
        (6, State::Ready),
    ];
    assert_eq!(browse(0, 99, &all), (expected.to_vec(), 7, true));
    assert_eq!(browse(0, 3, &all), (expected[..3].to_vec(), 3, false));
    assert_eq!(browse(3, 2, &all), (expected[3..5].to_vec(), 5, false));
    assert_eq!(browse(0, 99, &[State::Dead]), (vec![expected[4]], 7, true));
    assert_eq!(browse(0, 2, &[State::Ready]), (vec![expected[1], expected[3]], 4, false));
    assert_eq!(browse(6, 9, &[State::Ready]), (vec![expected[6]], 7, true));
    assert_eq!(world.part.leased_count(), 1);
}

#[test]
fn what_retention_took_is_over() {
    let mut world = World::new(QueueRules::default());
    world.send(&[PLAIN, group(b"a"), group(b"a"), PLAIN]);
    let got = world.receive(2);
    assert!(!world.part.drop_below(world.now, 2));
    assert_eq!(world.end_lease(got[1], Ending::Ack), Err(EndRefused::Unknown));
    assert_eq!(world.offsets(9), [2, 3]);
    assert!(!world.part.drop_below(world.now, 40), "beyond what was looked at");
    assert_eq!((world.part.looked_to(), world.part.open_count()), (40, 0));
}

#[test]
fn older_records_than_the_queues_start_are_not_in_it() {
    let mut world = World::new(QueueRules::default());
    world.part = Part::default();
    world.part.apply(Some(world.now), &QueueNote { at_us: START_US + 5_000, ..QueueNote::new(Kind::Begin, 0) });
    world.send(&[PLAIN; 2]);
    world.pass_ms(5);
    world.send(&[PLAIN]);
    assert_eq!(world.offsets(9), [2]);
}

/// The counts and lists of a part, made anew from its cells.
fn check(part: &Part) {
    let mut by_state = [0; 6];
    let mut ready = std::collections::BTreeSet::new();
    for (offset, cell) in part.cells.iter_from(0) {
        by_state[cell.state as usize] += 1;
        assert!(!part.fresh.contains(offset) && !part.ahead.contains(offset), "offset {offset} is in two places");
        if cell.state == State::Ready && offset < part.looked_to {
            ready.insert(super::part::ready_key(offset, cell));
        }
    }
    assert_eq!(by_state, part.by_state);
    assert_eq!(ready, part.ready);
    assert!(part.fresh.iter_from(0).all(|range| range.end <= part.looked_to));
}

/// Everything at random, with crashes: after each, a start finds how things stood, from a snapshot of any moment before and the notes behind it; and no
/// acked message comes back, no count of deliveries falls but by a release, a message has one lease, and of a group one message is out, in order.
#[test]
fn a_start_finds_how_things_stood() {
    for seed in 0..if cfg!(miri) { 1 } else { 60 } {
        let mut world = World::new(QueueRules { max_deliveries: Some(4), visibility_timeout_us: 3_000_000, ..QueueRules::default() });
        world.dice = seed;
        let mut held: Vec<Got> = Vec::new();
        let mut acked = std::collections::BTreeSet::new();
        let mut last_of_group: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
        let mut group_of: Vec<u64> = Vec::new();
        let mut whole = Vec::new();
        let mut since = 0;
        // One that is being put together, piece by piece, while things go on.
        let mut begun: Option<(SnapshotCursor, Vec<QueueNote>, usize)> = None;
        for _ in 0..600 {
            match world.roll(13) {
                0..=2 => {
                    let names: [&[u8]; 3] = [b"a", b"b", b"c"];
                    let ids: [&[u8]; 4] = [b"1", b"2", b"3", b"4"];
                    let mut records = Vec::new();
                    for _ in 0..1 + world.roll(6) {
                        let mut attributes = PLAIN;
                        if world.roll(3) == 0 {
                            let name = world.roll(3) as usize;
                            attributes.group = Some(names[name]);
                            group_of.push(1 + name as u64);
                        } else {
                            group_of.push(0);
                        }
                        if world.roll(4) == 0 {
                            attributes.priority = Some(world.roll(10) as u8);
                        }
                        if world.roll(6) == 0 {
                            attributes.deliver_at_us = Some(world.now.utc_us + world.roll(4_000_000) as i64);
                        }
                        if world.roll(9) == 0 {
                            attributes.ttl_ms = Some(1 + world.roll(9_000) as u32);
                        }
                        if world.roll(20) == 0 {
                            attributes.message_id = Some(ids[world.roll(4) as usize]);
                        }
                        records.push(attributes);
                    }
                    world.append(&records);
                    if world.roll(3) > 0 {
                        world.look();
                    }
                }
                3..=5 => {
                    world.look();
                    let max = 1 + world.roll(5) as u32;
                    for got in world.receive(max) {
                        assert!(!acked.contains(&got.offset), "seed {seed}: {got:?} was acked");
                        let is_leased = held.iter().any(|other| other.offset == got.offset);
                        assert!(!is_leased || world.part.cells.get(got.offset).is_some());
                        held.retain(|other| other.offset != got.offset);
                        held.push(got);
                        let group = group_of[got.offset as usize];
                        if group > 0 {
                            let last = last_of_group.entry(group).or_insert(got.offset);
                            let is_redriven = world.part.cells.get(got.offset).is_some_and(|cell| cell.lane == super::part::NO_LANE);
                            assert!(is_redriven || got.offset >= *last, "seed {seed}: {got:?} behind {last} of its group");
                            *last = got.offset.max(*last);
                        }
                    }
                }
                6..=8 if !held.is_empty() => {
                    let at = world.roll(held.len() as u64) as usize;
                    let got = held.swap_remove(at);
                    let (roll, delay) = (world.roll(6), world.roll(3));
                    let ending = match roll {
                        0 => Ending::Nack { delay_us: (delay > 0).then_some(delay * 500_000), reason: b"r" },
                        1 => Ending::Release,
                        2 => Ending::Extend { ms: 4_000 },
                        3 if delay == 0 => Ending::Reject { reason: b"p" },
                        _ => Ending::Ack,
                    };
                    let result = world.end_lease(got, ending);
                    if result.is_ok() && ending == Ending::Ack {
                        acked.insert(got.offset);
                    }
                    if result.is_ok() && matches!(ending, Ending::Extend { .. }) {
                        held.push(got);
                    }
                }
                9 => {
                    let ms = world.roll(2_000);
                    world.pass_ms(ms);
                }
                10 => {
                    let end = world.end.max(1);
                    match world.roll(40) {
                        0 => {
                            world.look();
                            world.part.purge_to(world.now, end, &mut world.log);
                        }
                        1 => {
                            world.part.redrive(world.now, 2, &mut world.log);
                        }
                        _ => {
                            let offset = world.roll(end);
                            world.part.delete(world.now, offset, world.part.looked_to(), &mut world.log);
                        }
                    }
                }
                11 => {
                    let before = (world.roll(6) as usize).min(world.log.len());
                    let fresh = || (SnapshotCursor::default(), Vec::new(), world.log.len() - before);
                    let (mut cursor, mut notes, from) = begun.take().unwrap_or_else(fresh);
                    let max = if before == 0 { usize::MAX >> 1 } else { 3 };
                    if world.part.snapshot(&mut cursor, world.end, &mut max.clone(), &mut notes) {
                        (whole, since) = (notes, from);
                    } else {
                        begun = Some((cursor, notes, from));
                    }
                }
                _ => {
                    world.look();
                    world.part.on_due(world.now, &world.rules, usize::MAX, &mut world.log);
                    let restarted = world.restarted(&whole, since);
                    let (found, stood) = (standing(&restarted), standing(&world.part));
                    if let Some((found, stood)) = found.iter().zip(&stood).find(|(found, stood)| found != stood) {
                        panic!("seed {seed}: found {found:?}, stood {stood:?}");
                    }
                    assert_eq!(found.len(), stood.len(), "seed {seed}");
                    check(&world.part);
                    check(&restarted);
                    let counts = world.part.counts;
                    world.part = restarted;
                    begun = None;
                    world.part.counts = counts;
                }
            }
        }
    }
}
