//! Moves bytes between a core's connections and their sockets, blocking or busy-polling: dials without waiting, opens, writes, reads, waits.
//!
//! What only a producer or a consumer does on an open lane is theirs (`crate::producer`, `crate::consumer`); the driver does the rest.

use std::time::Duration;

use super::{Interest, Received, Socket, WaitMode, wait};
use crate::core::Now;
use crate::core::links::{Key, Lanes, Links};
use crate::error::Error;
use crate::link::closed_by_peer;

/// A connection's socket.
#[derive(Debug)]
pub(crate) struct Slot {
    pub socket: Socket,
    /// When bytes came from it last, monotonic microseconds.
    pub received_us: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Driver {
    /// By [`Key::place`].
    slots: Vec<Option<Slot>>,
    mode: WaitMode,
}

impl Driver {
    pub(crate) fn new(mode: WaitMode) -> Driver {
        Driver { slots: Vec::new(), mode }
    }

    /// How many places there are; some may be without a socket.
    #[inline]
    pub(crate) fn places(&self) -> usize {
        self.slots.len()
    }

    /// The socket of a lane that is open.
    #[inline]
    pub(crate) fn open_lane(&mut self, place: usize, links: &Links) -> Option<(usize, &mut Slot)> {
        match Key::at(place) {
            Key::Lane(lane) if links.is_open(lane) => Some((lane, self.slots[place].as_mut()?)),
            _ => None,
        }
    }

    /// A lane failed: its socket goes, its core is told.
    #[cold]
    pub(crate) fn fail(&mut self, place: usize, links: &mut Links, core: &mut impl Lanes, error: Error, now: Now) {
        self.slots[place] = None;
        links.on_failed(core, Key::at(place), error, now);
    }

    /// Begins to connect what is to be connected.
    #[inline]
    pub(crate) fn dial(&mut self, links: &mut Links, core: &mut impl Lanes, now: Now) {
        while let Some((key, address)) = links.next_dial() {
            let place = key.place();
            if self.slots.len() <= place {
                self.slots.resize_with(place + 1, || None);
            }
            match Socket::begin(&address) {
                Ok(socket) => self.slots[place] = Some(Slot { socket, received_us: now.mono_us }),
                Err(error) => self.fail(place, links, core, error, now),
            }
        }
    }

    /// One turn of a connection that is no open lane; returns whether anything moved.
    pub(crate) fn turn(&mut self, place: usize, links: &mut Links, core: &mut impl Lanes, now: Now) -> bool {
        let key = Key::at(place);
        if !links.is_wanted(key) {
            self.slots[place] = None;
        }
        let Some(slot) = &mut self.slots[place] else { return false };
        match turn(slot, links, core, key, now) {
            Ok(moved) => moved,
            Err(error) => {
                self.fail(place, links, core, error, now);
                true
            }
        }
    }

    /// Waits until a socket is ready, or the time is over.
    pub(crate) fn wait(&self, timeout: Duration, links: &mut Links, core: &mut impl Lanes) -> Result<(), Error> {
        let mut interests = self.slots.iter().enumerate().filter_map(|(place, slot)| {
            let socket = &slot.as_ref()?.socket;
            let writable = socket.is_connecting() || !links.conn(core, Key::at(place)).out().is_empty();
            Some(Interest::new(socket, writable))
        });
        wait(self.mode, timeout, &mut interests).map_err(|source| Error::io("cannot wait for", "the brokers", source))
    }
}

fn turn(slot: &mut Slot, links: &mut Links, core: &mut impl Lanes, key: Key, now: Now) -> Result<bool, Error> {
    let socket = &mut slot.socket;
    if socket.is_connecting() {
        if !socket.finish()? {
            return Ok(false);
        }
        links.on_dialled(core, key);
    }
    let written = socket.flush(links.conn(core, key)).map_err(|source| Error::io("cannot send to", socket.address(), source))?;
    let source = match socket.fill(links.conn(core, key)) {
        Ok(Received::Some(_)) => {
            slot.received_us = now.mono_us;
            links.on_received(core, key, now)?;
            return Ok(true);
        }
        Ok(Received::Empty) => return Ok(written > 0),
        Ok(Received::Closed) => closed_by_peer(),
        Err(source) => source,
    };
    Err(Error::io("cannot receive from", socket.address(), source))
}
