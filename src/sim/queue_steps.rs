//! Atomic steps: acks of messages, a batch for the topic beside theirs and an offset of the consumer's own group, in one request. One without an answer is
//! sent again, with the same bytes, until there is one.
//!
//! Checked: all of a step happened, or nothing: whoever sees one thing of it knows the rest. Its batch has one place, also when it was sent five times. What
//! was refused for good is never seen.
//!
//! Not here: what an ack means for its message (`queue_message.rs`).

use super::Check;
use super::queue_message::{Action, Answer, End};
use super::queue_truth::Place;
use super::queue_work::{Asked, What, Workers};
use super::totals::Event as Counted;
use super::world::World;
use std::collections::BTreeMap;
use std::ops::Range;
use tramline_wire::batch::ProducerMark;
use tramline_wire::error::ErrorCode;
use tramline_wire::group::{FetchOffsetsReply, FetchOffsetsRequest, FindGroupFlags, FindGroupRequest, OFFSET_NONE, OffsetAsk};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::produce::ProduceEntry;
use tramline_wire::producer::InitProducerRequest;
use tramline_wire::step::{StepAck, StepCommit, StepReply, StepRequest};

/// Acks of one step at most.
const ACKS_MAX: usize = 3;

/// What a consumer needs to take steps.
#[derive(Debug, Default)]
pub(super) struct Maker {
    pub(super) producer: Option<u64>,
    pub(super) group: Option<u64>,
    /// Number of the next record, by partition.
    next: BTreeMap<u64, u32>,
    /// The step that is not over.
    open: Option<usize>,
    pub(super) is_asking: bool,
    /// What was sent on a connection that is gone may arrive until then.
    pub(super) rests_until_us: u64,
}

/// One ack of a step: the message, its lease, and which end of that it is.
pub(super) type StepAcked = (Place, u64, usize);

/// A step.
#[derive(Debug)]
pub(super) struct Step {
    worker: usize,
    uid: u64,
    out_uid: u64,
    acks: Vec<StepAcked>,
    /// None without a batch.
    ids: Option<Range<u64>>,
    batch: Vec<u8>,
    /// The offset that is committed in `uid`.
    commit: Option<u64>,
    times: u32,
    answer: Answer,
}

impl Workers {
    /// A producer's id and a group; whether something was asked for.
    pub(super) fn prepare_maker(&mut self, world: &mut World, at: usize) -> bool {
        let maker = &self.list[at].maker;
        if maker.producer.is_none() && !self.is_asked(at, |what| matches!(what, What::InitProducer)) {
            self.send(world, at, Kind::InitProducer, What::InitProducer, |out| InitProducerRequest {}.encode(out));
            return true;
        }
        if maker.group.is_none() && !self.is_asked(at, |what| matches!(what, What::FindGroup)) {
            let name = format!("steps-{at}");
            let request = FindGroupRequest { name: &name, flags: FindGroupFlags::CREATE };
            self.send(world, at, Kind::FindGroup, What::FindGroup, |out| request.encode(out));
            return true;
        }
        false
    }

    /// Sends the open step again, or a new one.
    pub(super) fn go_on_with_step(&mut self, world: &mut World, at: usize) {
        if self.truth.decayed || self.list[at].maker.is_asking || self.list[at].maker.rests_until_us > world.now_us {
            return;
        }
        if self.list[at].maker.open.is_none() && !self.is_draining {
            self.new_step(world, at);
        }
        if let Some(number) = self.list[at].maker.open {
            self.send_step(world, at, number);
        }
    }

    fn new_step(&mut self, world: &mut World, at: usize) {
        let maker = &self.list[at].maker;
        let (Some(producer), Some(_)) = (maker.producer, maker.group) else { return };
        let Some((first, _)) = self.some_held(at) else { return };
        let held = self.list[at].held.clone();
        let uid = first.1;
        let topic = &self.topics[self.truth.queues[first.0].topic];
        let index = topic.uids.iter().position(|of| *of == uid).expect("a partition of the topic");
        let out_uid = topic.out_uids[index];
        let number = self.steps.len();
        let count = 1 + self.dice.below(ACKS_MAX as u64) as usize;
        let mut acks: Vec<StepAcked> = Vec::new();
        for (place, lease) in held.into_iter().rev().filter(|(place, _)| place.1 == uid) {
            if acks.len() == count || acks.iter().any(|(of, ..)| *of == place) {
                continue;
            }
            let (sent_us, life) = (world.now_us, world.life());
            let ends = &mut self.truth.message_mut(place).token_mut(lease).expect("held").ends;
            ends.push(End { action: Action::Step(number), sent_us, life, answer: Answer::Open });
            acks.push((place, lease, ends.len() - 1));
        }
        self.list[at].held.retain(|(place, lease)| !acks.iter().any(|(of, with, _)| (of, with) == (place, lease)));
        let commit = self.dice.chance(50).then_some(first.2 + 1);
        let mut batch = Vec::new();
        let ids = self.dice.chance(80).then(|| {
            let sequence = self.list[at].maker.next.get(&out_uid).copied().unwrap_or(0);
            self.write_batch(world, out_uid, ProducerMark { id: producer, epoch: 0, sequence }, Some(number), &mut batch)
        });
        self.steps.push(Step { worker: at, uid, out_uid, acks, ids, batch, commit, times: 0, answer: Answer::Open });
        self.list[at].maker.open = Some(number);
    }

    fn send_step(&mut self, world: &mut World, at: usize, number: usize) {
        let group_uid = self.list[at].maker.group.expect("it was made with one");
        let step = &mut self.steps[number];
        step.times += 1;
        if step.times > 1 {
            world.totals.note(Counted::StepsAgain);
            // By which process it is carried out is not known: a lease that was over may have begun anew with the next one.
            for ((queue, uid, offset), lease, end) in &step.acks {
                let message = self.truth.queues[*queue].parts.get_mut(uid).and_then(|part| part.messages.get_mut(offset));
                if let Some(token) = message.and_then(|message| message.token_mut(*lease)) {
                    token.ends[*end].life = u64::MAX;
                }
            }
        }
        let acks: Vec<StepAck> = step
            .acks
            .iter()
            .map(|((queue, partition_uid, offset), lease, _)| StepAck {
                queue_uid: self.truth.queues[*queue].uid,
                partition_uid: *partition_uid,
                offset: *offset,
                lease: *lease,
            })
            .collect();
        let text = number.to_string();
        let commit = |offset: u64| StepCommit { group_uid, partition_uid: step.uid, assignment_epoch: 0, offset, metadata: &text };
        let commits: Vec<StepCommit<'_>> = step.commit.map(commit).into_iter().collect();
        let entries: Vec<ProduceEntry> =
            step.ids.iter().map(|_| ProduceEntry { partition_uid: step.out_uid, batch_len: step.batch.len() as u32 }).collect();
        let request = StepRequest { flags: 0, acks: List::of(&acks), commits: List::of(&commits), entries: List::of(&entries) };
        let asked = Asked { sent_us: world.now_us, utc_us: world.utc_us(), what: What::Step(number) };
        self.list[at].link.send_with(world, Kind::Step, asked, &step.batch, |out| request.encode(out));
        self.list[at].maker.is_asking = true;
    }

    /// A step is answered well.
    pub(super) fn on_step(&mut self, world: &mut World, at: usize, number: usize, reply: &StepReply<'_>) -> Check {
        self.list[at].maker.is_asking = false;
        self.close_step(at, number, true);
        if self.truth.decayed {
            return Ok(());
        }
        world.totals.note(Counted::StepsDone);
        self.on_step_seen(number, world.now_us)?;
        let step = &self.steps[number];
        let (out_uid, ids) = (step.out_uid, step.ids.clone());
        if reply.results.len() != usize::from(ids.is_some()) {
            return Err(format!("step {number} has {ids:?}, and is answered with {} results", reply.results.len()));
        }
        for (result, ids) in reply.results.iter().zip(ids) {
            if result.partition_uid != out_uid {
                return Err(format!("step {number} published to partition {out_uid}, and is told of {}", result.partition_uid));
            }
            for (offset, id) in (result.base_offset..).zip(ids) {
                self.truth.records.on_stored(out_uid, offset, id, result.append_time_us, world.now_us)?;
            }
        }
        Ok(())
    }

    fn close_step(&mut self, at: usize, number: usize, is_done: bool) {
        let step = &self.steps[number];
        let maker = &mut self.list[at].maker;
        if maker.open == Some(number) {
            maker.open = None;
            if let (true, Some(ids)) = (is_done, &step.ids) {
                *maker.next.entry(step.out_uid).or_default() += (ids.end - ids.start) as u32;
            }
        }
    }

    /// Something of a step was seen, so all of it holds.
    pub(super) fn on_step_seen(&mut self, number: usize, now_us: u64) -> Check {
        let step = &mut self.steps[number];
        match step.answer {
            Answer::Done(_) => return Ok(()),
            _ if self.truth.decayed => return Ok(()),
            Answer::Never => return Err(format!("step {number} was certainly not carried out, and something of it is there: {step:?}")),
            Answer::Open => step.answer = Answer::Done(now_us),
        }
        for ((queue, uid, offset), lease, end) in step.acks.clone() {
            // A queue that is gone took what was known of its messages along.
            if let Some(message) = self.truth.queues[queue].parts.get_mut(&uid).and_then(|part| part.messages.get_mut(&offset)) {
                message.on_ended(lease, end, now_us).map_err(|error| format!("step {number}, offset {offset}: {error}"))?;
                self.truth.check_letter((queue, uid, offset))?;
            }
        }
        Ok(())
    }

    /// A step certainly was not carried out, and never will be.
    pub(super) fn on_step_never(&mut self, number: usize) -> Check {
        let step = &mut self.steps[number];
        if let Answer::Done(known_us) = step.answer {
            return Err(format!("step {number} was carried out (known at {known_us}), and something of it is not there: {step:?}"));
        }
        step.answer = Answer::Never;
        for ((queue, uid, offset), lease, end) in step.acks.clone() {
            let message = self.truth.queues[queue].parts.get_mut(&uid).and_then(|part| part.messages.get_mut(&offset));
            if let Some(token) = message.and_then(|message| message.token_mut(lease)) {
                token.ends[end].answer = Answer::Never;
            }
        }
        Ok(())
    }

    pub(super) fn on_step_refused(&mut self, world: &mut World, at: usize, number: usize, code: ErrorCode) -> Check {
        self.list[at].maker.is_asking = false;
        let step = &self.steps[number];
        if code.retriable() || self.truth.decayed {
            return Ok(());
        }
        let is_about_leases = matches!(code, ErrorCode::UnknownLease | ErrorCode::LeaseExpired | ErrorCode::LeaseLost);
        let is_live = step.acks.iter().all(|((queue, ..), ..)| self.truth.queues[*queue].is_live());
        if !is_about_leases && (code != ErrorCode::UnknownQueue || is_live) {
            return Err(format!("step {number} is refused with {code:?}: {step:?}"));
        }
        world.totals.note(Counted::StepsRefused);
        let (is_certain, acks) = (step.ids.is_some() || step.times == 1, step.acks.clone());
        self.close_step(at, number, false);
        if !is_certain {
            // It may have been carried out the first time.
            return Ok(());
        }
        if let ([(place, lease, end)], true) = (acks.as_slice(), is_about_leases && is_live) {
            self.truth.check_refusal(*place, *lease, *end, code, world.now_us)?;
            if code != ErrorCode::LeaseExpired {
                self.truth.message_mut(*place).token_mut(*lease).expect("acked with it").void_us.get_or_insert(world.now_us);
            }
        }
        if is_live && acks.iter().all(|(place, lease, end)| self.holds_but_for(*place, *lease, *end, world.now_us)) {
            return Err(format!("step {number} is refused with {code:?}, and all its leases hold: {:?}", self.steps[number]));
        }
        self.on_step_never(number)
    }

    /// Whether a lease certainly holds, if the `number`th end of it did nothing.
    fn holds_but_for(&self, (queue, uid, offset): Place, lease: u64, number: usize, now_us: u64) -> bool {
        let part = self.truth.part(queue, uid);
        let Some(message) = part.messages.get(&offset) else { return false };
        let Some(mut token) = message.token(lease).cloned() else { return false };
        let is_newest = message.tokens.last().is_some_and(|last| last.lease == lease);
        token.ends.remove(number);
        is_newest && token.is_held(now_us) && !message.may_be_deleted() && !part.may_be_purged(token.asked_us)
    }

    /// Whether a consumer's step is not over.
    pub(super) fn has_open_step(&self, at: usize) -> bool {
        self.list[at].maker.open.is_some()
    }

    // --- offsets ----------------------------------------------------------------------------------------------------------------

    pub(super) fn ask_offset(&mut self, world: &mut World, at: usize) {
        let Some(uid) = self.some_partition(false) else { return };
        let Some(group_uid) = self.list[at].maker.group else { return };
        let is_done = |step: &Step| step.worker == at && step.uid == uid && step.commit.is_some() && matches!(step.answer, Answer::Done(_));
        let floor = self.steps.iter().rposition(is_done);
        let entries = [OffsetAsk { partition_uid: uid, assignment_epoch: 0 }];
        let request = FetchOffsetsRequest { group_uid, entries: List::of(&entries) };
        self.send(world, at, Kind::FetchOffsets, What::Offset { uid, floor }, |out| request.encode(out));
    }

    pub(super) fn on_offset(&mut self, world: &World, at: usize, uid: u64, floor: Option<usize>, reply: &FetchOffsetsReply<'_>) -> Check {
        let told = reply.entries.iter().next().ok_or("an answer without an entry")?;
        if !told.error.is_ok() || self.truth.decayed {
            return Ok(());
        }
        if told.offset == OFFSET_NONE {
            return floor.map_or(Ok(()), |floor| Err(format!("partition {uid}: step {floor} committed an offset, and there is none")));
        }
        let number = told.metadata.parse::<usize>().ok().filter(|number| {
            let is_it = |step: &Step| step.worker == at && step.uid == uid && step.commit == Some(told.offset);
            self.steps.get(*number).is_some_and(is_it)
        });
        let Some(number) = number else {
            return Err(format!("partition {uid}: offset {} with the text {:?} is committed by no step", told.offset, told.metadata));
        };
        if floor.is_some_and(|floor| number < floor) {
            return Err(format!("partition {uid}: the offset is that of step {number}, and had been that of {floor:?}"));
        }
        self.on_step_seen(number, world.now_us)
    }
}
