//! Consumer groups that are deleted, by shard 0 of the node that leads their home.
//!
//! How one goes: the home says that the group has no member, and takes none for a while -> the metadata are told to forget it, by a word that is said until the view
//! shows it (`calling.rs`) -> the answer.
//!
//! Invariants: a group that has a member stays; each deletion ends in one answer, after [`ANSWERED_US`] at the latest, while its home still takes no member; nothing
//! is said once the home has another leader, or the same one in another term.
//!
//! Not here: when a group counts as unused (`group_expiry.rs`), its members (`groups.rs`).

use super::mesh::{Message, Retired};
use super::shard::{Phase, Shard};
use crate::api::ApiError;
use crate::control::{Command, ControlError};
use crate::effects::{Caller, Effect, Effects, Now};
use crate::ids::{GroupId, NodeId, SubscriptionUid, Term};
use tramline_wire::error::ErrorCode;

/// Deletions under way at once.
const DELETIONS_MAX: usize = 64;
/// Whoever leads the metadata is told again after so long.
const AGAIN_US: u64 = 500_000;
/// The metadata need far less where they have a leader.
const ANSWERED_US: u64 = 10_000_000;

/// A deletion under way.
#[derive(Debug)]
struct Deletion {
    uid: SubscriptionUid,
    name: String,
    /// `None`: nobody has used the group for long.
    caller: Option<Caller>,
    /// Of the home, when that was asked. Who leads it in a later one may have taken members.
    term: Term,
    /// The home has said that the group has no member.
    is_retired: bool,
    /// The metadata were told.
    is_said: bool,
    say_at_us: u64,
    until_us: u64,
}

/// Deletions under way, in the order of their beginning.
#[derive(Debug, Default)]
pub(super) struct Deletions(Vec<Deletion>);

impl Deletions {
    /// Whether the group is being deleted.
    pub(super) fn has(&self, uid: SubscriptionUid) -> bool {
        self.0.iter().any(|deletion| deletion.uid == uid)
    }
}

impl Shard {
    /// Begins to delete a group.
    pub(super) fn retire_group(&mut self, now: Now, caller: Option<Caller>, name: &str, effects: &mut Effects) -> Result<(), ApiError> {
        let Some(group) = self.view.group(name) else {
            return Err(ApiError::from(&ControlError::UnknownGroup(name.to_owned())));
        };
        let (uid, home) = (group.uid, self.home_of(group));
        if home.node != self.node {
            let next = if home.node == NodeId(0) { String::new() } else { self.leader_address(group.home) };
            return Err(not_home(name, next));
        }
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        if self.leaders.of(GroupId(0)).is_none_or(|(leader, _)| leader == NodeId(0)) {
            return Err(self.no_metadata_leader());
        }
        if self.deletions.0.len() >= DELETIONS_MAX {
            let message = format!("{DELETIONS_MAX} consumer groups are being deleted: try again when some are gone");
            return Err(ApiError::new(ErrorCode::Overloaded, message));
        }
        let until_us = now.mono_us + ANSWERED_US;
        let (name, term) = (name.to_owned(), home.term);
        self.deletions.0.push(Deletion { uid, name, caller, term, is_retired: false, is_said: false, say_at_us: 0, until_us });
        if home.shard == self.id {
            let retired = self.retire_members(now, uid);
            self.on_group_retired(now, uid, retired, effects);
        } else {
            effects.push(Effect::Mesh { to: home.shard, message: Message::GroupRetireAsked { uid } });
        }
        Ok(())
    }

    /// The home says whether the group has members.
    pub(super) fn on_group_retired(&mut self, now: Now, uid: SubscriptionUid, retired: Retired, effects: &mut Effects) {
        let waits = |deletion: &Deletion| deletion.uid == uid && !deletion.is_retired;
        if retired == Retired::TakesNone {
            self.deletions.0.iter_mut().filter(|deletion| waits(deletion)).for_each(|deletion| deletion.is_retired = true);
        } else {
            for Deletion { name, caller, .. } in self.deletions.0.extract_if(.., |deletion| waits(deletion)).collect::<Vec<_>>() {
                let refusal = match retired {
                    Retired::HasMembers => ApiError::new(
                        ErrorCode::GroupNotEmpty,
                        format!("group {name:?} has members: stop them first, or wait until their sessions time out"),
                    ),
                    _ => not_home(&name, String::new()),
                };
                if let Some(caller) = caller {
                    self.refuse(&caller, &refusal, effects);
                }
            }
        }
        self.delete_retired(now, effects);
    }

    /// One turn: says what is to be said, and answers what has ended.
    pub(super) fn delete_retired(&mut self, now: Now, effects: &mut Effects) {
        if self.deletions.0.is_empty() {
            return;
        }
        for mut deletion in std::mem::take(&mut self.deletions.0) {
            let Some(home) = self.view.group_by_uid(deletion.uid).map(|group| self.home_of(group)) else {
                if let Some(caller) = deletion.caller {
                    self.await_group_deleted(now, caller);
                }
                continue;
            };
            if now.mono_us >= deletion.until_us {
                if let Some(caller) = deletion.caller {
                    let message = format!(
                        "whoever leads the metadata has not said that group {:?} is deleted: look whether it still exists, and try again",
                        deletion.name
                    );
                    self.refuse(&caller, &ApiError::new(ErrorCode::TimedOut, message), effects);
                }
                continue;
            }
            if (home.node, home.term) != (self.node, deletion.term) {
                if let Some(caller) = deletion.caller {
                    let refusal =
                        if deletion.is_said { ApiError::of(ErrorCode::LeadershipLost) } else { not_home(&deletion.name, String::new()) };
                    self.refuse(&caller, &refusal, effects);
                }
                continue;
            }
            if deletion.is_retired && now.mono_us >= deletion.say_at_us {
                (deletion.is_said, deletion.say_at_us) = (true, now.mono_us + AGAIN_US);
                self.on_asked(Command::DeleteGroup { name: deletion.name.clone(), uid: deletion.uid.0 }, effects);
            }
            effects.wake_at(if deletion.is_retired { deletion.say_at_us.min(deletion.until_us) } else { deletion.until_us });
            self.deletions.0.push(deletion);
        }
        self.answer_awaiting(now, effects);
    }

    /// Nothing is deleted here any more: everybody who waits is told why.
    pub(super) fn refuse_deletions(&mut self, why: &ApiError, effects: &mut Effects) {
        let callers: Vec<_> = self.deletions.0.drain(..).filter_map(|deletion| deletion.caller).collect();
        callers.iter().for_each(|caller| self.refuse(caller, why, effects));
    }
}

fn not_home(name: &str, next: String) -> ApiError {
    let message = match next.is_empty() {
        true => format!("nobody is known to lead the home of group {name:?} now: try again"),
        false => format!("another node leads the home of group {name:?}: go to the address in the reply"),
    };
    ApiError { code: ErrorCode::NotLeader, message, next }
}
