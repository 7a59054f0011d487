//! Reads the kind-specific keys of an agent's table, and collects everything that is wrong with them. Called by the
//! `build` functions of the kinds. A hand-written reader, since serde stops at the first fault and people fix one file at
//! a time.

use std::time::Duration;

use doorbell_core::{Secret, spelling};
use serde_json::{Map, Value};

use crate::Context;

/// A key that a kind takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub name: &'static str,
    /// What it does, with its shape and default; for `check --schema` and the docs.
    pub about: &'static str,
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}{}", place(at), behind(advice))]
pub struct SettingFault {
    /// Which one, by its keys and places, such as `set_env.HOME` or `command.1`; empty for the agent as a whole.
    pub at: String,
    /// What is wrong.
    pub problem: String,
    /// What to do; empty if that is plain.
    pub advice: String,
}

impl SettingFault {
    /// A fault of the setting `at`.
    pub fn new(at: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { at: at.into(), problem: problem.into(), advice: advice.into() }
    }
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("{at}: ") }
}

fn behind(advice: &str) -> String {
    if advice.is_empty() { String::new() } else { format!(". {advice}") }
}

/// Reads keys and keeps the faults.
pub(crate) struct Reader<'a> {
    given: &'a Map<String, Value>,
    context: &'a Context,
    faults: Vec<SettingFault>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(given: &'a Map<String, Value>, known: &'static [Setting], context: &'a Context) -> Self {
        let unknown = given.keys().filter(|key| known.iter().all(|s| s.name != *key));
        let hint = |key: &str| spelling::hint(key, known.iter().map(|s| s.name));
        let faults = unknown.map(|key| SettingFault::new(key, "this is not a key of the runner", hint(key))).collect();
        Self { given, context, faults }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.given.get(key)
    }

    pub(crate) fn fault(&mut self, at: &str, problem: impl Into<String>, advice: &str) {
        self.faults.push(SettingFault::new(at, problem, advice));
    }

    /// Everything read, unless something was wrong.
    pub(crate) fn finish<T>(self, settings: Option<T>) -> Result<T, Vec<SettingFault>> {
        match settings {
            Some(settings) if self.faults.is_empty() => Ok(settings),
            _ => Err(self.faults),
        }
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            self.fault(key, "this must be a text in quotes", "");
        }
        text
    }

    /// The texts of a list, those that are none left out and told.
    pub(crate) fn list(&mut self, key: &str, example: &str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let Some(items) = value.as_array() else {
            self.fault(key, "this must be a list of texts", example);
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => self.fault(&format!("{key}.{place}"), "this must be a text in quotes", ""),
            }
        }
        Some(texts)
    }

    pub(crate) fn table(&mut self, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        let table = self.get(key).map(|v| (v, v.as_object()));
        if let Some((_, None)) = table {
            self.fault(key, "this must be a table", "");
        }
        table.and_then(|(_, t)| t).into_iter().flatten()
    }

    /// A secret, or a list of them during a rotation, each with its place for a fault.
    pub(crate) fn secrets(&mut self, at: &str, value: &Value) -> Vec<(String, Secret)> {
        let Some(list) = value.as_array() else { return self.secret(at.to_owned(), value).into_iter().collect() };
        if list.is_empty() {
            self.fault(at, "an empty list of secrets", "Name at least one place, or leave it out to go without.");
        }
        list.iter().enumerate().filter_map(|(place, value)| self.secret(format!("{at}.{place}"), value)).collect()
    }

    fn secret(&mut self, at: String, value: &Value) -> Option<(String, Secret)> {
        match (self.context.secret)(value) {
            Ok(secret) if secret.expose().is_empty() => self.fault(&at, "this secret is empty", ""),
            Ok(secret) => return Some((at, secret)),
            Err(why) => self.faults.push(SettingFault { at, ..why }),
        }
        None
    }

    /// A text as it is, or one that is kept elsewhere as secrets are.
    pub(crate) fn text_or_secret(&mut self, at: &str, value: &Value) -> Option<Secret> {
        match value {
            Value::String(text) => Some(Secret::new(text.as_str())),
            Value::Object(_) => self.secret(at.to_owned(), value).map(|(_, secret)| secret),
            _ => {
                self.fault(
                    at,
                    "this must be a text in quotes, or the place of a secret",
                    "Write \"text\", { env = \"NAME\" } or { file = \"path\" }.",
                );
                None
            }
        }
    }

    /// A size in bytes: a number, or a text such as `"1 MiB"`. At least 1.
    pub(crate) fn size(&mut self, key: &str, default: usize) -> usize {
        let Some(value) = self.get(key) else { return default };
        let size = match value {
            Value::Number(n) => n.as_u64(),
            Value::String(text) => measured(
                text,
                &[
                    ("KiB", 1 << 10),
                    ("MiB", 1 << 20),
                    ("GiB", 1 << 30),
                    ("kB", 1000),
                    ("MB", 1_000_000),
                    ("GB", 1_000_000_000),
                    ("B", 1),
                    ("", 1),
                ],
            ),
            _ => None,
        };
        match size.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
            Some(size) => size,
            None => {
                self.fault(key, "this must be a size such as \"64 KiB\" or \"1 MiB\", above zero", "");
                default
            }
        }
    }

    /// A span of time: seconds as a number, or a text such as `"5s"` or `"10m"`.
    pub(crate) fn span(&mut self, key: &str, default: Duration) -> Duration {
        let Some(value) = self.get(key) else { return default };
        let ms = match value {
            Value::Number(n) => n.as_u64().and_then(|s| s.checked_mul(1000)),
            Value::String(text) => measured(text, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]),
            _ => None,
        };
        match ms {
            Some(ms) => Duration::from_millis(ms),
            None => {
                self.fault(key, "this must be a duration such as \"500ms\", \"5s\" or \"10m\"", "");
                default
            }
        }
    }
}

/// A whole number and a unit.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_whole_numbers_with_a_unit() {
        let sizes = &[("KiB", 1 << 10), ("B", 1), ("", 1)];
        assert_eq!(measured("4 KiB", sizes), Some(4096));
        assert_eq!(measured("4KiB", sizes), Some(4096));
        assert_eq!(measured("17", sizes), Some(17));
        for bad in ["", "KiB", "-1 KiB", "1.5 KiB", "1 XiB", "99999999999999999999", "18446744073709551615 KiB"] {
            assert_eq!(measured(bad, sizes), None, "{bad}");
        }
    }
}
