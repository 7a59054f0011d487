//! What `cel`'s parser says, in plain words. It talks as ANTLR does, of tokens and of everything that might have come instead;
//! a person wants to know what was not expected, after what, and what is missing. Called by `check` for the first complaint.

/// What may be shown of a text that the parser could not read.
const SHOWN_CHARS_MAX: usize = 40;

/// The parser's sentence `said` in plain words. `before` is the text that stands before the place, empty at the
/// beginning of a line. A sentence that is not known is handed on as it is.
pub(super) fn in_words(said: &str, before: &str) -> String {
    let said = said.strip_prefix("Syntax error: ").unwrap_or(said);
    let after = match before {
        "" => "at the beginning of the line".to_owned(),
        text => format!("after `{text}`"),
    };
    if let Some(text) = said.strip_prefix("token recognition error at: ").map(unquoted) {
        return format!("`{}` {after} {}", shown(text), unread(text));
    }
    if said.starts_with("Incomplete `ExprContext` for `_?_:_`") {
        return "`?` has no `:` with the other value: write `test ? yes : no`".into();
    }
    if let Some(found) = said.strip_prefix("no viable alternative at input ") {
        return format!("`{}` cannot be read {after}", shown(unquoted(found)));
    }
    let complaint = between(said, "mismatched input ", " expecting ")
        .or_else(|| between(said, "extraneous input ", " expecting "))
        .or_else(|| between(said, "missing ", " at ").map(|(wanted, found)| (found, wanted)));
    let Some((found, wanted)) = complaint else { return said.chars().take(300).collect() };
    let wanted = missing(wanted);
    match unquoted(found) {
        "<EOF>" => format!("it ends too early {after}: {wanted} is missing"),
        "and" | "AND" => format!("`and` {after} is not expected: write `&&`"),
        "or" | "OR" => format!("`or` {after} is not expected: write `||`"),
        text => format!("`{}` {after} is not expected: {wanted} belongs there", shown(text)),
    }
}

/// Both parts of `start A middle B`.
fn between<'t>(text: &'t str, start: &str, middle: &str) -> Option<(&'t str, &'t str)> {
    text.strip_prefix(start)?.split_once(middle)
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')).unwrap_or(text)
}

fn shown(text: &str) -> String {
    text.trim().chars().take(SHOWN_CHARS_MAX).collect()
}

/// What is the matter with characters that are no token at all.
fn unread(text: &str) -> &'static str {
    match text.trim_start().chars().next() {
        Some('=') => "means nothing: write `==` to compare",
        Some('&') => "means nothing: write `&&` for \"and\"",
        Some('|') => "means nothing: write `||` for \"or\"",
        Some('"' | '\'') => "opens a text that is never closed: add the second quote",
        _ => "means nothing in CEL: take it out",
    }
}

/// What the parser would have taken, as people call it.
fn missing(wanted: &str) -> String {
    let all: Vec<&str> = wanted.trim_matches(['{', '}']).split(", ").map(unquoted).collect();
    match all.as_slice() {
        ["<EOF>"] => "its end, or an operator such as `&&`,".into(),
        [one] if !one.chars().all(|c| c.is_ascii_uppercase() || c == '_') => format!("`{one}`"),
        // A value may begin with a name, which alone is enough to know the list by.
        many if many.contains(&"IDENTIFIER") && many.contains(&"STRING") => "a value".into(),
        many if many.contains(&"IDENTIFIER") => "a name".into(),
        many => match [")", "]", "}", ":"].into_iter().find(|close| many.contains(close)) {
            Some(close) => format!("`{close}`"),
            None => "an operator such as `&&`".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Filter;

    #[test]
    fn what_the_parser_says_is_told_in_plain_words_and_with_its_place() {
        for (text, said) in [
            ("data.a ==", "it ends too early after `data.a ==`: a value is missing (line 1, column 10)"),
            ("data.a = 1", "`=` after `data.a` means nothing: write `==` to compare (line 1, column 8)"),
            ("data.a & data.b", "`&` after `data.a` means nothing: write `&&` for \"and\" (line 1, column 8)"),
            ("data.a # 1", "`#` after `data.a` means nothing in CEL: take it out (line 1, column 8)"),
            (
                "data.a == 'x",
                "`'x` after `data.a ==` opens a text that is never closed: add the second quote (line 1, column 11)",
            ),
            (
                "data.a == 1 and data.b == 2",
                "`and` after `data.a == 1` is not expected: write `&&` (line 1, column 13)",
            ),
            (
                "data.a == 1 data.b",
                "`data` after `data.a == 1` is not expected: an operator such as `&&` belongs there (line 1, column 13)",
            ),
            (
                "data.a == 1)",
                "`)` after `data.a == 1` is not expected: its end, or an operator such as `&&`, belongs there (line 1, column 12)",
            ),
            ("(data.a == 1", "it ends too early after `(data.a == 1`: `)` is missing (line 1, column 13)"),
            ("{\"a\" 1}.a == 1", "`1` after `{\"a\"` is not expected: `:` belongs there (line 1, column 6)"),
            ("* 2", "`*` at the beginning of the line is not expected: a value belongs there (line 1, column 1)"),
            (
                "data.a == \n== 2",
                "`==` at the beginning of the line is not expected: a value belongs there (line 2, column 1)",
            ),
            ("data. == 1", "`. ==` cannot be read after `data.` (line 1, column 7)"),
            ("data.a ? 1", "`?` has no `:` with the other value: write `test ? yes : no` (line 1, column 1)"),
        ] {
            let fault = Filter::compile(text).unwrap_err().to_string();
            assert_eq!(fault, format!("the filter is not a CEL expression: {said}"), "{text}");
        }
    }
}
