//! Queues: of each message of a partition, whether somebody has it, how often it was delivered, when it is delivered next, and whether it is over.
//!
//! A queue is one more view of a log that is not changed by it: the messages stay where they are, only what is said *of* them is written. [`Part`] is one
//! queue in one partition: a state machine without clock, disk or network, whose every change is a [`QueueNote`] of the log.
//!
//! Not here: waiting receivers, reading and sending batches, the log (shard/queues), settings' names (control/).

mod blocks;
mod cells;
mod consumers;
mod count;
mod dead_letter;
mod dedup;
mod due;
mod lanes;
mod look;
mod note;
mod part;
mod pick;
mod purge;
mod ranges;
mod rules;
mod stored;
#[cfg(test)]
mod tests;

pub use cells::{Cell, State};
pub use dead_letter::{LETTER_HEADERS_BYTES_MAX, LETTER_HEADERS_MAX, Origin, push_letter};
pub use dedup::DEDUP_IDS_MAX;
pub use look::{CELLS_MAX, Looked, Stamp};
pub use note::{
    Kind, PAYLOAD_BYTES_MAX, QUEUE_SCHEMA, QueueNote, SNAPSHOT_BYTES_MAX, StoredQueueError, Why, decode_queue_notes, encode_queue_notes,
    encode_some_notes, push_note,
};
pub use part::{ATTEMPTS_MAX, Attempt, HISTORIES_MAX, Part, PartCounts};
pub use pick::{EndRefused, Ending, Seen, Wanted};
pub use rules::QueueRules;
pub use stored::SnapshotCursor;
