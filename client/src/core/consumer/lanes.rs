//! The consumer's core as its connections see it (`core::links`).

use super::ConsumerCore;
use crate::core::cluster::{ClusterView, Owner};
use crate::core::links::Lanes;
use crate::core::wish::MetadataWish;
use crate::core::{Conn, Now};
use crate::error::Error;
use crate::link::HelloInfo;
use crate::types::Metadata;

impl Lanes for ConsumerCore {
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
    fn wants_connection(&self, lane: usize, now: Now) -> bool {
        ConsumerCore::wants_connection(self, lane, now)
    }
    fn is_unused(&self, lane: usize) -> bool {
        self.lanes[lane].assigned == 0
    }
    fn on_unused(&mut self, lane: usize) {
        ConsumerCore::on_unused(self, lane);
    }
    fn on_connecting(&mut self, lane: usize) {
        self.lanes[lane].connecting = true;
    }
    fn on_connected(&mut self, lane: usize, address: &str, hello: &HelloInfo, now: Now) {
        ConsumerCore::on_connected(self, lane, address, hello.keepalive_ms, now);
    }
    fn on_lost(&mut self, lane: usize, error: Error, now: Now) {
        ConsumerCore::on_lost(self, lane, error, now);
    }
    fn topic_names(&self) -> Vec<String> {
        self.topics.iter().filter(|topic| topic.assigned > 0).map(|topic| topic.name.clone()).collect()
    }
    fn learn(&mut self, metadata: &Metadata, now: Now) {
        ConsumerCore::learn(self, metadata, now);
    }
    fn metadata_failed(&mut self, _: Error, now: Now) {
        // What it is needed for is told if it lasts.
        self.wish.on_failed(now);
    }
}
