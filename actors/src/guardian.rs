//! Keeps actors alive through panics.
//!
//! actix drops an actor whose handler panics, even under its own `Supervisor`. The guardian polls the
//! actor's context inside `catch_unwind`, restarts it on the same mailbox after a pause, and gives up when
//! it panics too often: one poisoned shard must not end the process.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::{Actor, Addr, AsyncContext, Context, Supervised};
use tokio::time::{Instant, Sleep, sleep};

use crate::meters::{ActorState, Meter};

/// Pause before the first restart; it doubles with each further one.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// So many panics within [`PANIC_WINDOW`] are enough.
const PANICS_MAX: u32 = 5;
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// Starts an actor under guard, with a mailbox of this size.
pub fn start_guarded<A>(actor: A, mailbox: usize, meter: Arc<Meter>) -> Addr<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let mut context = Context::new();
    context.set_mailbox_capacity(mailbox);
    let address = context.address();
    let guarded = Guardian {
        context: Box::pin(context.into_future(actor)),
        meter,
        pause: None,
        panics: 0,
        first_panic: Instant::now(),
    };
    actix::spawn(guarded);
    address
}

struct Guardian<A: Actor<Context = Context<A>> + Supervised> {
    context: Pin<Box<ContextFut<A, Context<A>>>>,
    meter: Arc<Meter>,
    pause: Option<Pin<Box<Sleep>>>,
    panics: u32,
    first_panic: Instant,
}

impl<A: Actor<Context = Context<A>> + Supervised> Guardian<A> {
    /// Notes a panic; answers whether the actor may go on after a pause.
    fn panicked(&mut self, what: &str) -> bool {
        if self.first_panic.elapsed() > PANIC_WINDOW {
            self.panics = 0;
        }
        if self.panics == 0 {
            self.first_panic = Instant::now();
        }
        self.panics += 1;
        let restarted = self.panics < PANICS_MAX && self.context.restart();
        self.meter
            .panicked(what, if restarted { ActorState::Restarting } else { ActorState::GivenUp });
        if restarted {
            self.pause = Some(Box::pin(sleep(RESTART_PAUSE * 2u32.pow(self.panics - 1))));
        }
        restarted
    }
}

impl<A: Actor<Context = Context<A>> + Supervised> Future for Guardian<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if let Some(pause) = &mut this.pause {
                if pause.as_mut().poll(task).is_pending() {
                    return Poll::Pending;
                }
                this.pause = None;
                this.meter.set_state(ActorState::Running);
            }
            let context = &mut this.context;
            match catch_unwind(AssertUnwindSafe(|| context.as_mut().poll(task))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => {
                    this.meter.set_state(ActorState::Stopped);
                    return Poll::Ready(());
                }
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                    if !this.panicked(text.unwrap_or("panicked")) {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;
    use crate::meters::Who;
    use actix::{Handler, Message};

    struct Fragile {
        handled: u32,
        restarted: u32,
    }

    impl Actor for Fragile {
        type Context = Context<Self>;
    }

    impl Supervised for Fragile {
        fn restarting(&mut self, _: &mut Context<Self>) {
            self.restarted += 1;
        }
    }

    #[derive(Message)]
    #[rtype(result = "(u32, u32)")]
    struct Handle {
        panics: bool,
    }

    impl Handler<Handle> for Fragile {
        type Result = actix::MessageResult<Handle>;
        fn handle(&mut self, message: Handle, _: &mut Context<Self>) -> Self::Result {
            assert!(!message.panics, "told to");
            self.handled += 1;
            actix::MessageResult((self.handled, self.restarted))
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let build = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().unwrap()
        };
        actix::System::with_tokio_rt(build).block_on(test);
    }

    #[test]
    fn the_same_address_serves_after_a_panic() {
        run(async {
            let meter = Board::new().meters.register(Who::Auditor);
            let actor = Fragile { handled: 0, restarted: 0 };
            let address = start_guarded(actor, 16, meter.clone());
            assert_eq!(address.send(Handle { panics: false }).await.unwrap(), (1, 0));
            assert!(address.send(Handle { panics: true }).await.is_err());
            assert_eq!(address.send(Handle { panics: false }).await.unwrap(), (2, 1));
            assert_eq!(meter.report().restarts, 1);
            assert!(meter.report().last_error.unwrap().contains("told to"));
        });
    }

    #[test]
    fn too_many_panics_are_the_end() {
        run(async {
            let meter = Board::new().meters.register(Who::Auditor);
            let address = start_guarded(Fragile { handled: 0, restarted: 0 }, 16, meter.clone());
            for _ in 0..PANICS_MAX {
                assert!(address.send(Handle { panics: true }).await.is_err());
            }
            assert!(address.send(Handle { panics: false }).await.is_err());
            assert_eq!(meter.report().state, ActorState::GivenUp);
        });
    }
}
