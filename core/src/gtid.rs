//! GTID sets of MySQL and MariaDB: which transactions a server has.
//!
//! Sets are only partially ordered (equal, ahead, behind, diverged), so there is no `Ord` here on purpose.

mod mariadb;
mod mysql;

use std::collections::BTreeSet;
use std::fmt;

pub use mariadb::{MariaDbBinlogState, MariaDbGtidSet, MariaDbServer};
pub use mysql::MySqlGtidSet;

use crate::ids::ServerIdentity;

/// Why a text is not a GTID set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a GTID set: {why}")]
pub struct GtidError {
    text: String,
    why: &'static str,
}

/// The transactions that a server has, in its flavour's own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GtidSet {
    /// MySQL: intervals for each source uuid (and tag).
    MySql(MySqlGtidSet),
    /// MariaDB: the last sequence number of each replication domain, and of each writer where that is known.
    MariaDb(MariaDbGtidSet),
}

/// How two sets stand to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GtidRelation {
    /// The same transactions.
    Equal,
    /// All of the other's and more.
    Ahead,
    /// Some of the other's, nothing else.
    Behind,
    /// Each has something that the other lacks.
    Diverged,
}

impl GtidSet {
    /// The empty set of MySQL's flavour.
    pub fn empty_mysql() -> Self {
        Self::MySql(MySqlGtidSet::default())
    }

    /// The empty set of MariaDB's flavour.
    pub fn empty_mariadb() -> Self {
        Self::MariaDb(MariaDbGtidSet::default())
    }

    /// Reads MySQL's text form.
    pub fn parse_mysql(text: &str) -> Result<Self, GtidError> {
        text.parse().map(Self::MySql)
    }

    /// Reads MariaDB's text form.
    pub fn parse_mariadb(text: &str) -> Result<Self, GtidError> {
        text.parse().map(Self::MariaDb)
    }

    /// Tells whether there is no transaction in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MySql(set) => set.sources.is_empty(),
            Self::MariaDb(set) => set.is_empty(),
        }
    }

    /// Tells whether every transaction of `other` is in this set. Sets of different flavours contain
    /// nothing of one another, except that the empty set is in every set.
    pub fn contains(&self, other: &GtidSet) -> bool {
        match (self, other) {
            (Self::MySql(mine), Self::MySql(theirs)) => mine.contains(theirs),
            (Self::MariaDb(mine), Self::MariaDb(theirs)) => mine.contains(theirs),
            (Self::MySql(_) | Self::MariaDb(_), _) => other.is_empty(),
        }
    }

    /// How this set stands to `other`.
    pub fn relation(&self, other: &GtidSet) -> GtidRelation {
        match (self.contains(other), other.contains(self)) {
            (true, true) => GtidRelation::Equal,
            (true, false) => GtidRelation::Ahead,
            (false, true) => GtidRelation::Behind,
            (false, false) => GtidRelation::Diverged,
        }
    }

    /// The transactions of both. Of two flavours the first one stands, as in Vitess.
    pub fn union(&self, other: &GtidSet) -> GtidSet {
        match (self, other) {
            (Self::MySql(mine), Self::MySql(theirs)) => Self::MySql(mine.union(theirs)),
            (Self::MariaDb(mine), Self::MariaDb(theirs)) => Self::MariaDb(mine.union(theirs)),
            (Self::MySql(_), Self::MariaDb(_)) | (Self::MariaDb(_), Self::MySql(_)) => {
                if self.is_empty() { other.clone() } else { self.clone() }
            }
        }
    }

    /// The transactions of this set that `other` lacks. For MariaDB: the last of each writer that is further here.
    pub fn subtract(&self, other: &GtidSet) -> GtidSet {
        match (self, other) {
            (Self::MySql(mine), Self::MySql(theirs)) => Self::MySql(mine.subtract(theirs)),
            (Self::MariaDb(mine), Self::MariaDb(theirs)) => Self::MariaDb(mine.subtract(theirs)),
            (Self::MySql(_), Self::MariaDb(_)) | (Self::MariaDb(_), Self::MySql(_)) => self.clone(),
        }
    }

    /// The transactions of this set that `other` lacks by its position alone. For MariaDB: what is beyond the last
    /// number of the domain, so that no old writer counts of whom the other's binary logs tell nothing.
    pub fn ahead_of(&self, other: &GtidSet) -> GtidSet {
        match (self, other) {
            (Self::MariaDb(mine), Self::MariaDb(theirs)) => Self::MariaDb(mine.ahead_of(theirs)),
            (Self::MySql(_) | Self::MariaDb(_), _) => self.subtract(other),
        }
    }

    /// What this server wrote of it. Nothing where the writer is named in terms of the other flavour.
    pub fn of_writer(&self, writer: &ServerIdentity) -> GtidSet {
        match (self, writer) {
            (Self::MySql(_), ServerIdentity::Uuid(uuid)) => self.of_source(uuid),
            (Self::MariaDb(set), ServerIdentity::Id(id)) => Self::MariaDb(set.written_by(*id)),
            (Self::MySql(_), ServerIdentity::Id(_))
            | (Self::MariaDb(_), ServerIdentity::Uuid(_)) => self.empty_like(),
        }
    }

    /// What others than this server wrote of it. All of it where the writer is named in terms of the other flavour.
    pub fn without_writer(&self, writer: &ServerIdentity) -> GtidSet {
        match (self, writer) {
            (Self::MySql(_), ServerIdentity::Uuid(uuid)) => self.without_source(uuid),
            (Self::MariaDb(set), ServerIdentity::Id(id)) => Self::MariaDb(set.without_writer(*id)),
            (Self::MySql(_), ServerIdentity::Id(_))
            | (Self::MariaDb(_), ServerIdentity::Uuid(_)) => self.clone(),
        }
    }

    /// An empty set of the same flavour.
    pub fn empty_like(&self) -> GtidSet {
        match self {
            Self::MySql(_) => Self::empty_mysql(),
            Self::MariaDb(_) => Self::empty_mariadb(),
        }
    }

    /// The transactions of this set that `other` has as well.
    pub fn intersect(&self, other: &GtidSet) -> GtidSet {
        self.subtract(&self.subtract(other))
    }

    /// The set without the transactions that began on the server with this uuid (MySQL only).
    pub fn without_source(&self, server_uuid: &str) -> GtidSet {
        match self {
            Self::MySql(set) => {
                let uuid = server_uuid.to_ascii_lowercase();
                let mut rest = set.clone();
                rest.sources.retain(|(source, _), _| *source != uuid);
                Self::MySql(rest)
            }
            Self::MariaDb(_) => self.clone(),
        }
    }

    /// The transactions that began on the server with this uuid (MySQL only).
    pub fn of_source(&self, server_uuid: &str) -> GtidSet {
        match self {
            Self::MySql(set) => {
                let own = set.sources.iter();
                let own = own.filter(|((source, _), _)| source.eq_ignore_ascii_case(server_uuid));
                let sources = own.map(|(source, numbers)| (source.clone(), numbers.clone()));
                Self::MySql(MySqlGtidSet { sources: sources.collect() })
            }
            Self::MariaDb(_) => Self::empty_mariadb(),
        }
    }

    /// What began on servers of which `other` has nothing at all (MySQL only: MariaDB's positions do not say).
    pub fn of_writers_unknown_to(&self, other: &GtidSet) -> GtidSet {
        match (self, other) {
            (Self::MySql(set), Self::MySql(known)) => {
                let known: BTreeSet<&String> = known.sources.keys().map(|(uuid, _)| uuid).collect();
                let mut rest = set.clone();
                rest.sources.retain(|(uuid, _), _| !known.contains(uuid));
                Self::MySql(rest)
            }
            (Self::MySql(_) | Self::MariaDb(_), _) => self.empty_like(),
        }
    }

    /// What is left without what anybody wrote of whom the other names something.
    pub fn without_writers_of(&self, other: &GtidSet) -> GtidSet {
        match (self, other) {
            (Self::MySql(_), Self::MySql(_)) => self.of_writers_unknown_to(other),
            (Self::MariaDb(mine), Self::MariaDb(theirs)) => {
                Self::MariaDb(mine.without_writers(theirs))
            }
            (Self::MySql(_) | Self::MariaDb(_), _) => self.clone(),
        }
    }

    /// What is left without what another channel brought. MariaDB's positions only tell of domains: those that the
    /// shard knows stay.
    pub fn without_received(&self, received: &GtidSet, of_shard: &GtidSet) -> GtidSet {
        match (self, received, of_shard) {
            (Self::MySql(_), Self::MySql(_), _) => self.subtract(received),
            (Self::MariaDb(mine), Self::MariaDb(theirs), Self::MariaDb(known)) => {
                Self::MariaDb(mine.without_domains(theirs, known))
            }
            (Self::MySql(_) | Self::MariaDb(_), _, _) => self.clone(),
        }
    }

    /// The single transactions, as `uuid:number`, at most so many (MySQL only).
    pub fn each(&self, most: u64) -> Vec<String> {
        let Self::MySql(set) = self else { return Vec::new() };
        let one_by_one = set.sources.iter().flat_map(|((uuid, tag), intervals)| {
            let name = if tag.is_empty() { uuid.clone() } else { format!("{uuid}:{tag}") };
            intervals.iter().flat_map(move |(from, to)| {
                let name = name.clone();
                (*from..=*to).map(move |number| format!("{name}:{number}"))
            })
        });
        one_by_one.take(usize::try_from(most).unwrap_or(usize::MAX)).collect()
    }

    /// How many transactions it names; MariaDB's positions do not tell, and name none.
    pub fn count(&self) -> u64 {
        let Self::MySql(set) = self else { return 0 };
        let intervals = set.sources.values().flatten();
        intervals.map(|(from, to)| to - from + 1).fold(0, u64::saturating_add)
    }

    /// The set in words for people: whole where it is short, otherwise its beginning and how much there is of it.
    pub fn shown(&self) -> Shown<'_> {
        Shown(self)
    }

    /// Vitess's form with the flavour before the set, as kept in the reparent journal.
    pub fn to_vitess_position(&self) -> String {
        match self {
            Self::MySql(_) => format!("MySQL56/{self}"),
            Self::MariaDb(_) => format!("MariaDB/{self}"),
        }
    }
}

/// A set as it is shown: a server may have tens of thousands of intervals.
pub struct Shown<'a>(&'a GtidSet);

/// So much of a set is shown.
const SHOWN_MAX: usize = 300;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut begun = Beginning { text: String::new(), whole: true };
        // It fails where the text is cut.
        let _ = fmt::Write::write_fmt(&mut begun, format_args!("{}", self.0));
        f.write_str(&begun.text)?;
        if begun.whole { Ok(()) } else { write!(f, "... ({} transactions)", self.0.count()) }
    }
}

/// Takes the beginning of a text, up to the last whole interval, and no more.
struct Beginning {
    text: String,
    whole: bool,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len() + part.len() <= SHOWN_MAX {
            self.text.push_str(part);
            return Ok(());
        }
        self.whole = false;
        Err(fmt::Error)
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => set.fmt(f),
            Self::MariaDb(set) => set.fmt(f),
        }
    }
}
