//! Each round of deciding is kept, and said when it is news.

use slog::warn;
use vtorc_core::admission::attempts::Round;
use vtorc_core::admission::inaction::HeldBack;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::remedy::Wanted;
use vtorc_core::sabotage::{self, Bug};

use super::RecoveryActor;

impl RecoveryActor {
    /// Which part of what is wanted may start now, and why the rest may not.
    pub(super) fn decide(&self, wanted: Wanted, snapshot: &ShardSnapshot) -> Round {
        let Some(attempts) = &self.attempts else { return Round::default() };
        let settings = self.services.settings();
        let switches = self.services.switches();
        attempts.decide(wanted, snapshot, &settings.recovery, switches.get(), &self.held)
    }

    /// Keeps why nothing is done; one line of the log a change.
    pub(super) fn hold(&mut self, held: Vec<HeldBack>) {
        let held = if sabotage::has(Bug::KeepSilent) { Vec::new() } else { held };
        let now = self.services.clock.now();
        self.services.board.hold(&self.shard, false, &held, now);
        for one in held.iter().filter(|one| !self.held.contains(one)) {
            let tablet = one.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            warn!(self.log, "not recovering"; "reason" => &one.reason, "finding" => %one.finding,
                "tablet" => tablet);
        }
        let changed = self.held != held;
        self.held = held;
        if changed {
            self.tell_owner(None);
        }
    }
}
