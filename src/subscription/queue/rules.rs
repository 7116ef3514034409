//! What a queue's settings come to, in numbers.
//!
//! Not here: their names, ranges and defaults (control/queue_settings.rs).

use crate::mutants::Mutants;

/// The rules of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// How long a lease lasts unless the receiver asks for another length, in microseconds.
    pub visibility_timeout_us: u64,
    /// A message that failed this often is dead; `None`: never.
    pub max_deliveries: Option<u16>,
    /// The delay after the first failure, in microseconds.
    pub retry_initial_us: u64,
    /// What the delay grows by with each further failure, in hundredths.
    pub retry_multiplier_hundredths: u32,
    /// The longest delay, in microseconds.
    pub retry_max_us: u64,
    /// How much a delay is shortened or prolonged, at most, in per cent.
    pub retry_jitter_percent: u8,
    /// For how long message ids are remembered, in microseconds; 0: not at all.
    pub dedup_window_us: u64,
    /// Messages leased at once in one partition, at most.
    pub max_in_flight: u32,
    /// The same for one consumer.
    pub max_in_flight_per_consumer: u32,
    /// Whether one consumer at a time receives.
    pub exclusive: bool,
    /// Whether nobody receives for now.
    pub paused: bool,
    /// Exclusive: a holder without leases that is not heard of for so long loses the queue, in microseconds.
    pub consumer_timeout_us: u64,
    /// Whether dead messages go to a topic of their own.
    pub has_dead_letter: bool,
    /// Bugs on purpose.
    pub mutants: Mutants,
}

impl Default for QueueRules {
    /// The defaults of the settings.
    fn default() -> QueueRules {
        QueueRules {
            visibility_timeout_us: 30_000_000,
            max_deliveries: Some(5),
            retry_initial_us: 1_000_000,
            retry_multiplier_hundredths: 200,
            retry_max_us: 300_000_000,
            retry_jitter_percent: 10,
            dedup_window_us: 300_000_000,
            max_in_flight: 100_000,
            max_in_flight_per_consumer: 20_000,
            exclusive: false,
            paused: false,
            consumer_timeout_us: 10_000_000,
            has_dead_letter: false,
            mutants: Mutants::default(),
        }
    }
}

impl QueueRules {
    /// How long a message waits after it failed for the `deliveries`th time, in microseconds. The jitter comes from the message itself (its offset and
    /// the number of deliveries): it is the same wherever it is computed.
    pub fn retry_delay_us(&self, offset: u64, deliveries: u16) -> u64 {
        let mut delay_us = self.retry_initial_us.min(self.retry_max_us);
        for _ in 1..deliveries {
            delay_us = delay_us.saturating_mul(u64::from(self.retry_multiplier_hundredths)) / 100;
            if delay_us >= self.retry_max_us || self.retry_multiplier_hundredths == 100 {
                break;
            }
        }
        let delay_us = delay_us.min(self.retry_max_us);
        let span_us = delay_us / 100 * u64::from(self.retry_jitter_percent);
        if span_us == 0 {
            return delay_us;
        }
        let mut mixed = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(deliveries).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb);
        delay_us - span_us + (mixed ^ mixed >> 29) % (2 * span_us + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest() {
        let rules = QueueRules { retry_jitter_percent: 0, ..QueueRules::default() };
        let delays: Vec<u64> = (1..=12).map(|deliveries| rules.retry_delay_us(7, deliveries) / 1_000_000).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(QueueRules { retry_initial_us: 0, ..rules }.retry_delay_us(7, 3), 0);
        let flat = QueueRules { retry_multiplier_hundredths: 100, ..rules };
        assert_eq!(flat.retry_delay_us(7, u16::MAX), 1_000_000);
    }

    #[test]
    fn jitter_spreads_within_its_share() {
        let rules = QueueRules::default();
        let delays: Vec<u64> = (0..1000).map(|offset| rules.retry_delay_us(offset, 1)).collect();
        assert!(delays.iter().all(|delay| (900_000..=1_100_000).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < 930_000) && delays.iter().any(|delay| *delay > 1_070_000));
    }
}
