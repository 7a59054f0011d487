//! Reads tables of the file by key, so that every fault is found in one go, each with its place.
//!
//! serde stops at the first fault. Here a [`Section`] hands out values by key, each read by its type's [`Value`], and
//! remembers which keys were asked for; what is left over at [`Section::finish`] is unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Report;
use doorbell_core::spelling::{hint, nearest};

/// A value and where it stands in the text, as a byte offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it begins.
    pub offset: usize,
}

/// A value that somebody else reads, with where each part of it stands.
#[derive(Clone, Debug)]
pub struct Json {
    /// The whole.
    pub value: serde_json::Value,
    /// Where it begins.
    pub offset: usize,
    /// Where its parts begin, by their path: `set_env.HOME`, `command.1`.
    places: BTreeMap<String, usize>,
}

impl Json {
    /// Where the part at `path` begins; where the whole does, if there is no such part.
    pub(super) fn place(&self, path: &str) -> usize {
        self.places.get(path).copied().unwrap_or(self.offset)
    }
}

/// Where a date is, if there is one: read as JSON it would be a table.
fn date(raw: &Spanned<DeValue<'_>>) -> Option<usize> {
    match raw.get_ref() {
        DeValue::Datetime(_) => Some(raw.span().start),
        DeValue::Table(table) => table.values().find_map(date),
        DeValue::Array(items) => items.iter().find_map(date),
        _ => None,
    }
}

fn note_places(path: &str, raw: &Spanned<DeValue<'_>>, places: &mut BTreeMap<String, usize>) {
    places.insert(path.to_owned(), raw.span().start);
    match raw.get_ref() {
        DeValue::Table(table) => {
            table.iter().for_each(|(key, item)| note_places(&format!("{path}.{}", key.get_ref()), item, places));
        }
        DeValue::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| note_places(&format!("{path}.{at}"), item, places));
        }
        _ => {}
    }
}

/// Where a value is being read: its full key, and whom to tell.
#[derive(Clone)]
pub(super) struct Here<'r> {
    pub(super) key: String,
    pub(super) report: &'r Report<'r>,
}

impl Here<'_> {
    pub(super) fn wrong(&self, offset: usize, problem: impl Into<String>, advice: impl Into<String>) {
        self.report.error(offset, &self.key, problem, advice);
    }

    /// `must be …, not …`
    pub(super) fn wrong_type(&self, found: &Spanned<DeValue<'_>>, wanted: &str) {
        let kind = found.get_ref().type_str();
        let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let advice = if wanted == A_TABLE { example(&self.key) } else { String::new() };
        self.wrong(found.span().start, format!("this must be {wanted}, not {article} {kind}"), advice);
    }
}

/// What a table is called.
const A_TABLE: &str = "a table";

/// How to write a table that was written as something else.
fn example(key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let form = match (last, key.matches('.').count()) {
        ("retries", _) => "retries = { max = 3, backoff = \"10s\" }",
        ("breaker", _) => "breaker = { failures = 5, reset = \"60s\" }",
        ("tls", _) => "tls = { cert = \"cert.pem\", key = \"key.pem\" }",
        (_, 0) => return format!("Write a heading [{key}], and its keys below it."),
        _ => return String::new(),
    };
    format!("Write for example {form}.")
}

/// A type that stands in the file.
pub(super) trait Value: Sized {
    /// Reads it, or tells `here` what is wrong.
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self>;
}

/// A table whose keys are known: one of `written`.
pub(super) trait Table: Sized {
    /// Reads every key that is there.
    fn read(section: &Section<'_, '_, '_>) -> Self;
}

/// One table of the file. Ask for its keys, then call [`Section::finish`].
pub(super) struct Section<'s, 'i, 'r> {
    here: Here<'r>,
    table: &'s DeTable<'i>,
    known: RefCell<Vec<&'static str>>,
}

impl<'s, 'i, 'r> Section<'s, 'i, 'r> {
    pub(super) fn new(here: Here<'r>, table: &'s DeTable<'i>) -> Self {
        Self { here, table, known: RefCell::default() }
    }

    fn raw(&self, key: &'static str) -> Option<&'s Spanned<DeValue<'i>>> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    fn below(&self, key: &str) -> Here<'r> {
        let key = if self.here.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.here.key) };
        Here { key, report: self.here.report }
    }

    /// The value of a key, if it is there and can be read.
    pub(super) fn get<T: Value>(&self, key: &'static str) -> Option<At<T>> {
        let raw = self.raw(key)?;
        T::read(raw, &self.below(key)).map(|value| At { value, offset: raw.span().start })
    }

    /// A table, which counts as empty if it is not there.
    pub(super) fn table<T: Table + Default>(&self, key: &'static str) -> T {
        let Some(raw) = self.raw(key) else { return T::default() };
        let here = self.below(key);
        let Some(table) = as_table(raw, &here) else { return T::default() };
        let section = Section::new(here, table);
        let read = T::read(&section);
        section.finish();
        read
    }

    /// A table of tables with names, in the order of the file. The caller finishes each.
    pub(super) fn named(&self, key: &'static str) -> Vec<(At<String>, Section<'s, 'i, 'r>)> {
        let Some(raw) = self.raw(key) else { return Vec::new() };
        let here = self.below(key);
        let Some(tables) = as_table(raw, &here) else { return Vec::new() };
        let outer = Section::new(here, tables);
        let mut found: Vec<_> = tables
            .iter()
            .filter_map(|(name, raw)| {
                let here = outer.below(name.get_ref());
                let table = as_table(raw, &here)?;
                let name = At { value: name.get_ref().to_string(), offset: name.span().start };
                Some((name, Section::new(here, table)))
            })
            .collect();
        found.sort_by_key(|(name, _)| name.offset);
        found
    }

    /// Whether a key is there; does not count as asking for it.
    pub(super) fn offset_of(&self, key: &str) -> Option<usize> {
        self.table.get_key_value(key).map(|(key, _)| key.span().start)
    }

    /// Asks for keys that somebody else reads, as JSON.
    pub(super) fn as_json(&self, keys: impl Iterator<Item = &'static str>) -> Vec<(&'static str, Json)> {
        let read = |key: &'static str| {
            let raw = self.raw(key)?;
            if let Some(offset) = date(raw) {
                self.below(key).wrong(offset, "a date is no value here", "Write it in quotes, as a text.");
                return None;
            }
            let json = serde_json::Value::deserialize(toml::de::ValueDeserializer::from(raw.clone()));
            let told = |e: toml::de::Error| self.below(key).wrong(raw.span().start, e.message().to_owned(), "");
            let mut places = BTreeMap::new();
            note_places(key, raw, &mut places);
            json.map_err(told).ok().map(|value| (key, Json { value, offset: raw.span().start, places }))
        };
        keys.filter_map(read).collect()
    }

    /// Tells of every key that nobody asked for, with the nearest that is known.
    pub(super) fn finish(self) {
        let mut known = self.known.take();
        // A key of two tables in one (a trigger's and its source's) was asked for twice.
        let mut seen = std::collections::HashSet::new();
        known.retain(|key| seen.insert(*key));
        let asked = known.clone();
        let place = if self.here.key.is_empty() { "the file".into() } else { format!("[{}]", self.here.key) };
        let taken = super::contracts::taken(&self.here.key);
        let known: Vec<&str> = known.into_iter().filter(|key| taken.is_none_or(|taken| taken.contains(key))).collect();
        for (key, _) in self.table {
            let word: &str = key.get_ref();
            if known.contains(&word) || (asked.contains(&word) && self.here.report.is_told(&self.below(word).key)) {
                continue;
            }
            let (problem, advice) = match (asked.contains(&word), self.here.key.split('.').nth(1)) {
                (true, Some(contract)) => (
                    format!("`{word}` means nothing to the contract `{contract}`"),
                    format!("Leave it out. Known: {}.", known.join(", ")),
                ),
                _ => (format!("`{word:.80}` is not a key of {place}"), advice(word, &known)),
            };
            if let Some(near) = nearest(word, known.iter().copied()) {
                self.here.report.meant(self.below(near).key);
            }
            self.here.report.error(key.span().start, &self.here.key, problem, advice);
        }
    }
}

/// The nearest known key, or all of them where that is no wall of words.
fn advice(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        None if known.len() > 20 => "`doorbell check --schema` and docs/config.md list all keys.".into(),
        _ => hint(word, known.iter().copied()),
    }
}

pub(super) fn as_table<'s, 'i>(raw: &'s Spanned<DeValue<'i>>, here: &Here<'_>) -> Option<&'s DeTable<'i>> {
    let table = raw.get_ref().as_table();
    if table.is_none() {
        here.wrong_type(raw, A_TABLE);
    }
    table
}

impl Value for String {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            here.wrong_type(value, "a text in quotes");
        }
        text.map(str::to_owned)
    }
}

impl Value for bool {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let yes = value.get_ref().as_bool();
        if yes.is_none() {
            here.wrong_type(value, "true or false");
        }
        yes
    }
}

impl Value for u32 {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let Some(number) = value.get_ref().as_integer() else {
            here.wrong_type(value, "a whole number");
            return None;
        };
        let number = Self::from_str_radix(number.as_str(), number.radix());
        if number.is_err() {
            let problem = format!("this must be a whole number from 0 to {}", Self::MAX);
            here.wrong(value.span().start, problem, "Write it without a sign or a fraction, such as 3.");
        }
        number.ok()
    }
}

impl<T: Value> Value for Vec<At<T>> {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            here.wrong_type(value, "a list in square brackets");
            return None;
        };
        let read = |raw: &Spanned<DeValue<'_>>| T::read(raw, here).map(|value| At { value, offset: raw.span().start });
        // Every item is read even after a bad one, so that all of them are told.
        let all: Vec<Option<At<T>>> = items.iter().map(read).collect();
        all.into_iter().collect()
    }
}

impl<T: Value> Value for BTreeMap<String, At<T>> {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let table = as_table(value, here)?;
        let read = |(key, raw): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name = AsRef::<str>::as_ref(key.get_ref()).to_owned();
            let below = Here { key: format!("{}.{name}", here.key), report: here.report };
            T::read(raw, &below).map(|value| (name, At { value, offset: raw.span().start }))
        };
        // What cannot be read has been told; the rest may have faults of its own.
        Some(table.iter().filter_map(read).collect())
    }
}
