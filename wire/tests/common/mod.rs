//! What the tests share: one sample of every body and batch, and a walk through whatever decodes; the same for the protocol between nodes.
#![allow(dead_code)] // each test binary uses a part of it

pub mod node_mend;
pub mod node_samples;
pub mod node_walk;
pub mod samples;
pub mod walk;
