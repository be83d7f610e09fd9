//! The flags that Vitess's VTOrc has, with their names and their meaning. They go before the configuration.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use vtorc_clients::mysql::Secret;
use vtorc_clients::vttablet::{VttabletAccess, VttabletTls};
use vtorc_web::Policy;

use super::go_bool;
use crate::Failure;
use crate::config::Config;

/// Flags of VTOrc beside those that the daemon has anyway.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Vitess (as VTOrc has them; they go before the configuration)")]
pub(crate) struct VitessOptions {
    /// The address to listen on; the port is `--port`'s.
    #[arg(long)]
    pub(crate) bind_address: Option<String>,
    /// How often each tablet is asked.
    #[arg(long, value_parser = go_duration)]
    pub(crate) instance_poll_time: Option<Duration>,
    /// How often the topology is read even if no watch says that it changed.
    #[arg(long, value_parser = go_duration)]
    pub(crate) topo_information_refresh_duration: Option<Duration>,
    /// How long a requested recovery waits for a shard's lock.
    #[arg(long, alias = "lock-shard-timeout", value_parser = go_duration)]
    pub(crate) lock_timeout: Option<Duration>,
    /// No second automatic reparent of a shard before this has passed since the last one (VTOrc until version 19).
    #[arg(long, value_parser = go_duration)]
    pub(crate) recovery_period_block_duration: Option<Duration>,
    /// How long one call to a vttablet, or one statement on a server, may take.
    #[arg(long, value_parser = go_duration)]
    pub(crate) remote_operation_timeout: Option<Duration>,
    /// How long a reparent waits for replicas to apply what they received.
    #[arg(long, value_parser = go_duration)]
    pub(crate) wait_replicas_timeout: Option<Duration>,
    /// A replica further behind is no candidate of a planned reparent; 0 takes the reasonable lag.
    #[arg(long, value_parser = go_duration)]
    pub(crate) tolerable_replication_lag: Option<Duration>,
    /// A replica further behind is too far behind.
    #[arg(long, value_parser = go_duration)]
    pub(crate) reasonable_replication_lag: Option<Duration>,
    /// Never promote a tablet of another cell than the old primary's.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) prevent_cross_cell_failover: Option<bool>,
    /// Watch the tablets of these cells and repair none of them, comma separated.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cells_no_recovery: Vec<String>,
    /// Replace primaries that are gone.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) allow_emergency_reparent: Option<bool>,
    /// Recover at all; false only watches.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) allow_recovery: Option<bool>,
    /// Take tablets with errant GTIDs out of service.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) change_tablets_with_errant_gtid_to_drained: Option<bool>,
    /// Replace a primary whose vttablet says that its disk is stalled.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) enable_primary_disk_stalled_recovery: Option<bool>,
    /// Write a line for each recovery to syslog.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) audit_to_syslog: Option<bool>,
    /// Write a line for each recovery to this file.
    #[arg(long)]
    pub(crate) audit_file_location: Option<String>,
    /// How long the history is kept.
    #[arg(long, value_parser = go_duration)]
    pub(crate) audit_purge_duration: Option<Duration>,
    /// The file of the history; `:memory:` and SQLite's memory URLs keep none.
    #[arg(long)]
    pub(crate) sqlite_data_file: Option<String>,
    /// How long a running recovery gets when the process is told to end.
    #[arg(long, value_parser = go_duration, default_value = "30s")]
    pub(crate) shutdown_wait_time: Duration,

    /// Certificate authorities of vttablets (PEM).
    #[arg(long)]
    pub(crate) tablet_manager_grpc_ca: Option<PathBuf>,
    /// Our certificate for calls to vttablets (PEM).
    #[arg(long)]
    pub(crate) tablet_manager_grpc_cert: Option<PathBuf>,
    /// Our key for calls to vttablets (PEM).
    #[arg(long)]
    pub(crate) tablet_manager_grpc_key: Option<PathBuf>,
    /// Certificates of vttablets that were taken back (PEM).
    #[arg(long)]
    pub(crate) tablet_manager_grpc_crl: Option<PathBuf>,
    /// What is served: `read-only` changes nothing, `deny-all` (or any other name) serves health checks alone.
    #[arg(long)]
    pub(crate) security_policy: Option<String>,
    /// The name that vttablets' certificates are checked against.
    #[arg(long)]
    pub(crate) tablet_manager_grpc_server_name: Option<String>,
    /// JSON file with Username and Password that are sent with every call to a vttablet.
    #[arg(long)]
    pub(crate) grpc_auth_static_client_creds: Option<PathBuf>,
    /// Longest message to or from a vttablet, in bytes.
    #[arg(long, default_value_t = 16 * 1024 * 1024)]
    pub(crate) grpc_max_message_size: usize,
}

/// What Vitess writes into the file of `--grpc-auth-static-client-creds`.
#[derive(Deserialize)]
struct StaticCredentials {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Password")]
    password: String,
}

impl VitessOptions {
    /// The configuration with what the flags say instead.
    pub(crate) fn over(&self, mut config: Config) -> Config {
        let seconds = |value: &mut f64, flag: Option<Duration>| {
            if let Some(flag) = flag {
                *value = flag.as_secs_f64();
            }
        };
        seconds(&mut config.instance_poll_seconds, self.instance_poll_time);
        seconds(&mut config.topo_refresh_seconds, self.topo_information_refresh_duration);
        seconds(&mut config.lock_shard_timeout_seconds, self.lock_timeout);
        seconds(&mut config.topology_read_timeout_seconds, self.remote_operation_timeout);
        seconds(&mut config.wait_replicas_timeout_seconds, self.wait_replicas_timeout);
        seconds(&mut config.reasonable_replication_lag_seconds, self.reasonable_replication_lag);
        if let Some(period) = self.recovery_period_block_duration {
            config.recovery_period_block_seconds = Some(period.as_secs_f64());
        }
        let tolerable = self.tolerable_replication_lag.filter(|lag| !lag.is_zero());
        config.tolerable_lag = tolerable.or(config.tolerable_lag);
        let switches = [
            (
                &mut config.prevent_cross_data_center_master_failover,
                self.prevent_cross_cell_failover,
            ),
            (&mut config.drain_errant_tablets, self.change_tablets_with_errant_gtid_to_drained),
            (&mut config.disk_stalled_recovery, self.enable_primary_disk_stalled_recovery),
            (&mut config.audit_to_syslog, self.audit_to_syslog),
        ];
        for (value, flag) in switches {
            *value = flag.unwrap_or(*value);
        }
        if !self.cells_no_recovery.is_empty() {
            config.cells_no_recovery.clone_from(&self.cells_no_recovery);
        }
        if self.allow_emergency_reparent == Some(false) {
            config.forbids_emergency_reparents = true;
        }
        if let Some(file) = &self.audit_file_location {
            config.audit_log_file.clone_from(file);
        }
        if let Some(kept) = self.audit_purge_duration {
            const DAY_S: u64 = 86_400;
            config.audit_purge_days =
                u32::try_from(kept.as_secs().div_ceil(DAY_S)).unwrap_or(u32::MAX);
        }
        if let Some(file) = &self.sqlite_data_file {
            let memory = file.contains(":memory:") || file.contains("mode=memory");
            config.sqlite3_data_file = if memory { ":memory:".into() } else { file.clone() };
        }
        config
    }

    /// How much is allowed over HTTP. A policy that is not known denies everything, as in Vitess.
    pub(crate) fn policy(&self, config: &Config) -> Policy {
        match self.security_policy.as_deref().unwrap_or_default() {
            "" if config.read_only => Policy::ReadOnly,
            "" => Policy::Open,
            "read-only" => Policy::ReadOnly,
            _deny_all => Policy::DenyAll,
        }
    }

    /// How vttablets are called.
    pub(crate) fn vttablet_access(&self, config: &Config) -> Result<VttabletAccess, Failure> {
        let both =
            self.tablet_manager_grpc_cert.is_some() && self.tablet_manager_grpc_key.is_some();
        let wants_tls = both || self.tablet_manager_grpc_ca.is_some();
        Ok(VttabletAccess {
            tls: wants_tls.then(|| VttabletTls {
                ca: self.tablet_manager_grpc_ca.clone(),
                cert: self.tablet_manager_grpc_cert.clone(),
                key: self.tablet_manager_grpc_key.clone(),
                crl: self.tablet_manager_grpc_crl.clone(),
                server_name: self.tablet_manager_grpc_server_name.clone(),
            }),
            credentials: self.credentials()?,
            connect_timeout: config.connect_timeout(),
            message_max: self.grpc_max_message_size,
            heartbeat_period: config.heartbeat_period(),
            direct: config.names_topology_user(),
        })
    }

    fn credentials(&self) -> Result<Option<(String, Secret)>, Failure> {
        let Some(file) = &self.grpc_auth_static_client_creds else { return Ok(None) };
        let failure = |why: &dyn std::fmt::Display| {
            Failure(format!("--grpc-auth-static-client-creds {}: {why}", file.display()))
        };
        let text = std::fs::read_to_string(file).map_err(|error| failure(&error))?;
        // Not the parser's words: they may repeat the password.
        let credentials: StaticCredentials = serde_json::from_str(&text)
            .map_err(|_| failure(&"expected a JSON object with Username and Password"))?;
        Ok(Some((credentials.username, Secret::new(credentials.password))))
    }
}

/// Reads a duration as Go writes it: `15s`, `1m30s`, `500ms`, `1.5h`, `0`.
pub(crate) fn go_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let expected = "expected a duration such as 15s, 1m30s or 500ms";
    if !text.ends_with(|last: char| last.is_ascii_alphabetic())
        || text.contains([' ', 'P', 'd', 'w', 'y'])
    {
        return Err(expected.into());
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| expected.to_owned())?;
    Duration::try_from(parsed).map_err(|_| "must not be negative".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let ms = |text| go_duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
        for wrong in ["15", "-5s", "1d", "P1D", "soon", ""] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn flags_go_before_the_configuration() {
        let flags = VitessOptions {
            instance_poll_time: Some(Duration::from_secs(5)),
            prevent_cross_cell_failover: Some(true),
            cells_no_recovery: vec!["zone1".into()],
            recovery_period_block_duration: Some(Duration::from_secs(30)),
            allow_emergency_reparent: Some(false),
            audit_purge_duration: Some(Duration::from_secs(168 * 3600)),
            sqlite_data_file: Some("file::memory:?mode=memory&cache=shared".into()),
            tolerable_replication_lag: Some(Duration::ZERO),
            ..VitessOptions::default()
        };
        let config = flags.over(Config::default());
        assert_eq!((config.instance_poll_seconds, config.audit_purge_days), (5.0, 7));
        assert!(config.prevent_cross_data_center_master_failover);
        assert!(config.forbids_emergency_reparents);
        assert_eq!(config.cells_no_recovery, ["zone1"]);
        assert_eq!(config.recovery_period_block_seconds, Some(30.0));
        assert_eq!((config.sqlite3_data_file.as_str(), config.tolerable_lag), (":memory:", None));
        let untouched = VitessOptions::default().over(Config::default());
        assert_eq!(untouched, Config::default());
    }
}
