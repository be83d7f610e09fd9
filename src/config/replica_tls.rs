//! The keys of whether replicas follow by TLS.

use serde::Deserialize;
use vtorc_clients::mysql::ChannelTls;

use crate::Failure;

/// How replicas protect the connection to their source. Paths are on their machines.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct ReplicaTlsConfig {
    #[serde(rename = "MySQLReplicaUseSSL")]
    use_ssl: Option<bool>,
    #[serde(rename = "MySQLReplicaSSLCAFile")]
    ca_file: String,
    #[serde(rename = "MySQLReplicaSSLCertFile")]
    cert_file: String,
    #[serde(rename = "MySQLReplicaSSLPrivateKeyFile")]
    private_key_file: String,
    #[serde(rename = "MySQLReplicaSSLVerifyServerCert")]
    verify_server_cert: Option<bool>,
}

impl ReplicaTlsConfig {
    /// Nothing where nobody said: each channel keeps what it has.
    pub(crate) fn wanted(&self) -> Result<Option<ChannelTls>, Failure> {
        if *self == Self::default() {
            return Ok(None);
        }
        let off = Self { use_ssl: Some(false), ..Self::default() };
        if self.use_ssl == Some(false) && *self != off {
            let why = "MySQLReplicaUseSSL is false, and other MySQLReplicaSSL keys are given: leave them away, or set it to true";
            return Err(Failure(why.into()));
        }
        Ok(Some(ChannelTls {
            required: *self != off,
            ca_file: self.ca_file.clone(),
            ca_path: String::new(),
            certificate: self.cert_file.clone(),
            key: self.private_key_file.clone(),
            verifies_host: self.verify_server_cert,
        }))
    }
}
