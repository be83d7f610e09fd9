//! What a configuration that is read again changes.

use vtorc_clients::mysql::MysqlAccess;

use super::Config;

/// The keys that differ, and whether each takes effect at once. Values are not told: some are secrets.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<(&'static str, bool)> {
    let at_once = |key: &'static str, changed: bool| changed.then_some((key, true));
    let later = |key: &'static str, changed: bool| changed.then_some((key, false));
    let seconds = old.recovery_period_block_seconds != new.recovery_period_block_seconds;
    let minutes = old.recovery_period_block_minutes != new.recovery_period_block_minutes;
    let each = [
        at_once("RecoveryPeriodBlockSeconds", seconds || minutes),
        at_once("Durability", old.durability != new.durability),
        at_once("InstancePollSeconds", old.instance_poll_seconds != new.instance_poll_seconds),
        at_once(
            "MySQLDiscoveryReadTimeoutSeconds",
            old.discovery_read_timeout_seconds != new.discovery_read_timeout_seconds,
        ),
        at_once("recoveries", old.recovery_settings().ok() != new.recovery_settings().ok()),
        later(
            "MySQLTopologyUser, MySQLReplicaUser or their passwords, timeouts or certificates",
            old.mysql_access().ok().map(identity) != new.mysql_access().ok().map(identity),
        ),
        at_once("*Processes, HookTimeoutSeconds or Webhook*", old.hooks != new.hooks),
        later("ListenAddress", old.listen_address != new.listen_address),
        later("ReadOnly", old.read_only != new.read_only),
        later("SQLite3DataFile", old.sqlite3_data_file != new.sqlite3_data_file),
        later("Debug", old.debug != new.debug),
        later(
            "AuthenticationMethod, HTTPAuth* or SSL*",
            (&old.auth, old.use_ssl) != (&new.auth, new.use_ssl),
        ),
    ];
    each.into_iter().flatten().collect()
}

/// What distinguishes one access from another.
fn identity(access: MysqlAccess) -> impl PartialEq {
    let MysqlAccess {
        user,
        password,
        replica,
        replica_query,
        replica_tls,
        tls,
        connect_timeout,
        ..
    } = access;
    (user, password, replica, replica_query, replica_tls, tls, connect_timeout)
}
