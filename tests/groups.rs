//! Consumer groups against a real node of two shards: members on any port, offsets over SIGKILL, and `tramctl group`.

use common::tool::{tramctl, tramctl_with_input};
use common::{Node, Options, WAIT};
use serde_json::json;
use std::collections::BTreeMap;
use tramline_client::wire::error::{ErrorBody, ErrorCode};
use tramline_client::wire::frame::FLAG_ERROR;
use tramline_client::wire::group::*;
use tramline_client::wire::kind::Kind;
use tramline_client::wire::prim::List;
use tramline_client::{Client, Config, RawConn};

const PARTITIONS: u32 = 6;
/// How long a heartbeat may be held: a third of the session timeout counts.
const HELD_MS: u32 = 10_000;

struct Conn(RawConn);

impl Conn {
    /// On the own port of a shard.
    fn open(node: &Node, shard: u16) -> Conn {
        let hello = Client::connect(Config::new(&node.server())).expect("the node answers").hello();
        let address = hello.nodes[0].shard_address(shard).expect("each shard has a port");
        Conn(RawConn::open(&address, &Config::default()).expect("the shard answers"))
    }

    /// The meta of the reply, or the code of the refusal.
    fn ask(&mut self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, ErrorCode> {
        let correlation = self.send(kind, encode);
        self.take(correlation)
    }

    fn send(&mut self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let mut meta = Vec::new();
        encode(&mut meta);
        let correlation = self.0.next_correlation();
        self.0.send_frame(kind, 0, correlation, &meta, &[]).expect("the kernel takes it");
        correlation
    }

    fn take(&mut self, correlation: u64) -> Result<Vec<u8>, ErrorCode> {
        let frame = self.0.recv_frame(WAIT).expect("the node lives").expect("an answer in time");
        assert_eq!(frame.header.correlation, correlation);
        match frame.header.flags & FLAG_ERROR {
            0 => Ok(frame.meta.to_vec()),
            _ => Err(ErrorBody::decode(frame.meta).unwrap().code().unwrap()),
        }
    }
}

/// A member: what it may own, as it was told last.
struct Member {
    conn: Conn,
    group_uid: u64,
    id: u64,
    epoch: u64,
    owns: BTreeMap<u64, u64>,
}

fn owned(list: List<'_, GrantedPartition>) -> BTreeMap<u64, u64> {
    list.iter().map(|granted| (granted.partition_uid, granted.assignment_epoch)).collect()
}

impl Member {
    fn join(mut conn: Conn, group_uid: u64) -> Member {
        let topics = List::of(&["t"]);
        let request = JoinGroupRequest {
            group_uid,
            flags: JoinFlags::default(),
            assignor: Assignor::Sticky,
            session_timeout_ms: 30_000,
            instance: "",
            client: "test",
            topics,
        };
        let meta = conn.ask(Kind::JoinGroup, |out| request.encode(out)).expect("a member");
        let reply = JoinGroupReply::decode(&meta).unwrap();
        Member { conn, group_uid, id: reply.member_id, epoch: reply.epoch, owns: owned(reply.partitions) }
    }

    fn heartbeat(&mut self, wait_ms: u32) -> u64 {
        let (group_uid, member_id, epoch) = (self.group_uid, self.id, self.epoch);
        let (flags, topics) = (HeartbeatFlags::default(), List::of(&[]));
        let request = HeartbeatGroupRequest { group_uid, member_id, epoch, wait_ms, flags, instance: "", topics };
        self.conn.send(Kind::HeartbeatGroup, |out| request.encode(out))
    }

    fn take(&mut self, correlation: u64) {
        let meta = self.conn.take(correlation).expect("still a member");
        let reply = HeartbeatGroupReply::decode(&meta).unwrap();
        if reply.epoch != self.epoch {
            (self.epoch, self.owns) = (reply.epoch, owned(reply.partitions));
        }
    }

    fn beat(&mut self, wait_ms: u32) {
        let correlation = self.heartbeat(wait_ms);
        self.take(correlation);
    }

    /// Commits for each partition that it owns, as many requests as the partitions have owners.
    fn commit(&mut self, shards: &BTreeMap<u64, u16>, offset: u64) {
        for shard in [0, 1] {
            let of_shard = self.owns.iter().filter(|(uid, _)| shards[uid] == shard);
            let asks: Vec<_> = of_shard.map(|(uid, epoch)| OffsetAsk { partition_uid: *uid, assignment_epoch: *epoch }).collect();
            if asks.is_empty() {
                continue;
            }
            let group_uid = self.group_uid;
            let claim = FetchOffsetsRequest { group_uid, entries: List::of(&asks) };
            let meta = self.conn.ask(Kind::FetchOffsets, |out| claim.encode(out)).expect("claimed");
            assert!(FetchOffsetsReply::decode(&meta).unwrap().entries.iter().all(|entry| entry.error.is_ok()));
            let commits: Vec<_> = asks
                .iter()
                .map(|ask| OffsetCommit { partition_uid: ask.partition_uid, assignment_epoch: ask.assignment_epoch, offset, metadata: "" })
                .collect();
            let commit = CommitOffsetsRequest { group_uid, entries: List::of(&commits) };
            let meta = self.conn.ask(Kind::CommitOffsets, |out| commit.encode(out)).expect("committed");
            assert!(CommitOffsetsReply::decode(&meta).unwrap().entries.iter().all(|entry| entry.error.is_ok()));
        }
    }
}

/// A node of two shards with a topic of 600 records, and where its partitions are.
fn node_with_records() -> (Node, BTreeMap<u64, u16>) {
    let node = Node::with(Options::shards(2));
    let server = node.server();
    tramctl(&server, &["topic", "create", "t", "--partitions", &PARTITIONS.to_string()]).ok();
    let lines: String = (0..600).map(|number| format!("line {number}\n")).collect();
    tramctl_with_input(&server, &["produce", "t", "--key-field", "2", "--delimiter", " "], lines.as_bytes()).ok();
    let client = Client::connect(Config::new(&server)).unwrap();
    let topic = client.describe_topic("t").unwrap();
    let shards = topic.partitions.iter().map(|partition| (partition.uid, partition.shard)).collect();
    (node, shards)
}

fn find(conn: &mut Conn, name: &str) -> FindGroupReply {
    let request = FindGroupRequest { name, flags: FindGroupFlags::CREATE };
    let meta = conn.ask(Kind::FindGroup, |out| request.encode(out)).expect("found or created");
    FindGroupReply::decode(&meta).unwrap()
}

#[test]
fn members_share_partitions_of_both_shards_and_a_killed_node_takes_nothing_from_them() {
    let (mut node, shards) = node_with_records();
    assert_eq!(shards.values().collect::<std::collections::BTreeSet<_>>().len(), 2, "both shards have some: {shards:?}");
    // On the port of either shard: what belongs elsewhere is passed on.
    let mut conn = Conn::open(&node, 1);
    let group_uid = find(&mut conn, "g").group_uid;
    assert!(!find(&mut Conn::open(&node, 0), "g").created);
    let mut first = Member::join(conn, group_uid);
    assert_eq!(first.owns.len(), PARTITIONS as usize);
    let held = first.heartbeat(HELD_MS);
    let asked = std::time::Instant::now();
    let mut second = Member::join(Conn::open(&node, 0), group_uid);
    first.take(held);
    assert!(asked.elapsed() < std::time::Duration::from_millis(HELD_MS.into()), "told at once, not when the time is over");
    assert_eq!(first.owns.len(), PARTITIONS as usize / 2);
    let asked = second.heartbeat(HELD_MS);
    first.beat(0);
    second.take(asked);
    let mut all: Vec<u64> = first.owns.keys().chain(second.owns.keys()).copied().collect();
    all.sort_unstable();
    assert_eq!(all, shards.keys().copied().collect::<Vec<_>>());
    first.commit(&shards, 10);
    second.commit(&shards, 20);

    node.process.kill();
    let node = node.restart();
    for member in [&mut first, &mut second] {
        member.conn = Conn::open(&node, 1);
        let before = (member.epoch, member.owns.clone());
        member.beat(0);
        assert_eq!((member.epoch, member.owns.clone()), before, "nothing has moved");
    }
    let described = Client::connect(Config::new(&node.server())).unwrap().describe_group("g").unwrap();
    let told: BTreeMap<u64, Vec<Option<u64>>> = described.partitions.iter().fold(BTreeMap::new(), |mut told, p| {
        told.entry(p.member.expect("an owner")).or_insert_with(Vec::new).push(p.offset);
        told
    });
    assert_eq!(told, BTreeMap::from([(first.id, vec![Some(10); 3]), (second.id, vec![Some(20); 3])]));
    let lag: u64 = described.partitions.iter().map(|p| p.lag).sum();
    assert_eq!(lag, 600 - 3 * 10 - 3 * 20);
    assert!(described.partitions.iter().all(|p| p.lag == 0 || p.lag_bytes > 0));
}

#[test]
fn tramctl_lists_describes_moves_and_deletes_groups() {
    let (node, shards) = node_with_records();
    let server = node.server();
    let run = |arguments: &[&str]| tramctl(&server, arguments);
    assert_eq!(run(&["group", "list"]).ok().text(), "no consumer groups\n");
    let moved = run(&["group", "seek", "g", "--topic", "t", "--to", "7", "--format", "json", "--dry-run"]).ok().json();
    assert_eq!((&moved["dry_run"], &moved["partitions"][5]), (&json!(true), &json!({"partition": 5, "offset": 7})));
    assert_eq!(run(&["group", "list", "--format", "json"]).ok().json(), json!([]), "a dry run creates nothing");
    run(&["group", "seek", "g", "--topic", "t", "--to", "7"]).ok();
    run(&["group", "seek", "g", "--topic", "t", "--partition", "2", "--shift", "-3"]).ok();
    run(&["group", "seek", "g", "--topic", "t", "--partition", "3", "--to", "latest"]).ok();
    let text = run(&["group", "describe", "g"]).ok().text();
    assert!(text.contains("lag ") && text.contains("TOPIC"), "{text}");
    let described = run(&["group", "describe", "g", "--format", "json"]).ok().json();
    let offsets: Vec<_> = described["partitions"].as_array().unwrap().iter().map(|p| p["offset"].as_u64().unwrap()).collect();
    let end = described["partitions"][3]["next"].as_u64().unwrap();
    assert_eq!(offsets, [7, 7, 4, end, 7, 7]);
    assert_eq!(described["partitions"][3]["lag"], json!(0));

    // With a member in it nobody moves or deletes it.
    let mut conn = Conn::open(&node, 0);
    let group_uid = find(&mut conn, "g").group_uid;
    let mut member = Member::join(conn, group_uid);
    member.commit(&shards, 9);
    for refused in [&["group", "seek", "g", "--topic", "t", "--to", "earliest"][..], &["group", "delete", "g"]] {
        let ran = run(refused);
        assert!(ran.code == 1 && ran.stderr.contains("members"), "{ran:?}");
    }
    let listed = run(&["group", "list", "--format", "json"]).ok().json();
    assert_eq!((&listed[0]["group"], &listed[0]["members"]), (&json!("g"), &json!(1)));
    let leave = LeaveGroupRequest { group_uid, member_id: member.id, flags: LeaveFlags::default(), instance: "" };
    member.conn.ask(Kind::LeaveGroup, |out| leave.encode(out)).expect("left");
    run(&["group", "delete", "g"]).ok();
    for wrong in [&["group", "describe", "g"][..], &["group", "delete", "g"]] {
        let ran = run(wrong);
        assert!(ran.code == 1 && ran.stderr.contains("does not exist"), "{ran:?}");
    }
    assert_eq!(run(&["group", "seek", "g", "--topic", "t"]).code, 2, "no target");
    assert_eq!(run(&["group", "seek", "g", "--topic", "t", "--to", "1", "--shift", "2"]).code, 2, "two targets");
    assert!(run(&["group", "seek", "g", "--topic", "t", "--partition", "6", "--to", "1"]).stderr.contains("it has 6, from 0"));
    assert_eq!(run(&["group", "seek", "a b", "--topic", "t", "--to", "1"]).code, 1);
}
