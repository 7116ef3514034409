//! Where a consumer begins, and where the ends are: the questions that it asks before it reads.
//!
//! Blocking calls of the administrative connection, for the blocking consumer and its asynchronous twin alike. Not here: reading.

use crate::admin::Shared;
use crate::client::existing_topic;
use crate::core::consumer::{ConsumerCore, check_owners};
use crate::error::Error;
use crate::types::{At, Metadata, PartitionMetadata, Start};

/// Partitions of a topic with the offsets to begin at.
#[derive(Debug)]
pub(crate) struct Assignment {
    topic: String,
    metadata: Metadata,
    positions: Vec<(PartitionMetadata, u64)>,
}

impl Assignment {
    /// Lets a consumer read from there; returns the number of partitions.
    pub(crate) fn give_to(self, core: &mut ConsumerCore) -> u32 {
        core.learn_nodes(&self.metadata);
        for (partition, position) in &self.positions {
            core.assign(&self.topic, partition, *position);
        }
        self.positions.len() as u32
    }
}

impl Shared {
    /// Where to begin in these partitions of a topic, all when `None`; two requests in all, however many they are.
    pub(crate) fn assignment(&self, topic: &str, partitions: Option<&[u32]>, start: Start) -> Result<Assignment, Error> {
        let deadline = self.deadline();
        let metadata = self.metadata_until(&[topic], deadline)?;
        check_owners(&metadata)?;
        let found = &existing_topic(&metadata, topic)?.partitions;
        let all: Vec<u32> = (0..found.len() as u32).collect();
        let partitions = partitions.unwrap_or(&all);
        let mut wanted = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let known = found.get(partition as usize).ok_or_else(|| Error::NoSuchPartition {
                topic: topic.to_string(),
                partition,
                partitions: found.len() as u32,
            })?;
            wanted.push(*known);
        }
        let at = match start {
            Start::Offset(offset) => {
                let positions = wanted.into_iter().map(|partition| (partition, offset)).collect();
                return Ok(Assignment { topic: topic.to_string(), metadata, positions });
            }
            Start::Earliest => At::Earliest,
            Start::Latest => At::Latest,
            Start::Time(us) => At::Time(us),
        };
        let asked: Vec<(u32, At)> = partitions.iter().map(|&partition| (partition, at)).collect();
        let offsets = if asked.is_empty() { Vec::new() } else { self.list_offsets(topic, &asked, deadline)? };
        let positions = wanted.into_iter().zip(offsets).map(|(partition, found)| (partition, found.offset)).collect();
        Ok(Assignment { topic: topic.to_string(), metadata, positions })
    }

    /// The committed end of each of these partitions: topic, partition, offset; in order.
    pub(crate) fn ends_of(&self, mut assigned: Vec<(String, u32)>) -> Result<Vec<(String, u32, u64)>, Error> {
        assigned.sort_unstable();
        let deadline = self.deadline();
        let mut ends = Vec::with_capacity(assigned.len());
        for of_topic in assigned.chunk_by(|one, other| one.0 == other.0) {
            let topic = of_topic[0].0.as_str();
            let asked: Vec<(u32, At)> = of_topic.iter().map(|(_, partition)| (*partition, At::Latest)).collect();
            let found = self.list_offsets(topic, &asked, deadline)?;
            ends.extend(found.into_iter().map(|end| (topic.to_string(), end.partition, end.offset)));
        }
        Ok(ends)
    }
}
