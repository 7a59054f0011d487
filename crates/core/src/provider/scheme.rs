//! How a sender proves who it is, as data: the algorithm, where the signature stands and how it is written, and how the
//! secret is written. `preset` reads these from TOML, `verify` and `sign` carry them out.
//!
//! Nothing here is ever chosen by the request. The hash, the encoding and the prefix are the preset's, so a request
//! cannot ask for a weaker check.

use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use zeroize::Zeroizing;

use super::select::Place;
use super::signed::Template;

/// How a request proves where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// A signature over the request.
    Signed(Box<Signed>),
    /// The secret itself comes along and is compared.
    Token {
        /// Where it stands.
        place: Place,
        /// What stands before it, such as `Bearer `; capitals do not matter.
        prefix: String,
    },
    /// HTTP basic authentication; the secret is `user:password`.
    Basic,
    /// Nothing is checked. Has to be asked for by name.
    None,
}

/// The rule of a signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// What computes it.
    pub algorithm: Algorithm,
    /// How the secret, or the public key, is written.
    pub key: KeyForm,
    /// Where the signature stands.
    pub place: Place,
    /// The text between several signatures in one value (`,` or a space); none if there is only ever one.
    pub separator: Option<String>,
    /// What stands before the signature (`sha256=`, `v1,`); in a list, items that start otherwise are passed over.
    pub prefix: String,
    /// How its bytes are written.
    pub encoding: Encoding,
    /// What is signed.
    pub template: Template,
    /// When it was signed, if the sender says so.
    pub timestamp: Option<TimestampRule>,
}

/// Where the time of signing stands and how old it may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimestampRule {
    /// Where it stands.
    pub place: TimestampPlace,
    /// How it is written.
    pub unit: TimeUnit,
    /// How far it may lie from our clock, before or after.
    pub tolerance: Duration,
}

/// Where a timestamp stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TimestampPlace {
    /// At a place of its own.
    At(Place),
    /// In the signature's list, as the item that starts with this text (`t=`).
    InSignature(String),
}

/// How a timestamp is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeUnit {
    /// Seconds since 1970, digits only.
    Seconds,
    /// Milliseconds since 1970, digits only.
    Millis,
    /// RFC 3339.
    Rfc3339,
}

/// What computes a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// A keyed hash (RFC 2104).
    Hmac(Hash),
    /// A plain digest of a text that holds the secret.
    Digest(Hash),
    /// A signature by a private key that we do not have (RFC 8032).
    Ed25519,
}

/// A hash function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    /// For senders that offer nothing better. As the hash inside an HMAC it is not broken.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How bytes are written as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Lower case; capitals are refused, as the senders' own SDKs refuse them.
    Hex,
    /// With padding.
    Base64,
    /// With `-` and `_`, padding or none.
    Base64Url,
}

/// How a secret becomes the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyForm {
    /// The text's own bytes, a prefix like `whsec_` included.
    Raw,
    /// Base64 of the key.
    Base64,
    /// Hex of the key.
    Hex,
    /// Standard Webhooks: base64 behind an optional `whsec_` (or `v1,whsec_`; `whpk_` and `whsk_` for Ed25519).
    Whsec,
    /// Base64 behind `whsec_`, the text's own bytes without it.
    WhsecOrRaw,
}

/// The words of a preset's `hash`.
pub(super) const HASHES: [(&str, Hash); 3] = [("sha256", Hash::Sha256), ("sha512", Hash::Sha512), ("sha1", Hash::Sha1)];
/// The words of a preset's `encoding`.
pub(super) const ENCODINGS: [(&str, Encoding); 3] =
    [("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];
/// The words of a preset's `secret`.
pub(super) const KEY_FORMS: [(&str, KeyForm); 5] = [
    ("raw", KeyForm::Raw),
    ("base64", KeyForm::Base64),
    ("hex", KeyForm::Hex),
    ("whsec", KeyForm::Whsec),
    ("whsec_or_raw", KeyForm::WhsecOrRaw),
];
/// The words of a preset's `timestamp_unit`.
pub(super) const TIME_UNITS: [(&str, TimeUnit); 3] =
    [("s", TimeUnit::Seconds), ("ms", TimeUnit::Millis), ("rfc3339", TimeUnit::Rfc3339)];

/// Room for the longest signature (64 bytes), and for base64's decoder, which wants whole groups of three.
pub(super) type Tag = [u8; 72];

impl Scheme {
    /// The word for it, as the preset and the decision's record write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Signed(signed) => signed.algorithm.name(),
            Self::Token { .. } => "token",
            Self::Basic => "basic",
            Self::None => "none",
        }
    }

    /// The signature's rule, if this scheme signs.
    pub fn signed(&self) -> Option<&Signed> {
        match self {
            Self::Signed(signed) => Some(signed),
            _ => None,
        }
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Hmac(Hash::Sha1) => "hmac-sha1",
            Self::Hmac(Hash::Sha256) => "hmac-sha256",
            Self::Hmac(Hash::Sha512) => "hmac-sha512",
            Self::Digest(Hash::Sha1) => "digest-sha1",
            Self::Digest(Hash::Sha256) => "digest-sha256",
            Self::Digest(Hash::Sha512) => "digest-sha512",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The length of a signature in bytes.
    pub(super) fn tag_len(self) -> usize {
        match self {
            Self::Hmac(hash) | Self::Digest(hash) => hash.digest().output_len(),
            Self::Ed25519 => 64,
        }
    }
}

impl Hash {
    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    pub(super) fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

impl Encoding {
    /// Reads `text` into `tag` and gives the bytes; none if it is written otherwise or is too long.
    pub(super) fn decode(self, text: &[u8], tag: &mut Tag) -> Option<usize> {
        match self {
            Self::Hex => {
                let half = text.len() / 2;
                let lower = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                let room = tag.get_mut(..half)?;
                (lower && hex::decode_to_slice(text, room).is_ok()).then_some(half)
            }
            Self::Base64 => STANDARD.decode_slice(text, tag).ok(),
            Self::Base64Url => URL_SAFE_PAD_INDIFFERENT.decode_slice(text, tag).ok(),
        }
    }

    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hex => "lower-case hex",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
        }
    }
}

impl KeyForm {
    /// The key that `text` stands for; an error says how it should have been written.
    pub(super) fn decode(self, text: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let base64 = |t: &str| {
            let bytes = STANDARD_PAD_INDIFFERENT.decode(t).map_err(|_| "it should be base64")?;
            Ok(Zeroizing::new(bytes))
        };
        match self {
            Self::Raw => Ok(Zeroizing::new(text.as_bytes().to_vec())),
            Self::Base64 => base64(text),
            Self::Hex => hex::decode(text).map(Zeroizing::new).map_err(|_| "it should be hex"),
            Self::Whsec => base64(after_prefix(text).unwrap_or(text)),
            Self::WhsecOrRaw => after_prefix(text).map_or_else(|| Ok(Zeroizing::new(text.as_bytes().to_vec())), base64),
        }
    }
}

fn after_prefix(text: &str) -> Option<&str> {
    let text = text.strip_prefix("v1,").unwrap_or(text);
    ["whsec_", "whpk_", "whsk_"].iter().find_map(|p| text.strip_prefix(p))
}

impl TimeUnit {
    /// The time that `text` writes, in milliseconds since 1970; strict, for it is about to be trusted.
    pub(super) fn parse(self, text: &[u8]) -> Option<crate::Timestamp> {
        let text = std::str::from_utf8(text).ok()?;
        let number = || {
            let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<i64>().ok() } else { None }
        };
        match self {
            Self::Seconds => number().map(crate::Timestamp::from_secs),
            Self::Millis => number().map(crate::Timestamp::from_millis),
            Self::Rfc3339 => crate::Timestamp::parse(text),
        }
    }

    pub(super) fn write(self, at: crate::Timestamp) -> String {
        match self {
            Self::Seconds => at.secs().to_string(),
            Self::Millis => at.millis().to_string(),
            Self::Rfc3339 => at.to_string(),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds since 1970",
            Self::Millis => "milliseconds since 1970",
            Self::Rfc3339 => "an RFC 3339 time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whsec_means_base64_only_where_the_preset_says_so() {
        assert_eq!(KeyForm::Raw.decode("whsec_AAAA").unwrap().as_slice(), b"whsec_AAAA");
        for text in ["whsec_AAAA", "AAAA", "v1,whsec_AAAA"] {
            assert_eq!(KeyForm::Whsec.decode(text).unwrap().as_slice(), [0, 0, 0], "{text}");
        }
        assert_eq!(KeyForm::WhsecOrRaw.decode("AAAA").unwrap().as_slice(), b"AAAA");
        assert!(KeyForm::Whsec.decode("whsec_no base64").is_err());
        assert!(KeyForm::Hex.decode("xyz").is_err());
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let mut tag = [0; 72];
        assert_eq!(Encoding::Hex.decode(b"00ff", &mut tag), Some(2));
        assert_eq!(Encoding::Hex.decode(b"00FF", &mut tag), None);
        assert_eq!(Encoding::Hex.decode(b"0", &mut tag), None);
        assert_eq!(Encoding::Hex.decode(&[b'0'; 4096], &mut tag), None);
        assert_eq!(Encoding::Base64.decode(b"AA==", &mut tag), Some(1));
        assert_eq!(Encoding::Base64.decode(b"AB==", &mut tag), None, "spare bits must be zero");
        assert_eq!(Encoding::Base64.decode(b"AA", &mut tag), None);
    }

    #[test]
    fn a_timestamp_is_digits_only() {
        let secs = |t: &[u8]| TimeUnit::Seconds.parse(t).map(crate::Timestamp::secs);
        assert_eq!(secs(b"1760000000"), Some(1_760_000_000));
        for bad in [b"".as_slice(), b"+1", b"-1", b" 1", b"1.0", b"1e9", b"0x1", b"99999999999999999999", b"\xff"] {
            assert_eq!(secs(bad), None, "{bad:?}");
        }
        assert!(TimeUnit::Rfc3339.parse(b"2025-10-09T08:53:20.123456789Z").is_some());
    }
}
