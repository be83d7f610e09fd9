//! What is: one MySQL server's answer to one probe, in the same terms for every version and flavour.

mod receiver;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::gtid::{GtidSet, MariaDbBinlogState};
use crate::ids::ServerIdentity;
use crate::sabotage::{self, Bug};
use crate::source_access::ChannelTls;
use crate::tablet::{MysqlAddress, TabletType};

pub use receiver::{ReceiverError, ReceiverErrorKind, ReceiverState};

/// Which family a server belongs to; it decides statements and the form of GTIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// MySQL and Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavor {
    /// The name in answers and snapshots.
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
}

/// `binlog_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BinlogFormat {
    /// What rows became.
    Row,
    /// Rows where statements would not be safe.
    Mixed,
    /// What was said.
    Statement,
}

impl BinlogFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Row, Self::Mixed, Self::Statement];

    /// As the server writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Row => "ROW",
            Self::Mixed => "MIXED",
            Self::Statement => "STATEMENT",
        }
    }

    /// Reads what a server writes.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }
}

/// Where a server's process runs, by its own word. Of two MariaDBs with one `server_id` it tells whether they are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPlace {
    /// `hostname`.
    pub hostname: String,
    /// `port`.
    pub port: u16,
    /// `datadir`.
    pub datadir: String,
}

/// A server's state as one probe found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// As `SELECT VERSION()` prints it.
    pub version: String,
    /// `server_id`.
    pub server_id: u32,
    /// `server_uuid`; MariaDB has none.
    pub server_uuid: Option<String>,
    /// Where its process runs; asked of a MariaDB only.
    pub place: Option<ServerPlace>,
    /// `read_only`.
    pub read_only: bool,
    /// `super_read_only`; MariaDB has none, there it repeats `read_only`.
    pub super_read_only: bool,
    /// GTIDs are on and enforced; always true on MariaDB.
    pub gtid_mode_on: bool,
    /// `log_bin`.
    pub log_bin: bool,
    /// `log_replica_updates`.
    pub log_replica_updates: bool,
    /// It has replication filters for whatever source it is given. A channel has its own; a vttablet only tells of
    /// that.
    pub would_filter: bool,
    /// `binlog_format`; none where it is not told.
    pub binlog_format: Option<BinlogFormat>,
    /// Everything the server has committed.
    pub gtid_executed: GtidSet,
    /// What its binary logs no longer hold. On MariaDB it is read only where a recovery asks for it.
    pub gtid_purged: GtidSet,
    /// What its binary logs hold of whom; empty on MySQL, whose sets tell.
    pub binlog_state: MariaDbBinlogState,
    /// Its replication, if a source is configured.
    pub replication: Option<ReplicationStatus>,
    /// Its other channels, which pull from elsewhere. Who reads a server alone takes the unnamed one for the shard's.
    pub channels: Vec<ReplicationStatus>,
    /// Semi-synchronous replication, both sides.
    pub semi_sync: SemiSyncStatus,
    /// Rows of the reparent journal; read only where a recovery asks for it.
    pub journal_length: Option<u64>,
    /// For how long its process has been running, in whole seconds; read at least where a recovery asks for it.
    pub uptime: Option<Duration>,
    /// How many clients it would still let in (`max_connections` less `Threads_connected`); read at least where a
    /// recovery asks for it.
    pub free_connections: Option<u32>,
    /// Somebody holds a read lock on all its tables (`FLUSH TABLES WITH READ LOCK`): writes would wait for that. Read
    /// at least where a recovery asks for it; false where it is not told.
    pub writes_wait: bool,
    /// A backup runs there that lets writes wait at its end (MariaDB's `BACKUP STAGE`), and nobody knows when. Read as
    /// the one before is.
    pub backup_runs: bool,
    /// Turns all clients away but administrators (MySQL's `offline_mode`).
    pub offline: bool,
    /// What is known of the tablet's vttablet; none where there is none, or it was not asked yet.
    pub vttablet: Option<VttabletState>,
}

impl ServerStatus {
    /// Major and minor version: they decide who can follow whom.
    pub fn major_version(&self) -> (u32, u32) {
        let [major, minor, _] = version_numbers(&self.version);
        (major, minor)
    }

    /// The same server gave both answers. Two MariaDBs may have the same `server_id` by mistake.
    pub fn is_of_same_server(&self, other: &Self) -> bool {
        let same_place = || self.place.is_some() && self.place == other.place;
        self.identity() == other.identity() && (self.server_uuid.is_some() || same_place())
    }

    /// Which server this is.
    pub fn identity(&self) -> ServerIdentity {
        match &self.server_uuid {
            Some(uuid) => ServerIdentity::Uuid(uuid.to_ascii_lowercase()),
            None => ServerIdentity::Id(self.server_id),
        }
    }

    /// Tells whether this server has anything that the other's binary logs hold or that it received, as two servers
    /// of one shard have, or nothing that the other lacks, as a restored one. What the other's binary logs no longer
    /// hold does not count by itself: shards that were made from one backup have that in common. It does where this
    /// server wrote it: the other may be a copy of it that was promoted before it received anything more.
    pub fn shares_history_of(&self, other: &ServerStatus) -> bool {
        let (received, has) = (self.gtid_received(), other.gtid_received());
        let wrote = |uuid: &String| !has.of_source(uuid).is_empty();
        if self.server_uuid.as_ref().is_some_and(wrote) {
            return true;
        }
        match (&received, &has) {
            (GtidSet::MySql(_), GtidSet::MySql(_)) => {
                let logged = || has.subtract(&other.gtid_purged);
                let has_some_of = |logged: GtidSet| logged.subtract(&received) != logged;
                let lacks_nothing = !received.is_empty() && other.gtid_executed.contains(&received);
                lacks_nothing || has_some_of(logged())
            }
            // A position is behind another one whoever wrote the two: servers tell, numbers do not.
            (GtidSet::MariaDb(_), GtidSet::MariaDb(_)) => {
                let mine = self.mariadb_writers();
                !mine.is_disjoint(&other.mariadb_writers())
            }
            (GtidSet::MySql(_) | GtidSet::MariaDb(_), _) => false,
        }
    }

    /// How many transactions it has that the others lack, as far as that can be told: MariaDB does not tell, and all
    /// that it has counts.
    pub fn written_beyond(&self, others: &[&ServerStatus]) -> u64 {
        match &self.gtid_executed {
            all @ GtidSet::MySql(_) => {
                let known = others.iter().map(|other| &other.gtid_executed);
                known.fold(all.clone(), |left, known| left.subtract(known)).count()
            }
            GtidSet::MariaDb(position) => self.binlog_state.count().max(position.count()),
        }
    }

    /// What a MariaDB wrote itself, by its binary logs; nothing of a MySQL.
    pub fn logged_itself(&self) -> GtidSet {
        self.binlog_state.of(self.server_id)
    }

    /// Who wrote in which domain, by the binary logs and, where a replica does not log, by its position.
    fn mariadb_writers(&self) -> BTreeSet<(u32, u32)> {
        let mut writers = self.binlog_state.writers();
        if let GtidSet::MariaDb(position) = &self.gtid_executed {
            writers.extend(position.writers());
        }
        writers
    }

    /// Tells whether clients could write here.
    pub fn is_writable(&self) -> bool {
        !self.read_only
    }

    /// Some of what it receives, or would receive, is not applied, on purpose.
    pub fn is_filtered(&self) -> bool {
        self.replication.as_ref().map_or(self.would_filter, |replication| replication.filtered)
    }

    /// Everything the server has committed or received.
    pub fn gtid_received(&self) -> GtidSet {
        match &self.replication {
            Some(replication) => self.gtid_executed.union(&replication.retrieved),
            None => self.gtid_executed.clone(),
        }
    }

    /// What the server has committed or received that the one with this uuid wrote. It is asked at every probe, so
    /// whole sets are not copied for it.
    fn received_of_source(&self, uuid: &str) -> GtidSet {
        let executed = self.gtid_executed.of_source(uuid);
        match &self.replication {
            Some(replication) => executed.union(&replication.retrieved.of_source(uuid)),
            None => executed,
        }
    }

    /// What the server has received and not applied.
    pub fn unapplied(&self) -> GtidSet {
        self.gtid_received().subtract(&self.gtid_executed)
    }

    /// What this server has received and `source` lacks, less what `source` itself wrote meanwhile.
    pub fn received_beyond(&self, source: &ServerStatus) -> GtidSet {
        let beyond = self.gtid_received().subtract(&source.gtid_executed);
        beyond.without_writer(&source.identity())
    }

    /// It follows somebody, and acknowledges what it receives.
    pub fn acknowledges(&self) -> bool {
        self.semi_sync.replica_enabled && self.replication.is_some()
    }

    /// What is left of these without what comes to this server from elsewhere, by its other channels: its replicas have
    /// that from it, and may show it first. What servers of the shard wrote does not, though it may have been round by
    /// there.
    pub fn without_pulled(
        &self,
        gtids: &GtidSet,
        shard: impl Iterator<Item = ServerIdentity>,
    ) -> GtidSet {
        if self.channels.is_empty() {
            return gtids.clone();
        }
        let left = self.channels.iter().fold(gtids.clone(), |left, channel| {
            let left = left.without_writers_of(&channel.retrieved);
            match channel.source_identity() {
                Some(source) => left.without_writer(&source),
                None => left,
            }
        });
        shard.fold(left, |all, one| all.union(&gtids.of_writer(&one)))
    }

    /// What this server needs of what `source`'s binary logs no longer hold: no start of its receiver helps, it must
    /// be cloned anew. No probe asks a MariaDB what it purged; its word to the receiver must do.
    pub fn needs_purged(&self, source: &ServerStatus) -> Option<NeedsPurged<'_>> {
        if self.flavor == Flavor::MySql {
            let missing = source.gtid_purged.subtract(&self.gtid_received());
            return (!missing.is_empty()).then_some(NeedsPurged::Of(missing));
        }
        let told = |one: &&ReplicationStatus| one.auto_position && source.is_source_of(one, None);
        let channel = self.replication.as_ref().filter(told)?;
        let error =
            channel.receiver_error.as_ref().filter(|_| channel.receiver != ReceiverState::Running);
        error.filter(|error| error.kind == ReceiverErrorKind::Purged).map(NeedsPurged::Told)
    }

    /// What this server wrote itself, as `other` has it, and does not have any more: it lost the end of its binary
    /// log. No replica ever gets its own transactions back (events of one's own `server_id` are skipped), so it must
    /// be cloned anew.
    ///
    /// `other` must have answered before this server was asked. A commit that waits for its acknowledgement is on the
    /// replicas already and not counted here yet. So where somebody waits, or may write, the loss is only believed
    /// where this server refuses `other` for it: a server that refuses a replica counts its own commits that wait
    /// (MySQL's `Binlog_sender::check_start_file` adds the owned GTIDs).
    pub fn lost_to(&self, other: &ServerStatus) -> Option<GtidSet> {
        let settled = self.semi_sync.waiting_sessions == 0 && !self.is_writable();
        let believed = settled || (other.is_refused() && other.leads_to(self));
        if !believed {
            return None;
        }
        Some(self.lacks_of_its_own(other)).filter(|lost| !lost.is_empty())
    }

    /// Its channel leads to this server, whatever address it has.
    fn leads_to(&self, source: &ServerStatus) -> bool {
        self.replication.as_ref().is_some_and(|channel| source.is_source_of(channel, None))
    }

    /// What it wrote itself, as far as that can be told, of what it has committed.
    pub fn written_by_itself(&self) -> GtidSet {
        self.gtid_executed.of_writer(&self.identity())
    }

    /// Everything it committed or received that this server did not write; all of it where the writer is named in
    /// terms of the other flavour.
    pub fn not_written_by(&self, writer: &ServerIdentity) -> GtidSet {
        self.gtid_received().without_writer(writer)
    }

    fn lacks_of_its_own(&self, other: &ServerStatus) -> GtidSet {
        match (self.flavor, &self.server_uuid) {
            (Flavor::MySql, Some(uuid)) => {
                other.received_of_source(uuid).subtract(&self.received_of_source(uuid))
            }
            (Flavor::MySql, None) => GtidSet::empty_mysql(),
            (Flavor::MariaDb, _) => {
                let lost = self.binlog_state.lost_to(&other.binlog_state, self.server_id);
                let written = match other.gtid_received() {
                    GtidSet::MariaDb(theirs) => GtidSet::MariaDb(theirs.written_by(self.server_id)),
                    other @ GtidSet::MySql(_) => other,
                };
                let mine = self.gtid_received();
                GtidSet::MariaDb(lost).union(&written.subtract(&mine))
            }
        }
    }

    /// Its source told it that their histories differ.
    pub fn is_refused(&self) -> bool {
        let error = self.replication.as_ref().and_then(|r| r.receiver_error.as_ref());
        let any = sabotage::has(Bug::AnyRefusalIsDivergence);
        error.is_some_and(|error| any || error.kind == ReceiverErrorKind::Diverged)
    }

    /// Tells whether both servers are one and the same. Compared by uuid where there is one: the names
    /// under which a server is reached differ between the topology and `SHOW REPLICA STATUS`.
    pub fn is_source_of(
        &self,
        replication: &ReplicationStatus,
        address: Option<&MysqlAddress>,
    ) -> bool {
        let same_address = address.is_some_and(|address| *address == replication.source);
        match (&self.server_uuid, &replication.source_uuid) {
            (Some(mine), Some(theirs)) => mine.eq_ignore_ascii_case(theirs),
            (Some(_), None) | (None, _) => match replication.source_server_id {
                Some(id) if id != 0 => id == self.server_id,
                Some(_) | None => same_address,
            },
        }
    }
}

/// How it is known that a replica needs what was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeedsPurged<'a> {
    /// It lacks this, which its source purged.
    Of(GtidSet),
    /// Its source said so.
    Told(&'a ReceiverError),
}

/// A vttablet, beside the server that it looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VttabletState {
    /// It answers.
    Answers {
        /// What it takes itself for; its record follows.
        tablet_type: TabletType,
        /// It cannot write to its disk.
        disk_stalled: bool,
        /// Its own test writes wait for acknowledgements, all of them.
        semi_sync_blocked: bool,
    },
    /// It does not answer, and why.
    Silent(String),
    /// It does not know the calls by which it would be driven.
    TooOld(String),
}

impl VttabletState {
    /// It takes itself for something else than the primary.
    pub fn is_no_primary(&self) -> bool {
        match self {
            Self::Answers { tablet_type, .. } => *tablet_type != TabletType::Primary,
            Self::Silent(_) | Self::TooOld(_) => false,
        }
    }
}

/// A replica's side of replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationStatus {
    /// The channel's name (MariaDB: the connection's); most have none.
    pub channel: String,
    /// The configured source.
    pub source: MysqlAddress,
    /// The source's uuid, once the replica was connected to it (MySQL).
    pub source_uuid: Option<String>,
    /// The source's server id, once known.
    pub source_server_id: Option<u32>,
    /// The receiver thread.
    pub receiver: ReceiverState,
    /// The receiver's last error.
    pub receiver_error: Option<ReceiverError>,
    /// The applier thread runs.
    pub applier_running: bool,
    /// The applier's last error.
    pub applier_error: Option<String>,
    /// Received from this source, applied or not.
    pub retrieved: GtidSet,
    /// How it protects the connection; none if that is not told.
    pub tls: Option<ChannelTls>,
    /// GTID auto-positioning is on.
    pub auto_position: bool,
    /// Some of what this channel receives is not applied, on purpose.
    pub filtered: bool,
    /// Seconds behind the source; unknown is not zero.
    pub lag_seconds: Option<u64>,
    /// Configured delay.
    pub delay_seconds: u64,
    /// It gives up for good when it could not connect for so many seconds; none if never, or unknown.
    pub gives_up_after_s: Option<u64>,
    /// Heartbeats expected every so many milliseconds; none if unknown or off.
    pub heartbeat_period_ms: Option<u64>,
    /// Changes whenever anything arrives from the source, a heartbeat included. Only compared with itself.
    pub received_marker: String,
    /// Heartbeats move the marker, so an unmoved marker says something.
    pub marker_sees_heartbeats: bool,
}

impl ReplicationStatus {
    /// It tries again and again, and its source lets it in no more: that answers.
    pub fn is_turned_away(&self) -> bool {
        let error = self.receiver_error.as_ref();
        self.receiver == ReceiverState::Connecting
            && error.is_some_and(|error| error.kind == ReceiverErrorKind::Denied)
    }

    /// It was connected to its source, and knows which server that is.
    pub fn knows_source(&self) -> bool {
        self.source_identity().is_some()
    }

    /// Which server it was connected to.
    pub fn source_identity(&self) -> Option<ServerIdentity> {
        match (&self.source_uuid, self.source_server_id) {
            (Some(uuid), _) => Some(ServerIdentity::Uuid(uuid.to_ascii_lowercase())),
            (None, Some(id)) if id != 0 => Some(ServerIdentity::Id(id)),
            (None, _) => None,
        }
    }

    /// It follows the same server as another one, as far as both say.
    pub fn has_source_of(&self, other: &Self) -> bool {
        self.source == other.source && self.source_identity() == other.source_identity()
    }

    /// Tells whether a silent source would show much later than with the period that is wanted; none where the period
    /// is not known. Servers round it, so twice as long is still right; 0 is off.
    pub fn heartbeats_too_rare(&self, wanted: Duration) -> Option<bool> {
        let period = self.heartbeat_period_ms?;
        Some(period == 0 || u128::from(period) > wanted.as_millis().saturating_mul(2))
    }

    /// Tells whether both threads run.
    pub fn is_healthy(&self) -> bool {
        self.receiver == ReceiverState::Running && self.applier_running
    }
}

/// Semi-synchronous replication on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SemiSyncStatus {
    /// The server can be a semi-sync source (plugin loaded or built in).
    pub source_available: bool,
    /// The server can acknowledge (plugin loaded or built in).
    pub replica_available: bool,
    /// Waits for acknowledgements when it is a source.
    pub source_enabled: bool,
    /// Acknowledges when it is a replica.
    pub replica_enabled: bool,
    /// The source side is really waiting and did not fall back to asynchronous.
    pub source_active: bool,
    /// The replica side is really acknowledging.
    pub replica_active: bool,
    /// Replicas connected that acknowledge.
    pub clients: u32,
    /// Acknowledgements waited for.
    pub wait_count: u32,
    /// After how many milliseconds the source would fall back to asynchronous.
    pub timeout_ms: u64,
    /// Falls back to asynchronous by itself when too few ackers are connected
    /// (`rpl_semi_sync_source_wait_no_replica = OFF`).
    pub falls_back_alone: bool,
    /// Sessions that wait for an acknowledgement now.
    pub waiting_sessions: u32,
    /// A transaction that can be seen was acknowledged (`rpl_semi_sync_source_wait_point = AFTER_SYNC`, MySQL's
    /// default); else it can be seen before.
    pub seen_is_acknowledged: bool,
}

/// The numbers that a server's version begins with: major, minor and patch; 0 for each that is missing.
pub fn version_numbers(version: &str) -> [u32; 3] {
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit());
    [(); 3].map(|()| numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0))
}
