//! What a queue's settings mean, as plain numbers.
//!
//! Not here: the table of settings and its checks (control/queue_settings.rs); the shard makes this from there.

/// What a queue's settings mean for its partitions; the numbers are within the ranges of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// How long a lease lasts where a Receive says nothing, in microseconds; above 0.
    pub visibility_timeout_us: u64,
    /// Deliveries after which a message is dead, at least 1; `None`: never.
    pub max_deliveries: Option<u16>,
    /// Delay before the second delivery, in microseconds.
    pub retry_initial_us: u64,
    /// By what the delay grows with each further delivery, in hundredths; at least 100.
    pub retry_multiplier_hundredths: u32,
    /// The longest delay that the multiplier leads to, in microseconds; it may be below `retry_initial_us`, and holds then.
    pub retry_max_us: u64,
    /// How much a delay is changed at random, up or down, in per cent; at most 100.
    pub retry_jitter_percent: u8,
    /// How long a message id is remembered, in microseconds; 0: ids are not looked at.
    pub dedup_window_us: u64,
    /// Messages of a partition under lease, at most.
    pub max_in_flight: u32,
    /// The same for each consumer.
    pub max_in_flight_per_consumer: u32,
    /// Whether one consumer at a time has a partition.
    pub exclusive: bool,
    /// Whether nothing is delivered for now.
    pub paused: bool,
    /// Exclusive: how long a holder without leases may be silent, in microseconds.
    pub consumer_timeout_us: u64,
    /// Whether dead messages go to a topic (else they stay as dead).
    pub has_dead_letter: bool,
}
