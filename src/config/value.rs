//! The kinds of a setting's value: reading them from text and writing them back.
//!
//! Invariants: `Kind::show` of a value is accepted by `Kind::read` and gives the same value; numbers are kept in base units (bytes,
//! microseconds, pieces). A duration always needs its unit: a bare `30` has been read as seconds, milliseconds and minutes by too many people.
//!
//! Not here: which settings exist (`table.rs`), ranges across settings (`config.rs`).

use super::space::SpaceMark;
use crate::constants::RACK_BYTES_MAX;
use std::net::{SocketAddr, ToSocketAddrs};

/// What a setting's text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A size in bytes: `4096`, `64KiB`, `1MiB`, `1GiB`.
    Bytes,
    /// Space that stays free: `2GiB`, `5%` of the file system, or `5%,2GiB`, the smaller of the two.
    Space,
    /// A time span: `50us`, `20ms`, `10s`, `5m`, `2h`. Kept in microseconds.
    Duration,
    /// A plain number of what `unit` names.
    Count {
        /// What is counted, in the plural.
        unit: &'static str,
    },
    /// `true` or `false`.
    Flag,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `HOST:PORT`; a name is resolved when the setting is read.
    Address,
    /// The same; empty for none.
    AddressOrNone,
    /// `HOST:PORT` of other machines, with commas between them; names are resolved when they are needed. Empty for none.
    Addresses,
    /// A host name or address that clients can reach; empty for none.
    Host,
    /// The name of a rack, as the metadata take it; empty for none.
    Rack,
    /// Numbers of processors: `0,1` or `2-5`; empty for none.
    Cpus,
    /// A directory; empty for none.
    Path,
}

/// A setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Bytes, microseconds or pieces.
    Number(u64),
    /// Space that stays free.
    Space(SpaceMark),
    /// On or off.
    Flag(bool),
    /// Choice, host, addresses of others, rack or path.
    Text(String),
    /// An address to listen on.
    Address(SocketAddr),
    /// Numbers of processors, ascending, each once.
    Cpus(Vec<usize>),
}

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 5] = [("ms", 1_000), ("us", 1), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)];

impl Kind {
    /// The value that `text` means, or why it means none (a half sentence that can follow a colon).
    pub fn read(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Kind::Bytes => scaled(text, &SIZES, true)
                .ok_or_else(|| format!("'{text}' is not a size; write 4096, 64KiB, 1MiB or 1GiB"))
                .map(Value::Number),
            Kind::Space => space(text).map(Value::Space).ok_or_else(|| {
                format!("'{text}' is no amount of space; write 2GiB, 5% (of the file system) or 5%,2GiB (the smaller of the two)")
            }),
            Kind::Duration => scaled(text, &SPANS, false)
                .ok_or_else(|| format!("'{text}' is not a time span with its unit; write 50us, 20ms, 10s, 5m or 2h"))
                .map(Value::Number),
            Kind::Count { unit } => number(text).ok_or_else(|| format!("'{text}' is not a whole number of {unit}")).map(Value::Number),
            Kind::Flag => match text {
                "true" | "1" | "yes" | "on" => Ok(Value::Flag(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Flag(false)),
                _ => Err(format!("'{text}' is neither true nor false")),
            },
            Kind::Choice(words) => match words.contains(&text) {
                true => Ok(Value::Text(text.to_owned())),
                false => Err(format!("'{text}' is not one of {}", words.join(", "))),
            },
            Kind::AddressOrNone if text.is_empty() => Ok(Value::Text(String::new())),
            Kind::Address | Kind::AddressOrNone => address(text).map(Value::Address),
            Kind::Host => match text.contains(|c: char| c.is_whitespace() || c == '/') {
                false => Ok(Value::Text(text.to_owned())),
                true => Err(format!("'{text}' is not a host name or an address (no spaces, no slashes)")),
            },
            Kind::Addresses => addresses(text).map(Value::Text),
            Kind::Rack => match is_rack(text) {
                true => Ok(Value::Text(text.to_owned())),
                false => Err(format!(
                    "'{text}' is not the name of a rack: at most {RACK_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-'"
                )),
            },
            Kind::Cpus => cpu_list(text).map(Value::Cpus),
            Kind::Path => Ok(Value::Text(text.to_owned())),
        }
    }

    /// The text that means `value`, in the largest unit that divides it.
    pub fn show(self, value: &Value) -> String {
        match (self, value) {
            (Kind::Bytes, Value::Number(bytes)) => show_scaled(*bytes, &SIZES),
            (Kind::Duration, Value::Number(us)) => {
                show_scaled(*us, &[("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)])
            }
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Space(mark)) => {
                let part = mark.part.map(SpaceMark::show_part);
                let bytes = mark.bytes.map(|bytes| show_scaled(bytes, &SIZES));
                part.into_iter().chain(bytes).collect::<Vec<_>>().join(",")
            }
            (_, Value::Flag(on)) => on.to_string(),
            (_, Value::Text(text)) => text.clone(),
            (_, Value::Address(address)) => address.to_string(),
            (_, Value::Cpus(cpus)) => cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        }
    }

    /// What stands for the value in the help of a flag.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Bytes => "SIZE",
            Kind::Space => "SPACE",
            Kind::Duration => "TIME",
            Kind::Count { .. } => "N",
            Kind::Flag => "BOOL",
            Kind::Choice(_) => "WORD",
            Kind::Address | Kind::AddressOrNone => "HOST:PORT",
            Kind::Addresses => "HOST:PORT,...",
            Kind::Host => "HOST",
            Kind::Rack => "NAME",
            Kind::Cpus => "LIST",
            Kind::Path => "DIR",
        }
    }

    /// The unit as the table of settings prints it.
    pub fn unit(self) -> &'static str {
        match self {
            Kind::Bytes => "bytes",
            Kind::Space => "per cent, bytes or both",
            Kind::Duration => "time",
            Kind::Count { unit } => unit,
            Kind::Flag => "true, false",
            Kind::Choice(_) => "word",
            Kind::Address | Kind::AddressOrNone => "HOST:PORT",
            Kind::Addresses => "HOST:PORT, more behind commas",
            Kind::Host => "host",
            Kind::Rack => "name",
            Kind::Cpus => "cpu numbers",
            Kind::Path => "directory",
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

fn scaled(text: &str, units: &[(&str, u64)], bare: bool) -> Option<u64> {
    for (name, factor) in units {
        if let Some(front) = text.strip_suffix(name) {
            return number(front.trim_end())?.checked_mul(*factor);
        }
    }
    // Zero is zero in every unit.
    number(text).filter(|n| bare || *n == 0)
}

fn space(text: &str) -> Option<SpaceMark> {
    let mut mark = SpaceMark { part: None, bytes: None };
    for word in text.split(',').map(str::trim) {
        match SpaceMark::part_of(word) {
            Some(part) if mark.part.is_none() => mark.part = Some(part),
            None if mark.bytes.is_none() => mark.bytes = Some(scaled(word, &SIZES, true)?),
            _ => return None,
        }
    }
    Some(mark)
}

fn show_scaled(number: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units.iter().find(|(_, factor)| number != 0 && number.is_multiple_of(*factor)).unwrap_or(&units[units.len() - 1]);
    format!("{}{name}", number / factor)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.to_socket_addrs() {
        Ok(mut found) => found.next().ok_or_else(|| format!("'{text}' names no address")),
        Err(error) => Err(format!("'{text}' is not HOST:PORT of this machine ({error})")),
    }
}

/// Checks the form only: a machine that is named may not have a name or an address yet.
fn addresses(text: &str) -> Result<String, String> {
    let is_address = |word: &str| {
        let Some((host, port)) = word.rsplit_once(':') else { return false };
        let is_bare_host = !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace());
        let is_host = is_bare_host || word.parse::<SocketAddr>().is_ok();
        is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    if text.is_empty() {
        return Ok(String::new());
    }
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    match words.iter().find(|word| !is_address(word)) {
        Some(word) => Err(format!("'{word}' is not HOST:PORT of another node")),
        None => Ok(words.join(",")),
    }
}

/// The rule of the metadata (`control/nodes.rs`), which refuse what passes here and not there: a node finds out before it asks.
fn is_rack(text: &str) -> bool {
    text.len() <= RACK_BYTES_MAX && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// No kernel knows more CPUs: what is longer is no list of them.
pub(crate) const CPUS_MAX: usize = 8192;

/// Numbers of CPUs as `0,2-5`, in order and each once; an empty text has none. An error says what is none.
pub(crate) fn cpu_list(text: &str) -> Result<Vec<usize>, String> {
    let bad = |part: &str| format!("'{part}' is not a list of cpu numbers; write 0,1 or 2-5");
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first).ok_or_else(|| bad(part))?, number(last).ok_or_else(|| bad(part))?);
        if first > last || last >= CPUS_MAX as u64 {
            return Err(bad(part));
        }
        found.extend(first as usize..=last as usize);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_read_and_written_back() {
        let cases: [(Kind, &str, u64, &str); 9] = [
            (Kind::Bytes, "4096", 4096, "4KiB"),
            (Kind::Bytes, "64KiB", 65_536, "64KiB"),
            (Kind::Bytes, "1 MiB", 1 << 20, "1MiB"),
            (Kind::Bytes, "1500", 1500, "1500B"),
            (Kind::Bytes, "0", 0, "0B"),
            (Kind::Duration, "50us", 50, "50us"),
            (Kind::Duration, "10s", 10_000_000, "10s"),
            (Kind::Duration, "90s", 90_000_000, "90s"),
            (Kind::Duration, "5m", 300_000_000, "5m"),
        ];
        for (kind, text, number, shown) in cases {
            let value = kind.read(text).unwrap();
            assert_eq!(value, Value::Number(number), "{text}");
            assert_eq!(kind.show(&value), shown);
            assert_eq!(kind.read(shown).unwrap(), value);
        }
    }

    #[test]
    fn space_is_read_and_written_back() {
        for (text, part, bytes) in
            [("5%,8GiB", Some(500), Some(8 << 30)), ("1.5%", Some(150), None), ("2GiB", None, Some(2 << 30)), ("0", None, Some(0))]
        {
            let value = Kind::Space.read(text).unwrap();
            assert_eq!(value, Value::Space(SpaceMark { part, bytes }), "{text}");
            assert_eq!(Kind::Space.read(&Kind::Space.show(&value)).unwrap(), value);
        }
        assert_eq!(Kind::Space.show(&Kind::Space.read("8GiB, 5%").unwrap()), "5%,8GiB");
    }

    #[test]
    fn nonsense_is_refused_with_the_accepted_forms() {
        for (kind, text) in [
            (Kind::Bytes, "1.5MiB"),
            (Kind::Bytes, "12KB"),
            (Kind::Bytes, ""),
            (Kind::Bytes, "99999999999TiB"),
            (Kind::Duration, "30"),
            (Kind::Space, "5%,6%"),
            (Kind::Space, "1GiB,2GiB"),
            (Kind::Space, "120%"),
            (Kind::Space, ""),
            (Kind::Duration, "-1s"),
            (Kind::Count { unit: "shards" }, "two"),
            (Kind::Flag, "maybe"),
            (Kind::Choice(&["a", "b"]), "c"),
            (Kind::Address, "nowhere"),
            (Kind::Address, ""),
            (Kind::AddressOrNone, "nowhere"),
            (Kind::Host, "a b"),
            (Kind::Addresses, "broker-1"),
            (Kind::Addresses, "broker-1:0"),
            (Kind::Addresses, "::1:7700"),
            (Kind::Addresses, "http://a:7700"),
            (Kind::Rack, "row 7"),
            (Kind::Cpus, "3-1"),
            (Kind::Cpus, "0;1"),
        ] {
            let why = kind.read(text).unwrap_err();
            assert!(why.starts_with(&format!("'{text}'")), "{why}");
        }
    }

    #[test]
    fn an_address_may_be_none_where_that_is_said() {
        let none = Kind::AddressOrNone.read("").unwrap();
        assert_eq!((none.clone(), Kind::AddressOrNone.show(&none)), (Value::Text(String::new()), String::new()));
        let some = Kind::AddressOrNone.read("127.0.0.1:7700").unwrap();
        assert_eq!(Kind::AddressOrNone.show(&some), "127.0.0.1:7700");
    }

    #[test]
    fn addresses_of_others_are_not_resolved_and_racks_have_plain_names() {
        let read = Kind::Addresses.read(" broker-1.example:7700, [::1]:7701 ,10.0.0.1:7700").unwrap();
        assert_eq!(Kind::Addresses.show(&read), "broker-1.example:7700,[::1]:7701,10.0.0.1:7700");
        assert_eq!(Kind::Addresses.read("").unwrap(), Value::Text(String::new()));
        assert!(Kind::Addresses.read("a:1,,b:2").unwrap_err().starts_with("''"), "a comma too many");
        assert_eq!(Kind::Rack.read("row-7.b_1").unwrap(), Value::Text("row-7.b_1".to_owned()));
        assert!(Kind::Rack.read(&"r".repeat(RACK_BYTES_MAX)).is_ok() && Kind::Rack.read(&"r".repeat(RACK_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn cpu_lists_are_sorted_and_ranges_opened() {
        assert_eq!(Kind::Cpus.read("4,0-2,1").unwrap(), Value::Cpus(vec![0, 1, 2, 4]));
        assert_eq!(Kind::Cpus.read("").unwrap(), Value::Cpus(vec![]));
    }
}
