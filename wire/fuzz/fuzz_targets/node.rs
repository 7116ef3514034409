//! Bytes as a frame between nodes, and as every body with its payload, an Append's walk among them: never panics; what a check has taken is given
//! back whole. Once as they come, and once with all sums made right, so that what is checked behind them is reached.
//!
//! Input: kind u8, length of the meta u16, meta, payload.
#![no_main]

#[path = "../../tests/common/node_mend.rs"]
mod node_mend;
#[path = "../../tests/common/node_walk.rs"]
#[allow(dead_code)]
mod node_walk;

use tramline_wire::node::Kind;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    node_walk::frame(bytes);
    let Some(([kind, low, high], rest)) = bytes.split_first_chunk::<3>() else { return };
    let (meta, payload) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    node_walk::metas(meta, payload);
    let Some(kind) = Kind::from_u8(*kind) else { return };
    let (mut meta, mut payload) = (meta.to_vec(), payload.to_vec());
    node_mend::sums(kind, &mut meta, &mut payload);
    node_walk::metas(&meta, &payload);
    node_walk::frame(&node_mend::frame(kind, &meta, &payload));
});
