//! End to end: a producer at a rate and a reader at the tail, in one runtime. The latency of a record begins when it was due and ends when the reader has its bytes.
//!
//! Each record is checked: its bytes, and that numbers come without holes and in order.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::figures::{Figures, histogram};
use super::flow::{Flow, Load};
use super::pacer::{DRAIN_GRACE, DRAIN_PATIENCE};
use super::payload::Payload;
use crate::fault::{Fallible, Fault, fault};
use crate::peer::{Consumer, Producer};

/// What the reader has seen.
struct Seen {
    next_tag: u64,
    wrong: Option<String>,
    last_counted_ns: u64,
    latencies_ns: hdrhistogram::Histogram<u64>,
}

impl Seen {
    fn note(&mut self, record: &[u8], expected: &Payload, now_ns: u64, warm_ns: u64) {
        match expected.read(record) {
            Some((tag, due_ns)) if tag == self.next_tag => {
                self.next_tag += 1;
                if due_ns >= warm_ns {
                    self.latencies_ns.saturating_record(now_ns.saturating_sub(due_ns).max(1));
                    self.last_counted_ns = now_ns;
                }
            }
            Some((tag, _)) => {
                let next = self.next_tag;
                self.wrong.get_or_insert(format!("record {tag} came where {next} should have"));
            }
            None => {
                self.wrong.get_or_insert(format!("a record of {} bytes came that was never sent so", record.len()));
            }
        }
    }
}

/// Runs both until everything that was sent is read.
pub async fn run<P: Producer, C: Consumer>(
    producer: &mut P,
    consumer: &mut C,
    load: Load,
    record_bytes: usize,
    seed: u64,
) -> Fallible<Figures> {
    let epoch = Instant::now();
    let (mut payload, expected) = (Payload::new(record_bytes, seed), Payload::new(record_bytes, seed));
    let warm_ns = load.warm_up.as_nanos() as u64;
    let seen = RefCell::new(Seen { next_tag: 0, wrong: None, last_counted_ns: 0, latencies_ns: histogram()? });
    let sent: RefCell<Option<u64>> = RefCell::new(None);
    let writing = async {
        let (figures, count) = Flow::new(producer, &mut payload, load, epoch)?.run().await?;
        sent.replace(Some(count));
        Ok::<Figures, Fault>(figures)
    };
    let reading = async {
        let mut each = |record: &[u8]| seen.borrow_mut().note(record, &expected, epoch.elapsed().as_nanos() as u64, warm_ns);
        while sent.borrow().is_none_or(|count| seen.borrow().next_tag < count) && seen.borrow().wrong.is_none() {
            // The last record may have been read before the producer knew that it was the last.
            match tokio::time::timeout(Duration::from_millis(200), consumer.receive(&mut each)).await {
                Ok(told) => told?,
                Err(_) if epoch.elapsed() > load.warm_up + load.length + DRAIN_PATIENCE * 2 => break,
                Err(_) => {}
            }
        }
        Ok::<(), Fault>(())
    };
    let (written, read) = tokio::join!(writing, reading);
    let (written, ()) = (written?, read?);
    let seen = seen.into_inner();
    if let Some(wrong) = seen.wrong {
        return fault(format!("the reader got something wrong: {wrong}"));
    }
    let length_ns = seen.last_counted_ns.saturating_sub(warm_ns + DRAIN_GRACE.as_nanos() as u64).max(load.length.as_nanos() as u64);
    let mut figures = Figures::of(&seen.latencies_ns, length_ns as f64 / 1e9);
    figures.unfinished = sent.into_inner().unwrap_or_default().saturating_sub(seen.next_tag);
    (figures.failed, figures.failure) = (written.failed, written.failure);
    figures.generator_late_p99_us = written.generator_late_p99_us;
    Ok(match load.rate_per_s {
        Some(rate_per_s) => figures.asked(rate_per_s),
        None => figures,
    })
}
