//! A record into its open batch, and sealing.

use tramline_wire::batch::{Attributes, NewRecord, PushRefused};

use super::ProducerCore;
use super::batch::SEQ_STEP;
use super::part::NO_LANE;
use crate::core::Now;
use crate::error::{Error, SendError};
use crate::partitioner::{Partitioner, key_partition};
use crate::producer::Record;

/// Why a record was not taken.
#[derive(Debug)]
pub(crate) enum PushError {
    /// No room: let some be acknowledged and push again.
    BufferFull,
    /// It never will be.
    Send(SendError),
}

impl ProducerCore {
    /// Copies a record into the open batch of its partition; returns whether a batch was sealed, so that there is something
    /// new to send. `clock` is asked at most once. Nothing is kept after an error.
    #[inline]
    pub(crate) fn push(&mut self, clock: impl FnOnce() -> Now, topic: u32, record: &Record<'_>) -> Result<bool, PushError> {
        let partition = self.choose_partition(topic, record)?;
        let id = self.topics[topic as usize].parts[partition as usize];
        let estimate = record_bytes(record);
        if self.held_bytes + estimate > self.config.buffer_bytes && self.held_bytes > 0 {
            self.metrics.buffer_full += 1;
            return Err(PushError::BufferFull);
        }
        let mut sealed = false;
        let is_open = match &self.parts[id as usize].open {
            Some(open) if open.builder.batch_bytes() + estimate > self.parts[id as usize].batch_bytes => {
                self.seal(id);
                sealed = true;
                false
            }
            Some(_) => true,
            None => false,
        };
        let timestamp_us = match (record.timestamp_us, is_open) {
            (Some(timestamp_us), true) => timestamp_us,
            (given, _) => {
                let now = clock();
                if !is_open {
                    self.open(id, now);
                }
                given.unwrap_or(now.utc_us)
            }
        };
        let &Record { key, value, headers, attributes, .. } = record;
        let new = NewRecord { key, value, headers, timestamp_us, attributes };
        match self.append(id, &new, record.tag) {
            Ok(full) => Ok(full | sealed),
            Err(PushRefused::Full) => {
                // The batch has 65,535 records, or its first record is more than 35 minutes away from this one.
                let opened_us = self.parts[id as usize].open.as_ref().map_or(0, |open| open.opened_us);
                self.seal(id);
                self.open(id, Now { mono_us: opened_us, utc_us: timestamp_us });
                self.append(id, &new, record.tag).map(|_| true).map_err(|refused| self.refused(id, refused))
            }
            Err(refused) => Err(self.refused(id, refused)),
        }
    }

    #[inline]
    fn append(&mut self, id: u32, record: &NewRecord<'_>, tag: u64) -> Result<bool, PushRefused> {
        let part = &mut self.parts[id as usize];
        let Some(open) = &mut part.open else { return Err(PushRefused::Full) };
        let before = if open.builder.is_empty() { 0 } else { open.builder.batch_bytes() };
        open.builder.push(record)?;
        open.tags.push(tag);
        let after = open.builder.batch_bytes();
        self.held_bytes += after - before;
        self.records_outstanding += 1;
        self.metrics.records_taken += 1;
        if after < part.batch_bytes {
            return Ok(false);
        }
        self.seal(id);
        Ok(true)
    }

    /// The builder refused a record for good. An open batch without records is taken back.
    fn refused(&mut self, id: u32, refused: PushRefused) -> PushError {
        let part = &mut self.parts[id as usize];
        if part.open.as_ref().is_some_and(|open| open.builder.is_empty())
            && let Some(open) = part.open.take()
        {
            part.due = false;
            self.pool.put_open(open);
            // It was the newest that was opened. Left there, its entry would stay until the next poll.
            if self.opened.back().is_some_and(|(of, seq, _)| (*of, *seq) == (id, part.next_seq)) {
                self.opened.pop_back();
            }
        }
        PushError::Send(match refused {
            PushRefused::TooLarge { what, size, max } => SendError::RecordTooLarge { what, size, max },
            PushRefused::Full | PushRefused::BadTimestamp { .. } => {
                SendError::Client(Error::InvalidRecord { message: refused.to_string() })
            }
        })
    }

    #[inline]
    fn choose_partition(&mut self, topic: u32, record: &Record<'_>) -> Result<u32, PushError> {
        let topic = &mut self.topics[topic as usize];
        let partitions = topic.parts.len() as u32;
        if let Some(partition) = record.partition {
            if partition < partitions {
                return Ok(partition);
            }
            let error = Error::NoSuchPartition { topic: topic.name.clone(), partition, partitions };
            return Err(PushError::Send(SendError::Client(error)));
        }
        if partitions == 0 {
            let message = format!("topic {:?} has no partitions yet: try again", topic.name);
            return Err(PushError::Send(SendError::Client(Error::InvalidRecord { message })));
        }
        // A message group has its order within a partition, an id is known within one: what belongs together goes together.
        let Attributes { group, message_id, .. } = record.attributes;
        match (self.config.partitioner, record.key.or(group).or(message_id)) {
            (Partitioner::Hash, Some(key)) => Ok(key_partition(key, partitions)),
            (Partitioner::Hash | Partitioner::Sticky, _) => Ok(topic.sticky % partitions),
            (Partitioner::RoundRobin, _) => {
                let partition = topic.next_in_turn % partitions;
                topic.next_in_turn = (partition + 1) % partitions;
                Ok(partition)
            }
        }
    }

    fn open(&mut self, id: u32, now: Now) {
        let open = self.pool.open(now.mono_us);
        let part = &mut self.parts[id as usize];
        part.open = Some(open);
        part.due = false;
        self.opened.push_back((id, part.next_seq, now.mono_us));
    }

    /// Closes a partition's open batch and queues it. Does nothing when there is none, or it is empty.
    pub(super) fn seal(&mut self, id: u32) {
        let part = &mut self.parts[id as usize];
        part.due = false;
        let Some(open) = part.open.take() else { return };
        if open.builder.is_empty() {
            self.pool.put_open(open);
            return;
        }
        let seq = part.next_seq;
        part.next_seq += SEQ_STEP;
        let sealed = self.pool.seal(open, &mut self.compressor, id, seq, self.delivery_timeout_us);
        part.queue.push_back(sealed);
        let topic = &mut self.topics[part.topic as usize];
        if topic.sticky == part.index {
            topic.sticky = (part.index + 1) % (topic.parts.len() as u32).max(1);
        }
        if part.lane != NO_LANE {
            self.list(id);
        }
        // Entries of batches that were sealed by size pile up here between two steps otherwise.
        while let Some(&(first, seq, _)) = self.opened.front()
            && self.parts[first as usize].next_seq != seq
        {
            self.opened.pop_front();
        }
    }
}

/// What a record adds to a batch.
#[inline]
fn record_bytes(record: &Record<'_>) -> usize {
    let headers = match record.headers {
        [] => 0,
        headers => 6 + headers.iter().map(|(name, value)| 6 + name.len() + value.len()).sum::<usize>(),
    };
    let key = record.key.map_or(0, |key| 2 + key.len());
    let attributes = if record.attributes == Attributes::default() { 0 } else { attribute_bytes(&record.attributes) };
    tramline_wire::batch::INDEX_ENTRY_BYTES + key + record.value.map_or(0, <[u8]>::len) + headers + attributes
}

/// Bytes of the optional fields of a record's index entry.
fn attribute_bytes(attributes: &Attributes<'_>) -> usize {
    let Attributes { deliver_at_us, priority, ttl_ms, group, message_id } = *attributes;
    let text = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| 2 + bytes.len());
    8 * usize::from(deliver_at_us.is_some())
        + usize::from(priority.is_some())
        + 4 * usize::from(ttl_ms.is_some())
        + text(group)
        + text(message_id)
}
