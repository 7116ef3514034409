//! Queues: messages of a partition under leases.
//!
//! Not here: the settings as text (control/), requests (api/), who asks (shard/).

pub mod rules;
