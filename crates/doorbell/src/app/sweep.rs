//! Retention by the clock: every minute the store deletes what has outlived its time, in bounded shares, so that
//! accepting never waits long behind it.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::house::House;
use doorbell_core::ports::StoreError;
use tokio_util::sync::CancellationToken;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(60);
/// Between two looks for sealed secrets whose key is gone.
const ORPHANS_EVERY: Duration = Duration::from_secs(3600);
/// Between two shares of one round.
const BREATH: Duration = Duration::from_millis(50);

/// Sweeps until told to stop. The first round comes at once: it also tells the store what the retention is.
pub(super) async fn run(house: Arc<House>, quit: CancellationToken) {
    let mut orphans_at = Duration::ZERO;
    loop {
        if house.clock.uptime() >= orphans_at {
            orphans_at = house.clock.uptime() + ORPHANS_EVERY;
            match doorbell_server::contracts::agentex::sweep(&house).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "Sealed secrets whose key is gone were removed"),
                Err(error) => tracing::warn!(%error, "Sealed secrets whose key is gone could not be looked for"),
            }
        }
        let pause = match house.store.sweep(house.catalog().retention, house.clock.now()).await {
            Ok(swept) => {
                let deleted = [
                    ("events", swept.events),
                    ("runs", swept.runs),
                    ("decisions", swept.decisions),
                    ("dedup", swept.dedup),
                ];
                for (what, count) in deleted {
                    metrics::counter!("doorbell_swept_total", "what" => what).increment(count);
                }
                if swept.more { BREATH } else { EVERY }
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "Retention could not be kept; trying again in a minute");
                EVERY
            }
        };
        tokio::select! {
            () = quit.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
