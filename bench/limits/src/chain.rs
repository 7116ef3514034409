//! TCP and disk chained, one request in flight: receive 1 KiB, write 4 KiB synced, reply 64 bytes.
//!
//! A cross check: what an acknowledgement that waits for the disk costs with nothing of the broker in between. It should be
//! near the sum of the two parts.

use crate::ring::{AlignedBuffer, Idle, Ring, result_of};
use crate::tcp::{client_round_trips, pair, pin};
use io_uring::{opcode, types};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

const REQUEST: usize = 1024;
const REPLY: usize = 64;
const BLOCK: usize = 4096;

/// (p50, p99) in microseconds. The client yields on an empty poll: it may run on the core that takes the disk's interrupts.
pub fn durable_round_trip(cpus: [usize; 2], file: &File, len: u64, time: Duration) -> io::Result<(f64, f64)> {
    let (server, client) = pair()?;
    std::thread::scope(|scope| {
        let broker = scope.spawn(move || server_loop(&server, cpus[0], file, len));
        let figures = scope.spawn(move || client_round_trips(client, cpus[1], REQUEST, REPLY, true, time)).join();
        let broker = broker.join();
        let figures = figures.map_err(|_| io::Error::other("the client's thread panicked"))??;
        broker.map_err(|_| io::Error::other("the server's thread panicked"))??;
        Ok(figures)
    })
}

fn server_loop(socket: &TcpStream, cpu: usize, file: &File, len: u64) -> io::Result<()> {
    pin(cpu)?;
    let mut request = [0u8; REQUEST];
    let answer = [9u8; REPLY];
    let mut block = AlignedBuffer::new(BLOCK)?;
    let mut ring = Ring::new(8)?;
    ring.register_files(&[socket.as_raw_fd(), file.as_raw_fd()])?;
    let mut pos = 0u64;
    loop {
        let mut have = 0;
        while have < REQUEST {
            ring.push(&opcode::Recv::new(types::Fixed(0), request[have..].as_mut_ptr(), (REQUEST - have) as u32).build())?;
            match result_of(&ring.next(Idle::Spin)?, "receive") {
                Ok(0) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(e),
                Ok(n) => have += n,
            }
        }
        block.as_mut_slice()[..REQUEST].copy_from_slice(&request);
        ring.push(&opcode::Write::new(types::Fixed(1), block.as_mut_ptr(), BLOCK as u32).offset(pos).build())?;
        if result_of(&ring.next(Idle::Yield)?, "synced write")? != BLOCK {
            return Err(io::Error::other("a short write"));
        }
        pos = (pos + BLOCK as u64) % (len / BLOCK as u64 * BLOCK as u64);
        ring.push(&opcode::Send::new(types::Fixed(0), answer.as_ptr(), REPLY as u32).build())?;
        if result_of(&ring.next(Idle::Spin)?, "send")? != REPLY {
            return Err(io::Error::other("a short reply was sent on an idle connection"));
        }
    }
}
