//! Reading the configuration again while the program runs: validated whole, then swapped at once; if it is wrong the old
//! one stays, and the log, `/ready` and the API say so (`docs/semantics.md`, rule 19).
//!
//! Whether a file changed is told by its stamp (time, length, number) rather than by what the notice says: editors,
//! `mv` and Kubernetes' links all change a file in ways of their own. Notices only say when to look.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::App;
use crate::config::{Fault, ServerSettings};

/// An editor writes in several steps; this long after the first one it is over.
const SETTLE: Duration = Duration::from_millis(200);
/// A look without a notice, for file systems that give none.
const LOOK: Duration = Duration::from_secs(10);

/// Tells when one of some files has changed.
#[derive(Debug)]
pub struct Watcher {
    files: Vec<(PathBuf, Stamp)>,
    stirred: Arc<Notify>,
    watching: Option<RecommendedWatcher>,
}

type Stamp = Option<(SystemTime, u64, u64)>;

impl Watcher {
    /// Watches these files, and as good as it can their directories.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let stirred = Arc::new(Notify::new());
        let tell = Arc::clone(&stirred);
        let watching = notify::recommended_watcher(move |_: notify::Result<notify::Event>| tell.notify_one());
        let watching =
            watching.map_err(|error| tracing::warn!(%error, "Files are looked at every 10 s instead of watched"));
        let mut watcher = Self { files: Vec::new(), stirred, watching: watching.ok() };
        watcher.set(files);
        watcher
    }

    /// Watches these from now on; changes before this call are taken as seen.
    pub fn set(&mut self, files: Vec<PathBuf>) {
        let known: Vec<PathBuf> = self.files.iter().filter_map(|(f, _)| directory(f)).collect();
        for directory in files.iter().filter_map(|f| directory(f)).filter(|d| !known.contains(d)) {
            // The directory, since a file that is replaced takes its watch along.
            if let Some(Err(error)) = self.watching.as_mut().map(|w| w.watch(&directory, RecursiveMode::NonRecursive)) {
                tracing::debug!(directory = %directory.display(), %error, "A directory cannot be watched");
            }
        }
        self.files = files.into_iter().map(|f| (f.clone(), stamp(&f))).collect();
    }

    /// Resolves when one of the files has changed. May be dropped and called again without losing a change.
    pub async fn changed(&mut self) {
        loop {
            if self.look() {
                tokio::time::sleep(SETTLE).await;
                self.files.iter_mut().for_each(|(file, seen)| *seen = stamp(file));
                return;
            }
            tokio::select! {
                // A busy directory (the store may be in it) stirs all the time: one look in a while is enough.
                () = self.stirred.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn look(&self) -> bool {
        self.files.iter().any(|(file, seen)| stamp(file) != *seen)
    }
}

fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() })
}

fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&meta);
    #[cfg(not(unix))]
    let number = 0;
    Some((meta.modified().ok()?, meta.len(), number))
}

impl App {
    /// Puts a new configuration in the old one's place.
    pub fn take_config(&self, resolved: crate::config::Resolved) {
        for fault in &resolved.warnings {
            tracing::warn!("{}", fault.without_severity());
        }
        for key in fixed(&self.settings, &resolved.server) {
            tracing::warn!(key, "This change of the configuration takes effect at the next start");
        }
        if let Some(Err(error)) = self.tls.as_ref().map(doorbell_server::Tls::reload) {
            let fault = error.to_string();
            tracing::error!(
                fault,
                "The certificate could not be read again; the old one and the old configuration stay"
            );
            self.status.set_reload_fault(Some(fault));
            return;
        }
        let mut resolved = resolved;
        let contracts = std::mem::take(&mut resolved.contracts);
        if contracts.listens() != self.doors {
            let key = "contracts.*.listen";
            tracing::warn!(key, "This change of the configuration takes effect at the next start");
        }
        let (agents, sources) = (resolved.agents.len(), resolved.sources.len());
        self.house.swap_catalog(resolved.into_catalog());
        self.server.set_contracts(contracts);
        self.status.set_reload_fault(None);
        tracing::info!(agents, sources, "The configuration was read again");
        let house = Arc::clone(&self.house);
        tokio::spawn(async move { super::tell_missing_secrets(&house).await });
    }

    /// Whether this would take the last way in from a program that has one.
    pub fn would_close(&self, resolved: &crate::config::Resolved) -> bool {
        resolved.sources.is_empty() && !self.house.catalog().sources.is_empty()
    }

    /// Keeps the old configuration and says why.
    pub fn refuse_config(&self, faults: &[Fault]) {
        let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let all = all.join("\n");
        tracing::error!("The new configuration is wrong, so the old one stays:\n{all}");
        self.status.set_reload_fault(Some(all));
    }
}

/// Which settings differ that only a start can change.
fn fixed(old: &ServerSettings, new: &ServerSettings) -> Vec<&'static str> {
    let token = |s: &ServerSettings| s.admin_token.as_ref().map(|t| t.expose().to_owned());
    let master = |s: &ServerSettings| s.master_keys.as_ref().map(|keys| keys.ids());
    let differs = [
        ("server.listen", old.listen != new.listen),
        ("server.public_url", old.public_url != new.public_url),
        ("server.data_dir", old.data_dir != new.data_dir),
        ("server.trusted_proxies", old.trusted_proxies != new.trusted_proxies),
        ("server.admin_token", token(old) != token(new)),
        ("server.master_key", master(old) != master(new)),
        ("server.tls", old.tls != new.tls),
        ("server.ready_includes_breakers", old.ready_includes_breakers != new.ready_includes_breakers),
        ("server.max_connections", old.max_connections != new.max_connections),
        ("server.max_body_memory", old.max_body_memory != new.max_body_memory),
        ("server.header_timeout", old.header_timeout != new.header_timeout),
        ("server.body_timeout", old.body_timeout != new.body_timeout),
        ("server.idle_timeout", old.idle_timeout != new.idle_timeout),
        ("server.shutdown_grace", old.shutdown_grace != new.shutdown_grace),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_a_change_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("doorbell.toml");
        std::fs::write(&file, "a").unwrap();
        let mut watcher = Watcher::new(vec![file.clone()]);
        std::fs::write(dir.path().join("other"), "b").unwrap();
        assert!(!watcher.look());
        std::fs::write(&file, "longer").unwrap();
        watcher.changed().await;
        assert!(!watcher.look());
        let next = dir.path().join("next");
        std::fs::write(&next, "another").unwrap();
        std::fs::rename(&next, &file).unwrap();
        watcher.changed().await;
        std::fs::remove_file(&file).unwrap();
        watcher.changed().await;
    }
}
