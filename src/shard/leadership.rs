//! What changes on this shard when it begins to lead a group, and when it ceases to (docs/REPLICATION.md, 5.4 and 5.5).
//!
//! Invariants: before anything else is answered, what a lost leadership had appended and not committed is out of every answer; a new leader continues
//! behind all that its log holds, committed or not.
//!
//! Not here: elections (replication/), entries of others (`applying.rs`), queues and members (`rebuild.rs`).

use super::applying::Certainty;
use super::shard::Shard;
use crate::api::ApiError;
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, LogIndex};
use crate::mutants::Mutant;
use tramline_wire::error::ErrorCode;

impl Shard {
    /// Looks for groups whose leadership came or went.
    pub(super) fn on_leaderships(&mut self, now: Now, effects: &mut Effects) {
        if self.pipelines.is_alone() {
            return;
        }
        for at in 0.. {
            // A view that comes into force in between can end some.
            let Some(group) = self.group_ids.get(at).copied() else { break };
            let (works_in, leads_in) = (self.applying.led.get(&group).copied(), self.groups.led_in(group));
            if works_in == leads_in {
                continue;
            }
            // Also where it was lost and won again in between: of what was appended in the old term nothing was proposed in the new one.
            if works_in.is_some() {
                self.applying.led.remove(&group);
                self.cease_to_lead(now, group, effects);
            }
            if let Some(term) = leads_in
                && self.failure().is_none()
            {
                self.applying.led.insert(group, term);
                self.begin_to_lead(now, group, effects);
            }
        }
    }

    fn begin_to_lead(&mut self, now: Now, group: GroupId, effects: &mut Effects) {
        let last = self.groups.last_of(group).index;
        tracing::info!(shard = self.id.0, group = group.0, last = last.0, "this node leads the group");
        self.metrics.counters.groups_elected += 1;
        // Committed entries first, then the others, which its successor may or may not find committed.
        let committed = self.groups.committed_of(group);
        self.apply_up_to(now, group, committed, Certainty::Committed, effects);
        // The last one is the empty entry of its own term, which stands in no block yet.
        let inherited = LogIndex(last.0 - 1);
        self.apply_up_to(now, group, inherited, Certainty::Tentative, effects);
        if self.failure().is_none() && self.applying.applied(group) < inherited {
            // Blocks that are not taken in stay in memory: what is appended behind a hole would have wrong offsets.
            let applied = self.applying.applied(group);
            return self.fail(
                &format!("group {group} is led, and of its entries up to {inherited} those behind {applied} are not in memory"),
                effects,
            );
        }
        self.applying.set(group, last);
        // Queues and members are served once all of that is committed and taken in (`rebuild.rs`).
        self.applying.rebuild.on_led(group, inherited);
        self.groups.note_led(group, now.mono_us);
        self.urgent = true;
    }

    fn cease_to_lead(&mut self, now: Now, group: GroupId, effects: &mut Effects) {
        tracing::info!(shard = self.id.0, group = group.0, "another node leads the group, or nobody");
        let bit = self.acks.bit_of(group);
        let mutants = self.log.mutants();
        self.log.void_group(group);
        self.pipelines.strays.retain(|(of, _), _| *of != group);
        if !mutants.has(Mutant::KeepLookAhead) {
            self.partitions.cut_tentative(group, mutants);
            let unclaimed = self.unclaimed.values_mut().filter(|partition| partition.group == group);
            unclaimed.for_each(|partition| partition.cut_tentative(mutants));
        }
        self.sessions.leave(|slot| self.partitions.get(slot).is_some_and(|partition| partition.group == group));
        self.lose_state(now, group, effects);
        self.fail_half_taken(group, bit);
        self.uncommitted.forget(now, group);
        self.trims.proposed.forget(group);
        self.offsets.proposed.forget(group);
        if !mutants.has(Mutant::KeepWaiting) {
            self.acks.fail_group(bit, effects, &mut self.metrics);
        }
        self.trims.fail_group(bit, &self.acks, effects);
        self.offsets.fail_group(bit, &self.acks, effects);
        if group == GroupId(0)
            && let Some(seat) = &mut self.seat
        {
            let joiners = seat.take_joiners();
            seat.fail_proposed(effects, &mut self.metrics);
            let lost = ApiError::of(ErrorCode::LeadershipLost);
            joiners.into_iter().for_each(|joiner| self.refuse_join(joiner, &lost, effects));
        }
        // What is committed and was not told yet was cut with the rest: it is taken in again.
        let (applied, told) = (self.applying.applied(group), self.groups.reported_of(group));
        self.applying.set(group, applied.min(told));
    }

    /// Of requests that are taken in half: what of them was appended for this group is lost, or may be.
    fn fail_half_taken(&mut self, group: GroupId, bit: u64) {
        for progress in self.half_taken.values_mut().filter(|progress| progress.groups & bit != 0) {
            progress.groups &= !bit;
            for result in progress.results.iter_mut().filter(|result| result.error.is_ok()) {
                let partition = result.slot.and_then(|slot| self.partitions.get(slot));
                if partition.is_none_or(|partition| partition.group == group) {
                    result.error = ErrorCode::LeadershipLost;
                }
            }
        }
    }

    /// The first leader of the metadata tells what a node has.
    pub(super) fn register_if_new(&mut self, effects: &mut Effects) {
        let Some(seat) = self.seat.as_ref().filter(|_| self.is_founder) else { return };
        if self.groups.leader_term(GroupId(0)).is_none() || seat.state.has_nodes() || seat.is_busy() {
            return;
        }
        // One that finds no room is proposed again with the next turn.
        if let Err(error) = self.register_node() {
            self.fail(&error.message, effects);
        }
    }
}
