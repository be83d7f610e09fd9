//! What operators switch, excuse and ask for: it holds, is shown, survives a restart, and can be lifted.

use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, THREE, padded, vtorc, wait_for};

fn set(cluster: &Cluster, control: &str, comment: &str) -> (u16, Value) {
    let body = json!({"control": control, "comment": comment});
    cluster.daemon().post("/api/v1/controls/set", body)
}

fn lift(cluster: &Cluster, control: &str) {
    let (status, answer) =
        cluster.daemon().post("/api/v1/controls/lift", json!({"control": control}));
    assert_eq!(status, 202, "{answer}");
}

#[test]
fn a_shard_that_is_switched_off_is_left_alone_until_it_is_lifted() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(set(&cluster, "emergency-reparents-off ks/0", "moving house").0, 202);
    let shown = wait_for(|| {
        let system = cluster.daemon().get("/api/v1/system");
        let one = system["controls"].get(0)?.clone();
        (one["comment"] == "moving house").then_some(one)
    });
    assert_eq!(shown.expect("it is not shown")["control"], "emergency-reparents-off ks/0");
    // It survives a restart of vtorc.
    cluster.daemons.pop();
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("moving house");
    assert_eq!(cluster.daemon().shard()["primary"], first);
    let shard = cluster.daemon().shard();
    let decision = shard["why_not"].as_array().unwrap().iter().find(|one| one["until"].is_null());
    let decision = decision.unwrap_or_else(|| panic!("{shard:#}"));
    assert_eq!(
        (&decision["why"], &decision["finding"]),
        (&json!("switched_off"), &json!("DeadPrimary"))
    );
    let metrics = cluster.daemon().get("/metrics");
    let line = "vtorc_not_recovering{keyspace=\"ks\",reason=\"switched_off\",shard=\"0\"} 1";
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
    let line = "vtorc_skipped_recoveries{keyspace=\"ks\",reason=\"switched_off\",\
                recovery_type=\"RecoverDeadPrimary\",shard=\"0\"} 1";
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
    lift(&cluster, "emergency-reparents-off ks/0");
    assert_ne!(cluster.healthy(&[&first]), first);
    let kept = |path: &str, fits: &dyn Fn(&Value) -> bool| {
        let found =
            wait_for(|| cluster.daemon().get(path).as_array()?.iter().any(fits).then_some(()));
        assert!(found.is_some(), "{path}: {:#}", cluster.daemon().get(path));
    };
    kept("/api/v1/audit", &|one| one["action"] == "lift emergency-reparents-off ks/0");
    kept("/api/v1/findings?keyspace=ks", &|one| {
        one["code"] == "DeadPrimary" && one["tablet"] == first && !one["until"].is_null()
    });
}

#[test]
fn a_tablet_in_downtime_is_neither_repaired_nor_promoted() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let excused = THREE.iter().find(|alias| padded(alias) != first).unwrap();
    assert_eq!(set(&cluster, &format!("downtime {excused}"), "new disk").0, 202);
    let would = wait_for(|| {
        let would = cluster.daemon().shard()["if_primary_died"].clone();
        would["not"][padded(excused)].as_str()?.contains("must_not").then_some(())
    });
    would.expect("it would be promoted");
    cluster.server(excused).run(&["STOP SLAVE"]).unwrap();
    cluster.daemon().held_back("new disk");
    let shard = cluster.daemon().shard();
    assert_eq!(tablet(&shard, excused)["replication"]["receiver"], "stopped");
    lift(&cluster, &format!("downtime {excused}"));
    cluster.healthy(&[]);
}

#[test]
fn a_preferred_tablet_is_promoted_and_nonsense_is_refused() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let last = THREE.iter().rev().find(|alias| padded(alias) != first).unwrap();
    assert_eq!(set(&cluster, &format!("promotion {last} prefer"), "biggest machine").0, 202);
    let would = wait_for(|| {
        let would = cluster.daemon().shard()["if_primary_died"].clone();
        (would["new_primary"] == padded(last)).then_some(())
    });
    would.expect("the preferred one would not be promoted");
    cluster.server_mut(&first).kill();
    assert_eq!(cluster.healthy(&[&first]), padded(last));
    for (control, comment) in [("downtime zone1-101", ""), ("no such thing", "x")] {
        assert_eq!(set(&cluster, control, comment).0, 400, "{control}");
    }
}

#[test]
fn a_tablet_that_is_gone_for_good_is_forgotten_and_waited_for_no_more() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let replica = *THREE.iter().find(|alias| padded(alias) != first).unwrap();
    let url = cluster.daemon().url("");
    let forget = |alias: &str| {
        vtorc(&["ctl", "--url", &url, "forget", "ks/0", alias, "--reason", "its machine burned"])
    };
    let refused = forget(replica).unwrap_err();
    assert!(refused.contains("answers"), "{refused}");
    // Emergency reparents are off everywhere, so that the primary's death waits for us.
    assert_eq!(set(&cluster, "emergency-reparents-off *", "test").0, 202);
    cluster.server_mut(replica).kill();
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("test");
    lift(&cluster, "emergency-reparents-off *");
    // Both could have what nobody else has.
    cluster.daemon().held_back("could still get");
    let said = forget(replica).unwrap();
    assert!(said.contains("is forgotten"), "{said}");
    let gone = wait_for(|| {
        let shard = cluster.daemon().shard();
        let tablets = shard["tablets"].as_array()?.clone();
        tablets.iter().all(|one| one["alias"] != padded(replica)).then_some(())
    });
    assert!(gone.is_some(), "{:#}", cluster.daemon().shard());
    // One replica alone cannot keep the policy's promise either; that is said instead.
    cluster.daemon().held_back("no tablet can be promoted");
}

#[test]
fn a_tablet_is_taken_out_of_service_and_brought_back_by_its_type() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let replica = *THREE.iter().find(|alias| padded(alias) != primary).unwrap();
    let is = |wanted: &str| {
        let seen = || (tablet(&cluster.daemon().shard(), replica)["type"] == wanted).then_some(());
        wait_for(seen).unwrap_or_else(|| panic!("not {wanted}: {:#}", cluster.daemon().shard()));
    };
    let said = cluster.topo(&["set-type", replica, "drained"]).unwrap();
    assert!(said.contains("was REPLICA and is DRAINED"), "{said}");
    is("DRAINED");
    cluster.server(replica).run(&["STOP SLAVE"]).unwrap();
    cluster.topo(&["set-type", replica, "replica"]).unwrap();
    is("REPLICA");
    assert_eq!(cluster.healthy(&[]), primary);
    // Who is primary is no matter of a record.
    for (alias, wanted, why) in [
        (replica, "primary", "is decided by a reparent"),
        (primary.as_str(), "drained", "is the only PRIMARY"),
        (replica, "king", "is not a tablet type"),
        ("zone1-999", "replica", "zone1-0000000999"),
    ] {
        let refused = cluster.topo(&["set-type", alias, wanted]).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(cluster.healthy(&[]), primary);
}
