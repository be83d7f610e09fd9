//! Replicas that also pull from elsewhere, and channels with names: the shard's is told from the others, which go on.

use mysql::prelude::Queryable;
use serde_json::json;
use vtorc_fleet::{Flavor, Server};

use crate::failover::tablet;
use crate::harness::{Cluster, PLANNED, THREE, padded, wait_for};
use crate::writer::{Writer, arrives, create_table, has};

/// A server that is no tablet of any shard.
const WAREHOUSE: &str = "zone1-301";

struct Story {
    cluster: Cluster,
    flavor: Flavor,
    first: String,
    /// Pulls from the warehouse as well.
    puller: String,
    other: String,
}

impl Story {
    fn new(flavor: Flavor) -> Self {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        cluster.add_members(flavor, &[WAREHOUSE]);
        let mut replicas = THREE.iter().map(|alias| padded(alias)).filter(|one| *one != first);
        let [puller, other] = [replicas.next().unwrap(), replicas.next().unwrap()];
        let story = Self { flavor, first, puller, other, cluster };
        story.open_warehouse();
        story
    }

    fn open_warehouse(&self) {
        let open = match self.flavor {
            Flavor::MySql => vec!["SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF"],
            // Its transactions must not be taken for the shard's.
            Flavor::MariaDb => {
                vec!["SET GLOBAL read_only = OFF", "SET GLOBAL gtid_domain_id = 7", "RESET MASTER"]
            }
        };
        let warehouse = self.cluster.server(WAREHOUSE);
        warehouse.run(&open).unwrap();
        warehouse
            .run(&["CREATE DATABASE dw", "CREATE TABLE dw.goods (id INT PRIMARY KEY)"])
            .unwrap();
    }

    fn pull(&self) {
        let port = self.cluster.server(WAREHOUSE).address().rsplit_once(':').unwrap().1.to_owned();
        let statements = match self.flavor {
            Flavor::MySql => [
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                     SOURCE_USER = 'vt_repl', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1 \
                     FOR CHANNEL 'dw'"
                ),
                "START REPLICA FOR CHANNEL 'dw'".to_owned(),
            ],
            Flavor::MariaDb => [
                format!(
                    "CHANGE MASTER 'dw' TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
                     MASTER_USER = 'vt_repl', MASTER_USE_GTID = slave_pos"
                ),
                "START SLAVE 'dw'".to_owned(),
            ],
        };
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        self.cluster.server(&self.puller).run(&statements).unwrap();
    }

    /// Something new in the warehouse arrives.
    fn still_pulls(&self, id: u32, servers: &[&str]) {
        let add = format!("INSERT INTO dw.goods VALUES ({id})");
        self.cluster.server(WAREHOUSE).run(&[&add]).unwrap();
        for alias in servers {
            let arrived = || {
                let count = format!("SELECT COUNT(*) FROM dw.goods WHERE id = {id}");
                (self.cluster.server(alias).value(&count).ok()? == "1").then_some(())
            };
            wait_for(arrived).unwrap_or_else(|| {
                let shard = self.cluster.daemon().shard();
                panic!("{id} does not arrive on {alias}: {shard:#}")
            });
        }
    }

    /// Much arrives by the primary's other channel. Replicas may show it before the primary does: nobody was promoted
    /// by that.
    fn streams(&self) {
        let before = self.cluster.daemon().recoveries();
        let mut connection = self.cluster.server(WAREHOUSE).connect("admin").unwrap();
        for id in 1000..2000 {
            connection.query_drop(format!("INSERT INTO dw.goods VALUES ({id})")).unwrap();
        }
        self.still_pulls(2000, &[&self.first, &self.other]);
        assert_eq!(self.cluster.daemon().recoveries(), before);
        assert_eq!(self.cluster.healthy(&[]), self.puller);
    }

    fn moves_to(&self, alias: &str) {
        let (status, answer) =
            self.cluster.daemon().post(PLANNED, json!({"new_primary": alias, "reason": "test"}));
        assert_eq!(status, 200, "{answer:#}");
        self.cluster.settles(|primary| primary == alias);
        self.cluster.healthy(&[]);
        // The next one is chosen by what everybody knows of this one.
        let reparents = |alias: &str| {
            self.cluster.server(alias).value("SELECT COUNT(*) FROM _vt.reparent_journal").ok()
        };
        for other in THREE {
            let knows = || (reparents(other) == reparents(alias)).then_some(());
            wait_for(knows).unwrap_or_else(|| panic!("{other} does not know of the reparent"));
        }
    }
}

/// Whether both threads of a channel of MySQL's run.
fn threads(server: &Server, channel: &str) -> String {
    let running = format!(
        "SELECT CONCAT(c.SERVICE_STATE, ' ', a.SERVICE_STATE) FROM \
         performance_schema.replication_connection_status c JOIN \
         performance_schema.replication_applier_status a USING (CHANNEL_NAME) \
         WHERE CHANNEL_NAME = '{channel}'"
    );
    server.value(&running).unwrap()
}

/// A replica pulls from a warehouse as well: it stays in service, is repointed, promoted and replaced, and goes on
/// pulling all the time.
#[test]
fn a_replica_that_pulls_from_elsewhere_goes_on_with_it() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut story = Story::new(flavor);
        story.pull();
        story.still_pulls(1, &[&story.puller]);
        let seen = wait_for(|| {
            let shard = story.cluster.daemon().shard();
            let channels = tablet(&shard, &story.puller)["other_channels"].clone();
            (channels[0]["channel"] == "dw").then_some(())
        });
        seen.expect("the other channel is not shown");
        assert_eq!(story.cluster.healthy(&[]), story.first);
        // It is repointed.
        story.moves_to(&story.other);
        story.still_pulls(2, &[&story.puller]);
        // It is promoted, and what it pulls is everybody's from then on.
        story.moves_to(&story.puller);
        story.still_pulls(3, &[&story.puller, &story.first, &story.other]);
        story.streams();
        // It dies: what it wrote and what it pulled is on its successor.
        let writer = Writer::start(&story.cluster);
        writer.wait_for_more(20);
        story.cluster.server_mut(&story.puller.clone()).kill();
        let last = story.cluster.healthy(&[&story.puller]);
        let acknowledged = writer.finish();
        assert!(has(story.cluster.server(&last), &acknowledged), "acknowledged rows were lost");
    }
}

/// The shard's channel may have a name, also as the only one.
#[test]
fn a_named_channel_to_the_primary_is_the_shards() {
    let mut story = Story::new(Flavor::MySql);
    let source = story.cluster.server(&story.first).address();
    let port = source.rsplit_once(':').unwrap().1;
    let named = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
         SOURCE_USER = 'vt_repl', SOURCE_AUTO_POSITION = 1, SOURCE_HEARTBEAT_PERIOD = 0.25, \
         SOURCE_RETRY_COUNT = 100000, SOURCE_CONNECT_RETRY = 1, GET_SOURCE_PUBLIC_KEY = 1 \
         FOR CHANNEL 'shard'"
    );
    story.cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    let replica = story.cluster.server(&story.puller);
    replica
        .run(&[
            "STOP REPLICA FOR CHANNEL ''",
            "RESET REPLICA ALL FOR CHANNEL ''",
            &named,
            "START REPLICA FOR CHANNEL 'shard'",
        ])
        .unwrap();
    let recognised = wait_for(|| {
        let shard = story.cluster.daemon().shard();
        let replication = tablet(&shard, &story.puller)["replication"].clone();
        (replication["channel"] == "shard").then_some(())
    });
    recognised.expect("the named channel is not taken for the shard's");
    story.cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    assert_eq!(story.cluster.healthy(&[]), story.first);
    story.moves_to(&story.other);
    let replica = story.cluster.server(&story.puller);
    assert_eq!(threads(replica, "shard"), "ON ON");
    let count = "SELECT COUNT(*) FROM performance_schema.replication_connection_configuration \
                 WHERE HOST <> ''";
    assert_eq!(replica.value(count).unwrap(), "1", "another channel was made");
    story.moves_to(&story.puller);
    let second = story.puller.clone();
    story.cluster.server(&second).run(&["INSERT INTO test.ledger VALUES (9, 'x')"]).unwrap();
    arrives(story.cluster.server(&story.other), &[9].into());
    story.cluster.server_mut(&second).kill();
    story.cluster.healthy(&[&second]);
}

/// MySQL gives up after ten tries since 8.4. A replica comes back by itself all the same, while vtorc is down, and
/// one that was set up to give up soon is told better.
#[test]
fn a_replica_goes_on_trying_while_nobody_looks() {
    let mut story = Story::new(Flavor::MySql);
    let tries = "SELECT CONNECTION_RETRY_COUNT FROM \
                 performance_schema.replication_connection_configuration WHERE CHANNEL_NAME = ''";
    let few = ["STOP REPLICA IO_THREAD", "CHANGE REPLICATION SOURCE TO SOURCE_RETRY_COUNT = 3"];
    let replica = story.cluster.server(&story.puller);
    replica.run(&few).unwrap();
    replica.run(&["START REPLICA IO_THREAD"]).unwrap();
    let told = || (replica.value(tries).ok()? == "4294967295").then_some(());
    wait_for(told).expect("it would still give up");
    story.cluster.healthy(&[]);
    story.cluster.daemons.pop().unwrap().child.kill();
    story.cluster.server_mut(&story.first.clone()).kill();
    std::thread::sleep(std::time::Duration::from_secs(13));
    story.cluster.server_mut(&story.first.clone()).restart().unwrap();
    for alias in [&story.puller, &story.other] {
        let back = || (threads(story.cluster.server(alias), "") == "ON ON").then_some(());
        wait_for(back).unwrap_or_else(|| panic!("{alias} gave up"));
    }
}
