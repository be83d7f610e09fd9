//! What would go wrong on the bad day, told before it: grants, settings that a restart undoes, policies that
//! too few servers can keep, everything on one host.

mod grants;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::admission::{Refusal, Switches};
use crate::analysis;
use crate::ids::TabletAlias;
use crate::knowledge::identity::is_primary;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::recovery::login;
use crate::remedy::{self, Remedy};
use crate::reparent::prognosis::{self, Prognosis};
use crate::settings::RecoverySettings;
use crate::source_access::LoginTrial;
use crate::status::ServerStatus;

pub use grants::{Grant, may_replicate, missing_grants};

/// A server's clock may differ by so much from this machine's before it is told.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

/// What a server says of itself once, besides its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// What the topology user may do.
    pub grants: Vec<Grant>,
    /// What `read_only` is when the server starts; none if it cannot be told.
    pub read_only_at_start: Option<bool>,
    /// `replica_net_timeout` in seconds.
    pub net_timeout_s: Option<u64>,
    /// A committed transaction survives a crash of the machine (`sync_binlog` and
    /// `innodb_flush_log_at_trx_commit` are 1).
    pub commits_are_durable: Option<bool>,
    /// Readers see a commit before it is acknowledged (the wait point is `AFTER_COMMIT`).
    pub readers_see_unacknowledged: Option<bool>,
    /// How far the server's clock is ahead of this machine's; negative if it is behind.
    pub clock_ahead_ms: Option<i64>,
    /// Users of clients that are connected.
    pub connected: BTreeSet<String>,
    /// Of these, whom `read_only` does not stop, as far as the topology user may know; nobody where `super_read_only`
    /// is used.
    pub past_read_only: BTreeSet<String>,
    /// What came of logging in as replicas do; none where it is not known as whom, or the server could not be reached.
    pub login_trial: Option<LoginTrial>,
}

/// Who writes to a server in spite of `read_only`, as far as that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WhoWritesOn {
    /// Nobody knows.
    #[default]
    Somebody,
    /// Somebody of these, who are connected.
    SomebodyOf(BTreeSet<String>),
    /// These, who are connected, may.
    Users(BTreeSet<String>),
}

impl WhoWritesOn {
    /// By what its server was just found like.
    pub fn of(inspected: &Inspection) -> Self {
        match (inspected.past_read_only.is_empty(), inspected.connected.is_empty()) {
            (false, _) => Self::Users(inspected.past_read_only.clone()),
            (true, false) => Self::SomebodyOf(inspected.connected.clone()),
            (true, true) => Self::Somebody,
        }
    }
}

impl fmt::Display for WhoWritesOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |users: &BTreeSet<String>| {
            users.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Somebody => f.write_str("somebody"),
            Self::SomebodyOf(users) => write!(f, "somebody of those connected ({})", list(users)),
            Self::Users(users) => f.write_str(&list(users)),
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A failover would fail, or lose something.
    Error,
    /// It would be slower or weaker than it could be, or may surprise.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Something to be put in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// How bad it is.
    pub severity: Severity,
    /// A short name.
    pub code: String,
    /// On which tablet; none where it is about the shard.
    pub tablet: Option<TabletAlias>,
    /// What is the matter.
    pub what: String,
    /// What to do.
    pub cure: String,
}

/// All that is to be put in order in a shard, the worst first. Servers that were not inspected are told of as
/// far as their state is known.
pub fn concerns(
    snapshot: &ShardSnapshot,
    inspections: &BTreeMap<TabletAlias, Inspection>,
    settings: &RecoverySettings,
    switches: Switches<'_>,
) -> Vec<Concern> {
    let mut report = Report(Vec::new());
    report.findings(snapshot, settings);
    report.promises(snapshot);
    report.places(snapshot);
    report.failover(snapshot, settings, switches);
    for (alias, inspection) in inspections {
        if let Some(state) = snapshot.tablet(alias) {
            report.server(state, inspection, snapshot);
            let somebody_tells = inspections.values().any(|one| one.login_trial.is_some());
            if login::needs_login(snapshot, &state.tablet, settings) && !somebody_tells {
                let (code, what) = ("UnknownReplicaUser", login::UNKNOWN);
                report.add(Severity::Error, code, Some(alias), what, "set MySQLReplicaUser");
            }
            report.login(state, inspection);
        }
    }
    report.0.sort_by(|one, other| {
        (one.severity, &one.tablet, &one.code).cmp(&(other.severity, &other.tablet, &other.code))
    });
    report.0
}

/// What to do so that a primary is replaced.
fn allowed_by(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Disabled => "POST /api/v1/recoveries/enable",
        Refusal::SwitchedOff(_)
        | Refusal::EmergencyReparentsSwitchedOff(_)
        | Refusal::InDowntime(_) => "vtorc ctl controls lists it; vtorc ctl lift ends it",
        Refusal::EmergencyReparentsForbidden => {
            "start vtorc without --allow-emergency-reparent=false"
        }
        Refusal::EmergencyReparentDisabled => "enable emergency reparents in the records",
        Refusal::Filtered => "name the shard in RecoverMasterClusterFilters, or use \"*\"",
        Refusal::CellLeftAlone(_) => "let a vtorc recover this cell",
        Refusal::ManagerIsolated(_) => "look at the network of the machine that vtorc runs on",
        Refusal::WaitsForDisk => "enable recoveries of primaries whose disk is stalled",
        // No matter of this moment, and of no configuration.
        Refusal::InBlockPeriod(_)
        | Refusal::BackingOff { .. }
        | Refusal::KeepsVanishing { .. }
        | Refusal::WatchOnly => "wait until that is over",
    }
}

struct Report(Vec<Concern>);

impl Report {
    fn add(
        &mut self,
        severity: Severity,
        code: &str,
        tablet: Option<&TabletAlias>,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let (code, tablet) = (code.to_owned(), tablet.cloned());
        self.0.push(Concern { severity, code, tablet, what: what.into(), cure: cure.into() });
    }

    /// What is wrong already.
    fn findings(&mut self, snapshot: &ShardSnapshot, settings: &RecoverySettings) {
        for finding in analysis::detect(snapshot, settings) {
            let watched = remedy::remedy(finding.kind) == Remedy::WatchOnly;
            let severity = if watched { Severity::Warning } else { Severity::Error };
            let cure = if watched {
                "a person must look at it".to_owned()
            } else {
                format!("a running vtorc would repair it: {}", remedy::remedy(finding.kind).name())
            };
            let what = match finding.evidence.is_empty() {
                true => finding.why.to_owned(),
                false => format!("{} ({})", finding.why, finding.evidence_lines().join("; ")),
            };
            self.add(severity, &finding.kind.to_string(), finding.tablet.as_ref(), what, cure);
        }
    }

    /// Whether every tablet that could be primary would have enough ackers, with one to spare.
    fn promises(&mut self, snapshot: &ShardSnapshot) {
        let Ok(policy) = snapshot.durability else { return };
        let required = policy.acks_required() as usize;
        if required == 0 {
            let cure = "set a semi-sync policy: vtorc topo set-durability KEYSPACE semi_sync";
            let what = "durability policy none: a failover may lose writes that were acknowledged";
            self.add(Severity::Warning, "NoDurability", None, what, cure);
            return;
        }
        let tablets = || managed(snapshot).map(|state| &state.tablet);
        for candidate in tablets().filter(|tablet| tablet.tablet_type.is_promotable()) {
            let acknowledges = |other: &&TabletState| {
                policy.wants_ack_of(candidate, &other.tablet, other.status.as_deref())
            };
            let ackers = managed(snapshot).filter(acknowledges).count();
            let alias = Some(&candidate.alias);
            if ackers < required {
                let what = format!(
                    "as primary it would wait for {required} acknowledgement(s) under {policy}, and {ackers} \
                     tablet(s) could give one: it is never promoted"
                );
                self.add(
                    Severity::Warning,
                    "TooFewAckers",
                    alias,
                    what,
                    "add tablets that may acknowledge",
                );
            } else if ackers == required {
                let what = format!(
                    "as primary it has {ackers} acker(s) for the {required} that {policy} demands: the loss \
                     of one stops all writes"
                );
                self.add(
                    Severity::Warning,
                    "NoAckerToSpare",
                    alias,
                    what,
                    "add tablets that may acknowledge",
                );
            }
        }
    }

    /// What would be lost together.
    fn places(&mut self, snapshot: &ShardSnapshot) {
        let hosts: BTreeSet<&str> = managed(snapshot)
            .filter_map(|state| Some(state.tablet.mysql.as_ref()?.host.as_str()))
            .collect();
        if let (1, true, Some(host)) = (hosts.len(), managed(snapshot).count() > 1, hosts.first()) {
            let what = format!("all its tablets are on {host}: they are lost together");
            self.add(Severity::Warning, "OneHost", None, what, "spread them over several machines");
        }
        let mut seen: BTreeMap<String, &TabletAlias> = BTreeMap::new();
        for state in managed(snapshot) {
            let Some(status) = &state.status else { continue };
            let alias = &state.tablet.alias;
            let uuid = status.server_uuid.clone().map(|uuid| format!("server_uuid {uuid}"));
            for identity in
                [Some(format!("server_id {}", status.server_id)), uuid].into_iter().flatten()
            {
                if let Some(other) = seen.insert(identity.clone(), alias) {
                    let what = format!(
                        "it has the same {identity} as {other}: one cannot follow the other"
                    );
                    let cure =
                        "give it its own (server_id in my.cnf; a new uuid by removing auto.cnf)";
                    self.add(Severity::Error, "SameIdentity", Some(alias), what, cure);
                }
            }
        }
    }

    /// What would become of the shard if its primary died now.
    fn failover(
        &mut self,
        snapshot: &ShardSnapshot,
        settings: &RecoverySettings,
        switches: Switches<'_>,
    ) {
        let Some(primary) = snapshot.primary() else { return };
        let old = &primary.tablet.alias;
        if let Some(refusal) = prognosis::forbidden(old, snapshot, settings, switches) {
            let what = format!("its primary would not be replaced: {refusal}");
            self.add(Severity::Warning, "NotReplaced", None, what, allowed_by(&refusal));
            return;
        }
        match prognosis::if_primary_died(snapshot, settings, switches) {
            Prognosis::NoPrimary | Prognosis::Promotes { may_lose: None, .. } => {}
            Prognosis::Promotes { winner, may_lose: Some(lost), .. }
                if promises_anything(snapshot) =>
            {
                let what = format!(
                    "if the primary died now, {winner} would be promoted; could be lost: {lost}"
                );
                self.add(
                    Severity::Warning,
                    "FailoverMayLose",
                    None,
                    what,
                    "let the replicas catch up",
                );
            }
            // Said once: the policy promises nothing.
            Prognosis::Promotes { .. } => {}
            Prognosis::Refuses { why, passed_over } => {
                let others: Vec<String> = passed_over
                    .iter()
                    .map(|one| format!("{}: {}", one.alias, one.reason))
                    .collect();
                let others = if others.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", others.join("; "))
                };
                let what =
                    format!("if the primary died now, nobody would be promoted: {why}{others}");
                self.add(
                    Severity::Error,
                    "NoFailoverPossible",
                    None,
                    what,
                    "bring a candidate in order",
                );
            }
        }
    }

    /// Whether replicas are let in at their source.
    fn login(&mut self, state: &TabletState, seen: &Inspection) {
        let alias = Some(&state.tablet.alias);
        let Some(trial) = &seen.login_trial else { return };
        if let Some(trouble) = &trial.trouble {
            let what = format!(
                "a replica that logs in at {} as {:?} is not served there, as seen from this machine: {trouble}",
                trial.at, trial.user
            );
            self.add(Severity::Warning, "ReplicaUserRefused", alias, what, trouble.cure());
        }
    }

    fn server(&mut self, state: &TabletState, seen: &Inspection, snapshot: &ShardSnapshot) {
        let alias = Some(&state.tablet.alias);
        let Some(status) = &state.status else { return };
        for (privilege, without) in missing_grants(&seen.grants, status.flavor, &status.version) {
            let what = format!("the topology user lacks {privilege}; without it {without}");
            let cure = "run init_db.sql on it";
            self.add(Severity::Error, "MissingGrant", alias, what, cure);
        }
        if seen.read_only_at_start == Some(false) {
            let what = "it starts with read_only OFF: after a crash it takes writes until somebody stops it";
            let cure = "read_only = ON (MySQL: super_read_only = ON) in its my.cnf; vtorc opens the primary";
            self.add(Severity::Warning, "StartsWritable", alias, what, cure);
        }
        self.who_else_writes(state, status, seen, snapshot);
        let heartbeat = status.replication.as_ref().and_then(|r| r.heartbeat_period_ms);
        if let (Some(timeout), Some(heartbeat)) = (seen.net_timeout_s, heartbeat)
            && heartbeat.saturating_mul(2) > timeout.saturating_mul(1000)
        {
            let what = format!(
                "a heartbeat every {heartbeat} ms and replica_net_timeout {timeout} s: it would take an idle \
                 source for dead"
            );
            self.add(
                Severity::Warning,
                "RareHeartbeats",
                alias,
                what,
                "vtorc sets it when it repoints the replica",
            );
        }
        let promised = promises_anything(snapshot);
        if promised && seen.commits_are_durable == Some(false) {
            let what = "sync_binlog or innodb_flush_log_at_trx_commit is not 1: what it acknowledged may be gone \
                        after a crash of its machine";
            self.add(Severity::Warning, "CommitsNotDurable", alias, what, "set both to 1");
        }
        if promised && seen.readers_see_unacknowledged == Some(true) {
            let what = "its semi-sync wait point is AFTER_COMMIT: readers see writes that a failover may lose";
            let cure = "set rpl_semi_sync_source_wait_point (MariaDB: rpl_semi_sync_master_wait_point) to AFTER_SYNC";
            self.add(Severity::Warning, "ReadersSeeUnacknowledged", alias, what, cure);
        }
        let skew = seen.clock_ahead_ms.unwrap_or(0);
        if Duration::from_millis(skew.unsigned_abs()) > CLOCK_SKEW_MAX {
            let word = if skew > 0 { "ahead of" } else { "behind" };
            let what = format!("its clock is {} ms {word} this machine's", skew.unsigned_abs());
            self.add(Severity::Warning, "ClockSkew", alias, what, "run a time service on both");
        }
    }

    /// What comes to a tablet from elsewhere, or in spite of `read_only`.
    fn who_else_writes(
        &mut self,
        state: &TabletState,
        status: &ServerStatus,
        seen: &Inspection,
        snapshot: &ShardSnapshot,
    ) {
        let alias = Some(&state.tablet.alias);
        for channel in &status.channels {
            let what = format!(
                "it also pulls from {} (channel {:?}): vtorc leaves that channel alone, and what it brings goes to all \
                 tablets while this one is primary",
                channel.source, channel.channel
            );
            let cure = "where that is not wanted, let it never be promoted: vtorc ctl set promotion ALIAS must_not";
            self.add(Severity::Warning, "OtherChannel", alias, what, cure);
        }
        let who = WhoWritesOn::of(seen);
        if matches!(who, WhoWritesOn::Users(_)) && is_primary(snapshot, state) {
            let what = format!(
                "read_only does not stop {who}, connected now: a planned failover ends such sessions, and is undone if \
                 they come back and write"
            );
            let cure = "take SUPER, READ_ONLY ADMIN and CONNECTION_ADMIN from users that write";
            self.add(Severity::Warning, "WritesPastReadOnly", alias, what, cure);
        }
    }
}

fn promises_anything(snapshot: &ShardSnapshot) -> bool {
    snapshot.durability.as_ref().is_ok_and(|policy| policy.acks_required() > 0)
}

fn managed(snapshot: &ShardSnapshot) -> impl Iterator<Item = &TabletState> {
    snapshot.tablets.values().filter(|state| state.tablet.tablet_type.is_managed())
}
