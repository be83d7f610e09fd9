//! Shards as people have them: a server that turns vtorc away, one that applies late, one that a backup locks, one that
//! does not apply everything. A dead primary is replaced all the same, and nothing acknowledged is lost.

use serde_json::json;
use vtorc_fleet::{Flavor, Server};

use crate::harness::{Cluster, PATIENCE, PLANNED, padded, wait_for};
use crate::promotable::fill_for_vtorc;
use crate::writer::{Writer, arrives, create_table, has, rows};

const FOUR: &[&str] = &["zone1-101", "zone1-102", "zone1-103", "zone1-104 rdonly"];

fn cluster(flavor: Flavor) -> (Cluster, String) {
    cluster_of(flavor, FOUR)
}

fn cluster_of(flavor: Flavor, tablets: &[&str]) -> (Cluster, String) {
    let mut cluster = Cluster::new(flavor, "semi_sync", tablets);
    cluster.configure(&[
        ("RecoveryPeriodBlockSeconds", json!(0)),
        // Whoever waits for the wrong one waits longer than any story does.
        ("WaitReplicasTimeoutSeconds", json!(600)),
    ]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    for replica in replicas(&first) {
        arrives(cluster.server(&replica), &[].into());
    }
    (cluster, first)
}

/// The two replicas that acknowledge, in the order in which they rank.
fn replicas(first: &str) -> [String; 2] {
    let mut replicas = ["zone1-101", "zone1-102", "zone1-103"].map(padded).to_vec();
    replicas.retain(|alias| alias != first);
    replicas.try_into().unwrap()
}

/// Kills the primary while a client writes; all that was acknowledged is on its successor.
fn is_replaced(cluster: &mut Cluster, first: &str, beside: &[&str]) -> String {
    let writer = Writer::start(cluster);
    writer.wait_for_more(20);
    cluster.server_mut(first).kill();
    let gone: Vec<&str> = std::iter::once(first).chain(beside.iter().copied()).collect();
    let second = cluster.healthy(&gone);
    assert_ne!(second, first);
    let acknowledged = writer.finish();
    assert!(has(cluster.server(&second), &acknowledged), "acknowledged rows were lost");
    second
}

/// Kills the primary when no replica has more than another; answers what came of it.
fn dies_before_equals(cluster: &mut Cluster, first: &str) -> serde_json::Value {
    cluster.server(first).run(&["INSERT INTO test.ledger VALUES (1, 'kept')"]).unwrap();
    for replica in &replicas(first) {
        arrives(cluster.server(replica), &[1].into());
    }
    cluster.server_mut(first).kill();
    cluster.daemon().recovery(|one| one["kind"] == "EmergencyReparent")
}

/// Runs a statement on one server that refuses writes, and on no other.
fn change_there_only(cluster: &Cluster, alias: &str, statement: &str) {
    let server = cluster.server(alias);
    let mut statements = vec!["SET sql_log_bin = 0", statement];
    if server.flavor() == Flavor::MySql {
        statements.insert(1, "SET GLOBAL super_read_only = OFF");
        statements.push("SET GLOBAL super_read_only = ON");
    }
    // Or it is fenced again in the middle of this.
    cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    server.run(&statements).unwrap();
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
}

/// An RDONLY on which vtorc's password is wrong is no acker of the policy: it is out of sight, and nothing more.
#[test]
fn a_server_that_turns_vtorc_away_stops_no_failover() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (mut cluster, first) = cluster(flavor);
        let deny = "ALTER USER 'orc_client_user'@'%' IDENTIFIED BY 'another one'";
        change_there_only(&cluster, "zone1-104", deny);
        // Connections that stand are not asked again.
        let sessions = "SELECT GROUP_CONCAT(id) FROM information_schema.processlist WHERE user = 'orc_client_user'";
        let ids = cluster.server("zone1-104").value(sessions).unwrap_or_default();
        for id in ids.split(',').filter(|id| !id.is_empty() && *id != "NULL") {
            // It may have ended by itself.
            let _ = cluster.server("zone1-104").run(&[&format!("KILL {id}")]);
        }
        cluster.daemon().finding("AccessDenied");
        is_replaced(&mut cluster, &first, &["zone1-104"]);
    }
}

/// The connections of an RDONLY are used up: it is out of sight, and nothing more.
#[test]
fn a_server_without_a_free_connection_stops_no_failover() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (mut cluster, first) = cluster(flavor);
        cluster.daemons.clear();
        let clients = fill_for_vtorc(&cluster, "zone1-104");
        cluster.start_daemon(&[]);
        cluster.daemon().finding("TooManyConnections");
        is_replaced(&mut cluster, &first, &["zone1-104"]);
        drop(clients);
        cluster.healthy(&[&first]);
    }
}

/// What servers give every new session by their configuration changes no answer to vtorc, and cuts none of its waits
/// short.
#[test]
fn settings_of_new_sessions_stop_no_failover() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let tablets = ["zone1-101", "zone1-102", "zone1-103"];
        let (mut cluster, first) = cluster_of(flavor, &tablets);
        let limit = match flavor {
            Flavor::MySql => "SET GLOBAL max_execution_time = 2000",
            Flavor::MariaDb => "SET GLOBAL max_statement_time = 2",
        };
        for tablet in tablets {
            cluster
                .server(tablet)
                .run(&[
                    "SET GLOBAL sql_select_limit = 1",
                    "SET GLOBAL sql_mode = 'ANSI_QUOTES'",
                    limit,
                ])
                .unwrap();
        }
        cluster.daemons.clear();
        cluster.start_daemon(&[]);
        assert_eq!(cluster.healthy(&[]), first, "{flavor:?}");
        cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'kept')"]).unwrap();
        // A candidate is waited for, for longer than a statement may take there.
        let [one, other] = replicas(&first);
        let lock = |alias: &str| {
            use mysql::prelude::Queryable;
            arrives(cluster.server(alias), &[1].into());
            let mut session = cluster.server(alias).connect_within("admin", PATIENCE).unwrap();
            session.query_drop("LOCK TABLES test.ledger READ").unwrap();
            session
        };
        let locks = [lock(&one), lock(&other)];
        cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (2, 'kept')"]).unwrap();
        cluster.server_mut(&first).kill();
        let waits = || cluster.daemon().shard()["recovering"].is_u64().then_some(());
        wait_for(waits).expect("nobody is waited for");
        std::thread::sleep(std::time::Duration::from_secs(5));
        drop(locks);
        let second = cluster.healthy(&[&first]);
        let count = cluster.server(&second).value("SELECT COUNT(*) FROM test.ledger").unwrap();
        assert_eq!(count, "2", "{flavor:?}");
        let recoveries = cluster.daemon().get("/api/v1/recoveries");
        assert!(!recoveries.to_string().contains("interrupted"), "{recoveries:#}");
    }
}

/// An RDONLY that applies an hour late received a row that nobody else has: no acker has it, so it was never
/// acknowledged. Its delay is lifted for the row, and is there again afterwards.
#[test]
fn a_delayed_tablet_with_one_transaction_more_stops_no_failover() {
    let (mut cluster, first) = cluster(Flavor::MySql);
    let delay = [
        "STOP REPLICA SQL_THREAD",
        "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 3600",
        "START REPLICA SQL_THREAD",
    ];
    cluster.server("zone1-104").run(&delay).unwrap();
    cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    let others = replicas(&first);
    for other in &others {
        cluster.server(other).run(&["STOP REPLICA IO_THREAD"]).unwrap();
    }
    // It waits for an acknowledgement that nobody gives; the RDONLY receives it.
    let mut client = cluster.server(&first).connect_within("app", PATIENCE).unwrap();
    let insert = std::thread::spawn(move || {
        use mysql::prelude::Queryable;
        client.query_drop("INSERT INTO test.ledger VALUES (666, 'nobody')").is_ok()
    });
    let received = "SELECT received_transaction_set FROM \
        performance_schema.replication_connection_status WHERE channel_name = ''";
    let executed = cluster.server(&first).value("SELECT @@gtid_executed").unwrap();
    let arrived = || {
        let inside = format!("SELECT GTID_SUBSET('{executed}', ({received}))");
        (cluster.server("zone1-104").value(&inside).ok()? == "1").then_some(())
    };
    wait_for(arrived).expect("the RDONLY received nothing");
    std::thread::sleep(std::time::Duration::from_millis(300));
    cluster.server_mut(&first).kill();
    assert!(!insert.join().unwrap(), "it was acknowledged");
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    let second = cluster.healthy(&[&first]);
    assert!(others.contains(&second));
    let put_back = || {
        let delay = "SELECT desired_delay FROM performance_schema.replication_applier_configuration \
            WHERE channel_name = ''";
        (cluster.server("zone1-104").value(delay).ok()? == "3600").then_some(())
    };
    wait_for(put_back).expect("its delay is not there again");
}

/// A backup holds a global read lock on the candidate that ranks first: another one goes.
#[test]
fn a_candidate_that_a_backup_locks_is_not_waited_for() {
    let (mut cluster, first) = cluster(Flavor::MySql);
    let [best, other] = &replicas(&first);
    let mut backup = cluster.server(best).connect_within("admin", PATIENCE).unwrap();
    {
        use mysql::prelude::Queryable;
        backup.query_drop("FLUSH TABLES WITH READ LOCK").unwrap();
    }
    cluster
        .server(&first)
        .run(&["INSERT INTO test.ledger VALUES (77, 'behind the lock')"])
        .unwrap();
    arrives(cluster.server(other), &[77].into());
    assert!(!rows(cluster.server(best)).contains(&77));
    cluster.server_mut(&first).kill();
    assert_eq!(cluster.healthy(&[&first]), *other);
    assert!(rows(cluster.server(other)).contains(&77));
    drop(backup);
    arrives(cluster.server(best), &[77].into());
}

/// A dump holds a table on every candidate: nobody can apply the last write. Who is in the way is said, as far as the
/// server tells.
#[test]
fn whoever_locks_a_table_on_all_candidates_is_named() {
    use mysql::prelude::Queryable;
    for (flavor, who) in [
        (Flavor::MySql, "holds a lock on test.ledger; KILL "),
        (Flavor::MariaDb, "its applier says: Waiting for "),
    ] {
        let tablets = ["zone1-101", "zone1-102", "zone1-103"];
        let (mut cluster, first) = cluster_of(flavor, &tablets);
        cluster.daemons.clear();
        cluster.configure(&[
            ("RecoveryPeriodBlockSeconds", json!(0)),
            ("WaitReplicasTimeoutSeconds", json!(2)),
        ]);
        cluster.start_daemon(&[]);
        assert_eq!(cluster.healthy(&[]), first);
        let dumps = replicas(&first).map(|alias| {
            let mut dump = cluster.server(&alias).connect_within("app", PATIENCE).unwrap();
            dump.query_drop("LOCK TABLES test.ledger READ").unwrap();
            dump
        });
        cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'kept')"]).unwrap();
        cluster.server_mut(&first).kill();
        cluster.daemon().held_back(who);
        drop(dumps);
        let second = cluster.healthy(&[&first]);
        assert!(has(cluster.server(&second), &[1].into()), "an acknowledged row is lost");
    }
}

/// A replica with filters is told not to acknowledge, and is not promoted: though it ranks first.
#[test]
fn a_replica_with_filters_neither_acknowledges_nor_is_promoted() {
    let ignore = "CHANGE REPLICATION FILTER REPLICATE_IGNORE_TABLE = (test.left_out)";
    neither_acknowledges_nor_is_promoted(Flavor::MySql, |_| ignore.to_owned());
}

/// What it gets goes to another database.
#[test]
fn a_replica_that_renames_databases_neither_acknowledges_nor_is_promoted() {
    let rename = "CHANGE REPLICATION FILTER REPLICATE_REWRITE_DB = ((test, other))";
    neither_acknowledges_nor_is_promoted(Flavor::MySql, |_| rename.to_owned());
}

/// It has the primary's position and none of its data.
#[test]
fn a_replica_that_ignores_its_source_neither_acknowledges_nor_is_promoted() {
    neither_acknowledges_nor_is_promoted(Flavor::MariaDb, |primary| {
        let id = primary.value("SELECT @@server_id").unwrap();
        format!("CHANGE MASTER TO IGNORE_SERVER_IDS = ({id})")
    });
}

fn neither_acknowledges_nor_is_promoted(flavor: Flavor, filter: impl Fn(&Server) -> String) {
    let tablets = ["zone1-101", "zone1-102", "zone1-103", "zone1-104"];
    let (mut cluster, first) = cluster_of(flavor, &tablets);
    let [filtered, _] = replicas(&first);
    let filter = filter(cluster.server(&first));
    let (stop, start, enabled) = match flavor {
        Flavor::MySql => {
            ("STOP REPLICA", "START REPLICA", "SELECT @@rpl_semi_sync_replica_enabled")
        }
        Flavor::MariaDb => ("STOP SLAVE", "START SLAVE", "SELECT @@rpl_semi_sync_slave_enabled"),
    };
    cluster.server(&filtered).run(&[stop, &filter, start]).unwrap();
    cluster.daemon().finding("ReplicationFilters");
    let silent = || {
        let on = cluster.server(&filtered).value(enabled).ok()?;
        (on == "0").then_some(())
    };
    wait_for(silent).expect("it still acknowledges");
    // Until its receiver was started again it acknowledged, and as long as its last words say so it counts.
    std::thread::sleep(std::time::Duration::from_secs(8));
    // Which of the other two goes is not said: the last probe may have seen either of them ahead, or the filtered one
    // until the others are asked again.
    let promotes = || {
        let report = cluster.daemon().shard()["if_primary_died"].clone();
        (report["outcome"] == "promotes").then_some(report)
    };
    let report = wait_for(promotes).expect("the forecast promotes nobody");
    assert_ne!(report["new_primary"], filtered.as_str(), "{report:#}");
    let why_not = report["not"][&filtered].as_str().unwrap_or_default();
    assert!(why_not.contains("replication filters"), "{report:#}");
    assert_ne!(is_replaced(&mut cluster, &first, &[&filtered]), filtered);
}

/// A primary that would filter what it gets, once it is a replica, does not acknowledge then: also where its filters
/// were never seen beside a source.
#[test]
fn a_primary_with_filters_does_not_acknowledge_once_it_is_a_replica() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (cluster, first) = cluster_of(flavor, &["zone1-101", "zone1-102", "zone1-103"]);
        let (filter, acknowledges) = match flavor {
            Flavor::MySql => (
                "CHANGE REPLICATION FILTER REPLICATE_IGNORE_TABLE = (test.left_out)",
                "SELECT @@rpl_semi_sync_replica_enabled",
            ),
            Flavor::MariaDb => (
                "SET GLOBAL replicate_ignore_table = 'test.left_out'",
                "SELECT @@rpl_semi_sync_slave_enabled",
            ),
        };
        cluster.server(&first).run(&[filter]).unwrap();
        let [next, _] = replicas(&first);
        let seen = wait_for(|| {
            let snapshot = cluster.daemon().get("/api/v1/shards/ks/0/snapshot");
            let tablets = snapshot["tablets"].as_array()?;
            let primary = tablets.iter().find(|one| one["alias"] == first.as_str())?;
            (primary["server"]["would_filter"] == true).then_some(())
        });
        seen.expect("its filters are not seen");
        let moved = json!({"new_primary": next, "reason": "test"});
        let (status, answer) = cluster.daemon().post(PLANNED, moved);
        assert_eq!(status, 200, "{answer:#}");
        cluster.daemon().finding("ReplicationFilters");
        assert_eq!(cluster.server(&first).value(acknowledges).unwrap(), "0", "{flavor:?}");
    }
}

/// A tablet out of service that nobody saw since vtorc started cannot have acknowledged anything: by its type, and by
/// what the primary says of those that are connected to it.
#[test]
fn one_out_of_service_that_was_never_seen_stops_no_failover() {
    let cases = [
        (Flavor::MariaDb, "drained"),
        (Flavor::MariaDb, "backup"),
        (Flavor::MySql, "restore"),
        (Flavor::MySql, "unknown"),
    ];
    for (flavor, kind) in cases {
        let absent = format!("zone1-104 {kind}");
        let mut cluster =
            Cluster::new(flavor, "semi_sync", &["zone1-101", "zone1-102", "zone1-103", &absent]);
        cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&["zone1-104"]);
        create_table(cluster.server(&first));
        cluster.daemons.clear();
        cluster.server_mut("zone1-104").kill();
        // It remembers nothing of an earlier life.
        cluster.configure(&[
            ("RecoveryPeriodBlockSeconds", json!(0)),
            ("SQLite3DataFile", json!(":memory:")),
        ]);
        cluster.start_daemon(&["own-history"]);
        assert_eq!(cluster.healthy(&["zone1-104"]), first, "{kind}");
        is_replaced(&mut cluster, &first, &["zone1-104"]);
    }
}

/// Servers that are clones of one whose transactions have fifty thousand gaps, and each a few of its own.
#[test]
fn sets_with_many_gaps_stop_no_failover() {
    let tablets = ["zone1-101", "zone1-102", "zone1-103"];
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", &tablets);
    let gaps: Vec<String> = (0..50_000).map(|at| (2 * at + 1).to_string()).collect();
    let ancient = format!("11111111-2222-3333-4444-555555555555:{}", gaps.join(":"));
    for tablet in tablets {
        let purge = format!("SET GLOBAL gtid_purged = '+{ancient}'");
        cluster.server(tablet).run(&[&purge]).unwrap();
    }
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let second = is_replaced(&mut cluster, &first, &[]);
    // What is shown of such sets is cut.
    let page = cluster.daemon().shard().to_string();
    assert!(page.len() < 100_000, "{} bytes", page.len());
    cluster.server_mut(&first).restart().unwrap();
    assert_eq!(cluster.healthy(&[]), second);
}

/// It would turn clients and replicas away: whoever has the same is promoted.
#[test]
fn a_candidate_in_offline_mode_is_passed_over() {
    let tablets = ["zone1-101", "zone1-102", "zone1-103"];
    let (mut cluster, first) = cluster_of(Flavor::MySql, &tablets);
    let [best, other] = replicas(&first);
    cluster.server(&best).run(&["SET GLOBAL offline_mode = ON"]).unwrap();
    let reparent = dies_before_equals(&mut cluster, &first);
    assert_eq!(reparent["outcome"], "succeeded", "{reparent:#}");
    assert_eq!(cluster.healthy(&[&first]), other);
}

/// It alone has what was acknowledged, and serves nobody. What is to be done there is said; then it is promoted.
#[test]
fn a_candidate_in_offline_mode_is_promoted_once_it_serves() {
    let tablets = ["zone1-101", "zone1-102", "zone1-103"];
    let (mut cluster, first) = cluster_of(Flavor::MySql, &tablets);
    let [best, other] = replicas(&first);
    cluster.server(&best).run(&["SET GLOBAL offline_mode = ON"]).unwrap();
    // Or its receiver is started again.
    cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    cluster.server(&other).run(&["STOP REPLICA IO_THREAD"]).unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'kept')"]).unwrap();
    cluster.server_mut(&first).kill();
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    let why = cluster.daemon().held_back("offline_mode")["held_back"].to_string();
    assert!(why.contains(&best), "{why}");
    assert!(why.contains(&format!("it lacks what {best} has")), "{why}");
    cluster.server(&best).run(&["SET GLOBAL offline_mode = OFF"]).unwrap();
    assert_eq!(cluster.healthy(&[&first]), best);
    assert!(has(cluster.server(&best), &[1].into()), "an acknowledged row is lost");
}

/// The user of the replicas was made on each server by hand, and not on this one: no replica could follow it, and no
/// write would be acknowledged there.
#[test]
fn a_candidate_without_the_replicas_user_is_passed_over() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let tablets = ["zone1-101", "zone1-102", "zone1-103"];
        let (mut cluster, first) = cluster_of(flavor, &tablets);
        let [best, other] = replicas(&first);
        change_there_only(&cluster, &best, "DROP USER 'vt_repl'@'%'");
        let reparent = dies_before_equals(&mut cluster, &first);
        assert_eq!(cluster.healthy(&[&first]), other);
        assert!(reparent.to_string().contains("replicas could not log in"), "{reparent:#}");
    }
}

/// Its relay log may go, since the new primary has all of it: nobody waits an hour, nor five seconds.
#[test]
fn a_delayed_mariadb_acknowledges_to_the_new_primary_at_once() {
    let tablets = ["zone1-101", "zone1-102", "zone1-103"];
    let (mut cluster, first) = cluster_of(Flavor::MariaDb, &tablets);
    let [delayed, _] = replicas(&first);
    let delay = ["STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY = 3600", "START SLAVE"];
    cluster.server(&delayed).run(&delay).unwrap();
    let writer = Writer::start(&cluster);
    writer.wait_for_more(20);
    cluster.server_mut(&first).kill();
    let reparent = cluster.daemon().recovery(|one| one["kind"] == "EmergencyReparent");
    assert_eq!(reparent["outcome"], "succeeded", "{reparent:#}");
    writer.wait_for_more(20);
    let acknowledged = writer.finish();
    let second = cluster.daemon().shard()["primary"].as_str().unwrap().to_owned();
    assert_ne!(second, first);
    assert!(has(cluster.server(&second), &acknowledged), "acknowledged rows were lost");
}

/// A tablet acknowledges still when it is taken out of service, and may alone have what was acknowledged: a vtorc that
/// is started later remembers that.
#[test]
fn an_acker_that_was_taken_out_of_service_is_waited_for_after_a_restart() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let tablets = ["zone1-101", "zone1-102", "zone1-103", "zone1-104"];
        let (mut cluster, first) = cluster_of(flavor, &tablets);
        let drained = if first == padded("zone1-104") { "zone1-103" } else { "zone1-104" };
        cluster.topo(&["set-type", drained, "drained"]).unwrap();
        let seen = || {
            let type_ =
                crate::failover::tablet(&cluster.daemon().shard(), &padded(drained))["type"]
                    .clone();
            (type_ == "DRAINED").then_some(())
        };
        wait_for(seen).expect("its type is not seen");
        cluster.daemons.clear();
        let stop = match flavor {
            Flavor::MySql => "STOP REPLICA IO_THREAD",
            Flavor::MariaDb => "STOP SLAVE IO_THREAD",
        };
        let others = tablets.map(padded);
        let others = others.iter().filter(|alias| **alias != first && **alias != padded(drained));
        for other in others {
            cluster.server(other).run(&[stop]).unwrap();
        }
        cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'kept')"]).unwrap();
        // What is received and not applied goes with a crash.
        arrives(cluster.server(drained), &[1].into());
        cluster.server_mut(&first).kill();
        cluster.server_mut(drained).kill();
        cluster.start_daemon(&[]);
        cluster.daemon().held_back(&padded(drained));
        cluster.server_mut(drained).restart().unwrap();
        let second = cluster.healthy(&[&first, drained]);
        assert!(
            has(cluster.server(&second), &[1].into()),
            "{flavor:?}: an acknowledged row is lost"
        );
    }
}
