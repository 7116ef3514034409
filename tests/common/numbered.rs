//! A producer of numbered records for tests of several nodes, each of which has to be acknowledged, and the check that each of them is there once.
//!
//! Not here: records that may fail (`cluster.rs` keeps its own account), what happens to the nodes meanwhile.

use crate::WAIT;
use std::collections::BTreeSet;
use std::time::Duration;
use tramline_client::{Client, Producer, ProducerConfig, Record, Start};

/// Records to the partitions of a topic in turn.
pub struct Numbered {
    producer: Producer,
    topic: &'static str,
    partitions: u64,
    value_bytes: usize,
    sent: u64,
    delivered: u64,
}

impl Numbered {
    pub fn on(client: &Client, topic: &'static str, partitions: u64, value_bytes: usize) -> Numbered {
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(60), ..ProducerConfig::default() };
        let producer = client.producer(config).expect("a producer");
        Numbered { producer, topic, partitions, value_bytes, sent: 0, delivered: 0 }
    }

    /// Sends as many and waits until all are acknowledged.
    pub fn send(&mut self, count: u64) {
        for _ in 0..count {
            let (value, partition) = (self.value(self.sent), Some((self.sent % self.partitions) as u32));
            let record = Record { topic: self.topic, partition, value: Some(&value), tag: self.sent, ..Record::default() };
            self.producer.send(&record).expect("room");
            self.sent += 1;
            if self.sent.is_multiple_of(64) {
                self.producer.flush(4 * WAIT).expect("all is acknowledged");
            }
        }
        self.producer.flush(4 * WAIT).expect("all is acknowledged");
        self.producer.drain(|delivery| {
            assert!(delivery.error.is_none(), "{:?}", delivery.error);
            self.delivered += 1;
        });
        assert_eq!(self.delivered, self.sent, "each record has one answer");
    }

    /// Each record that was acknowledged is there once, byte for byte.
    pub fn check(&self, client: &Client) {
        let mut consumer = client.consumer(Default::default()).expect("a consumer");
        consumer.assign_all(self.topic, Start::Earliest).expect("the topic");
        let (mut found, mut count) = (BTreeSet::new(), 0);
        let read = consumer.read_to_end(4 * WAIT, |message| {
            let bytes = message.value.expect("each has one");
            let number = u64::from_le_bytes(bytes[..8].try_into().expect("a number"));
            assert!(bytes == self.value(number).as_slice(), "not the bytes of record {number}");
            found.insert(number);
            count += 1;
        });
        read.expect("everything can be read");
        assert!(count == self.sent && found.len() as u64 == self.sent, "{count} of {}, {} of them different", self.sent, found.len());
    }

    fn value(&self, number: u64) -> Vec<u8> {
        let mut value = number.to_le_bytes().to_vec();
        value.resize(self.value_bytes, number as u8);
        value
    }
}
