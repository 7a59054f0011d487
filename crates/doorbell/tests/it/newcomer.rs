//! What the command line says to somebody who begins: where nothing is there yet, where a part was asked for, and where
//! something was given that cannot be meant. Each text says what is so, and what to do next.

use std::path::Path;

use crate::program;
use crate::world::Door;

const CONFIG: &str = r#"
[server]
listen = "{addr}"
data_dir = "data"

[agents.helper]
runner = "process"
command = ["cat"]

[triggers.asana]
agent = "helper"
provider = "asana"

[triggers.gh]
agent = "helper"
provider = "github"
secret = { stored = "gh" }

[triggers.hub]
agent = "helper"
provider = "github"
secret = { env = "TEST_SECRET" }
filter = "data.nothing.there == 1"
"#;

/// Calls the program with `input` on standard input; how it ended, and all that it said.
fn said(dir: &Path, input: &str, args: &[&str]) -> (Option<i32>, String) {
    program::said(program::call(dir, &[], args, input))
}

#[tokio::test]
async fn nothing_of_what_was_asked_for_is_not_nothing_at_all() {
    let door = Door::start(CONFIG).await;
    let ask = |args: &[&str]| said(door.path(), "", args);
    for noun in ["agents", "triggers", "sources"] {
        assert_eq!(ask(&[noun, "-q", "zz"]), (Some(0), format!("There are no such {noun}.\n")));
    }
    assert_eq!(ask(&["contracts", "-q", "zz"]).1, "No such contract is served.\n");
    assert_eq!(ask(&["secrets", "-q", "zz"]).1, "There are no such stored secrets.\n");
    assert_eq!(ask(&["triggers", "--agent", "nosuch"]).1, "There are no such triggers.\n");
    assert!(ask(&["keys"]).1.contains("doorbell keys create NAME"));
    assert_eq!(ask(&["keys", "--agent", "nosuch"]).1, "There are no such API keys.\n");
}

#[tokio::test]
async fn a_secret_that_is_not_there_yet_is_not_said_to_be_in_the_store() {
    let door = Door::start(CONFIG).await;
    let call = |input: &str, args: &[&str]| said(door.path(), input, args);
    let (code, told) = call("", &["send", "asana"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("has not handed over") && told.contains("doorbell sources pair asana"), "{told}");
    let (_, told) = call("", &["send", "gh"]);
    assert!(told.contains("not there yet") && told.contains("doorbell secrets set gh"), "{told}");
    assert!(call("", &["check"]).1.contains("doorbell secrets set gh"));
    let (code, told) = call("one-line-of-a-secret\nand another line\n", &["secrets", "set", "gh"]);
    assert!(code == Some(2) && told.contains("has 2 lines"), "{told}");
    assert_eq!(call("a-secret-that-is-long-enough\n", &["secrets", "set", "gh"]).0, Some(0));
    // Now it is there, and nobody is told to bring it.
    let (_, told) = call("", &["send", "gh"]);
    assert!(told.contains("is in the server's store") && !told.contains("secrets set"), "{told}");
    let (code, told) = call("", &["check"]);
    assert!(code == Some(0) && !told.contains("secrets set") && told.contains("sources pair asana"), "{told}");
}

#[tokio::test]
async fn a_filter_that_cannot_be_evaluated_names_the_decision_that_says_so() {
    let door = Door::start(CONFIG).await;
    let (code, told) = said(door.path(), "", &["send", "hub"]);
    assert_eq!(code, Some(0), "it was taken: {told}");
    assert!(told.contains("filter_error") && told.contains("Why: doorbell decisions show dec_"), "{told}");
}

#[tokio::test]
async fn a_table_and_the_moves_have_the_first_line_of_a_long_error_and_the_rest_is_not_lost() {
    let config = r#"
[server]
listen = "{addr}"
data_dir = "data"

[agents.helper]
runner = "process"
retries = { max = 1, backoff = "10ms" }
command = ["sh", "-c", 'printf "Traceback:\n  File agent.py, line 7, in main\nKeyError: number\n" >&2; exit 3']

[triggers.hub]
agent = "helper"
provider = "github"
secret = { env = "TEST_SECRET" }
"#;
    let door = Door::start(config).await;
    let ask = |args: &[&str]| said(door.path(), "", args).1;
    let sent = ask(&["send", "hub"]);
    let id = sent
        .split('"')
        .find(|part| part.starts_with("run_") && *part != "run_id")
        .unwrap_or_else(|| panic!("{sent}"))
        .to_owned();
    ask(&["runs", "wait", &id, "--timeout", "60s"]);
    let table = ask(&["runs"]);
    assert!(table.contains("its log ends: Traceback:…") && !table.contains("agent.py"), "{table}");
    let shown = ask(&["runs", "show", &id]);
    let (card, moves) = shown.split_once("Moves").unwrap();
    assert!(moves.contains("Traceback:…") && !moves.contains("agent.py"), "{shown}");
    assert!(card.contains("KeyError: number"), "the whole stands once: {shown}");
    assert!(ask(&["runs", "--json"]).contains("KeyError: number"));
}

#[tokio::test]
async fn refusals_and_keys_speak_of_what_was_typed() {
    let door = Door::start(CONFIG).await;
    let (code, told) = said(door.path(), "", &["keys", "create", "k", "--expires", "0s"]);
    assert!(code == Some(1) && told.contains("`--expires`") && !told.contains("expires_at"), "{told}");
    let (_, told) = said(door.path(), "x", &["secrets", "set", "gh"]);
    assert!(told.contains("doorbell providers NAME") && !told.contains("openssl"), "{told}");
}

#[test]
fn the_next_steps_of_a_sender_that_hands_its_secret_over_say_how_to_pair_it() {
    let home = tempfile::tempdir().unwrap();
    for (id, reveals) in [("asana", false), ("notion", true)] {
        let (code, told) = said(home.path(), "", &["init", id, "--provider", id, "-y"]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains(&format!("doorbell sources pair {id} ")), "{told}");
        assert_eq!(told.contains(&format!("doorbell sources reveal {id} ")), reveals, "{told}");
        assert!(!home.path().join(id).join("secrets").join(id).exists(), "{id}: nobody would take that secret");
        let config = std::fs::read_to_string(home.path().join(id).join("doorbell.toml")).unwrap();
        assert!(!config.contains("\nsecret"), "{config}");
        assert!(!config.contains("repository"), "{config}");
    }
}

#[test]
fn the_next_steps_say_whose_secret_it_is_and_where_it_goes() {
    let home = tempfile::tempdir().unwrap();
    let told = |id: &str| said(home.path(), "", &["init", id, "--provider", id, "-y"]).1;
    let stripe = told("stripe");
    assert!(stripe.contains("\"Signing secret (whsec_…)\": if the sender gives you one"), "{stripe}");
    assert!(told("path-token").contains("/hooks/path-token/<the content of secrets/path-token>"));
    let hub = told("docker-hub");
    assert!(hub.contains("/hooks/docker-hub?key=<the content of secrets/docker-hub>"), "{hub}");
    assert!(!hub.contains("A secret of your own"), "{hub}");
    let hmac = told("hmac");
    assert!(hmac.contains("`x-signature`: lower-case hex of HMAC-SHA256 over the body"), "{hmac}");
    // One column for the commands, however long a name is.
    for text in [&stripe, &hub, &told("standard-webhooks-ed25519")] {
        let commands = text.lines().filter(|line| line.starts_with("  doorbell "));
        let about =
            commands.map(|line| line.trim_end().rfind("   ").unwrap()).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(about.len(), 1, "{text}");
    }
}
