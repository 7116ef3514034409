//! Letters: batches of dead messages that come to a partition of this shard, from its own queues or over the mesh.
//!
//! Invariants: each batch is answered once: when it is durable, or with what it is refused for; one that finds no room waits, and those behind it too. As
//! many wait as all shards have on their way.
//!
//! Not here: where they come from (`burying.rs`).

use super::super::in_order::InOrder;
use super::super::mesh::{Letters, Message};
use super::super::produce::{NotTaken, Source};
use super::super::shard::{Phase, Shard};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{BlockSeq, ShardId};
use std::collections::VecDeque;
use tramline_wire::error::ErrorCode;

/// Who sent letters (`None`: this shard), and under which question.
type Sender = (Option<ShardId>, u64);

/// Letters on their way into the log.
#[derive(Debug, Default)]
pub(super) struct LetterBox {
    arrived: VecDeque<(Option<ShardId>, Letters)>,
    awaiting: InOrder<Sender>,
}

impl LetterBox {
    /// Whether nobody waits for a block.
    pub(super) fn is_quiet(&self) -> bool {
        self.awaiting.is_empty()
    }
}

impl Shard {
    pub(in crate::shard) fn on_letters(&mut self, now: Now, from: Option<ShardId>, letters: Letters, effects: &mut Effects) {
        self.queues.letters.arrived.push_back((from, letters));
        self.take_letters(now, effects);
    }

    /// Appends what has arrived, as far as there is room.
    pub(super) fn take_letters(&mut self, now: Now, effects: &mut Effects) {
        while let Some((from, letters)) = self.queues.letters.arrived.pop_front() {
            let sender = (from, letters.question);
            match self.take_letter_batch(now, from.is_some(), &letters, effects) {
                Ok((groups, block)) => {
                    self.queues.letters.awaiting.push(groups, block, sender);
                    self.urgent = true;
                }
                Err(NotTaken::NoRoom) => {
                    self.queues.letters.arrived.push_front((from, letters));
                    return effects.wake_at(now.mono_us + 1000);
                }
                Err(NotTaken::Refused(error)) => self.answer_letters(now, sender, error, effects),
            }
        }
    }

    fn take_letter_batch(
        &mut self,
        now: Now,
        is_forwarded: bool,
        letters: &Letters,
        effects: &mut Effects,
    ) -> Result<(u64, BlockSeq), NotTaken> {
        match self.phase {
            Phase::Starting => return Err(NotTaken::Refused(ErrorCode::NotReady)),
            Phase::Serving => {}
            Phase::Stopping => return Err(NotTaken::Refused(ErrorCode::ShuttingDown)),
            Phase::Failed(_) => return Err(NotTaken::Refused(ErrorCode::StorageFailed)),
        }
        let bytes = letters.batch.len() as u64;
        if self.log.is_out_of_space(bytes) {
            return Err(NotTaken::Refused(ErrorCode::DiskFull));
        }
        if self.must_wait(now) {
            return Err(NotTaken::NoRoom);
        }
        let (_, groups, block) = self.take_batch(now, letters.to, &letters.batch, Source::DeadLetters, effects)?;
        self.throttle.on_produced(bytes, is_forwarded);
        Ok((groups, block))
    }

    /// Answers letters whose block is durable.
    pub(super) fn release_letters(&mut self, now: Now, effects: &mut Effects) {
        while let Some(sender) = self.queues.letters.awaiting.pop(&self.acks) {
            self.answer_letters(now, sender, ErrorCode::Ok, effects);
        }
    }

    /// Another node leads a group (as `Acks::bit_of`): whether letters that wait for it hold is not known, and they are sent again.
    pub(in crate::shard) fn lose_letters(&mut self, now: Now, group: u64, effects: &mut Effects) {
        for sender in self.queues.letters.awaiting.take_groups(group, &self.acks) {
            self.answer_letters(now, sender, ErrorCode::LeadershipLost, effects);
        }
    }

    /// The log has failed: nobody hears that his letters hold.
    pub(super) fn fail_letters(&mut self, effects: &mut Effects) {
        let LetterBox { arrived, mut awaiting } = std::mem::take(&mut self.queues.letters);
        let senders = arrived.into_iter().map(|(from, letters)| (from, letters.question)).chain(awaiting.drain());
        for (from, question) in senders {
            // Of this shard's own nobody waits any more.
            if let Some(to) = from {
                effects.push(Effect::Mesh { to, message: Message::LettersTaken { question, error: ErrorCode::StorageFailed } });
            }
        }
    }

    fn answer_letters(&mut self, now: Now, (from, question): Sender, error: ErrorCode, effects: &mut Effects) {
        match from {
            None => self.on_letters_answered(now, question, error),
            Some(to) => effects.push(Effect::Mesh { to, message: Message::LettersTaken { question, error } }),
        }
    }
}
