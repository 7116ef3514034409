//! The peers, the classes of durability, the cells (what is measured), and who takes part in which.
//!
//! Invariant: what a peer cannot do is a sentence in the report ([`why_not`]), never an absent line. Not here: how it is done.

use clap::ValueEnum;
use serde::Serialize;

/// A broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerKind {
    /// This project's.
    Tramline,
    /// NATS JetStream.
    Nats,
    /// Redis Streams.
    Redis,
    /// RabbitMQ streams.
    RabbitStream,
    /// RabbitMQ quorum queues.
    RabbitQuorum,
    /// Apache Kafka.
    Kafka,
}

impl PeerKind {
    /// All of them, in the order of the report.
    pub const ALL: [PeerKind; 6] =
        [PeerKind::Tramline, PeerKind::Nats, PeerKind::Redis, PeerKind::RabbitStream, PeerKind::RabbitQuorum, PeerKind::Kafka];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PeerKind::Tramline => "tramline",
            PeerKind::Nats => "nats",
            PeerKind::Redis => "redis",
            PeerKind::RabbitStream => "rabbit-stream",
            PeerKind::RabbitQuorum => "rabbit-quorum",
            PeerKind::Kafka => "kafka",
        }
    }
}

/// What an acknowledgement means. Results of two classes never stand in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// On stable storage before the acknowledgement.
    Synced,
    /// In memory (the kernel's or the broker's).
    Memory,
}

impl Class {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Class::Synced => "synced",
            Class::Memory => "memory",
        }
    }

    /// As a headline.
    pub fn title(self) -> &'static str {
        match self {
            Class::Synced => "Synced before ack",
            Class::Memory => "In memory",
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Send, wait for the acknowledgement, send the next.
    OneInFlight,
    /// So many records per second, whatever comes back, into so many partitions.
    Open {
        /// Records per second.
        rate_per_s: u32,
        /// Partitions, in turn.
        partitions: u32,
    },
    /// As many as go.
    Max {
        /// Partitions, in turn.
        partitions: u32,
    },
    /// From when a record was due until a reader has it, at a rate.
    EndToEnd {
        /// Records per second.
        rate_per_s: u32,
    },
    /// Send, receive, acknowledge, one message at a time.
    QueueCycle,
    /// Syncs of the broker per acknowledged record of one in flight.
    Syncs,
}

impl Cell {
    /// A short name without blanks.
    pub fn name(self) -> String {
        match self {
            Cell::OneInFlight => "one_in_flight".to_owned(),
            Cell::Open { rate_per_s, partitions: 1 } => format!("open_{}k", rate_per_s / 1000),
            Cell::Open { rate_per_s, partitions } => format!("open_{}k_p{partitions}", rate_per_s / 1000),
            Cell::Max { partitions } => format!("max_p{partitions}"),
            Cell::EndToEnd { rate_per_s } => format!("end_to_end_{}k", rate_per_s / 1000),
            Cell::QueueCycle => "queue_cycle".to_owned(),
            Cell::Syncs => "syncs".to_owned(),
        }
    }

    /// Partitions that it needs.
    pub fn partitions(self) -> u32 {
        match self {
            Cell::Open { partitions, .. } | Cell::Max { partitions } => partitions,
            Cell::OneInFlight | Cell::EndToEnd { .. } | Cell::QueueCycle | Cell::Syncs => 1,
        }
    }

    /// All of them, in the order in which they are measured: what leaves much behind comes last.
    pub fn all(partition_counts: &[u32]) -> Vec<Cell> {
        let mut cells = vec![Cell::OneInFlight, Cell::Syncs];
        cells.extend([1_000, 10_000, 50_000].map(|rate_per_s| Cell::Open { rate_per_s, partitions: 1 }));
        cells.extend([Cell::EndToEnd { rate_per_s: 1_000 }, Cell::QueueCycle]);
        for &partitions in partition_counts {
            if partitions > 1 {
                cells.push(Cell::Open { rate_per_s: 10_000, partitions });
            }
            cells.push(Cell::Max { partitions });
        }
        cells
    }
}

/// Why a peer has no place in a class, or no such cell in it.
pub fn why_not(peer: PeerKind, class: Class, cell: Option<Cell>) -> Option<&'static str> {
    match (peer, class, cell) {
        (PeerKind::RabbitStream, Class::Synced, _) => {
            Some("streams have no setting that syncs before the confirm: they leave it to the operating system")
        }
        (PeerKind::RabbitQuorum, Class::Memory, _) => {
            Some("quorum queues sync their log before the confirm and have no setting that leaves it out: see the class `synced`")
        }
        (PeerKind::Tramline, Class::Memory, Some(Cell::QueueCycle)) => {
            Some("settlements of Tramline's queues are always durable: see the class `synced`")
        }
        (PeerKind::RabbitStream, _, Some(Cell::QueueCycle)) => {
            Some("streams have no acknowledgement of single messages: see rabbit-quorum")
        }
        (PeerKind::Kafka, _, Some(Cell::QueueCycle)) => {
            Some("no acknowledgement of single messages (share groups are not generally available in this version)")
        }
        (_, Class::Memory, Some(Cell::Syncs)) => Some("nothing is promised to be synced in this class"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cells_are_distinct() {
        let cells = Cell::all(&[1, 100, 1000]);
        let names: std::collections::BTreeSet<String> = cells.iter().map(|cell| cell.name()).collect();
        assert_eq!(names.len(), cells.len(), "{names:?}");
    }

    #[test]
    fn every_peer_has_a_place_in_some_class() {
        for peer in PeerKind::ALL {
            assert!([Class::Synced, Class::Memory].iter().any(|class| why_not(peer, *class, None).is_none()), "{peer:?}");
        }
    }

    #[test]
    fn classes_are_told_apart_where_a_peer_has_only_one() {
        assert!(why_not(PeerKind::RabbitStream, Class::Synced, Some(Cell::OneInFlight)).is_some());
        assert!(why_not(PeerKind::RabbitQuorum, Class::Memory, None).is_some());
        assert!(why_not(PeerKind::Redis, Class::Synced, Some(Cell::QueueCycle)).is_none());
    }
}
