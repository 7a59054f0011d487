//! The rules of the house that a machine can hold: who may depend on whom, what a file looks like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may use. The compiler enforces the rest.
const CRATES: [(&str, &[&str]); 6] = [
    ("core", &[]),
    ("net", &["core"]),
    ("store", &["core"]),
    ("agents", &["core"]),
    ("server", &["core"]),
    ("doorbell", &["core", "net", "store", "agents", "server"]),
];

/// The modules of core, lowest first: a module uses only those above it in this list.
const CORE: &[&str] = &[
    "spelling",
    "ids",
    "clock",
    "secret",
    "retry",
    "lane",
    "limits",
    "allowed",
    "loop_guard",
    "forward",
    "guard",
    "payload",
    "scope",
    "decision",
    "attempt",
    "excerpt",
    "verdict",
    "run",
    "run_token",
    "breaker",
    "keys",
    "seal",
    "registration",
    "event",
    "lists",
    "ports",
    "vault",
    "filter",
    "fence",
    "template",
    "provider",
    "agent",
    "trigger",
    "source",
    "house",
    "envelope",
    "ingest",
    "replay",
    "worker",
];

/// Lines of a file, without its tests.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for path in entries.flatten().map(|e| e.path()) {
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The text up to the file's own tests.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at])
}

#[test]
fn every_crate_uses_only_the_crates_that_the_plan_allows() {
    let mut wrong = Vec::new();
    for (name, allowed) in CRATES {
        let manifest = std::fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let table: toml::Table = manifest.parse().unwrap();
        let Some(dependencies) = table.get("dependencies").and_then(|d| d.as_table()) else { continue };
        for dependency in dependencies.keys().filter_map(|d| d.strip_prefix("doorbell-")) {
            if !allowed.contains(&dependency) {
                wrong.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_modules_of_core_look_only_down() {
    let place: BTreeMap<&str, usize> = CORE.iter().enumerate().map(|(i, m)| (*m, i)).collect();
    let src = root().join("crates/core/src");
    let mut wrong = Vec::new();
    for file in rust_files(&src) {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" || inside.ends_with("tests.rs") {
            continue;
        }
        let Some(mine) = place.get(module) else {
            wrong.push(format!("{module} has no place in the order of modules"));
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for line in without_tests(&text).lines().filter(|l| !l.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let used: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if place.get(used.as_str()).is_some_and(|theirs| theirs > mine) {
                    wrong.push(format!("{} looks up to {used}: {}", inside.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_at_its_top_what_it_is_and_stays_short() {
    let mut wrong = Vec::new();
    for dir in ["crates", "benches/src"] {
        for file in rust_files(&root().join(dir)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            if !text.starts_with("//!") && !text.starts_with("#![") {
                wrong.push(format!("{name} does not open with //!"));
            }
            let lines = without_tests(&text).lines().count();
            if lines > LINES_MAX && !name.contains("tests") {
                wrong.push(format!("{name} has {lines} lines"));
            }
            let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or("");
            if ["utils", "util", "common", "helpers", "manager", "misc"].contains(&stem) {
                wrong.push(format!("{name}: a name that says nothing"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_left_undone_in_silence() {
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("crates")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (n, line) in text.lines().enumerate() {
            let marks = ["todo!(", "unimplemented!(", "FIX\u{4d}E", "#[ignore]"];
            if marks.iter().any(|mark| line.contains(mark)) && !file.ends_with("tidy.rs") {
                wrong.push(format!("{}:{}: {}", file.display(), n + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
