//! The report: `report.json` (everything), `report.md` (medians in tables), plots as SVG.

mod markdown;
mod plots;

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::campaign::{Campaign, Findings, Measured, NotMeasured};
use crate::cli::Cli;
use crate::fault::{Fallible, Told};
use crate::kinds::{Class, PeerKind};
use crate::machine::{self, Machine};
use crate::round::Options;
use crate::servers::{self, Setup};

/// Version of the JSON's form.
const FORMAT: u32 = 1;

/// One peer, told.
#[derive(Debug, Serialize)]
pub struct AboutPeer {
    /// Which.
    pub peer: PeerKind,
    /// Of the broker.
    pub version: String,
    /// Of the client.
    pub client: String,
    /// Settings for `synced`.
    pub synced: &'static str,
    /// Settings for `memory`.
    pub memory: &'static str,
}

/// Conditions.
#[derive(Debug, Serialize)]
pub struct About {
    /// Seconds since 1970, UTC.
    pub began_unix_s: u64,
    /// Where.
    pub machine: Machine,
    /// Cores of the broker.
    pub broker_cpus: String,
    /// Cores of the generator and the clients.
    pub client_cpus: String,
    /// Measured time of a trial.
    pub seconds: f64,
    /// Not counted, before.
    pub warm_up_seconds: f64,
    /// Repetitions.
    pub rounds: u32,
    /// Of a record.
    pub record_bytes: usize,
    /// Of its bytes.
    pub seed: u64,
    /// Whether this program was built for speed.
    pub release_build: bool,
    /// Who took part.
    pub peers: Vec<AboutPeer>,
}

impl About {
    /// Before anything runs.
    pub fn read(campaign: &Campaign, setup: &Setup, options: &Options, cli: &Cli) -> About {
        let about = |peer: &PeerKind| AboutPeer {
            peer: *peer,
            version: machine::version(*peer, setup),
            client: machine::client(*peer),
            synced: servers::told(*peer, Class::Synced),
            memory: servers::told(*peer, Class::Memory),
        };
        About {
            began_unix_s: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            machine: Machine::read(&setup.work_dir),
            broker_cpus: cli.broker_cpus.clone(),
            client_cpus: cli.client_cpus.clone(),
            seconds: options.length.as_secs_f64(),
            warm_up_seconds: options.warm_up.as_secs_f64(),
            rounds: campaign.rounds,
            record_bytes: options.record_bytes,
            seed: options.seed,
            release_build: !cfg!(debug_assertions),
            peers: campaign.peers.iter().map(about).collect(),
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    format: u32,
    interrupted: bool,
    rounds_done: u32,
    about: &'a About,
    percentiles_of_curve: [f64; crate::load::figures::CURVE.len()],
    measured: &'a [Measured],
    not_measured: &'a [NotMeasured],
}

/// Writes all files.
pub fn write(dir: &Path, about: &About, findings: &Findings, interrupted: bool) -> Fallible<()> {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).told(&format!("cannot write {}", path.display()))
    };
    fs::create_dir_all(dir).told(&format!("cannot make {}", dir.display()))?;
    let measured = findings.measured();
    let json = Json {
        format: FORMAT,
        interrupted,
        rounds_done: findings.rounds_done,
        about,
        percentiles_of_curve: crate::load::figures::CURVE,
        measured: &measured,
        not_measured: findings.not_measured(),
    };
    put("report.json", &serde_json::to_string_pretty(&json).told("report")?)?;
    let plots = plots::draw(&measured);
    for plot in &plots {
        put(&plot.file, &plot.svg)?;
    }
    put("report.md", &markdown::text(about, &measured, findings, &plots, interrupted))
}
