//! The server as its caller sees it: made once, served on any number of listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use doorbell_core::house::House;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conn::Door;
use crate::contracts::Contracts;
use crate::contracts::show::ServedAt;
use crate::front::Front;
use crate::listen::{Listening, listen};
use crate::options::Options;
use crate::status::Status;
use crate::tls::Tls;

/// Ends serving, in two steps. Whoever holds a copy may take them.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// No more connections; requests under way go on.
    pub soft: CancellationToken,
    /// Connections are cut. Without the soft step before it nothing happens.
    pub hard: CancellationToken,
}

/// The HTTP server of one house. Cheap to clone; the connection cap holds over all clones and listeners.
#[derive(Clone)]
pub struct Server {
    front: Arc<Front>,
    places: Arc<Semaphore>,
}

impl Server {
    /// A server for `house`. Install the metrics recorder before, if there is to be one.
    pub fn new(house: Arc<House>, options: Options, status: Arc<Status>) -> Self {
        let places = Arc::new(Semaphore::new(options.limits.connections.min(Semaphore::MAX_PERMITS)));
        Self { front: Front::new(house, options, status), places }
    }

    /// Serves on `listener` until `ending` asks it to close; then takes no more connections, refuses new webhooks with 503 on
    /// those that stand, and waits for requests under way until `ending` has it cut what is left.
    ///
    /// Closing one listener is closing: the status goes to that for all.
    pub async fn serve(&self, listener: TcpListener, tls: Option<Tls>, ending: Ending) {
        self.serve_at(None, listener, tls, ending).await;
    }

    /// As [`Server::serve`], for the wire contracts that are served on `address` of their own: nothing else answers there.
    pub async fn serve_contracts(&self, address: SocketAddr, listener: TcpListener, tls: Option<Tls>, ending: Ending) {
        self.serve_at(Some(address), listener, tls, ending).await;
    }

    /// Puts these wire contracts in the place of those before.
    pub fn set_contracts(&self, contracts: Contracts) {
        contracts.adopt(&self.front.contracts.load());
        self.front.contracts.store(Arc::new(contracts));
    }

    /// What the wire contracts serve, and where.
    pub fn served(&self) -> Vec<ServedAt> {
        self.front.served()
    }

    /// The listener where agents may register themselves, none in it being the main one; none if they may not.
    pub fn registers_at(&self) -> Option<Option<SocketAddr>> {
        self.front.contracts.load().registers_at()
    }

    async fn serve_at(&self, door: Door, listener: TcpListener, tls: Option<Tls>, ending: Ending) {
        let closing = ending.soft.clone();
        let listening = Listening {
            front: Arc::clone(&self.front),
            door,
            places: Arc::clone(&self.places),
            tls,
            ending,
            connections: TaskTracker::new(),
        };
        let told = async {
            closing.cancelled().await;
            self.front.status.set_closing();
        };
        tokio::join!(told, listen(listener, listening));
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("options", &self.front.options).finish_non_exhaustive()
    }
}
