//! What the transport of a busy-polling client costs by the number of its connections: plain non-blocking sockets, each asked in turn, the same behind
//! epoll(7), and one ring with a receive on each connection.
//!
//! One request is in flight, on another connection each time; or one on each connection. The server is the same for all: a spinning ring.
//! Not here: the round trip that limits the broker (`tcp.rs`).

use crate::report::{histogram, quantile_us};
use crate::ring::{Idle, Ring, result_of};
use crate::tcp::{echo_server, pair, pin, write_all};
use io_uring::{opcode, types};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The client's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `read` on each socket in turn; `write`.
    Sockets,
    /// epoll(7) without waiting tells which socket has something; `read` on that one; `write`.
    Epoll,
    /// A receive submitted on each connection; sends through the ring as well.
    Ring,
}

/// Bytes of a request and of a reply.
const REQUEST: usize = 1024;
const REPLY: usize = 64;

/// Round trips over `connections`: (p50, p99) in microseconds.
pub fn round_trips(cpus: [usize; 2], transport: Transport, connections: usize, time: Duration) -> io::Result<(f64, f64)> {
    beside_a_server(cpus, connections, |clients| match transport {
        Transport::Sockets => over_sockets(clients, time),
        Transport::Epoll => over_epoll(clients, time),
        Transport::Ring => over_a_ring(&clients, time),
    })
}

/// Round trips per second over `connections` with a request in flight on each: a ring on one core, a client behind epoll(7) on the other. A request or a reply is a
/// send and a receive of its own, as where the connections are of different processes.
pub fn round_trips_per_s(cpus: [usize; 2], connections: usize, time: Duration) -> io::Result<f64> {
    beside_a_server(cpus, connections, |clients| all_at_once(clients, time))
}

/// Runs a client with so many connections on the second core, and the server behind them on the first, until the client has ended.
fn beside_a_server<T: Send>(
    cpus: [usize; 2],
    connections: usize,
    client: impl FnOnce(Vec<TcpStream>) -> io::Result<T> + Send,
) -> io::Result<T> {
    let pairs: Vec<(TcpStream, TcpStream)> = (0..connections).map(|_| pair()).collect::<io::Result<_>>()?;
    let (servers, clients): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || echo_server(&servers, cpus[0], REQUEST, REPLY));
        let told = scope.spawn(move || {
            pin(cpus[1])?;
            client(clients)
        });
        let told = told.join().map_err(|_| io::Error::other("the client's thread panicked"))?;
        echo.join().map_err(|_| io::Error::other("the server's thread panicked"))??;
        told
    })
}

fn all_at_once(mut clients: Vec<TcpStream>, time: Duration) -> io::Result<f64> {
    let request = [7u8; REQUEST];
    let mut reply = [0u8; REPLY];
    let mut have = vec![0; clients.len()];
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (at, client) in clients.iter_mut().enumerate() {
        epoll::add(&epoll, &*client, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
        write_all(client, &request, false)?;
    }
    let mut events = Vec::with_capacity(clients.len());
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let start = Instant::now();
    let warm = time / 5;
    let mut done = 0u64;
    loop {
        let passed = start.elapsed();
        if passed >= time {
            return Ok(done as f64 / (passed - warm).as_secs_f64());
        }
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&at_once))?;
        for event in &events {
            let at = event.data.u64() as usize;
            match clients[at].read(&mut reply[have[at]..])? {
                0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server's side ended")),
                n => have[at] += n,
            }
            if have[at] == REPLY {
                have[at] = 0;
                done += u64::from(passed >= warm);
                write_all(&mut clients[at], &request, false)?;
            }
        }
    }
}

/// Calls `round_trip` with a connection's number until the time is over.
fn measured(connections: usize, time: Duration, mut round_trip: impl FnMut(usize) -> io::Result<()>) -> io::Result<(f64, f64)> {
    let mut histogram = histogram();
    let start = Instant::now();
    let warm = start + time / 5;
    for turn in 0usize.. {
        let sent = Instant::now();
        // Another one each time, and not the next one in order.
        round_trip(turn.wrapping_mul(7) % connections)?;
        let now = Instant::now();
        if now > warm {
            histogram.saturating_record((now - sent).as_nanos() as u64);
        }
        if now - start > time {
            break;
        }
    }
    Ok((quantile_us(&histogram, 0.5), quantile_us(&histogram, 0.99)))
}

fn over_sockets(mut clients: Vec<TcpStream>, time: Duration) -> io::Result<(f64, f64)> {
    let request = [7u8; REQUEST];
    let mut reply = [0u8; REPLY];
    measured(clients.len(), time, |at| {
        write_all(&mut clients[at], &request, false)?;
        let mut have = 0;
        while have < REPLY {
            // Whoever does not know where the next answer comes from asks all of them.
            for client in &mut clients {
                match client.read(&mut reply[have..]) {
                    Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server's side ended")),
                    Ok(n) => have += n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    })
}

fn over_epoll(mut clients: Vec<TcpStream>, time: Duration) -> io::Result<(f64, f64)> {
    let request = [7u8; REQUEST];
    let mut reply = [0u8; REPLY];
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (at, client) in clients.iter().enumerate() {
        epoll::add(&epoll, client, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
    }
    let mut events = Vec::with_capacity(clients.len());
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    measured(clients.len(), time, |at| {
        write_all(&mut clients[at], &request, false)?;
        let mut have = 0;
        while have < REPLY {
            events.clear();
            epoll::wait(&epoll, spare_capacity(&mut events), Some(&at_once))?;
            for event in &events {
                let ready = event.data.u64() as usize;
                match clients[ready].read(&mut reply[have..])? {
                    0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server's side ended")),
                    n => have += n,
                }
            }
        }
        Ok(())
    })
}

fn over_a_ring(clients: &[TcpStream], time: Duration) -> io::Result<(f64, f64)> {
    /// The send's mark; receives have their connection's number.
    const SEND: u64 = u64::MAX;
    let request = [7u8; REQUEST];
    let mut replies = vec![[0u8; REPLY]; clients.len()];
    let mut ring = Ring::new(256)?;
    ring.register_files(&clients.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>())?;
    let mut receive = |ring: &mut Ring, at: usize, have: usize| {
        let to = &mut replies[at][have..];
        ring.push(&opcode::Recv::new(types::Fixed(at as u32), to.as_mut_ptr(), to.len() as u32).build().user_data(at as u64))
    };
    for at in 0..clients.len() {
        receive(&mut ring, at, 0)?;
    }
    measured(clients.len(), time, |at| {
        ring.push(&opcode::Send::new(types::Fixed(at as u32), request.as_ptr(), REQUEST as u32).build().user_data(SEND))?;
        let mut have = 0;
        loop {
            let done = ring.next(Idle::Spin)?;
            if done.user_data() == SEND {
                if result_of(&done, "send")? != REQUEST {
                    return Err(io::Error::other("a short request was sent on an idle connection"));
                }
                continue;
            }
            match result_of(&done, "receive")? {
                0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server's side ended")),
                n => have += n,
            }
            if done.user_data() != at as u64 {
                return Err(io::Error::other("an answer came on a connection that was not asked"));
            }
            receive(&mut ring, at, if have == REPLY { 0 } else { have })?;
            if have == REPLY {
                return Ok(());
            }
        }
    })
}
