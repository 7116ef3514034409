//! Parking: the flag that other threads see, and the eventfd with which they end the sleep.
//!
//! No wake is lost. Sleeper: (1) flag = true, (2) fence, (3) look for work; waker: (a) publish work, (b) fence, (c) look at
//! the flag. Either (3) sees what (a) published, or (c) sees the flag of (1) and writes the eventfd. A poll of the ring hears every write, also one that comes
//! before the wait: it leaves a completion, and a ring with completions does not wait.
//!
//! What this does not promise: a wake can be too many (one whose completion comes after the park has ended).
//!
//! Not here: the wait itself (`queue.rs`), when to sleep (the loop).

use super::RingError;
use super::queue::{Cqe, Kind, Queue, Tag};
use io_uring::{opcode, types};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

struct Shared {
    /// The ring's thread sleeps or is about to. Set by that thread; taken back by it or by the first waker.
    parked: AtomicBool,
    event: OwnedFd,
}

/// Ends the park of one ring, from any thread. Cheap (one fence and one load) when the ring is not parked.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    /// To be called after the work was published (pushed into the mesh).
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.parked.load(Ordering::Relaxed) && self.shared.parked.swap(false, Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight bytes of a local array are written to a descriptor that `shared` keeps open.
            let written = unsafe { libc::write(self.shared.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            // Nobody reads the counter, and it cannot be full: that takes 2^64 wakes.
            debug_assert_eq!(written, 8, "{}", io::Error::last_os_error());
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waker(eventfd {})", self.shared.event.as_raw_fd())
    }
}

pub(super) struct Park {
    shared: Arc<Shared>,
    /// The poll of the eventfd is under way.
    is_armed: bool,
}

const WAKE: u64 = 0;

impl Park {
    pub(super) fn new() -> Result<Park, RingError> {
        // SAFETY: no memory is passed; the result is checked before it is owned.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(RingError::EventFd(io::Error::last_os_error()));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        Ok(Park { shared: Arc::new(Shared { parked: AtomicBool::new(false), event }), is_armed: false })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }

    /// Steps (1) and (2) of the sleeper.
    pub(super) fn announce(&mut self, queue: &mut Queue) {
        if !std::mem::replace(&mut self.is_armed, true) {
            // Multishot: as a rule once in a ring's life.
            let entry = opcode::PollAdd::new(types::Fd(self.shared.event.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
            // SAFETY: the entry points to no memory.
            unsafe { queue.push(entry, Tag::new(Kind::Wake, WAKE)) };
        }
        self.shared.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Takes the flag back.
    pub(super) fn retract(&self) {
        self.shared.parked.store(false, Ordering::SeqCst);
    }

    /// A wake: that it has ended the sleep is all there is to it.
    pub(super) fn on_wake(&mut self, cqe: Cqe) {
        self.is_armed = cqe.more;
    }

    /// Before the ring is dropped.
    pub(super) fn disarm(&self, queue: &mut Queue) {
        if self.is_armed {
            let entry = opcode::PollRemove::new(Tag::new(Kind::Wake, WAKE).raw()).build();
            // SAFETY: the entry points to no memory.
            unsafe { queue.push(entry, Tag::new(Kind::Ignored, 0)) };
        }
    }
}
