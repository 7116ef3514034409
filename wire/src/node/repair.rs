//! Fetch (13) and FetchReply (14): what a replica lost to damage, from one that has it.
//!
//! Invariant: replies come in the order of the questions, one each; a reply is checked against its question.
//! Not here: who is asked, where the bytes go (docs/REPLICATION.md, 8); reading by clients ([`crate::fetch`]).

use super::append::{CheckedEntry, EntryHead, check_entry};
use super::error::{NodeError, Place};
use super::parts::{CheckedBatches, PayloadLimits, check_batches};
use crate::error::ErrorCode;
use crate::prim::{DecodeError, List, layout};

layout! {
    /// Batches of a range of offsets, or one entry.
    pub struct Fetch {
        /// The group.
        pub group: u32 => zero 4;
        /// The partition; 0 for an entry of the group's log.
        pub uid: u64;
        /// The first offset; of an entry its index.
        pub first: u64;
        /// The offset behind the last; of an entry its term.
        pub end: u64;
        /// At most so many bytes, except that one batch or entry is always sent whole.
        pub max_bytes: u32;
    }
}

layout! {
    /// Committed batches, or the entry; or why there are none.
    pub struct FetchReply<'a> {
        /// `Ok`, or why nothing is sent.
        pub error: ErrorCode => zero 2;
        /// The offset to go on with; 0 for an entry, and with an error.
        pub next: u64;
        /// The head of the entry; none for batches, and with an error.
        pub heads: List<'a, EntryHead>;
    }
}

/// What a [`FetchReply`] brought, checked.
#[derive(Debug, Clone)]
pub enum Fetched<'a> {
    /// The other node does not have it, or not now.
    Error(ErrorCode),
    /// Whole batches, contiguous, the first one with the asked offset in it. None: there is nothing in the range.
    Batches(CheckedBatches<'a>),
    /// The entry.
    Entry(CheckedEntry<'a>),
}

impl<'a> FetchReply<'a> {
    /// Checks the reply against its question, and all bytes against their sums. An error ends the connection.
    pub fn check(&self, asked: &Fetch, payload: &'a [u8], limits: &PayloadLimits) -> Result<Fetched<'a>, NodeError> {
        let declared = self.heads.iter().map(|head| head.payload_bytes()).sum::<u64>();
        let carries = !payload.is_empty() || !self.heads.is_empty() || self.next != 0;
        if asked.uid != 0 {
            let at = Place::Partition { group: asked.group, uid: asked.uid };
            if !self.heads.is_empty() || !self.error.is_ok() && carries {
                return Err(NodeError::OtherAnswer { at });
            }
            if self.error.is_ok() {
                self.check_range(at, asked, payload, limits)?;
                return Ok(Fetched::Batches(CheckedBatches::of(payload)));
            }
            return Ok(Fetched::Error(self.error));
        }
        let at = Place::Entry { group: asked.group, index: asked.first };
        if !self.error.is_ok() {
            return if carries { Err(NodeError::OtherAnswer { at }) } else { Ok(Fetched::Error(self.error)) };
        }
        let Some(head) = self.heads.iter().next().filter(|_| self.heads.len() == 1 && self.next == 0) else {
            return Err(NodeError::OtherAnswer { at });
        };
        if declared != payload.len() as u64 {
            return Err(DecodeError::PayloadMismatch { declared, actual: payload.len() as u64 }.into());
        }
        if head.term != asked.end {
            return Err(NodeError::EntryTerm { at, term: head.term, min: asked.end, max: asked.end });
        }
        check_entry(at, &head, payload, limits)?;
        Ok(Fetched::Entry(CheckedEntry::of(asked.first, head, payload)))
    }

    /// Contiguous batches of the asked partition, that begin with the asked offset and end where `next` says.
    fn check_range(&self, at: Place, asked: &Fetch, payload: &'a [u8], limits: &PayloadLimits) -> Result<(), NodeError> {
        let mut next = asked.first;
        check_batches(payload, limits.batch_bytes_max, at, |batch, view| {
            let (uid, found) = (view.partition_uid(), view.base_offset());
            if uid != asked.uid {
                return Err(NodeError::BatchUid { at, batch, found: uid });
            }
            // Batches are never cut: the first one may begin before the asked offset.
            let fits = if batch == 0 { found <= next && next < view.next_offset() } else { found == next };
            if !fits {
                return Err(NodeError::BatchOffset { at, batch, expected: next, found });
            }
            if found >= asked.end {
                return Err(NodeError::OtherAnswer { at });
            }
            next = view.next_offset();
            Ok(())
        })?;
        let is_told = payload.is_empty() || self.next == next;
        if is_told { Ok(()) } else { Err(NodeError::OtherAnswer { at }) }
    }
}
