//! The loop of a tablet that takes itself for the primary: the shard's record is to name it, and when that
//! names another with a newer term, it steps down.

use std::sync::Arc;
use std::time::Duration;

use vtorc_core::tablet::TabletType;

use crate::tablet::Tablet;

/// The record is looked at this often even if nothing changed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) async fn run(tablet: Arc<Tablet>) {
    loop {
        if tablet.tablet_type() == TabletType::Primary {
            synchronise(&tablet).await;
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, tablet.changed.notified()).await;
    }
}

async fn synchronise(tablet: &Tablet) {
    let (Ok(shard), Some(own)) = (tablet.read_shard().await, tablet.term()) else { return };
    match shard.record.term_start {
        Some(theirs) if theirs == own => {}
        Some(theirs) if theirs > own => {
            let _action = tablet.action.lock().await;
            step_down(tablet, shard.record.primary_alias).await;
        }
        Some(_) | None => {
            let options = &tablet.options;
            // Tried again the next time round.
            let _ = tablet.topo.set_shard_primary(&options.shard, &options.alias, own).await;
        }
    }
}

async fn step_down(tablet: &Tablet, to: Option<vtorc_core::ids::TabletAlias>) {
    let base = tablet.options.base_type;
    if tablet.options.disable_active_reparents {
        let _ = tablet.set_type(base, false).await;
        return;
    }
    if tablet.demote(true).await.is_err() {
        return;
    }
    let _ = match to {
        Some(primary) => tablet.set_source(&primary, true, false, 0.0).await,
        None => tablet.set_type(base, false).await,
    };
}
