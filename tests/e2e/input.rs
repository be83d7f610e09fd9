//! Bad input gets a clear error, and nothing is lost.

use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, padded, vtorc, wait_for};

fn starts_not(arguments: &[&str], words: &[&str]) {
    let error = vtorc(arguments).unwrap_err();
    for word in words {
        assert!(error.contains(word), "{arguments:?}: {word:?} is not in {error}");
    }
}

#[test]
fn configurations_and_flags_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    starts_not(&["--config", "/no/such/file.json"], &["/no/such/file.json"]);
    starts_not(&["--config", &file("a.json", "not json")], &["a.json", "line 1"]);
    starts_not(
        &["--config", &file("b.json", "{\"Debug\": 3}")],
        &["b.json", "key Debug", "boolean"],
    );
    starts_not(&["--config", &file("c.json", "{\"Wibble\": 3}"), "--strict-config"], &["Wibble"]);
    starts_not(&["--confg", "x"], &["--config"]);
    starts_not(&["-topo_implementation", "k8s"], &["zk2", "local"]);
    starts_not(&["-topo_implementation", "zk2", "-port=0"], &["topo-global-server-address"]);
    starts_not(&["-clusters_to_watch", "a b", "-port=0"], &["clusters_to_watch"]);
    let ok = file("d.json", "{}");
    starts_not(
        &[
            "-topo_implementation",
            "zk2",
            "-topo_global_server_address",
            "127.0.0.1:1",
            "-topo_global_root",
            "relative",
            "-port=0",
            "-config",
            &ok,
        ],
        &["/vitess/global"],
    );
    assert!(vtorc(&["--version"]).unwrap().starts_with("vtorc "));
    let help = vtorc(&["--help"]).unwrap();
    assert!(
        help.contains("Topology")
            && help.contains("--clusters-to-watch")
            && help.contains("Logging"),
        "{help}"
    );
    assert!(vtorc(&["completions", "bash"]).unwrap().contains("complete"));
}

#[test]
fn a_topology_server_that_is_not_there_is_said_loudly() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.topo_flags = vec![
        "-topo_implementation=zk2".into(),
        "-topo_global_server_address=127.0.0.1:1".into(),
        "-topo_global_root=/vitess/global".into(),
    ];
    cluster.start_daemon(&[]);
    let told = wait_for(|| {
        cluster.daemon().get("/api/v1/system")["topology_error"].as_str().map(str::to_owned)
    });
    assert!(told.expect("the error is not shown").contains("ZooKeeper at 127.0.0.1:1"));
    assert_eq!(cluster.daemon().get("/debug/health")["healthy"], false);
    assert!(cluster.daemon().log_text().contains("no recovery is possible"));
}

#[test]
fn damaged_records_keep_what_was_known_and_are_named() {
    let mut cluster =
        Cluster::new(Flavor::MariaDb, "semi_sync", &["zone1-101", "zone1-102", "zone1-103"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let topo = cluster.directory.path().join("topo");
    let record = topo.join("zone1/tablets").join(padded("zone1-103")).join("Tablet");
    let good = std::fs::read(&record).unwrap();
    for garbage in [&b"\xff\xff\xff garbage"[..], b"", b"\x0a\x05"] {
        std::fs::write(&record, garbage).unwrap();
        let shard = cluster.daemon().finding("DamagedRecord");
        let finding = shard["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|f| f["code"] == "DamagedRecord")
            .unwrap();
        assert!(
            finding["evidence"][0]["text"].as_str().unwrap().contains(&padded("zone1-103")),
            "{finding:#}"
        );
        assert_eq!(shard["tablets"].as_array().unwrap().len(), 3, "a tablet vanished");
        std::fs::write(&record, &good).unwrap();
        assert_eq!(cluster.healthy(&[]), primary);
    }
    let shard_record = topo.join("global/keyspaces/ks/shards/0/Shard");
    let good = std::fs::read(&shard_record).unwrap();
    std::fs::write(&shard_record, b"\xff\xff").unwrap();
    let told = wait_for(|| {
        let warnings = cluster.daemon().get("/api/v1/system")["topology_warnings"].clone();
        warnings.to_string().contains("keyspaces/ks/shards/0/Shard").then_some(())
    });
    told.expect("the damaged shard record is not shown");
    assert_eq!(cluster.daemon().shard()["primary"], primary, "the shard vanished");
    std::fs::write(&shard_record, &good).unwrap();
    assert_eq!(cluster.healthy(&[]), primary);
}

#[test]
fn a_damaged_keyspace_record_keeps_its_shards_and_an_empty_one_is_legal() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let record = cluster.directory.path().join("topo/global/keyspaces/ks/Keyspace");
    std::fs::write(&record, b"\xff\xff\xff").unwrap();
    let told = || {
        let warnings = cluster.daemon().get("/api/v1/system")["topology_warnings"].to_string();
        warnings.contains("keyspaces/ks/Keyspace").then_some(())
    };
    wait_for(told).expect("the damaged record is not named");
    assert_eq!(cluster.daemon().shard()["primary"], primary, "the shard vanished");
    std::fs::write(&record, b"").unwrap();
    let clear =
        || (cluster.daemon().get("/api/v1/system")["topology_warnings"] == json!({})).then_some(());
    wait_for(clear).expect("an empty record is not taken");
    assert_eq!(cluster.healthy(&[]), primary);
}

#[test]
fn unknown_fields_of_records_survive_a_failover() {
    let mut cluster =
        Cluster::new(Flavor::MariaDb, "semi_sync", &["zone1-101", "zone1-102", "zone1-103"]);
    let unknown = [0xa2, 0x06, 0x03, b'a', b'b', b'c'];
    let topo = cluster.directory.path().join("topo");
    let mut records = vec![topo.join("global/keyspaces/ks/shards/0/Shard")];
    for alias in ["zone1-101", "zone1-102", "zone1-103"] {
        records.push(topo.join("zone1/tablets").join(padded(alias)).join("Tablet"));
    }
    for record in &records {
        let mut bytes = std::fs::read(record).unwrap();
        bytes.extend(unknown);
        std::fs::write(record, bytes).unwrap();
    }
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    cluster.healthy(&[&first]);
    for record in &records {
        assert!(std::fs::read(record).unwrap().ends_with(&unknown), "{}", record.display());
    }
}

#[test]
fn an_unknown_policy_is_watched_and_not_acted_on() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    // As somebody else's tool, or a newer Vitess, might write it.
    let record = cluster.directory.path().join("topo/global/keyspaces/ks/Keyspace");
    let good = std::fs::read(&record).unwrap();
    std::fs::write(&record, b"\x42\x04best\x52\x03_vt").unwrap();
    let shard = cluster.daemon().finding("UnknownDurabilityPolicy");
    assert_eq!(shard["durability_policy"], "best");
    cluster.server_mut(&primary).kill();
    let gone = wait_for(|| {
        (tablet(&cluster.daemon().shard(), &primary)["state"] == "unreachable").then_some(())
    });
    gone.expect("it is not watched");
    assert_eq!(cluster.daemon().shard()["primary"], primary);
    std::fs::write(&record, &good).unwrap();
    assert_ne!(cluster.healthy(&[&primary]), primary);
}

#[test]
fn a_wrong_password_is_named_with_user_and_tablet() {
    let mut cluster = Cluster::new(Flavor::MySql, "none", &["zone1-101", "zone1-102"]);
    cluster.configure(&[("MySQLTopologyPassword", json!("wrong-on-purpose"))]);
    cluster.start_daemon(&[]);
    let shard = cluster.daemon().finding("AccessDenied");
    let finding = &shard["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["code"] == "AccessDenied")
        .unwrap()
        .clone();
    let evidence = finding["evidence"].to_string();
    assert!(evidence.contains("orc_client_user") && evidence.contains("1045"), "{finding:#}");
    assert!(finding["tablet"].is_string());
    assert!(!cluster.daemon().log_text().contains("wrong-on-purpose"));
    assert_eq!(shard["primary"], Value::Null);
}

#[test]
fn a_tablet_without_an_address_is_named_and_two_primaries_become_one() {
    let mut cluster =
        Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102", "zone1-103"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let replica = if primary == padded("zone1-101") { "zone1-102" } else { "zone1-101" };
    // A replica's record says PRIMARY, with an older term.
    let record =
        cluster.directory.path().join("topo/zone1/tablets").join(padded(replica)).join("Tablet");
    let mut bytes = std::fs::read(&record).unwrap();
    bytes.extend([0x40, 0x01, 0x72, 0x02, 0x08, 0x05]);
    std::fs::write(&record, bytes).unwrap();
    let repaired = cluster.daemon().recovery(|one| one["finding"] == "StaleTopoPrimary");
    assert_eq!(repaired["outcome"], "succeeded", "{repaired:#}");
    assert_eq!(cluster.healthy(&[]), primary);
    assert_eq!(tablet(&cluster.daemon().shard(), replica)["type"], "REPLICA");
    // A record whose vttablet shut down: it has no address any more.
    let mut bytes = std::fs::read(&record).unwrap();
    bytes.extend([0x92, 0x01, 0x02, 0x08, 0x07]);
    std::fs::write(&record, bytes).unwrap();
    let shard = cluster.daemon().finding("NoMysqlAddress");
    assert_eq!(tablet(&shard, replica)["mysql_host"], Value::Null);
}
