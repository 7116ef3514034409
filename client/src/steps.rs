//! Atomic steps: messages of queues are acknowledged, records are published and offsets are committed as one, all or nothing.
//!
//! Invariants: a step that publishes and whose outcome is not known is settled before the next one is begun: it is sent again, unchanged, under the same numbers of the same
//! producer, so that a node which has carried it out answers as the first time; a number that was given is never given again (`core::producer::sequence`): after a refusal the
//! epoch of the partitions rises, which shuts out whatever copy is still on its way; nothing is sent again once the broker may have forgotten the numbers.
//!
//! Not here: what has to lie together (docs/PROTOCOL.md, "The atomic step"), receiving (`queue_consumer.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, mark_producer};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::produce::ProduceEntry;
use tramline_wire::producer::{InitProducerReply, InitProducerRequest};
use tramline_wire::step::{StepAck, StepCommit, StepReply, StepRequest};

use crate::admin::{Shared, pause};
use crate::client::{Client, existing_topic};
use crate::core::producer::sequence::{Marked, Meaning, Readiness, Sequence, Verdict};
use crate::core::{Backoff, SharedBytes};
use crate::error::Error;
use crate::link::Effect;
use crate::message::LeaseToken;
use crate::producer::Record;

/// What becomes true together. Everything lies in one replica group: create the output's topic with the setting `co.locate` = the input's topic, and
/// publish to the partition of the same number.
#[derive(Debug, Clone, Default)]
pub struct Step<'a> {
    acks: Vec<StepAck>,
    commits: Vec<StepCommit<'a>>,
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
        let LeaseToken { partition_uid, offset, lease } = token;
        self.acks.push(StepAck { queue_uid, partition_uid, offset, lease });
        self
    }

    /// Commits the next offset to read of a partition for a consumer group, with a text of at most 4,096 bytes. `assignment_epoch`: under which the
    /// partition is owned; 0 for whoever is in no group.
    #[must_use]
    pub fn commit(mut self, group_uid: u64, partition_uid: u64, assignment_epoch: u64, offset: u64, metadata: &'a str) -> Step<'a> {
        self.commits.push(StepCommit { group_uid, partition_uid, assignment_epoch, offset, metadata });
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
    /// Batches, and what is known of each.
    payload: Vec<SharedBytes>,
    batches: Vec<Batch>,
    /// A copy of it got no answer that counts.
    in_doubt: bool,
    first_sent: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    records: u32,
    marked: Marked,
}

/// What an attempt has come to.
enum Next {
    Again,
    /// It ends with this error, and is not settled.
    Keep(Error),
    /// It ends with this error, and is over.
    GiveUp(Error),
}

/// Carries steps out, each once: made by [`Client::steps`]. One step at a time; what publishes carries the marks of an idempotent producer.
///
/// **Errors.** [`Error::OutcomeUnknown`]: the step may have been carried out or not. If it publishes, the next call, or [`settle`](Self::settle), finds out before anything else is done,
/// for as long as the broker remembers its numbers (half of the node's `producer.expiry`). After any other error nothing of the step happened, and nothing will; only
/// `duplicate_too_old` says that it was carried out, so long ago that its offsets are not remembered.
///
/// **A step that publishes nothing** has no numbers by which the broker would know it again, so it is sent once: with [`Error::OutcomeUnknown`] it is over. Its commits can be made again;
/// that its acks were made is said by `unknown_lease` when they are, which can mean as well that the leases are over. To be sure, publish something.
#[derive(Debug)]
pub struct Steps {
    shared: Arc<Shared>,
    producer_id: u64,
    /// The broker forgets a producer that was silent for so long.
    expiry: Duration,
    /// The numbers of each partition that was published to.
    sequences: BTreeMap<u64, Sequence>,
    /// Steps that were begun.
    begun: u64,
    /// Uids of the partitions of topics, as far as nothing went wrong with them.
    topics: BTreeMap<String, Vec<u64>>,
    unsettled: Option<Sent>,
}

impl Client {
    /// Begins to carry out atomic steps, under an identity of its own.
    pub fn steps(&self) -> Result<Steps, Error> {
        let shared = self.share();
        let InitProducerReply { producer_id, expiry_ms, .. } = new_producer(&shared)?;
        let expiry = Duration::from_millis(expiry_ms.into());
        Ok(Steps { shared, producer_id, expiry, sequences: BTreeMap::new(), begun: 0, topics: BTreeMap::new(), unsettled: None })
    }
}

fn new_producer(shared: &Shared) -> Result<InitProducerReply, Error> {
    let encode = |meta: &mut Vec<u8>| InitProducerRequest {}.encode(meta);
    shared.call("begin atomic steps", Kind::InitProducer, Effect::Repeatable, encode, InitProducerReply::decode)
}

impl Steps {
    /// Carries out a step. Answers (partition uid, offset of its first record) for each partition that was published to, in the order in which the step
    /// names them.
    ///
    /// If the outcome of the step before is not known, that one is settled first; what became of it is told by [`settle`](Self::settle) alone.
    pub fn take(&mut self, step: &Step<'_>) -> Result<Vec<(u64, u64)>, Error> {
        if let Err(error) = self.send("settle the atomic step before")
            && self.unsettled.is_some()
        {
            return Err(error);
        }
        let sent = self.prepare(step)?;
        self.unsettled = Some(sent);
        self.send("atomic step").map(|done| done.expect("a step was just prepared"))
    }

    /// Finds out what became of a step whose outcome is not known, if there is one: it is carried out now if it was not. `None`: there was none.
    pub fn settle(&mut self) -> Result<Option<Vec<(u64, u64)>>, Error> {
        self.send("settle an atomic step")
    }

    fn send(&mut self, what: &str) -> Result<Option<Vec<(u64, u64)>>, Error> {
        let deadline = self.shared.deadline();
        let mut backoff = Backoff::seeded(crate::clock::seed());
        let mut may_renumber = true;
        loop {
            let Some(sent) = &self.unsettled else { return Ok(None) };
            if sent.in_doubt && sent.first_sent.elapsed() > self.expiry / 2 {
                let reason = Error::config("the broker may not remember by now whether it was carried out, so it is not sent again");
                return Err(self.give_up(what, reason));
            }
            let error = match self.send_once(sent, what, deadline) {
                Ok(done) => {
                    self.unsettled = None;
                    return Ok(Some(done));
                }
                Err(error) => error,
            };
            match self.after(error, &mut may_renumber) {
                Next::Again => {}
                Next::GiveUp(error) => return Err(self.give_up(what, error)),
                Next::Keep(error @ Error::OutcomeUnknown { .. }) => {
                    if let Err(late) = pause(what, &mut backoff, deadline, &self.shared.config, error) {
                        return Err(unknown(what, late));
                    }
                }
                Next::Keep(error) => return Err(unknown(what, error)),
            }
        }
    }

    /// One copy. What may have been carried out is not repeated in here, so that it is known.
    fn send_once(&self, sent: &Sent, what: &str, deadline: Instant) -> Result<Vec<(u64, u64)>, Error> {
        let encode = |meta: &mut Vec<u8>| meta.extend_from_slice(&sent.meta);
        let decode = |meta: &[u8]| {
            let reply = StepReply::decode(meta)?;
            Ok(reply.results.iter().map(|result| (result.partition_uid, result.base_offset)).collect::<Vec<_>>())
        };
        let effect = if sent.batches.is_empty() { Effect::Once } else { Effect::Marked };
        self.shared.call_with_payload(deadline, what, Kind::Step, effect, &sent.payload, encode, decode)
    }

    /// What comes after an attempt that failed.
    fn after(&mut self, error: Error, may_renumber: &mut bool) -> Next {
        let Some(sent) = &mut self.unsettled else { return Next::GiveUp(error) };
        let meaning = match &error {
            Error::OutcomeUnknown { .. } => Meaning::Unknown,
            Error::Refused { code, .. } => Meaning::of(*code),
            // Its time is over, and each copy was refused for now or never left; or it cannot be sent at all.
            _ => Meaning::NotNow,
        };
        sent.in_doubt |= meaning == Meaning::Unknown;
        match meaning {
            Meaning::Unknown if sent.batches.is_empty() => Next::GiveUp(error),
            Meaning::Unknown => Next::Keep(error),
            Meaning::NotNow if sent.in_doubt => Next::Keep(error),
            Meaning::Missing | Meaning::Fenced if std::mem::take(may_renumber) => {
                let of = |batch: &Batch| Marked { in_doubt: sent.in_doubt, last: meaning, ..batch.marked };
                let verdict = |batch: &Batch| self.sequences.get(&batch.marked.uid).map(|sequence| sequence.verdict(&of(batch)));
                let again = Verdict::Renumber { fenced: meaning == Meaning::Fenced };
                match sent.batches.iter().all(|batch| verdict(batch) == Some(again)) {
                    true => self.renumber(meaning == Meaning::Fenced).map_or_else(Next::GiveUp, |()| Next::Again),
                    false => Next::GiveUp(error),
                }
            }
            Meaning::Stored => {
                sent.in_doubt = false;
                Next::GiveUp(error)
            }
            Meaning::NotNow | Meaning::Never | Meaning::Missing | Meaning::Fenced => Next::GiveUp(error),
        }
    }

    /// The step is over. What its numbers were is never used again.
    fn give_up(&mut self, what: &str, error: Error) -> Error {
        // Perhaps it failed because its partitions are others by now.
        self.topics.clear();
        let Some(sent) = self.unsettled.take() else { return error };
        for Batch { marked, .. } in &sent.batches {
            if let Some(sequence) = self.sequences.get_mut(&marked.uid) {
                sequence.on_given_up(&Marked { in_doubt: sent.in_doubt, ..*marked }, self.begun);
            }
        }
        if sent.in_doubt { unknown(what, error) } else { error }
    }

    /// No copy of the step was carried out, and none will be: it gets numbers of the next epoch, or of another producer.
    fn renumber(&mut self, is_fenced: bool) -> Result<(), Error> {
        let Some(mut sent) = self.unsettled.take() else { return Ok(()) };
        let renumbered = self.renumber_sent(&mut sent, is_fenced);
        self.unsettled = Some(sent);
        renumbered
    }

    fn renumber_sent(&mut self, sent: &mut Sent, is_fenced: bool) -> Result<(), Error> {
        (sent.in_doubt, sent.first_sent) = (false, Instant::now());
        for batch in &sent.batches {
            if let Some(sequence) = self.sequences.get_mut(&batch.marked.uid) {
                sequence.renumber(is_fenced);
            }
            self.make_ready(batch.marked.uid)?;
        }
        for (batch, bytes) in sent.batches.iter_mut().zip(&mut sent.payload) {
            batch.marked = self.mark(batch.marked.uid, batch.records);
            let bytes: &mut Vec<u8> = Arc::make_mut(bytes);
            mark_producer(bytes, batch.marked.mark);
        }
        Ok(())
    }

    /// Sees to it that the next batch of a partition can have its mark. One step at a time: none is in flight.
    fn make_ready(&mut self, uid: u64) -> Result<(), Error> {
        let known = self.sequences.get(&uid).copied();
        let mut sequence = known.unwrap_or_default();
        if sequence.prepare(0).0 == Readiness::NoId {
            if known.is_some() {
                // All epochs of the id were used, or somebody else has it.
                self.producer_id = new_producer(&self.shared)?.producer_id;
            }
            sequence.name(self.producer_id);
        }
        self.sequences.insert(uid, sequence);
        Ok(())
    }

    fn mark(&mut self, uid: u64, records: u32) -> Marked {
        self.sequences.get_mut(&uid).expect("it was made ready").mark(uid, records)
    }

    fn prepare(&mut self, step: &Step<'_>) -> Result<Sent, Error> {
        self.look_up(step)?;
        let mut places: Vec<(u64, BatchBuilder, u32)> = Vec::new();
        for record in &step.records {
            let uid = self.uid_of(record)?;
            let at = places.iter().position(|(known, ..)| *known == uid).unwrap_or_else(|| {
                places.push((uid, BatchBuilder::new(Limits::default()), 0));
                places.len() - 1
            });
            let (_, builder, records) = &mut places[at];
            let Record { key, value, headers, attributes, .. } = *record;
            let timestamp_us = record.timestamp_us.unwrap_or_else(crate::clock::utc_us);
            let refused = |refused| Error::config(&format!("a record of the atomic step: {refused}"));
            builder.push(&NewRecord { key, value, headers, timestamp_us, attributes }).map_err(refused)?;
            *records += 1;
        }
        places.iter().try_for_each(|(uid, ..)| self.make_ready(*uid))?;
        // From here on nothing fails: what has a number is sent.
        self.begun += 1;
        let mut sent = Sent { meta: Vec::new(), payload: Vec::new(), batches: Vec::new(), in_doubt: false, first_sent: Instant::now() };
        let mut entries = Vec::with_capacity(places.len());
        for (uid, mut builder, records) in places {
            let marked = self.mark(uid, records);
            let mut batch = Vec::new();
            builder.finish_plain(&mut batch, marked.mark);
            entries.push(ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
            sent.batches.push(Batch { records, marked });
            sent.payload.push(Arc::new(batch));
        }
        let (acks, commits, entries) = (List::of(&step.acks), List::of(&step.commits), List::of(&entries));
        StepRequest { flags: 0, acks, commits, entries }.encode(&mut sent.meta);
        Ok(sent)
    }

    /// Gets the partitions of topics that are not known.
    fn look_up(&mut self, step: &Step<'_>) -> Result<(), Error> {
        let mut names: Vec<&str> = step.records.iter().filter(|record| self.uid_of(record).is_err()).map(|record| record.topic).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let metadata = self.shared.metadata(&names)?;
        for name in names {
            let uids = existing_topic(&metadata, name)?.partitions.iter().map(|partition| partition.uid).collect();
            self.topics.insert(name.to_string(), uids);
        }
        Ok(())
    }

    fn uid_of(&self, record: &Record<'_>) -> Result<u64, Error> {
        let uids = self.topics.get(record.topic).map(Vec::as_slice).unwrap_or_default();
        let partition = record.partition.ok_or_else(|| Error::config("a record of an atomic step has to name its partition"))?;
        uids.get(partition as usize).copied().ok_or_else(|| Error::NoSuchPartition {
            topic: record.topic.to_string(),
            partition,
            partitions: uids.len() as u32,
        })
    }
}

/// The end of an attempt at a step that may have been carried out.
fn unknown(what: &str, error: Error) -> Error {
    match error {
        Error::OutcomeUnknown { .. } => error,
        error => Error::OutcomeUnknown { request: what.to_string(), address: "the broker".to_string(), reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
