//! The producer's core as its connections see it (`core::links`).

use super::{ProducerCore, Source};
use crate::core::cluster::{ClusterView, Owner};
use crate::core::links::Lanes;
use crate::core::wish::MetadataWish;
use crate::core::{Conn, Now};
use crate::error::Error;
use crate::link::HelloInfo;
use crate::types::Metadata;
use std::sync::Arc;

impl Lanes for ProducerCore {
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
    fn is_given_up(&self, lane: usize) -> bool {
        self.lanes[lane].is_useless()
    }
    fn wants_connection(&self, lane: usize, now: Now) -> bool {
        ProducerCore::wants_connection(self, lane, now)
    }
    fn on_connecting(&mut self, lane: usize) {
        self.lanes[lane].connecting = true;
    }
    fn on_connected(&mut self, lane: usize, address: &str, hello: &HelloInfo, now: Now) {
        ProducerCore::on_connected(self, lane, address, hello.frame_bytes_max, hello.keepalive_ms, now);
    }
    fn on_lost(&mut self, lane: usize, error: Error, now: Now) {
        ProducerCore::on_lost(self, lane, error, now);
    }
    fn topic_names(&self) -> Vec<String> {
        self.topics.iter().filter(|topic| !topic.gone).map(|topic| topic.name.clone()).collect()
    }
    fn learn(&mut self, metadata: &Metadata, now: Now) {
        ProducerCore::learn(self, metadata, now);
    }
    fn metadata_failed(&mut self, error: Error, now: Now) {
        self.trouble = Some((Source::Metadata, Arc::new(error)));
        self.wish.on_failed(now);
    }
}
