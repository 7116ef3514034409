//! Queues as the metadata know them: that they exist, under which identity, on which topic, with which settings, and where dead messages go.
//!
//! Invariants: a uid is given once, also not to a consumer group; a queue's topic exists; dead-letter topics lead in no circle, over any number of
//! queues (by names, so that it holds for topics that are deleted and created again too).
//!
//! Not here: messages, leases and what is settled, which live with the partitions (subscription/queue/).

use super::error::ControlError;
use super::queue_settings::DEAD_LETTER_TOPIC;
use super::view::QueueView;
use crate::constants::QUEUES_MAX;
use crate::ids::TopicUid;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a queue begins, in the partitions that its topic had when it was created.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueStart {
    /// With what is stored from its creation on.
    Latest,
    /// With the oldest there is.
    Earliest,
    /// With the first message of this time (UTC microseconds) or a later one.
    Time(i64),
}

/// All queues of the cluster.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_name: BTreeMap<String, Arc<QueueView>>,
    /// Topic -> where its queues' dead messages go, and how many queues say so.
    dead_letters: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Queues {
    pub(super) fn find(&self, name: &str) -> Result<&Arc<QueueView>, ControlError> {
        self.by_name.get(name).ok_or_else(|| ControlError::UnknownQueue(name.to_owned()))
    }

    /// All, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<QueueView>> {
        self.by_name.values()
    }

    /// Whether one more may be created under `name`, which is a valid one.
    pub(super) fn check_new(&self, name: &str) -> Result<(), ControlError> {
        if self.by_name.contains_key(name) {
            return Err(ControlError::QueueExists(name.to_owned()));
        }
        if self.by_name.len() as u64 >= QUEUES_MAX {
            return Err(ControlError::Limit(format!("the cluster has {QUEUES_MAX} queues, its limit: delete some first")));
        }
        Ok(())
    }

    /// Whether dead messages of a queue on `topic` may go to `dead_letter`: they must never come back. (What the queue itself has said before leads from
    /// its own topic, so it is no part of a way back to it.)
    pub(super) fn check_dead_letter(&self, topic: &str, dead_letter: &str) -> Result<(), ControlError> {
        let mut seen = BTreeSet::from([dead_letter]);
        let mut next = vec![dead_letter];
        while let Some(at) = next.pop() {
            if at == topic {
                return Err(ControlError::DeadLetterCircle { topic: topic.to_owned(), dead_letter: dead_letter.to_owned() });
            }
            let onwards = self.dead_letters.get(at).into_iter().flat_map(BTreeMap::keys);
            next.extend(onwards.map(String::as_str).filter(|to| seen.insert(to)));
        }
        Ok(())
    }

    /// Takes one in, in the place of one of its name; everything about it has been checked.
    pub(super) fn put(&mut self, queue: QueueView) {
        self.remove(&queue.name);
        if let Some(dead_letter) = queue.dead_letter_topic() {
            let of_topic = self.dead_letters.entry(queue.topic_name.clone()).or_default();
            *of_topic.entry(dead_letter.to_owned()).or_default() += 1;
        }
        self.by_name.insert(queue.name.clone(), Arc::new(queue));
    }

    /// Deletes one, if it is there.
    pub(super) fn remove(&mut self, name: &str) {
        let Some(queue) = self.by_name.remove(name) else { return };
        let Some(dead_letter) = queue.dead_letter_topic() else { return };
        let of_topic = self.dead_letters.get_mut(&queue.topic_name).expect("counted when it was put");
        let count = of_topic.get_mut(dead_letter).expect("counted when it was put");
        *count -= 1;
        if *count == 0 {
            of_topic.remove(dead_letter);
        }
        if of_topic.is_empty() {
            self.dead_letters.remove(&queue.topic_name);
        }
    }

    /// Deletes those of a topic that is deleted.
    pub(super) fn remove_of_topic(&mut self, topic: TopicUid) {
        let gone: Vec<_> = self.by_name.values().filter(|queue| queue.topic == topic).map(|queue| queue.name.clone()).collect();
        gone.iter().for_each(|name| self.remove(name));
    }
}

/// The dead-letter topic that a change of settings names, if it names one (an empty one names none).
pub(super) fn named_dead_letter(settings: &[(String, String)]) -> Option<&str> {
    let last = settings.iter().rev().find(|(key, _)| key == DEAD_LETTER_TOPIC)?;
    Some(last.1.as_str()).filter(|name| !name.is_empty())
}
