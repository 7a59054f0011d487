//! The rules of the one reader, and the agreement of its projections with whole readings.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(text: &str, content_type: &str) -> Result<Body, Unreadable> {
    Body::read(Bytes::copy_from_slice(text.as_bytes()), Some(content_type), &PayloadRule::default())
}

fn body(text: &str) -> Body {
    read(text, "application/json").unwrap()
}

fn paths(list: &[&[&str]]) -> Paths {
    let mut paths = Paths::default();
    list.iter().for_each(|p| paths.insert(p));
    paths
}

fn data(body: &Body) -> String {
    body.data().as_str().to_owned()
}

#[test]
fn the_content_type_decides_the_format() {
    for (content_type, text, format) in [
        ("application/json; charset=utf-8", "{}", Format::Json),
        ("Application/CloudEvents+JSON", "{}", Format::Json),
        ("application/x-www-form-urlencoded", "a=1", Format::Form),
        // JSON under a form's type is JSON: else a text in it, such as a title, could hold the form's fields.
        ("application/x-www-form-urlencoded", "{\"title\":\"x&payload={}\"}", Format::Json),
        ("application/x-www-form-urlencoded", "\r\n [1]", Format::Json),
        ("text/plain", "{}", Format::Text),
        ("application/octet-stream", "{}", Format::Binary),
        ("application/soap+xml", "<a/>", Format::Text),
        ("", "{\"a\":1}", Format::Json),
        ("", " [1]", Format::Json),
        ("", "12", Format::Text),
        ("", "{broken", Format::Text),
        ("application/json", "", Format::Empty),
    ] {
        assert_eq!(read(text, content_type).unwrap().format(), format, "{content_type} {text}");
    }
    let binary = Body::read(Bytes::from_static(b"\xff\x00"), Some("text/plain"), &PayloadRule::default()).unwrap();
    assert_eq!(binary.format(), Format::Binary);
    assert_eq!(data(&binary), "/wA=");
}

#[test]
fn multipart_is_a_wrong_media_type() {
    let refused = read("x", "Multipart/Form-Data; boundary=x").unwrap_err();
    assert_eq!(refused.http_status(), 415);
}

#[test]
fn broken_json_is_unreadable_with_its_byte() {
    let refused = body("{\"a\":1,\n \"b\":tru}").value().unwrap_err();
    assert!(matches!(refused, Unreadable::Json { offset: 16, .. }), "{refused:?}");
    let not_utf8 =
        Body::read(Bytes::from_static(b"{\"a\":\"\xff\"}"), Some("application/json"), &PayloadRule::default());
    assert_eq!(not_utf8.unwrap_err(), Unreadable::NotUtf8 { offset: 6 });
    for text in ["1e999", "{\"a\":[1e999]}", "{} x", "\"\u{0}\"", "{\"a\":1,}", " ", "nul"] {
        assert!(body(text).value().is_err(), "{text}");
        assert!(body(text).project(&Paths::default()).is_err(), "{text}");
    }
}

#[test]
fn depth_is_bounded_alike_for_skipped_and_built_parts() {
    for (depth, good) in [(100, true), (127, true), (128, false), (10_000, false), (1_000_000, false)] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(body(&text).value().is_ok(), good, "{depth}");
        assert_eq!(body(&text).project(&Paths::default()).is_ok(), good, "{depth}");
        let _ = body(&text).data();
        assert_eq!(body(&text).split(&[]).is_ok(), good, "{depth}");
    }
}

#[test]
fn of_a_repeated_key_the_last_counts_everywhere() {
    let twice = body(r#"{"a":{"b":1,"x":2},"k":[{"c":1,"\u0063":2}],"a":{"b":3}}"#);
    assert_eq!(twice.value().unwrap(), json!({"a": {"b": 3}, "k": [{"c": 2}]}));
    assert_eq!(twice.project(&paths(&[&["a", "b"]])).unwrap(), json!({"a": {"b": 3}}));
    assert_eq!(twice.project(&paths(&[&["a", "x"]])).unwrap(), json!({"a": {}}));
    assert_eq!(data(&twice), r#"{"k":[{"\u0063":2}],"a":{"b":3}}"#);
    let batch = body(r#"{"a":[1],"a":[2,3]}"#).split(&["a".to_owned()]).unwrap();
    assert_eq!(batch.len(), 2);
}

#[test]
fn of_many_keys_too_the_last_counts() {
    // Around the number from which on keys are hashed: the earlier copy may lie on either side of it.
    for count in 20..32 {
        for (first, second) in [(0, count - 1), (count / 2, count - 1), (count - 2, count - 1), (0, 1)] {
            let member = |n: usize| format!("\"k{}\":{n}", if n == second { first } else { n });
            let text = format!("{{{}}}", (0..count).map(member).collect::<Vec<_>>().join(","));
            let read: Value = serde_json::from_str(&data(&body(&text))).unwrap();
            assert_eq!(read, body(&text).value().unwrap(), "{text}");
            assert_eq!(read[format!("k{first}")], second, "{text}");
            assert_eq!(data(&body(&text)).matches(&format!("\"k{first}\":")).count(), 1, "{text}");
        }
    }
}

#[test]
fn a_lone_surrogate_reads_as_the_replacement_character_everywhere() {
    let lone = body(r#"{"a":"\ud800x\uDC00\ud83d\ude00\ud800\ud83d\ude00\\ud800"}"#);
    let read = json!({"a": "\u{fffd}x\u{fffd}😀\u{fffd}😀\\ud800"});
    assert_eq!(lone.value().unwrap(), read);
    assert_eq!(lone.project(&paths(&[&["a"]])).unwrap(), read);
    assert_eq!(serde_json::from_str::<Value>(&data(&lone)).unwrap(), read);
    assert!(lone.raw().windows(6).any(|w| w == br"\ud800"), "what is stored is what came");
}

#[test]
fn the_agent_gets_the_senders_own_text() {
    let text = "{ \"n\" : 123456789012345678901234567890.10, \"e\":1E2, \"s\":\"\\u0000\\/\" }";
    assert_eq!(data(&body(text)), text);
    assert_eq!(data(&body("\u{feff}{\"n\":1}")), "{\"n\":1}");
    let twice = body(r#"{"n":1,"n":99999999999999999999999999}"#);
    assert_eq!(data(&twice), r#"{"n":99999999999999999999999999}"#);
    assert_eq!(data(&read("", "application/json").unwrap()), "null");
    assert_eq!(data(&read("a\"\u{0}", "text/plain").unwrap()), r#""a\"\u0000""#);
}

#[test]
fn a_form_is_an_object_of_strings_and_a_field_may_hold_json() {
    let form = read("a=1&b=x+y&a=%C3%A4", "application/x-www-form-urlencoded").unwrap();
    assert_eq!(form.value().unwrap(), json!({"a": ["1", "ä"], "b": "x y"}));
    assert_eq!(form.project(&paths(&[&["b"]])).unwrap(), json!({"b": "x y"}));
    let rule = PayloadRule { kind: PayloadKind::Auto, form_json: Some("payload".into()) };
    let form = |text: &'static str| {
        Body::read(Bytes::from_static(text.as_bytes()), Some("application/x-www-form-urlencoded"), &rule)
    };
    let hook = form("x=1&payload=%7B%22a%22%3A7%7D").unwrap();
    assert_eq!(hook.value().unwrap(), json!({"a": 7}));
    assert_eq!(data(&hook), "{\"a\":7}");
    let again = Body::restore(hook.format().code(), hook.raw().clone()).unwrap();
    assert_eq!(again.value().unwrap(), json!({"a": 7}));
    assert_eq!(form("x=1").unwrap().format(), Format::Form);
    assert!(form("payload=%7B").unwrap().value().is_err());
    assert!(matches!(form("payload={}&payload={}"), Err(Unreadable::FormField { .. })));
}

#[test]
fn a_batch_splits_into_the_senders_texts() {
    let batch = body(r#"{"events":[ {"a": 1}, 2 ,"\ud800"],"n":1}"#);
    let parts = batch.split(&["events".to_owned()]).unwrap();
    let texts: Vec<_> = parts.iter().map(|p| std::str::from_utf8(p.raw()).unwrap()).collect();
    assert_eq!(texts, [r#"{"a": 1}"#, "2", r#""\ufffd""#]);
    for bad in ["n", "none"] {
        assert!(matches!(batch.split(&[bad.to_owned()]), Err(Unreadable::NotAList { .. })), "{bad}");
    }
    assert!(matches!(batch.split(&[]), Err(Unreadable::NotAList { .. })));
    assert!(body("[1,1e999]").split(&[]).is_err(), "the whole document is checked");
}

#[test]
fn every_format_survives_its_code() {
    for code in 0..=u8::MAX {
        if let Some(format) = Format::from_code(code) {
            assert_eq!(format.code(), code);
        }
    }
    assert!(matches!(Body::restore(9, Bytes::new()), Err(Unreadable::UnknownFormat(9))));
}

#[test]
fn paths_join_and_a_whole_swallows_its_parts() {
    let mut some = paths(&[&["a", "b"], &["c"]]);
    some.union(&paths(&[&["a"], &["c", "d"]]));
    assert_eq!(some.list(), [vec!["a"], vec!["c"]]);
    some.insert_root();
    assert!(some.wants_root());
}

/// JSON texts with repeated keys, odd spacing, escapes and odd numbers; a few of them broken.
fn text() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:e}")),
        prop_oneof![Just("1e999"), Just("-0"), Just("1E5"), Just("123456789012345678901234567890"), Just("01")]
            .prop_map(str::to_owned),
        prop_oneof![Just(r#""\ud800""#), Just(r#""\u0000\\""#), Just(r#""\q""#), Just("\"a b\"")]
            .prop_map(str::to_owned),
    ];
    let key = prop_oneof![Just("a"), Just("b"), Just("0"), Just("\\u0061"), Just("c.d")];
    scalar.prop_recursive(5, 40, 5, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(" ,")));
        let object = prop::collection::vec((key.clone(), inner), 0..5).prop_map(|v| {
            let members: Vec<_> = v.into_iter().map(|(k, v)| format!(" \"{k}\":{v}")).collect();
            format!("{{{}}}", members.join(","))
        });
        prop_oneof![list, object]
    })
}

fn some_paths() -> impl Strategy<Value = Vec<Vec<String>>> {
    let name = prop_oneof![Just("a"), Just("b"), Just("0"), Just("1"), Just("c.d")].prop_map(str::to_owned);
    prop::collection::vec(prop::collection::vec(name, 0..4), 0..4)
}

fn at<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |v, name| match v {
        Value::Array(list) => name.parse::<usize>().ok().and_then(|i| list.get(i)),
        other => other.get(name),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_projection_agrees_with_the_full_value(text in text(), wanted in some_paths()) {
        let body = body(&text);
        let mut paths = Paths::default();
        wanted.iter().for_each(|p| paths.insert(p));
        let full = body.value();
        let part = body.project(&paths);
        prop_assert_eq!(full.as_ref().err(), part.as_ref().err());
        if let (Ok(full), Ok(part)) = (&full, &part) {
            for path in &wanted {
                prop_assert_eq!(at(full, path), at(part, path), "{:?} in {}", path, text);
            }
        }
    }

    #[test]
    fn an_accepted_body_reads_the_same_for_the_agent_and_from_the_store(text in text()) {
        let body = body(&text);
        if let Ok(full) = body.value() {
            let Data::Json(raw) = body.data() else { panic!("{text} became base64") };
            prop_assert_eq!(&serde_json::from_str::<Value>(raw.get()).unwrap(), &full);
            let again = duplicates::without(raw.get()).unwrap();
            prop_assert_eq!(&*again, raw.get());
            prop_assert_eq!(Body::restore(body.format().code(), body.raw().clone()).unwrap().value().unwrap(), full);
        }
    }

    #[test]
    fn no_bytes_crash_the_reader(raw in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'"'), Just(b'{'), Just(b'[')], 0..60)) {
        for content_type in [None, Some("application/json"), Some("application/x-www-form-urlencoded"), Some("text/x")] {
            let rule = PayloadRule { kind: PayloadKind::Auto, form_json: Some("a".into()) };
            if let Ok(body) = Body::read(raw.clone().into(), content_type, &rule) {
                let _ = (body.value(), body.data(), body.split(&[]), body.split(&["a".to_owned()]));
            }
        }
    }
}

#[test]
fn an_event_of_a_batch_keeps_the_short_values_that_stood_beside_the_list() {
    let path = ["entry".to_owned()];
    let joined = |text: &str| -> Vec<String> {
        let whole = body(text);
        let siblings = whole.siblings(&path).unwrap();
        let parts = whole.split(&path).unwrap().into_iter();
        let text = |own: Body| own.beside(&siblings).unwrap().unwrap_or(own).value().unwrap().to_string();
        parts.map(text).collect()
    };
    let long = "x".repeat(300);
    for (text, wanted) in [
        (
            r#"{"object":"page","entry":[{"id":1},{"id":2}]}"#,
            &[r#"{"id":1,"object":"page"}"#, r#"{"id":2,"object":"page"}"#][..],
        ),
        (r#"{"object":"page","entry":[{}, 7, "a", [1]]}"#, &[r#"{"object":"page"}"#, "7", "\"a\"", "[1]"]),
        (r#"{"id":"whole","entry":[{"id":"own"}],"live":true,"n":1}"#, &[r#"{"id":"own","live":true,"n":1}"#]),
        (r#"{"a":{"x":1},"b":[1],"c":null,"entry":[{"id":1}]}"#, &[r#"{"id":1}"#]),
        (r#"{"a\"b":"c\"d","entry":[ {"id":1} ]}"#, &[r#"{"a\"b":"c\"d","id":1}"#]),
        (&format!(r#"{{"a":"{long}","z":1,"entry":[{{"id":1}}]}}"#), &[r#"{"id":1,"z":1}"#]),
        (r#"{"entry":"x","entry":[{"id":1}],"o":1,"o":2}"#, &[r#"{"id":1,"o":2}"#]),
    ] {
        assert_eq!(joined(text), wanted, "{text}");
    }
    // Only of the body itself: what is beside a list further in has another meaning.
    assert!(body(r#"{"o":1,"data":{"entry":[]}}"#).siblings(&["data".into(), "entry".into()]).unwrap().is_empty());
}

#[test]
fn a_batch_over_the_limit_is_counted_and_not_taken() {
    let list = |count: usize| body(&format!("{{\"a\":[{}]}}", vec!["1"; count].join(",")));
    let path = ["a".to_owned()];
    assert_eq!(list(BATCH_MAX).split(&path).unwrap().len(), BATCH_MAX);
    let refused = list(BATCH_MAX + 1).split(&path).unwrap_err();
    assert_eq!(refused, Unreadable::TooMany { count: BATCH_MAX + 1 });
    assert_eq!(refused.http_status(), 413);
}
