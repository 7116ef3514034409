//! A queue's cycle: send, receive, acknowledge, one message at a time. What comes out has to be what went in.

use std::time::{Duration, Instant};

use super::figures::{Figures, histogram};
use super::payload::Payload;
use crate::fault::{Fallible, fault};
use crate::peer::Queue;

/// How long one cycle may take.
const CYCLE_PATIENCE: Duration = Duration::from_secs(10);

/// Cycles for so long.
pub async fn run<Q: Queue>(queue: &mut Q, record_bytes: usize, seed: u64, warm_up: Duration, length: Duration) -> Fallible<Figures> {
    let mut payload = Payload::new(record_bytes, seed);
    let expected = Payload::new(record_bytes, seed);
    let mut latencies_ns = histogram()?;
    let epoch = Instant::now();
    let mut number = 0;
    while epoch.elapsed() < warm_up + length {
        let begun = epoch.elapsed();
        let cycle = queue.cycle(payload.stamped(number, begun.as_nanos() as u64));
        let Ok(message) = tokio::time::timeout(CYCLE_PATIENCE, cycle).await else {
            return fault(format!("cycle {number} took longer than {} s", CYCLE_PATIENCE.as_secs()));
        };
        match expected.read(&message?) {
            Some((tag, _)) if tag == number => {}
            other => return fault(format!("message {number} was sent, and {other:?} came out")),
        }
        if begun >= warm_up {
            latencies_ns.saturating_record((epoch.elapsed() - begun).as_nanos() as u64);
        }
        number += 1;
    }
    Ok(Figures::of(&latencies_ns, epoch.elapsed().saturating_sub(warm_up).as_secs_f64()))
}
