//! Where reading starts and trimming ends: `earliest`, `latest`, an offset, or a point in time in RFC 3339; and times as text.
//!
//! Invariant: digits alone are an offset, never a time (a Unix time would silently be read as a far offset otherwise, so
//! times are accepted only with a date, a clock and a zone).

use jiff::Timestamp;
use tramline_client::Before;

/// The value of `--from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The oldest record that is still kept.
    Earliest,
    /// The end as of now: only records written later.
    Latest,
    /// This record number, in every partition that is read.
    Offset(u64),
    /// The first record whose timestamp is at or after this time (UTC microseconds).
    Time(i64),
}

/// Reads the value of `--from`.
pub fn parse_from(text: &str) -> Result<From, String> {
    const WANTED: &str = "write earliest, latest, an offset such as 1500, or a time such as 2026-03-01T12:00:00Z";
    if text == "earliest" {
        return Ok(From::Earliest);
    }
    Ok(match parse_before_or(text, WANTED)? {
        Before::Latest => From::Latest,
        Before::Offset(offset) => From::Offset(offset),
        Before::Time(micros) => From::Time(micros),
    })
}

/// Reads the value of `--before`.
pub fn parse_before(text: &str) -> Result<Before, String> {
    parse_before_or(text, "write latest, an offset such as 1500, or a time such as 2026-03-01T12:00:00Z")
}

/// `wanted` says what is allowed.
fn parse_before_or(text: &str, wanted: &str) -> Result<Before, String> {
    match text {
        "latest" => Ok(Before::Latest),
        _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map(Before::Offset).map_err(|_| format!("offset {text} is out of range; allowed is 0 to {}", u64::MAX))
        }
        _ => {
            let time: Timestamp = text
                .parse()
                .map_err(|cause| format!("'{text}' is neither a word, an offset nor a time with its zone ({cause}); {wanted}"))?;
            let micros = time.as_microsecond();
            // Negative values of the time lookup mean "earliest" and "latest" in the protocol, so they cannot be asked for.
            if micros < 0 {
                return Err(format!("{text} is before 1970-01-01T00:00:00Z, the earliest time that can be asked for"));
            }
            Ok(Before::Time(micros))
        }
    }
}

/// A UTC time in microseconds as RFC 3339 text; a number that no calendar has is given back as the number.
pub fn time_text(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => format!("{micros}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_from_is_told_apart() {
        assert_eq!(parse_from("earliest"), Ok(From::Earliest));
        assert_eq!(parse_from("latest"), Ok(From::Latest));
        assert_eq!(parse_from("0"), Ok(From::Offset(0)));
        assert_eq!(parse_from("18446744073709551615"), Ok(From::Offset(u64::MAX)));
        assert_eq!(parse_from("1970-01-01T00:00:01Z"), Ok(From::Time(1_000_000)));
        assert_eq!(parse_from("1970-01-01T01:00:00.000005+01:00"), Ok(From::Time(5)));
    }

    #[test]
    fn what_is_no_start_is_refused_with_the_forms() {
        for text in ["", "-1", "newest", "18446744073709551616", "2026-03-01", "2026-03-01T12:00:00", "12:00:00Z", "1969-12-31T23:59:59Z"] {
            assert!(parse_from(text).is_err(), "{text}");
        }
        assert!(parse_from("newest").unwrap_err().contains("earliest, latest"));
        assert!(parse_before("earliest").unwrap_err().contains("write latest, an offset"), "nothing is before the first record");
        assert_eq!((parse_before("latest"), parse_before("7")), (Ok(Before::Latest), Ok(Before::Offset(7))));
    }

    #[test]
    fn times_are_written_in_utc_with_microseconds() {
        assert_eq!(time_text(1_000_005), "1970-01-01T00:00:01.000005Z");
        assert_eq!(parse_from(&time_text(1_700_000_000_123_456)), Ok(From::Time(1_700_000_000_123_456)));
        assert_eq!(time_text(i64::MAX), format!("{}us", i64::MAX));
    }
}
