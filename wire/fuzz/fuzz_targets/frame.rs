//! Bytes as a frame: never panics, never asks for more than the limits allow; a whole frame's meta and payload are walked.
#![no_main]

#[path = "../../tests/common/walk.rs"]
#[allow(dead_code)]
mod walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    walk::frame(bytes);
});
