//! GTID sets of MySQL and MariaDB: which transactions a server has.
//!
//! Sets are only partially ordered (equal, ahead, behind, diverged), so there is no `Ord` here on purpose.

mod mariadb;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

pub use mariadb::{MariaDbBinlogState, MariaDbGtidSet, MariaDbServer};

use crate::ids::ServerIdentity;
use crate::sabotage::{self, Bug, cost};

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

/// A MySQL GTID set. Intervals are kept sorted, merged and inclusive at both ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MySqlGtidSet {
    /// By (uuid, tag); the tag is empty where there is none (tags exist since MySQL 8.3).
    sources: BTreeMap<(String, String), Vec<(u64, u64)>>,
}

impl MySqlGtidSet {
    /// A set of intervals, each a source's uuid and the first and last number, both inclusive.
    pub fn from_intervals(intervals: impl IntoIterator<Item = (String, u64, u64)>) -> Self {
        let mut sources: BTreeMap<(String, String), Vec<(u64, u64)>> = BTreeMap::new();
        for (uuid, from, to) in intervals {
            let key = (uuid.to_ascii_lowercase(), String::new());
            sources.entry(key).or_default().push((from, to));
        }
        Self::normalised(sources)
    }

    fn contains(&self, other: &Self) -> bool {
        other.sources.iter().all(|(source, theirs)| {
            let Some(mine) = self.sources.get(source) else { return false };
            holds_all(mine, theirs)
        })
    }

    fn union(&self, other: &Self) -> Self {
        let mut sources = self.sources.clone();
        for (source, theirs) in &other.sources {
            match sources.get_mut(source) {
                Some(mine) if holds_all(mine, theirs) => {}
                Some(mine) => *mine = merged(mine, theirs),
                None => {
                    sources.insert(source.clone(), theirs.clone());
                }
            }
        }
        Self { sources }
    }

    fn subtract(&self, other: &Self) -> Self {
        let mut sources = BTreeMap::new();
        for (source, mine) in &self.sources {
            let theirs = other.sources.get(source).map(Vec::as_slice).unwrap_or_default();
            let left = without(mine, theirs);
            if !left.is_empty() {
                sources.insert(source.clone(), left);
            }
        }
        Self { sources }
    }

    fn normalised(sources: BTreeMap<(String, String), Vec<(u64, u64)>>) -> Self {
        let merged = sources.into_iter().map(|(source, intervals)| (source, merge(intervals)));
        Self { sources: merged.filter(|(_, intervals)| !intervals.is_empty()).collect() }
    }
}

type Interval = (u64, u64);

// Both sides are sorted, so one walk over the two does. A server whose set has many gaps is asked several times a
// second, and a decision must not hold a thread for long.

/// Tells whether every interval of `theirs` lies within one of `mine`.
fn holds_all(mine: &[Interval], theirs: &[Interval]) -> bool {
    if sabotage::has(Bug::CompareAllIntervals) {
        let holds =
            |(from, to): &Interval| walk(mine).any(|(start, end)| start <= from && to <= end);
        return cost::measured(mine.len() + theirs.len(), || walk(theirs).all(holds));
    }
    cost::measured(mine.len() + theirs.len(), || {
        let mut mine = walk(mine).peekable();
        walk(theirs).all(|(from, to)| {
            while mine.next_if(|(_, end)| end < from).is_some() {}
            mine.peek().is_some_and(|(start, end)| start <= from && to <= end)
        })
    })
}

/// Each interval once.
fn walk(intervals: &[Interval]) -> impl Iterator<Item = &Interval> {
    intervals.iter().inspect(|_| cost::step())
}

/// What of `mine` is in none of `theirs`.
fn without(mine: &[Interval], theirs: &[Interval]) -> Vec<Interval> {
    cost::measured(mine.len() + theirs.len(), || cut(mine, theirs))
}

fn cut(mine: &[Interval], theirs: &[Interval]) -> Vec<Interval> {
    let mut left = Vec::new();
    let mut cuts = walk(theirs).copied().peekable();
    for (start, end) in walk(mine).copied() {
        let mut from = start;
        while cuts.next_if(|(_, to)| *to < from).is_some() {}
        // A cut that reaches beyond this interval is needed for the next one as well.
        while let Some((cut_from, cut_to)) = cuts.peek().copied().filter(|cut| cut.0 <= end) {
            if from < cut_from {
                left.push((from, cut_from - 1));
            }
            from = cut_to.saturating_add(1);
            if cut_to >= end {
                break;
            }
            cuts.next();
        }
        if from <= end {
            left.push((from, end));
        }
    }
    left
}

/// The intervals of both.
fn merged(mine: &[Interval], theirs: &[Interval]) -> Vec<Interval> {
    cost::measured(mine.len() + theirs.len(), || woven(mine, theirs))
}

fn woven(mine: &[Interval], theirs: &[Interval]) -> Vec<Interval> {
    let mut all: Vec<Interval> = Vec::with_capacity(mine.len() + theirs.len());
    let (mut mine, mut theirs) = (walk(mine).peekable(), walk(theirs).peekable());
    loop {
        let next = match (mine.peek(), theirs.peek()) {
            (Some(one), Some(other)) if other < one => theirs.next(),
            (Some(_), _) => mine.next(),
            (None, _) => theirs.next(),
        };
        let Some((start, end)) = next.copied() else { return all };
        append(&mut all, (start, end));
    }
}

/// Adds an interval that does not start before the last one.
fn append(all: &mut Vec<Interval>, (start, end): Interval) {
    match all.last_mut() {
        Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
        Some(_) | None => all.push((start, end)),
    }
}

fn merge(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut merged = Vec::with_capacity(intervals.len());
    intervals.into_iter().for_each(|interval| append(&mut merged, interval));
    merged
}

impl FromStr for MySqlGtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut sources: BTreeMap<(String, String), Vec<(u64, u64)>> = BTreeMap::new();
        let error = |why| GtidError { text: text.chars().take(200).collect(), why };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid = fields.next().unwrap_or_default().to_ascii_lowercase();
            if !is_uuid(&uuid) {
                return Err(error("a source must be a uuid of 36 characters"));
            }
            let mut anything = false;
            // Looked up once a tag: a set may have tens of thousands of intervals.
            let mut intervals = sources.entry((uuid.clone(), String::new())).or_default();
            for field in fields {
                anything = true;
                if is_tag(field) {
                    let tag = field.to_ascii_lowercase();
                    intervals = sources.entry((uuid.clone(), tag)).or_default();
                    continue;
                }
                intervals.extend(parse_interval(field).map_err(error)?);
            }
            if !anything {
                return Err(error("a source must be followed by :interval"));
            }
        }
        Ok(Self::normalised(sources))
    }
}

/// Reads `n` or `n-m`. An interval that ends before it starts holds nothing, as in MySQL.
fn parse_interval(text: &str) -> Result<Option<(u64, u64)>, &'static str> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let value = plain.then(|| digits.parse::<u64>().ok()).flatten();
        value.filter(|value| i64::try_from(*value).is_ok())
    };
    let (Some(start), Some(end)) = (number(start), number(end)) else {
        return Err("an interval must be n or n-m");
    };
    if start == 0 {
        return Err("an interval starts at 1");
    }
    Ok((start <= end).then_some((start, end)))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_tag(text: &str) -> bool {
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    starts && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl fmt::Display for MySqlGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last_uuid = "";
        for ((uuid, tag), intervals) in &self.sources {
            if uuid != last_uuid {
                write!(f, "{}{uuid}", if last_uuid.is_empty() { "" } else { "," })?;
                last_uuid = uuid;
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (start, end) in intervals {
                write!(f, ":{start}")?;
                if end > start {
                    write!(f, "-{end}")?;
                }
            }
        }
        Ok(())
    }
}
