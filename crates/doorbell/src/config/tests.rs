//! A table of wrong files with what is said about them (`wrong/*.toml`, snapshots beside), and rules on right ones.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use doorbell_core::ports::{Fetch, FetchError, FetchLimits};
use doorbell_core::source::{DedupRule, Respond, SecretPlace};
use doorbell_core::trigger::WhenFull;
use doorbell_core::{Clock, Timestamp};
use proptest::prelude::*;

use super::*;

struct NoFetch;

#[async_trait]
impl Fetch for NoFetch {
    async fn fetch(&self, _: http::Request<Bytes>, _: FetchLimits) -> Result<http::Response<Bytes>, FetchError> {
        Err(FetchError::Refused("not in this test".into()))
    }

    fn reaching(&self, _: &[ipnet::IpNet]) -> Option<Arc<dyn Fetch>> {
        Some(Arc::new(Self))
    }
}

/// A disk with a few files: text and mode.
#[derive(Default)]
struct FakeDisk(BTreeMap<PathBuf, (String, u32)>);

impl Files for FakeDisk {
    fn secret(&self, path: &Path) -> io::Result<SecretFile> {
        let found = self.0.get(path).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))?;
        Ok(SecretFile { text: found.0.clone(), mode: Some(found.1) })
    }
    fn is_program(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|f| f.1 & 0o111 != 0)
    }
    fn interpreter(&self, path: &Path) -> Option<String> {
        self.0.get(path).and_then(|f| super::world::interpreter(f.0.as_bytes()))
    }
    fn is_directory(&self, path: &Path) -> bool {
        self.0.keys().any(|file| file.parent() == Some(path))
    }
}

fn world(env: &[(&str, &str)]) -> World {
    let mut vars: BTreeMap<OsString, OsString> = env.iter().map(|(k, v)| (k.into(), v.into())).collect();
    let master = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (name, value) in [
        ("PATH", "/bin"),
        ("HOOK", "s3cret-hunter2-hunter2"),
        ("OLD_HOOK", "0ld-hunter2-hunter2-hunter2"),
        ("MASTER", master),
    ] {
        vars.entry(name.into()).or_insert_with(|| value.into());
    }
    let file = |text: &str, mode| (text.to_owned(), mode);
    let disk = FakeDisk(BTreeMap::from([
        (PathBuf::from("/bin/cat"), file("", 0o755)),
        (PathBuf::from("/etc/door/review.sh"), file("", 0o755)),
        (PathBuf::from("/etc/door/plain.sh"), file("", 0o644)),
        (PathBuf::from("/etc/door/cat.sh"), file("#! /bin/cat -u\n", 0o755)),
        (PathBuf::from("/etc/door/fish.sh"), file("#!/bin/fish\n", 0o755)),
        (PathBuf::from("/etc/door/dos.sh"), file("#!/bin/cat\r\n", 0o755)),
        (PathBuf::from("/etc/door/hook.secret"), file("file-hunter2\n", 0o600)),
        (PathBuf::from("/etc/door/open.secret"), file("open-hunter2\n", 0o644)),
        (PathBuf::from("/etc/door/empty.secret"), file("\n", 0o600)),
    ]));
    World {
        env: Arc::new(vars),
        files: Arc::new(disk),
        fetch: Arc::new(NoFetch),
        clock: Clock::by_hand(Timestamp::from_secs(1_760_000_000)),
    }
}

fn input(text: &str) -> Input<'_> {
    Input { text, file: "doorbell.toml", base: Path::new("/etc/door"), purpose: Purpose::Check }
}

fn good(text: &str) -> Resolved {
    resolve(input(text), &world(&[])).unwrap_or_else(|faults| panic!("{}", told(&faults)))
}

fn told(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

const AGENT: &str = "[agents.a]\nrunner = \"process\"\ncommand = [\"cat\"]\n";

#[test]
fn every_wrong_file_is_told_all_its_faults_at_once() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/wrong");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(files.len() >= 8, "the table has shrunk: {files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let faults = resolve(input(&text), &world(&[])).expect_err(&file.display().to_string());
        let all = told(&faults);
        assert!(!all.contains("hunter2"), "a secret is told in {}: {all}", file.display());
        assert!(faults.iter().any(|f| f.severity == Severity::Error));
        insta::with_settings!({snapshot_path => "wrong", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(file.file_stem().unwrap().to_str().unwrap(), all);
        });
    }
}

/// A good file in which every key of the contracts, of client certificates and the like is set.
const FULL: &str = include_str!("full.toml.txt");

#[test]
fn a_wrong_value_and_a_misspelt_key_are_told_once_and_where_they_stand() {
    let world = world(&[
        ("GITHUB_WEBHOOK_SECRET", "one-secret-of-32-letters"),
        ("STRIPE_WEBHOOK_SECRET", "two-secret-of-32-letters"),
        ("ANTHROPIC_API_KEY", "key"),
    ]);
    let mut strange = Vec::new();
    for text in [include_str!("whole.toml.txt"), FULL] {
        if let Err(faults) = resolve(input(text), &world) {
            panic!("{}", told(&faults));
        }
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let plain = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| plain(key)) else { continue };
            // No key of the file takes a date; some tables take any key.
            let is_free = key == "team";
            let misspelt = (!is_free).then(|| format!("{key}x = {value}"));
            for wrong in misspelt.into_iter().chain([format!("{key} = 1979-05-27")]) {
                let mut lines = lines.clone();
                lines[at] = &wrong;
                let changed = lines.join("\n");
                let faults = resolve(input(&changed), &world).err().unwrap_or_default();
                let errors: Vec<Fault> = faults.into_iter().filter(|f| f.severity == Severity::Error).collect();
                if errors.iter().map(|f| f.line).ne([at + 1]) {
                    strange.push(format!("line {}: {wrong}\n{}\n", at + 1, told(&errors)));
                }
            }
        }
    }
    assert!(strange.is_empty(), "{}", strange.join("\n"));
}

#[test]
fn the_file_of_the_documentation_is_taken_whole() {
    let text = include_str!("whole.toml.txt");
    let env = [
        ("ANTHROPIC_API_KEY", "key"),
        ("GITHUB_WEBHOOK_SECRET", "one-secret-of-32-letters"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_two-of-32-letters"),
    ];
    let resolved = resolve(input(text), &world(&env)).unwrap_or_else(|f| panic!("{}", told(&f)));
    assert_eq!(told(&resolved.warnings), "");
    assert_eq!(resolved.server.data_dir, Path::new("/etc/door/doorbell-data"));
    assert_eq!(resolved.store, StoreAt::Sqlite("/etc/door/doorbell-data/doorbell.db".into()));
    assert_eq!(resolved.server.public_url.as_deref(), Some("https://door.example.com"));
    let catalog = resolved.into_catalog();
    let agent = &catalog.agents["reviewer"];
    assert_eq!((agent.concurrency, agent.time_limit, agent.retries.max), (4, Duration::from_secs(600), 3));
    let github = catalog.source_at("/hooks/github").unwrap();
    let webhook = github.webhook().unwrap();
    assert_eq!(webhook.preset.id, "github");
    assert_eq!(webhook.max_body, 25 << 20);
    assert_eq!(webhook.public_url.as_deref(), Some("https://door.example.com/hooks/github"));
    assert_eq!(webhook.limits.source.as_ref().unwrap().quota().as_str(), "6000/min");
    assert_eq!(github.triggers.len(), 1);
    assert_eq!(catalog.source_at("/hooks/simple").unwrap().triggers[0].name.as_str(), "simple");
    assert_eq!(catalog.triggers["github-prs"].max_concurrent, Some(10));
    assert_eq!(catalog.retention.dedup, Duration::from_secs(90 * 86_400));
}

#[test]
fn an_empty_file_is_a_door_with_nothing_behind_it() {
    let resolved = good("");
    assert_eq!(resolved.server.listen.to_string(), "127.0.0.1:8080");
    assert!(resolved.agents.is_empty() && resolved.sources.is_empty());
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\n";
    let env = [
        ("DOORBELL_LISTEN", "0.0.0.0:99"),
        ("DOORBELL_PUBLIC_URL", "http://x.example/"),
        ("DOORBELL_DATA_DIR", "/var/door"),
        ("DOORBELL_ADMIN_TOKEN", "a-long-enough-token"),
    ];
    let server = resolve(input(text), &world(&env)).unwrap().server;
    assert_eq!(server.listen.to_string(), "0.0.0.0:99");
    assert_eq!(server.public_url.as_deref(), Some("http://x.example"));
    assert_eq!(server.data_dir, Path::new("/var/door"));
    assert_eq!(server.admin_token.unwrap().expose(), "a-long-enough-token");
}

#[test]
fn a_missing_variable_of_the_listen_address_is_not_taken_for_an_empty_one() {
    let faults = resolve(input(""), &world(&[("DOORBELL_LISTEN", "8080")])).unwrap_err();
    let told = told(&faults);
    assert!(told.starts_with("environment variable DOORBELL_LISTEN: error: `8080` is not an address"), "{told}");
}

#[test]
fn a_secret_comes_from_the_environment_or_a_file_and_several_stand_for_a_rotation() {
    let text = format!(
        "{AGENT}[triggers.t]\nagent = \"a\"\nprovider = \"github\"\nsecret = [{{ file = \"hook.secret\" }}, {{ env = \"HOOK\" }}]\n"
    );
    let resolved = good(&text);
    assert_eq!(resolved.reads, [PathBuf::from("/etc/door/hook.secret")]);
    let sender = resolved.senders.values().next().unwrap();
    let Some(SecretPlace::Given(secret)) = &sender.secret else { panic!("{sender:?}") };
    assert_eq!(secret.expose(), "file-hunter2");
    assert_eq!(sender.triggers[0].as_str(), "t");
}

#[test]
fn a_secret_file_that_others_can_read_is_warned_of() {
    let text =
        format!("{AGENT}[triggers.t]\nagent = \"a\"\nprovider = \"github\"\nsecret = {{ file = \"open.secret\" }}\n");
    let warnings = told(&good(&text).warnings);
    assert!(warnings.contains("chmod 600 /etc/door/open.secret"), "{warnings}");
}

#[test]
fn a_secret_that_a_person_chose_too_short_is_warned_of() {
    let warned = |rule: &str, secret: &str| {
        let text =
            format!("{AGENT}[triggers.t]\nagent = \"a\"\n{rule}\nsecret = [{{ env = \"LONG\" }}, {{ env = \"X\" }}]\n");
        let env = [("X", secret), ("LONG", "someone:a-long-enough-secret")];
        let resolved = resolve(input(&text), &world(&env)).unwrap_or_else(|f| panic!("{}", told(&f)));
        told(&resolved.warnings).contains("a secret is shorter than 16 bytes, so it may be guessed")
    };
    for rule in ["provider = \"github\"", "auth = \"hmac\"", "auth = \"bearer\"", "provider = \"gitlab\""] {
        assert!(warned(rule, "fifteen-bytes-x"), "{rule}");
        assert!(!warned(rule, "sixteen-bytes-xy"), "{rule}");
    }
    assert!(warned("auth = \"basic\"", "a-long-enough-name:short"));
}

#[test]
fn a_variable_that_an_agent_is_to_see_and_that_is_not_set_is_warned_of() {
    let text =
        "[agents.a]\nrunner = \"process\"\ncommand = [\"cat\"]\nenv = [\"PATH\", \"MODEL_KEY\", \"HOOK\", \"OTHER\"]\n";
    let warnings = told(&good(text).warnings);
    assert!(
        warnings.starts_with("doorbell.toml:4:7: warning: agents.a.env: `MODEL_KEY`, `OTHER` are not set here"),
        "{warnings}"
    );
    let whole = resolve(input(text), &world(&[("MODEL_KEY", ""), ("OTHER", "x")])).unwrap();
    assert_eq!(told(&whole.warnings), "");
}

#[test]
fn no_check_at_all_has_to_be_asked_for_by_name_and_is_warned_of() {
    let open = format!("{AGENT}[triggers.t]\nagent = \"a\"\npath = \"/hooks/t\"\n");
    assert!(told(&resolve(input(&open), &world(&[])).unwrap_err()).contains("nothing says how the sender is verified"));
    let named = format!("{open}auth = \"none\"\n");
    assert!(told(&good(&named).warnings).contains("takes events from anybody"));
}

#[test]
fn a_program_that_is_missing_is_an_error_to_check_and_a_warning_to_serve() {
    let text = "[agents.a]\nrunner = \"process\"\ncommand = [\"no-such-program\"]\n";
    assert!(resolve(input(text), &world(&[])).is_err());
    let served = resolve(Input { purpose: Purpose::Serve, ..input(text) }, &world(&[])).unwrap();
    assert!(told(&served.warnings).contains("`no-such-program` is not on PATH"));
}

#[test]
fn general_methods_take_their_own_header_prefix_encoding_and_hash() {
    let text = format!(
        "{AGENT}[triggers.t]\nagent = \"a\"\nauth = \"hmac\"\nheader = \"x-sig\"\nprefix = \"v1=\"\nencoding = \"base64\"\n\
         hash = \"sha512\"\nsecret = {{ env = \"HOOK\" }}\n"
    );
    let resolved = good(&text);
    let preset = &resolved.senders.values().next().unwrap().preset;
    let signed = preset.scheme.signed().unwrap();
    assert_eq!(signed.prefix, "v1=");
    assert_eq!(preset.credentials(), [doorbell_core::provider::Place::parse("header:x-sig").unwrap()]);
}

#[test]
fn a_provider_of_ones_own_stands_in_the_file() {
    let text = format!(
        "{AGENT}[triggers.t]\nagent = \"a\"\nsource = \"mine\"\n[sources.mine]\nsecret = {{ env = \"HOOK\" }}\n\
         [sources.mine.custom.verify]\nscheme = \"hmac\"\nhash = \"sha256\"\nsecret = \"raw\"\nsignature = \"header:x-mine\"\n\
         encoding = \"hex\"\nsigned = \"{{body}}\"\n[sources.mine.custom.event]\ntype = [\"body:kind\"]\n"
    );
    let resolved = good(&text);
    assert_eq!(resolved.senders.values().next().unwrap().preset.id, "mine");
}

#[test]
fn dedup_and_respond_are_words_or_an_expression() {
    let with = |lines: &str| {
        let text = format!(
            "{AGENT}[triggers.t]\nagent = \"a\"\nprovider = \"github\"\nsecret = {{ env = \"HOOK\" }}\n{lines}\n"
        );
        good(&text).sources.into_iter().next().unwrap()
    };
    assert!(matches!(with("").dedup, DedupRule::Auto));
    assert!(matches!(with("dedup = \"body\"").dedup, DedupRule::Body));
    assert!(matches!(with("dedup = \"data.id\"").dedup, DedupRule::Expression(_)));
    let source = with("respond = \"result\"\nrespond_timeout = \"3s\"");
    assert_eq!(source.webhook().unwrap().respond, Respond::Result(Duration::from_secs(3)));
}

#[test]
fn a_sender_that_retries_for_longer_than_dedup_keys_are_kept_is_warned_of() {
    let text = format!(
        "{AGENT}[triggers.t]\nagent = \"a\"\nprovider = \"github\"\nsecret = {{ env = \"HOOK\" }}\n\
         [retention]\nevents = \"1h\"\ndedup = \"1h\"\n"
    );
    let warnings = told(&good(&text).warnings);
    assert!(warnings.contains("GitHub may send an event again for 3d"), "{warnings}");
}

#[test]
fn the_paths_that_filters_and_keys_read_are_the_sources() {
    let text = format!(
        "{AGENT}[triggers.t]\nagent = \"a\"\nprovider = \"stripe\"\nsecret = {{ env = \"HOOK\" }}\nfilter = 'data.deep.down == 1'\n\
         key = \"{{{{ data.customer }}}}\"\n"
    );
    let resolved = good(&text);
    let paths = resolved.sources[0].paths.list();
    for wanted in [vec!["deep", "down"], vec!["customer"], vec!["id"]] {
        assert!(paths.iter().any(|p| *p == wanted), "{wanted:?} is not in {paths:?}");
    }
}

#[test]
fn the_api_is_shown_no_secret_and_no_header_value() {
    let text = "[agents.a]\nrunner = \"http\"\nurl = \"http://127.0.0.1:9/\"\nheaders = { x-team = \"hunter2\" }\nsecret = { env = \"HOOK\" }\n";
    let resolved = good(text);
    assert!(!resolved.agents[0].shown.to_string().contains("hunter2"), "{}", resolved.agents[0].shown);
}

#[test]
fn an_agent_that_aether_serves_has_a_breaker_and_its_trigger_rejects_and_waits() {
    let file = |serve: &str| format!("{AGENT}[triggers.t]\nagent = \"a\"\nauth = \"none\"\n{serve}");
    let made = |serve: &str| {
        let resolved = good(&file(serve));
        let agent = resolved.agents[0].breaker;
        let source = &resolved.sources[0];
        (agent.is_some(), source.triggers[0].when_full, source.webhook().unwrap().respond)
    };
    assert_eq!(made(""), (false, WhenFull::Hold, Respond::Accepted));
    let serve = "[contracts.aether.serve.x]\ntrigger = \"t\"\n";
    assert_eq!(made(serve), (true, WhenFull::Reject, Respond::Result(Duration::from_secs(60))));
    assert_eq!(made(&format!("{serve}pattern = \"github\"\n")), (true, WhenFull::Reject, Respond::Accepted));
    assert_eq!(made(&format!("respond = \"accepted\"\n{serve}")).2, Respond::Accepted);
    assert_eq!(made(&format!("respond_timeout = \"5s\"\n{serve}")).2, Respond::Result(Duration::from_secs(5)));
}

#[test]
fn the_schema_knows_every_key_and_the_documentation_tells_of_each() {
    let keys = schema::keys();
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md")).unwrap();
    // What a trigger may bring for a source of its own is told once, at the sources.
    let own = |key: &str| key.strip_prefix("triggers.*.").is_none_or(|k| written::TriggerTable::KEYS.contains(&k));
    for (key, about) in keys.iter().filter(|(key, _)| own(key)) {
        assert!(about.as_str().is_some_and(|a| !a.is_empty()), "`{key}` has no description");
        assert!(docs.contains(&format!("`{key}`")), "docs/config.md does not tell of `{key}`");
    }
    let told = docs.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
    for key in told.filter(|k| k.contains('.')) {
        assert!(keys.contains_key(key), "docs/config.md tells of `{key}`, which is not there");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\PC|\n){0,200}") {
        let _ = resolve(input(&text), &world(&[]));
    }

    #[test]
    fn no_cut_of_a_good_file_makes_it_panic(at in 0usize..2600) {
        let text = include_str!("whole.toml.txt");
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) { at -= 1; }
        let _ = resolve(input(&text[..at]), &world(&[]));
    }
}
