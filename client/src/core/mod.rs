//! The client without sockets and clocks: bytes and times come in as arguments, bytes go out through queues.
//!
//! | file | job |
//! |---|---|
//! | `conn` | one connection: outgoing bytes, incoming frames, correlation ids |
//! | `recv_buf`, `out_queue` | its two buffers |
//! | `peer` | one connection's life: dialling, hello |
//! | `wish` | when metadata is wanted |
//! | `router` | getting metadata |
//! | `links` | all connections of a producer or a consumer |
//! | `cluster` | who owns which partition, and at which address |
//! | `producer` | open batches; windows, order, refusals |
//! | `consumer` | streams, credit, positions, skipping, checksums |
//! | `group` | membership of a consumer group, claims and commits of offsets |
//! | `queue` | leases of a queue: one Receive per owner, settlements in batches |
//! | `codec` | compression and bounded decompression (of the crate `tramline-wire`) |
//! | `bad_batch` | why a batch is not handed out |
//! | `alive` | is the other side still there |
//! | `backoff` | waits between attempts |
//!
//! Invariants of absence: nothing here names a socket, reads a clock or sleeps; what is drawn is drawn from a seed that comes in. The transports
//! (`crate::transport`) move the bytes, the facades (`crate::producer`, `crate::consumer`) run the loop between the two.

mod alive;
mod backoff;
mod bad_batch;
pub(crate) mod cluster;
mod conn;
pub(crate) mod consumer;
pub(crate) mod group;
pub(crate) mod links;
mod out_queue;
mod peer;
pub(crate) mod producer;
pub(crate) mod queue;
mod recv_buf;
mod router;
mod wish;

pub(crate) use alive::Alive;
pub(crate) use backoff::Backoff;
pub(crate) use conn::Conn;
pub(crate) use out_queue::{IOVECS_MAX, OutQueue, SharedBytes};
pub(crate) use recv_buf::RecvBuf;
pub(crate) use tramline_wire::compression as codec;

/// One reading of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Monotonic microseconds since some origin of this process: for deadlines and waits.
    pub mono_us: u64,
    /// UTC microseconds: for record timestamps only.
    pub utc_us: i64,
}
