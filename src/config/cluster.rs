//! Settings of a node among others: its ports for them, the host they are told, whom it asks to be taken in.
//!
//! Invariant: where there are ports for nodes there is an IP address that others are told (`Settings::cluster_host`).
//!
//! Not here: the table, agreement of all other settings (`config.rs`), asking (`runtime/join.rs`).

use super::{Loaded, Origin, Settings, overlap};
use std::net::{IpAddr, SocketAddr};

impl Settings {
    /// The address that other nodes are told: that of cluster.listen, or advertise where that is a wildcard. `None` on a node that is a cluster of one.
    pub fn cluster_host(&self) -> Option<IpAddr> {
        let bound = self.cluster_listen?.ip();
        if !bound.is_unspecified() {
            return Some(bound);
        }
        // Nodes dial numbers: a shard cannot wait for an answer about a name.
        self.advertise.parse().ok().filter(|host: &IpAddr| !host.is_unspecified())
    }
}

impl Loaded {
    /// What a node among others needs, and its ports against its other ones.
    pub(super) fn agree_cluster(&self, s: &Settings) -> Result<(), String> {
        let Some(first) = s.cluster_listen else {
            return match s.cluster_join.first() {
                Some(seed) => Err(format!(
                    "cluster.join={seed} without cluster.listen: a node of a cluster is connected to by the others; say --cluster-listen HOST:7700 too"
                )),
                None => Ok(()),
            };
        };
        self.agree_cluster_host(s, first)?;
        agree_cluster_ports(s, first)
    }

    fn agree_cluster_host(&self, s: &Settings, first: SocketAddr) -> Result<(), String> {
        if first.ip().is_unspecified() && self.entry("advertise").origin == Origin::Default {
            return Err(format!(
                "cluster.listen is {first}, which no other node can connect to by that name; say --advertise ADDRESS (the IP address that clients and nodes use), or name the address in --cluster-listen"
            ));
        }
        if s.cluster_host().is_none() {
            return Err(format!(
                "cluster.listen is {first} and advertise is {}, which is no IP address that other nodes could connect to; name the address in --cluster-listen ADDRESS:{}, or say --advertise with an IP address",
                s.advertise,
                first.port()
            ));
        }
        Ok(())
    }
}

/// The ports for nodes, `first` and those above it, against the others.
fn agree_cluster_ports(s: &Settings, first: SocketAddr) -> Result<(), String> {
    if first.port() == 0 {
        return Ok(());
    }
    let last_port = u32::from(first.port()) + u32::from(s.shards) - 1;
    if last_port > u32::from(u16::MAX) {
        return Err(format!("cluster.listen={first} leaves no room for a port for each of {} shards; choose a lower port", s.shards));
    }
    let client_last = if s.listen.port() == 0 { 0 } else { u32::from(s.listen.port()) + u32::from(s.shards) };
    let others = [("listen", s.listen, client_last), ("admin.listen", s.admin_listen, u32::from(s.admin_listen.port()))];
    for (key, address, other_last) in others {
        let meets = u32::from(address.port()) <= last_port && u32::from(first.port()) <= other_last;
        if address.port() != 0 && meets && overlap(first, address) {
            return Err(format!(
                "the ports for other nodes {} to {last_port} (cluster.listen={first}, one per shard) collide with those of {key}={address}; choose another with --cluster-listen",
                first.port()
            ));
        }
    }
    Ok(())
}
