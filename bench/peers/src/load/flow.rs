//! Drives one producer: in closed loop with a window, or in open loop at a rate.
//!
//! In open loop each record has a moment when it is due; its latency begins there, however long the generator or the client held it back (no coordinated
//! omission). In closed loop it begins when it is handed to the client. Records that begin within the warm-up do not count.
//! Invariant: every record is acknowledged, failed, or counted as unfinished. Not here: readers (`ends.rs`).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::figures::{Figures, histogram};
use super::pacer::{DRAIN_GRACE, DRAIN_PATIENCE, Pacer};
use super::payload::Payload;
use crate::fault::Fallible;
use crate::peer::{Ack, Producer};

/// Records under way at most in open loop: what a second of the highest rate needs, and a bound for the memory of both sides.
pub const OPEN_WINDOW: usize = 65_536;
/// After so many records in a row acknowledgements are looked at, so that their times are taken when they come.
const BURST: usize = 64;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Records per second; none is closed loop.
    pub rate_per_s: Option<f64>,
    /// Records under way at most.
    pub window: usize,
    /// Partitions, in turn.
    pub partitions: u32,
    /// What does not count.
    pub warm_up: Duration,
    /// What counts.
    pub length: Duration,
    /// End after so many records, however much time is left.
    pub records_max: u64,
}

/// A flow while it runs.
pub struct Flow<'a, P> {
    producer: &'a mut P,
    payload: &'a mut Payload,
    load: Load,
    /// All times are nanoseconds from here.
    epoch: Instant,
    /// When each record began, by its tag.
    begun_ns: Vec<u64>,
    finished: u64,
    last_counted_ns: u64,
    latencies_ns: Histogram<u64>,
    late_ns: Histogram<u64>,
    failed: u64,
    failure: Option<String>,
    acks: Vec<Ack>,
}

impl<'a, P: Producer> Flow<'a, P> {
    /// Ready to run.
    pub fn new(producer: &'a mut P, payload: &'a mut Payload, load: Load, epoch: Instant) -> Fallible<Flow<'a, P>> {
        let (latencies_ns, late_ns) = (histogram()?, histogram()?);
        let (begun_ns, acks) = (Vec::new(), Vec::new());
        Ok(Flow {
            producer,
            payload,
            load,
            epoch,
            begun_ns,
            finished: 0,
            last_counted_ns: 0,
            latencies_ns,
            late_ns,
            failed: 0,
            failure: None,
            acks,
        })
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn end_ns(&self) -> u64 {
        (self.load.warm_up + self.load.length).as_nanos() as u64
    }

    /// When the next record is due; none when there is none any more.
    fn next_due_ns(&self, now_ns: u64) -> Option<u64> {
        let sent = self.begun_ns.len() as u64;
        let due_ns = self.load.rate_per_s.map_or(now_ns, |rate| (sent as f64 * 1e9 / rate) as u64);
        (due_ns < self.end_ns() && now_ns < self.end_ns() && sent < self.load.records_max).then_some(due_ns)
    }

    fn under_way(&self) -> usize {
        (self.begun_ns.len() as u64 - self.finished) as usize
    }

    /// Sends until time or records are used up, then waits for what is under way. Returns the figures and the number of records sent.
    pub async fn run(mut self) -> Fallible<(Figures, u64)> {
        let pacer = Pacer::new()?;
        loop {
            self.send_what_is_due().await?;
            let due = self.next_due_ns(self.now_ns());
            if due.is_none() {
                break;
            }
            let may_send = self.under_way() < self.load.window;
            let next = due.map(|due_ns| self.epoch + Duration::from_nanos(due_ns)).filter(|_| may_send);
            let end = self.epoch + self.load.warm_up + self.load.length;
            tokio::select! {
                biased;
                told = self.producer.acks(&mut self.acks) => told?,
                woken = pacer.until(next.unwrap_or(end)) => woken?,
            }
            self.note_acks();
        }
        self.drain().await?;
        Ok(self.figures())
    }

    async fn send_what_is_due(&mut self) -> Fallible<()> {
        for _ in 0..BURST {
            let now_ns = self.now_ns();
            let Some(due_ns) = self.next_due_ns(now_ns).filter(|due_ns| *due_ns <= now_ns) else { return Ok(()) };
            if self.under_way() >= self.load.window {
                return Ok(());
            }
            let tag = self.begun_ns.len() as u64;
            self.begun_ns.push(due_ns);
            if due_ns >= self.load.warm_up.as_nanos() as u64 {
                self.late_ns.saturating_record((now_ns - due_ns).max(1));
            }
            let partition = (tag % u64::from(self.load.partitions)) as u32;
            self.producer.send(partition, tag, self.payload.stamped(tag, due_ns)).await?;
        }
        Ok(())
    }

    fn note_acks(&mut self) {
        let now_ns = self.now_ns();
        let warm_ns = self.load.warm_up.as_nanos() as u64;
        for ack in self.acks.drain(..) {
            self.finished += 1;
            if let Some(error) = ack.error {
                self.failed += 1;
                self.failure.get_or_insert(error);
                continue;
            }
            let begun_ns = self.begun_ns[ack.tag as usize];
            if begun_ns >= warm_ns {
                self.latencies_ns.saturating_record((now_ns - begun_ns).max(1));
                self.last_counted_ns = now_ns;
            }
        }
    }

    async fn drain(&mut self) -> Fallible<()> {
        let deadline = tokio::time::Instant::now() + DRAIN_PATIENCE;
        while self.under_way() > 0 {
            match tokio::time::timeout_at(deadline, self.producer.acks(&mut self.acks)).await {
                Ok(told) => told?,
                Err(_) => return Ok(()),
            }
            self.note_acks();
        }
        Ok(())
    }

    fn figures(self) -> (Figures, u64) {
        let counted_ns = self.last_counted_ns.saturating_sub(self.load.warm_up.as_nanos() as u64);
        let length_ns = match self.load.rate_per_s {
            Some(_) => counted_ns.saturating_sub(DRAIN_GRACE.as_nanos() as u64).max(self.load.length.as_nanos() as u64),
            None => counted_ns,
        };
        let sent = self.begun_ns.len() as u64;
        let mut figures = Figures::of(&self.latencies_ns, length_ns as f64 / 1e9);
        (figures.unfinished, figures.failed, figures.failure) = (sent - self.finished, self.failed, self.failure);
        match self.load.rate_per_s {
            Some(rate_per_s) => {
                figures.generator_late_p99_us = Some(self.late_ns.value_at_percentile(99.0) as f64 / 1000.0);
                (figures.asked(rate_per_s), sent)
            }
            None => {
                figures.window = Some(self.load.window);
                (figures, sent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Acknowledges in order, each after a time of its own; one at a time, as a server with one thread.
    struct Line {
        service: Duration,
        stall: Option<(u64, Duration)>,
        waiting: VecDeque<u64>,
        free_at: tokio::time::Instant,
    }

    impl Line {
        fn new(service: Duration, stall: Option<(u64, Duration)>) -> Line {
            Line { service, stall, waiting: VecDeque::new(), free_at: tokio::time::Instant::now() }
        }
    }

    impl Producer for Line {
        async fn send(&mut self, _: u32, tag: u64, _: &[u8]) -> Fallible<()> {
            if self.waiting.is_empty() {
                self.free_at = self.free_at.max(tokio::time::Instant::now());
            }
            self.waiting.push_back(tag);
            Ok(())
        }

        async fn acks(&mut self, into: &mut Vec<Ack>) -> Fallible<()> {
            let Some(&tag) = self.waiting.front() else { return std::future::pending().await };
            let stall = self.stall.filter(|(at, _)| *at == tag).map_or(Duration::ZERO, |(_, stall)| stall);
            tokio::time::sleep_until(self.free_at + self.service + stall).await;
            self.free_at += self.service + stall;
            self.waiting.pop_front();
            into.push(Ack { tag, error: (tag == 3).then(|| "the fourth fails".to_owned()) });
            Ok(())
        }
    }

    fn run(line: impl FnOnce() -> Line, load: Load) -> (Figures, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mut line, mut payload) = (line(), Payload::new(64, 1));
            let flow = Flow::new(&mut line, &mut payload, load, Instant::now()).expect("it begins");
            flow.run().await.expect("it runs")
        })
    }

    fn load(rate_per_s: Option<f64>, window: usize) -> Load {
        let (warm_up, length) = (Duration::ZERO, Duration::from_millis(400));
        Load { rate_per_s, window, partitions: 1, warm_up, length, records_max: u64::MAX }
    }

    #[test]
    fn a_stall_is_seen_by_all_that_were_due_meanwhile() {
        // 100 ms in the middle of 500 records per second: some 50 records wait on average half of it.
        let (figures, sent) = run(|| Line::new(Duration::ZERO, Some((50, Duration::from_millis(100)))), load(Some(500.0), OPEN_WINDOW));
        assert_eq!((sent, figures.records, figures.failed, figures.unfinished), (200, 199, 1, 0), "{figures:?}");
        assert!(figures.max_us >= 99_000.0, "{figures:?}");
        assert!(figures.curve_us[5] >= 40_000.0, "a tenth waited for half of the stall or more: {figures:?}");
    }

    #[test]
    fn a_stall_is_seen_with_one_record_in_the_window_too() {
        let (figures, _) = run(|| Line::new(Duration::ZERO, Some((50, Duration::from_millis(100)))), load(Some(500.0), 1));
        assert!(figures.curve_us[5] >= 40_000.0, "what is held back counts from when it was due: {figures:?}");
    }

    #[test]
    fn a_rate_that_cannot_be_held_is_told() {
        let (figures, _) = run(|| Line::new(Duration::from_millis(5), None), load(Some(1000.0), 8));
        assert_eq!(figures.held, Some(false), "{figures:?}");
        assert!(figures.rate_per_s < 250.0, "{figures:?}");
    }

    #[test]
    fn a_closed_loop_has_no_more_than_its_window_under_way() {
        let (figures, sent) = run(|| Line::new(Duration::from_millis(2), None), load(None, 1));
        assert!((50..=200).contains(&sent), "{sent} of 2 ms each in 400 ms");
        assert!(figures.p50_us >= 1_900.0 && figures.failed == 1 && figures.failure.is_some(), "{figures:?}");
    }

    #[test]
    fn warm_up_does_not_count() {
        let warm = Load { warm_up: Duration::from_millis(200), ..load(Some(500.0), OPEN_WINDOW) };
        let (figures, sent) = run(|| Line::new(Duration::ZERO, Some((10, Duration::from_millis(50)))), warm);
        assert_eq!((sent, figures.records), (300, 200), "{figures:?}");
        assert!(figures.max_us < 50_000.0, "the stall was in the warm-up: {figures:?}");
    }
}
