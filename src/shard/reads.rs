//! Fetches and look-ups of offsets: from requests to sessions.

use super::shard::Shard;
use crate::api::{self, ApiError};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{GroupId, PartitionUid};
use crate::mutants::Mutant;
use crate::partition::Slot;
use crate::subscription::{Cursor, DamageFound, LookupAnswer, LookupEntry};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchCancelRequest, FetchCreditRequest};
use tramline_wire::frame::Frame;

impl Shard {
    pub(super) fn fetch(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), ApiError> {
        let (request, start) = api::fetch::decode(frame.meta, &self.settings)?;
        let mut cursors = self.sessions.spare_cursors();
        cursors.reserve_exact(request.entries.len());
        for entry in request.entries.iter() {
            let uid = PartitionUid(entry.partition_uid);
            let slot = self.readable(uid)?;
            cursors.push(Cursor::new(slot, uid.0, entry.offset, entry.max_bytes.max(1)));
        }
        self.sessions.start(now, caller, &start, cursors).map_err(|code| match code {
            ErrorCode::InvalidRequest => ApiError::new(code, "a stream with this correlation is open on this connection: use another one"),
            _ => ApiError::new(code, "the shard has as many fetches under way as it may have: close some"),
        })?;
        effects.wake_at(self.sessions.next_deadline_us());
        Ok(())
    }

    /// A partition of this shard whose ends are known.
    pub(super) fn readable(&self, uid: PartitionUid) -> Result<Slot, ApiError> {
        let Some(slot) = self.partitions.slot(uid) else {
            let (code, next) = self.not_here(uid);
            return Err(ApiError { code, message: String::new(), next });
        };
        let group = self.partitions.get(slot).expect("a uid's slot is filled").group;
        self.check_led(group)?;
        Ok(slot)
    }

    /// Whether `group` is led here, and everything that was acknowledged is known.
    pub(super) fn check_led(&self, group: GroupId) -> Result<(), ApiError> {
        // A shard that has failed hears of nobody who leads what it had led.
        let is_out = self.failure().is_some() && self.has_others(group);
        if !is_out && self.groups.is_caught_up(group) || self.groups.leads(group) && self.log.mutants().has(Mutant::ServeBeforeOwnEntry) {
            return Ok(());
        }
        let next = if self.groups.leads(group) && !is_out { String::new() } else { self.leader_address(group) };
        match next.is_empty() {
            // It leads and is not ready, or nobody is known to lead.
            true => Err(ApiError::of(ErrorCode::NotReady)),
            false => Err(ApiError { code: ErrorCode::NotLeader, message: String::new(), next }),
        }
    }

    /// Credit for a stream that has ended meanwhile is no error: the two passed each other.
    pub(super) fn fetch_credit(&mut self, caller: &Caller, frame: &Frame<'_>) -> Result<(), ApiError> {
        let request = FetchCreditRequest::decode(frame.meta)?;
        let credit = request.credit_bytes.min(self.settings.credit_max_bytes);
        self.sessions.credit(caller.conn, caller.via, request.stream, credit, self.settings.credit_max_bytes);
        Ok(())
    }

    pub(super) fn fetch_cancel(&mut self, caller: &Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), ApiError> {
        let request = FetchCancelRequest::decode(frame.meta)?;
        if self.sessions.cancel(caller.conn, caller.via, request.stream, &self.partitions, effects) {
            effects.reply(caller, 0, &mut Vec::new(), |_| {});
            return Ok(());
        }
        Err(ApiError::of(ErrorCode::UnknownStream))
    }

    pub(super) fn list_offsets(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, _effects: &mut Effects) -> Result<(), ApiError> {
        let request = api::list_offsets::decode(frame.meta)?;
        let mut answers = Vec::with_capacity(request.entries.len());
        let mut open = Vec::new();
        for (at, query) in request.entries.iter().enumerate() {
            let uid = PartitionUid(query.partition_uid);
            let refused = |error| LookupAnswer { uid: uid.0, error, offset: 0, timestamp_us: None };
            let slot = match self.readable(uid) {
                Ok(slot) => slot,
                Err(error) => {
                    answers.push(refused(error.code));
                    continue;
                }
            };
            let partition = self.partitions.get(slot).expect("readable");
            match api::list_offsets::at_once(&query, partition) {
                Some(answer) => answers.push(answer),
                None => {
                    open.push((at, LookupEntry { uid: uid.0, at_us: query.at }, slot, partition.log_start()));
                    answers.push(refused(ErrorCode::Internal));
                }
            }
        }
        self.sessions
            .start_lookup(now, caller, answers, open)
            .map_err(|code| ApiError::new(code, "the shard has as many fetches under way as it may have: try again"))
    }

    /// Counts what the sessions have sent and notes the damage they met.
    pub(super) fn after_pump(&mut self) {
        let counts = self.sessions.take_counts();
        self.metrics.counters.fetch_bytes += counts.bytes;
        self.metrics.counters.fetch_batches += counts.batches;
        let found = self.sessions.take_damage();
        self.report_damage(&found);
    }

    /// Counts and logs what does not check.
    pub(super) fn report_damage(&mut self, found: &[DamageFound]) {
        for found in found {
            if !self.note_wound(found) {
                continue;
            }
            self.metrics.counters.damaged_ranges += 1;
            tracing::error!(
                shard = self.id.0,
                partition = found.uid,
                first_offset = found.first_offset,
                end_offset = found.end_offset,
                segment = found.segment.0,
                position = found.pos,
                "stored batch is damaged and is not served; where other nodes have replicas it is repaired, else run `tramline inspect` on the data directory"
            );
        }
    }
}
