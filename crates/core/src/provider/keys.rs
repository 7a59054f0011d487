//! A source's secrets, decoded and prepared once, and the search for the one that made a signature. `verify` makes them
//! when the configuration is read.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use aws_lc_rs::{digest, hmac};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::presented::Presented;
use super::refusal::Refusal;
use super::scheme::{Algorithm, Signed};
use super::signed::{Material, Unsignable};
use crate::Secret;

/// A secret that cannot be used. Says which one by its place in the list, never what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// There is none, and the sender signs.
    #[error("provider `{provider}` needs a secret and none is set: set `secret` on the source")]
    Missing {
        /// The preset.
        provider: String,
    },
    /// It is empty; an empty secret would let everybody in.
    #[error("secret {index} of provider `{provider}` is empty: set it, or take it out of the list")]
    Empty {
        /// Its place in the list, from 1.
        index: usize,
        /// The preset.
        provider: String,
    },
    /// It is written otherwise than the sender writes it.
    #[error("secret {index} of provider `{provider}` cannot be read: {wanted}; copy it from the sender again")]
    Unreadable {
        /// Its place in the list, from 1.
        index: usize,
        /// The preset.
        provider: String,
        /// How it should be written.
        wanted: &'static str,
    },
    /// There is one, and nothing would ever look at it.
    #[error(
        "provider `{provider}` checks nothing, so its secret would protect nothing: take `secret` out, or choose an `auth`"
    )]
    Unused {
        /// The preset.
        provider: String,
    },
}

/// Secrets in the form that their scheme computes with.
pub(super) enum Keys {
    Hmac(Vec<hmac::Key>),
    Digest(Vec<Zeroizing<Vec<u8>>>),
    Ed25519(Vec<ParsedPublicKey>),
    Plain(Vec<Secret>),
}

impl Keys {
    /// Decodes the secrets of a scheme that signs.
    pub(super) fn of(signed: &Signed, provider: &str, secrets: &[Secret]) -> Result<Self, BadSecret> {
        let unreadable =
            |index: usize, wanted| BadSecret::Unreadable { index: index + 1, provider: provider.to_owned(), wanted };
        let mut decoded = Vec::new();
        for (i, secret) in secrets.iter().enumerate() {
            let key = signed.key.decode(secret.expose()).map_err(|wanted| unreadable(i, wanted))?;
            if key.is_empty() {
                return Err(BadSecret::Empty { index: i + 1, provider: provider.to_owned() });
            }
            decoded.push(key);
        }
        Ok(match signed.algorithm {
            Algorithm::Hmac(hash) => Self::Hmac(decoded.iter().map(|k| hmac::Key::new(hash.hmac(), k)).collect()),
            Algorithm::Digest(_) => Self::Digest(decoded),
            Algorithm::Ed25519 => {
                let mut keys = Vec::new();
                for (i, key) in decoded.iter().enumerate() {
                    // Only the 32 bytes themselves: the parser below would take other wrappings too.
                    let parsed =
                        (key.len() == 32).then(|| ParsedPublicKey::new(&ED25519, key.as_slice()).ok()).flatten();
                    keys.push(parsed.ok_or_else(|| unreadable(i, "it should be a public key of 32 bytes"))?);
                }
                Self::Ed25519(keys)
            }
        })
    }

    /// The place of the first key that makes one of the presented signatures.
    pub(super) fn matching(
        &self,
        signed: &Signed,
        from: &Material<'_>,
        presented: &Presented<'_>,
    ) -> Result<usize, Refusal> {
        let (found, tried) = match self {
            Self::Hmac(keys) => (
                search(keys, |key| {
                    let mut context = hmac::Context::with_key(key);
                    signed.template.feed(from, |bytes| context.update(bytes))?;
                    let made = context.sign();
                    Ok(presented.any(|tag| same(made.as_ref(), tag)))
                })?,
                keys.len(),
            ),
            Self::Digest(keys) => (
                search(keys, |key| {
                    let Algorithm::Digest(hash) = signed.algorithm else { return Ok(false) };
                    let mut context = digest::Context::new(hash.digest());
                    signed.template.feed(&Material { secret: key, ..*from }, |bytes| context.update(bytes))?;
                    let made = context.finish();
                    Ok(presented.any(|tag| same(made.as_ref(), tag)))
                })?,
                keys.len(),
            ),
            Self::Ed25519(keys) => {
                let mut message = Vec::new();
                signed.template.feed(from, |bytes| message.extend_from_slice(bytes))?;
                (search(keys, |key| Ok(presented.any(|tag| key.verify_sig(&message, tag).is_ok())))?, keys.len())
            }
            Self::Plain(keys) => (None, keys.len()),
        };
        found.ok_or(Refusal::SignatureMismatch { secrets: tried })
    }
}

fn search<K>(keys: &[K], mut fits: impl FnMut(&K) -> Result<bool, Unsignable>) -> Result<Option<usize>, Refusal> {
    for (i, key) in keys.iter().enumerate() {
        if fits(key)? {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

/// Takes the same time wherever the first wrong byte stands.
fn same(made: &[u8], presented: &[u8]) -> bool {
    made.ct_eq(presented).into()
}

impl From<Unsignable> for Refusal {
    fn from(e: Unsignable) -> Self {
        match e {
            Unsignable::Missing(place) => Self::PartMissing(place),
            Unsignable::Repeated(place) => Self::PartRepeated(place),
            Unsignable::NoUrl => Self::UrlUnknown,
        }
    }
}
