//! A shard with vttablets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use vtorc_clients::topo::TopoStore;
use vtorc_clients::topo::local::LocalConn;
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ports::TopoPort;
use vtorc_core::topology::TabletType;
use vtorc_fleet::{Flavor, free_port};
use vtorc_vttablet_double::{Options, Vttablet};

use crate::harness::Cluster;

/// Whether vtorc may log in at the servers, beside calling their vttablets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the vttablets alone.
    Vttablets,
    /// The servers are probed directly as well.
    Both,
}

/// The topology as a tablet, or a vtctld, sees it.
pub fn topology(cluster: &Cluster) -> Arc<dyn TopoPort> {
    Arc::new(store(cluster))
}

pub fn store(cluster: &Cluster) -> TopoStore {
    let root = cluster.directory.path().join("topo/global");
    let global = Arc::new(LocalConn::open(&root).unwrap());
    let dial = Arc::new(|_: &str, cell: &vtorc_clients::topo::CellInfo| {
        let root = std::path::Path::new(&cell.root);
        Arc::new(LocalConn::open(root).unwrap()) as Arc<dyn vtorc_clients::topo::conn::TopoConn>
    });
    TopoStore::new(global, dial, DurabilityPolicy::None)
}

/// A shard of real servers, each with a vttablet before it; `change` changes how each is to run.
pub fn with_vttablets(
    policy: &str,
    members: &[&str],
    way: Way,
    change: impl Fn(&mut Options),
) -> Cluster {
    let mut cluster = Cluster::new(Flavor::MySql, policy, &[]);
    cluster.add_members(Flavor::MySql, members);
    cluster.way = Some(way);
    cluster.configure(&[]);
    for at in 0..cluster.members.len() {
        add_vttablet(&mut cluster, at, &change);
    }
    cluster
}

/// Registers a member with a vttablet, and starts that.
pub fn add_vttablet(cluster: &mut Cluster, at: usize, change: &impl Fn(&mut Options)) {
    let (member, server) = (cluster.members[at].clone(), &cluster.servers[at]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let (mysql, vttablet) = (server.address(), address.to_string());
    let mut options = Options {
        alias: member.alias.parse().unwrap(),
        shard: "ks/0".parse().unwrap(),
        base_type: TabletType::from_name(&member.kind).unwrap(),
        socket: server.socket(),
        replica_user: ("vt_repl".into(), String::new()),
        disable_active_reparents: true,
        credentials: None,
        identity: None,
        old: false,
    };
    change(&mut options);
    let kind = &member.kind;
    let add = ["add-tablet", &member.alias, "--shard", "ks/0", "--mysql", &mysql, "--type", kind];
    cluster.topo(&[&add[..], &["--vttablet", &vttablet]].concat()).unwrap();
    let double = Vttablet::start(options, topology(cluster), address);
    cluster.vttablets.insert(crate::harness::padded(&member.alias), double);
}
