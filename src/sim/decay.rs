//! What a disk does to what it has stored: bits flip, writes turn out lost or in another place, pages become unreadable.
//!
//! Invariant: only segments decay, and not what was written last: docs/FORMAT.md names what has no second copy or no witness yet.

use super::dice::Dice;
use super::disk::SimDisk;

/// A write that was done, and what it replaced.
#[derive(Clone)]
pub(super) struct Written {
    inode: usize,
    pos: usize,
    before: Vec<u8>,
    len: usize,
}

impl Written {
    pub(super) fn is_in(&self, inode: usize) -> bool {
        self.inode == inode
    }
}

/// Writes whose old contents are kept, and how many of the last are left alone: what was just written may be all that tells of its own
/// loss (docs/FORMAT.md names that window).
const JOURNAL_WRITES: usize = 400;
const JOURNAL_SPARES: usize = 24;

/// A fault of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decay {
    /// A bit is another.
    Flipped,
    /// A write that was acknowledged never happened.
    Lost,
    /// A write went to another place, where something older was.
    Misplaced,
    /// A page cannot be read until it is written.
    Unreadable,
}

impl SimDisk {
    pub(super) fn note_write(&mut self, inode: usize, pos: usize, len: usize) {
        if let Some(journal) = &mut self.journal {
            let before = self.inodes[inode].data[pos..pos + len].to_vec();
            journal.push_back(Written { inode, pos, before, len });
            if journal.len() > JOURNAL_WRITES {
                journal.pop_front();
            }
        }
    }

    /// Spoils a part of what was written a while ago, and is still there. Answers what happened and where.
    pub(super) fn decay(&mut self, dice: &mut Dice) -> Option<(Decay, String)> {
        let journal = self.journal.as_ref()?;
        let old = journal.len().checked_sub(JOURNAL_SPARES).filter(|old| *old > 0)?;
        let at = dice.below(old as u64) as usize;
        let written = journal[at].clone();
        let name = self.names.iter().find(|(_, inode)| **inode == written.inode).map(|(name, _)| name.clone())?;
        let overlaps =
            |later: &Written| later.inode == written.inode && later.pos < written.pos + written.len && written.pos < later.pos + later.len;
        // Segments only: manifest and checkpoint exist once, and a start refuses without them; the header page likewise. What was
        // overwritten since cannot be lost any more.
        if !name.starts_with("seg-") || written.pos == 0 || journal.iter().skip(at + 1).any(overlaps) {
            return None;
        }
        let data = &mut self.inodes[written.inode].data;
        let what = match dice.below(10) {
            0..=4 => {
                let byte = written.pos + dice.below(written.len as u64) as usize;
                data[byte] ^= 1 << dice.below(8);
                Decay::Flipped
            }
            5..=6 => {
                data[written.pos..written.pos + written.len].copy_from_slice(&written.before);
                Decay::Lost
            }
            7 => {
                let fits = |target: &&Written| {
                    let again = |later: &Written| {
                        later.inode == target.inode && later.pos < target.pos + target.len && target.pos < later.pos + later.len
                    };
                    target.inode == written.inode
                        && target.len >= written.len
                        && target.pos > 0
                        && !overlaps(target)
                        && !journal.iter().skip(old).any(again)
                };
                let targets: Vec<usize> = journal.iter().take(at + 1).filter(fits).map(|target| target.pos).collect();
                let target = *targets.get(dice.below(targets.len().max(1) as u64) as usize)?;
                let moved = data[written.pos..written.pos + written.len].to_vec();
                data[written.pos..written.pos + written.len].copy_from_slice(&written.before);
                data[target..target + written.len].copy_from_slice(&moved);
                Decay::Misplaced
            }
            _ => {
                let page = written.pos / 4096 + dice.below((written.len / 4096).max(1) as u64) as usize;
                self.inodes[written.inode].bad_pages.insert(page);
                Decay::Unreadable
            }
        };
        Some((what, format!("{name} at {} ({} bytes)", written.pos, written.len)))
    }
}
