//! The runner kinds against real programs and a real HTTP server on loopback. `suite` puts every kind through the same
//! cases; the other files hold what only one kind promises.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod http;
mod process;
mod settings;
mod suite;
mod support;
mod tree;
