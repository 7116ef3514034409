//! Nodes of one cluster as processes of a test: where they listen, and with which flags they start.
//!
//! Each test has addresses of its own in 127.0.0.0/8, so ports can be fixed and a node comes back where it was. A `block` tells the tests of one process apart,
//! the processes are told apart by their ids: the block of a test stands in no other one.
//!
//! Not here: nodes in namespaces of their own (`cluster`), what any test expects of them.

use crate::Options;
use tramline_client::{Client, Config};

/// The address of place `place`.
pub fn host(block: u8, place: usize) -> String {
    let pid = std::process::id();
    format!("127.{block}.{}.{}", 1 + pid % 254, 1 + (pid / 254 % 25) * 10 + place as u32)
}

/// Node `at` (its number is one more) on the address of place `place`, which joins through the nodes on the places `seeds`.
pub fn options(block: u8, at: usize, place: usize, seeds: &[usize]) -> Options {
    let host_here = host(block, place);
    let mut options = Options { listen: format!("{host_here}:7410"), ..Options::shards(2) };
    options.arguments.extend(["--node-id".into(), (at + 1).to_string(), "--cluster-listen".into(), format!("{host_here}:7700")]);
    if !seeds.is_empty() {
        let seeds: Vec<_> = seeds.iter().map(|seed| format!("{}:7700", host(block, *seed))).collect();
        options.arguments.extend(["--join".into(), seeds.join(",")]);
    }
    options.set("memory.bytes", "128MiB").set("groups.per.shard", "2")
}

/// A client of the first `nodes` of them.
pub fn client(block: u8, nodes: usize) -> Client {
    let servers: Vec<_> = (0..nodes).map(|at| format!("{}:7410", host(block, at))).collect();
    Client::connect(Config::new(&servers.join(","))).expect("a node answers")
}
