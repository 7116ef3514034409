//! How long those waited that were answered: from the effects of a step into the shard's histograms.
//!
//! Invariants: whoever is answered is counted once, also who is refused; requests that share their times are one look at each histogram.
//!
//! Not here: who notes that somebody was answered (`effects.rs`), the histograms (metrics/).

use super::shard::Shard;
use crate::effects::{Answered, Effects, Now};
use crate::metrics::{RequestClass, Stamps};
use tramline_wire::kind::Kind;

impl Shard {
    /// Counts what was answered in this step.
    #[inline]
    pub(super) fn note_answered(&mut self, now: Now, effects: &mut Effects) {
        for answered in effects.answered.drain(..) {
            if let Some(class) = Kind::from_u8(answered.kind).and_then(RequestClass::of) {
                self.metrics.record(class, &stamps(now, class, &answered), answered.count, now.utc_us, answered.bytes);
            }
        }
    }
}

/// What took place in one turn has one time: a stage that was over when it began is none.
fn stamps(now: Now, class: RequestClass, answered: &Answered) -> Stamps {
    let Answered { received_us, taken_us, closed_us, .. } = *answered;
    let stamp = |at_us: u64| if at_us > received_us { at_us * 1000 } else { 0 };
    let replied_ns = now.mono_us * 1000;
    let (appended_ns, written_ns) = match class {
        RequestClass::Fetch => (replied_ns, 0),
        RequestClass::Produce if closed_us != 0 => (stamp(closed_us), replied_ns),
        _ => (stamp(closed_us), 0),
    };
    Stamps { received_ns: received_us * 1000, parsed_ns: stamp(taken_us), appended_ns, written_ns, replied_ns }
}
