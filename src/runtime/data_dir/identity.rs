//! The identity of a data directory as text: the file `node`, and `joining`, of which only the disk is known yet.
//!
//! Invariants: what `encode` writes `decode` reads; an unknown field is refused, another version is told by its number alone. A disk's number has 64 bits and
//! TOML's integers 63, so it is written in hexadecimal digits, as everywhere where people see it.
//!
//! Not here: reading and writing the files (`data_dir.rs`).

use crate::constants;
use crate::ids::{NodeId, hex};

/// Who a data directory belongs to, and what is fixed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node, from 1.
    pub node: NodeId,
    /// Random at the first start of a cluster's first node; the same on all its nodes.
    pub cluster_id: [u8; 16],
    /// This life of the directory: random at its first start, never 0.
    pub disk: u64,
    /// How many disks the node had before this one.
    pub generation: u32,
    /// Layout version of the directory.
    pub version: u32,
    /// Number of shards.
    pub shards: u16,
    /// Replica groups per shard.
    pub groups_per_shard: u32,
}

const KEYS: [&str; 7] = ["version", "node", "cluster", "disk", "generation", "shards", "groups_per_shard"];

pub(super) fn encode(identity: &Identity) -> String {
    let Identity { node, cluster_id, disk, generation, version, shards, groups_per_shard } = identity;
    format!(
        "# Identity of this Tramline data directory. Do not edit: it has to agree with what lies beside it.\nversion = {version}\nnode = {node}\ncluster = \"{}\"\ndisk = \"{disk:016x}\"\ngeneration = {generation}\nshards = {shards}\ngroups_per_shard = {groups_per_shard}\n",
        hex(cluster_id)
    )
}

pub(super) fn decode(text: &str) -> Result<Identity, String> {
    let table = table(text)?;
    let version = number(&table, "version")?;
    if version != constants::DATA_DIR_VERSION {
        // Other fields may mean something else there; the caller refuses it by its version.
        return Ok(Identity { node: NodeId(0), cluster_id: [0; 16], disk: 0, generation: 0, version, shards: 0, groups_per_shard: 0 });
    }
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("'{key}' is not known"));
    }
    let above_zero = |key: &str| number(&table, key).and_then(|n| if n == 0 { Err(format!("'{key}' is out of range")) } else { Ok(n) });
    let small = |key: &str| above_zero(key).and_then(|n| u16::try_from(n).map_err(|_| format!("'{key}' is out of range")));
    Ok(Identity {
        node: NodeId(above_zero("node")?),
        cluster_id: digits(&table, "cluster")?,
        disk: disk(&table)?,
        generation: number(&table, "generation")?,
        version,
        shards: small("shards")?,
        groups_per_shard: u32::from(small("groups_per_shard")?),
    })
}

/// The text of the file `joining`.
pub(super) fn encode_joining(disk: u64) -> String {
    format!("# This Tramline data directory is about to join a cluster, as this disk.\ndisk = \"{disk:016x}\"\n")
}

/// The disk of the file `joining`.
pub(super) fn decode_joining(text: &str) -> Result<u64, String> {
    disk(&table(text)?)
}

fn table(text: &str) -> Result<toml::Table, String> {
    text.parse().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn number(table: &toml::Table, key: &str) -> Result<u32, String> {
    let number = table.get(key).and_then(toml::Value::as_integer).filter(|number| *number >= 0);
    let number = number.ok_or_else(|| format!("'{key}' is missing or no number"))?;
    u32::try_from(number).map_err(|_| format!("'{key}' is out of range"))
}

fn disk(table: &toml::Table) -> Result<u64, String> {
    match u64::from_be_bytes(digits(table, "disk")?) {
        0 => Err("'disk' is out of range".to_owned()),
        disk => Ok(disk),
    }
}

/// `N` bytes, two digits each.
fn digits<const N: usize>(table: &toml::Table, key: &str) -> Result<[u8; N], String> {
    let text = table.get(key).and_then(toml::Value::as_str).unwrap_or_default().as_bytes();
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!("'{key}' is not {} hexadecimal digits", 2 * N));
    }
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Ok(bytes)
}
