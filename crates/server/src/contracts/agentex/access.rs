//! Who may use the routes of keys. The document needs nothing of whoever asks on the machine itself, and a key and an account
//! of whoever asks from elsewhere; here the first is open only where `auth = "loopback"` says so, and never for a browser that
//! was led here by another site.

use std::net::IpAddr;

use doorbell_core::Name;
use doorbell_core::keys::Right;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};

use super::super::call::is_loopback;
use super::{Access, Agentex, say};
use crate::auth::{self, Caller};
use crate::body::Body;
use crate::front::Front;
use crate::peer;

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// To look.
    Look,
    /// To make or end a credential: no API key does.
    Manage,
}

/// Whose keys the caller may look at.
pub(super) enum Covers {
    All,
    One(Name),
}

impl Covers {
    pub(super) fn lets(&self, agent: &Name) -> bool {
        match self {
            Self::All => true,
            Self::One(own) => own == agent,
        }
    }
}

/// Whether the caller may; else what it is told.
pub(super) async fn check(
    front: &Front,
    own: &Agentex,
    want: Want,
    socket: IpAddr,
    head: &Parts,
) -> Result<Covers, Box<Response<Body>>> {
    let headers = &head.headers;
    let offered = match headers.get("x-api-key") {
        Some(value) => Some(value.to_str().unwrap_or_default()),
        None => auth::bearer(headers),
    };
    let refuse = |status, text: &str| {
        metrics::counter!("doorbell_api_unauthorized_total").increment(1);
        Err(Box::new(say::failed(status, text)))
    };
    let Some(offered) = offered.or_else(|| headers.contains_key(header::AUTHORIZATION).then_some("")) else {
        return match (own.access, is_from_a_page(headers), is_local(socket, head)) {
            (Access::Loopback, false, true) => Ok(Covers::All),
            (Access::Loopback, true, _) => refuse(StatusCode::FORBIDDEN, "Cross-origin request refused"),
            _ => refuse(StatusCode::UNAUTHORIZED, "Unauthorized: send x-api-key"),
        };
    };
    let remote = Some(peer::real(socket, headers, &front.options.trusted_proxies));
    let caller = match auth::holder(front, remote, offered).await {
        Ok(Some(caller)) => caller,
        Ok(None) => {
            // Counted; told in the contract's own way.
            let _ = auth::unauthorized(front, remote);
            return Err(Box::new(say::failed(StatusCode::UNAUTHORIZED, "Unauthorized: x-api-key opens nothing here")));
        }
        Err(_) => return refuse(StatusCode::SERVICE_UNAVAILABLE, "not possible right now; send it again later"),
    };
    if let Some(account) = &own.account {
        let said = headers.get("x-selected-account-id").map(HeaderValue::as_bytes);
        if said != Some(account.as_bytes()) {
            return refuse(StatusCode::FORBIDDEN, "Forbidden: x-selected-account-id is another account");
        }
    }
    match (caller, want) {
        (Caller::Admin, _) => Ok(Covers::All),
        (Caller::Key(key), Want::Look) if key.may(Right::Read) => {
            Ok(key.agent.clone().map_or(Covers::All, Covers::One))
        }
        (Caller::Key(_), Want::Look) => refuse(StatusCode::FORBIDDEN, "Forbidden: this key has not the scope `read`"),
        (Caller::Key(_), Want::Manage) => {
            refuse(StatusCode::FORBIDDEN, "Forbidden: only the admin token makes and deletes keys")
        }
    }
}

/// What browsers say of where a request comes from. Our callers are no pages, so any of it is refused, also of this machine:
/// on another port of it anything may run.
fn is_from_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none")
}

/// Whether this is the machine itself: by the socket, by the name it was asked for (else a name of somebody's that leads here
/// would do), and through no proxy, whose callers are elsewhere.
fn is_local(socket: IpAddr, head: &Parts) -> bool {
    let proxied = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];
    let host = head.uri.authority().map(|a| a.as_str()).or_else(|| {
        let mut all = head.headers.get_all(header::HOST).iter();
        all.next().filter(|_| all.next().is_none())?.to_str().ok()
    });
    socket.to_canonical().is_loopback()
        && !proxied.iter().any(|name| head.headers.contains_key(*name))
        && host.and_then(|h| h.parse::<Uri>().ok()).is_some_and(|uri| is_loopback(&uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(socket: &str, headers: &[(&'static str, &str)]) -> bool {
        let mut request = http::Request::get("/agent_api_keys");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        is_local(socket.parse().unwrap(), &head) && !is_from_a_page(&head.headers)
    }

    #[test]
    fn only_a_caller_on_this_machine_that_is_no_page_is_let_by_without_a_token() {
        for host in ["localhost:5003", "127.0.0.1", "[::1]:5003", "LOCALHOST"] {
            assert!(local("127.0.0.1", &[("host", host)]) && local("::ffff:127.0.0.1", &[("host", host)]), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "192.0.2.1", "127.0.0.1.nip.io", ""] {
            assert!(!local("127.0.0.1", &[("host", host)]), "{host}");
        }
        assert!(!local("192.0.2.1", &[("host", "localhost")]) && !local("127.0.0.1", &[]));
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "http://localhost:3000"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("via", "1.1 proxy"),
            ("host", "localhost"),
        ] {
            assert!(!local("127.0.0.1", &[("host", "localhost"), (name, value)]), "{name}: {value}");
        }
    }
}
