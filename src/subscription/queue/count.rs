//! Numbers of a part that cost the same however many messages it has.
//!
//! Not here: the counts themselves (`part.rs`).

use super::part::Part;

/// Bytes of a cell with its share of what holds it, as measured in `cells.rs` (34 where they lie close, 43 where nine of ten are gone), and of the note
/// of when it is due.
const CELL_BYTES: u64 = 44 + 24;
/// Bytes of a message's failed deliveries, three of them with short texts.
const HISTORY_BYTES: u64 = 320;

impl Part {
    /// Bytes of memory, by the counts alone: within half and twice of `memory_bytes`, unless consumers give long reasons.
    pub fn memory_bytes_about(&self) -> u64 {
        let cells = self.open_count() - self.fresh.len();
        let keys = (self.ready.len() + self.dead.len() + self.expires_us.len()) as u64;
        cells * CELL_BYTES
            + self.fresh.memory_bytes() as u64
            + keys * 28
            + self.dedup.len() as u64 * 160
            + self.histories.len() as u64 * HISTORY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::{Kind, QueueNote, Why};
    use super::*;
    use crate::effects::Now;

    #[test]
    fn what_the_counts_say_is_about_what_is_allocated() {
        let now = Now { mono_us: 1_000_000, utc_us: 1_800_000_000_000_000 };
        for (leased, nacked) in [(100_000, 0), (30_000, 10_000)] {
            let mut part = Part::default();
            part.apply(Some(now), &QueueNote { at_us: i64::MIN, ..QueueNote::new(Kind::Begin, 0) });
            part.apply(None, &QueueNote { number: 1, at_us: i64::MIN, ..QueueNote::new(Kind::Looked, 200_000) });
            part.apply(None, &QueueNote { number: 200_000, ..QueueNote::new(Kind::Fresh, 0) });
            for offset in 0..leased {
                let lease =
                    QueueNote { deliveries: 1, number: 1, ms: 30_000, text: (*b"w").into(), ..QueueNote::new(Kind::Lease, offset * 2) };
                part.apply(Some(now), &lease);
            }
            for offset in 0..nacked {
                let why = Why::Nacked;
                let (mut text, mut more): (Box<[u8]>, Box<[u8]>) = ((*b"w").into(), (*b"no disk").into());
                let at_us = now.utc_us;
                for deliveries in 1..4 {
                    let wait = QueueNote { why, deliveries, text, more, at_us, ..QueueNote::new(Kind::Wait, offset * 2) };
                    part.apply(Some(now), &wait);
                    (text, more) = (wait.text, wait.more);
                }
            }
            let (about, exact) = (part.memory_bytes_about(), part.memory_bytes() as u64);
            assert!((exact / 2..exact * 2).contains(&about), "{about} instead of {exact}");
        }
    }
}
