//! What is wrong with a shard: facts drawn from a snapshot, and the table of rules over them.
//!
//! The shard rules are tried in order and the first that holds is the shard's finding; while it stands, the
//! replica rules wait. Names are those that operators of Vitess and Orchestrator know.

mod evidence;
mod facts;
mod findings;
mod rules;
mod warnings;

pub use evidence::{Age, Count, Evidence, Setting, Sight};
pub use facts::{Facts, ReplicaFacts, errant_gtids, facts, is_to_acknowledge, replica_facts};
pub use findings::{Finding, FindingKind};
pub use rules::{REPLICA_RULES, RULES, ReplicaRule, Rule};
pub use warnings::{Occurrence, WARNINGS, Warning};

use crate::knowledge::snapshot::ShardSnapshot;
use crate::settings::RecoverySettings;

/// Says what is wrong with the shard: at most one finding about the primary, then those of the replicas
/// (only where the primary is in order), then what is shown but never repaired.
pub fn detect(snapshot: &ShardSnapshot, settings: &RecoverySettings) -> Vec<Finding> {
    let facts = facts(snapshot, settings);
    let mut findings = Vec::new();
    let shard_rule = RULES.iter().find(|rule| (rule.holds)(&facts));
    if let Some(rule) = shard_rule {
        let about_primary =
            facts.primary.clone().filter(|_| rule.kind != FindingKind::ClusterHasNoPrimary);
        findings.push(Finding {
            kind: rule.kind,
            tablet: about_primary,
            why: rule.why,
            evidence: facts.evidence.clone(),
        });
    }
    let primary_in_order = shard_rule.is_none_or(|rule| rule.lets_replicas_be_repaired);
    if primary_in_order && facts.primary_valid {
        for replica in &facts.replicas {
            let rules = REPLICA_RULES.iter().filter(|rule| (rule.holds)(replica));
            if let Some(rule) = rules.take(1).next() {
                findings.push(replica_finding(rule.kind, rule.why, replica));
            }
        }
    }
    for warning in WARNINGS {
        findings.extend((warning.find)(snapshot).into_iter().map(|(tablet, evidence)| Finding {
            kind: warning.kind,
            tablet,
            why: warning.why,
            evidence,
        }));
    }
    findings
}

fn replica_finding(kind: FindingKind, why: &'static str, replica: &ReplicaFacts) -> Finding {
    Finding { kind, tablet: Some(replica.alias.clone()), why, evidence: replica.evidence.clone() }
}

/// Tells whether the finding that started a recovery is still there.
///
/// Called under the shard's lock on fresh probes: another vtorc or an operator may have repaired it since.
pub fn still_present(
    finding: &Finding,
    snapshot: &ShardSnapshot,
    settings: &RecoverySettings,
) -> bool {
    detect(snapshot, settings).iter().any(|now| {
        now.tablet == finding.tablet
            && (now.kind == finding.kind || both_dead(now.kind, finding.kind))
    })
}

/// Between two probes a replica may join or leave; the primary is dead either way.
fn both_dead(one: FindingKind, other: FindingKind) -> bool {
    let dead =
        |kind| matches!(kind, FindingKind::DeadPrimary | FindingKind::DeadPrimaryAndSomeReplicas);
    dead(one) && dead(other)
}
