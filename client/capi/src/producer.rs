//! Producers: the exported functions.
//!
//! Invariants: a record is copied before `send` returns; what a callback gets is valid during that call only; a producer does one call at a time. Not
//! here: what a producer promises (`tramline-client`).

use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

use tramline_client::wire::batch::Limits;
use tramline_client::{Attributes, BROKER_LIMITS, Codec, Delivery, Level, Partitioner, Producer, ProducerConfig, Record};

use crate::args;
use crate::client::{check_reserved, with_client};
use crate::constants::{OFFSET_NONE, OK, PARTITION_ANY, PARTITIONER_HASH, PARTITIONER_ROUND_ROBIN, PARTITIONER_STICKY, TIMESTAMP_NOW};
use crate::failure::{Failure, status_of};
use crate::guard::guard;
use crate::handles::{Kind, Table};
use crate::layout::{ClientHandle, DeliveryView, NewRecord, ProducerCounts, ProducerHandle, ProducerOptions};

static PRODUCERS: Table<Producer> = Table::new(Kind::Producer);

/// A caller's function for deliveries.
pub type DeliveryFn = unsafe extern "C" fn(delivery: *const DeliveryView, user: *mut c_void);

fn defaults() -> ProducerOptions {
    let config = ProducerConfig::default();
    ProducerOptions {
        struct_size: size_of::<ProducerOptions>(),
        delivery_timeout_us: config.delivery_timeout.as_micros() as u64,
        batch_bytes: config.batch_bytes as u64,
        linger_us: config.linger_us,
        max_in_flight: config.max_in_flight as u64,
        buffer_bytes: config.buffer_bytes as u64,
        request_bytes: config.request_bytes as u64,
        level: u32::from(config.level.as_u8()),
        idempotent: u32::from(config.idempotent),
        compression: u32::from(config.compression.as_u8()),
        partitioner: PARTITIONER_HASH,
        limit_batch_bytes: config.limits.batch_bytes_max,
        limit_values_bytes: config.limits.values_bytes_max,
        limit_record_bytes: config.limits.record_bytes_max,
        limit_key_bytes: config.limits.key_bytes_max,
        limit_headers: config.limits.headers_max,
        limit_headers_bytes: config.limits.headers_bytes_max,
    }
}

fn config(options: ProducerOptions) -> Result<ProducerConfig, Failure> {
    let unknown =
        |what: &str, value: u32| Failure::argument(format!("{what} is {value}, which means nothing: see the constants of tramline.h"));
    let small = |value: u32| u8::try_from(value).ok();
    Ok(ProducerConfig {
        level: small(options.level).and_then(Level::from_u8).ok_or_else(|| unknown("level", options.level))?,
        idempotent: args::flag(options.idempotent, "idempotent")?,
        delivery_timeout: Duration::from_micros(options.delivery_timeout_us),
        batch_bytes: args::size(options.batch_bytes, "batch_bytes")?,
        linger_us: options.linger_us,
        max_in_flight: args::size(options.max_in_flight, "max_in_flight")?,
        compression: small(options.compression).and_then(Codec::from_u8).ok_or_else(|| unknown("compression", options.compression))?,
        buffer_bytes: args::size(options.buffer_bytes, "buffer_bytes")?,
        request_bytes: args::size(options.request_bytes, "request_bytes")?,
        partitioner: match options.partitioner {
            PARTITIONER_HASH => Partitioner::Hash,
            PARTITIONER_ROUND_ROBIN => Partitioner::RoundRobin,
            PARTITIONER_STICKY => Partitioner::Sticky,
            other => return Err(unknown("partitioner", other)),
        },
        limits: Limits {
            batch_bytes_max: options.limit_batch_bytes,
            values_bytes_max: options.limit_values_bytes,
            record_bytes_max: options.limit_record_bytes,
            key_bytes_max: options.limit_key_bytes,
            headers_max: options.limit_headers,
            headers_bytes_max: options.limit_headers_bytes,
            ..BROKER_LIMITS
        },
    })
}

/// Reads a caller's record and hands it on.
///
/// # Safety
/// Null, or a record as `tramline.h` describes it.
#[inline]
unsafe fn with_record<R>(record: *const NewRecord, each: impl FnOnce(&Record<'_>) -> Result<R, Failure>) -> Result<R, Failure> {
    // SAFETY: as the caller says; what is borrowed here ends before this function does.
    let (topic, key, value, group, message_id, given) = unsafe {
        let given = args::sized(record, "record")?;
        let key = args::bytes(given.key, given.key_len, "the key")?;
        let group = args::bytes(given.group, given.group_len, "the group")?;
        let message_id = args::bytes(given.message_id, given.message_id_len, "the message id")?;
        (args::text(given.topic, "topic")?, key, args::bytes(given.value, given.value_len, "the value")?, group, message_id, given)
    };
    check_reserved(given.reserved)?;
    let priority = match given.priority {
        0 => None,
        1..=9 => Some(given.priority as u8),
        other => return Err(Failure::argument(format!("priority is {other}: it is 0 to 9"))),
    };
    let attributes = Attributes {
        deliver_at_us: (given.deliver_at_us != 0).then_some(given.deliver_at_us),
        priority,
        ttl_ms: (given.ttl_ms != 0).then_some(given.ttl_ms),
        group,
        message_id,
    };
    // No allocation for a record without headers.
    let mut headers = Vec::new();
    if given.header_count > 0 {
        // SAFETY: as the caller says.
        unsafe { args::headers(given.headers, given.header_count, &mut headers)? };
    }
    each(&Record {
        topic,
        partition: (given.partition != PARTITION_ANY).then_some(given.partition),
        key,
        value,
        headers: &headers,
        timestamp_us: (given.timestamp_us != TIMESTAMP_NOW).then_some(given.timestamp_us),
        attributes,
        tag: given.tag,
    })
}

fn hand_out(delivery: Delivery<'_>, each: DeliveryFn, user: *mut c_void) {
    // With its NUL, for those who print it as a string.
    let message = delivery.error.map(|error| format!("{error}\0"));
    let view = DeliveryView {
        struct_size: size_of::<DeliveryView>(),
        tag: delivery.tag,
        topic: delivery.topic.as_ptr().cast(),
        topic_len: delivery.topic.len(),
        message: message.as_ref().map_or(std::ptr::null(), |text| text.as_ptr().cast()),
        message_len: message.as_ref().map_or(0, |text| text.len() - 1),
        offset: delivery.offset.unwrap_or(OFFSET_NONE),
        partition: delivery.partition,
        status: delivery.error.map_or(OK, status_of),
        code: delivery.error.and_then(|error| error.code()).map_or(0, |code| u32::from(code.as_u16())),
        level: u32::from(delivery.level.as_u8()),
    };
    // SAFETY: the caller gave the function for this, and promised that it returns in the ordinary way; `view` lives until it has.
    unsafe { each(&view, user) };
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_options_defaults(options: *mut ProducerOptions, options_size: usize) -> c_int {
    // SAFETY: the caller says that `options_size` bytes can be written there, or gives null.
    guard(|| unsafe { args::put_struct(options, options_size, defaults(), "options") })
}

/// A record to begin with.
pub(crate) const fn empty_record() -> NewRecord {
    NewRecord {
        struct_size: 0,
        topic: std::ptr::null(),
        key: std::ptr::null(),
        key_len: 0,
        value: std::ptr::null(),
        value_len: 0,
        headers: std::ptr::null(),
        header_count: 0,
        timestamp_us: TIMESTAMP_NOW,
        tag: 0,
        partition: PARTITION_ANY,
        reserved: 0,
        deliver_at_us: 0,
        group: std::ptr::null(),
        group_len: 0,
        message_id: std::ptr::null(),
        message_id_len: 0,
        ttl_ms: 0,
        priority: 0,
    }
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_record_defaults(record: *mut NewRecord, record_size: usize) -> c_int {
    guard(|| {
        // SAFETY: the caller says that `record_size` bytes can be written there, or gives null.
        unsafe { args::put_struct(record, record_size, empty_record(), "record") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_open(client: ClientHandle, options: *const ProducerOptions, out: *mut ProducerHandle) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a handle, or gives null.
        unsafe { args::put(out, ProducerHandle { id: 0 }, "out")? };
        // SAFETY: the caller says that the struct is as long as it says, or gives null.
        let options = if options.is_null() { defaults() } else { unsafe { args::sized(options, "options")? } };
        let config = config(options)?;
        let producer = with_client(client, |client| Ok(client.producer(config)?))?;
        let id = PRODUCERS.insert(producer)?;
        // SAFETY: as above.
        unsafe { args::put(out, ProducerHandle { id }, "out") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_producer_close(producer: ProducerHandle) -> c_int {
    guard(|| PRODUCERS.close(producer.id))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_send(producer: ProducerHandle, record: *const NewRecord) -> c_int {
    // SAFETY: the caller says that it is a record as described, or gives null.
    guard(|| PRODUCERS.with(producer.id, |producer| unsafe { with_record(record, |record| Ok(producer.send(record)?)) }))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_try_send(producer: ProducerHandle, record: *const NewRecord) -> c_int {
    // SAFETY: the caller says that it is a record as described, or gives null.
    guard(|| PRODUCERS.with(producer.id, |producer| unsafe { with_record(record, |record| Ok(producer.try_send(record)?)) }))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_poll(producer: ProducerHandle, timeout_us: u64, deliveries: *mut usize) -> c_int {
    guard(|| {
        let count = PRODUCERS.with(producer.id, |producer| Ok(producer.poll(Duration::from_micros(timeout_us))?))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(deliveries, count) };
        Ok(())
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_drain(
    producer: ProducerHandle,
    each: Option<DeliveryFn>,
    user: *mut c_void,
    deliveries: *mut usize,
) -> c_int {
    guard(|| {
        let each = each.ok_or_else(|| Failure::argument("the callback is NULL: the deliveries would be lost"))?;
        let count = PRODUCERS.with(producer.id, |producer| {
            let mut count = 0;
            producer.drain(|delivery| {
                count += 1;
                hand_out(delivery, each, user);
            });
            Ok(count)
        })?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(deliveries, count) };
        Ok(())
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_producer_flush(producer: ProducerHandle, timeout_us: u64) -> c_int {
    guard(|| PRODUCERS.with(producer.id, |producer| Ok(producer.flush(Duration::from_micros(timeout_us))?)))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_outstanding(producer: ProducerHandle, records: *mut usize) -> c_int {
    guard(|| {
        let count = PRODUCERS.with(producer.id, |producer| Ok(producer.outstanding()))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put(records, count, "records") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_durable_end(
    producer: ProducerHandle,
    topic: *const c_char,
    partition: u32,
    offset: *mut u64,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let topic = unsafe { args::text(topic, "topic")? };
        let end = PRODUCERS.with(producer.id, |producer| Ok(producer.durable_end(topic, partition)))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put(offset, end.unwrap_or(OFFSET_NONE), "offset") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_producer_trouble(producer: ProducerHandle) -> c_int {
    guard(|| PRODUCERS.with(producer.id, |producer| producer.trouble().map_or(Ok(()), |error| Err(Failure::from(error)))))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_producer_metrics(producer: ProducerHandle, out: *mut ProducerCounts, out_size: usize) -> c_int {
    guard(|| {
        let (now, held_bytes) = PRODUCERS.with(producer.id, |producer| Ok((producer.metrics(), producer.held_bytes())))?;
        let counts = ProducerCounts {
            struct_size: 0,
            records_taken: now.records_taken,
            records_acknowledged: now.records_acknowledged,
            records_failed: now.records_failed,
            bytes_sent: now.bytes_sent,
            batches_sent: now.batches_sent,
            batches_sent_again: now.batches_sent_again,
            duplicates_too_old: now.duplicates_too_old,
            requests_sent: now.requests_sent,
            refusals: now.refusals,
            epochs_raised: now.epochs_raised,
            connections_opened: now.connections_opened,
            connections_lost: now.connections_lost,
            metadata_refreshes: now.metadata_refreshes,
            buffer_full: now.buffer_full,
            throttled_us: now.throttled_us,
            held_bytes: held_bytes as u64,
        };
        // SAFETY: the caller says that `out_size` bytes can be written there, or gives null.
        unsafe { args::put_struct(out, out_size, counts, "out") }
    })
}

/// For `defect`: the table of producers, in which something is to go wrong.
#[cfg(feature = "defect")]
pub fn table() -> &'static Table<Producer> {
    &PRODUCERS
}
