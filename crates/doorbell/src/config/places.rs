//! Where the keys stand whose use shows only outside of the file: on the disk, and in the store. `check` tells of them there.

use std::collections::BTreeMap;

use super::Cx;
use super::fault::{Fault, Severity};
use super::section::At;
use super::written::Written;

/// Where some keys are written, if they are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    file: String,
    found: BTreeMap<&'static str, (usize, usize)>,
    /// Keys that an environment variable stands for.
    variables: BTreeMap<&'static str, &'static str>,
}

impl Places {
    pub(super) fn new(written: &Written, cx: &Cx<'_>) -> Self {
        fn offset<T>(at: &Option<At<T>>) -> Option<usize> {
            at.as_ref().map(|at| at.offset)
        }
        let (server, tls) = (&written.server, written.server.tls.as_ref().map(|tls| &tls.value));
        let offsets = [
            ("server.data_dir", offset(&server.data_dir)),
            ("server.master_key", offset(&server.master_key)),
            ("server.tls", offset(&server.tls)),
            ("server.tls.cert", tls.and_then(|tls| offset(&tls.cert))),
            ("server.tls.key", tls.and_then(|tls| offset(&tls.key))),
            ("store.url", offset(&written.store.url)),
        ];
        let place = |offset: usize| {
            let fault = cx.report.fault_at(offset, "");
            (fault.line, fault.column)
        };
        let found = offsets.into_iter().filter_map(|(key, offset)| Some((key, place(offset?)))).collect();
        let variables = [("server.data_dir", "DOORBELL_DATA_DIR"), ("store.url", "DOORBELL_STORE_URL")];
        let variables = variables.into_iter().filter(|(_, name)| cx.world.var(name).is_some()).collect();
        Self { file: cx.report.fault_at(0, "").file, found, variables }
    }

    /// A fault of a key, where it is written; of one that is not, at the file's beginning.
    pub fn fault(&self, severity: Severity, key: &str, problem: impl Into<String>, advice: impl Into<String>) -> Fault {
        let (file, (line, column)) = match (self.variables.get(key), self.found.get(key)) {
            (Some(name), _) => (format!("environment variable {name}"), (0, 0)),
            (None, found) => (self.file.clone(), found.copied().unwrap_or((1, 1))),
        };
        let key = if line == 0 { String::new() } else { key.to_owned() };
        Fault { severity, file, line, column, key, problem: problem.into(), advice: advice.into() }
    }
}
