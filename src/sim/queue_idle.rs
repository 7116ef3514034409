//! Delays on a node that does nothing else, at the end of a calm run: a consumer waits, and messages become due one by one.
//!
//! Checked: each comes no earlier than it is due (as everywhere), and at most two milliseconds late, where the disk answers as usual. The simulator's loop is
//! that of a shard that spins: it is there at the moment for which it was asked.
//!
//! Not here: delays beside other load (`queue_answers.rs`).

use super::Check;
use super::queue_records::{Records, Wishes};
use super::queue_work::{Wanted, Workers};
use super::run::{PATIENCE_US, Run};
use super::world::World;
use std::ops::Range;
use tramline_wire::batch::ProducerMark;
use tramline_wire::level::Level;

/// What docs/PROTOCOL.md's reader may expect of an idle node.
const LATE_US: i64 = 2000;
/// Messages that are timed in each queue.
const MESSAGES: u64 = 8;
/// How long a consumer waits: longer than until the last of them is due.
const WAIT_MS: u32 = 3000;

impl Workers {
    /// Messages that become due one after the other, some far apart and some close together.
    fn produce_delayed(&mut self, world: &mut World, uid: u64) -> Range<u64> {
        let first = self.truth.records.next();
        let mut due_us = world.utc_us() + 100_000;
        for _ in 0..MESSAGES {
            due_us += self.dice.within(20_000..200_000) as i64;
            let wishes = Wishes { deliver_at_us: Some(due_us), ..Wishes::default() };
            self.truth.records.push(&mut self.builder, Records::new_record(uid, world.now_us, wishes, None));
        }
        let ids = first..self.truth.records.next();
        let mut batch = Vec::new();
        self.builder.finish_plain(&mut batch, ProducerMark::default());
        self.send_batch(world, 0, Level::Durable, uid, ids.clone(), &batch);
        ids
    }
}

impl Run {
    /// Times delays in each queue that is there.
    pub(super) fn check_delays(&mut self) -> Check {
        if !self.workers.is_calm {
            return Ok(());
        }
        (self.workers.late_us_max, self.world.is_steady) = (Some(LATE_US), true);
        for (queue, uid) in self.workers.all_parts() {
            self.time_delays(queue, uid)?;
        }
        (self.workers.late_us_max, self.world.is_steady) = (None, false);
        Ok(())
    }

    fn time_delays(&mut self, queue: usize, uid: u64) -> Check {
        // What was sent to time another queue of the topic.
        self.drain(queue, uid)?;
        let mut ids = 0..0;
        self.ask(|workers, world| ids = workers.produce_delayed(world, uid))?;
        let limit_us = self.world.now_us + PATIENCE_US;
        while self.world.now_us < limit_us {
            let is_open = |id: u64| {
                let offset = self.workers.truth.records.get(id).offset;
                let message = offset.and_then(|offset| self.workers.truth.part(queue, uid).messages.get(&offset));
                message.is_none_or(|message| message.settled_us.is_none())
            };
            if !ids.clone().any(is_open) {
                return Ok(());
            }
            self.ask(|workers, world| workers.ask_for(world, 0, Wanted::plain(queue, uid, 1, WAIT_MS)))?;
            self.ask(|workers, world| workers.ack_all(world, 0))?;
        }
        Err(format!("queue {queue}, partition {uid}: messages {ids:?} were due, somebody waits, and they do not come"))
    }
}
