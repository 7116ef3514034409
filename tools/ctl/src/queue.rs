//! `queue`: queues, their messages, and what is under lease.
//!
//! | file | verbs |
//! |---|---|
//! | `args` | the command line |
//! | `admin` | create, alter, list, describe, delete, pause, resume, purge, delete-message |
//! | `send` | send |
//! | `receive` | receive |
//! | `settle` | ack, nack, extend, release, reject |
//! | `browse` | browse |
//! | `redrive` | redrive |
//! | `letters` | its way from a dead-letter topic back to where they came from |
//!
//! As with the other verbs: the JSON's fields may become more, none is renamed.

mod admin;
pub mod args;
mod browse;
mod letters;
mod receive;
mod redrive;
mod send;
mod settle;

use crate::args::Global;
use crate::failure::Failure;
use args::{Nack, QueueVerb};
use std::process::ExitCode;
use tramline_client::{Client, Settle};

/// Runs a verb; the exit code says whether any message failed.
pub fn run(client: &Client, global: &Global, verb: QueueVerb) -> Result<ExitCode, Failure> {
    let format = global.format;
    match verb {
        QueueVerb::Create(options) => admin::create(client, format, &options)?,
        QueueVerb::Alter { name, settings } => admin::alter(client, format, &name, &settings)?,
        QueueVerb::List => admin::list(client, format)?,
        QueueVerb::Describe { name } => admin::describe(client, format, &name)?,
        QueueVerb::Delete { name } => admin::delete(client, format, &name)?,
        QueueVerb::Pause { name } => admin::pause(client, format, &name, true)?,
        QueueVerb::Resume { name } => admin::pause(client, format, &name, false)?,
        QueueVerb::Purge { name, yes } => admin::purge(client, format, &name, yes)?,
        QueueVerb::DeleteMessage { name, messages } => return admin::delete_messages(client, format, &name, &messages),
        QueueVerb::Send(options) => return send::run(client, global, &options),
        QueueVerb::Receive(options) => receive::run(client, global, &options)?,
        QueueVerb::Ack(tokens) => return settle::run(client, format, &tokens, &Settle::Ack),
        QueueVerb::Nack(Nack { tokens, delay, reason }) => return settle::run(client, format, &tokens, &Settle::Nack { delay, reason }),
        QueueVerb::Extend { tokens, length } => return settle::run(client, format, &tokens, &Settle::Extend(length)),
        QueueVerb::Release(tokens) => return settle::run(client, format, &tokens, &Settle::Release),
        QueueVerb::Reject { tokens, reason } => return settle::run(client, format, &tokens, &Settle::Reject { reason }),
        QueueVerb::Browse(options) => browse::run(client, global, &options)?,
        QueueVerb::Redrive(options) => redrive::run(client, global, &options)?,
    }
    Ok(ExitCode::SUCCESS)
}
