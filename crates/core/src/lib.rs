//! The middle of Doorbell: the nouns, the pure decisions, the provider engine, ingest and the worker. Opens no socket,
//! file or process; everything outside comes in through [`ports`].
//!
//! Reading order: [`event`], [`run`] (with `decide`), [`decision`], [`ports`], then [`ingest`] and [`worker`].

pub mod agent;
pub mod allowed;
pub mod attempt;
pub mod breaker;
pub mod clock;
pub mod decision;
pub mod envelope;
pub mod event;
pub mod excerpt;
pub mod fence;
pub mod filter;
pub mod forward;
mod guard;
pub mod house;
pub mod ids;
pub mod ingest;
pub mod keys;
pub mod lane;
pub mod limits;
pub mod lists;
pub mod loop_guard;
pub mod payload;
pub mod ports;
pub mod provider;
pub mod registration;
pub mod replay;
pub mod retry;
pub mod run;
pub mod run_token;
pub mod scope;
pub mod seal;
pub mod secret;
pub mod source;
pub mod spelling;
pub mod template;
pub mod trigger;
pub mod vault;
pub mod verdict;
pub mod worker;

pub use clock::{Clock, Timestamp};
pub use ids::{DecisionId, EventId, Name, RunId, StoreTag};
pub use secret::Secret;
