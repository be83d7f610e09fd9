//! Opening a server for writes: the one statement after which clients may write, with its own deadline.
//!
//! A statement that was sent to a busy or frozen server runs when that has time again, long after vtorc gave it up and
//! perhaps promoted another. So the server decides by its own clock, when it runs the statement, whether it is too
//! late.

use vtorc_core::gtid::GtidSet;
use vtorc_core::ports::CommandError;

use super::dialect::Dialect;
use super::session::Session;
use super::text::quoted;

const WHAT: &str = "take writes";
const TOO_LATE: &str = "too late";
const INCOMPLETE: &str = "without what it was chosen for";

/// Takes writes, as long as the session's deadline is not over and the server has everything of this position.
///
/// A server that refuses to is asked what it is: only one that is found read-only certainly does not take writes.
pub(crate) fn take_writes(
    session: &mut Session<'_>,
    position: Option<&GtidSet>,
) -> Result<(), CommandError> {
    let clock = session.value("read the server's clock", "SELECT SYSDATE(6)")?;
    let Some(clock) = clock else {
        return Err(CommandError::NotDone("the server does not tell its clock".into()));
    };
    // Counted from the answer on, not from the question: rather too short than too long.
    let left = session.left().as_micros();
    let statement = statement(session.dialect, &clock, left, position);
    match session.run(WHAT, &statement) {
        Ok(()) => Ok(()),
        Err(CommandError::NotDone(why)) => {
            let answer = session.value("look whether it takes writes", "SELECT @@GLOBAL.read_only");
            match answer.ok().flatten().as_deref() {
                Some("0" | "OFF") | None => Err(CommandError::Unknown(why)),
                Some(_) => Err(CommandError::NotDone(why)),
            }
        }
        Err(error @ (CommandError::Unknown(_) | CommandError::Unreached(_))) => Err(error),
    }
}

/// `SYSDATE` is the time at which it is evaluated, whatever `SET timestamp` says, and the session has a time zone
/// without summer time. What is not `'OFF'` is no value of the variable, so the server refuses it and changes nothing,
/// `super_read_only` included. (A number would not do: `IF(…, 0, NULL)` is 0, and opens it.) `OFF` takes
/// `super_read_only` off as well.
fn statement(dialect: Dialect, clock: &str, left_us: u128, position: Option<&GtidSet>) -> String {
    let in_time =
        format!("SYSDATE(6) < TIMESTAMP{} + INTERVAL {left_us} MICROSECOND", quoted(clock));
    let open = match (dialect, position) {
        (Dialect::MySql | Dialect::OldMySql, Some(position)) if !position.is_empty() => {
            let position = quoted(&position.to_string());
            format!("IF(GTID_SUBSET({position}, @@GLOBAL.gtid_executed), 'OFF', '{INCOMPLETE}')")
        }
        // MariaDB has no function that compares positions.
        (Dialect::MySql | Dialect::OldMySql | Dialect::MariaDb, _) => "'OFF'".to_owned(),
    };
    format!("SET GLOBAL read_only = IF({in_time}, {open}, '{TOO_LATE}')")
}

/// What comes after a server was opened: whatever goes wrong then, it may take writes already.
pub(crate) fn once_open<T>(outcome: Result<T, CommandError>) -> Result<T, CommandError> {
    outcome.map_err(|error| match error {
        CommandError::NotDone(why) | CommandError::Unknown(why) => {
            CommandError::Unknown(format!("it may take writes already; {why}"))
        }
        CommandError::Unreached(failure) => {
            CommandError::Unknown(format!("it may take writes already; {failure}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_told_until_when_and_with_what_it_may_open() {
        let position = GtidSet::parse_mysql("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5").unwrap();
        let clock = "2026-11-27 08:16:55.640954";
        let said = statement(Dialect::MySql, clock, 1_500_000, Some(&position));
        assert_eq!(
            said,
            "SET GLOBAL read_only = IF(SYSDATE(6) < TIMESTAMP'2026-11-27 08:16:55.640954' \
             + INTERVAL 1500000 MICROSECOND, \
             IF(GTID_SUBSET('3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5', @@GLOBAL.gtid_executed), \
             'OFF', 'without what it was chosen for'), 'too late')"
        );
        let said = statement(Dialect::MariaDb, clock, 7, Some(&position));
        assert!(said.ends_with("+ INTERVAL 7 MICROSECOND, 'OFF', 'too late')"), "{said}");
    }

    #[test]
    fn nothing_is_called_not_done_once_it_may_be_open() {
        let refused = CommandError::NotDone("forget the source: denied".into());
        let Err(CommandError::Unknown(why)) = once_open::<()>(Err(refused)) else { panic!() };
        assert!(why.contains("forget the source"), "{why}");
    }
}
