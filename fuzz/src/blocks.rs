//! Where things are in a segment file, and checksums made anew over what was changed.

use tramline::log::footer::{FOOTER_PAGE_BYTES, FOOTER_PAGE_ENTRIES};
use tramline::log::layout::{BLOCK_ALIGN, BLOCK_HEADER_BYTES, TRAILER_BYTES, peek_header};
use tramline_wire::batch::{self, BATCH_HEADER_BYTES};

/// Byte of the header checksum in a block's header.
const BLOCK_CRC_AT: usize = 92;
/// Byte of the checksum in a footer's header page, and of that over the crcs of its pages.
const FOOTER_CRC_AT: usize = 84;
const FOOTER_PAGES_CRC_AT: usize = 80;

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads a little-endian number of `width` bytes, changes it, and puts it back. Nothing where it does not fit.
pub fn change(bytes: &mut [u8], at: usize, width: usize, new: impl FnOnce(u64) -> u64) {
    let Some(part) = at.checked_add(width).and_then(|end| bytes.get_mut(at..end)) else { return };
    let old = part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    part.copy_from_slice(&new(old).to_le_bytes()[..width]);
}

/// Positions at which blocks of any life of the file stand.
pub fn blocks_of(file: &[u8]) -> Vec<usize> {
    (BLOCK_ALIGN..file.len()).step_by(BLOCK_ALIGN).filter(|pos| peek_header(&file[*pos..]).is_some()).collect()
}

/// Makes header checksum and trailer fit, where the block's lengths still make sense.
pub fn seal_block(file: &mut [u8], pos: usize) {
    let Some(header) = file.get(pos..).and_then(peek_header) else { return };
    let (table, length) = (header.table_pos as usize, header.length as usize);
    let Some(block) = file.get_mut(pos..pos + length) else { return };
    if length < BLOCK_HEADER_BYTES + TRAILER_BYTES {
        return;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&block[..BLOCK_CRC_AT]), &block[table..length - TRAILER_BYTES]);
    block[BLOCK_CRC_AT..BLOCK_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    let trailer = &mut block[length - TRAILER_BYTES..];
    trailer[..4].copy_from_slice(b"TLE1");
    trailer[4..8].copy_from_slice(&header.length.to_le_bytes());
    trailer[8..12].copy_from_slice(&(header.block_seq.0 as u32).to_le_bytes());
    trailer[12..].copy_from_slice(&crc.to_le_bytes());
}

/// Lets the chain of `prev_header_crc` fit from this block on, as far as blocks follow one another in this file.
pub fn seal_chain(file: &mut [u8], mut pos: usize) {
    seal_block(file, pos);
    while let Some(header) = peek_header(&file[pos..]) {
        let crc = u32_at(file, pos + BLOCK_CRC_AT);
        let next = pos + header.padded_len() as usize;
        let follows = |h: tramline::log::layout::BlockHeader| h.block_seq.0 == header.block_seq.0.wrapping_add(1);
        if next <= pos || next >= file.len() || !peek_header(&file[next..]).is_some_and(follows) {
            return;
        }
        file[next + 56..next + 60].copy_from_slice(&crc.to_le_bytes());
        seal_block(file, next);
        pos = next;
    }
}

/// Makes both checksums of a batch fit.
pub fn seal_batch(bytes: &mut [u8]) {
    if bytes.len() < BATCH_HEADER_BYTES {
        return;
    }
    let body = crc32c::crc32c_append(crc32c::crc32c(&bytes[..batch::AT_BODY_CRC]), &bytes[BATCH_HEADER_BYTES..]);
    bytes[batch::AT_BODY_CRC..batch::AT_BODY_CRC + 4].copy_from_slice(&body.to_le_bytes());
    let head = crc32c::crc32c(&bytes[..batch::AT_HEADER_CRC]);
    bytes[batch::AT_HEADER_CRC..batch::AT_HEADER_CRC + 4].copy_from_slice(&head.to_le_bytes());
}

/// Makes the checksums of a footer's pages and of its header page fit, given how many entries its header names.
pub fn seal_footer(file: &mut [u8]) {
    let Some(header_at) = file.len().checked_sub(FOOTER_PAGE_BYTES) else { return };
    let (segment, entries) = (u64_at(file, header_at + 8), u32_at(file, header_at + 32));
    let pages = entries.div_ceil(FOOTER_PAGE_ENTRIES) as usize;
    if let Some(first) = (pages * FOOTER_PAGE_BYTES < header_at).then(|| header_at - pages * FOOTER_PAGE_BYTES) {
        let mut all = 0;
        for page in file[first..header_at].chunks_exact_mut(FOOTER_PAGE_BYTES) {
            let crc_at = FOOTER_PAGE_BYTES - 4;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &page[..crc_at]);
            page[crc_at..].copy_from_slice(&crc.to_le_bytes());
            all = crc32c::crc32c_append(all, &crc.to_le_bytes());
        }
        file[header_at + FOOTER_PAGES_CRC_AT..header_at + FOOTER_PAGES_CRC_AT + 4].copy_from_slice(&all.to_le_bytes());
    }
    let crc = crc32c::crc32c(&file[header_at..header_at + FOOTER_CRC_AT]);
    file[header_at + FOOTER_CRC_AT..header_at + FOOTER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a footer stands at the file's end.
pub fn has_footer(file: &[u8]) -> bool {
    file.len() > FOOTER_PAGE_BYTES && file[file.len() - FOOTER_PAGE_BYTES..].starts_with(b"TLF1")
}
