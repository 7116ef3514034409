//! Reading of times and sizes, on the command line and in commands: `50us`, `2ms`, `1s`; `4096`, `10k`, `1MiB`.
//!
//! Times always carry a unit. Not here: which value is meant for what.

use std::time::Duration;

/// The longest time anybody may ask for: what is longer is a cut.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Reads a time with its unit.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let wanted = || format!("'{text}' is no time: write a whole number with a unit, as in 50us, 2ms or 1s");
    let split = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wanted)?;
    let number: u64 = text[..split].parse().map_err(|_| wanted())?;
    let nanos = match &text[split..] {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Err(wanted()),
    };
    let time = number.checked_mul(nanos).map(Duration::from_nanos);
    time.filter(|time| *time <= TIME_MAX).ok_or_else(|| format!("'{text}' is too long: at most {} s", TIME_MAX.as_secs()))
}

/// Reads a number of bytes (or of bytes per second), not 0.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wanted = || format!("'{text}' is no number of bytes: write 4096, 10k, 1M, 64KiB or 1MiB, and not 0");
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| wanted())?;
    let factor = match &text[split..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wanted()),
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_and_have_a_limit() {
        for (text, micros) in [("50us", 50), ("2ms", 2_000), ("1s", 1_000_000), ("0ms", 0), ("600s", 600_000_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "5", "ms", "1.5ms", "-1ms", "2 ms", "1m", "601s", "99999999999999999999s", "18446744073709551615s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_take_suffixes_and_are_not_zero() {
        for (text, bytes) in [("1", 1), ("10k", 10_000), ("1M", 1_000_000), ("64KiB", 65_536), ("2GiB", 2 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "0k", "k", "1kb", "-1", "1.5M", "99999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
