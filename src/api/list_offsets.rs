//! ListOffsets: earliest, latest, by time.

use super::ApiError;
use crate::partition::Partition;
use crate::subscription::{FETCH_ENTRIES_MAX, LookupAnswer};
use tramline_wire::error::ErrorCode;
use tramline_wire::offsets::{AT_EARLIEST, AT_LATEST, ListOffsetsRequest, OffsetQuery};

/// Decodes and checks a request.
pub fn decode(meta: &[u8]) -> Result<ListOffsetsRequest<'_>, ApiError> {
    let request = ListOffsetsRequest::decode(meta)?;
    if request.entries.is_empty() || request.entries.len() > FETCH_ENTRIES_MAX {
        let message = format!("a request names 1 to {FETCH_ENTRIES_MAX} partitions, not {}", request.entries.len());
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    Ok(request)
}

/// What can be answered without looking at batches; `None` for a look-up by time.
pub fn at_once(query: &OffsetQuery, partition: &Partition) -> Option<LookupAnswer> {
    let answer = |error, offset| LookupAnswer { uid: query.partition_uid, error, offset, timestamp_us: None };
    match query.at {
        AT_EARLIEST => Some(answer(ErrorCode::Ok, partition.log_start())),
        AT_LATEST => Some(answer(ErrorCode::Ok, partition.visible_end())),
        at if at >= 0 => None,
        _ => Some(answer(ErrorCode::InvalidRequest, 0)),
    }
}
