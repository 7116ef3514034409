//! Payloads of control entries: commands on the metadata, its snapshot, trims, offsets and members of consumer groups, hard states; as bytes, and as archives with bytes changed
//! under an envelope that checks. And what a state machine makes of commands that it is given in any order.
#![no_main]

use tramline::control::{self, ClusterCommand, Command, Endpoint, MoveStep, NodeSpec, NodeState, QueueStart};
use tramline::ids::{LogIndex, MemberId, PartitionUid, SubscriptionUid};
use tramline::log::HardState;
use tramline::log::envelope;
use tramline::partition::{Trim, decode_trims, encode_trims};
use tramline::subscription::membership::{self, CHANGE_SCHEMA, Durable, Group, Join};
use tramline::subscription::queue::{
    Kind, PAYLOAD_BYTES_MAX, Part, QUEUE_SCHEMA, QueueNote, State, decode_queue_notes, encode_queue_notes,
};
use tramline::subscription::{NoteKind, OFFSETS_SCHEMA, OffsetNote, Offsets, decode_notes, encode_notes};
use tramline_fuzz::{Input, blocks};

const COMMAND: u16 = 16;
const SNAPSHOT: u16 = 17;
const TRIMS: u16 = 18;

/// As bytes: whatever comes out is written as the same bytes again, or refused.
fn decode(bytes: &[u8]) {
    if let Ok(command) = Command::decode(bytes) {
        assert_eq!(Command::decode(&command.encode()).ok(), Some(command));
    }
    if let Ok(trims) = decode_trims(bytes) {
        assert_eq!(decode_trims(&encode_trims(&trims)), Ok(trims));
    }
    if let Ok(notes) = decode_notes(bytes) {
        let again: Vec<_> = encode_notes(&notes).iter().flat_map(|(payload, _)| decode_notes(payload).expect("own notes")).collect();
        assert_eq!(again, notes);
        let mut offsets = Offsets::default();
        notes.iter().for_each(|note| offsets.apply(note));
    }
    if let Ok((partition, queue, notes)) = decode_queue_notes(bytes) {
        let mut again = Vec::new();
        encode_queue_notes(partition, queue, notes.iter().cloned(), PAYLOAD_BYTES_MAX, |payload| {
            again.extend(decode_queue_notes(&payload).expect("own notes").2);
        });
        assert_eq!(again, notes);
        // As many messages as a note may name would be right, and slow.
        if notes.iter().map(|note| u64::from(note.count)).sum::<u64>() < 10_000 {
            let mut part = Part::default();
            notes.iter().for_each(|note| part.apply(None, note));
        }
    }
    if let Ok((uid, changes)) = membership::decode(bytes) {
        let mut durable = Durable::new(1);
        if durable.apply(&changes).is_ok() {
            resume(uid, &durable);
        }
    }
    if let Ok(state) = control::State::restore(bytes) {
        same_after_restore(&state);
        state.view();
    }
    if let Some(state) = HardState::decode(bytes) {
        assert_eq!(HardState::decode(&state.encode()), Some(state));
    }
}

fn same_after_restore(state: &control::State) {
    let snapshot = state.snapshot();
    let again = control::State::restore(&snapshot).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.snapshot(), snapshot, "a snapshot of a restored snapshot");
}

/// A partition is in one topic.
fn partitions_of(topic: &str, out: &mut Vec<PartitionUid>) {
    if topic == "t" {
        out.extend((1..5).map(PartitionUid));
    }
}

/// What was read is written as records that give the same group, and a group goes on from it.
fn resume(uid: SubscriptionUid, durable: &Durable) {
    let mut again = Durable::new(1);
    for payload in membership::encode(uid, &durable.snapshot()) {
        let (same, changes) = membership::decode(&payload).expect("own records");
        assert_eq!(same, uid);
        again.apply(&changes).expect("records of a group that is");
    }
    assert_eq!(&again, durable, "a snapshot of a restored group");
    let mut changes = Vec::new();
    let mut group = Group::resume(uid, again, 0);
    group.on_partitions_changed(&partitions_of, &|partition| partition.0 < 5, &mut changes);
    group.expire(u64::MAX, &|_, _| {}, &mut changes);
}

/// The records of a group with some members.
fn members(input: &mut Input<'_>) -> Vec<u8> {
    let mut group = Group::new(SubscriptionUid(7), 1 + input.below(1000) as u64);
    let mut changes = Vec::new();
    for member in 0..1 + input.below(3) {
        let instance = ["a", "b", "c"][member];
        let join = Join {
            instance: input.flag().then_some(instance),
            client: "fuzz",
            topics: &["t", "u"],
            session_timeout_ms: 6_000,
            assignor: Default::default(),
            only_if_empty: false,
        };
        let _refused = group.join(0, &join, &partitions_of, &mut changes);
        let _unknown = group.leave(0, MemberId(input.number(0)), None, false, &partitions_of, &mut changes);
    }
    let payloads = membership::encode(SubscriptionUid(7), &changes);
    payloads.into_iter().next().expect("somebody has joined")
}

fn note(input: &mut Input<'_>) -> OffsetNote {
    OffsetNote {
        partition: PartitionUid(input.short()),
        subscription: SubscriptionUid(input.short()),
        epoch: input.number(0),
        kind: if input.flag() { NoteKind::Claim } else { NoteKind::Commit },
        offset: input.number(0),
        committed_us: input.number(0) as i64,
        metadata: String::from_utf8_lossy(input.bytes(40)).into(),
    }
}

fn queue_note(input: &mut Input<'_>) -> QueueNote {
    let kinds = [
        Kind::Begin,
        Kind::Lease,
        Kind::Extend,
        Kind::Settle,
        Kind::Wait,
        Kind::Die,
        Kind::Purge,
        Kind::Looked,
        Kind::Fresh,
        Kind::Message,
        Kind::Attempt,
        Kind::Id,
    ];
    let kind = kinds[input.below(12)];
    let states = [State::Ready, State::Leased, State::Delayed, State::Parked, State::Dead];
    QueueNote {
        count: 1 + input.below(9) as u32,
        deliveries: input.below(5) as u16,
        number: input.number(1),
        at_us: input.number(0) as i64,
        ms: input.below(3) as u32,
        state: (kind == Kind::Message).then(|| states[input.below(5)]),
        priority: input.below(11) as u8,
        hash: [0, 1, 2, u64::MAX][input.below(4)],
        text: input.bytes(9).into(),
        more: input.bytes(3).into(),
        ..QueueNote::new(kind, input.below(40) as u64)
    }
}

fn sealed(schema: u16, payload: &[u8]) -> Vec<u8> {
    let version = if schema == SNAPSHOT { 5 } else { 1 };
    let mut bytes = envelope::seal(schema, version, payload).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn command(input: &mut Input<'_>) -> Command {
    let name = |input: &mut Input<'_>| match input.byte() % 16 {
        0 => String::from_utf8_lossy(input.bytes(300)).into_owned(),
        n => format!("topic-{}", n % 5),
    };
    let settings = |input: &mut Input<'_>| {
        let pair = |input: &mut Input<'_>| {
            let key = ["retention.ms", "retention.bytes", "visible.at", "no.such", ""][input.below(5)];
            let value = ["", "-1", "60000", "1MiB", "leader", "replicated", "99999999999999999999999"][input.below(7)];
            (key.to_owned(), value.to_owned())
        };
        (0..input.below(3)).map(|_| pair(input)).collect()
    };
    let queue_settings = |input: &mut Input<'_>| {
        let pair = |input: &mut Input<'_>| {
            let (key, value) = match input.byte() % 8 {
                0 => ("retry.multiplier", ["", "1.5", "2", "0.1", "1.555"][input.below(5)].to_owned()),
                1 => ("paused", ["", "true", "false", "yes"][input.below(4)].to_owned()),
                2 => ("max.deliveries", ["", "-1", "3", "0"][input.below(4)].to_owned()),
                3 => ("no.such", String::new()),
                _ => ("dead.letter.topic", format!("topic-{}", input.below(6))),
            };
            (key.to_owned(), value)
        };
        (0..input.below(3)).map(|_| pair(input)).collect()
    };
    match input.byte() % 18 {
        12 => Command::CreateReplicatedTopic {
            name: name(input),
            partitions: input.number(3) as u32,
            settings: settings(input),
            created_us: input.number(0) as i64,
            replicas: input.below(7) as u8,
        },
        13..=17 => cluster_command(input).into(),
        8 | 9 => Command::CreateQueue {
            name: name(input),
            topic: name(input),
            start: [QueueStart::Latest, QueueStart::Earliest, QueueStart::Time(input.number(0) as i64)][input.below(3)],
            settings: queue_settings(input),
            created_us: input.number(0) as i64,
        },
        10 => Command::AlterQueue { name: name(input), settings: queue_settings(input), altered_us: input.number(0) as i64 },
        11 => Command::DeleteQueue { name: name(input) },
        6 => Command::CreateGroup { name: name(input), created_us: input.number(0) as i64 },
        7 => Command::DeleteGroup { name: name(input), uid: input.number(1) },
        5 => Command::ReserveProducerIds { count: input.number(1) as u32, from: input.number(0) },
        0 => Command::RegisterNode { node: input.number(1) as u32, shards: input.below(4) as u16, groups_per_shard: input.below(6) as u16 },
        1 | 2 => Command::CreateTopic {
            name: name(input),
            partitions: input.number(3) as u32,
            settings: settings(input),
            created_us: input.number(0) as i64,
        },
        3 => Command::AlterTopic { name: name(input), partitions: input.number(3) as u32, settings: settings(input) },
        _ => Command::DeleteTopic { name: name(input) },
    }
}

/// About nodes, groups and moves: numbers are small, so that they meet.
fn cluster_command(input: &mut Input<'_>) -> ClusterCommand {
    let node = 1 + input.below(5) as u32;
    let endpoint = |shards: u16| Endpoint { host: "node".into(), port: 1, shard_ports: vec![2; usize::from(shards)] };
    let states = [
        NodeState::Registered,
        NodeState::Active,
        NodeState::Draining,
        NodeState::Drained,
        NodeState::Leaving,
        NodeState::Removed,
    ];
    let steps = [
        MoveStep::Planned,
        MoveStep::Prepared,
        MoveStep::Learner,
        MoveStep::CaughtUp,
        MoveStep::Promoted,
        MoveStep::HandedOver,
        MoveStep::Dropped,
        MoveStep::Forgotten,
    ];
    match input.byte() % 14 {
        0 | 1 => ClusterCommand::AddNode(Box::new(NodeSpec {
            node,
            disk: u64::from(node) + input.below(2) as u64,
            generation: input.below(2) as u32,
            shards: 1 + (node % 2) as u16,
            groups_per_shard: 2,
            rack: ["", "a", "b", "not a rack"][input.below(4)].into(),
            cluster: endpoint(1 + (node % 2) as u16),
            client: endpoint(1 + (node % 2) as u16),
            feature_min: 1,
            feature_max: input.below(4) as u32,
        })),
        2 | 3 => ClusterCommand::SetNodeState { node, state: NodeState::Active },
        4 => ClusterCommand::SetNodeState { node, state: states[input.below(6)] },
        5 => ClusterCommand::ReplaceDisk { node, disk: 10 + input.below(20) as u64 },
        6 => ClusterCommand::RemoveNode { node },
        7 => ClusterCommand::CreateGroups { replicas: input.below(7) as u8 },
        8 => ClusterCommand::PlanMove {
            group: input.below(20) as u32,
            add: input.flag().then_some(node),
            drop: input.flag().then_some(1 + input.below(5) as u32),
        },
        9 => ClusterCommand::NoteMove { id: 1 + input.below(5) as u64, step: steps[input.below(8)], conf_index: input.number(0) },
        10 => ClusterCommand::CancelMove { id: 1 + input.below(5) as u64 },
        11 => ClusterCommand::SetReplicas { topic: format!("topic-{}", input.below(5)), replicas: input.below(7) as u8 },
        12 => ClusterCommand::SetFeatureLevel { level: input.below(4) as u32 },
        _ => ClusterCommand::UncleanRecover { group: input.below(20) as u32, survivors: vec![u64::from(node)] },
    }
}

/// Commands one after the other: refused ones change nothing, and a restored snapshot is the same state.
fn apply(mut input: Input<'_>) {
    let mut state = control::State::new();
    for index in 1..=24 {
        if input.is_empty() {
            break;
        }
        let command = command(&mut input);
        let command = Command::decode(&command.encode()).expect("an own command");
        let checked = state.check(&command);
        let epoch = state.view_epoch();
        let results = state.apply(LogIndex(index), std::slice::from_ref(&command)).expect("a new index");
        assert_eq!(results[0].as_ref().err(), checked.as_ref().err(), "what is checked is what is done");
        let is_seen = !matches!(command, Command::ReserveProducerIds { .. });
        assert_eq!(state.view_epoch(), epoch + u64::from(checked.is_ok() && is_seen));
        assert_eq!(state.apply(LogIndex(index), &[command]), None, "nothing is taken in twice");
    }
    state.view();
    state.proposals();
    same_after_restore(&state);
}

/// A real payload with bytes of its archive changed, the envelope made to fit.
fn forge(mut input: Input<'_>) {
    let schema = [COMMAND, SNAPSHOT, TRIMS, OFFSETS_SCHEMA, CHANGE_SCHEMA, QUEUE_SCHEMA][input.below(6)];
    let payload = match schema {
        COMMAND => command(&mut input).encode(),
        SNAPSHOT => {
            let mut state = control::State::new();
            for index in 1..=1 + input.below(6) as u64 {
                let _answers = state.apply(LogIndex(index), &[command(&mut input)]);
            }
            state.snapshot()
        }
        OFFSETS_SCHEMA => encode_notes(&[note(&mut input), note(&mut input)]).remove(0).0,
        CHANGE_SCHEMA => members(&mut input),
        QUEUE_SCHEMA => {
            let mut payload = Vec::new();
            let notes = [queue_note(&mut input), queue_note(&mut input), queue_note(&mut input)];
            encode_queue_notes(PartitionUid(1), SubscriptionUid(2), notes, PAYLOAD_BYTES_MAX, |bytes| payload = bytes);
            payload
        }
        _ => encode_trims(&[Trim { uid: PartitionUid(input.short()), log_start: input.number(0) }]),
    };
    let mut archive = payload[32..].to_vec();
    for _ in 0..1 + input.below(4) {
        let (at, width) = (input.below(archive.len()), [1, 2, 4, 8][input.below(4)]);
        blocks::change(&mut archive, at, width, |old| input.number(old));
    }
    if input.flag() {
        archive.truncate(input.below(archive.len() + 1));
    }
    decode(&sealed(schema, &archive));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    match input.byte() % 8 {
        0 => decode(input.rest()),
        1 => {
            let schema = [COMMAND, SNAPSHOT, TRIMS, OFFSETS_SCHEMA, CHANGE_SCHEMA, QUEUE_SCHEMA][input.below(6)];
            decode(&sealed(schema, input.rest()));
        }
        2..=4 => apply(input),
        _ => forge(input),
    }
});
