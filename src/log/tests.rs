//! Tests of the log room over a simulated disk.

mod basics;
mod crash;
mod damage;
mod fuzz;
mod golden;
mod harness;
