//! When a producer or a consumer wants metadata, and from where: what its core notes and its connections (`links`) take.
//!
//! Invariants: nothing is due while metadata is being got; after a failure there is a wait, longer each time, that a wish does not shorten;
//! and after an answer, too, longer each time that it brought nothing new: a node that goes on saying `not_leader` would else be asked as
//! fast as it answers.
//!
//! Not here: getting it (`router`), whose metadata it is (`cluster`).

use super::{Backoff, Now};

/// See the module.
#[derive(Debug)]
pub(crate) struct MetadataWish {
    /// When it is wanted, if it is.
    at_us: Option<u64>,
    /// It is being got.
    is_asked: bool,
    /// Not before this time, after a failure.
    not_before_us: u64,
    /// A better address, named by a refusal.
    redirect: Option<String>,
    backoff: Backoff,
    /// When the last answer came.
    answered_us: u64,
    /// The wait after the next answer that brings nothing new.
    answered_wait_us: u64,
}

/// The wait after an answer, and after an attempt in which nobody answered: 10 ms, in which a leader that was just chosen gets known; doubled
/// up to 1 s, which bounds what is lost after a long failover.
const WAIT_US_MIN: u64 = 10_000;
const WAIT_US_MAX: u64 = 1_000_000;

impl MetadataWish {
    /// Nothing is wanted yet. `seed`: of the waits between attempts.
    pub(crate) fn seeded(seed: u64) -> MetadataWish {
        MetadataWish {
            at_us: None,
            is_asked: false,
            not_before_us: 0,
            redirect: None,
            backoff: Backoff::between(WAIT_US_MIN, WAIT_US_MAX, seed),
            answered_us: 0,
            answered_wait_us: WAIT_US_MIN,
        }
    }

    /// It is wanted now.
    pub(crate) fn want(&mut self, now: Now) {
        self.at_us = Some(self.at_us.map_or(now.mono_us, |at_us| at_us.min(now.mono_us)));
    }

    /// A refusal named a better address to ask.
    pub(crate) fn redirect_to(&mut self, address: &str) {
        self.redirect = Some(address.to_owned());
    }

    /// The address that a refusal named since the last call.
    pub(crate) fn take_redirect(&mut self) -> Option<String> {
        self.redirect.take()
    }

    /// When it is due, monotonic microseconds; never while it is being got.
    pub(crate) fn next_us(&self) -> u64 {
        match self.at_us {
            Some(at_us) if !self.is_asked => at_us.max(self.not_before_us),
            _ => u64::MAX,
        }
    }

    /// Whether it should be got now.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.next_us() <= now.mono_us
    }

    /// It is being got, of the topics `names`; without one nothing is wanted.
    pub(super) fn on_taken(&mut self, names: &[String]) {
        match names.is_empty() {
            true => self.at_us = None,
            false => self.is_asked = true,
        }
    }

    /// It came. `next_us`: when it is wanted again even if nothing happens.
    pub(crate) fn on_learned(&mut self, next_us: Option<u64>) {
        (self.at_us, self.is_asked, self.not_before_us) = (next_us, false, 0);
        self.backoff.reset();
    }

    /// After [`on_learned`](Self::on_learned): it is not wanted again at once. `brought_news`: some partition has another owner than
    /// before. Answers that lie further apart than the longest wait are of different troubles.
    pub(super) fn on_answered(&mut self, brought_news: bool, now: Now) {
        let since_us = now.mono_us.saturating_sub(std::mem::replace(&mut self.answered_us, now.mono_us));
        if brought_news || since_us > 2 * WAIT_US_MAX {
            self.answered_wait_us = WAIT_US_MIN;
        }
        self.not_before_us = now.mono_us.saturating_add(self.answered_wait_us);
        self.answered_wait_us = (self.answered_wait_us * 2).min(WAIT_US_MAX);
    }

    /// It could not be got: it is tried again after a wait.
    pub(crate) fn on_failed(&mut self, now: Now) {
        self.is_asked = false;
        self.not_before_us = now.mono_us.saturating_add(self.backoff.next_us());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_us: u64) -> Now {
        Now { mono_us, utc_us: 0 }
    }

    #[test]
    fn it_is_asked_for_once_and_again_after_a_wait_that_grows() {
        let mut wish = MetadataWish::seeded(1);
        assert!(!wish.is_due(at(u64::MAX - 1)));
        wish.want(at(100));
        assert_eq!(wish.next_us(), 100);
        let names = ["t".to_owned()];
        wish.on_taken(&names);
        wish.want(at(200));
        assert_eq!(wish.next_us(), u64::MAX, "it is being got");
        let waits: Vec<u64> = (0..20)
            .map(|_| {
                wish.on_failed(at(1_000));
                wish.want(at(1_000));
                wish.next_us() - 1_000
            })
            .collect();
        assert!((5_000..=10_000).contains(&waits[0]) && (500_000..=1_000_000).contains(&waits[19]), "{waits:?}");
        wish.on_learned(Some(5_000));
        assert_eq!(wish.next_us(), 5_000);
        wish.want(at(2_000));
        assert!(wish.is_due(at(2_000)), "the failures are forgotten, and the earlier wish counts");
        wish.on_taken(&[]);
        assert_eq!(wish.next_us(), u64::MAX, "nothing to ask for");
    }

    #[test]
    fn after_an_answer_there_is_a_wait_that_grows_while_nothing_new_comes() {
        let mut wish = MetadataWish::seeded(1);
        let mut waits = |brought_news: bool| {
            wish.on_learned(None);
            wish.on_answered(brought_news, at(1_000));
            wish.want(at(1_000));
            wish.next_us() - 1_000
        };
        let waited: Vec<u64> = [true, false, false, false, false, false, false, false, false, true, false].map(&mut waits).to_vec();
        let expected = [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_000_000, 1_000_000, 10_000, 20_000];
        assert_eq!(waited, expected);
        // The next trouble, long after the last one, begins with a short wait again.
        wish.on_learned(None);
        wish.on_answered(false, at(4_000_000));
        wish.want(at(4_000_000));
        assert_eq!(wish.next_us(), 4_010_000);
    }
}
