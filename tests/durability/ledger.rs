//! What has to be there: per partition the records that were acknowledged or read, and how far it may be dropped.
//!
//! Invariant: an offset that was acknowledged, or seen by a consumer, stands for one record for ever.

use common::Peer;
use std::collections::BTreeMap;

/// One partition over all rounds.
pub struct Ledger {
    pub uid: u64,
    /// Bytes of a record's value beside what names it: (least, most).
    filling: (u64, u64),
    /// Offset to record number: acknowledged, or seen.
    known: BTreeMap<u64, u64>,
    /// Record numbers given out so far; numbers rise over all rounds.
    pub next_number: u64,
    /// Below this nothing may be there: the highest trim that was acknowledged.
    pub trimmed: u64,
    /// Above this no trim was asked for.
    pub trim_asked: u64,
    /// Offsets below were compared before, in this life or an earlier one.
    checked: u64,
    /// Bytes that retention has to leave, if it runs.
    keeps_bytes: Option<u64>,
}

/// What a look at a partition found.
#[derive(Default)]
pub struct Found {
    pub known: u64,
    /// In flight at a kill, and there nevertheless.
    pub unacknowledged: u64,
}

impl Ledger {
    pub fn new(uid: u64, filling: (u64, u64), keeps_bytes: Option<u64>) -> Ledger {
        Ledger { uid, filling, known: BTreeMap::new(), next_number: 0, trimmed: 0, trim_asked: 0, checked: 0, keeps_bytes }
    }

    /// The value of a record: what it is, and filling by its number, so that blocks are of different sizes.
    pub fn value(&self, number: u64) -> Vec<u8> {
        value(self.uid, self.filling, number)
    }

    /// The number in a value, if the value is whole and of this partition.
    fn number_of(&self, bytes: &[u8]) -> Option<u64> {
        let head = std::str::from_utf8(&bytes[..bytes.len().min(60)]).ok()?;
        let number = head.strip_prefix(&format!("partition {} record ", self.uid))?.split(' ').next()?.parse().ok()?;
        (self.value(number) == bytes).then_some(number)
    }

    /// Where a consumer that knows all goes on.
    pub fn next_offset(&self) -> u64 {
        self.known.last_key_value().map_or(self.trimmed, |(offset, _)| offset + 1)
    }

    /// A record was acknowledged, or seen.
    pub fn note(&mut self, offset: u64, number: u64) {
        let before = self.known.insert(offset, number);
        assert!(
            before.is_none_or(|before| before == number),
            "partition {}: offset {offset} was record {before:?} before {number}",
            self.uid
        );
    }

    /// A consumer has read this value.
    pub fn note_seen(&mut self, offset: u64, value: &[u8]) {
        let number = self.number_of(value).unwrap_or_else(|| panic!("partition {}, offset {offset}: a foreign value", self.uid));
        self.note(offset, number);
    }

    /// Reads the partition and compares: whole, or from where the last look ended on.
    pub fn check(&mut self, peer: &mut Peer, whole: bool) -> Found {
        let (error, start, _) = peer.list_offset(self.uid, -2);
        assert_eq!(error, 0, "the first offset of partition {}", self.uid);
        let (_, end, _) = peer.list_offset(self.uid, -1);
        self.check_start(start, end);
        let mut from = if whole { start } else { start.max(self.checked) };
        // A start can bring the partition's own start back to where the last checkpoint had it, until retention has looked again (docs/FORMAT.md).
        let records = loop {
            match peer.read_what_is_kept(self.uid, from) {
                Ok(records) => break records,
                Err(start) => {
                    assert!(self.keeps_bytes.is_some(), "partition {}: nothing moves its start, and it is {start} now", self.uid);
                    self.check_start(start, end);
                    from = start;
                }
            }
        };
        let mut found = Found::default();
        let mut last = None;
        // `read_from` asserts that each offset comes once, in order, without holes.
        for record in records {
            let bytes = record.value.as_deref().expect("a value");
            let number =
                self.number_of(bytes).unwrap_or_else(|| panic!("partition {}, offset {}: a foreign value", self.uid, record.offset));
            assert!(last < Some(number), "partition {}, offset {}: record {number} after {last:?}", self.uid, record.offset);
            last = Some(number);
            match self.known.get(&record.offset) {
                Some(known) => {
                    assert_eq!(number, *known, "partition {}: offset {} holds another record than it did", self.uid, record.offset);
                    found.known += 1;
                }
                None => {
                    found.unacknowledged += 1;
                    // It was in flight and made it to the disk: allowed, once, and from now on it stays.
                    self.known.insert(record.offset, number);
                }
            }
        }
        self.known = self.known.split_off(&start);
        let wanted = self.known.range(from..).count() as u64;
        assert_eq!(found.known + found.unacknowledged, wanted, "partition {}: records are missing", self.uid);
        self.checked = self.known.last_key_value().map_or(self.checked, |(offset, _)| offset + 1);
        found
    }

    fn check_start(&mut self, start: u64, end: u64) {
        assert!(start >= self.trimmed, "partition {}: it begins at {start}, trimmed to {}", self.uid, self.trimmed);
        match self.keeps_bytes {
            None => assert!(start <= self.trim_asked, "partition {}: it begins at {start}, trimmed to {}", self.uid, self.trim_asked),
            Some(bytes) => {
                let most = (end - start) * (self.filling.1 + 200);
                assert!(start == 0 || most >= bytes, "partition {}: {start} to {end} is less than the {bytes} bytes it keeps", self.uid);
            }
        }
        // What retention moved may come back, what was trimmed not.
        if self.keeps_bytes.is_none() {
            self.trimmed = self.trimmed.max(start);
            self.trim_asked = self.trim_asked.max(start);
        }
    }
}

/// See `Ledger::value`.
pub fn value(uid: u64, (least, most): (u64, u64), number: u64) -> Vec<u8> {
    let mut value = format!("partition {uid} record {number} ").into_bytes();
    let filling = least + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (most - least);
    value.resize(value.len() + filling as usize, b'a' + (number % 26) as u8);
    value
}
