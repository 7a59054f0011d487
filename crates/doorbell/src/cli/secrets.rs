//! `doorbell secrets`: what the configuration calls `{ stored = "NAME" }`. A secret comes in on standard input, never as an
//! argument, which other users of the machine see; and nothing here ever prints one.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::seal::SECRET_BYTES_MAX;
use doorbell_core::{Name, Secret};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Context;
use super::fault::{Exit, Fault};
use super::list::{Asking, Listing, Paging, each, span};
use super::table::{Column, member, text};

const EXAMPLES: &str = "\
Examples:
  doorbell secrets set stripe             asks for it, without showing it
  pass show stripe/webhook | doorbell secrets set stripe
  doorbell secrets rotate stripe --overlap 24h < new-secret

In doorbell.toml: secret = { stored = \"stripe\" }";

const SET_EXAMPLES: &str = "\
Examples:
  doorbell secrets set stripe                asks for it, without showing it
  pass show stripe/webhook | doorbell secrets set stripe
  doorbell secrets set discord < public-key.txt";

/// Arguments of `doorbell secrets`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SecretsArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them (what happens without a verb); never the secrets themselves
    List(Paging),
    /// Keep one, read from standard input; a value that it has is replaced at once
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// What doorbell.toml calls it
        name: Name,
        /// Also a value that is too short, or in no form that the sources that take it can use
        #[arg(long)]
        force: bool,
    },
    /// Give one another value, read from standard input; those before stay good for a while
    Rotate {
        /// What doorbell.toml calls it
        name: Name,
        /// How long the values before stay good: 0s, 1h, 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
        overlap: Duration,
        /// Also a value that is too short, or in no form that the sources that take it can use
        #[arg(long)]
        force: bool,
    },
    /// Remove some: sources that need them let nobody in from then on
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<Name>,
    },
}

const COLUMNS: &[Column] = &[
    Column::id("NAME", "name"),
    Column::age("SET", "set_at"),
    Column::text("BEFORE GOOD UNTIL", "overlap_until"),
    Column::text("SOURCES", "sources"),
];

/// Lists or carries a verb out.
///
/// # Errors
/// What the API says, and if standard input holds no secret.
pub(super) async fn run(args: SecretsArgs, cx: &Context) -> Result<Exit> {
    let client = args.asking.client(cx)?;
    match args.verb.unwrap_or(Verb::List(args.paging)) {
        Verb::List(paging) => {
            let empty = "There are no stored secrets: keep one with `doorbell secrets set NAME`.";
            Listing {
                path: "secrets",
                filters: Vec::new(),
                columns: COLUMNS,
                empty,
                none: "There are no such stored secrets.",
            }
            .print(cx, &client, &paging, args.asking.format)
            .await
        }
        Verb::Set { name, force } => {
            let secret = read(&name, force)?;
            let body = json!({ "name": name, "value": secret.expose(), "force": force });
            tell(cx, &args.asking, &client.post("secrets", &body).await?)
        }
        Verb::Rotate { name, overlap, force } => {
            let secret = read(&name, force)?;
            let body = json!({ "value": secret.expose(), "overlap_seconds": overlap.as_secs(), "force": force });
            tell(cx, &args.asking, &client.post(&format!("secrets/{name}/rotate"), &body).await?)
        }
        Verb::Remove { names } => {
            let remove = async |name: &Name| client.post(&format!("secrets/{name}/remove"), &json!({})).await;
            each(cx, &names, args.asking.format, "is removed", remove).await
        }
    }
}

fn tell(cx: &Context, asking: &Asking, kept: &Value) -> Result<Exit> {
    if asking.format.json {
        cx.screen.line(kept)?;
        return Ok(Exit::Ok);
    }
    cx.screen.line(format!("{} is kept, sealed.", text(kept, "name")))?;
    if member(kept, "overlap_until").is_some_and(Value::is_string) {
        cx.screen.remark(format!("What it was before is good until {}.", text(kept, "overlap_until")));
    }
    if member(kept, "sources").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        let name = text(kept, "name");
        cx.screen.remark(format!("No source takes it yet: write secret = {{ stored = \"{name}\" }}."));
    }
    Ok(Exit::Ok)
}

/// The secret from standard input; on a terminal it is asked for and not shown.
fn read(name: &Name, force: bool) -> Result<Secret> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let prompt = format!("Secret {name} (not shown):");
        let asked = inquire::Password::new(&prompt).without_confirmation().prompt();
        let asked = asked.map_err(|why| Fault::usage("no secret was given").cause(why))?;
        return secret(Zeroizing::new(asked), force);
    }
    let mut given = Zeroizing::new(String::new());
    let most = SECRET_BYTES_MAX as u64 + 2;
    let done = stdin.lock().take(most).read_to_string(&mut given);
    done.map_err(|why| Fault::usage("the secret on standard input cannot be read").cause(why))?;
    secret(given, force)
}

/// What `echo` and editors put at the end is no part of it.
fn secret(given: Zeroizing<String>, force: bool) -> Result<Secret> {
    match given.trim_end_matches(['\r', '\n']) {
        blank if blank.trim().is_empty() => Err(Fault::usage("no secret was given: standard input is empty or blank")
            .advice("Pipe it in: … | doorbell secrets set NAME. Or call it on a terminal: it asks.")
            .into()),
        text if text.len() > SECRET_BYTES_MAX => {
            Err(Fault::usage(format!("a secret has at most {SECRET_BYTES_MAX} bytes")).into())
        }
        // Two secrets pasted together, or a remark above one, would let nobody in; only keys in PEM have lines.
        text if text.contains('\n') && !text.contains("-----BEGIN ") && !force => {
            Err(Fault::usage(format!("what was given has {} lines, and a secret is one line", text.lines().count()))
                .advice("Give the secret alone; only a key in PEM has several lines. `--force` keeps it as it is.")
                .into())
        }
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line_unless_it_is_a_key_in_pem_or_forced() {
        let read = |text: &str, force| secret(Zeroizing::new(text.to_owned()), force);
        assert_eq!(read("a\r\n", false).unwrap().expose(), "a");
        assert!(read("a\nb\n", false).unwrap_err().to_string().contains("2 lines"));
        assert_eq!(read("a\nb\n", true).unwrap().expose(), "a\nb");
        let pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----";
        assert_eq!(read(pem, false).unwrap().expose(), pem);
        assert!(read(" \n", true).is_err());
    }
}
