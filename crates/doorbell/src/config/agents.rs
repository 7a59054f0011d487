//! `[agents.*]`: the common keys here, the runner's own by `doorbell_agents`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use doorbell_agents::SettingFault;
use doorbell_core::Name;
use doorbell_core::agent::Agent;
use doorbell_core::breaker::Settings;
use doorbell_core::retry::Retries;
use serde_json::{Map, Value, json};

use super::dress;
use super::fault::in_two;
use super::secrets::{Secrets, for_agents, json_place};
use super::section::{At, Json};
use super::server::{above_zero, timeout};
use super::values::{SecretAt, lasting_text};
use super::written::{AgentTable, AgentWritten, BreakerTable, Named, RetriesTable, Written};
use super::{Cx, Purpose};
use doorbell_core::spelling::{hint, nearest};

/// Runners that are planned.
const LATER: &[&str] = &["a2a", "agentex", "llm"];
/// The runner of agents that the embedding program brings.
const NATIVE: &str = "native";
/// Paths in the API and the pages that a name would hide.
const RESERVED: &[&str] = &["doorbell", "new"];

const TIME_LIMIT: Duration = Duration::from_secs(600);
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

/// A name, checked.
pub(super) fn name(at: &At<String>, what: &str, cx: &Cx<'_>) -> Option<Name> {
    let key = format!("{what}s.{}", at.value);
    match Name::new(&at.value) {
        Ok(name) if RESERVED.contains(&name.as_str()) => {
            let problem = format!("`{name}` is reserved");
            cx.report.error(at.offset, &key, problem, format!("Give the {what} another name."));
            None
        }
        Ok(name) => Some(name),
        Err(error) => {
            let (problem, advice) = in_two(&error.to_string());
            cx.report.error(at.offset, &key, problem, advice);
            None
        }
    }
}

pub(super) fn agents(written: &Written, cx: &Cx<'_>, secrets: &Secrets<'_>) -> Vec<Agent> {
    // Every one is looked at, so that all faults are told.
    let all: Vec<Option<Agent>> = written.agents.iter().map(|named| agent(named, written, cx, secrets)).collect();
    all.into_iter().flatten().collect()
}

fn agent(named: &Named<AgentWritten>, written: &Written, cx: &Cx<'_>, secrets: &Secrets<'_>) -> Option<Agent> {
    let Named { name: at, table: AgentWritten { common, own } } = named;
    let key = format!("agents.{}", at.value);
    let name = name(at, "agent", cx);
    let part = |part: &str| format!("{key}.{part}");
    let time_limit = timeout(&common.timeout, &part("timeout"), cx).unwrap_or(TIME_LIMIT);
    let max_age = timeout(&common.max_age, &part("max_age"), cx).unwrap_or(MAX_AGE);
    let concurrency = above_zero(&common.concurrency, &part("concurrency"), cx).unwrap_or(1);
    let retries = retries(&common.retries, &key, cx);
    let breaker = breaker(&common.breaker, &key, cx).or_else(|| dress::breaker(written, &at.value));
    let kind = kind(common, at, &key, cx)?;
    let given: Map<String, Value> = own.iter().map(|(k, at)| ((*k).to_owned(), at.value.clone())).collect();
    note_secret_files(named, &key, secrets);
    let context = doorbell_agents::Context {
        base_dir: cx.base.to_owned(),
        environment: cx.world.env.clone(),
        fetch: cx.world.fetch.clone(),
        clock: cx.world.clock.clone(),
        secret: for_agents(cx.world, cx.base),
    };
    let runner = match cx.natives.get(&at.value).filter(|_| kind == NATIVE) {
        Some(native) => Some(native.clone()),
        None => doorbell_agents::build(&kind, &given, &context)
            .map_err(|faults| faults.iter().for_each(|fault| tell(fault, named, &key, cx)))
            .ok(),
    };
    program(own.get("command").filter(|_| kind == "process"), &key, cx);
    directory(own.get("cwd").filter(|_| kind == "process"), &key, cx);
    variables(own.get("env").filter(|_| kind == "process"), &key, cx);
    Some(Agent {
        name: name?,
        runner: runner?,
        time_limit,
        concurrency,
        paused: common.paused.as_ref().is_some_and(|p| p.value),
        retries,
        max_age,
        breaker,
        shown: shown(&kind, &given, time_limit, concurrency, retries),
        kind,
    })
}

fn kind(common: &AgentTable, at: &At<String>, key: &str, cx: &Cx<'_>) -> Option<String> {
    let known = doorbell_agents::KINDS.iter().map(|k| k.name);
    if let Some(preset) = &common.preset {
        let problem = format!("agent presets such as `{:.80}` come in a later version", preset.value);
        cx.report.error(
            preset.offset,
            &format!("{key}.preset"),
            problem,
            "Use runner = \"process\" with its command until then.",
        );
        return None;
    }
    let Some(runner) = &common.runner else {
        if cx.report.is_told(&format!("{key}.runner")) || cx.report.is_told(&format!("{key}.preset")) {
            return None;
        }
        let problem = "this agent has no runner";
        cx.report.error(
            at.offset,
            key,
            problem,
            "Add runner = \"process\" with a command, or runner = \"http\" with a url.",
        );
        return None;
    };
    let word = runner.value.as_str();
    if known.clone().any(|k| k == word) || (word == NATIVE && cx.natives.contains_key(&at.value)) {
        return Some(word.to_owned());
    }
    let (problem, advice) = if LATER.contains(&word) {
        (
            format!("the runner `{word}` comes in a later version"),
            format!("Built now: {}.", known.collect::<Vec<_>>().join(", ")),
        )
    } else {
        (format!("there is no runner `{word:.80}`"), hint(word, known))
    };
    cx.report.error(runner.offset, &format!("{key}.runner"), problem, advice);
    None
}

fn retries(written: &Option<At<RetriesTable>>, key: &str, cx: &Cx<'_>) -> Retries {
    let default = Retries::default();
    let Some(At { value, .. }) = written else { return default };
    let retries = Retries {
        max: value.max.as_ref().map_or(default.max, |m| m.value),
        backoff: value.backoff.as_ref().map_or(default.backoff, |b| b.value.0),
        max_backoff: value.max_backoff.as_ref().map_or(default.max_backoff, |b| b.value.0),
    };
    let key = format!("{key}.retries");
    let is_told = ["backoff", "max_backoff"].iter().any(|part| cx.report.is_told(&format!("{key}.{part}")));
    if retries.max_backoff < retries.backoff && !is_told {
        let (part, at, is) = match (&value.backoff, &value.max_backoff) {
            (Some(at), None) => ("backoff", at, "longer than `max_backoff`"),
            (_, Some(at)) => ("max_backoff", at, "shorter than `backoff`"),
            (None, None) => return retries,
        };
        let other = if part == "backoff" { retries.max_backoff } else { retries.backoff };
        let problem = format!("this is {is} ({})", lasting_text(other));
        cx.report.error(at.offset, &format!("{key}.{part}"), problem, "Make max_backoff at least as long as backoff.");
    }
    retries
}

fn breaker(written: &Option<At<BreakerTable>>, key: &str, cx: &Cx<'_>) -> Option<Settings> {
    let table = &written.as_ref()?.value;
    let default = Settings::default();
    let part = |part: &str| format!("{key}.breaker.{part}");
    Some(Settings {
        failures: above_zero(&table.failures, &part("failures"), cx).unwrap_or(default.failures),
        reset: timeout(&table.reset, &part("reset"), cx).unwrap_or(default.reset),
    })
}

/// Files of secrets in the runner's own keys: they are watched, and warned of when open to others.
fn note_secret_files(named: &Named<AgentWritten>, key: &str, secrets: &Secrets<'_>) {
    for (name, json) in &named.table.own {
        let nested =
            json.value.as_object().into_iter().flatten().map(|(part, value)| (format!("{name}.{part}"), value));
        let listed = json.value.as_array().into_iter().flatten().enumerate();
        let listed = listed.map(|(part, value)| (format!("{name}.{part}"), value));
        for (at, value) in std::iter::once(((*name).to_owned(), &json.value)).chain(nested).chain(listed) {
            if let Ok(SecretAt::File(file)) = json_place(value) {
                secrets.note_file(json.place(&at), &format!("{key}.{name}"), &file);
            }
        }
    }
}

/// Puts what a runner says of a setting at its place.
fn tell(fault: &SettingFault, named: &Named<AgentWritten>, key: &str, cx: &Cx<'_>) {
    let first = fault.at.split('.').next().unwrap_or_default();
    match named.table.own.get(first) {
        // The place in a list is told by the column.
        Some(json) => {
            let named = fault.at.split('.').take_while(|part| !part.bytes().all(|b| b.is_ascii_digit()));
            let key = format!("{key}.{}", named.collect::<Vec<_>>().join("."));
            cx.report.error(json.place(&fault.at), &key, &fault.problem, &fault.advice);
        }
        None => {
            // What is missing is called by its name, in another spelling it has been told already.
            let missing = fault.problem.split('`').nth(1).unwrap_or_default();
            if !cx.report.is_told(&format!("{key}.{missing}")) {
                cx.report.error(named.name.offset, key, &fault.problem, &fault.advice);
            }
        }
    }
}

/// Looks for the program of a process agent: now is a better time to hear of a slip than the first event.
fn program(command: Option<&Json>, key: &str, cx: &Cx<'_>) {
    let Some(at) = command else { return };
    let Some(program) = at.value.get(0).or(Some(&at.value)).and_then(Value::as_str).filter(|p| !p.is_empty()) else {
        return;
    };
    let Some((problem, advice)) = found(program, cx).map_or_else(|| Some(missing(program, cx)), |at| unread(&at, cx))
    else {
        return;
    };
    let key = format!("{key}.command");
    match cx.purpose {
        Purpose::Check => cx.report.error(at.offset, &key, problem, advice),
        Purpose::Serve => cx.report.warning(at.offset, &key, problem, advice),
    }
}

/// Looks for the directory that a process agent starts in.
fn directory(cwd: Option<&Json>, key: &str, cx: &Cx<'_>) {
    let Some((at, text)) = cwd.and_then(|at| Some((at, at.value.as_str()?))) else { return };
    let path = cx.path(text);
    if cx.world.files.is_directory(&path) {
        return;
    }
    let problem = format!("`{}` is no directory, and the agent is to start in it", path.display());
    let (key, advice) = (format!("{key}.cwd"), "Make it, or name another.");
    match cx.purpose {
        Purpose::Check => cx.report.error(at.offset, &key, problem, advice),
        Purpose::Serve => cx.report.warning(at.offset, &key, problem, advice),
    }
}

/// Warns of variables that the agent is to be given and that are not there: most often a key of its model, without which
/// every run fails.
fn variables(env: Option<&Json>, key: &str, cx: &Cx<'_>) {
    let Some(at) = env else { return };
    let names = at.value.as_array().into_iter().flatten().filter_map(Value::as_str);
    // One that cannot be a name has been told.
    let names = names.filter(|name| !name.is_empty() && !name.contains('=') && !name.starts_with("DOORBELL_"));
    let unset: Vec<String> = names
        .filter(|name| !cx.world.env.contains_key(std::ffi::OsStr::new(name)))
        .map(|name| format!("`{name:.80}`"))
        .collect();
    if unset.is_empty() {
        return;
    }
    let (are, it) = if unset.len() == 1 { ("is", "it") } else { ("are", "them") };
    let problem = format!("{} {are} not set here, so the agent will not see {it}", unset.join(", "));
    let advice = format!("Set {it} where Doorbell is started, or take {it} out of `env`.");
    cx.report.warning(at.offset, &format!("{key}.env"), problem, advice);
}

/// Where a program is.
fn found(program: &str, cx: &Cx<'_>) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| cx.world.files.is_program(path);
    if program.contains('/') {
        return Some(cx.path(program)).filter(is_program);
    }
    let path = cx.world.env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    std::env::split_paths(&path).map(|dir: PathBuf| dir.join(Path::new(program))).find(is_program)
}

fn missing(program: &str, cx: &Cx<'_>) -> (String, String) {
    if program.split_whitespace().nth(1).is_some() {
        let words: Vec<String> = program.split_whitespace().map(|word| format!("{word:?}")).collect();
        let advice = format!("Each argument is a text of its own: command = [{:.200}].", words.join(", "));
        return (format!("there is no program with the whole name `{program:.200}`"), advice);
    }
    if program.contains('/') {
        let path = cx.path(program);
        return (
            format!("`{}` is not there or may not be executed", path.display()),
            format!("Make it, then: chmod +x {}", path.display()),
        );
    }
    (format!("the program `{program:.80}` is not on PATH"), "Install it, or name it with its path.".to_owned())
}

/// A script whose own program is not there: the system says of it that the script is not there.
fn unread(script: &Path, cx: &Cx<'_>) -> Option<(String, String)> {
    let name = cx.world.files.interpreter(script)?;
    let plain = name.trim_end_matches('\r');
    if cx.world.files.is_program(&cx.path(&name)) {
        return None;
    }
    let shown = script.display();
    Some(if plain == name {
        (
            format!("`{shown}` is for `{name:.80}` (its first line), and that is not there or may not be executed"),
            "Install it, or write another program behind `#!`.".to_owned(),
        )
    } else {
        (
            format!("the first line of `{shown}` ends in a carriage return, so `{plain:.80}` is not found"),
            format!("Save it with the line ends of Unix: sed -i 's/\\r$//' {shown}"),
        )
    })
}

/// What the API shows: places of secrets, never secrets, and of headers and variables only the names.
fn shown(kind: &str, own: &Map<String, Value>, time_limit: Duration, concurrency: u32, retries: Retries) -> Value {
    let mut shown = own.clone();
    for key in ["headers", "set_env"] {
        if let Some(values) = shown.get_mut(key).and_then(Value::as_object_mut) {
            values.values_mut().for_each(|value| *value = json!("…"));
        }
    }
    shown.insert("runner".into(), json!(kind));
    shown.insert("timeout".into(), json!(lasting_text(time_limit)));
    shown.insert("concurrency".into(), json!(concurrency));
    shown.insert(
        "retries".into(),
        json!({"max": retries.max, "backoff": lasting_text(retries.backoff), "max_backoff": lasting_text(retries.max_backoff)}),
    );
    Value::Object(shown)
}

/// Tells that there is no agent, source or trigger of this name, with the nearest there is; nothing if the table is there
/// and could not be read.
pub(super) fn tell_unknown(what: &str, at: &At<String>, key: &str, known: &[&str], cx: &Cx<'_>) {
    let word = &at.value;
    if cx.report.is_told(&format!("{what}s")) || cx.report.is_told(&format!("{what}s.{word}")) {
        return;
    }
    let table = Name::new(word).ok().map(|name| format!("Add a table [{what}s.{name}]"));
    let list = (!known.is_empty()).then(|| format!("se one of: {}.", known.join(", ")));
    let advice = match (nearest(word, known.iter().copied()), table, list) {
        (Some(near), _, _) => format!("Did you mean `{near}`?"),
        (None, Some(table), Some(list)) => format!("{table}, or u{list}"),
        (None, Some(table), None) => format!("{table}."),
        (None, None, Some(list)) => format!("U{list}"),
        (None, None, None) => format!("Add a table [{what}s.NAME] and name it here."),
    };
    cx.report.error(at.offset, key, format!("there is no {what} `{word:.80}`"), advice);
}
