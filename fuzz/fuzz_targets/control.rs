//! Payloads of control entries: commands on the metadata, its snapshot, lists of trims, hard states; as bytes, and as archives with bytes changed
//! under an envelope that checks. And what a state machine makes of commands that it is given in any order.
#![no_main]

use tramline::control::{Command, State};
use tramline::ids::{LogIndex, PartitionUid};
use tramline::log::HardState;
use tramline::log::envelope;
use tramline::partition::{Trim, decode_trims, encode_trims};
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
    if let Ok(state) = State::restore(bytes) {
        same_after_restore(&state);
        state.view();
    }
    if let Some(state) = HardState::decode(bytes) {
        assert_eq!(HardState::decode(&state.encode()), Some(state));
    }
}

fn same_after_restore(state: &State) {
    let snapshot = state.snapshot();
    let again = State::restore(&snapshot).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.snapshot(), snapshot, "a snapshot of a restored snapshot");
}

fn sealed(schema: u16, payload: &[u8]) -> Vec<u8> {
    let version = if schema == SNAPSHOT { 2 } else { 1 };
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
    match input.byte() % 6 {
        5 => Command::ReserveProducerIds { count: input.number(1) as u32 },
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

/// Commands one after the other: refused ones change nothing, and a restored snapshot is the same state.
fn apply(mut input: Input<'_>) {
    let mut state = State::new();
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
    same_after_restore(&state);
}

/// A real payload with bytes of its archive changed, the envelope made to fit.
fn forge(mut input: Input<'_>) {
    let schema = [COMMAND, SNAPSHOT, TRIMS][input.below(3)];
    let payload = match schema {
        COMMAND => command(&mut input).encode(),
        SNAPSHOT => {
            let mut state = State::new();
            for index in 1..=1 + input.below(6) as u64 {
                let _answers = state.apply(LogIndex(index), &[command(&mut input)]);
            }
            state.snapshot()
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
            let schema = [COMMAND, SNAPSHOT, TRIMS][input.below(3)];
            decode(&sealed(schema, input.rest()));
        }
        2..=4 => apply(input),
        _ => forge(input),
    }
});
