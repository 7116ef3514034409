//! Dropping the oldest records of a topic's partitions.
//!
//! Invariants: what is to be dropped is settled as offsets once, before anything is sent, so that a request may be repeated
//! without dropping what came later; partitions that do not exist or do not reach that far are refused before anything is dropped.
//! Not here: the connection and its retries (`client.rs`).

use std::time::Instant;

use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::trim::{TrimAnswer, TrimEntry, TrimPartitionsReply, TrimPartitionsRequest};

use crate::admin::{Shared, pause};
use crate::client::{Client, PARTITIONS_PER_REQUEST_MAX};
use crate::core::Backoff;
use crate::error::Error;
use crate::link::Effect;
use crate::owners::{Wanted, aim, answered, refused};
use crate::types::{At, Before, PartitionDescription, TrimmedPartition};

impl Client {
    /// Drops all records below `before` of these partitions of a topic (all of them, when none is named); answers where each begins
    /// and ends then, in the order asked. When this returns, no dropped record is ever delivered again, also not after a crash; space
    /// is freed later. Partitions that begin at or above `before` stay as they are. An offset above the committed end of one of them is
    /// refused, and nothing is dropped. After any other error some of them may have been trimmed; asking again is harmless.
    pub fn trim_topic(&self, name: &str, before: Before, partitions: &[u32]) -> Result<Vec<TrimmedPartition>, Error> {
        let deadline = self.shared().deadline();
        let (chosen, described) = self.described_whole(name, partitions, deadline)?;
        let mut wanted: Vec<Wanted<u64>> = chosen
            .iter()
            .map(|&partition| {
                let PartitionDescription { uid, committed_end, .. } = described[partition as usize];
                Wanted { partition, uid: Some(uid), asked: committed_end }
            })
            .collect();
        match before {
            Before::Latest => {}
            Before::Offset(offset) => wanted.iter_mut().for_each(|wanted| wanted.asked = offset),
            Before::Time(us) => {
                let asked: Vec<(u32, At)> = chosen.iter().map(|&partition| (partition, At::Time(us))).collect();
                let found = self.shared().list_offsets(name, &asked, deadline)?;
                // What was committed a moment ago bounds it: a topic can show records that are not committed yet.
                wanted.iter_mut().zip(found).for_each(|(wanted, found)| wanted.asked = wanted.asked.min(found.offset));
            }
        }
        // The broker checks each partition for itself; here nothing is dropped when one of them is refused.
        if let Some((too_short, end)) =
            wanted.iter().map(|w| (w, described[w.partition as usize].committed_end)).find(|(w, end)| w.asked > *end)
        {
            let what = format!("trim topic {name:?}");
            return Err(refused(&what, too_short.partition, ErrorCode::OffsetOutOfRange, past_end(too_short.asked, end)));
        }
        self.shared().trim(name, &wanted, deadline)
    }
}

impl Client {
    /// The partitions that are meant (all, when none is named), and those of the topic. Each that is meant was told of by its leader.
    fn described_whole(&self, name: &str, partitions: &[u32], deadline: Instant) -> Result<(Vec<u32>, Vec<PartitionDescription>), Error> {
        let what = format!("trim topic {name:?}");
        let mut backoff = Backoff::seeded(crate::clock::seed());
        loop {
            let described = self.describe_topic_until(name, deadline)?.partitions;
            let chosen: Vec<u32> = if partitions.is_empty() { (0..described.len() as u32).collect() } else { partitions.to_vec() };
            let mut untold = None;
            for &partition in &chosen {
                match described.get(partition as usize) {
                    Some(found) if found.error.is_ok() => {}
                    Some(found) => untold = Some(refused(&what, partition, found.error, String::new())),
                    None => {
                        let partitions = described.len() as u32;
                        return Err(Error::NoSuchPartition { topic: name.to_string(), partition, partitions });
                    }
                }
            }
            match untold {
                Some(error) => pause(&what, &mut backoff, deadline, self.config(), error)?,
                None => return Ok((chosen, described)),
            }
        }
    }
}

impl Shared {
    /// Each partition with the offset below which it is trimmed.
    fn trim(&self, topic: &str, wanted: &[Wanted<u64>], deadline: Instant) -> Result<Vec<TrimmedPartition>, Error> {
        let what = format!("trim topic {topic:?}");
        let mut trimmed: Vec<TrimmedPartition> =
            wanted.iter().map(|wanted| TrimmedPartition { partition: wanted.partition, log_start: 0, committed_end: 0 }).collect();
        self.by_owner(&what, topic, wanted, PARTITIONS_PER_REQUEST_MAX, deadline, |questions| {
            let entries: Vec<TrimEntry> = questions.iter().map(|q| TrimEntry { partition_uid: q.uid, before: q.asked }).collect();
            let request = TrimPartitionsRequest { entries: List::of(&entries) };
            let encode = |meta: &mut Vec<u8>| request.encode(meta);
            // The same offsets again drop nothing more.
            let answers: Vec<TrimAnswer> =
                self.call_until(aim(questions, deadline), &what, Kind::TrimPartitions, Effect::Repeatable, encode, |meta| {
                    Ok(TrimPartitionsReply::decode(meta)?.entries.iter().collect())
                })?;
            for (question, answer) in answered(questions, answers, |answer| answer.partition_uid)? {
                if !answer.error.is_ok() {
                    let past_end = (answer.error == ErrorCode::OffsetOutOfRange).then(|| past_end(question.asked, answer.committed_end));
                    return Err(refused(&what, question.partition, answer.error, past_end.unwrap_or_default()));
                }
                let told = &mut trimmed[question.place];
                (told.log_start, told.committed_end) = (answer.log_start, answer.committed_end);
            }
            Ok(())
        })?;
        Ok(trimmed)
    }
}

fn past_end(before: u64, committed_end: u64) -> String {
    format!("offset {before} is past the committed end: trim before {committed_end} at most, or name only partitions that reach it")
}
