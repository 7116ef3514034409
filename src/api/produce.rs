//! Produce: what is checked of a batch before it is taken, and the reply.

use crate::config::Settings;
use crate::partition::TopicRules;
use tramline_wire::batch::{BatchError, BatchView, Limits, validate};

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

/// Largest declared size of a batch's uncompressed values: what a consumer must be able to hold.
pub const VALUES_BYTES_MAX: u32 = 16 << 20;
/// Longest message group and message id.
pub const ID_BYTES_MAX: u32 = 256;

/// Everything that is checked of a producer's batch: lengths, flags, codec, checksum, every record.
pub fn check<'a>(batch: &'a [u8], rules: &TopicRules, settings: &Settings) -> Result<BatchView<'a>, BatchError> {
    validate(batch, &limits(rules, settings))
}
