//! Tests of a whole shard over the simulated disk: real frames in, real frames out, crashes at any point.

mod advice;
mod cluster;
mod crash;
mod expiry;
mod full_disk;
mod groups;
mod listing;
mod producers;
mod queue_dead_letters;
mod queue_messages;
mod queue_metrics;
mod queue_unread;
mod queue_waiting;
mod queues;
mod requests;
mod steps;
mod timed;
mod trims;
mod world;
