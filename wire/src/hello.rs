//! Hello (kind 1), the first request of a connection, and Ping (kind 14).
//!
//! Invariants: hello is always written in version 1 of its kind, so that any two versions can talk about versions.
//! Not here: what a mechanism's bytes mean.

use crate::prim::{List, layout};

layout! {
    /// Who the client is, what it speaks, how it authenticates.
    pub struct HelloRequest<'a> {
        /// Lowest protocol version the client speaks.
        pub protocol_min: u16;
        /// Highest protocol version the client speaks.
        pub protocol_max: u16;
        /// Name for logs and metrics.
        pub client_name: &'a str;
        /// Version for logs and metrics.
        pub client_version: &'a str;
        /// Authentication mechanism; empty for none.
        pub mechanism: &'a str;
        /// The mechanism's bytes.
        pub auth: &'a [u8];
    }
}

layout! {
    /// Versions of one request kind that a node accepts.
    pub struct ApiVersions {
        /// The kind's number (the client may not know it).
        pub kind: u8;
        /// Lowest version.
        pub min: u8;
        /// Highest version.
        pub max: u8;
    }
}

layout! {
    /// A node and its addresses.
    pub struct Node<'a> {
        /// Number of the node.
        pub node: u32;
        /// Advertised host.
        pub host: &'a str;
        /// Common port: any shard answers.
        pub port: u16;
        /// One port per shard, in order of shard.
        pub shard_ports: List<'a, u16>;
    }
}

layout! {
    /// What the node speaks and how to use it.
    pub struct HelloReply<'a> {
        /// The protocol version both will use.
        pub protocol: u16;
        /// Committed feature level of the cluster.
        pub feature_level: u32;
        /// Identity of the cluster.
        pub cluster_id: [u8; 16];
        /// The node that answered.
        pub node: u32;
        /// The shard that took this connection.
        pub shard: u16;
        /// Largest meta + payload the node accepts, in bytes.
        pub frame_max: u32;
        /// Payload bytes the node aims at in a fetch reply.
        pub fetch_frame: u32;
        /// Send something at least this often, in milliseconds.
        pub keepalive_ms: u32;
        /// The node closes a connection on which nothing came for this long, in milliseconds.
        pub idle_timeout_ms: u32;
        /// Accepted versions per kind.
        pub apis: List<'a, ApiVersions>;
        /// Authentication mechanisms the node offers.
        pub mechanisms: List<'a, &'a str>;
        /// The mechanism's answer, if it needs a further hello.
        pub challenge: &'a [u8];
        /// All nodes.
        pub nodes: List<'a, Node<'a>>;
    }
}

impl<'a> HelloReply<'a> {
    /// Versions of `kind` that the node accepts.
    pub fn api(&self, kind: u8) -> Option<ApiVersions> {
        self.apis.iter().find(|api| api.kind == kind)
    }
}

/// The highest version two ranges share, if there is one.
pub fn negotiate(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let highest = ours.1.min(theirs.1);
    (highest >= ours.0.max(theirs.0)).then_some(highest)
}

layout! {
    /// Keepalive: nothing.
    pub struct PingRequest {}
}

layout! {
    /// Keepalive: nothing.
    pub struct PingReply {}
}
