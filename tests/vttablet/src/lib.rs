//! A double of Vitess's vttablet: its calls with their real semantics, in front of a real mysqld.
//!
//! It keeps its own type and term, publishes them, makes the shard's record name it while it is primary, and
//! steps down when that names another with a newer term. It is not a vttablet: it serves no queries.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test double ends its test by panicking"
)]

pub mod canned;
mod interface;
mod mysqld;
mod service;
mod shard_sync;
mod tablet;
pub mod vtctld;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::ports::TopoPort;
use vtorc_core::tablet::TabletType;

use interface::tabletmanagerservice::tablet_manager_server::TabletManagerServer;
pub use tablet::Calls;
use tablet::Tablet;

/// How a double is to run.
#[derive(Clone)]
pub struct Options {
    /// Its name.
    pub alias: TabletAlias,
    /// Its shard.
    pub shard: KeyspaceShard,
    /// The type it has when it is not primary.
    pub base_type: TabletType,
    /// The socket of its mysqld.
    pub socket: PathBuf,
    /// Whom it tells replicas to log in as, and the password.
    pub replica_user: (String, String),
    /// Vitess's flag: sets up no replication by itself.
    pub disable_active_reparents: bool,
    /// Name and password that callers must send.
    pub credentials: Option<(String, String)>,
    /// Certificate and key (PEM) that it serves with.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Answers a call that it has, but an old version has not, as one that it does not know.
    pub old: bool,
}

/// Opens the topology. Connections live in the runtime that they were opened in, so each start opens its own.
pub type Topology = Arc<dyn Fn() -> Arc<dyn TopoPort> + Send + Sync>;

/// A running double.
pub struct Vttablet {
    tablet: Arc<Tablet>,
    topology: Topology,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Vttablet {
    /// Starts one on this address.
    pub fn start(options: Options, topology: Topology, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(256)
            .enable_all()
            .build()
            .unwrap();
        let opened = {
            let _inside = runtime.enter();
            topology()
        };
        let tablet = Arc::new(Tablet::new(options, opened));
        let served = tablet.clone();
        runtime.block_on(async {
            served.come_up().await;
            let listener = listen(address).await;
            let mut server = Server::builder();
            if let Some((certificate, key)) = served.options.identity.clone() {
                // ZooKeeper's client brings a second provider, so that rustls no longer knows which is meant.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let identity = Identity::from_pem(certificate, key);
                server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
            }
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let service = TabletManagerServer::new(service::Service(served.clone()));
            let serving = server.add_service(service).serve_with_incoming(incoming);
            tokio::spawn(async move {
                let _ = serving.await;
            });
            tokio::spawn(shard_sync::run(served));
        });
        Self { tablet, topology, address, runtime: Some(runtime) }
    }

    /// Where it takes calls.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a crash would: its connections break.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.kill();
        let (options, topology) = (self.tablet.options.clone(), self.topology.clone());
        *self = Self::start(options, topology, self.address);
    }

    /// From now on calls get no answer, until it is told otherwise.
    pub fn hang(&self, hangs: bool) {
        self.tablet.hangs.store(hangs, Ordering::Release);
    }

    /// Fails when it is to promote its server, after it made that forget its source.
    pub fn refuse_promotion(&self, refuses: bool) {
        self.tablet.refuses_promotion.store(refuses, Ordering::Release);
    }

    /// The connection breaks before it answers a promotion, and it promotes its server so many milliseconds later.
    pub fn promote_unheard(&self, after_ms: u64) {
        self.tablet.promotes_unheard_after_ms.store(after_ms, Ordering::Release);
    }

    /// Says that its disk is stalled.
    pub fn stall_disk(&self, stalled: bool) {
        self.tablet.disk_stalled.store(stalled, Ordering::Release);
    }

    /// Changes its type as `vtctldclient ChangeTabletType` would.
    pub fn change_type(&self, tablet_type: TabletType) {
        let tablet = self.tablet.clone();
        self.runtime().block_on(async move { tablet.set_type(tablet_type, false).await.unwrap() });
    }

    /// What it takes itself for.
    pub fn tablet_type(&self) -> TabletType {
        self.tablet.tablet_type()
    }

    /// The calls that it took, by name.
    pub fn calls(&self) -> Calls {
        self.tablet.calls()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }
}

impl Drop for Vttablet {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address may not be free yet where one was killed a moment ago.
async fn listen(address: SocketAddr) -> tokio::net::TcpListener {
    for _ in 0..200 {
        if let Ok(listener) = tokio::net::TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::net::TcpListener::bind(address).await.unwrap()
}
