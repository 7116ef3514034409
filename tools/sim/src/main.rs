//! `tramline-sim`: the broker's core over simulated disks, network and clock.
//!
//! One seed prints what it drew, then what happened; the same seed prints the same bytes. Many seeds run in parallel and print the failing ones.
//!
//! Exit code 0: nothing is wrong; 1: a seed failed, or a state that long runs have to meet was never met (`--brief` ones do not have to); 2: usage.

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tramline_sim::sim::{Event, MUTANTS, Named, Outcome, Params, Profile, Totals, measure, run_as};

/// Runs the broker's core over simulated disks, network and clock, from a seed.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Run this seed and print what it drew and what happened
    #[arg(long, required_unless_present_any = ["seeds", "list_mutants", "check_mutants", "latency"], conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run the seeds A..B (B is not included) and print those that fail
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<(u64, u64)>,
    /// Threads for --seeds
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, |n| n.get() as u64), value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Which faults: calm, faults, disk, swarm or cluster
    #[arg(long, default_value = "faults", value_parser = parse_profile)]
    profile: Profile,
    /// With the profile cluster: so many nodes, instead of what each seed draws
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: Option<u64>,
    /// A fifth of the load and time with faults three times as often: for many seeds
    #[arg(long, conflicts_with_all = ["check_mutants", "latency"])]
    brief: bool,
    /// With --seed: print what happened when
    #[arg(long)]
    log: bool,
    /// Switch a bug on (see --list-mutants)
    #[arg(long, value_name = "NAME", value_parser = parse_mutant, conflicts_with = "check_mutants")]
    mutant: Option<&'static Named>,
    /// List the bugs that can be switched on
    #[arg(long)]
    list_mutants: bool,
    /// Switch on each bug in turn, and run the seeds from 0 on, at most this many, until one fails: a bug that is not found is a failure
    #[arg(long, value_name = "SEEDS", conflicts_with_all = ["seed", "seeds"])]
    check_mutants: Option<u64>,
    /// Compare the latency of acknowledgements with the formula of docs/REPLICATION.md, for seeds from 0 on, this many, with three nodes and with five
    #[arg(long, value_name = "SEEDS", conflicts_with_all = ["seed", "seeds", "check_mutants"])]
    latency: Option<u64>,
}

fn parse_mutant(name: &str) -> Result<&'static Named, String> {
    MUTANTS.iter().find(|named| named.name == name).ok_or_else(|| "--list-mutants has the names".to_owned())
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("'{text}' is no range of seeds: use for example 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if from < to { Ok((from, to)) } else { Err(format!("the range {text} is empty")) }
}

fn parse_profile(text: &str) -> Result<Profile, String> {
    Profile::of(text).ok_or_else(|| "known are calm, faults, disk, swarm and cluster".to_owned())
}

thread_local! {
    /// The seed that this thread runs: what a panic that ends the process says last.
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The profile `sim` unwinds, and the seed is reported with the others; built with `--release`, this is the last that is heard.
        if cfg!(panic = "abort") {
            say(info);
            println!("seed {} FAILS: the core panicked (build with --profile sim to go on behind a panic)", SEED.get());
        }
    }));
    if arguments.list_mutants {
        MUTANTS.iter().for_each(|named| println!("{:<24} {} (profile {})", named.name, named.what, named.profile));
        return ExitCode::SUCCESS;
    }
    if let Some(seeds) = arguments.check_mutants {
        return if check_mutants(seeds, arguments.jobs) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(seeds) = arguments.latency {
        return if measure_latency(seeds) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let holds = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => one(seed, &arguments),
        (None, Some(range)) => many(range, &arguments),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Arguments {
    /// What a seed runs with.
    fn params(&self, seed: u64) -> Params {
        let mut params = Params::draw(seed, self.profile);
        if let Some(nodes) = self.nodes.filter(|_| params.is_cluster) {
            params.nodes = nodes as usize;
        }
        if self.brief {
            params.make_brief();
        }
        params
    }
}

fn one(seed: u64, arguments: &Arguments) -> bool {
    let params = arguments.params(seed);
    println!("seed {seed}, profile {}, mutant {}", arguments.profile, arguments.mutant.map_or("none", |named| named.name));
    println!("{params:#?}");
    let before = processor_seconds();
    let outcome = run_caught(seed, params, arguments.mutant, arguments.log);
    say_speed(outcome.simulated_us, before);
    outcome.log.iter().for_each(|line| println!("{line}"));
    println!("{} simulated seconds", outcome.simulated_us / 1_000_000);
    print!("{}", outcome.totals);
    match &outcome.violation {
        None => println!("holds"),
        Some(violation) => println!("FAILS: {violation}"),
    }
    outcome.violation.is_none()
}

fn many((from, to): (u64, u64), arguments: &Arguments) -> bool {
    let bar = ProgressBar::with_draw_target(Some(to - from), ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left, {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message("0 failed");
    let before = processor_seconds();
    let next = AtomicU64::new(from);
    let (totals, failed) = (Mutex::new(Totals::default()), Mutex::new(Vec::new()));
    let simulated_us = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    let outcome = run_caught(seed, arguments.params(seed), arguments.mutant, false);
                    simulated_us.fetch_add(outcome.simulated_us, Ordering::Relaxed);
                    totals.lock().expect("no thread panics with it").merge(&outcome.totals);
                    if let Some(violation) = outcome.violation {
                        let mut failed = failed.lock().expect("no thread panics with it");
                        failed.push((seed, violation));
                        bar.set_message(format!("{} failed", failed.len()));
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let (totals, mut failed) = (totals.into_inner().expect("threads are over"), failed.into_inner().expect("threads are over"));
    failed.sort();
    let simulated_us = simulated_us.into_inner();
    say_speed(simulated_us, before);
    println!("seeds {from}..{to}, profile {}: {} simulated seconds", arguments.profile, simulated_us / 1_000_000);
    print!("{totals}");
    failed.iter().for_each(|(seed, violation)| println!("seed {seed} FAILS: {violation}"));
    let mut holds = failed.is_empty();
    let is_due = |event: &Event| !arguments.brief && event.due_after(arguments.profile).is_some_and(|seeds| to - from >= seeds);
    let is_missed = |event: &&Event| is_due(event) && totals.get(**event) == 0;
    for event in Event::ALL.iter().filter(is_missed) {
        println!("never met: {}", event.text());
        holds = false;
    }
    println!("{} of {} seeds failed", failed.len(), to - from);
    holds
}

/// Processor time of this process so far, of all its threads, user and system; `None` where /proc does not tell. Counted in hundredths of a second.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 14 and 15; the second one, a name in brackets, may hold spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / 100.0)
}

/// How fast it went: on standard error, since no two runs are equally fast.
fn say_speed(simulated_us: u64, before: Option<f64>) {
    if let (Some(before), Some(after)) = (before, processor_seconds()) {
        let (simulated, took) = (simulated_us as f64 / 1e6, (after - before).max(0.01));
        eprintln!("{simulated:.0} simulated seconds in {took:.2} s of processor time: {:.0} per second of one core", simulated / took);
    }
}

/// One bug on purpose while it is looked for.
#[derive(Default)]
struct Hunt {
    /// The next try.
    next: AtomicU64,
    /// The first try that found it so far, with its seed, and how.
    caught: Mutex<Option<(u64, u64, String)>>,
}

impl Hunt {
    /// The next try, if any is left before the first one that found it: so it comes out the same whatever the number of threads. The first is the seed
    /// that is known to find it, the others are the seeds from 0 on.
    fn take_try(&self, seeds: u64) -> Option<u64> {
        let caught = self.caught.lock().expect("no thread panics with it");
        let end = caught.as_ref().map_or(seeds + 1, |(number, ..)| *number);
        (self.next.load(Ordering::Relaxed) < end).then(|| self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn carry_out(&self, number: u64, named: &'static Named) {
        let seed = number.checked_sub(1).unwrap_or(named.seed);
        let Some(violation) = run_caught(seed, Params::draw(seed, named.profile), Some(named), false).violation else { return };
        let mut caught = self.caught.lock().expect("no thread panics with it");
        if caught.as_ref().is_none_or(|(first, ..)| number < *first) {
            *caught = Some((number, seed, violation));
        }
    }
}

/// Whether each bug is found by one of the first `seeds` seeds.
fn check_mutants(seeds: u64, jobs: u64) -> bool {
    let hunts: Vec<Hunt> = MUTANTS.iter().map(|_| Hunt::default()).collect();
    let bar = ProgressBar::with_draw_target(Some(MUTANTS.len() as u64), ProgressDrawTarget::stderr());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                for (at, (hunt, named)) in hunts.iter().zip(MUTANTS).enumerate() {
                    // Seeds of one bug are shared out: those that take many would keep one thread busy when all others are done.
                    while let Some(number) = hunt.take_try(seeds) {
                        hunt.carry_out(number, named);
                    }
                    bar.set_position(at as u64 + 1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let caught = hunts.into_iter().map(|hunt| hunt.caught.into_inner().expect("threads are over"));
    let found: Vec<_> = MUTANTS.iter().zip(caught).collect();
    for (named, caught) in &found {
        match caught {
            Some((_, seed, violation)) => {
                // What stands behind the first line is the state of all nodes.
                let violation = violation.lines().next().unwrap_or_default();
                println!("{:<24} found by seed {seed} of {}: {violation}", named.name, named.profile);
            }
            None => println!("{:<24} NOT FOUND by {seeds} seeds of {}", named.name, named.profile),
        }
    }
    let missed = found.iter().filter(|(_, caught)| caught.is_none()).count();
    println!("{} of {} bugs on purpose were found", found.len() - missed, found.len());
    missed == 0
}

/// Whether each acknowledgement took what the formula says, to the microsecond.
fn measure_latency(seeds: u64) -> bool {
    let mut failed = 0;
    for (seed, nodes) in (0..seeds).flat_map(|seed| [(seed, 3), (seed, 5)]) {
        match measure(seed, nodes) {
            Ok(latency) => println!("seed {seed}: {latency}"),
            Err(what) => {
                failed += 1;
                println!("seed {seed} with {nodes} nodes FAILS: {what}");
            }
        }
    }
    println!("{} of {} measurements are as the formula says", 2 * seeds - failed, 2 * seeds);
    failed == 0
}

/// A panic of the core is a violation like others.
fn run_caught(seed: u64, params: Params, mutant: Option<&Named>, log: bool) -> Outcome {
    SEED.set(seed);
    let run = || run_as(seed, params, mutant, log);
    std::panic::catch_unwind(run).unwrap_or_else(|panic| Outcome {
        violation: Some(format!("the core panicked: {}", message_of(&*panic))),
        totals: Totals::default(),
        simulated_us: 0,
        log: Vec::new(),
    })
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}
