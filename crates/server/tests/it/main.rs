//! The server through real sockets: a house on the memory store, listening on port 0.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod api;
mod documents;
mod events;
mod hostile;
mod ingress;
mod keys;
mod life;
mod log;
mod orphans;
mod world;
