//! What a planned reparent would do.

use std::collections::BTreeMap;

use serde::Serialize;
use vtorc_core::audit::RecoveryRecord;
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::planned::Move;
use vtorc_core::recovery::preview::WouldNot;

use super::name;

/// So many of the shard's earlier moves are told.
const EARLIER: usize = 3;

#[derive(Serialize)]
pub(crate) struct PreviewView {
    /// `moves`, `not_needed` or `refuses`.
    outcome: &'static str,
    /// Who is primary now.
    from: Option<String>,
    /// Who would be.
    new_primary: Option<String>,
    /// Who would be asked next if that one cannot.
    then: Vec<String>,
    /// Why the others would not.
    not: BTreeMap<String, String>,
    why: Option<String>,
    /// For how long the last moves of this shard stopped writes, the newest first.
    earlier_write_outages_ms: Vec<u64>,
}

impl PreviewView {
    pub(crate) fn of(preview: Result<Move, WouldNot>, recoveries: &[RecoveryRecord]) -> Self {
        let moves = recoveries.iter().filter(|one| one.kind == RecoveryKind::PlannedReparent);
        let mut view = Self {
            outcome: "not_needed",
            from: None,
            new_primary: None,
            then: Vec::new(),
            not: BTreeMap::new(),
            why: None,
            earlier_write_outages_ms: moves
                .filter_map(|one| one.write_outage_ms)
                .take(EARLIER)
                .collect(),
        };
        match preview {
            Ok(Move::NotNeeded) => {}
            Ok(Move::From(primary, election)) => {
                view.outcome = "moves";
                view.from = Some(name(&primary.alias));
                let mut candidates = election.candidates.iter().map(|one| name(&one.alias));
                view.new_primary = candidates.next();
                view.then = candidates.collect();
                let passed = election.passed_over.iter();
                view.not = passed.map(|one| (name(&one.alias), one.reason.to_string())).collect();
            }
            Err(why) => {
                view.outcome = "refuses";
                view.why = Some(why.to_string());
            }
        }
        view
    }
}
