//! Finds secrets at their places. A missing or empty one is an error, since whoever lacks the secret would otherwise let
//! everybody or nobody in; nothing here ever prints a value.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use doorbell_agents::SettingFault;
use doorbell_core::seal::SecretName;
use doorbell_core::source::SecretPlace;
use doorbell_core::{Name, Secret};
use serde_json::Value;

use super::values::{SecretAt, Several};
use super::world::World;
use super::{Cx, section::At};

/// Reads secrets and remembers which files they came from.
pub(super) struct Secrets<'a> {
    cx: &'a Cx<'a>,
    reads: RefCell<Vec<PathBuf>>,
}

impl<'a> Secrets<'a> {
    pub(super) fn new(cx: &'a Cx<'a>) -> Self {
        Self { cx, reads: RefCell::default() }
    }

    pub(super) fn into_reads(self) -> Vec<PathBuf> {
        self.reads.into_inner()
    }

    /// The secret at a place; faults go to the report under `key`.
    pub(super) fn one(&self, at: &At<SecretAt>, key: &str) -> Option<Secret> {
        if let SecretAt::File(file) = &at.value {
            self.note_file(at.offset, key, file);
        }
        self.place(at, key)
    }

    /// The same for a place whose file was looked at already.
    pub(super) fn place(&self, at: &At<SecretAt>, key: &str) -> Option<Secret> {
        if at.value == SecretAt::Unreadable {
            return None;
        }
        match find(&at.value, self.cx) {
            Ok(secret) => Some(secret),
            Err((problem, advice)) => {
                self.cx.report.error(at.offset, key, problem, advice);
                None
            }
        }
    }

    /// The places of a list, or none if one of them holds nothing. Whether a stored one is there is seen when the store is
    /// open.
    pub(super) fn several(&self, list: &At<Several<SecretAt>>, key: &str) -> Option<Vec<SecretPlace>> {
        if list.value.0.is_empty() {
            self.cx.report.error(list.offset, key, "an empty list of secrets", "Name at least one place.");
            return None;
        }
        let place = |at: &At<SecretAt>| match &at.value {
            SecretAt::Stored(name) => match Name::new(name) {
                Ok(name) => Some(SecretPlace::Stored(SecretName::user(&name))),
                Err(error) => {
                    self.cx.report.error(at.offset, key, error.to_string(), "Stored secrets are named as sources are.");
                    None
                }
            },
            _ => self.one(at, key).map(SecretPlace::Given),
        };
        let found: Vec<Option<SecretPlace>> = list.value.0.iter().map(place).collect();
        found.into_iter().collect()
    }

    /// The secrets of a list that have to be there when the file is read, or none if one of the places holds nothing.
    pub(super) fn given(&self, list: &At<Several<SecretAt>>, key: &str) -> Option<Vec<Secret>> {
        if list.value.0.is_empty() {
            self.cx.report.error(list.offset, key, "an empty list of secrets", "Name at least one place.");
            return None;
        }
        let found: Vec<_> = list.value.0.iter().map(|at| self.one(at, key)).collect();
        found.into_iter().collect()
    }

    /// Warns of a file that others can read, and remembers it.
    pub(super) fn note_file(&self, offset: usize, key: &str, file: &str) {
        let path = self.cx.path(file);
        let open = self.cx.world.files.secret(&path).ok().and_then(|f| f.mode).filter(|mode| mode & 0o077 != 0);
        if let Some(mode) = open {
            let problem = format!("`{}` can be read by others (mode {mode:o})", path.display());
            self.cx.report.warning(offset, key, problem, format!("Run: chmod 600 {}", path.display()));
        }
        self.reads.borrow_mut().push(path);
    }
}

/// What is told where the secret of an agent is written wrongly.
const PLACES: &str = "Write { env = \"NAME\" } or { file = \"path\" }.";

/// What the runners of `doorbell_agents` resolve their secrets with.
pub(super) fn for_agents(world: &World, base: &std::path::Path) -> doorbell_agents::SecretOf {
    let (world, base) = (world.clone(), base.to_owned());
    Arc::new(move |value: &Value| {
        let at = json_place(value).map_err(|problem| SettingFault::new("", problem, PLACES))?;
        found(&at, &world, &base).map_err(|(problem, advice)| SettingFault::new("", problem, advice))
    })
}

/// The place in its JSON form.
pub(super) fn json_place(value: &Value) -> Result<SecretAt, &'static str> {
    let Some(table) = value.as_object() else {
        return Err("a secret does not stand in this file, only where to find it does");
    };
    let mut entries = table.iter();
    let (Some((word, place)), None) = (entries.next(), entries.next()) else {
        return Err("a secret has exactly one place");
    };
    let Some(place) = place.as_str().filter(|p| !p.is_empty()).map(str::to_owned) else {
        return Err("the place of a secret is a text that is not empty");
    };
    match word.as_str() {
        "env" => Ok(SecretAt::Env(place)),
        "file" => Ok(SecretAt::File(place)),
        "stored" => Ok(SecretAt::Stored(place)),
        _ => Err("secrets come from `env` or `file`"),
    }
}

fn find(at: &SecretAt, cx: &Cx<'_>) -> Result<Secret, (String, String)> {
    found(at, cx.world, cx.base)
}

fn found(at: &SecretAt, world: &World, base: &std::path::Path) -> Result<Secret, (String, String)> {
    match at {
        SecretAt::Env(name) => match world.var(name) {
            Some(text) => Ok(Secret::new(text)),
            None => Err((
                format!("the environment variable `{name}` is not set or is empty"),
                "Set it before Doorbell starts, or name another place.".into(),
            )),
        },
        SecretAt::File(file) => {
            let path = base.join(file.strip_prefix("./").unwrap_or(file));
            let text = world.files.secret(&path).map_err(|error| {
                let problem = format!("the secret file `{}` cannot be read: {error}", path.display());
                (problem, "Make it, with mode 0600, or name another place.".to_owned())
            })?;
            // Editors and `echo` end a file with a line break that is not part of the secret.
            match text.text.trim_end_matches(['\r', '\n']) {
                "" => {
                    Err((format!("the secret file `{}` is empty", path.display()), "Write the secret into it.".into()))
                }
                secret => Ok(Secret::new(secret)),
            }
        }
        SecretAt::Unreadable => Err(("this is not the place of a secret".into(), String::new())),
        SecretAt::Stored(_) => Err(("stored secrets are for the `secret` of a source".into(), PLACES.into())),
    }
}
