//! The errors of the API: RFC 9457 problem JSON with a stable `code`, a `detail` that says what to do, and whether the
//! same request may be sent again.

use axum::response::{IntoResponse, Response};
use doorbell_core::ids::{BadId, BadName};
use doorbell_core::ingest::Refused;
use doorbell_core::ports::StoreError;
use doorbell_core::seal::SealError;
use doorbell_core::vault::VaultError;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal or a failure, as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// The status in words.
    #[schema(example = "Not Found")]
    pub title: &'static str,
    /// A stable word for programs.
    #[schema(example = "not_found")]
    pub code: &'static str,
    /// What happened and what to do, for people.
    pub detail: String,
    /// Whether the same request may work later.
    pub retry: bool,
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { status: status.as_u16(), title, code, detail: detail.into(), retry: false, retry_after: None }
    }

    /// The request itself is wrong.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// The same request may work in a moment.
    pub(crate) fn later(code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry: true, retry_after: Some(5), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer <token>` with the admin token of this server";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// Too many tokens from this address opened nothing. A good one is let in all the same.
    pub(crate) fn too_many_failures(wait: std::time::Duration) -> Self {
        let detail = "too many tokens from this address opened nothing; a good one is let in at once";
        let wait = Some(crate::reply::whole_seconds(wait));
        Self { retry_after: wait, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "failed_auth_limited", detail) }
    }

    /// After how many seconds to come again, if that was said.
    pub(crate) fn wait(&self) -> Option<u64> {
        self.retry_after
    }

    /// The door's no, to an authorised caller: with the reason.
    pub(crate) fn refused(refused: &Refused) -> Self {
        let status = StatusCode::from_u16(refused.no.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let wait = refused.no.retry_after().map(crate::reply::whole_seconds);
        Self {
            retry: wait.is_some(),
            retry_after: wait,
            ..Self::new(status, refused.no.code(), refused.reason.clone().into_owned())
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::NotFound(_) => Self::not_found(text),
            StoreError::Conflict(_) => Self::conflict(text),
            StoreError::Unavailable(_) => Self::later("store_unavailable", text),
            StoreError::QueueFull { .. } => Self::later("queue_full", text),
            StoreError::Closed => Self::later("stopping", text),
            StoreError::Fatal(_) | StoreError::Corrupt(_) => {
                tracing::error!(error = %text, "The store failed an API request");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", text)
            }
        }
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        let text = error.to_string();
        match error {
            VaultError::Store(error) => error.into(),
            VaultError::Seal { why: SealError::Length, .. } => Self::bad(text),
            VaultError::Seal { .. } | VaultError::OtherKeys { .. } => {
                tracing::error!(error = %text, "The vault failed an API request");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "vault_failed", text)
            }
        }
    }
}

// An id or name that has not even the form of one names nothing.
impl From<BadId> for Problem {
    fn from(error: BadId) -> Self {
        Self::not_found(error.to_string())
    }
}

impl From<BadName> for Problem {
    fn from(error: BadName) -> Self {
        Self::not_found(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
