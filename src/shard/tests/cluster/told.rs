//! What a node tells of what it does not know: of partitions that another one leads, who that is and no number; of metadata that nobody leads, who is missing.
//!
//! Not here: how a client puts the answers together (client/src/everywhere.rs), real processes (tests/cluster_told.rs).

use super::{Cluster, NODES};
use crate::ids::{GroupId, PartitionUid};
use crate::shard::Shard;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::topics::{CreateFlags, CreateTopicRequest, DescribeTopicReply, DescribeTopicRequest, END_UNKNOWN};

impl Cluster {
    /// Node named as leader, and committed end where one is told, of each partition, by what a node says.
    fn described(&mut self, at: usize) -> Vec<(u64, usize, Option<u64>)> {
        self.nodes[at].replies.clear();
        let asked = self.request(at, Kind::DescribeTopic, &[], |out| DescribeTopicRequest { name: "t" }.encode(out));
        let bytes = self.nodes[at].replies.pop_back().expect("one shard answers at once");
        let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
        assert_eq!(frame.header.correlation, asked);
        let reply = DescribeTopicReply::decode(frame.meta).unwrap();
        let told = |end: u64| (end != END_UNKNOWN).then_some(end);
        reply.partitions.iter().map(|p| (p.uid, p.node as usize - 1, told(p.committed_end))).collect()
    }

    fn group_of(&self, uid: u64) -> GroupId {
        let shard = self.nodes[0].shard.as_ref().expect("it runs");
        let slot = shard.partitions.slot(PartitionUid(uid)).expect("known");
        shard.partitions.get(slot).expect("known").group
    }
}

#[test]
fn numbers_of_a_partition_are_told_by_its_leader_alone() {
    let mut cluster = Cluster::new(1);
    cluster.create_topic();
    for _ in 0..2_000 {
        if cluster.dice.chance(10) {
            cluster.produce();
        }
        cluster.happen();
    }
    cluster.happen_until("an end", |cluster| cluster.is_quiet() && cluster.is_led());
    let uids = cluster.uids.clone();
    let leaders: Vec<usize> = uids.iter().map(|uid| cluster.leader_of(cluster.group_of(*uid))).collect();
    let end = |cluster: &Cluster, at: usize, uid: u64| {
        let shard: &Shard = cluster.nodes[at].shard.as_ref().expect("it runs");
        shard.partitions.get(shard.partitions.slot(PartitionUid(uid)).expect("known")).expect("known").committed_end()
    };
    let mut told = 0;
    for at in 0..NODES {
        let expected: Vec<_> = std::iter::zip(&uids, &leaders)
            .map(|(uid, leader)| (*uid, *leader, (*leader == at).then(|| end(&cluster, at, *uid))))
            .collect();
        assert_eq!(cluster.described(at), expected, "node {}", at + 1);
        told += expected.iter().filter(|(_, _, end)| end.is_some_and(|end| end > 0)).count();
    }
    assert_eq!(told, uids.len(), "each has records, and one node tells of them");
}

#[test]
fn metadata_without_a_majority_are_told_with_who_is_missing() {
    let mut cluster = Cluster::new(2);
    cluster.create_topic();
    let at = cluster.leader_of(GroupId(0));
    for other in (0..NODES).filter(|other| *other != at) {
        cluster.end(other, false);
    }
    cluster.happen_until("nobody who leads", |cluster| cluster.leaders().get(&GroupId(0)).is_none_or(Vec::is_empty));
    cluster.pass(5_000_000);
    cluster.nodes[at].replies.clear();
    let request = CreateTopicRequest { name: "u", partitions: 1, replication: 0, flags: CreateFlags::default(), settings: List::of(&[]) };
    cluster.request(at, Kind::CreateTopic, &[], |out| request.encode(out));
    let bytes = cluster.nodes[at].replies.pop_back().expect("it is refused at once");
    let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
    let body = ErrorBody::decode(frame.meta).unwrap();
    assert_eq!((body.code(), body.next), (Some(ErrorCode::NoMetadataLeader), ""), "{}", body.message);
    let missing: Vec<_> = (0..NODES).filter(|other| *other != at).map(|other| (other + 1).to_string()).collect();
    assert!(body.message.contains(&format!("does not reach nodes {}; start them", missing.join(", "))), "{}", body.message);
    assert!(body.message.contains("2 of their voters (nodes 1, 2, 3)"), "{}", body.message);
}
