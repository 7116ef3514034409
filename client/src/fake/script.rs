//! What tests put into the fake broker's mouth, and the frames for it.

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{self, Frame};
use tramline_wire::kind::Kind;

/// Answers in the broker's place, where a test wants a peer that breaks the rules: the bytes to send (none: silence), or `None` for what
/// the broker would answer.
#[derive(Default)]
pub(crate) struct Script(Option<Box<Answer>>);

type Answer = dyn FnMut(&Frame<'_>) -> Option<Vec<u8>> + Send;

impl Script {
    pub(super) fn new(answer: impl FnMut(&Frame<'_>) -> Option<Vec<u8>> + Send + 'static) -> Script {
        Script(Some(Box::new(answer)))
    }

    pub(super) fn answer(&mut self, frame: &Frame<'_>) -> Option<Vec<u8>> {
        self.0.as_mut().and_then(|answer| answer(frame))
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Script").field(&self.0.is_some()).finish()
    }
}

/// The bytes of one frame.
pub(crate) fn frame_of(kind: Kind, flags: u16, correlation: u64, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let start = frame::begin_frame(&mut out, kind.as_u8(), kind.version(), flags, correlation);
    meta(&mut out);
    frame::finish_frame(&mut out, start, payload.len()).expect("within the limits");
    out.extend_from_slice(payload);
    out
}

/// The reply to a frame, with this meta.
pub(crate) fn reply_to(frame: &Frame<'_>, meta: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    reply(&mut out, frame, meta);
    out
}

/// The refusal of a frame.
pub(crate) fn refusal_of(frame: &Frame<'_>, code: ErrorCode) -> Vec<u8> {
    refusal_to(frame, code, "")
}

/// The refusal of a frame that names a better address.
pub(crate) fn refusal_to(frame: &Frame<'_>, code: ErrorCode, next: &str) -> Vec<u8> {
    let Frame { header, .. } = frame;
    let mut out = Vec::new();
    frame::write_error(&mut out, header.kind, header.version, header.correlation, code, "as the test asked", next);
    out
}

pub(super) fn reply(out: &mut Vec<u8>, frame: &Frame<'_>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = frame::begin_reply(out, &frame.header, 0);
    body(out);
    frame::finish_frame(out, start, 0).expect("within the limits");
}
