//! MariaDB's positions: the last transaction of each replication domain, and of each server that wrote in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::GtidError;

/// A MariaDB GTID position: for each domain, the server and sequence number of its last transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaDbGtidSet {
    pub(super) domains: BTreeMap<u32, (u32, u64)>,
}

impl MariaDbGtidSet {
    /// The domains in which the last transaction was written by this server.
    pub fn written_by(&self, server_id: u32) -> Self {
        let own = self.domains.iter().filter(|(_, (server, _))| *server == server_id);
        Self { domains: own.map(|(domain, last)| (*domain, *last)).collect() }
    }

    /// The last writer of each domain: domain and server.
    pub fn writers(&self) -> impl Iterator<Item = (u32, u32)> {
        self.domains.iter().map(|(domain, (server, _))| (*domain, *server))
    }

    /// What is left without the domains of another position, except those that others know as well.
    pub(super) fn without_domains(&self, theirs: &Self, known: &Self) -> Self {
        let mut rest = self.clone();
        rest.domains.retain(|domain, _| {
            !theirs.domains.contains_key(domain) || known.domains.contains_key(domain)
        });
        rest
    }

    /// How many transactions led here, as far as sequence numbers tell.
    pub fn count(&self) -> u64 {
        self.domains.values().map(|(_, number)| *number).fold(0, u64::saturating_add)
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        other.domains.iter().all(|(domain, (_, theirs))| {
            self.domains.get(domain).is_some_and(|(_, mine)| mine >= theirs)
        })
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut domains = self.domains.clone();
        for (domain, theirs) in &other.domains {
            let mine = domains.entry(*domain).or_insert(*theirs);
            if theirs.1 > mine.1 {
                *mine = *theirs;
            }
        }
        Self { domains }
    }

    pub(super) fn subtract(&self, other: &Self) -> Self {
        let further = self.domains.iter().filter(|(domain, (_, mine))| {
            other.domains.get(domain).is_none_or(|(_, theirs)| mine > theirs)
        });
        Self { domains: further.map(|(domain, last)| (*domain, *last)).collect() }
    }
}

impl FromStr for MariaDbGtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let parts = positions(text)?.into_iter();
        Ok(Self {
            domains: parts.map(|(domain, server, number)| (domain, (server, number))).collect(),
        })
    }
}

/// Reads `domain-server-sequence`, separated by commas.
fn positions(text: &str) -> Result<Vec<(u32, u32, u64)>, GtidError> {
    let error = |why| GtidError { text: text.chars().take(200).collect(), why };
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let fields: Vec<&str> = part.split('-').collect();
        let [domain, server, sequence] = fields.as_slice() else {
            return Err(error("a position must be domain-server-sequence"));
        };
        let parsed = (domain.parse(), server.parse(), sequence.parse());
        let (Ok(domain), Ok(server), Ok(sequence)) = parsed else {
            return Err(error("domain, server and sequence must be numbers"));
        };
        all.push((domain, server, sequence));
    }
    Ok(all)
}

impl fmt::Display for MariaDbGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (domain, (server, sequence))) in self.domains.iter().enumerate() {
            write!(f, "{}{domain}-{server}-{sequence}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What a server's binary logs hold: for each domain and each server that wrote in it, the last sequence number
/// (`gtid_binlog_state`). It outlives purged logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaDbBinlogState {
    last: BTreeMap<(u32, u32), u64>,
}

impl MariaDbBinlogState {
    /// How many transactions it tells of, as far as sequence numbers tell.
    pub fn count(&self) -> u64 {
        let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
        for ((domain, _), number) in &self.last {
            let end = ends.entry(*domain).or_default();
            *end = (*end).max(*number);
        }
        ends.into_values().fold(0, u64::saturating_add)
    }

    /// Everybody who wrote: domain and server.
    pub fn writers(&self) -> BTreeSet<(u32, u32)> {
        self.last.keys().copied().collect()
    }

    /// Where the transactions of everybody but this server end.
    pub fn without_writer(&self, server_id: u32) -> MariaDbGtidSet {
        let others = self.last.iter().filter(|((_, server), _)| *server != server_id);
        others.fold(MariaDbGtidSet::default(), |all, ((domain, server), number)| {
            let one = BTreeMap::from([(*domain, (*server, *number))]);
            all.union(&MariaDbGtidSet { domains: one })
        })
    }

    /// What this server wrote, by the other's binary logs, and its own do not hold. A server without any binary log
    /// of its own was made anew and has lost nothing.
    pub fn lost_to(&self, other: &Self, server_id: u32) -> MariaDbGtidSet {
        let own = self.last.iter().filter(|((_, server), _)| *server == server_id);
        let lost = own.filter_map(|((domain, server), mine)| {
            let theirs = other.last.get(&(*domain, *server))?;
            (theirs > mine).then_some((*domain, (*server, *theirs)))
        });
        MariaDbGtidSet { domains: lost.collect() }
    }
}

impl FromStr for MariaDbBinlogState {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let parts = positions(text)?.into_iter();
        Ok(Self {
            last: parts.map(|(domain, server, number)| ((domain, server), number)).collect(),
        })
    }
}

impl fmt::Display for MariaDbBinlogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((domain, server), sequence)) in self.last.iter().enumerate() {
            write!(f, "{}{domain}-{server}-{sequence}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
