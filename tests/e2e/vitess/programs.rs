//! The same stories, told of Vitess's own vttablets and etcd. `VITESS_BIN` names the directory with `vttablet` and
//! `vtctldclient`:
//!
//! `VITESS_BIN=/path/to/bin cargo test --test e2e -- --ignored vitess::programs --test-threads 1`

use std::any::Any;
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vtorc_fleet::{Child, Consul, ConsulOptions, Etcd, Flavor, ZooKeeper, free_port};

use super::Way;
use super::vttablets::{another, started};
use crate::harness::{Cluster, Kind, Member, PATIENCE, PLANNED, THREE, padded, wait_for};
use crate::topologies::topo_flags;

const NOBODY: u32 = 65534;

/// Where Vitess's programs are, if anywhere.
pub fn directory() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os("VITESS_BIN")?);
    assert!(
        directory.join("vttablet").is_file(),
        "VITESS_BIN={}: no vttablet is there",
        directory.display()
    );
    Some(directory)
}

/// A running vttablet.
pub struct Program {
    pub child: Child,
    /// Where it takes calls.
    pub address: SocketAddr,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: PathBuf,
}

impl Program {
    fn start(
        command: Box<dyn Fn() -> Command + Send + Sync>,
        address: SocketAddr,
        log: PathBuf,
    ) -> Self {
        let child = Child::start(&mut command(), &log).unwrap();
        let mut program = Self { child, address, command, log };
        program.wait_until_up();
        program
    }

    fn wait_until_up(&mut self) {
        let is_up =
            || TcpStream::connect_timeout(&self.address, Duration::from_millis(500)).is_ok();
        self.child.wait_until_up("vttablet", &self.log, is_up).unwrap();
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.child.kill();
        self.child = Child::start(&mut (self.command)(), &self.log).unwrap();
        self.wait_until_up();
    }
}

/// A shard of real servers behind Vitess's own vttablets, in a real etcd.
pub fn with_programs(policy: &str, members: &[&str], way: Way) -> Cluster {
    let place = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(&place.path().join("etcd"), 1, &[]).unwrap();
    let mut flags = crate::etcd::topo_flags(&etcd);
    // What a vtorc that was killed had locked is free again soon.
    flags.push("-topo_etcd_lease_ttl=3".to_owned());
    with_programs_on(Box::new(etcd), flags, place, (policy, members, way))
}

/// The same on any topology server, which lives as long as the shard.
fn with_programs_on(
    server: Box<dyn Any + Send + Sync>,
    flags: Vec<String>,
    place: TempDir,
    (policy, members, way): (&str, &[&str], Way),
) -> Cluster {
    let mut cluster = Cluster::with_topology(Flavor::MySql, policy, &[], place, flags);
    cluster.topo_server = Some(server);
    cluster.add_members(Flavor::MySql, members);
    cluster.way = Some(way);
    cluster.configure(&[]);
    for at in 0..cluster.members.len() {
        add_program(&mut cluster, at);
    }
    cluster
}

/// Starts a vttablet before a member's server; it registers itself.
pub fn add_program(cluster: &mut Cluster, at: usize) {
    let directory = directory().expect("asked for before");
    let (member, server) = (cluster.members[at].clone(), &cluster.servers[at]);
    // Whoever it runs as must come to its server's socket, and write below its own directory.
    let open = |place: &Path| std::fs::set_permissions(place, Permissions::from_mode(0o777));
    let (home, data) = (cluster.directory.path(), cluster.directory.path().join("vttablets"));
    std::fs::create_dir_all(&data).unwrap();
    let server_place = home.join(&member.alias);
    [home, &data, &server_place].into_iter().for_each(|place| open(place).unwrap());
    let log = server_place.join("vttablet.log");
    let place = Place {
        ports: (free_port().unwrap(), free_port().unwrap()),
        socket: server.socket(),
        topology: topology(cluster),
        data,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.ports.1));
    let command = move || command(&directory, &member, &place);
    let program = Program::start(Box::new(command), address, log);
    let alias = padded(&cluster.members[at].alias);
    wait_for(|| cluster.topo(&["show", &alias]).ok()).expect("the vttablet did not register");
    cluster.programs.insert(alias, program);
}

/// The flags that say where the topology is, by Vitess's names.
pub fn topology(cluster: &Cluster) -> Vec<(String, String)> {
    let places = ["topo-implementation", "topo-global-server-address", "topo-global-root"];
    let pairs = cluster.topo_flags.iter().filter_map(|flag| flag.split_once('='));
    pairs
        .map(|(name, value)| (name.trim_start_matches('-').replace('_', "-"), value.to_owned()))
        .filter(|(name, _)| places.contains(&name.as_str()))
        .collect()
}

/// Where a vttablet listens, and what it stands before.
struct Place {
    ports: (u16, u16),
    socket: PathBuf,
    topology: Vec<(String, String)>,
    data: PathBuf,
}

/// Vitess's programs refuse to run as root.
pub fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn command(directory: &Path, member: &Member, place: &Place) -> Command {
    let program = directory.join("vttablet");
    let known = Command::new(&program).arg("--help").output().unwrap();
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let mut command = unprivileged(&program);
    command.env("VTDATAROOT", &place.data);
    let socket = place.socket.display().to_string();
    let (port, grpc) = (place.ports.0.to_string(), place.ports.1.to_string());
    let mut flags: Vec<(&str, &str)> =
        place.topology.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    flags.extend([
        ("tablet-path", member.alias.as_str()),
        ("tablet-hostname", "127.0.0.1"),
        ("bind-address", "127.0.0.1"),
        ("grpc-bind-address", "127.0.0.1"),
        ("port", port.as_str()),
        ("grpc-port", grpc.as_str()),
        ("service-map", "grpc-queryservice,grpc-tabletmanager"),
        ("init-keyspace", "ks"),
        ("init-shard", "0"),
        ("init-tablet-type", member.kind.as_str()),
        // Newer ones never repair by themselves, and have no such flag.
        ("disable-active-reparents", "true"),
        ("logtostderr", "true"),
        ("db-ssl-mode", "disabled"),
        ("db-socket", socket.as_str()),
        ("db-repl-user", "vt_repl"),
        ("db-repl-use-ssl", "false"),
    ]);
    let users = ["app", "dba", "filtered", "allprivs", "appdebug"];
    let users = users.map(|user| (format!("db-{user}-user"), format!("db-{user}-use-ssl")));
    for (user, ssl) in &users {
        flags.extend([(user.as_str(), "admin"), (ssl.as_str(), "false")]);
    }
    for (name, value) in flags {
        // Until version 22 they are written with underscores.
        let spellings = [name.to_owned(), name.replace('-', "_")];
        if let Some(name) = spellings.iter().find(|name| known.contains(&format!("--{name} "))) {
            command.arg(format!("--{name}={value}"));
        }
    }
    command
}

impl Cluster {
    /// Runs Vitess's own client against this topology and answers what it printed.
    pub fn vtctldclient(&self, arguments: &[&str]) -> Result<String, String> {
        let program = directory().expect("asked for before").join("vtctldclient");
        let output = Command::new(program)
            .args(["--server", "internal"])
            .args(topology(self).iter().map(|(name, value)| format!("--{name}={value}")))
            .args(["--action-timeout", &format!("{}s", PATIENCE.as_secs())])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// Tells a story if Vitess's programs are there, and says so if they are not.
pub fn told(way: Way, story: impl FnOnce(Kind)) {
    match directory() {
        Some(_) => story(Kind::Programs(way)),
        None => eprintln!("SKIPPED: VITESS_BIN does not say where Vitess's programs are"),
    }
}

macro_rules! stories {
    ($($name:ident: $way:ident $story:path,)*) => {
        $(
            #[test]
            #[ignore = "wants Vitess's programs: VITESS_BIN"]
            fn $name() {
                told(Way::$way, |kind| $story(kind));
            }
        )*
    };
}

use crate::failover::{emergency, tablet};
use crate::{bringup, crash, daemon, failover, hazards, planned, repairs};

/// Server and vttablet die together, as with their machine, and come back.
fn machine_lost(kind: Kind) {
    let (mut cluster, first) = started("semi_sync", THREE, kind);
    cluster.programs.get_mut(&first).unwrap().kill();
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    cluster.server_mut(&first).restart().unwrap();
    cluster.programs.get_mut(&first).unwrap().restart();
    assert_eq!(cluster.healthy(&[]), second);
    assert_eq!(tablet(&cluster.daemon().shard(), &first)["type"], "REPLICA");
}

/// The vttablet alone dies: its server lives, so nobody takes its place by itself.
fn vttablet_lost(kind: Kind) {
    let (mut cluster, first) = started("semi_sync", THREE, kind);
    cluster.programs.get_mut(&first).unwrap().kill();
    let shard = cluster.daemon().finding("VttabletUnreachable");
    assert_eq!(shard["primary"], first, "a server that lives was replaced: {shard:#}");
    cluster.programs.get_mut(&first).unwrap().restart();
    assert_eq!(cluster.healthy(&[]), first);
}

fn vttablet_frozen(kind: Kind) {
    let (mut cluster, first) = started("semi_sync", THREE, kind);
    let frozen = padded(another(&first));
    cluster.programs[&frozen].child.freeze();
    let gone = || {
        let shard = cluster.daemon().shard();
        (tablet(&shard, &frozen)["state"] == "unreachable").then_some(())
    };
    wait_for(gone).expect("its silence was not noticed");
    // The other acknowledges; the frozen one could as well, so nothing can be proven until it answers.
    cluster.server_mut(&first).kill();
    let held = || cluster.daemon().shard()["held_back"].as_str().map(str::to_owned);
    assert!(wait_for(held).unwrap().contains("acknowledge"), "{:#}", cluster.daemon().shard());
    cluster.programs[&frozen].child.thaw();
    assert_ne!(cluster.healthy(&[&first]), first);
}

/// What Vitess's own client does to the shard is followed, and takes turns with what is asked of vtorc.
fn beside_vtctld(kind: Kind) {
    let (cluster, first) = started("semi_sync", THREE, kind);
    takes_turns(&cluster, &first);
}

/// The same where the topology is kept by somebody else.
fn beside_vtctld_on(
    kind: Kind,
    start: impl FnOnce(&Path) -> (Box<dyn Any + Send + Sync>, Vec<String>),
) {
    let Kind::Programs(way) = kind else { panic!("{kind:?} are no programs") };
    let place = tempfile::tempdir().unwrap();
    let (server, flags) = start(&place.path().join("topology"));
    let mut cluster = with_programs_on(server, flags, place, ("semi_sync", THREE, way));
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    takes_turns(&cluster, &first);
    cluster.server_mut(&first).kill();
    assert_ne!(cluster.healthy(&[&first]), first);
}

fn on_consul(kind: Kind) {
    beside_vtctld_on(kind, |place| {
        let consul = Consul::start(place, &ConsulOptions::default()).unwrap();
        let flags = topo_flags("consul", &consul.address(), "vitess/global");
        (Box::new(consul), flags)
    });
}

fn on_zookeeper(kind: Kind) {
    beside_vtctld_on(kind, |place| {
        let zookeeper = ZooKeeper::start(place).unwrap();
        let flags = topo_flags("zk2", &zookeeper.address(), "/vitess/global");
        (Box::new(zookeeper), flags)
    });
}

fn takes_turns(cluster: &Cluster, first: &str) {
    let second = padded(another(first));
    cluster.vtctldclient(&["PlannedReparentShard", "ks/0", "--new-primary", &second]).unwrap();
    assert_eq!(cluster.settles(|alias| alias == second), second);
    let told = cluster.vtctldclient(&["GetShard", "ks/0"]).unwrap();
    assert!(told.contains("is_primary_serving"), "{told}");
    // Both at once, again and again: one waits for the other.
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let theirs = scope.spawn(|| {
                cluster.vtctldclient(&["PlannedReparentShard", "ks/0", "--new-primary", first])
            });
            let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": second}));
            assert!(status == 200 || status == 409, "{answer:#}");
            theirs.join().unwrap().unwrap();
        });
        cluster.healthy(&[]);
    }
    // What looked like an emergency meanwhile was looked at again under the lock, and was none.
    let all = cluster.daemon().recoveries();
    let replaced =
        |one: &Value| one["kind"] == "EmergencyReparent" && one["outcome"] == "succeeded";
    assert!(!all.iter().any(replaced), "{all:#?}");
}

/// What Vitess's operators set with its own client is honoured.
fn set_by_vtctld(kind: Kind) {
    let (mut cluster, first) = started("semi_sync", THREE, kind);
    let set = |words: &[&str]| cluster.vtctldclient(words).unwrap();
    set(&["SetKeyspaceDurabilityPolicy", "--durability-policy", "none", "ks"]);
    let asynchronous = || {
        let enabled = "SELECT @@rpl_semi_sync_source_enabled";
        (cluster.server(&first).value(enabled).unwrap() == "0").then_some(())
    };
    wait_for(asynchronous).expect("the policy had no effect");
    set(&["SetKeyspaceDurabilityPolicy", "--durability-policy", "semi_sync", "ks"]);
    assert_eq!(cluster.healthy(&[]), first);
    let aside = padded(another(&first));
    let is = |kind: &'static str| {
        let shown = || (tablet(&cluster.daemon().shard(), &aside)["type"] == kind).then_some(());
        wait_for(shown).unwrap_or_else(|| panic!("{kind} is not shown"));
    };
    set(&["ChangeTabletType", &aside, "drained"]);
    is("DRAINED");
    set(&["ChangeTabletType", &aside, "replica"]);
    is("REPLICA");
    assert_eq!(cluster.healthy(&[]), first);
    set(&["SetVtorcEmergencyReparent", "--disable", "ks", "0"]);
    std::thread::sleep(Duration::from_secs(1));
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("emergency");
    assert_eq!(cluster.daemon().shard()["primary"], first);
    let enable = ["SetVtorcEmergencyReparent", "--enable", "ks", "0"];
    cluster.vtctldclient(&enable).unwrap();
    assert_ne!(cluster.healthy(&[&first]), first);
    assert_eq!(emergency(&cluster)["outcome"], "succeeded");
}

stories! {
    machine_lost_through_vttablets: Vttablets machine_lost,
    machine_lost_with_direct_probes: Both machine_lost,
    vttablet_lost_before_a_living_server: Both vttablet_lost,
    vttablet_frozen_through_vttablets: Vttablets vttablet_frozen,
    beside_vtctld_through_vttablets: Vttablets beside_vtctld,
    beside_vtctld_with_direct_probes: Both beside_vtctld,
    beside_vtctld_on_consul: Vttablets on_consul,
    beside_vtctld_on_zookeeper: Vttablets on_zookeeper,
    set_by_vtctld_through_vttablets: Vttablets set_by_vtctld,
    killed: Vttablets failover::killed_under_load,
    frozen: Vttablets failover::frozen,
    dead_before_the_start: Vttablets failover::a_primary_that_was_dead_before_the_start_is_replaced_on,
    deleted_tablet: Vttablets failover::a_deleted_primary_tablet_is_replaced_once_all_others_answer_on,
    second_dead_tablet: Vttablets failover::a_second_dead_tablet_is_judged_by_the_policy_on,
    rdonly_most_advanced: Vttablets failover::the_most_advanced_rdonly_gives_what_it_has_and_is_not_promoted_on,
    promotion_lag: Vttablets failover::a_candidate_that_lags_applies_all_it_received_first_on,
    promotion_lag_failure: Vttablets failover::a_candidate_that_lags_is_not_waited_for_where_that_is_configured_on,
    stopped_applier: Vttablets failover::a_stopped_applier_does_not_delay_the_failover_on,
    preferred_with_lag: Vttablets failover::a_preferred_candidate_that_lags_catches_up_and_is_promoted_on,
    forbidden: Vttablets failover::what_the_configuration_forbids_is_not_promoted_on,
    block_period: Vttablets failover::a_second_failure_within_the_block_period_waits_for_an_acknowledgement_on,
    damage: Vttablets repairs::each_damage_is_found_and_repaired,
    wrong_sources: Vttablets repairs::wrong_sources_are_put_right_for_replicas_and_primaries_on,
    policy_set_later: Vttablets repairs::a_policy_set_at_run_time_takes_effect_by_itself_on,
    errant_old_primary: Vttablets repairs::an_errant_old_primary_is_set_aside_and_named_on,
    stuck_commits: Vttablets repairs::commits_that_nobody_was_asked_to_acknowledge_are_freed_by_another_write_on,
    planned: Vttablets planned::under_load,
    planned_refused: Vttablets planned::a_candidate_that_cannot_catch_up_is_refused_before_writes_stop_on,
    planned_undone: Vttablets planned::a_candidate_that_stalls_after_writes_stopped_is_undone_and_writes_go_on_on,
    left_open: Vttablets hazards::a_transaction_that_is_left_open_does_not_hold_a_demotion_up_on,
    crash_in_an_emergency: Vttablets crash::emergency_through_vttablets,
    crash_in_a_planned_reparent: Vttablets crash::planned_through_vttablets,
    crash_in_an_election: Vttablets crash::election_through_vttablets,
    two_daemons: Vttablets daemon::of_two_daemons_on_one_shard_one_acts_on,
    tablet_with_data: Vttablets bringup::the_tablet_with_data_is_elected_and_the_others_get_it_on,
    own_data: Vttablets bringup::tablets_with_data_of_their_own_are_not_chosen_from_on,
    too_few_ackers: Vttablets bringup::too_few_ackers_are_refused_and_counted_on,
    working_tree: Vttablets bringup::a_replication_tree_that_works_is_taken_over_as_it_is_on,
    killed_with_direct_probes: Both failover::killed_under_load,
    frozen_with_direct_probes: Both failover::frozen,
    damage_with_direct_probes: Both repairs::each_damage_is_found_and_repaired,
    wrong_sources_with_direct_probes: Both repairs::wrong_sources_are_put_right_for_replicas_and_primaries_on,
    errant_old_primary_with_direct_probes: Both repairs::an_errant_old_primary_is_set_aside_and_named_on,
    stuck_commits_with_direct_probes: Both repairs::commits_that_nobody_was_asked_to_acknowledge_are_freed_by_another_write_on,
    planned_with_direct_probes: Both planned::under_load,
    planned_undone_with_direct_probes: Both planned::a_candidate_that_stalls_after_writes_stopped_is_undone_and_writes_go_on_on,
}
