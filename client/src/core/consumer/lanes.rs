//! The consumer's core as its connections see it (`core::links`).

use super::ConsumerCore;
use crate::core::cluster::Owner;
use crate::core::links::Lanes;
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
    fn addresses(&self, lane: usize) -> Vec<String> {
        self.cluster.addresses(self.lanes[lane].owner)
    }
    fn wants_connection(&self, lane: usize, now: Now) -> bool {
        ConsumerCore::wants_connection(self, lane, now)
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
    fn take_metadata_wish(&mut self, now: Now) -> Option<Vec<String>> {
        if !self.metadata_due(now) {
            return None;
        }
        let names = self.topic_names();
        if names.is_empty() {
            self.metadata_at_us = None;
            return None;
        }
        self.metadata_asked = true;
        Some(names)
    }
    fn take_redirect(&mut self) -> Option<String> {
        self.redirect.take()
    }
    fn node_addresses(&self) -> Vec<String> {
        self.cluster.node_addresses()
    }
    fn learn(&mut self, metadata: &Metadata, now: Now) {
        ConsumerCore::learn(self, metadata, now);
    }
    fn metadata_failed(&mut self, error: Error, now: Now) {
        ConsumerCore::metadata_failed(self, error, now);
    }
}
