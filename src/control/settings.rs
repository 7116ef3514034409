//! Settings of a topic: one table with unit, range, default and meaning, from which everything else is made (checks,
//! `tramctl topic options`, the documents).
//!
//! Not here: settings of a node (`config.rs`).

use std::collections::BTreeMap;
use std::fmt;

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
}

/// One setting of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicSetting {
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

/// Every setting of a topic, in alphabetical order.
pub const TOPIC_SETTINGS: &[TopicSetting] = &[
    TopicSetting {
        key: "batch.max.bytes",
        kind: SettingKind::Integer { min: 1024, max: 8 << 20, unlimited: false },
        unit: "bytes",
        default: "1048576",
        doc: "Largest batch that is accepted, header included, as it travels (compressed).",
    },
    TopicSetting {
        key: "record.max.bytes",
        kind: SettingKind::Integer { min: 1, max: 8 << 20, unlimited: false },
        unit: "bytes",
        default: "1000000",
        doc: "Largest value of a record; for compressed batches the broker sees the declared size.",
    },
    TopicSetting {
        key: "retention.bytes",
        kind: SettingKind::Integer { min: 0, max: i64::MAX, unlimited: true },
        unit: "bytes",
        default: "-1",
        doc: "Bytes that each partition keeps, and at most one batch more. Where its records lie together (sorted, or 256 KiB of them in a segment) batch by batch, within some seconds; else all that a full segment has of it goes at once, at most one segment late. -1: no limit.",
    },
    TopicSetting {
        key: "retention.ms",
        kind: SettingKind::Integer { min: 0, max: i64::MAX, unlimited: true },
        unit: "milliseconds",
        default: "604800000",
        doc: "Time that records are kept, by the topic's kind of time: a batch goes when its newest record is older and all before it have gone, as exactly as for retention.bytes. -1: for ever.",
    },
    TopicSetting {
        key: "timestamp.type",
        kind: SettingKind::Word(&["create", "append"]),
        unit: "",
        default: "create",
        doc: "Which time of a record counts: the producer's (create) or the broker's (append).",
    },
    TopicSetting {
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
    Unknown(String),
    /// A value out of its range.
    Invalid {
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
            SettingError::Unknown(key) => {
                let known: Vec<_> = TOPIC_SETTINGS.iter().map(|s| s.key).collect();
                write!(f, "unknown topic setting {key:?}; known are {}", known.join(", "))
            }
            SettingError::Invalid { key, value, expected } => write!(f, "topic setting {key}: {value:?} is not {expected}"),
        }
    }
}

impl std::error::Error for SettingError {}

impl TopicSetting {
    /// What values are right, in words.
    pub fn expected(&self) -> String {
        match self.kind {
            SettingKind::Integer { min, max, unlimited } => {
                let without_limit = if unlimited { ", or -1 for no limit" } else { "" };
                format!("an integer from {min} to {max} ({}){without_limit}", self.unit)
            }
            SettingKind::Word(words) => format!("one of {}", words.join(", ")),
        }
    }

    /// The setting with this key.
    pub fn find(key: &str) -> Option<&'static TopicSetting> {
        TOPIC_SETTINGS.iter().find(|s| s.key == key)
    }

    fn check(&self, value: &str) -> Result<(), SettingError> {
        let right = match self.kind {
            SettingKind::Integer { min, max, unlimited } => {
                value.parse::<i64>().is_ok_and(|v| (min..=max).contains(&v) || (unlimited && v == -1))
            }
            SettingKind::Word(words) => words.contains(&value),
        };
        if right {
            return Ok(());
        }
        Err(SettingError::Invalid { key: self.key.to_owned(), value: value.to_owned(), expected: self.expected() })
    }
}

/// The settings of one topic: what was set explicitly, the rest by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    explicit: BTreeMap<String, String>,
}

impl TopicSettings {
    /// Checks and takes explicit settings. Nothing is taken if one of them is wrong.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<TopicSettings, SettingError> {
        let mut settings = TopicSettings::default();
        settings.change(pairs)?;
        Ok(settings)
    }

    /// Changes some; an empty value goes back to the default. On an error nothing has changed.
    pub fn change<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), SettingError> {
        let mut changed = self.explicit.clone();
        for (key, value) in pairs {
            let setting = TopicSetting::find(key).ok_or_else(|| SettingError::Unknown(key.to_owned()))?;
            if value.is_empty() {
                changed.remove(key);
                continue;
            }
            setting.check(value)?;
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
    pub fn effective(&self) -> impl Iterator<Item = (&'static TopicSetting, &str, bool)> {
        TOPIC_SETTINGS.iter().map(|s| match self.explicit.get(s.key) {
            Some(value) => (s, value.as_str(), true),
            None => (s, s.default, false),
        })
    }

    /// The effective value of a setting that exists (asserted).
    pub fn word(&self, key: &str) -> &str {
        let setting = TopicSetting::find(key).expect("a key of the table");
        self.explicit.get(key).map_or(setting.default, String::as_str)
    }

    /// The effective value of an integer setting that exists (asserted); `None` for -1 (no limit).
    pub fn integer(&self, key: &str) -> Option<u64> {
        let value: i64 = self.word(key).parse().expect("checked when it was set");
        u64::try_from(value).ok()
    }
}
