//! What only a file can show: reopening, crashes, ownership, backups; a full disk in `full`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_core::event::{NewEvent, Receipt};
use doorbell_core::ports::{EventQuery, Flag, Retention, RunQuery, Stale, StoreError};
use doorbell_core::run::State;
use doorbell_core::{Clock, RunId};
use doorbell_store::conformance::{Bench, DAY, all, clock, event, keyed, name, run};
use doorbell_store::{SqliteOptions, SqliteStore, restore};

pub(crate) fn open(path: &Path, clock: &Clock, change: impl FnOnce(&mut SqliteOptions)) -> Bench {
    let mut options = SqliteOptions { reserve_bytes: 0, min_free_bytes: 0, ..SqliteOptions::default() };
    change(&mut options);
    let store = SqliteStore::open(path, options, clock).unwrap();
    Bench { store, clock: clock.clone(), keep: Box::new(()) }
}

/// Opens once the thread of an opening that failed has let the file go.
pub(crate) async fn once_let_go(path: &Path, clock: &Clock) -> Bench {
    let options = || SqliteOptions { reserve_bytes: 0, min_free_bytes: 0, ..SqliteOptions::default() };
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match SqliteStore::open(path, options(), clock) {
                Ok(store) => return Bench { store, clock: clock.clone(), keep: Box::new(()) },
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("it is let go")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_reopening() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    let b = open(&path, &clock, |_| {});
    let (tag, key) = (b.store.tag(), b.store.token_key());
    let running = b.queue(Some("x")).await;
    let behind = b.queue(Some("x")).await;
    let work = b.take(running).await;
    let (deferred, waiting) = (b.queue(None).await, b.queue(None).await);
    let works = b.claim(2).await.work;
    b.store.defer(works[0].lease, b.now() + DAY).await.unwrap();
    b.end(works[1].lease, b.waiting(doorbell_core::run::LaneEffect::Hold)).await;
    b.store.set_flag(Flag::AgentPaused(name("a")), true, b.now()).await.unwrap();
    let before = b.store.stats().await.unwrap();
    b.store.close().await;

    let b = open(&path, &clock, |_| {});
    assert_eq!((b.store.tag(), b.store.token_key()), (tag, key));
    assert_eq!(b.store.stats().await.unwrap(), before);
    assert_eq!(b.store.flags().await.unwrap().len(), 1);
    assert_eq!(b.show(behind).await.behind, Some(running));
    assert_eq!((b.state(deferred).await, b.state(waiting).await), (State::Running, State::Waiting));
    let stale = b.store.stale(Stale::NotHeldBy(1), 10).await.unwrap();
    assert_eq!(stale.iter().map(|s| s.lease).collect::<Vec<_>>(), [work.lease]);
    assert!(b.claim_ids(10).await.is_empty());
    b.succeed(work.lease).await;
    b.take(behind).await;
    b.store.close().await;
}

/// Not a test by itself: the process that [`every_acknowledged_event_survives_a_kill`] kills.
#[tokio::test(flavor = "multi_thread")]
async fn accept_until_killed() {
    let Some(path) = std::env::vars_os().find(|(key, _)| key == "DOORBELL_TEST_ACCEPT_INTO").map(|(_, path)| path)
    else {
        return;
    };
    let b = Arc::new(open(Path::new(&path), &Clock::system(), |_| {}));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let b = b.clone();
        tasks.spawn(async move {
            for n in 0.. {
                let new = keyed(&format!("{task} {n}"), vec![run(Some(&task.to_string()), b.now())]);
                let (event, runs) = b.stored(new).await;
                let mut out = std::io::stdout().lock();
                writeln!(out, "acked {task} {n} {event} {}", runs[0]).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_event_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let path = directory.path().join(format!("{round}.db"));
        let acked = kill_after_acks(&path, 300);
        let b = open(&path, &Clock::system(), |_| {});
        for (lane, id) in &acked {
            assert_eq!(b.show(*id).await.key.as_deref(), Some(lane.as_str()));
        }
        // Every lane gives its runs in the order of the answers.
        let mut claimed: HashMap<String, Vec<RunId>> = HashMap::new();
        loop {
            let work = b.claim(16).await.work;
            if work.is_empty() {
                break;
            }
            let ends = work.iter().map(|work| b.succeed(work.lease));
            futures_join(ends).await;
            for work in work {
                claimed.entry(work.run.key.unwrap()).or_default().push(work.run.id);
            }
        }
        for (lane, order) in &claimed {
            let answered: Vec<RunId> = acked.iter().filter(|(l, _)| l == lane).map(|(_, id)| *id).collect();
            // What was committed but not yet answered when the kill came may follow.
            assert!(order.starts_with(&answered) && order.len() <= answered.len() + 1, "{order:?} {answered:?}");
        }
        assert_eq!(claimed.len(), 16);
        b.store.close().await;
    }
}

async fn futures_join<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Runs [`accept_until_killed`] in a process of its own, kills it in the midst, and gives what it had answered for.
fn kill_after_acks(path: &Path, acks: usize) -> Vec<(String, RunId)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "file::accept_until_killed", "--nocapture"])
        .env("DOORBELL_TEST_ACCEPT_INTO", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acked = Vec::new();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(place) = line.find("acked ") else { continue };
        let words: Vec<&str> = line[place..].split(' ').collect();
        // The last line may be torn by the kill.
        let Some(Ok(id)) = words.get(4).map(|id| id.parse()) else { continue };
        acked.push((words[1].to_owned(), id));
        if acked.len() >= acks && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed);
    acked
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_whoever_asks_at_the_same_time() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    for _ in 0..30 {
        let b = Arc::new(open(&path, &clock, |_| {}));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let b = b.clone();
            asking.spawn(async move { while b.admit(vec![event(vec![])]).await.is_ok() {} });
        }
        b.stored(event(vec![])).await;
        tokio::time::timeout(Duration::from_secs(20), b.store.close()).await.expect("the store closes");
        asking.join_all().await;
    }
}

/// A power cut: of what was written without waiting for the disk nothing is left but the ack log.
#[tokio::test(flavor = "multi_thread")]
async fn the_ack_log_alone_brings_everything_back() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let (path, after) = (directory.path().join("d.db"), directory.path().join("after.db"));
    let b = open(&path, &clock, |_| {});
    b.queue(Some("x")).await;
    b.store.close().await;
    assert!(!directory.path().join("d.db-acks-a").exists(), "a clean stop leaves the database alone");

    let b = open(&path, &clock, |options| options.settle_after = DAY);
    let mut stored = Vec::new();
    for n in 0..300 {
        let batch = (0..=n % 3).map(|k| keyed(&format!("{n} {k}"), vec![run(Some("x"), b.now()), run(None, b.now())]));
        stored.extend(b.admit(batch.collect()).await.unwrap());
    }
    for suffix in ["", "-acks-a", "-acks-b"] {
        let with = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(with(&path), with(&after)).unwrap();
    }
    let events = b.store.events(EventQuery::default(), all(1000)).await.unwrap().items;
    let stats = b.store.stats().await.unwrap();
    b.store.close().await;

    // A backup of what a killed process left has it too.
    let copied = directory.path().join("copied.db");
    let (from, to) = (after.clone(), copied.clone());
    tokio::task::spawn_blocking(move || doorbell_store::backup(&from, &to)).await.unwrap().unwrap();
    for path in [&copied, &after] {
        let b = open(path, &clock, |_| {});
        let there = b.store.events(EventQuery::default(), all(1000)).await.unwrap().items;
        assert_eq!(format!("{there:#?}"), format!("{events:#?}"));
        assert_eq!(b.store.stats().await.unwrap(), stats);
        for (n, receipt) in stored.iter().enumerate() {
            let Receipt::Stored { event, runs } = receipt else { panic!("{n}: {receipt:?}") };
            for run in runs {
                assert_eq!(b.store.run(*run).await.unwrap().event, *event);
            }
        }
        let again = b.admit(vec![keyed("299 0", vec![])]).await.unwrap();
        assert!(matches!(again[0], Receipt::Duplicate { .. }), "{again:?}");
        b.store.close().await;
    }
    let left = std::fs::read_dir(directory.path()).unwrap().flatten().map(|file| file.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_disk_space_events_are_refused_and_runs_still_end() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    let b = open(&path, &clock, |_| {});
    let id = b.queue(None).await;
    b.store.close().await;
    let b = open(&path, &clock, |options| options.min_free_bytes = u64::MAX);
    assert!(matches!(b.admit(vec![event(vec![])]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(b.store.health().await, Err(StoreError::Unavailable(_))));
    let work = b.take(id).await;
    b.succeed(work.lease).await;
    clock.advance(31 * DAY);
    assert_eq!(b.store.sweep(Retention::default(), b.now()).await.unwrap().events, 1);
    b.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_made_of_real_bytes() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let b = open(&directory.path().join("d.db"), &clock, |options| options.reserve_bytes = 1 << 20);
    use std::os::unix::fs::MetadataExt;
    let reserve = std::fs::metadata(directory.path().join("d.db.reserve")).unwrap();
    assert!(reserve.len() == 1 << 20 && reserve.blocks() * 512 >= 1 << 20);
    b.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opener_is_refused_and_told_who_has_it() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    let b = open(&path, &clock, |_| {});
    let Err(error) = SqliteStore::open(&path, SqliteOptions::default(), &clock) else { panic!("opened twice") };
    assert!(error.to_string().contains(&format!("process {} since 2027-", std::process::id())), "{error}");
    assert!(restore(&path, &path, &clock).is_err());
    // Nor under another name, nor once the lock file is gone.
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    std::fs::remove_file(directory.path().join("d.db.lock")).unwrap();
    for name in [&link, &path] {
        assert!(matches!(SqliteStore::open(name, SqliteOptions::default(), &clock), Err(StoreError::Conflict(_))));
    }
    b.store.close().await;
    open(&path, &clock, |_| {}).store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_while_writing_is_whole_and_restores() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let at = |file: &str| directory.path().join(file);
    let b = Arc::new(open(&at("d.db"), &clock, |_| {}));
    for _ in 0..50 {
        b.queue(Some("x")).await;
    }
    let writing = {
        let b = b.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                b.queue(Some("x")).await;
            }
        })
    };
    b.store.backup(&at("copy")).await.unwrap();
    writing.await.unwrap();
    assert!(matches!(b.store.backup(&at("copy")).await, Err(StoreError::Conflict(_))));
    assert!(matches!(restore(&at("copy"), &at("d.db"), &clock), Err(StoreError::Conflict(_))));
    restore(&at("copy"), &at("new.db"), &clock).unwrap();
    assert!(matches!(restore(&at("copy"), &at("new.db"), &clock), Err(StoreError::Conflict(_))));
    // A log left beside the place would be played into the restored file.
    std::fs::write(at("later.db-wal"), b"left behind").unwrap();
    let error = restore(&at("copy"), &at("later.db"), &clock).unwrap_err();
    assert!(error.to_string().contains("later.db-wal"), "{error}");

    let copy = open(&at("new.db"), &clock, |_| {});
    assert_eq!(copy.store.tag(), b.store.tag());
    let runs = copy.store.runs(RunQuery::default(), all(1000)).await.unwrap().items;
    assert!((50..=250).contains(&runs.len()));
    // A moment of the original: no gap, every run with its event.
    for (place, run) in runs.iter().rev().enumerate() {
        assert_eq!(run.id.seq, place as u64 + 1);
        copy.store.event(run.event).await.unwrap();
    }
    copy.store.close().await;
    b.store.close().await;
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|file| file.to_string_lossy().contains(".part")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_not_restored() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let at = |file: &str| directory.path().join(file);
    let b = open(&at("d.db"), &clock, |_| {});
    for _ in 0..200 {
        b.queue(Some("x")).await;
    }
    b.store.backup(&at("copy")).await.unwrap();
    b.store.close().await;
    let mut bytes = std::fs::read(at("copy")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0x5a);
    std::fs::write(at("copy"), &bytes).unwrap();
    let error = restore(&at("copy"), &at("new.db"), &clock).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    std::fs::write(at("copy"), "not a database, but long enough to be looked at").unwrap();
    assert!(restore(&at("copy"), &at("new.db"), &clock).is_err());
    assert!(matches!(restore(&at("nowhere"), &at("new.db"), &clock), Err(StoreError::NotFound(_))));
    assert!(!at("new.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_newer_version_or_of_another_program_is_refused() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    open(&path, &clock, |_| {}).store.close().await;
    let change = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute(sql, []).unwrap();
    let refused = |path: &Path| SqliteStore::open(path, SqliteOptions::default(), &clock).err().unwrap().to_string();
    change("UPDATE refinery_schema_history SET version = 99");
    assert!(refused(&path).contains("newer Doorbell (schema 99"), "{}", refused(&path));
    change("UPDATE refinery_schema_history SET version = 1, checksum = '7'");
    assert!(refused(&path).contains("a build between two versions"), "{}", refused(&path));
    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute("CREATE TABLE theirs (x)", []).unwrap();
    assert!(refused(&other).contains("another program"), "{}", refused(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_readable_by_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let b = open(&directory.path().join("d.db"), &clock, |_| {});
    b.queue(None).await;
    b.store.backup(&directory.path().join("copy")).await.unwrap();
    for file in ["d.db", "d.db-wal", "copy"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    b.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_bounded_under_load() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let path = directory.path().join("d.db");
    let b = Arc::new(open(&path, &clock, |_| {}));
    let noise: Bytes = (0..200_000).map(|_| clock.random() as u8).collect::<Vec<_>>().into();
    let mut longest = 0;
    for _ in 0..400 {
        let new = || NewEvent { body: noise.clone(), ..event(vec![]) };
        let receipts = b.admit(vec![new(), new(), new(), new()]).await.unwrap();
        assert!(matches!(receipts[0], Receipt::Stored { .. }));
        longest = longest.max(std::fs::metadata(directory.path().join("d.db-wal")).unwrap().len());
    }
    // 320 MB went through it.
    assert!(longest < 250 << 20, "{longest}");
    b.store.close().await;
    let left = std::fs::metadata(directory.path().join("d.db-wal")).map_or(0, |log| log.len());
    assert_eq!(left, 0);
    tokio::time::timeout(Duration::from_secs(1), b.store.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_knows_every_name_that_it_meets() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let b = Arc::new(open(&directory.path().join("d.db"), &clock, |_| {}));
    let writing = {
        let b = b.clone();
        tokio::spawn(async move {
            for n in 0..200 {
                let new =
                    event(vec![doorbell_core::run::NewRun { trigger: name(&format!("t{n}")), ..run(None, b.now()) }]);
                b.stored(NewEvent { source: name(&format!("s{n}")), ..new }).await;
            }
        })
    };
    while !writing.is_finished() {
        b.store.runs(RunQuery::default(), all(1)).await.unwrap();
        b.store.events(EventQuery::default(), all(1)).await.unwrap();
    }
    writing.await.unwrap();
    b.store.close().await;
}
