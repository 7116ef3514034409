//! Counts allocations: decoding bodies, good or hostile, and reading or validating batches allocates nothing; a warm
//! builder allocates nothing per record. One test, because the counter is the whole process's.
#![allow(unsafe_code)] // a global allocator cannot be written without

mod common;

use common::{node_samples, node_walk, samples, walk};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use tramline_wire::batch::*;
use tramline_wire::produce::*;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // During thread teardown the counter may be gone: nothing is measured then.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system allocator unchanged; counting touches a const-initialised thread local only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from `System` with this layout; `new_size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` ran.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
}

#[test]
fn reading_and_validating_batches_allocates_nothing() {
    for (name, bytes) in samples::batches() {
        let found = allocations(|| {
            let view = BatchView::parse_exact(&bytes).expect("a batch");
            view.verify_body().expect("checksum");
            view.validate_records(&Limits::default()).expect("records");
            walk::records(view.records(view.stored_values()));
            walk::batch(&bytes);
            walk::batches(&bytes);
        });
        assert_eq!(found, 0, "{name}");
    }
}

#[test]
fn decoding_bodies_allocates_nothing() {
    let samples = samples::all();
    for sample in &samples {
        let frame = sample.frame();
        assert_eq!(allocations(|| walk::frame(&frame)), 0, "{}", sample.name);
    }
}

#[test]
fn hostile_bodies_and_batches_allocate_nothing() {
    // Every byte of every sample set to values that make lengths and counts as large as they can be.
    for sample in samples::all() {
        let mut meta = sample.meta.clone();
        for at in 0..meta.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let kept = std::mem::replace(&mut meta[at], value);
                assert_eq!(
                    allocations(|| {
                        walk::metas(&meta);
                    }),
                    0,
                    "{} with byte {at} set to {value}",
                    sample.name
                );
                meta[at] = kept;
            }
        }
        for at in 0..meta.len().saturating_sub(3) {
            let mut meta = meta.clone();
            meta[at..at + 4].fill(0xff);
            assert_eq!(
                allocations(|| {
                    walk::metas(&meta);
                }),
                0,
                "{} with a length of 4 GiB at {at}",
                sample.name
            );
        }
    }
    for (name, bytes) in samples::batches() {
        for at in 0..bytes.len() - 3 {
            let mut bytes = bytes.clone();
            bytes[at..at + 4].fill(0xff);
            assert_eq!(allocations(|| walk::batch(&bytes)), 0, "{name} with a length of 4 GiB at {at}");
        }
    }
}

#[test]
fn taking_frames_of_nodes_allocates_nothing_good_or_damaged() {
    for sample in node_samples::all() {
        let mut frame = sample.frame();
        assert_eq!(allocations(|| node_walk::frame(&frame)), 0, "{}", sample.name);
        let (mut meta, payload) = (sample.meta.clone(), &sample.payload);
        let mut accepted = (0, 0);
        assert_eq!(allocations(|| accepted = node_walk::metas(&meta, payload)), 0, "{}", sample.name);
        assert!(accepted.0 > 0 && (payload.is_empty() || accepted.1 > 0), "{} is not taken: {accepted:?}", sample.name);
        for at in 0..frame.len() {
            frame[at] ^= 1;
            assert_eq!(allocations(|| node_walk::frame(&frame)), 0, "{} with byte {at} flipped", sample.name);
            frame[at] ^= 1;
        }
        for at in 0..meta.len().saturating_sub(3) {
            let kept: [u8; 4] = meta[at..at + 4].try_into().expect("four bytes");
            for value in [[0xff; 4], [0, 0, 0, 1], [1, 0, 0, 0]] {
                meta[at..at + 4].copy_from_slice(&value);
                let found = allocations(|| {
                    node_walk::metas(&meta, payload);
                });
                assert_eq!(found, 0, "{} with a length of {value:?} at {at}", sample.name);
            }
            meta[at..at + 4].copy_from_slice(&kept);
        }
    }
}

#[test]
fn a_warm_writer_of_appends_allocates_nothing() {
    use tramline_wire::{frame, node};
    let entries = node_samples::entries();
    let mut out = Vec::new();
    let mut numbers = node::Numbers::new();
    let mut round = || {
        out.clear();
        let start = node::begin(&mut out, node::Kind::Append, numbers.advance());
        let mut writer = node::AppendWriter::begin(&mut out, 1);
        for _ in 0..100 {
            writer.share(&mut out, &node_samples::BASE);
            let mut control = node::ItemsSum::new();
            std::hint::black_box(control.add(b"a control payload"));
            entries.heads.iter().for_each(|head| writer.entry(&mut out, head));
        }
        let payload_bytes = writer.finish(&mut out);
        frame::finish_frame(&mut out, start, payload_bytes).expect("small");
    };
    round();
    assert_eq!(allocations(round), 0);
}

#[test]
fn a_warm_builder_and_warm_writers_allocate_nothing() {
    let records = samples::records();
    let mut builder = BatchBuilder::new(Limits::default());
    let mut out = Vec::new();
    let mut round = || {
        out.clear();
        for number in 0..1_000 {
            builder.push(&records[number % records.len()]).expect("fits");
        }
        builder.finish_plain(&mut out, ProducerMark::default());
        let mut writer = ProduceReplyWriter::begin(&mut out, tramline_wire::level::Level::Durable, 0);
        for uid in 0..100 {
            let result = ProduceResult {
                partition_uid: uid,
                error: tramline_wire::error::ErrorCode::Ok,
                base_offset: 0,
                append_time_us: 0,
                durable_end: 0,
            };
            writer.push(&mut out, &result);
        }
        writer.finish(&mut out);
    };
    round();
    assert_eq!(allocations(round), 0);
}
