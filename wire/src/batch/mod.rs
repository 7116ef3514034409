//! The record batch: one layout for the wire, the log, the replica and the consumer. The same bytes, never re-encoded.
//!
//! ```text
//! | header 112                             | body: index_len               | body_len - index_len           |
//! | producer's region | body_crc | leader's | record index (never compressed) | values and headers (codec)   |
//! 0                   64         68        112
//! ```
//! Reading allocates nothing: [`BatchView`] looks at the header, [`Records`] slices records in place, and so does the
//! broker, which reads keys and attributes from the index without decompressing.
//!
//! | file | job |
//! |---|---|
//! | `layout.rs` | byte positions, flags, limits |
//! | `error.rs` | why a batch is refused |
//! | `view.rs` | header fields, checksums, stamping by the leader, walking concatenated batches |
//! | `record.rs` | the record index, records, headers, validation |
//! | `plain.rs` | the same check for records without optional fields, many at a time |
//! | `build.rs` | building a batch from records |
//!
//! Invariants: the body checksum covers the producer's region and the body, the header checksum covers both regions;
//! who holds a `BatchView` knows that lengths, codec and flags are right, not that checksums or records are.
//! Not here: compression (done by the client's codecs), offsets' assignment (the broker).

mod build;
mod error;
mod layout;
mod plain;
mod record;
mod view;

pub use build::{BatchBuilder, NewRecord, ProducerMark, PushRefused, mark_producer};
pub use error::BatchError;
pub use layout::*;
pub use record::{Attributes, Header, Headers, Index, IndexEntry, RecordView, Records};
pub use view::{BatchView, Batches, LeaderStamp, mark_append_time, stamp_leader, validate, validate_and};
