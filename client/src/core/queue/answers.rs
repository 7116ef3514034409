//! Whole frames of a lane to what they mean: messages, refusals, results of settlements.
//!
//! A refusal that may pass makes its partition, or its owner, wait and looks for another owner; it is told only when it has lasted for `call_timeout`, and trying goes on. What will not
//! pass is told at once. A queue that is deleted is told by every call from then on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{FLAG_MORE, Frame};
use tramline_wire::kind::Kind;
use tramline_wire::prim::DecodeError;
use tramline_wire::queue::{RECEIVE_NAMED_MAX, ReceiveReply, SettleReply, SettledMessage};

use super::{Asked, Lane, QueueCore, Ready, entry};
use crate::core::Now;
use crate::error::Error;
use crate::link::{read_reply, refusal};
use crate::message::Message;

/// What a frame was, copied out so that the connection is free again.
enum Seen {
    Received(Delivered),
    ReceiveRefused(Error),
    Settled {
        throttle_ms: u32,
        answers: Vec<SettledMessage>,
    },
    SettleRefused(Error),
    /// A pong, or an answer nobody waits for.
    Other,
}

#[derive(Default)]
struct Delivered {
    throttle_ms: u32,
    messages: Vec<Message>,
    /// Partitions that nothing can be had of.
    refused: Vec<(usize, ErrorCode)>,
    /// What could not be handed out.
    corrupt: Vec<Error>,
    entries: usize,
    payload_bytes: usize,
}

impl QueueCore {
    /// Takes all whole frames of a lane. An error means that the connection has to be given up.
    pub(crate) fn on_received(&mut self, lane: usize, now: Now) -> Result<(), Error> {
        while let Some((seen, length)) = self.look_at(lane)? {
            self.lanes[lane].conn.consume(length);
            self.lanes[lane].alive.on_heard(now);
            match seen {
                Seen::Received(delivered) => self.received(lane, delivered, now),
                Seen::ReceiveRefused(error) => self.receive_refused(lane, error, now),
                Seen::Settled { throttle_ms, answers } => {
                    self.throttle(lane, throttle_ms, now);
                    self.settled(lane, &answers, now)?;
                }
                Seen::SettleRefused(error) => self.settle_refused(lane, error, now),
                Seen::Other => {}
            }
        }
        Ok(())
    }

    fn look_at(&mut self, lane_index: usize) -> Result<Option<(Seen, usize)>, Error> {
        let lane = &mut self.lanes[lane_index];
        let asked = lane.asked;
        let settling = lane.settling.as_ref().map(|settling| settling.correlation);
        let Lane { conn, address, .. } = lane;
        let (frame, length) = match conn.peek() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => return Err(Error::protocol(address, error.to_string())),
        };
        let correlation = frame.header.correlation;
        let expected = match asked {
            Some(asked) if asked.correlation == correlation => Kind::Receive,
            _ if settling == Some(correlation) => Kind::Settle,
            _ if frame.header.is_error() && correlation == 0 => return Err(refusal("receive", address, frame.meta)),
            _ => return Ok(Some((Seen::Other, length))),
        };
        let seen = match asked.filter(|_| expected == Kind::Receive) {
            None => {
                let decode = |meta: &[u8]| {
                    let reply = SettleReply::decode(meta)?;
                    Ok(Seen::Settled { throttle_ms: reply.throttle_ms, answers: reply.entries.iter().collect() })
                };
                match read_reply("settle", address, Kind::Settle, &frame, decode) {
                    Err(error @ Error::Refused { .. }) => Seen::SettleRefused(error),
                    read => read?,
                }
            }
            // Not read in the same way: it has a payload.
            Some(_) if !frame.header.is_reply() => return Err(Error::protocol(address, "it sent a request where a reply was due")),
            Some(_) if frame.header.is_error() => Seen::ReceiveRefused(refusal("receive", address, frame.meta)),
            Some(_) if frame.header.kind() != Some(Kind::Receive) || frame.header.flags & FLAG_MORE != 0 => {
                return Err(Error::protocol(address, "its reply to receive is none: its kind or flags are another's"));
            }
            Some(asked) => {
                let undecodable = |error: DecodeError| Error::protocol(address, format!("its reply to receive does not decode: {error}"));
                let reply = ReceiveReply::decode(frame.meta).map_err(undecodable)?;
                let QueueCore { parts, by_uid, decompressor, config, queue, .. } = self;
                let reader = Reader { parts, by_uid, decompressor, config, topic: &queue.topic };
                Seen::Received(reader.read(&reply, &frame, &asked, address)?)
            }
        };
        Ok(Some((seen, length)))
    }

    fn received(&mut self, lane_index: usize, delivered: Delivered, now: Now) {
        let Some(asked) = self.lanes[lane_index].asked.take() else { return };
        self.metrics.bytes_received += delivered.payload_bytes as u64;
        let stale_at_us = self.stale_at_us(&asked, now);
        let askable = self.parts_to_ask(lane_index, now).count();
        let lane = &mut self.lanes[lane_index];
        lane.named += if asked.call == self.call.number { asked.named } else { 0 };
        lane.said |= !asked.is_turn || lane.named >= askable;
        lane.failing_since_us = None;
        let is_early = now.mono_us.saturating_sub(asked.sent_us) < asked.wait_us / 2;
        if delivered.entries == 0 && is_early {
            // An owner that answers at once although it was asked to wait would be asked as often as it answers.
            lane.ask_after_us = now.mono_us.saturating_add(lane.backoff.next_us());
        } else {
            lane.backoff.reset();
        }
        self.throttle(lane_index, delivered.throttle_ms, now);
        for (id, _) in &delivered.refused {
            self.parts[*id].asked = 0;
        }
        for part in self.parts.iter_mut().filter(|part| part.lane == lane_index && part.asked == asked.number) {
            part.answered(asked.sent_us);
        }
        self.ready.extend(delivered.messages.into_iter().map(|message| Ready { message, stale_at_us }));
        self.metrics.corrupt_batches += delivered.corrupt.len() as u64;
        self.errors.extend(delivered.corrupt);
        for (id, code) in delivered.refused {
            self.part_refused(id, code, now);
        }
    }

    pub(super) fn throttle(&mut self, lane: usize, throttle_ms: u32, now: Now) {
        let lane = &mut self.lanes[lane];
        lane.not_before_us = lane.not_before_us.max(now.mono_us.saturating_add(u64::from(throttle_ms) * 1000));
    }

    /// Nothing can be had of a partition, for now or for good.
    pub(super) fn part_refused(&mut self, id: usize, code: ErrorCode, now: Now) {
        self.metrics.refusals += 1;
        if matches!(code, ErrorCode::UnknownQueue | ErrorCode::QueueDeleted) {
            return self.queue_gone(code);
        }
        self.wish.want(now);
        let part = &mut self.parts[id];
        part.not_before_us = now.mono_us.saturating_add(part.backoff.next_us());
        let is_news = std::mem::replace(&mut part.refusal, code) != code && !code.retriable();
        let since_us = *part.failing_since_us.get_or_insert(now.mono_us);
        let lasted_us = now.mono_us.saturating_sub(since_us);
        if lasted_us < self.told_after_us && !is_news {
            return;
        }
        part.failing_since_us = Some(now.mono_us);
        let request = format!("receive from queue {:?}, topic {} partition {}", self.queue.name, self.queue.topic, part.index);
        self.errors.push_back(Error::Refused { request, code, retriable: code.retriable(), message: String::new(), next: None });
    }

    pub(super) fn queue_gone(&mut self, code: ErrorCode) {
        let request = format!("receive from queue {:?}", self.queue.name);
        self.gone.get_or_insert(Error::Refused { request, code, retriable: false, message: String::new(), next: None });
    }

    fn receive_refused(&mut self, lane_index: usize, error: Error, now: Now) {
        self.metrics.refusals += 1;
        let lane = &mut self.lanes[lane_index];
        let asked = lane.asked.take();
        let named = asked.map_or(0, |asked| asked.named);
        if error.code() == Some(ErrorCode::LimitExceeded) && named > RECEIVE_NAMED_MAX {
            // They are not all that the queue has there.
            lane.names_few = true;
            self.wish.want(now);
            return;
        }
        lane.said = true;
        lane.not_before_us = now.mono_us.saturating_add(lane.backoff.next_us());
        match error.code() {
            Some(code @ (ErrorCode::UnknownQueue | ErrorCode::QueueDeleted)) => self.queue_gone(code),
            _ if error.retriable() => {
                if let Some(next) = error.next_address() {
                    self.wish.redirect_to(next);
                    if let Some(asked) = asked {
                        self.follow(asked.first, lane_index, &error);
                    }
                }
                self.wish.want(now);
                self.lane_failing(lane_index, error, now);
            }
            _ => self.errors.push_back(error),
        }
    }

    /// A lane could not be used; told when that has lasted.
    pub(super) fn lane_failing(&mut self, lane_index: usize, error: Error, now: Now) {
        let lane = &mut self.lanes[lane_index];
        let since_us = *lane.failing_since_us.get_or_insert(now.mono_us);
        let lasted_us = now.mono_us.saturating_sub(since_us);
        if lasted_us >= self.told_after_us {
            lane.failing_since_us = Some(now.mono_us);
            let doing = format!("receiving from node {} shard {}", lane.owner.node, lane.owner.shard);
            self.errors.push_back(Error::Timeout { doing, after: Duration::from_micros(lasted_us), last: Some(Arc::new(error)) });
        }
    }
}

/// What reading a reply needs besides the connection, whose bytes are borrowed meanwhile.
struct Reader<'a> {
    parts: &'a [super::Part],
    by_uid: &'a std::collections::HashMap<u64, usize>,
    decompressor: &'a mut crate::core::codec::Decompressor,
    config: &'a crate::config::QueueConsumerConfig,
    topic: &'a str,
}

impl Reader<'_> {
    fn read(self, reply: &ReceiveReply<'_>, frame: &Frame<'_>, asked: &Asked, address: &str) -> Result<Delivered, Error> {
        let broken = |message: String| Error::protocol(address, message);
        let parts = reply.parts(frame.payload).map_err(|error| broken(format!("its reply to receive does not decode: {error}")))?;
        let mut delivered = Delivered { throttle_ms: reply.throttle_ms, payload_bytes: frame.payload.len(), ..Delivered::default() };
        let mut left = asked.max_messages as usize;
        let mut told = HashSet::new();
        for (entry, payload) in parts {
            delivered.entries += 1;
            if !told.insert(entry.partition_uid) {
                return Err(broken(format!("it told of partition uid {} twice in one reply", entry.partition_uid)));
            }
            let Some(&id) = self.by_uid.get(&entry.partition_uid) else {
                return Err(broken(format!("it delivered of partition uid {}, which was not asked for", entry.partition_uid)));
            };
            if !entry.error.is_ok() {
                delivered.refused.push((id, entry.error));
                continue;
            }
            let part = &self.parts[id];
            let read = entry::read(part, &entry, payload, self.decompressor, self.config, &mut left);
            let (messages, fault) = read.map_err(|entry::Broken(message)| broken(message))?;
            delivered.messages.extend(messages);
            delivered.corrupt.extend(fault.map(|(offset, message)| Error::Corrupt {
                topic: self.topic.to_string(),
                partition: part.index,
                offset,
                message,
            }));
        }
        Ok(delivered)
    }
}
