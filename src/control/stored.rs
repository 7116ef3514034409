//! Metadata in the log and in checkpoints: rkyv archives in the project's envelope, checked on every read.

use crate::log::envelope::{self, EnvelopeError};
use rkyv::util::AlignedVec;
use std::fmt;

/// Envelope schema of a command.
pub(super) const COMMAND_SCHEMA: u16 = 16;
/// Envelope schema of the state machine's snapshot.
pub(super) const SNAPSHOT_SCHEMA: u16 = 17;

/// Envelope schema of what a node that joins is told.
pub(super) const JOINED_SCHEMA: u16 = 24;

/// Stored metadata that cannot be read.
#[derive(Debug)]
pub enum StoredError {
    /// The envelope is wrong.
    Envelope(EnvelopeError),
    /// The archive inside is wrong, or says something that cannot be.
    Archive(String),
}

impl StoredError {
    pub(super) fn archive(cause: impl fmt::Display) -> StoredError {
        StoredError::Archive(cause.to_string())
    }
}

impl fmt::Display for StoredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredError::Envelope(cause) => write!(f, "stored metadata is {cause}"),
            StoredError::Archive(cause) => write!(f, "stored metadata is not readable: {cause}"),
        }
    }
}

impl std::error::Error for StoredError {}

pub(super) fn seal(schema: u16, version: u16, archive: &[u8]) -> Vec<u8> {
    let mut bytes = envelope::seal(schema, version, archive).to_vec();
    bytes.extend_from_slice(archive);
    bytes
}

/// The archive of one of several versions that are read, the newest first; and which one it is.
pub(super) fn open_any(bytes: &[u8], schema: u16, versions: &[u16]) -> Result<(u16, AlignedVec<16>), StoredError> {
    let says = bytes.get(6..8).map(|two| u16::from_le_bytes([two[0], two[1]]));
    let version = versions.iter().copied().find(|version| Some(*version) == says).unwrap_or(versions[0]);
    Ok((version, open(bytes, schema, version)?))
}

/// The archive, aligned as rkyv wants it.
pub(super) fn open(bytes: &[u8], schema: u16, version: u16) -> Result<AlignedVec<16>, StoredError> {
    let archive = envelope::open_image(bytes, schema, version).map_err(StoredError::Envelope)?;
    let mut aligned = AlignedVec::with_capacity(archive.len());
    aligned.extend_from_slice(archive);
    Ok(aligned)
}
