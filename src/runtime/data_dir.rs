//! The data directory: made or opened, locked, and known by its identity.
//!
//! ```text
//!   DIR/lock              locked (flock) while a process, or the kernel on its behalf, may still write; holds the process id as text
//!   DIR/node              identity, text: node, cluster, layout version, shards, groups per shard
//!   DIR/shard-0/ ...      one directory per shard (the log room's)
//! ```
//!
//! Invariants
//! - Nothing in DIR is read or written before the lock is held. The lock stays with the open file: the rings register it, so after SIGKILL the
//!   kernel keeps it until the last write in flight has ended, and a successor waits for that.
//! - The identity is written once, last of all at the first start, atomically and synced; a directory that has data but no identity is refused.
//! - Version, shards and groups per shard of the identity equal what this process will use, or the start is refused.
//!
//! Not here: what is in a shard's directory (`log/`).

use crate::config::Settings;
use crate::constants;
use crate::ids::{NodeId, ShardId};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock in use is tried again: SIGKILL's leftovers take some 100 ms.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Free space that a restart needs per shard: a raised incarnation, a manifest and a checkpoint, each written beside its predecessor.
const RESTART_BYTES_PER_SHARD: u64 = 4 << 20;
const IDENTITY: &str = "node";
const IDENTITY_NEW: &str = "node.new";
const LOCK: &str = "lock";

/// Who a data directory belongs to, and what is fixed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node; 1 on a node that was never joined to others.
    pub node: NodeId,
    /// Random at first start; the same on all nodes of a cluster.
    pub cluster_id: [u8; 16],
    /// Layout version of the directory.
    pub version: u32,
    /// Number of shards.
    pub shards: u16,
    /// Replica groups per shard.
    pub groups_per_shard: u32,
}

/// What this process will use, to be compared with what the directory holds, and what a first start needs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Number of shards.
    pub shards: u16,
    /// Replica groups per shard.
    pub groups_per_shard: u32,
    /// Free bytes that a first start needs, all shards together: their first segments.
    pub first_start_bytes: u64,
    /// How long a lock in use is waited for.
    pub lock_wait: Duration,
}

impl Wanted {
    /// What `settings` say. A first start makes the segment that is written and the one behind it, per shard; more come while it runs.
    pub fn of(settings: &Settings) -> Wanted {
        Wanted {
            shards: settings.shards,
            groups_per_shard: settings.groups_per_shard,
            first_start_bytes: u64::from(settings.shards) * settings.segment_bytes * 2,
            lock_wait: Duration::from_micros(constants::LOCK_WAIT_US),
        }
    }
}

/// An open, locked data directory. Dropping it gives up this handle of the lock (the rings may hold others).
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    lock: File,
    created: bool,
}

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
fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { doing, path: path.to_owned(), source }
}

impl DataDir {
    /// Opens `path`, or makes it when it does not exist or is empty. Waits for the lock at most `wanted.lock_wait`; blocks, for start-up only.
    pub fn open(path: &Path, wanted: &Wanted) -> Result<DataDir, DataDirError> {
        fs::create_dir_all(path).map_err(at("make data directory", path))?;
        let path = &fs::canonicalize(path).map_err(at("open data directory", path))?;
        let lock = lock(path, wanted.lock_wait)?;
        let identity_path = path.join(IDENTITY);
        let (identity, created) = match fs::read_to_string(&identity_path) {
            Ok(text) => (decode(&text).map_err(|what| DataDirError::Identity { path: identity_path, what })?, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (create(path, wanted)?, true),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(DataDirError::Identity { path: identity_path, what: "it is not text".to_owned() });
            }
            Err(error) => return Err(at("read", &identity_path)(error)),
        };
        if identity.version != constants::DATA_DIR_VERSION {
            return Err(DataDirError::Version { path: path.clone(), found: identity.version });
        }
        if identity.shards != wanted.shards {
            return Err(DataDirError::Shards { path: path.clone(), found: identity.shards, wanted: wanted.shards });
        }
        if identity.groups_per_shard != wanted.groups_per_shard {
            return Err(DataDirError::Groups { path: path.clone(), found: identity.groups_per_shard, wanted: wanted.groups_per_shard });
        }
        if !created {
            check_space(path, RESTART_BYTES_PER_SHARD * u64::from(identity.shards), false)?;
            // What is found is synced before it is trusted: the identity and the directory that names it.
            sync_file(&path.join(IDENTITY))?;
            sync_dir(path)?;
        }
        Ok(DataDir { path: path.clone(), identity, lock, created })
    }

    /// The directory, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Who it belongs to.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
    /// Whether this start made it.
    pub fn is_new(&self) -> bool {
        self.created
    }
    /// The directory of one shard. Exists.
    pub fn shard_dir(&self, shard: ShardId) -> PathBuf {
        self.path.join(shard_dir_name(shard))
    }
    /// One more handle of the lock, to be registered in a ring.
    pub fn lock_handle(&self) -> Result<File, DataDirError> {
        self.lock.try_clone().map_err(at("duplicate the handle of", &self.path.join(LOCK)))
    }
}

/// Name of a shard's directory.
pub fn shard_dir_name(shard: ShardId) -> String {
    format!("shard-{shard}")
}

fn lock(path: &Path, wait: Duration) -> Result<File, DataDirError> {
    let lock_path = path.join(LOCK);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(at("open", &lock_path))?;
    let started = Instant::now();
    let mut told = wait.is_zero();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if started.elapsed() < wait => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("data directory {} is in use: waiting up to {} s for it", path.display(), wait.as_secs());
                }
                std::thread::sleep(LOCK_RETRY);
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let process = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(DataDirError::InUse { path: path.to_owned(), process, waited: started.elapsed() });
            }
            Err(TryLockError::Error(source)) => return Err(at("lock", &lock_path)(source)),
        }
    }
    // Only for the message of whoever is refused; a full disk must not fail the start here.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// First start: shard directories, then the identity.
fn create(path: &Path, wanted: &Wanted) -> Result<Identity, DataDirError> {
    for entry in fs::read_dir(path).map_err(at("list", path))? {
        let entry = entry.map_err(at("list", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What an interrupted first start leaves: no data was accepted before the identity was there.
        let leftover = match name.as_str() {
            LOCK | IDENTITY_NEW | "lost+found" => true,
            shard if shard.starts_with("shard-") => fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none()),
            _ => false,
        };
        if !leftover {
            return Err(DataDirError::Foreign { path: path.to_owned(), found: name });
        }
    }
    check_space(path, wanted.first_start_bytes + RESTART_BYTES_PER_SHARD * u64::from(wanted.shards), true)?;
    for shard in 0..wanted.shards {
        let dir = path.join(shard_dir_name(ShardId(shard)));
        fs::create_dir_all(&dir).map_err(at("make", &dir))?;
        sync_dir(&dir)?;
    }
    let identity = Identity {
        node: NodeId(1),
        cluster_id: random_id()?,
        version: constants::DATA_DIR_VERSION,
        shards: wanted.shards,
        groups_per_shard: wanted.groups_per_shard,
    };
    let (new, last) = (path.join(IDENTITY_NEW), path.join(IDENTITY));
    let mut file = File::create(&new).map_err(at("make", &new))?;
    file.write_all(encode(&identity).as_bytes()).and_then(|()| file.sync_all()).map_err(at("write", &new))?;
    fs::rename(&new, &last).map_err(at("rename", &new))?;
    sync_dir(path)?;
    // The directory's own name is in its parent.
    if let Some(parent) = path.parent() {
        sync_parent(parent)?;
    }
    Ok(identity)
}

fn check_space(path: &Path, needed: u64, first: bool) -> Result<(), DataDirError> {
    let disk = rustix::fs::statvfs(path).map_err(|error| at("ask for the free space of", path)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match free < needed {
        true => Err(DataDirError::Space { path: path.to_owned(), free, needed, first }),
        false => Ok(()),
    }
}

fn random_id() -> Result<[u8; 16], DataDirError> {
    let source = Path::new("/dev/urandom");
    let mut id = [0u8; 16];
    File::open(source).and_then(|mut file| file.read_exact(&mut id)).map_err(at("read", source))?;
    Ok(id)
}

fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at("sync", path))
}

fn sync_file(path: &Path) -> Result<(), DataDirError> {
    sync_dir(path)
}

/// A parent we may not open (a service user's /var/lib) is synced by whoever made it.
fn sync_parent(path: &Path) -> Result<(), DataDirError> {
    match sync_dir(path) {
        Err(DataDirError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

fn encode(identity: &Identity) -> String {
    let hex: String = identity.cluster_id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "# Identity of this Tramline data directory. Do not edit: it has to agree with what lies beside it.\nversion = {}\nnode = {}\ncluster = \"{hex}\"\nshards = {}\ngroups_per_shard = {}\n",
        identity.version, identity.node, identity.shards, identity.groups_per_shard
    )
}

fn decode(text: &str) -> Result<Identity, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let number = |key: &str| {
        let found = table.get(key).and_then(toml::Value::as_integer).and_then(|number| u64::try_from(number).ok());
        found.ok_or_else(|| format!("'{key}' is missing or no number"))
    };
    let version = u32::try_from(number("version")?).map_err(|_| "'version' is out of range".to_owned())?;
    if version != constants::DATA_DIR_VERSION {
        // Other fields may mean something else there; the caller refuses it by its version.
        return Ok(Identity { node: NodeId(0), cluster_id: [0; 16], version, shards: 0, groups_per_shard: 0 });
    }
    if let Some(key) = table.keys().find(|key| !["version", "node", "cluster", "shards", "groups_per_shard"].contains(&key.as_str())) {
        return Err(format!("'{key}' is not known"));
    }
    let hex = table.get("cluster").and_then(toml::Value::as_str).unwrap_or_default();
    let mut cluster_id = [0u8; 16];
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("'cluster' is not 32 hexadecimal digits".to_owned());
    }
    for (byte, digits) in cluster_id.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digit = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u8;
        *byte = digit(digits[0]) << 4 | digit(digits[1]);
    }
    let small = |key: &str| u16::try_from(number(key)?).ok().filter(|n| *n > 0).ok_or_else(|| format!("'{key}' is out of range"));
    let node = u32::try_from(number("node")?).map_err(|_| "'node' is out of range".to_owned())?;
    Ok(Identity {
        node: NodeId(node),
        cluster_id,
        version,
        shards: small("shards")?,
        groups_per_shard: u32::from(small("groups_per_shard")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(shards: u16) -> Wanted {
        Wanted { shards, groups_per_shard: 4, first_start_bytes: 1 << 20, lock_wait: Duration::ZERO }
    }

    #[test]
    fn the_first_start_makes_it_and_later_ones_find_the_same_identity() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let first = DataDir::open(&path, &wanted(2)).unwrap();
        assert!(first.is_new() && first.shard_dir(ShardId(1)).is_dir());
        assert_ne!(first.identity().cluster_id, [0; 16]);
        let identity = first.identity().clone();
        drop(first);
        let second = DataDir::open(&path, &wanted(2)).unwrap();
        assert!(!second.is_new());
        assert_eq!(*second.identity(), identity);
    }

    #[test]
    fn a_directory_in_use_is_refused_until_the_last_handle_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path(), &wanted(1)).unwrap();
        let handle = first.lock_handle().unwrap();
        let refusal = DataDir::open(root.path(), &wanted(1)).unwrap_err().to_string();
        assert!(refusal.contains(&format!("in use by process {}", std::process::id())), "{refusal}");
        drop(first);
        assert!(matches!(DataDir::open(root.path(), &wanted(1)), Err(DataDirError::InUse { .. })), "a ring may hold a handle");
        drop(handle);
        DataDir::open(root.path(), &wanted(1)).unwrap();
    }

    #[test]
    fn a_lock_given_up_while_waiting_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path(), &wanted(1)).unwrap();
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| DataDir::open(root.path(), &Wanted { lock_wait: Duration::from_secs(60), ..wanted(1) }).map(|_| ()));
            drop(first);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn other_numbers_and_versions_are_refused_with_the_way_out() {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::open(root.path(), &wanted(2)).unwrap());
        let shards = DataDir::open(root.path(), &wanted(3)).unwrap_err().to_string();
        assert!(shards.contains("made with 2 shards") && shards.contains("--shards 2"), "{shards}");
        let groups = DataDir::open(root.path(), &Wanted { groups_per_shard: 8, ..wanted(2) }).unwrap_err().to_string();
        assert!(groups.contains("groups.per.shard=4"), "{groups}");
        fs::write(root.path().join("node"), "version = 9\nsomething_new = true\n").unwrap();
        let version = DataDir::open(root.path(), &wanted(2)).unwrap_err().to_string();
        assert!(version.contains("layout version 9"), "{version}");
    }

    #[test]
    fn damaged_identities_are_refused() {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::open(root.path(), &wanted(1)).unwrap());
        let good = fs::read_to_string(root.path().join("node")).unwrap();
        for (from, to, expected) in [
            ("cluster = \"", "cluster = \"zz", "hexadecimal"),
            ("shards = 1", "shards = 0", "'shards' is out of range"),
            ("node = 1", "node = \"one\"", "'node' is missing or no number"),
            ("node = 1", "nodes = 1", "'nodes' is not known"),
            ("version = 1", "version 1", "cannot be used"),
        ] {
            fs::write(root.path().join("node"), good.replacen(from, to, 1)).unwrap();
            let refusal = DataDir::open(root.path(), &wanted(1)).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
        fs::write(root.path().join("node"), [0xff, 0xfe, 0x00]).unwrap();
        assert!(DataDir::open(root.path(), &wanted(1)).unwrap_err().to_string().contains("it is not text"));
    }

    #[test]
    fn foreign_directories_are_refused_and_an_interrupted_first_start_is_finished() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("holiday.jpg"), "x").unwrap();
        let refusal = DataDir::open(root.path(), &wanted(1)).unwrap_err().to_string();
        assert!(refusal.contains("'holiday.jpg'") && refusal.contains("choose an empty directory"), "{refusal}");
        fs::remove_file(root.path().join("holiday.jpg")).unwrap();
        fs::write(root.path().join("node.new"), "vers").unwrap();
        fs::create_dir(root.path().join("shard-0")).unwrap();
        drop(DataDir::open(root.path(), &wanted(1)).unwrap());
        fs::write(root.path().join("shard-0/manifest"), "x").unwrap();
        fs::remove_file(root.path().join("node")).unwrap();
        assert!(matches!(DataDir::open(root.path(), &wanted(1)), Err(DataDirError::Foreign { .. })), "data without identity");
    }

    #[test]
    fn a_file_in_the_way_and_missing_space_are_told() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refusal = DataDir::open(&path, &wanted(1)).unwrap_err().to_string();
            assert!(refusal.contains("a file is in the way"), "{refusal}");
        }
        let greedy = Wanted { first_start_bytes: u64::MAX >> 1, ..wanted(1) };
        let refusal = DataDir::open(&root.path().join("new"), &greedy).unwrap_err().to_string();
        assert!(refusal.contains("MiB are free") && refusal.contains("lower segment.bytes"), "{refusal}");
    }
}
