//! Sealed secrets.

use std::sync::Arc;

use doorbell_core::ports::{Retention, StoreError};
use doorbell_core::seal::{Earlier, KeptSecret, MasterKey, MasterKeys, NewSecret, SecretName, VALUES_MAX};
use doorbell_core::{Secret, Timestamp};

use super::{Bench, MINUTE};

fn keys() -> Arc<MasterKeys> {
    let key = MasterKey::parse(&Secret::new("0123456789abcdef".repeat(4))).unwrap();
    Arc::new(MasterKeys::new(key, vec![]))
}

fn named(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

fn sealed(bench: &Bench, name: &str, text: &str) -> NewSecret {
    let name = named(name);
    let sealed = keys().seal(&name, &Secret::new(text)).unwrap();
    NewSecret { name, sealed, made_at: bench.now(), expires_at: None }
}

/// The values of a name, opened, with when they expire.
async fn values(bench: &Bench, name: &str) -> Vec<(String, Option<Timestamp>)> {
    let kept = bench.store.secret(named(name)).await.unwrap();
    let open = |k: KeptSecret| {
        let text = keys().open(&k.secret.name, &k.secret.sealed).unwrap();
        (text.expose().to_owned(), k.secret.expires_at)
    };
    kept.into_iter().map(open).collect()
}

pub async fn a_secret_is_kept_under_its_name_newest_first(bench: Bench) {
    assert_eq!(values(&bench, "user/a").await, []);
    let expiring = NewSecret { expires_at: Some(bench.now() + MINUTE), ..sealed(&bench, "user/a", "one") };
    bench.store.put_secret(expiring.clone(), Earlier::Removed).await.unwrap();
    bench.store.put_secret(sealed(&bench, "user/a/b", "two"), Earlier::Removed).await.unwrap();
    let kept = bench.store.secret(named("user/a")).await.unwrap();
    assert_eq!(kept.iter().map(|k| &k.secret).collect::<Vec<_>>(), [&expiring]);
    let all = bench.store.secrets().await.unwrap();
    assert_eq!(all.iter().map(|k| k.secret.name.as_str()).collect::<Vec<_>>(), ["user/a/b", "user/a"]);
    bench.store.remove_secret(named("user/a")).await.unwrap();
    assert_eq!(values(&bench, "user/a").await, []);
    assert_eq!(values(&bench, "user/a/b").await.len(), 1);
    assert!(matches!(bench.store.remove_secret(named("user/a")).await, Err(StoreError::NotFound(_))));
}

pub async fn earlier_values_go_or_stay_until_their_overlap_is_over(bench: Bench) {
    let put = async |text: &str, earlier| bench.store.put_secret(sealed(&bench, "user/a", text), earlier).await;
    let (soon, later) = (bench.now() + MINUTE, bench.now() + 10 * MINUTE);
    put("one", Earlier::Until(later)).await.unwrap();
    put("two", Earlier::Until(later)).await.unwrap();
    assert_eq!(values(&bench, "user/a").await, [("two".into(), None), ("one".into(), Some(later))]);
    // An overlap is never made longer.
    put("three", Earlier::Until(soon)).await.unwrap();
    put("four", Earlier::Until(later)).await.unwrap();
    let expected =
        [("four".into(), None), ("three".into(), Some(later)), ("two".into(), Some(soon)), ("one".into(), Some(soon))];
    assert_eq!(values(&bench, "user/a").await, expected);
    // What has expired is forgotten with the next value.
    bench.clock.advance(2 * MINUTE);
    put("five", Earlier::Until(later)).await.unwrap();
    let expected = [("five".into(), None), ("four".into(), Some(later)), ("three".into(), Some(later))];
    assert_eq!(values(&bench, "user/a").await, expected);
    for n in 3..VALUES_MAX {
        put(&n.to_string(), Earlier::Until(later)).await.unwrap();
    }
    assert!(matches!(put("more", Earlier::Until(later)).await, Err(StoreError::Conflict(_))));
    assert_eq!(values(&bench, "user/a").await.len(), VALUES_MAX);
    put("six", Earlier::Removed).await.unwrap();
    assert_eq!(values(&bench, "user/a").await, [("six".into(), None)]);
}

pub async fn of_secrets_with_one_name_made_at_once_one_is_made(bench: Bench) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (store, secret) = (bench.store.clone(), sealed(&bench, "user/a", &n.to_string()));
        tasks.spawn(async move { store.put_secret(secret, Earlier::MustNotBe).await });
    }
    let made = tasks.join_all().await;
    assert_eq!(made.iter().filter(|m| m.is_ok()).count(), 1);
    assert!(made.iter().all(|m| matches!(m, Ok(()) | Err(StoreError::Conflict(_)))));
    // A value that has expired takes no name.
    let expiring = NewSecret { expires_at: Some(bench.now() + MINUTE), ..sealed(&bench, "user/b", "old") };
    bench.store.put_secret(expiring, Earlier::MustNotBe).await.unwrap();
    bench.clock.advance(MINUTE);
    bench.store.put_secret(sealed(&bench, "user/b", "new"), Earlier::MustNotBe).await.unwrap();
    assert_eq!(values(&bench, "user/b").await, [("new".into(), None)]);
}

pub async fn a_secret_sealed_anew_stays_in_its_place(bench: Bench) {
    for text in ["one", "two"] {
        bench.store.put_secret(sealed(&bench, "user/a", text), Earlier::Until(bench.now() + MINUTE)).await.unwrap();
    }
    let before = bench.store.secret(named("user/a")).await.unwrap();
    let again = sealed(&bench, "user/a", "one").sealed;
    assert_ne!(again, before[1].secret.sealed);
    bench.store.reseal_secret(before[1].id, again.clone()).await.unwrap();
    let mut expected = before.clone();
    expected[1].secret.sealed = again.clone();
    assert_eq!(bench.store.secret(named("user/a")).await.unwrap(), expected);
    bench.store.remove_secret(named("user/a")).await.unwrap();
    bench.store.reseal_secret(before[1].id, again).await.unwrap();
    assert_eq!(bench.store.secrets().await.unwrap(), []);
}

pub async fn expired_values_are_swept(bench: Bench) {
    for text in ["one", "two"] {
        bench.store.put_secret(sealed(&bench, "user/a", text), Earlier::Until(bench.now() + MINUTE)).await.unwrap();
    }
    bench.clock.advance(MINUTE);
    bench.store.sweep(Retention::default(), bench.now()).await.unwrap();
    assert_eq!(values(&bench, "user/a").await, [("two".into(), None)]);
}
