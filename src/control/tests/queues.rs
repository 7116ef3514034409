//! Queues as the metadata know them.

use super::{apply_one, create, register};
use crate::control::*;
use crate::ids::SubscriptionUid;
use crate::log::envelope;
use proptest::prelude::*;

pub(super) fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn queue(name: &str, topic: &str, pairs: &[(&str, &str)]) -> Command {
    let (name, topic) = (name.to_owned(), topic.to_owned());
    Command::CreateQueue { name, topic, start: QueueStart::Latest, settings: settings(pairs), created_us: 7 }
}

/// A queue "q" on topic "t" that begins there.
pub(super) fn queue_from(start: QueueStart) -> Command {
    Command::CreateQueue { name: "q".into(), topic: "t".into(), start, settings: settings(&[("paused", "true")]), created_us: 7 }
}

fn alter(name: &str, pairs: &[(&str, &str)]) -> Command {
    Command::AlterQueue { name: name.to_owned(), settings: settings(pairs), altered_us: 8 }
}

fn delete(name: &str) -> Command {
    Command::DeleteQueue { name: name.to_owned() }
}

/// A state that takes commands one by one.
struct World {
    state: State,
    index: u64,
}

impl World {
    /// With topics of three partitions each.
    fn with_topics(topics: &[&str]) -> World {
        let mut world = World { state: State::new(), index: 0 };
        world.apply(register(2, 2)).unwrap();
        for name in topics {
            world.apply(create(name, 3)).unwrap();
        }
        world
    }

    fn apply(&mut self, command: Command) -> Result<Applied, ControlError> {
        self.index += 1;
        let (checked, before) = (self.state.check(&command), self.state.snapshot_without_position());
        let result = apply_one(&mut self.state, self.index, command);
        assert_eq!(result.as_ref().err(), checked.as_ref().err(), "what is checked is what is done");
        if result.is_err() {
            assert_eq!(self.state.snapshot_without_position(), before, "a refused command changes nothing");
        }
        result
    }

    fn circle(&mut self, command: Command) {
        let refused = self.apply(command.clone());
        assert!(matches!(refused, Err(ControlError::DeadLetterCircle { .. })), "{command:?}: {refused:?}");
    }

    fn queues(&self) -> Vec<String> {
        self.state.view().queues().iter().map(|queue| queue.name.clone()).collect()
    }
}

impl State {
    /// All but how far it is.
    fn snapshot_without_position(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let view = self.view();
        (view.epoch, view.topics().to_vec(), view.groups().to_vec(), view.queues().to_vec())
    }
}

#[test]
fn a_queue_is_found_by_name_and_by_uid() {
    let mut world = World::with_topics(&["t", "u"]);
    world.apply(Command::CreateGroup { name: "q".into(), created_us: 1 }).unwrap();
    // The uids are those of groups too, and the names are not.
    assert_eq!(world.apply(queue("q", "t", &[("paused", "true")])), Ok(Applied::QueueCreated(SubscriptionUid(2))));
    assert_eq!(world.apply(queue("r", "u", &[])), Ok(Applied::QueueCreated(SubscriptionUid(3))));
    assert_eq!(world.apply(queue("p", "t", &[])), Ok(Applied::QueueCreated(SubscriptionUid(4))));
    world.apply(Command::AlterTopic { name: "t".into(), partitions: 5, settings: vec![] }).unwrap();
    let view = world.state.view();
    let found = view.queue("q").unwrap();
    assert_eq!((found.uid, found.topic_name.as_str(), found.topic), (SubscriptionUid(2), "t", view.topic("t").unwrap().uid));
    assert_eq!((found.created_us, found.start, found.partitions_at_creation), (7, QueueStart::Latest, 3));
    assert!(found.settings.is_set("paused") && found.dead_letter_topic().is_none());
    assert_eq!(view.queue_by_uid(SubscriptionUid(3)).unwrap().name, "r");
    assert!(view.queue("s").is_none() && view.queue_by_uid(SubscriptionUid(1)).is_none());
    assert_eq!(view.queues().iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["p", "q", "r"]);
    assert_eq!(world.state.queue_identity("r"), Some(SubscriptionUid(3)));
}

#[test]
fn what_is_wrong_with_a_queue_is_said() {
    let mut world = World::with_topics(&["t"]);
    world.apply(queue("q", "t", &[])).unwrap();
    assert_eq!(world.apply(queue("q", "t", &[])), Err(ControlError::QueueExists("q".into())));
    assert_eq!(world.apply(queue("a b", "t", &[])), Err(ControlError::InvalidQueueName("a b".into())));
    assert_eq!(world.apply(queue("r", "u", &[])), Err(ControlError::UnknownTopic("u".into())));
    assert!(matches!(world.apply(queue("r", "t", &[("retention.ms", "1")])), Err(ControlError::Setting(SettingError::Unknown { .. }))));
    assert!(matches!(world.apply(queue("r", "t", &[("paused", "1")])), Err(ControlError::Setting(SettingError::Invalid { .. }))));
    assert!(matches!(world.apply(alter("q", &[("paused", "1")])), Err(ControlError::Setting(SettingError::Invalid { .. }))));
    assert_eq!(world.apply(alter("r", &[])), Err(ControlError::UnknownQueue("r".into())));
    assert_eq!(world.apply(delete("r")), Err(ControlError::UnknownQueue("r".into())));
    assert_eq!(world.apply(alter("q", &[("paused", "true")])), Ok(Applied::QueueAltered));
    assert!(world.state.view().queue("q").unwrap().settings.is_set("paused"));
    assert_eq!(world.apply(delete("q")), Ok(Applied::QueueDeleted));
    assert!(world.queues().is_empty());
    assert_eq!(world.apply(queue("q", "t", &[])), Ok(Applied::QueueCreated(SubscriptionUid(2))), "a uid is given once");
}

#[test]
fn a_topic_takes_its_queues_with_it_and_no_others() {
    let mut world = World::with_topics(&["t", "u"]);
    for (name, topic) in [("a", "t"), ("b", "u"), ("c", "t")] {
        world.apply(queue(name, topic, &[("dead.letter.topic", "dead")])).unwrap();
    }
    world.apply(Command::DeleteTopic { name: "t".into() }).unwrap();
    assert_eq!(world.queues(), ["b"]);
    // Nothing leads from the new topic of this name to the dead letters any more.
    world.apply(create("t", 1)).unwrap();
    world.apply(queue("d", "dead", &[("dead.letter.topic", "t")])).unwrap();
    world.circle(queue("e", "t", &[("dead.letter.topic", "dead")]));
}

#[test]
fn a_dead_letter_topic_is_created_where_it_is_missing_and_not_with_a_refused_queue() {
    let mut world = World::with_topics(&["t"]);
    world.apply(queue("q", "t", &[("dead.letter.topic", "dead")])).unwrap();
    let view = world.state.view();
    let dead = view.topic("dead").unwrap();
    let place = |topic: &str| view.topic(topic).unwrap().partitions.iter().map(|place| place.group).collect::<Vec<_>>();
    assert_eq!((place("dead"), dead.created_us, dead.settings.word("co.locate")), (place("t"), 7, "t"));
    assert_eq!(view.queue("q").unwrap().dead_letter_topic(), Some("dead"));
    // There already, and left as it is.
    world.apply(queue("r", "t", &[("dead.letter.topic", "dead")])).unwrap();
    assert_eq!(world.state.view().topic("dead").unwrap(), dead);
    assert!(world.apply(queue("q", "t", &[("dead.letter.topic", "other")])).is_err());
    assert!(world.state.view().topic("other").is_none());
    world.apply(alter("q", &[("dead.letter.topic", "other")])).unwrap();
    assert_eq!(world.state.view().topic("other").unwrap().created_us, 8);
    world.apply(alter("q", &[("dead.letter.topic", "")])).unwrap();
    assert_eq!(world.state.view().queue("q").unwrap().dead_letter_topic(), None);
    // Said twice in one request: the last one counts.
    world.apply(alter("q", &[("dead.letter.topic", "first"), ("dead.letter.topic", "last")])).unwrap();
    let view = world.state.view();
    assert!(view.topic("first").is_none() && view.topic("last").is_some());
    assert_eq!(view.queue("q").unwrap().dead_letter_topic(), Some("last"));
}

#[test]
fn dead_letters_never_lead_back() {
    let mut world = World::with_topics(&["a", "b", "c"]);
    world.circle(queue("self", "a", &[("dead.letter.topic", "a")]));
    world.apply(queue("ab", "a", &[("dead.letter.topic", "b")])).unwrap();
    world.circle(queue("ba", "b", &[("dead.letter.topic", "a")]));
    world.apply(queue("bc", "b", &[("dead.letter.topic", "c")])).unwrap();
    world.circle(queue("ca", "c", &[("dead.letter.topic", "a")]));
    world.circle(queue("cb", "c", &[("dead.letter.topic", "b")]));
    world.apply(queue("ac", "a", &[("dead.letter.topic", "c")])).unwrap();
    world.apply(queue("c", "c", &[])).unwrap();
    world.circle(alter("c", &[("dead.letter.topic", "a")]));
    // Two queues say a -> b: only when both have stopped may c lead to a by way of b.
    world.apply(queue("ab2", "a", &[("dead.letter.topic", "b")])).unwrap();
    world.apply(alter("bc", &[("dead.letter.topic", "")])).unwrap();
    world.apply(alter("c", &[("dead.letter.topic", "b")])).unwrap();
    world.circle(queue("ba", "b", &[("dead.letter.topic", "a")]));
    world.apply(delete("ab")).unwrap();
    world.apply(alter("ac", &[("dead.letter.topic", "")])).unwrap();
    world.circle(queue("ba", "b", &[("dead.letter.topic", "a")]));
    world.apply(alter("ab2", &[("dead.letter.topic", "elsewhere")])).unwrap();
    world.apply(queue("ba", "b", &[("dead.letter.topic", "a")])).unwrap();
    world.circle(alter("ab2", &[("dead.letter.topic", "c")]));
    // The way that a queue itself has named is none back to its topic.
    world.apply(alter("ba", &[("dead.letter.topic", "a"), ("paused", "true")])).unwrap();
    // Also while a topic on the way is gone: another of its name may come.
    world.apply(Command::DeleteTopic { name: "elsewhere".into() }).unwrap();
    world.circle(queue("back", "b", &[("dead.letter.topic", "b")]));
    world.apply(create("elsewhere", 1)).unwrap();
    world.circle(queue("back", "elsewhere", &[("dead.letter.topic", "a")]));
}

#[test]
fn limits_hold_for_queues_and_for_the_topics_they_create() {
    let mut world = World::with_topics(&["t"]);
    for at in 0..crate::constants::QUEUES_MAX {
        apply_one(&mut world.state, 100 + at, queue(&format!("q{at}"), "t", &[])).unwrap();
    }
    world.index = 1 << 20;
    assert!(matches!(world.apply(queue("more", "t", &[])), Err(ControlError::Limit(_))));
    world.apply(delete("q5")).unwrap();
    world.apply(queue("more", "t", &[])).unwrap();
    for at in 1..crate::constants::TOPICS_MAX {
        apply_one(&mut world.state, (2 << 20) + at, create(&format!("t{at}"), 1)).unwrap();
    }
    world.index = 3 << 20;
    assert!(matches!(world.apply(alter("q1", &[("dead.letter.topic", "missing")])), Err(ControlError::Limit(_))));
    world.apply(alter("q1", &[("dead.letter.topic", "t1")])).unwrap();
}

#[test]
fn commands_of_queues_are_read_as_they_were_written() {
    let starts = [QueueStart::Latest, QueueStart::Earliest, QueueStart::Time(-5)];
    let created = starts.map(|start| Command::CreateQueue {
        name: "q".into(),
        topic: "t".into(),
        start,
        settings: settings(&[("paused", "true")]),
        created_us: 3,
    });
    for command in created.into_iter().chain([alter("q", &[("paused", "")]), delete("q")]) {
        assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }
}

/// A queue's place in a snapshot is found by its name; what else is said about it there can be changed.
fn forged(state: &State, change: impl Fn(&mut Vec<u8>)) -> Result<State, StoredError> {
    let snapshot = state.snapshot();
    let mut archive = snapshot[32..].to_vec();
    change(&mut archive);
    assert_ne!(archive, snapshot[32..], "something was changed");
    let mut bytes = envelope::seal(17, 5, &archive).to_vec();
    bytes.extend_from_slice(&archive);
    State::restore(&bytes)
}

fn replace(archive: &mut [u8], from: &[u8], to: &[u8]) {
    let at = archive.windows(from.len()).position(|bytes| bytes == from).expect("it is there");
    archive[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn a_snapshot_that_says_what_cannot_be_of_queues_is_refused() {
    let mut world = World::with_topics(&["topic-number-one", "topic-number-two"]);
    world.apply(queue("queue-with-a-name", "topic-number-one", &[("dead.letter.topic", "topic-number-two")])).unwrap();
    world.apply(queue("queue-two-has-one", "topic-number-two", &[("dead.letter.topic", "topic-number-ten")])).unwrap();
    assert!(forged(&world.state, |bytes| replace(bytes, b"queue-with-a-name", b"queue-with-b-name")).is_ok());
    assert!(forged(&world.state, |bytes| replace(bytes, b"queue-with-a-name", b"queue with a name")).is_err(), "no name");
    assert!(forged(&world.state, |bytes| replace(bytes, b"queue-with-a-name", b"queue-two-has-one")).is_err(), "twice");
    assert!(forged(&world.state, |bytes| replace(bytes, b"dead.letter.topic", b"dead.letter.tonic")).is_err(), "no setting");
    // The setting is what is left of this name.
    world.apply(Command::DeleteTopic { name: "topic-number-ten".into() }).unwrap();
    assert!(forged(&world.state, |bytes| replace(bytes, b"topic-number-ten", b"topic-number-six")).is_ok());
    let circle = forged(&world.state, |bytes| replace(bytes, b"topic-number-ten", b"topic-number-one")).expect_err("a circle");
    assert!(circle.to_string().contains("lead back"), "{circle}");
}

proptest! {
    #[test]
    fn a_snapshot_has_the_queues(
        steps in prop::collection::vec((0usize..4, "[a-d]", "[a-d]", prop::option::of("[a-e]")), 0..40),
    ) {
        let mut world = World::with_topics(&["a", "b", "c"]);
        for (what, name, topic, dead_letter) in steps {
            let pairs: Vec<_> = dead_letter.as_deref().map(|to| ("dead.letter.topic", to)).into_iter().collect();
            let _refused = match what {
                0 | 1 => world.apply(queue(&name, &topic, &pairs)),
                2 => world.apply(alter(&name, &pairs)),
                _ if topic == "d" => world.apply(Command::DeleteTopic { name }),
                _ => world.apply(delete(&name)),
            };
        }
        let mut restored = State::restore(&world.state.snapshot()).unwrap();
        prop_assert_eq!(restored.snapshot(), world.state.snapshot());
        let views = (restored.view(), world.state.view());
        prop_assert_eq!(views.0.queues(), views.1.queues());
        // Both go on alike, also where circles are.
        for (topic, dead_letter) in [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")] {
            let next = queue("next", topic, &[("dead.letter.topic", dead_letter)]);
            prop_assert_eq!(restored.check(&next), world.state.check(&next));
        }
        world.index += 1;
        let next = create("next", 1);
        let both = (apply_one(&mut restored, world.index, next.clone()), apply_one(&mut world.state, world.index, next));
        prop_assert_eq!(both.0, both.1);
    }
}
