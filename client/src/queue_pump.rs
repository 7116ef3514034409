//! The turn of a queue's consumer over its connections, the same for every transport.
//!
//! Nothing waits here, as in `pump`.

use crate::clock::Clock;
use crate::core::Now;
use crate::core::links::Links;
use crate::core::queue::QueueCore;
use crate::error::Error;
use crate::link::closed_by_peer;
use crate::pump::SILENCE_US;
use crate::transport::{Driver, Received, Slot, Wire};

/// Reads per lane and turn: bounds how long one busy lane keeps the others waiting.
const READS_PER_TURN: usize = 4;

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
            let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "a request was not answered in time");
            return Err(Error::io("cannot receive from", slot.socket.address(), source));
        } else {
            break;
        }
    }
    Ok(progress)
}

/// One read; returns whether anything came.
fn receive<S: Wire>(slot: &mut Slot<S>, core: &mut QueueCore, lane: usize, now: Now) -> Result<bool, Error> {
    let look = core.is_silent(lane, now);
    let source = match slot.socket.fill(core.conn(lane), look) {
        Ok(Received::Some(_)) => {
            slot.received_us = now.mono_us;
            core.on_received(lane, now)?;
            return Ok(true);
        }
        Ok(Received::Empty) => return Ok(false),
        Ok(Received::Closed) => closed_by_peer(),
        Err(source) => source,
    };
    Err(Error::io("cannot receive from", slot.socket.address(), source))
}
