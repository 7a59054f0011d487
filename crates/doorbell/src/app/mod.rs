//! The program put together: store, house, worker and server, from start to stop. Called by `serve`, `demo` and the
//! library. The caller owns configuration, signals and output.
//!
//! Starting, in this order, so that whatever fails leaves nothing half open: directory and token, store (which one
//! process owns), house, socket, worker (which recovers what a dead process left), server. Stopping is soft, then hard:
//! see [`App::stop`].

mod data_dir;
mod hosts;
mod limits;
mod master_key;
mod place;
pub mod private;
mod reload;
mod signals;
mod stop;
mod sweep;
pub mod telemetry;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use doorbell_core::Clock;
use doorbell_core::Secret;
use doorbell_core::house::{Catalog, House};
use doorbell_core::ids::RunId;
use doorbell_core::ports::{Store, StoreError};
use doorbell_core::vault::{Vault, VaultError};
use doorbell_core::worker::{Worker, WorkerOptions};
use doorbell_server::contracts::show::ServedAt;
use doorbell_server::{Ending, Options, Server, Status, Tls, TlsError};
use doorbell_store::{SqliteOptions, SqliteStore};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Resolved, ServerSettings, StoreAt};

pub use data_dir::{DataDirError, TokenPlace};
pub(crate) use data_dir::{check_token, warnings as data_dir_warnings};
pub use master_key::MasterKeyError;
pub(crate) use master_key::{check_keys, existing_keys};
pub use reload::Watcher;
pub use signals::{Signal, Signals};

/// Why Doorbell could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory or the token in it.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The key to the stored secrets.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The stored secrets.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The socket.
    #[error("cannot listen on {address}: {error}; {}", listen_advice(.error))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A thread that died.
    #[error("starting broke off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// What to do about an address that cannot be had.
fn listen_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrNotAvailable => {
            "no network interface of this machine has that address: set `listen` to one that it has, or to 0.0.0.0 for all"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need rights of their own: choose a higher one for `listen`"
        }
        _ => "is another program listening there? Choose another `listen`",
    }
}

/// What an app is made from.
pub struct Plan {
    /// The configuration.
    pub resolved: Resolved,
    /// The hour and the dice.
    pub clock: Clock,
    /// Renders `/metrics`; see [`telemetry::metrics`].
    pub metrics: Option<PrometheusHandle>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("server", &self.resolved.server).finish_non_exhaustive()
    }
}

/// A Doorbell at work.
pub struct App {
    house: Arc<House>,
    worker: Arc<Worker>,
    status: Arc<Status>,
    addr: SocketAddr,
    server: Server,
    /// The addresses that contracts are served on.
    doors: Vec<SocketAddr>,
    settings: ServerSettings,
    token: Secret,
    token_place: TokenPlace,
    tls: Option<Tls>,
    serving: JoinHandle<()>,
    /// Ends serving.
    ending: Ending,
    /// Ends the sweeper, the look-ups of hosts and the watch on the store's file.
    quit: CancellationToken,
    sweeping: JoinHandle<()>,
    failure: Failure,
}

/// Why a program that ran cannot go on. What was answered with a 2xx before was on disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fatal {
    /// The store no longer knows what is on disk.
    #[error("the store failed for good")]
    Store(#[source] StoreError),
    /// This file of the store was removed or replaced while it was open: what is written to it is not found again.
    #[error("the store's file {} was removed or replaced while Doorbell was running", .0.display())]
    Moved(std::path::PathBuf),
}

/// The first of them, if there is one.
#[derive(Clone, Default)]
struct Failure {
    why: Arc<OnceLock<Fatal>>,
    told: CancellationToken,
}

impl Failure {
    fn tell(&self, why: Fatal) {
        let _ = self.why.set(why);
        self.told.cancel();
    }
}

impl App {
    /// Starts everything; when this returns, the address answers.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left running.
    pub async fn start(plan: Plan) -> Result<Self, StartError> {
        let Plan { resolved, clock, metrics } = plan;
        let settings = resolved.server.clone();
        private::prepare_data(&settings.data_dir).map_err(DataDirError::from)?;
        for warning in data_dir::warnings(&settings) {
            tracing::warn!("{warning}");
        }
        let (token, token_place) = data_dir::admin_token(&settings)?;
        let tls = settings.tls.as_ref().map(|f| Tls::from_pem_files(&f.cert, &f.key)).transpose()?;
        let failure = Failure::default();
        let store = open_store(&resolved, &clock, &failure).await?;
        let StoreAt::Sqlite(path) = resolved.store.clone();
        let mut resolved = resolved;
        let contracts = std::mem::take(&mut resolved.contracts);
        let catalog = resolved.into_catalog();
        let mut hosts = hosts::Hosts::default();
        hosts.resolve(&catalog).await;
        let opened = Self::open(store.clone(), catalog, &clock, &settings, &contracts.listens()).await;
        let (house, listeners, addr, worker) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let place = match place::Place::of(&path) {
            Ok(place) => place,
            Err(error) => {
                store.close().await;
                return Err(StartError::Store(StoreError::Fatal(format!("{}: {error}", path.display()))));
            }
        };
        let status = Status::new();
        let options = server_options(&settings, token.clone(), metrics);
        let server = Server::new(house.clone(), options, status.clone());
        let doors = contracts.listens();
        server.set_contracts(contracts);
        let (ending, quit) = (Ending::default(), CancellationToken::new());
        let serving = serve(server.clone(), listeners, tls.clone(), &ending);
        let (swept, resolving) = (sweep::run(house.clone(), quit.clone()), hosts.run(house.clone(), quit.clone()));
        let sweeping = tokio::spawn(async { tokio::join!(swept, resolving).0 });
        tokio::spawn(place::watch(place, status.clone(), failure.clone(), quit.clone()));
        status.set_running();
        tracing::info!(address = %addr, "Doorbell is open");
        tell_missing_secrets(&house).await;
        Ok(Self {
            house,
            worker: Arc::new(worker),
            status,
            addr,
            server,
            doors,
            settings,
            token,
            token_place,
            tls,
            serving,
            ending,
            quit,
            sweeping,
            failure,
        })
    }

    async fn open(
        store: Arc<dyn Store>,
        catalog: Catalog,
        clock: &Clock,
        settings: &ServerSettings,
        doors: &[SocketAddr],
    ) -> Result<(Arc<House>, Listeners, SocketAddr, Worker), StartError> {
        let keys = master_key::master_keys(settings, &store).await?;
        let vault = Vault::open(Arc::clone(&store), clock.clone(), keys).await?;
        let house = House::open(store, clock.clone(), catalog, vault).await?;
        let address = settings.listen;
        let failed = |error| StartError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let mut listeners = vec![(None, listener)];
        for address in doors.iter().copied() {
            let listener = TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, error })?;
            listeners.push((Some(address), listener));
        }
        let api_url = Some(settings.public_url.clone().unwrap_or_else(|| url_of(addr, settings.tls.is_some())));
        let worker = Worker::start(house.clone(), WorkerOptions { api_url, ..WorkerOptions::default() }).await?;
        Ok((house, listeners, addr, worker))
    }

    /// Where it listens: with port 0 in the configuration, the port it got.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it can be reached from this machine.
    pub fn url(&self) -> String {
        url_of(self.addr, self.tls.is_some())
    }

    /// Where a contract's own listener can be reached from this machine.
    pub fn url_at(&self, listen: SocketAddr) -> String {
        url_of(listen, self.tls.is_some())
    }

    /// The middle: store, catalog, switches.
    pub fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// What `/ready` tells.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// What wire contracts serve, and where.
    pub fn served(&self) -> Vec<ServedAt> {
        self.server.served()
    }

    /// Where agents may register themselves: the contract's own listener, or none for the main one; none if they may not.
    pub fn registers_at(&self) -> Option<Option<SocketAddr>> {
        self.server.registers_at()
    }

    /// What opens the API.
    pub fn admin_token(&self) -> &Secret {
        &self.token
    }

    /// Where the admin token is from.
    pub fn token_place(&self) -> &TokenPlace {
        &self.token_place
    }

    /// The runs that are at work here now.
    pub fn at_work(&self) -> Vec<RunId> {
        self.worker.at_work()
    }

    /// Resolves when the program must stop: what is on disk is no longer known, or is no longer where it was.
    pub async fn failed(&self) -> Fatal {
        self.failure.told.cancelled().await;
        self.failure.why.get().cloned().unwrap_or(Fatal::Store(StoreError::Closed))
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Tells of sources that let nobody in, since their secret is not in the store.
async fn tell_missing_secrets(house: &House) {
    for (source, why) in house.sources_without_secret().await {
        tracing::warn!(%source, code = why.code, "This source has not the secrets that it needs: {why}");
    }
}

/// The main listener (none), and those of contracts by their address.
type Listeners = Vec<(Option<SocketAddr>, TcpListener)>;

/// Serves on all of them until their `ending`; ends when the last has.
fn serve(server: Server, listeners: Listeners, tls: Option<Tls>, ending: &Ending) -> JoinHandle<()> {
    let ending = ending.clone();
    let serving = listeners.into_iter().map(move |(door, listener)| {
        let (server, tls, ending) = (server.clone(), tls.clone(), ending.clone());
        async move {
            match door {
                None => server.serve(listener, tls, ending).await,
                Some(address) => server.serve_contracts(address, listener, tls, ending).await,
            }
        }
    });
    tokio::spawn(async move {
        futures::future::join_all(serving).await;
    })
}

async fn open_store(resolved: &Resolved, clock: &Clock, failure: &Failure) -> Result<Arc<dyn Store>, StartError> {
    let StoreAt::Sqlite(path) = resolved.store.clone();
    if let Some(parent) = path.parent() {
        private::prepare(parent).map_err(DataDirError::from)?;
    }
    let failure = failure.clone();
    let options = SqliteOptions {
        retention: resolved.retention,
        on_fatal: Some(Arc::new(move |error: &StoreError| failure.tell(Fatal::Store(error.clone())))),
        ..SqliteOptions::default()
    };
    let clock = clock.clone();
    let store = tokio::task::spawn_blocking(move || SqliteStore::open(path, options, &clock)).await??;
    Ok(store)
}

fn server_options(settings: &ServerSettings, token: Secret, metrics: Option<PrometheusHandle>) -> Options {
    let mut options = Options::new(token);
    options.trusted_proxies.clone_from(&settings.trusted_proxies);
    options.ready_includes_breakers = settings.ready_includes_breakers;
    options.limits.connections = settings.max_connections;
    options.limits.bodies_at_once = settings.max_body_memory;
    options.timeouts.head = settings.header_timeout;
    options.timeouts.first_byte = settings.header_timeout;
    options.timeouts.body_total = settings.body_timeout;
    options.timeouts.body_idle = options.timeouts.body_idle.min(settings.body_timeout);
    options.timeouts.idle = settings.idle_timeout;
    options.metrics = metrics;
    options
}

/// The address as this machine reaches it: a server that listens everywhere is reached over loopback.
pub(crate) fn url_of(addr: SocketAddr, tls: bool) -> String {
    let ip = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, addr.port()))
}
