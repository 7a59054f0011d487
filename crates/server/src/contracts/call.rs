//! What the contracts have in common: who may read, and how a no carries its `Retry-After` and its method.

use std::net::IpAddr;

use doorbell_core::Name;
use doorbell_core::ingest::{self, No};
use doorbell_core::keys::Right;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::Reading;
use crate::auth::{self, Caller};
use crate::body::Body;
use crate::front::Front;
use crate::reply::whole_seconds;
use crate::webhook::Arrived;

/// Who asks, and with what.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) remote: IpAddr,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> Asker<'a> {
    pub(super) fn of(arrived: &'a Arrived) -> Self {
        Self { remote: arrived.remote, headers: &arrived.head.headers }
    }
}

/// Whether the caller may read what is told of this agent. A store that cannot be asked says no.
pub(super) async fn may_read(front: &Front, reading: Reading, asker: Asker<'_>, agent: Option<&Name>) -> bool {
    if reading == Reading::Open {
        return true;
    }
    match auth::who(front, Some(asker.remote), asker.headers).await {
        Ok(Some(Caller::Admin)) => true,
        Ok(Some(Caller::Key(key))) => {
            key.may(Right::Read) && agent.map_or(key.agent.is_none(), |agent| key.covers(agent))
        }
        Ok(None) => {
            // Counted; told in the contract's own way.
            let _ = auth::unauthorized(front, Some(asker.remote));
            false
        }
        Err(_) => false,
    }
}

/// The status of a no.
pub(super) fn status(no: No) -> StatusCode {
    StatusCode::from_u16(no.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Adds when to come again.
pub(super) fn with_wait(mut response: Response<Body>, no: No) -> Response<Body> {
    if let Some(wait) = no.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    response
}

/// Adds which methods are taken.
pub(super) fn with_allow(mut response: Response<Body>, methods: &'static str) -> Response<Body> {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Records a no that the contract's own rules made.
pub(super) async fn refused(front: &Front, source: Option<&Name>, remote: IpAddr, no: No, reason: impl Into<String>) {
    let reason: String = reason.into();
    ingest::refuse_early(&front.house, source, Some(remote), no, reason).await;
}

/// A piece of a path or a header in a sentence: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_default).collect()
}
