//! Committed offsets of consumer groups, kept with the partitions that they are of.
//!
//! ```text
//! payload of the log: envelope (32 bytes, schema 19, version 1), then per note:
//!  0 partition uid u64 | 8 subscription uid u64 | 16 assignment epoch u64 | 24 offset u64 | 32 committed_us i64 | 40 kind u8 | 41 zero |
//! 42 metadata_len u16 | 44 metadata
//! ```
//! A control payload in the partitions' own replica group, taken in when it is committed and again at a start, as far as no checkpoint
//! covers it.
//!
//! Invariants: the epoch of a (partition, group) never falls, and nothing with a lower one is taken: so whoever owned the partition before cannot
//! undo what its present owner has committed. Notes are taken in in the order of the log; taking a row of them in twice ends where taking it in once
//! does. Numbers and bytes of a shard are bounded.
//!
//! Not here: who owns a partition (`membership/`), who proposes and who answers (shard/).

use crate::ids::{IdMap, PartitionUid, SubscriptionUid};
use crate::log::envelope::{self, EnvelopeError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use tramline_wire::group::{OFFSET_METADATA_BYTES_MAX, OFFSET_NONE};

/// Envelope schema of a list of notes.
pub const OFFSETS_SCHEMA: u16 = 19;
const OFFSETS_VERSION: u16 = 1;
/// Bytes of a note before its metadata.
pub const NOTE_BYTES: usize = 44;
/// Bytes of notes in one payload of the log, unless one note is larger: fits a block of any setting.
const PAYLOAD_BYTES_MAX: usize = 4096;
/// (partition, group) pairs that a shard remembers. Measured with as many, of partitions read by one group, without texts: 165 bytes each here, 44 in the
/// checkpoint, which takes 96 ms to put together.
pub const OFFSETS_MAX: usize = 500_000;
/// Bytes of metadata of all of them together.
pub const METADATA_BYTES_MAX: usize = 16 << 20;

/// What a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// Earlier owners commit no more.
    Claim,
    /// The offset is committed (or forgotten: [`OFFSET_NONE`]).
    Commit,
}

/// One word on one partition and group, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetNote {
    /// The partition.
    pub partition: PartitionUid,
    /// The group.
    pub subscription: SubscriptionUid,
    /// The assignment epoch of whoever said it.
    pub epoch: u64,
    /// What it says.
    pub kind: NoteKind,
    /// The next offset to read; [`OFFSET_NONE`] with a claim.
    pub offset: u64,
    /// When, UTC microseconds.
    pub committed_us: i64,
    /// The user's text.
    pub metadata: Box<str>,
}

/// A stored list of notes that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredOffsetsError {
    /// The envelope is wrong, or of a version that this program does not know.
    Envelope(EnvelopeError),
    /// A note ends behind the list.
    Cut(usize),
    /// A field of the note at this byte holds what it cannot.
    Field(&'static str, usize),
}

impl fmt::Display for StoredOffsetsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredOffsetsError::Envelope(cause) => write!(f, "stored offsets are {cause}"),
            StoredOffsetsError::Cut(at) => write!(f, "stored offsets end in the middle of the note at byte {at}"),
            StoredOffsetsError::Field(what, at) => write!(f, "stored offsets have a wrong {what} in the note at byte {at}"),
        }
    }
}

impl std::error::Error for StoredOffsetsError {}

/// Why an offset is not committed, or not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetRefused {
    /// A later owner has claimed the partition.
    Stale,
    /// The shard remembers as many offsets, or as much metadata, as it may.
    Full,
}

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The group.
    pub subscription: SubscriptionUid,
    /// The highest assignment epoch that was taken in.
    pub epoch: u64,
    /// The next offset to read; [`OFFSET_NONE`] where nothing was committed.
    pub offset: u64,
    /// When it was committed, UTC microseconds; 0 where nothing was.
    pub committed_us: i64,
    /// The user's text.
    pub metadata: Box<str>,
    /// The highest epoch that is in the log, committed or not: what comes with a lower one is refused.
    proposed_epoch: u64,
    trend: Trend,
}

/// How the lag moves: an average over commits in which the past counts for less with the time that passes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Trend {
    last_us: i64,
    last_lag: u64,
    /// What the lag grew by each second, each counted by its weight (negative where it fell), and the weights together.
    sum: f64,
    weight: f64,
}

impl Eq for Trend {}

/// After so many microseconds the past counts for half.
const TREND_HALF_US: f64 = 30e6;

impl Trend {
    fn note(&mut self, now_us: i64, lag: u64) {
        if self.last_us > 0 && now_us > self.last_us {
            let passed_us = (now_us - self.last_us) as f64;
            let rate = (lag as f64 - self.last_lag as f64) * 1e6 / passed_us;
            let past = 0.5_f64.powf(passed_us / TREND_HALF_US);
            self.sum = self.sum * past + rate * (1.0 - past);
            self.weight = self.weight * past + (1.0 - past);
        }
        (self.last_us, self.last_lag) = (now_us.max(self.last_us), lag);
    }

    /// Messages per second that the lag grows by; negative where it falls, 0 where nothing is known.
    fn per_second(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

impl Progress {
    fn new(subscription: SubscriptionUid) -> Progress {
        Progress {
            subscription,
            epoch: 0,
            offset: OFFSET_NONE,
            committed_us: 0,
            metadata: Box::default(),
            proposed_epoch: 0,
            trend: Trend::default(),
        }
    }

    /// All of it as a note, for a checkpoint; `None` where nothing is committed yet.
    pub fn note(&self, partition: PartitionUid) -> Option<OffsetNote> {
        if self.epoch == 0 && self.offset == OFFSET_NONE {
            return None;
        }
        let kind = if self.offset == OFFSET_NONE { NoteKind::Claim } else { NoteKind::Commit };
        Some(OffsetNote {
            partition,
            subscription: self.subscription,
            epoch: self.epoch,
            kind,
            offset: self.offset,
            committed_us: self.committed_us,
            metadata: self.metadata.clone(),
        })
    }

    /// The lag after a commit that was just taken in, in messages.
    pub fn note_lag(&mut self, now_us: i64, lag: u64) {
        self.trend.note(now_us, lag);
    }

    /// How long it takes until nothing of `lag` messages is left if it goes on falling as of late, in milliseconds; `None` where it does not fall.
    pub fn drain_ms(&self, lag: u64) -> Option<u64> {
        let per_second = self.trend.per_second();
        (per_second < 0.0).then(|| (lag as f64 * 1000.0 / -per_second) as u64)
    }
}

/// All committed offsets of a shard.
#[derive(Debug, Default)]
pub struct Offsets {
    by_partition: IdMap<PartitionUid, Vec<Progress>>,
    count: usize,
    metadata_bytes: usize,
    /// When each group committed something last, UTC microseconds: asked for each minute, when nobody can wait for a walk over everything.
    last_commits: BTreeMap<SubscriptionUid, i64>,
}

impl Offsets {
    /// How far `subscription` has read `partition`, if anything was ever said of it.
    pub fn find(&self, partition: PartitionUid, subscription: SubscriptionUid) -> Option<&Progress> {
        self.by_partition.get(&partition)?.iter().find(|progress| progress.subscription == subscription)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, partition: PartitionUid, subscription: SubscriptionUid) -> Option<&mut Progress> {
        self.by_partition.get_mut(&partition)?.iter_mut().find(|progress| progress.subscription == subscription)
    }

    /// Partitions of which something of `subscription` is remembered, in no order.
    pub fn partitions_of(&self, subscription: SubscriptionUid) -> impl Iterator<Item = PartitionUid> {
        let of_group = move |list: &[Progress]| list.iter().any(|progress| progress.subscription == subscription);
        self.by_partition.iter().filter(move |(_, list)| of_group(list)).map(|(uid, _)| *uid)
    }

    /// Pairs of a partition and a group that are remembered.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// When each group that has committed something did so last, UTC microseconds.
    pub fn last_commits(&self) -> impl Iterator<Item = (SubscriptionUid, i64)> {
        self.last_commits.iter().map(|(subscription, at_us)| (*subscription, *at_us))
    }

    /// Everything that is remembered, in no order.
    pub fn unordered(&self) -> impl Iterator<Item = (PartitionUid, &Progress)> {
        self.by_partition.iter().flat_map(|(uid, list)| list.iter().map(move |progress| (*uid, progress)))
    }

    /// Everything that is remembered, by partition and then by group.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionUid, &Progress)> {
        let mut partitions: Vec<_> = self.by_partition.iter().collect();
        partitions.sort_unstable_by_key(|(uid, _)| **uid);
        partitions.into_iter().flat_map(|(uid, list)| {
            let mut list: Vec<_> = list.iter().collect();
            list.sort_unstable_by_key(|progress| progress.subscription);
            list.into_iter().map(|progress| (*uid, progress))
        })
    }

    /// Whether a note may go into the log.
    pub fn check(&self, note: &OffsetNote) -> Result<(), OffsetRefused> {
        let known = self.find(note.partition, note.subscription);
        if known.is_some_and(|progress| note.epoch < progress.proposed_epoch) {
            return Err(OffsetRefused::Stale);
        }
        let forgotten_bytes = known.map_or(0, |progress| progress.metadata.len());
        let is_full = known.is_none() && self.count >= OFFSETS_MAX;
        if is_full || self.metadata_bytes - forgotten_bytes + note.metadata.len() > METADATA_BYTES_MAX {
            return Err(OffsetRefused::Full);
        }
        Ok(())
    }

    /// A note that was checked goes into the log: from now on none of a lower epoch may. Epoch 0 is for whoever is in no group.
    pub fn propose(&mut self, note: &OffsetNote) {
        let progress = self.entry(note.partition, note.subscription);
        progress.proposed_epoch = progress.proposed_epoch.max(note.epoch);
    }

    /// A note of the log is committed.
    pub fn apply(&mut self, note: &OffsetNote) {
        let progress = self.entry(note.partition, note.subscription);
        // A start that replays from before a checkpoint meets notes that are older than what the checkpoint knew.
        if note.epoch < progress.epoch {
            return;
        }
        progress.epoch = note.epoch;
        progress.proposed_epoch = progress.proposed_epoch.max(note.epoch);
        if note.kind == NoteKind::Claim {
            return;
        }
        let last_us = self.last_commits.entry(note.subscription).or_insert(note.committed_us);
        *last_us = (*last_us).max(note.committed_us);
        let progress = self.entry(note.partition, note.subscription);
        let is_none = note.offset == OFFSET_NONE;
        progress.offset = note.offset;
        progress.committed_us = if is_none { 0 } else { note.committed_us };
        let metadata = if is_none { Box::default() } else { note.metadata.clone() };
        let old = std::mem::replace(&mut progress.metadata, metadata);
        let new_bytes = self.find(note.partition, note.subscription).map_or(0, |progress| progress.metadata.len());
        self.metadata_bytes = self.metadata_bytes + new_bytes - old.len();
    }

    fn entry(&mut self, partition: PartitionUid, subscription: SubscriptionUid) -> &mut Progress {
        let list = self.by_partition.entry(partition).or_default();
        let at = list.iter().position(|progress| progress.subscription == subscription).unwrap_or_else(|| {
            self.count += 1;
            // Most partitions are read by one group: room for four would be three too many.
            list.reserve_exact(1);
            list.push(Progress::new(subscription));
            list.len() - 1
        });
        &mut list[at]
    }

    /// Forgets everything that is not kept: of partitions and groups that are gone.
    pub fn retain(&mut self, mut is_kept: impl FnMut(PartitionUid, SubscriptionUid) -> bool) {
        let mut left = BTreeSet::new();
        let (mut count, mut metadata_bytes) = (0, 0);
        self.by_partition.retain(|uid, list| {
            list.retain(|progress| is_kept(*uid, progress.subscription));
            count += list.len();
            left.extend(list.iter().map(|progress| progress.subscription));
            metadata_bytes += list.iter().map(|progress| progress.metadata.len()).sum::<usize>();
            !list.is_empty()
        });
        (self.count, self.metadata_bytes) = (count, metadata_bytes);
        self.last_commits.retain(|subscription, _| left.contains(subscription));
    }
}

/// The payloads as which notes of one replica group go into the log, in their order, each with the notes that it holds.
pub fn encode_notes(notes: &[OffsetNote]) -> Vec<(Vec<u8>, Range<usize>)> {
    let mut payloads = Vec::new();
    let (mut list, mut first) = (Vec::new(), 0);
    for (at, note) in notes.iter().enumerate() {
        if !list.is_empty() && list.len() + NOTE_BYTES + note.metadata.len() > PAYLOAD_BYTES_MAX {
            payloads.push((sealed(&list), first..at));
            list.clear();
            first = at;
        }
        write_note(&mut list, note);
    }
    if !list.is_empty() {
        payloads.push((sealed(&list), first..notes.len()));
    }
    payloads
}

fn sealed(list: &[u8]) -> Vec<u8> {
    let mut bytes = envelope::seal(OFFSETS_SCHEMA, OFFSETS_VERSION, list).to_vec();
    bytes.extend_from_slice(list);
    bytes
}

fn write_note(list: &mut Vec<u8>, note: &OffsetNote) {
    assert!(note.metadata.len() <= OFFSET_METADATA_BYTES_MAX, "metadata of {} bytes was not refused", note.metadata.len());
    for number in [note.partition.0, note.subscription.0, note.epoch, note.offset, note.committed_us as u64] {
        list.extend_from_slice(&number.to_le_bytes());
    }
    let kind = match note.kind {
        NoteKind::Claim => 1,
        NoteKind::Commit => 2,
    };
    list.extend_from_slice(&[kind, 0]);
    list.extend_from_slice(&(note.metadata.len() as u16).to_le_bytes());
    list.extend_from_slice(note.metadata.as_bytes());
}

/// Reads a stored payload; checked throughout.
pub fn decode_notes(bytes: &[u8]) -> Result<Vec<OffsetNote>, StoredOffsetsError> {
    let list = envelope::open_image(bytes, OFFSETS_SCHEMA, OFFSETS_VERSION).map_err(StoredOffsetsError::Envelope)?;
    let mut notes = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let at = list.len() - rest.len();
        let (fixed, behind) = rest.split_first_chunk::<NOTE_BYTES>().ok_or(StoredOffsetsError::Cut(at))?;
        let number = |from: usize| u64::from_le_bytes(*fixed[from..].first_chunk().expect("a note is long enough"));
        let kind = match fixed[40] {
            1 => NoteKind::Claim,
            2 => NoteKind::Commit,
            _ => return Err(StoredOffsetsError::Field("kind", at)),
        };
        let metadata_len = usize::from(u16::from_le_bytes([fixed[42], fixed[43]]));
        if fixed[41] != 0 || metadata_len > OFFSET_METADATA_BYTES_MAX {
            return Err(StoredOffsetsError::Field("length of metadata", at));
        }
        let (metadata, behind) = behind.split_at_checked(metadata_len).ok_or(StoredOffsetsError::Cut(at))?;
        let metadata = std::str::from_utf8(metadata).map_err(|_| StoredOffsetsError::Field("text", at))?;
        notes.push(OffsetNote {
            partition: PartitionUid(number(0)),
            subscription: SubscriptionUid(number(8)),
            epoch: number(16),
            kind,
            offset: number(24),
            committed_us: number(32) as i64,
            metadata: metadata.into(),
        });
        rest = behind;
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(partition: u64, epoch: u64, kind: NoteKind, offset: u64) -> OffsetNote {
        OffsetNote {
            partition: PartitionUid(partition),
            subscription: SubscriptionUid(5),
            epoch,
            kind,
            offset,
            committed_us: 1_000 + offset as i64,
            metadata: format!("at {offset}").into(),
        }
    }

    fn take(offsets: &mut Offsets, note: &OffsetNote) -> Result<(), OffsetRefused> {
        offsets.check(note).map(|()| offsets.propose(note))
    }

    #[test]
    fn who_owned_a_partition_before_commits_no_more() {
        let mut offsets = Offsets::default();
        let (first, claim, late) =
            (note(1, 7, NoteKind::Commit, 10), note(1, 9, NoteKind::Claim, OFFSET_NONE), note(1, 7, NoteKind::Commit, 12));
        assert_eq!(take(&mut offsets, &first), Ok(()));
        // In the log, not committed yet: from here on the earlier epoch is refused.
        assert_eq!(take(&mut offsets, &claim), Ok(()));
        assert_eq!(take(&mut offsets, &late), Err(OffsetRefused::Stale));
        assert_eq!(take(&mut offsets, &note(1, 0, NoteKind::Commit, 12)), Err(OffsetRefused::Stale), "who is in no group neither");
        offsets.apply(&first);
        offsets.apply(&claim);
        let progress = offsets.find(PartitionUid(1), SubscriptionUid(5)).unwrap();
        assert_eq!((progress.epoch, progress.offset, &*progress.metadata), (9, 10, "at 10"), "a claim leaves the offset as it is");
        assert_eq!(take(&mut offsets, &note(1, 9, NoteKind::Commit, 20)), Ok(()));
        assert_eq!(take(&mut offsets, &note(2, 0, NoteKind::Commit, 3)), Ok(()), "another partition, read by nobody's members");
    }

    #[test]
    fn what_is_forgotten_keeps_earlier_owners_out() {
        let mut offsets = Offsets::default();
        for said in [note(1, 7, NoteKind::Commit, 10), note(1, 8, NoteKind::Commit, OFFSET_NONE)] {
            take(&mut offsets, &said).unwrap();
            offsets.apply(&said);
        }
        let progress = offsets.find(PartitionUid(1), SubscriptionUid(5)).unwrap();
        assert_eq!((progress.offset, progress.committed_us, &*progress.metadata), (OFFSET_NONE, 0, ""));
        assert_eq!(take(&mut offsets, &note(1, 7, NoteKind::Commit, 11)), Err(OffsetRefused::Stale));
        assert_eq!((offsets.len(), offsets.metadata_bytes), (1, 0));
    }

    #[test]
    fn numbers_and_texts_are_bounded() {
        let mut offsets = Offsets::default();
        let text: Box<str> = "x".repeat(OFFSET_METADATA_BYTES_MAX).into();
        let fits = METADATA_BYTES_MAX / OFFSET_METADATA_BYTES_MAX;
        let long = |partition| OffsetNote { metadata: text.clone(), ..note(partition, 0, NoteKind::Commit, 1) };
        for partition in 0..fits as u64 {
            take(&mut offsets, &long(partition)).unwrap();
            offsets.apply(&long(partition));
        }
        assert_eq!(take(&mut offsets, &long(u64::MAX)), Err(OffsetRefused::Full));
        assert_eq!(take(&mut offsets, &long(3)), Ok(()), "in the place of what it said before");
        offsets.retain(|partition, _| partition != PartitionUid(3));
        assert_eq!(take(&mut offsets, &long(u64::MAX)), Ok(()));
        offsets.count = OFFSETS_MAX;
        assert_eq!(take(&mut offsets, &note(u64::MAX - 1, 0, NoteKind::Commit, 1)), Err(OffsetRefused::Full));
        assert_eq!(take(&mut offsets, &note(4, 0, NoteKind::Commit, 1)), Ok(()), "known already");
    }

    #[test]
    fn the_time_to_drain_follows_the_commits_of_late() {
        let mut progress = Progress::new(SubscriptionUid(1));
        progress.note_lag(1_000_000, 10_000);
        assert_eq!(progress.drain_ms(10_000), None, "one commit tells no rate");
        for second in 2..200 {
            progress.note_lag(second * 1_000_000, 10_000 - 10 * second as u64);
        }
        let drain_ms = progress.drain_ms(8_000).unwrap();
        assert!((780_000..830_000).contains(&drain_ms), "{drain_ms} ms at 10 per second");
        for second in 200..400 {
            progress.note_lag(second * 1_000_000, 8_000 + 5 * second as u64);
        }
        assert_eq!(progress.drain_ms(9_000), None, "it grows");
    }

    fn any_note() -> impl Strategy<Value = OffsetNote> {
        (0u64..3, 0u64..3, 0u64..6, any::<bool>(), 0u64..100, "[a-zž]{0,40}").prop_map(|(partition, group, epoch, claims, offset, text)| {
            OffsetNote {
                partition: PartitionUid(partition),
                subscription: SubscriptionUid(group),
                epoch,
                kind: if claims { NoteKind::Claim } else { NoteKind::Commit },
                offset: if claims { OFFSET_NONE } else { offset },
                committed_us: offset as i64,
                metadata: if claims { Box::default() } else { text.into() },
            }
        })
    }

    proptest! {
        #[test]
        fn stored_notes_are_read_back_or_refused(notes in prop::collection::vec(any_note(), 1..200), at: usize, bit in 0u8..8) {
            let encoded = encode_notes(&notes);
            let places: Vec<usize> = encoded.iter().flat_map(|(_, of_payload)| of_payload.clone()).collect();
            prop_assert_eq!(places, (0..notes.len()).collect::<Vec<_>>());
            let payloads: Vec<_> = encoded.into_iter().map(|(payload, _)| payload).collect();
            prop_assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX + envelope::ENVELOPE_BYTES));
            let read: Vec<_> = payloads.iter().flat_map(|payload| decode_notes(payload).unwrap()).collect();
            prop_assert_eq!(&read, &notes);
            let mut bytes = payloads[0].clone();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode_notes(&bytes).is_err() || (20..28).contains(&at));
            prop_assert!(decode_notes(&payloads[0][..at]).is_err());
        }

        /// A start replays from the block that its checkpoint covers, and the checkpoint may know more than that.
        #[test]
        fn a_replay_from_before_the_checkpoint_ends_where_the_log_does(notes in prop::collection::vec(any_note(), 1..40), from: usize, to: usize) {
            let mut live = Offsets::default();
            let taken: Vec<_> = notes.into_iter().filter(|note| take(&mut live, note).is_ok()).collect();
            taken.iter().for_each(|note| live.apply(note));
            let to = to % (taken.len() + 1);
            let from = from % (to + 1);
            let mut replayed = Offsets::default();
            taken[..to].iter().chain(&taken[from..]).for_each(|note| replayed.apply(note));
            let state = |offsets: &Offsets| offsets.iter().map(|(uid, progress)| (uid, progress.clone())).collect::<Vec<_>>();
            prop_assert_eq!(state(&replayed), state(&live));
            prop_assert_eq!((replayed.len(), replayed.metadata_bytes), (live.len(), live.metadata_bytes));
        }
    }
}
