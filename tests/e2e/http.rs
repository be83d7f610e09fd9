//! The HTTP interface: what it answers, to whom, and what it refuses.

use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::certificates::certificates;
use crate::harness::{Cluster, THREE, padded, request, wait_for};

#[test]
fn the_api_answers_and_refuses_as_documented() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let daemon = cluster.daemon();
    let shard = daemon.shard();
    for key in [
        "keyspace",
        "shard",
        "durability_policy",
        "primary",
        "findings",
        "recovery_block",
        "tablets",
    ] {
        assert!(shard.get(key).is_some(), "{key}");
    }
    let first = &shard["tablets"][0];
    for key in [
        "alias",
        "type",
        "cell",
        "mysql_host",
        "mysql_port",
        "reachable",
        "read_only",
        "replication",
        "gtid_executed",
        "semi_sync",
        "last_seen",
    ] {
        assert!(first.get(key).is_some(), "{key}");
    }
    let would = &shard["if_primary_died"];
    assert_eq!(would["outcome"], "promotes", "{would:#}");
    assert!(would["may_lose"].as_str().unwrap().contains("durability policy none"));
    let recovery = daemon.recovery(|one| one["kind"] == "ElectPrimary");
    let steps = recovery["steps"].as_array().unwrap();
    assert!(
        steps.iter().all(|step| step["started_at"].is_string() && step["duration_ms"].is_u64()),
        "{recovery:#}"
    );
    assert!(!recovery["evidence"].as_array().unwrap().is_empty());
    let actors = daemon.get("/api/v1/actors");
    for kind in ["registry", "topo-watcher", "shard", "prober", "recovery", "auditor"] {
        let actor = actors.as_array().unwrap().iter().find(|actor| actor["kind"] == kind);
        let actor = actor.unwrap_or_else(|| panic!("no {kind}: {actors:#}"));
        assert!(
            actor["messages_handled"].is_u64()
                && actor["restarts"].is_u64()
                && actor["mailbox_depth"].is_u64()
        );
    }
    assert_eq!(daemon.get("/debug/health")["healthy"], true);
    assert_eq!(daemon.get("/debug/liveness")["alive"], true);
    let metrics = daemon.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    for name in [
        "vtorc_probes",
        "vtorc_shard_writable{keyspace=\"ks\",shard=\"0\"} 1",
        "vtorc_successful_recoveries",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(name), "{name} is missing in {metrics}");
    }
    let list = daemon.get("/api/v1/recoveries?keyspace=ks&shard=0&limit=1");
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(daemon.get("/api/v1/recoveries?keyspace=other").as_array().unwrap().len(), 0);
    assert_eq!(primary, shard["primary"].as_str().unwrap());
}

#[test]
fn bad_requests_get_a_clear_error() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    let daemon = cluster.daemon();
    let post = |path: &str, body: &str, headers: &[(&str, &str)]| {
        request("POST", &daemon.url(path), Some(body.to_owned()), headers)
    };
    let planned = "/api/v1/shards/ks/0/planned-reparent";
    let large = format!("{{\"reason\": \"{}\"}}", "x".repeat(70_000));
    let cases: &[(&str, &str, &[(&str, &str)], u16, &str)] = &[
        (planned, "{", &[], 400, "bad_request"),
        (planned, "[1]", &[], 400, "bad_request"),
        (planned, "{\"new_primry\": \"x\"}", &[], 400, "bad_request"),
        (planned, "{\"new_primary\": 7}", &[], 400, "bad_request"),
        (planned, &large, &[], 413, "too_large"),
        (planned, "{}", &[("Content-Type", "text/plain")], 400, "bad_request"),
        (planned, "{}", &[("Origin", "http://evil.example")], 403, "forbidden"),
        (planned, "{}", &[("Host", "rebound.example")], 403, "forbidden"),
        ("/api/v1/shards/no/0/planned-reparent", "{}", &[], 404, "not_found"),
        ("/api/v1/shards/no%20such/0/planned-reparent", "{}", &[], 400, "bad_request"),
        ("/api/v1/shards/ks/0/acknowledge", "{}", &[], 400, "bad_request"),
        ("/api/v1/nothing", "{}", &[], 404, "not_found"),
    ];
    for (path, body, headers, status, code) in cases {
        let (given, answer) = post(path, body, headers);
        assert_eq!(
            (given, &answer["code"]),
            (*status, &json!(code)),
            "{path} {body:.40} {headers:?}: {answer}"
        );
        assert!(answer["message"].is_string() && answer.get("details").is_some(), "{answer}");
    }
    // Whoever means a trial moves nothing.
    for query in ["dry_run=true", "dry-run=true"] {
        let path = format!("/api/v1/shards/ks/0/planned-reparent?{query}");
        let (given, answer) = request("POST", &daemon.url(&path), Some("{}".to_owned()), &[]);
        assert_eq!(given, 400, "{query}: {answer}");
    }
    for (path, status) in [
        ("/api/v1/shards/ks/80-", 404),
        ("/api/v1/recoveries/99999", 404),
        ("/api/v1/recoveries/x", 404),
        ("/nothing.js", 404),
    ] {
        let (given, answer) = request("GET", &daemon.url(path), None, &[]);
        assert_eq!(given, status, "{path}: {answer}");
    }
    assert!(cluster.daemon().recoveries().iter().all(|one| one["kind"] != "PlannedReparent"));
}

#[test]
fn with_authentication_nobody_else_gets_in() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.configure(&[
        ("AuthenticationMethod", json!("token")),
        ("HTTPAuthPassword", json!("t0ken-for-tests")),
    ]);
    cluster.start_daemon(&[]);
    let daemon = cluster.daemon();
    let with = [("Authorization", "Bearer t0ken-for-tests")];
    let up = wait_for(|| {
        let (status, shard) = request("GET", &daemon.url("/api/v1/shards/ks/0"), None, &with);
        (status == 200 && shard["primary"].is_string()).then_some(())
    });
    up.expect("the token is not taken");
    for path in ["/", "/api/v1/shards", "/api/v1/events", "/metrics", "/api/v1/actors"] {
        assert_eq!(request("GET", &daemon.url(path), None, &[]).0, 401, "{path}");
    }
    assert_eq!(request("GET", &daemon.url("/debug/health"), None, &[]).0, 200);
    let body = Some("{}".to_owned());
    assert_eq!(
        request("POST", &daemon.url("/api/v1/recoveries/disable"), body.clone(), &[]).0,
        401
    );
    assert_eq!(request("POST", &daemon.url("/api/v1/recoveries/disable"), body, &with).0, 200);
    assert!(!cluster.daemon().log_text().contains("t0ken-for-tests"));
    let url = cluster.daemon().url("");
    let config = cluster.config.display().to_string();
    let (ok, said) = ctl(&["--url", &url, "shards"]);
    assert!(!ok && said.contains("401"), "{said}");
    // What the daemon takes stands in its configuration.
    let (ok, said) = ctl(&["--url", &url, "--config", &config, "shards"]);
    assert!(ok && said.contains("ks/0"), "{said}");
}

/// Strangers open connections and streams without end: HTTP has its share of files, and failovers have theirs.
#[test]
fn a_crowd_of_connections_stops_no_failover() {
    use std::io::{Read, Write};
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&["few-files"]);
    let primary = cluster.healthy(&[]);
    let address = cluster.daemon().address.clone();
    let address: std::net::SocketAddr = address.parse().unwrap();
    let short = std::time::Duration::from_millis(50);
    // Who is not let in goes away.
    let asks = |what: &str| {
        let mut one = std::net::TcpStream::connect_timeout(&address, short).ok()?;
        one.set_read_timeout(Some(10 * short)).unwrap();
        one.write_all(what.as_bytes()).ok().map(|()| one)
    };
    let streams = "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut crowd: Vec<_> = (0..150).filter_map(|_| asks(streams)).collect();
    // Half of what is HTTP's are streams; who comes later is told so.
    let refused = crowd.iter_mut().any(|one| {
        let mut answer = [0; 64];
        let length = one.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).contains("503")
    });
    assert!(refused, "there is no end to streams");
    let begun = "POST /api/v1/recoveries/disable HTTP/1.1\r\n";
    crowd.extend((0..150).filter_map(|_| asks(begun)));
    cluster.server_mut(&primary).kill();
    let writes = |alias: &&str| {
        let server = cluster.server(alias);
        server.value("SELECT @@global.read_only").is_ok_and(|read_only| read_only == "0")
    };
    let replaced = wait_for(|| {
        let others = THREE.iter().filter(|alias| padded(alias) != primary);
        others.copied().find(|alias| writes(alias))
    });
    replaced.unwrap_or_else(|| panic!("nobody was promoted\n{}", cluster.daemon().log_text()));
    drop(crowd);
    cluster.healthy(&[&primary]);
}

#[test]
fn ctl_logs_in_by_name_and_password() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    cluster.configure(&[
        ("AuthenticationMethod", json!("basic")),
        ("HTTPAuthUser", json!("ann")),
        ("HTTPAuthPassword", json!("pa:ss-for-tests")),
    ]);
    cluster.start_daemon(&[]);
    let url = cluster.daemon().url("");
    let file = cluster.directory.path().join("password");
    let path = file.display().to_string();
    for (password, gets_in) in [("pa:ss-for-tests\n", true), ("another", false)] {
        std::fs::write(&file, password).unwrap();
        let asked = ["--url", &url, "--user", "ann", "--password-file", &path, "shards"];
        let said = wait_for(|| {
            let (ok, said) = ctl(&asked);
            (ok == gets_in && (!ok || said.contains("ks/0"))).then_some(said)
        });
        let said = said.expect("the password is not what counts");
        assert!(gets_in || said.contains("401"), "{said}");
    }
    let config = cluster.config.display().to_string();
    assert!(ctl(&["--url", &url, "--config", &config, "shards"]).0);
    let (ok, said) = ctl(&["--url", &url, "--user", "ann", "shards"]);
    assert!(!ok && said.contains("--password-file"), "{said}");
}

/// Whether `vtorc ctl` succeeded, and all that it said.
pub fn ctl(arguments: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vtorc"));
    let output = command.arg("ctl").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn events_tell_what_changes_while_it_changes() {
    use std::io::{BufRead, BufReader};
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let response = ureq::get(cluster.daemon().url("/api/v1/events")).call().unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut lines = BufReader::new(response.into_body().into_reader()).lines();
    cluster.server_mut(&primary).kill();
    let mut kind = String::new();
    let (mut found, mut ran, mut ended) = (false, false, false);
    while !(found && ran && ended) {
        let line = lines.next().expect("the stream ended").unwrap();
        if let Some(name) = line.strip_prefix("event: ") {
            kind = name.to_owned();
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let data: Value = serde_json::from_str(data).unwrap();
        match kind.as_str() {
            "shard" => {
                found |=
                    data["findings"].as_array().unwrap().iter().any(|f| f["code"] == "DeadPrimary")
            }
            "recovery" if data["kind"] == "EmergencyReparent" => {
                ran |= data["outcome"].is_null();
                ended |= data["outcome"] == "succeeded";
            }
            _ => {}
        }
    }
    cluster.healthy(&[&primary]);
}

#[test]
fn https_with_client_certificates() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101"]);
    let place = cluster.directory.path().to_owned();
    let file = |name: &str| place.join(name).display().to_string();
    certificates(&place);
    cluster.configure(&[
        ("UseSSL", json!(true)),
        ("UseMutualTLS", json!(true)),
        ("SSLCertFile", json!(file("server.pem"))),
        ("SSLPrivateKeyFile", json!(file("server.key"))),
        ("SSLCAFile", json!(file("ca.pem"))),
    ]);
    cluster.start_daemon(&[]);
    let url = format!("https://{}/api/v1/shards", cluster.daemon().address);
    let curl = |arguments: &[&str]| {
        let ca = file("ca.pem");
        let mut all = vec!["-sS", "--cacert", &ca, &url];
        all.extend(arguments);
        std::process::Command::new("curl").args(all).output().unwrap().status.success()
    };
    assert!(curl(&["--cert", &file("client.pem"), "--key", &file("client.key")]));
    assert!(!curl(&[]), "a caller without a certificate got in");
    // So does `vtorc ctl`, which asks the first address at which somebody is.
    let urls = format!("http://127.0.0.1:1,https://{}", cluster.daemon().address);
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let (ok, said) = ctl(&["--url", &urls, "--ca", &ca, "--cert", &cert, "--key", &key, "shards"]);
    assert!(ok && said.contains("ks/0"), "{said}");
    let (ok, said) = ctl(&["--url", &urls, "--ca", &ca, "shards"]);
    assert!(!ok && !said.contains("ks/0"), "{said}");
    let (ok, said) = ctl(&["--url", &urls, "--cert", &cert, "--key", &key, "shards"]);
    assert!(!ok && said.contains("certificate"), "an unknown authority was believed: {said}");
}

/// Whatever is sent to whatever changes something: it is refused with a reason, and nothing happens.
#[test]
fn bodies_that_make_no_sense_change_nothing() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let before = cluster.daemon().recoveries().len();
    let places = [
        "/api/v1/shards/ks/0/planned-reparent",
        "/api/v1/shards/ks/0/emergency-reparent",
        "/api/v1/shards/ks/0/acknowledge",
        "/api/v1/shards/ks/0/errant-gtids",
        "/api/v1/shards/ks/0/forget",
        "/api/v1/controls/set",
        "/api/v1/controls/lift",
        "/api/v1/recoveries/disable",
        "/api/v1/recoveries/enable",
    ];
    let deep = "[".repeat(5000);
    let long = format!("{{\"comment\": \"{}\"}}", "x".repeat(3_000_000));
    let bodies = [
        "",
        "null",
        "true",
        "7",
        "\"text\"",
        "[]",
        "{",
        "{]",
        "\u{0}",
        "\u{feff}{}",
        "{\"wibble\": 1}",
        "{\"comment\": false}",
        "{\"comment\": 7, \"control\": 7, \"new_primary\": 7}",
        "{\"new_primary\": \"../../etc\", \"tablet\": \"' OR 1\", \"control\": \"DROP TABLE\"}",
        "{\"comment\": [], \"reason\": []}",
        "{\"seconds\": -1, \"ignore_block\": \"yes\"}",
        "{\"comment\": \"a\", \"comment\": \"b\"}",
        "{\"ignore_block\": 1e400}",
        &deep,
        &long,
    ];
    for place in places {
        for body in bodies {
            let (status, answer) =
                request("POST", &cluster.daemon().url(place), Some(body.to_owned()), &[]);
            let short: String = body.chars().take(60).collect();
            assert!((400..500).contains(&status), "{place} {short}: {status} {answer}");
        }
    }
    assert_eq!(cluster.daemon().recoveries().len(), before);
    let system = cluster.daemon().get("/api/v1/system");
    assert_eq!((&system["recoveries_enabled"], &system["controls"]), (&json!(true), &json!([])));
    assert_eq!(cluster.healthy(&[]), primary);
}
