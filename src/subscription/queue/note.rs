//! What the log says of a queue: notes, and what a checkpoint says of it, in the same words.
//!
//! ```text
//! payload: envelope (32 bytes, schema 21, version 1), then
//!  0 partition uid u64 | 8 queue uid u64, then per note:
//!  0 kind u8 | 1 why u8 | 2 deliveries u16 | 4 count u32 | 8 offset u64 | 16 number u64 | 24 at_us i64 | 32 ms u32 | 36 text_len u16 |
//! 38 more_len u16 | 40 state u8 | 41 priority u8 | 42 zero 6 | 48 hash u64 | 56 text | more
//! ```
//! Which field means what stands at [`Kind`]; what a kind does not need is zero.
//!
//! Invariant: notes are absolute (how things stand with a message from now on), and a settled message stays settled: taking a row of them in twice, or
//! in front of a state that knew some of them already, ends where taking it in once does.
//!
//! Not here: what they do (`part.rs`).

use super::cells::State;
use crate::ids::{PartitionUid, SubscriptionUid};
use crate::log::envelope::{self, EnvelopeError};
use std::fmt;
use tramline_wire::queue::PRIORITY_MAX;

/// Envelope schema of a list of notes on a queue.
pub const QUEUE_SCHEMA: u16 = 21;
const QUEUE_VERSION: u16 = 1;
const HEAD_BYTES: usize = 16;
const NOTE_BYTES: usize = 56;
/// Bytes of notes in one payload of the log, unless one note is larger: fits a block of any setting.
pub const PAYLOAD_BYTES_MAX: usize = 4096;
/// Bytes of notes in one piece of a snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 60 << 10;

/// What a note says, of `count` messages from `offset` on where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The queue begins here at `offset`; records older than `at_us` are not in it.
    Begin = 1,
    /// Leased for the `deliveries`th time for `ms`, under lease `number`, to `text`.
    Lease = 2,
    /// The lease `number` goes on for `ms` from now.
    Extend = 3,
    /// Settled: `why`.
    Settle = 4,
    /// Not leased any more: `why`, at `at_us`; to be delivered at `number` (UTC; 0: at once) or later; delivered `deliveries` times, last to `text`, who
    /// gave `more` as the reason.
    Wait = 5,
    /// Dead: the same fields.
    Die = 6,
    /// Everything below `offset` is settled.
    Purge = 7,
    /// Snapshot: all below `offset` was looked at, what is not told of is settled; `number` is the next lease, `at_us` as with `Begin`.
    Looked = 16,
    /// Snapshot: from `offset` to below `number` no message was ever delivered.
    Fresh = 17,
    /// Snapshot: `count` messages: `state`, `priority`, `deliveries`; leased: `number` is the lease and `ms` its length; else `number` until when it is
    /// delayed, and `ms` its last lease; `hash` of its message group (0: none), `at_us` when it expires (0: never), `text` who has it or had it last. With
    /// `more` it is of some of the `count` only: a bit for each, the lowest of a byte first, the first and the last one set.
    Message = 18,
    /// Snapshot: a failed delivery of the message at `offset`: `why`, `at_us`, `deliveries`, `text`, `more` as with `Wait`.
    Attempt = 19,
    /// Snapshot: a message id (`text`) that came first at `at_us`.
    Id = 20,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Begin,
        Kind::Lease,
        Kind::Extend,
        Kind::Settle,
        Kind::Wait,
        Kind::Die,
        Kind::Purge,
        Kind::Looked,
        Kind::Fresh,
        Kind::Message,
        Kind::Attempt,
        Kind::Id,
    ];
}

/// Why a delivery ended, or a message is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Why {
    /// Nothing of the kind.
    #[default]
    None = 0,
    /// Done.
    Acked = 1,
    /// Given back as failed.
    Nacked = 2,
    /// The lease ran out.
    LeaseExpired = 3,
    /// Given back untried.
    Released = 4,
    /// Given up by its receiver.
    Rejected = 5,
    /// Its time to live passed.
    Expired = 6,
    /// Deleted by request.
    Deleted = 7,
    /// Moved to the dead-letter topic.
    Moved = 8,
    /// Brought back to life by request.
    Redriven = 9,
    /// What is stored of it does not check.
    Damaged = 10,
}

impl Why {
    /// All of them, in order of number.
    pub const ALL: [Why; 11] = [
        Why::None,
        Why::Acked,
        Why::Nacked,
        Why::LeaseExpired,
        Why::Released,
        Why::Rejected,
        Why::Expired,
        Why::Deleted,
        Why::Moved,
        Why::Redriven,
        Why::Damaged,
    ];

    /// The word for users.
    pub fn word(self) -> &'static str {
        match self {
            Why::None => "none",
            Why::Acked => "acked",
            Why::Nacked => "nacked",
            Why::LeaseExpired => "lease expired",
            Why::Released => "released",
            Why::Rejected => "rejected",
            Why::Expired => "expired",
            Why::Deleted => "deleted",
            Why::Moved => "moved",
            Why::Redriven => "redriven",
            Why::Damaged => "damaged",
        }
    }

    /// Whether a delivery that ended so has failed.
    pub fn is_failure(self) -> bool {
        matches!(self, Why::Nacked | Why::LeaseExpired | Why::Rejected | Why::Damaged)
    }
}

/// One word on a queue in one partition, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNote {
    /// What it says.
    pub kind: Kind,
    /// The first message it is about.
    pub offset: u64,
    /// How many, one after the other.
    pub count: u32,
    /// How often they were delivered.
    pub deliveries: u16,
    /// See [`Kind`].
    pub number: u64,
    /// See [`Kind`].
    pub at_us: i64,
    /// See [`Kind`].
    pub ms: u32,
    /// See [`Kind`].
    pub why: Why,
    /// See [`Kind`].
    pub state: Option<State>,
    /// See [`Kind`].
    pub priority: u8,
    /// See [`Kind`].
    pub hash: u64,
    /// See [`Kind`].
    pub text: Box<[u8]>,
    /// See [`Kind`].
    pub more: Box<[u8]>,
}

impl QueueNote {
    /// A note that says no more than its kind and offset.
    pub fn new(kind: Kind, offset: u64) -> QueueNote {
        QueueNote {
            kind,
            offset,
            count: 1,
            deliveries: 0,
            number: 0,
            at_us: 0,
            ms: 0,
            why: Why::None,
            state: None,
            priority: 0,
            hash: 0,
            text: Box::default(),
            more: Box::default(),
        }
    }

    /// One past the last message it is about.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.count)
    }

    /// The messages that it is about.
    pub fn messages(&self) -> impl Iterator<Item = u64> {
        let is_of_it = |at: u32| self.kind != Kind::Message || self.more.is_empty() || self.more[at as usize / 8] & (1 << (at % 8)) != 0;
        (0..self.count).filter(move |at| is_of_it(*at)).map(|at| self.offset + u64::from(at))
    }

    /// Whether `next` says the same of the messages right behind those of this note: then this one says it of all of them now.
    pub fn absorb(&mut self, next: &QueueNote) -> bool {
        let is_run =
            matches!(self.kind, Kind::Lease | Kind::Extend | Kind::Settle | Kind::Wait | Kind::Message) && self.end() == next.offset;
        let is_masked = self.kind == Kind::Message && !self.more.is_empty();
        if !is_run || is_masked || self.count.checked_add(next.count).is_none_or(|count| count > RUN_MAX) {
            return false;
        }
        // Field by field, without a copy: each ack comes through here.
        let numbers = |note: &QueueNote| {
            (note.kind, note.why, note.state, note.deliveries, note.priority, note.number, note.at_us, note.ms, note.hash)
        };
        let is_same = numbers(self) == numbers(next) && same_text(&self.text, &next.text) && same_text(&self.more, &next.more);
        if is_same {
            self.count += next.count;
        }
        is_same
    }
}

/// Most have no text: then nothing is compared.
fn same_text(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// Puts a note behind `notes`, or into the last one of them.
pub fn push_note(notes: &mut Vec<QueueNote>, note: QueueNote) {
    if !notes.last_mut().is_some_and(|last| last.absorb(&note)) {
        notes.push(note);
    }
}

/// A stored list of notes that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredQueueError {
    /// The envelope is wrong, or of a version that this program does not know.
    Envelope(EnvelopeError),
    /// A note ends behind the list.
    Cut(usize),
    /// A field of the note at this byte holds what it cannot.
    Field(&'static str, usize),
}

impl fmt::Display for StoredQueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredQueueError::Envelope(cause) => write!(f, "stored words on a queue are {cause}"),
            StoredQueueError::Cut(at) => write!(f, "stored words on a queue end in the middle of the one at byte {at}"),
            StoredQueueError::Field(what, at) => write!(f, "stored words on a queue have a wrong {what} in the one at byte {at}"),
        }
    }
}

impl std::error::Error for StoredQueueError {}

/// The payloads as which `notes` go into the log (or into a snapshot), in their order, each of at most `bytes_max` unless one note is larger.
pub fn encode_queue_notes(
    partition: PartitionUid,
    queue: SubscriptionUid,
    notes: impl IntoIterator<Item = QueueNote>,
    bytes_max: usize,
    mut each: impl FnMut(Vec<u8>),
) {
    let mut list = Vec::new();
    for note in notes {
        let bytes = NOTE_BYTES + note.text.len() + note.more.len();
        if list.len() > HEAD_BYTES && list.len() + bytes > bytes_max {
            each(sealed(&list));
            list.clear();
        }
        if list.is_empty() {
            list.extend_from_slice(&partition.0.to_le_bytes());
            list.extend_from_slice(&queue.0.to_le_bytes());
        }
        write_note(&mut list, &note);
    }
    if !list.is_empty() {
        each(sealed(&list));
    }
}

/// One payload for the log with as many of the `notes` as fit, and at least one; how many those are. Panics without a note.
pub fn encode_some_notes<'a>(
    partition: PartitionUid,
    queue: SubscriptionUid,
    notes: impl IntoIterator<Item = &'a QueueNote>,
) -> (Vec<u8>, usize) {
    let mut list = Vec::with_capacity(256);
    list.extend_from_slice(&partition.0.to_le_bytes());
    list.extend_from_slice(&queue.0.to_le_bytes());
    let mut count = 0;
    for note in notes {
        if count > 0 && list.len() + NOTE_BYTES + note.text.len() + note.more.len() > PAYLOAD_BYTES_MAX {
            break;
        }
        write_note(&mut list, note);
        count += 1;
    }
    assert!(count > 0, "a payload without a note");
    (sealed(&list), count)
}

fn sealed(list: &[u8]) -> Vec<u8> {
    let mut bytes = envelope::seal(QUEUE_SCHEMA, QUEUE_VERSION, list).to_vec();
    bytes.extend_from_slice(list);
    bytes
}

fn write_note(list: &mut Vec<u8>, note: &QueueNote) {
    assert!(note.text.len() <= u16::MAX as usize && note.more.len() <= u16::MAX as usize, "a text that was not refused");
    list.extend_from_slice(&[note.kind as u8, note.why as u8]);
    list.extend_from_slice(&note.deliveries.to_le_bytes());
    list.extend_from_slice(&note.count.to_le_bytes());
    for number in [note.offset, note.number, note.at_us as u64] {
        list.extend_from_slice(&number.to_le_bytes());
    }
    list.extend_from_slice(&note.ms.to_le_bytes());
    list.extend_from_slice(&(note.text.len() as u16).to_le_bytes());
    list.extend_from_slice(&(note.more.len() as u16).to_le_bytes());
    list.extend_from_slice(&[note.state.map_or(0, |state| state as u8), note.priority, 0, 0, 0, 0, 0, 0]);
    list.extend_from_slice(&note.hash.to_le_bytes());
    list.extend_from_slice(&note.text);
    list.extend_from_slice(&note.more);
}

/// Reads a stored payload; checked throughout.
pub fn decode_queue_notes(bytes: &[u8]) -> Result<(PartitionUid, SubscriptionUid, Vec<QueueNote>), StoredQueueError> {
    let list = envelope::open_image(bytes, QUEUE_SCHEMA, QUEUE_VERSION).map_err(StoredQueueError::Envelope)?;
    let (head, mut rest) = list.split_first_chunk::<HEAD_BYTES>().ok_or(StoredQueueError::Cut(0))?;
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("long enough"));
    let (partition, queue) = (PartitionUid(u64_at(head, 0)), SubscriptionUid(u64_at(head, 8)));
    let mut notes = Vec::new();
    while !rest.is_empty() {
        let at = list.len() - rest.len();
        let wrong = |what| StoredQueueError::Field(what, at);
        let (fixed, behind) = rest.split_first_chunk::<NOTE_BYTES>().ok_or(StoredQueueError::Cut(at))?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(*fixed[at..].first_chunk().expect("long enough"));
        let (text_len, more_len) = (usize::from(u16_at(36)), usize::from(u16_at(38)));
        let (text, behind) = behind.split_at_checked(text_len).ok_or(StoredQueueError::Cut(at))?;
        let (more, behind) = behind.split_at_checked(more_len).ok_or(StoredQueueError::Cut(at))?;
        let kind = *Kind::ALL.iter().find(|kind| **kind as u8 == fixed[0]).ok_or(wrong("kind"))?;
        let note = QueueNote {
            kind,
            why: *Why::ALL.get(usize::from(fixed[1])).ok_or(wrong("reason"))?,
            deliveries: u16_at(2),
            count: u32_at(4),
            offset: u64_at(fixed, 8),
            number: u64_at(fixed, 16),
            at_us: u64_at(fixed, 24) as i64,
            ms: u32_at(32),
            state: match fixed[40] {
                0 => None,
                number => Some(State::from_u8(number).ok_or(wrong("state"))?),
            },
            priority: fixed[41],
            hash: u64_at(fixed, 48),
            text: text.into(),
            more: more.into(),
        };
        if fixed[42..48] != [0; 6] {
            return Err(wrong("reserved field"));
        }
        check(&note).map_err(wrong)?;
        notes.push(note);
        rest = behind;
    }
    Ok((partition, queue, notes))
}

/// What no note of ours says, whatever the queue.
fn check(note: &QueueNote) -> Result<(), &'static str> {
    let is_run = matches!(note.kind, Kind::Lease | Kind::Extend | Kind::Settle | Kind::Wait | Kind::Message);
    match note.kind {
        _ if note.offset > OFFSET_MAX || is_run && (note.count == 0 || u64::from(note.count) > OFFSET_MAX - note.offset) => Err("offset"),
        Kind::Lease | Kind::Extend | Kind::Wait | Kind::Message if note.count > RUN_MAX => Err("count"),
        Kind::Fresh if note.number <= note.offset || note.number > OFFSET_MAX => Err("end"),
        Kind::Lease | Kind::Extend if note.number == 0 || note.number > u64::from(u32::MAX) => Err("lease"),
        Kind::Looked if note.number == 0 || note.number > u64::from(u32::MAX) => Err("lease"),
        Kind::Message if note.state.is_none() || note.priority > PRIORITY_MAX => Err("state"),
        Kind::Message if !note.more.is_empty() && !is_mask(&note.more, note.count) => Err("mask"),
        Kind::Lease if note.deliveries == 0 => Err("number of deliveries"),
        _ => Ok(()),
    }
}

fn is_mask(mask: &[u8], count: u32) -> bool {
    let last = count - 1;
    count <= MASKED_MAX && mask.len() == last as usize / 8 + 1 && mask[0] & 1 == 1 && mask[mask.len() - 1] >> (last % 8) == 1
}

/// Messages, and holes between them, that one note of a snapshot tells of with a mask, at most.
pub(super) const MASKED_MAX: u32 = 4096;
/// Messages of one note, at most, except of one that settles.
const RUN_MAX: u32 = 1 << 20;
/// Offsets are below this (log/: none is ever given above).
const OFFSET_MAX: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Vec<QueueNote> {
        vec![
            QueueNote { at_us: -5, ..QueueNote::new(Kind::Begin, 7) },
            QueueNote { count: 64, deliveries: 1, number: 9, ms: 30_000, text: (*b"worker").into(), ..QueueNote::new(Kind::Lease, 100) },
            QueueNote { count: 3, why: Why::Acked, ..QueueNote::new(Kind::Settle, 100) },
            QueueNote {
                deliveries: 2,
                number: 1 << 50,
                at_us: 1 << 50,
                why: Why::Nacked,
                text: (*b"worker").into(),
                more: (*b"no disk").into(),
                ..QueueNote::new(Kind::Wait, 103)
            },
            QueueNote { state: Some(State::Dead), priority: 9, hash: 77, ..QueueNote::new(Kind::Message, 104) },
            QueueNote { state: Some(State::Ready), count: 10, more: [0b0000_0101, 0b10].into(), ..QueueNote::new(Kind::Message, 105) },
        ]
    }

    #[test]
    fn notes_come_back_as_they_were_stored_and_damage_is_told() {
        let mut payloads = Vec::new();
        encode_queue_notes(PartitionUid(3), SubscriptionUid(4), notes(), PAYLOAD_BYTES_MAX, |payload| payloads.push(payload));
        assert_eq!(payloads.len(), 1);
        let payload = payloads.remove(0);
        assert_eq!(decode_queue_notes(&payload), Ok((PartitionUid(3), SubscriptionUid(4), notes())));
        for at in 0..payload.len() {
            let mut damaged = payload.clone();
            damaged[at] ^= 0x40;
            assert!(decode_queue_notes(&damaged).is_err(), "byte {at}");
            assert!(decode_queue_notes(&payload[..at]).is_err());
        }
    }

    #[test]
    fn long_lists_are_cut_into_payloads() {
        let many = || (0..500).map(|n| QueueNote { why: Why::Acked, ..QueueNote::new(Kind::Settle, n * 2) });
        let mut seen = Vec::new();
        encode_queue_notes(PartitionUid(3), SubscriptionUid(4), many(), PAYLOAD_BYTES_MAX, |payload| {
            assert!(payload.len() <= PAYLOAD_BYTES_MAX + envelope::ENVELOPE_BYTES);
            seen.extend(decode_queue_notes(&payload).expect("ours").2);
        });
        assert_eq!(seen, many().collect::<Vec<_>>());
    }

    #[test]
    fn a_mask_tells_which() {
        assert_eq!(notes().pop().expect("with a mask").messages().collect::<Vec<_>>(), [105, 107, 114]);
        assert_eq!(notes()[1].messages().collect::<Vec<_>>(), (100..164).collect::<Vec<_>>());
    }

    #[test]
    fn neighbours_that_fare_alike_share_a_note() {
        let mut list = Vec::new();
        (5..9).for_each(|offset| push_note(&mut list, QueueNote { why: Why::Acked, ..QueueNote::new(Kind::Settle, offset) }));
        push_note(&mut list, QueueNote { why: Why::Deleted, ..QueueNote::new(Kind::Settle, 9) });
        push_note(&mut list, QueueNote { why: Why::Deleted, ..QueueNote::new(Kind::Settle, 11) });
        assert_eq!(list.iter().map(|note| (note.offset, note.count)).collect::<Vec<_>>(), [(5, 4), (9, 1), (11, 1)]);
    }

    #[test]
    fn what_no_queue_would_say_is_refused() {
        let dead = QueueNote { state: Some(State::Dead), ..QueueNote::new(Kind::Message, 1) };
        let wrong = [
            QueueNote::new(Kind::Begin, OFFSET_MAX + 1),
            QueueNote { count: 0, ..QueueNote::new(Kind::Settle, 1) },
            QueueNote { count: 2, ..QueueNote::new(Kind::Settle, OFFSET_MAX - 1) },
            QueueNote { number: 1, ..QueueNote::new(Kind::Fresh, 1) },
            QueueNote { deliveries: 1, ..QueueNote::new(Kind::Lease, 1) },
            QueueNote { number: 1, ..QueueNote::new(Kind::Lease, 1) },
            QueueNote { number: 1 << 32, deliveries: 1, ..QueueNote::new(Kind::Lease, 1) },
            QueueNote::new(Kind::Message, 1),
            QueueNote { count: 9, more: [1].into(), ..dead.clone() },
            QueueNote { count: 9, more: [1, 3].into(), ..dead.clone() },
            QueueNote { count: 9, more: [2, 1].into(), ..dead.clone() },
            QueueNote { count: 9, more: [1, 0].into(), ..dead },
        ];
        for note in wrong {
            encode_queue_notes(PartitionUid(3), SubscriptionUid(4), [note.clone()], PAYLOAD_BYTES_MAX, |payload| {
                assert!(matches!(decode_queue_notes(&payload), Err(StoredQueueError::Field(..))), "{note:?}");
            });
        }
    }
}
