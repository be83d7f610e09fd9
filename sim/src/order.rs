//! What order is, once faults have stopped; and what is checked at the end of a run.

use vtorc_core::admission::Block;
use vtorc_core::audit::{Outcome, RecoveryRecord, Trigger};
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::tablet::{Tablet, TabletType};

use crate::Millis;
use crate::gtids::Txn;
use crate::policies;
use crate::server::{Receiver, Server};
use crate::universe::Universe;

impl Universe {
    /// Takes every fault back.
    pub fn heal_all(&mut self) {
        let now = self.now;
        self.books.iter_mut().for_each(|books| books.trouble(now));
        self.network.heal();
        self.forget_strikes();
        self.topology.down = false;
        self.topology.unread_cells.clear();
        self.topology.down_cells.clear();
        self.topology.damaged.clear();
        self.topology.shards.iter_mut().for_each(|records| records.damaged = false);
        self.paused.clear();
        self.strangers.clear();
        self.topology.watch_delay_ms = 0;
        self.topology.conflicts = 0;
        self.topology.version += 1;
        for number in 0..self.count() {
            let server = self.server_mut(number);
            server.frozen = false;
            server.stalled = false;
            server.saturated = false;
            server.applier_sleeps_until = 0;
            server.ills.mend();
            if server.is_only_down() {
                server.restart(now);
            }
        }
    }

    /// What is not as it should be in a shard: exactly one primary, all others follow it, semi-sync as the policy
    /// wants.
    pub fn disorder(&self, shard: usize) -> Option<String> {
        let records = self.topology.shards.get(shard)?;
        let primaries: Vec<_> = self
            .topology
            .tablets_of(&records.name)
            .filter(|tablet| tablet.tablet_type == TabletType::Primary)
            .collect();
        let [primary] = primaries.as_slice() else {
            return Some(format!("{} tablets of {} are PRIMARY", primaries.len(), records.name));
        };
        if records.record.primary_alias.as_ref() != Some(&primary.alias) {
            return Some(format!("the record of {} names another primary", records.name));
        }
        let Some(server) = self.server_of(&primary.alias) else {
            return Some(format!("{} has no server", primary.alias));
        };
        if server.read_only || !server.is_awake() || server.source.is_some() {
            return Some(format!("s{} is primary and does not serve", server.number));
        }
        // With too many out of service it is named instead: one that waited would stand still, one that does not gets
        // what it acknowledges nowhere.
        let in_service = self.topology.tablets_of(&records.name);
        let absent =
            |one: &&Tablet| self.server_of(&one.alias).is_some_and(|server| server.ills.never_up);
        let ackers = in_service
            .filter(|one| one.tablet_type.is_managed() && !absent(one))
            .filter(|one| policies::is_acker(records.policy, primary, one))
            .filter(|one| self.server_of(&one.alias).is_none_or(|server| !server.ills.filtered));
        let required = policies::acks_required(records.policy);
        let possible = ackers.count() >= required as usize;
        if possible && server.waits_for_acks != (required > 0) {
            return Some(format!("s{} waits for acks: {}", server.number, server.waits_for_acks));
        }
        let others = self.others(server.number);
        others.into_iter().find_map(|other| self.replica_disorder(self.server(other), server))
    }

    /// The primary has all that was promised, and nobody has anything that it lacks.
    pub fn has_one_history(&self, shard: usize) -> bool {
        let Some(ledger) = self.books.get(shard) else { return false };
        let Some(primary) = ledger.reigning().map(|primary| self.server(primary)) else {
            return false;
        };
        let known = |txn: &Txn| primary.has_received(*txn);
        let mut others = self.others(primary.number).map(|other| self.server(other));
        ledger.promised.iter().all(known)
            && others.all(|other| other.binlog.iter().chain(&other.relay).all(known))
    }

    fn replica_disorder(&self, replica: &Server, primary: &Server) -> Option<String> {
        let number = replica.number;
        let tablet = self.topology.tablets.get(&replica.alias)?;
        // Whoever restores a server writes to it.
        let restored = tablet.tablet_type == TabletType::Restore;
        if !replica.read_only && replica.is_awake() && !restored {
            return Some(format!("s{number} takes writes and is no primary"));
        }
        if !tablet.tablet_type.is_managed() || replica.ills.never_up {
            return None;
        }
        if replica.source != Some(primary.number) {
            return Some(format!("s{number} follows {:?}", replica.source));
        }
        if primary.not_logged().any(|txn| !replica.has_received(txn)) {
            // Only a person can help: it must be cloned anew, and vtorc says so.
            return None;
        }
        if !matches!(replica.receiver, Receiver::Running { .. }) || !replica.applier_running {
            return Some(format!("s{number} does not replicate: {:?}", replica.receiver_error));
        }
        let primary_tablet = self.topology.tablets.get(&primary.alias)?;
        // One that does not apply everything must not promise that it has it.
        let policy = self.records_of(number).policy;
        let may = |one: &Server| {
            let tablet = self.topology.tablets.get(&one.alias);
            tablet.is_some_and(|tablet| {
                tablet.tablet_type.is_managed()
                    && policies::is_acker(policy, primary_tablet, tablet)
                    && !one.ills.filtered
            })
        };
        // One that has what the primary never had could alone get the last writes, and is not to be promoted.
        // Not every vtorc can know that of a MariaDB.
        let errs = |one: &Server| {
            let mut logged = one.binlog.iter().filter(|_| !one.mariadb);
            logged.any(|txn| txn.source != primary.number && !primary.has_received(*txn))
        };
        let others = self.others(number).map(|other| self.server(other));
        let others = others.filter(|other| {
            let receives = matches!(other.receiver, Receiver::Running { .. });
            may(other) && !errs(other) && other.acks && receives
        });
        let spare = others.count() >= policies::acks_required(policy) as usize;
        let wanted = may(replica) && !(errs(replica) && spare);
        (replica.acks != wanted).then(|| format!("s{number} acknowledges: {}", replica.acks))
    }

    /// At the end: everything that was promised is on the primaries.
    pub fn check_survival(&mut self) {
        if !self.violations.is_empty() {
            return;
        }
        let mut lost = Vec::new();
        for (records, ledger) in self.topology.shards.iter().zip(&self.books) {
            let alias = records.record.primary_alias.as_ref();
            let Some(server) = alias.and_then(|alias| self.server_of(alias)) else { continue };
            let missing = ledger.promised.iter().find(|txn| !server.has_applied(**txn));
            lost.extend(missing.map(|txn| (*txn, server.number)));
        }
        for (txn, number) in lost {
            self.violated(format!("{txn:?} was acknowledged, and s{number} lacks it"));
        }
    }

    /// Where nobody could be chosen: everything that was promised is still somewhere.
    pub fn check_nothing_is_gone(&mut self) {
        let kept = |txn| self.servers().iter().any(|server| server.has_data(txn));
        let promised = self.books.iter().flat_map(|ledger| &ledger.promised);
        if let Some(lost) = promised.copied().find(|txn| !kept(*txn)) {
            self.violated(format!("{lost:?} was acknowledged, and nobody has it"));
        }
    }

    /// Within the block period of a reparent no other one was begun by the same vtorc.
    pub fn check_block_period(
        &mut self,
        manager: usize,
        records: &[RecoveryRecord],
        block: Option<&Block>,
        block_ms: Millis,
    ) {
        if let Some(block) = block {
            let cause = records.iter().find(|record| record.id == block.recovery);
            let failed =
                cause.is_some_and(|record| matches!(record.outcome, Some(Outcome::Failed(_))));
            if failed {
                let what = format!("recovery {} failed and blocks the shard", block.recovery);
                self.violated(what);
            }
        }
        let reparents = records.iter().filter(|record| {
            let kinds = [RecoveryKind::EmergencyReparent, RecoveryKind::FinishReparent];
            kinds.contains(&record.kind) && record.trigger == Trigger::Automatic
        });
        let mut blocked_until = 0;
        let mut unfinished = None;
        for record in reparents {
            let began = record.started_at.as_millis();
            let completes = unfinished.is_some() && unfinished == record.finding_tablet;
            if began < blocked_until && !completes && record.kind != RecoveryKind::FinishReparent {
                let what = format!(
                    "m{manager} began recovery {} {} ms too early",
                    record.id,
                    blocked_until - began
                );
                self.violated(what);
            }
            let changed =
                matches!(record.outcome, Some(Outcome::Succeeded(_) | Outcome::Unclear(_)));
            if changed {
                let unclear = matches!(record.outcome, Some(Outcome::Unclear(_)));
                unfinished = record.finding_tablet.clone().filter(|_| unclear);
            }
            if let Some(ended) = record.ended_at.filter(|_| changed) {
                blocked_until = ended.as_millis() + block_ms;
            }
        }
    }
}
