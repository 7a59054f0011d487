//! Which paths a webhook may listen on: none that the program itself serves, none twice.

use std::collections::HashMap;

use super::Cx;

/// The program's own: the path itself and everything below it.
const OWN: &[&str] =
    &["/api", "/ui", "/docs", "/health", "/ready", "/metrics", "/openapi.json", "/.well-known", "/a2a"];
/// Longer paths are cut by some proxies and help nobody.
const PATH_BYTES_MAX: usize = 256;

/// Paths taken so far, with who took them.
#[derive(Default)]
pub(super) struct Taken(HashMap<String, String>);

impl Taken {
    /// Takes `path` for the source `owner`, or tells why not.
    pub(super) fn take(&mut self, path: &str, owner: &str, (offset, key): (usize, &str), cx: &Cx<'_>) {
        if let Some((problem, advice)) = wrong(path) {
            cx.report.error(offset, key, problem, advice);
            return;
        }
        if let Some(other) = self.0.insert(path.to_owned(), owner.to_owned()) {
            let problem = format!("the path `{path}` is taken by `{other}` already");
            cx.report.error(
                offset,
                key,
                problem,
                "Give one of them another `path`, or let two triggers share one source.",
            );
        }
    }
}

/// What is wrong with a path of the server's own address, and what to do.
pub(super) fn wrong(path: &str) -> Option<(String, &'static str)> {
    odd(path).or_else(|| own(path))
}

/// What is wrong with a path wherever it is: on a listener where nothing of ours answers too.
pub(super) fn odd(path: &str) -> Option<(String, &'static str)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    let parts = || path.split('/').skip(1);
    if !path.starts_with('/') || path == "/" || path.len() > PATH_BYTES_MAX || !path.chars().all(plain) {
        let problem = format!("`{path:.80}` cannot be a webhook's path");
        return Some((problem, "Write a path such as \"/hooks/github\": letters, digits, `-`, `.`, `_`, `~` and `/`."));
    }
    if parts().any(|p| p.is_empty() || p == "." || p == "..") {
        return Some((format!("`{path}` has an empty or a dotted part"), "Proxies rewrite such paths; leave it out."));
    }
    None
}

fn own(path: &str) -> Option<(String, &'static str)> {
    // In any case: a proxy in front may rewrite it, and people read it as the same.
    let lower = path.to_ascii_lowercase();
    let own = OWN.iter().find(|own| lower.strip_prefix(**own).is_some_and(|r| r.is_empty() || r.starts_with('/')));
    own.map(|own| (format!("`{path}` is below `{own}`, which Doorbell serves itself"), "Use a path below /hooks/."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_paths_are_free_where_we_do_not_answer_and_odd_ones_nowhere() {
        assert!(odd("/api/webhook").is_none() && wrong("/api/webhook").is_some());
        assert!(odd("/api//webhook").is_some() && odd("/a/").is_some());
    }

    #[test]
    fn own_odd_and_dotted_paths_are_refused() {
        for good in ["/hooks/github", "/agents/x/trigger", "/apis", "/v1/events~1"] {
            assert!(wrong(good).is_none(), "{good}");
        }
        for bad in [
            "",
            "/",
            "hooks",
            "/api",
            "/api/v1/runs",
            "/API/v1",
            "/Health",
            "/ui",
            "/hooks//a",
            "/hooks/../a",
            "/a/",
            "/a?b",
            "/{x}",
        ] {
            assert!(wrong(bad).is_some(), "{bad}");
        }
    }
}
