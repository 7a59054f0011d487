//! What `doorbell send` signs with, and what it says where only the sender can: before anything is sent, with the reason
//! and with what to do instead.

use std::path::Path;

use anyhow::Result;
use doorbell_core::Secret;
use doorbell_core::provider::{Place, Preset, Scheme, Signer};
use doorbell_core::source::SecretPlace;
use doorbell_server::contracts::CONTRACT;
use http::{HeaderMap, HeaderName};

use super::fault::Fault;
use crate::config::{Sender, read_text};

/// An RSA key of 8192 bits takes 6.4 KB.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// The key in a file, without the line break at its end.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read_key(file: &Path) -> Result<Secret> {
    let (text, _) = read_text(file, KEY_BYTES_MAX)
        .map_err(|e| Fault::usage(format!("cannot read the key {}", file.display())).cause(e))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

/// Whether a delivery can be signed with what is here.
///
/// # Errors
/// A [`Fault`] that tells why not, and what to do instead.
pub(super) fn check(sender: &Sender, key: Option<&Secret>, given: &HeaderMap) -> Result<()> {
    let preset = &sender.preset;
    if preset.id == CONTRACT {
        let fault = Fault::new(format!("source `{}` cannot be rung from here", sender.source));
        return Err(fault
            .cause("its senders ring it through a wire contract, each with a key that was told once and is kept as a hash")
            .advice(
                "Ring it as they do, with such a key: docs/contracts.md has the requests. almyty: POST /agents/ID/webhook \
                 with `Authorization: Bearer SECRET`; agentex: POST /agents/forward/name/NAME/PATH with `x-agent-api-key: KEY`.",
            )
            .into());
    }
    // Whoever gives the proof needs nobody to make it.
    let proofs = preset.credentials();
    let is_given = |name: &HeaderName| proofs.iter().any(|p| matches!(p, Place::Header(n) if n == name));
    if given.keys().any(is_given) {
        return Ok(());
    }
    match (preset.signer(), key) {
        (Signer::Secret, _) | (Signer::PrivateKey, Some(_)) => Ok(()),
        (Signer::PrivateKey, None) => {
            let why = "it signs with a private key, and this source has the public half alone, which only checks";
            let own = format!(
                "{}\nOr sign with a key of your own: put its public half beside the sender's (`secret` may be a list), then \
                 `doorbell send {} --key FILE` with the private one in PEM.",
                instead(preset),
                sender.source
            );
            Err(Fault::new(format!("cannot sign as {}", preset.name)).cause(why).advice(own).into())
        }
        (Signer::SenderAlone(why), _) => {
            Err(Fault::new(format!("cannot sign as {}", preset.name)).cause(why).advice(instead(preset)).into())
        }
    }
}

/// The way round: somebody else signs.
fn instead(preset: &Preset) -> String {
    let setup = preset.docs.setup.as_deref().map(|setup| format!(" ({setup})")).unwrap_or_default();
    let place = preset.credentials().into_iter().find_map(|p| match p {
        Place::Header(name) => Some(name),
        _ => None,
    });
    let captured = match place {
        Some(name) => {
            format!(" Or send one that you have captured, with its headers: --data FILE --header '{name}: …'.")
        }
        None => String::new(),
    };
    if let Scheme::ClientCert(_) = preset.scheme {
        return format!(
            "Nothing was sent. Let your sender ring through the proxy, with its certificate; `doorbell decisions` shows what \
             became of it.{captured}"
        );
    }
    format!(
        "Nothing was sent. Let {} send one itself{setup}: many have a button for a test, and `doorbell decisions` shows \
         what became of it.{captured}",
        preset.name
    )
}

/// Whether the secret is in the server's store, or would be.
pub(super) fn is_kept(sender: &Sender) -> bool {
    match (&sender.secret, &sender.preset.pairing) {
        (Some(SecretPlace::Stored(_)), _) | (None, Some(_)) => true,
        (Some(SecretPlace::Given(_)), _) | (None, None) => false,
    }
}

/// Why nothing can be signed with a secret of the store, which opens it for nobody; `is_missing` if it is not there yet.
pub(super) fn kept(sender: &Sender, is_missing: bool) -> Fault {
    let (source, name) = (&sender.source, &sender.preset.name);
    let what = match (is_missing, &sender.secret) {
        (false, _) => format!("the secret of source `{source}` is in the server's store"),
        (true, Some(_)) => {
            format!("the secret of source `{source}` is to be in the server's store, and is not there yet")
        }
        (true, None) => format!("{name} has not handed over the secret of source `{source}` yet"),
    };
    let first = match (is_missing, &sender.secret) {
        (false, _) => String::new(),
        (true, Some(SecretPlace::Stored(stored))) => {
            format!("Keep it first: doorbell secrets set {}. ", stored.within("user").unwrap_or("NAME"))
        }
        (true, _) => format!("Pair it first: doorbell sources pair {source}. "),
    };
    Fault::new(what).advice(format!(
        "Nothing was sent. {first}What is stored cannot be signed with here: let the real sender send, name a file as the \
         first secret, or give the secret with --key FILE."
    ))
}

/// What to sign with.
///
/// # Errors
/// If it is in the server's store, which opens it for nobody.
pub(super) fn secret(sender: &Sender, key: Option<Secret>) -> Result<Secret> {
    if let Some(key) = key {
        return Ok(key);
    }
    match (&sender.secret, &sender.preset.pairing) {
        (Some(SecretPlace::Given(secret)), _) => Ok(secret.clone()),
        (Some(SecretPlace::Stored(_)), _) | (None, Some(_)) => Err(kept(sender, false).into()),
        (None, None) => Ok(Secret::new("")),
    }
}
