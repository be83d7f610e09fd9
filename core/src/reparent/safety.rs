//! Whether a reparent can lose an acknowledged write, judged by who could be reached.

use std::collections::BTreeSet;

use super::ackers::{StrayAckers, stray_ackers};
use crate::durability::DurabilityPolicy;
use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::sabotage::{self, Bug};
use crate::status::ServerStatus;
use crate::tablet::{Tablet, TabletType};
use crate::topology::{Place, UnreadRecord};

/// Why a reparent is refused: something acknowledged might be lost, or might still be being acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// The policy proves nothing, so every tablet but the old primary must be reached.
    #[error("with durability policy none nothing can be proven safe while {} cannot be reached; bring it back, or delete its record if it is gone for good", list(.missing))]
    NothingProven {
        /// Who must come back.
        missing: Vec<TabletAlias>,
    },
    /// A tablet that cannot be reached could still get its writes acknowledged by others like it.
    #[error("{writer} could still get {required} acknowledgement(s) from {} which cannot be reached either; bring one of these back, or delete their records if they are gone for good", list_both(.missing, .places))]
    AcksOutOfSight {
        /// Who could be accepting writes.
        writer: TabletAlias,
        /// How many acknowledgements it needs.
        required: u32,
        /// Who could be giving them.
        missing: Vec<TabletAlias>,
        /// Where somebody may be who could, and whom nobody here has ever read.
        places: Vec<Place>,
    },
    /// A primary lost the end of its binary log: what it promised, only those have who acknowledged it.
    #[error("{writer} lost what it wrote last, and {}, which cannot be reached, may have it; bring one of these back, or delete their records if they are gone for good", list(.missing))]
    ForgottenOutOfSight {
        /// Who lost it.
        writer: TabletAlias,
        /// Who could have acknowledged it.
        missing: Vec<TabletAlias>,
    },
    /// A tablet that cannot be reached has what the primary lacks, by its own last word.
    #[error(
        "{holder}, which cannot be reached, has transactions that {primary} lacks and that may have been acknowledged; bring it back, or delete its record if it is gone for good"
    )]
    AheadOutOfSight {
        /// Who has them.
        holder: TabletAlias,
        /// Who is to take writes again.
        primary: TabletAlias,
    },
    /// The records' primary is a replica that has not applied all that it received: whoever promoted it would have
    /// waited.
    #[error(
        "{primary} received {} as a replica and has not applied it: it was never promoted, or by somebody who did not wait; correct the records, or let it apply",
        .unapplied.shown()
    )]
    NotApplied {
        /// Who is to take writes again.
        primary: TabletAlias,
        /// What it would lose.
        unapplied: Box<GtidSet>,
    },
    /// Somebody receives from a server that could be primary and does not answer here.
    #[error(
        "{follower} receives from a server that does not answer here and may take writes; bring that back, or correct the records"
    )]
    FollowedElsewhere {
        /// Who receives.
        follower: TabletAlias,
    },
    /// The records' primary is a replica that throws some of what it receives away.
    #[error(
        "{0} follows somebody and has replication filters: as a replica it did not get everything; correct the records, or ask for an emergency reparent"
    )]
    Filtered(TabletAlias),
    /// The shard's record names a tablet of which nothing was ever read here.
    #[error(
        "the shard's record names {0}, whose own record could never be read here: it may be the primary and take writes; make it readable; if its cell is gone for good, give that another place (vtorc topo update-cell)"
    )]
    NamedUnread(TabletAlias),
    /// The shard's own record cannot be read, and who is primary cannot be told from the tablets' records alone.
    #[error("the record of the shard cannot be read, {}; write it anew, or put back what was there", .0)]
    RecordUnread(WhyUnsure),
    /// There was a primary that the topology no longer knows; any tablet could be following it.
    #[error("no tablet's record says that it is primary, so all tablets must be reached and refuse writes; missing: {}", list_both(.missing, .places))]
    PrimaryUnknown {
        /// Who must come back.
        missing: Vec<TabletAlias>,
        /// Where somebody may be whom nobody here has ever read.
        places: Vec<Place>,
    },
}

/// Why the tablets' records alone do not tell who is primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyUnsure {
    /// It may forbid what is to be done.
    #[error(
        "nor was it ever since vtorc was started: whom it names and what it forbids is not known"
    )]
    NeverRead,
    /// Somebody may be primary whose own record says so, and is not read either.
    #[error("nor can those of all tablets: one of them may have become primary since")]
    TabletsUnread,
}

/// Who of a shard was reached, and who could hold or acknowledge its writes.
#[derive(Clone, Debug)]
pub struct Reach<'a> {
    policy: DurabilityPolicy,
    tablets: Vec<&'a Tablet>,
    reached: &'a BTreeSet<TabletAlias>,
    strays: StrayAckers,
}

/// Checks that the tablet that the shard's record names is known: whoever is opened, promoted or recorded beside one
/// that nobody here has read may be the second primary. Where the shard's own record cannot be read, it is what it was
/// as long as all tablets' records are read: a promotion writes these first.
pub fn check_named(snapshot: &ShardSnapshot) -> Result<(), Unsafe> {
    match snapshot.unread_record {
        Some(UnreadRecord::Never) => return Err(Unsafe::RecordUnread(WhyUnsure::NeverRead)),
        Some(UnreadRecord::Doubtful) => {
            return Err(Unsafe::RecordUnread(WhyUnsure::TabletsUnread));
        }
        Some(UnreadRecord::AsBefore) | None => {}
    }
    match snapshot.named_unread() {
        Some(named) => Err(Unsafe::NamedUnread(named.clone())),
        None => Ok(()),
    }
}

impl<'a> Reach<'a> {
    /// Of the shard's tablets, these were reached.
    pub fn of(
        snapshot: &'a ShardSnapshot,
        policy: DurabilityPolicy,
        reached: &'a BTreeSet<TabletAlias>,
    ) -> Self {
        let tablets = snapshot.tablets.values().map(|state| &state.tablet).collect();
        Self { policy, tablets, reached, strays: stray_ackers(snapshot) }
    }

    /// Checks that, with those reached stopped, no tablet out of sight can acknowledge a write or hold one that
    /// was acknowledged and that nobody reached has.
    ///
    /// The rule of Vitess's emergency reparent: for every tablet that could be accepting writes, fewer of its
    /// ackers are missing than the policy demands acknowledgements. If the old primary alone is missing, all of
    /// its ackers were reached.
    pub fn check_reached(&self, old_primary: Option<&TabletAlias>) -> Result<(), Unsafe> {
        let missing = self.missing();
        let others: Vec<TabletAlias> = missing
            .iter()
            .filter(|tablet| Some(&tablet.alias) != old_primary)
            .map(|tablet| tablet.alias.clone())
            .collect();
        // Whoever was primary may be followed by anybody, also by somebody whom nobody here has ever read.
        let promised = self.policy.acks_required() > 0;
        let places: Vec<Place> = self.strays.places.iter().filter(|_| promised).cloned().collect();
        if old_primary.is_none() && !(others.is_empty() && places.is_empty()) {
            return Err(Unsafe::PrimaryUnknown { missing: others, places });
        }
        if !others.is_empty() && self.policy.acks_required() == 0 {
            return Err(Unsafe::NothingProven { missing: others });
        }
        self.check_incumbent()
    }

    /// Checks that what `writer` lost and had promised can be had from those in sight: its own word does not count
    /// any more, so fewer of its ackers may be missing than a promise took.
    pub fn check_forgotten(&self, writer: &Tablet) -> Result<(), Unsafe> {
        let required = self.policy.acks_required() as usize;
        let missing = self.ackers_among(writer, &self.missing());
        match required > 0 && missing.len() >= required {
            true => Err(Unsafe::ForgottenOutOfSight { writer: writer.alias.clone(), missing }),
            false => Ok(()),
        }
    }

    /// Checks that no tablet out of sight can have been made primary, and have had writes acknowledged, without
    /// anybody in sight knowing: only then may the primary that the records name take writes again.
    ///
    /// Where the policy demands no acknowledgements nothing was promised, and those in sight must do.
    pub fn check_incumbent(&self) -> Result<(), Unsafe> {
        let required = self.policy.acks_required();
        if required == 0 {
            return Ok(());
        }
        let missing = self.missing();
        for writer in missing.iter().filter(|tablet| tablet.tablet_type.is_promotable()) {
            let ackers = self.ackers_among(writer, &missing);
            let places = self.places_of_ackers(writer);
            if ackers.len() + places.len() >= required as usize {
                return Err(Unsafe::AcksOutOfSight {
                    writer: writer.alias.clone(),
                    required,
                    missing: ackers,
                    places,
                });
            }
        }
        Ok(())
    }

    /// Tells whether everybody was reached who could hold a write of the shard.
    pub fn is_complete(&self) -> bool {
        self.missing().is_empty() && self.strays.places.is_empty()
    }

    /// Tells whether a tablet may have acknowledged what `writer` wrote.
    pub fn may_acknowledge(&self, writer: &Tablet, tablet: &Tablet) -> bool {
        let stray = self.strays.tablets.contains(&tablet.alias) && tablet.alias != writer.alias;
        self.policy.is_acker(writer, tablet) || stray
    }

    /// Those of the shard who may have acknowledged what `writer` wrote.
    pub fn ackers_of(&self, writer: &Tablet) -> BTreeSet<TabletAlias> {
        self.ackers_among(writer, &self.tablets).into_iter().collect()
    }

    /// Those out of reach who could be primary, or hold what was acknowledged: nobody else is waited for.
    fn missing(&self) -> Vec<&'a Tablet> {
        let writers = || self.tablets.iter().filter(|one| one.tablet_type.is_promotable());
        let counts = |tablet: &&&Tablet| {
            let acknowledges = || writers().any(|writer| self.may_acknowledge(writer, tablet));
            let all = sabotage::has(Bug::WaitForUnseen) && tablet.tablet_type.is_managed();
            tablet.tablet_type.is_promotable() || acknowledges() || all
        };
        let counted = self.tablets.iter().filter(counts);
        counted.filter(|tablet| !self.reached.contains(&tablet.alias)).copied().collect()
    }

    /// Who of these acknowledges what `writer` writes, or may.
    fn ackers_among(&self, writer: &Tablet, tablets: &[&Tablet]) -> Vec<TabletAlias> {
        let ackers = tablets.iter().filter(|tablet| self.may_acknowledge(writer, tablet));
        ackers.map(|tablet| tablet.alias.clone()).collect()
    }

    /// Where an acker of `writer` may be that nobody here has ever read.
    fn places_of_ackers(&self, writer: &Tablet) -> Vec<Place> {
        let may_be = |place: &&Place| {
            let alias = TabletAlias { cell: place.cell().to_owned(), uid: 0 };
            let tablet_type = TabletType::Replica;
            self.policy.is_acker(writer, &Tablet { alias, tablet_type, ..writer.clone() })
        };
        self.strays.places.iter().filter(may_be).cloned().collect()
    }
}

fn list<T: std::fmt::Display>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Tablets, and places where there may be some.
fn list_both(tablets: &[TabletAlias], places: &[Place]) -> String {
    let places = places.iter().map(|place| format!("{place} (never read)"));
    tablets.iter().map(ToString::to_string).chain(places).collect::<Vec<_>>().join(", ")
}

/// Tells whether a primary that lives and was not demoted acknowledges nothing by itself, as far as it ever said: only
/// then does taking its ackers away stop it.
pub fn cannot_acknowledge_alone(policy: DurabilityPolicy, last: Option<&ServerStatus>) -> bool {
    let required = policy.acks_required();
    let waits = |status: &ServerStatus| {
        status.semi_sync.source_enabled && status.semi_sync.wait_count >= required
    };
    required > 0 && last.is_some_and(waits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tablet::TabletType;
    use crate::testkit;

    fn reach<'a>(policy: &str, all: &'a [Tablet], reached: &'a BTreeSet<TabletAlias>) -> Reach<'a> {
        let (policy, tablets) = (policy.parse().unwrap(), all.iter().collect());
        Reach { policy, tablets, reached, strays: StrayAckers::default() }
    }

    /// `P1` is a primary in zone1, `r2` a replica in zone2, `d1` an rdonly in zone1; `!` marks the missing.
    fn read(tablets: &str) -> (Vec<Tablet>, BTreeSet<TabletAlias>, Option<TabletAlias>) {
        let mut all = Vec::new();
        let mut reached = BTreeSet::new();
        let mut primary = None;
        for (at, word) in tablets.split_whitespace().enumerate() {
            let missing = word.starts_with('!');
            let mut letters = word.trim_start_matches('!').chars();
            let tablet_type = match letters.next().unwrap() {
                'P' => TabletType::Primary,
                'r' => TabletType::Replica,
                'd' => TabletType::Rdonly,
                'b' => TabletType::Backup,
                other => panic!("{other}"),
            };
            let alias =
                TabletAlias { cell: format!("zone{}", letters.as_str()), uid: at as u32 + 1 };
            if !missing {
                reached.insert(alias.clone());
            }
            if tablet_type == TabletType::Primary {
                primary = Some(alias.clone());
            }
            all.push(testkit::tablet(alias, tablet_type));
        }
        (all, reached, primary)
    }

    fn check(policy: &str, tablets: &str) -> String {
        let (all, reached, primary) = read(tablets);
        match reach(policy, &all, &reached).check_reached(primary.as_ref()) {
            Ok(()) => "safe".into(),
            Err(Unsafe::NothingProven { .. }) => "nothing proven".into(),
            Err(Unsafe::AcksOutOfSight { writer, .. }) => format!("acks for {writer}"),
            Err(Unsafe::ForgottenOutOfSight { .. }) => "forgotten".into(),
            Err(Unsafe::PrimaryUnknown { .. }) => "primary unknown".into(),
            Err(Unsafe::AheadOutOfSight { .. }) => "ahead out of sight".into(),
            Err(Unsafe::NotApplied { .. }) => "not applied".into(),
            Err(Unsafe::Filtered(_)) => "filtered".into(),
            Err(Unsafe::FollowedElsewhere { .. }) => "followed elsewhere".into(),
            Err(Unsafe::NamedUnread(_)) => "named unread".into(),
            Err(Unsafe::RecordUnread(_)) => "record unread".into(),
        }
    }

    #[test]
    fn who_may_be_missing_where_the_primary_lost_what_it_promised() {
        for (policy, tablets, safe) in [
            ("none", "P1 r1 !r1", true),
            ("semi_sync", "P1 r1 r1", true),
            ("semi_sync", "P1 r1 !r1", false),
            ("semi_sync", "P1 r1 !d1", true),
            ("semi_sync_with_rdonly_ack", "P1 r1 !d1", false),
            ("cross_cell", "P1 !r1 r2", true),
            ("cross_cell", "P1 r1 !r2", false),
        ] {
            let (all, reached, primary) = read(tablets);
            let writer = all.iter().find(|one| Some(&one.alias) == primary.as_ref()).unwrap();
            let checked = reach(policy, &all, &reached).check_forgotten(writer);
            assert_eq!(checked.is_ok(), safe, "{policy}: {tablets}: {checked:?}");
        }
    }

    #[test]
    fn who_may_be_missing() {
        let table = [
            ("none", "!P1 r1 r1", "safe"),
            ("none", "!P1 !r1 r1", "nothing proven"),
            ("none", "!P1 r1 !b1", "safe"),
            ("none", "!P1 r1 !d1", "safe"),
            ("semi_sync", "!P1 r1 r1", "safe"),
            ("semi_sync", "!P1 !r1 r1", "acks for zone1-0000000001"),
            ("semi_sync", "!P1 r1 r1 !d1", "safe"),
            ("semi_sync_with_rdonly_ack", "!P1 r1 r1 !d1", "acks for zone1-0000000001"),
            ("cross_cell", "!P1 !r1 r2", "safe"),
            ("cross_cell", "!P1 r1 !r2", "acks for zone1-0000000001"),
            ("cross_cell", "!P1 r1 r2 !d2", "safe"),
            ("cross_cell_with_rdonly_ack", "!P1 r1 r2 !d2", "acks for zone1-0000000001"),
            ("cross_cell_with_rdonly_ack", "!P1 r2 !d1", "safe"),
            ("semi_sync", "r1 r1 !r1", "primary unknown"),
            ("semi_sync", "r1 r1 !d1", "safe"),
            ("semi_sync_with_rdonly_ack", "r1 r1 !d1", "primary unknown"),
            ("semi_sync", "r1 r1 r1", "safe"),
        ];
        for (policy, tablets, expected) in table {
            assert_eq!(check(policy, tablets), expected, "{policy}: {tablets}");
        }
    }
}
