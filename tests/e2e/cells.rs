//! A cell with a topology server of its own, which is away: the shards go on.

use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::emergency;
use crate::harness::{Cluster, padded, wait_for};

/// A shard that has nothing in the cell.
const ELSEWHERE: &[&str] = &["zone1-101", "zone1-102", "zone1-103"];
/// A shard that has an acker there.
const WITH_ACKER: &[&str] = &["zone1-101", "zone1-102", "zone2-103"];

/// What keeps the topology of zone2 alone, and how it goes away and comes back.
pub struct Away<'a, S> {
    pub server: &'a mut S,
    pub address: &'a str,
    pub leave: &'a dyn Fn(&Cluster, &mut S),
    pub come_back: &'a dyn Fn(&Cluster, &mut S),
}

/// A shard as it should be, in a topology of which zone2 is on a server of its own.
fn settled<S>(cluster: &mut Cluster, away: &Away<'_, S>, members: &[&str]) -> String {
    let place = ["--server-address", away.address, "--root", "/vitess/zone2"];
    cluster.topo(&[&["add-cell", "zone2"], place.as_slice()].concat()).unwrap();
    // Somebody else's tablet makes the root, which is missing otherwise.
    cluster.topo(&["add-keyspace", "other"]).unwrap();
    cluster.topo(&["add-shard", "other/0"]).unwrap();
    let others = ["add-tablet", "zone2-900", "--shard", "other/0", "--mysql", "127.0.0.1:1"];
    cluster.topo(&others).unwrap();
    cluster.add_members(Flavor::MariaDb, members);
    cluster.register_members();
    cluster.start_daemon(&["own-history"]);
    let first = cluster.healthy(&[]);
    assert!(first.starts_with("zone1"), "{first}");
    first
}

/// Waits until zone2 is known to be unread, and answers why.
fn unread(cluster: &Cluster) -> String {
    let told = || {
        let warnings = cluster.daemon().get("/api/v1/system")["topology_warnings"].clone();
        warnings["cell zone2"].as_str().map(str::to_owned)
    };
    let why = wait_for(told).expect("nobody says that zone2 cannot be read");
    assert!(why.contains("update-cell zone2"), "{why}");
    why
}

/// Starts vtorc anew, which knows nothing of before, and waits until it has heard from everybody of these.
fn starts_anew(cluster: &mut Cluster, members: &[&str], primary: &str) {
    cluster.daemons.pop();
    cluster.start_daemon(&["own-history"]);
    let heard = || {
        let shard = cluster.daemon().shard();
        let tablets = shard["tablets"].as_array()?;
        let reachable = |tablet: &&Value| tablet["reachable"] == true;
        let reachable = tablets.iter().filter(reachable).count();
        (shard["primary"] == primary && reachable == members.len()).then_some(())
    };
    wait_for(heard).unwrap_or_else(|| panic!("not heard: {:#}", cluster.daemon().shard()));
}

/// Whoever is primary dies; another takes over although zone2 cannot be read.
fn is_replaced(cluster: &mut Cluster, first: &str) {
    cluster.server_mut(first).kill();
    let replaced = || {
        let shard = cluster.daemon().shard();
        shard["primary"].as_str().filter(|primary| *primary != first).map(str::to_owned)
    };
    let second =
        wait_for(replaced).unwrap_or_else(|| panic!("no failover: {:#}", cluster.daemon().shard()));
    assert_eq!(emergency(cluster)["new_primary"], second.as_str());
    assert!(cluster.topo(&["show", "ks/0"]).unwrap().contains(&second));
    unread(cluster);
}

/// It goes away while vtorc runs. A shard that has nothing there is failed over.
pub fn goes_away<S>(mut cluster: Cluster, away: Away<'_, S>) {
    let first = settled(&mut cluster, &away, ELSEWHERE);
    (away.leave)(&cluster, away.server);
    unread(&cluster);
    is_replaced(&mut cluster, &first);
    (away.come_back)(&cluster, away.server);
    cluster.healthy(&[&first]);
}

/// The same of a shard that has an acker there: it is known from before.
pub fn goes_away_with_an_acker<S>(mut cluster: Cluster, away: Away<'_, S>) {
    let first = settled(&mut cluster, &away, WITH_ACKER);
    (away.leave)(&cluster, away.server);
    unread(&cluster);
    is_replaced(&mut cluster, &first);
    assert_eq!(cluster.daemon().shard()["tablets"].as_array().unwrap().len(), 3);
    (away.come_back)(&cluster, away.server);
    cluster.healthy(&[&first]);
}

/// It is away when vtorc starts. A shard that has nothing there, by its primary's word, is failed over.
pub fn is_away_at_start<S>(mut cluster: Cluster, away: Away<'_, S>) {
    let first = settled(&mut cluster, &away, ELSEWHERE);
    (away.leave)(&cluster, away.server);
    starts_anew(&mut cluster, ELSEWHERE, &first);
    unread(&cluster);
    is_replaced(&mut cluster, &first);
}

/// The same of a shard that has an acker there, of which nobody can know: that is said, and it is failed over as soon
/// as the cell can be read.
pub fn is_away_at_start_with_an_acker<S>(mut cluster: Cluster, away: Away<'_, S>) {
    let first = settled(&mut cluster, &away, WITH_ACKER);
    (away.leave)(&cluster, away.server);
    starts_anew(&mut cluster, &WITH_ACKER[..2], &first);
    cluster.daemon().finding("UnreadTopology");
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("cell zone2");
    assert_eq!(cluster.daemon().shard()["primary"], padded(&first));
    (away.come_back)(&cluster, away.server);
    assert_ne!(cluster.healthy(&[&first]), first);
}

/// The primary goes away with its cell, as where a whole zone is lost: it is replaced, and what cannot be written of it
/// does not make the failover a failed one. It comes back before the cell's topology server does, and follows at once.
pub fn goes_away_with_the_primary<S>(mut cluster: Cluster, away: Away<'_, S>) {
    settled(&mut cluster, &away, WITH_ACKER);
    let wanted = json!({"new_primary": "zone2-103"});
    let (code, answer) = cluster.daemon().post("/api/v1/shards/ks/0/planned-reparent", wanted);
    assert_eq!(code, 202, "{answer}");
    let first = cluster.settles(|primary| primary.starts_with("zone2"));
    (away.leave)(&cluster, away.server);
    unread(&cluster);
    is_replaced(&mut cluster, &first);
    cluster.server_mut(&first).restart().unwrap();
    let follows = || {
        let server = cluster.server(&first);
        let rows = server.value(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'system user'",
        );
        let read_only = server.value("SELECT @@GLOBAL.read_only").ok()?;
        (rows.ok()? != "0" && read_only == "1").then_some(())
    };
    wait_for(follows).unwrap_or_else(|| panic!("{:#}", cluster.daemon().shard()));
    (away.come_back)(&cluster, away.server);
    cluster.healthy(&[&first]);
}
