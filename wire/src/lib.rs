//! The protocol of Tramline as a pure codec: frames, batches, records, request and reply bodies, error codes.
//!
//! Job: turn bytes into borrowed views and values into bytes. `docs/PROTOCOL.md` is the specification (of [`node`] it is `docs/REPLICATION.md`); the
//! golden vectors in `vectors/` pin every released version.
//!
//! Invariants: everything is little-endian; decoding allocates nothing, borrows from its input, refuses trailing
//! bytes, unknown flags and unknown enum values, and cannot panic on any input; lists are walked once when they are
//! decoded, so that iterating them cannot fail.
//!
//! Not here: sockets, clocks, compression codecs, any domain type of the broker, any `unsafe`.
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | the 32-byte frame header around every request and reply |
//! | [`batch`] | the record batch: the same bytes on the wire, in the log and at the consumer |
//! | [`kind`], [`error`], [`level`], [`codec`] | the enumerations |
//! | [`hello`], [`metadata`], [`produce`], [`fetch`], [`offsets`], [`topics`], [`trim`], [`storage`], [`producer`], [`group`], [`queue`], [`step`] | request and reply bodies ("metas") |
//! | [`node`] | the protocol between nodes: its frames and bodies, and the checked walk over entries that are to be stored |
//! | [`prim`] | the reader, lists and decode errors they are built from |
//!
//! A request on its way:
//! ```
//! use tramline_wire::{frame, kind::Kind, level::Level};
//! use tramline_wire::batch::{self, BatchBuilder, NewRecord, ProducerMark};
//! use tramline_wire::prim::List;
//! use tramline_wire::produce::{ProduceEntry, ProduceRequest};
//!
//! // The client: a batch, then a frame around it. The payload is sent from where it lies.
//! let mut builder = BatchBuilder::new(batch::Limits::default());
//! builder.push(&NewRecord { key: Some(b"N14228"), value: Some(b"2013,1,1"), timestamp_us: 7, ..NewRecord::default() })?;
//! let mut payload = Vec::new();
//! let batch_len = builder.finish_plain(&mut payload, ProducerMark::default()) as u32;
//! let mut bytes = Vec::new();
//! let start = frame::begin_request(&mut bytes, Kind::Produce, 1);
//! let entries = [ProduceEntry { partition_uid: 42, batch_len }];
//! ProduceRequest { level: Level::Durable, timeout_ms: 30_000, entries: List::of(&entries) }.encode(&mut bytes);
//! frame::finish_frame(&mut bytes, start, payload.len())?;
//! bytes.extend_from_slice(&payload);
//!
//! // The node: everything below borrows from the receive buffer.
//! let frame::Need::Whole(frame, _len) = frame::peek(&bytes, &frame::Limits::default())? else { panic!("more bytes needed") };
//! let request = ProduceRequest::decode(frame.meta)?;
//! for (entry, bytes) in request.batches(frame.payload)? {
//!     let batch = batch::validate(bytes, &batch::Limits::default())?;
//!     assert_eq!((entry.partition_uid, batch.record_count()), (42, 1));
//!     for record in batch.records(batch.stored_values()) {
//!         assert_eq!(record?.key, Some(&b"N14228"[..]));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod batch;
pub mod cluster;
pub mod codec;
#[cfg(feature = "codecs")]
pub mod compression;
pub mod error;
pub mod fetch;
pub mod frame;
pub mod group;
pub mod hello;
pub mod kind;
pub mod level;
pub mod metadata;
pub mod node;
pub mod offsets;
pub mod prim;
pub mod produce;
pub mod producer;
pub mod queue;
pub mod step;
pub mod storage;
pub mod topics;
pub mod trim;

/// Lowest protocol version this crate speaks (negotiated in hello).
pub const PROTOCOL_MIN: u16 = 1;
/// Highest protocol version this crate speaks (negotiated in hello).
pub const PROTOCOL_MAX: u16 = 1;
