//! A broken connection must not end the program.
//!
//! Rust's own programs ignore SIGPIPE from their start, C programs do not, and the client writes with writev(2), which has no flag against it: without this, a
//! broker that goes away at the wrong moment would kill the caller. So the signal is ignored from the first connect on, unless the program has said
//! itself what it does with it. Told in `tramline.h`.
//!
//! Not here: a way without an effect on the whole process. It would be sendmsg(2) with MSG_NOSIGNAL in the client's transport.

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Ignores SIGPIPE if it still has its default effect, which is the end of the process.
pub fn ignore_unless_handled() {
    // SAFETY: asks for the current action only; the struct has room for it, and is read only when the call filled it.
    let is_default = unsafe {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), now.as_mut_ptr()) == 0 && now.assume_init().sa_sigaction == libc::SIG_DFL
    };
    if is_default {
        // SAFETY: an all-zero action is a valid one (no flags, empty mask), and SIG_IGN runs no code.
        unsafe {
            let mut ignore = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            ignore.sa_sigaction = libc::SIG_IGN;
            libc::sigaction(libc::SIGPIPE, &ignore, null_mut());
        }
    }
}
