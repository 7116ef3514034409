//! The last failure of each thread, the library's version, and the names of numbers.
//!
//! Invariants: a failure is kept until the next one of the same thread, success leaves it alone; nothing here can fail. While a thread ends and its
//! storage is already gone, there is no last failure.
//!
//! Not here: the making of failures (`failure`).

use std::cell::RefCell;
use std::ffi::{c_char, c_int};

use tramline_client::ErrorCode;

use crate::args;
use crate::constants::{
    E_ARGUMENT, E_BUSY, E_CORRUPT, E_FULL, E_HANDLE, E_IO, E_PANIC, E_PROTOCOL, E_REFUSED, E_TIMEOUT, E_UNKNOWN_OUTCOME, ERROR_TOPIC_BYTES,
    OK,
};
use crate::failure::{Failure, Place};
use crate::guard::{guard, guard_value};
use crate::layout::ErrorView;

const NOTHING: Failure = Failure { status: OK, code: 0, retriable: false, message: String::new(), place: Place::NONE };

thread_local! {
    static LAST: RefCell<Failure> = const { RefCell::new(NOTHING) };
}

/// Keeps a failure as the thread's last one.
pub fn keep(failure: Failure) {
    // The old one is dropped after the cell is free again. `try_with`: a destructor of the thread may call after ours ran.
    let _old = LAST.try_with(|last| last.try_borrow_mut().map(|mut last| std::mem::replace(&mut *last, failure)));
}

fn with<R>(otherwise: R, each: impl FnOnce(&Failure) -> R) -> R {
    let mut otherwise = Some(otherwise);
    let found = LAST.try_with(|last| last.try_borrow().ok().map(|last| each(&last)));
    match found.ok().flatten() {
        Some(found) => found,
        None => otherwise.take().expect("taken once, here"),
    }
}

/// The sentence of the thread's last failure.
#[cfg(test)]
pub fn message() -> String {
    with(String::new(), |last| last.message.clone())
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_version() -> *const c_char {
    guard_value(c"".as_ptr(), || concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast())
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_catches_panics() -> c_int {
    guard_value(0, || c_int::from(cfg!(panic = "unwind")))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_last_error(buffer: *mut c_char, buffer_len: usize) -> usize {
    guard_value(0, || {
        // SAFETY: the caller says that `buffer_len` bytes can be written there, or gives null.
        with(0, |last| unsafe { args::put_text(&last.message, buffer, buffer_len) })
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_last_code() -> u32 {
    guard_value(0, || with(0, |last| u32::from(last.code)))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_last_error_details(out: *mut ErrorView, out_size: usize) -> c_int {
    guard(|| {
        let mut view = ErrorView {
            struct_size: 0,
            offset: 0,
            resume_offset: 0,
            status: OK,
            code: 0,
            retriable: 0,
            partition: 0,
            topic: [0; ERROR_TOPIC_BYTES],
        };
        with((), |last| {
            view.status = last.status;
            view.code = u32::from(last.code);
            view.retriable = u32::from(last.retriable);
            view.partition = last.place.partition;
            view.offset = last.place.offset;
            view.resume_offset = last.place.resume_offset;
            let topic = args::cut(&last.place.topic, ERROR_TOPIC_BYTES - 1);
            for (to, from) in view.topic.iter_mut().zip(topic.bytes()) {
                *to = from as c_char;
            }
        });
        // SAFETY: the caller says that `out_size` bytes can be written there, or gives null.
        unsafe { args::put_struct(out, out_size, view, "out") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_status_name(status: c_int) -> *const c_char {
    guard_value(c"".as_ptr(), || {
        let name = match status {
            OK => c"TRAMLINE_OK",
            E_ARGUMENT => c"TRAMLINE_E_ARGUMENT",
            E_HANDLE => c"TRAMLINE_E_HANDLE",
            E_BUSY => c"TRAMLINE_E_BUSY",
            E_FULL => c"TRAMLINE_E_FULL",
            E_TIMEOUT => c"TRAMLINE_E_TIMEOUT",
            E_REFUSED => c"TRAMLINE_E_REFUSED",
            E_IO => c"TRAMLINE_E_IO",
            E_CORRUPT => c"TRAMLINE_E_CORRUPT",
            E_PANIC => c"TRAMLINE_E_PANIC",
            E_UNKNOWN_OUTCOME => c"TRAMLINE_E_UNKNOWN_OUTCOME",
            E_PROTOCOL => c"TRAMLINE_E_PROTOCOL",
            _ => c"unknown status",
        };
        name.as_ptr()
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_code_name(code: u32, buffer: *mut c_char, buffer_len: usize) -> usize {
    guard_value(0, || {
        let known = u16::try_from(code).ok().and_then(ErrorCode::from_u16);
        // SAFETY: the caller says that `buffer_len` bytes can be written there, or gives null.
        unsafe { args::put_text(known.map_or("unknown code", ErrorCode::name), buffer, buffer_len) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::{self, OFFSET_NONE, PARTITION_NONE};
    use std::ffi::CStr;

    fn failed(message: &str) -> Failure {
        Failure { code: 24, ..Failure::argument(message) }
    }

    fn text(buffer: &mut [u8]) -> (usize, String) {
        // SAFETY: the slice says how long it is.
        let needed = unsafe { tramline_last_error(buffer.as_mut_ptr().cast(), buffer.len()) };
        let text = CStr::from_bytes_until_nul(buffer).map(|text| text.to_str().expect("UTF-8").to_string());
        (needed, text.unwrap_or_default())
    }

    #[test]
    fn the_sentence_is_cut_at_a_character_and_its_length_told() {
        keep(failed("größer"));
        assert_eq!(text(&mut [1; 16]), (8, "größer".to_string()));
        assert_eq!(text(&mut [1; 9]), (8, "größer".to_string()));
        assert_eq!(text(&mut [1; 4]), (8, "gr".to_string()));
        assert_eq!(text(&mut [1; 1]), (8, String::new()));
        assert_eq!(text(&mut []), (8, String::new()));
        // SAFETY: null is allowed.
        assert_eq!(unsafe { tramline_last_error(std::ptr::null_mut(), 100) }, 8);
    }

    #[test]
    fn each_thread_has_its_own() {
        keep(failed("here"));
        let other = std::thread::spawn(|| (tramline_last_code(), message())).join().expect("no panic");
        assert_eq!(other, (0, String::new()));
        assert_eq!((tramline_last_code(), message()), (24, "here".to_string()));
    }

    #[test]
    fn the_details_say_where() {
        let mut view = std::mem::MaybeUninit::<ErrorView>::zeroed();
        let mut ask = || {
            // SAFETY: the size is that of what is pointed at.
            let status = unsafe { tramline_last_error_details(view.as_mut_ptr(), size_of::<ErrorView>()) };
            assert_eq!(status, OK);
            // SAFETY: any bytes are a value of it.
            unsafe { view.assume_init() }
        };
        keep(failed("nowhere"));
        let found = ask();
        assert_eq!((found.struct_size, found.partition, found.offset), (size_of::<ErrorView>(), PARTITION_NONE, OFFSET_NONE));
        let place = Place { topic: "t".repeat(300), partition: 1, offset: 2, resume_offset: 3 };
        keep(Failure { place, retriable: true, ..failed("there") });
        let found = ask();
        assert_eq!((found.status, found.code, found.retriable), (E_ARGUMENT, 24, 1));
        assert_eq!((found.partition, found.offset, found.resume_offset), (1, 2, 3));
        assert_eq!((found.topic[254], found.topic[255]), (b't' as c_char, 0));
    }

    #[test]
    fn every_status_has_a_name() {
        for (name, value) in constants::ALL.iter().filter(|(name, _)| *name == "TRAMLINE_OK" || name.starts_with("TRAMLINE_E_")) {
            // SAFETY: a static string.
            let found = unsafe { CStr::from_ptr(tramline_status_name(*value as c_int)) };
            assert_eq!(found.to_str(), Ok(*name));
        }
    }
}
