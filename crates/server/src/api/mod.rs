//! The JSON API under `/api/v1`, with health, metrics and the documents beside it: `docs/interface.md`, section 5.
//!
//! One file a noun. A handler reads its parameters strictly ([`params`]), asks the house, and shows what it got in the
//! shapes of its file; lists all look the same ([`list`]).

mod agents;
mod contracts;
mod decisions;
mod events;
mod ingest;
mod json;
mod keys;
mod list;
mod log;
mod params;
mod runs;
mod secrets;
mod sources;
mod stats;
mod triggers;

use std::sync::Arc;

use axum::extract::{Extension, OriginalUri, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use http::{StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::front::Front;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::{auth, docs, health, metrics, openapi};

/// What the admin token opens, and API keys as far as `access` says.
fn guarded() -> OpenApiRouter<Arc<Front>> {
    OpenApiRouter::new()
        .routes(routes!(agents::list))
        .routes(routes!(agents::show))
        .routes(routes!(agents::pause))
        .routes(routes!(agents::resume))
        .routes(routes!(sources::list))
        .routes(routes!(sources::show))
        .routes(routes!(sources::pair))
        .routes(routes!(sources::close_pairing))
        .routes(routes!(sources::unpair))
        .routes(routes!(contracts::list))
        .routes(routes!(triggers::list))
        .routes(routes!(triggers::show))
        .routes(routes!(triggers::enable))
        .routes(routes!(triggers::disable))
        .routes(routes!(events::list, ingest::put_in))
        .routes(routes!(events::show))
        .routes(routes!(events::replay))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::retry))
        .routes(routes!(log::read))
        .routes(routes!(decisions::list))
        .routes(routes!(decisions::show))
        .routes(routes!(stats::stats))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::show))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::revoke))
        .routes(routes!(secrets::list, secrets::set))
        .routes(routes!(secrets::rotate))
        .routes(routes!(secrets::remove))
}

/// Every documented route, without state and layers: for the document.
pub(crate) fn routes() -> OpenApiRouter<Arc<Front>> {
    assemble(guarded())
}

fn assemble(guarded: OpenApiRouter<Arc<Front>>) -> OpenApiRouter<Arc<Front>> {
    let api = guarded.merge(OpenApiRouter::new().routes(routes!(runs::complete)));
    OpenApiRouter::with_openapi(openapi::top())
        .nest("/api/v1", api)
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
}

/// The router with everything.
pub(crate) fn router(front: Arc<Front>) -> Router {
    let guard = middleware::from_fn_with_state(Arc::clone(&front), auth::require);
    let guarded = guarded().fallback(no_such_call).layer(guard);
    let (router, _) = assemble(guarded).split_for_parts();
    // Beside the API: what is not JSON for programs.
    router
        .route("/metrics", get(metrics::render))
        .route("/openapi.json", get(document))
        .route("/docs", get(docs::page))
        .route("/docs/page.js", get(docs::script))
        .route("/docs/page.css", get(docs::style))
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .with_state(front)
}

async fn document() -> Response {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let text = TEXT.get_or_init(openapi::openapi);
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

async fn no_such_call(OriginalUri(uri): OriginalUri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::not_found(format!("there is no call `{path}`: /openapi.json lists them all"))
}

async fn other_method() -> Problem {
    let detail = "this call takes another method: /openapi.json lists them all";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

async fn nothing_here(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    OriginalUri(uri): OriginalUri,
) -> Response {
    front.nothing_here(peer.remote, uri.path()).await
}
