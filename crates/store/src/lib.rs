//! Where events, runs and decisions live: the only place with SQL. [`MemoryStore`] is the reference, short enough to be
//! read in one go; [`SqliteStore`] is the default. [`mod@conformance`] holds both to the contract of
//! [`doorbell_core::ports::Store`].
//!
//! Stores move state and never decide: `record` says what a move changes in a run, for both; the rest is finding rows,
//! keeping lanes in order, and putting it on disk.

pub mod conformance;
pub mod memory;
pub mod sqlite;

mod edge;
mod filter;
mod moves;
mod record;

pub use memory::MemoryStore;
pub use sqlite::{OnFatal, SqliteOptions, SqliteStore, all_secrets_of, backup, restore, secrets_of};
