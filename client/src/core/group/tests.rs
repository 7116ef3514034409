//! The core against a broker in memory: claims, where to begin, revocation with its commits, fencing, lost connections.

mod nodes;

use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::group::{CommitOffsetsReply, OffsetCommitted};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;

use super::{CommitKind, GroupCore, Notice};
use crate::config::{Config, GroupConfig, OffsetReset};
use crate::core::Now;
use crate::core::links::Lanes;
use crate::error::Error;
use crate::fake::{FakeBroker, carry, reply_to};
use crate::group_listener::{Commit, CommitOutcome};
use crate::link::HelloInfo;

struct Rig {
    core: GroupCore,
    broker: FakeBroker,
    now_us: u64,
    conns: Vec<u32>,
    next_conn: u32,
    /// What was told, as text.
    told: Vec<String>,
    errors: Vec<Error>,
    /// Revocations are answered by hand.
    holds_revocations: bool,
    /// Notices are taken by hand.
    leaves_notices: bool,
}

fn hello() -> HelloInfo {
    HelloInfo {
        protocol: 1,
        cluster_id: [7; 16],
        node: 1,
        shard: 0,
        frame_bytes_max: 8 << 20,
        keepalive_ms: 0,
        idle_timeout_ms: 0,
        nodes: Vec::new(),
    }
}

impl Rig {
    fn with(config: GroupConfig, partitions: u32) -> (Rig, Vec<u64>) {
        let mut broker = FakeBroker::new();
        broker.shard_ports = vec![7411, 7412];
        let uids = broker.create("t", partitions);
        let client = Config { call_timeout: Duration::from_secs(30), ..Config::new("fake:1") };
        let core = GroupCore::new(config, &client, 0).expect("a valid configuration");
        let (conns, told, errors) = (Vec::new(), Vec::new(), Vec::new());
        (Rig { core, broker, now_us: 1, conns, next_conn: 1, told, errors, holds_revocations: false, leaves_notices: false }, uids)
    }

    /// A member that may own all partitions, with epoch 5.
    fn joined(partitions: u32) -> (Rig, Vec<u64>) {
        let config = GroupConfig { auto_commit: false, ..GroupConfig::new("g", &["t"]) };
        let (mut rig, uids) = Rig::with(config, partitions);
        rig.broker.group.next_list = uids.iter().map(|uid| (*uid, 5)).collect();
        rig.turn();
        (rig, uids)
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, utc_us: 0 }
    }

    /// Turns until nothing moves.
    fn turn(&mut self) {
        loop {
            let now = self.now();
            let mut moved = false;
            self.core.step(now);
            if self.core.wish.is_due(now) {
                let names = self.core.topic_names();
                self.core.wish.on_taken(&names);
                self.core.learn(&self.broker.view(), now);
                moved = true;
            }
            for lane in 0..self.core.lane_count() {
                self.conns.resize(self.core.lane_count(), 0);
                if self.core.wants_connection(lane, now) {
                    self.conns[lane] = self.next_conn;
                    self.next_conn += 1;
                    self.core.on_connected(lane, "fake:1", &hello(), now);
                    moved = true;
                }
            }
            for lane in 0..self.conns.len() {
                if self.core.lanes[lane].open {
                    moved |= carry(self.core.conn(lane), &mut self.broker, self.conns[lane]);
                    self.core.on_received(lane, now).expect("the broker speaks the protocol");
                }
            }
            moved |= !self.leaves_notices && self.take_notices(now);
            while let Some(error) = self.core.errors.pop_front() {
                self.errors.push(error);
            }
            if !moved {
                return;
            }
        }
    }

    fn take_notices(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(notice) = self.core.take_notice() {
            any = true;
            let line = match notice {
                Notice::Assigned(parts) => {
                    let parts =
                        parts.iter().map(|(part, _, at)| format!("{}@{}", part.partition, at.map_or("-".into(), |at| at.to_string())));
                    format!("assigned {}", parts.collect::<Vec<_>>().join(" "))
                }
                Notice::Moved(part, _, at) => format!("moved {}@{at}", part.partition),
                Notice::Revoked(parts) => {
                    if !self.holds_revocations {
                        self.core.released(now);
                    }
                    format!("revoked {:?}", parts.iter().map(|part| part.partition).collect::<Vec<_>>())
                }
                Notice::Lost(parts) => format!("lost {:?}", parts.iter().map(|part| part.partition).collect::<Vec<_>>()),
            };
            self.told.push(line);
        }
        any
    }

    fn later(&mut self, us: u64) {
        self.now_us += us;
        self.turn();
    }

    fn commit(&mut self, kind: CommitKind, offsets: &[(u32, u64)]) -> u64 {
        let commit = |&(partition, offset): &(u32, u64)| Commit { topic: "t".into(), partition, offset, metadata: "note".into() };
        let commits: Vec<Commit> = offsets.iter().map(commit).collect();
        self.core.commit(kind, &commits, self.now()).expect("taken")
    }

    fn lose_all_connections(&mut self) {
        for lane in 0..self.conns.len() {
            self.broker.disconnect(self.conns[lane]);
            if self.core.lanes[lane].open {
                let error = Error::io("cannot receive from", "fake:1", std::io::ErrorKind::ConnectionReset.into());
                self.core.on_lost(lane, error, self.now());
            }
        }
    }
}

fn codes(outcomes: &[CommitOutcome]) -> Vec<(u32, Option<ErrorCode>)> {
    outcomes.iter().map(|outcome| (outcome.partition, outcome.error.as_ref().and_then(Error::code))).collect()
}

#[test]
fn it_begins_where_the_group_has_committed_and_else_where_the_settings_say() {
    for (reset, expected) in
        [(OffsetReset::Earliest, "0@3 1@0 2@0"), (OffsetReset::Latest, "0@3 1@0 2@7"), (OffsetReset::None, "0@3 1@- 2@-")]
    {
        let config = GroupConfig { auto_offset_reset: reset, ..GroupConfig::new("g", &["t"]) };
        let (mut rig, uids) = Rig::with(config, 3);
        rig.broker.log(uids[2]).next_offset = 7;
        rig.broker.group.offsets.entry(uids[0]).or_default().offset = Some(3);
        rig.broker.group.next_list = uids.iter().map(|uid| (*uid, 5)).collect();
        rig.turn();
        let mut told: Vec<&str> = rig.told.iter().flat_map(|line| line.strip_prefix("assigned ").expect("no other").split(' ')).collect();
        told.sort_unstable();
        assert_eq!(told.join(" "), expected);
        assert!(rig.broker.group.offsets.values().all(|of| of.claimed == 5), "claimed with the epoch that was given");
        let nothing: Vec<String> = rig.errors.iter().map(ToString::to_string).collect();
        assert_eq!(nothing.len(), if reset == OffsetReset::None { 2 } else { 0 });
        assert!(nothing.iter().all(|text| text.contains("no committed offset") && text.contains("auto_offset_reset")), "{nothing:?}");
        assert!(rig.core.may_deliver(rig.now()));
    }
}

#[test]
fn a_partition_is_given_up_after_its_last_commit_and_the_others_are_not_touched() {
    let (mut rig, uids) = Rig::joined(3);
    assert_eq!(rig.core.assigned().count(), 3);
    assert_eq!(rig.broker.group.members[&1].topics, ["t"]);
    rig.holds_revocations = true;
    rig.told.clear();
    let epoch_before = rig.broker.group.members[&1].in_force;
    rig.broker.set_list(1, &[(uids[0], 5), (uids[1], 5)]);
    rig.turn();
    assert_eq!(rig.told, ["revoked [2]"]);
    assert_eq!(rig.broker.group.members[&1].in_force, epoch_before, "not in force while the application works on it");
    // It commits in its callback; the first answer may pass, so the offset goes again.
    rig.broker.group.commit_refusals.push((uids[2], ErrorCode::NotReady));
    rig.commit(CommitKind::Auto, &[(2, 40)]);
    rig.core.released(rig.now());
    rig.turn();
    assert_eq!(rig.broker.group.members[&1].in_force, epoch_before, "not before the commit has arrived");
    rig.later(10_000);
    let of = &rig.broker.group.offsets[&uids[2]];
    assert_eq!((of.offset, of.metadata.as_str()), (Some(40), "note"));
    assert_eq!(rig.broker.group.members[&1].in_force, rig.broker.group.members[&1].epoch);
    assert_eq!(rig.core.assigned().count(), 2);
    assert_eq!(rig.broker.count(Kind::FetchOffsets), 2, "one claim per owner: what stays is claimed once");
    assert!(
        rig.core
            .commit(CommitKind::Sync, &[Commit { topic: "t".into(), partition: 2, offset: 1, metadata: String::new() }], rig.now())
            .is_err()
    );
}

#[test]
fn a_leader_that_does_not_know_the_group_yet_is_asked_again() {
    let config = GroupConfig { auto_commit: false, ..GroupConfig::new("g", &["t"]) };
    let (mut rig, uids) = Rig::with(config, 2);
    rig.broker.group.next_list = uids.iter().map(|uid| (*uid, 5)).collect();
    rig.broker.group.claim_refusals = vec![(uids[1], ErrorCode::UnknownGroup); 3];
    rig.turn();
    assert_eq!(rig.told, ["assigned 0@0"]);
    for _ in 0..10 {
        rig.later(500_000);
    }
    assert_eq!(rig.told, ["assigned 0@0", "assigned 1@0"]);
    assert!(rig.errors.is_empty() && rig.broker.group.claim_refusals.is_empty(), "{:?}", rig.errors);
}

#[test]
fn commits_have_outcomes_one_by_one_and_a_later_owner_takes_the_partition() {
    let (mut rig, uids) = Rig::joined(2);
    rig.broker.group.offsets.get_mut(&uids[1]).expect("claimed").claimed = 6;
    let job = rig.commit(CommitKind::Sync, &[(0, 10), (1, 11)]);
    assert!(rig.core.take_job(job).is_none());
    rig.told.clear();
    rig.turn();
    let mut outcomes = rig.core.take_job(job).expect("done");
    outcomes.sort_by_key(|outcome| outcome.partition);
    assert_eq!(codes(&outcomes), [(0, None), (1, Some(ErrorCode::StaleAssignment))]);
    assert_eq!(rig.told, ["lost [1]"]);
    assert_eq!(rig.core.assigned().map(|part| part.partition).collect::<Vec<_>>(), [0]);
    let job = rig.commit(CommitKind::Async, &[(0, 12)]);
    rig.turn();
    assert!(rig.core.take_job(job + 1000).is_none());
    assert_eq!(codes(&rig.core.take_async().expect("done")), [(0, None)]);
    assert!(rig.core.take_async().is_none());
}

#[test]
fn whoever_was_dropped_hears_of_it_and_joins_again() {
    let (mut rig, uids) = Rig::joined(2);
    rig.told.clear();
    rig.broker.group.members.clear();
    rig.broker.group.next_list = vec![(uids[1], 9)];
    // The held heartbeat's connection breaks, and the next one is refused.
    rig.lose_all_connections();
    for _ in 0..5 {
        rig.later(300_000);
    }
    assert_eq!(rig.told, ["lost [0, 1]", "assigned 1@0"]);
    assert_eq!(rig.core.member_id(), Some(2));
    assert!(rig.errors.is_empty());
}

#[test]
fn a_home_that_moved_is_found_again() {
    let (mut rig, _) = Rig::joined(2);
    let before = rig.broker.count(Kind::JoinGroup);
    rig.told.clear();
    rig.broker.group.home_shard = 1;
    rig.broker.refuse_requests.push_back((Kind::HeartbeatGroup, ErrorCode::NotLeader));
    rig.broker.set_list(1, &[]);
    for _ in 0..5 {
        rig.later(300_000);
    }
    assert_eq!(rig.told, ["revoked [0, 1]"]);
    assert_eq!((rig.broker.count(Kind::JoinGroup), rig.core.member_id()), (before, Some(1)));
    assert_eq!(rig.core.home.map(|home| home.shard), Some(1));
    assert_eq!(rig.broker.group.members[&1].in_force, rig.broker.group.members[&1].epoch);
}

#[test]
fn nothing_is_lost_with_the_connections_and_commits_go_again() {
    let (mut rig, uids) = Rig::joined(2);
    rig.told.clear();
    let job = rig.commit(CommitKind::Sync, &[(0, 10), (1, 11)]);
    rig.core.step(rig.now());
    rig.lose_all_connections();
    for _ in 0..5 {
        rig.later(300_000);
    }
    assert_eq!(codes(&rig.core.take_job(job).expect("done")).iter().filter(|code| code.1.is_none()).count(), 2);
    assert_eq!(uids.iter().map(|uid| rig.broker.group.offsets[uid].offset).collect::<Vec<_>>(), [Some(10), Some(11)]);
    assert!(rig.told.is_empty(), "{:?}", rig.told);
    assert_eq!(rig.broker.count(Kind::JoinGroup), 1);
}

#[test]
fn a_commit_that_is_never_answered_ends_in_time() {
    let (mut rig, _) = Rig::joined(1);
    rig.broker.answer_with(|frame| (frame.header.kind() == Some(Kind::CommitOffsets)).then(Vec::new));
    let job = rig.commit(CommitKind::Sync, &[(0, 10)]);
    rig.later(29_000_000);
    assert!(rig.core.take_job(job).is_none());
    rig.later(1_100_000);
    let outcomes = rig.core.take_job(job).expect("it ends");
    assert!(matches!(outcomes[0].error, Some(Error::Timeout { .. })), "{outcomes:?}");
}

#[test]
fn a_last_commit_that_is_never_answered_keeps_the_next_owner_waiting_for_a_heartbeat_at_most() {
    let (mut rig, uids) = Rig::joined(2);
    rig.holds_revocations = true;
    rig.broker.answer_with(|frame| (frame.header.kind() == Some(Kind::CommitOffsets)).then(Vec::new));
    rig.broker.set_list(1, &[(uids[0], 5)]);
    rig.turn();
    rig.commit(CommitKind::Auto, &[(1, 10)]);
    rig.core.released(rig.now());
    rig.later(9_000_000);
    assert_ne!(rig.broker.group.members[&1].in_force, rig.broker.group.members[&1].epoch);
    rig.later(1_100_000);
    assert_eq!(rig.broker.group.members[&1].in_force, rig.broker.group.members[&1].epoch);
    assert!(matches!(rig.errors.as_slice(), [Error::Timeout { .. }]), "{:?}", rig.errors);
}

#[test]
fn a_commit_ends_in_time_also_where_no_connection_is_to_be_had() {
    let (mut rig, _) = Rig::joined(1);
    rig.lose_all_connections();
    let job = rig.commit(CommitKind::Sync, &[(0, 10)]);
    rig.core.step(rig.now());
    assert!(rig.core.next_step_us(rig.now()) <= 1 + 30_000_000, "its end is due");
    rig.now_us += 30_000_000;
    rig.core.step(rig.now());
    assert!(matches!(rig.core.take_job(job).expect("it ends")[0].error, Some(Error::Timeout { .. })));
}

#[test]
fn without_a_word_from_the_home_nothing_is_handed_out_after_a_session() {
    let (mut rig, _) = Rig::joined(1);
    assert!(rig.core.may_deliver(rig.now()));
    rig.broker.answer_with(|frame| (frame.header.kind() == Some(Kind::HeartbeatGroup)).then(Vec::new));
    rig.later(30_000_000);
    assert!(!rig.core.may_deliver(rig.now()));
    assert_eq!(rig.core.assigned().count(), 1, "they may still be its own");
}

#[test]
fn closing_commits_gives_up_and_leaves() {
    for (instance, keeps) in [(None, false), (Some("one"), true)] {
        let config = GroupConfig { instance_id: instance.map(str::to_string), ..GroupConfig::new("g", &["t"]) };
        let (mut rig, uids) = Rig::with(config, 2);
        rig.broker.group.next_list = uids.iter().map(|uid| (*uid, 5)).collect();
        rig.turn();
        rig.holds_revocations = true;
        rig.core.close(keeps, rig.now());
        rig.turn();
        // What another one's leaving brings is not wanted any more.
        rig.broker.set_list(1, &[(uids[0], 5), (uids[1], 5), (777, 20)]);
        rig.turn();
        assert!(rig.broker.group.left.is_empty() && !rig.core.may_deliver(rig.now()));
        rig.commit(CommitKind::Auto, &[(0, 1), (1, 2)]);
        rig.core.released(rig.now());
        rig.turn();
        assert_eq!(rig.broker.group.left, [(1, keeps)]);
        assert_eq!(uids.iter().map(|uid| rig.broker.group.offsets[uid].offset).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert!(rig.core.is_over() && rig.errors.is_empty());
        assert!(rig.core.lanes.iter().all(|lane| lane.uses == 0), "no owner is of use any more");
    }
}

#[test]
fn commits_by_itself_are_made_when_due_and_only_where_there_is_news() {
    let config = GroupConfig { auto_commit_interval: Duration::from_secs(1), ..GroupConfig::new("g", &["t"]) };
    let (mut rig, uids) = Rig::with(config, 2);
    rig.broker.group.offsets.entry(uids[0]).or_default().offset = Some(4);
    rig.broker.group.next_list = uids.iter().map(|uid| (*uid, 5)).collect();
    rig.turn();
    let at = |partition, offset| Commit { topic: "t".into(), partition, offset, metadata: String::new() };
    assert!(rig.core.is_auto_commit_due(rig.now()));
    rig.core.auto_commit(vec![at(0, 4), at(1, 9)], rig.now());
    rig.turn();
    assert_eq!(uids.iter().map(|uid| rig.broker.group.offsets[uid].commits).collect::<Vec<_>>(), [0, 1]);
    assert!(!rig.core.is_auto_commit_due(rig.now()));
    rig.now_us += 1_000_000;
    assert!(rig.core.is_auto_commit_due(rig.now()));
    // Refused for good: told, and tried again the next time.
    rig.broker.group.commit_refusals.push((uids[1], ErrorCode::OffsetOutOfRange));
    rig.core.auto_commit(vec![at(0, 4), at(1, 10)], rig.now());
    rig.turn();
    assert_eq!(rig.errors.len(), 1);
    rig.core.auto_commit(vec![at(0, 4), at(1, 10)], rig.now());
    rig.turn();
    assert_eq!(rig.broker.group.offsets[&uids[1]].offset, Some(10));
}

#[test]
fn texts_and_strangers_are_refused_before_anything_is_sent() {
    let (mut rig, _) = Rig::joined(1);
    let mut refused = |partition, metadata: String| {
        let commit = Commit { topic: "t".into(), partition, offset: 1, metadata };
        let now = rig.now();
        rig.core.commit(CommitKind::Sync, &[commit], now).expect_err("refused").to_string()
    };
    assert!(refused(0, "x".repeat(4_097)).contains("4097 bytes"));
    assert!(refused(7, String::new()).contains("not this member's"));
    assert!(rig.core.reset("t", 0) && !rig.core.reset("t", 7));
    rig.told.clear();
    rig.turn();
    assert_eq!(rig.told, ["moved 0@0"]);
}

#[test]
fn an_auto_commit_that_is_due_or_under_way_is_nothing_that_turning_the_membership_alone_waits_for() {
    let config = GroupConfig { auto_commit_interval: Duration::from_secs(1), ..GroupConfig::new("g", &["t"]) };
    let (mut rig, uids) = Rig::with(config, 1);
    rig.broker.group.next_list = vec![(uids[0], 5)];
    rig.turn();
    rig.now_us += 1_000_000;
    assert!(rig.core.is_auto_commit_due(rig.now()));
    assert!(rig.core.next_step_us(rig.now()) > rig.now_us, "due");
    rig.broker.answer_with(|frame| (frame.header.kind() == Some(Kind::CommitOffsets)).then(Vec::new));
    rig.core.auto_commit(vec![Commit { topic: "t".into(), partition: 0, offset: 1, metadata: String::new() }], rig.now());
    rig.later(1_000_000);
    assert_eq!(rig.broker.count(Kind::CommitOffsets), 1);
    assert!(!rig.core.is_auto_commit_due(rig.now()), "one at a time");
    assert!(rig.core.next_step_us(rig.now()) > rig.now_us, "under way");
}

#[test]
fn a_beginning_that_is_looked_for_is_forgotten_when_somebody_seeks_and_looked_for_again_when_needed() {
    for is_cut in [false, true] {
        let (mut rig, _) = Rig::joined(1);
        rig.told.clear();
        assert!(rig.core.reset("t", 0));
        rig.core.step(rig.now());
        rig.core.on_sought("t", 0);
        if is_cut {
            rig.lose_all_connections();
        }
        for _ in 0..3 {
            rig.later(300_000);
        }
        assert!(rig.told.is_empty() && rig.errors.is_empty(), "{:?} {:?}", rig.told, rig.errors);
        // What was sought is out of range.
        assert!(rig.core.reset("t", 0));
        rig.turn();
        assert_eq!(rig.told, ["moved 0@0"], "cut: {is_cut}");
    }
}

#[test]
fn what_was_lost_before_anybody_heard_of_it_is_not_told() {
    let config = GroupConfig { auto_commit: false, ..GroupConfig::new("g", &["t"]) };
    let (mut rig, uids) = Rig::with(config, 3);
    rig.broker.group.next_list = vec![(uids[0], 5)];
    rig.turn();
    assert_eq!(rig.told, ["assigned 0@0"]);
    rig.leaves_notices = true;
    rig.broker.set_list(1, &[(uids[0], 5), (uids[1], 5), (uids[2], 5)]);
    rig.turn();
    rig.core.lose(|uid| uid != uids[2]);
    rig.told.clear();
    rig.take_notices(rig.now());
    assert_eq!(rig.told, ["assigned 2@0", "lost [0]"]);
}

#[test]
fn an_answer_about_another_partition_s_commit_is_not_believed() {
    let (mut rig, _) = Rig::joined(1);
    rig.broker.answer_with(|frame| {
        let entries = [OffsetCommitted { partition_uid: 9, error: ErrorCode::Ok }];
        let reply = || reply_to(frame, |out| CommitOffsetsReply { entries: List::of(&entries) }.encode(out));
        (frame.header.kind() == Some(Kind::CommitOffsets)).then(reply)
    });
    let job = rig.commit(CommitKind::Sync, &[(0, 10)]);
    let now = rig.now();
    rig.core.step(now);
    let mut errors = Vec::new();
    for lane in 0..rig.conns.len() {
        carry(rig.core.conn(lane), &mut rig.broker, rig.conns[lane]);
        errors.extend(rig.core.on_received(lane, now).err().map(|error| error.to_string()));
    }
    assert!(matches!(errors.as_slice(), [error] if error.contains("other questions")), "{errors:?}");
    assert!(rig.core.take_job(job).is_none(), "it is asked again");
}
