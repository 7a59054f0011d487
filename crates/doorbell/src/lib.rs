//! Doorbell rings AI agents when the outside world calls: the library that programs embed, and what the binary is made
//! of.
//!
//! An async function as an agent, rung by a webhook:
//!
//! ```
//! use doorbell::{Call, Doorbell, Failed, Provider};
//! use serde_json::json;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let tmp = tempfile::tempdir()?;
//! let doorbell = Doorbell::builder()
//!     .agent("echo", |call: Call| async move {
//!         Ok::<_, Failed>(json!({ "heard": call.envelope.event.event_type }))
//!     })
//!     .webhook("builds", Provider::bearer("a-secret-token"))
//!     .data_dir(tmp.path())
//!     .start()
//!     .await?;
//!
//! // What a sender does:
//! let answer = reqwest::Client::new()
//!     .post(format!("{}/hooks/builds", doorbell.url()))
//!     .bearer_auth("a-secret-token")
//!     .header("content-type", "application/json")
//!     .body(r#"{ "type": "build.finished" }"#)
//!     .send()
//!     .await?;
//! assert_eq!(answer.status(), 202); // stored and queued: it will run, whatever happens now
//! let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await?)?;
//!
//! let run = answer["run_id"].as_str().unwrap_or_default().parse()?;
//! let run = doorbell.wait(run).await?;
//! assert_eq!(run.output.as_deref(), Some(br#"{"heard":"build.finished"}"#.as_slice()));
//! doorbell.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! Layers, each using only those before it: [`config`], [`app`], [`library`](Doorbell), `cli`.

pub mod app;
pub mod cli;
pub mod config;
mod library;

/// The program of the README, so that it stays one that compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}

pub use library::{
    BuildError, Builder, Doorbell, EmitError, Emitted, Event, Limits, Provider, RegisterError, Trigger, WaitError,
    WebhookTrigger, WebhookTriggerInfo,
};

/// What an agent function is called with.
pub use doorbell_agents::native::Call;
/// Why an agent function did not succeed.
pub use doorbell_agents::native::Error as Failed;
/// The nouns, for those who look closer.
pub use doorbell_core as core;
