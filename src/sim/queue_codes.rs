//! Answers to requests about messages that have no lease: purges, deletions, redrives, trims of their topics. Which codes their entries may have, and what follows.
//!
//! Not here: what else is answered (`queue_answers.rs`).

use super::Check;
use super::queue_records::Within;
use super::queue_truth::{Place, Start};
use super::queue_work::Workers;
use super::totals::Event as Counted;
use super::world::World;
use tramline_wire::error::ErrorCode;
use tramline_wire::queue::{DeleteMessagesReply, PurgeReply, REDRIVEN_MAX, RedriveReply};
use tramline_wire::trim::TrimPartitionsReply;

/// Whether a request reads batches, which may be damaged, or be dropped meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Yes,
    No,
}

/// The entry of a reply to a request that had one.
fn only<T>(mut entries: impl Iterator<Item = T>) -> Result<T, String> {
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        _ => Err("a request about one thing is not answered with one entry".to_owned()),
    }
}

impl Workers {
    /// An entry of a partition was refused as a whole.
    pub(super) fn check_part_code(&self, (queue, uid): (usize, u64), code: ErrorCode, reads: Reads) -> Check {
        // Out of range: what was purged or deleted while it was being read, and dropped.
        let is_damage = reads == Reads::Yes && matches!(code, ErrorCode::Damaged | ErrorCode::OffsetOutOfRange);
        let is_later = code.retriable() && code != ErrorCode::UnknownPartition;
        if is_later || is_damage || self.truth.decayed || !self.truth.queues[queue].is_live() {
            return Ok(());
        }
        Err(format!("{} in partition {uid} is refused with {code:?}", self.truth.queues[queue].name))
    }

    pub(super) fn on_purged(
        &mut self,
        world: &mut World,
        (queue, uid): (usize, u64),
        number: usize,
        sent_us: u64,
        reply: &PurgeReply<'_>,
    ) -> Check {
        let told = only(reply.entries.iter())?;
        if told.partition_uid != uid {
            return Err(format!("partition {uid} was to be purged, and {told:?} is told"));
        }
        let part = self.truth.part_mut(queue, uid);
        part.purges[number].until_us = world.now_us;
        if !told.error.is_ok() {
            return self.check_part_code((queue, uid), told.error, Reads::No);
        }
        world.totals.note(Counted::QueuesPurged);
        part.purged_us = part.purged_us.max(Some(sent_us));
        Ok(())
    }

    pub(super) fn on_message_deleted(&mut self, world: &mut World, place: Place, sent_us: u64, reply: &DeleteMessagesReply<'_>) -> Check {
        let told = only(reply.entries.iter())?;
        let (queue, uid, offset) = place;
        if (told.partition_uid, told.offset) != (uid, offset) {
            return Err(format!("offset {offset} of partition {uid} was to be deleted, and {told:?} is told"));
        }
        if self.truth.decayed || !self.truth.queues[queue].is_live() {
            return Ok(());
        }
        match told.error {
            ErrorCode::Ok => {
                let within = self.truth.records.at(uid, offset).map(|record| self.truth.queues[queue].within(record));
                // By its time a record is found not to be the queue's only when the queue looks at it; what it did not look at yet may be deleted.
                let is_by_time = matches!(self.truth.queues[queue].rules.start, Start::Time(_));
                let message = self.truth.message_mut(place);
                if message.settled_us.is_some_and(|settled_us| settled_us <= sent_us) || within == Some(Within::No) && !is_by_time {
                    return Err(format!("partition {uid}, offset {offset} is deleted, and was not in the queue ({within:?}): {message:?}"));
                }
                world.totals.note(Counted::MessagesDeleted);
                message.settled_us.get_or_insert(world.now_us);
                Ok(())
            }
            ErrorCode::UnknownMessage => {
                let message = self.truth.message_mut(place);
                message.deletes = message.deletes.saturating_sub(1);
                self.check_unknown_message(place, sent_us)
            }
            code => self.check_part_code((queue, uid), code, Reads::No),
        }
    }

    /// A message was told to be unknown. What is dead goes by itself where it has somewhere to go.
    fn check_unknown_message(&self, (queue, uid, offset): Place, sent_us: u64) -> Check {
        let of = &self.truth.queues[queue];
        let Some(record) = self.truth.records.at(uid, offset).filter(|_| !of.may_have_dead_letter()) else { return Ok(()) };
        let was_there = record.known_us.is_some_and(|known_us| known_us <= sent_us);
        if was_there && of.is_open(&self.truth.records, uid, offset, record) {
            let message = of.parts[&uid].messages.get(&offset);
            return Err(format!(
                "{}, partition {uid}, offset {offset} is not to be deleted, and is there: {record:?}, {message:?}",
                of.name
            ));
        }
        Ok(())
    }

    pub(super) fn on_trimmed(&mut self, world: &mut World, uid: u64, before: u64, reply: &TrimPartitionsReply<'_>) -> Check {
        let told = only(reply.entries.iter())?;
        if told.partition_uid != uid || told.error.is_ok() && told.log_start < before {
            return Err(format!("partition {uid} was to be trimmed to {before}, and {told:?} is told"));
        }
        if told.error.is_ok() {
            world.totals.note(Counted::QueuesTrimmed);
            self.truth.records.on_trimmed(uid, before, world.now_us);
            return Ok(());
        }
        // What was read is committed.
        let is_later = told.error.retriable() && told.error != ErrorCode::UnknownPartition;
        if is_later || self.truth.decayed { Ok(()) } else { Err(format!("a trim to {before} is refused: {told:?}")) }
    }

    pub(super) fn on_redriven(
        &mut self,
        world: &mut World,
        (queue, uid): (usize, u64),
        max: u32,
        before_us: u64,
        reply: &RedriveReply<'_>,
    ) -> Check {
        let told = only(reply.entries.iter())?;
        let redriven = told.redriven;
        if told.partition_uid != uid || redriven > REDRIVEN_MAX || max > 0 && redriven > u64::from(max) {
            return Err(format!("up to {max} messages (0: any) of partition {uid} were to be redriven, and {told:?} is told"));
        }
        // Where nothing came back to life it is as if nobody had asked.
        self.truth.part_mut(queue, uid).redriven_until_us = if redriven > 0 { world.now_us } else { before_us };
        world.totals.add(Counted::MessagesRedriven, redriven);
        if told.error.is_ok() {
            return Ok(());
        }
        if redriven > 0 {
            return Err(format!("{told:?}: refused, and done"));
        }
        self.check_part_code((queue, uid), told.error, Reads::No)
    }
}
