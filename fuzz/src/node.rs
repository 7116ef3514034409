//! A shard over what a start found: its metadata, partitions and groups, and then some of its background work, which reads footers and
//! batches back.
//!
//! Not here: requests of clients.

use crate::base::Base;
use crate::disk::MemDisk;
use std::sync::Arc;
use tramline::api::NodeInfo;
use tramline::config::DiskSize;
use tramline::control::Endpoint;
use tramline::effects::{Effect, Effects, Event, Now};
use tramline::ids::{NodeId, ShardId};
use tramline::log::Recovered;
use tramline::shard::{Shard, ShardStart};

/// Turns of background work, and simulated time between two of them: enough for the scrubber, the sorter and retention to begin.
const TURNS: u64 = 40;
const TURN_US: u64 = 200_000;
/// Steps that follow from one another without end are a loop.
const STEPS_MAX: u32 = 20_000;

/// Starts the shard; where it starts, lets it work.
pub fn run(base: &Base, disk: &mut MemDisk, recovered: Recovered) {
    let info = NodeInfo {
        node: NodeId(1),
        cluster_id: [7; 16],
        client: Endpoint { host: "127.0.0.1".into(), port: 7410, shard_ports: vec![7411] },
        disk: 1,
        generation: 0,
        rack: String::new(),
        cluster: None,
    };
    let start = ShardStart { id: ShardId(0), settings: Arc::clone(&base.image.settings), info: Arc::new(info), recovered, joined: None, is_metadata_forced: false };
    let mut effects = Effects::new();
    let Ok(mut shard) = Shard::start(start, &mut effects) else { return };
    shard.set_disk(base.image.settings.disk_marks().look(DiskSize { total_bytes: 1 << 40, free_bytes: 1 << 40 }));
    let mut steps = 0;
    for turn in 0..TURNS {
        let now = Now { mono_us: 1_000_000 + turn * TURN_US, utc_us: 1_700_000_100_000_000 + (turn * TURN_US) as i64 };
        let _blocked = shard.step(now, Event::Deadline, &mut effects);
        let _blocked = shard.step(now, Event::Turn { bytes: 1 << 20, us: 50 }, &mut effects);
        let _blocked = shard.step(now, Event::EndOfTurn, &mut effects);
        while !effects.list.is_empty() {
            for effect in std::mem::take(&mut effects.list) {
                steps += 1;
                assert!(steps < STEPS_MAX, "steps follow from one another without end");
                let event = match effect {
                    Effect::Write { token, file, pos, data } => Event::Done { token, outcome: disk.write(file, pos, data.as_slice()) },
                    Effect::Read { token, file, pos, buf } => Event::Done { token, outcome: disk.read(file, pos, buf) },
                    Effect::File { token, op } => Event::Done { token, outcome: disk.file_op(&op) },
                    Effect::Mesh { to, message } if to == ShardId(0) => Event::Mesh { from: ShardId(0), message },
                    Effect::Fatal { .. } => return,
                    _ => continue,
                };
                let _blocked = shard.step(now, event, &mut effects);
            }
            let _blocked = shard.step(now, Event::EndOfTurn, &mut effects);
        }
        effects.clear();
    }
}
