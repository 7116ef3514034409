//! Several nodes: whom a member asks for its home, and what it believes of leaders.

use super::*;
use crate::fake::nodes::node_at;
use crate::types::Metadata;

const NEXT: &str = "127.0.0.1:7421";

fn three_nodes() -> (Rig, u64) {
    let config = GroupConfig { auto_commit: false, ..GroupConfig::new("g", &["t"]) };
    let (mut rig, uids) = Rig::with(config, 1);
    rig.broker.nodes.others = vec![node_at(2, 7420, 7421), node_at(3, 7430, 7431)];
    rig.broker.group.next_list = uids.iter().map(|uid| (*uid, 5)).collect();
    rig.broker.next_of_refusals = NEXT.to_string();
    (rig, uids[0])
}

impl Rig {
    fn talks_to(&self, node: u32) -> bool {
        self.core.lanes.iter().any(|lane| lane.owner.node == node && lane.open)
    }
}

#[test]
fn the_node_that_a_refusal_names_is_asked_for_the_home_at_once() {
    let (mut rig, _) = three_nodes();
    rig.broker.refuse_requests.push_back((Kind::FindGroup, ErrorCode::NotLeader));
    rig.turn();
    assert!(rig.core.member_id().is_some());
    assert_eq!((rig.broker.count(Kind::FindGroup), rig.broker.count(Kind::JoinGroup)), (2, 1));
    assert!(rig.talks_to(2));
}

#[test]
fn a_home_that_names_another_node_is_followed_there_at_once() {
    let (mut rig, _) = three_nodes();
    rig.broker.refuse_requests.push_back((Kind::JoinGroup, ErrorCode::NotLeader));
    rig.turn();
    assert!(rig.core.member_id().is_some() && rig.talks_to(2));
    assert_eq!((rig.broker.count(Kind::FindGroup), rig.broker.count(Kind::JoinGroup)), (1, 2));
}

#[test]
fn nodes_that_name_each_other_are_asked_with_waits() {
    let (mut rig, _) = three_nodes();
    rig.broker.refuse_requests.extend([(Kind::FindGroup, ErrorCode::NotLeader); 1_000]);
    for _ in 0..100 {
        rig.turn();
        rig.later(100_000);
    }
    let asked = rig.broker.count(Kind::FindGroup);
    assert!((20..400).contains(&asked), "{asked} in 10 s");
}

#[test]
fn nodes_that_are_gone_are_passed_over_when_the_home_is_looked_for() {
    let (mut rig, _) = three_nodes();
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let now = rig.now();
        rig.core.step(now);
        if rig.core.wish.is_due(now) {
            rig.core.learn(&rig.broker.view(), now);
            rig.core.step(now);
        }
        for lane in 0..rig.core.lane_count() {
            if rig.core.wants_connection(lane, now) {
                let node = rig.core.owner(lane).node;
                asked.insert(node);
                rig.core.on_connecting(lane);
                rig.core.on_lost(lane, Error::config("nobody is there"), now);
            }
        }
        rig.now_us += 300_000;
    }
    assert_eq!(asked, [1, 2, 3].into());
    // Whoever comes back is asked, and answers.
    for _ in 0..10 {
        rig.turn();
        rig.now_us += 300_000;
    }
    assert!(rig.core.member_id().is_some());
}

#[test]
fn offsets_are_committed_at_the_leader_of_the_highest_term() {
    let (mut rig, uid) = three_nodes();
    rig.turn();
    let epoch = rig.broker.view_epoch;
    for (at, node, term, leads) in [(epoch, 2, 5, 2), (epoch + 3, 3, 4, 2), (epoch + 3, 3, 0, 2), (epoch, 3, 5, 2), (epoch, 3, 6, 3)] {
        rig.broker.nodes.leaders.insert(uid, (node, 0, term));
        let (view, now) = (Metadata { view_epoch: at, ..rig.broker.view() }, rig.now());
        rig.core.learn(&view, now);
        assert_eq!(rig.core.places[&uid].1.leader_node, leads, "epoch {at} node {node} term {term}");
    }
    let job = rig.commit(CommitKind::Sync, &[(0, 3)]);
    rig.turn();
    assert!(rig.core.take_job(job).is_some_and(|outcomes| outcomes.iter().all(|outcome| outcome.error.is_none())));
    assert!(rig.talks_to(3) && !rig.talks_to(2));
}

#[test]
fn where_the_home_that_a_node_names_does_not_do_another_node_is_asked() {
    let (mut rig, _) = three_nodes();
    rig.broker.next_of_refusals = String::new();
    rig.broker.refuse_requests.extend([(Kind::JoinGroup, ErrorCode::NotReady); 12]);
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..400 {
        rig.turn();
        asked.extend((1..=3).filter(|node| rig.talks_to(*node)));
        rig.later(50_000);
    }
    assert_eq!(asked, [1, 2, 3].into());
    assert!(rig.core.member_id().is_some(), "whoever says it right is believed");
}
