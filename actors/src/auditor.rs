//! The one writer of the history: keeps what it is told, in order, and never makes anybody wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use slog::{Logger, error};
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::knowledge::memory::LastHeard;
use vtorc_core::ports::{HistoryError, HistoryPort};

use crate::messages::{Audit, Kept};
use crate::meters::Meter;

/// Writes to the history.
pub struct Auditor {
    history: Arc<dyn HistoryPort>,
    waiting: VecDeque<Audit>,
    /// When each shard's primary was last heard: only the newest is kept, once nothing else waits.
    heard: BTreeMap<KeyspaceShard, LastHeard>,
    writing: bool,
    meter: Arc<Meter>,
    log: Logger,
}

impl Auditor {
    /// An auditor of this history.
    pub fn new(history: Arc<dyn HistoryPort>, meter: Arc<Meter>, log: Logger) -> Self {
        Self {
            history,
            waiting: VecDeque::new(),
            heard: BTreeMap::new(),
            writing: false,
            meter,
            log,
        }
    }

    fn write_next(&mut self, context: &mut Context<Self>) {
        if self.writing {
            return;
        }
        let heard = || self.heard.pop_first().map(|(shard, at)| Audit::LastHeard(shard, at));
        let Some(next) = self.waiting.pop_front().or_else(heard) else { return };
        self.writing = true;
        let write = write(self.history.clone(), next).into_actor(self);
        context.spawn(write.map(|outcome, auditor, context| {
            auditor.writing = false;
            if let Err(error) = outcome {
                auditor.meter.failed(&error.to_string());
                error!(auditor.log, "the history could not be written"; "error" => %error);
            }
            auditor.write_next(context);
        }));
    }
}

async fn write(history: Arc<dyn HistoryPort>, what: Audit) -> Result<(), HistoryError> {
    match what {
        Audit::Recovery(record) => history.save_recovery(*record).await,
        Audit::Block(shard, block) => history.save_block(&shard, block).await,
        Audit::LastHeard(shard, heard) => history.save_last_heard(&shard, heard).await,
        Audit::Lock(shard, token) => history.save_lock(&shard, token).await,
        Audit::RecoveriesEnabled(enabled, kept) => {
            tell(kept, history.save_recoveries_enabled(enabled).await)
        }
        Audit::Controls(controls, kept) => tell(kept, history.save_controls(controls).await),
        Audit::Act(entry) => history.save_audit(entry).await,
        Audit::Findings(change) => history.save_findings(change).await,
        Audit::Purge(before) => history.purge(before).await,
    }
}

fn tell(kept: Kept, outcome: Result<(), HistoryError>) -> Result<(), HistoryError> {
    // Whoever asked may have gone.
    let _ = kept.send(outcome.clone());
    outcome
}

impl Actor for Auditor {
    type Context = Context<Self>;
}

impl Supervised for Auditor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.writing = false;
    }
}

impl Handler<Audit> for Auditor {
    type Result = ();
    fn handle(&mut self, message: Audit, context: &mut Context<Self>) {
        self.meter.handled();
        match message {
            Audit::LastHeard(shard, heard) => drop(self.heard.insert(shard, heard)),
            other @ (Audit::Recovery(_)
            | Audit::Block(..)
            | Audit::Lock(..)
            | Audit::RecoveriesEnabled(..)
            | Audit::Controls(..)
            | Audit::Act(_)
            | Audit::Findings(_)
            | Audit::Purge(_)) => self.waiting.push_back(other),
        }
        self.write_next(context);
    }
}
