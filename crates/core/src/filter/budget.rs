//! Makes loops pay. `cel` expands `all`, `exists`, `exists_one`, `map` and `filter` to comprehensions and runs them
//! without any limit. [`install`] rewrites each so that every turn first reads the variable `@step:N`; the evaluation's
//! resolver answers it only while there is budget, and otherwise the read is an error that ends the whole evaluation.
//! No source text can name that variable: `@` is no character of the language.
//!
//! And it has whatever grows pay for its bytes: see [`weight`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::common::types::CelBool;
use cel::parser::Expression;

use super::weight::{self, BYTES_MAX};

/// What a whole evaluation may spend; one step is one node of a loop's body in one turn, about 120 ns in a release build.
pub(super) const STEPS_MAX: u64 = 500_000;

/// How long an evaluation may loop. Steps bound what the expression does, and do it alike every time; this is the net
/// under them for steps that are dear (`x in data.long_list`), wide enough that a busy machine does not trip on it.
pub(super) const TIME_MAX: Duration = Duration::from_secs(1);

/// What the variable of a turn that costs `N` steps is called: this and `N`.
pub(super) const STEP: &str = "@step:";

/// One evaluation's budget.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    bytes: AtomicU64,
    until: Instant,
}

impl Budget {
    /// For an expression whose loops lie within each other as deep as `nesting`. Each of them holds a copy of its list's
    /// element, which weighs at most what was paid for the list.
    pub(super) fn new(nesting: u64) -> Self {
        let bytes = BYTES_MAX / nesting.max(1);
        Self { left: AtomicU64::new(STEPS_MAX), bytes: AtomicU64::new(bytes), until: Instant::now() + TIME_MAX }
    }

    /// One with nothing in it.
    pub(super) fn spent() -> Self {
        Self { left: AtomicU64::new(0), bytes: AtomicU64::new(0), until: Instant::now() }
    }

    /// Pays for one turn; none when there is too little left. Once empty it stays so: the outer loops end too.
    pub(super) fn pay(&self, variable: &str) -> Option<()> {
        let price = variable.strip_prefix(STEP)?.parse::<u64>().ok()?;
        let left = self.left.load(Ordering::Relaxed).checked_sub(price).filter(|_| Instant::now() < self.until);
        let left = left.filter(|_| self.bytes_left() > 0);
        self.left.store(left.unwrap_or(0), Ordering::Relaxed);
        left.map(drop)
    }

    /// Pays for so many bytes; none when there are too few left, and then there are none left for anything.
    pub(super) fn pay_bytes(&self, bytes: u64) -> Option<()> {
        let left = self.bytes_left().checked_sub(bytes).filter(|left| *left > 0);
        self.bytes.store(left.unwrap_or(0), Ordering::Relaxed);
        left.map(drop)
    }

    pub(super) fn bytes_left(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 || Instant::now() >= self.until
    }
}

/// Makes every loop in the expression pay, and all that grows. Returns how many nodes the expression has, without those of
/// its loops' bodies, which pay for themselves.
pub(super) fn install(e: &mut Expression) -> u64 {
    1 + match &mut e.expr {
        Expr::Call(call) => install_call(call),
        Expr::List(list) => list.elements.iter_mut().map(|item| install_paid(item, weight::KEEP)).sum(),
        Expr::Select(select) => install(&mut select.operand),
        Expr::Map(map) => map.entries.iter_mut().map(|entry| install_entry(&mut entry.expr)).sum(),
        Expr::Struct(object) => object.entries.iter_mut().map(|entry| install_entry(&mut entry.expr)).sum(),
        Expr::Comprehension(turns) => install_loop(turns),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

fn install_call(call: &mut CallExpr) -> u64 {
    let copies = call.func_name.starts_with(char::is_alphabetic) && !COPIES_NOTHING.contains(&call.func_name.as_str());
    let mut nodes = 0;
    for part in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
        nodes += if copies { install_paid(part, weight::COPY) } else { install(part) };
    }
    // The sums that loops are made of are known by the variable of the loop. What they add pays as a list's element.
    let of_loop = matches!(call.args.first().map(|a| &a.expr), Some(Expr::Ident(name)) if name.starts_with('@'));
    if call.func_name == operators::ADD && call.args.len() == 2 && !of_loop {
        call.func_name = weight::ADD.to_owned();
        call.args.insert(0, ident(weight::BUDGET.to_owned()));
    }
    nodes
}

/// Functions that make nothing as long as what they are given. Of every other one it is taken for granted that it does.
const COPIES_NOTHING: [&str; 11] =
    ["size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "type", "timestamp", "duration"];

/// A text of the source that is no longer pays nothing: as many as there are steps weigh about as much as [`BYTES_MAX`].
const FREE_BYTES: usize = 64;

/// Installs `e`, and has its value handed to the paying function `by`.
fn install_paid(e: &mut Expression, by: &str) -> u64 {
    let nodes = install(e);
    // The steps bound how often these are made, and filters are full of `in ["opened", "closed"]`.
    let is_small = match &e.expr {
        Expr::Literal(LiteralValue::String(text)) => text.inner().len() <= FREE_BYTES,
        Expr::Literal(LiteralValue::Bytes(bytes)) => bytes.inner().len() <= FREE_BYTES,
        Expr::Literal(_) => true,
        _ => false,
    };
    if !is_small {
        let (id, value) = (e.id, std::mem::take(e));
        let args = vec![ident(weight::BUDGET.to_owned()), value];
        *e = Expression { id, expr: Expr::Call(CallExpr { func_name: by.to_owned(), target: None, args }) };
    }
    nodes
}

fn install_entry(entry: &mut EntryExpr) -> u64 {
    match entry {
        EntryExpr::StructField(field) => install_paid(&mut field.value, weight::KEEP),
        EntryExpr::MapEntry(entry) => {
            install_paid(&mut entry.key, weight::KEEP) + install_paid(&mut entry.value, weight::KEEP)
        }
    }
}

fn install_loop(turns: &mut ComprehensionExpr) -> u64 {
    let around = install(&mut turns.iter_range) + install(&mut turns.accu_init) + install(&mut turns.result);
    let price = install(&mut turns.loop_cond) + install(&mut turns.loop_step);
    let paid = ident(format!("{STEP}{price}"));
    if !matches!(turns.loop_cond.expr, Expr::Literal(_)) {
        // `all` and `exists` put the errors of a step off, but never those of the condition.
        wrap(&mut turns.loop_cond, paid);
        return around;
    }
    // `map` and `filter` are fast only while the condition is a literal and the step has its shape: the price goes into
    // the step's own condition, or makes it one.
    match &mut turns.loop_step.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL && call.args.len() == 3 => {
            wrap(&mut call.args[0], paid);
        }
        _ => {
            let step = std::mem::take(&mut turns.loop_step);
            turns.loop_step = conditional(step.id, paid, step, ident(turns.accu_var.clone()));
        }
    }
    around
}

/// `e` becomes `paid ? e : false`.
fn wrap(e: &mut Expression, paid: Expression) {
    let inner = std::mem::take(e);
    let no = Expression { id: inner.id, expr: Expr::Literal(LiteralValue::Boolean(CelBool::from(false))) };
    *e = conditional(inner.id, paid, inner, no);
}

fn ident(name: String) -> Expression {
    Expression { id: 0, expr: Expr::Ident(name) }
}

fn conditional(id: u64, when: Expression, then: Expression, otherwise: Expression) -> Expression {
    let func_name = operators::CONDITIONAL.to_owned();
    Expression { id, expr: Expr::Call(CallExpr { func_name, target: None, args: vec![when, then, otherwise] }) }
}
