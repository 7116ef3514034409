//! `tramline doctor`: what of this host keeps a node from running, from keeping what it acknowledged, or from being fast, with a reason each.
//!
//! ```text
//!   files below a root, limits, the ring, a short test  ->  facts (one struct per topic)  ->  judge (pure)  ->  findings  ->  table or JSON
//! ```
//!
//! Invariants: nothing of the host is changed, but for one file of the self-test, which is removed; what cannot be read is `unknown`, never a fault;
//! every judge is a function of facts alone, so that each is tested where the machine itself is fine; below another root than `/` only files are read.
//!
//! Not here: changing any of it (`scripts/tune/`), what each setting buys (docs/TUNING.md), checks at a node's start (`ring/probe.rs`).

mod cores;
mod cpu;
mod disk;
mod finding;
mod interrupts;
mod kernel;
mod memory;
mod network;
mod self_test;
mod show;
#[cfg(test)]
mod tests;
mod tree;

pub use cores::online;
pub use finding::{Finding, Report, Severity};
pub use show::{json, table};

use crate::config::Settings;
use cores::Cores;
use std::path::Path;
use tree::Tree;

/// Looks at everything that matters to a node with these settings.
pub fn examine(settings: &Settings, root: &Path, with_self_test: bool) -> Report {
    let tree = Tree::new(root);
    let cores = Cores::of(&tree, &settings.cpus);
    let place = disk::Place::of(&tree, &settings.data_dir);
    let nics = network::nics(&tree);
    let stat_before = tree.text("proc/stat");
    let measured = match with_self_test && !tree.is_copy() {
        true => Some(self_test::run(&disk::nearest(&settings.data_dir))),
        false => None,
    };
    let steal = cpu::Steal { before: stat_before, after: measured.as_ref().and_then(|_| tree.text("proc/stat")) };

    let mut findings = kernel::judge(&kernel::Facts::gather(&tree, settings));
    findings.extend(disk::judge(&place));
    findings.extend(disk::judge_space(settings, disk::space(&tree, &settings.data_dir)));
    findings.extend(cpu::judge(&cpu::Facts::gather(&tree, &cores, &place, &nics), &cores));
    findings.extend(cpu::judge_steal(&steal));
    findings.extend(interrupts::judge(&interrupts::Facts::gather(&tree, &place, &nics), &cores));
    findings.extend(network::judge(&network::Facts::gather(&tree, &nics), &cores));
    findings.extend(memory::judge(&memory::Facts::gather(&tree)));
    match measured {
        Some(measured) => findings.extend(self_test::judge(&measured, &place)),
        None => findings.push(self_test::not_run(tree.is_copy())),
    }
    Report { findings }
}
