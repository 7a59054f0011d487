//! Passing a checked request on to an agent's own HTTP server: which URL it goes to, which headers go with it and come back,
//! and the proof that we checked it. Pure; called by the wire contracts that forward.
//!
//! What is passed on is what was checked: the path cannot leave the agent's base URL, credentials stay here, and what the
//! agent reads of us (`doorbell-*`, `signature`) cannot be written by the sender.

mod headers;
mod proof;
mod target;

pub use headers::{back, onward};
pub use proof::{Checked, prove};
pub use target::{BadPath, target};
