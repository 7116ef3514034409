//! Deadlines of messages, in ticks: what is due comes out once its tick has passed, never early.
//!
//! A deadline that is not wanted any more stays until its tick: whoever takes it looks whether it still counts. Messages that follow one another and
//! are due together take 16 bytes, whatever their number.
//!
//! Not here: what becomes of them (`part.rs`).

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    count: u32,
}

/// Deadlines by tick.
#[derive(Debug)]
pub struct Due {
    tick_us: u64,
    by_tick: BTreeMap<u64, Vec<Span>>,
    spans: usize,
}

impl Due {
    /// None yet; all of them rounded up to whole ticks.
    pub fn new(tick_us: u64) -> Due {
        Due { tick_us, by_tick: BTreeMap::new(), spans: 0 }
    }

    /// `count` messages from `first` on are due at `at_us`.
    pub fn push(&mut self, at_us: u64, first: u64, count: u32) {
        let spans = self.by_tick.entry(at_us.div_ceil(self.tick_us)).or_default();
        match spans.last_mut().filter(|last| last.first + u64::from(last.count) == first) {
            Some(last) if last.count.checked_add(count).is_some() => last.count += count,
            _ => {
                if spans.len() == spans.capacity() {
                    // A quarter more, not twice as much: these are most of what a leased message takes beside its cell.
                    spans.reserve_exact((spans.len() / 4).max(1));
                }
                spans.push(Span { first, count });
                self.spans += 1;
            }
        }
    }

    /// Drops the first tick; `None` without any.
    pub fn pop_first(&mut self) -> Option<()> {
        self.by_tick.pop_first().map(|(_, spans)| self.spans -= spans.len())
    }

    /// When the next tick with something in it has passed; `u64::MAX` without any.
    pub fn next_us(&self) -> u64 {
        self.by_tick.first_key_value().map_or(u64::MAX, |(tick, _)| tick.saturating_mul(self.tick_us))
    }

    /// Puts up to `max` messages that are due behind `out`.
    pub fn take(&mut self, now_us: u64, max: usize, out: &mut Vec<u64>) {
        let mut left = max as u64;
        while left > 0
            && let Some(mut entry) = self.by_tick.first_entry().filter(|entry| entry.key().saturating_mul(self.tick_us) <= now_us)
        {
            let spans = entry.get_mut();
            while let Some(span) = spans.last_mut().filter(|_| left > 0) {
                let taken = left.min(u64::from(span.count));
                out.extend(span.first..span.first + taken);
                left -= taken;
                (span.first, span.count) = (span.first + taken, span.count - taken as u32);
                if span.count == 0 {
                    spans.pop();
                    self.spans -= 1;
                }
            }
            if spans.is_empty() {
                entry.remove();
            }
        }
    }

    /// Bytes of memory, by the sizes of what is allocated.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        self.by_tick.values().map(|spans| spans.capacity() * size_of::<Span>() + 48).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_early_and_all_of_it_once() {
        let mut due = Due::new(1000);
        due.push(5_000, 10, 3);
        due.push(5_001, 20, 1);
        due.push(4_001, 13, 2);
        assert_eq!(due.next_us(), 5_000);
        let mut out = Vec::new();
        due.take(4_999, 100, &mut out);
        assert!(out.is_empty());
        due.take(5_000, 2, &mut out);
        due.take(5_000, 100, &mut out);
        out.sort_unstable();
        assert_eq!(out, [10, 11, 12, 13, 14], "one span: they follow one another and share a tick");
        assert_eq!(due.next_us(), 6_000);
        due.take(5_999, 100, &mut out);
        assert_eq!(out.len(), 5);
        due.take(6_000, 100, &mut out);
        assert_eq!((out.last(), due.next_us(), due.spans), (Some(&20), u64::MAX, 0));
    }
}
