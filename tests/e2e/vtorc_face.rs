//! What scripts, probes and dashboards made for Vitess's VTOrc find here.

use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, THREE, padded, request, wait_for};

#[test]
fn its_pages_answer_in_its_words() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    cluster.start_daemon(&["--instance-poll-time=500ms", "--logtostderr", "-v", "2"]);
    let first = cluster.healthy(&[]);
    let daemon = cluster.daemon();
    for path in ["/api/problems", "/api/errant-gtids", "/api/detection-analysis"] {
        assert_eq!(daemon.get(path), Value::Null, "{path}");
        let refused = daemon.get(&format!("{path}?shard=0"));
        assert!(refused.to_string().contains("without keyspace"), "{refused}");
    }
    assert_eq!(daemon.get("/debug/health")["Healthy"], true);
    let state = daemon.get("/api/database-state");
    let tables = state.as_array().unwrap().iter();
    let names: Vec<&str> = tables.map(|table| table["TableName"].as_str().unwrap()).collect();
    assert_eq!(names, ["vitess_keyspace", "vitess_shard", "vitess_tablet", "database_instance"]);
    assert_eq!(state[0]["Rows"][0]["durability_policy"], "semi_sync");
    assert_eq!(state[2]["Rows"].as_array().unwrap().len(), 3);
    let config = daemon.get("/api/config");
    // A flag goes before the file, and no secret shows.
    assert_eq!(config["InstancePollSeconds"], 0.5, "{config:#}");
    assert_eq!(config["MySQLTopologyPassword"], "(hidden)", "{config:#}");
    assert!(daemon.log_text().contains("--logtostderr"), "a flag without effect is not named");
    // Stopped from there, a dead primary is a problem that nobody acts on.
    let told = daemon.get("/api/disable-global-recoveries");
    assert_eq!(told, json!("Global recoveries disabled\n"));
    cluster.server_mut(&first).kill();
    let daemon = cluster.daemon();
    let dead = || {
        let all = daemon.get("/api/replication-analysis?keyspace=ks&shard=0");
        let mut all = all.as_array()?.clone().into_iter();
        all.find(|one| one["Analysis"] == "DeadPrimary")
    };
    let dead = wait_for(dead).expect("DeadPrimary is not listed");
    assert_eq!(dead["AnalyzedInstanceAlias"], first.as_str(), "{dead:#}");
    assert_eq!((&dead["TabletType"], &dead["CurrentTabletType"]), (&json!(1), &json!(1)));
    assert_eq!((&dead["CountReplicas"], &dead["IsClusterPrimary"]), (&json!(2), &json!(true)));
    assert_eq!(daemon.get("/api/detection-analysis?keyspace=other"), Value::Null);
    let problems = daemon.get("/api/problems?keyspace=ks");
    let problem = problems.as_array().unwrap().iter().find(|one| one["InstanceAlias"] == first);
    let problem = problem.unwrap_or_else(|| panic!("{problems:#}"));
    assert_eq!(problem["IsLastCheckValid"], false, "{problem:#}");
    assert_eq!((&problem["TabletType"], &problem["Cell"]), (&json!(1), &json!("zone1")));
    assert_eq!(problem["BinlogFormat"], "ROW", "{problem:#}");
    assert!(problem["Problems"].to_string().contains("DeadPrimary"), "{problem:#}");
    assert_eq!(daemon.get("/api/enable-global-recoveries"), json!("Global recoveries enabled\n"));
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    let daemon = cluster.daemon();
    let vars = daemon.get("/debug/vars");
    assert_eq!(vars["EmergencyReparentCounts"]["ks.0.success"], 1, "{vars:#}");
    assert_eq!(vars["SuccessfulRecoveries"]["RecoverDeadPrimary.ks.0"], 1, "{vars:#}");
    assert_eq!(vars["RecoveriesCount"]["ElectNewPrimary.ks.0"], 1, "{vars:#}");
    assert!(vars["DetectedProblems"].is_object() && vars["PendingRecoveries"] == 0, "{vars:#}");
    assert_eq!(vars["TabletsWatchedByCell"]["zone1"], 3);
    assert!(vars["Uptime"].as_u64().unwrap() > 1_000_000 && vars["BuildVersion"].is_string());
    let locks = &vars["ShardLockTimings"];
    assert!(locks["TotalCount"].as_u64().unwrap() >= 2, "{locks:#}");
    for action in ["Lock", "Unlock"] {
        assert!(locks["Histograms"][action]["Count"].as_u64().unwrap() >= 2, "{locks:#}");
    }
    let metrics = daemon.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    for line in [
        "vtorc_emergency_reparent_counts{keyspace=\"ks\",result=\"success\",shard=\"0\"} 1",
        "vtorc_planned_reparent_counts",
        "vtorc_errant_gtid_tablet_count 0",
        "vtorc_shard_locks_active 0",
        "vtorc_emergency_reparent_shard_disabled{keyspace=\"ks\",shard=\"0\"} 0",
        "vtorc_shard_lock_timings_bucket{action=\"Lock\",le=\"10\"}",
        "vtorc_shard_lock_timings_bucket{action=\"Unlock\",le=\"10\"}",
        "vtorc_instance_poll_seconds_exceeded",
        "vtorc_skipped_recoveries",
        "vtorc_failed_recoveries",
        "vtorc_tablets_watched_by_shard{keyspace=\"ks\",shard=\"0\"} 3",
    ] {
        // A family without a value is not written by Prometheus's library.
        let absent = ["vtorc_planned", "vtorc_failed", "vtorc_skipped"];
        let may_lack = absent.iter().any(|start| line.starts_with(start));
        assert!(metrics.contains(line) || may_lack, "{line} is missing in {metrics}");
    }
}

#[test]
fn an_errant_tablet_is_listed() {
    let mut cluster = Cluster::new(Flavor::MySql, "none", THREE);
    cluster.start_daemon(&["--change-tablets-with-errant-gtid-to-drained=false"]);
    let primary = cluster.healthy(&[]);
    let errant = THREE.iter().map(|one| padded(one)).find(|one| *one != primary).unwrap();
    cluster.server(&errant).run(&["SET GLOBAL read_only = 0", "CREATE DATABASE astray"]).unwrap();
    let listed = || {
        let all = cluster.daemon().get("/api/errant-gtids?keyspace=ks&shard=0");
        all.as_array()?.first().cloned()
    };
    let listed = wait_for(listed).expect("it is not listed");
    assert_eq!(listed["InstanceAlias"], errant.as_str(), "{listed:#}");
    let uuid = cluster.server(&errant).value("SELECT @@server_uuid").unwrap();
    assert!(listed["GtidErrant"].as_str().unwrap().starts_with(&uuid), "{listed:#}");
    let vars = cluster.daemon().get("/debug/vars");
    assert_eq!(
        (&vars["ErrantGtidTabletCount"], &vars["CurrentErrantGTIDCount"][&errant]),
        (&json!(1), &json!(1))
    );
    let metrics = cluster.daemon().get("/metrics");
    let line = format!("vtorc_current_errant_gtid_count{{tablet_alias=\"{errant}\"}} 1");
    assert!(metrics.as_str().unwrap().contains(&line), "{line} is missing");
}

#[test]
fn recovery_can_be_forbidden_by_flag() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    for (flag, word) in [
        ("--allow-recovery=false", "disabled"),
        ("--allow-emergency-reparent=false", "allow-emergency-reparent=false"),
    ] {
        drop(cluster.daemons.pop());
        cluster.start_daemon(&[flag]);
        cluster.server_mut(&first).kill();
        cluster.daemon().held_back(word);
        cluster.server_mut(&first).restart().unwrap();
        let is_back =
            || (tablet(&cluster.daemon().shard(), &first)["state"] == "reachable").then_some(());
        wait_for(is_back).expect("it came back");
    }
}

#[test]
fn cells_are_watched_and_not_repaired() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-1", "zone2-2", "zone3-3"]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let all = ["zone1-1", "zone2-2", "zone3-3"].map(padded);
    let others: Vec<&String> = all.iter().filter(|alias| **alias != first).collect();
    let (left_alone, repaired) = (others[0], others[1]);
    let cell = |alias: &str| alias.split('-').next().unwrap().to_owned();
    let restart = |cluster: &mut Cluster, flags: &[&str]| {
        drop(cluster.daemons.pop());
        cluster.start_daemon(flags);
    };
    let held_back = |cluster: &Cluster, cell: &str| {
        cluster.daemon().held_back(&format!("CellsNoRecovery leaves cell {cell} alone"));
    };
    restart(&mut cluster, &["--cells-no-recovery", &cell(left_alone)]);
    for replica in &others {
        cluster.server(replica).run(&["STOP SLAVE"]).unwrap();
    }
    cluster.daemon().recovery(|one| one["finding_tablet"] == repaired.as_str());
    held_back(&cluster, &cell(left_alone));
    let stopped = tablet(&cluster.daemon().shard(), left_alone)["replication"]["receiver"].clone();
    assert_eq!(stopped, "stopped");
    restart(&mut cluster, &["--cells-no-recovery", &format!("elsewhere,{}", cell(&first))]);
    assert_eq!(cluster.healthy(&[]), first);
    cluster.server_mut(&first).kill();
    held_back(&cluster, &cell(&first));
    restart(&mut cluster, &[]);
    assert_ne!(cluster.healthy(&[&first]), first);
}

#[test]
fn a_security_policy_closes_what_vitess_closes_by_it() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    for (policy, reads, changes) in
        [("", 200, 202), ("read-only", 200, 403), ("deny-all", 403, 403), ("no-such", 403, 403)]
    {
        drop(cluster.daemons.pop());
        let flag = format!("--security_policy={policy}");
        cluster.start_daemon(&[&flag]);
        let daemon = cluster.daemon();
        wait_for(|| (daemon.get("/debug/health")["healthy"] == true).then_some(())).unwrap();
        let read = request("GET", &daemon.url("/api/v1/shards"), None, &[]).0;
        let set = json!({"control": "recoveries-off ks/0", "comment": "test"});
        let (changed, answer) = daemon.post("/api/v1/controls/set", set);
        assert_eq!((read, changed), (reads, changes), "{policy}: {answer}");
        let alive = request("GET", &daemon.url("/debug/liveness"), None, &[]).0;
        assert_eq!(alive, 200, "{policy}");
    }
}
