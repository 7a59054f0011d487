//! The rules of templates.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::payload::{Body, PayloadRule};

fn scope<'a>(data: &'a Value, headers: &'a [(String, String)]) -> Scope<'a> {
    Scope {
        event: scope::EventFacts {
            id: Some("d1"),
            source: "github",
            kind: "push",
            subject: None,
            actor: None,
            time: crate::Timestamp::from_secs(0),
            verified: true,
        },
        data,
        headers,
        query: &[],
    }
}

fn key(source: &str, data: &Value) -> Result<String, String> {
    Template::compile(source).unwrap().render_key(&scope(data, &[("x-a".into(), "1".into())]))
}

#[test]
fn a_key_is_made_from_the_event() {
    let data = json!({"repository": {"full_name": "o/r"}, "number": 7});
    assert_eq!(key("{{ data.repository.full_name }}#{{ data.number }}", &data), Ok("o/r#7".into()));
    assert_eq!(key(" {{ event.type }}-{{ headers['x-a'] }} ", &data), Ok("push-1".into()));
}

#[test]
fn a_key_that_is_missing_empty_long_or_has_controls_is_an_error() {
    assert!(key("{{ data.nope }}", &json!({})).is_err());
    assert!(key("{{ data.a.b.c }}", &json!({"a": 1})).is_err());
    assert!(key("{{ data.a }}", &json!({"a": "  "})).is_err());
    assert!(key("{{ data.a }}", &json!({"a": "x".repeat(257)})).is_err());
    assert!(key("{{ data.a }}", &json!({"a": "x".repeat(10_000_000)})).is_err());
    assert!(key("{{ data.a }}", &json!({"a": "x\u{0}y"})).is_err());
}

#[test]
fn what_an_event_says_is_never_read_as_a_template() {
    assert_eq!(key("{{ data.a }}", &json!({"a": "{{ event.type }}"})), Ok("{{ event.type }}".into()));
}

#[test]
fn the_paths_are_what_the_template_reads() {
    let paths = |t: &str| {
        let mut list: Vec<String> = Template::compile(t).unwrap().paths().list().iter().map(|p| p.join(".")).collect();
        list.sort();
        list
    };
    assert_eq!(paths("{{ data.a.b }}{{ data.c }}{{ event.type }}"), ["a.b", "c"]);
    assert_eq!(paths("{% for c in data.commits %}{{ c.id }}{% endfor %}"), ["commits"]);
    // A name that is only known when rendering: the whole body is read.
    let dynamic = Template::compile("{{ data[event.type] }}").unwrap();
    let data = json!({"push": "yes"});
    assert!(dynamic.paths().wants_root());
    assert_eq!(dynamic.render_key(&scope(&data, &[])), Ok("yes".into()));
}

#[test]
fn a_wrong_template_is_refused_with_what_is_wrong() {
    for bad in ["{{ data.", "{{ secrets.x }}", "{{ event.nope }}", "{% include 'x' %}{{ env }}", "{{ 'x' * 9 }}"] {
        assert!(Template::compile(bad).is_err(), "{bad}");
    }
    assert!(Template::compile("a * b {# * #} {{ 'a*b' }}").is_ok());
}

#[test]
fn every_name_that_is_not_there_is_told_at_its_place_before_an_event_comes() {
    let told = |source: &str| {
        let faults = Template::compile(source).unwrap_err();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let source = "a {{ data.x | uper }}\n{% if data.x is unefined %}{% endif %}{{ foo(1) }}\n{{ data.l | map('lowr') | list }}{{ event.typ }} {{ evnt }}";
    assert_eq!(
        told(source),
        "there is no filter `uper`: did you mean `upper`? (line 1, column 15)\n\
         there is no test `unefined`: did you mean `undefined`? (line 2, column 17)\n\
         there is no filter `lowr`: did you mean `lower`? (line 3, column 17)\n\
         there is no function `foo`: templates have none; there are filters, as in `data.x | upper` (line 2, column 42)\n\
         there is no `event.typ`: there are id, source, type, subject, actor, time, verified (line 3, column 37)\n\
         there is no `evnt`: there are event, data, headers, query and payload (line 3, column 53)"
    );
    for unknown in [
        "{{ data.x | nofilter }}",
        "{{ data.x | upper.more }}",
        "{{ data.l | select('odd') }}",
        "{{ data.l | selectattr('a', 'odd') }}",
        "{{ data.l | rejectattr(\"a\", \"odd\") }}",
        "{% if data.a is not divisibleby(3) %}{% endif %}",
        "{%- for x in data.l | sorted -%}{% endfor %}",
    ] {
        assert!(told(unknown).starts_with("there is no "), "{unknown}");
    }
    for known in [
        "{{ data.l | map(attribute='upr') | list }}",
        "{{ data.l | selectattr('odd') | list }}",
        "{{ data.l | map('upper') | select('in', [1]) | list }}",
        "{% if data.a is not defined and data.is == 1 %}{% endif %}{{ data.x is in data.l }}",
        "{{ ' | nofilter' }} | nofilter is odd {# {{ x | nofilter }} #}{% raw %}{{ x | nofilter }}{% endraw %}",
    ] {
        assert!(Template::compile(known).is_ok(), "{known}");
    }
}

#[test]
fn a_template_that_does_not_end_runs_out_of_steps() {
    let t = "{% for a in data.l %}{% for b in data.l %}{% endfor %}{% endfor %}x";
    assert!(key(t, &json!({"l": vec![0; 2000]})).unwrap_err().contains("steps"));
}

#[test]
fn no_text_aborts_the_compiler() {
    for text in ["{{".repeat(5000), "(".repeat(60_000), format!("{{{{ {} }}}}", "[".repeat(30_000))] {
        let _ = Template::compile(&text);
    }
}

fn prompt(source: &str, data: &Value) -> String {
    Template::compile(source)
        .unwrap()
        .render_prompt(&scope(data, &[]), &Fence::new(7), "PAYLOAD\nof the event")
        .unwrap()
}

#[test]
fn a_key_of_null_a_list_or_an_object_is_an_error() {
    let data = json!({"null": null, "l": [1], "o": {}, "n": 7, "t": true});
    for bad in ["{{ data.null }}", "{{ data.l }}", "a{{ data.o }}"] {
        assert!(key(bad, &data).unwrap_err().contains("null"), "{bad}");
    }
    assert_eq!(key("{{ data.n }}-{{ data.t }}-{{ 'x' ~ data.n }}", &data), Ok("7-true-x7".into()));
}

#[test]
fn the_paths_see_through_assignments_calls_and_quoted_names() {
    let paths = |t: &str| {
        let mut list: Vec<String> = Template::compile(t).unwrap().paths().list().iter().map(|p| p.join("/")).collect();
        list.sort();
        list
    };
    assert_eq!(paths("{% set data = data.u %}{{ data.v }}"), ["u", "v"]);
    assert_eq!(paths("{{ data.o.items() | list | length }}{{ data.o.p }}"), ["o"]);
    let picked = "{{ data['a.b'].c }}{{ data.l[0].n }}{{ data.m[-1] }}{{ data.k[data.i] }}";
    assert_eq!(paths(picked), ["a.b/c", "i", "k", "l/0/n", "m"]);
    assert_eq!(paths("{{ 'data.x' }}data.y{# data.z #}{% raw %}{{ data.w * }}{% endraw %}"), Vec::<String>::new());
    assert_eq!(paths("{%- if data.a -%}{%+ endif %}{{- data.b -}}"), ["a", "b"]);
    assert_eq!(paths("{{ payload }}"), Vec::<String>::new());
}

#[test]
fn a_template_cannot_reach_out_or_blow_up() {
    for (source, says) in [
        ("x\n{{ 'x' * 100000000 }}", "multiply"),
        ("{% include 'a' %}", "`include`"),
        ("{% macro a() %}{% endmacro %}", "`macro`"),
        ("{% set x %}{{ data }}{% endset %}", "block form"),
        ("{{ range(5) }}", "`range`"),
        ("{{ namespace(x=1) }}", "`namespace`"),
        ("{{ {'a': 1} }}", "`{`"),
    ] {
        let faults = Template::compile(source).unwrap_err();
        assert!(faults[0].message.contains(says), "{source}: {faults:?}");
    }
    for filter in ["indent(99999999)", "center(99999999)", "format(1)", "tojson(indent=99999999)", "safe"] {
        let template = Template::compile(&format!("{{{{ data.s | {filter} }}}}"));
        assert!(
            template.is_err() || template.is_ok_and(|t| t.render_key(&scope(&json!({"s": "x"}), &[])).is_err()),
            "{filter}"
        );
    }
}

#[test]
fn no_filter_lifts_a_value_over_the_fence() {
    let data = json!({"t": "a\nb", "l": ["a\nb"], "o": {"k": "x".repeat(400)}});
    for source in [
        "{{ data.t }}",
        "{{ data.t ~ '' }}",
        "{{ data.o | tojson }}",
        "{{ data.o }}",
        "{{ data.l | join('\n') }}",
        "{{ ['x' | unfenced, data.t] | join(' ') }}",
        "{{ [payload, data.t] | join(' ') }}",
        "{{ 'x' | unfenced | replace('x', data.t) }}",
        "{{ payload | replace('x', data.t) }}",
        "{{ payload ~ data.t }}",
        "{{ data.t | unfenced | upper }}",
        "{{ data.t | default('x') | string }}",
    ] {
        let text = prompt(source, &data);
        assert!(text.trim().starts_with("<untrusted-0000000000000007>"), "{source}: {text}");
        assert!(text.trim().ends_with("</untrusted-0000000000000007>"), "{source}: {text}");
    }
    assert_eq!(prompt("{{ payload }}", &data), "PAYLOAD\nof the event");
    assert_eq!(prompt("{{ data.t | unfenced }}", &data), "a\nb");
}

#[test]
fn an_error_has_the_operators_words_and_none_of_the_event() {
    let data = json!({"s": "secret-text"});
    for bad in ["{{ data.s.x.y }}", "{{ data.s + 1 }}", "{{ data.s | int }}", "{{ data.s() }}", "{{ data.nope }}"] {
        let error = key(bad, &data).unwrap_err();
        assert!(!error.contains("secret-text") && error.contains("(`"), "{bad}: {error}");
    }
}

fn source() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("{{ data.a }}"),
        Just("{{ data.b.c }}"),
        Just("{{ data['a'] }}"),
        Just("{% for x in data.l %}"),
        Just("{% endfor %}"),
        Just("{{ x }}"),
        Just("{{ data.l[0] }}"),
        Just("{{ data.l | length }}"),
        Just("{% if data.a %}"),
        Just("{% endif %}"),
        Just("{% set data = data.b %}"),
        Just("{% set y = data %}"),
        Just("{{ y.a }}"),
        Just("{{ data.b.items() | list }}"),
        Just("{{ data.b | items | list }}"),
        Just("{{ data.l[data.i] }}"),
        Just("{% with data = data.b %}{{ data.c }}{% endwith %}"),
        Just("{{ data.l | map(attribute='c') | list }}"),
        Just("{% raw %}"),
        Just("{% endraw %}"),
        Just("{{"),
        Just("}}"),
        Just("{%"),
        Just("%}"),
        Just("{#"),
        Just("'"),
        Just("data"),
        Just("."),
        Just("("),
        Just("["),
        Just("ä"),
        Just("-"),
        Just("\\"),
    ];
    prop::collection::vec(part.prop_map(str::to_owned), 0..8).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_projected_body_renders_like_the_whole(source in source()) {
        if let Ok(template) = Template::compile(&source) {
            for data in [
                json!({"a": 1, "b": {"c": "x", "a": 2, "b": {"c": 3}}, "l": [1, {"c": 2}, "x"], "i": 1, "z": 0}),
                json!({"l": {"c": 1}, "a": [1], "z": 0}),
            ] {
                let body = Body::read(data.to_string().into(), Some("application/json"), &PayloadRule::default()).unwrap();
                let part = body.project(template.paths()).unwrap();
                let render = |data| template.render_prompt(&scope(data, &[]), &Fence::new(7), "p");
                prop_assert_eq!(render(&part), render(&data), "{}", source);
            }
        }
    }
}

#[test]
fn no_event_makes_a_filter_take_the_machines_memory() {
    let long = "a".repeat(300_000);
    let data = serde_json::json!({"t": long, "x": "b".repeat(300_000), "l": vec![""; 100_000]});
    for source in [
        "{{ data.t | replace('a', data.x) }}",
        "{{ data.l | join(data.x) | truncate(50) }}",
        "{{ data.l | map('replace', '', data.x) | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('upper') | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('split', '') | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('reverse') | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('trim') | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('capitalize') | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('truncate', 299999) | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('tojson') | list | length }}",
        "{{ data.l | map('default', data.x, true) | map('unfenced') | list | length }}",
        "{{ data.l | map('default', data.x, true) | sum(start='') | length }}",
    ] {
        let template = Template::compile(source).unwrap();
        let fence = Fence::new(1);
        let said = template.render_prompt(&scope(&data, &[]), &fence, "");
        assert!(said.is_err(), "{source}");
    }
}

#[test]
fn a_loop_of_a_template_holds_one_turn_at_a_time() {
    let data = json!({"t": "a".repeat(300), "l": (0..50).collect::<Vec<u32>>()});
    let last = |source: &str| key(source, &data).unwrap().rsplit(',').nth(1).unwrap().to_owned();
    let doubles = "{% set s = 'a' %}{% for i in data.l %}{% set s = s ~ s %}{{ s | length }},{% endfor %}";
    assert_eq!(last(doubles), "2", "what a turn sets ends with it");
    assert_eq!(last("{% for i in data.l %}{% set s = data.t ~ data.t %}{{ s | length }},{% endfor %}"), "600");
}

#[test]
fn the_filters_that_are_counted_do_what_they_did() {
    let data = json!({"t": " aB c ", "n": 7, "l": [1, 2], "o": [{"n": 1}, {"n": 2}]});
    for (source, text) in [
        ("[{{ data.t | upper }}][{{ data.t | lower }}][{{ data.t | trim }}]", "[ AB C ][ ab c ][aB c]"),
        ("{{ data.t | trim | capitalize }} {{ data.t | trim | title }} {{ 'xax' | trim('x') }}", "Ab c Ab C a"),
        ("{{ data.t | trim | split(' ') | join('-') }} {{ 'a b c' | split(' ', 1) | length }}", "aB-c 2"),
        ("{{ data.t | trim | reverse }} {{ data.l | reverse | first }} {{ data.n | string | length }}", "c Ba 2 1"),
        ("{{ data.l | sum }} {{ data.o | sum(attribute='n') }} {{ data.o | sum('n', 4) }}", "3 3 7"),
        ("{{ data.n | upper }} {{ data.l | tojson }} {{ 'a b' | urlencode }}", "7 [1,2] a%20b"),
    ] {
        assert_eq!(key(source, &data).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn what_is_not_closed_is_told_with_what_closes_it() {
    let cases = [
        ("{{ data.x", "`}}`"),
        ("{{ data.x }", "`}}`"),
        ("{{ data.x | upper", "`}}`"),
        ("{% if data.x", "`%}`"),
        ("{% if data.x %}yes", "`{% endif %}`"),
        ("{% for x in data.all %}{{ x }}", "`{% endfor %}`"),
        ("{{ }}", "name a value"),
    ];
    for (source, advice) in cases {
        let faults = Template::compile(source).unwrap_err();
        assert!(faults[0].message.contains(advice), "{source}: {}", faults[0].message);
    }
}
