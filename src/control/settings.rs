//! Settings of topics and queues: a table with unit, range, default and meaning for each, from which everything else is made (checks,
//! `tramctl topic options`, the documents), and what was set explicitly.
//!
//! Not here: the settings of queues themselves (`queue_settings.rs`), settings of a node (`config.rs`).

use super::state::valid_topic_name;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// An integer in `min..=max`; when `unlimited`, -1 means without limit.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
        /// Whether -1 is allowed and means "no limit".
        unlimited: bool,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A number with at most two decimals in `min..=max`, which are in hundredths.
    Decimal {
        /// Least value, in hundredths.
        min: u32,
        /// Greatest value, in hundredths.
        max: u32,
    },
    /// The name of a topic, or nothing.
    Topic,
}

/// One setting of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// What values it takes.
    pub kind: SettingKind,
    /// The unit of its value.
    pub unit: &'static str,
    /// The default, as text.
    pub default: &'static str,
    /// What it means, a sentence.
    pub doc: &'static str,
}

/// Whose settings a table has.
pub trait SettingTable: 'static {
    /// Whose, as a sentence names it.
    const OF: &'static str;
    /// Every one, in alphabetical order.
    const TABLE: &'static [Setting];
}

/// Settings of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfTopic;

impl SettingTable for OfTopic {
    const OF: &'static str = "topic";
    const TABLE: &'static [Setting] = TOPIC_SETTINGS;
}

/// The settings of one topic.
pub type TopicSettings = Settings<OfTopic>;

/// Key of the setting that names the topic beside which partitions are placed.
pub const CO_LOCATE: &str = "co.locate";

/// Every setting of a topic, in alphabetical order.
pub const TOPIC_SETTINGS: &[Setting] = &[
    Setting {
        key: "batch.max.bytes",
        kind: SettingKind::Integer { min: 1024, max: 8 << 20, unlimited: false },
        unit: "bytes",
        default: "1048576",
        doc: "Largest batch that is accepted, header included, as it travels (compressed).",
    },
    Setting {
        key: CO_LOCATE,
        kind: SettingKind::Topic,
        unit: "",
        default: "",
        doc: "A topic that exists. Each partition lies in the replica group of that topic's partition of the same number (over its number of partitions, from the first on again), so that an atomic step can span both. Counts when partitions are created. Empty: spread over all groups.",
    },
    Setting {
        key: "queue.retention.ms",
        kind: SettingKind::Integer { min: 60_000, max: i64::MAX, unlimited: true },
        unit: "milliseconds",
        default: "1209600000",
        doc: "Time that messages which a queue has not settled are kept in any case, also when retention.bytes or retention.ms would have dropped them; and the longest delay of a message. -1: for ever.",
    },
    Setting {
        key: "record.max.bytes",
        kind: SettingKind::Integer { min: 1, max: 8 << 20, unlimited: false },
        unit: "bytes",
        default: "1000000",
        doc: "Largest value of a record; for compressed batches the broker sees the declared size.",
    },
    Setting {
        key: "retention.bytes",
        kind: SettingKind::Integer { min: 0, max: i64::MAX, unlimited: true },
        unit: "bytes",
        default: "-1",
        doc: "Bytes that each partition keeps, and at most one batch more. Where its records lie together (sorted, or 256 KiB of them in a segment) batch by batch, within some seconds; else all that a full segment has of it goes at once, at most one segment late. -1: no limit.",
    },
    Setting {
        key: "retention.ms",
        kind: SettingKind::Integer { min: 0, max: i64::MAX, unlimited: true },
        unit: "milliseconds",
        default: "604800000",
        doc: "Time that records are kept, by the topic's kind of time: a batch goes when its newest record is older and all before it have gone, as exactly as for retention.bytes. -1: for ever.",
    },
    Setting {
        key: "timestamp.type",
        kind: SettingKind::Word(&["create", "append"]),
        unit: "",
        default: "create",
        doc: "Which time of a record counts: the producer's (create) or the broker's (append).",
    },
    Setting {
        key: "visible.at",
        kind: SettingKind::Word(&["replicated", "leader"]),
        unit: "",
        default: "replicated",
        doc: "When consumers see a record: once it is committed (durable at a majority), or as soon as the leader has it. A record seen at leader can vanish in a crash, and its offset be used again.",
    },
];

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// No such setting.
    Unknown {
        /// Whose it would be.
        of: &'static str,
        /// The key.
        key: String,
        /// Those that there are.
        table: &'static [Setting],
    },
    /// A value out of its range.
    Invalid {
        /// Whose it is.
        of: &'static str,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What would be right.
        expected: String,
    },
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingError::Unknown { of, key, table } => {
                let known: Vec<_> = table.iter().map(|s| s.key).collect();
                write!(f, "unknown {of} setting {key:?}; known are {}", known.join(", "))
            }
            SettingError::Invalid { of, key, value, expected } => write!(f, "{of} setting {key}: {value:?} is not {expected}"),
        }
    }
}

impl std::error::Error for SettingError {}

impl Setting {
    /// What values are right, in words.
    pub fn expected(&self) -> String {
        match self.kind {
            SettingKind::Integer { min, max, unlimited } => {
                let without_limit = if unlimited { ", or -1 for no limit" } else { "" };
                let unit = if self.unit.is_empty() { String::new() } else { format!(" ({})", self.unit) };
                format!("an integer from {min} to {max}{unit}{without_limit}")
            }
            SettingKind::Word(words) => format!("one of {}", words.join(", ")),
            SettingKind::Decimal { min, max } => {
                format!("a number from {} to {} with at most two decimals", decimal(min), decimal(max))
            }
            SettingKind::Topic => "the name of a topic, or empty".to_owned(),
        }
    }

    fn check<T: SettingTable>(&self, value: &str) -> Result<(), SettingError> {
        let right = match self.kind {
            SettingKind::Integer { min, max, unlimited } => {
                value.parse::<i64>().is_ok_and(|v| (min..=max).contains(&v) || (unlimited && v == -1))
            }
            SettingKind::Word(words) => words.contains(&value),
            SettingKind::Decimal { min, max } => hundredths(value).is_some_and(|v| (min..=max).contains(&v)),
            SettingKind::Topic => value.is_empty() || valid_topic_name(value),
        };
        if right {
            return Ok(());
        }
        Err(SettingError::Invalid { of: T::OF, key: self.key.to_owned(), value: value.to_owned(), expected: self.expected() })
    }
}

/// A number without sign and with at most two decimals, in hundredths.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 2 {
        return None;
    }
    let tenfold = if fraction.len() == 1 { 10 } else { 1 };
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(fraction.parse::<u32>().ok()? * tenfold)
}

/// Hundredths as a user writes them.
pub fn decimal(hundredths: u32) -> String {
    match hundredths % 100 {
        0 => format!("{}", hundredths / 100),
        rest if rest % 10 == 0 => format!("{}.{}", hundredths / 100, rest / 10),
        rest => format!("{}.{rest:02}", hundredths / 100),
    }
}

/// What was set explicitly of a table; the rest holds by default.
pub struct Settings<T> {
    explicit: BTreeMap<String, String>,
    of: PhantomData<T>,
}

impl<T> Clone for Settings<T> {
    fn clone(&self) -> Settings<T> {
        Settings { explicit: self.explicit.clone(), of: PhantomData }
    }
}

impl<T> Default for Settings<T> {
    fn default() -> Settings<T> {
        Settings { explicit: BTreeMap::new(), of: PhantomData }
    }
}

impl<T> PartialEq for Settings<T> {
    fn eq(&self, other: &Settings<T>) -> bool {
        self.explicit == other.explicit
    }
}

impl<T> Eq for Settings<T> {}

impl<T> fmt::Debug for Settings<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explicit.fmt(f)
    }
}

impl<T: SettingTable> Settings<T> {
    /// Checks and takes explicit settings. Nothing is taken if one of them is wrong.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Settings<T>, SettingError> {
        let mut settings = Settings::default();
        settings.change(pairs)?;
        Ok(settings)
    }

    /// Changes some; an empty value goes back to the default. On an error nothing has changed.
    pub fn change<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), SettingError> {
        let mut changed = self.explicit.clone();
        for (key, value) in pairs {
            let Some(setting) = find::<T>(key) else {
                return Err(SettingError::Unknown { of: T::OF, key: key.to_owned(), table: T::TABLE });
            };
            if value.is_empty() {
                changed.remove(key);
                continue;
            }
            setting.check::<T>(value)?;
            changed.insert(key.to_owned(), value.to_owned());
        }
        self.explicit = changed;
        Ok(())
    }

    /// Explicit settings, in order.
    pub fn explicit(&self) -> impl Iterator<Item = (&str, &str)> {
        self.explicit.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Every setting with its effective value and whether it was set explicitly.
    pub fn effective(&self) -> impl Iterator<Item = (&'static Setting, &str, bool)> {
        T::TABLE.iter().map(|s| match self.explicit.get(s.key) {
            Some(value) => (s, value.as_str(), true),
            None => (s, s.default, false),
        })
    }

    /// The effective value of a setting that exists (asserted).
    pub fn word(&self, key: &str) -> &str {
        let setting = find::<T>(key).expect("a key of the table");
        self.explicit.get(key).map_or(setting.default, String::as_str)
    }

    /// The effective value of an integer setting that exists (asserted); `None` for -1 (no limit).
    pub fn integer(&self, key: &str) -> Option<u64> {
        let value: i64 = self.word(key).parse().expect("checked when it was set");
        u64::try_from(value).ok()
    }

    /// The effective value, in hundredths, of a decimal setting that exists (asserted).
    pub fn hundredths(&self, key: &str) -> u32 {
        hundredths(self.word(key)).expect("checked when it was set")
    }

    /// The effective value of a setting that is `true` or `false` and exists (asserted).
    pub fn is_set(&self, key: &str) -> bool {
        match self.word(key) {
            "true" => true,
            "false" => false,
            other => panic!("setting {key} is {other:?}, neither true nor false"),
        }
    }
}

fn find<T: SettingTable>(key: &str) -> Option<&'static Setting> {
    T::TABLE.iter().find(|s| s.key == key)
}
