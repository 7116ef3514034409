//! `queue send`: each line of standard input becomes a message of the queue's topic.
//!
//! Not here: reading and sending lines (`produce.rs`).

use super::args::Send;
use crate::args::{Compression, Delimiter, Global, Level, Produce};
use crate::failure::Failure;
use crate::produce::{self, Due, MessageMarks};
use std::process::ExitCode;
use tramline_client::Client;

/// Runs the verb; the exit code says whether any message failed.
pub fn run(client: &Client, global: &Global, options: &Send) -> Result<ExitCode, Failure> {
    let queue = client.find_queue(&options.name)?;
    let due = match (options.delay, options.deliver_at) {
        (Some(delay), _) => Some(Due::After(delay)),
        (None, at_us) => at_us.map(Due::At),
    };
    let marks =
        MessageMarks { due, priority: options.priority, ttl_ms: options.ttl, group: options.group.clone(), message_id: options.id.clone() };
    let produced = Produce {
        topic: queue.topic,
        key_field: None,
        delimiter: Delimiter(b",".to_vec()),
        key: options.key.clone(),
        headers: options.headers.clone(),
        partition: options.partition,
        level: Level::Durable,
        compression: Compression::None,
    };
    produce::send(client, global, &produced, Some(&marks))
}
