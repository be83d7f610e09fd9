//! Names of things: tablets, shards, recoveries. Parsed once at the edge, never strings inside.

use std::fmt;
use std::str::FromStr;

/// Why a name was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `cell-uid`.
    #[error("{0:?} is not a tablet alias; expected cell-uid, such as zone1-0000000101")]
    Alias(String),
    /// Not `keyspace/shard`.
    #[error("{0:?} is not a keyspace/shard, such as commerce/-80")]
    KeyspaceShard(String),
    /// Characters or length outside of what Vitess allows.
    #[error("{0:?} is not a name; use 1 to 64 of letters, digits, _ and -")]
    Name(String),
    /// A shard name with `-` that is no key range.
    #[error("{0:?} is not a shard name; a name with - must be a key range such as -80 or 40-80")]
    Shard(String),
}

/// A tablet's name: its cell and a number unique in that cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TabletAlias {
    /// The cell whose topology holds the tablet's record.
    pub cell: String,
    /// The tablet's number.
    pub uid: u32,
}

impl fmt::Display for TabletAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:010}", self.cell, self.uid)
    }
}

impl FromStr for TabletAlias {
    type Err = NameError;

    /// Accepts any number of digits; the last `-` separates cell and uid, as Vitess does.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Alias(text.to_owned());
        let (cell, uid) = text.rsplit_once('-').ok_or_else(bad)?;
        let cell_ok = !cell.is_empty()
            && cell.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !cell_ok || uid.is_empty() || !uid.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Self { cell: cell.to_owned(), uid: uid.parse().map_err(|_| bad())? })
    }
}

/// What a server says of itself that no other server says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerIdentity {
    /// MySQL's `server_uuid`, in lower case: no two servers in the world have the same.
    Uuid(String),
    /// MariaDB's `server_id`: no two servers of a shard have the same, servers of two shards may.
    Id(u32),
}

/// A shard and the keyspace that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceShard {
    /// The keyspace's name.
    pub keyspace: String,
    /// The shard's name: a key range such as `-80`, or a plain name such as `0`.
    pub shard: String,
}

impl KeyspaceShard {
    /// Makes one from names that Vitess would accept.
    pub fn new(keyspace: &str, shard: &str) -> Result<Self, NameError> {
        check_name(keyspace)?;
        check_name(shard)?;
        KeyRange::of_shard(shard)?;
        Ok(Self { keyspace: keyspace.to_owned(), shard: shard.to_ascii_lowercase() })
    }
}

impl fmt::Display for KeyspaceShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.keyspace, self.shard)
    }
}

impl FromStr for KeyspaceShard {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (keyspace, shard) =
            text.split_once('/').ok_or_else(|| NameError::KeyspaceShard(text.to_owned()))?;
        Self::new(keyspace, shard)
    }
}

/// Checks a keyspace's or shard's name against Vitess's rules.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let fits = (1..=64).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        Ok(())
    } else {
        Err(NameError::Name(name.to_owned()))
    }
}

/// The range of keyspace ids that a shard serves; an empty end is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First id served.
    pub start: Vec<u8>,
    /// First id not served any more.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// The range a shard's name stands for; `None` for a name without `-`, which has no range.
    pub fn of_shard(shard: &str) -> Result<Option<KeyRange>, NameError> {
        let bad = || NameError::Shard(shard.to_owned());
        let Some((start, end)) = shard.split_once('-') else { return Ok(None) };
        let start = hex(start).ok_or_else(bad)?;
        let end = hex(end).ok_or_else(bad)?;
        if !end.is_empty() && start >= end {
            return Err(bad());
        }
        Ok(Some(KeyRange { start, end }))
    }

    /// Tells whether `other` lies wholly within this range.
    pub fn covers(&self, other: &KeyRange) -> bool {
        let end_ok = self.end.is_empty() || (!other.end.is_empty() && other.end <= self.end);
        self.start <= other.start && end_ok
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Which keyspaces and shards to look after; everything else is not even connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchList {
    entries: Vec<WatchEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct WatchEntry {
    keyspace: String,
    shard: Option<String>,
}

impl WatchList {
    /// Reads entries such as `ks1` or `ks2/-80`; no entry means everything.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, NameError> {
        let mut list = Vec::new();
        for entry in entries.into_iter().map(str::trim).filter(|entry| !entry.is_empty()) {
            let (keyspace, shard) = match entry.split_once('/') {
                Some((keyspace, shard)) => (keyspace, Some(shard.to_ascii_lowercase())),
                None => (entry, None),
            };
            check_name(keyspace)?;
            if let Some(shard) = &shard {
                KeyspaceShard::new(keyspace, shard)?;
            }
            list.push(WatchEntry { keyspace: keyspace.to_owned(), shard });
        }
        Ok(Self { entries: list })
    }

    /// Tells whether any shard of this keyspace may be watched.
    pub fn includes_keyspace(&self, keyspace: &str) -> bool {
        self.entries.is_empty() || self.entries.iter().any(|entry| entry.keyspace == keyspace)
    }

    /// Tells whether this shard is watched: named itself, by its keyspace, or inside a named key range.
    pub fn includes(&self, shard: &KeyspaceShard) -> bool {
        self.entries.is_empty() || self.entries.iter().any(|entry| entry.covers(shard))
    }
}

impl WatchEntry {
    fn covers(&self, shard: &KeyspaceShard) -> bool {
        if self.keyspace != shard.keyspace {
            return false;
        }
        let Some(named) = &self.shard else { return true };
        if *named == shard.shard {
            return true;
        }
        match (KeyRange::of_shard(named), KeyRange::of_shard(&shard.shard)) {
            (Ok(Some(named)), Ok(Some(range))) => named.covers(&range),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        }
    }
}

/// A recovery's number, unique in one history store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecoveryId(pub u64);

impl fmt::Display for RecoveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_padded_and_parsed_with_any_number_of_digits() {
        let alias: TabletAlias = "zone-1-101".parse().unwrap();
        assert_eq!(alias, TabletAlias { cell: "zone-1".into(), uid: 101 });
        assert_eq!(alias.to_string(), "zone-1-0000000101");
        for bad in ["", "zone1", "zone1-", "-5", "zone1-x", "zone1-4294967296", "zo ne-1"] {
            assert!(bad.parse::<TabletAlias>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shard_names_follow_vitess() {
        for good in ["ks/0", "ks/-", "ks/-80", "ks/80-", "ks/40-80", "ks/main_1"] {
            assert!(good.parse::<KeyspaceShard>().is_ok(), "{good}");
        }
        for bad in ["ks", "ks/", "/0", "ks/8-", "ks/80-40", "ks/80-80", "ks/a-b-c", "k s/0", "ks/é"]
        {
            assert!(bad.parse::<KeyspaceShard>().is_err(), "{bad}");
        }
        assert_eq!("ks/-C0".parse::<KeyspaceShard>().unwrap().shard, "-c0");
    }

    #[test]
    fn the_watch_list_names_keyspaces_shards_and_ranges() {
        let list = WatchList::parse(["ks1", " ks2/-80 "]).unwrap();
        let includes = |name: &str| list.includes(&name.parse().unwrap());
        assert!(includes("ks1/0") && includes("ks1/80-"));
        assert!(includes("ks2/-80") && includes("ks2/40-80"));
        assert!(!includes("ks2/80-") && !includes("ks3/0"));
        assert!(!list.includes_keyspace("ks3"));
        assert!(WatchList::default().includes(&"any/0".parse().unwrap()));
    }
}
