//! `disk`: where the space of a node's disk went, shard by shard.
//!
//! As with the other verbs: one function asks, pure ones make the text and the JSON; the JSON's fields may become more, none is renamed.

use crate::args::Format;
use crate::failure::Failure;
use crate::output::show;
use crate::table::Table;
use serde_json::{Value, json};
use tramline_client::{Client, NodeStorage, ShardStorage};

/// `disk`.
pub fn disk(client: &Client, format: Format) -> Result<(), Failure> {
    let storage = client.describe_storage()?;
    show(format, || disk_text(&storage), || disk_json(&storage))
}

/// The five kinds of space, and all of them: the bytes of the segment files.
fn kinds(shard: &ShardStorage) -> [u64; 6] {
    let kinds = [shard.live_bytes, shard.dead_bytes, shard.padding_bytes, shard.open_bytes, shard.free_bytes];
    // What a broker says is not ours: no sum of it may stop this program.
    let all = kinds.iter().fold(0u64, |all, bytes| all.saturating_add(*bytes));
    [kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], all]
}

fn files(shard: &ShardStorage) -> [u64; 5] {
    [shard.segments_open, shard.segments_sealed, shard.segments_sorted, shard.pool_written, shard.pool_fresh].map(u64::from)
}

fn disk_text(storage: &NodeStorage) -> String {
    let shards = &storage.shards;
    let mut space =
        Table::new(&[">SHARD", ">LIVE", ">DEAD", ">PADDING", ">OPEN", ">FREE", ">ALL BYTES", ">TO BE SORTED", "STAGE", ">DISK FREE"]);
    let mut segments = Table::new(&[">SHARD", ">OPEN", ">SEALED", ">OF THEM SORTED", ">POOL WRITTEN", ">POOL FRESH"]);
    for shard in shards {
        let cells = kinds(shard).into_iter().chain([shard.sorter_waiting_bytes]).map(|bytes| bytes.to_string());
        let disk = [shard.stage.to_string(), shard.disk_free_bytes.to_string()];
        space.row(std::iter::once(shard.shard.to_string()).chain(cells).chain(disk).collect());
        segments.row(std::iter::once(shard.shard.to_string()).chain(files(shard).iter().map(u64::to_string)).collect());
    }
    if shards.len() > 1 {
        let sum = |of: &dyn Fn(&ShardStorage) -> u64| shards.iter().map(of).fold(0, u64::saturating_add).to_string();
        let waiting = sum(&|shard| shard.sorter_waiting_bytes);
        let bytes = (0..6).map(|kind| sum(&move |shard| kinds(shard)[kind])).chain([waiting, String::new(), String::new()]);
        space.row(std::iter::once("all".to_owned()).chain(bytes).collect());
        let counts = (0..5).map(|kind| sum(&move |shard| files(shard)[kind]));
        segments.row(std::iter::once("all".to_owned()).chain(counts).collect());
    }
    format!("node {}\n\n{}\n{}", storage.node, space.render(), segments.render())
}

fn disk_json(storage: &NodeStorage) -> Value {
    let shards: Vec<Value> = storage
        .shards
        .iter()
        .map(|shard| {
            json!({
                "shard": shard.shard, "stage": shard.stage.to_string(), "disk_free_bytes": shard.disk_free_bytes,
                "live_bytes": shard.live_bytes, "dead_bytes": shard.dead_bytes, "padding_bytes": shard.padding_bytes,
                "open_bytes": shard.open_bytes, "free_bytes": shard.free_bytes, "sorter_waiting_bytes": shard.sorter_waiting_bytes,
                "segments_open": shard.segments_open, "segments_sealed": shard.segments_sealed, "segments_sorted": shard.segments_sorted,
                "pool_written": shard.pool_written, "pool_fresh": shard.pool_fresh,
            })
        })
        .collect();
    json!({"node": storage.node, "shards": shards})
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::DiskStage;

    fn shard(number: u16, stage: DiskStage) -> ShardStorage {
        ShardStorage {
            shard: number,
            stage,
            segments_open: 1,
            segments_sealed: 5,
            segments_sorted: 2,
            pool_written: 3,
            pool_fresh: 0,
            live_bytes: 500,
            dead_bytes: 70,
            padding_bytes: 30,
            open_bytes: 100,
            free_bytes: 300,
            sorter_waiting_bytes: 300,
            disk_free_bytes: 9000,
        }
    }

    #[test]
    fn one_shard_needs_no_sum() {
        let text = disk_text(&NodeStorage { node: 1, shards: vec![shard(0, DiskStage::OK)] });
        let expected = "node 1\n\n\
            SHARD  LIVE  DEAD  PADDING  OPEN  FREE  ALL BYTES  TO BE SORTED  STAGE  DISK FREE\n    \
            0   500    70       30   100   300       1000           300  ok          9000\n\n\
            SHARD  OPEN  SEALED  OF THEM SORTED  POOL WRITTEN  POOL FRESH\n    \
            0     1       5               2             3           0\n";
        assert_eq!(text, expected, "{text}");
    }

    #[test]
    fn several_shards_are_summed_up_and_an_unknown_stage_is_shown() {
        let mut huge = shard(1, DiskStage(7));
        huge.live_bytes = u64::MAX;
        let storage = NodeStorage { node: 1, shards: vec![shard(0, DiskStage::REFUSE), huge] };
        let text = disk_text(&storage);
        assert!(text.contains("refuse") && text.contains("stage-7") && text.contains("\n  all  18446744073709551615   140"), "{text}");
        let json = disk_json(&storage);
        assert_eq!((&json["shards"][0]["stage"], &json["shards"][1]["stage"]), (&json!("refuse"), &json!("stage-7")));
        assert_eq!((&json["shards"][1]["live_bytes"], &json["node"]), (&json!(u64::MAX), &json!(1)));
    }
}
