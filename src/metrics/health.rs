//! What each shard says about its state, and what the housekeeping thread says about the disk: the one piece of memory that both touch.
//!
//! Invariants: states are written only when they change (never per request), so the lock is not on any path that counts; a state only moves
//! forward: starting -> ready -> stopping, and failed from each of them, for good. The disk's level is one atomic byte that a shard looks at in
//! its background turns.
//!
//! Not here: whether a shard answers (`admin/collector.rs` asks it), what 503 looks like (`admin/`).

use crate::ids::ShardId;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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

/// How much space the data directory's file system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskLevel {
    /// More than disk.warn.bytes.
    #[default]
    Enough,
    /// Less than disk.warn.bytes.
    Low,
    /// Less than disk.refuse.bytes would stay free: no new segment may be taken from the file system.
    Refuse,
}

impl DiskLevel {
    /// The level of `free_bytes` between the two settings.
    pub fn of(free_bytes: u64, warn_bytes: u64, refuse_bytes: u64) -> DiskLevel {
        match free_bytes {
            free if free < refuse_bytes => DiskLevel::Refuse,
            free if free < warn_bytes => DiskLevel::Low,
            _ => DiskLevel::Enough,
        }
    }
}

/// State of the node's shards and disk. Shared by reference (`Arc`).
#[derive(Debug)]
pub struct Health {
    shards: Mutex<Vec<ShardHealth>>,
    disk: AtomicU8,
    /// Segments that each shard may take from the file system until the next look at it (low half), and the number of the look (high half).
    room: AtomicU64,
}

impl Health {
    /// All shards starting.
    pub fn new(shards: u16) -> Health {
        Health {
            shards: Mutex::new(vec![ShardHealth::Starting; shards as usize]),
            disk: AtomicU8::new(DiskLevel::Enough as u8),
            room: AtomicU64::new(0),
        }
    }
    /// The disk's level as of the last second.
    pub fn disk(&self) -> DiskLevel {
        match self.disk.load(Ordering::Relaxed) {
            level if level == DiskLevel::Refuse as u8 => DiskLevel::Refuse,
            level if level == DiskLevel::Low as u8 => DiskLevel::Low,
            _ => DiskLevel::Enough,
        }
    }
    /// Publishes the disk's level. Returns the one before.
    pub fn set_disk(&self, level: DiskLevel) -> DiskLevel {
        let before = self.disk();
        self.disk.store(level as u8, Ordering::Relaxed);
        before
    }
    /// Publishes how many segments each shard may take from the file system until this is called again.
    pub fn set_room(&self, segments: u32) {
        let look = (self.room.load(Ordering::Relaxed) >> 32) + 1;
        self.room.store(look << 32 | u64::from(segments), Ordering::Relaxed);
    }
    /// What `set_room` said, once: nothing when it was not called since the look that `seen` remembers.
    pub fn new_room(&self, seen: &mut u64) -> Option<u32> {
        let room = self.room.load(Ordering::Relaxed);
        let look = room >> 32;
        let is_new = look != *seen;
        *seen = look;
        is_new.then_some(room as u32)
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
    fn the_disks_level_follows_its_marks() {
        let health = Health::new(1);
        for (free, level) in
            [(200, DiskLevel::Enough), (100, DiskLevel::Enough), (99, DiskLevel::Low), (10, DiskLevel::Low), (9, DiskLevel::Refuse)]
        {
            health.set_disk(DiskLevel::of(free, 100, 10));
            assert_eq!(health.disk(), level);
        }
    }

    #[test]
    fn room_is_granted_once_per_look() {
        let health = Health::new(1);
        let mut seen = 0;
        assert_eq!(health.new_room(&mut seen), None, "nobody has looked yet");
        health.set_room(3);
        assert_eq!((health.new_room(&mut seen), health.new_room(&mut seen)), (Some(3), None));
        health.set_room(3);
        assert_eq!(health.new_room(&mut seen), Some(3));
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
