//! Which partition a record goes to.
//!
//! The keyed choice is part of the contract with every other client: the same key lands in the same partition whoever
//! sends it. It is FNV-1a with 64 bits over the key's bytes, folded to spread the high half into the low one
//! (`h ^ (h >> 32)`), modulo the number of partitions. FNV-1a, because any language writes it in four lines and keys
//! are short (about 1 ns per byte); folded, because its low bits alone are the weaker ones.
//!
//! Adding partitions to a topic moves keys to other partitions: order per key holds only while their number stays.
//!
//! Not here: the choice for records without a key (sticky per batch), which needs to know when a batch closed and
//! therefore lives in `core::producer`.

/// How a [`Producer`](crate::Producer) chooses the partition of a record that names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partitioner {
    /// By the hash (see [`key_partition`]) of the key, else of the message group, else of the message id; a record without any goes to the sticky partition: the same one until
    /// its batch closes, then the next. The default.
    #[default]
    Hash,
    /// Each record to the next partition in turn, whatever its key. Small batches: for spreading work, not for throughput.
    RoundRobin,
    /// The sticky partition for all records, whatever their key.
    Sticky,
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits, not folded.
#[inline]
pub fn fnv1a_64(bytes: &[u8]) -> u64 {
    let mut hash = FNV_OFFSET;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash
}

/// The partition of a key in a topic of `partitions` partitions.
///
/// ```
/// use tramline_client::key_partition;
/// assert_eq!(key_partition(b"N14228", 16), key_partition(b"N14228", 16));
/// assert_eq!(key_partition(b"", 16), 1); // an empty key is a key
/// ```
///
/// # Panics
/// When `partitions` is 0: no topic has none.
#[inline]
pub fn key_partition(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    let hash = fnv1a_64(key);
    let folded = hash ^ (hash >> 32);
    (folded % u64::from(partitions)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Vectors of the FNV authors' test suite.
        assert_eq!(fnv1a_64(b""), 0xcbf29ce484222325);
        assert_eq!(fnv1a_64(b"a"), 0xaf63dc4c8601ec8c);
        assert_eq!(fnv1a_64(b"foobar"), 0x85944171f73967e8);
    }

    #[test]
    fn the_partition_of_a_key_is_pinned() {
        // Those over 16 and 7 are the vectors of docs/PROTOCOL.md: other clients must agree.
        let all_bytes: Vec<u8> = (0..=255).collect();
        let vectors: [(&[u8], u32, u32); 13] = [
            (b"", 16, 1),
            (b"", 7, 6),
            (b"a", 16, 0),
            (b"a", 7, 1),
            (b"N14228", 16, 15),
            (b"N14228", 7, 5),
            (b"flights", 16, 1),
            (b"flights", 7, 1),
            ("žluť".as_bytes(), 16, 8),
            ("žluť".as_bytes(), 7, 4),
            ("größe".as_bytes(), 1000, 772),
            (&all_bytes, 4096, 2679),
            (b"N668DN", 1, 0),
        ];
        for (key, partitions, expected) in vectors {
            assert_eq!(key_partition(key, partitions), expected, "{key:?} over {partitions}");
        }
    }

    #[test]
    fn sequential_keys_spread_evenly() {
        let mut counts = [0u32; 16];
        for number in 0..16_000 {
            counts[key_partition(format!("N{number:05}").as_bytes(), 16) as usize] += 1;
        }
        for count in counts {
            assert!((850..1150).contains(&count), "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn a_partition_is_always_in_range(key in proptest::collection::vec(any::<u8>(), 0..64), partitions in 1u32..20_000) {
            prop_assert!(key_partition(&key, partitions) < partitions);
        }
    }
}
