//! What can go wrong, as one enum; each sentence says what happened and what to do.
//!
//! `code()`, `retriable()` and `next_address()` answer the three questions a caller has. Errors are cheap to clone (the
//! operating system's error is shared), because one failed request ends many records.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tramline_wire::error::ErrorCode;

/// An error of the client.
#[derive(Debug, Clone)]
pub enum Error {
    /// The broker refused the request.
    Refused {
        /// What was asked, such as `create topic "flights"`.
        request: String,
        /// The broker's reason.
        code: ErrorCode,
        /// Whether the same request may succeed later.
        retriable: bool,
        /// The broker's sentence; may be empty.
        message: String,
        /// The address to try instead, where the broker knows one.
        next: Option<String>,
    },
    /// The operating system refused or broke the connection before the request was sent, or the request may be repeated.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The other side.
        address: String,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The request was sent, then the connection broke or the time ran out: it may or may not have taken effect.
    OutcomeUnknown {
        /// What was asked.
        request: String,
        /// The other side.
        address: String,
        /// Why no answer came.
        reason: String,
    },
    /// No answer within the time allowed.
    Timeout {
        /// What was being waited for.
        doing: String,
        /// The time allowed.
        after: Duration,
        /// The last obstacle met, when there was one.
        last: Option<Arc<Error>>,
    },
    /// The other side sent something that is not this protocol, or broke its rules.
    Protocol {
        /// The other side.
        address: String,
        /// What was wrong.
        message: String,
    },
    /// What arrived does not match its checksum, or cannot be decoded. It was not delivered.
    Corrupt {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset at which reading stands.
        offset: u64,
        /// What was found.
        message: String,
    },
    /// The topic has no such partition.
    NoSuchPartition {
        /// Topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many the topic has; valid numbers are below it.
        partitions: u32,
    },
    /// A record cannot be sent as it is.
    InvalidRecord {
        /// What is wrong with it.
        message: String,
    },
    /// A setting or an argument makes no sense.
    Config {
        /// What to change.
        message: String,
    },
    /// One partition of a consumer cannot be read on; the others go on.
    Partition {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset at which reading stands.
        offset: u64,
        /// The offset from which it can be read again, where the broker told one: seek there to go on without what is in
        /// between.
        resume: Option<u64>,
        /// Why.
        source: Arc<Error>,
    },
}

impl Error {
    /// The broker's code, where the error came from a broker.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            Error::Partition { source, .. } => source.code(),
            Error::Timeout { last: Some(last), .. } => last.code(),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without a change by the caller. False for [`Error::OutcomeUnknown`]: repeating
    /// is safe only if doing the thing twice is.
    pub fn retriable(&self) -> bool {
        match self {
            Error::Refused { retriable, .. } => *retriable,
            Error::Io { .. } | Error::Timeout { .. } => true,
            Error::Partition { source, .. } => source.retriable(),
            _ => false,
        }
    }

    /// The address the broker named as the better one, `host:port`.
    pub fn next_address(&self) -> Option<&str> {
        match self {
            Error::Refused { next, .. } => next.as_deref(),
            Error::Partition { source, .. } => source.next_address(),
            _ => None,
        }
    }

    /// The offset from which a partition can be read again after this error, where the broker told one.
    pub fn resume_offset(&self) -> Option<u64> {
        match self {
            Error::Partition { resume, .. } => *resume,
            _ => None,
        }
    }

    /// Whether the request may have taken effect although it failed here.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Error::OutcomeUnknown { .. })
    }

    pub(crate) fn config(message: &str) -> Error {
        Error::Config { message: message.to_string() }
    }

    pub(crate) fn io(doing: &'static str, address: &str, source: io::Error) -> Error {
        Error::Io { doing, address: address.to_string(), source: Arc::new(source) }
    }

    pub(crate) fn protocol(address: &str, message: impl Into<String>) -> Error {
        Error::Protocol { address: address.to_string(), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused { request, code, retriable, message, next } => {
                let sentence = if message.is_empty() { code.sentence() } else { message };
                write!(f, "the broker refused to {request} ({}): {sentence}", code.name())?;
                if let Some(next) = next {
                    write!(f, "; try {next}")?;
                } else if *retriable {
                    write!(f, "; trying again later may help")?;
                }
                Ok(())
            }
            Error::Io { doing, address, source } if source.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "{doing} {address}: nothing listens there; check the address and that the broker runs ({source})")
            }
            Error::Io { doing, address, source } => {
                write!(f, "{doing} {address}: {source}; check the network and that the broker runs, then try again")
            }
            Error::OutcomeUnknown { request, address, reason } => write!(
                f,
                "no answer from {address} for: {request} ({reason}); it may or may not have taken effect, \
                 so look before repeating it"
            ),
            Error::Timeout { doing, after, last } => {
                write!(f, "{doing}: not done within {after:?}")?;
                match last {
                    Some(last) => write!(f, "; the last obstacle: {last}"),
                    None => write!(f, "; try again, or allow more time"),
                }
            }
            Error::Protocol { address, message } => {
                write!(f, "{address} does not speak this protocol as expected: {message}; check that the address is a Tramline broker's")
            }
            Error::Corrupt { topic, partition, offset, message } => write!(
                f,
                "topic {topic} partition {partition}: what arrived at offset {offset} is damaged: {message}; it was not delivered. \
                 Try again; if it stays, check the broker's segments with `tramline inspect`, or seek past it"
            ),
            Error::NoSuchPartition { topic, partition, partitions } => write!(
                f,
                "topic {topic} has no partition {partition}; it has {partitions}, counted from 0: choose a lower one or add partitions"
            ),
            Error::InvalidRecord { message } => write!(f, "the record cannot be sent: {message}"),
            Error::Config { message } => f.write_str(message),
            Error::Partition { topic, partition, offset, resume, source } => {
                write!(f, "topic {topic} partition {partition} cannot be read on at offset {offset}: {source}")?;
                match resume {
                    Some(resume) => write!(f, "; it can be read again from offset {resume}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source.as_ref()),
            Error::Partition { source, .. } => Some(source.as_ref()),
            Error::Timeout { last: Some(last), .. } => Some(last.as_ref()),
            _ => None,
        }
    }
}

/// Why [`Producer::send`](crate::Producer::send) did not take a record. The record was not kept.
#[derive(Debug, Clone)]
pub enum SendError {
    /// The producer holds `buffer_bytes` already and none was acknowledged in time (`send`), or right now (`try_send`).
    BufferFull {
        /// Bytes held.
        held_bytes: usize,
    },
    /// The record is above a limit ([`ProducerConfig::limits`](crate::ProducerConfig::limits)).
    RecordTooLarge {
        /// Which limit.
        what: &'static str,
        /// Its size or count.
        size: u64,
        /// Largest accepted.
        max: u32,
    },
    /// Anything else: unknown topic or partition, an invalid record, no connection.
    Client(Error),
}

impl SendError {
    /// Whether the same record may be taken later.
    pub fn retriable(&self) -> bool {
        match self {
            SendError::BufferFull { .. } => true,
            SendError::RecordTooLarge { .. } => false,
            SendError::Client(error) => error.retriable(),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::BufferFull { held_bytes } => write!(
                f,
                "the producer's buffer is full ({held_bytes} bytes wait for the broker): poll and send again, raise buffer_bytes, or send less"
            ),
            SendError::RecordTooLarge { what, size, max } => write!(
                f,
                "the record is too large: {what} {size}, at most {max}: split it, or raise the broker's limit and the producer's `limits`"
            ),
            SendError::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SendError::Client(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> SendError {
        SendError::Client(error)
    }
}
