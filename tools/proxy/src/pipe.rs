//! One direction of one connection: bytes on their way, and when they may come out.
//!
//! Job: keeps what was taken in until its time, in order, and then the end that followed it. No socket and no clock in here.
//! Invariants: bytes come out in the order in which they went in, none before its time; `bytes` is never longer than `bytes_max`, `marks`
//! never longer than `MARKS_MAX`: who would go beyond is not read, which is what slows the sender down; after an end nothing is taken in.
//! Not here: sockets (`pair.rs`), what the line does to a piece (`line.rs`).

use crate::line::{Line, Now, roll};
use std::collections::VecDeque;

/// Pieces under way at most. A mark is 32 bytes: 256 KiB; without it a sender of single bytes could hold a million of them.
const MARKS_MAX: usize = 8192;

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender has said all (FIN); the other direction goes on.
    Closed,
    /// The connection broke (RST).
    Reset,
}

/// Bytes that went in together.
struct Mark {
    release: Now,
    bytes: usize,
}

/// Bytes on their way.
pub struct Pipe {
    bytes: VecDeque<u8>,
    marks: VecDeque<Mark>,
    bytes_max: usize,
    /// Bytes at the front that are due; they have no mark any more.
    due: usize,
    end: Option<(End, Now)>,
    /// When the latest piece comes out: no later one does earlier.
    last: Now,
    dice: u64,
}

impl Pipe {
    /// An empty one, for at most `bytes_max`; `dice` is the seed of its jitter.
    pub fn new(bytes_max: usize, dice: u64) -> Pipe {
        assert!(bytes_max > 0, "a pipe that takes nothing carries nothing");
        Pipe { bytes: VecDeque::new(), marks: VecDeque::new(), bytes_max, due: 0, end: None, last: Now::ZERO, dice }
    }

    /// How many bytes it takes now; 0 also after an end.
    pub fn room(&self) -> usize {
        if self.end.is_some() || self.marks.len() >= MARKS_MAX { 0 } else { self.bytes_max - self.bytes.len() }
    }

    /// Takes in what was read, at most `room`.
    pub fn take(&mut self, now: Now, line: &mut Line, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "{} bytes into a pipe with room for {}", bytes.len(), self.room());
        let release = line.release(now, bytes.len(), roll(&mut self.dice)).max(self.last);
        self.last = release;
        self.bytes.extend(bytes);
        self.marks.push_back(Mark { release, bytes: bytes.len() });
    }

    /// Takes in the end. It travels as bytes do. A reset after a close replaces it; nothing replaces a reset.
    pub fn take_end(&mut self, now: Now, line: &mut Line, end: End) {
        if self.has_reset() || (self.end.is_some() && end == End::Closed) {
            return;
        }
        self.last = line.release(now, 0, roll(&mut self.dice)).max(self.last);
        self.end = Some((end, self.last));
    }

    /// The bytes that may come out now, or the first part of them; empty if none.
    pub fn due(&mut self, now: Now) -> &[u8] {
        while let Some(mark) = self.marks.front().filter(|mark| mark.release <= now) {
            self.due += mark.bytes;
            self.marks.pop_front();
        }
        let (front, _) = self.bytes.as_slices();
        &front[..front.len().min(self.due)]
    }

    /// So many of the bytes that were due have come out.
    pub fn sent(&mut self, bytes: usize) {
        assert!(bytes <= self.due, "{bytes} bytes were sent, {} were due", self.due);
        self.bytes.drain(..bytes);
        self.due -= bytes;
        if self.bytes.is_empty() {
            // A connection that is silent again keeps no memory.
            self.bytes = VecDeque::new();
        }
    }

    /// Nobody takes them any more: all bytes go. An end stays.
    pub fn discard(&mut self) {
        self.bytes = VecDeque::new();
        self.marks = VecDeque::new();
        self.due = 0;
    }

    /// The end, once it may come out: a close behind all bytes; a reset at its time, whatever the receiver has taken by then, as
    /// the packet would.
    pub fn end_due(&self, now: Now) -> Option<End> {
        let (end, _) = self.end.filter(|(_, at)| *at <= now)?;
        (end == End::Reset || self.bytes.is_empty()).then_some(end)
    }

    /// Whether a reset was taken in: then nothing else is of interest.
    pub fn has_reset(&self) -> bool {
        matches!(self.end, Some((End::Reset, _)))
    }

    /// When something comes out next that could not come out at `now`.
    pub fn next_release(&self, now: Now) -> Option<Now> {
        let mark = self.marks.front().map(|mark| mark.release);
        let end = self.end.map(|(_, at)| at);
        [mark, end].into_iter().flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn line(delay_ms: u32, jitter_ms: u32) -> Line {
        let mut line = Line::default();
        (line.delay, line.jitter) = (delay_ms * MS, jitter_ms * MS);
        line
    }

    /// Takes out all that is due.
    fn drain(pipe: &mut Pipe, now: Now) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let part = pipe.due(now).to_vec();
            if part.is_empty() {
                return out;
            }
            pipe.sent(part.len());
            out.extend(part);
        }
    }

    #[test]
    fn bytes_wait_for_their_time_and_the_end_for_the_bytes() {
        let (mut pipe, mut line) = (Pipe::new(100, 1), line(2, 0));
        pipe.take(MS, &mut line, b"ab");
        pipe.take(2 * MS, &mut line, b"cd");
        pipe.take_end(2 * MS, &mut line, End::Closed);
        assert_eq!((pipe.due(2 * MS).len(), pipe.next_release(2 * MS)), (0, Some(3 * MS)));
        assert_eq!(drain(&mut pipe, 3 * MS), b"ab");
        assert_eq!((pipe.end_due(3 * MS), pipe.next_release(3 * MS)), (None, Some(4 * MS)));
        assert_eq!(pipe.due(4 * MS), b"cd");
        pipe.sent(1);
        assert_eq!(pipe.end_due(4 * MS), None, "a byte is left");
        assert_eq!(drain(&mut pipe, 4 * MS), b"d");
        assert_eq!((pipe.end_due(4 * MS), pipe.next_release(4 * MS)), (Some(End::Closed), None));
    }

    #[test]
    fn jitter_never_changes_the_order() {
        let (mut pipe, mut line) = (Pipe::new(1 << 20, 42), line(1, 50));
        let all: Vec<u8> = (0..200).collect();
        for (at, byte) in all.iter().enumerate() {
            pipe.take(MS * at as u32 / 10, &mut line, &[*byte]);
        }
        let releases: Vec<Now> = pipe.marks.iter().map(|mark| mark.release).collect();
        assert!(releases.is_sorted() && releases[0] < *releases.last().unwrap(), "{releases:?}");
        let mut out = Vec::new();
        for now in releases {
            out.extend(drain(&mut pipe, now));
        }
        assert_eq!(out, all);
        // The same seed gives the same times, another one others.
        let times = |seed: u64| {
            let mut pipe = Pipe::new(100, seed);
            (0..10).for_each(|at| pipe.take(at * MS, &mut line.clone(), b"x"));
            pipe.marks.iter().map(|mark| mark.release).collect::<Vec<_>>()
        };
        assert_eq!(times(5), times(5));
        assert_ne!(times(5), times(6));
    }

    #[test]
    fn a_shorter_delay_later_overtakes_nothing() {
        let (mut pipe, mut line) = (Pipe::new(100, 1), line(100, 0));
        pipe.take(MS, &mut line, b"slow");
        line.delay = Duration::ZERO;
        pipe.take(2 * MS, &mut line, b"fast");
        assert_eq!(pipe.due(50 * MS), b"");
        assert_eq!(drain(&mut pipe, 101 * MS), b"slowfast");
    }

    #[test]
    fn it_is_bounded_in_bytes_and_in_pieces() {
        let (mut pipe, mut line) = (Pipe::new(8, 1), line(0, 0));
        pipe.take(MS, &mut line, b"12345678");
        assert_eq!(pipe.room(), 0);
        assert_eq!(pipe.due(MS).len(), 8);
        pipe.sent(3);
        assert_eq!(pipe.room(), 3);
        pipe.take(MS, &mut line, b"abc");
        assert_eq!(drain(&mut pipe, MS), b"45678abc");

        let mut pipe = Pipe::new(1 << 20, 1);
        (0..MARKS_MAX).for_each(|_| pipe.take(MS, &mut line, b"x"));
        assert_eq!(pipe.room(), 0, "single bytes");
        assert_eq!(drain(&mut pipe, MS).len(), MARKS_MAX);
        assert_eq!(pipe.room(), 1 << 20);
    }

    #[test]
    fn a_reset_waits_for_its_time_only_and_beats_a_close() {
        let (mut pipe, mut line) = (Pipe::new(8, 1), line(5, 0));
        pipe.take(MS, &mut line, b"never");
        pipe.take_end(MS, &mut line, End::Closed);
        pipe.take_end(2 * MS, &mut line, End::Reset);
        pipe.take_end(3 * MS, &mut line, End::Closed);
        assert_eq!((pipe.room(), pipe.end_due(6 * MS)), (0, None));
        assert_eq!(pipe.end_due(7 * MS), Some(End::Reset), "though its bytes were not taken");
        pipe.discard();
        assert_eq!((pipe.due(7 * MS).len(), pipe.end_due(7 * MS)), (0, Some(End::Reset)));
    }
}
