//! What the tests share: one sample of every body and batch, and a walk through whatever decodes.
#![allow(dead_code)] // each test binary uses a part of it

pub mod samples;
pub mod walk;
