//! The verdict on a run: exit code, alarms, and who was the bottleneck.
//!
//! Rules: failures come before a missed rate; the rate is missed below 99 % of the asked one, on the writing side or at a reader; more
//! than 1 % of the records sent late by the generator's own fault are a miss too, since latencies are then partly its own.
//! Not here: numbers (`report.rs`), what lateness is (`lateness.rs`).

use crate::check::Found;
use crate::lateness::Lates;
use crate::report::{Kept, Outcome};
use crate::schedule::{kept_rate, per_second, rate_is_held};
use crate::stats::Side;
use crate::units::format_duration;
use std::time::Duration;

/// Exit code when something failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code when the asked rate was not reached, or the generator was late.
pub const EXIT_RATE: u8 = 3;

/// Largest share of the records that may be late by the generator's own fault.
const LATE_SHARE_MAX: f64 = 0.01;

impl Outcome {
    /// The achieved rate when it is too low; where there are readers, the slowest's too: each gets all records, and a mean would hide one
    /// that stands still. Either measure will do: throughput is wrong by a record or two in a short run at a low rate, the rate kept up
    /// with is wrong when answers take long but come steadily.
    pub fn rate_missed(&self) -> Option<f64> {
        let lowest = self.lowest_rate(0);
        (!rate_is_held(lowest, self.due_rate()?)).then_some(lowest)
    }

    /// The lowest rate of writers and readers, had `more` records of the measured part completed at once.
    fn lowest_rate(&self, more: u64) -> f64 {
        let written = self.written().map(Kept::of);
        written.iter().chain(&self.readers).map(|kept| self.achieved(kept.with(more))).fold(f64::INFINITY, f64::min)
    }

    /// Whether the rate was missed only because records were refused: then their failure is told, and nobody was too slow. What failed
    /// for want of time does not count, since that may be slowness.
    fn failures_explain(&self) -> bool {
        let refused = self.written().map_or(0, |side| side.measured_refused);
        refused > 0 && self.due_rate().is_some_and(|due| rate_is_held(self.lowest_rate(refused), due))
    }

    /// The asked rate; where arrivals are random, what became due in the measured part, since a few hundred records of a Poisson process
    /// are by chance some per cent more or less than asked.
    fn due_rate(&self) -> Option<f64> {
        let drawn = self.lates.as_ref().filter(|lates| self.random_arrivals && lates.records > 0);
        let drawn = drawn.map(|lates| per_second(lates.records, self.window.length_ns()));
        self.asked_rate.map(|asked| drawn.unwrap_or(asked as f64))
    }

    /// Of the records, or of the connections.
    fn written_rate(&self) -> Option<f64> {
        self.written().map(|side| self.achieved(Kept::of(side)))
    }

    fn written(&self) -> Option<&Side> {
        self.produce.as_ref().or(self.connect.as_ref())
    }

    fn achieved(&self, kept: Kept) -> f64 {
        self.rate_of(kept.done_records).max(kept_rate(kept.measured_records, self.window, kept.last_done_ns))
    }

    /// Whether too many records were sent late by the generator's own fault.
    fn sent_late(&self) -> Option<&Lates> {
        self.lates.as_ref().filter(|lates| lates.own_share() > LATE_SHARE_MAX)
    }

    /// Who kept the run from its rate, as the end of a sentence.
    fn bottleneck(&self) -> String {
        let due = self.due_rate().unwrap_or_default();
        let lates = self.lates.as_ref();
        let share = |share: f64| format!("{:.1} % of the records", share * 100.0);
        match lates {
            Some(lates) if self.connect.is_some() && lates.blocked > lates.own => format!(
                "the bottleneck was the SERVER, or too few --threads: {} waited for a thread whose connection had no answer yet",
                share(lates.blocked_share())
            ),
            _ if self.written_rate().is_some_and(|rate| rate_is_held(rate, due)) => {
                "the bottleneck was the reading side, since all records were written in time".to_owned()
            }
            Some(lates) if lates.own_share() > LATE_SHARE_MAX && lates.own >= lates.blocked => {
                format!("the bottleneck was the LOAD GENERATOR, by whose own fault {} were late", share(lates.own_share()))
            }
            Some(lates) if lates.blocked > 0 => {
                format!("the bottleneck was the SERVER, which did not take {} in time", share(lates.blocked_share()))
            }
            _ => "the bottleneck was the SERVER: records were sent in time and answered late".to_owned(),
        }
    }

    /// What all checks found together.
    fn all_found(&self) -> Option<Found> {
        let replayed = self.replay.as_ref().map(|replay| replay.found);
        [self.found, replayed].into_iter().flatten().reduce(std::ops::Add::add)
    }

    /// The exit code: who ended it, then failures, then a missed rate.
    pub fn exit_code(&self) -> u8 {
        if let Some(signal) = self.signal {
            return signal.exit_code();
        }
        let failed = self.sides().any(|side| side.failed > 0);
        let bad = self.all_found().is_some_and(|found| !found.good());
        if self.vanished.is_some() || self.log_error.is_some() || self.unverified.is_some() || failed || bad {
            EXIT_FAILED
        } else if self.rate_missed().is_some() || self.sent_late().is_some() {
            EXIT_RATE
        } else {
            0
        }
    }

    /// Sentences that must not be overlooked, the worst first.
    pub fn alarms(&self) -> Vec<String> {
        let mut alarms = Vec::new();
        if let Some(reason) = &self.vanished {
            alarms.push(format!("THE RUN ENDED EARLY: {reason}; what follows was measured until then"));
        }
        if let Some(found) = self.all_found().filter(|found| !found.good()) {
            alarms.push(format!(
                "RECORDS ARE NOT WHAT WAS WRITTEN: {} lost, {} duplicated, {} reordered, {} changed",
                found.lost, found.duplicates, found.reordered, found.changed
            ));
        }
        let replay = self.replay.as_ref().map(|replay| &replay.side);
        for (side, what) in [
            (self.produce.as_ref(), "RECORDS OR REQUESTS COULD NOT BE WRITTEN"),
            (self.consume.as_ref(), "RECORDS OR REQUESTS COULD NOT BE READ"),
            (replay, "REQUESTS OF COLD READERS FAILED"),
            (self.connect.as_ref(), "CONNECTIONS FAILED"),
        ] {
            if let Some(side) = side.filter(|side| side.failed > 0) {
                alarms.push(format!("{} {what}", side.failed));
            }
        }
        if self.left > 0 {
            alarms.push(format!("THE END WAS NOT REACHED: {} records before it were not read (--until-end); raise --duration", self.left));
        }
        if let Some(cause) = &self.unverified {
            alarms.push(format!("WHAT WAS WRITTEN COULD NOT BE READ BACK: {cause}"));
        }
        if let Some(cause) = &self.log_error {
            alarms.push(format!("THE INTERVAL LOG IS NOT COMPLETE: {cause}"));
        }
        let missed = self.rate_missed().filter(|_| self.vanished.is_none() && !self.failures_explain());
        if let (Some(rate), Some(asked)) = (missed, self.asked_rate) {
            alarms.push(format!(
                "THE RATE WAS NOT REACHED: {rate:.0} of {asked} {}/s ({:.1} %, {} records due were never sent); {}; the latencies below are those of an overload, lower --rate to measure this server",
                if self.connect.is_some() { "connections" } else { "records" },
                rate * 100.0 / asked as f64,
                self.unsent,
                self.bottleneck()
            ));
        }
        if let (Some(lates), None) = (self.sent_late(), &self.vanished) {
            alarms.push(format!(
                "{} LATE: {:.1} % of them by more than {} and by the LOAD GENERATOR's own fault (allowed is {:.0} %): its latencies are partly its own; give it free cores, --busy-poll or more --threads",
                if self.connect.is_some() { "CONNECTIONS WERE BEGUN" } else { "RECORDS WERE SENT" },
                lates.own_share() * 100.0,
                format_duration(Duration::from_nanos(lates.late_max_ns())),
                LATE_SHARE_MAX * 100.0
            ));
        }
        alarms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lateness::Late;
    use crate::schedule::SECOND_NS;
    use crate::tests::{outcome, side};

    #[test]
    fn a_missed_rate_is_exit_code_three_and_loud() {
        let mut outcome = outcome(Some(100), Some(side(989, 1000)), None);
        outcome.unsent = 11;
        assert_eq!(outcome.exit_code(), EXIT_RATE);
        assert!(outcome.text().lines().nth(1).unwrap().starts_with("!!! THE RATE WAS NOT REACHED: 99 of 100"), "{}", outcome.text());
        assert_eq!(outcome.json()["rate_held"], false);
        outcome.produce = Some(side(990, 1000));
        assert_eq!(outcome.exit_code(), 0);
    }

    #[test]
    fn an_overload_shows_its_throughput_although_no_record_of_the_window_was_sent() {
        let mut side = Side::new();
        (side.done_records, side.done_bytes) = (500, 500_000);
        let outcome = outcome(Some(100), Some(side), None);
        assert_eq!(outcome.exit_code(), EXIT_RATE);
        assert!(outcome.text().contains("THE RATE WAS NOT REACHED: 50 of 100"), "{}", outcome.text());
        assert_eq!(outcome.json()["produce"]["records_per_s"], 50.0);
    }

    fn lates(late: Late, late_records: u64, good_records: u64) -> Option<Lates> {
        let mut lates = Lates::new(1_000_000);
        (0..late_records).for_each(|_| lates.take(late));
        (0..good_records).for_each(|_| lates.take(Late { all_ns: 900_000, own_ns: 900_000 }));
        Some(lates)
    }

    #[test]
    fn a_generator_that_sends_late_is_exit_code_three_although_the_rate_is_held() {
        let mut outcome = outcome(Some(100), Some(side(1000, 1000)), None);
        outcome.lates = lates(Late { all_ns: 5_000_000, own_ns: 5_000_000 }, 11, 989);
        assert_eq!(outcome.exit_code(), EXIT_RATE);
        let text = outcome.text();
        assert!(text.contains("!!! RECORDS WERE SENT LATE: 1.1 %") && text.contains("LOAD GENERATOR") && text.contains("1ms"), "{text}");
        assert!(text.contains("lateness  sent p50 9"), "{text}");
        assert_eq!(outcome.json()["lateness"]["late_by_generator"], 11);
        outcome.lates = lates(Late { all_ns: 5_000_000, own_ns: 5_000_000 }, 10, 990);
        assert_eq!((outcome.exit_code(), outcome.alarms().len()), (0, 0), "one in a hundred is allowed");
        outcome.lates = lates(Late { all_ns: 5_000_000, own_ns: 0 }, 500, 500);
        assert_eq!(outcome.exit_code(), 0, "what waits for the server is in the latency and is no fault of the generator");
    }

    #[test]
    fn a_missed_rate_names_the_bottleneck() {
        let told = |lates, produced, consumed: Option<u64>| {
            let mut outcome = outcome(Some(100), Some(side(produced, 1)), consumed.map(|records| side(records, 1)));
            outcome.lates = lates;
            outcome.alarms()[0].clone()
        };
        let (own, blocked) = (Late { all_ns: 9_000_000, own_ns: 9_000_000 }, Late { all_ns: 9_000_000, own_ns: 0 });
        for (lates, produced, consumed, part) in [
            (lates(own, 400, 100), 500, None, "the bottleneck was the LOAD GENERATOR, by whose own fault 80.0 % of the records were late"),
            (lates(blocked, 400, 100), 500, None, "the bottleneck was the SERVER, which did not take 80.0 % of the records in time"),
            (lates(own, 0, 500), 500, None, "the bottleneck was the SERVER: records were sent in time and answered late"),
            (lates(own, 0, 1000), 1000, Some(500), "the bottleneck was the reading side"),
        ] {
            let sentence = told(lates, produced, consumed);
            assert!(sentence.starts_with("THE RATE WAS NOT REACHED: 50 of 100") && sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn a_rate_that_failures_explain_has_no_bottleneck() {
        let of = |written: u64, measured_refused: u64, read: Option<u64>| {
            let mut outcome = outcome(Some(100), Some(side(written, 1)), read.map(|records| side(records, 1)));
            let side = outcome.produce.as_mut().unwrap();
            // Warm-up included there are more.
            (side.failed, side.measured_refused) = (measured_refused + 100, measured_refused);
            (outcome.exit_code(), outcome.alarms().join("; "))
        };
        for (written, refused, read) in [(0, 1000, None), (500, 500, None), (500, 500, Some(500))] {
            let (code, told) = of(written, refused, read);
            assert!(code == EXIT_FAILED && told.contains("COULD NOT BE WRITTEN") && !told.contains("RATE"), "{told}");
        }
        for (written, refused, read) in [(500, 0, None), (500, 1, None), (500, 400, None), (999, 1, Some(500))] {
            let (code, told) = of(written, refused, read);
            assert!(code == EXIT_FAILED && told.contains("THE RATE WAS NOT REACHED"), "{told}");
        }
    }

    #[test]
    fn random_arrivals_are_held_against_what_became_due() {
        let mut outcome = outcome(Some(100), Some(side(950, 1)), None);
        outcome.lates = lates(Late { all_ns: 0, own_ns: 0 }, 950, 0);
        assert_eq!(outcome.exit_code(), EXIT_RATE, "of a constant rate 1,000 would have been due");
        outcome.random_arrivals = true;
        assert_eq!(outcome.exit_code(), 0);
        outcome.produce = Some(side(900, 1));
        assert_eq!(outcome.exit_code(), EXIT_RATE);
    }

    #[test]
    fn each_of_several_readers_has_to_keep_the_rate() {
        let mut outcome = outcome(Some(100), Some(side(1000, 1)), Some(side(4000, 1)));
        outcome.readers = vec![Kept::of(&side(1000, 1)); 4];
        assert_eq!(outcome.exit_code(), 0);
        outcome.readers[2] = Kept::of(&side(400, 1));
        assert_eq!(outcome.exit_code(), EXIT_RATE);
        assert!(outcome.alarms()[0].contains("40 of 100"), "the slowest counts, not the mean of 85: {:?}", outcome.alarms());
        assert_eq!(outcome.json()["consume"]["records_per_s_of_readers"][2], 40.0);
    }

    #[test]
    fn answers_that_take_long_and_come_steadily_are_no_missed_rate() {
        let mut slow = side(1000, 1_000_000_000);
        slow.last_done_ns = 12 * SECOND_NS;
        assert_eq!(outcome(Some(100), Some(slow), None).exit_code(), 0);
    }

    #[test]
    fn a_slow_reader_misses_the_rate_too() {
        assert_eq!(outcome(Some(100), Some(side(1000, 1)), Some(side(900, 1))).exit_code(), EXIT_RATE);
    }

    #[test]
    fn failures_outrank_a_missed_rate() {
        let mut failed = outcome(Some(100), Some(side(10, 1000)), None);
        failed.produce.as_mut().unwrap().failed = 1;
        assert_eq!(failed.exit_code(), EXIT_FAILED);
        let mut vanished = outcome(None, Some(side(10, 1000)), None);
        vanished.vanished = Some("no answer for 2 s".to_owned());
        assert_eq!(vanished.exit_code(), EXIT_FAILED);
        assert!(vanished.text().contains("ENDED EARLY: no answer for 2 s"));
        let mut lost = outcome(None, Some(side(10, 1000)), Some(side(10, 1000)));
        lost.found = Some(Found { received: 10, lost: 1, ..Found::default() });
        assert_eq!(lost.exit_code(), EXIT_FAILED);
        assert!(lost.text().contains("1 lost"));
    }

    #[test]
    fn an_end_that_was_not_reached_is_loud_and_no_failure() {
        let mut outcome = outcome(None, None, Some(side(10, 1000)));
        outcome.left = 7;
        assert_eq!(outcome.exit_code(), 0);
        assert!(outcome.text().contains("!!! THE END WAS NOT REACHED: 7 records"), "{}", outcome.text());
        assert_eq!(outcome.json()["left"], 7);
    }

    #[test]
    fn what_could_not_be_read_back_is_a_failure() {
        let mut outcome = outcome(None, Some(side(10, 1000)), None);
        outcome.unverified = Some("the disk is gone".to_owned());
        assert_eq!(outcome.exit_code(), EXIT_FAILED);
        assert!(outcome.text().contains("!!! WHAT WAS WRITTEN COULD NOT BE READ BACK: the disk is gone"));
    }
}
