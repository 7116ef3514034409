//! The proxy: one thread, epoll(7), all connections.
//!
//! Job: accepts, connects on, gives each connection its turn when a socket is ready or a time has come, and takes commands.
//! One thread: what a proxy does is system calls of a few microseconds, and one owner of the weather means that a cut holds for all
//! connections at one instant. Invariants: at most `connections_max` connections, each with at most twice `buffer_bytes`; who comes beyond
//! that waits in the kernel's backlog; a command line is at most `COMMAND_BYTES_MAX` long; a connection that breaks concerns no other.
//! Not here: what moves and when (`pair.rs`, `pipe.rs`), what commands mean (`command.rs`).

use crate::command::{Command, tell};
use crate::line::{Direction, Now, Weather};
use crate::pair::{Pair, READ_BYTES, Turn};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Bytes of one command at most; the longest that makes sense has some 30.
const COMMAND_BYTES_MAX: usize = 1024;
/// Answers of one wait.
const EVENTS_MAX: usize = 256;
/// Marks of what is no connection.
const LISTENER: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;

/// Where connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this address.
    Fixed(SocketAddr),
    /// To where they went before a rule of the firewall redirected them here (IPv4).
    Original,
}

/// What does not change while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where connections go.
    pub to: Target,
    /// Most bytes under way per connection and direction.
    pub buffer_bytes: usize,
    /// Most connections at once.
    pub connections_max: usize,
    /// Seed of the jitter.
    pub seed: u64,
    /// Mark of the outgoing packets, by which a redirecting rule tells them from others.
    pub mark: Option<u32>,
}

/// A place for a connection. The generation tells events of its predecessor from its own.
struct Place {
    generation: u32,
    pair: Option<Pair>,
    /// Whether it stands in `ready`.
    is_ready: bool,
    /// The earliest time that `times` holds for it.
    armed: Option<Now>,
}

/// A connection as others name it: place and generation.
type Key = (u32, u32);

/// What it has seen, for `status`.
#[derive(Default)]
struct Counts {
    opened: u64,
    refused: u64,
    up_bytes: u64,
    down_bytes: u64,
}

/// The running proxy.
pub struct Proxy {
    settings: Settings,
    weather: Weather,
    started: Instant,
    epoll: OwnedFd,
    listener: TcpListener,
    /// Where it listens: nothing is passed on to there.
    address: SocketAddr,
    /// Somebody waits in the backlog whom it could not take yet.
    accept_waits: bool,
    control: UnixStream,
    /// The part of a command that came so far; `None` while the rest of one that is too long is skipped.
    line: Option<Vec<u8>>,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Who has something to do now.
    ready: Vec<Key>,
    /// Who has something to do later.
    times: BinaryHeap<Reverse<(Now, Key)>>,
    /// Row of the connections' seeds.
    dice: u64,
    counts: Counts,
    scratch: Vec<u8>,
    quit: bool,
}

impl Proxy {
    /// Listens. Commands come out of `control`.
    pub fn new(settings: Settings, weather: Weather, control: UnixStream) -> Result<Proxy, String> {
        let failed = |doing: &str, cause: io::Error| format!("cannot {doing}: {cause}");
        let listener = TcpListener::bind(settings.listen).map_err(|cause| failed(&format!("listen on {}", settings.listen), cause))?;
        listener.set_nonblocking(true).map_err(|cause| failed("listen without blocking", cause))?;
        control.set_nonblocking(true).map_err(|cause| failed("read commands without blocking", cause))?;
        let address = listener.local_addr().map_err(|cause| failed("tell its address", cause))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|cause| failed("wait", cause.into()))?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let add = |mark: u64, fd: &dyn AsFd| epoll::add(&epoll, fd.as_fd(), epoll::EventData::new_u64(mark), flags);
        add(LISTENER, &listener).and_then(|()| add(CONTROL, &control)).map_err(|cause| failed("wait", cause.into()))?;
        Ok(Proxy {
            dice: settings.seed,
            settings,
            weather,
            started: Instant::now(),
            epoll,
            listener,
            address,
            accept_waits: false,
            control,
            line: Some(Vec::new()),
            places: Vec::new(),
            free: Vec::new(),
            ready: Vec::new(),
            times: BinaryHeap::new(),
            counts: Counts::default(),
            scratch: vec![0; READ_BYTES],
            quit: false,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `quit`; answers go to `out`.
    pub fn serve(mut self, out: &mut impl Write) -> Result<(), String> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while !self.quit {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), self.timeout().as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(format!("cannot wait: {}", io::Error::from(cause))),
            }
            let now = self.started.elapsed();
            for event in &events {
                let (mark, flags) = (event.data, event.flags);
                match mark.u64() {
                    LISTENER => self.accept_waits = true,
                    CONTROL => self.read_commands(out),
                    mark => self.on_ready(mark, flags),
                }
            }
            while let Some(Reverse((at, key))) = self.times.peek().copied().filter(|Reverse((at, _))| *at <= now) {
                self.times.pop();
                if let Some(place) = self.place(key) {
                    place.armed = place.armed.filter(|armed| *armed != at);
                    self.make_ready(key);
                }
            }
            for key in std::mem::take(&mut self.ready) {
                self.turn(key, now);
            }
            // Last: a connection that has just gone made a place.
            if self.accept_waits {
                self.accept();
            }
        }
        Ok(())
    }

    /// How long nothing happens by itself.
    fn timeout(&self) -> Option<Timespec> {
        if !self.ready.is_empty() {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let Reverse((at, _)) = self.times.peek()?;
        let left = at.saturating_sub(self.started.elapsed());
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
    }

    /// The place of a connection that is still there.
    fn place(&mut self, (at, generation): Key) -> Option<&mut Place> {
        self.places.get_mut(at as usize).filter(|place| place.generation == generation && place.pair.is_some())
    }

    fn make_ready(&mut self, key: Key) {
        let Some(place) = self.place(key) else { return };
        if !std::mem::replace(&mut place.is_ready, true) {
            self.ready.push(key);
        }
    }

    fn make_all_ready(&mut self) {
        let keys: Vec<Key> = (0..).zip(&self.places).map(|(at, place)| (at, place.generation)).collect();
        keys.into_iter().for_each(|key| self.make_ready(key));
    }

    /// A mark is generation, place and side, from the top: 32, 31 and 1 bits.
    fn mark((at, generation): Key, source_of: Direction) -> u64 {
        u64::from(generation) << 32 | u64::from(at) << 1 | u64::from(source_of == Direction::Down)
    }

    fn on_ready(&mut self, mark: u64, flags: epoll::EventFlags) {
        use epoll::EventFlags as E;
        let key = ((mark as u32) >> 1, (mark >> 32) as u32);
        let direction = if mark & 1 == 0 { Direction::Up } else { Direction::Down };
        let Some(pair) = self.place(key).and_then(|place| place.pair.as_mut()) else { return };
        let gone = flags.intersects(E::HUP | E::ERR);
        let readable = gone || flags.intersects(E::IN | E::RDHUP);
        pair.source_mut(direction).on_ready(readable, gone || flags.contains(E::OUT), flags.contains(E::ERR));
        self.make_ready(key);
    }

    fn turn(&mut self, key: Key, now: Now) {
        let at = key.0 as usize;
        let Some(place) = self.places.get_mut(at).filter(|place| place.generation == key.1) else { return };
        place.is_ready = false;
        let Some(pair) = &mut place.pair else { return };
        let counts = &mut self.counts;
        let counted = |direction, bytes| match direction {
            Direction::Up => counts.up_bytes += bytes as u64,
            Direction::Down => counts.down_bytes += bytes as u64,
        };
        match pair.turn(now, &mut self.weather, &mut self.scratch, counted) {
            Turn::More => self.make_ready(key),
            Turn::Wait(None) => {}
            Turn::Wait(Some(next)) => {
                // A pipe's times only grow: an entry that is there comes first and asks again.
                if place.armed.is_none_or(|armed| next < armed) {
                    place.armed = Some(next);
                    self.times.push(Reverse((next, key)));
                }
            }
            Turn::Over => self.remove(key),
        }
    }

    /// Closes a connection and frees its place. Closing takes the sockets out of epoll's set.
    fn remove(&mut self, key: Key) {
        let Some(place) = self.place(key) else { return };
        *place = Place { generation: place.generation.wrapping_add(1), pair: None, is_ready: false, armed: None };
        self.free.push(key.0);
    }

    fn connections(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes whoever waits, as long as there is a place and no cut.
    fn accept(&mut self) {
        while self.weather.connects() && self.connections() < self.settings.connections_max {
            match self.listener.accept() {
                Ok((client, _)) => {
                    if let Err(cause) = self.open(client) {
                        self.counts.refused += 1;
                        // Nobody may read it any more.
                        let _ = writeln!(io::stderr(), "tramline-proxy: a connection is refused: {cause}");
                    }
                }
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                    self.accept_waits = false;
                    return;
                }
                // The peer has gone meanwhile: next. Anything else (no more files) is tried again at the next event.
                Err(cause) if cause.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    /// Connects on. On an error the client's socket is reset, as if nobody listened.
    fn open(&mut self, client: TcpStream) -> io::Result<()> {
        // Whatever fails below: the client sees a reset, not an orderly end.
        SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO))?;
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        let to = match self.settings.to {
            Target::Fixed(to) => to,
            Target::Original => {
                let to = SockRef::from(&client).original_dst_v4()?;
                to.as_socket().filter(|to| *to != self.address).ok_or_else(|| io::Error::other("it was not redirected"))?
            }
        };
        let server = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        server.set_nonblocking(true)?;
        server.set_tcp_nodelay(true)?;
        if let Some(mark) = self.settings.mark {
            server.set_mark(mark)?;
        }
        match server.connect(&SockAddr::from(to)) {
            Ok(()) => {}
            Err(cause) if cause.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(cause) => return Err(cause),
        }
        SockRef::from(&client).set_linger(None)?;
        self.keep(client, server.into())
    }

    /// Gives a connection its place.
    fn keep(&mut self, client: TcpStream, server: TcpStream) -> io::Result<()> {
        use epoll::EventFlags as E;
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, pair: None, is_ready: false, armed: None });
            u32::try_from(self.places.len() - 1).expect("connections_max is below 2^31")
        });
        let key = (at, self.places[at as usize].generation);
        for (socket, direction) in [(&client, Direction::Up), (&server, Direction::Down)] {
            let mark = epoll::EventData::new_u64(Proxy::mark(key, direction));
            if let Err(cause) = epoll::add(&self.epoll, socket, mark, E::IN | E::OUT | E::RDHUP | E::ET) {
                self.free.push(at);
                return Err(cause.into());
            }
        }
        let dice = crate::line::roll(&mut self.dice);
        self.places[at as usize].pair = Some(Pair::new(client, server, self.settings.buffer_bytes, dice));
        self.counts.opened += 1;
        Ok(())
    }

    /// Reads what came, and does each whole line.
    fn read_commands(&mut self, out: &mut impl Write) {
        let mut bytes = [0; 512];
        loop {
            match self.control.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => bytes[..count].iter().for_each(|byte| self.on_command_byte(*byte, out)),
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn on_command_byte(&mut self, byte: u8, out: &mut impl Write) {
        let answer = match (&mut self.line, byte) {
            (Some(line), b'\n') => {
                let line = std::mem::take(line);
                self.command(&String::from_utf8_lossy(&line))
            }
            (None, b'\n') => {
                self.line = Some(Vec::new());
                format!("error: a command has at most {COMMAND_BYTES_MAX} bytes")
            }
            (Some(line), byte) if line.len() < COMMAND_BYTES_MAX => return line.push(byte),
            (line, _) => return *line = None,
        };
        // Whoever asked may have gone.
        let _ = writeln!(out, "{answer}").and_then(|()| out.flush());
    }

    fn command(&mut self, line: &str) -> String {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(refusal) => return format!("error: {refusal}"),
        };
        command.apply(&mut self.weather);
        match command {
            Command::Quit => self.quit = true,
            Command::Reset => {
                for at in 0..self.places.len() {
                    let Some(pair) = &self.places[at].pair else { continue };
                    // A socket that cannot be told is gone.
                    let _ = pair.reset();
                    self.remove((at as u32, self.places[at].generation));
                }
            }
            Command::Status => {
                let Counts { opened, refused, up_bytes, down_bytes } = &self.counts;
                let connections = self.connections();
                return format!(
                    "ok connections={connections} opened={opened} refused={refused} up_bytes={up_bytes} down_bytes={down_bytes} {}",
                    tell(&self.weather)
                );
            }
            _ => {}
        }
        // What was held may go on, and what was refused may come.
        self.make_all_ready();
        self.accept_waits = true;
        "ok".to_owned()
    }
}
