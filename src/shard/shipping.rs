//! What goes out to other nodes at the end of a turn: votes, entries out of their blocks, beats, and how far this follower is.
//!
//! Invariants: bytes of entries are never copied, but for control payloads, which get their lengths; a frame has a mebibyte of entries, or one entry; blocks that are
//! not in the tail cache are read back, one at a time for each peer: one that is far behind keeps no other one waiting.
//!
//! Not here: connections, and what comes in (`pipelines.rs`); what a frame says (replication/wire_raft.rs).

use super::pipelines::write;
use super::shard::Shard;
use crate::bytes::Bytes;
use crate::effects::{Effects, Now};
use crate::ids::{BlockSeq, GroupId, LogIndex, Term};
use crate::log::layout::BlockView;
use crate::log::{BACKGROUND_OWNER, EntryKind, ReadError, ReadRefused};
use crate::mutants::Mutant;
use crate::replication::{Accepted, EntryPlaces, FollowerMarks, GroupPosition, Holds, Outgoing, ShareNote, Word, wire_raft};
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{
    self, Ack, AckFlags, AckGroup, AppendWriter, Beat, EntryHead, ItemsSum, Kind, ShareBase, ShareFlags, TimeoutNow,
};
use tramline_wire::prim::List;

/// Whom the log's reads belong to when they are for a follower that is behind.
pub(super) const PEERS: u64 = BACKGROUND_OWNER + 3;
/// Bytes of entries in one frame, or one entry: a vote of another group waits no longer than that.
const FRAME_BYTES: u64 = 1 << 20;
/// Shares and entries in one frame: a row has at most 44 bytes, and the meta of a frame a mebibyte.
const FRAME_ROWS: usize = 8192;

/// A block that was read back: for a follower that is behind, or to be taken in.
#[derive(Debug, Default)]
pub(super) enum BlockRead {
    #[default]
    None,
    /// (ticket, block)
    UnderWay(u64, BlockSeq),
    Here(BlockSeq, Bytes),
    Failed(BlockSeq),
}

impl BlockRead {
    /// Whether this is the read that is under way.
    pub(super) fn is_of(&self, ticket: u64) -> bool {
        matches!(*self, BlockRead::UnderWay(asked, _) if asked == ticket)
    }

    /// The read has ended.
    pub(super) fn on_read(&mut self, shard: u16, bytes: Result<Bytes, ReadError>) {
        let BlockRead::UnderWay(_, block) = *self else { return };
        *self = match bytes {
            Ok(bytes) if BlockView::parse(bytes.as_slice()).is_some_and(|view| view.header.block_seq == block) => {
                BlockRead::Here(block, bytes)
            }
            Ok(_) => {
                tracing::error!(shard, block = block.0, "a block of the log that is read back is damaged");
                BlockRead::Failed(block)
            }
            Err(error) => {
                tracing::error!(shard, block = block.0, "a block of the log cannot be read back: {error:?}");
                BlockRead::Failed(block)
            }
        };
    }
}

/// What a share says besides its entries.
fn flags_of(word: Word) -> ShareFlags {
    let mut flags = ShareFlags::default();
    if word.lost {
        flags = flags.with(ShareFlags::YOU_LOST);
    }
    if word.proven {
        flags = flags.with(ShareFlags::PROVEN);
    }
    flags
}

/// A block that is asked for.
pub(super) enum BlockFor {
    Here(Bytes),
    /// It is open, or on its way from the disk.
    Later,
    /// It cannot be read, or not this way.
    Never,
}

impl Shard {
    /// Sends what there is to say: at the end of a turn, once its block is closed, and in front of anything that waits for the disk.
    pub(super) fn talk_to_peers(&mut self, now: Now, effects: &mut Effects) {
        self.take_messages(effects);
        for at in 0..self.pipelines.peers.len() {
            while self.send_shares(now, at, effects) {}
            let peer = &self.pipelines.peers[at];
            if peer.live().is_none() || peer.shares.is_empty() {
                // Who wants nothing holds no memory. A read that is under way ends for nobody.
                self.pipelines.reads.remove(&peer.replica);
            }
            self.send_beat(now, at, effects);
            self.send_ack(at, effects);
        }
    }

    /// Votes and what belongs to them leave at once; entries, beats and rejections wait for the frame that they share.
    fn take_messages(&mut self, effects: &mut Effects) {
        let (peers, catchups) = (&mut self.pipelines.peers, &mut self.catchups);
        self.groups.take_messages(|group, message| {
            let Some(peer) = peers.iter_mut().find(|peer| peer.replica.0 == message.to) else { return };
            match wire_raft::outgoing(group, &message) {
                Outgoing::Share(note) => peer.push_share(note),
                Outgoing::Beat(row) => peer.beats.push(row),
                Outgoing::Vote(row) if peer.live().is_some() => {
                    let (conn, number) = peer.next_number();
                    effects.send(conn, [], |out| write(out, Kind::Vote, number, |out| row.encode(out)));
                }
                Outgoing::TimeoutNow(term) if peer.live().is_some() => {
                    let (row, (conn, number)) = (TimeoutNow { group: group.0, term: term.0 }, peer.next_number());
                    effects.send(conn, [], |out| write(out, Kind::TimeoutNow, number, |out| row.encode(out)));
                }
                Outgoing::VoteReply(row) => {
                    if let Some(Accepted { conn, numbers, .. }) = &mut peer.accepted {
                        effects.send(*conn, [], |out| write(out, Kind::VoteReply, numbers.advance(), |out| row.encode(out)));
                    }
                }
                Outgoing::Snapshot(note) => catchups.want(peer.replica, note),
                Outgoing::Rejection(row) => peer.accepted.iter_mut().for_each(|accepted| accepted.rejections.push(row)),
                // Nobody hears it: whoever stands, stands again.
                Outgoing::Vote(_) | Outgoing::TimeoutNow(_) | Outgoing::Nothing => {}
            }
        });
    }

    fn send_beat(&mut self, now: Now, at: usize, effects: &mut Effects) {
        let peer = &mut self.pipelines.peers[at];
        if peer.beats.is_empty() || peer.live().is_none() {
            return peer.beats.clear();
        }
        let rows = std::mem::take(&mut peer.beats);
        let beat = Beat { beat: peer.next_tick_beat(now.mono_us), groups: List::of(&rows) };
        let (conn, number) = peer.next_number();
        effects.send(conn, [], |out| write(out, Kind::Beat, number, |out| beat.encode(out)));
    }

    /// Sends one frame of the entries that are queued for a peer. False when there is none to send now.
    fn send_shares(&mut self, now: Now, at: usize, effects: &mut Effects) -> bool {
        if self.pipelines.peers[at].live().is_none() || !self.pipelines.peers[at].has_window() {
            return false;
        }
        let (mut heads, mut parts) = (std::mem::take(&mut self.pipelines.heads), std::mem::take(&mut self.pipelines.parts));
        let mut shares: Vec<(ShareNote, usize)> = Vec::new();
        let mut bytes = 0u64;
        while let Some(note) = self.pipelines.peers[at].shares.front().copied()
            && bytes < FRAME_BYTES
            && heads.len() + shares.len() < FRAME_ROWS
        {
            if self.groups.led_in(note.group) != Some(note.term) {
                // Of a term that is over.
                self.pipelines.peers[at].shares.pop_front();
                continue;
            }
            let places = match self.groups.entry_places(note.group, note.previous, note.count) {
                EntryPlaces::Known(places) => places,
                EntryPlaces::NotYet => break,
                // The log was cut since: the follower is asked again what it has.
                EntryPlaces::Gone => {
                    self.pipelines.peers[at].shares.pop_front();
                    continue;
                }
            };
            let (before, mut never, mut is_open) = (heads.len(), false, false);
            for (index, term, holds, block) in &places {
                let found = match self.block_for_peer(now, at, (note.group, *index, *term), *block, effects) {
                    BlockFor::Here(found) => found,
                    BlockFor::Later => break,
                    BlockFor::Never => {
                        never = heads.len() == before;
                        is_open = *index > self.groups.committed_of(note.group);
                        break;
                    }
                };
                let is_foreign = self.log.mutants().has(Mutant::ForeignHandle) && self.log.cached_block(*block).is_none();
                let index = if is_foreign { &LogIndex(index.0 - 1) } else { index };
                let Some(head) = self.gather_entry(note.group, (*index, *term), *holds, &found, &mut parts) else { break };
                bytes += head.payload_bytes();
                heads.push(head);
                if bytes >= FRAME_BYTES || heads.len() + shares.len() >= FRAME_ROWS {
                    break;
                }
            }
            let gathered = heads.len() - before;
            if never {
                // The others go on; the follower is asked again with the next beat.
                self.pipelines.peers[at].shares.pop_front();
                if is_open {
                    self.stand_back(now, note.group, effects);
                }
                continue;
            }
            if gathered == 0 && note.count > 0 {
                break;
            }
            shares.push((note, gathered));
            let shares = &mut self.pipelines.peers[at].shares;
            if gathered == note.count {
                shares.pop_front();
                continue;
            }
            let (index, term, ..) = places[gathered - 1];
            shares[0] = ShareNote { previous: GroupPosition { index, term }, count: note.count - gathered, ..note };
            break;
        }
        let sends = !shares.is_empty();
        if sends {
            let (peer, groups) = (&mut self.pipelines.peers[at], &self.groups);
            let to = peer.replica;
            let beat = peer.next_beat(now.mono_us, bytes);
            let (conn, number) = peer.next_number();
            effects.send(conn, parts.drain(..), |out| {
                let start = node::begin(out, Kind::Append, number);
                let mut writer = AppendWriter::begin(out, beat);
                let mut rest = heads.as_slice();
                for (note, count) in &shares {
                    let (group, term) = (note.group.0, note.term.0);
                    let (prev_index, prev_term, commit) = (note.previous.index.0, note.previous.term.0, note.commit.0);
                    let flags = flags_of(groups.word_for(note.group, to, note.previous.index));
                    writer.share(out, &ShareBase { group, flags, term, prev_index, prev_term, commit });
                    let (own, behind) = rest.split_at(*count);
                    own.iter().for_each(|head| writer.entry(out, head));
                    rest = behind;
                }
                let payload = writer.finish(out);
                finish_frame(out, start, payload).expect("a frame of shares is within the limits");
            });
        }
        heads.clear();
        parts.clear();
        (self.pipelines.heads, self.pipelines.parts) = (heads, parts);
        sends
    }

    /// The closed block of an entry: out of the tail cache, or off the disk, one at a time of each `owner`, and then only where the entry checks.
    pub(super) fn closed_block(
        &mut self,
        now: Now,
        read: &mut BlockRead,
        owner: u64,
        entry: (GroupId, LogIndex, Term),
        block: BlockSeq,
        effects: &mut Effects,
    ) -> BlockFor {
        if block >= self.log.open_block_seq() {
            return BlockFor::Later;
        }
        if let Some(cached) = self.log.cached_block(block) {
            return BlockFor::Here(cached.clone());
        }
        match read {
            BlockRead::Here(found, bytes) if *found == block => {
                if !self.is_rotten(entry, block, bytes.as_slice(), owner == PEERS) {
                    return BlockFor::Here(bytes.clone());
                }
                // The disk is asked again when somebody asks again.
                *read = BlockRead::None;
                return BlockFor::Never;
            }
            BlockRead::Failed(found) if *found == block => {
                *read = BlockRead::None;
                return BlockFor::Never;
            }
            BlockRead::UnderWay(..) => return BlockFor::Later,
            BlockRead::Here(..) | BlockRead::Failed(_) | BlockRead::None => {}
        }
        // One of a sealed segment: a snapshot's to bring.
        let Some(place) = self.log.block_place(block) else { return BlockFor::Never };
        match self.log.begin_read(&mut self.slab, effects, owner, place.segment, place.pos, place.len) {
            Ok(ticket) => *read = BlockRead::UnderWay(ticket, block),
            // Tried again with the next turn, or when a read or a send may have given memory back: at once would be a turn of the loop for nothing, and another.
            Err(ReadRefused::Full) => effects.wake_at(now.mono_us + 1000),
            Err(refused) => {
                tracing::error!(shard = self.id.0, block = block.0, "a block of the log cannot be read back: {refused:?}");
                return BlockFor::Never;
            }
        }
        BlockFor::Later
    }

    fn block_for_peer(
        &mut self,
        now: Now,
        at: usize,
        entry: (GroupId, LogIndex, Term),
        block: BlockSeq,
        effects: &mut Effects,
    ) -> BlockFor {
        let replica = self.pipelines.peers[at].replica;
        let mut read = self.pipelines.reads.remove(&replica).unwrap_or_default();
        let found = self.closed_block(now, &mut read, PEERS, entry, block, effects);
        // What is in the tail cache is all that most peers ever ask for: then there is nothing to hold.
        if !matches!(read, BlockRead::None) {
            self.pipelines.reads.insert(replica, read);
        }
        found
    }

    /// A block that a follower needs, or one that has to be taken in, has been read.
    pub(super) fn on_block_read(&mut self, owner: u64, ticket: u64, bytes: Result<Bytes, ReadError>, effects: &mut Effects) {
        let read = match owner {
            PEERS => self.pipelines.reads.values_mut().find(|read| read.is_of(ticket)),
            _ => Some(&mut self.applying.rebuild.read).filter(|read| read.is_of(ticket)),
        };
        // None where the peer has gone meanwhile.
        if let Some(read) = read {
            read.on_read(self.id.0, bytes);
        }
        effects.wake_at(0);
    }

    /// One entry's bytes; `None` when memory for its control payloads is short.
    fn gather_entry(
        &mut self,
        group: GroupId,
        (index, term): (LogIndex, Term),
        holds: Holds,
        block: &Bytes,
        parts: &mut Vec<Bytes>,
    ) -> Option<EntryHead> {
        let view = BlockView::parse(block.as_slice()).expect("a block of the tail cache, or one that was checked when it was read");
        let (mut data_bytes, mut sum, mut control) = (0u32, ItemsSum::new(), Vec::new());
        let before = parts.len();
        for row in view.rows_of(group, index, term) {
            for fragment in view.fragments_of(&row) {
                if row.kind == EntryKind::Data {
                    data_bytes += fragment.length;
                    parts.push(block.slice(fragment.offset as usize..(fragment.offset + fragment.length) as usize));
                } else if fragment.length > 0 {
                    let payload = view.content(&fragment);
                    control.extend_from_slice(&sum.add(payload));
                    control.extend_from_slice(payload);
                }
            }
        }
        if !control.is_empty() {
            let Some(mut buffer) = self.slab.take(control.len()) else {
                parts.truncate(before);
                return None;
            };
            buffer.set_len(control.len());
            buffer.as_mut_slice().copy_from_slice(&control);
            parts.push(self.slab.freeze(buffer));
        }
        Some(match holds {
            Holds::Share => EntryHead::block(term.0, data_bytes, &sum),
            Holds::Own | Holds::Change => EntryHead::raft(term.0, &sum),
        })
    }

    /// How far this follower is, to a peer that has dialed this shard.
    fn send_ack(&mut self, at: usize, effects: &mut Effects) {
        let replica = self.pipelines.peers[at].replica;
        let Some(accepted) = &mut self.pipelines.peers[at].accepted else { return };
        let mut rows = std::mem::take(&mut accepted.rejections);
        self.groups.take_acks(replica, &mut accepted.asked, |group, marks| {
            let FollowerMarks { term, received, durable, committed, is_suspect } = marks;
            rows.push(AckGroup {
                group: group.0,
                flags: if is_suspect { AckFlags::SUSPECT } else { AckFlags::default() },
                term: term.0,
                received: received.0,
                durable: durable.0,
                applied: committed.0,
                rejected: 0,
                hint_index: 0,
                hint_term: 0,
            });
        });
        if rows.is_empty() && accepted.beat == accepted.beat_told {
            return;
        }
        accepted.beat_told = accepted.beat;
        let ack = Ack { beat: accepted.beat, groups: List::of(&rows) };
        let number = accepted.numbers.advance();
        effects.send(accepted.conn, [], |out| write(out, Kind::Ack, number, |out| ack.encode(out)));
    }
}
