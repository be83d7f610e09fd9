//! MySQL's sets: for each source, and each tag of it, the intervals of numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::GtidError;
use crate::sabotage::{self, Bug, cost};

/// A MySQL GTID set. Intervals are kept sorted, merged and inclusive at both ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MySqlGtidSet {
    /// By (uuid, tag); the tag is empty where there is none (tags exist since MySQL 8.3).
    pub(super) sources: BTreeMap<(String, String), Vec<(u64, u64)>>,
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

    pub(super) fn contains(&self, other: &Self) -> bool {
        other.sources.iter().all(|(source, theirs)| {
            let Some(mine) = self.sources.get(source) else { return false };
            holds_all(mine, theirs)
        })
    }

    pub(super) fn union(&self, other: &Self) -> Self {
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

    pub(super) fn subtract(&self, other: &Self) -> Self {
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

    pub(super) fn normalised(sources: BTreeMap<(String, String), Vec<(u64, u64)>>) -> Self {
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
