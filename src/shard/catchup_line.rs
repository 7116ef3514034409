//! One connection for snapshots, as the leader's shard that dials it sees it: whether it stands, what was sent on it and is not taken in.
//!
//! Invariants: a frame's number is taken when it is made; what an ack counts was sent; bytes sent and not taken in are within the window, or one piece more.
//!
//! Not here: what is sent (`catchup.rs`).

use super::catchup::Sending;
use super::pipelines::write;
use crate::bytes::Bytes;
use crate::effects::Effects;
use crate::ids::{ConnId, GroupId, PartitionUid, ReplicaId};
use crate::replication::SnapshotNote;
use std::collections::VecDeque;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{self, Kind, Numbers, PIECE_ITEM_BYTES_MAX, Piece, PieceBody};

/// Bytes sent and not taken in.
const WINDOW_BYTES: u64 = 8 << 20;
/// Dialing again: after 100 ms, doubling up to 5 s. A follower that has no room for a snapshot is not pressed.
const REDIAL_US_MIN: u64 = 100_000;
const REDIAL_US_MAX: u64 = 5_000_000;
/// A hello is answered within so long.
const GREETING_US: u64 = 3_000_000;

/// The connection.
#[derive(Debug)]
pub(super) enum Link {
    /// None: dial again at this time.
    Idle {
        /// In microseconds of the process.
        at_us: u64,
    },
    /// Asked for, under this number.
    Dialing {
        /// The number.
        dial: u64,
    },
    /// The hello is on its way.
    Greeting(ConnId, Numbers),
    /// It carries pieces.
    Live(ConnId, Numbers),
}

/// A peer's snapshots.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) to: ReplicaId,
    pub(super) link: Link,
    /// Those that wait.
    pub(super) queue: VecDeque<SnapshotNote>,
    pub(super) sending: Option<Sending>,
    /// When something came from there last.
    pub(super) heard_us: u64,
    backoff_us: u64,
    pieces: u64,
    acked: u64,
    bytes: u64,
    unacked: VecDeque<u64>,
    unacked_bytes: u64,
}

impl Line {
    pub(super) fn new(to: ReplicaId) -> Line {
        Line {
            to,
            link: Link::Idle { at_us: 0 },
            queue: VecDeque::new(),
            sending: None,
            heard_us: 0,
            backoff_us: REDIAL_US_MIN,
            pieces: 0,
            acked: 0,
            bytes: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
        }
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.link {
            Link::Greeting(conn, _) | Link::Live(conn, _) => Some(conn),
            Link::Idle { .. } | Link::Dialing { .. } => None,
        }
    }

    /// Whether nobody needs it.
    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_none() && self.queue.is_empty() && matches!(self.link, Link::Idle { .. })
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.link, Link::Live(..))
    }

    pub(super) fn wants_dial(&self, now_us: u64) -> bool {
        !self.queue.is_empty() && matches!(self.link, Link::Idle { at_us } if at_us <= now_us)
    }

    pub(super) fn next_deadline_us(&self) -> u64 {
        match self.link {
            Link::Idle { at_us } if !self.queue.is_empty() => at_us,
            Link::Greeting(..) => self.heard_us + GREETING_US,
            _ => u64::MAX,
        }
    }

    pub(super) fn on_dialed(&mut self, now_us: u64, dial: u64, conn: ConnId) -> bool {
        let is_ours = matches!(self.link, Link::Dialing { dial: ours } if ours == dial);
        if is_ours {
            self.heard_us = now_us;
            self.link = Link::Greeting(conn, Numbers::new());
        }
        is_ours
    }

    pub(super) fn on_dial_failed(&mut self, now_us: u64, dial: u64) {
        if matches!(self.link, Link::Dialing { dial: ours } if ours == dial) {
            self.drop_link(now_us);
        }
    }

    pub(super) fn on_greeted(&mut self) {
        if let Link::Greeting(conn, numbers) = self.link {
            self.link = Link::Live(conn, numbers);
        }
    }

    /// The connection is of no use any more.
    pub(super) fn drop_link(&mut self, now_us: u64) {
        self.link = Link::Idle { at_us: now_us + self.backoff_us };
        self.backoff_us = (self.backoff_us * 2).min(REDIAL_US_MAX);
    }

    /// The number of the next frame. Panics without a connection.
    pub(super) fn next_number(&mut self) -> u64 {
        self.conn_and_number().1
    }

    pub(super) fn conn_and_number(&mut self) -> (ConnId, u64) {
        match &mut self.link {
            Link::Greeting(conn, numbers) | Link::Live(conn, numbers) => (*conn, numbers.advance()),
            state => unreachable!("no connection to send on: {state:?}"),
        }
    }

    /// A snapshot begins.
    pub(super) fn begin(&mut self, now_us: u64, sending: Sending) {
        (self.pieces, self.acked, self.bytes, self.unacked_bytes) = (0, 0, 0, 0);
        self.unacked.clear();
        self.heard_us = now_us;
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
        self.backoff_us = REDIAL_US_MIN;
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
        let (conn, number) = self.conn_and_number();
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
        let (conn, number) = self.conn_and_number();
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
        let (conn, number) = self.conn_and_number();
        effects.send(conn, [], |out| {
            let start = node::begin(out, Kind::Piece, number);
            piece.encode(out);
            finish_frame(out, start, payload.len()).expect("an item is within the limits of a frame");
            out.extend_from_slice(payload);
        });
        self.note_sent(payload.len());
    }
}
