//! The stamp at the head of every value, by which the reading side knows what it reads.
//!
//! ```text
//!  0 magic "TLG1"     4 stream u32        partition index, or key number when the flag KEYED is set
//!  8 run u64          tells runs apart that share a topic
//! 16 sequence u64     of the run and stream, from 0, without gaps
//! 24 intended i64     UTC nanoseconds at which the record was due
//! 32 length u32       of the whole value
//! 36 flags u32        1 KEYED
//! 40 reserved u32     zero
//! 44 check u32        crc32c of bytes 0..44 and of everything behind the stamp
//! ```
//! Invariants: little-endian; any changed bit of the value is found (crc32c over all of it). The rest is filled once per run
//! with bytes that compress about two to one, because constant bytes would make every codec look perfect.
//! Not here: what the numbers mean over time (`check.rs`).

/// Bytes of the stamp, the smallest value there can be.
pub const STAMP_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"TLG1";
const FLAG_KEYED: u32 = 1;

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

/// Makes values of one size; the part behind the stamp stays the same, and its checksum is computed once.
pub struct Maker {
    value: Vec<u8>,
    /// crc32c of the bytes behind the stamp.
    rest_crc: u32,
}

impl Maker {
    /// Values of `size` bytes, filled from `seed`.
    pub fn new(size: usize, seed: u64) -> Maker {
        assert!(size >= STAMP_BYTES, "checked when the options were read");
        let mut value = vec![0u8; size];
        fill(&mut value[STAMP_BYTES..], seed);
        let rest_crc = crc32c::crc32c(&value[STAMP_BYTES..]);
        Maker { value, rest_crc }
    }

    /// The value with this stamp, valid until the next call.
    pub fn make(&mut self, stamp: &Stamp) -> &[u8] {
        let rest = self.value.len() - STAMP_BYTES;
        let head = &mut self.value[..STAMP_BYTES];
        head[0..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&stamp.stream.to_le_bytes());
        head[8..16].copy_from_slice(&stamp.run.to_le_bytes());
        head[16..24].copy_from_slice(&stamp.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&stamp.intended_utc_ns.to_le_bytes());
        head[32..36].copy_from_slice(&((STAMP_BYTES + rest) as u32).to_le_bytes());
        head[36..40].copy_from_slice(&(if stamp.keyed { FLAG_KEYED } else { 0 }).to_le_bytes());
        head[40..44].copy_from_slice(&[0; 4]);
        let check = crc32c::crc32c_combine(crc32c::crc32c(&head[..44]), self.rest_crc, rest);
        head[44..48].copy_from_slice(&check.to_le_bytes());
        &self.value
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
    let check = crc32c::crc32c_append(crc32c::crc32c(&head[..44]), rest);
    if check != u32_at(44) || u32_at(32) as usize != value.len() || flags & !FLAG_KEYED != 0 || u32_at(40) != 0 {
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

/// Fills with 16-byte groups of which half repeat: a fixed pattern from `seed` (xorshift64*), the same for the same seed.
fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for group in bytes.chunks_mut(16) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        let half = group.len().min(8);
        group[..half].copy_from_slice(&word[..half]);
        group[half..].fill(b'.');
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

    const STAMP: Stamp = Stamp { stream: 7, keyed: true, run: 0x1234_5678_9abc_def0, sequence: u64::MAX - 1, intended_utc_ns: -5 };

    #[test]
    fn a_value_read_back_is_the_one_that_was_made() {
        for size in [STAMP_BYTES, STAMP_BYTES + 1, 100, 1000, 70_000] {
            let mut maker = Maker::new(size, 42);
            for keyed in [true, false] {
                let stamp = Stamp { keyed, ..STAMP };
                let value = maker.make(&stamp);
                assert_eq!((value.len(), read(value)), (size, Ok(stamp)), "{size}");
            }
        }
    }

    #[test]
    fn each_flipped_bit_is_found() {
        let value = Maker::new(80, 1).make(&STAMP).to_vec();
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 32 { Unreadable::Foreign } else { Unreadable::Changed };
            assert_eq!(read(&changed), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn cut_and_foreign_values_are_told_apart() {
        let value = Maker::new(100, 1).make(&STAMP).to_vec();
        assert_eq!(read(&value[..99]), Err(Unreadable::Changed));
        assert_eq!(read(&value[..47]), Err(Unreadable::Foreign));
        assert_eq!(read(b""), Err(Unreadable::Foreign));
        assert_eq!(read(&[b'x'; 1000]), Err(Unreadable::Foreign));
    }

    #[test]
    fn the_filling_repeats_per_seed_and_is_not_constant() {
        let make = |seed| Maker::new(1000, seed).make(&STAMP)[STAMP_BYTES..].to_vec();
        assert_eq!(make(1), make(1));
        assert_ne!(make(2), make(4));
        let distinct = make(1).iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct > 100, "{distinct}");
    }

    #[test]
    fn keys_are_readable_and_differ() {
        assert_eq!(&key_text(0), b"k00000000000");
        assert_eq!(&key_text(10_000_000), b"k00010000000");
        assert_eq!(&key_text(u32::MAX), b"k04294967295");
    }
}
