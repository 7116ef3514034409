//! One io_uring ring as every measurement here uses it, and page-aligned buffers for direct I/O.
//!
//! Invariants: the ring lives on the thread that made it (SINGLE_ISSUER); completions are produced only inside `enter`
//! (DEFER_TASKRUN), and `TASKRUN_FLAG` tells without a system call whether an `enter` would find something. A caller keeps
//! the memory named by a submission alive until its completion was seen: `Ring::push` is the one place that trusts this.
//!
//! Not here: what is measured.

use io_uring::{IoUring, cqueue, squeue};
use std::io;

/// What to do when polling finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Sleep in the kernel until something completes.
    Wait,
    /// `sched_yield`, so that kernel work of this core (a flush after a synced write) is not held back to the next tick.
    Yield,
    /// Poll again at once.
    Spin,
}

/// IORING_ENTER_GETEVENTS.
const GETEVENTS: u32 = 1;

/// A ring of the calling thread.
pub struct Ring {
    inner: IoUring,
}

impl Ring {
    /// A ring with room for `entries` submissions.
    pub fn new(entries: u32) -> io::Result<Ring> {
        let inner =
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_cqsize(entries * 4).build(entries)?;
        Ok(Ring { inner })
    }

    /// Registers one buffer, to be named by index 0 in fixed reads and writes. Saves pinning its pages per operation.
    pub fn register_buffer(&self, buffer: &mut AlignedBuffer) -> io::Result<()> {
        let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: the buffer outlives the ring in every caller (declared before it), and the kernel pins its pages itself.
        unsafe { self.inner.submitter().register_buffers(&[vector]) }
    }

    /// Registers files, to be named by index in operations. Saves a look-up and a reference count per operation.
    pub fn register_files(&self, files: &[i32]) -> io::Result<()> {
        self.inner.submitter().register_files(files)
    }

    /// Queues one submission; a full queue submits first.
    pub fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the memory named by the entry stays alive until its completion (see the invariants of this file).
            if unsafe { self.inner.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0)?;
        }
    }

    /// Submits what is queued and runs pending completions, waiting for `want` of them.
    fn enter(&mut self, want: u32) -> io::Result<()> {
        let queued = self.inner.submission().len() as u32;
        // SAFETY: no argument structure is passed, so the kernel reads nothing from us.
        match unsafe { self.inner.submitter().enter::<libc::sigset_t>(queued, want, GETEVENTS, None) } {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Submits what is queued, then gives the next completion if there is one, without waiting.
    pub fn poll(&mut self) -> io::Result<Option<cqueue::Entry>> {
        if let Some(done) = self.inner.completion().next() {
            return Ok(Some(done));
        }
        let submission = self.inner.submission();
        let call = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if call {
            self.enter(0)?;
        }
        Ok(self.inner.completion().next())
    }

    /// Submits what is queued and gives the next completion, idling as told.
    pub fn next(&mut self, idle: Idle) -> io::Result<cqueue::Entry> {
        loop {
            if let Some(done) = self.poll()? {
                return Ok(done);
            }
            match idle {
                Idle::Wait => self.enter(1)?,
                Idle::Yield => std::thread::yield_now(),
                Idle::Spin => {} // no pause hint: a poll is a look at memory, and some hypervisors take a core away that pauses
            }
        }
    }
}

/// The result of a completion, with the operation's name in the error.
pub fn result_of(done: &cqueue::Entry, what: &str) -> io::Result<usize> {
    let result = done.result();
    if result >= 0 {
        return Ok(result as usize);
    }
    let cause = io::Error::from_raw_os_error(-result);
    Err(io::Error::new(cause.kind(), format!("{what}: {cause}")))
}

/// Memory of its own mapping: page-aligned, zeroed, touched, in huge pages where the kernel has them.
pub struct AlignedBuffer {
    at: *mut u8,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zeroed bytes.
    pub fn new(len: usize) -> io::Result<AlignedBuffer> {
        // SAFETY: a fresh anonymous mapping; the result is checked.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping was just made with this length. A refusal only means ordinary pages.
        unsafe { libc::madvise(at, len, libc::MADV_HUGEPAGE) };
        let mut buffer = AlignedBuffer { at: at.cast(), len };
        buffer.as_mut_slice().fill(0);
        Ok(buffer)
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The start, for submissions.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.at
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `at` and `len` describe one live, initialised mapping that only this value owns.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is not used after this.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}
