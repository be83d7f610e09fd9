//! What a MariaDB's binary logs no longer hold. MySQL tells (`gtid_purged`); of MariaDB the oldest log does, by how it
//! begins.

use vtorc_core::gtid::GtidSet;
use vtorc_core::ports::CommandError;
use vtorc_core::status::ServerStatus;

use super::dialect::Row;
use super::errors::unless_refused;
use super::fence::column_text;
use super::session::Session;

/// How a log begins: a description, the list of what went before, checkpoints, and its first transaction.
const BEGINNING: &str = "SHOW BINLOG EVENTS LIMIT 6";

/// What a server's binary logs no longer hold of what it has; nothing where it says nothing of them.
pub(crate) fn purged(
    session: &mut Session<'_>,
    status: &ServerStatus,
) -> Result<GtidSet, CommandError> {
    // It may write none, and says so.
    let events = unless_refused(session.rows("look how its oldest binary log begins", BEGINNING))?;
    Ok(before(&events.unwrap_or_default(), status))
}

/// What went before the log that begins with these events. A copy of a server begins its logs anew, and its list is
/// empty: its first transaction tells then, and as long as there is none, all that it has went before. A domain that
/// was deleted (`FLUSH BINARY LOGS DELETE_DOMAIN_ID`) is listed on, and nobody is asked for it any more.
fn before(events: &[Row], status: &ServerStatus) -> GtidSet {
    let has = &status.gtid_executed;
    let writers = status.binlog_state.writers();
    let is_kept = |gtid: &&str| {
        let domain = gtid.split('-').next().and_then(|domain| domain.trim().parse::<u32>().ok());
        writers.iter().any(|(kept, _)| Some(*kept) == domain)
    };
    let info = |wanted: &str| {
        let row = events.iter().find(|row| column_text(row, "event_type") == wanted)?;
        Some(column_text(row, "info"))
    };
    let list = info("Gtid_list").unwrap_or_default();
    let list: Vec<&str> = list.trim_matches(['[', ']']).split(',').filter(is_kept).collect();
    match (GtidSet::parse_mariadb(&list.join(",")), info("Gtid")) {
        (Ok(listed), _) if !listed.is_empty() => listed,
        (_, Some(first)) => before_first(&first).unwrap_or_else(|| has.empty_like()),
        (_, None) if events.is_empty() => has.empty_like(),
        (_, None) => has.clone(),
    }
}

/// `BEGIN GTID 0-1-7`, or without `BEGIN`: up to the number before, whoever wrote it.
fn before_first(info: &str) -> Option<GtidSet> {
    let gtid = info.split("GTID ").nth(1)?.split_whitespace().next()?;
    let (writer, number) = gtid.rsplit_once('-')?;
    let before = number.parse::<u64>().ok()?.checked_sub(1).filter(|number| *number > 0)?;
    GtidSet::parse_mariadb(&format!("{writer}-{before}")).ok()
}

#[cfg(test)]
mod tests {
    use vtorc_core::testkit;

    use super::*;

    fn events(told: &[(&str, &str)]) -> Vec<Row> {
        let row = |(event, info): &(&str, &str)| {
            let column = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
            Row::from([column("event_type", event), column("info", info)])
        };
        told.iter().map(row).collect()
    }

    #[test]
    fn the_oldest_log_tells_what_went_before_it() {
        let (list, first) = ("Gtid_list", "Gtid");
        for (told, expected) in [
            // Its first log since it was set up.
            (vec![(list, "[]"), (first, "BEGIN GTID 0-7-1")], ""),
            // Logs before it were purged.
            (vec![(list, "[0-7-101]"), (first, "GTID 0-7-102")], "0-7-101"),
            (vec![(list, "[0-3-90,0-7-101,1-3-5]")], "0-7-101,1-3-5"),
            // A domain that was deleted since.
            (vec![(list, "[0-7-101,5-3-9]")], "0-7-101"),
            // A copy, which logged what came later.
            (vec![(list, "[]"), (first, "BEGIN GTID 0-7-41 cid=5")], "0-7-40"),
            // A copy that logged nothing yet.
            (vec![(list, "[]")], "0-1-200"),
            // No log at all.
            (vec![], ""),
        ] {
            let status = ServerStatus {
                gtid_executed: GtidSet::parse_mariadb("0-1-200").unwrap(),
                binlog_state: "0-7-190,0-1-200,1-3-6".parse().unwrap(),
                ..testkit::status()
            };
            assert_eq!(before(&events(&told), &status).to_string(), expected, "{told:?}");
        }
    }
}
