//! Records: a number, the moment when it was due, and bytes that do not compress, the same for the same seed.

/// Where the bytes begin that are only there to be carried.
const HEAD_BYTES: usize = 16;

/// One record's bytes, used again and again.
pub struct Payload(Vec<u8>);

impl Payload {
    /// Of `record_bytes`, at least as many as the head has.
    pub fn new(record_bytes: usize, seed: u64) -> Payload {
        let mut state = seed;
        let mut bytes = vec![0; record_bytes.max(HEAD_BYTES)];
        for byte in &mut bytes[HEAD_BYTES..] {
            // SplitMix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (mixed ^ (mixed >> 31)) as u8;
        }
        Payload(bytes)
    }

    /// With this number and time in nanoseconds.
    pub fn stamped(&mut self, tag: u64, due_ns: u64) -> &[u8] {
        self.0[..8].copy_from_slice(&tag.to_le_bytes());
        self.0[8..16].copy_from_slice(&due_ns.to_le_bytes());
        &self.0
    }

    /// Number and time of a record, if it is one that this payload was the source of.
    pub fn read(&self, record: &[u8]) -> Option<(u64, u64)> {
        if record.len() != self.0.len() || record[HEAD_BYTES..] != self.0[HEAD_BYTES..] {
            return None;
        }
        let number = |at: usize| record[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        Some((number(0)?, number(8)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stamped_is_read_back_and_damage_is_seen() {
        let mut payload = Payload::new(1024, 7);
        let record = payload.stamped(41, 99_000).to_vec();
        assert_eq!((record.len(), payload.read(&record)), (1024, Some((41, 99_000))));
        let mut damaged = record.clone();
        damaged[1000] ^= 1;
        assert_eq!(payload.read(&damaged), None);
        assert_eq!(payload.read(&record[..1023]), None);
        assert_ne!(Payload::new(1024, 8).stamped(41, 99_000), record, "another seed, other bytes");
    }

    #[test]
    fn it_does_not_compress() {
        let record = Payload::new(4096, 1).stamped(0, 0).to_vec();
        let mut counts = [0u32; 256];
        record.iter().for_each(|byte| counts[*byte as usize] += 1);
        assert!(counts[1..].iter().all(|count| *count < 64), "bytes are spread evenly");
    }
}
