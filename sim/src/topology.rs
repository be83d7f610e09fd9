//! The simulated topology server: records, sessions, locks, and the ways in which it disappoints.

use std::collections::{BTreeMap, BTreeSet};

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::ports::TopoError;
use vtorc_core::time::TermStart;
use vtorc_core::topology::{ShardRecord, ShardTopology, Tablet, TabletType, TopologyRead};

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

/// The records and locks.
pub struct Topology {
    /// The one shard.
    pub shard: KeyspaceShard,
    /// Its keyspace's policy.
    pub policy: DurabilityPolicy,
    /// Its record.
    pub record: ShardRecord,
    /// Its tablets.
    pub tablets: BTreeMap<TabletAlias, Tablet>,
    /// Who holds its lock.
    pub holder: Option<Holder>,
    /// Numbers given to sessions and locks.
    pub locks_taken: u64,
    /// It answers nobody.
    pub down: bool,
    /// Cells that cannot be listed.
    pub unread_cells: BTreeSet<String>,
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
    /// A topology of one shard.
    pub fn new(shard: KeyspaceShard, policy: DurabilityPolicy) -> Self {
        Self {
            shard,
            policy,
            record: ShardRecord::default(),
            tablets: BTreeMap::new(),
            holder: None,
            locks_taken: 0,
            down: false,
            unread_cells: BTreeSet::new(),
            watch_delay_ms: 0,
            conflicts: 0,
            version: 0,
            sessions: BTreeMap::new(),
        }
    }

    /// The shard's records.
    pub fn shard_topology(&self) -> ShardTopology {
        ShardTopology {
            shard: self.shard.clone(),
            durability: Ok(self.policy),
            record: self.record.clone(),
            emergency_reparent_disabled: false,
            tablets: self.tablets.clone(),
            damaged: BTreeMap::new(),
            incomplete: false,
        }
    }

    /// A reading of everything, less the cells that cannot be listed.
    pub fn read(&self) -> TopologyRead {
        let mut topology = self.shard_topology();
        topology.tablets.retain(|alias, _| !self.unread_cells.contains(&alias.cell));
        let unread = self.unread_cells.iter();
        TopologyRead {
            shards: BTreeMap::from([(self.shard.clone(), topology)]),
            unread_cells: unread.map(|cell| (cell.clone(), "no answer".into())).collect(),
            ..TopologyRead::default()
        }
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
        self.holder = self
            .holder
            .filter(|holder| sessions.values().any(|(session, _)| *session == holder.session));
    }

    /// A number that was not used before.
    pub fn new_serial(&mut self) -> u64 {
        self.locks_taken += 1;
        self.locks_taken
    }

    /// Takes locks back that their holders do not want any more.
    pub fn give_back(&mut self, serials: &[u64]) {
        if self.holder.is_some_and(|holder| serials.contains(&holder.serial)) {
            self.holder = None;
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
    /// A vtorc sets a tablet's type.
    pub fn set_tablet_type(
        &mut self,
        alias: &TabletAlias,
        tablet_type: TabletType,
        term: Option<TermStart>,
    ) -> Result<(), TopoError> {
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

    /// A vtorc names the shard's primary.
    pub fn set_shard_primary(
        &mut self,
        alias: &TabletAlias,
        term: TermStart,
    ) -> Result<(), TopoError> {
        self.topology.conflict("the shard's record")?;
        if self.topology.record.term_start.is_some_and(|known| known > term) {
            return Ok(());
        }
        self.check_named(alias);
        self.topology.record.primary_alias = Some(alias.clone());
        self.topology.record.term_start = Some(term);
        self.topology.version += 1;
        Ok(())
    }
}
