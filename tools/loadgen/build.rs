//! Tells the program which commit it was built from, for its reports: the hash, with a `+` behind it when the tree was changed.
//!
//! Invariant: without git, or outside a checkout (a source archive, also one that was unpacked inside another project's checkout), the
//! commit is `unknown` and the build goes on. `TRAMLINE_COMMIT` in the environment takes its place, for those who build from archives.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=TRAMLINE_COMMIT");
    // The `+` is as of the last look; these are the files whose change usually comes with a commit or with an edit here.
    for path in ["build.rs", "src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let given = std::env::var("TRAMLINE_COMMIT").ok().filter(|commit| !commit.is_empty());
    println!("cargo::rustc-env=TRAMLINE_LOADGEN_COMMIT={}", given.or_else(commit).unwrap_or_else(|| "unknown".to_owned()));
}

fn commit() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let head = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    Some(format!("{head}{}", if changed { "+" } else { "" }))
}

/// What git prints in this package's folder; nothing when it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
