//! One running broker: start, ready line, signals, end, and what `/proc` and its HTTP port say about it.

use crate::{WAIT, profile_dir, temp_dir};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The broker's binary, as cargo built it for these tests.
pub fn binary() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| profile_dir().join("tramline").into_os_string().into_string().expect("a path of text"))
}

/// How to start a node. The defaults are small: 16 MiB segments, one shard, not pinned, parked when idle, memory only as it is needed.
/// The space marks are low: how much of its disk the machine has left is nothing that a test may depend on.
#[derive(Clone)]
pub struct Options {
    /// Value of `--listen`.
    pub listen: String,
    /// Value of `--admin`.
    pub admin: String,
    /// Value of `--shards`; `None` leaves the flag out.
    pub shards: Option<u16>,
    /// `--set key=value` pairs.
    pub settings: Vec<(String, String)>,
    /// Value of `--spin`.
    pub spin: &'static str,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Environment of the process beside the inherited one.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
            shards: Some(1),
            settings: [
                ("segment.bytes", "16MiB"),
                ("memory.prefault", "false"),
                ("disk.warn.free", "1MiB"),
                ("disk.slow.free", "1MiB"),
                ("disk.refuse.free", "1MiB"),
            ]
            .map(|(k, v)| (k.into(), v.into()))
            .to_vec(),
            spin: "adaptive",
            arguments: vec!["--unpinned".into()],
            environment: Vec::new(),
        }
    }
}

impl Options {
    /// The defaults with `shards` shards.
    pub fn shards(shards: u16) -> Options {
        Options { shards: Some(shards), ..Options::default() }
    }

    /// Adds a setting.
    pub fn set(mut self, key: &str, value: &str) -> Options {
        self.settings.retain(|(k, _)| k != key);
        self.settings.push((key.into(), value.into()));
        self
    }

    /// The command that starts a node of this kind on `dir`.
    pub fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data-dir").arg(dir);
        command.args(["--listen", &self.listen, "--admin", &self.admin, "--spin", self.spin]);
        if let Some(shards) = self.shards {
            command.arg("--shards").arg(shards.to_string());
        }
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        // The harness's own variables are none of the broker's: it would warn about names it does not know.
        command.env_remove("TRAMLINE_TEST_SEED");
        command.args(&self.arguments).envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}

/// A started process and the lines it prints. It is killed when the handle goes away.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    stderr_path: PathBuf,
    ended: Option<ExitStatus>,
    // Holds the file of the standard error; removed after the process.
    _scratch: tempfile::TempDir,
}

impl Process {
    /// Starts `command` (whose standard output must be piped) with its standard error in a file.
    pub fn start(command: &mut Command) -> Process {
        let scratch = temp_dir("stderr");
        let stderr_path = scratch.path().join("stderr");
        let stderr = std::fs::File::create(&stderr_path).expect("a file for the standard error");
        let mut child = command.stderr(stderr).spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let stdout = child.stdout.take().expect("the standard output is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Process { child, lines, stderr_path, ended: None, _scratch: scratch }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of the standard output; `None` when the output ended (the process did).
    pub fn next_line(&mut self, limit: Duration) -> Option<String> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {limit:?}; standard error:\n{}", self.stderr()),
        }
    }

    /// The next line of the standard output, if one comes within `limit` and before the process ends.
    pub fn line_within(&mut self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// Waits `time` and asserts that nothing was printed and the process did not end: the way to let time pass in a measurement.
    pub fn watch_quietly(&mut self, time: Duration) {
        match self.lines.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("the process ended; standard error:\n{}", self.stderr()),
            Ok(line) => panic!("an unexpected line: {line}"),
        }
    }

    /// What the process wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr_path).unwrap_or_default()).into_owned()
    }

    /// SIGKILL, then the end.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().expect("SIGKILL to our own child");
            self.ended = Some(self.child.wait().expect("the end of our own child"));
        }
    }

    /// Sends a signal by name (`TERM`, `INT`). The shell's built-in `kill`: no `unsafe` and no package for one system call.
    pub fn signal(&self, name: &str) {
        assert!(self.ended.is_none(), "the process has ended already");
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status().expect("sh runs");
        assert!(status.success(), "kill -{name} failed");
    }

    /// Whether the process has ended, for whoever has something to do until then.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the state of our own child");
        }
        self.ended.is_some()
    }

    /// Waits for the end of the process. Its standard output closes with it, and that is what is waited for.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let until = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running after {limit:?}; standard error:\n{}", self.stderr()),
            }
        }
        let status = self.child.wait().expect("the end of our own child");
        self.ended = Some(status);
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- standard error of process {}:\n{}---", self.pid(), tail(&self.stderr(), 8000));
        }
    }
}

fn tail(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// What the ready line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Node number.
    pub node: u32,
    /// The common client port.
    pub client: SocketAddr,
    /// The HTTP port.
    pub admin: SocketAddr,
    /// Number of shards.
    pub shards: u16,
}

impl Ready {
    /// Parses the line to the letter: these fields, in this order, one space apart.
    pub fn parse(line: &str) -> Option<Ready> {
        let mut words = line.split(' ');
        if words.next()? != "ready" {
            return None;
        }
        let mut field = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        let ready = Ready {
            node: field("node")?.parse().ok()?,
            client: field("client")?.parse().ok()?,
            admin: field("admin")?.parse().ok()?,
            shards: field("shards")?.parse().ok()?,
        };
        words.next().is_none().then_some(ready)
    }
}

/// A running node.
pub struct Node {
    /// The process.
    pub process: Process,
    /// What it said when it was ready.
    pub ready: Ready,
    options: Options,
    dir: PathBuf,
    /// The directory made for this node, if it made one; shared by its restarts.
    owned_dir: Option<tempfile::TempDir>,
}

impl Node {
    /// A node with default options on a directory of its own.
    pub fn start() -> Node {
        Node::with(Options::default())
    }

    /// A node on a directory of its own.
    pub fn with(options: Options) -> Node {
        let dir = temp_dir("node");
        let mut node = Node::at(dir.path(), options);
        node.owned_dir = Some(dir);
        node
    }

    /// A node on a given data directory, which stays when the node goes away.
    pub fn at(dir: &Path, options: Options) -> Node {
        let mut process = Process::start(&mut options.command(dir));
        let ready = wait_ready(&mut process);
        Node { process, ready, options, dir: dir.to_owned(), owned_dir: None }
    }

    /// Nodes of one cluster: none is ready before a majority runs.
    pub fn together(starts: &[(&Path, Options)]) -> Vec<Node> {
        let processes: Vec<_> = starts.iter().map(|(dir, options)| Process::start(&mut options.command(dir))).collect();
        let ready = |(mut process, (dir, options)): (Process, &(&Path, Options))| {
            let ready = wait_ready(&mut process);
            Node { process, ready, options: options.clone(), dir: dir.to_path_buf(), owned_dir: None }
        };
        std::iter::zip(processes, starts).map(ready).collect()
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of a shard.
    pub fn shard_dir(&self, shard: u16) -> PathBuf {
        self.dir.join(format!("shard-{shard}"))
    }

    /// The client address in the form tools take.
    pub fn server(&self) -> String {
        self.ready.client.to_string()
    }

    /// SIGTERM and the orderly end (asserted: exit code 0).
    pub fn stop(&mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(WAIT);
        assert_eq!(status.code(), Some(0), "exit after SIGTERM; standard error:\n{}", self.process.stderr());
    }

    /// Starts the node again on the same directory; it must have ended.
    pub fn restart(self) -> Node {
        let options = self.options.clone();
        self.restart_with(options)
    }

    /// Starts a process on the same directory and kills it after `time`, unless it was ready before. Answers whether it was not.
    pub fn kill_a_start(&self, time: Duration) -> bool {
        assert!(self.process.ended.is_some(), "stop or kill it first");
        let mut process = Process::start(&mut self.options.command(&self.dir));
        let was_ready = process.line_within(time).is_some();
        process.kill();
        !was_ready
    }

    /// As `restart`, with other options.
    pub fn restart_with(mut self, options: Options) -> Node {
        assert!(self.process.ended.is_some(), "stop or kill it first");
        let mut process = Process::start(&mut options.command(&self.dir));
        let ready = wait_ready(&mut process);
        Node { process, ready, options, dir: std::mem::take(&mut self.dir), owned_dir: self.owned_dir.take() }
    }

    /// Starts it again expecting a refusal; gives the exit code and the standard error.
    pub fn restart_refused(&self, options: &Options) -> (i32, String) {
        refused(&self.dir, options)
    }

    /// `GET path` at the admin port: status and body.
    pub fn http(&self, path: &str) -> (u16, String) {
        http_get(self.ready.admin, path)
    }

    /// The sum of all series of a metric family (with the exact sample name), 0 when it has none.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, body) = self.http("/metrics");
        assert_eq!(status, 200, "/metrics: {body}");
        metric_in(&body, name)
    }

    /// Resident memory in KiB, from `/proc`.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("/proc/PID/status");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a VmRSS line");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB")
    }

    /// User and system time used so far, in clock ticks (100 per second on Linux).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid())).expect("/proc/PID/stat");
        // The second field is the program's name in parentheses and may hold spaces; utime and stime are fields 14 and 15.
        let after_name = &stat[stat.rfind(')').expect("a name in parentheses") + 2..];
        let field = |n: usize| after_name.split(' ').nth(n - 3).and_then(|v| v.parse::<u64>().ok()).expect("a number");
        field(14) + field(15)
    }
}

fn wait_ready(process: &mut Process) -> Ready {
    let Some(line) = process.next_line(WAIT) else {
        let status = process.wait(WAIT);
        panic!("the node ended ({status}) before it was ready; standard error:\n{}", process.stderr());
    };
    Ready::parse(&line).unwrap_or_else(|| panic!("not a ready line: {line:?}"))
}

/// Starts a node that must refuse to run: exit code and standard error. It must not print a ready line.
pub fn refused(dir: &Path, options: &Options) -> (i32, String) {
    let mut process = Process::start(&mut options.command(dir));
    if let Some(line) = process.next_line(WAIT) {
        panic!("a line on standard output where a refusal was expected: {line}");
    }
    let status = process.wait(WAIT);
    let code = status.code().unwrap_or_else(|| panic!("ended by a signal: {status}; standard error:\n{}", process.stderr()));
    (code, process.stderr())
}

/// One HTTP/1.1 request.
pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&address, WAIT).expect("the admin port accepts");
    stream.set_read_timeout(Some(WAIT)).expect("a read timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the whole answer");
    let text = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no end of headers: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status: {head:?}"));
    let chunked = head.lines().any(|l| l.to_ascii_lowercase().starts_with("transfer-encoding:") && l.contains("chunked"));
    (status, if chunked { dechunk(body) } else { body.to_owned() })
}

fn dechunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        out.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    out
}

/// The sum of all samples called exactly `name` in a Prometheus text.
pub fn metric_in(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .map(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).unwrap_or_else(|| panic!("no value in {l:?}")))
        .sum()
}
