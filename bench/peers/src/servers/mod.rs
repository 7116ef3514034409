//! The brokers as processes: started on loopback, on given cores, with their data in a folder of their own, and ended by process id.
//!
//! Each process is started through `setpriv --pdeathsig KILL` (it ends with this program, however this program ends) and `taskset` (its cores). Its
//! output goes to a file, whose end is quoted when it does not start. Invariant: when a [`Server`] goes away, everything that it started is gone.
//! Not here: settings (`settings.rs`), readiness as a client sees it (`adapters/`).

mod settings;

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) use settings::admin_port;
pub use settings::told;

use crate::fault::{Fallible, Told, fault};
use crate::kinds::{Class, PeerKind};
use crate::machine;
use crate::peer::Reach;

/// How long an orderly stop may take before the process is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long the machine may take to come to rest before a broker starts.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log is quoted.
const LOG_TAIL_BYTES: usize = 1500;

/// What all starts have in common.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where a broker's folder is made. On the disk that is measured.
    pub work_dir: PathBuf,
    /// Cores of the broker, as taskset takes them.
    pub broker_cpus: String,
    /// First of six ports; the one before it is used as well.
    pub port_base: u16,
    /// Tramline's binary.
    pub tramline: PathBuf,
    /// NATS's binary.
    pub nats: PathBuf,
    /// Folder of Kafka's jars.
    pub kafka_libs: PathBuf,
}

/// A broker that runs.
#[derive(Debug)]
pub struct Server {
    /// How to reach it.
    pub reach: Reach,
    /// Its processes: the broker is the first.
    processes: Vec<Child>,
    dir: PathBuf,
    log: PathBuf,
}

/// One process to start.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Server {
    /// Starts it and waits until its port accepts connections.
    pub async fn start(kind: PeerKind, class: Class, setup: &Setup, patience: Duration) -> Fallible<Server> {
        let dir = setup.work_dir.join(format!("{}-{}", kind.name(), class.name()));
        if dir.exists() {
            fs::remove_dir_all(&dir).told(&format!("cannot empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).told(&format!("cannot make {}", dir.display()))?;
        if !machine::settle(&dir, SETTLE_PATIENCE).await {
            eprintln!("the machine does not come to rest in {} s: {} shares it with others", SETTLE_PATIENCE.as_secs(), kind.name());
        }
        let log = setup.work_dir.join(format!("{}-{}.log", kind.name(), class.name()));
        let reach = Reach { kind, class, port: setup.port_base, second_port: setup.port_base + 1 };
        for port in setup.port_base - 1..setup.port_base + 6 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return fault(format!("port {port} is in use by something else: choose another --port-base"));
            }
        }
        let mut server = Server { reach, processes: Vec::new(), dir, log };
        let programs = settings::prepare(&server.reach, setup, &server.dir)?;
        for program in &programs {
            server.spawn(program, setup)?;
        }
        server.processes.reverse(); // helpers are started first, the broker last
        server.wait_for_port(patience).await?;
        Ok(server)
    }

    fn spawn(&mut self, program: &Program, setup: &Setup) -> Fallible<()> {
        let log = File::options().create(true).append(true).open(&self.log).told(&format!("cannot write {}", self.log.display()))?;
        let second = log.try_clone().told("cannot write the broker's log")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "-c", &setup.broker_cpus]).arg(&program.path).args(&program.arguments);
        command.envs(program.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(log).stderr(second);
        let child = command.spawn().told(&format!("cannot start {} (util-linux has setpriv and taskset)", program.path.display()))?;
        let pid_file = self.pid_file(&child);
        fs::write(&pid_file, program.path.display().to_string()).told(&format!("cannot write {}", pid_file.display()))?;
        self.processes.push(child);
        Ok(())
    }

    /// Beside its folder: what run.sh ends that was missed here.
    fn pid_file(&self, process: &Child) -> PathBuf {
        self.dir.with_file_name(format!("{}.pid", process.id()))
    }

    async fn wait_for_port(&mut self, patience: Duration) -> Fallible<()> {
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.reach.port)).is_err() {
            self.check_alive()?;
            if since.elapsed() > patience {
                return fault(format!("no connection on port {} after {} s; {}", self.reach.port, patience.as_secs(), self.log_tail()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// An error with the end of its log when a process has ended.
    pub fn check_alive(&mut self) -> Fallible<()> {
        for process in &mut self.processes {
            if let Some(status) = process.try_wait().told("cannot ask for the broker's state")? {
                return fault(format!("it ended by itself ({status}); {}", self.log_tail()));
            }
        }
        Ok(())
    }

    /// Process id of the broker itself: `setpriv`, `taskset` and start scripts replace themselves by it.
    pub fn pid(&self) -> u32 {
        self.processes[0].id()
    }

    /// The folder of its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The end of its log, for a report.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let start = text.char_indices().map(|(at, _)| at).find(|at| text.len() - at <= LOG_TAIL_BYTES).unwrap_or(0);
        format!("the end of its log: {:?}", text[start..].trim())
    }

    /// Stops it in order, or kills it, and removes its data.
    pub fn stop(mut self) -> Fallible<()> {
        let forced = self.end();
        fs::remove_dir_all(&self.dir).told(&format!("cannot remove {}", self.dir.display()))?;
        if forced { fault(format!("it had to be killed: {} s after SIGTERM it still ran", STOP_PATIENCE.as_secs())) } else { Ok(()) }
    }

    /// Whether something had to be killed.
    fn end(&mut self) -> bool {
        let mut forced = false;
        for process in &mut self.processes {
            if !matches!(process.try_wait(), Ok(None)) {
                continue;
            }
            if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let since = Instant::now();
            while matches!(process.try_wait(), Ok(None)) && since.elapsed() < STOP_PATIENCE {
                std::thread::sleep(Duration::from_millis(10));
            }
            if matches!(process.try_wait(), Ok(None)) {
                forced = true;
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        forced
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        self.processes.iter().for_each(|process| drop(fs::remove_file(self.pid_file(process))));
        let _ = fs::remove_dir_all(&self.dir);
    }
}
