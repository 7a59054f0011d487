//! The filters and tests that templates have, by name: minijinja looks a name up only when it comes to it, and an event is too
//! late to hear of a slip. Used by `environment`, and by `scan` to tell of others.

use std::borrow::Cow;

use minijinja::{Environment, Value, filters, tests};

use super::{Trusted, growth, tojson, truncate};

/// Declares the names once: what is added, and what is known.
macro_rules! names {
    (filters: $($filter:literal => $made:expr,)+ tests: $($test:literal => $check:expr,)+) => {
        /// The filters.
        pub(super) const FILTERS: &[&str] = &[$($filter),+];
        /// The tests.
        pub(super) const TESTS: &[&str] = &[$($test),+];

        pub(super) fn add(env: &mut Environment<'_>) {
            $(env.add_filter($filter, $made);)+
            $(env.add_test($test, $check);)+
        }
    };
}

names! {
    filters:
    "upper" => |text: Cow<'_, str>| growth::made(text.to_uppercase()),
    "lower" => |text: Cow<'_, str>| growth::made(text.to_lowercase()),
    "title" => |text: Cow<'_, str>| growth::made(filters::title(text)),
    "capitalize" => growth::capitalize,
    "trim" => growth::trim,
    "replace" => growth::replace,
    "split" => growth::split,
    "lines" => growth::lines,
    "string" => growth::string,
    "urlencode" => |value: &Value| filters::urlencode(value).and_then(growth::made),
    "default" => filters::default,
    "int" => filters::int,
    "float" => filters::float,
    "round" => filters::round,
    "abs" => filters::abs,
    "tojson" => |value: &Value| tojson(value).and_then(growth::made),
    "truncate" => |text: &str, length: usize| growth::made(truncate(text, length)),
    "unfenced" => |text: String| growth::made(text).map(|text| Value::from_object(Trusted(text))),
    "length" => filters::length,
    "count" => filters::length,
    "join" => growth::join,
    "first" => filters::first,
    "last" => filters::last,
    "sort" => filters::sort,
    "unique" => filters::unique,
    "reverse" => growth::reverse,
    "list" => filters::list,
    "items" => filters::items,
    "dictsort" => filters::dictsort,
    "map" => filters::map,
    "select" => filters::select,
    "reject" => filters::reject,
    "selectattr" => filters::selectattr,
    "rejectattr" => filters::rejectattr,
    "min" => filters::min,
    "max" => filters::max,
    "sum" => growth::sum,
    tests:
    "defined" => tests::is_defined,
    "undefined" => tests::is_undefined,
    "none" => tests::is_none,
    "string" => tests::is_string,
    "number" => tests::is_number,
    "integer" => tests::is_integer,
    "boolean" => tests::is_boolean,
    "true" => tests::is_true,
    "false" => tests::is_false,
    "sequence" => tests::is_sequence,
    "mapping" => tests::is_mapping,
    "iterable" => tests::is_iterable,
    "startingwith" => tests::is_startingwith,
    "endingwith" => tests::is_endingwith,
    "eq" => tests::is_eq,
    "ne" => tests::is_ne,
    "in" => tests::is_in,
}

/// What to write instead of a name that is not there.
pub(super) fn instead(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(word, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + word.len() / 4 => format!("did you mean `{name}`?"),
        _ => format!("use one of {}", known.join(", ")),
    }
}
