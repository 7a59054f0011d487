//! What a program gets on stdin: the only way in which the payload reaches it. Called by `process` before each start.

use base64::Engine;
use doorbell_core::attempt::{Envelope, EventFacts};
use serde_json::Value;

/// What a program gets on stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// The envelope, one line of JSON.
    Json,
    /// The prompt.
    Prompt,
    /// The event's body: JSON as it came, text without quotes, other bytes as they were. Of several joined events a JSON
    /// list of the bodies, the last kind in base64.
    Data,
}

impl Stdin {
    pub(super) fn of(self, envelope: &Envelope) -> Result<Vec<u8>, String> {
        let bad = |e| format!("the agent's input cannot be made: {e}");
        match self {
            Self::Prompt => Ok(envelope.prompt.clone().into_bytes()),
            Self::Json => {
                let mut json = serde_json::to_vec(envelope).map_err(|e| bad(e.to_string()))?;
                // For the shell's `read`, which fails on a line without an end.
                json.push(b'\n');
                Ok(json)
            }
            Self::Data if envelope.events.is_empty() => body_of(&envelope.event).map_err(bad),
            Self::Data => {
                let bodies: Vec<Value> = envelope
                    .events
                    .iter()
                    .map(|event| match (&event.data, &event.data_base64) {
                        (Some(json), _) => serde_json::from_str(json.get()),
                        (None, base64) => Ok(base64.clone().into()),
                    })
                    .collect::<Result<_, _>>()
                    .map_err(|e| bad(e.to_string()))?;
                serde_json::to_vec(&bodies).map_err(|e| bad(e.to_string()))
            }
        }
    }
}

fn body_of(event: &EventFacts) -> Result<Vec<u8>, String> {
    if let Some(base64) = &event.data_base64 {
        return base64::engine::general_purpose::STANDARD.decode(base64).map_err(|e| e.to_string());
    }
    let json = event.data.as_ref().map_or("", |raw| raw.get());
    match json.starts_with('"') {
        true => serde_json::from_str::<String>(json).map(String::into_bytes).map_err(|e| e.to_string()),
        false => Ok(json.as_bytes().to_vec()),
    }
}
