//! The ports of a node: those for clients and those for other nodes, and what it says about itself with them.
//!
//! Invariant: what others are told are the ports that are listened on, also where the settings leave them to the system.
//!
//! Not here: listening on one address (`listen.rs`), the admin pages' port (`housekeeping.rs`), accepting.

use super::data_dir::Identity;
use super::listen::{self, ListenError};
use super::start::StartError;
use crate::api::NodeInfo;
use crate::config::Settings;
use crate::constants::LOCK_WAIT_US;
use crate::control::{Endpoint, NodeSpec};
use crate::ids::NodeId;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// All listeners of a node.
pub(super) struct Ports {
    /// Where every shard accepts clients.
    pub(super) common: TcpListener,
    /// One per shard for clients.
    pub(super) shards: Vec<TcpListener>,
    /// One per shard for other nodes; none on a node that is a cluster of one.
    pub(super) nodes: Vec<TcpListener>,
    /// Address of `common`.
    pub(super) client: SocketAddr,
    /// Ports of `shards`.
    shard_ports: Vec<u16>,
    /// Addresses of `nodes`.
    pub(super) node_addresses: Vec<SocketAddr>,
    /// What other nodes are told of `nodes`.
    pub(super) cluster: Option<Endpoint>,
}

impl Ports {
    /// Listens on all of them.
    pub(super) fn open(settings: &Settings) -> Result<Ports, StartError> {
        let (common, shards) = for_clients(settings).map_err(StartError::Listen)?;
        let nodes = for_nodes(settings).map_err(StartError::Listen)?;
        let address = |l: &TcpListener| l.local_addr().map_err(|cause| StartError::Io("learn the address listened on", cause));
        let client = address(&common)?;
        let shard_ports = shards.iter().map(|l| address(l).map(|a| a.port())).collect::<Result<Vec<_>, _>>()?;
        let node_addresses = nodes.iter().map(address).collect::<Result<Vec<_>, _>>()?;
        let cluster = settings.cluster_host().zip(node_addresses.first()).map(|(host, first)| Endpoint {
            host: host.to_string(),
            port: first.port(),
            shard_ports: node_addresses.iter().map(SocketAddr::port).collect(),
        });
        Ok(Ports { common, shards, nodes, client, shard_ports, node_addresses, cluster })
    }

    /// What clients and nodes are told about this node.
    pub(super) fn info(&self, settings: &Settings, identity: &Identity) -> NodeInfo {
        self.info_of(settings, identity.node, identity.disk, (identity.cluster_id, identity.generation))
    }

    /// As what it asks to be taken in, before it belongs to a cluster; a node that is a cluster of one has no address for others.
    pub(super) fn spec(&self, settings: &Settings, disk: u64) -> NodeSpec {
        self.info_of(settings, NodeId(settings.node_id), disk, ([0; 16], 0)).spec(settings)
    }

    fn info_of(&self, settings: &Settings, node: NodeId, disk: u64, (cluster_id, generation): ([u8; 16], u32)) -> NodeInfo {
        NodeInfo {
            node,
            cluster_id,
            client: Endpoint { host: settings.advertise.clone(), port: self.client.port(), shard_ports: self.shard_ports.clone() },
            disk,
            generation,
            rack: settings.rack.clone(),
            cluster: self.cluster.clone(),
        }
    }
}

/// The common listener and one per shard: on the next ports, or all on free ones when the common port is 0.
fn for_clients(settings: &Settings) -> Result<(TcpListener, Vec<TcpListener>), ListenError> {
    let wait = Duration::from_micros(LOCK_WAIT_US);
    let common = listen::listen("listen", "--listen", settings.listen, wait)?;
    let of_shard = |shard: u16| {
        let port = if settings.listen.port() == 0 { 0 } else { settings.listen.port() + 1 + shard };
        listen::listen("listen, one port per shard behind it", "--listen", SocketAddr::new(settings.listen.ip(), port), wait)
    };
    let shards = (0..settings.shards).map(of_shard).collect::<Result<Vec<_>, _>>()?;
    Ok((common, shards))
}

/// One listener per shard for other nodes, if there is to be any. docs/REPLICATION.md, 3.1: shard i has the port of `--cluster-listen` plus i, so what
/// `--join` names is shard 0's own, and no shard has two. With port 0 all are free ones.
fn for_nodes(settings: &Settings) -> Result<Vec<TcpListener>, ListenError> {
    let Some(first) = settings.cluster_listen else { return Ok(Vec::new()) };
    let wait = Duration::from_micros(LOCK_WAIT_US);
    let of_shard = |shard: u16| {
        let port = if first.port() == 0 { 0 } else { first.port() + shard };
        listen::listen("cluster.listen, one port per shard", "--cluster-listen", SocketAddr::new(first.ip(), port), wait)
    };
    (0..settings.shards).map(of_shard).collect()
}
