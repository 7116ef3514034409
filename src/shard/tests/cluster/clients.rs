//! What clients of the three nodes do and know, and what has to hold of it in the end.
//!
//! Not here: nodes, links and faults (`cluster.rs`).

use super::super::world::{batch, produce_results, records_of};
use super::{Cluster, NODES, Node, Values};
use crate::effects::Event;
use crate::ids::{GroupId, PartitionUid};
use crate::shard::Shard;
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

impl Cluster {
    pub(super) fn take_replies(&mut self, at: usize) {
        while let Some(bytes) = self.nodes[at].replies.pop_front() {
            let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("the shard sends whole frames") };
            let Some(batches) = self.sent.remove(&(at, frame.header.correlation)) else {
                self.take_consumers_reply(at, &frame);
                continue;
            };
            if frame.header.flags & frame::FLAG_ERROR != 0 {
                let code = ErrorBody::decode(frame.meta).unwrap().code().unwrap();
                assert!(matches!(code, ErrorCode::LeadershipLost | ErrorCode::TimedOut | ErrorCode::NotReady), "{code:?}");
                continue;
            }
            let results = produce_results(frame.meta);
            assert_eq!(results.len(), batches.len());
            for (result, (uid, values)) in std::iter::zip(results, batches) {
                let refused = [ErrorCode::NotLeader, ErrorCode::UnknownPartition, ErrorCode::LeadershipLost];
                if !result.error.is_ok() {
                    let is_full = result.error == ErrorCode::Overloaded && self.nodes.iter().any(|node| node.is_disk_stuck);
                    assert!(is_full || refused.contains(&result.error), "{result:?}");
                    *self.refused.entry(result.error).or_default() += 1;
                    continue;
                }
                assert!(
                    result.durable_end >= result.base_offset + values.len() as u64,
                    "an ack tells that its records are durable: {result:?}"
                );
                for (number, value) in values.into_iter().enumerate() {
                    let before = self.acked.insert((uid, result.base_offset + number as u64), value);
                    let offset = result.base_offset + number as u64;
                    assert!(
                        before.is_none(),
                        "offset {offset} of {uid} was acknowledged twice, now by node {}\n{}",
                        at + 1,
                        self.describe()
                    );
                }
            }
        }
    }

    pub(super) fn create_topic(&mut self) {
        self.happen_until("leaders of all groups", Cluster::is_led);
        let at = self.leaders()[&GroupId(0)][0];
        self.happen_until("a view", |cluster| cluster.nodes[at].shard.as_ref().is_some_and(Shard::is_serving));
        let request =
            CreateTopicRequest { name: "t", partitions: 4, replication: 0, flags: CreateFlags::IF_NOT_EXISTS, settings: List::of(&[]) };
        self.request(at, Kind::CreateTopic, &[], |out| request.encode(out));
        let knows = |node: &Node| node.shard.as_ref().is_some_and(|shard| shard.partitions.len() == 4);
        self.happen_until("the topic on all nodes", |cluster| cluster.nodes.iter().all(knows));
        self.happen_until("leaders of its groups", |cluster| cluster.is_led() && cluster.replicated().len() == super::REPLICATED);
        self.nodes[at].replies.clear();
        let asked = self.request(at, Kind::Metadata, &[], |out| MetadataRequest { topics: List::of(&["t"]) }.encode(out));
        let bytes = self.nodes[at].replies.pop_back().expect("metadata are there at once");
        let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
        assert_eq!(frame.header.correlation, asked);
        let reply = MetadataReply::decode(frame.meta).unwrap();
        self.uids = reply.topics.iter().next().unwrap().partitions.iter().map(|p| p.uid).collect();
    }

    /// A node that takes itself for the leader of a partition.
    fn who_leads(&self, uid: u64) -> Option<usize> {
        let leads = |node: &Node| {
            let shard = node.shard.as_ref()?;
            let slot = shard.partitions.slot(PartitionUid(uid))?;
            shard.groups.leads(shard.partitions.get(slot)?.group).then_some(())
        };
        self.nodes.iter().position(|node| leads(node).is_some())
    }

    /// A client sends a batch, mostly to who it thinks leads, and else to some node.
    pub(super) fn produce(&mut self) {
        let uid = self.uids[self.dice.below(self.uids.len() as u64) as usize];
        let mut at = self.dice.below(NODES as u64) as usize;
        if self.dice.chance(80) {
            at = self.who_leads(uid).unwrap_or(at);
        }
        if self.nodes[at].shard.is_none() {
            return;
        }
        // Sometimes several batches in a request, of which the first may be taken in while the others wait for room.
        let batches: Vec<(u64, Values)> = (0..1 + self.dice.below(8) / 6).map(|_| self.some_values(uid)).collect();
        let bytes: Vec<Vec<u8>> = batches.iter().map(|(_, values)| batch(values, self.now.utc_us)).collect();
        let entries: Vec<_> = std::iter::zip(&batches, &bytes)
            .map(|((uid, _), bytes)| ProduceEntry { partition_uid: *uid, batch_len: bytes.len() as u32 })
            .collect();
        self.sent.insert((at, self.next_correlation), batches);
        self.request(at, Kind::Produce, &bytes.concat(), |out| {
            let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
            entries.iter().for_each(|entry| writer.push(out, entry));
            writer.finish(out);
        });
        self.take_replies(at);
    }

    /// Records for `uid`, or for another partition: mostly small, now and then as much as a block takes.
    fn some_values(&mut self, uid: u64) -> (u64, Values) {
        let uid = if self.dice.chance(70) { uid } else { self.uids[self.dice.below(self.uids.len() as u64) as usize] };
        let largest = if self.dice.chance(10) { 7000 } else { 900 };
        let values = (0..1 + self.dice.below(if largest > 900 { 1 } else { 4 })).map(|_| {
            self.next_value += 1;
            let mut value = self.next_value.to_le_bytes().to_vec();
            value.resize(8 + self.dice.below(largest) as usize, self.next_value as u8);
            value
        });
        (uid, values.collect())
    }

    /// Everything that the leader of a partition serves: value by offset.
    pub(super) fn read(&mut self, at: usize, uid: u64) -> BTreeMap<u64, Vec<u8>> {
        let (mut found, mut offset) = (BTreeMap::new(), 0);
        loop {
            self.nodes[at].replies.clear();
            let asked = self.request(at, Kind::Fetch, &[], |out| {
                let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 1, 0, 1 << 20);
                writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes: 1 << 20 });
                writer.finish(out);
            });
            let mut reply = None;
            for _ in 0..10_000 {
                self.turn(at);
                let is_it = |bytes: &Vec<u8>| matches!(frame::peek(bytes, &frame::Limits::PROTOCOL), Ok(Need::Whole(f, _)) if f.header.correlation == asked);
                reply = self.nodes[at].replies.drain(..).find(is_it);
                if reply.is_some() {
                    break;
                }
                if !self.nodes[at].disk.under_way.is_empty() {
                    let (token, outcome) = self.nodes[at].disk.complete(0);
                    self.tell(at, Event::Done { token, outcome });
                }
                (self.now.mono_us, self.now.utc_us) = (self.now.mono_us + 100, self.now.utc_us + 100);
                self.tell(at, Event::Deadline);
            }
            let blocked = self.nodes[at].blocked.iter().map(|(conn, bytes)| (*conn, bytes.len())).collect::<Vec<_>>();
            let under_way = self.nodes[at].disk.under_way.len();
            let bytes = reply.unwrap_or_else(|| {
                panic!("a fetch of {uid} at {offset} is not answered; blocked {blocked:?}, {under_way} on the disk\n{}", self.describe())
            });
            let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
            assert_eq!(frame.header.flags & frame::FLAG_ERROR, 0, "{:?}", ErrorBody::decode(frame.meta));
            let reply = FetchReply::decode(frame.meta).unwrap();
            let (entry, bytes) = reply.parts(frame.payload).unwrap().next().unwrap();
            assert!(entry.error.is_ok(), "{entry:?}");
            found.extend(records_of(bytes));
            if entry.next_offset >= entry.committed_end {
                return found;
            }
            offset = entry.next_offset;
        }
    }

    /// What is acknowledged is there, once, and without a hole before it; and every replica that is told of a batch as committed has the same one.
    pub(super) fn check(&mut self) -> BTreeMap<u64, BTreeMap<u64, Vec<u8>>> {
        let mut all = BTreeMap::new();
        for uid in self.uids.clone() {
            let shard = self.nodes[0].shard.as_ref().expect("healed");
            let slot = shard.partitions.slot(PartitionUid(uid));
            let slot = slot.unwrap_or_else(|| panic!("partition {uid} is not known on node 1: {}", self.describe()));
            let group = shard.partitions.get(slot).expect("known").group;
            let at = self.leader_of(group);
            let found = self.read(at, uid);
            for ((_, offset), value) in self.acked.range((uid, 0)..=(uid, u64::MAX)) {
                let number = |value: &Vec<u8>| u64::from_le_bytes(value[..8].try_into().expect("long enough"));
                let (is, was) = (found.get(offset).map(number), number(value));
                assert!(
                    is == Some(was),
                    "acknowledged offset {offset} of {uid} on node {}: {was} was, {is:?} is; {} there\n{}",
                    at + 1,
                    found.len(),
                    self.describe()
                );
            }
            let values: BTreeSet<_> = found.values().collect();
            assert_eq!(values.len(), found.len(), "a record is there once");
            assert!(found.keys().copied().eq(0..found.len() as u64), "offsets of {uid} have no hole");
            all.insert(uid, found);
        }
        self.check_replicas();
        all
    }

    /// Each group and partition of each node, for messages.
    pub(super) fn describe(&self) -> String {
        self.shards().map(|(_, shard)| shard.in_words()).collect()
    }

    /// What is committed is the same on all nodes, and was so all the time.
    pub(super) fn check_replicas(&mut self) {
        let shards = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.shard.as_ref()?)));
        let found = shards.map(|(at, shard)| self.ledger.look((at, 0), shard, &|_, _| None)).find(Result::is_err);
        assert!(found.is_none(), "{found:?}\n{}", self.describe());
    }
}

/// Its entries leave when it is closed, and a majority may have them before this disk has.
#[test]
fn with_other_nodes_a_small_block_does_not_wait_for_the_write_under_way() {
    let mut cluster = Cluster::new(1);
    cluster.create_topic();
    cluster.happen_until("rest", Cluster::is_quiet);
    let uid = cluster.uids[0];
    let at = cluster.who_leads(uid).expect("somebody leads at rest");
    let closed = |cluster: &Cluster| cluster.nodes[at].shard.as_ref().map(|shard| shard.log.stats().blocks_closed);
    let before = closed(&cluster).expect("it runs");
    for number in 1..3 {
        let bytes = batch(&[b"small".to_vec()], cluster.now.utc_us);
        cluster.request(at, Kind::Produce, &bytes, |out| {
            let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: bytes.len() as u32 });
            writer.finish(out);
        });
        cluster.turn(at);
        assert_eq!(closed(&cluster), Some(before + number), "no write has ended");
    }
}
