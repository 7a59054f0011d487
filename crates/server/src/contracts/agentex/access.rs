//! Who may use the routes of keys. The document needs nothing of whoever asks on the machine itself, and a key and an account
//! of whoever asks from elsewhere; here the first is open only where `auth = "loopback"` says so, and never for a browser that
//! was led here by another site.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorbell_core::Name;
use doorbell_core::keys::Right;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{Access, Agentex, say};
use crate::auth::{self, Caller};
use crate::body::Body;
use crate::front::Front;
use crate::local::{is_from_a_page, is_on_this_machine};
use crate::peer;

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// To look.
    Look,
    /// To make or end a credential: no API key does.
    Manage,
    /// To register an agent, or to end one: an API key with that scope does.
    Register,
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
    let via = peer::via(socket, &front.options.trusted_proxies);
    // An agent's SDK sends no header; the password of its server's URL it does send.
    let password = (want == Want::Register).then(|| basic_password(headers)).flatten();
    let offered = match headers.get("x-api-key") {
        Some(value) => Some(value.to_str().unwrap_or_default()),
        None => auth::bearer(headers).or(password.as_deref()),
    };
    let access = match (&own.registering, want) {
        (Some(registering), Want::Register) => registering.access,
        _ => own.access,
    };
    let refuse = |status, text: &str| {
        metrics::counter!("doorbell_api_unauthorized_total").increment(1);
        Err(Box::new(say::failed(status, text)))
    };
    let Some(offered) = offered.or_else(|| headers.contains_key(header::AUTHORIZATION).then_some("")) else {
        return match (
            access,
            is_from_a_page(headers),
            is_on_this_machine(socket, via, (&head.uri, head.version), headers),
        ) {
            (Access::Loopback, false, true) => Ok(Covers::All),
            (Access::Loopback, true, _) => refuse(StatusCode::FORBIDDEN, "Cross-origin request refused"),
            _ if want == Want::Register => {
                let text =
                    "Unauthorized: send a key with the scope `register` as x-api-key, or as the password of the URL";
                refuse(StatusCode::UNAUTHORIZED, text)
            }
            _ => refuse(StatusCode::UNAUTHORIZED, "Unauthorized: send x-api-key"),
        };
    };
    let remote = Some(peer::real(socket, headers, &front.options.trusted_proxies));
    let caller = match auth::holder(front, remote, offered).await {
        Ok(Some(caller)) => caller,
        Ok(None) => {
            // Counted, also by address; told in the contract's own way.
            let counted = auth::unauthorized(front, remote);
            return Err(Box::new(match counted.wait() {
                None => say::failed(StatusCode::UNAUTHORIZED, "Unauthorized: x-api-key opens nothing here"),
                Some(seconds) => say::failed_too_often(seconds),
            }));
        }
        Err(_) => return refuse(StatusCode::SERVICE_UNAVAILABLE, "not possible right now; send it again later"),
    };
    if let Some(account) = own.account.as_ref().filter(|_| want != Want::Register) {
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
        (Caller::Key(key), Want::Register) if key.may(Right::Register) => {
            Ok(key.agent.clone().map_or(Covers::All, Covers::One))
        }
        (Caller::Key(_), Want::Register) => {
            refuse(StatusCode::FORBIDDEN, "Forbidden: this key has not the scope `register`")
        }
    }
}

/// The password of `Authorization: Basic` (RFC 7617), whatever the name.
fn basic_password(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let text = STANDARD.decode(scheme.eq_ignore_ascii_case("basic").then_some(rest.trim())?).ok()?;
    let text = String::from_utf8(text).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}
