//! What the edge keeps: how breakers stand, and API keys.

use doorbell_core::Name;
use doorbell_core::breaker::Standing;
use doorbell_core::keys::{self, Key, Kind, Right};
use doorbell_core::ports::StoreError;
use doorbell_core::registration::Registration;

use super::{Bench, MINUTE, name};

pub async fn how_breakers_stand_is_kept(bench: Bench) {
    let kept = || async {
        let mut all: Vec<(Name, Standing)> = bench.store.breakers().await.unwrap();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    assert_eq!(kept().await, []);
    let open = Standing { failures: 5, open_until: Some(bench.now() + MINUTE) };
    let counting = Standing { failures: 2, open_until: None };
    bench.store.set_breaker(name("a"), counting).await.unwrap();
    bench.store.set_breaker(name("b"), counting).await.unwrap();
    bench.store.set_breaker(name("a"), open).await.unwrap();
    assert_eq!(kept().await, [(name("a"), open), (name("b"), counting)]);
    bench.store.set_breaker(name("a"), Standing::default()).await.unwrap();
    assert_eq!(kept().await[0], (name("a"), Standing::default()));
}

fn key(bench: &Bench, agent: Option<&str>, name_: &str, kind: Kind) -> Key {
    let id = keys::new_id(&bench.clock);
    let (_, hash) = keys::new_secret(&id, &bench.clock);
    Key {
        id,
        agent: agent.map(name),
        name: name_.into(),
        kind,
        rights: vec![Right::Read, Right::Operate],
        created_at: bench.now(),
        expires_at: Some(bench.now() + MINUTE),
        last_used_at: None,
        hash,
        before: None,
    }
}

pub async fn a_key_is_kept_found_rotated_and_removed(bench: Bench) {
    let first = key(&bench, Some("a"), "ci", Kind::External);
    let second = key(&bench, None, "ci", Kind::External);
    for key in [&first, &second] {
        bench.store.add_key(key.clone()).await.unwrap();
    }
    assert_eq!(bench.store.keys().await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(bench.store.key(first.id.clone()).await.unwrap(), Some(first.clone()));
    let (_, hash) = keys::new_secret(&first.id, &bench.clock);
    let until = bench.now() + MINUTE;
    let rotated = bench.store.rotate_key(first.id.clone(), hash, until).await.unwrap();
    assert_eq!((rotated.hash, rotated.before), (hash, Some((first.hash, until))));
    bench.store.key_used(first.id.clone(), bench.now()).await.unwrap();
    let found = bench.store.key(first.id.clone()).await.unwrap().unwrap();
    assert_eq!(found, Key { last_used_at: Some(bench.now()), ..rotated });
    bench.store.remove_key(first.id.clone()).await.unwrap();
    assert_eq!(bench.store.key(first.id.clone()).await.unwrap(), None);
    assert!(matches!(bench.store.remove_key(first.id.clone()).await, Err(StoreError::NotFound(_))));
    assert!(matches!(bench.store.rotate_key(first.id.clone(), hash, until).await, Err(StoreError::NotFound(_))));
    bench.store.key_used(first.id.clone(), bench.now()).await.unwrap();
    // The name is free again.
    bench.store.add_key(key(&bench, Some("a"), "ci", Kind::External)).await.unwrap();
}

pub async fn of_keys_with_one_name_made_at_once_one_is_made(bench: Bench) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, key) = (bench.store.clone(), key(&bench, Some("a"), "ci", Kind::External));
        tasks.spawn(async move { store.add_key(key).await });
    }
    let made = tasks.join_all().await;
    assert_eq!(made.iter().filter(|m| m.is_ok()).count(), 1);
    assert!(made.iter().all(|m| matches!(m, Ok(()) | Err(StoreError::Conflict(_)))));
    for (agent, name, kind) in [
        (Some("b"), "ci", Kind::External),
        (Some("a"), "cd", Kind::External),
        (Some("a"), "ci", Kind::Internal),
        (None, "ci", Kind::External),
    ] {
        bench.store.add_key(key(&bench, agent, name, kind)).await.unwrap();
    }
    let again = bench.store.add_key(key(&bench, None, "ci", Kind::External)).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
}

pub async fn an_agent_that_registers_again_keeps_its_first_time(bench: Bench) {
    let first = Registration {
        name: name("b"),
        acp_url: "http://10.0.0.5:8000".into(),
        acp_type: "async".into(),
        description: "reviews".into(),
        input_type: None,
        metadata: Some("{\"a\":1}".into()),
        created_at: bench.now(),
        registered_at: bench.now(),
    };
    let other = Registration { name: name("a"), input_type: Some("text".into()), metadata: None, ..first.clone() };
    for agent in [&first, &other] {
        assert_eq!(bench.store.put_registration(agent.clone()).await.unwrap(), *agent);
    }
    assert_eq!(bench.store.registrations().await.unwrap(), [other.clone(), first.clone()]);
    let later = bench.now() + MINUTE;
    let again = Registration {
        acp_url: "http://10.0.0.6:8000".into(),
        created_at: later,
        registered_at: later,
        metadata: None,
        ..first.clone()
    };
    let kept = bench.store.put_registration(again.clone()).await.unwrap();
    assert_eq!(kept, Registration { created_at: first.created_at, ..again });
    assert_eq!(bench.store.registrations().await.unwrap(), [other.clone(), kept.clone()]);
    assert_eq!(bench.store.registration(name("b")).await.unwrap(), Some(kept));
    bench.store.remove_registration(name("b")).await.unwrap();
    assert_eq!(bench.store.registrations().await.unwrap(), [other]);
    assert_eq!(bench.store.registration(name("b")).await.unwrap(), None);
    assert!(matches!(bench.store.remove_registration(name("b")).await, Err(StoreError::NotFound(_))));
}
