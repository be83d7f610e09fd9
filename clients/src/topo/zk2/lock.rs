//! Shard locks in ZooKeeper, in one queue with Vitess's own tools.
//!
//! The holder is whoever has the first child of `locks`, by name. Names are bare sequence numbers: with any
//! prefix ours would sort after all of Vitess's, and both would think that they hold the lock.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::timeout;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};
use zookeeper_client as zk;

use super::super::local::one_line;
use super::{REQUEST_TIMEOUT, Zk2Conn, file_acl};

/// Creating the queue races with others who delete it when it is empty; tried again so often.
const CREATE_ATTEMPTS_MAX: usize = 10;
/// Looks again after this even if no watch fired.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Queues up and waits at most `patience` for those before.
pub(super) async fn take(
    conn: &Zk2Conn,
    client: zk::Client,
    path: &str,
    shard: &KeyspaceShard,
    contents: &str,
    patience: Duration,
) -> Result<Box<dyn ShardLock>, TopoError> {
    let queue = format!("{}/locks", conn.path(path));
    // With no patience, look before queueing: a place in the queue would keep others waiting.
    if patience.is_zero()
        && let Some(holder) = holder(conn, &client, &queue).await?
    {
        return Err(TopoError::Locked { shard: shard.clone(), holder });
    }
    let name = match queue_up(conn, &client, &queue, contents).await {
        Ok(name) => name,
        Err(error) => {
            let unsure = (client.clone(), queue, contents.to_owned());
            until_gone(client, move || {
                let (client, queue, contents) = unsure.clone();
                let session = client.session_id().0;
                async move { sweep(&client, &queue, session, Some(&contents)).await }
            });
            return Err(error);
        }
    };
    let place =
        Place { client: client.clone(), node: format!("{queue}/{name}"), queue: queue.clone() };
    let started = Instant::now();
    loop {
        // Not older than the creation of our own node, which this server has carried out: whoever is not there any more
        // has left. That our node is still there is made sure of by `check`.
        let mut waiting = conn.ask(&queue, client.list_children(&queue)).await?;
        waiting.sort();
        let mine = waiting.iter().position(|one| *one == name);
        let before = match mine {
            None => return Err(TopoError::LockLost("our place in the queue is gone".into())),
            Some(0) => return Ok(Box::new(place)),
            Some(at) => waiting.get(at - 1).map(|one| format!("{queue}/{one}")).unwrap_or_default(),
        };
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            let holder = holder(conn, &client, &queue).await?.unwrap_or_default();
            place.leave().await;
            return Err(TopoError::Locked { shard: shard.clone(), holder });
        }
        let watch = conn.ask(&before, client.check_and_watch_stat(&before)).await?;
        if let (Some(_), watcher) = watch {
            // Fired or not, look again.
            let _ = timeout(left.min(LOOK_AGAIN), watcher.changed()).await;
        }
    }
}

/// What the lock says about its holder; none if it is free.
async fn holder(
    conn: &Zk2Conn,
    client: &zk::Client,
    queue: &str,
) -> Result<Option<String>, TopoError> {
    let mut waiting = match conn.ask(queue, client.list_children(queue)).await {
        Ok(waiting) => waiting,
        Err(TopoError::NoNode(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    waiting.sort();
    let Some(first) = waiting.first() else { return Ok(None) };
    let node = format!("{queue}/{first}");
    match conn.ask(&node, client.get_data(&node)).await {
        Ok((data, _)) => Ok(Some(one_line(&String::from_utf8_lossy(&data)))),
        Err(TopoError::NoNode(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates our node at the end of the queue and answers its name.
async fn queue_up(
    conn: &Zk2Conn,
    client: &zk::Client,
    queue: &str,
    contents: &str,
) -> Result<String, TopoError> {
    let acl = file_acl();
    let place = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::new(&acl));
    let prefix = format!("{queue}/");
    for _ in 0..CREATE_ATTEMPTS_MAX {
        match conn.ask(&prefix, client.create(&prefix, contents.as_bytes(), &place)).await {
            Ok((_, sequence)) => return Ok(sequence.to_string()),
            Err(TopoError::NoNode(_)) => conn.make_parents(client, &prefix).await?,
            Err(error) => return Err(error),
        }
    }
    Err(TopoError::Unavailable(format!("{queue}: somebody deletes it as fast as it is created")))
}

/// Our node in the queue. It goes with the session, or when this is dropped.
struct Place {
    client: zk::Client,
    node: String,
    queue: String,
}

impl Place {
    async fn leave(&self) {
        // What cannot be deleted now is deleted later: see `Drop`.
        let _ = timeout(REQUEST_TIMEOUT, self.client.delete(&self.node, None)).await;
        // As Vitess does: the queue goes with its last member.
        let _ = timeout(REQUEST_TIMEOUT, self.client.delete(&self.queue, None)).await;
    }
}

impl Drop for Place {
    /// A place that is not wanted any more must not block the shard for as long as the session lives, and the
    /// session lives as long as the process.
    fn drop(&mut self) {
        let (client, node) = (self.client.clone(), self.node.clone());
        until_gone(self.client.clone(), move || {
            let (client, node) = (client.clone(), node.clone());
            async move { client.delete(&node, None).await }
        });
    }
}

/// Deletes again and again, until what is not wanted is gone for certain or the session is over.
fn until_gone<F>(client: zk::Client, delete: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = Result<(), zk::Error>> + Send,
{
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        while !client.state().is_terminated() {
            match timeout(REQUEST_TIMEOUT, delete()).await {
                Ok(Ok(()) | Err(zk::Error::NoNode)) => return,
                Ok(Err(_)) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    });
}

/// Gives back what a session of an earlier process holds.
pub(super) async fn give_back(
    conn: &Zk2Conn,
    client: &zk::Client,
    path: &str,
    LockToken(token): &LockToken,
) -> Result<(), TopoError> {
    let queue = format!("{}/locks", conn.path(path));
    let session = token.parse().map_err(|_| TopoError::Invalid(format!("session {token:?}")))?;
    match conn.ask(&queue, sweep(client, &queue, session, None)).await {
        Err(TopoError::NoNode(_)) => Ok(()),
        other => other,
    }
}

/// Deletes a session's places, or the one with these contents: one whose creation was not answered may be there
/// without our knowing. A later attempt's place says another time, and stays.
async fn sweep(
    client: &zk::Client,
    queue: &str,
    session: i64,
    contents: Option<&str>,
) -> Result<(), zk::Error> {
    for name in client.list_children(queue).await? {
        let node = format!("{queue}/{name}");
        let (data, stat) = match client.get_data(&node).await {
            Ok(found) => found,
            Err(zk::Error::NoNode) => continue,
            Err(error) => return Err(error),
        };
        let meant = contents.is_none_or(|contents| data == contents.as_bytes());
        if stat.ephemeral_owner == session && meant {
            match client.delete(&node, None).await {
                Ok(()) | Err(zk::Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[async_trait]
impl ShardLock for Place {
    fn token(&self) -> Option<LockToken> {
        Some(LockToken(self.client.session_id().0.to_string()))
    }

    /// The session lives and the ensemble still has our node: asked, not assumed. A follower that lags would still have
    /// a node that the leader took away when the session expired, so it catches up first.
    async fn check(&self) -> Result<(), TopoError> {
        if self.client.state().is_terminated() {
            return Err(TopoError::LockLost("the ZooKeeper session is over".into()));
        }
        let asked = async {
            self.client.sync(&self.node).await?;
            self.client.check_stat(&self.node).await
        };
        match timeout(REQUEST_TIMEOUT, asked).await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(Ok(None)) => Err(TopoError::LockLost("our node is gone".into())),
            Ok(Err(error)) => Err(TopoError::LockLost(error.to_string())),
            Err(_elapsed) => Err(TopoError::LockLost("ZooKeeper does not answer".into())),
        }
    }

    async fn release(self: Box<Self>) {
        self.leave().await;
    }
}
