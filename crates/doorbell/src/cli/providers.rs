//! `doorbell providers`: the senders that Doorbell knows, from the presets built into it. Needs no server.

mod methods;
mod page;

use std::sync::Arc;

use anyhow::Result;
use doorbell_core::provider::{self, Algorithm, Confidence, Handshake, Hash, Piece, Preset, Scheme, Template, Wanted};
use serde_json::{Value, json};

use super::Context;
use super::card::Card;
use super::fault::{Exit, Fault};
use super::list::Format;
use super::screen::span_ms;
use super::table::{self, Column, text};

const EXAMPLES: &str = "\
Examples:
  doorbell providers              all of them
  doorbell providers github       how GitHub signs, and what to write";

/// Arguments of `doorbell providers`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ProvidersArgs {
    /// Everything about this one
    name: Option<String>,
    /// Print the page of the documentation on all of them, as Markdown
    #[arg(long, conflicts_with = "name", conflicts_with = "json")]
    page: bool,
    #[command(flatten)]
    format: Format,
}

const COLUMNS: &[Column] = &[
    Column::id("ID", "id"),
    Column::text("NAME", "name").at_least(30),
    Column::text("SCHEME", "scheme"),
    Column::text("KNOWN FROM", "confidence").spared(1),
];

/// Prints the list or one.
///
/// # Errors
/// If there is no such provider.
pub(super) fn run(args: &ProvidersArgs, cx: &Context) -> Result<Exit> {
    if args.page {
        cx.screen.write(page::page().as_bytes())?;
        return Ok(Exit::Ok);
    }
    let Some(name) = &args.name else {
        let mut all: Vec<Value> = provider::presets().values().map(describe).collect();
        all.extend(methods::METHODS.iter().map(methods::describe));
        all.sort_by_key(|sender| text(sender, "id"));
        if args.format.json {
            all.iter().try_for_each(|p| cx.screen.line(p))?;
        } else {
            cx.screen.line(table::render(&cx.screen, COLUMNS, &all, cx.clock.now()))?;
        }
        return Ok(Exit::Ok);
    };
    if let Some(method) = methods::get(name) {
        match args.format.json {
            true => cx.screen.line(methods::describe(method))?,
            false => cx.screen.line(show_method(cx, method))?,
        }
        return Ok(Exit::Ok);
    }
    let preset = provider::get(name).ok_or_else(|| unknown(name))?;
    if args.format.json {
        cx.screen.line(describe(preset))?;
    } else {
        cx.screen.line(show(cx, preset))?;
    }
    Ok(Exit::Ok)
}

fn unknown(name: &str) -> Fault {
    let fault = Fault::new(format!("there is no provider `{}`", table::one_line(name)));
    let presets = provider::presets().keys().map(String::as_str);
    let known: Vec<&str> = presets.chain(methods::METHODS.iter().map(|m| m.id)).collect();
    match nearest(name, &known) {
        near if near.is_empty() => fault.advice(
            "`doorbell providers` lists all. For any other sender use `standard-webhooks`, `hmac` or `bearer`, or describe it in [sources.NAME.custom].",
        ),
        near => fault.advice(format!("Did you mean {}? `doorbell providers` lists all.", near.join(" or "))),
    }
}

/// The names that may be meant by `word`, in backticks: those that have it in them, else the nearest in spelling.
pub(super) fn nearest(word: &str, known: &[&str]) -> Vec<String> {
    /// More would be the list again.
    const MOST: usize = 5;
    let word = word.to_ascii_lowercase();
    let parts = |name: &&&str| word.len() > 2 && name.contains(&word);
    let mut found: Vec<&str> = known.iter().filter(parts).copied().take(MOST).collect();
    if found.is_empty() {
        let far = |name: &str| strsim::damerau_levenshtein(&word, name);
        let least = known.iter().map(|name| far(name)).min().filter(|least| *least <= (word.len() / 3).max(1));
        found = known.iter().filter(|name| Some(far(name)) == least).copied().take(MOST).collect();
    }
    found.into_iter().map(|name| format!("`{name}`")).collect()
}

fn show_method(cx: &Context, method: &methods::Method) -> String {
    let mut card = Card::new(&cx.screen, cx.clock.now(), "", method.id, method.name);
    card.row("scheme", method.scheme.to_owned()).row("notes", method.notes.to_owned());
    card.part("In doorbell.toml", method.example.lines().map(str::to_owned).collect());
    card.finish()
}

fn describe(preset: &Arc<Preset>) -> Value {
    let docs = &preset.docs;
    let seconds = |d: Option<std::time::Duration>| d.map(|d| d.as_secs());
    json!({
        "id": preset.id,
        "name": preset.name,
        "scheme": scheme(&preset.scheme),
        "confidence": confidence(preset.confidence),
        "proof": preset.credentials().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "signed": preset.scheme.signed().map(|s| texts(&s.templates)),
        "tolerance_s": preset.scheme.signed().and_then(|s| s.timestamp.as_ref()).map(|t| t.tolerance.as_secs()),
        "event_id": texts(&preset.event.id),
        "event_type": texts(&preset.event.event_type),
        "batch": preset.payload.batch.as_ref().map(|path| match path.is_empty() {
            true => "the body, a list".to_owned(),
            false => format!("{}[]", path.join(".")),
        }),
        "handshakes": preset.handshakes.len(),
        "reply": preset.reply,
        "max_body": preset.payload.max_body,
        "setup": docs.setup,
        "secret": docs.secret_name,
        "url": docs.url,
        "retries": docs.retry,
        "retry_span_s": seconds(docs.retry_span),
        "answer_within_s": seconds(docs.answer_within),
        "notes": docs.notes,
        "facts_from": preset.source,
        "example": example(preset),
    })
}

fn show(cx: &Context, preset: &Arc<Preset>) -> String {
    let facts = describe(preset);
    let docs = &preset.docs;
    let mut card = Card::new(&cx.screen, cx.clock.now(), "", &preset.id, &preset.name);
    card.row("set up", docs.setup.clone().unwrap_or_default());
    card.row("secret", docs.secret_name.clone().unwrap_or_default());
    card.members(&facts, &["url", "scheme", "proof", "signed"]);
    if let Some(rule) = preset.scheme.signed().and_then(|s| s.timestamp.as_ref()) {
        card.row("may be", format!("{} old or ahead", span_ms(rule.tolerance.as_millis())));
    }
    card.members(&facts, &["event_id", "event_type", "batch"]);
    for handshake in &preset.handshakes {
        card.row("asks", page::asked(handshake));
    }
    card.members(&facts, &["retries"]);
    card.row("answer in", docs.answer_within.map(|d| span_ms(d.as_millis())).unwrap_or_default());
    card.row("known from", confidence(preset.confidence).to_owned());
    card.members(&facts, &["facts_from", "notes"]);
    card.part("In doorbell.toml", example(preset).lines().map(str::to_owned).collect());
    card.finish()
}

fn example(preset: &Preset) -> String {
    let name = preset.id.split_once('-').map_or(preset.id.as_str(), |(first, _)| first);
    let key = if page::is_method(&preset.id) { "auth" } else { "provider" };
    let mut text = format!("[sources.{name}]\nkind = \"webhook\"\n{key} = \"{}\"\n", preset.id);
    if preset.pairing.is_some() {
        text.push_str(&format!("# The sender hands its secret over: doorbell sources pair {name}\n"));
    } else if preset.scheme != Scheme::None {
        text.push_str(&format!("secret = {{ file = \"secrets/{name}\" }}\n"));
    }
    let asks_token = |h: &Handshake| h.when.iter().any(|(_, wanted)| *wanted == Wanted::VerifyToken);
    if preset.handshakes.iter().any(asks_token) {
        text.push_str(&format!("verify_token = {{ file = \"secrets/{name}-verify-token\" }}\n"));
    }
    text.push_str(&format!("\n[triggers.{name}-events]\nsource = \"{name}\"\nagent = \"example\"\n"));
    text
}

fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Sdk => "the sender's own code",
        Confidence::Docs => "the sender's documentation",
        Confidence::Secondary => "third parties",
        Confidence::Own => "a general method",
    }
}

fn scheme(scheme: &Scheme) -> String {
    let hash = |h: Hash| match h {
        Hash::Sha1 => "sha1",
        Hash::Sha256 => "sha256",
        Hash::Sha384 => "sha384",
        Hash::Sha512 => "sha512",
    };
    match scheme {
        Scheme::Signed(signed) => match signed.algorithm {
            Algorithm::Digest(h) => format!("{} over text and secret", hash(h)),
            _ => scheme.name().to_owned(),
        },
        Scheme::Sns => "RSA with Amazon's certificate, and the topic".to_owned(),
        Scheme::None => "none: anybody may send".to_owned(),
        _ => scheme.name().to_owned(),
    }
}

fn texts(templates: &[Template]) -> Vec<String> {
    templates.iter().map(written).collect()
}

/// A template as a preset's file writes it.
fn written(template: &Template) -> String {
    if let [Piece::At(place)] = template.pieces() {
        return place.to_string();
    }
    let piece = |p: &Piece| match p {
        Piece::Literal(text) => text.replace('\n', "\\n"),
        Piece::Body => "{body}".into(),
        Piece::Payload => "{payload}".into(),
        Piece::BodyCrc32 => "{body_crc32}".into(),
        Piece::EscapedBody => "{escaped body}".into(),
        Piece::SortedForm => "{sorted form}".into(),
        Piece::PhpForm(without) => format!("{{form without {without}, sorted, serialised as PHP does}}"),
        Piece::JsonBody => "{body as a JSON string}".into(),
        Piece::Item(list, start) => format!("{{{start} in {list}}}"),
        Piece::Canonical(list) => format!("{{canonical request with the headers of {list}}}"),
        Piece::Timestamp => "{ts}".into(),
        Piece::Method => "{method}".into(),
        Piece::Url => "{url}".into(),
        Piece::UrlWithPort => "{url with port}".into(),
        Piece::UrlWithoutPort => "{url without port}".into(),
        Piece::PlivoUrl => "{url, sorted query, sorted form}".into(),
        Piece::Path => "{path}".into(),
        Piece::Secret => "{secret}".into(),
        Piece::KeyName => "{key name}".into(),
        Piece::At(place) => format!("{{{place}}}"),
        Piece::Optional(place) => format!("{{{place}, if there is one}}"),
        Piece::Lower(place) => format!("{{{place}, lower case}}"),
        Piece::Mac(_, place) => format!("{{HMAC of {place}}}"),
    };
    template.pieces().iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_can_be_described_with_an_example_that_is_toml() {
        for preset in provider::presets().values() {
            let facts = describe(preset);
            assert!(!facts["scheme"].as_str().unwrap().is_empty(), "{}", preset.id);
            let example: toml::Table = example(preset).parse().unwrap();
            assert_eq!(example["triggers"].as_table().unwrap().len(), 1, "{}", preset.id);
        }
    }

    #[test]
    fn a_misspelt_provider_gets_the_nearest_name() {
        let (text, exit) = super::super::fault::describe(&unknown("githb").into());
        assert!(text.contains("Did you mean `github`?"), "{text}");
        assert_eq!(exit, Exit::Failed);
    }
}
