//! Tests of the tables: stale numbers, busy objects, broken ones, and the end of a slot.

use super::*;
use std::sync::Arc;
use std::sync::mpsc::channel;

fn status<R>(result: Result<R, Failure>) -> std::ffi::c_int {
    result.map_or_else(|failure| failure.status, |_| 0)
}

fn get(table: &Table<u32>, handle: u64) -> Result<u32, Failure> {
    table.with(handle, |value| Ok(*value))
}

#[test]
fn a_handle_finds_its_object_until_it_is_closed() {
    let table = Table::new(Kind::Producer);
    let handles: Vec<u64> = (0..200).map(|value| table.insert(value).expect("room")).collect();
    for (value, handle) in handles.iter().enumerate() {
        assert_eq!(get(&table, *handle), Ok(value as u32));
    }
    assert_eq!(status(table.close(handles[70])), 0);
    assert_eq!(status(get(&table, handles[70])), E_HANDLE);
    assert_eq!(status(table.close(handles[70])), E_HANDLE);
    assert_eq!(get(&table, handles[71]), Ok(71));
    // The slot is used again, under another number.
    let again = table.insert(7).expect("room");
    assert_eq!(again as u32, handles[70] as u32);
    assert_eq!(get(&table, again), Ok(7));
    assert_eq!(status(get(&table, handles[70])), E_HANDLE);
    assert_eq!(status(table.close(handles[70])), E_HANDLE);
}

#[test]
fn numbers_that_were_never_given_out_are_refused() {
    let table = Table::new(Kind::Consumer);
    let handle = table.insert(1).expect("room");
    let other_kinds = [0, 1u64 << 56, 2 << 56, 255 << 56, u64::MAX].map(|top| top | (handle & ((1 << 56) - 1)));
    let other_slots = [1, 63, 64, 65_535, 65_536, u64::from(u32::MAX)].map(|slot| (handle & !u64::from(u32::MAX)) | slot);
    let other_generations = [0u64, 2, 1 << 23, (1 << 24) - 1].map(|generation| 3 << 56 | generation << 32);
    for wrong in other_kinds.into_iter().chain(other_slots).chain(other_generations).filter(|wrong| *wrong != handle) {
        assert_eq!(status(get(&table, wrong)), E_HANDLE, "{wrong:#x}");
        assert_eq!(status(table.close(wrong)), E_HANDLE, "{wrong:#x}");
    }
    assert_eq!(get(&table, handle), Ok(1));
}

#[test]
fn an_object_in_use_is_busy_and_a_stale_handle_of_its_slot_is_not() {
    let table = Arc::new(Table::new(Kind::Producer));
    let stale = table.insert(1).expect("room");
    assert_eq!(status(table.close(stale)), 0);
    let handle = table.insert(2).expect("room");
    let (held, is_held) = channel();
    let (release, released) = channel::<()>();
    let holder = std::thread::spawn({
        let table = Arc::clone(&table);
        move || {
            table.with(handle, |_| {
                held.send(()).expect("somebody waits");
                released.recv().expect("somebody says when");
                Ok(())
            })
        }
    });
    is_held.recv().expect("held");
    assert_eq!(status(get(&table, handle)), E_BUSY);
    assert_eq!(status(table.close(handle)), E_BUSY);
    assert_eq!(status(get(&table, stale)), E_HANDLE);
    assert_eq!(status(table.close(stale)), E_HANDLE);
    release.send(()).expect("it waits");
    assert_eq!(holder.join().expect("no panic"), Ok(()));
    assert_eq!(get(&table, handle), Ok(2));
    // A call from within a call, as a callback would do it.
    assert_eq!(status(table.with(handle, |_| get(&table, handle))), E_BUSY);
    assert_eq!(status(table.close(handle)), 0);
}

#[test]
fn a_slot_that_is_used_again_between_the_look_and_the_lock_is_not_taken_for_the_old_one() {
    let table = Table::new(Kind::Producer);
    let old = table.insert(1).expect("room");
    let found = table.find(old).expect("alive");
    // What another thread may do here.
    assert_eq!(status(table.close(old)), 0);
    assert_eq!(status(table.with_found(found, |value| Ok(*value))), E_HANDLE);
    assert_eq!(status(table.take_found(found)), E_HANDLE);
    let new = table.insert(2).expect("room");
    assert_eq!(new as u32, old as u32);
    assert_eq!(status(table.with_found(found, |value| Ok(*value))), E_HANDLE);
    assert_eq!(status(table.take_found(found)), E_HANDLE);
    assert_eq!(get(&table, new), Ok(2));
}

#[test]
fn a_closed_handle_is_refused_without_the_lock_of_its_slot() {
    let table = Table::new(Kind::Producer);
    let closed = table.insert(1).expect("room");
    assert_eq!(status(table.close(closed)), 0);
    let slot = &table.chunks[0].get().expect("made by the insert")[0];
    // As by an insert of another thread that has not come to its end, or by a call on the object that it put there.
    let _held = slot.entry.lock().expect("not poisoned");
    assert_eq!(status(get(&table, closed)), E_HANDLE);
    assert_eq!(status(table.close(closed)), E_HANDLE);
}

#[test]
fn a_panic_breaks_the_object_and_only_it() {
    let table = Table::new(Kind::Producer);
    let (one, other) = (table.insert(1).expect("room"), table.insert(2).expect("room"));
    assert_eq!(status(table.with::<()>(one, |_| panic!("on purpose"))), E_PANIC);
    assert_eq!(status(get(&table, one)), E_PANIC);
    assert_eq!(get(&table, other), Ok(2));
    assert_eq!(status(table.close(one)), 0);
    assert_eq!(status(get(&table, one)), E_HANDLE);
    // Its slot is as good as new.
    let next = table.insert(3).expect("room");
    assert_eq!(next as u32, one as u32);
    assert_eq!(get(&table, next), Ok(3));
}

#[test]
fn an_object_whose_end_panics_is_closed_all_the_same() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let table = Table::new(Kind::Consumer);
    let handle = table.insert(Bomb).expect("room");
    assert_eq!(status(table.close(handle)), E_PANIC);
    assert_eq!(status(table.close(handle)), E_HANDLE);
}

#[test]
fn a_shared_object_is_used_by_many_at_once() {
    let table = Table::new(Kind::Client);
    let handle = table.insert(Arc::new(5)).expect("room");
    // From within a call, which is the same as from another thread here.
    assert_eq!(table.shared(handle, |outer| table.shared(handle, |inner| Ok(*outer + *inner))), Ok(10));
    // Closed while in use: who uses it, keeps it.
    assert_eq!(table.shared(handle, |value| table.close(handle).map(|()| *value)), Ok(5));
    assert_eq!(status(table.shared(handle, |value| Ok(*value))), E_HANDLE);
    let handle = table.insert(Arc::new(6)).expect("room");
    assert_eq!(status(table.shared::<()>(handle, |_| panic!("on purpose"))), E_PANIC);
    assert_eq!(status(table.shared(handle, |value| Ok(*value))), E_PANIC);
    assert_eq!(status(table.close(handle)), 0);
}

#[test]
fn a_slot_whose_generations_are_used_up_is_not_used_again() {
    let table = Table::new(Kind::Producer);
    let first = table.insert(1).expect("room");
    let slot = &table.chunks[0].get().expect("made by the insert")[0];
    assert_eq!(status(table.close(first)), 0);
    slot.generation.store(GENERATION_MAX, Ordering::Relaxed);
    let last = table.insert(2).expect("room");
    assert_eq!((last as u32, (last >> 32) as u32 & GENERATION_MAX), (0, GENERATION_MAX));
    assert_eq!(get(&table, last), Ok(2));
    assert_eq!(status(table.close(last)), 0);
    assert_eq!(table.insert(3).expect("room") as u32, 1);
    assert_eq!(status(get(&table, last)), E_HANDLE);
}

#[test]
fn a_full_table_says_so_and_takes_on_when_one_is_closed() {
    let table = Table::new(Kind::Producer);
    let handles: Vec<u64> = (0..SLOTS_MAX).map(|value| table.insert(value).expect("room")).collect();
    assert_eq!(status(table.insert(0)), E_FULL);
    assert_eq!(status(table.close(handles[1000])), 0);
    assert_eq!(table.insert(0).map(|handle| handle as u32), Ok(1000));
    assert_eq!(status(table.insert(0)), E_FULL);
}
