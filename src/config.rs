//! The configuration: Orchestrator's JSON, with what applies here honoured and everything else named.

mod auth;
mod hooks;
mod keys;
mod option_file;
mod password;
mod reload;
mod replica_tls;
mod source;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vtorc_clients::mysql::{Login, MysqlAccess, TlsFiles};
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::filter::{BadFilter, HostFilter};
use vtorc_core::settings::{RecoverySettings, UnappliedPolicy};
use vtorc_core::tablet::PromotionRule;
use vtorc_web::Authentication;

use crate::Failure;
use crate::cli::seconds;

pub(crate) use keys::Support;
use password::{Password, credentials, warn_of_length};
pub(crate) use reload::changes;
use source::Source;

#[cfg(test)]
pub(crate) use keys::KEYS;

/// The keys that are honoured. Times are in seconds, fractions allowed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Config {
    pub(crate) debug: bool,
    #[serde(rename = "MySQLTopologyUser")]
    pub(crate) topology_user: Option<String>,
    #[serde(rename = "MySQLTopologyPassword")]
    pub(crate) topology_password: Password,
    #[serde(rename = "MySQLTopologyCredentialsConfigFile")]
    pub(crate) topology_credentials_file: String,
    #[serde(rename = "MySQLReplicaUser")]
    pub(crate) replica_user: Option<String>,
    #[serde(rename = "MySQLReplicaPassword")]
    pub(crate) replica_password: Password,
    #[serde(rename = "MySQLReplicaCredentialsConfigFile")]
    pub(crate) replica_credentials_file: String,
    /// May hold a password.
    pub(crate) replication_credentials_query: Password,
    pub(crate) recovery_period_block_seconds: Option<f64>,
    pub(crate) recovery_period_block_minutes: Option<f64>,
    pub(crate) durability: String,
    pub(crate) instance_poll_seconds: f64,
    pub(crate) reasonable_replication_lag_seconds: f64,
    pub(crate) lock_shard_timeout_seconds: f64,
    pub(crate) wait_replicas_timeout_seconds: f64,
    pub(crate) write_outage_max_seconds: f64,
    pub(crate) replica_heartbeat_seconds: f64,
    pub(crate) topo_refresh_seconds: f64,
    #[serde(rename = "MySQLConnectTimeoutSeconds")]
    pub(crate) connect_timeout_seconds: f64,
    #[serde(rename = "MySQLDiscoveryReadTimeoutSeconds")]
    pub(crate) discovery_read_timeout_seconds: f64,
    #[serde(rename = "MySQLTopologyReadTimeoutSeconds")]
    pub(crate) topology_read_timeout_seconds: f64,
    #[serde(rename = "MySQLTopologyUseMutualTLS")]
    pub(crate) topology_use_mutual_tls: bool,
    #[serde(rename = "MySQLTopologyUseMixedTLS")]
    pub(crate) topology_use_mixed_tls: bool,
    #[serde(rename = "MySQLTopologySSLCAFile")]
    pub(crate) topology_ssl_ca_file: String,
    #[serde(rename = "MySQLTopologySSLCertFile")]
    pub(crate) topology_ssl_cert_file: String,
    #[serde(rename = "MySQLTopologySSLPrivateKeyFile")]
    pub(crate) topology_ssl_private_key_file: String,
    #[serde(rename = "MySQLTopologySSLSkipVerify")]
    pub(crate) topology_ssl_skip_verify: bool,
    #[serde(rename = "SQLite3DataFile")]
    pub(crate) sqlite3_data_file: String,
    pub(crate) listen_address: String,
    pub(crate) read_only: bool,
    pub(crate) prevent_cross_data_center_master_failover: bool,
    pub(crate) recover_master_cluster_filters: Vec<String>,
    /// No key of its own: VTOrc has a flag.
    #[serde(skip)]
    pub(crate) forbids_emergency_reparents: bool,
    pub(crate) cells_no_recovery: Vec<String>,
    pub(crate) promotion_ignore_hostname_filters: Vec<String>,
    pub(crate) promotion_rules: std::collections::BTreeMap<String, String>,
    pub(crate) drain_errant_tablets: bool,
    pub(crate) disk_stalled_recovery: bool,
    pub(crate) audit_log_file: String,
    pub(crate) audit_purge_days: u32,
    pub(crate) audit_to_syslog: bool,
    pub(crate) use_super_read_only: bool,
    pub(crate) try_replica_login: bool,
    #[serde(rename = "DelayMasterPromotionIfSQLThreadNotUpToDate")]
    pub(crate) delay_promotion: bool,
    #[serde(rename = "FailMasterPromotionIfSQLThreadNotUpToDate")]
    pub(crate) fail_promotion: bool,
    #[serde(rename = "SSLValidOUs")]
    ssl_valid_ous: Vec<String>,
    #[serde(rename = "UseSSL")]
    pub(crate) use_ssl: bool,
    #[serde(rename = "UseMutualTLS")]
    pub(crate) use_mutual_tls: bool,
    #[serde(rename = "SSLSkipVerify")]
    pub(crate) ssl_skip_verify: bool,
    #[serde(rename = "SSLCertFile")]
    pub(crate) ssl_cert_file: String,
    #[serde(rename = "SSLPrivateKeyFile")]
    pub(crate) ssl_private_key_file: String,
    #[serde(rename = "SSLCAFile")]
    pub(crate) ssl_ca_file: String,
    /// Set by a flag only.
    #[serde(skip)]
    pub(crate) tolerable_lag: Option<Duration>,
    /// Read from the same file, by itself.
    #[serde(skip)]
    pub(crate) hooks: hooks::HookConfig,
    #[serde(skip)]
    pub(crate) auth: auth::AuthConfig,
    #[serde(skip)]
    pub(crate) replica_tls: replica_tls::ReplicaTlsConfig,
}

/// The user that Orchestrator logs in as where none is named.
const DEFAULT_USER: &str = "orc_client_user";

impl Default for Config {
    fn default() -> Self {
        Self {
            debug: false,
            topology_user: None,
            topology_password: Password::default(),
            topology_credentials_file: String::new(),
            replica_user: None,
            replication_credentials_query: Password::default(),
            replica_password: Password::default(),
            replica_credentials_file: String::new(),
            recovery_period_block_seconds: None,
            recovery_period_block_minutes: None,
            durability: "none".into(),
            instance_poll_seconds: 1.0,
            reasonable_replication_lag_seconds: 10.0,
            lock_shard_timeout_seconds: 45.0,
            wait_replicas_timeout_seconds: 30.0,
            write_outage_max_seconds: 5.0,
            replica_heartbeat_seconds: 0.3,
            topo_refresh_seconds: 60.0,
            connect_timeout_seconds: 2.0,
            discovery_read_timeout_seconds: 1.0,
            topology_read_timeout_seconds: 10.0,
            topology_use_mutual_tls: false,
            topology_use_mixed_tls: true,
            topology_ssl_ca_file: String::new(),
            topology_ssl_cert_file: String::new(),
            topology_ssl_private_key_file: String::new(),
            topology_ssl_skip_verify: false,
            sqlite3_data_file: String::new(),
            listen_address: ":3000".into(),
            read_only: false,
            prevent_cross_data_center_master_failover: false,
            recover_master_cluster_filters: vec!["*".into()],
            forbids_emergency_reparents: false,
            cells_no_recovery: Vec::new(),
            promotion_ignore_hostname_filters: Vec::new(),
            promotion_rules: Default::default(),
            drain_errant_tablets: false,
            disk_stalled_recovery: false,
            tolerable_lag: None,
            audit_log_file: String::new(),
            audit_purge_days: 90,
            audit_to_syslog: false,
            use_super_read_only: true,
            try_replica_login: true,
            delay_promotion: true,
            fail_promotion: false,
            ssl_valid_ous: Vec::new(),
            use_ssl: false,
            use_mutual_tls: false,
            ssl_skip_verify: false,
            ssl_cert_file: String::new(),
            ssl_private_key_file: String::new(),
            ssl_ca_file: String::new(),
            hooks: Default::default(),
            auth: Default::default(),
            replica_tls: Default::default(),
        }
    }
}

/// A configuration and what there is to say about the file.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Lines for the log: keys without effect here.
    pub(crate) notes: Vec<String>,
    /// Lines for the log: keys nobody knows, settings to reconsider.
    pub(crate) warnings: Vec<String>,
    /// Keys nobody knows.
    pub(crate) unknown: Vec<String>,
}

/// Reads the file; without one, the defaults.
pub(crate) fn load(file: Option<&Path>) -> Result<Loaded, Failure> {
    let Some(file) = file else { return parse("defaults", "{}") };
    let failure =
        |error| Failure::while_doing(&format!("read the configuration {}", file.display()), error);
    let text = std::fs::read_to_string(file).map_err(failure)?;
    parse(&file.display().to_string(), &text)
}

pub(crate) fn parse(file: &str, text: &str) -> Result<Loaded, Failure> {
    // A struct would also be read from an array, in the order of its fields.
    if !text.trim_start().starts_with('{') {
        return Err(Failure(format!("{file}, line 1: a JSON object is expected")));
    }
    let source = Source::new(file, text);
    let (mut config, mut others) = read::<Config>(&source)?;
    let (hooks, not_hooks) = read::<hooks::HookConfig>(&source)?;
    let (auth, not_auth) = read::<auth::AuthConfig>(&source)?;
    let (replica_tls, not_tls) = read::<replica_tls::ReplicaTlsConfig>(&source)?;
    (config.hooks, config.auth, config.replica_tls) = (hooks, auth, replica_tls);
    let everywhere = [&not_hooks, &not_auth, &not_tls];
    others.retain(|key| everywhere.iter().all(|unread| unread.contains(key)));
    config.hooks.is_of_orchestrators_file = others.iter().any(|key| keys::look_up(key).is_some());
    let (mut notes, mut warnings, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for key in others {
        match keys::look_up(&key) {
            Some(known) if known.support == Support::Incompatible => {
                warnings.push(format!("{key} has no effect here: {}", known.why));
            }
            Some(known) => notes.push(format!("{key}: {}", known.why)),
            None => {
                let nearest = keys::nearest(&key).map(|near| format!("; did you mean {near}?"));
                warnings.push(format!("{key}: unknown key{}", nearest.unwrap_or_default()));
                unknown.push(key);
            }
        }
    }
    if config.topology_password.0 == PUBLISHED_PASSWORD {
        warnings.push(
            "MySQLTopologyPassword is the sample's, which everybody knows; set another one"
                .to_owned(),
        );
    }
    config.check().map_err(|error| Failure(format!("{file}: {error}")))?;
    // What cannot be read now is told where it is needed.
    let replica = config.mysql_access().ok().and_then(|access| access.replica);
    warnings.extend(replica.and_then(|login| warn_of_length(&login.password)));
    Ok(Loaded { config, notes, warnings, unknown })
}

/// Reads the keys of one struct, and names those that are none of its.
fn read<T: serde::de::DeserializeOwned>(source: &Source<'_>) -> Result<(T, Vec<String>), Failure> {
    let mut others = Vec::new();
    let mut json = serde_json::Deserializer::from_str(&source.text);
    let mut path = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut path);
    match serde_ignored::deserialize(tracked, |key| others.push(key.to_string())) {
        Ok(parsed) => {
            json.end().map_err(|error| wrong(source, ".", &error))?;
            Ok((parsed, others))
        }
        Err(error) => Err(wrong(source, &path.path().to_string(), &error)),
    }
}

/// The password of the sample configuration.
const PUBLISHED_PASSWORD: &str = "orc_client_user_password";

/// What is wrong, with file, line and key, and without the value where it may be a secret.
fn wrong(source: &Source<'_>, key: &str, error: &serde_json::Error) -> Failure {
    let place = source.place(error);
    if key == "." || key.is_empty() || key == "?" {
        return Failure(format!("{place}: {error}"));
    }
    let text = error.to_string();
    let secret =
        ["password", "secret", "token"].iter().any(|word| key.to_lowercase().contains(word));
    let text = match (secret, text.split_once("expected")) {
        (true, Some((_, expected))) => format!("wrong type, expected{expected}"),
        (true, None) => "wrong type".to_owned(),
        (false, _) => text,
    };
    Failure(format!("{place}, key {key}: {text}"))
}

/// A filter of this key.
fn filter<F: FromStr<Err = BadFilter>>(key: &str, text: &str) -> Result<F, Failure> {
    text.parse().map_err(|bad| Failure(format!("{key}: {bad}")))
}

fn filters<F: FromStr<Err = BadFilter>>(key: &str, texts: &[String]) -> Result<Vec<F>, Failure> {
    texts.iter().map(|text| filter(key, text)).collect()
}

impl Config {
    fn check(&self) -> Result<(), Failure> {
        self.recovery_settings()?;
        self.authentication()?;
        self.hooks.settings()?;
        let positive = [
            ("InstancePollSeconds", self.instance_poll_seconds),
            ("MySQLConnectTimeoutSeconds", self.connect_timeout_seconds),
            ("MySQLDiscoveryReadTimeoutSeconds", self.discovery_read_timeout_seconds),
            ("MySQLTopologyReadTimeoutSeconds", self.topology_read_timeout_seconds),
            ("WriteOutageMaxSeconds", self.write_outage_max_seconds),
            ("ReplicaHeartbeatSeconds", self.replica_heartbeat_seconds),
        ];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0 && value < 86_400.0) {
                return Err(Failure(format!(
                    "{key} is {value}; it must be more than 0 and less than a day"
                )));
            }
        }
        if self.use_mutual_tls && self.ssl_ca_file.is_empty() {
            return Err(Failure("UseMutualTLS needs SSLCAFile".into()));
        }
        if self.use_mutual_tls && !self.ssl_valid_ous.is_empty() {
            return Err(Failure(
                "SSLValidOUs: every certificate of SSLCAFile is let in here, whatever its unit; use an authority \
                 of its own for those who may, and take the key out"
                    .into(),
            ));
        }
        if (self.use_ssl || self.use_mutual_tls)
            && (self.ssl_cert_file.is_empty() || self.ssl_private_key_file.is_empty())
        {
            return Err(Failure("UseSSL needs SSLCertFile and SSLPrivateKeyFile".into()));
        }
        Ok(())
    }

    fn default_durability(&self) -> Result<DurabilityPolicy, Failure> {
        self.durability.parse().map_err(|error| Failure(format!("Durability: {error}")))
    }

    /// By alias or host pattern.
    fn promotion_rules(&self) -> Result<Vec<(String, PromotionRule)>, Failure> {
        let each = self.promotion_rules.iter().map(|(who, name)| {
            let rule = PromotionRule::from_name(name).ok_or_else(|| {
                Failure(format!(
                    "PromotionRules: {who} is {name:?}; rules are prefer, neutral, prefer_not, must_not"
                ))
            })?;
            let _: HostFilter = filter("PromotionRules", who)?;
            Ok((who.clone(), rule))
        });
        each.collect()
    }

    /// The block period; seconds win over minutes.
    pub(crate) fn block_period(&self) -> Duration {
        let minutes = self.recovery_period_block_minutes.map(|minutes| minutes * 60.0);
        seconds(self.recovery_period_block_seconds.or(minutes).unwrap_or(3600.0))
    }

    pub(crate) fn recovery_settings(&self) -> Result<RecoverySettings, Failure> {
        Ok(RecoverySettings {
            block_period: self.block_period(),
            default_durability: self.default_durability()?,
            prevent_cross_cell_failover: self.prevent_cross_data_center_master_failover,
            wait_replicas_timeout: seconds(self.wait_replicas_timeout_seconds),
            lock_timeout: seconds(self.lock_shard_timeout_seconds),
            reasonable_lag: seconds(self.reasonable_replication_lag_seconds),
            write_outage_max: seconds(self.write_outage_max_seconds),
            use_super_read_only: self.use_super_read_only,
            try_replica_login: self.try_replica_login,
            unapplied: if self.fail_promotion {
                UnappliedPolicy::Fail
            } else {
                UnappliedPolicy::Wait
            },
            recover_filters: filters(
                "RecoverMasterClusterFilters",
                &self.recover_master_cluster_filters,
            )?,
            emergency_reparents: !self.forbids_emergency_reparents,
            cells_no_recovery: self.cells_no_recovery.clone(),
            promotion_rules: self.promotion_rules()?,
            promotion_ignore_hosts: filters(
                "PromotionIgnoreHostnameFilters",
                &self.promotion_ignore_hostname_filters,
            )?,
            drain_errant: self.drain_errant_tablets,
            disk_stalled_recovery: self.disk_stalled_recovery,
            tolerable_lag: self
                .tolerable_lag
                .unwrap_or(seconds(self.reasonable_replication_lag_seconds)),
            heartbeat_period: seconds(self.replica_heartbeat_seconds),
            keeps_logins: self.keeps_logins(),
            command_timeout: seconds(self.topology_read_timeout_seconds),
        })
    }

    /// Longest wait for a connection.
    pub(crate) fn connect_timeout(&self) -> Duration {
        seconds(self.connect_timeout_seconds)
    }

    /// What replicas are told to ask their source for.
    pub(crate) fn heartbeat_period(&self) -> Duration {
        seconds(self.replica_heartbeat_seconds)
    }

    /// Tells whether somebody said whom to log in as. Where nobody did, servers with a vttablet are reached
    /// through that alone.
    pub(crate) fn names_topology_user(&self) -> bool {
        !self.topology_credentials_file.is_empty()
            || self.topology_user.as_ref().is_some_and(|user| !user.is_empty())
    }

    /// Nobody said whom replicas log in as: each keeps what its channel uses.
    fn keeps_logins(&self) -> bool {
        self.replica_credentials_file.is_empty()
            && self.replica_user.as_ref().is_none_or(String::is_empty)
    }

    pub(crate) fn mysql_access(&self) -> Result<MysqlAccess, Failure> {
        let topology = credentials(
            "MySQLTopology",
            (self.topology_user.as_deref().unwrap_or(DEFAULT_USER), &self.topology_password),
            &self.topology_credentials_file,
        )?;
        let replica = credentials(
            "MySQLReplica",
            (self.replica_user.as_deref().unwrap_or_default(), &self.replica_password),
            &self.replica_credentials_file,
        )?;
        if self.keeps_logins() && !replica.1.reveal().is_empty() {
            let why = "MySQLReplicaPassword without MySQLReplicaUser: name the user as well, or leave both away";
            return Err(Failure(why.into()));
        }
        let query = self.replication_credentials_query.resolve("ReplicationCredentialsQuery")?;
        let path = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
        let wants_tls = self.topology_use_mutual_tls
            || self.topology_ssl_skip_verify
            || !self.topology_ssl_ca_file.is_empty();
        let tls = wants_tls.then(|| TlsFiles {
            ca: path(&self.topology_ssl_ca_file),
            cert: path(&self.topology_ssl_cert_file),
            key: path(&self.topology_ssl_private_key_file),
            skip_verify: self.topology_ssl_skip_verify,
            mixed: self.topology_use_mixed_tls,
        });
        Ok(MysqlAccess {
            user: topology.0,
            password: topology.1,
            replica: (!self.keeps_logins()).then_some(Login {
                user: replica.0,
                password: replica.1,
                tls: None,
            }),
            replica_tls: self.replica_tls.wanted()?,
            replica_query: (!query.reveal().is_empty()).then_some(query),
            tls,
            connect_timeout: self.connect_timeout(),
            use_super_read_only: self.use_super_read_only,
            heartbeat_period: self.heartbeat_period(),
        })
    }

    pub(crate) fn authentication(&self) -> Result<Authentication, Failure> {
        self.auth.authentication()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"Debug": true, "MySQLTopologyUser": "orc_client_user",
        "MySQLTopologyPassword": "orc_client_user_password", "MySQLReplicaUser": "vt_repl",
        "MySQLReplicaPassword": "", "RecoveryPeriodBlockSeconds": 5}"#;

    fn error(text: &str) -> String {
        parse("orc.json", text).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_sample_is_accepted_with_a_warning_about_its_password() {
        let loaded = parse("orc.json", SAMPLE).unwrap();
        assert!(loaded.config.debug && loaded.notes.is_empty());
        assert_eq!(loaded.config.block_period(), Duration::from_secs(5));
        assert!(loaded.warnings.iter().any(|line| line.contains("everybody knows")));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("orc_config.json");
        assert_eq!(load(Some(&file)).unwrap().config, loaded.config);
    }

    #[test]
    fn keys_are_taken_in_any_case_the_last_counts_and_null_changes_nothing() {
        let text = "\n\n{\"debug\": false, \"Debug\": true, \"recoveryPeriodBlockSeconds\": 5, \
            \"PreFailoverProcesses\": null, \"Durability\": \"none\", \"Durability\": null}";
        let loaded = parse("orc.json", text).unwrap();
        assert!(loaded.config.debug && loaded.unknown.is_empty(), "{loaded:?}");
        assert_eq!(loaded.config.block_period(), Duration::from_secs(5));
        assert_eq!(loaded.config.durability, "none");
        let wrong = error(r#"{"instancePollSeconds": "fast"}"#);
        assert!(wrong.contains("orc.json, key InstancePollSeconds"), "{wrong}");
    }

    #[test]
    fn who_may_change_something_as_orchestrators_files_say() {
        let read = |text| parse("f", text).map(|loaded| loaded.config.authentication().is_ok());
        let proxy = r#"{"AuthenticationMethod": "proxy", "AuthUserHeader": "X-User",
            "PowerAuthUsers": ["ann"], "PowerAuthGroups": ["dba"]}"#;
        assert!(read(proxy).unwrap());
        let multi = r#"{"AuthenticationMethod": "multi", "HTTPAuthUser": "ann"}"#;
        assert!(error(multi).contains("HTTPAuthPassword"));
        let wrong = r#"{"AuthenticationMethod": "proxy", "AuthProxyAddresses": ["proxy-host"]}"#;
        assert!(error(wrong).contains("AuthProxyAddresses"));
        let units = r#"{"UseMutualTLS": true, "SSLCAFile": "ca", "SSLCertFile": "c",
            "SSLPrivateKeyFile": "k", "SSLValidOUs": ["dba"]}"#;
        assert!(error(units).contains("SSLValidOUs"));
    }

    #[test]
    fn tls_of_replication_is_left_alone_where_nobody_says() {
        let tls = |text| parse("f", text).unwrap().config.mysql_access().unwrap().replica_tls;
        assert_eq!(tls("{}"), None);
        let off = tls(r#"{"MySQLReplicaUseSSL": false}"#).unwrap();
        assert!(!off.required);
        let by_file = tls(r#"{"MySQLReplicaSSLCAFile": "/etc/ca.pem"}"#).unwrap();
        assert!(
            by_file.required && by_file.ca_file == "/etc/ca.pem" && by_file.verifies_host.is_none()
        );
        let both = r#"{"MySQLReplicaUseSSL": false, "MySQLReplicaSSLCAFile": "ca"}"#;
        let both = parse("f", both).and_then(|loaded| loaded.config.mysql_access());
        assert!(both.unwrap_err().to_string().contains("MySQLReplicaUseSSL is false"));
    }

    #[test]
    fn a_password_that_no_replica_could_be_told_is_named() {
        let warned = |letters: usize| {
            let password = "x".repeat(letters);
            let text =
                format!(r#"{{"MySQLReplicaUser": "r", "MySQLReplicaPassword": "{password}"}}"#);
            parse("f", &text).unwrap().warnings.iter().any(|line| line.contains("at most 32"))
        };
        assert!(!warned(32) && warned(33));
    }

    #[test]
    fn block_periods() {
        let period = |text| parse("f", text).unwrap().config.block_period().as_secs();
        assert_eq!(period("{}"), 3600);
        assert_eq!(period(r#"{"RecoveryPeriodBlockMinutes": 2}"#), 120);
        assert_eq!(
            period(r#"{"RecoveryPeriodBlockMinutes": 2, "RecoveryPeriodBlockSeconds": 0}"#),
            0
        );
    }

    #[test]
    fn other_keys_are_named() {
        let text = r#"{"GraphitePath": "x", "RaftEnabled": false, "RecoveryPeriodBlokSeconds": 3, "Wibble": 1}"#;
        let loaded = parse("f", text).unwrap();
        assert!(
            loaded.notes.iter().any(|line| line.starts_with("GraphitePath: ")),
            "{:?}",
            loaded.notes
        );
        assert_eq!(loaded.unknown, ["RecoveryPeriodBlokSeconds", "Wibble"]);
        let warned = |text: &str| loaded.warnings.iter().any(|line| line.contains(text));
        assert!(warned("did you mean RecoveryPeriodBlockSeconds?"), "{:?}", loaded.warnings);
        assert!(warned("RaftEnabled has no effect here"), "{:?}", loaded.warnings);
    }

    #[test]
    fn wrong_input_is_named_with_file_line_and_key() {
        let text = error("{\n\"Debug\": true,\n\"InstancePollSeconds\": \"fast\"}");
        assert!(text.contains("orc.json, line 3, key InstancePollSeconds"), "{text}");
        assert!(error("{").starts_with("orc.json, line 1"));
        assert!(error("[]").contains("orc.json"));
        assert!(error(r#"{"Durability": "best"}"#).contains("best"));
        assert!(error(r#"{"InstancePollSeconds": 0}"#).contains("InstancePollSeconds"));
        assert!(error(r#"{"AuthenticationMethod": "oauth"}"#).contains("oauth"));
        assert!(load(Some(Path::new("/no/such.json"))).unwrap_err().0.contains("/no/such.json"));
    }

    /// Known keys with values of all kinds: the file is taken or refused, and no password is told.
    fn takes_or_refuses(names: &[&'static str], kinds: &[usize]) {
        let all = serde_json::json!([
            null, true, -1, 0, 1.5, 1e300, u64::MAX, "", "s3cret", ["s3cret"], [1], {"a": "s3cret"}
        ]);
        let pairs =
            names.iter().zip(kinds).map(|(name, kind)| (name.to_string(), all[*kind].clone()));
        let file = serde_json::Value::Object(pairs.collect()).to_string();
        let is_secret = |name: &&str| name.contains("Password") || name.contains("Secret");
        let read = match parse("f", &file) {
            Ok(loaded) => {
                let _ = (loaded.config.recovery_settings(), loaded.config.mysql_access());
                format!("{loaded:?}")
            }
            Err(why) => why.0,
        };
        assert!(!names.iter().all(is_secret) || !read.contains("s3cret"), "{read}");
    }

    proptest::proptest! {
        #[test]
        fn any_value_of_any_key(
            at in proptest::collection::vec(0..KEYS.len(), 0..6),
            kinds in proptest::collection::vec(0..12usize, 6),
        ) {
            let names: Vec<&'static str> = at.iter().map(|at| KEYS[*at].name).collect();
            takes_or_refuses(&names, &kinds);
        }
    }

    #[test]
    fn no_secret_shows_in_errors_or_prints() {
        let text = error(r#"{"MySQLTopologyPassword": 123456789}"#);
        assert!(!text.contains("123456789") && text.contains("MySQLTopologyPassword"), "{text}");
        let loaded =
            parse("f", r#"{"MySQLTopologyPassword": "s3cret", "HTTPAuthPassword": "s3cret"}"#);
        assert!(!format!("{loaded:?}").contains("s3cret"));
        let access = loaded.unwrap().config.mysql_access().unwrap();
        assert!(!format!("{access:?}").contains("s3cret"));
        assert_eq!(access.password.reveal(), "s3cret");
    }

    #[test]
    fn passwords_come_from_the_environment_or_a_file() {
        let config = parse("f", r#"{"MySQLTopologyPassword": "${PATH}"}"#).unwrap().config;
        assert_eq!(
            config.mysql_access().unwrap().password.reveal(),
            std::env::var("PATH").unwrap()
        );
        let config =
            parse("f", r#"{"MySQLTopologyPassword": "${NO_SUCH_VARIABLE}"}"#).unwrap().config;
        assert!(config.mysql_access().unwrap_err().0.contains("NO_SUCH_VARIABLE"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("my.cnf");
        std::fs::write(&file, "[client]\nuser = ann\npassword = \"pa=ss\"\n").unwrap();
        let text =
            format!(r#"{{"MySQLTopologyCredentialsConfigFile": {:?}}}"#, file.to_str().unwrap());
        let access = parse("f", &text).unwrap().config.mysql_access().unwrap();
        assert_eq!((access.user.as_str(), access.password.reveal()), ("ann", "pa=ss"));
    }

    #[test]
    fn a_filter_that_is_no_pattern_stops_the_start() {
        for key in ["PromotionIgnoreHostnameFilters", "RecoverMasterClusterFilters"] {
            let wrong = parse("f", &format!(r#"{{"{key}": ["ok", "db("]}}"#)).unwrap_err();
            assert!(wrong.0.contains(key) && wrong.0.contains("db("), "{wrong}");
        }
    }

    #[test]
    fn promotion_rules_have_known_names() {
        let rules = |text| parse("f", text).unwrap().config.recovery_settings();
        let settings = rules(r#"{"PromotionRules": {"zone1-0000000101": "must_not"}}"#).unwrap();
        let expected = ("zone1-0000000101".to_owned(), PromotionRule::MustNot);
        assert_eq!(settings.promotion_rules, [expected]);
        let text = r#"{"PromotionRules": {"h1": "never"}}"#;
        let wrong = parse("f", text).map(|_| ()).unwrap_err();
        assert!(wrong.0.contains("h1") && wrong.0.contains("prefer_not"), "{wrong}");
    }

    #[test]
    fn honoured_keys_are_all_in_the_table_and_really_read() {
        for key in KEYS.iter().filter(|key| key.support == Support::Honoured) {
            // A key that is read complains about a value of no possible type.
            let text = format!(r#"{{"{}": [{{"no": "such type"}}]}}"#, key.name);
            assert!(parse("f", &text).is_err(), "{} is not read", key.name);
        }
    }

    #[test]
    fn the_documentation_lists_every_key() {
        let expected = keys::as_markdown();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let (start, end) = ("<!-- keys -->\n", "<!-- /keys -->");
        if std::env::var_os("REWRITE").is_some() {
            let (before, rest) = text.split_once(start).unwrap();
            let after = rest.split_once(end).unwrap().1;
            std::fs::write(&file, format!("{before}{start}{expected}{end}{after}")).unwrap();
            return;
        }
        assert!(text.contains(&expected), "run the test with REWRITE=1 and read the difference");
    }
}
