//! A watch that stands for as long as its server can be heard, and is set anew when it was lost.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use vtorc_core::ports::TopoError;

/// Pause before a lost watch is set again.
const RETRY: Duration = Duration::from_millis(500);

/// What a server's watch must be able to do.
#[async_trait]
pub(super) trait Watch: Send {
    /// Waits until a record may have changed; false if the watch is over.
    async fn changed(&mut self) -> bool;
}

/// The watch of a connection, while there is one.
pub(super) struct KeptWatch<W>(Mutex<Option<W>>);

impl<W> Default for KeptWatch<W> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<W: Watch> KeptWatch<W> {
    /// Sets it if it does not stand. Where it cannot be set, the reading that follows fails as well and is tried
    /// again.
    pub(super) async fn arm(&self, set: impl Future<Output = Result<W, TopoError>>) {
        let mut watch = self.0.lock().await;
        if watch.is_none() {
            *watch = set.await.ok();
        }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&self) {
        let mut watch = self.0.lock().await;
        let Some(live) = watch.as_mut() else {
            tokio::time::sleep(RETRY).await;
            return;
        };
        if !live.changed().await {
            // Whatever happened while it was away was not told: it is set anew before the next reading.
            *watch = None;
        }
    }
}
