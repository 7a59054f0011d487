//! The file as written: one struct a table, every key optional, nothing resolved. `docs/config.md` says the same for
//! people, and a test compares the two; the JSON Schema is made from these structs.
//!
//! Defaults and what the keys mean together are the business of `resolve`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use toml::Spanned;
use toml::de::DeValue;

use super::section::{At, Here, Json, Section, Table, Value, as_table};
use super::values::{
    AllowedSource, Auth, ClientCertForm, ContractAuth, Custom, Lasting, Net, OnDuplicateFailedWord, PassWord,
    PatternWord, Rate, RegisterWord, RespondWord, SecretAt, Several, Size, SourceKind, WhenFullWord,
};

mod read;

/// Declares a table once: its struct, how it is read, and its schema.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub struct $name {
            $($(#[$key_doc])* pub $key: Option<At<$type>>,)+
        }

        impl $name {
            /// Every key, in the order of the documentation.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];
        }

        impl Table for $name {
            fn read(section: &Section<'_, '_, '_>) -> Self {
                Self { $($key: section.get(stringify!($key)),)+ }
            }
        }

        impl Value for $name {
            fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
                let section = Section::new(here.clone(), as_table(value, here)?);
                let read = <Self as Table>::read(&section);
                section.finish();
                Some(read)
            }
        }
    )+};
}

tables! {
    /// `[server]`: where Doorbell listens and keeps its things.
    ServerTable {
        /// Address and port; port 0 takes a free one. Default `127.0.0.1:8080`. `DOORBELL_LISTEN` wins over it.
        listen: String,
        /// The URL under which senders and agents reach this server. `DOORBELL_PUBLIC_URL` wins over it.
        public_url: String,
        /// Where the store, the admin token and the lock are; mode 0700. Default `./doorbell-data`. `DOORBELL_DATA_DIR` wins.
        data_dir: String,
        /// The longest request body, unless a source or its provider says otherwise. Default `1 MiB`.
        max_body: Size,
        /// Memory for bodies while they are read, all requests together; beyond it 503. Bodies up to 64 KiB are not counted.
        /// Default `128 MiB`.
        max_body_memory: Size,
        /// Proxies that may say who the real sender is (`X-Forwarded-For`). Default: none.
        trusted_proxies: Vec<At<Net>>,
        /// Opens the API and the pages. Default: `DOORBELL_ADMIN_TOKEN`, else `data_dir/admin.token`, made on first start.
        admin_token: SecretAt,
        /// Opens the stored secrets: 64 hex digits, or a list of places, of which the first seals and all open. Default:
        /// `data_dir/master.key`, made on first start.
        master_key: Several<SecretAt>,
        /// Serves HTTPS with this certificate.
        tls: TlsTable,
        /// Requests in a time, over all sources. Default: no limit.
        rate_limit: Rate,
        /// How many runs an event may come from, one after the other (`doorbell-hops`). Default 8.
        max_hops: u32,
        /// Connections at once; more are closed. Default 10000.
        max_connections: u32,
        /// How long a connection may take to send a request's head. Default `10s`.
        header_timeout: Lasting,
        /// How long a request's body may take. Default `60s`.
        body_timeout: Lasting,
        /// How long a connection may be idle between requests. Default `75s`.
        idle_timeout: Lasting,
        /// How long a soft stop lets running agents and requests go on. Default `30s`.
        shutdown_grace: Lasting,
        /// Whether an open breaker makes `/ready` say 503. Default false.
        ready_includes_breakers: bool,
    }

    /// `tls`: PEM files, read again on a reload.
    TlsTable {
        /// The certificate chain.
        cert: String,
        /// Its private key.
        key: String,
    }

    /// `[store]`: where everything is kept.
    StoreTable {
        /// `sqlite:PATH`; default `sqlite:<data_dir>/doorbell.db`. `DOORBELL_STORE_URL` wins over it.
        url: String,
    }

    /// `[agents.NAME]`: what every runner has. The runner's own keys come on top.
    AgentTable {
        /// The kind: `process` or `http`.
        runner: String,
        /// A known agent program instead of `runner` (comes in a later version).
        preset: String,
        /// How long one attempt may take. Default `10m`.
        timeout: Lasting,
        /// Attempts at once. Default 1.
        concurrency: u32,
        /// Accept and queue, do not run. Default false. The switch in the API wins.
        paused: bool,
        /// How often and when to try again.
        retries: RetriesTable,
        /// Holds the runs of an agent that keeps failing. Default: off.
        breaker: BreakerTable,
        /// How long a run may live unfinished, retries and waits included. Default `7d`.
        max_age: Lasting,
    }

    /// `retries`
    RetriesTable {
        /// Attempts after the first. Default 3.
        max: u32,
        /// The delay after the first failure; it doubles from there. Default `10s`.
        backoff: Lasting,
        /// No delay is longer. Default `10m`.
        max_backoff: Lasting,
    }

    /// `breaker`
    BreakerTable {
        /// Failures in a row that open it. Default 5.
        failures: u32,
        /// How long runs are held before one is let go to see. Default `60s`.
        reset: Lasting,
    }

    /// `[sources.NAME]`: a way in.
    SourceTable {
        /// How events come in. Default `webhook`; `event` takes them from the API only. Others come in later versions.
        kind: SourceKind,
        /// Where a webhook listens. Default `/hooks/NAME`.
        path: String,
        /// Who sends: see `doorbell providers`.
        provider: String,
        /// How the sender proves itself, where there is no provider.
        auth: Auth,
        /// A provider of one's own, in the form of the built-in ones (`doorbell providers NAME`).
        custom: Custom,
        /// The client certificates that are let in (`auth = "client-cert"`).
        client_cert: ClientCertTable,
        /// What the sender signs with; a list while it is being changed, the new one first.
        secret: Several<SecretAt>,
        /// The only addresses, networks and hosts (by exact name, as it resolves) that may send. Default: all.
        allowed_sources: Vec<At<AllowedSource>>,
        /// Requests in a time, for the source as a whole. Default: no limit.
        rate_limit: Rate,
        /// Requests in a time from one address. Default: no limit.
        rate_limit_per_address: Rate,
        /// Failed checks of the sender in a time from one address; beyond it 429 instead of 401. Default: no limit.
        failed_auth_limit: Rate,
        /// Actors whose events start nothing: your agents' own accounts, exactly as the sender names them. Default: none.
        ignore_actors: Vec<At<String>>,
        /// The longest body. Default: the provider's, else the server's.
        max_body: Size,
        /// 202 at once, or the run's result. Default `accepted`.
        respond: RespondWord,
        /// How long `respond = "result"` waits. Default `25s`.
        respond_timeout: Lasting,
        /// How a redelivery is known: `auto`, `id`, `body`, `none`, or a CEL expression that gives a text. Default `auto`.
        dedup: String,
        /// For how long the same body under another id is the same event. Default `10m`.
        replay_window: Lasting,
        /// What a redelivery does when the run failed for good. Default `answer`.
        on_duplicate_failed: OnDuplicateFailedWord,
        /// How old a signature may be. Default: the provider's.
        tolerance: Lasting,
        /// What the sender shows when it asks whether this address is ours: Meta's and Strava's verify token, WebSub's topic.
        verify_token: SecretAt,
        /// Whom the sender's token is meant for (Google Pub/Sub). Default: the source's public URL.
        audience: String,
        /// The header of the signature or token (`auth = "hmac"` and `"api-key"`).
        header: String,
        /// What stands before the signature or token.
        prefix: String,
        /// How the signature is written: `hex` or `base64`.
        encoding: String,
        /// The hash of `auth = "hmac"`: `sha256`, `sha1`, `sha512`.
        hash: String,
        /// The header with the delivery's id.
        id_header: String,
        /// The header with the event's type.
        type_header: String,
        /// Whether it takes requests. Default true.
        enabled: bool,
    }

    /// `client_cert`: which client certificates are let in (`auth = "client-cert"`), and how the proxy tells of them.
    ClientCertTable {
        /// `xfcc`, `headers` or `certificate`.
        form: ClientCertForm,
        /// xfcc, certificate: the header. Default `X-Forwarded-Client-Cert`, `X-Client-Cert`.
        header: String,
        /// headers: says that the certificate was found good. Default `X-SSL-Client-Verify`.
        verify_header: String,
        /// headers: what it says then. Default `SUCCESS`.
        verify_value: String,
        /// headers: the subject. Default `X-SSL-Client-S-DN`.
        subject_header: String,
        /// headers: the fingerprint in hex. Default `X-SSL-Client-Fingerprint`.
        fingerprint_header: String,
        /// Subjects let in, exactly as the proxy writes them.
        subjects: Vec<At<String>>,
        /// xfcc: alternative names let in: `dns:HOST`, `uri:URI`.
        sans: Vec<At<String>>,
        /// SHA-256 fingerprints let in, in hex; with `headers` also SHA-1.
        fingerprints: Vec<At<String>>,
    }

    /// `[triggers.NAME]`: which events start which agent. Without `source`, the keys of a source may stand here too.
    TriggerTable {
        /// Whose events.
        source: String,
        /// Who runs.
        agent: String,
        /// Which events: CEL over `event`, `data`, `headers`, `query`. Default: all.
        filter: String,
        /// The lane: a template; runs with the same key go one at a time, in order. Default: each run by itself.
        key: String,
        /// What the agent is asked: a template. Default: a plain sentence and the event.
        prompt: String,
        /// Runs at once, over all lanes. Default: the agent's `concurrency`.
        max_concurrent: u32,
        /// What happens to an event while they are all running: `hold` or `reject`. Default `hold`.
        when_full: WhenFullWord,
        /// Runs that may wait; beyond it senders get 503. Default 100000; of a trigger that the contract `promptise` serves 1000.
        max_queued: u32,
        /// Characters of an event that stand in the prompt; the envelope has all of it. Default: all; of a trigger that the
        /// contract `promptise` serves 20000.
        max_payload_chars: u32,
        /// Runs of one lane in a time; events beyond it are ignored, with that reason. Default: no cap.
        storm_cap: Rate,
        /// The name of a lane shared with other triggers of the same agent. Default: its own.
        lane: String,
        /// Whether the next of a lane passes a run that waits to be tried again. Default `block`.
        on_retry: PassWord,
        /// Whether the next of a lane passes a run that waits for a person. Default `block`.
        on_wait: PassWord,
        /// Whether it takes events. Default true. The switch in the API wins.
        enabled: bool,
    }

    /// `[contracts.NAME]`: the wire of another system, whose clients ring here unchanged: `datalayer`, `promptise`, `almyty`,
    /// `aether`, `agentex`.
    ContractTable {
        /// Address and port of a listener of its own. Default: the server's.
        listen: String,
        /// `none`: what the contract's document shows to everybody (information, health) is shown to everybody. Default: to
        /// holders of the admin token or an API key that may read. `loopback` (agentex): keys may be made from this machine
        /// without a token.
        auth: ContractAuth,
        /// What is served, by the name its clients use: `[contracts.NAME.serve.ID]`.
        serve: BTreeMap<String, At<ServeTable>>,
        /// agentex: what `x-selected-account-id` has to be for the routes of keys. Default: anything.
        account_id: String,
        /// agentex: agents may register themselves (`POST /agents/register`); requests are passed on to where they say. `token`:
        /// with the admin token, or an API key with the scope `register`. `loopback`: also from this machine without one.
        /// Default: no agent registers itself.
        register: RegisterWord,
        /// agentex: the private networks where such agents may be. Default: they have public addresses.
        register_networks: Vec<At<Net>>,
        /// agentex: the agents, by the name in the path: `[contracts.agentex.agents.NAME]`.
        agents: BTreeMap<String, At<AcpAgentTable>>,
    }

    /// `[contracts.agentex.agents.NAME]`: an agent's own HTTP server, or a trigger in its place.
    AcpAgentTable {
        /// The base of the agent's URLs; http or https, private addresses allowed. Requests are passed on there at once.
        acp_url: String,
        /// Which trigger is rung instead: requests become durable runs, answered 202.
        trigger: String,
        /// Signs each request that is passed on (RFC 9421); a list while it is being changed. Default: not signed.
        secret: Several<SecretAt>,
        /// For the head of the agent's answer, and between two pieces of it. Default `15s`.
        timeout: Lasting,
        /// Requests at once; beyond it 429. Default 100.
        max_concurrent: u32,
        /// The longest request body. Default `25 MiB`.
        max_body: Size,
        /// The only addresses and networks that may send. Default: all.
        allowed_sources: Vec<At<Net>>,
        /// Requests in a time. Default: no limit.
        rate_limit: Rate,
        /// Requests in a time from one address. Default: no limit.
        rate_limit_per_address: Rate,
        /// Failed checks in a time from one address; beyond it 429. Default: no limit.
        failed_auth_limit: Rate,
    }

    /// `[contracts.NAME.serve.ID]`: which keys are taken depends on the contract.
    ServeTable {
        /// Which trigger is rung. Its source says how the sender is checked.
        trigger: String,
        /// A listener of its own. Default: the contract's.
        listen: String,
        /// datalayer: whether it takes events. Default true.
        enabled: bool,
        /// datalayer: the host that `X-Webhook-Source` or `Origin` has to name, exactly. Default: none.
        event_source: String,
        /// datalayer: shown to whoever asks for the endpoint. Default `External event`.
        description: String,
        /// datalayer: addresses and networks that may send, beside `event_source`. Default: none.
        allowed_ips: Vec<At<Net>>,
        /// datalayer: notes for people; nothing reads them.
        metadata: BTreeMap<String, At<String>>,
        /// promptise, aether: where the trigger listens. Default `/webhook`; with aether `/trigger` or `/github`.
        path: String,
        /// aether: what is answered, a tick (`trigger`) or words (`github`). Default `trigger`.
        pattern: PatternWord,
        /// aether: under which name the agent finds the event in its inputs. Default `webhookEvent` or `githubEvent`.
        input: String,
    }

    /// `[retention]`: how long things are kept.
    RetentionTable {
        /// Events with their finished runs and logs. Default `30d`.
        events: Lasting,
        /// Events that no trigger wanted. Default `3d`.
        ignored: Lasting,
        /// Decisions that made no event. Default `14d`.
        decisions: Lasting,
        /// Dedup keys. Default `90d`.
        dedup: Lasting,
        /// Decisions on requests that were not verified, kept for each source. Default 1000.
        unverified_decisions: u32,
    }
}

/// A table with its name and where it begins.
#[derive(Clone, Debug)]
pub struct Named<T> {
    /// Its name.
    pub name: At<String>,
    /// What it holds.
    pub table: T,
}

/// An agent: the common keys, and those of its runner.
#[derive(Clone, Debug)]
pub struct AgentWritten {
    /// What every runner has.
    pub common: AgentTable,
    /// The rest, for `doorbell_agents`.
    pub own: BTreeMap<&'static str, Json>,
}

/// A trigger: its own keys, and those of the source it may carry.
#[derive(Clone, Debug)]
pub struct TriggerWritten {
    /// Its own.
    pub trigger: TriggerTable,
    /// Its source's, in the short form.
    pub way_in: SourceTable,
    /// The first key of `way_in` that is there.
    pub first_of_way_in: Option<At<&'static str>>,
}

impl Named<TriggerWritten> {
    /// Whether it listens to the source of this name: the one it names, else its own.
    pub fn listens_to(&self, source: &str) -> bool {
        self.table.trigger.source.as_ref().map_or(&self.name.value, |at| &at.value) == source
    }
}

/// The whole file.
#[derive(Clone, Debug)]
pub struct Written {
    /// `[server]`
    pub server: ServerTable,
    /// `[store]`
    pub store: StoreTable,
    /// `[agents.*]`
    pub agents: Vec<Named<AgentWritten>>,
    /// `[sources.*]`
    pub sources: Vec<Named<SourceTable>>,
    /// `[triggers.*]`
    pub triggers: Vec<Named<TriggerWritten>>,
    /// `[contracts.*]`
    pub contracts: Vec<Named<ContractTable>>,
    /// `[retention]`
    pub retention: RetentionTable,
}
