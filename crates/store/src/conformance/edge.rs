//! What the edge keeps: how breakers stand.

use doorbell_core::Name;
use doorbell_core::breaker::Standing;

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
