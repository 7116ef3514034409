//! `tramline-proxy`: a TCP proxy that makes a good network a bad one, for tests.
//!
//! Reads the command line, and hands over. Invariants: the first line on standard output is `ready HOST:PORT`; exit code 0 after `quit`, 1
//! when it cannot run, 2 for wrong usage; the end of standard input ends only the commands.
//! Not here: what bytes go through (`proxy.rs`), what the line is like (`line.rs`), commands (`command.rs`).

mod command;
mod line;
mod pair;
mod pipe;
mod proxy;
mod units;

use clap::Parser;
use line::{Direction, Weather};
use proxy::{Proxy, Settings, Target};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

/// A TCP proxy that delays, slows down, stalls and cuts what goes through it
///
/// Bytes keep their order, a half-closed connection stays one, a reset is passed on. What is under way is bounded: a receiver that takes
/// nothing stops its sender. Delays begin when the proxy has read a byte; connecting itself is not delayed.
#[derive(Parser)]
#[command(name = "tramline-proxy", version, after_help = command::HELP)]
struct Cli {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    listen: SocketAddr,
    /// Where connections go; 'original' is where they went before a firewall's rule redirected them here (IPv4)
    #[arg(long, value_name = "HOST:PORT|original", value_parser = target)]
    to: Target,
    /// What every byte takes, each way
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = units::parse_time)]
    delay: Duration,
    /// At most this is added at random, each way; order is kept
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = units::parse_time)]
    jitter: Duration,
    /// Bytes per second, each way, shared by all connections [default: as fast as it goes]
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    rate: Option<u64>,
    /// A connection that has carried so many bytes, both ways together, carries no more [default: never]
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    stall_after: Option<u64>,
    /// Most bytes under way per connection and direction; a connection carries at most this per delay
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = buffer)]
    buffer: usize,
    /// Most connections at once; others wait in the backlog
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections_max: u32,
    /// Seed of the jitter: the same one gives each connection the same row of draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Mark (SO_MARK) of the outgoing packets, for the rule that redirects; needs root [default: none]
    #[arg(long, value_name = "N")]
    mark: Option<u32>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|cause| format!("'{text}' is no HOST:PORT ({cause})"))?;
    found.next().ok_or_else(|| format!("'{text}' has no address"))
}

fn target(text: &str) -> Result<Target, String> {
    if text == "original" { Ok(Target::Original) } else { address(text).map(Target::Fixed) }
}

/// Up to 1 GiB: more than any test needs, less than a machine has.
fn buffer(text: &str) -> Result<usize, String> {
    let bytes = units::parse_bytes(text)?;
    usize::try_from(bytes).ok().filter(|bytes| *bytes <= 1 << 30).ok_or_else(|| format!("'{text}' is too much: at most 1GiB"))
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            // Standard error may be gone; the exit code still tells.
            let _ = writeln!(io::stderr(), "tramline-proxy: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    let mut weather = Weather::default();
    weather.stall_after = cli.stall_after;
    for direction in Direction::BOTH {
        let line = weather.line_mut(direction);
        (line.delay, line.jitter, line.rate) = (cli.delay, cli.jitter, cli.rate);
    }
    let settings = Settings {
        listen: cli.listen,
        to: cli.to,
        buffer_bytes: cli.buffer,
        connections_max: cli.connections_max as usize,
        seed: cli.seed,
        mark: cli.mark,
    };
    let (mut commands, control) = UnixStream::pair().map_err(|cause| format!("cannot make a pair of sockets: {cause}"))?;
    let proxy = Proxy::new(settings, weather, control)?;
    // A file or /dev/null cannot be waited for with epoll, a socket can: a thread carries what comes.
    let reader = move || drop(io::copy(&mut io::stdin(), &mut commands));
    std::thread::Builder::new().name("commands".to_owned()).spawn(reader).map_err(|cause| format!("cannot start a thread: {cause}"))?;
    let mut out = io::stdout();
    // A reader that went away does not end a server.
    let _ = writeln!(out, "ready {}", proxy.address());
    proxy.serve(&mut out)
}
