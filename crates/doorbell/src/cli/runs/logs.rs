//! `doorbell runs logs`: what the agent says. Its output goes to standard output, its log and Doorbell's notes to standard
//! error, so that the output alone can be piped on.

use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorbell_core::ids::RunId;
use serde_json::Value;

use super::super::Context;
use super::super::client::{Client, EventStream};
use super::super::fault::{Exit, Fault};
use super::super::list::Format;
use super::super::screen::Tone;
use super::super::table::{harmless, text};

const EXAMPLES: &str = "\
Examples:
  doorbell runs logs run_…             what the agent has said so far
  doorbell runs logs -f run_…          watch it work
  doorbell runs logs run_… 2>/dev/null its output alone";

/// Arguments of `doorbell runs logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogsArgs {
    /// Its id
    id: RunId,
    /// Stay until the run has ended
    #[arg(short, long)]
    follow: bool,
}

/// Pieces asked for at once.
const PAGE: u32 = 500;
/// A stream that broke off without anything new is opened again this often in a row.
const REOPENED_MAX: u32 = 5;

/// Prints the pieces in their order.
///
/// # Errors
/// What the API says; a stream that keeps breaking off.
pub(super) async fn print(cx: &Context, client: &Client, args: &LogsArgs, format: Format) -> Result<Exit> {
    let path = format!("runs/{}/log", args.id);
    if args.follow { follow(cx, client, &path, format).await } else { pages(cx, client, &path, format).await }
}

async fn pages(cx: &Context, client: &Client, path: &str, format: Format) -> Result<Exit> {
    let mut after = 0;
    loop {
        let page = client.get(path, &[("after", after.to_string()), ("limit", PAGE.to_string())]).await?;
        let items = page.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().try_for_each(|piece| show(cx, piece, format))?;
        match page.get("next").and_then(Value::as_u64) {
            Some(next) if next > after && !items.is_empty() => after = next,
            _ => return Ok(Exit::Ok),
        }
    }
}

async fn follow(cx: &Context, client: &Client, path: &str, format: Format) -> Result<Exit> {
    let (mut last, mut broken) = (None::<String>, 0);
    loop {
        let mut stream = client.stream(path, last.as_deref()).await?;
        let before = last.clone();
        let why = match drain(cx, &mut stream, &mut last, format).await? {
            Ended::Whole => return Ok(Exit::Ok),
            Ended::Broken(why) => why,
        };
        broken = if last == before { broken + 1 } else { 0 };
        if broken > REOPENED_MAX {
            let fault = Fault::not_reachable("the log keeps breaking off before the run has ended").cause(why);
            return Err(fault.advice("Give the same command again.").into());
        }
        tokio::time::sleep(Duration::from_millis(200) * broken).await;
    }
}

enum Ended {
    Whole,
    Broken(String),
}

async fn drain(cx: &Context, stream: &mut EventStream, last: &mut Option<String>, format: Format) -> Result<Ended> {
    loop {
        match stream.next().await {
            Ok(Some(event)) if event.name == "end" => return Ok(Ended::Whole),
            Ok(Some(event)) => {
                if let Ok(piece) = serde_json::from_str::<Value>(&event.data) {
                    show(cx, &piece, format)?;
                }
                *last = event.id.or(last.take());
            }
            Ok(None) => return Ok(Ended::Broken("the server closed the stream".into())),
            Err(error) => return Ok(Ended::Broken(error.to_string())),
        }
    }
}

fn show(cx: &Context, piece: &Value, format: Format) -> Result<()> {
    if format.json {
        return cx.screen.line(piece);
    }
    let said = bytes(piece);
    // On a terminal what an agent prints must not steer it; in a file it stays as it is.
    let for_terminal = || harmless(&String::from_utf8_lossy(&said));
    match text(piece, "stream").as_str() {
        "output" if cx.screen.is_terminal() => cx.screen.write(for_terminal().as_bytes()),
        "output" => cx.screen.write(&said),
        stream => {
            let tone = if stream == "note" { Tone::Waiting } else { Tone::Quiet };
            cx.screen.remark(cx.screen.paint(tone, for_terminal().trim_end()));
            Ok(())
        }
    }
}

/// A piece's bytes: as text, or in base64 where they are no text by themselves.
fn bytes(piece: &Value) -> Vec<u8> {
    let member = |name: &str| piece.get(name).and_then(Value::as_str);
    match member("text") {
        Some(text) => text.as_bytes().to_vec(),
        None => member("base64").and_then(|b| STANDARD.decode(b).ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_piece_is_text_or_base64() {
        assert_eq!(bytes(&json!({"text": "ä"})), "ä".as_bytes());
        assert_eq!(bytes(&json!({"base64": "/w=="})), [0xff]);
    }
}
