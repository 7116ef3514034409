//! Append (3): shares of a leader's blocks, as they are sent and as they are taken.
//!
//! ```text
//! meta      beat u64 | list of shares: { base (40 bytes), list of heads (24 bytes each) }
//! payload   per head, in order: data_bytes of batches | control_bytes of items (length u32, payload)
//! ```
//! The i-th head of a share is entry `prev_index + 1 + i` of its group. A group may have several shares in one frame: they are taken in order.
//!
//! Invariants: a [`CheckedAppend`] is made by [`Append::check`] only, which looks at everything that can be known without the receiver's own
//! log: lengths, terms, indices, kinds, and every byte against a checksum. So going through it cannot fail, and what it gives may be stored as
//! it stands. Nothing is allocated or copied.
//!
//! Not here: terms and places of the receiver's log, room for the bytes, what is stored of it (docs/REPLICATION.md, 3.3, steps 2 to 6).

use super::error::{NodeError, Place};
use super::parts::{CheckedBatches, CheckedItems, ItemsSum, PayloadLimits, check_batches, check_crc, check_items};
use crate::prim::{DecodeError, Item, List, ListIter, ListWriter, choices, flags, layout};

/// Terms and indices are below this, so that what is added to one stays a number. At a million a second it is reached after 146,000 years.
pub const NUMBER_END: u64 = 1 << 62;

choices! {
    /// What an entry is.
    pub enum EntryKind("kind of entry") {
        /// A group's share of a block: batches and control payloads together.
        Block = 1, "a block's share";
        /// Raft's own: empty, or a change of voters.
        Raft = 4, "raft's own";
    }
}

layout! {
    /// What is told of an entry before its bytes.
    pub struct EntryHead {
        /// The entry's term, which all its batches carry.
        pub term: u64;
        /// Bytes of batches.
        pub data_bytes: u32;
        /// Bytes of control payloads with their lengths.
        pub control_bytes: u32;
        /// crc32c over these.
        pub control_crc: u32;
        /// What it is.
        pub kind: EntryKind => zero 3;
    }
}

impl EntryHead {
    /// A group's share of a block. One of data and control has a byte at least.
    pub const fn block(term: u64, data_bytes: u32, control: &ItemsSum) -> EntryHead {
        EntryHead { term, data_bytes, control_bytes: control.bytes(), control_crc: control.crc(), kind: EntryKind::Block }
    }
    /// One of raft's own: without an item it is the empty entry, with one it is a [`Change`].
    pub const fn raft(term: u64, change: &ItemsSum) -> EntryHead {
        EntryHead { term, data_bytes: 0, control_bytes: change.bytes(), control_crc: change.crc(), kind: EntryKind::Raft }
    }
    /// Bytes of the entry in the payload.
    pub const fn payload_bytes(&self) -> u64 {
        self.data_bytes as u64 + self.control_bytes as u64
    }
}

choices! {
    /// What a change of voters does.
    pub enum ChangeAction("change of voters") {
        /// The replica receives entries and does not vote.
        AddLearner = 1, "add learner";
        /// The learner votes from now on.
        Promote = 2, "promote";
        /// The replica is none any more.
        Remove = 3, "remove";
    }
}

layout! {
    /// Payload of one of raft's own entries, on the wire and on disk: a change of one voter.
    pub struct Change {
        /// What is done.
        pub action: ChangeAction => zero 7;
        /// To which replica: generation << 32 | node.
        pub replica: u64;
        /// The move of group 0's plan that it serves; 0 for none.
        pub move_id: u64;
    }
}

flags! {
    /// Flags of a share.
    pub struct ShareFlags(u8, "share flags") {
        /// The follower has lost what it had acknowledged and does not know it: it is suspect.
        YOU_LOST = 1;
        /// The leader has everything that was ever committed: a suspect that has everything in front of this share durably is whole.
        PROVEN = 2;
    }
}

layout! {
    /// What is told of a share before its heads.
    pub struct ShareBase {
        /// The group.
        pub group: u32;
        /// What the follower has to know.
        pub flags: ShareFlags => zero 3;
        /// The leader's term, from 1.
        pub term: u64;
        /// Index of the entry before the first; 0 where there is none.
        pub prev_index: u64;
        /// Its term; 0 where there is none.
        pub prev_term: u64;
        /// The leader's commit, which may be behind the last entry of this share or ahead of it.
        pub commit: u64;
    }
}

layout! {
    /// Consecutive entries of one group. Without an entry it tells the commit, or asks whether the logs agree at `prev_index`.
    pub struct Share<'a> {
        /// Of which group, and where they belong.
        pub base: ShareBase;
        /// The entries.
        pub entries: List<'a, EntryHead>;
    }
}

layout! {
    /// Entries of a leader's groups.
    pub struct Append<'a> {
        /// Higher with each Append and Beat of this connection, from 1; 0 on connections for catch-up, where it keeps nobody in office.
        pub beat: u64;
        /// The shares, in the order in which they are to be taken.
        pub groups: List<'a, Share<'a>>;
    }
}

/// Writes the meta of an Append share by share, without allocation besides `out`. The payload is sent behind it from where it lies.
#[derive(Debug)]
#[must_use = "call finish, else the lists have no counts"]
pub struct AppendWriter {
    groups_at: usize,
    groups: u32,
    open: Option<OpenShare>,
    payload_bytes: u64,
}

#[derive(Debug)]
struct OpenShare {
    heads: ListWriter<EntryHead>,
    terms: std::ops::RangeInclusive<u64>,
}

impl AppendWriter {
    /// Appends the fields before the shares. 12 bytes.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, beat: u64) -> AppendWriter {
        beat.write(out);
        let groups_at = out.len();
        out.extend_from_slice(&[0; 4]);
        AppendWriter { groups_at, groups: 0, open: None, payload_bytes: 0 }
    }
    /// Begins the next share, and ends the one before. 44 bytes.
    #[inline]
    pub fn share(&mut self, out: &mut Vec<u8>, base: &ShareBase) {
        self.end_share(out);
        self.groups += 1;
        base.write(out);
        self.open = Some(OpenShare { heads: ListWriter::begin(out), terms: base.prev_term..=base.term });
    }
    /// Appends an entry to the share. Its bytes have to follow those of the entries before it in the payload. 24 bytes.
    #[inline]
    pub fn entry(&mut self, out: &mut Vec<u8>, head: &EntryHead) {
        let open = self.open.as_mut().expect("a share was begun");
        debug_assert!(open.terms.contains(&head.term), "an entry of term {} where {:?} is possible", head.term, open.terms);
        open.terms = head.term..=*open.terms.end();
        open.heads.push(out, head);
        self.payload_bytes += head.payload_bytes();
    }
    /// Shares so far.
    pub const fn len(&self) -> usize {
        self.groups as usize
    }
    /// Whether there is no share yet.
    pub const fn is_empty(&self) -> bool {
        self.groups == 0
    }
    /// Bytes of payload that the heads announce so far.
    pub const fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }
    /// Fills the counts in. `out` is the whole buffer that `begin` was given. Returns the payload's bytes, for [`crate::frame::finish_frame`].
    #[inline]
    pub fn finish(mut self, out: &mut [u8]) -> usize {
        self.end_share(out);
        out[self.groups_at..self.groups_at + 4].copy_from_slice(&self.groups.to_le_bytes());
        self.payload_bytes as usize
    }
    fn end_share(&mut self, out: &mut [u8]) {
        if let Some(open) = self.open.take() {
            open.heads.finish(out);
        }
    }
}

impl<'a> Append<'a> {
    /// Checks the payload against the heads, and all bytes against their sums. An error ends the connection; nothing of the frame may be stored
    /// then, of no group. Reads every byte of the payload once.
    pub fn check(&self, payload: &'a [u8], limits: &PayloadLimits) -> Result<CheckedAppend<'a>, NodeError> {
        // Lengths first: no sum is computed over a payload that is cut wrongly.
        let declared = self.groups.iter().flat_map(|share| share.entries).map(|head| head.payload_bytes()).sum::<u64>();
        if declared != payload.len() as u64 {
            return Err(DecodeError::PayloadMismatch { declared, actual: payload.len() as u64 }.into());
        }
        let mut rest = payload;
        for share in &self.groups {
            check_base(&share)?;
            let ShareBase { group, term, prev_index, prev_term, .. } = share.base;
            // Raft counts terms from 1: 0 is that of the place before all entries.
            let mut term_min = prev_term.max(1);
            for (index, head) in (prev_index + 1..).zip(share.entries) {
                let at = Place::Entry { group, index };
                if head.term < term_min || head.term > term {
                    return Err(NodeError::EntryTerm { at, term: head.term, min: term_min, max: term });
                }
                term_min = head.term;
                let left = rest.len() as u64;
                let bytes = cut(&mut rest, head.payload_bytes());
                // Cannot be: the sum of all lengths is that of the payload.
                let bytes = bytes.ok_or(DecodeError::PayloadMismatch { declared: head.payload_bytes(), actual: left })?;
                check_entry(at, &head, bytes, limits)?;
            }
        }
        Ok(CheckedAppend { append: *self, payload })
    }
}

/// What can be known of a share without its entries.
fn check_base(share: &Share<'_>) -> Result<(), NodeError> {
    let ShareBase { group, term, prev_index, prev_term, commit, .. } = share.base;
    if term == 0 || term >= NUMBER_END {
        return Err(NodeError::ShareTerm { group, term });
    }
    if prev_term > term || (prev_index == 0) != (prev_term == 0) {
        return Err(NodeError::ShareBase { group, term, prev_index, prev_term });
    }
    let index = prev_index.saturating_add(share.entries.len() as u64).max(commit);
    if index >= NUMBER_END {
        return Err(NodeError::IndexTooHigh { group, index });
    }
    Ok(())
}

/// What can be known of an entry without the others. `bytes` are as long as the head says.
pub(super) fn check_entry(at: Place, head: &EntryHead, bytes: &[u8], limits: &PayloadLimits) -> Result<(), NodeError> {
    if bytes.len() as u64 > u64::from(limits.entry_bytes_max) {
        return Err(NodeError::TooLarge { at, bytes: bytes.len() as u64, max: limits.entry_bytes_max });
    }
    let (data, control) = bytes.split_at(head.data_bytes as usize);
    match head.kind {
        EntryKind::Block if bytes.is_empty() => return Err(NodeError::EntryEmpty { at }),
        EntryKind::Raft if !data.is_empty() => return Err(NodeError::RaftWithBatches { at, bytes: head.data_bytes }),
        EntryKind::Block | EntryKind::Raft => {}
    }
    check_batches(data, limits.batch_bytes_max, at, |batch, view| match view.term() {
        found if found != head.term => Err(NodeError::BatchTerm { at, batch, expected: head.term, found }),
        _ => Ok(()),
    })?;
    check_crc(control, head.control_crc, at)?;
    let items = check_items(control, at)?;
    if head.kind == EntryKind::Raft && items > 0 {
        // Behind the one item there is nothing: a second one would be bytes that trail it.
        let change = if items == 1 { control.get(4..) } else { None };
        let decoded = change.map_or(Err(DecodeError::Trailing { left: control.len() }), Change::decode);
        decoded.map_err(|error| NodeError::Change { at, error })?;
    }
    Ok(())
}

/// The next `len` bytes, if they are there.
fn cut<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = tail;
    Some(head)
}

/// An Append in which everything is right that can be checked without the receiver's log.
#[derive(Debug, Clone, Copy)]
pub struct CheckedAppend<'a> {
    append: Append<'a>,
    payload: &'a [u8],
}

impl<'a> CheckedAppend<'a> {
    /// The sender's beat.
    pub const fn beat(&self) -> u64 {
        self.append.beat
    }
    /// Bytes of batches and control payloads of all shares.
    pub const fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
    /// The shares in the order in which they are to be taken.
    pub fn shares(&self) -> CheckedShares<'a> {
        CheckedShares { shares: self.append.groups.iter(), rest: self.payload }
    }
}

/// The shares of a [`CheckedAppend`].
pub struct CheckedShares<'a> {
    shares: ListIter<'a, Share<'a>>,
    rest: &'a [u8],
}

impl<'a> Iterator for CheckedShares<'a> {
    type Item = CheckedShare<'a>;
    #[inline]
    fn next(&mut self) -> Option<CheckedShare<'a>> {
        let share = self.shares.next()?;
        let len = share.entries.iter().map(|head| head.payload_bytes()).sum();
        let payload = cut(&mut self.rest, len)?;
        Some(CheckedShare { share, payload })
    }
}

/// One group's share of a [`CheckedAppend`].
#[derive(Debug, Clone, Copy)]
pub struct CheckedShare<'a> {
    share: Share<'a>,
    payload: &'a [u8],
}

impl<'a> CheckedShare<'a> {
    /// Of which group, and where its entries belong.
    pub const fn base(&self) -> &ShareBase {
        &self.share.base
    }
    /// Number of entries.
    pub const fn len(&self) -> usize {
        self.share.entries.len()
    }
    /// Whether it tells the commit only, or asks.
    pub const fn is_empty(&self) -> bool {
        self.share.entries.is_empty()
    }
    /// Index of the last entry, or `prev_index` without one.
    pub const fn last_index(&self) -> u64 {
        self.share.base.prev_index + self.share.entries.len() as u64
    }
    /// Bytes of its entries.
    pub const fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
    /// The entries, by index without gaps.
    pub fn entries(&self) -> CheckedEntries<'a> {
        CheckedEntries { heads: self.share.entries.iter(), next_index: self.share.base.prev_index + 1, rest: self.payload }
    }
}

/// The entries of a [`CheckedShare`].
pub struct CheckedEntries<'a> {
    heads: ListIter<'a, EntryHead>,
    next_index: u64,
    rest: &'a [u8],
}

impl<'a> Iterator for CheckedEntries<'a> {
    type Item = CheckedEntry<'a>;
    #[inline]
    fn next(&mut self) -> Option<CheckedEntry<'a>> {
        let head = self.heads.next()?;
        let bytes = cut(&mut self.rest, head.payload_bytes())?;
        let index = self.next_index;
        self.next_index += 1;
        Some(CheckedEntry { index, head, bytes })
    }
}

/// An entry whose bytes may be stored as they stand.
#[derive(Debug, Clone, Copy)]
pub struct CheckedEntry<'a> {
    index: u64,
    head: EntryHead,
    bytes: &'a [u8],
}

impl<'a> CheckedEntry<'a> {
    /// For bytes that [`check_entry`] has taken.
    pub(super) const fn of(index: u64, head: EntryHead, bytes: &'a [u8]) -> CheckedEntry<'a> {
        CheckedEntry { index, head, bytes }
    }
    /// Its index.
    pub const fn index(&self) -> u64 {
        self.index
    }
    /// Its term, which all its batches carry.
    pub const fn term(&self) -> u64 {
        self.head.term
    }
    /// What it is.
    pub const fn kind(&self) -> EntryKind {
        self.head.kind
    }
    /// Bytes of batches and control payloads in the frame.
    pub const fn payload_bytes(&self) -> usize {
        self.bytes.len()
    }
    /// Its batches.
    pub fn batches(&self) -> CheckedBatches<'a> {
        CheckedBatches::of(&self.bytes[..self.head.data_bytes as usize])
    }
    /// Its control payloads, none of them empty. Of raft's own entry: none, or the bytes of its change.
    pub fn controls(&self) -> CheckedItems<'a> {
        CheckedItems::of(&self.bytes[self.head.data_bytes as usize..])
    }
    /// The change of voters, of one of raft's own entries that is not empty.
    pub fn change(&self) -> Option<Change> {
        match self.head.kind {
            EntryKind::Raft => self.controls().next().and_then(|payload| Change::decode(payload).ok()),
            EntryKind::Block => None,
        }
    }
}
