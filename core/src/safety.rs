//! Whether a reparent can lose an acknowledged write, judged by who could be reached.

use std::collections::BTreeSet;

use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::status::ServerStatus;
use crate::tablet::Tablet;

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
    #[error("{writer} could still get {required} acknowledgement(s) from {} which cannot be reached either; bring one of these back, or delete their records if they are gone for good", list(.missing))]
    AcksOutOfSight {
        /// Who could be accepting writes.
        writer: TabletAlias,
        /// How many acknowledgements it needs.
        required: u32,
        /// Who could be giving them.
        missing: Vec<TabletAlias>,
    },
    /// A primary lost the end of its binary log: what it promised, only those have who acknowledged it.
    #[error("{writer} lost what it wrote last, and {}, which cannot be reached, may have it; bring one of these back, or delete their records if they are gone for good", list(.missing))]
    ForgottenOutOfSight {
        /// Who lost it.
        writer: TabletAlias,
        /// Who could have acknowledged it.
        missing: Vec<TabletAlias>,
    },
    /// There was a primary that the topology no longer knows; any tablet could be following it.
    #[error("the primary's record is gone, so all tablets must be reached; missing: {}", list(.missing))]
    PrimaryUnknown {
        /// Who must come back.
        missing: Vec<TabletAlias>,
    },
}

/// Checks that, with `reached` stopped, no tablet out of sight can acknowledge a write or hold one that
/// was acknowledged and that nobody reached has.
///
/// The rule of Vitess's emergency reparent: for every tablet that could be accepting writes, fewer of its
/// ackers are missing than the policy demands acknowledgements. If the old primary alone is missing, all of
/// its ackers were reached.
///
/// `stray` are tablets that acknowledge, or may, although the policy does not count them: one that takes a
/// backup goes on acknowledging unless somebody told it not to.
pub fn check_reached<'a>(
    policy: DurabilityPolicy,
    tablets: impl IntoIterator<Item = &'a Tablet>,
    reached: &BTreeSet<TabletAlias>,
    stray: &BTreeSet<TabletAlias>,
    old_primary: Option<&TabletAlias>,
) -> Result<(), Unsafe> {
    let missing: Vec<&Tablet> = missing(tablets, reached, stray);
    let others: Vec<TabletAlias> = missing
        .iter()
        .filter(|tablet| tablet.tablet_type.is_managed())
        .filter(|tablet| Some(&tablet.alias) != old_primary)
        .map(|tablet| tablet.alias.clone())
        .collect();
    if !others.is_empty() && old_primary.is_none() {
        return Err(Unsafe::PrimaryUnknown { missing: others });
    }
    if !others.is_empty() && policy.acks_required() == 0 {
        return Err(Unsafe::NothingProven { missing: others });
    }
    acks_out_of_sight(policy, &missing, stray)
}

/// Checks that what `writer` lost and had promised can be had from those in sight: its own word does not count any
/// more, so fewer of its ackers may be missing than a promise took.
pub fn check_forgotten<'a>(
    policy: DurabilityPolicy,
    tablets: impl IntoIterator<Item = &'a Tablet>,
    reached: &BTreeSet<TabletAlias>,
    stray: &BTreeSet<TabletAlias>,
    writer: &Tablet,
) -> Result<(), Unsafe> {
    let required = policy.acks_required() as usize;
    let missing = ackers_among(policy, writer, &missing(tablets, reached, stray), stray);
    match required > 0 && missing.len() >= required {
        true => Err(Unsafe::ForgottenOutOfSight { writer: writer.alias.clone(), missing }),
        false => Ok(()),
    }
}

/// Tells whether everybody was reached who could hold a write of the shard.
pub fn is_complete<'a>(
    tablets: impl IntoIterator<Item = &'a Tablet>,
    reached: &BTreeSet<TabletAlias>,
    stray: &BTreeSet<TabletAlias>,
) -> bool {
    missing(tablets, reached, stray).is_empty()
}

fn missing<'a>(
    tablets: impl IntoIterator<Item = &'a Tablet>,
    reached: &BTreeSet<TabletAlias>,
    stray: &BTreeSet<TabletAlias>,
) -> Vec<&'a Tablet> {
    let counted = tablets
        .into_iter()
        .filter(|tablet| tablet.tablet_type.is_managed() || stray.contains(&tablet.alias));
    counted.filter(|tablet| !reached.contains(&tablet.alias)).collect()
}

/// Checks that no tablet out of sight can have been made primary, and have had writes acknowledged, without
/// anybody in sight knowing: only then may the primary that the records name take writes again.
///
/// Where the policy demands no acknowledgements nothing was promised, and those in sight must do.
pub fn check_incumbent<'a>(
    policy: DurabilityPolicy,
    tablets: impl IntoIterator<Item = &'a Tablet>,
    reached: &BTreeSet<TabletAlias>,
    stray: &BTreeSet<TabletAlias>,
) -> Result<(), Unsafe> {
    acks_out_of_sight(policy, &missing(tablets, reached, stray), stray)
}

/// Where no acknowledgement is demanded, none was promised.
fn acks_out_of_sight(
    policy: DurabilityPolicy,
    missing: &[&Tablet],
    stray: &BTreeSet<TabletAlias>,
) -> Result<(), Unsafe> {
    let required = policy.acks_required();
    if required == 0 {
        return Ok(());
    }
    for writer in missing.iter().filter(|tablet| tablet.tablet_type.is_promotable()) {
        let ackers = ackers_among(policy, writer, missing, stray);
        if ackers.len() >= required as usize {
            return Err(Unsafe::AcksOutOfSight {
                writer: writer.alias.clone(),
                required,
                missing: ackers,
            });
        }
    }
    Ok(())
}

/// Who of these acknowledges what `writer` writes, or may.
fn ackers_among(
    policy: DurabilityPolicy,
    writer: &Tablet,
    tablets: &[&Tablet],
    stray: &BTreeSet<TabletAlias>,
) -> Vec<TabletAlias> {
    let acks = |tablet: &&&Tablet| {
        policy.is_acker(writer, tablet)
            || (stray.contains(&tablet.alias) && tablet.alias != writer.alias)
    };
    tablets.iter().filter(acks).map(|tablet| tablet.alias.clone()).collect()
}

fn list(aliases: &[TabletAlias]) -> String {
    aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
        let stray = BTreeSet::new();
        match check_reached(policy.parse().unwrap(), &all, &reached, &stray, primary.as_ref()) {
            Ok(()) => "safe".into(),
            Err(Unsafe::NothingProven { .. }) => "nothing proven".into(),
            Err(Unsafe::AcksOutOfSight { writer, .. }) => format!("acks for {writer}"),
            Err(Unsafe::ForgottenOutOfSight { .. }) => "forgotten".into(),
            Err(Unsafe::PrimaryUnknown { .. }) => "primary unknown".into(),
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
            let policy: DurabilityPolicy = policy.parse().unwrap();
            let checked = check_forgotten(policy, &all, &reached, &BTreeSet::new(), writer);
            assert_eq!(checked.is_ok(), safe, "{policy}: {tablets}: {checked:?}");
        }
    }

    #[test]
    fn who_may_be_missing() {
        let table = [
            ("none", "!P1 r1 r1", "safe"),
            ("none", "!P1 !r1 r1", "nothing proven"),
            ("none", "!P1 r1 !b1", "safe"),
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
            ("semi_sync", "r1 r1 r1", "safe"),
        ];
        for (policy, tablets, expected) in table {
            assert_eq!(check(policy, tablets), expected, "{policy}: {tablets}");
        }
    }
}
