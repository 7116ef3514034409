//! Membership: the member's side of the rules in docs/PROTOCOL.md ("Consumer groups"), as `step(now, event) -> effects`.
//!
//! ```text
//! Out --Found--> Out --Joined--> In --Close, all released--> Leaving --Left--> Over
//!  ^                              |
//!  +------- unknown_member, another group of the name; member_fenced or an error that will not pass: Over
//! ```
//! Whatever gets no answer, or one that may pass, is followed by looking for the home again, and then by the same request: a member stays one.
//!
//! Invariants: one request to the home is under way at a time (a leave excepted, which ends a held heartbeat); a list is said to be in force only once everything that is
//! not in it was released; what stays in the list is not touched.
//!
//! Not here: what a partition's owner is asked (`claims`, `commits`), how the application is told (`crate::pump::group`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tramline_wire::error::ErrorCode;

use crate::core::{Backoff, Now};
use crate::error::Error;

/// Partition uids with their assignment epochs.
pub(crate) type Owned = BTreeMap<u64, u64>;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Time went by.
    Tick,
    /// The home of the group is known.
    Found { group_uid: u64 },
    /// A member now, with this list.
    Joined { member_id: u64, epoch: u64, list: Owned },
    /// A heartbeat was answered; the list counts only where the epoch is another than before.
    Beaten { epoch: u64, list: Owned },
    /// Not a member any more, as was wished.
    Left,
    /// The request under way was refused, or got no answer.
    Failed(Error),
    /// All that was to be revoked is given up.
    Released,
    /// The application is done. `keeps`: a static member that comes back.
    Close { keeps: bool },
}

/// What is to be done about it.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Ask for the group's home.
    Find,
    /// Ask it to join.
    Join { group_uid: u64 },
    /// Say what is in force.
    Beat { group_uid: u64, member_id: u64, epoch: u64, wait_ms: u32 },
    /// Say goodbye.
    Leave { group_uid: u64, member_id: u64, keeps: bool },
    /// These partitions may be read, once claimed.
    Claim(Owned),
    /// These are to be given up in good order; then [`Event::Released`].
    Revoke(BTreeSet<u64>),
    /// All partitions are another's, or will be: they are given up at once.
    Lose,
    /// Trouble that has lasted; it is tried on.
    Tell { doing: &'static str, last: Error, after: Duration },
    /// Trouble that will not pass.
    End(Error),
}

/// The request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Find,
    Join,
    Beat,
    Leave,
}

#[derive(Debug)]
struct Membership {
    group_uid: u64,
    id: u64,
    /// Of the list in force.
    epoch: u64,
    /// The newest list that was told, and its epoch.
    list: Owned,
    list_epoch: u64,
    /// What was told to be claimed and was not given up.
    owned: Owned,
    /// Of these, what is being given up.
    releasing: BTreeSet<u64>,
    /// When the last request was sent that the home has answered: it keeps the member for the session timeout from then on, at least.
    confirmed_us: u64,
}

#[derive(Debug)]
enum Stage {
    Out,
    In(Membership),
    Leaving { group_uid: u64, id: u64, keeps: bool },
    Over,
}

/// See the module's page. Times are monotonic microseconds.
#[derive(Debug)]
pub(crate) struct Member {
    stage: Stage,
    /// The group, while its home is known.
    found: Option<u64>,
    asked: Option<(Asked, u64)>,
    session_us: u64,
    /// Trouble is told after so long.
    told_after_us: u64,
    not_before_us: u64,
    backoff: Backoff,
    failing_since_us: Option<u64>,
    /// The application is done, and a join is under way: it leaves at once when that is answered.
    closing: Option<bool>,
}

impl Member {
    pub(crate) fn new(session_us: u64, told_after_us: u64, seed: u64) -> Member {
        Member {
            stage: Stage::Out,
            found: None,
            asked: None,
            session_us,
            told_after_us,
            not_before_us: 0,
            backoff: Backoff::seeded(seed),
            failing_since_us: None,
            closing: None,
        }
    }

    /// Whether partitions are to be given up before it can go on.
    pub(crate) fn is_releasing(&self) -> bool {
        matches!(&self.stage, Stage::In(membership) if !membership.releasing.is_empty())
    }

    /// Its id, while it is a member.
    pub(crate) fn id(&self) -> Option<u64> {
        match &self.stage {
            Stage::In(membership) => Some(membership.id),
            Stage::Out | Stage::Leaving { .. } | Stage::Over => None,
        }
    }

    /// The group that it is a member of, or is about to leave.
    pub(crate) fn group_uid(&self) -> Option<u64> {
        match &self.stage {
            Stage::In(membership) => Some(membership.group_uid),
            Stage::Leaving { group_uid, .. } => Some(*group_uid),
            Stage::Out | Stage::Over => self.found,
        }
    }

    /// Nothing more will come: it has left, or met what will not pass.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Whether the home has said, not too long ago, that this is a member. When it has not, others may have the partitions, and nothing is read
    /// until it says so again.
    pub(crate) fn is_confirmed(&self, now: Now) -> bool {
        matches!(&self.stage, Stage::In(membership) if now.mono_us < membership.confirmed_us.saturating_add(self.session_us))
    }

    /// When a tick is due, monotonic microseconds.
    pub(crate) fn next_step_us(&self) -> u64 {
        match (&self.stage, self.asked) {
            (Stage::Over, _) | (_, Some(_)) => u64::MAX,
            _ => self.not_before_us,
        }
    }

    /// See the module's page.
    pub(crate) fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => {}
            Event::Found { group_uid } => {
                self.asked = None;
                self.on_found(group_uid, now, effects);
            }
            Event::Joined { member_id, epoch, list } => {
                let sent_us = self.answered();
                self.on_joined(member_id, epoch, list, sent_us, effects);
            }
            Event::Beaten { epoch, list } => {
                let sent_us = self.answered();
                self.on_beaten(epoch, list, sent_us, now, effects);
            }
            Event::Left => self.stage = Stage::Over,
            Event::Failed(error) => self.on_failed(error, now, effects),
            Event::Released => self.on_released(now, effects),
            Event::Close { keeps } => self.on_close(keeps),
        }
        self.ask(now, effects);
    }

    /// The request under way was answered: when it was sent.
    fn answered(&mut self) -> u64 {
        self.failing_since_us = None;
        self.asked.take().map_or(0, |(_, sent_us)| sent_us)
    }

    fn ask(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.asked.is_some() || self.not_before_us > now.mono_us {
            return;
        }
        let session_us = self.session_us;
        let (asked, effect) = match (&mut self.stage, self.found) {
            (Stage::Over, _) => return,
            (_, None) => (Asked::Find, Effect::Find),
            (Stage::Out, Some(group_uid)) => (Asked::Join, Effect::Join { group_uid }),
            (Stage::In(member), Some(group_uid)) => {
                // While something is given up, and after a long absence, an answer is wanted at once; else when there is something to say.
                let settled = member.releasing.is_empty() && now.mono_us < member.confirmed_us.saturating_add(session_us);
                let wait_ms = if settled { (session_us / 3 / 1000) as u32 } else { 0 };
                (Asked::Beat, Effect::Beat { group_uid, member_id: member.id, epoch: member.epoch, wait_ms })
            }
            (&mut Stage::Leaving { id, keeps, .. }, Some(group_uid)) => (Asked::Leave, Effect::Leave { group_uid, member_id: id, keeps }),
        };
        self.asked = Some((asked, now.mono_us));
        effects.push(effect);
    }

    fn on_found(&mut self, group_uid: u64, now: Now, effects: &mut Vec<Effect>) {
        self.found = Some(group_uid);
        match &self.stage {
            // Another group of the same name: this one's members and offsets are gone.
            Stage::In(member) if member.group_uid != group_uid => self.on_lost(now, effects),
            Stage::Leaving { group_uid: left, .. } if *left != group_uid => self.stage = Stage::Over,
            Stage::Out | Stage::In(_) | Stage::Leaving { .. } | Stage::Over => {}
        }
    }

    fn on_joined(&mut self, id: u64, epoch: u64, list: Owned, sent_us: u64, effects: &mut Vec<Effect>) {
        let (Stage::Out, Some(group_uid)) = (&self.stage, self.found) else { return };
        if let Some(keeps) = self.closing {
            self.stage = Stage::Leaving { group_uid, id, keeps };
            return;
        }
        if !list.is_empty() {
            effects.push(Effect::Claim(list.clone()));
        }
        self.stage = Stage::In(Membership {
            group_uid,
            id,
            epoch,
            owned: list.clone(),
            list,
            list_epoch: epoch,
            releasing: BTreeSet::new(),
            confirmed_us: sent_us,
        });
    }

    fn on_beaten(&mut self, epoch: u64, list: Owned, sent_us: u64, now: Now, effects: &mut Vec<Effect>) {
        let Stage::In(member) = &mut self.stage else { return };
        member.confirmed_us = sent_us;
        // Not already when it has joined: a home that takes members and forgets them is asked less and less often.
        self.backoff.reset();
        if epoch == member.epoch || epoch == member.list_epoch {
            // Nothing new. While something is given up the answer comes at once, so the next question waits: a third of the session is what a held one takes.
            if !member.releasing.is_empty() {
                self.not_before_us = now.mono_us.saturating_add(self.session_us / 3);
            }
            return;
        }
        (member.list, member.list_epoch) = (list, epoch);
        let gone = member.owned.iter().filter(|(uid, epoch)| member.list.get(uid) != Some(epoch) && !member.releasing.contains(uid));
        let gone: BTreeSet<u64> = gone.map(|(uid, _)| *uid).collect();
        member.releasing.extend(&gone);
        member.claim_new(effects);
        if !gone.is_empty() {
            effects.push(Effect::Revoke(gone));
        }
        if member.releasing.is_empty() {
            member.epoch = epoch;
        } else {
            self.not_before_us = now.mono_us.saturating_add(self.session_us / 3);
        }
    }

    fn on_released(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Stage::In(member) = &mut self.stage else { return };
        for uid in std::mem::take(&mut member.releasing) {
            member.owned.remove(&uid);
        }
        // What came back meanwhile, with another epoch.
        member.claim_new(effects);
        member.epoch = member.list_epoch;
        self.not_before_us = now.mono_us;
    }

    fn on_close(&mut self, keeps: bool) {
        self.stage = match &self.stage {
            Stage::In(member) => Stage::Leaving { group_uid: member.group_uid, id: member.id, keeps },
            Stage::Out if self.asked.is_some_and(|(asked, _)| asked == Asked::Join) => {
                self.closing = Some(keeps);
                return;
            }
            Stage::Out | Stage::Over => Stage::Over,
            Stage::Leaving { .. } => return,
        };
        if self.asked.is_some_and(|(asked, _)| asked != Asked::Find) {
            self.asked = None;
        }
        self.not_before_us = 0;
    }

    fn on_lost(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.stage = Stage::Out;
        effects.push(Effect::Lose);
        self.not_before_us = now.mono_us.saturating_add(self.backoff.next_us());
    }

    fn on_failed(&mut self, error: Error, now: Now, effects: &mut Vec<Effect>) {
        let Some((asked, _)) = self.asked.take() else { return };
        let leaving = matches!(self.stage, Stage::Leaving { .. });
        if self.closing.is_some() && matches!(self.stage, Stage::Out) {
            self.stage = Stage::Over;
            return;
        }
        match error.code() {
            Some(ErrorCode::UnknownMember | ErrorCode::UnknownGroup | ErrorCode::MemberFenced) if leaving => self.stage = Stage::Over,
            Some(ErrorCode::UnknownMember) => self.on_lost(now, effects),
            Some(ErrorCode::UnknownGroup) => {
                self.found = None;
                self.on_lost(now, effects);
            }
            // Somebody moves the group's offsets: that is over soon.
            Some(ErrorCode::GroupNotEmpty) if asked == Asked::Join => self.again(asked, error, now, effects),
            Some(code) if !code.retriable() => self.end(error, effects),
            Some(_) => self.again(asked, error, now, effects),
            None if matches!(error, Error::Io { .. } | Error::Timeout { .. } | Error::Config { .. } | Error::Protocol { .. }) => {
                self.again(asked, error, now, effects);
            }
            None => self.end(error, effects),
        }
    }

    fn end(&mut self, error: Error, effects: &mut Vec<Effect>) {
        if matches!(self.stage, Stage::In(_)) {
            effects.push(Effect::Lose);
        }
        self.stage = Stage::Over;
        effects.push(Effect::End(error));
    }

    /// The home may be elsewhere by now: it is looked for, after a wait.
    fn again(&mut self, asked: Asked, error: Error, now: Now, effects: &mut Vec<Effect>) {
        self.found = None;
        self.not_before_us = now.mono_us.saturating_add(self.backoff.next_us());
        let since_us = *self.failing_since_us.get_or_insert(now.mono_us);
        let lasted_us = now.mono_us.saturating_sub(since_us);
        if lasted_us >= self.told_after_us {
            self.failing_since_us = Some(now.mono_us);
            let doing = match asked {
                Asked::Find => "finding the home of the group",
                Asked::Join => "joining the group",
                Asked::Beat => "staying a member of the group",
                Asked::Leave => "leaving the group",
            };
            effects.push(Effect::Tell { doing, last: error, after: Duration::from_micros(lasted_us) });
        }
    }
}

impl Membership {
    /// What the list has and was not claimed yet.
    fn claim_new(&mut self, effects: &mut Vec<Effect>) {
        let new: Owned = self.list.iter().filter(|(uid, _)| !self.owned.contains_key(uid)).map(|(uid, epoch)| (*uid, *epoch)).collect();
        if !new.is_empty() {
            self.owned.extend(&new);
            effects.push(Effect::Claim(new));
        }
    }
}

#[cfg(test)]
mod tests;
