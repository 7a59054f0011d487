//! The `[[handshakes]]` and `[pairing]` of a preset: from their keys to what `handshake` and `pairing` carry out. Called
//! by `parse`.

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::handshake::{Handshake, Order, Wanted};
use super::pairing::Pairing;
use super::parse::{place, selector, told};
use super::read::{At, Section};

const ORDERS: [(&str, Order); 2] = [("verified", Order::Verified), ("unsigned", Order::Unsigned)];

/// Methods of a handshake. All but POST carry no events, and nothing to sign.
const METHODS: [(&str, &Method); 4] =
    [("POST", &Method::POST), ("GET", &Method::GET), ("HEAD", &Method::HEAD), ("OPTIONS", &Method::OPTIONS)];

/// Reads one handshake; the faults are told to the section's report.
pub(super) fn handshake(section: Section<'_, '_>) -> Option<Handshake> {
    let method = section.word("method", &METHODS).unwrap_or(&Method::POST).clone();
    let written = section.word("order", &ORDERS);
    let order = if method == Method::POST { written.unwrap_or(Order::Verified) } else { Order::Unsigned };
    if written == Some(Order::Verified) && method != Method::POST {
        section.fault(section.offset, format!("a {method} cannot be signed: leave `order` out"));
    }
    let when = when(&section);
    // A HEAD is answered with a status alone, so nothing can be had by asking.
    if when.is_empty() && method != Method::HEAD {
        section
            .fault(section.offset, "`when` is missing: say which requests are this handshake, or it would answer all");
    }
    let answer = section.text("answer").and_then(|t| selector(&section, t));
    let content_type = section.text("content_type").unwrap_or(At { offset: 0, value: "text/plain".to_owned() });
    let header = HeaderValue::from_str(&content_type.value).map_err(|_| "`content_type` is no header value".to_owned());
    let content_type = told(&section, content_type.offset, header);
    let mut headers = Vec::new();
    for (name, value) in section.pairs("headers") {
        let header = HeaderName::from_bytes(name.value.as_bytes());
        let header = header.map_err(|_| format!("`{}` cannot be the name of a header", name.value));
        let header = told(&section, name.offset, header);
        let template = told(&section, name.offset, super::Template::parse(&value));
        headers.extend(header.zip(template));
    }
    let status = section.integer("status").map_or(Some(StatusCode::OK), |n| {
        let status = u16::try_from(n.value).ok().and_then(|s| StatusCode::from_u16(s).ok());
        told(&section, n.offset, status.filter(StatusCode::is_success).ok_or("`status` must be 2xx".to_owned()))
    });
    section.finish();
    Some(Handshake { method, order, when, answer, headers, content_type: content_type?, status: status? })
}

fn when(section: &Section<'_, '_>) -> Vec<(super::Place, Wanted)> {
    let mut when = Vec::new();
    for (name, wanted) in section.pairs("when") {
        let wanted = match wanted.as_str() {
            "*" => Wanted::Anything,
            "{hex}" => Wanted::Hex,
            "{verify_token}" => Wanted::VerifyToken,
            _ => Wanted::Text(wanted),
        };
        if let Some(place) = place(section, name) {
            when.push((place, wanted));
        }
    }
    when
}

/// Reads `[pairing]`.
pub(super) fn pairing(section: Section<'_, '_>) -> Option<Pairing> {
    let secret = section.required("secret", "\"header:x-hook-secret\"").and_then(|t| place(&section, t));
    let echo = section.text("echo").and_then(|t| {
        let name = HeaderName::from_bytes(t.value.as_bytes());
        told(&section, t.offset, name.map_err(|_| format!("`{}` cannot be the name of a header", t.value)))
    });
    section.finish();
    Some(Pairing { secret: secret?, echo })
}
