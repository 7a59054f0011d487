//! The master key: given by the configuration, or in the data directory, where it is made for its owner alone. It is not in
//! a backup: a backup that carries the key to its own secrets seals nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doorbell_core::Secret;
use doorbell_core::ports::Store;
use doorbell_core::seal::{BadMasterKey, KeptSecret, MasterKey, MasterKeys};
use doorbell_core::vault;

use super::{StartError, private};
use crate::config::{ServerSettings, StoreAt, read_text};

/// The key's file in the data directory.
const KEY_FILE: &str = "master.key";
/// A key is a line; a longer file is something else.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Its file cannot be read or made.
    #[error("the master key in {path} cannot be used: {error}")]
    File {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read it.
    #[error(
        "the master key in {path} can be read by others (mode {mode:o}). Run: chmod 600 {path}; whoever read it can open the stored secrets"
    )]
    OpenToOthers {
        /// Its file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error("{path} holds no master key: {error}")]
    Bad {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: BadMasterKey,
    },
    /// The store has secrets, and their key is not where it was.
    #[error(
        "the store holds {count} sealed secrets, and there is no master key in {path}. Put the file with key {keys} back there, or \
         name it in [server] master_key; a backup does not hold it"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// How many secrets it seals.
        count: usize,
        /// What it is called.
        keys: String,
    },
}

/// The keys of the configuration, else that of the file; none if there is no such file.
///
/// # Errors
/// If the file cannot be used.
pub(crate) fn existing_keys(settings: &ServerSettings) -> Result<Option<Arc<MasterKeys>>, MasterKeyError> {
    if let Some(keys) = &settings.master_keys {
        return Ok(Some(Arc::clone(keys)));
    }
    let key = read(&settings.data_dir.join(KEY_FILE))?;
    Ok(key.map(|key| Arc::new(MasterKeys::new(key, Vec::new()))))
}

/// The same, and a file is made if there is none and nothing was sealed.
pub(super) async fn master_keys(
    settings: &ServerSettings,
    store: &Arc<dyn Store>,
) -> Result<Arc<MasterKeys>, StartError> {
    let path = settings.data_dir.join(KEY_FILE);
    match existing_keys(settings)? {
        Some(keys) => Ok(keys),
        None => {
            check_missing(&store.secrets().await?, &path)?;
            Ok(Arc::new(MasterKeys::new(make(&path)?, Vec::new())))
        }
    }
}

/// A key is made only where nothing was sealed with one that is gone.
fn check_missing(kept: &[KeptSecret], path: &Path) -> Result<(), MasterKeyError> {
    if kept.is_empty() {
        return Ok(());
    }
    let keys: BTreeSet<String> = kept.iter().map(|k| k.secret.sealed.key().to_string()).collect();
    let keys = keys.into_iter().collect::<Vec<_>>().join(", ");
    Err(MasterKeyError::Missing { path: path.into(), count: kept.len(), keys })
}

/// Why a start would fail over the master key, as [`master_keys`] and the vault would say it; nothing is made or changed.
/// Called on a thread that may block.
///
/// # Errors
/// [`StartError`]; also where the store is there and cannot be read.
pub(crate) fn check_keys(settings: &ServerSettings, store: &StoreAt) -> Result<(), StartError> {
    let StoreAt::Sqlite(store) = store;
    let keys = existing_keys(settings)?;
    if !store.is_file() {
        return Ok(());
    }
    let kept = doorbell_store::all_secrets_of(store)?;
    match keys {
        Some(keys) => Ok(vault::check_keys(&kept, &keys)?),
        None => Ok(check_missing(&kept, &settings.data_dir.join(KEY_FILE))?),
    }
}

fn read(path: &Path) -> Result<Option<MasterKey>, MasterKeyError> {
    let text = match read_text(path, KEY_FILE_BYTES_MAX) {
        Ok((text, _)) => Secret::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(MasterKeyError::File { path: path.into(), error }),
    };
    if let Some(mode) = private::open_to_others(path) {
        return Err(MasterKeyError::OpenToOthers { path: path.into(), mode });
    }
    MasterKey::parse(&text).map(Some).map_err(|error| MasterKeyError::Bad { path: path.into(), error })
}

fn make(path: &Path) -> Result<MasterKey, MasterKeyError> {
    let failed = |error| MasterKeyError::File { path: path.into(), error };
    let text = Secret::new(private::random_text().map_err(failed)?);
    private::write(path, &format!("{}\n", text.expose())).map_err(failed)?;
    tracing::info!(file = %path.display(), "A master key was made; keep a copy of it apart from the backups");
    MasterKey::parse(&text).map_err(|error| MasterKeyError::Bad { path: path.into(), error })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use doorbell_core::Clock;
    use doorbell_core::seal::{Earlier, SecretName};
    use doorbell_core::vault::Vault;
    use doorbell_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_key_is_made_once_for_its_owner_alone_and_never_in_the_place_of_one_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let settings = ServerSettings { data_dir: dir.path().to_owned(), ..ServerSettings::default() };
        let clock = Clock::system();
        let store: Arc<dyn Store> = MemoryStore::new(&clock);
        let file = dir.path().join(KEY_FILE);
        let made = master_keys(&settings, &store).await.unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(master_keys(&settings, &store).await.unwrap().ids(), made.ids());

        let vault = Vault::open(store.clone(), clock, Arc::clone(&made)).await.unwrap();
        let name = SecretName::new("user/a").unwrap();
        vault.put(&name, &Secret::new("text"), Earlier::Removed).await.unwrap();
        let kept = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let why = master_keys(&settings, &store).await.unwrap_err().to_string();
        assert!(why.contains(&made.ids()[0].to_string()) && why.contains("1 sealed"), "{why}");
        assert!(!file.exists());

        for (text, mode, said) in [(kept.as_str(), 0o640, "mode 640"), ("short", 0o600, "64 hex digits")] {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let why = master_keys(&settings, &store).await.unwrap_err().to_string();
            assert!(why.contains(said) && !why.contains(kept.trim()), "{why}");
        }
    }
    #[tokio::test]
    async fn a_new_master_key_takes_over_what_the_old_one_sealed_and_without_it_nothing_opens() {
        let key = |digit: &str| MasterKey::parse(&Secret::new(format!("0{}", digit.repeat(63)))).unwrap();
        let given = |first, older: &[&str]| Arc::new(MasterKeys::new(first, older.iter().map(|d| key(d)).collect()));
        let clock = Clock::system();
        let store: Arc<dyn Store> = MemoryStore::new(&clock);
        let open = |keys| Vault::open(store.clone(), clock.clone(), keys);
        let (one, two) = (SecretName::new("user/one").unwrap(), SecretName::new("pairing/two").unwrap());
        let old = open(given(key("1"), &[])).await.unwrap();
        for (name, earlier) in [(&one, Earlier::Removed), (&two, Earlier::MustNotBe)] {
            old.put(name, &Secret::new("text"), earlier).await.unwrap();
        }
        old.put(&one, &Secret::new("newer"), Earlier::Until(clock.now() + Duration::from_secs(60))).await.unwrap();

        let why = open(given(key("2"), &[])).await.unwrap_err().to_string();
        let ids = (key("1").id().to_string(), key("2").id().to_string());
        assert!(why.contains(&format!("{} (3 of them)", ids.0)) && why.contains(&ids.1), "{why}");
        open(given(key("2"), &["1"])).await.unwrap();
        let new = open(given(key("2"), &[])).await.unwrap();
        let values: Vec<String> = new.get(&one).await.unwrap().iter().map(|s| s.expose().to_owned()).collect();
        assert_eq!(values, ["newer", "text"]);
        assert_eq!(new.list("user").await.unwrap().iter().map(|i| i.name.clone()).collect::<Vec<_>>(), [one]);
        assert!(open(given(key("1"), &[])).await.is_err());
    }
}
