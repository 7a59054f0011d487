//! Request bodies in JSON: read within the API's cap and time, then parsed, with errors that name the place.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use doorbell_core::ingest::No;
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::body::{self, Rule, Whole};
use crate::front::Front;
use crate::problem::Problem;

/// A JSON object as a `T`; no body at all is `{}`.
pub(crate) struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Front>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, front: &Arc<Front>) -> Result<Self, Problem> {
        let Raw(whole) = Raw::read(request, front).await?;
        let bytes: &[u8] = if whole.bytes.is_empty() { b"{}" } else { &whole.bytes };
        // A list would be read as the members in their order, which no caller means.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::bad("the body is not what this call takes: it must be a JSON object"));
        }
        let parsed = serde_json::from_slice(bytes);
        parsed.map(Self).map_err(|why| Problem::bad(format!("the body is not what this call takes: {why}")))
    }
}

/// A body as it came.
pub(crate) struct Raw(pub Whole);

impl Raw {
    pub(crate) async fn read(request: Request, front: &Front) -> Result<Self, Problem> {
        let (head, incoming) = request.into_parts();
        let limit = front.options.limits.api_body;
        let rule = Rule { limit, timeouts: &front.options.timeouts, budget: &front.budget };
        body::read(&head.headers, incoming, rule).await.map(Self).map_err(|error| {
            let text = error.to_string();
            match error.no() {
                No::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text),
                No::MediaType => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text),
                No::Unavailable(_) => Problem::later("busy", text),
                _ => Problem::bad(text),
            }
        })
    }
}
