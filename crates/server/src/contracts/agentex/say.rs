//! The contract's answers: `{"detail"}` where requests are forwarded, `{"message","code","data"}` elsewhere, and what a
//! request that cannot be understood is told.

use std::time::Duration;

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
    let told = detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    because(with_allow(told, allowed), &format!("this path takes {allowed}"))
}

/// Why a response says no, for the record.
#[derive(Clone, Debug)]
pub(super) struct Reason(pub(super) String);

fn because(mut response: Response<Body>, reason: &str) -> Response<Body> {
    response.extensions_mut().insert(Reason(reason.to_owned()));
    response
}

/// What a status of the routes of keys and agents is to the door, and its code in a record.
pub(super) fn no_of(status: StatusCode) -> (No, &'static str) {
    match status {
        StatusCode::UNAUTHORIZED => (No::NotVerified, "not_verified"),
        StatusCode::FORBIDDEN => (No::NotVerified, "not_allowed"),
        StatusCode::NOT_FOUND => (No::NotFound, "not_found"),
        StatusCode::METHOD_NOT_ALLOWED => (No::Method, No::Method.code()),
        StatusCode::CONFLICT => (No::Unreadable, "conflict"),
        StatusCode::PAYLOAD_TOO_LARGE => (No::TooLarge, No::TooLarge.code()),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (No::MediaType, No::MediaType.code()),
        StatusCode::TOO_MANY_REQUESTS => (No::Limited(Duration::ZERO), "rate_limited"),
        status if status.is_server_error() => (No::Unavailable(Duration::ZERO), "unavailable"),
        _ => (No::Unreadable, "invalid"),
    }
}

pub(super) fn failed(status: StatusCode, message: &str) -> Response<Body> {
    because(reply::json(status, &json!({ "message": message, "code": status.as_u16(), "data": null })), message)
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
    because(reply::json(StatusCode::UNPROCESSABLE_ENTITY, &told), message)
}

pub(super) fn broken(error: &StoreError) -> Response<Body> {
    tracing::warn!(%error, "The store could not answer a contract");
    let no = No::Unavailable(std::time::Duration::from_secs(5));
    with_wait(failed(status(no), no.told()), no)
}
