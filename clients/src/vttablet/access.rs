//! Connections to vttablets: one each, kept and used by all calls.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tower::service_fn;
use vtorc_core::tablet::VttabletAddress;

use super::tls::{Tls, VttabletTls};
use crate::interface::tabletmanagerservice::tablet_manager_client::TabletManagerClient;
use crate::mysql::Secret;

/// Pings on a connection with calls under way. A vttablet hangs up on whoever pings more often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How vttablets are called.
#[derive(Clone, Debug)]
pub struct VttabletAccess {
    /// TLS, if wanted.
    pub tls: Option<VttabletTls>,
    /// User and password that are sent with every call.
    pub credentials: Option<(String, Secret)>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest message, in bytes.
    pub message_max: usize,
    /// Heartbeat period that replicas are told to ask for.
    pub heartbeat_period: Duration,
    /// Servers are also reached directly, as the configured topology user.
    pub direct: bool,
}

/// A connection with credentials.
pub(crate) type Client = TabletManagerClient<InterceptedService<Channel, Credentials>>;

/// Sends user and password with every call, as Vitess's static authentication wants them.
#[derive(Clone)]
pub(crate) struct Credentials(Option<(MetadataValue<Ascii>, MetadataValue<Ascii>)>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some((user, password)) = &self.0 {
            request.metadata_mut().insert("username", user.clone());
            request.metadata_mut().insert("password", password.clone());
        }
        Ok(request)
    }
}

/// The connections. One that breaks is opened again by the next call.
pub(crate) struct Connections {
    access: VttabletAccess,
    tls: Option<Tls>,
    credentials: Credentials,
    open: Mutex<BTreeMap<VttabletAddress, Client>>,
}

impl Connections {
    /// Reads the certificates; the error says which file is wrong.
    pub(crate) fn new(access: VttabletAccess) -> Result<Self, String> {
        let credentials = match &access.credentials {
            None => None,
            Some((user, password)) => {
                let unfit = |_| "credentials for vttablets must be plain ASCII".to_owned();
                let user = user.parse().map_err(unfit)?;
                let mut password: MetadataValue<Ascii> =
                    password.reveal().parse().map_err(unfit)?;
                password.set_sensitive(true);
                Some((user, password))
            }
        };
        let tls = access.tls.as_ref().map(Tls::read).transpose()?;
        let credentials = Credentials(credentials);
        Ok(Self { access, tls, credentials, open: Mutex::default() })
    }

    pub(crate) fn access(&self) -> &VttabletAccess {
        &self.access
    }

    /// The connection to a vttablet; opened by its first call.
    pub(crate) fn to(&self, address: &VttabletAddress) -> Result<Client, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = open.get(address) {
            return Ok(client.clone());
        }
        let client = self.connect(address)?;
        open.insert(address.clone(), client.clone());
        Ok(client)
    }

    /// Forgets a connection: the next call opens a new one. For one on which a call got no answer.
    pub(crate) fn drop_connection(&self, address: &VttabletAddress) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    fn connect(&self, address: &VttabletAddress) -> Result<Client, String> {
        let failure = |error: tonic::transport::Error| format!("vttablet {address}: {error}");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failure)?;
        let endpoint = endpoint
            .connect_timeout(self.access.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let channel = match &self.tls {
            None => endpoint.connect_lazy(),
            Some(tls) => {
                let (tls, address, limit) =
                    (tls.clone(), address.clone(), self.access.connect_timeout);
                endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
                    let (tls, address) = (tls.clone(), address.clone());
                    async move { timeout(limit, tls.connect(&address)).await? }
                }))
            }
        };
        let client = TabletManagerClient::with_interceptor(channel, self.credentials.clone());
        let most = self.access.message_max;
        Ok(client.max_decoding_message_size(most).max_encoding_message_size(most))
    }
}
