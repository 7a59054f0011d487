//! What filters pass, reject and refuse; agreement with cel itself on arbitrary expressions.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Timestamp;
use crate::payload::{Body, PayloadRule};
use crate::scope::EventFacts;

fn facts() -> EventFacts<'static> {
    EventFacts {
        id: None,
        source: "github",
        kind: "pull_request",
        subject: Some("o/r#7"),
        actor: Some("octo"),
        time: Timestamp::from_secs(1_760_000_000),
        verified: true,
    }
}

fn eval(source: &str, data: &Value) -> Verdict {
    let headers = [("x-github-event".to_owned(), "pull_request".to_owned())];
    let query = [("a".to_owned(), "1".to_owned())];
    let scope = Scope { event: facts(), data, headers: &headers, query: &query };
    Filter::compile(source).unwrap_or_else(|e| panic!("{source}: {e}")).eval(&scope)
}

fn paths(source: &str) -> Vec<String> {
    let mut list: Vec<_> = Filter::compile(source).unwrap().paths().list().iter().map(|p| p.join("/")).collect();
    list.sort();
    list
}

#[test]
fn a_filter_passes_or_rejects() {
    let data = json!({"action": "opened", "number": 7, "draft": false, "labels": [{"name": "bug"}, {"name": "ci"}],
        "user": {"login": "octo"}, "a.b": 1, "big": 18_446_744_073_709_551_615u64, "none": null, "f": 1.5});
    for yes in [
        r#"event.type == "pull_request" && data.action in ["opened", "synchronize"]"#,
        "data.number + 1 == 8 && data.f > 1.0 && data.number < 7.5",
        "!data.draft",
        "has(data.user.login) && !has(data.user.email) && !has(event.id) && has(event.actor)",
        "data.labels.exists(l, l.name == 'bug') && data.labels[1].name == 'ci' && size(data.labels) == 2",
        "data.labels.map(l, l.name) == ['bug', 'ci'] && data.labels.filter(l, l.name == 'ci').size() == 1",
        "data.labels.exists_one(l, l.name == 'ci') && data.labels.all(l, l.name.size() > 1)",
        "data['a.b'] == 1 && 'user' in data && data.user == {'login': 'octo'}",
        "headers['x-github-event'] == event.type && query.a == '1' && 'b' in query == false",
        "event.actor == 'octo' && event.verified && event.source == 'github'",
        "timestamp(event.time) > timestamp('2025-01-01T00:00:00Z')",
        "event.subject.startsWith('o/') && event.subject.endsWith('7') && event.subject.contains('#')",
        "event['type'].matches('^pull_') && data.none == null && data.big > 0",
        "type(data.number) == int && string(data.number) == '7'",
        "data.missing == 1 || data.number == 7",
        "data.labels.exists(event, event.name == 'bug') && data.labels.exists(data, data.name == 'bug')",
        "(data.draft ? 'a' : 'b') == 'b'",
        "has(data.labels) && data.user.login == event.actor",
    ] {
        assert_eq!(eval(yes, &data), Verdict::Pass, "{yes}");
        assert_eq!(eval(&format!("!({yes})"), &data), Verdict::Reject, "{yes}");
    }
}

#[test]
fn an_error_is_never_a_pass_and_names_no_value() {
    let data = json!({"n": 7, "s": "secret-text", "l": [1]});
    for bad in [
        "data.x == 1",
        "data.n",
        "data.s",
        "data.n == 7 && data.x.y == 1",
        "data.s > 1",
        "data.s + 1 == 's'",
        "data.l[3] == 1",
        "data.s.x == 1",
        "event.id == 'x'",
        "headers['x-none'] == ''",
        "1 / (data.n - 7) == 1",
        "int(data.s) == 1",
        "data.l.all(x, x)",
        "!data.n",
        "data.n ? true : false",
        "timestamp(data.s) == timestamp(data.s)",
    ] {
        let Verdict::Error(text) = eval(bad, &data) else { panic!("{bad} is no error") };
        assert!(!text.contains("secret-text") && text.len() < 300, "{bad}: {text}");
    }
}

#[test]
fn an_expression_that_can_never_say_what_it_is_asked_is_refused_and_no_other() {
    for (source, gives) in [
        ("1 + 1", "a number"),
        ("'a' + data.b", "a text"),
        ("data.a + data.b", "a number, a time, a text or a list"),
        ("data.n * 2", "a number or a time"),
        ("-data.n", "a number or a time"),
        ("event.type", "a text"),
        ("event['source']", "a text"),
        ("headers['x-a']", "a text"),
        ("headers", "a map"),
        ("size(data.l)", "a number"),
        ("data.l.size()", "a number"),
        ("string(data.n)", "a text"),
        ("timestamp(event.time)", "a time"),
        ("data.l.map(x, x)", "a list"),
        ("data.l.filter(x, x > 1)", "a list"),
        ("[1]", "a list"),
        ("{'a': 1}", "a map"),
        ("null", "null"),
        ("int", "a type"),
        ("data.a ? 1 : 2", "a number"),
        ("data.a ? 1 : 'x'", "a number, a time, a text or a list"),
    ] {
        let told = Filter::compile(source).unwrap_err();
        let advice = "compare it with something, as in `… == 1`";
        assert_eq!(told.message, format!("this gives {gives}, and never true or false: {advice}"), "{source}");
    }
    for open in [
        "true",
        "data",
        "data.a",
        "data['a']",
        "data.l[0]",
        "event.verified",
        "has(data.a)",
        "!data.a",
        "data.a ? 1 : data.b",
        "data.l.exists(event, event.type)",
        "data.l.all(x, x > 1)",
        "data.l.exists_one(x, x)",
        "data.l.exists(headers, headers.a)",
        "'a' in data.l",
        "data.l.map(x, x)[0]",
        "data.a.matches('x')",
        "type(data.a) == int",
        "dyn(data.a)",
    ] {
        assert!(Filter::compile(open).is_ok(), "{open}");
    }
    for (source, gives) in [("data.a == 1", "true or false"), ("1 + 1", "a number"), ("[data.a]", "a list")] {
        let told = Filter::compile_text(source).unwrap_err().message;
        assert!(told.starts_with(&format!("this gives {gives}, and never a text: ")), "{source}: {told}");
    }
    for text in ["data.id", "data.a + data.b", "event.id + '/' + string(data.n)", "data.a ? event.id : data.id"] {
        assert!(Filter::compile_text(text).is_ok(), "{text}");
    }
}

#[test]
fn a_text_may_be_a_whole_number_and_nothing_else() {
    let data = json!({"s": "7", "i": 7, "n": -7, "u": u64::MAX, "f": 7.0, "t": true, "none": null, "l": [7]});
    let said = |source: &str| {
        Filter::compile_text(source).unwrap().eval_text(&Scope {
            event: facts(),
            data: &data,
            headers: &[],
            query: &[],
        })
    };
    for (source, text) in
        [("data.s", "7"), ("data.i", "7"), ("data.n", "-7"), ("data.u", "18446744073709551615"), ("data.l[0]", "7")]
    {
        assert_eq!(said(source).as_deref(), Ok(text), "{source}");
    }
    for source in ["data.f", "data.t", "data.none", "data.l"] {
        assert!(said(source).unwrap_err().contains("neither a text nor a whole number"), "{source}");
    }
}

#[test]
fn a_body_that_is_no_object_is_told_as_one_without_the_field() {
    for data in [json!(null), json!(1), json!("x")] {
        let Verdict::Error(said) = eval("data.action == 'x'", &data) else { panic!("{data}") };
        assert!(said.contains("no object") && !said.contains("overload"), "{data}: {said}");
        assert_eq!(eval("type(data) == map && data.action == 'x'", &data), Verdict::Reject, "{data}: the advice");
    }
}

#[test]
fn a_fault_says_what_and_where() {
    for (source, at, says) in [
        ("event.type == 'x' &&\n  body.a == 1", Some((2, 3)), "no variable `body`"),
        ("event.kind == 'x'", Some((1, 6)), "no `kind`"),
        ("data.s.lowerAscii() == 'x'", Some((1, 18)), "no function `lowerAscii`"),
        ("fetch('x')", Some((1, 6)), "no function `fetch`"),
        ("headers['X-Event'] == 'a'", Some((1, 8)), "headers[\"x-event\"]"),
        ("data.a ==", Some((1, 10)), "not a CEL expression"),
        ("data.s.matches(data.p)", Some((1, 15)), "must be a text in quotes"),
        ("data.s.matches('(')", None, "pattern"),
        (".data.x == 1", None, "no variable `.data`"),
        ("Thing{a: 1} == 1", None, "message types"),
        ("", None, "empty"),
        ("data.a.?b == 1", None, "not a CEL expression"),
    ] {
        let fault = Filter::compile(source).expect_err(source);
        assert!(fault.message.contains(says), "{source}: {fault}");
        assert!(at.is_none() || fault.at == at, "{source}: {:?}", fault.at);
    }
    assert!(Filter::compile(&format!("data.a == '{}'", "x".repeat(5000))).is_err());
}

#[test]
fn the_paths_are_what_the_expression_reads() {
    assert_eq!(paths("event.type == 'x' && data.a.b in ['c']"), ["a/b"]);
    assert_eq!(paths("has(data.a.b) || data['c'].d[0].e == 1"), ["a/b", "c/d/0/e"]);
    assert_eq!(paths("data.l.exists(x, x.n == data.m)"), ["l", "m"]);
    assert_eq!(paths("data.l.exists(data, data.n == 1)"), ["l"]);
    assert_eq!(paths("data.a[data.k] == 1"), ["a", "k"]);
    assert_eq!(paths("data.s.startsWith('x')"), ["s"]);
    assert_eq!(paths("size(data) == 1 && data.a == 1"), [""]);
    assert_eq!(paths("event.type == 'x'"), Vec::<String>::new());
}

#[test]
fn a_loop_that_costs_too_much_stops_itself() {
    let list: Vec<_> = (0..3000).collect();
    let data = json!({"l": list, "b": list.iter().map(|n| n + 5000).collect::<Vec<_>>()});
    // Each would be millions of steps or more; that it says so is the proof that it was stopped, however slow the machine is.
    for source in [
        "data.l.map(a, data.l.map(b, data.l.filter(c, c > 1))).size() > 0",
        "data.l.exists(a, data.l.exists(b, data.l.exists(c, c + b + a == -1)))",
        "data.l.all(a, data.l.all(b, a + b >= 0))",
        "data.l.exists_one(a, data.l.exists_one(b, b == -1))",
        "data.l.filter(a, data.l.filter(b, b == a).size() == 7).size() == 1",
        "data.l.exists(a, data.l.exists(b, a in data.b))",
    ] {
        let Verdict::Error(text) = eval(source, &data) else { panic!("{source} ended") };
        assert!(text.contains("steps"), "{source}: {text}");
    }
    assert_eq!(eval("data.l.exists(a, a == 2999) && data.l.all(a, a < 3000)", &data), Verdict::Pass);
    assert_eq!(eval("data.l.map(a, a * 2).filter(a, a > 10).size() == 2994", &data), Verdict::Pass);
}

/// What `source` made of `data`, in bytes, and what it said.
fn weighed(source: &str, data: &Value) -> (u64, Verdict) {
    let filter = Filter::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    let (before, budget) = (filter.budget().bytes_left(), filter.budget());
    let verdict = filter.eval_within(&Scope { event: facts(), data, headers: &[], query: &[] }, &budget);
    (before - budget.bytes_left(), verdict)
}

#[test]
fn what_grows_pays_for_its_bytes_and_too_much_of_it_ends_the_evaluation() {
    let text = "a".repeat(300_000);
    let list: Vec<u32> = (0..60_000).collect();
    let data = json!({"t": text, "l": list, "deep": [[list]], "o": {"k": text}});
    let many = |part: &str| vec![part; 500].join(",");
    for source in [
        // The first is an attacker's: 2 GB within the second that a loop has.
        "data.l.map(x, data.t + data.t).size() > 0",
        "data.l.exists(x, (data.t + data.t).size() == 1)",
        "data.l.all(x, bytes(data.t).size() > 1)",
        "data.l.all(x, string(bytes(data.t)).size() > 1)",
        "data.l.filter(x, (bytes(data.t) + bytes(data.t)).size() > 0).size() > 0",
        "data.l.map(x, data.l).size() > 0",
        "data.l.map(x, data.l + data.l).size() > 0",
        "data.l.map(x, {'a': data.l}).size() > 0",
        "data.l.map(x, {data.t + 'a': 1}).size() > 0",
        "data.l.map(x, [x, [data.o, data.l]]).size() > 0",
        "data.l.map(x, x > 1, data.t + 'a').size() > 0",
        "data.l.all(x, dyn(data.l).size() > 1)",
        &format!("[{}].size() > 0", many("data.l")),
        &format!("{{'a': [{}]}}.size() > 0", many("data.l")),
    ] {
        let (bytes, Verdict::Error(said)) = weighed(source, &data) else { panic!("{source} ended") };
        assert!(said.contains("64 MiB") && bytes == weight::BYTES_MAX, "{source}: {bytes}: {said}");
    }
    // Loops within loops hold copies of what they are at.
    let (bytes, said) = weighed("data.deep.all(a, a.all(b, b.all(c, data.l.all(d, [b, b].size() == 2))))", &data);
    assert!(matches!(said, Verdict::Error(_)) && bytes == weight::BYTES_MAX / 4, "{bytes}: {said:?}");
}

#[test]
fn what_is_only_looked_at_pays_little() {
    let files: Vec<_> = (0..300).map(|n| json!({"name": format!("src/{n}.rs"), "patch": "x".repeat(3000)})).collect();
    let data = json!({"t": "a".repeat(1_000_000), "files": files, "dirs": ["src", "docs"]});
    for (source, most) in [
        ("data.t.size() == 1000000 && data.t.contains('a') && data.t.startsWith('aa')", 0),
        ("data.dirs == ['src', 'docs'] && 'src' in data.dirs", 500_000),
        ("data.files.exists(f, f.name == 'src/299.rs' && f.patch.contains('x'))", 500_000),
        ("data.files.filter(f, f.name.endsWith('.rs')).size() == 300", 1_000_000),
        ("data.files.all(f, data.dirs.exists(d, f.name.startsWith(d + '/')))", 1_000_000),
        ("data.files.map(f, f.name + '!').size() == 300 && data.files[0].name + 'x' == 'src/0.rsx'", 1_000_000),
        ("['a', 'b'] + ['c'] == ['a', 'b', 'c'] && b'a' + b'b' == b'ab' && 1 + 2 == 3 && 1.5 + 1.0 == 2.5", 10_000),
        ("timestamp(event.time) + duration('1s') > timestamp(event.time)", 1000),
    ] {
        let (bytes, verdict) = weighed(source, &data);
        assert_eq!(verdict, Verdict::Pass, "{source}");
        assert!(bytes <= most, "{source}: {bytes}");
    }
    for source in ["data.t + 1 == ''", "data.dirs + data.t == []", "1 + data.dirs == 1", "data.t + b'a' == ''"] {
        assert!(matches!(weighed(source, &data).1, Verdict::Error(_)), "{source}");
    }
}

#[test]
fn a_part_of_an_event_that_is_too_large_to_loop_over_is_an_error_before_it_is_turned() {
    let data = json!({"l": vec![json!({}); 1_500_000], "a": 1});
    let (bytes, said) = weighed("data.l.exists(x, true)", &data);
    assert!(matches!(said, Verdict::Error(said) if said.contains("64 MiB")) && bytes == weight::BYTES_MAX);
    assert_eq!(weighed("data.a == 1", &data).1, Verdict::Pass);
}

#[test]
fn deep_and_long_sources_are_refused_or_evaluated_never_an_abort() {
    let many = |n: usize, part: &str, between: &str| vec![part; n].join(between);
    for source in [
        format!("{}true{}", "(".repeat(24), ")".repeat(24)),
        format!("{}true{}", "(".repeat(25), ")".repeat(25)),
        format!("{}true{}", "(".repeat(2000), ")".repeat(2000)),
        format!("{}true", "!".repeat(4000)),
        format!("{}1 == 1", "-".repeat(4000)),
        format!("{} == 1", many(1900, "1", "+")),
        many(500, "true", "&&"),
        many(500, "true", "||"),
        many(400, "true", "?true:"),
        many(60, "true", "?true:"),
        format!("{} == 1", many(60, "1", "+")),
        format!("{}true{}", "data.l.exists(x,".repeat(20), ")".repeat(20)),
        format!("{}true{}.size() == 1", "data.l.map(x,".repeat(20), ")".repeat(20)),
        format!("{}1{} == 1", "[".repeat(23), "]".repeat(23)),
        format!("data{} == 1", "[0]".repeat(30)),
        format!("data{} == 1", ".a".repeat(1900)),
        format!("data{} == 1", "[0]".repeat(1300)),
        format!("data{}", ".map(x,x)".repeat(400)),
        format!("{}true", "[{(".repeat(1000)),
        "data.l.map(x,".repeat(20),
        format!("\"{}", "\\".repeat(4000)),
    ] {
        if let Ok(filter) = Filter::compile(&source) {
            let data = json!({"a": {"a": 1}, "l": [1]});
            let _ = filter.eval(&Scope { event: facts(), data: &data, headers: &[], query: &[] });
        }
    }
}

#[test]
fn a_list_of_thirty_alternatives_is_no_problem() {
    let source = (0..30).map(|n| format!("data.a == 'x{n}'")).collect::<Vec<_>>().join(" || ");
    assert_eq!(eval(&source, &json!({"a": "x29"})), Verdict::Pass);
}

fn expression() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        Just("data.a"),
        Just("data.b.c"),
        Just("data.l"),
        Just("data['a']"),
        Just("data.l[0]"),
        Just("event.type"),
        Just("event.id"),
        Just("headers.h"),
        Just("1"),
        Just("'x'"),
        Just("true"),
        Just("null"),
        Just("data"),
        Just("[1, 'x']"),
    ]
    .prop_map(str::to_owned);
    atom.prop_recursive(3, 20, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop_oneof![Just("=="), Just("&&"), Just("||"), Just("in"), Just("<"), Just("+"), Just("!=")],
                inner.clone()
            )
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            inner.clone().prop_map(|a| format!("size({a})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("data.l.exists(x, x == {a} || {b})")),
        ]
    })
}

fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(json!(1)),
        Just(json!("x")),
        Just(json!(true)),
        Just(json!(null)),
        Just(json!(1.5)),
        Just(json!([1, "x", {"c": 1}]))
    ];
    (scalar.clone(), scalar.clone(), scalar, any::<bool>()).prop_map(|(a, c, l, full)| {
        if full {
            json!({"a": a, "b": {"c": c}, "l": [l, 2], "other": 1})
        } else {
            json!({"b": c, "l": l, "z": {"a": 1}})
        }
    })
}

/// What cel itself says with the whole event bound as plain variables: the reference for the resolver and the budget.
fn reference(source: &str, scope: &Scope<'_>) -> Option<bool> {
    let program = cel::Program::compile(source).unwrap();
    let mut context = cel::Context::default();
    let pairs = |p: &[(String, String)]| p.iter().cloned().collect::<std::collections::HashMap<String, String>>();
    context.add_variable("data", scope.data.clone()).unwrap();
    context.add_variable("event", json!({"type": scope.event.kind})).unwrap();
    context.add_variable_from_value("headers", pairs(scope.headers));
    match program.execute(&context) {
        Ok(cel::Value::Bool(b)) => Some(b),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn our_evaluation_agrees_with_cels_own_on_the_projected_body(source in expression(), data in document()) {
        // Numbers differ in kind (cel's own conversion makes every positive number a uint), which `+` and type() see.
        prop_assume!(!source.contains('+'));
        let filter = Filter::made(&source, Wanted::Anything).unwrap();
        let body = Body::read(data.to_string().into(), Some("application/json"), &PayloadRule::default()).unwrap();
        let projected = body.project(filter.paths()).unwrap();
        let headers = [("h".to_owned(), "x".to_owned())];
        let scope = Scope { event: facts(), data: &projected, headers: &headers, query: &[] };
        // What is said of its kind before any event came is so.
        let kind = kind::of(&filter.0.expression, &mut Vec::new());
        if matches!(filter.eval(&scope), Verdict::Pass | Verdict::Reject) {
            prop_assert!(matches!(kind, Kind::Truth | Kind::Open), "{} is {:?}", source, kind);
        }
        if filter.eval_text(&scope).is_ok() {
            // A whole number gives its digits.
            let fits = matches!(kind, Kind::Text | Kind::Other("a number") | Kind::NoTruth | Kind::Open);
            prop_assert!(fits, "{} is {:?}", source, kind);
        }
        let expected = match reference(&source, &Scope { data: &data, ..scope }) {
            Some(true) => "pass",
            Some(false) => "reject",
            None => "error",
        };
        let found = match filter.eval(&scope) {
            Verdict::Pass => "pass",
            Verdict::Reject => "reject",
            Verdict::Error(_) => "error",
        };
        prop_assert_eq!(found, expected, "{} over {}", source, data);
    }

    #[test]
    fn no_text_aborts_the_compiler(parts in prop::collection::vec(prop_oneof![
        Just("(".to_owned()), Just(")".to_owned()), Just("[".to_owned()), Just("{".to_owned()), Just("data".to_owned()),
        Just(".map(x,".to_owned()), Just("'".to_owned()), Just("\"\"\"".to_owned()), Just("\\".to_owned()), Just("r'".to_owned()),
        Just("b'\\xff'".to_owned()), Just("?".to_owned()), Just(":".to_owned()), Just("!".to_owned()), Just("-".to_owned()),
        Just("9223372036854775808".to_owned()), Just("has(".to_owned()), Just("1e999".to_owned()), Just("0x".to_owned()), ".{0,3}",
    ], 0..25)) {
        if let Ok(filter) = Filter::compile(&parts.concat()) {
            let data = json!({"a": 1});
            let _ = filter.eval(&Scope { event: facts(), data: &data, headers: &[], query: &[] });
        }
    }
}
