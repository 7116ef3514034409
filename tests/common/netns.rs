//! Standing in a network namespace.
//!
//! A socket belongs for ever to the namespace it was made in, so only making it needs to be done inside. Needs root. Not here: who makes namespaces.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Runs `work` in a namespace, on a thread of its own: the caller stays where it is.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(namespace).unwrap_or_else(|e| panic!("no namespace {}: {e}", namespace.display()));
    let there = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter a namespace");
        work()
    };
    std::thread::scope(|scope| scope.spawn(there).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
