//! Looks at queues: what somebody who browses a partition may be shown.
//!
//! Checked: messages come in order, from where they were asked for, in the state that was asked for; one that is leased has a lease of its queue, and no other
//! has one; nothing is shown that is settled or was never the queue's; nothing is missing that is certainly there, and what is certainly leased is shown so.
//!
//! Not here: who looks (`queue_work.rs`), what is known of messages (`queue_truth.rs`).

use super::Check;
use super::queue_message::Message;
use super::queue_records::Within;
use super::queue_truth::{Queue, Truth};
use std::collections::BTreeMap;
use tramline_wire::queue::{BrowseReply, BrowseState, BrowsedMessage, MessageState, TIME_NONE_US};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) queue: usize,
    pub(super) uid: u64,
    pub(super) from: u64,
    pub(super) max_messages: u32,
    pub(super) wanted: BrowseState,
}

fn is_wanted(wanted: BrowseState, state: MessageState) -> bool {
    match wanted {
        BrowseState::Any => true,
        BrowseState::Ready => state == MessageState::Ready,
        BrowseState::Leased => state == MessageState::Leased,
        BrowseState::Delayed => state == MessageState::Delayed,
        BrowseState::Dead => state == MessageState::Dead,
    }
}

impl Truth {
    /// Somebody looked at a partition of a queue.
    pub(super) fn check_browsed(&self, look: &Look, asked_us: u64, now_us: u64, reply: &BrowseReply<'_>) -> Check {
        let of = &self.queues[look.queue];
        check_shape(of, look, reply)?;
        if self.decayed || !of.parts.contains_key(&look.uid) {
            return Ok(());
        }
        for told in reply.messages.iter() {
            self.check_told(look, asked_us, now_us, &told).map_err(|error| format!("{} in {}, {look:?}: {error}", told.offset, of.name))?;
        }
        if matches!(look.wanted, BrowseState::Any | BrowseState::Leased) && of.is_live() {
            self.check_all_told(look, asked_us, now_us, reply)
        } else {
            Ok(())
        }
    }

    /// One message that was shown.
    fn check_told(&self, look: &Look, asked_us: u64, now_us: u64, told: &BrowsedMessage<'_>) -> Check {
        let of = &self.queues[look.queue];
        let part = &of.parts[&look.uid];
        if let Some(record) = self.records.at(look.uid, told.offset) {
            if of.within(record) == Within::No {
                return Err(format!("the queue begins later, and {told:?} is shown"));
            }
            if told.priority != record.wishes.priority.unwrap_or(0) {
                return Err(format!("{told:?} is shown of {record:?}"));
            }
        }
        let Some(message) = part.messages.get(&told.offset) else { return Ok(()) };
        if message.settled_us.is_some_and(|settled_us| settled_us <= asked_us) {
            return Err(format!("it is settled, and shown as {told:?}: {message:?}"));
        }
        let Some(held) = part.held(message, now_us).filter(|held| held.got_us <= asked_us) else { return Ok(()) };
        let is_right = (told.state, told.lease, told.deliveries) == (MessageState::Leased, held.lease, held.deliveries);
        if !is_right || told.consumer != format!("consumer-{}", held.consumer) {
            return Err(format!("{held:?} is shown as {told:?}"));
        }
        Ok(())
    }

    /// Nothing is missing.
    fn check_all_told(&self, look: &Look, asked_us: u64, now_us: u64, reply: &BrowseReply<'_>) -> Check {
        let of = &self.queues[look.queue];
        let part = &of.parts[&look.uid];
        let told: BTreeMap<u64, MessageState> = reply.messages.iter().map(|told| (told.offset, told.state)).collect();
        let held = |message: &Message| part.held(message, now_us).filter(|held| held.got_us <= asked_us).is_some();
        for (offset, record) in self.records.stored(look.uid, look.from).take_while(|(offset, _)| *offset < reply.next) {
            let is_held = part.messages.get(&offset).is_some_and(held);
            let was_there = record.known_us.is_some_and(|known_us| known_us <= asked_us);
            let is_due = look.wanted == BrowseState::Any
                && was_there
                && !of.may_have_dead_letter()
                && of.is_open(&self.records, look.uid, offset, record);
            if (is_held || is_due) && !told.contains_key(&offset) {
                let message = part.messages.get(&offset);
                return Err(format!(
                    "{}: offset {offset} is there ({record:?}, {message:?}), and not shown to {look:?} up to {}",
                    of.name, reply.next
                ));
            }
        }
        Ok(())
    }
}

/// What holds whatever is in the queue.
fn check_shape(of: &Queue, look: &Look, reply: &BrowseReply<'_>) -> Check {
    let wrong = |why: &str, told: &BrowsedMessage<'_>| Err(format!("{} ({}), {look:?}: {why}: {told:?}", of.name, of.uid));
    if reply.messages.len() > look.max_messages as usize {
        return Err(format!("{}, {look:?}: {} messages are shown", of.name, reply.messages.len()));
    }
    let mut from = look.from;
    for told in reply.messages.iter() {
        if told.offset < from {
            return wrong("out of order, or before what was asked for", &told);
        }
        from = told.offset + 1;
        if !is_wanted(look.wanted, told.state) {
            return wrong("in a state that was not asked for", &told);
        }
        let is_leased = told.state == MessageState::Leased;
        let is_of_queue = told.lease >> 32 == of.uid & u64::from(u32::MAX);
        if is_leased != (told.lease != 0) || is_leased && !is_of_queue {
            return wrong("the lease is none of the queue's, or there is one without need", &told);
        }
        if is_leased && (told.deliveries == 0 || told.until_us <= 0 || told.consumer.is_empty()) || !is_leased && !told.consumer.is_empty()
        {
            return wrong("a leased message is delivered to somebody until some time, and no other is", &told);
        }
        if matches!(told.state, MessageState::Ready | MessageState::Dead) && told.until_us != TIME_NONE_US {
            return wrong("nothing is waited for", &told);
        }
    }
    if reply.next < from {
        return Err(format!("{}, {look:?}: the look goes on at {}, and has shown what is before {from}", of.name, reply.next));
    }
    Ok(())
}
