//! `[agents.*]`: the common keys here, the runner's own by `doorbell_agents`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use doorbell_core::Name;
use doorbell_core::agent::Agent;
use doorbell_core::breaker::Settings;
use doorbell_core::retry::Retries;
use serde_json::{Map, Value, json};

use super::dress;
use super::fault::{nearest, suggest};
use super::secrets::{Secrets, for_agents, json_place};
use super::section::At;
use super::server::{above_zero, timeout};
use super::values::{SecretAt, lasting_text};
use super::written::{AgentTable, AgentWritten, BreakerTable, Named, RetriesTable, Written};
use super::{Cx, Purpose};

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
            cx.report.error(at.offset, &key, error.to_string(), "");
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
        (format!("there is no runner `{word:.80}`"), suggest(word, known))
    };
    cx.report.error(runner.offset, &format!("{key}.runner"), problem, advice);
    None
}

fn retries(written: &Option<At<RetriesTable>>, key: &str, cx: &Cx<'_>) -> Retries {
    let default = Retries::default();
    let Some(At { value, offset }) = written else { return default };
    let retries = Retries {
        max: value.max.as_ref().map_or(default.max, |m| m.value),
        backoff: value.backoff.as_ref().map_or(default.backoff, |b| b.value.0),
        max_backoff: value.max_backoff.as_ref().map_or(default.max_backoff, |b| b.value.0),
    };
    if retries.max_backoff < retries.backoff {
        let problem = "max_backoff is shorter than backoff";
        cx.report.error(*offset, &format!("{key}.retries"), problem, "Make max_backoff at least as long.");
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
    for (name, at) in &named.table.own {
        let nested = at.value.as_object().into_iter().flat_map(Map::values);
        let listed = at.value.as_array().into_iter().flatten();
        for value in std::iter::once(&at.value).chain(nested).chain(listed) {
            if let Ok(SecretAt::File(file)) = json_place(value) {
                secrets.note_file(at.offset, &format!("{key}.{name}"), &file);
            }
        }
    }
}

/// Puts a runner's sentence at the key it names.
fn tell(fault: &str, named: &Named<AgentWritten>, key: &str, cx: &Cx<'_>) {
    let word = fault.split('`').nth(1).unwrap_or_default();
    let first = word.split(['.', '[', ' ']).next().unwrap_or_default();
    match named.table.own.get(first) {
        Some(at) => cx.report.error(at.offset, &format!("{key}.{first}"), fault, ""),
        None => cx.report.error(named.name.offset, key, fault, ""),
    }
}

/// Looks for the program of a process agent: now is a better time to hear of a slip than the first event.
fn program(command: Option<&At<Value>>, key: &str, cx: &Cx<'_>) {
    let Some(at) = command else { return };
    let Some(program) = at.value.get(0).or(Some(&at.value)).and_then(Value::as_str).filter(|p| !p.is_empty()) else {
        return;
    };
    if is_there(program, cx) {
        return;
    }
    let (problem, advice) = if program.contains('/') {
        let path = cx.path(program);
        (
            format!("`{}` is not there or may not be executed", path.display()),
            format!("Make it, then: chmod +x {}", path.display()),
        )
    } else {
        (format!("the program `{program:.80}` is not on PATH"), "Install it, or name it with its path.".to_owned())
    };
    let key = format!("{key}.command");
    match cx.purpose {
        Purpose::Check => cx.report.error(at.offset, &key, problem, advice),
        Purpose::Serve => cx.report.warning(at.offset, &key, problem, advice),
    }
}

/// Warns of variables that the agent is to be given and that are not there: most often a key of its model, without which
/// every run fails.
fn variables(env: Option<&At<Value>>, key: &str, cx: &Cx<'_>) {
    let Some(at) = env else { return };
    let names = at.value.as_array().into_iter().flatten().filter_map(Value::as_str);
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

fn is_there(program: &str, cx: &Cx<'_>) -> bool {
    if program.contains('/') {
        return cx.world.files.is_program(&cx.path(program));
    }
    let path = cx.world.env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    std::env::split_paths(&path).map(|dir: PathBuf| dir.join(Path::new(program))).any(|p| cx.world.files.is_program(&p))
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

/// `there is no agent …`, with the nearest there is.
pub(super) fn unknown(what: &str, word: &str, known: &[&str]) -> (String, String) {
    let advice = match nearest(word, known.iter().copied()) {
        Some(near) => format!("Did you mean `{near}`?"),
        None if known.is_empty() => format!("Add a table [{what}s.{word}]."),
        None => format!("Add a table [{what}s.{word}], or use one of: {}.", known.join(", ")),
    };
    (format!("there is no {what} `{word:.80}`"), advice)
}
