//! `[server] master_key`: what opens the stored secrets. Unlike other secrets a file that others can read is an error: this
//! one key guards all the others.

use std::sync::Arc;

use doorbell_core::seal::{MasterKey, MasterKeys};

use super::Cx;
use super::secrets::Secrets;
use super::values::SecretAt;
use super::written::ServerTable;

const KEY: &str = "server.master_key";

/// The keys that are written, the one that seals first; none where none is.
pub(super) fn master_keys(written: &ServerTable, cx: &Cx<'_>) -> Option<Arc<MasterKeys>> {
    let list = written.master_key.as_ref()?;
    if list.value.0.is_empty() {
        cx.report.error(list.offset, KEY, "an empty list of keys", "Name at least one place, or leave it out.");
        return None;
    }
    let mut keys = Vec::with_capacity(list.value.0.len());
    for at in &list.value.0 {
        match &at.value {
            SecretAt::Stored(_) => {
                let problem = "the key to the stored secrets cannot be one of them";
                cx.report.error(at.offset, KEY, problem, "Write { file = \"path\" } or { env = \"NAME\" }.");
                return None;
            }
            SecretAt::File(file) => {
                let path = cx.path(file);
                let mode = cx.world.files.secret(&path).ok().and_then(|f| f.mode).filter(|mode| mode & 0o077 != 0);
                if let Some(mode) = mode {
                    let problem = format!("`{}` can be read by others (mode {mode:o})", path.display());
                    cx.report.error(at.offset, KEY, problem, format!("Run: chmod 600 {}", path.display()));
                    return None;
                }
            }
            SecretAt::Env(_) | SecretAt::Unreadable => {}
        }
        let text = Secrets::new(cx).place(at, KEY)?;
        match MasterKey::parse(&text) {
            Ok(key) => keys.push(key),
            Err(error) => {
                cx.report.error(at.offset, KEY, error.to_string(), "");
                return None;
            }
        }
    }
    let mut keys = keys.into_iter();
    keys.next().map(|first| Arc::new(MasterKeys::new(first, keys.collect())))
}
