//! Several nodes: streams go on at another leader, at the positions reached.

use super::*;
use crate::core::cluster::Owner;
use crate::fake::nodes::node_at;
use crate::types::{Metadata, PartitionMetadata};

const NEXT: &str = "127.0.0.1:7421";

/// Three records of the one partition were read from node 1.
fn reading() -> (Rig, u64) {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.broker.nodes.others = vec![node_at(2, 7420, 7421), node_at(3, 7430, 7431)];
    rig.broker.view_epoch += 1;
    rig.core.learn_nodes(&rig.broker.view());
    rig.put_numbered(uids[0], 3);
    rig.assign(0, 0);
    rig.turn();
    assert_eq!(rig.offsets(), [0, 1, 2]);
    (rig, uids[0])
}

impl Rig {
    fn lose(&mut self, lane: usize) {
        let now = self.now();
        self.broker.disconnect(self.conns[lane]);
        self.core.on_lost(lane, Error::config("gone"), now);
    }

    fn leader(&self) -> Owner {
        self.core.lanes[self.core.parts[0].lane].owner
    }
}

#[test]
fn after_its_leaders_death_a_stream_goes_on_at_the_next_one() {
    let (mut rig, uid) = reading();
    rig.lose(0);
    rig.put_numbered(uid, 2);
    rig.broker.nodes.leaders.insert(uid, (2, 0, 2));
    rig.broker.node = 2;
    rig.turn();
    assert_eq!(rig.leader(), Owner { node: 2, shard: 0 });
    assert_eq!(rig.offsets(), [0, 1, 2, 3, 4], "no wait is due for a node that has refused nothing");
    assert!(rig.errors.is_empty());
}

#[test]
fn a_stream_goes_at_once_to_the_leader_that_a_refusal_names() {
    let (mut rig, uid) = reading();
    rig.broker.next_of_refusals = NEXT.to_string();
    rig.broker.refuse_requests.push_back((Kind::Fetch, ErrorCode::NotLeader));
    rig.lose(0);
    rig.put_numbered(uid, 2);
    rig.now_us += 1_000; // the wait before it connects again
    rig.turn();
    // Metadata, which were asked for, still tell the leader of before.
    assert_eq!(rig.leader(), Owner { node: 2, shard: 0 });
    assert_eq!(rig.offsets(), [0, 1, 2, 3, 4]);
    assert!(rig.errors.is_empty());
}

#[test]
fn a_partition_that_its_old_leader_refuses_waits_for_nothing_once_the_new_one_is_known() {
    let (mut rig, uid) = reading();
    let now = rig.now();
    rig.core.entry_failed(0, ErrorCode::NotLeader, None, now);
    rig.put_numbered(uid, 1);
    rig.broker.nodes.leaders.insert(uid, (3, 0, 2));
    rig.broker.node = 3;
    rig.turn();
    assert_eq!((rig.offsets(), rig.leader().node), (vec![0, 1, 2, 3], 3));
}

#[test]
fn the_highest_term_is_believed_whatever_the_epoch_it_comes_with() {
    let (mut rig, uid) = reading();
    let epoch = rig.broker.view_epoch;
    let view = |rig: &mut Rig, view_epoch: u64, node: u32, term: u64| {
        rig.broker.nodes.leaders.insert(uid, (node, 0, term));
        Metadata { view_epoch, ..rig.broker.view() }
    };
    for (at, node, term, leads) in
        [(epoch, 2, 5, 2), (epoch + 3, 3, 4, 2), (epoch + 3, 3, 0, 2), (epoch, 3, 5, 2), (epoch, 3, 6, 3), (epoch, 2, 6, 3)]
    {
        let (told, now) = (view(&mut rig, at, node, term), rig.now());
        rig.core.learn(&told, now);
        assert_eq!(rig.leader().node, leads, "epoch {at} node {node} term {term}");
    }
    // A seek by somebody who heard of the leader some time ago.
    let told: PartitionMetadata = view(&mut rig, epoch, 1, 1).topics[0].partitions[0];
    rig.core.assign("t", &told, 1);
    assert_eq!((rig.leader().node, rig.core.position("t", 0)), (3, Some(1)));
}
