//! Offsets on their way to their partitions: what waits, what is under way, and what became of it.
//!
//! A job is what was committed with one call; it is done when each of its offsets has an outcome: committed, refused, or not in time.
//!
//! Invariants: of one partition one offset is under way at a time, and they go in the order they were asked for, so that the last one asked for is the one that
//! stays; what has an outcome is in the queue no more, and a late answer about it means nothing.
//!
//! Not here: requests and connections (`requests`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tramline_wire::error::ErrorCode;

use crate::core::{Backoff, Now};
use crate::error::Error;

/// Offsets that wait or are under way, of all partitions: sixty for each of the most that a member can have would be a defect of the caller's.
const ENTRIES_MAX: usize = 1 << 16;

/// Jobs that are done and not taken: only a caller that gives up its waiting leaves some, and the oldest go.
const DONE_MAX: usize = 1 << 16;

/// Who asked for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody waits for it.
    Sync,
    /// Its outcome is told by the next `poll`.
    Async,
    /// Nobody did: only errors are told.
    Auto,
}

/// What is to be committed of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub uid: u64,
    pub epoch: u64,
    pub offset: u64,
    pub metadata: String,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub uid: u64,
    pub offset: u64,
    pub error: Option<Error>,
}

/// Identifies an offset in the queue, which is in order of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryId(u64);

#[derive(Debug)]
struct Entry {
    id: EntryId,
    job: u64,
    wanted: Wanted,
    asked: bool,
    not_before_us: u64,
    backoff: Backoff,
    /// Why it is asked for again.
    last: Option<Error>,
}

#[derive(Debug)]
struct Job {
    kind: Kind,
    left: usize,
    outcomes: Vec<Outcome>,
    began_us: u64,
    until_us: u64,
}

/// A job that is done.
#[derive(Debug)]
pub(crate) struct Done {
    pub job: u64,
    pub kind: Kind,
    pub outcomes: Vec<Outcome>,
}

/// See the module's page. Times are monotonic microseconds.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    entries: VecDeque<Entry>,
    jobs: BTreeMap<u64, Job>,
    done: VecDeque<Done>,
    next: u64,
    seed: u64,
}

impl Commits {
    /// `seed`: members do not try again together.
    pub(crate) fn seeded(seed: u64) -> Commits {
        Commits { seed, ..Commits::default() }
    }

    /// Begins a job; returns its number. Without anything wanted it is done at once.
    pub(crate) fn begin(&mut self, kind: Kind, wanted: Vec<Wanted>, now: Now, until_us: u64) -> Result<u64, Error> {
        if self.entries.len() + wanted.len() > ENTRIES_MAX {
            let message =
                format!("{} commits wait for the broker, {ENTRIES_MAX} are the most: poll, and commit less often", self.entries.len());
            return Err(Error::config(&message));
        }
        let job = self.number();
        self.jobs.insert(job, Job { kind, left: wanted.len(), outcomes: Vec::new(), began_us: now.mono_us, until_us });
        for wanted in wanted {
            let id = EntryId(self.number());
            let backoff = Backoff::seeded(self.seed.wrapping_add(id.0));
            self.entries.push_back(Entry { id, job, wanted, asked: false, not_before_us: 0, backoff, last: None });
        }
        self.finish(job);
        Ok(job)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn finish(&mut self, job: u64) {
        if self.jobs.get(&job).is_some_and(|job| job.left == 0)
            && let Some(Job { kind, outcomes, .. }) = self.jobs.remove(&job)
        {
            // Nobody takes that of a call whose future was dropped.
            if self.done.len() == DONE_MAX {
                self.done.pop_front();
            }
            self.done.push_back(Done { job, kind, outcomes });
        }
    }

    /// A job that is done and was not taken yet.
    pub(crate) fn take_done(&mut self, wanted: impl Fn(&Done) -> bool) -> Option<Done> {
        let at = self.done.iter().position(wanted)?;
        self.done.remove(at)
    }

    /// Whether an offset of the partition waits or is under way.
    pub(crate) fn is_busy(&self, uid: u64) -> bool {
        self.entries.iter().any(|entry| entry.wanted.uid == uid)
    }

    /// Whether nothing waits or is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a job of this kind is not done.
    pub(crate) fn is_running(&self, kind: Kind) -> bool {
        self.jobs.values().any(|job| job.kind == kind)
    }

    /// What may be sent now: the first of each partition, unless it is under way or has to wait.
    pub(crate) fn sendable(&self, now: Now) -> Vec<(EntryId, &Wanted)> {
        let mut seen = BTreeSet::new();
        let first = self.entries.iter().filter(|entry| seen.insert(entry.wanted.uid));
        let first = first.filter(|entry| !entry.asked && entry.not_before_us <= now.mono_us);
        first.map(|entry| (entry.id, &entry.wanted)).collect()
    }

    /// What an entry wants, while it has no outcome.
    pub(crate) fn wanted(&self, id: EntryId) -> Option<&Wanted> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        Some(&self.entries[at].wanted)
    }

    /// It was sent.
    pub(crate) fn on_sent(&mut self, id: EntryId) {
        if let Ok(at) = self.entries.binary_search_by_key(&id, |entry| entry.id) {
            self.entries[at].asked = true;
        }
    }

    /// It was answered, or will not be. Returns the partition and its epoch where the answer counts.
    pub(crate) fn on_answer(&mut self, id: EntryId, answer: Result<(), Error>, now: Now) -> Option<Wanted> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        let entry = &mut self.entries[at];
        entry.asked = false;
        match answer {
            Err(error) if may_pass(&error) => {
                entry.not_before_us = now.mono_us.saturating_add(entry.backoff.next_us());
                entry.last = Some(error);
                None
            }
            answer => self.settle(at, answer.err()),
        }
    }

    fn settle(&mut self, at: usize, error: Option<Error>) -> Option<Wanted> {
        let Entry { job, wanted, .. } = self.entries.remove(at)?;
        if let Some(of) = self.jobs.get_mut(&job) {
            of.left -= 1;
            of.outcomes.push(Outcome { uid: wanted.uid, offset: wanted.offset, error });
        }
        self.finish(job);
        Some(wanted)
    }

    /// Ends what is not in time; returns whether there was anything.
    pub(crate) fn expire(&mut self, now: Now) -> bool {
        let before = self.entries.len();
        let mut at = 0;
        while at < self.entries.len() {
            let entry = &self.entries[at];
            let job = self.jobs.get(&entry.job);
            let Some(job) = job.filter(|job| job.until_us <= now.mono_us) else {
                at += 1;
                continue;
            };
            let after = Duration::from_micros(now.mono_us.saturating_sub(job.began_us));
            let last = entry.last.clone().map(std::sync::Arc::new);
            self.settle(at, Some(Error::Timeout { doing: "committing an offset".to_string(), after, last }));
        }
        self.entries.len() < before
    }

    /// These partitions are another's: what was not sent yet never is.
    pub(crate) fn give_up(&mut self, is_lost: impl Fn(u64) -> bool) {
        let mut at = 0;
        while at < self.entries.len() {
            let entry = &self.entries[at];
            if entry.asked || !is_lost(entry.wanted.uid) {
                at += 1;
                continue;
            }
            self.settle(at, Some(lost()));
        }
    }

    /// When something is due later than now, monotonic microseconds.
    pub(crate) fn next_us(&self, now: Now) -> u64 {
        let ends = self.jobs.values().map(|job| job.until_us);
        // What could go already waits for a connection, not for the time.
        let waits = self.entries.iter().filter(|entry| !entry.asked && entry.not_before_us > now.mono_us).map(|entry| entry.not_before_us);
        ends.chain(waits).min().unwrap_or(u64::MAX)
    }
}

fn may_pass(error: &Error) -> bool {
    // Committing the same offset twice is as good as once: what became of it does not matter before it is sent again.
    error.retriable() || matches!(error, Error::OutcomeUnknown { .. } | Error::Protocol { .. } | Error::Config { .. })
}

/// The refusal of what was not sent because the partition went to another member.
fn lost() -> Error {
    let message = "the partition went to another member before it could be committed".to_string();
    Error::Refused { request: "commit an offset".to_string(), code: ErrorCode::StaleAssignment, retriable: false, message, next: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_us: u64) -> Now {
        Now { mono_us, utc_us: 0 }
    }

    fn wanted(uid: u64, offset: u64) -> Wanted {
        Wanted { uid, epoch: 1, offset, metadata: String::new() }
    }

    fn refused(code: ErrorCode) -> Error {
        Error::Refused { request: String::new(), code, retriable: code.retriable(), message: String::new(), next: None }
    }

    fn sendable(commits: &Commits, now_us: u64) -> Vec<(EntryId, u64, u64)> {
        commits.sendable(at(now_us)).into_iter().map(|(id, wanted)| (id, wanted.uid, wanted.offset)).collect()
    }

    #[test]
    fn offsets_of_one_partition_go_one_after_the_other_and_a_retry_keeps_its_place() {
        let mut commits = Commits::default();
        let first = commits.begin(Kind::Async, vec![wanted(1, 10), wanted(2, 20)], at(1), 1_000_000).expect("room");
        let second = commits.begin(Kind::Sync, vec![wanted(1, 11)], at(1), 1_000_000).expect("room");
        let sent = sendable(&commits, 1);
        assert_eq!(sent.iter().map(|sent| (sent.1, sent.2)).collect::<Vec<_>>(), [(1, 10), (2, 20)]);
        sent.iter().for_each(|sent| commits.on_sent(sent.0));
        assert!(sendable(&commits, 1).is_empty() && commits.is_busy(1) && commits.is_running(Kind::Async));
        assert_eq!(commits.on_answer(sent[1].0, Ok(()), at(2)), Some(wanted(2, 20)));
        assert_eq!(commits.on_answer(sent[0].0, Err(refused(ErrorCode::NotReady)), at(2)), None);
        assert!(sendable(&commits, 2).is_empty(), "it waits, and what is behind it with it");
        let again = sendable(&commits, commits.next_us(at(2)));
        assert_eq!(again, [sent[0]]);
        commits.on_sent(again[0].0);
        assert!(commits.take_done(|_| true).is_none());
        commits.on_answer(again[0].0, Ok(()), at(3));
        let done = commits.take_done(|done| done.job == first).expect("done");
        assert!(done.kind == Kind::Async && done.outcomes.len() == 2 && done.outcomes.iter().all(|outcome| outcome.error.is_none()));
        let last = sendable(&commits, 3);
        assert_eq!((last[0].1, last[0].2), (1, 11));
        commits.on_sent(last[0].0);
        assert!(commits.on_answer(last[0].0, Err(refused(ErrorCode::StaleAssignment)), at(4)).is_some());
        let done = commits.take_done(|done| done.job == second).expect("done");
        assert_eq!(done.outcomes[0].error.as_ref().and_then(Error::code), Some(ErrorCode::StaleAssignment));
        assert!(commits.is_idle() && commits.next_us(at(4)) == u64::MAX);
    }

    #[test]
    fn what_is_late_or_lost_has_an_outcome_and_a_late_answer_means_nothing() {
        let mut commits = Commits::default();
        commits.begin(Kind::Sync, vec![wanted(1, 10)], at(1), 100).expect("room");
        commits.begin(Kind::Async, vec![wanted(2, 20), wanted(3, 30)], at(1), 1_000).expect("room");
        let sent = sendable(&commits, 1);
        sent[..2].iter().for_each(|sent| commits.on_sent(sent.0));
        commits.expire(at(99));
        assert!(commits.take_done(|_| true).is_none());
        commits.expire(at(100));
        assert!(matches!(commits.take_done(|_| true).expect("late").outcomes[0].error, Some(Error::Timeout { .. })));
        assert_eq!(commits.on_answer(sent[0].0, Ok(()), at(101)), None);
        commits.give_up(|_| true);
        assert!(commits.is_busy(2) && !commits.is_busy(3), "what is under way may still be taken");
        commits.on_answer(sent[1].0, Ok(()), at(102));
        let done = commits.take_done(|_| true).expect("both");
        let codes: Vec<_> = done.outcomes.iter().map(|outcome| (outcome.uid, outcome.error.as_ref().and_then(Error::code))).collect();
        assert_eq!(codes, [(3, Some(ErrorCode::StaleAssignment)), (2, None)]);
    }

    #[test]
    fn there_is_a_bound_and_nothing_is_done_at_once() {
        let mut commits = Commits::default();
        let job = commits.begin(Kind::Sync, Vec::new(), at(1), 100).expect("room");
        assert!(commits.take_done(|done| done.job == job).expect("done").outcomes.is_empty());
        let many: Vec<Wanted> = (0..ENTRIES_MAX as u64).map(|uid| wanted(uid, 1)).collect();
        commits.begin(Kind::Async, many, at(1), 100).expect("room");
        assert!(matches!(commits.begin(Kind::Async, vec![wanted(1, 2)], at(1), 100), Err(Error::Config { .. })));
    }
}
