//! Numbers of recoveries: from the history, and from memory while that cannot give any. A failover does not wait for a
//! number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slog::{Logger, warn};
use vtorc_core::ids::RecoveryId;
use vtorc_core::ports::HistoryPort;

use crate::patience::answer_within;

/// A history that does not answer in this time is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The last number that was given.
#[derive(Default)]
pub struct Numbers(AtomicU64);

impl Numbers {
    /// The next recovery's number. It is greater than every number that this process has given before.
    pub async fn next(&self, history: &dyn HistoryPort, log: &Logger) -> RecoveryId {
        loop {
            match answer_within(PATIENCE, history.next_recovery_id()).await {
                // One that was given from memory meanwhile is not given again.
                Ok(id) if self.0.fetch_max(id.0, Ordering::AcqRel) < id.0 => return id,
                Ok(_) => {}
                Err(error) => {
                    warn!(log, "the history gives no number; one from memory is used"; "error" => %error);
                    return RecoveryId(self.0.fetch_add(1, Ordering::AcqRel) + 1);
                }
            }
        }
    }
}
