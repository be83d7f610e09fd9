//! The simulated topology server: records, sessions, locks, and the ways in which it disappoints.

use std::collections::{BTreeMap, BTreeSet};

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::ports::TopoError;
use vtorc_core::tablet::{MysqlAddress, Tablet, TabletType};
use vtorc_core::time::TermStart;
use vtorc_core::topology::{
    ShardRecord, ShardTopology, TopologyRead, Trouble, UnreadCell, UnreadTablet,
};

use crate::Millis;
use crate::universe::Universe;

/// A session ends when nothing was heard from it for so long; its locks go with it.
pub const SESSION_TIMEOUT_MS: Millis = 6_000;

/// Who holds a shard's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which vtorc.
    pub manager: u8,
    /// In which of its sessions.
    pub session: u64,
    /// Which of all locks ever taken.
    pub serial: u64,
}

/// What is known of one shard.
pub struct ShardRecords {
    /// Its name.
    pub name: KeyspaceShard,
    /// Its keyspace's policy.
    pub policy: DurabilityPolicy,
    /// Its record.
    pub record: ShardRecord,
    /// Who holds its lock.
    pub holder: Option<Holder>,
    /// Its own record cannot be understood.
    pub damaged: bool,
}

/// What is wrong with a damaged record.
const CUT_SHORT: &str = "the record is cut short";

impl ShardRecords {
    /// A shard that never had a primary.
    pub fn new(name: KeyspaceShard, policy: DurabilityPolicy) -> Self {
        Self { name, policy, record: ShardRecord::default(), holder: None, damaged: false }
    }
}

/// The records and locks.
#[derive(Default)]
pub struct Topology {
    /// The shards.
    pub shards: Vec<ShardRecords>,
    /// The tablets of all shards.
    pub tablets: BTreeMap<TabletAlias, Tablet>,
    /// Numbers given to sessions and locks.
    pub locks_taken: u64,
    /// It answers nobody.
    pub down: bool,
    /// Cells that cannot be listed.
    pub unread_cells: BTreeSet<String>,
    /// Cells whose own topology server is away: what they hold can be neither read nor written.
    pub down_cells: BTreeSet<String>,
    /// A cell whose topology server never existed.
    pub mistyped_cell: Option<String>,
    /// Tablets whose record cannot be understood; true where its shard can still be told.
    pub damaged: BTreeMap<TabletAlias, bool>,
    /// Watches tell of changes so much later.
    pub watch_delay_ms: Millis,
    /// So many of the next updates find that somebody else was faster.
    pub conflicts: u32,
    /// Counts changes.
    pub version: u64,
    /// The sessions of each vtorc's lives, and when each was last heard.
    pub sessions: BTreeMap<(u8, u64), (u64, Millis)>,
}

impl Topology {
    /// What is known of a shard by its name.
    pub fn shard(&mut self, name: &KeyspaceShard) -> Result<&mut ShardRecords, TopoError> {
        let missing = || TopoError::NoNode(name.to_string());
        self.shards.iter_mut().find(|records| records.name == *name).ok_or_else(missing)
    }

    /// A tablet's record has no address any more, or has it again.
    pub fn set_address(&mut self, alias: &TabletAlias, address: Option<MysqlAddress>) {
        let Some(tablet) = self.tablets.get_mut(alias) else { return };
        tablet.mysql = address;
        self.version += 1;
    }

    /// A tablet's record is damaged, or put back. Its shard can still be told, or cannot.
    pub fn damage_record(&mut self, alias: TabletAlias, names_shard: Option<bool>) {
        match names_shard {
            Some(names_shard) => self.damaged.insert(alias, names_shard),
            None => self.damaged.remove(&alias),
        };
        self.version += 1;
    }

    /// The tablets of a shard.
    pub fn tablets_of<'a>(
        &'a self,
        name: &'a KeyspaceShard,
    ) -> impl Iterator<Item = &'a Tablet> + 'a {
        self.tablets.values().filter(move |tablet| tablet.shard == *name)
    }

    /// A shard's records.
    pub fn shard_topology(&self, records: &ShardRecords) -> ShardTopology {
        let tablets = self.tablets_of(&records.name);
        ShardTopology {
            shard: records.name.clone(),
            durability: Ok(records.policy),
            record: records.record.clone(),
            emergency_reparent_disabled: false,
            tablets: tablets.map(|tablet| (tablet.alias.clone(), tablet.clone())).collect(),
            damaged: BTreeMap::new(),
            known_cells: BTreeSet::new(),
            unseen: BTreeMap::new(),
            unread_tablets: BTreeSet::new(),
            unread_record: None,
        }
    }

    /// A reading of everything, less the cells that cannot be listed.
    pub fn read(&self) -> TopologyRead {
        let shards = self.shards.iter().map(|records| {
            let mut topology = self.shard_topology(records);
            topology.tablets.retain(|alias, _| self.is_readable(alias));
            if records.damaged {
                topology.record = ShardRecord::default();
            }
            (records.name.clone(), topology)
        });
        let trouble = Trouble { why: "no answer".into(), cure: String::new() };
        let silent = UnreadCell { trouble, silent: true };
        let unread = self.unread_cells.iter().chain(&self.down_cells).chain(&self.mistyped_cell);
        TopologyRead {
            shards: shards.collect(),
            read_cells: self.read_cells(),
            unread_cells: unread.map(|cell| (cell.clone(), silent.clone())).collect(),
            unread_tablets: self.unread_tablets(),
            unread_shards: self.unread_shards(),
            ..TopologyRead::default()
        }
    }

    fn read_cells(&self) -> BTreeSet<String> {
        let cells = self.tablets.keys().map(|alias| alias.cell.clone());
        cells.filter(|cell| !self.is_hidden(cell)).collect()
    }

    fn is_hidden(&self, cell: &String) -> bool {
        self.unread_cells.contains(cell) || self.down_cells.contains(cell)
    }

    /// Tells whether a tablet's record, if there is one, can be read and understood.
    pub fn is_readable(&self, alias: &TabletAlias) -> bool {
        !self.is_hidden(&alias.cell) && !self.damaged.contains_key(alias)
    }

    fn unread_shards(&self) -> BTreeMap<KeyspaceShard, String> {
        let damaged = self.shards.iter().filter(|records| records.damaged);
        damaged.map(|records| (records.name.clone(), CUT_SHORT.into())).collect()
    }

    fn unread_tablets(&self) -> BTreeMap<TabletAlias, UnreadTablet> {
        let listed = self.damaged.iter().filter(|(alias, _)| !self.is_hidden(&alias.cell));
        let found = listed.filter_map(|(alias, names_shard)| {
            let shard = self.tablets.get(alias)?.shard.clone();
            let unread = UnreadTablet {
                path: format!("tablets/{alias}/Tablet"),
                why: CUT_SHORT.into(),
                shard: names_shard.then_some(shard),
            };
            Some((alias.clone(), unread))
        });
        found.collect()
    }

    /// Says why a tablet's record cannot be written.
    fn check_writable(&self, alias: &TabletAlias) -> Result<(), TopoError> {
        if self.down_cells.contains(&alias.cell) {
            return Err(TopoError::Unavailable(format!("cell {} does not answer", alias.cell)));
        }
        if self.damaged.contains_key(alias) {
            let path = format!("tablets/{alias}/Tablet");
            return Err(TopoError::Damaged { path, why: CUT_SHORT.into() });
        }
        Ok(())
    }

    /// Ends the sessions that were silent for too long.
    pub fn expire(&mut self, now: Millis) {
        if self.down {
            // A server that is away ends no sessions; it counts from its return.
            self.sessions.values_mut().for_each(|(_, heard_at)| *heard_at = now);
            return;
        }
        self.end_sessions(|_, heard_at| now.saturating_sub(heard_at) > SESSION_TIMEOUT_MS);
    }

    /// Ends sessions and gives their locks back.
    pub fn end_sessions(&mut self, which: impl Fn(u8, Millis) -> bool) {
        self.sessions.retain(|(manager, _), (_, heard_at)| !which(*manager, *heard_at));
        let sessions = &self.sessions;
        for records in &mut self.shards {
            records.holder = records
                .holder
                .filter(|holder| sessions.values().any(|(session, _)| *session == holder.session));
        }
    }

    /// A number that was not used before.
    pub fn new_serial(&mut self) -> u64 {
        self.locks_taken += 1;
        self.locks_taken
    }

    /// Takes locks back that their holders do not want any more.
    pub fn give_back(&mut self, serials: &[u64]) {
        for records in &mut self.shards {
            records.holder = records.holder.filter(|holder| !serials.contains(&holder.serial));
        }
    }

    fn conflict(&mut self, what: &str) -> Result<(), TopoError> {
        if self.conflicts > 0 {
            self.conflicts -= 1;
            return Err(TopoError::BadVersion(what.to_owned()));
        }
        Ok(())
    }
}

impl Universe {
    /// The own record of a server's shard is damaged, or put back.
    pub fn damage_shard_record(&mut self, server: u8, begins: bool) {
        let alias = &self.server(server).alias;
        let Some(name) = self.topology.tablets.get(alias).map(|tablet| tablet.shard.clone()) else {
            return;
        };
        if let Ok(records) = self.topology.shard(&name) {
            records.damaged = begins;
        }
        self.topology.version += 1;
    }

    /// A vtorc sets a tablet's type.
    pub fn set_tablet_type(
        &mut self,
        alias: &TabletAlias,
        tablet_type: TabletType,
        term: Option<TermStart>,
    ) -> Result<(), TopoError> {
        self.topology.check_writable(alias)?;
        self.topology.conflict(&alias.to_string())?;
        if tablet_type == TabletType::Primary {
            self.check_named(alias);
        }
        let missing = || TopoError::NoNode(alias.to_string());
        let tablet = self.topology.tablets.get_mut(alias).ok_or_else(missing)?;
        tablet.tablet_type = tablet_type;
        if term.is_some() {
            tablet.term_start = term;
        }
        self.topology.version += 1;
        Ok(())
    }

    /// A vtorc names a shard's primary.
    pub fn set_shard_primary(
        &mut self,
        shard: &KeyspaceShard,
        alias: &TabletAlias,
        term: TermStart,
    ) -> Result<(), TopoError> {
        if self.topology.shard(shard)?.damaged {
            let path = format!("keyspaces/{shard}/Shard");
            return Err(TopoError::Damaged { path, why: CUT_SHORT.into() });
        }
        self.topology.conflict("the shard's record")?;
        if self.topology.shard(shard)?.record.term_start.is_some_and(|known| known > term) {
            return Ok(());
        }
        self.check_named(alias);
        let record = &mut self.topology.shard(shard)?.record;
        record.primary_alias = Some(alias.clone());
        record.term_start = Some(term);
        self.topology.version += 1;
        Ok(())
    }
}
