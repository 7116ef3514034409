//! Granted partitions: claiming them, where to begin, giving them up.
//!
//! Invariants: the application hears of a partition once its beginning is known, and hears of its end exactly if it heard of its beginning; one that is being given up is
//! asked nothing but its last commits.
//!
//! Not here: requests (`requests`), reading.

use std::collections::BTreeSet;

use tramline_wire::error::ErrorCode;

use super::member::{Event, Owned};
use super::{GroupCore, Notice};
use crate::config::OffsetReset;
use crate::core::{Backoff, Now};
use crate::error::Error;
use crate::group_listener::TopicPartition;

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// FetchOffsets is to be sent.
    Wanted,
    /// Nothing is committed, or it is gone: ListOffsets is to be sent.
    Reset,
    /// It is read, or could be if somebody sought.
    Reading,
}

/// How a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Giving {
    /// It is kept.
    No,
    /// The application is being told, and may commit.
    Told,
    /// It is done; the last commits may still be under way.
    Released,
}

/// A granted partition.
#[derive(Debug)]
pub(super) struct Holding {
    pub epoch: u64,
    pub claim: Claim,
    /// The claim's request is under way.
    pub asked: bool,
    pub not_before_us: u64,
    pub backoff: Backoff,
    /// Since when it could not be claimed; told as an error when it lasts.
    pub failing_since_us: Option<u64>,
    /// The application knows that it has it.
    pub told: bool,
    pub giving: Giving,
    /// The offset that was committed, or is on its way.
    pub offered: Option<u64>,
}

impl Holding {
    /// Whether it is the application's: it may be committed.
    pub(super) fn is_told(&self) -> bool {
        self.told && self.giving != Giving::Released
    }

    /// Whether a request of its claim is to be sent.
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.claim != Claim::Reading && !self.asked && self.giving == Giving::No && self.not_before_us <= now.mono_us
    }
}

impl GroupCore {
    pub(super) fn claim(&mut self, granted: Owned, now: Now) {
        if self.closing.is_some() {
            return; // what comes now goes with the member
        }
        for (uid, epoch) in granted {
            let holding = Holding {
                epoch,
                claim: Claim::Wanted,
                asked: false,
                not_before_us: 0,
                backoff: self.backoff(),
                failing_since_us: None,
                told: false,
                giving: Giving::No,
                offered: None,
            };
            self.holdings.insert(uid, holding);
            if !self.places.contains_key(&uid) {
                self.wish.want(now);
            }
        }
        self.work = true;
    }

    /// The application is told first, where it knows of them.
    pub(super) fn revoke(&mut self, uids: &BTreeSet<u64>, now: Now) {
        let mut told = Vec::new();
        for uid in uids {
            let name = self.name_of(*uid);
            match self.holdings.get_mut(uid) {
                Some(holding) if holding.told && holding.giving == Giving::No => {
                    holding.giving = Giving::Told;
                    told.extend(name);
                }
                Some(holding) if holding.giving == Giving::No => holding.giving = Giving::Released,
                _ => {}
            }
        }
        if !told.is_empty() {
            self.notices.push_back(Notice::Revoked(told));
        }
        self.let_go(now);
    }

    /// The application is done with everything that was revoked: what it committed is on its way.
    pub(crate) fn released(&mut self, now: Now) {
        for holding in self.holdings.values_mut().filter(|holding| holding.giving == Giving::Told) {
            holding.giving = Giving::Released;
        }
        self.let_go(now);
    }

    /// Partitions that were released and have no commit under way are gone; when all are, the home is told.
    pub(super) fn let_go(&mut self, now: Now) {
        let commits = &self.commits;
        self.work = true; // whose connection is of use may have changed
        self.holdings.retain(|uid, holding| holding.giving != Giving::Released || commits.is_busy(*uid));
        let giving = self.holdings.values().any(|holding| holding.giving != Giving::No);
        if !giving && self.closing.is_none() && self.member.is_releasing() {
            self.tell_member(now, Event::Released);
        }
    }

    /// Partitions that are another's already.
    pub(super) fn lose(&mut self, is_lost: impl Fn(u64) -> bool) {
        let mut told = Vec::new();
        let lost: BTreeSet<u64> = self.holdings.keys().copied().filter(|uid| is_lost(*uid)).collect();
        for uid in &lost {
            if self.holdings.remove(uid).is_some_and(|holding| holding.told) {
                told.extend(self.name_of(*uid));
            }
        }
        self.commits.give_up(|uid| lost.contains(&uid));
        let gone: BTreeSet<TopicPartition> = told.iter().cloned().collect();
        let mut unheard = BTreeSet::new();
        // A notice that was not taken says what is not so any more.
        self.notices.retain_mut(|notice| {
            match notice {
                Notice::Assigned(parts) => {
                    unheard.extend(parts.extract_if(.., |(part, ..)| gone.contains(part)).map(|(part, ..)| part));
                }
                Notice::Revoked(parts) => parts.retain(|part| !gone.contains(part)),
                Notice::Moved(part, ..) => return !gone.contains(part),
                Notice::Lost(_) => {}
            }
            true
        });
        // Nobody heard of their beginning.
        told.retain(|part| !unheard.contains(part));
        if !told.is_empty() {
            self.notices.push_back(Notice::Lost(told));
        }
    }

    /// A partition is claimed: what is committed, if anything.
    pub(super) fn on_claimed(&mut self, uid: u64, offset: Option<u64>) {
        let reset = self.config.auto_offset_reset;
        let Some(holding) = self.holdings.get_mut(&uid) else { return };
        holding.failing_since_us = None;
        holding.offered = offset;
        match (offset, reset) {
            (Some(offset), _) => self.begin_reading(uid, Some(offset)),
            (None, OffsetReset::None) => {
                self.begin_reading(uid, None);
                self.errors.extend(self.nothing_committed(uid));
            }
            (None, OffsetReset::Earliest | OffsetReset::Latest) => {
                holding.claim = Claim::Reset;
                self.work = true;
            }
        }
    }

    fn nothing_committed(&self, uid: u64) -> Option<Error> {
        let part = self.name_of(uid)?;
        let group = &self.config.group;
        let message = format!(
            "group {group} has no committed offset of topic {} partition {}, and auto_offset_reset is none: seek to where it is to begin, \
             commit an offset first (`tramctl group seek`), or set auto_offset_reset to earliest or latest",
            part.topic, part.partition
        );
        Some(Error::Config { message })
    }

    /// It is known where a partition begins. `None`: nowhere, until somebody seeks.
    pub(super) fn begin_reading(&mut self, uid: u64, position: Option<u64>) {
        let (Some(part), Some((_, place))) = (self.name_of(uid), self.places.get(&uid).copied()) else { return };
        let Some(holding) = self.holdings.get_mut(&uid).filter(|holding| holding.giving == Giving::No) else { return };
        holding.claim = Claim::Reading;
        holding.failing_since_us = None;
        if std::mem::replace(&mut holding.told, true) {
            if let Some(position) = position {
                self.notices.push_back(Notice::Moved(part, place, position));
            }
            return;
        }
        match self.notices.back_mut() {
            Some(Notice::Assigned(parts)) => parts.push((part, place, position)),
            _ => self.notices.push_back(Notice::Assigned(vec![(part, place, position)])),
        }
    }

    /// What was to be read next is not there any more: goes on where the settings say. False where they say nothing.
    pub(crate) fn reset(&mut self, topic: &str, partition: u32) -> bool {
        let Some(uid) = self.uid_of(topic, partition) else { return false };
        if self.reset_at().is_none() {
            return false;
        }
        let Some(holding) = self.holdings.get_mut(&uid) else { return false };
        holding.claim = Claim::Reset;
        self.work = true;
        true
    }

    /// A claim or its question for the beginning was refused, or got no answer.
    pub(super) fn on_claim_failed(&mut self, uid: u64, error: Error, now: Now) {
        let told_after_us = self.call_timeout_us;
        let Some(holding) = self.holdings.get_mut(&uid) else { return };
        match error.code() {
            // A later owner: the home says so before long.
            Some(ErrorCode::StaleAssignment) => return self.lose(|lost| lost == uid),
            // A leader on another node may hear of a new group a moment after its home. Of one that has ended the home says so.
            Some(ErrorCode::UnknownGroup) => {}
            Some(code) if !code.retriable() && holding.failing_since_us.is_none() => self.errors.push_back(error.clone()),
            _ => {}
        }
        holding.not_before_us = now.mono_us.saturating_add(holding.backoff.next_us());
        self.work_at_us = self.work_at_us.min(holding.not_before_us);
        self.wish.want(now);
        let since_us = *holding.failing_since_us.get_or_insert(now.mono_us);
        if now.mono_us.saturating_sub(since_us) >= told_after_us {
            holding.failing_since_us = Some(now.mono_us);
            self.errors.push_back(error);
        }
    }
}
