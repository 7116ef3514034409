//! The frame between nodes: the clients' 32-byte header with another magic, no flags, and a number in place of the correlation.
//!
//! ```text
//!  0 magic "TRN1" | 4 kind u8 | 5 version u8 | 6 flags u16 = 0 | 8 number u64
//! 16 meta_len u32 | 20 payload_len u32 | 24 reserved u32 = 0 | 28 crc u32 = crc32c(bytes 0..28 ++ meta)
//! 32 meta | payload (checked by what the meta says of it)
//! ```
//! Invariants: the frames of a connection are numbered from 1 in each direction, so one that is lost or doubled by whatever stands between
//! two nodes is seen; number, kind, version and whether there may be a payload are looked at when the checksum was right, before the payload is
//! asked for. Here an unknown kind *is* an error: nobody is to be answered, and feature levels keep a newer node from sending it.
//!
//! What is common with the clients' frames is written once, in [`crate::frame`]. Not here: sockets, bodies, which kinds belong on which
//! connection ([`Kind::check`]).

use super::error::NodeError;
use super::kind::Kind;
use crate::frame::{self, Dialect, FrameStart, Limits};

/// First bytes of every frame between nodes.
pub const MAGIC: [u8; 4] = *b"TRN1";

const NODES: Dialect = Dialect { magic: MAGIC, flags_known: 0 };

/// The numbers of one direction of one connection: the sender takes them, the receiver expects them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    next: u64,
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers::new()
    }
}

impl Numbers {
    /// Those of a new connection: they begin with 1.
    pub const fn new() -> Numbers {
        Numbers { next: 1 }
    }
    /// The number of the next frame.
    pub const fn next(&self) -> u64 {
        self.next
    }
    /// Sender: the number for the frame that is being made. Receiver: the frame that [`peek`] found has been taken out of the buffer. Until then
    /// the same frame may be looked at as often as it has to wait.
    pub const fn advance(&mut self) -> u64 {
        let number = self.next;
        // A connection with a frame per nanosecond would live 584 years.
        self.next += 1;
        number
    }
}

/// A whole frame, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it says.
    pub kind: Kind,
    /// The version of its body; one that [`Kind::reads`].
    pub version: u8,
    /// Its number on this connection.
    pub number: u64,
    /// The body.
    pub meta: &'a [u8],
    /// Covered by no checksum of the frame; empty unless [`Kind::has_payload`].
    pub payload: &'a [u8],
}

/// What [`peek`] found at the start of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// Not whole yet: peek again when at least this many bytes are there in total (the header, then the meta, then all).
    More(usize),
    /// A frame, and how many bytes it takes from the buffer.
    Whole(Frame<'a>, usize),
}

/// Looks for the frame with the next of `numbers` at the start of `bytes`. An error ends the connection.
///
/// `limits`: [`Limits::BEFORE_HELLO`] for the first frame of a connection, [`Limits::PROTOCOL`] afterwards.
#[inline]
pub fn peek<'a>(bytes: &'a [u8], limits: &Limits, numbers: &Numbers) -> Result<Need<'a>, NodeError> {
    let kind_of = |number| Kind::from_u8(number).ok_or(NodeError::UnknownKind(number));
    let need = frame::peek_as(bytes, limits, &NODES, |header| {
        if header.correlation != numbers.next {
            return Err(NodeError::Number { expected: numbers.next, found: header.correlation });
        }
        let kind = kind_of(header.kind)?;
        if !kind.reads(header.version) {
            return Err(NodeError::UnknownVersion { kind, version: header.version });
        }
        if header.payload_len != 0 && !kind.has_payload() {
            return Err(NodeError::UnexpectedPayload { kind, bytes: header.payload_len });
        }
        Ok(())
    })?;
    Ok(match need {
        frame::Need::More(total) => Need::More(total),
        frame::Need::Whole(frame::Frame { header, meta, payload }, len) => {
            let kind = kind_of(header.kind)?;
            Need::Whole(Frame { kind, version: header.version, number: header.correlation, meta, payload }, len)
        }
    })
}

/// Starts a frame at the end of `out`: append the meta next, then call [`crate::frame::finish_frame`] with the payload's length.
///
/// `number` is what [`Numbers::advance`] gave. Frames have to be sent in that order; one that is given up after this leaves a gap, at which
/// the receiver ends the connection: where `finish_frame` refuses, close it.
#[inline]
pub fn begin(out: &mut Vec<u8>, kind: Kind, number: u64) -> FrameStart {
    frame::begin_as(out, &NODES, kind.as_u8(), kind.version(), 0, number)
}
