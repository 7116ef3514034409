//! TrimPartitions: what is checked of a request, and what its refusals are called.

use super::ApiError;
use crate::partition::TrimError;
use crate::subscription::FETCH_ENTRIES_MAX;
use tramline_wire::error::ErrorCode;
use tramline_wire::trim::TrimPartitionsRequest;

/// Decodes and checks a request.
pub fn decode(meta: &[u8]) -> Result<TrimPartitionsRequest<'_>, ApiError> {
    let request = TrimPartitionsRequest::decode(meta)?;
    if request.entries.is_empty() || request.entries.len() > FETCH_ENTRIES_MAX {
        let message = format!("a request names 1 to {FETCH_ENTRIES_MAX} partitions, not {}", request.entries.len());
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    Ok(request)
}

/// The code of a refused entry.
pub fn code(error: TrimError) -> ErrorCode {
    match error {
        TrimError::PastCommittedEnd => ErrorCode::OffsetOutOfRange,
    }
}
