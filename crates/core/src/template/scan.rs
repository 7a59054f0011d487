//! Reads a template's source before minijinja does: finds the body paths that it reads, and refuses what prompts and
//! keys have no use for and what could eat the memory. A tag that does not close is left to minijinja, which says it
//! better.
//!
//! Why not minijinja's own list of variables: it counts a name as known from the moment of its assignment, so that
//! `{% set data = data.user %}` reads nothing in its eyes, and it has no paths through `data["a.b"]` or `data.l[0]`.
//! Here every mention of `data` in code counts, whatever is assigned where: at worst a path too many is projected.

use super::TemplateFault;
use crate::payload::Paths;

/// The statements a template may have. Left out: `macro`, `call`, `filter`, `include`, `import`, `extends`, `block` and
/// `do`, which a prompt does not need, and the block form of `set`, which holds output that was already fenced.
const STATEMENTS: [&str; 13] =
    ["for", "endfor", "if", "elif", "else", "endif", "set", "with", "endwith", "break", "continue", "raw", "endraw"];

/// The body paths that `source` reads.
pub(super) fn paths(source: &str) -> Result<Paths, TemplateFault> {
    let mut paths = Paths::default();
    let mut at = 0;
    while let Some(found) = source.get(at..).and_then(|rest| rest.find('{')) {
        at += found;
        let rest = &source[at..];
        at = if rest.starts_with("{#") {
            rest.find("#}").map_or(source.len(), |end| at + end + 2)
        } else if rest.starts_with("{{") {
            let Some((tokens, end)) = tokens(source, at + 2, "}}") else { break };
            expression(source, &tokens, &mut paths)?;
            end
        } else if rest.starts_with("{%") {
            let Some((tokens, end)) = tokens(source, at + 2, "%}") else { break };
            let tokens = statement(source, &tokens)?;
            expression(source, tokens, &mut paths)?;
            if is_raw(source, at) { source[end..].find("endraw").map_or(source.len(), |e| end + e) } else { end }
        } else {
            at + 1
        };
    }
    Ok(paths)
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
    let line = source.get(..at).unwrap_or(source).matches('\n').count() + 1;
    TemplateFault { message: message.into(), line: Some(line) }
}
