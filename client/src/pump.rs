//! The turn of a producer and of a consumer over their connections, the same for every transport: what is due, what is written, what is read.
//!
//! Nothing waits here. Whoever turns ([`Producer`](crate::Producer), [`Consumer`](crate::Consumer), and their asynchronous twins) waits between two turns that
//! moved nothing, until a socket is ready or [`ProducerPump::next_step_us`] has come.

pub(crate) mod group;
pub(crate) mod queue;

use std::ops::ControlFlow;

use crate::admin::Shared;
use crate::clock::{Clock, micros};
use crate::config::{ConsumerConfig, ProducerConfig};
use crate::core::consumer::{ConsumerCore, Delivered, RecordView};
use crate::core::links::Links;
use crate::core::producer::{ProducerCore, PushError};
use crate::core::{Conn, Now};
use crate::error::{Error, SendError};
use crate::link::closed_by_peer;
use crate::producer::Record;
use crate::transport::{Driver, Received, Slot, Wire};

/// After a silence this long a connection is read before it is written to: if the broker has closed it meanwhile, that is
/// noticed while nothing is lost. In a busy exchange the extra system call (0.3 us) is saved.
pub(crate) const SILENCE_US: u64 = 1000;

/// Reads for an overdue answer. A window's answers are some 200 KiB at most (five requests of 1,024 batches, 40 bytes each), which is 13
/// reads of the first receive buffer.
const OVERDUE_READS: usize = 64;

/// Reads per lane and turn of a consumer: bounds how long one busy lane keeps the others waiting.
const READS_PER_TURN: usize = 4;

/// A producer's core with its connections.
#[derive(Debug)]
pub(crate) struct ProducerPump<S: Wire> {
    pub core: ProducerCore,
    pub links: Links,
    pub driver: Driver<S>,
    pub clock: Clock,
}

impl<S: Wire> ProducerPump<S> {
    pub(crate) fn new(shared: &Shared, config: ProducerConfig) -> Result<ProducerPump<S>, Error> {
        let client = &shared.config;
        let seed = crate::clock::seed() as u32;
        let core = ProducerCore::new(config, micros(client.request_timeout), client.frame_bytes_max, seed)?;
        Ok(ProducerPump { core, links: Links::new(client), driver: Driver::default(), clock: Clock::new() })
    }

    /// Copies a record of a topic that is known; a batch that it closed is sent.
    #[inline]
    pub(crate) fn offer(&mut self, topic: u32, record: &Record<'_>) -> Result<(), SendError> {
        let clock = &mut self.clock;
        match self.core.push(|| clock.now(), topic, record) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let now = self.clock.now();
                self.core.step_between_polls(now);
                self.service(now);
                Ok(())
            }
            Err(PushError::BufferFull) => Err(SendError::BufferFull { held_bytes: self.core.held_bytes() }),
            Err(PushError::Send(error)) => Err(error),
        }
    }

    /// One turn of everything, without waiting; returns whether bytes moved.
    pub(crate) fn turn(&mut self, now: Now) -> bool {
        self.core.step(now);
        self.service(now)
    }

    /// Metadata and connections where they are due; then moves bytes, and returns whether any moved.
    #[inline]
    fn service(&mut self, now: Now) -> bool {
        let ProducerPump { core, links, driver, .. } = self;
        links.step(core, now);
        driver.dial(links, core, now);
        driver.look();
        let mut progress = false;
        for place in 0..driver.places() {
            let Some((lane, slot)) = driver.open_lane(place, links) else {
                if driver.turn(place, links, core, now) {
                    core.fill_windows(now); // a lane that is open now has something to say
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

#[inline]
fn exchange<S: Wire>(slot: &mut Slot<S>, core: &mut ProducerCore, lane: usize, now: Now) -> Result<bool, Error> {
    let failed = |slot: &Slot<S>, doing, source| Error::io(doing, slot.socket.address(), source);
    let mut progress = false;
    if !core.conn(lane).out().is_empty() {
        if now.mono_us.saturating_sub(slot.received_us) > SILENCE_US {
            progress |= receive(slot, core, lane, now)?;
        }
        let written = slot.socket.flush(core.conn(lane)).map_err(|source| failed(slot, "cannot send to", source))?;
        progress |= written > 0;
        core.on_written(lane, now);
    }
    if receive(slot, core, lane, now)? {
        // Answers made room in the window: what waited for it goes out at once.
        core.fill_windows(now);
        slot.socket.flush(core.conn(lane)).map_err(|source| failed(slot, "cannot send to", source))?;
        core.on_written(lane, now);
        progress = true;
    }
    if core.is_silent(lane, now) {
        await_overdue(slot, core, lane, now)?;
    }
    Ok(progress)
}

/// An answer is overdue. Where the caller was away for long it may lie in the socket behind others, so what is there is read first; but not
/// without end, as a peer can talk for ever and not answer.
#[cold]
fn await_overdue<S: Wire>(slot: &mut Slot<S>, core: &mut ProducerCore, lane: usize, now: Now) -> Result<(), Error> {
    for _ in 0..OVERDUE_READS {
        if !receive(slot, core, lane, now)? || !core.is_silent(lane, now) {
            break;
        }
    }
    if core.is_silent(lane, now) { Err(overdue(slot)) } else { Ok(()) }
}

/// One read; returns whether anything came.
#[inline]
fn receive<S: Wire>(slot: &mut Slot<S>, core: &mut ProducerCore, lane: usize, now: Now) -> Result<bool, Error> {
    let look = core.is_silent(lane, now);
    let came = read(slot, core.conn(lane), look, now)?;
    if came {
        core.on_received(lane, now)?;
    }
    Ok(came)
}

/// One read into a connection's buffer; returns whether anything came. `look`: also where the socket is not known to be ready.
#[inline]
fn read<S: Wire>(slot: &mut Slot<S>, conn: &mut Conn, look: bool, now: Now) -> Result<bool, Error> {
    let source = match slot.socket.fill(conn, look) {
        Ok(Received::Some(_)) => {
            slot.received_us = now.mono_us;
            return Ok(true);
        }
        Ok(Received::Empty) => return Ok(false),
        Ok(Received::Closed) => closed_by_peer(),
        Err(source) => source,
    };
    Err(Error::io("cannot receive from", slot.socket.address(), source))
}

/// An answer did not come in time, and a read brought nothing either.
#[cold]
fn overdue<S: Wire>(slot: &Slot<S>) -> Error {
    let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "a request was not answered in time");
    Error::io("cannot receive from", slot.socket.address(), source)
}

/// A consumer's core with its connections.
#[derive(Debug)]
pub(crate) struct ConsumerPump<S: Wire> {
    pub core: ConsumerCore,
    pub links: Links,
    pub driver: Driver<S>,
    pub clock: Clock,
}

impl<S: Wire> ConsumerPump<S> {
    pub(crate) fn new(shared: &Shared, config: ConsumerConfig) -> Result<ConsumerPump<S>, Error> {
        let client = &shared.config;
        let core = ConsumerCore::new(
            config,
            micros(client.call_timeout),
            micros(client.request_timeout),
            client.frame_bytes_max,
            crate::clock::seed() as u32,
        )?;
        Ok(ConsumerPump { core, links: Links::new(client), driver: Driver::default(), clock: Clock::new() })
    }

    /// One turn of everything: streams, connections, metadata; over all lanes: hand out, send, receive. Returns what was handed out and whether bytes
    /// moved.
    pub(crate) fn turn(&mut self, now: Now, each: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>) -> (Delivered, bool) {
        let ConsumerPump { core, links, driver, .. } = self;
        links.step(core, now);
        driver.dial(links, core, now);
        driver.look();
        core.step(now);
        let mut all = Delivered::default();
        let mut progress = false;
        for place in 0..driver.places() {
            let Some((lane, slot)) = driver.open_lane(place, links) else {
                if driver.turn(place, links, core, now) {
                    core.step(now); // a lane that is open now begins its stream
                    progress = true;
                }
                continue;
            };
            match read_lane(&mut slot.socket, core, lane, now, each) {
                Ok((delivered, moved)) => {
                    all.records += delivered.records;
                    progress |= moved;
                    if delivered.stopped {
                        all.stopped = true;
                        break;
                    }
                }
                Err(error) => {
                    driver.fail(place, links, core, error, now);
                    progress = true;
                }
            }
        }
        (all, progress)
    }

    /// When a turn is due even if no socket is ready.
    pub(crate) fn next_step_us(&self, now: Now) -> u64 {
        self.core.next_step_us(now).min(self.links.next_step_us())
    }

    /// Of the ends that [`Shared::ends_of`] told, leaves those that are not reached. A partition that was paused or unassigned since is not waited for.
    pub(crate) fn leave_unreached(&self, ends: &mut Vec<(String, u32, u64)>) {
        ends.retain(|(topic, partition, end)| {
            let is_paused = self.core.paused().any(|paused| paused == (topic.as_str(), *partition));
            !is_paused && self.core.position(topic, *partition).is_some_and(|position| position < *end)
        });
    }
}

fn read_lane<S: Wire>(
    socket: &mut S,
    core: &mut ConsumerCore,
    lane: usize,
    now: Now,
    each: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>,
) -> Result<(Delivered, bool), Error> {
    let failed = |socket: &S, doing, source| Error::io(doing, socket.address(), source);
    let mut all = Delivered::default();
    let mut progress = false;
    for _ in 0..READS_PER_TURN {
        let delivered = core.deliver(lane, now, each)?;
        all.records += delivered.records;
        all.stopped = delivered.stopped;
        if !core.conn(lane).out().is_empty() {
            let written = socket.flush(core.conn(lane)).map_err(|source| failed(socket, "cannot send to", source))?;
            progress |= written > 0;
        }
        if all.stopped {
            break;
        }
        let silent = core.is_silent(lane, now);
        match socket.fill(core.conn(lane), silent) {
            Ok(Received::Some(_)) => progress = true,
            Ok(Received::Empty) if silent => {
                let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "a ping was not answered in time");
                return Err(failed(socket, "cannot receive from", source));
            }
            Ok(Received::Empty) => break,
            Ok(Received::Closed) => return Err(failed(socket, "cannot receive from", closed_by_peer())),
            Err(source) => return Err(failed(socket, "cannot receive from", source)),
        }
    }
    Ok((all, progress))
}

#[cfg(test)]
mod tests;
