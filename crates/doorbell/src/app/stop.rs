//! Stopping, soft then hard, and bounded either way.
//!
//! Soft: no new connection and no new run; what runs may end within the grace. Then, or at once when the caller says so,
//! hard: attempts are ended (they are tried again after the next start) and connections are cut. The store closes last,
//! so that everything that ended is on disk.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::App;

/// How long a runner may take to end its process tree once told, on top of the grace.
const ENDING: Duration = Duration::from_secs(30);
/// How long the store may take to write what it has taken.
const CLOSING: Duration = Duration::from_secs(30);

impl App {
    /// Stops softly within `grace`, and hard as soon as `hurry` is cancelled. Returns when everything is closed, at most
    /// a minute after the grace.
    pub async fn stop(self, grace: Duration, hurry: CancellationToken) {
        tracing::info!(running = self.worker.running(), grace_ms = grace.as_millis(), "Doorbell is closing");
        self.status.set_stopping();
        self.closing.cancel();
        self.quit.cancel();
        let Self { mut serving, worker, sweeping, house, .. } = self;
        let soft = async {
            // Together: a request that waits for a run's result needs the worker to go on.
            tokio::join!(worker.stop(grace), async {
                let _ = (&mut serving).await;
            });
        };
        let in_time = tokio::select! {
            () = hurry.cancelled() => Ended::Hurried,
            ended = tokio::time::timeout(grace + ENDING, soft) => match ended {
                Ok(()) => Ended::Softly,
                Err(_) => Ended::Late,
            },
        };
        match in_time {
            Ended::Softly => {}
            Ended::Hurried => {
                serving.abort();
                if tokio::time::timeout(ENDING, worker.stop(Duration::ZERO)).await.is_err() {
                    tracing::warn!(running = worker.running(), "Some attempts did not end; the next start ends them");
                }
            }
            Ended::Late => {
                serving.abort();
                tracing::warn!(running = worker.running(), "Some attempts did not end; the next start ends them");
            }
        }
        let _ = sweeping.await;
        if tokio::time::timeout(CLOSING, house.store.close()).await.is_err() {
            tracing::error!("The store did not close in time; what was accepted is on disk");
        }
        tracing::info!("Doorbell is closed");
    }

    /// How long a soft stop waits, by the configuration.
    pub fn shutdown_grace(&self) -> Duration {
        self.settings.shutdown_grace
    }

    /// Stops softly within the configured grace.
    pub async fn close(self) {
        let grace = self.settings.shutdown_grace;
        self.stop(grace, CancellationToken::new()).await;
    }
}

enum Ended {
    Softly,
    Hurried,
    Late,
}
