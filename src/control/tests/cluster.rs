//! Nodes, disks, groups and moves as the metadata know them: what is taken, what is refused and with which sentence.

use super::{apply_one, create, register};
use crate::control::*;
use crate::ids::{GroupId, LogIndex, MoveId, NodeId, ReplicaId, ShardId};

/// Node `node` on disk 100 + `node`, with addresses.
pub(super) fn spec(node: u32, shards: u16, groups_per_shard: u16, rack: &str) -> NodeSpec {
    let endpoint = |port: u16| Endpoint { host: format!("n{node}.example"), port, shard_ports: (1..=shards).map(|at| port + at).collect() };
    NodeSpec {
        node,
        disk: 100 + u64::from(node),
        generation: 0,
        shards,
        groups_per_shard,
        rack: rack.to_owned(),
        cluster: endpoint(7700),
        client: endpoint(7410),
        feature_min: 1,
        feature_max: 1,
    }
}

/// A state that takes commands one by one, and its log.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) state: State,
    pub(super) log: Vec<Command>,
}

impl Cluster {
    pub(super) fn new() -> Cluster {
        Cluster { state: State::new(), log: Vec::new() }
    }

    /// Nodes from 1 on, all active, each with its rack.
    pub(super) fn of(shards: u16, groups_per_shard: u16, racks: &[&str]) -> Cluster {
        let mut cluster = Cluster::new();
        for (node, rack) in (1..).zip(racks) {
            cluster.join(spec(node, shards, groups_per_shard, rack));
        }
        cluster
    }

    pub(super) fn join(&mut self, spec: NodeSpec) {
        let node = spec.node;
        self.take(ClusterCommand::AddNode(Box::new(spec))).unwrap();
        if self.node(node).state == NodeState::Registered {
            self.set_state(node, NodeState::Active).unwrap();
        }
    }

    /// Says the same to a check, and leaves everything as it was when it is refused.
    pub(super) fn take(&mut self, command: impl Into<Command>) -> Result<Applied, ControlError> {
        let command = Command::decode(&command.into().encode()).expect("an own command");
        let (checked, before) = (self.state.check(&command), self.state.snapshot());
        self.log.push(command.clone());
        let index = self.log.len() as u64;
        let result = apply_one(&mut self.state, index, command.clone());
        assert_eq!(result.as_ref().err(), checked.as_ref().err(), "what is checked is what is done");
        if let Err(error) = &result {
            let mut same = State::restore(&before).unwrap();
            assert_eq!(same.apply(LogIndex(index), &[]), Some(vec![]));
            assert_eq!(same.snapshot(), self.state.snapshot(), "{command:?} was refused ({error}) and changed something");
        }
        result
    }

    pub(super) fn set_state(&mut self, node: u32, state: NodeState) -> Result<Applied, ControlError> {
        self.take(ClusterCommand::SetNodeState { node, state })
    }

    /// The sentence of a refusal.
    fn refused(&mut self, command: impl Into<Command>) -> String {
        let command = command.into();
        match self.take(command.clone()) {
            Ok(applied) => panic!("{command:?} was taken: {applied:?}"),
            Err(error) => error.to_string(),
        }
    }

    pub(super) fn node(&self, node: u32) -> NodeView {
        self.state.view().cluster.node(NodeId(node)).cloned().expect("known")
    }

    fn group(&self, group: u32) -> ReplicaGroupView {
        self.state.view().cluster.group(GroupId(group)).cloned().expect("known")
    }

    fn nodes_of(&self, group: u32) -> Vec<u32> {
        self.group(group).replicas.iter().map(|replica| replica.node.0).collect()
    }

    fn plan(&mut self, group: u32, add: Option<u32>, drop: Option<u32>) -> u64 {
        match self.take(ClusterCommand::PlanMove { group, add, drop }) {
            Ok(Applied::Planned(MoveId(id))) => id,
            other => panic!("{other:?}"),
        }
    }

    fn note(&mut self, id: u64, step: MoveStep) -> Result<Applied, ControlError> {
        self.take(ClusterCommand::NoteMove { id, step, conf_index: 10 * step as u64 })
    }
}

fn plan(group: u32, add: Option<u32>, drop: Option<u32>) -> ClusterCommand {
    ClusterCommand::PlanMove { group, add, drop }
}

#[test]
fn a_cluster_of_one_has_the_groups_that_its_data_directory_was_made_with() {
    let mut old = Cluster::new();
    old.take(register(3, 4)).unwrap();
    let mut new = Cluster::of(3, 4, &[""]);
    for cluster in [&mut old, &mut new] {
        let view = cluster.state.view();
        for shard in 0..3 {
            let here: Vec<_> = view.cluster.groups_on(NodeId(1), ShardId(shard)).map(|group| group.id.0).collect();
            let mut expected: Vec<u32> = (1 + u32::from(shard) * 4..1 + u32::from(shard) * 4 + 4).collect();
            if shard == 0 {
                expected.insert(0, 0);
            }
            assert_eq!(here, expected);
        }
        assert_eq!(view.cluster.groups().iter().map(|g| (g.factor, g.replicas.len(), g.replicas[0].id.0)).max(), Some((1, 1, 1)));
        assert_eq!((cluster.node(1).state, view.cluster.feature_level), (NodeState::Active, 1));
        cluster.take(create("t", 12)).unwrap();
    }
    assert_eq!(old.state.view().topics(), new.state.view().topics());
    // One that was registered before there were disks tells the rest, and nothing moves.
    old.take(ClusterCommand::AddNode(Box::new(spec(1, 3, 4, "")))).unwrap();
    assert_eq!(old.state.view().topics(), new.state.view().topics());
    assert_eq!(old.state.view().cluster, new.state.view().cluster);
}

#[test]
fn who_a_node_is_is_decided_once() {
    let mut cluster = Cluster::of(2, 2, &["a", "b"]);
    let add = |spec: NodeSpec| ClusterCommand::AddNode(Box::new(spec));
    let changed = |change: &dyn Fn(&mut NodeSpec)| {
        let mut said = spec(2, 2, 2, "b");
        change(&mut said);
        add(said)
    };
    // A restart tells its addresses anew.
    let moved = changed(&|s| (s.rack, s.client.host, s.feature_max) = ("c".into(), "elsewhere".into(), 4));
    cluster.take(moved).unwrap();
    let node = cluster.node(2);
    assert_eq!((node.rack.as_str(), node.client.host.as_str(), node.feature_max, node.generation), ("c", "elsewhere", 4, 0));
    for (command, why) in [
        (changed(&|s| s.disk = 9), "with another disk"),
        (changed(&|s| s.generation = 1), "it says generation 1, and is known under 0"),
        (
            changed(&|s| (s.shards, s.client.shard_ports, s.cluster.shard_ports) = (1, vec![1], vec![1])),
            "registered with 2 shards of 2 groups",
        ),
        (changed(&|s| s.node = 3), "disk 0000000000000066 was seen before, on node 2"),
        (changed(&|s| (s.node, s.disk, s.generation) = (3, 9, 1)), "says it had 1 disks before"),
        (changed(&|s| (s.node, s.disk) = (0, 9)), "begin with 1"),
        (changed(&|s| (s.node, s.disk) = (3, 0)), "begin with 1"),
        (changed(&|s| s.rack = "a b".into()), "is not a rack"),
        (changed(&|s| s.feature_min = 0), "are none"),
        (changed(&|s| (s.feature_min, s.feature_max) = (2, 3)), "the cluster is at 1"),
        (changed(&|s| s.client.host = String::new()), "its address for clients"),
        (changed(&|s| s.cluster.host = "a b".into()), "its address for other nodes"),
        (changed(&|s| s.cluster.shard_ports = vec![7]), "its address for other nodes"),
        (changed(&|s| s.client.port = 0), "its address for clients"),
        (ClusterCommand::ReplaceDisk { node: 2, disk: 102 }, "was seen before, on node 2"),
        (ClusterCommand::ReplaceDisk { node: 2, disk: 101 }, "was seen before, on node 1"),
        (ClusterCommand::ReplaceDisk { node: 2, disk: 0 }, "disk 0 is none"),
        (ClusterCommand::ReplaceDisk { node: 9, disk: 7 }, "has no node 9"),
        (ClusterCommand::ReplaceDisk { node: 1, disk: 7 }, "replica group 0 has 0 of 1 replicas without the disk of node 1"),
    ] {
        let sentence = cluster.refused(command.clone());
        assert!(sentence.contains(why), "{command:?}: {sentence}");
    }
    // What has to be said before it comes back with another disk, and before any other comes.
    let before = |cluster: &Cluster, change: &dyn Fn(&mut NodeSpec)| {
        let mut said = spec(2, 2, 2, "b");
        change(&mut said);
        cluster.state.replacement(&said).map_err(|error| error.to_string())
    };
    let replace = ClusterCommand::ReplaceDisk { node: 2, disk: 7 };
    assert_eq!(before(&cluster, &|s| s.disk = 7), Ok(Some(replace.clone())));
    assert_eq!(before(&cluster, &|_| ()), Ok(None), "it is that disk");
    assert_eq!(before(&cluster, &|s| (s.node, s.disk) = (3, 7)), Ok(None), "a new number");
    assert!(before(&cluster, &|s| s.disk = 101).unwrap_err().contains("was seen before, on node 1"));
    let other_size = |s: &mut NodeSpec| (s.disk, s.groups_per_shard) = (7, 3);
    assert!(before(&cluster, &other_size).unwrap_err().contains("registered with 2 shards of 2 groups"), "then nothing is replaced");
    assert!(before(&cluster, &|s| (s.node, s.disk) = (1, 7)).unwrap_err().contains("without the disk of node 1"));
    cluster.take(replace).unwrap();
    assert_eq!((cluster.node(2).generation, cluster.node(2).disk), (1, 7));
    assert_eq!(before(&cluster, &|s| (s.disk, s.generation) = (102, 1)), Ok(None), "the old one is refused when it is added");
    let old = changed(&|s| s.generation = 1);
    assert!(cluster.refused(old).contains("was seen before, on node 2"), "the old disk is never taken for a new one");
    cluster.take(changed(&|s| (s.disk, s.generation) = (7, 1))).unwrap();
    assert!(cluster.refused(ClusterCommand::ReplaceDisk { node: 2, disk: 102 }).contains("was seen before"));
    assert_eq!(ReplicaId::of(1, NodeId(2)), ReplicaId(1 << 32 | 2));
}

#[test]
fn features_rise_when_all_nodes_speak_them() {
    let mut cluster = Cluster::of(1, 1, &["", ""]);
    assert!(cluster.refused(ClusterCommand::SetFeatureLevel { level: 1 }).contains("it rises, and 1 is not above"));
    let newer = |node| NodeSpec { feature_max: 3, ..spec(node, 1, 1, "") };
    cluster.take(ClusterCommand::AddNode(Box::new(newer(1)))).unwrap();
    assert!(cluster.refused(ClusterCommand::SetFeatureLevel { level: 2 }).contains("node 2 speaks the feature levels 1 to 1, not 2"));
    cluster.take(ClusterCommand::AddNode(Box::new(newer(2)))).unwrap();
    cluster.take(ClusterCommand::SetFeatureLevel { level: 3 }).unwrap();
    assert_eq!(cluster.state.view().cluster.feature_level, 3);
    assert!(cluster.refused(ClusterCommand::AddNode(Box::new(spec(3, 1, 1, "")))).contains("the cluster is at 3"));
    assert!(cluster.refused(ClusterCommand::AddNode(Box::new(spec(2, 1, 1, "")))).contains("the cluster is at 3"), "no way back either");
}

#[test]
fn states_of_nodes_go_along_the_arrows_only() {
    use NodeState::{Active, Drained, Draining, Leaving, Registered, Removed};
    let ways: [(NodeState, &[NodeState], &[NodeState]); 5] = [
        (Registered, &[], &[Active]),
        (Active, &[Active], &[Draining, Leaving]),
        (Draining, &[Active, Draining], &[Active, Drained, Leaving]),
        (Drained, &[Active, Draining, Drained], &[Active, Leaving]),
        (Leaving, &[Active, Leaving], &[]),
    ];
    for (state, way, next) in ways {
        for wanted in [Registered, Active, Draining, Drained, Leaving, Removed] {
            let mut cluster = Cluster::of(1, 1, &["", ""]);
            cluster.take(ClusterCommand::AddNode(Box::new(spec(3, 1, 1, "")))).unwrap();
            way.iter().for_each(|state| assert_eq!(cluster.set_state(3, *state), Ok(Applied::Node)));
            assert_eq!(cluster.node(3).state, state);
            match cluster.set_state(3, wanted) {
                Ok(_) => assert!(next.contains(&wanted), "{state} became {wanted}"),
                Err(error) => {
                    assert!(!next.contains(&wanted), "{state} to {wanted}: {error}");
                    assert_eq!(error.to_string(), format!("node 3 is {state}: it cannot become {wanted}"));
                }
            }
        }
    }
}

#[test]
fn a_second_node_may_not_stand_aside_where_that_costs_a_majority() {
    let mut cluster = Cluster::of(1, 2, &["", "", ""]);
    // Single copies stop with their node, whoever asks.
    cluster.set_state(1, NodeState::Draining).unwrap();
    cluster.set_state(2, NodeState::Draining).unwrap();
    cluster.set_state(1, NodeState::Active).unwrap();
    cluster.set_state(2, NodeState::Active).unwrap();
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    cluster.set_state(1, NodeState::Draining).unwrap();
    cluster.set_state(1, NodeState::Drained).unwrap();
    let sentence = cluster.refused(ClusterCommand::SetNodeState { node: 2, state: NodeState::Draining });
    assert_eq!(
        sentence,
        "replica group 7 has 1 of 3 replicas left on active nodes if node 2 stands aside, which is no majority: bring the others back first"
    );
    cluster.set_state(1, NodeState::Active).unwrap();
    cluster.set_state(2, NodeState::Draining).unwrap();
}

#[test]
fn who_drains_is_not_preferred_and_gets_nothing() {
    let mut cluster = Cluster::of(1, 2, &["", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    let leaders = |cluster: &Cluster| (7..13).map(|group| cluster.nodes_of(group)[0]).collect::<Vec<_>>();
    assert_eq!(leaders(&cluster), [1, 1, 2, 2, 3, 3]);
    cluster.set_state(2, NodeState::Draining).unwrap();
    assert_eq!(leaders(&cluster), [1, 1, 1, 3, 3, 3], "what node 2 led goes to the least loaded");
    cluster.take(create("t", 8)).unwrap();
    let view = cluster.state.view();
    let topic = view.topic("t").unwrap();
    assert_eq!(topic.replicas, 3, "a rolling restart makes no topics with fewer replicas");
    let mut groups: Vec<_> = topic.partitions.iter().map(|p| (p.group.0, p.node.0)).collect();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups, [(7, 1), (8, 1), (11, 3), (12, 3)]);
    cluster.set_state(2, NodeState::Drained).unwrap();
    assert!(cluster.refused(plan(1, Some(2), Some(1))).contains("node 2 is drained: replicas are placed on active nodes only"));
    assert!(cluster.refused(ClusterCommand::CreateGroups { replicas: 3 }).contains("2 nodes can have one each"));
    cluster.set_state(2, NodeState::Active).unwrap();
    assert_eq!(leaders(&cluster), [1, 1, 2, 2, 3, 3]);
}

#[test]
fn a_topic_is_refused_what_the_cluster_has_not() {
    let mut cluster = Cluster::of(1, 2, &["", ""]);
    let replicated = |name: &str, replicas| Command::CreateReplicatedTopic {
        name: name.into(),
        partitions: 2,
        settings: vec![],
        created_us: 1,
        replicas,
    };
    assert!(cluster.refused(replicated("t", 3)).contains("a topic asks for 3 replicas, and 2 nodes can have one each"));
    assert!(cluster.refused(replicated("t", 0)).contains("1 to 5 replicas, not 0"));
    assert!(cluster.refused(replicated("t", 2)).starts_with("no replica group with 2 replicas"));
    assert_eq!(cluster.take(create("t", 1)), Err(ClusterError::NoGroups(2).into()), "as many as there are nodes");
    cluster.take(replicated("one", 1)).unwrap();
    assert_eq!(cluster.take(ClusterCommand::CreateGroups { replicas: 2 }), Ok(Applied::Groups(4)));
    assert_eq!(cluster.take(ClusterCommand::CreateGroups { replicas: 2 }), Ok(Applied::Groups(0)), "all are there");
    cluster.take(create("t", 4)).unwrap();
    let view = cluster.state.view();
    let placed: Vec<_> = view.topic("t").unwrap().partitions.iter().map(|p| (p.group.0, p.node.0)).collect();
    // Node 1 leads a partition of "one" as well.
    assert_eq!((view.topic("one").unwrap().replicas, placed), (1, vec![(5, 1), (7, 2), (6, 1), (8, 2)]));
    let beside = |replicas| Command::CreateReplicatedTopic {
        name: "beside".into(),
        partitions: 2,
        settings: vec![("co.locate".into(), "one".into())],
        created_us: 1,
        replicas,
    };
    assert!(cluster.refused(beside(2)).contains("is to be beside \"one\", which has 1 replicas"));
    cluster.take(beside(1)).unwrap();
    // Nor by the way of a setting.
    let alter = |name: &str, partitions, beside: &str| Command::AlterTopic {
        name: name.into(),
        partitions,
        settings: vec![("co.locate".into(), beside.into())],
    };
    assert!(cluster.refused(alter("t", 5, "one")).contains("is to be beside \"one\", which has 1 replicas"));
    cluster.take(alter("one", 4, "t")).unwrap();
    assert!(cluster.state.view().topic("one").unwrap().partitions[2..].iter().all(|p| p.group.0 > 4), "beside those of t");
}

#[test]
fn raising_a_topics_factor_raises_that_of_its_groups_until_nobody_needs_it() {
    let mut cluster = Cluster::of(1, 1, &[""]);
    cluster.take(create("a", 1)).unwrap();
    cluster.take(create("b", 1)).unwrap();
    let set = |topic: &str, replicas| ClusterCommand::SetReplicas { topic: topic.into(), replicas };
    assert_eq!(cluster.take(set("c", 1)), Err(ControlError::UnknownTopic("c".into())));
    assert!(cluster.refused(set("a", 2)).contains("topic \"a\" asks for 2 replicas, and 1 nodes can have one each"));
    cluster.join(spec(2, 1, 1, ""));
    cluster.join(spec(3, 1, 1, ""));
    assert!(cluster.refused(set("a", 6)).contains("1 to 5 replicas, not 6"));
    cluster.take(set("a", 3)).unwrap();
    assert_eq!((cluster.group(1).factor, cluster.nodes_of(1)), (3, vec![1]));
    assert_eq!(cluster.state.proposals()[0], plan(1, Some(2), None));
    let id = cluster.plan(1, Some(2), None);
    cluster.note(id, MoveStep::Promoted).unwrap();
    let id = cluster.plan(1, Some(3), None);
    cluster.note(id, MoveStep::Promoted).unwrap();
    assert_eq!(cluster.nodes_of(1), [1, 2, 3]);
    assert!(cluster.refused(plan(1, None, Some(2))).contains("fewer than its 3 replicas"));
    cluster.take(set("b", 2)).unwrap();
    cluster.take(set("a", 1)).unwrap();
    assert_eq!(cluster.group(1).factor, 2, "b needs two");
    assert!(cluster.state.proposals().contains(&plan(1, None, Some(3))));
    cluster.take(set("b", 1)).unwrap();
    let id = cluster.plan(1, None, Some(2));
    cluster.note(id, MoveStep::Forgotten).unwrap();
    let id = cluster.plan(1, None, Some(3));
    cluster.note(id, MoveStep::Forgotten).unwrap();
    assert_eq!(cluster.nodes_of(1), [1]);
    assert!(cluster.refused(plan(1, None, Some(1))).contains("would have no replica"));
}

#[test]
fn lowering_a_topics_factor_takes_nothing_from_consumer_groups_that_are_at_home_there() {
    let mut cluster = Cluster::of(1, 1, &["", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    cluster.take(create("t", 3)).unwrap();
    cluster.take(Command::CreateGroup { name: "g".into(), created_us: 1 }).unwrap();
    let home = cluster.state.group_identity("g").unwrap().1.0;
    let set = |replicas| ClusterCommand::SetReplicas { topic: "t".into(), replicas };
    cluster.take(set(1)).unwrap();
    assert!((4..7).all(|group| cluster.group(group).factor == if group == home { 3 } else { 1 }), "group {home} keeps three");
    // Without one it gets what the topic wants, when that is said again.
    let uid = cluster.state.group_identity("g").unwrap().0.0;
    cluster.take(Command::DeleteGroup { name: "g".into(), uid }).unwrap();
    cluster.take(set(1)).unwrap();
    assert!((4..7).all(|group| cluster.group(group).factor == 1));
}

#[test]
fn a_move_changes_voters_at_two_of_its_steps() {
    use MoveStep::{CaughtUp, Dropped, Forgotten, HandedOver, Learner, Planned, Prepared, Promoted};
    let mut cluster = Cluster::of(1, 1, &["", "", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    assert_eq!(cluster.nodes_of(5), [1, 2, 3]);
    for (command, why) in [
        (plan(5, None, None), "name a node to add"),
        (plan(99, Some(4), None), "there is no replica group 99"),
        (plan(5, Some(4), None), "has its 3 replicas: name one to drop"),
        (plan(5, Some(2), Some(1)), "node 2 has a replica of it already"),
        (plan(5, Some(4), Some(4)), "node 4 has no replica of it"),
        (plan(5, Some(9), Some(1)), "no node 9"),
        (plan(5, None, Some(1)), "fewer than its 3 replicas"),
    ] {
        let sentence = cluster.refused(command.clone());
        assert!(sentence.contains(why), "{command:?}: {sentence}");
    }
    let id = cluster.plan(5, Some(4), Some(1));
    assert_eq!(cluster.refused(plan(5, Some(4), Some(2))), format!("replica group 5 is being moved (move {id}): wait for it or cancel it"));
    let on = |cluster: &Cluster, node| cluster.state.view().cluster.groups_on(NodeId(node), ShardId(0)).any(|group| group.id == GroupId(5));
    for (step, voters, holders) in [
        (Planned, [1, 2, 3].as_slice(), [1, 2, 3, 4].as_slice()),
        (Prepared, &[1, 2, 3], &[1, 2, 3, 4]),
        (Learner, &[1, 2, 3], &[1, 2, 3, 4]),
        (CaughtUp, &[1, 2, 3], &[1, 2, 3, 4]),
        (Promoted, &[1, 2, 3, 4], &[1, 2, 3, 4]),
        (HandedOver, &[1, 2, 3, 4], &[1, 2, 3, 4]),
        (Dropped, &[4, 2, 3], &[1, 2, 3, 4]),
        (Forgotten, &[4, 2, 3], &[2, 3, 4]),
    ] {
        cluster.note(id, step).unwrap();
        assert_eq!(cluster.nodes_of(5), voters, "{step}");
        assert_eq!((1..5).filter(|node| on(&cluster, *node)).collect::<Vec<_>>(), holders, "{step}");
        let Some(moving) = cluster.group(5).moving else { continue };
        assert_eq!((moving.step, moving.conf_index), (step, LogIndex(10 * step as u64)));
        // A note that was late, or is said again, takes nothing back.
        cluster.take(ClusterCommand::NoteMove { id, step: Planned, conf_index: 0 }).unwrap();
        cluster.note(id, step).unwrap();
        assert_eq!(cluster.group(5).moving, Some(moving));
        if step >= Promoted {
            assert!(cluster.refused(ClusterCommand::CancelMove { id }).contains("the voters have changed already"));
        }
    }
    assert_eq!(cluster.group(5).moving, None);
    assert_eq!(cluster.note(id, Forgotten), Err(ClusterError::UnknownMove(MoveId(id)).into()));
    // One that is given up leaves everything as it was.
    let id = cluster.plan(5, Some(1), Some(2));
    cluster.note(id, CaughtUp).unwrap();
    cluster.take(ClusterCommand::CancelMove { id }).unwrap();
    assert_eq!((cluster.nodes_of(5), cluster.group(5).moving), (vec![4, 2, 3], None));
    assert!(!on(&cluster, 1));
    // Steps that it has not.
    cluster.take(create("t", 1)).unwrap();
    let add_only = {
        let mut cluster = Cluster::of(1, 1, &["", ""]);
        cluster
            .take(Command::CreateReplicatedTopic { name: "t".into(), partitions: 1, settings: vec![], created_us: 1, replicas: 1 })
            .unwrap();
        cluster.take(ClusterCommand::SetReplicas { topic: "t".into(), replicas: 2 }).unwrap();
        let id = cluster.plan(1, Some(2), None);
        cluster.note(id, Dropped).unwrap_err().to_string()
    };
    assert_eq!(add_only, "move 1 is at step planned: it has no step dropped");
}

#[test]
fn a_node_takes_part_in_two_moves_at_most() {
    let mut cluster = Cluster::of(1, 3, &["", ""]);
    cluster.plan(1, Some(2), Some(1));
    cluster.plan(2, Some(2), Some(1));
    assert!(cluster.refused(plan(3, Some(2), Some(1))).contains("node 2 takes part in 2 moves"));
}

#[test]
fn a_node_leaves_when_others_have_what_it_had() {
    let mut cluster = Cluster::of(1, 1, &["", "", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    cluster.take(create("t", 8)).unwrap();
    assert!(cluster.refused(ClusterCommand::RemoveNode { node: 1 }).contains("node 1 is active: it is removed after it has left"));
    cluster.set_state(1, NodeState::Leaving).unwrap();
    assert_eq!(
        cluster.refused(ClusterCommand::SetNodeState { node: 2, state: NodeState::Leaving }),
        "replica group 5 has 1 of 3 replicas left on active nodes if node 2 stands aside, which is no majority: bring the others back first"
    );
    assert!(cluster.refused(ClusterCommand::RemoveNode { node: 1 }).contains("node 1 still has a replica of group 0"));
    super::placement::drive(&mut cluster);
    let view = cluster.state.view();
    assert!(view.cluster.groups().iter().all(|group| group.replicas.iter().all(|replica| replica.node != NodeId(1))));
    cluster.take(ClusterCommand::RemoveNode { node: 1 }).unwrap();
    assert_eq!(cluster.node(1).state, NodeState::Removed);
    assert!(cluster.refused(ClusterCommand::AddNode(Box::new(spec(1, 1, 1, "")))).contains("node 1 was removed"));
    assert!(cluster.refused(register(1, 1)).contains("node 1 was removed"));
    assert!(!cluster.state.has_node(NodeId(1)));
    assert!(
        cluster
            .refused(ClusterCommand::SetNodeState { node: 2, state: NodeState::Leaving })
            .contains("topic \"t\" asks for 3 replicas, and 2 nodes")
    );
    let mut two = Cluster::of(1, 1, &["", ""]);
    two.set_state(2, NodeState::Draining).unwrap();
    assert!(two.refused(ClusterCommand::SetNodeState { node: 1, state: NodeState::Leaving }).contains("no other node is active"));
}

#[test]
fn replicas_of_a_replaced_disk_go_first_and_come_back_home() {
    let mut cluster = Cluster::of(1, 1, &["", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    cluster.take(create("t", 3)).unwrap();
    super::placement::drive(&mut cluster);
    assert_eq!(cluster.group(0).replicas.len(), 3);
    cluster.take(ClusterCommand::ReplaceDisk { node: 2, disk: 7 }).unwrap();
    let group = cluster.group(5);
    assert_eq!(cluster.nodes_of(5), [1, 2, 3], "what node 2 led is led by another");
    assert_eq!(group.replicas.iter().map(|r| r.is_stale).collect::<Vec<_>>(), [false, true, false]);
    let view = cluster.state.view();
    assert_eq!(
        view.cluster.groups_on(NodeId(2), ShardId(0)).map(|g| g.id.0).collect::<Vec<_>>(),
        [0],
        "it learns group 0, and has nothing else"
    );
    assert_eq!(view.cluster.group(GroupId(2)), None, "its group with a single copy held nothing");
    let homes = |cluster: &Cluster| {
        let view = cluster.state.view();
        view.cluster.groups_on(NodeId(2), ShardId(0)).filter(|group| group.factor == 1 && group.id != GroupId(0)).count()
    };
    cluster.take(ClusterCommand::AddNode(Box::new(NodeSpec { disk: 7, generation: 1, ..spec(2, 1, 1, "") }))).unwrap();
    assert_eq!(homes(&cluster), 1, "with the node its home of single copies is back, as another group");
    cluster.take(ClusterCommand::AddNode(Box::new(NodeSpec { disk: 7, generation: 1, ..spec(2, 1, 1, "") }))).unwrap();
    assert_eq!(homes(&cluster), 1, "once");
    assert!(cluster.refused(plan(5, Some(2), Some(2))).contains("node 2 has a replica of it already"));
    assert!(cluster.refused(plan(5, None, Some(1))).contains("no majority of disks"));
    assert!(cluster.state.proposals().contains(&plan(5, None, Some(2))));
    super::placement::drive(&mut cluster);
    assert_eq!(cluster.nodes_of(5), [2, 1, 3]);
    assert_eq!(cluster.group(5).replicas[0].id, ReplicaId(1 << 32 | 2));
    // A single copy that held something keeps its name, and gets nothing more.
    let one =
        |name: &str| Command::CreateReplicatedTopic { name: name.into(), partitions: 2, settings: vec![], created_us: 1, replicas: 1 };
    cluster.take(one("lost")).unwrap();
    cluster.take(ClusterCommand::ReplaceDisk { node: 3, disk: 8 }).unwrap();
    let lost: Vec<_> = cluster.state.view().topic("lost").unwrap().partitions.iter().map(|p| p.group.0).collect();
    assert!(lost.contains(&3) && cluster.group(3).replicas[0].is_stale);
    assert!(cluster.refused(plan(3, Some(1), None)).contains("0 of 1 replicas with the disk that they were put on"));
    cluster.take(one("more")).unwrap();
    assert!(cluster.state.view().topic("more").unwrap().partitions.iter().all(|p| p.group.0 != 3));
    cluster.take(Command::DeleteTopic { name: "lost".into() }).unwrap();
    assert_eq!(cluster.state.view().cluster.group(GroupId(3)), None);
}

#[test]
fn an_unclean_recovery_needs_survivors_and_is_told() {
    let mut cluster = Cluster::of(1, 1, &["", "", "", ""]);
    cluster.take(ClusterCommand::CreateGroups { replicas: 3 }).unwrap();
    super::placement::drive(&mut cluster);
    let moving = cluster.plan(5, Some(4), Some(2));
    cluster.take(ClusterCommand::ReplaceDisk { node: 1, disk: 7 }).unwrap();
    assert!(cluster.group(5).moving.is_some(), "two of three can go on");
    let recover = |group, survivors: &[u64]| ClusterCommand::UncleanRecover { group, survivors: survivors.to_vec() };
    for (command, why) in [
        (recover(0, &[2]), "cannot decide about itself"),
        (recover(99, &[2]), "no replica group 99"),
        (recover(5, &[]), "name each replica that is left, once"),
        (recover(5, &[2, 2]), "name each replica that is left, once"),
        (recover(5, &[4]), "replica 4 is none of its voters, which are [1, 2, 3]"),
        (recover(5, &[1]), "the disk of replica 1 was replaced"),
        (recover(5, &[2, 3]), "2 of 3 replicas are a majority"),
    ] {
        let sentence = cluster.refused(command.clone());
        assert!(sentence.contains(why), "{command:?}: {sentence}");
    }
    cluster.take(recover(5, &[3])).unwrap();
    let group = cluster.group(5);
    assert_eq!((cluster.nodes_of(5), group.moving), (vec![3], None));
    assert_eq!(group.unclean, Some(UncleanView { index: LogIndex(cluster.log.len() as u64), survivors: vec![ReplicaId(3)] }));
    assert_eq!(cluster.note(moving, MoveStep::Promoted), Err(ClusterError::UnknownMove(MoveId(moving)).into()));
    super::placement::drive(&mut cluster);
    let group = cluster.group(5);
    assert_eq!((group.replicas.len(), group.replicas[0].id), (3, ReplicaId(1 << 32 | 1)), "home again, on the new disk");
    assert!(group.unclean.is_some(), "that something may be missing stays true");
}
