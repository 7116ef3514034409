//! The border itself: every exported function runs in here.
//!
//! Invariant: what is passed to `guard` may panic, what comes out is a status. Unwinding across `extern "C"` would end the process; so it would where
//! the library is built with `panic = "abort"`, which is why it has a profile of its own.
//!
//! Not here: what becomes of an object whose method panicked (`handles`).

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::constants::OK;
use crate::failure::Failure;
use crate::last;

/// Runs `call`; keeps its failure (or its panic) as the thread's last error and returns the status.
#[inline]
pub fn guard(call: impl FnOnce() -> Result<(), Failure>) -> c_int {
    // Unwind safe: what `call` reaches is either in a table, which marks it as broken, or local to the call.
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return OK,
        Ok(Err(failure)) => failure,
        Err(payload) => Failure::panicked(payload),
    };
    let status = failure.status;
    last::keep(failure);
    status
}

/// As [`guard`], for functions that answer with a value and cannot fail: `otherwise` is the answer after a panic.
#[inline]
pub fn guard_value<R>(otherwise: R, call: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => value,
        Err(payload) => {
            last::keep(Failure::panicked(payload));
            otherwise
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::{E_ARGUMENT, E_PANIC};

    #[test]
    fn a_panic_becomes_a_status_and_its_text_the_last_error() {
        assert_eq!(guard(|| panic!("on purpose {}", 7)), E_PANIC);
        assert!(last::message().contains("on purpose 7"), "{}", last::message());
        assert_eq!(guard(|| panic!("a literal")), E_PANIC);
        assert!(last::message().contains("a literal"), "{}", last::message());
        assert_eq!(guard_value(3, || panic!("in a value")), 3);
        assert!(last::message().contains("in a value"), "{}", last::message());
    }

    #[test]
    fn the_destructor_of_what_was_panicked_with_is_not_run() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("once more");
            }
        }
        assert_eq!(guard(|| std::panic::panic_any(Bomb)), E_PANIC);
        assert!(last::message().contains("no text"), "{}", last::message());
    }

    #[test]
    fn success_leaves_the_last_error_alone() {
        assert_eq!(guard(|| Err(Failure::argument("earlier"))), E_ARGUMENT);
        assert_eq!(guard(|| Ok(())), OK);
        assert_eq!(last::message(), "earlier");
    }
}
