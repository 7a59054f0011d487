//! A JSON Web Key (RFC 7517), or a set of them, that a sender gave, and the check of a token's signature with the key of it that the
//! token names. Called by `jwt`; fetching is [`KeyCache`](super::KeyCache)'s.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;
use super::scheme::JwtAlgorithm;

/// A set, or Plaid's one `key`.
#[derive(Deserialize)]
struct Document {
    keys: Option<Vec<Key>>,
    key: Option<Key>,
}

/// Of a key what RS256 (RFC 7518, section 6.3) and ES256 (6.2) need; keys of other kinds lack some of it.
#[derive(Deserialize)]
struct Key {
    kid: Option<String>,
    kty: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// Plaid's: when the key was given up; null while it is used.
    expired_at: Option<Value>,
}

/// Checks a signature of this algorithm with the key called `name`.
pub(super) fn check(
    document: &[u8],
    algorithm: JwtAlgorithm,
    name: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Refusal> {
    let document: Document = serde_json::from_slice(document).map_err(|_| Refusal::KeyUnreadable)?;
    if document.keys.is_none() && document.key.is_none() {
        return Err(Refusal::KeyUnreadable);
    }
    let kind = if algorithm == JwtAlgorithm::Es256 { "EC" } else { "RSA" };
    let fits = |key: &Key| {
        key.kid.as_deref() == Some(name)
            && key.kty == kind
            && key.alg.as_deref().is_none_or(|alg| alg == algorithm.name())
            && key.usage.as_deref().is_none_or(|usage| usage == "sig")
    };
    let mut keys = document.keys.into_iter().flatten().chain(document.key);
    let key = keys.find(fits).ok_or(Refusal::KeyUnknown)?;
    if key.expired_at.is_some() {
        return Err(Refusal::KeyExpired);
    }
    let is_right = match algorithm {
        JwtAlgorithm::Rs256 => {
            let key = RsaPublicKeyComponents { n: number(key.n.as_ref())?, e: number(key.e.as_ref())? };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
        }
        JwtAlgorithm::Es256 => p256(&key)?.verify_sig(message, signature).is_ok(),
        // Its key is a secret, which nobody publishes.
        JwtAlgorithm::Hs256 => false,
    };
    is_right.then_some(()).ok_or(Refusal::SignatureMismatch { secrets: 1 })
}

fn number(text: Option<&String>) -> Result<Vec<u8>, Refusal> {
    text.and_then(|t| URL_SAFE_NO_PAD.decode(t).ok()).ok_or(Refusal::KeyUnreadable)
}

/// The key on P-256: its two coordinates, 32 bytes each, as an uncompressed point (SEC 1, section 2.3.3).
fn p256(key: &Key) -> Result<ParsedPublicKey, Refusal> {
    let (x, y) = (number(key.x.as_ref())?, number(key.y.as_ref())?);
    if key.crv.as_deref() != Some("P-256") || x.len() != 32 || y.len() != 32 {
        return Err(Refusal::KeyUnreadable);
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| Refusal::KeyUnreadable)
}
