//! One connection for snapshots, as the leader's shard that dials it sees it: what was sent on it and is not taken in.
//!
//! Invariants: what an ack counts was sent; bytes sent and not taken in are within the window, or one piece more.
//!
//! Not here: what is sent (`catchup.rs`), the connection itself (`outward.rs`).

use super::catchup::Sending;
use super::outward::Outward;
use super::pipelines::write;
use crate::bytes::Bytes;
use crate::effects::Effects;
use crate::ids::{ConnId, GroupId, PartitionUid, ReplicaId};
use crate::replication::SnapshotNote;
use std::collections::VecDeque;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{self, Class, Kind, PIECE_ITEM_BYTES_MAX, Piece, PieceBody};

/// Bytes sent and not taken in.
const WINDOW_BYTES: u64 = 8 << 20;

/// A peer's snapshots.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) outward: Outward,
    /// Those that wait.
    pub(super) queue: VecDeque<SnapshotNote>,
    pub(super) sending: Option<Sending>,
    pieces: u64,
    acked: u64,
    bytes: u64,
    unacked: VecDeque<u64>,
    unacked_bytes: u64,
}

impl Line {
    pub(super) fn new(to: ReplicaId) -> Line {
        Line {
            outward: Outward::new(to, Class::CatchUp),
            queue: VecDeque::new(),
            sending: None,
            pieces: 0,
            acked: 0,
            bytes: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
        }
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        self.outward.conn()
    }

    /// Whether nobody needs it.
    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_none() && self.queue.is_empty() && self.outward.is_idle()
    }

    /// A snapshot begins.
    pub(super) fn begin(&mut self, now_us: u64, sending: Sending) {
        (self.pieces, self.acked, self.bytes, self.unacked_bytes) = (0, 0, 0, 0);
        self.unacked.clear();
        self.outward.heard_us = now_us;
        self.sending = Some(sending);
    }

    pub(super) fn has_window(&self) -> bool {
        self.unacked_bytes < WINDOW_BYTES
    }

    pub(super) fn is_all_acked(&self) -> bool {
        self.unacked.is_empty()
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.bytes
    }

    /// So many pieces are taken in. False where they were not sent.
    pub(super) fn on_ack(&mut self, pieces: u64) -> bool {
        if pieces > self.pieces {
            return false;
        }
        self.outward.on_served();
        while self.acked < pieces {
            self.unacked_bytes -= self.unacked.pop_front().expect("one per piece");
            self.acked += 1;
        }
        true
    }

    fn note_sent(&mut self, bytes: usize) {
        self.pieces += 1;
        self.bytes += bytes as u64;
        self.unacked.push_back(bytes as u64);
        self.unacked_bytes += bytes as u64;
    }

    /// A piece without a payload.
    pub(super) fn send_piece(&mut self, group: GroupId, uid: PartitionUid, body: PieceBody<'_>, effects: &mut Effects) {
        let piece = Piece { group: group.0, uid: uid.0, body };
        let (conn, number) = self.outward.conn_and_number();
        effects.send(conn, [], |out| write(out, Kind::Piece, number, |out| piece.encode(out)));
        self.note_sent(0);
    }

    pub(super) fn send_end(&mut self, group: GroupId, effects: &mut Effects) {
        let body = PieceBody::End { pieces: self.pieces + 1, bytes: self.bytes };
        self.send_piece(group, PartitionUid(0), body, effects);
    }

    pub(super) fn send_batches(&mut self, group: GroupId, uid: PartitionUid, parts: Vec<Bytes>, effects: &mut Effects) {
        let bytes = parts.iter().map(Bytes::len).sum();
        let piece = Piece { group: group.0, uid: uid.0, body: PieceBody::Batches };
        let (conn, number) = self.outward.conn_and_number();
        effects.send(conn, parts, |out| {
            let start = node::begin(out, Kind::Piece, number);
            piece.encode(out);
            finish_frame(out, start, bytes).expect("a mebibyte, or one batch, is within the limits");
        });
        self.note_sent(bytes);
    }

    /// As many pieces as these items need; answers their bytes.
    pub(super) fn send_items(
        &mut self,
        group: GroupId,
        items: &[Vec<u8>],
        body: impl Fn(u32) -> PieceBody<'static>,
        effects: &mut Effects,
    ) -> u64 {
        let before = self.bytes;
        let mut payload = Vec::new();
        for item in items.iter().filter(|item| !item.is_empty()) {
            if !payload.is_empty() && payload.len() + 4 + item.len() > PIECE_ITEM_BYTES_MAX as usize {
                self.send_payload(group, &payload, &body, effects);
                payload.clear();
            }
            payload.extend_from_slice(&(item.len() as u32).to_le_bytes());
            payload.extend_from_slice(item);
        }
        if !payload.is_empty() {
            self.send_payload(group, &payload, &body, effects);
        }
        self.bytes - before
    }

    pub(super) fn send_payload(&mut self, group: GroupId, payload: &[u8], body: impl Fn(u32) -> PieceBody<'static>, effects: &mut Effects) {
        let piece = Piece { group: group.0, uid: 0, body: body(crc32c::crc32c(payload)) };
        let (conn, number) = self.outward.conn_and_number();
        effects.send(conn, [], |out| {
            let start = node::begin(out, Kind::Piece, number);
            piece.encode(out);
            finish_frame(out, start, payload.len()).expect("an item is within the limits of a frame");
            out.extend_from_slice(payload);
        });
        self.note_sent(payload.len());
    }
}
