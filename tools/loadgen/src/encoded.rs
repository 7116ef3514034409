//! A histogram as text: HdrHistogram's V2 form, compressed, in base64; the very string that stands in an interval log.
//!
//! Invariants: what is decoded equals what was encoded, bucket by bucket, so reports can be merged and compared later; a text that was
//! changed is refused by the checksum of its compression, and no length that it claims is believed before the bytes are there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use std::io::Read as _;

/// Writes a histogram as text.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("memory takes all, and our counts are below 2^63");
    STANDARD.encode(bytes)
}

/// First word of the compressed form.
const COOKIE_COMPRESSED: [u8; 4] = [0x1c, 0x84, 0x93, 0x14];
/// Length of its head: the cookie and the length of what follows.
const HEAD_BYTES: usize = 8;
/// Head of the form inside: cookie, length of the counts, and 32 bytes of shape.
const INNER_HEAD_BYTES: usize = 40;
/// Most of what a text may become: our shape has 34,000 counts of at most 9 bytes each.
const INNER_BYTES_MAX: u64 = 1 << 20;

/// Reads it back, or says what is wrong with the text.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    const WANTED: &str = "not a histogram in HdrHistogram's V2 form";
    let bytes = STANDARD.decode(text).map_err(|cause| format!("not base64: {cause}"))?;
    let (head, compressed) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| format!("{WANTED}: too short"))?;
    if head[..4] != COOKIE_COMPRESSED || u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize != compressed.len() {
        return Err(format!("{WANTED}: its head is another"));
    }
    let mut inner = Vec::new();
    let unpacked = ZlibDecoder::new(compressed).take(INNER_BYTES_MAX + 1).read_to_end(&mut inner);
    unpacked.map_err(|cause| format!("{WANTED}: {cause}"))?;
    // The library allocates by this length.
    let counts_bytes = inner.get(4..8).map(|length| u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize);
    if inner.len() as u64 > INNER_BYTES_MAX || counts_bytes.map(|length| length + INNER_HEAD_BYTES) != Some(inner.len()) {
        return Err(format!("{WANTED}: its length is not what it says"));
    }
    Deserializer::new().deserialize(&mut inner.as_slice()).map_err(|cause| format!("{WANTED}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{histogram, record};
    use std::io::Write as _;

    #[test]
    fn what_is_read_back_is_what_was_written() {
        let mut filled = histogram();
        (0..10_000u64).for_each(|n| record(&mut filled, n * n * 37));
        for histogram in [histogram(), filled] {
            let text = encode(&histogram);
            assert!(text.starts_with("HISTFAAA"), "the beginning that the public tools know: {text}");
            assert_eq!(decode(&text).unwrap(), histogram);
        }
    }

    #[test]
    fn other_text_is_refused_with_what_is_wrong() {
        let mut cut = encode(&histogram());
        cut.truncate(cut.len() / 8 * 4);
        for (text, part) in [("no base64!", "base64"), ("AAAA", "V2"), ("", "V2"), (cut.as_str(), "V2")] {
            assert!(decode(text).unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn a_changed_text_is_refused() {
        let mut filled = histogram();
        (0..1_000u64).for_each(|n| record(&mut filled, n * n * 37));
        let good = STANDARD.decode(encode(&filled)).unwrap();
        let mut refused_count = 0;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match decode(&STANDARD.encode(&bytes)) {
                Err(_) => refused_count += 1,
                // A few bits of the compression mean nothing.
                Ok(read) => assert_eq!(read, filled, "bit {bit}"),
            }
        }
        assert!(refused_count > good.len() * 8 * 95 / 100, "{refused_count} of {}", good.len() * 8);
    }

    #[test]
    fn lengths_that_are_claimed_are_not_believed() {
        let mut inner = Vec::new();
        hdrhistogram::serialization::V2Serializer::new().serialize(&histogram(), &mut inner).unwrap();
        let pack = |inner: &[u8]| {
            let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(inner).unwrap();
            let packed = packed.finish().unwrap();
            STANDARD.encode([&COOKIE_COMPRESSED[..], &(packed.len() as u32).to_be_bytes(), &packed].concat())
        };
        assert_eq!(decode(&pack(&inner)).unwrap(), histogram());
        inner[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(decode(&pack(&inner)).unwrap_err().contains("its length"));
        assert!(decode(&pack(&vec![0; 64 << 20])).unwrap_err().contains("its length"));
    }
}
