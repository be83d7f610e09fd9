//! A watch over everything below a root.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use vtorc_core::ports::TopoError;

use super::super::watch::Watch;
use super::connection::Connection;
use super::{after, below};
use crate::interface::etcdserverpb as etcd;

/// A full reading now and then, whatever the watch says.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// An open watch.
pub(super) struct Watcher {
    answers: tonic::Streaming<etcd::WatchResponse>,
}

impl Watcher {
    /// Tells of changes below `root` from now on.
    pub(super) async fn below(connection: &Connection, root: &str) -> Result<Self, TopoError> {
        let etcd::RangeRequest { key, .. } = below(root);
        let range_end = after(&key);
        let request = etcd::WatchCreateRequest { key, range_end, ..Default::default() };
        Ok(Self { answers: connection.watch(request).await? })
    }
}

#[async_trait]
impl Watch for Watcher {
    async fn changed(&mut self) -> bool {
        loop {
            let answer = match timeout(LOOK_AGAIN, self.answers.message()).await {
                Err(_elapsed) => return true,
                Ok(Ok(Some(answer))) if !answer.canceled => answer,
                Ok(Ok(_) | Err(_)) => return false,
            };
            // A lock that comes and goes changes no record.
            if answer.events.iter().any(|event| !is_lock(event)) {
                return true;
            }
        }
    }
}

fn is_lock(event: &etcd::Event) -> bool {
    let key = event.kv.as_ref().map(|kv| kv.key.as_slice()).unwrap_or_default();
    key.windows(7).any(|part| part == b"/locks/")
}
