//! One connection: the socket of who connected, the socket to who is behind the proxy, and the two pipes between them.
//!
//! Job: moves bytes and ends while the sockets let it. Invariants: a turn is bounded (`ROUNDS_MAX`), so a busy connection keeps no other
//! waiting; a socket is read only while its pipe has room; an end that comes in on one side leaves on the other as what it was: a close of
//! one direction as that, a reset as a reset; while a direction is cut nothing of it moves, not even its end.
//! Sockets are watched edge-triggered: what epoll said is kept in `Side` until the socket says "would block".
//! Not here: when bytes may come out (`pipe.rs`), who calls and when (`proxy.rs`).

use crate::line::{Direction, Now, Weather};
use crate::pipe::{End, Pipe};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Read at once at most.
pub const READ_BYTES: usize = 64 << 10;
/// Reads and writes of one direction in a turn: 256 KiB, some 100 us.
const ROUNDS_MAX: usize = 4;

/// One of the two sockets.
pub struct Side {
    socket: TcpStream,
    /// Connecting is done. Until then it is neither read nor written.
    connected: bool,
    readable: bool,
    writable: bool,
    /// Reset, or refused: nothing comes and goes here any more.
    broken: bool,
    /// Its peer was told the end of what goes there.
    told_end: bool,
}

impl Side {
    /// A socket that does not block.
    pub fn new(socket: TcpStream, connected: bool) -> Side {
        Side { socket, connected, readable: false, writable: false, broken: false, told_end: false }
    }

    /// Takes in what epoll says. Answers nothing: the next turn looks.
    pub fn on_ready(&mut self, readable: bool, writable: bool, failed: bool) {
        self.readable |= readable;
        self.writable |= writable;
        self.broken |= failed;
        // A socket becomes writable when connecting is over, well or not.
        if writable && !self.connected {
            self.connected = true;
            self.broken |= !matches!(self.socket.take_error(), Ok(None));
        }
    }

    /// Reads; `None` when nothing is there now. An error makes it broken, and is the end of what comes.
    fn read(&mut self, into: &mut [u8]) -> Option<Result<usize, End>> {
        match self.socket.read(into) {
            Ok(0) => Some(Err(End::Closed)),
            Ok(bytes) => Some(Ok(bytes)),
            Err(cause) if cause.kind() == ErrorKind::Interrupted => Some(Ok(0)),
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.broken = true;
                Some(Err(End::Reset))
            }
        }
    }

    /// Writes; `None` when there is no room now, or never again.
    fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.socket.write(bytes) {
            Ok(sent) => Some(sent),
            Err(cause) if cause.kind() == ErrorKind::Interrupted => Some(0),
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                None
            }
            Err(_) => {
                self.broken = true;
                None
            }
        }
    }

    /// Makes closing this socket a reset.
    fn reset_at_close(&self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more to do at once.
    More,
    /// Nothing to do before that time, or before a socket is ready.
    Wait(Option<Now>),
    /// Both ends are passed on, or one reset: the connection goes.
    Over,
}

/// One connection.
pub struct Pair {
    client: Side,
    server: Side,
    up: Pipe,
    down: Pipe,
    /// Bytes taken in, both ways together: what `stall_after` counts.
    carried: u64,
}

impl Pair {
    /// A new one; `dice` is a seed for its two rows of jitter.
    pub fn new(client: TcpStream, server: TcpStream, buffer_bytes: usize, mut dice: u64) -> Pair {
        let mut pipe = || Pipe::new(buffer_bytes, crate::line::roll(&mut dice));
        Pair { client: Side::new(client, true), server: Side::new(server, false), up: pipe(), down: pipe(), carried: 0 }
    }

    /// The side that the bytes of a direction come from.
    pub fn source_mut(&mut self, direction: Direction) -> &mut Side {
        self.split(direction).0
    }

    /// Source, pipe and target of a direction.
    fn split(&mut self, direction: Direction) -> (&mut Side, &mut Pipe, &mut Side) {
        match direction {
            Direction::Up => (&mut self.client, &mut self.up, &mut self.server),
            Direction::Down => (&mut self.server, &mut self.down, &mut self.client),
        }
    }

    /// Makes both sockets end with a reset when they are closed.
    pub fn reset(&self) -> io::Result<()> {
        self.client.reset_at_close().and(self.server.reset_at_close())
    }

    /// Moves what can be moved. `carried` is told what was taken in, per direction.
    pub fn turn(&mut self, now: Now, weather: &mut Weather, scratch: &mut [u8], mut carried: impl FnMut(Direction, usize)) -> Turn {
        let mut more = false;
        for direction in Direction::BOTH {
            if weather.line(direction).cut {
                continue;
            }
            for round in 0.. {
                if round == ROUNDS_MAX {
                    more = true;
                    break;
                }
                let wrote = self.deliver(direction, now);
                let read = self.fetch(direction, now, weather, scratch);
                if let Some(bytes) = read {
                    carried(direction, bytes);
                    self.carried += bytes as u64;
                }
                if !wrote && read.is_none() {
                    break;
                }
            }
            if self.deliver_end(direction, now) {
                return Turn::Over;
            }
        }
        if self.client.told_end && self.server.told_end {
            return Turn::Over;
        }
        // A side may have turned out to be broken while the other direction was served, whose turn was over by then.
        let broke = Direction::BOTH.into_iter().any(|direction| {
            let cut = weather.line(direction).cut;
            let (source, pipe, _) = self.split(direction);
            !cut && source.broken && !pipe.has_reset()
        });
        if more || broke { Turn::More } else { Turn::Wait(self.next_release(now, weather)) }
    }

    fn next_release(&self, now: Now, weather: &Weather) -> Option<Now> {
        let up = self.up.next_release(now).filter(|_| !weather.line(Direction::Up).cut);
        let down = self.down.next_release(now).filter(|_| !weather.line(Direction::Down).cut);
        [up, down].into_iter().flatten().min()
    }

    /// Writes once what is due. Answers whether that brought anything.
    fn deliver(&mut self, direction: Direction, now: Now) -> bool {
        let (_, pipe, target) = self.split(direction);
        if target.broken {
            pipe.discard();
            return false;
        }
        if !target.connected || !target.writable {
            return false;
        }
        let due = pipe.due(now);
        if due.is_empty() {
            return false;
        }
        let Some(sent) = target.write(due) else { return false };
        pipe.sent(sent);
        true
    }

    /// Reads once, if there is room. Answers how many bytes came; an end comes as 0 of them.
    fn fetch(&mut self, direction: Direction, now: Now, weather: &mut Weather, scratch: &mut [u8]) -> Option<usize> {
        let left = weather.stall_after.map_or(u64::MAX, |after| after.saturating_sub(self.carried));
        let line = weather.line_mut(direction);
        let (source, pipe, target) = self.split(direction);
        if source.broken && !pipe.has_reset() {
            pipe.take_end(now, line, End::Reset);
            return Some(0);
        }
        if source.broken || target.broken || !source.connected || !source.readable {
            return None;
        }
        let room = pipe.room().min(usize::try_from(left).unwrap_or(usize::MAX)).min(line.piece_bytes(scratch.len()));
        if room == 0 {
            return None;
        }
        match source.read(&mut scratch[..room])? {
            Ok(bytes) => {
                if bytes > 0 {
                    pipe.take(now, line, &scratch[..bytes]);
                }
                Some(bytes)
            }
            Err(end) => {
                pipe.take_end(now, line, end);
                Some(0)
            }
        }
    }

    /// Passes the end of a direction on when its time has come. Answers whether that was the end of the connection.
    fn deliver_end(&mut self, direction: Direction, now: Now) -> bool {
        let (_, pipe, target) = self.split(direction);
        match pipe.end_due(now) {
            Some(End::Reset) => {
                // A socket that is broken itself has nobody left to tell.
                let _ = target.reset_at_close();
                true
            }
            Some(End::Closed) if !target.told_end && (target.connected || target.broken) => {
                // Fails only where the peer has gone already.
                let _ = target.socket.shutdown(Shutdown::Write);
                target.told_end = true;
                false
            }
            _ => false,
        }
    }
}
