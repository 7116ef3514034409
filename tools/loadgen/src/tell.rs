//! Sentences on standard error: progress, alarms, failures.
//!
//! Invariant: a standard error that cannot be written (a full disk, a reader that went away) ends nothing. `eprintln!` would panic, which
//! in the released build is an abort: the report would be lost with the sentence.
//! Not here: the report, whose reader has a right to an error (`main.rs`).

use std::fmt::Display;
use std::io::{self, Write};

/// A line.
pub fn say(line: impl Display) {
    // Where this fails there is no place left to say so.
    let _ = writeln!(io::stderr(), "{line}");
}

/// A line with the program's name in front, for what must be told apart from the output of others.
pub fn tell(sentence: impl Display) {
    say(format_args!("tramline-loadgen: {sentence}"));
}
