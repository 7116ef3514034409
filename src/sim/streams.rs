//! Clients that read streams: long ones, within credit, over many connections.
//!
//! Checked: what comes is in order and without a gap except where damage or a trim is told; no batch comes without credit; a stream ends when it was
//! cancelled or has nothing left to read, and not by itself; with credit, and once faults have stopped, it delivers all there is.
//!
//! Not here: the check of records (`reading.rs`, `history.rs`).

use super::Check;
use super::clients::{Clients, Pending};
use super::history::Ends;
use super::totals::Event as Counted;
use super::world::World;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::{FetchCancelRequest, FetchCreditRequest, FetchEntry, FetchMode, FetchReply, FetchRequestWriter, FetchResult};
use tramline_wire::frame::{FLAG_ERROR, FLAG_MORE, Frame};
use tramline_wire::kind::Kind;

/// Places of ended streams that a client remembers.
const RESUME_MAX: usize = 6;
/// Partitions in one of them.
const PARTS_MAX: u64 = 3;
/// Credit that is more than there is to read at a run's end.
const AMPLE: u32 = 16 << 20;

/// One partition in a stream.
#[derive(Debug)]
struct Part {
    uid: u64,
    /// The offset that is due.
    next: u64,
    floor: Ends,
    is_over: bool,
}

/// A stream as its client sees it.
#[derive(Debug)]
pub(super) struct Stream {
    parts: Vec<Part>,
    granted: u64,
    received: u64,
    /// Received and not given back.
    owed: u64,
    is_cancelled: bool,
}

impl Clients {
    /// Opens a stream, grants credit, or cancels one.
    pub(super) fn stream(&mut self, world: &mut World, at: usize, uid: u64) {
        let open = self.list[at].streams.len();
        let all: usize = self.list.iter().map(|client| client.streams.len()).sum();
        if (all as u64) < world.params.streams && (open == 0 || !self.list[at].to_resume.is_empty()) {
            return self.open_stream(world, at, Some(uid));
        }
        if open == 0 {
            return self.fetch(world, at, uid);
        }
        let stream = *self.list[at].streams.keys().nth(self.dice.below(open as u64) as usize).expect("counted");
        if self.dice.chance(5) {
            return self.cancel(world, at, stream);
        }
        let more = self.dice.below(64 << 10);
        self.grant(world, at, stream, more as u32);
    }

    /// Goes on where streams have ended. With `uid`: or begins one there, and where all partitions are one shard's, at some others.
    fn open_stream(&mut self, world: &mut World, at: usize, uid: Option<u64>) {
        let mut wanted: Vec<(u64, u64)> = Vec::new();
        let parts_max = if world.params.shards == 1 { PARTS_MAX } else { 1 };
        while (wanted.len() as u64) < parts_max
            && let Some(place) = self.list[at].to_resume.pop()
        {
            if self.uids.contains(&place.0) && !wanted.iter().any(|(uid, _)| *uid == place.0) {
                world.totals.note(Counted::StreamsResumed);
                wanted.push(place);
            }
        }
        if let Some(uid) = uid.filter(|_| wanted.is_empty()) {
            let cursor = self.list[at].cursors.get(&uid).copied().unwrap_or(0);
            wanted.push((uid, if self.dice.chance(50) { 0 } else { cursor }));
        }
        while uid.is_some() && (wanted.len() as u64) < self.dice.within(1..parts_max + 1) {
            let uid = self.uids[self.dice.below(self.uids.len() as u64) as usize];
            if wanted.iter().any(|(other, _)| *other == uid) {
                break;
            }
            wanted.push((uid, 0));
        }
        if wanted.is_empty() {
            return;
        }
        let credit = self.dice.within(1..128 << 10) as u32;
        let sent = self.send_unanswered(world, at, Kind::Fetch, &[], |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 0, 0, credit);
            wanted.iter().for_each(|(uid, offset)| {
                writer.push(out, &FetchEntry { partition_uid: *uid, offset: *offset, max_bytes: 32 << 10 });
            });
            writer.finish(out);
        });
        let Some(number) = sent else { return };
        world.totals.note(Counted::StreamsOpened);
        let part = |(uid, next): (u64, u64)| Part { uid, next, floor: self.history.ends(uid), is_over: false };
        let parts = wanted.into_iter().map(part).collect();
        self.list[at].streams.insert(number, Stream { parts, granted: u64::from(credit), received: 0, owed: 0, is_cancelled: false });
    }

    fn grant(&mut self, world: &mut World, at: usize, number: u64, more: u32) {
        let Some(stream) = self.list[at].streams.get_mut(&number) else { return };
        let credit_bytes = more + std::mem::take(&mut stream.owed) as u32;
        stream.granted += u64::from(credit_bytes);
        self.send_unanswered(world, at, Kind::FetchCredit, &[], |out| FetchCreditRequest { stream: number, credit_bytes }.encode(out));
    }

    fn cancel(&mut self, world: &mut World, at: usize, number: u64) {
        let Some(stream) = self.list[at].streams.get_mut(&number).filter(|stream| !stream.is_cancelled) else { return };
        stream.is_cancelled = true;
        world.totals.note(Counted::StreamsCancelled);
        self.send(world, at, Kind::FetchCancel, &[], Pending::Cancel, |out| FetchCancelRequest { stream: number }.encode(out));
    }

    /// The connection is gone, and its streams with it: each goes on from where it was.
    pub(super) fn end_streams(&mut self, at: usize) {
        let client = &mut self.list[at];
        for stream in std::mem::take(&mut client.streams).into_values() {
            client.to_resume.extend(stream.parts.iter().filter(|part| !part.is_over).map(|part| (part.uid, part.next)));
        }
        let surplus = client.to_resume.len().saturating_sub(RESUME_MAX);
        client.to_resume.drain(..surplus);
    }

    pub(super) fn on_streamed(&mut self, world: &mut World, at: usize, frame: &Frame<'_>) -> Check {
        let number = frame.header.correlation;
        let mut stream = self.list[at].streams.remove(&number).expect("looked at by the caller");
        if frame.header.flags & FLAG_ERROR != 0 {
            return self.on_stream_refused(at, stream, frame);
        }
        let reply = FetchReply::decode(frame.meta).map_err(|e| format!("an unreadable reply: {e}"))?;
        world.totals.note(Counted::StreamReplies);
        for (entry, batches) in reply.parts(frame.payload).map_err(|e| format!("an unreadable reply: {e}"))? {
            self.on_stream_entry(world, at, &mut stream, &entry, batches)?;
        }
        if frame.header.flags & FLAG_MORE != 0 {
            let gives_back = stream.owed > 0 && !stream.is_cancelled && self.dice.chance(70);
            self.list[at].streams.insert(number, stream);
            if gives_back {
                let more = self.dice.below(32 << 10);
                self.grant(world, at, number, more as u32);
            }
            return Ok(());
        }
        if !stream.is_cancelled && stream.parts.iter().any(|part| !part.is_over) {
            return Err(format!("nobody cancelled it, and it has ended: {stream:?}"));
        }
        Ok(())
    }

    fn on_stream_refused(&mut self, at: usize, stream: Stream, frame: &Frame<'_>) -> Check {
        let error = ErrorBody::decode(frame.meta).map_err(|e| format!("an unreadable error: {e}"))?;
        let code = error.code().ok_or_else(|| "an error without a known code".to_owned())?;
        let is_gone = matches!(code, ErrorCode::TopicDeleted | ErrorCode::UnknownPartition);
        let some_unknown = stream.parts.iter().any(|part| !self.uids.contains(&part.uid));
        let fits = code.retriable() || code == ErrorCode::StorageFailed || is_gone && some_unknown;
        if !fits {
            return Err(format!("a stream is refused: {code:?}: {}: {stream:?}", error.message));
        }
        self.list[at].to_resume.extend(stream.parts.iter().map(|part| (part.uid, part.next)));
        Ok(())
    }

    fn on_stream_entry(&mut self, world: &mut World, at: usize, stream: &mut Stream, entry: &FetchResult, batches: &[u8]) -> Check {
        let uid = entry.partition_uid;
        let Some(part) = stream.parts.iter_mut().find(|part| part.uid == uid) else {
            return Err(format!("a stream that did not ask for partition {uid} tells of it"));
        };
        if part.is_over {
            return Err(format!("partition {uid} is over in this stream, and more comes"));
        }
        self.forget_if_lost(world, uid, entry.error);
        let is_known = self.uids.contains(&uid);
        let go_on = match entry.error {
            ErrorCode::Ok => None,
            ErrorCode::OffsetOutOfRange => Some(entry.next_offset),
            ErrorCode::Damaged => {
                world.totals.note(Counted::DamageTold);
                self.history.on_damaged(uid, part.next, entry.next_offset)?;
                Some(entry.next_offset)
            }
            ErrorCode::TopicDeleted | ErrorCode::UnknownPartition if !is_known => Some(part.next),
            code if code.retriable() || code == ErrorCode::StorageFailed => Some(part.next),
            code => return Err(format!("stream of partition {uid} at {}: {code:?}", part.next)),
        };
        if matches!(entry.error, ErrorCode::Ok | ErrorCode::OffsetOutOfRange) {
            self.history.on_ends(uid, part.floor, Ends { start: entry.log_start, committed: entry.committed_end, trimmed: 0 })?;
            part.floor.committed = part.floor.committed.max(entry.committed_end);
        }
        let (granted, received, owed) = (stream.granted, &mut stream.received, &mut stream.owed);
        part.next = self.take_batches(world, uid, part.next, part.floor, batches, |len| {
            if *received >= granted {
                return Err(format!("partition {uid}: a batch comes without credit: {granted} granted, {received} received before"));
            }
            *received += len as u64;
            *owed += len as u64;
            Ok(())
        })?;
        if let Some(next) = go_on {
            part.is_over = true;
            self.list[at].to_resume.push((uid, next));
        }
        Ok(())
    }

    // --- for the end of a run ---------------------------------------------------------------------------------------------------

    /// Opens again what has ended, and grants more than there is to read.
    pub(super) fn feed_streams(&mut self, world: &mut World) {
        for at in 0..self.list.len() {
            while self.list[at].hello_done && self.list[at].to_resume.iter().any(|(uid, _)| self.uids.contains(uid)) {
                self.open_stream(world, at, None);
            }
            for number in self.list[at].streams.keys().copied().collect::<Vec<_>>() {
                self.grant(world, at, number, AMPLE);
            }
        }
    }

    /// A stream that has not delivered what is known to be there.
    pub(super) fn stream_behind(&self) -> Option<String> {
        let behind = |part: &&Part| !part.is_over && self.uids.contains(&part.uid) && part.next < self.history.known_end(part.uid);
        let mut streams = self.list.iter().flat_map(|client| &client.streams);
        let late = streams.find(|(_, stream)| !stream.is_cancelled && stream.parts.iter().any(|part| behind(&part)));
        let resumes = |client: &&super::clients::Client| client.to_resume.iter().any(|(uid, _)| self.uids.contains(uid));
        let late = late.map(|(number, stream)| format!("{number} {stream:?}"));
        late.or_else(|| self.list.iter().find(resumes).map(|client| format!("ended at {:?}", client.to_resume)))
    }

    /// Ends all of them. True when none was left.
    pub(super) fn cancel_streams(&mut self, world: &mut World) -> bool {
        for at in 0..self.list.len() {
            for number in self.list[at].streams.keys().copied().collect::<Vec<_>>() {
                self.cancel(world, at, number);
            }
        }
        self.list.iter().all(|client| client.streams.is_empty())
    }
}
