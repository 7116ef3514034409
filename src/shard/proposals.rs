//! What stands in the log for a replica group and holds once it is committed, in the order of appending.
//!
//! Not here: what it is (`trims.rs`, `offsets.rs`), who waits for it (`in_order.rs`).

use crate::ids::{BlockSeq, GroupId};
use std::collections::VecDeque;

/// What was proposed, or inherited by a new leader, and is not committed.
#[derive(Debug)]
pub(super) struct Proposals<T> {
    queue: VecDeque<(GroupId, BlockSeq, T)>,
}

impl<T> Default for Proposals<T> {
    fn default() -> Proposals<T> {
        Proposals { queue: VecDeque::new() }
    }
}

impl<T> Proposals<T> {
    /// `item` stands in `block`.
    pub(super) fn push(&mut self, group: GroupId, block: BlockSeq, item: T) {
        self.queue.push_back((group, block, item));
    }

    /// The group's entries in all blocks up to `block` are committed: those among them go to `each`, in order.
    pub(super) fn commit(&mut self, group: GroupId, block: BlockSeq, mut each: impl FnMut(&T)) {
        self.queue.retain(|(of_item, at, item)| {
            let holds = *of_item == group && *at <= block;
            if holds {
                each(item);
            }
            !holds
        });
    }

    /// Another node leads the group: what was proposed here is that node's to commit, or was never there.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.queue.retain(|(of_item, ..)| *of_item != group);
    }

    /// The log has failed.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}
