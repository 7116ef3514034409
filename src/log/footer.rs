//! The footer index of a sealed segment: where each batch of each partition is.
//!
//! ```text
//! end of a segment's file, F = segment_bytes
//!   F-4096-4096*pages   entry pages: 102 entries of 40 bytes, then 16 bytes {page index u32, entries in it u32, 0 u32, crc u32}
//!   F-4096              header page, so that it is found without knowing anything else
//!
//! entry                                       header page
//!   0 partition_uid u64    28 len u32           0 magic "TLF1"       32 entry_count u32     56 last_block u64
//!   8 base_offset u64      32 last_offset_delta 4 version u16        36 page_count u32      64 newest_ts i64
//!  16 newest_ts i64           u32               6 shard u16          40 position u64        72 data_end u64
//!  24 pos u32              36 group u32         8 segment_uid u64       (first entry page)  80 pages_crc u32 (of the pages' crcs)
//!                                              16 incarnation u64    48 first_block u64     84 crc u32 (0..84), zeros behind
//! sorted by (partition_uid, base_offset)       24 log_uid u64
//! ```
//! A page's crc also covers the segment's uid, so that a page of a footer which an earlier life of the file left behind is never taken for
//! this one's. Whether a segment has a footer says the manifest alone (a footer is written before the manifest's edit).
//! A reader may verify any slice by itself: it reads the pages around it and checks each (`read_plan`, `decode_slice`).
//!
//! Not here: writing it (`seal.rs`), what the entries are for (the partition's index).

use crate::ids::{BlockSeq, GroupId, Incarnation, Offset, PartitionUid, SegmentUid, ShardId};
use crate::log::layout::{BLOCK_ALIGN, put, u16_at, u32_at, u64_at};
use crate::log::plausible::NUMBER_MAX;
use crate::log::types::{Damage, DamageKind};

/// Bytes of a footer entry on disk.
pub const FOOTER_ENTRY_BYTES: usize = 40;
/// Bytes of a footer page.
pub const FOOTER_PAGE_BYTES: usize = BLOCK_ALIGN;
/// Entries in a full footer page.
pub const FOOTER_PAGE_ENTRIES: u32 = 102;
/// Version of the footer.
pub const FOOTER_VERSION: u16 = 1;

const PAGE_TAIL_AT: usize = FOOTER_PAGE_ENTRIES as usize * FOOTER_ENTRY_BYTES;
const PAGE_CRC_AT: usize = FOOTER_PAGE_BYTES - 4;
const HEADER_CRC_AT: usize = 84;
const FOOTER_MAGIC: [u8; 4] = *b"TLF1";

const _: () = assert!(PAGE_TAIL_AT + 16 == FOOTER_PAGE_BYTES, "a page is full");
const _: () = assert!(PAGE_CRC_AT == PAGE_TAIL_AT + 12);

/// One batch in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterEntry {
    /// The partition.
    pub partition_uid: PartitionUid,
    /// First offset of the batch.
    pub base_offset: Offset,
    /// Newest timestamp in it, UTC microseconds.
    pub newest_ts: i64,
    /// Where the batch begins in the segment's file.
    pub pos: u32,
    /// Bytes of the batch.
    pub len: u32,
    /// Last offset minus first.
    pub last_offset_delta: u32,
    /// The partition's group.
    pub group: GroupId,
}

impl FooterEntry {
    /// What the footer is sorted by.
    pub fn sort_key(&self) -> (PartitionUid, Offset) {
        (self.partition_uid, self.base_offset)
    }

    fn is_plausible(&self, data_end: u64) -> bool {
        let (from, end) = (u64::from(self.pos), u64::from(self.pos) + u64::from(self.len));
        self.len > 0 && from >= BLOCK_ALIGN as u64 && end <= data_end && self.base_offset.0 < NUMBER_MAX
    }

    fn put(&self, row: &mut [u8]) {
        put(row, 0, &self.partition_uid.0.to_le_bytes());
        put(row, 8, &self.base_offset.0.to_le_bytes());
        put(row, 16, &self.newest_ts.to_le_bytes());
        put(row, 24, &self.pos.to_le_bytes());
        put(row, 28, &self.len.to_le_bytes());
        put(row, 32, &self.last_offset_delta.to_le_bytes());
        put(row, 36, &self.group.0.to_le_bytes());
    }

    fn get(row: &[u8]) -> FooterEntry {
        FooterEntry {
            partition_uid: PartitionUid(u64_at(row, 0)),
            base_offset: Offset(u64_at(row, 8)),
            newest_ts: u64_at(row, 16) as i64,
            pos: u32_at(row, 24),
            len: u32_at(row, 28),
            last_offset_delta: u32_at(row, 32),
            group: GroupId(u32_at(row, 36)),
        }
    }
}

/// Pages that hold `entry_count` entries.
pub fn page_count(entry_count: u32) -> u32 {
    entry_count.div_ceil(FOOTER_PAGE_ENTRIES)
}

/// Bytes that a footer of `entry_count` entries needs at the end of its segment, header page included.
pub fn footer_bytes(entry_count: u32) -> u64 {
    (u64::from(page_count(entry_count)) + 1) * FOOTER_PAGE_BYTES as u64
}

/// Fills one entry page; `index` counts from 0, `entries` are at most `FOOTER_PAGE_ENTRIES`. Returns its crc.
pub fn encode_page(page: &mut [u8], segment: SegmentUid, index: u32, entries: &[FooterEntry]) -> u32 {
    assert!(page.len() == FOOTER_PAGE_BYTES && entries.len() <= FOOTER_PAGE_ENTRIES as usize);
    page.fill(0);
    for (row, entry) in page.chunks_exact_mut(FOOTER_ENTRY_BYTES).zip(entries) {
        entry.put(row);
    }
    put(page, PAGE_TAIL_AT, &index.to_le_bytes());
    put(page, PAGE_TAIL_AT + 4, &(entries.len() as u32).to_le_bytes());
    let crc = page_crc(page, segment);
    put(page, PAGE_CRC_AT, &crc.to_le_bytes());
    crc
}

fn page_crc(page: &[u8], segment: SegmentUid) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.0.to_le_bytes()), &page[..PAGE_CRC_AT])
}

/// The crc of a page whose content is good, else nothing.
pub fn check_page(page: &[u8], segment: SegmentUid, index: u32, entries_wanted: u32) -> Option<u32> {
    let crc = u32_at(page, PAGE_CRC_AT);
    let good = u32_at(page, PAGE_TAIL_AT) == index && u32_at(page, PAGE_TAIL_AT + 4) == entries_wanted && page_crc(page, segment) == crc;
    good.then_some(crc)
}

/// The bytes of all batches that the first `entries` rows of a good page list.
pub(crate) fn batch_bytes_of(page: &[u8], entries: u32) -> u64 {
    page.chunks_exact(FOOTER_ENTRY_BYTES).take(entries as usize).map(|row| u64::from(FooterEntry::get(row).len)).sum()
}

/// The header page of a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterHeader {
    /// The shard.
    pub shard: ShardId,
    /// The segment.
    pub segment: SegmentUid,
    /// The start of the log that sealed it.
    pub incarnation: Incarnation,
    /// The log's random number.
    pub log_uid: u64,
    /// Entries.
    pub entry_count: u32,
    /// Where the entry pages begin in the file.
    pub position: u64,
    /// First block in the segment.
    pub first_block: BlockSeq,
    /// Last block in the segment.
    pub last_block: BlockSeq,
    /// Newest timestamp of all batches, UTC microseconds; `i64::MIN` without any.
    pub newest_ts: i64,
    /// Byte behind the last block.
    pub data_end: u64,
    /// crc32c over the crcs of the entry pages, in order.
    pub pages_crc: u32,
}

impl FooterHeader {
    /// Fills the header page.
    pub fn encode(&self, page: &mut [u8]) {
        assert_eq!(page.len(), FOOTER_PAGE_BYTES);
        page.fill(0);
        put(page, 0, &FOOTER_MAGIC);
        put(page, 4, &FOOTER_VERSION.to_le_bytes());
        put(page, 6, &self.shard.0.to_le_bytes());
        put(page, 8, &self.segment.0.to_le_bytes());
        put(page, 16, &self.incarnation.0.to_le_bytes());
        put(page, 24, &self.log_uid.to_le_bytes());
        put(page, 32, &self.entry_count.to_le_bytes());
        put(page, 36, &page_count(self.entry_count).to_le_bytes());
        put(page, 40, &self.position.to_le_bytes());
        put(page, 48, &self.first_block.0.to_le_bytes());
        put(page, 56, &self.last_block.0.to_le_bytes());
        put(page, 64, &self.newest_ts.to_le_bytes());
        put(page, 72, &self.data_end.to_le_bytes());
        put(page, 80, &self.pages_crc.to_le_bytes());
        let crc = crc32c::crc32c(&page[..HEADER_CRC_AT]);
        put(page, HEADER_CRC_AT, &crc.to_le_bytes());
    }

    /// Reads and checks a header page.
    pub fn decode(page: &[u8]) -> Option<FooterHeader> {
        let good = page.len() == FOOTER_PAGE_BYTES
            && page[..4] == FOOTER_MAGIC
            && u16_at(page, 4) == FOOTER_VERSION
            && u32_at(page, HEADER_CRC_AT) == crc32c::crc32c(&page[..HEADER_CRC_AT]);
        if !good {
            return None;
        }
        let entry_count = u32_at(page, 32);
        (u32_at(page, 36) == page_count(entry_count)).then(|| FooterHeader {
            shard: ShardId(u16_at(page, 6)),
            segment: SegmentUid(u64_at(page, 8)),
            incarnation: Incarnation(u64_at(page, 16)),
            log_uid: u64_at(page, 24),
            entry_count,
            position: u64_at(page, 40),
            first_block: BlockSeq(u64_at(page, 48)),
            last_block: BlockSeq(u64_at(page, 56)),
            newest_ts: u64_at(page, 64) as i64,
            data_end: u64_at(page, 72),
            pages_crc: u32_at(page, 80),
        })
    }
}

/// What to read for a slice of a footer: pass `pos` and `len` to `Log::begin_read`, then the bytes and this plan to `decode_slice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterPlan {
    /// The segment.
    pub segment: SegmentUid,
    /// Where to read.
    pub pos: u32,
    /// How much: whole pages.
    pub len: u32,
    first: u32,
    count: u32,
    total: u32,
}

/// The read for entries `first..first + count` of a footer with `total` entries in a segment of `segment_bytes`.
/// Panics when the slice is empty or not inside the footer: run lists are ours.
pub fn read_plan(segment: SegmentUid, segment_bytes: u64, total: u32, first: u32, count: u32) -> FooterPlan {
    assert!(count > 0 && first.checked_add(count).is_some_and(|end| end <= total), "slice {first}+{count} of {total}");
    let start = segment_bytes - footer_bytes(total);
    let (first_page, end_page) = (first / FOOTER_PAGE_ENTRIES, page_count(first + count));
    let pos = start + u64::from(first_page) * FOOTER_PAGE_BYTES as u64;
    FooterPlan { segment, pos: pos as u32, len: (end_page - first_page) * FOOTER_PAGE_BYTES as u32, first, count, total }
}

impl FooterPlan {
    /// How many entries were asked for.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// How many of `entries` (by place in the file) make one sensible read, and where it ends: the first one, and those behind it as long as the read
/// is not above `read_bytes` and no more than `gap_bytes` between two are of no interest.
pub fn one_read<'a>(entries: impl Iterator<Item = &'a FooterEntry>, read_bytes: u64, gap_bytes: u64) -> (usize, u64) {
    let (mut count, mut pos, mut end) = (0, 0, 0);
    for entry in entries {
        let (at, entry_end) = (u64::from(entry.pos), u64::from(entry.pos) + u64::from(entry.len));
        let joins = at >= end && at - end <= gap_bytes && entry_end - pos <= read_bytes;
        if count == 0 {
            pos = at;
        } else if !joins {
            break;
        }
        (count, end) = (count + 1, entry_end);
    }
    (count, end)
}

/// Checks the pages that were read for `plan` and appends exactly the asked entries to `out`. On damage nothing is appended.
pub fn decode_slice(plan: &FooterPlan, bytes: &[u8], out: &mut Vec<FooterEntry>) -> Result<(), Damage> {
    let kept = out.len();
    let damage = |page: u32| {
        let pos = u64::from(plan.pos) + u64::from(page) * FOOTER_PAGE_BYTES as u64;
        Damage { segment: plan.segment, pos, len: FOOTER_PAGE_BYTES as u64, kind: DamageKind::Footer }
    };
    if bytes.len() != plan.len as usize {
        return Err(damage(0));
    }
    let first_page = plan.first / FOOTER_PAGE_ENTRIES;
    for (number, page) in bytes.chunks_exact(FOOTER_PAGE_BYTES).enumerate() {
        let index = first_page + number as u32;
        let page_first = index * FOOTER_PAGE_ENTRIES;
        let held = (plan.total - page_first).min(FOOTER_PAGE_ENTRIES);
        if check_page(page, plan.segment, index, held).is_none() {
            out.truncate(kept);
            return Err(damage(number as u32));
        }
        let from = plan.first.max(page_first) - page_first;
        let to = (plan.first + plan.count).min(page_first + held) - page_first;
        let rows = &page[from as usize * FOOTER_ENTRY_BYTES..to as usize * FOOTER_ENTRY_BYTES];
        let listed = out.len();
        out.extend(rows.chunks_exact(FOOTER_ENTRY_BYTES).map(FooterEntry::get));
        // Whatever the checksum says: nobody may read past the data, or count beyond what a number holds, for an entry.
        let data_end = u64::from(plan.pos) - u64::from(first_page) * FOOTER_PAGE_BYTES as u64;
        if !out[listed..].iter().all(|entry| entry.is_plausible(data_end)) {
            out.truncate(kept);
            return Err(damage(number as u32));
        }
    }
    Ok(())
}
