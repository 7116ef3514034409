//! Message ids of the last while: a message whose id came before within the window is a duplicate.
//!
//! Times are those at which the broker appended the records: after a start the same ones are found to be duplicates. The window begins with the first
//! message of an id, a duplicate does not prolong it. Of more ids than may be kept the oldest are forgotten before their window is over: a duplicate that
//! is delivered is better than a queue that stands still, and what is forgotten follows from what is stored.
//!
//! The clock may go back from one start to the next. So it is looked at when an id came, not only whether it is still there, and what came a window later
//! than now is forgotten like what came a window before: else all ids would be remembered until the clock has caught up, and what comes under them again, long
//! after the window, would never be delivered.
//!
//! Not here: what becomes of duplicates (`part.rs`).

use std::collections::{BTreeMap, VecDeque};

/// Ids that one partition of a queue remembers, at most: the newest, some 160 MB with short ids.
pub const DEDUP_IDS_MAX: usize = 1_000_000;

/// Ids whose window is over that are forgotten with each one that comes.
const FORGOTTEN_AT_ONCE: usize = 8;

#[derive(Debug)]
struct Came {
    at_us: i64,
    offset: u64,
    id: Box<[u8]>,
}

/// The ids of one queue in one partition.
#[derive(Debug)]
pub struct Dedup {
    /// As many as are kept.
    max: usize,
    /// When each id came first, UTC microseconds, and with which message.
    first: BTreeMap<Box<[u8]>, (i64, u64)>,
    /// The same in the order in which they came; and those after which their id came again, behind the window.
    in_order: VecDeque<Came>,
}

impl Default for Dedup {
    fn default() -> Dedup {
        Dedup { max: DEDUP_IDS_MAX, first: BTreeMap::new(), in_order: VecDeque::new() }
    }
}

impl Dedup {
    /// Whether `id` came before within the window; if not, it has come now.
    pub fn is_duplicate(&mut self, id: &[u8], offset: u64, at_us: i64, window_us: u64) -> bool {
        // More than one comes in with each, so that they become fewer; a million at once, after a pause, would hold up the shard for 1.4 s.
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.in_order.front().is_none_or(|oldest| is_within(oldest.at_us, at_us, window_us)) {
                break;
            }
            self.forget_oldest();
        }
        if window_us == 0 {
            return false;
        }
        if self.first.get(id).is_some_and(|(first_us, _)| is_within(*first_us, at_us, window_us)) {
            return true;
        }
        self.note(id, offset, at_us);
        false
    }

    /// `id` came at `at_us` with the message at `offset` (from what is stored).
    pub fn note(&mut self, id: &[u8], offset: u64, at_us: i64) {
        if self.in_order.len() >= self.max {
            self.forget_oldest();
        }
        self.first.insert(id.into(), (at_us, offset));
        self.in_order.push_back(Came { at_us, offset, id: id.into() });
    }

    fn forget_oldest(&mut self) {
        self.pop_first().expect("one is there");
    }

    /// Forgets the oldest one; `None` without any.
    pub fn pop_first(&mut self) -> Option<()> {
        let oldest = self.in_order.pop_front()?;
        // It may have come again since.
        if self.first.get(&oldest.id) == Some(&(oldest.at_us, oldest.offset)) {
            self.first.remove(&oldest.id);
        }
        Some(())
    }

    /// Those that came with messages from `offset` on, oldest first: offset, time, id.
    pub fn iter_from(&self, offset: u64) -> impl Iterator<Item = (u64, i64, &[u8])> {
        self.in_order
            .range(self.in_order.partition_point(|came| came.offset < offset)..)
            .map(|came| (came.offset, came.at_us, came.id.as_ref()))
    }

    /// Ids that are remembered.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }
}

/// Whether two times are less than a window apart.
fn is_within(first_us: i64, now_us: i64, window_us: u64) -> bool {
    first_us.abs_diff(now_us) < window_us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_exact_and_begins_with_the_first() {
        let mut dedup = Dedup::default();
        assert!(!dedup.is_duplicate(b"a", 1, 1_000, 100));
        assert!(dedup.is_duplicate(b"a", 2, 1_099, 100));
        assert!(!dedup.is_duplicate(b"a", 3, 1_100, 100), "the window has passed, and begins anew");
        assert!(dedup.is_duplicate(b"a", 4, 1_199, 100));
        assert!(!dedup.is_duplicate(b"b", 5, 1_199, 100));
        assert!(!dedup.is_duplicate(b"a", 6, 1_200, 100));
        assert_eq!(dedup.len(), 2);
        assert!(!dedup.is_duplicate(b"a", 7, 1_201, 0), "no window, no duplicates");
    }

    #[test]
    fn ids_whose_window_is_over_are_forgotten_bit_by_bit_and_no_duplicates_meanwhile() {
        let mut dedup = Dedup::default();
        for n in 0..100_u32 {
            assert!(!dedup.is_duplicate(&n.to_le_bytes(), u64::from(n), 1_000, 100));
        }
        for n in (0..100_u32).rev() {
            assert!(!dedup.is_duplicate(&n.to_le_bytes(), 100 + u64::from(n), 1_100, 100), "{n} came before the window");
        }
        assert_eq!((dedup.len(), dedup.first.len()), (100, 100));
        assert!((0..100_u32).all(|n| dedup.is_duplicate(&n.to_le_bytes(), 300, 1_199, 100)), "each came again");
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_window_longer() {
        let mut dedup = Dedup::default();
        assert!(!dedup.is_duplicate(b"a", 1, 5_000, 100));
        assert!(dedup.is_duplicate(b"a", 2, 4_950, 100), "a little back");
        assert!(!dedup.is_duplicate(b"b", 3, 4_960, 100));
        // From here on a whole window back, and more.
        assert!(!dedup.is_duplicate(b"c", 4, 1_000, 100));
        assert!(!dedup.is_duplicate(b"a", 5, 1_001, 100), "it came a long time from now");
        assert!(dedup.is_duplicate(b"c", 6, 1_099, 100));
        assert!(!dedup.is_duplicate(b"c", 7, 1_100, 100), "its window is over");
        assert!(!dedup.is_duplicate(b"d", 8, 5_000, 100));
        assert_eq!(dedup.iter_from(0).map(|(offset, ..)| offset).collect::<Vec<_>>(), [8], "nothing that is over is kept");
    }

    #[test]
    fn an_id_that_comes_again_while_the_oldest_is_ahead_is_kept_by_its_last_time() {
        let mut dedup = Dedup::default();
        assert!(!dedup.is_duplicate(b"ahead", 1, 1_090, 100));
        assert!(!dedup.is_duplicate(b"a", 2, 1_000, 100));
        assert!(!dedup.is_duplicate(b"a", 3, 1_100, 100), "behind one that is not over");
        assert!(!dedup.is_duplicate(b"b", 4, 1_191, 100), "and now both are");
        assert!(dedup.is_duplicate(b"a", 5, 1_199, 100));
        assert_eq!(dedup.first.len(), 2);
    }

    #[test]
    fn of_more_ids_than_are_kept_the_oldest_are_forgotten() {
        let mut dedup = Dedup { max: 3, ..Dedup::default() };
        for (offset, id) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
            assert!(!dedup.is_duplicate(id, offset as u64, 1_000, 100));
        }
        assert_eq!(dedup.len(), 3);
        assert!(dedup.is_duplicate(b"b", 4, 1_050, 100));
        assert!(!dedup.is_duplicate(b"a", 5, 1_050, 100), "forgotten, and takes the place of b");
        assert!(!dedup.is_duplicate(b"b", 6, 1_050, 100));
        assert!(dedup.is_duplicate(b"d", 7, 1_099, 100));
        assert_eq!((dedup.len(), dedup.iter_from(0).count()), (3, 3));
    }
}
