//! The fake broker's atomic steps: all of it or nothing, as docs/PROTOCOL.md ("The atomic step") says.
//!
//! Not here: replica groups (everything lies in one), limits.

use std::collections::VecDeque;

use tramline_wire::batch::{self, Limits as BatchLimits};
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::step::{StepReply, StepRequest, StepResult};

use super::FakeBroker;
use super::marks::Check;
use super::script::{refusal_of, reply_to};

/// What tests ask for.
#[derive(Debug, Default)]
pub(crate) struct FakeSteps {
    /// Refusals for the next steps.
    pub refusals: VecDeque<ErrorCode>,
    /// The next steps are carried out, and answered with these all the same.
    pub done_but: VecDeque<ErrorCode>,
    /// So many of the next steps are carried out, and not answered.
    pub swallows: usize,
    /// How many were carried out.
    pub done: usize,
}

impl FakeBroker {
    pub(super) fn step(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let code = self.steps.refusals.pop_front().unwrap_or(ErrorCode::Ok);
        if !code.is_ok() {
            return refusal_of(frame, code);
        }
        let request = StepRequest::decode(frame.meta).expect("decodes");
        let results = match self.try_step(&request, frame.payload) {
            Ok(results) => results,
            Err(code) => return refusal_of(frame, code),
        };
        if self.steps.swallows > 0 {
            self.steps.swallows -= 1;
            return Vec::new();
        }
        if let Some(code) = self.steps.done_but.pop_front() {
            return refusal_of(frame, code);
        }
        reply_to(frame, |out| StepReply { level_reached: Level::Durable, throttle_ms: 0, results: List::of(&results) }.encode(out))
    }

    fn try_step(&mut self, request: &StepRequest<'_>, payload: &[u8]) -> Result<Vec<StepResult>, ErrorCode> {
        let batches: Vec<(u64, &[u8])> =
            request.batches(payload).expect("lengths add up").map(|(entry, bytes)| (entry.partition_uid, bytes)).collect();
        let result = |partition_uid, base_offset| StepResult { partition_uid, base_offset, append_time_us: 5 };
        let mut repeated = Vec::new();
        for (uid, bytes) in &batches {
            let batch = batch::validate(bytes, &BatchLimits::default()).expect("a valid batch");
            assert!(batch.producer().id != 0, "what a step publishes is marked");
            let log = self.logs.get(uid).ok_or(ErrorCode::UnknownPartition)?;
            match log.marks.check(batch.producer(), batch.record_count()) {
                Check::Take => {}
                Check::Repeated { base_offset } => repeated.push(result(*uid, base_offset)),
                Check::Refuse(code) => return Err(code),
            }
        }
        match repeated.len() {
            0 => {}
            count if count == batches.len() => return Ok(repeated),
            _ => return Err(ErrorCode::InvalidRequest),
        }
        for ack in request.acks.iter() {
            let state = self.message(ack.partition_uid, ack.offset);
            if state.settled || state.lease != ack.lease {
                return Err(ErrorCode::UnknownLease);
            }
        }
        for ack in request.acks.iter() {
            self.queues.messages.entry((ack.partition_uid, ack.offset)).or_default().settled = true;
        }
        for commit in request.commits.iter() {
            self.group.offsets.entry(commit.partition_uid).or_default().offset = Some(commit.offset);
        }
        self.steps.done += 1;
        Ok(batches.iter().map(|(uid, bytes)| result(*uid, self.log(*uid).append_marked(*uid, bytes).expect("checked"))).collect())
    }
}
