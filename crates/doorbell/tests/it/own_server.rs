//! A command finds the server that runs beside it, by the server's own configuration: also where that serves HTTPS with a
//! certificate that nobody else trusts, and while its file has a fault.

use std::path::Path;

use crate::program;
use crate::world::{Door, eventually};

const AGENT: &str = "[agents.helper]\nrunner = \"process\"\ncommand = [\"cat\"]\n";

/// Writes a certificate for another name than the address, with its key.
fn certificate(dir: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec!["door.example".into()]).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), made.cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
}

/// Calls the program; how it ended, and all that it said.
fn said(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    program::said(program::call(dir, &[], args, ""))
}

/// A door that serves HTTPS, once it answers there.
async fn tls_door() -> Door {
    let config = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\ntls = {{ cert = \"own.pem\", key = \"own.key\" }}\n{AGENT}"
    );
    let mut door = Door::prepare(&config);
    certificate(door.path(), "own");
    door.spawn();
    eventually("the greeting", || async {
        std::fs::read_to_string(door.path().join("banner")).ok().filter(|text| text.contains("listens on"))
    })
    .await;
    door
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_configuration_is_trusted_and_no_other() {
    let door = tls_door().await;
    let (code, told) = said(door.path(), &["agents"]);
    assert!(code == Some(0) && told.contains("helper"), "{told}");
    let (code, told) =
        said(Path::new("/"), &["agents", "-c", &door.path().join("doorbell.toml").display().to_string()]);
    assert!(code == Some(0) && told.contains("helper"), "from elsewhere: {told}");

    // Whoever listens there with another certificate is told nothing.
    certificate(door.path(), "other");
    let config = std::fs::read_to_string(door.path().join("doorbell.toml")).unwrap();
    std::fs::write(door.path().join("other.toml"), config.replace("own.pem", "other.pem")).unwrap();
    let (code, told) = said(door.path(), &["agents", "-c", "other.toml"]);
    assert!(code == Some(3) && told.contains("another certificate than the first in other.pem"), "{told}");
    std::fs::write(door.path().join("none.toml"), config.replace("own.pem", "none.pem")).unwrap();
    let (code, told) = said(door.path(), &["agents", "-c", "none.toml"]);
    assert!(code == Some(1) && told.contains("none.pem cannot be read") && told.contains("tls.cert"), "{told}");

    // An address that was typed is held to the system's roots, and the failure is told as what it is.
    let url = format!("https://{}", door.addr);
    for (code, told) in [
        said(door.path(), &["agents", "--url", &url]),
        program::said(program::call(door.path(), &[("DOORBELL_URL", &url)], &["agents"], "")),
    ] {
        assert_eq!(code, Some(3), "{told}");
        assert!(told.contains("the certificate of https://127.0.0.1"), "{told}");
        assert!(told.contains("doorbell.toml names is trusted") && !told.contains("running"), "{told}");
    }
}

#[tokio::test]
async fn https_where_plain_http_is_spoken_is_told_as_that() {
    let door = Door::start(&format!("[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n{AGENT}")).await;
    let (code, told) = said(door.path(), &["agents", "--url", &format!("https://{}", door.addr)]);
    assert!(code == Some(3) && told.contains("does not speak TLS") && told.contains("http://"), "{told}");
}

#[tokio::test]
async fn a_fault_elsewhere_in_the_file_keeps_nobody_from_looking_at_the_server() {
    let door = Door::start(&format!("[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n{AGENT}")).await;
    let file = door.path().join("doorbell.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}\n[triggers.x]\nagent = \"helper\nprovider = \"github\"\n")).unwrap();
    for verb in [["runs", "list"], ["agents", "list"], ["agents", "show"]] {
        let name = (verb[1] == "show").then_some("helper");
        let args: Vec<&str> = verb.into_iter().chain(name).collect();
        let (code, told) = said(door.path(), &args);
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(told.matches("doorbell.toml:9 has a fault").count(), 1, "{told}");
        assert!(told.contains("`doorbell check` shows every fault"), "{told}");
    }
    let output = program::call(door.path(), &[], &["agents", "--json"], "");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["name"], "helper", "the note is not in the way of a pipe");
    // What the table itself says wrongly is not guessed at.
    std::fs::write(&file, good.replace("data_dir = \"data\"", "data_dir = \"data")).unwrap();
    let (code, told) = said(door.path(), &["runs"]);
    assert!(code == Some(1) && told.contains("is not a configuration"), "{told}");
    std::fs::write(&file, format!("{good}\n[server]\nlisten = \"127.0.0.1:1\"\n")).unwrap();
    let (code, told) = said(door.path(), &["runs"]);
    assert!(code == Some(1) && told.contains("is not a configuration"), "which of the two? {told}");
}

#[test]
fn what_others_read_on_the_way_and_whom_agents_cannot_call_back_is_warned_of() {
    let home = tempfile::tempdir().unwrap();
    certificate(home.path(), "own");
    let check = |server: &str, agent: &str| {
        std::fs::write(home.path().join("doorbell.toml"), format!("[server]\n{server}\n[agents.helper]\n{agent}\n"))
            .unwrap();
        said(home.path(), &["check"])
    };
    let (process, http) =
        ("runner = \"process\"\ncommand = [\"cat\"]", "runner = \"http\"\nurl = \"http://127.0.0.1:9/run\"");
    let tls = "tls = { cert = \"own.pem\", key = \"own.key\" }";
    let clear = "without TLS";
    let (code, told) = check("listen = \"0.0.0.0:8080\"", process);
    assert!(
        code == Some(0) && told.contains("doorbell.toml:2:10: warning: server.listen") && told.contains(clear),
        "{told}"
    );
    for quiet in [
        "listen = \"127.0.0.1:8080\"".to_owned(),
        "listen = \"0.0.0.0:8080\"\ntrusted_proxies = [\"10.0.0.7\"]".to_owned(),
        format!("listen = \"0.0.0.0:8080\"\n{tls}"),
    ] {
        assert!(!check(&quiet, process).1.contains(clear), "{quiet}");
    }
    let (code, told) = check(tls, http);
    assert!(code == Some(0) && told.contains("server.tls: http agents (helper)"), "{told}");
    assert!(told.contains("https://127.0.0.1:8080") && told.contains("public_url"), "{told}");
    assert!(!check(&format!("{tls}\npublic_url = \"https://door.example\""), http).1.contains("http agents"));
    assert!(!check(tls, process).1.contains("http agents"));
}
