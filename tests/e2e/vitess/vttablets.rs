//! What only a shard with vttablets can suffer.

use serde_json::{Value, json};
use tempfile::TempDir;
use vtorc_core::tablet::TabletType;
use vtorc_fleet::Flavor;

use super::cluster::{Way, add_vttablet, topology, with_vttablets};
use crate::certificates::{certificates, revocation_list};
use crate::failover::{emergency, tablet};
use crate::harness::{Cluster, Kind, PLANNED, THREE, padded, wait_for};
use crate::writer::create_table;

pub fn started(policy: &str, members: &[&str], kind: impl Into<Kind>) -> (Cluster, String) {
    let mut cluster = Cluster::new(kind, policy, members);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    (cluster, first)
}

pub fn another(not: &str) -> &'static str {
    THREE.iter().copied().find(|alias| padded(alias) != not).unwrap()
}

#[test]
fn a_dead_vttablet_before_a_living_server_is_named_and_writes_can_be_moved_away() {
    let (mut cluster, first) = started("semi_sync", THREE, Way::Both);
    cluster.vttablets.get_mut(&first).unwrap().kill();
    let shard = cluster.daemon().finding("VttabletUnreachable");
    assert_eq!(shard["primary"], first, "a server that lives was replaced: {shard:#}");
    assert_eq!(tablet(&shard, &first)["vttablet"]["state"], "silent", "{shard:#}");
    let (status, answer) = cluster.daemon().post(PLANNED, json!({}));
    assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
    let moved = || {
        let shard = cluster.daemon().shard();
        let old = tablet(&shard, &first);
        (shard["primary"] != first.as_str() && old["read_only"] == true).then_some(())
    };
    wait_for(moved).expect("the writes were not moved");
    cluster.vttablets.get_mut(&first).unwrap().restart();
    assert_ne!(cluster.healthy(&[]), first);
}

#[test]
fn a_tablet_whose_vttablet_is_dead_is_not_promoted() {
    let (mut cluster, first) = started("semi_sync", THREE, Way::Both);
    let silent = padded(another(&first));
    cluster.vttablets.get_mut(&silent).unwrap().kill();
    cluster.daemon().finding("VttabletUnreachable");
    cluster.server_mut(&first).kill();
    let done = emergency(&cluster);
    assert_ne!(done["new_primary"], silent.as_str(), "{done:#}");
    cluster.vttablets.get_mut(&silent).unwrap().restart();
    assert_ne!(cluster.healthy(&[&first]), silent);
}

/// Server and vttablet die together, as with their machine; then everybody else's vttablet still answers.
fn machine_lost(way: Way) {
    let (mut cluster, first) = started("semi_sync", THREE, way);
    cluster.vttablets.get_mut(&first).unwrap().kill();
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    // It comes back, takes itself for nothing special, and follows.
    cluster.server_mut(&first).restart().unwrap();
    cluster.vttablets.get_mut(&first).unwrap().restart();
    assert_eq!(cluster.healthy(&[]), second);
    let back =
        wait_for(|| (cluster.vttablets[&first].tablet_type() == TabletType::Replica).then_some(()));
    back.expect("the old primary's vttablet still takes itself for the primary");
}

#[test]
fn a_lost_machine_is_replaced_through_vttablets_alone() {
    machine_lost(Way::Vttablets);
}

#[test]
fn a_lost_machine_is_replaced_with_direct_probes() {
    machine_lost(Way::Both);
}

/// Its server was made to forget its source, and was not opened.
#[test]
fn a_vttablet_that_fails_to_promote_its_server_leaves_its_place_to_the_next() {
    for way in [Way::Vttablets, Way::Both] {
        let (mut cluster, first) = started("semi_sync", THREE, way);
        let refuses = padded(another(&first));
        cluster.vttablets[&refuses].refuse_promotion(true);
        cluster.server_mut(&first).kill();
        let done = emergency(&cluster);
        assert_eq!(done["outcome"], "succeeded", "{way:?}: {done:#}");
        let promotes = |step: &&Value| step["name"] == "promote";
        let steps = done["steps"].as_array().unwrap();
        let tried: Vec<&Value> =
            steps.iter().filter(promotes).map(|step| &step["tablet"]).collect();
        assert_eq!(tried.first(), Some(&&json!(refuses)), "{way:?}: {done:#}");
        assert_ne!(done["new_primary"], refuses.as_str(), "{way:?}: {done:#}");
        cluster.vttablets[&refuses].refuse_promotion(false);
        cluster.server_mut(&first).restart().unwrap();
        assert_ne!(cluster.healthy(&[]), refuses);
    }
}

/// A proxy breaks the connection, and the vttablet goes on: the old primary is not opened beside it.
#[test]
fn a_vttablet_whose_promotion_goes_on_unheard_leaves_one_primary() {
    for way in [Way::Vttablets, Way::Both] {
        let (cluster, first) = started("none", THREE, way);
        let unheard = padded(another(&first));
        cluster.vttablets[&unheard].promote_unheard(1_000);
        let request = json!({"new_primary": unheard, "reason": "test"});
        let (status, answer) = cluster.daemon().post(PLANNED, request);
        assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{way:?}: {answer:#}");
        assert_eq!(cluster.healthy(&[]), unheard, "{way:?}");
        let writable =
            |alias: &&&str| cluster.server(alias).value("SELECT @@read_only").unwrap() == "0";
        assert_eq!(THREE.iter().filter(writable).count(), 1, "{way:?}");
    }
}

#[test]
fn a_vttablet_that_hangs_holds_no_failover_up() {
    let members = ["zone1-101", "zone1-102", "zone1-103", "zone1-104 rdonly"];
    let (mut cluster, first) = started("semi_sync", &members, Way::Vttablets);
    cluster.vttablets[&padded("zone1-104")].hang(true);
    let gone = || {
        let shard = cluster.daemon().shard();
        (tablet(&shard, "zone1-104")["state"] == "unreachable").then_some(())
    };
    wait_for(gone).expect("its silence was not noticed");
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first, "zone1-104"]);
    assert_ne!(second, first);
    let done = emergency(&cluster);
    let mut steps = done["steps"].as_array().unwrap().iter();
    let stop = steps.find(|step| step["name"] == "stop all receivers").unwrap();
    assert!(
        stop["duration_ms"].as_u64().unwrap() < 5000,
        "the hanging one was waited for: {stop:#}"
    );
    cluster.vttablets[&padded("zone1-104")].hang(false);
    assert_eq!(cluster.healthy(&[&first]), second);
}

#[test]
fn what_is_not_watched_is_not_even_called() {
    let members = ["zone1-101", "zone1-102"];
    let mut cluster = with_vttablets("none", &members, Way::Vttablets, |_| {});
    let aside = padded("zone1-102");
    let (mysql, vttablet) =
        (cluster.server(&aside).address(), cluster.vttablets[&aside].address().to_string());
    cluster.topo(&["add-keyspace", "other", "--durability-policy", "none"]).unwrap();
    cluster.topo(&["add-shard", "other/-80"]).unwrap();
    cluster.topo(&["delete", &aside]).unwrap();
    let add = ["add-tablet", &aside, "--shard", "other/-80", "--mysql", &mysql];
    cluster.topo(&[&add[..], &["--vttablet", &vttablet]].concat()).unwrap();
    let calls =
        |cluster: &Cluster| cluster.vttablets[&aside].calls().values().copied().sum::<u32>();
    cluster.start_daemon(&["-clusters_to_watch", "ks,other/80-"]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
    assert_eq!(calls(&cluster), 0);
    cluster.daemons.pop();
    cluster.start_daemon(&["-clusters_to_watch=ks,other/-80"]);
    wait_for(|| (calls(&cluster) > 0).then_some(())).expect("it is watched and not called");
}

#[test]
fn an_old_vttablet_is_named_and_not_asked_again_and_again() {
    for way in [Way::Vttablets, Way::Both] {
        let mut cluster = with_vttablets("none", THREE, way, |options| {
            options.old = options.alias.uid == 103;
        });
        cluster.start_daemon(&[]);
        let shard = cluster.daemon().finding("VttabletTooOld");
        let mut findings = shard["findings"].as_array().unwrap().iter();
        let finding = findings.find(|one| one["code"] == "VttabletTooOld").unwrap();
        assert_eq!(finding["tablet"], padded("zone1-103"), "{finding:#}");
        assert!(finding.to_string().contains("FullStatus"), "{finding:#}");
        assert!(!shard["findings"].to_string().contains("AccessDenied"), "{shard:#}");
    }
}

#[test]
fn credentials_are_sent_and_wrong_ones_are_named() {
    let asked = |options: &mut vtorc_vttablet_double::Options| {
        options.credentials = Some(("vtorc".into(), "secret-word".into()));
    };
    let mut cluster = with_vttablets("semi_sync", THREE, Way::Vttablets, asked);
    let file = cluster.directory.path().join("creds.json");
    let flag = format!("--grpc_auth_static_client_creds={}", file.display());
    std::fs::write(&file, r#"{"Username": "vtorc", "Password": "wrong-word"}"#).unwrap();
    cluster.start_daemon(&[&flag]);
    let shard = cluster.daemon().finding("AccessDenied");
    assert!(shard.to_string().contains("invalid credentials"), "{shard:#}");
    drop(cluster.daemons.pop());
    std::fs::write(&file, r#"{"Username": "vtorc", "Password": "secret-word"}"#).unwrap();
    cluster.start_daemon(&[&flag]);
    cluster.healthy(&[]);
    assert!(!cluster.daemon().log_text().contains("secret-word"), "a password was logged");
}

/// One tablet whose vttablet speaks TLS, and where the certificates are.
fn with_certificates() -> (Cluster, TempDir) {
    let place = tempfile::tempdir().unwrap();
    certificates(place.path());
    let read = |name: &str| std::fs::read(place.path().join(name)).unwrap();
    let identity = (read("server.pem"), read("server.key"));
    let cluster = with_vttablets("none", &["zone1-101"], Way::Vttablets, |options| {
        options.identity = Some(identity.clone());
    });
    (cluster, place)
}

#[test]
fn certificates_are_checked_by_the_name_that_is_asked_for() {
    let (mut cluster, place) = with_certificates();
    let ca = format!("--tablet_manager_grpc_ca={}", place.path().join("ca.pem").display());
    cluster.start_daemon(&[&ca, "--tablet_manager_grpc_server_name=elsewhere.example"]);
    let told = || {
        let shard = cluster.daemon().shard();
        tablet(&shard, "zone1-101")["trouble"]
            .as_str()
            .filter(|why| why.contains("certificate"))
            .map(|_| ())
    };
    wait_for(told).unwrap_or_else(|| panic!("{:#}", cluster.daemon().shard()));
    drop(cluster.daemons.pop());
    cluster.start_daemon(&[&ca, "--tablet_manager_grpc_server_name=localhost"]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
}

/// A certificate that its authority took back is not talked to, however right its name and signature are.
#[test]
fn a_certificate_that_was_taken_back_is_refused() {
    let (mut cluster, place) = with_certificates();
    let flag = |name: &str, file: &str| {
        format!("--tablet_manager_grpc_{name}={}", place.path().join(file).display())
    };
    let (ca, name) = (flag("ca", "ca.pem"), "--tablet_manager_grpc_server_name=localhost");
    revocation_list(place.path(), "none.crl", &[]);
    cluster.start_daemon(&[&ca, name, &flag("crl", "none.crl")]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
    drop(cluster.daemons.pop());
    revocation_list(place.path(), "server.crl", &["server.pem"]);
    cluster.start_daemon(&[&ca, name, &flag("crl", "server.crl")]);
    let told = || {
        let shard = cluster.daemon().shard();
        let trouble =
            tablet(&shard, "zone1-101")["trouble"].as_str().unwrap_or_default().to_owned();
        trouble.contains("Revoked").then_some(())
    };
    wait_for(told).unwrap_or_else(|| panic!("{:#}", cluster.daemon().shard()));
}

#[test]
fn a_stalled_disk_is_shown_and_replaced_where_that_is_wanted() {
    for way in [Way::Vttablets, Way::Both] {
        let (mut cluster, first) = started("semi_sync", THREE, way);
        cluster.vttablets[&first].stall_disk(true);
        let shard = cluster.daemon().finding("PrimaryDiskStalled");
        assert_eq!(shard["primary"], first);
        drop(cluster.daemons.pop());
        cluster.start_daemon(&["--enable-primary-disk-stalled-recovery"]);
        let done = cluster.daemon().recovery(|one| one["finding"] == "PrimaryDiskStalled");
        assert_eq!(done["outcome"], "succeeded", "{way:?}: {done:#}");
        assert_ne!(done["new_primary"], first.as_str(), "{done:#}");
        cluster.vttablets[&first].stall_disk(false);
        assert_ne!(cluster.healthy(&[]), first);
    }
}

#[test]
fn a_tablet_that_is_drained_or_backed_up_is_left_alone_until_it_comes_back() {
    let (mut cluster, first) = started("none", THREE, Way::Vttablets);
    let others: Vec<&str> = THREE.iter().copied().filter(|one| padded(one) != first).collect();
    let (drained, other) = (padded(others[0]), padded(others[1]));
    for kind in [TabletType::Backup, TabletType::Drained] {
        cluster.vttablets[&drained].change_type(kind);
        let shown = || {
            let shard = cluster.daemon().shard();
            (tablet(&shard, &drained)["type"] == kind.name()).then_some(())
        };
        wait_for(shown).expect("the change was not noticed");
        cluster.server(&drained).run(&["STOP REPLICA"]).unwrap();
        let stands = || {
            let state = tablet(&cluster.daemon().shard(), &drained);
            (state["replication"]["receiver"] == "stopped").then_some(())
        };
        wait_for(stands).expect("that it stands was not seen");
        // Longer than any repair would wait.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        assert!(stands().is_some(), "{kind}: it was not left alone");
        if kind == TabletType::Backup {
            cluster.vttablets[&drained].change_type(TabletType::Replica);
            assert_eq!(cluster.healthy(&[]), first);
        }
    }
    cluster.server_mut(&first).kill();
    assert_eq!(emergency(&cluster)["new_primary"], other.as_str());
}

#[test]
fn a_planned_reparent_by_somebody_else_is_watched_and_not_disturbed() {
    let (mut cluster, first) = started("semi_sync", THREE, Way::Vttablets);
    create_table(cluster.server(&first));
    let before = cluster.daemon().recoveries().len();
    let others: Vec<String> =
        THREE.iter().map(|one| padded(one)).filter(|one| *one != first).collect();
    let topo = topology(&cluster);
    let of = |alias: &str| &cluster.vttablets[alias];
    let (from, to, other) = (of(&first), of(&others[0]), of(&others[1]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shard = "ks/0".parse().unwrap();
    runtime.block_on(vtorc_vttablet_double::vtctld::planned_reparent(
        topo.as_ref(),
        &shard,
        from,
        to,
        &[other],
    ));
    assert_eq!(cluster.settles(|alias| alias == others[0]), others[0]);
    // Whatever it did meanwhile, it moved no primary.
    let moved = |one: &Value| one["kind"] == "EmergencyReparent" && one["outcome"] == "succeeded";
    let fresh: Vec<Value> = cluster.daemon().recoveries().into_iter().rev().skip(before).collect();
    assert!(!fresh.iter().any(moved), "{fresh:#?}");
    cluster.server_mut(&others[0]).kill();
    assert_ne!(cluster.healthy(&[&others[0]]), others[0]);
}

#[test]
fn a_stale_primary_in_the_topology_is_put_right() {
    let (cluster, first) = started("semi_sync", THREE, Way::Vttablets);
    let stale = padded(another(&first));
    let topo = topology(&cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let old = Some(vtorc_core::time::TermStart { seconds: 1000, nanos: 0 });
    let alias = stale.parse().unwrap();
    runtime.block_on(topo.set_tablet_type(&alias, TabletType::Primary, old)).unwrap();
    let put_right = cluster.daemon().recovery(|one| one["finding"] == "StaleTopoPrimary");
    assert_eq!(put_right["outcome"], "succeeded", "{put_right:#}");
    assert_eq!(cluster.healthy(&[]), first);
    assert_eq!(tablet(&cluster.daemon().shard(), &stale)["type"], "REPLICA");
}

#[test]
fn emergency_reparents_that_vitess_forbids_are_not_made() {
    for name in ["ks", "ks/0"] {
        let (mut cluster, first) = started("semi_sync", THREE, Way::Vttablets);
        cluster.topo(&["set-emergency-reparents", name, "off"]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        cluster.server_mut(&first).kill();
        cluster.daemon().held_back("emergency");
        assert_eq!(cluster.daemon().shard()["primary"], first);
        cluster.topo(&["set-emergency-reparents", name, "on"]).unwrap();
        assert_ne!(cluster.healthy(&[&first]), first);
    }
}

#[test]
fn plain_servers_and_vttablets_share_a_shard() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", &[]);
    cluster.add_members(Flavor::MySql, THREE);
    cluster.way = Some(Way::Both);
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    for at in 1..3 {
        add_vttablet(&mut cluster, at, &|_| {});
    }
    let plain = cluster.server("zone1-101").address();
    cluster.topo(&["add-tablet", "zone1-101", "--shard", "ks/0", "--mysql", &plain]).unwrap();
    cluster.start_daemon(&[]);
    let mut primary = cluster.healthy(&[]);
    // Each becomes primary once: from a plain one to a vttablet's, and back.
    for next in ["zone1-102", "zone1-101", "zone1-103", "zone1-101"] {
        if padded(next) == primary {
            continue;
        }
        let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": next}));
        assert_eq!(status, 200, "{primary} to {next}: {answer:#}");
        primary = cluster.settles(|alias| alias == padded(next));
    }
    cluster.server_mut(&primary).kill();
    assert_ne!(cluster.healthy(&[&primary]), primary);
}

/// As after a planned reparent that was undone half-way, or by hand: its record says REPLICA, the shard's record still
/// names it, and nobody else is primary. It is told that it is; taking writes alone would not say so.
#[test]
fn a_primary_whose_vttablet_takes_itself_for_a_replica_is_told_that_it_is_the_primary() {
    for way in [Way::Vttablets, Way::Both] {
        is_told_that_it_is_the_primary(way);
    }
}

fn is_told_that_it_is_the_primary(way: Way) {
    let (cluster, first) = started("semi_sync", THREE, way);
    cluster.vttablets[&first].change_type(TabletType::Replica);
    let recovery = cluster.daemon().recovery(|one| one["kind"] == "FixPrimary");
    assert_eq!(recovery["outcome"], "succeeded", "{recovery:#}");
    let primary = || (cluster.vttablets[&first].tablet_type() == TabletType::Primary).then_some(());
    wait_for(primary).expect("its vttablet still takes itself for a replica");
    assert_eq!(cluster.healthy(&[]), first);
    let begun = cluster.daemon().recoveries().len();
    // Longer than the next one would wait.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(cluster.daemon().recoveries().len(), begun, "it is repaired again and again");
}
