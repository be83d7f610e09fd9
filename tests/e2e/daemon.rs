//! The process: signals, switches, several of them, and what is not its business.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, Kind, THREE, padded, vtorc, wait_for};

#[test]
fn of_two_daemons_on_one_shard_one_acts() {
    of_two_daemons_on_one_shard_one_acts_on(Flavor::MariaDb.into());
}

pub(crate) fn of_two_daemons_on_one_shard_one_acts_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    let first = cluster.healthy(&[]);
    cluster.configure(&[("SQLite3DataFile", json!(":memory:"))]);
    cluster.start_daemon(&["own-history"]);
    assert_eq!(cluster.healthy(&[]), first);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    let done = wait_for(|| {
        let all: Vec<_> = cluster.daemons.iter().flat_map(|daemon| daemon.recoveries()).collect();
        let running = all.iter().any(|one| one["outcome"].is_null());
        let succeeded = |one: &serde_json::Value| {
            one["kind"] == "EmergencyReparent" && one["outcome"] == "succeeded"
        };
        let done: Vec<_> = all.into_iter().filter(succeeded).collect();
        (!running && !done.is_empty()).then_some(done)
    });
    let done = done.expect("no daemon replaced the primary");
    assert_eq!(done.len(), 1, "{done:#?}");
    assert_eq!(done[0]["new_primary"], second.as_str());
    for daemon in &cluster.daemons {
        let agrees = wait_for(|| (daemon.shard()["primary"] == second.as_str()).then_some(()));
        agrees.expect("the daemons disagree");
    }
    cluster.server_mut(&first).restart().unwrap();
    assert_eq!(cluster.healthy(&[]), second);
}

#[test]
fn a_history_that_another_vtorc_has_open_is_refused() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.start_daemon(&[]);
    let mut second = Command::new(env!("CARGO_BIN_EXE_vtorc"));
    second.args(&cluster.topo_flags).arg(format!("-config={}", cluster.config.display()));
    let refused = second.arg("-port=0").output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{told}");
    assert!(told.contains("is in use by another vtorc: each needs its own"), "{told}");
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
}

#[test]
fn what_is_not_watched_is_not_even_connected_to() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    cluster.topo(&["add-keyspace", "other", "--durability-policy", "none"]).unwrap();
    cluster.topo(&["add-shard", "other/-80"]).unwrap();
    let address = cluster.server("zone1-102").address();
    cluster.topo(&["delete", "zone1-102"]).unwrap();
    cluster
        .topo(&["add-tablet", "zone1-900", "--shard", "other/-80", "--mysql", &address])
        .unwrap();
    let connections = |cluster: &Cluster| -> u64 {
        cluster.server("zone1-102").value(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'orc_client_user'",
        ).unwrap().parse().unwrap()
    };
    cluster.start_daemon(&["-clusters_to_watch", "ks,other/80-"]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
    let shards = cluster.daemon().get("/api/v1/shards");
    assert_eq!(shards.as_array().unwrap().len(), 1, "{shards:#}");
    assert_eq!(connections(&cluster), 0);
    cluster.daemons.pop();
    cluster.start_daemon(&["-clusters_to_watch=ks,other/-80"]);
    let found =
        wait_for(|| (cluster.daemon().get("/api/v1/shards").as_array()?.len() == 2).then_some(()));
    found.expect("the shard that is watched was not found");
    wait_for(|| (connections(&cluster) > 0).then_some(()))
        .expect("it is watched and not connected to");
}

#[test]
fn recoveries_can_be_paused_and_resumed_and_stay_so_over_a_restart() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let (status, _) =
        cluster.daemon().post("/api/v1/recoveries/disable", json!({"comment": "maintenance"}));
    assert_eq!(status, 200);
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("disabled");
    cluster.daemons.pop();
    cluster.start_daemon(&[]);
    cluster.daemon().held_back("disabled");
    assert_eq!(cluster.daemon().shard()["primary"], first);
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    assert_ne!(cluster.healthy(&[&first]), first);
}

#[test]
fn a_term_signal_finishes_the_recovery_and_starts_none() {
    use mysql::prelude::Queryable;
    let mut cluster = Cluster::new(Flavor::MySql, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(first, padded("zone1-101"));
    crate::writer::create_table(cluster.server(&first));
    crate::writer::arrives(cluster.server("zone1-102"), &[].into());
    // The recovery hangs in the applier until the lock goes.
    let mut reader = cluster.server("zone1-102").connect("admin").unwrap();
    reader.query_drop("FLUSH TABLES test.ledger WITH READ LOCK").unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    wait_for(|| {
        let received = cluster.server("zone1-102").value("SELECT RECEIVED_TRANSACTION_SET FROM performance_schema.replication_connection_status").ok()?;
        let sent = cluster.server(&first).value("SELECT @@gtid_executed").ok()?;
        (received.replace('\n', "").ends_with(sent.rsplit('-').next()?)).then_some(())
    }).expect("the row was not received");
    cluster.server_mut(&first).kill();
    wait_for(|| (!cluster.daemon().shard()["recovering"].is_null()).then_some(()))
        .expect("no recovery");
    cluster.daemon().child.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(cluster.daemons[0].child.is_running(), "it ended in the middle of a recovery");
    reader.query_drop("UNLOCK TABLES").unwrap();
    let code = cluster.daemons[0].child.wait(crate::harness::PATIENCE);
    assert_eq!(code, Some(0), "{}", cluster.daemon().log_text());
    assert_eq!(cluster.server("zone1-102").value("SELECT @@read_only").unwrap(), "0");
    let shown = cluster.topo(&["show", "ks/0"]).unwrap();
    assert!(shown.contains(&padded("zone1-102")), "{shown}");
}

#[test]
fn a_hangup_reads_the_configuration_again_and_says_what_changed() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    cluster.configure(&[
        ("RecoveryPeriodBlockSeconds", json!(17)),
        ("SQLite3DataFile", json!("/elsewhere")),
    ]);
    cluster.daemon().child.signal(Signal::HUP);
    let says = |text: &str| wait_for(|| cluster.daemon().log_text().contains(text).then_some(()));
    says("RecoveryPeriodBlockSeconds").expect("the change was not told");
    says("takes effect at the next start").expect("what needs a restart was not told");
    wait_for(|| (cluster.daemon().get("/api/v1/system")["block_period_s"] == 17.0).then_some(()))
        .expect("no effect");
    // A file with an error changes nothing.
    std::fs::write(&cluster.config, "{").unwrap();
    cluster.daemon().child.signal(Signal::HUP);
    says("the old one stays").expect("the error was not told");
    assert_eq!(cluster.daemon().get("/api/v1/system")["block_period_s"], 17.0);
}

#[test]
fn logs_carry_shard_and_recovery_and_no_secret() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    let audit = cluster.directory.path().join("audit.log");
    cluster.configure(&[("AuditLogFile", json!(audit.display().to_string()))]);
    cluster.start_daemon(&["--log_format", "json"]);
    let primary = cluster.healthy(&[]);
    cluster.server_mut(&primary).kill();
    cluster.healthy(&[&primary]);
    cluster.daemon().recovery(|one| one["kind"] == "EmergencyReparent");
    let lines: Vec<serde_json::Value> = wait_for(|| {
        let text = cluster.daemon().log_text();
        let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ended = |line: &serde_json::Value| {
            line["msg"] == "recovery ended" && line["recovery"].is_string()
        };
        lines.iter().any(ended).then_some(lines)
    })
    .expect("no line about the recovery's end");
    let about_steps: Vec<_> = lines.iter().filter(|line| line["msg"] == "step").collect();
    assert!(about_steps.len() > 5);
    for line in about_steps {
        assert_eq!((&line["keyspace"], &line["shard"]), (&json!("ks"), &json!("0")), "{line}");
        assert!(line["recovery"].is_string(), "{line}");
    }
    let audited = || {
        std::fs::read_to_string(&audit)
            .ok()
            .filter(|text| text.contains("EmergencyReparent: succeeded"))
    };
    assert!(wait_for(audited).expect("nothing in AuditLogFile").contains("ks/0"));
    let secret = "orc_client_user_password";
    assert!(!cluster.daemon().log_text().contains(secret));
    let arguments =
        std::fs::read(format!("/proc/{}/cmdline", cluster.daemon().child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(secret));
    for path in
        ["/api/v1/shards", "/api/v1/system", "/api/v1/actors", "/api/v1/recoveries", "/metrics"]
    {
        assert!(!cluster.daemon().get(path).to_string().contains(secret), "{path}");
    }
}

#[test]
fn a_replication_tree_is_imported_and_then_kept() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "none", THREE);
        cluster.start_daemon(&[]);
        let primary = cluster.healthy(&[]);
        cluster.daemons.pop();
        // The same servers under another topology, found from a replica.
        let root = cluster.directory.path().join("imported/global");
        let flag = format!("--topo_global_root={}", root.display());
        let config = format!("--config={}", cluster.config.display());
        let from = if primary == padded("zone1-101") { "zone1-102" } else { "zone1-101" };
        let address = cluster.server(from).address();
        let place = [
            "--keyspace",
            "ks",
            "--shard",
            "0",
            "--cell",
            "zone7",
            "--durability-policy",
            "semi_sync",
        ];
        let mut arguments = vec!["topo", &flag, &config, "import", &address];
        arguments.extend(place);
        let said = vtorc(&arguments).unwrap();
        assert_eq!(said.matches("added zone7-").count(), 3, "{flavor:?}: {said}");
        let again = vtorc(&arguments).unwrap();
        assert_eq!(again.matches("is registered already").count(), 3, "{flavor:?}: {again}");
        cluster.topo_flags = vec![flag.clone()];
        for (at, member) in cluster.members.iter_mut().enumerate() {
            member.alias = format!("zone7-{}", 200 + at);
        }
        cluster.start_daemon(&[]);
        let kept = cluster.healthy(&[]);
        let shard = cluster.daemon().shard();
        let port = crate::failover::tablet(&shard, &kept)["mysql_port"].as_u64().unwrap();
        assert_eq!(
            port,
            u64::from(
                cluster
                    .servers
                    .iter()
                    .find(|s| s.value("SELECT @@read_only").unwrap() == "0")
                    .unwrap()
                    .port
            )
        );
        let list = vtorc(&["topo", &flag, "list"]).unwrap();
        assert!(list.contains("durability_policy=semi_sync") && list.contains("PRIMARY"), "{list}");
    }
}

#[test]
fn topo_subcommands_add_show_list_and_delete() {
    let directory = tempfile::tempdir().unwrap();
    let flag = format!("--topo_global_root={}/global", directory.path().display());
    let topo = |line: &str| {
        let mut arguments = vec!["topo", flag.as_str()];
        arguments.extend(line.split(' '));
        vtorc(&arguments)
    };
    topo("add-cell zone1").unwrap();
    topo("add-keyspace ks --durability-policy cross_cell").unwrap();
    topo("add-shard ks/-80").unwrap();
    topo("add-tablet zone1-7 --shard ks/-80 --mysql h:3306 --type rdonly").unwrap();
    assert!(topo("show ks").unwrap().contains("cross_cell"));
    assert!(topo("show zone1").unwrap().contains("zone1"));
    assert!(topo("show ks/-80").unwrap().contains("primary: -"));
    assert!(topo("show zone1-7").unwrap().contains("RDONLY h:3306"));
    let errors = [
        ("add-cell zone1", "already"),
        ("add-shard nope/0", "no record"),
        ("add-shard ks/80-40", "key range"),
        ("add-tablet zone1-8 --shard ks/80- --mysql h:1", "no record"),
        ("add-tablet zone2-8 --shard ks/-80 --mysql h:1", "no record"),
        ("add-tablet zone1-8 --shard ks/-80 --mysql nonsense", "not host:port"),
        ("add-keyspace other --durability-policy best", "unknown durability policy"),
        ("delete ks", "still has shard"),
        ("delete ks/-80", "still has tablet"),
        ("delete zone1", "still has tablet"),
        ("show nothing", "there is no"),
    ];
    for (line, word) in errors {
        let error = topo(line).unwrap_err();
        assert!(error.contains(word), "{line}: {error}");
    }
    for name in ["zone1-7", "ks/-80", "ks", "zone1"] {
        topo(&format!("delete {name}")).unwrap();
    }
    assert_eq!(topo("list").unwrap(), "");
}

#[test]
fn systemd_is_told_when_the_topology_was_read() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    let path = cluster.directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    cluster.environment.push(("NOTIFY_SOCKET".into(), path.display().to_string()));
    cluster.start_daemon(&[]);
    let mut buffer = [0; 200];
    let length = socket.recv(&mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..length]).contains("READY=1"));
    cluster.daemon().child.signal(Signal::TERM);
    let length = socket.recv(&mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..length]).contains("STOPPING=1"));
}

#[test]
fn the_console_is_served_from_a_directory_that_may_lack_files() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    let place = cluster.directory.path().join("console");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("index.html"), "<p>mine</p>").unwrap();
    let flag = format!("-orc_web_dir={}", place.display());
    cluster.start_daemon(&[&flag]);
    assert_eq!(cluster.daemon().get("/"), "<p>mine</p>");
    let told = || cluster.daemon().log_text().contains("console.js").then_some(());
    wait_for(told).expect("what is missing is not told");
    let (status, _) =
        crate::harness::request("GET", &cluster.daemon().url("/../orc_config.json"), None, &[]);
    assert_eq!(status, 404);
    // The documented directory has everything.
    cluster.daemons.pop();
    let documented = concat!("-orc_web_dir=", env!("CARGO_MANIFEST_DIR"), "/web/console");
    cluster.start_daemon(&[documented]);
    cluster.healthy(&[]);
    assert!(!cluster.daemon().log_text().contains("lacks files"));
}

#[test]
fn servers_that_demand_tls_are_reached_with_it() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", &["zone1-101", "zone1-102"]);
    for server in &cluster.servers {
        server.run(&["SET GLOBAL require_secure_transport = ON"]).unwrap();
    }
    cluster.start_daemon(&[]);
    let denied = cluster.daemon().finding("AccessDenied");
    assert!(denied["findings"].to_string().contains("secure_transport"), "{denied:#}");
    cluster.daemons.pop();
    cluster.configure(&[("MySQLTopologySSLSkipVerify", json!(true))]);
    cluster.start_daemon(&[]);
    // Its own connections are encrypted; those of replication are the servers' business.
    let elected =
        |one: &serde_json::Value| one["kind"] == "ElectPrimary" && one["new_primary"].is_string();
    cluster.daemon().recovery(elected);
}
