//! InitProducer: the answer.

use crate::config::Settings;
use crate::constants::PRODUCER_BATCHES_KEPT;
use tramline_wire::producer::InitProducerReply;

/// Appends the reply.
pub fn reply(out: &mut Vec<u8>, producer_id: u64, settings: &Settings) {
    let expiry_ms = u32::try_from(settings.producer_expiry_us / 1000).unwrap_or(u32::MAX);
    InitProducerReply { producer_id, batches_kept: PRODUCER_BATCHES_KEPT as u16, expiry_ms }.encode(out);
}
