//! The broker under test: a real `tramline serve` process.
//!
//! Invariants: it is stopped by a signal (SIGSTOP) while limits are measured, since a spinning shard would take half of the
//! core; it is killed when this value goes away, whatever happens.

use crate::error::{BenchError, io_error};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a start may take: a lock that a killed predecessor still holds, recovery, pool.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the pool may take to be filled: 1.5 GiB at no less than 15 MB/s.
const POOL_PATIENCE: Duration = Duration::from_secs(100);

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    process: Child,
    /// Address of its clients' port.
    pub address: String,
    /// Address of its metrics.
    admin: String,
}

/// How to start it.
#[derive(Clone, Debug)]
pub struct BrokerOptions<'a> {
    /// The binary.
    pub binary: &'a Path,
    /// Its data directory.
    pub data_dir: &'a Path,
    /// Its one core.
    pub cpu: usize,
    /// `--spin`.
    pub spin: &'a str,
    /// Settings `key=value`, handed over in the environment.
    pub settings: &'a [String],
    /// Where its process id is written, for whoever has to clean up after this program.
    pub pid_file: &'a Path,
    /// Further arguments, of a node that is not alone.
    pub arguments: &'a [String],
}

impl Broker {
    /// Starts it and waits until it accepts connections.
    pub fn start(options: &BrokerOptions<'_>) -> Result<Broker, BenchError> {
        let mut command = Command::new(options.binary);
        command.arg("serve").arg("--data-dir").arg(options.data_dir);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1", "--spin", options.spin]);
        command.args(["--cpus", &options.cpu.to_string()]).args(options.arguments);
        for setting in options.settings {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| BenchError::Broker(format!("setting {setting:?} is not key=value")))?;
            command.env(format!("TRAMLINE_{}", key.replace('.', "_").to_uppercase()), value);
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(io_error("cannot start tramline"))?;
        std::fs::write(options.pid_file, process.id().to_string()).map_err(io_error("cannot write the work directory"))?;
        let out = process.stdout.take().ok_or_else(|| BenchError::Broker("no standard output".to_owned()))?;
        let mut broker = Broker { process, address: String::new(), admin: String::new() };
        let (tell, told) = mpsc::channel();
        // The thread also empties the pipe afterwards, so that the broker never blocks on it.
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        loop {
            let line = told.recv_timeout(START_PATIENCE).map_err(|_| BenchError::Broker(broker.epitaph("it did not become ready")))?;
            if let Some(client) = line.strip_prefix("ready ").and_then(|rest| rest.split(' ').find_map(|word| word.strip_prefix("client=")))
            {
                broker.address = client.to_owned();
                let admin = line.split(' ').find_map(|word| word.strip_prefix("admin=")).unwrap_or_default();
                broker.admin = admin.to_owned();
                return Ok(broker);
            }
        }
    }

    /// Waits until `segments` prepared segments are written, so that what is measured does not go into fresh extents.
    pub fn wait_for_pool(&self, segments: u32) -> Result<(), BenchError> {
        let started = Instant::now();
        loop {
            let count = self.metric("tramline_segments", "state=\"pool_written\"")?;
            if count >= f64::from(segments) {
                return Ok(());
            }
            if started.elapsed() > POOL_PATIENCE {
                return Err(BenchError::Broker(format!("{count} of {segments} prepared segments after {} s", POOL_PATIENCE.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The sum of the samples of one metric whose labels contain `label`; 0 when there is none.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64, BenchError> {
        let (_, text) = self.get("/metrics")?;
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label);
        Ok(text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Whether /readyz says yes.
    pub fn is_ready(&self) -> Result<bool, BenchError> {
        Ok(self.get("/readyz")?.0.contains(" 200 "))
    }

    /// Status line and text.
    fn get(&self, path: &str) -> Result<(String, String), BenchError> {
        let mut text = String::new();
        let mut stream = TcpStream::connect(&self.admin).map_err(io_error("cannot reach the broker's metrics"))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").map_err(io_error("cannot ask for metrics"))?;
        stream.read_to_string(&mut text).map_err(io_error("cannot read metrics"))?;
        Ok((text.lines().next().unwrap_or_default().to_owned(), text))
    }

    /// Memory that it has in, in MiB.
    pub fn resident_mib(&self) -> Result<f64, BenchError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))
            .map_err(io_error("cannot read the broker's /proc/PID/status"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).ok_or_else(|| BenchError::Broker("no VmRSS in its /proc/PID/status".to_owned()))
    }

    /// Stops it in order.
    pub fn stop(mut self) -> Result<(), BenchError> {
        self.signal(Signal::TERM)?;
        let since = Instant::now();
        loop {
            match self.process.try_wait().map_err(io_error("cannot wait for the broker"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(BenchError::Broker(format!("its orderly stop ended with {status}"))),
                None if since.elapsed() > START_PATIENCE => return Err(BenchError::Broker("it did not stop".to_owned())),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Ends it as a crash does, and waits until it is gone.
    pub fn kill(mut self) -> Result<(), BenchError> {
        self.signal(Signal::KILL)?;
        self.process.wait().map_err(io_error("cannot wait for the broker"))?;
        Ok(())
    }

    fn epitaph(&mut self, what: &str) -> String {
        match self.process.try_wait() {
            Ok(Some(status)) => format!("it ended ({status}) before it was ready; its reason is above"),
            _ => what.to_owned(),
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<(), BenchError> {
        if let Ok(Some(status)) = self.process.try_wait() {
            return Err(BenchError::Broker(format!("it ended in the middle of the run ({status})")));
        }
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| BenchError::Broker("it has no process id".to_owned()))?;
        kill_process(pid, signal).map_err(|e| BenchError::Io("cannot signal the broker", e.into()))
    }

    /// Takes it off its core.
    pub fn pause(&mut self) -> Result<(), BenchError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn resume(&mut self) -> Result<(), BenchError> {
        self.signal(Signal::CONT)
    }

    /// Bytes this process made the disk read so far, as the kernel counts them.
    pub fn disk_read_bytes(&self) -> Result<u64, BenchError> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.process.id()))
            .map_err(io_error("cannot read the broker's /proc/PID/io"))?;
        let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
        line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| BenchError::Broker("no read_bytes in its /proc/PID/io".to_owned()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
