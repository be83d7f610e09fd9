//! Asks every server of a shard, once and now, and lets core say what would go wrong on the bad day.
//!
//! Not an actor: nothing is remembered and nothing is changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use vtorc_core::admission::Switches;
use vtorc_core::knowledge::health::Reachability;
use vtorc_core::knowledge::observe::Answer;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::{CommandError, MysqlPort, ServerCommand};
use vtorc_core::preflight::{Concern, Inspection, concerns};
use vtorc_core::settings::RecoverySettings;
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::TabletAddress;
use vtorc_core::time::Timestamp;
use vtorc_core::topology::ShardTopology;

/// One server gets so long to answer.
const PATIENCE: Duration = Duration::from_secs(5);

type Asked = (Result<ServerStatus, CommandError>, Option<Inspection>);

/// What is to be put in order in a shard, the worst first.
pub async fn examine(
    mysql: &dyn MysqlPort,
    topology: &ShardTopology,
    settings: &RecoverySettings,
    switches: Switches<'_>,
    now: Timestamp,
) -> Vec<Concern> {
    let mut snapshot = ShardSnapshot::unprobed(topology, now);
    let known = &snapshot;
    let asked = topology.tablets.values().filter_map(|tablet| {
        let address = tablet.address()?;
        Some(async move { (tablet.alias.clone(), ask(mysql, &address, known).await) })
    });
    let asked = future::join_all(asked).await;
    let mut inspections = BTreeMap::new();
    for (alias, (status, inspection)) in asked {
        let result = status.map(Arc::new).map_err(CommandError::into_probe_failure);
        // A single shard is looked at: nobody here knows of others.
        snapshot.take_answer(&alias, Answer { sent_at: now, result, claimed_by: None }, now);
        inspections.extend(inspection.map(|inspection| (alias, inspection)));
    }
    // One look is all there is: who does not answer is out of reach.
    for state in snapshot.tablets.values_mut() {
        if let Reachability::Suspect { since, why } = state.reachability.clone() {
            state.reachability = Reachability::Unreachable { since, why };
        }
    }
    concerns(&snapshot, &inspections, settings, switches)
}

async fn ask(mysql: &dyn MysqlPort, address: &TabletAddress, known: &ShardSnapshot) -> Asked {
    let status = mysql.run(address, ServerCommand::ReadStatus, PATIENCE).await;
    let inspection = match &status {
        Ok(status) => {
            let own = known.with_own_channel(&address.alias, Arc::new(status.clone()));
            let own = own.replication.as_ref().map(|own| own.channel.clone());
            let address = TabletAddress { channel: own.unwrap_or_default(), ..address.clone() };
            mysql.inspect(&address, PATIENCE).await.ok()
        }
        Err(_) => None,
    };
    (status, inspection)
}
