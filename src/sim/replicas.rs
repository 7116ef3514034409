//! Replicas compared: what is committed on one of them is the same on all, for ever; a term of a group has one leader. And when there is nothing left to do.
//!
//! Each entry and each batch is looked at once on each replica in each life of its process, when it has become committed there, and compared with what the
//! first replica had.
//!
//! Invariants: what is remembered is never replaced: a replica that agrees with nobody fails, whoever is right.
//!
//! Not here: what clients were told (`cluster/`), how it is had from a shard (shard/looks.rs).

use super::Check;
use crate::ids::{BlockSeq, GroupId, LogIndex, PartitionUid, Term};
use crate::shard::{BatchLook, EntryLook, GroupLook, Shard};
use std::collections::BTreeMap;

/// Replicas of a group of data, where there are so many nodes.
pub(crate) const FACTOR: usize = 3;

/// A node and one of its shards, both from 0.
pub(crate) type Seat = (usize, usize);

/// What was committed, as the replica had it that was looked at first.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<(GroupId, LogIndex), EntryLook>,
    batches: BTreeMap<(PartitionUid, u64), BatchLook>,
    leaders: BTreeMap<(GroupId, Term), usize>,
    /// The newest leader of each group: its term, its voters, and those of them that it has heard nothing of.
    voters: BTreeMap<GroupId, (Term, usize, usize)>,
    /// Up to where each replica was looked at.
    seen_entries: BTreeMap<(Seat, GroupId), LogIndex>,
    seen_batches: BTreeMap<(Seat, PartitionUid), u64>,
    /// Entries whose bytes were the same on several replicas.
    compared: u64,
}

impl Ledger {
    /// The process has ended: the next one is looked at from its beginning.
    pub(crate) fn forget(&mut self, node: usize) {
        self.seen_entries.retain(|((of, _), _), _| *of != node);
        self.seen_batches.retain(|((of, _), _), _| *of != node);
    }

    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }

    /// How often a group got a leader.
    pub(crate) fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// Looks at what has become committed in a shard since the last look. `stored` has blocks that are not in memory, if it can.
    pub(crate) fn look(&mut self, seat: Seat, shard: &Shard, stored: &dyn Fn(&Shard, BlockSeq) -> Option<Vec<u8>>) -> Check {
        for look in shard.group_looks() {
            if let Some(term) = look.leads_in {
                self.note_leader(look.group, term, seat.0)?;
                self.note_voters(&look, term)?;
            }
            self.look_at_entries(seat, shard, &look, stored)?;
        }
        for (uid, _, committed_end) in shard.partition_looks() {
            let seen = self.seen_batches.entry((seat, uid)).or_default();
            if *seen >= committed_end {
                continue;
            }
            let from = std::mem::replace(seen, committed_end);
            for batch in shard.batch_looks(uid, from) {
                let known = self.batches.entry((uid, batch.base_offset)).or_insert(batch);
                if *known != batch {
                    let node = seat.0 + 1;
                    return Err(format!("a committed batch of partition {uid} is {known:?}, and on node {node} {batch:?}"));
                }
            }
        }
        Ok(())
    }

    /// The node leads the group in this term.
    pub(crate) fn note_leader(&mut self, group: GroupId, term: Term, node: usize) -> Check {
        let known = *self.leaders.entry((group, term)).or_insert(node);
        match known == node {
            true => Ok(()),
            false => Err(format!("group {group} has two leaders in term {term}: nodes {} and {}", known + 1, node + 1)),
        }
    }

    /// Who gets a vote has something, as its leader has heard. (Of the voters that were there it may hear that they have lost all.)
    fn note_voters(&mut self, look: &GroupLook, term: Term) -> Check {
        match self.voters.insert(look.group, (term, look.voters, look.voters_unheard)) {
            Some((of, voters, unheard)) if of == term && voters < look.voters && unheard < look.voters_unheard => {
                Err(format!("group {} has got a voter in term {term} of which its leader has heard nothing", look.group))
            }
            _ => Ok(()),
        }
    }

    fn look_at_entries(
        &mut self,
        seat: Seat,
        shard: &Shard,
        look: &GroupLook,
        stored: &dyn Fn(&Shard, BlockSeq) -> Option<Vec<u8>>,
    ) -> Check {
        let seen = self.seen_entries.entry((seat, look.group)).or_default();
        if look.committed <= *seen {
            return Ok(());
        }
        // What stands in an open block is looked at again when that is closed.
        let mut whole = look.committed;
        for index in (seen.0 + 1..=look.committed.0).map(LogIndex) {
            let Some(found) = shard.entry_look(look.group, index, stored) else { continue };
            if found.is_open {
                whole = whole.min(LogIndex(index.0 - 1));
            }
            let Some(known) = self.entries.get_mut(&(look.group, index)) else {
                self.entries.insert((look.group, index), found);
                continue;
            };
            let sums = known.sum.zip(found.sum);
            if known.term != found.term || sums.is_some_and(|(one, other)| one != other) {
                let (group, node) = (look.group, seat.0 + 1);
                return Err(format!("entry {index} of group {group} is committed as {known:?}, and on node {node} as {found:?}"));
            }
            self.compared += u64::from(sums.is_some());
            known.sum = known.sum.or(found.sum);
        }
        *seen = whole;
        Ok(())
    }
}

/// Per group: nodes that lead it, may append, and have committed their first entry.
pub(crate) fn leaders<'a>(shards: impl Iterator<Item = (usize, &'a Shard)>) -> BTreeMap<GroupId, Vec<usize>> {
    let mut leaders: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
    for (node, shard) in shards {
        for look in shard.group_looks() {
            let of_group = leaders.entry(look.group).or_default();
            if look.may_append && look.is_caught_up {
                of_group.push(node);
            }
        }
    }
    leaders
}

/// Whether each group has one leader.
pub(crate) fn is_led(leaders: &BTreeMap<GroupId, Vec<usize>>) -> bool {
    !leaders.is_empty() && leaders.values().all(|nodes| nodes.len() == 1)
}

/// Nobody has anything left to do: every replica has what its leader has, and has taken it in. Else what is left, in words.
pub(crate) fn is_at_rest(shards: &[(usize, &Shard)]) -> Check {
    let leaders = leaders(shards.iter().copied());
    if !is_led(&leaders) {
        return Err(format!("leaders: {leaders:?}"));
    }
    let mut ends: BTreeMap<GroupId, GroupLook> = BTreeMap::new();
    for (node, shard) in shards {
        if !shard.is_serving() || !shard.is_view_current() {
            return Err(format!("node {} does not serve, or does not know all metadata", node + 1));
        }
        for look in shard.group_looks() {
            let is_taken_in = look.applied == look.committed && look.noted >= look.committed;
            let serves = look.leads_in.is_none() || look.is_state_ready;
            let known = ends.entry(look.group).or_insert_with(|| look.clone());
            let is_same = (known.last, known.committed) == (look.last, look.committed);
            if !is_taken_in || !serves || !is_same || look.committed != look.last.index {
                return Err(format!("node {} is not at rest: {look:?}, another one: {known:?}", node + 1));
            }
        }
    }
    Ok(())
}

/// The metadata are the same on all nodes, which are at rest.
pub(crate) fn check_metadata(shards: &[(usize, &Shard)]) -> Check {
    let mut sums = shards.iter().filter_map(|(node, shard)| Some((node, shard.metadata_sum()?)));
    let Some((first, sum)) = sums.next() else { return Ok(()) };
    match sums.find(|(_, other)| *other != sum) {
        Some((node, _)) => Err(format!("the metadata of node {} are not those of node {}", node + 1, first + 1)),
        None => Ok(()),
    }
}
