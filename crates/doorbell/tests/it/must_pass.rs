//! The defects that made other gateways unsafe, one row each, through the real program. [`ROWS`] is the list; each row names the
//! test that says what came and what the answer and the record have to be.
//!
//! Rows that need what is not built: a callback URL given by a request (no request can give one: addresses stand in the
//! configuration; what a sender's message names is a row) and dashboards (there is no page yet; the API is a row).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod agents;
mod doors;
mod requests;

use reqwest::RequestBuilder;
use serde_json::Value;

use crate::world::{Door, HttpAgent, github};

const STRANGERS: &str = "what_strangers_send_is_refused_with_its_cause";
const ONE_WAY: &str = "a_signed_body_is_read_in_one_way_or_not_at_all";
const COPIES: &str = "a_hundred_copies_at_once_are_one_event_and_a_captured_one_with_a_fresh_id_is_none";
const NAT: &str = "forgeries_from_the_sender_s_own_address_lock_nobody_out";
const PROCESS: &str = "a_payload_becomes_no_argument_no_variable_and_no_file";
const OPEN: &str = "nothing_is_open_without_its_key_and_nothing_secret_is_logged";

/// What went wrong, where it did or who guards against it, and the file and the test here that would fail.
const ROWS: [(&str, &str, &str, &str); 28] = [
    ("a body is read before the check", "webhook#756", "requests", STRANGERS),
    (
        "a captured delivery under another type or rule",
        "found by our own attack",
        "requests",
        "a_captured_delivery_runs_once_under_every_type_and_rule",
    ),
    (
        "one request with events without end",
        "found by our own attack",
        "requests",
        "a_batch_of_too_many_events_is_refused_with_the_limit",
    ),
    ("content types confuse parsers", "CVE-2026-21858", "requests", "a_content_type_changes_no_reading"),
    (
        "a missing or empty secret means open",
        "GHSA-xh72",
        "doors",
        "a_source_without_a_check_or_with_an_empty_secret_does_not_start",
    ),
    ("a rotated secret is still valid", "CVE-2026-45005", "doors", "a_secret_that_was_replaced_opens_nothing"),
    ("a signature is there and never computed", "kestra#18286", "requests", STRANGERS),
    ("verification is opt-in", "CVE-2026-54308", "requests", STRANGERS),
    ("an older version of a scheme, without its time", "Hermes", "requests", STRANGERS),
    ("a signature that is not ASCII", "Hermes", "requests", STRANGERS),
    ("a key takes over another's lane", "GHSA-2xcp", "agents", "a_key_of_one_trigger_touches_no_lane_of_another"),
    ("a limit on failures locks out the real sender", "GHSA-6rmx", "doors", NAT),
    ("everybody behind one address shares a limit", "GHSA-6rmx", "doors", NAT),
    ("a replay inside the window", "GHSA-4h79", "requests", COPIES),
    (
        "an address in a message is asked",
        "GHSA-w45g, Convoy#2756",
        "requests",
        "an_address_that_a_message_names_is_not_fetched",
    ),
    ("payload fields become arguments", "Hermes", "agents", PROCESS),
    ("a payload names a program or a file", "named by none", "agents", PROCESS),
    ("an agent reads our environment", "Microsoft", "agents", PROCESS),
    ("a path leaves its directory", "named by none", "doors", "a_path_that_climbs_leads_nowhere"),
    (
        "a template reaches secrets or the environment",
        "named by none",
        "agents",
        "a_template_that_asks_for_secrets_is_refused_or_empty",
    ),
    ("text of a payload is a template", "named by none", "agents", "a_payload_reaches_no_secret_and_no_template"),
    ("a NUL byte, a lone surrogate", "hatchet#2573", "requests", ONE_WAY),
    ("repeated keys between verifier and parser", "named by none", "requests", ONE_WAY),
    ("huge numbers and depth", "named by none", "requests", ONE_WAY),
    ("a secret in a URL is logged", "named by none", "doors", OPEN),
    ("an API or a dashboard without a key", "Inngest", "doors", OPEN),
    ("a name that ends in [bot]", "Flatt", "doors", "an_actor_that_looks_like_ours_is_not_ours"),
    ("copies at the same time", "Convoy#2747", "requests", COPIES),
];

#[test]
fn every_row_has_its_test() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/must_pass");
    for (defect, _, file, test) in ROWS {
        let text = std::fs::read_to_string(dir.join(file).with_extension("rs")).unwrap();
        assert!(text.contains(&format!("async fn {test}()")), "{defect}: there is no test {test} in {file}");
    }
}

fn config(agent: &HttpAgent) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\nconcurrency = 4\nretries = {{ max = 0 }}\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         key = \"{{{{ data.lane }}}}\"\n\
         [triggers.other]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         key = \"{{{{ data.lane }}}}\"\nmax_body = \"1KiB\"\n\
         [triggers.stripe]\nagent = \"worker\"\nprovider = \"stripe\"\nsecret = {{ env = \"TEST_SECRET\" }}\n",
        agent.url()
    )
}

fn delivery(door: &Door, id: &str, body: &str) -> RequestBuilder {
    github(&door.url("/hooks/ring"), &door.http, id, "push", body.as_bytes())
}

async fn said(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// Sets a header of a request that is made already.
fn with(door: &Door, request: RequestBuilder, name: &'static str, value: &[u8]) -> RequestBuilder {
    let mut request = request.build().unwrap();
    request.headers_mut().insert(name, reqwest::header::HeaderValue::from_bytes(value).unwrap());
    RequestBuilder::from_parts(door.http.clone(), request)
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    aws_lc_rs::hmac::sign(&key, text).as_ref().to_vec()
}
