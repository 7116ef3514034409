//! The command line of `queue`: verbs, options, ranges and defaults. As in `args.rs`: options may be added, none renamed.

use crate::args::Print;
use crate::lines::parse_pair;
use crate::start::{From, parse_from};
use crate::units::{parse_duration, parse_duration_in};
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;
use tramline_client::{At, BrowseState, LeaseToken};

/// Most messages of one command: what a person or a script looks at, all of them under leases in the case of `receive`.
const COUNT_MAX: u64 = 1_000_000;

/// What can be done with queues.
#[derive(Subcommand, Debug)]
pub enum QueueVerb {
    /// Create a queue on a topic that exists
    Create(Create),
    /// Change settings of a queue
    Alter {
        /// Name of the queue
        name: String,
        /// What to change.
        #[command(flatten)]
        settings: Settings,
    },
    /// All queues
    List,
    /// Settings of one queue, and how it stands in each partition
    Describe {
        /// Name of the queue
        name: String,
    },
    /// Delete a queue without asking; the messages stay in the topic
    Delete {
        /// Name of the queue
        name: String,
    },
    /// Deliver nothing until `resume`; leases go on
    Pause {
        /// Name of the queue
        name: String,
    },
    /// Deliver again
    Resume {
        /// Name of the queue
        name: String,
    },
    /// Write each line of standard input as one message into the queue's topic, durably; prints PARTITION:OFFSET of each (at most 100,000) once the input, or SIGINT or SIGTERM, ends it
    Send(Send),
    /// Receive messages and print them, one a line
    Receive(Receive),
    /// Messages are done
    Ack(Tokens),
    /// Messages failed: deliver them again later
    Nack(Nack),
    /// Keep leases for longer
    Extend {
        /// Which.
        #[command(flatten)]
        tokens: Tokens,
        /// From now [100ms to 12h]
        #[arg(long = "for", value_name = "D", value_parser = lease)]
        length: Duration,
    },
    /// Give messages back as if they had not been delivered
    Release(Tokens),
    /// Messages can never be done: dead at once
    Reject {
        /// Which.
        #[command(flatten)]
        tokens: Tokens,
        /// Why, at most 256 bytes
        #[arg(long, default_value = "", value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
    /// Look at messages that are not settled; changes nothing
    Browse(Browse),
    /// Settle all messages that are there now, leased and dead ones too
    Purge {
        /// Name of the queue
        name: String,
        /// Do it; without, only say what would go
        #[arg(long)]
        yes: bool,
    },
    /// Settle single messages: cancels those that are delayed
    DeleteMessage {
        /// Name of the queue
        name: String,
        /// Which
        #[arg(required = true, value_name = "PARTITION:OFFSET", value_parser = place)]
        messages: Vec<(u32, u64)>,
    },
    /// Deliver dead messages once more: those in the dead-letter topic go back to the topic they came from, else those in the queue become ready
    ///
    /// With a dead-letter topic a queue of its own on that topic, NAME.redrive, hands the letters out and remembers which were redriven: it is made by the first run, and deleting it has all letters redriven anew. (Where NAME has more
    /// than 241 bytes its end gives way to a hash.) A letter that cannot be stored, as its topic is gone, stays for the next run; the exit code is 1 then,
    /// and where letters did not come: those under a lease, and those behind one of their message group that stays. Letters come as messages do, by priority, then the oldest first. A message keeps its key, value, headers, priority and
    /// group; not its id (the queue would take it for the one that died), and not its partition, which its key or group chooses. Records without a letter's headers go to the queue's own topic.
    Redrive(Redrive),
}

/// Options of `queue create`.
#[derive(Args, Debug)]
pub struct Create {
    /// Name of the new queue
    pub name: String,
    /// Topic whose messages it delivers
    #[arg(long, value_name = "T")]
    pub topic: String,
    /// Where it begins: earliest, latest, or an RFC 3339 time such as 2026-03-01T12:00:00Z
    #[arg(long, default_value = "latest", value_name = "WHERE", value_parser = start)]
    pub start: At,
    /// How it delivers.
    #[command(flatten)]
    pub settings: Settings,
    /// Succeed without change when the queue exists
    #[arg(long)]
    pub if_not_exists: bool,
    /// Check everything, create nothing
    #[arg(long, conflicts_with = "if_not_exists")]
    pub validate_only: bool,
}

/// Settings of a queue; docs/SETTINGS.md has their ranges, which the broker checks.
#[derive(Args, Debug, Default)]
pub struct Settings {
    /// How long a lease lasts [default: 30s]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    visibility_timeout: Option<Duration>,
    /// Deliveries until a message is dead; -1: never [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_deliveries: Option<i64>,
    /// Where dead messages go (created if missing); empty: they stay in the queue
    #[arg(long, value_name = "T")]
    dead_letter: Option<String>,
    /// Wait before the first retry [default: 1s]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    retry_initial: Option<Duration>,
    /// By how much each wait is longer than the one before [default: 2]
    #[arg(long, value_name = "X")]
    retry_multiplier: Option<String>,
    /// Longest wait before a retry [default: 5m]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    retry_max: Option<Duration>,
    /// How much of a wait is drawn by lot, such as 10%
    #[arg(long, value_name = "P%", value_parser = percent)]
    retry_jitter: Option<u8>,
    /// How long message ids are remembered [default: 5m]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    dedup_window: Option<Duration>,
    /// Most messages under lease per partition [default: 100000]
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u64>,
    /// The same for one consumer [default: 20000]
    #[arg(long, value_name = "N")]
    max_in_flight_per_consumer: Option<u64>,
    /// One consumer at a time has the partitions of a shard; --exclusive=false turns it off
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    exclusive: Option<bool>,
    /// When the holder of an exclusive queue loses it if it is silent [default: 10s]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    consumer_timeout: Option<Duration>,
    /// A setting by its name (repeatable); an empty value goes back to the default
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    set: Vec<(String, String)>,
}

impl Settings {
    /// Keys and values for the broker, in order of the options.
    pub fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let times = [
            ("visibility.timeout.ms", self.visibility_timeout),
            ("retry.initial.ms", self.retry_initial),
            ("retry.max.ms", self.retry_max),
            ("dedup.window.ms", self.dedup_window),
            ("consumer.timeout.ms", self.consumer_timeout),
        ];
        let others = [
            ("max.deliveries", self.max_deliveries.map(|number| number.to_string())),
            ("dead.letter.topic", self.dead_letter.clone()),
            ("retry.multiplier", self.retry_multiplier.clone()),
            ("retry.jitter.percent", self.retry_jitter.map(|number| number.to_string())),
            ("max.in.flight", self.max_in_flight.map(|number| number.to_string())),
            ("max.in.flight.per.consumer", self.max_in_flight_per_consumer.map(|number| number.to_string())),
            ("exclusive", self.exclusive.map(|flag| flag.to_string())),
        ];
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, time) in times {
            if let Some(time) = time {
                pairs.push((key.to_owned(), whole_ms(time)?.to_string()));
            }
        }
        pairs.extend(others.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        pairs.extend(self.set.iter().cloned());
        let twice = pairs.iter().enumerate().find(|(place, (key, _))| pairs[..*place].iter().any(|(other, _)| other == key));
        match twice {
            Some((_, (key, _))) => Err(format!("the setting {key} is given twice")),
            None => Ok(pairs),
        }
    }
}

fn whole_ms(time: Duration) -> Result<u128, String> {
    match time.as_nanos().is_multiple_of(1_000_000) {
        true => Ok(time.as_millis()),
        false => Err(format!("{time:?} is not whole milliseconds: write 1ms or more")),
    }
}

/// Options of `queue send`.
#[derive(Args, Debug)]
pub struct Send {
    /// Name of the queue
    pub name: String,
    /// Deliver so long after it was sent
    #[arg(long, value_name = "D", value_parser = parse_duration, conflicts_with = "deliver_at")]
    pub delay: Option<Duration>,
    /// Deliver at this RFC 3339 time or later
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub deliver_at: Option<i64>,
    /// Higher is sooner [0 to 9]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub priority: Option<u8>,
    /// Message group: its messages are delivered one after the other; chooses the partition where there is no key
    #[arg(long, value_name = "K")]
    pub group: Option<String>,
    /// Message id: what has it within the queue's dedup window is delivered once; chooses the partition where there is neither key nor group
    #[arg(long, value_name = "ID", value_parser = id)]
    pub id: Option<String>,
    /// Over, unless it was delivered by then [1ms to 49 days]
    #[arg(long, value_name = "D", value_parser = ttl)]
    pub ttl: Option<u32>,
    /// One key for all messages
    #[arg(long)]
    pub key: Option<String>,
    /// A header of every message (repeatable)
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub headers: Vec<(String, String)>,
    /// Write into this partition
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
}

/// Options of `queue receive`.
#[derive(Args, Debug)]
pub struct Receive {
    /// Name of the queue
    pub name: String,
    /// Stop after this many messages [1 to 1000000]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    pub count: u64,
    /// Stop after this time with what came until then [0s to 1h]
    #[arg(long, value_name = "D", default_value = "5s", value_parser = wait)]
    pub wait: Duration,
    /// What becomes of messages that were printed.
    #[command(flatten)]
    pub then: Then,
    /// What is printed of each message [default: value, or json with --format json]
    #[arg(long)]
    pub print: Option<Print>,
    /// Who this is; by default the host, the process and a number
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// How long the leases last [100ms to 12h; default: as the queue says]
    #[arg(long, value_name = "D", value_parser = lease)]
    pub visibility_timeout: Option<Duration>,
}

/// What becomes of messages that were printed: one of the three.
#[derive(Args, Debug)]
#[group(required = false, multiple = false)]
pub struct Then {
    /// They are done once they are written to standard output (the default)
    #[arg(long)]
    ack: bool,
    /// They are delivered again, as the queue's retry policy says
    #[arg(long)]
    pub nack: bool,
    /// Keep the leases: print tokens for `queue ack` and the others
    #[arg(long)]
    pub hold: bool,
}

/// Tokens of one queue.
#[derive(Args, Debug)]
pub struct Tokens {
    /// Name of the queue
    pub name: String,
    /// Tokens as `queue receive --hold` prints them
    #[arg(required = true, value_name = "TOKEN", value_parser = token)]
    pub tokens: Vec<LeaseToken>,
}

/// Options of `queue nack`.
#[derive(Args, Debug)]
pub struct Nack {
    /// Which.
    #[command(flatten)]
    pub tokens: Tokens,
    /// Before the next delivery [default: as the queue's retry policy says]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub delay: Option<Duration>,
    /// Why, at most 256 bytes
    #[arg(long, default_value = "", value_name = "TEXT", value_parser = reason)]
    pub reason: String,
}

/// Options of `queue browse`.
#[derive(Args, Debug)]
pub struct Browse {
    /// Name of the queue
    pub name: String,
    /// Only these
    #[arg(long)]
    pub state: Option<State>,
    /// Only this partition (repeatable); without it, all
    #[arg(long = "partition", value_name = "P")]
    pub partitions: Vec<u32>,
    /// At most so many [1 to 1000000]
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    pub count: u64,
    /// Print this of each message instead of the table
    #[arg(long)]
    pub print: Option<Print>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// It could be delivered now.
    Ready,
    /// Somebody has it.
    Leased,
    /// It is not due yet.
    Delayed,
    /// It is given up.
    Dead,
}

impl State {
    /// For the broker; no state is any.
    pub fn wanted(state: Option<State>) -> BrowseState {
        match state {
            None => BrowseState::Any,
            Some(State::Ready) => BrowseState::Ready,
            Some(State::Leased) => BrowseState::Leased,
            Some(State::Delayed) => BrowseState::Delayed,
            Some(State::Dead) => BrowseState::Dead,
        }
    }
}

/// Options of `queue redrive`.
#[derive(Args, Debug)]
pub struct Redrive {
    /// Name of the queue
    pub name: String,
    /// Say how many there are, change nothing; in a dead-letter topic those of other queues are counted too
    #[arg(long)]
    pub dry_run: bool,
    /// At most so many: by priority where they are in a dead-letter topic, then the oldest first [1 to 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    pub count: Option<u64>,
    /// At most so many per second, such as 100/s; only with a dead-letter topic
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<u32>,
}

/// Those without an id are all different; those with an empty one would all be the same.
fn id(text: &str) -> Result<String, String> {
    match text.is_empty() {
        true => Err("an empty message id would make all messages one; leave --id out where they have none".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn start(text: &str) -> Result<At, String> {
    match parse_from(text)? {
        From::Earliest => Ok(At::Earliest),
        From::Latest => Ok(At::Latest),
        From::Time(us) => Ok(At::Time(us)),
        From::Offset(_) => Err("a queue begins at earliest, latest or a time such as 2026-03-01T12:00:00Z, in all partitions".to_owned()),
    }
}

fn time(text: &str) -> Result<i64, String> {
    match parse_from(text) {
        Ok(From::Time(us)) => Ok(us),
        _ => Err(format!("'{text}' is no time; write one such as 2026-03-01T12:00:00Z")),
    }
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|number| *number <= 100);
    number.ok_or_else(|| format!("'{text}' is no share; write 0% to 100%"))
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").and_then(|number| number.parse().ok()).filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| format!("'{text}' is no rate; write 1/s to 1000000/s"))
}

fn ttl(text: &str) -> Result<u32, String> {
    let time = parse_duration_in(text, Duration::from_millis(1), Duration::from_millis(u32::MAX.into()))?;
    u32::try_from(whole_ms(time)?).map_err(|_| format!("{text} is too long"))
}

fn lease(text: &str) -> Result<Duration, String> {
    parse_duration_in(text, Duration::from_millis(100), Duration::from_secs(12 * 3600))
}

fn wait(text: &str) -> Result<Duration, String> {
    parse_duration_in(text, Duration::ZERO, Duration::from_secs(3600))
}

fn reason(text: &str) -> Result<String, String> {
    match text.len() {
        0..=256 => Ok(text.to_owned()),
        bytes => Err(format!("a reason has at most 256 bytes, this one has {bytes}")),
    }
}

fn token(text: &str) -> Result<LeaseToken, String> {
    text.parse().map_err(|error: tramline_client::Error| error.to_string())
}

fn place(text: &str) -> Result<(u32, u64), String> {
    let place = text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    place.ok_or_else(|| format!("'{text}' is no message; write PARTITION:OFFSET as in 0:42, as `queue send` prints it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn parse(line: &str) -> Result<QueueVerb, clap::Error> {
        match Cli::try_parse_from(["tramctl", "queue"].into_iter().chain(line.split_whitespace()))?.verb {
            Verb::Queue(verb) => Ok(verb),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_the_brokers_settings() {
        let line = "create q --topic t --start 1970-01-01T00:00:01Z --visibility-timeout 1.5s --max-deliveries -1 --dead-letter d \
                    --retry-jitter 10% --retry-multiplier 1.5 --exclusive --set paused=true";
        let QueueVerb::Create(create) = parse(line).expect("good") else { panic!("not create") };
        assert_eq!((create.topic.as_str(), create.start), ("t", At::Time(1_000_000)));
        let pairs = create.settings.pairs().expect("good");
        let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            text.join(" "),
            "visibility.timeout.ms=1500 max.deliveries=-1 dead.letter.topic=d retry.multiplier=1.5 retry.jitter.percent=10 exclusive=true \
             paused=true"
        );
        let QueueVerb::Alter { settings, .. } = parse("alter q --exclusive=false --set exclusive=true").expect("good") else {
            panic!("not alter")
        };
        assert!(settings.pairs().expect_err("twice").contains("exclusive is given twice"));
        let QueueVerb::Alter { settings, .. } = parse("alter q --retry-max 1us").expect("good") else { panic!("not alter") };
        assert!(settings.pairs().expect_err("too short").contains("milliseconds"));
    }

    #[test]
    fn wrong_usage_is_refused_with_what_is_allowed() {
        for (line, part) in [
            ("create q", "--topic"),
            ("create q --topic t --start 5", "earliest, latest or a time"),
            ("create q --topic t --retry-jitter 101%", "0% to 100%"),
            ("create q --topic t --visibility-timeout 30", "unit"),
            ("send q --delay 1s --deliver-at 2026-03-01T12:00:00Z", "cannot be used with"),
            ("send q --deliver-at tomorrow", "2026-03-01T12:00:00Z"),
            ("send q --priority 10", "0..=9"),
            ("send q --ttl 0s", "1ms"),
            ("send q --id=", "leave --id out"),
            ("receive q --ack --hold", "cannot be used with"),
            ("receive q --count 0", "1..=1000000"),
            ("receive q --wait 2h", "0s to 1h"),
            ("receive q --visibility-timeout 50ms", "100ms to 12h"),
            ("ack q", "<TOKEN>"),
            ("ack q 12-34", "1f-2a0-7"),
            ("extend q 1-2-3", "--for"),
            ("delete-message q 12", "PARTITION:OFFSET"),
            ("redrive q --rate 5", "1/s to 1000000/s"),
            ("browse q --state sleeping", "ready"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
        assert!(matches!(parse("delete-message q 1:2 3:4"), Ok(QueueVerb::DeleteMessage { messages, .. }) if messages == [(1, 2), (3, 4)]));
        assert!(reason(&"x".repeat(257)).is_err() && reason(&"x".repeat(256)).is_ok());
    }
}
