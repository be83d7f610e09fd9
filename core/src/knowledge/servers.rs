//! Whose the servers of all watched shards are: no shard changes another one's.

use std::collections::{BTreeMap, HashMap};

use super::identity::{is_primary, is_unique};
use super::snapshot::ShardSnapshot;
use crate::ids::{KeyspaceShard, ServerIdentity, TabletAlias};

/// Whose the servers of all watched shards are. Who knew a server, or saw it, first has it, unless that was a shard
/// that never had a primary, and one that has, or had, proves that it is its own: it leads there, or shares the
/// shard's history. A new server without any may be a new shard's that answers at a wrong address for a while.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    owners: HashMap<ServerIdentity, Owner>,
    of_shards: HashMap<KeyspaceShard, BTreeMap<ServerIdentity, TabletAlias>>,
}

#[derive(Clone, Debug)]
struct Owner {
    shard: KeyspaceShard,
    alias: TabletAlias,
    had_primary: bool,
}

impl Servers {
    /// The tablet of another shard whose server this is. To a shard that has or had a primary, whose history tells
    /// its own servers, one that never had any lays no claim.
    pub fn owner_elsewhere(
        &self,
        snapshot: &ShardSnapshot,
        server: &ServerIdentity,
    ) -> Option<&TabletAlias> {
        let owner = self.owners.get(server).filter(|owner| owner.shard != snapshot.shard)?;
        (owner.had_primary || !snapshot.had_primary()).then_some(&owner.alias)
    }

    /// Takes in whose servers a shard knows now.
    pub fn know(&mut self, snapshot: &ShardSnapshot) {
        let shard = &snapshot.shard;
        let had_primary = snapshot.had_primary();
        let known = snapshot.tablets.values().filter_map(|state| {
            // The history of a shard that had a primary tells its own servers.
            let claimed = if had_primary { state.identity.clone() } else { state.claimed() };
            Some((claimed.filter(is_unique)?, state.tablet.alias.clone()))
        });
        let known: BTreeMap<ServerIdentity, TabletAlias> = known.collect();
        let is_proven = |alias: &TabletAlias| {
            let state = snapshot.tablet(alias);
            had_primary && state.is_some_and(|state| state.proven || is_primary(snapshot, state))
        };
        let settled = |owner: &Owner, alias: &TabletAlias| owner.had_primary || !is_proven(alias);
        let is_owned = |owners: &HashMap<ServerIdentity, Owner>, server, alias| {
            owners.get(server).is_some_and(|owner| settled(owner, alias))
        };
        let all_owned = known.iter().all(|(server, alias)| is_owned(&self.owners, server, alias));
        if all_owned && self.of_shards.get(shard) == Some(&known) {
            return;
        }
        self.forget(shard);
        for (server, alias) in &known {
            if !is_owned(&self.owners, server, alias) {
                let owner = Owner { shard: shard.clone(), alias: alias.clone(), had_primary };
                self.owners.insert(server.clone(), owner);
            }
        }
        self.of_shards.insert(shard.clone(), known);
    }

    /// Forgets a shard that is not watched any more.
    pub fn forget(&mut self, shard: &KeyspaceShard) {
        for server in self.of_shards.remove(shard).unwrap_or_default().into_keys() {
            if self.owners.get(&server).is_some_and(|owner| owner.shard == *shard) {
                self.owners.remove(&server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::knowledge::observe::Answer;
    use crate::status::ServerStatus;
    use crate::testkit;
    use crate::time::{TermStart, Timestamp};

    const SERVER: &str = "00000000-0000-0000-0000-000000000001";

    /// A shard of one replica, at whose address the server answers.
    fn shard(name: &str, alias: &str, had_primary: bool, proven: bool) -> ShardSnapshot {
        let alias: TabletAlias = alias.parse().unwrap();
        let mut topology = testkit::shard(std::slice::from_ref(&alias));
        topology.shard = KeyspaceShard { keyspace: name.into(), shard: "0".into() };
        topology.record.term_start =
            had_primary.then(|| TermStart::after(None, Timestamp::default()));
        let mut snapshot = ShardSnapshot::unprobed(&topology, Timestamp::default());
        let state = snapshot.tablets.get_mut(&alias).unwrap();
        state.identity = Some(ServerIdentity::Uuid(SERVER.into()));
        state.proven = proven;
        snapshot
    }

    #[test]
    fn a_server_of_which_nobody_knows_whose_it_is_has_the_place_where_it_answered_first() {
        let server = ServerIdentity::Uuid(SERVER.into());
        let unsettled = |name: &str, alias: &str| {
            let mut snapshot = shard(name, alias, false, false);
            let alias: TabletAlias = alias.parse().unwrap();
            let status = ServerStatus { server_uuid: Some(SERVER.into()), ..testkit::status() };
            let state = snapshot.tablets.get_mut(&alias).unwrap();
            state.identity = None;
            let (sent_at, result) = (Timestamp::default(), Ok(Arc::new(status)));
            state.observe(Answer { sent_at, result, claimed_by: None }, sent_at);
            snapshot
        };
        let (first, second) = (unsettled("first", "zone1-1"), unsettled("second", "zone1-2"));
        let mut servers = Servers::default();
        servers.know(&first);
        servers.know(&second);
        assert!(servers.owner_elsewhere(&first, &server).is_none());
        let claimed = servers.owner_elsewhere(&second, &server);
        assert_eq!(claimed.map(ToString::to_string).as_deref(), Some("zone1-0000000001"));
    }

    #[test]
    fn who_knew_a_server_first_has_it_unless_a_shard_with_a_primary_proves_it_its_own() {
        let server = ServerIdentity::Uuid(SERVER.into());
        let new = shard("new", "zone1-1", false, false);
        for (proven, owner) in [(false, None), (true, Some("zone1-0000000002"))] {
            let old = shard("old", "zone1-2", true, proven);
            let mut servers = Servers::default();
            servers.know(&new);
            servers.know(&old);
            let claimed = servers.owner_elsewhere(&new, &server);
            assert_eq!(claimed.map(ToString::to_string).as_deref(), owner, "proven: {proven}");
        }
    }
}
