//! The contract's answers: `{"detail"}` where requests are forwarded, `{"message","code","data"}` elsewhere, and what a
//! request that cannot be understood is told.

use doorbell_core::ingest::No;
use doorbell_core::ports::StoreError;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::super::call::{status, with_allow, with_wait};
use crate::body::Body;
use crate::reply;

#[derive(Serialize)]
struct Detail<'a> {
    detail: &'a str,
}

pub(super) fn detail(status: StatusCode, text: &str) -> Response<Body> {
    reply::json(status, &Detail { detail: text })
}

/// A no of the door to a request that was to be forwarded.
pub(super) fn no(no: No) -> Response<Body> {
    with_wait(detail(status(no), no.told()), no)
}

pub(super) fn method(allowed: &'static str) -> Response<Body> {
    with_allow(detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"), allowed)
}

pub(super) fn failed(status: StatusCode, message: &str) -> Response<Body> {
    reply::json(status, &json!({ "message": message, "code": status.as_u16(), "data": null }))
}

/// To an address with too many keys that open nothing.
pub(super) fn failed_too_often(seconds: u64) -> Response<Body> {
    let mut response = failed(StatusCode::TOO_MANY_REQUESTS, "too many keys from this address opened nothing");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// A request that cannot be understood.
pub(super) fn invalid(message: &str) -> Response<Body> {
    let told = json!({ "status_code": 10422, "message": message, "data": null });
    reply::json(StatusCode::UNPROCESSABLE_ENTITY, &told)
}

pub(super) fn broken(error: &StoreError) -> Response<Body> {
    tracing::warn!(%error, "The store could not answer a contract");
    let no = No::Unavailable(std::time::Duration::from_secs(5));
    with_wait(failed(status(no), no.told()), no)
}
