//! No safe way on: what a shard, or the process, does then.
//!
//! Invariants: a shard that met a fatal condition stops for good and the others go on (D4); the reason is logged once, here, and kept as
//! evidence in the shard's directory for whoever comes after the restart; a panic is a defect and ends the process (`panic = "abort"`),
//! after one line that says where.
//!
//! Not here: deciding that something is fatal (each room), giving leaderships away (the shard), `/readyz` (`metrics/health.rs` keeps the reason).

use crate::ids::ShardId;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// File in a shard's directory that collects the reasons for which the shard stopped; appended to, never read by the broker.
pub const EVIDENCE_FILE: &str = "fatal.log";

/// Logs why `shard` stops and leaves the reason in its directory `dir`. Returns the file, or `None` when it could not be written.
///
/// The write happens on a thread of its own: the disk that failed may never answer, and the caller has leaderships to give away.
pub fn shard_stops(shard: ShardId, dir: &Path, reason: &str, utc_us: i64) -> std::thread::JoinHandle<Option<PathBuf>> {
    tracing::error!(
        shard = shard.0,
        "shard {shard} stops: {reason}. It acknowledges nothing more; other shards go on. Look at the disk and the kernel's log, then restart the node"
    );
    let (path, line) = (dir.join(EVIDENCE_FILE), format!("utc_us={utc_us} version={} shard={shard} {reason}\n", crate::constants::VERSION));
    std::thread::spawn(move || {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all()));
        match written {
            Ok(()) => Some(path),
            Err(error) => {
                tracing::warn!("the reason could not be kept in {}: {error}", path.display());
                None
            }
        }
    })
}

/// Makes a panic say where it happened, on which thread, and what to do, in the form of all other messages.
pub fn install_panic_hook() {
    let standard = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            "this is a defect of tramline {}: {info}. The process ends; what was acknowledged as durable is safe. Please report it with this line",
            crate::constants::VERSION
        );
        standard(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_kept_beside_the_data() {
        let dir = tempfile::tempdir().unwrap();
        for reason in ["write of block 7 failed with error 5", "again"] {
            shard_stops(ShardId(3), dir.path(), reason, 12).join().unwrap().expect("written");
        }
        let text = std::fs::read_to_string(dir.path().join(EVIDENCE_FILE)).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("utc_us=12 ") && text.contains("shard=3 write of block 7 failed"), "{text}");
        assert!(shard_stops(ShardId(0), &dir.path().join("missing"), "x", 0).join().unwrap().is_none());
    }
}
