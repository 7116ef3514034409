//! Properties of the bodies between nodes: encoding then decoding any value gives the value, and the writer gives the same bytes as the structs.

mod common;

use common::node_samples::{batch, items};
use common::node_walk;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Debug;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::node::*;
use tramline_wire::prim::{DecodeError, List};

fn bytes_of(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    encode(&mut out);
    out.split_off(6)
}

fn same<T: PartialEq + Debug>(decoded: Result<T, DecodeError>, value: T) -> Result<(), TestCaseError> {
    prop_assert_eq!(decoded, Ok(value));
    Ok(())
}

/// Encodes, decodes, compares, and encodes what was decoded once more.
macro_rules! identity {
    ($type:ident $fields:tt) => {{
        let value = $type $fields;
        let bytes = bytes_of(|out| value.encode(out));
        same($type::decode(&bytes), value)?;
        let again = $type::decode(&bytes).expect("decoded just now");
        prop_assert_eq!(bytes_of(|out| again.encode(out)), bytes.clone());
        let longer = [bytes.as_slice(), &[0]].concat();
        prop_assert!($type::decode(&longer).is_err(), "trailing bytes are refused");
        for cut in 0..bytes.len() {
            prop_assert!($type::decode(&bytes[..cut]).is_err(), "{} of {} bytes are accepted", cut, bytes.len());
        }
    }};
}

/// An entry to be sent: what its term is above the one before, batches (base offsets), control payloads, and whether it is raft's own.
type Sent = (u64, Vec<u32>, Vec<Vec<u8>>, bool);

fn sent() -> impl Strategy<Value = Sent> {
    (0u64..2, vec(any::<u32>(), 0..3), vec(vec(any::<u8>(), 1..40), 0..3), any::<bool>())
}

/// Head, batches and control payloads of one entry.
fn laid_out(entry: &Sent, term: u64) -> (EntryHead, Vec<u8>) {
    let (_, offsets, payloads, is_raft) = entry;
    if *is_raft || offsets.is_empty() && payloads.is_empty() {
        let change = Change { action: ChangeAction::ALL[payloads.len()], replica: 5, move_id: 0 };
        let change = bytes_of(|out| change.encode(out));
        let (bytes, sum) = items(
            if offsets.is_empty() { &[] } else { std::slice::from_ref(&change) }.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice(),
        );
        return (EntryHead::raft(term, &sum), bytes);
    }
    let mut bytes: Vec<u8> = offsets.iter().flat_map(|offset| batch(0, 42, u64::from(*offset), term)).collect();
    let payloads: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
    let (control, sum) = items(&payloads);
    let head = EntryHead::block(term, bytes.len() as u32, &sum);
    bytes.extend_from_slice(&control);
    (head, bytes)
}

proptest! {
    #[test]
    fn hellos(
        class in prop::sample::select(Class::ALL), cluster_id: [u8; 16], numbers: (u64, u32, u32, u32, u32, u16, u16), features: (u32, u32, u32, u64),
        groups in vec(any::<(u32, u64)>(), 0..6), states in vec((any::<(u32, u64, u64, u64, u64)>(), 0u8..8), 0..6), code: u16, retriable: bool, message in ".{0,12}",
    ) {
        let (boot, from_node, from_generation, to_node, to_generation, from_shard, to_shard) = numbers;
        let (feature_min, feature_max, feature_level, view_epoch) = features;
        let groups: Vec<_> = groups.into_iter().map(|(group, term)| GroupTerm { group, term }).collect();
        identity!(Hello {
            class, cluster_id, boot, from_node, from_generation, to_node, to_generation, from_shard, to_shard, feature_min, feature_max,
            feature_level, view_epoch, groups: List::of(&groups),
        });
        let states: Vec<_> = states.into_iter().map(|((group, term, last_index, last_term, persisted), flags)| {
            ReplicaState { group, flags: ReplicaFlags(flags), term, last_index, last_term, persisted }
        }).collect();
        identity!(HelloReply { boot, feature: feature_min, window: feature_max, groups: List::of(&states) });
        identity!(Refused { code, retriable, message: &message });
    }

    #[test]
    fn acks_beats_and_votes(
        numbers: (u64, u32, u64, u64, u64, u64, u64), flags in 0u8..4, groups in vec((any::<(u32, u64, u64, u64, u64, u64, u64, u64)>(), 0u8..4), 0..6),
    ) {
        let (beat, group, term, last_index, last_term, commit, commit_term) = numbers;
        let acks: Vec<_> = groups.iter().map(|((group, term, received, durable, applied, rejected, hint_index, hint_term), flags)| AckGroup {
            group: *group, flags: AckFlags(*flags), term: *term, received: *received, durable: *durable, applied: *applied,
            rejected: *rejected, hint_index: *hint_index, hint_term: *hint_term,
        }).collect();
        identity!(Ack { beat, groups: List::of(&acks) });
        let beats: Vec<_> = acks.iter().map(|ack| BeatGroup { group: ack.group, term: ack.term, commit: ack.durable }).collect();
        identity!(Beat { beat, groups: List::of(&beats) });
        identity!(Vote { group, flags: VoteFlags(flags), term, last_index, last_term, commit, commit_term });
        identity!(VoteReply { group, flags: VoteReplyFlags(flags), term, commit, commit_term });
        identity!(TimeoutNow { group, term });
        let leaders: Vec<_> = acks.iter().map(|ack| GroupLeader { group: ack.group, node: group, term: ack.term }).collect();
        identity!(Leaders { view_in_force: beat, groups: List::of(&leaders) });
        let active: Vec<_> = acks.iter().map(|ack| GroupActive { group_uid: ack.durable, idle_ms: ack.term }).collect();
        identity!(Activity { groups: List::of(&active) });
    }

    #[test]
    fn snapshots(
        numbers: (u32, u64, u64, u64, u64, u64, i64, u32), ids in vec(any::<u64>(), 0..6), pairs in vec(any::<(u64, u64)>(), 0..6),
    ) {
        let (group, uid, index, term, conf_index, view_epoch, newest_us, crc) = numbers;
        let (voters, learners) = ids.split_at(ids.len() / 2);
        identity!(CatchUp { group, index, term, conf_index, voters: List::of(voters), learners: List::of(learners), view_epoch });
        let have: Vec<_> = pairs.iter().map(|(uid, next_offset)| HavePartition { uid: *uid, next_offset: *next_offset }).collect();
        identity!(CatchUpReply { group, have: List::of(&have) });
        identity!(PieceAck { group, pieces: index });
        let lost: Vec<_> = pairs.iter().map(|(first, end)| LostRange { first: *first, end: *end }).collect();
        let body = PieceBody::Partition { topic: index, log_start: term, next_offset: conf_index, newest_us, lost: List::of(&lost) };
        identity!(Piece { group, uid, body });
        identity!(Piece { group, uid, body: PieceBody::Batches });
        for body in [
            PieceBody::Producers { crc }, PieceBody::Notes { crc }, PieceBody::Metadata { crc }, PieceBody::End { pieces: index, bytes: term },
        ] {
            identity!(Piece { group, uid: 0, body });
        }
    }

    #[test]
    fn repairs_and_calls(
        numbers: (u32, u64, u64, u64, u32), code in prop::sample::select(ErrorCode::ALL), what in prop::sample::select(CallWhat::ALL),
        retriable: bool, texts in (".{0,12}", ".{0,12}"), heads in vec(any::<(u64, u32, u32, u32, bool)>(), 0..3),
    ) {
        let (group, uid, first, end, max_bytes) = numbers;
        identity!(Fetch { group, uid, first, end, max_bytes });
        let heads: Vec<_> = heads.into_iter().map(|(term, data_bytes, control_bytes, control_crc, is_raft)| {
            EntryHead { term, data_bytes, control_bytes, control_crc, kind: if is_raft { EntryKind::Raft } else { EntryKind::Block } }
        }).collect();
        identity!(FetchReply { error: code, next: end, heads: List::of(&heads) });
        identity!(Call { call: uid, what, crc: max_bytes });
        let error = ErrorBody { code: code.as_u16(), retriable, message: &texts.0, next: &texts.1 };
        identity!(CallReply { call: uid, what, crc: max_bytes, error });
        identity!(Change { action: ChangeAction::Remove, replica: uid, move_id: first });
    }

    #[test]
    fn an_append_is_taken_as_it_was_written(
        beat: u64, shares in vec((any::<(u32, u32)>(), 0u8..2, vec(sent(), 0..4)), 0..4),
    ) {
        let mut payload = Vec::new();
        let mut laid: Vec<(ShareBase, Vec<EntryHead>)> = Vec::new();
        for ((group, prev_index), flags, entries) in &shares {
            let first_term = u64::from(*prev_index > 0);
            let mut term = first_term.max(1);
            let mut heads = Vec::new();
            for entry in entries {
                term += entry.0;
                let (head, bytes) = laid_out(entry, term);
                heads.push(head);
                payload.extend_from_slice(&bytes);
            }
            let base = ShareBase {
                group: *group, flags: ShareFlags(*flags), term, prev_index: u64::from(*prev_index), prev_term: first_term, commit: beat >> 2,
            };
            laid.push((base, heads));
        }
        let of_structs: Vec<_> = laid.iter().map(|(base, heads)| Share { base: *base, entries: List::of(heads) }).collect();
        identity!(Append { beat, groups: List::of(&of_structs) });
        let mut announced = 0;
        let meta = bytes_of(|out| {
            let mut writer = AppendWriter::begin(out, beat);
            for (base, heads) in &laid {
                writer.share(out, base);
                heads.iter().for_each(|head| writer.entry(out, head));
            }
            assert_eq!((writer.len(), writer.is_empty(), writer.payload_bytes()), (laid.len(), laid.is_empty(), payload.len() as u64));
            announced = writer.finish(out);
        });
        prop_assert_eq!(announced, payload.len());
        prop_assert_eq!(&meta, &bytes_of(|out| Append { beat, groups: List::of(&of_structs) }.encode(out)));
        let checked = Append::decode(&meta).expect("written just now").check(&payload, &PayloadLimits::default());
        let checked = checked.expect("writer and reader agree");
        prop_assert_eq!(node_walk::checked(&checked), laid.iter().map(|(_, heads)| heads.len()).sum::<usize>());
        for (found, (base, heads)) in checked.shares().zip(&laid) {
            prop_assert_eq!((found.base(), found.len()), (base, heads.len()));
        }
        let mut again = Vec::new();
        for entry in checked.shares().flat_map(|share| share.entries()) {
            again.extend_from_slice(entry.batches().bytes());
            for control in entry.controls() {
                again.extend_from_slice(&(control.len() as u32).to_le_bytes());
                again.extend_from_slice(control);
            }
        }
        prop_assert_eq!(again, payload, "what is given back are the bytes that were sent");
    }
}
