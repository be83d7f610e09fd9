//! A shard with vttablets.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vtorc_clients::topo::conn::TopoConn;
use vtorc_clients::topo::etcd2::{Etcd2Conn, EtcdOptions};
use vtorc_clients::topo::local::LocalConn;
use vtorc_clients::topo::{CellInfo, TopoStore};
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ports::TopoPort;
use vtorc_core::tablet::TabletType;
use vtorc_fleet::{Flavor, free_port};
use vtorc_vttablet_double::{Options, Vttablet};

use super::programs;
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
    opened(&programs::topology(cluster))
}

fn opened(flags: &[(String, String)]) -> TopoStore {
    let flag = |name: &str| flags.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let root = flag("topo-global-root").unwrap().clone();
    let etcd = flag("topo-implementation").is_some_and(|name| name == "etcd2");
    let open = move |address: &str, root: &str| -> Arc<dyn TopoConn> {
        let options = EtcdOptions { lease_ttl: Duration::from_secs(30), tls: None };
        match etcd {
            true => Arc::new(Etcd2Conn::new(address, root, &options).unwrap()),
            false => Arc::new(LocalConn::open(Path::new(root)).unwrap()),
        }
    };
    let address = flag("topo-global-server-address").cloned().unwrap_or_default();
    let global = open(&address, &root);
    let dial = Arc::new(move |_: &str, cell: &CellInfo| open(&cell.server_address, &cell.root));
    TopoStore::new(global, dial, DurabilityPolicy::None)
}

/// A shard of real servers, each with a vttablet before it; `change` changes how each is to run.
pub fn with_vttablets(
    policy: &str,
    members: &[&str],
    way: Way,
    change: impl Fn(&mut Options),
) -> Cluster {
    let cluster = Cluster::new(Flavor::MySql, policy, &[]);
    before_servers(cluster, members, way, change)
}

/// The same in a topology that is there already.
pub fn before_servers(
    mut cluster: Cluster,
    members: &[&str],
    way: Way,
    change: impl Fn(&mut Options),
) -> Cluster {
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
    let (kind, flags) = (&member.kind, programs::topology(cluster));
    let add = ["add-tablet", &member.alias, "--shard", "ks/0", "--mysql", &mysql, "--type", kind];
    cluster.topo(&[&add[..], &["--vttablet", &vttablet]].concat()).unwrap();
    let double = Vttablet::start(options, Arc::new(move || Arc::new(opened(&flags))), address);
    cluster.vttablets.insert(crate::harness::padded(&member.alias), double);
}
