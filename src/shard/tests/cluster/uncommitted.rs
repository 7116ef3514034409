//! What a leader may have appended and not committed, where followers hear it and their disks stand still.

use super::super::world::batch;
use super::{Cluster, NODES, Shape};
use crate::effects::Event;
use crate::ids::{GroupId, PartitionUid, ShardId};
use crate::shard::Shard;
use crate::shard::mesh::Message;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};

impl Cluster {
    /// A node, and two partitions of different groups that it leads.
    fn two_led(&self) -> (usize, [(u64, GroupId); 2]) {
        let leaders = self.leaders();
        for at in 0..NODES {
            let shard = self.nodes[at].shard.as_ref().expect("all run");
            let group = |uid: &u64| shard.group_of_partition(*uid).expect("the topic is known");
            let mut led: Vec<_> = self.uids.iter().map(|uid| (*uid, group(uid))).filter(|(_, group)| leaders[group] == [at]).collect();
            led.dedup_by_key(|(_, group)| *group);
            if let [first, second, ..] = led[..] {
                return (at, [first, second]);
            }
        }
        panic!("four partitions in groups of three nodes: {leaders:?}")
    }

    fn send_to(&mut self, at: usize, uid: u64) {
        self.next_value += 1;
        let mut value = self.next_value.to_le_bytes().to_vec();
        value.resize(7000, 7);
        let values = vec![value];
        let bytes = batch(&values, self.now.utc_us);
        self.sent.insert((at, self.next_correlation), vec![(uid, values)]);
        self.request(at, Kind::Produce, &bytes, |out| {
            let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: bytes.len() as u32 });
            writer.finish(out);
        });
    }

    fn uncommitted(&self, at: usize, group: GroupId) -> u64 {
        self.nodes[at].shard.as_ref().expect("it runs").groups.uncommitted_of(group)
    }

    fn overloaded(&self) -> usize {
        self.refused.get(&ErrorCode::Overloaded).copied().unwrap_or(0)
    }
}

#[test]
fn what_is_not_committed_is_bounded_and_other_groups_go_on() {
    // A follower has room for more than its leader may have uncommitted, and goes on to hear it.
    let shape = Shape { segment_bytes: 16 << 20, block_bytes_max: 3 << 20, memory_bytes: 16 << 20 };
    let mut cluster = Cluster::of_shape(11, shape);
    cluster.create_topic();
    let (at, [(uid, group), (other_uid, other_group)]) = cluster.two_led();
    let max = shape.memory_bytes as u64 / 8;
    (0..NODES).filter(|node| *node != at).for_each(|node| cluster.nodes[node].is_disk_stuck = true);
    let before_us = cluster.now.mono_us;
    // What waits for the log's own writes goes on soon.
    let (mut waits, mut sent) = (0, 0);
    while waits < 100 {
        assert!(sent < 20_000, "nothing waits: {}", cluster.describe());
        waits = if cluster.nodes[at].blocked.is_empty() { 0 } else { waits + 1 };
        if waits == 0 {
            cluster.send_to(at, uid);
            sent += 1;
        }
        (0..4).for_each(|_| cluster.happen());
    }
    // A block's worth is not counted before it closes.
    let (uncommitted, took_us) = (cluster.uncommitted(at, group), cluster.now.mono_us - before_us);
    assert!((max..max + (64 << 10)).contains(&uncommitted), "it waits at {uncommitted} bytes of {max}, after {took_us} us");
    assert_eq!(cluster.overloaded(), 0, "a burst is taken in a little later");
    cluster.happen_until("a refusal", |cluster| cluster.overloaded() > 0);
    cluster.happen_until("no more that waits", |cluster| cluster.nodes[at].blocked.is_empty());
    let refused = cluster.overloaded();
    let (before, next) = (cluster.acked.len(), cluster.uncommitted(at, other_group));
    cluster.send_to(at, uid);
    cluster.send_to(at, other_uid);
    assert!(cluster.nodes[at].blocked.is_empty(), "the next one is refused at once, and holds nobody up");
    cluster.take_replies(at);
    assert_eq!(cluster.overloaded(), refused + 1);
    cluster.happen_until("the other group's batch in its log", |cluster| cluster.uncommitted(at, other_group) > next);
    assert_eq!(cluster.leaders()[&group], [at], "the leader was heard all the time");
    cluster.nodes.iter_mut().for_each(|node| node.is_disk_stuck = false);
    cluster.happen_until("all to be committed", |cluster| cluster.uncommitted(at, group) + cluster.uncommitted(at, other_group) == 0);
    cluster.happen_until("all answers", |cluster| cluster.sent.is_empty());
    assert!(cluster.acked.len() as u64 - before as u64 > max / 8000, "{} of {before} acknowledged", cluster.acked.len());
    let acked = cluster.acked.len();
    cluster.send_to(at, uid);
    cluster.happen_until("an ack", |cluster| cluster.acked.len() > acked);
    assert_eq!(cluster.overloaded(), refused + 1, "there is room again");
    let shard = cluster.nodes[at].shard.as_ref().expect("it runs");
    assert!(shard.partitions.slot(PartitionUid(uid)).is_some() && shard.uncommitted.held_us() > 1_000_000);
}

/// Whoever waits without a limit of time would be waited for until the process is ended.
#[test]
fn a_node_that_stops_without_a_majority_answers_and_ends() {
    let mut cluster = Cluster::new(3);
    cluster.create_topic();
    let (at, [(uid, group), _]) = cluster.two_led();
    (0..NODES).filter(|node| *node != at).for_each(|node| cluster.nodes[node].is_disk_stuck = true);
    cluster.send_to(at, uid);
    cluster.happen_until("something is not committed", |cluster| cluster.uncommitted(at, group) > 0);
    cluster.tell(at, Event::Mesh { from: ShardId(0), message: Message::Stop });
    let before_us = cluster.now.mono_us;
    cluster.happen_until("it has stopped", |cluster| cluster.nodes[at].shard.as_ref().is_some_and(Shard::has_stopped));
    let took_us = cluster.now.mono_us - before_us;
    assert!(took_us < 8_000_000, "{took_us} us");
    cluster.pass(10_000);
    assert!(cluster.sent.is_empty() && cluster.acked.is_empty(), "it has an answer, and is not acknowledged");
}
