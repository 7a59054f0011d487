//! What is wrong with an agent's table is told at once, all of it.

use doorbell_agents::build;
use serde_json::{Value, json};

use crate::support::context;

fn faults(kind: &str, settings: Value) -> Vec<String> {
    match build(kind, settings.as_object().unwrap(), &context()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_unknown_kind_or_key_is_told_the_nearest() {
    assert_eq!(faults("proces", json!({})), ["runner: there is no runner `proces`. Did you mean `process`?"]);
    assert_eq!(
        faults("process", json!({"command": ["env"], "max_ouput": 1})),
        ["max_ouput: this is not a key of the runner. Did you mean `max_output`?"]
    );
}

#[test]
fn every_fault_is_reported_at_once() {
    let given = json!({
        "command": ["x", 1], "env": ["A=B", "DOORBELL_ADMIN_TOKEN", 3], "set_env": {"X": 7}, "stdin": "xml", "max_output": 0,
        "max_log": "lots", "kill_grace": "soon", "cwd": 1, "colour": "red",
    });
    let mut found = faults("process", given);
    found.sort();
    assert_eq!(
        found,
        [
            "colour: this is not a key of the runner. Known: command, cwd, env, set_env, stdin, max_output, max_log, kill_grace.",
            "command.1: this must be a text in quotes",
            "cwd: this must be a text in quotes",
            "env.0: `A=B` cannot name an environment variable. Take it out.",
            "env.1: Doorbell keeps names such as `DOORBELL_ADMIN_TOKEN` for itself. Use a name that does not begin with DOORBELL_.",
            "env.2: this must be a text in quotes",
            "kill_grace: this must be a duration such as \"500ms\", \"5s\" or \"10m\"",
            "max_log: this must be a size such as \"64 KiB\" or \"1 MiB\", above zero",
            "max_output: this must be a size such as \"64 KiB\" or \"1 MiB\", above zero",
            "set_env.X: this must be a text in quotes, or the place of a secret. Write \"text\", { env = \"NAME\" } or { file = \"path\" }.",
            "stdin: `xml` is not a word for this. Use one of \"json\", \"prompt\", \"data\".",
        ]
    );
}

#[test]
fn a_command_is_a_program_and_its_arguments() {
    let example = "Write for example command = [\"program\", \"argument\"].";
    assert_eq!(faults("process", json!({})), [format!("`command` is missing. {example}")]);
    assert_eq!(
        faults("process", json!({"command": "cat"})),
        [format!("command: this must be a list of texts. {example}")]
    );
    for empty in [json!([]), json!(["", "x"])] {
        let told = format!("command: nothing says which program to start. {example}");
        assert_eq!(faults("process", json!({ "command": empty })), [told]);
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
