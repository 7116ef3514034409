//! The null sink: a server in a process of its own that takes records as fast as TCP brings them and keeps nothing.
//!
//! Job: to find what the load generator itself can do, and to try its verdicts against a server of a known speed (`--bytes-per-second`). One
//! thread, epoll(7), all connections. Invariants: it says `ready HOST:PORT` on standard output once it accepts connections; a connection
//! that breaks or says nonsense is closed and concerns no other.
//! Not here: what is answered (`session.rs`). For brokers use a broker.

use crate::args::Sink;
use crate::session::{Session, World};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Read at once: as much as a socket's buffer usually has.
const READ_BYTES: usize = 256 << 10;
/// Reads of one connection in a row: bounds how long a busy one keeps the others waiting.
const READS_PER_TURN: usize = 4;
/// Answers that a client does not take, above which it is not read either.
const OUT_BYTES_MAX: usize = 1 << 20;
/// The listener's mark; connections have their place.
const LISTENER: u64 = u64::MAX;

/// Serves until the process is ended.
pub fn serve(options: &Sink) -> Result<u8, String> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |cause: io::Error| format!("the sink cannot {doing}: {cause}")
    };
    let listener = TcpListener::bind(&options.listen).map_err(failed(&format!("listen on {}", options.listen)))?;
    listener.set_nonblocking(true).map_err(failed("listen without blocking"))?;
    let address = listener.local_addr().map_err(failed("tell its address"))?;
    if let Some(cpu) = options.cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(cpu) })
    {
        return Err(format!("--cpu {cpu} is not a core this process may use"));
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|cause| failed("wait")(cause.into()))?;
    let mark = epoll::EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, mark, epoll::EventFlags::IN).map_err(|cause| failed("wait")(cause.into()))?;
    let mut sink = Sinking {
        listener,
        epoll,
        world: World::new(if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() }, address.port()),
        peers: Vec::new(),
        free: Vec::new(),
        room: vec![0; READ_BYTES],
        bytes_per_second: options.bytes_per_second,
    };
    // A reader that went away does not end a server.
    let _ = writeln!(io::stdout(), "ready {address}");
    let mut events = Vec::with_capacity(1024);
    // Without a time-out it sleeps until something comes.
    let timeout = options.busy_poll.then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
    loop {
        events.clear();
        match epoll::wait(&sink.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(cause) => return Err(failed("wait")(cause.into())),
        }
        if events.is_empty() {
            std::thread::yield_now();
        }
        for event in &events {
            let data = event.data;
            sink.on_ready(data.u64());
        }
    }
}

struct Peer {
    stream: TcpStream,
    session: Session,
    out: Vec<u8>,
    /// Whether the kernel tells when there is room to write.
    waits_for_room: bool,
}

struct Sinking {
    listener: TcpListener,
    epoll: OwnedFd,
    world: World,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    room: Vec<u8>,
    bytes_per_second: Option<u64>,
}

impl Sinking {
    fn on_ready(&mut self, mark: u64) {
        if mark == LISTENER {
            return self.accept();
        }
        let Ok(place) = usize::try_from(mark) else { return };
        let Some(Some(peer)) = self.peers.get_mut(place) else { return };
        let before = self.world.batch_bytes;
        let kept = turn(peer, &mut self.room, &mut self.world).is_ok() && watch(peer, place, &self.epoll).is_ok();
        if !kept {
            // Closing takes it out of the epoll set.
            self.peers[place] = None;
            self.free.push(place);
        }
        if let Some(bytes_per_second) = self.bytes_per_second {
            let taken = self.world.batch_bytes - before;
            std::thread::sleep(Duration::from_nanos(taken.saturating_mul(1_000_000_000) / bytes_per_second));
        }
    }

    fn accept(&mut self) {
        // Whatever ends it (nobody waits any more, or no file is free) is tried again at the next event.
        while let Ok((stream, _)) = self.listener.accept() {
            let place = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            let mark = epoll::EventData::new_u64(place as u64);
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            let added = ready.and_then(|()| Ok(epoll::add(&self.epoll, &stream, mark, epoll::EventFlags::IN)?));
            match added {
                Ok(()) => self.peers[place] = Some(Peer { stream, session: Session::default(), out: Vec::new(), waits_for_room: false }),
                Err(_) => self.free.push(place),
            }
        }
    }
}

/// Reads, answers, writes. An error closes the connection.
fn turn(peer: &mut Peer, room: &mut [u8], world: &mut World) -> Result<(), String> {
    let broken = |cause: io::Error| cause.to_string();
    for _ in 0..READS_PER_TURN {
        if peer.out.len() > OUT_BYTES_MAX {
            break;
        }
        match peer.stream.read(room) {
            Ok(0) => return Err("closed".to_owned()),
            Ok(count) => {
                peer.session.receive(&room[..count], world, &mut peer.out).map_err(|closed| closed.0)?;
                if count < room.len() {
                    break;
                }
            }
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => break,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(broken(cause)),
        }
    }
    while !peer.out.is_empty() {
        match peer.stream.write(&peer.out) {
            Ok(count) => drop(peer.out.drain(..count)),
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => break,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(broken(cause)),
        }
    }
    Ok(())
}

/// Asks the kernel for room to write where answers are left.
fn watch(peer: &mut Peer, place: usize, epoll: &OwnedFd) -> io::Result<()> {
    let wants_room = !peer.out.is_empty();
    if wants_room != peer.waits_for_room {
        peer.waits_for_room = wants_room;
        let flags = if wants_room { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        epoll::modify(epoll, &peer.stream, epoll::EventData::new_u64(place as u64), flags)?;
    }
    Ok(())
}
