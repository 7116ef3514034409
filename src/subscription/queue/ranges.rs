//! A set of offsets as ranges.
//!
//! Invariants: ranges are not empty, do not overlap and do not touch; `len` is the number of offsets in them.
//!
//! Not here: what it means to be in it (`part.rs`).

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    /// Number of offsets.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first range.
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.first_key_value().map(|(start, end)| *start..*end)
    }

    /// Takes the first range out.
    pub fn pop_first(&mut self) -> Option<Range<u64>> {
        let (start, end) = self.ranges.pop_first()?;
        self.len -= end - start;
        Some(start..end)
    }

    /// Whether `offset` is in it.
    pub fn contains(&self, offset: u64) -> bool {
        self.ranges.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    /// The ranges that hold something at or above `offset`, the first one cut to it.
    pub fn iter_from(&self, offset: u64) -> impl Iterator<Item = Range<u64>> {
        let first = self.ranges.range(..=offset).next_back().filter(|(_, end)| **end > offset).map_or(offset, |(start, _)| *start);
        self.ranges.range(first..).map(move |(start, end)| offset.max(*start)..*end)
    }

    /// Puts `wanted` in. What is in already stays in.
    pub fn insert(&mut self, wanted: Range<u64>) {
        if wanted.is_empty() {
            return;
        }
        if let Some(mut last) = self.ranges.last_entry()
            && *last.get() == wanted.start
        {
            *last.get_mut() = wanted.end;
            self.len += wanted.end - wanted.start;
            return;
        }
        let (mut start, mut end) = (wanted.start, wanted.end);
        while let Some((known_start, known_end)) = self.ranges.range(..=end).next_back().map(|(start, end)| (*start, *end))
            && known_end >= start
        {
            self.ranges.remove(&known_start);
            self.len -= known_end - known_start;
            (start, end) = (start.min(known_start), end.max(known_end));
        }
        self.ranges.insert(start, end);
        self.len += end - start;
    }

    /// Takes `unwanted` out; answers how many offsets of it were in.
    pub fn remove(&mut self, unwanted: Range<u64>) -> u64 {
        let before = self.len;
        if unwanted.is_empty() {
            return 0;
        }
        while let Some((start, end)) = self.ranges.range(..unwanted.end).next_back().map(|(start, end)| (*start, *end))
            && end > unwanted.start
        {
            self.ranges.remove(&start);
            self.len -= end - start;
            if end > unwanted.end {
                self.ranges.insert(unwanted.end, end);
                self.len += end - unwanted.end;
            }
            if start < unwanted.start {
                self.ranges.insert(start, unwanted.start);
                self.len += unwanted.start - start;
                break;
            }
        }
        before - self.len
    }

    /// Bytes of memory, by the sizes of what is kept.
    pub fn memory_bytes(&self) -> usize {
        self.ranges.len() * 24
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_a_set() {
        let mut state = 11_u64;
        let mut dice = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut ranges, mut model) = (Ranges::default(), [false; 200]);
        for _ in 0..20_000 {
            let start = dice(200);
            let end = (start + dice(20)).min(200);
            let is_in = dice(2) == 0;
            if is_in {
                ranges.insert(start..end);
            } else {
                let known = model[start as usize..end as usize].iter().filter(|is_in| **is_in).count() as u64;
                assert_eq!(ranges.remove(start..end), known);
            }
            model[start as usize..end as usize].fill(is_in);
            assert_eq!(ranges.len(), model.iter().filter(|is_in| **is_in).count() as u64);
            let at = dice(200);
            assert_eq!(ranges.contains(at), model[at as usize]);
            let seen: Vec<u64> = ranges.iter_from(at).flatten().collect();
            assert_eq!(seen, (at..200).filter(|offset| model[*offset as usize]).collect::<Vec<_>>());
            let list: Vec<_> = ranges.iter_from(0).collect();
            assert!(list.iter().all(|range| !range.is_empty()) && list.is_sorted_by(|a, b| a.end < b.start));
        }
    }
}
