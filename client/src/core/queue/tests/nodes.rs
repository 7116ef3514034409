//! Several nodes: messages are received from, and settled at, whoever leads their partition.

use super::*;
use crate::fake::nodes::node_at;
use crate::types::Metadata;

const NEXT: &str = "127.0.0.1:7421";

/// A queue of one partition that node 1 leads, with so many messages.
fn filled(count: usize) -> (Rig, u64) {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.broker.nodes.others = vec![node_at(2, 7420, 7421), node_at(3, 7430, 7431)];
    rig.broker.view_epoch += 1;
    let (view, now) = (rig.broker.view(), rig.now());
    Lanes::learn(&mut rig.core, &view, now);
    rig.put(uids[0], Codec::None, &["a", "b", "c"][..count]);
    rig.broker.next_of_refusals = NEXT.to_string();
    (rig, uids[0])
}

impl Rig {
    fn leader(&self) -> u32 {
        self.core.lanes[self.core.parts[0].lane].owner.node
    }
}

#[test]
fn the_leader_that_a_refusal_names_is_asked_within_the_call() {
    let (mut rig, _) = filled(2);
    rig.broker.refuse_requests.push_back((Kind::Receive, ErrorCode::NotLeader));
    assert_eq!(values(&rig.receive(2)), ["a", "b"]);
    assert_eq!(rig.leader(), 2);
}

#[test]
fn messages_are_settled_at_the_leader_that_a_refusal_names() {
    let (mut rig, _) = filled(1);
    let token = rig.receive(1)[0].token;
    rig.broker.refuse_requests.push_back((Kind::Settle, ErrorCode::NotLeader));
    assert!(rig.settle(&[(token, Settle::Ack)])[0].is_ok());
    assert_eq!(rig.leader(), 2);
}

#[test]
fn after_a_leaders_death_messages_come_from_the_next_one_and_leases_hold_there() {
    let (mut rig, uid) = filled(3);
    let token = rig.receive(1)[0].token;
    rig.lose(0);
    rig.broker.nodes.leaders.insert(uid, (3, 0, 2));
    assert!(rig.settle(&[(token, Settle::Ack)])[0].is_ok());
    assert_eq!(values(&rig.receive(2)), ["b", "c"]);
    assert_eq!(rig.leader(), 3);
}

#[test]
fn the_highest_term_is_believed_whatever_the_epoch_it_comes_with() {
    let (mut rig, uid) = filled(1);
    let epoch = rig.broker.view_epoch;
    for (at, node, term, leads) in [(epoch, 2, 5, 2), (epoch + 3, 3, 4, 2), (epoch + 3, 3, 0, 2), (epoch, 3, 5, 2), (epoch, 3, 6, 3)] {
        rig.broker.nodes.leaders.insert(uid, (node, 0, term));
        let (view, now) = (Metadata { view_epoch: at, ..rig.broker.view() }, rig.now());
        Lanes::learn(&mut rig.core, &view, now);
        assert_eq!(rig.leader(), leads, "epoch {at} node {node} term {term}");
    }
    assert_eq!(rig.core.lanes.iter().map(|lane| lane.parts).sum::<usize>(), 1);
}
