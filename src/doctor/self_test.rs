//! A short test: how long a synced write takes where the data is to be, and how long it takes to wake somebody across loopback.
//!
//! Invariants: each part ends within its time, and within its number of turns; its one file has no name, so nothing is left of it however
//! this process ends (a node that makes its first start refuses a directory with something in it); the writes go as the log's do (O_DIRECT, O_DSYNC,
//! 4 KiB, into space that was written before).
//!
//! Not here: what a node reaches (`bench/`). This tells an order of magnitude, and what cannot be true.

use super::disk::Place;
use super::finding::{Finding, Topic};
use crate::bytes::Slab;
use crate::constants::DOCTOR_FILE;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

const PAGE: usize = crate::bytes::PAGE_BYTES;
/// Space that is written first and then again.
const FILE_PAGES: usize = 1024;
const WRITES_MAX: usize = 2000;
const ROUND_TRIPS_MAX: usize = 5000;
/// Time of each part.
const PART: Duration = Duration::from_secs(1);
/// Below this a disk that has a volatile cache has not emptied it: no flash takes a page in less.
const LIE_US: f64 = 20.0;
/// Above this a disk that does not turn is slow.
const SLOW_US: f64 = 1000.0;
/// One that says it has no volatile cache answers from a protected one.
const SLOW_PROTECTED_US: f64 = 200.0;
const TURNING_SLOW_US: f64 = 20_000.0;
/// Above this waking somebody on the same machine costs more than the network.
const WAKE_SLOW_US: f64 = 150.0;

/// Times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    pub(super) median_us: f64,
    pub(super) p99_us: f64,
    pub(super) count: usize,
}

/// What was measured, or why not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) write: Result<Times, String>,
    pub(super) wake: Result<Times, String>,
}

pub(super) fn run(dir: &Path) -> Measured {
    Measured { write: synced_writes(dir).map_err(|error| error.to_string()), wake: round_trips().map_err(|error| error.to_string()) }
}

fn times(mut each: Vec<Duration>) -> io::Result<Times> {
    if each.is_empty() {
        return Err(io::Error::other("nothing was measured within its time"));
    }
    each.sort_unstable();
    let at = |part: f64| each[((each.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1000.0;
    Ok(Times { median_us: at(0.5), p99_us: at(0.99), count: each.len() })
}

fn synced_writes(dir: &Path) -> io::Result<Times> {
    write_again_and_again(&scratch_file(dir)?)
}

/// A file without a name: the kernel frees it with its last handle, also after SIGKILL.
fn scratch_file(dir: &Path) -> io::Result<File> {
    // Old overlayfs, NFS and some others have none such (EOPNOTSUPP), and say it in several ways: whatever is wrong with the directory, the second way tells as well.
    writable().custom_flags(FLAGS | libc::O_TMPFILE).open(dir).or_else(|_| unlinked_file(dir))
}

fn unlinked_file(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!("{DOCTOR_FILE}{}", std::process::id()));
    let file = writable().create_new(true).custom_flags(FLAGS).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

const FLAGS: i32 = libc::O_DIRECT | libc::O_DSYNC | libc::O_CLOEXEC;

fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn write_again_and_again(file: &File) -> io::Result<Times> {
    let mut slab = Slab::new(FILE_PAGES * PAGE * 2);
    let mut whole = slab.take(FILE_PAGES * PAGE).ok_or_else(|| io::Error::other("no memory for a buffer"))?;
    // Not zeros: some disks do not write these.
    for (n, byte) in whole.as_mut_slice().iter_mut().enumerate() {
        *byte = (n.wrapping_mul(31) >> 3) as u8;
    }
    file.write_all_at(whole.as_slice(), 0)?;
    let begun = Instant::now();
    let mut each = Vec::with_capacity(WRITES_MAX);
    while each.len() < WRITES_MAX && begun.elapsed() < PART {
        let page = each.len() % FILE_PAGES;
        let before = Instant::now();
        file.write_all_at(&whole.as_slice()[page * PAGE..(page + 1) * PAGE], (page * PAGE) as u64)?;
        each.push(before.elapsed());
    }
    times(each)
}

fn round_trips() -> io::Result<Times> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut near = TcpStream::connect(address)?;
    let (mut far, _) = listener.accept()?;
    // Nobody waits for ever, whatever happens to the other side.
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PART * 2))?;
    }
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || -> io::Result<()> {
            let mut message = [0; 64];
            // Ends with the other side's connection.
            while far.read_exact(&mut message).is_ok() {
                far.write_all(&message)?;
            }
            Ok(())
        });
        let measured = (|| {
            let (begun, mut each, mut message) = (Instant::now(), Vec::with_capacity(ROUND_TRIPS_MAX), [7; 64]);
            while each.len() < ROUND_TRIPS_MAX && begun.elapsed() < PART {
                let before = Instant::now();
                near.write_all(&message)?;
                near.read_exact(&mut message)?;
                each.push(before.elapsed());
            }
            times(each)
        })();
        drop(near);
        let echoed = echo.join().unwrap_or_else(|_| Err(io::Error::other("the other side of the test panicked")));
        measured.and_then(|times| echoed.map(|()| times))
    })
}

pub(super) fn not_run(why: &str) -> Finding {
    let mut topic = Topic::new("self-test");
    topic.unknown("latencies", why);
    topic.done().remove(0)
}

fn shown(times: &Times) -> String {
    format!("median {:.0} us, p99 {:.0} us", times.median_us, times.p99_us)
}

pub(super) fn judge(measured: &Measured, place: &Place) -> Vec<Finding> {
    let mut topic = Topic::new("self-test");
    match &measured.write {
        Err(why) => topic.unknown("synced write", format!("it could not be measured: {why}")),
        Ok(times) => judge_write(&mut topic, times, place),
    }
    match &measured.wake {
        Err(why) => topic.unknown("loopback", format!("it could not be measured: {why}")),
        Ok(times) if times.median_us > WAKE_SLOW_US => topic.warn(
            "loopback",
            shown(times),
            format!("64 bytes there and back, both sides asleep; above {WAKE_SLOW_US} us waking a core is slow: deep idle states, a slow clock or a busy machine"),
        ),
        Ok(times) => topic.ok("loopback", shown(times), "64 bytes there and back, both sides asleep: what waking a core costs twice"),
    }
    topic.done()
}

fn judge_write(topic: &mut Topic, times: &Times, place: &Place) {
    let (name, found) = ("synced write", shown(times));
    let turns = place.disks.iter().any(|disk| disk.rotational == Some(true) && !disk.is_virtual());
    match (place.has_volatile_cache(), times.median_us) {
        (Some(true), us) if us < LIE_US => topic.bad(
            name,
            found,
            "faster than any disk can empty a volatile cache: the flush is not passed on, and what is acknowledged is lost with the power. Look for cache=unsafe, nobarrier, a controller that answers for its disks",
        ),
        (_, us) if turns && us > TURNING_SLOW_US => topic.warn(name, found, "slow also for a disk that turns"),
        (_, us) if turns => topic.ok(name, format!("{found}, {} writes", times.count), format!("as a disk that turns does it, in {us:.0} us")),
        (_, us) if us > SLOW_US => topic.warn(name, found, format!("4 KiB, direct and synced: above {SLOW_US} us the disk, its controller or other programs are slow; every durable acknowledgement waits for it")),
        (Some(false), us) if us > SLOW_PROTECTED_US => topic.warn(
            name,
            found,
            format!("the disk says it has no volatile cache; one with a protected cache answers within some 30 us, and above {SLOW_PROTECTED_US} us it writes to flash each time"),
        ),
        (Some(true), _) => topic.ok(name, found, "4 KiB, direct and synced: plausible for a disk that empties its cache each time"),
        (Some(false), _) => topic.ok(name, found, "4 KiB, direct and synced: plausible for a disk with a protected cache"),
        (None, _) => topic.note(name, found, "4 KiB, direct and synced; the kernel does not tell whether the disk has a volatile cache, so whether this is true is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_file_has_no_name_from_the_first_write_on() {
        // Direct I/O needs a real file system; the build's directory is on one where the temporary one may be memory.
        let program = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        for open in [scratch_file, unlinked_file] {
            let file = open(dir.path()).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
            assert!(write_again_and_again(&file).unwrap().count > 0);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        assert_eq!(scratch_file(&dir.path().join("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
