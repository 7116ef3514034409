//! `group`: consumer groups, their lag, and where they read on.
//!
//! As with the other verbs: one function asks, pure ones make the text and the JSON; the JSON's fields may become more, none is renamed.

use crate::args::{Format, Target};
use crate::failure::{self, Failure};
use crate::output::show;
use crate::start::{From, time_text};
use crate::table::Table;
use crate::unknown::{notes, or_dash, silent_json};
use serde_json::{Value, json};
use tramline_client::{At, Client, GroupDescription, GroupProgress, GroupSummary};

/// `group list`.
pub fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let groups = client.list_groups()?;
    show(format, || list_text(&groups), || list_json(&groups))
}

fn list_text(groups: &[GroupSummary]) -> String {
    if groups.is_empty() {
        return "no consumer groups\n".to_owned();
    }
    let mut table = Table::new(&["GROUP", ">MEMBERS", ">NODE", ">SHARD", ">UID"]);
    for group in groups {
        let home = |number: u32| or_dash((group.node != 0).then_some(number));
        table.row(vec![group.name.clone(), or_dash(group.members), home(group.node), home(group.shard.into()), group.uid.to_string()]);
    }
    let untold = groups.iter().any(|group| group.members.is_none());
    let note = if untold { "\n- : the node where the group is at home did not answer\n" } else { "" };
    table.render() + note
}

fn list_json(groups: &[GroupSummary]) -> Value {
    let told = |g: &GroupSummary| json!({"group": g.name, "group_uid": g.uid, "members": g.members, "node": g.node, "shard": g.shard});
    groups.iter().map(told).collect()
}

/// `group describe`.
pub fn describe(client: &Client, format: Format, name: &str) -> Result<(), Failure> {
    let group = client.describe_group(name)?;
    show(format, || describe_text(&group), || describe_json(&group))
}

fn describe_text(group: &GroupDescription) -> String {
    let home = match group.node {
        0 => "home without a leader".to_owned(),
        node => format!("home node {node} shard {}", group.shard),
    };
    let mut text = format!("group {}  uid {}  {home}  ", group.name, group.uid);
    match group.session_timeout_ms {
        _ if !group.is_home_told => text.push_str("members are not known\n"),
        0 => text.push_str("nobody has joined yet\n"),
        timeout_ms => text.push_str(&format!("assignor {}  session timeout {}\n", group.assignor, span(timeout_ms.into()))),
    }
    let (lag, bytes) = (total(group, |p| p.lag), total(group, |p| p.lag_bytes));
    let oldest_ms = group.partitions.iter().map(|p| p.lag_ms).max().unwrap_or(0);
    let at_least = if is_whole(group) { "" } else { "at least " };
    text.push_str(&format!("lag {at_least}{lag} records, {bytes} bytes, the oldest {} old\n", span(oldest_ms)));
    if !group.members.is_empty() {
        let mut members = Table::new(&[">MEMBER", "CLIENT", "INSTANCE", ">PARTITIONS", ">OF", "STATE"]);
        for member in &group.members {
            let instance = if member.instance.is_empty() { "-".to_owned() } else { member.instance.clone() };
            let state = if member.is_settled { "settled" } else { "changing" };
            let numbers = [member.partitions.to_string(), member.target.to_string()];
            let names = [member.id.to_string(), member.client.clone(), instance];
            members.row(names.into_iter().chain(numbers).chain([state.to_owned()]).collect());
        }
        text.push('\n');
        text.push_str(&members.render());
    }
    if !group.partitions.is_empty() {
        let mut partitions =
            Table::new(&["TOPIC", ">PARTITION", ">MEMBER", ">OFFSET", ">END", ">LAG", ">BYTES", ">OLDEST", ">DRAINED IN", "COMMITTED"]);
        for p in &group.partitions {
            let known = |number: u64| or_dash(p.error.is_ok().then_some(number));
            partitions.row(vec![
                p.topic.clone(),
                p.partition.to_string(),
                or_dash(p.member),
                or_dash(p.offset),
                known(p.committed_end),
                known(p.lag),
                known(p.lag_bytes),
                or_dash(p.error.is_ok().then(|| span(p.lag_ms))),
                p.drain_ms.map_or("-".to_owned(), span),
                if p.offset.is_some() { time_text(p.committed_us) } else { "-".to_owned() },
            ]);
        }
        text.push('\n');
        text.push_str(&partitions.render());
    }
    let mut untold: Vec<String> =
        group.partitions.iter().filter(|p| !p.error.is_ok()).map(|p| format!("{} partition {}", p.topic, p.partition)).collect();
    if !group.is_home_told {
        untold.push("the group's members".to_owned());
    }
    text.push_str(&notes(&group.silent, &untold));
    if !group.silent.is_empty() {
        text.push_str("offsets that the group has committed in partitions led by a node that did not answer are missing\n");
    }
    text
}

/// Whether everybody was asked, so that sums are sums of all.
fn is_whole(group: &GroupDescription) -> bool {
    group.silent.is_empty() && group.partitions.iter().all(|p| p.error.is_ok())
}

fn describe_json(group: &GroupDescription) -> Value {
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|m| {
            json!({"member": m.id, "client": m.client, "instance": m.instance, "partitions": m.partitions, "target": m.target, "settled": m.is_settled})
        })
        .collect();
    let partitions: Vec<Value> = group
        .partitions
        .iter()
        .map(|p| {
            let known = |number: u64| p.error.is_ok().then_some(number);
            json!({
                "topic": p.topic, "partition": p.partition, "member": p.member, "offset": p.offset,
                "error": (!p.error.is_ok()).then(|| p.error.name()),
                "committed": p.offset.is_some().then(|| time_text(p.committed_us)), "first": known(p.log_start), "next": known(p.committed_end),
                "lag": known(p.lag), "lag_bytes": known(p.lag_bytes), "lag_ms": known(p.lag_ms), "drain_ms": p.drain_ms,
            })
        })
        .collect();
    // Sums of what is not whole are no facts.
    let sum = |of: fn(&GroupProgress) -> u64| is_whole(group).then(|| total(group, of));
    let told = group.is_home_told;
    json!({
        "group": group.name, "group_uid": group.uid, "node": group.node, "shard": group.shard, "epoch": told.then_some(group.epoch),
        "assignor": told.then_some(group.assignor), "session_timeout_ms": told.then_some(group.session_timeout_ms), "lag": sum(|p| p.lag),
        "lag_bytes": sum(|p| p.lag_bytes), "members": told.then_some(members), "partitions": partitions, "silent": silent_json(&group.silent),
    })
}

fn total(group: &GroupDescription, of: impl Fn(&GroupProgress) -> u64) -> u64 {
    group.partitions.iter().map(of).fold(0, u64::saturating_add)
}

/// Milliseconds for people: 0 to three digits behind the unit that fits.
fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..120_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{}m{}s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{}h{}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// `group delete`.
pub fn delete(client: &Client, format: Format, name: &str) -> Result<(), Failure> {
    client.delete_group(name)?;
    show(format, || format!("deleted group {name}\n"), || json!({"group": name, "deleted": true}))
}

/// `group seek`.
pub fn seek(client: &Client, format: Format, name: &str, topic: &str, chosen: &[u32], to: Target, dry_run: bool) -> Result<(), Failure> {
    let described = client.describe_topic(topic)?.partitions;
    let partitions: Vec<u32> = if chosen.is_empty() { (0..described.len() as u32).collect() } else { chosen.to_vec() };
    let bounds = |partition: u32| described.get(partition as usize).map(|p| (p.log_start, p.committed_end));
    if let Some(partition) = partitions.iter().find(|partition| bounds(**partition).is_none()) {
        let message = format!("topic {topic} has no partition {partition}: it has {}, from 0", described.len());
        return Err(Failure::local(failure::USAGE, &message));
    }
    if let Some(partition) = partitions.iter().find(|partition| !described[**partition as usize].error.is_ok()) {
        let what = format!("partition {partition} of topic {topic}, whose leader does not answer, so that nothing was changed");
        return Err(Failure::refused(described[*partition as usize].error, &what));
    }
    let wanted: Vec<u64> = match to {
        Target::To(From::Earliest) => partitions.iter().filter_map(|p| bounds(*p)).map(|(first, _)| first).collect(),
        Target::To(From::Latest) => partitions.iter().filter_map(|p| bounds(*p)).map(|(_, end)| end).collect(),
        Target::To(From::Offset(offset)) => vec![offset; partitions.len()],
        Target::To(From::Time(us)) => {
            let asked: Vec<(u32, At)> = partitions.iter().map(|p| (*p, At::Time(us))).collect();
            client.list_offsets(topic, &asked)?.into_iter().map(|found| found.offset).collect()
        }
        Target::Shift(by) => {
            let known = client.committed_offsets(name, topic, &partitions)?;
            // Where nothing was committed there is nothing to shift from but the first record.
            let from = known.iter().zip(&partitions).map(|(known, p)| known.or(bounds(*p).map(|(first, _)| first)).unwrap_or(0));
            from.map(|offset| offset.saturating_add_signed(by)).collect()
        }
    };
    let inside = |(partition, offset): (&u32, u64)| bounds(*partition).map(|(first, end)| (*partition, offset.clamp(first, end)));
    let offsets: Vec<(u32, u64)> = partitions.iter().zip(wanted).filter_map(inside).collect();
    if !dry_run {
        client.seek_group(name, topic, &offsets)?;
    }
    show(format, || seek_text(name, topic, &offsets, dry_run), || seek_json(name, topic, &offsets, dry_run))
}

fn seek_text(name: &str, topic: &str, offsets: &[(u32, u64)], dry_run: bool) -> String {
    let mut table = Table::new(&[">PARTITION", ">OFFSET"]);
    offsets.iter().for_each(|(partition, offset)| table.row(vec![partition.to_string(), offset.to_string()]));
    let done = if dry_run { "would read on (--dry-run: nothing was changed)" } else { "reads on" };
    format!("group {name} {done} in topic {topic} at\n\n{}", table.render())
}

fn seek_json(name: &str, topic: &str, offsets: &[(u32, u64)], dry_run: bool) -> Value {
    let partitions: Vec<Value> = offsets.iter().map(|(partition, offset)| json!({"partition": partition, "offset": offset})).collect();
    json!({"group": name, "topic": topic, "dry_run": dry_run, "partitions": partitions})
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::{ErrorCode, MemberDescription, SilentNode};

    fn group() -> GroupDescription {
        let progress = GroupProgress {
            topic: "flights".into(),
            partition: 0,
            member: Some(12),
            error: ErrorCode::Ok,
            offset: Some(40),
            committed_us: 1_700_000_000_000_000,
            log_start: 3,
            committed_end: 100,
            lag: 60,
            lag_bytes: 6_000,
            lag_ms: 65_400,
            drain_ms: Some(7_260_000),
        };
        let unread =
            GroupProgress { partition: 1, member: None, offset: None, committed_us: 0, lag: 97, drain_ms: None, ..progress.clone() };
        let member =
            MemberDescription { id: 12, instance: String::new(), client: "biller".into(), partitions: 1, target: 2, is_settled: false };
        GroupDescription {
            uid: 5,
            name: "billing".into(),
            node: 1,
            shard: 0,
            is_home_told: true,
            epoch: 13,
            assignor: "sticky",
            session_timeout_ms: 45_000,
            members: vec![member],
            partitions: vec![progress, unread],
            silent: vec![],
        }
    }

    #[test]
    fn a_group_is_told_with_members_and_lag() {
        assert_eq!(
            describe_text(&group()),
            "group billing  uid 5  home node 1 shard 0  assignor sticky  session timeout 45.0s\n\
             lag 157 records, 12000 bytes, the oldest 65.4s old\n\n\
             MEMBER  CLIENT  INSTANCE  PARTITIONS  OF  STATE\n    \
                 12  biller  -                  1   2  changing\n\n\
             TOPIC    PARTITION  MEMBER  OFFSET  END  LAG  BYTES  OLDEST  DRAINED IN  COMMITTED\n\
             flights          0      12      40  100   60   6000   65.4s        2h1m  2023-11-14T22:13:20.000000Z\n\
             flights          1       -       -  100   97   6000   65.4s           -  -\n"
        );
        let value = describe_json(&group());
        assert_eq!(
            (&value["lag"], &value["partitions"][1]["offset"], &value["partitions"][1]["committed"]),
            (&json!(157), &Value::Null, &Value::Null)
        );
        assert_eq!(value["members"][0]["settled"], json!(false));
    }

    #[test]
    fn what_is_not_known_of_a_group_is_no_number() {
        let mut group = group();
        let away = GroupProgress {
            error: ErrorCode::NotReady,
            offset: None,
            committed_end: 0,
            lag: 0,
            lag_bytes: 0,
            lag_ms: 0,
            ..group.partitions[1].clone()
        };
        group.partitions[1] = away;
        group.silent = vec![SilentNode { node: 2, address: "h:1".into(), reason: "refused".into() }];
        let text = describe_text(&group);
        assert!(text.contains("lag at least 60 records"), "{text}");
        assert!(text.contains("flights          1       -       -    -    -      -       -           -  -\n"), "{text}");
        assert!(text.contains("node 2 (h:1) did not answer") && text.contains("leads flights partition 1:"), "{text}");
        let value = describe_json(&group);
        assert_eq!(
            (&value["lag"], &value["partitions"][1]["lag"], &value["partitions"][1]["next"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        group.is_home_told = false;
        assert!(describe_text(&group).contains("members are not known"));
        assert_eq!((&describe_json(&group)["members"], &describe_json(&group)["epoch"]), (&Value::Null, &Value::Null));
        let summary = GroupSummary { name: "g".into(), uid: 1, node: 2, shard: 0, members: None };
        assert!(list_text(std::slice::from_ref(&summary)).contains("did not answer"));
        assert_eq!(list_json(&[summary])[0]["members"], Value::Null);
    }

    #[test]
    fn spans_are_read_at_a_glance() {
        for (ms, text) in [(0, "0ms"), (999, "999ms"), (1_000, "1.0s"), (119_999, "119.9s"), (120_000, "2m0s"), (7_200_000, "2h0m")] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn what_a_dry_run_would_do_is_told_as_that() {
        assert!(seek_text("g", "t", &[(0, 7)], true).contains("nothing was changed"));
        assert_eq!(
            seek_json("g", "t", &[(3, 7)], false),
            json!({"group": "g", "topic": "t", "dry_run": false, "partitions": [{"partition": 3, "offset": 7}]})
        );
    }
}
