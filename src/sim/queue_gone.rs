//! At the end of a run: a topic is deleted, and its queues with it.
//!
//! Checked: who waits for a message is told, within a second; the queues are unknown and in no list any more, also when a topic of the same name is created
//! again; where a power cut follows, also after that.
//!
//! Not here: queues that are deleted by themselves (`queue_admin.rs`).

use super::Check;
use super::clients::State;
use super::queue_work::{Wanted, What, Workers};
use super::run::{PATIENCE_US, Run};
use super::totals::Event as Counted;
use super::world::World;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::queue::ListQueuesRequest;
use tramline_wire::topics::DeleteTopicRequest;

/// Who waits: not the one that asks for everything else.
const WAITER: usize = 1;
/// How long it waits at most: much longer than it may take to be told.
const WAIT_MS: u32 = 20_000;
/// Within this time it is told.
const TOLD_US: u64 = 1_000_000;

impl Workers {
    fn queues_of(&self, topic: usize) -> Vec<usize> {
        self.live_queues().into_iter().filter(|queue| self.truth.queues[*queue].topic == topic).collect()
    }

    fn delete_topic(&mut self, world: &mut World, topic: usize) {
        let name = super::queue_admin::Topic::name(topic, 0);
        self.send(world, 0, Kind::DeleteTopic, What::DeleteTopic(topic), |out| DeleteTopicRequest { name: &name }.encode(out));
    }

    /// A topic is gone, and its queues are.
    pub(super) fn on_topic_deleted(&mut self, world: &mut World, topic: usize) {
        world.totals.note(Counted::QueueTopicsDeleted);
        self.topics[topic].is_gone = true;
        let queues: Vec<usize> = (0..self.truth.queues.len()).filter(|queue| self.truth.queues[*queue].topic == topic).collect();
        for queue in queues.into_iter().filter(|queue| self.truth.queues[*queue].state == State::Deleting).collect::<Vec<_>>() {
            self.on_deleted(world, queue);
        }
    }
}

impl Run {
    /// Deletes a topic, if it has queues and is there.
    pub(super) fn check_topic_deletion(&mut self, topic: usize) -> Check {
        let queues = self.workers.queues_of(topic);
        let Some(first) = queues.first().copied().filter(|_| !self.workers.topics[topic].is_gone) else { return Ok(()) };
        let uid = self.workers.topics[topic].uids[0];
        while !self.workers.is_ready(&mut self.world, WAITER) {
            self.pass()?;
        }
        self.workers.ask_for(&mut self.world, WAITER, Wanted::plain(first, uid, 1, WAIT_MS));
        // It is waiting by then.
        self.pass()?;
        queues.iter().for_each(|queue| self.workers.truth.queues[*queue].state = State::Deleting);
        self.find(|workers, world| workers.delete_topic(world, topic), |found| found.topic_deleted.take())?;
        let told_by_us = self.world.now_us + TOLD_US;
        while self.workers.list[WAITER].link.is_waiting() && self.advance(told_by_us)? {}
        if self.workers.list[WAITER].link.is_waiting() {
            return Err(format!("topic {topic} is deleted, and who waits for a message of its queue {first} is not told"));
        }
        let wanted = Wanted::plain(first, uid, 1, 0);
        let code = self.find(|workers, world| workers.ask_for(world, 0, wanted.clone()), |found| found.refused.take())?;
        if code != ErrorCode::UnknownQueue {
            return Err(format!("the topic of queue {first} is deleted, and a receive is refused with {code:?}"));
        }
        self.check_gone(topic)?;
        self.workers.topics[topic].made = 0;
        let limit_us = self.world.now_us + PATIENCE_US;
        while self.workers.topics[topic].made == 0 && self.world.now_us < limit_us {
            self.ask(|workers, world| workers.create_topic(world, 0, topic))?;
        }
        self.check_gone(topic)
    }

    /// No queue of a topic that was deleted is in the list.
    pub(super) fn check_gone(&mut self, topic: usize) -> Check {
        if !self.workers.topics[topic].is_gone {
            return Ok(());
        }
        let request = ListQueuesRequest { after: "" };
        let ask = |workers: &mut Workers, world: &mut World| {
            workers.send(world, 0, Kind::ListQueues, What::ListQueues, |out| request.encode(out))
        };
        let listed = self.find(ask, |found| found.listed.take())?;
        let mut queues = self.workers.truth.queues.iter().filter(|queue| queue.topic == topic && queue.uid != 0);
        match queues.find(|queue| listed.contains(&queue.uid)) {
            Some(queue) => Err(format!("{} ({}) is listed, and its topic was deleted", queue.name, queue.uid)),
            None => Ok(()),
        }
    }
}
