//! What an operator's programs are told.

use crate::analysis::Finding;
use crate::audit::{Outcome, RecoveryRecord, Trigger};
use crate::ids::{KeyspaceShard, RecoveryId, TabletAlias};
use crate::knowledge::snapshot::ShardSnapshot;
use crate::tablet::MysqlAddress;

/// What there is to tell: of a finding, or of a reparent before or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The shard.
    pub shard: KeyspaceShard,
    /// The finding's name, or what was asked for.
    pub failure_type: String,
    /// What the finding rests on, or the reason given.
    pub description: String,
    /// Vitess's or Orchestrator's name of what somebody asked for; empty where vtorc acts by itself.
    pub command: &'static str,
    /// The primary before.
    pub failed: Option<Party>,
    /// The primary after.
    pub successor: Option<Party>,
    /// Where the replicas' servers are.
    pub replicas: Vec<MysqlAddress>,
    /// Those of them that do not answer.
    pub lost_replicas: Vec<MysqlAddress>,
    /// An operator excused the tablet that it is about.
    pub is_downtimed: bool,
    /// vtorc acts by itself.
    pub is_automatic: bool,
    /// It ended, and went well.
    pub is_successful: bool,
    /// Its number; none for a finding.
    pub recovery: Option<RecoveryId>,
}

/// A tablet as the programs are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its alias.
    pub alias: TabletAlias,
    /// Its server.
    pub address: Option<MysqlAddress>,
    /// Its position as last seen.
    pub position: String,
}

impl Occasion {
    /// A finding.
    pub fn detected(snapshot: &ShardSnapshot, finding: &Finding, is_downtimed: bool) -> Self {
        let evidence = finding.evidence_lines().join("; ");
        let failed = snapshot.primary().map(|primary| primary.tablet.alias.clone());
        Self {
            failure_type: finding.kind.to_string(),
            description: format!("{}: {evidence}", finding.why),
            is_downtimed,
            ..Self::about(snapshot, failed.as_ref())
        }
    }

    /// A reparent that begins or has ended.
    pub fn of_reparent(
        snapshot: &ShardSnapshot,
        record: &RecoveryRecord,
        is_planned: bool,
    ) -> Self {
        let primary = snapshot.primary().map(|primary| &primary.tablet.alias);
        let outcome = record.outcome.as_ref();
        let description = match &record.trigger {
            Trigger::Automatic => record.evidence.join("; "),
            Trigger::Requested { by, reason } => format!("asked for by {by}: {reason}"),
        };
        let asked = match (&record.trigger, is_planned) {
            (Trigger::Automatic, _) => "",
            (Trigger::Requested { .. }, true) => "graceful-master-takeover",
            (Trigger::Requested { .. }, false) => "force-master-failover",
        };
        Self {
            failure_type: record
                .finding
                .map_or_else(|| record.kind.to_string(), |finding| finding.to_string()),
            description: match outcome {
                Some(outcome) => format!("{description}; {outcome}"),
                None => description,
            },
            command: asked,
            successor: record.new_primary.as_ref().map(|alias| Party::of(snapshot, alias)),
            is_automatic: record.trigger == Trigger::Automatic,
            is_successful: matches!(outcome, Some(Outcome::Succeeded(_))),
            recovery: Some(record.id),
            ..Self::about(snapshot, record.old_primary.as_ref().or(primary))
        }
    }

    fn about(snapshot: &ShardSnapshot, failed: Option<&TabletAlias>) -> Self {
        let replicas = || {
            let tablets = snapshot.tablets.values();
            tablets.filter(|state| {
                state.tablet.tablet_type.is_managed() && Some(&state.tablet.alias) != failed
            })
        };
        let lost = replicas().filter(|state| state.reachability.is_unreachable());
        Self {
            shard: snapshot.shard.clone(),
            failure_type: String::new(),
            description: String::new(),
            command: "",
            failed: failed.map(|alias| Party::of(snapshot, alias)),
            successor: None,
            replicas: replicas().filter_map(|state| state.tablet.mysql.clone()).collect(),
            lost_replicas: lost.filter_map(|state| state.tablet.mysql.clone()).collect(),
            is_downtimed: false,
            is_automatic: true,
            is_successful: false,
            recovery: None,
        }
    }

    /// Everything there is to tell, under Orchestrator's names: `{placeholder}`, `ORC_VARIABLE`, value.
    pub fn variables(&self, vtorc_host: &str) -> Vec<(&'static str, &'static str, String)> {
        let (failed_host, failed_port) = place(self.failed.as_ref());
        let (successor_host, successor_port) = place(self.successor.as_ref());
        let alias = |party: &Option<Party>| {
            party.as_ref().map(|party| party.alias.to_string()).unwrap_or_default()
        };
        let position = self.successor.as_ref().map(|party| party.position.clone());
        let cluster = self.shard.to_string();
        let recovery = self.recovery.map(|id| id.to_string()).unwrap_or_default();
        vec![
            ("failureType", "ORC_FAILURE_TYPE", self.failure_type.clone()),
            ("instanceType", "ORC_INSTANCE_TYPE", "master".into()),
            ("isMaster", "ORC_IS_MASTER", "true".into()),
            ("isCoMaster", "ORC_IS_CO_MASTER", "false".into()),
            ("failureDescription", "ORC_FAILURE_DESCRIPTION", self.description.clone()),
            ("command", "ORC_COMMAND", self.command.into()),
            ("failedHost", "ORC_FAILED_HOST", failed_host),
            ("failedPort", "ORC_FAILED_PORT", failed_port),
            ("failedAlias", "ORC_FAILED_ALIAS", alias(&self.failed)),
            ("failureCluster", "ORC_FAILURE_CLUSTER", cluster.clone()),
            ("failureClusterAlias", "ORC_FAILURE_CLUSTER_ALIAS", cluster),
            ("failureClusterDomain", "ORC_FAILURE_CLUSTER_DOMAIN", String::new()),
            ("keyspace", "ORC_KEYSPACE", self.shard.keyspace.clone()),
            ("shard", "ORC_SHARD", self.shard.shard.clone()),
            ("countSlaves", "ORC_COUNT_SLAVES", self.replicas.len().to_string()),
            ("countReplicas", "ORC_COUNT_REPLICAS", self.replicas.len().to_string()),
            ("isDowntimed", "ORC_IS_DOWNTIMED", self.is_downtimed.to_string()),
            ("autoMasterRecovery", "ORC_AUTO_MASTER_RECOVERY", self.is_automatic.to_string()),
            (
                "autoIntermediateMasterRecovery",
                "ORC_AUTO_INTERMEDIATE_MASTER_RECOVERY",
                "false".into(),
            ),
            ("orchestratorHost", "ORC_ORCHESTRATOR_HOST", vtorc_host.into()),
            ("recoveryUID", "ORC_RECOVERY_UID", recovery),
            ("isSuccessful", "ORC_IS_SUCCESSFUL", self.is_successful.to_string()),
            ("lostSlaves", "ORC_LOST_SLAVES", listed(&self.lost_replicas)),
            ("lostReplicas", "ORC_LOST_REPLICAS", listed(&self.lost_replicas)),
            ("countLostReplicas", "ORC_COUNT_LOST_REPLICAS", self.lost_replicas.len().to_string()),
            ("slaveHosts", "ORC_SLAVE_HOSTS", listed(&self.replicas)),
            ("replicaHosts", "ORC_REPLICA_HOSTS", listed(&self.replicas)),
            ("successorHost", "ORC_SUCCESSOR_HOST", successor_host),
            ("successorPort", "ORC_SUCCESSOR_PORT", successor_port),
            (
                "successorBinlogCoordinates",
                "ORC_SUCCESSOR_BINLOG_COORDINATES",
                position.unwrap_or_default(),
            ),
            ("successorAlias", "ORC_SUCCESSOR_ALIAS", alias(&self.successor)),
        ]
    }
}

impl Party {
    fn of(snapshot: &ShardSnapshot, alias: &TabletAlias) -> Self {
        let state = snapshot.tablet(alias);
        let status = state.and_then(|state| state.status.as_ref());
        Self {
            alias: alias.clone(),
            address: state.and_then(|state| state.tablet.mysql.clone()),
            position: status.map(|status| status.gtid_executed.to_string()).unwrap_or_default(),
        }
    }
}

fn place(party: Option<&Party>) -> (String, String) {
    let address = party.and_then(|party| party.address.as_ref());
    address.map(|one| (one.host.clone(), one.port.to_string())).unwrap_or_default()
}

fn listed(addresses: &[MysqlAddress]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
