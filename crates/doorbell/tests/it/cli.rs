//! The command line as people see it. Each `cli/*.txt` is a session: lines with `$ ` are typed into a shell beside a running
//! Doorbell, the lines below are what appears (`! ` before those on standard error, `[exit N]` unless 0).
//!
//! What differs from run to run is written plainly: `run_1` is the first run's id that appeared (and may be typed), `<time>`,
//! `<span>`, `<addr>`, `<dir>`; blanks that only lay columns out are two. `UPDATE=1 cargo test` writes what was seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::world::{Door, SECRET, TOKEN};

const CONFIG: &str = r#"
[server]
listen = "{addr}"
data_dir = "data"

[agents.helper]
runner = "process"
command = ["sh", "agent.sh"]
retries = { max = 0 }

[sources.github]
kind = "webhook"
provider = "github"
secret = { env = "TEST_SECRET" }

[triggers.prs]
source = "github"
agent = "helper"
filter = 'event.type == "pull_request" && data.action == "opened"'
key = "{{ data.repository.full_name }}#{{ data.number }}"

[triggers.stripe]
agent = "helper"
provider = "stripe"
secret = { env = "TEST_SECRET" }
"#;

const AGENT: &str = r#"case $(cat) in
*invoice.payment_failed*) echo "no money" >&2; exit 78 ;;
*) echo "looking" >&2; echo "fine" ;;
esac
"#;

/// Ids and other things that differ from run to run, by their names in a session.
#[derive(Default)]
struct Names {
    ids: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
    plain: Vec<(String, &'static str)>,
}

impl Names {
    /// `text` with every name of an id as the id itself.
    fn real(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest names first, so that `run_1` does not touch `run_12`.
        let mut ids: Vec<_> = self.ids.iter().collect();
        ids.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
        for (id, name) in ids {
            text = text.replace(name.as_str(), id);
        }
        text
    }

    /// A line as it is written in a session.
    fn told(&mut self, line: &str) -> String {
        let mut line = line.to_owned();
        for (seen, name) in &self.plain {
            line = line.replace(seen, name);
        }
        let body = line.trim_start();
        let indent = line[..line.len() - body.len()].to_owned();
        let gaps: Vec<String> =
            body.split("  ").map(str::trim).filter(|part| !part.is_empty()).map(|p| self.part(p)).collect();
        indent + &gaps.join("  ")
    }

    fn part(&mut self, part: &str) -> String {
        part.split(' ').map(|word| self.word(word)).collect::<Vec<_>>().join(" ")
    }

    /// A word, with every id, time and span in it by its name: in JSON they stand between quotes.
    fn word(&mut self, word: &str) -> String {
        let is_text = |c: char| c.is_ascii_alphanumeric() || "_-:.".contains(c);
        let mut told = String::new();
        let mut rest = word;
        while let Some(start) = rest.find(is_text) {
            let length = rest[start..].find(|c| !is_text(c)).unwrap_or(rest.len() - start);
            let (before, token) = (&rest[..start], &rest[start..start + length]);
            let core = token.trim_end_matches(['.', ':']);
            told += before;
            told += &self.token(core);
            told += &token[core.len()..];
            rest = &rest[start + length..];
        }
        told + rest
    }

    fn token(&mut self, token: &str) -> String {
        let is_id = |prefix: &&str| token.starts_with(prefix) && token.len() == 22;
        if let Some(prefix) = ["run_", "evt_", "dec_"].into_iter().find(is_id) {
            self.id(prefix, token)
        } else if doorbell_core::Timestamp::parse(token).is_some() {
            "<time>".to_owned()
        } else if is_span(token) {
            "<span>".to_owned()
        } else {
            token.to_owned()
        }
    }

    fn id(&mut self, prefix: &'static str, id: &str) -> String {
        if let Some(name) = self.ids.get(id) {
            return name.clone();
        }
        let count = self.counts.entry(prefix).or_default();
        *count += 1;
        let name = format!("{prefix}{count}");
        self.ids.insert(id.to_owned(), name.clone());
        name
    }
}

/// `250ms`, `1.2s`, `3m10s`.
fn is_span(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.ends_with(['s', 'm', 'h', 'd'])
        && word.chars().all(|c| c.is_ascii_digit() || "msdh.".contains(c))
}

/// Types one line into a shell and gives what appeared.
fn typed(door: &Door, names: &mut Names, line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_doorbell")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::vars().find(|(k, _)| k == "PATH").unwrap().1);
    let output = Command::new("sh")
        .args(["-c", &names.real(line)])
        .current_dir(door.path())
        .env("PATH", path)
        .env("DOORBELL_ADMIN_TOKEN", TOKEN)
        .env("TEST_SECRET", SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut seen = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        seen.push_str(names.told(line).trim_end());
        seen.push('\n');
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        seen.push_str(format!("! {}", names.told(line)).trim_end());
        seen.push('\n');
    }
    if output.status.code() != Some(0) {
        seen.push_str(&format!("[exit {}]\n", output.status.code().unwrap_or(-1)));
    }
    seen
}

async fn session(name: &str) {
    let mut door = Door::prepare(CONFIG);
    std::fs::write(door.path().join("agent.sh"), AGENT).unwrap();
    door.launch().await;
    let mut names = Names::default();
    names.plain.push((door.path().display().to_string(), "<dir>"));
    names.plain.push((door.addr.to_string(), "<addr>"));
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli").join(name);
    let wanted = std::fs::read_to_string(&file).unwrap();
    let mut seen = String::new();
    for line in wanted.lines() {
        let command = line.strip_prefix("$ ");
        if command.is_none() && !line.starts_with('#') {
            continue;
        }
        // A comment belongs to what follows it; everything else is set apart by an empty line.
        if !seen.is_empty() && !seen.lines().last().is_some_and(|last| last.starts_with('#')) {
            seen.push('\n');
        }
        seen.push_str(&format!("{line}\n"));
        if let Some(command) = command {
            seen.push_str(&typed(&door, &mut names, command));
        }
    }
    if std::env::vars().any(|(k, _)| k == "UPDATE") {
        std::fs::write(&file, &seen).unwrap();
        return;
    }
    if let Some((at, (want, got))) = wanted.lines().zip(seen.lines()).enumerate().find(|(_, (want, got))| want != got) {
        panic!("{name}:{}\n  wanted: {want}\n  seen:   {got}\n\nthe whole session:\n{seen}\n{}", at + 1, door.log());
    }
    assert_eq!(wanted.lines().count(), seen.lines().count(), "{name} as seen:\n{seen}");
}

#[tokio::test]
async fn ringing_and_looking() {
    session("ring.txt").await;
}

#[tokio::test]
async fn refusals_and_exit_codes() {
    session("refusals.txt").await;
}

#[tokio::test]
async fn switches_replays_and_retries() {
    session("verbs.txt").await;
}

#[tokio::test]
async fn backups() {
    session("backup.txt").await;
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
}
