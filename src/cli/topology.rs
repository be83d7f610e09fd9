//! The flags that say how topology servers are reached, beside their address. Names and defaults are Vitess's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vtorc_clients::mysql::Secret;
use vtorc_clients::topo::consul::{ConsulLocks, ConsulOptions, ConsulTls};
use vtorc_clients::topo::etcd2::{EtcdOptions, EtcdTls};
use vtorc_clients::topo::zk2::{Zk2Options, Zk2Tls};

use super::vitess::go_duration;
use crate::Failure;

/// How topology servers are reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Topology")]
pub(crate) struct TopologyOptions {
    /// Reads under way at once for one cell.
    #[arg(long, default_value_t = 32, global = true)]
    pub(crate) topo_read_concurrency: usize,
    /// ZooKeeper: the session to ask for; the server may shorten it.
    #[arg(long, value_parser = go_duration, default_value = "10s", global = true)]
    pub(crate) topo_zk_base_timeout: Duration,
    /// ZooKeeper: file with `scheme:auth`, such as `digest:user:password`.
    #[arg(long, global = true)]
    pub(crate) topo_zk_auth_file: Option<PathBuf>,
    /// ZooKeeper: certificate authorities (PEM). TLS is on where all three files are given.
    #[arg(long, global = true)]
    pub(crate) topo_zk_tls_ca: Option<PathBuf>,
    /// ZooKeeper: our certificate (PEM).
    #[arg(long, global = true)]
    pub(crate) topo_zk_tls_cert: Option<PathBuf>,
    /// ZooKeeper: our key (PEM).
    #[arg(long, global = true)]
    pub(crate) topo_zk_tls_key: Option<PathBuf>,
    /// etcd: a lock outlives a process that was killed by so many seconds.
    #[arg(long, default_value_t = 30, global = true)]
    pub(crate) topo_etcd_lease_ttl: u64,
    /// etcd: certificate authorities (PEM).
    #[arg(long, global = true)]
    pub(crate) topo_etcd_tls_ca: Option<PathBuf>,
    /// etcd: our certificate (PEM). TLS is on where certificate and key are given.
    #[arg(long, global = true)]
    pub(crate) topo_etcd_tls_cert: Option<PathBuf>,
    /// etcd: our key (PEM).
    #[arg(long, global = true)]
    pub(crate) topo_etcd_tls_key: Option<PathBuf>,
    /// Consul: JSON file with a token for each cell, `{"global": {"acl_token": "..."}}`.
    #[arg(long, global = true)]
    pub(crate) consul_auth_static_file: Option<PathBuf>,
    /// Consul: how long one request for changes waits.
    #[arg(long, value_parser = go_duration, default_value = "30s", global = true)]
    pub(crate) topo_consul_watch_poll_duration: Duration,
    /// Consul: health checks that must pass as long as a lock is held, comma separated; empty for none.
    #[arg(long, default_value = "serfHealth", global = true)]
    pub(crate) topo_consul_lock_session_checks: String,
    /// Consul: a lock outlives a process that was killed by so long, at twice this at the latest.
    #[arg(long, value_parser = session_ttl, default_value = "15s", global = true)]
    pub(crate) topo_consul_lock_session_ttl: Duration,
    /// Consul: nobody gets a lock for so long after its holder's session ended by itself.
    #[arg(long, value_parser = go_duration, default_value = "15s", global = true)]
    pub(crate) topo_consul_lock_delay: Duration,
}

/// Empty is Vitess's own default, and stands for that of consul's library.
fn session_ttl(text: &str) -> Result<Duration, String> {
    go_duration(if text.is_empty() { "15s" } else { text })
}

impl TopologyOptions {
    pub(crate) fn zk2(&self) -> Result<Zk2Options, Failure> {
        let tls = match (&self.topo_zk_tls_ca, &self.topo_zk_tls_cert, &self.topo_zk_tls_key) {
            (Some(ca), Some(cert), Some(key)) => {
                Some(Zk2Tls { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
            }
            (None, None, None) => None,
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                return Err(Failure(
                    "--topo-zk-tls-ca, --topo-zk-tls-cert and --topo-zk-tls-key go together".into(),
                ));
            }
        };
        let auth = self.topo_zk_auth_file.as_ref().map(|file| {
            let failure = |why: &dyn std::fmt::Display| {
                Failure(format!("--topo-zk-auth-file {}: {why}", file.display()))
            };
            let text = std::fs::read_to_string(file).map_err(|error| failure(&error))?;
            let split = text.trim_end_matches(['\n', '\r']).split_once(':');
            let (scheme, auth) = split.ok_or_else(|| failure(&"expected scheme:auth"))?;
            Ok::<_, Failure>((scheme.to_owned(), Secret::new(auth)))
        });
        let session_timeout = self.topo_zk_base_timeout;
        Ok(Zk2Options { session_timeout, auth: auth.transpose()?, tls })
    }

    pub(crate) fn etcd2(&self) -> Result<EtcdOptions, Failure> {
        let tls = match (&self.topo_etcd_tls_cert, &self.topo_etcd_tls_key) {
            (Some(cert), Some(key)) => Some(EtcdTls {
                cert: cert.clone(),
                key: key.clone(),
                ca: self.topo_etcd_tls_ca.clone(),
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Failure(
                    "--topo-etcd-tls-cert and --topo-etcd-tls-key go together".into(),
                ));
            }
        };
        Ok(EtcdOptions { lease_ttl: Duration::from_secs(self.topo_etcd_lease_ttl), tls })
    }

    /// What has no flag comes from the environment, as for Vitess and consul's own tools.
    pub(crate) fn consul(&self) -> Result<ConsulOptions, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = |name: &str| variable(name).map(PathBuf::from);
        let identity = match (file("CONSUL_CLIENT_CERT"), file("CONSUL_CLIENT_KEY")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Failure("CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY go together".into()));
            }
        };
        let always = variable("CONSUL_HTTP_SSL").is_some_and(|on| on == "true" || on == "1");
        let checks = self.topo_consul_lock_session_checks.split(',').map(str::trim);
        Ok(ConsulOptions {
            tokens: self.consul_tokens()?,
            token: variable("CONSUL_HTTP_TOKEN").map(Secret::new),
            tls: ConsulTls { always, ca: file("CONSUL_CACERT"), identity },
            watch_poll: self.topo_consul_watch_poll_duration,
            locks: ConsulLocks {
                checks: checks.filter(|check| !check.is_empty()).map(str::to_owned).collect(),
                ttl: self.topo_consul_lock_session_ttl,
                delay: self.topo_consul_lock_delay,
            },
        })
    }

    /// The tokens of cells, by Vitess's file.
    fn consul_tokens(&self) -> Result<BTreeMap<String, Secret>, Failure> {
        #[derive(serde::Deserialize)]
        struct Entry {
            acl_token: String,
        }
        let Some(file) = &self.consul_auth_static_file else { return Ok(BTreeMap::new()) };
        let failure = |why: &dyn std::fmt::Display| {
            Failure(format!("--consul-auth-static-file {}: {why}", file.display()))
        };
        let text = std::fs::read_to_string(file).map_err(|error| failure(&error))?;
        // Not the parser's words: they may repeat a token.
        let entries: BTreeMap<String, Entry> = serde_json::from_str(&text)
            .map_err(|_| failure(&"expected {\"CELL\": {\"acl_token\": \"...\"}}"))?;
        if entries.is_empty() {
            return Err(failure(&"no cell is named"));
        }
        Ok(entries.into_iter().map(|(cell, entry)| (cell, Secret::new(entry.acl_token))).collect())
    }
}
