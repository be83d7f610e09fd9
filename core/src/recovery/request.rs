//! What somebody asks for over HTTP, from the command line or in vtorc's own name.

use crate::ids::TabletAlias;
use crate::knowledge::snapshot::ShardSnapshot;

/// Something that somebody asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Another primary.
    Reparent(ReparentRequest),
    /// An end to a tablet's errant GTIDs.
    CureErrant(CureErrantRequest),
    /// No more waiting for a tablet that is gone for good.
    Forget(ForgetRequest),
}

/// A tablet that is gone for good.
#[derive(Clone, Debug)]
pub struct ForgetRequest {
    /// Which tablet.
    pub tablet: TabletAlias,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub by: String,
}

/// What is to become of a tablet that has transactions which the primary lacks.
#[derive(Clone, Debug)]
pub struct CureErrantRequest {
    /// Which tablet.
    pub tablet: TabletAlias,
    /// How.
    pub cure: ErrantCure,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub by: String,
}

/// What can be done about errant GTIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrantCure {
    /// Take the tablet out of service, for somebody to look at it.
    Drain,
    /// Commit empty transactions with the same GTIDs on the primary: the tablet stays as it is.
    Inject,
}

/// A reparent that somebody asks for.
#[derive(Clone, Debug)]
pub struct ReparentRequest {
    /// Planned or emergency.
    pub kind: ReparentKind,
    /// Who shall be primary.
    pub new_primary: Option<TabletAlias>,
    /// Who shall not.
    pub avoid_primary: Option<TabletAlias>,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub by: String,
    /// Also within the block period.
    pub ignore_block: bool,
    /// Whom whoever asked saw as the primary: it is that one's place that is to be taken.
    pub instead_of: Option<TabletAlias>,
}

/// With the old primary's help or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReparentKind {
    /// The old primary stops taking writes first.
    Planned,
    /// The old primary is gone or given up.
    Emergency,
}

/// Another tablet became primary since somebody asked for another one than the primary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{now} became primary in the place of {asked} since this was asked for; ask again if {now} is to be replaced"
)]
pub struct ReplacedSince {
    asked: TabletAlias,
    now: TabletAlias,
}

impl Request {
    /// The same, meant for the shard as whoever asks sees it.
    pub fn seen_at(self, snapshot: &ShardSnapshot) -> Self {
        match self {
            Self::Reparent(request) if request.instead_of.is_none() => {
                let instead_of = snapshot.primary().map(|state| state.tablet.alias.clone());
                Self::Reparent(ReparentRequest { instead_of, ..request })
            }
            other @ (Self::Reparent(_) | Self::CureErrant(_) | Self::Forget(_)) => other,
        }
    }
}

impl ReparentRequest {
    /// Whoever names nobody wants another primary than the one that was there, and not yet another one after that.
    pub fn check_still_meant(&self, snapshot: &ShardSnapshot) -> Result<(), ReplacedSince> {
        let now = snapshot.primary().map(|state| &state.tablet.alias);
        match (&self.instead_of, now) {
            (Some(asked), Some(now)) if self.new_primary.is_none() && asked != now => {
                Err(ReplacedSince { asked: asked.clone(), now: now.clone() })
            }
            (_, _) => Ok(()),
        }
    }

    /// What vtorc itself asks for where the primary lives and must not be chosen again.
    pub fn away_from_primary(kind: ReparentKind, snapshot: &ShardSnapshot) -> Self {
        Self {
            kind,
            new_primary: None,
            avoid_primary: snapshot.primary().map(|state| state.tablet.alias.clone()),
            reason: String::new(),
            by: "vtorc".into(),
            ignore_block: false,
            instead_of: None,
        }
    }
}
