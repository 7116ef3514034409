//! `cluster`: nodes and replica groups, and nodes that stand aside.
//!
//! As with the other verbs: one function asks, pure ones make the text and the JSON; the JSON's fields may become more, none is renamed.

use crate::args::{ClusterVerb, Format};
use crate::commands::count;
use crate::failure::{self, Failure};
use crate::output::show;
use crate::table::Table;
use crate::unknown::{notes, or_dash as or_dash_number, silent_json, silent_line};
use serde_json::{Value, json};
use std::process::ExitCode;
use tramline_client::{Client, ClusterDescription, ClusterGroup, ClusterNode, ClusterSurvey};

/// `cluster ...`. The exit code of `status` is 1 where something is wrong, so that it serves as a health check.
pub fn run(client: &Client, format: Format, verb: &ClusterVerb) -> Result<ExitCode, Failure> {
    if let ClusterVerb::Status = verb {
        let survey = client.survey_cluster()?;
        show(format, || status_text(&survey), || status_json(&survey))?;
        return Ok(if troubles(&survey).is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    look_or_change(client, format, verb).map(|()| ExitCode::SUCCESS)
}

fn look_or_change(client: &Client, format: Format, verb: &ClusterVerb) -> Result<(), Failure> {
    match verb {
        ClusterVerb::Status => unreachable!("answered above"),
        ClusterVerb::Nodes => {
            let survey = client.survey_cluster()?;
            let nodes = || survey.cluster.nodes.iter().map(|node| node_json(&survey, node)).collect();
            show(format, || nodes_text(&survey), nodes)
        }
        ClusterVerb::Groups => {
            let survey = client.survey_cluster()?;
            let value = || survey.cluster.groups.iter().map(group_json).collect();
            show(format, || groups_text(&survey.cluster) + &notes(&survey.silent, &[]), value)
        }
        ClusterVerb::Drain { node } => {
            client.drain_node(*node)?;
            told(format, *node, "drains", "it gives its leaderships away; it is drained when `tramctl cluster nodes` says so")
        }
        ClusterVerb::Undrain { node } => {
            client.undrain_node(*node)?;
            told(format, *node, "takes part again", "its leaderships come back within seconds")
        }
        ClusterVerb::Remove { node } => {
            client.remove_node(*node)?;
            told(format, *node, "leaves", "its replicas are moved away; stop it when `tramctl cluster nodes` says that it is removed")
        }
        ClusterVerb::Move { group, cancel: true, .. } => {
            client.cancel_move(*group)?;
            show(format, || format!("group {group}: its move is given up\n"), || json!({"group": group, "done": true}))
        }
        ClusterVerb::Move { group, to, .. } => move_group(client, format, *group, to),
        ClusterVerb::UncleanRecover { group, i_accept_loss } => recover(client, format, *group, *i_accept_loss),
        ClusterVerb::Balance => {
            client.balance_cluster()?;
            show(format, || "moves are planned: `tramctl cluster groups` shows them\n".to_owned(), || json!({"done": true}))
        }
    }
}

/// Lets a group go on without its majority, if whoever asks knows what that is.
fn recover(client: &Client, format: Format, group: u32, is_accepted: bool) -> Result<(), Failure> {
    if !is_accepted {
        return Err(Failure::local(
            "loss_not_accepted",
            format!(
                "group {group} would go on with the replicas that can be reached, and every record that only the others have would be lost, also those that were \
                 acknowledged: bring the others back if that can be done; if their disks are gone for good, say --i-accept-loss"
            ),
        ));
    }
    client.unclean_recover(group)?;
    show(
        format,
        || format!("group {group} goes on without a majority: `tramctl cluster groups` shows it as unclean\n"),
        || json!({"group": group, "done": true}),
    )
}

/// Plans the next move that brings a group to these nodes: one at a time, so that it is asked for again when that is over.
fn move_group(client: &Client, format: Format, group: u32, to: &[u32]) -> Result<(), Failure> {
    if let Some(twice) = to.iter().enumerate().find(|(at, node)| to[..*at].contains(node)).map(|(_, node)| node) {
        return Err(Failure::local(
            failure::USAGE,
            format!("--to names node {twice} twice: a node has one replica of a group; name each once"),
        ));
    }
    let cluster = client.describe_cluster()?;
    let Some(found) = cluster.groups.iter().find(|found| found.group == group) else {
        return Err(Failure::local("unknown_group", format!("there is no group {group}: see `tramctl cluster groups`")));
    };
    let (add, drop) = next_move(&found.voters, to);
    if (add, drop) == (None, None) {
        return Err(Failure::local("nothing_to_move", format!("group {group} is on nodes {} already", list(to))));
    }
    client.move_replica(group, add, drop)?;
    let left = to.iter().filter(|node| !found.voters.contains(node) && Some(**node) != add).count();
    let then = if left > 0 { "; ask again when it is over: one replica is moved at a time" } else { "" };
    let words = [add.map(|node| format!("adds node {node}")), drop.map(|node| format!("drops node {node}"))];
    let words = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
    show(format, || format!("group {group}: {words}{then}\n"), || json!({"group": group, "add": add, "drop": drop, "left": left}))
}

/// Which node gets a replica next, and which one gives its up.
fn next_move(voters: &[u32], to: &[u32]) -> (Option<u32>, Option<u32>) {
    let add = to.iter().copied().find(|node| !voters.contains(node));
    let drop = voters.iter().copied().find(|node| !to.contains(node));
    (add, drop)
}

fn told(format: Format, node: u32, what: &str, then: &str) -> Result<(), Failure> {
    show(format, || format!("node {node} {what}: {then}\n"), || json!({"node": node, "done": true}))
}

/// What is not as it should be, one line each.
fn troubles(survey: &ClusterSurvey) -> Vec<String> {
    let cluster = &survey.cluster;
    let mut troubles: Vec<String> = survey.silent.iter().map(silent_line).collect();
    for node in cluster.nodes.iter().filter(|node| !node.connected && node.state.name() != "removed") {
        let without: Vec<u32> = survey.answers.iter().filter(|answer| !is_connected(answer, node.node)).map(|answer| answer.node).collect();
        troubles.push(format!("node {} ({}) is not connected to {}", node.node, node.state.name(), named("node", &without)));
    }
    let leaderless: Vec<u32> = cluster.groups.iter().filter(|group| group.leader.is_none()).map(|group| group.group).collect();
    // Who has no replica of a group knows no leader that it does not reach, nor that there is none.
    let (unheard, leaderless): (Vec<u32>, Vec<u32>) = leaderless.into_iter().partition(|group| !is_heard_of(survey, *group));
    if !leaderless.is_empty() {
        troubles.push(format!("{} {} no leader", named("group", &leaderless), if leaderless.len() == 1 { "has" } else { "have" }));
    }
    if !unheard.is_empty() {
        troubles.push(format!("no node that has a replica of {} answered: who leads is not known", named("group", &unheard)));
    }
    // As many as the nodes allow, an odd number: until then a disk that is lost can take the majority with it.
    let active = cluster.nodes.iter().filter(|node| node.state.name() == "active").count();
    let wanted = (active.saturating_sub(1) | 1).min(5);
    if let Some(metadata) = cluster.groups.iter().find(|group| group.group == 0 && group.voters.len() < wanted) {
        let has = metadata.voters.len();
        troubles.push(format!(
            "{has} of {wanted} nodes vote about the metadata yet: what they have may be lost with {}",
            count(has.div_ceil(2) as u32, "disk")
        ));
    }
    for node in &cluster.nodes {
        // A replica whose disk was replaced is listed as long as it votes, and counted nowhere.
        let listed = cluster.groups.iter().filter(|group| group.voters.contains(&node.node)).count() as u32;
        if let Some(gone) = listed.checked_sub(node.replicas).filter(|gone| *gone > 0) {
            troubles
                .push(format!("the disk of node {} was replaced, and {gone} of its replicas have not been given to it anew", node.node));
        }
    }
    troubles
}

/// Whether a node that has a replica of the group has answered.
fn is_heard_of(survey: &ClusterSurvey, group: u32) -> bool {
    let voters = survey.cluster.groups.iter().find(|found| found.group == group).map_or(&[][..], |found| &found.voters);
    survey.answers.iter().any(|answer| voters.contains(&answer.node))
}

/// Whether the node that answered has a connection to the other one, or has not heard of it yet.
fn is_connected(answer: &ClusterDescription, node: u32) -> bool {
    answer.nodes.iter().find(|found| found.node == node).is_none_or(|found| found.connected)
}

/// `node 1`, `nodes 1, 2`.
fn named(thing: &str, numbers: &[u32]) -> String {
    let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    format!("{thing}{} {}", if numbers.len() == 1 { "" } else { "s" }, texts.join(", "))
}

fn status_text(survey: &ClusterSurvey) -> String {
    let cluster = &survey.cluster;
    let metadata = cluster.groups.iter().find(|group| group.group == 0);
    let leader = metadata.and_then(|group| group.leader).map_or("nobody".to_owned(), |node| format!("node {node}"));
    let answered: Vec<u32> = survey.answers.iter().map(|answer| answer.node).collect();
    let there = cluster.nodes.iter().filter(|node| node.state.name() != "removed").count() as u32;
    let mut text = format!(
        "answered by {}  view {}  feature level {}\n{} of {} answered, {}, metadata led by {leader}\n",
        named("node", &answered),
        cluster.view_epoch,
        cluster.feature_level,
        answered.len(),
        count(there, "node"),
        count(cluster.groups.len() as u32, "replica group"),
    );
    let troubles = troubles(survey);
    match troubles.is_empty() {
        true => text.push_str("healthy\n"),
        false => troubles.iter().for_each(|trouble| text.push_str(&format!("TROUBLE  {trouble}\n"))),
    }
    text
}

fn status_json(survey: &ClusterSurvey) -> Value {
    let (cluster, troubles) = (&survey.cluster, troubles(survey));
    json!({
        "node": cluster.node, "view_epoch": cluster.view_epoch, "feature_level": cluster.feature_level, "healthy": troubles.is_empty(),
        "troubles": troubles, "nodes": cluster.nodes.iter().map(|node| node_json(survey, node)).collect::<Vec<_>>(),
        "groups": cluster.groups.iter().map(group_json).collect::<Vec<_>>(), "silent": silent_json(&survey.silent),
    })
}

/// Groups that a node leads. One that does not answer may lead more than the others know.
fn leads(survey: &ClusterSurvey, node: &ClusterNode) -> Option<u32> {
    let is_silent = survey.silent.iter().any(|silent| silent.node == node.node);
    (!is_silent).then_some(node.leads)
}

fn nodes_text(survey: &ClusterSurvey) -> String {
    let cluster = &survey.cluster;
    let mut nodes = Table::new(&[">NODE", "STATE", "CONNECTED", ">LEADS", ">REPLICAS", ">SHARDS", "RACK", "CLIENTS", "NODES"]);
    for node in &cluster.nodes {
        let connected = if node.connected { "yes" } else { "no" };
        nodes.row(vec![
            node.node.to_string(),
            node.state.name().to_owned(),
            connected.to_owned(),
            or_dash_number(leads(survey, node)),
            node.replicas.to_string(),
            node.shards.to_string(),
            or_dash(&node.rack),
            or_dash(&node.client),
            or_dash(&node.cluster),
        ]);
    }
    nodes.render() + &notes(&survey.silent, &[])
}

fn groups_text(cluster: &ClusterDescription) -> String {
    let mut groups = Table::new(&[">GROUP", ">LEADER", ">TERM", ">PARTITIONS", "VOTERS", "LEARNERS", "MOVE", "UNCLEAN"]);
    for group in &cluster.groups {
        groups.row(vec![
            group.group.to_string(),
            group.leader.map_or("-".to_owned(), |node| node.to_string()),
            group.term.to_string(),
            group.partitions.to_string(),
            list(&group.voters),
            list(&group.learners),
            or_dash(&group.moving),
            group.unclean_term.map_or("-".to_owned(), |term| format!("since term {term}")),
        ]);
    }
    groups.render()
}

fn list(nodes: &[u32]) -> String {
    or_dash(&nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn node_json(survey: &ClusterSurvey, node: &ClusterNode) -> Value {
    json!({
        "node": node.node, "generation": node.generation, "state": node.state.name(), "connected": node.connected, "shards": node.shards,
        "leads": leads(survey, node), "replicas": node.replicas, "rack": node.rack, "cluster": node.cluster, "client": node.client,
    })
}

fn group_json(group: &ClusterGroup) -> Value {
    json!({
        "group": group.group, "factor": group.factor, "leader": group.leader, "term": group.term, "partitions": group.partitions,
        "voters": group.voters, "learners": group.learners, "moving": group.moving, "unclean_term": group.unclean_term,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::{NodeState, SilentNode};

    fn node(number: u32, connected: bool) -> ClusterNode {
        ClusterNode {
            node: number,
            generation: 0,
            state: NodeState::Active,
            connected,
            shards: 2,
            leads: 3,
            replicas: 2,
            rack: String::new(),
            cluster: format!("10.0.0.{number}:7700"),
            client: format!("10.0.0.{number}:7410"),
        }
    }

    fn group(number: u32, leader: Option<u32>) -> ClusterGroup {
        ClusterGroup {
            group: number,
            factor: 3,
            leader,
            term: 4,
            partitions: 1,
            unclean_term: None,
            voters: vec![1, 2],
            learners: vec![],
            moving: String::new(),
        }
    }

    #[test]
    fn a_group_is_moved_one_replica_at_a_time() {
        assert_eq!(next_move(&[1, 2, 3], &[1, 2, 4]), (Some(4), Some(3)));
        assert_eq!(next_move(&[1, 2, 3], &[3, 4, 5]), (Some(4), Some(1)));
        assert_eq!(next_move(&[1], &[1, 2]), (Some(2), None));
        assert_eq!(next_move(&[1, 2, 3], &[3, 1]), (None, Some(2)));
        assert_eq!(next_move(&[1, 2], &[2, 1]), (None, None));
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_else() {
        let mut cluster = ClusterDescription {
            node: 1,
            view_epoch: 7,
            feature_level: 1,
            nodes: vec![node(1, true), node(2, true)],
            groups: vec![group(0, Some(2)), group(1, Some(1))],
        };
        let other = ClusterDescription { node: 2, ..cluster.clone() };
        let survey = ClusterSurvey { cluster: cluster.clone(), answers: vec![cluster.clone(), other], silent: vec![] };
        let text = status_text(&survey);
        assert!(text.ends_with("2 of 2 nodes answered, 2 replica groups, metadata led by node 2\nhealthy\n"), "{text}");
        assert!(status_json(&survey)["healthy"] == json!(true));
        let mut young = survey.clone();
        young.cluster.nodes.push(node(3, true));
        assert_eq!(troubles(&young), ["2 of 3 nodes vote about the metadata yet: what they have may be lost with 1 disk"]);
        cluster.nodes[1].connected = false;
        cluster.groups[0].leader = None;
        cluster.nodes[1].replicas = 1;
        // Of a group that only node 2 has a replica of, nobody is heard.
        cluster.groups.push(ClusterGroup { voters: vec![2], ..group(2, None) });
        let silent = vec![SilentNode { node: 2, address: "10.0.0.2:7410".into(), reason: "refused".into() }];
        let survey = ClusterSurvey { answers: vec![cluster.clone()], cluster, silent };
        assert_eq!(
            troubles(&survey),
            [
                "node 2 (10.0.0.2:7410) did not answer: refused",
                "node 2 (active) is not connected to node 1",
                "group 0 has no leader",
                "no node that has a replica of group 2 answered: who leads is not known",
                "the disk of node 2 was replaced, and 2 of its replicas have not been given to it anew"
            ]
        );
        assert_eq!(groups_text(&survey.cluster).lines().last(), Some("    2       -     4           1  2       -         -     -"));
        assert!(status_text(&survey).contains("answered by node 1 ") && status_text(&survey).contains("1 of 2 nodes answered"));
        let told = status_json(&survey);
        assert_eq!((&told["healthy"], &told["nodes"][1]["leads"], &told["silent"][0]["node"]), (&json!(false), &Value::Null, &json!(2)));
        assert!(nodes_text(&survey).contains("did not answer"), "{}", nodes_text(&survey));
    }
}
