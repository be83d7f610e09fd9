//! Which hosts and which shards a filter of the configuration means.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use regex_lite::Regex;

use crate::ids::KeyspaceShard;
use crate::tablet::MysqlAddress;

/// A filter is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no regular expression: {why}")]
pub struct BadFilter {
    text: String,
    why: String,
}

/// A regular expression, with its text: two of the same text are the same.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    regex: Regex,
}

impl FromStr for Pattern {
    type Err = BadFilter;
    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let bad = |why: regex_lite::Error| BadFilter { text: text.into(), why: why.to_string() };
        Ok(Self { text: text.to_owned(), regex: Regex::new(text).map_err(bad)? })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Which hosts are meant, as Orchestrator has it: an address means itself alone, everything else is a regular
/// expression over the host or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFilter(HostKind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostKind {
    Address(IpAddr),
    Pattern(Pattern),
}

impl FromStr for HostFilter {
    type Err = BadFilter;
    fn from_str(text: &str) -> Result<Self, BadFilter> {
        match text.trim().parse() {
            Ok(address) => Ok(Self(HostKind::Address(address))),
            Err(_) => Ok(Self(HostKind::Pattern(text.parse()?))),
        }
    }
}

impl HostFilter {
    /// Tells whether a server at this address is meant. An empty filter means nobody.
    pub fn means(&self, address: &MysqlAddress) -> bool {
        match &self.0 {
            HostKind::Address(meant) => address.host.parse() == Ok(*meant),
            HostKind::Pattern(pattern) if pattern.text.is_empty() => false,
            HostKind::Pattern(pattern) => {
                pattern.regex.is_match(&address.host)
                    || pattern.regex.is_match(&address.to_string())
            }
        }
    }
}

/// Which shards are meant: `*` for all, a keyspace, `keyspace/shard`, or a regular expression over that. With
/// Orchestrator's `alias=` before it only the first three, with `alias~=` only the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFilter(ShardKind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum ShardKind {
    All,
    Named(String),
    Pattern(Pattern),
    /// A name or a pattern.
    Either(Pattern),
}

impl FromStr for ShardFilter {
    type Err = BadFilter;
    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let text = text.trim();
        Ok(Self(match (text.strip_prefix("alias="), text.strip_prefix("alias~=")) {
            (Some(name), _) => ShardKind::Named(name.to_owned()),
            (_, Some(pattern)) => ShardKind::Pattern(pattern.parse()?),
            (None, None) if text == "*" => ShardKind::All,
            (None, None) => ShardKind::Either(text.parse()?),
        }))
    }
}

impl ShardFilter {
    /// Tells whether this shard is meant. An empty filter means none.
    pub fn means(&self, shard: &KeyspaceShard) -> bool {
        let name = shard.to_string();
        let named = |text: &str| text == shard.keyspace || text == name;
        match &self.0 {
            ShardKind::All => true,
            ShardKind::Named(text) => text == "*" || named(text),
            ShardKind::Pattern(pattern) => pattern.regex.is_match(&name),
            ShardKind::Either(pattern) if pattern.text.is_empty() => false,
            ShardKind::Either(pattern) => named(&pattern.text) || pattern.regex.is_match(&name),
        }
    }
}

impl fmt::Display for ShardFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ShardKind::All => f.write_str("*"),
            ShardKind::Named(text) => write!(f, "alias={text}"),
            ShardKind::Pattern(pattern) => write!(f, "alias~={}", pattern.text),
            ShardKind::Either(pattern) => f.write_str(&pattern.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_means_itself_alone_and_the_rest_are_patterns() {
        let means = |filter: &str, host: &str| {
            let address = MysqlAddress { host: host.into(), port: 3306 };
            filter.parse::<HostFilter>().unwrap().means(&address)
        };
        for (filter, host, meant) in [
            ("10.2.9.6", "10.2.9.6", true),
            ("10.2.9.6", "10.2.9.67", false),
            ("10.2.9.6", "110.2.9.6", false),
            ("10.2.9.[67]$", "10.2.9.6", true),
            ("fd00::1", "fd00:0::1", true),
            ("backup", "backup-3.example.org", true),
            ("^backup", "db-backup", false),
            ("^db[0-9]+:3306$", "db17", true),
            ("^db[0-9]+:3307$", "db17", false),
            ("", "db17", false),
        ] {
            assert_eq!(means(filter, host), meant, "{filter:?} {host:?}");
        }
        let bad = "db(".parse::<HostFilter>().unwrap_err();
        assert!(bad.to_string().contains("\"db(\""), "{bad}");
    }

    #[test]
    fn shards_are_meant_by_name_or_pattern() {
        let means = |filter: &str, shard: &str| {
            filter.parse::<ShardFilter>().unwrap().means(&shard.parse().unwrap())
        };
        for (filter, shard, meant) in [
            ("*", "ks/0", true),
            (".*", "ks/0", true),
            ("ks", "ks/0", true),
            (" ks/0 ", "ks/0", true),
            ("^prod_", "prod_a/-80", true),
            ("^prod_", "test/-80", false),
            ("alias=ks", "ks/0", true),
            ("alias=k", "ks/0", false),
            ("alias~=^k", "ks/0", true),
            ("", "ks/0", false),
        ] {
            assert_eq!(means(filter, shard), meant, "{filter:?} {shard:?}");
        }
        assert!("(".parse::<ShardFilter>().is_err());
        assert_eq!("alias~=^k".parse::<ShardFilter>().unwrap().to_string(), "alias~=^k");
    }
}
