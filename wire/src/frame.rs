//! The frame around every request and reply: a 32-byte header, a meta, a payload.
//!
//! ```text
//!  0 magic "TRL1" | 4 kind u8 | 5 version u8 | 6 flags u16 | 8 correlation u64
//! 16 meta_len u32 | 20 payload_len u32 | 24 reserved u32 = 0 | 28 crc u32 = crc32c(bytes 0..28 ++ meta)
//! 32 meta (the body of a request or reply) | payload (concatenated batches, which check themselves, or empty)
//! ```
//! Invariants: lengths are compared with the limits as soon as the header is there; the payload's length is believed
//! (asked for) only after the checksum over header and meta was right; nothing is allocated by a declared length.
//! An unknown kind is not a frame error: the frame is whole and can be refused with its correlation.
//!
//! Frames between nodes ([`crate::node`]) have the same layout, another magic, and a number where a request has its correlation: what is common
//! to both is written here, once, for a `Dialect`.
//! Not here: sockets, bodies, what else a node asks of a frame.

use crate::error::{ErrorBody, ErrorCode};
use crate::kind::Kind;
use std::fmt;

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"TRL1";
/// Size of the header.
pub const HEADER_BYTES: usize = 32;
/// Largest meta of the protocol: 26,000 partitions of a metadata reply; more has to be asked for in parts.
pub const META_BYTES_MAX: u32 = 1 << 20;
/// Largest payload of the protocol. A node's own limit (`frame_max` in the hello reply) is usually lower.
pub const PAYLOAD_BYTES_MAX: u32 = 16 << 20;
/// Default of a node's limit on meta + payload.
pub const FRAME_BYTES_MAX_DEFAULT: u32 = 8 << 20;

/// The frame is a reply.
pub const FLAG_REPLY: u16 = 1;
/// Further replies with this correlation follow.
pub const FLAG_MORE: u16 = 2;
/// The meta is an error body.
pub const FLAG_ERROR: u16 = 4;
/// All flags with a meaning.
pub const FLAGS_KNOWN: u16 = FLAG_REPLY | FLAG_MORE | FLAG_ERROR;

const AT_KIND: usize = 4;
const AT_VERSION: usize = 5;
const AT_FLAGS: usize = 6;
const AT_CORRELATION: usize = 8;
const AT_META_LEN: usize = 16;
const AT_PAYLOAD_LEN: usize = 20;
const AT_RESERVED: usize = 24;
const AT_CRC: usize = 28;
const _: () = assert!(AT_CRC + 4 == HEADER_BYTES && AT_RESERVED + 4 == AT_CRC);

/// In what the frames of two protocols differ. A constant at every use, and everything that takes one is inlined: it costs no look-up.
#[derive(Clone, Copy)]
pub(crate) struct Dialect {
    /// First bytes of every frame.
    pub(crate) magic: [u8; 4],
    /// All flags with a meaning.
    pub(crate) flags_known: u16,
}

const CLIENTS: Dialect = Dialect { magic: MAGIC, flags_known: FLAGS_KNOWN };

/// What a receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest meta, in bytes; never above [`META_BYTES_MAX`].
    pub meta_bytes_max: u32,
    /// Largest payload, in bytes; never above [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: u32,
    /// Largest meta + payload, in bytes (the broker's `frame.max.bytes`).
    pub frame_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { meta_bytes_max: META_BYTES_MAX, payload_bytes_max: PAYLOAD_BYTES_MAX, frame_bytes_max: FRAME_BYTES_MAX_DEFAULT }
    }
}

impl Limits {
    /// The protocol's own limits: for a client that trusts its node's `frame_max`.
    pub const PROTOCOL: Limits = Limits {
        meta_bytes_max: META_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        frame_bytes_max: META_BYTES_MAX + PAYLOAD_BYTES_MAX,
    };
    /// Before hello: a meta, no payload. What a stranger can make a node keep is 64 KiB.
    pub const BEFORE_HELLO: Limits = Limits { meta_bytes_max: 64 << 10, payload_bytes_max: 0, frame_bytes_max: 64 << 10 };
}

/// The header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Request kind as a number: it may be one that [`FrameHeader::kind`] does not know.
    pub kind: u8,
    /// Version of the kind's bodies.
    pub version: u8,
    /// `FLAG_*`.
    pub flags: u16,
    /// Chosen by the client; replies carry it.
    pub correlation: u64,
    /// Bytes of meta.
    pub meta_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// crc32c of the header before this field and the meta.
    pub crc: u32,
}

/// Why bytes are not a frame. The stream cannot be trusted any further: answer where possible, then close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Not our protocol.
    BadMagic([u8; 4]),
    /// Flags nobody knows.
    UnknownFlags(u16),
    /// The reserved field is not zero.
    ReservedNotZero(u32),
    /// The meta is above the limit.
    MetaTooLarge {
        /// Declared bytes.
        bytes: u32,
        /// Accepted bytes.
        max: u32,
    },
    /// The payload is above the limit.
    PayloadTooLarge {
        /// Declared bytes.
        bytes: u32,
        /// Accepted bytes.
        max: u32,
    },
    /// Meta and payload together are above the limit.
    FrameTooLarge {
        /// Declared bytes.
        bytes: u64,
        /// Accepted bytes.
        max: u32,
    },
    /// The checksum over header and meta is wrong.
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
}

impl FrameError {
    /// The code to answer with before closing.
    pub const fn code(&self) -> ErrorCode {
        match self {
            FrameError::BadMagic(_) | FrameError::ReservedNotZero(_) => ErrorCode::Malformed,
            FrameError::UnknownFlags(_) => ErrorCode::UnknownFlag,
            FrameError::MetaTooLarge { .. } | FrameError::PayloadTooLarge { .. } | FrameError::FrameTooLarge { .. } => {
                ErrorCode::FrameTooLarge
            }
            FrameError::Checksum { .. } => ErrorCode::ChecksumMismatch,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::BadMagic(found) => {
                write!(f, "not a frame of this protocol: it starts with {found:02x?}; check the address and port")
            }
            FrameError::UnknownFlags(flags) => write!(f, "unknown frame flags {flags:#06x}: use a feature only when the node has it"),
            FrameError::ReservedNotZero(value) => write!(f, "the reserved field of the frame header is {value:#x}, not zero"),
            FrameError::MetaTooLarge { bytes, max } => {
                write!(f, "the meta has {bytes} bytes, at most {max} are accepted: ask for less at once")
            }
            FrameError::PayloadTooLarge { bytes, max } => {
                write!(f, "the payload has {bytes} bytes, at most {max} are accepted: send smaller requests")
            }
            FrameError::FrameTooLarge { bytes, max } => {
                write!(f, "the frame has {bytes} bytes, at most {max} are accepted: send smaller requests")
            }
            FrameError::Checksum { stored, computed } => {
                write!(f, "wrong frame checksum: {stored:#010x} stored, {computed:#010x} computed; reconnect and send again")
            }
        }
    }
}

impl std::error::Error for FrameError {}

#[inline]
fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl FrameHeader {
    /// Reads a header and checks magic, flags and the reserved field; lengths and checksum are the caller's.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<FrameHeader, FrameError> {
        FrameHeader::decode_as(bytes, &CLIENTS)
    }

    #[inline(always)]
    fn decode_as(bytes: &[u8; HEADER_BYTES], dialect: &Dialect) -> Result<FrameHeader, FrameError> {
        let header = FrameHeader::decode_unchecked(bytes);
        if bytes[..4] != dialect.magic {
            return Err(FrameError::BadMagic([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
        if header.flags & !dialect.flags_known != 0 {
            return Err(FrameError::UnknownFlags(header.flags));
        }
        match u32_at(bytes, AT_RESERVED) {
            0 => Ok(header),
            value => Err(FrameError::ReservedNotZero(value)),
        }
    }

    fn decode_unchecked(bytes: &[u8; HEADER_BYTES]) -> FrameHeader {
        FrameHeader {
            kind: bytes[AT_KIND],
            version: bytes[AT_VERSION],
            flags: u16::from_le_bytes([bytes[AT_FLAGS], bytes[AT_FLAGS + 1]]),
            correlation: u32_at(bytes, AT_CORRELATION) as u64 | (u32_at(bytes, AT_CORRELATION + 4) as u64) << 32,
            meta_len: u32_at(bytes, AT_META_LEN),
            payload_len: u32_at(bytes, AT_PAYLOAD_LEN),
            crc: u32_at(bytes, AT_CRC),
        }
    }

    /// The header's bytes, with `self.crc` as it is.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        self.encode_as(&CLIENTS)
    }

    #[inline(always)]
    fn encode_as(&self, dialect: &Dialect) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&dialect.magic);
        bytes[AT_KIND] = self.kind;
        bytes[AT_VERSION] = self.version;
        bytes[AT_FLAGS..AT_CORRELATION].copy_from_slice(&self.flags.to_le_bytes());
        bytes[AT_CORRELATION..AT_META_LEN].copy_from_slice(&self.correlation.to_le_bytes());
        bytes[AT_META_LEN..AT_PAYLOAD_LEN].copy_from_slice(&self.meta_len.to_le_bytes());
        bytes[AT_PAYLOAD_LEN..AT_RESERVED].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[AT_CRC..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// The kind, if this crate knows it.
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.kind)
    }
    /// Whether this is a reply.
    pub const fn is_reply(&self) -> bool {
        self.flags & FLAG_REPLY != 0
    }
    /// Whether further replies with this correlation follow.
    pub const fn has_more(&self) -> bool {
        self.flags & FLAG_MORE != 0
    }
    /// Whether the meta is an error body.
    pub const fn is_error(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }
    /// Bytes of the whole frame.
    pub const fn frame_len(&self) -> usize {
        HEADER_BYTES + self.meta_len as usize + self.payload_len as usize
    }
    /// Compares the lengths with the limits.
    #[inline]
    pub fn check_lengths(&self, limits: &Limits) -> Result<(), FrameError> {
        let meta_max = limits.meta_bytes_max.min(META_BYTES_MAX);
        let payload_max = limits.payload_bytes_max.min(PAYLOAD_BYTES_MAX);
        let both = self.meta_len as u64 + self.payload_len as u64;
        if self.meta_len > meta_max {
            return Err(FrameError::MetaTooLarge { bytes: self.meta_len, max: meta_max });
        }
        if self.payload_len > payload_max {
            return Err(FrameError::PayloadTooLarge { bytes: self.payload_len, max: payload_max });
        }
        if both > limits.frame_bytes_max as u64 {
            return Err(FrameError::FrameTooLarge { bytes: both, max: limits.frame_bytes_max });
        }
        Ok(())
    }
}

/// A whole frame, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: FrameHeader,
    /// The body.
    pub meta: &'a [u8],
    /// Batches, or empty.
    pub payload: &'a [u8],
}

/// What [`peek`] found at the start of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// Not whole yet: peek again when at least this many bytes are there in total. (First the header, then the meta,
    /// and only then, because its length is checked by then, the payload. Peeking earlier is right but computes the
    /// meta's checksum once more.)
    More(usize),
    /// A frame, and how many bytes it takes from the buffer.
    Whole(Frame<'a>, usize),
}

/// Looks for a frame at the start of `bytes`.
#[inline]
pub fn peek<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Need<'a>, FrameError> {
    peek_as(bytes, limits, &CLIENTS, |_| Ok(()))
}

/// The same for any dialect. `accept` sees the header once its checksum is right, before the payload is asked for.
#[inline(always)]
pub(crate) fn peek_as<'a, E: From<FrameError>>(
    bytes: &'a [u8],
    limits: &Limits,
    dialect: &Dialect,
    accept: impl FnOnce(&FrameHeader) -> Result<(), E>,
) -> Result<Need<'a>, E> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        // A wrong magic is refused as early as it shows: a stranger speaking another protocol may never send 32 bytes.
        let seen = bytes.len().min(dialect.magic.len());
        if bytes[..seen] != dialect.magic[..seen] {
            let mut found = [0; 4];
            found[..seen].copy_from_slice(&bytes[..seen]);
            return Err(FrameError::BadMagic(found).into());
        }
        return Ok(Need::More(HEADER_BYTES));
    };
    let header = FrameHeader::decode_as(head, dialect)?;
    header.check_lengths(limits)?;
    let Some((meta, rest)) = rest.split_at_checked(header.meta_len as usize) else {
        return Ok(Need::More(HEADER_BYTES + header.meta_len as usize));
    };
    let computed = head_crc(head, meta);
    if computed != header.crc {
        return Err(FrameError::Checksum { stored: header.crc, computed }.into());
    }
    accept(&header)?;
    match rest.get(..header.payload_len as usize) {
        Some(payload) => Ok(Need::Whole(Frame { header, meta, payload }, header.frame_len())),
        None => Ok(Need::More(header.frame_len())),
    }
}

/// The header at the start of bytes that [`peek`] refused, unchecked: its kind and correlation let the refusal reach
/// the request it belongs to. Nothing else in it may be believed. `None` without 32 bytes or with another magic.
pub fn blame(bytes: &[u8]) -> Option<FrameHeader> {
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    (head[..4] == MAGIC).then(|| FrameHeader::decode_unchecked(head))
}

fn head_crc(head: &[u8; HEADER_BYTES], meta: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..AT_CRC]), meta)
}

/// A frame being written: where it starts in the buffer.
#[derive(Debug)]
#[must_use = "call finish_frame, else the frame has no lengths and no checksum"]
pub struct FrameStart {
    at: usize,
}

/// The frame came out above [`META_BYTES_MAX`] or [`PAYLOAD_BYTES_MAX`]; the buffer is as it was before `begin_frame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OversizedFrame {
    /// Bytes of meta that were written.
    pub meta_bytes: usize,
    /// Bytes of payload that were announced.
    pub payload_bytes: usize,
}

impl fmt::Display for OversizedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OversizedFrame { meta_bytes, payload_bytes } = self;
        write!(
            f,
            "a frame with {meta_bytes} bytes of meta and {payload_bytes} of payload is above the protocol's limits ({META_BYTES_MAX} and {PAYLOAD_BYTES_MAX}): ask for less at once"
        )
    }
}

impl std::error::Error for OversizedFrame {}

/// Starts a frame at the end of `out`: append the meta next, then call [`finish_frame`].
pub fn begin_frame(out: &mut Vec<u8>, kind: u8, version: u8, flags: u16, correlation: u64) -> FrameStart {
    begin_as(out, &CLIENTS, kind, version, flags, correlation)
}

/// The same for any dialect.
#[inline(always)]
pub(crate) fn begin_as(out: &mut Vec<u8>, dialect: &Dialect, kind: u8, version: u8, flags: u16, correlation: u64) -> FrameStart {
    debug_assert_eq!(flags & !dialect.flags_known, 0, "unknown frame flags");
    let at = out.len();
    let header = FrameHeader { kind, version, flags, correlation, meta_len: 0, payload_len: 0, crc: 0 };
    out.extend_from_slice(&header.encode_as(dialect));
    FrameStart { at }
}

/// Starts a request of the newest version this crate knows.
pub fn begin_request(out: &mut Vec<u8>, kind: Kind, correlation: u64) -> FrameStart {
    begin_frame(out, kind.as_u8(), kind.version(), 0, correlation)
}

/// Starts a reply to `request`; `more_flags` is 0 or [`FLAG_MORE`].
pub fn begin_reply(out: &mut Vec<u8>, request: &FrameHeader, more_flags: u16) -> FrameStart {
    begin_frame(out, request.kind, request.version, FLAG_REPLY | more_flags, request.correlation)
}

/// Fills lengths and checksum in. The payload is not appended: it is sent after these bytes, from where it lies.
/// Returns the bytes of header + meta.
#[inline]
pub fn finish_frame(out: &mut Vec<u8>, start: FrameStart, payload_len: usize) -> Result<usize, OversizedFrame> {
    let head_len = out.len() - start.at;
    let meta_len = head_len - HEADER_BYTES;
    if meta_len > META_BYTES_MAX as usize || payload_len > PAYLOAD_BYTES_MAX as usize {
        out.truncate(start.at);
        return Err(OversizedFrame { meta_bytes: meta_len, payload_bytes: payload_len });
    }
    let frame = &mut out[start.at..];
    frame[AT_META_LEN..AT_PAYLOAD_LEN].copy_from_slice(&(meta_len as u32).to_le_bytes());
    frame[AT_PAYLOAD_LEN..AT_RESERVED].copy_from_slice(&(payload_len as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..AT_CRC]), &frame[HEADER_BYTES..]);
    frame[AT_CRC..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(head_len)
}

/// Appends a whole error reply. The message is cut at 4 KiB, and so is the address.
pub fn write_error(out: &mut Vec<u8>, kind: u8, version: u8, correlation: u64, code: ErrorCode, message: &str, next: &str) {
    let start = begin_frame(out, kind, version, FLAG_REPLY | FLAG_ERROR, correlation);
    ErrorBody::new(code, message, next).encode(out);
    let finished = finish_frame(out, start, 0);
    debug_assert!(finished.is_ok(), "an error body has at most 8 KiB and some");
}
