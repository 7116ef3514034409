//! The order of everything: rounds, and in each round every class and every peer, beginning with another peer each time. So repetitions are interleaved, and a slow
//! minute of the machine does not fall on one peer alone. Gathers what comes out.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::fault::Fallible;
use crate::kinds::{Cell, Class, PeerKind, why_not};
use crate::load::figures::{Figures, median};
use crate::round::{self, Options};
use crate::servers::Setup;

/// What was not measured, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotMeasured {
    /// Class.
    pub class: Class,
    /// Peer.
    pub peer: PeerKind,
    /// Cell; none means all of them.
    pub cell: Option<String>,
    /// Why.
    pub reason: String,
    /// Whether something failed; else the peer does not have it.
    pub failed: bool,
}

/// One cell of one peer in one class.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Class.
    pub class: Class,
    /// Peer.
    pub peer: PeerKind,
    /// Cell.
    #[serde(skip)]
    pub cell: Cell,
    /// Its name.
    pub name: String,
    /// The median of the trials, figure by figure.
    pub median: Figures,
    /// Each trial, in order.
    pub trials: Vec<Figures>,
}

/// All that was found out.
#[derive(Debug, Default)]
pub struct Findings {
    trials: BTreeMap<(Class, PeerKind, Cell), Vec<Figures>>,
    not_measured: Vec<NotMeasured>,
    /// Rounds that were finished.
    pub rounds_done: u32,
}

impl Findings {
    /// With medians.
    pub fn measured(&self) -> Vec<Measured> {
        let all = self.trials.iter().filter_map(|(&(class, peer, cell), trials)| {
            Some(Measured { class, peer, cell, name: cell.name(), median: median(trials)?, trials: trials.clone() })
        });
        all.collect()
    }

    /// What is missing. A peer that failed in one round and was measured in another is in both lists.
    pub fn not_measured(&self) -> &[NotMeasured] {
        &self.not_measured
    }

    fn miss(&mut self, class: Class, peer: PeerKind, cell: Option<Cell>, reason: &str, failed: bool) {
        let missed = NotMeasured { class, peer, cell: cell.map(Cell::name), reason: reason.to_owned(), failed };
        if !self.not_measured.contains(&missed) {
            self.not_measured.push(missed);
        }
    }
}

/// What to go through.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Peers.
    pub peers: Vec<PeerKind>,
    /// Classes.
    pub classes: Vec<Class>,
    /// Repetitions.
    pub rounds: u32,
}

impl Campaign {
    /// Measures everything; what is found is in `findings` also when this is given up half-way.
    pub async fn run(&self, setup: &Setup, options: &Options, findings: &mut Findings) {
        self.note_what_nobody_has(options, findings);
        let begun = Instant::now();
        for round in 0..self.rounds {
            for &class in &self.classes {
                for &peer in &self.order(round) {
                    if why_not(peer, class, None).is_none() {
                        let label = format!(
                            "{:>5} s  round {}/{}  {:<6}  {:<13}",
                            begun.elapsed().as_secs(),
                            round + 1,
                            self.rounds,
                            class.name(),
                            peer.name()
                        );
                        one(peer, class, setup, options, findings, &label).await;
                    }
                }
            }
            findings.rounds_done += 1;
        }
    }

    /// Each round begins with the next peer.
    fn order(&self, round: u32) -> Vec<PeerKind> {
        let mut order = self.peers.clone();
        let shift = round as usize % order.len().max(1);
        order.rotate_left(shift);
        order
    }

    fn note_what_nobody_has(&self, options: &Options, findings: &mut Findings) {
        for &class in &self.classes {
            for &peer in &self.peers {
                if let Some(reason) = why_not(peer, class, None) {
                    findings.miss(class, peer, None, reason, false);
                    continue;
                }
                for &cell in &options.cells {
                    if let Some(reason) = why_not(peer, class, Some(cell)).filter(|_| cell != Cell::Syncs) {
                        findings.miss(class, peer, Some(cell), reason, false);
                    }
                }
            }
        }
    }
}

async fn one(peer: PeerKind, class: Class, setup: &Setup, options: &Options, findings: &mut Findings, label: &str) {
    let mut tell = |cell: Cell, measured: Fallible<Figures>| match measured {
        Ok(figures) => {
            eprintln!("{label}  {:<16}  {}", cell.name(), brief(&figures));
            if figures.failed > 0 {
                let reason = format!("{} records failed: {}", figures.failed, figures.failure.as_deref().unwrap_or("no reason"));
                findings.miss(class, peer, Some(cell), &reason, true);
            }
            findings.trials.entry((class, peer, cell)).or_default().push(figures);
        }
        Err(reason) => {
            eprintln!("{label}  {:<16}  failed: {reason}", cell.name());
            findings.miss(class, peer, Some(cell), &reason.0, true);
        }
    };
    if let Err(reason) = round::run(peer, class, setup, options, &mut tell).await {
        eprintln!("{label}  {:<16}  {reason}", "failed");
        findings.miss(class, peer, None, &reason.0, true);
    }
}

/// For the line of progress.
fn brief(figures: &Figures) -> String {
    let held = if figures.held == Some(false) { "  NOT HELD" } else { "" };
    let syncs = figures.syncs_per_record.map(|syncs| format!("  {syncs:.2} syncs per record")).unwrap_or_default();
    format!("{:>9.0}/s  p50 {:.0} us  p99 {:.0} us{syncs}{held}", figures.rate_per_s, figures.p50_us, figures.p99_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_peer_and_has_all() {
        let campaign = Campaign { peers: PeerKind::ALL.to_vec(), classes: vec![Class::Synced], rounds: 3 };
        let (first, second) = (campaign.order(0), campaign.order(1));
        assert_eq!((first[0], second[0], second[5]), (PeerKind::Tramline, PeerKind::Nats, PeerKind::Tramline));
        assert_eq!(campaign.order(6), first);
    }

    #[test]
    fn who_has_no_place_is_told_and_not_left_out() {
        let campaign = Campaign { peers: PeerKind::ALL.to_vec(), classes: vec![Class::Synced, Class::Memory], rounds: 1 };
        let options = Options {
            length: std::time::Duration::ZERO,
            warm_up: std::time::Duration::ZERO,
            record_bytes: 1,
            seed: 1,
            cells: Cell::all(&[1]),
        };
        let mut findings = Findings::default();
        campaign.note_what_nobody_has(&options, &mut findings);
        let has = |peer, class, cell: Option<&str>| {
            findings.not_measured().iter().any(|it| it.peer == peer && it.class == class && it.cell.as_deref() == cell && !it.failed)
        };
        assert!(has(PeerKind::RabbitStream, Class::Synced, None) && has(PeerKind::Kafka, Class::Synced, Some("queue_cycle")));
        assert!(has(PeerKind::RabbitQuorum, Class::Memory, None) && !has(PeerKind::Redis, Class::Synced, Some("queue_cycle")));
    }
}
