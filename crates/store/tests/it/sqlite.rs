//! The suite on `SQLite`.

use doorbell_store::conformance::{Bench, clock};
use doorbell_store::{SqliteOptions, SqliteStore};

async fn bench() -> Bench {
    let clock = clock();
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { reserve_bytes: 4096, ..SqliteOptions::default() };
    let store = SqliteStore::open(directory.path().join("d.db"), options, &clock).unwrap();
    Bench { store, clock, keep: Box::new(directory) }
}

doorbell_store::conformance!(bench);
