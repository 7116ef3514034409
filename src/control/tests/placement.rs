//! Where replicas go, in clusters of many shapes and after commands in any order.

use super::cluster::{Cluster, spec};
use super::create;
use crate::constants::SHARD_REPLICAS_MAX;
use crate::control::*;
use crate::ids::{GroupId, LogIndex, NodeId, ShardId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Plans what is proposed and brings all moves to their end, until nothing is proposed any more.
pub(super) fn drive(cluster: &mut Cluster) {
    for _round in 0..2_000 {
        let under_way: Vec<_> = cluster.state.view().cluster.groups().iter().filter_map(|group| group.moving).collect();
        for moving in &under_way {
            let step = if moving.drop.is_some() { MoveStep::Forgotten } else { MoveStep::Promoted };
            cluster.take(ClusterCommand::NoteMove { id: moving.id.0, step, conf_index: 1 }).unwrap();
        }
        let proposals = cluster.state.proposals();
        if proposals.is_empty() && under_way.is_empty() {
            return;
        }
        for proposal in proposals {
            cluster.take(proposal).unwrap();
        }
    }
    panic!("moves have no end: {:?}", cluster.state.proposals());
}

/// Per active (node, shard): (groups led by preference, replicas), group 0 left out.
fn loads(cluster: &Cluster) -> BTreeMap<(NodeId, ShardId), (u32, u32)> {
    let view = cluster.state.view();
    let active = view.cluster.nodes().iter().filter(|node| node.state == NodeState::Active);
    let shards = active.flat_map(|node| (0..node.shards).map(|shard| (node.node, ShardId(shard))));
    let mut loads: BTreeMap<_, _> = shards.map(|place| (place, (0, 0))).collect();
    for group in view.cluster.groups().iter().filter(|group| group.id != GroupId(0)) {
        for (at, replica) in group.replicas.iter().enumerate() {
            if let Some(load) = loads.get_mut(&(replica.node, replica.shard)) {
                *load = (load.0 + u32::from(at == 0), load.1 + 1);
            }
        }
    }
    loads
}

fn apart(counts: &[u32]) -> u32 {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

fn racks_of(view: &View, group: &ReplicaGroupView) -> Vec<String> {
    group.replicas.iter().map(|replica| view.cluster.node(replica.node).expect("known").rack.clone()).collect()
}

/// What holds in every state.
fn check_always(state: &State) {
    let view = state.view();
    let mut held: BTreeMap<_, u32> = BTreeMap::new();
    for group in view.cluster.groups() {
        let moved = group.moving.iter().flat_map(|m| [m.add, m.drop]).flatten();
        let all: BTreeMap<_, _> = group.replicas.iter().copied().chain(moved).map(|replica| (replica.id, replica)).collect();
        let nodes: BTreeSet<_> = all.values().map(|replica| replica.node).collect();
        assert_eq!(nodes.len(), all.len(), "two replicas on a node: {group:?}");
        assert!(!group.replicas.is_empty());
        for replica in all.values() {
            let node = view.cluster.node(replica.node).unwrap();
            assert!(replica.shard.0 < node.shards && node.state != NodeState::Removed && node.state != NodeState::Registered, "{group:?}");
            assert_eq!(replica.is_stale, replica.id != crate::ids::ReplicaId::of(node.generation, node.node));
            if !replica.is_stale {
                assert!(
                    view.cluster.groups_on(replica.node, replica.shard).any(|found| found == group),
                    "{replica:?} is not found on its shard"
                );
                *held.entry((replica.node, replica.shard)).or_default() += u32::from(group.id != GroupId(0));
            }
        }
    }
    assert!(held.values().all(|count| *count <= SHARD_REPLICAS_MAX), "{held:?}");
    for (topic, partition) in view.partitions() {
        let group = view.cluster.group(partition.group).expect("known");
        assert!(group.factor >= topic.replicas, "{} has {} replicas, {group:?}", topic.name, topic.replicas);
        assert_eq!((partition.node, partition.shard), (group.replicas[0].node, group.replicas[0].shard));
    }
    let shards = view.cluster.nodes().iter().flat_map(|node| (0..node.shards).map(|shard| (node.node, ShardId(shard))));
    let listed: usize =
        shards.map(|(node, shard)| view.cluster.groups_on(node, shard).filter(|group| group.id != GroupId(0)).count()).sum();
    assert_eq!(listed as u32, held.values().sum::<u32>(), "what is listed on a shard is there");
}

#[test]
fn replicas_of_new_groups_are_even_in_clusters_of_many_shapes() {
    for nodes in 1..=7u32 {
        for shards in 1..=3u16 {
            for replicas in 1..=nodes.min(5) as u8 {
                let mut cluster = Cluster::new();
                (1..=nodes).for_each(|node| cluster.join(spec(node, shards, 4, "")));
                cluster.take(ClusterCommand::CreateGroups { replicas }).unwrap();
                let loads = loads(&cluster);
                let per_shard = if replicas == 1 { 4 } else { 8 };
                assert!(
                    loads.values().all(|(leads, _)| *leads == per_shard),
                    "{nodes} nodes, {shards} shards, {replicas} replicas: {loads:?}"
                );
                // The last ones that are placed find no perfect way any more; what is left is a move or two.
                let held = |loads: &BTreeMap<_, (u32, u32)>| loads.values().map(|(_, held)| *held).collect::<Vec<_>>();
                assert!(apart(&held(&loads)) <= 2, "{nodes} nodes, {shards} shards, {replicas} replicas: {loads:?}");
                check_always(&cluster.state);
                drive(&mut cluster);
                let loads = super::placement::loads(&cluster);
                assert!(apart(&held(&loads)) < 2, "{nodes} nodes, {shards} shards, {replicas} replicas: {loads:?}");
            }
        }
    }
}

#[test]
fn followers_of_a_shard_are_spread_and_stay_on_shards_of_its_number() {
    let mut cluster = Cluster::of(2, 6, &["", "", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    let view = cluster.state.view();
    let mut pairs: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for group in view.cluster.groups().iter().filter(|group| group.factor == 3 && group.id != GroupId(0)) {
        for follower in &group.replicas[1..] {
            assert_eq!(follower.shard, group.replicas[0].shard);
            *pairs.entry((group.replicas[0].node.0, follower.node.0)).or_default() += 1;
        }
    }
    assert_eq!(pairs.len(), 12);
    assert!(pairs.values().all(|groups| (6..=10).contains(groups)), "a dead node's work goes to all others alike: {pairs:?}");
}

#[test]
fn replicas_are_in_as_many_racks_as_can_be() {
    for racks in [&["a", "a", "b", "b", "c", "c"][..], &["a", "a", "a", "b"], &["a", "b", "c", "d", "a"], &["a", "a", "a"], &["a", "b", ""]]
    {
        for replicas in 1..=racks.len().min(5) as u8 {
            let mut cluster = Cluster::of(2, 3, racks);
            cluster.take(ClusterCommand::CreateGroups { replicas }).unwrap();
            let view = cluster.state.view();
            let distinct = racks.iter().collect::<BTreeSet<_>>().len();
            for group in view.cluster.groups().iter().filter(|group| group.factor == replicas && group.id != GroupId(0)) {
                let of_group: BTreeSet<_> = racks_of(&view, group).into_iter().collect();
                assert_eq!(of_group.len(), distinct.min(usize::from(replicas)), "{racks:?}: {group:?}");
            }
        }
    }
}

#[test]
fn a_shard_holds_63_replicas_and_homes_share_the_want() {
    // Families of 1, 3 and 5 with 8 groups per shard would be 72 replicas on each.
    let mut cluster = Cluster::of(2, 8, &["", "", "", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    assert_eq!(cluster.take(ClusterCommand::CreateGroups { replicas: 5 }), Ok(Applied::Groups(62)));
    let loads = loads(&cluster);
    assert!(loads.values().all(|(_, held)| (59..=63).contains(held)), "{loads:?}");
    let leads: Vec<_> = loads.values().map(|(leads, _)| *leads).collect();
    assert!(leads.iter().max().unwrap() - leads.iter().min().unwrap() < 2, "{leads:?}");
    let sentence = cluster.take(ClusterCommand::CreateGroups { replicas: 4 }).unwrap_err().to_string();
    assert!(sentence.starts_with("no shard has room for groups with 4 replicas"), "{sentence}");
    check_always(&cluster.state);
}

#[test]
fn who_joins_gets_homes_in_each_family_and_its_share_by_moves() {
    for (before, after, shards) in [(3, 4, 1), (3, 5, 2), (4, 7, 1), (2, 3, 2), (1, 2, 2)] {
        for replicas in 1..=before.min(3) as u8 {
            let mut cluster = Cluster::new();
            (1..=before).for_each(|node| cluster.join(spec(node, shards, 6, "")));
            cluster.take(ClusterCommand::CreateGroups { replicas }).unwrap();
            (before + 1..=after).for_each(|node| cluster.join(spec(node, shards, 6, "")));
            let homes = if replicas == 1 { 6 } else { 12 };
            assert!(loads(&cluster).values().all(|(leads, _)| *leads == homes), "{:?}", loads(&cluster));
            drive(&mut cluster);
            let loads = loads(&cluster);
            let (leads, held): (Vec<_>, Vec<_>) = loads.values().copied().unzip();
            assert!(apart(&leads) < 2 && apart(&held) < 2, "{before} to {after} nodes, {replicas} replicas: {loads:?}");
            check_always(&cluster.state);
        }
    }
}

#[test]
fn group_0_is_voted_on_by_one_three_or_five_over_racks() {
    let voters = |racks: &[&str]| {
        let mut cluster = Cluster::of(1, 1, racks);
        drive(&mut cluster);
        let view = cluster.state.view();
        let group = view.cluster.group(GroupId(0)).unwrap();
        assert_eq!(group.replicas.len() + group.learners.len(), racks.len(), "all others learn it");
        assert!(group.replicas.iter().chain(&group.learners).all(|replica| replica.shard == ShardId(0)));
        assert!((1..=racks.len() as u32).all(|node| view.cluster.groups_on(NodeId(node), ShardId(0)).any(|g| g.id == GroupId(0))));
        let mut nodes: Vec<_> = group.replicas.iter().map(|replica| replica.node.0).collect();
        nodes.sort_unstable();
        nodes
    };
    assert_eq!(voters(&["a"]), [1]);
    assert_eq!(voters(&["a", "b"]), [1]);
    assert_eq!(voters(&["a", "b", "c"]), [1, 2, 3]);
    assert_eq!(voters(&["a", "a", "a", "b"]), [1, 2, 4]);
    assert_eq!(voters(&["a", "a", "b", "b", "c"]), [1, 2, 3, 4, 5]);
    assert_eq!(voters(&["a", "a", "a", "b", "c", "d", "d"]), [1, 2, 4, 5, 6]);
    // A voter that stands aside stays one, one that leaves is replaced.
    let mut cluster = Cluster::of(1, 1, &["", "", "", ""]);
    drive(&mut cluster);
    let nodes = |cluster: &Cluster| {
        cluster.state.view().cluster.group(GroupId(0)).unwrap().replicas.iter().map(|r| r.node.0).collect::<BTreeSet<_>>()
    };
    cluster.set_state(2, NodeState::Draining).unwrap();
    drive(&mut cluster);
    assert_eq!(nodes(&cluster), BTreeSet::from([1, 2, 3]));
    cluster.set_state(2, NodeState::Leaving).unwrap();
    drive(&mut cluster);
    assert_eq!(nodes(&cluster), BTreeSet::from([1, 3, 4]));
    // The last one that votes goes on where nobody may take its place.
    let mut cluster = Cluster::of(1, 1, &["", ""]);
    cluster.set_state(1, NodeState::Leaving).unwrap();
    cluster.set_state(2, NodeState::Draining).unwrap();
    drive(&mut cluster);
    assert_eq!(nodes(&cluster), BTreeSet::from([1]));
    cluster.set_state(2, NodeState::Active).unwrap();
    drive(&mut cluster);
    assert_eq!(nodes(&cluster), BTreeSet::from([2]));
}

/// A command that may well be taken, from four numbers.
fn command(state: &State, what: u8, a: u8, b: u8, c: u8) -> Command {
    let view = state.view();
    let node = u32::from(a) % 7 + 1;
    let pick = |count: usize| usize::from(b) % count.max(1);
    let topic = ["t", "u", "v"][usize::from(b) % 3].to_owned();
    let groups = view.cluster.groups();
    let group = groups.get(pick(groups.len()));
    let moves: Vec<_> = groups.iter().filter_map(|group| group.moving).collect();
    let generation = view.cluster.node(NodeId(node)).map_or(0, |known| known.generation);
    match what % 24 {
        0..=2 => {
            let (shards, rack) = ([1, 1, 2, 2, 2, 3, 3][node as usize - 1], ["", "a", "b"][usize::from(c) % 3]);
            let disk = view.cluster.node(NodeId(node)).map_or(100 + u64::from(node), |known| known.disk);
            ClusterCommand::AddNode(Box::new(NodeSpec {
                disk,
                generation,
                feature_max: 1 + u32::from(c % 2),
                ..spec(node, shards, 3, rack)
            }))
            .into()
        }
        3..=5 => ClusterCommand::SetNodeState { node, state: NodeState::Active }.into(),
        6 => {
            let states = [NodeState::Draining, NodeState::Drained, NodeState::Leaving];
            ClusterCommand::SetNodeState { node, state: states[usize::from(c) % 3] }.into()
        }
        7 | 8 => ClusterCommand::CreateGroups { replicas: b % 4 + 1 }.into(),
        9 => create(&topic, u32::from(c) % 6 + 1),
        10 => Command::CreateReplicatedTopic {
            name: topic,
            partitions: u32::from(c) % 6 + 1,
            settings: vec![],
            created_us: 3,
            replicas: a % 4 + 1,
        },
        11 => Command::DeleteTopic { name: topic },
        12 => ClusterCommand::SetReplicas { topic, replicas: c % 4 + 1 }.into(),
        13 => ClusterCommand::PlanMove {
            group: group.map_or(0, |group| group.id.0),
            add: (!c.is_multiple_of(4)).then_some(node),
            drop: group.filter(|_| c % 4 < 3).map(|group| group.replicas[usize::from(c) % group.replicas.len()].node.0),
        }
        .into(),
        14..=16 => {
            use MoveStep::{CaughtUp, Dropped, Forgotten, HandedOver, Learner, Planned, Prepared, Promoted};
            let steps = [Planned, Prepared, Learner, CaughtUp, Promoted, HandedOver, Dropped, Forgotten];
            let id = moves.get(pick(moves.len())).map_or(1, |moving| moving.id.0);
            ClusterCommand::NoteMove { id, step: steps[usize::from(c) % 8], conf_index: u64::from(a) }.into()
        }
        17 => ClusterCommand::CancelMove { id: moves.get(pick(moves.len())).map_or(1, |moving| moving.id.0) }.into(),
        18 => ClusterCommand::ReplaceDisk { node, disk: 1000 + u64::from(b) * 256 + u64::from(c) }.into(),
        19 => ClusterCommand::RemoveNode { node }.into(),
        20 => {
            let left: Vec<_> =
                group.iter().flat_map(|group| &group.replicas).filter(|r| !r.is_stale && (c >> (r.node.0 % 8)) & 1 == 0).collect();
            ClusterCommand::UncleanRecover { group: group.map_or(0, |group| group.id.0), survivors: left.iter().map(|r| r.id.0).collect() }
                .into()
        }
        21 => match a % 3 {
            0 => ClusterCommand::SetFeatureLevel { level: u32::from(b) % 3 }.into(),
            1 => Command::CreateGroup { name: topic, created_us: 4 },
            _ => Command::DeleteGroup { name: topic.clone(), uid: state.group_identity(&topic).map_or(0, |found| found.0.0) },
        },
        _ => state.proposals().first().cloned().unwrap_or(ClusterCommand::CreateGroups { replicas: 2 }).into(),
    }
}

proptest! {
    #[test]
    fn each_shard_that_takes_part_has_its_homes(steps in prop::collection::vec((0u8..8, 0u8..6, 0u8..8), 1..60)) {
        let mut cluster = Cluster::of(2, 3, &["a"]);
        let mut families = BTreeSet::from([1]);
        for (what, node, c) in steps {
            let node = u32::from(node) + 1;
            let rack = ["a", "b", "c"][node as usize % 3];
            let _refused = match what {
                0 | 1 => cluster.take(ClusterCommand::AddNode(Box::new(spec(node, 2, 3, if node == 1 { "a" } else { rack })))),
                2 | 3 => cluster.set_state(node, NodeState::Active),
                4 => cluster.set_state(node, [NodeState::Draining, NodeState::Drained][usize::from(c) % 2]),
                5 => cluster.take(create(["t", "u", "v"][usize::from(c) % 3], 5)),
                _ => {
                    let made = cluster.take(ClusterCommand::CreateGroups { replicas: c % 4 + 1 });
                    families.extend(made.is_ok().then_some(c % 4 + 1));
                    made
                }
            };
            let view = cluster.state.view();
            let active = view.cluster.nodes().iter().filter(|node| node.state == NodeState::Active).count();
            for place in loads(&cluster).keys() {
                for factor in families.iter().filter(|factor| usize::from(**factor) <= active) {
                    let is_home = |group: &&ReplicaGroupView| {
                        let leader = &group.replicas[0];
                        group.factor == *factor && group.id != GroupId(0) && (leader.node, leader.shard) == *place
                    };
                    let homes = view.cluster.groups().iter().filter(is_home).count();
                    let stand_ins = view.cluster.nodes().iter().any(|node| matches!(node.state, NodeState::Draining | NodeState::Drained));
                    prop_assert!(homes == 3 || (stand_ins && homes > 3), "{homes} of {factor} replicas at {place:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn commands_in_any_order_keep_the_rules(steps in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..150)) {
        let mut cluster = Cluster::new();
        for (at, (what, a, b, c)) in steps.iter().enumerate() {
            let before: BTreeSet<_> = cluster.state.view().cluster.groups().iter().map(|group| group.id).collect();
            let command = command(&cluster.state, *what, *a, *b, *c);
            if cluster.take(command).is_err() {
                continue;
            }
            check_always(&cluster.state);
            // Each proposal can be taken after those before it.
            let mut copy = State::restore(&cluster.state.snapshot()).unwrap();
            for (next, proposal) in copy.proposals().into_iter().enumerate() {
                let index = LogIndex((cluster.log.len() + 1 + next) as u64);
                let results = copy.apply(index, &[proposal.clone().into()]).unwrap();
                prop_assert!(results[0].is_ok(), "{:?} after {} was proposed: {:?}", proposal, at, results[0]);
            }
            // New groups are complete, in as many racks as can be, whatever was there before.
            let view = cluster.state.view();
            let has_room = |node: &NodeView, group: &ReplicaGroupView| {
                let shard = ShardId(group.replicas[0].shard.0 % node.shards);
                let held = view.cluster.groups_on(node.node, shard).filter(|found| found.id != GroupId(0)).count();
                held < SHARD_REPLICAS_MAX as usize || group.replicas.iter().any(|replica| replica.node == node.node)
            };
            for group in view.cluster.groups().iter().filter(|group| group.id != GroupId(0) && !before.contains(&group.id)) {
                prop_assert_eq!(group.replicas.len(), usize::from(group.factor));
                let active = view.cluster.nodes().iter().filter(|node| node.state == NodeState::Active && has_room(node, group));
                let racks: BTreeSet<_> = active.map(|node| &node.rack).collect();
                let of_group: BTreeSet<_> = racks_of(&view, group).into_iter().collect();
                prop_assert_eq!(of_group.len(), racks.len().min(group.replicas.len()), "{:?}", group);
            }
        }
        // The log again, at once and with a snapshot in between at each place.
        let half = cluster.log.len() / 2;
        let (mut again, mut restored) = (State::new(), State::new());
        for (at, command) in cluster.log.iter().enumerate() {
            let index = LogIndex(at as u64 + 1);
            let answers = again.apply(index, std::slice::from_ref(command));
            prop_assert_eq!(restored.apply(index, std::slice::from_ref(command)), answers);
            if at % 7 == 3 || at == half {
                restored = State::restore(&restored.snapshot()).unwrap();
                prop_assert_eq!(&*restored.view(), &*again.view());
            }
        }
        for state in [&again, &restored] {
            prop_assert_eq!(state.snapshot(), cluster.state.snapshot());
            prop_assert_eq!(&*state.view(), &*cluster.state.view());
            prop_assert_eq!(state.proposals(), cluster.state.proposals());
        }
        // Left alone it comes to rest, with every group that can have them at its number of replicas.
        drive(&mut cluster);
        check_always(&cluster.state);
        let view = cluster.state.view();
        let held = |node: NodeId, shard| view.cluster.groups_on(node, ShardId(shard)).filter(|group| group.id != GroupId(0)).count();
        let is_roomy = |node: &NodeView| (0..node.shards).all(|shard| held(node.node, shard) < SHARD_REPLICAS_MAX as usize);
        for group in view.cluster.groups().iter().filter(|group| group.id != GroupId(0)) {
            let living = group.replicas.iter().filter(|replica| !replica.is_stale).count();
            let could_have = |node: &&NodeView| {
                node.state == NodeState::Active && (is_roomy(node) || group.replicas.iter().any(|replica| replica.node == node.node))
            };
            let nodes = view.cluster.nodes().iter().filter(could_have).count();
            if living > group.replicas.len() / 2 && nodes >= usize::from(group.factor) {
                prop_assert!(living == group.replicas.len() && living == usize::from(group.factor), "{:?}", group);
                let stays = |replica: &ReplicaView| view.cluster.node(replica.node).unwrap().state != NodeState::Leaving;
                prop_assert!(group.replicas.iter().all(stays), "{:?}", group);
            }
        }
    }
}
