//! Keys that a sender publishes at an address of its own and names in each request (Amazon SNS: a certificate).
//!
//! The request chooses the address, so a stranger chooses it too. Three things keep that harmless: a [`KeyUrl`] is made only
//! of a URL on the sender's own hosts; [`KeyCache`] asks for each at most once a minute, keeps few (those that have proved a
//! request before those that have not), bounds time and size, and lets nobody wait for another key than his own;
//! and while a key cannot be had the answer is [`KeyUnavailable`], which the door says as 503: neither let in nor turned away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Latch, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Mutex;

use super::by_name::NamedKey;
use crate::Timestamp;
use crate::ports::{Fetch, FetchLimits, Reach};

/// How many keys are kept. A sender uses one or two at a time; strangers can name only files on the sender's own hosts.
const KEYS_MAX: usize = 32;
/// How long a key is used before it is fetched again.
const FRESH: Duration = Duration::from_secs(3600);
/// How long a key that cannot be fetched again is still used: it was the sender's yesterday.
const STALE_MAX: Duration = Duration::from_secs(86_400);
/// How long after a try the next one may come, whatever became of it.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Senders hang up after 5 to 15 s.
const LIMITS: FetchLimits =
    FetchLimits { time_limit: Duration::from_secs(4), max_body: 64 * 1024, reach: Reach::Public };

/// An address on the sender's own hosts, and which key is wanted there if it hands them out by name. Made by a sender's module
/// alone.
#[derive(Clone, Debug)]
pub struct KeyUrl {
    url: String,
    named: Option<NamedKey>,
}

/// The key cannot be had now; the same request may be sent again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the sender's key cannot be fetched: {0}; the request may be sent again")]
pub struct KeyUnavailable(String);

impl KeyUnavailable {
    /// There is nobody to fetch it with.
    pub fn without_client() -> Self {
        Self("no HTTP client is there".to_owned())
    }
}

impl KeyUnavailable {
    /// What stands there is no key.
    pub(crate) fn unreadable() -> Self {
        Self("what stands at its address is no key".to_owned())
    }
}

/// What is known of one address.
#[derive(Default)]
struct Entry {
    key: Option<(Bytes, Timestamp)>,
    tried: Option<Timestamp>,
    fault: String,
}

/// One address, with whether a key from there has ever been right.
#[derive(Default)]
struct Slot {
    // Held over a fetch, so that a key is fetched once for all who wait for it; each fetch is bounded by `LIMITS`.
    entry: Mutex<Entry>,
    is_proved: AtomicBool,
}

/// The keys that were fetched.
pub struct KeyCache {
    fetch: Arc<dyn Fetch>,
    slots: Latch<BTreeMap<KeyUrl, Arc<Slot>>>,
}

impl std::fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCache").finish_non_exhaustive()
    }
}

impl KeyUrl {
    /// An `https` URL whose host is `fits` and whose path ends so; none for anything else, also for one with a port, a name
    /// or a password, which the sender's addresses never have.
    pub(super) fn pinned(url: &str, fits: impl FnOnce(&str) -> bool, path_end: &str) -> Option<Self> {
        let rest = url.strip_prefix("https://")?;
        let (host, path) = rest.split_once('/')?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        let is_host = host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        let is_path = path.bytes().all(is_plain) && !path.contains("..") && path.ends_with(path_end);
        (is_host && is_path && fits(host)).then(|| Self::checked(url))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// A URL whose every part its sender's module has looked at.
    pub(super) fn checked(url: &str) -> Self {
        Self { url: url.to_owned(), named: None }
    }

    /// The key of this name at this address.
    pub(super) fn naming(&self, key: NamedKey) -> Self {
        Self { url: self.url.clone(), named: Some(key) }
    }

    fn identity(&self) -> (&str, Option<&str>) {
        (&self.url, self.named.as_ref().map(NamedKey::name))
    }
}

// A key is the same whoever asks for it: a source's new credentials do not make another of it.
impl Ord for KeyUrl {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl PartialOrd for KeyUrl {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for KeyUrl {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for KeyUrl {}

impl KeyCache {
    /// An empty cache that fetches with `fetch`.
    pub fn new(fetch: Arc<dyn Fetch>) -> Self {
        Self { fetch, slots: Latch::default() }
    }

    /// What stands at `url`: kept, or fetched now.
    ///
    /// # Errors
    /// If it is not kept and cannot be fetched, or was tried less than a minute ago in vain.
    pub async fn get(&self, url: &KeyUrl, now: Timestamp) -> Result<Bytes, KeyUnavailable> {
        let slot = self.slot(url, now)?;
        if let Some(key) = slot.entry.lock().await.fresh(now) {
            return Ok(key);
        }
        let (fetch, url) = (Arc::clone(&self.fetch), url.clone());
        to_its_end(async move {
            let mut entry = slot.entry.lock().await;
            if let Some(key) = entry.fresh(now) {
                return Ok(key);
            }
            if entry.may_try(now) {
                entry.fetch(&*fetch, &url, now).await;
            }
            match &entry.key {
                Some((key, at)) if now.since(*at) < STALE_MAX => Ok(key.clone()),
                _ => Err(KeyUnavailable(entry.fault.clone())),
            }
        })
        .await
    }

    /// What stands at `url` now, where a key that [`KeyCache::get`] gave, `had`, does not fit: the sender may have changed it.
    /// Asked at most once a minute, whoever wants it; in between it is `had` again.
    ///
    /// # Errors
    /// If it cannot be fetched, or could not less than a minute ago.
    pub async fn renew(&self, url: &KeyUrl, had: &Bytes, now: Timestamp) -> Result<Bytes, KeyUnavailable> {
        let slot = self.slot(url, now)?;
        let (fetch, url, had) = (Arc::clone(&self.fetch), url.clone(), had.clone());
        to_its_end(async move {
            let mut entry = slot.entry.lock().await;
            if let Some((key, _)) = entry.key.as_ref().filter(|(key, _)| *key != had) {
                return Ok(key.clone());
            }
            if entry.may_try(now) {
                entry.fetch(&*fetch, &url, now).await;
            }
            match (&entry.key, entry.fault.is_empty()) {
                (Some((key, _)), true) => Ok(key.clone()),
                (None, true) => Ok(had),
                (_, false) => Err(KeyUnavailable(entry.fault.clone())),
            }
        })
        .await
    }

    /// Says that the key at `url` was right: it is kept before those that never were, which anybody may have named.
    pub fn prove(&self, url: &KeyUrl) {
        if let Some(slot) = self.lock().get(url) {
            slot.is_proved.store(true, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyUrl, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of one address, made where there is room.
    fn slot(&self, url: &KeyUrl, now: Timestamp) -> Result<Arc<Slot>, KeyUnavailable> {
        let mut slots = self.lock();
        if !slots.contains_key(url) && slots.len() >= KEYS_MAX {
            // A flood of names must not push out the keys that are in use, nor have us ask without end: only what has proved
            // nothing goes, and not within its minute. One that is being fetched is locked, and stays.
            let is_young = |slot: &Slot| {
                let entry = slot.entry.try_lock();
                entry.map_or(true, |e| e.tried.is_some_and(|tried| now.since(tried) < AGAIN_AFTER))
            };
            slots.retain(|_, slot| slot.is_proved.load(Ordering::Relaxed) || is_young(slot));
            if slots.len() >= KEYS_MAX {
                return Err(KeyUnavailable("too many addresses of keys were named".to_owned()));
            }
        }
        Ok(Arc::clone(slots.entry(url.clone()).or_default()))
    }

    /// Asks `url` once and keeps nothing: a confirmation that the sender wants.
    ///
    /// # Errors
    /// If it does not answer 200.
    pub async fn ask(&self, url: &KeyUrl) -> Result<(), KeyUnavailable> {
        fetched(&*self.fetch, url).await.map(|_| ()).map_err(KeyUnavailable)
    }
}

impl Entry {
    fn fresh(&self, now: Timestamp) -> Option<Bytes> {
        self.key.as_ref().filter(|(_, at)| now.since(*at) < FRESH).map(|(key, _)| key.clone())
    }

    fn may_try(&self, now: Timestamp) -> bool {
        self.tried.is_none_or(|tried| now.since(tried) >= AGAIN_AFTER)
    }

    async fn fetch(&mut self, fetch: &dyn Fetch, url: &KeyUrl, now: Timestamp) {
        self.tried = Some(now);
        match fetched(fetch, url).await {
            Ok(key) => {
                self.fault.clear();
                self.key = Some((key, now));
            }
            Err(fault) => self.fault = fault,
        }
    }
}

/// In a task of its own: a stranger who hangs up must not leave a try without what came of it, for which all others would wait
/// a minute.
async fn to_its_end(
    work: impl Future<Output = Result<Bytes, KeyUnavailable>> + Send + 'static,
) -> Result<Bytes, KeyUnavailable> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(KeyUnavailable("the fetch was broken off".to_owned())))
}

async fn fetched(fetch: &dyn Fetch, url: &KeyUrl) -> Result<Bytes, String> {
    let request = match &url.named {
        Some(named) => named.request(&url.url),
        None => http::Request::get(&url.url).body(Bytes::new()),
    };
    let answer = fetch.fetch(request.map_err(|e| e.to_string())?, LIMITS).await.map_err(|e| e.to_string())?;
    if url.named.is_some() {
        return NamedKey::answer(answer);
    }
    if answer.status() != StatusCode::OK {
        return Err(format!("its address answered {}", answer.status().as_u16()));
    }
    Ok(answer.into_body())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::FetchError;
    use async_trait::async_trait;
    use std::sync::atomic::AtomicUsize;

    /// A host that answers once it may.
    #[derive(Default)]
    struct Gated(tokio::sync::Notify);

    #[async_trait]
    impl Fetch for Gated {
        async fn fetch(&self, _: http::Request<Bytes>, _: FetchLimits) -> Result<http::Response<Bytes>, FetchError> {
            self.0.notified().await;
            Ok(http::Response::new(Bytes::from_static(b"key")))
        }
    }

    #[tokio::test]
    async fn whoever_hangs_up_does_not_keep_the_key_from_the_others() {
        let host = Arc::new(Gated::default());
        let (cache, url, now) = (KeyCache::new(host.clone()), KeyUrl::checked("https://a/k"), Timestamp::from_secs(0));
        let mut first = Box::pin(cache.get(&url, now));
        // Once to take the turn, once to wait for the host.
        for _ in 0..2 {
            assert!(futures::poll!(&mut first).is_pending());
            tokio::task::yield_now().await;
        }
        drop(first);
        host.0.notify_one();
        assert_eq!(cache.get(&url, now).await, Ok(Bytes::from_static(b"key")));
    }

    /// A host that is up or down, and how often it was asked.
    #[derive(Default)]
    struct Host {
        asked: AtomicUsize,
        down: AtomicUsize,
    }

    #[async_trait]
    impl Fetch for Host {
        async fn fetch(
            &self,
            _: http::Request<Bytes>,
            limits: FetchLimits,
        ) -> Result<http::Response<Bytes>, FetchError> {
            assert_eq!(limits.reach, Reach::Public);
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.down.load(Ordering::SeqCst) {
                0 => Ok(http::Response::new(Bytes::from_static(b"key"))),
                _ => Err(FetchError::Refused("down".to_owned())),
            }
        }
    }

    fn url(n: usize) -> KeyUrl {
        KeyUrl::pinned(&format!("https://keys.example/{n}.pem"), |host| host == "keys.example", ".pem").unwrap()
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_760_000_000 + secs)
    }

    #[tokio::test]
    async fn a_key_is_fetched_once_and_kept_while_its_host_is_away_for_a_day_at_most() {
        let host = Arc::new(Host::default());
        let cache = KeyCache::new(host.clone());
        for secs in [0, 1, 3599] {
            assert_eq!(cache.get(&url(1), at(secs)).await.unwrap(), "key");
        }
        assert_eq!(host.asked.load(Ordering::SeqCst), 1);
        host.down.store(1, Ordering::SeqCst);
        assert_eq!(cache.get(&url(1), at(3600)).await.unwrap(), "key");
        assert_eq!(cache.get(&url(1), at(86_399)).await.unwrap(), "key");
        assert!(cache.get(&url(1), at(86_400)).await.is_err());
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_had_is_unavailable_and_asked_for_once_a_minute() {
        let host = Arc::new(Host::default());
        host.down.store(1, Ordering::SeqCst);
        let cache = KeyCache::new(host.clone());
        for secs in [0, 1, 59] {
            let fault = cache.get(&url(1), at(secs)).await.unwrap_err();
            assert!(fault.to_string().contains("down"), "{fault}");
        }
        assert_eq!(host.asked.load(Ordering::SeqCst), 1);
        host.down.store(0, Ordering::SeqCst);
        assert!(cache.get(&url(1), at(60)).await.is_ok());
    }

    #[tokio::test]
    async fn a_key_that_does_not_fit_is_fetched_again_once_a_minute() {
        let host = Arc::new(Host::default());
        let cache = KeyCache::new(host.clone());
        let had = cache.get(&url(1), at(0)).await.unwrap();
        assert_eq!(cache.renew(&url(1), &had, at(59)).await.unwrap(), had, "it is not a minute old");
        assert_eq!(host.asked.load(Ordering::SeqCst), 1);
        let old = Bytes::from_static(b"an older key");
        assert_eq!(cache.renew(&url(1), &old, at(60)).await.unwrap(), had, "somebody else has fetched it since");
        assert!(cache.renew(&url(1), &had, at(60)).await.is_ok());
        assert_eq!(host.asked.load(Ordering::SeqCst), 2);
        host.down.store(1, Ordering::SeqCst);
        for secs in [120, 121] {
            assert!(cache.renew(&url(1), &had, at(secs)).await.is_err());
        }
        assert_eq!(host.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_flood_of_names_neither_grows_the_cache_nor_pushes_a_key_out() {
        let host = Arc::new(Host::default());
        let cache = KeyCache::new(host.clone());
        assert!(cache.get(&url(0), at(0)).await.is_ok());
        host.down.store(1, Ordering::SeqCst);
        for n in 1..200 {
            assert!(cache.get(&url(n), at(1)).await.is_err());
        }
        assert_eq!(host.asked.load(Ordering::SeqCst), KEYS_MAX);
        assert!(cache.get(&url(0), at(2)).await.is_ok());
    }

    #[tokio::test]
    async fn what_proved_nothing_makes_room_after_its_minute_and_what_did_stays() {
        let host = Arc::new(Host::default());
        let cache = KeyCache::new(host.clone());
        for n in 0..KEYS_MAX {
            assert!(cache.get(&url(n), at(0)).await.is_ok());
        }
        cache.prove(&url(3));
        assert!(cache.get(&url(100), at(59)).await.is_err(), "no more than so many in a minute");
        assert!(
            cache.get(&url(100), at(60)).await.is_ok(),
            "keys that were there and fitted nothing are no reason to refuse"
        );
        let asked = host.asked.load(Ordering::SeqCst);
        assert!(cache.get(&url(3), at(61)).await.is_ok());
        assert_eq!(host.asked.load(Ordering::SeqCst), asked, "it was kept");
        assert!(cache.get(&url(4), at(61)).await.is_ok());
        assert_eq!(host.asked.load(Ordering::SeqCst), asked + 1, "it was not");
    }

    /// A host that answers once it is let.
    struct Slow(tokio::sync::Semaphore);

    #[async_trait]
    impl Fetch for Slow {
        async fn fetch(
            &self,
            request: http::Request<Bytes>,
            _: FetchLimits,
        ) -> Result<http::Response<Bytes>, FetchError> {
            if request.uri().path() == "/1.pem" {
                let _ = self.0.acquire().await.map_err(|e| FetchError::Refused(e.to_string()))?;
            }
            Ok(http::Response::new(Bytes::from_static(b"key")))
        }
    }

    #[tokio::test]
    async fn who_waits_for_one_key_holds_up_nobody_who_wants_another() {
        let host = Arc::new(Slow(tokio::sync::Semaphore::new(0)));
        let cache = Arc::new(KeyCache::new(host.clone()));
        let (one, two) = (url(1), url(1));
        let (first, second) = (cache.clone(), cache.clone());
        let mut waiting = [
            tokio::spawn(async move { first.get(&one, at(0)).await }),
            tokio::spawn(async move { second.get(&two, at(0)).await }),
        ];
        tokio::task::yield_now().await;
        assert_eq!(cache.get(&url(2), at(0)).await.unwrap(), "key");
        assert!(waiting.iter().all(|w| !w.is_finished()));
        // One place for two who wait: the second gets what the first was given.
        host.0.add_permits(1);
        for w in &mut waiting {
            assert_eq!(w.await.unwrap().unwrap(), "key");
        }
    }

    #[test]
    fn an_address_is_the_sender_s_own_or_none() {
        let pinned = |url: &str| KeyUrl::pinned(url, |host| host == "keys.example", ".pem").is_some();
        assert!(pinned("https://keys.example/a/b-1.pem"));
        for url in [
            "http://keys.example/a.pem",
            "https://keys.example.evil/a.pem",
            "https://evil/keys.example/a.pem",
            "https://keys.example:444/a.pem",
            "https://user@keys.example/a.pem",
            "https://keys.example/a.pem?x",
            "https://keys.example/a.pem#x",
            "https://keys.example/../a.pem",
            "https://keys.example/%2e%2e/a.pem",
            "https://keys.example/a.txt",
            "https://KEYS.example/a.pem",
            "https://keys.example\\@evil/a.pem",
        ] {
            assert!(!pinned(url), "{url}");
        }
    }
}
