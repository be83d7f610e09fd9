//! Connections to the members of an etcd cluster, and what they answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Response, Status};
use vtorc_core::ports::TopoError;

use super::EtcdTls;
use crate::interface::etcdserverpb as etcd;
use etcd::kv_client::KvClient;
use etcd::lease_client::LeaseClient;
use etcd::watch_client::WatchClient;

/// One request takes at most this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A member that is silent shows within twice this. etcd hangs up on whoever pings more than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
/// An answer is at most this long: the records of a cell with very many tablets.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// The members, and which of them answered last.
pub(super) struct Connection {
    endpoints: String,
    members: Vec<Channel>,
    current: AtomicUsize,
}

impl Connection {
    pub(super) fn new(endpoints: &str, tls: Option<&EtcdTls>) -> Result<Self, TopoError> {
        let config = tls.map(tls_config).transpose()?;
        let names = endpoints.split(',').map(str::trim).filter(|name| !name.is_empty());
        let members: Result<Vec<Channel>, TopoError> =
            names.map(|name| connect(name, config.as_ref())).collect();
        let members = members?;
        if members.is_empty() {
            return Err(TopoError::Invalid("etcd2 needs the address of a server".into()));
        }
        Ok(Self { endpoints: endpoints.to_owned(), members, current: AtomicUsize::new(0) })
    }

    pub(super) fn endpoints(&self) -> &str {
        &self.endpoints
    }

    pub(super) fn unavailable(&self, why: &str) -> TopoError {
        TopoError::Unavailable(format!("etcd at {}: {why}", self.endpoints))
    }

    fn member(&self, at: usize) -> Option<Channel> {
        self.members.get(at % self.members.len()).cloned()
    }

    /// Asks the member that answered last, then the others, until one answers.
    async fn ask<T, F>(&self, again: Again, send: impl Fn(Channel) -> F) -> Result<T, TopoError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let first = self.current.load(Ordering::Acquire);
        let mut last = self.unavailable("no member");
        for at in first..first + self.members.len() {
            let Some(member) = self.member(at) else { break };
            let failure = match timeout(REQUEST_TIMEOUT, send(member)).await {
                Ok(Ok(answer)) => {
                    self.current.store(at, Ordering::Release);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) if !is_absence(&status) => return Err(self.refused(&status)),
                Ok(Err(status)) => {
                    let sent = std::error::Error::source(&status)
                        .is_none_or(|cause| !format!("{cause:?}").contains("ConnectError"));
                    last = self.unavailable(status.message());
                    sent
                }
                Err(_elapsed) => {
                    last = self.unavailable("no answer in time");
                    true
                }
            };
            let may_have_arrived = failure;
            self.current.store(at + 1, Ordering::Release);
            if again == Again::IfNotSent && may_have_arrived {
                break;
            }
        }
        Err(last)
    }

    fn refused(&self, status: &Status) -> TopoError {
        self.unavailable(&format!("{} ({:?})", status.message(), status.code()))
    }

    pub(super) async fn range(
        &self,
        request: etcd::RangeRequest,
    ) -> Result<etcd::RangeResponse, TopoError> {
        let send = |member| {
            let request = request.clone();
            async move {
                KvClient::new(member).max_decoding_message_size(ANSWER_MAX).range(request).await
            }
        };
        self.ask(Again::Always, send).await
    }

    pub(super) async fn transact(
        &self,
        request: etcd::TxnRequest,
    ) -> Result<etcd::TxnResponse, TopoError> {
        let send = |member| {
            let request = request.clone();
            async move { KvClient::new(member).txn(request).await }
        };
        self.ask(Again::IfNotSent, send).await
    }

    pub(super) async fn grant_lease(&self, ttl: Duration) -> Result<i64, TopoError> {
        let ttl = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let send = |member| async move {
            LeaseClient::new(member).lease_grant(etcd::LeaseGrantRequest { ttl, id: 0 }).await
        };
        // One that was granted and not heard of ends by itself.
        Ok(self.ask(Again::Always, send).await?.id)
    }

    pub(super) async fn revoke_lease(&self, id: i64) -> Result<(), TopoError> {
        let send = |member| async move {
            match LeaseClient::new(member).lease_revoke(etcd::LeaseRevokeRequest { id }).await {
                // It ended already.
                Err(status) if status.code() == Code::NotFound => {
                    Ok(Response::new(etcd::LeaseRevokeResponse::default()))
                }
                other => other,
            }
        };
        self.ask(Again::Always, send).await.map(|_| ())
    }

    /// Prolongs a lease once and answers the seconds that it has left; 0 if it is over.
    pub(super) async fn prolong_lease(&self, id: i64) -> Result<i64, TopoError> {
        let send = |member| async move {
            let asked = futures::stream::iter([etcd::LeaseKeepAliveRequest { id }]);
            let answers = LeaseClient::new(member).lease_keep_alive(asked).await?;
            let answer = answers.into_inner().message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable("no answer"))
        };
        Ok(self.ask(Again::Always, send).await?.ttl)
    }

    /// Opens a watch; answers once the server has confirmed it.
    pub(super) async fn watch(
        &self,
        request: etcd::WatchCreateRequest,
    ) -> Result<tonic::Streaming<etcd::WatchResponse>, TopoError> {
        let send = |member| {
            let create = etcd::watch_request::RequestUnion::CreateRequest(request.clone());
            let create = etcd::WatchRequest { request_union: Some(create) };
            async move {
                use futures::StreamExt;
                // It stands as long as our side of it is open.
                let asked = futures::stream::iter([create]).chain(futures::stream::pending());
                let mut answers = WatchClient::new(member).watch(asked).await?.into_inner();
                match answers.message().await? {
                    Some(answer) if answer.created && !answer.canceled => {
                        Ok(Response::new(answers))
                    }
                    Some(answer) => Err(Status::unavailable(answer.cancel_reason)),
                    None => Err(Status::unavailable("the watch ended")),
                }
            }
        };
        self.ask(Again::Always, send).await
    }
}

/// Whether a request may be made again where it may have arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Always,
    IfNotSent,
}

/// Whether the member, or its quorum, was not there; as opposed to having said no.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other code is an answer")]
fn is_absence(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        // What the connection says has a cause on this side of it.
        Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

fn connect(name: &str, tls: Option<&ClientTlsConfig>) -> Result<Channel, TopoError> {
    let failure =
        |error: tonic::transport::Error| TopoError::Invalid(format!("etcd at {name}: {error}"));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let bare = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://"));
    let uri = format!("{scheme}://{}", bare.unwrap_or(name));
    let mut endpoint = Endpoint::from_shared(uri)
        .map_err(failure)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls.clone()).map_err(failure)?;
    }
    Ok(endpoint.connect_lazy())
}

fn tls_config(files: &EtcdTls) -> Result<ClientTlsConfig, TopoError> {
    let read = |file: &std::path::Path| {
        let read = std::fs::read(file);
        read.map_err(|error| TopoError::Invalid(format!("{}: {error}", file.display())))
    };
    let config =
        ClientTlsConfig::new().identity(Identity::from_pem(read(&files.cert)?, read(&files.key)?));
    Ok(match &files.ca {
        Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => config.with_enabled_roots(),
    })
}
