//! How a sender proves who it is, as data: the algorithm, where the signature stands and how it is written, and how the
//! secret is written. `preset` reads these from TOML, `verify` and `sign` carry them out.
//!
//! Nothing here is ever chosen by the request. The hash, the encoding and the prefix are the preset's, so a request
//! cannot ask for a weaker check.

use std::ops::RangeInclusive;
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use aws_lc_rs::{digest, hmac};

use super::by_name::KeysByName;
use super::client_cert::ClientCertRule;
use super::encoding::{Encoding, TimeUnit};
use super::key_form::KeyForm;
use super::published::KeyUrl;
use super::select::Place;
use super::signed::Template;

/// How a request proves where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// A signature over the request.
    Signed(Box<Signed>),
    /// A signed token with claims about the request (RFC 7519).
    Jwt(Box<JwtRule>),
    /// The secret itself comes along and is compared.
    Token {
        /// Where it stands.
        place: Place,
        /// What stands before it, such as `Bearer `; capitals do not matter.
        prefix: String,
    },
    /// HTTP basic authentication; the secret is `user:password`.
    Basic,
    /// Amazon SNS: signed with a key whose certificate has to be fetched. The secret is the topic's ARN, which is compared.
    Sns,
    /// A client certificate that a trusted proxy has checked. Needs no secret: the rule says which certificates.
    ClientCert(Box<ClientCertRule>),
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
    /// Where the signature stands. Of several places each that is there is looked at, and one right signature is enough.
    pub places: Vec<Place>,
    /// The text between several signatures in one value (`,` or a space); none if there is only ever one.
    pub separator: Option<String>,
    /// What stands before the signature (`sha256=`, `v1,`); in a list, items that start otherwise are passed over.
    pub prefix: String,
    /// What ends a name of the key that stands before the signature (`|`).
    pub after: Option<String>,
    /// What items of the list begin with that are no signatures (`t=`).
    pub skip: Vec<String>,
    /// How its bytes are written.
    pub encoding: Encoding,
    /// What is signed. Of several texts one is enough.
    pub templates: Vec<Template>,
    /// A place with the hex SHA-256 of the body. Where it is there it has to be right, and `{sorted_form}` is empty.
    pub digest: Option<Place>,
    /// When it was signed, if the sender says so.
    pub timestamp: Option<TimestampRule>,
    /// Places that a delivery of this sender always has; of each list one.
    pub requires: Vec<Vec<Place>>,
    /// Where the key is, if the sender publishes it; the source's secret is then what tells this source's events from others.
    pub published: Option<PublishedKey>,
}

/// A key that the sender publishes, in PEM: a public key, or a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishedKey {
    /// Where it is fetched.
    pub at: Published,
    /// The path to it in a JSON document; none: the document is the key.
    pub field: Option<Vec<String>>,
    /// What of the signed content has to be the source's secret. The sender signs for all its customers with one key.
    pub owner: Option<Template>,
}

/// Where a sender publishes a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// At one address.
    At(KeyUrl),
    /// At the address that each request names, on one of these hosts and below this path.
    Named {
        /// Where the request names it.
        place: Place,
        /// The sender's own hosts.
        hosts: Vec<String>,
        /// How the path begins.
        path: String,
    },
}

/// The rule of a signed token. It has one algorithm: what the token's own header asks for decides nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtRule {
    /// Where it stands.
    pub place: Place,
    /// What stands before it, such as `Bearer `; capitals do not matter.
    pub prefix: String,
    /// The one algorithm (RFC 7518).
    pub algorithm: JwtAlgorithm,
    /// How the secret, or the public key, is written.
    pub key: KeyForm,
    /// The claim that holds the SHA-256 of the body, and how; none: the token proves the sender alone.
    pub body: Option<(String, Encoding)>,
    /// The claim that holds the public URL.
    pub url: Option<String>,
    /// The claim that holds the hash of method, path and query, as Atlassian makes it.
    pub query_hash: Option<String>,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// Where the sender publishes its keys as a JSON Web Key Set (RFC 7517), if it does.
    pub key_set: Option<KeyUrl>,
    /// Where the sender hands out its keys one by one, if it does.
    pub keys_by_name: Option<KeysByName>,
    /// The claim that has to be the source's secret, where keys are published: everybody's tokens are signed with them.
    pub owner: Option<String>,
    /// Claims that have to be there. `exp`, `nbf` and `iat` are checked wherever they are.
    pub required: Vec<String>,
    /// How far our clock may be off, and how old an `iat` may be if it is required.
    pub tolerance: Duration,
}

/// The algorithms of a signed token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JwtAlgorithm {
    /// HMAC-SHA256.
    Hs256,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256, `r` and `s` side by side.
    Es256,
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
    /// How far ahead it may lie, where that differs.
    pub ahead: Option<Duration>,
}

/// Where a timestamp stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TimestampPlace {
    /// At a place of its own.
    At(Place),
    /// In the signature's list, as the item that starts with this text (`t=`).
    InSignature(String),
}

/// What computes a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// A keyed hash (RFC 2104).
    Hmac(Hash),
    /// A plain digest of a text that holds the secret.
    Digest(Hash),
    /// A signature by a private key that we do not have.
    Public(PublicAlgorithm),
}

/// Signatures that are checked with a public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublicAlgorithm {
    /// RFC 8032.
    Ed25519,
    /// On P-256 with SHA-256, in DER.
    Ecdsa,
    /// On P-256 with SHA-256, `r` and `s` side by side.
    EcdsaFixed,
    /// PKCS#1 v1.5 with SHA-1, for senders that offer nothing better.
    RsaSha1,
    /// PKCS#1 v1.5 with SHA-256.
    RsaSha256,
}

/// A hash function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    /// For senders that offer nothing better. As the hash inside an HMAC it is not broken.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The words of a preset's `hash`.
pub(super) const HASHES: [(&str, Hash); 4] =
    [("sha256", Hash::Sha256), ("sha512", Hash::Sha512), ("sha384", Hash::Sha384), ("sha1", Hash::Sha1)];
/// The words of a preset's `algorithm`, for tokens.
pub(super) const JWT_ALGORITHMS: [(&str, JwtAlgorithm); 3] =
    [("HS256", JwtAlgorithm::Hs256), ("RS256", JwtAlgorithm::Rs256), ("ES256", JwtAlgorithm::Es256)];

impl Scheme {
    /// The word for it, as the preset and the decision's record write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Signed(signed) => signed.algorithm.name(),
            Self::Jwt(rule) => match rule.algorithm {
                JwtAlgorithm::Hs256 => "jwt-hs256",
                JwtAlgorithm::Rs256 => "jwt-rs256",
                JwtAlgorithm::Es256 => "jwt-es256",
            },
            Self::Token { .. } => "token",
            Self::Basic => "basic",
            Self::Sns => "sns",
            Self::ClientCert(_) => "client-cert",
            Self::None => "none",
        }
    }

    /// Whether keys have to be fetched for its check.
    pub fn fetches_keys(&self) -> bool {
        match self {
            Self::Sns => true,
            Self::Signed(signed) => signed.published.is_some(),
            Self::Jwt(rule) => rule.key_set.is_some() || rule.keys_by_name.is_some(),
            Self::Token { .. } | Self::Basic | Self::ClientCert(_) | Self::None => false,
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

impl Signed {
    /// Where the signature stands first of all.
    pub(super) fn place(&self) -> &Place {
        // A preset names at least one: `parse_verify` refuses none.
        static NOWHERE: Place = Place::Query(String::new());
        self.places.first().unwrap_or(&NOWHERE)
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Hmac(Hash::Sha1) => "hmac-sha1",
            Self::Hmac(Hash::Sha256) => "hmac-sha256",
            Self::Hmac(Hash::Sha384) => "hmac-sha384",
            Self::Hmac(Hash::Sha512) => "hmac-sha512",
            Self::Digest(Hash::Sha1) => "digest-sha1",
            Self::Digest(Hash::Sha256) => "digest-sha256",
            Self::Digest(Hash::Sha384) => "digest-sha384",
            Self::Digest(Hash::Sha512) => "digest-sha512",
            Self::Public(PublicAlgorithm::Ed25519) => "ed25519",
            Self::Public(PublicAlgorithm::Ecdsa | PublicAlgorithm::EcdsaFixed) => "ecdsa-p256",
            Self::Public(PublicAlgorithm::RsaSha1) => "rsa-sha1",
            Self::Public(PublicAlgorithm::RsaSha256) => "rsa-sha256",
        }
    }

    /// How many bytes a signature may have.
    pub(super) fn tag_len(self) -> RangeInclusive<usize> {
        match self {
            Self::Hmac(hash) | Self::Digest(hash) => {
                let len = hash.digest().output_len();
                len..=len
            }
            Self::Public(PublicAlgorithm::Ed25519 | PublicAlgorithm::EcdsaFixed) => 64..=64,
            // Two whole numbers of up to 33 bytes, each with its head, in a sequence with its own.
            Self::Public(PublicAlgorithm::Ecdsa) => 8..=72,
            // The key's length: 2048 to 8192 bits.
            Self::Public(PublicAlgorithm::RsaSha1 | PublicAlgorithm::RsaSha256) => 256..=1024,
        }
    }
}

impl PublicAlgorithm {
    pub(super) fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Ed25519 => &ED25519,
            Self::Ecdsa => &ECDSA_P256_SHA256_ASN1,
            Self::EcdsaFixed => &ECDSA_P256_SHA256_FIXED,
            Self::RsaSha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Self::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

impl JwtAlgorithm {
    /// As a token's header writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// As the keys of a signature know it.
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::Hmac(Hash::Sha256),
            Self::Rs256 => Algorithm::Public(PublicAlgorithm::RsaSha256),
            Self::Es256 => Algorithm::Public(PublicAlgorithm::EcdsaFixed),
        }
    }
}

impl Hash {
    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    pub(super) fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}
