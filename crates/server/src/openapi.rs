//! The OpenAPI document, made from the handlers themselves: what is not in the code is not in the document.

use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, ResponseBuilder};

use crate::api;

/// What stands above the paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Doorbell",
        description = "Events that came in, what the door said to them, and the agents' runs on them.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(crate::problem::Problem)),
    tags(
        (name = "runs", description = "One agent working on one event"),
        (name = "events", description = "Accepted facts"),
        (name = "decisions", description = "What the door said to each request, and why"),
        (name = "agents", description = "Who can be run"),
        (name = "sources", description = "The ways in"),
        (name = "triggers", description = "Which events start which agent"),
        (name = "keys", description = "What lets somebody who is not the admin use a part of the API"),
        (name = "secrets", description = "What the server keeps sealed"),
        (name = "stats", description = "What is queued and running"),
        (name = "health", description = "Open to everybody"),
    )
)]
struct Top;

/// The document, as `doorbell openapi` prints it.
pub fn openapi() -> String {
    let text = document().to_pretty_json();
    // Plain data: there is no way for it to fail.
    text.unwrap_or_default()
}

/// The empty document that the router fills.
pub(crate) fn top() -> OpenApi {
    Top::openapi()
}

/// The filled document.
pub(crate) fn document() -> OpenApi {
    finish(api::routes().into_openapi())
}

/// Adds what is the same everywhere: the token, and the shape of errors.
fn finish(mut doc: OpenApi) -> OpenApi {
    let bearer = |text: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text));
        SecurityScheme::Http(scheme.build())
    };
    let components = doc.components.get_or_insert_with(Default::default);
    components
        .add_security_scheme("admin", bearer("The admin token, or an API key whose scopes and agent allow the call"));
    components.add_security_scheme("run", bearer("The token that an attempt's agent was given: `DOORBELL_RUN_TOKEN`"));
    for (path, item) in &mut doc.paths.paths {
        if !path.starts_with("/api/v1/") {
            continue;
        }
        let scheme = if path.ends_with("/complete") { "run" } else { "admin" };
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            operation.security = Some(vec![SecurityRequirement::new(scheme, Vec::<String>::new())]);
            add_problem(operation);
        }
    }
    doc
}

fn add_problem(operation: &mut Operation) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let problem = ResponseBuilder::new()
        .description("Any refusal or failure: `code` for programs, `detail` for people, `retry` for both")
        .content("application/problem+json", content)
        .build();
    operation.responses.responses.insert("default".to_owned(), problem.into());
}
