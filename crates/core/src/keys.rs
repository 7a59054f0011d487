//! API keys: what lets somebody who is not the admin use a part of the API. Made here, checked here, kept by the store as
//! a hash, shown once.
//!
//! A key is `dbk_<finder>_<secret>`: twelve letters by which its row is found, and 256 random bits. A secret of that size needs
//! no slow hash: nobody tries 2^255 of them, so one BLAKE3 is enough, and a check costs microseconds.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::{Clock, Timestamp};
use crate::ids::Name;
use crate::secret::Secret;

const TOKEN_PREFIX: &str = "dbk_";
const ID_PREFIX: &str = "key_";
const FINDER_LEN: usize = 12;
/// 32 letters and digits that are not taken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// How long a key's name may be, in bytes.
pub const NAME_MAX: usize = 256;

/// A key's id: `key_` and its finder. No secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// The finder, as the store keeps it.
    pub fn finder(&self) -> &str {
        &self.0
    }

    /// From a finder; none if it has not the form of one.
    pub fn of_finder(text: &str) -> Option<Self> {
        let good = text.len() == FINDER_LEN && text.bytes().all(|b| ALPHABET.contains(&b));
        good.then(|| Self(text.to_owned()))
    }

    /// The id of the key that a token claims to be.
    pub fn of_token(token: &str) -> Option<Self> {
        let rest = token.strip_prefix(TOKEN_PREFIX)?;
        let (finder, secret) = rest.split_at_checked(FINDER_LEN)?;
        secret.strip_prefix('_')?;
        Self::of_finder(finder)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ID_PREFIX}{}", self.0)
    }
}

impl FromStr for KeyId {
    type Err = BadKeyId;
    fn from_str(text: &str) -> Result<Self, BadKeyId> {
        text.strip_prefix(ID_PREFIX).and_then(Self::of_finder).ok_or(BadKeyId)
    }
}

/// Not the id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the id of a key: it looks like key_abcdefghjkmn")]
pub struct BadKeyId;

/// Declares an enum of fixed words.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// As the API writes it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let known: Vec<&str> = Self::ALL.iter().map(|w| w.as_str()).collect();
                let found = Self::ALL.iter().copied().find(|w| w.as_str() == text);
                found.ok_or_else(|| format!("`{text:.80}` is none of: {}", known.join(", ")))
            }
        }
    )+};
}

words! {
    /// What a key may do. The admin token may do all of it, for all agents, and make keys.
    Right {
        /// Look.
        Read = "read",
        /// Put events in.
        Send = "send",
        /// Pause, resume, enable, disable, cancel, retry, replay.
        Operate = "operate",
        /// Register agents over a wire contract, and end them: requests are then passed on to where they say.
        Register = "register",
    }
    /// Who holds a key.
    Kind {
        /// Somebody outside, who calls for the agent.
        External = "external",
        /// The agent itself.
        Internal = "internal",
    }
}

/// A key as it is kept: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// The one agent whose things it opens; none: all of them.
    pub agent: Option<Name>,
    /// What people call it; unique for each agent and kind.
    pub name: String,
    /// Who holds it.
    pub kind: Kind,
    /// What it may do.
    pub rights: Vec<Right>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it opens nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, give or take a minute.
    pub last_used_at: Option<Timestamp>,
    /// Of the present secret.
    pub hash: KeyHash,
    /// Of the secret before, and until when that one is good too.
    pub before: Option<(KeyHash, Timestamp)>,
}

/// BLAKE3 of a whole token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    fn of(token: &str) -> Self {
        Self(*blake3::hash(token.as_bytes()).as_bytes())
    }

    /// Compared in constant time.
    fn is(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.ct_eq(&other.0).into()
    }
}

/// A new id.
pub fn new_id(clock: &Clock) -> KeyId {
    let mut bits = clock.random();
    let letters = std::iter::repeat_with(|| {
        let letter = ALPHABET[usize::try_from(bits & 31).unwrap_or_default()];
        bits >>= 5;
        char::from(letter)
    });
    KeyId(letters.take(FINDER_LEN).collect())
}

/// A new secret for a key: the token to be shown once, and the hash to be kept.
pub fn new_secret(id: &KeyId, clock: &Clock) -> (Secret, KeyHash) {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&clock.random().to_be_bytes());
    }
    let token = format!("{TOKEN_PREFIX}{}_{}", id.0, URL_SAFE_NO_PAD.encode(bytes));
    let hash = KeyHash::of(&token);
    (Secret::new(token), hash)
}

/// The hash of a secret that somebody else has made, where a contract takes over keys that are in use already.
pub fn given_secret(text: &str) -> KeyHash {
    KeyHash::of(text)
}

/// A secret that can be made again from the key's id and the store's own key, for a scheme that signs with it and so needs
/// it whole (an HMAC): the token, and the hash to be kept. Whoever has neither the store nor the token cannot make it.
pub fn derived_secret(id: &KeyId, store_key: &[u8; 32]) -> (Secret, KeyHash) {
    let mut hasher = blake3::Hasher::new_derive_key("doorbell 2026-11 secret of a contract's webhook");
    hasher.update(store_key).update(id.0.as_bytes());
    let secret = URL_SAFE_NO_PAD.encode(hasher.finalize().as_bytes());
    let token = format!("{TOKEN_PREFIX}{}_{secret}", id.0);
    let hash = KeyHash::of(&token);
    (Secret::new(token), hash)
}

impl Key {
    /// Whether `token` is this key and good at `now`.
    pub fn admits(&self, token: &str, now: Timestamp) -> bool {
        let offered = KeyHash::of(token);
        let present = self.hash.is(&offered);
        let before = self.before.is_some_and(|(hash, until)| hash.is(&offered) && now < until);
        (present || before) && self.expires_at.is_none_or(|at| now < at)
    }

    /// Whether it may do this at all.
    pub fn may(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }

    /// Whether it opens the things of this agent.
    pub fn covers(&self, agent: &Name) -> bool {
        self.agent.as_ref().is_none_or(|own| own == agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::by_hand(Timestamp::from_secs(1000))
    }

    fn key(clock: &Clock) -> (Key, Secret) {
        let id = new_id(clock);
        let (secret, hash) = new_secret(&id, clock);
        let key = Key {
            id,
            agent: Name::new("a").ok(),
            name: "n".into(),
            kind: Kind::External,
            rights: vec![Right::Read],
            created_at: clock.now(),
            expires_at: None,
            last_used_at: None,
            hash,
            before: None,
        };
        (key, secret)
    }

    #[test]
    fn a_key_is_found_by_its_token_and_opened_by_the_whole_of_it_only() {
        let clock = clock();
        let ((key, token), (other, _)) = (key(&clock), key(&clock));
        let text = token.expose();
        assert_eq!(KeyId::of_token(text), Some(key.id.clone()));
        assert_eq!(key.id.to_string().parse(), Ok(key.id.clone()));
        assert!(key.admits(text, clock.now()) && !other.admits(text, clock.now()));
        for i in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[i] = if bytes[i] == b'a' { b'b' } else { b'a' };
            assert!(!key.admits(std::str::from_utf8(&bytes).unwrap(), clock.now()), "{i}");
        }
        assert!(!key.admits(&text[..text.len() - 1], clock.now()) && !key.admits("", clock.now()));
    }

    #[test]
    fn a_rotated_secret_is_good_until_its_overlap_is_over_and_no_key_after_its_expiry() {
        let clock = clock();
        let (mut key, old) = key(&clock);
        let (new, hash) = new_secret(&key.id, &clock);
        key.before = Some((key.hash, Timestamp::from_secs(1060)));
        key.hash = hash;
        key.expires_at = Some(Timestamp::from_secs(2000));
        let good = |secret: &Secret, at: i64| key.admits(secret.expose(), Timestamp::from_secs(at));
        assert!(good(&old, 1059) && good(&new, 1059));
        assert!(!good(&old, 1060) && good(&new, 1999));
        assert!(!good(&new, 2000));
    }

    #[test]
    fn a_derived_secret_is_the_same_again_and_another_for_every_key_and_store() {
        let clock = clock();
        let (one, two) = (new_id(&clock), new_id(&clock));
        let make = |id, store| derived_secret(id, store).0.expose().to_owned();
        assert_eq!(make(&one, &[1; 32]), make(&one, &[1; 32]));
        assert_ne!(make(&one, &[1; 32]), make(&two, &[1; 32]));
        let ends = |text: &str| text.rsplit('_').next().map(str::to_owned);
        assert_ne!(ends(&make(&one, &[1; 32])), ends(&make(&one, &[2; 32])));
        assert_ne!(ends(&make(&one, &[1; 32])), ends(&make(&two, &[1; 32])));
        assert_eq!(KeyId::of_token(&make(&one, &[1; 32])), Some(one));
    }

    #[test]
    fn what_is_no_token_names_no_key() {
        for bad in
            ["", "dbk_", "dbk_abc", "dbk_abcdefghijkm", "dbk_abcdefghijklX_x", "drt_abcdefghijkm_x", "dbk_äääääää_x"]
        {
            assert_eq!(KeyId::of_token(bad), None, "{bad}");
        }
        assert!("key_ABCDEFGHIJKM".parse::<KeyId>().is_err() && "abcdefghijkm".parse::<KeyId>().is_err());
    }
}
