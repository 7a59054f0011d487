//! What `doorbell check` says of a faulty file and of what lies around it: each fault once, where it stands, with what to do.

use std::path::Path;

use crate::program;

const AGENT: &str = "[agents.helper]\nrunner = \"process\"\ncommand = [\"cat\"]\n";

/// Calls the program; how it ended, and all that it said.
fn said(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    program::said(program::call(dir, &[], args, ""))
}

/// What `check` says of a file.
fn check(dir: &Path, text: &str) -> String {
    std::fs::write(dir.join("doorbell.toml"), text).unwrap();
    said(dir, &["check"]).1
}

/// Writes a certificate with its key.
fn certificate(dir: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec!["door.example".into()]).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), made.cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn a_data_directory_that_cannot_be_one_is_one_fault() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("data"), "a file").unwrap();
    let told = check(home.path(), &format!("[server]\ndata_dir = \"data\"\n{AGENT}"));
    assert!(told.contains("doorbell.toml:2:12: error: server.data_dir:") && told.contains("is a file"), "{told}");
    assert!(
        told.contains("cannot be used: 1 error, 1 warning") && !told.contains("chmod") && !told.contains("master_key"),
        "{told}"
    );
    let told = check(home.path(), &format!("[server]\ndata_dir = \"/proc/doorbell\"\n{AGENT}"));
    // Root may write everywhere by its permissions, and still makes nothing there.
    assert!(told.contains("error: server.data_dir: `/proc") && told.contains("cannot be"), "{told}");
    assert!(told.contains("Name another path") && told.contains("1 error"), "{told}");
    // One that can be made is not made by looking.
    let told = check(home.path(), &format!("[server]\ndata_dir = \"new/data\"\n{AGENT}"));
    assert!(told.contains("doorbell.toml is good") && !home.path().join("new").exists(), "{told}");
}

#[test]
fn faults_of_tls_files_stand_at_their_own_keys_and_say_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    certificate(home.path(), "own");
    certificate(home.path(), "other");
    let tls = |cert: &str, key: &str| {
        check(home.path(), &format!("[server]\n[server.tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n{AGENT}"))
    };
    let told = tls("own.pem", "other.key");
    assert!(told.contains("doorbell.toml:4:7: error: server.tls.key: the key in"), "{told}");
    assert!(told.contains("does not belong to the certificate in") && told.contains("Give the key that"), "{told}");
    let told = tls("own.pem", "own.pem");
    assert!(told.contains("doorbell.toml:4:7: error: server.tls.key:"), "{told}");
    assert!(
        told.contains("holds a certificate and no private key") && told.contains("Give a PEM file with one"),
        "{told}"
    );
    let told = tls("own.key", "own.pem");
    assert!(told.contains("doorbell.toml:3:8: error: server.tls.cert:") && told.contains("2 errors"), "{told}");
    std::fs::write(home.path().join("bad.key"), "nothing").unwrap();
    let told = tls("none.pem", "bad.key");
    assert!(told.contains("server.tls.cert: ") && told.contains("none.pem` cannot be read"), "{told}");
    assert!(told.contains("server.tls.key: ") && told.contains("there is no private key in it"), "{told}");
    assert!(told.contains("2 errors"), "each once: {told}");
}

#[test]
fn each_slip_is_told_with_what_to_write_instead() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("fish.sh");
    std::fs::write(&script, "#!/no/such/fish\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let told = check(
        home.path(),
        r#"
[server]
trusted_proxies = ["10.0.0.0/99"]
[agents.words]
runner = "process"
command = ["sh -c ./a.sh"]
retries = 3
[agents.script]
runner = "process"
command = ["./fish.sh"]
retries = { max = -1 }
[agents.Bad_Name]
runner = "process"
command = ["cat"]
[triggers.hub]
agent = "words"
provider = "github"
secret = { env = "TEST_SECRET" }
key = "{{ data.x"
prompt = "{% for x in data.all %}{{ x }}"
filter = 'event.type == pull_request'
"#,
    );
    for advice in [
        "Write it like \"192.30.252.0/22\"",
        "Each argument is a text of its own: command = [\"sh\", \"-c\", \"./a.sh\"].",
        "Write for example retries = { max = 3",
        "is for `/no/such/fish` (its first line)",
        "Write it without a sign",
        "Use 1 to 63 of a-z",
        "Close it with `}}`.",
        "`{% endfor %}`",
        "a text stands in quotes, `\"pull_request\"`",
    ] {
        assert!(told.contains(advice), "{advice}\n{told}");
    }
    let faults = told.lines().filter(|line| line.contains(": error: ")).count();
    assert_eq!(told.lines().filter(|line| line.starts_with("    ")).count(), faults, "each has its advice: {told}");
}

#[test]
fn a_file_that_is_no_text_is_told_where_it_is_none() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("doorbell.toml"), b"[server]\n# f\xfcr alle\n").unwrap();
    for command in ["check", "serve"] {
        let (code, told) = said(home.path(), &[command]);
        assert!(code == Some(1) && told.contains("line 2 is none from its byte 4 on"), "{told}");
        assert!(told.contains("iconv") && !told.contains("doorbell init"), "{told}");
    }
    std::fs::remove_file(home.path().join("doorbell.toml")).unwrap();
    assert!(said(home.path(), &["check"]).1.contains("doorbell init"));
}

#[test]
fn an_address_of_another_machine_is_told_from_one_that_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let serve = |listen: &str| {
        let text = format!("[server]\nlisten = \"{listen}\"\ndata_dir = \"data\"\n{AGENT}");
        std::fs::write(home.path().join("doorbell.toml"), text).unwrap();
        said(home.path(), &["serve"])
    };
    // Kept for documentation (RFC 5737): nobody has it.
    let (code, told) = serve("192.0.2.1:8080");
    assert!(code == Some(1) && told.contains("no network interface of this machine has that address"), "{told}");
    assert!(!told.contains("another program"), "{told}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, told) = serve(&taken.local_addr().unwrap().to_string());
    assert!(code == Some(1) && told.contains("is another program listening there?"), "{told}");
}
