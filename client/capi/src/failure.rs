//! Why a call did not do what was asked: a status for the program, a sentence for its reader.
//!
//! The one map from the Rust client's errors to statuses. Invariants: the sentence says what happened and what to do; where an error concerns a partition,
//! its place comes along. Not here: where the last failure of a thread is kept (`last`).

use std::any::Any;
use std::ffi::c_int;

use tramline_client::{Error, SendError};

use crate::constants::{
    E_ARGUMENT, E_CORRUPT, E_FULL, E_IO, E_PANIC, E_PROTOCOL, E_REFUSED, E_TIMEOUT, E_UNKNOWN_OUTCOME, OFFSET_NONE, PARTITION_NONE,
};

/// The partition an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Topic.
    pub topic: String,
    /// Number.
    pub partition: u32,
    /// Offset at which reading stands, or `OFFSET_NONE`.
    pub offset: u64,
    /// Where it can go on, or `OFFSET_NONE`.
    pub resume_offset: u64,
}

impl Place {
    /// The place of an error that concerns no partition.
    pub const NONE: Place = Place { topic: String::new(), partition: PARTITION_NONE, offset: OFFSET_NONE, resume_offset: OFFSET_NONE };
}

/// See the module's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `E_...`.
    pub status: c_int,
    /// The broker's error code, 0 when it comes from no broker.
    pub code: u16,
    /// Whether the same call may succeed later.
    pub retriable: bool,
    /// Sentence.
    pub message: String,
    /// The partition, if it concerns one.
    pub place: Place,
}

impl Failure {
    /// A failure of this library's own.
    pub fn new(status: c_int, retriable: bool, message: impl Into<String>) -> Failure {
        Failure { status, code: 0, retriable, message: message.into(), place: Place::NONE }
    }

    /// An argument that makes no sense.
    pub fn argument(message: impl Into<String>) -> Failure {
        Failure::new(E_ARGUMENT, false, message)
    }

    /// What a panic left behind.
    pub fn panicked(payload: Box<dyn Any + Send>) -> Failure {
        let what = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(text) => text.to_string(),
                Err(payload) => {
                    // Whatever it is, its destructor could panic in its turn.
                    std::mem::forget(payload);
                    "no text".to_string()
                }
            },
        };
        Failure::new(E_PANIC, false, format!("a defect of libtramline was caught ({what}): close the handle, open another, and report it"))
    }
}

/// The status of a client's error.
pub fn status_of(error: &Error) -> c_int {
    match error {
        Error::Refused { .. } => E_REFUSED,
        Error::Io { .. } => E_IO,
        Error::OutcomeUnknown { .. } => E_UNKNOWN_OUTCOME,
        Error::Timeout { .. } => E_TIMEOUT,
        Error::Protocol { .. } => E_PROTOCOL,
        Error::Corrupt { .. } => E_CORRUPT,
        Error::NoSuchPartition { .. } | Error::InvalidRecord { .. } | Error::Config { .. } => E_ARGUMENT,
        Error::Partition { source, .. } => status_of(source),
    }
}

fn place_of(error: &Error) -> Place {
    match error {
        Error::Corrupt { topic, partition, offset, .. } => {
            Place { topic: topic.clone(), partition: *partition, offset: *offset, resume_offset: OFFSET_NONE }
        }
        Error::Partition { topic, partition, offset, resume, .. } => {
            Place { topic: topic.clone(), partition: *partition, offset: *offset, resume_offset: resume.unwrap_or(OFFSET_NONE) }
        }
        Error::NoSuchPartition { topic, partition, .. } => Place { topic: topic.clone(), partition: *partition, ..Place::NONE },
        Error::Refused { .. }
        | Error::Io { .. }
        | Error::OutcomeUnknown { .. }
        | Error::Timeout { .. }
        | Error::Protocol { .. }
        | Error::InvalidRecord { .. }
        | Error::Config { .. } => Place::NONE,
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure {
            status: status_of(error),
            code: error.code().map_or(0, |code| code.as_u16()),
            retriable: error.retriable(),
            message: error.to_string(),
            place: place_of(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::from(&error)
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Failure {
        match error {
            SendError::Client(error) => Failure::from(&error),
            SendError::BufferFull { .. } => Failure::new(E_FULL, true, error.to_string()),
            SendError::RecordTooLarge { .. } => Failure::argument(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tramline_client::ErrorCode;

    fn refused() -> Error {
        let code = ErrorCode::OffsetOutOfRange;
        Error::Refused { request: "fetch".to_string(), code, retriable: false, message: String::new(), next: None }
    }

    #[test]
    fn every_error_has_its_status_and_code() {
        let address = || "a:1".to_string();
        let io = Arc::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let cases = [
            (refused(), E_REFUSED, 24, false),
            (Error::Io { doing: "cannot send to", address: address(), source: io }, E_IO, 0, true),
            (Error::OutcomeUnknown { request: address(), address: address(), reason: address() }, E_UNKNOWN_OUTCOME, 0, false),
            (Error::Timeout { doing: address(), after: Duration::ZERO, last: Some(Arc::new(refused())) }, E_TIMEOUT, 24, true),
            (Error::Protocol { address: address(), message: address() }, E_PROTOCOL, 0, false),
            (Error::Corrupt { topic: address(), partition: 1, offset: 2, message: address() }, E_CORRUPT, 0, false),
            (Error::NoSuchPartition { topic: address(), partition: 1, partitions: 1 }, E_ARGUMENT, 0, false),
            (Error::InvalidRecord { message: address() }, E_ARGUMENT, 0, false),
            (Error::Config { message: address() }, E_ARGUMENT, 0, false),
        ];
        for (error, status, code, retriable) in cases {
            let failure = Failure::from(&error);
            assert_eq!((failure.status, failure.code, failure.retriable), (status, code, retriable), "{error:?}");
            assert_eq!(failure.message, error.to_string());
        }
    }

    #[test]
    fn an_error_of_a_partition_says_where_reading_can_go_on() {
        let source = Arc::new(refused());
        let error = Error::Partition { topic: "t".to_string(), partition: 3, offset: 7, resume: Some(9), source };
        let failure = Failure::from(error);
        assert_eq!((failure.status, failure.code), (E_REFUSED, 24));
        assert_eq!(failure.place, Place { topic: "t".to_string(), partition: 3, offset: 7, resume_offset: 9 });
    }

    #[test]
    fn what_send_refuses_is_full_or_an_argument() {
        let full = Failure::from(SendError::BufferFull { held_bytes: 5 });
        assert_eq!((full.status, full.retriable), (E_FULL, true));
        let large = Failure::from(SendError::RecordTooLarge { what: "key", size: 9, max: 4 });
        assert_eq!((large.status, large.retriable), (E_ARGUMENT, false));
    }
}
