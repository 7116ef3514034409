//! `libtramline`: the native client for C, and for every language that can call C.
//!
//! Job: give `tramline-client` a border that C can cross. `include/tramline.h` is the specification: what each function does, its units, ranges, statuses and
//! threads; the tests compare it with what is here.
//!
//! ```text
//! C program -> extern "C" function -> guard (panics stop here) -> table (handle -> object) -> tramline-client
//!                     |                                                                            |
//!                     args (pointers become references, or E_ARGUMENT)        failure (errors become status, code, sentence)
//! ```
//!
//! Invariants:
//! - No panic leaves an exported function: all of them run in `guard`. That needs unwinding: the profile `capi`, not `release`.
//! - A handle is a number, looked up at each call. A null, closed or wrong one is refused without looking at memory that was given back.
//! - Pointers are touched in `args` and nowhere else, and kept by nobody behind the end of a call.
//! - On an error, what was asked for did not happen, or the status says that this is not known (`TRAMLINE_E_UNKNOWN_OUTCOME`).
//!
//! Not here: anything about the broker (`tramline-client`).

mod args;
mod client;
mod constants;
mod consumer;
#[cfg(feature = "defect")]
mod defect;
mod failure;
mod guard;
mod handles;
#[cfg(test)]
mod header_tests;
mod last;
mod layout;
mod member;
mod messages;
mod producer;
mod queue;
mod queue_consumer;
