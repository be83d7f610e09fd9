//! Clients: they write through whoever takes writes, and remember what was acknowledged.

use std::time::Duration;

use tokio::time::sleep;

use crate::Millis;
use crate::ledger::Fate;
use crate::network::Party;
use crate::statements::Statement;
use crate::universe::Shared;

/// Between two writes of one client.
const PAUSE_MS: Millis = 70;
/// A client waits so long for an answer.
const PATIENCE_MS: Millis = 3_000;
const LOOK_MS: Millis = 10;

/// Writes into a shard for ever.
pub async fn write_for_ever(universe: Shared, shard: usize) {
    let mut target: Option<u8> = None;
    loop {
        let pause = PAUSE_MS + universe.lock().dice.u64(0..30);
        sleep(Duration::from_millis(pause)).await;
        let Some(server) = target.or_else(|| find_writable(&universe, shard)) else { continue };
        target = write_once(&universe, server).await.then_some(server);
    }
}

/// Somebody who says that it takes writes, beginning anywhere.
fn find_writable(universe: &Shared, shard: usize) -> Option<u8> {
    let mut universe = universe.lock();
    let mut members: Vec<u8> = universe.members(shard).collect();
    let first = universe.dice.usize(0..members.len());
    members.rotate_left(first);
    let now = universe.now;
    members.into_iter().find(|number| {
        let server = universe.server(*number);
        let open = universe.network.is_open_both_ways(Party::Clients, Party::Server(*number));
        open && server.takes_writes(now) && !server.opened_by_mistake
    })
}

/// Writes through one server; tells whether it went well.
async fn write_once(universe: &Shared, server: u8) -> bool {
    let attempt = {
        let mut universe = universe.lock();
        let attempt = universe.ledger_mut(server).attempt();
        let open = universe.network.is_open(Party::Clients, Party::Server(server));
        if open && universe.server(server).running {
            if universe.server(server).frozen {
                universe.queue(server, Statement::Insert(attempt), None, (0, Millis::MAX));
            } else {
                universe.execute(server, &Statement::Insert(attempt));
            }
        } else {
            universe.ledger_mut(server).failed(attempt);
        }
        attempt
    };
    let mut waited = 0;
    loop {
        match universe.lock().ledger(server).fate(attempt) {
            Fate::Acknowledged => return true,
            Fate::Failed => return false,
            Fate::Sent => {}
        }
        if waited >= PATIENCE_MS {
            universe.lock().ledger_mut(server).abandon(attempt);
            return false;
        }
        sleep(Duration::from_millis(LOOK_MS)).await;
        waited += LOOK_MS;
    }
}
