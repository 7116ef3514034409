//! O_DIRECT files with a raw ring: synced writes into extents that were written before, and reads.
//!
//! Unless it is to be kept, the file is nameless from its first moment (created and unlinked), so no ending of the process
//! leaves one behind. Freeing gigabytes on a file system that is mounted with `discard` keeps the device busy for seconds
//! (seen: p99 of a synced 4 KiB write 37 ms instead of 0.12 ms); whoever measures in turns keeps the files.
//!
//! Not here: sockets.

use crate::report::{gbps, histogram, quantile_us};
use crate::ring::{AlignedBuffer, Idle, Ring, result_of};
use crate::tcp::pin;
use io_uring::{opcode, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one write while the file is filled.
const FILL: usize = 4 << 20;

/// Free bytes of the file system of `dir`, as far as they are meant for us.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes())?;
    // SAFETY: an all-zero `statvfs` is a valid value of that plain C structure.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and `stat` is a valid place for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_bavail * stat.f_frsize)
}

/// A file of `len` bytes in `dir`, every extent written once, opened with O_DIRECT | O_DSYNC. Nameless, unless it is to be
/// kept under `keep_as`: then one that is there with this length already is used as it is.
pub fn filled_file(dir: &Path, len: u64, keep_as: Option<&str>) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let path = match keep_as {
        Some(name) => dir.join(name),
        None => dir.join(format!("tramline-limits-{}.tmp", std::process::id())),
    };
    if keep_as.is_some()
        && let Ok(file) = options.open(&path)
        && file.metadata()?.len() == len
    {
        return Ok(file);
    }
    let file = options.create(true).truncate(true).open(&path).map_err(|e| {
        io::Error::new(e.kind(), format!("{}: {e} (the file system has to allow O_DIRECT: choose another with --dir)", path.display()))
    })?;
    if keep_as.is_none() {
        std::fs::remove_file(&path)?;
    }
    eprintln!("tramline-limits: filling a file of {} MiB", len >> 20);
    // Blocks are allocated beyond the end first; the length grows with the writes, so that a file that was not filled to its
    // end by a killed run is not taken for a filled one.
    // SAFETY: plain system call on a descriptor we own.
    if unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, len as libc::off_t) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut chunk = AlignedBuffer::new(FILL)?;
    scramble(chunk.as_mut_slice());
    let mut at = 0;
    while at < len {
        let part = FILL.min((len - at) as usize);
        file.write_all_at(&chunk.as_slice()[..part], at)?;
        at += part as u64;
    }
    Ok(file)
}

/// A file of somebody else, to be read only, and its length in whole MiB.
pub fn file_to_read(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let len = file.metadata()?.len() & !((1 << 20) - 1);
    if len == 0 {
        return Err(io::Error::other(format!("{} is below 1 MiB", path.display())));
    }
    Ok((file, len))
}

/// Fills with bytes that do not compress: a device or host that knows a short way for zeros or patterns shall not take it.
pub fn scramble(bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for chunk in bytes.chunks_mut(8) {
        // Xorshift64: enough to defeat compression, fast enough not to count.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Synced writes.
    Write,
    /// Reads.
    Read,
}

/// One point's figures.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Median latency of one operation, microseconds.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 10^9 bytes per second.
    pub gbps: f64,
}

/// Runs operations of `size` bytes at `depth`, over the file from its start to `len` and round again, on `cpu`.
pub fn run(cpu: usize, file: &File, len: u64, way: Way, size: usize, depth: usize, idle: Idle, time: Duration) -> io::Result<Point> {
    std::thread::scope(|scope| {
        scope
            .spawn(move || run_here(cpu, file, len, way, size, depth, idle, time))
            .join()
            .map_err(|_| io::Error::other("the disk's thread panicked"))?
    })
}

fn run_here(cpu: usize, file: &File, len: u64, way: Way, size: usize, depth: usize, idle: Idle, time: Duration) -> io::Result<Point> {
    pin(cpu)?;
    let mut buffer = AlignedBuffer::new((size * depth).next_multiple_of(2 << 20))?;
    scramble(buffer.as_mut_slice());
    let mut ring = Ring::new(16)?;
    ring.register_files(&[file.as_raw_fd()])?;
    // Where memory may not be locked (RLIMIT_MEMLOCK), ordinary operations do: some per cent slower for 1 MiB.
    let fixed = ring.register_buffer(&mut buffer).is_ok();
    let memory = buffer.as_mut_ptr();
    let slots = len / size as u64;
    let mut next = 0u64;
    let mut started = vec![Instant::now(); depth];
    let mut start_one = |ring: &mut Ring, slot: usize, started: &mut [Instant]| {
        let at = memory.wrapping_add(slot * size);
        let pos = (next % slots) * size as u64;
        next += 1;
        let (fd, size) = (types::Fixed(0), size as u32);
        let entry = match (way, fixed) {
            (Way::Write, true) => opcode::WriteFixed::new(fd, at, size, 0).offset(pos).build(),
            (Way::Write, false) => opcode::Write::new(fd, at, size).offset(pos).build(),
            (Way::Read, true) => opcode::ReadFixed::new(fd, at, size, 0).offset(pos).build(),
            (Way::Read, false) => opcode::Read::new(fd, at, size).offset(pos).build(),
        };
        started[slot] = Instant::now();
        ring.push(&entry.user_data(slot as u64))
    };
    for slot in 0..depth {
        start_one(&mut ring, slot, &mut started)?;
    }
    let mut histogram = histogram();
    let start = Instant::now();
    let mut in_flight = depth;
    let mut bytes = 0u64;
    let mut seconds = 0.0;
    while in_flight > 0 {
        let done = ring.next(idle)?;
        let slot = done.user_data() as usize;
        let got = result_of(&done, if way == Way::Write { "synced write" } else { "direct read" })?;
        if got != size {
            return Err(io::Error::other(format!("an operation of {size} bytes moved only {got}")));
        }
        let now = Instant::now();
        histogram.saturating_record((now - started[slot]).as_nanos() as u64);
        if now - start < time {
            bytes += size as u64;
            seconds = (now - start).as_secs_f64();
            start_one(&mut ring, slot, &mut started)?;
        } else {
            in_flight -= 1;
        }
    }
    Ok(Point {
        p50_us: quantile_us(&histogram, 0.5),
        p99_us: quantile_us(&histogram, 0.99),
        gbps: if seconds > 0.0 { gbps(bytes, seconds) } else { 0.0 },
    })
}
