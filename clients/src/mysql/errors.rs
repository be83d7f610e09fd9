//! What servers' errors mean: one number may stand for many things, so the words are read here and nowhere else.

use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::status::{ReceiverError, ReceiverErrorKind};

/// `ER_SERVER_SHUTDOWN`: about to be gone.
const SHUTDOWN: u16 = 1053;

/// What it says of a server that it answers with an error: too many connections, access denied, account locked, host
/// blocked and the like. It lives.
pub(crate) fn turned_away(code: u16, message: &str) -> ProbeFailure {
    let text = format!("{message} ({code})");
    if code == SHUTDOWN { ProbeFailure::Refused(text) } else { ProbeFailure::TurnedAway(text) }
}

/// A receiver's last error; none where there is none.
pub(crate) fn receiver_error(number: u32, text: String) -> Option<ReceiverError> {
    (number != 0 || !text.is_empty()).then(|| ReceiverError {
        number,
        kind: receiver_error_kind(number, &text),
        text,
    })
}

/// What a receiver's error means.
fn receiver_error_kind(number: u32, text: &str) -> ReceiverErrorKind {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match number {
        1040 | 1044 | 1045 | 1142 | 1227 | 1698 | 3118 | 3159 => ReceiverErrorKind::Denied,
        2003 | 2005 | 2013 | 2006 | 2002 => ReceiverErrorKind::Unreachable,
        _ if says(&["purged", "could not find first log file", "Could not find first log"]) => {
            ReceiverErrorKind::Purged
        }
        _ if says(&["max_allowed_packet", "packet"]) => ReceiverErrorKind::PacketTooLarge,
        _ if says(&["server_id", "server_uuid", "server id", "server UUID"]) => {
            ReceiverErrorKind::DuplicateServerId
        }
        _ if says(&[
            "not in the master's binlog",
            "diverged",
            "more transactions",
            "has purged",
        ]) =>
        {
            ReceiverErrorKind::Diverged
        }
        _ => ReceiverErrorKind::Other,
    }
}
