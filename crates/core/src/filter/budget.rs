//! Makes loops pay. `cel` expands `all`, `exists`, `exists_one`, `map` and `filter` to comprehensions and runs them
//! without any limit. [`install`] rewrites each so that every turn first reads the variable `@step:N`; the evaluation's
//! resolver answers it only while there is budget, and otherwise the read is an error that ends the whole evaluation.
//! No source text can name that variable: `@` is no character of the language.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::common::types::CelBool;
use cel::parser::Expression;

/// What a whole evaluation may spend; one step is one node of a loop's body in one turn, about 120 ns in a release build.
pub(super) const STEPS_MAX: u64 = 500_000;

/// How long an evaluation may loop. Steps bound what the expression does, and do it alike every time; this is the net
/// under them for steps that are dear (`x in data.long_list`), wide enough that a busy machine does not trip on it.
pub(super) const TIME_MAX: Duration = Duration::from_secs(1);

/// What the variable of a turn that costs `N` steps is called: this and `N`.
pub(super) const STEP: &str = "@step:";

/// One evaluation's budget.
pub(super) struct Budget {
    left: AtomicU64,
    until: Instant,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: AtomicU64::new(STEPS_MAX), until: Instant::now() + TIME_MAX }
    }

    /// Pays for one turn; none when there is too little left. Once empty it stays so: the outer loops end too.
    pub(super) fn pay(&self, variable: &str) -> Option<()> {
        let price = variable.strip_prefix(STEP)?.parse::<u64>().ok()?;
        let left = self.left.load(Ordering::Relaxed).checked_sub(price).filter(|_| Instant::now() < self.until);
        self.left.store(left.unwrap_or(0), Ordering::Relaxed);
        left.map(drop)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 || Instant::now() >= self.until
    }
}

/// Makes every loop in the expression pay. Returns how many nodes the expression has, without those of its loops'
/// bodies, which pay for themselves.
pub(super) fn install(e: &mut Expression) -> u64 {
    1 + match &mut e.expr {
        Expr::Call(call) => call.target.iter_mut().map(|t| install(t)).sum::<u64>() + install_all(&mut call.args),
        Expr::List(list) => install_all(&mut list.elements),
        Expr::Select(select) => install(&mut select.operand),
        Expr::Map(map) => map.entries.iter_mut().map(|entry| install_entry(&mut entry.expr)).sum(),
        Expr::Struct(object) => object.entries.iter_mut().map(|entry| install_entry(&mut entry.expr)).sum(),
        Expr::Comprehension(turns) => install_loop(turns),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

fn install_all(list: &mut [Expression]) -> u64 {
    list.iter_mut().map(install).sum()
}

fn install_entry(entry: &mut EntryExpr) -> u64 {
    match entry {
        EntryExpr::StructField(field) => install(&mut field.value),
        EntryExpr::MapEntry(entry) => install(&mut entry.key) + install(&mut entry.value),
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
