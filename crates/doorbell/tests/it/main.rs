//! All integration tests in one binary: the real program in a process of its own, see `world`, and the library.

#![allow(unreachable_pub, reason = "nobody uses a test binary")]
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod advice;
mod cli;
mod client_cert;
mod cloudevents;
mod contracts;
mod demo;
mod durability;
mod edge;
mod fatal;
mod forms;
mod handshakes;
mod library;
mod lifecycle;
mod must_pass;
mod newcomer;
mod own_server;
mod program;
mod runs;
mod secrets;
mod seen;
mod send;
mod senders;
mod tidy;
mod unread;
mod world;
