//! Loopback TCP with a raw ring on the server's core: round trips and streams.
//!
//! The client is what the latency-sensitive native client is: a non-blocking socket that is polled without pause, or with
//! `sched_yield` when asked. So the difference to the broker's numbers is the broker.
//!
//! Not here: the disk (`disk.rs`), round trips with a synced write in between (`chain.rs`).

use crate::report::{gbps, histogram, quantile_us};
use crate::ring::{Idle, Ring, result_of};
use io_uring::{opcode, types};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long a side waits for the other before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of one write of a stream.
pub const STREAM_WRITE: usize = 256 * 1024;

/// A connected pair on loopback, without Nagle's delay: (server's end, client's end).
pub fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    client.set_nonblocking(true)?;
    Ok((server, client))
}

/// Pins the calling thread; a refusal is an error, since unpinned figures mean nothing.
pub fn pin(cpu: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        return Ok(());
    }
    Err(io::Error::other(format!("cannot pin a thread to CPU {cpu}: choose others with --cpus")))
}

fn idle_client(yields: bool) {
    if yields {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// Writes all of `bytes` to a non-blocking socket, polling.
pub fn write_all(socket: &mut TcpStream, mut bytes: &[u8], yields: bool) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => idle_client(yields),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads exactly `bytes` from a non-blocking socket, polling.
pub fn read_all(socket: &mut TcpStream, bytes: &mut [u8], yields: bool) -> io::Result<()> {
    let mut have = 0;
    let mut empty = 0u32;
    let mut since = None;
    while have < bytes.len() {
        match socket.read(&mut bytes[have..]) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server's side ended")),
            Ok(n) => have += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                idle_client(yields);
                empty += 1;
                // The clock is looked at rarely: a reading costs as much as a tenth of a poll.
                if empty.is_multiple_of(1 << 16) && since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(io::Error::new(ErrorKind::TimedOut, "no reply"));
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Round trips of a client on `cpu`, one in flight: (p50, p99) in microseconds. `request` and `reply` in bytes.
pub fn client_round_trips(
    mut socket: TcpStream,
    cpu: usize,
    request: usize,
    reply: usize,
    yields: bool,
    time: Duration,
) -> io::Result<(f64, f64)> {
    pin(cpu)?;
    let request = vec![7u8; request];
    let mut reply = vec![0u8; reply];
    let mut histogram = histogram();
    let start = Instant::now();
    let warm = start + time / 5;
    loop {
        let sent = Instant::now();
        write_all(&mut socket, &request, yields)?;
        read_all(&mut socket, &mut reply, yields)?;
        let now = Instant::now();
        if now > warm {
            histogram.saturating_record((now - sent).as_nanos() as u64);
        }
        if now - start > time {
            return Ok((quantile_us(&histogram, 0.5), quantile_us(&histogram, 0.99)));
        }
    }
}

/// TCP round trip: the server's ring spins on `cpus[0]`, the client on `cpus[1]`. (p50, p99) in microseconds.
pub fn round_trip(cpus: [usize; 2], request: usize, reply: usize, yields: bool, time: Duration) -> io::Result<(f64, f64)> {
    let (server, client) = pair()?;
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || echo_server(std::slice::from_ref(&server), cpus[0], request, reply));
        let figures = scope.spawn(move || client_round_trips(client, cpus[1], request, reply, yields, time)).join();
        let echo = echo.join();
        let figures = figures.map_err(|_| io::Error::other("the client's thread panicked"))??;
        echo.map_err(|_| io::Error::other("the server's thread panicked"))??;
        Ok(figures)
    })
}

/// Answers each request of `request` bytes with one of `reply` bytes, on whichever of the connections it comes, until one of them ends.
pub fn echo_server(sockets: &[TcpStream], cpu: usize, request: usize, reply: usize) -> io::Result<()> {
    pin(cpu)?;
    let mut buffers = vec![vec![0u8; request]; sockets.len()];
    let mut have = vec![0; sockets.len()];
    let answer = vec![9u8; reply];
    let mut ring = Ring::new(256)?;
    ring.register_files(&sockets.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>())?;
    // POLL_FIRST: the next request cannot be there before the reply has gone out, so a first try would be in vain.
    const POLL_FIRST: u16 = 1;
    /// The sends' mark; receives have their connection's number.
    const SEND: u64 = u64::MAX;
    let mut receive = |ring: &mut Ring, at: usize, have: usize| {
        let entry = opcode::Recv::new(types::Fixed(at as u32), buffers[at][have..].as_mut_ptr(), (request - have) as u32)
            .ioprio(if have == 0 { POLL_FIRST } else { 0 })
            .build()
            .user_data(at as u64);
        ring.push(&entry)
    };
    for at in 0..sockets.len() {
        receive(&mut ring, at, 0)?;
    }
    loop {
        let done = ring.next(Idle::Spin)?;
        if done.user_data() == SEND {
            if result_of(&done, "send")? != reply {
                return Err(io::Error::other("a short reply was sent on an idle connection"));
            }
            continue;
        }
        let at = done.user_data() as usize;
        match result_of(&done, "receive") {
            Ok(0) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(e),
            Ok(n) => have[at] += n,
        }
        if have[at] == request {
            have[at] = 0;
            ring.push(&opcode::Send::new(types::Fixed(at as u32), answer.as_ptr(), reply as u32).build().user_data(SEND))?;
        }
        receive(&mut ring, at, have[at])?;
    }
}

/// What the receiver of a stream does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Nothing.
    Discards,
    /// Sums them with crc32c and copies them into another buffer, as a broker must at the least.
    SumsAndCopies,
}

/// A stream from the client to the server's ring, in writes of 256 KiB: 10^9 bytes per second.
pub fn stream_in(cpus: [usize; 2], receiver: Receiver, time: Duration) -> io::Result<f64> {
    let (server, mut client) = pair()?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> io::Result<()> {
            pin(cpus[1])?;
            let chunk = vec![5u8; STREAM_WRITE];
            let start = Instant::now();
            while start.elapsed() < time {
                write_all(&mut client, &chunk, true)?;
            }
            Ok(())
        });
        let rate = scope.spawn(move || ring_receiver(&server, cpus[0], receiver)).join();
        let sender = sender.join();
        let rate = rate.map_err(|_| io::Error::other("the receiver's thread panicked"))??;
        sender.map_err(|_| io::Error::other("the sender's thread panicked"))??;
        Ok(rate)
    })
}

fn ring_receiver(socket: &TcpStream, cpu: usize, receiver: Receiver) -> io::Result<f64> {
    pin(cpu)?;
    let mut buffer = vec![0u8; STREAM_WRITE];
    let mut copy = vec![0u8; STREAM_WRITE];
    let mut ring = Ring::new(8)?;
    ring.register_files(&[socket.as_raw_fd()])?;
    let mut start = None;
    let mut bytes = 0u64;
    let mut sum = 0;
    loop {
        ring.push(&opcode::Recv::new(types::Fixed(0), buffer.as_mut_ptr(), buffer.len() as u32).build())?;
        let got = match result_of(&ring.next(Idle::Yield)?, "receive") {
            Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        if got == 0 {
            std::hint::black_box((sum, &copy));
            return Ok(gbps(bytes, start.map_or(1.0, |s: Instant| s.elapsed().as_secs_f64())));
        }
        if receiver == Receiver::SumsAndCopies {
            sum = crc32c::crc32c_append(sum, &buffer[..got]);
            copy[..got].copy_from_slice(&buffer[..got]);
        }
        match start {
            None => start = Some(Instant::now()),
            Some(_) => bytes += got as u64,
        }
    }
}

/// A stream from the server's ring to the client, in sends of 256 KiB: 10^9 bytes per second.
pub fn stream_out(cpus: [usize; 2], receiver: Receiver, time: Duration) -> io::Result<f64> {
    let (server, client) = pair()?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || ring_sender(server, cpus[0], time));
        let rate = scope.spawn(move || receive_stream(client, cpus[1], receiver)).join();
        let sender = sender.join();
        let rate = rate.map_err(|_| io::Error::other("the receiver's thread panicked"))??;
        sender.map_err(|_| io::Error::other("the sender's thread panicked"))??;
        Ok(rate)
    })
}

/// A client on `cpu` that receives until the stream's end: 10^9 bytes per second from its first bytes on.
pub fn receive_stream(mut client: TcpStream, cpu: usize, receiver: Receiver) -> io::Result<f64> {
    pin(cpu)?;
    let mut buffer = vec![0u8; STREAM_WRITE];
    let mut copy = vec![0u8; STREAM_WRITE];
    let mut start = None;
    let mut bytes = 0u64;
    let mut sum = 0;
    loop {
        let got = match client.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                std::thread::yield_now();
                continue;
            }
            Err(e) => return Err(e),
        };
        if got == 0 {
            std::hint::black_box((sum, &copy));
            return Ok(gbps(bytes, start.map_or(1.0, |s: Instant| s.elapsed().as_secs_f64())));
        }
        if receiver == Receiver::SumsAndCopies {
            sum = crc32c::crc32c_append(sum, &buffer[..got]);
            copy[..got].copy_from_slice(&buffer[..got]);
        }
        match start {
            None => start = Some(Instant::now()),
            Some(_) => bytes += got as u64,
        }
    }
}

fn ring_sender(socket: TcpStream, cpu: usize, time: Duration) -> io::Result<()> {
    pin(cpu)?;
    let chunk = vec![5u8; STREAM_WRITE];
    let mut ring = Ring::new(8)?;
    ring.register_files(&[socket.as_raw_fd()])?;
    let start = Instant::now();
    while start.elapsed() < time {
        let entry = opcode::Send::new(types::Fixed(0), chunk.as_ptr(), chunk.len() as u32).flags(libc::MSG_WAITALL).build();
        ring.push(&entry)?;
        result_of(&ring.next(Idle::Yield)?, "send")?;
    }
    // A registered file stays open until the ring is gone; the other side needs to see the end now.
    socket.shutdown(std::net::Shutdown::Write)
}
