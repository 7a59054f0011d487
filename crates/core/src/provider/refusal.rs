//! Why a request was not believed. The door answers every refusal alike (401) and records the cause for the owner.
//!
//! The texts say what was wanted and what was seen in words: never a secret, never the right signature, and never the
//! value that came, for a sender set up wrongly may have put its secret there.

use std::borrow::Cow;
use std::time::Duration;

use super::encoding::TimeUnit;
use super::select::Place;
use crate::Timestamp;

/// Why a request was refused. `Display` is one sentence; `wanted` and `seen` are its two halves for a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is no signature where it should be.
    SignatureMissing(Place),
    /// There is a signature, but not in the form that this sender writes.
    SignatureMalformed {
        /// Where it stands.
        place: Place,
        /// The form it should have.
        wanted: Cow<'static, str>,
        /// What is wrong with it.
        seen: &'static str,
    },
    /// The signature has the right form and no secret of ours makes it: a forgery, a changed body or another secret.
    SignatureMismatch {
        /// How many secrets were tried.
        secrets: usize,
    },
    /// There is no token or password where it should be.
    CredentialMissing(Place),
    /// There is something in the credential's place, but not in its form.
    CredentialMalformed {
        /// Where it stands.
        place: Place,
        /// The form it should have.
        wanted: Cow<'static, str>,
        /// What is wrong with it.
        seen: &'static str,
    },
    /// The token or password is not ours.
    CredentialMismatch {
        /// How many secrets were tried.
        secrets: usize,
    },
    /// Something that is signed is not there.
    PartMissing(Place),
    /// Something that every delivery of this sender has is not there.
    RequiredMissing(Vec<Place>),
    /// Something that is signed is there twice, so that nobody knows which one the sender meant.
    PartRepeated(Place),
    /// There is no timestamp where it should be.
    TimestampMissing,
    /// The timestamp cannot be read.
    TimestampMalformed(TimeUnit),
    /// The signature is right and too old: a replay, a late retry, or our clock is fast.
    TimestampStale {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        tolerance: Duration,
    },
    /// The signature is right and lies ahead: the sender's clock is fast or ours is slow.
    TimestampFuture {
        /// How far ahead it is.
        ahead: Duration,
        /// How far ahead it may be.
        tolerance: Duration,
    },
    /// This sender signs the public URL, and the server does not know its own.
    UrlUnknown,
    /// The digest that is signed is not the body's.
    DigestMismatch(Cow<'static, str>),
    /// A claim of the token is not there.
    ClaimMissing(String),
    /// A claim of the token says something else than it should.
    ClaimMismatch {
        /// Its name.
        claim: String,
        /// What it should be, in words.
        wanted: &'static str,
    },
    /// None of the keys that the sender publishes is called what the token says.
    KeyUnknown,
    /// The key that the token names is one that the sender has given up.
    KeyExpired,
    /// What stands where the sender publishes its key is no key. The door asks for it to be sent again.
    KeyUnreadable,
    /// The proof is in a header that only a trusted proxy may set, and the request did not come from one.
    NotFromProxy,
    /// The proxy says that the client's certificate is not good.
    CertificateRefused {
        /// Where it says so.
        place: Place,
        /// What it should say.
        wanted: String,
    },
    /// The client's certificate is another one; what of it is not listed.
    CertificateMismatch(&'static str),
    /// The list whose elements are each checked is missing, empty or too long.
    NothingToCheck(Place),
}

impl Refusal {
    /// The cause as one word, for records and filters.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SignatureMissing(_) => "signature_missing",
            Self::SignatureMalformed { .. } => "signature_malformed",
            Self::SignatureMismatch { .. } => "signature_mismatch",
            Self::CredentialMissing(_) => "credential_missing",
            Self::CredentialMalformed { .. } => "credential_malformed",
            Self::CredentialMismatch { .. } => "credential_mismatch",
            Self::PartMissing(_) | Self::RequiredMissing(_) => "part_missing",
            Self::PartRepeated(_) => "part_repeated",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed(_) => "timestamp_malformed",
            Self::TimestampStale { .. } => "timestamp_stale",
            Self::TimestampFuture { .. } => "timestamp_future",
            Self::UrlUnknown => "url_unknown",
            Self::DigestMismatch(_) => "digest_mismatch",
            Self::ClaimMissing(_) => "claim_missing",
            Self::ClaimMismatch { .. } => "claim_mismatch",
            Self::KeyUnknown => "key_unknown",
            Self::KeyExpired => "key_expired",
            Self::KeyUnreadable => "key_unavailable",
            Self::NotFromProxy => "not_from_proxy",
            Self::CertificateRefused { .. } => "certificate_refused",
            Self::CertificateMismatch(_) => "certificate_mismatch",
            Self::NothingToCheck(_) => "nothing_to_check",
        }
    }

    /// What the check wanted.
    pub fn wanted(&self) -> Cow<'static, str> {
        match self {
            Self::SignatureMissing(place) => format!("a signature in {place}").into(),
            Self::SignatureMalformed { place, wanted, .. } => format!("{wanted} in {place}").into(),
            Self::SignatureMismatch { secrets } => match secrets {
                1 => "a signature made with this source's secret".into(),
                n => format!("a signature made with one of this source's {n} secrets").into(),
            },
            Self::CredentialMissing(place) => format!("a credential in {place}").into(),
            Self::CredentialMalformed { place, wanted, .. } => format!("{wanted} in {place}").into(),
            Self::CredentialMismatch { secrets } => match secrets {
                1 => "this source's secret".into(),
                n => format!("one of this source's {n} secrets").into(),
            },
            Self::PartMissing(place) | Self::PartRepeated(place) => format!("one {place}, which is signed").into(),
            Self::RequiredMissing(places) => {
                let places: Vec<String> = places.iter().map(ToString::to_string).collect();
                format!("{}, which this sender always sends", places.join(" or ")).into()
            }
            Self::TimestampMissing => "the time of signing".into(),
            Self::TimestampMalformed(unit) => format!("the time of signing as {}", unit.name()).into(),
            Self::TimestampStale { tolerance, .. } => format!("signed at most {} s ago", tolerance.as_secs()).into(),
            Self::TimestampFuture { tolerance, .. } => {
                format!("signed at most {} s ahead of our clock", tolerance.as_secs()).into()
            }
            Self::UrlUnknown => "the public URL, which is signed: set server.public_url".into(),
            Self::DigestMismatch(place) => format!("the body's SHA-256 in {place}").into(),
            Self::ClaimMissing(claim) => format!("the claim `{claim}`").into(),
            Self::ClaimMismatch { claim, wanted } => format!("{wanted} in the claim `{claim}`").into(),
            Self::KeyUnknown => "a token signed with one of the keys that the sender publishes".into(),
            Self::KeyExpired => "a token signed with a key that the sender still uses".into(),
            Self::KeyUnreadable => "a key at the sender's address".into(),
            Self::NotFromProxy => "one of server.trusted_proxies to tell of the client's certificate".into(),
            Self::CertificateRefused { place, wanted } => format!("`{wanted}` in {place}").into(),
            Self::CertificateMismatch(what) => format!("a certificate whose {what} is listed").into(),
            Self::NothingToCheck(place) => format!("a list of 1 to 1000 in {place}, each with its own proof").into(),
        }
    }

    /// What the check saw.
    pub fn seen(&self) -> Cow<'static, str> {
        match self {
            Self::SignatureMissing(_)
            | Self::CredentialMissing(_)
            | Self::PartMissing(_)
            | Self::RequiredMissing(_)
            | Self::TimestampMissing => "nothing".into(),
            Self::SignatureMalformed { seen, .. } | Self::CredentialMalformed { seen, .. } => (*seen).into(),
            Self::SignatureMismatch { .. } => {
                "another signature: a different secret, or the request was changed on its way".into()
            }
            Self::CredentialMismatch { .. } => "another one".into(),
            Self::PartRepeated(_) => "several".into(),
            Self::TimestampMalformed(_) => "something else".into(),
            Self::TimestampStale { age, .. } => {
                format!("a right signature, {} s old: a replay, a late retry, or our clock is fast", age.as_secs())
                    .into()
            }
            Self::TimestampFuture { ahead, .. } => {
                format!("a right signature, {} s ahead: one of the two clocks is wrong", ahead.as_secs()).into()
            }
            Self::UrlUnknown => "no public URL in the configuration".into(),
            Self::DigestMismatch(_) => "another body's".into(),
            Self::ClaimMissing(_) => "a token without it".into(),
            Self::ClaimMismatch { .. } => "something else".into(),
            Self::KeyUnknown => "the name of another key".into(),
            Self::KeyExpired => "the name of a key that has expired".into(),
            Self::KeyUnreadable => "something that is no key".into(),
            Self::NotFromProxy => "a request from elsewhere".into(),
            Self::CertificateRefused { .. } => "something else: the proxy did not find the certificate good".into(),
            Self::CertificateMismatch(_) => "another one, or none".into(),
            Self::NothingToCheck(_) => "none, no elements, or too many".into(),
        }
    }

    /// What stale and future mean, in one place: `at` must lie at most `tolerance` before `now` and at most `ahead_max`
    /// after it.
    pub(super) fn of_time(at: Timestamp, now: Timestamp, tolerance: Duration, ahead_max: Duration) -> Result<(), Self> {
        let (age, ahead) = (now.since(at), at.since(now));
        if age > tolerance {
            Err(Self::TimestampStale { age, tolerance })
        } else if ahead > ahead_max {
            Err(Self::TimestampFuture { ahead, tolerance: ahead_max })
        } else {
            Ok(())
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not verified: wanted {}, saw {}", self.wanted(), self.seen())
    }
}

impl std::error::Error for Refusal {}
