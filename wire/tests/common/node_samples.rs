//! One sample of every body between nodes, with its payload. Golden vectors are made of them, so a change here is a change of `vectors/`: samples
//! of released versions stay as they are.

use super::node_mend;
use super::samples::{self, NOW_US};
use std::fmt::Debug;
use tramline_wire::batch::{LeaderStamp, stamp_leader};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::node::*;
use tramline_wire::prim::{DecodeError, List};

/// The partition that the batches are of.
pub const UID: u64 = 0x0102_0304_0506_0708;
const CLUSTER: [u8; 16] = *b"0123456789abcdef";

/// A body as its encoder made it, its payload, and the check that decoding gives the value back.
pub struct NodeSample {
    pub name: &'static str,
    pub kind: Kind,
    pub meta: Vec<u8>,
    pub payload: Vec<u8>,
    pub check: samples::Check,
}

impl NodeSample {
    /// The sample as the first frame of a connection.
    pub fn frame(&self) -> Vec<u8> {
        node_mend::frame(self.kind, &self.meta, &self.payload)
    }
}

fn same<T: PartialEq + Debug>(decoded: Result<T, DecodeError>, value: T) {
    assert_eq!(decoded.expect("a sample decodes"), value);
}

macro_rules! push {
    ($samples:ident, $name:literal, $kind:ident, $payload:expr, $type:ident $fields:tt) => {{
        // The value is made once more where it is compared: it may borrow from what was made for it.
        let payload: Vec<u8> = $payload;
        let mut meta = Vec::new();
        ($type $fields).encode(&mut meta);
        let check = Box::new(move |meta: &[u8]| same($type::decode(meta), $type $fields));
        $samples.push(NodeSample { name: $name, kind: Kind::$kind, meta, payload, check });
    }};
}

/// A stamped batch.
pub fn batch(which: usize, partition_uid: u64, base_offset: u64, term: u64) -> Vec<u8> {
    let mut bytes = samples::batches()[which].1.clone();
    stamp_leader(&mut bytes, &LeaderStamp { partition_uid, base_offset, term, append_time_us: NOW_US + 5 });
    bytes
}

/// Items, each behind its length, and their sum.
pub fn items(payloads: &[&[u8]]) -> (Vec<u8>, ItemsSum) {
    let (mut bytes, mut sum) = (Vec::new(), ItemsSum::new());
    for payload in payloads {
        bytes.extend_from_slice(&sum.add(payload));
        bytes.extend_from_slice(payload);
    }
    (bytes, sum)
}

/// The bytes of a change of voters.
pub fn change() -> Vec<u8> {
    let mut bytes = Vec::new();
    Change { action: ChangeAction::Promote, replica: 1 << 32 | 3, move_id: 12 }.encode(&mut bytes);
    bytes
}

/// The heads and bytes of an Append's entries: (term, batches, control payloads or what is raft's own).
pub struct Entries {
    pub heads: Vec<EntryHead>,
    pub payload: Vec<u8>,
}

/// Entries 17 to 20 of group 3 in terms 6 to 7: raft's empty one, data and control, control only, and a change of voters.
pub fn entries() -> Entries {
    let mut entries = Entries { heads: Vec::new(), payload: Vec::new() };
    entries.heads.push(EntryHead::raft(6, &ItemsSum::new()));
    let data = [batch(0, UID, 1000, 7), batch(1, 9, 5, 7)].concat();
    let (control, sum) = items(&[b"a trim", b"two offsets"]);
    entries.heads.push(EntryHead::block(7, data.len() as u32, &sum));
    entries.payload.extend_from_slice(&data);
    entries.payload.extend_from_slice(&control);
    let (control, sum) = items(&[b"members"]);
    entries.heads.push(EntryHead::block(7, 0, &sum));
    entries.payload.extend_from_slice(&control);
    let (control, sum) = items(&[&change()]);
    entries.heads.push(EntryHead::raft(7, &sum));
    entries.payload.extend_from_slice(&control);
    entries
}

/// Where those entries belong.
pub const BASE: ShareBase = ShareBase { group: 3, flags: ShareFlags(0), term: 7, prev_index: 16, prev_term: 6, commit: 15 };
/// A share without entries, of a new group.
pub const BASE_NEW: ShareBase = ShareBase { group: 4, flags: ShareFlags::YOU_LOST, term: 1, prev_index: 0, prev_term: 0, commit: 0 };

const LOST: &[LostRange] = &[LostRange { first: 10, end: 20 }, LostRange { first: 500, end: 501 }];

/// All samples.
pub fn all() -> Vec<NodeSample> {
    let mut samples = Vec::new();
    hellos(&mut samples);
    entries_and_acks(&mut samples);
    votes(&mut samples);
    snapshots(&mut samples);
    repairs(&mut samples);
    calls(&mut samples);
    samples
}

fn hellos(samples: &mut Vec<NodeSample>) {
    push!(
        samples,
        "node_hello",
        Hello,
        Vec::new(),
        Hello {
            class: Class::Live,
            cluster_id: CLUSTER,
            boot: 0x1122_3344_5566_7788,
            from_node: 1,
            from_generation: 0,
            to_node: 2,
            to_generation: 1,
            from_shard: 3,
            to_shard: 3,
            feature_min: 1,
            feature_max: 4,
            feature_level: 2,
            view_epoch: 77,
            groups: List::of(&[GroupTerm { group: 3, term: 7 }, GroupTerm { group: 8, term: 1 }]),
        }
    );
    push!(
        samples,
        "node_hello_join",
        Hello,
        Vec::new(),
        Hello {
            class: Class::Calls,
            cluster_id: CLUSTER_NONE,
            boot: 1,
            from_node: 4,
            from_generation: 0,
            to_node: NODE_ANY,
            to_generation: 0,
            from_shard: 0,
            to_shard: 0,
            feature_min: 1,
            feature_max: 1,
            feature_level: 0,
            view_epoch: 0,
            groups: List::of(&[]),
        }
    );
    push!(
        samples,
        "node_hello_reply",
        HelloReply,
        Vec::new(),
        HelloReply {
            boot: 0x8877_6655_4433_2211,
            feature: 2,
            window: 8 << 20,
            groups: List::of(&[
                ReplicaState { group: 3, flags: ReplicaFlags::SUSPECT, term: 7, last_index: 16, last_term: 6, persisted: 15 },
                ReplicaState { group: 8, flags: ReplicaFlags::UNKNOWN, term: 0, last_index: 0, last_term: 0, persisted: 0 },
            ]),
        }
    );
    push!(
        samples,
        "node_refused",
        Refused,
        Vec::new(),
        Refused { code: Refusal::UnknownPair.as_u16(), retriable: true, message: "node 4 is not known here yet: try again" }
    );
}

fn entries_and_acks(samples: &mut Vec<NodeSample>) {
    push!(
        samples,
        "node_append",
        Append,
        entries().payload,
        Append {
            beat: 9,
            groups: List::of(&[
                Share { base: BASE_NEW, entries: List::of(&[]) },
                Share { base: BASE, entries: List::of(&entries().heads) },
            ]),
        }
    );
    push!(samples, "node_append_nothing", Append, Vec::new(), Append { beat: 0, groups: List::of(&[]) });
    push!(
        samples,
        "node_ack",
        Ack,
        Vec::new(),
        Ack {
            beat: 9,
            groups: List::of(&[
                AckGroup {
                    group: 3,
                    flags: AckFlags(0),
                    term: 7,
                    received: 20,
                    durable: 16,
                    applied: 15,
                    rejected: 0,
                    hint_index: 0,
                    hint_term: 0,
                },
                AckGroup {
                    group: 4,
                    flags: AckFlags::REJECTED.with(AckFlags::SUSPECT),
                    term: 2,
                    received: 0,
                    durable: 0,
                    applied: 0,
                    rejected: 5,
                    hint_index: 4,
                    hint_term: 1,
                },
            ]),
        }
    );
    push!(
        samples,
        "node_beat",
        Beat,
        Vec::new(),
        Beat { beat: 10, groups: List::of(&[BeatGroup { group: 3, term: 7, commit: 16 }, BeatGroup { group: 4, term: 2, commit: 0 }]) }
    );
}

fn votes(samples: &mut Vec<NodeSample>) {
    push!(
        samples,
        "node_vote",
        Vote,
        Vec::new(),
        Vote { group: 3, flags: VoteFlags::TRANSFER, term: 8, last_index: 20, last_term: 7, commit: 16, commit_term: 6 }
    );
    push!(
        samples,
        "node_vote_reply",
        VoteReply,
        Vec::new(),
        VoteReply { group: 3, flags: VoteReplyFlags::REFUSED.with(VoteReplyFlags::PRE_VOTE), term: 9, commit: 16, commit_term: 6 }
    );
    push!(samples, "node_timeout_now", TimeoutNow, Vec::new(), TimeoutNow { group: 3, term: 7 });
}

fn snapshots(samples: &mut Vec<NodeSample>) {
    let two = || [batch(0, UID, 1000, 7), batch(1, UID, 1001, 9)].concat();
    push!(
        samples,
        "node_catch_up",
        CatchUp,
        Vec::new(),
        CatchUp {
            group: 3,
            index: 16,
            term: 6,
            conf_index: 2,
            voters: List::of(&[1, 2, 1 << 32 | 3]),
            learners: List::of(&[4]),
            view_epoch: 77,
        }
    );
    push!(
        samples,
        "node_catch_up_reply",
        CatchUpReply,
        Vec::new(),
        CatchUpReply { group: 3, have: List::of(&[HavePartition { uid: UID, next_offset: 1000 }]) }
    );
    push!(
        samples,
        "node_piece_partition",
        Piece,
        Vec::new(),
        Piece {
            group: 3,
            uid: UID,
            body: PieceBody::Partition { topic: 42, log_start: 10, next_offset: 2000, newest_us: NOW_US, lost: List::of(LOST) },
        }
    );
    push!(samples, "node_piece_batches", Piece, two(), Piece { group: 3, uid: UID, body: PieceBody::Batches });
    let payload = || items(&[b"a producer", b"another"]).0;
    push!(
        samples,
        "node_piece_producers",
        Piece,
        payload(),
        Piece { group: 3, uid: 0, body: PieceBody::Producers { crc: items(&[b"a producer", b"another"]).1.crc() } }
    );
    push!(
        samples,
        "node_piece_notes",
        Piece,
        payload(),
        Piece { group: 3, uid: 0, body: PieceBody::Notes { crc: items(&[b"a producer", b"another"]).1.crc() } }
    );
    push!(
        samples,
        "node_piece_metadata",
        Piece,
        b"archive".to_vec(),
        Piece { group: 0, uid: 0, body: PieceBody::Metadata { crc: crc32c::crc32c(b"archive") } }
    );
    push!(samples, "node_piece_end", Piece, Vec::new(), Piece { group: 3, uid: 0, body: PieceBody::End { pieces: 5, bytes: 4711 } });
    push!(samples, "node_piece_ack", PieceAck, Vec::new(), PieceAck { group: 3, pieces: 5 });
}

fn repairs(samples: &mut Vec<NodeSample>) {
    push!(samples, "node_fetch", Fetch, Vec::new(), Fetch { group: 3, uid: UID, first: 1000, end: 2000, max_bytes: 1 << 20 });
    let two = || [batch(0, UID, 1000, 7), batch(1, UID, 1001, 9)].concat();
    push!(samples, "node_fetch_reply_batches", FetchReply, two(), FetchReply { error: ErrorCode::Ok, next: 1005, heads: List::of(&[]) });
    let entry = || [batch(0, UID, 1000, 7), items(&[b"a trim"]).0].concat();
    push!(
        samples,
        "node_fetch_reply_entry",
        FetchReply,
        entry(),
        FetchReply {
            error: ErrorCode::Ok,
            next: 0,
            heads: List::of(&[EntryHead::block(7, batch(0, UID, 1000, 7).len() as u32, &items(&[b"a trim"]).1)]),
        }
    );
    push!(
        samples,
        "node_fetch_reply_error",
        FetchReply,
        Vec::new(),
        FetchReply { error: ErrorCode::Damaged, next: 0, heads: List::of(&[]) }
    );
}

fn calls(samples: &mut Vec<NodeSample>) {
    push!(samples, "node_call", Call, b"a command".to_vec(), Call { call: 5, what: CallWhat::Command, crc: crc32c::crc32c(b"a command") });
    push!(
        samples,
        "node_call_reply",
        CallReply,
        b"done".to_vec(),
        CallReply {
            call: 5,
            what: CallWhat::Command,
            crc: crc32c::crc32c(b"done"),
            error: ErrorBody { code: 0, retriable: false, message: "", next: "" },
        }
    );
    push!(
        samples,
        "node_call_reply_refused",
        CallReply,
        Vec::new(),
        CallReply {
            call: 6,
            what: CallWhat::Client,
            crc: 0,
            error: ErrorBody::new(ErrorCode::NotLeader, "node 2 leads group 0", "broker-2.example:7700"),
        }
    );
    push!(
        samples,
        "node_leaders",
        Leaders,
        Vec::new(),
        Leaders { view_in_force: 77, groups: List::of(&[GroupLeader { group: 3, node: 2, term: 7 }]) }
    );
    push!(samples, "node_activity", Activity, Vec::new(), Activity { groups: List::of(&[GroupActive { group_uid: 5, idle_ms: 61_000 }]) });
}
