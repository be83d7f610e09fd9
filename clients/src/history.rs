//! The embedded history store: recoveries, blocks, switches and operators' acts, in SQLite.
//!
//! What is stored: what must survive a restart, and nothing that can be probed again. One thread owns the
//! database; a recovery is one row with its steps as JSON, so that `sqlite3` shows it whole. A file that
//! cannot be used is moved aside: losing history must not keep the daemon from its work.

mod rows;
mod schema;
mod spans;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crossbeam_channel::{Sender, bounded};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;
use vtorc_core::admission::Block;
use vtorc_core::audit::{AuditEntry, FindingSpan, RecoveryRecord};
use vtorc_core::controls::{Controls, Entry};
use vtorc_core::ids::{KeyspaceShard, RecoveryId, TabletAlias};
use vtorc_core::knowledge::memory::LastHeard;
use vtorc_core::ports::{FindingsChange, HistoryError, HistoryPort, LockToken, RecoveryFilter};
use vtorc_core::time::Timestamp;

/// Requests that wait for the store. A recovery makes about ten.
const QUEUE_MAX: usize = 8192;
/// Recoveries kept.
const RECOVERIES_MAX: u32 = 10_000;
/// A store's file that is open elsewhere is waited for so long: a process that is ending may have it still.
const IN_USE_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const IN_USE_RETRY: Duration = Duration::from_millis(50);

type Request = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store. Cloning is cheap: all clones speak to the same thread.
#[derive(Clone)]
pub struct SqliteHistory {
    requests: Sender<Request>,
}

/// Where the store is, and what had to be done to open it.
pub struct Opened {
    /// The store.
    pub history: SqliteHistory,
    /// The damaged file's new name, where one was moved aside.
    pub moved_aside: Option<PathBuf>,
}

impl SqliteHistory {
    /// Opens the file, or a store in memory where there is none. A file that another process has open is waited
    /// for, and refused in the end: what one leaves behind is cleared up by the next.
    pub fn open(file: Option<&Path>) -> Result<Opened, HistoryError> {
        let alone = file.map(keep_others_out).transpose()?;
        let mut moved_aside = None;
        let connection = match file {
            None => connect(None)?,
            Some(file) => match connect(Some(file)) {
                Ok(connection) => connection,
                Err(_) if file.exists() => {
                    let aside = file.with_extension(format!("damaged-{}", std::process::id()));
                    std::fs::rename(file, &aside).map_err(|error| {
                        HistoryError(format!(
                            "{} is damaged and cannot be moved: {error}",
                            file.display()
                        ))
                    })?;
                    moved_aside = Some(aside);
                    connect(Some(file))?
                }
                Err(error) => return Err(error),
            },
        };
        let (requests, queue) = bounded::<Request>(QUEUE_MAX);
        let body = move || {
            let mut connection = connection;
            // Given back by the operating system, however the process ends.
            let _alone = alone;
            for request in queue {
                request(&mut connection);
            }
        };
        let spawned = thread::Builder::new().name("vtorc-history".into()).spawn(body);
        spawned.map_err(|error| HistoryError(format!("start its thread: {error}")))?;
        Ok(Opened { history: Self { requests }, moved_aside })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let (reply, answer) = oneshot::channel();
        let request: Request = Box::new(move |connection| {
            // The caller may have given up meanwhile.
            let _ = reply.send(work(connection));
        });
        self.requests.try_send(request).map_err(|_| HistoryError("it is overloaded".into()))?;
        let outcome = answer.await.map_err(|_| HistoryError("its thread ended".into()))?;
        outcome.map_err(|error| HistoryError(error.to_string()))
    }
}

/// Locks the file beside the store: SQLite's own locks let several processes write in turn.
fn keep_others_out(file: &Path) -> Result<File, HistoryError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let failure = |error: std::io::Error| HistoryError(format!("{}: {error}", name.display()));
    let lock =
        File::options().create(true).write(true).truncate(false).open(&name).map_err(failure)?;
    let started = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if started.elapsed() < IN_USE_PATIENCE => {
                thread::sleep(IN_USE_RETRY);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(HistoryError(format!(
                    "{} is in use by another vtorc: each needs its own",
                    file.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failure(error)),
        }
    }
}

fn connect(file: Option<&Path>) -> Result<Connection, HistoryError> {
    let opened = match file {
        Some(file) => Connection::open(file),
        None => Connection::open_in_memory(),
    };
    let failure = |error: rusqlite::Error| {
        let name = file.map(|file| file.display().to_string()).unwrap_or_default();
        HistoryError(format!("{name}: {error}"))
    };
    let connection = opened.map_err(failure)?;
    schema::prepare(&connection).map_err(failure)?;
    Ok(connection)
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn aliases(all: &BTreeSet<TabletAlias>) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn number(id: RecoveryId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

#[async_trait]
impl HistoryPort for SqliteHistory {
    async fn next_recovery_id(&self) -> Result<RecoveryId, HistoryError> {
        let next = self.ask(|db| {
            db.query_row(
                "UPDATE counters SET value = value + 1 WHERE name = 'recovery' RETURNING value",
                [],
                |row| row.get::<_, i64>(0),
            )
        });
        Ok(RecoveryId(u64::try_from(next.await?).unwrap_or(0)))
    }

    async fn save_recovery(&self, record: RecoveryRecord) -> Result<(), HistoryError> {
        self.ask(move |db| rows::save(db, &record, RECOVERIES_MAX)).await
    }

    async fn recovery(&self, id: RecoveryId) -> Result<Option<RecoveryRecord>, HistoryError> {
        self.ask(move |db| rows::one(db, id)).await
    }

    async fn recoveries(
        &self,
        filter: RecoveryFilter,
    ) -> Result<Vec<RecoveryRecord>, HistoryError> {
        self.ask(move |db| rows::list(db, &filter)).await
    }

    async fn save_block(
        &self,
        shard: &KeyspaceShard,
        block: Option<Block>,
    ) -> Result<(), HistoryError> {
        let shard = shard.clone();
        self.ask(move |db| {
            match block {
                Some(block) => db.execute(
                    "INSERT INTO blocks (keyspace, shard, recovery, since_ms, until_ms, unfinished) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (keyspace, shard) DO UPDATE SET \
                     recovery = ?3, since_ms = ?4, until_ms = ?5, unfinished = ?6",
                    params![
                        shard.keyspace,
                        shard.shard,
                        number(block.recovery),
                        millis(block.since),
                        millis(block.until),
                        block.unfinished.as_ref().map(ToString::to_string),
                    ],
                )?,
                None => db.execute(
                    "DELETE FROM blocks WHERE keyspace = ?1 AND shard = ?2",
                    params![shard.keyspace, shard.shard],
                )?,
            };
            Ok(())
        })
        .await
    }

    async fn block(&self, shard: &KeyspaceShard) -> Result<Option<Block>, HistoryError> {
        let shard = shard.clone();
        self.ask(move |db| {
            db.query_row(
                "SELECT recovery, since_ms, until_ms, unfinished FROM blocks WHERE keyspace = ?1 AND shard = ?2",
                params![shard.keyspace, shard.shard],
                |row| {
                    Ok(Block {
                        unfinished: row
                            .get::<_, Option<String>>(3)?
                            .and_then(|alias| alias.parse().ok()),
                        recovery: RecoveryId(row.get::<_, i64>(0)?.unsigned_abs()),
                        since: timestamp(row.get(1)?),
                        until: timestamp(row.get(2)?),
                    })
                },
            )
            .optional()
        })
        .await
    }

    async fn save_lock(
        &self,
        shard: &KeyspaceShard,
        token: Option<LockToken>,
    ) -> Result<(), HistoryError> {
        let shard = shard.clone();
        self.ask(move |db| {
            match token {
                Some(LockToken(token)) => db.execute(
                    "INSERT INTO locks (keyspace, shard, token, left_behind) VALUES (?1, ?2, ?3, 0) \
                     ON CONFLICT (keyspace, shard) DO UPDATE SET token = ?3, left_behind = 0",
                    params![shard.keyspace, shard.shard, token],
                )?,
                None => db.execute(
                    "DELETE FROM locks WHERE keyspace = ?1 AND shard = ?2",
                    params![shard.keyspace, shard.shard],
                )?,
            };
            Ok(())
        })
        .await
    }

    async fn save_last_heard(
        &self,
        shard: &KeyspaceShard,
        heard: LastHeard,
    ) -> Result<(), HistoryError> {
        let shard = shard.clone();
        self.ask(move |db| {
            db.execute(
                "INSERT OR REPLACE INTO last_heard (keyspace, shard, primary_alias, at_ms, ackers) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    shard.keyspace,
                    shard.shard,
                    heard.primary.to_string(),
                    millis(heard.at),
                    aliases(&heard.ackers)
                ],
            )
            .map(|_| ())
        })
        .await
    }

    async fn last_heard(&self, shard: &KeyspaceShard) -> Result<Option<LastHeard>, HistoryError> {
        let shard = shard.clone();
        let row = self.ask(move |db| {
            db.query_row(
                "SELECT primary_alias, at_ms, ackers FROM last_heard \
                 WHERE keyspace = ?1 AND shard = ?2",
                params![shard.keyspace, shard.shard],
                |row| Ok((row.get::<_, String>(0)?, timestamp(row.get(1)?), row.get(2)?)),
            )
            .optional()
        });
        let heard = row.await?.map(|(primary, at, ackers): (String, Timestamp, String)| {
            let primary = primary.parse().map_err(|error| HistoryError(format!("{error}")))?;
            let ackers = ackers.split_whitespace().filter_map(|alias| alias.parse().ok());
            Ok(LastHeard { primary, at, ackers: ackers.collect() })
        });
        heard.transpose()
    }

    async fn lock_left_behind(
        &self,
        shard: &KeyspaceShard,
    ) -> Result<Option<LockToken>, HistoryError> {
        let shard = shard.clone();
        self.ask(move |db| {
            db.query_row(
                "SELECT token FROM locks WHERE keyspace = ?1 AND shard = ?2 AND left_behind = 1",
                params![shard.keyspace, shard.shard],
                |row| row.get(0).map(LockToken),
            )
            .optional()
        })
        .await
    }

    async fn save_recoveries_enabled(&self, enabled: bool) -> Result<(), HistoryError> {
        self.ask(move |db| {
            db.execute(
                "UPDATE counters SET value = ?1 WHERE name = 'recoveries_enabled'",
                params![i64::from(enabled)],
            )
            .map(|_| ())
        })
        .await
    }

    async fn recoveries_enabled(&self) -> Result<bool, HistoryError> {
        self.ask(|db| {
            db.query_row(
                "SELECT value FROM counters WHERE name = 'recoveries_enabled'",
                [],
                |row| row.get::<_, i64>(0).map(|value| value != 0),
            )
        })
        .await
    }

    async fn save_controls(&self, controls: Controls) -> Result<(), HistoryError> {
        self.ask(move |db| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM controls", [])?;
            for (control, entry) in controls.all() {
                transaction.execute(
                    "INSERT INTO controls (control, by, comment, since_ms, until_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        control.to_string(),
                        entry.by,
                        entry.comment,
                        millis(entry.since),
                        entry.until.map(millis)
                    ],
                )?;
            }
            transaction.commit()
        })
        .await
    }

    async fn controls(&self) -> Result<Controls, HistoryError> {
        let rows = self.ask(|db| {
            let mut statement =
                db.prepare("SELECT control, by, comment, since_ms, until_ms FROM controls")?;
            let rows = statement.query_map([], |row| {
                let entry = Entry {
                    by: row.get(1)?,
                    comment: row.get(2)?,
                    since: timestamp(row.get(3)?),
                    until: row.get::<_, Option<i64>>(4)?.map(timestamp),
                };
                Ok((row.get::<_, String>(0)?, entry))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let mut controls = Controls::default();
        for (text, entry) in rows.await? {
            let control = text.parse().map_err(|error| HistoryError(format!("{error}")))?;
            controls.set(control, entry);
        }
        Ok(controls)
    }

    async fn save_audit(&self, entry: AuditEntry) -> Result<(), HistoryError> {
        self.ask(move |db| {
            db.execute(
                "INSERT INTO audit (at_ms, shard, action, by, comment) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    millis(entry.at),
                    entry.shard.map(|shard| shard.to_string()),
                    entry.action,
                    entry.by,
                    entry.comment
                ],
            )
            .map(|_| ())
        })
        .await
    }

    async fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>, HistoryError> {
        self.ask(move |db| spans::audit(db, limit)).await
    }

    async fn save_findings(&self, change: FindingsChange) -> Result<(), HistoryError> {
        self.ask(move |db| spans::save(db, &change)).await
    }

    async fn findings(&self, filter: RecoveryFilter) -> Result<Vec<FindingSpan>, HistoryError> {
        self.ask(move |db| spans::list(db, &filter)).await
    }

    async fn purge(&self, before: Timestamp) -> Result<(), HistoryError> {
        self.ask(move |db| spans::purge(db, before)).await
    }
}
