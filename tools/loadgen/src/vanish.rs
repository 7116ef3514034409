//! When the server counts as vanished.
//!
//! Rules: a broken connection with nothing good within two seconds after it (a client reconnects in less when there is
//! something to connect to), or no answer at all for `--timeout` while some are due. Time is an argument.

/// How long a broken connection may last. The client tries again every few hundred milliseconds at most.
const BROKEN_NS_MAX: u64 = 2_000_000_000;

/// See the module's page.
pub struct Vanish {
    timeout_ns: u64,
    last_good_ns: u64,
    /// Since when, and how the connection broke.
    broken: Option<(u64, String)>,
}

impl Vanish {
    /// At `now_ns` all is well.
    pub fn new(timeout_ns: u64, now_ns: u64) -> Vanish {
        Vanish { timeout_ns, last_good_ns: now_ns, broken: None }
    }

    /// A good answer came, or none was due.
    pub fn good(&mut self, now_ns: u64) {
        self.last_good_ns = now_ns;
        self.broken = None;
    }

    /// The connection broke.
    pub fn broken(&mut self, now_ns: u64, reason: &str) {
        if self.broken.is_none() {
            self.broken = Some((now_ns, reason.to_owned()));
        }
    }

    /// The reason to end the run, if there is one.
    pub fn check(&self, now_ns: u64) -> Option<String> {
        if let Some((since, reason)) = &self.broken
            && now_ns.saturating_sub(*since) >= BROKEN_NS_MAX.min(self.timeout_ns)
        {
            return Some(format!("the server vanished: {reason}"));
        }
        (now_ns.saturating_sub(self.last_good_ns) >= self.timeout_ns)
            .then(|| format!("the server vanished: no answer for {:.1} s (--timeout)", self.timeout_ns as f64 / 1e9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn silence_ends_the_run_after_the_timeout() {
        let mut vanish = Vanish::new(10 * SECOND, 0);
        assert_eq!(vanish.check(10 * SECOND - 1), None);
        assert!(vanish.check(10 * SECOND).unwrap().contains("no answer for 10.0 s"));
        vanish.good(5 * SECOND);
        assert_eq!(vanish.check(10 * SECOND), None);
    }

    #[test]
    fn a_broken_connection_ends_it_sooner_unless_an_answer_comes() {
        let mut vanish = Vanish::new(10 * SECOND, 0);
        vanish.broken(SECOND, "refused");
        vanish.broken(2 * SECOND, "later");
        assert_eq!(vanish.check(3 * SECOND - 1), None);
        assert!(vanish.check(3 * SECOND).unwrap().contains("refused"));
        vanish.good(3 * SECOND);
        assert_eq!(vanish.check(4 * SECOND), None);
    }
}
