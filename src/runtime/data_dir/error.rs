//! Why a data directory is refused, each with what to do.
//!
//! Not here: when (`data_dir.rs`).

use super::IDENTITY;
use crate::constants;
use crate::ids::NodeId;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a data directory was refused.
#[derive(Debug)]
pub enum DataDirError {
    /// It is held by a living process, or writes of a dead one have not ended.
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id found in the lock file.
        process: Option<u32>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The system refused something.
    Io {
        /// What was tried, as in "cannot ...".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too little free space.
    Space {
        /// The directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
        /// Whether this is the first start.
        first: bool,
    },
    /// Something else is in there.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A name found in it.
        found: String,
    },
    /// The identity file cannot be understood.
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by another version.
    Version {
        /// The directory.
        path: PathBuf,
        /// Its layout version.
        found: u32,
    },
    /// Another node's.
    Node {
        /// The directory.
        path: PathBuf,
        /// Its node.
        found: NodeId,
        /// The node of this start.
        wanted: NodeId,
    },
    /// It was about to join a cluster, and this start is to begin one.
    HalfJoined {
        /// The directory.
        path: PathBuf,
    },
    /// What the cluster told it when it joined cannot be used.
    Joined {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Initialised with another number of shards.
    Shards {
        /// The directory.
        path: PathBuf,
        /// Its shards.
        found: u16,
        /// The shards asked for.
        wanted: u16,
    },
    /// Initialised with another number of groups per shard.
    Groups {
        /// The directory.
        path: PathBuf,
        /// Its groups per shard.
        found: u32,
        /// The number asked for.
        wanted: u32,
    },
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes.div_ceil(1 << 20);
        match self {
            DataDirError::InUse { path, process, waited } => {
                write!(f, "data directory {} is in use", path.display())?;
                if let Some(process) = process {
                    write!(f, " by process {process}")?;
                }
                write!(f, " (waited {} s); stop that node first, or choose another --data-dir", waited.as_secs())
            }
            DataDirError::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}; ", path.display())?;
                f.write_str(match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "give the user who runs tramline the right to write there, or choose another --data-dir"
                    }
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space there, or choose another --data-dir",
                    io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or choose another --data-dir",
                    io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "a file is in the way: choose another --data-dir",
                    _ => "check the path and the disk",
                })
            }
            DataDirError::Space { path, free, needed, first: true } => write!(
                f,
                "only {} MiB are free for data directory {}, a first start needs {} MiB; free space, choose another --data-dir, or lower segment.bytes, pool.segments or shards",
                free >> 20,
                path.display(),
                mib(needed)
            ),
            DataDirError::Space { path, free, needed, first: false } => write!(
                f,
                "only {} MiB are free for data directory {}, a start needs {} MiB; free space on that file system",
                free >> 20,
                path.display(),
                mib(needed)
            ),
            DataDirError::Foreign { path, found } => write!(
                f,
                "data directory {} holds '{found}' but no identity file '{IDENTITY}', so it is not Tramline's or lost it; choose an empty directory, or restore the file",
                path.display()
            ),
            DataDirError::Identity { path, what } => {
                write!(f, "the identity file {} cannot be used: {what}; restore it from a backup", path.display())
            }
            DataDirError::Version { path, found } => write!(
                f,
                "data directory {} has layout version {found}, this tramline {} reads version {}; start it with the tramline that wrote it",
                path.display(),
                constants::VERSION,
                constants::DATA_DIR_VERSION
            ),
            DataDirError::Node { path, found, wanted } => write!(
                f,
                "data directory {} belongs to node {found}, this start is to be node {wanted}; start with --node-id {found}, or choose another --data-dir",
                path.display()
            ),
            DataDirError::HalfJoined { path } => write!(
                f,
                "data directory {} has begun to join a cluster, which may know it already; start with --join again, or choose an empty --data-dir to begin another cluster",
                path.display()
            ),
            DataDirError::Joined { path, what } => write!(
                f,
                "what the cluster told this node when it joined, {}, cannot be used: {what}; restore the file from a backup, or join again on an empty --data-dir (the cluster's other nodes have the data)",
                path.display()
            ),
            DataDirError::Shards { path, found, wanted } => write!(
                f,
                "data directory {} was made with {found} shards, this start asks for {wanted}; start with --shards {found} (to change the number, start a node with --shards {wanted} on a new --data-dir and copy the topics over with tramctl consume and produce)",
                path.display()
            ),
            DataDirError::Groups { path, found, wanted } => write!(
                f,
                "data directory {} was made with groups.per.shard={found}, this start asks for {wanted}; start with --set groups.per.shard={found} (to change the number, copy the topics to a node with a new --data-dir)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DataDirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DataDirError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Attaches what was tried, and on what, to an error of the system.
pub(super) fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { doing, path: path.to_owned(), source }
}
