//! Atomic steps: messages of queues are acknowledged, records are published and offsets are committed as one, all or nothing.
//!
//! Invariant: a step whose outcome is not known is settled before the next one is begun: it is sent again, unchanged, under the same numbers of the same
//! producer, so that a node which has carried it out answers as the first time.
//!
//! Not here: what has to lie together (docs/PROTOCOL.md, "The atomic step"), receiving (`queue_consumer.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::produce::ProduceEntry;
use tramline_wire::producer::{InitProducerReply, InitProducerRequest};
use tramline_wire::step::{StepAck, StepCommit, StepReply, StepRequest};

use crate::client::{Client, Shared};
use crate::core::SharedBytes;
use crate::error::Error;
use crate::link::Effect;
use crate::message::LeaseToken;
use crate::producer::Record;

/// What becomes true together. Everything lies in one replica group: create the output's topic with the setting `co.locate` = the input's topic, and
/// publish to the partition of the same number.
#[derive(Debug, Clone, Default)]
pub struct Step<'a> {
    acks: Vec<(u64, LeaseToken)>,
    commits: Vec<(u64, u64, u64, u64, &'a str)>,
    records: Vec<Record<'a>>,
}

impl<'a> Step<'a> {
    /// One that does nothing yet.
    pub fn new() -> Step<'a> {
        Step::default()
    }

    /// Settles a message of the queue with this uid ([`Client::find_queue`] tells it).
    #[must_use]
    pub fn ack(mut self, queue_uid: u64, token: LeaseToken) -> Step<'a> {
        self.acks.push((queue_uid, token));
        self
    }

    /// Commits the next offset to read of a partition for a consumer group, with a text of at most 4,096 bytes. `assignment_epoch`: under which the
    /// partition is owned; 0 for whoever is in no group.
    #[must_use]
    pub fn commit(mut self, group_uid: u64, partition_uid: u64, assignment_epoch: u64, offset: u64, metadata: &'a str) -> Step<'a> {
        self.commits.push((group_uid, partition_uid, assignment_epoch, offset, metadata));
        self
    }

    /// Publishes a record; its partition has to be named.
    #[must_use]
    pub fn publish(mut self, record: Record<'a>) -> Step<'a> {
        self.records.push(record);
        self
    }
}

/// A step as it is sent, as often as it takes.
#[derive(Debug)]
struct Sent {
    meta: Vec<u8>,
    payload: Vec<SharedBytes>,
    /// (partition, records) of each batch.
    batches: Vec<(u64, u32)>,
}

/// Carries steps out, each once: made by [`Client::steps`]. One step at a time; what publishes carries the marks of an idempotent producer.
///
/// An error that says a refusal ([`Error::Refused`]) means that nothing of the step happened. After any other error the step may have been carried out or
/// not: the next call, or [`settle`](Self::settle), finds out before anything else is done.
#[derive(Debug)]
pub struct Steps {
    shared: Arc<Shared>,
    producer_id: u64,
    /// The next number of each partition.
    sequences: BTreeMap<u64, u32>,
    unsettled: Option<Sent>,
}

impl Client {
    /// Begins to carry out atomic steps, under an identity of its own.
    pub fn steps(&self) -> Result<Steps, Error> {
        let shared = self.share();
        let encode = |meta: &mut Vec<u8>| InitProducerRequest {}.encode(meta);
        let decode = |meta: &[u8]| InitProducerReply::decode(meta).map(|reply| reply.producer_id);
        let producer_id = shared.call("begin atomic steps", Kind::InitProducer, Effect::Repeatable, encode, decode)?;
        Ok(Steps { shared, producer_id, sequences: BTreeMap::new(), unsettled: None })
    }
}

impl Steps {
    /// Carries out a step. Answers (partition uid, offset of its first record) for each partition that was published to, in the order in which the step
    /// names them.
    pub fn take(&mut self, step: &Step<'_>) -> Result<Vec<(u64, u64)>, Error> {
        self.settle()?;
        let sent = self.prepare(step)?;
        self.unsettled = Some(sent);
        self.send().map(|done| done.expect("a step was just prepared"))
    }

    /// Finds out what became of a step whose outcome is not known, if there is one: it is carried out now if it was not. `None`: there was none.
    pub fn settle(&mut self) -> Result<Option<Vec<(u64, u64)>>, Error> {
        self.send()
    }

    fn send(&mut self) -> Result<Option<Vec<(u64, u64)>>, Error> {
        let Some(sent) = &self.unsettled else { return Ok(None) };
        let encode = |meta: &mut Vec<u8>| meta.extend_from_slice(&sent.meta);
        let decode = |meta: &[u8]| {
            let reply = StepReply::decode(meta)?;
            Ok(reply.results.iter().map(|result| (result.partition_uid, result.base_offset)).collect::<Vec<_>>())
        };
        let result = self.shared.call_with_payload("atomic step", Kind::Step, &sent.payload, encode, decode);
        match result {
            Ok(done) => {
                for (partition, records) in &sent.batches {
                    let next = self.sequences.entry(*partition).or_default();
                    *next = next.wrapping_add(*records);
                }
                self.unsettled = None;
                Ok(Some(done))
            }
            // Nothing of it happened: its numbers are free again.
            Err(error @ Error::Refused { retriable: false, .. }) => {
                self.unsettled = None;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn prepare(&self, step: &Step<'_>) -> Result<Sent, Error> {
        let topics: Vec<&str> = step.records.iter().map(|record| record.topic).collect();
        let metadata = self.shared.metadata(&topics)?;
        let mut places: Vec<(u64, Vec<&Record<'_>>)> = Vec::new();
        for record in &step.records {
            let topic = crate::client::existing_topic(&metadata, record.topic)?;
            let partition = record.partition.ok_or_else(|| Error::config("a record of an atomic step has to name its partition"))?;
            let found = topic.partitions.get(partition as usize).ok_or_else(|| Error::NoSuchPartition {
                topic: record.topic.to_string(),
                partition,
                partitions: topic.partitions.len() as u32,
            })?;
            match places.iter_mut().find(|(uid, _)| *uid == found.uid) {
                Some((_, records)) => records.push(record),
                None => places.push((found.uid, vec![record])),
            }
        }
        let mut sent = Sent { meta: Vec::new(), payload: Vec::new(), batches: Vec::new() };
        let mut entries = Vec::with_capacity(places.len());
        for (uid, records) in &places {
            let batch = self.batch(*uid, records)?;
            entries.push(ProduceEntry { partition_uid: *uid, batch_len: batch.len() as u32 });
            sent.batches.push((*uid, records.len() as u32));
            sent.payload.push(Arc::new(batch));
        }
        let acks: Vec<_> = step
            .acks
            .iter()
            .map(|&(queue_uid, LeaseToken { partition_uid, offset, lease })| StepAck { queue_uid, partition_uid, offset, lease })
            .collect();
        let commits: Vec<_> = step
            .commits
            .iter()
            .map(|&(group_uid, partition_uid, assignment_epoch, offset, metadata)| StepCommit {
                group_uid,
                partition_uid,
                assignment_epoch,
                offset,
                metadata,
            })
            .collect();
        StepRequest { flags: 0, acks: List::of(&acks), commits: List::of(&commits), entries: List::of(&entries) }.encode(&mut sent.meta);
        Ok(sent)
    }

    /// All records for one partition, as one marked batch.
    fn batch(&self, uid: u64, records: &[&Record<'_>]) -> Result<Vec<u8>, Error> {
        let mut builder = BatchBuilder::new(Limits::default());
        for record in records {
            let Record { key, value, headers, attributes, .. } = **record;
            let timestamp_us = record.timestamp_us.unwrap_or_else(crate::clock::utc_us);
            let refused = |refused| Error::config(&format!("a record of the atomic step: {refused}"));
            builder.push(&NewRecord { key, value, headers, timestamp_us, attributes }).map_err(refused)?;
        }
        let sequence = self.sequences.get(&uid).copied().unwrap_or(0);
        let mut batch = Vec::new();
        builder.finish_plain(&mut batch, ProducerMark { id: self.producer_id, epoch: 0, sequence });
        Ok(batch)
    }
}
