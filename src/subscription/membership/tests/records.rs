//! Records and their bytes: what is read is what was written, and nothing else is believed.

use super::super::stored::{Change, PAYLOAD_BYTES_MAX, StoredChangeError, decode, encode};
use super::*;
use crate::log::envelope;
use proptest::prelude::*;

fn group(epoch: u64) -> Change {
    Change::Group { epoch, settings: Some(Settings { assignor: Assignor::Sticky, session_timeout_ms: SESSION_MS }) }
}

fn member(id: u64, instance: Option<&str>) -> Change {
    let instance = instance.map(str::to_owned);
    Change::Member { member: MemberId(id), granted_epoch: id, is_exclusive: false, instance, client: "c".to_owned() }
}

fn granted(partition: u64, member: u64, assignment_epoch: u64) -> Change {
    Change::Granted { partition: PartitionUid(partition), member: MemberId(member), assignment_epoch }
}

/// One of each kind.
fn each() -> Vec<Change> {
    let topics = Change::Topics { member: MemberId(5), first: 0, topics: vec!["a".to_owned(), "b".to_owned()] };
    let releasing = Change::Releasing { partition: PartitionUid(2), member: MemberId(5), assignment_epoch: 5, since: 9 };
    let (gone, free) = (Change::Gone { member: MemberId(4) }, Change::Free { partition: PartitionUid(3) });
    vec![group(9), gone, member(5, Some("x")), topics, granted(1, 5, 5), releasing, free]
}

fn sealed(list: &[u8]) -> Vec<u8> {
    let mut bytes = envelope::seal(20, 1, list).to_vec();
    bytes.extend_from_slice(list);
    bytes
}

#[test]
fn bytes_are_these() {
    let bytes = encode(UID, &each());
    let hex: String = bytes[0][32..].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        "4d00000000000000",
        "01 0900000000000000 01 10270000",
        "04 0400000000000000",
        "02 0500000000000000 0500000000000000 00 01 78 01 63",
        "03 0500000000000000 00 02 01 61 01 62",
        "05 0100000000000000 0500000000000000 0500000000000000",
        "06 0200000000000000 0500000000000000 0500000000000000 0900000000000000",
        "07 0300000000000000",
    ];
    assert_eq!(hex, expected.concat().replace(' ', ""));
    assert_eq!(bytes.len(), 1);
    assert_eq!(decode(&bytes[0]), Ok((UID, each())));
}

#[test]
fn a_large_group_is_many_payloads_and_each_is_a_list_of_its_own() {
    let names: Vec<String> = (0..TOPICS_PER_MEMBER_MAX).map(|number| format!("{number:0>249}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&[(names[0], 1_000)]);
    world.join(&names);
    world.join_as(Some(&"i".repeat(249)), &names[1..]).expect("joins");
    let snapshot = world.group.durable().snapshot();
    for told in [&world.log, &snapshot] {
        let payloads = encode(UID, told);
        assert!(payloads.len() > 10 && payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX));
        let mut durable = Durable::new(0);
        for payload in &payloads {
            let (uid, changes) = decode(payload).expect("readable");
            assert_eq!((uid, durable.apply(&changes)), (UID, Ok(())));
        }
        assert_eq!(&durable, world.group.durable());
    }
    assert_eq!(encode(UID, &[]), Vec::<Vec<u8>>::new());
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = encode(UID, &each()).remove(0);
    let list = &bytes[32..];
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(matches!(decode(&damaged), Err(StoredChangeError::Envelope(_))), "byte {at}");
        assert!(decode(&bytes[..at]).is_err());
    }
    // With a right checksum: cut, and each value that is never written.
    let whole: Vec<usize> = (2..=each().len()).map(|count| encode(UID, &each()[..count])[0].len() - 32).chain([22]).collect();
    for len in 0..list.len() {
        let expected = if len == 8 { Err(StoredChangeError::NoEpoch) } else { Err(StoredChangeError::Short) };
        let answer = decode(&sealed(&list[..len]));
        assert!(whole.contains(&len) && answer.is_ok() || answer == expected, "{len}: {answer:?}");
    }
    let with = |at: usize, value: u8| {
        let mut list = list.to_vec();
        list[at] = value;
        decode(&sealed(&list)).expect_err("refused")
    };
    assert_eq!(with(8, 8), StoredChangeError::UnknownRecord(8));
    assert_eq!(with(8, 4), StoredChangeError::NoEpoch);
    assert!(matches!(with(17, 3), StoredChangeError::Value { what: "the assignor", found: 3 }));
    assert!(matches!(with(17, 0), StoredChangeError::Value { found: 10_000, .. }));
    assert!(matches!(with(21, 1), StoredChangeError::Value { .. }));
    let after_gone = 22 + 9;
    assert!(matches!(with(after_gone + 17, 2), StoredChangeError::Value { what: "the flag", found: 2 }));
    assert!(matches!(with(after_gone + 18, 250), StoredChangeError::Value { found: 250, .. }));
    assert_eq!(with(after_gone + 19, 0xff), StoredChangeError::Text);
    let topics = after_gone + 22;
    assert!(matches!(with(topics + 10, 0), StoredChangeError::Value { found: 0, .. }));
    assert!(matches!(with(topics + 10, 101), StoredChangeError::Value { found: 101, .. }));
    assert!(matches!(with(topics + 11, 0), StoredChangeError::Value { found: 0, .. }));
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let refused = |changes: &[Change]| Durable::new(0).apply(changes).expect_err("refused");
    let topics = |first, count: usize| Change::Topics { member: MemberId(5), first, topics: vec!["a".to_owned(); count] };
    let releasing =
        |assignment_epoch, since| Change::Releasing { partition: PartitionUid(1), member: MemberId(5), assignment_epoch, since };
    assert_eq!(refused(&[member(5, None)]), RestoreError::NoEpoch);
    assert_eq!(refused(&[Change::Group { epoch: 9, settings: None }, member(5, None)]), RestoreError::NoSettings);
    assert_eq!(refused(&[group(9), member(0, None)]), RestoreError::MemberId(MemberId(0)));
    assert_eq!(refused(&[group(9), member(10, None)]), RestoreError::MemberId(MemberId(10)));
    assert_eq!(refused(&[group(9), member(5, Some("x")), member(6, Some("x"))]), RestoreError::InstanceTwice(MemberId(6)));
    assert_eq!(refused(&[group(9), granted(1, 5, 7)]), RestoreError::UnknownMember(MemberId(5)));
    assert_eq!(refused(&[group(9), releasing(6, 7)]), RestoreError::UnknownMember(MemberId(5)));
    assert_eq!(refused(&[group(9), topics(0, 1)]), RestoreError::UnknownMember(MemberId(5)));
    assert_eq!(refused(&[group(9), member(5, None), topics(1, 1)]), RestoreError::Topics(MemberId(5)));
    assert_eq!(refused(&[group(9), member(5, None), topics(0, 100), topics(100, 1)]), RestoreError::Topics(MemberId(5)));
    for wrong in [granted(1, 5, 10), granted(1, 5, 4), releasing(7, 10), releasing(7, 7), releasing(4, 4)] {
        assert_eq!(refused(&[group(9), member(5, None), wrong]), RestoreError::PartitionEpoch(PartitionUid(1)));
    }
}

#[test]
fn a_known_operation_is_passed_over_and_the_newest_may_come_again() {
    let mut durable = Durable::new(0);
    durable.apply(&each()).expect("makes sense");
    let before = durable.clone();
    durable.apply(&each()).expect("again");
    assert_eq!(durable, before);
    // Of an earlier time, when other members were there: it would make no sense now.
    durable.apply(&[group(8), member(4, Some("x")), granted(1, 4, 8), granted(7, 3, 8)]).expect("passed over");
    assert_eq!(durable, before);
}

#[test]
fn an_operation_of_which_the_log_has_a_part_is_a_state_too() {
    let mut world = World::new(&[("a", 6)]);
    let first = world.join_as(Some("x"), &["a"]).expect("joins");
    world.ack(first);
    let other = world.join(&["a"]);
    world.ack(first);
    world.join_as(Some("x"), &["a"]).expect("joins");
    world.leave(other, None, false).expect("leaves");
    for cut in 0..=world.log.len() {
        let mut durable = Durable::new(FIRST_EPOCH);
        durable.apply(&world.log[..cut]).expect("makes sense");
        // What comes of it: a checkpoint, the same records once more, and the rest.
        let mut checkpointed = Durable::new(0);
        checkpointed.apply(&durable.snapshot()).expect("makes sense");
        assert_eq!(checkpointed, durable);
        checkpointed.apply(&world.log).expect("makes sense");
        assert_eq!(&checkpointed, world.group.durable());
        // Or the end of that leader: the next one goes on.
        let mut next = World::new(&[("a", 6)]);
        next.log = world.log[..cut].to_vec();
        next.restart();
        next.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_refused_or_understood(
        list in prop::collection::vec(0u8..9, 0..200),
        records in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let opened = [&encode(UID, &each())[0][32..54], &list].concat();
        for list in [list, records, opened] {
            if let Ok((uid, changes)) = decode(&sealed(&list)) {
                prop_assert_eq!(encode(uid, &changes), vec![sealed(&list)]);
                let _refused_or_not = Durable::new(0).apply(&changes);
            }
        }
    }
}

#[test]
fn an_epoch_that_no_group_comes_to_is_refused() {
    for (epoch, is_right) in [(u64::MAX / 2, true), (u64::MAX / 2 + 1, false), (u64::MAX, false)] {
        assert_eq!(Durable::new(1).apply(&[group(epoch)]).is_ok(), is_right, "{epoch}");
    }
}
