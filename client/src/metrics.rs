//! What producers and consumers have done so far, as plain numbers.
//!
//! Counted by the cores where it happens, since the producer or consumer was made; they only grow, and cost an addition each. A copy is handed out, so a
//! caller takes differences between two of them. Not here: latencies (the caller has the times), where to publish them.

/// Counters of a [`Consumer`](crate::Consumer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConsumerMetrics {
    /// Records handed out.
    pub records: u64,
    /// Bytes of batches that arrived, as they travel (compressed), those dropped because of a seek or a pause included.
    pub bytes_received: u64,
    /// Replies with batches.
    pub replies_received: u64,
    /// Times that a stream was started, at first or anew (a seek, a pause, a new connection, a new owner).
    pub streams_started: u64,
    /// Times that credit was given back.
    pub credit_grants: u64,
    /// Times that a partition could not be read, for now or for good.
    pub refusals: u64,
    /// Batches whose checksum or structure is wrong, none of which was handed out.
    pub corrupt_batches: u64,
    /// Connections to owners opened.
    pub connections_opened: u64,
    /// Connections that could not be opened or broke.
    pub connections_lost: u64,
    /// Times that newer metadata came.
    pub metadata_refreshes: u64,
}

/// Counters of a [`QueueConsumer`](crate::QueueConsumer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueueConsumerMetrics {
    /// Messages handed out.
    pub messages: u64,
    /// Messages that were leased and given back without being handed out.
    pub given_back: u64,
    /// Bytes of batches that arrived, as they travel (compressed), with the messages of others in them.
    pub bytes_received: u64,
    /// Receive requests.
    pub receives_sent: u64,
    /// Settlements that were done, those of messages given back included.
    pub settled: u64,
    /// Receives, partitions and settlements that were refused, for now or for good.
    pub refusals: u64,
    /// Replies of which a batch was wrong; its messages come back when their leases are over.
    pub corrupt_batches: u64,
    /// Connections to owners opened.
    pub connections_opened: u64,
    /// Connections that could not be opened or broke.
    pub connections_lost: u64,
    /// Times that newer metadata came.
    pub metadata_refreshes: u64,
}

/// Counters of a [`Producer`](crate::Producer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProducerMetrics {
    /// Records that `send` took.
    pub records_taken: u64,
    /// Records acknowledged (at level `none`: written).
    pub records_acknowledged: u64,
    /// Records that ended with an error.
    pub records_failed: u64,
    /// Bytes of batches put into requests, repetitions included, as they travel (compressed).
    pub bytes_sent: u64,
    /// Batches put into requests, repetitions included.
    pub batches_sent: u64,
    /// Of these, repetitions: batches whose answer was lost, or that were refused for now.
    pub batches_sent_again: u64,
    /// Batches that the broker had stored so long ago that it knew no offset any more.
    pub duplicates_too_old: u64,
    /// Produce requests.
    pub requests_sent: u64,
    /// Batches refused in a way that may pass.
    pub refusals: u64,
    /// Times that the batches of a partition got a new epoch (see the crate's page on what is promised).
    pub epochs_raised: u64,
    /// Connections to owners opened.
    pub connections_opened: u64,
    /// Connections that could not be opened or broke, idle ones included.
    pub connections_lost: u64,
    /// Times that newer metadata came.
    pub metadata_refreshes: u64,
    /// Times that a record found the buffer full.
    pub buffer_full: u64,
    /// Microseconds of pauses that brokers asked for, over all connections.
    pub throttled_us: u64,
}
