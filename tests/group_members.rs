//! Members of consumer groups, as programs have them: the Rust client's `GroupConsumer` against a real node of two shards.
//!
//! Not here: the protocol frame by frame (`groups.rs`), the client's decisions one by one (its own tests), the recipes over real processes that are killed
//! (`group_recipes.rs`).

use common::{Node, Options, WAIT, nodes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tramline_client::{
    Client, Commit, CommitOutcome, Config, ErrorCode, GroupConfig, GroupConsumer, GroupListener, ProducerConfig, Record, Revoked,
    TopicPartition,
};

/// Of addresses: see `nodes`.
const BLOCK: u8 = 42;
const PARTITIONS: u32 = 12;
const TURN: Duration = Duration::from_millis(20);

/// What a listener heard.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Assigned(Vec<u32>),
    Revoked(Vec<u32>),
    Lost(Vec<u32>),
}

#[derive(Clone, Default)]
struct Ear {
    heard: Arc<Mutex<Vec<Heard>>>,
    committed: Arc<Mutex<Vec<CommitOutcome>>>,
}

fn numbers(parts: &[TopicPartition]) -> Vec<u32> {
    let mut numbers: Vec<u32> = parts.iter().map(|part| part.partition).collect();
    numbers.sort_unstable();
    numbers
}

impl Ear {
    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl GroupListener for Ear {
    fn on_assigned(&mut self, parts: &[TopicPartition]) {
        self.heard.lock().unwrap().push(Heard::Assigned(numbers(parts)));
    }
    fn on_revoked(&mut self, revoked: &mut Revoked<'_>) {
        self.heard.lock().unwrap().push(Heard::Revoked(numbers(revoked.partitions())));
    }
    fn on_lost(&mut self, parts: &[TopicPartition]) {
        self.heard.lock().unwrap().push(Heard::Lost(numbers(parts)));
    }
    fn on_committed(&mut self, outcomes: &[CommitOutcome]) {
        self.committed.lock().unwrap().extend_from_slice(outcomes);
    }
}

/// A member with what it was handed out: (partition, offset), in order.
struct Member {
    consumer: GroupConsumer,
    ear: Ear,
    got: Vec<(u32, u64)>,
}

impl Member {
    fn new(client: &Client, config: GroupConfig) -> Member {
        let ear = Ear::default();
        let consumer = client.group_consumer_with(config, ear.clone()).expect("a member");
        Member { consumer, ear, got: Vec::new() }
    }

    fn poll(&mut self) -> usize {
        let got = &mut self.got;
        self.consumer.poll(TURN, |record| got.push((record.partition, record.offset))).expect("no error")
    }

    fn owns(&self) -> BTreeSet<u32> {
        self.consumer.assigned().iter().map(|part| part.partition).collect()
    }
}

/// Polls all of them until it is so.
fn until(members: &mut [&mut Member], what: &str, is_so: impl Fn(&[&mut Member]) -> bool) {
    let end = Instant::now() + WAIT;
    while !is_so(members) {
        assert!(Instant::now() < end, "{what}: {:?}", members.iter().map(|member| (member.owns(), member.ear.heard())).collect::<Vec<_>>());
        for member in members.iter_mut() {
            member.poll();
        }
    }
}

fn shares(members: &[&mut Member], counts: &[usize]) -> bool {
    let all: BTreeSet<u32> = members.iter().flat_map(|member| member.owns()).collect();
    members.iter().map(|member| member.owns().len()).eq(counts.iter().copied()) && all.len() == counts.iter().sum::<usize>()
}

fn config(group: &str) -> GroupConfig {
    GroupConfig { auto_commit_interval: Duration::from_millis(50), ..GroupConfig::new(group, &["t"]) }
}

fn connect(node: &Node) -> Client {
    Client::connect(Config::new(&node.server())).expect("the node answers")
}

/// So many records to each partition.
fn produce(client: &Client, count: u64) {
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    for _ in 0..count {
        for partition in 0..PARTITIONS {
            let record = Record { topic: "t", partition: Some(partition), value: Some(b"value"), ..Record::default() };
            producer.send(&record).expect("taken");
        }
    }
    producer.flush(WAIT).expect("acknowledged");
}

fn node() -> (Node, Client) {
    node_with(Options::shards(2))
}

fn node_with(options: Options) -> (Node, Client) {
    let node = Node::with(options);
    let client = connect(&node);
    client.create_topic("t", PARTITIONS, &[], false).expect("created");
    (node, client)
}

fn committed(client: &Client, group: &str) -> Vec<Option<u64>> {
    client.committed_offsets(group, "t", &(0..PARTITIONS).collect::<Vec<_>>()).expect("told")
}

#[test]
fn members_share_partitions_and_a_third_one_takes_its_share_while_the_others_go_on() {
    let (_node, client) = node();
    produce(&client, 10);
    let (mut one, mut two) = (Member::new(&client, config("g")), Member::new(&client, config("g")));
    until(&mut [&mut one, &mut two], "two share", |members| shares(members, &[6, 6]));
    until(&mut [&mut one, &mut two], "all is read", |members| {
        members.iter().flat_map(|member| &member.got).collect::<BTreeSet<_>>().len() == 10 * PARTITIONS as usize
    });
    // All was read once, but for what the first had before it gave up half: that was committed, so it is not read again either.
    assert_eq!(one.got.len() + two.got.len(), 10 * PARTITIONS as usize);
    let before = [one.owns(), two.owns()];
    let (streams_heard, marks) = ([one.ear.heard().len(), two.ear.heard().len()], [one.got.len(), two.got.len()]);
    let mut three = Member::new(&client, config("g"));
    until(&mut [&mut one, &mut two, &mut three], "three share", |members| shares(members, &[4, 4, 4]));
    for (member, (before, heard)) in [&one, &two].into_iter().zip(before.iter().zip(streams_heard)) {
        assert!(member.owns().is_subset(before), "nothing moves but what the third one gets");
        let gone: Vec<u32> = before.difference(&member.owns()).copied().collect();
        assert_eq!(member.ear.heard()[heard..], [Heard::Revoked(gone)], "what stays is not even mentioned");
    }
    produce(&client, 5);
    until(&mut [&mut one, &mut two, &mut three], "all of it is read", |members| {
        members.iter().map(|member| member.got.len()).sum::<usize>() == 15 * PARTITIONS as usize
    });
    for (member, mark) in [&one, &two].into_iter().zip(marks) {
        assert!(member.got[mark..].iter().all(|(partition, offset)| member.owns().contains(partition) && *offset >= 10));
    }
    for member in [one, two, three] {
        member.consumer.close(WAIT).expect("left");
    }
    assert_eq!(committed(&client, "g"), vec![Some(15); PARTITIONS as usize]);
    let described = client.describe_group("g").expect("told");
    assert!(described.members.is_empty() && described.partitions.iter().all(|partition| partition.lag == 0));
}

#[test]
fn a_static_member_comes_back_to_its_partitions_and_nobody_else_notices() {
    let (_node, client) = node();
    produce(&client, 3);
    let named = |name: &str| GroupConfig { instance_id: Some(name.to_string()), ..config("g") };
    let (mut one, mut two) = (Member::new(&client, named("one")), Member::new(&client, named("two")));
    until(&mut [&mut one, &mut two], "two share", |members| shares(members, &[6, 6]));
    until(&mut [&mut one, &mut two], "all is read", |members| {
        members.iter().map(|member| member.got.len()).sum::<usize>() >= 3 * PARTITIONS as usize
    });
    let (of_one, of_two, heard) = (one.owns(), two.owns(), two.ear.heard().len());
    one.consumer.close(WAIT).expect("gone for a moment");
    for _ in 0..10 {
        two.poll();
    }
    let mut back = Member::new(&client, named("one"));
    until(&mut [&mut back, &mut two], "as before", |members| shares(members, &[6, 6]));
    assert_eq!((back.owns(), two.owns(), two.ear.heard().len()), (of_one, of_two, heard));
    // A second one with the name pushes the first out, which ends.
    let mut twin = Member::new(&client, named("one"));
    let end = Instant::now() + WAIT;
    let error = loop {
        assert!(Instant::now() < end, "it is not pushed out");
        twin.poll();
        if let Err(error) = back.consumer.poll(TURN, |_| {}) {
            break error;
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::MemberFenced));
    assert!(matches!(back.ear.heard().last(), Some(Heard::Lost(lost)) if lost.len() == 6), "{:?}", back.ear.heard());
    assert_eq!(back.consumer.poll(TURN, |_| {}).expect_err("for good").code(), Some(ErrorCode::MemberFenced));
    // Leaving for good gives the partitions to the others.
    twin.consumer.leave(WAIT).expect("left");
    until(&mut [&mut two], "all are its own", |members| shares(members, &[12]));
}

#[test]
fn a_member_that_is_silent_is_dropped_and_its_commits_are_refused() {
    let (_node, client) = node();
    produce(&client, 4);
    let short = || GroupConfig { session_timeout: Duration::from_secs(1), auto_commit: false, ..config("g") };
    let mut silent = Member::new(&client, short());
    until(&mut [&mut silent], "all are its own", |members| shares(members, &[12]) && members[0].got.len() == 4 * PARTITIONS as usize);
    // It works for too long; another one comes, and has everything once the session is over.
    let mut other = Member::new(&client, short());
    until(&mut [&mut other], "all go to the other", |members| shares(members, &[12]));
    until(&mut [&mut other], "and are read again", |members| members[0].got.len() == 4 * PARTITIONS as usize);
    other.consumer.commit_sync().expect("committed by the owner");
    let late = silent.consumer.commit_offsets_sync(&[Commit { topic: "t".into(), partition: 3, offset: 1, metadata: "too late".into() }]);
    assert_eq!(late.expect_err("fenced").code(), Some(ErrorCode::StaleAssignment));
    assert_eq!(committed(&client, "g"), vec![Some(4); PARTITIONS as usize], "nothing was moved back");
    // It hears that it was dropped, and has its share in the end.
    until(&mut [&mut silent, &mut other], "both have some", |members| shares(members, &[6, 6]));
    // The first answer that it finds tells of the other one's coming, so some are revoked; the commit's refusal and the home's tell of the rest.
    let heard = silent.ear.heard();
    let gone = heard.iter().flat_map(|heard| match heard {
        Heard::Lost(gone) | Heard::Revoked(gone) => gone.clone(),
        Heard::Assigned(_) => Vec::new(),
    });
    assert_eq!(gone.collect::<BTreeSet<_>>().len(), PARTITIONS as usize, "{heard:?}");
    assert!(heard.contains(&Heard::Lost(vec![3])), "{heard:?}");
}

#[test]
fn a_node_that_is_killed_takes_no_member_and_no_commit_with_it() {
    // It comes back at its ports, where the members look for it: on an address of its own, where nobody else takes them meanwhile.
    let place = || Options { listen: format!("{}:7410", nodes::host(BLOCK, 0)), ..Options::shards(2) };
    let (mut node, client) = node_with(place());
    produce(&client, 50);
    // Longer than the restart takes, short enough to wait for at the end.
    let by_hand = || GroupConfig { auto_commit: false, session_timeout: Duration::from_secs(10), ..config("g") };
    let (mut one, mut two) = (Member::new(&client, by_hand()), Member::new(&client, by_hand()));
    until(&mut [&mut one, &mut two], "two share and read", |members| {
        shares(members, &[6, 6]) && members.iter().all(|member| member.got.len() >= 100)
    });
    // Ten of each partition are done, and some more was handed out.
    for member in [&mut one, &mut two] {
        let ten = |part: TopicPartition| Commit { topic: part.topic, partition: part.partition, offset: 10, metadata: "ten".into() };
        let commits: Vec<Commit> = member.consumer.assigned().into_iter().map(ten).collect();
        member.consumer.commit_offsets_sync(&commits).expect("committed");
    }
    let ids = [one.consumer.member_id(), two.consumer.member_id()];
    let heard = [one.ear.heard(), two.ear.heard()];
    node.process.kill();
    for member in [&mut one, &mut two] {
        member.poll();
    }
    let node = node.restart_with(place());
    let client = connect(&node);
    assert_eq!(committed(&client, "g"), vec![Some(10); PARTITIONS as usize]);
    produce(&client, 5);
    let distinct = |got: &mut dyn Iterator<Item = &(u32, u64)>| got.copied().collect::<BTreeSet<(u32, u64)>>().len();
    until(&mut [&mut one, &mut two], "all is read", |members| {
        distinct(&mut members.iter().flat_map(|member| &member.got)) == 55 * PARTITIONS as usize
    });
    assert_eq!([one.consumer.member_id(), two.consumer.member_id()], ids, "they are still members");
    assert_eq!([one.ear.heard(), two.ear.heard()], heard, "and nothing has moved");
    for member in [&one, &two] {
        assert_eq!(distinct(&mut member.got.iter()), member.got.len(), "each once: positions live in the members");
    }
    // Both die without a word: others go on from what is committed, not from what was read.
    drop((one, two));
    let mut heir = Member::new(&client, by_hand());
    let dropped = client.describe_group("g").expect("told").members.len();
    assert_eq!(dropped, 2, "the home does not know yet");
    until(&mut [&mut heir], "the heir has all", |members| shares(members, &[12]) && members[0].got.len() == 45 * PARTITIONS as usize);
    assert!(heir.got.iter().all(|(_, offset)| *offset >= 10));
}

#[test]
fn offsets_are_committed_looked_at_and_sought() {
    let (_node, client) = node();
    produce(&client, 6);
    let mut member = Member::new(&client, GroupConfig { auto_commit: false, ..config("g") });
    until(&mut [&mut member], "all is read", |members| members[0].got.len() == 6 * PARTITIONS as usize);
    member.consumer.commit_async().expect("begun");
    let ear = member.ear.clone();
    until(&mut [&mut member], "outcomes are told", |_| ear.committed.lock().unwrap().len() == PARTITIONS as usize);
    assert!(ear.committed.lock().unwrap().iter().all(|outcome| outcome.error.is_none() && outcome.offset == 6));
    assert_eq!(member.consumer.committed("t", &[0, 5]).expect("told"), [Some(6), Some(6)]);
    member.consumer.seek("t", 2, tramline_client::Start::Offset(4)).expect("sought");
    assert!(member.consumer.pause("t", 3) && member.consumer.resume("t", 3));
    let before = member.got.len();
    until(&mut [&mut member], "read again", |members| members[0].got.len() == before + 2);
    assert_eq!(member.got[before..], [(2, 4), (2, 5)]);
    assert!(member.consumer.seek("t", 99, tramline_client::Start::Earliest).expect_err("no such").to_string().contains("not assigned"));
    let beyond = Commit { topic: "t".into(), partition: 1, offset: 99, metadata: String::new() };
    assert_eq!(member.consumer.commit_offsets_sync(&[beyond]).expect_err("beyond").code(), Some(ErrorCode::OffsetOutOfRange));
    let counts: BTreeMap<u32, usize> = member.got.iter().fold(BTreeMap::new(), |mut counts, (partition, _)| {
        *counts.entry(*partition).or_default() += 1;
        counts
    });
    assert_eq!((counts[&2], counts[&3]), (8, 6));
}
