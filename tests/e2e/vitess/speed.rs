//! How long writes are refused, through vttablets. It measures and asserts nothing about time:
//! `cargo test --release --test e2e vitess::speed -- --ignored --nocapture`.

#![expect(clippy::print_stdout, reason = "it measures")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use vtorc_clients::topo::TopoStore;
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::ports::TopoPort;
use vtorc_core::tablet::{MysqlAddress, Tablet, TabletType, VttabletAddress};
use vtorc_core::time::TermStart;
use vtorc_fleet::{Child, Flavor};
use vtorc_vttablet_double::canned::{self, Canned};

use super::cluster::{Way, store, with_vttablets};
use super::programs;
use crate::harness::{Cluster, Kind, THREE, padded, wait_for};
use crate::writer::create_table;

const ROUNDS: usize = 7;
const PEER_ROUNDS: usize = 3;

/// Milliseconds from now until somebody else takes a write.
fn until_written(cluster: &Cluster, dead: &str) -> u128 {
    let started = Instant::now();
    loop {
        for server in &cluster.servers {
            if server.address() == dead {
                continue;
            }
            let Ok(mut app) = server.connect_within("app", Duration::from_millis(500)) else {
                continue;
            };
            use mysql::prelude::Queryable;
            let row = started.elapsed().as_nanos() as u64;
            if app.query_drop(format!("INSERT INTO test.ledger VALUES ({row}, 'speed')")).is_ok() {
                return started.elapsed().as_millis();
            }
        }
        assert!(started.elapsed() < Duration::from_secs(60), "nobody takes writes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn measure(way: Way, with_vttablet: bool) {
    let mut cluster = with_vttablets("semi_sync", THREE, way, |_| {});
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster.start_daemon(&[]);
    let mut primary = cluster.healthy(&[]);
    create_table(cluster.server(&primary));
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(Duration::from_secs(1));
        let address = cluster.server(&primary).address();
        if with_vttablet {
            cluster.vttablets.get_mut(&primary).unwrap().kill();
        }
        cluster.server_mut(&primary).kill();
        took.push(until_written(&cluster, &address));
        let old = primary.clone();
        primary = cluster.healthy(&[&old]);
        cluster.server_mut(&old).restart().unwrap();
        if with_vttablet {
            cluster.vttablets.get_mut(&old).unwrap().restart();
        }
        cluster.healthy(&[]);
    }
    took.sort_unstable();
    let what = if with_vttablet { "mysqld and vttablet" } else { "mysqld" };
    println!("{way:?}, {what} killed: median {} ms, of {took:?}", took[ROUNDS / 2]);
}

#[test]
#[ignore = "measures"]
fn killed() {
    for way in [Way::Vttablets, Way::Both] {
        for with_vttablet in [false, true] {
            measure(way, with_vttablet);
        }
    }
}

/// Vitess's own VTOrc, with these flags more.
fn start_peer(cluster: &Cluster, more: &[&str]) -> Child {
    let port = vtorc_fleet::free_port().unwrap().to_string();
    let program = programs::directory().unwrap().join("vtorc");
    let mut command = programs::unprivileged(&program);
    command
        .args(programs::topology(cluster).iter().map(|(name, value)| format!("--{name}={value}")))
        .args(["--cell", "zone1", "--bind-address", "127.0.0.1", "--port", &port, "--logtostderr"])
        .args(more);
    Child::start(&mut command, &cluster.directory.path().join("peer.log")).unwrap()
}

/// Waits until both replicas acknowledge to a primary that takes writes; answers its alias.
fn settled(cluster: &Cluster) -> String {
    let acked = "SELECT VARIABLE_VALUE FROM performance_schema.global_status \
                 WHERE VARIABLE_NAME = 'Rpl_semi_sync_source_clients'";
    let serves = |alias: &str| {
        let server = cluster.server(alias);
        server.value("SELECT @@super_read_only").is_ok_and(|value| value == "0")
            && server.value(acked).is_ok_and(|value| value == "2")
    };
    let found = wait_for(|| THREE.iter().map(|one| padded(one)).find(|alias| serves(alias)));
    found.unwrap_or_else(|| {
        panic!("{}", std::fs::read_to_string(cluster.directory.path().join("peer.log")).unwrap())
    })
}

/// Both replace a killed primary of the same making: Vitess's own vttablets and etcd.
#[test]
#[ignore = "measures; wants Vitess's programs: VITESS_BIN"]
fn killed_beside_vitess_own() {
    programs::told(Way::Vttablets, killed_beside);
}

fn killed_beside(kind: Kind) {
    let quick = ["--instance-poll-time=1s", "--recovery-poll-duration=500ms"];
    let contestants: [(&str, Option<&[&str]>); 3] = [
        ("vtorc", None),
        ("VTOrc as it comes", Some(&[])),
        ("VTOrc, instance-poll-time 1s, recovery-poll-duration 500ms", Some(&quick)),
    ];
    for (name, peer) in contestants {
        let mut took = Vec::new();
        for _ in 0..PEER_ROUNDS {
            let mut cluster = Cluster::new(kind, "semi_sync", THREE);
            let running = peer.map(|flags| start_peer(&cluster, flags));
            if running.is_none() {
                cluster.start_daemon(&[]);
            }
            let primary = settled(&cluster);
            create_table(cluster.server(&primary));
            std::thread::sleep(Duration::from_secs(5));
            let address = cluster.server(&primary).address();
            cluster.server_mut(&primary).kill();
            took.push(until_written(&cluster, &address));
            drop(running);
        }
        took.sort_unstable();
        println!("{name}: mysqld killed: median {} ms, of {took:?}", took[PEER_ROUNDS / 2]);
    }
}

const TABLETS: u32 = 1000;
const HANGING: u32 = 50;
const A_SHARD: u32 = 5;

/// Registers very many tablets, of which every twentieth hangs, and answers what each is to say.
async fn register_many(store: &TopoStore) -> Vec<(SocketAddr, Canned)> {
    store.add_keyspace("ks", DurabilityPolicy::None).await.unwrap();
    let mut all = Vec::new();
    for number in 0..TABLETS {
        let shard: KeyspaceShard = format!("ks/{}", number / A_SHARD).parse().unwrap();
        let alias = TabletAlias { cell: "zone1".into(), uid: number };
        let (is_primary, first) = (number % A_SHARD == 0, number - number % A_SHARD);
        let mysql = |number: u32| MysqlAddress {
            host: "127.0.0.1".into(),
            port: u16::try_from(10_000 + number).unwrap(),
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, vtorc_fleet::free_port().unwrap()));
        if is_primary {
            store.add_shard(&shard).await.unwrap();
        }
        let tablet = Tablet {
            alias: alias.clone(),
            shard: shard.clone(),
            tablet_type: TabletType::Replica,
            mysql: Some(mysql(number)),
            term_start: None,
            vttablet: Some(VttabletAddress { host: "127.0.0.1".into(), port: address.port() }),
            promotion_rule: None,
        };
        store.add_tablet(&tablet).await.unwrap();
        if is_primary {
            let term = TermStart { seconds: 1000, nanos: 0 };
            store.set_tablet_type(&alias, TabletType::Primary, Some(term)).await.unwrap();
            store.set_shard_primary(&shard, &alias, term).await.unwrap();
        }
        let source = (!is_primary).then(|| (mysql(first), first + 1));
        let hangs = number % (TABLETS / HANGING) == 3;
        all.push((address, Canned { number: number + 1, source, hangs }));
    }
    all
}

/// Processor seconds so far, and megabytes.
fn used(pid: u32) -> (f64, f64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let resident = read("status");
    let resident = resident.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kilobytes: f64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    (ticks / 100.0, kilobytes / 1024.0)
}

#[test]
#[ignore = "measures"]
fn a_thousand_by_full_status() {
    let mut cluster = Cluster::new(Flavor::MySql, "none", &[]);
    cluster.topo(&["delete", "ks/0"]).unwrap();
    cluster.topo(&["delete", "ks"]).unwrap();
    cluster.topo(&["add-cell", "zone1"]).unwrap();
    cluster.way = Some(Way::Vttablets);
    cluster.configure(&[("InstancePollSeconds", json!(1))]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let tablets = runtime.block_on(register_many(&store(&cluster)));
    canned::serve(&runtime, tablets);
    cluster.start_daemon(&[]);
    std::thread::sleep(Duration::from_secs(20));
    let pid = cluster.daemon().child.id();
    let probes = || cluster.daemon().get("/debug/vars")["Probes"].as_u64().unwrap();
    let ((before, _), first) = (used(pid), probes());
    std::thread::sleep(Duration::from_secs(30));
    let ((after, megabytes), last) = (used(pid), probes());
    println!(
        "{TABLETS} tablets, {HANGING} of them hanging: {:.0} probes a second, {:.2} cores, {megabytes:.0} MB",
        (last - first) as f64 / 30.0,
        (after - before) / 30.0
    );
}
