//! Templates of the operator: lane keys and prompts, in minijinja. Compiled when the configuration is resolved, rendered
//! at the door (keys) and by the worker (prompts).
//!
//! A template sees `event`, `data`, `headers` and `query`, a prompt also `payload`, and nothing else: no functions, no
//! environment, no files, no includes. What the event says is data: it is put in, and never read as a template.
//!
//! In a prompt every printed value goes through [`Fence::value`], whatever filters it went through before. What is
//! printed as it is (the placed payload, and what the operator marks with the filter `unfenced`) has a type of its own,
//! not minijinja's mark for safe HTML: `tojson`, `join` and `replace` put that mark on text of the event.
//!
//! Bounds: the source's length, the steps (fuel), the length of what comes out, no multiplication (`'x' * data.n` would
//! let an event choose how much memory we take), no macros, captured blocks or namespaces to grow a text in, and no
//! filter that pads, indents or formats to a width; what filters make is counted (`growth`). A loop holds one turn's
//! values at a time. Not bounded: a chain of `set`s that each double the last, step by step in the source; the operator
//! wrote it.

mod growth;
mod names;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value as Jinja};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::fence::Fence;
use crate::guard;
use crate::payload::Paths;
use crate::scope::{self, Fact, Scope};

/// The longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 64 * 1024;
/// The longest lane key, in bytes (`docs/semantics.md`, rule 8).
pub const KEY_BYTES_MAX: usize = 256;
/// The longest prompt, in bytes.
pub const PROMPT_BYTES_MAX: usize = 256 * 1024;
/// Steps of one rendering; a prompt takes tens to hundreds.
const FUEL: u64 = 200_000;
/// The name under which the fenced event may be placed in a prompt.
pub const PAYLOAD: &str = "payload";

const NAME: &str = "template";
/// The variable by which the formatter learns how to print. No template can write that name.
const STYLE: &str = "@style";

/// A compiled template. Cheap to clone.
#[derive(Clone)]
pub struct Template(Arc<Compiled>);

struct Compiled {
    source: String,
    env: Environment<'static>,
    paths: Paths,
    places_payload: bool,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .at.map(|(line, column)| format!(" (line {line}, column {column})")).unwrap_or_default())]
pub struct TemplateFault {
    /// What is wrong and what to do about it.
    pub message: String,
    /// Line and column, from 1, where they are known.
    pub at: Option<(usize, usize)>,
}

impl TemplateFault {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: None }
    }
}

impl Template {
    /// Compiles `source`; for the configuration, not for the event's way.
    ///
    /// # Errors
    /// Syntax, unknown names, multiplication, length; as far as they can be told apart all at once.
    pub fn compile(source: &str) -> Result<Self, Vec<TemplateFault>> {
        if source.len() > SOURCE_BYTES_MAX {
            let message = format!("it is {} bytes long; write at most {SOURCE_BYTES_MAX}", source.len());
            return Err(vec![TemplateFault::new(message)]);
        }
        // Before minijinja sees it: that works constants out while it compiles.
        let scan::Read { paths, unknown } = scan::read(source)?;
        let text = source.to_owned();
        let compiled = guard::on_large_stack(move || compile(text, paths));
        let compiled = compiled.map_err(|e| vec![TemplateFault::new(e.to_string())])?;
        match compiled {
            Ok(compiled) if unknown.is_empty() => Ok(Self(Arc::new(compiled))),
            Ok(_) => Err(unknown),
            Err(faults) => Err(unknown.into_iter().chain(faults).collect()),
        }
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Which parts of the body it reads; the door projects these for lane keys.
    pub fn paths(&self) -> &Paths {
        &self.0.paths
    }

    /// Whether it puts the fenced event (`{{ payload }}`) somewhere itself.
    pub fn places_payload(&self) -> bool {
        self.0.places_payload
    }

    /// A lane key: trimmed, not empty, at most [`KEY_BYTES_MAX`], without control characters, made of texts, numbers and
    /// truths only: a null would put all events without a value into one lane.
    ///
    /// # Errors
    /// A sentence for the operator; the run then gets a lane of its own.
    pub fn render_key(&self, scope: &Scope<'_>) -> Result<String, String> {
        let key = self.render(&Context { scope, style: Style::Key, payload: None }, KEY_BYTES_MAX + 64)?;
        let key = key.trim();
        if key.is_empty() {
            return Err("it is empty for this event".into());
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("it is longer than {KEY_BYTES_MAX} bytes for this event"));
        }
        if key.chars().any(char::is_control) {
            return Err("it has control characters for this event".into());
        }
        Ok(key.to_owned())
    }

    /// The operator's part of a prompt: every value of the event is made harmless by `fence`, and `payload` is the event
    /// inside it.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn render_prompt(&self, scope: &Scope<'_>, fence: &Fence, payload: &str) -> Result<String, String> {
        let context = Context { scope, style: Style::Prompt(fence.clone()), payload: Some(payload) };
        self.render(&context, PROMPT_BYTES_MAX)
    }

    fn render(&self, context: &Context<'_>, limit: usize) -> Result<String, String> {
        let mut out = Limited { text: Vec::new(), limit, full: false };
        growth::begin();
        // A panic in the engine must not take the door or the worker down.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let template = self.0.env.get_template(NAME)?;
            template.render_captured_to(Jinja::from(Serde(context)), &mut out).map(drop)
        }));
        match done {
            Ok(Ok(())) => String::from_utf8(out.text).map_err(|_| "it gave text that is not UTF-8".into()),
            Ok(Err(_)) if out.full => Err(format!("it became longer than {limit} bytes with this event")),
            Ok(Err(error)) => Err(self.said(&error)),
            Err(_) => Err("the template engine failed on it: write it in another way".into()),
        }
    }

    /// An error without values of the event in it, but with the operator's own words.
    fn said(&self, error: &Error) -> String {
        let words = error.range().and_then(|range| self.0.source.get(range)).unwrap_or_default().trim();
        let words: String = words.chars().take(100).collect();
        let mut place = error.line().map(|l| format!(" in line {l}")).unwrap_or_default();
        if !words.is_empty() {
            place = format!("{place} (`{words}`)");
        }
        match error.kind() {
            ErrorKind::UndefinedError => {
                format!("it reads something that this event does not have{place}; use `| default('…')` or `is defined`")
            }
            ErrorKind::OutOfFuel => format!("it takes too many steps with this event{place}"),
            ErrorKind::NonPrimitive => {
                format!("it would be made of a null, a list or an object{place}; use a text, a number or a truth")
            }
            kind => format!("it could not be rendered with this event: {kind}{place}"),
        }
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Template").field(&self.0.source).finish()
    }
}

fn compile(source: String, paths: Paths) -> Result<Compiled, Vec<TemplateFault>> {
    let mut env = environment();
    env.add_template_owned(NAME, source.clone()).map_err(|e| vec![fault(&e, &source)])?;
    let template = env.get_template(NAME).map_err(|e| vec![fault(&e, &source)])?;
    let mut faults = Vec::new();
    for read in template.undeclared_variables(true) {
        let mut steps = read.split('.');
        match (steps.next().unwrap_or_default(), steps.next()) {
            ("event", Some(member)) if !scope::EventFacts::NAMES.contains(&member) => {
                let known = scope::EventFacts::NAMES.join(", ");
                let message = format!("there is no `event.{member}`: there are {known}");
                faults.push(TemplateFault { message, at: scan::place(&source, &["event", member]) });
            }
            ("event" | "data" | "headers" | "query" | PAYLOAD, _) => {}
            (name, _) => {
                let message = if scan::is_called(&source, name) {
                    format!(
                        "there is no function `{name}`: templates have none; there are filters, as in `data.x | upper`"
                    )
                } else {
                    format!("there is no `{name}`: there are event, data, headers, query and payload")
                };
                faults.push(TemplateFault { message, at: scan::place(&source, &[name]) });
            }
        }
    }
    if !faults.is_empty() {
        faults.sort_by_key(|fault| fault.at);
        return Err(faults);
    }
    let places_payload = template.undeclared_variables(false).contains(PAYLOAD);
    Ok(Compiled { source, env, paths, places_payload })
}

fn fault(error: &Error, source: &str) -> TemplateFault {
    let message = error.detail().map_or_else(|| error.kind().to_string(), in_words);
    let at = error.range().map(|range| scan::line_column(source, range.start));
    TemplateFault { message, at: at.or_else(|| error.line().map(|line| (line, 1))) }
}

/// What the parser says with what to write, where it only names its own tokens.
fn in_words(said: &str) -> String {
    let advice = if said == "unexpected end of variable block" {
        return "there is nothing to print before `}}`: name a value, as in `{{ data.title }}`".to_owned();
    } else if said.ends_with("expected end of variable block") {
        "close it with `}}`"
    } else if said.ends_with("expected end of block") {
        "a `%}` is missing, or the end of the block, `{% endfor %}` or `{% endif %}`"
    } else if said.starts_with("unexpected end of input") {
        "close what is open with `}}`, `%}`, `{% endfor %}` or `{% endif %}`"
    } else {
        return said.to_owned();
    };
    format!("{said}: {advice}")
}

/// An environment with nothing in it but what is harmless: no functions, no loader, and of the filters those whose
/// output is about as long as what goes in.
fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(64);
    // For the words of an error; costs nothing until there is one.
    env.set_debug(true);
    env.set_formatter(print);
    names::add(&mut env);
    env
}

/// JSON in one line, without minijinja's escapes for HTML.
fn tojson(value: &Jinja) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::new(ErrorKind::BadSerialization, "no JSON"))
}

/// The first `length` characters, with `…` where something is missing.
fn truncate(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How values are printed.
#[derive(Debug, Clone)]
enum Style {
    Key,
    Prompt(Fence),
}

impl Object for Style {}

/// Text that is printed as it is. Whatever takes it as a text (a filter, `~`) makes a text of the event of it.
#[derive(Debug)]
struct Trusted(String);

impl Object for Trusted {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The formatter. A template without a style in its context prints nothing but errors.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Jinja) -> Result<(), Error> {
    let full = |_| Error::new(ErrorKind::WriteFailure, "too long");
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    if let Some(Trusted(text)) = value.downcast_object_ref::<Trusted>() {
        return out.write_str(text).map_err(full);
    }
    let style = state.lookup(STYLE);
    let style = style.as_ref().and_then(|s| s.downcast_object_ref::<Style>());
    let text = match (style, value.kind()) {
        // As in JSON: minijinja itself says `True`.
        (_, ValueKind::Bool) => if value.is_true() { "true" } else { "false" }.to_owned(),
        (_, ValueKind::Number) => value.to_string(),
        (Some(Style::Key), ValueKind::String) => value.to_string(),
        (Some(Style::Prompt(_)), ValueKind::None) => String::new(),
        (Some(Style::Prompt(fence)), ValueKind::String) => fence.value(value.as_str().unwrap_or_default()),
        (Some(Style::Prompt(fence)), _) => fence.value(&tojson(value)?),
        (Some(Style::Key) | None, _) => return Err(Error::from(ErrorKind::NonPrimitive)),
    };
    out.write_str(&text).map_err(full)
}

/// Takes at most so many bytes.
struct Limited {
    text: Vec<u8>,
    limit: usize,
    full: bool,
}

impl io::Write for &mut Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit.saturating_sub(self.text.len()) {
            self.full = true;
            return Err(io::Error::other("longer than allowed"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The scope as minijinja takes it.
struct Context<'a> {
    scope: &'a Scope<'a>,
    style: Style,
    payload: Option<&'a str>,
}

impl Serialize for Context<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry(STYLE, &Jinja::from_object(self.style.clone()))?;
        map.serialize_entry("event", &Facts(&self.scope.event))?;
        map.serialize_entry("data", self.scope.data)?;
        map.serialize_entry("headers", &Pairs(self.scope.headers))?;
        map.serialize_entry("query", &Pairs(self.scope.query))?;
        if let Some(payload) = self.payload {
            map.serialize_entry(PAYLOAD, &Jinja::from_object(Trusted(payload.to_owned())))?;
        }
        map.end()
    }
}

struct Facts<'a>(&'a scope::EventFacts<'a>);

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        for name in scope::EventFacts::NAMES {
            match self.0.get(name) {
                Some(Fact::Text(text)) => map.serialize_entry(name, text)?,
                Some(Fact::Time(time)) => map.serialize_entry(name, &time)?,
                Some(Fact::Truth(truth)) => map.serialize_entry(name, &truth)?,
                None => {}
            }
        }
        map.end()
    }
}

struct Pairs<'a>(&'a [(String, String)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
