//! A vtorc that is cut off itself must not take everybody else for dead.

use vtorc_fleet::{Flavor, Server, ServerOptions};

use crate::harness::{Cluster, THREE, padded, template, wait_for};

/// Two more servers, in a keyspace of their own.
fn another_shard(cluster: &Cluster, keyspace: &str, first: u32) -> Vec<Server> {
    cluster.topo(&["add-keyspace", keyspace, "--durability-policy", "semi_sync"]).unwrap();
    let shard = format!("{keyspace}/0");
    cluster.topo(&["add-shard", &shard]).unwrap();
    let start = |uid: u32| {
        let alias = format!("zone1-{uid}");
        let place = cluster.directory.path().join(&alias);
        let server =
            Server::start(template(Flavor::MariaDb), &place, ServerOptions::default()).unwrap();
        let address = server.address();
        cluster.topo(&["add-tablet", &alias, "--shard", &shard, "--mysql", &address]).unwrap();
        server
    };
    vec![start(first), start(first + 1)]
}

#[test]
fn when_most_of_everything_is_lost_at_once_vtorc_doubts_itself() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    let mut others = another_shard(&cluster, "b", 201);
    others.extend(another_shard(&cluster, "c", 301));
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    for path in ["/api/v1/shards/b/0", "/api/v1/shards/c/0"] {
        let up = || {
            let shard = cluster.daemon().get(path);
            (shard["primary"].is_string() && shard["findings"].as_array()?.is_empty()).then_some(())
        };
        wait_for(up).unwrap_or_else(|| panic!("{:#}", cluster.daemon().get(path)));
    }
    let replica = *THREE.iter().find(|alias| padded(alias) != first).unwrap();

    others.iter().for_each(Server::freeze);
    cluster.server(replica).freeze();
    cluster.server(&first).freeze();
    let held = wait_for(|| {
        let shard = cluster.daemon().shard();
        let decisions = shard["why_not"].as_array()?.clone();
        decisions
            .into_iter()
            .find(|one| one["why"] == "manager_isolated" && one["count"].as_u64() > Some(3))
    });
    let held = held.unwrap_or_else(|| panic!("{:#}", cluster.daemon().shard()));
    assert!(held["reason"].as_str().unwrap().contains("most of 3 of 3 shards"), "{held:#}");
    assert!(cluster.daemon().get("/api/v1/system")["isolated"].is_string());
    assert!(cluster.daemon().get("/metrics").as_str().unwrap().contains("vtorc_isolated 1"));
    assert_eq!(cluster.daemon().shard()["primary"], first);

    // The others are seen again: what is left is a dead primary.
    others.iter().for_each(Server::thaw);
    cluster.server(replica).thaw();
    assert_ne!(cluster.healthy(&[&first]), first);
    let over = wait_for(|| {
        let shard = cluster.daemon().shard();
        let decisions = shard["why_not"].as_array()?.clone();
        decisions
            .into_iter()
            .find(|one| one["why"] == "manager_isolated" && !one["until"].is_null())
    });
    assert!(over.is_some(), "{:#}", cluster.daemon().shard());
    assert!(cluster.daemon().get("/api/v1/system")["isolated"].is_null());
}
