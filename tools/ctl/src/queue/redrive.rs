//! `queue redrive`: dead messages are delivered once more.
//!
//! Without a dead-letter topic they are still in the queue, and become ready. With one they are letters there, which a queue of its own on that topic, `NAME.redrive`, hands out (`letters.rs`). It
//! remembers what was redriven; the letters stay in their topic.
//!
//! Invariant: a run looks at no more letters than there were when it began, so it ends also where others arrive, or are given back, meanwhile.

use super::args::Redrive;
use super::letters::Mover;
use crate::args::{Format, Global};
use crate::failure::Failure;
use crate::output::show;
use serde_json::json;
use tramline_client::{Client, ErrorCode, QueueDescription};

/// Bytes of a queue's name, at most.
const NAME_BYTES_MAX: usize = 249;
/// What the name of a queue that redrives ends with.
const SUFFIX: &str = ".redrive";

/// What was done.
#[derive(Default)]
pub(super) struct Tally {
    pub redriven: u64,
    /// Of other queues with the same dead-letter topic.
    pub others: u64,
    /// Letters that could not be stored.
    pub failed: u64,
    /// Why the first of them could not.
    pub first: Option<Failure>,
    /// Letters besides these that did not come though they are there, where the run went on until nothing came.
    pub held_up: u64,
    /// The numbers are the most that there can be: letters of other queues may be among them.
    pub at_most: bool,
}

/// Runs the verb.
pub fn run(client: &Client, global: &Global, options: &Redrive) -> Result<(), Failure> {
    let queue = client.describe_queue(&options.name)?;
    match queue.setting("dead.letter.topic").filter(|topic| !topic.is_empty()) {
        None if options.rate.is_some() => {
            let message = format!(
                "--rate is for messages in a dead-letter topic, and queue {} has none: its dead messages become ready all at once; leave --rate out, or use --count",
                options.name
            );
            Err(Failure::local("invalid_argument", message))
        }
        None => in_queue(client, global.format, options),
        Some(topic) if options.dry_run => {
            let redriven = count_dead(client, &options.name, topic)?.min(options.count.unwrap_or(u64::MAX));
            told(global.format, options, Some(topic), &Tally { redriven, at_most: true, ..Tally::default() })
        }
        Some(topic) => {
            // Before the queue is made: of one that was made just now not all may be known.
            let there = count_dead(client, &options.name, topic)?;
            let mut tally = Tally::default();
            let mover = Mover::open(client, global, options, &redrive_queue(&options.name), topic, &queue.topic)?;
            let moved = mover.all(client, options, there, &mut tally);
            told(global.format, options, Some(topic), &tally)?;
            moved?;
            let held_up = (tally.held_up > 0).then(|| Failure::local("letters_left", held_up(tally.held_up, &options.name)));
            tally.first.map(|first| not_all(tally.failed, first)).or(held_up).map_or(Ok(()), Err)
        }
    }
}

fn not_all(failed: u64, first: Failure) -> Failure {
    let message = format!("{failed} letters could not be stored and were left where they are; the first: {}", first.message);
    Failure { message, ..first }
}

fn held_up(letters: u64, name: &str) -> String {
    let queue = redrive_queue(name);
    format!(
        "{letters} more letters are there and did not come: they are under a lease that an interrupted run left (a minute at most, at default settings), behind one of their message group, or queue {queue} is          paused; look with: tramctl queue browse {queue}, and run this again"
    )
}

fn told(format: Format, options: &Redrive, topic: Option<&str>, tally: &Tally) -> Result<(), Failure> {
    let Redrive { name, dry_run, .. } = options;
    let Tally { redriven, others, failed, at_most, held_up, .. } = *tally;
    let value = || json!({"queue": name, "redriven": redriven, "failed": failed, "others": others, "held_up": held_up, "at_most": at_most, "dead_letter_topic": topic, "dry_run": dry_run});
    show(format, || text(name, topic, *dry_run, tally), value)
}

fn text(name: &str, topic: Option<&str>, dry_run: bool, tally: &Tally) -> String {
    let Tally { redriven, others, failed, held_up, .. } = *tally;
    let of = topic.map_or(String::new(), |topic| format!(" from topic {topic}"));
    if dry_run {
        let at_most = if tally.at_most { "at most " } else { "" };
        return format!("would redrive {at_most}{redriven} messages of queue {name}{of} (--dry-run: nothing was changed)\n");
    }
    let failed = if failed > 0 { format!("{failed} could not be stored and were left where they are\n") } else { String::new() };
    let others = if others > 0 { format!("{others} of other queues were left where they are\n") } else { String::new() };
    let held_up = if held_up > 0 { format!("{held_up} are there and did not come\n") } else { String::new() };
    format!("redriven {redriven} messages of queue {name}{of}\n{failed}{others}{held_up}")
}

/// Dead messages that are still in the queue.
fn in_queue(client: &Client, format: Format, options: &Redrive) -> Result<(), Failure> {
    let count = options.count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    let redriven = client.redrive_queue(&options.name, &[], count, options.dry_run)?.iter().map(|(_, count)| count).sum();
    told(format, options, None, &Tally { redriven, ..Tally::default() })
}

/// `NAME.redrive`. Where that is too long for a name the end of NAME gives way to its hash, so that it is the same queue in each run.
fn redrive_queue(name: &str) -> String {
    if name.len() + SUFFIX.len() <= NAME_BYTES_MAX {
        return format!("{name}{SUFFIX}");
    }
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let end = format!(".{hash:016x}{SUFFIX}");
    let kept: String = name.chars().take(NAME_BYTES_MAX - end.len()).collect();
    kept + &end
}

/// How many may be redriven from a dead-letter topic, at most: those of other queues are counted as well.
fn count_dead(client: &Client, name: &str, topic: &str) -> Result<u64, Failure> {
    match client.describe_queue(&redrive_queue(name)) {
        Ok(queue) => {
            check_topic(&queue.name, &queue.topic, topic)?;
            Ok(letters_of(&queue)?.iter().sum())
        }
        Err(error) if error.code() == Some(ErrorCode::UnknownQueue) => {
            let partitions = client.describe_topic(topic)?.partitions;
            if let Some(silent) = partitions.iter().find(|partition| !partition.error.is_ok()) {
                let what = format!("topic {topic} partition {} does not tell how many letters it has; try again", silent.index);
                return Err(Failure::refused(silent.error, &what));
            }
            Ok(partitions.iter().map(|p| p.committed_end.saturating_sub(p.log_start)).sum())
        }
        Err(error) => Err(error.into()),
    }
}

/// A queue that redrives is on the dead-letter topic, or it was made for another one.
pub(super) fn check_topic(queue: &str, on: &str, dead: &str) -> Result<(), Failure> {
    if on == dead {
        return Ok(());
    }
    let message = format!(
        "queue {queue} is on topic {on}, not on the dead-letter topic {dead}: redrive what is left on {on} first (set dead.letter.topic back to it for that time), then: tramctl queue delete {queue} (it forgets which \
         letters of {on} were redriven)"
    );
    Err(Failure::local("invalid_argument", message))
}

/// Letters that a queue has left: those that could come now, looked at or not, and those that wait for something.
pub(super) fn letters_of(queue: &QueueDescription) -> Result<[u64; 2], Failure> {
    if let Some(silent) = queue.partitions.iter().find(|partition| !partition.error.is_ok()) {
        let what = format!("queue {} partition {} does not tell how many letters it has; try again", queue.name, silent.partition);
        return Err(Failure::refused(silent.error, &what));
    }
    let at_hand = queue.partitions.iter().map(|p| p.ready + p.committed_end.saturating_sub(p.looked_to)).sum();
    Ok([at_hand, queue.partitions.iter().map(|p| p.leased + p.delayed).sum()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_queue_that_redrives_fits_and_stays_the_same() {
        assert_eq!(redrive_queue("mail"), "mail.redrive");
        let longest = "n".repeat(241);
        assert_eq!(redrive_queue(&longest), format!("{longest}.redrive"));
        let names: Vec<String> = ["a", "b"].iter().map(|end| redrive_queue(&("n".repeat(241) + end))).collect();
        assert_ne!(names[0], names[1], "they differ where they were cut");
        for name in names.iter().chain([&redrive_queue(&"n".repeat(249))]) {
            assert!(name.len() == NAME_BYTES_MAX && name.ends_with(SUFFIX), "{name}");
        }
        assert_eq!(names[0], format!("{}.b14cd264996edef0.redrive", "n".repeat(224)), "or each version would redrive all letters anew");
    }

    #[test]
    fn a_tally_says_what_it_knows_and_no_more() {
        let tally = Tally { redriven: 3, at_most: true, ..Tally::default() };
        let text_of = |dry_run, tally: &Tally| text("q", Some("dead"), dry_run, tally);
        assert_eq!(text_of(true, &tally), "would redrive at most 3 messages of queue q from topic dead (--dry-run: nothing was changed)\n");
        let exact = Tally { redriven: 3, ..Tally::default() };
        assert!(text("q", None, true, &exact).starts_with("would redrive 3 messages of queue q (--dry-run"));
        assert_eq!(text_of(false, &exact), "redriven 3 messages of queue q from topic dead\n");
        let mixed = Tally { redriven: 1, others: 2, failed: 4, held_up: 5, ..Tally::default() };
        let lines = text_of(false, &mixed);
        assert!(["\n4 could not be stored", "\n2 of other queues", "\n5 are there"].iter().all(|line| lines.contains(line)), "{lines}");
        let failure = not_all(4, Failure::local("unknown_topic", "no topic"));
        assert_eq!((failure.code.as_str(), failure.message.ends_with("the first: no topic")), ("unknown_topic", true));
    }
}
