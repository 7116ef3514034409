//! Edits of a directory, chosen by the fuzzer's bytes: those that happen to disks, and those that no disk does, with checksums that fit, so that
//! what lies behind the checksums is reached.

use crate::blocks::{blocks_of, change, has_footer, seal_batch, seal_block, seal_chain, seal_footer, u32_at};
use crate::disk::MemDisk;
use crate::input::Input;
use tramline::log::footer::{FOOTER_ENTRY_BYTES, FOOTER_PAGE_BYTES, FOOTER_PAGE_ENTRIES};
use tramline::log::layout::{BLOCK_ALIGN, BLOCK_HEADER_BYTES, ENTRY_BYTES, FRAGMENT_BYTES, peek_header};

/// Fields of a block header, of a row of its table, of a fragment, of a stored batch and of a footer entry: byte and width.
const BLOCK_FIELDS: [(usize, usize); 16] = [
    (6, 2),
    (8, 2),
    (10, 2),
    (12, 4),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 4),
    (52, 4),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (4, 2),
    (80, 8),
];
const ENTRY_FIELDS: [(usize, usize); 8] = [(0, 4), (4, 1), (5, 1), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4)];
const FRAGMENT_FIELDS: [(usize, usize); 5] = [(0, 4), (4, 4), (8, 2), (10, 1), (12, 4)];
const FOOTER_ENTRY_FIELDS: [(usize, usize); 7] = [(0, 8), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4), (36, 4)];
const FOOTER_HEADER_FIELDS: [(usize, usize); 12] =
    [(6, 2), (8, 8), (16, 8), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 8), (64, 8), (72, 8), (4, 2)];
const BATCH_HEADER_BYTES: usize = tramline_wire::batch::BATCH_HEADER_BYTES;

fn segments(disk: &MemDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect()
}

fn pick(names: &[String], input: &mut Input<'_>) -> Option<String> {
    names.get(input.below(names.len())).cloned()
}

/// Something that happens to disks. Checksums stay as they are.
pub fn decay(disk: &mut MemDisk, input: &mut Input<'_>) {
    let names = disk.names();
    let Some(name) = pick(&names, input) else { return };
    let Some(file) = disk.file(&name) else { return };
    let len = file.len();
    // Where something is: most of a file is not.
    let pages: Vec<usize> = (0..len / BLOCK_ALIGN).filter(|page| file[page * BLOCK_ALIGN..][..64].iter().any(|byte| *byte != 0)).collect();
    let page = pages.get(input.below(pages.len())).copied().unwrap_or(0);
    match input.byte() % 9 {
        0 | 1 => {
            let (at, bit) = (page * BLOCK_ALIGN + input.below(BLOCK_ALIGN), input.byte() % 8);
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        2 => {
            let at = page * BLOCK_ALIGN + input.below(BLOCK_ALIGN / 8) * 8;
            change(file, at, 8, |old| input.number(old));
        }
        3 => {
            let (from, sectors, byte) = (page * BLOCK_ALIGN + input.below(8) * 512, 1 + input.below(64), input.byte());
            let end = len.min(from + sectors * 512);
            file[from.min(end)..end].fill(byte);
        }
        4 => {
            let Some(target) = pick(&names, input) else { return };
            let part = file[page * BLOCK_ALIGN..len.min((page + 1 + input.below(16)) * BLOCK_ALIGN)].to_vec();
            let Some(target) = disk.file(&target) else { return };
            let at = input.below(target.len() / BLOCK_ALIGN) * BLOCK_ALIGN;
            let count = part.len().min(target.len() - at);
            target[at..at + count].copy_from_slice(&part[..count]);
        }
        5 => file.truncate(input.below(len + 1) & !511),
        6 => disk.take_away(&name),
        7 => {
            let raw = input.bytes(600);
            let at = (page * BLOCK_ALIGN + input.below(BLOCK_ALIGN)).min(len);
            let count = raw.len().min(len - at);
            file[at..at + count].copy_from_slice(&raw[..count]);
        }
        _ => disk.spoil_page(&name, page),
    }
}

/// A change inside a block with checksums made to fit.
pub fn forge_block(disk: &mut MemDisk, input: &mut Input<'_>) {
    let Some(name) = pick(&segments(disk), input) else { return };
    let Some(file) = disk.file(&name) else { return };
    let blocks = blocks_of(file);
    let Some(&pos) = blocks.get(input.below(blocks.len())) else { return };
    let header = peek_header(&file[pos..]).expect("listed");
    let table = pos + header.table_pos as usize;
    let fragments = table + usize::from(header.entry_count) * ENTRY_BYTES;
    match input.byte() % 6 {
        0 => {
            let (at, width) = BLOCK_FIELDS[input.below(BLOCK_FIELDS.len())];
            change(file, pos + at, width, |old| input.number(old));
        }
        1 => {
            let row = table + input.below(usize::from(header.entry_count)) * ENTRY_BYTES;
            let (at, width) = ENTRY_FIELDS[input.below(ENTRY_FIELDS.len())];
            change(file, row + at, width, |old| input.number(old));
        }
        2 => {
            let row = fragments + input.below(header.fragment_count as usize) * FRAGMENT_BYTES;
            let (at, width) = FRAGMENT_FIELDS[input.below(FRAGMENT_FIELDS.len())];
            change(file, row + at, width, |old| input.number(old));
        }
        3 | 4 => forge_content(file, pos, fragments, header.fragment_count as usize, input),
        _ => {
            // A block in another place, as if it belonged there.
            let length = (header.padded_len() as usize).min(file.len() - pos);
            let copy = file[pos..pos + length].to_vec();
            let Some(target) = pick(&segments(disk), input).and_then(|name| disk.file(&name)) else { return };
            let at = (1 + input.below(target.len() / BLOCK_ALIGN)) * BLOCK_ALIGN;
            let Some(room) = target.get_mut(at..at + length) else { return };
            room.copy_from_slice(&copy);
            let segment: [u8; 8] = target[8..16].try_into().expect("eight bytes");
            target[at + 16..at + 24].copy_from_slice(&segment);
            change(target, at + 60, 4, |_| at as u64);
            change(target, at + 32, 8, |old| input.number(old));
            let before = blocks_of(target).into_iter().rfind(|pos| *pos < at);
            if let (Some(before), true) = (before, input.flag()) {
                let crc = u32_at(target, before + 92);
                change(target, at + 56, 4, |_| u64::from(crc));
            }
            return seal_block(target, at);
        }
    }
    match input.flag() {
        true => seal_chain(file, pos),
        false => seal_block(file, pos),
    }
}

/// A change inside a fragment's content; batch or payload checks again afterwards.
fn forge_content(file: &mut [u8], pos: usize, fragments: usize, count: usize, input: &mut Input<'_>) {
    let row = fragments + input.below(count) * FRAGMENT_BYTES;
    if count == 0 || row + FRAGMENT_BYTES > file.len() {
        return;
    }
    let (from, len) = (pos + u32_at(file, row) as usize, u32_at(file, row + 4) as usize);
    let Some(content) = file.get_mut(from..from.saturating_add(len)) else { return };
    let is_batch = content.starts_with(b"TRB1");
    let head = if is_batch { BATCH_HEADER_BYTES } else { 64 };
    match input.byte() % 3 {
        0 | 1 => {
            let width = [1, 2, 4, 8][input.below(4)];
            let at = input.below(head.min(len) / width) * width;
            change(content, at, width, |old| input.number(old));
        }
        _ => {
            let raw = input.bytes(200);
            let at = input.below(len + 1);
            let part = raw.len().min(len - at);
            content[at..at + part].copy_from_slice(&raw[..part]);
        }
    }
    if is_batch {
        return seal_batch(content);
    }
    // A control payload is in an envelope of its own.
    if content.starts_with(b"TLEV") && len >= 32 && input.flag() {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&content[..28]), &content[32..]);
        content[28..32].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(content);
    file[row + 12..row + 16].copy_from_slice(&crc.to_le_bytes());
}

/// A change inside a footer, with its checksums made to fit or not.
pub fn forge_footer(disk: &mut MemDisk, input: &mut Input<'_>) {
    let with_footer: Vec<String> = segments(disk).into_iter().filter(|name| disk.look(name).is_some_and(|file| has_footer(file))).collect();
    let Some(file) = pick(&with_footer, input).and_then(|name| disk.file(&name)) else { return };
    let header_at = file.len() - FOOTER_PAGE_BYTES;
    let entries = u32_at(file, header_at + 32);
    let pages = entries.div_ceil(FOOTER_PAGE_ENTRIES) as usize;
    let first = header_at.saturating_sub(pages * FOOTER_PAGE_BYTES);
    match input.byte() % 5 {
        0 => {
            let (at, width) = FOOTER_HEADER_FIELDS[input.below(FOOTER_HEADER_FIELDS.len())];
            change(file, header_at + at, width, |old| input.number(old));
        }
        1 | 2 => {
            let index = input.below(entries as usize) as u32;
            let page = first + (index / FOOTER_PAGE_ENTRIES) as usize * FOOTER_PAGE_BYTES;
            let row = page + (index % FOOTER_PAGE_ENTRIES) as usize * FOOTER_ENTRY_BYTES;
            let (at, width) = FOOTER_ENTRY_FIELDS[input.below(FOOTER_ENTRY_FIELDS.len())];
            change(file, row + at, width, |old| input.number(old));
        }
        3 => {
            // Number of the page, and how many entries it has.
            let page = first + input.below(pages) * FOOTER_PAGE_BYTES;
            change(file, page + 4080 + 4 * input.below(2), 4, |old| input.number(old));
        }
        _ => {
            let raw = input.bytes(300);
            let at = first + input.below(file.len() - first);
            let count = raw.len().min(file.len() - at);
            file[at..at + count].copy_from_slice(&raw[..count]);
        }
    }
    if input.byte() % 4 != 0 {
        seal_footer(file);
    }
}

/// A change of a segment's first page, with its checksum.
pub fn forge_segment_header(disk: &mut MemDisk, input: &mut Input<'_>) {
    let Some(file) = pick(&segments(disk), input).and_then(|name| disk.file(&name)) else { return };
    let at = 6 + input.below(BLOCK_HEADER_BYTES - 16);
    change(file, at, 8, |old| input.number(old));
    if let Some(page) = file.get_mut(..BLOCK_ALIGN) {
        let crc = crc32c::crc32c(&page[..92]);
        page[92..96].copy_from_slice(&crc.to_le_bytes());
    }
}
