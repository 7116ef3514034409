//! The turn of a queue's consumer over its connections, the same for every transport.
//!
//! Nothing waits here, as in `pump`, whose single reads it shares.

use super::{READS_PER_TURN, SILENCE_US, overdue, read};
use crate::clock::Clock;
use crate::core::Now;
use crate::core::links::Links;
use crate::core::queue::QueueCore;
use crate::error::Error;
use crate::transport::{Driver, Slot, Wire};

/// A queue's core with its connections.
#[derive(Debug)]
pub(crate) struct QueuePump<S: Wire> {
    pub core: QueueCore,
    pub links: Links,
    pub driver: Driver<S>,
    pub clock: Clock,
}

impl<S: Wire> QueuePump<S> {
    pub(crate) fn new(core: QueueCore, client: &crate::config::Config, clock: Clock) -> QueuePump<S> {
        QueuePump { core, links: Links::new(client), driver: Driver::default(), clock }
    }

    /// One turn of everything, without waiting; returns whether bytes moved.
    pub(crate) fn turn(&mut self, now: Now) -> bool {
        let QueuePump { core, links, driver, .. } = self;
        links.step(core, now);
        driver.dial(links, core, now);
        driver.look();
        core.step(now);
        let mut progress = false;
        for place in 0..driver.places() {
            let Some((lane, slot)) = driver.open_lane(place, links) else {
                if driver.turn(place, links, core, now) {
                    core.step(now); // a lane that is open now is asked
                    progress = true;
                }
                continue;
            };
            match exchange(slot, core, lane, now) {
                Ok(moved) => progress |= moved,
                Err(error) => {
                    driver.fail(place, links, core, error, now);
                    progress = true;
                }
            }
        }
        progress
    }

    /// When a turn is due even if no socket is ready.
    pub(crate) fn next_step_us(&self, now: Now) -> u64 {
        self.core.next_step_us(now).min(self.links.next_step_us())
    }
}

fn exchange<S: Wire>(slot: &mut Slot<S>, core: &mut QueueCore, lane: usize, now: Now) -> Result<bool, Error> {
    let mut progress = false;
    // If the broker closed it while nobody looked, that is noticed before anything is sent.
    if !core.conn(lane).out().is_empty() && now.mono_us.saturating_sub(slot.received_us) > SILENCE_US {
        progress |= receive(slot, core, lane, now)?;
    }
    for _ in 0..READS_PER_TURN {
        if !core.conn(lane).out().is_empty() {
            let written = slot.socket.flush(core.conn(lane));
            progress |= written.map_err(|source| Error::io("cannot send to", slot.socket.address(), source))? > 0;
        }
        let silent = core.is_silent(lane, now);
        if receive(slot, core, lane, now)? {
            core.step(now); // what answers made room for goes out at once
            progress = true;
        } else if silent {
            return Err(overdue(slot));
        } else {
            break;
        }
    }
    Ok(progress)
}

/// One read; returns whether anything came.
fn receive<S: Wire>(slot: &mut Slot<S>, core: &mut QueueCore, lane: usize, now: Now) -> Result<bool, Error> {
    let look = core.is_silent(lane, now);
    let came = read(slot, core.conn(lane), look, now)?;
    if came {
        core.on_received(lane, now)?;
    }
    Ok(came)
}
