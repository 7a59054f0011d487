//! The stores from outside: the shared suite on each, the model test that compares them, and what only a file can show.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test, too")]

mod cut_off;
mod file;
mod full;
mod memory;
mod model;
mod prints;
mod sqlite;
