//! What is left after a power cut at the worst moment: of the rows that follow the ack log, only what was synced.

use std::path::{Path, PathBuf};

use doorbell_core::decision::Kind;
use doorbell_core::event::{NewEvent, Receipt};
use doorbell_core::ports::{PageFrom, PageRequest, Retention, RunQuery};
use doorbell_core::{Clock, Timestamp};
use doorbell_store::conformance::{Bench, DAY, clock, event, keyed, run};
use doorbell_store::{SqliteOptions, SqliteStore, backup};

fn open(path: &Path, clock: &Clock) -> Bench {
    let options = SqliteOptions { reserve_bytes: 0, min_free_bytes: 0, settle_after: DAY, ..SqliteOptions::default() };
    let store = SqliteStore::open(path, options, clock).unwrap();
    Bench { store, clock: clock.clone(), keep: Box::new(()) }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

fn copy(from: &Path, to: &Path, suffixes: &[&str]) {
    for suffix in suffixes {
        if with(from, suffix).exists() {
            std::fs::copy(with(from, suffix), with(to, suffix)).unwrap();
        }
    }
}

/// SQLite does not sync for a commit that dirtied no page, though it counts the row that such an update matched.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_changes_nothing_does_not_end_a_lap() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (path, after) = (directory.path().join("d.db"), directory.path().join("after.db"));
    let b = open(&path, &clock);
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.store.health().await.unwrap();
    copy(&path, &after, &["", "-wal"]);
    // So many that their rows are written without waiting for the disk.
    let mut stored = Vec::new();
    for n in 0..64 {
        stored.extend(b.admit(vec![keyed(&format!("{n}"), vec![run(None, b.now())])]).await.unwrap());
    }
    b.store.runs(RunQuery::default(), PageRequest { limit: 1, from: PageFrom::Start }).await.unwrap();
    // The lease holds longer already.
    b.store.renew(vec![work.lease], Timestamp::from_millis(1)).await.unwrap();
    stored.extend(b.admit(vec![keyed("last", vec![])]).await.unwrap());
    copy(&path, &after, &["-acks-a", "-acks-b"]);
    b.store.close().await;

    let b = open(&after, &clock);
    for receipt in &stored {
        let Receipt::Stored { event, .. } = receipt else { panic!("{receipt:?}") };
        b.store.event(*event).await.unwrap();
    }
    b.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_store_that_was_cut_off_holds_what_was_acknowledged_last() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let at = |file: &str| directory.path().join(file);
    let b = open(&at("d.db"), &clock);
    b.queue(None).await;
    b.admit(vec![keyed("1", vec![run(None, b.now())])]).await.unwrap();
    copy(&at("d.db"), &at("dead.db"), &["", "-wal", "-acks-a", "-acks-b"]);
    backup(&at("d.db"), &at("live")).unwrap();
    b.store.close().await;
    backup(&at("dead.db"), &at("copy")).unwrap();
    let b = open(&at("copy"), &clock);
    let again = b.admit(vec![keyed("1", vec![])]).await.unwrap();
    assert!(matches!(again[0], Receipt::Duplicate { .. }), "{again:?}");
    b.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_does_not_come_back_and_its_number_is_not_given_again() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (path, after) = (directory.path().join("d.db"), directory.path().join("after.db"));
    let b = open(&path, &clock);
    b.queue(None).await;
    b.store.health().await.unwrap();
    let ignored = NewEvent { verdict: Kind::Ignored, ..event(vec![]) };
    let stored = b.admit(vec![ignored]).await.unwrap();
    let Receipt::Stored { event: id, .. } = &stored[0] else { panic!("{stored:?}") };
    // Its row is owed still: it is written and deleted in one transaction.
    clock.advance(400 * DAY);
    assert_eq!(b.store.sweep(Retention::default(), b.now()).await.unwrap().events, 1);
    copy(&path, &after, &["", "-wal", "-acks-a", "-acks-b"]);
    b.store.close().await;

    let b = open(&after, &clock);
    assert!(b.store.event(*id).await.is_err(), "it came back");
    let (next, _) = b.stored(event(vec![])).await;
    assert!(next.seq > id.seq, "{next} {id}");
    b.store.close().await;
}
