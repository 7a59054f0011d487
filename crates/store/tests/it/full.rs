//! A disk without room: what is refused, what waits, and that all of it is there once there is room again.

use std::collections::HashSet;

use bytes::Bytes;
use doorbell_core::decision::{Kind, NewDecision};
use doorbell_core::event::{NewEvent, Receipt};
use doorbell_core::ports::{DecisionQuery, EventQuery, Retention, StoreError};
use doorbell_store::conformance::{Bench, DAY, all, clock, event, name, run};
use doorbell_store::{SqliteOptions, SqliteStore};

use crate::file::{once_let_go, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_refuses_and_recovers_when_there_is_room() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let b = open(&directory.path().join("d.db"), &clock, |options| options.max_pages = Some(150));
    let noise = || -> Bytes { (0..20_000).map(|_| clock.random() as u8).collect::<Vec<_>>().into() };
    let big = || NewEvent { body: noise(), ..event(vec![run(None, b.now())]) };
    let mut stored = Vec::new();
    let error = loop {
        match b.admit(vec![big()]).await {
            Ok(receipts) => stored.extend(receipts),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(!stored.is_empty());
    // What was acknowledged last may be in the ack log only; reading goes on, and so does what makes room.
    let events = b.store.events(EventQuery::default(), all(100)).await.unwrap().items;
    assert!(!events.is_empty() && events.len() <= stored.len());
    let mut ended = HashSet::new();
    for work in b.claim(100).await.work {
        b.succeed(work.lease).await;
        ended.insert(work.run.event);
    }
    assert!(!ended.is_empty());
    clock.advance(31 * DAY);
    while b.store.sweep(Retention::default(), b.now()).await.unwrap().more {}
    b.stored(big()).await;
    // More may be owed than the ended ones made room for. That waits in the ack log, and `health` tells of it.
    let events = b.store.events(EventQuery::default(), all(500)).await.unwrap().items;
    let early: HashSet<_> = events.iter().map(|event| event.id).collect();
    let waits = stored.iter().map(id_of).any(|id| !early.contains(&id) && !ended.contains(&id));
    assert!(!waits || matches!(b.store.health().await, Err(StoreError::Unavailable(_))));
    b.store.close().await;
    // Nothing is lost: what still found no room is in the ack log, and comes in with the next opening.
    let b = open(&directory.path().join("d.db"), &clock, |_| {});
    let events = b.store.events(EventQuery::default(), all(500)).await.unwrap().items;
    let there: HashSet<_> = events.iter().map(|event| event.id).collect();
    for receipt in &stored {
        let id = id_of(receipt);
        assert!(there.contains(&id) || ended.contains(&id), "{id} is neither there nor was it done");
    }
    b.store.close().await;
}

fn id_of(receipt: &Receipt) -> doorbell_core::EventId {
    match receipt {
        Receipt::Stored { event, .. } | Receipt::Duplicate { event, .. } => *event,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_fit_does_not_spoil_its_batch() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let b = open(&directory.path().join("d.db"), &clock, |options| options.max_pages = Some(150));
    let noise: Bytes = (0..2_000_000).map(|_| clock.random() as u8).collect::<Vec<_>>().into();
    let large = NewEvent { body: noise, ..event(vec![]) };
    let (small, large) = tokio::join!(b.admit(vec![event(vec![])]), b.admit(vec![large]));
    assert!(small.is_ok() && matches!(large, Err(StoreError::Unavailable(_))), "{small:?} {large:?}");
    b.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_into_full_tables_is_there_after_reopening() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    let b = open(&path, &clock, |options| options.max_pages = Some(150));
    let noise = || -> Bytes { (0..20_000).map(|_| clock.random() as u8).collect::<Vec<_>>().into() };
    let mut stored = Vec::new();
    while let Ok(receipts) = b.admit(vec![NewEvent { body: noise(), ..event(vec![run(None, b.now())]) }]).await {
        stored.extend(receipts);
    }
    b.store.close().await;
    // Where there is no room for it, recovery asks for the reserve before it gives up.
    let reserve = directory.path().join("d.db.reserve");
    std::fs::write(&reserve, vec![0; 4096]).unwrap();
    // So much is never free: the reserve is not made again.
    let min_free_bytes = u64::MAX / 2;
    let full = SqliteOptions { max_pages: Some(150), reserve_bytes: 4096, min_free_bytes, ..SqliteOptions::default() };
    let said = SqliteStore::open(&path, full, &clock).map(|_| ());
    assert!(matches!(&said, Err(StoreError::Unavailable(why)) if why.contains("full")), "{said:?}");
    assert!(!reserve.exists(), "it was given up");
    let b = once_let_go(&path, &clock).await;
    for receipt in &stored {
        b.store.event(id_of(receipt)).await.unwrap();
    }
    assert_eq!(b.claim_ids(500).await.len(), stored.len());
    b.store.close().await;
}

fn refusal(b: &Bench, reason: String) -> NewDecision {
    NewDecision {
        at: b.now(),
        source: Some(name("s")),
        kind: Kind::Rejected,
        code: "signature_mismatch".into(),
        reason: reason.into(),
        checks: Vec::new(),
        event: None,
        remote: None,
    }
}

async fn refusals(b: &Bench) -> usize {
    let query = DecisionQuery { kind: Some(Kind::Rejected), ..DecisionQuery::default() };
    b.store.decisions(query, all(100)).await.unwrap().items.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_recorded_while_events_are_refused_for_want_of_room() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let stat = rustix::fs::statvfs(directory.path()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let b = open(&directory.path().join("d.db"), &clock, |options| options.min_free_bytes = free + free / 2);
    assert!(matches!(b.admit(vec![event(vec![])]).await, Err(StoreError::Unavailable(_))));
    b.store.note(refusal(&b, "too little room".into()));
    b.store.sweep(Retention::default(), b.now()).await.unwrap();
    assert_eq!(refusals(&b).await, 1);
    b.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_find_no_room_wait_for_it() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let b = open(&directory.path().join("d.db"), &clock, |options| options.max_pages = Some(150));
    let noise = || (0..20_000).map(|_| clock.random() as u8).collect::<Vec<_>>();
    while b.admit(vec![NewEvent { body: noise().into(), ..event(vec![run(None, b.now())]) }]).await.is_ok() {}
    for _ in 0..3 {
        b.store.note(refusal(&b, hex::encode(noise())));
    }
    // A commit of our own would have taken them along.
    b.store.sweep(Retention::default(), b.now()).await.unwrap();
    assert_eq!(refusals(&b).await, 0);
    for work in b.claim(100).await.work {
        b.succeed(work.lease).await;
    }
    clock.advance(31 * DAY);
    let keep = Retention { decisions: 90 * DAY, ..Retention::default() };
    while b.store.sweep(keep, b.now()).await.unwrap().more {}
    b.store.note(refusal(&b, "there is room again".into()));
    b.store.sweep(keep, b.now()).await.unwrap();
    assert_eq!(refusals(&b).await, 4);
    b.store.close().await;
}
