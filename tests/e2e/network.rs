//! Cut networks: real servers in network namespaces of their own, so that packets can be dropped.
//!
//! Needs root, `ip` and `nft`; without them each story says that it was skipped.

use std::process::Command;

use tempfile::TempDir;
use vtorc_fleet::{Flavor, Server, ServerOptions};

use crate::failover::{emergency, tablet};
use crate::harness::{Cluster, Member, template, wait_for};
use crate::vitess::{Way, before_servers};
use crate::writer::{Writer, create_table, rows};

/// A bridge, and a namespace for each server with an address of its own. Gone when dropped.
struct Network {
    bridge: String,
    namespaces: Vec<String>,
    prefix: String,
}

fn sh(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).output().is_ok_and(|output| output.status.success())
}

fn must(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Network {
    /// Makes one, or says why not.
    fn make(number: u8, servers: usize) -> Option<Self> {
        let able =
            rustix::process::geteuid().is_root() && sh("command -v nft") && sh("ip netns list");
        if !able {
            eprintln!("skipped: network namespaces need root, ip and nft");
            return None;
        }
        let id = format!("{:x}{number}", std::process::id() & 0xffff);
        let network = Self {
            bridge: format!("vt{id}b"),
            namespaces: (0..servers).map(|at| format!("vt{id}n{at}")).collect(),
            prefix: format!("10.{}.{number}", 100 + std::process::id() % 100),
        };
        must(&format!("ip link add {0} type bridge && ip link set {0} up", network.bridge));
        must(&format!("ip addr add {}.1/24 dev {}", network.prefix, network.bridge));
        for (at, namespace) in network.namespaces.iter().enumerate() {
            let (outer, inner) = (format!("vt{id}o{at}"), format!("vt{id}i{at}"));
            must(&format!("ip netns add {namespace}"));
            must(&format!("ip link add {outer} type veth peer name {inner}"));
            must(&format!(
                "ip link set {outer} master {} && ip link set {outer} up",
                network.bridge
            ));
            must(&format!("ip link set {inner} netns {namespace}"));
            must(&format!("ip -n {namespace} addr add {}/24 dev {inner}", network.address(at)));
            must(&format!(
                "ip -n {namespace} link set {inner} up && ip -n {namespace} link set lo up"
            ));
        }
        Some(network)
    }

    fn address(&self, at: usize) -> String {
        format!("{}.{}", self.prefix, 11 + at)
    }

    /// Drops packets at a server's end, both ways: from and to vtorc, or everybody.
    fn cut(&self, at: usize, vtorc_only: bool) {
        let namespace = &self.namespaces[at];
        let (from, to) = match vtorc_only {
            true => (format!("ip saddr {}.1", self.prefix), format!("ip daddr {}.1", self.prefix)),
            false => ("iif != lo".to_owned(), "oif != lo".to_owned()),
        };
        must(&format!(
            "ip netns exec {namespace} nft -f - <<'END'\n\
             table inet cut {{\n\
             chain in {{ type filter hook input priority 0; {from} drop; }}\n\
             chain out {{ type filter hook output priority 0; {to} drop; }}\n}}\nEND"
        ));
    }

    fn heal(&self, at: usize) {
        must(&format!("ip netns exec {} nft delete table inet cut", self.namespaces[at]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            sh(&format!("ip netns del {namespace}"));
        }
        sh(&format!("ip link del {}", self.bridge));
    }
}

fn servers_in(
    network: &Network,
    flavor: Flavor,
    directory: &TempDir,
) -> (Vec<String>, Vec<Server>) {
    let members: Vec<String> =
        (0..network.namespaces.len()).map(|at| format!("zone1-{}", 101 + at)).collect();
    let start = |(at, alias): (usize, &String)| {
        let options = ServerOptions {
            bind_address: network.address(at),
            namespace: Some(network.namespaces[at].clone()),
            ..ServerOptions::default()
        };
        Server::start(template(flavor), &directory.path().join(alias), options).unwrap()
    };
    let servers = members.iter().enumerate().map(start).collect();
    (members, servers)
}

fn cluster_on(network: &Network, flavor: Flavor) -> Cluster {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let flags =
        vec![format!("-topo_global_root={}", directory.path().join("topo/global").display())];
    let (members, servers) = servers_in(network, flavor, &directory);
    let names: Vec<&str> = members.iter().map(String::as_str).collect();
    Cluster::with_servers("semi_sync", &names, servers, directory, flags)
}

/// With a vttablet before each server. It comes to its server by a socket, so a cut cuts it off by its silence.
fn vttablets_on(network: &Network, way: Way) -> Cluster {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let flags =
        vec![format!("-topo_global_root={}", directory.path().join("topo/global").display())];
    let (members, servers) = servers_in(network, Flavor::MySql, &directory);
    let mut cluster = Cluster::with_servers("semi_sync", &[], Vec::new(), directory, flags);
    cluster.servers = servers;
    cluster.members = members.iter().map(|alias| Member::parse(alias)).collect();
    before_servers(cluster, &[], way, |_| {})
}

/// Cuts a server off, and its vttablet with it; or heals what was cut.
fn cut_machine(network: &Network, cluster: &Cluster, alias: &str, vtorc_only: bool) {
    if let Some(vttablet) = cluster.vttablets.get(alias) {
        vttablet.hang(true);
    }
    network.cut(cluster.position(alias), vtorc_only);
}

fn heal_machine(network: &Network, cluster: &Cluster, alias: &str) {
    network.heal(cluster.position(alias));
    if let Some(vttablet) = cluster.vttablets.get(alias) {
        vttablet.hang(false);
    }
}

fn unreachable_for_vtorc_only(network: &Network, mut cluster: Cluster) {
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let writer = Writer::start(&cluster);
    cut_machine(network, &cluster, &first, true);
    let shard = cluster.daemon().finding("UnreachablePrimary");
    let evidence = shard["findings"][0]["evidence"].to_string();
    assert!(evidence.contains("still receives"), "{evidence}");
    // It serves its clients all the while, also much later.
    writer.wait_for_more(200);
    std::thread::sleep(std::time::Duration::from_secs(5));
    writer.wait_for_more(50);
    assert_eq!(cluster.daemon().shard()["primary"], first);
    heal_machine(network, &cluster, &first);
    assert_eq!(cluster.healthy(&[]), first);
    let reparents =
        cluster.daemon().recoveries().into_iter().filter(|one| one["kind"] == "EmergencyReparent");
    assert_eq!(reparents.count(), 0);
}

#[test]
fn a_primary_that_only_vtorc_cannot_reach_is_left_alone() {
    let Some(network) = Network::make(1, 3) else { return };
    unreachable_for_vtorc_only(&network, cluster_on(&network, Flavor::MySql));
}

#[test]
fn a_machine_that_only_vtorc_cannot_reach_is_left_alone_through_vttablets() {
    let Some(network) = Network::make(4, 3) else { return };
    unreachable_for_vtorc_only(&network, vttablets_on(&network, Way::Vttablets));
}

fn black_holed(network: &Network, mut cluster: Cluster) {
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    cut_machine(network, &cluster, &first, false);
    // Nobody is told anything; its own clients on the same machine still try.
    let mut client =
        cluster.server(&first).connect_within("app", std::time::Duration::from_secs(3)).unwrap();
    let late = std::thread::spawn(move || {
        mysql::prelude::Queryable::query_drop(
            &mut client,
            "INSERT INTO test.ledger VALUES (666, 'late')",
        )
    });
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    assert_eq!(emergency(&cluster)["finding"], "DeadPrimary");
    assert!(late.join().unwrap().is_err(), "a primary that nobody can reach acknowledged a write");
    heal_machine(network, &cluster, &first);
    wait_for(|| {
        let old = tablet(&cluster.daemon().shard(), &first);
        let done = old["read_only"] == true
            && (old["type"] == "DRAINED" || old["replication"]["receiver"] == "running");
        done.then_some(())
    })
    .expect("the old primary was not fenced when the network healed");
    assert!(!rows(cluster.server(&second)).contains(&666));
    assert_eq!(cluster.healthy(&[]), second);
}

#[test]
fn a_black_holed_mysql_primary_is_replaced_and_comes_back_as_a_replica() {
    let Some(network) = Network::make(2, 3) else { return };
    black_holed(&network, cluster_on(&network, Flavor::MySql));
}

#[test]
fn a_black_holed_mariadb_primary_is_replaced_and_comes_back_as_a_replica() {
    let Some(network) = Network::make(3, 3) else { return };
    black_holed(&network, cluster_on(&network, Flavor::MariaDb));
}

#[test]
fn a_black_holed_machine_is_replaced_through_vttablets_and_comes_back_as_a_replica() {
    for (number, way) in [(5, Way::Vttablets), (6, Way::Both)] {
        let Some(network) = Network::make(number, 3) else { return };
        black_holed(&network, vttablets_on(&network, way));
    }
}
