//! Between Vitess's records and core's values.

use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::tablet::{MysqlAddress, PromotionRule, Tablet, TabletType, VttabletAddress};
use vtorc_core::time::TermStart;
use vtorc_core::topology::ShardRecord;

use super::records;

pub(crate) fn alias_to_record(alias: &TabletAlias) -> records::TabletAlias {
    records::TabletAlias { cell: alias.cell.clone(), uid: alias.uid }
}

pub(crate) fn alias_from_record(alias: &records::TabletAlias) -> Option<TabletAlias> {
    (!alias.cell.is_empty()).then(|| TabletAlias { cell: alias.cell.clone(), uid: alias.uid })
}

pub(crate) fn term_to_record(term: TermStart) -> records::Time {
    records::Time { seconds: term.seconds, nanoseconds: term.nanos }
}

fn term_from_record(time: &records::Time) -> Option<TermStart> {
    let term = TermStart { seconds: time.seconds, nanos: time.nanoseconds };
    (term.seconds != 0 || term.nanos != 0).then_some(term)
}

pub(crate) fn key_range_to_record(shard: &KeyspaceShard) -> Option<records::KeyRange> {
    let range = vtorc_core::ids::KeyRange::of_shard(&shard.shard).ok().flatten()?;
    Some(records::KeyRange { start: range.start, end: range.end })
}

/// Reads a tablet's record; the error says what is wrong with it.
pub(crate) fn tablet(path_alias: &TabletAlias, record: &records::Tablet) -> Result<Tablet, String> {
    let alias = record.alias.as_ref().and_then(alias_from_record).ok_or("it names no alias")?;
    if alias != *path_alias {
        return Err(format!("it names {alias}"));
    }
    let shard =
        KeyspaceShard::new(&record.keyspace, &record.shard).map_err(|error| error.to_string())?;
    let host = [&record.mysql_hostname, &record.hostname].into_iter().find(|host| !host.is_empty());
    let port = u16::try_from(record.mysql_port).ok().filter(|port| *port != 0);
    let shut_down = record.tablet_shutdown_time.is_some();
    let mysql = match (host, port) {
        (Some(host), Some(port)) if !shut_down => Some(MysqlAddress { host: host.clone(), port }),
        (Some(_) | None, Some(_) | None) => None,
    };
    let grpc = record.port_map.get("grpc").copied().unwrap_or(0);
    let grpc = u16::try_from(grpc).ok().filter(|port| *port != 0);
    // A vttablet that was stopped in order is not called.
    let vttablet = grpc.filter(|_| !shut_down && !record.hostname.is_empty());
    let vttablet = vttablet.map(|port| VttabletAddress { host: record.hostname.clone(), port });
    Ok(Tablet {
        alias,
        shard,
        tablet_type: TabletType::from_number(record.tablet_type),
        mysql,
        term_start: record.primary_term_start_time.as_ref().and_then(term_from_record),
        vttablet,
        promotion_rule: record
            .tags
            .get(PROMOTION_RULE_TAG)
            .and_then(|name| PromotionRule::from_name(name)),
    })
}

pub(crate) fn shard(record: &records::Shard) -> ShardRecord {
    ShardRecord {
        primary_alias: record.primary_alias.as_ref().and_then(alias_from_record),
        term_start: record.primary_term_start_time.as_ref().and_then(term_from_record),
        emergency_reparent_disabled: record
            .vtorc_state
            .as_ref()
            .is_some_and(|state| state.disable_emergency_reparent),
    }
}

/// The tag of a tablet's record that says how willingly it is promoted.
const PROMOTION_RULE_TAG: &str = "promotion_rule";

/// A new tablet's record.
pub(crate) fn new_tablet(tablet: &Tablet) -> records::Tablet {
    let address = tablet.mysql.clone();
    let host = address.as_ref().map(|address| address.host.clone()).unwrap_or_default();
    records::Tablet {
        alias: Some(alias_to_record(&tablet.alias)),
        hostname: tablet.vttablet.as_ref().map_or(host.clone(), |vttablet| vttablet.host.clone()),
        port_map: tablet
            .vttablet
            .as_ref()
            .map(|vttablet| ("grpc".to_owned(), i32::from(vttablet.port)))
            .into_iter()
            .collect(),
        keyspace: tablet.shard.keyspace.clone(),
        shard: tablet.shard.shard.clone(),
        key_range: key_range_to_record(&tablet.shard),
        tablet_type: tablet.tablet_type.number(),
        tags: tablet
            .promotion_rule
            .map(|rule| (PROMOTION_RULE_TAG.to_owned(), rule.name().to_owned()))
            .into_iter()
            .collect(),
        mysql_hostname: host,
        mysql_port: address.map(|address| i32::from(address.port)).unwrap_or(0),
        primary_term_start_time: None,
        tablet_shutdown_time: None,
    }
}
