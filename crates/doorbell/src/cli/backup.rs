//! `doorbell backup` and `doorbell restore`: a copy of the whole store in one file, and back. Both work on the store's file
//! itself, not through the server: a backup reads beside it, a restore refuses while a server holds the store.
//!
//! The copy holds everything that the store holds, event bodies included, and is readable by its owner only. Stored secrets
//! are in it sealed, and the master key is not: whoever has the backup alone cannot open them, its owner included.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use doorbell_core::ports::{Store as _, StoreError};
use doorbell_core::seal::SecretName;
use doorbell_store::{SqliteOptions, SqliteStore};

use super::Context;
use super::access::DEFAULT_CONFIG;
use super::fault::{Exit, Fault};
use crate::config::StoreAt;

const BACKUP_EXAMPLES: &str = "\
Examples:
  doorbell backup doorbell-$(date +%F).db     while the server runs, or not
  doorbell backup -c /etc/doorbell/doorbell.toml /backups/doorbell.db

The file is a SQLite database with everything in the store, event bodies
included: keep it as safe as the store. Stored secrets are in it, sealed. The
master key is not: keep a copy of data_dir/master.key elsewhere, or they are
lost.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  systemctl stop doorbell
  mkdir old && mv doorbell-data/doorbell.db* old/
  doorbell restore backup.db
  doorbell restore backup.db --without-secrets    the master key is lost

It never overwrites: move the old store away first, with the files beside it.
Stored secrets need the master key that they were sealed with.";

/// Arguments of `doorbell backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct BackupArgs {
    /// The file to write; it must not exist yet
    file: PathBuf,
    /// The configuration; tells where the store is
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Arguments of `doorbell restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Leave the stored secrets out: set them again, and pair anew. For when their master key is lost
    #[arg(long)]
    without_secrets: bool,
    /// The configuration; tells where the store is to be
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Copies the store to a file.
///
/// # Errors
/// If there is no store, or the file exists or cannot be written.
pub(super) async fn backup(args: BackupArgs, cx: &Context) -> Result<Exit> {
    let store = store_file(&args.config, cx).await?;
    if !store.is_file() {
        let what = format!("there is no store at {}", store.display());
        return Err(Fault::new(what).advice("It is made when the server first starts.").into());
    }
    let dir = args.file.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let Some(dir) = dir.filter(|dir| !dir.is_dir()) {
        return Err(Fault::usage(format!("there is no directory {}", dir.display())).advice("Make it first.").into());
    }
    let (from, to) = (store.clone(), args.file.clone());
    blocking(move || doorbell_store::backup(&from, &to)).await.map_err(|e| failed("the backup failed", e))?;
    let bytes = std::fs::metadata(&args.file).map(|m| m.len()).unwrap_or_default();
    cx.screen.line(format!("{} holds all of {} ({bytes} bytes)", args.file.display(), store.display()))?;
    Ok(Exit::Ok)
}

/// Puts a backup in the store's place.
///
/// # Errors
/// If a server holds the store, there is one already, or the backup is damaged.
pub(super) async fn restore(args: RestoreArgs, cx: &Context) -> Result<Exit> {
    let store = store_file(&args.config, cx).await?;
    if let Some(dir) = store.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|e| Fault::new(format!("cannot make {}", dir.display())).cause(e))?;
    }
    let (from, to, clock) = (args.file.clone(), store.clone(), cx.clock.clone());
    let restored = blocking(move || doorbell_store::restore(&from, &to, &clock)).await;
    restored.map_err(|error| match &error {
        // Found before the backup is looked at: a server holds the store, or it is there already.
        StoreError::Conflict(_) if store.exists() => Fault::new("the restore failed").cause(error).advice(format!(
            "Nothing was changed. Stop the server if it runs, move the old store away with the files beside it (mkdir old && mv \
             {}* old/), then restore again.",
            store.display()
        )),
        _ => failed("the restore failed", error),
    })?;
    if args.without_secrets {
        let left = without_secrets(&store, cx)
            .await
            .map_err(|e| Fault::new("it is restored, and its stored secrets could not be left out").cause(e))?;
        cx.screen.remark(format!("Stored secrets left out: {left}."));
    }
    cx.screen.line(format!("{} is restored from {}; start the server", store.display(), args.file.display()))?;
    Ok(Exit::Ok)
}

/// Takes all sealed secrets out of a store that nobody holds; how many names there were.
async fn without_secrets(file: &Path, cx: &Context) -> Result<usize, StoreError> {
    let (path, clock) = (file.to_owned(), cx.clock.clone());
    let open = tokio::task::spawn_blocking(move || SqliteStore::open(path, SqliteOptions::default(), &clock)).await;
    let store = open.unwrap_or_else(|e| Err(StoreError::Fatal(e.to_string())))?;
    let names: BTreeSet<SecretName> = store.secrets().await?.into_iter().map(|kept| kept.secret.name).collect();
    for name in &names {
        store.remove_secret(name.clone()).await?;
    }
    store.close().await;
    Ok(names.len())
}

async fn store_file(config: &Path, cx: &Context) -> Result<PathBuf> {
    match super::resolved(config, cx).await?.store {
        StoreAt::Sqlite(file) => Ok(file),
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Result<(), StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(StoreError::Fatal(e.to_string())))
}

fn failed(what: &str, error: StoreError) -> Fault {
    let fault = Fault::new(what);
    match &error {
        StoreError::Unavailable(_) => {
            fault.cause(error).advice("Nothing was changed; the same command may be given again.")
        }
        _ => fault.cause(error).advice("Nothing was changed."),
    }
}
