//! Handles: numbers that stand for objects, checked at each use.
//!
//! ```text
//! 63    56 55          32 31           0
//! | kind  |  generation  |    slot     |      0 is the null handle
//! ```
//!
//! A table has slots in chunks that never move and are never given back. A slot has a lock of its own, so that calls on different objects do not meet: a
//! call takes the lock for as long as it uses the object, and whoever comes meanwhile is told that it is busy.
//!
//! Invariants:
//! - A number is given out once. A slot's generation rises when its object goes; a slot that has used up its generations is not used again.
//! - A stale number is refused by looking at the slot's generation: no memory of the closed object is touched, and its lock is left
//!   alone, so that nobody's use of the next object there is told to be busy.
//! - After a panic in the middle of an object it is broken: every use is refused until it is closed.
//!
//! Clients are shared between threads: their table hands out clones of an `Arc` and its locks are held for nanoseconds, so it waits for them.
//!
//! Not here: what the objects are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::constants::{E_BUSY, E_FULL, E_HANDLE, E_PANIC};
use crate::failure::Failure;

/// What a handle stands for. The number is the top byte of the handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client.
    Client = 1,
    /// A producer.
    Producer = 2,
    /// A consumer.
    Consumer = 3,
    /// A member of a group.
    Member = 4,
    /// A consumer of a queue.
    QueueConsumer = 5,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Client => "client",
            Kind::Producer => "producer",
            Kind::Consumer => "consumer",
            Kind::Member => "member",
            Kind::QueueConsumer => "queue consumer",
        }
    }

    fn of(number: u64) -> Option<Kind> {
        let all = [Kind::Client, Kind::Producer, Kind::Consumer, Kind::Member, Kind::QueueConsumer];
        all.into_iter().find(|kind| *kind as u64 == number)
    }
}

/// Slots of a chunk: 64 make a chunk of some 190 KiB of producers, of which a program that has one touches one page or two.
const CHUNK_SLOTS: u32 = 64;

/// Chunks of a table: 65,536 objects of a kind, some 40 times the file descriptors that a process has by default.
const CHUNKS: usize = 1024;

const SLOTS_MAX: u32 = CHUNK_SLOTS * CHUNKS as u32;

/// The last generation that a handle has: 24 bits.
const GENERATION_MAX: u32 = (1 << 24) - 1;

#[derive(Debug)]
struct Entry<T> {
    value: Option<T>,
    /// It panicked; only closing is left.
    broken: bool,
}

#[derive(Debug)]
struct Slot<T> {
    /// Of the object here, or of the next one; from 1 on, and above `GENERATION_MAX` when the slot is used up. Changes only under the
    /// lock of `entry`.
    generation: AtomicU32,
    entry: Mutex<Entry<T>>,
}

/// A slot, and the generation that its handle has.
type Found<'a, T> = (&'a Slot<T>, u32);

#[derive(Debug)]
struct Free {
    /// Slots of closed objects.
    slots: Vec<u32>,
    /// Slots from here on were never used.
    next: u32,
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Table<T> {
    kind: Kind,
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    free: Mutex<Free>,
}

/// No lock here guards anything that a panic leaves half done: the panics of objects are caught while the lock is held.
fn unpoisoned<G>(result: Result<G, PoisonError<G>>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

impl<T> Table<T> {
    /// An empty table.
    pub const fn new(kind: Kind) -> Table<T> {
        Table { kind, chunks: [const { OnceLock::new() }; CHUNKS], free: Mutex::new(Free { slots: Vec::new(), next: 0 }) }
    }

    /// Gives an object a handle.
    pub fn insert(&self, value: T) -> Result<u64, Failure> {
        let index = self.take_slot()?;
        let chunk = self.chunks[(index / CHUNK_SLOTS) as usize].get_or_init(|| {
            let empty = |_| Slot { generation: AtomicU32::new(1), entry: Mutex::new(Entry { value: None, broken: false }) };
            (0..CHUNK_SLOTS).map(empty).collect()
        });
        let slot = &chunk[(index % CHUNK_SLOTS) as usize];
        // Waits for nobody longer than it takes to see that a number is stale.
        let mut entry = unpoisoned(slot.entry.lock());
        let generation = slot.generation.load(Ordering::Relaxed);
        assert!(entry.value.is_none() && generation <= GENERATION_MAX, "slot {index} is in use or used up");
        *entry = Entry { value: Some(value), broken: false };
        Ok((self.kind as u64) << 56 | u64::from(generation) << 32 | u64::from(index))
    }

    /// Uses an object. A panic of `each` breaks it.
    #[inline]
    pub fn with<R>(&self, handle: u64, each: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        let found = self.find(handle)?;
        self.with_found(found, each)
    }

    /// Ends a handle and drops its object.
    pub fn close(&self, handle: u64) -> Result<(), Failure> {
        let (value, _) = self.take(handle)?;
        // Behind the lock: closing connections takes a system call each.
        catch_unwind(AssertUnwindSafe(|| drop(value))).map_err(Failure::panicked)
    }

    /// Ends a handle; returns its object, and whether that is broken.
    fn take(&self, handle: u64) -> Result<(T, bool), Failure> {
        let found = self.find(handle)?;
        let taken = self.take_found(found)?;
        if found.1 < GENERATION_MAX {
            unpoisoned(self.free.lock()).slots.push(handle as u32);
        }
        Ok(taken)
    }

    /// Ends a handle in order: `end` has the object's last word. One that is broken has none, as after a crash: what it has in mind is not to be trusted.
    pub fn end(&self, handle: u64, end: impl FnOnce(T) -> Result<(), Failure>) -> Result<(), Failure> {
        let (value, broken) = self.take(handle)?;
        if broken { Ok(()) } else { end(value) }
    }

    #[inline]
    fn with_found<R>(&self, (slot, generation): Found<'_, T>, each: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        let mut entry = self.lock(slot)?;
        let Entry { value, broken } = &mut *entry;
        let value = self.usable(slot, generation, value.as_mut(), *broken)?;
        match catch_unwind(AssertUnwindSafe(|| each(value))) {
            Ok(result) => result,
            Err(payload) => {
                *broken = true;
                Err(Failure::panicked(payload))
            }
        }
    }

    fn take_found(&self, (slot, generation): Found<'_, T>) -> Result<(T, bool), Failure> {
        let mut entry = self.lock(slot)?;
        let same = slot.generation.load(Ordering::Relaxed) == generation;
        let value = entry.value.take_if(|_| same).ok_or_else(|| self.closed())?;
        // While the lock is held and before the slot is free: from now on `find` refuses this handle, whatever the slot is used for.
        slot.generation.store(generation + 1, Ordering::Release);
        Ok((value, entry.broken))
    }

    fn take_slot(&self) -> Result<u32, Failure> {
        let mut free = unpoisoned(self.free.lock());
        if let Some(index) = free.slots.pop() {
            return Ok(index);
        }
        if free.next == SLOTS_MAX {
            let message = format!("{SLOTS_MAX} {}s are open, which is the most: close those that are not needed", self.kind.name());
            return Err(Failure::new(E_FULL, true, message));
        }
        free.next += 1;
        Ok(free.next - 1)
    }

    /// The slot of a handle whose generation is the slot's, as far as can be seen without its lock.
    #[inline]
    fn find(&self, handle: u64) -> Result<Found<'_, T>, Failure> {
        if handle >> 56 != self.kind as u64 {
            return Err(self.wrong_kind(handle));
        }
        let index = handle as u32;
        let generation = (handle >> 32) as u32 & GENERATION_MAX;
        let chunk = self.chunks.get((index / CHUNK_SLOTS) as usize).and_then(OnceLock::get);
        match chunk.map(|chunk| &chunk[(index % CHUNK_SLOTS) as usize]) {
            // Looked at before the lock: a stale handle must not be told that its successor is busy.
            Some(slot) if slot.generation.load(Ordering::Acquire) == generation => Ok((slot, generation)),
            _ => Err(self.closed()),
        }
    }

    #[inline]
    fn lock<'a>(&self, slot: &'a Slot<T>) -> Result<MutexGuard<'a, Entry<T>>, Failure> {
        if self.kind == Kind::Client {
            return Ok(unpoisoned(slot.entry.lock()));
        }
        match slot.entry.try_lock() {
            Ok(entry) => Ok(entry),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(self.busy()),
        }
    }

    #[inline]
    fn usable<'a>(&self, slot: &Slot<T>, generation: u32, value: Option<&'a mut T>, broken: bool) -> Result<&'a mut T, Failure> {
        match value {
            // Once more, now that it cannot change: it may have been closed, and the slot used again, between the look and the lock.
            Some(value) if slot.generation.load(Ordering::Relaxed) == generation => match broken {
                false => Ok(value),
                true => Err(self.broken()),
            },
            _ => Err(self.closed()),
        }
    }

    #[cold]
    fn busy(&self) -> Failure {
        let name = self.kind.name();
        let message = format!(
            "the {name} is in use: by another thread, or this call comes from one of its callbacks; a {name} does one call at a time, so use one per thread"
        );
        Failure::new(E_BUSY, true, message)
    }

    #[cold]
    fn closed(&self) -> Failure {
        let name = self.kind.name();
        Failure::new(E_HANDLE, false, format!("this {name} was closed, or never opened: open one and use its handle"))
    }

    #[cold]
    fn broken(&self) -> Failure {
        let name = self.kind.name();
        Failure::new(
            E_PANIC,
            false,
            format!("a defect was caught in this {name} earlier, so it is not used any more: close it and open another"),
        )
    }

    #[cold]
    fn wrong_kind(&self, handle: u64) -> Failure {
        let wanted = self.kind.name();
        let message = match (handle, Kind::of(handle >> 56)) {
            (0, _) => format!("the handle is null: open a {wanted} first, and look at the status of that"),
            (_, Some(kind)) => format!("this is the handle of a {}, a {wanted} is needed", kind.name()),
            (_, None) => format!("{handle:#x} is no handle: a {wanted} is needed, as the library gave it out"),
        };
        Failure::new(E_HANDLE, false, message)
    }
}

impl<T: Clone> Table<T> {
    /// Uses a copy of a shared object, from any number of threads at once. A panic of `each` breaks it for all of them.
    pub fn shared<R>(&self, handle: u64, each: impl FnOnce(T) -> Result<R, Failure>) -> Result<R, Failure> {
        let (slot, generation) = self.find(handle)?;
        let copy = {
            let mut entry = unpoisoned(slot.entry.lock());
            let Entry { value, broken } = &mut *entry;
            self.usable(slot, generation, value.as_mut(), *broken)?.clone()
        };
        match catch_unwind(AssertUnwindSafe(|| each(copy))) {
            Ok(result) => result,
            Err(payload) => {
                let mut entry = unpoisoned(slot.entry.lock());
                entry.broken |= slot.generation.load(Ordering::Relaxed) == generation;
                Err(Failure::panicked(payload))
            }
        }
    }
}

#[cfg(test)]
mod tests;
