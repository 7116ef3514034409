//! File systems of the test's own: small ones in a file, and mounts that are undone.
//!
//! Not here: what a broker does on them.

use crate::not_run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount that is undone with its handle.
pub struct Mount(PathBuf);

impl Mount {
    /// Runs `mount` with these arguments. `Err` has its message.
    pub fn new(arguments: &[&str], at: &Path) -> Result<Mount, String> {
        let output = Command::new("mount").args(arguments).arg(at).output().map_err(|e| format!("mount does not run: {e}"))?;
        if output.status.success() { Ok(Mount(at.to_owned())) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the rings of a process that has just ended still hold their files for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A file system (`ext4` or `xfs`) of `bytes` in a file below `dir`, mounted; `None` (said aloud) where that cannot be had.
pub fn small_disk(test: &str, dir: &Path, file_system: &str, bytes: u64) -> Option<(Mount, PathBuf)> {
    let (image, path) = (dir.join("image"), dir.join("data"));
    std::fs::create_dir(&path).expect("a directory");
    std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image");
    let (program, arguments) = match file_system {
        "ext4" => ("mkfs.ext4", &["-q", "-F", "-m", "0"][..]),
        "xfs" => ("mkfs.xfs", &["-q", "-f"][..]),
        other => panic!("no recipe for {other}"),
    };
    match Command::new(program).args(arguments).arg(&image).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            not_run(test, &format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            return None;
        }
        Err(error) => {
            not_run(test, &format!("{program} does not run: {error}"));
            return None;
        }
    }
    match Mount::new(&["-o", "loop", &image.display().to_string()], &path) {
        Ok(mount) => Some((mount, path)),
        Err(why) => {
            not_run(test, &format!("an image cannot be mounted here (root is needed): {why}"));
            None
        }
    }
}
