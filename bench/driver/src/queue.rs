//! Queues over bare connections: creating them (a topic takes its queues with it), receiving, settling.
//!
//! Invariants: of a receive's reply each delivery is checked to be of a batch that came along, and each settled message to be settled.
//!
//! Not here: what is measured (`queue_cycle.rs`, `queue_latency.rs`, `queue_stall.rs`).

use crate::error::BenchError;
use crate::hot_socket::HotSocket;
use crate::target::Target;
use tramline_wire::batch::Batches;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::queue::{
    CreateQueueFlags, CreateQueueReply, CreateQueueRequest, Delivery, QueueStart, ReceiveReply, ReceiveRequest, SettleAction, SettleEntry,
    SettleReply, SettleRequest,
};
use tramline_wire::topics::Setting;

/// Who receives.
const CONSUMER: &str = "bench";
/// The longest lease that there is: whatever disturbs, no message is delivered twice.
const VISIBILITY_MS: u32 = 43_200_000;
/// Payload of one reply at most: one batch of the rows here is much less.
const RECEIVE_BYTES: u32 = 1 << 20;

/// A queue on a topic of one partition.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its identity.
    pub uid: u64,
    /// Identity of the partition.
    pub partition: u64,
}

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Which.
    pub offset: u64,
    /// Under which lease.
    pub lease: u64,
}

/// Creates a queue with the name of its topic, from the oldest message on.
pub fn create(target: &Target, settings: &[(&str, String)]) -> Result<Queue, BenchError> {
    let mut socket = HotSocket::connect(&target.address)?;
    let settings: Vec<Setting<'_>> = settings.iter().map(|(key, value)| Setting { key, value }).collect();
    let create = CreateQueueRequest {
        name: &target.topic,
        topic: &target.topic,
        flags: CreateQueueFlags::default(),
        start: QueueStart::Earliest,
        start_us: 0,
        settings: List::of(&settings),
    };
    let mut request = Vec::new();
    socket.request(&mut request, Kind::CreateQueue, 0, |out| create.encode(out))?;
    socket.send_all(&request)?;
    let frame = socket.wait_frame()?;
    let reply = CreateQueueReply::decode(frame.meta).map_err(|e| BenchError::Wrong(e.to_string()))?;
    Ok(Queue { uid: reply.queue_uid, partition: target.uids[0] })
}

/// Asks for up to `max` messages; answers the request's correlation.
pub fn receive(socket: &mut HotSocket, out: &mut Vec<u8>, queue: &Queue, max: u32, wait_ms: u32) -> Result<u64, BenchError> {
    let request = ReceiveRequest {
        queue_uid: queue.uid,
        max_messages: max,
        max_bytes: RECEIVE_BYTES,
        wait_ms,
        visibility_ms: VISIBILITY_MS,
        consumer: CONSUMER,
        partitions: List::of(std::slice::from_ref(&queue.partition)),
    };
    socket.request(out, Kind::Receive, 0, |out| request.encode(out))
}

/// Acknowledges messages; answers the request's correlation.
pub fn ack(socket: &mut HotSocket, out: &mut Vec<u8>, queue: &Queue, messages: &[Message]) -> Result<u64, BenchError> {
    let entry = |message: &Message| SettleEntry {
        partition_uid: queue.partition,
        offset: message.offset,
        lease: message.lease,
        action: SettleAction::Ack,
        delay_ms: 0,
        reason: "",
    };
    let entries: Vec<SettleEntry<'_>> = messages.iter().map(entry).collect();
    let request = SettleRequest { queue_uid: queue.uid, consumer: CONSUMER, entries: List::of(&entries) };
    socket.request(out, Kind::Settle, 0, |out| request.encode(out))
}

/// Takes the messages of a receive's reply; none where the wait was over.
pub fn take_received(frame: &Frame<'_>, messages: &mut Vec<Message>) -> Result<(), BenchError> {
    let wrong = |e: &dyn std::fmt::Display| BenchError::Wrong(format!("a receive reply: {e}"));
    let reply = ReceiveReply::decode(frame.meta).map_err(|e| wrong(&e))?;
    messages.clear();
    for (entry, part) in reply.parts(frame.payload).map_err(|e| wrong(&e))? {
        if !entry.error.is_ok() {
            return Err(BenchError::Refused(entry.error, "a receive".to_owned()));
        }
        let mut batches = Batches::new(part);
        let mut held = 0..0;
        for Delivery { offset, lease, deliveries } in entry.deliveries.iter() {
            // Messages come in order of offset here, as their batches do.
            while !held.contains(&offset) {
                let batch = batches.next().ok_or_else(|| wrong(&format_args!("message {offset} without its batch")))?;
                let batch = batch.map_err(|e| wrong(&e))?;
                held = batch.base_offset()..batch.next_offset();
            }
            if deliveries != 1 {
                return Err(wrong(&format_args!("message {offset} was delivered {deliveries} times")));
            }
            messages.push(Message { offset, lease });
        }
    }
    Ok(())
}

/// Looks at a settle's reply; how many messages are settled.
pub fn take_settled(frame: &Frame<'_>) -> Result<u64, BenchError> {
    let reply = SettleReply::decode(frame.meta).map_err(|e| BenchError::Wrong(format!("a settle reply: {e}")))?;
    let mut settled = 0;
    for entry in reply.entries.iter() {
        if entry.error != ErrorCode::Ok {
            return Err(BenchError::Refused(entry.error, format!("to settle message {}", entry.offset)));
        }
        settled += 1;
    }
    Ok(settled)
}
