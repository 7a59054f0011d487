//! The values of the file that are more than text and numbers: durations, sizes, rates, networks, places of secrets and
//! fixed words. Each says what it wants when it cannot be read, and describes itself for the JSON Schema.

use std::borrow::Cow;

use doorbell_core::provider::{Preset, PresetFault, Within};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::fault::in_two;
use super::section::{At, Here, Value, as_table};

/// Describes a type for the JSON Schema, in place.
macro_rules! schema {
    ($type:ty, $name:expr, $($json:tt)+) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($json)+)
            }
        }
    };
}

mod measures;
mod secret;
mod senders;
mod words;

pub use measures::*;
pub use secret::*;
pub use senders::*;
pub use words::*;

/// One or several: `x` or `[x, y]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several<T>(pub Vec<At<T>>);

/// A provider of one's own, in the form of the built-in ones; none if its faults were told.
#[derive(Clone, Debug, PartialEq)]
pub struct Custom(pub Option<Box<Preset>>);

fn parsed<T>(
    value: &Spanned<DeValue<'_>>,
    here: &Here<'_>,
    wanted: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let Some(text) = value.get_ref().as_str() else {
        here.wrong_type(value, wanted);
        return None;
    };
    let read = parse(text);
    if read.is_none() {
        // What it looks like is what to do.
        let (what, form) = wanted.split_once(" such as ").filter(|_| wanted.matches(" such as ").count() == 1).unzip();
        let advice = form.map_or_else(String::new, |form| format!("Write it like {form}."));
        here.wrong(value.span().start, format!("`{text:.80}` is not {}", what.unwrap_or(wanted)), advice);
    }
    read
}

impl Value for Custom {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let table = as_table(value, here)?;
        // `sources.NAME.custom`: the preset is called after its source.
        let id = here.key.split('.').nth(1).unwrap_or_default();
        let (text, offset) = (here.report.text(), value.span().start);
        let within = Within { text, file_name: "", table_name: "", offset, id };
        let tell = |fault: PresetFault| {
            let (problem, advice) = in_two(&fault.message);
            here.wrong(fault.offset, problem, advice);
        };
        let read = Preset::parse_custom(table, &within);
        Some(Self(read.map_err(|faults| faults.into_iter().for_each(tell)).ok().map(Box::new)))
    }
}

impl<T: Value> Value for Several<T> {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        if value.get_ref().is_array() {
            return Vec::read(value, here).map(Self);
        }
        T::read(value, here).map(|one| Self(vec![At { value: one, offset: value.span().start }]))
    }
}

schema!(Custom, "Preset", {"type": "object"});
impl<T: JsonSchema> JsonSchema for Several<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Several{}", T::schema_name()).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
