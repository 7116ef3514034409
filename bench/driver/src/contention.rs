//! Whether others use the machine: the kernel's count of the time in which some runnable thread waited for a processor.
//!
//! Both sides of a pair spin on a core of their own, so hardly anything of theirs ever waits; what waits, waits behind or before
//! someone else. A pair with much of that says more about the others than about the broker.

use std::time::Instant;

/// Up to this share of the time counts as undisturbed. Kernel workers that flush synced writes wait for a spinning thread's next
/// `sched_yield`, and what spins waits for the looks at the processors' distance: 0.2 to 0.35 was seen on a machine nearly left alone.
pub const UNDISTURBED_SHARE: f64 = 0.4;

/// Watches from its making on.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    since: Instant,
    waited_us: Option<u64>,
}

impl Watch {
    /// Starts.
    pub fn start() -> Watch {
        Watch { since: Instant::now(), waited_us: waited_us() }
    }

    /// Share of the time since the start in which something waited; 0 where the kernel does not tell.
    pub fn waited_share(&self) -> f64 {
        match (self.waited_us, waited_us()) {
            (Some(before), Some(now)) => now.saturating_sub(before) as f64 / self.since.elapsed().as_micros().max(1) as f64,
            _ => 0.0,
        }
    }
}

fn waited_us() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/pressure/cpu").ok()?)
}

fn parse(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("total=")).and_then(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_the_total_of_the_line_that_counts() {
        let text = "some avg10=99.96 avg60=98.43 avg300=86.81 total=893723059\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(super::parse(text), Some(893_723_059));
        assert_eq!(super::parse(""), None);
    }
}
