//! How something gets into the open block, and control payloads of data groups.
//!
//! Not here: what they say (partition/trim.rs, subscription/), the metadata's commands (`admin.rs`).

use super::shard::Shard;
use crate::api::ApiError;
use crate::bytes::Slab;
use crate::effects::{Effects, Now};
use crate::ids::GroupId;
use crate::log::{AppendRefused, Appended, EntryKind, Log};
use tramline_wire::error::ErrorCode;

impl Shard {
    /// Does `put` with the open block or, where that is full and may be closed, with the next one.
    #[inline]
    pub(super) fn in_open_block<T>(
        &mut self,
        now: Now,
        effects: &mut Effects,
        mut put: impl FnMut(&mut Log, &mut Slab) -> Result<T, AppendRefused>,
    ) -> Result<T, AppendRefused> {
        match put(&mut self.log, &mut self.slab) {
            Err(AppendRefused::Full) if self.log.ready_to_close() => {
                self.close_block(now, effects);
                put(&mut self.log, &mut self.slab)
            }
            done => done,
        }
    }

    /// Puts a payload of `group` into the open block, or into the next one if it may be begun; `None` where there is no room now.
    pub(super) fn append_payload(
        &mut self,
        now: Now,
        group: GroupId,
        payload: &[u8],
        effects: &mut Effects,
    ) -> Result<Option<Appended>, ApiError> {
        match self.in_open_block(now, effects, |log, slab| log.append_control(slab, group, EntryKind::Control, payload)) {
            Ok(appended) => {
                self.urgent = true;
                Ok(Some(appended))
            }
            Err(AppendRefused::Full) => Ok(None),
            Err(AppendRefused::TooLarge) => {
                Err(ApiError::new(ErrorCode::LimitExceeded, "too much for one entry of the log: name fewer partitions at once"))
            }
            Err(refused) => Err(ApiError::new(ErrorCode::StorageFailed, refused.to_string())),
        }
    }
}
