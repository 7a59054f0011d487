//! What no sender has to say because it holds for all: whoever changes anything is refused.

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::provider::{
    self, BadSecret, Draft, Format, Preset, Proof, Scheme, SignError, Signer, Verifier, VerifyOptions, sign,
};
use doorbell_core::{Secret, Timestamp};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use crate::{NOW, Rung, secrets};

const BODY: &str = r#"{"id":"evt_1","type":"thing.made","data":{"text":"café ☃","n":1.50}}"#;
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The presets that sign, each with a secret of its form and the headers that are signed or hold the signature.
const SIGNING: [(&str, &str, &[&str]); 7] = [
    ("github", "It's a Secret to Everybody", &["x-hub-signature-256"]),
    ("stripe", "whsec_test", &["stripe-signature"]),
    ("slack", "8f742231b10e8888abcd99yyyzzz85a5", &["x-slack-signature", "x-slack-request-timestamp"]),
    ("standard-webhooks", WHSEC, &["webhook-signature", "webhook-timestamp", "webhook-id"]),
    ("svix", WHSEC, &["svix-signature", "svix-timestamp", "svix-id"]),
    ("gitlab-signing-token", WHSEC, &["webhook-signature", "webhook-timestamp", "webhook-id"]),
    ("hmac", "k", &["x-signature"]),
];

fn signed_by(preset: &Preset, secret: &str, body: &[u8]) -> Rung {
    let body = Bytes::copy_from_slice(body);
    let draft = Draft {
        method: &Method::POST,
        url: None,
        path: "/",
        query: "",
        id: "msg_1",
        event_type: "thing.made",
        headers: HeaderMap::new(),
        body: &body,
    };
    let parts = sign(preset, &Secret::new(secret), draft, NOW).unwrap();
    Rung::new(parts.headers, body)
}

fn ready(id: &str, texts: &[&str]) -> (Arc<Preset>, Verifier) {
    let preset = Arc::clone(provider::get(id).unwrap());
    let verifier = Verifier::new(Arc::clone(&preset), &secrets(texts), VerifyOptions::default()).unwrap();
    (preset, verifier)
}

/// A change and what it is called.
type Change = (&'static str, Box<dyn Fn(&Rung) -> Rung>);

/// Changes that must all be refused, for the preset whose signature stands in `signature`.
fn changes(signature: &'static str, prefix: &'static str, time: Option<&'static str>) -> Vec<Change> {
    let set = move |value: &'static [u8]| move |r: &Rung| r.clone().header(signature, |v| *v = value.to_vec());
    let edit = move |f: fn(&mut Vec<u8>)| move |r: &Rung| r.clone().header(signature, f);
    let body = |f: fn(&[u8]) -> Vec<u8>| move |r: &Rung| Rung { body: f(&r.body).into(), ..r.clone() };
    let mut all: Vec<Change> = vec![
        (
            "no signature",
            Box::new(move |r| {
                let mut r = r.clone();
                r.headers.remove(signature);
                r
            }),
        ),
        ("an empty signature", Box::new(set(b""))),
        ("the prefix alone", Box::new(move |r| r.clone().header(signature, |v| *v = prefix.as_bytes().to_vec()))),
        (
            "no prefix",
            Box::new(move |r| {
                r.clone().header(signature, |v| {
                    let at = v.windows(prefix.len()).position(|w| w == prefix.as_bytes()).unwrap();
                    v.drain(at..at + prefix.len());
                })
            }),
        ),
        (
            "another version",
            Box::new(edit(|v| {
                let text = String::from_utf8(v.clone()).unwrap();
                *v = text.replace("sha256=", "sha1=").replace("v1", "v9").replace("v0", "v9").into_bytes();
            })),
        ),
        ("the last character cut off", Box::new(edit(|v| v.truncate(v.len() - 1)))),
        ("a character added", Box::new(edit(|v| v.push(b'a')))),
        ("in capitals", Box::new(edit(|v| v.make_ascii_uppercase()))),
        (
            "zeros",
            Box::new(edit(|v| {
                let from = v.len() - 32;
                v[from..].fill(b'0');
            })),
        ),
        (
            "bytes that are no ASCII",
            Box::new(edit(|v| {
                let from = v.len() - 4;
                v[from..].fill(0xff);
            })),
        ),
        ("a very long signature", Box::new(edit(|v| v.extend([b'a'; 5000])))),
        ("twice in one header", Box::new(edit(|v| v.extend_from_within(..)))),
        ("an empty body", Box::new(body(|_| Vec::new()))),
        ("a blank behind the body", Box::new(body(|b| [b, b" "].concat()))),
        ("the body cut short", Box::new(body(|b| b[..b.len() - 1].to_vec()))),
        (
            "the body written again",
            Box::new(body(|b| serde_json::to_vec(&serde_json::from_slice::<serde_json::Value>(b).unwrap()).unwrap())),
        ),
    ];
    if let Some(time) = time {
        let at =
            move |f: fn(i64) -> String| move |r: &Rung| r.clone().header(time, |v| *v = f(NOW.secs()).into_bytes());
        all.push(("a second later", Box::new(at(|t| (t + 1).to_string()))));
        all.push(("the timestamp with a sign", Box::new(at(|t| format!("+{t}")))));
        all.push(("the timestamp in milliseconds", Box::new(at(|t| (t * 1000).to_string()))));
        all.push(("an empty timestamp", Box::new(at(|_| String::new()))));
        all.push((
            "no timestamp",
            Box::new(move |r| {
                let mut r = r.clone();
                r.headers.remove(time);
                r
            }),
        ));
        all.push((
            "two timestamps",
            Box::new(move |r| {
                let mut r = r.clone();
                r.headers.append(time, HeaderValue::from(NOW.secs()));
                r
            }),
        ));
    }
    all
}

#[test]
fn every_tampered_variant_of_the_big_senders_is_refused() {
    let cases = [
        ("github", "s3cret", "x-hub-signature-256", "sha256=", None),
        ("stripe", "whsec_x", "stripe-signature", "v1=", None),
        ("slack", "s3cret", "x-slack-signature", "v0=", Some("x-slack-request-timestamp")),
        ("standard-webhooks", WHSEC, "webhook-signature", "v1,", Some("webhook-timestamp")),
    ];
    for (id, secret, header, prefix, time) in cases {
        let (preset, verifier) = ready(id, &[secret]);
        let good = signed_by(&preset, secret, BODY.as_bytes());
        assert!(good.verify(&verifier, NOW).is_ok(), "{id}");
        let changes = changes(header, prefix, time);
        assert!(changes.len() > 10);
        for (what, change) in changes {
            assert!(change(&good).verify(&verifier, NOW).is_err(), "{id}: {what}");
        }
        let (_, other) = ready(id, &[if id == "standard-webhooks" { "whsec_AAAA" } else { "other" }]);
        assert!(good.verify(&other, NOW).is_err(), "{id}: another secret");
    }
}

#[test]
fn a_signature_of_one_sender_never_passes_as_another_s() {
    for (signer, secret, _) in SIGNING {
        for (checker, ..) in SIGNING {
            let twins = ["standard-webhooks", "gitlab-signing-token"];
            if signer == checker || (twins.contains(&signer) && twins.contains(&checker)) {
                continue;
            }
            let preset = Arc::clone(provider::get(checker).unwrap());
            let Ok(verifier) = Verifier::new(preset, &secrets(&[secret]), VerifyOptions::default()) else { continue };
            let rung = signed_by(provider::get(signer).unwrap(), secret, BODY.as_bytes());
            assert!(rung.verify(&verifier, NOW).is_err(), "{signer} as {checker}");
        }
    }
}

#[test]
fn two_signature_headers_are_refused_unless_the_sender_writes_lists() {
    for (id, secret, signed) in SIGNING {
        let (preset, verifier) = ready(id, &[secret]);
        let mut rung = signed_by(&preset, secret, BODY.as_bytes());
        let name: HeaderName = signed[0].parse().unwrap();
        let value = rung.headers[&name].clone();
        rung.headers.append(name, value);
        let verdict = rung.verify(&verifier, NOW);
        let list = preset.scheme.signed().unwrap().separator.is_some();
        // Stripe's value carries its timestamp: twice the value is twice the timestamp.
        assert_eq!(verdict.is_ok(), list && id != "stripe", "{id}: {verdict:?}");
        if let Err(refusal) = verdict {
            assert_eq!(refusal.code(), "signature_malformed", "{id}");
        }
    }
}

#[test]
fn the_window_of_time_is_the_same_on_both_sides() {
    for (id, secret, _) in SIGNING {
        let (preset, verifier) = ready(id, &[secret]);
        let Some(rule) = preset.scheme.signed().and_then(|s| s.timestamp.clone()) else { continue };
        let rung = signed_by(&preset, secret, BODY.as_bytes());
        let ms = i64::try_from(rule.tolerance.as_millis()).unwrap();
        for (offset, fits) in [(ms, true), (-ms, true), (ms + 1, false), (-ms - 1, false)] {
            let now = Timestamp::from_millis(NOW.millis() + offset);
            assert_eq!(rung.verify(&verifier, now).is_ok(), fits, "{id}: {offset} ms");
        }
        for now in [i64::MIN, i64::MAX, 0] {
            assert!(rung.verify(&verifier, Timestamp::from_millis(now)).is_err());
        }
    }
}

#[test]
fn every_secret_of_a_rotation_passes_and_a_removed_one_does_not() {
    let (preset, both) = ready("github", &["new", "old"]);
    for (secret, index) in [("new", 0), ("old", 1)] {
        let checked = signed_by(&preset, secret, BODY.as_bytes()).verify(&both, NOW).unwrap();
        assert_eq!(checked.secret_index(), Some(index));
        assert_eq!((checked.scheme(), checked.proof()), ("hmac-sha256", Proof::Body));
    }
    let (_, new) = ready("github", &["new"]);
    assert!(signed_by(&preset, "old", BODY.as_bytes()).verify(&new, NOW).is_err());
}

#[test]
fn a_missing_or_empty_secret_never_means_open() {
    for (id, preset) in provider::presets() {
        let made = |texts: &[&str]| Verifier::new(Arc::clone(preset), &secrets(texts), VerifyOptions::default());
        if preset.scheme == Scheme::None {
            assert!(matches!(made(&["x"]), Err(BadSecret::Unused { .. })), "{id}");
            let open = Rung::new(HeaderMap::new(), "").verify(&made(&[]).unwrap(), NOW).unwrap();
            assert!(!open.is_authenticated());
            continue;
        }
        assert!(matches!(made(&[]), Err(BadSecret::Missing { .. })), "{id}");
        for empty in ["", " ", "\n"] {
            assert!(matches!(made(&[empty]), Err(BadSecret::Empty { index: 1, .. })), "{id}");
        }
        let nothing = Rung::new(HeaderMap::new(), BODY);
        if let Ok(verifier) = made(&["user:QUJD"]).or_else(|_| made(&[WHSEC])) {
            assert!(nothing.verify(&verifier, NOW).is_err(), "{id}");
        }
    }
    let (standard, _) = ready("standard-webhooks", &[WHSEC]);
    let made = Verifier::new(standard, &secrets(&[WHSEC, "whsec_"]), VerifyOptions::default());
    assert!(matches!(made, Err(BadSecret::Empty { index: 2, .. })));
}

#[test]
fn a_refusal_tells_neither_the_secret_nor_the_right_signature() {
    for (id, secret, signed) in SIGNING {
        let (preset, verifier) = ready(id, &[secret]);
        let good = signed_by(&preset, secret, BODY.as_bytes());
        let right = good.headers[signed[0]].to_str().unwrap().to_owned();
        let forged = Rung { body: "{}".into(), ..good.clone() };
        let unreadable = good.header(signed[0], |v| *v = secret.as_bytes().to_vec());
        for rung in [forged, unreadable] {
            let refusal = rung.verify(&verifier, NOW).unwrap_err();
            let told = format!("{refusal} {refusal:?} {} {} {verifier:?}", refusal.wanted(), refusal.seen());
            assert!(!told.contains(secret) || secret.len() < 4, "{told}");
            assert!(!told.contains(&right[right.len() - 20..]), "{told}");
        }
    }
}

/// What a caller would give: a body of the sender's own shape where something is written into it.
fn draft_body(preset: &Preset) -> (Bytes, HeaderMap) {
    let good = preset.vectors.iter().rfind(|v| v.refused.is_none()).unwrap();
    let rung = Rung::new(crate::headers(&good.headers), good.body.clone());
    if !preset.writes_into_body() {
        return (Bytes::from_static(BODY.as_bytes()), HeaderMap::new());
    }
    if preset.payload.format == Format::Multipart {
        return (crate::whole(preset, &rung).to_string().into(), HeaderMap::new());
    }
    let media = rung.headers.get(CONTENT_TYPE).cloned();
    (rung.body, media.map(|media| (CONTENT_TYPE, media)).into_iter().collect())
}

#[test]
fn what_is_signed_for_a_sender_passes_its_check() {
    let mut signed = 0;
    for (id, preset) in provider::presets() {
        let url = "https://door.example.com/hooks/sender";
        let (body, headers) = draft_body(preset);
        let good = preset.vectors.iter().find(|v| v.refused.is_none()).unwrap();
        let secret = good.secrets.first().map(String::as_str).unwrap_or_default();
        let draft = Draft {
            method: &Method::POST,
            url: Some(url),
            path: "/hooks/sender",
            query: "",
            id: "msg_1",
            event_type: "thing.made",
            headers,
            body: &body,
        };
        let parts = sign(preset, &Secret::new(secret), draft, NOW);
        match preset.signer() {
            Signer::Secret => {}
            // The secret is the public half, or the sender's name for us: neither makes a signature. Of Ed25519's the
            // public half looks like a private one, so whoever signs asks for the signer first.
            Signer::PrivateKey => continue,
            Signer::SenderAlone(why) => {
                assert_eq!(parts.unwrap_err(), SignError::NotOurs(why), "{id}");
                continue;
            }
        }
        if preset.scheme == Scheme::None {
            continue;
        }
        let parts = parts.unwrap_or_else(|e| panic!("{id}: {e}"));
        let (_, verifier) = ready(id, &[secret]);
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&parts.query).finish();
        // What stands behind the source's own path is the request's path then.
        let url = parts.path.map_or_else(|| url.to_owned(), |token| format!("https://door.example.com/{token}"));
        let url = if query.is_empty() { url } else { format!("{url}?{query}") };
        let rung = Rung { url: Some(url), ..Rung::new(parts.headers, parts.body) };
        rung.verify(&verifier, NOW).unwrap_or_else(|e| panic!("{id}: {e}"));
        signed += 1;
    }
    assert!(signed > 150, "{signed}");
    let preset = provider::get("standard-webhooks-ed25519").unwrap();
    let public = &preset.vectors[0].secrets[0];
    let private = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (_, verifier) = ready("standard-webhooks-ed25519", &[public]);
    assert!(signed_by(preset, private, BODY.as_bytes()).verify(&verifier, NOW).is_ok());
}

#[test]
fn a_proof_or_a_time_that_is_given_stands() {
    let preset = provider::get("slack").unwrap();
    let secret = "8f742231b10e8888abcd99yyyzzz85a5";
    let body = Bytes::from_static(BODY.as_bytes());
    let with = |name: &'static str, value: &'static str| {
        let draft = Draft {
            method: &Method::POST,
            url: None,
            path: "/",
            query: "",
            id: "msg_1",
            event_type: "thing.made",
            headers: HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]),
            body: &body,
        };
        let parts = sign(preset, &Secret::new(secret), draft, NOW).unwrap();
        Rung::new(parts.headers, parts.body).verify(&ready("slack", &[secret]).1, NOW).unwrap_err()
    };
    assert_eq!(with("x-slack-request-timestamp", "1759990000").code(), "timestamp_stale", "it is signed as it is");
    assert_eq!(with("x-slack-signature", "v0=00").code(), "signature_malformed");
}

/// Flips something in one byte, so that a header can still hold it.
fn other_byte(byte: u8, by: u8) -> u8 {
    match byte.wrapping_add(by.max(1)) {
        b if (b >= 0x20 && b != 0x7f) && b != byte => b,
        _ if byte == b'x' => b'y',
        _ => b'x',
    }
}

proptest! {
    #[test]
    fn one_changed_byte_anywhere_is_refused(
        which in 0..SIGNING.len(), body in proptest::collection::vec(any::<u8>(), 1..300), at in any::<usize>(), by in any::<u8>(),
    ) {
        let (id, secret, signed) = SIGNING[which];
        let (preset, verifier) = ready(id, &[secret]);
        let good = signed_by(&preset, secret, &body);
        prop_assert!(good.verify(&verifier, NOW).is_ok());

        let mut changed = body.clone();
        let place = at % changed.len();
        changed[place] = changed[place].wrapping_add(by.max(1));
        let forged = Rung { body: changed.into(), ..good.clone() };
        prop_assert!(forged.verify(&verifier, NOW).is_err());

        for name in signed {
            let changed = good.clone().header(name, |value| {
                let place = at % value.len();
                value[place] = other_byte(value[place], by);
            });
            prop_assert!(changed.verify(&verifier, NOW).is_err(), "{id} {name} {:?}", changed.headers[*name]);
        }

        let mut other = secret.as_bytes().to_vec();
        let last = other.len() - 1 - at % other.len().min(8);
        other[last] = if other[last] == b'a' { b'b' } else { b'a' };
        let (_, other) = ready(id, &[std::str::from_utf8(&other).unwrap()]);
        prop_assert!(good.verify(&other, NOW).is_err());
    }

    #[test]
    fn odd_headers_and_bodies_never_panic(
        value in proptest::collection::vec(prop_oneof![Just(b','), Just(b' '), Just(b'='), Just(b'v'), Just(b'1'), 0x20..=0x7eu8, 0x80..=0xffu8], 0..200),
        time in proptest::collection::vec(prop_oneof![b'0'..=b'9', 0x80..=0xffu8], 0..30),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        query in "[a-z%=&0-9]{0,40}",
    ) {
        for (id, preset) in provider::presets() {
            let texts: Vec<&str> = preset.vectors[0].secrets.iter().map(String::as_str).collect();
            let (_, verifier) = ready(id, &texts);
            let mut headers = HeaderMap::new();
            let odd = HeaderValue::from_bytes(&value).unwrap();
            for name in preset.keep_headers.iter().chain(preset.credentials().iter().filter_map(|p| match p {
                provider::Place::Header(name) => Some(name),
                _ => None,
            })) {
                headers.append(name, odd.clone());
            }
            let odd_time = HeaderValue::from_bytes(&time).unwrap();
            for name in ["x-slack-request-timestamp", "webhook-timestamp", "svix-timestamp"] {
                headers.insert(name, odd_time.clone());
            }
            let rung = Rung { url: Some(format!("https://a.b/c?{query}")), ..Rung::new(headers, body.clone()) };
            let verdict = rung.verify(&verifier, NOW);
            prop_assert!(verdict.is_err() || preset.scheme == Scheme::None);
            rung.with(|r| {
                let labels = preset.labels(r, &crate::view(preset, &rung));
                for label in [labels.id, labels.event_type, labels.subject, labels.actor].into_iter().flatten() {
                    assert!(label.len() <= provider::LABEL_BYTES_MAX && !label.chars().any(char::is_control));
                }
                let _ = preset.kept_headers().of(r.headers);
                let _ = preset.kept_query(r.query);
            });
        }
    }
}

/// A preset of its own with a token at `place`, behind `prefix`.
fn token_at(place: &str, prefix: &str) -> Verifier {
    let verify = format!("scheme = \"token\"\ntoken = \"{place}\"\nprefix = \"{prefix}\"");
    let preset = Preset::parse(&format!("id = \"x\"\nname = \"X\"\n[verify]\n{verify}\n"), "x.toml").unwrap();
    Verifier::new(Arc::new(preset), &secrets(&["tok 1"]), VerifyOptions::default()).unwrap()
}

#[test]
fn a_token_is_found_in_query_form_and_body_and_nowhere_twice() {
    let at = |url: &str, body: &str| Rung { url: Some(url.to_owned()), ..Rung::new(HeaderMap::new(), body.to_owned()) };
    let cases = [
        ("query:key", at("https://a/b?key=tok+1", ""), Ok(Proof::Credential)),
        ("query:key", at("https://a/b?key=tok%201&key=tok%201", ""), Err("credential_malformed")),
        ("query:key", at("https://a/b?key=", ""), Err("credential_missing")),
        ("query:key", at("https://a/b?key=tok", ""), Err("credential_mismatch")),
        ("form:key", at("https://a/b", "a=1&key=tok+1"), Ok(Proof::Credential)),
        ("form:key", at("https://a/b?key=tok+1", "a=1"), Err("credential_missing")),
        ("body:a.key", at("https://a/b", r#"{"a":{"key":"tok 1"}}"#), Ok(Proof::Credential)),
        ("body:a.key", at("https://a/b", r#"{"a":{"key":["tok 1"]}}"#), Err("credential_missing")),
        ("body:a.key", at("https://a/b", "no json"), Err("credential_missing")),
    ];
    for (place, rung, wanted) in cases {
        let verdict = rung.verify(&token_at(place, ""), NOW);
        let seen = verdict.as_ref().map(|v| v.proof()).map_err(|refusal| refusal.code());
        assert_eq!(seen, wanted, "{place}: {rung:?}");
    }
}

#[test]
fn a_list_may_be_spread_over_headers_and_has_a_limit() {
    let (preset, verifier) = ready("standard-webhooks", &[WHSEC]);
    let good = signed_by(&preset, WHSEC, BODY.as_bytes());
    let wrong = format!("v1,{}=", "A".repeat(43));
    let mut spread = good.clone();
    spread.headers.insert("webhook-signature", HeaderValue::from_str(&wrong).unwrap());
    spread.headers.append("webhook-signature", good.headers["webhook-signature"].clone());
    assert!(spread.verify(&verifier, NOW).is_ok());
    let behind = |count: usize| {
        let mut all = vec![wrong.as_str(); count];
        let right = good.headers["webhook-signature"].to_str().unwrap();
        all.push(right);
        good.clone().header("webhook-signature", |v| *v = all.join(" ").into_bytes()).verify(&verifier, NOW)
    };
    assert!(behind(15).is_ok());
    assert_eq!(behind(16).unwrap_err().code(), "signature_malformed");
}

#[test]
fn a_signature_over_the_url_needs_to_know_the_url() {
    let text = "id = \"x\"\nname = \"X\"\n[verify]\nscheme = \"hmac\"\nhash = \"sha256\"\nsecret = \"raw\"\n\
                signature = \"header:x-s\"\nencoding = \"hex\"\nsigned = \"{url}{body}\"\n";
    let preset = Arc::new(Preset::parse(text, "x.toml").unwrap());
    let verifier = Verifier::new(preset, &secrets(&["k"]), VerifyOptions::default()).unwrap();
    let rung = Rung::new(HeaderMap::new(), BODY).header("x-s", |v| *v = vec![b'0'; 64]);
    assert_eq!(rung.verify(&verifier, NOW).unwrap_err().code(), "url_unknown");
}
