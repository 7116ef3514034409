//! TCP stream and disk chained: frames of 64 KiB, summed and copied once into blocks of up to 1 MiB, synced, acknowledged.
//!
//! A cross check, no limit: what one core reaches when it does the least that a durable broker has to do. One side's share of a core
//! is the other's loss, so this is well below the smaller of the two limits.
//!
//! Invariants: at most `WRITES` writes in flight; a block is acknowledged when it and all before it are on the disk.

use crate::report::{gbps, histogram, quantile_us};
use crate::ring::{AlignedBuffer, Idle, Ring, result_of};
use crate::tcp::{pair, pin};
use io_uring::{opcode, types};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const FRAME: usize = 64 * 1024;
const REPLY: usize = 64;
const BLOCK: usize = 1 << 20;
const WRITES: usize = 3;
/// Blocks: those in flight and the open one.
const BLOCKS: usize = WRITES + 1;
/// Frames in flight: all blocks full, and half as much again on the way.
const WINDOW: usize = BLOCKS * BLOCK / FRAME * 3 / 2;
const INPUT: usize = 512 * 1024;

const RECEIVED: u64 = 100;
const SENT: u64 = 101;

/// Figures of the chain.
#[derive(Clone, Copy, Debug)]
pub struct Chained {
    /// 10^9 bytes acknowledged per second.
    pub gbps: f64,
    /// Median time from a frame's first byte to its acknowledgement under this load, microseconds.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Runs it for `time`.
pub fn durable_stream(cpus: [usize; 2], file: &File, len: u64, time: Duration) -> io::Result<Chained> {
    let (server, client) = pair()?;
    std::thread::scope(|scope| {
        let broker = scope.spawn(move || Server::run(&server, cpus[0], file, len));
        let figures = scope.spawn(move || client_side(client, cpus[1], time)).join();
        let broker = broker.join();
        let figures = figures.map_err(|_| io::Error::other("the client's thread panicked"))??;
        broker.map_err(|_| io::Error::other("the server's thread panicked"))??;
        Ok(figures)
    })
}

fn client_side(mut socket: TcpStream, cpu: usize, time: Duration) -> io::Result<Chained> {
    pin(cpu)?;
    let frame = vec![3u8; FRAME];
    let mut replies = vec![0u8; REPLY * WINDOW];
    let mut histogram = histogram();
    let mut under_way: VecDeque<Instant> = VecDeque::new();
    let (mut sent_of_frame, mut have, mut acked) = (0, 0, 0u64);
    let start = Instant::now();
    let mut counted: Option<(Instant, u64)> = None;
    loop {
        while under_way.len() < WINDOW || sent_of_frame > 0 {
            if sent_of_frame == 0 {
                under_way.push_back(Instant::now());
            }
            match socket.write(&frame[sent_of_frame..]) {
                Ok(n) => sent_of_frame = (sent_of_frame + n) % FRAME,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // The frame was announced to the clock but not begun: taken back.
                    if sent_of_frame == 0 {
                        under_way.pop_back();
                    }
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        match socket.read(&mut replies) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server's side ended")),
            Ok(n) => have += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(e) => return Err(e),
        }
        let now = Instant::now();
        while have >= REPLY {
            have -= REPLY;
            acked += 1;
            if let Some(sent) = under_way.pop_front()
                && counted.is_some()
            {
                histogram.saturating_record((now - sent).as_nanos() as u64);
            }
        }
        if counted.is_none() && now - start > time / 5 {
            counted = Some((now, acked));
        }
        if let Some((from, before)) = counted
            && now - start > time
        {
            let rate = gbps((acked - before) * FRAME as u64, (now - from).as_secs_f64());
            return Ok(Chained { gbps: rate, p50_us: quantile_us(&histogram, 0.5), p99_us: quantile_us(&histogram, 0.99) });
        }
    }
}

/// The client has left: its time is over.
fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A block: frames it holds and whether it is on the disk.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    used: usize,
    frames: usize,
    durable: bool,
}

struct Server {
    ring: Ring,
    // Memory that the ring's operations name; fields drop in this order, the ring first.
    input: AlignedBuffer,
    memory: AlignedBuffer,
    replies: Vec<u8>,
    blocks: [Block; BLOCKS],
    /// Numbers of the oldest block in flight and of the open one; a block's slot is its number modulo `BLOCKS`.
    oldest: usize,
    open: usize,
    start: usize,
    end: usize,
    receiving: bool,
    sending: bool,
    owed: usize,
    pos: u64,
    len: u64,
}

impl Server {
    fn run(socket: &TcpStream, cpu: usize, file: &File, len: u64) -> io::Result<()> {
        pin(cpu)?;
        let mut memory = AlignedBuffer::new(BLOCKS * BLOCK)?;
        let ring = Ring::new(16)?;
        ring.register_files(&[socket.as_raw_fd(), file.as_raw_fd()])?;
        let fixed = ring.register_buffer(&mut memory).is_ok();
        let mut server = Server {
            ring,
            input: AlignedBuffer::new(INPUT)?,
            memory,
            replies: vec![0; REPLY * WINDOW],
            blocks: Default::default(),
            oldest: 0,
            open: 0,
            start: 0,
            end: 0,
            receiving: false,
            sending: false,
            owed: 0,
            pos: 0,
            len: len / BLOCK as u64 * BLOCK as u64,
        };
        loop {
            let copied_all = server.copy_frames();
            if !server.receiving && copied_all {
                server.receive()?;
            }
            server.write_open_block(fixed)?;
            server.send_replies()?;
            let idle = if server.open > server.oldest { Idle::Yield } else { Idle::Spin };
            let done = server.ring.next(idle)?;
            match done.user_data() {
                RECEIVED => match result_of(&done, "receive") {
                    Ok(0) => return server.finish(),
                    Err(e) if gone(&e) => return server.finish(),
                    Err(e) => return Err(e),
                    Ok(n) => {
                        server.receiving = false;
                        server.end += n;
                    }
                },
                SENT => match result_of(&done, "send") {
                    Err(e) if gone(&e) => return server.finish(),
                    Err(e) => return Err(e),
                    Ok(n) if n % REPLY != 0 => return Err(io::Error::other("a reply was cut")),
                    Ok(_) => server.sending = false,
                },
                number => {
                    if result_of(&done, "synced write")? != server.blocks[number as usize].used.next_multiple_of(4096) {
                        return Err(io::Error::other("a short write"));
                    }
                    server.written(number as usize);
                }
            }
        }
    }

    /// Copies whole frames into the open block; `false` when it is full and frames are left.
    fn copy_frames(&mut self) -> bool {
        while self.end - self.start >= FRAME {
            let slot = self.open % BLOCKS;
            let block = &mut self.blocks[slot];
            if block.used + FRAME > BLOCK {
                return false;
            }
            let frame = &self.input.as_slice()[self.start..self.start + FRAME];
            std::hint::black_box(crc32c::crc32c(frame));
            let at = slot * BLOCK + block.used;
            self.memory.as_mut_slice()[at..at + FRAME].copy_from_slice(frame);
            block.used += FRAME;
            block.frames += 1;
            self.start += FRAME;
        }
        true
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.input.len() - self.end < FRAME {
            self.input.as_mut_slice().copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let at = self.input.as_mut_ptr().wrapping_add(self.end);
        self.receiving = true;
        self.ring.push(&opcode::Recv::new(types::Fixed(0), at, (INPUT - self.end) as u32).build().user_data(RECEIVED))
    }

    fn write_open_block(&mut self, fixed: bool) -> io::Result<()> {
        let slot = self.open % BLOCKS;
        if self.blocks[slot].frames == 0 || self.open - self.oldest >= WRITES {
            return Ok(());
        }
        let at = self.memory.as_mut_ptr().wrapping_add(slot * BLOCK);
        let len = self.blocks[slot].used.next_multiple_of(4096) as u32;
        let entry = if fixed {
            opcode::WriteFixed::new(types::Fixed(1), at, len, 0).offset(self.pos).build()
        } else {
            opcode::Write::new(types::Fixed(1), at, len).offset(self.pos).build()
        };
        self.pos = (self.pos + BLOCK as u64) % self.len;
        self.open += 1;
        self.ring.push(&entry.user_data(slot as u64))
    }

    fn written(&mut self, slot: usize) {
        self.blocks[slot].durable = true;
        while self.oldest < self.open && self.blocks[self.oldest % BLOCKS].durable {
            self.owed += self.blocks[self.oldest % BLOCKS].frames;
            self.blocks[self.oldest % BLOCKS] = Block::default();
            self.oldest += 1;
        }
    }

    fn send_replies(&mut self) -> io::Result<()> {
        if self.sending || self.owed == 0 {
            return Ok(());
        }
        self.sending = true;
        let bytes = (self.owed * REPLY) as u32;
        self.owed = 0;
        self.ring.push(&opcode::Send::new(types::Fixed(0), self.replies.as_ptr(), bytes).build().user_data(SENT))
    }

    /// Reaps what is still in flight: the blocks' memory belongs to the kernel until then.
    fn finish(mut self) -> io::Result<()> {
        while self.oldest < self.open {
            let done = self.ring.next(Idle::Yield)?;
            if done.user_data() < BLOCKS as u64 {
                self.written(done.user_data() as usize);
            }
        }
        Ok(())
    }
}
