//! `group consume`: a member of a group that prints what it reads.
//!
//! Invariants: a record is printed, and standard output has it, before it is committed, so that one that was committed was printed (at least once); `--count` commits nothing behind
//! the last record that it printed; the first SIGINT or SIGTERM ends it in good order (last commit, leave), a second one at once.
//! Not here: the form of a record (`print.rs`).

use crate::args::{AssignorName, Global, GroupConsume, Reset};
use crate::consume::{Output, WAIT, how};
use crate::failure::Failure;
use crate::signals::Stop;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tramline_client::{Assignor, Client, Error, GroupConfig, GroupConsumer, OffsetReset};

/// Runs the verb.
pub fn run(client: &Client, global: &Global, options: &GroupConsume) -> Result<(), Failure> {
    let stop = Stop::watch()?;
    let mut member = client.group_consumer(config(options))?;
    let read = print_records(&mut member, global, options, &stop);
    if read.is_err() {
        // Standard output may not have all that was handed out: the next member prints it, and some of it again.
        member.stop_auto_commit();
    }
    // Whatever ended it: the others go on at once.
    let closed = member.close(global.timeout.max(Duration::from_millis(100)));
    read?;
    Ok(closed?)
}

fn config(options: &GroupConsume) -> GroupConfig {
    let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
    GroupConfig {
        instance_id: options.instance.clone(),
        session_timeout: options.session_timeout,
        assignor: match options.assignor {
            AssignorName::Sticky => Assignor::Sticky,
            AssignorName::Uniform => Assignor::Uniform,
        },
        auto_offset_reset: match options.from {
            Reset::Earliest => OffsetReset::Earliest,
            Reset::Latest => OffsetReset::Latest,
            Reset::None => OffsetReset::None,
        },
        ..GroupConfig::new(&options.name, &topics)
    }
}

fn print_records(member: &mut GroupConsumer, global: &Global, options: &GroupConsume, stop: &Stop) -> Result<(), Failure> {
    let how = how(options.print, global);
    let mut output = Output::new();
    let mut left = options.count;
    let mut heard = Instant::now();
    let mut last_failure = None;
    while left != Some(0) && !stop.is_wanted() {
        let wait = options.wait.map_or(WAIT, |wait| wait.saturating_sub(heard.elapsed()).min(WAIT));
        let result = member.poll_until(wait, |record| {
            output.record(record, Some(record.topic), how);
            left = left.map(|left| left - 1);
            if output.has_failed() || left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        // The next poll may commit what this one brought.
        output.check()?;
        output.flush()?;
        match result {
            Ok(0) if options.wait.is_some_and(|wait| heard.elapsed() >= wait) => break,
            Ok(0) => {}
            Ok(_) => heard = Instant::now(),
            // One partition that cannot be read is told, and the others go on; all else ends it.
            Err(error @ (Error::Partition { .. } | Error::Corrupt { .. })) => {
                let failure = Failure::from(error);
                eprint!("{}", failure.render(global.format));
                last_failure = Some(failure);
            }
            Err(error) if error.retriable() => eprint!("{}", Failure::from(error).render(global.format)),
            Err(error) => return Err(error.into()),
        }
    }
    match last_failure {
        Some(failure) => Err(Failure { message: "not all partitions could be read; see above".to_owned(), ..failure }),
        None => Ok(()),
    }
}
