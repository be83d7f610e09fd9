//! How a daemon is reached: at which addresses, as whom, by which certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use serde_json::Value;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use vtorc_web::Authentication;

use crate::cli::ctl::CtlOptions;
use crate::config::Config;
use crate::{Failure, config};

/// A requested reparent waits for the shard's lock and for replicas: longer than both.
const PATIENCE: Duration = Duration::from_secs(120);
/// Whoever is there takes a connection within this; else the next address is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// The way to a daemon.
pub(super) struct Reach {
    urls: Vec<String>,
    authorization: Option<String>,
    agent: ureq::Agent,
}

impl Reach {
    /// What is asked for goes before the environment, and that before the daemon's configuration.
    pub(super) fn of(options: &CtlOptions, file: Option<&Path>) -> Result<Self, Failure> {
        let config = file.map(|file| config::load(Some(file))).transpose()?;
        let config = config.map(|loaded| loaded.config);
        let mut urls = options.url.clone();
        if urls.is_empty() {
            let named = from_env("VTORC_URL").unwrap_or_default();
            urls = named.split(',').map(str::trim).map(str::to_owned).collect();
        }
        urls.retain(|url| !url.is_empty());
        if urls.is_empty() {
            urls.push(config.as_ref().map_or(DEFAULT_URL.into(), served_at));
        }
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let authorization = authorization(options, config.as_ref())?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .timeout_connect(Some(CONNECT_PATIENCE))
            .tls_config(tls(options, config.as_ref())?)
            .build();
        Ok(Self { urls, authorization, agent: agent.into() })
    }

    /// Sends a request to the first address at which somebody is; an answer that is an error says what the daemon said.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut unreached = Vec::new();
        for base in &self.urls {
            let url = format!("{base}{path}");
            let failure = |error: &dyn std::fmt::Display| Failure(format!("ask {url}: {error}"));
            let mut request = ureq::http::Request::builder().method(method).uri(&url);
            if body.is_some() {
                request = request.header("Content-Type", "application/json");
            }
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            let text = body.map(|body| body.to_string()).unwrap_or_default();
            let request = request.body(text).map_err(|error| failure(&error))?;
            match self.agent.run(request) {
                Ok(answer) => return read(answer, &failure),
                Err(error) if nobody_is_there(&error) => {
                    unreached.push(format!("ask {url}: {error}"));
                }
                Err(error) => return Err(failure(&error)),
            }
        }
        Err(Failure(unreached.join("; ")))
    }
}

const DEFAULT_URL: &str = "http://127.0.0.1:3000";

fn read(
    mut answer: ureq::http::Response<ureq::Body>,
    failure: &dyn Fn(&dyn std::fmt::Display) -> Failure,
) -> Result<Value, Failure> {
    let status = answer.status();
    let text = answer.body_mut().read_to_string().map_err(|error| failure(&error))?;
    let answer: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    if status.is_success() {
        return Ok(answer);
    }
    let field = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let why = [field("message"), field("details"), field("text")];
    let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
    Err(Failure(format!("{}: {}", status.as_u16(), why.join("; "))))
}

/// The request was taken by nobody: it may be sent to somebody else.
fn nobody_is_there(error: &ureq::Error) -> bool {
    use ureq::{Error, Timeout};
    let refused =
        matches!(error, Error::Io(why) if why.kind() == std::io::ErrorKind::ConnectionRefused);
    refused
        || matches!(
            error,
            Error::ConnectionFailed
                | Error::HostNotFound
                | Error::Timeout(Timeout::Connect | Timeout::Resolve)
        )
}

fn from_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where a daemon with this configuration serves, as seen from the same machine.
fn served_at(config: &Config) -> String {
    let scheme = if config.use_ssl { "https" } else { "http" };
    let (host, port) = config.listen_address.rsplit_once(':').unwrap_or(("", "3000"));
    let host = match host {
        "" | "0.0.0.0" | "[::]" => "127.0.0.1",
        host => host,
    };
    format!("{scheme}://{host}:{port}")
}

fn authorization(options: &CtlOptions, config: Option<&Config>) -> Result<Option<String>, Failure> {
    let file = |given: &Option<PathBuf>, name: &str| {
        given.clone().or_else(|| from_env(name).map(PathBuf::from))
    };
    let basic = |user: &str, password: &str| {
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {both}")
    };
    if let Some(file) = file(&options.token_file, "VTORC_TOKEN_FILE") {
        return Ok(Some(format!("Bearer {}", secret(&file)?)));
    }
    let user = options.user.clone().or_else(|| from_env("VTORC_USER"));
    match (user, file(&options.password_file, "VTORC_PASSWORD_FILE")) {
        (Some(user), Some(file)) => return Ok(Some(basic(&user, &secret(&file)?))),
        (Some(user), None) => {
            return Err(Failure(format!("--user {user} needs --password-file")));
        }
        (None, _) => {}
    }
    let known = config.map(|config| config.auth.authentication()).transpose()?;
    Ok(match known {
        Some(
            Authentication::Basic { user, password } | Authentication::Multi { user, password },
        ) => Some(basic(&user, &password)),
        Some(Authentication::Token { token }) => Some(format!("Bearer {token}")),
        Some(Authentication::None | Authentication::Proxy(_)) | None => None,
    })
}

fn secret(file: &Path) -> Result<String, Failure> {
    Ok(contents(file)?.trim().to_owned())
}

fn contents(file: &Path) -> Result<String, Failure> {
    let failure = |error| Failure::while_doing(&format!("read {}", file.display()), error);
    std::fs::read_to_string(file).map_err(failure)
}

/// The authorities of this machine, or one's own.
fn tls(options: &CtlOptions, config: Option<&Config>) -> Result<TlsConfig, Failure> {
    let of_config = config.map(|config| PathBuf::from(&config.ssl_ca_file));
    let of_config = of_config.filter(|file| !file.as_os_str().is_empty());
    let roots = match options.ca.clone().or(of_config) {
        Some(file) => RootCerts::Specific(Arc::new(certificates(&file)?)),
        None => RootCerts::PlatformVerifier,
    };
    let client = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let text = contents(key)?;
            let failure = |error| Failure::while_doing(&format!("read {}", key.display()), error);
            let key = PrivateKey::from_pem(text.as_bytes()).map_err(failure)?;
            Some(ClientCert::new_with_certs(&certificates(cert)?, key))
        }
        (Some(_), None) | (None, _) => None,
    };
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).build())
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let text = contents(file)?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    };
    let found: Vec<_> = parse_pem(text.as_bytes()).filter_map(certificate).collect();
    match found.is_empty() {
        true => Err(Failure(format!("there is no certificate in {}", file.display()))),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_where_its_daemon_serves() {
        for (json, expected) in [
            ("{}", "http://127.0.0.1:3000"),
            (r#"{"ListenAddress": "0.0.0.0:3001"}"#, "http://127.0.0.1:3001"),
            (r#"{"ListenAddress": "[::]:3001"}"#, "http://127.0.0.1:3001"),
            (r#"{"ListenAddress": "vtorc.example:3001"}"#, "http://vtorc.example:3001"),
            (
                r#"{"ListenAddress": ":1", "UseSSL": true, "SSLCertFile": "c", "SSLPrivateKeyFile": "k"}"#,
                "https://127.0.0.1:1",
            ),
        ] {
            assert_eq!(served_at(&config::parse("test", json).unwrap().config), expected, "{json}");
        }
    }
}
