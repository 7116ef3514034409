//! A topic to measure with, and where its partitions are.

use crate::error::BenchError;
use std::time::{Duration, Instant};
use tramline_client::{At, Client, Config};

/// A topic whose partitions are led by one shard.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the topic.
    pub topic: String,
    /// Address of the shard that leads it.
    pub address: String,
    /// Partition uids in order of index.
    pub uids: Vec<u64>,
}

/// How long a new topic may take to have leaders.
const LEADERS_PATIENCE: Duration = Duration::from_secs(20);

/// Creates the topic and waits until each partition has a leader.
pub fn create(address: &str, topic: &str, partitions: u32, settings: &[(&str, String)]) -> Result<Target, BenchError> {
    let client = client(address)?;
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    client.create_topic(topic, partitions, &settings, false)?;
    wait_for_leaders(&client, topic, partitions)
}

/// Creates a topic of one partition with so many replicas and waits until it has a leader, whichever.
pub fn create_replicated(address: &str, topic: &str, replicas: u8, settings: &[(&str, String)]) -> Result<Target, BenchError> {
    let client = client(address)?;
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    client.create_replicated_topic(topic, 1, replicas, &settings, false)?;
    wait_for_leaders(&client, topic, 1)
}

/// A topic that is there already.
pub fn find(address: &str, topic: &str, partitions: u32) -> Result<Target, BenchError> {
    wait_for_leaders(&client(address)?, topic, partitions)
}

fn wait_for_leaders(client: &Client, topic: &str, partitions: u32) -> Result<Target, BenchError> {
    let start = Instant::now();
    loop {
        let metadata = client.metadata(&[topic])?;
        let found = metadata.topic(topic).filter(|found| found.error.is_ok() && found.partitions.len() == partitions as usize);
        if let Some(found) = found.filter(|found| found.partitions.iter().all(|partition| partition.leader_node != 0)) {
            let mut partitions = found.partitions.clone();
            partitions.sort_by_key(|partition| partition.index);
            let first = &partitions[0];
            let node = metadata.nodes.iter().find(|node| node.id == first.leader_node);
            let port = node.and_then(|node| Some((node, node.shard_ports.get(first.leader_shard as usize)?)));
            let (node, port) = port.ok_or_else(|| BenchError::Wrong("metadata name a leader without an address".to_owned()))?;
            return Ok(Target {
                topic: topic.to_owned(),
                address: format!("{}:{port}", node.host),
                uids: partitions.iter().map(|partition| partition.uid).collect(),
            });
        }
        if start.elapsed() > LEADERS_PATIENCE {
            return Err(BenchError::Silent("waiting for leaders of a new topic"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The offset behind the last committed record of the first partition.
pub fn end_offset(address: &str, target: &Target) -> Result<u64, BenchError> {
    let offsets = client(address)?.list_offsets(&target.topic, &[(0, At::Latest)])?;
    offsets.first().map(|found| found.offset).ok_or_else(|| BenchError::Wrong("no end offset".to_owned()))
}

/// Deletes the topic, so that its space can be used again.
pub fn delete(address: &str, target: &Target) -> Result<(), BenchError> {
    client(address)?.delete_topic(&target.topic)?;
    Ok(())
}

/// A client of the nodes at these addresses, commas between them.
pub fn client(address: &str) -> Result<Client, BenchError> {
    Ok(Client::connect(Config { client_name: "tramline-bench".to_owned(), ..Config::new(address) })?)
}
