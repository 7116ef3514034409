//! Clients that read: one-shot fetches, what comes with them, and the reading of everything at a run's end.
//!
//! Not here: streams (`streams.rs`), what may be believed of what was read (`history.rs`).

use super::Check;
use super::clients::{Clients, Pending};
use super::history::Ends;
use super::totals::Event as Counted;
use super::world::World;
use std::collections::BTreeMap;
use tramline_wire::batch::Batches;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::frame::{self, FLAG_ERROR, Frame, Need};
use tramline_wire::kind::Kind;

impl Clients {
    pub(super) fn fetch(&mut self, world: &mut World, at: usize, uid: u64) {
        let client = &mut self.list[at];
        let cursor = client.cursors.entry(uid).or_insert(0);
        if self.dice.once_in(30) {
            // A seek: to the start, or somewhere before.
            *cursor = if self.dice.chance(50) { 0 } else { self.dice.below(*cursor + 1) };
        }
        let offset = *cursor;
        self.fetch_at(world, at, uid, offset);
    }

    fn fetch_at(&mut self, world: &mut World, at: usize, uid: u64, offset: u64) {
        let floor = self.history.ends(uid);
        self.send(world, at, Kind::Fetch, &[], Pending::Fetch { uid, offset, floor }, |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 100, 1, 256 << 10);
            writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes: 64 << 10 });
            writer.finish(out);
        });
    }

    /// Answers where to go on, and whether the end was reached.
    pub(super) fn on_fetched(
        &mut self,
        world: &mut World,
        at: usize,
        asked: (u64, u64, Ends),
        entry: &tramline_wire::fetch::FetchResult,
        batches: &[u8],
    ) -> Result<(u64, bool), String> {
        let (next, is_end) = self.check_fetched(world, asked, entry, batches)?;
        if self.uids.contains(&asked.0) {
            self.list[at].cursors.insert(asked.0, next);
        }
        Ok((next, is_end))
    }

    /// Checks what was fetched of a partition from an offset on, asked for when `floor` was known; answers as `on_fetched` does.
    pub(super) fn check_fetched(
        &mut self,
        world: &mut World,
        (uid, offset, floor): (u64, u64, Ends),
        entry: &tramline_wire::fetch::FetchResult,
        batches: &[u8],
    ) -> Result<(u64, bool), String> {
        if entry.partition_uid != uid {
            return Err(format!("fetched partition {uid}, got {}", entry.partition_uid));
        }
        let mut next = offset;
        self.forget_if_lost(world, uid, entry.error);
        match entry.error {
            ErrorCode::Ok => {}
            ErrorCode::OffsetOutOfRange => next = entry.next_offset,
            ErrorCode::Damaged => {
                world.totals.note(Counted::DamageTold);
                // A read that failed for once is told as damage of that range, by a node that cannot know better.
                self.history.on_damaged(uid, offset, entry.next_offset)?;
                next = entry.next_offset;
            }
            ErrorCode::TopicDeleted | ErrorCode::UnknownPartition if !self.uids.contains(&uid) => return Ok((offset, true)),
            code if code.retriable() => return Ok((offset, false)),
            code => return Err(format!("fetch of partition {uid} at {offset}: {code:?}")),
        }
        if matches!(entry.error, ErrorCode::Ok | ErrorCode::OffsetOutOfRange) {
            self.history.on_ends(uid, floor, Ends { start: entry.log_start, committed: entry.committed_end, trimmed: 0 })?;
        }
        next = self.take_batches(world, uid, next, floor, batches, |_| Ok(()))?;
        Ok((next, entry.error == ErrorCode::Ok && next >= entry.committed_end))
    }

    /// Checks batches that were read from offset `next` on, each by `may_come` (its length) first. Answers where they end.
    pub(super) fn take_batches(
        &mut self,
        world: &mut World,
        uid: u64,
        mut next: u64,
        floor: Ends,
        batches: &[u8],
        mut may_come: impl FnMut(usize) -> Check,
    ) -> Result<u64, String> {
        for batch in Batches::new(batches) {
            let batch = batch.map_err(|e| format!("partition {uid} at {next}: {e}"))?;
            may_come(batch.len())?;
            batch.verify_header().and_then(|()| batch.verify_body()).map_err(|e| format!("partition {uid} at {next}: {e}"))?;
            if batch.next_offset() <= self.history.never_below(floor) {
                return Err(format!("partition {uid}: trimmed to {}, and a batch to {} came", floor.trimmed, batch.next_offset()));
            }
            if batch.base_offset() > next {
                return Err(format!("partition {uid}: offset {next} was due, a batch from {} came", batch.base_offset()));
            }
            let (mut known, mut read) = (self.history.records(uid), 0);
            for record in batch.records(batch.stored_values()) {
                let record = record.map_err(|e| format!("partition {uid} at {next}: {e}"))?;
                known.on_read(record.offset, record.value.unwrap_or_default())?;
                read += 1;
            }
            world.totals.add(Counted::RecordsRead, read);
            next = batch.next_offset();
        }
        Ok(next)
    }

    // --- for the end of a run ---------------------------------------------------------------------------------------------------

    /// Asks for a partition from `offset` on; `take_fetched` reads the answer.
    pub(super) fn begin_reading(&mut self, world: &mut World, uid: u64, offset: u64) {
        self.fetch_at(world, 0, uid, offset);
    }

    /// The answer to `begin_reading`: records by offset go into `found`. Answers where to go on, and whether that is the end.
    pub(super) fn take_fetched(&mut self, world: &mut World, bytes: &[u8], found: &mut BTreeMap<u64, u64>) -> Result<(u64, bool), String> {
        let Ok(Need::Whole(Frame { header, meta, payload }, _)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else {
            return Err("a frame that is none came from the node".to_owned());
        };
        let Some(Pending::Fetch { uid, offset, floor }) = self.list[0].pending.remove(&header.correlation) else {
            return Err("an answer to another request".to_owned());
        };
        if header.flags & FLAG_ERROR != 0 {
            if let Some(code) = ErrorBody::decode(meta).ok().and_then(|error| error.code()) {
                self.forget_if_lost(world, uid, code);
                if !self.uids.contains(&uid) {
                    return Ok((offset, true));
                }
            }
            return Err(format!("reading partition {uid} at {offset} is refused: {:?}", ErrorBody::decode(meta)));
        }
        let reply = FetchReply::decode(meta).map_err(|e| e.to_string())?;
        let (entry, batches) = reply.parts(payload).map_err(|e| e.to_string())?.next().ok_or("a fetch reply without entry")?;
        for batch in Batches::new(batches).flatten() {
            for record in batch.records(batch.stored_values()).flatten() {
                let id = record.value.and_then(|v| v.first_chunk::<8>().copied()).map_or(0, u64::from_le_bytes);
                found.insert(record.offset, id);
            }
        }
        self.on_fetched(world, 0, (uid, offset, floor), &entry, batches)
    }
}
