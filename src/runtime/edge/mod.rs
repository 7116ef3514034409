//! The edge of one shard: between its ring and its core. Facade of `src/runtime/edge/`.
//!
//! | file | job |
//! |---|---|
//! | `edge.rs` | completions into events, effects into operations, ends of connections |
//! | `feed.rs` | received bytes into frames, one protocol per role; who waits for what |
//! | `links.rs` | connections with other nodes: dials, numbers of frames, who has not spoken yet |
//! | `rations.rs` | who may receive while memory for received bytes is short |
//! | `refusals.rs` | what somebody is told whose bytes are no frames |
//!
//! Invariants: frames of one connection are stepped in order; one that the core cannot take now stays in its receive buffer, and nothing more is read
//! from that connection, while all others go on; clients and nodes have memory of their own.
//!
//! Not here: decisions (the core), when to turn, spin and sleep (`shard_loop.rs`), operations (`ring/`).

#[allow(clippy::module_inception)]
mod edge;
mod feed;
mod links;
mod rations;
mod refusals;
#[cfg(test)]
mod tests;

pub(super) use edge::{Edge, EdgeParts};
