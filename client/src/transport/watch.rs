//! Which of many sockets have something to read, asked in one call: epoll(7) without waiting.
//!
//! Why: a turn asks every connection, for an answer may come on any, and a read of an empty socket costs 0.18 us. Round trips over one of n
//! connections of a spinning client (`tramline-limits --only client-side`; medians, us):
//!
//! | n | each read in turn | epoll | io_uring, a receive on each |
//! |---|---|---|---|
//! | 1 | 7.4 | 7.7 | 8.3 |
//! | 4 | 7.8 | 7.9 | 8.5 |
//! | 16 | 10.6 | 7.8 | 8.3 |
//! | 64 | 18.5 | 7.9 | 8.4 |
//!
//! So few sockets are read in turn, and many are watched; a ring is the faster one nowhere.
//!
//! Not here: sleeping until something comes (`wait.rs`).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};

use super::{Slot, Socket};

/// So many sockets are watched.
const MANY: usize = 6;
/// Told in one call; what has no room is told by the next.
const EVENTS: usize = 64;

/// See the module's page. Where the system refuses, sockets are read in turn.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    epoll: Option<OwnedFd>,
}

impl Watch {
    /// Asks about all sockets: those that are watched know from now on whether a read finds something.
    pub(super) fn look(&mut self, slots: &mut [Option<Slot<Socket>>]) {
        if slots.len() < MANY || slots.iter().flatten().count() < MANY {
            if self.epoll.take().is_some() {
                slots.iter_mut().flatten().for_each(|slot| slot.socket.watched = false);
            }
            return;
        }
        if self.epoll.is_none() {
            self.epoll = epoll::create(epoll::CreateFlags::CLOEXEC).ok();
        }
        let Some(epoll) = &self.epoll else { return };
        for (place, slot) in slots.iter_mut().enumerate() {
            let Some(Slot { socket, .. }) = slot else { continue };
            socket.ready = false;
            if !socket.watched && !socket.connecting {
                // A socket that is closed leaves by itself.
                let added = epoll::add(epoll, &*socket, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN);
                socket.watched = added.is_ok();
                // Whatever came before is told below.
            }
        }
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok((events, _)) = epoll::wait(epoll, &mut room, Some(&at_once)) else {
            // Interrupted, at most: then each is read.
            slots.iter_mut().flatten().for_each(|slot| slot.socket.ready = true);
            return;
        };
        for event in events {
            if let Some(Some(slot)) = slots.get_mut(event.data.u64() as usize) {
                slot.socket.ready = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::core::Conn;
    use crate::transport::{Received, Wire, dial};

    fn pair(listener: &TcpListener) -> (Option<Slot<Socket>>, TcpStream) {
        let address = listener.local_addr().expect("an address").to_string();
        let socket = dial(&address, Duration::from_secs(10)).expect("connects");
        (Some(Slot { socket, received_us: 0 }), listener.accept().expect("accepts").0)
    }

    /// Looks until the place is ready.
    fn until_ready(watch: &mut Watch, slots: &mut [Option<Slot<Socket>>], place: usize) {
        let start = Instant::now();
        while !slots[place].as_ref().expect("a socket").socket.ready {
            assert!(start.elapsed() < Duration::from_secs(10), "place {place} is never ready");
            watch.look(slots);
        }
    }

    #[test]
    fn many_sockets_are_watched_and_only_those_that_have_something_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (mut slots, mut peers): (Vec<_>, Vec<_>) = (0..MANY + 2).map(|_| pair(&listener)).unzip();
        let mut watch = Watch::default();
        let mut conn = Conn::new(1 << 10, 1 << 20);
        watch.look(&mut slots);
        assert!(slots.iter().flatten().all(|slot| slot.socket.watched && !slot.socket.ready));
        peers[3].write_all(b"something").expect("written");
        until_ready(&mut watch, &mut slots, 3);
        let ready: Vec<usize> = (0..slots.len()).filter(|at| slots[*at].as_ref().is_some_and(|slot| slot.socket.ready)).collect();
        assert_eq!(ready, [3]);
        let mut read = |slots: &mut [Option<Slot<Socket>>], place: usize, look| {
            Wire::fill(&mut slots[place].as_mut().expect("a socket").socket, &mut conn, look).expect("no error")
        };
        assert_eq!((read(&mut slots, 3, false), read(&mut slots, 3, false)), (Received::Some(9), Received::Empty));
        watch.look(&mut slots);
        assert!(!slots[3].as_ref().expect("a socket").socket.ready, "all of it was read");
        // One that nobody watches yet, in the place of another, and one whose other side goes.
        let (new, mut peer) = pair(&listener);
        slots[1] = new;
        peer.write_all(b"new").expect("written");
        until_ready(&mut watch, &mut slots, 1);
        assert_eq!(read(&mut slots, 1, false), Received::Some(3));
        peers[5].shutdown(std::net::Shutdown::Both).expect("ended");
        until_ready(&mut watch, &mut slots, 5);
        assert_eq!(read(&mut slots, 5, false), Received::Closed);
        // Few are read in turn.
        slots.truncate(MANY - 1);
        watch.look(&mut slots);
        assert!(slots.iter().flatten().all(|slot| !slot.socket.watched));
        peers[4].write_all(b"in turn").expect("written");
        let start = Instant::now();
        while read(&mut slots, 4, false) == Received::Empty {
            assert!(start.elapsed() < Duration::from_secs(10), "nothing comes");
        }
    }
}
