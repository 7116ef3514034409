//! What is kept of a queue in the file of its shard, and what goes at once.

use super::super::note::Why;
use super::*;

#[test]
fn a_piece_of_a_snapshot_looks_at_few_messages_however_few_notes_they_make() {
    let mut world = World::new(QueueRules::default());
    for _ in 0..100 {
        world.send(&[Attributes::default(); 100]);
    }
    assert_eq!(world.receive(10_000).len(), 10_000);
    let (mut cursor, mut notes, mut pieces) = (SnapshotCursor::default(), Vec::new(), 1);
    while !world.part.snapshot(&mut cursor, world.end, &mut 500, &mut notes) {
        pieces += 1;
        assert!(pieces < 100, "it ends");
    }
    assert!(pieces >= 10_000 / 500, "{pieces} pieces for 10,000 messages");
    assert_eq!(notes.iter().filter(|note| note.kind == Kind::Message).map(|note| u64::from(note.count)).sum::<u64>(), 10_000);
    // Piece by piece it says what it says at once.
    let (mut cursor, mut in_one) = (SnapshotCursor::default(), Vec::new());
    assert!(world.part.snapshot(&mut cursor, world.end, &mut usize::MAX.clone(), &mut in_one));
    let is_of = |notes: &[QueueNote]| notes.iter().map(|note| (note.kind, note.offset, note.count)).collect::<Vec<_>>();
    assert_eq!(is_of(&notes), is_of(&in_one));
}

/// Leases of many messages, most of which are settled in between: a note for each lease, not for each message.
#[test]
fn what_is_left_of_a_lease_shares_a_note() {
    let mut world = World::new(QueueRules::default());
    for _ in 0..100 {
        world.send(&[Attributes::default(); 100]);
    }
    let mut left = Vec::new();
    for n in 0..100 {
        let leased = world.receive(100);
        assert_eq!(leased.len(), 100);
        for got in leased {
            if (got.offset * 7 + n) % 3 == 0 {
                left.push(got.offset);
            } else {
                world.end_lease(got, Ending::Ack).expect("leased");
            }
        }
    }
    let notes = snapshot(&world.part, world.end);
    let of_messages: Vec<&QueueNote> = notes.iter().filter(|note| note.kind == Kind::Message).collect();
    assert_eq!(of_messages.len(), 100);
    assert_eq!(of_messages.iter().flat_map(|note| note.messages()).collect::<Vec<_>>(), left);
    let bytes: usize = of_messages.iter().map(|note| 56 + note.text.len() + note.more.len()).sum();
    assert!(bytes < 3 * left.len(), "{bytes} bytes for {} messages", left.len());
    let restarted = world.restarted(&notes, world.log.len());
    assert_eq!(standing(&restarted), standing(&world.part));
}

/// A purge that moves what is behind it over ends as one that settles message by message.
#[test]
fn what_is_behind_a_purge_stays_as_it_is() {
    let lives = |ttl_ms: u32| Attributes { ttl_ms: Some(ttl_ms), ..PLAIN };
    let delayed = |at_us: i64| Attributes { deliver_at_us: Some(at_us), ..PLAIN };
    for seed in 0..40 {
        let mut world = World::new(QueueRules { max_deliveries: Some(3), ..QueueRules::default() });
        world.dice = seed;
        for _ in 0..30 {
            let at_us = world.now.utc_us + 1_500_000;
            let kinds = [PLAIN, priority(3), group(b"a"), group(b"b"), lives(5_000), delayed(at_us)];
            let list: Vec<_> = (0..1 + world.roll(6)).map(|_| kinds[world.roll(6) as usize]).collect();
            world.send(&list);
            let max = world.roll(6) as u32;
            for got in world.receive(max) {
                match world.roll(4) {
                    0 => world.end_lease(got, Ending::Ack).expect("leased"),
                    1 => world.end_lease(got, Ending::Nack { delay_us: None, reason: b"no disk" }).expect("leased"),
                    _ => {}
                }
            }
            let ms = world.roll(400);
            world.pass_ms(ms);
        }
        let whole = snapshot(&world.part, world.end);
        let to = world.roll(world.end + 1);
        let since = world.log.len();
        let (mut moved, mut settled) = (world.restarted(&whole, since), world.restarted(&whole, since));
        moved.purge(Some(world.now), to);
        let from = settled.settled_to();
        settled.settle_range(Some(world.now), from, to, Why::Deleted);
        assert_eq!(standing(&moved), standing(&settled), "seed {seed}, to {to}");
        assert_eq!((moved.counts, moved.settled_to()), (settled.counts, settled.settled_to()), "seed {seed}");
        check(&moved);
        let mut now = world.now;
        for _ in 0..40 {
            now = Now { mono_us: now.mono_us + 1_000_000, utc_us: now.utc_us + 1_000_000 };
            for part in [&mut moved, &mut settled] {
                part.on_due(now, &world.rules, usize::MAX, &mut Vec::new());
            }
            assert_eq!(standing(&moved), standing(&settled), "seed {seed}, to {to}, later");
        }
        while moved.drop_some() {}
        assert_eq!((moved.open_count(), moved.cells.len(), moved.garbage.len(), moved.dedup.len()), (0, 0, 0, 0));
        assert!(moved.memory_bytes() < 1000);
    }
}

/// Whoever receives finds a queue whose messages have all expired.
#[test]
fn no_receive_goes_through_more_than_some_expired_messages() {
    let mut world = World::new(QueueRules::default());
    for _ in 0..30 {
        world.send(&[Attributes { ttl_ms: Some(1_000), ..PLAIN }; 100]);
    }
    let last = world.send(&[PLAIN]);
    world.now.utc_us += 1_000_000;
    for left in [2_000, 1_000] {
        assert!(world.receive(1).is_empty());
        assert_eq!(world.part.open_count(), left + 1);
    }
    assert!(world.receive(1).is_empty(), "a thousand were looked at, and no more");
    assert_eq!(world.offsets(1), [last]);
}
