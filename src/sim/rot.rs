//! What the disk of a node of a cluster loses of what it has stored: chosen by what stands there, so that it is known what has to be made good.
//!
//! Invariants: only segments that the log uses rot, and not their first pages; one that has a witness: blocks that no later one has told as durable are left
//! alone, and so are those behind which there are fewer than `WITNESSES` (docs/FORMAT.md, "remaining window"); of a segment that is sealed one place at a time,
//! and no block that a snapshot has brought before a checkpoint has it (docs/REPLICATION.md, 8, names what is not repaired).
//!
//! Not here: which node's disk rots, and when (`cluster/disks.rs`); rot of nodes without others (`decay.rs`).

use super::decay::Decay;
use super::dice::Dice;
use super::disk::SimDisk;
use crate::ids::{BlockSeq, SegmentUid};
use crate::log::EntryKind;
use crate::log::layout::{BLOCK_ALIGN, BLOCK_HEADER_BYTES, BlockView, SEGMENT_DATA_START, SegmentHeader, peek_header};

/// Blocks behind one that rots.
const WITNESSES: usize = 4;
/// Bytes at the beginning of a batch that are surely of its header.
const BATCH_HEAD_BYTES: u64 = 32;
/// Tries to find a byte that says something.
const TRIES: usize = 200;

/// What has rotted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotten {
    uid: SegmentUid,
    from: usize,
    end: usize,
    /// What it was a part of, where the segment was not sealed.
    block: Option<BlockSeq>,
}

/// What is to rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Something of a segment that is sealed or sorted.
    Sealed,
    /// Something of a block behind this one, in a segment that is not sealed.
    Behind(BlockSeq),
    /// The header of a batch in such a block.
    BatchBehind(BlockSeq),
}

/// A segment that the log uses, and whether nothing is written to it any more.
type Used = (SegmentUid, bool);

/// A block in a segment that is not sealed.
struct Stored {
    inode: usize,
    uid: SegmentUid,
    seq: BlockSeq,
    durable: BlockSeq,
    pos: usize,
    len: usize,
}

impl SimDisk {
    /// Spoils something. Answers what happened and where.
    pub(super) fn rot(&mut self, aim: Aim, used: &[Used], dice: &mut Dice) -> Option<(Decay, String)> {
        match aim {
            Aim::Sealed => self.rot_sealed(used, dice),
            Aim::Behind(block) => {
                let block = self.witnessed(block, used, dice)?;
                self.rot_block(&block, dice)
            }
            Aim::BatchBehind(block) => {
                let block = self.witnessed(block, used, dice)?;
                self.rot_batch_head(&block, dice)
            }
        }
    }

    /// Whether something that has rotted is still in use, as far as it is known what is.
    pub(super) fn forget_freed(&mut self, used: &[Used]) -> bool {
        self.rotten.retain(|rotten| used.iter().any(|(uid, _)| *uid == rotten.uid));
        !self.rotten.is_empty()
    }

    pub(super) fn has_rotten(&self) -> bool {
        !self.rotten.is_empty()
    }

    /// Whether any of these bytes of a segment have rotted.
    pub(super) fn is_rotten(&self, uid: SegmentUid, from: usize, end: usize) -> bool {
        self.rotten.iter().any(|rotten| rotten.uid == uid && rotten.from < end && from < rotten.end)
    }

    /// The files of segments in use, with these.
    fn files_of(&self, used: &[Used], is_sealed: bool) -> Vec<(usize, SegmentUid)> {
        let files = self.names.iter().filter(|(name, _)| name.starts_with("seg-"));
        let uid = |(_, inode): (_, &usize)| {
            let page = self.inodes[*inode].bytes().get(..BLOCK_ALIGN)?;
            let uid = SegmentHeader::decode(page)?.uid;
            used.contains(&(uid, is_sealed)).then_some((*inode, uid))
        };
        files.filter_map(uid).collect()
    }

    fn rot_sealed(&mut self, used: &[Used], dice: &mut Dice) -> Option<(Decay, String)> {
        let mut files = self.files_of(used, true);
        files.retain(|(_, uid)| !self.rotten.iter().any(|rotten| rotten.uid == *uid));
        let (inode, uid) = *files.get(dice.below(files.len().max(1) as u64) as usize)?;
        let len = self.inodes[inode].len();
        let place = |dice: &mut Dice| dice.within(u64::from(SEGMENT_DATA_START)..len as u64) as usize;
        let pos = (0..TRIES).map(|_| place(dice)).find(|pos| self.inodes[inode].data[*pos] != 0)?;
        self.rotten.push(Rotten { uid, from: pos, end: pos + 1, block: None });
        Some(self.flip(inode, uid, pos, dice))
    }

    /// A block behind `behind`, and behind all that have rotted, which later ones tell as durable.
    fn witnessed(&self, behind: BlockSeq, used: &[Used], dice: &mut Dice) -> Option<Stored> {
        let mut blocks: Vec<Stored> = self.files_of(used, false).into_iter().flat_map(|(inode, uid)| self.blocks_in(inode, uid)).collect();
        blocks.sort_by_key(|block| block.seq);
        let told = blocks.get(blocks.len().checked_sub(WITNESSES)?)?.durable;
        let behind = self.rotten.iter().filter_map(|rotten| rotten.block).max().unwrap_or_default().max(behind);
        blocks.retain(|block| block.seq > behind && block.seq <= told && !self.has_imports(block));
        (!blocks.is_empty()).then(|| blocks.swap_remove(dice.below(blocks.len() as u64) as usize))
    }

    fn blocks_in(&self, inode: usize, uid: SegmentUid) -> Vec<Stored> {
        let bytes = self.inodes[inode].bytes();
        let (mut pos, mut found) = (SEGMENT_DATA_START as usize, Vec::new());
        while pos + BLOCK_ALIGN <= bytes.len() {
            let header = peek_header(&bytes[pos..]).filter(|header| header.segment_uid == uid && header.pos as usize == pos);
            let len = header.as_ref().map_or(BLOCK_ALIGN, |header| header.padded_len() as usize);
            if let Some(header) = header {
                found.push(Stored { inode, uid, seq: header.block_seq, durable: header.durable_through, pos, len: header.length as usize });
            }
            pos += len;
        }
        found
    }

    fn view_of(&self, block: &Stored) -> Option<BlockView<'_>> {
        BlockView::parse(&self.inodes[block.inode].bytes()[block.pos..])
    }

    fn has_imports(&self, block: &Stored) -> bool {
        self.view_of(block).is_none_or(|view| view.entries().any(|row| row.kind == EntryKind::Import))
    }

    fn rot_block(&mut self, block: &Stored, dice: &mut Dice) -> Option<(Decay, String)> {
        let table = self.view_of(block)?.header.table_pos as usize;
        let Stored { inode, uid, pos, len, .. } = *block;
        let within = |from: usize, end: usize, dice: &mut Dice| pos + dice.within(from as u64..end as u64) as usize;
        let at = match dice.below(10) {
            0..=1 => within(0, BLOCK_HEADER_BYTES, dice),
            2..=3 => within(table, len, dice),
            4..=7 if table > BLOCK_HEADER_BYTES => within(BLOCK_HEADER_BYTES, table, dice),
            4..=8 => {
                // It was told as written, and never was, in a file of zeros.
                self.inodes[inode].data[pos..pos + len].fill(0);
                self.note_rotten(block, pos, pos + len);
                return Some((Decay::Lost, format!("segment {uid} at {pos} ({len} bytes)")));
            }
            _ => {
                let page = within(0, len, dice) / BLOCK_ALIGN;
                self.inodes[inode].bad_pages.insert(page);
                self.note_rotten(block, page * BLOCK_ALIGN, (page + 1) * BLOCK_ALIGN);
                return Some((Decay::Unreadable, format!("segment {uid} at {}", page * BLOCK_ALIGN)));
            }
        };
        self.note_rotten(block, at, at + 1);
        Some(self.flip(inode, uid, at, dice))
    }

    fn rot_batch_head(&mut self, block: &Stored, dice: &mut Dice) -> Option<(Decay, String)> {
        let view = self.view_of(block)?;
        let rows: Vec<_> = view.entries().filter(|row| row.kind == EntryKind::Data).collect();
        let row = rows.get(dice.below(rows.len().max(1) as u64) as usize)?;
        let first = view.fragments_of(row).next()?.offset;
        let at = block.pos + first as usize + dice.below(BATCH_HEAD_BYTES) as usize;
        self.note_rotten(block, at, at + 1);
        Some(self.flip(block.inode, block.uid, at, dice))
    }

    fn note_rotten(&mut self, block: &Stored, from: usize, end: usize) {
        self.rotten.push(Rotten { uid: block.uid, from, end, block: Some(block.seq) });
    }

    fn flip(&mut self, inode: usize, uid: SegmentUid, at: usize, dice: &mut Dice) -> (Decay, String) {
        self.inodes[inode].data[at] ^= 1 << dice.below(8);
        (Decay::Flipped, format!("segment {uid} at {at}"))
    }
}
