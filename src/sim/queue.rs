//! What is going to happen: events by time, those of one time in the order in which they were planned.
//!
//! Events are moved once in and once out; what is sorted are three numbers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// See the module.
pub(super) struct Queue<T> {
    /// Time, number of the plan, place in `items`.
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    planned: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue { order: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), planned: 0 }
    }

    pub(super) fn plan(&mut self, at_us: u64, item: T) {
        self.planned += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.items[place as usize] = Some(item);
                place
            }
            None => {
                self.items.push(Some(item));
                self.items.len() as u32 - 1
            }
        };
        self.order.push(Reverse((at_us, self.planned, place)));
    }

    /// The next event and its time, if that is not after `until_us`.
    pub(super) fn next(&mut self, until_us: u64) -> Option<(u64, T)> {
        let Reverse((at_us, _, place)) = *self.order.peek().filter(|Reverse((at_us, ..))| *at_us <= until_us)?;
        self.order.pop();
        self.free.push(place);
        Some((at_us, self.items[place as usize].take().expect("each place is planned once")))
    }
}
