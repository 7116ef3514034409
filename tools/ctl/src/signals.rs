//! SIGINT and SIGTERM, for verbs that go on until somebody ends them: the first asks for an end in good order, a second one ends the program at once.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// As the shell shows a program that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Whether somebody wants the program to end.
#[derive(Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the first signal is only noted.
    pub fn watch() -> Result<Stop, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        register(&stop).map_err(|error| Failure::local("signals", format!("cannot watch for SIGINT: {error}")))?;
        Ok(Stop(stop))
    }

    /// Whether a signal came.
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn register(stop: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(stop))?;
        flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}
