//! Batches with a mark and without a fate: what is sent again, what gets new numbers, what is given up.
//!
//! After a refusal or a lost connection nothing of the partition is sent until everything that is in flight has its answer; then what has no fate goes
//! back to the front of the queue, in order, with its mark and its bytes, and [`Sequence::verdict`](super::sequence::Sequence::verdict) is asked about
//! the first. So copies are always sent in order, and the broker misses something only where something is missing.
//!
//! A batch is in doubt when some copy of it got no answer that counts. Given up in doubt it ends as [`Error::OutcomeUnknown`]; else it is not stored,
//! and its error says why.

use std::sync::Arc;

use tramline_wire::batch::mark_producer;
use tramline_wire::level::Level;

use super::batch::{Sealed, Stamp};
use super::identity::Identity;
use super::sequence::{Meaning, Readiness, Sequence, Verdict};
use super::{ProducerCore, Source};
use crate::core::Now;
use crate::error::Error;

impl ProducerCore {
    /// Gives the first batch of a partition's queue its mark and its checksum, where it has none yet. False: it cannot go now, and the partition is
    /// listed again by what it waits for.
    #[inline]
    pub(super) fn stamp_first(&mut self, id: u32, now: Now) -> bool {
        let part = &mut self.parts[id as usize];
        let Some(first) = part.queue.front_mut() else { return false };
        if first.stamp != Stamp::Missing {
            self.metrics.batches_sent_again += 1;
            return true;
        }
        let mark = if self.marks {
            let used = part.sequence.id();
            let (mut readiness, raised) = part.sequence.prepare(part.in_flight);
            self.metrics.epochs_raised += u64::from(raised);
            if readiness == Readiness::NoId {
                if used != 0 {
                    self.drop_identity(used, now);
                }
                if let Identity::Known { id: name } = self.identity {
                    self.parts[id as usize].sequence.name(name);
                    readiness = Readiness::Ready;
                }
            }
            match readiness {
                Readiness::Ready => {}
                Readiness::AfterAnswers => return false,
                Readiness::NoId => {
                    self.await_identity(id);
                    return false;
                }
            }
            let part = &mut self.parts[id as usize];
            let records = part.queue.front().map_or(0, |first| first.tags.len() as u32);
            let marked = part.sequence.mark(part.uid, records);
            Stamp::Marked(marked)
        } else {
            Stamp::Plain
        };
        if let Some(first) = self.parts[id as usize].queue.front_mut() {
            first.stamp = mark;
            // Nobody else has the bytes, but for one case: an answer that came before its request was written whole. Then they are copied.
            let bytes: &mut Vec<u8> = Arc::make_mut(&mut first.bytes);
            mark_producer(bytes, mark.producer_mark());
        }
        true
    }

    /// An answer for a marked batch that does not say that it is stored. `has_moved`: not from who leads the partition now, as far as is known.
    pub(super) fn on_unresolved(&mut self, mut batch: Sealed, meaning: Meaning, error: Arc<Error>, has_moved: bool) {
        let Stamp::Marked(marked) = &mut batch.stamp else { return };
        marked.last = meaning;
        marked.in_doubt |= meaning == Meaning::Unknown;
        let id = batch.part;
        if meaning == Meaning::Never {
            return self.give_up(batch, error);
        }
        self.trouble = Some((Source::Part(id), Arc::clone(&error)));
        let part = &mut self.parts[id as usize];
        // What only waits for one before it follows that one at once, and so does what goes to another node.
        part.wants_pause |= meaning != Meaning::Missing && !has_moved;
        part.refuse(batch, error);
    }

    /// The connection of a marked batch is gone. `written`: it may have arrived.
    pub(super) fn on_unanswered(&mut self, mut batch: Sealed, written: bool, cause: &Arc<Error>) {
        if let Stamp::Marked(marked) = &mut batch.stamp
            && written
        {
            marked.in_doubt = true;
            marked.last = Meaning::Unknown;
        }
        self.parts[batch.part as usize].refuse(batch, Arc::clone(cause));
    }

    /// Nothing of the partition is in flight: what has no fate goes back to the front, and the first of it is judged.
    pub(super) fn settle_marked(&mut self, id: u32, now: Now) {
        let part = &mut self.parts[id as usize];
        part.refused.sort_unstable_by_key(|(batch, _)| batch.seq);
        while let Some((batch, _)) = part.refused.pop() {
            part.queue.push_front(batch);
        }
        self.leave_old_partition(id);
        self.cut_refused(id);
        let mut pause = std::mem::take(&mut self.parts[id as usize].wants_pause);
        loop {
            let part = &mut self.parts[id as usize];
            let Some(Sealed { stamp: Stamp::Marked(first), deadline_us, .. }) = part.queue.front() else { break };
            match part.sequence.verdict(first) {
                Verdict::SendAgain if *deadline_us > now.mono_us => break,
                verdict @ (Verdict::SendAgain | Verdict::GiveUp) => {
                    let error = match verdict {
                        Verdict::SendAgain => self.too_late(id),
                        _ => Error::config("the one before it was given up and may still come, and then this one with it"),
                    };
                    if let Some(batch) = self.parts[id as usize].queue.pop_front() {
                        self.give_up(batch, Arc::new(error));
                    }
                }
                Verdict::Renumber { fenced } => {
                    pause = self.renumber(id, fenced, now);
                    break;
                }
            }
        }
        let part = &mut self.parts[id as usize];
        part.retry_at_us = if pause { now.mono_us.saturating_add(part.backoff.next_us()) } else { now.mono_us };
        if pause {
            self.delayed.push(id);
        }
    }

    /// None of a partition's batches is stored: all get new numbers, but for those whose time is over. Returns whether there has to be a
    /// pause before they are sent: not the first time, as what the broker has forgotten it takes at once; but one that misses something
    /// whatever it gets would be asked without end.
    fn renumber(&mut self, id: u32, fenced: bool, now: Now) -> bool {
        let part = &mut self.parts[id as usize];
        let used = part.sequence.id();
        part.sequence.renumber(fenced);
        part.queue.iter_mut().filter(|batch| batch.is_marked()).for_each(|batch| batch.stamp = Stamp::Missing);
        let in_vain = part.renumbered > 0;
        part.renumbered = part.renumbered.saturating_add(1);
        let has_id = part.sequence.id() != 0;
        self.metrics.epochs_raised += 1;
        if !has_id {
            self.drop_identity(used, now);
        }
        self.expire_queue(id, now);
        in_vain || !has_id
    }

    /// What was sent to a partition of a deleted topic, when one of the same name took its place: what is not stored there starts anew here, what may be is
    /// not sent a second time.
    fn leave_old_partition(&mut self, id: u32) {
        let part = &mut self.parts[id as usize];
        let uid = part.uid;
        let is_old = |batch: &Sealed| matches!(batch.stamp, Stamp::Marked(marked) if marked.uid != uid);
        if !part.queue.front().is_some_and(is_old) {
            return;
        }
        let mut kept = std::collections::VecDeque::with_capacity(part.queue.len());
        for mut batch in std::mem::take(&mut part.queue) {
            if is_old(&batch) && batch.is_in_doubt() {
                let topic = &self.topics[self.parts[id as usize].topic as usize].name;
                let message = format!("topic {topic:?} is another one by now, of the same name");
                self.give_up(batch, Arc::new(Error::config(&message)));
            } else {
                if is_old(&batch) {
                    batch.stamp = Stamp::Missing;
                }
                kept.push_back(batch);
            }
        }
        self.parts[id as usize].queue = kept;
    }

    /// The cluster is another one, so nothing that is known of partitions, numbers and the id holds, also where a uid is the same: what has
    /// a mark is of a partition that is gone.
    pub(super) fn leave_old_cluster(&mut self, now: Now) {
        self.identity = Identity::Wanted { at_us: now.mono_us };
        let disown = |batch: &mut Sealed| {
            if let Stamp::Marked(marked) = &mut batch.stamp {
                marked.uid = 0; // never a partition's
            }
        };
        for lane in &mut self.lanes {
            lane.given_up = lane.open;
            lane.window.iter_mut().flat_map(|request| &mut request.batches).for_each(disown);
        }
        for id in 0..self.parts.len() as u32 {
            let part = &mut self.parts[id as usize];
            part.queue.iter_mut().for_each(disown);
            part.refused.iter_mut().for_each(|(batch, _)| disown(batch));
            part.sequence = Sequence::default();
            part.probing = true;
            part.durable_end = 0;
            if part.in_flight == 0 && self.marks {
                self.settle_marked(id, now);
            }
        }
        let error = Error::config("another cluster answers than before (a node that was set up anew?): records go there from now on");
        self.trouble = Some((Source::Cluster, Arc::new(error)));
    }

    /// Ends a batch that will not be sent any more. `error` is why; told as it is when the batch is not stored, else as the reason of a doubt.
    pub(super) fn give_up(&mut self, batch: Sealed, error: Arc<Error>) {
        let part = &mut self.parts[batch.part as usize];
        if let Stamp::Marked(marked) = &batch.stamp {
            if marked.uid == part.uid {
                part.sequence.on_given_up(marked, batch.seq);
            }
            if marked.in_doubt {
                let unknown = Error::OutcomeUnknown {
                    request: format!("append to topic {:?} partition {}", self.topics[part.topic as usize].name, part.index),
                    address: self.lanes.get(part.lane as usize).map_or_else(String::new, |lane| lane.address.clone()),
                    reason: error.to_string(),
                };
                return self.finish(batch, None, Level::None, Some(Arc::new(unknown)));
            }
        }
        self.finish(batch, None, Level::None, Some(error));
    }
}
