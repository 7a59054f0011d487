//! The suite on the reference.

use doorbell_store::MemoryStore;
use doorbell_store::conformance::{Bench, clock};

async fn bench() -> Bench {
    let clock = clock();
    Bench { store: MemoryStore::new(&clock), clock, keep: Box::new(()) }
}

doorbell_store::conformance!(bench);
