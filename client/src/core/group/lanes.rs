//! Connections of a member, and the member as its connections see it (`core::links`).

use std::collections::HashMap;
use std::time::Duration;

use super::GroupCore;
use super::requests::Pending;
use crate::core::cluster::{ClusterView, Learned, Owner};
use crate::core::links::Lanes;
use crate::core::wish::MetadataWish;
use crate::core::{Alive, Backoff, Conn, Now};
use crate::error::Error;
use crate::link::HelloInfo;
use crate::types::{Metadata, PartitionMetadata};

/// First size of a receive buffer: lists of a thousand partitions.
const RECV_BYTES_FIRST: usize = 16 * 1024;

/// A connection to the home, to owners of partitions, or both. Times are monotonic microseconds.
#[derive(Debug)]
pub(super) struct Lane {
    pub owner: Owner,
    pub address: String,
    pub conn: Conn,
    pub open: bool,
    pub connecting: bool,
    pub connect_at_us: u64,
    pub backoff: Backoff,
    pub alive: Alive,
    /// Requests that are not answered.
    pub pending: Vec<Pending>,
    /// Partitions of this owner that the member has or commits.
    pub uses: usize,
    /// Since when it could not be used; told as an error when it lasts.
    pub failing_since_us: Option<u64>,
}

impl Lane {
    /// When the first unanswered request is overdue.
    fn overdue_us(&self) -> u64 {
        self.pending.iter().map(|pending| pending.until_us).min().unwrap_or(u64::MAX)
    }
}

impl GroupCore {
    /// The lane to an owner; a new one if need be, or one that nobody uses any more.
    pub(super) fn lane_of(&mut self, owner: Owner) -> usize {
        if let Some(lane) = self.lanes.iter().position(|lane| lane.owner == owner) {
            return lane;
        }
        let lane = Lane {
            owner,
            address: String::new(),
            conn: Conn::new(RECV_BYTES_FIRST, self.frame_bytes_max),
            open: false,
            connecting: false,
            connect_at_us: 0,
            backoff: self.backoff(),
            alive: Alive::default(),
            pending: Vec::new(),
            uses: 0,
            failing_since_us: None,
        };
        let free = (0..self.lanes.len()).find(|lane| !self.is_wanted(*lane) && !self.lanes[*lane].open && !self.lanes[*lane].connecting);
        match free {
            Some(free) => {
                self.lanes[free] = lane;
                free
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        }
    }

    /// Whether anything is, or will be, asked over a lane.
    fn is_wanted(&self, lane: usize) -> bool {
        let Lane { owner, pending, uses, .. } = &self.lanes[lane];
        let of_home = self.home == Some(*owner) && !self.member.is_over();
        of_home || *uses > 0 || !pending.is_empty() || self.home_ask.as_ref().is_some_and(|ask| ask.target == Some(*owner))
    }

    /// Whether an answer is overdue: the caller gives the connection up when a read brought nothing either.
    pub(crate) fn is_silent(&self, lane: usize, now: Now) -> bool {
        let lane = &self.lanes[lane];
        lane.open && lane.overdue_us().min(lane.alive.dead_at_us(self.request_timeout_us)) <= now.mono_us
    }

    pub(super) fn ping(&mut self, now: Now) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.open && lane.alive.ping_at_us() <= now.mono_us) {
            // A ping without fields cannot be above a limit. Its answer is known by having no request.
            let _ = lane.conn.request(tramline_wire::kind::Kind::Ping, |_| {});
            lane.alive.on_pinged(now);
        }
    }

    pub(super) fn next_of_lanes_us(&self, now: Now) -> u64 {
        let of_lane = |index: usize| {
            let lane = &self.lanes[index];
            if lane.open {
                return lane.alive.ping_at_us().min(lane.alive.dead_at_us(self.request_timeout_us)).min(lane.overdue_us());
            }
            let waits = !lane.connecting && self.is_wanted(index);
            if waits { lane.connect_at_us.max(now.mono_us) } else { u64::MAX }
        };
        (0..self.lanes.len()).map(of_lane).min().unwrap_or(u64::MAX)
    }

    /// An older view: what it says of leaders counts where its term is higher.
    fn learn_leaders(&mut self, metadata: &Metadata) {
        for partition in metadata.topics.iter().flat_map(|topic| &topic.partitions) {
            if let Some((_, place)) = self.places.get_mut(&partition.uid)
                && partition.term > place.term
            {
                (place.leader_node, place.leader_shard, place.term) = (partition.leader_node, partition.leader_shard, partition.term);
                self.work = true;
            }
        }
    }

    fn tell_if_it_lasts(&mut self, lane: usize, error: &Error, now: Now) {
        let lane = &mut self.lanes[lane];
        let since_us = *lane.failing_since_us.get_or_insert(now.mono_us);
        let after_us = now.mono_us.saturating_sub(since_us);
        if after_us >= self.call_timeout_us {
            lane.failing_since_us = Some(now.mono_us);
            let Owner { node, shard } = lane.owner;
            let what = if lane.uses > 0 { "offsets" } else { "members" };
            let doing = format!("asking node {node} shard {shard} about the {what} of group {:?}", self.config.group);
            let last = Some(std::sync::Arc::new(error.clone()));
            self.errors.push_back(Error::Timeout { doing, after: Duration::from_micros(after_us), last });
        }
    }
}

impl Lanes for GroupCore {
    fn lane_count(&self) -> usize {
        self.lanes.len()
    }
    fn conn(&mut self, lane: usize) -> &mut Conn {
        &mut self.lanes[lane].conn
    }
    fn owner(&self, lane: usize) -> Owner {
        self.lanes[lane].owner
    }
    fn cluster(&self) -> &ClusterView {
        &self.cluster
    }
    fn wish(&mut self) -> &mut MetadataWish {
        &mut self.wish
    }
    fn topic_names(&self) -> Vec<String> {
        self.config.topics.clone()
    }
    fn wants_connection(&self, lane: usize, now: Now) -> bool {
        let Lane { open, connecting, connect_at_us, .. } = self.lanes[lane];
        !open && !connecting && connect_at_us <= now.mono_us && self.is_wanted(lane)
    }
    fn is_unused(&self, lane: usize) -> bool {
        !self.is_wanted(lane)
    }
    fn on_unused(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        (lane.open, lane.connecting) = (false, false);
        lane.conn.reset();
    }
    fn on_connecting(&mut self, lane: usize) {
        self.lanes[lane].connecting = true;
    }
    fn on_connected(&mut self, lane: usize, address: &str, hello: &HelloInfo, now: Now) {
        let lane = &mut self.lanes[lane];
        (lane.open, lane.connecting) = (true, false);
        lane.address = address.to_string();
        lane.alive = Alive::opened(hello.keepalive_ms, now);
        lane.failing_since_us = None;
        self.work = true;
        self.send_to_home(now);
        self.send_to_owners(now);
    }
    fn on_lost(&mut self, lane: usize, error: Error, now: Now) {
        let state = &mut self.lanes[lane];
        (state.open, state.connecting) = (false, false);
        state.conn.reset();
        state.connect_at_us = now.mono_us.saturating_add(state.backoff.next_us());
        self.wish.want(now);
        self.tell_if_it_lasts(lane, &error, now);
        self.fail_lane(lane, &error, now);
    }
    fn learn(&mut self, metadata: &Metadata, now: Now) {
        self.wish.on_learned(None);
        if let Err(error) = crate::core::consumer::check_owners(metadata) {
            self.errors.push_back(error);
            return;
        }
        let learned = self.cluster.learn_at(metadata, now);
        if learned == Learned::Older {
            return self.learn_leaders(metadata);
        }
        let is_known = learned == Learned::Newer;
        let known: HashMap<u64, PartitionMetadata> =
            if is_known { self.places.iter().map(|(uid, (_, place))| (*uid, *place)).collect() } else { HashMap::new() };
        let holdings = &self.holdings;
        self.places.retain(|uid, _| holdings.contains_key(uid));
        self.numbers.clear();
        self.numbers.extend(self.places.iter().map(|(uid, (topic, place))| ((*topic, place.index), *uid)));
        for (place, name) in self.config.topics.iter().enumerate() {
            let found = metadata.topic(name).filter(|topic| topic.error.is_ok());
            for partition in found.iter().flat_map(|topic| &topic.partitions) {
                // The highest term is the newest word.
                let newest = known.get(&partition.uid).filter(|known| known.term > partition.term).unwrap_or(partition);
                self.places.insert(partition.uid, (place, PartitionMetadata { index: partition.index, ..*newest }));
                self.numbers.insert((place, partition.index), partition.uid);
            }
        }
        if self.holdings.keys().any(|uid| !self.places.contains_key(uid)) {
            self.wish.want(now);
        }
        self.view = metadata.clone();
        self.work = true;
    }
    fn metadata_failed(&mut self, error: Error, now: Now) {
        self.wish.on_failed(now);
        // Nobody is known who could be asked for the home: that is told when it lasts.
        if self.home_ask.as_ref().is_some_and(|ask| ask.target.is_none()) {
            self.fail_home(error, now);
        }
    }
}
