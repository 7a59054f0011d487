//! `doorbell send`: rings a trigger of a running server as its real sender would: same signature, same headers. Reads the
//! sender's rule and the secret from the configuration, so it works only where that may be read.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use doorbell_core::provider::{Draft, Format, sign};
use doorbell_core::{Name, Secret, Timestamp};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::Context;
use super::access::{Access, DEFAULT_CONFIG};
use super::client::{Answer, Client, Delivery};
use super::fault::{Exit, Fault};
use super::list::Format as Shape;
use super::samples::{self, NoSample};
use super::screen::Tone;
use super::signing;
use super::table::text;
use crate::config::{Resolved, Sender};

const EXAMPLES: &str = "\
Examples:
  doorbell send github                                       a sample delivery of its provider
  doorbell send github --provider-event push                 of another type, where there is a sample
  doorbell send github --provider-event release --data release.json
  jq '.number = 8' pr.json | doorbell send github --data -
  doorbell send payments --query 'data.id=123456'            for senders that sign a part of the query
  doorbell send discord --key test-key.pem                   for senders that sign with a private key: with one of yours
  doorbell send github --id 72d3162e-cc78-11e3-81ab-4c9367dc0958        twice: the second is a duplicate

Where only the sender can sign, nothing is sent, and you are told why and what to do instead.
Exit code 0 if the server took it (any 2xx), else 1.";

/// A delivery larger than the largest body that can be configured is refused by any server.
const DATA_BYTES_MAX: u64 = 1 << 30;

/// Arguments of `doorbell send`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// The trigger to ring; a source's name rings all of its triggers
    trigger: Name,
    /// The event's type as the provider calls it, such as pull_request; without --data there must be a sample of it
    #[arg(long, value_name = "TYPE")]
    provider_event: Option<String>,
    /// The body, from a file, or - for standard input [default: a sample]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// One more header; wins over what the provider would set
    // Read by hand: a fault that clap tells repeats the value, and that may be a credential.
    #[arg(long, value_name = "K:V")]
    header: Vec<String>,
    /// One more parameter of the query
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    query: Vec<(String, String)>,
    /// What to sign with, in place of the source's secret: a private key as PKCS#8 in PEM, or the text of a secret
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The delivery's id [default: a fresh one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    format: Shape,
    #[command(flatten)]
    access: Access,
}

/// The fault repeats nothing of the value.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("it is written as `Name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("`{}` is not a header's name", name.trim()))?;
    let value = value.trim().parse().map_err(|_| "the value holds characters that no header may".to_owned())?;
    Ok((name, value))
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write it as `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Signs and sends; prints the answer.
///
/// # Errors
/// If the trigger is unknown, the body cannot be read or signed, or the server is not reachable.
pub(super) async fn run(args: SendArgs, cx: &Context) -> Result<Exit> {
    let config = args.access.config_file().unwrap_or_else(|| DEFAULT_CONFIG.into());
    let resolved = super::resolved(&config, cx).await?;
    let sender = find(&resolved, &args.trigger)?;
    let client = args.access.client(cx)?;
    let more = args.header.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>();
    let mut headers: HeaderMap =
        more.map_err(|why| Fault::usage(format!("a header of --header cannot be sent: {why}")))?.into_iter().collect();
    let key = args.key.as_deref().map(signing::read_key).transpose()?;
    signing::check(sender, key.as_ref(), &headers)?;
    if key.is_none() && signing::is_kept(sender) {
        let source = client.get(&format!("sources/{}", sender.source), &[]).await;
        let is_missing = source.is_ok_and(|source| text(&source, "state") == "secret_missing");
        return Err(signing::kept(sender, is_missing).into());
    }
    let id = args.id.clone().unwrap_or_else(|| fresh_id(cx));
    let (body, event_type) = match &args.data {
        Some(file) => (given(cx, file, &args, sender)?, args.provider_event.clone().unwrap_or_default()),
        None => {
            let sample = samples::of(&sender.preset, args.provider_event.as_deref(), &id)
                .map_err(|none| no_sample(&none, &args, sender))?;
            if sample.is_form && !headers.contains_key(CONTENT_TYPE) {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(samples::FORM));
            }
            (sample.written(&sender.preset), sample.event_type)
        }
    };
    let letter = Letter { id: &id, event_type: &event_type, headers, query: &args.query, key, body };
    let public = resolved.server.public_url.as_deref();
    let rung_at = cx.clock.now();
    let answer = client.ring(sealed(&client, sender, public, letter, cx)?).await?;
    let taken = answer.status.is_success();
    print(cx, &args, &answer)?;
    let has_fault = said_filter_error(&answer);
    if (!taken || has_fault) && !args.format.json {
        let why = match refusal(&client, sender, rung_at).await {
            Some(decision) => format!("doorbell decisions show {decision}"),
            None => format!("doorbell decisions --source {}, then doorbell decisions show dec_…", sender.source),
        };
        let config = args.access.config.as_ref().map(|file| format!(" -c {}", file.display())).unwrap_or_default();
        cx.screen.remark(format!("Why: {why}{config}"));
    }
    Ok(if taken { Exit::Ok } else { Exit::Failed })
}

fn no_sample(none: &NoSample, args: &SendArgs, sender: &Sender) -> Fault {
    let wanted = args.provider_event.as_deref().unwrap_or_default();
    let there = match none.0.as_slice() {
        [] => String::new(),
        types => format!(" There are samples of: {}.", types.join(", ")),
    };
    Fault::usage(format!("there is no sample of `{wanted}` by {}", sender.preset.name))
        .advice(format!("Give its body with --data FILE.{there}"))
}

/// Whether it was taken, and started nothing since a filter could not be evaluated.
fn said_filter_error(answer: &Answer) -> bool {
    let said = answer.json();
    ["status", "code", "reason", "decision"].iter().any(|member| text(&said, member) == "filter_error")
}

/// How long the server may take to write a refusal down: it does so behind its answer.
const NOTED_WITHIN: Duration = Duration::from_secs(2);

/// The decision on what was just sent: the one refusal of the source since then. None if there are several, if the server
/// does not let us look, or if its clock is behind ours.
async fn refusal(client: &Client, sender: &Sender, since: Timestamp) -> Option<String> {
    let query = [("source", sender.source.to_string()), ("since", since.to_string())];
    let deadline = Instant::now() + NOTED_WITHIN;
    loop {
        let page = client.get("decisions", &query).await.ok()?;
        let items = page.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let refused = |item: &&Value| {
            matches!(
                text(item, "kind").as_str(),
                "rejected" | "unreadable" | "limited" | "unavailable" | "filter_error"
            )
        };
        let mut found = items.iter().filter(refused).map(|item| text(item, "id"));
        match (found.next(), found.next()) {
            (Some(one), None) => return Some(one),
            (Some(_), Some(_)) => return None,
            (None, _) if Instant::now() >= deadline => return None,
            (None, _) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What is to be sent, before it is signed.
pub(super) struct Letter<'l> {
    /// The delivery's id.
    pub id: &'l str,
    /// The event's type.
    pub event_type: &'l str,
    /// Headers that win over the sender's.
    pub headers: HeaderMap,
    /// Parameters of the query.
    pub query: &'l [(String, String)],
    /// What to sign with, if not with the source's secret.
    pub key: Option<Secret>,
    /// The body.
    pub body: Bytes,
}

/// The letter with the sender's signature and address on it.
///
/// # Errors
/// If it cannot be signed.
pub(super) fn sealed(
    client: &Client,
    sender: &Sender,
    public: Option<&str>,
    letter: Letter<'_>,
    cx: &Context,
) -> Result<Delivery> {
    let target = format!("{}{}", client.base(), sender.path);
    let mut url = Url::parse(&target).map_err(|e| Fault::new(format!("`{target}` is not an address")).cause(e))?;
    if !letter.query.is_empty() {
        url.query_pairs_mut().extend_pairs(letter.query);
    }
    let query = url.query().unwrap_or_default().to_owned();
    let known_as = public.map(|base| {
        let ask = if query.is_empty() { "" } else { "?" };
        format!("{}{}{ask}{query}", base.trim_end_matches('/'), sender.path)
    });
    let secret = signing::secret(sender, letter.key)?;
    let draft = Draft {
        method: &Method::POST,
        url: known_as.as_deref(),
        path: &sender.path,
        query: &query,
        id: letter.id,
        event_type: letter.event_type,
        headers: letter.headers,
        body: &letter.body,
    };
    let parts = sign(&sender.preset, &secret, draft, cx.clock.now())
        .map_err(|e| Fault::new(format!("cannot sign as {}", sender.preset.name)).cause(e))?;
    if !parts.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&parts.query);
    }
    if let Some(token) = &parts.path {
        url.set_path(&format!("{}/{token}", url.path()));
    }
    Ok(Delivery { method: Method::POST, url, headers: parts.headers, body: parts.body })
}

/// A delivery id that nobody used before.
pub(super) fn fresh_id(cx: &Context) -> String {
    format!("doorbell-{:016x}", cx.clock.random())
}

fn find<'r>(resolved: &'r Resolved, name: &Name) -> Result<&'r Sender> {
    let by_trigger = resolved.senders.values().find(|s| s.triggers.contains(name));
    if let Some(sender) = by_trigger.or_else(|| resolved.senders.get(name)) {
        return Ok(sender);
    }
    let mut known: Vec<&str> = resolved.senders.values().flat_map(|s| &s.triggers).map(Name::as_str).collect();
    known.sort_unstable();
    let fault = Fault::usage(format!("there is no trigger `{name}` with a webhook in the configuration"));
    Err(match known.is_empty() {
        true => fault.advice("Add a [triggers.NAME] table with a `provider` to doorbell.toml."),
        false => fault.advice(format!("There are: {}.", known.join(", "))),
    }
    .into())
}

/// The body that the user gave, with the id in it if one was asked for and this sender puts it there.
fn given(cx: &Context, file: &Path, args: &SendArgs, sender: &Sender) -> Result<Bytes> {
    let body = read(file)?;
    let Ok(mut json) = serde_json::from_slice::<Value>(&body) else { return Ok(body.into()) };
    let preset = &sender.preset;
    let id_put = args.id.as_ref().is_some_and(|id| samples::put_id(preset, &mut json, id));
    let type_put = args.provider_event.as_ref().is_some_and(|t| samples::put_type(preset, &mut json, t));
    let is_form = preset.payload.format == Format::Form;
    if id_put || type_put || preset.writes_into_body() || is_form {
        cx.screen.remark(format!("{} has its own in the body: it was changed before signing.", preset.name));
    }
    Ok(match (id_put || type_put, is_form) {
        (_, true) => samples::form(preset, &json).into(),
        (true, false) => json.to_string().into(),
        (false, false) => body.into(),
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let result = if file == Path::new("-") {
        std::io::stdin().lock().take(DATA_BYTES_MAX + 1).read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(DATA_BYTES_MAX + 1).read_to_end(&mut body))
    };
    result.map_err(|e| Fault::usage(format!("cannot read {}", file.display())).cause(e))?;
    if body.len() as u64 > DATA_BYTES_MAX {
        return Err(Fault::usage(format!("{} is longer than 1 GiB", file.display())).into());
    }
    Ok(body)
}

fn print(cx: &Context, args: &SendArgs, answer: &Answer) -> Result<()> {
    let body = String::from_utf8_lossy(&answer.body);
    if args.format.json {
        return cx.screen.line(body.trim_end());
    }
    let tone = if answer.status.is_success() { Tone::Good } else { Tone::Bad };
    cx.screen.line(cx.screen.paint(tone, &answer.status.to_string()))?;
    cx.screen.line(super::table::harmless(body.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let (name, value) = header("X-Test:  a:b ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-test", "a:b"));
        assert!(header("nothing").is_err() && header("a b: c").is_err());
        assert!(!header("authorization: Bearer hunter2\u{1}").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn a_parameter_is_a_name_and_a_value_that_may_hold_anything() {
        assert_eq!(parameter("data.id=a=b&c").unwrap(), ("data.id".into(), "a=b&c".into()));
        assert_eq!(parameter("flag=").unwrap(), ("flag".into(), String::new()));
        assert!(parameter("nothing").is_err() && parameter("=x").is_err());
    }
}
