//! What waits for a block: in the order in which it was made, each given back once, when its replica groups are committed through its block.
//!
//! Invariant: blocks do not go back, so whoever is behind another one waits at least as long; replies leave in order.
//!
//! Not here: what waits (`trims.rs`, `offsets.rs`, `groups.rs`); produce requests, whose results lie in a buffer of their own (`acks.rs`).

use super::acks::Acks;
use crate::ids::BlockSeq;
use std::collections::VecDeque;

/// What waits for its block.
#[derive(Debug)]
pub(super) struct InOrder<T> {
    /// (groups as `Acks::bit_of`, block, what waits)
    queue: VecDeque<(u64, BlockSeq, T)>,
}

impl<T> Default for InOrder<T> {
    fn default() -> InOrder<T> {
        InOrder { queue: VecDeque::new() }
    }
}

impl<T> InOrder<T> {
    /// `item` waits until `groups` are committed through `block`, and until all before it were given back.
    pub(super) fn push(&mut self, groups: u64, block: BlockSeq, item: T) {
        let block = block.max(self.queue.back().map_or(BlockSeq(0), |last| last.1));
        self.queue.push_back((groups, block, item));
    }

    /// The next one whose wait is over.
    pub(super) fn pop(&mut self, acks: &Acks) -> Option<T> {
        let (groups, block, _) = self.queue.front()?;
        if !acks.is_committed(*groups, *block) {
            return None;
        }
        self.queue.pop_front().map(|(.., item)| item)
    }

    /// What waits for one of `groups`, as `Acks::bit_of`, and is not committed: another node leads it now.
    pub(super) fn take_groups(&mut self, groups: u64, acks: &Acks) -> Vec<T> {
        let waits = |item: &(u64, BlockSeq, T)| item.0 & groups != 0 && !acks.is_committed(item.0, item.1);
        let (taken, kept) = std::mem::take(&mut self.queue).into_iter().partition::<Vec<_>, _>(waits);
        self.queue = kept.into();
        taken.into_iter().map(|(.., item)| item).collect()
    }

    /// What waits for `group`, as `Acks::bit_of`, and is not committed there is no more to wait for it: another node leads it now. `keeps` is asked of each
    /// such item, and told which other groups it waits for; without a yes the item goes.
    pub(super) fn lose_group(&mut self, group: u64, acks: &Acks, mut keeps: impl FnMut(&mut T, u64) -> bool) {
        self.queue.retain_mut(|(groups, block, item)| {
            if *groups & group == 0 || acks.is_committed(group, *block) {
                return true;
            }
            *groups &= !group;
            keeps(item, *groups)
        });
    }

    /// Everything: the log has failed.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.queue.drain(..).map(|(.., item)| item)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
