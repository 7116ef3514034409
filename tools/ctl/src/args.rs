//! The command line of `tramctl`: verbs, options, ranges and defaults.
//!
//! Invariants: every value that can be wrong without asking the broker is refused here, with what is allowed; global options
//! stand before or after the verb; nothing here does I/O. Scripts rely on these names (docs of the repository, issue 1):
//! options may be added, none renamed.
//! Not here: rules that only the broker knows (settings of topics, limits of names), which it refuses by name.

use crate::lines::{parse_delimiter, parse_pair};
use crate::queue::args::QueueVerb;
use crate::start::{From, parse_before, parse_from};
use crate::units::{parse_duration_in, parse_servers};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::time::Duration;
use tramline_client::Before;

/// The most partitions that can be asked for in one request; the broker's own limit may be lower and answers by name.
pub const PARTITIONS_MAX: u32 = 10_000;

/// Command line of the Tramline message broker.
#[derive(Parser, Debug)]
#[command(name = "tramctl", version, about = "Command line of the Tramline message broker", max_term_width = 110)]
#[command(
    after_help = "Exit code: 0 done, 1 failed (of cluster status also: something is wrong), 2 wrong usage. Never asks anything; errors go to standard error."
)]
pub struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that may stand before or after the verb.
#[derive(Args, Debug)]
pub struct Global {
    /// Address of a node; several are separated by commas and tried in turn
    #[arg(long, global = true, env = "TRAMLINE_SERVER", default_value = "127.0.0.1:7410", value_name = "HOST:PORT", value_parser = servers)]
    pub server: Servers,
    /// How results and errors are written
    #[arg(long, global = true, default_value = "table")]
    pub format: Format,
    /// How long one request (and the first connection) may take [1ms to 1h]
    #[arg(long, global = true, default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,
}

/// One or more addresses. A type of its own, because clap would read a plain `Vec` as an option that is given many times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(pub Vec<String>);

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned columns.
    Table,
    /// For scripts: one JSON value.
    Json,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Create, list, describe, alter, trim and delete topics
    #[command(subcommand)]
    Topic(TopicVerb),
    /// List, describe, move and delete consumer groups, and read as a member of one
    #[command(subcommand)]
    Group(GroupVerb),
    /// Queues: messages under leases, acknowledged one by one
    #[command(subcommand)]
    Queue(QueueVerb),
    /// Write each line of standard input as one record, until the input, or SIGINT or SIGTERM, ends it
    Produce(Produce),
    /// Read records and print them
    Consume(Consume),
    /// First and next offset of each partition of a topic
    Offsets {
        /// Name of the topic
        topic: String,
    },
    /// Where the space of a node's disk went, shard by shard: of the first of --server that answers
    Disk,
    /// The slowest requests of the last hour of a node, with the time of each stage, from its admin pages
    Slow {
        /// Address of the admin pages [default: the host of the first of --server, port 7401]
        #[arg(long, env = "TRAMLINE_ADMIN", value_name = "HOST:PORT", value_parser = one_address)]
        admin: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Addresses of the nodes, and which of them owns which partition
    Metadata {
        /// Only these topics; without any, all
        topics: Vec<String>,
    },
    /// Nodes and replica groups, and nodes that stand aside
    #[command(subcommand)]
    Cluster(ClusterVerb),
}

/// What can be done with the cluster.
#[derive(Subcommand, Debug)]
pub enum ClusterVerb {
    /// Whether everything is as it should be, asked of every node; exit code 1 where something is not, as of a health check
    Status,
    /// All nodes
    Nodes,
    /// All replica groups: who leads them, who has a replica
    Groups,
    /// A node stands aside: it gives its leaderships away, so that it can be stopped
    Drain {
        /// Its number
        node: u32,
    },
    /// A node that stood aside takes part again
    Undrain {
        /// Its number
        node: u32,
    },
    /// A node leaves for good: its replicas are moved away
    Remove {
        /// Its number
        node: u32,
    },
    /// Brings a group's replicas to these nodes, one at a time
    Move {
        /// The group, as `cluster groups` names it
        group: u32,
        /// The nodes, comma-separated
        #[arg(long, value_delimiter = ',', required_unless_present = "cancel", conflicts_with = "cancel")]
        to: Vec<u32>,
        /// Give up the move that is under way: whoever it was to bring gets no replica
        #[arg(long)]
        cancel: bool,
    },
    /// Lets a group go on whose majority is gone for good: what only that had is lost
    UncleanRecover {
        /// The group, as `cluster groups` names it
        group: u32,
        /// Records that were acknowledged may be missing afterwards, and that is accepted
        #[arg(long)]
        i_accept_loss: bool,
    },
    /// Moves replicas and leaderships until they are even
    Balance,
}

/// What can be done with topics.
#[derive(Subcommand, Debug)]
pub enum TopicVerb {
    /// Create a topic
    Create {
        /// Name of the new topic
        name: String,
        /// Number of partitions [1 to 10000]
        #[arg(long, default_value_t = 1, value_parser = partitions)]
        partitions: u32,
        /// Replicas of each partition, at most as many as there are nodes; 0 for the cluster's default, 3 where there are as many nodes [0 to 5]
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=5))]
        replicas: u8,
        /// A setting other than its default (repeatable); `tramctl topic options` lists them
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
        set: Vec<(String, String)>,
        /// Succeed without change when the topic exists
        #[arg(long)]
        if_not_exists: bool,
    },
    /// All topics
    List,
    /// Settings and partitions of one topic
    Describe {
        /// Name of the topic
        name: String,
    },
    /// Change settings, add partitions, or change the number of replicas
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Alter {
        /// Name of the topic
        name: String,
        /// A setting (repeatable); an empty value goes back to the default
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair, group = "change")]
        set: Vec<(String, String)>,
        /// New number of partitions, more than now [1 to 10000]
        #[arg(long, value_parser = partitions, group = "change")]
        partitions: Option<u32>,
        /// New number of replicas of each partition, at most as many as there are nodes; by itself, since it takes its time [1 to 5]
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5), group = "change", conflicts_with_all = ["set", "partitions"])]
        replicas: Option<u8>,
    },
    /// Delete a topic with all its records, without asking
    Delete {
        /// Name of the topic
        name: String,
    },
    /// Drop the oldest records, without asking; space is freed in the background
    Trim {
        /// Name of the topic
        name: String,
        /// Drop what is below this offset, older than this RFC 3339 time, or (latest) all that is committed now
        #[arg(long, value_parser = parse_before, value_name = "OFFSET|TIME|latest")]
        before: Before,
        /// Only this partition (repeatable); without it, all
        #[arg(long = "partition", value_name = "P")]
        partitions: Vec<u32>,
    },
    /// All settings a topic can have: kind, unit, default, range, meaning
    Options,
}

/// What can be done with consumer groups.
#[derive(Subcommand, Debug)]
pub enum GroupVerb {
    /// All consumer groups
    List,
    /// Members, offsets and lag of one group
    Describe {
        /// Name of the group
        name: String,
    },
    /// Let a group without members read on elsewhere; creates it where there is none
    Seek {
        /// Name of the group
        name: String,
        /// Name of the topic
        #[arg(long)]
        topic: String,
        /// Only this partition (repeatable); without it, all
        #[arg(long = "partition", value_name = "P")]
        partitions: Vec<u32>,
        /// Where to.
        #[command(flatten)]
        target: TargetArgs,
        /// Say where it would read on, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Be a member of a group: read the partitions that it gives this one, print their records, and commit what was printed
    Consume(GroupConsume),
    /// Delete a group without members with its offsets, without asking
    Delete {
        /// Name of the group
        name: String,
    },
}

/// Where a group is moved to: one of the two.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// earliest, latest, an offset, or an RFC 3339 time such as 2026-03-01T12:00:00Z
    #[arg(long, value_parser = parse_from, value_name = "WHERE")]
    to: Option<From>,
    /// So many records on (or back, when negative) from what was committed
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift: Option<i64>,
}

/// Where a group is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// There, or to the nearest record that exists.
    To(From),
    /// So many records on.
    Shift(i64),
}

impl TargetArgs {
    /// The one that was given.
    pub fn target(&self) -> Target {
        match (self.to, self.shift) {
            (Some(to), _) => Target::To(to),
            (None, shift) => Target::Shift(shift.unwrap_or(0)),
        }
    }
}

/// Options of `produce`.
#[derive(Args, Debug)]
pub struct Produce {
    /// Name of the topic
    pub topic: String,
    /// Take the key from this field of the line (counted from 1, split plainly at --delimiter; the value stays the whole line) [1 to 65535]
    #[arg(long, value_name = "N", value_parser = key_field, conflicts_with = "key")]
    pub key_field: Option<usize>,
    /// What separates fields: 1 to 16 bytes, \t for a tab
    #[arg(long, default_value = ",", value_parser = delimiter, value_name = "TEXT")]
    pub delimiter: Delimiter,
    /// One key for all records
    #[arg(long)]
    pub key: Option<String>,
    /// A header of every record (repeatable)
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub headers: Vec<(String, String)>,
    /// Write into this partition instead of the one chosen by key
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32))]
    pub partition: Option<u32>,
    /// What an acknowledgement promises
    #[arg(long, default_value = "durable")]
    pub level: Level,
    /// Compression of the batches
    #[arg(long, default_value = "none")]
    pub compression: Compression,
}

/// Bytes between fields (see `Servers` for why this is a type).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delimiter(pub Vec<u8>);

/// Options of `consume`.
#[derive(Args, Debug)]
pub struct Consume {
    /// Name of the topic
    pub topic: String,
    /// earliest, latest, an offset, or an RFC 3339 time such as 2026-03-01T12:00:00Z
    #[arg(long, default_value = "earliest", value_parser = parse_from, value_name = "WHERE")]
    pub from: From,
    /// Read only this partition (repeatable); without it, all
    #[arg(long = "partition", value_name = "P")]
    pub partitions: Vec<u32>,
    /// Stop after this many records
    #[arg(long, value_name = "N", conflicts_with = "until_end")]
    pub count: Option<u64>,
    /// Stop at the end as it was when reading started; without this or --count, wait for new records for ever
    #[arg(long)]
    pub until_end: bool,
    /// What is printed of each record [default: value, or json with --format json]
    #[arg(long)]
    pub print: Option<Print>,
}

/// Options of `group consume`.
#[derive(Args, Debug)]
pub struct GroupConsume {
    /// Name of the group, which is created where there is none
    pub name: String,
    /// Names of the topics [1 to 100]
    #[arg(required = true, num_args = 1..=100)]
    pub topics: Vec<String>,
    /// Where to begin in a partition of which the group has committed nothing
    #[arg(long, default_value = "earliest", value_name = "WHERE")]
    pub from: Reset,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop when nothing has come for so long; without this or --count, wait for new records until SIGINT or SIGTERM
    #[arg(long, value_parser = timeout, value_name = "TIME")]
    pub wait: Option<Duration>,
    /// Name of a static member, which keeps its partitions over a restart
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// A member that is not heard of for so long is dropped; the same for all members [1s to 1h]
    #[arg(long, default_value = "30s", value_parser = timeout, value_name = "TIME")]
    pub session_timeout: Duration,
    /// How partitions are divided; the same for all members
    #[arg(long, default_value = "sticky")]
    pub assignor: AssignorName,
    /// What is printed of each record [default: value, or json with --format json]
    #[arg(long)]
    pub print: Option<Print>,
}

/// Where a member begins without a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reset {
    /// At the oldest record that is still kept.
    Earliest,
    /// At the end as of then.
    Latest,
    /// Nowhere: it is an error.
    None,
}

/// How partitions are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AssignorName {
    /// Evenly, moving as few as can be.
    Sticky,
    /// Evenly, by the order of members alone.
    Uniform,
}

/// Durability levels of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Level {
    /// No answer at all.
    None,
    /// The leader has it in memory.
    Leader,
    /// The leader has it on disk.
    #[value(alias = "leader-durable")]
    LeaderDurable,
    /// A majority has it in memory.
    Replicated,
    /// A majority has it on disk.
    Durable,
}

/// Codecs of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// As it is.
    None,
    /// Fast, moderate ratio.
    Lz4,
    /// Slower, best ratio.
    Zstd,
    /// Fast, moderate ratio.
    Snappy,
}

/// Form of a printed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Print {
    /// The value's bytes and a newline.
    Value,
    /// Key, a tab, value and a newline.
    KeyValue,
    /// One JSON object on a line, with partition, offset, timestamp and headers.
    Json,
}

fn servers(text: &str) -> Result<Servers, String> {
    parse_servers(text).map(Servers)
}

fn one_address(text: &str) -> Result<String, String> {
    let mut found = parse_servers(text)?;
    if found.len() > 1 {
        return Err("is one address, of one node".to_owned());
    }
    Ok(found.swap_remove(0))
}

fn timeout(text: &str) -> Result<Duration, String> {
    parse_duration_in(text, Duration::from_millis(1), Duration::from_secs(3600))
}

fn partitions(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if (1..=PARTITIONS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("{text} is out of range; allowed is 1 to {PARTITIONS_MAX}")),
    }
}

fn key_field(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=65_535).contains(&number) => Ok(number),
        _ => Err(format!("{text} is out of range; fields are counted from 1, allowed is 1 to 65535")),
    }
}

fn delimiter(text: &str) -> Result<Delimiter, String> {
    parse_delimiter(text).map(Delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tramctl").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        for line in [
            "--server h:1 --format json --timeout 5s topic create t --partitions 3",
            "topic create t --partitions 3 --server h:1 --format json --timeout 5s",
            "topic --server h:1 create --format json t --timeout 5s --partitions 3",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.server, Servers(vec!["h:1".to_owned()]), "{line}");
            assert_eq!((cli.global.format, cli.global.timeout), (Format::Json, Duration::from_secs(5)), "{line}");
        }
        let cli = parse("offsets t").unwrap();
        assert_eq!((cli.global.format, cli.global.timeout), (Format::Table, Duration::from_secs(30)));
    }

    #[test]
    fn wrong_usage_is_refused_with_what_is_allowed() {
        for (line, part) in [
            ("", "Usage"),
            ("frobnicate", "frobnicate"),
            ("topic create t --partitions 0", "1 to 10000"),
            ("topic create t --partitions 10001", "1 to 10000"),
            ("topic create t --set retention", "key=value"),
            ("topic create", "<NAME>"),
            ("topic alter t", "--set"),
            ("topic alter t --replicas 0", "1..=5"),
            ("topic alter t --replicas 3 --set retention.ms=1", "cannot be used with"),
            ("topic alter t --replicas 3 --partitions 8", "cannot be used with"),
            ("offsets t --timeout 30", "unit"),
            ("offsets t --timeout 2h", "1ms to 1h"),
            ("offsets t --server nowhere", "HOST:PORT"),
            ("offsets t --format xml", "table, json"),
            ("produce t --key-field 0", "counted from 1"),
            ("produce t --key-field 1 --key k", "cannot be used with"),
            ("produce t --level sometimes", "leader_durable"),
            ("produce t --compression rar", "snappy"),
            ("produce t --partition -1", "-1"),
            ("produce t --partition 4294967296", "0..=4294967295"),
            ("produce t --header x", "key=value"),
            ("topic trim t", "--before"),
            ("topic trim t --before earliest", "latest, an offset"),
            ("topic trim t --before 5 --partition x", "x"),
            ("consume t --from newest", "earliest, latest"),
            ("consume t --count 1 --until-end", "cannot be used with"),
            ("consume t --print xml", "key-value"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn values_arrive_where_they_belong() {
        let Verb::Produce(produce) = parse(
            "produce t --key-field 12 --header a=1 --header b=2=3 --partition 4 --level leader_durable --compression zstd --delimiter \\t",
        )
        .unwrap()
        .verb
        else {
            panic!("not produce")
        };
        assert_eq!(
            (produce.key_field, produce.partition, produce.level, produce.compression),
            (Some(12), Some(4), Level::LeaderDurable, Compression::Zstd)
        );
        assert_eq!(produce.headers, vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2=3".to_owned())]);
        assert_eq!(produce.delimiter, Delimiter(vec![b'\t']));
        let Verb::Consume(consume) = parse("consume t --partition 1 --partition 3 --until-end --from 7").unwrap().verb else {
            panic!("not consume")
        };
        assert_eq!((consume.partitions, consume.until_end, consume.from, consume.print), (vec![1, 3], true, From::Offset(7), None));
        let Verb::Topic(TopicVerb::Trim { name, before, partitions }) =
            parse("topic trim t --before 1970-01-01T00:00:01Z --partition 2 --partition 0").unwrap().verb
        else {
            panic!("not trim")
        };
        assert_eq!((name.as_str(), before, partitions), ("t", Before::Time(1_000_000), vec![2, 0]));
        assert!(matches!(parse("metadata a b").unwrap().verb, Verb::Metadata { topics } if topics.len() == 2));
    }

    #[test]
    fn version_and_help_are_no_errors() {
        for line in ["--version", "--help", "topic --help", "produce --help", "consume --help"] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 0, "{line}");
        }
        let help = parse("produce --help").unwrap_err().to_string();
        assert!(
            help.contains("[default: durable]") && help.contains("[default: 127.0.0.1:7410]") && help.contains("[default: 30s]"),
            "{help}"
        );
    }
}
