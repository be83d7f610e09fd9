//! MariaDB's positions: the last transaction of each replication domain, and of each server that wrote in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::{GtidError, GtidSet};

/// What a MariaDB has, as far as it tells.
///
/// A position alone, `domain-server-number`, stands for everything up to that number, whoever wrote it. Where a
/// server's binary logs tell who wrote what, two servers that wrote side by side under the same numbers are told
/// apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaDbGtidSet {
    /// The last number that a server wrote in a domain.
    last: BTreeMap<(u32, u32), u64>,
    /// Everything in a domain up to this number, ...
    through: BTreeMap<u32, u64>,
    /// ... but for what this server wrote, where its own binary logs tell of that: it does not get it back from others
    /// once it lost it.
    own: Option<u32>,
}

/// What a MariaDB tells of what it has.
#[derive(Clone, Copy, Debug)]
pub struct MariaDbServer<'a> {
    /// `server_id`.
    pub server_id: u32,
    /// `gtid_slave_pos`: what it applied last as a replica; it has all that went before.
    pub applied: &'a MariaDbGtidSet,
    /// `gtid_binlog_pos`: what it logged last.
    pub written: &'a MariaDbGtidSet,
    /// `gtid_binlog_state`: what it logged of whom, ever.
    pub state: &'a MariaDbBinlogState,
    /// `log_slave_updates`.
    pub logs_what_it_applies: bool,
}

impl MariaDbGtidSet {
    /// What a server has, by all that it tells.
    pub fn of_server(server: &MariaDbServer<'_>) -> Self {
        let told = Self { last: server.state.last.clone(), ..Self::default() };
        // A former primary is told to go on from what it wrote itself: that proves nothing of what others wrote before.
        let applied = server.applied.without_writer(server.server_id);
        let mut all = Self::of_positions(applied.positions()).union(&told);
        if server.logs_what_it_applies {
            // Its logs begin before the first of these: they tell of everything later. Not so its own ones, which it
            // may have written while it was set up.
            let begins = told.without_writer(server.server_id).begins();
            all.through.iter_mut().for_each(|(domain, through)| {
                *through = begins.get(domain).map_or(*through, |begin| (*through).min(*begin));
            });
        }
        let all = all.union(&server.applied.last_ones()).union(&server.written.last_ones());
        Self { own: Some(server.server_id), ..all }
    }

    /// The named transactions alone, and what the same servers wrote before them.
    pub fn last_ones(&self) -> Self {
        self.kept(|_, _, _| true)
    }

    /// The smallest number in each domain.
    fn begins(&self) -> BTreeMap<u32, u64> {
        let mut begins = BTreeMap::new();
        for (domain, _, number) in self.positions() {
            let begin = begins.entry(domain).or_insert(number);
            *begin = number.min(*begin);
        }
        begins
    }

    /// Up to which number it has everything of a domain, whoever wrote it.
    pub fn through(&self) -> &BTreeMap<u32, u64> {
        &self.through
    }

    /// What was told apart before: the last ones of each writer, and what goes before them in any case.
    pub fn told_apart(
        server_id: u32,
        state: &MariaDbBinlogState,
        written: &Self,
        through: BTreeMap<u32, u64>,
    ) -> Self {
        let told = Self { last: state.last.clone(), through, own: Some(server_id) };
        told.union(&written.last_ones())
    }

    fn positions(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        self.last.iter().map(|((domain, server), number)| (*domain, *server, *number))
    }

    /// What this server wrote.
    pub fn written_by(&self, server_id: u32) -> Self {
        self.kept(|_, server, _| server == server_id)
    }

    /// What everybody but this server wrote.
    pub fn without_writer(&self, server_id: u32) -> Self {
        self.kept(|_, server, _| server != server_id)
    }

    pub(super) fn without_writers(&self, other: &Self) -> Self {
        self.kept(|domain, server, _| !other.last.contains_key(&(domain, server)))
    }

    /// Everybody who wrote something of it: domain and server.
    pub fn writers(&self) -> impl Iterator<Item = (u32, u32)> {
        self.last.keys().copied()
    }

    /// What is left without the domains of another position, except those that others know as well.
    pub(super) fn without_domains(&self, theirs: &Self, known: &Self) -> Self {
        let gone = |domain: u32| theirs.has_domain(domain) && !known.has_domain(domain);
        let through = self.through.iter().filter(|(domain, _)| !gone(**domain));
        let through = through.map(|(domain, number)| (*domain, *number)).collect();
        Self { through, own: self.own, ..self.kept(|domain, _, _| !gone(domain)) }
    }

    /// What is beyond the other's last number of its domain, whoever wrote that.
    pub(super) fn ahead_of(&self, other: &Self) -> Self {
        let ends = other.ends();
        self.kept(|domain, _, number| ends.get(&domain).is_none_or(|(_, end)| number > *end))
    }

    /// How many transactions led here, as far as sequence numbers tell.
    pub fn count(&self) -> u64 {
        self.ends().into_values().map(|(_, number)| number).fold(0, u64::saturating_add)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        let mut theirs = other.last.iter();
        theirs.all(|((domain, server), number)| self.has(*domain, *server, *number))
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (writer, number) in &other.last {
            let mine = all.last.entry(*writer).or_default();
            *mine = (*mine).max(*number);
        }
        // Of two servers, each may have what the other wrote.
        all.own = match (self.through.is_empty(), other.through.is_empty()) {
            (_, true) => self.own,
            (true, false) => other.own,
            (false, false) => self.own.filter(|own| other.own == Some(*own)),
        };
        for (domain, number) in &other.through {
            let mine = all.through.entry(*domain).or_default();
            *mine = (*mine).max(*number);
        }
        all
    }

    pub(super) fn subtract(&self, other: &Self) -> Self {
        self.kept(|domain, server, number| !other.has(domain, server, number))
    }

    fn has(&self, domain: u32, server: u32, number: u64) -> bool {
        let written = self.last.get(&(domain, server));
        let through =
            self.through.get(&domain).filter(|_| written.is_none() || self.own != Some(server));
        written.into_iter().chain(through).any(|mine| *mine >= number)
    }

    fn has_domain(&self, domain: u32) -> bool {
        self.last.keys().any(|(known, _)| *known == domain)
    }

    /// The last ones of some writers: of what went before, nothing is said.
    fn kept(&self, keep: impl Fn(u32, u32, u64) -> bool) -> Self {
        let last =
            self.last.iter().filter(|((domain, server), number)| keep(*domain, *server, **number));
        Self { last: last.map(|(writer, number)| (*writer, *number)).collect(), ..Self::default() }
    }

    /// The last transaction of each domain: its server and number.
    fn ends(&self) -> BTreeMap<u32, (u32, u64)> {
        let mut ends: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
        for ((domain, server), number) in &self.last {
            let end = ends.entry(*domain).or_insert((*server, *number));
            if *number > end.1 {
                *end = (*server, *number);
            }
        }
        ends
    }

    fn of_positions(all: impl Iterator<Item = (u32, u32, u64)>) -> Self {
        let mut set = Self::default();
        for (domain, server, number) in all {
            let one = Self {
                last: BTreeMap::from([((domain, server), number)]),
                through: BTreeMap::from([(domain, number)]),
                own: None,
            };
            set = set.union(&one);
        }
        set
    }
}

impl FromStr for MariaDbGtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        // One for each domain: the last that is named.
        let parts: BTreeMap<u32, (u32, u64)> = positions(text)?
            .into_iter()
            .map(|(domain, server, number)| (domain, (server, number)))
            .collect();
        Ok(Self::of_positions(
            parts.into_iter().map(|(domain, (server, number))| (domain, server, number)),
        ))
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

/// The last of each domain, as `gtid_current_pos` shows it.
impl fmt::Display for MariaDbGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (domain, (server, sequence))) in self.ends().iter().enumerate() {
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

    /// The last transactions that it holds of this server.
    pub fn of(&self, server_id: u32) -> GtidSet {
        let all = MariaDbGtidSet { last: self.last.clone(), ..MariaDbGtidSet::default() };
        GtidSet::MariaDb(all.written_by(server_id))
    }

    /// What this server wrote, by the other's binary logs, and its own do not hold. A server without any binary log
    /// of its own was made anew and has lost nothing.
    pub fn lost_to(&self, other: &Self, server_id: u32) -> MariaDbGtidSet {
        let own = self.last.iter().filter(|((_, server), _)| *server == server_id);
        let lost = own.filter_map(|((domain, server), mine)| {
            let theirs = other.last.get(&(*domain, *server))?;
            (theirs > mine).then_some(((*domain, *server), *theirs))
        });
        MariaDbGtidSet { last: lost.collect(), ..MariaDbGtidSet::default() }
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
