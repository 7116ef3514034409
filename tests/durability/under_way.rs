//! What the node had under way when it was killed, by its own messages (`log.level=debug`), and totals of it.
//!
//! A message that was still in the log thread's queue is lost with the process: what ended within the last moment counts as under way, what began
//! in it does not.

use std::collections::BTreeSet;

/// Kinds of background work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Work {
    Seal,
    Sort,
}

const WORDS: [(&str, Work, bool); 4] = [
    (" sealing begins ", Work::Seal, true),
    (" segment sealed ", Work::Seal, false),
    (" sorting begins ", Work::Sort, true),
    (" sorting ends ", Work::Sort, false),
];

/// Which work of which shards had begun and not ended.
pub fn under_way(stderr: &str) -> BTreeSet<(Work, String)> {
    let mut open = BTreeSet::new();
    for line in stderr.lines() {
        let Some((_, work, begins)) = WORDS.iter().find(|(words, ..)| line.contains(words)) else { continue };
        let shard = line.split(' ').find(|word| word.starts_with("shard=")).unwrap_or_else(|| panic!("no shard in {line:?}")).to_owned();
        if *begins {
            open.insert((*work, shard))
        } else {
            open.remove(&(*work, shard))
        };
    }
    open
}

/// How often work has begun.
pub fn begun(stderr: &str, work: Work) -> usize {
    let words = WORDS.iter().find(|(_, w, begins)| *w == work && *begins).expect("each work begins").0;
    stderr.matches(words).count()
}

/// Kills that met each of these.
#[derive(Default, Debug)]
pub struct Met {
    pub seals: u64,
    pub sorts: u64,
    pub deletions: u64,
    pub creations: u64,
    pub trims: u64,
    pub starts: u64,
}

impl Met {
    /// What was never met.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            (self.seals, "sealing"),
            (self.sorts, "sorting"),
            (self.deletions, "topic deletion"),
            (self.creations, "topic creation"),
            (self.trims, "trimming"),
            (self.starts, "start-up"),
        ];
        all.iter().filter(|(count, _)| *count == 0).map(|(_, name)| *name).collect()
    }
}
