//! What is going to happen: events by time, those of one time in the order in which they were planned.
//!
//! Events are moved once in and once out; what is sorted is one number each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A key is time, number of the plan and place in `items`: 64, 40 and 24 bits.
const PLACE_BITS: u32 = 24;
const PLAN_BITS: u32 = 40;

/// See the module.
pub(super) struct Agenda<T> {
    order: BinaryHeap<Reverse<u128>>,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    planned: u64,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Agenda<T> {
        Agenda { order: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), planned: 0 }
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
        assert!(self.planned >> PLAN_BITS == 0 && place >> PLACE_BITS == 0, "{} plans, {place} at a time", self.planned);
        let plan = (self.planned << PLACE_BITS) | u64::from(place);
        self.order.push(Reverse((u128::from(at_us) << 64) | u128::from(plan)));
    }

    /// The next event and its time, if that is not after `until_us`.
    pub(super) fn next(&mut self, until_us: u64) -> Option<(u64, T)> {
        let key = self.order.peek().map(|Reverse(key)| *key).filter(|key| (key >> 64) as u64 <= until_us)?;
        self.order.pop();
        let place = key as u32 & ((1 << PLACE_BITS) - 1);
        self.free.push(place);
        Some(((key >> 64) as u64, self.items[place as usize].take().expect("each place is planned once")))
    }
}
