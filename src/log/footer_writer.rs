//! Writing a footer: its pages in writes of 256 KiB at most, so that blocks pass between them, then its header page.
//!
//! Invariants: one write at a time; the header page is written last, so a footer with a good header is whole; the entries are sorted.
//!
//! Not here: what a footer's bytes mean (`footer.rs`), what happens once it is durable (`seal.rs`, `sorted.rs`).

use crate::bytes::Slab;
use crate::effects::Effects;
use crate::ids::FileId;
use crate::log::footer::{FOOTER_PAGE_BYTES, FOOTER_PAGE_ENTRIES, FooterEntry, FooterHeader, encode_page, page_count};
use crate::log::operation::{PendingWrite, Progress, Purpose, token};

/// Footer pages of one write.
const PAGES_PER_WRITE: u32 = 64;

/// A footer being written.
pub(crate) struct FooterWriter {
    purpose: Purpose,
    file: FileId,
    pub(crate) header: FooterHeader,
    /// What it lists.
    pub(crate) entries: Vec<FooterEntry>,
    next_page: u32,
    write: Option<PendingWrite>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FooterStep {
    /// A write is under way.
    Going,
    /// Memory is short: `go_on` later.
    WantBuffer,
    /// All of it is durable.
    Durable,
}

impl FooterWriter {
    pub(crate) fn new(purpose: Purpose, file: FileId, header: FooterHeader, entries: Vec<FooterEntry>) -> FooterWriter {
        assert_eq!(header.entry_count as usize, entries.len());
        FooterWriter { purpose, file, header, entries, next_page: 0, write: None }
    }

    /// Writes the next pages, when none are being written and there is memory.
    pub(crate) fn go_on(&mut self, slab: &mut Slab, effects: &mut Effects) -> FooterStep {
        if self.write.is_some() {
            return FooterStep::Going;
        }
        let pages = page_count(self.entries.len() as u32);
        let first = self.next_page;
        let end = pages.min(first + PAGES_PER_WRITE);
        let is_header = first == pages;
        let count = if is_header { 1 } else { end - first };
        let Some(mut buffer) = slab.take(count as usize * FOOTER_PAGE_BYTES) else { return FooterStep::WantBuffer };
        if is_header {
            self.header.encode(buffer.as_mut_slice());
        } else {
            for (page, index) in buffer.as_mut_slice().chunks_exact_mut(FOOTER_PAGE_BYTES).zip(first..end) {
                let from = (index * FOOTER_PAGE_ENTRIES) as usize;
                let to = self.entries.len().min(from + FOOTER_PAGE_ENTRIES as usize);
                let crc = encode_page(page, self.header.segment, index, &self.entries[from..to]);
                self.header.pages_crc = crc32c::crc32c_append(self.header.pages_crc, &crc.to_le_bytes());
            }
        }
        self.next_page = if is_header { pages + 1 } else { end };
        let pos = self.header.position + u64::from(first) * FOOTER_PAGE_BYTES as u64;
        let write = PendingWrite::new(self.file, pos, slab.freeze(buffer));
        write.push(token(self.purpose, self.header.segment.0), effects);
        self.write = Some(write);
        FooterStep::Going
    }

    /// Takes the end of a write.
    pub(crate) fn on_done(&mut self, slab: &mut Slab, result: Result<u32, i32>, effects: &mut Effects) -> Result<FooterStep, String> {
        let write = self.write.as_mut().expect("a footer's write is under way");
        match write.on_done(result) {
            Progress::Failed(reason) => Err(reason),
            Progress::Again => {
                write.push(token(self.purpose, self.header.segment.0), effects);
                Ok(FooterStep::Going)
            }
            Progress::Whole => {
                self.write = None;
                if self.next_page > page_count(self.entries.len() as u32) {
                    return Ok(FooterStep::Durable);
                }
                Ok(self.go_on(slab, effects))
            }
        }
    }
}
