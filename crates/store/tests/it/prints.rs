//! Prints of deliveries where only a file can show them: in the table and in the filter over it.

use std::path::Path;

use doorbell_core::Clock;
use doorbell_core::event::Receipt;
use doorbell_core::ports::{EventQuery, Retention};
use doorbell_store::conformance::{Bench, all as all_of, clock, keyed, run};
use doorbell_store::{SqliteOptions, SqliteStore};

fn open(path: &Path, clock: &Clock) -> Bench {
    let options = SqliteOptions { reserve_bytes: 0, min_free_bytes: 0, ..SqliteOptions::default() };
    let store = SqliteStore::open(path, options, clock).unwrap();
    Bench { store, clock: clock.clone(), keep: Box::new(()) }
}

/// Prints that moved into the table are known before the filter over it is made, while it is made, and after.
#[tokio::test(flavor = "multi_thread")]
async fn what_moved_into_the_table_is_known_after_reopening() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    let b = open(&path, &clock);
    let now = b.now();
    let all = || (0..300).map(|n| keyed(&format!("{n}"), vec![run(None, now)])).collect::<Vec<_>>();
    b.admit(all()).await.unwrap();
    // A sweep moves them.
    while b.store.sweep(Retention::default(), b.now()).await.unwrap().more {}
    let are_known = async |b: &Bench| {
        for _ in 0..20 {
            let again = b.admit(all()).await.unwrap();
            assert!(again.iter().all(|receipt| matches!(receipt, Receipt::Duplicate { .. })));
        }
    };
    are_known(&b).await;
    let fresh = b.admit(vec![keyed("fresh", vec![run(None, now)])]).await.unwrap();
    assert!(matches!(fresh[0], Receipt::Stored { .. }));
    b.store.close().await;

    let b = open(&path, &clock);
    are_known(&b).await;
    // Rows that are written make the filter be made.
    b.admit(vec![keyed("another", vec![run(None, now)])]).await.unwrap();
    b.store.stats().await.unwrap();
    b.admit(vec![keyed("a third", vec![run(None, now)])]).await.unwrap();
    assert!(b.store.events(EventQuery::default(), all_of(1)).await.is_ok());
    are_known(&b).await;
    b.store.close().await;
}
