//! One prober a tablet: one connection, one probe in flight. It reports and never decides.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Recipient, Supervised, WrapFuture,
};
use tokio::sync::Notify;
use tokio::time::timeout;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::ProbeConnection;
use vtorc_core::shard::{Pace, ProbeTarget};
use vtorc_core::status::ServerStatus;

use crate::messages::{Aim, ProbeCompleted, SetPace, Stop};
use crate::meters::Meter;
use crate::services::Services;

/// Between two probes while the shard is in doubt.
const ALERT_PAUSE: Duration = Duration::from_millis(20);
/// A listening connection is heard from so many times between two probes: a server that freezes shows
/// before the next probe is due.
const LISTENS_PER_POLL: u32 = 4;
const LISTEN_MIN: Duration = Duration::from_millis(50);
/// After a time-out the server is asked again after this, doubling: a hung server must not fill up with
/// sessions.
const HUNG_PAUSE_FIRST: Duration = Duration::from_millis(250);
const HUNG_PAUSE_MAX: Duration = Duration::from_secs(3);
/// A server that turns us away is asked again after this.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);

/// Probes one tablet.
pub struct ProberActor {
    shared: Rc<Shared>,
    meter: Arc<Meter>,
}

struct Shared {
    services: Services,
    shard: Recipient<ProbeCompleted>,
    shard_meter: Arc<Meter>,
    orders: RefCell<Orders>,
    changed: Notify,
    /// Told something new: the next probe is due at once.
    due: Cell<bool>,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.borrow_mut());
        self.due.set(true);
        self.changed.notify_one();
    }
}

#[derive(Clone)]
struct Orders {
    target: ProbeTarget,
    pace: Pace,
}

impl ProberActor {
    /// A prober of this target that reports to the shard.
    pub fn new(
        services: Services,
        shard: Recipient<ProbeCompleted>,
        shard_meter: Arc<Meter>,
        target: ProbeTarget,
        meter: Arc<Meter>,
    ) -> Self {
        let orders = RefCell::new(Orders { target, pace: Pace::Calm });
        let (changed, due) = (Notify::new(), Cell::new(false));
        let shared = Rc::new(Shared { services, shard, shard_meter, orders, changed, due });
        Self { shared, meter }
    }

    fn start_probing(&self, context: &mut Context<Self>) {
        let probing = probe_for_ever(self.shared.clone(), self.meter.clone());
        context.spawn(probing.into_actor(self));
    }
}

impl Actor for ProberActor {
    type Context = Context<Self>;
    fn started(&mut self, context: &mut Context<Self>) {
        self.start_probing(context);
    }
}

impl Supervised for ProberActor {}

impl Handler<SetPace> for ProberActor {
    type Result = ();
    fn handle(&mut self, SetPace(pace): SetPace, _: &mut Context<Self>) {
        self.meter.handled();
        self.shared.change(|orders| orders.pace = pace);
    }
}

impl Handler<Aim> for ProberActor {
    type Result = ();
    fn handle(&mut self, Aim(target): Aim, _: &mut Context<Self>) {
        self.meter.handled();
        self.shared.change(|orders| orders.target = target);
    }
}

impl Handler<Stop> for ProberActor {
    type Result = ();
    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.stop();
    }
}

type Connection = Option<Box<dyn ProbeConnection>>;

async fn probe_for_ever(shared: Rc<Shared>, meter: Arc<Meter>) {
    let mut connection: Connection = None;
    let mut hung_pause = HUNG_PAUSE_FIRST;
    let mut address = shared.orders.borrow().target.address.clone();
    loop {
        let orders = shared.orders.borrow().clone();
        if orders.target.address != address {
            address = orders.target.address.clone();
            connection = None;
        }
        shared.due.set(false);
        let sent_at = shared.services.clock.now();
        let result = probe_once(&shared, &orders, &mut connection).await;
        let verdict = result.as_ref().map(|_| ()).map_err(Clone::clone);
        report(&shared, &meter, &orders, sent_at, result);
        match verdict {
            Ok(()) => {
                hung_pause = HUNG_PAUSE_FIRST;
                wait_for_turn(&shared, &meter, &mut connection).await;
            }
            Err(failure) => {
                connection = None;
                rest(&shared, &failure, &mut hung_pause).await;
            }
        }
    }
}

async fn probe_once(
    shared: &Shared,
    orders: &Orders,
    connection: &mut Connection,
) -> Result<ServerStatus, ProbeFailure> {
    let deadline = shared.services.settings().probe_timeout;
    if connection.is_none() {
        let opened = shared.services.probes.connect(&orders.target.address, deadline);
        *connection = Some(opened.await?);
    }
    match connection {
        Some(live) => live.probe(deadline).await,
        None => Err(ProbeFailure::Refused("no connection".into())),
    }
}

fn report(
    shared: &Shared,
    meter: &Meter,
    orders: &Orders,
    sent_at: vtorc_core::time::Timestamp,
    result: Result<ServerStatus, ProbeFailure>,
) {
    shared.services.board.counters.count_probe(result.as_ref().err());
    match &result {
        Ok(_) => meter.doing("reached"),
        Err(failure) => {
            meter.doing("failing");
            meter.failed(&failure.to_string());
        }
    }
    shared.shard_meter.sent();
    let address = orders.target.address.clone();
    // A newer observation supersedes one that finds the mailbox full.
    if shared.shard.try_send(ProbeCompleted { address, sent_at, result }).is_err() {
        shared.shard_meter.lost();
    }
}

/// Waits until the next probe is due. An attentive prober keeps a question open meanwhile, so that a
/// server that dies shows when its connection breaks, and one that freezes when it misses an answer.
async fn wait_for_turn(shared: &Shared, meter: &Meter, connection: &mut Connection) {
    let orders = shared.orders.borrow().clone();
    let poll_interval = shared.services.settings().poll_interval;
    if orders.pace == Pace::Alert {
        tokio::time::sleep(ALERT_PAUSE).await;
        return;
    }
    if !orders.target.attentive {
        // Told something new: it is due at once.
        let _ = timeout(poll_interval, shared.changed.notified()).await;
        return;
    }
    let slice = (poll_interval / LISTENS_PER_POLL).max(LISTEN_MIN);
    let turn = tokio::time::Instant::now() + poll_interval;
    while tokio::time::Instant::now() < turn {
        let Some(live) = connection.as_mut() else { return };
        let sent_at = shared.services.clock.now();
        if let Err(failure) = live.listen(slice, slice.max(LISTEN_MIN * 4)).await {
            *connection = None;
            report(shared, meter, &orders, sent_at, Err(failure));
            return;
        }
        if shared.due.get() {
            return;
        }
    }
}

/// Pauses after a failure: not at all where a refusal is to be confirmed, longer and longer where a server
/// hangs.
async fn rest(shared: &Shared, failure: &ProbeFailure, hung_pause: &mut Duration) {
    let alert = shared.orders.borrow().pace == Pace::Alert;
    let poll_interval = shared.services.settings().poll_interval;
    let pause = match failure {
        ProbeFailure::Refused(_) if alert => ALERT_PAUSE,
        ProbeFailure::Refused(_) => poll_interval.min(Duration::from_millis(250)),
        ProbeFailure::TimedOut | ProbeFailure::Overloaded | ProbeFailure::Garbled(_) => {
            let pause = *hung_pause;
            *hung_pause = (pause * 2).min(HUNG_PAUSE_MAX);
            pause
        }
        ProbeFailure::TurnedAway(_)
        | ProbeFailure::Full(_)
        | ProbeFailure::Blocked(_)
        | ProbeFailure::DiskStalled
        | ProbeFailure::TooOld(_)
        | ProbeFailure::Stranger(_) => TURNED_AWAY_PAUSE.max(poll_interval),
    };
    // Told something new: look at once.
    let _ = timeout(pause, shared.changed.notified()).await;
}
