//! What the client and the load generator can do without a broker: they must not be what is measured.
//!
//! Invariants: their limits are numbers that no machine changes; the sink is a process of its own and is ended whatever happens.
//!
//! Not here: round trips through the client (`rtt.rs`).

use crate::error::{BenchError, io_error};
use crate::measures::Measure;
use crate::runs::{Pair, Runs};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tramline_client::ProducerConfig;
use tramline_client::measure::producer_ns_per_record;

/// Bytes of a record's value.
const VALUE_BYTES: usize = 100;
/// At a million records per second one may take so long.
const RECORD_NS: f64 = 1000.0;
/// Records of one run in memory: long enough that its start and end do not count.
const RECORDS: u64 = 2_000_000;
/// What the generator has to do into a sink, in 10^6 records per second.
const SINK_MILLIONS: f64 = 1.0;

impl Runs {
    /// The client's own work per record.
    pub fn client_overhead(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let runs = self.pairs;
        (0..runs)
            .map(|_| {
                self.beside_a_constant(measure, |_| {
                    let ns = producer_ns_per_record(ProducerConfig::default(), &[7; VALUE_BYTES], RECORDS)?;
                    Ok((ns, RECORD_NS))
                })
            })
            .collect()
    }

    /// The load generator into a sink in another process, over TCP, one core each.
    pub fn loadgen_into_sink(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let runs = self.pairs;
        (0..runs).map(|_| self.beside_a_constant(measure, |runs| Ok((into_sink(runs.limits.cpus)?, SINK_MILLIONS)))).collect()
    }
}

/// Ends it when it is dropped.
struct Sink(Child);

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// 10^6 records per second.
fn into_sink([sink, generator]: [usize; 2]) -> Result<f64, BenchError> {
    let program = program()?;
    let failed = io_error("cannot run tramline-loadgen");
    let child = Command::new(&program)
        .args(["sink", "--listen", "127.0.0.1:0", "--cpu", &sink.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut sink = Sink(child);
    let mut line = String::new();
    let out = sink.0.stdout.take().ok_or_else(|| BenchError::Wrong("the sink has no output".to_owned()))?;
    BufReader::new(out).read_line(&mut line).map_err(io_error("cannot read what the sink says"))?;
    let address = line.strip_prefix("ready ").map(str::trim).ok_or_else(|| BenchError::Wrong(format!("the sink says {line:?}")))?;
    let size = VALUE_BYTES.to_string();
    let arguments = ["--topic", "t", "--partitions", "1", "--duration", "2s", "--warmup", "500ms", "--size", &size, "--level", "leader"];
    Ok(records_per_s(&program, address, generator, &[&arguments, &["--no-verify"][..]].concat())? / 1e6)
}

/// Records per second of a closed loop of the generator, bound to a processor.
pub fn records_per_s(program: &Path, server: &str, cpu: usize, arguments: &[&str]) -> Result<f64, BenchError> {
    let report = std::env::temp_dir().join(format!("tramline-bench-generator-{}.json", std::process::id()));
    let done = Command::new(program)
        .args(["produce", "--server", server, "--closed", "--quiet", "--cpu", &cpu.to_string()])
        .args(arguments)
        .arg("--json")
        .arg(&report)
        .stdout(Stdio::null())
        .status()
        .map_err(io_error("cannot run tramline-loadgen"))?;
    let text = std::fs::read_to_string(&report).map_err(io_error("cannot read the generator's report"))?;
    let _ = std::fs::remove_file(&report);
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| BenchError::Wrong(error.to_string()))?;
    match json["produce"]["records_per_s"].as_f64() {
        Some(rate) if done.success() => Ok(rate),
        _ => Err(BenchError::Wrong(format!("tramline-loadgen ended with {done}"))),
    }
}

/// The generator's program, which lies beside this one.
pub fn program() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(io_error("cannot find this program"))?;
    let program = own.with_file_name("tramline-loadgen");
    if program.exists() {
        return Ok(program);
    }
    Err(BenchError::Wrong(format!("{} is missing: build it in release mode first", program.display())))
}
