//! The demo is the program's own acceptance test: it checks each outcome itself. Here: that it does so, and leaves nothing.

use std::process::{Command, Output};

fn demo(tmp: &std::path::Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .arg("demo")
        .args(args)
        .env("TMPDIR", tmp)
        // Settings of the person's own Doorbell must not get into it.
        .env("DOORBELL_LISTEN", "203.0.113.1:1")
        .env("DOORBELL_ADMIN_TOKEN", "of-another-doorbell-of-another-doorbell")
        .output()
        .unwrap()
}

#[test]
fn the_demo_ends_as_it_should_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let output = demo(tmp.path(), &["--once"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "GitHub pull request: 202 accepted",
        "Stripe failed payment: 202 accepted",
        "Slack mention: 202 accepted",
        "Standard Webhooks: 202 accepted",
        "GitHub, forged: 401 rejected",
        "GitHub, sent again: 200 duplicate",
        "GitHub, not wanted: 200 ignored",
        "All as it should be.",
    ] {
        assert!(told.contains(line), "`{line}` is missing in:\n{told}");
    }
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "something was left in the temporary directory");
}

#[test]
fn the_demo_fails_where_its_port_is_taken() {
    let tmp = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = demo(tmp.path(), &["--once", "--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&port), "{}", String::from_utf8_lossy(&output.stderr));
}
