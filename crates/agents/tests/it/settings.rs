//! What is wrong with an agent's table is told at once, all of it.

use doorbell_agents::build;
use serde_json::{Value, json};

use crate::support::context;

fn faults(kind: &str, settings: Value) -> Vec<String> {
    match build(kind, settings.as_object().unwrap(), &context()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults,
    }
}

#[test]
fn an_unknown_kind_or_key_is_told_the_nearest() {
    assert_eq!(faults("proces", json!({})), ["there is no runner `proces` (did you mean `process`?)"]);
    assert_eq!(
        faults("process", json!({"command": ["env"], "max_ouput": 1})),
        ["unknown key `max_ouput` (did you mean `max_output`?)"]
    );
}

#[test]
fn every_fault_is_reported_at_once() {
    let given = json!({
        "command": [], "env": ["A=B", "DOORBELL_ADMIN_TOKEN"], "set_env": {"X": 7}, "stdin": "xml", "max_output": 0,
        "max_log": "lots", "kill_grace": "soon", "cwd": 1, "colour": "red",
    });
    let found = faults("process", given);
    for key in [
        "command",
        "A=B",
        "DOORBELL_ADMIN_TOKEN",
        "set_env.X",
        "stdin",
        "max_output",
        "max_log",
        "kill_grace",
        "cwd",
        "colour",
    ] {
        assert!(found.iter().any(|fault| fault.contains(key)), "{key} is not in {found:#?}");
    }
}

#[test]
fn an_http_agent_needs_a_sound_url_and_sound_headers() {
    assert_eq!(faults("http", json!({})).len(), 1);
    for url in ["not a url", "ftp://x/", "file:///etc/passwd", "http://u:pw@x/", "http:///"] {
        let found = faults("http", json!({ "url": url }));
        assert!(found.len() == 1 && !found[0].contains("pw"), "{url}: {found:?}");
    }
    for (name, value) in
        [("host", json!("x")), ("webhook-id", json!("x")), ("a b", json!("x")), ("x", json!("a\nb")), ("x", json!(1))]
    {
        let found = faults("http", json!({"url": "http://x/", "headers": {name: value}}));
        assert_eq!(found.len(), 1, "{name}: {found:?}");
    }
    let secrets = json!({"url": "http://x/", "secret": ["whsec_%", "", 5]});
    assert_eq!(faults("http", secrets).len(), 3);
    assert_eq!(faults("http", json!({"url": "http://10.0.0.1/", "secret": "s"})), Vec::<String>::new());
}
