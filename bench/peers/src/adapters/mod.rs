//! One file per peer: how it does what `peer.rs` asks for, and with which settings of its client.

pub mod acks;
pub mod kafka;
pub mod nats;
pub mod rabbit;
pub mod redis;
pub mod tail;
pub mod tramline;
