//! Disk and TCP chained: direct reads of 1 MiB some ahead, summed, sent on in order, summed again by who receives.
//!
//! A cross check, no limit: what one core reaches when it does the least that a broker has to do for a consumer far behind.
//!
//! Invariants: pieces go out in the order of the file; a slot is read into again only after its bytes were taken by the kernel.

use crate::ring::{AlignedBuffer, Idle, Ring, result_of};
use crate::tcp::{Receiver, STREAM_WRITE, pair, pin, receive_stream};
use io_uring::{opcode, types};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const PIECE: usize = 1 << 20;
/// Number of the send; reads have their slot's.
const SENT: u64 = 100;

/// 10^9 bytes per second with `depth` reads under way and as many pieces waiting to be sent, over the file and round again.
pub fn cold_stream(cpus: [usize; 2], file: &File, len: u64, depth: usize, time: Duration) -> io::Result<f64> {
    let (server, client) = pair()?;
    std::thread::scope(|scope| {
        let broker = scope.spawn(move || Server::run(&server, cpus[0], file, len, depth, time));
        let rate = scope.spawn(move || receive_stream(client, cpus[1], Receiver::SumsAndCopies)).join();
        let broker = broker.join();
        let rate = rate.map_err(|_| io::Error::other("the client's thread panicked"))??;
        broker.map_err(|_| io::Error::other("the server's thread panicked"))??;
        Ok(rate)
    })
}

struct Server {
    ring: Ring,
    // Memory that the ring's operations name; the ring drops first.
    memory: AlignedBuffer,
    /// Whether a slot's read is over.
    read: Vec<bool>,
    /// Slots in the order of the file: reads under way and pieces to be sent.
    order: VecDeque<usize>,
    free: Vec<usize>,
    reading: usize,
    /// Bytes of the first piece that have gone out.
    sent: usize,
    sending: bool,
    summed: bool,
    pos: u64,
    len: u64,
    fixed: bool,
}

impl Server {
    fn run(socket: &TcpStream, cpu: usize, file: &File, len: u64, depth: usize, time: Duration) -> io::Result<()> {
        pin(cpu)?;
        let slots = depth * 2;
        let mut memory = AlignedBuffer::new(slots * PIECE)?;
        let ring = Ring::new(32)?;
        ring.register_files(&[socket.as_raw_fd(), file.as_raw_fd()])?;
        let fixed = ring.register_buffer(&mut memory).is_ok();
        let mut server = Server {
            ring,
            memory,
            read: vec![false; slots],
            order: VecDeque::new(),
            free: (0..slots).collect(),
            reading: 0,
            sent: 0,
            sending: false,
            summed: false,
            pos: 0,
            len: len / PIECE as u64 * PIECE as u64,
            fixed,
        };
        let start = Instant::now();
        while start.elapsed() < time {
            server.read_ahead(depth)?;
            server.send_next()?;
            server.reap()?;
        }
        while server.reading > 0 || server.sending {
            server.reap()?;
        }
        socket.shutdown(Shutdown::Write)
    }

    fn read_ahead(&mut self, depth: usize) -> io::Result<()> {
        while self.reading < depth
            && let Some(slot) = self.free.pop()
        {
            let at = self.memory.as_mut_ptr().wrapping_add(slot * PIECE);
            let entry = if self.fixed {
                opcode::ReadFixed::new(types::Fixed(1), at, PIECE as u32, 0).offset(self.pos).build()
            } else {
                opcode::Read::new(types::Fixed(1), at, PIECE as u32).offset(self.pos).build()
            };
            self.pos = (self.pos + PIECE as u64) % self.len;
            self.read[slot] = false;
            self.order.push_back(slot);
            self.reading += 1;
            self.ring.push(&entry.user_data(slot as u64))?;
        }
        Ok(())
    }

    fn send_next(&mut self) -> io::Result<()> {
        let Some(&slot) = self.order.front() else { return Ok(()) };
        if self.sending || !self.read[slot] {
            return Ok(());
        }
        let from = slot * PIECE;
        if !std::mem::replace(&mut self.summed, true) {
            std::hint::black_box(crc32c::crc32c(&self.memory.as_slice()[from..from + PIECE]));
        }
        let len = STREAM_WRITE.min(PIECE - self.sent);
        let at = self.memory.as_slice()[from + self.sent..].as_ptr();
        self.sending = true;
        self.ring.push(&opcode::Send::new(types::Fixed(0), at, len as u32).flags(libc::MSG_WAITALL).build().user_data(SENT))
    }

    fn reap(&mut self) -> io::Result<()> {
        let done = self.ring.next(Idle::Yield)?;
        if done.user_data() != SENT {
            if result_of(&done, "direct read")? != PIECE {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "a short read"));
            }
            self.read[done.user_data() as usize] = true;
            self.reading -= 1;
            return Ok(());
        }
        self.sent += result_of(&done, "send")?;
        self.sending = false;
        if self.sent == PIECE {
            self.free.extend(self.order.pop_front());
            (self.sent, self.summed) = (0, false);
        }
        Ok(())
    }
}
