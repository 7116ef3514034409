//! The metadata state machine.

mod cluster;
mod golden;
mod placement;
mod queues;
mod settings;

use super::*;
use crate::ids::{LogIndex, NodeId};
use proptest::prelude::*;

fn register(shards: u16, groups_per_shard: u16) -> Command {
    Command::RegisterNode { node: 1, shards, groups_per_shard }
}

fn create(name: &str, partitions: u32) -> Command {
    Command::CreateTopic { name: name.to_owned(), partitions, settings: vec![("retention.ms".into(), "5".into())], created_us: 9 }
}

fn apply_one(state: &mut State, index: u64, command: Command) -> Result<Applied, ControlError> {
    state.apply(LogIndex(index), &[command]).expect("a new entry").remove(0)
}

#[test]
fn partitions_are_spread_over_shards_first_and_then_over_groups() {
    let mut state = State::new();
    apply_one(&mut state, 1, register(2, 2)).unwrap();
    apply_one(&mut state, 2, create("t", 8)).unwrap();
    let view = state.view();
    let placed: Vec<_> = view.topic("t").unwrap().partitions.iter().map(|p| (p.shard.0, p.group.0)).collect();
    assert_eq!(placed, [(0, 1), (1, 3), (0, 2), (1, 4), (0, 1), (1, 3), (0, 2), (1, 4)]);
}

#[test]
fn an_entry_is_applied_once_and_its_commands_in_order() {
    let mut state = State::new();
    let results = state.apply(LogIndex(3), &[register(1, 4), create("a", 1), create("a", 1), create("b", 1)]).unwrap();
    assert!(results[1].is_ok() && results[3].is_ok());
    assert_eq!(results[2], Err(ControlError::TopicExists("a".into())));
    assert_eq!(state.apply(LogIndex(3), &[create("c", 1)]), None);
    assert_eq!(state.view().topics().len(), 2);
}

#[test]
fn a_refused_command_changes_nothing() {
    let mut state = State::new();
    assert_eq!(state.check(&create("t", 1)), Err(ControlError::NoNodes));
    apply_one(&mut state, 1, register(1, 4)).unwrap();
    apply_one(&mut state, 2, create("t", 4)).unwrap();
    let before = (state.view_epoch(), state.view());
    let alter = |partitions, key: &str, value: &str| Command::AlterTopic {
        name: "t".into(),
        partitions,
        settings: vec![(key.into(), value.into())],
    };
    for (at, wrong) in [
        create("t", 1),
        create("", 1),
        create("..", 1),
        create("n", 0),
        create("n", crate::constants::TOPIC_PARTITIONS_MAX as u32 + 1),
        alter(3, "retention.ms", "1"),
        alter(0, "retention.ms", "-2"),
        alter(0, "nothing", "1"),
        Command::DeleteTopic { name: "n".into() },
    ]
    .into_iter()
    .enumerate()
    {
        assert!(apply_one(&mut state, 3 + at as u64, wrong.clone()).is_err(), "{wrong:?}");
    }
    assert_eq!(state.view_epoch(), before.0);
    assert_eq!(state.view().topics(), before.1.topics());
    apply_one(&mut state, 20, alter(6, "retention.ms", "")).unwrap();
    let view = state.view();
    let topic = view.topic("t").unwrap();
    assert_eq!((topic.partitions.len(), topic.settings.integer("retention.ms")), (6, Some(604_800_000)));
}

#[test]
fn ids_of_producers_are_reserved_once_and_are_no_news_to_shards() {
    let mut state = State::new();
    let reserve = |count| Command::ReserveProducerIds { count, from: 0 };
    apply_one(&mut state, 1, register(1, 1)).unwrap();
    let epoch = state.view_epoch();
    assert_eq!(apply_one(&mut state, 2, reserve(5)), Ok(Applied::ProducerIds(1..6)));
    let mut restored = State::restore(&state.snapshot()).unwrap();
    for state in [&mut state, &mut restored] {
        assert_eq!(apply_one(state, 3, reserve(1024)), Ok(Applied::ProducerIds(6..1030)));
        assert_eq!(state.view_epoch(), epoch);
        let later = Command::ReserveProducerIds { count: 2, from: 5000 };
        assert_eq!(apply_one(state, 4, later.clone()), Ok(Applied::ProducerIds(5000..5002)));
        assert_eq!(apply_one(state, 5, later), Ok(Applied::ProducerIds(5002..5004)));
        let wrong = Command::ReserveProducerIds { count: 2, from: u64::MAX };
        assert!(matches!(state.check(&wrong), Err(ControlError::Limit(_))));
        for wrong in [0, 1025, u32::MAX] {
            assert!(matches!(state.check(&reserve(wrong)), Err(ControlError::Limit(_))), "{wrong}");
        }
    }
    assert_eq!(Command::decode(&reserve(7).encode()).unwrap(), reserve(7));
}

#[test]
fn commands_and_snapshots_are_checked_when_they_are_read() {
    let command = create("t", 3);
    let mut bytes = command.encode();
    assert_eq!(Command::decode(&bytes).unwrap(), command);
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        assert!(Command::decode(&bytes).is_err() || (20..28).contains(&at), "byte {at}");
        bytes[at] ^= 1;
        assert!(Command::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn a_snapshot_is_the_state(names in prop::collection::vec("[a-c]{1,2}", 0..20), deletes in prop::collection::vec(0usize..20, 0..8)) {
        let mut state = State::new();
        apply_one(&mut state, 1, register(2, 4)).unwrap();
        let mut index = 1;
        for (at, name) in names.iter().enumerate() {
            index += 1;
            let _ = apply_one(&mut state, index, create(name, at as u32 % 5 + 1));
            if deletes.contains(&at) {
                index += 1;
                let _ = apply_one(&mut state, index, Command::DeleteTopic { name: name.clone() });
            }
        }
        let mut restored = State::restore(&state.snapshot()).unwrap();
        prop_assert_eq!(restored.snapshot(), state.snapshot());
        prop_assert_eq!((restored.applied(), restored.view_epoch()), (state.applied(), state.view_epoch()));
        let views = (restored.view(), state.view());
        prop_assert_eq!(views.0.topics(), views.1.topics());
        prop_assert!(restored.has_node(NodeId(1)));
        // Both go on alike: placement and uids are part of the state.
        apply_one(&mut restored, index + 1, create("next", 7)).unwrap();
        apply_one(&mut state, index + 1, create("next", 7)).unwrap();
        prop_assert_eq!(restored.snapshot(), state.snapshot());
    }
}

#[test]
fn a_snapshot_keeps_the_order_in_which_nodes_registered_and_what_they_had_then() {
    let mut state = State::new();
    let register = |node, shards, groups_per_shard| Command::RegisterNode { node, shards, groups_per_shard };
    apply_one(&mut state, 1, register(5, 1, 2)).unwrap();
    apply_one(&mut state, 2, register(1, 2, 1)).unwrap();
    // Again, with other numbers: its groups are those of the first time.
    apply_one(&mut state, 3, register(5, 4, 4)).unwrap();
    let one_replica = Command::CreateReplicatedTopic { name: "t".into(), partitions: 4, settings: vec![], created_us: 9, replicas: 1 };
    apply_one(&mut state, 4, one_replica).unwrap();
    let restored = State::restore(&state.snapshot()).unwrap();
    assert_eq!(restored.view().topics(), state.view().topics());
    assert_eq!(restored.snapshot(), state.snapshot());
    for (shards, groups) in [(0, 1), (1, 0), (257, 1), (1, 32), (u16::MAX, u16::MAX)] {
        assert!(
            matches!(state.check(&register(9, shards, groups)), Err(ControlError::Cluster(ClusterError::Limit(_)))),
            "{shards} shards, {groups} groups"
        );
    }
}
