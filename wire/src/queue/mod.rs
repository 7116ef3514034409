//! Queues: CreateQueue (48), AlterQueue (49), DeleteQueue (50), ListQueues (51), FindQueue (52), DescribeQueue (53), Receive (54), Settle (55),
//! Browse (56), Purge (57), DeleteMessages (58) and Redrive (59).
//!
//! A queue is a named subscription on one topic. What it knows of its messages lies with their partitions, so a request about messages names
//! partitions of one leader. A *lease token* is {partition, offset, lease}: it outlives the connection that it came over.
//!
//! | file | kinds |
//! |---|---|
//! | `named.rs` | 48 to 53: about a queue by its name |
//! | `delivery.rs` | 54 and 55: leasing messages and settling them |
//! | `managed.rs` | 56 to 59: messages from outside, without leases |
//!
//! Not here: the rules of delivery (docs/PROTOCOL.md, "Queues"), the settings of a queue, reading bodies while browsing ([`crate::fetch`]).

mod delivery;
mod managed;
mod named;

pub use delivery::*;
pub use managed::*;
pub use named::*;
