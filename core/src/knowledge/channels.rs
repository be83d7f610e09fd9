//! Which of a server's replication channels is the shard's. The others are somebody else's: what they bring is no
//! error of the server's, and they are left alone. An unnamed channel is the shard's where no other leads to one of
//! its tablets.

use std::sync::Arc;

use super::snapshot::ShardSnapshot;
use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::status::{ReplicationStatus, ServerStatus};

impl ShardSnapshot {
    /// A server's answer with the shard's channel told from the others. What came by those does not count, except on
    /// the primary, from which the shard has it, and where nobody knows what the primary has.
    pub fn with_own_channel(
        &self,
        alias: &TabletAlias,
        status: Arc<ServerStatus>,
    ) -> Arc<ServerStatus> {
        if status.channels.is_empty() {
            return status;
        }
        let mut settled = Arc::unwrap_or_clone(status);
        let mut all: Vec<ReplicationStatus> = settled.replication.take().into_iter().collect();
        all.append(&mut settled.channels);
        let primary = self.primary().filter(|primary| primary.tablet.alias != *alias);
        let leads_to_primary =
            |one: &ReplicationStatus| primary.is_some_and(|primary| primary.is_source_of(one));
        let own = (all.iter().position(leads_to_primary))
            .or_else(|| all.iter().position(|one| self.leads_inside(one, alias)))
            .or_else(|| all.iter().position(|one| one.channel.is_empty()));
        settled.replication = own.map(|own| all.remove(own));
        settled.channels = all;
        if let Some(primary) = primary.and_then(|primary| primary.status.as_deref()) {
            settled.gtid_executed = self.without_others(alias, &settled, primary);
        }
        Arc::new(settled)
    }

    /// What the shard's channel is called on a tablet's server.
    pub fn channel_of(&self, alias: &TabletAlias) -> String {
        let status = self.tablet(alias).and_then(|state| state.status.as_ref());
        let own = status.and_then(|status| status.replication.as_ref());
        own.map(|own| own.channel.clone()).unwrap_or_default()
    }

    /// Tells whether a channel of this tablet's leads to another tablet of the shard.
    fn leads_inside(&self, channel: &ReplicationStatus, from: &TabletAlias) -> bool {
        let mut others = self.tablets.values().filter(|other| other.tablet.alias != *from);
        others.any(|other| other.is_source_of(channel))
    }

    /// What it has executed, less what it got by other channels and the primary lacks.
    fn without_others(
        &self,
        alias: &TabletAlias,
        status: &ServerStatus,
        primary: &ServerStatus,
    ) -> GtidSet {
        let executed = &status.gtid_executed;
        let received = status.replication.as_ref().map(|own| &own.retrieved);
        let known = received.map_or_else(
            || primary.gtid_executed.clone(),
            |received| primary.gtid_executed.union(received),
        );
        let beyond = executed.subtract(&known);
        let foreign = status.channels.iter().filter(|one| !self.leads_inside(one, alias));
        let own = foreign.fold(beyond.clone(), |left, channel| {
            let left = left.without_received(&channel.retrieved, &known);
            match &channel.source_uuid {
                Some(uuid) => left.without_source(uuid),
                None => left,
            }
        });
        executed.without_received(&beyond.subtract(&own), &known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tablet::{MysqlAddress, TabletType};
    use crate::testkit;
    use crate::time::Timestamp;

    fn uuid(letter: char) -> String {
        format!("{}-0000-0000-0000-000000000000", letter.to_string().repeat(8))
    }

    fn channel(name: &str, host: &str, source: char, retrieved: &str) -> ReplicationStatus {
        let source_address = MysqlAddress { host: host.to_owned(), port: 3306 };
        ReplicationStatus {
            channel: name.to_owned(),
            source_uuid: Some(uuid(source)),
            retrieved: GtidSet::parse_mysql(retrieved).unwrap(),
            filtered: name == "filtered",
            ..testkit::replication(source_address)
        }
    }

    /// A shard with a primary and a replica; what the replica, or the primary, is found to be.
    fn settled(who: &str, channels: Vec<ReplicationStatus>) -> (Arc<ServerStatus>, String) {
        let aliases: Vec<TabletAlias> =
            ["zone1-1", "zone1-2"].map(|one| one.parse().unwrap()).to_vec();
        let mut topology = testkit::shard(&aliases);
        for (tablet, host) in topology.tablets.values_mut().zip(["h1", "h2"]) {
            tablet.mysql = Some(MysqlAddress { host: host.to_owned(), port: 3306 });
        }
        let primary = topology.tablets.values_mut().next().unwrap();
        primary.tablet_type = TabletType::Primary;
        let mut snapshot = ShardSnapshot::unprobed(&topology, Timestamp::default());
        let mut of_primary = testkit::status();
        of_primary.gtid_executed =
            GtidSet::parse_mysql(&format!("{}:1-9,{}:1-2", uuid('a'), uuid('d'))).unwrap();
        snapshot.tablets.values_mut().next().unwrap().status = Some(Arc::new(of_primary));
        let executed = format!("{}:1-9,{}:1-5", uuid('a'), uuid('d'));
        let mut status = testkit::status();
        status.gtid_executed = GtidSet::parse_mysql(&executed).unwrap();
        let (unnamed, named): (Vec<_>, Vec<_>) =
            channels.into_iter().partition(|one| one.channel.is_empty());
        status.replication = unnamed.into_iter().next();
        status.channels = named;
        let alias: TabletAlias = who.parse().unwrap();
        let settled = snapshot.with_own_channel(&alias, Arc::new(status));
        if let Some(state) = snapshot.tablets.get_mut(&alias) {
            state.status = Some(settled.clone());
        }
        (settled, snapshot.channel_of(&alias))
    }

    #[test]
    fn the_shards_channel_leads_to_a_tablet() {
        let pulled = format!("{}:1-4", uuid('d'));
        let dw = || channel("dw", "h9", 'd', &pulled);
        let unnamed = || channel("", "h1", 'a', "");
        let named = || channel("filtered", "h1", 'a', "");
        // Whose; the channels; the shard's and how many others; how much it has of what was pulled: the primary has
        // two.
        for (who, channels, own, others, executed) in [
            ("zone1-2", vec![unnamed()], Some(""), 0, 5),
            ("zone1-2", vec![unnamed(), dw()], Some(""), 1, 2),
            ("zone1-2", vec![named()], Some("filtered"), 0, 5),
            ("zone1-2", vec![named(), dw()], Some("filtered"), 1, 2),
            ("zone1-2", vec![dw()], None, 1, 2),
            // What the primary pulled is the shard's.
            ("zone1-1", vec![dw()], None, 1, 5),
            // The unnamed one is somebody else's.
            ("zone1-2", vec![channel("", "h9", 'd', &pulled), named()], Some("filtered"), 1, 2),
            // Its source has another name in the records.
            ("zone1-2", vec![channel("", "x", 'x', ""), dw()], Some(""), 1, 2),
        ] {
            let names: Vec<String> = channels.iter().map(|one| one.channel.clone()).collect();
            let (status, _) = settled(who, channels);
            let found = status.replication.as_ref().map(|one| one.channel.as_str());
            assert_eq!((found, status.channels.len()), (own, others), "{who}: {names:?}");
            let count = |letter| status.gtid_executed.of_source(&uuid(letter)).count();
            assert_eq!((count('a'), count('d')), (9, executed), "{who}: {names:?}");
            assert_eq!(status.is_filtered(), own == Some("filtered"), "{who}: {names:?}");
        }
    }

    #[test]
    fn a_statement_names_the_shards_channel() {
        let foreign = || channel("", "h9", 'd', "");
        let leads = |name: &str| channel(name, "h1", 'a', "");
        assert_eq!(settled("zone1-2", vec![leads("")]).1, "");
        assert_eq!(settled("zone1-2", vec![leads("own")]).1, "own");
        assert_eq!(settled("zone1-2", vec![foreign(), leads("own")]).1, "own");
        assert_eq!(settled("zone1-2", vec![channel("dw", "h9", 'd', "")]).1, "");
        assert_eq!(settled("zone1-2", vec![foreign()]).1, "");
    }
}
