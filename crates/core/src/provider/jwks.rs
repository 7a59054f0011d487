//! A JSON Web Key Set (RFC 7517) that a sender publishes, and the check of a token's signature with the key of it that the token
//! names. Called by `jwt`; fetching is [`KeyCache`](super::KeyCache)'s.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::refusal::Refusal;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

/// Of a key what RS256 needs (RFC 7518, section 6.3); keys of other kinds lack some of it.
#[derive(Deserialize)]
struct Key {
    kid: Option<String>,
    kty: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// Checks an RS256 signature with the key called `name`.
pub(super) fn check(set: &[u8], name: &str, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let set: Set = serde_json::from_slice(set).map_err(|_| Refusal::KeyUnreadable)?;
    let fits = |key: &&Key| {
        key.kid.as_deref() == Some(name)
            && key.kty == "RSA"
            && key.alg.as_deref().is_none_or(|alg| alg == "RS256")
            && key.usage.as_deref().is_none_or(|usage| usage == "sig")
    };
    let key = set.keys.iter().find(fits).ok_or(Refusal::KeyUnknown)?;
    let number = |text: &Option<String>| {
        text.as_ref().and_then(|t| URL_SAFE_NO_PAD.decode(t).ok()).ok_or(Refusal::KeyUnreadable)
    };
    let key = RsaPublicKeyComponents { n: number(&key.n)?, e: number(&key.e)? };
    let is_right = key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok();
    is_right.then_some(()).ok_or(Refusal::SignatureMismatch { secrets: 1 })
}
