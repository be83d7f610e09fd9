//! A shard's state as a file: everything that decisions rest on, to be looked at later or elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vtorc_core::durability::{self, DurabilityPolicy};
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::knowledge::health::{ProbeFailure, ProbeHistory, Reachability, RecentProbes};
use vtorc_core::knowledge::memory::{Arrivals, Journal, LastHeard, Losses, OwnWrites};
use vtorc_core::knowledge::observe::TabletState;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::{MysqlAddress, PromotionRule, Tablet, TabletType, VttabletAddress};
use vtorc_core::time::{TermStart, Timestamp};
use vtorc_core::topology::{Place, ShardRecord, UnreadRecord};

mod server;

use server::ServerFile;

/// A snapshot, as `GET …/snapshot` answers it and `vtorc explain` reads it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFile {
    keyspace: String,
    shard: String,
    durability_policy: String,
    #[serde(default)]
    primary_alias: Option<String>,
    #[serde(default)]
    primary_term_start: Option<Term>,
    #[serde(default)]
    emergency_reparent_disabled: bool,
    #[serde(default)]
    damaged: BTreeMap<String, String>,
    /// Cells that were read at least once.
    #[serde(default)]
    known_cells: BTreeSet<String>,
    /// Cells that could never be read, and why.
    #[serde(default)]
    unseen_cells: BTreeMap<String, String>,
    /// Tablets whose records could never be read, and why.
    #[serde(default)]
    unseen_records: BTreeMap<String, String>,
    /// Tablets whose record cannot be read now, and is what it was.
    #[serde(default)]
    unread_tablets: BTreeSet<String>,
    /// What is known of the shard's own record where that cannot be read: `as_before`, `doubtful` or `never_read`.
    #[serde(default)]
    unread_record: Option<String>,
    /// Since when the primary's term is known; milliseconds since the epoch.
    #[serde(default)]
    term_known_since_ms: Option<u64>,
    /// What is known of the primary that was heard last, by this process or one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heard_before: Option<HeardFile>,
    /// Milliseconds since the epoch.
    now_ms: u64,
    tablets: Vec<TabletFile>,
}

/// When a primary was heard last, and who acknowledged to it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HeardFile {
    primary: String,
    at_ms: u64,
    ackers: BTreeSet<String>,
}

impl HeardFile {
    fn of(heard: &LastHeard) -> Self {
        Self {
            primary: heard.primary.to_string(),
            at_ms: heard.at.as_millis(),
            ackers: heard.ackers.iter().map(ToString::to_string).collect(),
        }
    }

    fn into_core(self) -> Result<LastHeard, String> {
        let alias = |text: &String| text.parse().map_err(|error| format!("{error}"));
        let ackers: Result<_, _> = self.ackers.iter().map(alias).collect();
        let at = Timestamp::from_millis(self.at_ms);
        Ok(LastHeard { primary: alias(&self.primary)?, at, ackers: ackers? })
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Term {
    seconds: i64,
    nanos: i32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TabletFile {
    alias: String,
    #[serde(rename = "type")]
    tablet_type: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    /// `host:port` of its vttablet.
    #[serde(default)]
    vttablet: Option<String>,
    #[serde(default)]
    term_start: Option<Term>,
    #[serde(default)]
    promotion_rule: Option<String>,
    /// `never_seen`, `reachable`, `suspect`, `unreachable` or `turned_away`.
    state: String,
    #[serde(default)]
    failing_since_ms: Option<u64>,
    /// How the last probe failed.
    #[serde(default)]
    trouble: Option<TroubleFile>,
    #[serde(default)]
    asked_at_ms: u64,
    #[serde(default)]
    answered_at_ms: u64,
    #[serde(default)]
    received_at_ms: Option<u64>,
    /// It led before the present primary.
    #[serde(default)]
    led_before: bool,
    /// Its record led to another address before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    moved: bool,
    /// What it wrote itself while it followed somebody; of a MariaDB.
    #[serde(default)]
    own_writes: Option<String>,
    #[serde(default)]
    stuck_since_ms: Option<u64>,
    #[serde(default)]
    recent_timeouts: u32,
    #[serde(default)]
    recent_pings: u32,
    #[serde(default)]
    recent_answers: u32,
    #[serde(default)]
    server: Option<ServerFile>,
}

/// How a probe failed.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TroubleFile {
    kind: String,
    #[serde(default)]
    details: String,
}

impl SnapshotFile {
    /// The file of a snapshot.
    pub fn of(snapshot: &ShardSnapshot) -> Self {
        Self {
            keyspace: snapshot.shard.keyspace.clone(),
            shard: snapshot.shard.shard.clone(),
            durability_policy: durability::name_of(&snapshot.durability).to_owned(),
            primary_alias: snapshot.record.primary_alias.as_ref().map(ToString::to_string),
            primary_term_start: snapshot.record.term_start.map(Term::of),
            emergency_reparent_disabled: snapshot.emergency_reparent_disabled,
            known_cells: snapshot.known_cells.clone(),
            unseen_cells: unseen_cells(snapshot),
            unseen_records: unseen_records(snapshot),
            unread_tablets: snapshot.unread_tablets.iter().map(ToString::to_string).collect(),
            unread_record: snapshot.unread_record.map(|known| known.name().to_owned()),
            term_known_since_ms: snapshot.term_known_since.map(Timestamp::as_millis),
            damaged: snapshot.damaged.clone(),
            heard_before: snapshot.heard_before.as_ref().map(HeardFile::of),
            now_ms: snapshot.now.as_millis(),
            tablets: snapshot.tablets.values().map(TabletFile::of).collect(),
        }
    }

    /// Reads a file's text; the error says where it is wrong.
    pub fn parse(text: &str) -> Result<ShardSnapshot, String> {
        let file: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        file.into_snapshot()
    }

    fn into_snapshot(self) -> Result<ShardSnapshot, String> {
        let failure = |error: &dyn std::fmt::Display| error.to_string();
        let shard =
            KeyspaceShard::new(&self.keyspace, &self.shard).map_err(|error| failure(&error))?;
        let primary_alias = self.primary_alias.map(|alias| alias.parse()).transpose();
        let mut unseen: BTreeMap<Place, String> = BTreeMap::new();
        for (cell, why) in self.unseen_cells {
            unseen.insert(Place::Cell(cell), why);
        }
        for (alias, why) in self.unseen_records {
            unseen.insert(Place::Record(alias.parse().map_err(|error| failure(&error))?), why);
        }
        let unread_tablets = self.unread_tablets.iter().map(|alias| alias.parse());
        let unread_tablets: Result<_, _> = unread_tablets.collect();
        let unread_record = self.unread_record.map(|name| {
            UnreadRecord::from_name(&name)
                .ok_or_else(|| format!("unread_record {name:?} is not known"))
        });
        let mut tablets = BTreeMap::new();
        for tablet in self.tablets {
            let alias = tablet.alias.clone();
            let state =
                tablet.into_state(&shard).map_err(|error| format!("tablet {alias}: {error}"))?;
            tablets.insert(state.tablet.alias.clone(), state);
        }
        Ok(ShardSnapshot {
            durability: self.durability_policy.parse::<DurabilityPolicy>(),
            record: ShardRecord {
                primary_alias: primary_alias.map_err(|error| failure(&error))?,
                term_start: self.primary_term_start.map(Term::into_core),
                emergency_reparent_disabled: false,
            },
            emergency_reparent_disabled: self.emergency_reparent_disabled,
            known_cells: self.known_cells,
            unseen,
            unread_tablets: unread_tablets.map_err(|error| failure(&error))?,
            unread_record: unread_record.transpose()?,
            term_known_since: self.term_known_since_ms.map(Timestamp::from_millis),
            damaged: self.damaged,
            heard_before: self.heard_before.map(HeardFile::into_core).transpose()?,
            now: Timestamp::from_millis(self.now_ms),
            shard,
            tablets,
        })
    }
}

/// What the server's own words say of its reparent journal.
fn journal_of(status: &ServerStatus) -> Option<Journal> {
    let executed = status.gtid_executed.clone();
    status.journal_length.map(|length| Journal { length, executed })
}

fn unseen_cells(snapshot: &ShardSnapshot) -> BTreeMap<String, String> {
    let cell = |(place, why): (&Place, &String)| match place {
        Place::Cell(cell) => Some((cell.clone(), why.clone())),
        Place::Record(_) => None,
    };
    snapshot.unseen.iter().filter_map(cell).collect()
}

fn unseen_records(snapshot: &ShardSnapshot) -> BTreeMap<String, String> {
    let record = |(place, why): (&Place, &String)| match place {
        Place::Record(alias) => Some((alias.to_string(), why.clone())),
        Place::Cell(_) => None,
    };
    snapshot.unseen.iter().filter_map(record).collect()
}

impl Term {
    fn of(term: TermStart) -> Self {
        Self { seconds: term.seconds, nanos: term.nanos }
    }

    fn into_core(self) -> TermStart {
        TermStart { seconds: self.seconds, nanos: self.nanos }
    }
}

impl TabletFile {
    fn of(state: &TabletState) -> Self {
        let tablet = &state.tablet;
        Self {
            alias: tablet.alias.to_string(),
            tablet_type: tablet.tablet_type.name().to_owned(),
            host: tablet.mysql.as_ref().map(|address| address.host.clone()),
            port: tablet.mysql.as_ref().map(|address| address.port),
            vttablet: tablet.vttablet.as_ref().map(ToString::to_string),
            term_start: tablet.term_start.map(Term::of),
            promotion_rule: tablet.promotion_rule.map(|rule| rule.name().to_owned()),
            state: state_name(&state.reachability).to_owned(),
            failing_since_ms: state.reachability.failing_since().map(Timestamp::as_millis),
            trouble: state.reachability.failure().map(TroubleFile::of),
            asked_at_ms: state.status_at.as_millis(),
            answered_at_ms: state.answered_at.as_millis(),
            received_at_ms: state.received_at.map(Timestamp::as_millis),
            led_before: state.led_before,
            moved: state.moved,
            own_writes: state.own_writes.all().map(ToString::to_string),
            stuck_since_ms: state.stuck_since.map(Timestamp::as_millis),
            recent_timeouts: state.recent.timed_out,
            recent_pings: state.recent.pinged,
            recent_answers: state.recent.succeeded,
            server: state.status.as_deref().map(|status| {
                let mut file = ServerFile::of(status);
                // What a probe does not read is known from elsewhere.
                let read = state.journal.as_ref().map(|journal| journal.length);
                file.journal_length = status.journal_length.or(read);
                file
            }),
        }
    }

    fn into_state(self, shard: &KeyspaceShard) -> Result<TabletState, String> {
        let tablet_type = TabletType::from_name(&self.tablet_type);
        let rule = self.promotion_rule.as_deref().map(|name| {
            PromotionRule::from_name(name).ok_or_else(|| format!("no promotion rule {name:?}"))
        });
        let own_writes = self.own_writes.as_deref().map(GtidSet::parse_mariadb).transpose();
        let own_writes = own_writes.map_err(|error| error.to_string())?;
        let since = Timestamp::from_millis(self.failing_since_ms.unwrap_or_default());
        let trouble = self.trouble;
        let why = || match trouble {
            Some(file) => file.into_core(),
            None => Err("it fails, and no trouble says how".to_owned()),
        };
        let reachability = match self.state.as_str() {
            "never_seen" => Reachability::Unseen,
            "reachable" => Reachability::Valid,
            "suspect" => Reachability::Suspect { since, why: why()? },
            "unreachable" => Reachability::Unreachable { since, why: why()? },
            "turned_away" => Reachability::TurnedAway { since, why: why()? },
            other => return Err(format!("no state {other:?}")),
        };
        let status = self.server.map(ServerFile::into_status).transpose()?;
        Ok(TabletState {
            tablet: Tablet {
                alias: self.alias.parse().map_err(|error| format!("{error}"))?,
                shard: shard.clone(),
                tablet_type: tablet_type
                    .ok_or_else(|| format!("no type {:?}", self.tablet_type))?,
                mysql: self.host.zip(self.port).map(|(host, port)| MysqlAddress { host, port }),
                term_start: self.term_start.map(Term::into_core),
                vttablet: self.vttablet.as_deref().map(vttablet_address).transpose()?,
                promotion_rule: rule.transpose()?,
            },
            identity: None,
            proven: false,
            stranger: None,
            reachability,
            status_at: Timestamp::from_millis(self.asked_at_ms),
            asked_at: Timestamp::from_millis(self.asked_at_ms),
            history: ProbeHistory::default(),
            answered_at: Timestamp::from_millis(self.answered_at_ms.max(self.asked_at_ms)),
            earlier: Vec::new(),
            received_at: self.received_at_ms.map(Timestamp::from_millis),
            arrivals: Arrivals::default(),
            stuck_since: self.stuck_since_ms.map(Timestamp::from_millis),
            journal: status.as_ref().and_then(journal_of),
            as_primary: None,
            led_before: self.led_before,
            moved: self.moved,
            channel_tls: None,
            quiet_since: None,
            losses: Losses::default(),
            own_writes: OwnWrites::seen(own_writes),
            forgotten: None,
            status: status.map(Arc::new),
            recent: RecentProbes {
                timed_out: self.recent_timeouts,
                pinged: self.recent_pings,
                succeeded: self.recent_answers,
            },
        })
    }
}

impl TroubleFile {
    fn of(failure: &ProbeFailure) -> Self {
        Self { kind: failure.kind().to_owned(), details: failure.details() }
    }

    fn into_core(self) -> Result<ProbeFailure, String> {
        let kind = ProbeFailure::of_kind(&self.kind, &self.details);
        kind.ok_or_else(|| format!("no trouble {:?}", self.kind))
    }
}

/// The name of what the probes amount to.
pub(crate) fn state_name(reachability: &Reachability) -> &'static str {
    match reachability {
        Reachability::Unseen => "never_seen",
        Reachability::Valid => "reachable",
        Reachability::Suspect { .. } => "suspect",
        Reachability::Unreachable { .. } => "unreachable",
        Reachability::TurnedAway { .. } => "turned_away",
    }
}

/// Reads `host:port`.
fn vttablet_address(text: &str) -> Result<VttabletAddress, String> {
    let bad = || format!("{text:?} is not host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(VttabletAddress { host, port: port.parse().map_err(|_| bad())? })
}
