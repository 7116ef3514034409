//! Bytes as one batch and as several: never panics; what validates gives all its records.
#![no_main]

#[path = "../../tests/common/walk.rs"]
#[allow(dead_code)]
mod walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    walk::batch(bytes);
    walk::batches(bytes);
});
