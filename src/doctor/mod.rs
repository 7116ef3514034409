//! `tramline doctor`: what of this host keeps a node from running, from keeping what it acknowledged, or from being fast, with a reason each.
//!
//! ```text
//!   files below a root, limits, the ring, a short test  ->  facts (one struct per topic)  ->  judge (pure)  ->  findings  ->  table or JSON
//! ```
//!
//! Invariants: nothing of the host is changed: the one file of the self-test has no name; what cannot be read is `unknown`, never a fault;
//! every judge is a function of facts alone, so that each is tested where the machine itself is fine; below another root than `/` only files are read.
//!
//! Not here: changing any of it (`scripts/tune/`), what each setting buys (docs/TUNING.md), checks at a node's start (`ring/probe.rs`).

mod boot;
mod cores;
mod cpu;
mod disk;
mod finding;
mod host;
mod interrupts;
mod kernel;
mod memory;
mod network;
mod self_test;
mod show;
#[cfg(test)]
mod tests;
mod tree;

pub use finding::{Finding, Report, Severity};
pub use host::Host;
pub use show::{json, table};

use crate::config::Settings;
use cores::Cores;

/// Looks at everything that matters to a node with these settings.
pub fn examine(settings: &Settings, host: &Host, with_self_test: bool) -> Report {
    let tree = &host.tree;
    let cores = Cores::of(host, settings);
    let ground = disk::Ground::of(tree, &settings.data_dir);
    let place = disk::Place::of(tree, &ground);
    let nics = network::nics(tree);
    let stat_before = tree.text("proc/stat");
    let measured = match (tree.is_copy(), with_self_test, &ground.in_the_way) {
        (true, ..) => Err("a copy of the trees has no disk to write to"),
        (_, false, _) => Err("left out (--no-self-test)"),
        (.., Some(_)) => Err("there is no data directory to write to, and none can be made"),
        (false, true, None) => Ok(self_test::run(&ground.dir)),
    };
    let steal = cpu::Steal { before: stat_before, after: measured.as_ref().ok().and_then(|_| tree.text("proc/stat")) };

    let mut findings = kernel::judge(&kernel::Facts::gather(tree, settings, &ground));
    findings.extend(disk::judge_ground(&ground));
    findings.extend(disk::judge(&place));
    findings.extend(disk::judge_space(settings, disk::space(tree, &settings.data_dir)));
    findings.extend(cpu::judge(&cpu::Facts::gather(tree, &cores, &place, &nics), &cores));
    findings.extend(cpu::judge_steal(&steal));
    findings.extend(interrupts::judge(&interrupts::Facts::gather(tree, &place, &nics), &cores));
    findings.extend(network::judge(&network::Facts::gather(tree, &nics), &cores));
    findings.extend(memory::judge(&memory::Facts::gather(tree)));
    match measured {
        Ok(measured) => findings.extend(self_test::judge(&measured, &place)),
        Err(why) => findings.push(self_test::not_run(why)),
    }
    Report { findings }
}
