//! Whom vtorc logs in as, and how it protects the connection.

use std::path::PathBuf;
use std::time::Duration;

pub use vtorc_core::secret::Secret;
pub use vtorc_core::source_access::{ChannelTls, Login};
use vtorc_core::tablet::MysqlAddress;

use super::text::{PLAIN_SESSION, WRITING_SESSION};

/// Certificates for connections to MySQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate authorities to trust (PEM).
    pub ca: Option<PathBuf>,
    /// Our own certificate (PEM).
    pub cert: Option<PathBuf>,
    /// Our own key (PEM).
    pub key: Option<PathBuf>,
    /// Accept any certificate.
    pub skip_verify: bool,
    /// Servers without TLS are reached without it.
    pub mixed: bool,
}

/// How vtorc reaches MySQL servers.
#[derive(Clone, Debug)]
pub struct MysqlAccess {
    /// The topology user.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Whom replicas log in as at their source; none where each keeps what its channel uses.
    pub replica: Option<Login>,
    /// Answers user and password for a server that has no channel to keep them from (`ReplicationCredentialsQuery`).
    pub replica_query: Option<Secret>,
    /// How replicas protect the connection to their source; none where each keeps what its channel has.
    pub replica_tls: Option<ChannelTls>,
    /// TLS, if wanted.
    pub tls: Option<TlsFiles>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Also set `super_read_only` where there is one.
    pub use_super_read_only: bool,
    /// Heartbeat period that replicas are told to ask for.
    pub heartbeat_period: Duration,
}

impl MysqlAccess {
    pub(crate) fn opts(&self, address: &MysqlAddress, deadline: Duration) -> mysql::OptsBuilder {
        let opts = mysql::OptsBuilder::new()
            .ip_or_hostname(Some(&address.host))
            .tcp_port(address.port)
            .user(Some(&self.user))
            .pass(Some(self.password.reveal()))
            .prefer_socket(false)
            .init(vec![PLAIN_SESSION, WRITING_SESSION])
            .tcp_connect_timeout(Some(self.connect_timeout.min(deadline)))
            .read_timeout(Some(deadline))
            .write_timeout(Some(deadline))
            .tcp_nodelay(true)
            .max_allowed_packet(Some(16 * 1024 * 1024));
        match &self.tls {
            None => opts,
            Some(files) => {
                let mut ssl = mysql::SslOpts::default()
                    .with_danger_accept_invalid_certs(files.skip_verify)
                    .with_root_cert_path(files.ca.clone());
                if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
                    let identity = mysql::ClientIdentity::new(cert.clone(), key.clone());
                    ssl = ssl.with_client_identity(Some(identity));
                }
                opts.ssl_opts(ssl)
            }
        }
    }

    pub(crate) fn async_opts(&self, address: &MysqlAddress) -> mysql_async::OptsBuilder {
        let opts = mysql_async::OptsBuilder::default()
            .ip_or_hostname(&address.host)
            .tcp_port(address.port)
            .user(Some(&self.user))
            .pass(Some(self.password.reveal()))
            .prefer_socket(false)
            .init(vec![PLAIN_SESSION])
            .tcp_nodelay(true)
            .wait_timeout(Some(WAIT_TIMEOUT_S))
            .max_allowed_packet(Some(16 * 1024 * 1024));
        match &self.tls {
            None => opts,
            Some(files) => {
                let mut ssl = mysql_async::SslOpts::default()
                    .with_danger_accept_invalid_certs(files.skip_verify);
                if let Some(ca) = &files.ca {
                    ssl = ssl.with_root_certs(vec![ca.clone().into()]);
                }
                if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
                    let (cert, key) = (cert.clone().into(), key.clone().into());
                    ssl =
                        ssl.with_client_identity(Some(mysql_async::ClientIdentity::new(cert, key)));
                }
                opts.ssl_opts(ssl)
            }
        }
    }
}

/// A server forgets a probe connection that was silent for so long (vtorc itself is gone).
const WAIT_TIMEOUT_S: usize = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "(hidden)");
        assert_eq!(secret.reveal(), "hunter2");
    }
}
