//! Who may use the API: whoever holds the admin token may do everything, whoever holds an API key what [`access`] says, both
//! sent as a bearer token. There are no cookies, so a browser that was led here by another site has nothing to give away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use doorbell_core::Timestamp;
use doorbell_core::keys::{Key, KeyId};
use doorbell_core::limits::{Meters, Quota, key_of};
use http::{HeaderMap, header};
use tokio::sync::Semaphore;

use crate::access;
use crate::front::Front;
use crate::peer::Peer;
use crate::problem::Problem;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// The holder of the admin token.
    Admin,
    /// The holder of an API key, which has been found good.
    Key(Arc<Key>),
}

impl Caller {
    /// For the history of what they do.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Admin => "admin".into(),
            Self::Key(key) => key.id.to_string(),
        }
    }
}

/// Lets a request by with the admin token, or with a key that may make this call.
pub(crate) async fn require(State(front): State<Arc<Front>>, mut request: Request, next: Next) -> Response {
    let remote = request.extensions().get::<Peer>().map(|peer| peer.remote);
    let caller = match who(&front, remote, request.headers()).await {
        Ok(Some(caller)) => caller,
        Ok(None) => return unauthorized(&front, remote).into_response(),
        Err(problem) => return problem.into_response(),
    };
    if let Caller::Key(key) = &caller {
        let route = request.extensions().get::<MatchedPath>().cloned();
        if let Err(problem) = access::check(&front, key, route.as_ref().map(MatchedPath::as_str), &mut request).await {
            metrics::counter!("doorbell_api_forbidden_total").increment(1);
            return problem.into_response();
        }
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The answer to a token that opens nothing, which is counted: 401, and 429 to an address with too many of them.
pub(crate) fn unauthorized(front: &Front, remote: Option<IpAddr>) -> Problem {
    metrics::counter!("doorbell_api_unauthorized_total").increment(1);
    match front.failures.count(remote, front.house.clock.uptime()) {
        None => Problem::unauthorized(),
        Some(wait) => Problem::too_many_failures(wait),
    }
}

/// Whose token came with the request. A key is looked up each time: one that was removed opens nothing from then on. So it is
/// for an address with too many failures, only that those wait for each other.
pub(crate) async fn who(front: &Front, remote: Option<IpAddr>, headers: &HeaderMap) -> Result<Option<Caller>, Problem> {
    match bearer(headers) {
        Some(token) => holder(front, remote, token).await,
        None => Ok(None),
    }
}

/// Whose token this is, wherever it stood.
pub(crate) async fn holder(front: &Front, remote: Option<IpAddr>, token: &str) -> Result<Option<Caller>, Problem> {
    if is_admins(front, token) {
        return Ok(Some(Caller::Admin));
    }
    let Some(id) = KeyId::of_token(token) else { return Ok(None) };
    let now = front.house.clock.now();
    let _turn = match front.failures.is_over(remote, front.house.clock.uptime()) {
        true => front.failures.turns.acquire().await.ok(),
        false => None,
    };
    let found = front.house.store.key(id).await?.filter(|key| key.admits(token, now));
    Ok(found.map(|key| {
        front.uses.note(front, &key, now);
        Caller::Key(Arc::new(key))
    }))
}

/// Whether the admin token came with the request. Compared in constant time.
pub(crate) fn is_admin(front: &Front, headers: &HeaderMap) -> bool {
    bearer(headers).is_some_and(|offered| is_admins(front, offered))
}

fn is_admins(front: &Front, offered: &str) -> bool {
    let token = &front.options.admin_token;
    !token.expose().is_empty() && token.matches(offered.as_bytes())
}

/// The one bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Failed tokens from one address in a time, as `30/min`; beyond it 429 instead of 401.
const FAILURES: (u32, Duration) = (30, Duration::from_secs(60));
/// Keys that are looked up at once for addresses beyond it: what they cost the store is bounded, and a good token among them
/// is let in all the same.
const TURNS: usize = 2;

/// The failed tokens of each address.
pub(crate) struct Failures {
    /// Made with the first failure: most servers never see one.
    meters: OnceLock<Option<Meters>>,
    turns: Semaphore,
}

impl Default for Failures {
    fn default() -> Self {
        Self { meters: OnceLock::new(), turns: Semaphore::new(TURNS) }
    }
}

impl Failures {
    fn is_over(&self, remote: Option<IpAddr>, now: Duration) -> bool {
        self.meters.get().and_then(Option::as_ref).is_some_and(|meters| meters.is_over(key_of(remote), now))
    }

    /// Counts one; how long until the next is answered 401 again, if there were too many.
    fn count(&self, remote: Option<IpAddr>, now: Duration) -> Option<Duration> {
        let (count, per) = FAILURES;
        let made = || Quota::new(count, per, "30/min").map(Meters::new);
        self.meters.get_or_init(made).as_ref()?.take(key_of(remote), now).err().map(|over| over.wait)
    }
}

/// How often the use of a key is written down: nobody needs it to the second, and a write for each call would be one too many.
const COARSE: Duration = Duration::from_secs(60);

/// When the use of each key was last written down. Holds at most the keys that there are.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<HashMap<KeyId, Timestamp>>);

impl Uses {
    /// Has it written behind, if it was not lately.
    pub(crate) fn note(&self, front: &Front, key: &Key, now: Timestamp) {
        let recent = |at: Timestamp| now.since(at) < COARSE && at <= now;
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if key.last_used_at.is_some_and(recent) || written.get(&key.id).copied().is_some_and(recent) {
            return;
        }
        written.retain(|_, at| recent(*at));
        written.insert(key.id.clone(), now);
        let (store, id) = (Arc::clone(&front.house.store), key.id.clone());
        tokio::spawn(async move {
            if let Err(error) = store.key_used(id, now).await {
                tracing::debug!(%error, "The use of an API key could not be noted");
            }
        });
    }
}
