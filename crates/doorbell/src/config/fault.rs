//! What is wrong with a configuration: one [`Fault`] a problem, with its place, what it is and what to do about it.
//!
//! Faults are collected, never returned one by one: a person who edits a file wants the whole list (`docs/config.md`).
//! A fault never carries a secret's value.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

/// Whether the file can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is not taken.
    Error,
    /// It is taken, but somebody should look.
    Warning,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named; or which environment variable it is.
    pub file: String,
    /// The line, from 1; 0 if it stands in no file.
    pub line: usize,
    /// The column in characters, from 1; 0 if it stands in no file.
    pub column: usize,
    /// Which key, such as `agents.reviewer.timeout`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

impl Fault {
    /// Of the file as a whole: it stands at its beginning.
    pub fn whole_file(severity: Severity, file: String, problem: impl Into<String>) -> Self {
        let (key, advice) = (String::new(), String::new());
        Self { severity, file, line: 1, column: 1, key, problem: problem.into(), advice }
    }

    /// As [`Display`](fmt::Display), without the word `error` or `warning`: for a log, whose lines have a level already.
    pub fn without_severity(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = self.write(&mut text, "");
        text
    }

    fn write(&self, to: &mut impl fmt::Write, word: &str) -> fmt::Result {
        match self.line {
            0 => write!(to, "{}: {word}", self.file)?,
            _ => write!(to, "{}:{}:{}: {word}", self.file, self.line, self.column)?,
        }
        if !self.key.is_empty() {
            write!(to, "{}: ", self.key)?;
        }
        write!(to, "{}", self.problem)?;
        if !self.advice.is_empty() {
            write!(to, "\n    {}", self.advice)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(
            f,
            match self.severity {
                Severity::Error => "error: ",
                Severity::Warning => "warning: ",
            },
        )
    }
}

/// Collects the faults of one file.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    file: &'t str,
    found: RefCell<Vec<(usize, Fault)>>,
    /// Keys that are there in another spelling.
    meant: RefCell<BTreeSet<String>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, file: &'t str) -> Self {
        Self { text, file, found: RefCell::default(), meant: RefCell::default() }
    }

    /// The file's own text.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Notes an error at byte `offset`.
    pub(super) fn error(&self, offset: usize, key: &str, problem: impl Into<String>, advice: impl Into<String>) {
        self.note(Severity::Error, offset, key, (problem.into(), advice.into()));
    }

    /// Notes a warning at byte `offset`.
    pub(super) fn warning(&self, offset: usize, key: &str, problem: impl Into<String>, advice: impl Into<String>) {
        self.note(Severity::Warning, offset, key, (problem.into(), advice.into()));
    }

    /// Notes that a key is written, in a spelling or at a place where it cannot be read.
    pub(super) fn meant(&self, key: String) {
        self.meant.borrow_mut().insert(key);
    }

    /// Whether a key is written and an error was told of it: to say that it is missing would be a second, false one.
    pub(super) fn is_told(&self, key: &str) -> bool {
        let is_wrong = |(_, fault): &(usize, Fault)| fault.severity == Severity::Error && fault.key == key;
        self.meant.borrow().contains(key) || self.found.borrow().iter().any(is_wrong)
    }

    /// The same of a key, or of anything below it.
    pub(super) fn is_told_within(&self, key: &str) -> bool {
        let is_below = |(_, fault): &(usize, Fault)| {
            fault.severity == Severity::Error && fault.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
        };
        self.is_told(key) || self.found.borrow().iter().any(is_below)
    }

    /// A fault at byte `offset` that is not noted.
    pub(super) fn fault_at(&self, offset: usize, key: &str) -> Fault {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.rsplit('\n').next().map_or(0, |l| l.chars().count());
        let (severity, file) = (Severity::Error, self.file.to_owned());
        Fault { severity, file, line, column, key: key.to_owned(), problem: String::new(), advice: String::new() }
    }

    /// Notes a problem of an environment variable, which stands in no file.
    pub(super) fn in_environment(
        &self,
        severity: Severity,
        name: &str,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let fault = Fault {
            severity,
            file: format!("environment variable {name}"),
            line: 0,
            column: 0,
            key: String::new(),
            problem: problem.into(),
            advice: advice.into(),
        };
        self.found.borrow_mut().push((0, fault));
    }

    fn note(&self, severity: Severity, offset: usize, key: &str, (problem, advice): (String, String)) {
        let fault = Fault { severity, problem, advice, ..self.fault_at(offset, key) };
        self.found.borrow_mut().push((offset, fault));
    }

    /// All of them, in the order of the file, each once.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, _)| *offset);
        let mut faults: Vec<Fault> = found.into_iter().map(|(_, fault)| fault).collect();
        faults.dedup();
        faults
    }
}

/// A sentence that says what is wrong and, behind its first colon, what to do: as problem and advice.
pub(super) fn in_two(message: &str) -> (String, String) {
    colons(message).next().map_or_else(|| (message.to_owned(), String::new()), |at| cut(message, at))
}

/// The same of a sentence whose last colon is the one.
pub(super) fn in_two_last(message: &str) -> (String, String) {
    colons(message).last().map_or_else(|| (message.to_owned(), String::new()), |at| cut(message, at))
}

/// Where the colons of a sentence are; those in words of the file are none.
fn colons(message: &str) -> impl Iterator<Item = usize> {
    let found = message.match_indices(": ").map(|(at, _)| at);
    found.filter(|at| message[..*at].matches('`').count().is_multiple_of(2))
}

fn cut(message: &str, at: usize) -> (String, String) {
    let advice = message[at + 2..].trim();
    let mut letters = advice.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if advice.ends_with(['.', '?', '!']) { "" } else { "." };
    (message[..at].to_owned(), format!("{first}{}{end}", letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stands_at_its_line_and_character() {
        let report = Report::new("a = 1\nä = 2\n", "f.toml");
        report.error("a = 1\nä = ".len(), "ä", "wrong", "");
        report.error(9999, "", "past the end", "");
        let faults = report.into_faults();
        assert_eq!((faults[0].line, faults[0].column), (2, 5));
        assert_eq!((faults[1].line, faults[1].column), (3, 1));
    }
}
