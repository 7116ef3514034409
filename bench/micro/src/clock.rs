//! Processor time of this thread, and the calls that took most of it.

use rustix::time::{ClockId, clock_gettime};

/// Processor time that this thread has used, in nanoseconds.
pub fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How long single calls took, in the order in which they were made. A call's time includes one look at the clock, some 0.3 us.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    took_ns: Vec<u32>,
}

impl Calls {
    /// Times one call.
    pub fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let before = processor_ns();
        let answer = call();
        self.took_ns.push(u32::try_from(processor_ns() - before).unwrap_or(u32::MAX));
        answer
    }

    /// Of each call the shorter time of the two, where the same calls were made in the same order: an interrupt, or a host that took the processor away, is in
    /// a thread's time as well, but not at the same call each time.
    pub fn keep_shorter(&mut self, again: &Calls) {
        assert_eq!(self.took_ns.len(), again.took_ns.len(), "the same calls");
        self.took_ns.iter_mut().zip(&again.took_ns).for_each(|(known, again)| *known = (*known).min(*again));
    }

    /// Microseconds: what of 10,000 calls one reaches, and the longest one.
    pub fn p9999_and_max_us(&self) -> (f64, f64) {
        let mut sorted = self.took_ns.clone();
        sorted.sort_unstable();
        let us = |at: usize| sorted.get(at).map_or(0.0, |ns| f64::from(*ns) / 1000.0);
        (us(sorted.len().saturating_sub(1) - sorted.len() / 10_000), us(sorted.len().saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_what_it_works_and_not_what_it_waits() {
        let mut calls = Calls::default();
        calls.time(|| std::thread::park_timeout(std::time::Duration::from_millis(40)));
        assert!(calls.p9999_and_max_us().1 < 20_000.0, "{calls:?}");
        calls.time(|| {
            let start = processor_ns();
            while processor_ns() - start < 25_000_000 {}
        });
        assert!(calls.p9999_and_max_us().1 >= 24_900.0, "{calls:?}");
        calls.keep_shorter(&Calls { took_ns: vec![7_000, 9_000] });
        assert_eq!(calls.p9999_and_max_us().1, 9.0);
    }
}
