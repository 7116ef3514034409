//! Streams of a node that leads a partition no more, or has no replica of it: they end with a word that says to go elsewhere, and do not stay open without one.
//!
//! Not here: streams on one node (`subscription/`), consumers that follow (client/).

use super::{Cluster, NODES};
use crate::effects::Effect;
use crate::ids::GroupId;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;

impl Cluster {
    /// Opens a stream at the node, from the beginning of a partition on.
    fn open_stream(&mut self, at: usize, uid: u64) -> u64 {
        self.request(at, Kind::Fetch, &[], |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 0, 1, 1 << 20);
            writer.push(out, &FetchEntry { partition_uid: uid, offset: 0, max_bytes: 1 << 16 });
            writer.finish(out);
        })
    }

    /// What the last entry of the stream's replies says, once there is an error; `Ok` for none within the time.
    fn end_of_stream(&mut self, at: usize, stream: u64, us: u64) -> ErrorCode {
        let until_us = self.now.mono_us + us;
        while self.now.mono_us < until_us {
            self.happen_but_replies();
            while let Some(bytes) = self.nodes[at].replies.pop_front() {
                let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
                if frame.header.correlation != stream {
                    continue;
                }
                if frame.header.flags & frame::FLAG_ERROR != 0 {
                    return ErrorBody::decode(frame.meta).expect("an error").code().expect("known");
                }
                let reply = FetchReply::decode(frame.meta).expect("a reply");
                let found = reply.parts(frame.payload).expect("whole batches").map(|(entry, _)| entry.error).find(|error| !error.is_ok());
                if let Some(error) = found {
                    return error;
                }
            }
        }
        ErrorCode::Ok
    }
}

#[test]
fn a_stream_of_a_leader_that_is_cut_off_ends_with_who_leads_no_more() {
    for seed in 0..3 {
        let mut cluster = Cluster::new(seed);
        cluster.create_topic();
        cluster.work(40, 10);
        cluster.happen_until("rest", Cluster::is_quiet);
        let uid = cluster.uids[0];
        let group = cluster.group_known(uid).expect("it is known");
        let at = cluster.leader_of(group);
        let stream = cluster.open_stream(at, uid);
        assert_eq!(cluster.end_of_stream(at, stream, 500_000), ErrorCode::Ok, "seed {seed}: it goes on while the node leads");
        (0..NODES).for_each(|other| (cluster.cut[at][other], cluster.cut[other][at]) = (true, true));
        assert_eq!(cluster.end_of_stream(at, stream, 5_000_000), ErrorCode::NotLeader, "seed {seed}");
    }
}

#[test]
fn a_stream_of_a_replica_that_is_moved_away_does_not_say_that_the_topic_is_deleted() {
    for seed in 0..3 {
        let mut cluster = Cluster::with(seed, 128 << 10);
        cluster.create_topic();
        let group = cluster.create_with(1);
        let (uid, from) = (cluster.uids[0], cluster.leader_of(group));
        let stream = cluster.open_stream(from, uid);
        assert_eq!(cluster.end_of_stream(from, stream, 500_000), ErrorCode::Ok, "seed {seed}");
        let to = (from + 1) % NODES;
        cluster.move_it(group, from, to);
        assert_eq!(cluster.end_of_stream(from, stream, 60_000_000), ErrorCode::NotLeader, "seed {seed}");
    }
}

/// Its log has failed: what it leads by its own knowledge is led by others after a moment.
#[test]
fn a_shard_that_has_failed_is_not_taken_for_the_leader() {
    let mut cluster = Cluster::new(1);
    cluster.create_topic();
    cluster.work(40, 10);
    cluster.happen_until("rest", Cluster::is_quiet);
    let uid = cluster.uids[0];
    let group: GroupId = cluster.group_known(uid).expect("it is known");
    let at = cluster.leader_of(group);
    let stream = cluster.open_stream(at, uid);
    let mut effects = std::mem::take(&mut cluster.nodes[at].effects);
    cluster.nodes[at].shard.as_mut().expect("it runs").fail("a write has failed", &mut effects);
    // The node goes on with its other shards, of which there are none here.
    effects.list.retain(|effect| !matches!(effect, Effect::Fatal { .. }));
    cluster.nodes[at].effects = effects;
    assert_eq!(cluster.end_of_stream(at, stream, 2_000_000), ErrorCode::NotLeader);
    let opened = cluster.open_stream(at, uid);
    let refused = cluster.end_of_stream(at, opened, 2_000_000);
    assert!(matches!(refused, ErrorCode::NotLeader | ErrorCode::NotReady), "{refused:?}");
}
