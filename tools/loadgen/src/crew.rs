//! A thread and its writers: whose turn it is, and how to wait when it is nobody's.
//!
//! Most writers of many wait for their next record, and few for answers. The first stand in a heap by due time, the others (*active*) have
//! turn after turn, because a producer's sockets can only be asked through the producer itself. One active writer alone may sleep in its
//! socket until something comes or somebody is due; several are asked in turn, with a nap when none had anything (with `--busy-poll` a
//! `sched_yield`: a thread that spins takes half of a core that it shares, and on a small machine the server may be what it shares it with).
//!
//! Invariants: a writer is either in the heap or active, never both; who is due has a turn within one round; an idle writer has a turn once
//! a second, in which the client sends its keepalive.
//! Not here: a turn (`write.rs`).

use crate::environment::thread_cpu_ns;
use crate::schedule::SECOND_NS;
use crate::write::{Desk, Turn, Writer, Written};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tramline_client::Client;

/// Pause before several writers are asked for answers again: with the kernel's timer slack some 0.1 ms, by which an answer may be timed late.
const NAP: Duration = Duration::from_micros(50);
/// So many turns, some 30 to 300 us (reckoned), then the core is offered to others: a broker's synced write may end in a worker of the kernel on this very core, and beside a thread
/// that goes on and on it can stand ready until the next tick (4 ms at 250 Hz).
const TURNS_AT_A_STRETCH: usize = 32;
/// How often a writer with nothing to do has a turn: several times within any broker's idle time-out.
const IDLE_NS: u64 = SECOND_NS;

/// What came of a thread's writers.
#[derive(Debug, Default)]
pub struct Done {
    /// Of each writer.
    pub written: Vec<Written>,
    /// Why they ended early.
    pub vanished: Option<String>,
    /// Time on a core.
    pub cpu_ns: u64,
}

/// Writes with the writers of these numbers until the end of the window, then waits for the answers.
pub fn write(client: &Client, desk: &mut Desk<'_>, numbers: Range<u64>, stop: &AtomicBool) -> Done {
    let cpu_before = thread_cpu_ns();
    let mut crew = Crew { writers: Vec::new(), waiting: BinaryHeap::new(), active: Vec::new(), turns: 0 };
    let vanished = crew.hire(client, desk, numbers).and_then(|()| crew.run(client, desk, stop)).err();
    Done {
        written: crew.writers.into_iter().map(|writer| writer.finish(desk)).collect(),
        vanished,
        cpu_ns: thread_cpu_ns().zip(cpu_before).map_or(0, |(after, before)| after - before),
    }
}

struct Crew {
    writers: Vec<Writer>,
    /// When, and who.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    active: Vec<usize>,
    /// Since the core was offered to others.
    turns: usize,
}

impl Crew {
    fn hire(&mut self, client: &Client, desk: &mut Desk<'_>, numbers: Range<u64>) -> Result<(), String> {
        for number in numbers {
            let mut writer = Writer::new(client, desk.plan, number, desk.clock)?;
            let due_ns = writer.due_ns().unwrap_or(0);
            self.waiting.push(Reverse((due_ns, self.writers.len())));
            self.writers.push(writer);
        }
        Ok(())
    }

    fn run(&mut self, client: &Client, desk: &mut Desk<'_>, stop: &AtomicBool) -> Result<(), String> {
        let busy_poll = client.config().busy_poll;
        loop {
            let now_ns = desk.clock.now_ns();
            let over = now_ns >= desk.plan.window.end_ns || stop.load(Ordering::Relaxed);
            self.wake(now_ns);
            let next_ns = self.waiting.peek().filter(|_| !over).map_or(u64::MAX, |next| next.0.0);
            match self.active.len() {
                0 if over => return Ok(()),
                0 => idle(desk.wait(now_ns, next_ns), busy_poll),
                1 => drop(self.round(desk, over, Some(next_ns))?),
                _ if !self.round(desk, over, None)? => idle(desk.wait(desk.clock.now_ns(), next_ns).min(NAP), busy_poll),
                _ => {}
            }
        }
    }

    /// Who is due becomes active.
    fn wake(&mut self, now_ns: u64) {
        while self.waiting.peek().is_some_and(|next| next.0.0 <= now_ns)
            && let Some(Reverse((_, writer))) = self.waiting.pop()
        {
            self.active.push(writer);
        }
    }

    /// A turn of each active writer; returns whether anything moved.
    fn round(&mut self, desk: &mut Desk<'_>, over: bool, wait_until_ns: Option<u64>) -> Result<bool, String> {
        let mut moved = false;
        let mut place = 0;
        while let Some(&number) = self.active.get(place) {
            self.turns += 1;
            if self.turns == TURNS_AT_A_STRETCH {
                self.turns = 0;
                std::thread::yield_now();
            }
            let turn = self.writers[number].turn(desk, over, wait_until_ns)?;
            moved |= turn.moved;
            match rest_until_ns(&turn, over, desk.clock.now_ns()) {
                None => place += 1,
                Some(at_ns) => {
                    self.active.swap_remove(place);
                    self.waiting.push(Reverse((at_ns, number)));
                }
            }
        }
        Ok(moved)
    }
}

/// When a writer after this turn has the next one; none when at once.
fn rest_until_ns(turn: &Turn, over: bool, now_ns: u64) -> Option<u64> {
    if turn.waiting || turn.more {
        None
    } else if over {
        Some(u64::MAX)
    } else {
        Some(turn.due_ns.unwrap_or(u64::MAX).min(now_ns + IDLE_NS))
    }
}

/// Waits for the next due time, not past it.
fn idle(wait: Duration, busy_poll: bool) {
    if busy_poll || wait.is_zero() {
        std::thread::yield_now();
    } else {
        std::thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_rests_until_it_is_due_or_has_to_keep_its_connection() {
        let quiet = Turn { waiting: false, more: false, due_ns: Some(5_000), moved: true };
        assert_eq!(rest_until_ns(&quiet, false, 1_000), Some(5_000));
        assert_eq!(rest_until_ns(&Turn { due_ns: Some(9 * SECOND_NS), ..quiet }, false, 1_000), Some(SECOND_NS + 1_000));
        assert_eq!(rest_until_ns(&Turn { due_ns: None, ..quiet }, false, 1_000), Some(SECOND_NS + 1_000));
        assert_eq!(rest_until_ns(&quiet, true, 1_000), Some(u64::MAX), "after the end nobody is due");
        for busy in [Turn { waiting: true, ..quiet }, Turn { more: true, ..quiet }] {
            assert_eq!((rest_until_ns(&busy, false, 1_000), rest_until_ns(&busy, true, 1_000)), (None, None));
        }
    }
}
