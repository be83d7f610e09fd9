//! What servers' errors mean: one number may stand for many things, so their words are read, and here only. (What a
//! vttablet puts around them is read beside its calls.)

use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::CommandError;
use vtorc_core::status::{ReceiverError, ReceiverErrorKind};

/// `ER_SERVER_SHUTDOWN`: about to be gone.
const SHUTDOWN: u16 = 1053;

/// Its connections, or those of a user, are used up: `ER_CON_COUNT_ERROR`, `ER_TOO_MANY_USER_CONNECTIONS`.
pub(crate) fn is_full(code: u16) -> bool {
    matches!(code, 1040 | 1203)
}

/// `ER_HOST_IS_BLOCKED`: `max_connect_errors` handshakes from here broke off.
const HOST_IS_BLOCKED: u16 = 1129;

/// What it says of a server that it answers with an error: too many connections, access denied, account locked, host
/// blocked and the like. It lives.
pub(crate) fn turned_away(code: u16, message: &str) -> ProbeFailure {
    let text = format!("{message} ({code})");
    match code {
        SHUTDOWN => ProbeFailure::Refused(text),
        HOST_IS_BLOCKED => ProbeFailure::Blocked(text),
        full if is_full(full) => ProbeFailure::Full(text),
        _ => ProbeFailure::TurnedAway(text),
    }
}

/// What a question was answered; none where the server refused it: what it does not tell stays unknown.
pub(crate) fn unless_refused<T>(
    answer: Result<T, CommandError>,
) -> Result<Option<T>, CommandError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(CommandError::NotDone(_)) => Ok(None),
        Err(error @ (CommandError::Unknown(_) | CommandError::Unreached(_))) => Err(error),
    }
}

/// A receiver's last error; none where there is none.
pub(crate) fn receiver_error(number: u32, text: String) -> Option<ReceiverError> {
    (number != 0 || !text.is_empty()).then(|| ReceiverError {
        number,
        kind: receiver_error_kind(number, &text),
        text,
    })
}

/// Numbers that say it all. They are those of the client library and of the source, from before replication begins;
/// what a source says later comes under one number for everything: 1236, and 13114 since MySQL 8.0.
fn kind_of_number(number: u32) -> Option<ReceiverErrorKind> {
    match number {
        1044 | 1045 | 1129 | 1130 | 1142 | 1227 | 1698 | 1862 | 2059 | 2061 | 3118 | 3159 => {
            Some(ReceiverErrorKind::Denied)
        }
        1053 | 1158..=1161 | 2002 | 2003 | 2005 | 2006 | 2013 => {
            Some(ReceiverErrorKind::Unreachable)
        }
        _ => None,
    }
}

/// What is said, in small letters, and what it means. The first that fits counts: a source that denies a login is
/// reached, and so the words of connections that fail come last.
const WORDS: &[(&str, ReceiverErrorKind)] = &[
    ("access denied", ReceiverErrorKind::Denied),
    ("not allowed to connect", ReceiverErrorKind::Denied),
    ("account is locked", ReceiverErrorKind::Denied),
    ("requires secure connection", ReceiverErrorKind::Denied),
    // The replica asks for something that the source does not have.
    ("which is not in the master's binlog", ReceiverErrorKind::Diverged),
    ("the binlog on the master is missing the gtid", ReceiverErrorKind::Diverged),
    ("has probably diverged", ReceiverErrorKind::Diverged),
    ("an out-of-order sequence number", ReceiverErrorKind::Diverged),
    ("has more gtids than", ReceiverErrorKind::Diverged),
    // The source does not have any more what the replica asks for.
    ("purged", ReceiverErrorKind::Purged),
    ("could not find first log file name", ReceiverErrorKind::Purged),
    ("same server_uuid/server_id", ReceiverErrorKind::DuplicateServerId),
    ("have equal mysql server", ReceiverErrorKind::DuplicateServerId),
    ("have equal mariadb server", ReceiverErrorKind::DuplicateServerId),
    ("max_allowed_packet", ReceiverErrorKind::PacketTooLarge),
    ("can't connect to", ReceiverErrorKind::Unreachable),
    ("lost connection", ReceiverErrorKind::Unreachable),
    ("gone away", ReceiverErrorKind::Unreachable),
    ("unknown server host", ReceiverErrorKind::Unreachable),
];

/// What a receiver's error means.
fn receiver_error_kind(number: u32, text: &str) -> ReceiverErrorKind {
    if let Some(kind) = kind_of_number(number) {
        return kind;
    }
    let said = text.to_lowercase();
    let known = WORDS.iter().find(|(words, _)| said.contains(words));
    known.map_or(ReceiverErrorKind::Other, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_server_turns_away_is_told_apart_by_the_number() {
        for (code, kind) in [
            (1045, "turned_away"),
            (1227, "turned_away"),
            (1040, "full"),
            (1203, "full"),
            (1129, "blocked"),
            (1053, "refused"),
        ] {
            assert_eq!(turned_away(code, "no").kind(), kind, "{code}");
        }
    }

    /// What servers said, and what that is: made on the servers of the tests, or taken from their message files.
    const SAID: &str = include_str!("receiver_errors.txt");

    #[test]
    fn receivers_errors_are_told_apart_by_what_they_say() {
        let cases = SAID.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut seen = std::collections::BTreeSet::new();
        for case in cases {
            let parts: Vec<&str> = case.splitn(3, " | ").collect();
            let [kind, number, text] = parts[..] else { panic!("{case}") };
            let number = number.parse().unwrap();
            assert_eq!(receiver_error_kind(number, text).name(), kind, "{case}");
            // A vttablet passes the words on without their number.
            assert_eq!(receiver_error_kind(0, text).name(), kind, "without its number: {case}");
            seen.insert(kind);
        }
        assert_eq!(seen.len(), ReceiverErrorKind::ALL.len(), "{seen:?}");
    }
}
