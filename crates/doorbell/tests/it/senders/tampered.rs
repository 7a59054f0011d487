//! What somebody without the secret can do to a signed request, each with the cause that the door must record. Used by
//! `senders`; pure.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use url::form_urlencoded;

use super::sdk::{Request, Signed};
use super::vendors::{Coding, Shape, Time, VENDORS, by_id};

const MISSING: &str = "signature_missing";
const MALFORMED: &str = "signature_malformed";
const MISMATCH: &str = "signature_mismatch";

/// A request that must be refused.
pub(super) struct Tampered {
    pub what: &'static str,
    pub request: Request,
    /// The code that the door must record.
    pub code: &'static str,
}

fn tampered(what: &'static str, request: Request, code: &'static str) -> Tampered {
    Tampered { what, request, code }
}

/// Everything done to `signed`; `another` is another good request of the same sender.
pub(super) fn all(signed: &Signed, another: &Signed) -> Vec<Tampered> {
    let shape = by_id(&signed.provider).shape;
    let mut all = bodies(signed);
    all.extend(spellings(&shape, &signed.request));
    all.extend(places(&shape, &signed.request));
    all.extend(foreign(&shape, signed, another));
    all.extend(times(&shape, signed));
    all.extend(ids(&shape, &signed.request));
    all.extend(
        shape.requires.iter().map(|name| {
            tampered("a header that has to be there is gone", signed.request.without(name), "part_missing")
        }),
    );
    all.retain(|t| t.request != signed.request);
    all
}

/// Other bytes under a signature that was right.
fn bodies(signed: &Signed) -> Vec<Tampered> {
    let good = &signed.request;
    let code = body_code(good);
    let body = &good.body;
    let text = std::str::from_utf8(body).unwrap();
    let mut flipped = body.clone();
    flipped[body.len() / 2] ^= 1;
    let appended = |bytes: &[u8]| [body.as_slice(), bytes].concat();
    [
        ("one bit of the body is another", flipped),
        ("a blank behind the body", appended(b" ")),
        ("a line feed behind the body", appended(b"\n")),
        ("a zero byte behind the body", appended(b"\0")),
        ("a second body behind the body", appended(body)),
        ("the last byte of the body is gone", body[..body.len() - 1].to_vec()),
        ("the first byte of the body is gone", body[1..].to_vec()),
        ("half of the body is gone", body[..body.len() / 2].to_vec()),
        ("no body", Vec::new()),
        ("a byte order mark before the body", [b"\xef\xbb\xbf".as_slice(), body].concat()),
        ("the same data, written otherwise", rewritten(good, text).into_bytes()),
        ("the letters of the body in lower case", text.to_lowercase().into_bytes()),
        // é as one character and as two; without an é in the body there is nothing to change.
        ("the accents decomposed", text.replace('é', "e\u{301}").replace("%C3%A9", "e%CC%81").into_bytes()),
        ("the accents escaped", text.replace('é', "\\u00e9").into_bytes()),
    ]
    .into_iter()
    .filter(|(_, changed)| !is_same_form(signed, changed))
    .map(|(what, body)| tampered(what, good.with_body(body), code))
    .collect()
}

/// What is recorded of a changed body: Twilio binds a JSON body by its digest, which stands in the URL.
fn body_code(good: &Request) -> &'static str {
    if good.path.contains("bodySHA256=") { "digest_mismatch" } else { MISMATCH }
}

/// Twilio signs the fields of a form in their order, not its bytes: written otherwise it is the same form.
fn is_same_form(signed: &Signed, changed: &[u8]) -> bool {
    let fields = |body: &[u8]| -> BTreeSet<(String, String)> { form_urlencoded::parse(body).into_owned().collect() };
    let is_form = signed.request.header("content-type").ends_with("form-urlencoded");
    signed.provider == "twilio" && is_form && fields(changed) == fields(&signed.request.body)
}

/// What a server sees that parses the body and writes it again: JSON indented or not, a form with `+` for `%20`.
pub(super) fn rewritten(good: &Request, text: &str) -> String {
    let again = if good.header("content-type").contains("json") {
        let value: Value = serde_json::from_str(text).unwrap();
        let pretty = format!("{value:#}");
        if pretty == text { value.to_string() } else { pretty }
    } else {
        let fields = form_urlencoded::parse(text.as_bytes());
        form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
    };
    assert_ne!(again, text);
    again
}

/// The signature's value taken apart: what stands before the prefix, and the signature's own text.
fn parts<'r>(shape: &Shape, request: &'r Request) -> (&'r str, &'r str) {
    request.header(shape.signature).split_once(shape.prefix).unwrap()
}

/// Other texts in the signature's place.
fn spellings(shape: &Shape, good: &Request) -> Vec<Tampered> {
    let (before, tag) = parts(shape, good);
    let prefix = shape.prefix;
    let is_hex = shape.coding == Coding::Hex;
    let zeros = vec![0; if is_hex { tag.len() / 2 } else { STANDARD.decode(tag).unwrap().len() }];
    let bytes = if is_hex { hex::decode(tag).unwrap() } else { STANDARD.decode(tag).unwrap() };
    let other_encoding = if is_hex { STANDARD.encode(&bytes) } else { hex::encode(&bytes) };
    let encode = |bytes: &[u8]| if is_hex { hex::encode(bytes) } else { STANDARD.encode(bytes) };
    let mut other_bit = bytes.clone();
    other_bit[0] ^= 1;
    // The last digit of base64, before its padding, has bits to spare, which must be zero: it stays as it is.
    let (head, tail) = tag.split_at(tag.len() - 4);
    let capitals = format!("{}{tail}", head.to_uppercase());
    let half = &tag[..22];
    let odd_prefix = if prefix.starts_with('v') { prefix.to_uppercase() } else { "SHA256=".into() };
    let next = if prefix.starts_with('v') { prefix.replace(['0', '1'], "2") } else { "sha512=".into() };
    let set = |value: String| good.with(shape.signature, &value);
    let capitals_code = if is_hex { MALFORMED } else { MISMATCH };
    let mut all = vec![
        tampered("the prefix in capitals", set(format!("{before}{odd_prefix}{tag}")), MALFORMED),
        tampered("the prefix of another version", set(format!("{before}{next}{tag}")), MALFORMED),
        tampered("capitals in the signature", set(format!("{before}{prefix}{capitals}")), capitals_code),
        tampered("hex for base64 or base64 for hex", set(format!("{before}{prefix}{other_encoding}")), MALFORMED),
        tampered("the first half of the signature", set(format!("{before}{prefix}{half}")), MALFORMED),
        tampered("a digit behind the signature", set(format!("{before}{prefix}{tag}0")), MALFORMED),
        tampered("quotes around the signature", set(format!("{before}{prefix}\"{tag}\"")), MALFORMED),
        tampered("one bit of the signature", set(format!("{before}{prefix}{}", encode(&other_bit))), MISMATCH),
        tampered("a signature of zeros", set(format!("{before}{prefix}{}", encode(&zeros))), MISMATCH),
    ];
    // Of a bare signature the first two are none, and a blank before a header's value is not part of it.
    if !prefix.is_empty() {
        all.push(tampered("no prefix", set(format!("{before}{tag}")), MALFORMED));
        all.push(tampered("the prefix alone", set(format!("{before}{prefix}")), MALFORMED));
        all.push(tampered("a blank before the signature", set(format!("{before}{prefix} {tag}")), MALFORMED));
    }
    let wrong = format!("{prefix}{}", encode(&zeros));
    match shape.separator {
        Some(separator) => {
            let many = format!("{before}{}", [wrong.as_str()].repeat(16).join(separator));
            all.push(tampered("two wrong signatures", set(format!("{before}{wrong}{separator}{wrong}")), MISMATCH));
            all.push(tampered("16 wrong ones first", set(format!("{many}{separator}{prefix}{tag}")), MALFORMED));
        }
        None => {
            let listed = format!("{prefix}{tag},{prefix}{tag}");
            all.push(tampered("a list where there is one signature", set(listed), MALFORMED));
            let listed = format!("{prefix}{tag}, {wrong}");
            all.push(tampered("the right one, then a wrong one", set(listed), MALFORMED));
        }
    }
    all
}

/// The right signature, where nobody should look for it.
fn places(shape: &Shape, good: &Request) -> Vec<Tampered> {
    let value = good.header(shape.signature);
    let without = good.without(shape.signature);
    let sign = if good.path.contains('?') { '&' } else { '?' };
    let in_query = Request { path: format!("{}{sign}{}={value}", good.path, shape.signature), ..without.clone() };
    let mut all = vec![
        tampered("no signature", without.clone(), MISSING),
        tampered("an empty signature", good.with(shape.signature, ""), MISSING),
        tampered("the signature as a bearer token", without.with("authorization", &format!("Bearer {value}")), MISSING),
        tampered("the signature in another header", without.with("x-signature", value), MISSING),
        tampered("the signature in GitHub's old header", without.with("x-hub-signature", value), MISSING),
        tampered("the signature in the query", in_query, MISSING),
    ];
    // Where a list is expected, several headers of one name are one list (RFC 9110, section 5.3): Svix may do that.
    // Stripe's list has one time.
    if shape.separator != Some(" ") {
        all.push(tampered("the signature twice", good.adding(shape.signature, value), MALFORMED));
    }
    all
}

/// Signatures that are right for something else.
fn foreign(shape: &Shape, signed: &Signed, another: &Signed) -> Vec<Tampered> {
    let good = &signed.request;
    let copied = good.with(shape.signature, another.request.header(shape.signature));
    let mut all = vec![
        tampered("signed with another secret", signed.other_secret.clone(), MISMATCH),
        tampered("the signature of another body", copied, MISMATCH),
        tampered("another body under this signature", good.with_body(another.request.body.clone()), body_code(good)),
    ];
    if let Some(id) = shape.id {
        let both =
            good.with(shape.signature, another.request.header(shape.signature)).with(id, another.request.header(id));
        all.push(tampered("the signature and the id of another body", both, MISMATCH));
    }
    for vendor in VENDORS.iter().filter(|vendor| vendor.id != signed.provider) {
        let elsewhere = Request { path: format!("/hooks/{}", vendor.id), ..good.clone() };
        let code = if vendor.shape.requires.is_empty() { MISSING } else { "part_missing" };
        all.push(tampered("the right request at another source", elsewhere, code));
    }
    all
}

/// The time of signing as the request says it.
fn time_of<'r>(shape: &Shape, request: &'r Request) -> &'r str {
    match shape.time {
        Time::Nowhere | Time::Body => "",
        Time::Header(name) | Time::Ageless(name) => request.header(name),
        Time::List(item) => {
            let before = parts(shape, request).0.strip_prefix(item).unwrap();
            before.strip_suffix(shape.separator.unwrap()).unwrap()
        }
    }
}

/// The request under another time, its signature as it was.
fn at_time(shape: &Shape, request: &Request, time: &str) -> Request {
    match shape.time {
        Time::Nowhere | Time::Body => request.clone(),
        Time::Header(name) | Time::Ageless(name) => request.with(name, time),
        Time::List(item) => {
            let ((_, tag), separator) = (parts(shape, request), shape.separator.unwrap());
            request.with(shape.signature, &format!("{item}{time}{separator}{}{tag}", shape.prefix))
        }
    }
}

/// Times that are not the signed one, or not now.
fn times(shape: &Shape, signed: &Signed) -> Vec<Tampered> {
    let good = &signed.request;
    let late = vec![
        tampered("signed too long ago", signed.stale.clone(), "timestamp_stale"),
        tampered("signed for the future", signed.future.clone(), "timestamp_future"),
    ];
    let late = match shape.time {
        Time::Nowhere => return Vec::new(),
        Time::Body => return late,
        Time::Ageless(_) => Vec::new(),
        Time::Header(_) | Time::List(_) => late,
    };
    let now_is = time_of(shape, good);
    let set = |request: &Request, time: &str| at_time(shape, request, time);
    let one_less = (now_is.parse::<i64>().unwrap() - 1).to_string();
    let mut all = vec![
        tampered("an old signature under a new time", set(&signed.stale, now_is), MISMATCH),
        tampered("a future signature under a new time", set(&signed.future, now_is), MISMATCH),
        tampered("the time less a second", set(good, &one_less), MISMATCH),
        tampered("a zero before the time", set(good, &format!("0{now_is}")), MISMATCH),
        tampered("a sign before the time", set(good, &format!("+{now_is}")), MISMATCH),
        tampered("the time with a fraction", set(good, &format!("{now_is}.0")), MISMATCH),
        tampered("the time in milliseconds", set(good, &format!("{now_is}000")), MISMATCH),
        tampered("an empty time", set(good, ""), MISMATCH),
        tampered("no number for a time", set(good, "now"), MISMATCH),
    ];
    match shape.time {
        Time::Nowhere | Time::Body => {}
        Time::Header(name) | Time::Ageless(name) => {
            let code = if matches!(shape.time, Time::Ageless(_)) { "part_missing" } else { "timestamp_missing" };
            all.push(tampered("no time", good.without(name), code));
            all.push(tampered("the time twice", good.adding(name, now_is), "part_repeated"));
        }
        Time::List(item) => {
            let (before, tag) = parts(shape, good);
            let set = |value: String| good.with(shape.signature, &value);
            all.push(tampered("no time", set(format!("{}{tag}", shape.prefix)), "timestamp_missing"));
            all.push(tampered("the time twice", set(format!("{before}{before}{}{tag}", shape.prefix)), MALFORMED));
            all.push(tampered("the time alone", set(format!("{item}{now_is}")), MALFORMED));
            all.push(tampered("the test scheme alone", set(format!("{before}v0={tag}")), MALFORMED));
        }
    }
    all.extend(late);
    all
}

/// Other ids, where the signature covers the id.
fn ids(shape: &Shape, good: &Request) -> Vec<Tampered> {
    let Some(name) = shape.id else { return Vec::new() };
    let id = good.header(name);
    vec![
        tampered("another id", good.with(name, "msg_other"), MISMATCH),
        tampered("the id in capitals", good.with(name, &id.to_uppercase()), MISMATCH),
        tampered("an empty id", good.with(name, ""), MISMATCH),
        tampered("no id", good.without(name), "part_missing"),
        tampered("the id twice", good.adding(name, id), "part_repeated"),
    ]
}
