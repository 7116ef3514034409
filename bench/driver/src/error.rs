//! Why something could not be measured.

use std::{fmt, io};
use tramline_client::wire::error::ErrorCode;

/// See each case.
#[derive(Debug)]
pub enum BenchError {
    /// The broker did not start, stopped, or did not do what it has to.
    Broker(String),
    /// `tramline-limits` failed.
    Limits(String),
    /// A system call failed.
    Io(&'static str, io::Error),
    /// The broker refused a request.
    Refused(ErrorCode, String),
    /// The client library reported an error.
    Client(tramline_client::Error),
    /// The broker answered something that cannot be right.
    Wrong(String),
    /// No answer in time.
    Silent(&'static str),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BenchError::Broker(what) => write!(f, "the broker: {what}"),
            BenchError::Limits(what) => write!(f, "tramline-limits: {what}"),
            BenchError::Io(what, source) => write!(f, "{what}: {source}"),
            BenchError::Refused(code, message) => write!(f, "the broker refused ({code}): {message}"),
            BenchError::Client(source) => write!(f, "{source}"),
            BenchError::Wrong(what) => write!(f, "a wrong answer: {what}"),
            BenchError::Silent(what) => write!(f, "{what}: no answer in time"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<tramline_client::Error> for BenchError {
    fn from(source: tramline_client::Error) -> BenchError {
        BenchError::Client(source)
    }
}

impl From<tramline_client::SendError> for BenchError {
    fn from(source: tramline_client::SendError) -> BenchError {
        match source {
            tramline_client::SendError::Client(source) => BenchError::Client(source),
            other => BenchError::Wrong(other.to_string()),
        }
    }
}

/// Attaches what was tried to an I/O error.
pub fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Io(what, source)
}
