//! Produce: what is checked of a batch before it is taken, and the reply.

use crate::config::Settings;
use crate::partition::TopicRules;
use crate::subscription::queue::{LETTER_HEADERS_BYTES_MAX, LETTER_HEADERS_MAX};
use tramline_wire::batch::{BatchError, BatchView, Limits, validate_and};
use tramline_wire::queue::PRIORITY_MAX;

/// The limits of a topic on this node.
pub fn limits(rules: &TopicRules, settings: &Settings) -> Limits {
    Limits {
        batch_bytes_max: rules.batch_bytes_max.min(settings.batch_max_bytes),
        values_bytes_max: VALUES_BYTES_MAX,
        record_bytes_max: rules.record_bytes_max.min(settings.record_max_bytes),
        key_bytes_max: settings.key_max_bytes,
        headers_max: settings.headers_max,
        headers_bytes_max: settings.headers_bytes_max,
        id_bytes_max: ID_BYTES_MAX,
    }
}

/// The same for letters about dead messages: more headers, of which a producer knows nothing.
pub fn letter_limits(rules: &TopicRules, settings: &Settings) -> Limits {
    let limits = limits(rules, settings);
    Limits {
        headers_max: limits.headers_max.saturating_add(LETTER_HEADERS_MAX),
        headers_bytes_max: limits.headers_bytes_max.saturating_add(LETTER_HEADERS_BYTES_MAX),
        ..limits
    }
}

/// Largest declared size of a batch's uncompressed values: what a consumer must be able to hold.
pub const VALUES_BYTES_MAX: u32 = 16 << 20;
/// Longest message group and message id.
pub const ID_BYTES_MAX: u32 = 256;

/// Everything that is checked of a producer's batch: lengths, flags, codec, checksum, every record, attributes for queues.
pub fn check<'a>(batch: &'a [u8], limits: &Limits, rules: &TopicRules, now_us: i64) -> Result<BatchView<'a>, BatchError> {
    let retention_us = rules.queue_retention_us.map_or(i64::MAX, |us| i64::try_from(us).unwrap_or(i64::MAX));
    let deliver_at_us_max = now_us.saturating_add(retention_us);
    validate_and(batch, limits, |record, attributes| {
        let check = |what, value: Option<i64>, min, max| match value {
            Some(value) if value < min || value > max => Err(BatchError::AttributeOutOfRange { record, what, value, min, max }),
            _ => Ok(()),
        };
        check("priority", attributes.priority.map(i64::from), 0, i64::from(PRIORITY_MAX))?;
        check("delivery time", attributes.deliver_at_us, 0, deliver_at_us_max)?;
        check("time to live", attributes.ttl_ms.map(i64::from), 1, i64::from(u32::MAX))
    })
}
