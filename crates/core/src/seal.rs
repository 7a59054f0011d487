//! Secrets at rest: what turns a secret into bytes that tell nothing without the master key, and back. Pure; the store
//! keeps the bytes, `vault` brings both together.
//!
//! A sealed secret is AES-256-GCM with a random nonce (NIST SP 800-38D, section 8.2.2): a byte for the form, the number of
//! the key, the nonce, the text with its tag. The name is authenticated along with it, so that nobody who may write to the
//! file can put one secret in the place of another. While the master key is being changed there are several: the first one
//! seals, all of them open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::{Zeroize as _, Zeroizing};

use crate::clock::Timestamp;
use crate::ids::Name;
use crate::secret::Secret;

/// The form of what is written here.
const FORM: u8 = 1;
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + ID_BYTES + NONCE_LEN;
/// How long a name may be, in bytes.
pub const SECRET_NAME_MAX: usize = 512;
/// How long a secret may be, in bytes: PEM keys fit, documents do not.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// What a sealed secret is called: a namespace, a slash, and whatever the namespace's owner writes behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

/// Not the name of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a secret is a namespace, a slash and a text: at most {SECRET_NAME_MAX} bytes, no control characters"
)]
pub struct BadSecretName;

impl SecretName {
    /// From a text such as `agentex/support/external/acme`. The namespace is everything before the first slash.
    ///
    /// # Errors
    /// [`BadSecretName`].
    pub fn new(text: impl Into<String>) -> Result<Self, BadSecretName> {
        let text = text.into();
        let parts = text.split_once('/').is_some_and(|(space, rest)| !space.is_empty() && !rest.is_empty());
        let good = parts && text.len() <= SECRET_NAME_MAX && !text.chars().any(char::is_control);
        good.then_some(Self(text)).ok_or(BadSecretName)
    }

    /// What the configuration calls `{ stored = "NAME" }`.
    pub fn user(name: &Name) -> Self {
        Self(format!("user/{name}"))
    }

    /// What the sender of a source handed over while it stood open for pairing.
    pub fn pairing(source: &Name) -> Self {
        Self(format!("pairing/{source}"))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind `namespace` and its slash, if it is in that namespace.
    pub fn within(&self, namespace: &str) -> Option<&str> {
        self.0.strip_prefix(namespace)?.strip_prefix('/')
    }
}

/// For people: as the configuration calls it, or whose it is; [`SecretName::as_str`] is the place in the store.
impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.within("user"), self.within("pairing")) {
            (Some(name), _) => write!(f, "stored secret `{name}`"),
            (None, Some(source)) => write!(f, "secret that the sender of source `{source}` handed over"),
            (None, None) => write!(f, "stored secret `{}`", self.0),
        }
    }
}

/// By what a master key is told from others. It follows from the key and tells nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterKeyId([u8; ID_BYTES]);

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What seals: 32 random bytes.
pub struct MasterKey {
    id: MasterKeyId,
    key: RandomizedNonceKey,
}

/// Not a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 64 hex digits: make one with `openssl rand -hex 32`")]
pub struct BadMasterKey;

impl MasterKey {
    /// From its text: 64 hex digits.
    ///
    /// # Errors
    /// [`BadMasterKey`], which repeats nothing of the text.
    pub fn parse(text: &Secret) -> Result<Self, BadMasterKey> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.expose().trim(), bytes.as_mut_slice()).map_err(|_| BadMasterKey)?;
        // Not a key that somebody made but a file that was never filled.
        if bytes.iter().all(|b| *b == bytes[0]) {
            return Err(BadMasterKey);
        }
        let mut digest = blake3::derive_key("doorbell 2026-11 number of a master key", bytes.as_slice());
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest[..ID_BYTES]);
        digest.zeroize();
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|_| BadMasterKey)?;
        Ok(Self { id: MasterKeyId(id), key })
    }

    /// Its number.
    pub fn id(&self) -> MasterKeyId {
        self.id
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

/// The master keys of a store: the first seals, all of them open.
#[derive(Debug)]
pub struct MasterKeys {
    first: MasterKey,
    older: Vec<MasterKey>,
}

/// Why a secret could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed with a key that is not among ours.
    #[error("it was sealed with master key {0}, which is not given")]
    OtherKey(MasterKeyId),
    /// Its bytes or its name are not those that were sealed.
    #[error("it was altered since it was sealed")]
    Altered,
    /// Nothing, or more than [`SECRET_BYTES_MAX`].
    #[error("a secret is from 1 to {SECRET_BYTES_MAX} bytes long")]
    Length,
    /// The cipher gave up; it does so only without random numbers.
    #[error("sealing failed: the system gave no random numbers")]
    NoRandom,
}

impl MasterKeys {
    /// The key that seals, and those that only open.
    pub fn new(first: MasterKey, older: Vec<MasterKey>) -> Self {
        Self { first, older }
    }

    /// Their numbers, the sealing one first.
    pub fn ids(&self) -> Vec<MasterKeyId> {
        std::iter::once(&self.first).chain(&self.older).map(MasterKey::id).collect()
    }

    /// Seals a secret under its name with the first key.
    ///
    /// # Errors
    /// [`SealError::Length`], [`SealError::NoRandom`].
    pub fn seal(&self, name: &SecretName, secret: &Secret) -> Result<Sealed, SealError> {
        let text = secret.expose().as_bytes();
        if text.is_empty() || text.len() > SECRET_BYTES_MAX {
            return Err(SealError::Length);
        }
        // With room for all of it: a buffer that grew would leave a copy of the secret behind.
        let mut sealed = Vec::with_capacity(HEAD_BYTES + text.len() + TAG_BYTES);
        sealed.resize(HEAD_BYTES, 0);
        sealed.extend_from_slice(text);
        let associated = associated(self.first.id, name);
        let made = self.first.key.seal_in_place_separate_tag(Aad::from(associated), &mut sealed[HEAD_BYTES..]);
        let Ok((nonce, tag)) = made else {
            sealed.zeroize();
            return Err(SealError::NoRandom);
        };
        sealed.extend_from_slice(tag.as_ref());
        sealed[0] = FORM;
        sealed[1..=ID_BYTES].copy_from_slice(&self.first.id.0);
        sealed[1 + ID_BYTES..HEAD_BYTES].copy_from_slice(nonce.as_ref());
        Ok(Sealed(sealed))
    }

    /// Opens what was sealed under this name by any of the keys.
    ///
    /// # Errors
    /// [`SealError::OtherKey`], [`SealError::Altered`].
    pub fn open(&self, name: &SecretName, sealed: &Sealed) -> Result<Secret, SealError> {
        let id = sealed.key();
        let mut keys = std::iter::once(&self.first).chain(&self.older);
        let key = keys.find(|key| key.id == id).ok_or(SealError::OtherKey(id))?;
        let (head, rest) = sealed.0.split_at(HEAD_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + ID_BYTES..]).map_err(|_| SealError::Altered)?;
        let mut text = Zeroizing::new(rest.to_vec());
        let opened = key.key.open_in_place(nonce, Aad::from(associated(id, name)), &mut text);
        let opened = opened.map_err(|_| SealError::Altered)?;
        std::str::from_utf8(opened).map(Secret::new).map_err(|_| SealError::Altered)
    }

    /// The same secret sealed with the first key; none if it is that already.
    ///
    /// # Errors
    /// As [`MasterKeys::open`] and [`MasterKeys::seal`].
    pub fn rewrap(&self, name: &SecretName, sealed: &Sealed) -> Result<Option<Sealed>, SealError> {
        if sealed.key() == self.first.id {
            return Ok(None);
        }
        self.seal(name, &self.open(name, sealed)?).map(Some)
    }
}

/// What is authenticated and not hidden.
fn associated(key: MasterKeyId, name: &SecretName) -> Vec<u8> {
    [&[FORM], key.0.as_slice(), name.as_str().as_bytes()].concat()
}

/// A sealed secret, as the store keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// From the store's bytes; none if they were not made here.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() > HEAD_BYTES + TAG_BYTES && bytes[0] == FORM).then_some(Self(bytes))
    }

    /// For the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Which key sealed it.
    pub fn key(&self) -> MasterKeyId {
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&self.0[1..=ID_BYTES]);
        MasterKeyId(id)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes by {})", self.0.len(), self.key())
    }
}

/// A sealed secret on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSecret {
    /// What it is called.
    pub name: SecretName,
    /// The secret.
    pub sealed: Sealed,
    /// When it was made.
    pub made_at: Timestamp,
    /// From when on it counts no more.
    pub expires_at: Option<Timestamp>,
}

/// A sealed secret as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSecret {
    /// Its number in the store; never given again while it is kept.
    pub id: u64,
    /// What it is.
    pub secret: NewSecret,
}

/// What becomes of the values that a name has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// They go.
    Removed,
    /// They stay as they are: a source may have several webhooks of one sender, each with a secret of its own.
    Kept,
    /// They stay good until then, or until they expire if that is sooner.
    Until(Timestamp),
    /// There must be none: the name is taken by whoever comes first.
    MustNotBe,
}

/// A source that its owner has opened, so that its sender may hand over a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPairing {
    /// The source.
    pub source: Name,
    /// Until when.
    pub until: Timestamp,
    /// Whether the secrets that were taken before stay good.
    pub earlier: KeepEarlier,
}

/// Whether earlier secrets stay good beside the one that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepEarlier {
    /// They do: the sender has several webhooks, each with a secret of its own.
    Yes,
    /// They do not.
    No,
}

/// How many values a name may have at once. A rotation needs two; more are rotations within one overlap.
pub const VALUES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> MasterKey {
        let mut bytes = [byte; KEY_BYTES];
        bytes[0] = !byte;
        MasterKey::parse(&Secret::new(hex::encode(bytes))).unwrap()
    }

    fn named(text: &str) -> SecretName {
        SecretName::new(text).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_under_its_name_only() {
        let keys = MasterKeys::new(key(1), vec![]);
        let name = named("user/stripe");
        let sealed = keys.seal(&name, &Secret::new("whsec_1")).unwrap();
        assert_eq!(keys.open(&name, &sealed).unwrap().expose(), "whsec_1");
        assert_eq!(keys.open(&named("user/stripe2"), &sealed).err(), Some(SealError::Altered));
        assert_eq!(keys.open(&named("pairing/stripe"), &sealed).err(), Some(SealError::Altered));
        let again = keys.seal(&name, &Secret::new("whsec_1")).unwrap();
        assert_ne!(sealed, again, "a nonce is drawn each time");
        let bytes = sealed.as_bytes();
        assert!(!bytes.windows(5).any(|w| w == b"whsec") && !format!("{sealed:?}").contains("whsec"));
    }

    #[test]
    fn no_altered_byte_opens() {
        let keys = MasterKeys::new(key(1), vec![]);
        let name = named("user/stripe");
        let sealed = keys.seal(&name, &Secret::new("a secret")).unwrap();
        for at in 0..sealed.0.len() {
            let mut bytes = sealed.0.clone();
            bytes[at] ^= 1;
            let opened = Sealed::from_bytes(bytes).map(|s| keys.open(&name, &s));
            assert!(opened.is_none_or(|o| o.is_err()), "{at}");
        }
        for short in 0..=HEAD_BYTES + TAG_BYTES {
            assert_eq!(Sealed::from_bytes(sealed.0[..short].to_vec()), None, "{short}");
        }
    }

    #[test]
    fn the_first_key_seals_all_open_and_a_key_that_is_gone_is_named() {
        let (name, secret) = (named("user/a"), Secret::new("text"));
        let old = MasterKeys::new(key(1), vec![]);
        let both = MasterKeys::new(key(2), vec![key(1)]);
        let new = MasterKeys::new(key(2), vec![]);
        let sealed = old.seal(&name, &secret).unwrap();
        assert_eq!(new.open(&name, &sealed).err(), Some(SealError::OtherKey(key(1).id())));
        assert_eq!(both.open(&name, &sealed).unwrap().expose(), "text");
        let again = both.rewrap(&name, &sealed).unwrap().unwrap();
        assert_eq!(new.open(&name, &again).unwrap().expose(), "text");
        assert_eq!(both.rewrap(&name, &again), Ok(None));
        assert_eq!(new.rewrap(&name, &sealed), Err(SealError::OtherKey(key(1).id())));
        assert_eq!(both.ids(), [key(2).id(), key(1).id()]);
    }

    #[test]
    fn a_key_is_64_hex_digits_and_never_told() {
        let good = "0123456789abcdef".repeat(4);
        assert!(MasterKey::parse(&Secret::new(format!("{good}\n"))).is_ok());
        for bad in ["", "00", &good[1..], &format!("{good}0"), &"z".repeat(64), &"0".repeat(64)] {
            assert!(MasterKey::parse(&Secret::new(bad)).is_err(), "{bad}");
        }
        let key = MasterKey::parse(&Secret::new(good.clone())).unwrap();
        assert!(!format!("{key:?}").contains(&good[..8]) && !good.contains(&key.id().to_string()));
    }

    #[test]
    fn a_name_has_a_namespace_and_a_secret_a_length() {
        for bad in ["", "user", "/x", "user/", "user/a\n", &format!("user/{}", "a".repeat(SECRET_NAME_MAX))] {
            assert_eq!(SecretName::new(bad), Err(BadSecretName), "{bad}");
        }
        let name = SecretName::user(&Name::new("stripe").unwrap());
        assert_eq!((name.within("user"), name.within("use"), name.within("pairing")), (Some("stripe"), None, None));
        let keys = MasterKeys::new(key(1), vec![]);
        for length in [0, SECRET_BYTES_MAX + 1] {
            assert_eq!(keys.seal(&name, &Secret::new("x".repeat(length))), Err(SealError::Length));
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{1,200}") {
            let (keys, name) = (MasterKeys::new(key(1), vec![]), named("user/a"));
            let sealed = keys.seal(&name, &Secret::new(text.clone())).unwrap();
            let kept = Sealed::from_bytes(sealed.as_bytes().to_vec()).unwrap();
            let opened = keys.open(&name, &kept).unwrap();
            prop_assert_eq!(opened.expose(), text);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let keys = MasterKeys::new(key(1), vec![]);
            if let Some(sealed) = Sealed::from_bytes(bytes) {
                prop_assert!(keys.open(&named("user/a"), &sealed).is_err());
            }
        }
    }
}
