//! What went wrong, as people and scripts read it: one sentence with the code's name and what to do, or one JSON object.
//!
//! Invariant: nothing of it ever goes to standard output.

use crate::args::Format;
use serde_json::json;
use tramline_client::{Error, ErrorCode, SendError};

/// Code of a wrong command line; the exit code is 2.
pub const USAGE: &str = "usage";

/// The end of a run that did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the code: the broker's or the client's, or `input`, `output`, `usage` for what happened here.
    pub code: String,
    /// Whether asking again may help.
    pub retriable: bool,
    /// What happened and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of this program's own input or output.
    pub fn local(code: &str, message: impl Into<String>) -> Failure {
        Failure { code: code.to_owned(), retriable: false, message: message.into() }
    }

    /// A refusal by the broker of one thing among others, known by its code alone.
    pub fn refused(code: ErrorCode, what: &str) -> Failure {
        Failure { code: code.name().to_owned(), retriable: code.retriable(), message: format!("{what}: {}", code.sentence()) }
    }

    /// A partition that the topic does not have.
    pub fn no_partition(topic: &str, partition: u32, partitions: u32) -> Failure {
        Error::NoSuchPartition { topic: topic.to_owned(), partition, partitions }.into()
    }

    /// The text for standard error, with a line break.
    pub fn render(&self, format: Format) -> String {
        match format {
            // The broker's refusals name their code in the sentence already.
            Format::Table if self.message.contains(&format!("({})", self.code)) => format!("tramctl: {}\n", one_line(&self.message)),
            Format::Table => format!("tramctl: {} [{}]\n", one_line(&self.message), self.code),
            Format::Json => {
                let object = json!({"error": {"code": self.code, "retriable": self.retriable, "message": one_line(&self.message)}});
                format!("{object}\n")
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { code: code_of(&error).to_owned(), retriable: error.retriable(), message: error.to_string() }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Failure {
        match error {
            SendError::Client(error) => error.into(),
            SendError::BufferFull { .. } => Failure { code: "buffer_full".to_owned(), retriable: true, message: error.to_string() },
            SendError::RecordTooLarge { .. } => Failure::local(ErrorCode::RecordTooLarge.name(), error.to_string()),
        }
    }
}

/// Whether it is this record's fault, so that the next one may do better.
pub fn is_record_fault(error: &SendError) -> bool {
    match error {
        SendError::RecordTooLarge { .. } => true,
        SendError::BufferFull { .. } => false,
        SendError::Client(Error::InvalidRecord { .. }) => true,
        SendError::Client(error) => matches!(error.code(), Some(ErrorCode::RecordTooLarge | ErrorCode::BatchTooLarge)),
    }
}

/// The broker's name for it, or the client's kind where no broker answered.
fn code_of(error: &Error) -> &'static str {
    if let Some(code) = error.code() {
        return code.name();
    }
    match error {
        Error::Io { .. } => "connection_failed",
        Error::OutcomeUnknown { .. } => "outcome_unknown",
        Error::Timeout { .. } => "timed_out",
        Error::Protocol { .. } => "protocol",
        Error::Corrupt { .. } => "corrupt",
        Error::NoSuchPartition { .. } => ErrorCode::UnknownPartition.name(),
        Error::InvalidRecord { .. } => "invalid_record",
        Error::Config { .. } => "invalid_argument",
        Error::Partition { source, .. } => code_of(source),
        Error::Refused { .. } => "refused",
    }
}

/// Line breaks and other control characters out: an error is one line in every log.
pub fn one_line(text: &str) -> String {
    let mut words = text.split_whitespace();
    let mut line = words.next().unwrap_or_default().to_owned();
    for word in words {
        line.push(' ');
        line.push_str(word);
    }
    line.replace(|c: char| c.is_control(), "?")
}

/// Whether the raw arguments ask for JSON; needed for errors of usage, where there is no parsed command line to ask.
pub fn wants_json(args: &[String]) -> bool {
    args.iter().any(|arg| arg == "--format=json") || args.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_in_either_form() {
        let failure = Failure { code: "unknown_topic".into(), retriable: false, message: "no topic 'x';\n create it".into() };
        assert_eq!(failure.render(Format::Table), "tramctl: no topic 'x'; create it [unknown_topic]\n");
        let object: serde_json::Value = serde_json::from_str(&failure.render(Format::Json)).unwrap();
        assert_eq!(object["error"]["code"], "unknown_topic");
        assert_eq!(object["error"]["retriable"], false);
    }

    #[test]
    fn a_code_is_named_once() {
        let failure = Failure::local("unknown_topic", "refused (unknown_topic): create it");
        assert_eq!(failure.render(Format::Table), "tramctl: refused (unknown_topic): create it\n");
    }

    #[test]
    fn the_form_is_known_before_the_arguments_are_read() {
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(wants_json(&args("x --format json")) && wants_json(&args("--format=json x")));
        assert!(!wants_json(&args("x --format table json")));
    }
}
