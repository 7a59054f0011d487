//! Reads the kind-specific keys of an agent's table, and collects everything that is wrong with them. Called by the
//! `build` functions of the kinds. A hand-written reader, since serde stops at the first fault and people fix one file at
//! a time.

use std::time::Duration;

use doorbell_core::Secret;
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

/// ` (did you mean `x`?)` if one of the names is near, else ` (known: …)`.
pub(crate) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = known.clone().map(|name| (strsim::damerau_levenshtein(given, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + given.len() / 4 => format!(" (did you mean `{name}`?)"),
        _ => format!(" (known: {})", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Reads keys and keeps the faults.
pub(crate) struct Reader<'a> {
    given: &'a Map<String, Value>,
    context: &'a Context,
    faults: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(given: &'a Map<String, Value>, known: &'static [Setting], context: &'a Context) -> Self {
        let unknown = given.keys().filter(|key| known.iter().all(|s| s.name != *key));
        let faults =
            unknown.map(|key| format!("unknown key `{key}`{}", nearest(key, known.iter().map(|s| s.name)))).collect();
        Self { given, context, faults }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.given.get(key)
    }

    pub(crate) fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Everything read, unless something was wrong.
    pub(crate) fn finish<T>(self, settings: Option<T>) -> Result<T, Vec<String>> {
        match settings {
            Some(settings) if self.faults.is_empty() => Ok(settings),
            _ => Err(self.faults),
        }
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            self.fault(format!("`{key}` must be a text"));
        }
        text
    }

    pub(crate) fn list(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let texts = value.as_array().and_then(|items| items.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        if texts.is_none() {
            self.fault(format!("`{key}` must be a list of texts"));
        }
        texts
    }

    pub(crate) fn table(&mut self, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        let table = self.get(key).map(|v| (v, v.as_object()));
        if let Some((_, None)) = table {
            self.fault(format!("`{key}` must be a table"));
        }
        table.and_then(|(_, t)| t).into_iter().flatten()
    }

    /// A secret, or a list of them during a rotation; `at` names the place in a fault.
    pub(crate) fn secrets(&mut self, at: &str, value: &Value) -> Vec<Secret> {
        let one = std::slice::from_ref(value);
        let mut found = Vec::new();
        for value in value.as_array().map_or(one, Vec::as_slice) {
            match (self.context.secret)(value) {
                Ok(secret) if secret.expose().is_empty() => self.fault(format!("`{at}` is empty")),
                Ok(secret) => found.push(secret),
                Err(why) => self.fault(format!("`{at}`: {why}")),
            }
        }
        if found.is_empty() && value.as_array().is_some_and(Vec::is_empty) {
            self.fault(format!("`{at}` is an empty list; leave it out to go without"));
        }
        found
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
                self.fault(format!("`{key}` must be a size such as \"1 MiB\", above zero"));
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
                self.fault(format!("`{key}` must be a span of time such as \"5s\""));
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

    #[test]
    fn an_unknown_name_is_told_the_nearest() {
        assert_eq!(nearest("comand", ["command", "cwd"].into_iter()), " (did you mean `command`?)");
        assert_eq!(nearest("zzz", ["command", "cwd"].into_iter()), " (known: command, cwd)");
    }
}
