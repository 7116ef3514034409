//! One reply of a fetch while it is being filled: entries and the batches that go with them.

use super::cursor::Cursor;
use crate::bytes::Bytes;
use crate::effects::{Caller, Effects};
use crate::partition::Partitions;
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchFlags, FetchReplyWriter, FetchResult};
use tramline_wire::frame::FLAG_MORE;

#[derive(Clone, Copy, Debug)]
struct Filled {
    cursor: u32,
    error: ErrorCode,
    payload_bytes: u32,
    next_offset: u64,
}

/// A reply being filled.
#[derive(Debug, Default)]
pub(super) struct Frame {
    parts: Vec<Bytes>,
    entries: Vec<Filled>,
    bytes: usize,
}

impl Frame {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn batches(&self) -> u64 {
        self.parts.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has_error(&self) -> bool {
        self.entries.iter().any(|e| !e.error.is_ok())
    }

    /// Bytes of a cursor in this frame.
    pub(super) fn bytes_of(&self, cursor: u32) -> u32 {
        self.entries.iter().filter(|e| e.cursor == cursor).map(|e| e.payload_bytes).sum()
    }

    pub(super) fn push_batch(&mut self, cursor: u32, bytes: Bytes, next_offset: u64) {
        let len = bytes.len();
        self.bytes += len;
        match self.entries.last_mut() {
            Some(last) if last.cursor == cursor && last.error.is_ok() => {
                last.payload_bytes += len as u32;
                last.next_offset = next_offset;
            }
            _ => self.entries.push(Filled { cursor, error: ErrorCode::Ok, payload_bytes: len as u32, next_offset }),
        }
        self.parts.push(bytes);
    }

    pub(super) fn push_error(&mut self, cursor: u32, error: ErrorCode, next_offset: u64) {
        self.entries.push(Filled { cursor, error, payload_bytes: 0, next_offset });
    }

    /// Adds an empty entry for every cursor that has none: a one-shot reply tells the ends of all.
    pub(super) fn complete(&mut self, cursors: &[Cursor]) {
        if let ([_], [_]) = (&self.entries[..], cursors) {
            return;
        }
        let mut told = vec![false; cursors.len()];
        self.entries.iter().for_each(|e| told[e.cursor as usize] = true);
        for (at, cursor) in cursors.iter().enumerate().filter(|(at, _)| !told[*at]) {
            self.entries.push(Filled { cursor: at as u32, error: ErrorCode::Ok, payload_bytes: 0, next_offset: cursor.offset });
        }
    }

    /// Sends the reply and forgets it.
    pub(super) fn send(&mut self, caller: &Caller, more: bool, cursors: &[Cursor], partitions: &Partitions, effects: &mut Effects) {
        let flags = if more { FLAG_MORE } else { 0 };
        let entries = &self.entries;
        effects.reply(caller, flags, &mut self.parts, |out| {
            let mut writer = FetchReplyWriter::begin(out, 0);
            for entry in entries {
                let cursor = &cursors[entry.cursor as usize];
                let partition = partitions.get(cursor.slot);
                let (log_start, committed_end) = partition.map_or((0, 0), |p| (p.log_start(), p.visible_end()));
                let result = FetchResult {
                    partition_uid: cursor.uid,
                    error: entry.error,
                    flags: FetchFlags::default(),
                    payload_bytes: entry.payload_bytes,
                    log_start,
                    committed_end,
                    last_stable: committed_end,
                    next_offset: entry.next_offset,
                };
                writer.push(out, &result);
            }
            writer.finish(out);
        });
        self.entries.clear();
        self.bytes = 0;
    }
}
