//! Consumers: the exported functions.
//!
//! Invariants: what a callback gets is valid during that call only; the count of records handed out is told also when an error ends a call; a consumer does
//! one call at a time. Not here: what a consumer promises (`tramline-client`).

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tramline_client::{Consumer, ConsumerConfig, RecordView as ClientRecord, Start};

use crate::args;
use crate::client::with_client;
use crate::constants::{E_TIMEOUT, OFFSET_NONE, PARTITION_ALL, START_EARLIEST, START_LATEST, START_OFFSET, START_TIME};
use crate::failure::Failure;
use crate::guard::guard;
use crate::handles::{Kind, Table};
use crate::layout::{ClientHandle, ConsumerCounts, ConsumerHandle, ConsumerOptions, Header, RecordView};

static CONSUMERS: Table<Consumer> = Table::new(Kind::Consumer);

/// A caller's function for records; anything but 0 ends the call after this record.
pub type RecordFn = unsafe extern "C" fn(record: *const RecordView, user: *mut c_void) -> c_int;

fn defaults() -> ConsumerOptions {
    let config = ConsumerConfig::default();
    ConsumerOptions {
        struct_size: size_of::<ConsumerOptions>(),
        credit_bytes: config.credit_bytes,
        partition_bytes_max: config.partition_bytes_max,
        verify_checksums: u32::from(config.verify_checksums),
        batch_values_bytes_max: config.batch_values_bytes_max,
    }
}

fn config(options: ConsumerOptions) -> Result<ConsumerConfig, Failure> {
    Ok(ConsumerConfig {
        credit_bytes: options.credit_bytes,
        partition_bytes_max: options.partition_bytes_max,
        verify_checksums: args::flag(options.verify_checksums, "verify_checksums")?,
        batch_values_bytes_max: options.batch_values_bytes_max,
    })
}

/// Where the caller says that reading starts.
pub fn start(kind: c_int, at: u64) -> Result<Start, Failure> {
    match kind {
        START_EARLIEST | START_LATEST if at != 0 => {
            Err(Failure::argument(format!("at is {at}, which means nothing for earliest and latest: give 0, or TRAMLINE_START_OFFSET")))
        }
        START_EARLIEST => Ok(Start::Earliest),
        START_LATEST => Ok(Start::Latest),
        START_OFFSET if at == OFFSET_NONE => Err(Failure::argument("at is TRAMLINE_OFFSET_NONE, which is no offset: none was told")),
        START_OFFSET => Ok(Start::Offset(at)),
        START_TIME => match i64::try_from(at) {
            Ok(us) => Ok(Start::Time(us)),
            Err(_) => Err(Failure::argument(format!("the time {at} us is no time: give microseconds since 1970"))),
        },
        other => Err(Failure::argument(format!("start is {other}, which means nothing: see TRAMLINE_START_... in tramline.h"))),
    }
}

/// A pointer that is null only where there is nothing, not where it is empty.
fn parts(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

/// Hands records to a caller's function.
pub struct Hand {
    each: RecordFn,
    user: *mut c_void,
    /// Room that is used again, so that only the first record with headers of a call allocates.
    headers: Vec<Header>,
    count: usize,
    stopped: bool,
}

impl Hand {
    /// Without a function there is nobody to hand records to.
    pub fn new(each: Option<RecordFn>, user: *mut c_void) -> Result<Hand, Failure> {
        let each = each.ok_or_else(|| Failure::argument("the callback is NULL: the records would be lost"))?;
        Ok(Hand { each, user, headers: Vec::new(), count: 0, stopped: false })
    }

    /// Records handed out so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Hands one out.
    #[inline]
    pub fn out(&mut self, record: &ClientRecord<'_>) -> ControlFlow<()> {
        self.headers.clear();
        self.headers.extend(record.headers.map(|header| Header {
            name: header.name.as_ptr().cast(),
            name_len: header.name.len(),
            value: header.value.as_ptr().cast(),
            value_len: header.value.len(),
        }));
        let ((key, key_len), (value, value_len)) = (parts(record.key), parts(record.value));
        let view = RecordView {
            struct_size: size_of::<RecordView>(),
            topic: record.topic.as_ptr().cast(),
            topic_len: record.topic.len(),
            key,
            key_len,
            value,
            value_len,
            headers: self.headers.as_ptr(),
            header_count: self.headers.len(),
            offset: record.offset,
            timestamp_us: record.timestamp_us,
            append_time_us: record.append_time_us,
            partition: record.partition,
            reserved: 0,
        };
        self.count += 1;
        // SAFETY: the caller gave the function for this, and promised that it returns in the ordinary way; `view` and what it points at live until it has.
        match unsafe { (self.each)(&view, self.user) } {
            0 => ControlFlow::Continue(()),
            _ => {
                self.stopped = true;
                ControlFlow::Break(())
            }
        }
    }
}

/// As `Consumer::read_to_end`, but can be stopped by the callback.
fn read_to_end(consumer: &mut Consumer, timeout: Duration, hand: &mut Hand) -> Result<(), Failure> {
    // None: later than any clock goes.
    let deadline = Instant::now().checked_add(timeout);
    let mut ends = consumer.end_offsets()?;
    loop {
        let paused: BTreeSet<(&str, u32)> = consumer.paused().collect();
        ends.retain(|(topic, partition, end)| {
            !paused.contains(&(topic.as_str(), *partition)) && consumer.position(topic, *partition).is_some_and(|position| position < *end)
        });
        if ends.is_empty() {
            return Ok(());
        }
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            let message =
                format!("reading to the end: {} partitions are not read up to it within {timeout:?}; call again to go on", ends.len());
            return Err(Failure::new(E_TIMEOUT, true, message));
        }
        consumer.poll_until(left, |record| hand.out(record))?;
        if hand.stopped {
            return Ok(());
        }
    }
}

/// A partition that is being read, or why it is not.
fn is_read(consumer: &Consumer, topic: &str, partition: u32) -> Result<u64, Failure> {
    consumer
        .position(topic, partition)
        .ok_or_else(|| Failure::argument(format!("topic {topic} partition {partition} is not being read: assign it first")))
}

/// Uses a consumer, of which a partition that it reads is meant.
///
/// # Safety
/// `topic` is null, or a NUL-terminated string.
unsafe fn with_part<R>(
    consumer: ConsumerHandle,
    topic: *const c_char,
    partition: u32,
    each: impl FnOnce(&mut Consumer, &str) -> Result<R, Failure>,
) -> Result<R, Failure> {
    // SAFETY: as the caller says.
    let topic = unsafe { args::text(topic, "topic")? };
    CONSUMERS.with(consumer.id, |consumer| {
        is_read(consumer, topic, partition)?;
        each(consumer, topic)
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_options_defaults(options: *mut ConsumerOptions, options_size: usize) -> c_int {
    // SAFETY: the caller says that `options_size` bytes can be written there, or gives null.
    guard(|| unsafe { args::put_struct(options, options_size, defaults(), "options") })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_open(client: ClientHandle, options: *const ConsumerOptions, out: *mut ConsumerHandle) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a handle, or gives null.
        unsafe { args::put(out, ConsumerHandle { id: 0 }, "out")? };
        // SAFETY: the caller says that the struct is as long as it says, or gives null.
        let options = if options.is_null() { defaults() } else { unsafe { args::sized(options, "options")? } };
        let config = config(options)?;
        let consumer = with_client(client, |client| Ok(client.consumer(config)?))?;
        let id = CONSUMERS.insert(consumer)?;
        // SAFETY: as above.
        unsafe { args::put(out, ConsumerHandle { id }, "out") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_consumer_close(consumer: ConsumerHandle) -> c_int {
    guard(|| CONSUMERS.close(consumer.id))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_assign(
    consumer: ConsumerHandle,
    topic: *const c_char,
    partition: u32,
    start_kind: c_int,
    at: u64,
    partitions: *mut u32,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let topic = unsafe { args::text(topic, "topic")? };
        let start = start(start_kind, at)?;
        let count = CONSUMERS.with(consumer.id, |consumer| match partition {
            PARTITION_ALL => Ok(consumer.assign_all(topic, start)?),
            one => Ok(consumer.assign(topic, one, start).map(|()| 1)?),
        })?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(partitions, count) };
        Ok(())
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_unassign(consumer: ConsumerHandle, topic: *const c_char, partition: u32) -> c_int {
    // SAFETY: the caller says that the string is NUL-terminated, or gives null.
    guard(|| unsafe { with_part(consumer, topic, partition, |consumer, topic| Ok(consumer.unassign(topic, partition))) }.map(|_| ()))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_seek(
    consumer: ConsumerHandle,
    topic: *const c_char,
    partition: u32,
    start_kind: c_int,
    at: u64,
) -> c_int {
    guard(|| {
        let start = start(start_kind, at)?;
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        unsafe { with_part(consumer, topic, partition, |consumer, topic| Ok(consumer.seek(topic, partition, start)?)) }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_pause(consumer: ConsumerHandle, topic: *const c_char, partition: u32) -> c_int {
    // SAFETY: the caller says that the string is NUL-terminated, or gives null.
    guard(|| unsafe { with_part(consumer, topic, partition, |consumer, topic| Ok(consumer.pause(topic, partition))) }.map(|_| ()))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_resume(consumer: ConsumerHandle, topic: *const c_char, partition: u32) -> c_int {
    // SAFETY: the caller says that the string is NUL-terminated, or gives null.
    guard(|| unsafe { with_part(consumer, topic, partition, |consumer, topic| Ok(consumer.resume(topic, partition))) }.map(|_| ()))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_poll(
    consumer: ConsumerHandle,
    timeout_us: u64,
    each: Option<RecordFn>,
    user: *mut c_void,
    records: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(records, 0) };
        let mut hand = Hand::new(each, user)?;
        let timeout = Duration::from_micros(timeout_us);
        let result = CONSUMERS.with(consumer.id, |consumer| Ok(consumer.poll_until(timeout, |record| hand.out(record)).map(|_| ())?));
        // SAFETY: as above.
        unsafe { args::put_if_wanted(records, hand.count) };
        result
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_read_to_end(
    consumer: ConsumerHandle,
    timeout_us: u64,
    each: Option<RecordFn>,
    user: *mut c_void,
    records: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(records, 0) };
        let mut hand = Hand::new(each, user)?;
        let result = CONSUMERS.with(consumer.id, |consumer| read_to_end(consumer, Duration::from_micros(timeout_us), &mut hand));
        // SAFETY: as above.
        unsafe { args::put_if_wanted(records, hand.count) };
        result
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_position(
    consumer: ConsumerHandle,
    topic: *const c_char,
    partition: u32,
    offset: *mut u64,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let topic = unsafe { args::text(topic, "topic")? };
        let position = CONSUMERS.with(consumer.id, |consumer| is_read(consumer, topic, partition))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put(offset, position, "offset") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_range(
    consumer: ConsumerHandle,
    topic: *const c_char,
    partition: u32,
    log_start: *mut u64,
    committed_end: *mut u64,
) -> c_int {
    guard(|| {
        let bounds =
            |consumer: &mut Consumer, topic: &str| Ok((consumer.log_start(topic, partition), consumer.committed_end(topic, partition)));
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let (first, end) = unsafe { with_part(consumer, topic, partition, bounds)? };
        // SAFETY: the caller says that there is room for a number each, or gives null.
        unsafe {
            args::put_if_wanted(log_start, first.unwrap_or(OFFSET_NONE));
            args::put_if_wanted(committed_end, end.unwrap_or(OFFSET_NONE));
        }
        Ok(())
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_consumer_metrics(consumer: ConsumerHandle, out: *mut ConsumerCounts, out_size: usize) -> c_int {
    guard(|| {
        let now = CONSUMERS.with(consumer.id, |consumer| Ok(consumer.metrics()))?;
        let counts = ConsumerCounts {
            struct_size: 0,
            records: now.records,
            bytes_received: now.bytes_received,
            replies_received: now.replies_received,
            streams_started: now.streams_started,
            credit_grants: now.credit_grants,
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
