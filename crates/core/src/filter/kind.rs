//! What kind of value an expression gives, as far as that is certain for every event: `1 + 1` is never a yes or no, and no
//! event has to come first to show it. What depends on the body is not known, and nothing is said of it. Called by
//! `compile`.

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;

use crate::scope::EventFacts;

/// What an expression gives if it gives anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// True or false.
    Truth,
    /// A text.
    Text,
    /// Neither, and what it is called.
    Other(&'static str),
    /// A number, a time, a list or a text, which the event decides.
    NoTruth,
    /// The event decides.
    Open,
}

impl Kind {
    /// What it certainly is, for people; none where the event decides between that and what is wanted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Truth => "true or false",
            Self::Text => "a text",
            Self::Other(name) => name,
            Self::NoTruth => "a number, a time, a text or a list",
            Self::Open => "anything",
        }
    }
}

const NUMBER: Kind = Kind::Other("a number");
const LIST: Kind = Kind::Other("a list");
const MAP: Kind = Kind::Other("a map");
const TIME: Kind = Kind::Other("a time");

/// The kind of an expression. `bound` are the variables of the loops around, innermost last.
pub(super) fn of<'e>(e: &'e Expression, bound: &mut Vec<(&'e str, Kind)>) -> Kind {
    match &e.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => Kind::Truth,
            LiteralValue::String(_) => Kind::Text,
            LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => NUMBER,
            LiteralValue::Bytes(_) => Kind::Other("bytes"),
            LiteralValue::Null => Kind::Other("null"),
        },
        Expr::List(_) => LIST,
        Expr::Map(_) => MAP,
        Expr::Ident(name) => match bound.iter().rev().find(|(known, _)| known == name) {
            Some((_, kind)) => *kind,
            None if is_map(name) => MAP,
            None if name == "data" => Kind::Open,
            // The rest are the names of types.
            None => Kind::Other("a type"),
        },
        Expr::Select(select) if select.test => Kind::Truth,
        Expr::Select(select) => member(&select.operand, &select.field, bound),
        Expr::Call(call) => of_call(call, bound),
        Expr::Comprehension(turns) => {
            let start = of(&turns.accu_init, bound);
            let outside = bound.len();
            bound.push((&turns.iter_var, Kind::Open));
            bound.extend(turns.iter_var2.as_deref().map(|name| (name, Kind::Open)));
            bound.push((&turns.accu_var, start));
            // A loop may give another kind than it starts with; the macros of CEL do not.
            let result = of(&turns.result, bound);
            bound.truncate(outside);
            result
        }
        Expr::Struct(_) | Expr::Unspecified => Kind::Open,
    }
}

fn is_map(name: &str) -> bool {
    ["event", "headers", "query"].contains(&name)
}

/// `event.type`, `headers["x"]`: what Doorbell itself says has a fixed kind.
fn member(operand: &Expression, name: &str, bound: &[(&str, Kind)]) -> Kind {
    let Expr::Ident(root) = &operand.expr else { return Kind::Open };
    match root.as_str() {
        root if bound.iter().any(|(known, _)| *known == root) => Kind::Open,
        "headers" | "query" => Kind::Text,
        "event" if name == "verified" => Kind::Truth,
        "event" if EventFacts::NAMES.contains(&name) => Kind::Text,
        _ => Kind::Open,
    }
}

fn of_call<'e>(call: &'e CallExpr, bound: &mut Vec<(&'e str, Kind)>) -> Kind {
    match (call.func_name.as_str(), call.args.as_slice()) {
        (
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | operators::IN
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | "startsWith"
            | "endsWith"
            | "contains"
            | "matches",
            _,
        ) => Kind::Truth,
        (operators::CONDITIONAL, [_, yes, no]) => match (of(yes, bound), of(no, bound)) {
            (yes, no) if yes == no => yes,
            (Kind::Open | Kind::Truth, _) | (_, Kind::Open | Kind::Truth) => Kind::Open,
            _ => Kind::NoTruth,
        },
        (operators::INDEX, [operand, Expression { expr: Expr::Literal(LiteralValue::String(name)), .. }]) => {
            member(operand, name.inner(), bound)
        }
        (operators::ADD, [one, other]) => match (of(one, bound), of(other, bound)) {
            (Kind::Text, _) | (_, Kind::Text) => Kind::Text,
            (NUMBER, _) | (_, NUMBER) => NUMBER,
            (LIST, _) | (_, LIST) => LIST,
            _ => Kind::NoTruth,
        },
        (operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO | operators::NEGATE, _) => {
            Kind::Other("a number or a time")
        }
        ("size" | "int" | "uint" | "double", _) => NUMBER,
        ("string", _) => Kind::Text,
        ("timestamp" | "duration", _) => TIME,
        _ => Kind::Open,
    }
}
