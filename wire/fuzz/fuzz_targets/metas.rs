//! Bytes as every body: never panics; a decoded list gives as many items as it promised.
#![no_main]

#[path = "../../tests/common/walk.rs"]
#[allow(dead_code)]
mod walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    walk::metas(bytes);
});
