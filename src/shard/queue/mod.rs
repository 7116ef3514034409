//! Queues on this shard: who waits for messages, what is leased, and what of it stands in the log.
//!
//! How a message goes: a batch is appended and looked at (`looking.rs`) -> whoever waits is given leases (`receiving.rs`), whose notes go into the same
//! open block (`care.rs`) -> the block is durable, the batches are at hand -> the reply. Settling (`settling.rs`) goes the same way: state, note, block,
//! reply. What is dead leaves by `burying.rs` and arrives by `letters.rs`, perhaps on another shard.
//!
//! Not here: what becomes of a message (subscription/queue), creating and deleting queues (`admin.rs`).

mod burying;
mod care;
mod counting;
mod found;
mod keeping;
mod lease_number;
mod letters;
mod looking;
mod losing;
mod named;
mod receiving;
mod settling;
mod stepping;
mod telling;

pub(super) use care::{PartKey, QueueCare};
pub(super) use keeping::{Keeping, STATE_MARK_SCHEMA, Told};
