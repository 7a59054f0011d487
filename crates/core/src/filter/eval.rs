//! Evaluates a compiled filter over a [`Scope`] without copying the event.
//!
//! `cel` asks its resolver for the longest name first: for `data.user.login` it asks for that whole text before `data`.
//! So a scalar at the end of a path is answered straight from the projected JSON, borrowed, and nothing else of the
//! event is turned into CEL values. Lists and objects are turned once an evaluation, when first asked for.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use cel::common::ast::{CallExpr, EntryExpr, Expr, operators};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::parser::Expression;
use cel::{Context, Env, ExecutionError};
use serde_json::Value;

use super::budget::{Budget, STEP, STEPS_MAX, TIME_MAX};
use super::weight::{self, BUDGET, BYTES_MAX};
use super::{FilterFault, Verdict};
use crate::scope::{Fact, Scope};

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // Without them whatever grows is an error: no names of theirs are taken, so they are there.
    weight::add(&mut env);
    Arc::new(env)
});
static YES: LazyLock<CelBool> = LazyLock::new(|| CelBool::from(true));

/// A pattern that takes longer than this to compile once is refused.
const PATTERN_TIME_MAX: Duration = Duration::from_millis(50);

/// Evaluates `expression` over `scope` to a yes or no.
pub(super) fn verdict(expression: &Expression, scope: &Scope<'_>, budget: &Budget) -> Verdict {
    let read = |value: &dyn Val| match value.downcast_ref::<CelBool>() {
        Some(yes) if *yes.inner() => Verdict::Pass,
        Some(_) => Verdict::Reject,
        None => Verdict::Error(format!("the filter gives a {}, not true or false", value.get_type().name())),
    };
    resolve(expression, scope, budget, read).unwrap_or_else(Verdict::Error)
}

/// Evaluates `expression` over `scope` to a text. A whole number is its decimal digits: most ids in JSON are numbers.
pub(super) fn text(expression: &Expression, scope: &Scope<'_>, budget: &Budget) -> Result<String, String> {
    let read = |value: &dyn Val| {
        let text = value.downcast_ref::<CelString>().map(|text| text.inner().to_owned());
        let int = || value.downcast_ref::<CelInt>().map(|int| int.inner().to_string());
        let uint = || value.downcast_ref::<CelUInt>().map(|uint| uint.inner().to_string());
        text.or_else(int).or_else(uint).ok_or_else(|| {
            let kind = value.get_type().name();
            format!("the expression gives a {kind}, neither a text nor a whole number: use `string(…)`")
        })
    };
    resolve(expression, scope, budget, read).and_then(|text| text)
}

fn resolve<R>(
    expression: &Expression,
    scope: &Scope<'_>,
    budget: &Budget,
    read: impl FnOnce(&dyn Val) -> R,
) -> Result<R, String> {
    let names = Names { scope, budget, data: OnceLock::new(), others: Default::default() };
    let mut context = Context::with_env(Arc::clone(&ENV));
    context.set_variable_resolver(&names);
    match &cel::Value::resolve_val(expression, &context) {
        Ok(value) => Ok(read(value.as_ref())),
        Err(error) => Err(said(error, budget)),
    }
}

/// An error without any value of the event in it.
fn said(error: &ExecutionError, budget: &Budget) -> String {
    match error {
        _ if budget.bytes_left() == 0 => {
            let mib = BYTES_MAX >> 20;
            format!("the filter makes more than {mib} MiB of texts and lists of this event: read and add less of it")
        }
        ExecutionError::UndeclaredReference(name) if name.starts_with(STEP) || budget.is_spent() => {
            let secs = TIME_MAX.as_secs();
            format!("the filter's loops took more than {STEPS_MAX} steps or {secs} s on this event: loop over less")
        }
        ExecutionError::NoSuchKey(name) => {
            let name: String = name.chars().take(100).collect();
            format!("the event has no `{name}` where the filter reads it: ask with `has(…)` first")
        }
        // A member of what has none, as of a body that is `null` or a list.
        ExecutionError::NoSuchOverload(_) if error.to_string().contains("'_._'") => {
            "the event has no object where the filter reads a field of one: ask `type(data) == map` first".into()
        }
        ExecutionError::NoSuchOverload(_) => format!("{error}: compare values of one kind"),
        ExecutionError::UndeclaredReference(name) => format!("there is no `{name}` in this event"),
        ExecutionError::IndexOutOfBounds(_) => "a list of the event is shorter than the filter's index".into(),
        ExecutionError::FunctionError { function, .. } => {
            format!("`{function}` cannot be applied to this event's value")
        }
        ExecutionError::UnexpectedType { got, want } => {
            format!("the filter needs a {want} where this event has a {got}")
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".into(),
        ExecutionError::Overflow(..) => "a number grew too large".into(),
        _ => "an operation does not fit the kinds of this event's values".into(),
    }
}

/// Whether `cel` knows the function that is called.
pub(super) fn knows(call: &CallExpr) -> bool {
    let built_in = [
        operators::CONDITIONAL,
        operators::LOGICAL_AND,
        operators::LOGICAL_OR,
        operators::LOGICAL_NOT,
        operators::NOT_STRICTLY_FALSE,
        operators::NEGATE,
        operators::INDEX,
        operators::IN,
        operators::ADD,
        operators::SUBSTRACT,
        operators::MULTIPLY,
        operators::DIVIDE,
        operators::MODULO,
        operators::EQUALS,
        operators::NOT_EQUALS,
        operators::LESS,
        operators::LESS_EQUALS,
        operators::GREATER,
        operators::GREATER_EQUALS,
    ];
    if built_in.contains(&call.func_name.as_str()) {
        return true;
    }
    // The library is asked itself: called with nothing, or on null, it names an unknown function as undeclared.
    let null = || Box::new(Expression { id: 0, expr: Expr::Literal(cel::common::ast::LiteralValue::Null) });
    let target = call.target.is_some().then(null);
    let probe = CallExpr { func_name: call.func_name.clone(), target, args: Vec::new() };
    let probe = Expression { id: 0, expr: Expr::Call(probe) };
    let context = Context::with_env(Arc::clone(&ENV));
    !matches!(cel::Value::resolve_val(&probe, &context), Err(ExecutionError::UndeclaredReference(_)))
}

/// Whether `name` is a type of the language, as in `type(data.n) == int`.
pub(super) fn is_type(name: &str) -> bool {
    let probe = Expression { id: 0, expr: Expr::Ident(name.to_owned()) };
    !name.starts_with('.') && cel::Value::resolve_val(&probe, &Context::with_env(Arc::clone(&ENV))).is_ok()
}

/// Compiles every pattern of `matches` once, to refuse what is no pattern or takes too long.
pub(super) fn probe_patterns(e: &Expression) -> Result<(), FilterFault> {
    match &e.expr {
        Expr::Call(call) => {
            if let ("matches", Some(pattern)) = (call.func_name.as_str(), call.args.last()) {
                probe_pattern(pattern)?;
            }
            call.target.iter().try_for_each(|t| probe_patterns(t))?;
            call.args.iter().try_for_each(probe_patterns)
        }
        Expr::List(list) => list.elements.iter().try_for_each(probe_patterns),
        Expr::Select(select) => probe_patterns(&select.operand),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::StructField(field) => probe_patterns(&field.value),
            EntryExpr::MapEntry(entry) => {
                probe_patterns(&entry.key)?;
                probe_patterns(&entry.value)
            }
        }),
        Expr::Comprehension(c) => [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result]
            .into_iter()
            .try_for_each(probe_patterns),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Ok(()),
    }
}

fn probe_pattern(pattern: &Expression) -> Result<(), FilterFault> {
    let text = cel::common::ast::LiteralValue::String(CelString::from(String::new()));
    let target = Some(Box::new(Expression { id: 0, expr: Expr::Literal(text) }));
    let call = CallExpr { func_name: "matches".into(), target, args: vec![pattern.clone()] };
    let started = Instant::now();
    let context = Context::with_env(Arc::clone(&ENV));
    let fault = |message: String| Err(FilterFault { message, at: None });
    match cel::Value::resolve_val(&Expression { id: 0, expr: Expr::Call(call) }, &context) {
        Err(ExecutionError::FunctionError { message, .. }) => fault(format!("the pattern of `matches`: {message}")),
        Err(error) => fault(format!("the pattern of `matches`: {error}")),
        Ok(_) if started.elapsed() > PATTERN_TIME_MAX => {
            fault("the pattern of `matches` takes too long to compile: use smaller repeat counts".into())
        }
        Ok(_) => Ok(()),
    }
}

/// Answers the names of an expression from the event.
struct Names<'a> {
    scope: &'a Scope<'a>,
    budget: &'a Budget,
    /// All of `data`, made when a list or object of it is first asked for; none if it weighs too much.
    data: OnceLock<Option<Box<dyn Val + 'a>>>,
    /// `event`, `headers` and `query` as maps, for dynamic and quoted names.
    others: [OnceLock<Box<dyn Val + 'a>>; 3],
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (root, rest) = variable.split_once('.').map_or((variable, None), |(root, rest)| (root, Some(rest)));
        match (root, rest) {
            ("event", Some(name)) => self.scope.event.get(name).map(fact),
            ("data", Some(path)) => self.at(path),
            ("data", None) => self.data().map(CowVal::Borrowed),
            (BUDGET, None) => Some(CowVal::Borrowed(self.budget)),
            ("event", None) => Some(self.other(0, || {
                let known = crate::scope::EventFacts::NAMES.into_iter();
                map(known.filter_map(|name| Some((name, fact(self.scope.event.get(name)?).into_owned()))))
            })),
            ("headers", None) => Some(self.other(1, || pairs(self.scope.headers))),
            ("query", None) => Some(self.other(2, || pairs(self.scope.query))),
            _ if variable.starts_with(STEP) => self.budget.pay(variable).map(|()| CowVal::Borrowed(&*YES)),
            _ => None,
        }
    }
}

impl<'a> Names<'a> {
    fn data(&self) -> Option<&(dyn Val + 'a)> {
        let made = || weight::pay_for_json(self.budget, self.scope.data).map(|()| converted(self.scope.data));
        self.data.get_or_init(made).as_deref()
    }

    fn other<'b>(&'b self, which: usize, make: impl FnOnce() -> Box<dyn Val + 'a>) -> CowVal<'b, 'b> {
        CowVal::Borrowed(&**self.others[which].get_or_init(make))
    }

    /// What lies at a dotted path of plain names; none if it is not there, and then `cel` walks the path itself and
    /// says what is wrong.
    fn at<'b>(&'b self, path: &str) -> Option<CowVal<'b, 'b>> {
        let found = path.split('.').try_fold(self.scope.data, |value, name| value.as_object()?.get(name))?;
        if !matches!(found, Value::Array(_) | Value::Object(_)) {
            return Some(CowVal::Owned(converted(found)));
        }
        let mut at: &'b (dyn Val + 'b) = self.data()?;
        for name in path.split('.') {
            let CowVal::Borrowed(next) = at.as_indexer()?.get(&CelString::from(name)).ok()? else { return None };
            at = next;
        }
        Some(CowVal::Borrowed(at))
    }
}

fn fact<'b>(fact: Fact<'b>) -> CowVal<'b, 'b> {
    match fact {
        Fact::Text(text) => CowVal::owned(CelString::from(text)),
        Fact::Time(time) => CowVal::owned(CelString::from(time.to_string())),
        Fact::Truth(truth) => CowVal::owned(CelBool::from(truth)),
    }
}

fn pairs(pairs: &[(String, String)]) -> Box<dyn Val + '_> {
    map(pairs.iter().map(|(name, value)| {
        let value: Box<dyn Val + '_> = Box::new(CelString::from(value.as_str()));
        (name.as_str(), value)
    }))
}

fn map<'v>(members: impl Iterator<Item = (&'v str, Box<dyn Val + 'v>)>) -> Box<dyn Val + 'v> {
    let members: HashMap<CelMapKey<'v>, Box<dyn Val + 'v>> =
        members.map(|(name, value)| (CelMapKey::from(name), value)).collect();
    Box::new(CelMap::from(members))
}

/// JSON as a CEL value that borrows its texts. Whole numbers are `int` where they fit, so that arithmetic with the
/// literals of a filter works, else `uint`. Depth is bounded by the reader of bodies.
fn converted(value: &Value) -> Box<dyn Val + '_> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(b) => Box::new(CelBool::from(*b)),
        Value::String(s) => Box::new(CelString::from(s.as_str())),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(int), _) => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            (None, None) => Box::new(CelDouble::from(n.as_f64().unwrap_or(f64::NAN))),
        },
        Value::Array(list) => Box::new(CelList::from(list.iter().map(converted).collect::<Vec<_>>())),
        Value::Object(object) => map(object.iter().map(|(name, value)| (name.as_str(), converted(value)))),
    }
}
