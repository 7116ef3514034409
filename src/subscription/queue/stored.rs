//! What is kept of a queue in a partition besides the log, as notes, put together in pieces while the queue goes on.
//!
//! Invariant: a part that has taken the pieces in, then every note that was made after the first piece was begun (and perhaps some before), and has looked
//! at the batches again from where the first piece says, is the part as it is.
//!
//! So a piece may tell of a later moment than the one before it: whatever has changed meanwhile stands in a note behind. What was looked at after the first
//! piece is looked at again, so only what notes have told of such messages is kept. What a piece tells may be ahead of what is durable, but for messages
//! that are not committed: whoever keeps the pieces waits until the log has it as well.
//!
//! Not here: bytes (`note.rs`), files (log/state_file.rs).

use super::cells::{Cell, State};
use super::note::{Kind, MASKED_MAX, QueueNote, push_note};
use super::part::{Attempt, NO_LANE, Part};

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotCursor {
    stage: Stage,
    /// All below was looked at when the snapshot was begun, and is committed.
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Fresh(u64),
    Messages(u64),
    Ids(u64),
    Done,
}

impl Default for SnapshotCursor {
    fn default() -> SnapshotCursor {
        SnapshotCursor { stage: Stage::Begin, end: 0 }
    }
}

impl Part {
    /// Some of it behind `out`: what lies below `committed_end`. Each message that is looked at and each note takes one from `left` (neighbours share a note:
    /// the number of notes alone would say nothing of the work). Whether that was the last piece.
    pub fn snapshot(&self, cursor: &mut SnapshotCursor, committed_end: u64, left: &mut usize, out: &mut Vec<QueueNote>) -> bool {
        while *left > 0 && cursor.stage != Stage::Done {
            let before = out.len();
            let (stage, looked_at) = match cursor.stage {
                Stage::Begin => {
                    cursor.end = self.looked_to.min(committed_end);
                    let next_lease = u64::from(self.next_lease);
                    out.push(QueueNote { number: next_lease, at_us: self.begin_us, ..QueueNote::new(Kind::Looked, cursor.end) });
                    // Once they are looked at nobody remembers these: in the first piece, whatever their number.
                    self.ahead_notes(committed_end, out);
                    (Stage::Fresh(0), 0)
                }
                Stage::Fresh(from) => (self.fresh_notes(from, cursor.end, *left, out), 1),
                Stage::Messages(from) => self.message_notes(from, cursor.end, committed_end, *left, out),
                Stage::Ids(from) => (self.id_notes(from, cursor.end, *left, out), 1),
                Stage::Done => (Stage::Done, 0),
            };
            *left = left.saturating_sub((out.len() - before).max(looked_at));
            cursor.stage = stage;
        }
        cursor.stage == Stage::Done
    }

    /// About how many bytes a snapshot takes.
    pub fn snapshot_bytes(&self) -> usize {
        // Of what was received many at a time; where each message has a note of its own it is 72, and the vector grows.
        256 + self.cells.len() * 16 + self.dedup.len() * 96 + self.histories.len() * 128
    }

    fn ahead_notes(&self, committed_end: u64, out: &mut Vec<QueueNote>) {
        for range in self.ahead.iter_from(0).take_while(|range| range.start < committed_end) {
            let (mut start, end) = (range.start, range.end.min(committed_end));
            while start < end {
                let count = (end - start).min(u64::from(u32::MAX)) as u32;
                out.push(QueueNote { count, ..QueueNote::new(Kind::Settle, start) });
                start += u64::from(count);
            }
        }
    }

    fn fresh_notes(&self, from: u64, end: u64, max: usize, out: &mut Vec<QueueNote>) -> Stage {
        let mut next = from;
        for range in self.fresh.iter_from(from).take_while(|range| range.start < end).take(max) {
            out.push(QueueNote { number: range.end.min(end), ..QueueNote::new(Kind::Fresh, range.start) });
            next = range.end;
        }
        let is_over = self.fresh.iter_from(next).next().is_none_or(|range| range.start >= end);
        if is_over { Stage::Messages(0) } else { Stage::Fresh(next) }
    }

    /// Where to go on, and how much work it was.
    fn message_notes(&self, from: u64, end: u64, committed_end: u64, max: usize, out: &mut Vec<QueueNote>) -> (Stage, usize) {
        let mut work = 0;
        let mut run: Option<Run> = None;
        let cells = self.cells.iter_from(from).take_while(|(offset, _)| *offset < committed_end);
        for (offset, cell) in cells {
            if work >= max {
                Run::end(run, out);
                return (Stage::Messages(offset), work);
            }
            work += 1;
            let attempts = self.attempts(offset);
            let is_plain = offset < end && attempts.is_empty() && !self.expires_us.contains_key(&offset);
            if is_plain && run.as_mut().is_some_and(|run| run.takes(offset, cell)) {
                continue;
            }
            Run::end(run.take(), out);
            if is_plain {
                run = Some(Run { cell: *cell, note: self.message_note(offset, cell), mask: vec![1] });
            } else if offset < end {
                out.push(self.message_note(offset, cell));
            } else if cell.deliveries > 0 || cell.lane == NO_LANE || matches!(cell.state, State::Leased | State::Dead) {
                // Looked at again: its priority, group and time to live come from the batch.
                let hash = if cell.lane == NO_LANE { u64::MAX } else { 0 };
                push_note(out, QueueNote { hash, at_us: 0, priority: 0, ..self.message_note(offset, cell) });
            } else {
                continue;
            }
            work += attempts.len();
            out.extend(attempts.iter().map(|attempt| attempt_note(offset, attempt)));
        }
        Run::end(run, out);
        (Stage::Ids(0), work)
    }

    fn id_notes(&self, from: u64, end: u64, max: usize, out: &mut Vec<QueueNote>) -> Stage {
        // One above would find itself a duplicate of itself when it is looked at again.
        let mut ids = self.dedup.iter_from(from).take_while(|(offset, ..)| *offset < end);
        let notes = ids.by_ref().take(max);
        out.extend(notes.map(|(offset, at_us, id)| QueueNote { at_us, text: id.into(), ..QueueNote::new(Kind::Id, offset) }));
        ids.next().map_or(Stage::Done, |(offset, ..)| Stage::Ids(offset))
    }

    fn message_note(&self, offset: u64, cell: &Cell) -> QueueNote {
        let is_leased = cell.state == State::Leased;
        QueueNote {
            state: Some(cell.state),
            priority: cell.priority,
            deliveries: cell.deliveries,
            number: if is_leased { u64::from(cell.lease) } else { cell.until_us },
            ms: if is_leased { cell.lease_ms } else { cell.lease },
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
                self.has_begun = true;
                self.looked_to = self.looked_to.max(note.offset);
                self.begin_us = note.at_us;
                self.next_lease = note.number as u32;
            }
            Kind::Fresh => self.fresh.insert(note.offset..note.number),
            Kind::Message => note.messages().for_each(|offset| self.restore_message(offset, note)),
            Kind::Attempt => {
                let (consumer, reason) = (note.text.clone(), note.more.clone());
                let attempt = Attempt { at_us: note.at_us, why: note.why, deliveries: note.deliveries, consumer, reason };
                self.histories.entry(note.offset).or_default().push(attempt);
            }
            Kind::Id => self.dedup.note(&note.text, note.offset, note.at_us),
            _ => unreachable!("a note of a snapshot"),
        }
    }

    fn restore_message(&mut self, offset: u64, note: &QueueNote) {
        if self.cells.get(offset).is_some() {
            return;
        }
        let state = note.state.expect("checked when it was read");
        let is_leased = state == State::Leased;
        let consumer = self.consumers.number(&note.text);
        let mut cell = Cell {
            until_us: if is_leased { 0 } else { note.number },
            lease: if is_leased { note.number as u32 } else { note.ms },
            lease_ms: if is_leased { note.ms } else { 0 },
            consumer,
            deliveries: note.deliveries,
            priority: note.priority,
            ..Cell::new(state)
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

/// Messages that fare alike, with holes between them.
struct Run {
    cell: Cell,
    note: QueueNote,
    /// A bit for each offset from the first one on.
    mask: Vec<u8>,
}

impl Run {
    /// Whether the next message is one of them; then it is.
    fn takes(&mut self, offset: u64, cell: &Cell) -> bool {
        let known = &self.cell;
        // When a lease ends is not in the note: it begins anew with a start.
        let is_like =
            cell.same_but_offset(known) || cell.state == State::Leased && cell.same_but_offset(&Cell { until_us: cell.until_us, ..*known });
        let at = offset - self.note.offset;
        if !is_like || at >= u64::from(MASKED_MAX) {
            return false;
        }
        self.mask.resize(at as usize / 8 + 1, 0);
        self.mask[at as usize / 8] |= 1 << (at % 8);
        self.note.count = at as u32 + 1;
        true
    }

    /// Its note goes behind `out`.
    fn end(run: Option<Run>, out: &mut Vec<QueueNote>) {
        let Some(Run { note, mask, .. }) = run else { return };
        let messages: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        let more = if messages == note.count { Box::default() } else { mask.into() };
        push_note(out, QueueNote { more, ..note });
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
