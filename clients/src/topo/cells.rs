//! The cells: where each has its records, and which tablets it has, read side by side.
//!
//! One cell's server must not hold the others up. A cell that stays silent when all others have answered is unread; its
//! reading goes on by itself, so that a server that is slow to connect is connected in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::ports::TopoError;
use vtorc_core::tablet::Tablet;
use vtorc_core::topology::{Trouble, UnreadCell, UnreadTablet};

use super::conn::TopoConn;
use super::paths;
use super::records::{self, CellInfo};
use super::tablets::{self, Misread};

/// When nobody was heard for so long, those who are still silent are not waited for any more.
const STRAGGLE: Duration = Duration::from_secs(1);
/// Reading everything ends after this, whoever still answers.
const ALL_MAX: Duration = Duration::from_secs(30);
/// Reading one shard does: a recovery waits for it.
const SHARD_MAX: Duration = Duration::from_secs(5);
/// Reads under way at once for one cell, where nobody said otherwise.
pub(super) const READS_MAX: usize = 32;

/// Opens the connection to a cell, given its name and where its records are.
pub type Dialer = Arc<dyn Fn(&str, &CellInfo) -> Arc<dyn TopoConn> + Send + Sync>;

/// A cell's tablets. A record that cannot be understood is told with what is known of whose it is.
pub(super) type CellRead = Vec<(TabletAlias, Result<Tablet, UnreadTablet>)>;

/// Which tablets are wanted.
#[derive(Clone)]
pub(super) enum Which {
    /// All of them, and changes from now on are to be noticed.
    All,
    /// Those of one shard, as they are now: a recovery acts on what is read.
    Of(KeyspaceShard),
}

impl Which {
    fn takes_at_most(&self) -> Duration {
        match self {
            Self::All => ALL_MAX,
            Self::Of(_) => SHARD_MAX,
        }
    }
}

/// Where a cell is, and the connection to it.
struct Opened {
    info: CellInfo,
    conn: Arc<dyn TopoConn>,
}

/// The cells of one installation.
pub(super) struct Cells {
    global: Arc<dyn TopoConn>,
    pub(super) dial: Dialer,
    opened: Mutex<BTreeMap<String, Opened>>,
    /// Readings of cells that were not waited for and go on.
    late: Mutex<BTreeMap<String, AbortHandle>>,
    /// Which shard each tablet belonged to when it was last read: a shard is read without all the others.
    belongs: Mutex<BTreeMap<TabletAlias, KeyspaceShard>>,
    /// The same of tablets that could never be read, by their shards' lists, cell by cell.
    listed: Mutex<BTreeMap<String, BTreeMap<TabletAlias, KeyspaceShard>>>,
    reads_max: usize,
}

/// What is held is never held over a wait, and is whole whoever panicked.
fn held<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cells {
    pub(super) fn new(global: Arc<dyn TopoConn>, dial: Dialer, reads_max: usize) -> Self {
        Self {
            global,
            dial,
            opened: Mutex::default(),
            late: Mutex::default(),
            belongs: Mutex::default(),
            listed: Mutex::default(),
            reads_max,
        }
    }

    /// Which shard a tablet belongs to, as far as that was ever told.
    fn belongs(&self, alias: &TabletAlias) -> Option<KeyspaceShard> {
        let known = held(&self.belongs).get(alias).cloned();
        known.or_else(|| held(&self.listed).get(&alias.cell)?.get(alias).cloned())
    }

    /// The connection to a cell. Its record is read anew each time: cells move.
    pub(super) async fn conn(&self, cell: &str) -> Result<Arc<dyn TopoConn>, TopoError> {
        let path = paths::cell_info(cell);
        let read = self.global.get(&path).await;
        let mut opened = held(&self.opened);
        let info = match read {
            Ok((bytes, _)) => records::decode::<CellInfo>(&path, &bytes)?.message,
            // While the global cell is away, a cell is where it was.
            Err(TopoError::Unavailable(why)) => {
                let known = opened.get(cell).map(|opened| opened.conn.clone());
                return known.ok_or(TopoError::Unavailable(why));
            }
            Err(error) => return Err(error),
        };
        match opened.get(cell) {
            Some(known) if known.info == info => Ok(known.conn.clone()),
            Some(_) | None => {
                let conn = (self.dial)(cell, &info);
                opened.insert(cell.to_owned(), Opened { info, conn: conn.clone() });
                // What was asked of the old place is of no use any more.
                if let Some(late) = held(&self.late).remove(cell) {
                    late.abort();
                }
                Ok(conn)
            }
        }
    }

    /// The connections that there are.
    pub(super) fn conns(&self) -> Vec<Arc<dyn TopoConn>> {
        held(&self.opened).values().map(|opened| opened.conn.clone()).collect()
    }

    /// Lets go of the cells that are not among these.
    pub(super) fn keep(&self, names: &[String]) {
        held(&self.opened).retain(|cell, _| names.contains(cell));
    }

    /// Reads cells side by side, and answers what each said or why it is unread.
    pub(super) async fn read(
        self: &Arc<Self>,
        names: Vec<String>,
        which: &Which,
    ) -> BTreeMap<String, Result<CellRead, UnreadCell>> {
        let heard = Arc::new(Notify::new());
        let mut reads = JoinSet::new();
        let mut waiting = BTreeMap::new();
        let mut answers = BTreeMap::new();
        for cell in names {
            if self.is_late(&cell).await {
                answers.insert(cell.clone(), Err(self.silent(&cell)));
                continue;
            }
            let (cells, name, which) = (self.clone(), cell.clone(), which.clone());
            let ear = heard.clone();
            let read = async move {
                let read = cells.read_one(&name, &which, &ear).await;
                (name, read)
            };
            waiting.insert(cell, reads.spawn(read));
        }
        let end = Instant::now() + which.takes_at_most();
        loop {
            let patience = end.min(Instant::now() + STRAGGLE);
            tokio::select! {
                read = reads.join_next() => match read {
                    Some(Ok((cell, read))) => {
                        waiting.remove(&cell);
                        answers.insert(cell, read);
                    }
                    Some(Err(_)) => {}
                    None => break,
                },
                () = heard.notified() => {}
                () = sleep_until(patience) => break,
            }
        }
        for (cell, reading) in waiting {
            answers.insert(cell.clone(), Err(self.silent(&cell)));
            self.leave_behind(cell, reading);
        }
        reads.detach_all();
        answers
    }

    /// Lets a reading go on that is not waited for. One a cell is enough.
    fn leave_behind(&self, cell: String, reading: AbortHandle) {
        let mut late = held(&self.late);
        match late.get(&cell) {
            Some(other) if !other.is_finished() => reading.abort(),
            Some(_) | None => {
                late.insert(cell, reading);
            }
        }
    }

    /// Whether an earlier reading of a cell still waits for its server. Where the cell moved meanwhile, it is given up.
    async fn is_late(&self, cell: &str) -> bool {
        let is_late = || held(&self.late).get(cell).is_some_and(|late| !late.is_finished());
        if !is_late() {
            return false;
        }
        // Gives the late reading up if the cell is elsewhere now.
        let _ = self.conn(cell).await;
        is_late()
    }

    async fn read_one(
        &self,
        cell: &str,
        which: &Which,
        heard: &Notify,
    ) -> Result<CellRead, UnreadCell> {
        let read = async {
            let conn = self.conn(cell).await?;
            match which {
                Which::All => conn.arm().await,
                Which::Of(_) => conn.catch_up().await?,
            }
            let read = self.records(conn.as_ref(), which, heard).await?;
            Ok(self.whose((cell, conn.as_ref()), which, read).await)
        };
        read.await.map_err(|error| self.unread(cell, &error))
    }

    /// The records of a cell's tablets; of one shard, those that are not known to belong to another.
    pub(super) async fn records(
        &self,
        conn: &dyn TopoConn,
        which: &Which,
        heard: &Notify,
    ) -> Result<Vec<(TabletAlias, Result<Tablet, Misread>)>, TopoError> {
        let names = conn.list(paths::TABLETS).await?;
        heard.notify_one();
        let mut aliases: Vec<TabletAlias> =
            names.into_iter().filter_map(|name| name.parse().ok()).collect();
        if let Which::Of(shard) = which {
            aliases.retain(|alias| self.belongs(alias).is_none_or(|known| known == *shard));
        }
        let mut aliases = aliases.into_iter();
        let mut reads = FuturesUnordered::new();
        let mut read = Vec::new();
        loop {
            while reads.len() < self.reads_max {
                let Some(alias) = aliases.next() else { break };
                reads.push(tablets::read(conn, alias));
            }
            match reads.next().await {
                Some((_, Err(Misread { error: error @ TopoError::Unavailable(_), .. }))) => {
                    return Err(error);
                }
                // It was deleted a moment ago.
                Some((_, Err(Misread { error: TopoError::NoNode(_), .. }))) => {}
                Some(one) => read.push(one),
                None => break,
            }
            heard.notify_one();
        }
        let mut belongs = held(&self.belongs);
        for (alias, one) in &read {
            if let Ok(tablet) = one {
                belongs.insert(alias.clone(), tablet.shard.clone());
            }
        }
        Ok(read)
    }

    /// Finds out which shards the records belong to that cannot be understood: by what they said before, by what can
    /// be made out of them, and by the shards' lists of their tablets.
    async fn whose(
        &self,
        (cell, conn): (&str, &dyn TopoConn),
        which: &Which,
        read: Vec<(TabletAlias, Result<Tablet, Misread>)>,
    ) -> CellRead {
        let known = |alias: &TabletAlias| held(&self.belongs).get(alias).cloned();
        let is_lost = |alias: &TabletAlias, one: &Result<Tablet, Misread>| {
            one.as_ref().is_err_and(|misread| misread.hint.is_none()) && known(alias).is_none()
        };
        let lost = read.iter().filter(|(alias, one)| is_lost(alias, one));
        let lost: BTreeSet<TabletAlias> = lost.map(|(alias, _)| alias.clone()).collect();
        let listed = match which {
            _ if lost.is_empty() => BTreeMap::new(),
            Which::All => tablets::listed(conn, &lost, self.reads_max).await,
            Which::Of(shard) => tablets::listed_for(conn, &lost, shard).await,
        };
        let entry = |(alias, one): (TabletAlias, Result<Tablet, Misread>)| {
            let one = one.map_err(|misread| UnreadTablet {
                path: paths::tablet(&alias),
                shard: known(&alias).or(misread.hint).or(listed.get(&alias).cloned()),
                why: misread.error.to_string(),
            });
            (alias, one)
        };
        let entries = read.into_iter().map(entry).collect();
        match which {
            Which::All => held(&self.listed).insert(cell.to_owned(), listed),
            Which::Of(_) => None,
        };
        entries
    }

    /// A cell that has not answered yet.
    fn silent(&self, cell: &str) -> UnreadCell {
        self.unread(cell, &TopoError::Unavailable("no answer yet".into()))
    }

    /// A cell that cannot be read, and what to do about it.
    fn unread(&self, cell: &str, error: &TopoError) -> UnreadCell {
        let opened = held(&self.opened);
        let info = opened.get(cell).map(|opened| &opened.info);
        let address = info.map(|info| info.server_address.clone()).unwrap_or_default();
        let root = info.map(|info| info.root.clone()).unwrap_or_default();
        let (silent, cure) = match error {
            TopoError::Unavailable(_) if address.is_empty() => {
                (true, "it is tried again by itself".to_owned())
            }
            TopoError::Unavailable(_) => (
                true,
                format!(
                    "bring its server back, or correct its address ({address}): \
                     vtorc topo update-cell {cell} --server-address HOST:PORT"
                ),
            ),
            TopoError::NoRoot(_) => (
                false,
                format!(
                    "correct its root ({root}): vtorc topo update-cell {cell} --root ROOT; where no tablet was ever \
                     started, start one, or delete the cell: vtorc topo delete {cell}"
                ),
            ),
            TopoError::Invalid(_)
            | TopoError::Damaged { .. }
            | TopoError::NoNode(_)
            | TopoError::NodeExists(_)
            | TopoError::BadVersion(_)
            | TopoError::Locked { .. }
            | TopoError::LockLost(_) => (
                false,
                format!(
                    "write its record anew: \
                     vtorc topo update-cell {cell} --server-address HOST:PORT --root ROOT"
                ),
            ),
        };
        let mut why = error.to_string();
        if !why.contains(&address) {
            why = format!("{address} {root}: {why}");
        }
        UnreadCell { trouble: Trouble { why, cure }, silent }
    }
}
