//! Reads the topology at start, when it changes, and now and then; tells the registry.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Recipient, Supervised, WrapFuture};
use tokio::time::{sleep, timeout};
use vtorc_core::topology::TopologyRead;

use crate::messages::TopologyWasRead;
use crate::meters::Meter;
use crate::services::Services;

/// Several changes in a row are read together.
const SETTLE: Duration = Duration::from_millis(20);
/// After a failure it is tried again so soon.
const RETRY: Duration = Duration::from_millis(500);
/// One reading takes at most this long.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Watches the topology.
pub struct TopoWatcher {
    services: Services,
    registry: Recipient<TopologyWasRead>,
    meter: Arc<Meter>,
}

impl TopoWatcher {
    /// A watcher that reports to the registry.
    pub fn new(
        services: Services,
        registry: Recipient<TopologyWasRead>,
        meter: Arc<Meter>,
    ) -> Self {
        Self { services, registry, meter }
    }
}

impl Actor for TopoWatcher {
    type Context = Context<Self>;
    fn started(&mut self, context: &mut Context<Self>) {
        let watching = watch(self.services.clone(), self.registry.clone(), self.meter.clone());
        context.spawn(watching.into_actor(self));
    }
}

impl Supervised for TopoWatcher {}

async fn watch(services: Services, registry: Recipient<TopologyWasRead>, meter: Arc<Meter>) {
    loop {
        let settings = services.settings();
        meter.doing("reading");
        let read = match timeout(READ_TIMEOUT, services.topo.read(&settings.watched)).await {
            Ok(read) => read,
            Err(_elapsed) => {
                Err(vtorc_core::ports::TopoError::Unavailable("no answer in time".into()))
            }
        };
        meter.handled();
        let failed = read.is_err();
        let partial = read.as_ref().is_ok_and(TopologyRead::is_partial);
        if let Err(error) = &read {
            meter.failed(&error.to_string());
        }
        // One message a reading, and a reading waits for changes: bounded by design.
        registry.do_send(TopologyWasRead(read));
        if failed || partial {
            meter.doing("trying again soon");
            sleep(RETRY).await;
            continue;
        }
        meter.doing("watching");
        tokio::select! {
            () = services.topo.changed() => {}
            () = services.topology_wanted.notified() => {}
            () = sleep(settings.topo_refresh) => {}
        }
        sleep(SETTLE).await;
    }
}
