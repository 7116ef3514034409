//! The two queues of the ring: pushing, entering, taking completions. The only file that calls `io_uring_enter`.
//!
//! Invariants
//! - `outstanding` counts operations pushed whose last CQE was not taken; 0 means that the kernel knows no memory of ours. Only
//!   cancels (`Kind::Ignored`) do not count: they point to nothing once submitted, and complete without a CQE
//!   when they succeed, so that they do not end a sleep.
//! - A push never fails: a full submission queue is submitted first. If the kernel refuses because completions are waiting (EBUSY) or
//!   memory is short (EAGAIN), completions are moved aside to `backlog`, from which `take` serves first.
//! - A tag is unique among the operations in flight, apart from cancels.
//!
//! Why the ring is not entered when nothing is due: TASKRUN_FLAG makes the kernel set a bit in shared memory when there is work for
//! us, so a spinning shard reads memory instead of calling the kernel (0.2 us for each call on the machine of the other numbers).
//!
//! Not here: what the operations mean.

use super::RingStats;
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
    Wake = 7,
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
            7 => Kind::Wake,
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
    stats: RingStats,
}

impl Queue {
    pub(super) fn new(io: IoUring) -> Queue {
        Queue { io, outstanding: 0, backlog: VecDeque::new(), stats: RingStats::default() }
    }

    pub(super) fn io(&self) -> &IoUring {
        &self.io
    }
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }
    pub(super) fn stats(&self) -> RingStats {
        self.stats
    }

    /// Queues one operation.
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

    /// Hands what is queued to the kernel, and nothing else.
    pub(super) fn submit(&mut self) {
        if !self.io.submission().is_empty() {
            self.enter(EnterFlags::empty());
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

    /// Submits everything and waits for at least one completion, at most for `limit`. It can end without one (a signal, memory that is short): look.
    pub(super) fn wait(&mut self, limit: Option<Duration>) {
        if !self.backlog.is_empty() {
            return;
        }
        self.stats.enter_count += 1;
        let waited = match limit {
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                self.io.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
            None => self.io.submitter().submit_and_wait(1),
        };
        if let Err(e) = waited {
            check_enter_error(&e);
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
