//! The loops that produce, fetch and replay, each once, for a moment, against the fake broker: that none rots, and that none accepts a wrong answer silently. Those of queues need a real
//! broker, and are run by `scripts/bench.sh` alone.

use crate::batches::BATCH_BYTES;
use crate::produce::{self, Rate, Until};
use crate::replay::Replay;
use crate::target::Target;
use crate::{fake, fetch, rtt};
use std::time::{Duration, Instant};
use tramline_wire::level::Level;

fn target(partitions: u64) -> Target {
    Target { topic: "smoke".to_owned(), address: fake::start(), uids: (1..=partitions).collect() }
}

#[test]
fn round_trips() {
    let latency = rtt::produce_round_trips(&target(1), Level::Durable, Duration::from_millis(50)).expect("measured");
    assert!(latency.p50_us > 0.0 && latency.p50_us <= latency.p99_us);
}

#[test]
fn produce_then_fetch_gives_the_same_bytes() {
    let target = target(1);
    let goal = 20 << 20;
    produce::throughput(&target, BATCH_BYTES, 16, Until::Bytes(goal)).expect("produced");
    // 63 records per batch of 64 KiB; a little more than the goal was sent.
    let batches = goal / (64 << 10);
    let fetched = fetch::throughput(&target, 0, batches * 63, true, Duration::ZERO).expect("fetched");
    assert!(fetched.bytes >= batches * 63 * 1024 && fetched.gbps > 0.0);
    fetch::throughput(&target, 63, batches * 63, false, Duration::from_millis(20)).expect("fetched from the middle, more than once");
}

#[test]
fn throughput_over_many_partitions_reaches_each() {
    let target = target(10);
    let seen = produce::throughput(&target, BATCH_BYTES, 8, Until::Time(Duration::from_millis(500))).expect("produced");
    assert!(seen.gbps > 0.0 && seen.latency.p50_us > 0.0);
    // What warms up and what ends the run is counted here: a batch of 63 records for each of ten partitions is the least.
    assert!(seen.batches >= 10 && seen.bytes > seen.batches * 63 * 1024 && seen.bytes <= seen.batches * u64::from(BATCH_BYTES));
    // The run ends with the first acknowledgement: at most eight of ten partitions can have received something.
    assert!(produce::throughput(&target, BATCH_BYTES, 8, Until::Bytes(1)).is_err(), "a partition without a batch has to show");
}

#[test]
fn an_open_loop_counts_from_when_a_request_was_due() {
    let target = target(3);
    let rate = Rate { gbps: 0.02, batch_bytes: BATCH_BYTES, time: Duration::from_secs(1) };
    let (start, mut stood_still) = (Instant::now(), false);
    let latency = produce::open_loop(&target, rate, || {
        // The driver itself stands still once, after the fifth of the time that does not count: what was due meanwhile is late. Half a second before
        // the end: where other tests spin on both cores, the loop must still be there to send it.
        if !stood_still && start.elapsed() > rate.time / 2 {
            stood_still = true;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    let latency = latency.expect("produced");
    assert!(latency.p99_us >= 30_000.0, "{latency:?}");
}

#[test]
fn replaying_consumers_go_round() {
    let target = target(1);
    produce::throughput(&target, BATCH_BYTES, 16, Until::Bytes(4 << 20)).expect("produced");
    let mut replay = Replay::begin(&target, 64 * 63).expect("begun");
    // By what came and not by a time: where other tests spin on both cores, a moment may pass without this thread.
    let start = Instant::now();
    while replay.bytes <= 2 * (4 << 20) {
        replay.poll().expect("read");
        assert!(start.elapsed() < Duration::from_secs(60), "{} bytes in a minute", replay.bytes);
    }
    assert!(replay.alone(Duration::from_millis(200)).expect("read").is_finite());
}
