//! The data directory: made or opened, locked, and known by its identity.
//!
//! ```text
//!   DIR/lock              locked (flock) while a process, or the kernel on its behalf, may still write; holds the process id as text
//!   DIR/node              identity, text: node, cluster, disk, generation, layout version, shards, groups per shard
//!   DIR/joined            what the cluster told a node that joined it (`control/joined.rs`); not on the node that the cluster began with
//!   DIR/joining           until the two above are there: the disk as which this directory joins, text
//!   DIR/recover           the next start goes on with what this node has of the metadata, alone (`tramline recover`); gone once it has
//!   DIR/shard-0/ ...      one directory per shard (the log room's)
//! ```
//!
//! A first start (a crash between any two steps is finished by the next start, with the same disk):
//! ```text
//!   begins a cluster                       shard directories --> node
//!   joins one      joining --> the call --> shard directories --> joined --> node --> joining removed
//! ```
//!
//! Invariants
//! - Nothing in DIR is read or written before the lock is held. The lock stays with the open file: the rings register it, so after SIGKILL the
//!   kernel keeps it until the last write in flight has ended, and a successor waits for that.
//! - The identity is written once, last of all at the first start, atomically and synced; a directory that has data but no identity is refused.
//! - Version, node, shards and groups per shard of the identity equal what this process will use, or the start is refused.
//! - A disk that a cluster may have been told stands in DIR before it is told: asking again is asking for the same thing.
//!
//! Not here: what is in a shard's directory (`log/`), the call (`join.rs`).

mod error;
mod identity;
#[cfg(test)]
mod tests;

use crate::config::Settings;
use crate::constants;
use crate::control::Joined;
use crate::ids::{NodeId, ShardId, hex};
pub use error::DataDirError;
use error::at;
pub use identity::Identity;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a lock in use is tried again: SIGKILL's leftovers take some 100 ms.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Free space that a restart needs per shard: a raised incarnation, a manifest and a checkpoint, each written beside its predecessor.
const RESTART_BYTES_PER_SHARD: u64 = 4 << 20;
const IDENTITY: &str = "node";
const JOINED: &str = "joined";
const JOINING: &str = "joining";
const RECOVER: &str = "recover";
const LOCK: &str = "lock";
/// What a file is called until it is whole.
const NEW: &str = ".new";

/// What this process will use, to be compared with what the directory holds, and what a first start needs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The node.
    pub node: NodeId,
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
            node: NodeId(settings.node_id),
            shards: settings.shards,
            groups_per_shard: settings.groups_per_shard,
            first_start_bytes: u64::from(settings.shards) * settings.segment_bytes * 2,
            lock_wait: Duration::from_micros(constants::LOCK_WAIT_US),
        }
    }
}

/// What a path has turned out to be. Locked either way.
#[derive(Debug)]
pub enum Found {
    /// Somebody's data directory, and it may be used.
    Known(DataDir),
    /// Nobody's yet.
    Empty(EmptyDir),
}

/// A locked directory in which nothing was accepted yet: no identity says whose it is.
#[derive(Debug)]
pub struct EmptyDir {
    path: PathBuf,
    lock: File,
    wanted: Wanted,
}

/// An open, locked data directory. Dropping it gives up this handle of the lock (the rings may hold others).
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    joined: Option<Arc<Joined>>,
    lock: File,
    created: bool,
}

impl Found {
    /// Looks at `path`, which is made when it does not exist; else nothing in it is changed but the lock. Waits for that at most `wanted.lock_wait`; blocks,
    /// for start-up only.
    pub fn at(path: &Path, wanted: &Wanted) -> Result<Found, DataDirError> {
        fs::create_dir_all(path).map_err(at("make data directory", path))?;
        let path = fs::canonicalize(path).map_err(at("open data directory", path))?;
        let lock = lock(&path, wanted.lock_wait)?;
        let identity_path = path.join(IDENTITY);
        match fs::read_to_string(&identity_path) {
            Ok(text) => {
                let identity = identity::decode(&text).map_err(|what| DataDirError::Identity { path: identity_path, what })?;
                DataDir::open(path, lock, identity, wanted).map(Found::Known)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => EmptyDir::open(path, lock, *wanted).map(Found::Empty),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(DataDirError::Identity { path: identity_path, what: "it is not text".to_owned() })
            }
            Err(error) => Err(at("read", &identity_path)(error)),
        }
    }

    /// The directory, as an absolute path.
    pub fn path(&self) -> &Path {
        match self {
            Found::Known(dir) => &dir.path,
            Found::Empty(dir) => &dir.path,
        }
    }
}

impl EmptyDir {
    fn open(path: PathBuf, lock: File, wanted: Wanted) -> Result<EmptyDir, DataDirError> {
        let is_joining = path.join(JOINING).exists();
        for entry in fs::read_dir(&path).map_err(at("list", &path))? {
            let entry = entry.map_err(at("list", &path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What an interrupted first start leaves: no data was accepted before the identity was there.
            let is_leftover = match name.as_str() {
                LOCK | JOINING | "lost+found" => true,
                JOINED => is_joining,
                new if new.strip_suffix(NEW).is_some_and(|name| [IDENTITY, JOINED, JOINING].contains(&name)) => true,
                test if constants::TEST_FILES.iter().any(|begin| test.starts_with(begin)) => true,
                shard if shard.starts_with("shard-") => fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none()),
                _ => false,
            };
            if !is_leftover {
                return Err(DataDirError::Foreign { path, found: name });
            }
        }
        check_space(&path, wanted.first_start_bytes + RESTART_BYTES_PER_SHARD * u64::from(wanted.shards), true)?;
        Ok(EmptyDir { path, lock, wanted })
    }

    /// Makes it the first node's of a new cluster.
    pub fn begin_cluster(self) -> Result<DataDir, DataDirError> {
        if self.path.join(JOINING).exists() {
            return Err(DataDirError::HalfJoined { path: self.path });
        }
        let (cluster_id, disk) = (random()?, random_disk()?);
        self.become_known(cluster_id, disk, 0, None)
    }

    /// The disk as which it joins a cluster: the same one until it has joined. Durable when it is answered.
    pub fn disk_to_join_as(&self) -> Result<u64, DataDirError> {
        let path = self.path.join(JOINING);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let disk = identity::decode_joining(&text).map_err(|what| DataDirError::Identity { path: path.clone(), what })?;
                sync_file(&path)?;
                sync_dir(&self.path)?;
                Ok(disk)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let disk = random_disk()?;
                put(&self.path, JOINING, identity::encode_joining(disk).as_bytes())?;
                Ok(disk)
            }
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// Makes it that of a node which a cluster has taken in as `disk`. `told` is what was read from `bytes`.
    pub fn join(self, disk: u64, told: Joined, bytes: &[u8]) -> Result<DataDir, DataDirError> {
        let joining = self.path.join(JOINING);
        let dir = self.become_known(told.cluster_id, disk, told.generation, Some((told, bytes)))?;
        fs::remove_file(&joining).map_err(at("remove", &joining))?;
        Ok(dir)
    }

    /// Shard directories, what the cluster told, then the identity.
    fn become_known(
        self,
        cluster_id: [u8; 16],
        disk: u64,
        generation: u32,
        told: Option<(Joined, &[u8])>,
    ) -> Result<DataDir, DataDirError> {
        let EmptyDir { path, lock, wanted } = self;
        for shard in 0..wanted.shards {
            let dir = path.join(shard_dir_name(ShardId(shard)));
            fs::create_dir_all(&dir).map_err(at("make", &dir))?;
            sync_dir(&dir)?;
        }
        let Wanted { node, shards, groups_per_shard, .. } = wanted;
        let identity = Identity { node, cluster_id, disk, generation, version: constants::DATA_DIR_VERSION, shards, groups_per_shard };
        let joined = match told {
            Some((joined, bytes)) => {
                put(&path, JOINED, bytes)?;
                Some(Arc::new(joined))
            }
            None => None,
        };
        put(&path, IDENTITY, identity::encode(&identity).as_bytes())?;
        // The directory's own name is in its parent.
        if let Some(parent) = path.parent() {
            sync_parent(parent)?;
        }
        Ok(DataDir { path, identity, joined, lock, created: true })
    }
}

impl DataDir {
    fn open(path: PathBuf, lock: File, identity: Identity, wanted: &Wanted) -> Result<DataDir, DataDirError> {
        if identity.version != constants::DATA_DIR_VERSION {
            return Err(DataDirError::Version { path, found: identity.version });
        }
        if identity.node != wanted.node {
            return Err(DataDirError::Node { path, found: identity.node, wanted: wanted.node });
        }
        if identity.shards != wanted.shards {
            return Err(DataDirError::Shards { path, found: identity.shards, wanted: wanted.shards });
        }
        if identity.groups_per_shard != wanted.groups_per_shard {
            return Err(DataDirError::Groups { path, found: identity.groups_per_shard, wanted: wanted.groups_per_shard });
        }
        check_space(&path, RESTART_BYTES_PER_SHARD * u64::from(identity.shards), false)?;
        let joined = read_joined(&path, &identity)?.map(Arc::new);
        // What is found is synced before it is trusted: the identity and the directory that names it.
        sync_file(&path.join(IDENTITY))?;
        sync_dir(&path)?;
        // A crash may have left it behind the identity. Nobody reads it any more, so a failure costs nothing.
        let _ = fs::remove_file(path.join(JOINING));
        Ok(DataDir { path, identity, joined, lock, created: false })
    }

    /// Says that the next start of the node in `path`, which must not run, goes on with what it has of the metadata. Durable when it is answered.
    pub fn mark_to_recover(path: &Path, lock_wait: Duration) -> Result<Identity, DataDirError> {
        let path = fs::canonicalize(path).map_err(at("open data directory", path))?;
        let _lock = lock(&path, lock_wait)?;
        let identity_path = path.join(IDENTITY);
        let text = fs::read_to_string(&identity_path).map_err(at("read", &identity_path))?;
        let identity = identity::decode(&text).map_err(|what| DataDirError::Identity { path: identity_path, what })?;
        put(
            &path,
            RECOVER,
            b"# The next start of this node goes on with what it has of the cluster's metadata, whoever voted about them.\n",
        )?;
        Ok(identity)
    }

    /// Whether that was said.
    pub fn is_to_recover(&self) -> bool {
        self.path.join(RECOVER).exists()
    }

    /// It has gone on.
    pub fn on_recovered(&self) -> Result<(), DataDirError> {
        let marker = self.path.join(RECOVER);
        fs::remove_file(&marker).map_err(at("remove", &marker))?;
        sync_dir(&self.path)
    }

    /// The directory, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Who it belongs to.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
    /// What the cluster told it when it joined; `None` for the node that the cluster began with.
    pub fn joined(&self) -> Option<Arc<Joined>> {
        self.joined.clone()
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

/// What the cluster told, if it is a node that joined; it has to be this one.
fn read_joined(path: &Path, identity: &Identity) -> Result<Option<Joined>, DataDirError> {
    let path = path.join(JOINED);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("read", &path)(error)),
    };
    let joined = Joined::decode(&bytes).map_err(|error| DataDirError::Joined { path: path.clone(), what: error.to_string() })?;
    if (joined.cluster_id, joined.generation) != (identity.cluster_id, identity.generation) {
        let what = format!(
            "it is about generation {} in cluster {}, the identity beside it about generation {} in cluster {}",
            joined.generation,
            hex(&joined.cluster_id),
            identity.generation,
            hex(&identity.cluster_id)
        );
        return Err(DataDirError::Joined { path, what });
    }
    sync_file(&path)?;
    Ok(Some(joined))
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

/// Writes a file whole, or leaves what was there: durable when it returns.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
    let (new, last) = (dir.join(format!("{name}{NEW}")), dir.join(name));
    let mut file = File::create(&new).map_err(at("make", &new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at("write", &new))?;
    fs::rename(&new, &last).map_err(at("rename", &new))?;
    sync_dir(dir)
}

fn check_space(path: &Path, needed: u64, first: bool) -> Result<(), DataDirError> {
    let disk = rustix::fs::statvfs(path).map_err(|error| at("ask for the free space of", path)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match free < needed {
        true => Err(DataDirError::Space { path: path.to_owned(), free, needed, first }),
        false => Ok(()),
    }
}

fn random<const N: usize>() -> Result<[u8; N], DataDirError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(at("read", source))?;
    Ok(bytes)
}

/// 0 means "nobody said".
fn random_disk() -> Result<u64, DataDirError> {
    Ok(u64::from_le_bytes(random()?).max(1))
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
