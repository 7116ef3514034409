//! Keeping: the state file, in which queues stand so that a start need not read more of the log than its end.
//!
//! How it goes: a segment is full -> the file is put together, a piece in each turn -> what it tells is durable in the log as well -> the file is written -> then the
//! segment is sealed, with a checkpoint that names the file's generation. Pieces may tell of later moments than the checkpoint covers: notes behind it say the same
//! again.
//!
//! Invariants: no checkpoint covers a note that is not in the file it names, and no file tells what the log may not know after a crash (the acks of an atomic step
//! without its batches, else); one file is under way at a time; a turn looks at no more than [`LOOKED_AT_ONCE`] messages.
//!
//! Not here: the notes (subscription/queue/stored.rs), the file (log/state_file.rs).

use super::super::shard::Shard;
use super::care::{Awaited, PartKey};
use crate::effects::Effects;
use crate::ids::BlockSeq;
use crate::log::StateBuilder;
use crate::log::envelope;
use crate::mutants::Mutant;
use crate::partition::Partition;
use crate::subscription::queue::{Kind, SNAPSHOT_BYTES_MAX, SnapshotCursor, encode_queue_notes};
use std::ops::Bound;

/// Messages that one turn looks at, and notes that it makes: some 100 us.
const LOOKED_AT_ONCE: usize = 500;
/// Envelope schema of the word in a checkpoint that names the state file.
pub(in crate::shard) const STATE_MARK_SCHEMA: u16 = 23;
const STATE_MARK_VERSION: u16 = 1;

/// The state file of a shard, and the next one.
#[derive(Debug, Default)]
pub(in crate::shard) struct Keeping {
    /// Of the file that is durable; 0 without one.
    generation: u64,
    /// All notes up to this block are in it.
    covers: BlockSeq,
    next: Option<Next>,
}

#[derive(Debug)]
struct Next {
    generation: u64,
    covers: BlockSeq,
    /// Where it is; the part before it is done.
    part: Option<PartKey>,
    cursor: SnapshotCursor,
    /// `None` while it is being written.
    builder: Option<StateBuilder>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Put together, piece by piece.
    Telling,
    /// Whole: what it tells is on its way to the disk with the log.
    Told,
    /// Nothing is in it that the log does not have.
    Durable,
}

impl Keeping {
    pub(in crate::shard) fn new(generation: u64) -> Keeping {
        Keeping { generation, ..Keeping::default() }
    }

    /// What a checkpoint says of the file.
    pub(in crate::shard) fn mark(&self) -> Option<Vec<u8>> {
        let payload = self.generation.to_le_bytes();
        (self.generation > 0).then(|| [&envelope::seal(STATE_MARK_SCHEMA, STATE_MARK_VERSION, &payload)[..], &payload].concat())
    }

    /// The generation that a checkpoint names.
    pub(in crate::shard) fn read_mark(bytes: &[u8]) -> Result<u64, String> {
        let payload = envelope::open_image(bytes, STATE_MARK_SCHEMA, STATE_MARK_VERSION).map_err(|error| error.to_string())?;
        payload.try_into().map(u64::from_le_bytes).map_err(|_| "of another length".to_owned())
    }

    /// All that was told when the file was whole is durable.
    pub(in crate::shard) fn on_told_durable(&mut self) {
        self.next.as_mut().expect("it waits for this").stage = Stage::Durable;
    }

    /// The file is durable.
    pub(in crate::shard) fn on_written(&mut self) {
        let next = self.next.take().expect("it was written because we asked");
        (self.generation, self.covers) = (next.generation, next.covers);
    }
}

impl Shard {
    /// Whether the state file has every note up to `block`; if not, brings that nearer.
    pub(in crate::shard) fn is_queue_state_kept(&mut self, block: BlockSeq, effects: &mut Effects) -> bool {
        if self.queues.parts.is_empty() && self.queues.keeping.generation == 0 || self.queues.keeping.covers >= block {
            return true;
        }
        if self.queues.keeping.next.is_none() {
            let bytes = self.queues.parts.values().map(|here| here.part.snapshot_bytes()).sum();
            let generation = self.queues.keeping.generation + 1;
            self.queues.keeping.next = Some(Next {
                generation,
                // Notes that are in no block yet are in the state as well.
                covers: BlockSeq(self.log.open_block_seq().0 - 1),
                part: None,
                cursor: SnapshotCursor::default(),
                builder: Some(StateBuilder::new(generation, bytes)),
                stage: Stage::Telling,
            });
        }
        let next = self.queues.keeping.next.as_ref().expect("just made");
        if next.builder.is_none() {
            return false;
        }
        match next.stage {
            Stage::Telling => self.tell_queues(),
            Stage::Told => {}
            Stage::Durable if self.log.is_state_free() => {
                let builder = self.queues.keeping.next.as_mut().and_then(|next| next.builder.take()).expect("seen above");
                tracing::debug!(shard = self.id.0, bytes = builder.bytes(), "the state of queues is written");
                self.log.write_state(&mut self.slab, effects, builder);
            }
            Stage::Durable => {}
        }
        false
    }

    /// Tells the next piece.
    fn tell_queues(&mut self) {
        let next = self.queues.keeping.next.as_mut().expect("the caller's");
        let builder = next.builder.as_mut().expect("it is not being written");
        let mut left = LOOKED_AT_ONCE;
        while left > 0 {
            let from = next.part.map_or(Bound::Unbounded, Bound::Excluded);
            let Some((key, here)) = self.queues.parts.range((from, Bound::Unbounded)).next() else {
                next.stage = Stage::Told;
                return self.queues.wait_for_notes(Awaited::State);
            };
            let mut notes = Vec::new();
            let committed_end = self.partitions.get(here.slot).map_or(0, Partition::committed_end);
            let is_last = here.part.snapshot(&mut next.cursor, committed_end, &mut left, &mut notes);
            if self.log.mutants().has(Mutant::SkipStatePiece) {
                notes.retain(|note| note.kind != Kind::Message);
            }
            encode_queue_notes(key.1, key.0, notes, SNAPSHOT_BYTES_MAX, |payload| builder.push(&payload));
            if is_last {
                (next.part, next.cursor) = (Some(*key), SnapshotCursor::default());
            }
        }
    }
}
