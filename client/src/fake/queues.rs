//! Queues of the fake broker: leases without an end, counts, and the answers to what is asked about messages. One queue is enough: it is on the first topic.
//!
//! Time stands still but for Receives that wait, which end by the real clock or when a test says so.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tramline_wire::batch::Batches;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{self, Frame, FrameHeader};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::queue::*;

use super::FakeBroker;
use super::script::{refusal_of, reply};

/// Uid of the queue.
pub(crate) const QUEUE_UID: u64 = 7_000;
/// Its leases last so long, in milliseconds.
pub(crate) const VISIBILITY_MS: u32 = 30_000;

/// One delivered message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// 0: none.
    pub lease: u64,
    pub deliveries: u32,
    pub settled: bool,
    pub dead: bool,
    /// A nack with a delay: in milliseconds.
    pub delay_ms: u32,
    pub reason: String,
    pub holder: String,
}

#[derive(Debug)]
struct Waiting {
    conn: u32,
    header: FrameHeader,
    max_messages: u32,
    uids: Vec<u64>,
    consumer: String,
    until: Instant,
}

/// Changes the meta and the payload of a reply.
pub(crate) type Spoil = fn(&mut Vec<u8>, &mut Vec<u8>);

/// The queue, if `name` is not empty.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub name: String,
    pub messages: BTreeMap<(u64, u64), State>,
    /// Refusals for the next partitions asked for.
    pub refusals: BTreeMap<u64, VecDeque<ErrorCode>>,
    /// The same for settlements.
    pub settle_refusals: VecDeque<ErrorCode>,
    /// Settlements are done, and not answered.
    pub swallows_answers: bool,
    /// Told with each reply.
    pub throttle_ms: u32,
    /// The next reply is spoiled so: its meta, its payload.
    pub spoil: Option<Spoil>,
    /// Waits and counts of the Receives that came.
    pub asked: Vec<(u32, u32)>,
    /// Numbers of partitions that they named.
    pub named: Vec<usize>,
    /// Numbers of entries of the Settles that came.
    pub settles: Vec<usize>,
    /// Waits end when a test says so, not by the clock.
    pub waits_by_hand: bool,
    last_lease: u64,
    waiting: Vec<Waiting>,
}

impl Queues {
    pub(super) fn disconnect(&mut self, conn: u32) {
        self.waiting.retain(|waiting| waiting.conn != conn);
    }

    /// Receives that wait are answered with nothing at the next look.
    pub(crate) fn end_waits(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.until = Instant::now());
    }

    /// Whether a Receive waits.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl FakeBroker {
    /// The state of a message.
    pub(crate) fn message(&self, uid: u64, offset: u64) -> State {
        self.queues.messages.get(&(uid, offset)).cloned().unwrap_or_default()
    }

    pub(super) fn receive_messages(&mut self, conn: u32, frame: &Frame<'_>) {
        let request = ReceiveRequest::decode(frame.meta).expect("decodes");
        assert!((1..=QUEUE_MESSAGES_MAX).contains(&request.max_messages) && !request.partitions.is_empty());
        let uids: Vec<u64> = request.partitions.iter().collect();
        let mut owners: Vec<_> = uids.iter().filter_map(|uid| self.shard_of(*uid)).collect();
        owners.dedup();
        assert!(owners.len() <= 1, "partitions of several owners in one Receive");
        self.queues.asked.push((request.wait_ms, request.max_messages));
        self.queues.named.push(uids.len());
        let of_owner = self.topics[0].partitions.iter().filter(|uid| self.shard_of(**uid) == owners.first().copied()).count();
        assert!(uids.len() <= 4096, "more partitions than a Receive can name");
        if uids.len() > RECEIVE_NAMED_MAX && uids.len() < of_owner {
            self.outboxes.entry(conn).or_default().extend_from_slice(&refusal_of(frame, ErrorCode::LimitExceeded));
            return;
        }
        assert!(!self.queues.waiting.iter().any(|waiting| waiting.conn == conn), "a second Receive on one connection");
        let by_clock = Duration::from_millis(request.wait_ms.into());
        let wait = if self.queues.waits_by_hand && request.wait_ms > 0 { Duration::from_secs(3600) } else { by_clock };
        self.queues.waiting.push(Waiting {
            conn,
            header: frame.header,
            max_messages: request.max_messages,
            uids,
            consumer: request.consumer.to_string(),
            until: Instant::now() + wait,
        });
    }

    /// Answers the Receives of a connection for which there is something, or whose time is over.
    pub(super) fn advance_receives(&mut self, conn: u32) {
        for waiting in std::mem::take(&mut self.queues.waiting) {
            let has_answer = waiting.conn == conn && self.answer(&waiting);
            if !has_answer {
                self.queues.waiting.push(waiting);
            }
        }
    }

    fn answer(&mut self, waiting: &Waiting) -> bool {
        let mut meta = Vec::new();
        let mut payload = Vec::new();
        let mut left = waiting.max_messages;
        let mut writer = ReceiveReplyWriter::begin(&mut meta, self.queues.throttle_ms);
        for &uid in &waiting.uids {
            let refusal = self.queues.refusals.get_mut(&uid).and_then(VecDeque::pop_front);
            match (refusal, self.queues.name.is_empty(), self.logs.contains_key(&uid)) {
                (Some(code), ..) => writer.entry(&mut meta, uid, code),
                (_, true, _) => writer.entry(&mut meta, uid, ErrorCode::QueueDeleted),
                (_, _, false) => writer.entry(&mut meta, uid, ErrorCode::UnknownPartition),
                _ => self.deliver_of(uid, &mut left, &waiting.consumer, &mut writer, &mut meta, &mut payload),
            }
        }
        if writer.is_empty() && Instant::now() < waiting.until {
            return false;
        }
        writer.finish(&mut meta);
        if let Some(spoil) = self.queues.spoil.take() {
            spoil(&mut meta, &mut payload);
        }
        let mut out = Vec::new();
        let start = frame::begin_reply(&mut out, &waiting.header, 0);
        out.extend_from_slice(&meta);
        frame::finish_frame(&mut out, start, payload.len()).expect("within the limits");
        out.extend_from_slice(&payload);
        self.outboxes.entry(waiting.conn).or_default().extend_from_slice(&out);
        true
    }

    fn deliver_of(
        &mut self,
        uid: u64,
        left: &mut u32,
        consumer: &str,
        writer: &mut ReceiveReplyWriter,
        meta: &mut Vec<u8>,
        payload: &mut Vec<u8>,
    ) {
        let FakeBroker { logs, queues, .. } = self;
        let mut begun = false;
        for batch in Batches::new(&logs[&uid].bytes) {
            let batch = batch.expect("a stored batch");
            let mut is_sent = false;
            for offset in batch.base_offset()..batch.next_offset() {
                let state = queues.messages.entry((uid, offset)).or_default();
                if *left == 0 || state.settled || state.dead || state.lease != 0 || state.delay_ms != 0 {
                    continue;
                }
                *left -= 1;
                queues.last_lease += 1;
                (state.lease, state.holder) = (queues.last_lease, consumer.to_string());
                state.deliveries += 1;
                if !begun {
                    begun = true;
                    writer.entry(meta, uid, ErrorCode::Ok);
                }
                writer.delivery(meta, &Delivery { offset, lease: state.lease, deliveries: state.deliveries });
                is_sent = true;
            }
            if is_sent {
                writer.payload(batch.bytes().len() as u32);
                payload.extend_from_slice(batch.bytes());
            }
        }
    }

    pub(super) fn about_queue(&mut self, kind: Kind, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let Frame { header, .. } = frame;
        if self.queues.name.is_empty() {
            return frame::write_error(out, header.kind, header.version, header.correlation, ErrorCode::UnknownQueue, "", "");
        }
        match kind {
            Kind::FindQueue => {
                let topic = &self.topics[0];
                let body = FindQueueReply {
                    queue_uid: QUEUE_UID,
                    topic_uid: topic.uid,
                    topic: &topic.name,
                    visibility_timeout_ms: VISIBILITY_MS,
                    flags: QueueFlags(0),
                };
                reply(out, frame, |out| body.encode(out));
            }
            Kind::Settle => self.settle(frame, out),
            Kind::Browse => self.browse(frame, out),
            Kind::Purge => {
                let uids: Vec<u64> = PurgeRequest::decode(frame.meta).expect("decodes").partitions.iter().collect();
                let purged: Vec<Purged> = uids.iter().map(|&partition_uid| self.purge(partition_uid)).collect();
                reply(out, frame, |out| PurgeReply { entries: List::of(&purged) }.encode(out));
            }
            Kind::DeleteMessages => {
                let entries: Vec<MessageAt> = DeleteMessagesRequest::decode(frame.meta).expect("decodes").entries.iter().collect();
                let told: Vec<SettledMessage> = entries.iter().map(|at| self.delete_message(at)).collect();
                reply(out, frame, |out| DeleteMessagesReply { entries: List::of(&told) }.encode(out));
            }
            _ => {
                let request = RedriveRequest::decode(frame.meta).expect("decodes");
                let told: Vec<Redriven> = request.partitions.iter().map(|uid| self.redrive(uid, &request)).collect();
                reply(out, frame, |out| RedriveReply { entries: List::of(&told) }.encode(out));
            }
        }
    }

    fn settle(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let request = SettleRequest::decode(frame.meta).expect("decodes");
        assert_eq!(request.queue_uid, QUEUE_UID);
        self.queues.settles.push(request.entries.len());
        let entries: Vec<SettleEntry<'_>> = request.entries.iter().collect();
        let told: Vec<SettledMessage> = entries.iter().map(|entry| self.settle_one(entry)).collect();
        if !self.queues.swallows_answers {
            let body = SettleReply { throttle_ms: self.queues.throttle_ms, entries: List::of(&told) };
            reply(out, frame, |out| body.encode(out));
        }
    }

    fn settle_one(&mut self, entry: &SettleEntry<'_>) -> SettledMessage {
        let &SettleEntry { partition_uid, offset, lease, action, delay_ms, reason } = entry;
        let told = |error| SettledMessage { partition_uid, offset, error };
        if let Some(code) = self.queues.settle_refusals.pop_front().filter(|code| !code.is_ok()) {
            return told(code);
        }
        let Some(state) = self.queues.messages.get_mut(&(partition_uid, offset)).filter(|state| !state.settled) else {
            return told(ErrorCode::UnknownLease);
        };
        if state.lease != lease {
            return told(if lease < state.lease { ErrorCode::LeaseLost } else { ErrorCode::UnknownLease });
        }
        state.reason = reason.to_string();
        match action {
            SettleAction::Ack => state.settled = true,
            SettleAction::Nack => {
                state.lease = 0;
                state.delay_ms = if delay_ms == DELAY_BY_POLICY { 1_000 } else { delay_ms };
            }
            SettleAction::Extend => state.delay_ms = 0,
            SettleAction::Release => {
                state.lease = 0;
                state.deliveries -= 1;
            }
            SettleAction::Reject => (state.lease, state.dead) = (0, true),
        }
        told(ErrorCode::Ok)
    }

    fn browse(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let request = BrowseRequest::decode(frame.meta).expect("decodes");
        let end = self.logs[&request.partition_uid].next_offset;
        let next = end.min(request.from + u64::from(request.max_messages)).max(request.from);
        let states: Vec<(u64, State)> = (request.from..next)
            .map(|offset| (offset, self.message(request.partition_uid, offset)))
            .filter(|(_, state)| !state.settled)
            .collect();
        let messages: Vec<BrowsedMessage<'_>> = states
            .iter()
            .map(|(offset, state)| BrowsedMessage {
                offset: *offset,
                state: match state {
                    State { dead: true, .. } => MessageState::Dead,
                    State { lease: 0, delay_ms: 0, .. } => MessageState::Ready,
                    State { lease: 0, .. } => MessageState::Delayed,
                    _ => MessageState::Leased,
                },
                priority: 0,
                deliveries: state.deliveries,
                lease: state.lease,
                until_us: TIME_NONE_US,
                consumer: if state.lease == 0 { "" } else { &state.holder },
                reason: &state.reason,
            })
            .filter(|message| request.state == BrowseState::Any || request.state as u8 == message.state as u8)
            .collect();
        let body = BrowseReply { next, end: next == end, messages: List::of(&messages) };
        reply(out, frame, |out| body.encode(out));
    }

    fn purge(&mut self, partition_uid: u64) -> Purged {
        let error = self.queues.refusals.get_mut(&partition_uid).and_then(VecDeque::pop_front).unwrap_or(ErrorCode::Ok);
        let mut purged = 0;
        for offset in 0..self.logs[&partition_uid].next_offset {
            let state = self.queues.messages.entry((partition_uid, offset)).or_default();
            if error.is_ok() && !std::mem::replace(&mut state.settled, true) {
                purged += 1;
            }
        }
        Purged { partition_uid, error, purged }
    }

    fn delete_message(&mut self, at: &MessageAt) -> SettledMessage {
        let &MessageAt { partition_uid, offset } = at;
        let error = match self.queues.settle_refusals.pop_front() {
            Some(code) if !code.is_ok() => code,
            _ if offset >= self.logs[&partition_uid].next_offset => ErrorCode::UnknownMessage,
            _ => match std::mem::replace(&mut self.queues.messages.entry((partition_uid, offset)).or_default().settled, true) {
                true => ErrorCode::UnknownMessage,
                false => ErrorCode::Ok,
            },
        };
        SettledMessage { partition_uid, offset, error }
    }

    fn redrive(&mut self, partition_uid: u64, request: &RedriveRequest<'_>) -> Redriven {
        let most = if request.max_messages == 0 { REDRIVEN_MAX as usize } else { request.max_messages as usize };
        let dead = self.queues.messages.iter_mut().filter(|((uid, _), state)| *uid == partition_uid && state.dead).take(most);
        let mut redriven = 0;
        for (_, state) in dead {
            redriven += 1;
            if !request.flags.has(RedriveFlags::DRY_RUN) {
                *state = State::default();
            }
        }
        Redriven { partition_uid, error: ErrorCode::Ok, redriven }
    }
}
