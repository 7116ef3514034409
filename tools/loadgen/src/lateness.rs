//! How late records are sent, and whose fault it is: the server's, which did not take more, or the load generator's own.
//!
//! A writer that finds the client's buffer full is *blocked*: the server has to answer before it may go on. A block begins with the
//! refusal and ends with the next record that is taken. What was due meanwhile is sent behind it as fast as can be, and is late because
//! of the block too; so a block, the sending of its backlog, and further blocks until the backlog is gone are one *episode*:
//!
//! ```text
//!  intended  1 2 3 4 5 6 7 8 9 ...
//!  blocked       [=====)                     taken again: 3 4 5 6 7 follow
//!  episode       [=============)             until nothing is due any more: 8 is in time
//! ```
//! A record of an episode is the server's, except for what it was late already when the episode began. But a generator that needs
//! longer for the backlog than the blocks took (less than twice as fast as its rate) is slow itself: from then on only the blocked time is
//! the server's.
//! Invariants: own lateness is never above the whole; without a block all of it is the generator's own. Times are arguments.
//! Not here: latency, which counts lateness in either way.

use crate::stats::{histogram, record};
use hdrhistogram::Histogram;

/// The lateness of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Sent minus intended.
    pub all_ns: u64,
    /// What of it is the load generator's own fault.
    pub own_ns: u64,
}

/// Of one writer.
#[derive(Debug, Default)]
pub struct Lateness {
    episode: Option<Episode>,
}

#[derive(Debug)]
struct Episode {
    from_ns: u64,
    /// Sum of the blocks that ended.
    blocked_ns: u64,
    /// Since when the present block lasts.
    blocked_from_ns: Option<u64>,
}

impl Lateness {
    /// The client took no record at `now_ns`.
    pub fn block(&mut self, now_ns: u64) {
        let episode = self.episode.get_or_insert(Episode { from_ns: now_ns, blocked_ns: 0, blocked_from_ns: None });
        episode.blocked_from_ns.get_or_insert(now_ns);
    }

    /// Nothing is due any more: the episode, if there was one, is over.
    pub fn catch_up(&mut self) {
        if self.episode.as_ref().is_some_and(|episode| episode.blocked_from_ns.is_none()) {
            self.episode = None;
        }
    }

    /// The client took a record at `now_ns`.
    #[inline]
    pub fn send(&mut self, intended_ns: u64, now_ns: u64) -> Late {
        let all_ns = now_ns.saturating_sub(intended_ns);
        let Some(episode) = &mut self.episode else { return Late { all_ns, own_ns: all_ns } };
        if let Some(from_ns) = episode.blocked_from_ns.take() {
            episode.blocked_ns += now_ns.saturating_sub(from_ns);
        }
        Late { all_ns, own_ns: episode.own_ns(intended_ns, now_ns).min(all_ns) }
    }

    /// What of the lateness of a record that is still not sent at `now_ns` is the generator's own.
    pub fn unsent(&self, intended_ns: u64, now_ns: u64) -> Late {
        let all_ns = now_ns.saturating_sub(intended_ns);
        let own_ns = self.episode.as_ref().map_or(all_ns, |episode| episode.own_ns(intended_ns, now_ns).min(all_ns));
        Late { all_ns, own_ns }
    }
}

impl Episode {
    fn own_ns(&self, intended_ns: u64, now_ns: u64) -> u64 {
        let blocked_ns = self.blocked_ns + self.blocked_from_ns.map_or(0, |from_ns| now_ns.saturating_sub(from_ns));
        let free_ns = now_ns.saturating_sub(self.from_ns).saturating_sub(blocked_ns);
        if free_ns > blocked_ns {
            now_ns.saturating_sub(intended_ns).saturating_sub(blocked_ns)
        } else {
            self.from_ns.saturating_sub(intended_ns)
        }
    }
}

/// The lateness of many records.
pub struct Lates {
    /// Own lateness above this counts as the generator's fault.
    late_max_ns: u64,
    /// Sent minus intended, of the measured records that were sent.
    pub sent: Histogram<u64>,
    /// Measured records that were sent or should have been.
    pub records: u64,
    /// Of them: later than the limit by the generator's own fault.
    pub own: u64,
    /// Of them: later than the limit, and not by the generator's own fault.
    pub blocked: u64,
}

impl Lates {
    /// Nothing yet.
    pub fn new(late_max_ns: u64) -> Lates {
        Lates { late_max_ns, sent: histogram(), records: 0, own: 0, blocked: 0 }
    }

    /// Counts a record that was sent.
    #[inline]
    pub fn take(&mut self, late: Late) {
        record(&mut self.sent, late.all_ns);
        self.count(late, 1);
    }

    /// Counts records that were due and never sent, the oldest of which is so late.
    pub fn take_unsent(&mut self, late: Late, records: u64) {
        self.count(late, records);
    }

    fn count(&mut self, late: Late, records: u64) {
        self.records += records;
        if late.own_ns > self.late_max_ns {
            self.own += records;
        } else if late.all_ns > self.late_max_ns {
            self.blocked += records;
        }
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Lates) {
        self.sent.add(&other.sent).expect("all histograms have one shape");
        self.records += other.records;
        self.own += other.own;
        self.blocked += other.blocked;
    }

    /// The limit.
    pub fn late_max_ns(&self) -> u64 {
        self.late_max_ns
    }

    /// Share of the records that were late by the generator's own fault.
    pub fn own_share(&self) -> f64 {
        if self.records == 0 { 0.0 } else { self.own as f64 / self.records as f64 }
    }

    /// Share of the records that were late because the server took no more.
    pub fn blocked_share(&self) -> f64 {
        if self.records == 0 { 0.0 } else { self.blocked as f64 / self.records as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(lateness: &mut Lateness, intended_ns: u64, now_ns: u64) -> u64 {
        let late = lateness.send(intended_ns, now_ns);
        assert_eq!(late.all_ns, now_ns - intended_ns);
        late.own_ns
    }

    #[test]
    fn without_a_block_all_lateness_is_the_generators() {
        let mut lateness = Lateness::default();
        assert_eq!(own(&mut lateness, 100, 100), 0);
        assert_eq!(own(&mut lateness, 100, 350), 250);
        assert_eq!(lateness.send(500, 400), Late { all_ns: 0, own_ns: 0 }, "nothing is sent too early; a clock that says so is not late");
    }

    #[test]
    fn a_block_and_its_backlog_are_the_servers() {
        let mut lateness = Lateness::default();
        lateness.block(1_000);
        lateness.block(1_400); // asked again and refused again
        assert_eq!(own(&mut lateness, 1_000, 2_000), 0);
        assert_eq!(own(&mut lateness, 1_100, 2_100), 0, "the backlog is sent as fast as can be");
        assert_eq!(own(&mut lateness, 990, 2_100), 10, "this one was late already when the block began");
        lateness.catch_up();
        assert_eq!(own(&mut lateness, 2_200, 2_500), 300, "the episode is over");
    }

    #[test]
    fn a_block_that_lasts_is_not_over_because_nothing_is_due() {
        let mut lateness = Lateness::default();
        lateness.block(1_000);
        lateness.catch_up();
        assert_eq!(own(&mut lateness, 1_000, 9_000), 0);
    }

    #[test]
    fn many_short_blocks_are_one_episode() {
        let mut lateness = Lateness::default();
        let mut now = 0;
        for _ in 0..100 {
            lateness.block(now);
            now += 90; // blocked
            assert_eq!(own(&mut lateness, now / 2, now), 0, "{now}");
            now += 10; // sending
        }
    }

    #[test]
    fn a_generator_that_does_not_catch_up_is_slow_itself() {
        let mut lateness = Lateness::default();
        lateness.block(0);
        assert_eq!(own(&mut lateness, 0, 1_000), 0);
        assert_eq!(own(&mut lateness, 500, 2_000), 0, "as long as the block took it may send the backlog");
        assert_eq!(own(&mut lateness, 600, 2_001), 401, "then only the blocked time is the server's");
        assert_eq!(own(&mut lateness, 1_500, 9_000), 6_500);
    }

    #[test]
    fn records_that_were_never_sent_are_somebodys_too() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.unsent(100, 900), Late { all_ns: 800, own_ns: 800 });
        lateness.block(150);
        assert_eq!(lateness.unsent(100, 900), Late { all_ns: 800, own_ns: 50 });
    }

    #[test]
    fn shares_are_of_all_records_and_counted_above_the_limit() {
        let mut lates = Lates::new(1_000);
        for own_ns in [0, 1_000, 1_001, 5_000] {
            lates.take(Late { all_ns: 5_000, own_ns });
        }
        lates.take(Late { all_ns: 900, own_ns: 900 });
        let mut sum = Lates::new(1_000);
        sum.take_unsent(Late { all_ns: 9_000, own_ns: 0 }, 5);
        sum.merge(&lates);
        assert_eq!((sum.records, sum.own, sum.blocked, sum.sent.len()), (10, 2, 7, 5));
        assert_eq!((sum.own_share(), sum.blocked_share()), (0.2, 0.7));
        assert_eq!(Lates::new(1).own_share(), 0.0);
    }
}
