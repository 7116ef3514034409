//! What the kernel says about the open segment files: `/proc/PID/fdinfo` shows O_DSYNC and O_DIRECT.

use common::layout::Rec;
use common::{Node, Options, Peer};
use std::path::PathBuf;

/// The files the process has open whose name starts with `prefix`, with their open flags.
fn open_files(pid: u32, prefix: &str) -> Vec<(PathBuf, i32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc/PID/fd") {
        let entry = entry.expect("an entry");
        // A descriptor may be closed while we look.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if !target.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        let Ok(info) = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy())) else { continue };
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).expect("a flags line");
        found.push((target, i32::from_str_radix(flags.trim(), 8).expect("octal flags")));
    }
    found
}

#[test]
fn live_segments_are_open_with_o_dsync_and_o_direct() {
    let node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    for partition in peer.topic("t", 4, &[]) {
        peer.put(partition.uid, &[Rec::value("v")]);
    }
    for shard in 0..2 {
        let dir = node.shard_dir(shard).canonicalize().expect("the shard's directory");
        let files: Vec<_> = open_files(node.process.pid(), "seg-").into_iter().filter(|(path, _)| path.starts_with(&dir)).collect();
        assert!(!files.is_empty(), "shard {shard} has no segment open");
        for (path, flags) in files {
            // Every handle, since a segment that is only read now may be the live one next.
            assert_eq!(flags & libc::O_DSYNC, libc::O_DSYNC, "{}: O_DSYNC in {flags:o}", path.display());
            assert_eq!(flags & libc::O_DIRECT, libc::O_DIRECT, "{}: O_DIRECT in {flags:o}", path.display());
            assert_eq!(flags & libc::O_ACCMODE, libc::O_RDWR, "{}: read and write in {flags:o}", path.display());
        }
    }
}
