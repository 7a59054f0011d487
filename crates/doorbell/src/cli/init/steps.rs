//! What `doorbell init` says is to be done next: what has to be there before a start, the commands to type, and what the
//! sender is to be told. All of it follows from the sender's preset.

use std::path::Path;

use doorbell_core::provider::{Encoding, Pairing, Place, Scheme, Signer};

use super::{SecretFrom, Sender};

/// Two columns, the first as wide as its widest text. A text of several lines goes on below itself.
fn columns(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(first, _)| first.chars().count()).max().unwrap_or(0);
    let below = format!("\n{}", " ".repeat(width + 5));
    let line = |(first, second): &(String, String)| format!("  {first:width$}   {}\n", second.replace('\n', &below));
    rows.iter().map(line).collect()
}

fn row(first: impl Into<String>, second: impl Into<String>) -> (String, String) {
    (first.into(), second.into())
}

/// What of the next steps comes first, where something does.
pub(super) fn before(sender: &Sender) -> String {
    let (name, preset) = (&sender.preset.id, &sender.preset);
    let mut steps = String::new();
    if sender.secret_from() == SecretFrom::Sender {
        let called = preset.docs.secret_name.as_deref().unwrap_or("public key");
        steps.push_str(&format!("  put into secrets/{name}: what {} calls \"{called}\"\n", preset.name));
    }
    if preset.signs_public_url() {
        steps.push_str(&format!(
            "  set public_url in doorbell.toml: {} signs the address that it knows us by\n",
            preset.name
        ));
    } else if matches!(&preset.scheme, Scheme::Jwt(rule) if rule.key_set.is_some() && rule.url.is_some()) {
        steps.push_str(&format!("  set public_url in doorbell.toml: the tokens of {} are meant for it\n", preset.name));
    }
    steps
}

/// All of it.
pub(super) fn next(dir: &Path, sender: &Sender) -> String {
    let go = if dir == Path::new(".") { String::new() } else { format!("  cd {}\n", dir.display()) };
    let whom = if sender.is_method { "your sender" } else { &sender.preset.name };
    let mut commands = vec![row("doorbell check", "is everything in order?"), row("doorbell serve", "accept and run")];
    match &sender.preset.pairing {
        Some(pairing) => commands.extend(paired(sender, pairing)),
        None => commands.push(ring(sender, whom)),
    }
    format!(
        "\nNext:\n{go}{}{}\nThen tell {whom}:\n{}",
        before(sender),
        columns(&commands),
        columns(&told(sender)).trim_end()
    )
}

/// How a sender that hands over its secret is let in.
fn paired(sender: &Sender, pairing: &Pairing) -> Vec<(String, String)> {
    let (id, name) = (&sender.preset.id, &sender.preset.name);
    let mut rows = vec![row(
        format!("doorbell sources pair {id}"),
        format!(
            "in another terminal, when {name} can reach the URL below; then make the webhook,\nand {name} hands over its secret"
        ),
    )];
    // Who is answered with the secret has seen that it came.
    if pairing.echo.is_none() {
        rows.push(row(
            format!("doorbell sources reveal {id}"),
            format!("prints that secret, which {name} wants to see"),
        ));
    }
    rows
}

fn ring(sender: &Sender, whom: &str) -> (String, String) {
    let as_whom = if sender.is_method { String::new() } else { format!(" as {whom} would") };
    let about = match sender.preset.signer() {
        Signer::Secret => format!("in another terminal: ring it{as_whom}"),
        Signer::PrivateKey | Signer::SenderAlone(_) => format!("says how to try it: only {whom} can sign"),
    };
    row(format!("doorbell send {}", sender.preset.id), about)
}

/// What is typed in at the sender's side.
fn told(sender: &Sender) -> Vec<(String, String)> {
    let (id, preset) = (&sender.preset.id, &sender.preset);
    let setup = preset.docs.setup.clone().filter(|_| !sender.is_method);
    let mut rows: Vec<_> = setup.map(|setup| row("where", setup)).into_iter().collect();
    let url = format!("https://<how this server is reached from outside>/hooks/{id}");
    let content = format!("<the content of secrets/{id}>");
    let in_url = match &preset.scheme {
        Scheme::Token { place: Place::Path, .. } => Some(format!("{url}/{content}")),
        Scheme::Token { place: Place::Query(name), .. } => Some(format!("{url}?{name}={content}")),
        _ => None,
    };
    let is_in_url = in_url.is_some();
    rows.push(row("URL", in_url.unwrap_or(url)));
    let secret = match sender.secret_from() {
        SecretFrom::Us if !is_in_url => secret(sender),
        _ => None,
    };
    rows.extend(secret.map(|text| row("secret", text)));
    rows.extend(proof(sender).map(|text| row("proof", text)));
    if sender.shows_a_token() {
        rows.push(row("verify token", format!("the content of secrets/{id}-verify-token")));
    }
    rows
}

/// Where the secret comes from that both sides share. No preset says which side makes it, and some senders let one choose:
/// so the sender's own comes first.
fn secret(sender: &Sender) -> Option<String> {
    let file = format!("secrets/{}", sender.preset.id);
    // What the configuration says of a verify token is told on its own line.
    let called = sender.preset.docs.secret_name.as_deref().and_then(|name| name.split(';').next());
    let called = called.filter(|name| !name.starts_with("Chosen by you"));
    Some(match called.filter(|_| !sender.is_method) {
        Some(called) => format!(
            "\"{called}\": if the sender gives you one, put that into {file}\n(a fresh one is there to try with); if it asks you \
             for one, give it the content of {file}"
        ),
        None => format!("the content of {file}"),
    })
}

/// What a sender of one's own has to bring along: a preset's sender knows it.
fn proof(sender: &Sender) -> Option<String> {
    if !sender.is_method {
        return None;
    }
    match &sender.preset.scheme {
        Scheme::Signed(signed) => {
            let Some(Place::Header(header)) = signed.places.first() else { return None };
            let form = match signed.encoding {
                Encoding::Hex => "lower-case hex",
                Encoding::HexAnyCase => "hex",
                Encoding::Base64 => "base64",
                Encoding::Base64Url => "base64url",
            };
            let hash = sender.preset.scheme.name().to_ascii_uppercase();
            Some(format!("the header `{header}`: {}{form} of {hash} over the body as it is sent", signed.prefix))
        }
        Scheme::Token { place: Place::Header(header), prefix, .. } => {
            Some(format!("the header `{header}: {prefix}<secret>`"))
        }
        Scheme::Basic => Some("HTTP basic authentication; the secret is `user:password`".to_owned()),
        _ => None,
    }
}
