//! Requests to a consul agent, and what it answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use vtorc_core::ports::TopoError;

use crate::certificates::{pem, roots};
use crate::mysql::Secret;

/// One request takes at most this long, beside what it was told to wait.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How an agent's interface is reached by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsulTls {
    /// TLS also where the address does not begin with `https://`.
    pub always: bool,
    /// Certificate authorities to trust (PEM); without, the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and our key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A key, what it holds, and who holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    pub(super) key: String,
    value: Option<String>,
    pub(super) flags: u64,
    /// The session that holds it; empty if none does.
    #[serde(default)]
    pub(super) session: String,
    pub(super) modify_index: u64,
}

impl Pair {
    pub(super) fn value(&self) -> Result<Vec<u8>, TopoError> {
        let decoded = BASE64.decode(self.value.as_deref().unwrap_or_default());
        let path = self.key.clone();
        decoded.map_err(|error| TopoError::Damaged { path, why: error.to_string() })
    }
}

/// A reading, and the index by which the next one waits for a change.
pub(super) struct Reading<T> {
    pub(super) found: T,
    pub(super) index: u64,
}

/// The agent of one address, with one token.
pub(super) struct Agent {
    address: String,
    base: Url,
    client: Client,
}

impl Agent {
    pub(super) fn new(
        address: &str,
        token: Option<&Secret>,
        tls: &ConsulTls,
    ) -> Result<Self, TopoError> {
        let invalid = |why: String| TopoError::Invalid(format!("consul at {address}: {why}"));
        let address = address.trim();
        let scheme = if tls.always { "https" } else { "http" };
        let uri = match address.contains("://") {
            true => address.to_owned(),
            false => format!("{scheme}://{address}"),
        };
        let base = Url::parse(&uri).map_err(|error| invalid(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(invalid("expected host:port, or http:// or https:// before it".into()));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.reveal())
                .map_err(|_| invalid("the token has signs that no header may have".into()))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-consul-token"), value);
        }
        let client = Client::builder()
            .tls_backend_preconfigured(tls_config(tls).map_err(&invalid)?)
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { address: address.to_owned(), base, client })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn unavailable(&self, why: &str) -> TopoError {
        TopoError::Unavailable(format!("consul at {}: {why}", self.address))
    }

    /// `/v1/` and these parts. A key is one part a directory.
    fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(parts);
        }
        url
    }

    fn kv(&self, key: &str) -> Url {
        self.url(std::iter::once("kv").chain(key.split('/')))
    }

    /// One request: the answer's status, index and text.
    async fn ask(
        &self,
        method: Method,
        url: Url,
        query: &[(&str, &str)],
        body: Vec<u8>,
        waits: Duration,
    ) -> Result<(StatusCode, u64, Vec<u8>), TopoError> {
        let request = self.client.request(method, url).query(query).body(body);
        let failure = |error: reqwest::Error| {
            // The library's own words end where the reason begins.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            match error.is_timeout() {
                true => self.unavailable("no answer in time"),
                false => self.unavailable(&cause.to_string()),
            }
        };
        let answer = request.timeout(REQUEST_TIMEOUT + waits).send().await.map_err(failure)?;
        let status = answer.status();
        let index = answer.headers().get("x-consul-index");
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok()).unwrap_or_default();
        let filtered = answer.headers().get("x-consul-results-filtered-by-acls");
        if filtered.is_some_and(|filtered| filtered == "true") {
            // What the token may not read is left out: a tablet that is not seen must not be taken for deleted.
            return Err(self.unavailable("the token may not read all that is there"));
        }
        let body = answer.bytes().await.map_err(failure)?.to_vec();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok((status, index, body));
        }
        let text = String::from_utf8_lossy(&body);
        let hint =
            if status == StatusCode::FORBIDDEN { " (which token may, ACLs say)" } else { "" };
        Err(self.unavailable(&format!("{status}: {}{hint}", text.trim())))
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, TopoError> {
        serde_json::from_slice(body)
            .map_err(|error| self.unavailable(&format!("an answer that is not consul's: {error}")))
    }

    /// Reads keys; nothing if there is none.
    async fn read<T: DeserializeOwned>(
        &self,
        url: Url,
        query: &[(&str, &str)],
        waits: Duration,
    ) -> Result<Reading<Option<T>>, TopoError> {
        let (status, index, body) = self.ask(Method::GET, url, query, Vec::new(), waits).await?;
        let found = match status {
            StatusCode::NOT_FOUND => None,
            _found => Some(self.parsed(&body)?),
        };
        Ok(Reading { found, index })
    }

    /// A key as the leader has it, after it made sure that it is the leader.
    pub(super) async fn pair(&self, key: &str) -> Result<Option<Pair>, TopoError> {
        let read = self.read(self.kv(key), &[("consistent", "")], Duration::ZERO).await?;
        Ok(read.found.and_then(|pairs: Vec<Pair>| pairs.into_iter().next()))
    }

    /// The keys and directories right below a directory that ends in a slash; directories end in one too.
    pub(super) async fn children(&self, directory: &str) -> Result<Vec<String>, TopoError> {
        let query = [("keys", ""), ("separator", "/"), ("consistent", "")];
        let read = self.read(self.kv(directory), &query, Duration::ZERO).await?;
        Ok(read.found.unwrap_or_default())
    }

    /// Everything below a directory that ends in a slash; waits until it is newer than `index`, or for so long.
    pub(super) async fn below(
        &self,
        directory: &str,
        index: u64,
        waits: Duration,
    ) -> Result<Reading<Vec<Pair>>, TopoError> {
        let query = [("recurse", "")];
        let read = self.wait_and_read(directory, &query, index, waits).await?;
        Ok(Reading { found: read.found.unwrap_or_default(), index: read.index })
    }

    /// Waits until a key changed, or for so long.
    pub(super) async fn changed(&self, pair: &Pair, waits: Duration) -> Result<(), TopoError> {
        let index = pair.modify_index;
        self.wait_and_read::<Vec<Pair>>(&pair.key, &[], index, waits).await.map(|_| ())
    }

    async fn wait_and_read<T: DeserializeOwned>(
        &self,
        key: &str,
        query: &[(&str, &str)],
        index: u64,
        waits: Duration,
    ) -> Result<Reading<Option<T>>, TopoError> {
        let (index, wait) = (index.to_string(), format!("{}ms", waits.as_millis().max(1)));
        let mut query = query.to_vec();
        query.extend([("index", index.as_str()), ("wait", wait.as_str())]);
        // The agent adds up to a sixteenth, so that not all who wait come back at once.
        self.read(self.kv(key), &query, waits + waits / 16).await
    }

    /// Writes a key under a condition; tells whether it held.
    pub(super) async fn put(
        &self,
        key: &str,
        condition: &[(&str, &str)],
        value: &[u8],
    ) -> Result<bool, TopoError> {
        let url = self.kv(key);
        let asked = self.ask(Method::PUT, url, condition, value.to_vec(), Duration::ZERO);
        let (_, _, body) = asked.await?;
        self.parsed(&body)
    }

    /// Deletes a key, if it is still as old as this.
    pub(super) async fn delete(&self, pair: &Pair) -> Result<bool, TopoError> {
        let index = pair.modify_index.to_string();
        let (url, query) = (self.kv(&pair.key), [("cas", index.as_str())]);
        let asked = self.ask(Method::DELETE, url, &query, Vec::new(), Duration::ZERO);
        let (_, _, body) = asked.await?;
        self.parsed(&body)
    }

    /// Begins a session and answers its name.
    pub(super) async fn begin_session(
        &self,
        wanted: &serde_json::Value,
    ) -> Result<String, TopoError> {
        #[derive(Deserialize)]
        struct Begun {
            #[serde(rename = "ID")]
            id: String,
        }
        let (url, body) = (self.url(["session", "create"]), wanted.to_string().into_bytes());
        let (_, _, body) = self.ask(Method::PUT, url, &[], body, Duration::ZERO).await?;
        self.parsed(&body).map(|begun: Begun| begun.id)
    }

    /// Prolongs a session; false if it is over.
    pub(super) async fn renew_session(&self, id: &str) -> Result<bool, TopoError> {
        let url = self.url(["session", "renew", id]);
        let (status, _, _) = self.ask(Method::PUT, url, &[], Vec::new(), Duration::ZERO).await?;
        Ok(status != StatusCode::NOT_FOUND)
    }

    /// Ends a session.
    pub(super) async fn end_session(&self, id: &str) -> Result<(), TopoError> {
        let url = self.url(["session", "destroy", id]);
        self.ask(Method::PUT, url, &[], Vec::new(), Duration::ZERO).await.map(|_| ())
    }
}

/// Which TLS is spoken, where it is.
fn tls_config(tls: &ConsulTls) -> Result<ClientConfig, String> {
    let failure = |error: rustls::Error| error.to_string();
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failure)?;
    // Without TLS, no authority need be there.
    let roots = match (&tls.ca, roots(tls.ca.as_deref())) {
        (Some(_), roots) => roots?,
        (None, roots) => roots.unwrap_or_else(|_| rustls::RootCertStore::empty()),
    };
    let config = config.with_root_certificates(roots);
    match &tls.identity {
        Some((cert, key)) => {
            let private = |file: &Path| {
                PrivateKeyDer::from_pem_file(file)
                    .map_err(|error| format!("{}: {error}", file.display()))
            };
            config.with_client_auth_cert(pem(cert)?, private(key)?).map_err(failure)
        }
        None => Ok(config.with_no_client_auth()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Newer servers than those that the stories can be told on say so when they leave keys out.
    #[tokio::test]
    async fn an_answer_from_which_keys_were_left_out_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = std::thread::spawn(move || {
            for filtered in ["false", "true"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\
                     X-Consul-Results-Filtered-By-ACLs: {filtered}\r\n\r\n[\"a/b\"]"
                );
                stream.write_all(head.as_bytes()).unwrap();
            }
        });
        let agent = Agent::new(&address, None, &ConsulTls::default()).unwrap();
        assert_eq!(agent.children("a/").await.unwrap(), ["a/b"]);
        let error = agent.children("a/").await.unwrap_err();
        assert!(error.to_string().contains("token"), "{error}");
        served.join().unwrap();
    }
}
