//! Consumer groups over nodes: who is said to lead their home, who deletes them, and that one which is used anywhere is not taken for one that nobody uses.
//!
//! Not here: members and queues through faults (`queues.rs`), one node alone (`tests/groups.rs`), real clients (tests/cluster_groups.rs).

use super::queues::join_of;
use super::{Cluster, NODES};
use crate::config::Settings;
use crate::ids::GroupId;
use crate::shard::Shard;
use std::sync::Arc;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::{self, Need};
use tramline_wire::group::{
    CommitOffsetsReply, CommitOffsetsRequest, DeleteGroupRequest, FindGroupFlags, FindGroupReply, FindGroupRequest, JoinGroupReply,
    LeaveFlags, LeaveGroupRequest, OffsetCommit,
};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;

/// A body, or why there is none and where to go.
type Answer = Result<Vec<u8>, (ErrorCode, String)>;

impl Cluster {
    /// Asks a node, and waits for its answer.
    fn ask_node(&mut self, at: usize, kind: Kind, meta: impl Fn(&mut Vec<u8>)) -> Answer {
        let asked = self.request(at, kind, &[], &meta);
        for _ in 0..200_000 {
            while let Some(bytes) = self.nodes[at].replies.pop_front() {
                let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
                if frame.header.correlation == asked && frame.header.flags & frame::FLAG_ERROR != 0 {
                    let body = ErrorBody::decode(frame.meta).expect("an error");
                    return Err((body.code().expect("known"), body.next.to_owned()));
                }
                if frame.header.correlation == asked {
                    return Ok(frame.meta.to_vec());
                }
            }
            self.happen_but_replies();
        }
        panic!("node {at} does not answer\n{}", self.describe());
    }

    /// Asks as a client does: first some node, then whom it names, until somebody does it or refuses for good.
    fn ask_around(&mut self, first: usize, kind: Kind, meta: impl Fn(&mut Vec<u8>)) -> Answer {
        let mut at = first;
        for _ in 0..100 {
            match self.ask_node(at, kind, &meta) {
                Err((ErrorCode::NotLeader | ErrorCode::NotReady | ErrorCode::NoMetadataLeader | ErrorCode::LeadershipLost, next)) => {
                    let named = (0..NODES).find(|node| self.info(*node).client.shard_address(crate::ids::ShardId(0)) == next);
                    at = named.filter(|node| self.nodes[*node].shard.is_some()).unwrap_or(first);
                    self.pass(50_000);
                }
                answer => return answer,
            }
        }
        panic!("nobody does {kind:?}\n{}", self.describe());
    }

    fn find_group(&mut self, at: usize, name: &str) -> FindGroupReply {
        let found = self.ask_around(at, Kind::FindGroup, |out| FindGroupRequest { name, flags: FindGroupFlags::CREATE }.encode(out));
        FindGroupReply::decode(&found.expect("a group")).expect("a reply")
    }

    fn delete_group(&mut self, at: usize, name: &str) -> Answer {
        self.ask_around(at, Kind::DeleteGroup, |out| DeleteGroupRequest { name }.encode(out))
    }

    fn home(&self, name: &str) -> Option<GroupId> {
        self.shards().find_map(|(_, shard)| shard.view.group(name).map(|group| group.home))
    }

    /// Nodes whose metadata have the consumer group.
    fn know(&self, name: &str) -> usize {
        self.shards().filter(|(_, shard)| shard.view.group(name).is_some()).count()
    }

    /// As many consumer groups, of which one at least is at home where the metadata are not led; that one is told.
    fn create_groups(&mut self, count: usize) -> String {
        let first = self.leader_of(GroupId(0));
        let names: Vec<String> = (0..count).map(|number| format!("g{number}")).collect();
        names.iter().for_each(|name| assert!(self.find_group(first, name).created));
        self.happen_until("groups on all nodes", |cluster| names.iter().all(|name| cluster.know(name) == NODES));
        self.happen_until("rest", Cluster::is_quiet);
        let (leaders, metadata) = (self.leaders(), self.leader_of(GroupId(0)));
        let away = names.into_iter().find(|name| leaders[&self.home(name).expect("just seen")] != [metadata]);
        away.expect("homes are spread over the nodes")
    }

    fn commit(&mut self, name: &str, uid: u64, offset: u64) {
        let group_uid = self.shards().find_map(|(_, shard)| shard.view.group(name)).expect("it exists").uid.0;
        let group = self.group_known(uid).expect("a partition");
        let at = self.leader_of(group);
        let entry = OffsetCommit { partition_uid: uid, assignment_epoch: 0, offset, metadata: "" };
        let answer =
            self.ask_node(at, Kind::CommitOffsets, |out| CommitOffsetsRequest { group_uid, entries: List::of(&[entry]) }.encode(out));
        let reply = answer.expect("committed");
        let entries = CommitOffsetsReply::decode(&reply).expect("a reply").entries;
        assert!(entries.iter().all(|entry| entry.error.is_ok()), "{entries:?}");
    }

    /// All nodes start anew, and forget groups after ten seconds.
    fn forgets_soon(&mut self) {
        self.settings = Arc::new(Settings { group_expiry_us: 10_000_000, ..Settings::clone(&self.settings) });
        (0..NODES).for_each(|at| self.end(at, false));
        (0..NODES).for_each(|at| self.start(at));
        self.happen_until("leaders", Cluster::is_led);
        self.happen_until("rest", Cluster::is_quiet);
    }
}

#[test]
fn whoever_asks_for_a_group_hears_who_leads_its_home_now() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(seed);
        cluster.create_topic();
        let name = cluster.create_groups(4);
        let home = cluster.home(&name).expect("it exists");
        let gone = cluster.leader_of(home);
        cluster.end(gone, true);
        let others = |shard: &Shard| shard.groups.leads(home) && shard.is_state_ready(home);
        cluster.happen_until("another leader", |cluster| cluster.shards().any(|(_, shard)| others(shard)));
        let leader = cluster.leader_of(home);
        for at in (0..NODES).filter(|at| *at != gone) {
            let mut found = cluster.find_group(at, &name);
            for _ in 0..20 {
                if found.node as usize != gone + 1 {
                    break;
                }
                // Who does not lead it hears of that with the next word of the one that does.
                cluster.pass(100_000);
                found = cluster.find_group(at, &name);
            }
            assert_eq!((found.node as usize, found.created), (leader + 1, false), "seed {seed}, asked of node {}", at + 1);
        }
    }
}

#[test]
fn a_group_is_deleted_where_it_is_at_home_and_one_with_a_member_stays() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(seed);
        cluster.create_topic();
        let name = cluster.create_groups(4);
        let found = cluster.find_group(0, &name);
        let home = found.node as usize - 1;
        let joined = cluster.ask_node(home, Kind::JoinGroup, |out| join_of(found.group_uid).encode(out)).expect("a member");
        let member_id = JoinGroupReply::decode(&joined).expect("a reply").member_id;
        for at in 0..NODES {
            let refused = cluster.delete_group(at, &name).expect_err("it has a member");
            assert_eq!(refused.0, ErrorCode::GroupNotEmpty, "seed {seed}, asked of node {}", at + 1);
        }
        assert_eq!(cluster.know(&name), NODES);
        let leave = LeaveGroupRequest { group_uid: found.group_uid, member_id, flags: LeaveFlags::default(), instance: "" };
        cluster.ask_node(home, Kind::LeaveGroup, |out| leave.encode(out)).expect("it has left");
        cluster.delete_group(seed as usize % NODES, &name).expect("nobody is left");
        cluster.happen_until("a group less on all nodes", |cluster| cluster.know(&name) == 0);
        let refused = cluster.delete_group(home, &name).expect_err("it is gone");
        assert_eq!(refused.0, ErrorCode::UnknownGroup);
    }
}

#[test]
fn a_group_that_is_used_on_one_node_alone_stays_and_what_nobody_uses_goes() {
    for seed in 0..3 {
        let mut cluster = Cluster::new(seed);
        cluster.create_topic();
        let group = cluster.create_with(1);
        let uid = cluster.uids[0];
        cluster.forgets_soon();
        cluster.create_groups(6);
        let alone = cluster.leader_of(group);
        let used: Vec<String> = (0..6).map(|number| format!("g{number}")).collect();
        let leaders = cluster.leaders();
        // Its home is led where nothing of that partition is.
        let used = used.into_iter().find(|name| leaders[&cluster.home(name).expect("it exists")] != [alone]).expect("homes are spread");
        let others = |cluster: &Cluster| (0..6).map(|number| cluster.know(&format!("g{number}"))).sum::<usize>();
        for _second in 0..16 {
            cluster.commit(&used, uid, 0);
            cluster.pass(1_000_000);
        }
        assert_eq!(cluster.know(&used), NODES, "seed {seed}: it is used");
        cluster.happen_until("the others are gone", |cluster| others(cluster) == NODES);
        assert_eq!(cluster.know(&used), NODES, "seed {seed}: it is used");
    }
}

#[test]
fn nothing_is_forgotten_while_a_node_cannot_say_what_is_used_there() {
    let mut cluster = Cluster::new(1);
    cluster.create_topic();
    cluster.forgets_soon();
    let name = cluster.create_groups(4);
    let home = cluster.home(&name).expect("it exists");
    let leader = cluster.leader_of(home);
    let away = (0..NODES).find(|at| *at != leader).expect("three nodes");
    cluster.end(away, true);
    cluster.pass(40_000_000);
    assert_eq!(cluster.know(&name), NODES - 1, "one node is away");
    cluster.start(away);
    cluster.happen_until("it is gone", |cluster| cluster.know(&name) == 0);
}
