//! Frames between nodes and the walk over an Append: writer and reader agree, and each kind of damage has its own refusal.

mod common;

use common::node_samples::{BASE, BASE_NEW, UID, batch, change, entries, items};
use common::{node_mend, node_samples, node_walk};
use std::collections::BTreeSet;
use tramline_wire::batch::{BATCH_HEADER_BYTES, BatchError};
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{self, FrameError, Limits};
use tramline_wire::node::{self, *};
use tramline_wire::prim::{DecodeError, List};

const NEXT: Numbers = Numbers::new();

fn peeked(bytes: &[u8]) -> Result<Need<'_>, NodeError> {
    node::peek(bytes, &Limits::PROTOCOL, &NEXT)
}

fn sample(name: &str) -> node_samples::NodeSample {
    node_samples::all().into_iter().find(|sample| sample.name == name).expect("sample")
}

/// A share and what it says of its entries, to be changed before it is checked.
struct Trial {
    base: ShareBase,
    heads: Vec<EntryHead>,
    payload: Vec<u8>,
    limits: PayloadLimits,
}

impl Trial {
    /// The entries of the samples.
    fn new() -> Trial {
        let entries = entries();
        Trial { base: BASE, heads: entries.heads, payload: entries.payload, limits: PayloadLimits::default() }
    }
    /// One entry, the first of group 3 behind index 16.
    fn one(head: EntryHead, payload: Vec<u8>) -> Trial {
        Trial { base: BASE, heads: vec![head], payload, limits: PayloadLimits::default() }
    }
    /// The walk's entries, or its refusal, after the body has gone over the wire. In front stands a share without entries.
    fn check(&self) -> Result<usize, NodeError> {
        let shares = [Share { base: BASE_NEW, entries: List::of(&[]) }, Share { base: self.base, entries: List::of(&self.heads) }];
        let mut meta = Vec::new();
        Append { beat: 1, groups: List::of(&shares) }.encode(&mut meta);
        let append = Append::decode(&meta).expect("well-formed");
        append.check(&self.payload, &self.limits).map(|append| node_walk::checked(&append))
    }
    fn refused(mut self, change: impl FnOnce(&mut Trial)) -> NodeError {
        change(&mut self);
        let error = self.check().expect_err("refused");
        assert!(error.to_string().len() > 40, "{error}");
        error
    }
}

fn at(index: u64) -> Place {
    Place::Entry { group: 3, index }
}

#[test]
fn what_is_right_is_taken_and_given_back_whole() {
    assert_eq!(Trial::new().check(), Ok(4));
    let entries = entries();
    let shares = [Share { base: BASE, entries: List::of(&entries.heads) }];
    let append = Append { beat: 9, groups: List::of(&shares) };
    let checked = append.check(&entries.payload, &PayloadLimits::default()).expect("right");
    assert_eq!(checked.beat(), 9);
    let share = checked.shares().next().expect("a share");
    assert_eq!((share.len(), share.last_index(), share.base().commit), (4, 20, 15));
    let found: Vec<_> = share.entries().map(|entry| (entry.index(), entry.term(), entry.kind())).collect();
    let (block, raft) = (EntryKind::Block, EntryKind::Raft);
    assert_eq!(found, [(17, 6, raft), (18, 7, block), (19, 7, block), (20, 7, raft)]);
    let second = share.entries().nth(1).expect("four");
    assert_eq!(second.batches().map(|batch| batch.base_offset()).collect::<Vec<_>>(), [1000, 5]);
    assert_eq!(second.batches().next().expect("two").bytes(), batch(0, UID, 1000, 7));
    assert_eq!(second.controls().collect::<Vec<_>>(), [&b"a trim"[..], b"two offsets"]);
    assert_eq!(second.change(), None);
    assert_eq!(share.entries().next().expect("four").change(), None, "raft's empty entry");
    let expected = Change { action: ChangeAction::Promote, replica: 1 << 32 | 3, move_id: 12 };
    assert_eq!(share.entries().last().expect("four").change(), Some(expected));
}

#[test]
fn lengths_that_do_not_add_up_are_refused_before_any_sum() {
    let len = entries().payload.len() as u64;
    let error = Trial::new().refused(|trial| trial.payload.push(0));
    assert_eq!(error, NodeError::Body(DecodeError::PayloadMismatch { declared: len, actual: len + 1 }));
    let error = Trial::new().refused(|trial| trial.payload.truncate(3));
    assert_eq!(error, NodeError::Body(DecodeError::PayloadMismatch { declared: len, actual: 3 }));
    let error = Trial::new().refused(|trial| (trial.heads[1].data_bytes, trial.heads[1].control_bytes) = (u32::MAX, u32::MAX));
    assert!(
        matches!(error, NodeError::Body(DecodeError::PayloadMismatch { declared, .. }) if declared > u64::from(u32::MAX) * 2),
        "{error}"
    );
    // They add up, and are cut elsewhere: the batches are not where the head says.
    let error = Trial::new().refused(|trial| {
        trial.heads[1].data_bytes -= 1;
        trial.heads[1].control_bytes += 1;
    });
    assert!(matches!(error, NodeError::Batch { batch: 1, error: BatchError::Short { .. }, .. }), "{error}");
}

#[test]
fn terms_that_fall_or_are_above_the_shares_are_refused() {
    let entry_term = |index, term, min| NodeError::EntryTerm { at: at(index), term, min, max: 7 };
    assert_eq!(Trial::new().refused(|trial| trial.heads[0].term = 5), entry_term(17, 5, 6));
    assert_eq!(Trial::new().refused(|trial| trial.heads[2].term = 6), entry_term(19, 6, 7));
    assert_eq!(Trial::new().refused(|trial| trial.heads[3].term = 8), entry_term(20, 8, 7));
    let no_term = Trial::new().refused(|trial| {
        (trial.base.prev_index, trial.base.prev_term) = (0, 0);
        trial.heads[0].term = 0;
    });
    assert_eq!(no_term, NodeError::EntryTerm { at: at(1), term: 0, min: 1, max: 7 });
    let share_term = |term| NodeError::ShareTerm { group: 3, term };
    assert_eq!(Trial::new().refused(|trial| trial.base.term = 0), share_term(0));
    assert_eq!(Trial::new().refused(|trial| trial.base.term = NUMBER_END), share_term(NUMBER_END));
    for (prev_index, prev_term) in [(16, 8), (0, 6), (16, 0)] {
        let error = Trial::new().refused(|trial| (trial.base.prev_index, trial.base.prev_term) = (prev_index, prev_term));
        assert_eq!(error, NodeError::ShareBase { group: 3, term: 7, prev_index, prev_term });
    }
}

#[test]
fn indices_from_2_to_the_62nd_on_are_refused() {
    let too_high = |index| NodeError::IndexTooHigh { group: 3, index };
    let mut highest = Trial::new();
    (highest.base.prev_index, highest.base.commit) = (NUMBER_END - 5, NUMBER_END - 1);
    assert_eq!(highest.check(), Ok(4));
    assert_eq!(Trial::new().refused(|trial| trial.base.prev_index = NUMBER_END - 4), too_high(NUMBER_END));
    assert_eq!(Trial::new().refused(|trial| trial.base.prev_index = u64::MAX), too_high(u64::MAX));
    assert_eq!(Trial::new().refused(|trial| trial.base.commit = NUMBER_END), too_high(NUMBER_END));
}

#[test]
fn batches_are_checked_whole_and_against_their_entry() {
    let (first, second) = (batch(0, UID, 1000, 7).len(), batch(1, 9, 5, 7).len());
    let flipped = |place: usize| Trial::new().refused(|trial| trial.payload[place] ^= 1);
    let header = flipped(BATCH_HEADER_BYTES - 20);
    assert!(
        matches!(header, NodeError::Batch { at: found, batch: 0, error: BatchError::HeaderChecksum { .. } } if found == at(18)),
        "{header}"
    );
    let body = flipped(first + second - 1);
    assert!(matches!(body, NodeError::Batch { at: found, batch: 1, error: BatchError::BodyChecksum { .. } } if found == at(18)), "{body}");
    for (expected, found) in [(6, 7), (7, 6)] {
        let head = EntryHead::block(expected, first as u32, &ItemsSum::new());
        let error = Trial::one(head, batch(0, UID, 1000, found)).refused(|_| {});
        assert_eq!(error, NodeError::BatchTerm { at: at(17), batch: 0, expected, found });
    }
    // As a producer sends it: never stamped.
    let bare = common::samples::batches()[0].1.clone();
    let error = Trial::one(EntryHead::block(7, bare.len() as u32, &ItemsSum::new()), bare).refused(|_| {});
    assert!(matches!(error, NodeError::Batch { error: BatchError::HeaderChecksum { .. }, .. }), "{error}");
    let max = first as u32 - 1;
    let error = Trial::new().refused(|trial| trial.limits.batch_bytes_max = max);
    assert_eq!(error, NodeError::Batch { at: at(18), batch: 0, error: BatchError::BatchTooLarge { bytes: first as u64, max } });
    let bytes = entries().heads[1].payload_bytes();
    let error = Trial::new().refused(|trial| trial.limits.entry_bytes_max = bytes as u32 - 1);
    assert_eq!(error, NodeError::TooLarge { at: at(18), bytes, max: bytes as u32 - 1 });
}

#[test]
fn control_payloads_are_checked_by_sum_and_by_length() {
    let last = entries().payload.len() - 1;
    let error = Trial::new().refused(|trial| trial.payload[last] ^= 1);
    assert!(matches!(error, NodeError::PayloadChecksum { at: found, .. } if found == at(20)), "{error}");
    let error = Trial::new().refused(|trial| trial.heads[0].control_crc = 1);
    assert_eq!(error, NodeError::PayloadChecksum { at: at(17), stored: 1, computed: 0 });
    /// One block's share with these bytes for control payloads and the right sum.
    fn control(bytes: &[u8]) -> Trial {
        let control_crc = crc32c::crc32c(bytes);
        let head = EntryHead { term: 7, data_bytes: 0, control_bytes: bytes.len() as u32, control_crc, kind: EntryKind::Block };
        Trial::one(head, bytes.to_vec())
    }
    let length = |item, needed, left| NodeError::ItemLength { at: at(17), item, needed, left };
    assert_eq!(control(&[1, 0, 0, 0, 9, 5, 0, 0, 0, 1]).refused(|_| {}), length(1, 9, 5));
    assert_eq!(control(&[1, 0, 0, 0, 9, 5]).refused(|_| {}), length(1, 4, 1));
    assert_eq!(control(&[0xff; 4]).refused(|_| {}), length(0, u64::from(u32::MAX) + 4, 4));
    assert_eq!(control(&[1, 0, 0, 0, 9, 0, 0, 0, 0]).refused(|_| {}), length(1, 0, 4));
    assert_eq!(control(&[]).refused(|_| {}), NodeError::EntryEmpty { at: at(17) });
}

#[test]
fn rafts_own_entries_are_empty_or_one_change() {
    let raft = |payloads: &[&[u8]]| {
        let (bytes, sum) = items(payloads);
        Trial::one(EntryHead::raft(7, &sum), bytes)
    };
    assert_eq!(raft(&[]).check(), Ok(1));
    assert_eq!(raft(&[&change()]).check(), Ok(1));
    let refused = |payloads: &[&[u8]]| match raft(payloads).refused(|_| {}) {
        NodeError::Change { at: found, error } if found == at(17) => error,
        other => panic!("{other}"),
    };
    assert_eq!(refused(&[&change()[..23]]), DecodeError::Short { needed: 8, left: 7 });
    assert_eq!(refused(&[&[change(), vec![0]].concat()]), DecodeError::Trailing { left: 1 });
    assert_eq!(refused(&[&change(), &change()]), DecodeError::Trailing { left: 56 });
    let mut other = change();
    other[0] = 4;
    assert!(matches!(refused(&[&other]), DecodeError::UnknownValue { value: 4, .. }));
    other[..2].copy_from_slice(&[1, 1]);
    assert_eq!(refused(&[&other]), DecodeError::ReservedNotZero);
    let bytes = batch(0, UID, 1000, 7);
    let head = EntryHead { kind: EntryKind::Raft, ..EntryHead::block(7, bytes.len() as u32, &ItemsSum::new()) };
    assert_eq!(Trial::one(head, bytes.clone()).refused(|_| {}), NodeError::RaftWithBatches { at: at(17), bytes: bytes.len() as u32 });
}

#[test]
fn unknown_kinds_flags_and_reserved_bytes_of_an_append_are_refused() {
    let refused = |place: usize, value: u8| {
        let mut meta = sample("node_append").meta;
        meta[place] = value;
        Append::decode(&meta).expect_err("refused")
    };
    let (base, head) = (12, 12 + 44 + 44);
    assert_eq!(refused(base + 4, 4).code(), ErrorCode::UnknownFlag);
    assert_eq!(refused(base + 5, 1), DecodeError::ReservedNotZero);
    assert!(matches!(refused(head + 20, 2), DecodeError::UnknownValue { what: "kind of entry", value: 2, .. }));
    assert_eq!(refused(head + 23, 1), DecodeError::ReservedNotZero);
    assert!(matches!(refused(8, 0xff), DecodeError::Short { .. }), "a declared count is not believed");
}

#[test]
fn each_damage_of_a_frame_has_its_refusal() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sample("node_beat").frame();
        change(&mut bytes);
        let error = peeked(&bytes).expect_err("refused");
        assert!(error.to_string().len() > 40, "{error}");
        error
    };
    assert_eq!(refused(&|bytes| bytes[2] = b'L'), NodeError::Frame(FrameError::BadMagic(*b"TRL1")), "a client");
    for flag in [1, 2, 4, 0x80] {
        assert_eq!(refused(&|bytes| bytes[6] = flag), NodeError::Frame(FrameError::UnknownFlags(u16::from(flag))));
    }
    assert_eq!(refused(&|bytes| bytes[27] = 1), NodeError::Frame(FrameError::ReservedNotZero(1 << 24)));
    assert!(matches!(refused(&|bytes| bytes[8] = 2), NodeError::Frame(FrameError::Checksum { .. })));
    assert!(matches!(refused(&|bytes| *bytes.last_mut().expect("meta") ^= 1), NodeError::Frame(FrameError::Checksum { .. })));
    assert!(matches!(refused(&|bytes| bytes[19] = 1), NodeError::Frame(FrameError::MetaTooLarge { .. })));
    assert_eq!(peeked(b"TRL"), Err(NodeError::Frame(FrameError::BadMagic(*b"TRL\0"))), "before 32 bytes are there");
    assert_eq!(peeked(b"TRN"), Ok(Need::More(32)));
    // Right sums, and still not a frame for this place.
    let mended = |change: &dyn Fn(&mut Vec<u8>)| {
        refused(&|bytes| {
            change(bytes);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &bytes[32..]);
            bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        })
    };
    assert_eq!(mended(&|bytes| bytes[4] = 0), NodeError::UnknownKind(0));
    assert_eq!(mended(&|bytes| bytes[4] = 20), NodeError::UnknownKind(20));
    assert_eq!(mended(&|bytes| bytes[5] = 2), NodeError::UnknownVersion { kind: Kind::Beat, version: 2 });
    assert_eq!(mended(&|bytes| bytes[20] = 7), NodeError::UnexpectedPayload { kind: Kind::Beat, bytes: 7 });
    assert_eq!(mended(&|bytes| bytes[8] = 2), NodeError::Number { expected: 1, found: 2 });
}

#[test]
fn frames_are_numbered_from_1_and_none_is_missed_or_taken_twice() {
    let (mut sender, mut receiver) = (Numbers::new(), Numbers::default());
    let mut stream = Vec::new();
    for beat in 1..4 {
        let start = node::begin(&mut stream, Kind::Beat, sender.advance());
        Beat { beat, groups: List::of(&[]) }.encode(&mut stream);
        frame::finish_frame(&mut stream, start, 0).expect("small");
    }
    let one = stream.len() / 3;
    let mut rest = &stream[..];
    for number in 1..4 {
        for _ in 0..2 {
            let Ok(Need::Whole(found, len)) = node::peek(rest, &Limits::PROTOCOL, &receiver) else { panic!("whole") };
            assert_eq!((found.number, len, found.kind), (number, one, Kind::Beat), "it may be looked at until it is taken");
        }
        assert_eq!(receiver.advance(), number);
        let again = node::peek(rest, &Limits::PROTOCOL, &receiver);
        assert_eq!(again, Err(NodeError::Number { expected: number + 1, found: number }));
        rest = &rest[one..];
    }
    assert_eq!(receiver, sender);
    assert_eq!(peeked(&stream[one..]), Err(NodeError::Number { expected: 1, found: 2 }));
}

#[test]
fn a_payload_is_asked_for_only_when_the_head_is_right() {
    let sample = sample("node_append");
    let (bytes, head) = (sample.frame(), 32 + sample.meta.len());
    assert_eq!(peeked(&bytes[..40]), Ok(Need::More(head)));
    assert_eq!(peeked(&bytes[..head]), Ok(Need::More(bytes.len())));
    let before_hello = node::peek(&bytes, &Limits::BEFORE_HELLO, &NEXT);
    assert!(matches!(before_hello, Err(NodeError::Frame(FrameError::PayloadTooLarge { max: 0, .. }))));
}

#[test]
fn kinds_travel_where_the_table_says() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_u8(kind.as_u8()), Some(*kind));
        for class in Class::ALL {
            for sender in [Side::Dialer, Side::Acceptor] {
                let fits = kind.classes().contains(class) && kind.side().is_none_or(|side| side == sender);
                let expected = if fits { Ok(()) } else { Err(NodeError::OutOfPlace { kind: *kind, class: *class, sender }) };
                assert_eq!(kind.check(*class, sender), expected);
            }
        }
    }
    assert!(Kind::Append.check(Class::CatchUp, Side::Dialer).is_ok() && Kind::Append.check(Class::Live, Side::Acceptor).is_err());
    assert!(Kind::Beat.check(Class::CatchUp, Side::Dialer).is_err());
    assert!(Kind::Refused.check(Class::Calls, Side::Acceptor).is_ok() && Kind::Refused.check(Class::Live, Side::Dialer).is_ok());
    let listed: BTreeSet<u8> = Kind::ALL.iter().map(|kind| kind.as_u8()).collect();
    assert!((0..=u8::MAX).all(|number| listed.contains(&number) == Kind::from_u8(number).is_some()));
    let sampled: BTreeSet<u8> = node_samples::all().iter().map(|sample| sample.kind.as_u8()).collect();
    assert_eq!(sampled, listed, "each kind has a sample");
}

#[test]
fn pieces_are_of_their_partition_in_order_and_of_bounded_size() {
    let limits = PayloadLimits::default();
    let place = Place::Partition { group: 3, uid: UID };
    let piece = Piece { group: 3, uid: UID, body: PieceBody::Batches };
    let check = |payload: &[u8]| piece.check(payload, &limits).map(|_| ()).map_err(|error| (error.to_string(), error).1);
    assert_eq!(check(&[batch(0, UID, 10, 1), batch(0, UID, 50, 9)].concat()), Ok(()), "a gap");
    let behind = [batch(0, UID, 10, 9), batch(0, UID, 10, 1)].concat();
    assert_eq!(check(&behind), Err(NodeError::BatchOffset { at: place, batch: 1, expected: 11, found: 10 }));
    assert_eq!(check(&batch(0, 9, 10, 1)), Err(NodeError::BatchUid { at: place, batch: 0, found: 9 }));
    let many: Vec<u8> = (0..9_000).flat_map(|offset| batch(0, UID, offset, 1)).collect();
    assert_eq!(check(&many), Err(NodeError::TooLarge { at: place, bytes: many.len() as u64, max: PIECE_BATCH_BYTES_MAX }));
    let state = Place::Partition { group: 3, uid: 0 };
    let of = |body, payload: &[u8]| Piece { group: 3, uid: 0, body }.check(payload, &limits).map(|_| ());
    let (large, sum) = items(&[&[7; 40_000], &[8; 40_000]]);
    let crc = sum.crc();
    let too_large = Err(NodeError::TooLarge { at: state, bytes: 80_008, max: PIECE_ITEM_BYTES_MAX });
    assert_eq!(of(PieceBody::Notes { crc }, &large), too_large);
    assert_eq!(of(PieceBody::Producers { crc }, &large), too_large);
    let (one, sum) = items(&[&[7; 80_000]]);
    assert_eq!(of(PieceBody::Notes { crc: sum.crc() }, &one), Ok(()), "one item is always sent whole");
    assert!(matches!(of(PieceBody::Notes { crc: 1 }, &one), Err(NodeError::PayloadChecksum { at, .. }) if at == state));
    let mismatch = Err(NodeError::Body(DecodeError::PayloadMismatch { declared: 0, actual: 1 }));
    assert_eq!(of(PieceBody::End { pieces: 1, bytes: 0 }, &[0]), mismatch);
    assert!(of(PieceBody::Metadata { crc: crc32c::crc32c(&many) }, &many).is_err());
    let mut meta = sample("node_piece_end").meta;
    meta[8] = 1;
    assert_eq!(Piece::decode(&meta), Err(DecodeError::ReservedNotZero), "a partition where none is meant");
    meta[4] = 7;
    assert!(matches!(Piece::decode(&meta), Err(DecodeError::UnknownValue { what: "kind of piece", value: 7, .. })));
}

#[test]
fn a_reply_is_checked_against_its_question() {
    let [range, entry] = node_walk::questions();
    let limits = PayloadLimits::default();
    let reply = |error, next| FetchReply { error, next, heads: List::of(&[]) };
    let place = Place::Partition { group: 3, uid: UID };
    let check = |payload: &[u8], next| reply(ErrorCode::Ok, next).check(&range, payload, &limits).map(|_| ());
    let [first, second] = [batch(1, UID, 998, 7), batch(0, UID, 1002, 9)];
    assert_eq!(check(&[&first[..], &second].concat(), 1003), Ok(()), "the first one is not cut");
    assert_eq!(check(&[], 1500), Ok(()), "nothing there, go on at 1500");
    let offset = |batch, expected, found| Err(NodeError::BatchOffset { at: place, batch, expected, found });
    assert_eq!(check(&second, 1003), offset(0, 1000, 1002));
    assert_eq!(check(&batch(0, UID, 999, 7), 1000), offset(0, 1000, 999));
    assert_eq!(check(&[first.clone(), batch(0, UID, 1003, 9)].concat(), 1004), offset(1, 1002, 1003));
    assert_eq!(check(&first, 1001), Err(NodeError::OtherAnswer { at: place }), "another end than told");
    let short = Fetch { end: 1002, ..range };
    let beyond = reply(ErrorCode::Ok, 1003).check(&short, &[&first[..], &second].concat(), &limits).map(|_| ());
    assert_eq!(beyond, Err(NodeError::OtherAnswer { at: place }));
    assert_eq!(check(&batch(0, 9, 1000, 7), 1001), Err(NodeError::BatchUid { at: place, batch: 0, found: 9 }));
    assert!(matches!(reply(ErrorCode::Damaged, 0).check(&range, &[], &limits), Ok(Fetched::Error(ErrorCode::Damaged))));
    assert_eq!(reply(ErrorCode::Damaged, 0).check(&range, &first, &limits).map(|_| ()), Err(NodeError::OtherAnswer { at: place }));

    let found = sample("node_fetch_reply_entry");
    let body = FetchReply::decode(&found.meta).expect("a sample");
    let Ok(Fetched::Entry(taken)) = body.check(&entry, &found.payload, &limits) else { panic!("an entry") };
    assert_eq!((taken.index(), taken.term(), taken.batches().count(), taken.controls().count()), (17, 7, 1, 1));
    let other = body.check(&Fetch { end: 6, ..entry }, &found.payload, &limits).map(|_| ());
    assert_eq!(other, Err(NodeError::EntryTerm { at: at(17), term: 7, min: 6, max: 6 }));
    assert_eq!(body.check(&range, &found.payload, &limits).map(|_| ()), Err(NodeError::OtherAnswer { at: place }));
    assert_eq!(reply(ErrorCode::Ok, 0).check(&entry, &[], &limits).map(|_| ()), Err(NodeError::OtherAnswer { at: at(17) }));
    let longer = [&found.payload[..], &[0]].concat();
    assert!(matches!(body.check(&entry, &longer, &limits), Err(NodeError::Body(DecodeError::PayloadMismatch { .. }))));
}

#[test]
fn sums_of_calls_and_items_are_those_of_their_bytes() {
    let call = Call::of(5, CallWhat::Join, b"who I am");
    assert_eq!(call.check(b"who I am"), Ok(()));
    let error = call.check(b"who I as").expect_err("flipped");
    assert!(matches!(error, NodeError::PayloadChecksum { at: Place::Call { call: 5 }, .. }), "{error}");
    let payloads: [&[u8]; 3] = [b"a", &[0; 1000], b"the last one"];
    let (bytes, sum) = items(&payloads);
    assert_eq!((sum.bytes() as usize, sum.crc()), (bytes.len(), crc32c::crc32c(&bytes)));
    let mut known = ItemsSum::new();
    for payload in payloads {
        assert_eq!(known.add_summed(payload.len(), crc32c::crc32c(payload)), (payload.len() as u32).to_le_bytes());
    }
    assert_eq!(known, sum, "whether the bytes are read or their sum is known");
}

#[test]
fn refusals_say_what_to_do_and_may_be_unknown() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_u16(refusal.as_u16()), Some(*refusal));
        assert!(refusal.sentence().contains(": "), "{refusal} says what to do");
        let message = "ž".repeat(5_000);
        let mut meta = Vec::new();
        Refused::new(*refusal, &message).encode(&mut meta);
        let body = Refused::decode(&meta).expect("a body");
        assert_eq!((body.refusal(), body.retriable, body.message.len()), (Some(*refusal), refusal.retriable(), 4096));
    }
    let mut meta = sample("node_refused").meta;
    meta[..2].fill(0xff);
    assert_eq!(Refused::decode(&meta).expect("a newer node's").refusal(), None);
    meta[2] = 2;
    assert!(Refused::decode(&meta).is_err());
}

#[test]
fn samples_mend_to_themselves() {
    // Else the fuzz target and the hostile tests would look at other bytes than they say.
    for sample in node_samples::all() {
        let (mut meta, mut payload) = (sample.meta.clone(), sample.payload.clone());
        node_mend::sums(sample.kind, &mut meta, &mut payload);
        assert_eq!((meta, payload), (sample.meta, sample.payload), "{}", sample.name);
    }
}
