//! Runs `tramline-limits` as a process of its own and reads its figures.

use crate::error::{BenchError, io_error};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How to run it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The binary.
    pub binary: PathBuf,
    /// Where its files are kept from run to run.
    pub dir: PathBuf,
    /// Server's CPU, client's CPU.
    pub cpus: [usize; 2],
    /// Seconds per point.
    pub seconds: f64,
    /// What is read, instead of a file made for it.
    pub read_file: Option<PathBuf>,
}

impl Limits {
    /// The same with another time per point.
    pub fn for_seconds(&self, seconds: f64) -> Limits {
        Limits { seconds, ..self.clone() }
    }

    /// The figures of the measurements named in `only`.
    pub fn run(&self, only: &str) -> Result<BTreeMap<String, f64>, BenchError> {
        self.run_with(only, &[])
    }

    /// The same with further arguments.
    pub fn run_with(&self, only: &str, arguments: &[String]) -> Result<BTreeMap<String, f64>, BenchError> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .args(["--json", "--keep", "--only", only])
            .arg("--dir")
            .arg(&self.dir)
            .args(["--cpus", &format!("{},{}", self.cpus[0], self.cpus[1]), "--seconds", &self.seconds.to_string()])
            .args(self.read_file.iter().flat_map(|path| [std::ffi::OsStr::new("--read-file"), path.as_os_str()]))
            .stderr(Stdio::piped())
            .output()
            .map_err(io_error("cannot start tramline-limits"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(BenchError::Limits(said.lines().last().unwrap_or("it failed without a word").to_owned()));
        }
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|e| BenchError::Limits(format!("unreadable output: {e}")))?;
        let limits = report["limits"].as_object().ok_or_else(|| BenchError::Limits("its output has no limits".to_owned()))?;
        Ok(limits.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect())
    }
}
