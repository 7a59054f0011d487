//! Reads a preset's TOML so that every fault is found in one go, each with its line. Called by `preset` only.
//!
//! serde stops at the first fault and knows no line of a value that parses but makes no sense; a person who writes a
//! preset wants the whole list. So the tables are walked by hand: a [`Section`] hands out values by key, remembers which
//! keys were asked for, and reports what is left over together with the nearest known key.

use std::cell::RefCell;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::spelling::nearest;

/// One thing that is wrong with a preset, where it stands, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct PresetFault {
    /// The file's name as the caller gave it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// Where it is in the text, in bytes.
    pub offset: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Collects the faults of one file.
pub(super) struct Report<'a> {
    text: &'a str,
    file: &'a str,
    faults: RefCell<Vec<PresetFault>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self { text, file, faults: RefCell::new(Vec::new()) }
    }

    pub(super) fn fault(&self, offset: usize, message: impl Into<String>) {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let fault = PresetFault { file: self.file.to_owned(), line, offset, message: message.into() };
        self.faults.borrow_mut().push(fault);
    }

    /// Takes back what was said at one of these places, if it is that.
    fn withdraw(&self, offsets: &[usize], is_that: impl Fn(&str) -> bool) {
        self.faults.borrow_mut().retain(|fault| !(offsets.contains(&fault.offset) && is_that(&fault.message)));
    }

    fn is_told(&self, offset: usize) -> bool {
        self.faults.borrow().iter().any(|fault| fault.offset == offset)
    }

    /// The faults in the order of their lines.
    pub(super) fn into_faults(self) -> Vec<PresetFault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|f| f.offset);
        faults
    }
}

/// A value and where it stands in the text.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) offset: usize,
    pub(super) value: T,
}

/// One table of the file. Ask for its keys, then call [`Section::finish`].
pub(super) struct Section<'a, 'i> {
    name: String,
    /// Where the table starts.
    pub(super) offset: usize,
    table: &'a DeTable<'i>,
    known: RefCell<Vec<&'static str>>,
    report: &'a Report<'a>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn new(name: &str, offset: usize, table: &'a DeTable<'i>, report: &'a Report<'a>) -> Self {
        Self { name: name.to_owned(), offset, table, known: RefCell::default(), report }
    }

    pub(super) fn fault(&self, offset: usize, message: impl Into<String>) {
        self.report.fault(offset, message);
    }

    /// `[verify] hash`, as a fault names it.
    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { format!("`{key}`") } else { format!("`{key}` in [{}]", self.name) }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    fn wrong_type(&self, key: &str, wanted: &str, found: &Spanned<DeValue<'_>>) {
        let (kind, offset) = (found.get_ref().type_str(), found.span().start);
        // A value that is read in two ways is wrong once.
        if !self.report.is_told(offset) {
            self.fault(offset, format!("{} must be {wanted}, not {kind}", self.full(key)));
        }
    }

    /// Whether the key is written at all; does not count as asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    pub(super) fn text(&self, key: &'static str) -> Option<At<String>> {
        let found = self.get(key)?;
        let offset = found.span().start;
        match found.get_ref() {
            DeValue::String(s) => Some(At { offset, value: s.to_string() }),
            _ => {
                self.wrong_type(key, "a text in quotes", found);
                None
            }
        }
    }

    /// Whether the key is there in another spelling, which is told; for a key that decides which others there are.
    pub(super) fn is_misspelt(&self, key: &'static str) -> bool {
        let slip = self.table.keys().find(|word| !self.has(key) && nearest(word.get_ref(), [key]).is_some());
        if let Some(slip) = slip {
            let name = self.full(slip.get_ref());
            self.fault(slip.span().start, format!("{name} is not known: did you mean `{key}`?"));
        }
        slip.is_some()
    }

    /// A text that must be there and must not be empty.
    pub(super) fn required(&self, key: &'static str, example: &str) -> Option<At<String>> {
        if !self.has(key) {
            self.known.borrow_mut().push(key);
            self.fault(self.offset, format!("{} is missing: add it, for example `{key} = {example}`", self.full(key)));
            return None;
        }
        let text = self.text(key)?;
        if text.value.is_empty() {
            self.fault(text.offset, format!("{} is empty: write for example `{key} = {example}`", self.full(key)));
            return None;
        }
        Some(text)
    }

    /// A list of texts; one text alone counts as a list of one.
    pub(super) fn texts(&self, key: &'static str) -> Vec<At<String>> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let one = |v: &Spanned<DeValue<'_>>| match v.get_ref() {
            DeValue::String(s) => Some(At { offset: v.span().start, value: s.to_string() }),
            _ => {
                self.wrong_type(key, "a text or a list of texts", v);
                None
            }
        };
        match found.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(one).collect(),
            _ => one(found).into_iter().collect(),
        }
    }

    pub(super) fn integer(&self, key: &'static str) -> Option<At<i64>> {
        let found = self.get(key)?;
        let value = match found.get_ref() {
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type(key, "a whole number", found);
        }
        value.map(|value| At { offset: found.span().start, value })
    }

    /// One of a fixed set of words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, v)| *v);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            let message = format!("{} cannot be `{}`: use one of {}", self.full(key), text.value, all.join(", "));
            self.fault(text.offset, message);
        }
        found
    }

    /// A span of time such as `300s`, `5m`, `3d`.
    pub(super) fn duration(&self, key: &'static str) -> Option<At<Duration>> {
        let text = self.text(key)?;
        let value = duration_of(&text.value);
        if value.is_none() {
            let message =
                format!("{} cannot be `{}`: write for example \"300s\", \"5m\" or \"3d\"", self.full(key), text.value);
            self.fault(text.offset, message);
        }
        value.map(|value| At { offset: text.offset, value })
    }

    /// A size such as `25 MiB`, in bytes.
    pub(super) fn size(&self, key: &'static str) -> Option<u64> {
        let text = self.text(key)?;
        let value = size_of(&text.value);
        if value.is_none() {
            let message =
                format!("{} cannot be `{}`: write for example \"512 KiB\" or \"25 MiB\"", self.full(key), text.value);
            self.fault(text.offset, message);
        }
        value
    }

    /// A table of its own, if it is there.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a, 'i>> {
        let found = self.get(key)?;
        match found.get_ref() {
            DeValue::Table(table) => Some(Section::new(&self.inner(key), found.span().start, table, self.report)),
            _ => {
                self.wrong_type(key, "a table", found);
                None
            }
        }
    }

    /// A list of tables, written `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a, 'i>> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = found.get_ref() else {
            self.wrong_type(key, "a list of tables", found);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::new(&self.inner(key), item.span().start, table, self.report));
                }
                _ => self.wrong_type(key, "a list of tables", item),
            }
        }
        sections
    }

    /// A table of free keys with texts (or whole numbers, as their digits), in the order of the keys.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(At<String>, String)> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let DeValue::Table(table) = found.get_ref() else {
            self.wrong_type(key, "a table of texts", found);
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            let name_at = At { offset: name.span().start, value: name.get_ref().to_string() };
            match value.get_ref() {
                DeValue::String(s) => pairs.push((name_at, s.to_string())),
                DeValue::Integer(n) if n.radix() == 10 => pairs.push((name_at, n.as_str().to_owned())),
                _ => self.wrong_type(key, "a table of texts", value),
            }
        }
        pairs
    }

    fn inner(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let hint = nearest(name, known.iter().copied())
                .map_or_else(|| format!("known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            if let Some(near) = nearest(name, known.iter().copied()) {
                // It is there, in another spelling.
                let near_by = self.table.values().map(|value| value.span().start);
                let offsets: Vec<usize> = near_by.chain([self.offset]).collect();
                self.report.withdraw(&offsets, |said| {
                    said.starts_with(&format!("{} is missing", self.full(near)))
                        || [
                            format!("[{near}] is missing"),
                            format!("`{near}` is missing"),
                            format!("`{near}` does not say"),
                        ]
                        .iter()
                        .any(|missing| said.contains(missing.as_str()))
                });
            }
            self.fault(key.span().start, format!("{} is not known: {hint}", self.full(name)));
        }
    }
}

/// `300s`, `5m`, `2h`, `3d`, `250ms`.
pub(super) fn duration_of(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: u64 = text.get(..digits)?.parse().ok()?;
    let unit_ms = match text.get(digits..)?.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

fn size_of(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: u64 = text.get(..digits)?.parse().ok()?;
    let unit = match text.get(digits..)?.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    count.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_need_a_unit() {
        assert_eq!(duration_of("300s"), Some(Duration::from_secs(300)));
        assert_eq!(duration_of("3d"), Some(Duration::from_secs(3 * 86_400)));
        assert_eq!(size_of("25 MiB"), Some(25 << 20));
        for bad in ["", "300", "s", "-1s", "1 week", "99999999999999999999s"] {
            assert_eq!(duration_of(bad), None, "{bad}");
        }
        assert_eq!(size_of("25 MB"), None);
    }
}
