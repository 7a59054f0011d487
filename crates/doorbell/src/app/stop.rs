//! Stopping, soft then hard, and bounded either way.
//!
//! Soft: no new event and no new run; what runs may end within the grace, and until then can be looked at, cancelled and
//! called back for. Then the listeners close; requests under way have what is left of the grace. At once when the caller
//! says so, hard: attempts are ended (they are tried again after the next start) and connections are cut. The store closes
//! last, so that everything that ended is on disk.

use std::time::{Duration, Instant};

use doorbell_server::Ending;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::App;

/// How long a runner may take to end its process tree once told, on top of the grace.
const ENDING: Duration = Duration::from_secs(30);
/// How long requests under way have at the least once no run is at work, for their answers.
const ANSWERING: Duration = Duration::from_secs(1);
/// How long the store may take to write what it has taken.
const CLOSING: Duration = Duration::from_secs(30);

impl App {
    /// Stops softly within `grace`, and hard as soon as `hurry` is cancelled. Returns when everything is closed, at most
    /// a minute after the grace.
    pub async fn stop(self, grace: Duration, hurry: CancellationToken) {
        let began = Instant::now();
        tracing::info!(running = self.worker.at_work().len(), grace_ms = grace.as_millis(), "Doorbell is closing");
        self.status.set_stopping();
        self.quit.cancel();
        let Self { mut serving, worker, sweeping, house, ending, status, .. } = self;
        let soft = async {
            worker.stop(grace).await;
            status.set_closing();
            ending.soft.cancel();
            let left = grace.saturating_sub(began.elapsed()).max(ANSWERING);
            if tokio::time::timeout(left, &mut serving).await.is_err() {
                ending.hard.cancel();
                let _ = (&mut serving).await;
            }
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
                end_hard(&ending, &serving);
                if tokio::time::timeout(ENDING, worker.stop(Duration::ZERO)).await.is_err() {
                    tracing::warn!(running = worker.running(), "Some attempts did not end; the next start ends them");
                }
            }
            Ended::Late => {
                end_hard(&ending, &serving);
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

fn end_hard(ending: &Ending, serving: &JoinHandle<()>) {
    ending.soft.cancel();
    ending.hard.cancel();
    serving.abort();
}

enum Ended {
    Softly,
    Hurried,
    Late,
}
