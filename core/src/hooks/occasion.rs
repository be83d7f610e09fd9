//! What an operator's programs are told.

use crate::analysis::{Finding, FindingKind};
use crate::audit::{Outcome, RecoveryRecord, Trigger};
use crate::ids::{KeyspaceShard, RecoveryId, TabletAlias};
use crate::knowledge::snapshot::ShardSnapshot;
use crate::recovery::kind::RecoveryKind;
use crate::tablet::MysqlAddress;

/// What there is to tell: of a finding, or of a reparent before or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The shard.
    pub shard: KeyspaceShard,
    /// Why it is done.
    pub cause: Cause,
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

/// What an operator's programs are run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something was found.
    Found(FindingKind),
    /// Somebody asked for it.
    Asked(RecoveryKind),
}

/// Whose names of findings the programs are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureNames {
    /// Those of this program, as everywhere else.
    #[default]
    Own,
    /// Orchestrator's, where it has one.
    Orchestrators,
}

impl Cause {
    /// As it is called everywhere else here.
    pub fn name(self) -> String {
        match self {
            Self::Found(finding) => finding.to_string(),
            Self::Asked(kind) => kind.to_string(),
        }
    }

    /// As Orchestrator calls it, or as here where it knows nothing like it. Whatever somebody asks for is a
    /// `DeadMaster` there; the command tells that (`go/logic/topology_recovery.go`, `forceAnalysisEntry`).
    pub fn orchestrators_name(self) -> String {
        let finding = match self {
            Self::Asked(_) => FindingKind::DeadPrimary,
            Self::Found(finding) => finding,
        };
        let known = ORCHESTRATORS.iter().find(|(kind, _)| *kind == finding);
        known.map_or_else(|| self.name(), |(_, name)| (*name).to_owned())
    }
}

/// What Orchestrator finds as well (`go/inst/analysis.go`).
const ORCHESTRATORS: [(FindingKind, &str); 12] = [
    (FindingKind::DeadPrimary, "DeadMaster"),
    (FindingKind::DeadPrimaryAndSomeReplicas, "DeadMasterAndSomeReplicas"),
    (FindingKind::DeadPrimaryAndReplicas, "DeadMasterAndReplicas"),
    (FindingKind::DeadPrimaryWithoutReplicas, "DeadMasterWithoutReplicas"),
    (FindingKind::UnreachablePrimary, "UnreachableMaster"),
    (FindingKind::UnreachablePrimaryWithLaggingReplicas, "UnreachableMasterWithLaggingReplicas"),
    (FindingKind::LockedSemiSyncPrimary, "LockedSemiSyncMaster"),
    (FindingKind::LockedSemiSyncPrimaryHypothesis, "LockedSemiSyncMasterHypothesis"),
    (FindingKind::PrimarySingleReplicaNotReplicating, "MasterSingleReplicaNotReplicating"),
    (FindingKind::PrimarySingleReplicaDead, "MasterSingleReplicaDead"),
    (FindingKind::AllPrimaryReplicasNotReplicating, "AllMasterReplicasNotReplicating"),
    (FindingKind::AllPrimaryReplicasNotReplicatingOrDead, "AllMasterReplicasNotReplicatingOrDead"),
];

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
            description: format!("{}: {evidence}", finding.why),
            is_downtimed,
            ..Self::about(snapshot, Cause::Found(finding.kind), failed.as_ref())
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
        let cause = record.finding.map_or(Cause::Asked(record.kind), Cause::Found);
        Self {
            description: match outcome {
                Some(outcome) => format!("{description}; {outcome}"),
                None => description,
            },
            command: asked,
            successor: record.new_primary.as_ref().map(|alias| Party::of(snapshot, alias)),
            is_automatic: record.trigger == Trigger::Automatic,
            is_successful: matches!(outcome, Some(Outcome::Succeeded(_))),
            recovery: Some(record.id),
            ..Self::about(snapshot, cause, record.old_primary.as_ref().or(primary))
        }
    }

    fn about(snapshot: &ShardSnapshot, cause: Cause, failed: Option<&TabletAlias>) -> Self {
        let replicas = || {
            let tablets = snapshot.tablets.values();
            tablets.filter(|state| {
                state.tablet.tablet_type.is_managed() && Some(&state.tablet.alias) != failed
            })
        };
        let lost = replicas().filter(|state| state.reachability.is_unreachable());
        Self {
            shard: snapshot.shard.clone(),
            cause,
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

    /// Everything there is to tell, under Orchestrator's names: `{placeholder}`, `ORC_VARIABLE`, value. Whichever names
    /// of findings are wanted, both are told beside that.
    pub fn variables(
        &self,
        vtorc_host: &str,
        names: FailureNames,
    ) -> Vec<(&'static str, &'static str, String)> {
        let (own, orchestrators) = (self.cause.name(), self.cause.orchestrators_name());
        let failure_type = match names {
            FailureNames::Own => own.clone(),
            FailureNames::Orchestrators => orchestrators.clone(),
        };
        let (failed_host, failed_port) = place(self.failed.as_ref());
        let (successor_host, successor_port) = place(self.successor.as_ref());
        let alias = |party: &Option<Party>| {
            party.as_ref().map(|party| party.alias.to_string()).unwrap_or_default()
        };
        let position = self.successor.as_ref().map(|party| party.position.clone());
        let cluster = self.shard.to_string();
        let recovery = self.recovery.map(|id| id.to_string()).unwrap_or_default();
        vec![
            ("failureType", "ORC_FAILURE_TYPE", failure_type),
            ("vtorcFailureType", "VTORC_FAILURE_TYPE", own),
            ("orchestratorFailureType", "ORCHESTRATOR_FAILURE_TYPE", orchestrators),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_test_orchestrators_names_find_them() {
        let found = |kind| Cause::Found(kind).orchestrators_name();
        assert_eq!(found(FindingKind::DeadPrimary), "DeadMaster");
        assert_eq!(found(FindingKind::DeadPrimaryAndSomeReplicas), "DeadMasterAndSomeReplicas");
        assert_eq!(Cause::Asked(RecoveryKind::PlannedReparent).orchestrators_name(), "DeadMaster");
        assert_eq!(found(FindingKind::SplitBrain), "SplitBrain", "Orchestrator has none");
        assert_eq!(Cause::Found(FindingKind::DeadPrimary).name(), "DeadPrimary");
    }
}
