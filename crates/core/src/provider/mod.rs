//! The provider engine: is this request really from the sender it claims, and what does it call itself?
//!
//! The door (`ingest` and the server's webhook handler) asks in this order: [`Verifier::verify`] over the raw bytes with
//! the clock passed in; only with the [`Verified`] in hand [`Verifier::handshake`] and [`Preset::labels`]; and before
//! anything is kept [`Preset::kept_headers`] and [`Preset::strip_body`]. Senders are data, one TOML file each; the code
//! here reads all of them alike, so a new sender needs no Rust.
//!
//! ```text
//! preset  the data          parse ─ parse_verify ─ read   from TOML, all faults at once
//! scheme  how it is signed  select ─ signed ─ canonical   places in a request, texts put together from them
//! verify  the check         key_form ─ keys ─ presented   our secrets, their signatures      refusal   why not
//!                           encoding   jwt, jwks   signed tokens
//! labels  id, type, …       handshake   pairing   keep  what is kept   content  how a copy is known
//! evidence  what a check looks at   client_cert   what a trusted proxy tells of a certificate
//! sns     what is signed, and whose certificate   published   keys that are fetched   by_name   and handed out one by one
//! sign    the other side, for tests, `send` and `demo`: signer   who can, and with what   own_body   what goes into a body
//! ```

mod by_name;
mod canonical;
mod client_cert;
mod content;
mod credential;
mod encoding;
mod evidence;
mod handshake;
mod jwks;
mod jwt;
mod keep;
mod key_form;
mod keys;
mod labels;
mod own_body;
mod pairing;
mod parse;
mod parse_handshake;
mod parse_verify;
mod presented;
mod preset;
mod published;
mod read;
mod refusal;
mod scheme;
mod select;
mod sign;
mod signed;
mod signer;
mod sns;
mod verify;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, Method};

pub use by_name::KeysByName;
pub use client_cert::{ClientCertRule, Fingerprint, San, Told, XFCC};
pub use credential::PATH_TOKEN_BYTES_MIN;
pub use encoding::{Encoding, TimeUnit};
pub use handshake::{Answer, Handshake, Order, Wanted};
pub use keep::KeptHeaders;
pub(crate) use keep::is_secret_name;
pub use key_form::KeyForm;
pub use keys::{BadSecret, SECRET_BYTES_MIN};
pub(crate) use labels::is_readable;
pub use labels::{LABEL_BYTES_MAX, Labels};
pub use pairing::{Offer, PAIRING_MAX, Pairing, PairingState};
pub use parse::Within;
pub use preset::{CloudEvents, Confidence, Docs, EventRules, Format, PayloadRules, Preset, Setting, Vector};
pub use published::{KeyCache, KeyUnavailable, KeyUrl};
pub use read::PresetFault;
pub use refusal::Refusal;
pub use scheme::{
    Algorithm, Hash, JwtAlgorithm, JwtRule, PublicAlgorithm, Published, PublishedKey, Scheme, Signed, TimestampPlace,
    TimestampRule,
};
pub use select::Place;
pub use sign::{Draft, SignError, SignedParts, sign};
pub use signed::{Piece, Template};
pub use signer::Signer;
pub use sns::SnsMessage;
pub use verify::{Proof, Verified, Verifier, VerifyOptions};

/// A request as it came, before anybody believes it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The method.
    pub method: &'r Method,
    /// The public URL as the sender knows it, query included, made from `server.public_url`; never from the `Host` header.
    pub url: Option<&'r str>,
    /// The path; of a source whose token is in the path what stands behind the source's own, so that no more of it gets
    /// into a text that is signed or kept.
    pub path: &'r str,
    /// The query without its `?`; empty if there is none.
    pub query: &'r str,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The raw body.
    pub body: &'r Bytes,
    /// Who handed it to us.
    pub via: Via,
}

/// Who handed a request to us. What only a proxy may say of its client counts from nobody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// The socket's peer is nobody in particular.
    Anybody,
    /// The socket's peer is one of `server.trusted_proxies`.
    TrustedProxy,
}

/// File name and text of every built-in preset; `build.rs` makes the list.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/provider_presets.rs"));

/// One place for each of [`FILES`]. A server uses two or three senders: all the others are never parsed, which would cost
/// every start some milliseconds and every process the memory of all their vectors.
static PRESETS: [OnceLock<Option<Arc<Preset>>>; FILES.len()] = [const { OnceLock::new() }; FILES.len()];

static ALL: LazyLock<BTreeMap<String, Arc<Preset>>> = LazyLock::new(|| {
    let read = (0..FILES.len()).filter_map(preset_at);
    read.map(|preset| (preset.id.clone(), Arc::clone(preset))).collect()
});

/// The preset of one file, parsed when it is first asked for.
fn preset_at(at: usize) -> Option<&'static Arc<Preset>> {
    let parsed = || {
        let (file, text) = FILES[at];
        match Preset::parse(text, file) {
            Ok(preset) => Some(Arc::new(preset)),
            // A test parses every file, so this is for whoever builds with a file of their own and skips the tests.
            Err(faults) => {
                faults.iter().for_each(|f| tracing::error!(fault = %f, "A built-in provider is left out"));
                None
            }
        }
    };
    PRESETS[at].get_or_init(parsed).as_ref()
}

/// The built-in presets by id: parses them all. Whoever wants one asks [`get`].
pub fn presets() -> &'static BTreeMap<String, Arc<Preset>> {
    &ALL
}

/// The built-in preset called `id`; its file is named after it.
pub fn get(id: &str) -> Option<&'static Arc<Preset>> {
    preset_at(FILES.iter().position(|(file, _)| file.strip_suffix(".toml") == Some(id))?)
}

/// File name and text of every built-in preset, for `doorbell providers` and the conformance test.
pub fn files() -> &'static [(&'static str, &'static str)] {
    FILES
}
