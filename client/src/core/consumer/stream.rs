//! Streams and connections: starting, cancelling, credit, and what errors mean for a partition.
//!
//! An error that may pass makes its partition wait and looks for a new owner; it is told to the caller only when it has
//! lasted for `call_timeout`, and trying goes on. An error that will not pass is told at once and stops the partition
//! until a seek.

use std::sync::Arc;

use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchCancelRequest, FetchCreditRequest, FetchEntry, FetchMode, FetchRequestWriter};
use tramline_wire::kind::Kind;

use super::{ConsumerCore, State};
use crate::core::cluster::{Leadership, Learned, Owner};
use crate::core::{Alive, Now};
use crate::error::Error;
use crate::types::Metadata;

/// Used credit is granted after a silence of this long, however little it is. Ten milliseconds: rare enough to cost nothing.
const GRANT_AFTER_US: u64 = 10_000;

impl ConsumerCore {
    /// Everything that time or the caller's changes bring: partitions to try again, streams to start, credit, pings.
    pub(crate) fn step(&mut self, now: Now) {
        if self.waiting_until_us <= now.mono_us {
            self.resume_waiting(now);
        }
        for lane in 0..self.lanes.len() {
            if !self.lanes[lane].open {
                continue;
            }
            if self.lanes[lane].dirty && self.lanes[lane].start_at_us <= now.mono_us {
                self.start_stream(lane, now);
            }
            self.grant_credit(lane, now);
            let lane = &mut self.lanes[lane];
            if lane.alive.ping_at_us() <= now.mono_us {
                // A ping without fields cannot be above a limit.
                let _ = lane.conn.request(Kind::Ping, |_| {});
                lane.alive.on_pinged(now);
            }
        }
    }

    fn resume_waiting(&mut self, now: Now) {
        self.waiting_until_us = u64::MAX;
        for part in self.parts.iter_mut().filter(|part| part.assigned) {
            if let State::Waiting { until_us } = part.state {
                if until_us <= now.mono_us {
                    part.state = State::Reading;
                    self.lanes[part.lane].dirty = true;
                } else {
                    self.waiting_until_us = self.waiting_until_us.min(until_us);
                }
            }
        }
    }

    fn start_stream(&mut self, lane_index: usize, now: Now) {
        let lane = &mut self.lanes[lane_index];
        lane.dirty = false;
        lane.moved = false;
        lane.used_bytes = 0;
        lane.alive.on_sent(now);
        if let Some(stream) = lane.stream.take() {
            // Twelve bytes cannot be above a limit. The answer is not needed: what is late is known by its correlation.
            let _ = lane.conn.request(Kind::FetchCancel, |meta| FetchCancelRequest { stream }.encode(meta));
        }
        let reading = |part: &&super::Part| part.lane == lane_index && part.is_read();
        let parts = &self.parts;
        if !parts.iter().any(|part| reading(&part)) {
            return;
        }
        let config = &self.config;
        let started = lane.conn.request(Kind::Fetch, |meta| {
            let mode = FetchMode::Streaming;
            // A wait and the least bytes are for one-shot fetches: of a stream they are not looked at.
            let mut writer = FetchRequestWriter::begin(meta, mode, 0, 0, config.credit_bytes);
            for part in parts.iter().filter(reading) {
                let entry = FetchEntry { partition_uid: part.uid, offset: part.position, max_bytes: config.partition_bytes_max };
                writer.push(meta, &entry);
            }
            writer.finish(meta);
        });
        match started {
            Ok(correlation) => {
                lane.stream = Some(correlation);
                lane.stream_first = parts.iter().find(reading).map_or(0, |part| part.uid);
                self.metrics.streams_started += 1;
            }
            Err(oversized) => self.errors.push_back(Error::config(&format!("too many partitions for one consumer: {oversized}"))),
        }
    }

    /// Grants what was used, once that is half of the credit: early enough that the broker never waits for it, late enough
    /// that it is one small frame per many large ones. What was used is also granted after a silence: the broker may count
    /// less than was asked for (`credit.max.bytes`), and then waits before half is used.
    pub(crate) fn grant_credit(&mut self, lane: usize, now: Now) {
        let credit_bytes = u64::from(self.config.credit_bytes);
        let lane = &mut self.lanes[lane];
        let Some(stream) = lane.stream else { return };
        let silent = now.mono_us.saturating_sub(lane.used_at_us) >= GRANT_AFTER_US;
        if lane.used_bytes == 0 || (lane.used_bytes * 2 < credit_bytes && !silent) {
            return;
        }
        let granted = lane.used_bytes.min(u64::from(u32::MAX)) as u32;
        let request = FetchCreditRequest { stream, credit_bytes: granted };
        // Twelve bytes cannot be above a limit.
        let _ = lane.conn.request(Kind::FetchCredit, |meta| request.encode(meta));
        lane.used_bytes -= u64::from(granted);
        lane.alive.on_sent(now);
        self.metrics.credit_grants += 1;
    }

    /// Whether a lane has partitions to read and no connection.
    pub(super) fn wants_connection(&self, lane: usize, now: Now) -> bool {
        let state = &self.lanes[lane];
        let reading = |part: &super::Part| part.assigned && !part.paused && part.lane == lane && part.state != State::Stopped;
        !state.open && !state.connecting && state.connect_at_us <= now.mono_us && self.parts.iter().any(reading)
    }

    /// A lane's socket is connected and has said hello.
    pub(super) fn on_connected(&mut self, lane: usize, address: &str, keepalive_ms: u32, now: Now) {
        let lane = &mut self.lanes[lane];
        lane.open = true;
        lane.connecting = false;
        lane.address = address.to_string();
        lane.stream = None;
        lane.dirty = true;
        lane.alive = Alive::opened(keepalive_ms, now);
        self.metrics.connections_opened += 1;
    }

    /// Whether a ping was not answered in time: the caller gives the connection up when a read brought nothing either.
    pub(crate) fn is_silent(&self, lane: usize, now: Now) -> bool {
        let lane = &self.lanes[lane];
        lane.open && lane.alive.dead_at_us(self.request_timeout_us) <= now.mono_us
    }

    /// A lane could not connect, or lost its connection. Reading goes on at the positions reached.
    pub(super) fn on_lost(&mut self, lane: usize, error: Error, now: Now) {
        let state = &mut self.lanes[lane];
        self.metrics.connections_lost += 1;
        state.open = false;
        state.connecting = false;
        state.conn.reset();
        state.stream = None;
        state.dirty = true;
        state.used_bytes = 0;
        state.connect_at_us = now.mono_us.saturating_add(state.backoff.next_us());
        let since = *state.failing_since_us.get_or_insert(now.mono_us);
        if now.mono_us.saturating_sub(since) >= self.told_after_us {
            state.failing_since_us = Some(now.mono_us);
            let Owner { node, shard } = state.owner;
            self.errors.push_back(Error::Timeout {
                doing: format!("reading from node {node} shard {shard}"),
                after: std::time::Duration::from_micros(now.mono_us - since),
                last: Some(Arc::new(error)),
            });
        }
        for part in self.parts.iter_mut().filter(|part| part.lane == lane) {
            part.leader.failed();
        }
        self.wish.want(now);
    }

    /// A lane's connection was closed because nothing is read over it any more.
    pub(super) fn on_unused(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        lane.open = false;
        lane.connecting = false;
        lane.conn.reset();
        lane.stream = None;
        lane.used_bytes = 0;
    }

    /// Takes over a newer view: partitions may have a new owner, or be gone.
    pub(crate) fn learn(&mut self, metadata: &Metadata, now: Now) {
        self.wish.on_learned(None);
        self.metrics.metadata_refreshes += 1;
        if let Err(error) = super::check_owners(metadata) {
            self.errors.push_back(error);
            return;
        }
        let learned = self.cluster.learn_at(metadata, now);
        match learned {
            Learned::Newer | Learned::Older => {}
            Learned::Lower | Learned::OtherCluster => self.parts.iter_mut().for_each(|part| part.leader = Leadership::default()),
        }
        let is_older = learned == Learned::Older;
        for id in 0..self.parts.len() {
            if !self.parts[id].assigned || self.parts[id].state == State::Stopped {
                continue;
            }
            let part = &self.parts[id];
            let Some(topic) = metadata.topic(&self.topics[part.topic as usize].name) else { continue };
            if is_older && (!topic.error.is_ok() || topic.partitions.get(part.index as usize).is_none_or(|found| found.uid != part.uid)) {
                continue;
            }
            if !topic.error.is_ok() {
                self.entry_failed(id, topic.error, None, now);
                continue;
            }
            match topic.partitions.get(part.index as usize) {
                Some(found) if found.uid == part.uid => {
                    let part = &mut self.parts[id];
                    if part.leader.believes(found.term, is_older) {
                        part.leader.learn(found.term);
                        self.move_to_owner(id, Owner::from(found));
                    }
                }
                // Another topic of the same name: its offsets mean other records.
                _ => self.entry_failed(id, ErrorCode::TopicDeleted, None, now),
            }
        }
    }

    /// A partition cannot be read: waits if it may pass, else tells and stops. `resume`: from where it can be read again.
    pub(super) fn entry_failed(&mut self, id: usize, code: ErrorCode, resume: Option<u64>, now: Now) {
        self.metrics.refusals += 1;
        let part = &mut self.parts[id];
        let may_pass = code.retriable() && {
            let until_us = now.mono_us.saturating_add(part.backoff.next_us());
            part.state = State::Waiting { until_us };
            self.waiting_until_us = self.waiting_until_us.min(until_us);
            self.wish.want(now);
            let since = *part.failing_since_us.get_or_insert(now.mono_us);
            now.mono_us.saturating_sub(since) < self.told_after_us
        };
        if may_pass {
            return; // it has not lasted for long enough to be told
        }
        if code.retriable() {
            part.failing_since_us = Some(now.mono_us);
        } else {
            part.state = State::Stopped;
        }
        let source = Error::Refused { request: "read".to_string(), code, retriable: code.retriable(), message: String::new(), next: None };
        self.errors.push_back(Error::Partition {
            topic: self.topics[part.topic as usize].name.clone(),
            partition: part.index,
            offset: part.position,
            resume,
            source: Arc::new(source),
        });
    }

    /// A refusal names another leader. It is that of the first partition of the stream, by which a node tells where a request goes; for the
    /// others metadata are asked for.
    fn follow(&mut self, lane: usize, next: &str, now: Now) {
        let first = self.lanes[lane].stream_first;
        let (Some(&id), Some(owner)) = (self.by_uid.get(&first), self.cluster.owner_at(next)) else { return };
        let at = self.lanes[lane].owner;
        let part = &mut self.parts[id];
        if part.lane == lane && part.is_read() && part.leader.follow(at, owner) {
            part.failing_since_us.get_or_insert(now.mono_us);
            self.metrics.refusals += 1;
            self.wish.want(now);
            self.move_to_owner(id, owner);
        }
    }

    /// The stream itself was refused.
    pub(super) fn stream_refused(&mut self, lane: usize, error: Error, now: Now) {
        self.lanes[lane].stream = None;
        if let Some(next) = error.next_address() {
            self.follow(lane, next, now);
            self.wish.redirect_to(next);
        }
        let code = error.code().unwrap_or(ErrorCode::Internal);
        if !error.retriable() {
            self.errors.push_back(error);
        }
        for id in 0..self.parts.len() {
            let part = &mut self.parts[id];
            if part.lane != lane || !part.is_read() {
                continue;
            }
            if code.retriable() {
                self.entry_failed(id, code, None, now);
            } else {
                part.state = State::Stopped; // told once, for all of them
            }
        }
    }

    /// When [`step`](Self::step) has to run next even if nothing arrives, monotonic microseconds.
    pub(crate) fn next_step_us(&self, now: Now) -> u64 {
        let mut next = self.waiting_until_us;
        next = next.min(self.wish.next_us());
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.open {
                next = next.min(lane.alive.ping_at_us()).min(lane.alive.dead_at_us(self.request_timeout_us));
                if lane.dirty {
                    next = next.min(lane.start_at_us);
                }
                if lane.used_bytes > 0 && lane.stream.is_some() {
                    next = next.min(lane.used_at_us.saturating_add(GRANT_AFTER_US));
                }
            } else if !lane.connecting && (lane.connect_at_us > now.mono_us || self.wants_connection(index, now)) {
                next = next.min(lane.connect_at_us);
            }
        }
        next
    }
}
