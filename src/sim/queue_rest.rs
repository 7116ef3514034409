//! Queues at the end of a run: faults have stopped, nobody sends any more, pauses end, steps get their answers, leases run out. Then one consumer takes all
//! there is.
//!
//! Checked: every message that certainly is in a queue and not settled comes, or waits for its time, or is a dead letter; none comes whose id came before
//! within the window; what is ready comes by priority; then nothing is ready or leased, by what a look shows and by the numbers, and after a power cut nothing
//! comes again.
//!
//! Not here: consumers before that (`queue_work.rs`).

use super::Check;
use super::clients::State;
use super::queue_looks::Look;
use super::queue_message::Action;
use super::queue_records::{Record, Verdict};
use super::queue_work::{Found, Wanted, Workers};
use super::run::{PATIENCE_US, Run};
use super::totals::Event as Counted;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::queue::{BrowseState, MessageState, QUEUE_MESSAGES_MAX, SettleAction};

/// How long after the last lease was given all of them are over, and all delays but those that a jump of the clock has put off.
const REST_US: u64 = 6_000_000;
/// What was due so long before is ready.
const DUE_US: i64 = 100_000;
/// Messages of one receive.
const AT_ONCE: u32 = 40;

/// What a queue has certainly, in one partition, before it is emptied.
#[derive(Debug, Default)]
struct Due {
    /// Not settled.
    open: BTreeSet<u64>,
    /// Of these, those that nothing keeps from being delivered, in the order in which they have to come.
    by_rank: Vec<u64>,
}

/// What a look has shown: by offset, states and until when they last.
type Seen = BTreeMap<u64, (MessageState, i64)>;

impl Workers {
    /// Whether everything that was asked for is answered, queues are there or not, and go on.
    fn is_at_rest(&self) -> bool {
        let is_open = |state: State| matches!(state, State::Wanted | State::Creating | State::Deleting);
        self.list.iter().all(|worker| worker.link.is_open() && !worker.link.is_waiting())
            && self
                .truth
                .queues
                .iter()
                .all(|queue| !(is_open(queue.state) || queue.is_live() && (queue.is_paused || queue.is_being_altered())))
            && (self.truth.decayed || (0..self.list.len()).all(|at| !self.has_open_step(at)))
    }

    /// One look at a consumer whose work is over.
    fn settle_down(&mut self, world: &mut World, at: usize) {
        if self.is_ready(world, at) && !self.ask_again(world, at) {
            self.go_on_with_step(world, at);
        }
    }

    /// All parts of all queues that are there.
    pub(super) fn all_parts(&self) -> Vec<(usize, u64)> {
        let uids = |queue: usize| self.topics[self.truth.queues[queue].topic].uids.iter().map(move |uid| (queue, *uid));
        self.live_queues().into_iter().flat_map(uids).collect()
    }

    fn verdicts(&self, queue: usize, uid: u64) -> BTreeMap<u64, Verdict> {
        let of = &self.truth.queues[queue];
        self.truth.records.verdicts(uid, of.rules.dedup_window_ms as i64 * 1000, |record| of.within(record))
    }

    fn due(&self, world: &World, queue: usize, uid: u64) -> Due {
        let (of, verdicts, utc_us) = (&self.truth.queues[queue], self.verdicts(queue, uid), world.utc_us());
        let mut due = Due::default();
        let mut ranks: Vec<(u8, u64)> = Vec::new();
        for (offset, record) in self.truth.records.stored(uid, 0) {
            let is_first = verdicts.get(&offset).is_none_or(|verdict| *verdict == Verdict::First);
            if !is_first || !of.is_open_but_for_id(&self.truth.records, uid, offset, record) {
                continue;
            }
            due.open.insert(offset);
            if self.is_plain(queue, uid, (offset, record), utc_us) {
                ranks.push((9 - record.wishes.priority.unwrap_or(0), offset));
            }
        }
        ranks.sort_unstable();
        due.by_rank = ranks.into_iter().map(|(_, offset)| offset).collect();
        due
    }

    /// Whether nothing keeps an open message from being delivered.
    fn is_plain(&self, queue: usize, uid: u64, (offset, record): (u64, &Record), utc_us: i64) -> bool {
        let message = self.truth.part(queue, uid).messages.get(&offset);
        let ends = message.iter().flat_map(|message| &message.tokens).flat_map(|token| &token.ends);
        let mut waits = ends.filter_map(|end| match end.action {
            Action::Nack { due_utc_us } => Some(due_utc_us),
            _ => None,
        });
        // A retry policy's delay is longer than its least by its jitter, within the rest.
        let is_due = |due_us: i64| due_us + DUE_US <= utc_us;
        record.wishes.group.is_none()
            && record.wishes.deliver_at_us.is_none_or(is_due)
            && waits.all(|due_us| is_due(due_us + REST_US as i64))
    }

    /// Everything that the consumer has is acked.
    pub(super) fn ack_all(&mut self, world: &mut World, at: usize) {
        let mut by_queue: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for (place, lease) in std::mem::take(&mut self.list[at].held) {
            by_queue.entry(place.0).or_default().push((place, lease, Some(Action::Ack), SettleAction::Ack, 0));
        }
        for (queue, list) in by_queue {
            self.settle_all(world, at, queue, list);
        }
    }

    /// Whether a message comes later: its time is ahead, or that of one of its group that comes before it.
    fn waits(&self, uid: u64, offset: u64, browsed: &Seen, utc_us: i64) -> bool {
        let is_ahead = |until_us: i64| until_us >= 0 && until_us + DUE_US > utc_us;
        match browsed.get(&offset) {
            Some((MessageState::Delayed, until_us)) if *until_us >= 0 => is_ahead(*until_us),
            Some((MessageState::Delayed, _)) => {
                let group = |offset: u64| self.truth.records.at(uid, offset).and_then(|record| record.wishes.group);
                let holds_up = |(state, until_us): &(MessageState, i64)| match state {
                    MessageState::Delayed => is_ahead(*until_us),
                    MessageState::Leased => true,
                    _ => false,
                };
                let mut before = browsed.range(..offset);
                group(offset).is_some() && before.any(|(other, shown)| group(*other) == group(offset) && holds_up(shown))
            }
            _ => false,
        }
    }
}

impl Run {
    /// Queues, once faults have stopped.
    pub(super) fn check_queues(&mut self) -> Check {
        if self.world.refused.is_some() || !self.workers.is_running {
            return Ok(());
        }
        self.workers.is_draining = true;
        self.come_to_rest()?;
        if !self.workers.is_running || self.workers.truth.decayed {
            return self.stop_queues();
        }
        self.let_leases_end()?;
        self.redrive_all()?;
        self.read_all()?;
        for (queue, uid) in self.workers.all_parts() {
            let due = self.workers.due(&self.world, queue, uid);
            let came = self.drain(queue, uid)?;
            self.check_order(queue, uid, &due, &came)?;
            self.check_left(queue, uid, &due)?;
        }
        self.check_delays()?;
        // One stays for what is looked at after the power cut.
        let last = self.workers.topics.len() - 1;
        if last > 0 { self.check_topic_deletion(last) } else { Ok(()) }
    }

    /// After a power cut: nothing that was settled comes again, and what comes is all there is.
    pub(super) fn check_queues_again(&mut self) -> Check {
        if self.world.refused.is_some() || !self.workers.is_running {
            return Ok(());
        }
        self.come_to_rest()?;
        // They have begun anew.
        self.let_leases_end()?;
        for (queue, uid) in self.workers.all_parts() {
            self.drain(queue, uid)?;
            self.look_at_rest(queue, uid)?;
        }
        self.read_all()?;
        self.check_gone(self.workers.topics.len() - 1)?;
        self.check_topic_deletion(0)?;
        self.stop_queues()
    }

    fn let_leases_end(&mut self) -> Check {
        self.workers.list.iter_mut().for_each(|worker| worker.held.clear());
        let over_us = self.world.now_us + REST_US;
        while self.world.now_us < over_us {
            self.pass()?;
        }
        self.come_to_rest()
    }

    fn stop_queues(&mut self) -> Check {
        self.workers.stop(&mut self.world);
        Ok(())
    }

    fn come_to_rest(&mut self) -> Check {
        let limit_us = self.world.now_us + PATIENCE_US;
        while self.workers.is_running && !self.workers.is_at_rest() {
            if self.world.now_us >= limit_us {
                let open: Vec<_> = self.workers.list.iter().map(|worker| worker.link.pending().collect::<Vec<_>>()).collect();
                return Err(format!("no fault is left, and consumers of queues are not answered: {open:?}"));
            }
            for at in 0..self.workers.list.len() {
                self.workers.settle_down(&mut self.world, at);
            }
            self.pass()?;
        }
        Ok(())
    }

    /// Until the first consumer has its answers. `false`: its connection is gone.
    fn wait_for_consumer(&mut self) -> Result<bool, String> {
        let limit_us = self.world.now_us + PATIENCE_US;
        while self.workers.list[0].link.is_waiting() {
            if !self.advance(limit_us)? {
                return Err("no fault is left, and a consumer of queues is not answered".to_owned());
            }
        }
        Ok(self.workers.list[0].link.is_open())
    }

    /// Does something with the first consumer until it was answered on one connection.
    pub(super) fn ask(&mut self, mut ask: impl FnMut(&mut Workers, &mut World)) -> Check {
        loop {
            if self.workers.is_ready(&mut self.world, 0) {
                ask(&mut self.workers, &mut self.world);
                if self.wait_for_consumer()? {
                    return Ok(());
                }
            }
            self.pass()?;
        }
    }

    /// Asks something until there is an answer that tells it.
    pub(super) fn find<T>(
        &mut self,
        mut ask: impl FnMut(&mut Workers, &mut World),
        mut take: impl FnMut(&mut Found) -> Option<T>,
    ) -> Result<T, String> {
        let limit_us = self.world.now_us + PATIENCE_US;
        loop {
            self.workers.found = Found::default();
            self.ask(&mut ask)?;
            if let Some(found) = take(&mut self.workers.found) {
                return Ok(found);
            }
            if self.world.now_us >= limit_us {
                return Err("no fault is left, and what a consumer asks for is refused for ever".to_owned());
            }
            self.pass()?;
        }
    }

    /// Brings back what is dead.
    fn redrive_all(&mut self) -> Check {
        for (queue, uid) in self.workers.all_parts() {
            self.ask(|workers, world| workers.redrive_part(world, 0, queue, uid))?;
        }
        Ok(())
    }

    /// Reads every topic from its start to its end.
    fn read_all(&mut self) -> Check {
        let uids: Vec<u64> = self
            .workers
            .topics
            .iter()
            .flat_map(|topic| topic.uids.iter().filter(|_| !topic.is_gone).chain(&topic.out_uids).copied().chain([topic.dead_uid]))
            .collect();
        for uid in uids {
            let mut from = 0;
            loop {
                let to = self.find(|workers, world| workers.read_from(world, 0, uid, from), |found| found.fetched_to)?;
                if to <= from {
                    break;
                }
                from = to;
            }
        }
        Ok(())
    }

    /// Takes everything that a queue delivers of a partition, and acks it. Answers the offsets in the order in which they came.
    pub(super) fn drain(&mut self, queue: usize, uid: u64) -> Result<Vec<u64>, String> {
        let (mut came, mut empty) = (Vec::new(), 0);
        // A lease of the power cut before may have to run out: then there is something again.
        while empty < 2 {
            self.ask(|workers, world| workers.ask_for(world, 0, Wanted::plain(queue, uid, AT_ONCE, 0)))?;
            let got: Vec<u64> = self.workers.list[0].held.iter().map(|((.., offset), _)| *offset).collect();
            empty = if got.is_empty() { empty + 1 } else { 0 };
            self.world.totals.add(Counted::MessagesDrained, got.len() as u64);
            came.extend(got);
            self.ask(|workers, world| workers.ack_all(world, 0))?;
        }
        Ok(came)
    }

    /// What nothing kept back has come by priority. (Whether all of it has come is looked at by itself.)
    fn check_order(&self, queue: usize, uid: u64, due: &Due, came: &[u64]) -> Check {
        let (all, plain): (BTreeSet<u64>, BTreeSet<u64>) = (came.iter().copied().collect(), due.by_rank.iter().copied().collect());
        let wanted = due.by_rank.iter().filter(|offset| all.contains(offset));
        if !wanted.eq(came.iter().filter(|offset| plain.contains(offset))) {
            let name = &self.workers.truth.queues[queue].name;
            return Err(format!("{name}, partition {uid}: by priority {:?} were due, and {came:?} came", due.by_rank));
        }
        Ok(())
    }

    /// Looks through a queue's partition from its start to its end.
    fn look_through(&mut self, queue: usize, uid: u64) -> Result<Seen, String> {
        let (mut all, mut from, limit_us) = (Seen::new(), 0, self.world.now_us + PATIENCE_US);
        while self.world.now_us < limit_us {
            let look = Look { queue, uid, from, max_messages: QUEUE_MESSAGES_MAX, wanted: BrowseState::Any };
            let browsed = self.find(|workers, world| workers.look(world, 0, look), |found| found.browsed.take())?;
            all.extend(browsed.messages);
            if browsed.is_end {
                return Ok(all);
            }
            if browsed.next == from {
                self.pass()?;
            }
            from = browsed.next;
        }
        Err(format!("{queue}, partition {uid}: looks come to no end at {from}"))
    }

    /// Looks at a queue's partition of which everything was taken: nothing is ready, and nobody has anything. What becomes ready in this moment is taken
    /// too; what is over in this moment is not shown a second time.
    fn look_at_rest(&mut self, queue: usize, uid: u64) -> Result<Seen, String> {
        let mut is_second = false;
        loop {
            let browsed = self.look_through(queue, uid)?;
            let numbers = self.find(
                |workers, world| workers.describe(world, 0, queue),
                |found| found.numbers.as_ref().and_then(|numbers| numbers.get(&uid).copied()),
            )?;
            let open = browsed.iter().find(|(_, (state, _))| matches!(state, MessageState::Ready | MessageState::Leased));
            let is_more = numbers.delayed + numbers.dead > browsed.len() as u64;
            if open.is_none() && numbers.ready + numbers.leased == 0 && !is_more {
                return Ok(browsed);
            }
            if self.drain(queue, uid)?.is_empty() && std::mem::replace(&mut is_second, true) {
                let name = &self.workers.truth.queues[queue].name;
                return Err(format!(
                    "{name}, partition {uid}: nothing comes, {open:?} is shown, and {numbers:?} are told of {}",
                    browsed.len()
                ));
            }
        }
    }

    /// What did not come waits for its time, or is a letter; and nothing has come that must not.
    fn check_left(&mut self, queue: usize, uid: u64, due: &Due) -> Check {
        let browsed = self.look_at_rest(queue, uid)?;
        let (workers, utc_us) = (&self.workers, self.world.utc_us());
        let (of, part) = (&workers.truth.queues[queue], workers.truth.part(queue, uid));
        let verdicts_of = workers.verdicts(queue, uid);
        let wrong = |offset: u64, what: &str| {
            let (record, message) = (workers.truth.records.at(uid, offset), part.messages.get(&offset));
            let id = record.and_then(|record| record.wishes.id);
            let same = workers.truth.records.stored(uid, 0).filter(|(_, other)| id.is_some() && other.wishes.id == id);
            let same: Vec<_> =
                same.map(|(offset, other)| (offset, other.appended_us(), verdicts_of.get(&offset), other.wishes.group)).collect();
            Err(format!(
                "{} (number {queue}), partition {uid}, offset {offset}: {what}: {record:?}, {message:?}, {:?}, of its id: {same:?}",
                of.name, of.rules
            ))
        };
        for offset in &due.open {
            let message = part.messages.get(offset);
            let has_come = message.is_some_and(|message| message.settled_us.is_some() || message.letter_us.is_some());
            if !has_come && !workers.waits(uid, *offset, &browsed, utc_us) {
                let (seen, last) = (browsed.get(offset), browsed.last_key_value());
                return wrong(*offset, &format!("it is not settled, and does not come (browsed as {seen:?}, the last one {last:?})"));
            }
        }
        let duplicates = verdicts_of.iter().filter(|(_, verdict)| **verdict == Verdict::Duplicate).map(|(offset, _)| *offset);
        for offset in duplicates.clone() {
            if part.messages.get(&offset).is_some_and(|message| !message.tokens.is_empty()) {
                return wrong(offset, "its id came before within the window, and it was delivered");
            }
        }
        self.world.totals.add(Counted::DuplicatesHeld, duplicates.count() as u64);
        Ok(())
    }
}
