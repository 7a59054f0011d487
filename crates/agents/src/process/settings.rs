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
use crate::settings::{Reader, Setting, SettingFault};

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
/// What to do about a wrong `command`.
const COMMAND: &str = "Write for example command = [\"program\", \"argument\"].";

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
    pub fn read(given: &Map<String, Value>, context: &Context) -> Result<Self, Vec<SettingFault>> {
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
                let problem = format!("`{}` is not a word for this", excerpt::head(other));
                reader.fault("stdin", problem, "Use one of \"json\", \"prompt\", \"data\".");
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
        reader.fault("", "`command` is missing", COMMAND);
    }
    let given = reader.list("command", COMMAND)?;
    // An item that is no text has been told.
    let is_empty = reader.get("command").and_then(|c| c.get(0)).is_none_or(|program| program == "");
    if is_empty {
        reader.fault("command", "nothing says which program to start", COMMAND);
    }
    if given.iter().any(|arg| arg.contains('\0')) {
        reader.fault("command", "this holds a NUL byte", "No argument can carry one.");
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
    let _ = reader.list("env", "Write for example env = [\"PATH\", \"HOME\"].");
    let items = reader.get("env").and_then(Value::as_array).into_iter().flatten().enumerate();
    for (place, name) in items.filter_map(|(place, item)| Some((place, item.as_str()?))) {
        check_name(reader, &format!("env.{place}"), name);
        // One that is not set is left out: the same file serves several machines.
        if let Some(value) = context.environment.get(OsStr::new(name)) {
            environment.insert(OsString::from(name), value.clone());
        }
    }
    environment
}

fn read_set_env(reader: &mut Reader<'_>) -> BTreeMap<String, Secret> {
    let mut variables = BTreeMap::new();
    for (name, value) in reader.table("set_env") {
        let at = format!("set_env.{name}");
        check_name(reader, &at, name);
        match reader.text_or_secret(&at, value) {
            Some(value) if value.expose().contains('\0') => {
                reader.fault(&at, "this holds a NUL byte", "No environment variable can carry one.");
            }
            Some(value) => drop(variables.insert(name.clone(), value)),
            None => {}
        }
    }
    variables
}

/// Tells of a name that cannot be given to an agent.
fn check_name(reader: &mut Reader<'_>, at: &str, name: &str) {
    if let Some((problem, advice)) = wrong_name(name) {
        reader.fault(at, problem, advice);
    }
}

/// What is wrong with the name of an environment variable, and what to do.
fn wrong_name(name: &str) -> Option<(String, &'static str)> {
    let shown = excerpt::head(name);
    if name.is_empty() || name.contains(['=', '\0']) {
        Some((format!("`{shown}` cannot name an environment variable"), "Take it out."))
    } else if name.starts_with("DOORBELL_") {
        // The run's own are always set; the server's own (its admin token above all) are nobody's business.
        Some((
            format!("Doorbell keeps names such as `{shown}` for itself"),
            "Use a name that does not begin with DOORBELL_.",
        ))
    } else {
        None
    }
}
