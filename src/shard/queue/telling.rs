//! Telling: browsing the messages of a queue, and how it stands with its parts here.
//!
//! Not here: questions over all shards (`gathers.rs`).

use super::super::mesh::QueueStatus;
use super::super::shard::Shard;
use super::lease_number;
use crate::api::{self, ApiError};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{PartitionUid, SubscriptionUid};
use crate::subscription::queue::State;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::prim::List;
use tramline_wire::queue::{BrowseReply, BrowseState, BrowsedMessage, MessageState, TIME_NONE_US};

fn wire_state(state: State) -> MessageState {
    match state {
        State::Ready => MessageState::Ready,
        State::Leased => MessageState::Leased,
        State::Delayed | State::Parked => MessageState::Delayed,
        State::Dead => MessageState::Dead,
    }
}

fn is_wanted(wanted: BrowseState, state: State) -> bool {
    match wanted {
        BrowseState::Any => true,
        BrowseState::Ready => state == State::Ready,
        BrowseState::Leased => state == State::Leased,
        BrowseState::Delayed => matches!(state, State::Delayed | State::Parked),
        BrowseState::Dead => state == State::Dead,
    }
}

impl Shard {
    pub(in crate::shard) fn browse_queue(
        &mut self,
        now: Now,
        caller: &Caller,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<(), ApiError> {
        let request = api::queue_messages::browse(frame.meta)?;
        let uid = self.known_queue(request.queue_uid)?;
        let partition = PartitionUid(request.partition_uid);
        let slot = self.readable(partition)?;
        if !self.is_partition_served(slot) {
            return Err(ApiError::of(ErrorCode::NotReady));
        }
        let Some(here) = self.queues.parts.get(&(uid, partition)) else { return Err(ApiError::of(ErrorCode::UnknownPartition)) };
        let mut seen = Vec::new();
        let wanted = |state| is_wanted(request.state, state);
        let (next, end) = here.part.browse(request.from, request.max_messages as usize, wanted, |message| seen.push(message));
        let committed_end = self.partitions.get(here.slot).expect("readable").committed_end();
        let end = end && here.part.looked_to() >= committed_end;
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or("");
        let messages: Vec<_> = seen
            .iter()
            .map(|message| BrowsedMessage {
                offset: message.offset,
                state: wire_state(message.state),
                priority: message.priority,
                deliveries: u32::from(message.deliveries),
                lease: if message.state == State::Leased { lease_number::to_wire(uid, u64::from(message.lease)) } else { 0 },
                until_us: match message.state {
                    State::Leased => now.utc_us.saturating_add_unsigned(message.until_us.saturating_sub(now.mono_us)),
                    // That of one that waits for another of its group is not known.
                    State::Delayed if message.until_us > 0 => message.until_us as i64,
                    _ => TIME_NONE_US,
                },
                consumer: if message.state == State::Leased { text(here.part.consumer_of(message)) } else { "" },
                reason: here.part.attempts(message.offset).last().map_or("", |attempt| match attempt.reason.is_empty() {
                    true => attempt.why.word(),
                    false => text(&attempt.reason),
                }),
            })
            .collect();
        effects.reply(caller, 0, &mut Vec::new(), |out| BrowseReply { next, end, messages: List::of(&messages) }.encode(out));
        Ok(())
    }

    /// How a queue stands in those of `uids` that are led here.
    pub(in crate::shard) fn queue_status(&self, queue: SubscriptionUid, uids: &[PartitionUid]) -> Vec<QueueStatus> {
        let Some(here) = self.queues.queues.get(&queue) else { return Vec::new() };
        let mut waiting = here.waiting.len() as u32;
        let holder = here.holder.as_ref().map_or(Vec::new(), |holder| holder.consumer.to_vec());
        let mut found = Vec::new();
        for uid in uids {
            let Some(part) = self.queues.parts.get(&(queue, *uid)) else { continue };
            let is_told = self.readable(*uid).is_ok() && self.is_partition_served(part.slot);
            let Some(partition) = self.partitions.get(part.slot).filter(|_| is_told) else { continue };
            let (looked_to, committed_end) = (part.part.looked_to(), partition.committed_end());
            let settled_to = part.part.settled_to();
            found.push(QueueStatus {
                uid: *uid,
                settled_to,
                looked_to,
                committed_end,
                ready: part.part.ready_count(),
                leased: part.part.leased_count(),
                delayed: part.part.delayed_count(),
                dead: part.part.dead_count(),
                oldest_us: part.oldest_us(partition).unwrap_or(TIME_NONE_US),
                counts: part.part.counts(),
                // They wait at the shard: told once.
                waiting: std::mem::take(&mut waiting),
                holder: holder.clone(),
            });
        }
        found
    }
}
