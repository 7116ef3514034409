//! Reading the log: streams within credit, one-shot fetches, look-ups by time; consumer groups: who is a member, and how far was read. Queues:
//! messages under leases, in `queue/`.
//!
//! How a record reaches a consumer: a session has one cursor per partition. A cursor at the tail gets slices of the very
//! blocks that were written (`log` keeps them in memory); a cursor that is behind reads chunks from the segments, some ahead,
//! and checks every batch before it is handed out. A cursor at the end is registered with its partition and woken at commit.
//!
//! Invariants: nothing past `Partition::visible_end` is handed out; bytes from a disk are never handed out unchecked; a session
//! sends at most its credit plus one batch; memory of cold reads is bounded by `COLD_BYTES_MAX` per shard; a reply is at most
//! `FETCH_FRAME_BYTES` unless a single batch is larger.
//!
//! Not here: connections and their queues (shard/), what requests look like (api/).

use crate::bytes::PAGE_BYTES;

mod cold;
mod collect;
mod cursor;
mod frames;
mod lookup;
pub mod membership;
mod offsets;
pub mod queue;
mod session;
mod sessions;

pub use collect::{Collected, CollectedBatch, CollectedPart, Wants};
pub use cursor::Cursor;
pub use lookup::{LookupAnswer, LookupEntry};
pub use offsets::{
    NOTE_BYTES, NoteKind, OFFSETS_SCHEMA, OffsetNote, OffsetRefused, Offsets, Progress, StoredOffsetsError, decode_notes, encode_notes,
};
pub use session::{FetchStart, Mode};
pub use sessions::{DamageFound, Reading, Sessions};

/// Payload bytes of one fetch reply, at most, unless one batch is larger: small replies must pass between them (128 KiB
/// are 50 us of a 25 Gbit/s link).
pub const FETCH_FRAME_BYTES: usize = 128 << 10;
/// Bytes of one cold read, at most, unless one batch is larger. Two pages less than 1 MiB: with its first and last page whole it still
/// fits a buffer of that size.
pub const COLD_CHUNK_BYTES: u64 = (1 << 20) - 2 * PAGE_BYTES as u64;
/// The same while the log writes, so that two or three are under way (`COLD_READING_BYTES_WHEN_WRITING`). With one read of 1 MiB under way disk and shard
/// could wait for each other in turns, for minutes: producers' median 1.55 ms and 0.93 GB/s of replay, or 0.95 ms and 1.5 GB/s. Four readers beside
/// 0.72 GB/s of durable produce, when 512 KiB were under way, reads of 256 KiB: 1.15 ms, p99 2.5 ms, 1.56 GB/s; of 128 KiB: 0.76 ms, p99 1.9 ms, 1.16
/// GB/s (of 2.5 alone).
pub const COLD_CHUNK_BYTES_WHEN_WRITING: u64 = (128 << 10) - 2 * PAGE_BYTES as u64;
/// Cold reads that one cursor has under way or waiting, at most.
pub const COLD_CHUNKS_PER_CURSOR: usize = 8;
/// Bytes of reads under way beyond which a cursor has one only: four of 1 MiB. From disk to socket with nothing else (`tramline-limits --only
/// cold-stream`, three runs with TCP's cubic) one read under way gave 2.5 to 2.7 GB/s, two 2.9 to 3.1, four 3.0 to 3.3, eight 2.2 to 2.9.
pub const COLD_READING_BYTES: u64 = 7 << 19;
/// The same while the log writes, for all cursors together: from it on no cursor begins a read. What is under way is what a synced write waits for in the
/// disk's queue; four readers with one read of 1 MiB each left a producer half of the rate that it asked for. Beside 0.80 GB/s of durable produce
/// (batches of 64 KiB, so reads of 68), producers' median and p99 and the replay: with 512 KiB 0.76 ms, 1.8 to 3.6 ms, 1.13 GB/s; with 256 KiB 0.53,
/// 1.2 to 2.3, 1.08; with 192 KiB 0.52, 1.1 to 1.9, 1.06; with 128 KiB 0.47, 1.0 to 2.4, 0.96.
pub const COLD_READING_BYTES_WHEN_WRITING: u64 = 192 << 10;
/// `COLD_CHUNKS_PER_CURSOR` once half of `COLD_BYTES_MAX` is in use: one to send, one under way.
pub const COLD_CHUNKS_WHEN_SHARED: usize = 2;
/// Memory of all cold chunks of a shard, at most (and at most a quarter of `memory.bytes`); more cursors wait for their turn.
pub const COLD_BYTES_MAX: u64 = 64 << 20;
/// A stream stops filling a connection's queue at this many bytes and goes on below half of it.
pub const QUEUE_BYTES_HIGH: usize = 1 << 20;
/// Partitions one fetch may name.
pub const FETCH_ENTRIES_MAX: usize = 10_000;
/// Streams and waiting fetches a shard holds at most.
pub const SESSIONS_MAX: usize = 20_000;
/// Partitions in all of them together: some 100 bytes each.
pub const CURSORS_MAX: usize = 500_000;
