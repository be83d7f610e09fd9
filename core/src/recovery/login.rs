//! Whom a server logs in as at its source, where `MySQLReplicaUser` does not say, and whether by TLS, where
//! `MySQLReplicaSSL*` do not: what its channel uses is kept; one that follows nobody has none, and is told what others
//! use.

use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::reparent::choice::Basis;
use crate::settings::RecoverySettings;
use crate::source_access::{ChannelTls, LoginTrial, LoginTrouble};
use crate::status::ReceiverErrorKind;
use crate::tablet::Tablet;

/// Why nobody can be told.
pub const UNKNOWN: &str = "nobody knows whom it is to log in as at its source, since it follows nobody: set MySQLReplicaUser, \
     or ReplicationCredentialsQuery, or GRANT SELECT ON mysql.slave_master_info to the topology user";

/// Replicas could not log in at a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("replicas could not log in at {at} as {user}: {why}; {}", why.cure())]
pub struct LoginRefused {
    /// Where.
    pub at: TabletAlias,
    /// As whom.
    pub user: String,
    /// Why they would not be served.
    pub why: LoginTrouble,
}

/// Whether somebody logs in, as replicas will, at whoever is to be their source. vttablets have a user of their own.
pub fn is_tried(basis: Basis<'_>) -> bool {
    let mut members = basis.snapshot.tablets.values();
    basis.settings.try_replica_login && members.any(|state| state.tablet.vttablet.is_none())
}

/// What came of it there; nothing where it was not tried.
pub fn check(candidate: &Tablet, trial: Option<LoginTrial>) -> Result<(), LoginRefused> {
    match trial.and_then(|trial| Some((trial.user, trial.trouble?))) {
        Some((user, why)) => Err(LoginRefused { at: candidate.alias.clone(), user, why }),
        None => Ok(()),
    }
}

/// Who of those at whom it was tried refuses replicas. Where all do, replicas come from hosts from which this machine
/// may not, and nothing is known.
pub fn refusals(tried: Vec<Result<(), LoginRefused>>) -> Vec<LoginRefused> {
    match tried.iter().all(Result::is_err) {
        true => Vec::new(),
        false => tried.into_iter().filter_map(Result::err).collect(),
    }
}

/// Tells whether a server must be told whom to log in as before it can follow anybody. A vttablet knows by itself;
/// where it is passed by, it is good to know as well.
pub fn needs_login(snapshot: &ShardSnapshot, tablet: &Tablet, settings: &RecoverySettings) -> bool {
    let status = snapshot.tablet(&tablet.alias).and_then(|state| state.status.as_ref());
    let follows = status.is_some_and(|status| status.replication.is_some());
    settings.keeps_logins && !follows
}

/// Who may know it: the server itself, by the operator's query, then those that follow somebody.
pub fn who_may_know<'a>(snapshot: &'a ShardSnapshot, tablet: &'a Tablet) -> Vec<&'a Tablet> {
    let others = snapshot.tablets.values().filter(|state| state.tablet.alias != tablet.alias);
    let follows = others
        .filter(|state| state.valid_status().is_some_and(|status| status.replication.is_some()));
    std::iter::once(tablet).chain(follows.map(|state| &state.tablet)).collect()
}

/// How a server is to protect the connection to its source, where its channel does not say: it follows nobody, or it is
/// turned away without TLS while others come by it. As the others do by now, if that is TLS, else as its channel did
/// when it had one (promoted, it forgot it). None where its own channel says, or nobody knows.
pub fn tls_for(snapshot: &ShardSnapshot, alias: &TabletAlias) -> Option<ChannelTls> {
    let state = snapshot.tablet(alias)?;
    let by_tls = |tls: &&ChannelTls| tls.required;
    let others: Vec<&TabletState> = snapshot.replicas_of(alias).collect();
    let channels = others.iter().filter_map(|other| other.channel());
    let used = channels.filter_map(|channel| channel.tls.as_ref());
    if let Some(channel) = state.channel() {
        let plain = channel.tls.as_ref().is_none_or(|tls| !tls.required);
        let error = channel.receiver_error.as_ref().map(|error| error.kind);
        let denied = error == Some(ReceiverErrorKind::Denied) && plain;
        return used.clone().find(by_tls).filter(|_| denied).cloned();
    }
    let own = state.channel_tls.as_ref();
    let before = || others.iter().find_map(|other| other.channel_tls.as_ref());
    let known = own.filter(by_tls).or_else(|| used.clone().find(by_tls)).or(own);
    known.or_else(|| used.clone().next()).or_else(before).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_all_refuse_nothing_is_known() {
        let refused = |uid| LoginRefused {
            at: TabletAlias { cell: "zone1".into(), uid },
            user: "vt_repl".into(),
            why: LoginTrouble::LacksGrant,
        };
        let both = || vec![Err(refused(1)), Err(refused(2))];
        assert_eq!(refusals(both()), []);
        assert_eq!(refusals(Vec::new()), []);
        let with_another = both().into_iter().chain([Ok(())]).collect();
        assert_eq!(refusals(with_another), [refused(1), refused(2)]);
    }
}
