//! A source's secrets, decoded and prepared once, and the search for the one that made a signature. `verify` makes them
//! when the configuration is read.

use aws_lc_rs::signature::ParsedPublicKey;
use aws_lc_rs::{digest, hmac};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::key_form::KeyForm;
use super::presented::Presented;
use super::refusal::Refusal;
use super::scheme::{Algorithm, JwtAlgorithm, PublicAlgorithm, Scheme, Signed};
use super::signed::{Material, Template, Unsignable};
use crate::Secret;

/// Whoever sees one signed request can try all shorter ones. Senders' own are 20 bytes and more.
pub const SECRET_BYTES_MIN: usize = 16;

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
    /// It makes a key that is too short.
    #[error(
        "the secret of provider `{provider}` has {bytes} bytes, and with fewer than {SECRET_BYTES_MIN} it may be guessed"
    )]
    Short {
        /// The preset.
        provider: String,
        /// How long the key is.
        bytes: usize,
    },
    /// There is one, and nothing would ever look at it.
    #[error(
        "provider `{provider}` looks at no secret, so it would protect nothing: take `secret` out, or choose another `auth`"
    )]
    Unused {
        /// The preset.
        provider: String,
    },
}

impl Scheme {
    /// How many bytes the key has that `secret` stands for, where everything rests on nobody guessing it. None for what is no
    /// secret (public keys, what tells one source's events from others), and for what cannot be read.
    pub fn key_bytes(&self, secret: &Secret) -> Option<usize> {
        let text = secret.expose();
        let decoded = |form: KeyForm| form.decode(text).ok().map(|key| key.len());
        match self {
            scheme if scheme.fetches_keys() => None,
            Self::Signed(signed) => match (signed.algorithm, signed.key) {
                (Algorithm::Public(_), _) => None,
                (_, KeyForm::NamedSha1) => text.split_once('|').map(|(_, private)| private.len()),
                (_, form) => decoded(form),
            },
            Self::Jwt(rule) if rule.algorithm == JwtAlgorithm::Hs256 => decoded(rule.key),
            Self::Token { .. } => Some(text.len()),
            Self::Basic => text.split_once(':').map(|(_, password)| password.len()),
            Self::Jwt(_) | Self::Sns | Self::ClientCert(_) | Self::None => None,
        }
    }
}

/// Secrets in the form that their scheme computes with.
pub(super) enum Keys {
    Hmac(Vec<hmac::Key>),
    Digest(Vec<Zeroizing<Vec<u8>>>),
    Public(Vec<ParsedPublicKey>),
    Plain(Vec<Secret>),
    /// The sender's own key, as it was fetched for this request, and the secrets that may stand in the signed text.
    Published(Box<ParsedPublicKey>, Vec<Secret>),
}

impl Keys {
    /// Decodes the secrets of a scheme that signs.
    pub(super) fn of(
        algorithm: Algorithm,
        form: KeyForm,
        provider: &str,
        secrets: &[Secret],
    ) -> Result<Self, BadSecret> {
        let unreadable =
            |index: usize, wanted| BadSecret::Unreadable { index: index + 1, provider: provider.to_owned(), wanted };
        let mut decoded = Vec::new();
        for (i, secret) in secrets.iter().enumerate() {
            let key = form.decode(secret.expose()).map_err(|wanted| unreadable(i, wanted))?;
            if key.is_empty() {
                return Err(BadSecret::Empty { index: i + 1, provider: provider.to_owned() });
            }
            decoded.push(key);
        }
        Ok(match algorithm {
            Algorithm::Hmac(hash) => Self::Hmac(decoded.iter().map(|k| hmac::Key::new(hash.hmac(), k)).collect()),
            Algorithm::Digest(_) => Self::Digest(decoded),
            Algorithm::Public(public) => {
                let mut keys = Vec::new();
                for (i, key) in decoded.iter().enumerate() {
                    keys.push(public_key(public, key).map_err(|wanted| unreadable(i, wanted))?);
                }
                Self::Public(keys)
            }
        })
    }

    /// The HMAC key that a new answer is made with: the newest secret's.
    pub(super) fn newest_hmac(&self) -> Option<&hmac::Key> {
        match self {
            Self::Hmac(keys) => keys.first(),
            _ => None,
        }
    }

    /// The place of the first key that makes one of the presented signatures.
    pub(super) fn matching(
        &self,
        signed: &Signed,
        from: &Material<'_>,
        presented: &Presented<'_>,
    ) -> Result<usize, Refusal> {
        let mut lacking = None;
        let mut is_tried = false;
        for template in &signed.templates {
            match self.search(signed, template, from, presented) {
                Ok(Some(index)) => return Ok(index),
                Ok(None) => is_tried = true,
                Err(unsignable) => lacking = Some(unsignable),
            }
        }
        // Where one of several texts could be put together, its signature is what is wrong.
        match lacking {
            Some(unsignable) if !is_tried => Err(unsignable.into()),
            _ => Err(Refusal::SignatureMismatch { secrets: self.len() }),
        }
    }

    fn search(
        &self,
        signed: &Signed,
        template: &Template,
        from: &Material<'_>,
        presented: &Presented<'_>,
    ) -> Result<Option<usize>, Unsignable> {
        match self {
            Self::Hmac(keys) => search(keys, |key| {
                let mut context = hmac::Context::with_key(key);
                template.feed(from, |bytes| context.update(bytes))?;
                let made = context.sign();
                Ok(presented.any(|tag| same(made.as_ref(), tag)))
            }),
            Self::Digest(keys) => search(keys, |key| {
                let Algorithm::Digest(hash) = signed.algorithm else { return Ok(false) };
                let mut context = digest::Context::new(hash.digest());
                template.feed(&Material { secret: key, ..*from }, |bytes| context.update(bytes))?;
                let made = context.finish();
                Ok(presented.any(|tag| same(made.as_ref(), tag)))
            }),
            Self::Public(keys) => {
                let mut message = Vec::new();
                template.feed(from, |bytes| message.extend_from_slice(bytes))?;
                search(keys, |key| Ok(presented.any(|tag| key.verify_sig(&message, tag).is_ok())))
            }
            Self::Published(key, secrets) => search(secrets, |secret| {
                let mut message = Vec::new();
                let secret = secret.expose().as_bytes();
                template.feed(&Material { secret, ..*from }, |bytes| message.extend_from_slice(bytes))?;
                Ok(presented.any(|tag| key.verify_sig(&message, tag).is_ok()))
            }),
            Self::Plain(_) => Ok(None),
        }
    }

    /// The place of the first key that made `signature` over `message`.
    pub(super) fn signer(&self, message: &[u8], signature: &[u8]) -> Option<usize> {
        match self {
            Self::Hmac(keys) => keys.iter().position(|key| hmac::verify(key, message, signature).is_ok()),
            Self::Public(keys) => keys.iter().position(|key| key.verify_sig(message, signature).is_ok()),
            Self::Digest(_) | Self::Plain(_) | Self::Published(..) => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Hmac(keys) => keys.len(),
            Self::Digest(keys) => keys.len(),
            Self::Public(keys) => keys.len(),
            Self::Plain(keys) | Self::Published(_, keys) => keys.len(),
        }
    }
}

fn public_key(algorithm: PublicAlgorithm, key: &[u8]) -> Result<ParsedPublicKey, &'static str> {
    // Ed25519: only the 32 bytes themselves, though the parser would take other wrappings too.
    let is_ed25519 = algorithm == PublicAlgorithm::Ed25519;
    if is_ed25519 && key.len() != 32 {
        return Err("it should be a public key of 32 bytes");
    }
    ParsedPublicKey::new(algorithm.verification(), key).map_err(|_| match algorithm {
        PublicAlgorithm::Ed25519 => "it should be a public key of 32 bytes",
        PublicAlgorithm::Ecdsa | PublicAlgorithm::EcdsaFixed => "it should be a public key on the curve P-256",
        PublicAlgorithm::RsaSha1 | PublicAlgorithm::RsaSha256 => "it should be an RSA public key of 2048 bits or more",
    })
}

fn search<K>(keys: &[K], mut fits: impl FnMut(&K) -> Result<bool, Unsignable>) -> Result<Option<usize>, Unsignable> {
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
