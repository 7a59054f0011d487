//! Who may use the API: whoever holds the admin token, sent as a bearer token. There are no cookies, so a browser that
//! was led here by another site has nothing to give away.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use crate::front::Front;
use crate::problem::Problem;

/// Lets a request with the admin token by.
pub(crate) async fn require(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    if is_admin(&front, request.headers()) {
        return next.run(request).await;
    }
    metrics::counter!("doorbell_api_unauthorized_total").increment(1);
    Problem::unauthorized().into_response()
}

/// Whether the admin token came with the request. Compared in constant time.
pub(crate) fn is_admin(front: &Front, headers: &HeaderMap) -> bool {
    let token = &front.options.admin_token;
    bearer(headers).is_some_and(|offered| !token.expose().is_empty() && token.matches(offered.as_bytes()))
}

/// The one bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
