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
    pub seen: SeenPrimary,
}

/// With the old primary's help or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReparentKind {
    /// The old primary stops taking writes first.
    Planned,
    /// The old primary is gone or given up.
    Emergency,
}

/// Who was primary when somebody asked for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenPrimary {
    /// Nobody looked yet.
    NotLooked,
    /// No record named one.
    Nobody,
    /// This one.
    This(TabletAlias),
}

/// Another tablet became primary since somebody asked for another one than the primary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} became primary since this was asked for; ask again if it is to be replaced")]
pub struct ReplacedSince(TabletAlias);

impl Request {
    /// The same, meant for the shard as whoever asks sees it.
    pub fn seen_at(self, snapshot: &ShardSnapshot) -> Self {
        match self {
            Self::Reparent(request) if request.seen == SeenPrimary::NotLooked => {
                let primary = snapshot.primary().map(|state| state.tablet.alias.clone());
                let seen = primary.map_or(SeenPrimary::Nobody, SeenPrimary::This);
                Self::Reparent(ReparentRequest { seen, ..request })
            }
            other @ (Self::Reparent(_) | Self::CureErrant(_) | Self::Forget(_)) => other,
        }
    }
}

impl ReparentRequest {
    /// Whoever names nobody wants another primary than the one that was there, and not yet another one after that.
    pub fn check_still_meant(&self, snapshot: &ShardSnapshot) -> Result<(), ReplacedSince> {
        let now = snapshot.primary().map(|state| &state.tablet.alias);
        let named = self.new_primary.is_some() || self.avoid_primary.as_ref() == now;
        match (&self.seen, now) {
            (SeenPrimary::This(asked), Some(now)) if !named && asked != now => {
                Err(ReplacedSince(now.clone()))
            }
            (SeenPrimary::Nobody, Some(now)) if !named => Err(ReplacedSince(now.clone())),
            (SeenPrimary::This(_) | SeenPrimary::Nobody | SeenPrimary::NotLooked, _) => Ok(()),
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
            seen: SeenPrimary::NotLooked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tablet::TabletType;
    use crate::testkit;
    use crate::time::Timestamp;

    /// A shard whose records call this one the primary, or nobody.
    fn shard(primary: Option<&str>) -> ShardSnapshot {
        let mut topology =
            testkit::shard(&["zone1-1", "zone1-2", "zone1-3"].map(|one| one.parse().unwrap()));
        for tablet in topology.tablets.values_mut() {
            let is_primary = primary.is_some_and(|alias| alias.parse() == Ok(tablet.alias.clone()));
            tablet.tablet_type = if is_primary { TabletType::Primary } else { TabletType::Replica };
        }
        ShardSnapshot::unprobed(&topology, Timestamp::default())
    }

    /// Primary when it was asked, primary now, named new one, named old one, and whether it is still meant.
    #[test]
    fn whoever_names_nobody_wants_the_place_of_the_primary_that_was_there() {
        for (then, now, new, avoid, meant) in [
            (Some("zone1-1"), Some("zone1-1"), None, None, true),
            (Some("zone1-1"), Some("zone1-2"), None, None, false),
            (Some("zone1-1"), Some("zone1-2"), Some("zone1-3"), None, true),
            (Some("zone1-1"), Some("zone1-2"), None, Some("zone1-2"), true),
            (Some("zone1-1"), Some("zone1-2"), None, Some("zone1-1"), false),
            (None, Some("zone1-1"), None, None, false),
            (None, None, None, None, true),
        ] {
            let alias = |name: Option<&str>| name.map(|name| name.parse().unwrap());
            let request = ReparentRequest {
                new_primary: alias(new),
                avoid_primary: alias(avoid),
                ..ReparentRequest::away_from_primary(ReparentKind::Planned, &shard(None))
            };
            let Request::Reparent(seen) = Request::Reparent(request).seen_at(&shard(then)) else {
                panic!("it is another request")
            };
            // At its turn it is not bound anew.
            let Request::Reparent(seen) = Request::Reparent(seen).seen_at(&shard(now)) else {
                panic!("it is another request")
            };
            let found = seen.check_still_meant(&shard(now)).is_ok();
            assert_eq!(found, meant, "{then:?} {now:?} {new:?} {avoid:?}");
        }
    }
}
