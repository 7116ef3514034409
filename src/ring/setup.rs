//! Making a ring: flags, workers, the shard's directory.
//!
//! Flags and why: SINGLE_ISSUER and DEFER_TASKRUN (completions are made only when we ask: no interrupts of the spinning thread),
//! TASKRUN_FLAG (see `queue.rs`), SUBMIT_ALL (a bad operation must not hold back the ones after it), CLAMP.
//!
//! Not here: whether the machine can do it (`probe.rs` says so with advice, and explains the errors that arise here).

use super::RingConfig;
use super::probe::{self, ProbeError};
use io_uring::IoUring;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The completion queue is this many times the submission queue: a completion more than fits costs the kernel an allocation.
const CQ_PER_SQ: u32 = 4;

/// Kernel workers of one ring at most: for disk operations (bounded) and for others. The default is four per core of the machine; a
/// shard has a handful of disk operations in flight, and more workers only fight for the housekeeping cores.
const IOWQ_WORKERS_MAX: [u32; 2] = [8, 4];

/// Why a ring could not be made.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's text names its fields")]
pub enum RingError {
    /// The kernel refuses io_uring; the inner error says what to do.
    Setup(ProbeError),
    /// The shard's directory cannot be opened.
    Dir { path: PathBuf, source: io::Error },
    /// The eventfd could not be made or registered.
    EventFd(io::Error),
    /// The cores for the kernel's workers were refused.
    Workers { cpus: Vec<usize>, source: io::Error },
    /// The lock file could not be put into the ring's file table.
    Lock(io::Error),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::Setup(e) => e.fmt(f),
            RingError::Dir { path, source } => {
                write!(
                    f,
                    "the shard's directory {} cannot be opened ({source}): create it, or give the broker's user access to it",
                    path.display()
                )
            }
            RingError::EventFd(e) => {
                write!(f, "an eventfd could not be set up ({e}): raise the limit of open files (ulimit -n, LimitNOFILE)")
            }
            RingError::Workers { cpus, source } => {
                write!(
                    f,
                    "the kernel's I/O workers cannot be put on cores {cpus:?} ({source}): name cores that exist and that the broker may use"
                )
            }
            RingError::Lock(e) => write!(f, "the lock file could not be registered with the ring ({e}): raise the limit of open files"),
        }
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RingError::Setup(e) => Some(e),
            RingError::Dir { source, .. } | RingError::Workers { source, .. } => Some(source),
            RingError::EventFd(e) | RingError::Lock(e) => Some(e),
        }
    }
}

/// The ring with all flags, on the calling thread.
pub(super) fn build_io(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(entries.next_power_of_two().saturating_mul(CQ_PER_SQ))
        .build(entries)
}

pub(super) fn build(cfg: &RingConfig) -> Result<IoUring, RingError> {
    let io = build_io(cfg.entries.max(1)).map_err(|e| RingError::Setup(probe::explain_setup(e)))?;
    if let Some(cpus) = &cfg.iowq_cpus {
        let refused = |source| RingError::Workers { cpus: cpus.clone(), source };
        let set = cpu_set(cpus).ok_or_else(|| refused(io::Error::from_raw_os_error(libc::EINVAL)))?;
        io.submitter().register_iowq_aff(&set).map_err(refused)?;
    }
    // Only a limit: an older kernel that refuses it works as well.
    let _ = io.submitter().register_iowq_max_workers(&mut IOWQ_WORKERS_MAX.clone());
    Ok(io)
}

fn cpu_set(cpus: &[usize]) -> Option<libc::cpu_set_t> {
    if cpus.is_empty() || cpus.iter().any(|c| *c >= libc::CPU_SETSIZE as usize) {
        return None;
    }
    // SAFETY: an all-zero cpu_set_t is the empty set; the indexes were checked against its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET(*cpu, &mut set);
        }
        Some(set)
    }
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, RingError> {
    let failed = |source| RingError::Dir { path: path.to_path_buf(), source };
    let dir = File::open(path).map_err(failed)?;
    if !dir.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    Ok(dir.into())
}
