//! Parking: the flag and the eventfd that other threads see, and the ring's timer.
//!
//! No wake is lost. Sleeper: (1) flag = true, (2) fence, (3) look for work; waker: (a) publish work, (b) fence, (c) look at
//! the flag. Either (3) sees what (a) published, or (c) sees the flag of (1) and writes the eventfd, which ends the wait also when
//! the write comes before the wait.
//!
//! What this does not promise: a wake can be too many (the eventfd of an earlier park that nobody read ends the next one at once).
//!
//! Not here: the wait itself (the loop awaits the eventfd through its executor).

use super::queue::{Cqe, Kind, Queue, Tag};
use super::{Completion, RingError};
use io_uring::{IoUring, opcode, types};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

struct Shared {
    /// The ring's thread sleeps or is about to. Set by that thread; taken back by it or by the first waker.
    parked: AtomicBool,
    /// A waker has written the eventfd since the last unpark.
    woken: AtomicBool,
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
            self.shared.woken.store(true, Ordering::SeqCst);
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight bytes of a local array are written to a descriptor that `shared` keeps open.
            let written = unsafe { libc::write(self.shared.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            // The counter cannot be full: that takes 2^64 wakes without a read.
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
    /// Read by the kernel when a timer is armed or moved; boxed, since the ring may move before it is submitted.
    span: Box<types::Timespec>,
    /// When the armed timer fires. It is not taken back by an unpark: firing early costs one useless wake-up.
    armed: Option<Instant>,
}

const TIMER: u64 = 0;

impl Park {
    pub(super) fn new(io: &IoUring) -> Result<Park, RingError> {
        // SAFETY: no memory is passed; the result is checked before it is owned. Blocking, so that an executor's ring waits for
        // it instead of failing a read with EAGAIN.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(RingError::EventFd(io::Error::last_os_error()));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        io.submitter().register_eventfd(event.as_raw_fd()).map_err(RingError::EventFd)?;
        let shared = Shared { parked: AtomicBool::new(false), woken: AtomicBool::new(false), event };
        Ok(Park { shared: Arc::new(shared), span: Box::new(types::Timespec::new()), armed: None })
    }

    pub(super) fn event_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
    pub(super) fn event_fd_dup(&self) -> io::Result<OwnedFd> {
        self.shared.event.try_clone()
    }
    pub(super) fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }

    /// Ends this ring's own sleep, which is about to begin or is going on in its executor.
    pub(super) fn wake_self(&self) {
        self.waker().wake();
    }

    /// Steps (1) and (2) of the sleeper.
    pub(super) fn announce(&self) {
        self.shared.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Takes the flag back. True if a waker had written.
    pub(super) fn retract(&self) -> bool {
        self.shared.parked.store(false, Ordering::SeqCst);
        self.shared.woken.load(Ordering::Relaxed) && self.shared.woken.swap(false, Ordering::SeqCst)
    }

    /// Sees to it that a timer fires no later than `span` from now.
    pub(super) fn arm_timer(&mut self, queue: &mut Queue, span: Duration) {
        let at = Instant::now() + span;
        let tag = Tag::new(Kind::Timer, TIMER);
        let span_ptr: *const types::Timespec = &*self.span;
        match self.armed {
            Some(armed) if armed <= at => {}
            Some(_) => {
                *self.span = types::Timespec::from(span);
                let entry = opcode::TimeoutUpdate::new(tag.raw(), span_ptr).build();
                // SAFETY: the kernel copies the time when the entry is submitted; the box outlives the ring. Should it have fired
                // already, then its completion is on the way and ends the park.
                unsafe { queue.push(entry, Tag::new(Kind::Ignored, 0)) };
                self.armed = Some(at);
            }
            None => {
                *self.span = types::Timespec::from(span);
                let entry = opcode::Timeout::new(span_ptr).build();
                // SAFETY: as above.
                unsafe { queue.push(entry, tag) };
                self.armed = Some(at);
            }
        }
    }

    pub(super) fn cancel_timer(&mut self, queue: &mut Queue) {
        if self.armed.is_some() {
            let entry = opcode::TimeoutRemove::new(Tag::new(Kind::Timer, TIMER).raw()).build();
            // SAFETY: the entry points to no memory.
            unsafe { queue.push(entry, Tag::new(Kind::Ignored, 0)) };
        }
    }

    pub(super) fn on_timer(&mut self, cqe: Cqe, out: &mut Vec<Completion>) {
        self.armed = None;
        if cqe.result == -libc::ETIME {
            out.push(Completion::TimerFired);
        }
    }
}

/// Makes an owner of another crate out of a descriptor: for types that can only be made from a raw one.
pub fn adopt_fd<T: std::os::fd::FromRawFd>(fd: std::os::fd::OwnedFd) -> T {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is open and owned by nobody else: `into_raw_fd` has just given up its ownership.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}
