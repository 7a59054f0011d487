//! What an API key opens. One table of all calls; what is not in it is the admin's alone, so a new call is closed to keys until
//! somebody decides otherwise. A key of one agent sees that agent's things, and everything else is not there for it.

use axum::extract::Request;
use doorbell_core::Name;
use doorbell_core::keys::{Key, Right};
use doorbell_core::ports::StoreError;
use doorbell_core::source::Source;
use http::{Method, StatusCode, Uri};

use crate::front::Front;
use crate::problem::Problem;

/// Whose things a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// The whole house's: for keys of all agents only.
    House,
    /// The agent in the path.
    Agent,
    /// The trigger in the path.
    Trigger,
    /// The run in the path.
    Run,
    /// A list, which is cut down to the agent by its `agent` parameter.
    List,
    /// Told by the body: the handler asks [`may_send`].
    Body,
}

/// What a call needs; none: the admin token.
fn need(method: &Method, route: &str) -> Option<(Right, About)> {
    let path = route.strip_prefix("/api/v1")?;
    // Whatever answers GET answers HEAD too.
    let read = matches!(*method, Method::GET | Method::HEAD);
    if !read && *method != Method::POST {
        return None;
    }
    let need = match path {
        "/agents/{name}" if read => (Right::Read, About::Agent),
        "/agents/{name}/pause" | "/agents/{name}/resume" => (Right::Operate, About::Agent),
        "/triggers/{name}" if read => (Right::Read, About::Trigger),
        "/triggers/{name}/enable" | "/triggers/{name}/disable" => (Right::Operate, About::Trigger),
        "/runs/{id}" | "/runs/{id}/log" if read => (Right::Read, About::Run),
        "/runs/{id}/cancel" | "/runs/{id}/retry" => (Right::Operate, About::Run),
        "/runs" | "/triggers" if read => (Right::Read, About::List),
        "/agents" | "/contracts" | "/sources" | "/sources/{name}" | "/events" | "/events/{id}" | "/decisions"
        | "/decisions/{id}" | "/stats"
            if read =>
        {
            (Right::Read, About::House)
        }
        "/events" => (Right::Send, About::Body),
        "/events/{id}/replay" => (Right::Operate, About::House),
        _ => return None,
    };
    Some(need)
}

/// Refuses a call that the key does not open; cuts a list down to the key's agent.
pub(crate) async fn check(front: &Front, key: &Key, route: Option<&str>, request: &mut Request) -> Result<(), Problem> {
    let needed = route.and_then(|route| Some((route, need(request.method(), route)?)));
    let Some((route, (right, about))) = needed else {
        return Err(forbidden("only the admin token opens this call"));
    };
    if !key.may(right) {
        return Err(forbidden(format!("this key has not the scope `{}`", right.as_str())));
    }
    let Some(own) = &key.agent else { return Ok(()) };
    let named = named(route, request.uri().path()).to_owned();
    match about {
        About::House => Err(forbidden(format!("this key is for agent `{own}`, and this call tells of all agents"))),
        About::Agent if named == own.as_str() => Ok(()),
        About::Agent => Err(Problem::not_found(format!("there is no agent `{named:.63}`"))),
        About::Trigger => {
            let catalog = front.house.catalog();
            let trigger = Name::new(&named).ok().and_then(|name| catalog.triggers.get(&name).cloned());
            let found = trigger.filter(|t| t.agent == *own);
            found.map(|_| ()).ok_or_else(|| Problem::not_found(format!("there is no trigger `{named:.63}`")))
        }
        About::Run => {
            let id = named.parse()?;
            let run = front.house.store.run(id).await?;
            // Told as if it were not there: whose it is is nothing to the holder of this key.
            if run.agent == *own { Ok(()) } else { Err(StoreError::NotFound(format!("run {id}")).into()) }
        }
        About::List => cut_down(own, request),
        About::Body => Ok(()),
    }
}

/// Whether the key may put an event into this source: all that it may start is the key's agent.
pub(crate) fn may_send(key: &Key, source: &Source) -> Result<(), Problem> {
    let foreign = source.triggers.iter().find(|t| !key.covers(&t.agent));
    match (foreign, &key.agent) {
        (None, None) => Ok(()),
        (None, Some(_)) if !source.triggers.is_empty() => Ok(()),
        _ => Err(Problem::not_found(format!("there is no source `{}`", source.name))),
    }
}

/// What stands in a path where its route has a name or an id. Counted from the end, since a nested router has cut the path's
/// beginning off, and not the route's.
fn named<'p>(route: &str, path: &'p str) -> &'p str {
    let from_end = route.rsplit('/').position(|part| part.starts_with('{'));
    from_end.and_then(|at| path.rsplit('/').nth(at)).unwrap_or_default()
}

fn cut_down(own: &Name, request: &mut Request) -> Result<(), Problem> {
    let query = request.uri().query().unwrap_or_default();
    let asked: Vec<String> =
        form_urlencoded::parse(query.as_bytes()).filter(|(k, _)| k == "agent").map(|(_, v)| v.into_owned()).collect();
    match asked.as_slice() {
        [] => {}
        [one] if one == own.as_str() => return Ok(()),
        _ => return Err(forbidden(format!("this key is for agent `{own}`"))),
    }
    let sign = if query.is_empty() { "" } else { "&" };
    let whole = format!("{}?{query}{sign}agent={own}", request.uri().path());
    *request.uri_mut() = whole.parse::<Uri>().map_err(|_| Problem::bad("the address of this call cannot be read"))?;
    Ok(())
}

fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_where_the_route_has_it() {
        let (pause, show) = ("/api/v1/agents/{name}/pause", "/api/v1/runs/{id}");
        assert_eq!(named(pause, "/agents/worker/pause"), "worker");
        assert_eq!(named(pause, "/api/v1/agents/worker/pause"), "worker");
        assert_eq!(named(show, "/runs/run_1"), "run_1");
        assert_eq!(named("/api/v1/runs", "/runs"), "");
    }

    /// Its length tells of what it would have listed.
    #[test]
    fn a_head_needs_what_its_get_needs() {
        assert_eq!(need(&Method::HEAD, "/api/v1/events"), Some((Right::Read, About::House)));
        assert_eq!(need(&Method::HEAD, "/api/v1/runs/{id}"), Some((Right::Read, About::Run)));
        assert_eq!(need(&Method::DELETE, "/api/v1/events"), None);
    }

    /// Every documented call has been decided on: it is in the table, or here.
    #[test]
    fn every_call_is_open_to_some_key_or_the_admins_alone() {
        let admins = [
            ("get", "/api/v1/keys"),
            ("post", "/api/v1/keys"),
            ("get", "/api/v1/keys/{id}"),
            ("post", "/api/v1/keys/{id}/rotate"),
            ("post", "/api/v1/keys/{id}/revoke"),
            ("get", "/api/v1/secrets"),
            ("post", "/api/v1/secrets"),
            ("post", "/api/v1/secrets/{name}/rotate"),
            ("post", "/api/v1/secrets/{name}/remove"),
            ("post", "/api/v1/sources/{name}/pair"),
            ("post", "/api/v1/sources/{name}/pair/close"),
            ("post", "/api/v1/sources/{name}/unpair"),
        ];
        // Has a token of its own.
        let other = ("post", "/api/v1/runs/{id}/complete");
        let doc: serde_json::Value = serde_json::from_str(&crate::openapi()).unwrap();
        let mut seen = 0;
        for (path, methods) in doc["paths"].as_object().unwrap().iter().filter(|(p, _)| p.starts_with("/api/v1")) {
            for method in methods.as_object().unwrap().keys() {
                let call = (method.as_str(), path.as_str());
                let needs = need(&method.to_uppercase().parse().unwrap(), path);
                assert_eq!(needs.is_none(), admins.contains(&call) || call == other, "{call:?}");
                // Reading never needs more than the right to read, and nothing else is open to it.
                if let Some((right, _)) = needs {
                    assert_eq!(right == Right::Read, method == "get", "{call:?}");
                }
                seen += 1;
            }
        }
        assert!(seen >= 25, "{seen}");
    }
}
