//! How often a broker really syncs: its system calls are traced while records go one by one.
//!
//! What counts is fsync, fdatasync, msync, sync_file_range, and each write to a file that is open with O_SYNC or O_DSYNC. Tracing slows the broker, so latencies are
//! taken in another trial. Tramline writes through io_uring, which no tracer of system calls sees: there its own count of written log blocks is taken,
//! and believed only if it has files open with O_DSYNC.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::fault::{Fallible, Fault, Told, fault};
use crate::kinds::PeerKind;
use crate::peer::Reach;
use crate::servers::{Server, admin_port};

/// Octal flags of open(2) on Linux: O_DSYNC. O_SYNC has this bit too.
const O_DSYNC: u32 = 0o10000;
/// How long strace may take to attach to all threads.
const ATTACH_PATIENCE: Duration = Duration::from_secs(20);
const CALLS: &str = "fsync,fdatasync,msync,sync_file_range,write,writev,pwrite64,pwritev,pwritev2";

/// A count under way.
pub enum Counter {
    /// By strace, into a file.
    Traced {
        /// The tracer.
        strace: Child,
        /// Its output.
        output: PathBuf,
        /// Whom it traces.
        pid: u32,
    },
    /// By the broker's own metrics.
    Asked {
        /// Port of its metrics.
        port: u16,
        /// Blocks written before.
        before: f64,
        /// The broker.
        pid: u32,
    },
}

/// What was counted.
pub struct Counted {
    /// Syncs.
    pub count: u64,
    /// How.
    pub by: String,
}

impl Counter {
    /// Begins to count.
    pub fn begin(reach: &Reach, server: &Server, output: &Path) -> Fallible<Counter> {
        let pid = server.pid();
        if reach.kind == PeerKind::Tramline {
            let port = admin_port(reach.port);
            return Ok(Counter::Asked { port, before: blocks_written(port)?, pid });
        }
        let mut command = Command::new("strace");
        command.args(["-f", "-s", "0", "-e", &format!("trace={CALLS}"), "-e", "signal=none", "-p", &pid.to_string(), "-o"]).arg(output);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut strace = spawned.told("cannot start strace (run.sh installs it)")?;
        let said = strace.stderr.take().ok_or_else(|| Fault("strace has no standard error".to_owned()))?;
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let counter = Counter::Traced { strace, output: output.to_owned(), pid };
        // One line for the process, after all of its threads are attached.
        match told.recv_timeout(ATTACH_PATIENCE) {
            Ok(line) if line.contains("attached") => Ok(counter),
            Ok(line) => fault(format!("strace cannot trace the broker: {line}")),
            Err(_) => fault("strace did not attach to the broker"),
        }
    }

    /// Ends counting.
    pub fn end(mut self) -> Fallible<Counted> {
        match &mut self {
            Counter::Asked { port, before, pid } => {
                let count = (blocks_written(*port)? - *before).max(0.0) as u64;
                let files = synced_files(*pid)?.len();
                if files == 0 {
                    return fault("tramline has no file open with O_DSYNC: its count of blocks says nothing about syncs");
                }
                Ok(Counted { count, by: format!("tramline_log_blocks_written_total; {files} files open with O_DSYNC") })
            }
            Counter::Traced { strace, output, pid } => {
                let synced = synced_files(*pid)?;
                stop(strace)?;
                let text = fs::read_to_string(&*output).told("cannot read strace's output")?;
                let _ = fs::remove_file(&*output);
                let by_call = count(&text, &synced);
                let told: Vec<String> = by_call.iter().map(|(call, count)| format!("{call} {count}")).collect();
                let told = if told.is_empty() { "none".to_owned() } else { told.join(", ") };
                Ok(Counted { count: by_call.values().sum(), by: format!("strace: {told}") })
            }
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Counter::Traced { strace, .. } = self {
            let _ = stop(strace); // detaches; a killed tracer would leave the broker to the kernel
        }
    }
}

fn stop(strace: &mut Child) -> Fallible<()> {
    if let (Ok(None), Some(pid)) = (strace.try_wait(), i32::try_from(strace.id()).ok().and_then(Pid::from_raw)) {
        let _ = kill_process(pid, Signal::INT);
    }
    strace.wait().map(drop).told("strace")
}

/// Descriptors that are open with O_SYNC or O_DSYNC.
fn synced_files(pid: u32) -> Fallible<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).told("cannot read the broker's descriptors")?;
    let is_synced = |text: &str| {
        let flags = text.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        flags.is_some_and(|flags| flags & O_DSYNC != 0)
    };
    let found = entries.flatten().filter_map(|entry| {
        let descriptor: u32 = entry.file_name().to_str()?.parse().ok()?;
        fs::read_to_string(entry.path()).ok().filter(|text| is_synced(text)).map(|_| descriptor)
    });
    Ok(found.collect())
}

/// Syncs by system call in strace's lines: `PID call(descriptor, …) = result`. One that is interrupted by another thread's line has two: the first counts.
fn count(trace: &str, synced: &[u32]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        let call = call.rsplit(' ').next().unwrap_or_default();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let descriptor: Option<u32> = rest[..digits].parse().ok();
        let counts_as = match call {
            "fsync" | "fdatasync" | "msync" | "sync_file_range" => Some(call.to_owned()),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                descriptor.filter(|it| synced.contains(it)).map(|_| format!("{call} to O_SYNC/O_DSYNC"))
            }
            _ => None,
        };
        if let Some(name) = counts_as {
            *counts.entry(name).or_insert(0) += 1;
        }
    }
    counts
}

/// Log blocks that Tramline has written, without the empty ones of an idle log.
fn blocks_written(port: u16) -> Fallible<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).told("cannot reach Tramline's metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).told("metrics")?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: peers\r\nConnection: close\r\n\r\n").told("cannot ask for metrics")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).told("cannot read metrics")?;
    let of = |name: &str| sample(&text, name).ok_or_else(|| Fault(format!("Tramline's metrics have no {name}")));
    Ok(of("tramline_log_blocks_written_total")? - of("tramline_log_marks_written_total")?)
}

fn sample(text: &str, name: &str) -> Option<f64> {
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_and_plain_writes_are_not() {
        let trace = "101 fdatasync(12) = 0\n102 write(7, \"\"..., 1024) = 1024\n102 pwrite64(9, \"\"..., 1024, 0) = 1024\n\
                     101 fsync(12 <unfinished ...>\n102 write(9, \"\"..., 3) = 3\n101 <... fsync resumed>) = 0\n101 +++ exited with 0 +++\n";
        let counted = count(trace, &[9]);
        let told: Vec<(&str, u64)> = counted.iter().map(|(call, count)| (call.as_str(), *count)).collect();
        assert_eq!(told, [("fdatasync", 1), ("fsync", 1), ("pwrite64 to O_SYNC/O_DSYNC", 1), ("write to O_SYNC/O_DSYNC", 1)]);
        assert_eq!(count(trace, &[]).values().sum::<u64>(), 2);
    }

    #[test]
    fn metrics_are_summed_over_shards_and_absent_ones_are_not_zero() {
        let text = "# TYPE a_total counter\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\nab_total 9\n";
        assert_eq!((sample(text, "a_total"), sample(text, "b_total")), (Some(7.0), None));
    }
}
