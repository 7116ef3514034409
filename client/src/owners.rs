//! Questions about partitions of a topic, sorted by who owns them.
//!
//! A request about partitions goes to one owner, and names a bounded number of them; the owners are those of fresh metadata, and all of it is asked again
//! where one answers with what may pass. Answers are those to the questions, in their order, or none is believed.
//!
//! Not here: what is asked (`client.rs`, `trim.rs`, `groups.rs`, `queues.rs`).

use std::collections::BTreeMap;
use std::time::Instant;

use tramline_wire::error::ErrorCode;

use crate::admin::{Aim, Shared, pause};
use crate::core::Backoff;
use crate::error::Error;

/// A question about one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<T> {
    /// Number of the partition.
    pub partition: u32,
    /// Only the partition with this uid: one of a topic of the same name made meanwhile is another one.
    pub uid: Option<u64>,
    /// What is asked.
    pub asked: T,
}

/// The same as part of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed<T> {
    /// Its place among the questions.
    pub place: usize,
    /// Number of the partition.
    pub partition: u32,
    /// The partition.
    pub uid: u64,
    /// The node that leads it.
    pub node: u32,
    /// What is asked.
    pub asked: T,
}

impl Shared {
    /// Lets `each` ask the owners of partitions of `topic`, at most `count_max` partitions at once. What `each` did for a request is done again when a
    /// later one is to be tried again.
    pub(crate) fn by_owner<T: Copy>(
        &self,
        what: &str,
        topic: &str,
        wanted: &[Wanted<T>],
        count_max: usize,
        deadline: Instant,
        mut each: impl FnMut(&[Placed<T>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut backoff = Backoff::seeded(crate::clock::seed());
        loop {
            let partitions = self.topic(topic, deadline)?.partitions;
            let mut by_owner: BTreeMap<(u32, u16), Vec<Placed<T>>> = BTreeMap::new();
            for (place, &Wanted { partition, uid, asked }) in wanted.iter().enumerate() {
                let found = match (partitions.get(partition as usize), uid) {
                    (Some(found), None) => found,
                    (Some(found), Some(uid)) if found.uid == uid => found,
                    (_, Some(_)) => return Err(refused(what, partition, ErrorCode::TopicDeleted, String::new())),
                    (None, None) => {
                        return Err(Error::NoSuchPartition { topic: topic.to_string(), partition, partitions: partitions.len() as u32 });
                    }
                };
                let owner = (found.leader_node, found.leader_shard);
                by_owner.entry(owner).or_default().push(Placed { place, partition, uid: found.uid, node: found.leader_node, asked });
            }
            let mut requests = by_owner.values().flat_map(|of_owner| of_owner.chunks(count_max));
            match requests.try_for_each(&mut each) {
                Err(error) if error.retriable() => pause(what, &mut backoff, deadline, &self.config, error)?,
                result => return result,
            }
        }
    }
}

/// Whom questions of one owner go to, and until when.
pub(crate) fn aim<T>(questions: &[Placed<T>], deadline: Instant) -> Aim {
    Aim { deadline, node: questions.first().map(|question| question.node) }
}

/// Each question with its answer, whose uid `uid_of` tells.
pub(crate) fn answered<T, A>(
    asked: &[Placed<T>],
    answers: Vec<A>,
    uid_of: impl Fn(&A) -> u64,
) -> Result<impl Iterator<Item = (&Placed<T>, A)>, Error> {
    if answers.len() != asked.len() {
        return Err(Error::protocol("the broker", format!("it answered {} of {} partitions", answers.len(), asked.len())));
    }
    for (question, answer) in asked.iter().zip(&answers) {
        if uid_of(answer) != question.uid {
            let message = format!("it answered about partition uid {} where {} was asked about", uid_of(answer), question.uid);
            return Err(Error::protocol("the broker", message));
        }
    }
    Ok(asked.iter().zip(answers))
}

/// The refusal of one partition of a request.
pub(crate) fn refused(what: &str, partition: u32, code: ErrorCode, message: String) -> Error {
    Error::Refused { request: format!("{what} partition {partition}"), code, retriable: code.retriable(), message, next: None }
}
