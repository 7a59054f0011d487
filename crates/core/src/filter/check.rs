//! What a filter may say: checks the text before the parser and the tree after it, and finds the body paths it reads.

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::parser::{Expression, ParseErrors};

use super::{FilterFault, SOURCE_BYTES_MAX, eval, said};
use crate::payload::Paths;
use crate::scope::{EventFacts, NAMES};
use crate::spelling::nearest;

/// Brackets, before parsing: the parser's stack grows with them.
const BRACKETS_MAX: usize = 24;
/// The tree, after parsing: the interpreter's stack grows with it, on whatever thread evaluates.
const DEPTH_MAX: usize = 64;
/// Names in one path, such as `data.a.b.c`.
const PATH_MAX: usize = 32;
/// A pattern is compiled anew for every evaluation.
const PATTERN_CHARS_MAX: usize = 256;

/// Checks the text.
pub(super) fn source(source: &str) -> Result<(), FilterFault> {
    let fault = |message: String| Err(FilterFault { message, at: None });
    if source.trim().is_empty() {
        return fault("the filter is empty: leave it out to take every event, or write an expression".into());
    }
    if source.len() > SOURCE_BYTES_MAX {
        let len = source.len();
        return fault(format!(
            "the filter has {len} bytes, {SOURCE_BYTES_MAX} are allowed: split it into two triggers"
        ));
    }
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    for (at, c) in source.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            // A raw string has no escapes; read as one it only seems longer, and depth is counted too low at worst.
            (Some(q), _) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > BRACKETS_MAX {
            let message = format!("brackets nest deeper than {BRACKETS_MAX}: write it flatter");
            return Err(FilterFault { message, at: Some(line_column(source, at)) });
        }
    }
    Ok(())
}

/// The parser's complaint as a fault. Only the first: the rest follows from it.
pub(super) fn parse_fault(errors: &ParseErrors, source: &str) -> FilterFault {
    let Some(first) = errors.errors.first() else {
        return FilterFault { message: "the filter is not a CEL expression".into(), at: None };
    };
    let (line, column) = (usize::try_from(first.pos.0).ok(), usize::try_from(first.pos.1).ok());
    let at = line.zip(column).filter(|(line, _)| *line > 0);
    let what = said::in_words(&first.msg, &before(source, at));
    FilterFault { message: format!("the filter is not a CEL expression: {what}"), at }
}

/// The end of what stands before a place, on its line: enough to find it by eye.
fn before(source: &str, at: Option<(usize, usize)>) -> String {
    const SHOWN_CHARS_MAX: usize = 30;
    let Some((line, column)) = at else { return String::new() };
    let line = source.lines().nth(line - 1).unwrap_or_default();
    let left: Vec<char> = line.chars().take(column.saturating_sub(1)).collect();
    let from = left.len().saturating_sub(SHOWN_CHARS_MAX);
    left[from..].iter().collect::<String>().trim().to_owned()
}

/// Checks the tree and returns the body paths it reads.
pub(super) fn expression(program: &cel::Program, source: &str) -> Result<Paths, FilterFault> {
    let mut walk = Walk { program, source, bound: Vec::new(), paths: Paths::default() };
    walk.node(program.expression(), 0)?;
    Ok(walk.paths)
}

/// How deep the tree is.
pub(super) fn depth(e: &Expression) -> usize {
    1 + parts(e).into_iter().map(depth).max().unwrap_or(0)
}

/// How many loops lie within each other at most.
pub(super) fn nesting(e: &Expression) -> u64 {
    let Expr::Comprehension(turns) = &e.expr else { return parts(e).into_iter().map(nesting).max().unwrap_or(0) };
    // What it loops over and what becomes of it lie beside it, as in `data.l.map(…).filter(…)`.
    let beside = nesting(&turns.iter_range).max(nesting(&turns.result));
    beside.max(1 + nesting(&turns.loop_cond).max(nesting(&turns.loop_step)))
}

fn parts(e: &Expression) -> Vec<&Expression> {
    match &e.expr {
        Expr::Call(call) => call.args.iter().chain(call.target.as_deref()).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => {
            let of_entry = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::StructField(field) => vec![&field.value],
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            });
            of_entry.collect()
        }
        Expr::Comprehension(c) => vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result],
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn line_column(source: &str, byte: usize) -> (usize, usize) {
    let before = source.get(..byte).unwrap_or(source);
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

struct Walk<'e> {
    program: &'e cel::Program,
    source: &'e str,
    /// The variables of the loops around.
    bound: Vec<&'e str>,
    paths: Paths,
}

impl<'e> Walk<'e> {
    fn fault<T>(&self, e: &Expression, message: impl Into<String>) -> Result<T, FilterFault> {
        // cel counts the offset in characters.
        let offset = self.program.source_info().offset_for(e.id).and_then(|(start, _)| usize::try_from(start).ok());
        let byte = |chars: usize| self.source.char_indices().nth(chars).map_or(self.source.len(), |(i, _)| i);
        Err(FilterFault { message: message.into(), at: offset.map(|o| line_column(self.source, byte(o))) })
    }

    fn node(&mut self, e: &'e Expression, depth: usize) -> Result<(), FilterFault> {
        if depth > DEPTH_MAX {
            return self
                .fault(e, format!("the expression is deeper than {DEPTH_MAX} steps: use `in [...]`, or two triggers"));
        }
        if let Some((root, path)) = self.chain(e) {
            return self.read(e, root, &path);
        }
        match &e.expr {
            Expr::Ident(name) => self.ident(e, name),
            Expr::Select(select) => self.node(&select.operand, depth + 1),
            Expr::Call(call) => self.call(e, call, depth),
            Expr::List(list) => list.elements.iter().try_for_each(|item| self.node(item, depth + 1)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.entry(&entry.expr, depth + 1)),
            Expr::Struct(_) => {
                self.fault(e, "there are no message types in filters: write a map or compare the fields")
            }
            Expr::Comprehension(turns) => {
                self.node(&turns.iter_range, depth + 1)?;
                self.node(&turns.accu_init, depth + 1)?;
                let outside = self.bound.len();
                self.bound.extend([turns.iter_var.as_str(), turns.accu_var.as_str()]);
                self.bound.extend(turns.iter_var2.as_deref());
                for part in [&turns.loop_cond, &turns.loop_step, &turns.result] {
                    self.node(part, depth + 1)?;
                }
                self.bound.truncate(outside);
                Ok(())
            }
            Expr::Literal(_) => Ok(()),
            Expr::Unspecified => self.fault(e, "the expression is not complete"),
        }
    }

    fn entry(&mut self, entry: &'e EntryExpr, depth: usize) -> Result<(), FilterFault> {
        match entry {
            EntryExpr::StructField(field) => self.node(&field.value, depth),
            EntryExpr::MapEntry(entry) => {
                self.node(&entry.key, depth)?;
                self.node(&entry.value, depth)
            }
        }
    }

    fn call(&mut self, e: &'e Expression, call: &'e CallExpr, depth: usize) -> Result<(), FilterFault> {
        if !eval::knows(call) {
            let name = &call.func_name;
            return self.fault(e, format!("there is no function `{name}`: see the list of CEL's standard functions"));
        }
        if call.func_name == "matches" {
            let pattern = call.args.last().map(|a| &a.expr);
            let fits = |s: &str| s.chars().count() <= PATTERN_CHARS_MAX;
            if !matches!(pattern, Some(Expr::Literal(LiteralValue::String(s))) if fits(s.inner())) {
                let message = format!(
                    "the pattern of `matches` must be a text in quotes of at most {PATTERN_CHARS_MAX} characters"
                );
                return self.fault(e, message);
            }
        }
        call.target.iter().try_for_each(|target| self.node(target, depth + 1))?;
        call.args.iter().try_for_each(|arg| self.node(arg, depth + 1))
    }

    fn ident(&mut self, e: &Expression, name: &str) -> Result<(), FilterFault> {
        if self.bound.contains(&name) || eval::is_type(name) {
            return Ok(());
        }
        if let Some(near) = nearest(name, NAMES) {
            return self.fault(e, format!("there is no variable `{name}`: did you mean `{near}`?"));
        }
        let names = NAMES.map(|n| format!("`{n}`")).join(", ");
        let advice = format!("filters see {names}; a text stands in quotes, `\"{name}\"`");
        self.fault(e, format!("there is no variable `{name}`: {advice}"))
    }

    /// `data.a["b"].c` and `has(data.a)` as their root and path; none if `e` is something else or the root is bound by
    /// a loop. A place in a list is a name of digits.
    fn chain(&self, e: &'e Expression) -> Option<(&'e str, Vec<String>)> {
        let mut path = Vec::new();
        let mut at = e;
        loop {
            match &at.expr {
                Expr::Ident(name) if NAMES.contains(&name.as_str()) && !self.bound.contains(&name.as_str()) => {
                    path.reverse();
                    return Some((name, path));
                }
                Expr::Select(select) => {
                    path.push(select.field.clone());
                    at = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                    [inner, Expression { expr: Expr::Literal(LiteralValue::String(key)), .. }] => {
                        path.push(key.inner().to_owned());
                        at = inner;
                    }
                    [inner, Expression { expr: Expr::Literal(LiteralValue::Int(place)), .. }] => {
                        path.push(place.inner().to_string());
                        at = inner;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    fn read(&mut self, e: &Expression, root: &str, path: &[String]) -> Result<(), FilterFault> {
        match (root, path) {
            (_, path) if path.len() > PATH_MAX => self.fault(e, format!("a path has at most {PATH_MAX} names")),
            ("data", path) => {
                self.paths.insert(path);
                Ok(())
            }
            ("event", [name, ..]) if !EventFacts::NAMES.contains(&name.as_str()) => {
                let names = EventFacts::NAMES.join(", ");
                self.fault(e, format!("an event has no `{name}`: it has {names}; the body is `data`"))
            }
            ("headers", [name, ..]) if name.chars().any(char::is_uppercase) => {
                self.fault(e, format!("header names are lower case here: write `headers[\"{}\"]`", name.to_lowercase()))
            }
            _ => Ok(()),
        }
    }
}
