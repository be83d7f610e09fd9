//! Records that cannot be understood: whose they are is known, and what they said before holds.

use std::path::PathBuf;

use serde_json::Value;
use vtorc_fleet::Flavor;

use crate::check::check;
use crate::failover::{emergency, tablet};
use crate::harness::{Cluster, THREE, padded, wait_for};
use crate::writer::{arrives, create_table, has};

const GARBAGE: &[u8] = b"\xff\xff\xff garbage";

fn record(cluster: &Cluster, alias: &str) -> PathBuf {
    let tablets = cluster.directory.path().join("topo/zone1/tablets");
    tablets.join(padded(alias)).join("Tablet")
}

fn is_damaged(shard: &Value, alias: &str) -> bool {
    let findings = shard["findings"].as_array().cloned().unwrap_or_default();
    let mut damaged = findings.iter().filter(|one| one["code"] == "DamagedRecord");
    damaged.any(|one| one["evidence"].to_string().contains(&padded(alias)))
}

/// Waits until `ks/0` has a primary of which the rest says that it follows it, and answers it.
fn has_primary(cluster: &Cluster, not: &str, followers: usize) -> String {
    let found = || {
        let shard = cluster.daemon().shard();
        let primary = shard["primary"].as_str().filter(|primary| *primary != not)?.to_owned();
        let tablets = shard["tablets"].as_array()?;
        let follows = |tablet: &&Value| tablet["replication"]["receiver"] == "running";
        let following = tablets.iter().filter(follows).count();
        (following == followers && shard["recovering"].is_null()).then_some(primary)
    };
    wait_for(found).unwrap_or_else(|| panic!("no primary: {:#}", cluster.daemon().shard()))
}

/// A new shard of four, another of two, and one record that nobody can read, of `alias`, from the beginning.
fn one_record_is_garbage(alias: &str, ours: bool, others: bool) {
    let members = ["zone1-101", "zone1-102", "zone1-103", "zone1-104"];
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", &members);
    cluster.topo(&["add-keyspace", "other"]).unwrap();
    cluster.topo(&["add-shard", "other/0"]).unwrap();
    for (other, address) in [("zone1-901", "127.0.0.1:1"), ("zone1-902", "127.0.0.1:2")] {
        let add = ["add-tablet", other, "--shard", "other/0", "--mysql", address];
        cluster.topo(&add).unwrap();
    }
    let record = record(&cluster, alias);
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::fs::write(&record, GARBAGE).unwrap();
    cluster.start_daemon(&[]);
    let followers = if ours { 2 } else { 3 };
    let first = has_primary(&cluster, "", followers);
    let told = || {
        let warnings = cluster.daemon().get("/api/v1/system")["topology_warnings"].to_string();
        warnings.contains(&format!("vtorc topo delete {}", padded(alias))).then_some(())
    };
    wait_for(told).expect("what to do is not said");
    let found = || {
        let other = cluster.daemon().get("/api/v1/shards/other/0");
        let shards = (is_damaged(&cluster.daemon().shard(), alias), is_damaged(&other, alias));
        (shards == (ours, others)).then_some(())
    };
    wait_for(found)
        .unwrap_or_else(|| panic!("not so: {:#}", cluster.daemon().get("/api/v1/shards")));
    // Before all followers were heard after they were connected, the record of nobody may be an acker.
    let promotes =
        || (cluster.daemon().shard()["if_primary_died"]["outcome"] == "promotes").then_some(());
    wait_for(promotes).unwrap_or_else(|| panic!("refuses: {:#}", cluster.daemon().shard()));
    cluster.server_mut(&first).kill();
    let second = has_primary(&cluster, &first, followers - 1);
    assert_eq!(emergency(&cluster)["new_primary"], second.as_str());
    // Who could be read at last belongs to the shard.
    if ours {
        cluster.topo(&["delete", alias]).unwrap();
        let position = cluster.position(alias);
        let address = cluster.servers[position].address();
        cluster.topo(&["add-tablet", alias, "--shard", "ks/0", "--mysql", &address]).unwrap();
        assert_eq!(cluster.healthy(&[&first]), second);
    }
}

#[test]
fn a_damaged_record_of_another_shard_holds_nobody_up() {
    one_record_is_garbage("zone1-902", false, true);
}

#[test]
fn a_damaged_record_of_the_shard_itself_is_found_there_and_holds_it_not_up() {
    one_record_is_garbage("zone1-104", true, false);
}

#[test]
fn a_damaged_record_of_nobody_is_told_and_holds_nobody_up() {
    one_record_is_garbage("zone1-950", false, false);
}

#[test]
fn a_primary_whose_record_cannot_be_read_any_more_stays_the_only_one() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let good = std::fs::read(record(&cluster, &primary)).unwrap();
    std::fs::write(record(&cluster, &primary), GARBAGE).unwrap();
    cluster.daemon().finding("DamagedRecord");
    let replica = if primary == padded("zone1-103") { "zone1-102" } else { "zone1-103" };
    // Twice: what is found outside the lock after the first repair is what was found under it.
    for times in 1..=2 {
        cluster.server(replica).run(&["STOP SLAVE"]).unwrap();
        let repaired = || {
            let all = cluster.daemon().recoveries();
            let stopped = |one: &&Value| one["finding"] == "ReplicationStopped";
            let done = |one: &&Value| one["outcome"] == "succeeded";
            (all.iter().filter(stopped).filter(done).count() == times).then_some(())
        };
        wait_for(repaired)
            .unwrap_or_else(|| panic!("not repaired: {:#?}", cluster.daemon().recoveries()));
    }
    let reparents = cluster.daemon().recoveries();
    let reparent = |one: &&Value| one["kind"] == "EmergencyReparent";
    assert_eq!(reparents.iter().find(reparent), None);
    for member in THREE {
        let writable = cluster.server(member).value("SELECT @@read_only").unwrap() == "0";
        assert_eq!(writable, padded(member) == primary, "{member}");
    }
    std::fs::write(record(&cluster, &primary), good).unwrap();
    assert_eq!(cluster.healthy(&[]), primary);
}

/// What was read before stands, and a promotion shows in the tablets' records.
#[test]
fn a_shard_whose_own_record_or_keyspaces_cannot_be_read_fails_over_all_the_same() {
    for name in ["shards/0/Shard", "Keyspace"] {
        let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let primary = cluster.healthy(&[]);
        let path = cluster.directory.path().join("topo/global/keyspaces/ks").join(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, GARBAGE).unwrap();
        cluster.daemon().finding("DamagedRecord");
        assert_eq!(cluster.daemon().shard()["if_primary_died"]["outcome"], "promotes", "{name}");
        cluster.server_mut(&primary).kill();
        let second = has_primary(&cluster, &primary, 1);
        assert_eq!(emergency(&cluster)["outcome"], "succeeded", "{name}");
        let recorded = cluster.topo(&["show", &second]).unwrap();
        assert!(recorded.contains("PRIMARY"), "{recorded}");
        // What was there is put back: the shard's record names the old one then, and is corrected.
        std::fs::write(&path, good).unwrap();
        assert_eq!(cluster.healthy(&[&primary]), second);
    }
}

/// Whoever starts with it knows neither whom it names nor what it forbids: that is said, and nobody is promoted before
/// it can be read.
#[test]
fn a_shard_whose_own_record_was_never_read_is_shown_and_not_failed_over() {
    for name in ["shards/0/Shard", "Keyspace"] {
        let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let primary = cluster.healthy(&[]);
        cluster.daemons.pop();
        let path = cluster.directory.path().join("topo/global/keyspaces/ks").join(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, GARBAGE).unwrap();
        cluster.start_daemon(&[]);
        cluster.daemon().finding("DamagedRecord");
        let refuses = || {
            let forecast = cluster.daemon().shard()["if_primary_died"].clone();
            (forecast["outcome"] == "refuses").then(|| forecast.to_string())
        };
        let why = wait_for(refuses).expect("the forecast promises a failover");
        assert!(why.contains("was started") || why.contains("Keyspace"), "{why}");
        assert_eq!(cluster.daemon().shard()["primary"], primary, "{name}");
        cluster.server_mut(&primary).kill();
        let unreachable = || {
            (tablet(&cluster.daemon().shard(), &primary)["state"] == "unreachable").then_some(())
        };
        wait_for(unreachable).expect("it is not watched");
        if name != "Keyspace" {
            cluster.daemon().held_back("cannot be read");
        }
        assert_eq!(cluster.daemon().shard()["primary"], primary, "{name}");
        std::fs::write(&path, good).unwrap();
        assert_ne!(cluster.healthy(&[&primary]), primary);
    }
}

/// Somebody gives a tablet the address that another one has.
#[test]
fn a_tablet_with_anothers_address_is_not_added() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let address = cluster.server(&first).address();
    let add = ["add-tablet", "zone1-109", "--shard", "ks/0", "--mysql", &address];
    let refused = cluster.topo(&add).unwrap_err();
    assert!(refused.contains(&format!("has the address of {first}")), "{refused}");
    assert_eq!(cluster.daemon().shard()["tablets"].as_array().unwrap().len(), 1);
}

#[test]
fn what_an_acker_has_whose_record_cannot_be_read_is_not_lost() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    create_table(cluster.server(&primary));
    let mut others = THREE.iter().filter(|alias| padded(alias) != primary);
    let (acker, behind) = (*others.next().unwrap(), *others.next().unwrap());
    arrives(cluster.server(acker), &[].into());
    arrives(cluster.server(behind), &[].into());
    let good = std::fs::read(record(&cluster, acker)).unwrap();
    std::fs::write(record(&cluster, acker), GARBAGE).unwrap();
    cluster.daemon().finding("DamagedRecord");
    // Of a write that is acknowledged now, one of them knows nothing.
    cluster.server_mut(behind).kill();
    cluster.server(&primary).run(&["INSERT INTO test.ledger VALUES (1, 'kept')"]).unwrap();
    cluster.server_mut(&primary).kill();
    cluster.server_mut(behind).restart().unwrap();
    let second = has_primary(&cluster, &primary, 1);
    assert!(has(cluster.server(&second), &[1].into()), "an acknowledged write is lost");
    std::fs::write(record(&cluster, acker), good).unwrap();
    assert_eq!(cluster.healthy(&[&primary]), second);
    arrives(cluster.server(behind), &[1].into());
}

#[test]
fn check_and_topo_say_what_cannot_be_read_and_the_cure_cures() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    let stray = record(&cluster, "zone1-950");
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(stray, GARBAGE).unwrap();
    cluster.topo(&["add-cell", "zone2"]).unwrap();
    let topo = cluster.directory.path().join("topo");
    std::fs::write(topo.join("global/cells/zone2/CellInfo"), GARBAGE).unwrap();
    std::fs::write(topo.join("global/keyspaces/ks/Keyspace"), GARBAGE).unwrap();
    let list = cluster.topo(&["list"]).unwrap_err();
    let places = [
        ("cell zone2", "cells/zone2/CellInfo", "vtorc topo update-cell zone2"),
        ("keyspace ks", "keyspaces/ks/Keyspace", "write the record anew"),
        ("tablets/zone1-0000000950/Tablet", "Tablet", "vtorc topo delete zone1-0000000950"),
    ];
    let (status, concerns) = check(&cluster);
    assert_eq!(status, 4, "{concerns:#?}");
    for (what, why, cure) in places {
        let begins = format!("{what} cannot be read");
        let mut lines = list.lines().skip_while(|line| !line.contains(&begins));
        assert!(lines.next().is_some_and(|line| line.contains(why)), "{what}: {list}");
        assert!(lines.next().is_some_and(|line| line.contains(cure)), "{what}: {list}");
        let named = |one: &&Value| one["what"].as_str().unwrap().starts_with(what);
        let concern =
            concerns.iter().find(named).unwrap_or_else(|| panic!("{what}: {concerns:#?}"));
        assert!(concern["what"].as_str().unwrap().contains(why), "{concern:#}");
        assert!(concern["cure"].as_str().unwrap().contains(cure), "{concern:#}");
    }
    std::fs::write(topo.join("global/keyspaces/ks/Keyspace"), b"").unwrap();
    cluster.topo(&["delete", "zone1-950"]).unwrap();
    let root = topo.join("zone2").display().to_string();
    let update = ["update-cell", "zone2", "--server-address", "", "--root", &root];
    cluster.topo(&update).unwrap();
    let list = cluster.topo(&["list"]).unwrap();
    assert!(
        list.contains("zone1-0000000101 PRIMARY") && !list.contains("cannot be read"),
        "{list}"
    );
    assert!(!check(&cluster).1.iter().any(|one| one["code"] == "Topology"));
}
