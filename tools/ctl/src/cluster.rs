//! `cluster`: nodes and replica groups, and nodes that stand aside.
//!
//! As with the other verbs: one function asks, pure ones make the text and the JSON; the JSON's fields may become more, none is renamed.

use crate::args::{ClusterVerb, Format};
use crate::failure::Failure;
use crate::output::show;
use crate::table::Table;
use serde_json::{Value, json};
use tramline_client::{Client, ClusterDescription, ClusterGroup, ClusterNode};

/// `cluster ...`.
pub fn run(client: &Client, format: Format, verb: &ClusterVerb) -> Result<(), Failure> {
    match verb {
        ClusterVerb::Status => {
            let cluster = client.describe_cluster()?;
            show(format, || status_text(&cluster), || status_json(&cluster))
        }
        ClusterVerb::Nodes => {
            let cluster = client.describe_cluster()?;
            show(format, || nodes_text(&cluster), || Value::from(cluster.nodes.iter().map(node_json).collect::<Vec<_>>()))
        }
        ClusterVerb::Groups => {
            let cluster = client.describe_cluster()?;
            show(format, || groups_text(&cluster), || Value::from(cluster.groups.iter().map(group_json).collect::<Vec<_>>()))
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
fn troubles(cluster: &ClusterDescription) -> Vec<String> {
    let away = cluster.nodes.iter().filter(|node| !node.connected && node.state.name() != "removed");
    let mut troubles: Vec<String> =
        away.map(|node| format!("node {} ({}) is not connected to node {}", node.node, node.state.name(), cluster.node)).collect();
    let leaderless: Vec<_> =
        cluster.groups.iter().filter(|group| is_leaderless(cluster, group)).map(|group| group.group.to_string()).collect();
    if !leaderless.is_empty() {
        troubles.push(format!("node {} knows no leader of groups {}", cluster.node, leaderless.join(", ")));
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

/// A group of which the node that answered has a replica, and knows no leader. Of the others it hears nothing.
fn is_leaderless(cluster: &ClusterDescription, group: &ClusterGroup) -> bool {
    group.leader.is_none() && group.voters.contains(&cluster.node)
}

fn status_text(cluster: &ClusterDescription) -> String {
    let connected = cluster.nodes.iter().filter(|node| node.connected).count();
    let metadata = cluster.groups.iter().find(|group| group.group == 0);
    let leader = metadata.and_then(|group| group.leader).map_or("nobody".to_owned(), |node| format!("node {node}"));
    let mut text = format!(
        "answered by node {}  view {}  feature level {}\n{connected} of {} nodes connected, {} replica groups, metadata led by {leader}\n",
        cluster.node,
        cluster.view_epoch,
        cluster.feature_level,
        cluster.nodes.len(),
        cluster.groups.len()
    );
    let troubles = troubles(cluster);
    match troubles.is_empty() {
        true => text.push_str("healthy\n"),
        false => troubles.iter().for_each(|trouble| text.push_str(&format!("TROUBLE  {trouble}\n"))),
    }
    text
}

fn status_json(cluster: &ClusterDescription) -> Value {
    let troubles = troubles(cluster);
    json!({
        "node": cluster.node, "view_epoch": cluster.view_epoch, "feature_level": cluster.feature_level, "healthy": troubles.is_empty(),
        "troubles": troubles, "nodes": cluster.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "groups": cluster.groups.iter().map(group_json).collect::<Vec<_>>(),
    })
}

fn nodes_text(cluster: &ClusterDescription) -> String {
    let mut nodes = Table::new(&[">NODE", "STATE", "CONNECTED", ">LEADS", ">REPLICAS", ">SHARDS", "RACK", "CLIENTS", "NODES"]);
    for node in &cluster.nodes {
        let connected = if node.connected { "yes" } else { "no" };
        nodes.row(vec![
            node.node.to_string(),
            node.state.name().to_owned(),
            connected.to_owned(),
            node.leads.to_string(),
            node.replicas.to_string(),
            node.shards.to_string(),
            or_dash(&node.rack),
            or_dash(&node.client),
            or_dash(&node.cluster),
        ]);
    }
    nodes.render()
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

fn node_json(node: &ClusterNode) -> Value {
    json!({
        "node": node.node, "generation": node.generation, "state": node.state.name(), "connected": node.connected, "shards": node.shards,
        "leads": node.leads, "replicas": node.replicas, "rack": node.rack, "cluster": node.cluster, "client": node.client,
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
    use tramline_client::NodeState;

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
        let text = status_text(&cluster);
        assert!(text.ends_with("metadata led by node 2\nhealthy\n"), "{text}");
        cluster.nodes[1].connected = false;
        cluster.groups[0].leader = None;
        cluster.nodes[1].replicas = 1;
        // Of a group that node 1 has no replica of, it hears nothing: that is no trouble.
        cluster.groups.push(ClusterGroup { voters: vec![2], ..group(2, None) });
        assert_eq!(
            troubles(&cluster),
            [
                "node 2 (active) is not connected to node 1",
                "node 1 knows no leader of groups 0",
                "the disk of node 2 was replaced, and 2 of its replicas have not been given to it anew"
            ]
        );
        assert_eq!(groups_text(&cluster).lines().last(), Some("    2       -     4           1  2       -         -     -"));
    }
}
