//! Scenarios of one group, told through a small world of topics and members; every step is checked by `World::check`.

use super::*;
use crate::ids::{MemberId, SubscriptionUid};
use std::collections::BTreeMap;

mod assignors;
mod random;
mod records;

const UID: SubscriptionUid = SubscriptionUid(77);
const FIRST_EPOCH: u64 = 100;
const SESSION_MS: u32 = 10_000;
const SESSION_US: u64 = SESSION_MS as u64 * 1_000;

/// A group, the topics there are, and all that the group told.
struct World {
    group: Group,
    topics: BTreeMap<String, Vec<PartitionUid>>,
    next_partition: u64,
    log: Vec<Change>,
    now_us: u64,
    assignor: Assignor,
    /// Newest owner of each partition that ever had one.
    owners: BTreeMap<PartitionUid, (MemberId, u64)>,
    /// What is granted, of whom.
    granted: BTreeMap<(MemberId, PartitionUid), u64>,
}

impl World {
    fn new(topics: &[(&str, usize)]) -> World {
        let mut world = World {
            group: Group::new(UID, FIRST_EPOCH),
            topics: BTreeMap::new(),
            next_partition: 0,
            log: Vec::new(),
            now_us: 1_000_000,
            assignor: Assignor::Sticky,
            owners: BTreeMap::new(),
            granted: BTreeMap::new(),
        };
        topics.iter().for_each(|(name, count)| world.grow(name, *count));
        world
    }

    fn grow(&mut self, topic: &str, count: usize) {
        let partitions = self.topics.entry(topic.to_owned()).or_default();
        partitions.extend((0..count as u64).map(|number| PartitionUid(self.next_partition + number)));
        self.next_partition += count as u64;
    }

    /// Runs one operation and checks what it did.
    fn run<T>(&mut self, operation: impl FnOnce(&mut Group, u64, PartitionsOf<'_>, &mut Vec<Change>) -> T) -> T {
        let topics = &self.topics;
        let of = |name: &str, out: &mut Vec<PartitionUid>| out.extend(topics.get(name).into_iter().flatten());
        let (epoch, before) = (self.group.epoch(), self.log.len());
        let answer = operation(&mut self.group, self.now_us, &of, &mut self.log);
        assert_eq!(self.group.epoch() - epoch, u64::from(self.log.len() > before), "one epoch per operation that changes something");
        self.check();
        answer
    }

    fn check(&mut self) {
        let mut granted = BTreeMap::new();
        for member in self.group.members() {
            for (partition, epoch) in member.grant.partitions() {
                assert_eq!(self.group.owner(partition), Some((member.id, epoch)));
                granted.insert((member.id, partition), epoch);
                let before = self.granted.get(&(member.id, partition));
                assert!(before.is_none_or(|before| *before == epoch), "member {} stops on {partition}, which it keeps", member.id);
            }
            assert!(member.grant.epoch <= self.group.epoch() && member.acked_epoch <= member.grant.epoch);
            let before = self.granted.range((member.id, PartitionUid(0))..=(member.id, PartitionUid(u64::MAX)));
            let is_same = before.map(|((_, partition), epoch)| (*partition, *epoch)).eq(member.grant.partitions());
            assert!(is_same || member.grant.epoch == self.group.epoch(), "member {} would not be told", member.id);
        }
        self.granted = granted;
        let partitions: Vec<PartitionUid> = (0..self.next_partition).map(PartitionUid).collect();
        for partition in partitions {
            let Some(owner) = self.group.owner(partition) else { continue };
            let before = self.owners.insert(partition, owner);
            let rises = before.is_none_or(|before| before == owner || before.1 < owner.1);
            assert!(rises, "{partition}: from {before:?} to {owner:?}");
        }
        let mut durable = Durable::new(FIRST_EPOCH);
        assert_eq!(durable.apply(&self.log), Ok(()));
        assert_eq!(&durable, self.group.durable(), "the log tells all");
    }

    fn join_as(&mut self, instance: Option<&str>, topics: &[&str]) -> Result<MemberId, MembershipError> {
        let join = Join { instance, client: "test", topics, session_timeout_ms: SESSION_MS, assignor: self.assignor, only_if_empty: false };
        self.run(|group, now_us, of, changes| group.join(now_us, &join, of, changes))
    }

    fn join(&mut self, topics: &[&str]) -> MemberId {
        self.join_as(None, topics).expect("joins")
    }

    fn beat(&mut self, id: MemberId, instance: Option<&str>, acked_epoch: u64) -> Result<(), MembershipError> {
        let heartbeat = Heartbeat { instance, acked_epoch, wait_ms: 0, topics: None };
        self.run(|group, now_us, of, changes| group.heartbeat(now_us, id, &heartbeat, of, changes))
    }

    /// The member puts in force what it may own now, and says so.
    fn ack(&mut self, id: MemberId) {
        let member = self.group.members().find(|member| member.id == id).expect("is there");
        let (instance, epoch) = (member.instance.map(str::to_owned), member.grant.epoch);
        assert_eq!(self.beat(id, instance.as_deref(), epoch), Ok(()));
    }

    fn leave(&mut self, id: MemberId, instance: Option<&str>, keep: bool) -> Result<(), MembershipError> {
        self.run(|group, now_us, of, changes| group.leave(now_us, id, instance, keep, of, changes))
    }

    fn expire(&mut self) -> Vec<MemberId> {
        self.run(|group, now_us, of, changes| group.expire(now_us, of, changes))
    }

    fn partitions_changed(&mut self) {
        let all: Vec<PartitionUid> = self.topics.values().flatten().copied().collect();
        self.run(|group, _, of, changes| group.on_partitions_changed(of, &|partition| all.contains(&partition), changes));
    }

    /// Only what the log holds survives.
    fn restart(&mut self) {
        let mut durable = Durable::new(FIRST_EPOCH);
        durable.apply(&self.log).expect("makes sense");
        self.group = Group::resume(UID, durable, self.now_us);
        let members = self.group.members();
        let granted = members.flat_map(|member| member.grant.partitions().map(move |(partition, epoch)| ((member.id, partition), epoch)));
        self.granted = granted.collect();
        self.partitions_changed();
    }

    fn grant(&self, id: MemberId) -> Vec<(u64, u64)> {
        self.group.grant(id).expect("is a member").partitions().map(|(partition, epoch)| (partition.0, epoch)).collect()
    }

    fn counts(&self) -> Vec<usize> {
        self.group.members().map(|member| member.grant.partitions().len()).collect()
    }

    /// All members put in force what they may own, until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..3 {
            let away: Vec<MemberId> = self.group.members().filter(|member| member.is_away).map(|member| member.id).collect();
            let ids: Vec<MemberId> = self.group.members().map(|member| member.id).filter(|id| !away.contains(id)).collect();
            ids.into_iter().for_each(|id| self.ack(id));
        }
        assert!(self.group.is_settled(), "{:#?}", self.group);
    }
}

#[test]
fn the_first_member_gets_everything_and_the_second_one_half_when_the_first_has_let_go() {
    let mut world = World::new(&[("a", 4)]);
    let first = world.join(&["a"]);
    assert_eq!(first.0, FIRST_EPOCH + 1);
    assert_eq!(world.grant(first), [(0, 101), (1, 101), (2, 101), (3, 101)]);
    assert!(!world.group.is_settled());
    world.ack(first);
    assert!(world.group.is_settled());

    let second = world.join(&["a"]);
    assert_eq!(second.0, FIRST_EPOCH + 2);
    assert_eq!(world.grant(first), [(0, 101), (1, 101)], "the same assignment epochs: it never stops on these");
    assert_eq!(world.grant(second), [], "nothing before the first one has let go");
    assert_eq!(world.group.owner(PartitionUid(3)), Some((first, 101)), "which may still own it, e.g. commit what it read");
    assert_eq!(world.beat(first, None, 101), Ok(()));
    assert_eq!(world.grant(second), [], "an acknowledgement from before lets nothing go");
    world.ack(first);
    assert_eq!(world.grant(second), [(2, 103), (3, 103)]);
    assert!(!world.group.is_settled());
    world.ack(second);
    assert!(world.group.is_settled());
}

#[test]
fn a_heartbeat_without_news_changes_nothing_that_lasts() {
    let mut world = World::new(&[("a", 4)]);
    let id = world.join(&["a"]);
    let (epoch, told) = (world.group.epoch(), world.log.len());
    world.ack(id);
    world.ack(id);
    assert_eq!((world.group.epoch(), world.log.len()), (epoch, told));
}

#[test]
fn what_a_member_leaves_goes_to_the_others_at_once() {
    let mut world = World::new(&[("a", 4)]);
    let (first, second) = (world.join(&["a"]), world.join(&["a"]));
    world.settle();
    let kept = world.grant(first);
    assert_eq!(world.leave(second, None, false), Ok(()));
    assert_eq!((world.grant(first).len(), &world.grant(first)[..2]), (4, &kept[..]));
    assert_eq!(world.leave(second, None, false), Err(MembershipError::UnknownMember));
    assert_eq!(world.leave(first, None, true), Ok(()), "only static members' places are kept");
    assert!(world.group.is_empty() && world.group.is_settled() && world.group.next_deadline_us().is_none());
}

#[test]
fn a_silent_member_is_dropped_when_its_time_is_over_and_not_before() {
    let mut world = World::new(&[("a", 4)]);
    let (silent, alive) = (world.join(&["a"]), world.join(&["a"]));
    assert_eq!(world.grant(alive), []);
    world.now_us += SESSION_US - 1;
    let heartbeat = Heartbeat { instance: None, acked_epoch: 0, wait_ms: 500, topics: None };
    assert_eq!(world.run(|group, now_us, of, changes| group.heartbeat(now_us, alive, &heartbeat, of, changes)), Ok(()));
    assert_eq!(world.expire(), []);
    assert_eq!(world.group.next_deadline_us(), Some(world.now_us + 1));
    world.now_us += 1;
    assert_eq!(world.expire(), [silent]);
    assert_eq!(world.grant(alive).len(), 4, "also what the other one was giving up");
    assert_eq!(world.beat(silent, None, 0), Err(MembershipError::UnknownMember));
    assert_eq!(world.group.next_deadline_us(), Some(world.now_us - 1 + 500_000 + SESSION_US), "the wait counts on top");
}

#[test]
fn a_static_member_restarts_and_nothing_moves() {
    let mut world = World::new(&[("a", 5)]);
    let other = world.join(&["a"]);
    let old = world.join_as(Some("x"), &["a"]).expect("joins");
    world.settle();
    let (kept, moved) = (world.grant(other), world.grant(old));
    let other_epoch = world.group.grant(other).map(|grant| grant.epoch);
    assert_eq!(world.leave(old, Some("x"), true), Ok(()));
    assert_eq!(world.grant(old), moved);
    assert_eq!(world.beat(old, Some("x"), 0), Err(MembershipError::UnknownMember), "who left has to join again");
    let new = world.join_as(Some("x"), &["a"]).expect("joins");
    assert!(new > old && world.group.grant(old).is_none());
    assert_eq!(world.grant(new), moved.iter().map(|(partition, _)| (*partition, new.0)).collect::<Vec<_>>());
    assert_eq!(
        (world.grant(other), world.group.grant(other).map(|grant| grant.epoch)),
        (kept, other_epoch),
        "the other one notices nothing"
    );
    world.ack(new);
    assert!(world.group.is_settled());
}

#[test]
fn a_place_that_is_kept_for_nobody_times_out() {
    let mut world = World::new(&[("a", 4)]);
    let away = world.join_as(Some("x"), &["a"]).expect("joins");
    world.ack(away);
    assert_eq!(world.leave(away, Some("x"), true), Ok(()));
    let other = world.join(&["a"]);
    assert_eq!(world.grant(other).len(), 2, "who is away has nothing in force: what it gives up is free");
    world.ack(other);
    world.now_us += SESSION_US;
    assert_eq!(world.expire(), [away, other]);
    assert!(world.group.is_empty());
}

#[test]
fn who_is_replaced_is_fenced_and_what_it_was_giving_up_is_free() {
    let mut world = World::new(&[("a", 4)]);
    let old = world.join_as(Some("x"), &["a"]).expect("joins");
    world.ack(old);
    let other = world.join(&["a"]);
    assert_eq!(world.grant(other), []);
    let new = world.join_as(Some("x"), &["a"]).expect("joins");
    assert_eq!(world.grant(new), [(0, new.0), (1, new.0)]);
    assert_eq!(world.grant(other), [(2, new.0), (3, new.0)]);
    assert_eq!(world.beat(old, Some("x"), 0), Err(MembershipError::Fenced));
    assert_eq!(world.leave(old, Some("x"), false), Err(MembershipError::Fenced));
    assert_eq!(world.beat(old, None, 0), Err(MembershipError::UnknownMember));
    assert_eq!(world.beat(new, Some("y"), 0), Err(MembershipError::UnknownMember));
    assert_eq!(world.beat(MemberId(new.0 + 1), Some("x"), 0), Err(MembershipError::UnknownMember));
}

#[test]
fn who_takes_over_with_other_topics_gets_those() {
    let mut world = World::new(&[("a", 3), ("b", 3)]);
    let other = world.join(&["a"]);
    world.join_as(Some("x"), &["a"]).expect("joins");
    world.settle();
    let new = world.join_as(Some("x"), &["b"]).expect("joins");
    world.settle();
    assert_eq!(world.grant(other).iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(world.grant(new).iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn an_acknowledgement_of_what_was_never_told_is_refused() {
    let mut world = World::new(&[("a", 4)]);
    let id = world.join(&["a"]);
    let refused = MembershipError::EpochAhead { acked_epoch: id.0 + 1, granted_epoch: id.0 };
    assert_eq!(world.beat(id, None, id.0 + 1), Err(refused));
    let deadline_us = world.group.next_deadline_us();
    world.now_us += 5;
    assert_eq!(world.beat(id, None, id.0 + 1), Err(refused));
    assert_eq!(world.group.next_deadline_us(), deadline_us, "a refused word is none");
}

#[test]
fn a_late_acknowledgement_does_not_take_back_a_newer_one() {
    let mut world = World::new(&[("a", 4)]);
    let id = world.join(&["a"]);
    world.ack(id);
    assert_eq!(world.beat(id, None, 0), Ok(()));
    assert!(world.group.is_settled());
}

#[test]
fn settings_are_the_groups() {
    let mut world = World::new(&[("a", 4)]);
    let first = world.join_as(Some("x"), &["a"]).expect("joins");
    world.assignor = Assignor::Uniform;
    let refused = world.join_as(None, &["a"]).expect_err("mixed");
    assert_eq!(
        refused.to_string(),
        "mixed settings: the group has assignor sticky, session timeout 10000 ms; \
         the joiner wants assignor uniform, session timeout 10000 ms"
    );
    let alone = world.join_as(Some("x"), &["a"]).expect("who replaces the only member may bring others");
    assert_eq!(world.group.settings().map(|settings| settings.assignor), Some(Assignor::Uniform));
    assert_eq!(world.beat(first, Some("x"), 0), Err(MembershipError::Fenced));
    assert_eq!(world.leave(alone, Some("x"), false), Ok(()));
    world.assignor = Assignor::Sticky;
    world.join(&["a"]);
    assert_eq!(world.group.settings(), Some(Settings { assignor: Assignor::Sticky, session_timeout_ms: SESSION_MS }));
}

#[test]
fn an_administrator_is_alone() {
    let mut world = World::new(&[("a", 2)]);
    let alone = |instance| Join {
        instance,
        client: "seek",
        topics: &["a"],
        session_timeout_ms: SESSION_MS,
        assignor: Assignor::Sticky,
        only_if_empty: true,
    };
    let member = world.join(&["a"]);
    let try_alone = |world: &mut World| world.run(|group, now_us, of, changes| group.join(now_us, &alone(None), of, changes));
    assert_eq!(try_alone(&mut world), Err(MembershipError::GroupNotEmpty));
    assert_eq!(world.leave(member, None, false), Ok(()));
    let administrator = try_alone(&mut world).expect("empty");
    assert_eq!(world.grant(administrator).len(), 2);
    assert_eq!(world.join_as(None, &["a"]), Err(MembershipError::Busy));
    assert_eq!(try_alone(&mut world), Err(MembershipError::Busy));
    world.restart();
    assert_eq!(world.join_as(None, &["a"]), Err(MembershipError::Busy));
    world.now_us += SESSION_US;
    assert_eq!(world.expire(), [administrator]);
    assert!(world.join_as(None, &["a"]).is_ok());
}

#[test]
fn limits_have_errors() {
    let mut world = World::new(&[("a", 2)]);
    let base =
        Join { instance: None, client: "", topics: &["a"], session_timeout_ms: 1_000, assignor: Assignor::Sticky, only_if_empty: false };
    let long = "x".repeat(256);
    let (name, instance) = ("y".repeat(250), "z".repeat(INSTANCE_BYTES_MAX));
    let many: Vec<String> = (0..=TOPICS_PER_MEMBER_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (few, twice) = (&many[1..], ["a"; 200]);
    let mut refused = |join: Join<'_>| world.run(|group, now_us, of, changes| group.join(now_us, &join, of, changes)).err();
    assert_eq!(refused(Join { topics: &[], ..base }), Some(MembershipError::TopicCount(0)));
    assert_eq!(refused(Join { topics: &many, ..base }), Some(MembershipError::TopicCount(101)));
    assert_eq!(refused(Join { topics: &["a", ""], ..base }), Some(MembershipError::TopicNameBytes(0)));
    assert_eq!(refused(Join { topics: &[&name], ..base }), Some(MembershipError::TopicNameBytes(250)));
    assert_eq!(refused(Join { instance: Some(""), ..base }), Some(MembershipError::InstanceBytes(0)));
    assert_eq!(refused(Join { instance: Some(&name), ..base }), Some(MembershipError::InstanceBytes(250)));
    assert_eq!(refused(Join { client: &long, ..base }), Some(MembershipError::ClientBytes(256)));
    for session_timeout_ms in [0, 999, 3_600_001, u32::MAX] {
        let error = MembershipError::SessionTimeout { session_timeout_ms };
        assert_eq!(refused(Join { session_timeout_ms, ..base }), Some(error));
        assert!(error.to_string().ends_with("1000 to 3600000 ms"), "{error}");
    }
    assert_eq!(refused(Join { topics: few, instance: Some(&instance), client: &long[1..], ..base }), None);
    assert_eq!(refused(Join { topics: &twice, ..base }), None);
    for _ in 2..MEMBERS_MAX {
        let join = Join { topics: &["none"], ..base };
        world.group.join(0, &join, &|_, _| (), &mut world.log).expect("there is room");
    }
    let mut refused = |join: Join<'_>| world.group.join(0, &join, &|_, _| (), &mut world.log).err();
    assert_eq!(refused(base), Some(MembershipError::TooManyMembers));
    assert_eq!(refused(Join { instance: Some(&instance), ..base }), None, "who replaces one needs no room");
}

#[test]
fn a_deleted_topic_needs_nobodys_word() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    let (first, second) = (world.join(&["a", "b"]), world.join(&["a", "b"]));
    // The second one has nothing yet: the first one has not let go.
    let before = world.group.epoch();
    world.topics.remove("b");
    world.partitions_changed();
    assert_eq!(world.group.epoch(), before + 1);
    assert!((4..8).all(|partition| world.group.owner(PartitionUid(partition)).is_none()));
    let (grant, told) = (world.grant(first), world.group.grant(first).map(|grant| grant.epoch));
    assert!(grant.iter().all(|(partition, epoch)| *partition < 4 && *epoch == first.0), "{grant:?}");
    assert_eq!(told, Some(before + 1), "it is told");
    world.settle();
    assert_eq!((world.grant(first).len(), world.grant(second).len()), (2, 2));
    world.partitions_changed();
    assert!(world.group.is_settled());
}

#[test]
fn whose_topic_is_deleted_is_told() {
    let mut world = World::new(&[("a", 2)]);
    let id = world.join(&["a"]);
    world.ack(id);
    world.topics.clear();
    world.partitions_changed();
    assert_eq!((world.grant(id), world.group.grant(id).map(|grant| grant.epoch)), (vec![], Some(id.0 + 1)));
    assert!(!world.group.is_settled());
    world.settle();
}

#[test]
fn a_large_group_changes_in_one_operation() {
    let settings = Some(Settings { assignor: Assignor::Sticky, session_timeout_ms: SESSION_MS });
    let names: Vec<String> = (0..TOPICS_PER_MEMBER_MAX).map(|number| number.to_string()).collect();
    let mut records = vec![Change::Group { epoch: MEMBERS_MAX as u64, settings }];
    for member in (1..=MEMBERS_MAX as u64).map(MemberId) {
        let (instance, client) = (None, String::new());
        records.push(Change::Member { member, granted_epoch: member.0, is_exclusive: false, instance, client });
        records.push(Change::Topics { member, first: 0, topics: names.clone() });
    }
    let mut durable = Durable::new(0);
    durable.apply(&records).expect("makes sense");
    let mut group = Group::resume(UID, durable, 0);
    let of = |name: &str, out: &mut Vec<PartitionUid>| {
        let topic: u64 = name.parse().expect("a number");
        out.extend((0..100).map(|number| PartitionUid(topic * 100 + number)));
    };
    let mut changes = Vec::new();
    group.on_partitions_changed(&of, &|_| true, &mut changes);
    assert_eq!((changes.len(), group.members().all(|member| member.grant.partitions().len() == 10)), (1 + 10_000, true));
    changes.clear();
    assert_eq!(group.leave(0, MemberId(500), None, false, &of, &mut changes), Ok(()));
    assert_eq!(changes.len(), 1 + 1 + 10, "the epoch, who left, and its ten partitions");
}

#[test]
fn a_topic_that_grows_gives_what_is_new_to_those_with_the_least() {
    let mut world = World::new(&[("a", 3)]);
    let (first, second) = (world.join(&["a", "later"]), world.join(&["a", "later"]));
    world.settle();
    let (one, two) = (world.grant(first), world.grant(second));
    world.grow("a", 1);
    world.grow("later", 4);
    world.partitions_changed();
    world.settle();
    assert_eq!(world.counts(), [4, 4]);
    assert!(one.iter().all(|entry| world.grant(first).contains(entry)) && two.iter().all(|entry| world.grant(second).contains(entry)));
}

#[test]
fn topics_change_with_a_heartbeat() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let (first, second) = (world.join(&["a"]), world.join(&["b"]));
    world.settle();
    let heartbeat = Heartbeat { instance: None, acked_epoch: 0, wait_ms: 0, topics: Some(&["b", "b", "a"]) };
    let beat = |world: &mut World| world.run(|group, now_us, of, changes| group.heartbeat(now_us, first, &heartbeat, of, changes));
    assert_eq!(beat(&mut world), Ok(()));
    let epoch = world.group.epoch();
    assert_eq!(beat(&mut world), Ok(()), "the same topics");
    assert_eq!((world.group.epoch(), world.counts()), (epoch, vec![2, 2]));
    assert_eq!(world.leave(second, None, false), Ok(()));
    assert_eq!(world.counts(), [4]);
    // A topic that nobody reads any more is still not anybody else's before it is let go.
    let only_b = Heartbeat { instance: None, acked_epoch: 0, wait_ms: 0, topics: Some(&["b"]) };
    assert_eq!(world.run(|group, now_us, of, changes| group.heartbeat(now_us, first, &only_b, of, changes)), Ok(()));
    let third = world.join(&["a"]);
    assert_eq!(world.grant(third), []);
    world.ack(first);
    assert_eq!(world.grant(third).len(), 2);
}

#[test]
fn more_members_than_partitions() {
    let mut world = World::new(&[("a", 3)]);
    let ids: Vec<MemberId> = (0..5).map(|_| world.join(&["a"])).collect();
    world.settle();
    assert_eq!(world.counts(), [1, 1, 1, 0, 0]);
    assert_eq!(world.leave(ids[1], None, false), Ok(()));
    assert_eq!(world.counts(), [1, 1, 1, 0]);
    let before = world.group.epoch();
    assert_eq!(world.leave(ids[4], None, false), Ok(()));
    assert!(world.group.is_settled() || world.group.epoch() == before + 1);
}

#[test]
fn what_comes_back_before_it_was_let_go_is_granted_anew() {
    let mut world = World::new(&[("a", 2)]);
    let first = world.join(&["a"]);
    world.ack(first);
    let second = world.join(&["a"]);
    assert_eq!(world.leave(second, None, false), Ok(()));
    assert_eq!(world.grant(first), [(0, 101)], "it may have stopped on the other one: it has to say so first");
    world.ack(first);
    assert_eq!(world.grant(first), [(0, 101), (1, world.group.epoch())]);
}

#[test]
fn a_restart_at_every_point_moves_nothing() {
    for assignor in [Assignor::Sticky, Assignor::Uniform] {
        let mut world = World { assignor, ..World::new(&[("a", 7)]) };
        let mut ids = Vec::new();
        for step in 0..12 {
            match step % 4 {
                3 => world.leave(ids.remove(0), None, false).expect("is there"),
                _ => ids.push(world.join(&["a"])),
            }
            for acks in 0..=ids.len() {
                let before = world.group.durable().clone();
                world.restart();
                assert_eq!(world.group.durable(), &before, "step {step}, {acks} acknowledged");
                ids.iter().take(acks).for_each(|id| world.ack(*id));
            }
        }
        world.settle();
        assert_eq!(world.group.next_deadline_us(), Some(world.now_us + SESSION_US));
    }
}
