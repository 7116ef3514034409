//! Moves bytes between a core's connections and their sockets: dials without waiting, opens, writes, reads.
//!
//! What only a producer or a consumer does on an open lane is theirs (`crate::pump`); the driver does the rest. Waiting is the transport's.

use std::time::Duration;

use super::{Interest, Received, Socket, WaitMode, Wire, wait};
use crate::core::Now;
use crate::core::links::{Key, Lanes, Links};
use crate::error::Error;
use crate::link::closed_by_peer;

/// A connection's socket.
#[derive(Debug)]
pub(crate) struct Slot<S> {
    pub socket: S,
    /// When bytes came from it last, monotonic microseconds.
    pub received_us: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Driver<S: Wire> {
    /// By [`Key::place`].
    slots: Vec<Option<Slot<S>>>,
    watch: S::Watch,
    /// A socket was opened since somebody asked.
    opened: bool,
}

impl<S: Wire> Default for Driver<S> {
    fn default() -> Driver<S> {
        Driver { slots: Vec::new(), watch: S::Watch::default(), opened: false }
    }
}

impl<S: Wire> Driver<S> {
    /// How many places there are; some may be without a socket.
    #[inline]
    pub(crate) fn places(&self) -> usize {
        self.slots.len()
    }

    /// The socket of a lane that is open.
    #[inline]
    pub(crate) fn open_lane(&mut self, place: usize, links: &Links) -> Option<(usize, &mut Slot<S>)> {
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

    /// Begins a turn.
    #[inline]
    pub(crate) fn look(&mut self) {
        S::look(&mut self.watch, &mut self.slots);
    }

    /// Begins to connect what is to be connected.
    #[inline]
    pub(crate) fn dial(&mut self, links: &mut Links, core: &mut impl Lanes, now: Now) {
        while let Some((key, address)) = links.next_dial() {
            let place = key.place();
            if self.slots.len() <= place {
                self.slots.resize_with(place + 1, || None);
            }
            match S::begin(&address) {
                Ok(socket) => {
                    self.slots[place] = Some(Slot { socket, received_us: now.mono_us });
                    self.opened = true;
                }
                Err(error) => self.fail(place, links, core, error, now),
            }
        }
    }

    /// One turn of a connection that is no open lane; returns whether anything moved.
    pub(crate) fn turn(&mut self, place: usize, links: &mut Links, core: &mut impl Lanes, now: Now) -> bool {
        if self.slots[place].is_none() {
            return false;
        }
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

    /// Whether a socket was opened since the last call: it has no waker yet.
    #[cfg(feature = "tokio")]
    pub(crate) fn take_opened(&mut self) -> bool {
        std::mem::take(&mut self.opened)
    }

    /// The sockets there are.
    #[cfg(feature = "tokio")]
    pub(crate) fn sockets(&mut self) -> impl Iterator<Item = &mut S> {
        self.slots.iter_mut().flatten().map(|slot| &mut slot.socket)
    }
}

impl Driver<Socket> {
    /// What there is to wait for.
    pub(crate) fn interests<'a>(&'a self, links: &'a mut Links, core: &'a mut impl Lanes) -> impl Iterator<Item = Interest<'a>> {
        self.slots.iter().enumerate().filter_map(|(place, slot)| {
            let socket = &slot.as_ref()?.socket;
            let writable = socket.is_connecting() || !links.conn(core, Key::at(place)).out().is_empty();
            Some(Interest::new(socket, writable))
        })
    }

    /// Waits until a socket is ready, or the time is over.
    pub(crate) fn wait(&self, mode: WaitMode, timeout: Duration, links: &mut Links, core: &mut impl Lanes) -> Result<(), Error> {
        wait(mode, timeout, &mut self.interests(links, core)).map_err(|source| Error::io("cannot wait for", "the brokers", source))
    }
}

fn turn<S: Wire>(slot: &mut Slot<S>, links: &mut Links, core: &mut impl Lanes, key: Key, now: Now) -> Result<bool, Error> {
    let socket = &mut slot.socket;
    if socket.is_connecting() {
        if !socket.finish()? {
            return Ok(false);
        }
        links.on_dialled(core, key);
    }
    let written = socket.flush(links.conn(core, key)).map_err(|source| Error::io("cannot send to", socket.address(), source))?;
    let source = match socket.fill(links.conn(core, key), false) {
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
