//! Consumers of queues: the exported functions.
//!
//! Invariants: nothing is leased that cannot be handed out; what was received stays where it is until the next receive; each settlement has a result of its own, also when the call
//! as a whole failed; a queue's consumer does one call at a time. Not here: what it promises (`tramline-client`), the views of messages (`messages`).

use std::ffi::{c_char, c_int};
use std::time::Duration;

use tramline_client::{LeaseToken, QueueConsumer, QueueConsumerConfig, Settle};

use crate::args;
use crate::client::{check_reserved, with_client};
use crate::constants::{DELAY_BY_POLICY_US, OK, SETTLE_ACK, SETTLE_EXTEND, SETTLE_NACK, SETTLE_REJECT, SETTLE_RELEASE};
use crate::failure::Failure;
use crate::guard::guard;
use crate::handles::{Kind, Table};
use crate::layout::{
    ClientHandle, MessageView, QueueConsumerCounts, QueueConsumerHandle, QueueConsumerOptions, Settled, Settlement, Token,
};
use crate::messages::Received;
use crate::queue::lease_token;

static QUEUE_CONSUMERS: Table<Holder> = Table::new(Kind::QueueConsumer);

struct Holder {
    consumer: QueueConsumer,
    /// What the caller may look at until the next receive.
    received: Received,
}

fn defaults() -> QueueConsumerOptions {
    let config = QueueConsumerConfig::default();
    QueueConsumerOptions {
        struct_size: size_of::<QueueConsumerOptions>(),
        consumer: std::ptr::null(),
        visibility_us: 0,
        max_bytes: config.max_bytes,
        verify_checksums: u32::from(config.verify_checksums),
        batch_values_bytes_max: config.batch_values_bytes_max,
        reserved: 0,
    }
}

/// # Safety
/// `options.consumer` is null, or NUL-terminated.
unsafe fn config(options: QueueConsumerOptions) -> Result<QueueConsumerConfig, Failure> {
    check_reserved(options.reserved)?;
    let mut config = QueueConsumerConfig::default();
    if !options.consumer.is_null() {
        // SAFETY: as the caller says.
        config.consumer = unsafe { args::text(options.consumer, "consumer")? }.to_string();
    }
    config.visibility = (options.visibility_us != 0).then(|| Duration::from_micros(options.visibility_us));
    config.max_bytes = options.max_bytes;
    config.verify_checksums = args::flag(options.verify_checksums, "verify_checksums")?;
    config.batch_values_bytes_max = options.batch_values_bytes_max;
    Ok(config)
}

/// A reason; null is none.
///
/// # Safety
/// Null, or NUL-terminated.
unsafe fn reason_of(reason: *const c_char) -> Result<String, Failure> {
    match reason.is_null() {
        true => Ok(String::new()),
        // SAFETY: as the caller says.
        false => Ok(unsafe { args::text(reason, "reason")? }.to_string()),
    }
}

fn delay_of(delay_us: u64) -> Option<Duration> {
    (delay_us != DELAY_BY_POLICY_US).then(|| Duration::from_micros(delay_us))
}

/// What a settlement of the caller says. What its action does not have must not be given: it would be lost in silence.
///
/// # Safety
/// Its reason is null, or NUL-terminated.
unsafe fn settle_of(of: &Settlement) -> Result<(LeaseToken, Settle), Failure> {
    check_reserved(of.reserved)?;
    let (has_time, has_reason) = match of.action {
        SETTLE_ACK | SETTLE_RELEASE => (false, false),
        SETTLE_NACK => (true, true),
        SETTLE_EXTEND => (true, false),
        SETTLE_REJECT => (false, true),
        other => {
            return Err(Failure::argument(format!(
                "the action of a settlement is {other}, which means nothing: see TRAMLINE_SETTLE_... in tramline.h"
            )));
        }
    };
    if !has_time && of.time_us != 0 {
        return Err(Failure::argument(format!("time_us is {}: only a nack and an extend have a time, else it has to be 0", of.time_us)));
    }
    if !has_reason && !of.reason.is_null() {
        return Err(Failure::argument("a reason is given: only a nack and a reject have one, else it has to be NULL"));
    }
    // SAFETY: as the caller says.
    let reason = unsafe { reason_of(of.reason)? };
    let settle = match of.action {
        SETTLE_ACK => Settle::Ack,
        SETTLE_NACK => Settle::Nack { delay: delay_of(of.time_us), reason },
        SETTLE_EXTEND => Settle::Extend(Duration::from_micros(of.time_us)),
        SETTLE_RELEASE => Settle::Release,
        _ => Settle::Reject { reason },
    };
    Ok((lease_token(of.token), settle))
}

/// Settles one message.
fn settle_one(
    consumer: QueueConsumerHandle,
    token: Token,
    settle: impl FnOnce(&mut QueueConsumer, LeaseToken) -> Result<(), tramline_client::Error>,
) -> Result<(), Failure> {
    QUEUE_CONSUMERS.with(consumer.id, |holder| Ok(settle(&mut holder.consumer, lease_token(token))?))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_consumer_options_defaults(options: *mut QueueConsumerOptions, options_size: usize) -> c_int {
    // SAFETY: the caller says that `options_size` bytes can be written there, or gives null.
    guard(|| unsafe { args::put_struct(options, options_size, defaults(), "options") })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_consumer_open(
    client: ClientHandle,
    queue: *const c_char,
    options: *const QueueConsumerOptions,
    out: *mut QueueConsumerHandle,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a handle, or gives null.
        unsafe { args::put(out, QueueConsumerHandle { id: 0 }, "out")? };
        // SAFETY: the caller says that strings are NUL-terminated and the struct is as long as it says, or gives null.
        let (queue, config) = unsafe {
            let options = if options.is_null() { defaults() } else { args::sized(options, "options")? };
            (args::text(queue, "queue")?, config(options)?)
        };
        let consumer = with_client(client, |client| Ok(client.queue_consumer(queue, config)?))?;
        let id = QUEUE_CONSUMERS.insert(Holder { consumer, received: Received::default() })?;
        // SAFETY: as above.
        unsafe { args::put(out, QueueConsumerHandle { id }, "out") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_consumer_receive(
    consumer: QueueConsumerHandle,
    max_messages: u32,
    wait_us: u64,
    messages: *mut *const *const MessageView,
    count: *mut usize,
) -> c_int {
    guard(|| {
        // Before anything is leased that could not be told then.
        // SAFETY: the caller says that there is room for a pointer and a number, or gives null.
        unsafe {
            args::put(messages, std::ptr::null(), "messages")?;
            args::put(count, 0, "count")?;
        }
        let (array, len) = QUEUE_CONSUMERS.with(consumer.id, |holder| {
            holder.received = Received::default();
            holder.received = Received::new(holder.consumer.receive(max_messages, Duration::from_micros(wait_us))?);
            Ok(holder.received.array())
        })?;
        // SAFETY: as above.
        unsafe {
            args::put(messages, array, "messages")?;
            args::put(count, len, "count")
        }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_queue_consumer_ack(consumer: QueueConsumerHandle, token: Token) -> c_int {
    guard(|| settle_one(consumer, token, |consumer, token| consumer.ack(token)))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_consumer_nack(
    consumer: QueueConsumerHandle,
    token: Token,
    delay_us: u64,
    reason: *const c_char,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let reason = unsafe { reason_of(reason)? };
        settle_one(consumer, token, |consumer, token| consumer.nack(token, delay_of(delay_us), &reason))
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_queue_consumer_extend(consumer: QueueConsumerHandle, token: Token, length_us: u64) -> c_int {
    guard(|| settle_one(consumer, token, |consumer, token| consumer.extend(token, Duration::from_micros(length_us))))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_queue_consumer_release(consumer: QueueConsumerHandle, token: Token) -> c_int {
    guard(|| settle_one(consumer, token, |consumer, token| consumer.release(token)))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_consumer_reject(consumer: QueueConsumerHandle, token: Token, reason: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let reason = unsafe { reason_of(reason)? };
        settle_one(consumer, token, |consumer, token| consumer.reject(token, &reason))
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_consumer_settle(
    consumer: QueueConsumerHandle,
    settlements: *const Settlement,
    count: usize,
    results: *mut Settled,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that so many are there, or gives null.
        let given = unsafe { args::settlements(settlements, count)? };
        // SAFETY: the caller says that the reasons are NUL-terminated, or gives null.
        let wanted = given.iter().map(|of| unsafe { settle_of(of) }).collect::<Result<Vec<_>, _>>();
        let settled = wanted.and_then(|wanted| QUEUE_CONSUMERS.with(consumer.id, |holder| Ok(holder.consumer.settle(&wanted)?)));
        match settled {
            Ok(each) => {
                let failures: Vec<Option<Failure>> = each.into_iter().map(|result| result.err().map(Failure::from)).collect();
                let told = failures.iter().map(|of| of.as_ref().map_or(Settled { status: OK, code: 0 }, settled_of));
                // SAFETY: the caller says that there is room for so many, or gives null.
                unsafe { args::put_results(results, told) };
                failures.into_iter().flatten().next().map_or(Ok(()), Err)
            }
            Err(failure) => {
                // SAFETY: as above.
                unsafe { args::put_results(results, given.iter().map(|_| settled_of(&failure))) };
                Err(failure)
            }
        }
    })
}

fn settled_of(failure: &Failure) -> Settled {
    Settled { status: failure.status, code: u32::from(failure.code) }
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_queue_consumer_close(consumer: QueueConsumerHandle, timeout_us: u64) -> c_int {
    guard(|| QUEUE_CONSUMERS.end(consumer.id, |holder| Ok(holder.consumer.close(Duration::from_micros(timeout_us))?)))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_queue_consumer_metrics(
    consumer: QueueConsumerHandle,
    out: *mut QueueConsumerCounts,
    out_size: usize,
) -> c_int {
    guard(|| {
        let now = QUEUE_CONSUMERS.with(consumer.id, |holder| Ok(holder.consumer.metrics()))?;
        let counts = QueueConsumerCounts {
            struct_size: 0,
            messages: now.messages,
            given_back: now.given_back,
            bytes_received: now.bytes_received,
            receives_sent: now.receives_sent,
            settled: now.settled,
            refusals: now.refusals,
            corrupt_batches: now.corrupt_batches,
            connections_opened: now.connections_opened,
            connections_lost: now.connections_lost,
            metadata_refreshes: now.metadata_refreshes,
        };
        // SAFETY: the caller says that `out_size` bytes can be written there, or gives null.
        unsafe { args::put_struct(out, out_size, counts, "out") }
    })
}
