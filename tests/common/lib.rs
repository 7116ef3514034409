//! The harness of the black-box tests: starts the real binary, finds its ports, stops it, and speaks the protocol to it.
//!
//! Invariants: every process started here is ended by its own handle or id, also when a test panics; data directories
//! live under the build's temporary directory (a real file system: O_DIRECT is what is tested); every wait is for an
//! event (an output line, bytes on a socket, the end of a process) and has a generous limit, so a test that fails tells
//! why and none depends on how fast the machine is.
//!
//! Not here: what any test expects. `node` runs the broker, `peer` speaks the protocol frame by frame, `tool` runs the
//! command-line programs, `nodes` places several of them, `cluster` drives the scripts that run them apart, `netns` stands in a namespace, `flights` makes the input table.

pub mod cluster;
pub mod flights;
pub mod layout;
pub mod mount;
pub mod netns;
pub mod node;
pub mod nodes;
pub mod numbered;
pub mod peer;
pub mod tool;

pub use node::{Node, Options};
pub use peer::Peer;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The limit of every single wait: far above anything seen (a loaded two-core machine), so that reaching it means "hangs".
pub const WAIT: Duration = Duration::from_secs(60);

/// The checkout.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where cargo puts the binaries of the profile that the tests were built with: a test lies in `deps` there.
pub fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors().nth(2).expect("a test lies in a directory of the profile's").to_owned()
}

/// A directory that goes away with its handle, on the file system of the build directory.
pub fn temp_dir(purpose: &str) -> tempfile::TempDir {
    let base = profile_dir().with_file_name("tmp");
    std::fs::create_dir_all(&base).expect("the build's temporary directory");
    tempfile::Builder::new().prefix(&format!("{purpose}-")).tempdir_in(&base).expect("a directory for the test")
}

/// Copies a directory with everything in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("its kind").is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => _ = std::fs::copy(entry.path(), to).expect("copied"),
        }
    }
}

/// Says on the real standard error (not the captured one) that a test could not run here, and why.
pub fn not_run(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
}

/// A seed for a test's dice: from `TRAMLINE_TEST_SEED`, else from the clock; printed either way.
pub fn seed() -> u64 {
    let seed = match std::env::var("TRAMLINE_TEST_SEED") {
        Ok(text) => text.parse().expect("TRAMLINE_TEST_SEED is a number"),
        Err(_) => {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
            since.as_nanos() as u64
        }
    };
    println!("TRAMLINE_TEST_SEED={seed}");
    seed
}

/// A small deterministic source of numbers (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number in `from..to`.
    pub fn in_range(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % (to - from)
    }
}

/// The files directly in `dir` whose name starts with `prefix`, sorted by name.
pub fn files_with_prefix(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    files.sort();
    files
}

/// The first place of `needle` in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // Plain search on the first byte: segments are tens of MiB at most, and the needle starts rarely.
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|b| *b == first) {
        let at = from + at;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
