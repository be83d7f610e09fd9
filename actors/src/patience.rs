//! The history is asked, and not waited for without end: a disk that hangs must not hold a failover up.

use std::time::Duration;

use tokio::time::timeout;
use vtorc_core::ports::HistoryError;

/// What the history answers; an error if it does not answer in this time.
pub(crate) async fn answer_within<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, HistoryError>>,
) -> Result<T, HistoryError> {
    let answer = timeout(patience, asked).await;
    answer.unwrap_or_else(|_| Err(HistoryError("no answer in time".into())))
}
