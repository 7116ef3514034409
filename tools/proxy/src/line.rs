//! The line: what the network between the two sides is like at the moment, per direction.
//!
//! Job: to say when bytes that go in now come out. Invariants: no clock and no dice in here, both are arguments; a line that has a rate is
//! shared by all connections, as a cable is, first come first served.
//! Not here: the order within a connection (`pipe.rs`), reading and writing (`pair.rs`).

use std::time::Duration;

/// Time since the proxy's start.
pub type Now = Duration;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connected to the proxy to who is behind it.
    Up,
    /// Back.
    Down,
}

impl Direction {
    /// Both of them.
    pub const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];

    /// As it is written in commands.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}

/// One direction of the line.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// What every byte takes.
    pub delay: Duration,
    /// At most this is added at random.
    pub jitter: Duration,
    /// Bytes per second; `None` is as fast as it goes.
    pub rate: Option<u64>,
    /// Nothing goes in and nothing comes out, neither bytes nor ends.
    pub cut: bool,
    /// When the last byte that went in has passed the place where `rate` holds.
    free_at: Now,
}

impl Line {
    /// When `bytes` that go in now come out. `dice` is any number; the jitter is made of it.
    pub fn release(&mut self, now: Now, bytes: usize, dice: u64) -> Now {
        let mut at = now;
        if let Some(rate) = self.rate {
            // u128: 2^64 bytes times 10^9. A rate is not 0 (`units.rs`), and a piece is at most a buffer (2^30 bytes): below 2^60 ns.
            let nanos = (bytes as u128 * 1_000_000_000 / u128::from(rate)).min(1 << 60) as u64;
            self.free_at = self.free_at.max(now) + Duration::from_nanos(nanos);
            at = self.free_at;
        }
        at + self.delay + self.draw(dice)
    }

    fn draw(&self, dice: u64) -> Duration {
        // A time is at most 600 s (`units.rs`): its nanoseconds fit. Multiply and shift: even, and without a division by 0.
        let nanos = (self.jitter.as_nanos() * u128::from(dice)) >> 64;
        Duration::from_nanos(nanos as u64)
    }

    /// A new rate; who waits for the old one does not wait any more.
    pub fn set_rate(&mut self, rate: Option<u64>) {
        self.rate = rate;
        self.free_at = Now::ZERO;
    }

    /// How many bytes go in at once: with a rate about 10 ms of it, so that it flows instead of coming in lumps.
    pub fn piece_bytes(&self, most: usize) -> usize {
        match self.rate {
            None => most,
            Some(rate) => usize::try_from(rate / 100).unwrap_or(most).clamp(1, most),
        }
    }
}

/// The whole line.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    up: Line,
    down: Line,
    /// A connection that has carried so many bytes, both ways together, carries no more.
    pub stall_after: Option<u64>,
}

impl Weather {
    /// One direction.
    pub fn line(&self, direction: Direction) -> &Line {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// One direction, to change it or to use it.
    pub fn line_mut(&mut self, direction: Direction) -> &mut Line {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// Whether a connection can be made: that takes packets both ways.
    pub fn connects(&self) -> bool {
        !self.up.cut && !self.down.cut
    }
}

/// SplitMix64: the next of a row of numbers that one seed makes.
pub fn roll(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delay_is_added_and_jitter_stays_within_its_bounds() {
        let mut line = Line { delay: 2 * MS, jitter: MS, ..Line::default() };
        assert_eq!(line.release(10 * MS, 100, 0), 12 * MS);
        let latest = line.release(10 * MS, 100, u64::MAX);
        assert!(latest < 13 * MS && latest > 13 * MS - Duration::from_micros(1), "{latest:?}");
        assert_eq!(line.release(10 * MS, 100, 1 << 63), 12 * MS + MS / 2);
    }

    #[test]
    fn a_rate_makes_bytes_wait_for_those_before_them() {
        let mut line = Line { rate: Some(1_000_000), ..Line::default() };
        assert_eq!(line.release(10 * MS, 1_000, 0), 11 * MS);
        assert_eq!(line.release(10 * MS, 2_000, 0), 13 * MS);
        // An idle line does not save up.
        assert_eq!(line.release(50 * MS, 1_000, 0), 51 * MS);
        line.set_rate(Some(1_000));
        assert_eq!(line.release(50 * MS, 1, 0), 51 * MS);
        assert_eq!((line.piece_bytes(65_536), Line::default().piece_bytes(65_536)), (10, 65_536));
        line.set_rate(Some(1));
        assert_eq!(line.piece_bytes(65_536), 1);
        assert!(line.release(50 * MS, 1 << 40, 0) > Duration::from_secs(1 << 29));
    }

    #[test]
    fn a_seed_gives_the_same_row_again() {
        let row = |mut state: u64| [(); 4].map(|()| roll(&mut state));
        assert_eq!(row(7), row(7));
        assert_ne!(row(7), row(8));
    }
}
