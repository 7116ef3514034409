//! `tramline-limits`: what this machine's loopback TCP and disk can do with raw rings and nothing of the broker.
//!
//! The yardstick of `scripts/bench.sh`: each figure is the best of the depths and modes tried, so that a broker that
//! comes near it has nothing left to gain from the machine. Server's side on the first CPU of `--cpus`, client's on the second.
//!
//! Not here: the broker, its client, the comparison (`bench/driver`).

// Submissions hand raw memory to the kernel; there is no safe way to drive a ring. Each place says why it holds.
#![allow(unsafe_code)]

mod beside;
mod chain;
mod client_side;
mod cold_chain;
mod disk;
mod report;
mod ring;
mod stream_chain;
mod tcp;

use clap::{Parser, ValueEnum};
use client_side::Transport;
use disk::Way;
use report::{Numbers, Report};
use ring::Idle;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tcp::Receiver;

/// Measures what this machine's loopback TCP and disk can do with raw rings, as the yardstick for the broker.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Only these measurements
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<Measurement>,
    /// Seconds for each point (a measurement has one to a few dozen points)
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Directory for the test files (nameless ones, gone at the end); on the disk to be measured
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// CPU of the server's side and CPU of the client's side
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    cpus: Vec<usize>,
    /// MiB of the file that is read; no more than a quarter of the free space is used
    #[arg(long, default_value_t = 4096)]
    read_mib: u64,
    /// Read this file instead of one made for it
    #[arg(long, value_name = "FILE")]
    read_file: Option<PathBuf>,
    /// MiB of the file that is written over and over
    #[arg(long, default_value_t = 1024)]
    write_mib: u64,
    /// open-writes, write-beside-reads: bytes of one write
    #[arg(long, default_value_t = 68 << 10)]
    beside_write_bytes: u32,
    /// open-writes, write-beside-reads: 10^9 bytes written per second
    #[arg(long, default_value_t = 0.1)]
    beside_write_gbps: f64,
    /// write-beside-reads: bytes of one read
    #[arg(long, default_value_t = 512 << 10)]
    beside_read_bytes: u32,
    /// write-beside-reads: 10^9 bytes read per second
    #[arg(long, default_value_t = 0.2)]
    beside_read_gbps: f64,
    /// The busy-polling client of tcp-rtt yields when a poll finds nothing
    #[arg(long)]
    client_yield: bool,
    /// Leave the test files in the directory and use them again the next time
    #[arg(long)]
    keep: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Measurement {
    /// TCP round trip: 1 KiB request, 64-byte reply, both ends spinning
    TcpRtt,
    /// TCP round trip of 64 bytes each way
    TcpRtt64,
    /// TCP round trip of a client with 1, 4, 16 and 64 connections: sockets asked in turn, behind epoll, and a ring. No limit of anything: only when asked for
    ClientSide,
    /// TCP round trips per second of 400 connections, with one in flight on each
    ManyRtt,
    /// TCP stream in 256 KiB writes, client to server and server to client, received and thrown away
    TcpStream,
    /// The same, the receiver sums (crc32c) and copies
    TcpStreamCrc,
    /// Synced writes of 4 KiB: latency in three ways of waiting, throughput at depths 1 to 4
    #[value(name = "write-4k")]
    Write4k,
    /// Synced writes of 128 KiB
    #[value(name = "write-128k")]
    Write128k,
    /// Synced writes of 1 MiB
    #[value(name = "write-1m")]
    Write1m,
    /// 1 KiB request, 4 KiB synced write, 64-byte reply, one in flight
    DurableRtt,
    /// Frames of 64 KiB, summed, copied, synced in blocks, acknowledged: what one core can do at the most
    DurableStream,
    /// Synced writes at a given rate, gathered up to 1 MiB while others are under way, latency from the moment each is due
    OpenWrites,
    /// The same beside four readers at a given rate
    WriteBesideReads,
    // Last: giving the large file back may keep the device busy.
    /// Direct reads of 1 MiB, summed, sent to a client that sums and copies: what one core can do at the most
    ColdStream,
    /// Direct reads of 128 KiB, 512 KiB, 1 MiB at depths 1 to 8
    Read,
}

/// What every measurement needs, and what they leave.
struct Run {
    arguments: Arguments,
    cpus: [usize; 2],
    time: Duration,
    write_file: Option<(File, u64)>,
    read_file: Option<(File, u64)>,
    limits: Numbers,
    points: Numbers,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tramline-limits: {e}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Arguments) -> io::Result<()> {
    let &[server, client] = arguments.cpus.as_slice() else {
        return Err(io::Error::other("--cpus takes two CPUs: the server's and the client's"));
    };
    if !(0.05..=60.0).contains(&arguments.seconds) {
        return Err(io::Error::other("--seconds takes 0.05 to 60"));
    }
    if cfg!(debug_assertions) {
        eprintln!("tramline-limits: warning: not a release build, these figures are no limits");
    }
    let mut chosen = arguments.only.clone();
    if chosen.is_empty() {
        chosen = Measurement::value_variants().iter().copied().filter(|chosen| *chosen != Measurement::ClientSide).collect();
    }
    chosen.sort();
    chosen.dedup();
    let json = arguments.json;
    let time = Duration::from_secs_f64(arguments.seconds);
    let mut run =
        Run { cpus: [server, client], time, write_file: None, read_file: None, limits: Numbers::new(), points: Numbers::new(), arguments };
    for measurement in chosen {
        run.one(measurement)?;
    }
    let report = Report {
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        cpus: run.cpus,
        seconds: run.arguments.seconds,
        release_build: !cfg!(debug_assertions),
        limits: run.limits,
        points: run.points,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for (name, value) in &report.limits {
            println!("{name:<36} {value:>12.3}");
        }
    }
    Ok(())
}

impl Run {
    fn one(&mut self, measurement: Measurement) -> io::Result<()> {
        match measurement {
            Measurement::TcpRtt => self.tcp_round_trip("tcp_rtt", 1024, 64),
            Measurement::ClientSide => self.client_side(),
            Measurement::ManyRtt => self.many_round_trips(),
            Measurement::TcpRtt64 => self.tcp_round_trip("tcp_rtt_64", 64, 64),
            Measurement::TcpStream => self.tcp_stream("tcp_stream", Receiver::Discards),
            Measurement::TcpStreamCrc => self.tcp_stream("tcp_stream_crc", Receiver::SumsAndCopies),
            Measurement::Write4k => self.writes("write_4k", 4096),
            Measurement::Write128k => self.writes("write_128k", 128 * 1024),
            Measurement::Write1m => self.writes("write_1m", 1 << 20),
            Measurement::Read => self.reads(),
            Measurement::ColdStream => self.cold_stream(),
            Measurement::DurableRtt => self.durable_round_trip(),
            Measurement::DurableStream => self.durable_stream(),
            Measurement::OpenWrites => self.open_writes(false),
            Measurement::WriteBesideReads => self.open_writes(true),
        }
    }

    fn point(&mut self, name: String, value: f64) {
        eprintln!("tramline-limits: {name} {value}");
        self.points.insert(name, value);
    }

    fn limit(&mut self, name: String, value: f64) {
        self.limits.insert(name, value);
    }

    fn tcp_round_trip(&mut self, name: &str, request: usize, reply: usize) -> io::Result<()> {
        let (p50, p99) = tcp::round_trip(self.cpus, request, reply, self.arguments.client_yield, self.time)?;
        self.point(format!("{name}_p50_us"), p50);
        self.point(format!("{name}_p99_us"), p99);
        self.limit(format!("{name}_p50_us"), p50);
        self.limit(format!("{name}_p99_us"), p99);
        Ok(())
    }

    fn client_side(&mut self) -> io::Result<()> {
        for connections in [1, 4, 16, 64] {
            for (name, transport) in [("sockets", Transport::Sockets), ("epoll", Transport::Epoll), ("ring", Transport::Ring)] {
                let (p50, p99) = client_side::round_trips(self.cpus, transport, connections, self.time)?;
                for (figure, value) in [("p50_us", p50), ("p99_us", p99)] {
                    self.point(format!("client_{connections}_{name}_{figure}"), value);
                    self.limit(format!("client_{connections}_{name}_{figure}"), value);
                }
            }
        }
        Ok(())
    }

    fn many_round_trips(&mut self) -> io::Result<()> {
        const CONNECTIONS: usize = 400;
        let rate = client_side::round_trips_per_s(self.cpus, CONNECTIONS, self.time)?;
        self.point("many_rtt_per_s".to_owned(), rate);
        self.limit("many_rtt_per_s".to_owned(), rate);
        Ok(())
    }

    fn tcp_stream(&mut self, name: &str, receiver: Receiver) -> io::Result<()> {
        let inward = tcp::stream_in(self.cpus, receiver, self.time)?;
        self.point(format!("{name}_in_gbps"), inward);
        let outward = tcp::stream_out(self.cpus, receiver, self.time)?;
        self.point(format!("{name}_out_gbps"), outward);
        self.limit(format!("{name}_in_gbps"), inward);
        self.limit(format!("{name}_out_gbps"), outward);
        Ok(())
    }

    /// The file for writes, filled at first use and handed back by the caller.
    fn take_write_file(&mut self) -> io::Result<(File, u64)> {
        if let Some(file) = self.write_file.take() {
            return Ok(file);
        }
        let free = disk::free_bytes(&self.arguments.dir)?;
        let len = (self.arguments.write_mib << 20).min(free / 4) & !((1 << 20) - 1);
        if len < 16 << 20 {
            return Err(io::Error::other(format!("too little free space in {} (64 MiB are the least)", self.arguments.dir.display())));
        }
        Ok((disk::filled_file(&self.arguments.dir, len, self.arguments.keep.then_some("tramline-limits.write"))?, len))
    }

    fn writes(&mut self, name: &str, size: usize) -> io::Result<()> {
        let (file, len) = self.take_write_file()?;
        let cpu = self.cpus[0];
        let mut best = (f64::MAX, 0.0);
        for (way, idle) in [("waiting", Idle::Wait), ("yielding", Idle::Yield), ("spinning", Idle::Spin)] {
            let point = disk::run(cpu, &file, len, Way::Write, size, 1, idle, self.time)?;
            self.point(format!("{name}_{way}_p50_us"), point.p50_us);
            self.point(format!("{name}_{way}_p99_us"), point.p99_us);
            if point.p50_us < best.0 {
                best = (point.p50_us, point.p99_us);
            }
        }
        self.limit(format!("{name}_p50_us"), best.0);
        self.limit(format!("{name}_p99_us"), best.1);
        let mut most = 0.0;
        for depth in 1..=4 {
            let point = disk::run(cpu, &file, len, Way::Write, size, depth, Idle::Yield, self.time)?;
            self.point(format!("{name}_depth{depth}_gbps"), point.gbps);
            most = point.gbps.max(most);
        }
        self.limit(format!("{name}_gbps"), most);
        self.write_file = Some((file, len));
        Ok(())
    }

    fn take_read_file(&mut self) -> io::Result<(File, u64)> {
        if let Some(file) = self.read_file.take() {
            return Ok(file);
        }
        if let Some(path) = &self.arguments.read_file {
            return disk::file_to_read(path);
        }
        let free = disk::free_bytes(&self.arguments.dir)?;
        let len = (self.arguments.read_mib << 20).min(free / 4) & !((1 << 20) - 1);
        if len < 64 << 20 {
            return Err(io::Error::other(format!("too little free space in {} (256 MiB are the least)", self.arguments.dir.display())));
        }
        let file = disk::filled_file(&self.arguments.dir, len, self.arguments.keep.then_some("tramline-limits.read"))?;
        Ok((file, len))
    }

    fn cold_stream(&mut self) -> io::Result<()> {
        let (file, len) = self.take_read_file()?;
        let mut most = 0.0f64;
        for depth in [1, 2, 4, 8] {
            let gbps = cold_chain::cold_stream(self.cpus, &file, len, depth, self.time)?;
            self.point(format!("cold_stream_depth{depth}_gbps"), gbps);
            most = most.max(gbps);
        }
        self.limit("cold_stream_gbps".to_owned(), most);
        self.read_file = Some((file, len));
        Ok(())
    }

    fn reads(&mut self) -> io::Result<()> {
        let (file, len) = self.take_read_file()?;
        let mut most = 0.0;
        for (name, size) in [("128k", 128 << 10), ("512k", 512 << 10), ("1m", 1 << 20)] {
            let mut most_of_size = 0.0f64;
            for depth in [1, 2, 4, 8] {
                let point = disk::run(self.cpus[0], &file, len, Way::Read, size, depth, Idle::Yield, self.time)?;
                self.point(format!("read_{name}_depth{depth}_gbps"), point.gbps);
                most_of_size = most_of_size.max(point.gbps);
            }
            self.limit(format!("read_{name}_gbps"), most_of_size);
            most = most_of_size.max(most);
        }
        self.limit("read_gbps".to_owned(), most);
        self.read_file = Some((file, len));
        Ok(())
    }

    fn durable_round_trip(&mut self) -> io::Result<()> {
        let (file, len) = self.take_write_file()?;
        let (p50, p99) = chain::durable_round_trip(self.cpus, &file, len, self.time)?;
        self.point("durable_rtt_p50_us".to_owned(), p50);
        self.point("durable_rtt_p99_us".to_owned(), p99);
        self.limit("durable_rtt_p50_us".to_owned(), p50);
        self.limit("durable_rtt_p99_us".to_owned(), p99);
        self.write_file = Some((file, len));
        Ok(())
    }

    fn durable_stream(&mut self) -> io::Result<()> {
        let (file, len) = self.take_write_file()?;
        let seen = stream_chain::durable_stream(self.cpus, &file, len, self.time)?;
        for (name, value) in [("gbps", seen.gbps), ("p50_us", seen.p50_us), ("p99_us", seen.p99_us)] {
            self.point(format!("durable_stream_{name}"), value);
            self.limit(format!("durable_stream_{name}"), value);
        }
        self.write_file = Some((file, len));
        Ok(())
    }

    fn open_writes(&mut self, beside_reads: bool) -> io::Result<()> {
        let page = |bytes: u32| (bytes.clamp(4096, 16 << 20) as usize).next_multiple_of(4096);
        let load = beside::Load {
            write_bytes: page(self.arguments.beside_write_bytes),
            write_gbps: self.arguments.beside_write_gbps,
            read_bytes: page(self.arguments.beside_read_bytes),
            read_gbps: self.arguments.beside_read_gbps,
        };
        if !(load.write_gbps > 0.0 && load.read_gbps > 0.0) {
            return Err(io::Error::other("--beside-write-gbps and --beside-read-gbps have to be above 0"));
        }
        let (to, to_len) = self.take_write_file()?;
        let from = if beside_reads { Some(self.take_read_file()?) } else { None };
        let seen = beside::run(self.cpus[0], (&to, to_len), from.as_ref().map(|(file, len)| (file, *len)), load, self.time)?;
        let prefix = if beside_reads { "beside" } else { "open" };
        let mut figures =
            vec![("p50_us", seen.p50_us), ("p99_us", seen.p99_us), ("p999_us", seen.p999_us), ("write_gbps", seen.write_gbps)];
        if beside_reads {
            figures.push(("read_gbps", seen.read_gbps));
        }
        for (name, value) in figures {
            self.point(format!("{prefix}_{name}"), value);
            self.limit(format!("{prefix}_{name}"), value);
        }
        self.write_file = Some((to, to_len));
        if let Some(from) = from {
            self.read_file = Some(from);
        }
        Ok(())
    }
}
