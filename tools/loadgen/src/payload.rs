//! The stamp at the head of every value, by which the reading side knows what it reads, and what stands behind it.
//!
//! ```text
//!  0 magic "TLG2"     4 stream u32        partition index, or key number when the flag KEYED is set
//!  8 run u64          tells runs (one per producer) apart that share a topic
//! 16 sequence u64     of the run and stream, from 0, without gaps
//! 24 intended i64     UTC nanoseconds at which the record was due
//! 32 length u32       of the whole value
//! 36 flags u32        1 KEYED
//! 40 reserved u32     zero
//! 44 check u32        crc32c of everything behind the stamp, then of bytes 0..44
//! ```
//! Invariants: little-endian; any changed bit of the value is found (crc32c over all of it). The rest comes first in the
//! checksum's order, because it was made before the run: its part is looked up, and a record costs 44 bytes of crc32c (some 5 ns)
//! instead of a combination of two checksums (1 to 2 us in "TLG1", whose values are foreign here).
//! Not here: what the numbers mean over time (`check.rs`), lines of a file behind the stamp (`lines.rs`).

use crate::random::Random;
use std::ops::RangeInclusive;

/// Bytes of the stamp, the smallest value there can be.
pub const STAMP_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"TLG2";
const FLAG_KEYED: u32 = 1;
const AT_CHECK: usize = 44;

/// What a value says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Partition index, or number of the key.
    pub stream: u32,
    /// Whether `stream` is a key.
    pub keyed: bool,
    /// Which run wrote it.
    pub run: u64,
    /// Place in its stream.
    pub sequence: u64,
    /// When it was due, UTC nanoseconds.
    pub intended_utc_ns: i64,
}

/// Why a value is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not from a load generator: too short or another beginning.
    Foreign,
    /// From a load generator, but its length, flags or checksum do not agree with its bytes.
    Changed,
}

/// Writes the stamp at the head of `value`; `rest_crc` is the crc32c of everything behind it.
#[inline]
pub fn put_stamp(value: &mut [u8], stamp: &Stamp, rest_crc: u32) {
    let length = value.len() as u32;
    let (head, _) = value.split_first_chunk_mut::<STAMP_BYTES>().expect("no value is shorter than its stamp");
    head[0..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&stamp.stream.to_le_bytes());
    head[8..16].copy_from_slice(&stamp.run.to_le_bytes());
    head[16..24].copy_from_slice(&stamp.sequence.to_le_bytes());
    head[24..32].copy_from_slice(&stamp.intended_utc_ns.to_le_bytes());
    head[32..36].copy_from_slice(&length.to_le_bytes());
    head[36..40].copy_from_slice(&(if stamp.keyed { FLAG_KEYED } else { 0 }).to_le_bytes());
    head[40..AT_CHECK].copy_from_slice(&[0; 4]);
    let check = crc32c::crc32c_append(rest_crc, &head[..AT_CHECK]);
    head[AT_CHECK..].copy_from_slice(&check.to_le_bytes());
}

/// Checksums of the rests' beginnings are kept this many bytes apart: what is left is 7 words, some 5 ns, and the table is a sixteenth
/// of the bytes.
const CRC_STEP_BYTES: usize = 64;

/// Makes values of sizes in a range. What stands behind the stamps is made once: several rests, used in turn, so many that no batch has
/// the same one twice (it would compress to nothing) and few enough to stay in the processor's second cache (128 KiB by default).
pub struct Maker {
    /// The values, each with room for its stamp, one behind the other.
    values: Vec<u8>,
    /// Bytes of the largest value, and so from one value to the next.
    size_max: usize,
    /// Of each value: crc32c of its rest's first 0, 64, 128, ... bytes.
    crcs: Vec<u32>,
    /// Of each value: crc32c of the whole rest.
    whole_crcs: Vec<u32>,
    /// Which one is next.
    turn: usize,
}

impl Maker {
    /// Values of `sizes` bytes, filled from `seed`; of 100 bytes behind the stamp some `compressible` x 100 are the same byte.
    /// Two batches of `batch_bytes` have no rest in common.
    pub fn new(sizes: RangeInclusive<usize>, compressible: f64, batch_bytes: usize, seed: u64) -> Maker {
        let size_max = *sizes.end();
        assert!(*sizes.start() >= STAMP_BYTES && size_max >= *sizes.start(), "checked when the options were read");
        // An odd number, so that records that go to 2, 4, 8, ... partitions in turn meet all of them on each.
        let count = (2 * batch_bytes / size_max) | 1;
        let mut values = vec![0u8; size_max * count];
        let mut random = Random::new(seed);
        let (mut crcs, mut whole_crcs) = (Vec::new(), Vec::with_capacity(count));
        for value in values.chunks_exact_mut(size_max) {
            let rest = &mut value[STAMP_BYTES..];
            fill(rest, compressible, &mut random);
            let mut crc = 0;
            for step in rest.chunks(CRC_STEP_BYTES) {
                crcs.push(crc);
                crc = crc32c::crc32c_append(crc, step);
            }
            if rest.len().is_multiple_of(CRC_STEP_BYTES) {
                crcs.push(crc);
            }
            whole_crcs.push(crc);
        }
        Maker { values, size_max, crcs, whole_crcs, turn: 0 }
    }

    /// The value of `size` bytes with this stamp, valid until the next call.
    #[inline]
    pub fn make(&mut self, stamp: &Stamp, size: usize) -> &[u8] {
        let at = self.turn;
        self.turn = if at + 1 == self.whole_crcs.len() { 0 } else { at + 1 };
        let first = at * self.size_max;
        let value = &mut self.values[first..first + size];
        let crc = if size == self.size_max {
            self.whole_crcs[at]
        } else {
            let rest = &value[STAMP_BYTES..];
            let steps = rest.len() / CRC_STEP_BYTES;
            let per_value = (self.size_max - STAMP_BYTES) / CRC_STEP_BYTES + 1;
            crc32c::crc32c_append(self.crcs[at * per_value + steps], &rest[steps * CRC_STEP_BYTES..])
        };
        put_stamp(value, stamp, crc);
        value
    }
}

/// Reads and checks a value.
pub fn read(value: &[u8]) -> Result<Stamp, Unreadable> {
    let Some((head, rest)) = value.split_first_chunk::<STAMP_BYTES>() else { return Err(Unreadable::Foreign) };
    if head[0..4] != MAGIC {
        return Err(Unreadable::Foreign);
    }
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let flags = u32_at(36);
    let check = crc32c::crc32c_append(crc32c::crc32c(rest), &head[..AT_CHECK]);
    if check != u32_at(AT_CHECK) || u32_at(32) as usize != value.len() || flags & !FLAG_KEYED != 0 || u32_at(40) != 0 {
        return Err(Unreadable::Changed);
    }
    Ok(Stamp {
        stream: u32_at(4),
        keyed: flags & FLAG_KEYED != 0,
        run: u64_at(8),
        sequence: u64_at(16),
        intended_utc_ns: u64_at(24) as i64,
    })
}

/// Fills with groups of 32 bytes of which the share `compressible` is the same byte and the rest random.
fn fill(bytes: &mut [u8], compressible: f64, random: &mut Random) {
    let mut wanted = 0.0;
    let mut done = 0usize;
    for group in bytes.chunks_mut(32) {
        // The share of all bytes until here, so that a share that is no part of 32 comes out over several groups.
        wanted += group.len() as f64 * compressible;
        let same = (wanted.round() as usize).saturating_sub(done).min(group.len());
        done += same;
        let noise = group.len() - same;
        for word in group[..noise].chunks_mut(8) {
            let drawn = random.next_u64().to_le_bytes();
            word.copy_from_slice(&drawn[..word.len()]);
        }
        group[noise..].fill(b'.');
    }
}

/// The key of a number: twelve bytes of text, so that it can be read in other tools.
pub fn key_text(number: u32) -> [u8; 12] {
    let mut key = *b"k00000000000";
    let mut rest = number;
    for place in (1..12).rev() {
        key[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use std::io::Write;

    const STAMP: Stamp = Stamp { stream: 7, keyed: true, run: 0x1234_5678_9abc_def0, sequence: u64::MAX - 1, intended_utc_ns: -5 };

    fn one(size: usize, seed: u64) -> Vec<u8> {
        Maker::new(size..=size, 0.5, 65_536, seed).make(&STAMP, size).to_vec()
    }

    #[test]
    fn a_value_read_back_is_the_one_that_was_made() {
        for size in [STAMP_BYTES, STAMP_BYTES + 1, 100, STAMP_BYTES + 64, 1000, 70_000] {
            let mut maker = Maker::new(size..=size, 0.5, 4096, 42);
            for keyed in [true, false, true, false] {
                let stamp = Stamp { keyed, ..STAMP };
                let value = maker.make(&stamp, size);
                assert_eq!((value.len(), read(value)), (size, Ok(stamp)), "{size}");
            }
        }
    }

    #[test]
    fn values_of_every_size_of_a_range_are_read_back() {
        for max in [300, STAMP_BYTES + 128] {
            let mut maker = Maker::new(STAMP_BYTES..=max, 0.5, 4096, 42);
            for size in (STAMP_BYTES..=max).chain((STAMP_BYTES..=max).rev()) {
                let value = maker.make(&STAMP, size);
                assert_eq!((value.len(), read(value)), (size, Ok(STAMP)), "{size} of {max}");
            }
        }
    }

    #[test]
    fn each_flipped_bit_is_found() {
        let value = one(80, 1);
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 32 { Unreadable::Foreign } else { Unreadable::Changed };
            assert_eq!(read(&changed), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn cut_and_foreign_values_are_told_apart() {
        let value = one(100, 1);
        assert_eq!(read(&value[..99]), Err(Unreadable::Changed));
        assert_eq!(read(&value[..47]), Err(Unreadable::Foreign));
        assert_eq!(read(b""), Err(Unreadable::Foreign));
        assert_eq!(read(&[b'x'; 1000]), Err(Unreadable::Foreign));
    }

    #[test]
    fn the_filling_repeats_per_seed_and_is_not_constant() {
        assert_eq!(one(1000, 1), one(1000, 1));
        assert_ne!(one(1000, 2)[STAMP_BYTES..], one(1000, 4)[STAMP_BYTES..]);
        let distinct = one(1000, 1).iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct > 100, "{distinct}");
    }

    /// What is left of a batch of 64 KiB after compression, as a share of it, stamps not counted.
    fn compressed(size: usize, compressible: f64, each: usize) -> f64 {
        let mut maker = Maker::new(size..=size, compressible, 65_536, 9);
        let mut batch = Vec::new();
        for number in 0..65_536 / size * each {
            let value = maker.make(&STAMP, size);
            if number.is_multiple_of(each) {
                batch.extend_from_slice(&value[STAMP_BYTES..]);
            }
        }
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&batch).unwrap();
        encoder.finish().unwrap().len() as f64 / batch.len() as f64
    }

    #[test]
    fn the_compressible_share_is_what_a_codec_makes_of_a_batch() {
        // `each` records of which one goes to this batch: partitions in turn.
        for each in [1, 2, 16] {
            for (compressible, least, most) in
                [(0.0, 0.99, 1.01), (0.3, 0.68, 0.78), (0.5, 0.48, 0.58), (0.9, 0.08, 0.18), (1.0, 0.0, 0.02)]
            {
                let left = compressed(500, compressible, each);
                assert!((least..most).contains(&left), "{compressible} of one in {each}: {left}");
            }
        }
    }

    #[test]
    fn keys_are_readable_and_differ() {
        assert_eq!(&key_text(0), b"k00000000000");
        assert_eq!(&key_text(10_000_000), b"k00010000000");
        assert_eq!(&key_text(u32::MAX), b"k04294967295");
    }
}
