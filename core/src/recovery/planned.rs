//! Moving writes away from a primary that helps: who takes over, and what is done where it does not step down.

use crate::analysis::Finding;
use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::knowledge::health::ProbeFailure;
use crate::knowledge::observe::TabletState;
use crate::ports::CommandError;
use crate::preflight::WhoWritesOn;
use crate::recovery::request::ReparentRequest;
use crate::remedy;
use crate::reparent::choice::Basis;
use crate::reparent::election::{Constraints, Contender, Election, NoCandidate};
use crate::reparent::safety::{self, Unsafe};
use crate::reparent::successor;
use crate::status::{Flavor, ServerStatus};
use crate::tablet::Tablet;

/// Who asks for a planned reparent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Somebody: nothing presses.
    Somebody,
    /// vtorc itself, since the primary is too busy to serve.
    Vtorc,
}

/// What is to be done for a planned reparent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The tablet that was asked for is primary already, or the one to be avoided is not.
    NotNeeded,
    /// From this primary to the first of those who were chosen.
    From(Box<Tablet>, Election),
}

/// Why nothing is moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMoved {
    /// Nobody has the writes.
    #[error("the shard has no primary; it will be elected")]
    NoPrimary,
    /// The primary cannot help.
    #[error("{0} does not answer; use an emergency reparent")]
    PrimarySilent(TabletAlias),
    /// The records' primary does not serve, or another server may.
    #[error("{0}: {why}; that goes first", why = .0.why)]
    GoesFirst(Box<Finding>),
    /// Another tablet may be the primary.
    #[error(transparent)]
    Unsafe(#[from] Unsafe),
    /// The one that was asked for cannot be asked whether it is fit.
    #[error("{0} does not answer")]
    WantedSilent(TabletAlias),
    /// Nobody can take over.
    #[error(transparent)]
    NoCandidate(#[from] NoCandidate),
}

/// The records' primary, where it answers and serves, and nobody else may.
pub fn in_charge(basis: Basis<'_>) -> Result<(&TabletState, &ServerStatus), NotMoved> {
    let Basis { snapshot, settings, .. } = basis;
    let primary = snapshot.primary().ok_or(NotMoved::NoPrimary)?;
    let silent = || NotMoved::PrimarySilent(primary.tablet.alias.clone());
    let status = primary.valid_status().ok_or_else(silent)?;
    if let Some(finding) = remedy::not_in_charge(snapshot, settings) {
        return Err(NotMoved::GoesFirst(Box::new(finding)));
    }
    safety::check_named(snapshot)?;
    Ok((primary, status))
}

/// Says who takes over.
pub fn plan(basis: Basis<'_>, request: &ReparentRequest) -> Result<Move, NotMoved> {
    let Basis { snapshot, policy, settings, .. } = basis;
    let (primary, status) = in_charge(basis)?;
    let alias = &primary.tablet.alias;
    let (wanted, avoid) = (request.new_primary.as_ref(), request.avoid_primary.as_ref());
    let leaves_as_is = wanted.is_none() && avoid.is_some_and(|avoided| avoided != alias);
    if wanted == Some(alias) || leaves_as_is {
        return Ok(Move::NotNeeded);
    }
    if let Some(wanted) = wanted.filter(|wanted| !snapshot.answers(wanted)) {
        return Err(NotMoved::WantedSilent(wanted.clone()));
    }
    let mut replicas = Contender::of(snapshot);
    replicas.retain(|one| one.tablet.tablet_type.is_managed() && one.tablet.alias != *alias);
    let constraints = Constraints {
        old_primary: Some(alias),
        wanted,
        avoid,
        last_known: Some(status),
        ..Constraints::plain(policy, settings, &snapshot.unread_tablets)
    };
    let current = Contender::new(&primary.tablet, status.clone(), snapshot);
    let election = successor::choose_successor(&current, &replicas, &constraints)?;
    Ok(Move::From(Box::new(primary.tablet.clone()), election))
}

/// So many looks in a row without an answer are silence.
const SILENT_AFTER: u32 = 2;

/// Whether a primary is silent, while a candidate still catches up with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence(u32);

impl Silence {
    /// Takes in what came of a look at it: nothing, or why there was no answer. Answers why it counts as silent, once
    /// it does. One that turns us away answers.
    pub fn hear(&mut self, error: Option<CommandError>) -> Option<CommandError> {
        match error {
            None | Some(CommandError::NotDone(_)) => self.0 = 0,
            Some(CommandError::Unreached(
                ProbeFailure::TurnedAway(_) | ProbeFailure::Full(_) | ProbeFailure::Blocked(_),
            )) => self.0 = 0,
            Some(CommandError::Unreached(_) | CommandError::Unknown(_)) => self.0 += 1,
        }
        error.filter(|_| self.0 >= SILENT_AFTER)
    }
}

/// Users whom `read_only` does not stop may go on writing. So often their sessions are ended, and the primary's last
/// position is read anew.
pub const LAST_POSITIONS: usize = 3;

/// Nobody but replication writes to a MySQL with `super_read_only`: its last position needs no second look. (For
/// MariaDB, which has none, that repeats `read_only`.)
pub fn nobody_writes_on(last: &ServerStatus) -> bool {
    last.flavor == Flavor::MySql && last.super_read_only
}

/// What a primary that refuses writes has written since it was asked last. (What it pulls from elsewhere does not
/// count.)
pub fn wrote_on(last: &ServerStatus, now: &ServerStatus) -> GtidSet {
    now.written_by_itself().subtract(&last.written_by_itself())
}

/// Why writes are not moved from a primary that does not stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{primary} refuses writes and wrote {} all the same: read_only does not stop {who}; take SUPER, READ_ONLY ADMIN and CONNECTION_ADMIN from users that write",
    .written.shown()
)]
pub struct WritesOn {
    /// The primary.
    pub primary: TabletAlias,
    /// What it wrote last.
    pub written: Box<GtidSet>,
    /// Who does that.
    pub who: WhoWritesOn,
}

/// Whether a primary that lives and did not step down may be replaced by force. Without acknowledgements nothing
/// could stop it from taking writes meanwhile.
pub fn may_use_force(basis: Basis<'_>) -> bool {
    let last = basis.snapshot.primary().and_then(|state| state.status.as_deref());
    safety::cannot_acknowledge_alone(basis.policy, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_is_silent_after_two_looks_in_a_row() {
        let gone = || Some(CommandError::Unreached(ProbeFailure::Refused("refused".into())));
        let full = || Some(CommandError::Unreached(ProbeFailure::Full("1040".into())));
        let mut silence = Silence::default();
        for (error, silent) in [
            (gone(), false),
            (None, false),
            (gone(), false),
            (full(), false),
            (gone(), false),
            (Some(CommandError::Unknown("no answer in time".into())), true),
        ] {
            assert_eq!(silence.hear(error.clone()).is_some(), silent, "{error:?}");
        }
    }
}
