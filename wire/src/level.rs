//! Durability levels of an acknowledgement.
//!
//! Invariant: the order of the numbers is the order of strength, so levels compare with `<`.
//! Not here: who reaches a level and when (the broker's partition room).

use crate::error::ErrorCode;
use crate::prim::{DecodeError, Item, Reader, fixed};
use std::fmt;
use std::str::FromStr;

/// What has to be true before the broker acknowledges a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Level {
    /// No acknowledgement at all: the request has no reply.
    None = 0,
    /// In the leader's memory.
    Leader = 1,
    /// On the leader's stable storage.
    LeaderDurable = 2,
    /// Received by a majority of replicas.
    Replicated = 3,
    /// On stable storage at a majority of replicas.
    #[default]
    Durable = 4,
}

impl Level {
    /// Every level, weakest first.
    pub const ALL: &'static [Level] = &[Level::None, Level::Leader, Level::LeaderDurable, Level::Replicated, Level::Durable];

    /// The level with this number.
    pub const fn from_u8(number: u8) -> Option<Level> {
        match number {
            0 => Some(Level::None),
            1 => Some(Level::Leader),
            2 => Some(Level::LeaderDurable),
            3 => Some(Level::Replicated),
            4 => Some(Level::Durable),
            _ => None,
        }
    }
    /// The number on the wire.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
    /// The name used in settings and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Level::None => "none",
            Level::Leader => "leader",
            Level::LeaderDurable => "leader_durable",
            Level::Replicated => "replicated",
            Level::Durable => "durable",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;
    fn from_str(text: &str) -> Result<Level, String> {
        Level::ALL
            .iter()
            .copied()
            .find(|level| level.name() == text)
            .ok_or_else(|| format!("unknown level {text:?}: use none, leader, leader_durable, replicated or durable"))
    }
}

impl<'a> Item<'a> for Level {
    const BYTES_MIN: usize = 1;
    fn read(from: &mut Reader<'a>) -> Result<Level, DecodeError> {
        let number = from.u8()?;
        Level::from_u8(number).ok_or(DecodeError::UnknownValue { what: "level", value: number as u64, code: ErrorCode::UnknownLevel })
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(self.as_u8());
    }
}
fixed!(Level, |it| [it.as_u8()]);
