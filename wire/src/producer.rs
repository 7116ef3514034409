//! InitProducer (kind 17): an identity for an idempotent producer.
//!
//! What it is for: a batch carries the identity, an epoch and the number of its first record in what the producer sends to the partition; so a
//! batch that is sent again because its answer was lost is found and not stored twice.
//!
//! Not here: the rules of epochs and sequences (docs/PROTOCOL.md, "Idempotent producers"), the mark in a batch
//! ([`crate::batch::ProducerMark`]).

use crate::prim::layout;

layout! {
    /// Asks for an identity that nobody else has or had. Any shard answers.
    pub struct InitProducerRequest {}
}

layout! {
    /// The identity, and what the node keeps of a producer.
    pub struct InitProducerReply {
        /// Above 0, given once. The producer's first epoch is 0.
        pub producer_id: u64;
        /// Batches of a producer in a partition that the node can tell from new ones: no more than so many of one partition may be under way.
        pub batches_kept: u16 => zero 2;
        /// A producer that sends nothing to a partition for so long is forgotten there, in milliseconds: nothing is to be sent again after half of it.
        pub expiry_ms: u32;
    }
}
