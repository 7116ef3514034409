//! What bodies are built from: a bounds-checked reader, strings, lists, and the decode error.
//!
//! Invariants: a reader never looks past its slice and never allocates; a declared count is compared with the bytes
//! that are there before it is believed; a [`List`] that came from bytes was walked whole when it was decoded, so its
//! iterator cannot fail. Encoding `decode(x)` gives the same bytes again.
//!
//! ```text
//! str    u16 length | UTF-8
//! bytes  u16 length | bytes
//! list   u32 count  | items
//! ```
//! | file | job |
//! |---|---|
//! | `mod.rs` | the reader, numbers, strings, reserved bytes, the decode error |
//! | `list.rs` | lists and their incremental writer |
//! | `macros.rs` | declaring bodies, flags and enumerations |
//!
//! Not here: which body has which fields.

mod list;
mod macros;

pub use list::{List, ListIter, ListWriter};
pub(crate) use macros::{choices, fixed, flags, layout};

use crate::error::ErrorCode;
use std::fmt;

/// Longest string or byte string of a body, in bytes: its length is a u16.
pub const STR_BYTES_MAX: usize = u16::MAX as usize;
/// Longest message of an error reply, in bytes; a longer one is cut. A sentence needs 200, a listed cause some more.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Why a body does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The body ends inside a field.
    Short {
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// Bytes are left after the last field.
    Trailing {
        /// How many.
        left: usize,
    },
    /// A string is not UTF-8.
    NotUtf8,
    /// A reserved field is not zero.
    ReservedNotZero,
    /// An enum or flag field has a value nobody knows.
    UnknownValue {
        /// Which field.
        what: &'static str,
        /// The value.
        value: u64,
        /// How to refuse it.
        code: ErrorCode,
    },
    /// The body's sizes do not add up to the frame's payload.
    PayloadMismatch {
        /// Sum of the sizes in the body.
        declared: u64,
        /// Bytes of payload.
        actual: u64,
    },
}

impl DecodeError {
    /// The code to refuse the request with.
    pub const fn code(&self) -> ErrorCode {
        match self {
            DecodeError::UnknownValue { code, .. } => *code,
            _ => ErrorCode::Malformed,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Short { needed, left } => write!(f, "the body ends inside a field: {needed} bytes needed, {left} left"),
            DecodeError::Trailing { left } => write!(f, "{left} bytes follow the last field"),
            DecodeError::NotUtf8 => write!(f, "a string is not UTF-8"),
            DecodeError::ReservedNotZero => write!(f, "a reserved field is not zero"),
            DecodeError::UnknownValue { what, value, .. } => write!(f, "unknown {what} {value}"),
            DecodeError::PayloadMismatch { declared, actual } => {
                write!(f, "the entries declare {declared} bytes of payload, the frame carries {actual}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// A cursor over a body.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }
    /// What was not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(count) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(DecodeError::Short { needed: count, left: self.rest.len() }),
        }
    }
    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(DecodeError::Short { needed: N, left: self.rest.len() }),
        }
    }
    /// A u8.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    /// A u16.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    /// A u32.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    /// A u64.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// An i64.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    /// Bytes behind a u16 length.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()? as usize;
        self.take(len)
    }
    /// UTF-8 behind a u16 length.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).ok().ok_or(DecodeError::NotUtf8)
    }
    /// Refuses trailing bytes.
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { left: self.rest.len() }) }
    }
}

/// A value with a fixed place in a body or list.
pub trait Item<'a>: Sized + Copy {
    /// Fewest bytes an item takes: a declared count of more items than could be there is refused at once.
    const BYTES_MIN: usize;
    /// Reads and validates the next item.
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError>;
    /// Appends the item.
    fn write(&self, to: &mut Vec<u8>);
}

/// An item that always takes `BYTES_MIN` bytes.
pub(crate) trait Fixed {
    /// Writes it into as many bytes. What is reserved in them is left as it is.
    fn put(&self, to: &mut [u8]);
}

macro_rules! number_items {
    ($($type:ident $bytes:literal),*) => {$(
        impl<'a> Item<'a> for $type {
            const BYTES_MIN: usize = $bytes;
            #[inline]
            fn read(from: &mut Reader<'a>) -> Result<$type, DecodeError> {
                Ok($type::from_le_bytes(from.array()?))
            }
            #[inline]
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
        }
        fixed!($type, |it| it.to_le_bytes());
    )*};
}
number_items!(u8 1, u16 2, u32 4, u64 8, i64 8);

impl<'a, const N: usize> Item<'a> for [u8; N] {
    const BYTES_MIN: usize = N;
    fn read(from: &mut Reader<'a>) -> Result<[u8; N], DecodeError> {
        from.array()
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
}
impl<const N: usize> Fixed for [u8; N] {
    fn put(&self, to: &mut [u8]) {
        to.copy_from_slice(self);
    }
}

impl<'a> Item<'a> for &'a str {
    const BYTES_MIN: usize = 2;
    fn read(from: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
        from.str()
    }
    fn write(&self, to: &mut Vec<u8>) {
        put_str(to, self);
    }
}

impl<'a> Item<'a> for &'a [u8] {
    const BYTES_MIN: usize = 2;
    fn read(from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        from.bytes()
    }
    fn write(&self, to: &mut Vec<u8>) {
        put_bytes(to, self);
    }
}

impl<'a> Item<'a> for bool {
    const BYTES_MIN: usize = 1;
    fn read(from: &mut Reader<'a>) -> Result<bool, DecodeError> {
        match from.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::UnknownValue { what: "boolean", value: other as u64, code: ErrorCode::Malformed }),
        }
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(*self as u8);
    }
}
fixed!(bool, |it| [u8::from(*it)]);

/// `N` reserved bytes: written as zero, refused when they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zero<const N: usize>;

impl<'a, const N: usize> Item<'a> for Zero<N> {
    const BYTES_MIN: usize = N;
    #[inline]
    fn read(from: &mut Reader<'a>) -> Result<Zero<N>, DecodeError> {
        if from.array::<N>()? == [0; N] { Ok(Zero) } else { Err(DecodeError::ReservedNotZero) }
    }
    #[inline]
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&[0; N]);
    }
}

/// Appends bytes behind a u16 length. Panics above [`STR_BYTES_MAX`]: check what comes from users before encoding it.
pub fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    assert!(bytes.len() <= STR_BYTES_MAX, "a byte string of {} bytes cannot be encoded: at most {STR_BYTES_MAX}", bytes.len());
    to.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    to.extend_from_slice(bytes);
}

/// Appends a string behind a u16 length. Panics above [`STR_BYTES_MAX`]: check what comes from users before encoding it.
pub fn put_str(to: &mut Vec<u8>, text: &str) {
    put_bytes(to, text.as_bytes());
}

/// Appends a string, cut at a character so that it has at most [`MESSAGE_BYTES_MAX`] bytes.
pub fn put_str_cut(to: &mut Vec<u8>, text: &str) {
    put_str(to, &text[..text.floor_char_boundary_of(MESSAGE_BYTES_MAX)]);
}

trait FloorCharBoundary {
    fn floor_char_boundary_of(&self, index: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_of(&self, index: usize) -> usize {
        let mut at = index.min(self.len());
        while !self.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}
