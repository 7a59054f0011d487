//! The page of the documentation on all senders, written from their presets: `doorbell providers --page`. A test holds
//! `docs/providers.md` to it, so the page cannot say what the program does not do.

use std::fmt::Write as _;
use std::time::Duration;

use doorbell_core::provider::{
    self, Confidence, Handshake, Order, Preset, Published, Scheme, Signer, TimestampPlace, Wanted,
};

use super::super::screen::span_ms;
use super::{confidence, methods, scheme, texts, written};

const HEAD: &str = "\
# The senders

Written from the presets by `doorbell providers --page`; change the preset, not this page. `doorbell providers NAME` says the same of
one, and what to write into `doorbell.toml`.

*Known from* tells how sure the rule of the signature is. A rule from third parties was not tried against the sender's own code or
documentation: `doorbell check` warns where one is used, and if it is wrong it refuses, it lets nobody in. Send a real delivery and look at
`doorbell decisions`.

Senders that sign nothing get a secret of your own in the URL: `https://your.door/hooks/NAME?key=SECRET`.

`doorbell send` rings a source as its sender would. Where it cannot, *Try it* says why.

";

/// For those that sign with a private key.
const TRY_WITH_KEY: &str = "with a real delivery, or `doorbell send NAME --key FILE` with a private key of your own whose \
                            public half is beside the sender's in `secret`";

/// The whole page.
pub(super) fn page() -> String {
    let mut presets: Vec<&Preset> = provider::presets().values().map(AsRef::as_ref).collect();
    presets.sort_by_key(|p| (p.confidence == Confidence::Own, p.name.to_lowercase()));
    let mut page = HEAD.to_owned();
    page.push_str("| sender | `provider` | scheme | known from |\n|---|---|---|---|\n");
    for preset in &presets {
        let (name, id) = (&preset.name, &preset.id);
        let _ = writeln!(
            page,
            "| {name} | [`{id}`](#{id}) | {} | {} |",
            scheme(&preset.scheme),
            confidence(preset.confidence)
        );
    }
    for method in &methods::METHODS {
        let (name, id) = (method.name, method.id);
        let _ = writeln!(page, "| {name} | [`{id}`](#{id}) | {} | a general method |", method.scheme);
    }
    for preset in presets {
        section(&mut page, preset);
    }
    for method in &methods::METHODS {
        let (name, id, example) = (method.name, method.id, method.example);
        let notes = method.notes;
        let _ = write!(page, "\n## <a id=\"{id}\"></a>{name}\n\n* **Notes:** {notes}\n\n```toml\n{example}```\n");
    }
    page
}

fn section(page: &mut String, preset: &Preset) {
    let docs = &preset.docs;
    let _ = writeln!(page, "\n## <a id=\"{}\"></a>{}\n", preset.id, preset.name);
    let mut row = |title: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(page, "* **{title}:** {text}");
        }
    };
    let written_as = if preset.confidence == Confidence::Own && is_method(&preset.id) { "auth" } else { "provider" };
    row("Write", &format!("`{written_as} = \"{}\"`", preset.id));
    row("Set up", docs.setup.as_deref().unwrap_or_default());
    row("Secret", docs.secret_name.as_deref().unwrap_or_default());
    row("Their page", docs.url.as_deref().unwrap_or_default());
    row("Proof", &proof(preset));
    row("Event id", &codes(&texts(&preset.event.id)));
    row("Event type", &codes(&texts(&preset.event.event_type)));
    if let Some(path) = &preset.payload.batch {
        let place = if path.is_empty() { "the body".to_owned() } else { format!("`{}`", path.join(".")) };
        row("Batches", &format!("each element of {place} becomes an event of its own"));
    }
    for handshake in &preset.handshakes {
        row("Before it sends", &asked(handshake));
    }
    if let Some(pairing) = &preset.pairing {
        row("Hands over its secret", &format!("in {}", pairing.secret));
    }
    if let Some(reply) = &preset.reply {
        row("Answered", &format!("200 `{reply}`, whatever became of the event"));
    }
    match preset.signer() {
        Signer::Secret => {}
        Signer::PrivateKey => row("Try it", TRY_WITH_KEY),
        Signer::SenderAlone(why) => row("Try it", &format!("with a real delivery: {why}")),
    }
    row("Retries", docs.retry.as_deref().unwrap_or_default());
    row("Answer within", &docs.answer_within.map(|d: Duration| span_ms(d.as_millis())).unwrap_or_default());
    row("Notes", docs.notes.as_deref().unwrap_or_default());
    row("Known from", &known_from(preset));
}

/// Whether it is reached by `auth` instead of `provider`.
pub(super) fn is_method(id: &str) -> bool {
    ["api-key", "basic", "bearer", "hmac", "none", "path-token"].contains(&id)
}

/// What is checked, in words.
fn proof(preset: &Preset) -> String {
    let places: Vec<String> = preset.credentials().iter().map(ToString::to_string).collect();
    let mut text = scheme(&preset.scheme);
    if !places.is_empty() {
        let _ = write!(text, " in {}", places.join(", "));
    }
    if let Some(path) = &preset.each {
        let _ = write!(text, " of each element of `{}`", path.join("."));
    }
    match &preset.scheme {
        Scheme::Signed(signed) => {
            let _ = write!(text, ", over {}", codes(&texts(&signed.templates)));
            if let Some(published) = &signed.published {
                let _ = match &published.at {
                    Published::At(url) => write!(text, ", with the key at `{}`", url.as_str()),
                    Published::Named { place, hosts, path } => {
                        write!(text, ", with the key at {place}, below `{path}` on {}", codes(hosts))
                    }
                };
            }
            if let Some(rule) = &signed.timestamp {
                let place = match &rule.place {
                    TimestampPlace::At(place) => place.to_string(),
                    TimestampPlace::InSignature(prefix) => format!("`{prefix}`"),
                };
                let _ = write!(text, "; the time in {place} may be {} off", span_ms(rule.tolerance.as_millis()));
            }
        }
        Scheme::Jwt(rule) => {
            if let Some((claim, _)) = &rule.body {
                let _ = write!(text, ", with the body's SHA-256 in the claim `{claim}`");
            }
            if let Some(claim) = &rule.url {
                let _ = write!(text, ", with the URL in the claim `{claim}`");
            }
            if let Some(by_name) = &rule.keys_by_name {
                let _ = write!(text, ", with the key that `{}` gives for its name", by_name.live.as_str());
            }
            if let (Some(url), Some(owner)) = (&rule.key_set, &rule.owner) {
                let _ = write!(
                    text,
                    ", with the keys at `{}`, for the source's secret in the claim `{owner}`",
                    url.as_str()
                );
            }
        }
        Scheme::Token { .. } | Scheme::Basic | Scheme::Sns | Scheme::ClientCert(_) | Scheme::None => {}
    }
    text
}

pub(super) fn asked(handshake: &Handshake) -> String {
    let when: Vec<String> = handshake
        .when
        .iter()
        .map(|(place, wanted)| match wanted {
            Wanted::Text(text) => format!("{place} `{text}`"),
            Wanted::Anything | Wanted::Hex => place.to_string(),
            Wanted::VerifyToken => format!("{place} as in `verify_token`"),
        })
        .collect();
    let mut text = format!("{} with {}", handshake.method, when.join(", "));
    if when.is_empty() {
        text = handshake.method.to_string();
    }
    let _ = write!(text, " is answered {}", handshake.status.as_u16());
    if let Some(answer) = &handshake.answer {
        let _ = write!(text, " and `{}`", written(answer));
    }
    for (name, value) in &handshake.headers {
        let _ = write!(text, ", `{name}: {}`", written(value));
    }
    text.push_str(match handshake.order {
        Order::Verified => ", after the check",
        Order::Unsigned => "",
    });
    text
}

fn known_from(preset: &Preset) -> String {
    let how = confidence(preset.confidence);
    if preset.source.is_empty() { how.to_owned() } else { format!("{how}: {}", preset.source.join("; ")) }
}

fn codes(texts: &[String]) -> String {
    let all: Vec<String> = texts.iter().map(|t| format!("`{t}`")).collect();
    all.join(" or ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_the_documentation_says_what_the_presets_say() {
        let written = include_str!("../../../../../docs/providers.md");
        let page = super::page();
        let differs = written.lines().zip(page.lines()).find(|(a, b)| a != b);
        assert!(
            written == page,
            "docs/providers.md is behind the presets: `doorbell providers --page > docs/providers.md`\n{differs:?}"
        );
    }
}
