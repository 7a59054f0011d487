//! Run tokens: what lets an agent speak for its own run, and for nothing else. A token names run, lease and expiry and
//! is signed with the store's key, so it needs no table: a later attempt has another lease, and the old token is stale.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::ids::{RunId, StoreTag};
use crate::run::Lease;
use crate::secret::Secret;

const PREFIX: &str = "drt_";
const CLAIMS: usize = 32;

/// Makes and reads run tokens of one store.
#[derive(Debug)]
pub struct RunTokens {
    key: hmac::Key,
    store: StoreTag,
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not made by this store, or altered.
    #[error("the run token is not valid")]
    Forged,
    /// Made by this store, for another run.
    #[error("the run token belongs to another run")]
    OtherRun,
    /// Its attempt's time is over.
    #[error("the run token has expired: its attempt's deadline is over")]
    Expired,
}

impl RunTokens {
    /// With the store's key and tag.
    pub fn new(key: &[u8; 32], store: StoreTag) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), store }
    }

    /// The token for an attempt, good until `expires`.
    pub fn make(&self, lease: Lease, expires: Timestamp) -> Secret {
        let mut bytes = Vec::with_capacity(CLAIMS + 32);
        for part in [lease.run.seq, lease.run.store.get(), lease.token, expires.millis().cast_unsigned()] {
            bytes.extend_from_slice(&part.to_be_bytes());
        }
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a token for `run`: the lease it speaks for.
    ///
    /// # Errors
    /// [`BadToken`]; whether the lease is still the run's latest is the store's to say.
    pub fn read(&self, token: &str, run: RunId, now: Timestamp) -> Result<Lease, BadToken> {
        let text = token.strip_prefix(PREFIX).ok_or(BadToken::Forged)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadToken::Forged)?;
        if bytes.len() != CLAIMS + 32 {
            return Err(BadToken::Forged);
        }
        let (claims, tag) = bytes.split_at(CLAIMS);
        hmac::verify(&self.key, claims, tag).map_err(|_| BadToken::Forged)?;
        let part = |i: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&claims[i * 8..i * 8 + 8]);
            u64::from_be_bytes(eight)
        };
        if part(1) != self.store.get() || part(0) != run.seq || run.store != self.store {
            return Err(BadToken::OtherRun);
        }
        if now > Timestamp::from_millis(part(3).cast_signed()) {
            return Err(BadToken::Expired);
        }
        Ok(Lease { run, token: part(2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_speaks_for_its_run_and_lease_until_it_expires() {
        let tag = StoreTag::new(5);
        let tokens = RunTokens::new(&[7; 32], tag);
        let lease = Lease { run: RunId::new(3, tag), token: 2 };
        let (now, later) = (Timestamp::from_secs(100), Timestamp::from_secs(200));
        let token = tokens.make(lease, later);
        assert_eq!(tokens.read(token.expose(), lease.run, now), Ok(lease));
        assert_eq!(tokens.read(token.expose(), RunId::new(4, tag), now), Err(BadToken::OtherRun));
        assert_eq!(tokens.read(token.expose(), lease.run, Timestamp::from_secs(201)), Err(BadToken::Expired));
        let other = RunTokens::new(&[8; 32], tag);
        assert_eq!(other.read(token.expose(), lease.run, now), Err(BadToken::Forged));
    }

    #[test]
    fn no_altered_token_is_read() {
        let tag = StoreTag::new(5);
        let tokens = RunTokens::new(&[7; 32], tag);
        let lease = Lease { run: RunId::new(3, tag), token: 2 };
        let token = tokens.make(lease, Timestamp::from_secs(200));
        let text = token.expose();
        for i in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            if let Ok(altered) = std::str::from_utf8(&bytes) {
                assert!(altered == text || tokens.read(altered, lease.run, Timestamp::from_secs(1)).is_err());
            }
        }
    }
}
