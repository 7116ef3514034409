//! The check of records that have neither optional fields nor gaps, many at a time: what most producers send, and nothing of it needs a second look.
//!
//! Four entries of 12 bytes are three vectors of four numbers, and the same is done with each number: it is subtracted from what it should be, or may be at most. What a
//! number is (flags and offset delta, time delta, length) depends on its place among the twelve alone, and what makes no sense in its place is not looked at.
//!
//! Invariants: what is split off is exactly what `split_entry` and the checks behind it would have let pass without a look at anything but the entry itself, and its
//! sums are theirs (a property test compares them); no sum wraps, whatever the entries say.
//!
//! Cost: 657 instructions for a batch of 64, with all that `validate_and` looks at besides; one after the other 1,103 (scripts/instructions.sh).
//!
//! Not here: entries with optional fields or gaps (`record.rs`).

use super::layout::{INDEX_ENTRY_BYTES, RECORDS_MAX};
use wide::u32x4;

/// What `split_plain` has taken off an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) records: u32,
    pub(super) values_len: u64,
    /// Of the first one; 0 without any.
    pub(super) first_delta_us: i32,
    /// `i32::MIN` without any.
    pub(super) newest_delta_us: i32,
}

/// Entries that are looked at together, their numbers, and the vectors of those.
const ENTRIES: usize = 4;
const LANES: usize = ENTRIES * INDEX_ENTRY_BYTES / 4;
const BLOCK_BYTES: usize = LANES * 4;
const VECTORS: usize = LANES / 4;
type Numbers = [u32x4; VECTORS];

/// So many blocks are summed up in 32 bits.
const BLOCKS_SUMMED: usize = 16;
/// And none of their lengths is above this, so that the sum of 16 does not wrap. Longer ones are looked at one by one.
const LEN_MAX: u32 = u32::MAX / BLOCKS_SUMMED as u32;

/// The place of each number in its entry.
const FLAGS_AND_DELTA: usize = 0;
const TIME_DELTA: usize = 1;
const VALUE_LEN: usize = 2;

/// Splits off the records at the start of an index that have neither optional fields nor gaps, nor more than so many bytes. `newest_delta_us` is the newest of all time
/// deltas if the batch tells the truth: who is right is seen in fewer steps.
#[inline]
pub(super) fn split_plain(index: &mut &[u8], record_count: u32, value_bytes_max: u32, newest_delta_us: Option<i32>) -> Plain {
    let mut plain = Plain { records: 0, values_len: 0, first_delta_us: 0, newest_delta_us: i32::MIN };
    let (entries, _) = index.as_chunks::<INDEX_ENTRY_BYTES>();
    // Behind them, an offset delta would begin anew.
    let entries = &entries[..entries.len().min(record_count.min(RECORDS_MAX) as usize)];
    if let Some(first) = entries.first() {
        plain.first_delta_us = time_delta_us(first);
    }
    // Below zero, a difference could wrap.
    if let Some(newest_us) = newest_delta_us.filter(|newest_us| *newest_us >= 0) {
        let (blocks, _) = entries.as_flattened().as_chunks::<BLOCK_BYTES>();
        for blocks in blocks.chunks(BLOCKS_SUMMED) {
            if !plain.take_blocks(blocks, value_bytes_max.min(LEN_MAX), newest_us as u32) {
                break;
            }
        }
        plain.newest_delta_us = newest_of(&entries[..plain.records as usize], newest_us);
    }
    plain.take_entries(&entries[plain.records as usize..], value_bytes_max);
    *index = &index[plain.records as usize * INDEX_ENTRY_BYTES..];
    plain
}

#[inline]
fn time_delta_us(entry: &[u8; INDEX_ENTRY_BYTES]) -> i32 {
    i32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]])
}

/// The newest of some time deltas, none of which is above `at_most`: mostly that of the last one.
#[inline]
fn newest_of(entries: &[[u8; INDEX_ENTRY_BYTES]], at_most: i32) -> i32 {
    match entries.last() {
        Some(last) if time_delta_us(last) == at_most => at_most,
        _ => entries.iter().map(time_delta_us).max().unwrap_or(i32::MIN),
    }
}

impl Plain {
    /// Takes all of these, at most `BLOCKS_SUMMED`, or none: false where one of them is not plain, or newer than `newest_us`. Neither that nor `value_bytes_max` is
    /// above `i32::MAX`.
    #[inline]
    fn take_blocks(&mut self, blocks: &[[u8; BLOCK_BYTES]], value_bytes_max: u32, newest_us: u32) -> bool {
        let mut wanted = [0_u32; LANES];
        let mut step = [0_u32; LANES];
        for entry in 0..ENTRIES {
            wanted[entry * 3 + FLAGS_AND_DELTA] = (self.records + entry as u32) << 16;
            step[entry * 3 + FLAGS_AND_DELTA] = (ENTRIES as u32) << 16;
            wanted[entry * 3 + TIME_DELTA] = newest_us;
            wanted[entry * 3 + VALUE_LEN] = value_bytes_max;
        }
        // All bits of what is left up to what is wanted: none at all of the first numbers, and no sign of the others, if none of them is too large. Of a length above
        // `i32::MAX` the difference wraps; it has a sign itself. Of a time below zero it may have one as well: such a batch is looked at one by one.
        let [mut left, mut all, mut sums] = [[u32x4::splat(0); VECTORS]; 3];
        let (mut wanted, step) = (in_vectors(|lane| wanted[lane]), in_vectors(|lane| step[lane]));
        for block in blocks {
            let at = |lane: usize| u32::from_le_bytes([block[lane * 4], block[lane * 4 + 1], block[lane * 4 + 2], block[lane * 4 + 3]]);
            let numbers = in_vectors(at);
            for vector in 0..VECTORS {
                left[vector] |= wanted[vector] - numbers[vector];
                all[vector] |= numbers[vector];
                sums[vector] += numbers[vector];
                wanted[vector] += step[vector];
            }
        }
        let (left, all, sums) = (in_lanes(left), in_lanes(all), in_lanes(sums));
        let of = |place: usize| (0..ENTRIES).map(move |entry| entry * 3 + place);
        let unlike = of(FLAGS_AND_DELTA).fold(0, |unlike, lane| unlike | left[lane]);
        let signs = of(TIME_DELTA).chain(of(VALUE_LEN)).fold(0, |signs, lane| signs | left[lane] | all[lane]);
        if unlike != 0 || signs > i32::MAX as u32 {
            return false;
        }
        self.values_len += of(VALUE_LEN).map(|lane| u64::from(sums[lane])).sum::<u64>();
        self.records += (blocks.len() * ENTRIES) as u32;
        true
    }

    /// Takes them one by one, up to one that is not plain.
    #[inline]
    fn take_entries(&mut self, entries: &[[u8; INDEX_ENTRY_BYTES]], value_bytes_max: u32) {
        for entry in entries {
            let flags_and_delta = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let value_len = u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]);
            if flags_and_delta != self.records << 16 || value_len > value_bytes_max {
                break;
            }
            self.newest_delta_us = self.newest_delta_us.max(time_delta_us(entry));
            self.values_len += u64::from(value_len);
            self.records += 1;
        }
    }
}

#[inline(always)]
fn in_vectors(number: impl Fn(usize) -> u32) -> Numbers {
    std::array::from_fn(|vector| u32x4::new([number(vector * 4), number(vector * 4 + 1), number(vector * 4 + 2), number(vector * 4 + 3)]))
}

#[inline(always)]
fn in_lanes(vectors: Numbers) -> [u32; LANES] {
    let lanes = vectors.map(u32x4::to_array);
    std::array::from_fn(|lane| lanes[lane / 4][lane % 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Word for word what is wanted, an entry at a time.
    fn one_by_one(index: &[u8], record_count: u32, value_bytes_max: u32) -> Plain {
        let mut plain = Plain { records: 0, values_len: 0, first_delta_us: 0, newest_delta_us: i32::MIN };
        for (at, entry) in index.chunks_exact(INDEX_ENTRY_BYTES).take(record_count.min(RECORDS_MAX) as usize).enumerate() {
            let number = |from: usize| u32::from_le_bytes(entry[from..from + 4].try_into().expect("four bytes"));
            if at == 0 {
                plain.first_delta_us = number(4) as i32;
            }
            if u64::from(number(0)) != (at as u64) << 16 || number(8) > value_bytes_max {
                break;
            }
            plain.newest_delta_us = plain.newest_delta_us.max(number(4) as i32);
            plain.values_len += u64::from(number(8));
            plain.records += 1;
        }
        plain
    }

    fn entry(flags_and_delta: u32, time_delta: i32, value_len: u32) -> [u8; INDEX_ENTRY_BYTES] {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        bytes[..4].copy_from_slice(&flags_and_delta.to_le_bytes());
        bytes[4..8].copy_from_slice(&time_delta.to_le_bytes());
        bytes[8..].copy_from_slice(&value_len.to_le_bytes());
        bytes
    }

    fn check(index: &[u8], record_count: u32, value_bytes_max: u32) {
        let wanted = one_by_one(index, record_count, value_bytes_max);
        // Whatever the batch says of its newest record.
        for said in [None, Some(wanted.newest_delta_us), Some(wanted.newest_delta_us.wrapping_sub(1)), Some(i32::MAX), Some(0), Some(-1)] {
            let mut rest = index;
            assert_eq!(split_plain(&mut rest, record_count, value_bytes_max, said), wanted, "said {said:?}");
            assert_eq!(rest, &index[wanted.records as usize * INDEX_ENTRY_BYTES..]);
        }
    }

    proptest! {
        #[test]
        fn many_at_a_time_are_what_one_by_one_would_be(
            records in vec((prop_oneof![6 => 0_i32..5_000, 1 => any::<i32>()], prop_oneof![40 => 0_u32..2_000, 1 => any::<u32>()]), 0..300),
            broken in proptest::option::of((0_usize..300, 0_u32..32)),
            less in 0_u32..3, cut in 0_usize..13,
            max in prop_oneof![Just(1_000_u32), Just(u32::MAX), any::<u32>()],
        ) {
            let entries = records.iter().enumerate().map(|(at, (time, len))| {
                let bit = broken.filter(|(which, _)| *which == at).map_or(0, |(_, bit)| 1 << bit);
                entry((at as u32) << 16 ^ bit, *time, *len)
            });
            let index: Vec<u8> = entries.flatten().collect();
            let index = &index[..index.len().saturating_sub(cut)];
            check(index, (records.len() as u32).saturating_sub(less), max);
        }
    }

    #[test]
    fn nothing_wraps() {
        for len in [u32::MAX, u32::MAX - 1, LEN_MAX, LEN_MAX + 1] {
            let index: Vec<u8> = (0..200).flat_map(|at| entry(at << 16, i32::MIN, len)).collect();
            check(&index, 200, u32::MAX);
            check(&index, 200, len - 1);
        }
        // All deltas there are, and more, which would look like the first ones.
        let index: Vec<u8> = (0..65_544_u32).flat_map(|at| entry(at << 16, 7, 1)).collect();
        for count in [RECORDS_MAX, 65_536, 65_537, 65_544] {
            check(&index[..count as usize * INDEX_ENTRY_BYTES], count, 10);
        }
    }
}
