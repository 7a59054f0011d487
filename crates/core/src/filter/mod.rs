//! Filters: the CEL expression that says whether a trigger wants an event.
//!
//! Compiled once when the configuration is resolved, shared by all requests, evaluated by ingest on the answering path
//! and by `events replay --dry-run`. `cel` is used here and nowhere else, and does not show in any signature.
//!
//! An expression can only see `event`, `data`, `headers` and `query`. An error is not a no and not a yes: it is
//! [`Verdict::Error`], which the door records as `filter_error`, so that a typo in a filter is found instead of silently
//! dropping (or passing) events.
//!
//! What keeps an expression from eating the machine, since `cel` itself has no run-time limit:
//! * source ≤ 4 KiB, brackets ≤ 24 deep before the parser sees it, the parsed tree ≤ 64 deep;
//! * compiled on a thread with a 64 MiB stack, panics caught ([`crate::guard`]);
//! * every turn of a loop macro (`all`, `exists`, `map` …) pays from a budget of steps and looks at a deadline
//!   ([`budget`]): an evaluation stops itself, inside the loop, and there is no thread to abandon;
//! * whatever builds or copies texts, lists and maps pays by length from a budget of bytes ([`weight`]);
//! * the pattern of `matches` must be a literal of at most 256 characters that compiles quickly;
//! * panics while evaluating are caught and are errors.
//!
//! What is left: one single operation on one large value (`data.text.matches(…)`, `x in data.list`) is not interrupted;
//! it is linear in the body, whose size the source caps.

mod budget;
mod check;
mod eval;
mod kind;
mod said;
#[cfg(test)]
mod tests;
mod weight;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use budget::Budget;
use kind::Kind;

use crate::guard;
use crate::payload::Paths;
use crate::scope::Scope;

/// The longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 4096;

/// A compiled filter. Cheap to clone; the copies share the compiled form.
#[derive(Clone)]
pub struct Filter(Arc<Compiled>);

struct Compiled {
    source: String,
    expression: cel::parser::Expression,
    paths: Paths,
    stack: Stack,
    /// How deep its loops lie within each other.
    nesting: u64,
}

/// Where an expression is evaluated: the interpreter's stack grows with the depth of the tree (35 KiB a step in a debug
/// build), and nobody promises a large one to the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    Callers,
    Large,
}

/// How deep a tree is evaluated on the caller's stack.
const CALLERS_DEPTH_MAX: usize = 20;

/// Why a text is no filter: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", place(.at))]
pub struct FilterFault {
    /// What is wrong and what to do about it.
    pub message: String,
    /// Line and column, from 1, where they are known.
    pub at: Option<(usize, usize)>,
}

fn place(at: &Option<(usize, usize)>) -> String {
    at.map(|(line, column)| format!(" (line {line}, column {column})")).unwrap_or_default()
}

/// What a filter says to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The trigger wants it.
    Pass,
    /// The trigger does not.
    Reject,
    /// Neither: the expression could not be evaluated, or is not a yes or no. The text is for the operator, carries
    /// names and types and never values of the event.
    Error(String),
}

impl Filter {
    /// Compiles `source`, which is to say yes or no. Takes milliseconds and waits for a thread: for the configuration, not
    /// for the event's way.
    ///
    /// # Errors
    /// Syntax, unknown names, limits, and an expression that cannot say yes or no, whatever the event.
    pub fn compile(source: &str) -> Result<Self, FilterFault> {
        Self::made(source, Wanted::Truth)
    }

    /// Compiles `source`, which is to give a text, for [`Filter::eval_text`].
    ///
    /// # Errors
    /// As [`Filter::compile`].
    pub fn compile_text(source: &str) -> Result<Self, FilterFault> {
        Self::made(source, Wanted::Text)
    }

    fn made(source: &str, wanted: Wanted) -> Result<Self, FilterFault> {
        check::source(source)?;
        let text = source.to_owned();
        // The tree is made, measured, and if it is too deep dropped on the thread with the large stack.
        let compiled = guard::on_large_stack(move || compile(text, wanted));
        compiled.map_err(|e| FilterFault { message: e.to_string(), at: None })?.map(|c| Self(Arc::new(c)))
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Which parts of the body it reads; the door projects these.
    pub fn paths(&self) -> &Paths {
        &self.0.paths
    }

    /// Evaluates. Plain comparisons take about a microsecond; loops usually less than a tenth of a second and at most
    /// about one; a deeply nested expression (over 20 operators within each other) starts a thread.
    pub fn eval(&self, scope: &Scope<'_>) -> Verdict {
        self.eval_within(scope, &self.budget())
    }

    fn eval_within(&self, scope: &Scope<'_>, budget: &Budget) -> Verdict {
        self.guarded(|expression| eval::verdict(expression, scope, budget)).unwrap_or_else(Verdict::Error)
    }

    fn budget(&self) -> Budget {
        Budget::new(self.0.nesting)
    }

    /// Evaluates an expression that gives a text, such as a dedup key; a whole number gives its decimal digits.
    ///
    /// # Errors
    /// A sentence for the operator, without values of the event.
    pub fn eval_text(&self, scope: &Scope<'_>) -> Result<String, String> {
        let budget = self.budget();
        self.guarded(|expression| eval::text(expression, scope, &budget)).and_then(|text| text)
    }

    /// A panic in the interpreter must not take the door down, and must not pass.
    fn guarded<R: Send>(&self, evaluate: impl Fn(&cel::parser::Expression) -> R + Sync) -> Result<R, String> {
        let evaluate = || catch_unwind(AssertUnwindSafe(|| evaluate(&self.0.expression))).ok();
        let result = match self.0.stack {
            Stack::Callers => evaluate(),
            Stack::Large => guard::with_large_stack(evaluate).flatten(),
        };
        result.ok_or_else(|| "the filter could not be evaluated: write it in another way".into())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.0.source).finish()
    }
}

/// What an expression is to give.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Truth,
    Text,
    #[cfg(test)]
    Anything,
}

impl Wanted {
    /// Tells of an expression that gives something else for every event.
    fn check(self, expression: &cel::parser::Expression) -> Result<(), FilterFault> {
        let kind = kind::of(expression, &mut Vec::new());
        let (wanted, advice) = match (self, kind) {
            (Self::Truth, Kind::Text | Kind::Other(_) | Kind::NoTruth) => {
                ("true or false", "compare it with something, as in `… == 1`")
            }
            // Also of numbers: what is worked out is no id, and may not be whole.
            (Self::Text, Kind::Truth | Kind::Other(_)) => ("a text", "name what is to be the text, or use `string(…)`"),
            _ => return Ok(()),
        };
        let message = format!("this gives {}, and never {wanted}: {advice}", kind.name());
        Err(FilterFault { message, at: Some((1, 1)) })
    }
}

fn compile(source: String, wanted: Wanted) -> Result<Compiled, FilterFault> {
    let program = cel::Program::compile(&source).map_err(|errors| check::parse_fault(&errors, &source))?;
    let paths = check::expression(&program, &source)?;
    wanted.check(program.expression())?;
    let mut expression = program.expression().clone();
    let nesting = check::nesting(&expression);
    budget::install(&mut expression);
    eval::probe_patterns(&expression)?;
    let stack = if check::depth(&expression) > CALLERS_DEPTH_MAX { Stack::Large } else { Stack::Callers };
    Ok(Compiled { source, expression, paths, stack, nesting })
}
