//! The core as its connections see it (`core::links`), and who owns what.

use std::sync::Arc;

use tramline_wire::error::ErrorCode;

use super::{Lane, Part, QueueCore};
use crate::core::cluster::{ClusterView, Leadership, Learned, Owner};
use crate::core::consumer::check_owners;
use crate::core::links::Lanes;
use crate::core::wish::MetadataWish;
use crate::core::{Alive, Conn, Now};
use crate::error::Error;
use crate::link::HelloInfo;
use crate::types::{Metadata, TopicMetadata};

/// A connection's first receive buffer: a few small replies; it grows with what comes.
const RECV_BYTES_FIRST: usize = 64 * 1024;

/// A topic that got more partitions is noticed within so long: they belong to the queue as well.
const METADATA_AGE_US: u64 = 30_000_000;

impl QueueCore {
    /// Takes over a newer view: partitions may have a new owner, be new, or be gone with their topic.
    pub(super) fn learn_view(&mut self, metadata: &Metadata, now: Now) {
        self.wish.on_learned(Some(now.mono_us.saturating_add(METADATA_AGE_US)));
        if let Err(error) = check_owners(metadata) {
            self.errors.push_back(error);
            return;
        }
        match self.cluster.learn_at(metadata, now) {
            Learned::Older => return self.learn_leaders(metadata),
            Learned::Newer => {}
            Learned::Lower | Learned::OtherCluster => self.parts.iter_mut().for_each(|part| part.leader = Leadership::default()),
        }
        self.lanes.iter_mut().for_each(|lane| lane.names_few = false);
        let Some(topic) = metadata.topic(&self.queue.topic) else { return };
        if topic.error == ErrorCode::UnknownTopic || topic.error.is_ok() && topic.uid != self.queue.topic_uid {
            self.queue_gone(ErrorCode::QueueDeleted);
        } else if topic.error.is_ok() {
            self.learn_parts(topic);
        }
        self.refuse_strangers();
    }

    /// An older view: what it says of leaders counts where its term is higher.
    fn learn_leaders(&mut self, metadata: &Metadata) {
        for found in metadata.topic(&self.queue.topic).iter().flat_map(|topic| &topic.partitions) {
            if let Some(&id) = self.by_uid.get(&found.uid)
                && self.parts[id].leader.believes(found.term, true)
            {
                self.parts[id].leader.learn(found.term);
                self.move_to_owner(id, Owner::from(found));
            }
        }
    }

    fn move_to_owner(&mut self, id: usize, owner: Owner) {
        let lane = self.lane_of(owner);
        let before = std::mem::replace(&mut self.parts[id].lane, lane);
        if before != lane {
            self.lanes[before].parts -= 1;
            self.lanes[lane].parts += 1;
            self.parts[id].not_before_us = 0; // its new owner did not refuse it
        }
    }

    /// A refusal of a request whose first partition this is names another leader, which is that partition's: it is asked at once. For others
    /// metadata are asked for.
    pub(super) fn follow(&mut self, id: usize, lane: usize, error: &Error) {
        let named = error.next_address().and_then(|next| self.cluster.owner_at(next));
        let (Some(owner), at) = (named, self.lanes[lane].owner) else { return };
        let part = &mut self.parts[id];
        if part.lane == lane && part.leader.follow(at, owner) {
            self.move_to_owner(id, owner);
        }
    }

    fn learn_parts(&mut self, topic: &TopicMetadata) {
        for found in &topic.partitions {
            match self.by_uid.get(&found.uid) {
                Some(&id) => {
                    if self.parts[id].leader.believes(found.term, false) {
                        self.parts[id].leader.learn(found.term);
                        self.move_to_owner(id, Owner::from(found));
                    }
                }
                None => {
                    let lane = self.lane_of(Owner::from(found));
                    let leader = Leadership::told(found.term);
                    let backoff = self.backoff();
                    self.by_uid.insert(found.uid, self.parts.len());
                    let (index, uid) = (found.index, found.uid);
                    let refusal = ErrorCode::Ok;
                    self.parts.push(Part {
                        index,
                        uid,
                        leader,
                        lane,
                        not_before_us: 0,
                        backoff,
                        failing_since_us: None,
                        refusal,
                        asked: 0,
                    });
                    self.lanes[lane].parts += 1;
                }
            }
        }
    }

    fn lane_of(&mut self, owner: Owner) -> usize {
        if let Some(lane) = self.lanes.iter().position(|lane| lane.owner == owner) {
            return lane;
        }
        let lane = Lane {
            owner,
            parts: 0,
            address: String::new(),
            conn: Conn::new(RECV_BYTES_FIRST, self.frame_bytes_max),
            open: false,
            connecting: false,
            connect_at_us: 0,
            backoff: self.backoff(),
            alive: Alive::default(),
            failing_since_us: None,
            not_before_us: 0,
            ask_after_us: 0,
            asked: None,
            settling: None,
            said: false,
            named: 0,
            next_part: 0,
            names_few: false,
        };
        let is_free = |lane: &Lane| lane.is_idle() && !lane.open && !lane.connecting;
        match self.lanes.iter().position(is_free) {
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

    /// A lane has no connection any more.
    fn forget_conn(&mut self, lane: usize, error: Error) {
        let state = &mut self.lanes[lane];
        (state.open, state.connecting) = (false, false);
        state.conn.reset();
        // What it leased, if it did, comes back when the leases are over.
        state.asked = None;
        self.settle_again(lane, &Arc::new(error), true);
    }
}

impl Lane {
    /// Whether nothing is owned by it any more, and no answer is due.
    fn is_idle(&self) -> bool {
        self.parts == 0 && self.asked.is_none() && self.settling.is_none()
    }
}

impl Lanes for QueueCore {
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
        vec![self.queue.topic.clone()]
    }
    fn wants_connection(&self, lane: usize, now: Now) -> bool {
        let lane = &self.lanes[lane];
        !lane.open && !lane.connecting && lane.parts > 0 && lane.connect_at_us <= now.mono_us
    }
    fn is_unused(&self, lane: usize) -> bool {
        self.lanes[lane].is_idle()
    }
    fn on_unused(&mut self, lane: usize) {
        self.forget_conn(lane, Error::config("the owner has no partition of the queue any more"));
    }
    fn on_connecting(&mut self, lane: usize) {
        self.lanes[lane].connecting = true;
    }
    fn on_connected(&mut self, lane: usize, address: &str, hello: &HelloInfo, now: Now) {
        let lane = &mut self.lanes[lane];
        (lane.open, lane.connecting) = (true, false);
        lane.address = address.to_string();
        lane.alive = Alive::opened(hello.keepalive_ms, now);
        self.metrics.connections_opened += 1;
    }
    fn on_lost(&mut self, lane: usize, error: Error, now: Now) {
        self.metrics.connections_lost += 1;
        let state = &mut self.lanes[lane];
        // One that worked may have been closed by the broker while nobody looked: it is opened again before the call goes without it.
        state.said |= state.failing_since_us.is_some();
        state.connect_at_us = now.mono_us.saturating_add(state.backoff.next_us());
        self.forget_conn(lane, error.clone());
        self.lane_failing(lane, error, now);
        for part in self.parts.iter_mut().filter(|part| part.lane == lane) {
            part.leader.failed();
        }
        self.wish.want(now);
    }
    fn learn(&mut self, metadata: &Metadata, now: Now) {
        self.metrics.metadata_refreshes += 1;
        self.learn_view(metadata, now);
    }
    fn metadata_failed(&mut self, _: Error, now: Now) {
        // What it is needed for is told if it lasts.
        self.wish.on_failed(now);
    }
}
