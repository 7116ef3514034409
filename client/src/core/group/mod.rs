//! A member of a consumer group without sockets: membership, claims, commits.
//!
//! Three kinds of requests, each to whom it concerns: FindGroup to any node; JoinGroup, HeartbeatGroup and LeaveGroup to the group's home; FetchOffsets, ListOffsets
//! and CommitOffsets to the owners of partitions. All go over connections of the member's own, so that a held heartbeat and a commit wait behind no records.
//! Reading is the consumer's (`core::consumer`): it is told by [`Notice`]s from where to read what, and what not any more.
//!
//! A partition's way, once the home has granted it:
//!
//! ```text
//! Claim --FetchOffsets--> (nothing committed: Reset --ListOffsets-->) Reading --revoked: notice, last commit--> gone
//! ```
//!
//! The loop around it does, again and again: [`GroupCore::step`]; let connections be opened and metadata be got (`core::links`); write; read; take notices, do what they say, and tell
//! [`GroupCore::released`] for what was revoked.
//!
//! | file | job |
//! |---|---|
//! | `member` | membership: find, join, heartbeats, leave, as `step(now, event) -> effects` |
//! | `commits` | offsets on their way: order, retries, outcomes |
//! | `claims` | granted partitions: claiming, where to begin, giving up |
//! | `requests` | what is sent to whom, and what answers mean |
//! | `lanes` | its connections as `core::links` sees them |
//! | `tests` | the core against a fake broker in memory |
//!
//! Invariants: a partition is read only after its claim was answered; it is said to be given up only after nothing of it is on its way to be committed; what another has is
//! committed no more (the partition refuses it, and it is not tried again).

mod claims;
mod commits;
mod lanes;
mod member;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

pub(crate) use commits::Kind as CommitKind;
use commits::{Commits, Done, Wanted};
use lanes::Lane;
use member::{Effect, Event, Member};
use requests::HomeAsk;

use super::cluster::{ClusterView, Hops, Owner};
use super::wish::MetadataWish;
use super::{Backoff, Now};
use crate::clock::micros;
use crate::config::{Config, GroupConfig, OffsetReset};
use crate::error::Error;
use crate::group_listener::{Commit, CommitOutcome, TopicPartition};
use crate::types::{Metadata, PartitionMetadata};
use claims::{Claim, Giving, Holding};

/// What the consumer and the application are to be told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Read these from there on. Without a position it is not read before somebody seeks.
    Assigned(Vec<(TopicPartition, PartitionMetadata, Option<u64>)>),
    /// Go on there: what was to be read next is not there any more.
    Moved(TopicPartition, PartitionMetadata, u64),
    /// Read these no more, let the application commit what it has; then [`GroupCore::released`].
    Revoked(Vec<TopicPartition>),
    /// Read these no more; they are another's already.
    Lost(Vec<TopicPartition>),
}

/// See the module's page. Times are monotonic microseconds.
#[derive(Debug)]
pub(crate) struct GroupCore {
    pub(crate) config: GroupConfig,
    client_name: String,
    request_timeout_us: u64,
    /// A commit is tried for so long, and trouble is told after so long.
    call_timeout_us: u64,
    frame_bytes_max: u32,
    member: Member,
    effects: Vec<Effect>,
    /// The request for the home that is under way.
    home_ask: Option<HomeAsk>,
    home: Option<Owner>,
    /// The node that is asked for the home, counted round.
    find_turn: usize,
    /// The node that another one named instead.
    find_at: Option<Owner>,
    /// Refusals of requests to the home, or for it, that name another node.
    home_hops: Hops,
    holdings: BTreeMap<u64, Holding>,
    /// Partitions of the group's topics: place of the topic in the settings, and the rest.
    places: HashMap<u64, (usize, PartitionMetadata)>,
    /// The other way round: by place of the topic and number.
    numbers: HashMap<(usize, u32), u64>,
    commits: Commits,
    /// Something may be to be sent to owners of partitions.
    work: bool,
    /// The same, from this time on.
    work_at_us: u64,
    notices: VecDeque<Notice>,
    errors: VecDeque<Error>,
    /// What ended it.
    fatal: Option<Error>,
    closing: Option<bool>,
    /// When it commits by itself next; 0 before the first step.
    auto_commit_at_us: u64,
    lanes: Vec<Lane>,
    cluster: ClusterView,
    wish: MetadataWish,
    /// The newest view, for the consumer.
    view: Metadata,
    seed: u64,
}

impl GroupCore {
    pub(crate) fn new(config: GroupConfig, client: &Config, seed: u32) -> Result<GroupCore, Error> {
        config.check()?;
        let (session_us, call_timeout_us) = (micros(config.session_timeout), micros(client.call_timeout));
        Ok(GroupCore {
            client_name: client.client_name.clone(),
            request_timeout_us: micros(client.request_timeout),
            call_timeout_us,
            frame_bytes_max: client.frame_bytes_max,
            member: Member::new(session_us, call_timeout_us, u64::from(seed)),
            effects: Vec::new(),
            home_ask: None,
            home: None,
            find_turn: seed as usize,
            find_at: None,
            home_hops: Hops::default(),
            holdings: BTreeMap::new(),
            places: HashMap::new(),
            numbers: HashMap::new(),
            commits: Commits::seeded(u64::from(seed)),
            work: false,
            work_at_us: u64::MAX,
            notices: VecDeque::new(),
            errors: VecDeque::new(),
            fatal: None,
            closing: None,
            auto_commit_at_us: 0,
            lanes: Vec::new(),
            cluster: ClusterView::default(),
            wish: MetadataWish::seeded(u64::from(seed)),
            view: Metadata::default(),
            seed: u64::from(seed),
            config,
        })
    }

    fn backoff(&mut self) -> Backoff {
        self.seed += 1;
        Backoff::seeded(self.seed)
    }

    /// Everything that time brings: requests to the home, claims, commits, pings.
    pub(crate) fn step(&mut self, now: Now) {
        if self.auto_commit_at_us == 0 {
            // Members that start together do not commit together ever after.
            let share = u64::from((self.seed as u32).wrapping_mul(0x9e37_79b1));
            self.auto_commit_at_us = now.mono_us.saturating_add((micros(self.config.auto_commit_interval) * share) >> 32);
        }
        if self.view.nodes.is_empty() {
            self.wish.want(now);
        }
        if self.member.next_step_us() <= now.mono_us {
            self.tell_member(now, Event::Tick);
        }
        self.send_to_home(now);
        if self.work || self.work_at_us <= now.mono_us {
            self.send_to_owners(now);
        }
        self.close_when_released(now);
        self.ping(now);
    }

    /// Lets the membership know, and does what it says.
    fn tell_member(&mut self, now: Now, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.member.step(now, event, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect, now);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Find | Effect::Join { .. } | Effect::Beat { .. } | Effect::Leave { .. } => {
                self.home_ask = Some(HomeAsk::new(effect));
                self.send_to_home(now);
            }
            Effect::Claim(granted) => self.claim(granted, now),
            Effect::Revoke(uids) => self.revoke(&uids, now),
            Effect::Lose => self.lose(|_| true),
            Effect::Tell { doing, last, after } => {
                let doing = format!("{doing} {:?}", self.config.group);
                self.errors.push_back(Error::Timeout { doing, after, last: Some(std::sync::Arc::new(last)) });
            }
            Effect::End(error) => self.fatal = Some(error),
        }
    }

    /// What the consumer and the application are to be told next.
    pub(crate) fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Whether there is something to tell.
    pub(crate) fn has_notice(&self) -> bool {
        !self.notices.is_empty()
    }

    /// An error that was not told yet; what ended the membership is told again and again.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.errors.pop_front().or_else(|| self.fatal.clone())
    }

    /// An error of the application's making, told by the next call.
    pub(crate) fn tell_error(&mut self, error: Error) {
        self.errors.push_back(error);
    }

    /// Whether there is an error to tell.
    pub(crate) fn has_error(&self) -> bool {
        !self.errors.is_empty() || self.fatal.is_some()
    }

    /// Its id in the group, while it is a member.
    pub(crate) fn member_id(&self) -> Option<u64> {
        self.member.id()
    }

    /// Whether records may be handed out: the home has not been silent for too long.
    pub(crate) fn may_deliver(&self, now: Now) -> bool {
        self.closing.is_none() && self.member.is_confirmed(now)
    }

    /// The newest view of the cluster.
    pub(crate) fn view(&self) -> &Metadata {
        &self.view
    }

    /// Partitions that it has and was told to read.
    pub(crate) fn assigned(&self) -> impl Iterator<Item = TopicPartition> {
        self.holdings.iter().filter(|(_, holding)| holding.is_told()).filter_map(|(uid, _)| self.name_of(*uid))
    }

    /// Whether a partition is among them.
    pub(crate) fn has(&self, topic: &str, partition: u32) -> bool {
        self.uid_of(topic, partition).is_some()
    }

    fn name_of(&self, uid: u64) -> Option<TopicPartition> {
        let (topic, partition) = self.places.get(&uid)?;
        Some(TopicPartition { topic: self.config.topics.get(*topic)?.clone(), partition: partition.index })
    }

    /// The uid of a partition that is read.
    fn uid_of(&self, topic: &str, partition: u32) -> Option<u64> {
        let topic = self.config.topics.iter().position(|name| name == topic)?;
        let uid = *self.numbers.get(&(topic, partition))?;
        self.holdings.get(&uid).is_some_and(Holding::is_told).then_some(uid)
    }

    /// Begins to commit; returns the job's number. An error: one of the partitions is not this member's, and nothing is committed.
    pub(crate) fn commit(&mut self, kind: CommitKind, offsets: &[Commit], now: Now) -> Result<u64, Error> {
        let mut wanted = Vec::with_capacity(offsets.len());
        for commit in offsets {
            let found = self.uid_of(&commit.topic, commit.partition).and_then(|uid| Some((uid, self.holdings.get(&uid)?)));
            let Some((uid, holding)) = found else {
                let Commit { topic, partition, .. } = commit;
                let group = &self.config.group;
                return Err(Error::config(&format!(
                    "topic {topic} partition {partition} is not this member's in group {group}: commit only what is assigned to it"
                )));
            };
            let (offset, metadata) = (commit.offset, commit.metadata.clone());
            if metadata.len() > tramline_wire::group::OFFSET_METADATA_BYTES_MAX {
                return Err(Error::config(&format!(
                    "the text of a commit has {} bytes, at most 4,096 are kept: shorten it",
                    metadata.len()
                )));
            }
            wanted.push(Wanted { uid, epoch: holding.epoch, offset, metadata });
        }
        let offered: Vec<(u64, u64)> = wanted.iter().map(|wanted| (wanted.uid, wanted.offset)).collect();
        // What is on its way out keeps the next owner waiting: not for as long as a caller would.
        let is_leaving = |wanted: &Wanted| self.holdings.get(&wanted.uid).is_some_and(|holding| holding.giving != Giving::No);
        let patience_us = match wanted.iter().any(is_leaving) {
            true => self.call_timeout_us.min(micros(self.config.session_timeout) / 3),
            false => self.call_timeout_us,
        };
        let job = self.commits.begin(kind, wanted, now, now.mono_us.saturating_add(patience_us))?;
        for (uid, offset) in offered {
            if let Some(holding) = self.holdings.get_mut(&uid) {
                holding.offered = Some(offset);
            }
        }
        self.work = true;
        Ok(job)
    }

    /// Whether committing by itself is due.
    pub(crate) fn is_auto_commit_due(&self, now: Now) -> bool {
        self.next_auto_commit_us() <= now.mono_us
    }

    /// When committing by itself is due; who turns the membership alone does not begin it, and does not wait for it.
    pub(crate) fn next_auto_commit_us(&self) -> u64 {
        let may_begin = self.config.auto_commit && !self.holdings.is_empty() && self.auto_commit_at_us > 0;
        if may_begin && !self.commits.is_running(CommitKind::Auto) { self.auto_commit_at_us } else { u64::MAX }
    }

    /// Begins to commit these positions by itself; the next time is after the interval.
    pub(crate) fn auto_commit(&mut self, positions: Vec<Commit>, now: Now) {
        self.auto_commit_at_us = now.mono_us.saturating_add(micros(self.config.auto_commit_interval));
        self.commit_news(positions, now);
    }

    /// Begins to commit these positions, where they are others than before; errors are told later.
    pub(crate) fn commit_news(&mut self, positions: Vec<Commit>, now: Now) {
        let is_new = |commit: &Commit| {
            let holding = self.uid_of(&commit.topic, commit.partition).and_then(|uid| self.holdings.get(&uid));
            holding.is_some_and(|holding| holding.offered != Some(commit.offset))
        };
        let new: Vec<_> = positions.into_iter().filter(is_new).collect();
        if !new.is_empty()
            && let Err(error) = self.commit(CommitKind::Auto, &new, now)
        {
            self.tell_error(error);
        }
    }

    /// The outcomes of a job that somebody waits for, once it is done.
    pub(crate) fn take_job(&mut self, job: u64) -> Option<Vec<CommitOutcome>> {
        let done = self.commits.take_done(|done| done.job == job)?;
        Some(self.outcomes(done))
    }

    /// The outcomes of the next job that nobody waits for.
    pub(crate) fn take_async(&mut self) -> Option<Vec<CommitOutcome>> {
        let done = self.commits.take_done(|done| done.kind == CommitKind::Async)?;
        Some(self.outcomes(done))
    }

    /// Errors of commits that it made by itself become errors to tell.
    fn tell_auto_errors(&mut self) {
        while let Some(done) = self.commits.take_done(|done| done.kind == CommitKind::Auto) {
            let is_told = |outcome: &&commits::Outcome| {
                // Another's: that is told as lost.
                outcome.error.as_ref().is_some_and(|error| error.code() != Some(tramline_wire::error::ErrorCode::StaleAssignment))
            };
            if let Some(outcome) = done.outcomes.iter().find(is_told) {
                self.errors.extend(outcome.error.clone());
            }
            for outcome in done.outcomes.iter().filter(|outcome| outcome.error.is_some()) {
                if let Some(holding) = self.holdings.get_mut(&outcome.uid) {
                    holding.offered = None;
                }
            }
        }
    }

    fn outcomes(&self, done: Done) -> Vec<CommitOutcome> {
        let named = |outcome: commits::Outcome| {
            // One of a topic that is deleted has no name any more.
            let TopicPartition { topic, partition } =
                self.name_of(outcome.uid).unwrap_or_else(|| TopicPartition { topic: format!("(uid {})", outcome.uid), partition: 0 });
            CommitOutcome { topic, partition, offset: outcome.offset, error: outcome.error }
        };
        done.outcomes.into_iter().map(named).collect()
    }

    /// Begins to leave: all partitions are revoked, and when they are released the home is told. `keeps`: a static member comes back.
    pub(crate) fn close(&mut self, keeps: bool, now: Now) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(keeps);
        let all: BTreeSet<u64> = self.holdings.keys().copied().collect();
        self.revoke(&all, now);
        self.close_when_released(now);
    }

    fn close_when_released(&mut self, now: Now) {
        let Some(keeps) = self.closing else { return };
        if self.holdings.is_empty() && self.commits.is_idle() && !self.has_notice() {
            self.tell_member(now, Event::Close { keeps });
        }
    }

    /// Whether it has left, or will never be a member again.
    pub(crate) fn is_over(&self) -> bool {
        self.member.is_over()
    }

    /// When [`step`](Self::step) has to run next even if nothing arrives.
    pub(crate) fn next_step_us(&self, now: Now) -> u64 {
        let work = if self.work { now.mono_us } else { self.work_at_us };
        let home = if self.home_ask.is_some() { u64::MAX } else { self.member.next_step_us() };
        self.next_of_lanes_us(now).min(self.wish.next_us()).min(work).min(home)
    }

    fn reset_at(&self) -> Option<i64> {
        match self.config.auto_offset_reset {
            OffsetReset::Earliest => Some(tramline_wire::offsets::AT_EARLIEST),
            OffsetReset::Latest => Some(tramline_wire::offsets::AT_LATEST),
            OffsetReset::None => None,
        }
    }

    /// Someone seeks: a partition that had nowhere to begin has.
    pub(crate) fn on_sought(&mut self, topic: &str, partition: u32) {
        if let Some(uid) = self.uid_of(topic, partition)
            && let Some(holding) = self.holdings.get_mut(&uid)
        {
            holding.claim = Claim::Reading;
            // It begins where it was sought to, also if a beginning was found and nobody was told yet.
            let is_it = |part: &TopicPartition| part.topic == topic && part.partition == partition;
            self.notices.retain(|notice| !matches!(notice, Notice::Moved(part, ..) if is_it(part)));
        }
    }
}
