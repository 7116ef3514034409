//! Reading of durations (`30s`, `250ms`) and server addresses on a command line.
//!
//! Used by both tools (the load generator includes this file by path, so that `30s` means one thing everywhere).
//! Invariant: a bare number is refused where a unit is needed for durations, because a guess there is off by a thousand.
//! Not here: points in time (`start.rs`).

use std::time::Duration;

/// Reads a duration: a number, then `us`, `ms`, `s`, `m` or `h`. Fractions are allowed (`1.5s`).
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str = "write a number and a unit, as in 500us, 250ms, 30s, 5m or 1h";
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| format!("'{text}' has no unit; {WANTED}"))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("'{text}' is not a duration; {WANTED}"))?;
    let seconds = match unit {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("'{unit}' is not a unit of time; {WANTED}")),
    };
    // Rounded to a nanosecond, since 0.001 has no exact binary form and 1ms shall equal Duration::from_millis(1).
    if seconds > 1e9 {
        return Err(format!("'{text}' is longer than thirty years; {WANTED}"));
    }
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// Reads a duration and refuses what is outside `min..=max`, naming the range.
pub fn parse_duration_in(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let value = parse_duration(text)?;
    if value < min || value > max {
        return Err(format!("{text} is out of range; allowed is {} to {}", format_duration(min), format_duration(max)));
    }
    Ok(value)
}

/// Writes a duration with the largest unit that keeps it whole.
pub fn format_duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    for (unit, size) in [("h", 3_600_000_000_000u128), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if nanos >= size && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    if nanos == 0 { "0s".to_owned() } else { format!("{:.3}us", nanos as f64 / 1e3) }
}

/// Checks `HOST:PORT[,HOST:PORT]...` (IPv6 in brackets) and splits it.
pub fn parse_servers(text: &str) -> Result<Vec<String>, String> {
    const WANTED: &str = "write HOST:PORT, as in 127.0.0.1:7410 or [::1]:7410; several are separated by commas";
    let mut servers = Vec::new();
    for part in text.split(',') {
        let (host, port) = part.rsplit_once(':').ok_or_else(|| format!("'{part}' has no port; {WANTED}"))?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !bracketed) || host.chars().any(char::is_whitespace) {
            return Err(format!("'{part}' is not an address; {WANTED}"));
        }
        match port.parse::<u16>() {
            Ok(port) if port != 0 => servers.push(part.to_owned()),
            _ => return Err(format!("'{port}' is not a port (1 to 65535); {WANTED}")),
        }
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_take_fractions() {
        for (text, expected) in [
            ("30s", 30_000_000_000u64),
            ("1ms", 1_000_000),
            ("1.5s", 1_500_000_000),
            ("0s", 0),
            ("250us", 250_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(expected)), "{text}");
        }
        for text in ["30", "", "s", "-1s", "1d", "1..2s", "99999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_out_of_range_names_the_range() {
        let error = parse_duration_in("2h", Duration::from_millis(1), Duration::from_secs(3600)).unwrap_err();
        assert!(error.contains("1ms to 1h"), "{error}");
    }

    #[test]
    fn durations_are_written_with_the_largest_whole_unit() {
        for text in ["30s", "1ms", "5m", "1h", "250us", "1500ms", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn servers_need_host_and_port() {
        assert_eq!(parse_servers("a:1,[::1]:7410").unwrap(), vec!["a:1", "[::1]:7410"]);
        for text in ["", "a", "a:", ":1", "a:0", "a:70000", "::1:5", "a:1,", "a b:1"] {
            assert!(parse_servers(text).is_err(), "{text}");
        }
    }
}
