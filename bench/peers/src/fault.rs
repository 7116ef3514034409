//! What can go wrong here: one sentence that says what was tried, what happened and, where it helps, what to do.
//!
//! A measuring program has nobody to match on kinds of errors; whoever reads the report wants the sentence. Not here: how a fault is shown (`main.rs`, `report/`).

use std::fmt::{self, Display};

/// A failure, told.
#[derive(Debug, Clone)]
pub struct Fault(pub String);

/// What may fail with a [`Fault`].
pub type Fallible<T> = Result<T, Fault>;

impl Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// Adds what was tried to an error, keeping the cause.
pub trait Told<T> {
    /// `what: cause`.
    fn told(self, what: &str) -> Fallible<T>;
}

impl<T, E: Display> Told<T> for Result<T, E> {
    fn told(self, what: &str) -> Fallible<T> {
        self.map_err(|cause| Fault(format!("{what}: {cause}")))
    }
}

/// A fault with this sentence.
pub fn fault<T>(sentence: impl Into<String>) -> Fallible<T> {
    Err(Fault(sentence.into()))
}
