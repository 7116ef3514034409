//! Synced writes at a given rate, alone or beside readers at a given rate, on one ring: what a disk lets a writer have, also while others read.
//!
//! Open loop: a write's time begins when it is due, whether or not it could be begun then. Readers go each through their own part of one
//! file, in order and round again, several reads ahead as a broker does.
//!
//! Alone, a writer gathers: what is due while all of its writes are under way goes out together, as any log would have it; up to `GATHERED_BYTES_MAX`. Beside readers
//! it does not: there its sizes are those that a broker was seen to gather.
//!
//! Invariants: no operation is begun before it is due; at most `WRITES` and `READS` are under way; all reads are of one size, all writes of one or several.
//!
//! Not here: which sizes and rates (the caller saw a broker have them).

use crate::report::{gbps, histogram, quantile_us};
use crate::ring::{AlignedBuffer, Ring, result_of};
use crate::tcp::pin;
use io_uring::{opcode, types};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Writes under way at the most: what a shard has by default.
const WRITES: usize = 3;
/// Bytes of one gathered write at most: a block of the broker.
const GATHERED_BYTES_MAX: usize = 1 << 20;
/// Readers, and reads under way at the most, all readers together.
const READERS: u64 = 4;
const READS: usize = 8;
/// First number of a read; writes have their slot's.
const READ: u64 = 100;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of one write.
    pub write_bytes: usize,
    /// 10^9 bytes written per second.
    pub write_gbps: f64,
    /// Bytes of one read.
    pub read_bytes: usize,
    /// 10^9 bytes read per second, all readers together.
    pub read_gbps: f64,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Median of the writes' latency, from the moment each was due, microseconds.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// 10^9 bytes written per second.
    pub write_gbps: f64,
    /// 10^9 bytes read per second.
    pub read_gbps: f64,
}

/// A file and how many bytes of it are used.
pub type Part<'a> = (&'a File, u64);

/// Writes to `to` and reads from `from`, if there is one, for `time`, of which the first fifth does not count, on `cpu`.
pub fn run(cpu: usize, to: Part<'_>, from: Option<Part<'_>>, load: Load, time: Duration) -> io::Result<Seen> {
    let run = || pin(cpu).and_then(|()| Beside::new(to, from, load)?.run(time));
    std::thread::scope(|scope| scope.spawn(run).join().map_err(|_| io::Error::other("the disk's thread panicked"))?)
}

struct Beside {
    ring: Ring,
    // Memory that the ring's operations name; the ring drops first.
    memory: AlignedBuffer,
    fixed: bool,
    load: Load,
    write_slots: u64,
    read_slots: u64,
    /// When what is in the write of each slot was due.
    due: [Vec<Instant>; WRITES],
    /// What goes into one write at most.
    gathered_max: usize,
    free_writes: Vec<usize>,
    /// None without readers.
    reads_max: usize,
    free_reads: Vec<usize>,
    writes: u64,
    reads: u64,
}

impl Beside {
    fn new(to: Part<'_>, from: Option<Part<'_>>, load: Load) -> io::Result<Beside> {
        let reads = if from.is_some() { READS } else { 0 };
        let gathered_max = if from.is_some() { 1 } else { (GATHERED_BYTES_MAX / load.write_bytes).max(1) };
        let memory_bytes = WRITES * gathered_max * load.write_bytes + reads * load.read_bytes;
        let mut memory = AlignedBuffer::new(memory_bytes.next_multiple_of(2 << 20))?;
        crate::disk::scramble(memory.as_mut_slice());
        let ring = Ring::new(32)?;
        // Without readers nobody names the second one.
        ring.register_files(&[to.0.as_raw_fd(), from.map_or(to, |from| from).0.as_raw_fd()])?;
        let fixed = ring.register_buffer(&mut memory).is_ok();
        let write_slots = to.1 / (gathered_max * load.write_bytes) as u64;
        let read_slots = from.map_or(READERS, |from| from.1 / load.read_bytes as u64);
        if write_slots == 0 || read_slots < READERS {
            return Err(io::Error::other("the files are too small for such writes and reads"));
        }
        Ok(Beside {
            ring,
            memory,
            fixed,
            load,
            write_slots,
            read_slots,
            due: Default::default(),
            gathered_max,
            free_writes: (0..WRITES).collect(),
            reads_max: reads,
            free_reads: (0..reads).collect(),
            writes: 0,
            reads: 0,
        })
    }

    fn run(mut self, time: Duration) -> io::Result<Seen> {
        let interval = |bytes: usize, rate: f64| Duration::from_secs_f64(bytes as f64 / (rate * 1e9));
        let write_every = interval(self.load.write_bytes, self.load.write_gbps);
        let read_every = interval(self.load.read_bytes, self.load.read_gbps);
        let start = Instant::now();
        let (counted_from, end) = (start + time / 5, start + time);
        let (mut next_write, mut next_read) = (start, start);
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let (mut written, mut read) = (0u64, 0u64);
        let mut histogram = histogram();
        loop {
            let now = Instant::now();
            while next_write <= now && next_write < end {
                waiting.push_back(next_write);
                next_write += write_every;
            }
            while !waiting.is_empty()
                && let Some(slot) = self.free_writes.pop()
            {
                self.write(slot, &mut waiting)?;
            }
            while next_read <= now
                && now < end
                && let Some(slot) = self.free_reads.pop()
            {
                self.read(slot)?;
                // Who is behind for lack of a free slot reads on as fast as the disk lets it.
                next_read += read_every;
            }
            if now >= end && waiting.is_empty() && self.free_writes.len() == WRITES && self.free_reads.len() == self.reads_max {
                break;
            }
            let Some(done) = self.ring.poll()? else {
                std::thread::yield_now();
                continue;
            };
            let is_read = done.user_data() >= READ;
            let (what, size) = match is_read {
                true => ("direct read", self.load.read_bytes),
                false => ("synced write", self.due[done.user_data() as usize].len() * self.load.write_bytes),
            };
            if result_of(&done, what)? != size {
                return Err(io::Error::other(format!("a {what} of {size} bytes was short")));
            }
            let now = Instant::now();
            if is_read {
                self.free_reads.push((done.user_data() - READ) as usize);
                read += if now >= counted_from && now < end { size as u64 } else { 0 };
            } else {
                let slot = done.user_data() as usize;
                self.free_writes.push(slot);
                for due in self.due[slot].drain(..).filter(|due| *due >= counted_from) {
                    histogram.saturating_record((now - due).as_nanos() as u64);
                    written += self.load.write_bytes as u64;
                }
            }
        }
        let seconds = (end - counted_from).as_secs_f64();
        Ok(Seen {
            p50_us: quantile_us(&histogram, 0.5),
            p99_us: quantile_us(&histogram, 0.99),
            p999_us: quantile_us(&histogram, 0.999),
            write_gbps: gbps(written, seconds),
            read_gbps: gbps(read, seconds),
        })
    }

    /// Begins a write with as much of what is waiting as fits it.
    fn write(&mut self, slot: usize, waiting: &mut VecDeque<Instant>) -> io::Result<()> {
        let most_bytes = self.gathered_max * self.load.write_bytes;
        let at = self.memory.as_mut_ptr().wrapping_add(slot * most_bytes);
        let pos = (self.writes % self.write_slots) * most_bytes as u64;
        self.writes += 1;
        self.due[slot].extend(waiting.drain(..self.gathered_max.min(waiting.len())));
        let (fd, len) = (types::Fixed(0), (self.due[slot].len() * self.load.write_bytes) as u32);
        let entry = match self.fixed {
            true => opcode::WriteFixed::new(fd, at, len, 0).offset(pos).build(),
            false => opcode::Write::new(fd, at, len).offset(pos).build(),
        };
        self.ring.push(&entry.user_data(slot as u64))
    }

    fn read(&mut self, slot: usize) -> io::Result<()> {
        let at = self.memory.as_mut_ptr().wrapping_add(WRITES * self.gathered_max * self.load.write_bytes + slot * self.load.read_bytes);
        // Each reader goes through its own part of the file.
        let (reader, number) = (self.reads % READERS, self.reads / READERS);
        let part = self.read_slots / READERS;
        let pos = (reader * part + number % part) * self.load.read_bytes as u64;
        self.reads += 1;
        let (fd, len) = (types::Fixed(1), self.load.read_bytes as u32);
        let entry = match self.fixed {
            true => opcode::ReadFixed::new(fd, at, len, 0).offset(pos).build(),
            false => opcode::Read::new(fd, at, len).offset(pos).build(),
        };
        self.ring.push(&entry.user_data(READ + slot as u64))
    }
}
