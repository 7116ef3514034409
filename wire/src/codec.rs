//! Ids of compression codecs. Compressing is the client's work, and so is decompressing, but for one case: a broker that moves a dead message to its
//! dead-letter topic takes one record out of a compressed batch, and decompresses that batch (docs/decisions/0008). Nothing on the way of a record does.
//!
//! Invariant: a number is never given to another codec. Not here: the codecs themselves (`compression.rs`).

use std::fmt;
use std::str::FromStr;

/// How the values section of a batch is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    #[default]
    None = 0,
    /// LZ4 block format; the uncompressed size is the batch header's `values_len`.
    Lz4 = 1,
    /// One zstd frame.
    Zstd = 2,
    /// Snappy block format.
    Snappy = 3,
}

impl Codec {
    /// Every codec, in order of number.
    pub const ALL: &'static [Codec] = &[Codec::None, Codec::Lz4, Codec::Zstd, Codec::Snappy];

    /// The codec with this number.
    pub const fn from_u8(number: u8) -> Option<Codec> {
        match number {
            0 => Some(Codec::None),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zstd),
            3 => Some(Codec::Snappy),
            _ => None,
        }
    }
    /// The number in the batch header.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
    /// The name used in settings and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
            Codec::Snappy => "snappy",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = String;
    fn from_str(text: &str) -> Result<Codec, String> {
        Codec::ALL
            .iter()
            .copied()
            .find(|codec| codec.name() == text)
            .ok_or_else(|| format!("unknown codec {text:?}: use none, lz4, zstd or snappy"))
    }
}
