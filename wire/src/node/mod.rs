//! The protocol between nodes as a pure codec: frames, bodies, and the walk over entries that a follower is about to store.
//!
//! docs/REPLICATION.md, section 3, is the specification; a test compares its tables with this module.
//!
//! | file | job |
//! |---|---|
//! | `frame.rs` | the frame, and the numbers of a connection |
//! | `kind.rs` | kinds, classes of connections, who may send what |
//! | `error.rs` | why bytes of another node are refused |
//! | `hello.rs` | Hello, HelloReply, Refused and its codes |
//! | `append.rs` | Append: its writer, and the checked walk over what came |
//! | `acks.rs` | Ack, Beat |
//! | `votes.rs` | Vote, VoteReply, TimeoutNow |
//! | `catchup.rs` | CatchUp, CatchUpReply, Piece, PieceAck |
//! | `repair.rs` | Fetch, FetchReply |
//! | `calls.rs` | Call, CallReply, Leaders, Activity |
//! | `parts.rs` | batches and items of a payload: checking them, going through them |
//!
//! Invariants: as everywhere in this crate nothing is allocated by decoding, unknown flags, kinds, reserved and trailing bytes are refused, and no
//! input panics. Every byte of a payload is covered by a sum: a batch has its own, all else has one in the meta. What a `check` has taken can be
//! gone through without errors.
//!
//! Not here: sockets, timers, the receiver's log, the raft crate's messages (`src/replication` makes these into frames and back).
//!
//! A share of a block on its way:
//! ```
//! use tramline_wire::batch::{self, BatchBuilder, LeaderStamp, NewRecord, ProducerMark, stamp_leader};
//! use tramline_wire::frame::{Limits, finish_frame};
//! use tramline_wire::node::{self, *};
//!
//! // The leader: a batch of term 7 and a control payload, which stand in a block.
//! let mut builder = BatchBuilder::new(batch::Limits::default());
//! builder.push(&NewRecord { value: Some(b"N14228"), ..NewRecord::default() })?;
//! let mut batch = Vec::new();
//! builder.finish_plain(&mut batch, ProducerMark::default());
//! stamp_leader(&mut batch, &LeaderStamp { partition_uid: 42, base_offset: 1000, term: 7, append_time_us: 0 });
//! let payload = b"trim";
//!
//! // Its shard: heads are written, bytes are sent from where they lie.
//! let mut numbers = Numbers::new();
//! let mut head = Vec::new();
//! let start = node::begin(&mut head, Kind::Append, numbers.advance());
//! let mut append = AppendWriter::begin(&mut head, 1);
//! let base = ShareBase { group: 3, flags: ShareFlags::default(), term: 7, prev_index: 16, prev_term: 6, commit: 16 };
//! append.share(&mut head, &base);
//! let mut control = ItemsSum::new();
//! let length = control.add(payload);
//! append.entry(&mut head, &EntryHead::block(7, batch.len() as u32, &control));
//! let payload_bytes = append.finish(&mut head);
//! finish_frame(&mut head, start, payload_bytes)?;
//! let sent = [&head[..], &batch, &length, payload].concat();
//!
//! // The follower: everything below borrows from the receive buffer, and behind `check` nothing fails any more.
//! let expected = Numbers::new();
//! let Need::Whole(frame, _len) = node::peek(&sent, &Limits::PROTOCOL, &expected)? else { panic!("more bytes needed") };
//! frame.kind.check(Class::Live, Side::Dialer)?;
//! let append = Append::decode(frame.meta)?.check(frame.payload, &PayloadLimits::default())?;
//! for share in append.shares() {
//!     for entry in share.entries() {
//!         assert_eq!((share.base().group, entry.index(), entry.term(), entry.kind()), (3, 17, 7, EntryKind::Block));
//!         assert!(entry.batches().all(|batch| batch.base_offset() == 1000));
//!         assert!(entry.controls().eq([payload]));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acks;
mod append;
mod calls;
mod catchup;
mod error;
mod frame;
mod hello;
mod kind;
mod parts;
mod repair;
mod votes;

pub use acks::*;
pub use append::{
    Append, AppendWriter, Change, ChangeAction, CheckedAppend, CheckedEntries, CheckedEntry, CheckedShare, CheckedShares, EntryHead,
    EntryKind, NUMBER_END, Share, ShareBase, ShareFlags,
};
pub use calls::*;
pub use catchup::*;
pub use error::{NodeError, Place};
pub use frame::{Frame, MAGIC, Need, Numbers, begin, peek};
pub use hello::*;
pub use kind::{Class, Kind, Side};
pub use parts::{CheckedBatches, CheckedItems, ItemsSum, PayloadLimits};
pub use repair::*;
pub use votes::*;
