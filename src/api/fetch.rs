//! Fetch, FetchCredit, FetchCancel: decoding into sessions' terms.

use super::ApiError;
use crate::config::Settings;
use crate::subscription::{FETCH_ENTRIES_MAX, FetchStart, Mode};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchMode, FetchRequest};

/// Decodes and checks a fetch.
pub fn decode<'a>(meta: &'a [u8], settings: &Settings) -> Result<(FetchRequest<'a>, FetchStart), ApiError> {
    let request = FetchRequest::decode(meta)?;
    if request.entries.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "a fetch names at least one partition"));
    }
    let max = FETCH_ENTRIES_MAX.min(settings.entries_max as usize);
    if request.entries.len() > max {
        return Err(ApiError::new(
            ErrorCode::LimitExceeded,
            format!("a fetch names at most {max} partitions, not {}", request.entries.len()),
        ));
    }
    let start = FetchStart {
        mode: match request.mode {
            FetchMode::OneShot => Mode::OneShot,
            FetchMode::Streaming => Mode::Streaming,
        },
        max_wait_us: (u64::from(request.max_wait_ms) * 1000).min(settings.fetch_wait_max_us),
        min_bytes: u64::from(request.min_bytes),
        credit_bytes: u64::from(request.credit_bytes.min(settings.credit_max_bytes)),
    };
    Ok((request, start))
}
