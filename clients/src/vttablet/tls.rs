//! TLS to vttablets: whom to trust, who we are, and which certificates were taken back, by Vitess's flags.

use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateRevocationListDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vtorc_core::tablet::VttabletAddress;

use crate::certificates::{pem, roots};

/// Certificates for calls to vttablets, by the names of Vitess's `--tablet-manager-grpc-*` flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VttabletTls {
    /// Certificate authorities to trust (PEM); without one, the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate (PEM).
    pub cert: Option<PathBuf>,
    /// Our own key (PEM).
    pub key: Option<PathBuf>,
    /// Certificates that were taken back (PEM).
    pub crl: Option<PathBuf>,
    /// The name that certificates are checked against, instead of the host's.
    pub server_name: Option<String>,
}

/// How a connection is made safe.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Reads the files; the error says which is wrong. tonic's own TLS knows no revocation lists.
    pub(super) fn read(files: &VttabletTls) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(
            roots(files.ca.as_deref())
                .map_err(|error| format!("certificates for vttablets: {error}"))?,
        );
        let lists =
            files.crl.as_deref().map(pem::<CertificateRevocationListDer<'_>>).transpose()?;
        // A list speaks of whom it names; of whom no list speaks nothing is known, as in Vitess.
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(lists.unwrap_or_default())
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| format!("certificates for vttablets: {error}"))?;
        let failure = |error: rustls::Error| format!("certificates for vttablets: {error}");
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failure)?
            .with_webpki_verifier(verifier);
        let mut config = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("{}: {error}", key.display()))?;
                config.with_client_auth_cert(pem(cert)?, private).map_err(failure)?
            }
            (Some(_) | None, Some(_) | None) => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server_name = files.server_name.clone().map(ServerName::try_from).transpose();
        let server_name =
            server_name.map_err(|error| format!("--tablet-manager-grpc-server-name: {error}"))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Connects; nobody is talked to before the certificate was looked at.
    pub(super) async fn connect(
        &self,
        address: &VttabletAddress,
    ) -> std::io::Result<TokioIo<TlsStream<TcpStream>>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(address.host.clone()).map_err(std::io::Error::other)?,
        };
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(self.connector.connect(name, stream).await?))
    }
}
