//! What the values of options may be: each parser names the range or the words that are allowed.
//!
//! Invariant: a range stands here and nowhere else; the help repeats it for people and a test holds both together.
//! Not here: which option takes which value (`args.rs`, `load.rs`).

use crate::payload::STAMP_BYTES;
use crate::pick::Choice;
use crate::quantity::parse_quantity_in;
use crate::units::{parse_duration_in, parse_servers};
use std::path::PathBuf;
use std::time::Duration;

/// What an empty file name is told.
pub const NO_NAME: &str = "a file name must not be empty";

/// Addresses of nodes.
pub fn servers(text: &str) -> Result<String, String> {
    parse_servers(text).map(|_| text.to_owned())
}

/// A file to write; not standard output.
pub fn file_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err(NO_NAME.to_owned()),
        "-" => Err("only --json writes to standard output; name a file".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// A file to write, or `-`, standard output.
pub fn file_or_output(text: &str) -> Result<String, String> {
    if text == "-" { Ok(text.to_owned()) } else { file_name(text) }
}

/// A file to read: any name, since the shell may have given it a pipe's.
pub fn input_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err(NO_NAME.to_owned()) } else { Ok(text.to_owned()) }
}

/// Number of a core.
pub fn core(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(core) if core < 1024 => Ok(core),
        _ => Err(format!("'{text}' is no number of a core; allowed is 0 to 1023")),
    }
}

/// What random choices are drawn from. Without suffixes: it is a name rather than a quantity.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is no seed; allowed is 0 to {}", u64::MAX))
}

/// A directory that exists.
pub fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        Ok(path)
    } else {
        Err(format!("'{text}' is not a directory on this machine; leave --disk out for a server elsewhere"))
    }
}

/// Measured time.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration_in(text, Duration::from_millis(100), Duration::from_secs(24 * 3600))
}

/// Time before it.
pub fn warmup(text: &str) -> Result<Duration, String> {
    parse_duration_in(text, Duration::ZERO, Duration::from_secs(3600))
}

/// Patience with a silent server.
pub fn timeout(text: &str) -> Result<Duration, String> {
    parse_duration_in(text, Duration::from_millis(100), Duration::from_secs(600))
}

/// Wait for more records.
pub fn linger(text: &str) -> Result<Duration, String> {
    parse_duration_in(text, Duration::ZERO, Duration::from_secs(10))
}

/// Partitions of a topic.
pub fn partitions(text: &str) -> Result<u32, String> {
    parse_quantity_in(text, 1, 100_000).map(|count| count as u32)
}

/// Records per second.
pub fn rate(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1, 100_000_000)
}

/// Records without an answer.
pub fn outstanding(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1, 10_000_000)
}

/// Sizes of values: one, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Smallest, in bytes.
    pub min: u32,
    /// Largest, in bytes; itself included.
    pub max: u32,
}

impl Sizes {
    /// Mean size: each size of a range is as likely as any other.
    pub fn mean(self) -> u64 {
        (u64::from(self.min) + u64::from(self.max)) / 2
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{}..{}", self.min, self.max) }
    }
}

/// Sizes of values.
pub fn sizes(text: &str) -> Result<Sizes, String> {
    let one = |text: &str| parse_quantity_in(text, STAMP_BYTES as u64, 16 << 20).map(|size| size as u32);
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (one(min)?, one(max)?),
        None => (one(text)?, one(text)?),
    };
    if min > max {
        return Err(format!("{text} has its ends the wrong way round; write the smaller one first, as in 100..2000"));
    }
    Ok(Sizes { min, max })
}

/// Size of a value that travels alone.
pub fn size(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, STAMP_BYTES as u64, 1_000_000)
}

/// A share.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text} is no share; allowed is 0 to 1, as in 0.5")),
    }
}

/// Records of a burst.
pub fn burst(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1, 1_000_000)
}

/// Number of a column, from 1.
pub fn key_field(text: &str) -> Result<u32, String> {
    parse_quantity_in(text, 1, 10_000).map(|field| field as u32)
}

/// How keys are chosen.
pub fn key_choice(text: &str) -> Result<Choice, String> {
    const WANTED: &str = "allowed is turn, uniform, or zipf:S with an exponent S of 0.1 to 5, as in zipf:1.1";
    match text {
        "turn" => Ok(Choice::Turn),
        "uniform" => Ok(Choice::Uniform),
        _ => match text.strip_prefix("zipf:").map(str::parse::<f64>) {
            Some(Ok(exponent)) if (0.1..=5.0).contains(&exponent) => Ok(Choice::Zipf(exponent)),
            _ => Err(format!("'{text}' is no choice of keys; {WANTED}")),
        },
    }
}

/// Size of a batch.
pub fn batch_bytes(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 128, 8 << 20)
}

/// Size of the client's buffer.
pub fn buffer_bytes(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1 << 20, 4 << 30)
}

/// Requests without an answer.
pub fn in_flight(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1, 1024)
}

/// Number of producers.
pub fn producers(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1, 10_000)
}

/// Speed of a slow sink.
pub fn bytes_per_second(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1_000, 100_000_000_000)
}

/// Number of threads.
pub fn threads(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 1, 64)
}

/// Number of keys.
pub fn keys(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 0, 10_000_000)
}

/// Credit of a reader.
pub fn credit_bytes(text: &str) -> Result<u64, String> {
    parse_quantity_in(text, 64 << 10, 256 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_or_a_range() {
        assert_eq!(sizes("1000"), Ok(Sizes { min: 1000, max: 1000 }));
        assert_eq!(sizes("100..2KiB"), Ok(Sizes { min: 100, max: 2048 }));
        assert_eq!(sizes("100..200").unwrap().mean(), 150);
        assert_eq!([sizes("1000"), sizes("1k..2k")].map(|sizes| sizes.unwrap().to_string()), ["1000", "1000..2000"]);
        for (text, part) in
            [("47..100", "48 to 16777216"), ("200..100", "smaller one first"), ("100..", "not a number"), ("..100", "not a number")]
        {
            assert!(sizes(text).unwrap_err().contains(part), "{text}: {:?}", sizes(text));
        }
    }

    #[test]
    fn shares_and_choices_are_refused_with_what_is_allowed() {
        assert_eq!((share("0"), share("0.25"), share("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for text in ["1.01", "-0.1", "NaN", "half", ""] {
            assert!(share(text).unwrap_err().contains("0 to 1"), "{text}");
        }
        assert_eq!((key_choice("turn"), key_choice("uniform")), (Ok(Choice::Turn), Ok(Choice::Uniform)));
        assert_eq!(key_choice("zipf:1.1"), Ok(Choice::Zipf(1.1)));
        for text in ["zipf", "zipf:", "zipf:0", "zipf:5.1", "zipf:NaN", "random"] {
            assert!(key_choice(text).unwrap_err().contains("0.1 to 5"), "{text}");
        }
    }
}
