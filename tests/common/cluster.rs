//! A cluster of `scripts/cluster/`: up, verbs, connections from where one wants, down.
//!
//! Invariants: `down` runs when the handle goes away, also when a test panics. Not here: what the faults do (the script), what nodes are to do about them.

use crate::netns::inside;
use crate::node::binary;
use crate::tool::{Ran, program, run_command};
use crate::{Peer, ROOT, not_run, temp_dir};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The exit code for "cannot be had on this machine".
const CANNOT: i32 = 3;

/// Runs the script with these arguments.
pub fn script(arguments: &[&str]) -> Ran {
    let path = Path::new(ROOT).join("scripts/cluster/cluster.sh");
    run_command(Command::new(path).env_remove("TRAMLINE_CLUSTER_DIR").env_remove("TRAMLINE_TEST_SEED").args(arguments), b"")
}

/// A cluster, or what is left of one.
pub struct Cluster {
    dir: PathBuf,
    /// What names of the machine begin with.
    id: String,
    // Holds the directory's place.
    _parent: tempfile::TempDir,
}

impl Cluster {
    /// Small nodes, ready; `None` (said aloud) where that cannot be had.
    pub fn up(test: &str, arguments: &[&str]) -> Option<Cluster> {
        // The proxy is looked for beside the broker.
        program("tramline-proxy");
        let small =
            ["--", "--shards", "1", "--set", "segment.bytes=16MiB", "--set", "memory.prefault=false", "--set", "throttle.time=100ms"];
        let mut all = vec!["--binary", binary(), "--disk", "536870912"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&small);
        let (cluster, ran) = Cluster::try_up(&all);
        if ran.code == CANNOT {
            not_run(test, ran.stderr.trim());
            return None;
        }
        ran.ok();
        Some(cluster)
    }

    /// As it comes, also a failed one.
    pub fn try_up(arguments: &[&str]) -> (Cluster, Ran) {
        let parent = temp_dir("cluster");
        let dir = parent.path().join("it");
        let mut all = vec!["--dir", dir.to_str().expect("a path in UTF-8"), "up", "--apart"];
        all.extend_from_slice(arguments);
        let ran = script(&all);
        let id = fs::read_to_string(dir.join("id")).unwrap_or_default().trim().to_owned();
        (Cluster { dir, id, _parent: parent }, ran)
    }

    /// Runs a verb.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut all = vec!["--dir", self.dir.to_str().expect("a path in UTF-8")];
        all.extend_from_slice(arguments);
        script(&all)
    }

    /// Runs a verb that has to succeed, and gives its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok().text()
    }

    /// What `status` tells now. Some tenths of a second on a busy machine: ask once for several words.
    pub fn status(&self) -> Status {
        Status(self.ok(&["status"]))
    }

    /// The namespace of a node, or of clients (`client`).
    pub fn namespace(&self, place: &str) -> PathBuf {
        Path::new("/run/netns").join(format!("{}-{place}", self.id))
    }

    /// Where clients reach a node.
    pub fn address(node: u32) -> SocketAddr {
        format!("10.7.0.{node}:7410").parse().expect("an address")
    }

    /// A connection to a node, from a place.
    pub fn connect(&self, from: &str, node: u32) -> Peer {
        inside(&self.namespace(from), || Peer::connect(Cluster::address(node)))
    }

    /// Whatever of it is on this machine still: namespaces, mounts, loop devices, control groups, files.
    pub fn remains(&self) -> Vec<String> {
        assert!(self.id.starts_with("tl") || !self.dir.exists(), "a cluster without a name");
        let ours = |path: PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{}-", self.id)));
        let entries = |dir: &str| -> Vec<PathBuf> {
            fs::read_dir(dir).map_or(Vec::new(), |all| all.map(|one| one.expect("listed").path()).collect())
        };
        let named =
            ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/blkio"].into_iter().flat_map(entries).filter(|path| ours(path.clone()));
        let mut found: Vec<String> = named.map(|path| path.display().to_string()).collect();
        let dir = self.dir.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        found.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
        let loops = entries("/sys/block").into_iter().map(|device| device.join("loop/backing_file"));
        let backing = loops.filter_map(|file| fs::read_to_string(file).ok());
        found.extend(backing.filter(|file| file.contains(&dir)));
        if self.dir.exists() {
            found.push(dir);
        }
        found
    }
}

/// What `status` told.
pub struct Status(String);

impl Status {
    /// One word of a node's line.
    pub fn of(&self, node: u32, name: &str) -> &str {
        let line = self.0.lines().find(|line| line.starts_with(&format!("node={node} ")));
        let line = line.unwrap_or_else(|| panic!("no node {node} in {}", self.0));
        let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {line}"))
    }

    /// Packets dropped at a node since its faults were last changed.
    pub fn dropped(&self, at: u32) -> u64 {
        self.of(at, "dropped").parse().expect("a number")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let ran = self.run(&["down"]);
        if ran.code != 0 && ran.code != CANNOT {
            eprintln!("the cluster in {} does not go: {}", self.dir.display(), ran.stderr);
        }
    }
}
