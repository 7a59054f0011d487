//! The HTTP face of Doorbell: webhook ingress, JSON API, health and metrics. The caller (the `doorbell` binary, or a
//! program that embeds it) opens the sockets and decides when to stop; everything between a socket and the middle
//! ([`doorbell_core`]) is here.
//!
//! ```text
//! server   what is offered: Server, Options      listen ─ conn ─ tls    sockets, limits, time-outs
//! front    one request: a source's path goes to webhook (the hot path), everything else to the axum router
//! contracts/   the wires of other systems, dressed around the same ingress
//! webhook  ingress           body  read whole, capped       peer ─ local  who really asks     reply ─ wait  the answers
//! api/     JSON under /api/v1    auth ─ access  tokens and keys     problem  RFC 9457 errors
//! status ─ health ─ metrics      openapi ─ docs/
//! ```
//!
//! Module order (each uses only what stands before it): options, status, problem, peer, local, body, tls, conn; reply, wait,
//! webhook; access, auth, contracts, health, metrics, api, openapi; front, listen, server.

mod access;
mod api;
mod auth;
mod body;
mod conn;
pub mod contracts;
mod docs;
mod front;
mod health;
mod listen;
mod local;
mod metrics;
mod openapi;
mod options;
mod peer;
mod problem;
mod reply;
mod server;
mod status;
mod tls;
mod wait;
mod webhook;

pub use contracts::Contracts;
pub use metrics::describe as describe_metrics;
pub use openapi::openapi;
pub use options::{Limits, Options, Timeouts};
pub use server::{Ending, Server};
pub use status::{Phase, Status};
pub use tls::{Tls, TlsError, tls_faults};
