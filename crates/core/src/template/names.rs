//! The filters and tests that templates have, by name: minijinja looks a name up only when it comes to it, and an event is too
//! late to hear of a slip. Used by `environment`, and by `scan` to tell of others.

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
    "upper" => filters::upper,
    "lower" => filters::lower,
    "title" => filters::title,
    "capitalize" => filters::capitalize,
    "trim" => filters::trim,
    "replace" => growth::replace,
    "split" => filters::split,
    "lines" => filters::lines,
    "string" => filters::string,
    "urlencode" => filters::urlencode,
    "default" => filters::default,
    "int" => filters::int,
    "float" => filters::float,
    "round" => filters::round,
    "abs" => filters::abs,
    "tojson" => tojson,
    "truncate" => truncate,
    "unfenced" => |text: String| Value::from_object(Trusted(text)),
    "length" => filters::length,
    "count" => filters::length,
    "join" => growth::join,
    "first" => filters::first,
    "last" => filters::last,
    "sort" => filters::sort,
    "unique" => filters::unique,
    "reverse" => filters::reverse,
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
    "sum" => filters::sum,
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
