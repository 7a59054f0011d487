//! Host names in `allowed_sources`: resolved before the door opens, every minute from then on, and when the configuration
//! changes. The door compares the peer's address with what is put in here; it asks no name server itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::allowed::Host;
use doorbell_core::house::{Catalog, House};
use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Senders change their addresses with time-to-lives of minutes; the system's resolver may keep them longer.
const EVERY: Duration = Duration::from_secs(60);
/// A name server that says nothing for longer is down.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A name that cannot be resolved keeps its addresses for this long: a name server that is down for a while must not turn
/// good senders away, and a name that was given up must not stay open for ever.
const KEPT: Duration = Duration::from_secs(3600);

/// When each name was last resolved.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Instant>);

impl Hosts {
    /// Resolves every host of the catalog once.
    pub(super) async fn resolve(&mut self, catalog: &Catalog) {
        let webhooks = catalog.sources.values().filter_map(|s| s.webhook());
        let hosts: Vec<&Host> = webhooks.flat_map(|w| w.allowed.hosts()).collect();
        let now = Instant::now();
        let found = join_all(hosts.iter().map(|host| look_up(host.name()))).await;
        for (host, found) in hosts.iter().zip(&found) {
            match found {
                Ok(addresses) => {
                    host.set(addresses.iter().copied());
                    self.0.insert(host.name().to_owned(), now);
                }
                Err(error) => {
                    let age = self.0.get(host.name()).map(|at| now.duration_since(*at));
                    if age.is_none_or(|age| age > KEPT) {
                        host.set([]);
                    }
                    tracing::warn!(host = host.name(), error, "A host of allowed_sources cannot be resolved");
                }
            }
        }
        self.0.retain(|name, _| hosts.iter().any(|h| h.name() == name));
    }

    /// Resolves again and again, until told to stop.
    pub(super) async fn run(mut self, house: Arc<House>, quit: CancellationToken) {
        let mut changes = house.changes();
        loop {
            tokio::select! {
                () = quit.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(EVERY) => {}
            }
            let catalog = house.catalog();
            tokio::select! {
                () = quit.cancelled() => return,
                () = self.resolve(&catalog) => {}
            }
        }
    }
}

async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = tokio::time::timeout(ANSWER_WITHIN, tokio::net::lookup_host((name, 0))).await;
    match found {
        Ok(Ok(addresses)) => Ok(addresses.map(|a| a.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
    }
}
