//! Reading of counts and sizes on a command line: `10k`, `1M`, `64KiB`.

/// Reads a whole number with an optional suffix: `K`, `M`, `G` (thousands; `k` too) or `KiB`, `MiB`, `GiB`.
pub fn parse_quantity(text: &str) -> Result<u64, String> {
    const WANTED: &str = "write a whole number, optionally followed by k, M, G (thousands) or KiB, MiB, GiB";
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("'{text}' is not a number; {WANTED}"))?;
    let factor = match suffix {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("'{suffix}' is not a known suffix; {WANTED}")),
    };
    number.checked_mul(factor).ok_or_else(|| format!("'{text}' is too large; {WANTED}"))
}

/// Reads a quantity and refuses what is outside `min..=max`, naming the range.
pub fn parse_quantity_in(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = parse_quantity(text)?;
    if value < min || value > max {
        return Err(format!("{text} is out of range; allowed is {min} to {max}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_take_suffixes_and_refuse_overflow() {
        for (text, expected) in [("0", 0u64), ("64KiB", 65_536), ("10k", 10_000), ("1M", 1_000_000), ("8MiB", 8 << 20)] {
            assert_eq!(parse_quantity(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "1.5k", "-1", "1kb", "99999999999999999G"] {
            assert!(parse_quantity(text).is_err(), "{text}");
        }
        assert!(parse_quantity_in("9", 10, 20).unwrap_err().contains("10 to 20"));
    }
}
