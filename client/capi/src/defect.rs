//! A panic on purpose, in the middle of a producer's call; only with the feature `defect`, for tests/capi.rs.
//!
//! Not in the header: a program that calls it declares it itself.

use std::ffi::c_int;

use crate::guard::guard;
use crate::layout::ProducerHandle;
use crate::producer;

/// Always panics, if the handle is good.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_defect(handle: ProducerHandle) -> c_int {
    guard(|| producer::table().with(handle.id, |_| panic!("a defect on purpose")))
}
