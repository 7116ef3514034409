//! One message of one queue: the leases that consumers were told of, what they did with them, and what follows.
//!
//! A *token* is a lease as its holder knows it. What a holder asked for is an *end* of it: open until it is answered, or for good when the answer is lost.
//! A lease certainly holds from when it was told until `holds_until_us`: it was given after it was asked for, and the node's clock is off by a known bound.
//!
//! Not here: what a queue's settings and other requests mean for it (`queue_truth.rs`).

use super::Check;

/// Clocks are off by a thousandth at most; so much is taken off and added, in thousandths.
const DRIFT: u64 = 2;

/// What a holder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Ack,
    /// The next delivery not before `due_utc_us` by the node's clock.
    Nack {
        due_utc_us: i64,
    },
    Extend {
        ms: u32,
    },
    Release,
    Reject,
    /// An ack that is part of the step of this number.
    Step(usize),
}

impl Action {
    /// Whether the message is settled by it.
    pub(super) fn settles(self) -> bool {
        matches!(self, Action::Ack | Action::Step(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Open,
    /// Carried out; known since then.
    Done(u64),
    /// Certainly not carried out, and never will be.
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) action: Action,
    pub(super) sent_us: u64,
    pub(super) life: u64,
    pub(super) answer: Answer,
}

impl End {
    /// Whether the lease is over by it.
    pub(super) fn ends(&self) -> bool {
        !matches!(self.action, Action::Extend { .. })
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) lease: u64,
    pub(super) deliveries: u32,
    pub(super) consumer: usize,
    pub(super) asked_us: u64,
    pub(super) got_us: u64,
    /// How long it lasts, at least.
    pub(super) lease_us: u64,
    /// And at most, where the queue's settings were being changed.
    pub(super) lease_us_max: u64,
    /// Number of the process that gave it.
    pub(super) life: u64,
    pub(super) ends: Vec<End>,
    /// Since then it was told that the message is not the holder's any more.
    pub(super) void_us: Option<u64>,
}

impl Token {
    /// Until then the lease certainly holds, if nothing ended it.
    pub(super) fn holds_until_us(&self) -> u64 {
        let mut until_us = self.asked_us + shorter(self.lease_us);
        let mut any_open = false;
        for end in &self.ends {
            let Action::Extend { ms } = end.action else { continue };
            let extended_us = end.sent_us + shorter(u64::from(ms) * 1000);
            match end.answer {
                // Whether, and when, is not known: a shorter one may have been the last.
                Answer::Open => (until_us, any_open) = (until_us.min(extended_us), true),
                Answer::Done(_) => until_us = if any_open { until_us.min(extended_us) } else { extended_us },
                Answer::Never => {}
            }
        }
        until_us
    }

    /// From then on the lease is certainly over, as long as the process lives that gave it.
    fn over_by_us(&self) -> u64 {
        self.ends.iter().fold(self.got_us + longer(self.lease_us_max), |until_us, end| match (end.action, end.answer) {
            (Action::Extend { .. }, Answer::Open) => u64::MAX,
            (Action::Extend { ms }, Answer::Done(known_us)) => until_us.max(known_us + longer(u64::from(ms) * 1000)),
            _ => until_us,
        })
    }

    /// Something that ends it and may have been, or was, carried out.
    pub(super) fn may_be_ended(&self) -> bool {
        self.ends.iter().any(|end| end.ends() && end.answer != Answer::Never)
    }

    /// Whether it certainly holds.
    pub(super) fn is_held(&self, now_us: u64) -> bool {
        self.void_us.is_none() && !self.may_be_ended() && now_us < self.holds_until_us()
    }
}

fn shorter(us: u64) -> u64 {
    us - us * DRIFT / 1000
}

fn longer(us: u64) -> u64 {
    us + us * DRIFT / 1000 + 1000
}

/// A message in a queue.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// In order of lease.
    pub(super) tokens: Vec<Token>,
    /// When it was known to be settled: no delivery may be asked for after that.
    pub(super) settled_us: Option<u64>,
    /// Requests to delete it, but for those that are known to have found nothing.
    pub(super) deletes: u32,
    /// Its letter was seen in the dead-letter topic.
    pub(super) letter_us: Option<u64>,
    /// A later message of its group was delivered while this one was there: under which lease, and when that was asked for.
    pub(super) overtaken: Option<(u64, u64)>,
}

impl Message {
    pub(super) fn token_mut(&mut self, lease: u64) -> Option<&mut Token> {
        self.tokens.iter_mut().find(|token| token.lease == lease)
    }

    pub(super) fn token(&self, lease: u64) -> Option<&Token> {
        self.tokens.iter().find(|token| token.lease == lease)
    }

    /// The lease that certainly holds now.
    pub(super) fn held(&self, now_us: u64) -> Option<&Token> {
        self.tokens.last().filter(|token| token.is_held(now_us))
    }

    /// Whether an ack may have settled it, as far as its tokens tell. One of a lease behind which another was given has not.
    pub(super) fn may_be_acked(&self) -> bool {
        self.tokens.last().is_some_and(|token| token.ends.iter().any(|end| end.action.settles() && end.answer != Answer::Never))
    }

    /// Whether somebody may have deleted it.
    pub(super) fn may_be_deleted(&self) -> bool {
        self.deletes > 0
    }

    /// The ack that was certainly taken.
    pub(super) fn acked(&self) -> Option<&End> {
        let mut ends = self.tokens.iter().flat_map(|token| &token.ends);
        ends.find(|end| end.action.settles() && matches!(end.answer, Answer::Done(_)))
    }

    /// A lease is told of. `is_revived`: a redrive may have made it new since the lease before. Answers which steps are certainly not carried out: their
    /// acks are of an earlier lease.
    pub(super) fn on_delivered(
        &mut self,
        token: Token,
        is_revived: bool,
        utc_max_since: impl Fn(u64) -> i64,
    ) -> Result<Vec<usize>, String> {
        let (lease, now_us) = (token.lease, token.got_us);
        let at = self.tokens.partition_point(|known| known.lease < lease);
        if self.tokens.get(at).is_some_and(|known| known.lease == lease) {
            return Err(format!("lease {lease} is given twice: {:?} and {token:?}", self.tokens[at]));
        }
        if let Some(settled_us) = self.settled_us.filter(|settled_us| *settled_us <= token.asked_us) {
            return Err(format!("it was settled, known at {settled_us}, and is delivered again: {token:?}, before: {:?}", self.tokens));
        }
        for known in &self.tokens[..at] {
            check_pair(known, &token, is_revived, &utc_max_since)?;
            if known.is_held(now_us) {
                return Err(format!("two hold it at once: {known:?} and {token:?}"));
            }
        }
        for known in &self.tokens[at..] {
            // The later lease was told first: this one had to be over when it was given.
            if token.holds_until_us() > known.got_us {
                return Err(format!("two held it at once: {token:?} and {known:?}"));
            }
            if known.deliveries <= token.deliveries && !is_revived {
                return Err(format!("its deliveries do not grow: {token:?}, then {known:?}"));
            }
        }
        self.tokens.insert(at, token);
        let mut never = Vec::new();
        for end in self.tokens[..at].iter_mut().flat_map(|token| &mut token.ends).filter(|end| end.action.settles()) {
            end.answer = Answer::Never;
            if let Action::Step(number) = end.action {
                never.push(number);
            }
        }
        Ok(never)
    }

    /// An end of the lease `lease` was carried out, which was asked for as the `number`th.
    pub(super) fn on_ended(&mut self, lease: u64, number: usize, now_us: u64) -> Check {
        let at = self.tokens.iter().position(|token| token.lease == lease).expect("asked for before");
        let token = &self.tokens[at];
        let end = token.ends[number];
        if end.answer == Answer::Never {
            return Err(format!("the {number}th end of {token:?} could not be carried out any more, and was"));
        }
        let settled_before = self.settled_us.filter(|settled_us| *settled_us <= end.sent_us);
        let is_over = end.life == token.life && end.sent_us > token.over_by_us();
        let is_void = token.void_us.is_some_and(|void_us| void_us <= end.sent_us);
        let later = self.tokens[at + 1..].iter().find(|later| later.got_us <= end.sent_us || end.action.settles());
        let other = token.ends.iter().enumerate().find(|(other, of)| {
            let was_before = matches!(of.answer, Answer::Done(known_us) if known_us <= end.sent_us);
            *other != number && of.ends() && matches!(of.answer, Answer::Done(_)) && (was_before || end.ends())
        });
        if settled_before.is_some() || is_over || is_void || later.is_some() || other.is_some() {
            return Err(format!(
                "{end:?} is taken under {token:?} (over: {is_over}, told that it is void: {is_void}, settled at {settled_before:?}, later lease: {later:?}, other end: {other:?})"
            ));
        }
        self.tokens[at].ends[number].answer = Answer::Done(now_us);
        if end.action.settles() {
            self.settled_us.get_or_insert(now_us);
        }
        Ok(())
    }
}

/// What holds between a lease and a later one of the same message.
fn check_pair(token: &Token, later: &Token, is_revived: bool, utc_max_since: &impl Fn(u64) -> i64) -> Check {
    let is_done = |end: &&End| matches!(end.answer, Answer::Done(_));
    if let Some(end) = token.ends.iter().filter(is_done).find(|end| end.action.settles()) {
        return Err(format!("it was acked ({end:?} of {token:?}) and is delivered again: {later:?}"));
    }
    if is_revived {
        return Ok(());
    }
    let is_released = token.ends.iter().any(|end| end.action == Action::Release && end.answer != Answer::Never);
    if later.deliveries < token.deliveries + u32::from(!is_released) {
        return Err(format!("its deliveries go back: {token:?}, then {later:?}"));
    }
    if token.ends.iter().filter(is_done).any(|end| end.action == Action::Reject) {
        return Err(format!("it was rejected under {token:?} and is delivered again: {later:?}"));
    }
    for end in token.ends.iter().filter(is_done) {
        let Action::Nack { due_utc_us } = end.action else { continue };
        let clock_us = utc_max_since(end.sent_us);
        if clock_us < due_utc_us {
            return Err(format!("it was to wait until {due_utc_us} ({end:?} of {token:?}) and is delivered at {clock_us}: {later:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(lease: u64, deliveries: u32, asked_us: u64) -> Token {
        let (ends, void_us) = (Vec::new(), None);
        let (lease_us, lease_us_max) = (1_000_000, 1_000_000);
        Token { lease, deliveries, consumer: 0, asked_us, got_us: asked_us + 100, lease_us, lease_us_max, life: 1, ends, void_us }
    }

    fn give(message: &mut Message, token: Token) -> Check {
        message.on_delivered(token, false, |_| i64::MAX).map(drop)
    }

    /// Asks for an end; answers its number.
    fn ask(message: &mut Message, lease: u64, action: Action, sent_us: u64) -> usize {
        let ends = &mut message.token_mut(lease).unwrap().ends;
        ends.push(End { action, sent_us, life: 1, answer: Answer::Open });
        ends.len() - 1
    }

    #[test]
    fn an_ack_is_the_end_and_a_late_one_is_refused() {
        let mut message = Message::default();
        assert_eq!(give(&mut message, token(1, 1, 0)), Ok(()));
        assert!(give(&mut message, token(2, 2, 500_000)).is_err(), "the first one holds");
        assert_eq!(give(&mut message, token(2, 2, 1_100_000)), Ok(()));
        assert!(give(&mut message, token(2, 3, 3_000_000)).is_err(), "the same lease again");
        let late = ask(&mut message, 1, Action::Ack, 1_200_000);
        assert!(message.on_ended(1, late, 1_300_000).is_err(), "another one has it");
        let ack = ask(&mut message, 2, Action::Ack, 1_300_000);
        assert_eq!(message.on_ended(2, ack, 1_400_000), Ok(()));
        assert!(give(&mut message, token(3, 3, 5_000_000)).is_err(), "it is settled");
        let again = ask(&mut message, 2, Action::Release, 1_500_000);
        assert!(message.on_ended(2, again, 1_600_000).is_err(), "it has ended");
    }

    #[test]
    fn a_lease_that_is_over_ends_nothing() {
        let mut message = Message::default();
        give(&mut message, token(1, 1, 0)).unwrap();
        let ack = ask(&mut message, 1, Action::Ack, 1_200_000);
        assert!(message.on_ended(1, ack, 1_300_000).is_err());
        let mut message = Message::default();
        give(&mut message, token(1, 1, 0)).unwrap();
        ask(&mut message, 1, Action::Extend { ms: 2000 }, 900_000);
        let ack = ask(&mut message, 1, Action::Ack, 1_200_000);
        assert_eq!(message.on_ended(1, ack, 1_300_000), Ok(()), "whether it was extended is not known");
    }

    #[test]
    fn deliveries_grow_unless_one_is_released_and_delays_are_kept() {
        let mut message = Message::default();
        give(&mut message, token(1, 1, 0)).unwrap();
        assert!(give(&mut message, token(2, 1, 2_000_000)).is_err());
        let release = ask(&mut message, 1, Action::Release, 10);
        message.on_ended(1, release, 20).unwrap();
        assert_eq!(give(&mut message, token(2, 1, 30)), Ok(()));
        let nack = ask(&mut message, 2, Action::Nack { due_utc_us: 5000 }, 400);
        message.on_ended(2, nack, 500).unwrap();
        assert!(message.on_delivered(token(3, 2, 600), false, |_| 4999).is_err(), "early");
        assert_eq!(message.on_delivered(token(3, 2, 600), false, |_| 5000), Ok(Vec::new()));
    }
}
