//! Queues and the text of tokens: the exported functions that need no consumer.
//!
//! Not here: receiving and settling (`queue_consumer`), altering and looking into queues, which the C interface does not have.

use std::ffi::{c_char, c_int};

use tramline_client::{At, LeaseToken, Start};

use crate::args;
use crate::client::with_client;
use crate::constants::{QUEUE_IF_NOT_EXISTS, TOKEN_TEXT_BYTES};
use crate::consumer::start;
use crate::failure::Failure;
use crate::guard::{guard, guard_value};
use crate::layout::{ClientHandle, Setting, Token};

/// The client's token.
pub fn lease_token(token: Token) -> LeaseToken {
    let Token { partition_uid, offset, lease } = token;
    LeaseToken { partition_uid, offset, lease }
}

/// Where a queue begins; an offset says nothing of several partitions.
fn at(start_kind: c_int, time_us: u64) -> Result<At, Failure> {
    match start(start_kind, time_us)? {
        Start::Earliest => Ok(At::Earliest),
        Start::Latest => Ok(At::Latest),
        Start::Time(us) => Ok(At::Time(us)),
        Start::Offset(_) => {
            Err(Failure::argument("start is TRAMLINE_START_OFFSET: a queue begins at the earliest message, at the latest, or at a time"))
        }
    }
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_create(
    client: ClientHandle,
    queue: *const c_char,
    topic: *const c_char,
    start_kind: c_int,
    time_us: u64,
    settings: *const Setting,
    setting_count: usize,
    flags: u32,
    queue_uid: *mut u64,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the strings are NUL-terminated and the array has so many elements, or gives null.
        let (queue, topic, settings) =
            unsafe { (args::text(queue, "queue")?, args::text(topic, "topic")?, args::settings(settings, setting_count)?) };
        let at = at(start_kind, time_us)?;
        if flags & !QUEUE_IF_NOT_EXISTS != 0 {
            return Err(Failure::argument(format!("flags is {flags:#x}, the only flag is TRAMLINE_QUEUE_IF_NOT_EXISTS")));
        }
        let created = with_client(client, |client| Ok(client.create_queue(queue, topic, at, &settings, flags != 0)?))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(queue_uid, created.uid) };
        Ok(())
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_delete(client: ClientHandle, queue: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let queue = unsafe { args::text(queue, "queue")? };
        with_client(client, |client| Ok(client.delete_queue(queue)?))
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_token_text(token: Token, buffer: *mut c_char, buffer_len: usize) -> usize {
    guard_value(0, || {
        let text = lease_token(token).to_string();
        debug_assert!(text.len() < TOKEN_TEXT_BYTES, "{text} is longer than the header says");
        // SAFETY: the caller says that `buffer_len` bytes can be written there, or gives null.
        unsafe { args::put_text(&text, buffer, buffer_len) }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_token_parse(text: *const c_char, out: *mut Token) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let text = unsafe { args::text(text, "text")? };
        let LeaseToken { partition_uid, offset, lease } = text.parse()?;
        // SAFETY: the caller says that there is room for a token, or gives null.
        unsafe { args::put(out, Token { partition_uid, offset, lease }, "out") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::{E_ARGUMENT, OK, START_LATEST, START_OFFSET, START_TIME};

    #[test]
    fn the_longest_token_has_the_bytes_of_the_header_and_is_read_back() {
        let token = Token { partition_uid: u64::MAX, offset: u64::MAX, lease: u64::MAX };
        let mut buffer = [1; TOKEN_TEXT_BYTES];
        let mut back = Token { partition_uid: 0, offset: 0, lease: 0 };
        // SAFETY: the length is the buffer's; what was written there ends with a NUL; there is room for a token.
        unsafe {
            assert_eq!(tramline_token_text(token, buffer.as_mut_ptr(), buffer.len()), TOKEN_TEXT_BYTES - 1);
            assert_eq!(tramline_token_parse(buffer.as_ptr(), &mut back), OK);
            assert_eq!(tramline_token_parse(c"1-2".as_ptr(), &mut back), E_ARGUMENT);
        }
        assert_eq!(lease_token(back), lease_token(token));
    }

    #[test]
    fn a_queue_begins_at_no_offset() {
        assert_eq!(at(START_LATEST, 0), Ok(At::Latest));
        assert_eq!(at(START_TIME, 5), Ok(At::Time(5)));
        assert!(at(START_OFFSET, 5).is_err_and(|failure| failure.message.contains("TRAMLINE_START_OFFSET")));
    }
}
