//! Reading a credential that comes along as it is: a token, a password, a signed token.

use std::borrow::Cow;

use serde_json::Value;

use super::Request;
use super::refusal::Refusal;
use super::select::{NotExact, Place};
use crate::Secret;

/// The shortest token that may stand in a path, in bytes.
pub const PATH_TOKEN_BYTES_MIN: usize = 16;

/// What stands at the place of a token or password.
pub(super) fn credential<'r>(
    place: &Place,
    request: &Request<'r>,
    body: Option<&'r Value>,
) -> Result<Cow<'r, [u8]>, Refusal> {
    let value = place.exact(request, body).map_err(|e| match e {
        NotExact::Missing => Refusal::CredentialMissing(place.clone()),
        NotExact::Repeated => bad_credential(place, "one credential", "several of them"),
    })?;
    if value.is_empty() { Err(Refusal::CredentialMissing(place.clone())) } else { Ok(value) }
}

/// What stands after a word like `Bearer `, in capitals or not (RFC 9110, section 11.1).
pub(super) fn after_word<'v>(place: &Place, value: &'v [u8], word: &str) -> Result<&'v [u8], Refusal> {
    match value.split_at_checked(word.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(word.as_bytes()) => Ok(rest),
        _ => {
            let wanted = format!("`{word}` and a credential");
            Err(Refusal::CredentialMalformed {
                place: place.clone(),
                wanted: wanted.into(),
                seen: "something without it",
            })
        }
    }
}

pub(super) fn bad_credential(place: &Place, wanted: &'static str, seen: &'static str) -> Refusal {
    Refusal::CredentialMalformed { place: place.clone(), wanted: wanted.into(), seen }
}

/// Whether a secret can stand in a URL as it is. A short one is as easily guessed as a path; and parts of unknown paths that
/// are shorter are shown to the owner.
pub(super) fn is_path_token(secret: &Secret) -> bool {
    let text = secret.expose();
    (PATH_TOKEN_BYTES_MIN..=200).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
}
