//! A shard's lock that an earlier process of this vtorc held when it was killed: given back at the start, or the
//! shard would wait for the topology server to notice the death.

use std::time::Duration;

use slog::{Logger, info, warn};
use tokio::time::timeout;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::TopoError;

use crate::messages::Audit;
use crate::patience::answer_within;
use crate::services::Services;

/// A history or a topology server that does not answer in this time holds nobody up: the lock goes with its session or
/// lease.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives the lock back, if one was left. That the process which took it has ended is certain: it was the last one
/// to have the history open, and only one at a time has.
pub(super) async fn give_back_lock(services: &Services, shard: &KeyspaceShard, log: &Logger) {
    let left = answer_within(PATIENCE, services.history.lock_left_behind(shard)).await;
    let token = match left {
        Ok(None) => return,
        Ok(Some(token)) => token,
        Err(error) => {
            warn!(log, "what an earlier process left cannot be read"; "error" => %error);
            return;
        }
    };
    let given_back = timeout(PATIENCE, services.topo.give_back(shard, &token)).await;
    match given_back.unwrap_or_else(|_| Err(TopoError::Unavailable("no answer in time".into()))) {
        Ok(()) => {
            info!(log, "the shard's lock that an earlier process left was given back");
            services.auditor.do_send(Audit::Lock(shard.clone(), None));
        }
        Err(error) => {
            warn!(log, "the shard's lock that an earlier process left could not be given back; it ends with its \
                session or lease"; "error" => %error);
        }
    }
}
