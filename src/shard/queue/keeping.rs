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
use super::care::{Awaited, PartHere, PartKey, QueueCare};
use super::found::Found;
use crate::effects::Effects;
use crate::ids::{BlockSeq, GroupId, PartitionUid};
use crate::log::StateBuilder;
use crate::log::envelope;
use crate::mutants::Mutant;
use crate::partition::{Partition, Partitions};
use crate::subscription::queue::{Kind, Part, SNAPSHOT_BYTES_MAX, SnapshotCursor, encode_queue_notes};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

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
    /// What it tells, where another node may come to lead a group: the parts are put back to it then (`rebuild.rs`).
    told: Arc<Vec<Vec<u8>>>,
    next: Option<Next>,
    /// A file of this generation has what came with a snapshot; those before it do not.
    wanted: u64,
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
    /// The same again, where it is to be remembered.
    told: Option<Vec<Vec<u8>>>,
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
    /// `told`: what the file tells, where that is to be remembered.
    pub(in crate::shard) fn new(generation: u64, told: Vec<Vec<u8>>) -> Keeping {
        Keeping { generation, told: Arc::new(told), ..Keeping::default() }
    }

    /// What the durable file tells.
    pub(in crate::shard) fn told(&self) -> Arc<Vec<Vec<u8>>> {
        Arc::clone(&self.told)
    }

    /// Whether a file is being put together.
    pub(super) fn is_telling(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.stage == Stage::Telling)
    }

    /// Of what is told in the next file some may be lost with the leadership of a group: it is begun anew. Nobody waits for it any more.
    pub(super) fn give_up(&mut self) {
        let next = self.next.take().expect("one is under way");
        assert!(next.stage != Stage::Durable, "a file of which everything is committed holds");
    }

    /// What stands of queues came as a snapshot: no checkpoint may be written before a file is that was begun after this.
    pub(in crate::shard) fn expire(&mut self) {
        self.wanted = self.generation + 1 + u64::from(self.next.is_some());
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
        self.told = Arc::new(next.told.unwrap_or_default());
    }
}

/// What was told of a group's queues.
pub(in crate::shard) enum Told {
    /// There is none left.
    Nothing,
    /// The rest of this part.
    Whole(PartKey),
    /// Some of one.
    Piece,
}

impl QueueCare {
    /// Tells the next piece of what stands of the queues on such partitions, served or not: of the part behind `after`, from `cursor` on.
    pub(in crate::shard) fn tell_next(
        &self,
        is_named: impl Fn(PartitionUid) -> bool,
        after: Option<PartKey>,
        cursor: &mut SnapshotCursor,
        partitions: &Partitions,
        each: impl FnMut(Vec<u8>),
    ) -> Told {
        let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (key, part, committed_end) = loop {
            let Some(next) = next_part(&self.parts, &self.found, from, partitions) else { return Told::Nothing };
            if is_named(next.0.1) {
                break next;
            }
            from = Bound::Excluded(next.0);
        };
        let (mut notes, mut left) = (Vec::new(), LOOKED_AT_ONCE);
        let is_last = part.snapshot(cursor, committed_end, &mut left, &mut notes);
        encode_queue_notes(key.1, key.0, notes, SNAPSHOT_BYTES_MAX, each);
        if is_last { Told::Whole(key) } else { Told::Piece }
    }
}

/// The next part, served or not, and up to where its partition is committed: in the order of their keys, which stays when one comes to be served, or ceases to.
fn next_part<'a>(
    parts: &'a BTreeMap<PartKey, PartHere>,
    found: &'a Found,
    from: Bound<PartKey>,
    partitions: &Partitions,
) -> Option<(PartKey, &'a Part, u64)> {
    let served = parts.range((from, Bound::Unbounded)).next();
    let found = found.next_from(from).filter(|(key, _)| served.is_none_or(|(other, _)| *key < other));
    match (found, served) {
        (Some((key, part)), _) => Some((*key, part, u64::MAX)),
        (None, Some((key, here))) => Some((*key, &here.part, partitions.get(here.slot).map_or(0, Partition::committed_end))),
        (None, None) => None,
    }
}

impl Shard {
    /// Whether the state file has every note up to `block`; if not, brings that nearer.
    pub(in crate::shard) fn is_queue_state_kept(&mut self, block: BlockSeq, effects: &mut Effects) -> bool {
        let is_empty = self.queues.parts.is_empty() && self.queues.found.is_empty();
        let keeping = &self.queues.keeping;
        if is_empty && keeping.generation == 0 || keeping.covers >= block && keeping.generation >= keeping.wanted {
            return true;
        }
        if self.queues.keeping.next.is_none() {
            let served = self.queues.parts.values().map(|here| here.part.snapshot_bytes());
            let bytes = served.chain(self.queues.found.iter().map(|(_, part)| part.snapshot_bytes())).sum();
            let is_alone = self.pipelines.is_alone();
            let generation = self.queues.keeping.generation + 1;
            self.queues.keeping.next = Some(Next {
                generation,
                // Notes that are in no block yet are in the state as well, but for those of another node, which are taken in once they are committed.
                covers: if is_alone { BlockSeq(self.log.open_block_seq().0 - 1) } else { block },
                part: None,
                cursor: SnapshotCursor::default(),
                builder: Some(StateBuilder::new(generation, bytes)),
                told: (!is_alone).then(Vec::new),
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

    /// Groups that this node serves (as `Acks::bit_of`): of the others what is told is committed.
    fn served_groups(&self) -> u64 {
        let is_served = |group: &&GroupId| self.groups.leads(**group) && self.is_state_ready(**group);
        self.group_ids.iter().filter(is_served).fold(0, |groups, group| groups | self.acks.bit_of(*group))
    }

    /// Tells the next piece.
    fn tell_queues(&mut self) {
        let groups = self.served_groups();
        let next = self.queues.keeping.next.as_mut().expect("the caller's");
        let builder = next.builder.as_mut().expect("it is not being written");
        let mut left = LOOKED_AT_ONCE;
        while left > 0 {
            let from = next.part.map_or(Bound::Unbounded, Bound::Excluded);
            let Some((key, part, committed_end)) = next_part(&self.queues.parts, &self.queues.found, from, &self.partitions) else {
                next.stage = Stage::Told;
                return self.queues.wait_for_notes(groups, Awaited::State);
            };
            let mut notes = Vec::new();
            let is_last = part.snapshot(&mut next.cursor, committed_end, &mut left, &mut notes);
            if self.log.mutants().has(Mutant::SkipStatePiece) {
                notes.retain(|note| note.kind != Kind::Message);
            }
            encode_queue_notes(key.1, key.0, notes, SNAPSHOT_BYTES_MAX, |payload| {
                builder.push(&payload);
                next.told.iter_mut().for_each(|told| told.push(payload.clone()));
            });
            if is_last {
                (next.part, next.cursor) = (Some(key), SnapshotCursor::default());
            }
        }
    }
}
