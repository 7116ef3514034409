//! The number of a lease as it goes over the wire: behind the queue's number, so that what one queue gave is never taken by another one.
//!
//! ```text
//! bits 32 to 64: the low half of the queue's uid | bits 0 to 32: the lease's number in its queue and partition
//! ```
//! Queues of one topic count their leases alike, from 1: without the queue in it a token of one would now and then settle a message of another.
//!
//! Not here: which lease a message has (subscription/queue).

use crate::ids::SubscriptionUid;

/// The number that a consumer is told.
pub(super) fn to_wire(queue: SubscriptionUid, lease: u64) -> u64 {
    assert!(0 < lease && lease <= u64::from(u32::MAX), "lease {lease}");
    (queue.0 << 32) | lease
}

/// The number in the queue, of what a consumer says; none of it, and newer than any, if the queue never gave it.
pub(super) fn from_wire(queue: SubscriptionUid, told: u64) -> u64 {
    if told >> 32 == queue.0 & u64::from(u32::MAX) { told & u64::from(u32::MAX) } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_to_its_queue_only() {
        for queue in [1, 77, u64::from(u32::MAX), (5 << 32) | 9].map(SubscriptionUid) {
            for lease in [1, 2, u64::from(u32::MAX)] {
                let told = to_wire(queue, lease);
                assert_eq!(from_wire(queue, told), lease);
                assert_eq!(from_wire(SubscriptionUid(queue.0 + 1), told), u64::MAX);
                assert_eq!(from_wire(queue, lease), u64::MAX, "without its queue");
            }
        }
    }
}
