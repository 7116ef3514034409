//! An idle node uses under 2 % of a core, with the default way of waiting (spin adaptive).
//!
//! Measured from `/proc/PID/stat` over some seconds of quiet, after the node has worked: it must come to rest by itself.

use common::layout::Rec;
use common::{Node, Options, Peer};
use std::time::{Duration, Instant};

/// Clock ticks per second in `/proc`: fixed at 100 for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const SHARE_MAX: f64 = 0.02;
const QUIET: Duration = Duration::from_secs(10);

fn check_idle(node: &mut Node, what: &str) {
    // What was just done may still be going on (a mark block, the pool): the node has a few seconds to come to rest.
    node.process.watch_quietly(Duration::from_secs(4));
    let (ticks, started) = (node.cpu_ticks(), Instant::now());
    node.process.watch_quietly(QUIET);
    let share = (node.cpu_ticks() - ticks) as f64 / TICKS_PER_SECOND / started.elapsed().as_secs_f64();
    println!("{what}: {:.2} % of a core", share * 100.0);
    assert!(share < SHARE_MAX, "{what}: {:.2} % of a core while idle", share * 100.0);
}

#[test]
fn an_idle_node_rests() {
    let mut node = Node::with(Options { spin: "adaptive", ..Options::default() });
    check_idle(&mut node, "fresh");
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 16, &[])[0].uid;
    for _ in 0..200 {
        peer.put(uid, &[Rec::value(vec![1; 10_000])]);
    }
    // With connections and a waiting stream open: the usual state of a quiet system.
    let mut stream = Peer::connect(node.ready.client);
    stream.send(common::layout::kind::FETCH, common::peer::fetch_meta(1, 60_000, 1, 64 << 20, &[(uid, 200, 1 << 20)]), Vec::new());
    check_idle(&mut node, "after work, with a waiting stream");
    peer.ping();
}
