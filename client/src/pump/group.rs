//! The turn of a member of a consumer group: its membership's connections and its consumer's, and what the one tells the other and the application.
//!
//! Invariants: no record is handed out while there is something to tell about partitions, nor while the home has not confirmed the membership for a whole session; and nothing is
//! handed out between the application's word that it is done with what it has (the call of `poll`) and the commit by itself that says so.
//!
//! Not here: waiting (the facades), deciding (`core::group`, `core::consumer`).

use std::ops::ControlFlow;

use super::ConsumerPump;
use crate::admin::Shared;
use crate::config::GroupConfig;
use crate::core::Now;
use crate::core::consumer::{Delivered, RecordView};
use crate::core::group::{CommitKind, GroupCore, Notice};
use crate::core::links::Links;
use crate::error::Error;
use crate::group_listener::{Commit, CommitOutcome, GroupListener, Revoked, TopicPartition};
use crate::link::closed_by_peer;
use crate::transport::{Driver, Received, Slot, Wire};
use tramline_wire::error::ErrorCode;

/// A member with its connections.
pub(crate) struct GroupPump<S: Wire> {
    pub reader: ConsumerPump<S>,
    pub core: GroupCore,
    pub links: Links,
    pub driver: Driver<S>,
    listener: Box<dyn GroupListener>,
}

impl<S: Wire + std::fmt::Debug> std::fmt::Debug for GroupPump<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupPump").field("core", &self.core).field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl<S: Wire> GroupPump<S> {
    pub(crate) fn new(shared: &Shared, config: GroupConfig, listener: Box<dyn GroupListener>) -> Result<GroupPump<S>, Error> {
        let reader = ConsumerPump::new(shared, config.consumer.clone())?;
        let core = GroupCore::new(config, &shared.config, crate::clock::seed() as u32)?;
        Ok(GroupPump { reader, core, links: Links::new(&shared.config), driver: Driver::default(), listener })
    }

    /// One turn of everything, without waiting; returns what was handed out and whether anything moved.
    pub(crate) fn turn(&mut self, now: Now, each: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>) -> (Delivered, bool) {
        if self.core.is_auto_commit_due(now) {
            self.core.auto_commit(self.positions(), now);
        }
        let mut progress = self.turn_member(now);
        if self.tell(now) {
            // What was said is sent at once, not when the application comes back.
            self.turn_member(now);
            progress = true;
        }
        if !self.may_read(now) {
            return (Delivered::default(), progress);
        }
        let (delivered, moved) = self.reader.turn(now, each);
        (delivered, progress || moved)
    }

    /// One turn of the membership and of commits; returns whether anything moved.
    pub(crate) fn turn_member(&mut self, now: Now) -> bool {
        let GroupPump { core, links, driver, .. } = self;
        core.step(now);
        links.step(core, now);
        driver.dial(links, core, now);
        driver.look();
        let mut progress = false;
        for place in 0..driver.places() {
            let Some((lane, slot)) = driver.open_lane(place, links) else {
                progress |= driver.turn(place, links, core, now);
                continue;
            };
            match exchange(slot, core, lane, now) {
                Ok(moved) => progress |= moved,
                Err(error) => {
                    driver.fail(place, links, core, error, now);
                    progress = true;
                }
            }
        }
        progress
    }

    /// Whether the consumer's connections are of interest.
    pub(crate) fn may_read(&self, now: Now) -> bool {
        self.core.may_deliver(now) && !self.core.has_notice()
    }

    /// Tells the consumer and the application what there is to tell; returns whether there was anything.
    pub(crate) fn tell(&mut self, now: Now) -> bool {
        let mut told = false;
        while let Some(notice) = self.core.take_notice() {
            told = true;
            match notice {
                Notice::Assigned(parts) => {
                    self.reader.core.learn_nodes(self.core.view());
                    for (part, place, position) in &parts {
                        if let Some(position) = position {
                            self.reader.core.assign(&part.topic, place, *position);
                        }
                    }
                    let parts: Vec<TopicPartition> = parts.into_iter().map(|(part, ..)| part).collect();
                    if !parts.is_empty() {
                        self.listener.on_assigned(&parts);
                    }
                }
                Notice::Moved(part, place, position) => self.reader.core.assign(&part.topic, &place, position),
                Notice::Revoked(parts) => self.tell_revoked(&parts, now),
                Notice::Lost(parts) => {
                    self.stop(&parts);
                    self.listener.on_lost(&parts);
                }
            }
        }
        while let Some(outcomes) = self.core.take_async() {
            self.listener.on_committed(&outcomes);
            told = true;
        }
        told
    }

    fn tell_revoked(&mut self, parts: &[TopicPartition], now: Now) {
        let positions = parts.iter().map(|part| self.reader.core.position(&part.topic, part.partition)).collect();
        self.stop(parts);
        let mut revoked = Revoked { partitions: parts, positions, commits: Vec::new() };
        // All of them may have been lost since.
        if !parts.is_empty() {
            self.listener.on_revoked(&mut revoked);
        }
        let Revoked { positions, commits, .. } = revoked;
        let of_itself = |(part, position): (&TopicPartition, Option<u64>)| {
            let TopicPartition { topic, partition } = part.clone();
            let is_said = commits.iter().any(|commit| (&commit.topic, commit.partition) == (&topic, partition));
            let offset = position.filter(|_| !is_said)?;
            Some(Commit { topic, partition, offset, metadata: String::new() })
        };
        if self.core.config.auto_commit {
            self.core.commit_news(parts.iter().zip(positions).filter_map(of_itself).collect(), now);
        }
        if !commits.is_empty()
            && let Err(error) = self.core.commit(CommitKind::Auto, &commits, now)
        {
            self.core.tell_error(error);
        }
        self.core.released(now);
    }

    /// These are read no more.
    fn stop(&mut self, parts: &[TopicPartition]) {
        for part in parts {
            self.reader.core.unassign(&part.topic, part.partition);
        }
    }

    /// How far each partition was handed out.
    pub(crate) fn positions(&self) -> Vec<Commit> {
        let reader = &self.reader.core;
        let position = |(topic, partition): (&str, u32)| {
            let offset = reader.position(topic, partition)?;
            Some(Commit { topic: topic.to_string(), partition, offset, metadata: String::new() })
        };
        reader.assigned().filter_map(position).collect()
    }

    /// The next error to tell. A partition whose next record is gone goes on where the settings say, without one.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        if let Some(error) = self.core.take_error() {
            return Some(error);
        }
        while let Some(error) = self.reader.core.take_error() {
            match &error {
                Error::Partition { topic, partition, .. }
                    if error.code() == Some(ErrorCode::OffsetOutOfRange) && self.core.reset(topic, *partition) => {}
                _ => return Some(error),
            }
        }
        None
    }

    /// Whether there may be an error to tell.
    pub(crate) fn has_error(&self) -> bool {
        self.core.has_error() || self.reader.core.has_error()
    }

    /// When a turn is due even if no socket is ready.
    pub(crate) fn next_step_us(&self, now: Now) -> u64 {
        let reader = if self.may_read(now) { self.reader.next_step_us(now) } else { u64::MAX };
        self.next_member_us(now).min(self.core.next_auto_commit_us()).min(reader)
    }

    /// The same of the membership alone.
    pub(crate) fn next_member_us(&self, now: Now) -> u64 {
        self.core.next_step_us(now).min(self.links.next_step_us())
    }

    /// Where a partition is read from now on, which has to be this member's.
    pub(crate) fn check_assigned(&self, topic: &str, partition: u32) -> Result<(), Error> {
        if self.core.has(topic, partition) {
            return Ok(());
        }
        Err(Error::config(&format!("topic {topic} partition {partition} is not assigned to this member of its group: seek only what is")))
    }
}

/// The first error of a job, if any.
pub(crate) fn first_error(outcomes: Vec<CommitOutcome>) -> Result<(), Error> {
    outcomes.into_iter().find_map(|outcome| outcome.error).map_or(Ok(()), Err)
}

fn exchange<S: Wire>(slot: &mut Slot<S>, core: &mut GroupCore, lane: usize, now: Now) -> Result<bool, Error> {
    use crate::core::links::Lanes;
    let failed = |slot: &Slot<S>, doing, source| Error::io(doing, slot.socket.address(), source);
    let written = slot.socket.flush(core.conn(lane)).map_err(|source| failed(slot, "cannot send to", source))?;
    let silent = core.is_silent(lane, now);
    match slot.socket.fill(core.conn(lane), silent) {
        Ok(Received::Some(_)) => {
            slot.received_us = now.mono_us;
            core.on_received(lane, now)?;
            // What an answer brought (the next heartbeat) goes out at once.
            slot.socket.flush(core.conn(lane)).map_err(|source| failed(slot, "cannot send to", source))?;
            Ok(true)
        }
        Ok(Received::Empty) if silent => Err(super::overdue(slot)),
        Ok(Received::Empty) => Ok(written > 0),
        Ok(Received::Closed) => Err(failed(slot, "cannot receive from", closed_by_peer())),
        Err(source) => Err(failed(slot, "cannot receive from", source)),
    }
}
