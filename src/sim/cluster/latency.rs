//! The latency of an acknowledgement with constant delays, against the formula of docs/REPLICATION.md, 11: to the microsecond.
//!
//! One client, one request at a time, at each level, to the leader of a group that all nodes have a replica of; what the reply tells has to be the highest level
//! that the formula has reached by then. Then one follower's disk is made 100 times slower, and the
//! formula must hold for the new numbers: so three replicas show no change unless that one was the second fastest.
//!
//! Invariants: the same seed is the same run; nothing else is going on while a request is under way.
//!
//! Not here: what a level means (docs/REPLICATION.md, 5.2).

use super::ClusterRun;
use crate::mutants::Mutants;
use crate::sim::link::{Answer, Link};
use crate::sim::node::ShardAt;
use crate::sim::params::Ruler;
use crate::sim::world::Seen;
use crate::sim::{Check, Dice, Params, Profile, UTC_START_US, replicas};
use std::fmt;
use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceReply, ProduceRequestWriter};
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

/// Requests of each level in each phase.
const REQUESTS: u64 = 24;
/// Requests under way at once, where the excess is told and not compared.
const MANY: usize = 16;
/// Longer than a preferred leader waits before it takes its group back.
const SETTLE_US: u64 = 8_000_000;
const SLOWER: u64 = 100;
/// Those that are answered, weakest first.
const LEVELS: [Level; 4] = [Level::Leader, Level::LeaderDurable, Level::Replicated, Level::Durable];

/// What one seed measured.
pub struct Latency {
    nodes: usize,
    ruler: Ruler,
    leader: usize,
    slowed: usize,
    /// Of each level, and of `durable` with the slow follower.
    times_us: [u64; LEVELS.len()],
    slow_us: u64,
    /// With many requests under way: the largest excess over the formula.
    excess_us: u64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: Vec<String> = std::iter::zip(LEVELS, self.times_us).map(|(level, us)| format!("{level} {us}")).collect();
        let round_trips: Vec<u64> =
            (0..self.nodes).filter(|node| *node != self.leader).map(|node| round_trip_us(&self.ruler, self.leader, node)).collect();
        write!(
            f,
            "{} nodes, node {} leads: client {} us, writes {:?}, round trips {round_trips:?}: {}, with node {} {SLOWER} times slower {}; \
             {MANY} under way: up to {} more",
            self.nodes,
            self.leader + 1,
            2 * self.ruler.client_way_us,
            self.ruler.disk_us,
            times.join(", "),
            self.slowed + 1,
            self.slow_us,
            self.excess_us
        )
    }
}

fn round_trip_us(ruler: &Ruler, leader: usize, node: usize) -> u64 {
    ruler.way_us[leader][node] + ruler.way_us[node][leader]
}

/// What an acknowledgement takes.
fn formula_us(ruler: &Ruler, leader: usize, level: Level) -> u64 {
    let nodes = ruler.disk_us.len();
    // The leader and so many others have done it.
    let majority_us = |leader_us: u64, follower_us: &dyn Fn(usize) -> u64| {
        let mut times: Vec<u64> = (0..nodes).map(|node| if node == leader { leader_us } else { follower_us(node) }).collect();
        times.sort_unstable();
        times[nodes / 2]
    };
    let way_us = |node: usize| round_trip_us(ruler, leader, node);
    let own_us = ruler.disk_us[leader];
    let durable_us = majority_us(own_us, &|node| way_us(node) + ruler.disk_us[node]);
    let replica_us = match level {
        Level::None | Level::Leader => 0,
        // What is committed has every level: where the leader's disk is slow, others have made it durable before.
        Level::LeaderDurable => own_us.min(durable_us),
        Level::Replicated => majority_us(0, &way_us),
        Level::Durable => durable_us,
    };
    2 * ruler.client_way_us + replica_us
}

fn draw(seed: u64, nodes: usize) -> Params {
    let mut dice = Dice::stream(seed, "ruler");
    let disk_us = (0..nodes).map(|_| dice.within(50..5000)).collect();
    let mut way_us = vec![vec![0; nodes]; nodes];
    for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        way_us[from][to] = dice.within(10..1000);
    }
    let ruler = Ruler { disk_us, way_us, client_way_us: dice.within(5..500) };
    Params {
        nodes,
        shards: 1,
        writes_in_flight: 4,
        crash_every_us: 0,
        cut_every_us: 0,
        short_write_in: 0,
        slow_every_us: 0,
        pause_every_us: 0,
        link_cut_every_us: 0,
        blackout_every_us: 0,
        flip_in: 0,
        strike_percent: 0,
        drift_ppm: 0,
        clock_jumps: false,
        ruler: Some(ruler),
        ..Params::draw(seed, Profile::Cluster)
    }
}

/// Measures a seed with so many nodes. An answer that took another time than the formula says is an error.
pub fn measure(seed: u64, nodes: usize) -> Result<Latency, String> {
    let params = draw(seed, nodes);
    let mut bench = Bench {
        dice: Dice::stream(seed, "requests"),
        run: ClusterRun::new(seed, params, Mutants::default(), false),
        link: Link::default(),
        conn: None,
        leader: ShardAt { node: 0, shard: 0 },
        uid: 0,
    };
    bench.run.form()?;
    bench.run.world.quiet = true;
    bench.begin()?;
    let ruler = bench.ruler().clone();
    let times_us = bench.compare_all()?;
    let excess_us = bench.excess()?;
    let followers: Vec<usize> = (0..nodes).filter(|node| *node != bench.leader.node).collect();
    let slowed = followers[bench.dice.below(followers.len() as u64) as usize];
    bench.run.world.params.ruler.as_mut().expect("drawn").disk_us[slowed] *= SLOWER;
    let [.., slow_us] = bench.compare_all()?;
    Ok(Latency { nodes, ruler, leader: bench.leader.node, slowed, times_us, slow_us, excess_us })
}

/// A request: when it was sent.
#[derive(Debug)]
struct Sent(u64);

struct Bench {
    run: ClusterRun,
    dice: Dice,
    link: Link<Sent>,
    conn: Option<u64>,
    leader: ShardAt,
    uid: u64,
}

impl Bench {
    fn ruler(&self) -> &Ruler {
        self.run.world.params.ruler.as_ref().expect("drawn")
    }

    /// A topic with a replica on each node, and a connection to the leader of its partition.
    fn begin(&mut self) -> Check {
        self.wait(SETTLE_US)?;
        let leaders = replicas::leaders(self.run.world.shards().map(|(at, shard)| (at.node, shard)));
        self.connect(ShardAt { node: leaders[&crate::ids::GroupId(0)][0], shard: 0 })?;
        let (replication, flags) = (self.run.world.nodes.len() as u16, CreateFlags::IF_NOT_EXISTS);
        let request = CreateTopicRequest { name: "t", partitions: 1, replication, flags, settings: List::of(&[]) };
        self.ask(Kind::CreateTopic, &[], |out| request.encode(out), |_| Ok(()))?;
        // Groups of this factor are made now, and go to their preferred leaders.
        self.wait(SETTLE_US)?;
        let meta = |out: &mut Vec<u8>| MetadataRequest { topics: List::of(&["t"]) }.encode(out);
        let (uid, node, shard) = self.ask(Kind::Metadata, &[], meta, |meta| {
            let reply = MetadataReply::decode(meta).map_err(|e| e.to_string())?;
            let topic = reply.topics.iter().next().ok_or("no topic")?;
            let place = topic.partitions.iter().next().ok_or("no partition")?;
            Ok((place.uid, place.leader_node as usize - 1, usize::from(place.leader_shard)))
        })?;
        (self.uid, self.leader) = (uid, ShardAt { node, shard });
        self.connect(self.leader)?;
        // The first record makes what is made once.
        self.produce(Level::Durable)?;
        self.wait(SETTLE_US)
    }

    fn connect(&mut self, at: ShardAt) -> Check {
        self.link = Link::default();
        self.conn = self.link.connect_to(&mut self.run.world, at);
        let limit = self.run.world.now_us + SETTLE_US;
        while !self.link.is_open() {
            self.next(limit, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Nothing is asked for a while.
    fn wait(&mut self, us: u64) -> Check {
        let until = self.run.world.now_us + us;
        while self.run.advance(until)? {}
        self.run.world.now_us = until;
        Ok(())
    }

    /// One event. What is answered to a request goes to `take`, with the time at which that was sent.
    fn next<T>(&mut self, limit: u64, mut take: impl FnMut(&[u8]) -> Result<T, String>) -> Result<Option<(u64, T)>, String> {
        match self.run.world.next(limit) {
            None => Err("a request is not answered".to_owned()),
            Some(Some(Seen::Frame { conn, frame })) if self.conn == Some(conn) => match self.link.take(&frame)? {
                Answer::Nothing => Ok(None),
                Answer::Good(Sent(at_us), meta, _) => Ok(Some((at_us, take(meta)?))),
                Answer::Refused(_, code, text) => Err(format!("{code:?} {text}")),
            },
            Some(_) => Ok(None),
        }
    }

    fn ask<T>(
        &mut self,
        kind: Kind,
        payload: &[u8],
        meta: impl FnOnce(&mut Vec<u8>),
        mut take: impl FnMut(&[u8]) -> Result<T, String>,
    ) -> Result<T, String> {
        let now_us = self.run.world.now_us;
        self.link.send_with(&mut self.run.world, kind, Sent(now_us), payload, meta);
        loop {
            if let Some((_, answer)) = self.next(now_us + SETTLE_US, &mut take)? {
                return Ok(answer);
            }
        }
    }

    fn send(&mut self, level: Level) {
        let (now_us, uid) = (self.run.world.now_us, self.uid);
        let mut builder = BatchBuilder::new(Limits::default());
        let value = vec![7; self.dice.within(10..2000) as usize];
        let record = NewRecord { value: Some(&value), timestamp_us: UTC_START_US + now_us as i64, ..NewRecord::default() };
        builder.push(&record).expect("a small record");
        let mut batch = Vec::new();
        builder.finish_plain(&mut batch, ProducerMark::default());
        self.link.send_with(&mut self.run.world, Kind::Produce, Sent(now_us), &batch, |out| {
            let mut writer = ProduceRequestWriter::begin(out, level, 0);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
            writer.finish(out);
        });
    }

    /// What the next answer took, and the level that it tells.
    fn answered(&mut self) -> Result<(u64, Level), String> {
        let limit = self.run.world.now_us + SETTLE_US;
        loop {
            let result = |meta: &[u8]| {
                let reply = ProduceReply::decode(meta).map_err(|e| e.to_string())?;
                let result = reply.results.iter().next().ok_or("no result")?;
                if result.error.is_ok() { Ok(reply.level_reached) } else { Err(format!("{:?}", result.error)) }
            };
            if let Some((at_us, level)) = self.next(limit, result)? {
                return Ok((self.run.world.now_us - at_us, level));
            }
        }
    }

    fn produce(&mut self, level: Level) -> Result<(u64, Level), String> {
        self.send(level);
        self.answered()
    }

    /// At each level.
    fn compare_all(&mut self) -> Result<[u64; LEVELS.len()], String> {
        let mut times_us = [0; LEVELS.len()];
        for (level, us) in std::iter::zip(LEVELS, &mut times_us) {
            *us = self.compare(level)?;
        }
        Ok(times_us)
    }

    /// Requests one after the other; each takes what the formula says, and is told what holds by then.
    fn compare(&mut self, level: Level) -> Result<u64, String> {
        let wanted_us = formula_us(self.ruler(), self.leader.node, level);
        let rest_us = 2 * self.ruler().disk_us.iter().max().expect("a node") + 4000;
        for number in 0..REQUESTS {
            // At any phase of ticks and beats.
            let gap_us = rest_us + self.dice.below(120_000);
            self.wait(gap_us)?;
            let (took_us, told) = self.produce(level)?;
            let ruler = self.ruler();
            // Two that are reached in the same microsecond may come one after the other.
            let holds = |is_there: &dyn Fn(u64) -> bool| {
                LEVELS
                    .into_iter()
                    .rfind(|other| *other == level || is_there(formula_us(ruler, self.leader.node, *other)))
                    .expect("it has come")
            };
            let (least, most) = (holds(&|us| us < took_us), holds(&|us| us <= took_us));
            if took_us != wanted_us || told < least || told > most {
                return Err(format!(
                    "request {number} at {level:?}: {took_us} us and {told:?}, and the formula says {wanted_us} and {most:?}; {ruler:?}, node {} leads",
                    self.leader.node + 1
                ));
            }
        }
        Ok(wanted_us)
    }

    /// Many requests under way at once.
    fn excess(&mut self) -> Result<u64, String> {
        let wanted_us = formula_us(self.ruler(), self.leader.node, Level::Durable);
        let mut excess_us = 0;
        (0..MANY).for_each(|_| self.send(Level::Durable));
        for _ in 0..REQUESTS * MANY as u64 {
            let (took_us, _) = self.answered()?;
            if took_us < wanted_us {
                return Err(format!("{MANY} under way: {took_us} us, and the formula says {wanted_us} for one"));
            }
            excess_us = (took_us - wanted_us).max(excess_us);
            self.send(Level::Durable);
        }
        for _ in 0..MANY {
            self.answered()?;
        }
        Ok(excess_us)
    }
}
