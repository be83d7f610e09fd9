//! One call to a vttablet with a deadline, and what its failure means.

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use tonic::{Code, Request, Response, Status};
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::CommandError;
use vtorc_core::status::VttabletState;
use vtorc_core::tablet::VttabletAddress;

use super::access::{Client, Connections};
use super::status::BESIDES;
use crate::interface::replicationdata::FullStatus;
use crate::interface::tabletmanagerdata::FullStatusRequest;
use crate::mysql::Row;

/// Vttablets begin what they say of a failed call with this; what a connection says does not.
const OWN_WORDS: &str = "TabletManager.";

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// No connection: the call was not made.
    Unreachable(String),
    /// The connection broke before the answer.
    Broken(String),
    /// No answer within the deadline.
    TimedOut,
    /// The vttablet does not know the call.
    NotKnown(String),
    /// It does not take calls from us.
    Denied(String),
    /// It answers that its server is down.
    ServerDown(String),
    /// It tried and could not, or would not.
    Failed(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "its vttablet cannot be reached: {why}"),
            Self::Broken(why) => write!(f, "its vttablet hung up: {why}"),
            Self::TimedOut => f.write_str("its vttablet did not answer in time"),
            Self::NotKnown(call) => {
                write!(f, "its vttablet is too old: it does not know {call}")
            }
            Self::Denied(why) => write!(f, "its vttablet turned us away: {why}"),
            Self::ServerDown(why) => write!(f, "mysqld is down, its vttablet answers: {why}"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl CallError {
    /// How the call ended, as the vttablet says: it does nothing more for it. None where it was made in vain, or may
    /// still go on.
    pub(crate) fn last_word(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::TimedOut
            | Self::NotKnown(_)
            | Self::Denied(_)
            | Self::ServerDown(_) => None,
        }
    }

    /// Whether its server refused with one of these numbers.
    pub(crate) fn is_refusal(&self, codes: &[u16]) -> bool {
        self.last_word().is_some_and(|why| codes.iter().any(|code| names_error(why, *code)))
    }

    /// What it means for something that was to be changed.
    pub(crate) fn into_command_error(self) -> CommandError {
        let text = self.to_string();
        match self {
            Self::Unreachable(_) => CommandError::Unreached(ProbeFailure::Refused(text)),
            Self::NotKnown(_) => CommandError::Unreached(ProbeFailure::TooOld(text)),
            Self::Denied(_) => CommandError::Unreached(ProbeFailure::TurnedAway(text)),
            Self::Failed(_) => CommandError::NotDone(text),
            Self::Broken(_) | Self::TimedOut | Self::ServerDown(_) => CommandError::Unknown(text),
        }
    }

    /// What it means for a call that makes the server take writes: one that failed may have come so far.
    pub(crate) fn into_error_of_opening(self) -> CommandError {
        match self {
            Self::Failed(_) => CommandError::Unknown(self.to_string()),
            Self::Unreachable(_)
            | Self::NotKnown(_)
            | Self::Denied(_)
            | Self::Broken(_)
            | Self::TimedOut
            | Self::ServerDown(_) => self.into_command_error(),
        }
    }

    /// What it says of the vttablet itself; none where only its server failed.
    pub(crate) fn into_vttablet_state(self) -> Option<VttabletState> {
        let text = self.to_string();
        match self {
            Self::NotKnown(_) => Some(VttabletState::TooOld(text)),
            Self::ServerDown(_) | Self::Failed(_) => None,
            Self::Unreachable(_) | Self::Broken(_) | Self::TimedOut | Self::Denied(_) => {
                Some(VttabletState::Silent(text))
            }
        }
    }

    /// What it means for a probe.
    pub(crate) fn into_probe_failure(self) -> ProbeFailure {
        let text = self.to_string();
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::ServerDown(_) => {
                ProbeFailure::Refused(text)
            }
            Self::TimedOut => ProbeFailure::TimedOut,
            Self::NotKnown(_) => ProbeFailure::TooOld(text),
            Self::Denied(_) => ProbeFailure::TurnedAway(text),
            Self::Failed(_) => ProbeFailure::Garbled(text),
        }
    }
}

/// A vttablet that is called, until a moment.
pub(crate) struct Caller<'a> {
    pub(crate) client: Client,
    pub(crate) connections: &'a Connections,
    pub(crate) address: &'a VttabletAddress,
    pub(crate) deadline: Instant,
}

impl<'a> Caller<'a> {
    /// Calls this vttablet, with one deadline for all that is asked of it.
    pub(crate) fn new(
        connections: &'a Connections,
        address: &'a VttabletAddress,
        patience: Duration,
    ) -> Result<Self, CallError> {
        let client = connections.to(address).map_err(CallError::Unreachable)?;
        Ok(Self { client, connections, address, deadline: Instant::now() + patience })
    }

    /// Time left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A request that tells the vttablet how long we wait.
    pub(crate) fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        request.set_timeout(self.left());
        request
    }

    /// Asks for all that the vttablet says of itself and its server.
    pub(crate) async fn full_status(&self) -> Result<FullStatus, CallError> {
        let mut client = self.client.clone();
        let sent = client.full_status(self.request(FullStatusRequest {}));
        let answer = self.answer("FullStatus", sent).await?;
        answer.status.ok_or_else(|| CallError::Failed("an empty FullStatus".into()))
    }

    /// The same, with what it lacks, where that can be had.
    pub(crate) async fn full_status_and_besides(
        &self,
    ) -> Result<(FullStatus, Option<Vec<Row>>), CallError> {
        let (full, besides) = tokio::join!(self.full_status(), self.rows(BESIDES));
        Ok((full?, besides.ok()))
    }

    /// Waits for a call's answer.
    pub(crate) async fn answer<A>(
        &self,
        call: &str,
        sent: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, CallError> {
        let outcome = match tokio::time::timeout(self.left(), sent).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => failure(call, &status),
            Err(_elapsed) => CallError::TimedOut,
        };
        if outcome == CallError::TimedOut {
            // Whoever does not answer is called anew over another connection.
            self.connections.drop_connection(self.address);
        }
        Err(outcome)
    }
}

/// What a failed call means. What the vttablet itself says has no cause on this side of the connection.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other code is a failure like any other")]
fn failure(call: &str, status: &Status) -> CallError {
    let text = status.message().to_owned();
    let own_words = text.starts_with(OWN_WORDS);
    if !own_words && let Some(cause) = status.source() {
        let chain = chain(cause);
        return match chain
            .iter()
            .any(|one| one.contains("connect error") || one.contains("dns error"))
        {
            true => CallError::Unreachable(chain.last().cloned().unwrap_or(text)),
            false if chain.iter().any(|one| one.contains("Timeout")) => CallError::TimedOut,
            false => CallError::Broken(chain.last().cloned().unwrap_or(text)),
        };
    }
    match status.code() {
        Code::Unimplemented => CallError::NotKnown(call.to_owned()),
        Code::Unauthenticated | Code::PermissionDenied => CallError::Denied(text),
        Code::DeadlineExceeded => CallError::TimedOut,
        Code::Cancelled if !own_words => CallError::TimedOut,
        _ if server_is_down(&text) => CallError::ServerDown(text),
        Code::Unavailable if !own_words => CallError::Broken(text),
        _ => CallError::Failed(text),
    }
}

fn chain(cause: &(dyn Error + 'static)) -> Vec<String> {
    let mut said = vec![cause.to_string()];
    let mut next = cause.source();
    while let Some(one) = next {
        said.push(one.to_string());
        next = one.source();
    }
    said
}

/// MySQL's client errors, as vttablets repeat them: no connection (2002, 2003), gone (2006), lost (2013), and
/// the server's own word that it is ending (1053).
fn server_is_down(text: &str) -> bool {
    [2002, 2003, 2006, 2013, 1053].iter().any(|code| names_error(text, *code))
}

/// A vttablet tells the number of its server's error within its words, and nowhere else.
fn names_error(text: &str, code: u16) -> bool {
    text.contains(&format!("(errno {code})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vttablet_says_is_told_from_what_its_connection_says() {
        let said = |code, text: &str| failure("FullStatus", &Status::new(code, text));
        let down = "TabletManager.FullStatus on zone1-0000000101: net.Dial(/s) to local server \
                    failed: refused (errno 2002) (sqlstate HY000)";
        assert!(matches!(said(Code::Unknown, down), CallError::ServerDown(_)));
        assert_eq!(said(Code::Unimplemented, "no"), CallError::NotKnown("FullStatus".into()));
        assert!(matches!(said(Code::Unauthenticated, "no"), CallError::Denied(_)));
        assert_eq!(said(Code::DeadlineExceeded, "late"), CallError::TimedOut);
        let refused = "TabletManager.PromoteReplica on zone1-0000000101: no";
        let failed = said(Code::FailedPrecondition, refused);
        assert!(matches!(failed, CallError::Failed(_)));
        assert!(matches!(failed.clone().into_command_error(), CommandError::NotDone(_)));
        assert!(matches!(failed.into_error_of_opening(), CommandError::Unknown(_)));
        assert!(matches!(said(Code::Unavailable, "going away"), CallError::Broken(_)));
    }
}
