//! The load: the same code for every peer.
//!
//! `pacer` waits exactly, `payload` makes records, `flow` drives a producer (closed loop with a window, or open loop at a rate), `ends` adds a reader,
//! `cycle` drives a queue, `figures` is what comes out.

pub mod cycle;
pub mod ends;
pub mod figures;
pub mod flow;
pub mod pacer;
pub mod payload;
