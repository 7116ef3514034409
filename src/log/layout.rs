//! Bytes of blocks and of the segment header page: encoding, decoding, checking.
//!
//! ```text
//! block (starts at a multiple of 4096 of its segment's file, all integers little-endian)
//!   0     header, 96 bytes
//!   96    content: fragments, each at a multiple of 8 of the block, gaps zero
//!   T     table: entry_count entries of 40 bytes, then fragment_count fragments of 16 bytes      (T = table_pos, multiple of 8)
//!   L-16  trailer, 16 bytes                                                                       (L = length)
//!   L     zeros up to the next multiple of 4096
//!
//! header                                                            entry                           fragment
//!   0 magic "TLB1"         40 durable_through u64                     0 group u32                      0 offset u32 (in the block)
//!   4 version u16          48 length u32 (L)                          4 kind u8 (EntryKind)            4 length u32
//!   6 shard u16            52 table_pos u32 (T)                       5 flags u8 (0)                   8 entry u16 (index of it)
//!   8 flags u16 (1 mark)   56 prev_header_crc u32                     6 reserved u16 (0)              10 kind u8 (1 batch, 2 payload)
//!  10 entry_count u16      60 pos u32                                 8 index u64                     11 reserved u8 (0)
//!  12 fragment_count u32   64 utc_us i64                             16 term u64                      12 crc u32 (payload: crc32c of it;
//!  16 segment_uid u64      72 log_uid u64                            24 content_len u32                         batch: 0, it checks itself)
//!  24 incarnation u64      80 reserved 12 bytes (0)                  28 fragment_first u32
//!  32 block_seq u64        92 header_crc u32                         32 fragment_count u32          trailer
//!                                                                    36 reserved u32 (0)              0 magic "TLE1"   8 block_seq low u32
//!  header_crc = crc32c(header 0..92 ++ table)                                                         4 length u32    12 header_crc u32
//! ```
//! Invariants: an entry's fragments are consecutive in the table and in content order; what `BlockView::parse` returns has been checked
//! in full (bounds, counts, checksum, trailer), so its accessors cannot go out of range.
//!
//! Not here: what follows from a bad block (`recovery/scan.rs`), and the insides of batches (`tramline_wire::batch`).

use crate::ids::{BlockSeq, GroupId, Incarnation, LogIndex, SegmentUid, ShardId, Term};
use crate::log::types::EntryKind;
use std::ops::Range;

/// Blocks, headers and footers begin at multiples of this, in bytes.
pub const BLOCK_ALIGN: usize = 4096;
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 96;
/// Bytes of an entry in a block's table.
pub const ENTRY_BYTES: usize = 40;
/// Bytes of a fragment in a block's table.
pub const FRAGMENT_BYTES: usize = 16;
/// Bytes of a block's trailer.
pub const TRAILER_BYTES: usize = 16;
/// Fragments begin at multiples of this in their block, in bytes.
pub const FRAGMENT_ALIGN: usize = 8;
/// First byte of a segment's file that blocks may use: behind the header page.
pub const SEGMENT_DATA_START: u32 = BLOCK_ALIGN as u32;
/// Version of the block layout.
pub const BLOCK_VERSION: u16 = 1;
/// Version of the segment header page.
pub const SEGMENT_VERSION: u16 = 1;
/// Block flag: an empty block that only carries `durable_through`.
pub const FLAG_MARK: u16 = 1;
/// Fragment kind: a batch, which checks itself.
pub const FRAGMENT_BATCH: u8 = 1;
/// Fragment kind: a payload, checked by the crc in the fragment.
pub const FRAGMENT_PAYLOAD: u8 = 2;
/// Bytes of a hard state's payload.
pub const HARD_STATE_BYTES: usize = 32;

const BLOCK_MAGIC: [u8; 4] = *b"TLB1";
const TRAILER_MAGIC: [u8; 4] = *b"TLE1";
const SEGMENT_MAGIC: [u8; 4] = *b"TLS1";
const HEADER_CRC_AT: usize = 92;
const SEGMENT_CRC_AT: usize = 92;

const _: () = assert!(
    BLOCK_HEADER_BYTES.is_multiple_of(FRAGMENT_ALIGN)
        && ENTRY_BYTES.is_multiple_of(8)
        && FRAGMENT_BYTES.is_multiple_of(8)
        && TRAILER_BYTES.is_multiple_of(8)
);
const _: () = assert!(HEADER_CRC_AT + 4 == BLOCK_HEADER_BYTES);
const _: () = assert!(BLOCK_HEADER_BYTES + TRAILER_BYTES <= BLOCK_ALIGN, "a mark block fits one page");
const _: () = assert!(BLOCK_ALIGN.is_power_of_two() && BLOCK_ALIGN.is_multiple_of(crate::bytes::PAGE_BYTES));
const _: () = assert!(crate::bytes::BUFFER_BYTES_MAX < u32::MAX as usize, "block lengths are u32");

/// `value` rounded up to a multiple of `align` (a power of two).
pub const fn align_up(value: u64, align: u64) -> u64 {
    (value + align - 1) & !(align - 1)
}

/// `value` rounded up to a multiple of `align` (a power of two).
pub const fn align_up_usize(value: usize, align: usize) -> usize {
    (value + align - 1) & !(align - 1)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A block's header, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// The shard that wrote it.
    pub shard: ShardId,
    /// `FLAG_MARK` or 0.
    pub flags: u16,
    /// Entries in the table.
    pub entry_count: u16,
    /// Fragments in the table.
    pub fragment_count: u32,
    /// The segment it was written for.
    pub segment_uid: SegmentUid,
    /// The start of the log that wrote it.
    pub incarnation: Incarnation,
    /// Its number.
    pub block_seq: BlockSeq,
    /// All blocks up to this one were durable when this one was closed.
    pub durable_through: BlockSeq,
    /// Bytes without padding, trailer included.
    pub length: u32,
    /// Where the table begins.
    pub table_pos: u32,
    /// `header_crc` of block `block_seq - 1` (0 for the first block).
    pub prev_header_crc: u32,
    /// Where it begins in its segment's file: a copy in another place is not taken for it.
    pub pos: u32,
    /// When it was closed.
    pub utc_us: i64,
    /// The log's random number.
    pub log_uid: u64,
}

impl BlockHeader {
    /// Bytes on disk, padding included.
    pub fn padded_len(&self) -> u32 {
        align_up(u64::from(self.length), BLOCK_ALIGN as u64) as u32
    }
    /// Whether this is an empty mark block.
    pub fn is_mark(&self) -> bool {
        self.flags & FLAG_MARK != 0
    }
}

/// One row of a block's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The group.
    pub group: GroupId,
    /// What it is.
    pub kind: EntryKind,
    /// Raft index (0 for a hard state).
    pub index: LogIndex,
    /// Raft term.
    pub term: Term,
    /// Sum of its fragments' lengths.
    pub content_len: u32,
    /// First of its fragments.
    pub fragment_first: u32,
    /// How many it has.
    pub fragment_count: u32,
}

/// One piece of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where it begins in the block.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// The entry it belongs to.
    pub entry: u16,
    /// `FRAGMENT_BATCH` or `FRAGMENT_PAYLOAD`.
    pub kind: u8,
    /// crc32c of a payload, 0 for a batch.
    pub crc: u32,
}

/// Writes one row of the table.
pub fn put_entry(row: &mut [u8], entry: &Entry) {
    assert_eq!(row.len(), ENTRY_BYTES);
    put(row, 0, &entry.group.0.to_le_bytes());
    put(row, 4, &[entry.kind as u8, 0, 0, 0]);
    put(row, 8, &entry.index.0.to_le_bytes());
    put(row, 16, &entry.term.0.to_le_bytes());
    put(row, 24, &entry.content_len.to_le_bytes());
    put(row, 28, &entry.fragment_first.to_le_bytes());
    put(row, 32, &entry.fragment_count.to_le_bytes());
    put(row, 36, &[0; 4]);
}

/// Writes one fragment of the table.
pub fn put_fragment(row: &mut [u8], fragment: &Fragment) {
    assert_eq!(row.len(), FRAGMENT_BYTES);
    put(row, 0, &fragment.offset.to_le_bytes());
    put(row, 4, &fragment.length.to_le_bytes());
    put(row, 8, &fragment.entry.to_le_bytes());
    put(row, 10, &[fragment.kind, 0]);
    put(row, 12, &fragment.crc.to_le_bytes());
}

/// Writes header and trailer around a block whose content and table stand in place; returns the header's checksum.
pub fn finish_block(block: &mut [u8], header: &BlockHeader) -> u32 {
    let (table, length) = (header.table_pos as usize, header.length as usize);
    assert!(table >= BLOCK_HEADER_BYTES && table % FRAGMENT_ALIGN == 0, "{header:?}");
    assert_eq!(length, table + table_bytes(header.entry_count, header.fragment_count) + TRAILER_BYTES, "{header:?}");
    put(block, 0, &BLOCK_MAGIC);
    put(block, 4, &BLOCK_VERSION.to_le_bytes());
    put(block, 6, &header.shard.0.to_le_bytes());
    put(block, 8, &header.flags.to_le_bytes());
    put(block, 10, &header.entry_count.to_le_bytes());
    put(block, 12, &header.fragment_count.to_le_bytes());
    put(block, 16, &header.segment_uid.0.to_le_bytes());
    put(block, 24, &header.incarnation.0.to_le_bytes());
    put(block, 32, &header.block_seq.0.to_le_bytes());
    put(block, 40, &header.durable_through.0.to_le_bytes());
    put(block, 48, &header.length.to_le_bytes());
    put(block, 52, &header.table_pos.to_le_bytes());
    put(block, 56, &header.prev_header_crc.to_le_bytes());
    put(block, 60, &header.pos.to_le_bytes());
    put(block, 64, &header.utc_us.to_le_bytes());
    put(block, 72, &header.log_uid.to_le_bytes());
    put(block, 80, &[0; 12]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&block[..HEADER_CRC_AT]), &block[table..length - TRAILER_BYTES]);
    put(block, HEADER_CRC_AT, &crc.to_le_bytes());
    let trailer = &mut block[length - TRAILER_BYTES..length];
    put(trailer, 0, &TRAILER_MAGIC);
    put(trailer, 4, &header.length.to_le_bytes());
    put(trailer, 8, &(header.block_seq.0 as u32).to_le_bytes());
    put(trailer, 12, &crc.to_le_bytes());
    block[length..].fill(0);
    crc
}

/// Bytes of a table.
pub fn table_bytes(entry_count: u16, fragment_count: u32) -> usize {
    usize::from(entry_count) * ENTRY_BYTES + fragment_count as usize * FRAGMENT_BYTES
}

/// Decodes a header from the first bytes of a block, checking only what tells how long the block is: magic, version, lengths. The
/// checksum needs the table, so nothing here may be believed before `BlockView::parse`.
pub fn peek_header(page: &[u8]) -> Option<BlockHeader> {
    if page.len() < BLOCK_HEADER_BYTES || page[..4] != BLOCK_MAGIC || u16_at(page, 4) != BLOCK_VERSION {
        return None;
    }
    let header = BlockHeader {
        shard: ShardId(u16_at(page, 6)),
        flags: u16_at(page, 8),
        entry_count: u16_at(page, 10),
        fragment_count: u32_at(page, 12),
        segment_uid: SegmentUid(u64_at(page, 16)),
        incarnation: Incarnation(u64_at(page, 24)),
        block_seq: BlockSeq(u64_at(page, 32)),
        durable_through: BlockSeq(u64_at(page, 40)),
        length: u32_at(page, 48),
        table_pos: u32_at(page, 52),
        prev_header_crc: u32_at(page, 56),
        pos: u32_at(page, 60),
        utc_us: u64_at(page, 64) as i64,
        log_uid: u64_at(page, 72),
    };
    let fragments = u64::from(header.fragment_count) * FRAGMENT_BYTES as u64;
    let end = u64::from(header.table_pos) + u64::from(header.entry_count) * ENTRY_BYTES as u64 + fragments + TRAILER_BYTES as u64;
    let sane = header.table_pos as usize >= BLOCK_HEADER_BYTES
        && (header.table_pos as usize).is_multiple_of(FRAGMENT_ALIGN)
        && end == u64::from(header.length)
        && u64::from(header.length) <= crate::bytes::BUFFER_BYTES_MAX as u64;
    sane.then_some(header)
}

/// Checks the checksum over header and table, and the trailer, given the header page and the bytes `table_pos..length`.
pub fn check_block(header: &BlockHeader, first: &[u8], table_and_trailer: &[u8]) -> Option<u32> {
    let crc = u32_at(first, HEADER_CRC_AT);
    let (table, trailer) = table_and_trailer.split_at(table_and_trailer.len() - TRAILER_BYTES);
    let good = crc32c::crc32c_append(crc32c::crc32c(&first[..HEADER_CRC_AT]), table) == crc
        && trailer[..4] == TRAILER_MAGIC
        && u32_at(trailer, 4) == header.length
        && u32_at(trailer, 8) == header.block_seq.0 as u32
        && u32_at(trailer, 12) == crc;
    good.then_some(crc)
}

/// A block whose header, table and trailer were found good. Its content is not checked.
#[derive(Clone, Copy)]
pub struct BlockView<'a> {
    bytes: &'a [u8],
    /// The decoded header.
    pub header: BlockHeader,
    /// The checksum over header and table.
    pub header_crc: u32,
}

impl<'a> BlockView<'a> {
    /// Reads and checks a block at the start of `bytes` (which may go on behind it).
    pub fn parse(bytes: &'a [u8]) -> Option<BlockView<'a>> {
        let header = peek_header(bytes)?;
        let (table, length) = (header.table_pos as usize, header.length as usize);
        let bytes = bytes.get(..length)?;
        let header_crc = check_block(&header, bytes, &bytes[table..])?;
        let view = BlockView { bytes, header, header_crc };
        view.table_is_sound().then_some(view)
    }

    /// Rows whose checksum matches were written by us; this keeps a bug or a forged block from becoming an out-of-range access.
    fn table_is_sound(&self) -> bool {
        let mut next_fragment = 0;
        for index in 0..self.header.entry_count {
            let Some(entry) = self.try_entry(index) else { return false };
            if entry.fragment_first != next_fragment || entry.fragment_count > self.header.fragment_count - next_fragment {
                return false;
            }
            let mut content = 0u64;
            for number in entry.fragment_first..entry.fragment_first + entry.fragment_count {
                let fragment = self.fragment(number);
                let end = u64::from(fragment.offset) + u64::from(fragment.length);
                let inside = fragment.offset as usize >= BLOCK_HEADER_BYTES && end <= u64::from(self.header.table_pos);
                if !inside
                    || fragment.entry != index
                    || !(fragment.offset as usize).is_multiple_of(FRAGMENT_ALIGN)
                    || !matches!(fragment.kind, 1 | 2)
                {
                    return false;
                }
                content += u64::from(fragment.length);
            }
            if content != u64::from(entry.content_len) {
                return false;
            }
            next_fragment += entry.fragment_count;
        }
        next_fragment == self.header.fragment_count
    }

    fn try_entry(&self, index: u16) -> Option<Entry> {
        let at = self.header.table_pos as usize + usize::from(index) * ENTRY_BYTES;
        let row = &self.bytes[at..at + ENTRY_BYTES];
        Some(Entry {
            group: GroupId(u32_at(row, 0)),
            kind: EntryKind::from_u8(row[4])?,
            index: LogIndex(u64_at(row, 8)),
            term: Term(u64_at(row, 16)),
            content_len: u32_at(row, 24),
            fragment_first: u32_at(row, 28),
            fragment_count: u32_at(row, 32),
        })
    }

    /// The entries, in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.header.entry_count).map(|index| self.try_entry(index).expect("checked by parse"))
    }

    /// The rows of an entry of `group`, as it holds in this block: those behind the last row of the same index and another term, which replaced what stood
    /// in front of it.
    pub fn rows_of(&self, group: GroupId, index: LogIndex, term: Term) -> impl Iterator<Item = Entry> + '_ {
        let rows = move || self.entries().filter(move |row| (row.group, row.index) == (group, index));
        let behind = rows().enumerate().filter(|(_, row)| row.term != term).last().map_or(0, |(at, _)| at + 1);
        rows().skip(behind)
    }

    /// Fragment `number` of the table.
    pub fn fragment(&self, number: u32) -> Fragment {
        let base = self.header.table_pos as usize + usize::from(self.header.entry_count) * ENTRY_BYTES;
        let at = base + number as usize * FRAGMENT_BYTES;
        let row = &self.bytes[at..at + FRAGMENT_BYTES];
        Fragment { offset: u32_at(row, 0), length: u32_at(row, 4), entry: u16_at(row, 8), kind: row[10], crc: u32_at(row, 12) }
    }

    /// The fragments of an entry, in content order.
    pub fn fragments_of(&self, entry: &Entry) -> impl Iterator<Item = Fragment> + '_ {
        let numbers: Range<u32> = entry.fragment_first..entry.fragment_first + entry.fragment_count;
        numbers.map(|number| self.fragment(number))
    }

    /// The bytes of a fragment.
    pub fn content(&self, fragment: &Fragment) -> &'a [u8] {
        &self.bytes[fragment.offset as usize..(fragment.offset + fragment.length) as usize]
    }
}

/// The first page of a segment's file. Everything in it stands in the manifest too, which is the authority: the page is there for tools
/// that see the file alone, and as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The shard.
    pub shard: ShardId,
    /// The segment.
    pub uid: SegmentUid,
    /// The start of the log that prepared it: its blocks have this or a higher one.
    pub incarnation: Incarnation,
    /// No block below this number is in it.
    pub first_block_seq: BlockSeq,
    /// Bytes of the file.
    pub segment_bytes: u64,
    /// Bytes that could be closed and not durable at once when it was prepared.
    pub window_bytes: u64,
    /// The log's random number.
    pub log_uid: u64,
}

impl SegmentHeader {
    /// Fills a page of `BLOCK_ALIGN` bytes.
    pub fn encode(&self, page: &mut [u8]) {
        assert_eq!(page.len(), BLOCK_ALIGN);
        page.fill(0);
        put(page, 0, &SEGMENT_MAGIC);
        put(page, 4, &SEGMENT_VERSION.to_le_bytes());
        put(page, 6, &self.shard.0.to_le_bytes());
        put(page, 8, &self.uid.0.to_le_bytes());
        put(page, 16, &self.incarnation.0.to_le_bytes());
        put(page, 24, &self.first_block_seq.0.to_le_bytes());
        put(page, 32, &self.segment_bytes.to_le_bytes());
        put(page, 40, &self.window_bytes.to_le_bytes());
        put(page, 48, &self.log_uid.to_le_bytes());
        let crc = crc32c::crc32c(&page[..SEGMENT_CRC_AT]);
        put(page, SEGMENT_CRC_AT, &crc.to_le_bytes());
    }

    /// Reads and checks a header page.
    pub fn decode(page: &[u8]) -> Option<SegmentHeader> {
        let good = page.len() >= SEGMENT_CRC_AT + 4
            && page[..4] == SEGMENT_MAGIC
            && u16_at(page, 4) == SEGMENT_VERSION
            && u32_at(page, SEGMENT_CRC_AT) == crc32c::crc32c(&page[..SEGMENT_CRC_AT]);
        good.then(|| SegmentHeader {
            shard: ShardId(u16_at(page, 6)),
            uid: SegmentUid(u64_at(page, 8)),
            incarnation: Incarnation(u64_at(page, 16)),
            first_block_seq: BlockSeq(u64_at(page, 24)),
            segment_bytes: u64_at(page, 32),
            window_bytes: u64_at(page, 40),
            log_uid: u64_at(page, 48),
        })
    }
}

/// A group's Raft hard state, as stored in an entry of kind `HardState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardState {
    /// The group.
    pub group: GroupId,
    /// Current term.
    pub term: Term,
    /// Node voted for in this term, 0 for none.
    pub vote: u64,
    /// Committed index.
    pub commit: LogIndex,
    /// Others vote in the group as well: what is gone of it may be brought by them.
    pub is_shared: bool,
}

impl HardState {
    /// The payload to append.
    pub fn encode(&self) -> [u8; HARD_STATE_BYTES] {
        let mut bytes = [0; HARD_STATE_BYTES];
        put(&mut bytes, 0, &self.group.0.to_le_bytes());
        put(&mut bytes, 4, &[u8::from(self.is_shared)]);
        put(&mut bytes, 8, &self.term.0.to_le_bytes());
        put(&mut bytes, 16, &self.vote.to_le_bytes());
        put(&mut bytes, 24, &self.commit.0.to_le_bytes());
        bytes
    }
    /// Reads a payload.
    pub fn decode(bytes: &[u8]) -> Option<HardState> {
        (bytes.len() == HARD_STATE_BYTES).then(|| HardState {
            group: GroupId(u32_at(bytes, 0)),
            term: Term(u64_at(bytes, 8)),
            vote: u64_at(bytes, 16),
            commit: LogIndex(u64_at(bytes, 24)),
            is_shared: bytes[4] == 1,
        })
    }
}
