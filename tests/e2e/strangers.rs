//! Somebody else's server answers at a tablet's address: a pod moved, and its address was given to another one.

use mysql::prelude::Queryable;
use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, PATIENCE, padded, wait_for};
use crate::proxy::Proxy;
use crate::writer::{Writer, arrives, create_table, has, rows};

const FOUR: [&str; 4] = ["zone1-101", "zone1-102", "zone1-103", "zone1-104 rdonly"];
/// A tablet of the shard `other/0`.
const OTHERS: [&str; 2] = ["zone1-201", "zone1-202"];

/// One tablet of `ks/0` is reached through a proxy; the shard `other/0` has a primary that has written a lot.
struct Neighbours {
    cluster: Cluster,
    proxy: Proxy,
    primary: String,
    moved: String,
    stranger: String,
}

impl Neighbours {
    fn new(flavor: Flavor, moved: &str, kind: &str) -> Self {
        let mut cluster = Cluster::new(flavor, "semi_sync", &FOUR);
        cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
        let proxy = Proxy::before(cluster.server(moved).address());
        cluster.topo(&["delete", moved]).unwrap();
        let add = ["add-tablet", moved, "--shard", "ks/0", "--mysql", &proxy.address];
        cluster.topo(&[&add[..], &["--type", kind]].concat()).unwrap();
        cluster.add_members(flavor, &OTHERS);
        cluster.topo(&["add-keyspace", "other", "--durability-policy", "none"]).unwrap();
        cluster.topo(&["add-shard", "other/0"]).unwrap();
        for one in OTHERS {
            let address = cluster.server(one).address();
            cluster.topo(&["add-tablet", one, "--shard", "other/0", "--mysql", &address]).unwrap();
        }
        cluster.start_daemon(&[]);
        let primary = cluster.healthy(&[]);
        create_table(cluster.server(&primary));
        let stranger = wait_for(|| {
            let shard = cluster.daemon().get("/api/v1/shards/other/0");
            let quiet = shard["findings"].as_array()?.is_empty() && shard["recovering"].is_null();
            shard["primary"].as_str().filter(|_| quiet).map(str::to_owned)
        });
        let stranger = stranger.expect("the other shard has no primary");
        let mut writes = cluster.server(&stranger).connect_within("admin", PATIENCE).unwrap();
        writes.query_drop("CREATE DATABASE test").unwrap();
        writes.query_drop("CREATE TABLE test.theirs (id INT PRIMARY KEY)").unwrap();
        for number in 0..200 {
            writes.query_drop(format!("INSERT INTO test.theirs VALUES ({number})")).unwrap();
        }
        Self { cluster, proxy, primary, moved: padded(moved), stranger }
    }

    /// The tablet's server dies, and the other shard's primary is given its address.
    fn give_address_away(&mut self) {
        self.cluster.server_mut(&self.moved).kill();
        self.proxy.lead_to(self.cluster.server(&self.stranger).address());
        self.is_named();
    }

    fn is_named(&self) {
        let named = || {
            let shard = self.cluster.daemon().shard();
            let mut findings = shard["findings"].as_array()?.iter();
            let is = |one: &&Value| {
                one["code"] == "StrangerAtAddress" && one["tablet"] == self.moved.as_str()
            };
            findings.find(is).map(|_| ())
        };
        wait_for(named).unwrap_or_else(|| panic!("{:#}", self.cluster.daemon().shard()));
    }

    /// A client of the stranger's that stays connected, and what would be changed.
    fn untouched(&self) -> (mysql::Conn, Vec<String>) {
        let client = self.cluster.server(&self.stranger).connect_within("app", PATIENCE).unwrap();
        (client, self.state())
    }

    fn state(&self) -> Vec<String> {
        let server = self.cluster.server(&self.stranger);
        let asked = ["SELECT @@GLOBAL.read_only", "SELECT COUNT(*) FROM test.theirs"];
        asked.iter().map(|question| server.value(question).unwrap()).collect()
    }

    fn next_primary(&self) -> String {
        let next = wait_for(|| {
            let shard = self.cluster.daemon().shard();
            let primary = shard["primary"].as_str().filter(|one| *one != self.primary)?;
            let writable = tablet(&shard, primary)["read_only"] == false;
            writable.then(|| primary.to_owned())
        });
        next.unwrap_or_else(|| panic!("{:#}", self.cluster.daemon().shard()))
    }

    fn type_of_the_moved(&self) -> String {
        let shard = self.cluster.daemon().shard();
        tablet(&shard, &self.moved)["type"].as_str().unwrap().to_owned()
    }
}

/// A replica's address belongs to another shard's primary: that is named and goes on taking writes, and the shard fails
/// over without the replica. (One that acknowledges would be waited for, wherever it is.) A vtorc that starts only then
/// sees the same.
#[test]
fn another_shards_primary_at_a_replicas_address_is_not_touched() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut shards = Neighbours::new(flavor, "zone1-104", "rdonly");
        // Who watches this shard alone knows nothing of the stranger's own place.
        shards.cluster.daemons.clear();
        shards.cluster.start_daemon(&["-clusters_to_watch=ks"]);
        assert_eq!(shards.cluster.healthy(&[]), shards.primary);
        let (mut client, before) = shards.untouched();
        let writer = Writer::start(&shards.cluster);
        // The stranger's last number is behind the shard's: that is no sign that it has the shard's history.
        writer.wait_for_more(300);
        shards.give_address_away();
        writer.wait_for_more(20);
        shards.cluster.server_mut(&shards.primary.clone()).kill();
        let gone = [shards.primary.as_str(), shards.moved.as_str()];
        let second = shards.cluster.healthy(&gone);
        let acknowledged = writer.finish();
        assert!(has(shards.cluster.server(&second), &acknowledged), "acknowledged rows were lost");
        if flavor == Flavor::MySql {
            shards.cluster.daemons.clear();
            shards.cluster.start_daemon(&[]);
            shards.is_named();
            assert_eq!(shards.cluster.healthy(&gone), second);
        }
        assert_eq!(shards.type_of_the_moved(), "RDONLY");
        assert_eq!(shards.state(), before);
        client.query_drop("INSERT INTO test.theirs VALUES (1000)").expect("its session was ended");
        // The address is the tablet's own again.
        shards.cluster.server_mut(&shards.moved.clone()).restart().unwrap();
        shards.proxy.lead_to(shards.cluster.server(&shards.moved).address());
        assert_eq!(shards.cluster.healthy(&[&shards.primary]), second);
        let written = rows(shards.cluster.server(&second));
        arrives(shards.cluster.server(&shards.moved), &written);
    }
}

/// A primary's address belongs to another shard's primary: the shard's own is gone, and is replaced, also where
/// replicas may log in to the stranger and follow it before anybody can see that. What they take from it does not
/// count, and does not hold them up.
#[test]
fn another_shards_primary_at_a_primarys_address_is_not_touched() {
    for lets_replicas_in in [true, false] {
        let mut shards = Neighbours::new(Flavor::MySql, "zone1-101", "replica");
        assert_eq!(shards.primary, shards.moved);
        if !lets_replicas_in {
            shards.cluster.server(&shards.stranger).run(&["DROP USER 'vt_repl'@'%'"]).unwrap();
        }
        let (mut client, before) = shards.untouched();
        shards.give_address_away();
        let second = match lets_replicas_in {
            // Those who followed it have errant GTIDs, and are named for it.
            true => shards.next_primary(),
            false => shards.cluster.healthy(&[&shards.primary]),
        };
        assert_ne!(second, shards.primary);
        assert_eq!(shards.state(), before);
        client.query_drop("INSERT INTO test.theirs VALUES (1000)").expect("its session was ended");
        let primary = shards.cluster.server(&second);
        let theirs = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'theirs'";
        assert_eq!(primary.value(theirs).unwrap(), "0", "what is the stranger's was taken over");
        // Somebody acknowledges.
        primary.run(&["INSERT INTO test.ledger VALUES (7, 'after')"]).unwrap();
    }
}

/// Somebody wrote another address of the primary's server, and of a replica's, into two more records. Whose server it
/// is, is named; it is neither fenced nor promoted for the other record, also by a vtorc that starts only then.
#[test]
fn a_server_with_two_records_is_one_server() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let three = ["zone1-101", "zone1-102", "zone1-103"];
        let mut cluster = Cluster::new(flavor, "semi_sync", &three);
        cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        let replica = if first == padded(three[0]) { three[1] } else { three[0] };
        let mut proxies = Vec::new();
        for (second, owner) in [("zone1-098", first.as_str()), ("zone1-099", replica)] {
            let proxy = Proxy::before(cluster.server(owner).address());
            let add = ["add-tablet", second, "--shard", "ks/0", "--mysql", &proxy.address];
            cluster.topo(&add).unwrap();
            proxies.push(proxy);
        }
        belongs(&cluster, "zone1-098", &first);
        belongs(&cluster, "zone1-099", replica);
        assert_eq!(cluster.healthy(&["zone1-098", "zone1-099"]), first);
        cluster.topo(&["delete", "zone1-098"]).unwrap();
        cluster.daemons.clear();
        cluster.start_daemon(&[]);
        belongs(&cluster, "zone1-099", replica);
        assert_eq!(cluster.healthy(&["zone1-099"]), first, "{flavor:?}");
        let writer = Writer::start(&cluster);
        writer.wait_for_more(20);
        cluster.server_mut(&first).kill();
        // Its record may be another server's that nobody can reach, as any other's: what to do is said.
        cluster.daemon().held_back("zone1-0000000099");
        cluster.topo(&["delete", "zone1-099"]).unwrap();
        let second = cluster.healthy(&[&first]);
        assert_ne!(second, first);
        let acknowledged = writer.finish();
        assert!(has(cluster.server(&second), &acknowledged), "acknowledged rows were lost");
    }
}

/// Waits until it is said that another tablet's server answers at this one's address.
fn belongs(cluster: &Cluster, alias: &str, owner: &str) {
    let words = format!("the server of {} answers", padded(owner));
    let is_named = || {
        let shard = cluster.daemon().shard();
        let mut of_it = shard["findings"].as_array()?.iter();
        let said = of_it.find(|one| one["tablet"] == padded(alias).as_str())?;
        said.to_string().contains(&words).then_some(())
    };
    wait_for(is_named).unwrap_or_else(|| panic!("{:#}", cluster.daemon().shard()));
}
