//! Waiting for sockets: poll(2), or a turn of a spinning loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// Sleep in poll(2).
    Sleep,
    /// Return at once, after a `sched_yield` when asked (see `Config::yield_when_empty`).
    Spin { yields: bool },
}

/// One socket to wait for: always for bytes to read, and for room to write if asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interest<'a> {
    fd: BorrowedFd<'a>,
    writable: bool,
}

impl<'a> Interest<'a> {
    pub(crate) fn new(source: &'a impl AsFd, writable: bool) -> Interest<'a> {
        Interest { fd: source.as_fd(), writable }
    }

    fn poll_fd(self) -> PollFd<'a> {
        let flags = if self.writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        PollFd::from_borrowed_fd(self.fd, flags)
    }
}

/// Waits until one of the sockets is ready or the time is over; when spinning, only yields. Which one is ready is found by
/// trying them all: there are as many as shards, and a failed read costs less than the wake-up did.
pub(crate) fn wait(mode: WaitMode, timeout: Duration, interests: &mut dyn Iterator<Item = Interest<'_>>) -> io::Result<()> {
    if let WaitMode::Spin { yields } = mode {
        if yields {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
        return Ok(());
    }
    let timeout = Timespec { tv_sec: timeout.as_secs().min(1 << 30) as i64, tv_nsec: i64::from(timeout.subsec_nanos()) as _ };
    let mut interests = interests.map(Interest::poll_fd);
    let first = interests.next();
    let second = interests.next();
    let result = match (first, second) {
        // The common cases need no list.
        (None, _) => poll(&mut [], Some(&timeout)),
        (Some(first), None) => poll(&mut [first], Some(&timeout)),
        (Some(first), Some(second)) => {
            let mut all: Vec<PollFd<'_>> = [first, second].into_iter().chain(interests).collect();
            poll(&mut all, Some(&timeout))
        }
    };
    match result {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
