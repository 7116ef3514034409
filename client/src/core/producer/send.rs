//! Which batches make a request, and when.
//!
//! Group commit without timers, as in the broker: while the window is full, open batches go on taking records; as soon as
//! it has room, everything that is due goes out, one batch per partition and request, batches of several partitions of the
//! same owner together.

use std::sync::Arc;

use tramline_wire::kind::Kind;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};

use super::batch::Sealed;
use super::lane::InFlight;
use super::{EXPIRY_SCAN_US, ProducerCore};
use crate::core::Now;
use crate::error::Error;

/// Most batches of one request: a quarter of the broker's default limit (`entries.max`). A thousand small batches are well
/// above 100 KB, so more would save nothing.
const BATCHES_MAX: usize = 1024;

impl ProducerCore {
    /// Everything that time alone brings: batches that waited long enough, retries, batches whose time is over, pings. Then
    /// fills the windows.
    pub(crate) fn step(&mut self, now: Now) {
        self.mark_due(now);
        self.step_between_polls(now);
    }

    /// As [`step`](Self::step), while the caller is still adding records: without a linger, what is open stays open until it is
    /// full or the caller polls. Else a full batch of one partition would send the beginnings of all others' with it.
    pub(crate) fn step_between_polls(&mut self, now: Now) {
        if self.config.linger_us > 0 {
            self.mark_due(now);
        }
        if !self.delayed.is_empty() {
            self.list_delayed(now);
        }
        if now.mono_us >= self.next_expiry_scan_us {
            self.next_expiry_scan_us = now.mono_us + EXPIRY_SCAN_US;
            self.expire(now);
        }
        self.fill_windows(now);
    }

    fn mark_due(&mut self, now: Now) {
        while let Some(&(id, seq, opened_us)) = self.opened.front() {
            let part = &mut self.parts[id as usize];
            let current = part.next_seq == seq && part.open.is_some();
            if current && opened_us.saturating_add(self.config.linger_us) > now.mono_us {
                break;
            }
            self.opened.pop_front();
            if current {
                part.due = true;
                self.list(id);
            }
        }
    }

    /// Makes every open batch due, whatever its age.
    pub(crate) fn flush(&mut self) {
        while let Some((id, seq, _)) = self.opened.pop_front() {
            let part = &mut self.parts[id as usize];
            if part.next_seq == seq && part.open.is_some() {
                part.due = true;
                self.list(id);
            }
        }
    }

    fn list_delayed(&mut self, now: Now) {
        let mut at = 0;
        while at < self.delayed.len() {
            let id = self.delayed[at];
            if self.parts[id as usize].retry_at_us <= now.mono_us {
                self.delayed.swap_remove(at);
                self.list(id);
            } else {
                at += 1;
            }
        }
    }

    /// Fills the windows of all lanes.
    pub(crate) fn fill_windows(&mut self, now: Now) {
        for lane in 0..self.lanes.len() {
            while self.build_request(lane, now) {}
            if !self.nameless.is_empty() {
                self.maybe_ask_identity(lane, now);
            }
            let lane = &mut self.lanes[lane];
            if lane.open && lane.alive.ping_at_us() <= now.mono_us {
                // A ping without fields cannot be above a limit.
                let _ = lane.conn.request(Kind::Ping, |_| {});
                lane.alive.on_pinged(now);
            }
        }
    }

    /// Queues one request, if the window has room and something is ready.
    fn build_request(&mut self, lane_index: usize, now: Now) -> bool {
        let lane = &mut self.lanes[lane_index];
        let room = lane.open && !lane.given_up && lane.window.len() < self.config.max_in_flight && lane.pause_until_us <= now.mono_us;
        if !room || lane.ready.is_empty() {
            return false;
        }
        let bytes_max = lane.request_bytes_max;
        let mut batches = lane.spare.pop().unwrap_or_default();
        let mut bytes = 0;
        for _ in 0..lane.ready.len().min(BATCHES_MAX) {
            let Some(id) = self.lanes[lane_index].ready.pop_front() else { break };
            let part = &mut self.parts[id as usize];
            if part.lane as usize != lane_index {
                continue; // it moved to another owner and is listed there
            }
            part.listed = false;
            if part.must_wait(self.in_flight_max) || part.retry_at_us > now.mono_us {
                continue; // listed again by the answer it waits for, or when its wait is over
            }
            if part.queue.is_empty() && part.due {
                self.seal(id);
            }
            self.fit_first(id, self.lanes[lane_index].payload_bytes_max);
            let part = &mut self.parts[id as usize];
            let Some(batch_bytes) = part.queue.front().map(|batch| batch.bytes.len()) else { continue };
            if bytes > 0 && bytes + batch_bytes > bytes_max {
                // Sealing may have listed it again at the end; its turn is first in the next request.
                if !part.listed {
                    part.listed = true;
                    self.lanes[lane_index].ready.push_front(id);
                }
                break;
            }
            if !self.stamp_first(id, now) {
                continue;
            }
            bytes += batch_bytes;
            let part = &mut self.parts[id as usize];
            if let Some(batch) = part.queue.pop_front() {
                part.in_flight += 1;
                batches.push(batch);
            }
            self.list(id);
        }
        if batches.is_empty() {
            self.lanes[lane_index].spare.push(batches);
            return false;
        }
        self.queue_request(lane_index, batches, now);
        true
    }

    fn queue_request(&mut self, lane_index: usize, mut batches: Vec<Sealed>, now: Now) {
        batches.iter_mut().for_each(|batch| batch.sent_uid = self.parts[batch.part as usize].uid);
        let lane = &mut self.lanes[lane_index];
        // A marked batch can be sent again, so silence is met early. Any other has one attempt, which gets all of its time. A second, because less than
        // the disk's worst flush would turn slowness into failures.
        let wait_us = if self.marks { self.request_timeout_us } else { u64::MAX };
        let in_time_us = batches.iter().map(|batch| batch.deadline_us).min().unwrap_or(now.mono_us).max(now.mono_us + 1_000_000);
        let deadline_us = in_time_us.min(now.mono_us.saturating_add(wait_us));
        let timeout_ms = ((deadline_us - now.mono_us) / 1000).clamp(1, u64::from(u32::MAX)) as u32;
        let start = lane.conn.out().queued();
        let level = self.config.level;
        let meta = |out: &mut Vec<u8>| {
            let mut writer = ProduceRequestWriter::begin(out, level, timeout_ms);
            for batch in &batches {
                let entry = ProduceEntry { partition_uid: batch.sent_uid, batch_len: batch.bytes.len() as u32 };
                writer.push(out, &entry);
            }
            writer.finish(out);
        };
        match lane.conn.request_with(Kind::Produce, meta, batches.iter().map(|batch| &batch.bytes)) {
            Ok(correlation) => {
                let end = lane.conn.out().queued();
                self.metrics.requests_sent += 1;
                self.metrics.batches_sent += batches.len() as u64;
                self.metrics.bytes_sent += batches.iter().map(|batch| batch.bytes.len() as u64).sum::<u64>();
                // The broker gives up at `deadline_us` and says so; a second more, and the connection is what is broken.
                lane.window.push_back(InFlight { correlation, batches, start, end, deadline_us: deadline_us + 1_000_000, on_wire: false });
                lane.alive.on_sent(now);
            }
            Err(oversized) => {
                let error = Arc::new(Error::InvalidRecord { message: oversized.to_string() });
                for batch in batches {
                    let id = batch.part;
                    self.parts[id as usize].in_flight -= 1;
                    self.give_up(batch, Arc::clone(&error));
                    self.after_answer(id, now);
                }
            }
        }
    }

    /// When [`step`](Self::step) has to run next even if nothing happens, monotonic microseconds.
    pub(crate) fn next_step_us(&self, now: Now) -> u64 {
        let mut next = u64::MAX;
        if let Some(&(_, _, opened_us)) = self.opened.front() {
            next = next.min(opened_us.saturating_add(self.config.linger_us));
        }
        for &id in &self.delayed {
            next = next.min(self.parts[id as usize].retry_at_us);
        }
        if self.records_outstanding > 0 {
            next = next.min(self.next_expiry_scan_us.max(now.mono_us + EXPIRY_SCAN_US));
        }
        next = next.min(self.wish.next_us());
        if let Some(at) = self.identity_at_us() {
            next = next.min(at);
        }
        for lane in &self.lanes {
            if lane.is_needed() {
                if !lane.open && !lane.connecting {
                    next = next.min(lane.connect_at_us);
                } else if lane.open && lane.pause_until_us > now.mono_us {
                    next = next.min(lane.pause_until_us);
                }
            }
            if lane.open {
                next = next.min(lane.alive.ping_at_us()).min(lane.alive.dead_at_us(self.request_timeout_us));
            }
        }
        next
    }
}
