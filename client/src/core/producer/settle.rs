//! What answers, refusals, lost connections and time mean for batches.
//!
//! An idempotent producer sends everything again that has no fate (`unresolved`). Without idempotence a refusal is retried
//! only when it means that nothing was appended. A lost connection is not retried once part of the request was written: the
//! broker may have appended it, and a second copy would be a duplicate. Those records are given back with
//! [`Error::OutcomeUnknown`]; what was not written at all is sent again.

use std::sync::Arc;

use tramline_wire::batch::RECORDS_MAX;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::DecodeError;
use tramline_wire::produce::{ProduceReply, ProduceResult};
use tramline_wire::producer::InitProducerReply;

use super::batch::{Done, Sealed, Stamp};
use super::identity::Identity;
use super::lane::Lane;
use super::sequence::Meaning;
use super::{ProducerCore, Source};
use crate::core::Now;
use crate::error::Error;

/// The longest pause for one answer: 10 s. A node under pressure asks for milliseconds; whoever asks for more is wrong, or wants to stop
/// the producer.
const THROTTLE_US_MAX: u64 = 10_000_000;

/// What a frame said, copied out so that the connection is free again.
enum Answer {
    /// The results are in the caller's list.
    Produced {
        correlation: u64,
        level: Level,
        throttle_ms: u32,
    },
    Named {
        correlation: u64,
        reply: InitProducerReply,
    },
    Refused {
        correlation: u64,
        error: Error,
    },
    Other,
}

impl ProducerCore {
    /// Bytes arrived in a lane's connection. An error means that the connection has to be given up
    /// ([`on_lost`](Self::on_lost)).
    pub(crate) fn on_received(&mut self, lane: usize, now: Now) -> Result<(), Error> {
        let mut results = std::mem::take(&mut self.results);
        let outcome = self.take_answers(lane, &mut results, now);
        self.results = results;
        outcome
    }

    fn take_answers(&mut self, lane: usize, results: &mut Vec<ProduceResult>, now: Now) -> Result<(), Error> {
        while let Some(answer) = next_answer(&mut self.lanes[lane], results)? {
            self.lanes[lane].alive.on_heard(now);
            match answer {
                Answer::Produced { correlation, .. } if !self.lanes[lane].is_written(correlation) => return Err(self.too_early(lane)),
                Answer::Produced { correlation, level, throttle_ms } => {
                    self.on_produced(lane, correlation, results, level, throttle_ms, now)?;
                }
                Answer::Refused { correlation, error } => match self.lanes[lane].take_in_flight(correlation) {
                    Some(request) => {
                        let is_written = request.end <= self.lanes[lane].conn.out().written();
                        self.on_refused(lane, request.batches, error, now);
                        // A node may refuse what it sees of a request and close. Should it not, the rest would stay in the queue and grow
                        // there.
                        if !is_written {
                            return Err(self.too_early(lane));
                        }
                    }
                    None if self.is_identity_request(lane, correlation) => self.on_identity_refused(lane, error, now),
                    None if correlation == 0 => return Err(error), // of the connection itself
                    None => {}
                },
                Answer::Named { correlation, reply } => {
                    if self.is_identity_request(lane, correlation) {
                        self.on_identity(lane, &reply, now)?;
                    }
                }
                Answer::Other => {}
            }
        }
        Ok(())
    }

    fn too_early(&self, lane: usize) -> Error {
        Error::protocol(&self.lanes[lane].address, "it answered a request that was not sent whole")
    }

    fn on_produced(
        &mut self,
        lane: usize,
        correlation: u64,
        results: &[ProduceResult],
        level: Level,
        throttle_ms: u32,
        now: Now,
    ) -> Result<(), Error> {
        let Some(request) = self.lanes[lane].take_in_flight(correlation) else { return Ok(()) };
        if let Some(message) = mismatch(&request.batches, results) {
            let error = Error::protocol(&self.lanes[lane].address, message);
            self.unanswered(lane, request.batches, true, &Arc::new(error.clone()), now);
            return Err(error);
        }
        self.lanes[lane].backoff.reset();
        self.throttle(lane, u64::from(throttle_ms) * 1000, now);
        let mut batches = request.batches;
        for (batch, result) in batches.drain(..).zip(results) {
            let id = batch.part;
            let part = &mut self.parts[id as usize];
            part.in_flight -= 1;
            if result.partition_uid == part.uid {
                part.durable_end = part.durable_end.max(result.durable_end);
            }
            // Stored, but not as safely as was asked for: as good as a level that was not reached in time.
            let error = if result.error.is_ok() && level < self.config.level { ErrorCode::TimedOut } else { result.error };
            let meaning = Meaning::of(error);
            if meaning == Meaning::Stored {
                part.accepted_next_seq = part.accepted_next_seq.max(batch.seq + 1);
                part.renumbered = 0;
                part.leader.worked();
                let mut is_current = true;
                if let Stamp::Marked(marked) = &batch.stamp {
                    is_current = marked.uid == part.uid;
                    if is_current {
                        part.sequence.on_stored(marked, batch.seq);
                    }
                }
                if is_current {
                    part.probing = !part.refused.is_empty();
                }
                if !part.probing {
                    part.backoff.reset();
                    part.last_error = None;
                }
                let offset = result.error.is_ok().then_some(result.base_offset);
                self.metrics.duplicates_too_old += u64::from(offset.is_none());
                if self.trouble.is_some() {
                    self.clear_trouble(Source::Part(id));
                    self.clear_trouble(Source::Cluster);
                }
                self.finish(batch, offset, level, None);
            } else {
                let refusal = match result.error.is_ok() {
                    true => self.below_level(lane, id, level),
                    false => self.refusal_of(id, error),
                };
                self.refuse_or_fail(lane, batch, error, Arc::new(refusal), now);
            }
            self.after_answer(id, now);
        }
        self.lanes[lane].spare.push(batches);
        Ok(())
    }

    /// The broker asks for a pause. It gets one that leaves the records a chance; that it wanted more is told.
    fn throttle(&mut self, lane: usize, asked_us: u64, now: Now) {
        let pause_us = asked_us.min(self.delivery_timeout_us / 2).min(THROTTLE_US_MAX);
        self.lanes[lane].pause_until_us = now.mono_us.saturating_add(pause_us);
        self.metrics.throttled_us += pause_us;
        if pause_us < asked_us {
            let error = Error::Refused {
                request: "append more batches for now".to_string(),
                code: ErrorCode::Overloaded,
                retriable: true,
                message: format!("it asked for a pause of {} ms; this producer waits for {} ms", asked_us / 1000, pause_us / 1000),
                next: None,
            };
            self.trouble = Some((Source::Throttle(lane), Arc::new(error)));
        } else if self.trouble.is_some() {
            self.clear_trouble(Source::Throttle(lane));
        }
    }

    fn refusal_of(&self, id: u32, code: ErrorCode) -> Error {
        let part = &self.parts[id as usize];
        let topic = &self.topics[part.topic as usize].name;
        Error::Refused {
            request: format!("append to topic {topic:?} partition {}", part.index),
            code,
            retriable: code.retriable(),
            message: String::new(),
            next: None,
        }
    }

    fn below_level(&self, lane: usize, id: u32, level: Level) -> Error {
        self.unknown(lane, id, format!("it answered for level {level}, {} was asked for", self.config.level))
    }

    /// A refusal that does not say that nothing was stored, as the end of a batch without a mark.
    fn may_be_stored(&self, lane: usize, id: u32, error: &Arc<Error>) -> Error {
        match error.as_ref() {
            unknown @ Error::OutcomeUnknown { .. } => unknown.clone(),
            refused => self.unknown(lane, id, refused.to_string()),
        }
    }

    fn unknown(&self, lane: usize, id: u32, reason: String) -> Error {
        let part = &self.parts[id as usize];
        let request = format!("append to topic {:?} partition {}", self.topics[part.topic as usize].name, part.index);
        Error::OutcomeUnknown { request, address: self.lanes[lane].address.clone(), reason }
    }

    /// The broker refused a whole request.
    fn on_refused(&mut self, lane: usize, mut batches: Vec<Sealed>, error: Error, now: Now) {
        let code = error.code().unwrap_or(ErrorCode::Internal);
        if let Some(next) = error.next_address() {
            self.follow(lane, &batches, next);
            self.wish.redirect_to(next);
        }
        let error = Arc::new(error);
        for batch in batches.drain(..) {
            let id = batch.part;
            self.parts[id as usize].in_flight -= 1;
            self.refuse_or_fail(lane, batch, code, Arc::clone(&error), now);
            self.after_answer(id, now);
        }
        self.lanes[lane].spare.push(batches);
    }

    /// A refusal names another leader. It is that of the first partition of the request, by which a node tells where a request goes; the others
    /// are asked for by metadata.
    fn follow(&mut self, lane: usize, batches: &[Sealed], next: &str) {
        let (Some(first), Some(owner)) = (batches.first(), self.cluster.owner_at(next)) else { return };
        let (id, at) = (first.part, self.lanes[lane].owner);
        let part = &mut self.parts[id as usize];
        if part.lane as usize == lane && part.uid == first.sent_uid && part.leader.follow(at, owner) {
            self.move_to_owner(id, owner);
        }
    }

    fn refuse_or_fail(&mut self, lane: usize, batch: Sealed, code: ErrorCode, error: Arc<Error>, now: Now) {
        if asks_for_metadata(code) {
            self.wish.want(now);
        }
        // Whoever leads it by now has refused nothing.
        let has_moved = self.parts[batch.part as usize].lane as usize != lane;
        if batch.can_be_cut(code) && now.mono_us < batch.deadline_us {
            return self.refuse_too_large(batch, code, error);
        }
        let meaning = Meaning::of(code);
        self.metrics.refusals += u64::from(meaning == Meaning::NotNow);
        if batch.is_marked() {
            return self.on_unresolved(batch, meaning, error, has_moved);
        }
        let part = &mut self.parts[batch.part as usize];
        if meaning == Meaning::NotNow && now.mono_us < batch.deadline_us {
            self.trouble = Some((Source::Part(batch.part), Arc::clone(&error)));
            part.wants_pause |= !has_moved;
            part.refuse(batch, error);
            return;
        }
        if meaning == Meaning::Unknown {
            // The broker may have appended it all the same: what was refused before it must not follow it.
            part.accepted_next_seq = part.accepted_next_seq.max(batch.seq + 1);
            let unknown = self.may_be_stored(lane, batch.part, &error);
            return self.finish(batch, None, Level::None, Some(Arc::new(unknown)));
        }
        self.finish(batch, None, Level::None, Some(error));
    }

    /// One batch less is in flight: refused ones may go back, waiting ones may go out.
    pub(super) fn after_answer(&mut self, id: u32, now: Now) {
        let part = &mut self.parts[id as usize];
        if part.in_flight == 0 && !part.refused.is_empty() && self.marks {
            self.settle_marked(id, now);
        } else if part.in_flight == 0 && !part.refused.is_empty() {
            let failed = part.settle_refused(now);
            self.cut_refused(id);
            self.delayed.push(id);
            for (batch, error) in failed {
                self.finish(batch, None, Level::None, Some(error));
            }
        }
        self.list(id);
    }

    /// Bytes were written to a lane's socket: batches learn when they were sent, and requests at level `none` end here.
    pub(crate) fn on_written(&mut self, lane: usize, now: Now) {
        self.lanes[lane].mark_sent(now);
        if self.config.level != Level::None {
            return;
        }
        loop {
            let lane = &mut self.lanes[lane];
            let written = lane.conn.out().written();
            if lane.window.front().is_none_or(|request| request.end > written) {
                return;
            }
            let Some(mut request) = lane.window.pop_front() else { return };
            for batch in request.batches.drain(..) {
                let id = batch.part;
                let part = &mut self.parts[id as usize];
                part.in_flight -= 1;
                part.probing = false;
                self.finish(batch, None, Level::None, None);
                self.after_answer(id, now);
            }
        }
    }

    /// A lane could not connect, or lost its connection. `error` is told with the records it costs.
    pub(super) fn on_lost(&mut self, lane_index: usize, error: Error, now: Now) {
        let lane = &mut self.lanes[lane_index];
        lane.mark_sent(now);
        // Nor does it matter to anybody when it was closed because it leads to where nothing is sent any more.
        let was_idle = lane.is_useless() || lane.open && lane.window.is_empty() && lane.ready.is_empty() && self.nameless.is_empty();
        let written = lane.conn.out().written();
        let mut window = std::mem::take(&mut lane.window);
        lane.open = false;
        lane.given_up = false;
        lane.connecting = false;
        lane.silent = false;
        lane.conn.reset();
        lane.pause_until_us = 0;
        // An idle connection that the broker closed is no failure; it is opened again when needed.
        let wait_us = if was_idle { 0 } else { lane.backoff.next_us() };
        lane.connect_at_us = now.mono_us.saturating_add(wait_us);
        let cause = Arc::new(error);
        lane.last_error = Some(Arc::clone(&cause));
        self.metrics.connections_lost += 1;
        if !was_idle {
            self.trouble = Some((Source::Lane(lane_index), Arc::clone(&cause)));
            self.wish.want(now);
        }
        self.on_identity_lost(lane_index, now);
        let first_unsent = window.iter().position(|request| request.start >= written).unwrap_or(window.len());
        let unsent = window.split_off(first_unsent);
        for request in window {
            if self.config.level == Level::None && request.end <= written {
                for batch in request.batches {
                    self.parts[batch.part as usize].in_flight -= 1;
                    self.finish(batch, None, Level::None, None);
                }
                continue;
            }
            // A request of which a part was not written cannot have been read as one.
            let may_be_stored = !self.marks || request.end <= written;
            self.unanswered(lane_index, request.batches, may_be_stored, &cause, now);
        }
        for request in unsent.into_iter().rev() {
            if self.marks {
                self.unanswered(lane_index, request.batches, false, &cause, now);
            } else {
                self.send_again(request.batches, &cause);
            }
        }
        // Nothing is in flight here any more: what waited for answers goes on.
        for id in 0..self.parts.len() as u32 {
            if self.parts[id as usize].lane as usize == lane_index {
                self.parts[id as usize].probing = true;
                self.parts[id as usize].leader.failed();
            }
            self.after_answer(id, now);
        }
    }

    /// Puts batches that were never written back to the front of their queues; called from the newest request to the oldest.
    fn send_again(&mut self, batches: Vec<Sealed>, cause: &Arc<Error>) {
        for batch in batches {
            let part = &mut self.parts[batch.part as usize];
            part.in_flight -= 1;
            part.last_error = Some(Arc::clone(cause));
            part.queue.push_front(batch);
        }
    }

    /// Batches got no answer: marked ones go on, others end as unknown. `written`: they may be stored.
    fn unanswered(&mut self, lane: usize, batches: Vec<Sealed>, written: bool, cause: &Arc<Error>, now: Now) {
        let mut unknown = None;
        for batch in batches {
            let id = batch.part;
            let part = &mut self.parts[id as usize];
            part.in_flight -= 1;
            part.probing = true;
            if batch.is_marked() {
                self.on_unanswered(batch, written, cause);
            } else {
                part.accepted_next_seq = part.accepted_next_seq.max(batch.seq + 1);
                let address = self.lanes[lane].address.clone();
                let error = unknown.get_or_insert_with(|| {
                    Arc::new(Error::OutcomeUnknown { request: "append a batch".to_string(), address, reason: cause.to_string() })
                });
                let error = Arc::clone(error);
                self.finish(batch, None, Level::None, Some(error));
            }
            self.after_answer(id, now);
        }
    }

    /// Ends everything of a partition that is not in flight.
    pub(super) fn fail_waiting(&mut self, id: u32, error: &Arc<Error>, now: Now) {
        self.seal(id);
        let part = &mut self.parts[id as usize];
        let mut waiting: Vec<Sealed> = part.refused.drain(..).map(|(batch, _)| batch).chain(part.queue.drain(..)).collect();
        waiting.sort_by_key(|batch| batch.seq);
        for batch in waiting {
            self.give_up(batch, Arc::clone(error));
        }
        self.after_answer(id, now);
    }

    /// Gives up batches whose time is over, and looks for connections that do not answer.
    pub(super) fn expire(&mut self, now: Now) {
        for lane in 0..self.lanes.len() {
            self.lanes[lane].silent = self.is_overdue(lane, now);
        }
        if self.records_outstanding == 0 {
            return;
        }
        for id in 0..self.parts.len() as u32 {
            let part = &self.parts[id as usize];
            let over = |opened_us: u64| opened_us.saturating_add(self.delivery_timeout_us) <= now.mono_us;
            if part.queue.is_empty() && part.open.as_ref().is_some_and(|open| over(open.opened_us)) {
                self.seal(id);
            }
            if self.expire_queue(id, now) {
                self.list(id);
            }
        }
    }

    /// Gives up the waiting batches of a partition whose time is over; returns whether there were any.
    pub(super) fn expire_queue(&mut self, id: u32, now: Now) -> bool {
        let mut found = false;
        while self.parts[id as usize].queue.front().is_some_and(|batch| batch.deadline_us <= now.mono_us) {
            let Some(batch) = self.parts[id as usize].queue.pop_front() else { break };
            let error = self.too_late(id);
            self.give_up(batch, Arc::new(error));
            found = true;
        }
        found
    }

    fn is_overdue(&self, lane_index: usize, now: Now) -> bool {
        let lane = &self.lanes[lane_index];
        let id_until_us = match self.identity {
            Identity::Asked { lane: asked, until_us, .. } if asked == lane_index => until_us,
            _ => u64::MAX,
        };
        let waits_until_us = lane.window.iter().map(|request| request.deadline_us).min().unwrap_or(u64::MAX);
        lane.open && waits_until_us.min(id_until_us).min(lane.alive.dead_at_us(self.request_timeout_us)) <= now.mono_us
    }

    pub(super) fn too_late(&self, id: u32) -> Error {
        let part = &self.parts[id as usize];
        let lane_error = self.lanes.get(part.lane as usize).and_then(|lane| lane.last_error.clone());
        Error::Timeout {
            doing: format!("sending to topic {:?} partition {}", self.topics[part.topic as usize].name, part.index),
            after: std::time::Duration::from_micros(self.delivery_timeout_us),
            last: part.last_error.clone().or(lane_error),
        }
    }

    /// Whether a lane has something unanswered that should have been answered long ago. The caller gives the connection up when a read brought nothing
    /// either: an answer may lie in the socket when the caller was away for long.
    pub(crate) fn is_silent(&self, lane: usize, now: Now) -> bool {
        self.lanes[lane].silent && self.is_overdue(lane, now)
    }

    pub(super) fn finish(&mut self, batch: Sealed, base_offset: Option<u64>, level: Level, error: Option<Arc<Error>>) {
        let Sealed { bytes, tags, part, held_bytes, first_sent_us, .. } = batch;
        self.held_bytes -= held_bytes;
        self.records_outstanding -= tags.len();
        self.deliveries_waiting += tags.len();
        match error {
            None => self.metrics.records_acknowledged += tags.len() as u64,
            Some(_) => self.metrics.records_failed += tags.len() as u64,
        }
        self.pool.put_bytes(bytes);
        self.done.push_back(Done { tags, part, base_offset, level, error, first_sent_us });
    }
}

/// Whether a refusal says that another shard may lead by now.
pub(super) fn asks_for_metadata(code: ErrorCode) -> bool {
    use ErrorCode::{LeadershipLost, NotLeader, NotReady, ShuttingDown, StorageFailed, UnknownPartition};
    matches!(code, NotLeader | UnknownPartition | ShuttingDown | NotReady | LeadershipLost | StorageFailed)
}

/// What is wrong with the results of a request, if they are not those of its batches, one by one.
fn mismatch(batches: &[Sealed], results: &[ProduceResult]) -> Option<String> {
    if results.len() != batches.len() {
        return Some(format!("it answered {} of {} batches", results.len(), batches.len()));
    }
    let (batch, result) = batches.iter().zip(results).find(|(batch, result)| batch.sent_uid != result.partition_uid)?;
    Some(format!("it answered about partition uid {} where a batch for {} was sent", result.partition_uid, batch.sent_uid))
}

/// Reads the next answer of a connection.
fn next_answer(lane: &mut Lane, results: &mut Vec<ProduceResult>) -> Result<Option<Answer>, Error> {
    let Lane { conn, address, .. } = lane;
    let address = address.as_str();
    let undecodable =
        |what: &str, error: DecodeError| Error::protocol(address, format!("its reply to a request for {what} does not decode: {error}"));
    let (answer, length) = match conn.peek() {
        Ok(Some((frame, length))) => {
            let correlation = frame.header.correlation;
            let answer = if !frame.header.is_reply() {
                return Err(Error::protocol(address, "it sent a request where a reply was due"));
            } else if frame.header.is_error() {
                Answer::Refused { correlation, error: crate::link::refusal("append batches", address, frame.meta) }
            } else if frame.header.kind() == Some(Kind::InitProducer) {
                let reply = InitProducerReply::decode(frame.meta).map_err(|error| undecodable("an id", error))?;
                Answer::Named { correlation, reply }
            } else if frame.header.kind() == Some(Kind::Produce) {
                let reply = ProduceReply::decode(frame.meta).map_err(|error| undecodable("produce", error))?;
                // Each record's offset is counted on from its batch's, and a batch has at most so many.
                if reply.results.iter().any(|result| result.error.is_ok() && result.base_offset > u64::MAX - u64::from(RECORDS_MAX)) {
                    return Err(Error::protocol(address, "it told an offset that leaves none for the records behind it"));
                }
                results.clear();
                results.extend(reply.results.iter());
                Answer::Produced { correlation, level: reply.level_reached, throttle_ms: reply.throttle_ms }
            } else {
                Answer::Other
            };
            (answer, length)
        }
        Ok(None) => return Ok(None),
        Err(error) => return Err(Error::protocol(address, error.to_string())),
    };
    conn.consume(length);
    Ok(Some(answer))
}
