//! Makes what grows pay. A step bounds how often something is done, and not how much memory it takes: `data.t + data.t`
//! is one step, however long the text is. So `budget` has whatever builds or copies a text, bytes, a list or a map hand
//! its values to a function of this file first, which takes their weight from the evaluation's budget of bytes or ends
//! the evaluation. The budget itself is the function's first argument, under a name that no source text can write.
//!
//! Counted is what was ever made, not what is still held: a filter looks and compares, and has no use for more.

use std::any::Any;
use std::sync::Arc;

use cel::common::types::{CelBytes, CelList, CelMap, CelString, DYN_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};
use serde_json::Value;

use super::budget::Budget;

/// What one evaluation may make of texts, bytes, lists and maps, in bytes. The turning loops hold a copy of what they are
/// at, so an evaluation with loops within each other gets its part of this ([`Budget::new`]).
pub(super) const BYTES_MAX: u64 = 64 << 20;

/// The variable that holds the budget.
pub(super) const BUDGET: &str = "@budget";
/// `@keep(@budget, v)` is `v`, which is then put into a list or a map: a text that is borrowed from the event stays so.
pub(super) const KEEP: &str = "@keep";
/// `@copy(@budget, v)` is `v`, whose text is then copied.
pub(super) const COPY: &str = "@copy";
/// `@add(@budget, a, b)` is `a + b`.
pub(super) const ADD: &str = "@add";

/// About what a value takes beside its text: its place in a list, its box, and what the allocator adds.
const VALUE_BYTES: u64 = 48;
/// About what a member of a map takes beside its value: its key and its part of the table, which is never full.
const MEMBER_BYTES: u64 = 96;

/// Teaches `env` the functions that pay.
pub(super) fn add(env: &mut Env) -> bool {
    let one = || vec![DYN_TYPE, DYN_TYPE];
    env.add_overload(KEEP, KEEP, one(), keep).is_ok()
        && env.add_overload(COPY, COPY, one(), copy).is_ok()
        && env.add_overload(ADD, ADD, vec![DYN_TYPE, DYN_TYPE, DYN_TYPE], sum).is_ok()
}

/// Pays for turning a part of the event into values of `cel`, whose texts stay in the event.
pub(super) fn pay_for_json(budget: &Budget, value: &Value) -> Option<()> {
    budget.pay_bytes(VALUE_BYTES)?;
    match value {
        Value::Array(list) => list.iter().try_for_each(|item| pay_for_json(budget, item)),
        Value::Object(object) => object.values().try_for_each(|item| {
            budget.pay_bytes(MEMBER_BYTES)?;
            pay_for_json(budget, item)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(()),
    }
}

/// Pays for a copy of `value`, with all that is in it.
fn pay_for(budget: &Budget, value: &dyn Val) -> Option<()> {
    budget.pay_bytes(VALUE_BYTES)?;
    if let Some(text) = value.downcast_ref::<CelString>() {
        budget.pay_bytes(if text.as_borrowed().is_some() { 0 } else { length(text.inner().len()) })
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        budget.pay_bytes(if bytes.as_borrowed().is_some() { 0 } else { length(bytes.inner().len()) })
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        list.inner().iter().try_for_each(|item| pay_for(budget, item.as_ref()))
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.inner().iter().try_for_each(|(key, item)| {
            budget.pay_bytes(MEMBER_BYTES)?;
            pay_for(budget, key.inner())?;
            pay_for(budget, item.as_ref())
        })
    } else {
        Some(())
    }
}

/// Pays for `value` and for its text too, if it is one.
fn pay_for_text(budget: &Budget, value: &dyn Val) -> Option<()> {
    match plain(value) {
        Some(bytes) => budget.pay_bytes(VALUE_BYTES.saturating_add(bytes)),
        None => pay_for(budget, value),
    }
}

/// How long a text or bytes are; none for what is neither.
fn plain(value: &dyn Val) -> Option<u64> {
    let text = value.downcast_ref::<CelString>().map(|text| text.inner().len());
    text.or_else(|| value.downcast_ref::<CelBytes>().map(|bytes| bytes.inner().len())).map(length)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

type Given<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Made<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn keep<'b, 'v>(mut given: Given<'b, 'v>) -> Made<'b, 'v> {
    let value = given.pop().ok_or_else(spent)?;
    pay_for(budget(&given)?, value.as_ref()).ok_or_else(spent)?;
    Ok(value)
}

fn copy<'b, 'v>(mut given: Given<'b, 'v>) -> Made<'b, 'v> {
    let value = given.pop().ok_or_else(spent)?;
    pay_for_text(budget(&given)?, value.as_ref()).ok_or_else(spent)?;
    Ok(value)
}

fn sum<'b, 'v>(mut given: Given<'b, 'v>) -> Made<'b, 'v> {
    let other = given.pop().ok_or_else(spent)?;
    let one = given.pop().ok_or_else(spent)?;
    let budget = budget(&given)?;
    pay_for_text(budget, one.as_ref()).and_then(|()| pay_for_text(budget, other.as_ref())).ok_or_else(spent)?;
    // Said without the values: `cel` would copy both into its error.
    let unfit = || ExecutionError::UnsupportedBinaryOperator("add", cel::Value::Null, cel::Value::Null);
    let grows = |value: &dyn Val| value.as_sizer().is_some();
    if (grows(one.as_ref()) || grows(other.as_ref())) && one.get_type() != other.get_type() {
        return Err(unfit());
    }
    Ok(CowVal::Owned(one.as_adder().ok_or_else(unfit)?.add(other.as_ref())?.into_owned()))
}

fn budget<'g>(given: &'g [CowVal<'_, '_>]) -> Result<&'g Budget, ExecutionError> {
    given.first().and_then(|value| value.downcast_ref::<Budget>()).ok_or_else(spent)
}

fn spent() -> ExecutionError {
    ExecutionError::UndeclaredReference(Arc::new(BUDGET.to_owned()))
}

static TYPE: Type = Type::new_unspecified_type("@budget");

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &TYPE
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    /// Never asked for. A copy would be a second purse, so it is an empty one.
    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self::spent())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}
