//! Standard output: the one place that writes it, so that a closed pipe is handled once.
//!
//! Invariant: a reader that has gone is no error (`| head -1` is a normal thing to do); any other failure to write is one.

use crate::args::Format;
use crate::failure::Failure;
use serde_json::Value;
use std::io::{self, Write};

/// Code of the failure that means "nobody reads any more"; `main` ends quietly on it.
pub const CLOSED: &str = "output_closed";

/// What writing to standard output came to.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|cause| match cause.kind() {
        io::ErrorKind::BrokenPipe => Failure::local(CLOSED, "standard output was closed"),
        _ => Failure::local("output", format!("standard output cannot be written: {cause}; check the disk or the program behind the pipe")),
    })
}

/// Writes a result: the text for people, or the JSON value on one line.
pub fn show(format: Format, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<(), Failure> {
    let text = match format {
        Format::Table => text(),
        Format::Json => format!("{}\n", json()),
    };
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        assert_eq!(written(Err(io::ErrorKind::BrokenPipe.into())).unwrap_err().code, CLOSED);
        assert_eq!(written(Err(io::ErrorKind::StorageFull.into())).unwrap_err().code, "output");
        assert!(written(Ok(())).is_ok());
    }
}
