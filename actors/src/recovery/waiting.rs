//! What somebody asks for while another recovery runs waits for that one's end.

use actix::{AsyncContext, Context, Handler};
use tokio::sync::oneshot;
use vtorc_core::admission::requested::{Rejected, may_start};
use vtorc_core::recovery::request::Request;
use vtorc_core::recovery::task::Task;

use super::RecoveryActor;
use crate::messages::{Accepted, RequestRecovery, StartRequested};

/// A request that waits.
pub(super) struct Waiting {
    /// Tells it from others that waited.
    serial: u64,
    request: Request,
    reply: oneshot::Sender<Result<Accepted, Rejected>>,
}

impl Handler<StartRequested> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, message: StartRequested, context: &mut Context<Self>) {
        self.meter.handled();
        self.start_requested(message, context);
    }
}

impl RecoveryActor {
    /// A request waits as long as one would for the shard's lock.
    fn wait_for_turn(
        &mut self,
        request: Request,
        reply: oneshot::Sender<Result<Accepted, Rejected>>,
        context: &mut Context<Self>,
    ) {
        self.begun += 1;
        let serial = self.begun;
        self.waiting = Some(Waiting { serial, request, reply });
        let patience = self.services.recovery_settings().lock_timeout;
        context.run_later(patience, move |actor, _| {
            let late = actor.waiting.take_if(|waiting| waiting.serial == serial);
            if let Some(late) = late {
                let busy = Rejected::Conflict("a recovery of this shard is still running".into());
                // The asker may have gone away.
                drop(late.reply.send(Err(busy)));
            }
        });
    }

    /// Starts what somebody asks for, or lets it wait for the recovery that runs.
    fn start_requested(&mut self, message: StartRequested, context: &mut Context<Self>) {
        let StartRequested { request, snapshot, reply } = message;
        let request = request.seen_at(&snapshot);
        let block = self.block_at(self.services.clock.now());
        let task = Task::from(request.clone());
        let rejected = match self.services.is_ending() {
            true => Some(Rejected::Unavailable("vtorc is ending".into())),
            false => may_start(&task.named(), task.block_rule(), block.as_ref(), &snapshot).err(),
        };
        match rejected {
            Some(rejected) => drop(reply.send(Err(rejected))),
            None if self.make_way(&task) => self.begin(task, snapshot, Some(reply), context),
            None if self.waiting.as_ref().is_none_or(|waiting| waiting.reply.is_closed()) => {
                self.wait_for_turn(request, reply, context);
            }
            None => {
                let busy = "a recovery of this shard is running, and another request waits for it";
                // The asker may have gone away.
                drop(reply.send(Err(Rejected::Conflict(busy.into()))));
            }
        }
    }

    /// Whether a request waits: it goes back to the shard's actor, which asks for it anew by what is known now.
    pub(super) fn is_next_turn(&mut self) -> bool {
        let Some(waiting) = self.waiting.take_if(|waiting| !waiting.reply.is_closed()) else {
            return false;
        };
        let Waiting { request, reply, .. } = waiting;
        let shard = self.shard.clone();
        self.owner.requests.do_send(RequestRecovery { shard, request, reply });
        true
    }
}
