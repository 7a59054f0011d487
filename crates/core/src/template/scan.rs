//! Reads a template's source before minijinja does: finds the body paths that it reads, and refuses what prompts and
//! keys have no use for and what could eat the memory. A tag that does not close is left to minijinja, which says it
//! better.
//!
//! Why not minijinja's own list of variables: it counts a name as known from the moment of its assignment, so that
//! `{% set data = data.user %}` reads nothing in its eyes, and it has no paths through `data["a.b"]` or `data.l[0]`.
//! Here every mention of `data` in code counts, whatever is assigned where: at worst a path too many is projected.

use super::TemplateFault;
use super::names::{FILTERS, TESTS};
use crate::payload::Paths;

/// The statements a template may have. Left out: `macro`, `call`, `filter`, `include`, `import`, `extends`, `block` and
/// `do`, which a prompt does not need, and the block form of `set`, which holds output that was already fenced.
const STATEMENTS: [&str; 13] =
    ["for", "endfor", "if", "elif", "else", "endif", "set", "with", "endwith", "break", "continue", "raw", "endraw"];

/// What was found.
pub(super) struct Read {
    /// The body paths that the source reads.
    pub(super) paths: Paths,
    /// Filters and tests that there are not.
    pub(super) unknown: Vec<TemplateFault>,
}

/// Reads `source`.
///
/// # Errors
/// What minijinja must not even compile, all of it, and unknown names.
pub(super) fn read(source: &str) -> Result<Read, Vec<TemplateFault>> {
    let (mut paths, mut unknown, mut refused) = (Paths::default(), Vec::new(), Vec::new());
    for Tag { kind, tokens } in tags(source) {
        let tokens = match kind {
            Tags::Expression => tokens.as_slice(),
            Tags::Statement => match statement(source, &tokens) {
                Ok(tokens) => tokens,
                Err(fault) => {
                    refused.push(fault);
                    continue;
                }
            },
        };
        refused.extend(expression(source, tokens, &mut paths).err());
        names(source, tokens, &mut unknown);
    }
    if refused.is_empty() {
        return Ok(Read { paths, unknown });
    }
    refused.append(&mut unknown);
    refused.sort_by_key(|fault| fault.at);
    Err(refused)
}

/// Where `names`, joined by dots, are first mentioned as a variable.
pub(super) fn place(source: &str, names: &[&str]) -> Option<(usize, usize)> {
    tags(source).iter().find_map(|tag| mention(&tag.tokens, names)).map(|(_, at)| line_column(source, at))
}

/// Whether the first mention of a name is a call.
pub(super) fn is_called(source: &str, name: &str) -> bool {
    let tags = tags(source);
    let first = tags.iter().find_map(|tag| mention(&tag.tokens, &[name]).map(|(rest, _)| rest));
    matches!(first, Some([Token { text: "(", .. }, ..]))
}

/// The tokens behind the first mention, and where it is.
fn mention<'t, 's>(tokens: &'t [Token<'s>], names: &[&str]) -> Option<(&'t [Token<'s>], usize)> {
    let (first, members) = names.split_first()?;
    tokens.iter().enumerate().find_map(|(i, token)| {
        let is_variable = token.kind == Kind::Name && (i == 0 || !matches!(tokens[i - 1].text, "." | "|" | "is"));
        let mut rest = &tokens[i + 1..];
        for member in members {
            rest = match rest {
                [Token { text: ".", .. }, Token { kind: Kind::Name, text, .. }, rest @ ..] if text == member => rest,
                _ => return None,
            };
        }
        (is_variable && token.text == *first).then_some((rest, token.at))
    })
}

/// Line and column of a byte, from 1.
pub(super) fn line_column(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// A tag with code in it.
struct Tag<'s> {
    kind: Tags,
    tokens: Vec<Token<'s>>,
}

#[derive(Clone, Copy)]
enum Tags {
    Expression,
    Statement,
}

/// The tags of a source, as far as they close.
fn tags(source: &str) -> Vec<Tag<'_>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(start) = source.get(at..).and_then(|rest| rest.find('{')) {
        at += start;
        let rest = &source[at..];
        at = if rest.starts_with("{#") {
            rest.find("#}").map_or(source.len(), |end| at + end + 2)
        } else if rest.starts_with("{{") {
            let Some((tokens, end)) = tokens(source, at + 2, "}}") else { break };
            found.push(Tag { kind: Tags::Expression, tokens });
            end
        } else if rest.starts_with("{%") {
            let Some((tokens, end)) = tokens(source, at + 2, "%}") else { break };
            found.push(Tag { kind: Tags::Statement, tokens });
            if is_raw(source, at) { source[end..].find("endraw").map_or(source.len(), |e| end + e) } else { end }
        } else {
            at + 1
        };
    }
    found
}

/// Tells of filters and tests that there are not, also of those that `map`, `select` and the like are given by name.
fn names(source: &str, tokens: &[Token<'_>], faults: &mut Vec<TemplateFault>) {
    let mut check = |token: &Token<'_>, word: &str, what: &str, known: &[&str]| {
        if !known.contains(&word) {
            let message = format!("there is no {what} `{word:.80}`: {}", super::names::instead(word, known));
            faults.push(fault(source, token.at, message));
        }
    };
    for (i, token) in tokens.iter().enumerate() {
        let rest = &tokens[i + 1..];
        match (token.kind, token.text, rest) {
            (Kind::Sign, "|", [name @ Token { kind: Kind::Name, .. }, rest @ ..]) => {
                check(name, dotted(source, name, rest), "filter", FILTERS);
                match (name.text, rest) {
                    ("map", [open, given, ..]) if open.text == "(" && is_plain(given) => {
                        check(given, inner(given), "filter", FILTERS);
                    }
                    ("select" | "reject", [open, given, ..]) if open.text == "(" && is_plain(given) => {
                        check(given, inner(given), "test", TESTS);
                    }
                    ("selectattr" | "rejectattr", [open, _, comma, given, ..])
                        if open.text == "(" && comma.text == "," && is_plain(given) =>
                    {
                        check(given, inner(given), "test", TESTS);
                    }
                    _ => {}
                }
            }
            (Kind::Name, "is", rest) if i > 0 && tokens[i - 1].text != "." => {
                let rest = match rest {
                    [Token { text: "not", .. }, rest @ ..] => rest,
                    rest => rest,
                };
                if let [name @ Token { kind: Kind::Name, .. }, rest @ ..] = rest {
                    check(name, dotted(source, name, rest), "test", TESTS);
                }
            }
            _ => {}
        }
    }
}

/// A name with what is joined to it by dots: minijinja reads `a.b` as the one name of a filter.
fn dotted<'s>(source: &'s str, name: &Token<'s>, mut rest: &[Token<'s>]) -> &'s str {
    let mut end = name.at + name.text.len();
    while let [Token { text: ".", .. }, next @ Token { kind: Kind::Name, .. }, behind @ ..] = rest {
        end = next.at + next.text.len();
        rest = behind;
    }
    source.get(name.at..end).unwrap_or(name.text)
}

/// Whether a token is a text without an escape.
fn is_plain(token: &Token<'_>) -> bool {
    token.kind == Kind::Text && !token.text.contains('\\')
}

fn inner<'s>(token: &Token<'s>) -> &'s str {
    token.text.get(1..token.text.len() - 1).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Name,
    Text,
    Number,
    Sign,
}

#[derive(Debug, Clone, Copy)]
struct Token<'s> {
    kind: Kind,
    text: &'s str,
    at: usize,
}

fn is_raw(source: &str, tag: usize) -> bool {
    source[tag + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("raw")
}

/// The tokens from `at` to the `end` of the tag, and where the template goes on; none if the tag does not close.
fn tokens<'s>(source: &'s str, mut at: usize, end: &str) -> Option<(Vec<Token<'s>>, usize)> {
    let mut list = Vec::new();
    while let Some(first) = source.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = &source[at..];
        if let Some(skip) = ["", "-", "+"].iter().find_map(|ws| rest.strip_prefix(ws)?.strip_prefix(end)) {
            return Some((list, source.len() - skip.len()));
        }
        let (kind, len) = match first {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            c if c.is_alphabetic() || c == '_' => {
                (Kind::Name, rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()))
            }
            c if c.is_ascii_digit() => {
                (Kind::Number, rest.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(rest.len()))
            }
            '"' | '\'' => (Kind::Text, text_len(rest)?),
            c => (Kind::Sign, c.len_utf8()),
        };
        list.push(Token { kind, text: &rest[..len], at });
        at += len;
    }
    None
}

fn text_len(rest: &str) -> Option<usize> {
    let quote = *rest.as_bytes().first()?;
    let mut escaped = false;
    for (i, b) in rest.bytes().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b if b == quote => return Some(i + 1),
            _ => {}
        }
    }
    None
}

/// Checks which statement it is; returns the tokens that are expressions.
fn statement<'t, 's>(source: &str, tokens: &'t [Token<'s>]) -> Result<&'t [Token<'s>], TemplateFault> {
    // `{%- if` has its sign in front.
    let tokens = match tokens {
        [Token { text: "-" | "+", .. }, rest @ ..] => rest,
        all => all,
    };
    let Some((word, rest)) = tokens.split_first() else { return Ok(tokens) };
    if !STATEMENTS.contains(&word.text) {
        let message = format!("`{}` is not allowed in templates: use if, for, set, with or raw", word.text);
        return Err(fault(source, word.at, message));
    }
    if word.text == "set" && !rest.iter().any(|t| t.text == "=") {
        return Err(fault(source, word.at, "the block form of `set` is not allowed: write `{% set name = value %}`"));
    }
    Ok(rest)
}

fn expression(source: &str, tokens: &[Token<'_>], paths: &mut Paths) -> Result<(), TemplateFault> {
    for (i, token) in tokens.iter().enumerate() {
        match (token.kind, token.text) {
            (Kind::Sign, "*") => {
                let message = "templates do not multiply: an event could choose how long the result is";
                return Err(fault(source, token.at, message));
            }
            (Kind::Sign, "{") => {
                return Err(fault(
                    source,
                    token.at,
                    "`{` is not allowed within a tag: templates need no maps of their own",
                ));
            }
            (Kind::Name, "data") if (i == 0 || tokens[i - 1].text != ".") && !is_assigned(&tokens[i + 1..]) => {
                paths.insert(&path(&tokens[i + 1..]));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the name before `rest` is the target of a `set` or the name of an argument.
fn is_assigned(rest: &[Token<'_>]) -> bool {
    matches!(rest, [Token { text: "=", .. }, next, ..] if next.text != "=")
}

/// The names that follow `data` in the source, as far as they are plain.
fn path(mut tokens: &[Token<'_>]) -> Vec<String> {
    let mut path = Vec::new();
    loop {
        match tokens {
            [Token { text: ".", .. }, Token { kind: Kind::Name, text, .. }, rest @ ..] => {
                // `data.labels.items()` reads `data.labels`.
                if rest.first().is_some_and(|t| t.text == "(") {
                    return path;
                }
                path.push((*text).to_owned());
                tokens = rest;
            }
            [Token { text: "[", .. }, Token { kind, text, .. }, Token { text: "]", .. }, rest @ ..] => {
                let name = match kind {
                    // A text with an escape in it is left to the whole subtree.
                    Kind::Text if !text.contains('\\') => &text[1..text.len() - 1],
                    Kind::Number if !text.contains('_') && (*text == "0" || !text.starts_with('0')) => text,
                    _ => return path,
                };
                path.push(name.to_owned());
                tokens = rest;
            }
            _ => return path,
        }
    }
}

fn fault(source: &str, at: usize, message: impl Into<String>) -> TemplateFault {
    TemplateFault { message: message.into(), at: Some(line_column(source, at)) }
}
