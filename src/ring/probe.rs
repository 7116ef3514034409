//! Whether this machine and directory can carry a ring, and if not, what to do about it.
//!
//! `probe` runs at start-up, before any data is touched. Its decisions are plain functions of what was seen, so that each can be
//! tested where the machine itself is fine.
//!
//! Not here: tuning advice (the broker's own checks).

use super::setup;
use crate::constants::PROBE_FILE;
use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// SINGLE_ISSUER came with 6.0, DEFER_TASKRUN with 6.1.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// What the executor under each shard (glommio) wants as the limit of locked memory before it begins, whether or not this kernel counts rings towards it;
/// below it a shard's thread ends at once.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
const PAGE: usize = crate::bytes::PAGE_BYTES;

/// What was found on a machine and in a directory that are fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Kernel version.
    pub kernel: (u32, u32),
}

/// Why the broker cannot run here. Each text says what to do.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's text names its fields")]
pub enum ProbeError {
    /// The kernel is older than 6.1.
    KernelTooOld { found: String },
    /// `kernel.io_uring_disabled` forbids it.
    Disabled { value: u32 },
    /// A seccomp filter (a container's default profile) or another security module forbids it.
    Forbidden,
    /// Locked memory is limited too low for the ring.
    MemlockTooSmall { limit_bytes: u64 },
    /// The limit of open files is reached.
    TooManyFiles,
    /// The kernel was built without io_uring, or without an operation that is needed.
    Missing { what: &'static str },
    /// The file system refuses O_DIRECT, or direct writes of 4 KiB.
    DirectRefused { dir: PathBuf, source: io::Error },
    /// The directory cannot be written to.
    DirUnusable { dir: PathBuf, source: io::Error },
    /// Anything else.
    Other { what: &'static str, source: io::Error },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = KERNEL_MIN;
        match self {
            ProbeError::KernelTooOld { found } => {
                write!(f, "kernel {found} is too old: Tramline needs Linux {major}.{minor} or newer; upgrade the kernel of this host")
            }
            ProbeError::Disabled { value } => write!(
                f,
                "io_uring is disabled on this host (kernel.io_uring_disabled = {value}): run `sysctl -w kernel.io_uring_disabled=0`, \
                 or with value 1 put the broker's user into the group named by kernel.io_uring_group"
            ),
            ProbeError::Forbidden => write!(
                f,
                "io_uring is not permitted for this process: a seccomp profile (the default one of a container) or a security module \
                 blocks it; \
                 allow io_uring_setup, io_uring_enter and io_uring_register (docker: --security-opt seccomp=PROFILE)"
            ),
            ProbeError::MemlockTooSmall { limit_bytes } if *limit_bytes < MEMLOCK_BYTES_MIN => write!(
                f,
                "the limit of locked memory is {limit_bytes} bytes, and a node does not start below {MEMLOCK_BYTES_MIN}: raise it \
                 (`ulimit -l unlimited` in the shell, LimitMEMLOCK=infinity in the unit)"
            ),
            ProbeError::MemlockTooSmall { limit_bytes } => write!(
                f,
                "the limit of locked memory ({limit_bytes} bytes) is too small for the ring: raise it (`ulimit -l unlimited`, \
                 LimitMEMLOCK=infinity) or use fewer shards"
            ),
            ProbeError::TooManyFiles => write!(f, "the limit of open files is reached: raise it (ulimit -n, LimitNOFILE)"),
            ProbeError::Missing { what } => {
                write!(f, "this kernel lacks {what}: use one of {major}.{minor} or newer built with CONFIG_IO_URING")
            }
            ProbeError::DirectRefused { dir, source } => write!(
                f,
                "the file system of {} refuses direct I/O of 4 KiB ({source}): put the data directory on ext4 or XFS on a local disk",
                dir.display()
            ),
            ProbeError::DirUnusable { dir, source } => {
                write!(
                    f,
                    "the directory {} cannot be used ({source}): make it, give the broker's user access, or free space",
                    dir.display()
                )
            }
            ProbeError::Other { what, source } => write!(f, "{what} failed: {source}"),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProbeError::DirectRefused { source, .. } | ProbeError::DirUnusable { source, .. } | ProbeError::Other { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// Checks the limits of this process, kernel, permissions and the file system of `dir`, in which a file is made and removed.
pub fn probe(dir: &Path) -> Result<Features, ProbeError> {
    judge_memlock(memlock_limit())?;
    probe_ring(dir)
}

/// As `probe`, without the limits.
pub fn probe_ring(dir: &Path) -> Result<Features, ProbeError> {
    let release = kernel_release()?;
    let kernel = judge_release(&release)?;
    let io = setup::build_io(8).map_err(explain_setup)?;
    check_operations(&io)?;
    drop(io);
    check_direct(dir)?;
    Ok(Features { kernel })
}

/// Names the reason for which the kernel refused a ring.
pub(super) fn explain_setup(e: io::Error) -> ProbeError {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok().and_then(|s| s.trim().parse().ok());
    judge_setup(e, sysctl, memlock_limit(), &kernel_release().unwrap_or_default())
}

/// The decision behind `explain_setup`, on what was seen: the error, the sysctl, the limit, the kernel.
pub(super) fn judge_setup(e: io::Error, disabled: Option<u32>, memlock_bytes: u64, release: &str) -> ProbeError {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled {
            Some(value) if value > 0 => ProbeError::Disabled { value },
            _ => ProbeError::Forbidden,
        },
        Some(libc::ENOSYS) => ProbeError::Missing { what: "io_uring" },
        Some(libc::ENOMEM) => ProbeError::MemlockTooSmall { limit_bytes: memlock_bytes },
        Some(libc::EMFILE | libc::ENFILE) => ProbeError::TooManyFiles,
        // The flags are unknown to it.
        Some(libc::EINVAL) => ProbeError::KernelTooOld { found: release.to_string() },
        _ => ProbeError::Other { what: "setting up io_uring", source: e },
    }
}

/// The decision about the limit of locked memory: said here, since the executor says it on a thread that has nobody to tell.
pub(super) fn judge_memlock(limit_bytes: u64) -> Result<(), ProbeError> {
    match limit_bytes < MEMLOCK_BYTES_MIN {
        true => Err(ProbeError::MemlockTooSmall { limit_bytes }),
        false => Ok(()),
    }
}

/// Reads "6.18.44-name" and compares.
pub fn judge_release(release: &str) -> Result<(u32, u32), ProbeError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => Ok((major, minor)),
        _ => Err(ProbeError::KernelTooOld { found: release.to_string() }),
    }
}

/// The decision about the file system, on the error of the open or of the first write.
pub(super) fn judge_direct(dir: &Path, source: io::Error) -> ProbeError {
    let dir = dir.to_path_buf();
    match source.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => ProbeError::DirectRefused { dir, source },
        _ => ProbeError::DirUnusable { dir, source },
    }
}

fn check_operations(io: &IoUring) -> Result<(), ProbeError> {
    let mut probe = Probe::new();
    io.submitter().register_probe(&mut probe).map_err(|source| ProbeError::Other { what: "asking io_uring for its operations", source })?;
    let needed = [
        (opcode::AcceptMulti::CODE, "io_uring accept"),
        (opcode::Connect::CODE, "io_uring connect"),
        (opcode::Recv::CODE, "io_uring recv"),
        (opcode::Send::CODE, "io_uring send"),
        (opcode::SendMsg::CODE, "io_uring sendmsg"),
        (opcode::Read::CODE, "io_uring read"),
        (opcode::Write::CODE, "io_uring write"),
        (opcode::OpenAt::CODE, "io_uring openat"),
        (opcode::Fallocate::CODE, "io_uring fallocate"),
        (opcode::RenameAt::CODE, "io_uring renameat"),
        (opcode::UnlinkAt::CODE, "io_uring unlinkat"),
        (opcode::Close::CODE, "io_uring close"),
        (opcode::Fsync::CODE, "io_uring fsync"),
        (opcode::Timeout::CODE, "io_uring timeout"),
        (opcode::AsyncCancel::CODE, "io_uring cancel"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, what)) => Err(ProbeError::Missing { what }),
        None => Ok(()),
    }
}

fn check_direct(dir: &Path) -> Result<(), ProbeError> {
    let path = dir.join(format!("{PROBE_FILE}{}", std::process::id()));
    let judged = |e| judge_direct(dir, e);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC | libc::O_CLOEXEC)
        .open(&path)
        .map_err(judged)?;
    let checked = check_page(&file);
    // The first error is the one to report; a left-over probe file is harmless.
    let removed = std::fs::remove_file(&path);
    checked.and(removed).map_err(judged)
}

/// One page at a place that only a page-aligned file system accepts, there and back.
fn check_page(file: &File) -> io::Result<()> {
    let mut store = vec![0x5au8; 2 * PAGE];
    let start = store.as_ptr().align_offset(PAGE);
    let page = &mut store[start..start + PAGE];
    file.write_all_at(page, PAGE as u64)?;
    page.fill(0);
    file.read_exact_at(page, PAGE as u64)?;
    match page.iter().all(|b| *b == 0x5a) {
        true => Ok(()),
        false => Err(io::Error::other("what was written was not read back")),
    }
}

fn kernel_release() -> Result<String, ProbeError> {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|s| s.trim().to_string())
        .map_err(|source| ProbeError::Other { what: "reading the kernel's version from /proc", source })
}

fn memlock_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the local struct it is given.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } {
        0 => limit.rlim_cur,
        // Not asked, not known: nobody is refused for it.
        _ => u64::MAX,
    }
}
