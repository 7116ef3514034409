//! Sealing a segment, and writing checkpoints.
//!
//! Order: footer pages, footer header page, checkpoint (its run lists point into the footer), manifest (calls the segment sealed). A crash
//! between any two leaves a state that recovery understands: before the checkpoint the segment is scanned as before; after it the
//! checkpoint's scan start lies behind the segment, which therefore counts as sealed whatever the manifest says.
//!
//! Invariants: one seal or checkpoint at a time; footer writes are 256 KiB at most, so that blocks pass between them; the checkpoint
//! covers the sealed segment's last block (asserted), else a start would apply its entries and count its runs twice.
//!
//! Not here: collecting the entries (the partitions), the bytes of a footer (`footer.rs`).

use crate::bytes::Slab;
use crate::effects::{Effects, Now, Outcome};
use crate::ids::{FileId, SegmentUid};
use crate::log::checkpoint::{CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, CheckpointV5};
use crate::log::footer::{FooterEntry, FooterHeader};
use crate::log::footer_writer::{FooterStep, FooterWriter};
use crate::log::manifest::serialize;
use crate::log::operation::Purpose;
use crate::log::replace::{Replace, Replaced};
use crate::mutants::Mutants;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    Footer,
    /// The checkpoint may be begun (its scan start is taken then).
    WantCheckpoint,
    Checkpoint,
    Manifest {
        version: u64,
    },
}

/// What the sealer needs from the log next.
pub(crate) enum SealNeed {
    Nothing,
    /// Fill in the scan start and begin the checkpoint by `begin_checkpoint`.
    Checkpoint,
    /// The checkpoint is durable: mark the segment (if any) sealed, ask for a manifest edit, tell its version by `in_manifest`.
    Manifest,
}

/// The one seal or checkpoint under way.
pub(crate) struct Sealer {
    step: Step,
    footer: Option<FooterWriter>,
    /// An empty vector for the next footer's entries, with its capacity.
    spare: Vec<FooterEntry>,
    checkpoint: Option<CheckpointV5>,
    replace: Replace,
}

impl Sealer {
    pub(crate) fn new(mutants: Mutants) -> Sealer {
        Sealer {
            step: Step::Idle,
            footer: None,
            spare: Vec::new(),
            checkpoint: None,
            replace: Replace::new(CHECKPOINT_NAME, Purpose::Checkpoint, mutants),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.step == Step::Idle
    }
    pub(crate) fn create_errno(&self) -> i32 {
        self.replace.create_errno
    }
    /// The segment being sealed.
    pub(crate) fn segment(&self) -> Option<SegmentUid> {
        self.footer.as_ref().map(|footer| footer.header.segment)
    }
    /// Entries of the footer being written.
    pub(crate) fn footer_entries(&self) -> u32 {
        self.footer.as_ref().map_or(0, |footer| footer.header.entry_count)
    }

    /// Bytes of the batches that it lists.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.footer.iter().flat_map(|footer| &footer.entries).map(|entry| u64::from(entry.len)).sum()
    }

    pub(crate) fn begin_seal(&mut self, file: FileId, header: FooterHeader, entries: &mut Vec<FooterEntry>, checkpoint: CheckpointV5) {
        assert!(self.is_idle() && self.spare.is_empty());
        let entries = std::mem::replace(entries, std::mem::take(&mut self.spare));
        self.footer = Some(FooterWriter::new(Purpose::Footer, file, header, entries));
        self.checkpoint = Some(checkpoint);
        self.step = Step::Footer;
    }

    pub(crate) fn begin_checkpoint_only(&mut self, checkpoint: CheckpointV5) {
        assert!(self.is_idle());
        self.checkpoint = Some(checkpoint);
        self.step = Step::WantCheckpoint;
    }

    /// Goes on where memory or space was short.
    pub(crate) fn on_turn(&mut self, now: Now, slab: &mut Slab, effects: &mut Effects) {
        match self.step {
            Step::Footer => self.write_footer_part(slab, effects),
            Step::Checkpoint => self.replace.on_turn(now, slab, effects),
            _ => {}
        }
    }

    /// Writes the next pages, or waits for memory to do so.
    pub(crate) fn write_footer_part(&mut self, slab: &mut Slab, effects: &mut Effects) {
        self.footer.as_mut().expect("a footer is being written").go_on(slab, effects);
    }

    /// Takes the end of a footer write.
    pub(crate) fn on_footer_done(&mut self, slab: &mut Slab, result: Result<u32, i32>, effects: &mut Effects) -> Result<(), String> {
        let footer = self.footer.as_mut().expect("a footer is being written");
        if footer.on_done(slab, result, effects)? == FooterStep::Durable {
            self.step = Step::WantCheckpoint;
        }
        Ok(())
    }

    /// What has to happen outside before the next step.
    pub(crate) fn need(&self) -> SealNeed {
        match self.step {
            Step::WantCheckpoint => SealNeed::Checkpoint,
            _ => SealNeed::Nothing,
        }
    }

    /// Begins the checkpoint; `fill_in` completes what only the log knows.
    pub(crate) fn begin_checkpoint(
        &mut self,
        temporaries: &mut u64,
        slab: &mut Slab,
        effects: &mut Effects,
        fill_in: impl FnOnce(&mut CheckpointV5),
    ) {
        let mut checkpoint = self.checkpoint.take().expect("a checkpoint was handed in");
        fill_in(&mut checkpoint);
        let payload = serialize(&checkpoint, self.replace.take_scratch());
        self.replace.begin(CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, payload, temporaries, slab, effects);
        self.step = Step::Checkpoint;
    }

    /// Takes the end of a step of the checkpoint's replacement.
    pub(crate) fn on_checkpoint_done(
        &mut self,
        now: Now,
        slab: &mut Slab,
        outcome: Outcome,
        effects: &mut Effects,
    ) -> Result<SealNeed, String> {
        match self.replace.on_done(now, slab, outcome, effects) {
            Replaced::Going => Ok(SealNeed::Nothing),
            Replaced::Failed(reason) => Err(reason),
            Replaced::Done => Ok(SealNeed::Manifest),
        }
    }

    /// The manifest edit that ends this seal (or follows this checkpoint) has this version.
    pub(crate) fn in_manifest(&mut self, version: u64) {
        assert_eq!(self.step, Step::Checkpoint);
        self.step = Step::Manifest { version };
    }

    /// Ends the seal once its manifest version is durable: the sealed segment, or `Some(None)` after a mere checkpoint.
    pub(crate) fn take_finished(&mut self, is_durable: impl Fn(u64) -> bool) -> Option<Option<SegmentUid>> {
        match self.step {
            Step::Manifest { version } if is_durable(version) => {
                self.step = Step::Idle;
                Some(self.footer.take().map(|footer| {
                    self.spare = footer.entries;
                    self.spare.clear();
                    footer.header.segment
                }))
            }
            _ => None,
        }
    }
}
