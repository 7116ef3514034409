//! Messages of queues: what is checked of requests about them.
//!
//! Not here: queues by name (`queues.rs`).

use super::ApiError;
use tramline_wire::error::ErrorCode;
use tramline_wire::prim::{List, ListIter};
use tramline_wire::queue::{
    BrowseRequest, CONSUMER_BYTES_MAX, DELAY_BY_POLICY, DeleteMessagesRequest, LEASE_MS, NACK_DELAY_MS_MAX, PurgeRequest,
    QUEUE_MESSAGES_MAX, REASON_BYTES_MAX, ReceiveRequest, RedriveRequest, SettleAction, SettleEntry, SettleRequest,
};
use tramline_wire::step::StepRequest;

/// Entries of one request, at most.
const ENTRIES_MAX: usize = 4096;

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

fn check_count(what: &str, count: usize) -> Result<(), ApiError> {
    if count == 0 || count > ENTRIES_MAX {
        return Err(invalid(format!("a request names 1 to {ENTRIES_MAX} {what}, not {count}")));
    }
    Ok(())
}

fn check_messages(count: u32) -> Result<(), ApiError> {
    if count == 0 || count > QUEUE_MESSAGES_MAX {
        return Err(invalid(format!("a request asks for 1 to {QUEUE_MESSAGES_MAX} messages, not {count}")));
    }
    Ok(())
}

fn check_consumer(consumer: &str) -> Result<(), ApiError> {
    if consumer.len() > CONSUMER_BYTES_MAX {
        return Err(invalid(format!("a consumer's name has at most {CONSUMER_BYTES_MAX} bytes, not {}", consumer.len())));
    }
    Ok(())
}

/// Whether the delay of an entry can be: that of a nack, or the length of a lease that is extended.
pub fn is_right_delay(entry: &SettleEntry<'_>) -> bool {
    match entry.action {
        SettleAction::Extend => LEASE_MS.contains(&entry.delay_ms),
        SettleAction::Nack => entry.delay_ms == DELAY_BY_POLICY || entry.delay_ms <= NACK_DELAY_MS_MAX,
        _ => true,
    }
}

/// Decodes and checks a receive.
pub fn receive(meta: &[u8]) -> Result<ReceiveRequest<'_>, ApiError> {
    let request = ReceiveRequest::decode(meta)?;
    check_count("partitions", request.partitions.len())?;
    check_messages(request.max_messages)?;
    check_consumer(request.consumer)?;
    if request.max_bytes == 0 {
        return Err(invalid("a receive allows at least one byte: set max_bytes".to_owned()));
    }
    if request.visibility_ms != 0 && !LEASE_MS.contains(&request.visibility_ms) {
        let (least, most) = LEASE_MS.into_inner();
        return Err(invalid(format!("a lease lasts {least} to {most} ms, not {}", request.visibility_ms)));
    }
    Ok(request)
}

/// Decodes and checks what becomes of leased messages.
pub fn settle(meta: &[u8]) -> Result<SettleRequest<'_>, ApiError> {
    let request = SettleRequest::decode(meta)?;
    check_count("leases", request.entries.len())?;
    check_consumer(request.consumer)?;
    for entry in request.entries.iter() {
        let has_reason = matches!(entry.action, SettleAction::Nack | SettleAction::Reject);
        if !has_reason && !entry.reason.is_empty() {
            return Err(invalid(format!("a reason goes with nack and reject, not with {}", entry.action.name())));
        }
        if entry.reason.len() > REASON_BYTES_MAX {
            return Err(invalid(format!("a reason has at most {REASON_BYTES_MAX} bytes, not {}", entry.reason.len())));
        }
        match entry.action {
            SettleAction::Extend | SettleAction::Nack => {}
            action if entry.delay_ms != 0 => {
                return Err(invalid(format!("a delay goes with nack and extend, not with {}", action.name())));
            }
            _ => {}
        }
    }
    Ok(request)
}

/// Decodes and checks a browse.
pub fn browse(meta: &[u8]) -> Result<BrowseRequest, ApiError> {
    let request = BrowseRequest::decode(meta)?;
    check_messages(request.max_messages)?;
    Ok(request)
}

/// Decodes and checks a purge.
pub fn purge(meta: &[u8]) -> Result<PurgeRequest<'_>, ApiError> {
    let request = PurgeRequest::decode(meta)?;
    check_count("partitions", request.partitions.len())?;
    Ok(request)
}

/// Decodes and checks a deletion of messages.
pub fn delete(meta: &[u8]) -> Result<DeleteMessagesRequest<'_>, ApiError> {
    let request = DeleteMessagesRequest::decode(meta)?;
    check_count("messages", request.entries.len())?;
    Ok(request)
}

/// Decodes and checks a redrive.
pub fn redrive(meta: &[u8]) -> Result<RedriveRequest<'_>, ApiError> {
    let request = RedriveRequest::decode(meta)?;
    check_count("partitions", request.partitions.len())?;
    Ok(request)
}

/// Decodes and checks an atomic step.
pub fn step(meta: &[u8]) -> Result<StepRequest<'_>, ApiError> {
    let request = StepRequest::decode(meta)?;
    check_count("acks, commits and batches", request.acks.len() + request.commits.len() + request.entries.len())?;
    if request.flags != 0 {
        return Err(ApiError::new(ErrorCode::UnknownFlag, format!("a step has no flags yet, and not {:#x}", request.flags)));
    }
    Ok(request)
}

/// The first partition that a request about messages names, for finding its shard; `None` where it does not decode.
pub fn first_partition(kind: tramline_wire::kind::Kind, meta: &[u8]) -> Option<u64> {
    use tramline_wire::kind::Kind;
    let first = |list: List<'_, u64>| -> Option<u64> {
        let mut all: ListIter<'_, u64> = list.iter();
        all.next()
    };
    match kind {
        Kind::Receive => ReceiveRequest::decode(meta).ok().and_then(|request| first(request.partitions)),
        Kind::Purge => PurgeRequest::decode(meta).ok().and_then(|request| first(request.partitions)),
        Kind::Redrive => RedriveRequest::decode(meta).ok().and_then(|request| first(request.partitions)),
        Kind::Settle => SettleRequest::decode(meta).ok().and_then(|request| request.entries.iter().next()).map(|entry| entry.partition_uid),
        Kind::DeleteMessages => {
            DeleteMessagesRequest::decode(meta).ok().and_then(|request| request.entries.iter().next()).map(|entry| entry.partition_uid)
        }
        Kind::Step => StepRequest::decode(meta).ok().and_then(|request| {
            // In the order in which they are checked: of the first it is found out where it belongs, of the others that they lie elsewhere.
            let batch = request.entries.iter().next().map(|entry| entry.partition_uid);
            let ack = || request.acks.iter().next().map(|ack| ack.partition_uid);
            batch.or_else(ack).or_else(|| request.commits.iter().next().map(|commit| commit.partition_uid))
        }),
        Kind::Browse => BrowseRequest::decode(meta).ok().map(|request| request.partition_uid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{QUEUE_SETTINGS, SettingKind};

    #[test]
    fn a_request_may_ask_for_what_a_setting_may_say() {
        let range = |key: &str| {
            let setting = QUEUE_SETTINGS.iter().find(|setting| setting.key == key).unwrap();
            let SettingKind::Integer { min, max, .. } = setting.kind else { panic!("{key} is a number") };
            (min, max)
        };
        assert_eq!(range("visibility.timeout.ms"), (i64::from(*LEASE_MS.start()), i64::from(*LEASE_MS.end())));
        assert_eq!(range("retry.max.ms"), (0, i64::from(NACK_DELAY_MS_MAX)));
    }
}
