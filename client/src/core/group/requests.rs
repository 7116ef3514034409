//! What a member sends to whom, and what answers mean.
//!
//! Invariants: every request has its entry among the lane's pending ones until it is answered or its connection is lost; an answer that nobody waits for any more (of a
//! heartbeat that a leave has overtaken, of a partition that was given up) changes nothing.

use std::collections::BTreeMap;

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{Frame, FrameError};
use tramline_wire::group::{
    CommitOffsetsReply, CommitOffsetsRequest, FetchOffsetsReply, FetchOffsetsRequest, FindGroupFlags, FindGroupReply, FindGroupRequest,
    GrantedPartition, HeartbeatFlags, HeartbeatGroupReply, HeartbeatGroupRequest, JoinFlags, JoinGroupReply, JoinGroupRequest, LeaveFlags,
    LeaveGroupReply, LeaveGroupRequest, OFFSET_NONE, OffsetAsk, OffsetCommit,
};
use tramline_wire::kind::Kind;
use tramline_wire::offsets::{ListOffsetsReply, ListOffsetsRequest, OffsetQuery};
use tramline_wire::prim::{DecodeError, List};

use super::GroupCore;
use super::claims::Claim;
use super::commits::EntryId;
use super::lanes::Lane;
use super::member::{Effect, Event, Owned};
use crate::client::PARTITIONS_PER_REQUEST_MAX;
use crate::clock::micros;
use crate::core::Now;
use crate::core::cluster::{Hops, Owner};
use crate::error::Error;
use crate::groups::OFFSETS_PER_REQUEST_MAX;
use crate::link::{read_reply, refusal};

/// Bytes of one CommitOffsets request (docs/PROTOCOL.md), and of an entry without its text.
const COMMIT_BYTES_MAX: usize = 48 << 10;
const COMMIT_ENTRY_BYTES: usize = 44;

/// A request to the home, or for it.
#[derive(Debug)]
pub(super) struct HomeAsk {
    effect: Effect,
    /// Whom it goes to, once that is known.
    pub target: Option<Owner>,
    /// Correlation, once it was sent.
    sent: Option<u64>,
}

impl HomeAsk {
    pub(super) fn new(effect: Effect) -> HomeAsk {
        HomeAsk { effect, target: None, sent: None }
    }
}

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Pending {
    correlation: u64,
    /// When its answer is overdue, monotonic microseconds.
    pub until_us: u64,
    about: About,
}

#[derive(Debug)]
enum About {
    Home(Kind),
    /// Uids with the epochs they were claimed with.
    Claim(Vec<(u64, u64)>),
    Reset(Vec<u64>),
    /// Entries with the uids of their partitions.
    Commit(Vec<(EntryId, u64)>),
}

impl About {
    fn kind(&self) -> Kind {
        match self {
            About::Home(kind) => *kind,
            About::Claim(_) => Kind::FetchOffsets,
            About::Reset(_) => Kind::ListOffsets,
            About::Commit(_) => Kind::CommitOffsets,
        }
    }
}

/// An answer, copied out of the receive buffer.
#[derive(Debug)]
enum Answer {
    Home(Event),
    Found {
        group_uid: u64,
        home: Owner,
    },
    /// Uid, error, committed offset.
    Claimed(Vec<(u64, ErrorCode, u64)>),
    /// The same, first offset to read.
    Listed(Vec<(u64, ErrorCode, u64)>),
    Committed(Vec<(u64, ErrorCode)>),
}

/// What owners are to be asked.
#[derive(Debug, Default)]
struct Due {
    claims: Vec<(u64, u64)>,
    resets: Vec<u64>,
    commits: Vec<EntryId>,
}

fn owned(list: List<'_, GrantedPartition>) -> Owned {
    list.iter().map(|granted| (granted.partition_uid, granted.assignment_epoch)).collect()
}

impl GroupCore {
    /// Sends the request for the home, if there is one and its connection is open.
    pub(super) fn send_to_home(&mut self, now: Now) {
        let Some(HomeAsk { effect, sent: None, .. }) = &self.home_ask else { return };
        let target = match effect {
            Effect::Find => self.find_at.or_else(|| self.cluster.some_node(self.find_turn).map(|node| Owner { node, shard: 0 })),
            _ => self.home,
        };
        let Some(target) = target else {
            self.wish.want(now);
            return;
        };
        let lane = self.lane_of(target);
        let GroupCore { home_ask: Some(ask), lanes, config, client_name, request_timeout_us, .. } = self else { return };
        ask.target = Some(target);
        let lane = &mut lanes[lane];
        if !lane.open {
            return;
        }
        let instance = config.instance_id.as_deref().unwrap_or_default();
        let mut wait_us = 0;
        let (kind, sent) = match ask.effect {
            Effect::Find => {
                let request = FindGroupRequest { name: &config.group, flags: FindGroupFlags::CREATE };
                (Kind::FindGroup, lane.conn.request(Kind::FindGroup, |meta| request.encode(meta)))
            }
            Effect::Join { group_uid } => {
                let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
                let request = JoinGroupRequest {
                    group_uid,
                    flags: JoinFlags(0),
                    assignor: config.assignor,
                    session_timeout_ms: (micros(config.session_timeout) / 1000) as u32,
                    instance,
                    client: client_name,
                    topics: List::of(&topics),
                };
                (Kind::JoinGroup, lane.conn.request(Kind::JoinGroup, |meta| request.encode(meta)))
            }
            Effect::Beat { group_uid, member_id, epoch, wait_ms } => {
                wait_us = u64::from(wait_ms) * 1000;
                let (flags, topics) = (HeartbeatFlags(0), List::of(&[]));
                let request = HeartbeatGroupRequest { group_uid, member_id, epoch, wait_ms, flags, instance, topics };
                (Kind::HeartbeatGroup, lane.conn.request(Kind::HeartbeatGroup, |meta| request.encode(meta)))
            }
            Effect::Leave { group_uid, member_id, keeps } => {
                let flags = if keeps { LeaveFlags::KEEP } else { LeaveFlags(0) };
                let request = LeaveGroupRequest { group_uid, member_id, flags, instance };
                (Kind::LeaveGroup, lane.conn.request(Kind::LeaveGroup, |meta| request.encode(meta)))
            }
            Effect::Claim(_) | Effect::Revoke(_) | Effect::Lose | Effect::Tell { .. } | Effect::End(_) => return,
        };
        match sent {
            Ok(correlation) => {
                ask.sent = Some(correlation);
                let until_us = now.mono_us.saturating_add(wait_us).saturating_add(*request_timeout_us);
                lane.pending.push(Pending { correlation, until_us, about: About::Home(kind) });
                lane.alive.on_sent(now);
            }
            // A hundred names of 249 bytes are within the limits.
            Err(oversized) => self.fail_home(Error::config(&format!("asking the home of the group: {oversized}")), now),
        }
    }

    /// Sends what is due to owners of partitions.
    pub(super) fn send_to_owners(&mut self, now: Now) {
        self.work = false;
        if self.commits.expire(now) {
            self.let_go(now);
        }
        let mut by_owner: BTreeMap<(u32, u16), Due> = BTreeMap::new();
        let mut uses: BTreeMap<(u32, u16), usize> = BTreeMap::new();
        let places = &self.places;
        let owner_of = |uid: u64| places.get(&uid).map(|(_, place)| (place.leader_node, place.leader_shard));
        let mut next_us = self.commits.next_us(now);
        for (uid, holding) in &self.holdings {
            let Some(owner) = owner_of(*uid) else { continue };
            *uses.entry(owner).or_default() += 1;
            if holding.is_due(now) {
                let due = by_owner.entry(owner).or_default();
                match holding.claim {
                    Claim::Wanted => due.claims.push((*uid, holding.epoch)),
                    Claim::Reset => due.resets.push(*uid),
                    Claim::Reading => {}
                }
            } else if holding.claim != Claim::Reading && !holding.asked && holding.not_before_us > now.mono_us {
                next_us = next_us.min(holding.not_before_us);
            }
        }
        for (id, wanted) in self.commits.sendable(now) {
            if let Some(owner) = owner_of(wanted.uid) {
                *uses.entry(owner).or_default() += 1;
                by_owner.entry(owner).or_default().commits.push(id);
            }
        }
        self.work_at_us = if next_us > now.mono_us { next_us } else { u64::MAX };
        for lane in &mut self.lanes {
            lane.uses = uses.remove(&(lane.owner.node, lane.owner.shard)).unwrap_or(0);
        }
        for ((node, shard), uses) in uses {
            let lane = self.lane_of(Owner { node, shard });
            self.lanes[lane].uses = uses;
        }
        for ((node, shard), due) in by_owner {
            let lane = self.lane_of(Owner { node, shard });
            if self.lanes[lane].open {
                self.ask_owner(lane, &due, now);
            }
        }
        self.tell_auto_errors();
    }

    fn ask_owner(&mut self, lane: usize, due: &Due, now: Now) {
        let Some(group_uid) = self.member.group_uid() else { return };
        for claims in due.claims.chunks(OFFSETS_PER_REQUEST_MAX) {
            let asks: Vec<OffsetAsk> =
                claims.iter().map(|&(partition_uid, assignment_epoch)| OffsetAsk { partition_uid, assignment_epoch }).collect();
            let request = FetchOffsetsRequest { group_uid, entries: List::of(&asks) };
            self.ask(lane, About::Claim(claims.to_vec()), |meta| request.encode(meta), now);
        }
        let at = self.reset_at().unwrap_or_default();
        for resets in due.resets.chunks(PARTITIONS_PER_REQUEST_MAX) {
            let queries: Vec<OffsetQuery> = resets.iter().map(|&partition_uid| OffsetQuery { partition_uid, at }).collect();
            let request = ListOffsetsRequest { entries: List::of(&queries) };
            self.ask(lane, About::Reset(resets.to_vec()), |meta| request.encode(meta), now);
        }
        let mut rest = due.commits.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let size = |id: &EntryId| COMMIT_ENTRY_BYTES + self.commits.wanted(*id).map_or(0, |wanted| wanted.metadata.len());
            let count = rest.iter().take_while(|id| (bytes += size(id), bytes <= COMMIT_BYTES_MAX).1).count();
            let (ids, others) = rest.split_at(count.max(1));
            rest = others;
            let wanted: Vec<_> = ids.iter().filter_map(|id| Some((*id, self.commits.wanted(*id)?.clone()))).collect();
            let entries: Vec<OffsetCommit<'_>> = wanted
                .iter()
                .map(|(_, of)| OffsetCommit {
                    partition_uid: of.uid,
                    assignment_epoch: of.epoch,
                    offset: of.offset,
                    metadata: &of.metadata,
                })
                .collect();
            let request = CommitOffsetsRequest { group_uid, entries: List::of(&entries) };
            let about = About::Commit(wanted.iter().map(|(id, of)| (*id, of.uid)).collect());
            self.ask(lane, about, |meta| request.encode(meta), now);
        }
    }

    /// Queues a request about partitions, and notes that it is under way.
    fn ask(&mut self, lane: usize, about: About, encode: impl FnOnce(&mut Vec<u8>), now: Now) {
        let until_us = now.mono_us.saturating_add(self.request_timeout_us);
        let state = &mut self.lanes[lane];
        // The requests are cut to what is well below the limits.
        let Ok(correlation) = state.conn.request(about.kind(), encode) else { return };
        state.alive.on_sent(now);
        match &about {
            About::Claim(claims) => claims.iter().for_each(|(uid, _)| set_asked(&mut self.holdings, *uid, true)),
            About::Reset(uids) => uids.iter().for_each(|uid| set_asked(&mut self.holdings, *uid, true)),
            About::Commit(ids) => ids.iter().for_each(|(id, _)| self.commits.on_sent(*id)),
            About::Home(_) => {}
        }
        self.lanes[lane].pending.push(Pending { correlation, until_us, about });
    }

    /// Bytes arrived on an open lane. An error: the connection has to be given up.
    pub(crate) fn on_received(&mut self, lane: usize, now: Now) -> Result<(), Error> {
        loop {
            let Lane { conn, pending, address, alive, backoff, .. } = &mut self.lanes[lane];
            let (frame, length) = match conn.peek() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                Err(error @ FrameError::FrameTooLarge { .. }) => {
                    return Err(Error::protocol(address, format!("{error}: raise frame_bytes_max")));
                }
                Err(error) => return Err(Error::protocol(address, error.to_string())),
            };
            let correlation = frame.header.correlation;
            let Some(at) = pending.iter().position(|pending| pending.correlation == correlation) else {
                if correlation == 0 && frame.header.is_error() {
                    return Err(refusal("speak with a member of a group", address, frame.meta));
                }
                // The answer to a ping, which is any word.
                conn.consume(length);
                alive.on_heard(now);
                continue;
            };
            let Pending { about, .. } = pending.swap_remove(at);
            let read = read_answer(&about, address, &frame);
            conn.consume(length);
            alive.on_heard(now);
            backoff.reset();
            if let Err(error @ Error::Protocol { .. }) = &read {
                let error = error.clone();
                self.fail_request(correlation, about, &error, now);
                return Err(error);
            }
            self.on_answer(correlation, about, read, now);
        }
    }

    fn on_answer(&mut self, correlation: u64, about: About, read: Result<Answer, Error>, now: Now) {
        let answer = match read {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(next) = error.next_address() {
                    if self.follow_home(correlation, &error, now) {
                        return;
                    }
                    self.wish.redirect_to(next);
                    self.wish.want(now);
                }
                return self.fail_request(correlation, about, &error, now);
            }
        };
        match (answer, about) {
            (Answer::Found { group_uid, home }, _) => {
                if self.take_home_ask(correlation) {
                    self.home = Some(home);
                    self.tell_member(now, Event::Found { group_uid });
                }
            }
            (Answer::Home(event), _) => {
                if self.take_home_ask(correlation) {
                    self.tell_member(now, event);
                }
            }
            (Answer::Claimed(entries), About::Claim(claims)) => self.on_claims(&claims, entries, now),
            (Answer::Listed(entries), About::Reset(uids)) => self.on_listed(&uids, entries, now),
            (Answer::Committed(entries), About::Commit(ids)) => self.on_committed(&ids, entries, now),
            (answer, about) => unreachable!("{answer:?} is read for {about:?}"),
        }
    }

    /// Whether this refused the request for the home that is under way, nothing was done, and another node was named: that one is asked at once.
    fn follow_home(&mut self, correlation: u64, error: &Error, now: Now) -> bool {
        let named = error.next_address().and_then(|next| self.cluster.owner_at(next));
        let GroupCore { home_ask: Some(ask), home_hops, .. } = self else { return false };
        let (Some(owner), Some(at)) = (named, ask.target) else { return false };
        let is_it = ask.sent == Some(correlation) && error.code() == Some(ErrorCode::NotLeader);
        if !is_it || !home_hops.may_follow(at, owner) {
            return false;
        }
        (ask.target, ask.sent) = (None, None);
        match ask.effect {
            Effect::Find => self.find_at = Some(owner),
            _ => self.home = Some(owner),
        }
        self.send_to_home(now);
        true
    }

    /// Whether this was the request for the home that is under way; it is over then.
    fn take_home_ask(&mut self, correlation: u64) -> bool {
        let is_it = self.home_ask.as_ref().is_some_and(|ask| ask.sent == Some(correlation));
        if is_it {
            self.home_hops = Hops::default();
            self.home_ask = None;
        }
        is_it
    }

    fn on_claims(&mut self, claims: &[(u64, u64)], entries: Vec<(u64, ErrorCode, u64)>, now: Now) {
        for (&(uid, epoch), (_, code, offset)) in claims.iter().zip(entries) {
            // Given up, or granted anew, since.
            if self.holdings.get(&uid).is_none_or(|holding| holding.epoch != epoch) {
                continue;
            }
            set_asked(&mut self.holdings, uid, false);
            // Sought since.
            if self.holdings[&uid].claim != Claim::Wanted {
                continue;
            }
            match code {
                ErrorCode::Ok => self.on_claimed(uid, (offset != OFFSET_NONE).then_some(offset)),
                code => self.on_claim_failed(uid, self.refused("claim", uid, code), now),
            }
        }
    }

    fn on_listed(&mut self, uids: &[u64], entries: Vec<(u64, ErrorCode, u64)>, now: Now) {
        for (&uid, (_, code, offset)) in uids.iter().zip(entries) {
            set_asked(&mut self.holdings, uid, false);
            // Given up, or sought, since.
            if self.holdings.get(&uid).is_none_or(|holding| holding.claim != Claim::Reset) {
                continue;
            }
            match code {
                ErrorCode::Ok => self.begin_reading(uid, Some(offset)),
                code => self.on_claim_failed(uid, self.refused("list offsets of", uid, code), now),
            }
        }
    }

    fn on_committed(&mut self, ids: &[(EntryId, u64)], entries: Vec<(u64, ErrorCode)>, now: Now) {
        for ((id, _), (uid, code)) in ids.iter().zip(entries) {
            let answer = if code.is_ok() { Ok(()) } else { Err(self.refused("commit an offset of", uid, code)) };
            if code.retriable() {
                self.wish.want(now);
            }
            let settled = self.commits.on_answer(*id, answer, now);
            if let Some(wanted) = settled
                && code == ErrorCode::StaleAssignment
                && self.holdings.get(&uid).is_some_and(|holding| holding.epoch == wanted.epoch)
            {
                self.lose(|lost| lost == uid);
            }
        }
        self.after_commits(now);
    }

    fn after_commits(&mut self, now: Now) {
        self.work = true;
        self.tell_auto_errors();
        self.let_go(now);
    }

    fn refused(&self, doing: &str, uid: u64, code: ErrorCode) -> Error {
        let of =
            self.name_of(uid).map_or_else(|| format!("uid {uid}"), |part| format!("topic {} partition {}", part.topic, part.partition));
        let request = format!("{doing} {of} for group {:?}", self.config.group);
        Error::Refused { request, code, retriable: code.retriable(), message: String::new(), next: None }
    }

    /// A request was refused, or got no answer.
    fn fail_request(&mut self, correlation: u64, about: About, error: &Error, now: Now) {
        match about {
            About::Home(_) => {
                if self.home_ask.as_ref().is_some_and(|ask| ask.sent == Some(correlation)) {
                    self.fail_home(error.clone(), now);
                }
            }
            About::Claim(claims) => {
                for (uid, epoch) in claims {
                    let Some(holding) = self.holdings.get_mut(&uid).filter(|holding| holding.epoch == epoch) else { continue };
                    holding.asked = false;
                    if holding.claim == Claim::Wanted {
                        self.on_claim_failed(uid, error.clone(), now);
                    }
                }
            }
            About::Reset(uids) => {
                for uid in uids {
                    set_asked(&mut self.holdings, uid, false);
                    // Not one that was sought since.
                    if self.holdings.get(&uid).is_some_and(|holding| holding.claim == Claim::Reset) {
                        self.on_claim_failed(uid, error.clone(), now);
                    }
                }
            }
            About::Commit(ids) => {
                for (id, _) in ids {
                    self.commits.on_answer(id, Err(error.clone()), now);
                }
                self.wish.want(now);
                self.after_commits(now);
            }
        }
    }

    /// The request for the home failed.
    pub(super) fn fail_home(&mut self, error: Error, now: Now) {
        // Whoever was named did not do, or whoever says where the home is says it wrong: all are asked again by turns.
        if self.home_ask.take().is_some() && self.find_at.take().is_none() {
            self.find_turn = self.find_turn.wrapping_add(1);
        }
        self.tell_member(now, Event::Failed(error));
    }

    /// A connection is lost: all that was asked over it, and what waited for it to ask the home.
    pub(super) fn fail_lane(&mut self, lane: usize, error: &Error, now: Now) {
        let owner = self.lanes[lane].owner;
        for Pending { correlation, about, .. } in std::mem::take(&mut self.lanes[lane].pending) {
            self.fail_request(correlation, about, error, now);
        }
        if self.home_ask.as_ref().is_some_and(|ask| ask.target == Some(owner) && ask.sent.is_none()) {
            self.fail_home(error.clone(), now);
        }
    }
}

fn set_asked(holdings: &mut BTreeMap<u64, super::Holding>, uid: u64, asked: bool) {
    if let Some(holding) = holdings.get_mut(&uid) {
        holding.asked = asked;
    }
}

/// Takes the reply to a request apart; those about partitions have to answer the questions in their order.
fn read_answer(about: &About, address: &str, frame: &Frame<'_>) -> Result<Answer, Error> {
    let kind = about.kind();
    let read = |meta: &[u8]| -> Result<Answer, DecodeError> {
        Ok(match kind {
            Kind::FindGroup => {
                let reply = FindGroupReply::decode(meta)?;
                Answer::Found { group_uid: reply.group_uid, home: Owner { node: reply.node, shard: reply.shard } }
            }
            Kind::JoinGroup => {
                let reply = JoinGroupReply::decode(meta)?;
                Answer::Home(Event::Joined { member_id: reply.member_id, epoch: reply.epoch, list: owned(reply.partitions) })
            }
            Kind::HeartbeatGroup => {
                let reply = HeartbeatGroupReply::decode(meta)?;
                Answer::Home(Event::Beaten { epoch: reply.epoch, list: owned(reply.partitions) })
            }
            Kind::LeaveGroup => LeaveGroupReply::decode(meta).map(|_| Answer::Home(Event::Left))?,
            Kind::FetchOffsets => {
                let entries = FetchOffsetsReply::decode(meta)?.entries;
                Answer::Claimed(entries.iter().map(|entry| (entry.partition_uid, entry.error, entry.offset)).collect())
            }
            Kind::ListOffsets => {
                let entries = ListOffsetsReply::decode(meta)?.entries;
                Answer::Listed(entries.iter().map(|entry| (entry.partition_uid, entry.error, entry.offset)).collect())
            }
            _ => {
                let entries = CommitOffsetsReply::decode(meta)?.entries;
                Answer::Committed(entries.iter().map(|entry| (entry.partition_uid, entry.error)).collect())
            }
        })
    };
    let what = match kind {
        Kind::FindGroup => "find the group",
        Kind::JoinGroup => "join the group",
        Kind::HeartbeatGroup => "stay a member of the group",
        Kind::LeaveGroup => "leave the group",
        Kind::FetchOffsets => "claim partitions for the group",
        Kind::ListOffsets => "list offsets",
        _ => "commit offsets",
    };
    let answer = read_reply(what, address, kind, frame, read)?;
    let is_answered = match (&answer, about) {
        (Answer::Claimed(entries), About::Claim(asked)) => entries.iter().map(|entry| entry.0).eq(asked.iter().map(|asked| asked.0)),
        (Answer::Listed(entries), About::Reset(asked)) => entries.iter().map(|entry| entry.0).eq(asked.iter().copied()),
        (Answer::Committed(entries), About::Commit(asked)) => entries.iter().map(|entry| entry.0).eq(asked.iter().map(|asked| asked.1)),
        _ => true,
    };
    if !is_answered {
        return Err(Error::protocol(address, format!("its reply to {what} answers other questions than were asked")));
    }
    Ok(answer)
}
