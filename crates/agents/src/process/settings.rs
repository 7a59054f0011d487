//! The keys of a `process` agent's table, and what they become. Called by the configuration through `build`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use doorbell_core::Secret;
use doorbell_core::excerpt;
use serde_json::{Map, Value};

use super::{Stdin, spawn};
use crate::Context;
use crate::settings::{Reader, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "command",
        about: "the program and its arguments, a list; a relative path with a slash starts at the configuration file, a \
                name without one is looked for in PATH",
    },
    Setting { name: "cwd", about: "the directory it starts in; default: the configuration file's" },
    Setting {
        name: "env",
        about: "names of Doorbell's own environment variables that it gets; all others are cleared",
    },
    Setting { name: "set_env", about: "a table of further environment variables; values are texts or secrets" },
    Setting {
        name: "stdin",
        about: "what it gets: \"json\" (the envelope, default), \"prompt\" or \"data\" (the event's body)",
    },
    Setting { name: "max_output", about: "how much of stdout is kept, default \"1 MiB\"" },
    Setting { name: "max_log", about: "how much of stderr is kept, default \"4 MiB\"" },
    Setting { name: "kill_grace", about: "between SIGTERM and SIGKILL, default \"5s\"" },
];

const MAX_OUTPUT: usize = 1 << 20;
const MAX_LOG: usize = 4 << 20;
const KILL_GRACE: Duration = Duration::from_secs(5);
/// What a `process` agent is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// What it gets of Doorbell's own environment, copied when the settings were read.
    pub environment: BTreeMap<OsString, OsString>,
    /// Further variables; they win.
    pub set_env: BTreeMap<String, Secret>,
    /// Where its program is looked for.
    pub path: Option<OsString>,
    /// What it gets.
    pub stdin: Stdin,
    /// Bytes of stdout that are kept.
    pub max_output: usize,
    /// Bytes of stderr that are kept.
    pub max_log: usize,
    /// Between SIGTERM and SIGKILL.
    pub kill_grace: Duration,
}

impl Settings {
    /// From the keys of an agent's table; reports every fault. Whether the program is there is not asked: see
    /// [`Settings::program`].
    pub fn read(given: &Map<String, Value>, context: &Context) -> Result<Self, Vec<String>> {
        let mut reader = Reader::new(given, SETTINGS, context);
        // The program starts in `cwd`, where a relative path would mean another file.
        let base_dir = std::path::absolute(&context.base_dir).unwrap_or_else(|_| context.base_dir.clone());
        let command = read_command(&mut reader, &base_dir);
        let cwd = reader.text("cwd").map_or_else(|| base_dir.clone(), |cwd| base_dir.join(cwd));
        let environment = read_env(&mut reader, context);
        let set_env = read_set_env(&mut reader);
        let stdin = match reader.text("stdin") {
            None | Some("json") => Stdin::Json,
            Some("prompt") => Stdin::Prompt,
            Some("data") => Stdin::Data,
            Some(other) => {
                reader.fault(format!("`stdin` is `{other}`; it must be \"json\", \"prompt\" or \"data\""));
                Stdin::Json
            }
        };
        let max_output = reader.size("max_output", MAX_OUTPUT);
        let max_log = reader.size("max_log", MAX_LOG);
        let kill_grace = reader.span("kill_grace", KILL_GRACE);
        let path = set_env.get("PATH").map(|p| OsString::from(p.expose()));
        let path = path.or_else(|| context.environment.get(OsStr::new("PATH")).cloned());
        let command = command.filter(|c| !c.is_empty());
        reader.finish(command.map(|command| Self {
            command,
            cwd,
            environment,
            set_env,
            path,
            stdin,
            max_output,
            max_log,
            kill_grace,
        }))
    }

    /// The program's file, or what is wrong with it and what to do. For `doorbell check`; asked anew at each start.
    pub fn program(&self) -> Result<PathBuf, String> {
        spawn::find(Path::new(self.command.first().map_or(OsStr::new(""), OsString::as_os_str)), self.path.as_deref())
    }
}

fn read_command(reader: &mut Reader<'_>, base_dir: &Path) -> Option<Vec<OsString>> {
    if reader.get("command").is_none() {
        reader.fault("`command` is missing: say which program to start, as a list");
    }
    let given = reader.list("command")?;
    if given.first().is_none_or(String::is_empty) {
        reader.fault("`command` is empty: its first item is the program");
    }
    if given.iter().any(|arg| arg.contains('\0')) {
        reader.fault("`command` holds a NUL byte");
    }
    let mut command: Vec<OsString> = given.into_iter().map(OsString::from).collect();
    if let Some(program) = command.first_mut()
        && program.as_encoded_bytes().contains(&b'/')
    {
        *program = base_dir.join(&*program).into_os_string();
    }
    Some(command)
}

fn read_env(reader: &mut Reader<'_>, context: &Context) -> BTreeMap<OsString, OsString> {
    let mut environment = BTreeMap::new();
    for name in reader.list("env").unwrap_or_default() {
        check_name(reader, "env", &name);
        // One that is not set is left out: the same file serves several machines.
        if let Some(value) = context.environment.get(OsStr::new(&name)) {
            environment.insert(OsString::from(name), value.clone());
        }
    }
    environment
}

fn read_set_env(reader: &mut Reader<'_>) -> BTreeMap<String, Secret> {
    let mut variables = BTreeMap::new();
    for (name, value) in reader.table("set_env") {
        check_name(reader, "set_env", name);
        let value = match value {
            Value::String(text) => Some(Secret::new(text.as_str())),
            other => reader.secrets(&format!("set_env.{name}"), other).into_iter().next(),
        };
        match value {
            Some(value) if value.expose().contains('\0') => reader.fault(format!("`set_env.{name}` holds a NUL byte")),
            Some(value) => drop(variables.insert(name.clone(), value)),
            None => {}
        }
    }
    variables
}

fn check_name(reader: &mut Reader<'_>, key: &str, name: &str) {
    if name.is_empty() || name.contains(['=', '\0']) {
        reader.fault(format!("`{key}` has `{}`, which cannot name an environment variable", excerpt::head(name)));
    } else if name.starts_with("DOORBELL_") {
        // The run's own are always set; the server's own (its admin token above all) are nobody's business.
        reader.fault(format!("`{key}` has `{name}`: Doorbell keeps DOORBELL_ names for itself"));
    }
}
