//! Trims: how far a partition may be trimmed, and the payload of the log that makes it last.
//!
//! ```text
//! envelope (32 bytes, schema 18, version 1), then per partition: partition uid u64 | first offset that is kept u64
//! ```
//! A control payload in the partitions' own replica group, taken in when it is committed and again at a start, as far as no
//! checkpoint covers it. Invariants: taking one in twice, or an older one after a newer one, changes nothing (a start moves up
//! only), so their order among each other does not matter; a payload with a wrong checksum, length or version is refused.
//!
//! Not here: who proposes and who answers (shard/), where the start moves (`partition.rs`).

use crate::ids::PartitionUid;
use crate::log::envelope::{self, EnvelopeError};
use std::fmt;

/// Envelope schema of a list of trims.
const TRIM_SCHEMA: u16 = 18;
const TRIM_VERSION: u16 = 1;
/// Bytes of one trim.
const TRIM_BYTES: usize = 16;

/// A partition is kept from an offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// The partition.
    pub uid: PartitionUid,
    /// Its first offset that is kept.
    pub log_start: u64,
}

/// Why a partition is not trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimError {
    /// What is not committed cannot be trimmed.
    PastCommittedEnd,
}

impl fmt::Display for TrimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrimError::PastCommittedEnd => f.write_str("only what is committed can be trimmed"),
        }
    }
}

impl std::error::Error for TrimError {}

/// A stored list of trims that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredTrimError {
    /// The envelope is wrong, or of a version that this program does not know.
    Envelope(EnvelopeError),
    /// The list is empty or ends in the middle of a trim.
    Length(usize),
}

impl fmt::Display for StoredTrimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredTrimError::Envelope(cause) => write!(f, "stored trim is {cause}"),
            StoredTrimError::Length(bytes) => {
                write!(f, "stored trim has a list of {bytes} bytes, which is no list of {TRIM_BYTES} bytes each")
            }
        }
    }
}

impl std::error::Error for StoredTrimError {}

/// The stored bytes of trims of one group.
pub fn encode_trims(trims: &[Trim]) -> Vec<u8> {
    let mut list = Vec::with_capacity(trims.len() * TRIM_BYTES);
    for trim in trims {
        list.extend_from_slice(&trim.uid.0.to_le_bytes());
        list.extend_from_slice(&trim.log_start.to_le_bytes());
    }
    let mut bytes = envelope::seal(TRIM_SCHEMA, TRIM_VERSION, &list).to_vec();
    bytes.extend_from_slice(&list);
    bytes
}

/// Reads stored bytes; checked throughout.
pub fn decode_trims(bytes: &[u8]) -> Result<Vec<Trim>, StoredTrimError> {
    let list = envelope::open_image(bytes, TRIM_SCHEMA, TRIM_VERSION).map_err(StoredTrimError::Envelope)?;
    let (trims, rest) = list.as_chunks::<TRIM_BYTES>();
    if trims.is_empty() || !rest.is_empty() {
        return Err(StoredTrimError::Length(list.len()));
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(trims.iter().map(|trim| Trim { uid: PartitionUid(number(&trim[..8])), log_start: number(&trim[8..]) }).collect())
}
