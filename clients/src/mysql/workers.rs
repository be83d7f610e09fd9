//! Worker threads for commands: a bounded queue, and as many threads as hung servers make necessary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;
use vtorc_core::ports::{CommandError, MysqlPort, ServerCommand};
use vtorc_core::preflight::Inspection;
use vtorc_core::source_access::{Login, LoginTrial};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::{MysqlAddress, TabletAddress};

use super::access::MysqlAccess;
use super::session::Session;
use super::{commands, inspect, login};

/// Commands that wait for a worker. Each shard has a handful under way at most, so a full queue means that
/// nothing works any more.
const QUEUE_MAX: usize = 4096;
/// Threads at most. Each may hang on one server until its deadline.
const THREADS_MAX: usize = 512;
/// A thread without work ends after this.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The caller stops waiting so much after the command's own deadline.
const GRACE: Duration = Duration::from_secs(1);

struct Order {
    address: MysqlAddress,
    deadline: Instant,
    called_off: Arc<AtomicBool>,
    task: Task,
}

/// What is done over a fresh connection, or over none.
type Task = Box<dyn FnOnce(Result<Session<'_>, CommandError>) + Send>;

/// Runs commands on worker threads.
pub struct WorkerPool {
    access: Arc<MysqlAccess>,
    orders: Sender<Order>,
    queue: Receiver<Order>,
    load: Arc<Load>,
}

/// Commands given out and threads there are, so that no command waits behind a hung server.
#[derive(Default)]
struct Load {
    orders: AtomicUsize,
    threads: AtomicUsize,
}

impl WorkerPool {
    /// A pool that logs in as configured. Threads start when they are needed.
    pub fn new(access: Arc<MysqlAccess>) -> Self {
        let (orders, queue) = bounded(QUEUE_MAX);
        Self { access, orders, queue, load: Arc::default() }
    }

    /// Starts another thread if there are more commands than threads.
    fn staff(&self) -> std::io::Result<()> {
        let load = &self.load;
        let threads = load.threads.load(Ordering::Acquire);
        if threads >= THREADS_MAX || load.orders.load(Ordering::Acquire) <= threads {
            return Ok(());
        }
        load.threads.fetch_add(1, Ordering::AcqRel);
        let (access, queue, load) = (self.access.clone(), self.queue.clone(), self.load.clone());
        let body = move || {
            while let Ok(order) = queue.recv_timeout(IDLE_MAX) {
                let Order { address, deadline, called_off, task } = order;
                task(Session::open(&access, &address, deadline, &called_off));
                load.orders.fetch_sub(1, Ordering::AcqRel);
            }
            load.threads.fetch_sub(1, Ordering::AcqRel);
        };
        let spawned = thread::Builder::new().name("vtorc-mysql".into()).spawn(body);
        if spawned.is_err() {
            self.load.threads.fetch_sub(1, Ordering::AcqRel);
        }
        spawned.map(|_handle| ())
    }
}

/// Calls a command off when its caller goes away.
struct CallOff(Arc<AtomicBool>);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl WorkerPool {
    /// Lets a worker do something over a connection of its own.
    async fn on_worker<T: Send + 'static>(
        &self,
        address: &MysqlAddress,
        deadline: Duration,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, CommandError> + Send + 'static,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let called_off = CallOff(Arc::new(AtomicBool::new(false)));
        let order = Order {
            address: address.clone(),
            deadline: Instant::now() + deadline,
            called_off: called_off.0.clone(),
            task: Box::new(move |session| {
                let done = session.and_then(|mut session| work(&mut session));
                // Nobody listens any more where the recovery was called off.
                let _ = reply.send(done);
            }),
        };
        self.load.orders.fetch_add(1, Ordering::AcqRel);
        if self.orders.try_send(order).is_err() {
            self.load.orders.fetch_sub(1, Ordering::AcqRel);
            return Err(CommandError::NotDone("too many commands are waiting already".into()));
        }
        self.staff().map_err(|error| CommandError::NotDone(format!("start a worker: {error}")))?;
        match tokio::time::timeout(deadline + GRACE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(CommandError::Unknown("the worker ended without an answer".into())),
            Err(_elapsed) => {
                Err(CommandError::Unknown(format!("no answer within {} ms", deadline.as_millis())))
            }
        }
    }

    /// The same of a tablet's own channel.
    async fn on_channel<T: Send + 'static>(
        &self,
        address: &TabletAddress,
        deadline: Duration,
        work: fn(&mut Session<'_>) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let channel = address.channel.clone();
        let on_channel = move |session: &mut Session<'_>| {
            session.use_channel(channel)?;
            work(session)
        };
        self.on_worker(&address.mysql, deadline, on_channel).await
    }
}

#[async_trait]
impl MysqlPort for WorkerPool {
    async fn run(
        &self,
        address: &TabletAddress,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        let (meant, channel) = (address.server.clone(), address.channel.clone());
        let work = move |session: &mut Session<'_>| {
            session.check_identity(meant.as_ref())?;
            session.use_channel(channel)?;
            commands::run(session, command)
        };
        self.on_worker(&address.mysql, deadline, work).await
    }

    async fn login(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Option<Login>, CommandError> {
        self.on_channel(address, deadline, login::login).await
    }

    async fn try_login(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Option<LoginTrial>, CommandError> {
        self.on_channel(address, deadline, inspect::try_login).await
    }

    async fn inspect(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Inspection, CommandError> {
        self.on_channel(address, deadline, inspect::inspect).await
    }
}
