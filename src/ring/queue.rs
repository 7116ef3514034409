//! The two queues of the ring: pushing, entering, taking completions. The only file that calls `io_uring_enter`.
//!
//! Invariants
//! - `outstanding` counts operations pushed whose last CQE was not taken; 0 means that the kernel knows no memory of ours. Only
//!   cancels and changes of timers (`Kind::Ignored`) do not count: they point to nothing once submitted, and complete without a CQE
//!   when they succeed, so that they do not end a sleep.
//! - A push never fails: a full submission queue is submitted first. If the kernel refuses because completions are waiting (EBUSY) or
//!   memory is short (EAGAIN), completions are moved aside to `backlog`, from which `take` serves first.
//! - A tag is unique among the operations in flight, apart from cancels.
//!
//! Why the ring is not entered when nothing is due: TASKRUN_FLAG makes the kernel set a bit in shared memory when there is work for
//! us, so a spinning shard reads memory instead of calling the kernel (0.2 us for each call on the machine of the other numbers).
//! For the same reason the eventfd is off while spinning (0.2 us for each round trip).
//!
//! Not here: what the operations mean.

use super::{RingStats, Waker};
use io_uring::{EnterFlags, IoUring, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Which part of the room an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Ignored = 0,
    Recv = 1,
    Send = 2,
    File = 3,
    Accept = 4,
    AcceptRetry = 5,
    AcceptCancel = 6,
    Timer = 7,
    Connect = 8,
    ConnectCancel = 9,
}

/// What goes through the kernel as user data: a kind (4 bits) and that part's own number (60 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tag(u64);

const NUMBER_BITS: u32 = 60;

impl Tag {
    pub(super) fn new(kind: Kind, number: u64) -> Tag {
        debug_assert!(number < 1 << NUMBER_BITS, "tag number {number} out of range");
        Tag((kind as u64) << NUMBER_BITS | number)
    }
    pub(super) fn kind(self) -> Kind {
        match self.0 >> NUMBER_BITS {
            0 => Kind::Ignored,
            1 => Kind::Recv,
            2 => Kind::Send,
            3 => Kind::File,
            4 => Kind::Accept,
            5 => Kind::AcceptRetry,
            6 => Kind::AcceptCancel,
            7 => Kind::Timer,
            8 => Kind::Connect,
            9 => Kind::ConnectCancel,
            other => panic!("the kernel gave back user data of kind {other}, which was never given to it"),
        }
    }
    pub(super) fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }
    pub(super) fn raw(self) -> u64 {
        self.0
    }
}

/// One completion, copied out of the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cqe {
    pub(super) tag: Tag,
    /// Result of the operation, or the negative errno.
    pub(super) result: i32,
    /// More completions of the same (multishot) operation will follow.
    pub(super) more: bool,
    /// A receive left bytes in the socket.
    pub(super) nonempty: bool,
}

pub(super) struct Queue {
    io: IoUring,
    outstanding: usize,
    /// Taken out of the completion queue to make room, oldest first. Empty but in the rarest case.
    backlog: VecDeque<Cqe>,
    parked: bool,
    /// To end our own sleep when an entry cannot be submitted at once.
    waker: Waker,
    stats: RingStats,
}

impl Queue {
    pub(super) fn new(io: IoUring, waker: Waker) -> Queue {
        io_eventfd_off(&io);
        Queue { io, outstanding: 0, backlog: VecDeque::new(), parked: false, waker, stats: RingStats::default() }
    }

    pub(super) fn io(&self) -> &IoUring {
        &self.io
    }
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }
    pub(super) fn is_parked(&self) -> bool {
        self.parked
    }
    pub(super) fn stats(&self) -> RingStats {
        self.stats
    }

    /// Queues one operation; while parked it is submitted at once.
    ///
    /// # Safety
    /// Everything `entry` points to stays valid and unaliased by writers until the last completion of `tag` was taken.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, tag: Tag) {
        let mut entry = entry.user_data(tag.raw());
        if tag.kind() == Kind::Ignored {
            entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        }
        if self.io.submission().is_full() {
            self.stats.sq_full_count += 1;
            self.make_room();
        }
        // SAFETY: passed on to the caller by this function's own contract.
        let pushed = unsafe { self.io.submission().push(&entry) };
        assert!(pushed.is_ok(), "room was made before the push");
        self.outstanding += usize::from(tag.kind() != Kind::Ignored);
        self.stats.submit_count += 1;
        if self.parked {
            self.enter(EnterFlags::empty());
            if !self.io.submission().is_empty() {
                self.waker.wake();
            }
        }
    }

    /// Enters the ring without waiting, if there is something to submit or the kernel has something for us.
    pub(super) fn enter_if_needed(&mut self) {
        let submission = self.io.submission();
        let due = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if due {
            self.enter(EnterFlags::GETEVENTS);
        }
    }

    /// Copies completions into `batch`, oldest first; returns how many. Fewer than asked: there are no more.
    pub(super) fn take(&mut self, batch: &mut [Cqe]) -> usize {
        let mut count = 0;
        while count < batch.len() {
            let Some(cqe) = self.backlog.pop_front() else { break };
            batch[count] = cqe;
            count += 1;
        }
        count += take_new(&mut self.io, &mut batch[count..]);
        self.outstanding -= batch[..count].iter().filter(|c| !c.more && c.tag.kind() != Kind::Ignored).count();
        count
    }

    /// Submits everything, turns the eventfd on and looks once more. `false`: something is due, the ring is not parked. The caller has
    /// announced the park (flag and fence) before, so that a waker on another thread is either seen by the caller's
    /// own check afterwards or writes the eventfd.
    pub(super) fn park(&mut self) -> bool {
        self.io.completion().enable_eventfd();
        self.parked = true;
        // Unconditionally: it runs what the kernel has put off, so that whatever comes later finds an empty list and signals.
        self.enter(EnterFlags::GETEVENTS);
        let submission = self.io.submission();
        let due = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if due || !self.backlog.is_empty() || !self.io.completion().is_empty() {
            self.unpark();
            return false;
        }
        true
    }

    pub(super) fn unpark(&mut self) {
        if self.parked {
            self.parked = false;
            io_eventfd_off(&self.io);
        }
    }

    /// Submits everything and waits for at least one completion, at most for `limit`. Only for shutdown.
    pub(super) fn enter_wait(&mut self, limit: Duration) {
        if !self.backlog.is_empty() {
            return;
        }
        let limit = types::Timespec::from(limit);
        let args = types::SubmitArgs::new().timespec(&limit);
        self.stats.enter_count += 1;
        match self.io.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(e) => check_enter_error(&e),
        }
    }

    fn make_room(&mut self) {
        loop {
            self.enter(EnterFlags::empty());
            if !self.io.submission().is_full() {
                return;
            }
            // The kernel takes nothing while completions are piled up: move them aside, and let it bring the rest.
            let mut batch = [Cqe::default(); 32];
            loop {
                let count = take_new(&mut self.io, &mut batch);
                self.backlog.extend(&batch[..count]);
                if count < batch.len() {
                    break;
                }
            }
            self.enter(EnterFlags::GETEVENTS);
        }
    }

    fn enter(&mut self, flags: EnterFlags) {
        let submission = self.io.submission();
        let to_submit = submission.len() as u32;
        if submission.cq_overflow() {
            self.stats.cq_overflow_count += 1;
        }
        drop(submission);
        self.stats.enter_count += 1;
        // SAFETY: the entries in the queue were pushed under the contract of `push`; no argument is passed.
        let entered = unsafe { self.io.submitter().enter::<libc::sigset_t>(to_submit, 0, flags.bits(), None) };
        if let Err(e) = entered {
            check_enter_error(&e);
        }
    }
}

fn io_eventfd_off(io: &IoUring) {
    // SAFETY: only the flag word is touched, which the kernel and we change atomically; the queue's head is not.
    unsafe { io.completion_shared() }.disable_eventfd();
}

fn take_new(io: &mut IoUring, batch: &mut [Cqe]) -> usize {
    let mut count = 0;
    let mut completion = io.completion();
    while count < batch.len() {
        let Some(entry) = completion.next() else { break };
        batch[count] = Cqe {
            tag: Tag(entry.user_data()),
            result: entry.result(),
            more: io_uring::cqueue::more(entry.flags()),
            nonempty: io_uring::cqueue::sock_nonempty(entry.flags()),
        };
        count += 1;
    }
    count
}

/// Busy, short of memory, interrupted, timed out: what was not submitted stays in the queue for the next enter. Anything else is a
/// mistake of ours (a wrong descriptor, another thread) and leaves no way on.
fn check_enter_error(e: &io::Error) {
    match e.raw_os_error() {
        Some(libc::EBUSY | libc::EAGAIN | libc::EINTR | libc::ETIME | libc::ENOMEM) => {}
        Some(libc::EBADR) => {
            panic!("the kernel ran out of memory and dropped completions: what is in flight can never be known to have ended")
        }
        _ => panic!(
            "io_uring_enter failed: {e}; the ring is used from another thread than the one that made it, or its descriptor was closed"
        ),
    }
}
