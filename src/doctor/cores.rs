//! Sets of cores: as the kernel writes them (`0-3,8`, or a mask of hexadecimal groups), and which of them are the shards'.

use super::host::Host;
use crate::config::Settings;
use crate::config::value::{CPUS_MAX, cpu_list};
use crate::runtime::topology;
use std::collections::BTreeSet;

/// Some cores, by number.
pub(super) type Set = BTreeSet<usize>;

/// Which core is whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cores {
    /// All that run; empty where the machine does not tell.
    pub(super) online: Set,
    /// Those of them that the running node may run on, or where none runs, that one can be given.
    pub(super) allowed: Set,
    /// One per shard; empty for shards that float.
    pub(super) shards: Set,
    /// What this process may run on, where that says what a node started from here would; else empty.
    pub(super) shell: Set,
}

impl Cores {
    pub(super) fn of(host: &Host, settings: &Settings) -> Cores {
        let node = host.cores_of_node(&settings.data_dir);
        let shell = if node.is_some() || host.tree.is_copy() { Vec::new() } else { topology::allowed_cpus() };
        Cores {
            online: host.online(),
            allowed: node.or_else(|| host.cores()).unwrap_or_default().into_iter().collect(),
            shards: settings.cpus.iter().copied().collect(),
            shell: shell.into_iter().collect(),
        }
    }

    /// Those that no shard has: interrupts and the kernel's work can go there, whoever may run on them.
    pub(super) fn others(&self) -> Set {
        self.online.difference(&self.shards).copied().collect()
    }

    /// Those that the shards leave to the rest of a node.
    pub(super) fn left(&self) -> Set {
        self.allowed.difference(&self.shards).copied().collect()
    }
}

/// Reads `0-3,8`; an empty text is the empty set.
pub(super) fn parse_list(text: &str) -> Option<Set> {
    Some(cpu_list(text).ok()?.into_iter().collect())
}

/// Reads a mask such as `ff` or `00000001,00000000`.
pub(super) fn parse_mask(text: &str) -> Option<Set> {
    let digits: Vec<u32> = text.trim().chars().filter(|c| *c != ',').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    if digits.is_empty() || digits.len() * 4 > CPUS_MAX {
        return None;
    }
    let bits = digits
        .iter()
        .rev()
        .enumerate()
        .flat_map(|(place, digit)| (0..4).filter(move |bit| digit >> bit & 1 == 1).map(move |bit| place * 4 + bit));
    Some(bits.collect())
}

/// As the kernel writes it.
pub(super) fn show(set: &Set) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for core in set {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *core => *last = *core,
            _ => parts.push((*core, *core)),
        }
    }
    let words: Vec<String> =
        parts.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") }).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_are_read_and_shown() {
        let set = |cores: &[usize]| cores.iter().copied().collect::<Set>();
        assert_eq!(parse_list("0-2,5\n"), Some(set(&[0, 1, 2, 5])));
        assert_eq!(parse_list(""), Some(Set::new()));
        for wrong in ["a", "3-1", "0-99999", "1,x", "-"] {
            assert_eq!(parse_list(wrong), None, "{wrong}");
        }
        assert_eq!(parse_mask("00000001,0000000a"), Some(set(&[1, 3, 32])));
        assert_eq!(parse_mask("f"), Some(set(&[0, 1, 2, 3])));
        assert_eq!((parse_mask(""), parse_mask("0x3")), (None, None));
        assert_eq!(show(&set(&[0, 1, 2, 5, 7, 8])), "0-2,5,7-8");
        assert_eq!(show(&Set::new()), "none");
    }
}
