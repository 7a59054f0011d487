//! What the file does not say but its use needs: that the directories can be made and written, the certificate fits its key,
//! and the master key opens what the store holds. Called by `doorbell check`.

use std::path::Path;

use doorbell_server::TlsError;

use crate::app::{check_keys, check_token, data_dir_warnings};
use crate::config::{Fault, Resolved, Severity, StoreAt};

/// Looks, and makes nothing that stays. What was told of a key is not told again. Called on a thread that may block.
pub(super) fn faults(resolved: &Resolved, told: &[Fault]) -> Vec<Fault> {
    let look = Look { resolved, told };
    let (mut faults, is_dir_good) = look.directories();
    faults.extend(look.tls());
    // Of a directory that is none, all that is in it would be wrong too.
    if is_dir_good {
        faults.extend(look.data());
    }
    faults
}

struct Look<'r> {
    resolved: &'r Resolved,
    told: &'r [Fault],
}

impl Look<'_> {
    fn is_told(&self, key: &str) -> bool {
        self.told.iter().any(|f| f.severity == Severity::Error && f.key.starts_with(key))
    }

    fn error(&self, key: &str, (problem, advice): (String, String)) -> Fault {
        self.resolved.places.fault(Severity::Error, key, problem, advice)
    }

    /// The directories of the data and of the store, and whether that of the data may be looked into.
    fn directories(&self) -> (Vec<Fault>, bool) {
        let data_dir = self.resolved.server.data_dir.as_path();
        let StoreAt::Sqlite(store) = &self.resolved.store;
        let wrong = |key: &str, dir: &Path| {
            let found = (!self.is_told(key)).then(|| directory(dir)).flatten();
            found.map(|why| self.error(key, why))
        };
        let data = wrong("server.data_dir", data_dir);
        let is_good = data.is_none();
        // Without a URL of its own the store is in the data directory, which has been told.
        let beside = store.parent().filter(|dir| is_good || !dir.starts_with(data_dir));
        let of_store = beside.filter(|dir| *dir != data_dir).and_then(|dir| wrong("store.url", dir));
        (data.into_iter().chain(of_store).collect(), is_good)
    }

    fn tls(&self) -> Vec<Fault> {
        let Some(tls) = &self.resolved.server.tls else { return Vec::new() };
        let fault = |why: TlsError| {
            let key = if why.is_of_certificate() { "server.tls.cert" } else { "server.tls.key" };
            (!self.is_told(key)).then(|| self.error(key, in_two(&why.to_string(), "; ")))
        };
        doorbell_server::tls_faults(&tls.cert, &tls.key).into_iter().filter_map(fault).collect()
    }

    /// What lies in the data directory: who may read it, the admin token, the master key.
    fn data(&self) -> Vec<Fault> {
        let (server, places) = (&self.resolved.server, &self.resolved.places);
        if self.is_told("server.data_dir") {
            return Vec::new();
        }
        let open = data_dir_warnings(server).into_iter();
        let mut faults: Vec<Fault> =
            open.map(|problem| places.fault(Severity::Warning, "server.data_dir", problem, "")).collect();
        if !self.is_told("server.admin_token") {
            let wrong = check_token(server).err();
            faults.extend(wrong.map(|why| self.error("server.data_dir", (why.to_string(), String::new()))));
        }
        if !self.is_told("server.master_key") && !self.is_told("store.url") {
            let wrong = check_keys(server, &self.resolved.store).err();
            faults.extend(wrong.map(|why| self.error("server.master_key", in_two(&why.to_string(), ". "))));
        }
        faults
    }
}

/// A start says what is wrong and what to do in one line.
fn in_two(text: &str, between: &str) -> (String, String) {
    let Some((problem, advice)) = text.split_once(between) else { return (text.to_owned(), String::new()) };
    let mut letters = advice.trim_end_matches('.').chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    (problem.to_owned(), format!("{first}{}.", letters.as_str()))
}

/// Why a directory cannot be used, or not be made, and what to do.
fn directory(dir: &Path) -> Option<(String, String)> {
    // The nearest directory that is there decides: the rest is made on the first start.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let nearest = dir.ancestors().find(|d| d.exists())?;
    let shown = nearest.display();
    if !nearest.is_dir() {
        return Some((format!("`{shown}` is a file, not a directory"), "Name another path.".into()));
    }
    if !is_writable(nearest) {
        let problem = format!("`{shown}` cannot be written by this user");
        return Some((problem, "Name another path, or change its owner.".into()));
    }
    // Some directories take nothing new in spite of their permissions (/proc, /sys): only a try tells.
    let tried = (nearest != dir).then(|| tempfile::tempdir_in(nearest));
    let error = tried?.err()?;
    let error = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
    Some((format!("`{}` cannot be made in `{shown}`: {error}", dir.display()), "Name another path.".into()))
}

#[cfg(unix)]
fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn is_writable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.permissions().readonly())
}
