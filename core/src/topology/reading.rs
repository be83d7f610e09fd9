//! What was read of the topology, and how it goes together with what was known before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Place, ShardTopology, UnreadRecord};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::tablet::{Tablet, TabletType};

/// Why something could not be read, and what an operator can do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// What is the matter.
    pub why: String,
    /// What cures it.
    pub cure: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cure.is_empty() {
            true => f.write_str(&self.why),
            false => write!(f, "{}; {}", self.why, self.cure),
        }
    }
}

/// A cell whose tablets could not be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadCell {
    /// Why, and what to do.
    pub trouble: Trouble,
    /// Nobody answered there: it is worth another try soon. Otherwise what is wrong stays wrong until somebody changes
    /// a record, which is noticed.
    pub silent: bool,
}

/// A tablet's record that could not be read or understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadTablet {
    /// The record's path.
    pub path: String,
    /// Why.
    pub why: String,
    /// The shard that it belongs to, by what it said when it was last read, by what can be made out of it, or by the
    /// shard's list of its tablets; none if nothing tells.
    pub shard: Option<KeyspaceShard>,
}

/// One reading of the topology, or of one shard in it, possibly incomplete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyRead {
    /// The shards that were found.
    pub shards: BTreeMap<KeyspaceShard, ShardTopology>,
    /// Cells whose tablets were listed.
    pub read_cells: BTreeSet<String>,
    /// Cells whose tablets could not be listed this time, and why.
    pub unread_cells: BTreeMap<String, UnreadCell>,
    /// Keyspaces whose shards could not be listed this time, and why.
    pub unread_keyspaces: BTreeMap<String, String>,
    /// Keyspaces whose own record, which has the durability policy, could not be read or understood, and why.
    pub unread_policies: BTreeMap<String, String>,
    /// Shards whose own record could not be read or understood this time, and why.
    pub unread_shards: BTreeMap<KeyspaceShard, String>,
    /// Tablets whose record could not be read or understood this time.
    pub unread_tablets: BTreeMap<TabletAlias, UnreadTablet>,
}

impl TopologyRead {
    /// Tells whether a tablet's record could not be read or understood: what is known of it is from before, and nothing
    /// can be written there.
    pub fn is_unread(&self, alias: &TabletAlias) -> bool {
        self.unread_cells.contains_key(&alias.cell) || self.unread_tablets.contains_key(alias)
    }

    /// Tells whether anything could not be read for want of an answer: it is worth another try soon.
    pub fn is_partial(&self) -> bool {
        self.unread_cells.values().any(|cell| cell.silent) || !self.unread_keyspaces.is_empty()
    }

    /// All that could not be read or understood: what it is, why, and what to do.
    pub fn troubles(&self) -> BTreeMap<String, Trouble> {
        let trouble = |why: &String, cure: &str| Trouble { why: why.clone(), cure: cure.into() };
        let cells = self.unread_cells.iter();
        let cells = cells.map(|(cell, unread)| (format!("cell {cell}"), unread.trouble.clone()));
        let keyspaces = self.unread_keyspaces.iter();
        let keyspaces =
            keyspaces.map(|(name, why)| (format!("keyspace {name}"), trouble(why, TRIED_AGAIN)));
        let policies = self.unread_policies.iter();
        let policies =
            policies.map(|(name, why)| (format!("keyspace {name}"), trouble(why, WRITE_ANEW)));
        let shards = self.unread_shards.iter();
        let shards = shards.map(|(name, why)| (format!("shard {name}"), trouble(why, WRITE_ANEW)));
        let tablets = self.unread_tablets.iter().map(|(alias, tablet)| {
            let cure = format!(
                "restart its vttablet, which writes its record anew, or delete it: vtorc topo delete {alias}"
            );
            (tablet.path.clone(), trouble(&tablet.why, &cure))
        });
        cells.chain(keyspaces).chain(policies).chain(shards).chain(tablets).collect()
    }
}

/// What to do about a keyspace whose shards could not be listed.
const TRIED_AGAIN: &str = "it is tried again by itself";
/// What to do about a shard's or a keyspace's record that cannot be understood.
const WRITE_ANEW: &str = "write the record anew with Vitess's tools, or put back what was there";

/// Completes a reading with what was known before, where the reading could not see.
///
/// A tablet vanishes only if its cell was read and it was not there: a partial reading must never look like
/// a deletion. A record that cannot be read is what it was.
pub fn merge(
    before: &BTreeMap<KeyspaceShard, ShardTopology>,
    mut read: TopologyRead,
) -> BTreeMap<KeyspaceShard, ShardTopology> {
    let mut merged = std::mem::take(&mut read.shards);
    if sabotage::has(Bug::PartialReadIsWhole) {
        return merged;
    }
    for (name, old) in before {
        if read.unread_keyspaces.contains_key(&name.keyspace) {
            merged.entry(name.clone()).or_insert_with(|| old.clone());
        }
    }
    for (name, new) in &mut merged {
        complete(new, before.get(name), &read);
    }
    merged
}

/// Completes a reading of one shard with what was known of it; none if it has no record any more.
pub fn merge_shard(before: ShardTopology, read: TopologyRead) -> Option<ShardTopology> {
    let name = before.shard.clone();
    merge(&BTreeMap::from([(name.clone(), before)]), read).remove(&name)
}

/// Completes what was read of one shard.
fn complete(new: &mut ShardTopology, old: Option<&ShardTopology>, read: &TopologyRead) {
    for (alias, tablet) in old.iter().flat_map(|old| &old.tablets) {
        if read.is_unread(alias) {
            new.tablets.entry(alias.clone()).or_insert_with(|| tablet.clone());
        }
    }
    keep_unread(new, old, read);
    promote_unread(new, read);
    // Whom the shard's record named before it was damaged may have been replaced since.
    if !read.unread_shards.contains_key(&new.shard) {
        promote_named(new);
    }
    new.known_cells = old.map(|old| old.known_cells.clone()).unwrap_or_default();
    new.known_cells.extend(read.read_cells.iter().cloned());
    let cells = read.unread_cells.iter().filter(|(cell, _)| !new.known_cells.contains(*cell));
    new.unseen = cells
        .map(|(cell, unread)| (Place::Cell(cell.clone()), unread.trouble.to_string()))
        .collect();
    new.unseen.extend(named_since(new, old, read));
    new.unread_tablets = unread_tablets(new, old, read);
    let policy = read.unread_policies.get(&new.shard.keyspace);
    let policy = policy.map(|why| (format!("keyspace {}", new.shard.keyspace), why.clone()));
    let record = read.unread_shards.get(&new.shard);
    let record = record.map(|why| (format!("shard {}", new.shard), why.clone()));
    new.damaged = policy.into_iter().chain(record).collect();
    for (alias, tablet) in &read.unread_tablets {
        let ours = new.tablets.contains_key(alias) || tablet.shard.as_ref() == Some(&new.shard);
        if ours {
            new.damaged.insert(tablet.path.clone(), tablet.why.clone());
        }
        if !new.tablets.contains_key(alias)
            && tablet.shard.as_ref().is_none_or(|of| *of == new.shard)
        {
            new.unseen.insert(Place::Record(alias.clone()), tablet.why.clone());
        }
    }
    new.unread_record = unread_record(new, old, read);
}

/// Keeps what the shard's own record and its keyspace's said, where these cannot be read, and what they forbade.
fn keep_unread(new: &mut ShardTopology, old: Option<&ShardTopology>, read: &TopologyRead) {
    let Some(old) = old else { return };
    let policy = read.unread_policies.contains_key(&new.shard.keyspace);
    let record = read.unread_shards.contains_key(&new.shard);
    if policy {
        new.durability = old.durability.clone();
    }
    if record {
        new.record = old.record.clone();
    }
    new.emergency_reparent_disabled |= (policy || record) && old.emergency_reparent_disabled;
}

/// Whose records are known from before.
fn unread_tablets(
    new: &ShardTopology,
    old: Option<&ShardTopology>,
    read: &TopologyRead,
) -> BTreeSet<TabletAlias> {
    if read.unread_keyspaces.contains_key(&new.shard.keyspace) {
        return old.map(|old| old.unread_tablets.clone()).unwrap_or_default();
    }
    new.tablets.keys().filter(|alias| read.is_unread(alias)).cloned().collect()
}

/// What is known of the shard's own record, where that cannot be read.
fn unread_record(
    new: &ShardTopology,
    old: Option<&ShardTopology>,
    read: &TopologyRead,
) -> Option<UnreadRecord> {
    if read.unread_keyspaces.contains_key(&new.shard.keyspace) {
        return old?.unread_record;
    }
    read.unread_shards.get(&new.shard)?;
    if old.is_none_or(|old| old.unread_record == Some(UnreadRecord::Never)) {
        return Some(UnreadRecord::Never);
    }
    let all_read = new.unseen.is_empty() && new.unread_tablets.is_empty();
    Some(if all_read { UnreadRecord::AsBefore } else { UnreadRecord::Doubtful })
}

/// Where the record of a primary is that was named since its cell was last read. One that was named before had no
/// record when that was read.
fn named_since(
    new: &ShardTopology,
    old: Option<&ShardTopology>,
    read: &TopologyRead,
) -> Option<(Place, String)> {
    let named = new.record.primary_alias.clone()?;
    let place = Place::Record(named.clone());
    let was_named = old.is_some_and(|old| {
        old.record.primary_alias.as_ref() == Some(&named) && !old.unseen.contains_key(&place)
    });
    if was_named || new.tablets.contains_key(&named) {
        return None;
    }
    let why = read.unread_cells.get(&named.cell)?;
    Some((place, why.trouble.to_string()))
}

/// A tablet's record says PRIMARY before the shard's record names it. So whoever is named, and has a record that
/// cannot be read now, has become the primary since it was read.
fn promote_unread(new: &mut ShardTopology, read: &TopologyRead) {
    let Some(alias) = new.record.primary_alias.clone().filter(|alias| read.is_unread(alias)) else {
        return;
    };
    let term = new.record.term_start;
    if let Some(tablet) = new.tablets.get_mut(&alias)
        && tablet.term_start < term
    {
        tablet.tablet_type = TabletType::Primary;
        tablet.term_start = term;
    }
}

/// Where no tablet is PRIMARY, the one that the shard's record names is: its own record was deleted and written anew,
/// as REPLICA. (A vttablet that starts takes itself for the primary by the same rule.) Its term is not known, which
/// makes the records disagree, and is repaired.
fn promote_named(new: &mut ShardTopology) {
    let is_primary = |tablet: &Tablet| tablet.tablet_type == TabletType::Primary;
    if new.tablets.values().any(is_primary) || new.record.term_start.is_none() {
        return;
    }
    let Some(alias) = &new.record.primary_alias else { return };
    if let Some(tablet) = new.tablets.get_mut(alias)
        && tablet.tablet_type == TabletType::Replica
    {
        tablet.tablet_type = TabletType::Primary;
        tablet.term_start = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use crate::time::TermStart;

    fn shard(tablets: &[&str]) -> (KeyspaceShard, ShardTopology) {
        let replicas: Vec<TabletAlias> = tablets.iter().map(|one| one.parse().unwrap()).collect();
        let topology = testkit::shard(&replicas);
        (topology.shard.clone(), topology)
    }

    fn read(tablets: &[&str]) -> TopologyRead {
        TopologyRead { shards: BTreeMap::from([shard(tablets)]), ..Default::default() }
    }

    fn aliases(merged: &BTreeMap<KeyspaceShard, ShardTopology>) -> Vec<String> {
        merged.values().flat_map(|shard| shard.tablets.keys().map(ToString::to_string)).collect()
    }

    fn unseen(merged: &BTreeMap<KeyspaceShard, ShardTopology>) -> Vec<String> {
        merged.values().flat_map(|shard| shard.unseen.keys().map(ToString::to_string)).collect()
    }

    fn unread(shard: Option<&str>) -> UnreadTablet {
        let shard = shard.map(|name| name.parse().unwrap());
        UnreadTablet { path: "tablets/x/Tablet".into(), why: "garbage".into(), shard }
    }

    fn silent() -> UnreadCell {
        let (why, cure) = ("no answer".into(), "bring it back".into());
        UnreadCell { trouble: Trouble { why, cure }, silent: true }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_a_cure_and_tried_again_where_that_may_help() {
        let mut read = read(&["zone1-1"]);
        assert!(!read.is_partial() && read.troubles().is_empty());
        read.unread_tablets.insert("zone1-9".parse().unwrap(), unread(None));
        read.unread_shards.insert("ks/1".parse().unwrap(), "garbage".into());
        read.unread_cells.insert("zone3".into(), UnreadCell { silent: false, ..silent() });
        assert!(!read.is_partial(), "trying again does not help");
        read.unread_cells.insert("zone2".into(), silent());
        assert!(read.is_partial());
        let troubles = read.troubles();
        let named: Vec<&str> = troubles.keys().map(String::as_str).collect();
        assert_eq!(named, ["cell zone2", "cell zone3", "shard ks/1", "tablets/x/Tablet"]);
        assert!(troubles.values().all(|trouble| !trouble.cure.is_empty()), "{troubles:?}");
        assert_eq!(troubles["cell zone2"].to_string(), "no answer; bring it back");
    }

    #[test]
    fn what_cannot_be_read_besides_is_no_change_of_the_shard() {
        // A back-off would end with each reading in which something else answers.
        let (_, before) = shard(&["zone1-1"]);
        let mut after = before.clone();
        after.damaged.insert("tablets/x/Tablet".into(), "garbage".into());
        after.known_cells.insert("zone1".into());
        after.unseen.insert(Place::Cell("zone2".into()), "no answer".into());
        assert!(after.says_the_same(&before));
        after.tablets.clear();
        assert!(!after.says_the_same(&before));
    }

    #[test]
    fn whom_the_shards_record_names_is_primary_where_nobody_else_is() {
        let named: TabletAlias = "zone1-1".parse().unwrap();
        let term = Some(TermStart { seconds: 5, nanos: 0 });
        for (term, types, expected) in [
            (term, [TabletType::Replica, TabletType::Replica], Some(&named)),
            // Somebody is PRIMARY: records are only on their way.
            (term, [TabletType::Replica, TabletType::Primary], None),
            // Out of service by somebody's will.
            (term, [TabletType::Drained, TabletType::Replica], None),
            // There never was one.
            (None, [TabletType::Replica, TabletType::Replica], None),
        ] {
            let mut read = read(&["zone1-1", "zone1-2"]);
            let shard = read.shards.values_mut().next().unwrap();
            shard.record.primary_alias = Some(named.clone());
            shard.record.term_start = term;
            for (tablet, tablet_type) in shard.tablets.values_mut().zip(types) {
                tablet.tablet_type = tablet_type;
            }
            let merged = merge(&BTreeMap::new(), read);
            let mut tablets = merged.values().flat_map(|shard| shard.tablets.values());
            let primary = tablets.find(|one| one.tablet_type == TabletType::Primary);
            let promoted = primary.map(|one| &one.alias).filter(|one| **one == named);
            assert_eq!(promoted, expected, "{types:?}");
            assert!(expected.is_none() || primary.is_some_and(|one| one.term_start.is_none()));
        }
    }

    #[test]
    fn a_tablet_is_gone_only_if_its_cell_was_read() {
        let before = BTreeMap::from([shard(&["zone1-1", "zone2-2"])]);
        let mut read = read(&[]);
        read.unread_cells.insert("zone2".into(), silent());
        assert_eq!(aliases(&merge(&before, read)), ["zone2-0000000002"]);
    }

    #[test]
    fn a_damaged_record_does_not_make_its_tablet_vanish() {
        let before = BTreeMap::from([shard(&["zone1-1", "zone1-2"])]);
        let mut read = read(&["zone1-2"]);
        read.unread_tablets.insert("zone1-1".parse().unwrap(), unread(Some("ks/0")));
        let merged = merge(&before, read);
        assert_eq!(aliases(&merged), ["zone1-0000000001", "zone1-0000000002"]);
        assert_eq!(unseen(&merged), [""; 0]);
        assert_eq!(merged.values().next().unwrap().damaged.len(), 1);
    }

    #[test]
    fn a_shards_own_record_that_cannot_be_read_is_what_it_was_and_its_tablets_are_as_read() {
        let (name, mut known) = shard(&["zone1-1", "zone1-2"]);
        known.record.primary_alias = Some("zone1-1".parse().unwrap());
        known.emergency_reparent_disabled = true;
        let mut damaged = read(&["zone1-1", "zone1-3"]);
        damaged.unread_shards.insert(name.clone(), "garbage".into());
        let merged = |before: &ShardTopology, read: &TopologyRead| {
            let before = BTreeMap::from([(name.clone(), before.clone())]);
            merge(&before, read.clone()).remove(&name).unwrap()
        };
        let stands = merged(&known, &damaged);
        assert_eq!((&stands.record, stands.tablets.len()), (&known.record, 2));
        assert!(stands.emergency_reparent_disabled, "what was forbidden stays forbidden");
        assert_eq!(stands.unread_record, Some(UnreadRecord::AsBefore));
        assert_eq!(stands.damaged.keys().collect::<Vec<_>>(), ["shard ks/0"]);
        // A tablet's record that is not read either may tell of a promotion.
        let mut more = damaged.clone();
        more.unread_tablets.insert("zone1-2".parse().unwrap(), unread(Some("ks/0")));
        let doubtful = merged(&known, &more);
        assert_eq!(doubtful.unread_record, Some(UnreadRecord::Doubtful));
        assert_eq!(doubtful.unread_tablets, BTreeSet::from(["zone1-2".parse().unwrap()]));
        // So may one that nobody here has ever read.
        let mut unknown = damaged.clone();
        unknown.unread_tablets.insert("zone1-9".parse().unwrap(), unread(Some("ks/0")));
        assert_eq!(merged(&known, &unknown).unread_record, Some(UnreadRecord::Doubtful));
        // It comes and goes with that; it does not where nothing was ever read.
        assert_eq!(merged(&stands, &damaged).unread_record, Some(UnreadRecord::AsBefore));
        let never = merge(&BTreeMap::new(), damaged.clone()).remove(&name).unwrap();
        assert_eq!(never.unread_record, Some(UnreadRecord::Never));
        assert_eq!(merged(&never, &damaged).unread_record, Some(UnreadRecord::Never));
        let mended = merged(&never, &read(&["zone1-1"]));
        assert_eq!((mended.unread_record, mended.damaged.len()), (None, 0));
    }

    #[test]
    fn an_unread_keyspace_keeps_its_shards() {
        let before = BTreeMap::from([shard(&["zone1-1"])]);
        let mut read = TopologyRead::default();
        assert!(merge(&before, read.clone()).is_empty());
        read.unread_keyspaces.insert("ks".into(), "no answer".into());
        assert_eq!(aliases(&merge(&before, read)), ["zone1-0000000001"]);
    }

    #[test]
    fn what_a_cell_holds_is_known_once_it_was_read() {
        let mut first = read(&["zone1-1"]);
        first.read_cells.insert("zone1".into());
        first.unread_cells.insert("zone2".into(), silent());
        let known = merge(&BTreeMap::new(), first.clone());
        assert_eq!(unseen(&known), ["cell zone2"]);
        let mut second = read(&["zone1-1"]);
        second.read_cells.extend(["zone1".to_owned(), "zone2".to_owned()]);
        let known = merge(&known, second);
        assert_eq!(unseen(&known), [""; 0]);
        assert_eq!(unseen(&merge(&known, first)), [""; 0]);
    }

    #[test]
    fn whom_the_shards_record_names_may_have_come_to_a_cell_since_it_was_read() {
        let (name, mut known) = shard(&["zone1-1"]);
        known.known_cells.insert("zone2".into());
        let mut read = read(&["zone1-1"]);
        read.unread_cells.insert("zone2".into(), silent());
        let record = &mut read.shards.get_mut(&name).unwrap().record;
        record.primary_alias = Some("zone2-2".parse().unwrap());
        let merged = merge(&BTreeMap::from([(name, known)]), read);
        assert_eq!(unseen(&merged), ["the record of tablet zone2-0000000002"]);
    }

    #[test]
    fn a_damaged_record_concerns_its_own_shard_where_that_is_known() {
        for (of, damaged, places) in [
            (Some("ks/0"), 1, vec!["the record of tablet zone1-0000000009"]),
            (Some("other/0"), 0, vec![]),
            (None, 0, vec!["the record of tablet zone1-0000000009"]),
        ] {
            let mut read = read(&["zone1-1"]);
            read.unread_tablets.insert("zone1-9".parse().unwrap(), unread(of));
            let merged = merge(&BTreeMap::new(), read);
            assert_eq!(unseen(&merged), places, "{of:?}");
            assert_eq!(merged.values().next().unwrap().damaged.len(), damaged, "{of:?}");
        }
    }

    #[test]
    fn whom_the_shards_record_names_is_primary_though_its_own_record_is_unread() {
        let before = BTreeMap::from([shard(&["zone1-1", "zone2-2"])]);
        let mut read = read(&["zone2-2"]);
        read.unread_cells.insert("zone1".into(), silent());
        let name = before.keys().next().unwrap();
        let named: TabletAlias = "zone1-1".parse().unwrap();
        let term = Some(TermStart { seconds: 7, nanos: 0 });
        let record = &mut read.shards.get_mut(name).unwrap().record;
        (record.primary_alias, record.term_start) = (Some(named.clone()), term);
        let merged = merge(&before, read).remove(name).unwrap();
        let tablet = merged.tablets.get(&named).unwrap();
        assert_eq!((tablet.tablet_type, tablet.term_start), (TabletType::Primary, term));
    }
}
