//! A histogram as text: HdrHistogram's V2 form, compressed, in base64; the very string that stands in an interval log.
//!
//! Invariant: what is decoded equals what was encoded, bucket by bucket, so reports can be merged and compared later.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
#[cfg(test)]
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

/// Writes a histogram as text.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("memory takes all, and our counts are below 2^63");
    STANDARD.encode(bytes)
}

/// Reads it back, or says what is wrong with the text.
#[cfg(test)]
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text).map_err(|cause| format!("not base64: {cause}"))?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|cause| format!("not a histogram in HdrHistogram's V2 form: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{histogram, record};

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
}
