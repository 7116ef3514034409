//! What each shard says about its state, and what the housekeeping thread says about the disk: the one piece of memory that both touch.
//!
//! Invariants: states are written only when they change (never per request), so the lock is not on any path that counts; a state only moves
//! forward: starting -> ready -> stopping, and failed from each of them, for good. Of the disk a shard looks at
//! one atomic number in its background turns, and at the rest once a second, when that has changed.
//!
//! Not here: the stages of a disk that fills up (`config/space.rs`), whether a shard answers (`admin/collector.rs` asks it), what 503 looks like (`admin/`).

use crate::config::DiskLook;
use crate::ids::ShardId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// State of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ShardHealth {
    /// Recovering its log or not yet accepting.
    #[default]
    Starting,
    /// Serving.
    Ready,
    /// In orderly stop.
    Stopping,
    /// Stopped for this reason, for good.
    Failed(String),
}

/// State of the node's shards and disk. Shared by reference (`Arc`).
#[derive(Debug)]
pub struct Health {
    shards: Mutex<Vec<ShardHealth>>,
    disk: Mutex<DiskLook>,
    /// Number of looks at the disk: a shard locks only when there was a new one.
    looks: AtomicU64,
}

impl Health {
    /// All shards starting.
    pub fn new(shards: u16) -> Health {
        Health {
            shards: Mutex::new(vec![ShardHealth::Starting; shards as usize]),
            disk: Mutex::new(DiskLook::default()),
            looks: AtomicU64::new(0),
        }
    }
    /// The last look at the disk.
    pub fn disk(&self) -> DiskLook {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Publishes a look at the disk: it holds until this is called again. Returns the one before.
    pub fn set_disk(&self, look: DiskLook) -> DiskLook {
        let before = std::mem::replace(&mut *self.disk.lock().unwrap_or_else(PoisonError::into_inner), look);
        self.looks.fetch_add(1, Ordering::Release);
        before
    }
    /// What `set_disk` said, once: nothing when it was not called since the look that `seen` remembers.
    pub fn new_disk(&self, seen: &mut u64) -> Option<DiskLook> {
        let looks = self.looks.load(Ordering::Acquire);
        let is_new = looks != std::mem::replace(seen, looks);
        is_new.then(|| self.disk())
    }
    /// The shard serves. Ignored when it has failed or is stopping.
    pub fn ready(&self, shard: ShardId) {
        let mut shards = self.lock();
        if shards[shard.0 as usize] == ShardHealth::Starting {
            shards[shard.0 as usize] = ShardHealth::Ready;
        }
    }
    /// The shard has stopped for `reason`. The first reason stays.
    pub fn failed(&self, shard: ShardId, reason: &str) {
        let mut shards = self.lock();
        if !matches!(shards[shard.0 as usize], ShardHealth::Failed(_)) {
            shards[shard.0 as usize] = ShardHealth::Failed(reason.to_owned());
        }
    }
    /// The whole node is in orderly stop.
    pub fn stopping(&self) {
        for state in self.lock().iter_mut().filter(|state| !matches!(state, ShardHealth::Failed(_))) {
            *state = ShardHealth::Stopping;
        }
    }
    /// State of every shard.
    pub fn states(&self) -> Vec<ShardHealth> {
        self.lock().clone()
    }
    /// Why the node is not ready, one sentence per shard; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        let sentence = |(shard, state): (usize, &ShardHealth)| match state {
            ShardHealth::Ready => None,
            ShardHealth::Starting => Some(format!("shard {shard} is starting")),
            ShardHealth::Stopping => Some(format!("shard {shard} is shutting down")),
            ShardHealth::Failed(reason) => Some(format!("shard {shard} has failed: {reason}")),
        };
        self.lock().iter().enumerate().filter_map(sentence).collect()
    }

    // A panic while holding the lock leaves a state that is whole: the lock only guards assignments.
    fn lock(&self) -> MutexGuard<'_, Vec<ShardHealth>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_the_disk_is_taken_once() {
        let health = Health::new(1);
        let mut seen = 0;
        assert_eq!(health.new_disk(&mut seen), None, "nobody has looked yet");
        let look = DiskLook { segments: 3, ..DiskLook::default() };
        health.set_disk(look);
        assert_eq!((health.new_disk(&mut seen), health.new_disk(&mut seen)), (Some(look), None));
        assert_eq!(health.set_disk(look), look);
        assert_eq!(health.new_disk(&mut seen), Some(look), "the same numbers again are a new look");
    }

    #[test]
    fn states_only_move_forward() {
        let health = Health::new(3);
        assert_eq!(health.reasons().len(), 3);
        health.ready(ShardId(0));
        health.ready(ShardId(1));
        health.failed(ShardId(1), "write failed");
        health.failed(ShardId(1), "later consequence");
        health.ready(ShardId(1));
        assert_eq!(health.reasons(), ["shard 1 has failed: write failed", "shard 2 is starting"]);
        health.stopping();
        health.ready(ShardId(2));
        assert_eq!(health.states(), [ShardHealth::Stopping, ShardHealth::Failed("write failed".to_owned()), ShardHealth::Stopping]);
    }
}
