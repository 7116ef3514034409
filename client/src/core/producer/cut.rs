//! Batches that the broker does not take as they are, in pieces: they are too large, or one record of theirs has an attribute that cannot be.
//!
//! How large a batch may be is the topic's (`batch.max.bytes`, and `record.max.bytes` for a record) and the node's (`frame.max.bytes`), and
//! a producer asks for neither: its own limits are the defaults. So a batch can be refused whose records are fine, each for itself. It is
//! cut in halves, down to one record, which fails alone. The topic's batches are closed at half of what was refused from then on, for this
//! producer's life or until the topic is another one: a limit that was raised meanwhile costs smaller batches and nothing else.
//!
//! A priority, a delay or a time to live out of range is the topic's to refuse as well (`queue.retention.ms` is one of its bounds), and the refusal (`invalid_attribute`) is the whole
//! batch's: it is cut in the same way, so that its other records are stored. Batches do not become smaller for it.
//!
//! A batch that is cut is one that was given up, as far as its mark goes: its pieces, and all behind it, get new numbers in the next epoch.
//! That may be done because every copy of it was refused, so it is not stored, and what is behind it in the same epoch is not either. One
//! of which a copy is in doubt is not cut.
//!
//! Not here: refusals that pass (`settle`, `unresolved`).

use std::collections::VecDeque;
use std::sync::Arc;

use tramline_wire::batch::{BatchView, NewRecord, PushRefused};
use tramline_wire::error::ErrorCode;

use super::batch::{Open, Sealed, Stamp};
use super::{ProducerCore, Source};
use crate::core::codec::Decompressor;
use crate::error::Error;

/// Open batches are not closed below this size for what was refused: the least that a topic can have as `batch.max.bytes`.
const BATCH_BYTES_MIN: usize = 1024;

impl Sealed {
    /// Whether it can go on in pieces after this refusal.
    pub(super) fn can_be_cut(&self, code: ErrorCode) -> bool {
        matches!(code, ErrorCode::BatchTooLarge | ErrorCode::RecordTooLarge | ErrorCode::InvalidAttribute) && self.has_pieces()
    }

    fn has_pieces(&self) -> bool {
        self.tags.len() > 1 && !self.is_in_doubt()
    }
}

impl ProducerCore {
    /// The broker did not take a batch because it, or a record in it, is too large, or has an attribute that cannot be. It is cut when what is in flight has its answers.
    pub(super) fn refuse_too_large(&mut self, mut batch: Sealed, code: ErrorCode, error: Arc<Error>) {
        batch.is_too_large = true;
        let id = batch.part;
        if code == ErrorCode::BatchTooLarge {
            let close_at = (batch.held_bytes / 2).max(BATCH_BYTES_MIN);
            let topic = &mut self.topics[self.parts[id as usize].topic as usize];
            topic.batch_bytes = topic.batch_bytes.min(close_at);
            topic.refused_bytes = topic.refused_bytes.min(batch.bytes.len());
            for &id in &topic.parts {
                let part = &mut self.parts[id as usize];
                part.batch_bytes = part.batch_bytes.min(close_at);
                part.refused_bytes = topic.refused_bytes;
            }
        }
        self.trouble = Some((Source::Part(id), Arc::clone(&error)));
        self.parts[id as usize].refuse(batch, error);
    }

    /// The topic is another one, with limits of its own.
    pub(super) fn forget_batch_limit(&mut self, topic: u32) {
        let topic = &mut self.topics[topic as usize];
        (topic.batch_bytes, topic.refused_bytes) = (self.config.batch_bytes, usize::MAX);
        for &id in &topic.parts {
            let part = &mut self.parts[id as usize];
            (part.batch_bytes, part.refused_bytes) = (topic.batch_bytes, topic.refused_bytes);
        }
    }

    /// Puts pieces in the place of the batches that were refused for their size. Nothing of the partition is in flight.
    pub(super) fn cut_refused(&mut self, id: u32) {
        if let Some(first) = self.parts[id as usize].queue.iter().position(|batch| batch.is_too_large) {
            self.cut_from(id, first);
        }
    }

    /// Sees to it that the first batch of a queue is one that the node and the topic take, as far as is known. `node_bytes_max`: what the
    /// node takes in a frame.
    #[inline]
    pub(super) fn fit_first(&mut self, id: u32, node_bytes_max: usize) {
        loop {
            let part = &mut self.parts[id as usize];
            let Some(first) = part.queue.front_mut() else { return };
            // One record above what the topic refused is for the topic to say.
            let fits_topic = first.bytes.len() < part.refused_bytes || !first.has_pieces();
            if fits_topic && first.bytes.len() <= node_bytes_max {
                return;
            }
            if first.has_pieces() {
                first.is_too_large = true;
                self.cut_from(id, 0);
            } else if let Some(batch) = part.queue.pop_front() {
                let message =
                    format!("its batch has {} bytes, more than the broker takes in one frame (frame.max.bytes)", batch.bytes.len());
                self.give_up(batch, Arc::new(Error::InvalidRecord { message }));
            }
        }
    }

    /// Goes through a queue from one that is to be cut on: that one is given up as far as its mark goes, so none behind it keeps its own.
    #[cold]
    fn cut_from(&mut self, id: u32, first: usize) {
        let mut behind = self.parts[id as usize].queue.split_off(first);
        for mut batch in behind.drain(..) {
            if let Stamp::Marked(marked) = &batch.stamp
                && batch.is_too_large
            {
                self.parts[id as usize].sequence.on_given_up(marked, batch.seq);
            }
            batch.stamp = Stamp::Missing;
            if batch.is_too_large {
                self.cut(batch);
            } else {
                self.parts[id as usize].queue.push_back(batch);
            }
        }
    }

    /// Queues a batch in two pieces of as many records; in more, where the times of its records are too far apart for that.
    fn cut(&mut self, batch: Sealed) {
        match self.pieces(&batch) {
            Ok(pieces) => {
                self.held_bytes += pieces.iter().map(|piece| piece.held_bytes).sum::<usize>();
                self.held_bytes -= batch.held_bytes;
                self.parts[batch.part as usize].queue.extend(pieces);
                self.pool.put_bytes(batch.bytes);
                self.pool.put_tags(batch.tags);
            }
            // Its bytes are ours, so this is a defect, and no reason to end the process.
            Err(message) => self.give_up(batch, Arc::new(Error::InvalidRecord { message })),
        }
    }

    fn pieces(&mut self, batch: &Sealed) -> Result<VecDeque<Sealed>, String> {
        let view = BatchView::parse(&batch.bytes).map_err(|error| error.to_string())?;
        let mut decompressor = Decompressor::new();
        let values =
            decompressor.decompress(view.codec(), view.stored_values(), view.values_len(), u32::MAX).map_err(|error| error.to_string())?;
        let mut pieces = VecDeque::new();
        let mut open: Option<(Open, u64)> = None;
        for (number, record) in view.records(values).enumerate() {
            let record = record.map_err(|error| error.to_string())?;
            let headers: Vec<(&str, &[u8])> = record.headers.map(|header| (header.name, header.value)).collect();
            let timestamp_us = record.timestamp_us;
            let new = NewRecord { key: record.key, value: record.value, headers: &headers, timestamp_us, attributes: record.attributes };
            if number == batch.tags.len() / 2 {
                pieces.extend(open.take().map(|(open, first)| self.piece(batch, open, first)));
            }
            let (into, _) = open.get_or_insert_with(|| (self.pool.open(0), number as u64));
            if let Err(refused) = into.builder.push(&new) {
                if refused != PushRefused::Full || into.builder.is_empty() {
                    return Err(refused.to_string());
                }
                pieces.extend(open.take().map(|(open, first)| self.piece(batch, open, first)));
                let (into, _) = open.insert((self.pool.open(0), number as u64));
                into.builder.push(&new).map_err(|refused| refused.to_string())?;
            }
            if let Some((into, _)) = &mut open {
                into.tags.extend(batch.tags.get(number));
            }
        }
        pieces.extend(open.take().map(|(open, first)| self.piece(batch, open, first)));
        Ok(pieces)
    }

    /// Closes one piece of a batch, whose first record is number `first` there.
    fn piece(&mut self, of: &Sealed, open: Open, first: u64) -> Sealed {
        let sealed = self.pool.seal(open, &mut self.compressor, of.part, of.seq + first, 0);
        Sealed { deadline_us: of.deadline_us, first_sent_us: of.first_sent_us, ..sealed }
    }
}
