//! Refusals of a node that is alone: they say at once what holds.
//!
//! Not here: several nodes (`cluster/told.rs`).

use super::world::World;
use tramline_wire::cluster::{AlterClusterRequest, ClusterAction};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::FLAG_ERROR;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

fn alter(world: &mut World, action: ClusterAction, node: u32, group: u32) {
    let request = AlterClusterRequest { action, node, group, from_node: 0 };
    world.request(Kind::AlterCluster, &[], |out| request.encode(out));
    world.settle();
}

/// The code of the next reply, whether asking again is of use, and its sentence.
fn refusal(world: &mut World) -> (ErrorCode, bool, String) {
    let (_, flags, meta, _) = world.reply().expect("an answer");
    assert_ne!(flags & FLAG_ERROR, 0, "it was not refused");
    let body = ErrorBody::decode(&meta).unwrap();
    (body.code().unwrap(), body.retriable, body.message.to_owned())
}

#[test]
fn a_topic_that_only_a_drained_node_could_have_is_refused_with_the_way_out() {
    let mut world = World::new();
    alter(&mut world, ClusterAction::Drain, 1, 0);
    world.reply_ok();
    let request = CreateTopicRequest { name: "t", partitions: 1, replication: 0, flags: CreateFlags::default(), settings: List::of(&[]) };
    world.request(Kind::CreateTopic, &[], |out| request.encode(out));
    world.settle();
    let (code, retriable, message) = refusal(&mut world);
    assert_eq!((code, retriable), (ErrorCode::InvalidRequest, false), "{message}");
    assert!(message.contains("node 1 is drained") && message.contains("tramctl cluster undrain 1"), "{message}");
    alter(&mut world, ClusterAction::Undrain, 1, 0);
    world.reply_ok();
    world.create_topic("t", 1, &[]);
}

#[test]
fn a_group_that_has_its_majority_is_not_recovered_and_that_is_said_at_once() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let group = world.shard.led().map(|(group, _)| group.0).max().expect("groups");
    alter(&mut world, ClusterAction::UncleanRecover, 0, group);
    let (code, retriable, message) = refusal(&mut world);
    assert_eq!((code, retriable), (ErrorCode::InvalidRequest, false), "{message}");
    assert!(message.contains("1 of 1 replicas are a majority"), "{message}");
}
