//! The check of a source's senders with the secrets as they are now. Secrets that the file names are there when it is read;
//! those in the store may come, change and expire while the program runs, so the check is made anew when they have.
//!
//! A source whose secrets are not there lets nobody in: it says so, and is asked again at the next request.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use crate::clock::Timestamp;
use crate::provider::{BadSecret, Preset, SECRET_BYTES_MIN, Verifier, VerifyOptions};
use crate::seal::SecretName;
use crate::secret::Secret;
use crate::vault::Vault;

/// Where a secret of a source is.
#[derive(Clone, Debug)]
pub enum SecretPlace {
    /// Here: it was found where the file says.
    Given(Secret),
    /// In the vault.
    Stored(SecretName),
}

/// What a check is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How the sender signs.
    pub preset: Arc<Preset>,
    /// Its secrets, newest first.
    pub secrets: Vec<SecretPlace>,
    /// What the source says about the check.
    pub options: VerifyOptions,
}

/// The check of a source's senders.
#[derive(Debug)]
pub struct LiveVerifier(Kind);

#[derive(Debug)]
enum Kind {
    Fixed(Box<Verifier>),
    Stored(Box<Stored>),
}

#[derive(Debug)]
struct Stored {
    recipe: Recipe,
    present: ArcSwapOption<Standing>,
    /// One reads the vault, the others wait for it: what was read last is what counts.
    reading: Mutex<()>,
}

/// How a check that is made of stored secrets stands.
#[derive(Debug)]
pub struct Standing {
    /// Of the vault, when it was read.
    version: u64,
    /// The first of the secrets expires then.
    until: Option<Timestamp>,
    check: Result<Verifier, NotReady>,
    missing: Vec<SecretName>,
}

/// Why a source cannot check anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotReady {
    /// A stable word for programs.
    pub code: &'static str,
    /// A sentence for the owner.
    pub reason: String,
}

/// The check at one moment.
#[derive(Debug)]
pub enum Present<'v> {
    /// Never changes.
    Fixed(&'v Verifier),
    /// As the vault had it.
    Stored(Arc<Standing>),
}

impl Present<'_> {
    /// The check, or why there is none.
    ///
    /// # Errors
    /// [`NotReady`]: then nobody is let in.
    pub fn verifier(&self) -> Result<&Verifier, &NotReady> {
        match self {
            Self::Fixed(verifier) => Ok(verifier),
            Self::Stored(standing) => standing.check.as_ref(),
        }
    }

    /// Stored secrets that the file names and that are not there.
    pub fn missing(&self) -> &[SecretName] {
        match self {
            Self::Fixed(_) => &[],
            Self::Stored(standing) => &standing.missing,
        }
    }
}

impl From<Verifier> for LiveVerifier {
    fn from(verifier: Verifier) -> Self {
        Self(Kind::Fixed(Box::new(verifier)))
    }
}

impl LiveVerifier {
    /// Prepares the secrets that are there; those in the vault are looked up when the check is first asked for.
    ///
    /// # Errors
    /// [`BadSecret`] for those that are there.
    pub fn new(recipe: Recipe) -> Result<Self, BadSecret> {
        let given: Vec<Secret> = recipe.secrets.iter().filter_map(SecretPlace::given).cloned().collect();
        if given.len() == recipe.secrets.len() {
            return Verifier::new(recipe.preset, &given, recipe.options).map(Self::from);
        }
        if !given.is_empty() {
            Verifier::new(recipe.preset.clone(), &given, recipe.options.clone())?;
        }
        let stored = Stored { recipe, present: ArcSwapOption::empty(), reading: Mutex::new(()) };
        Ok(Self(Kind::Stored(Box::new(stored))))
    }

    /// The names of secrets that are taken from the vault.
    pub fn stored(&self) -> impl Iterator<Item = &SecretName> {
        let places = match &self.0 {
            Kind::Fixed(_) => [].as_slice(),
            Kind::Stored(stored) => &stored.recipe.secrets,
        };
        places.iter().filter_map(SecretPlace::stored)
    }

    /// Whether the check could be made of this value alone, and whether that would be safe: asked before a value is kept
    /// under the name of one of its stored secrets.
    ///
    /// # Errors
    /// [`BadSecret`]; [`BadSecret::Short`] for one that may be guessed or is a part of the sender's.
    pub fn try_secret(&self, secret: &Secret) -> Result<(), BadSecret> {
        let Kind::Stored(stored) = &self.0 else { return Ok(()) };
        let recipe = &stored.recipe;
        Verifier::new(recipe.preset.clone(), std::slice::from_ref(secret), recipe.options.clone())?;
        match recipe.preset.scheme.key_bytes(secret) {
            Some(bytes) if bytes < SECRET_BYTES_MIN => {
                Err(BadSecret::Short { provider: recipe.preset.id.clone(), bytes })
            }
            _ => Ok(()),
        }
    }

    /// The check as it is now. Reads the vault only if something in it has changed since, or expired.
    pub async fn now(&self, vault: &Vault, now: Timestamp) -> Present<'_> {
        match &self.0 {
            Kind::Fixed(verifier) => Present::Fixed(verifier),
            Kind::Stored(stored) => Present::Stored(stored.now(vault, now).await),
        }
    }
}

impl SecretPlace {
    fn given(&self) -> Option<&Secret> {
        match self {
            Self::Given(secret) => Some(secret),
            Self::Stored(_) => None,
        }
    }

    fn stored(&self) -> Option<&SecretName> {
        match self {
            Self::Stored(name) => Some(name),
            Self::Given(_) => None,
        }
    }
}

impl Stored {
    async fn now(&self, vault: &Vault, now: Timestamp) -> Arc<Standing> {
        let fresh = |standing: &Arc<Standing>| {
            standing.version == vault.version() && standing.until.is_none_or(|until| now < until)
        };
        if let Some(standing) = self.present.load_full().filter(fresh) {
            return standing;
        }
        let _reading = self.reading.lock().await;
        if let Some(standing) = self.present.load_full().filter(fresh) {
            return standing;
        }
        // Before the secrets: one that changes while they are read is read again.
        let version = vault.version();
        let standing = Arc::new(self.read(vault, version).await);
        // What could not be read is asked again by the next request.
        let keep = !matches!(&standing.check, Err(NotReady { code: UNREADABLE, .. }));
        self.present.store(keep.then(|| Arc::clone(&standing)));
        standing
    }

    async fn read(&self, vault: &Vault, version: u64) -> Standing {
        let Recipe { preset, secrets: places, options } = &self.recipe;
        let (mut secrets, mut missing, mut until) = (Vec::new(), Vec::new(), None);
        for place in places {
            match place {
                SecretPlace::Given(secret) => secrets.push(secret.clone()),
                SecretPlace::Stored(name) => match vault.get_until(name).await {
                    Ok((values, _)) if values.is_empty() => missing.push(name.clone()),
                    Ok((values, end)) => {
                        secrets.extend(values);
                        until = [until, end].into_iter().flatten().min();
                    }
                    Err(error) => {
                        let check = Err(NotReady { code: UNREADABLE, reason: error.to_string() });
                        return Standing { version, until: None, check, missing };
                    }
                },
            }
        }
        let check = match secrets.is_empty() {
            true => Err(absent(&missing)),
            false => Verifier::new(preset.clone(), &secrets, options.clone())
                .map_err(|bad| NotReady { code: "secret_unusable", reason: format!("a stored secret: {bad}") }),
        };
        // What the sender hands over stands in for what the file names, and the other way round.
        let mut stored = places.iter().filter_map(SecretPlace::stored);
        let is_paired = stored.any(|name| is_handed_over(name) && !missing.contains(name));
        if check.is_ok() && is_paired {
            missing.clear();
        } else if check.is_ok() {
            missing.retain(|name| !is_handed_over(name));
        }
        Standing { version, until, check, missing }
    }
}

fn is_handed_over(name: &SecretName) -> bool {
    name.within("pairing").is_some()
}

const UNREADABLE: &str = "secret_unreadable";

fn absent(missing: &[SecretName]) -> NotReady {
    let stored = missing.iter().find_map(|name| name.within("user"));
    let pairing = missing.iter().find_map(|name| name.within("pairing"));
    let reason = match (stored, pairing) {
        (Some(name), Some(source)) => format!(
            "the sender has not handed over its secret yet (`doorbell sources pair {source}`), and the stored secret `{name}` \
             is not there either (`doorbell secrets set {name}`)"
        ),
        (Some(name), None) => {
            format!("the stored secret `{name}` is not there: set it with `doorbell secrets set {name}`")
        }
        (None, Some(source)) => {
            format!(
                "the sender has not handed over its secret yet: open the source with `doorbell sources pair {source}`"
            )
        }
        (None, None) => "its secret is not there".to_owned(),
    };
    NotReady { code: "secret_missing", reason }
}
