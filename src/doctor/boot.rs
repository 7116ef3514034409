//! What the kernel's command line keeps away from the shards' cores: `isolcpus`, `nohz_full`, `rcu_nocbs`, read as the kernel reads them.
//!
//! Invariant: a list that the kernel would refuse isolates nothing here either. Not here: what these parameters buy (docs/TUNING.md), what a running
//! kernel keeps (`/proc/cmdline` is what it was started with).

use super::cores::{Cores, Set, show};
use super::finding::Topic;
use crate::config::value::CPUS_MAX;

pub(super) fn judge(cmdline: Option<&str>, cores: &Cores, topic: &mut Topic) {
    let Some(cmdline) = cmdline else { return topic.unknown("boot parameters", "/proc does not tell the kernel's command line") };
    if cores.shards.is_empty() || cores.others().is_empty() {
        return topic.unknown("boot parameters", "no core is left over, so nothing can be kept away from the shards'");
    }
    let kept = Kept::read(cmdline, cores.online.last().copied());
    for (name, of, reason) in [
        ("isolcpus", kept.isolated, "the scheduler puts nothing else on the shards' cores"),
        ("nohz_full", kept.without_tick, "a core that runs one thread is not interrupted by the tick"),
        ("rcu_nocbs", kept.without_callbacks, "the kernel's deferred work runs elsewhere"),
    ] {
        match of.is_superset(&cores.shards) {
            true => topic.ok(name, show(&of), reason),
            false => topic.note(
                name,
                show(&of),
                format!("{reason} with {name}={} on the kernel's command line (tune.sh: boot)", show(&cores.shards)),
            ),
        }
    }
}

/// Cores by what is kept away from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) isolated: Set,
    pub(super) without_tick: Set,
    pub(super) without_callbacks: Set,
}

impl Kept {
    /// `last` is the machine's last core, where it is known.
    pub(super) fn read(cmdline: &str, last: Option<usize>) -> Kept {
        let set = |name: &str| value_of(cmdline, name).and_then(|list| list_of(list, last)).unwrap_or_default();
        let (flags, list) = flags_of(value_of(cmdline, "isolcpus").unwrap_or_default());
        let listed = list_of(list, last).unwrap_or_default();
        let has = |flag: &str| flags.contains(&flag);
        Kept {
            // `nohz` and `managed_irq` alone leave the scheduler as it is; without a flag `domain` is meant.
            isolated: if has("domain") || !(has("nohz") || has("managed_irq")) { listed.clone() } else { Set::new() },
            without_tick: if has("nohz") { set("nohz_full").union(&listed).copied().collect() } else { set("nohz_full") },
            without_callbacks: set("rcu_nocbs"),
        }
    }
}

/// The value of the last `name=..`.
fn value_of<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next_back()
}

/// The flags in front of the list of `isolcpus`, and the list: whatever begins with a letter is a flag (so `all` is one there, which the kernel skips).
fn flags_of(mut value: &str) -> (Vec<&str>, &str) {
    let mut flags = Vec::new();
    while value.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let (flag, rest) = value.split_once(',').unwrap_or((value, ""));
        flags.push(flag);
        value = rest;
    }
    (flags, value)
}

/// The kernel's lists of the command line: `0,2-5`, `N` for the last core, `all`, and `2-9:1/4` for the first one of each group of four from 2 on.
/// `None` for what the kernel refuses, and for what needs a last core that is not known.
fn list_of(text: &str, last: Option<usize>) -> Option<Set> {
    let number = |word: &str| match word {
        "N" => last,
        _ => word.parse::<usize>().ok().filter(|core| *core < CPUS_MAX && word.starts_with(|c: char| c.is_ascii_digit())),
    };
    let mut found = Set::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (range, groups) = part.split_once(':').map_or((part, None), |(range, groups)| (range, Some(groups)));
        let (first, end) = match range.split_once('-') {
            Some((first, end)) => (number(first)?, number(end)?),
            None if range.eq_ignore_ascii_case("all") => (0, last?),
            None if groups.is_none() => (number(range)?, number(range)?),
            None => return None,
        };
        let (used, group) = match groups {
            Some(groups) => groups.split_once('/').and_then(|(used, group)| Some((number(used)?, number(group)?)))?,
            None => (1, 1),
        };
        if first > end || group == 0 || used > group {
            return None;
        }
        found.extend((first..=end).filter(|core| (core - first) % group < used));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cores: &[usize]) -> Set {
        cores.iter().copied().collect()
    }

    #[test]
    fn lists_are_read_as_the_kernel_reads_them() {
        let read = |text: &str| list_of(text, Some(7)).map(|set| show(&set));
        for (text, expected) in [
            ("2-3,5", "2-3,5"),
            ("0-N", "0-7"),
            ("N", "7"),
            ("all", "0-7"),
            ("ALL:1/2", "0,2,4,6"),
            ("2-5:2/3", "2-3,5"),
            ("0-7:1/4,3", "0,3-4"),
            ("1-3:0/2", "none"),
            ("", "none"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        for wrong in ["3-1", "x", "1-", "-2", "+1", "1:1/2", "0-3:3/2", "0-3:1/0", "0-3:1", "0-99999", "n"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!((list_of("all", None), list_of("0-N", None), list_of("0-2", None)), (None, None, Some(set(&[0, 1, 2]))));
    }

    #[test]
    fn only_domain_or_no_flag_isolates() {
        let kept = |line: &str| Kept::read(line, Some(7));
        let isolated = |line: &str| show(&kept(line).isolated);
        assert_eq!(isolated("a isolcpus=1 isolcpus=managed_irq,domain,2-3,5 b"), "2-3,5");
        assert_eq!(isolated("isolcpus=0-6"), "0-6");
        assert_eq!(isolated("isolcpus=2-5:2/3"), "2-3,5");
        for none in ["isolcpus=nohz,0-6", "isolcpus=managed_irq,0-6", "xisolcpus=1 isolcpus", "isolcpus=all", "isolcpus=domain", ""] {
            assert_eq!(isolated(none), "none", "{none}");
        }
        // nohz there is what nohz_full is.
        assert_eq!(show(&kept("isolcpus=nohz,0-2 nohz_full=4").without_tick), "0-2,4");
        assert_eq!(show(&kept("isolcpus=0-2 nohz_full=all").without_tick), "0-7");
        assert_eq!(show(&kept("rcu_nocbs=1-N").without_callbacks), "1-7");
    }
}
