//! What a checkpoint keeps of a queue in a partition, as notes.
//!
//! Invariant: a part that has taken these in, and every note that came behind, and has looked at the batches again, is the part as it is.
//!
//! Messages that are not committed yet are left out: they are looked at again, if they are there. What is told of the others may be ahead of what is
//! durable; then nobody was answered, and it is as right as its contrary.
//!
//! Not here: bytes (`note.rs`).

use super::cells::{Cell, State};
use super::note::{Kind, QueueNote};
use super::part::{Attempt, NO_LANE, Part};

impl Part {
    /// All of it, as far as it is below `committed_end`.
    pub fn snapshot(&self, committed_end: u64) -> impl Iterator<Item = QueueNote> {
        let end = self.looked_to.min(committed_end);
        let looked = QueueNote { number: u64::from(self.next_lease), at_us: self.begin_us, ..QueueNote::new(Kind::Looked, end) };
        let fresh = self
            .fresh
            .iter_from(0)
            .take_while(move |range| range.start < end)
            .map(move |range| QueueNote { number: range.end.min(end), ..QueueNote::new(Kind::Fresh, range.start) });
        // Above what was looked at there are cells of messages that a note told of before.
        let cells = self.cells.iter_from(0).take_while(move |(offset, _)| *offset < committed_end);
        let messages = cells.flat_map(|(offset, cell)| {
            let attempts = self.attempts(offset).iter().map(move |attempt| attempt_note(offset, attempt));
            std::iter::once(self.message_note(offset, cell)).chain(attempts)
        });
        let ahead = self.ahead.iter_from(0).take_while(move |range| range.start < committed_end).flat_map(move |range| {
            let (mut start, end) = (range.start, range.end.min(committed_end));
            std::iter::from_fn(move || {
                let count = (end - start).min(u64::from(u32::MAX)) as u32;
                let note = (count > 0).then(|| QueueNote { count, ..QueueNote::new(Kind::Settle, start) });
                start += u64::from(count);
                note
            })
        });
        // One above would find itself a duplicate of itself when it is looked at again.
        let ids = self.dedup.iter().filter(move |(offset, ..)| *offset < end);
        let ids = ids.map(|(offset, at_us, id)| QueueNote { at_us, text: id.into(), ..QueueNote::new(Kind::Id, offset) });
        std::iter::once(looked).chain(fresh).chain(messages).chain(ahead).chain(ids)
    }

    fn message_note(&self, offset: u64, cell: &Cell) -> QueueNote {
        QueueNote {
            state: Some(cell.state),
            priority: cell.priority,
            deliveries: cell.deliveries,
            number: if cell.state == State::Leased { 0 } else { cell.until_us },
            count: cell.lease,
            ms: cell.lease_ms,
            // A hash of all ones would be taken for none: no order is lost by that, but that of one group in 2^64.
            hash: if cell.lane == NO_LANE { u64::MAX } else { self.lanes.hash_of(cell.lane) },
            at_us: self.expires_us.get(&offset).copied().unwrap_or(0),
            text: self.consumers.name(cell.consumer).into(),
            ..QueueNote::new(Kind::Message, offset)
        }
    }

    pub(super) fn restore(&mut self, note: &QueueNote) {
        match note.kind {
            Kind::Looked => {
                self.mark_begun();
                self.looked_to = self.looked_to.max(note.offset);
                self.begin_us = note.at_us;
                self.next_lease = self.next_lease.max(note.number as u32);
            }
            Kind::Fresh => self.fresh.insert(note.offset..note.number),
            Kind::Message => self.restore_message(note),
            Kind::Attempt => {
                let (consumer, reason) = (note.text.clone(), note.more.clone());
                let attempt = Attempt { at_us: note.at_us, why: note.why, deliveries: note.deliveries, consumer, reason };
                self.histories.entry(note.offset).or_default().push(attempt);
            }
            Kind::Id => self.dedup.note(&note.text, note.offset, note.at_us),
            _ => unreachable!("a note of a snapshot"),
        }
    }

    fn restore_message(&mut self, note: &QueueNote) {
        if self.cells.get(note.offset).is_some() {
            return;
        }
        let offset = note.offset;
        let consumer = self.consumers.number(&note.text);
        let mut cell = Cell {
            until_us: note.number,
            lease: note.count,
            lease_ms: note.ms,
            consumer,
            deliveries: note.deliveries,
            priority: note.priority,
            ..Cell::new(note.state.expect("checked when it was read"))
        };
        match note.hash {
            u64::MAX => cell.lane = NO_LANE,
            0 => {}
            // In order of offset: the one that is out comes first, as it did.
            hash => cell.lane = self.lanes.enter(hash, offset).0,
        }
        if note.at_us != 0 {
            self.expires_us.insert(offset, note.at_us);
        }
        self.fresh.remove(offset..offset + 1);
        self.put(offset, cell);
    }
}

fn attempt_note(offset: u64, attempt: &Attempt) -> QueueNote {
    QueueNote {
        why: attempt.why,
        at_us: attempt.at_us,
        deliveries: attempt.deliveries,
        text: attempt.consumer.clone(),
        more: attempt.reason.clone(),
        ..QueueNote::new(Kind::Attempt, offset)
    }
}
