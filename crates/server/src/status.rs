//! How the program stands, told by the app and asked by `/ready`, by the ingress and by streams that must end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

/// Where the program is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not everything runs yet.
    Starting,
    /// As it should be.
    Running,
    /// No new work is taken.
    Stopping,
}

/// Shared by the app and the server.
#[derive(Debug, Default)]
pub struct Status {
    phase: AtomicU8,
    closing: CancellationToken,
    reload_fault: ArcSwapOption<String>,
}

impl Status {
    /// `Starting`.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Everything runs. Does nothing once it is stopping.
    pub fn set_running(&self) {
        let _ = self.phase.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From now on new work is refused with 503. There is no way back. Everything else goes on: who waits for a run's end may
    /// still hear of it.
    pub fn set_stopping(&self) {
        self.phase.store(2, Ordering::Release);
    }

    /// Nothing more happens to runs: who still waits for one or follows it is sent away.
    pub fn set_closing(&self) {
        self.set_stopping();
        self.closing.cancel();
    }

    /// The new configuration is wrong and the old one stays (`why`), or none: the last reload worked.
    pub fn set_reload_fault(&self, why: Option<String>) {
        self.reload_fault.store(why.map(Arc::new));
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Running,
            _ => Phase::Stopping,
        }
    }

    /// Why the last reload did not take effect.
    pub fn reload_fault(&self) -> Option<Arc<String>> {
        self.reload_fault.load_full()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.phase() == Phase::Stopping
    }

    /// Cancelled once it closes.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_way_back_from_stopping() {
        let status = Status::new();
        assert_eq!(status.phase(), Phase::Starting);
        status.set_running();
        assert_eq!(status.phase(), Phase::Running);
        status.set_stopping();
        status.set_running();
        assert_eq!(status.phase(), Phase::Stopping);
        assert!(!status.closing().is_cancelled());
        status.set_closing();
        assert!(status.closing().is_cancelled());
    }
}
