//! Where senders differ in ways that a person who writes a preset gets wrong: one row for each trap.

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use doorbell_core::Timestamp;
use doorbell_core::provider::{
    self, Encoding, KeyForm, Preset, Proof, Signed, TimeUnit, TimestampPlace, Vector, Verifier, VerifyOptions,
};
use http::HeaderValue;

use crate::{NOW, Rung, headers, secrets, whole};

fn preset(id: &str) -> &'static Arc<Preset> {
    provider::get(id).unwrap_or_else(|| panic!("no preset `{id}`"))
}

fn signed(id: &str) -> &'static Signed {
    preset(id).scheme.signed().unwrap_or_else(|| panic!("`{id}` does not sign"))
}

fn verifier(id: &str, texts: &[&str]) -> Verifier {
    Verifier::new(Arc::clone(preset(id)), &secrets(texts), VerifyOptions::default()).unwrap()
}

fn good(id: &str) -> (&'static Vector, Rung, Verifier) {
    let vector = preset(id).vectors.iter().rfind(|v| v.refused.is_none()).unwrap();
    let rung = Rung {
        method: vector.method.clone(),
        url: vector.url.clone(),
        headers: headers(&vector.headers),
        body: Bytes::from(vector.body.clone()),
    };
    let texts: Vec<&str> = vector.secrets.iter().map(String::as_str).collect();
    (vector, rung, verifier(id, &texts))
}

fn mac(algorithm: hmac::Algorithm, key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn one(pairs: &[(&str, &str)], body: impl Into<Bytes>) -> Rung {
    let pairs: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Rung::new(headers(&pairs), body)
}

#[test]
fn whsec_means_another_key_to_another_sender() {
    let encoded = base64(b"the key itself");
    for (id, prefix, text, key) in [
        ("standard-webhooks", "webhook", format!("whsec_{encoded}"), b"the key itself".to_vec()),
        ("standard-webhooks", "webhook", encoded.clone(), b"the key itself".to_vec()),
        ("supabase-auth-hooks", "webhook", format!("v1,whsec_{encoded}"), b"the key itself".to_vec()),
        ("openai", "webhook", format!("whsec_{encoded}"), b"the key itself".to_vec()),
        ("openai", "webhook", "plain text".to_owned(), b"plain text".to_vec()),
        ("polar", "webhook", format!("whsec_{encoded}"), format!("whsec_{encoded}").into_bytes()),
        ("bigcommerce", "webhook", encoded.clone(), encoded.clone().into_bytes()),
        ("svix", "svix", format!("whsec_{encoded}"), b"the key itself".to_vec()),
    ] {
        let made = base64(&mac(hmac::HMAC_SHA256, &key, b"m1.1760000000.{}"));
        let (id_header, ts_header, sig_header) =
            (format!("{prefix}-id"), format!("{prefix}-timestamp"), format!("{prefix}-signature"));
        let value = format!("v1,{made}");
        let rung = one(&[(&id_header, "m1"), (&ts_header, "1760000000"), (&sig_header, &value)], "{}");
        assert!(rung.verify(&verifier(id, &[&text]), NOW).is_ok(), "{id} {text}");
    }
    let made = hex::encode(mac(hmac::HMAC_SHA256, b"whsec_abc", b"1760000000.{}"));
    let rung = one(&[("stripe-signature", &format!("t=1760000000,v1={made}"))], "{}");
    assert!(rung.verify(&verifier("stripe", &["whsec_abc"]), NOW).is_ok());
}

#[test]
fn the_same_prefix_stands_before_hex_and_before_base64() {
    for (id, encoding) in [
        ("github", Encoding::Hex),
        ("meta", Encoding::Hex),
        ("x-twitter", Encoding::Base64),
        ("typeform", Encoding::Base64),
    ] {
        assert_eq!((signed(id).prefix.as_str(), signed(id).encoding), ("sha256=", encoding), "{id}");
    }
}

#[test]
fn the_hash_is_the_preset_s_and_never_the_request_s() {
    let outliers = [
        (
            "hmac-sha1",
            &["vercel", "segment", "trello", "twilio", "intercom", "webex", "mongodb-atlas", "mandrill", "braintree"][..],
        ),
        ("hmac-sha512", &["terraform", "paystack", "authorize-net"]),
        ("hmac-sha256", &["bitbucket-cloud", "bitbucket-datacenter", "jira", "snyk", "websub"]),
        ("digest-sha1", &["sellsy"]),
        ("digest-sha256", &["hubspot-v1", "hubspot-v2"]),
        ("rsa-sha1", &["postal"]),
    ];
    for (scheme, ids) in outliers {
        for id in ids {
            assert_eq!(preset(id).scheme.name(), scheme, "{id}");
        }
    }
    // A right signature with another hash, under the header that others fill so.
    let sha1 = format!("sha1={}", hex::encode(mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"k", b"{}")));
    let sha256 = format!("sha256={}", hex::encode(mac(hmac::HMAC_SHA256, b"k", b"{}")));
    for (id, fits, other) in [("jira", &sha256, &sha1), ("intercom", &sha1, &sha256), ("websub", &sha256, &sha1)] {
        assert!(one(&[("x-hub-signature", fits)], "{}").verify(&verifier(id, &["k"]), NOW).is_ok(), "{id}");
        assert!(one(&[("x-hub-signature", other)], "{}").verify(&verifier(id, &["k"]), NOW).is_err(), "{id}");
    }
    let hub = preset("websub").with_settings(&[("hash", "sha1"), ("prefix", "sha1=")]).unwrap();
    let hub = Verifier::new(Arc::new(hub), &secrets(&["k"]), VerifyOptions::default()).unwrap();
    assert!(one(&[("x-hub-signature", &sha1)], "{}").verify(&hub, NOW).is_ok());
    assert!(one(&[("x-hub-signature", &sha256)], "{}").verify(&hub, NOW).is_err());
    // The old SHA-1 header of GitHub and Meta is no way in.
    for id in ["github", "meta"] {
        let rung = one(&[("x-hub-signature", &sha1)], "{}");
        assert_eq!(rung.verify(&verifier(id, &["k"]), NOW).unwrap_err().code(), "signature_missing", "{id}");
    }
}

#[test]
fn a_secret_is_read_as_its_sender_writes_it() {
    for (id, form) in [
        ("teams-outgoing", KeyForm::Base64),
        ("airtable", KeyForm::Base64),
        ("adyen-payments", KeyForm::Hex),
        ("adyen-platform", KeyForm::Hex),
        ("authorize-net", KeyForm::Hex),
        ("braintree", KeyForm::NamedSha1),
        ("woocommerce", KeyForm::HtmlText),
        ("xero", KeyForm::Raw),
        ("stripe", KeyForm::Raw),
        ("polar", KeyForm::Raw),
        ("bigcommerce", KeyForm::Raw),
        ("easypost", KeyForm::Raw),
    ] {
        assert_eq!(signed(id).key, form, "{id}");
    }
    let made = base64(&mac(hmac::HMAC_SHA256, b"a&b", b"{}"));
    let rung = one(&[("x-wc-webhook-signature", &made)], "{}");
    assert!(rung.verify(&verifier("woocommerce", &["a&amp;b"]), NOW).is_ok());
}

#[test]
fn not_every_sender_protects_the_body() {
    for (id, proof) in [
        ("github", Proof::Body),
        ("twilio", Proof::Body),
        ("contentful", Proof::Body),
        ("qstash", Proof::Body),
        ("gitea", Proof::Body),
        ("mailgun", Proof::Part),
        ("dropbox-sign", Proof::Part),
        ("adyen-payments", Proof::Part),
        ("mercado-pago", Proof::Part),
        ("braintree", Proof::Part),
        ("monday", Proof::Credential),
        ("telegram", Proof::Credential),
        ("gitlab", Proof::Credential),
        ("microsoft-graph", Proof::Credential),
        ("figma", Proof::Credential),
        ("azure-event-grid", Proof::Credential),
    ] {
        let (vector, rung, verifier) = good(id);
        let checked = rung.verify(&verifier, Timestamp::from_secs(vector.now_s)).unwrap();
        assert_eq!(checked.proof(), proof, "{id}");
    }
}

#[test]
fn a_secret_that_travels_with_the_event_reaches_nobody() {
    // The last one's is no secret but a proof that is right for any body.
    for id in ["figma", "microsoft-graph", "notion", "dropbox-sign"] {
        let preset = preset(id);
        assert!(preset.has_secret_in_body(), "{id}");
        let hash = serde_json::json!({"event_hash": "hunter2"});
        let mut event = serde_json::json!({"passcode": "hunter2", "clientState": "hunter2", "verification_token": "hunter2", "event": hash});
        assert!(preset.strip_body(&mut event), "{id}");
        let left = event.to_string().matches("hunter2").count();
        assert_eq!(left, 3, "{id}: {event}");
    }
    for id in ["azure-event-grid", "docker-hub", "jotform", "mailchimp", "mollie", "strava"] {
        let kept = preset(id).kept_query("key=hunter2&a=1");
        assert!(!format!("{kept:?}").contains("hunter2"), "{id}");
    }
    let (_, rung, _) = good("microsoft-graph");
    let view = whole(preset("microsoft-graph"), &rung);
    assert!(view["value"][0]["clientState"].is_string());
}

#[test]
fn one_good_element_of_a_list_lets_in_no_other() {
    let graph = |states: &[&str]| {
        let value: Vec<_> = states.iter().map(|s| serde_json::json!({"id": "1", "clientState": s})).collect();
        let rung = one(&[], serde_json::json!({"value": value}).to_string());
        rung.verify(&verifier("microsoft-graph", &["right"]), NOW).map(|_| ()).map_err(|refusal| refusal.code())
    };
    assert_eq!(graph(&["right", "right"]), Ok(()));
    assert_eq!(graph(&["right", "wrong"]), Err("credential_mismatch"));
    assert_eq!(graph(&["wrong", "right"]), Err("credential_mismatch"));
    assert_eq!(graph(&[]), Err("nothing_to_check"));
    assert_eq!(graph(&["right"; 1001]), Err("nothing_to_check"));
    let (_, rung, verifier) = good("adyen-payments");
    let mut body: serde_json::Value = serde_json::from_slice(&rung.body).unwrap();
    let mut second = body["notificationItems"][0].clone();
    second["NotificationRequestItem"]["amount"]["value"] = 1.into();
    body["notificationItems"].as_array_mut().unwrap().push(second);
    let forged = Rung { body: body.to_string().into(), ..rung };
    assert_eq!(forged.verify(&verifier, NOW).unwrap_err().code(), "signature_mismatch");
}

#[test]
fn what_is_signed_is_not_always_the_raw_body() {
    // Gitea signs the JSON inside the form.
    let made = hex::encode(mac(hmac::HMAC_SHA256, b"k", br#"{"a":"b c"}"#));
    let form =
        [("x-gitea-signature", made.as_str()), ("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let gitea = verifier("gitea", &["k"]);
    assert!(one(&form, "payload=%7B%22a%22%3A%22b+c%22%7D").verify(&gitea, NOW).is_ok());
    assert!(one(&form, "payload=%7B%22a%22%3A%22b+d%22%7D").verify(&gitea, NOW).is_err());
    assert!(one(&form, r#"{"a":"b c"}"#).verify(&gitea, NOW).is_err());
    let twice = one(&form, "payload=%7B%22a%22%3A%22b+c%22%7D&payload=%7B%7D");
    assert_eq!(twice.verify(&gitea, NOW).unwrap_err().code(), "part_repeated");
    assert!(one(&form[..1], r#"{"a":"b c"}"#).verify(&gitea, NOW).is_ok());
    // SendGrid's CR LF at the end is signed.
    let sendgrid = preset("sendgrid");
    assert!(sendgrid.vectors.iter().any(|v| v.refused.is_none() && v.body.ends_with(b"\r\n")));
    // Twilio binds a JSON body by a digest that is signed with the URL.
    assert!(preset("twilio").vectors.iter().any(|v| v.refused.as_deref() == Some("digest_mismatch")));
}

#[test]
fn units_and_windows_of_time_are_each_sender_s_own() {
    use TimeUnit::{HttpDate, Millis, Rfc3339, Seconds};
    for (id, unit, tolerance_s) in [
        ("paddle", Seconds, 5),
        ("contentful", Millis, 30),
        ("linear", Millis, 60),
        ("workos", Millis, 180),
        ("calendly", Seconds, 180),
        ("slack", Seconds, 300),
        ("stripe", Seconds, 300),
        ("hubspot-v3", Millis, 300),
        ("sanity", Millis, 300),
        ("webflow", Millis, 300),
        ("retell", Millis, 300),
        ("metronome", HttpDate, 300),
        ("zendesk", Rfc3339, 300),
        ("box", Rfc3339, 600),
        ("twitch", Rfc3339, 600),
        ("elevenlabs", Seconds, 1800),
    ] {
        let rule = signed(id).timestamp.as_ref().unwrap();
        assert_eq!((rule.unit, rule.tolerance.as_secs()), (unit, tolerance_s), "{id}");
    }
}

#[test]
fn nobody_signs_ahead() {
    for (id, preset) in provider::presets() {
        let Some(rule) = preset.scheme.signed().and_then(|s| s.timestamp.as_ref()) else { continue };
        if matches!(&rule.place, TimestampPlace::At(provider::Place::Body(_))) && id == "linear" {
            continue;
        }
        let (vector, rung, verifier) = good(id);
        let before = vector.now_s - i64::try_from(rule.tolerance.as_secs()).unwrap() - 2;
        let verdict = rung.verify(&verifier, Timestamp::from_secs(before));
        assert_eq!(verdict.map_err(|r| r.code()), Err("timestamp_future"), "{id}");
    }
}

#[test]
fn the_signed_url_is_the_configured_one_whatever_the_request_says() {
    for id in
        ["twilio", "square", "trello", "hubspot-v2", "hubspot-v3", "mandrill", "plivo", "qstash", "monday", "gong"]
    {
        let (vector, rung, verifier) = good(id);
        let now = Timestamp::from_secs(vector.now_s);
        let mut lying = rung.clone();
        lying.headers.insert("host", HeaderValue::from_static("evil.example"));
        lying.headers.insert("x-forwarded-host", HeaderValue::from_static("evil.example"));
        assert!(lying.verify(&verifier, now).is_ok(), "{id}");
        lying.url = rung.url.as_ref().map(|url| url.replacen("://", "://evil.", 1));
        assert!(lying.verify(&verifier, now).is_err(), "{id}");
        lying.url = None;
        assert_eq!(lying.verify(&verifier, now).unwrap_err().code(), "url_unknown", "{id}");
    }
}

#[test]
fn a_secret_can_be_changed_in_each_sender_s_own_way() {
    let (new, old) = (mac(hmac::HMAC_SHA256, b"new", b"{}"), mac(hmac::HMAC_SHA256, b"old", b"{}"));
    // Lists in one header.
    let list = format!("v1={},v1={}", hex::encode(&new), hex::encode(&old));
    for secret in ["new", "old"] {
        let rung = one(&[("x-pagerduty-signature", &list)], "{}");
        assert!(rung.verify(&verifier("pagerduty", &[secret]), NOW).is_ok());
    }
    // One header for each key.
    for (id, first, second) in [
        ("docusign", "x-docusign-signature-1", "x-docusign-signature-2"),
        ("hookdeck", "x-hookdeck-signature", "x-hookdeck-signature-2"),
    ] {
        let rung = one(&[(first, &base64(&new)), (second, &base64(&old))], "{}");
        for secret in ["new", "old"] {
            assert!(rung.verify(&verifier(id, &[secret]), NOW).is_ok(), "{id} {secret}");
        }
        assert!(rung.verify(&verifier(id, &["another"]), NOW).is_err(), "{id}");
        // What stands in the other header may be in a form of the future.
        assert!(one(&[(first, "v9:?"), (second, &base64(&old))], "{}").verify(&verifier(id, &["old"]), NOW).is_ok());
        assert!(one(&[(first, "v9:?")], "{}").verify(&verifier(id, &["old"]), NOW).is_err());
    }
}

#[test]
fn a_canonical_request_has_to_list_its_timestamp_and_its_list() {
    let (_, rung, verifier) = good("contentful");
    let relist = |list: &str, names: &[&str]| {
        let mut lines: Vec<String> = Vec::new();
        let mut changed = rung.clone();
        changed.url = Some("https://door.example.com/hooks/sender".to_owned());
        changed.headers.insert("x-contentful-signed-headers", HeaderValue::from_str(list).unwrap());
        for name in names {
            lines.push(format!("{name}:{}", changed.headers[*name].to_str().unwrap()));
        }
        let path = changed.with(|r| r.path.to_owned());
        let text = ["POST", &path, &lines.join(";"), std::str::from_utf8(&changed.body).unwrap()].join("\n");
        let key = preset("contentful").vectors.iter().rfind(|v| v.refused.is_none()).unwrap().secrets[0].clone();
        let made = hex::encode(mac(hmac::HMAC_SHA256, key.as_bytes(), text.as_bytes()));
        changed.headers.insert("x-contentful-signature", HeaderValue::from_str(&made).unwrap());
        changed.verify(&verifier, NOW).map(|_| ()).map_err(|r| r.code())
    };
    let (itself, time) = ("x-contentful-signed-headers", "x-contentful-timestamp");
    assert_eq!(relist(&format!("{itself},{time}"), &[itself, time]), Ok(()));
    assert_eq!(relist(itself, &[itself]), Err("part_missing"));
    assert_eq!(relist(time, &[time]), Err("part_missing"));
}

#[test]
fn a_token_says_nothing_about_how_it_is_checked() {
    use base64::Engine as _;
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let sum = base64(digest::digest(&digest::SHA256, b"{}").as_ref());
    let claims = format!(r#"{{"exp":1760000300,"sha256":"{sum}"}}"#);
    let with = |header: &str, claims: &str| {
        let message = format!("{}.{}", part(header), part(claims));
        let tag = mac(hmac::HMAC_SHA256, b"k", message.as_bytes());
        let token = format!("{message}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag));
        one(&[("authorization", &token)], "{}")
            .verify(&verifier("livekit", &["k"]), NOW)
            .map(|_| ())
            .map_err(|r| r.code())
    };
    assert_eq!(with(r#"{"alg":"HS256"}"#, &claims), Ok(()));
    for header in
        [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, r#"{"alg":"RS256"}"#, "{}", r#"{"alg":"HS256","crit":["x"],"x":1}"#]
    {
        assert_eq!(with(header, &claims), Err("signature_malformed"), "{header}");
    }
    let bare = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
    let rung = one(&[("authorization", &bare)], "{}");
    assert_eq!(rung.verify(&verifier("livekit", &["k"]), NOW).unwrap_err().code(), "signature_malformed");
    for (claims, code) in [
        (format!(r#"{{"sha256":"{sum}"}}"#), "claim_missing"),
        (r#"{"exp":1760000300}"#.to_owned(), "claim_missing"),
        (format!(r#"{{"exp":"1760000300","sha256":"{sum}"}}"#), "claim_mismatch"),
        (format!(r#"{{"exp":1e300,"nbf":1760000061,"sha256":"{sum}"}}"#), "timestamp_future"),
        (format!(r#"{{"exp":1759999939,"sha256":"{sum}"}}"#), "timestamp_stale"),
        (r#"{"exp":1760000300,"sha256":""}"#.to_owned(), "digest_mismatch"),
    ] {
        assert_eq!(with(r#"{"alg":"HS256"}"#, &claims), Err(code), "{claims}");
    }
}

#[test]
fn batches_are_split_where_the_sender_puts_its_events() {
    for (id, path) in [
        ("hubspot-v3", ""),
        ("sendgrid", ""),
        ("meta", "entry"),
        ("microsoft-graph", "value"),
        ("azure-event-grid", ""),
        ("asana", "events"),
        ("xero", "events"),
        ("quickbooks", "eventNotifications"),
        ("gocardless", "events"),
        ("line", "events"),
        ("okta", "data.events"),
        ("tailscale", ""),
    ] {
        assert_eq!(preset(id).payload.batch.as_deref().map(|p| p.join(".")).as_deref(), Some(path), "{id}");
    }
}

#[test]
fn senders_that_wait_for_seconds_only_say_so() {
    for (id, seconds) in
        [("teams-outgoing", 5), ("slack", 3), ("discord-events", 3), ("microsoft-graph", 3), ("okta", 3)]
    {
        assert_eq!(preset(id).docs.answer_within.map(|d| d.as_secs()), Some(seconds), "{id}");
    }
}

#[test]
fn a_wrong_signature_that_is_sent_on_purpose_is_refused() {
    // Discord probes so, and Xero's activation.
    for (id, header) in [("discord-interactions", "x-signature-ed25519"), ("xero", "x-xero-signature")] {
        let (vector, rung, verifier) = good(id);
        let wrong = rung.header(header, |v| v[..4].copy_from_slice(if id == "xero" { b"AAAA" } else { b"0000" }));
        let verdict = wrong.verify(&verifier, Timestamp::from_secs(vector.now_s));
        assert_eq!(verdict.unwrap_err().code(), "signature_mismatch", "{id}");
    }
}

#[test]
fn all_spellings_of_a_signed_form_are_one_content() {
    let form = &[("content-type", "application/x-www-form-urlencoded")][..];
    let json = &[("content-type", "application/json")][..];
    for (id, one_way, headers_of_one, another, headers_of_another) in [
        ("twilio", "From=a&Body=%C3%A9+b", form, "&Body=%c3%a9%20b&From=a&From=%61", form),
        ("plivo", "From=a&Text=b", form, "Text=%62&From=a", form),
        ("travis", "payload=%7B%7D", form, "other=1&payload=%7b}", form),
        ("gitea", "{\"a\":1}", json, "payload=%7B%22a%22:1%7D&x=y", form),
        ("box", "{\"a\":\"/é\"}", json, "{\"a\":\"\\/\\u00e9\"}", json),
    ] {
        let verifier = verifier(id, &[&good(id).0.secrets[0]]);
        let content = |pairs, body: &'static str| one(pairs, body).with(|r| verifier.signed_content(r)).unwrap();
        let wanted = content(headers_of_one, one_way);
        assert_eq!(content(headers_of_another, another), wanted, "{id}");
    }
    // GitHub signs the bytes, Twilio a digest of JSON.
    let raw = one(form, "payload=%7B%7D");
    assert_eq!(raw.with(|r| verifier("github", &["s"]).signed_content(r)), None);
    let digested = Rung { url: Some("https://door.example.com/hooks?bodySHA256=00".into()), ..one(json, "{}") };
    assert_eq!(digested.with(|r| verifier("twilio", &["s"]).signed_content(r)), None);
}

#[test]
fn an_id_in_which_something_could_not_be_read_is_no_id() {
    let labels =
        |id: &str, rung: &Rung, view: serde_json::Value| rung.with(|request| preset(id).labels(request, &view));
    let empty = one(&[], "{}");
    assert_eq!(labels("stripe", &empty, serde_json::json!({"id": "evt_1"})).id.as_deref(), Some("evt_1"));
    // What `"evt_\ud800"` and `"evt_\ud801"` are both read as.
    assert_eq!(labels("stripe", &empty, serde_json::json!({"id": "evt_\u{fffd}"})).id, None);
    let mut headers = http::HeaderMap::new();
    for bytes in [&b"caf\xe9-1"[..], b"caf\xe8-1"] {
        headers.insert("x-github-delivery", HeaderValue::from_bytes(bytes).unwrap());
        let rung = Rung::new(headers.clone(), "{}");
        assert_eq!(labels("github", &rung, serde_json::json!({})).id, None);
    }
}
