//! Control payloads of data groups: how they get into the open block, and what a start finds of them.
//!
//! Not here: what they say (partition/trim.rs, subscription/), the metadata's commands (`admin.rs`).

use super::shard::Shard;
use crate::api::ApiError;
use crate::effects::{Effects, Now};
use crate::ids::GroupId;
use crate::log::{AppendRefused, Appended, EntryKind};
use tramline_wire::error::ErrorCode;

impl Shard {
    /// Puts a payload of `group` into the open block, or into the next one if it may be begun; `None` where there is no room now.
    pub(super) fn append_payload(
        &mut self,
        now: Now,
        group: GroupId,
        payload: &[u8],
        effects: &mut Effects,
    ) -> Result<Option<Appended>, ApiError> {
        let mut appended = self.log.append_control(&mut self.slab, group, EntryKind::Control, payload);
        if appended == Err(AppendRefused::Full) && self.log.ready_to_close() {
            self.close_block(now, effects);
            appended = self.log.append_control(&mut self.slab, group, EntryKind::Control, payload);
        }
        match appended {
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
