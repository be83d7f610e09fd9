//! A watch over everything below a root: one request that is answered when something changed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use vtorc_core::ports::TopoError;

use super::super::watch::Watch;
use super::agent::{Agent, Pair};
use super::is_lock;

/// A full reading now and then, whatever the watch says.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What was there when it was asked last.
pub(super) struct Watcher {
    agent: Arc<Agent>,
    directory: String,
    /// How long one request waits.
    poll: Duration,
    index: u64,
    seen: Vec<(String, u64)>,
}

impl Watcher {
    /// Tells of changes below a directory that ends in a slash, from now on.
    pub(super) async fn below(
        agent: Arc<Agent>,
        directory: String,
        poll: Duration,
    ) -> Result<Self, TopoError> {
        let first = agent.below(&directory, 0, poll).await?;
        let (index, seen) = (first.index, versions(&first.found));
        Ok(Self { agent, directory, poll, index, seen })
    }
}

#[async_trait]
impl Watch for Watcher {
    async fn changed(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < LOOK_AGAIN {
            let Ok(read) = self.agent.below(&self.directory, self.index, self.poll).await else {
                return false;
            };
            // An index that goes back is that of another state: consul's documentation wants a new beginning.
            self.index = if read.index < self.index { 0 } else { read.index.max(1) };
            let now = versions(&read.found);
            if now != self.seen {
                self.seen = now;
                return true;
            }
        }
        true
    }
}

/// The records and their versions. A lock that comes and goes changes no record.
fn versions(found: &[Pair]) -> Vec<(String, u64)> {
    let records = found.iter().filter(|pair| !is_lock(&pair.key));
    records.map(|pair| (pair.key.clone(), pair.modify_index)).collect()
}
