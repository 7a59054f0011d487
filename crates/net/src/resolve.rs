//! The resolver behind the public client: looks a name up once and hands on only the addresses that `guard` allows.
//! Called by `reqwest` for every new connection; since the connection goes to the very addresses that were judged, a
//! name that changes its address between the check and the call (DNS rebinding) gains nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::guard::Allowed;

/// How a name becomes addresses.
pub(crate) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Asks the machine's resolver.
pub(crate) fn system() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

/// A name has no address that may be called. Travels inside the client's error, and is found there again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{name}` may not be called: its address {address} is {what}")]
pub(crate) struct NotPublic {
    pub(crate) name: String,
    pub(crate) address: std::net::IpAddr,
    pub(crate) what: &'static str,
}

/// Resolves to addresses that may be called only.
pub(crate) struct Guarded(pub(crate) Lookup, pub(crate) Allowed);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, may) = ((self.0)(name.as_str().to_owned()), self.1.clone());
        Box::pin(async move {
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in found.await? {
                match may.call(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(what) => refused = Some((address.ip(), what)),
                }
            }
            match refused {
                // A public name that also stands for a private address is either an attack or a mistake, and the
                // public rest is enough for neither to matter.
                Some((address, what)) if allowed.is_empty() => {
                    Err(NotPublic { name: name.as_str().to_owned(), address, what }.into())
                }
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
