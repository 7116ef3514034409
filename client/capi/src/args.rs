//! Pointers of a caller become references, values and copies, or a refusal: the one place that touches them.
//!
//! Invariants: null is refused or has a meaning, and is never followed; a length that no object can have is refused; text is checked to be UTF-8; nothing
//! depends on the alignment of a caller's structs. What cannot be checked is the caller's to keep, as `tramline.h` says: that a pointer points at as many
//! bytes as its length tells, and a string ends with a NUL.
//!
//! The references given out live as long as the caller of these functions makes them: for one call, which is as long as the C caller promises.
//! Not here: what the values mean.

use std::ffi::{CStr, c_char, c_void};

use crate::failure::Failure;
use crate::layout::{Header, Plain, Setting, Settled, Settlement};

/// A NUL-terminated string of the caller.
///
/// # Safety
/// Null, or followed by a NUL, and unchanged for `'a`.
pub unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::argument(format!("{what} is NULL: give a NUL-terminated string")));
    }
    // SAFETY: not null, and the caller says that a NUL follows.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|error| Failure::argument(format!("{what} is not UTF-8 from byte {} on", error.valid_up_to())))
}

/// An array of NUL-terminated strings of the caller.
///
/// # Safety
/// Null, or `count` pointers, each null or followed by a NUL, and unchanged for `'a`.
pub unsafe fn texts<'a>(from: *const *const c_char, count: usize, what: &str) -> Result<Vec<&'a str>, Failure> {
    // SAFETY: as the caller says.
    unsafe { array(from, count, what)?.map(|one| text(one, what)).collect() }
}

/// Bytes of the caller; null with length 0 is `None`.
///
/// # Safety
/// Null, or `len` bytes that can be read and stay unchanged for `'a`.
#[inline]
pub unsafe fn bytes<'a>(data: *const c_void, len: usize, what: &str) -> Result<Option<&'a [u8]>, Failure> {
    if data.is_null() || len > isize::MAX as usize {
        return if data.is_null() && len == 0 { Ok(None) } else { Err(bad_bytes(data, len, what)) };
    }
    // SAFETY: not null, no longer than an object can be, and the caller says that so many bytes are there.
    Ok(Some(unsafe { std::slice::from_raw_parts(data.cast(), len) }))
}

#[cold]
fn bad_bytes(data: *const c_void, len: usize, what: &str) -> Failure {
    Failure::argument(match data.is_null() {
        true => format!("{what} is NULL but its length is {len}: NULL means that there is none, and has length 0"),
        false => format!("{what} has length {len}, more than any object: is it a negative number?"),
    })
}

/// Most elements of an array that is looked at: what the protocol can count (16 bits).
const ELEMENTS_MAX: usize = u16::MAX as usize;

/// An array of structs of the caller, each copied.
///
/// # Safety
/// Null, or `count` structs that can be read.
unsafe fn array<T: Copy>(from: *const T, count: usize, what: &str) -> Result<impl Iterator<Item = T>, Failure> {
    if count > ELEMENTS_MAX {
        return Err(Failure::argument(format!("{count} {what} are given, the most is {ELEMENTS_MAX}")));
    }
    if from.is_null() && count > 0 {
        return Err(Failure::argument(format!("{count} {what} are announced but the array is NULL")));
    }
    // SAFETY: not null where there is an element; the caller says that `count` are there. `read_unaligned` asks for nothing else.
    Ok((0..count).map(move |at| unsafe { from.add(at).read_unaligned() }))
}

/// Headers of a record, put behind each other into `into`.
///
/// # Safety
/// Null, or `count` headers whose names and values can be read and stay unchanged for `'a`.
pub unsafe fn headers<'a>(from: *const Header, count: usize, into: &mut Vec<(&'a str, &'a [u8])>) -> Result<(), Failure> {
    // SAFETY: as the caller says.
    for header in unsafe { array(from, count, "headers")? } {
        // SAFETY: as the caller says.
        let (name, value) = unsafe {
            (bytes(header.name.cast(), header.name_len, "a header's name")?, bytes(header.value, header.value_len, "a header's value")?)
        };
        let name = std::str::from_utf8(name.unwrap_or_default())
            .map_err(|error| Failure::argument(format!("a header's name is not UTF-8 from byte {} on", error.valid_up_to())))?;
        into.push((name, value.unwrap_or_default()));
    }
    Ok(())
}

/// Settings of a topic.
///
/// # Safety
/// Null, or `count` settings whose strings are NUL-terminated and stay unchanged for `'a`.
pub unsafe fn settings<'a>(from: *const Setting, count: usize) -> Result<Vec<(&'a str, &'a str)>, Failure> {
    // SAFETY: as the caller says.
    let all = unsafe { array(from, count, "settings")? };
    // SAFETY: as the caller says.
    all.map(|setting| unsafe { Ok((text(setting.key, "a setting's key")?, text(setting.value, "a setting's value")?)) }).collect()
}

/// Settlements, whose reasons are still pointers.
///
/// # Safety
/// Null, or `count` settlements that can be read.
pub unsafe fn settlements(from: *const Settlement, count: usize) -> Result<Vec<Settlement>, Failure> {
    // SAFETY: as the caller says.
    Ok(unsafe { array(from, count, "settlements")? }.collect())
}

/// Where the results of as many settlements go, if the caller wants them.
///
/// # Safety
/// Null, or room for as many.
pub unsafe fn put_results(out: *mut Settled, results: impl Iterator<Item = Settled>) {
    if out.is_null() {
        return;
    }
    for (at, result) in results.enumerate() {
        // SAFETY: not null, and the caller says that there is room for so many.
        unsafe { out.add(at).write_unaligned(result) };
    }
}

/// A flag: 0 or 1.
pub fn flag(value: u32, what: &str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::argument(format!("{what} is {other}: it is 0 (no) or 1 (yes)"))),
    }
}

/// A size that has to fit into this machine's.
pub fn size(value: u64, what: &str) -> Result<usize, Failure> {
    usize::try_from(value).map_err(|_| Failure::argument(format!("{what} is {value}, more than this machine can address")))
}

/// A struct of the caller that begins with its size. A larger one is from a newer header: fine, as long as it asks for nothing that is not known here,
/// which is: the rest is zero. A smaller one is from an older header: what it does not have is zero.
///
/// # Safety
/// Null, or as many bytes as its first field says can be read.
#[inline]
pub unsafe fn sized<T: Plain>(from: *const T, what: &str) -> Result<T, Failure> {
    if from.is_null() {
        return Err(Failure::argument(format!("{what} is NULL")));
    }
    // SAFETY: not null, and the caller says that the first field, a `usize` (`Plain`), is there.
    let found = unsafe { from.cast::<usize>().read_unaligned() };
    if found != size_of::<T>() {
        // SAFETY: the caller says that so many bytes are there.
        unsafe { check_size(from, found, what)? };
        if found < size_of::<T>() {
            let mut whole = std::mem::MaybeUninit::<T>::zeroed();
            // SAFETY: the caller says that `found` bytes are there; they fit, and do not overlap with what is ours. All bytes are values (`Plain`).
            return Ok(unsafe {
                std::ptr::copy_nonoverlapping(from.cast::<u8>(), whole.as_mut_ptr().cast::<u8>(), found);
                whole.assume_init()
            });
        }
    }
    // SAFETY: at least so many bytes are there, and all bytes are values (`Plain`).
    Ok(unsafe { from.read_unaligned() })
}

#[cold]
unsafe fn check_size<T: Plain>(from: *const T, found: usize, what: &str) -> Result<(), Failure> {
    let known = size_of::<T>();
    // 4,096, because a size above is garbage, and what is behind it may be nobody's memory.
    if found < T::BYTES_FIRST || found > 4096 {
        let message = format!(
            "{what} has struct_size {found}, here it is {known}: set it to sizeof, or fill the struct with its defaults function first"
        );
        return Err(Failure::argument(message));
    }
    // SAFETY: the caller says that `found` bytes are there.
    let rest = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known.min(found)), found.saturating_sub(known)) };
    if rest.iter().any(|byte| *byte != 0) {
        let message = format!("{what} has settings that this version of the library does not know: install the newer one, or leave them 0");
        return Err(Failure::argument(message));
    }
    Ok(())
}

/// Fills a struct of the caller that begins with its size: as much of it as is known here, zeros behind.
///
/// # Safety
/// Null, or `out_size` bytes that can be written.
pub unsafe fn put_struct<T: Plain>(out: *mut T, out_size: usize, value: T, what: &str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::argument(format!("{what} is NULL: it has to point at the struct that is filled")));
    }
    if !(size_of::<usize>()..=4096).contains(&out_size) {
        return Err(Failure::argument(format!("{what} has {out_size} bytes: give its sizeof")));
    }
    let known = out_size.min(size_of::<T>());
    // SAFETY: `out_size` bytes can be written, as the caller says, and `value` has `known` bytes, all of which are initialized (`Plain`: no padding). They
    // do not overlap: `value` is ours.
    unsafe {
        std::ptr::write_bytes(out.cast::<u8>(), 0, out_size);
        std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), out.cast::<u8>(), known);
        out.cast::<usize>().write_unaligned(out_size);
    }
    Ok(())
}

/// Where an answer goes that the caller has to want.
///
/// # Safety
/// Null, or room for a `T`.
pub unsafe fn put<T>(out: *mut T, value: T, what: &str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::argument(format!("{what} is NULL: it has to point at where the answer goes")));
    }
    // SAFETY: not null, and the caller says that there is room.
    unsafe { out.write_unaligned(value) };
    Ok(())
}

/// Where an answer goes that the caller may not want: nothing happens for null.
///
/// # Safety
/// Null, or room for a `T`.
pub unsafe fn put_if_wanted<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: not null, and the caller says that there is room.
        unsafe { out.write_unaligned(value) };
    }
}

/// Writes text and a NUL into a buffer, cut at a character where it does not fit; returns the bytes of the whole text, without NUL.
///
/// # Safety
/// Null, or `buffer_len` bytes that can be written.
pub unsafe fn put_text(text: &str, buffer: *mut c_char, buffer_len: usize) -> usize {
    if !buffer.is_null() && buffer_len > 0 {
        let fits = cut(text, buffer_len - 1);
        // SAFETY: `fits` and a NUL are at most `buffer_len` bytes; the text is ours, so it does not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(fits.as_ptr(), buffer.cast::<u8>(), fits.len());
            buffer.add(fits.len()).write(0);
        }
    }
    text.len()
}

/// As much of a text as `bytes_max` bytes hold, in whole characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::E_ARGUMENT;
    use crate::layout::{ConsumerOptions, NewRecord};
    use crate::producer::empty_record;
    use std::ptr::null;

    fn refused<R: std::fmt::Debug>(result: Result<R, Failure>, words: &str) {
        let failure = result.expect_err("refused");
        assert!(failure.status == E_ARGUMENT && failure.message.contains(words), "{failure:?}");
    }

    #[test]
    fn text_is_utf8_and_there() {
        // SAFETY: literals end with a NUL.
        unsafe {
            assert_eq!(text(c"žluť".as_ptr(), "x"), Ok("žluť"));
            refused(text(null(), "the topic"), "the topic is NULL");
            refused(text(c"ab\xffc".as_ptr(), "the topic"), "not UTF-8 from byte 2 on");
        }
    }

    #[test]
    fn no_bytes_and_empty_bytes_differ() {
        // SAFETY: the lengths are those of the literals, or refused before they are used.
        unsafe {
            assert_eq!(bytes(null(), 0, "x"), Ok(None));
            assert_eq!(bytes(c"".as_ptr().cast(), 0, "x"), Ok(Some(&b""[..])));
            assert_eq!(bytes(b"a\0b".as_ptr().cast(), 3, "x"), Ok(Some(&b"a\0b"[..])));
            refused(bytes(null(), 1, "the key"), "the key is NULL but its length is 1");
            refused(bytes(c"".as_ptr().cast(), usize::MAX, "the key"), "more than any object");
        }
    }

    #[test]
    fn arrays_are_counted_before_they_are_read() {
        let header = Header { name: c"n".as_ptr(), name_len: 1, value: null(), value_len: 0 };
        let bad = Header { name: c"\xff".as_ptr(), ..header };
        let long = Header { value_len: 5, ..header };
        let mut found = Vec::new();
        // SAFETY: the counts are those of what is pointed at, or refused before.
        unsafe {
            assert_eq!(headers(&header, 1, &mut found), Ok(()));
            assert_eq!(headers(null(), 0, &mut found), Ok(()));
            refused(headers(&header, 65_536, &mut found), "65536 headers");
            refused(headers(null(), 1, &mut found), "the array is NULL");
            refused(headers(&bad, 1, &mut found), "not UTF-8");
            refused(headers(&long, 1, &mut found), "a header's value is NULL");
            refused(settings(&Setting { key: null(), value: null() }, 1), "a setting's key is NULL");
        }
        assert_eq!(found, [("n", &b""[..])]);
    }

    fn options(struct_size: usize) -> ConsumerOptions {
        ConsumerOptions { struct_size, credit_bytes: 1, partition_bytes_max: 3, verify_checksums: 1, batch_values_bytes_max: 4 }
    }

    /// A struct of a newer header: what is known, and one more field.
    #[repr(C)]
    struct Newer(ConsumerOptions, u64);

    #[test]
    fn a_struct_may_be_newer_if_it_asks_for_nothing_unknown() {
        let size = size_of::<ConsumerOptions>();
        let read = |newer: &Newer| {
            // SAFETY: the sizes are those of what is pointed at, or refused before.
            unsafe { sized((&raw const *newer).cast::<ConsumerOptions>(), "options") }
        };
        assert_eq!(read(&Newer(options(size), 1)).map(|options| options.partition_bytes_max), Ok(3));
        assert_eq!(read(&Newer(options(size + 8), 0)).map(|options| options.partition_bytes_max), Ok(3));
        refused(read(&Newer(options(size + 8), 1)), "does not know");
        refused(read(&Newer(options(size - 1), 0)), "struct_size");
        refused(read(&Newer(options(0), 0)), "struct_size");
        refused(read(&Newer(options(usize::MAX), 0)), "struct_size");
        // SAFETY: null is refused.
        refused(unsafe { sized(null::<ConsumerOptions>(), "options") }, "options is NULL");
    }

    #[test]
    fn a_struct_may_be_older_down_to_its_first_layout() {
        let first = NewRecord::BYTES_FIRST;
        assert_eq!(first, std::mem::offset_of!(NewRecord, deliver_at_us), "records of the first header end there");
        let mut record = NewRecord { struct_size: 0, ..empty_record() };
        (record.tag, record.priority, record.ttl_ms) = (7, 9, 9);
        let mut read = |struct_size| {
            record.struct_size = struct_size;
            // SAFETY: the sizes are at most that of what is pointed at, or refused before.
            unsafe { sized(&raw const record, "record") }.map(|record| (record.tag, record.priority, record.ttl_ms))
        };
        assert_eq!(read(first), Ok((7, 0, 0)), "what it does not have is zero");
        assert_eq!(read(size_of::<NewRecord>()), Ok((7, 9, 9)));
        refused(read(first - 1), "struct_size");
    }

    #[test]
    fn a_filled_struct_is_as_large_as_the_caller_says() {
        let size = size_of::<ConsumerOptions>();
        let mut room = [0xffu8; 64];
        let mut fill = |out_size| {
            room.fill(0xff);
            // SAFETY: at most the bytes of `room`, or refused before.
            unsafe { put_struct(room.as_mut_ptr().cast(), out_size, options(0), "out").map(|()| room) }
        };
        let filled = fill(size + 8).expect("room enough");
        assert_eq!(usize::from_ne_bytes(filled[..8].try_into().expect("8 bytes")), size + 8);
        assert_eq!((filled[8], filled[size], filled[size + 7], filled[size + 8]), (1, 0, 0, 0xff));
        // An older caller gets what it knows, and no byte more.
        let filled = fill(12).expect("room enough");
        assert_eq!((filled[8], filled[12]), (1, 0xff));
        refused(fill(7), "sizeof");
        refused(fill(usize::MAX), "sizeof");
        // SAFETY: null is refused.
        refused(unsafe { put_struct(std::ptr::null_mut(), size, options(0), "out") }, "out is NULL");
    }
}
